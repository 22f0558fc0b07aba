"""A plot of many predictions, from running sums, so that memory does not grow with the number of clips."""

from __future__ import annotations

from typing import Any

import numpy as np

MAX_POINTS = 1000  # more are drawn as a density
BINS = 50  # of the density, along each dimension
DARK, GRAY, ORANGE = "#22282f", "#a9b4be", "#d9662b"


class Overview:
    """Accumulates valence, activation and emotion probabilities of predictions, and plots them.

    Args:
        scale: lowest and highest value of a dimension.
    """

    def __init__(self, scale: tuple[float, float]) -> None:
        self.scale = scale
        self.count = 0
        self.points: list[tuple[float, float]] = []  # (valence, activation) of the first predictions
        self.density = np.zeros((BINS, BINS), dtype=np.int64)  # (valence, activation), of all predictions
        self.emotions: dict[str, float] = {}  # sum of probabilities

    def add(self, spans: list[dict[str, Any]]) -> None:
        """Add the windows of a clip, or the whole clip as one."""
        low, high = self.scale
        for span in spans:
            self.count += 1
            dimensions = span.get("dimensions", {})
            if "valence" in dimensions and "activation" in dimensions:
                point = (dimensions["valence"], dimensions["activation"])
                if len(self.points) < MAX_POINTS:
                    self.points.append(point)
                row, column = (min(int(BINS * (value - low) / (high - low)), BINS - 1) for value in point)
                self.density[row, column] += 1
            for each in span.get("emotions", []):
                self.emotions[each["label"]] = self.emotions.get(each["label"], 0.0) + each["score"]

    def draw(self, path: str) -> None:
        """Write the plot to a file."""
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        style = {
            **{"font.size": 10, "text.color": DARK, "axes.labelcolor": DARK, "axes.edgecolor": GRAY},
            **{"axes.spines.top": False, "axes.spines.right": False, "xtick.color": DARK, "ytick.color": DARK},
        }
        with rc_context(style):
            figure = Figure(figsize=(11, 5), layout="constrained")
            scatter, bars = figure.subplots(1, 2, width_ratios=(1, 1))
            self._draw_scatter(scatter)
            self._draw_emotions(bars)
            figure.savefig(path, dpi=150, facecolor="white")

    def _draw_scatter(self, axes: Any) -> None:
        """Every prediction, valence on the x axis and activation on the y axis."""
        low, high = self.scale
        middle = (low + high) / 2
        axes.axhline(middle, color=GRAY, linewidth=0.8, zorder=0)
        axes.axvline(middle, color=GRAY, linewidth=0.8, zorder=0)
        total = int(self.density.sum())
        if total > len(self.points):
            shown = np.ma.masked_equal(self.density.T, 0)
            axes.imshow(shown, origin="lower", extent=(low, high, low, high), cmap="Oranges", norm="log")
        elif self.points:
            axes.scatter(*zip(*self.points, strict=True), s=18, color=ORANGE, alpha=0.8, linewidths=0)
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_aspect("equal")
        axes.set_xticks([low, middle, high], [f"{low:g}\nnegative", f"{middle:g}", f"{high:g}\npositive"])
        axes.set_yticks([low, middle, high], [f"calm {low:g}", f"{middle:g}", f"excited {high:g}"])
        axes.set_xlabel("valence")
        axes.set_ylabel("activation")
        axes.set_title(f"{total:,} predictions", loc="left", fontsize=10)

    def _draw_emotions(self, axes: Any) -> None:
        """Mean probability of each emotion, the highest on top."""
        means = sorted(((total / self.count, label) for label, total in self.emotions.items()), reverse=True)
        axes.barh([label for _, label in means], [mean for mean, _ in means], color="#8fa3b5", height=0.62)
        axes.invert_yaxis()
        for row, (mean, _) in enumerate(means):
            axes.annotate(f"{mean:.2f}", (mean, row), (4, 0), textcoords="offset points", va="center")
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_title("Mean probability of each emotion", loc="left", fontsize=10)
