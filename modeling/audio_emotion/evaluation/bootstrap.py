"""Is model A better than model B? Paired over speakers, in any metric, over folds and seeds.

Both models have judged the same clips. What they share, an easy speaker or a hard clip, then cancels: two intervals
side by side may overlap though one model is better with every speaker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np

from audio_emotion.evaluation.metrics import (
    accuracy,
    bootstrap_interval,
    concordance_correlation,
    macro_f1,
    mean_absolute_error,
    pearson_correlation,
    unweighted_average_recall,
)
from audio_emotion.evaluation.predictions import Predictions
from audio_emotion.evaluation.report import intervals_over

Statistic = Callable[[np.ndarray, np.ndarray], Any]
OF_CLASSES: dict[str, Statistic] = {"uar": unweighted_average_recall, "accuracy": accuracy, "macro_f1": macro_f1}
OF_DIMENSIONS: dict[str, Statistic] = {
    "ccc": concordance_correlation,
    "pearson": pearson_correlation,
    "mae": mean_absolute_error,
}


@dataclass(frozen=True)
class Comparison:
    """What a paired comparison found.

    Attributes:
        metric: its name.
        first: value of the first model, the mean over its runs.
        second: of the second.
        difference: first minus second.
        interval: 95 % interval of the difference.
        relative: `difference / second`.
        relative_interval: 95 % interval of `relative`, over the resamples in which the second is above 0; NaN where
            it never is.
        p_value: two-sided, of the hypothesis that the models could change places with any speaker.
        units: how many speakers, or clips, change places.
        unit: `"speakers"` or `"clips"`.
        intervals_over: what both intervals are drawn over, `"speakers"` or `"clips"`; see `results.intervals_over`.
        runs: how many pairs of runs (seeds).
    """

    metric: str
    first: float
    second: float
    difference: float
    interval: tuple[float, float]
    relative: float
    relative_interval: tuple[float, float]
    p_value: float
    units: int
    unit: str
    intervals_over: str
    runs: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def pooled(folds: Sequence[Predictions]) -> Predictions:
    """Test sets of several folds as one set, sorted by clip.

    Raises:
        ValueError: if a clip stands in two of them.
    """
    ids = [name for fold in folds for name in fold.ids]
    if len(set(ids)) < len(ids):
        twice = sorted({name for name in ids if ids.count(name) > 1})
        raise ValueError(f"Expected folds without a common clip, got {twice[:3]} in two. Pool the folds of one seed.")
    if len(folds) == 1:
        return folds[0]
    arrays = ("speakers", "logits", "dimensions", "labels", "dimension_labels")
    joined = {name: np.concatenate([getattr(fold, name) for fold in folds]) for name in arrays}
    return Predictions(ids=ids, embedding=np.zeros((len(ids), 0)), **joined).take(np.argsort(ids))


def aggregate(
    runs: Sequence[Predictions], metric: str, dimensions: Sequence[str], repeats: int = 1000, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Mean of a metric over runs (seeds) that judged the same clips, and its 95 % bootstrap interval.

    The interval is over speakers, or over clips where few are known: see `results.intervals_over`.

    Args:
        runs: one a seed; folds are pooled before.
        metric: `uar`, `accuracy`, `macro_f1`, or `ccc_`, `pearson_`, `mae_` and a dimension.
        dimensions: names in column order.
        repeats: bootstrap samples.
        seed: of the samples.
    """
    statistic, predicted, target, owners = _columns(runs, metric, dimensions)

    def mean(target: np.ndarray, *predicted: np.ndarray) -> float:
        return float(np.mean([statistic(each, target) for each in predicted]))

    drawn = _drawn(runs[0], owners)
    low, high = bootstrap_interval(mean, target, *predicted, groups=drawn, repeats=repeats, seed=seed)
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

    The interval is a bootstrap: speakers are drawn with replacement, with all their clips, for both models and all
    runs at once; or clips, where few speakers are known: see `results.intervals_over`. The p value is a permutation
    test, over the speakers also where they are few: for each speaker the models change places or not, in all runs
    alike; every way of it is tried where there are at most `repeats`, else as many are drawn, and p is the share of
    ways in which the metric differs as much as it does. It cannot be smaller than 2 / 2^speakers: four speakers
    never reach 0.05.

    Args:
        first: predictions of the first model, one a seed (pool folds before).
        second: of the second model; the run at the same place is its matching_label.
        metric: `uar`, `accuracy`, `macro_f1`, or `ccc_`, `pearson_`, `mae_` and a dimension.
        dimensions: names in column order.
        repeats: of bootstrap and permutation.
        seed: of both.

    Raises:
        ValueError: where the models did not judge the same clips with the same labels, or runs have no matching_label.

    Source:
        Efron & Tibshirani 1993, An introduction to the bootstrap, chapters 13 and 15; for whole clusters changing
        places, Good 2005, Permutation, parametric and bootstrap tests of hypotheses, chapter 3.
    """
    if len(first) != len(second):
        raise ValueError(f"Expected as many runs of both models, got {len(first)} and {len(second)}. Pair the seeds.")
    statistic, ours, target, owners = _columns(first, metric, dimensions)
    _, theirs, others, _ = _columns(second, metric, dimensions)
    _require_same_clips(first[0], second[0])
    if not np.array_equal(target, others):
        raise ValueError(f"Expected the same labels for both models, got others in `{metric}`. Evaluate them alike.")
    count = len(ours)

    def means(target: np.ndarray, *predicted: np.ndarray) -> np.ndarray:
        values = [statistic(each, target) for each in predicted]
        a, b = np.mean(values[:count]), np.mean(values[count:])
        return np.array([a, b, a - b, (a - b) / b if b > 0 else np.nan])  # (4,)

    drawn = _drawn(first[0], owners)
    value = means(target, *ours, *theirs)
    low, high = bootstrap_interval(means, target, *ours, *theirs, groups=drawn, repeats=repeats, seed=seed)

    groups, unit = _swapped(owners)
    _, owner_of = np.unique(groups, return_inverse=True)
    units = int(owner_of.max()) + 1
    if 2**units <= repeats:
        ways = np.array(list(product([False, True], repeat=units)))
    else:
        some = np.random.default_rng(seed).random((repeats - 1, units)) < 0.5
        ways = np.concatenate([np.zeros((1, units), dtype=bool), some])  # the way it is counts as one
    extreme = 0
    for way in ways:
        swapped = way[owner_of]
        one = [np.where(swapped, b, a) for a, b in zip(ours, theirs, strict=True)]
        other = [np.where(swapped, a, b) for a, b in zip(ours, theirs, strict=True)]
        extreme += abs(means(target, *one, *other)[2]) >= abs(value[2]) - 1e-12
    ends = np.stack([np.asarray(low), np.asarray(high)])  # (2, 4)
    return Comparison(
        metric=metric,
        first=float(value[0]),
        second=float(value[1]),
        difference=float(value[2]),
        interval=(float(ends[0, 2]), float(ends[1, 2])),
        relative=float(value[3]),
        relative_interval=(float(ends[0, 3]), float(ends[1, 3])),
        p_value=float(extreme / len(ways)),
        units=units,
        unit=unit,
        intervals_over="speakers" if drawn is owners else "clips",
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
    if metric in OF_CLASSES:
        known = runs[0].labels >= 0
        predicted = [run.logits.argmax(-1)[known] for run in runs]
        return OF_CLASSES[metric], predicted, runs[0].labels[known], runs[0].clusters()[known]
    if kind not in OF_DIMENSIONS or name not in dimensions:
        measures = [f"{kind}_{name}" for kind in OF_DIMENSIONS for name in dimensions]
        raise ValueError(f"Expected a metric among {[*OF_CLASSES, *measures]}, got `{metric}`.")
    column = list(dimensions).index(name)
    target = runs[0].dimension_labels[:, column]
    known = np.isfinite(target)
    return (
        OF_DIMENSIONS[kind],
        [run.dimensions[known, column] for run in runs],
        target[known],
        runs[0].clusters()[known],
    )


def _drawn(run: Predictions, owners: np.ndarray) -> np.ndarray:
    """Who is drawn for an interval: speakers, and clips of unknown speakers alone; or every clip alone."""
    over_speakers = intervals_over(run) == "speakers" and len(set(owners.tolist())) > 1
    return owners if over_speakers else np.arange(len(owners))


def _swapped(owners: np.ndarray) -> tuple[np.ndarray, str]:
    """Who changes places: speakers, and clips of unknown speakers alone; clips if there is no second speaker."""
    count = len(set(owners.tolist()))
    return (np.arange(len(owners)), "clips") if count in (1, len(owners)) else (owners, "speakers")


def _require_same_clips(one: Predictions, other: Predictions) -> None:
    if one.ids != other.ids:
        alone = sorted(set(one.ids) ^ set(other.ids))
        raise ValueError(
            f"Expected the same clips from both, got {len(one.ids)} and {len(other.ids)}, of which {len(alone)} stand "
            f"on one side only, such as {alone[:3]}. Scores on different clips say nothing of which model is better."
        )
