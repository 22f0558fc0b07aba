"""Statistics of a model report: correctness, calibration, agreement with raters, groups, robustness.

Every function takes predictions and returns plain Python, ready for JSON. Intervals are 95 % bootstrap intervals over
speakers, or over clips where too few speakers are known (`bootstrap.intervals_over`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy.spatial.distance import jensenshannon
from scipy.stats import norm

from audio_emotion.evaluation.bootstrap import bootstrap_interval, intervals_over
from audio_emotion.evaluation.metrics import (
    accuracy,
    expected_calibration_error,
    interval_coverage,
    pearson_correlation,
    unweighted_average_recall,
)
from audio_emotion.evaluation.predictions import Predictions
from audio_emotion.evaluation.report import measure, posterior

INTERVALS = (0.9, 0.5)  # probabilities of the intervals of dimensions
COVERAGES = (1.0, 0.8, 0.6, 0.4)  # fractions of the clips that a model answers
BINS = 15
MIN_SPEAKERS = 4  # of a group that is compared with the others
PERMUTATIONS = 2000
POWER = 0.8  # with which the smallest visible difference would have been found


def correctness(
    predictions: Predictions, emotions: list[str], dimensions: list[str], source: str | None, repeats: int
) -> dict[str, Any]:
    """Scores of `measure`, with chance, skill, the confusion matrix and the moments of the dimensions.

    Returns:
        Beside those of `measure`: `chance` (of the UAR), `skill`, `(uar - chance) / (1 - chance)`; `per_class`, for
        each emotion its clips, recall and precision; `confusion`, counts by label and prediction, `(C, C)`; `moments`
        of each dimension; `cross_correlation`, Pearson's coefficient of each predicted (row) with each rated one.
    """
    scores = measure(predictions, emotions, dimensions, source, repeats)
    if emotions:
        chosen, labels = classes_of(predictions)
        counts = np.zeros((len(emotions), len(emotions)), dtype=int)
        np.add.at(counts, (labels, chosen), 1)
        present = int((counts.sum(1) > 0).sum())
        scores["chance"] = 1 / present if present else math.nan
        scores["skill"] = skill(scores["uar"], scores["chance"])
        scores["confusion"] = counts.tolist()
        scores["per_class"] = {
            name: {
                "clips": int(counts[place].sum()),
                "recall": _ratio(counts[place, place], counts[place].sum()),
                "precision": _ratio(counts[place, place], counts[:, place].sum()),
            }
            for place, name in enumerate(emotions)
        }
    if dimensions and np.isfinite(predictions.dimension_labels).any():
        rated = np.isfinite(predictions.dimension_labels).all(1)
        values, targets = predictions.dimensions[rated], predictions.dimension_labels[rated]
        scores["moments"] = {
            name: {
                "predicted_mean": float(values[:, place].mean()),
                "predicted_std": float(values[:, place].std()),
                "rated_mean": float(targets[:, place].mean()),
                "rated_std": float(targets[:, place].std()),
            }
            for place, name in enumerate(dimensions)
        }
        scores["cross_correlation"] = [
            [float(pearson_correlation(values[:, row], targets[:, column])) for column in range(len(dimensions))]
            for row in range(len(dimensions))
        ]
    return scores


def skill(uar: float, chance: float) -> float:
    """What a score is above chance, as a fraction of what it could be: 0 at chance, 1 where every answer is right."""
    return (uar - chance) / (1 - chance) if chance < 1 else math.nan


def classes_of(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true class numbers of the labeled clips, `(n,)` each."""
    known = predictions.labels >= 0
    return predictions.logits[known].argmax(-1), predictions.labels[known]


def calibration(predictions: Predictions, repeats: int) -> dict[str, Any]:
    """Whether probabilities are those of being right.

    Returns:
        `ece`, expected calibration error with `BINS` bins of equal width (Guo et al. 2017), and its interval;
        `adaptive_ece`, with bins of equal numbers of clips (Nixon et al. 2019, https://arxiv.org/abs/1904.01685);
        `brier`, the mean squared distance of the probabilities from the one-hot label, 0..2 (Brier 1950);
        `confidence`, `accuracy`, `over_confidence`; `bins`, for each non-empty bin confidence, accuracy and clips;
        `selective`, for each of `COVERAGES` the accuracy on that fraction of clips of which the model is surest.
    """
    known = predictions.labels >= 0
    probabilities, labels = posterior(predictions.logits[known]), predictions.labels[known]
    confidence, correct = probabilities.max(-1), probabilities.argmax(-1) == labels
    bin_of = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    order = np.argsort(-confidence, kind="stable")
    result: dict[str, Any] = {
        "ece": expected_calibration_error(probabilities, labels, BINS),
        "adaptive_ece": adaptive_calibration_error(confidence, correct),
        "brier": brier_score(probabilities, labels),
        "confidence": float(confidence.mean()),
        "accuracy": float(correct.mean()),
        "over_confidence": float(confidence.mean() - correct.mean()),
        "bins": [
            {
                "confidence": float(confidence[bin_of == each].mean()),
                "accuracy": float(correct[bin_of == each].mean()),
                "clips": int((bin_of == each).sum()),
            }
            for each in np.unique(bin_of)
        ],
        "selective": {
            f"{coverage:g}": float(correct[order[: max(1, round(coverage * len(order)))]].mean())
            for coverage in COVERAGES
        },
    }
    if repeats:
        groups = predictions.clusters()[known] if intervals_over(predictions) == "speakers" else None
        low, high = bootstrap_interval(
            lambda each, true: expected_calibration_error(each, true, BINS),
            probabilities,
            labels,
            groups=groups,
            repeats=repeats,
        )
        result["ece_interval"] = [float(low), float(high)]
    return result


def adaptive_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Mean of |accuracy - confidence| over bins of equal numbers of clips, sorted by confidence."""
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    gaps = [abs(correct[part].mean() - confidence[part].mean()) * len(part) for part in parts]
    return float(sum(gaps) / len(order))


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean over clips of the squared distance between probabilities `(N, C)` and the one-hot label, 0..2."""
    target = np.eye(probabilities.shape[1])[labels]
    return float(np.square(probabilities - target).sum(-1).mean())


def coverage(predictions: Predictions, dimensions: list[str], repeats: int) -> dict[str, dict[str, Any]]:
    """Whether the intervals of the dimensions contain as many of the rated values as their probability.

    The interval of probability p is that of a normal distribution with the predicted mean and variance.

    Args:
        predictions: with `variances`.
        dimensions: names in column order.
        repeats: bootstrap samples.

    Returns:
        By dimension with rated clips: `clips`; `standard_deviation`, the predicted one, averaged; `scale`, the root
        mean square of errors in units of their predicted standard deviation: above 1, intervals are too narrow;
        `inside`, for each of `INTERVALS` the fraction of rated values inside, and its `interval`.
    """
    assert predictions.variances is not None
    over_speakers = intervals_over(predictions) == "speakers"
    found = {}
    for column, name in enumerate(dimensions):
        rated = np.isfinite(predictions.dimension_labels[:, column])
        if not rated.any():
            continue
        mean, variance, target = (
            each[rated, column].astype(float)
            for each in (predictions.dimensions, predictions.variances, predictions.dimension_labels)
        )
        groups = predictions.clusters()[rated] if over_speakers else None
        inside = {}
        for level in INTERVALS:
            statistic = partial(interval_coverage, level=level)
            low, high = bootstrap_interval(statistic, mean, variance, target, groups=groups, repeats=repeats or 100)
            inside[f"{level:g}"] = {
                "fraction": float(statistic(mean, variance, target)),
                "interval": [float(low), float(high)],
            }
        found[name] = {
            "clips": int(rated.sum()),
            "standard_deviation": float(np.sqrt(variance).mean()),
            "scale": float(np.sqrt(((target - mean) ** 2 / variance).mean())),
            "inside": inside,
        }
    return found


def agreement(predictions: Predictions, votes: np.ndarray, repeats: int) -> dict[str, Any]:
    """Predictions beside the votes of raters who were given the same recordings.

    Args:
        predictions: of `N` clips.
        votes: `(N, C)` number of votes for each class, 0 in the row of a clip without votes.
        repeats: bootstrap samples.

    Returns:
        `model`, the mean fraction of raters who chose the predicted class: the probability that the model agrees with
        a rater; `raters`, the same for one rater and another; `label`, for the label of the corpus; `difference` of
        model and raters, with its interval. `divergence`, the mean Jensen-Shannon divergence (bits, 0..1) of the
        probabilities from the distribution of the votes, and `divergence_of_a_rater`, that of a single rater's vote
        from the distribution of the others.
    """
    counts = votes.sum(1)
    known = counts >= 2
    votes, counts = votes[known].astype(float), counts[known]
    fractions = votes / counts[:, None]  # (n, C)
    probabilities = posterior(predictions.logits[known])
    rows = np.arange(len(votes))
    model = fractions[rows, probabilities.argmax(-1)]  # (n,)
    raters = (votes * (votes - 1)).sum(1) / (counts * (counts - 1))  # (n,)
    labels = predictions.labels[known]
    label = fractions[rows, np.maximum(labels, 0)][labels >= 0]
    classes = votes.shape[1]
    alone = np.zeros(len(votes))
    for chosen in range(classes):  # a rater who chose it, against the others
        one = np.eye(classes)[chosen]
        others = (votes - one).clip(min=0) / (counts - 1)[:, None]
        alone += fractions[:, chosen] * jensen_shannon(np.broadcast_to(one, others.shape), others)
    groups = predictions.clusters()[known] if intervals_over(predictions) == "speakers" else None
    low, high = bootstrap_interval(
        lambda each: float(each.mean()), model - raters, groups=groups, repeats=repeats or 100
    )
    return {
        "clips": int(known.sum()),
        "raters_a_clip": float(counts.mean()),
        "model": float(model.mean()),
        "raters": float(raters.mean()),
        "label": float(label.mean()) if len(label) else math.nan,
        "difference": float((model - raters).mean()),
        "interval": [float(low), float(high)],
        "divergence": float(jensen_shannon(probabilities, fractions).mean()),
        "divergence_of_a_rater": float(alone.mean()),
    }


def jensen_shannon(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in bits of rows of `(N, C)`, `(N,)` in 0..1."""
    distances: np.ndarray = jensenshannon(first, second, base=2, axis=1)
    return np.nan_to_num(np.square(distances))  # the distance is its square root, NaN where rounding made it negative


def groups(
    predictions: Predictions, attributes: Mapping[str, Sequence[str]], repeats: int, seed: int = 0
) -> list[dict[str, Any]]:
    """Differences in UAR between a group of clips and all others, corrected for the number of comparisons.

    The p value is a permutation test: the attribute is permuted over speakers, or, where speakers have several values
    of it (a language), over the clips of each speaker. Holm's correction (1979) is over all groups of all attributes.

    Args:
        predictions: of `N` clips.
        attributes: values of each clip by the name of the attribute, "" where unknown.
        repeats: bootstrap samples.
        seed: of the permutations.

    Returns:
        For each group of at least `MIN_SPEAKERS` speakers: `attribute`, `group`, `speakers`, `clips`, `uar`,
        `difference` (group minus others), `interval`, `p_value`, `corrected_p`, and `visible`, the smallest difference
        that would have been found in `POWER` of all cases at the corrected level, from the standard error.
    """
    random = np.random.default_rng(seed)
    found: list[dict[str, Any]] = []
    for attribute, values in attributes.items():
        each_clip = np.array(values)
        usable = predictions.take((each_clip != "") & (predictions.labels >= 0))
        names = each_clip[(each_clip != "") & (predictions.labels >= 0)]
        if len(set(names.tolist())) < 2:
            continue
        for name in sorted(set(names.tolist())):
            speakers = {*usable.speakers[names == name]}
            others = {*usable.speakers[names != name]}
            if min(len(speakers), len(others)) >= MIN_SPEAKERS and (names == name).sum() >= 20:
                found.append(
                    {
                        "attribute": attribute,
                        "group": name,
                        "speakers": len(speakers),
                        "clips": int((names == name).sum()),
                        **_group_difference(usable, names == name, repeats, random),
                    }
                )
        if len(set(names.tolist())) == 2 and len(found) >= 2 and found[-1]["attribute"] == found[-2]["attribute"]:
            found.pop()  # the same comparison, with the other sign
    order = sorted(range(len(found)), key=lambda place: found[place]["p_value"])
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, found[place]["p_value"] * (len(found) - rank)))
        found[place]["corrected_p"] = highest
    for each in found:
        quantiles = norm.ppf(1 - 0.025 / len(found)) + norm.ppf(POWER)
        each["visible"] = float(quantiles * each.pop("standard_error"))
    return found


def _group_difference(
    predictions: Predictions, inside: np.ndarray, repeats: int, random: np.random.Generator
) -> dict[str, Any]:
    """UAR inside and outside of a group, their difference, its interval and its p value."""
    chosen, labels, speakers = predictions.logits.argmax(-1), predictions.labels, predictions.clusters()

    def difference(chosen: np.ndarray, labels: np.ndarray, inside: np.ndarray) -> float:
        if not inside.any() or inside.all():
            return math.nan
        recalls = (unweighted_average_recall(chosen[part], labels[part]) for part in (inside, ~inside))
        one, other = recalls
        return one - other

    value = difference(chosen, labels, inside)
    unique, unit = np.unique(speakers, return_inverse=True)
    members = [np.flatnonzero(unit == place) for place in range(len(unique))]
    of_speaker = np.array([inside[each].mean() for each in members])
    within = bool(((of_speaker > 0) & (of_speaker < 1)).any())
    samples = []
    for _ in range(max(repeats, 100)):
        places = np.concatenate([members[each] for each in random.integers(len(members), size=len(members))])
        samples.append(difference(chosen[places], labels[places], inside[places]))
    extreme = 0
    for _ in range(PERMUTATIONS if repeats >= 500 else 200):
        if within:
            permuted = inside.copy()
            for each in members:
                permuted[each] = random.permutation(inside[each])
        else:
            permuted = random.permutation(of_speaker)[unit] > 0
        extreme += abs(difference(chosen, labels, permuted)) >= abs(value) - 1e-12
    low, high = np.nanquantile(samples, [0.025, 0.975])
    return {
        "uar": float(unweighted_average_recall(chosen[inside], labels[inside])),
        "difference": float(value),
        "interval": [float(low), float(high)],
        "p_value": (extreme + 1) / ((PERMUTATIONS if repeats >= 500 else 200) + 1),
        "standard_error": float(np.nanstd(samples)),
    }


def robustness(clean: Predictions, corrupted: Predictions, repeats: int) -> dict[str, Any]:
    """Loss by a corruption, on the same clips.

    Returns:
        `uar`; `loss` of skill over chance, clean minus corrupted, and its paired `interval`; `flips`, the fraction of
        clips whose answer differs; `confidence`.
    """
    if clean.ids != corrupted.ids:
        raise ValueError("Expected the same clips with and without the corruption. Predict both for one table.")
    known = clean.labels >= 0
    labels = clean.labels[known]
    before, after = clean.logits[known].argmax(-1), corrupted.logits[known].argmax(-1)
    chance = 1 / max(len(set(labels.tolist())), 1)

    def loss(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> float:
        recalls = [unweighted_average_recall(each, labels) for each in (before, after)]
        return (recalls[0] - recalls[1]) / (1 - chance)

    by = clean.clusters()[known] if intervals_over(clean) == "speakers" else None
    low, high = bootstrap_interval(loss, before, after, labels, groups=by, repeats=repeats or 100)
    return {
        "uar": float(unweighted_average_recall(after, labels)),
        "accuracy": float(accuracy(after, labels)),
        "loss": float(loss(before, after, labels)),
        "interval": [float(low), float(high)],
        "flips": float((before != after).mean()),
        "confidence": float(posterior(corrupted.logits[known]).max(-1).mean()),
    }


def _ratio(count: float, total: float) -> float | None:
    return float(count / total) if total else None
