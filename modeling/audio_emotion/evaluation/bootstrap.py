"""Bootstrap intervals of a metric, and paired comparison of two models over speakers, folds and seeds.

Two models are compared on the same clips, paired: what is difficult for both then cancels, whereas two separate
intervals may overlap although one model is better for every speaker.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from audio_emotion.evaluation.metrics import (
    accuracy,
    concordance_correlation,
    macro_f1,
    mean_absolute_error,
    pearson_correlation,
    unweighted_average_recall,
)

if TYPE_CHECKING:  # needs accelerate and pyarrow, which intervals do not
    from audio_emotion.evaluation.predictions import Predictions

Statistic = Callable[[np.ndarray, np.ndarray], Any]
CLASS_METRICS: dict[str, Statistic] = {"uar": unweighted_average_recall, "accuracy": accuracy, "macro_f1": macro_f1}
DIMENSION_METRICS: dict[str, Statistic] = {
    "ccc": concordance_correlation,
    "pearson": pearson_correlation,
    "mae": mean_absolute_error,
}
LEVEL = 0.95  # that an interval covers
MIN_SPEAKERS = 4  # three, resampled with replacement, make ten different samples: too few for two tails of 2.5 %


def bootstrap_interval(
    statistic: Callable[..., float | np.ndarray],
    *arrays: ArrayLike,
    groups: ArrayLike | None = None,
    repeats: int = 1000,
    seed: int = 0,
) -> tuple[Any, Any]:
    """95 % percentile bootstrap interval of a statistic, over groups of clips (speakers) if given, else over clips.

    Clips of one speaker are correlated, so that an interval over clips is too narrow where there are few speakers.
    To compare two models, pass both predictions and a statistic that returns the difference: the interval is paired.

    Args:
        statistic: called with the resampled `arrays`; returns a float, or one value per dimension.
        *arrays: of equal length N, all resampled together.
        groups: (N,) speaker of each clip; whole speakers are resampled with replacement.
        repeats: number of resamples.
        seed: random seed.

    Returns:
        Lower and upper end, each of the shape that `statistic` returns. Resamples in which the statistic is NaN are
        left out; NaN if it always is.

    Source:
        Efron & Tibshirani 1993, An introduction to the bootstrap, chapter 13; for clusters, Davison & Hinkley 1997,
        Bootstrap methods and their application, section 3.8.
    """
    columns = [np.asarray(array) for array in arrays]
    group_of = np.arange(len(columns[0])) if groups is None else np.asarray(groups)
    if lengths := {len(column) for column in columns} - {len(group_of)}:
        raise ValueError(f"Expected arrays and groups of one length, got {sorted(lengths | {len(group_of)})}.")
    _, number_of = np.unique(group_of, return_inverse=True)
    order = np.argsort(number_of, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(number_of))[:-1])  # clips of each group
    if len(members) < 2:
        raise ValueError(f"Expected at least two clips or speakers to resample, got {len(members)}.")

    random = np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
        sampled = random.integers(len(members), size=len(members))
        rows = np.concatenate([members[group] for group in sampled])
        values.append(statistic(*(column[rows] for column in columns)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, high = np.nanquantile(np.asarray(values, dtype=np.float64), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def intervals_over(predictions: Predictions) -> Literal["speakers", "clips"]:
    """What is resampled for intervals: whole speakers, or clips if fewer than `MIN_SPEAKERS` are known."""
    return "speakers" if len({*predictions.speakers.tolist()} - {""}) >= MIN_SPEAKERS else "clips"


@dataclass(frozen=True)
class Comparison:
    """Result of a paired comparison of two models."""

    metric: str
    first: float  # value of the first model, the mean over its runs
    second: float
    difference: float  # first minus second
    interval: tuple[float, float]  # 95 %, of the difference
    relative: float  # difference / second; NaN unless the second is above 0
    relative_interval: tuple[float, float]  # 95 %, over the resamples in which it is not NaN
    p_value: float  # two-sided, of the null hypothesis that the models are exchangeable for every speaker
    units: int  # number of speakers, or clips, that the permutation test exchanges
    unit: Literal["speakers", "clips"]
    intervals_over: Literal["speakers", "clips"]  # what both intervals resample
    runs: int  # number of pairs of runs (seeds)


def aggregate(
    runs: Sequence[Predictions], metric: str, dimensions: Sequence[str], repeats: int = 1000, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Mean of a metric over runs (seeds) on the same clips, and its 95 % bootstrap interval; see `compare`."""
    statistic, predicted, target, speakers = _columns(runs, metric, dimensions)

    def mean(target: np.ndarray, *predicted: np.ndarray) -> float:
        return float(np.mean([statistic(each, target) for each in predicted]))

    groups = _resampled(runs[0], speakers)
    low, high = bootstrap_interval(mean, target, *predicted, groups=groups, repeats=repeats, seed=seed)
    return mean(target, *predicted), (float(low), float(high))


def compare(
    first: Sequence[Predictions],
    second: Sequence[Predictions],
    metric: str,
    dimensions: Sequence[str],
    repeats: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare two models on the same clips.

    The interval is a bootstrap: speakers with all their clips (or clips, see `intervals_over`) are resampled with
    replacement, for both models and all runs at once. The p value is a permutation test over speakers: for each
    speaker the outputs of the two models are exchanged or not, in all runs alike. All permutations are computed if
    there are at most `repeats`, else as many are sampled; p is the fraction of permutations in which the metric
    differs at least as much as observed. It cannot be smaller than 2 / 2^speakers: four speakers never reach 0.05.

    Args:
        first: predictions of the first model, one per seed (pool the folds of a seed first).
        second: predictions of the second model, with the seeds in the same order.
        metric: `uar`, `accuracy`, `macro_f1`, or `ccc_`, `pearson_`, `mae_` and a dimension.
        dimensions: names in column order.
        repeats: bootstrap samples, and permutations at most.
        seed: random seed of both.

    Source:
        Efron & Tibshirani 1993, An introduction to the bootstrap, chapters 13 and 15; for exchanging whole clusters,
        Good 2005, Permutation, parametric and bootstrap tests of hypotheses, chapter 3.
    """
    if len(first) != len(second):
        raise ValueError(f"Expected as many runs of both models, got {len(first)} and {len(second)}. Pair the seeds.")
    statistic, ours, target, speakers = _columns(first, metric, dimensions)
    _, theirs, other_target, _ = _columns(second, metric, dimensions)
    _require_same_clips(first[0], second[0])
    if not np.array_equal(target, other_target):
        raise ValueError(
            f"Expected the same labels for both models, got different ones in `{metric}`. Evaluate them alike."
        )
    count = len(ours)

    def means(target: np.ndarray, *predicted: np.ndarray) -> np.ndarray:
        values = [statistic(each, target) for each in predicted]
        a, b = np.mean(values[:count]), np.mean(values[count:])
        return np.array([a, b, a - b, (a - b) / b if b > 0 else np.nan])  # (4,)

    groups = _resampled(first[0], speakers)
    value = means(target, *ours, *theirs)
    low, high = bootstrap_interval(means, target, *ours, *theirs, groups=groups, repeats=repeats, seed=seed)  # (4,)

    # Every clip is exchanged by itself if there is no second speaker, or none with a second clip.
    over_clips = len(set(speakers.tolist())) in (1, len(speakers))
    _, unit_of = np.unique(np.arange(len(speakers)) if over_clips else speakers, return_inverse=True)
    units = int(unit_of.max()) + 1
    if 2**units <= repeats:
        permutations = np.array(list(product([False, True], repeat=units)))
    else:
        sampled = np.random.default_rng(seed).random((repeats - 1, units)) < 0.5
        permutations = np.concatenate([np.zeros((1, units), dtype=bool), sampled])  # the observed one is among them
    extreme = 0
    for permutation in permutations:
        swap = permutation[unit_of]
        one = [np.where(swap, b, a) for a, b in zip(ours, theirs, strict=True)]
        other = [np.where(swap, a, b) for a, b in zip(ours, theirs, strict=True)]
        extreme += abs(means(target, *one, *other)[2]) >= abs(value[2]) - 1e-12
    return Comparison(
        metric=metric,
        first=float(value[0]),
        second=float(value[1]),
        difference=float(value[2]),
        interval=(float(low[2]), float(high[2])),
        relative=float(value[3]),
        relative_interval=(float(low[3]), float(high[3])),
        p_value=float(extreme / len(permutations)),
        units=units,
        unit="clips" if over_clips else "speakers",
        intervals_over="speakers" if groups is speakers else "clips",
        runs=count,
    )


def _columns(
    runs: Sequence[Predictions], metric: str, dimensions: Sequence[str]
) -> tuple[Statistic, list[np.ndarray], np.ndarray, np.ndarray]:
    """The statistic, `(n,)` predictions of each run, `(n,)` targets and `(n,)` speakers, of the labeled clips."""
    if not runs:
        raise ValueError("Expected at least one run, got none.")
    for run in runs[1:]:
        _require_same_clips(runs[0], run)
    kind, _, name = metric.partition("_")
    if metric in CLASS_METRICS:
        known = runs[0].labels >= 0
        predicted = [run.logits.argmax(-1)[known] for run in runs]
        return CLASS_METRICS[metric], predicted, runs[0].labels[known], runs[0].clusters()[known]
    if kind not in DIMENSION_METRICS or name not in dimensions:
        names = [f"{kind}_{name}" for kind in DIMENSION_METRICS for name in dimensions]
        raise ValueError(f"Expected a metric among {[*CLASS_METRICS, *names]}, got `{metric}`.")
    column = list(dimensions).index(name)
    target = runs[0].dimension_labels[:, column]
    known = np.isfinite(target)
    predicted = [run.dimensions[known, column] for run in runs]
    return DIMENSION_METRICS[kind], predicted, target[known], runs[0].clusters()[known]


def _resampled(run: Predictions, speakers: np.ndarray) -> np.ndarray:
    """Groups of an interval, `(n,)`: the speakers, or every clip by itself."""
    over_speakers = intervals_over(run) == "speakers" and len(set(speakers.tolist())) > 1
    return speakers if over_speakers else np.arange(len(speakers))


def _require_same_clips(one: Predictions, other: Predictions) -> None:
    if one.ids != other.ids:
        unpaired = sorted(set(one.ids) ^ set(other.ids))
        raise ValueError(
            f"Expected the same clips from both, got {len(one.ids)} and {len(other.ids)}, of which {len(unpaired)} "
            f"are in one only, such as {unpaired[:3]}. Scores on different clips cannot be compared."
        )
