"""Metrics of dimensional and categorical emotion, in numpy and float64.

Each is computed over the whole set at once, never averaged over batches. Predictions come first, references second.

Metrics of dimensions take (N,) and return a float, or (N, D) and return (D,). References are NaN where a clip has no
label: each column leaves out its own unlabeled clips. Unequal shapes, and a prediction that is not finite beside a
reference, raise a ValueError. Metrics of classes take names or numbers, (N,), and return NaN without clips.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike


def each_column(
    metric: Callable[[np.ndarray, np.ndarray], float],
) -> Callable[[ArrayLike, ArrayLike], float | np.ndarray]:
    """Apply a metric of (N,) and (N,) to every column, without the clips that have no reference in it."""

    @wraps(metric)
    def columns(predictions: ArrayLike, references: ArrayLike) -> float | np.ndarray:
        predicted, true = np.asarray(predictions, dtype=np.float64), np.asarray(references, dtype=np.float64)
        if predicted.shape != true.shape or predicted.ndim not in (1, 2):
            raise ValueError(
                f"Expected predictions and references of one shape, (N,) or (N, D), got {predicted.shape} and "
                f"{true.shape}."
            )
        labeled = ~np.isnan(true)
        if not np.isfinite(predicted[labeled]).all():
            first = np.argwhere(labeled & ~np.isfinite(predicted))[0]
            raise ValueError(
                f"Expected finite predictions, got {predicted[tuple(first)]} for clip {first[0]}. Find out why the "
                "model outputs it before evaluating the model."
            )
        if predicted.ndim == 1:
            return metric(predicted[labeled], true[labeled])
        pairs = zip(predicted.T, true.T, labeled.T, strict=True)
        return np.array([metric(p[known], r[known]) for p, r, known in pairs])

    return columns


@each_column
def concordance_correlation(predictions: np.ndarray, references: np.ndarray) -> float:
    """Concordance correlation coefficient in [-1, 1], with population moments (divided by N, not N - 1).

        CCC = 2 cov(p, r) / (var(p) + var(r) + (mean(p) - mean(r))^2)

    Unlike Pearson's coefficient it falls when predictions are shifted or scaled. Exactly 0 if predictions or
    references are constant, even if they are equal; NaN with fewer than two labeled clips.

    Source:
        Lin 1989, A concordance correlation coefficient to evaluate reproducibility, Biometrics 45(1), 255-268.
    """
    if len(references) < 2:
        return float("nan")
    if np.ptp(predictions) == 0 or np.ptp(references) == 0:  # not variance == 0: that of equal floats may differ
        return 0.0
    covariance = np.mean((predictions - predictions.mean()) * (references - references.mean()))
    distance = (predictions.mean() - references.mean()) ** 2
    return float(2 * covariance / (predictions.var() + references.var() + distance))


@each_column
def pearson_correlation(predictions: np.ndarray, references: np.ndarray) -> float:
    """Pearson's correlation coefficient in [-1, 1]: cov(p, r) / (std(p) std(r)).

    0 if predictions or references are constant; NaN with fewer than two labeled clips.
    """
    if len(references) < 2:
        return float("nan")
    if np.ptp(predictions) == 0 or np.ptp(references) == 0:
        return 0.0
    covariance = np.mean((predictions - predictions.mean()) * (references - references.mean()))
    return float(np.clip(covariance / (predictions.std() * references.std()), -1.0, 1.0))


@each_column
def mean_absolute_error(predictions: np.ndarray, references: np.ndarray) -> float:
    """Mean of |p - r|, in the unit of the references; NaN without labeled clips."""
    return float(np.mean(np.abs(predictions - references))) if len(references) else float("nan")


def accuracy(predictions: ArrayLike, references: ArrayLike) -> float:
    """Fraction of clips whose class is right (weighted average recall), in [0, 1]."""
    counts = _confusion_counts(predictions, references)
    return float(np.trace(counts) / counts.sum()) if counts.size else float("nan")


def unweighted_average_recall(predictions: ArrayLike, references: ArrayLike) -> float:
    """Unweighted average recall (UAR, balanced accuracy) in [0, 1]: the mean over classes of each class's recall.

        UAR = 1/C sum_c  correct_c / N_c

    Classes without a reference clip have no recall and are left out of the mean. Chance is 1/C.

    Source:
        Schuller et al. 2009, The INTERSPEECH 2009 emotion challenge.
    """
    counts = _confusion_counts(predictions, references)
    present = counts.any(axis=1)
    return float(np.mean(np.diag(counts)[present] / counts.sum(axis=1)[present])) if present.any() else float("nan")


def macro_f1(predictions: ArrayLike, references: ArrayLike) -> float:
    """Mean over classes of 2 correct_c / (N_c + predicted_c), in [0, 1].

    The mean is over the classes that occur in predictions or references: a class that is predicted but has no
    reference clip counts as 0.
    """
    counts = _confusion_counts(predictions, references)
    scores = 2 * np.diag(counts) / (counts.sum(axis=0) + counts.sum(axis=1))
    return float(scores.mean()) if scores.size else float("nan")


def interval_coverage(
    predictions: ArrayLike, variances: ArrayLike, references: ArrayLike, level: float
) -> float | np.ndarray:
    """Fraction of the references inside the central interval of a normal distribution around the predictions.

    Args:
        predictions: `(N,)` or `(N, D)` means.
        variances: of the same shape.
        references: of the same shape, NaN where a clip has no label.
        level: probability of the interval; the fraction that calibrated variances give.
    """
    half = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt(np.asarray(variances, dtype=np.float64))
    distance = np.abs(np.asarray(predictions, dtype=np.float64) - np.asarray(references, dtype=np.float64))
    labeled = np.isfinite(distance)
    counts = labeled.sum(0)
    inside = ((distance <= half) & labeled).sum(0)
    found: np.ndarray = np.where(counts > 0, inside / np.maximum(counts, 1), np.nan)
    return found if found.ndim else float(found)


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error (ECE): the mean difference between confidence and accuracy.

        ECE = sum_b  n_b / N  |accuracy_b - confidence_b|

    over `bins` bins of equal width, each ((b - 1) / bins, b / bins], of the largest probability of each clip.

    Args:
        probabilities: (N, C), rows that sum to 1.
        labels: (N,) integer index of the true class.
        bins: number of bins.

    Returns:
        A float in [0, 1]; 0 is perfectly calibrated; NaN without clips.

    Source:
        Guo et al. 2017, On calibration of modern neural networks, https://arxiv.org/abs/1706.04599, equation 3.
    """
    scores, true = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 2 or true.shape != scores.shape[:1]:
        raise ValueError(f"Expected probabilities (N, C) and labels (N,), got {scores.shape} and {true.shape}.")
    if (scores < 0).any() or not np.allclose(scores.sum(axis=1), 1.0, atol=1e-3):
        raise ValueError("Expected probabilities, rows of 0 or more that sum to 1. Apply softmax to logits first.")
    if not len(true):
        return float("nan")
    confidence = scores.max(axis=1)
    gap = (scores.argmax(axis=1) == true) - confidence
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return float(np.abs(np.bincount(bin_of, weights=gap, minlength=bins)).sum() / len(true))


def _confusion_counts(predictions: ArrayLike, references: ArrayLike) -> np.ndarray:
    """Confusion matrix `(C, C)`, reference by prediction, over the sorted classes of both arguments.

    The same as `sklearn.metrics.confusion_matrix`, ten times as fast: a bootstrap calls it thousands of times.
    """
    predicted, true = np.asarray(predictions), np.asarray(references)
    if predicted.shape != true.shape or predicted.ndim != 1:
        raise ValueError(
            f"Expected predictions and references of one shape (N,), got {predicted.shape} and {true.shape}. Pass one "
            f"class, not scores, for each clip."
        )
    classes, numbers = np.unique(np.concatenate([true, predicted]), return_inverse=True)
    pairs = numbers[: len(true)] * len(classes) + numbers[len(true) :]
    return np.bincount(pairs, minlength=len(classes) ** 2).reshape(len(classes), len(classes))
