"""Scores of `results.json`, computed from predictions: with intervals, per group, and the norm control."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.metrics import recall_score

from audio_emotion.data.affective_norms import DIMENSIONS as NORM_DIMENSIONS
from audio_emotion.data.affective_norms import NORM_SETS, norm_derived_dimensions
from audio_emotion.evaluation.bootstrap import CLASS_METRICS, bootstrap_interval, intervals_over
from audio_emotion.evaluation.metrics import (
    concordance_correlation,
    expected_calibration_error,
    interval_coverage,
    mean_absolute_error,
    pearson_correlation,
)
from audio_emotion.evaluation.predictions import Predictions

LENGTHS = (1.0, 2.0, 3.0, 4.0, 6.0, 10.0)  # seconds; boundaries of the length groups


def measure(
    predictions: Predictions,
    emotions: list[str],
    dimensions: list[str],
    dimensions_source: str | None,
    repeats: int = 1000,
) -> dict[str, Any]:
    """Scores of categories and dimensions over the whole set at once.

    Intervals are 95 % bootstrap intervals over speakers or clips, see `bootstrap.intervals_over`. Over a handful of
    speakers they are rough and somewhat too narrow; over clips they do not extend to other speakers.

    Args:
        predictions: of all clips.
        emotions: class names in logit order; empty for a model without categories.
        dimensions: names in column order; empty for a model without dimensions.
        dimensions_source: norm-derived ones add the control.
        repeats: bootstrap samples; 0 for no intervals.

    Returns:
        `clips` and `speakers`; for `uar`, `accuracy`, `macro_f1`, `ccc_<dimension>` and `pearson_<dimension>` the
        value, with its interval as `[low, high]` under `intervals`, resampled over `intervals_over`; `recall` of each
        class that occurs, `ece`, `confidence` (the mean of the highest probability), `over_confidence` (confidence
        minus accuracy), `mae_<dimension>` (in units of 0..1); `control_ccc_<dimension>` for norm-derived
        targets; `coverage_90_<dimension>`, of a model that predicts variances, the fraction of the ratings inside its
        90 % intervals. NaN, without an interval, where nothing is labeled.
    """
    speakers = sorted(set(predictions.speakers.tolist()) - {""})
    clusters = predictions.clusters()
    over_speakers = intervals_over(predictions) == "speakers"
    results: dict[str, Any] = {"clips": len(predictions.ids), "speakers": speakers}
    intervals: dict[str, list[float]] = {}

    def score(name: str, statistic: Any, predicted: np.ndarray, target: np.ndarray, clusters: np.ndarray) -> None:
        results[name] = float(statistic(predicted, target))
        groups = clusters if over_speakers else None
        if repeats and len(set(clusters.tolist()) if over_speakers else target) > 1:
            low, high = bootstrap_interval(statistic, predicted, target, groups=groups, repeats=repeats)
            intervals[name] = [float(low), float(high)]

    if emotions:
        known = predictions.labels >= 0
        logits, labels = predictions.logits[known], predictions.labels[known]
        classes = logits.argmax(-1)
        for name, statistic in CLASS_METRICS.items():
            score(name, statistic, classes, labels, clusters[known])
        present = np.unique(labels)
        recalls = recall_score(labels, classes, labels=present, average=None, zero_division=0) if present.size else []
        results["recall"] = {emotions[c]: float(recall) for c, recall in zip(present, recalls, strict=True)}
        probabilities = posterior(logits)
        results["ece"] = expected_calibration_error(probabilities, labels)
        results["confidence"] = float(probabilities.max(-1).mean()) if len(labels) else math.nan
        results["over_confidence"] = results["confidence"] - results["accuracy"]
    # Categories of a custom corpus may have no norms, and its dimensions may not be among them: no control then.
    norms = NORM_SETS[dimensions_source or ""][0] if dimensions_source in NORM_SETS else {}
    normed = bool(emotions) and set(emotions) <= set(norms) and set(dimensions) <= set(NORM_DIMENSIONS)
    derived = dimensions_source if normed and dimensions else None
    controls = control_dimensions(predictions.logits, emotions, derived) if derived else None
    for column, name in enumerate(dimensions):
        rated = np.isfinite(predictions.dimension_labels[:, column])
        predicted, target = predictions.dimensions[rated, column], predictions.dimension_labels[rated, column]
        score(f"ccc_{name}", concordance_correlation, predicted, target, clusters[rated])
        score(f"pearson_{name}", pearson_correlation, predicted, target, clusters[rated])
        if predictions.variances is not None:
            normal = np.stack([predicted, predictions.variances[rated, column]], axis=1)  # (n, 2)
            score(f"coverage_90_{name}", normal_coverage, normal, target, clusters[rated])
        results[f"mae_{name}"] = float(mean_absolute_error(predicted, target))
        if controls is not None:
            control = controls[rated, NORM_DIMENSIONS.index(name)]
            results[f"control_ccc_{name}"] = float(concordance_correlation(control, target))
    return {**results, "intervals": intervals, "intervals_over": "speakers" if over_speakers else "clips"}


def measure_groups(
    predictions: Predictions,
    emotions: list[str],
    dimensions: list[str],
    dimensions_source: str | None,
    repeats: int = 1000,
) -> dict[str, dict[str, dict[str, Any]]]:
    """The scores of `measure` per gender, per speaker and per length of the clip.

    A CCC within one group is usually lower than that of all clips, which also counts the differences between groups:
    compare groups with each other, not with all clips. Single speakers have no interval.

    Returns:
        `gender`, `speaker` and `length`, if known: from the name of the group to its scores.
    """
    parts: dict[str, dict[str, np.ndarray]] = {"gender": {}, "speaker": {}, "length": {}}
    for kind, names in (("gender", predictions.genders), ("speaker", predictions.speakers)):
        if names is not None:
            parts[kind] = {name: names == name for name in sorted({*names.tolist()} - {""})}
    if predictions.durations is not None:
        for low, high in pairwise((0.0, *LENGTHS, np.inf)):
            inside = (predictions.durations >= low) & (predictions.durations < high)
            if inside.any():
                parts["length"][f"{low:g} to {high:g} s" if high < np.inf else f"{low:g} s or more"] = inside
    return {
        kind: {
            name: measure(
                predictions.take(inside), emotions, dimensions, dimensions_source, 0 if kind == "speaker" else repeats
            )
            for name, inside in groups.items()
        }
        for kind, groups in parts.items()
        if groups
    }


def normal_coverage(normal: np.ndarray, target: np.ndarray) -> float:
    """Fraction of `(N,)` targets inside the 90 % intervals of normal distributions, `(N, 2)` mean and variance."""
    return float(interval_coverage(normal[:, 0], normal[:, 1], target, 0.9))


def posterior(logits: np.ndarray) -> np.ndarray:
    """Softmax over classes in float64, `(N, C)` to `(N, C)`."""
    probabilities: np.ndarray = softmax(logits.astype(np.float64), axis=-1)
    return probabilities


def control_dimensions(logits: np.ndarray, emotions: list[str], source: str = "norm-derived") -> np.ndarray:
    """Norms of the emotions averaged under the category posterior, `(N, C)` to `(N, 3)`.

    Targets derived from the category can be predicted from the category: only what a regression head gains over this
    control is evidence about dimensions.
    """
    return posterior(logits) @ np.array([norm_derived_dimensions(name, source=source) for name in emotions])  # (N, 3)


def headline(scores: dict[str, Any], dimensions: list[str]) -> dict[str, float]:
    """The main scores, for a log line: UAR, accuracy and the CCCs, those for which there are labels."""
    names = ["uar", "accuracy", *(f"ccc_{name}" for name in dimensions)]
    return {name: scores[name] for name in names if math.isfinite(scores.get(name, math.nan))}


def selection_score(scores: dict[str, Any], dimensions: list[str]) -> float:
    """Validation score that selects the best checkpoint: the mean of UAR and mean CCC, or the one that is defined."""
    known = headline(scores, dimensions)
    concordances = [value for name, value in known.items() if name.startswith("ccc_")]
    parts = [known["uar"]] if "uar" in known else []
    parts += [sum(concordances) / len(concordances)] if concordances else []
    return sum(parts) / len(parts) if parts else -1.0
