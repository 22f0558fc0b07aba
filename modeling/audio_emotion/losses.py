"""The supervised losses, as named and unweighted terms."""

# SPDX-License-Identifier: Apache-2.0

import torch
from torch import nn

EPSILON = 1e-8  # keeps a constant batch at CCC 0 with a finite gradient; variances in 0..1 are far above it


def concordance(predictions: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    r"""Concordance correlation coefficient per column (Lin 1989), population moments, differentiable.

    .. math:: \rho_c = \frac{2\,\mathrm{cov}(x, y)}{\mathrm{var}(x) + \mathrm{var}(y) + (\bar x - \bar y)^2}

    Args:
        predictions (`torch.Tensor` of shape `(B, A)`): in 0..1.
        targets (`torch.Tensor` of shape `(B, A)`): in 0..1; 0, say, where `weights` is 0.
        weights (`torch.Tensor` of shape `(B, A)`): 1 where the pair counts, 0 where it is missing or padding.

    Returns:
        `(A,)` in -1..1; 0 for a column of constants or without pairs.
    """
    predictions, targets, weights = predictions.float(), targets.float(), weights.float()
    count = weights.sum(0).clamp(min=1.0)  # (A,)
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
        dimension_weights: one weight a dimension; a dimension without any target in the batch is left out.
        weight (`torch.Tensor` of shape `(B,)`): 0 for clips that only fill the batch.
    """
    known = targets.isfinite() & (weight > 0).unsqueeze(-1)  # (B, A)
    agreement = concordance(dimensions, targets.where(known, 0.0), known)  # (A,)
    importance = torch.tensor(dimension_weights, device=agreement.device) * known.any(0)  # (A,)
    return (importance * (1 - agreement)).sum() / importance.sum().clamp(min=EPSILON)


def emotion_loss(
    logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Cross-entropy averaged over the clips that have a label.

    Args:
        logits (`torch.Tensor` of shape `(B, C)`): before the softmax.
        labels (`torch.Tensor` of shape `(B,)` or `(B, C)`): class numbers with -100 where missing, or target
            distributions with NaN where missing.
        weight (`torch.Tensor` of shape `(B,)`): 0 for clips that only fill the batch.
        label_smoothing: share of the target spread over all classes.
    """
    if labels.is_floating_point():
        known = labels.isfinite().all(-1)  # (B,)
        labels = labels.nan_to_num()
    else:
        known = labels >= 0  # (B,)
        labels = labels.clamp(min=0)
    each = nn.functional.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=label_smoothing)
    weight = weight * known  # (B,)
    return (weight * each).sum() / weight.sum().clamp(min=1.0)


def variance_loss(
    dimensions: torch.Tensor, log_variance: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Gaussian negative log-likelihood of the targets, averaged over known pairs; trains the variance alone.

    The prediction is detached: the CCC decides where it lies, this term only how sure the model is.
    """
    known = targets.isfinite() * weight.unsqueeze(-1)  # (B, A)
    squared = (dimensions.float().detach() - targets.where(targets.isfinite(), 0.0)).square()  # (B, A)
    each = 0.5 * (log_variance.float() + squared * torch.exp(-log_variance.float()))  # (B, A)
    return (known * each).sum() / known.sum().clamp(min=1.0)


def supervised_terms(
    outputs,
    labels: torch.Tensor | None,
    dimension_labels: torch.Tensor | None,
    dimension_weights: list[float],
    weight: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> dict[str, torch.Tensor]:
    """The terms that labels give, by name and unweighted.

    Args:
        outputs: an `EmotionOutput`.
        labels (`torch.Tensor` of shape `(B,)` or `(B, C)`, *optional*): see [`emotion_loss`].
        dimension_labels (`torch.Tensor` of shape `(B, A)`, *optional*): see [`dimension_loss`].
        dimension_weights: one weight a dimension.
        weight (`torch.Tensor` of shape `(B,)`, *optional*): 0 for clips that only fill the batch.
        label_smoothing: see [`emotion_loss`].

    Returns:
        `{"dimensions", "emotions", "variance"}`, those for which there are a head and labels.
    """
    if weight is None:
        weight = outputs.embedding.new_ones(outputs.embedding.shape[0], dtype=torch.float32)
    terms = {}
    if dimension_labels is not None and outputs.dimensions is not None:
        terms["dimensions"] = dimension_loss(outputs.dimensions, dimension_labels, dimension_weights, weight)
        if outputs.log_variance is not None:
            terms["variance"] = variance_loss(outputs.dimensions, outputs.log_variance, dimension_labels, weight)
    if labels is not None and outputs.logits is not None:
        terms["emotions"] = emotion_loss(outputs.logits, labels, weight, label_smoothing)
    return terms
