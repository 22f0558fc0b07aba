"""Metrics of dimensional and categorical emotion, in numpy and float64.

Each is computed over the whole set at once, never averaged over batches. Predictions come first, references second,
clips along the first axis.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike


def concordance_correlation(predictions: ArrayLike, references: ArrayLike) -> float | np.ndarray:
    """Concordance correlation coefficient of each column, with population moments (divided by N, not N - 1).

        CCC = 2 cov(p, r) / (var(p) + var(r) + (mean(p) - mean(r))^2)

    Unlike Pearson's coefficient it falls when predictions are shifted or scaled.

    Args:
        predictions: (N,) or (N, D), finite wherever there is a reference.
        references: same shape; NaN where a clip has no label. Each column leaves out its own unlabeled clips.

    Returns:
        A float for (N,), else (D,), in [-1, 1]. Exactly 0 if a column's predictions or references are constant, even
        if they are equal; NaN if it has fewer than two labeled clips.

    Raises:
        ValueError: for unequal shapes, or a prediction that is not finite beside a reference.

    Source:
        Lin 1989, A concordance correlation coefficient to evaluate reproducibility, Biometrics 45(1), 255-268.
    """
    return _each_column(_concordance, predictions, references)


def pearson_correlation(predictions: ArrayLike, references: ArrayLike) -> float | np.ndarray:
    """Pearson's correlation coefficient of each column: cov(p, r) / (std(p) std(r)).

    Args:
        predictions: (N,) or (N, D), finite wherever there is a reference.
        references: same shape; NaN where a clip has no label.

    Returns:
        A float for (N,), else (D,), in [-1, 1]. 0 if a column's predictions or references are constant; NaN if it has
        fewer than two labeled clips.

    Raises:
        ValueError: for unequal shapes, or a prediction that is not finite beside a reference.

    Source:
        Pearson 1895, Note on regression and inheritance in the case of two parents, Proc. R. Soc. Lond. 58, 240-242.
    """
    return _each_column(_pearson, predictions, references)


def mean_absolute_error(predictions: ArrayLike, references: ArrayLike) -> float | np.ndarray:
    """Mean of |p - r| in each column, in the unit of the references.

    Args:
        predictions: (N,) or (N, D), finite wherever there is a reference.
        references: same shape; NaN where a clip has no label.

    Returns:
        A float for (N,), else (D,), 0 or more; NaN if a column has no labeled clip.

    Raises:
        ValueError: for unequal shapes, or a prediction that is not finite beside a reference.
    """
    return _each_column(_absolute_error, predictions, references)


def accuracy(predictions: ArrayLike, references: ArrayLike) -> float:
    """Fraction of clips whose class is right (weighted average recall), in [0, 1]; NaN without clips.

    Args:
        predictions: (N,) class names or numbers.
        references: (N,) of the same kind.
    """
    counts = _confusion_counts(predictions, references)
    return float(np.trace(counts) / counts.sum()) if counts.size else float("nan")


def unweighted_average_recall(predictions: ArrayLike, references: ArrayLike) -> float:
    """Unweighted average recall (UAR, balanced accuracy): the mean over classes of each class's recall.

        UAR = 1/C sum_c  correct_c / N_c

    Classes without a reference clip have no recall and are left out of the mean.

    Args:
        predictions: (N,) class names or numbers.
        references: (N,) of the same kind.

    Returns:
        A float in [0, 1]; chance is 1/C; NaN without clips.

    Source:
        Schuller et al. 2009, The INTERSPEECH 2009 emotion challenge.
    """
    counts = _confusion_counts(predictions, references)
    present = counts.any(axis=1)
    return float(np.mean(np.diag(counts)[present] / counts.sum(axis=1)[present])) if present.any() else float("nan")


def macro_f1(predictions: ArrayLike, references: ArrayLike) -> float:
    """Mean over classes of 2 correct_c / (N_c + predicted_c), the harmonic mean of precision and recall.

    The mean is over the classes that occur in predictions or references: a class that is predicted but has no
    reference clip counts as 0.

    Args:
        predictions: (N,) class names or numbers.
        references: (N,) of the same kind.

    Returns:
        A float in [0, 1]; NaN without clips.
    """
    counts = _confusion_counts(predictions, references)
    scores = 2 * np.diag(counts) / (counts.sum(axis=0) + counts.sum(axis=1))
    return float(scores.mean()) if scores.size else float("nan")


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

    Raises:
        ValueError: if a row is not a probability distribution, or shapes do not match.

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


def _each_column(
    metric: Callable[[np.ndarray, np.ndarray], float], predictions: ArrayLike, references: ArrayLike
) -> float | np.ndarray:
    """Apply a metric of (N,) and (N,) to every column, without the clips that have no reference in it."""
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
            f"Expected finite predictions, got {predicted[tuple(first)]} for clip {first[0]}. Find out why the model "
            f"outputs it before evaluating the model."
        )
    if predicted.ndim == 1:
        return metric(predicted[labeled], true[labeled])
    return np.array([metric(p[known], r[known]) for p, r, known in zip(predicted.T, true.T, labeled.T, strict=True)])


def _concordance(predicted: np.ndarray, true: np.ndarray) -> float:
    if len(true) < 2:
        return float("nan")
    if np.ptp(predicted) == 0 or np.ptp(true) == 0:  # not variance == 0: that of equal floats may differ from 0
        return 0.0
    covariance = np.mean((predicted - predicted.mean()) * (true - true.mean()))
    return float(2 * covariance / (predicted.var() + true.var() + (predicted.mean() - true.mean()) ** 2))


def _pearson(predicted: np.ndarray, true: np.ndarray) -> float:
    if len(true) < 2:
        return float("nan")
    if np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return 0.0
    covariance = np.mean((predicted - predicted.mean()) * (true - true.mean()))
    return float(np.clip(covariance / (predicted.std() * true.std()), -1.0, 1.0))


def _absolute_error(predicted: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean(np.abs(predicted - true))) if len(true) else float("nan")
