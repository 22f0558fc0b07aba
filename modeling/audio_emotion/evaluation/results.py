"""Predictions into the numbers of `results.json`: with intervals, and with the control of norm-derived targets."""

from __future__ import annotations

from typing import Any

import numpy as np

from audio_emotion.evaluation.metrics import (
    accuracy,
    bootstrap_interval,
    concordance_correlation,
    macro_f1,
    unweighted_average_recall,
)
from audio_emotion.evaluation.predictions import Predictions
from audio_emotion.training.affective_norms import norm_derived_dimensions


def measure(
    predictions: Predictions,
    emotions: list[str],
    dimensions: list[str],
    dimensions_source: str | None,
    repeats: int = 1000,
) -> dict[str, Any]:
    """Score categories and dimensions over the whole set at once.

    Intervals are 95 % bootstrap intervals over clips: on one fixed split they tell nothing of other speakers.

    Args:
        predictions: of every clip.
        emotions: class names in logit order.
        dimensions: names in column order.
        dimensions_source: `"norm-derived"` adds the control.
        repeats: bootstrap samples; 0 leaves the intervals out.

    Returns:
        `clips`, `speakers`, and for `uar`, `accuracy`, `macro_f1` and `ccc_<dimension>` the value, with its interval
        as `[low, high]` under `intervals`; `control_ccc_<dimension>` for norm-derived targets.
    """
    known = predictions.labels >= 0
    classes, labels = predictions.logits.argmax(-1)[known], predictions.labels[known]
    results: dict[str, Any] = {"clips": len(predictions.ids), "speakers": sorted(set(predictions.speakers.tolist()))}
    intervals: dict[str, list[float]] = {}
    for name, statistic in (("uar", unweighted_average_recall), ("accuracy", accuracy), ("macro_f1", macro_f1)):
        results[name] = float(statistic(classes, labels))
        if repeats:
            low, high = bootstrap_interval(statistic, classes, labels, repeats=repeats)
            intervals[name] = [float(low), float(high)]
    controls = control_dimensions(predictions.logits, emotions) if dimensions_source == "norm-derived" else None
    for column, name in enumerate(dimensions):
        predicted, target = predictions.dimensions[:, column], predictions.dimension_labels[:, column]
        rated = np.isfinite(target)
        results[f"ccc_{name}"] = float(concordance_correlation(predicted[rated], target[rated]))
        if repeats:
            low, high = bootstrap_interval(concordance_correlation, predicted[rated], target[rated], repeats=repeats)
            intervals[f"ccc_{name}"] = [float(low), float(high)]
        if controls is not None:
            control = concordance_correlation(controls[rated, column], target[rated])
            results[f"control_ccc_{name}"] = float(control)
    return {**results, "intervals": intervals}


def control_dimensions(logits: np.ndarray, emotions: list[str]) -> np.ndarray:
    """Norms of the emotion words averaged under the category posterior, `(N, C)` to `(N, 3)`.

    Targets derived from the category can be predicted from the category: only what a regression head adds to this is
    a claim about dimensions.
    """
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    posterior = shifted / shifted.sum(-1, keepdims=True)  # (N, C)
    return posterior @ np.array([norm_derived_dimensions(emotion) for emotion in emotions])  # (N, 3)
