"""Plots of an evaluation: confusion matrix, scatter, reliability, speakers, and comparison of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from audio_emotion.evaluation.metrics import concordance_correlation, expected_calibration_error
from audio_emotion.evaluation.predictions import Predictions
from audio_emotion.evaluation.report import posterior

# Okabe & Ito's colors, which are distinct with color blindness.
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#666666"
GENDERS = {"female": ORANGE, "male": BLUE, "": GRAY}

MIN_BIN = 10  # clips, for a point of a reliability curve


def save_plots(
    folder: str | Path, predictions: Predictions, emotions: list[str], dimensions: list[str], results: dict[str, Any]
) -> list[Path]:
    """Draw every plot for which there are labels; `results` are of `measure`, with `groups` of `measure_groups`."""
    figures = {}
    if emotions and (predictions.labels >= 0).any():
        figures["confusion"] = confusion_plot(predictions, emotions)
        figures["reliability"] = reliability_diagram(predictions)
    if np.isfinite(predictions.dimension_labels).any() and dimensions:
        figures["scatter"] = scatter(predictions, dimensions)
    if len(results["speakers"]) > 1:
        figures["speakers"] = per_speaker(predictions, results)
    return [save_figure(figure, Path(folder) / f"{name}.png") for name, figure in figures.items()]


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure at 150 dots per inch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def confusion_plot(predictions: Predictions, emotions: Sequence[str]) -> Figure:
    """Confusion matrix: fraction and number of the clips of each emotion (row) predicted as each (column)."""
    known = predictions.labels >= 0
    predicted = predictions.logits[known].argmax(-1)
    counts = confusion_matrix(predictions.labels[known], predicted, labels=range(len(emotions)))
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # (C, C)
    size = 2.4 + 0.62 * len(emotions)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        if counts[row, column]:
            color = "white" if fractions[row, column] > 0.55 else "black"
            text = f"{fractions[row, column]:.0%}\n{counts[row, column]}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8, linespacing=1.1)
    names = [f"{name} ({count})" for name, count in zip(emotions, counts.sum(axis=1), strict=True)]
    axes.set_xticks(range(len(emotions)), emotions, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(emotions)), names)
    axes.set_xticks(np.arange(len(emotions) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(emotions) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted", ylabel="label (clips)")
    recalls = np.diag(fractions)[counts.any(axis=1)]
    axes.set_title(f"Confusion: UAR {recalls.mean():.3f}, {counts.sum():,} clips", loc="left")
    figure.colorbar(image, ax=axes, shrink=0.8, label="fraction of the row", format="{x:.0%}").outline.set_visible(
        False
    )
    return figure


def scatter(predictions: Predictions, dimensions: Sequence[str]) -> Figure:
    """Predicted against rated values, one panel per dimension, with the identity line.

    Targets with few distinct values are jittered by at most 0.012, and a black mark is the mean of the predictions
    for each value.
    """
    figure = Figure(figsize=(3.6 * len(dimensions), 4.0), layout="constrained")
    panels = figure.subplots(1, len(dimensions), sharex=True, sharey=True, squeeze=False)[0]
    random = np.random.default_rng(0)
    for column, (name, axes) in enumerate(zip(dimensions, panels, strict=True)):
        target = predictions.dimension_labels[:, column]
        rated = np.isfinite(target)
        target, predicted = target[rated], predictions.dimensions[rated, column]
        values = np.unique(target)
        few = len(values) <= 24
        moved = target + random.uniform(-0.012, 0.012, target.shape) if few else target
        axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1, zorder=1)
        alpha = float(np.clip(60 / max(len(target), 1) ** 0.9, 0.08, 0.6))
        axes.scatter(moved, predicted, s=14, color=BLUE, alpha=alpha, linewidths=0, zorder=2)
        if few:
            means = [predicted[target == value].mean() for value in values]
            axes.scatter(values, means, s=34, color="black", marker="_", linewidths=1.8, zorder=3)
        ccc = concordance_correlation(predicted, target)
        axes.set_title(f"{name}: CCC {ccc:.3f}", loc="left", fontsize=11)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="target", aspect="equal")
        _plain(axes)
    panels[0].set_ylabel("predicted")
    return figure


def reliability_diagram(predictions: Predictions, bins: int = 10) -> Figure:
    """Accuracy of the predicted class at each confidence (bars), and the number of clips (below)."""
    known = predictions.labels >= 0
    scores, labels = posterior(predictions.logits[known]), predictions.labels[known]
    confidence, right = scores.max(axis=-1), scores.argmax(axis=-1) == labels
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    hits = np.bincount(bin_of, weights=right, minlength=bins) / np.maximum(count, 1)
    means = np.bincount(bin_of, weights=confidence, minlength=bins) / np.maximum(count, 1)
    centers = (np.arange(bins) + 0.5) / bins
    filled = count > 0

    figure = Figure(figsize=(4.8, 5.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    above.bar(centers[filled], hits[filled], width=0.94 / bins, color=BLUE, alpha=0.85, label="accuracy")
    above.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle="--", label="calibrated")
    above.plot(means[filled], hits[filled], "o", color="black", markersize=4, label="mean confidence of the bin")
    above.set(ylim=(0, 1.02), xlim=(0, 1), ylabel="accuracy")
    error = expected_calibration_error(scores, labels)
    above.set_title(
        f"Reliability: ECE {error:.3f}\nmean confidence {confidence.mean():.2f}, accuracy {right.mean():.2f}",
        loc="left",
        fontsize=11,
    )
    above.legend(frameon=False, loc="upper left", fontsize=9)
    below.bar(centers, count, width=0.94 / bins, color=GRAY)
    below.set(xlabel="confidence of the predicted class", ylabel="clips")
    for axes in (above, below):
        _plain(axes)
    return figure


def per_speaker(predictions: Predictions, results: Mapping[str, Any]) -> Figure:
    """UAR and CCC of every speaker, worst first; the line is the score of all speakers together."""
    scores = results["groups"]["speaker"]
    metrics = [name for name in results if name == "uar" or name.startswith("ccc_")]
    speakers = sorted(scores, key=lambda name: np.nan_to_num(scores[name][metrics[0]], nan=-1.0))
    genders = [""] * len(predictions.ids) if predictions.genders is None else predictions.genders.tolist()
    gender_of = dict(zip(predictions.speakers.tolist(), genders, strict=True))
    figure = Figure(figsize=(1.6 + 2.3 * len(metrics), 1.5 + 0.27 * max(len(speakers), 3)), layout="constrained")
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    places = np.arange(len(speakers))
    for metric, axes in zip(metrics, panels, strict=True):
        values = np.array([scores[name][metric] for name in speakers])
        colors = [GENDERS.get(gender_of[name], GREEN) for name in speakers]
        axes.hlines(places, np.fmin(values, results[metric]), np.fmax(values, results[metric]), "#cccccc", zorder=1)
        axes.axvline(results[metric], color=GRAY, linewidth=1, zorder=1)
        axes.scatter(values, places, s=36, color=colors, zorder=2)
        axes.set_title(metric_title(metric), loc="left", fontsize=11)
        lowest = min(0.0, float(np.nanmin(values)) - 0.05)
        axes.set(xlim=(lowest, 1.03), ylim=(len(speakers) - 0.4, -0.6), xticks=(0, 0.25, 0.5, 0.75, 1))
        axes.set_xticklabels(("0", "", "0.5", "", "1"))
        _plain(axes)
    panels[0].set_yticks(places, speakers)
    shown = [name for name in ("female", "male") if name in gender_of.values()]
    marks = [panels[0].scatter([], [], s=36, color=GENDERS[name], label=name) for name in shown]
    marks += panels[0].plot([], [], color=GRAY, linewidth=1, label="all speakers")
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False, fontsize=9)
    return figure


def model_comparison(results: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Scores of `measure` of up to ten models side by side, one panel per metric, with intervals."""
    columns = ("uar", "ccc_activation", "ccc_valence", "ccc_dominance")
    metrics = [name for name in columns if any(name in scores for scores in results.values())]
    names = list(results)
    figure = Figure(figsize=(2.0 + 2.4 * len(metrics), 1.3 + 0.36 * max(len(names), 3)), layout="constrained")
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for metric, axes in zip(metrics, panels, strict=True):
        for place, name in enumerate(names):
            if metric not in results[name]:
                continue
            value, interval = results[name][metric], results[name]["intervals"].get(metric)
            if interval:
                axes.plot(interval, [place, place], color=BLUE, linewidth=2.5, alpha=0.45, solid_capstyle="round")
            axes.plot(value, place, "o", color=BLUE, markersize=6)
            axes.annotate(f"{value:.3f}", (value, place), (0, 6), textcoords="offset points", ha="center", fontsize=8)
        axes.set_title(metric_title(metric), loc="left", fontsize=11)
        axes.set_ylim(len(names) - 0.5, -0.6)
        axes.margins(x=0.15)
        axes.grid(axis="x", color="#e5e5e5", linewidth=0.8)
        axes.set_axisbelow(True)
        _plain(axes)
    panels[0].set_yticks(range(len(names)), names)
    return figure


def report_figure(report: Mapping[str, Any], model: str) -> Figure:
    """UAR with its interval on every corpus of a report, beside chance; and accuracy by confidence on each.

    Args:
        report: content of `report.json`.
        model: its name there.
    """
    scored = [
        (corpus, corpus["models"][model])
        for corpus in report["corpora"]
        if "uar" in corpus["models"].get(model, {}) and not corpus["models"][model].get("contaminated_by")
    ]
    figure = Figure(figsize=(9.6, 1.4 + 0.5 * max(len(scored), 5)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(5, 4))
    colors = [f"C{number}" for number in range(len(scored))]
    for row, ((corpus, scores), color) in enumerate(zip(scored, colors, strict=True)):
        low, high = scores["intervals"].get("uar", [scores["uar"]] * 2)
        left.plot([low, high], [row, row], color=color, linewidth=2)
        left.plot(
            [scores["uar"]], [row], "o", color=color, markersize=8, fillstyle="none" if corpus["within"] else "full"
        )
        left.plot([scores["chance"]], [row], "|", color=GRAY, markersize=14)
        bins = [each for each in scores["calibration"]["bins"] if each["clips"] >= MIN_BIN]
        points = [[each[name] for each in bins] for name in ("confidence", "accuracy")]
        right.plot(*points, "o-", color=color, markersize=4, label=corpus["name"])
    names = [f"{corpus['name']}{' (its own corpus)' if corpus['within'] else ''}" for corpus, _ in scored]
    left.set(yticks=range(len(scored)), yticklabels=names, xlim=(0, 1), ylim=(len(scored) - 0.5, -0.5))
    left.set_xlabel("UAR with 95 % interval; gray: chance")
    right.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle="--", label="calibrated")
    right.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
    right.legend(frameon=False, loc="upper left", fontsize=9)
    for axes in (left, right):
        _plain(axes)
    return figure


def metric_title(metric: str) -> str:
    """`UAR`, or `CCC` and the dimension."""
    return "UAR" if metric == "uar" else f"CCC {metric.removeprefix('ccc_')}"


def _plain(axes: Any) -> None:
    """Remove the upper and the right spine."""
    axes.spines[["top", "right"]].set_visible(False)
