"""Automatic checks of a model report: what a reader must know before any score, with the numbers that show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from audio_emotion.evaluation.predictions import Predictions

OVER_CONFIDENT = 0.15  # confidence minus accuracy
LITTLE_SKILL = 0.1  # 0 is chance, 1 is perfect
ONE_CLASS = 0.9  # fraction of the clips with one answer
TOO_GOOD = 0.95  # UAR that no model of acted speech of unseen speakers is known to reach
REORDERED = 0.15  # sum of Pearson's coefficients that another order of the dimensions gains
MANY = 10  # clips of a class that are predicted as another
FAR_FROM_NOMINAL = 0.1  # of the fraction of ratings inside an interval
FAR_BELOW = 0.4  # of Pearson's coefficient by which the CCC is lower where scale or mean differ


def corpus_warnings(
    name: str, scores: Mapping[str, Any], emotions: Sequence[str], dimensions: Sequence[str]
) -> list[str]:
    """Warnings about the scores of one model on one corpus; see `report_statistics.correctness`."""
    found = []
    if scores.get("contaminated_by"):
        found.append(f"{name}: the model was trained on clips of these speakers; its scores here are no evidence.")
    if emotions and "uar" in scores:
        low = scores["intervals"].get("uar", [scores["uar"]])[0]
        if low <= scores["chance"] or scores["skill"] < LITTLE_SKILL:
            found.append(
                f"{name}: near chance. UAR {scores['uar']:.3f}, chance {scores['chance']:.3f}: labels and predictions "
                "have little in common."
            )
        if scores["uar"] > TOO_GOOD and not scores.get("contaminated_by"):
            found.append(
                f"{name}: UAR {scores['uar']:.3f} is higher than is known of any model on unseen speakers. The model "
                "has probably been trained on these clips."
            )
        counts = np.array(scores["confusion"])
        most = counts.sum(0) / max(counts.sum(), 1)
        if most.max() >= ONE_CLASS:
            found.append(f"{name}: one answer, {emotions[int(most.argmax())]}, for {most.max():.0%} of all clips.")
        found += _exchanged(name, counts, emotions)
    if "cross_correlation" in scores:
        found += _dimension_warnings(name, scores, dimensions)
    return found


def _dimension_warnings(name: str, scores: Mapping[str, Any], dimensions: Sequence[str]) -> list[str]:
    """Warnings about the order, the direction and the scale of rated dimensions."""
    found = []
    correlation = np.array(scores["cross_correlation"])  # predicted by rated
    rows, columns = linear_sum_assignment(-correlation)
    if correlation[rows, columns].sum() > np.trace(correlation) + REORDERED:
        best = ", ".join(
            f"{dimensions[column]} in place of {dimensions[row]}"
            for row, column in zip(rows, columns, strict=True)
            if row != column
        )
        found.append(f"{name}: the dimensions fit the ratings better in another order: {best}.")
    for place, dimension in enumerate(dimensions):
        own = correlation[place, place]
        moments, concordance = scores["moments"][dimension], scores[f"ccc_{dimension}"]
        if own < -0.1:
            found.append(f"{name}: predicted {dimension} falls where rated {dimension} rises (r {own:+.2f}).")
        if own > 0.3 and concordance < own - FAR_BELOW * own:
            found.append(
                f"{name}: {dimension} has r {own:.2f} but CCC {concordance:.2f}: its scale differs from the ratings "
                f"(mean {moments['predicted_mean']:.2f}, standard deviation {moments['predicted_std']:.2f}; rated "
                f"{moments['rated_mean']:.2f} and {moments['rated_std']:.2f})."
            )
        if moments["predicted_std"] < 1e-4:
            found.append(f"{name}: predicted {dimension} is the same for every clip.")
    return found


def _exchanged(name: str, counts: np.ndarray, emotions: Sequence[str]) -> list[str]:
    """Pairs of classes whose names seem to be exchanged: each is mostly predicted for clips of the other."""
    found = []
    for one in range(len(emotions)):
        for other in range(one + 1, len(emotions)):
            crossed = min(counts[one, other] - 2 * counts[one, one], counts[other, one] - 2 * counts[other, other])
            if crossed > 0 and min(counts[one, other], counts[other, one]) >= MANY:
                pair = f"{emotions[one]} and {emotions[other]}"
                found.append(f"{name}: {pair} are mostly predicted for each other. Are their names exchanged?")
    return found


def calibration_warnings(name: str, scores: Mapping[str, Any]) -> list[str]:
    """Warnings about probabilities; see `report_statistics.calibration`."""
    excess = scores["over_confidence"]
    if excess <= OVER_CONFIDENT:
        return []
    return [
        f"{name}: over-confident by {excess:.2f}: mean probability {scores['confidence']:.2f}, accuracy "
        f"{scores['accuracy']:.2f}."
    ]


def interval_warnings(name: str, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Warnings about the intervals of dimensions; see `report_statistics.coverage`."""
    lines = []
    for dimension, each in found.items():
        for level, inside in each["inside"].items():
            low, high = inside["interval"]
            missed = inside["fraction"] - float(level)
            if abs(missed) <= FAR_FROM_NOMINAL or low <= float(level) <= high:
                continue
            lines.append(
                f"{name}: the {float(level):.0%} intervals of {dimension} contain {inside['fraction']:.0%} of the "
                f"ratings, they are too {'narrow' if missed < 0 else 'wide'}; the errors are {each['scale']:.1f} "
                "times the predicted standard deviation."
            )
            break  # one for each dimension
    return lines


def clip_warnings(name: str, predictions: Predictions, digests: Sequence[str]) -> list[str]:
    """Warnings about the clips: repeated recordings, and speakers that form no groups.

    Args:
        name: of the corpus.
        predictions: of `N` clips.
        digests: of the samples of each clip.
    """
    found = []
    repeated = Counter(digests)
    twice = sum(count - 1 for count in repeated.values())
    if twice:
        found.append(f"{name}: {twice} of {len(digests)} clips are copies of others; scores count them again.")
    speakers = [each for each in predictions.speakers.tolist() if each]
    if not speakers:
        found.append(f"{name}: no speakers are known. Intervals are over clips and do not extend to other speakers.")
    elif len(set(speakers)) == len(speakers) > 20:
        found.append(f"{name}: every clip has a speaker of its own; intervals are as narrow as those over clips.")
    return found


def robustness_warnings(name: str, tests: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Warnings about corruptions; `tests` are by group and name, see `report_statistics.robustness`."""
    silence = tests.get("control", {}).get("silence in its place")
    if silence is not None and silence["flips"] < 0.1:
        return [f"{name}: silence gets the same answer as speech in {1 - silence['flips']:.0%} of clips."]
    return []


def range_warnings(name: str, predictions: Predictions, dimensions: Sequence[str]) -> list[str]:
    """Warnings about dimensions outside 0..1."""
    if not dimensions or not len(predictions.ids):
        return []
    outside = ((predictions.dimensions < -0.05) | (predictions.dimensions > 1.05)).any(1).mean()
    if not outside:
        return []
    return [f"{name}: dimensions are outside 0..1 for {outside:.0%} of clips. Is the model's scale another?"]
