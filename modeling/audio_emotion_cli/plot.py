"""Many answers in one picture, drawn from sums, so that a million clips take no more memory than a hundred."""

from __future__ import annotations

from typing import Any

import numpy as np

DOTS = 1000  # answers drawn as dots; more become a density
CELLS = 50  # of the density, along each dimension
INK, FAINT, DOT = "#22282f", "#a9b4be", "#d9662b"


class Overview:
    """Sums up answers: where they lie between valence and activation, and which emotions they name.

    Args:
        scale: lowest and highest value of a dimension.
    """

    def __init__(self, scale: tuple[float, float]) -> None:
        self.scale = scale
        self.count = 0
        self.dots: list[tuple[float, float]] = []  # valence and activation of the first answers
        self.density = np.zeros((CELLS, CELLS), dtype=np.int64)  # (valence, activation), of all answers
        self.emotions: dict[str, float] = {}  # sum of probabilities

    def add(self, spans: list[dict[str, Any]]) -> None:
        """Take in the windows of a clip, or the whole clip as one."""
        low, high = self.scale
        for span in spans:
            self.count += 1
            dimensions = span.get("dimensions", {})
            if "valence" in dimensions and "activation" in dimensions:
                place = (dimensions["valence"], dimensions["activation"])
                if len(self.dots) < DOTS:
                    self.dots.append(place)
                cell = [min(int(CELLS * (value - low) / (high - low)), CELLS - 1) for value in place]
                self.density[cell[0], cell[1]] += 1
            for each in span.get("emotions", []):
                self.emotions[each["label"]] = self.emotions.get(each["label"], 0.0) + each["score"]

    def draw(self, path: str) -> None:
        """Write the picture."""
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        style = {
            **{"font.size": 10, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT},
            **{"axes.spines.top": False, "axes.spines.right": False, "xtick.color": INK, "ytick.color": INK},
        }
        with rc_context(style):
            figure = Figure(figsize=(11, 5), layout="constrained")
            plane, bars = figure.subplots(1, 2, width_ratios=(1, 1))
            self._draw_plane(plane)
            self._draw_emotions(bars)
            figure.savefig(path, dpi=150, facecolor="white")

    def _draw_plane(self, axes: Any) -> None:
        """Every answer between valence and activation."""
        low, high = self.scale
        middle = (low + high) / 2
        axes.axhline(middle, color=FAINT, linewidth=0.8, zorder=0)
        axes.axvline(middle, color=FAINT, linewidth=0.8, zorder=0)
        total = int(self.density.sum())
        if total > len(self.dots):
            shown = np.ma.masked_equal(self.density.T, 0)
            axes.imshow(shown, origin="lower", extent=(low, high, low, high), cmap="Oranges", norm="log")
        elif self.dots:
            axes.scatter(*zip(*self.dots, strict=True), s=18, color=DOT, alpha=0.6, linewidths=0)
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_aspect("equal")
        axes.set_xticks([low, middle, high], [f"negative\n{low:g}", f"{middle:g}", f"positive\n{high:g}"])
        axes.set_yticks([low, middle, high], [f"calm {low:g}", f"{middle:g}", f"excited {high:g}"])
        axes.set_xlabel("valence")
        axes.set_ylabel("activation")
        axes.set_title(f"{total} answers", loc="left", fontsize=10)

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
