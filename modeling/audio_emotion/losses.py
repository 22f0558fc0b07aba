"""Supervised loss terms, by name and unweighted."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

IMPOSSIBLE = -1e4  # logit of a class that is left out of the softmax
EPSILON = 1e-8  # gives a constant batch a CCC of 0 and a finite gradient; variances in 0..1 are far above it


def concordance(predictions: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    r"""Concordance correlation coefficient per column (Lin 1989), population moments, differentiable.

    .. math:: \rho_c = \frac{2\,\mathrm{cov}(x, y)}{\mathrm{var}(x) + \mathrm{var}(y) + (\bar x - \bar y)^2}

    Args:
        predictions (`torch.Tensor` of shape `(B, A)`): in 0..1.
        targets (`torch.Tensor` of shape `(B, A)`): in 0..1; any finite value where `weights` is 0.
        weights (`torch.Tensor` of shape `(B, A)`): of each pair in the moments, 0 where it is missing or padding.

    Returns:
        `(A,)` in -1..1; 0 for a column of constants or without pairs.
    """
    predictions, targets, weights = predictions.float(), targets.float(), weights.float()
    count = weights.sum(0).clamp(min=EPSILON)  # (A,)
    prediction_mean = (weights * predictions).sum(0) / count  # (A,)
    target_mean = (weights * targets).sum(0) / count  # (A,)
    prediction_offset = predictions - prediction_mean  # (B, A)
    target_offset = targets - target_mean  # (B, A)
    covariance = (weights * prediction_offset * target_offset).sum(0) / count  # (A,)
    variances = (weights * (prediction_offset.square() + target_offset.square())).sum(0) / count  # (A,)
    return 2 * covariance / (variances + (prediction_mean - target_mean).square() + EPSILON)


def dimension_loss(
    dimensions: torch.Tensor, targets: torch.Tensor, dimension_weights: list[float], weight: torch.Tensor
) -> torch.Tensor:
    """One minus the weighted mean CCC over the batch (Mitra et al. 2022, the loss of the multi-task networks).

    Args:
        dimensions (`torch.Tensor` of shape `(B, A)`): predictions.
        targets (`torch.Tensor` of shape `(B, A)`): NaN where a rating is missing.
        dimension_weights: one weight per dimension; a dimension without targets in the batch is left out.
        weight (`torch.Tensor` of shape `(B,)`): of each clip in the moments; 0 for clips that pad the batch.
    """
    known = targets.isfinite() & (weight > 0).unsqueeze(-1)  # (B, A)
    agreement = concordance(dimensions, targets.where(known, 0.0), known * weight.unsqueeze(-1))  # (A,)
    importance = torch.tensor(dimension_weights, device=agreement.device) * known.any(0)  # (A,)
    return (importance * (1 - agreement)).sum() / importance.sum().clamp(min=EPSILON)


def emotion_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weight: torch.Tensor,
    label_smoothing: float = 0.0,
    possible: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy averaged over the clips that have a label.

    Args:
        logits (`torch.Tensor` of shape `(B, C)`): before the softmax.
        labels (`torch.Tensor` of shape `(B,)` or `(B, C)`): class numbers with -100 where missing, or target
            distributions with NaN where missing.
        weight (`torch.Tensor` of shape `(B,)`): 0 for clips that pad the batch.
        label_smoothing: fraction of the target that is spread over all (possible) classes.
        possible (`torch.Tensor` of shape `(B, C)`, *optional*): classes that the corpus of a clip distinguishes; the
            softmax is taken over them alone.
    """
    if labels.is_floating_point():
        known = labels.isfinite().all(-1)  # (B,)
        labels = labels.nan_to_num()
    else:
        known = labels >= 0  # (B,)
        labels = labels.clamp(min=0)
    if possible is None:
        each = nn.functional.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=label_smoothing)
    else:
        target = labels if labels.is_floating_point() else nn.functional.one_hot(labels, logits.shape[-1])  # (B, C)
        uniform = possible / possible.sum(-1, keepdim=True)  # (B, C)
        target = (1 - label_smoothing) * target + label_smoothing * uniform
        each = -(target * logits.float().masked_fill(~possible, IMPOSSIBLE).log_softmax(-1)).sum(-1)  # (B,)
    weight = weight * known  # (B,)
    return (weight * each).sum() / weight.sum().clamp(min=1.0)


def variance_loss(
    dimensions: torch.Tensor, log_variance: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Gaussian negative log-likelihood of the targets, averaged over known pairs; trains the variance alone.

    The prediction is detached: it is trained by the CCC.
    """
    known = targets.isfinite() * weight.unsqueeze(-1)  # (B, A)
    squared = (dimensions.float().detach() - targets.where(targets.isfinite(), 0.0)).square()  # (B, A)
    each = 0.5 * (log_variance.float() + squared * torch.exp(-log_variance.float()))  # (B, A)
    return (known * each).sum() / known.sum().clamp(min=1.0)


class Targets(NamedTuple):
    """The arguments of [`supervised_terms`] that a term may need."""

    labels: torch.Tensor | None  # (B,) or (B, C)
    dimension_labels: torch.Tensor | None  # (B, A)
    dimension_weights: list[float]
    weight: torch.Tensor  # (B,)
    label_smoothing: float = 0.0
    possible: torch.Tensor | None = None  # (B, C)


def _dimension_term(outputs: Any, targets: Targets) -> torch.Tensor | None:
    if outputs.dimensions is None or targets.dimension_labels is None:
        return None
    return dimension_loss(outputs.dimensions, targets.dimension_labels, targets.dimension_weights, targets.weight)


def _variance_term(outputs: Any, targets: Targets) -> torch.Tensor | None:
    if outputs.dimensions is None or outputs.log_variance is None or targets.dimension_labels is None:
        return None
    return variance_loss(outputs.dimensions, outputs.log_variance, targets.dimension_labels, targets.weight)


def _emotion_term(outputs: Any, targets: Targets) -> torch.Tensor | None:
    if outputs.logits is None or targets.labels is None:
        return None
    return emotion_loss(outputs.logits, targets.labels, targets.weight, targets.label_smoothing, targets.possible)


# Terms by name. Each maps an `EmotionOutput` and `Targets` to a scalar, or to None where the model lacks the head or
# the batch the labels. To add one, from inside or outside the package, assign a function to its name; the recipes
# weight it by their argument `<name>_weight`, or by 1.
SUPERVISED_TERMS: dict[str, Callable[[Any, Targets], torch.Tensor | None]] = {
    "dimensions": _dimension_term,
    "variance": _variance_term,
    "emotions": _emotion_term,
}


def supervised_terms(
    outputs: Any,
    labels: torch.Tensor | None,
    dimension_labels: torch.Tensor | None,
    dimension_weights: list[float],
    weight: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    possible: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Compute every term of `SUPERVISED_TERMS` for which there are a head and labels.

    Args:
        outputs: an `EmotionOutput`.
        labels (`torch.Tensor` of shape `(B,)` or `(B, C)`, *optional*): see [`emotion_loss`].
        dimension_labels (`torch.Tensor` of shape `(B, A)`, *optional*): see [`dimension_loss`].
        dimension_weights: one weight per dimension.
        weight (`torch.Tensor` of shape `(B,)`, *optional*): 0 for clips that pad the batch.
        label_smoothing: see [`emotion_loss`].
        possible (`torch.Tensor` of shape `(B, C)`, *optional*): see [`emotion_loss`].

    Returns:
        the terms by name, unweighted.
    """
    if weight is None:
        weight = outputs.embedding.new_ones(outputs.embedding.shape[0], dtype=torch.float32)
    targets = Targets(labels, dimension_labels, dimension_weights, weight, label_smoothing, possible)
    terms = {name: term(outputs, targets) for name, term in SUPERVISED_TERMS.items()}
    return {name: value for name, value in terms.items() if value is not None}
