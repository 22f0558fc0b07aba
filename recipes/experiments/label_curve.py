"""A picture of an experiment on few labels: UAR against the share of the labels, a line an arm."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from label_efficiency_tables import TEACHERS, TITLES, title
from matplotlib.figure import Figure

from audio_emotion.evaluation.plots import BLUE, GRAY, GREEN, ORANGE

COLORS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", GRAY, "#000000")  # the others of Okabe & Ito's too
MARKERS = "osD^vP*X"


def label_curve(results: Mapping[str, Any]) -> Figure:
    """Lines for arms at several fractions, dashed those of teachers, marks for others, bars over the seeds.

    Args:
        results: with `points` as `label_efficiency.points_of` gives them, and how many `classes`.
    """
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.add_subplot()
    by_arm = defaultdict(list)
    for point in results["points"]:
        by_arm[point["arm"]].append(point)
    known = [arm for arm in [*TITLES, *sorted(by_arm)] if arm in by_arm]
    order = sorted(dict.fromkeys(known), key=lambda arm: len(by_arm[arm]) == 1)
    for number, arm in enumerate(order):
        points = by_arm[arm]
        share = np.array([100 * point["fraction"] for point in points])
        uar = np.array([point["uar"] for point in points])
        low, high = (np.array([point[f"{end}_seed"] for point in points]) for end in ("lowest", "highest"))
        alone = len(points) == 1
        axes.errorbar(
            share * 1.05 ** (number % 6 - 2.5) if alone else share,  # beside each other
            uar,
            np.maximum([uar - low, high - uar], 0),  # the mean of equal seeds may be off by a last digit
            label=title(arm),
            color=COLORS[number % len(COLORS)],
            marker=MARKERS[(number + number // len(COLORS)) % len(MARKERS)],
            linestyle="" if alone else "--" if arm in TEACHERS else "-",
            capsize=3,
        )
    axes.axhline(1 / results["classes"], color=GRAY, linestyle=":", linewidth=1)
    axes.annotate("chance", (1, 1 / results["classes"]), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    fractions = sorted({100 * point["fraction"] for point in results["points"]})
    axes.set_xscale("log")
    axes.set_xticks(fractions, [f"{each:g}" for each in fractions])
    axes.minorticks_off()
    axes.set_xlabel("labels used, % of the training clips")
    axes.set_ylabel("UAR on unheard speakers")
    axes.set_ylim(0, 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure
