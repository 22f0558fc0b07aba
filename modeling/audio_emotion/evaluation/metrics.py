"""Metrics of dimensional and categorical emotion, and intervals for them.

Everything here is numpy in float64, over the whole set at once: gather first, then measure. Predictions come first,
references second, clips along the first axis.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def concordance_correlation(predictions: ArrayLike, references: ArrayLike) -> float | np.ndarray:
    """Concordance correlation coefficient of each column, with population moments (divided by N, not N - 1).

        CCC = 2 cov(p, r) / (var(p) + var(r) + (mean(p) - mean(r))^2)

    Unlike Pearson's coefficient it falls when predictions are shifted or stretched.

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


def confusion_counts(
    predictions: ArrayLike, references: ArrayLike, labels: Sequence[Hashable] | None = None
) -> np.ndarray:
    """Number of clips of each class (row) that were called each class (column).

    Args:
        predictions: (N,) class names or numbers.
        references: (N,) of the same kind.
        labels: order of rows and columns; by default the sorted classes of both arguments.

    Returns:
        (C, C) integers whose sum is N.

    Raises:
        ValueError: for unequal lengths, or a class that is not among `labels`.
    """
    called, true = np.asarray(predictions), np.asarray(references)
    if called.shape != true.shape or called.ndim != 1:
        raise ValueError(
            f"Expected predictions and references of one shape (N,), got {called.shape} and {true.shape}. Pass one "
            f"class, not scores, for each clip."
        )
    if labels is None and called.dtype.kind == true.dtype.kind == "i":  # class numbers: many times in a bootstrap
        present, numbers = np.unique(np.concatenate([true, called]), return_inverse=True)
        pairs = numbers[: len(true)] * len(present) + numbers[len(true) :]
        return np.bincount(pairs, minlength=len(present) ** 2).reshape(len(present), len(present))
    order = labels if labels is not None else _classes(called, true)
    place = {label: index for index, label in enumerate(order)}
    if unknown := {*called.tolist(), *true.tolist()} - set(place):
        raise ValueError(f"Expected classes among {list(order)}, got {sorted(unknown, key=str)}. Complete `labels`.")
    counts = np.zeros((len(place), len(place)), dtype=np.int64)
    rows = [place[label] for label in true.tolist()]
    columns = [place[label] for label in called.tolist()]
    np.add.at(counts, (rows, columns), 1)
    return counts


def accuracy(predictions: ArrayLike, references: ArrayLike) -> float:
    """Share of clips whose class is right, in [0, 1]; NaN without clips.

    Also called weighted average recall: frequent classes weigh more.

    Args:
        predictions: (N,) class names or numbers.
        references: (N,) of the same kind.
    """
    counts = confusion_counts(predictions, references)
    return float(np.trace(counts) / counts.sum()) if counts.size else float("nan")


def per_class_recall(
    predictions: ArrayLike, references: ArrayLike, labels: Sequence[Hashable] | None = None
) -> dict[Any, float]:
    """For each class, the share of its clips that were called it.

    Args:
        predictions: (N,) class names or numbers.
        references: (N,) of the same kind.
        labels: which classes, in which order; by default the sorted classes of both arguments.

    Returns:
        Class to recall in [0, 1]; NaN for a class without a reference clip.
    """
    order = list(labels) if labels is not None else _classes(predictions, references)
    counts = confusion_counts(predictions, references, order)
    return {
        label: float(counts[index, index] / counts[index].sum()) if counts[index].any() else float("nan")
        for index, label in enumerate(order)
    }


def unweighted_average_recall(predictions: ArrayLike, references: ArrayLike) -> float:
    """Mean over classes of each class's recall (UAR, balanced accuracy), so that every class weighs the same.

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
    counts = confusion_counts(predictions, references)
    present = counts.any(axis=1)
    return float(np.mean(np.diag(counts)[present] / counts.sum(axis=1)[present])) if present.any() else float("nan")


def macro_f1(predictions: ArrayLike, references: ArrayLike) -> float:
    """Mean over classes of 2 correct_c / (N_c + called_c), the harmonic mean of precision and recall.

    The mean runs over the classes that occur in predictions or references: a class that was called and never was
    true counts as 0.

    Args:
        predictions: (N,) class names or numbers.
        references: (N,) of the same kind.

    Returns:
        A float in [0, 1]; NaN without clips.
    """
    counts = confusion_counts(predictions, references)
    scores = 2 * np.diag(counts) / (counts.sum(axis=0) + counts.sum(axis=1))
    return float(scores.mean()) if scores.size else float("nan")


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """How far the confidence in the best class is from how often it is right.

        ECE = sum_b  n_b / N  |accuracy_b - confidence_b|

    over `bins` bins of equal width, each ((b - 1) / bins, b / bins], of the largest probability of each clip.

    Args:
        probabilities: (N, C), rows that sum to 1.
        labels: (N,) integer index of the true class.
        bins: number of bins.

    Returns:
        A float in [0, 1]; 0 is calibrated; NaN without clips.

    Raises:
        ValueError: if rows are no probabilities that sum to 1, or shapes do not fit.

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


def bootstrap_interval(
    statistic: Callable[..., float | np.ndarray],
    *arrays: ArrayLike,
    groups: ArrayLike | None = None,
    repeats: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float | np.ndarray, float | np.ndarray]:
    """Percentile bootstrap interval of a statistic, over speakers if they are known, else over clips.

    Clips of one speaker resemble each other, so an interval over clips is too narrow where speakers are few. For a
    comparison of two models, pass both predictions and a statistic that returns the difference: it is then paired.

    Args:
        statistic: called with the resampled `arrays`; returns a float, or one value per dimension.
        *arrays: of equal length N, all resampled together.
        groups: (N,) speaker of each clip; whole speakers are drawn with replacement.
        repeats: number of resamples.
        level: share of the resampled statistics between the two ends, in (0, 1).
        seed: equal seeds give equal intervals.

    Returns:
        Lower and upper end, each of the shape that `statistic` returns. Resamples in which the statistic is NaN are
        left out; NaN if it always is.

    Raises:
        ValueError: for unequal lengths, fewer than two clips or speakers, or a level outside (0, 1).

    Source:
        Efron & Tibshirani 1993, An introduction to the bootstrap, chapter 13; for clusters, Davison & Hinkley 1997,
        Bootstrap methods and their application, section 3.8.
    """
    columns = [np.asarray(array) for array in arrays]
    owners = np.arange(len(columns[0])) if groups is None else np.asarray(groups)
    if lengths := {len(column) for column in columns} - {len(owners)}:
        raise ValueError(f"Expected arrays and groups of one length, got {sorted(lengths | {len(owners)})}.")
    if not 0.0 < level < 1.0:
        raise ValueError(f"Expected a level between 0 and 1, such as 0.95, got {level}.")
    _, owner_of = np.unique(owners, return_inverse=True)
    order = np.argsort(owner_of, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(owner_of))[:-1])  # clips of each group
    if len(members) < 2:
        raise ValueError(f"Expected at least two clips or speakers to draw from, got {len(members)}.")

    random = np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
        drawn = random.integers(len(members), size=len(members))
        chosen = np.concatenate([members[group] for group in drawn])
        values.append(statistic(*(column[chosen] for column in columns)))
    ends = [_quantile(np.asarray(values, dtype=np.float64), (1 + sign * level) / 2) for sign in (-1, 1)]
    return ends[0], ends[1]


def _quantile(values: np.ndarray, share: float) -> float | np.ndarray:
    """Quantile over the first axis, NaN left out."""
    if values.ndim == 1:
        known = values[~np.isnan(values)]
        return float(np.quantile(known, share)) if known.size else float("nan")
    return np.stack([np.asarray(_quantile(column, share)) for column in np.moveaxis(values, 1, 0)])


def _classes(predictions: ArrayLike, references: ArrayLike) -> list[Any]:
    return sorted({*np.asarray(predictions).tolist(), *np.asarray(references).tolist()})


def _each_column(
    measure: Callable[[np.ndarray, np.ndarray], float], predictions: ArrayLike, references: ArrayLike
) -> float | np.ndarray:
    """Apply a measure of (N,) and (N,) to every column, without the clips that have no reference in it."""
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
            f"says so before measuring it."
        )
    if predicted.ndim == 1:
        return measure(predicted[labeled], true[labeled])
    return np.array([measure(p[known], r[known]) for p, r, known in zip(predicted.T, true.T, labeled.T, strict=True)])


def _concordance(predicted: np.ndarray, true: np.ndarray) -> float:
    if len(true) < 2:
        return float("nan")
    if np.ptp(predicted) == 0 or np.ptp(true) == 0:  # asked of the values: the variance of equal floats may not be 0
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
