"""Report of the label-efficiency experiment: mean scores, paired differences, their table and plot.

A point is an arm of the experiment at a fraction of the labels; its runs differ in the seed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from audio_emotion.data.training_set import percent
from audio_emotion.evaluation.bootstrap import aggregate, compare
from audio_emotion.evaluation.plots import BLUE, GRAY, GREEN, ORANGE
from audio_emotion.evaluation.predictions import Predictions
from audio_emotion.hub.card_sections import markdown_table

Point = tuple[str, float]  # arm, fraction of the labels
TITLES = {  # of arms, in the order of the tables
    "scratch": "student, labels alone",
    "speech": "student of the speech teacher",
    "face": "student of the face teacher",
    "both": "student of both teachers",
    "both-shuffled": "student of both, faces shuffled",
    "scratch-convolutional": "convolutional student, labels alone",
    "both-convolutional": "convolutional student of both",
    "scratch-regression": "regression, labels alone",
    "speech-regression": "regression of the speech teacher",
    "face-regression": "regression of the face teacher",
    "both-regression": "regression of both teachers",
    "both-shuffled-regression": "regression of both, faces shuffled",
    "random-probe": "regression on an untrained student",
    "speech-teacher": "speech teacher",
    "face-teacher": "face teacher",
    "both-teachers": "both teachers",
}
COMPARED_ARMS = [  # at the same fraction
    *((arm, "scratch") for arm in ("speech", "face", "both", "both-shuffled", "random-probe")),
    *((arm, "speech") for arm in ("both", "both-shuffled")),
    ("both", "both-shuffled"),
    ("both-convolutional", "both"),
    ("both-convolutional", "scratch-convolutional"),
]
COMPARED_ARMS += [
    (f"{one}-regression", f"{other}-regression")
    for one, other in COMPARED_ARMS
    if "-" not in one.removesuffix("-shuffled")
]
TEACHER_ARMS = ("speech-teacher", "face-teacher", "both-teachers")
COLORS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", GRAY, "#000000")  # Okabe & Ito's
MARKERS = "osD^vP*X"


def mean_scores(
    rows: Mapping[Point, Sequence[dict[str, Any]]], predictions: Mapping[Point, Sequence[Predictions]], repeats: int
) -> list[dict[str, Any]]:
    """Mean UAR of every point with its 95 % interval, and the lowest and highest seed.

    Rows, with `uar` and `labels` (their number), and predictions of a point are one per seed.
    """
    points = []
    for (arm, fraction), runs in sorted(rows.items()):
        mean, interval = aggregate(predictions[arm, fraction], "uar", [], repeats)
        seeds = [row["uar"] for row in runs]
        point = {"arm": arm, "fraction": fraction, "labels": runs[0]["labels"], "uar": mean, "interval": [*interval]}
        points.append(point | {"lowest_seed": min(seeds), "highest_seed": max(seeds)})
    return points


def compared_points(fractions: Sequence[float]) -> list[tuple[Point, Point]]:
    """Pairs to compare: arms at the same fraction, and students with teachers against all labels alone."""
    pairs = [((one, fraction), (other, fraction)) for one, other in COMPARED_ARMS for fraction in fractions]
    all_labels = [(f"{arm}{kind}", f"scratch{kind}") for kind in ("", "-regression") for arm in ("both", "speech")]
    return pairs + [((one, fraction), (other, 1.0)) for one, other in all_labels for fraction in fractions]


def paired_differences(
    pairs: Iterable[tuple[Point, Point]], predictions: Mapping[Point, Sequence[Predictions]], repeats: int
) -> list[dict[str, Any]]:
    """Paired differences in UAR of the pairs of which both points, with predictions of each seed, have been run."""
    differences = []
    for first, second in dict.fromkeys(pairs):
        if first in predictions and second in predictions and first != second:
            found = compare(predictions[first], predictions[second], "uar", [], repeats)
            names = {"first_arm": first[0], "first_fraction": first[1]}
            names |= {"second_arm": second[0], "second_fraction": second[1]}
            differences.append(names | asdict(found))
    return differences


def select_results(results: Mapping[str, Any], arms: Sequence[str], fractions: Sequence[float]) -> dict[str, Any]:
    """The results of some arms at some fractions of the labels."""

    def is_selected(entry: Mapping[str, Any], prefix: str = "") -> bool:
        return entry[f"{prefix}arm"] in arms and entry[f"{prefix}fraction"] in fractions

    points = [point for point in results["points"] if is_selected(point)]
    pairs = [each for each in results["comparisons"] if is_selected(each, "first_") and is_selected(each, "second_")]
    return {**results, "points": points, "comparisons": pairs}


def render_table(results: Mapping[str, Any]) -> str:
    """Markdown from `results.json`: one row per arm, one column per fraction; then the paired differences."""
    over = results["intervals_over"]
    points = {(point["arm"], point["fraction"]): point for point in results["points"]}
    labels = {fraction: point["labels"] for (_, fraction), point in points.items()}
    fractions = sorted(labels)
    scores = []
    for arm in arms_in_order(results):
        row = [points.get((arm, fraction)) for fraction in fractions]
        cells = ["{:.3f} ({:.2f} to {:.2f})".format(each["uar"], *each["interval"]) if each else "" for each in row]
        scores.append([arm_title(arm), *cells])
    differences = []
    for each in results["comparisons"]:
        first, second = (
            f"{arm_title(each[f'{which}_arm'])}, {percent(each[f'{which}_fraction'])} %"
            for which in ("first", "second")
        )
        difference = "{:+.3f} ({:+.3f} to {:+.3f})".format(each["difference"], *each["interval"])
        p_value = f"{each['p_value']:.3f} ({each['units']} {each['unit']})"
        differences.append([first, second, difference, p_value])
    note = (
        f"UAR on {results['test_clips']} test clips, mean of {len(results['seeds'])} seed(s) (95 % interval over "
        f"{over}); chance is {1 / results['classes']:.3f}."
    )
    columns = ["arm", *(f"{percent(each)} % ({labels[each]} labels)" for each in fractions)]
    compared = ["first", "second", f"difference in UAR, paired (95 % interval over {over})", "p"]
    return f"{note}\n\n{markdown_table(columns, scores)}\n\n{markdown_table(compared, differences)}\n"


def label_efficiency_plot(results: Mapping[str, Any]) -> Figure:
    """UAR against the fraction of the labels, one line per arm, with the range of the seeds.

    Arms at one fraction are markers only; lines of teachers are dashed.
    """
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.add_subplot()
    by_arm = defaultdict(list)
    for point in results["points"]:
        by_arm[point["arm"]].append(point)
    for number, arm in enumerate(sorted(arms_in_order(results), key=lambda arm: len(by_arm[arm]) == 1)):
        points = by_arm[arm]
        fraction = np.array([100 * point["fraction"] for point in points])
        uar = np.array([point["uar"] for point in points])
        low, high = (np.array([point[f"{end}_seed"] for point in points]) for end in ("lowest", "highest"))
        single = len(points) == 1
        axes.errorbar(
            fraction * 1.05 ** (number % 6 - 2.5) if single else fraction,  # beside each other
            uar,
            np.maximum([uar - low, high - uar], 0),  # rounding may put the mean of equal seeds outside their range
            label=arm_title(arm),
            color=COLORS[number % len(COLORS)],
            marker=MARKERS[(number + number // len(COLORS)) % len(MARKERS)],
            linestyle="" if single else "--" if arm in TEACHER_ARMS else "-",
            capsize=3,
        )
    axes.axhline(1 / results["classes"], color=GRAY, linestyle=":", linewidth=1)
    axes.annotate("chance", (1, 1 / results["classes"]), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    fractions = sorted({100 * point["fraction"] for point in results["points"]})
    axes.set_xscale("log")
    axes.set_xticks(fractions, [f"{each:g}" for each in fractions])
    axes.minorticks_off()
    axes.set_xlabel("labels used, % of the training clips")
    axes.set_ylabel("UAR on unseen speakers")
    axes.set_ylim(0, 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def arm_title(arm: str) -> str:
    """Name of an arm in tables and plots."""
    return TITLES.get(arm, arm)


def arms_in_order(results: Mapping[str, Any]) -> list[str]:
    """The arms that have been run, in the order of the tables."""
    arms = {point["arm"] for point in results["points"]}
    return [arm for arm in dict.fromkeys([*TITLES, *sorted(arms)]) if arm in arms]
