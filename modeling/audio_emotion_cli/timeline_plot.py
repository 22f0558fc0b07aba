"""The plot of a time line: dimensions and emotions over time, a lane for each channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from audio_emotion_cli.timeline_formats import Lanes

COLORS = ("#0072B2", "#D55E00", "#009E73")  # of the dimensions (Okabe & Ito)
POINTS = 600  # along the time axis, at most; longer recordings are averaged
NO_SPEECH = {"silence", "no_speech"}


def draw_timeline(lanes: Lanes, path: str, title: str) -> None:
    """Draw and save; windows without speech are gaps, and `unlike_training` is marked below.

    Args:
        lanes: windows by channel.
        path: of the file, whose suffix is the format.
        title: above the plot.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}):
        figure = Figure(figsize=(10, 0.7 + 2.9 * len(lanes)), layout="constrained")
        heights = [2, 1.2] * len(lanes)
        axes = figure.subplots(2 * len(lanes), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for number, (channel, windows) in enumerate(lanes.items()):
            _draw_lane(figure, axes[2 * number], axes[2 * number + 1], channel, windows)
        unit = axes[-1].get_xlim()[1]
        scale, name = (3600, "hours") if unit > 7200 else (60, "minutes") if unit > 180 else (1, "seconds")
        axes[-1].xaxis.set_major_formatter(lambda value, _: f"{value / scale:g}")
        axes[-1].set_xticks(_ticks(unit, scale))
        axes[-1].set_xlabel(name)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        figure.savefig(path, dpi=150)


def _draw_lane(figure: Any, upper: Any, lower: Any, channel: str, windows: Sequence[dict[str, Any]]) -> None:
    times, dimensions, emotions, spoken, unlike = _arrays(windows)
    names = list(windows[0].get("dimensions", {}))
    for column, name in enumerate(names):
        values = np.where(spoken, dimensions[:, column], np.nan)
        upper.plot(times, values, color=COLORS[column % len(COLORS)], lw=1.4, label=name)
    upper.axhline(0.5, color="#999999", lw=0.6, ls=":")
    upper.set(ylim=(0, 1), yticks=(0, 0.5, 1), xlim=(0, windows[-1]["end"]))
    if unlike.any():
        upper.plot(
            times[unlike], np.full(int(unlike.sum()), 0.02), "|", color="#444444", ms=5, label="unlike training"
        )
    upper.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False, fontsize=8)
    upper.set_ylabel(f"channel {channel}" if channel else "dimensions")
    labels = sorted(each["label"] for each in windows[0].get("emotions", []))
    if labels:
        shown = np.where(spoken[None], emotions.T, np.nan)  # (C, T)
        edges = np.append(times - (times[1] - times[0] if len(times) > 1 else 1) / 2, windows[-1]["end"]).clip(min=0)
        image = lower.pcolormesh(edges, np.arange(len(labels) + 1), shown, cmap="Blues", vmin=0, vmax=1)
        lower.set_yticks(np.arange(len(labels)) + 0.5, labels)
        lower.set_ylim(len(labels), 0)
        figure.colorbar(image, ax=lower, label="probability", aspect=8, pad=0.01)


def _arrays(windows: Sequence[dict[str, Any]]) -> tuple[np.ndarray, ...]:
    """Times `(T,)`, dimensions `(T, A)`, emotions `(T, C)`, and whether there is speech and it is unlike training."""
    groups = np.array_split(np.arange(len(windows)), min(POINTS, len(windows)))
    times, dimensions, emotions, spoken, unlike = [], [], [], [], []
    for group in groups:
        part = [windows[place] for place in group]
        heard = [each for each in part if not NO_SPEECH & set(each["flags"])]
        used = heard or part
        times.append(np.mean([(each["start"] + each["end"]) / 2 for each in part]))
        dimensions.append(np.mean([list(each.get("dimensions", {}).values()) for each in used], axis=0))
        scores = [sorted((one["label"], one["score"]) for one in each.get("emotions", [])) for each in used]
        emotions.append(np.mean([[score for _, score in row] for row in scores], axis=0))
        spoken.append(bool(heard))
        unlike.append(np.mean(["unlike_training" in each["flags"] for each in used]) > 0.5 and bool(heard))
    return tuple(map(np.array, (times, dimensions, emotions, spoken, unlike)))


def _ticks(end: float, scale: float) -> np.ndarray:
    """About eight round places from 0 to the end."""
    step = end / scale / 8
    power = 10 ** np.floor(np.log10(step))
    nice = next(each * power for each in (1, 2, 5, 10) if each * power >= step)
    return np.arange(0, end / scale + nice / 10, nice) * scale
