"""Scale the predicted variances of the dimensions to the errors on validation speakers.

A variance is trained on the errors on training clips, which are smaller than those on other speakers. One factor for
each dimension, the maximum-likelihood one for a normal distribution, is added to the bias of the head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from audio_emotion.evaluation.predictions import Predictions

SMALLEST = 1e-6  # factor on a standard deviation


def calibrate_variance(model: Any, predictions: Predictions) -> dict[str, float]:
    """Scale the variances that a model predicts, in place.

    Args:
        model: a teacher or a student.
        predictions: of the model, on validation speakers.

    Returns:
        By dimension the factor on the standard deviation: the root mean square of the errors in units of the predicted
        standard deviation, which is 1 afterward. Empty for a model without variance; dimensions without labels are
        left out.
    """
    head: nn.Linear | None = model.heads.log_variance
    if head is None or predictions.variances is None:
        return {}
    errors = np.square(predictions.dimensions - predictions.dimension_labels.astype(float))  # (N, A)
    scales = {}
    for column, name in enumerate(model.config.dimensions):
        standardized = errors[:, column] / predictions.variances[:, column]
        if np.isfinite(standardized).any():
            scales[name] = max(float(np.sqrt(np.nanmean(standardized))), SMALLEST)
            with torch.no_grad():
                head.bias[column] += 2 * float(np.log(scales[name]))
    return scales


def write_calibrated(model: Any, predictions: Predictions | None, write: Callable[[], Any]) -> None:
    """Write a model in training with its variances scaled, and undo that: training continues with its own.

    Args:
        model: the one that is written.
        predictions: of the model, on validation speakers; None to write it as it is.
        write: writes it.
    """
    head = model.heads.log_variance
    before = None if head is None else head.bias.detach().clone()
    if predictions is not None:
        calibrate_variance(model, predictions)
    write()
    if before is not None:
        with torch.no_grad():
            head.bias.copy_(before)
