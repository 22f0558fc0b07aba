"""Predict the emotion of one clip: print the result as a table and plot it over time.

    python recipes/demo.py                                       # the bundled clip and the default model
    python recipes/demo.py clip.wav --model runs/distill/student

Takes a few seconds on a CPU; needs a network only if `--model` is a Hub id.
"""

from __future__ import annotations

import argparse
import logging
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from transformers import pipeline

import audio_emotion
from audio_emotion.hub.card import DIMENSIONS_MEANING, dimension_ends

EMBEDDED = Path(audio_emotion.__file__).parent / "embedded"
CLIP = EMBEDDED / "speech" / "sense_and_sensibility.flac"

COLORS = {"activation": "#d9662b", "valence": "#1f8a7d", "dominance": "#5a55a3"}
DARK, GRAY, NOTE, BAR = "#22282f", "#a9b4be", "#66717c", "#8fa3b5"
STYLE = {
    **{"font.size": 10, "text.color": DARK, "axes.labelcolor": DARK, "axes.edgecolor": GRAY},
    **{"axes.spines.top": False, "axes.spines.right": False, "xtick.color": DARK, "ytick.color": DARK},
}
BAR_WIDTH = 32  # characters


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", nargs="?", type=Path, default=CLIP, help="audio file (default: the bundled clip)")
    parser.add_argument("--model", help="folder or Hub id (default: the model in the package)")
    parser.add_argument("--plot", type=Path, default=Path("runs/demo.png"), help="output file (default: %(default)s)")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    if args.model is None and not (EMBEDDED / "lite" / "config.json").is_file():
        sys.exit("Expected a model in this installation, got none. Give one: --model FOLDER, or --model HUB_ID.")
    recognizer = pipeline("audio-emotion", model=args.model)
    config = recognizer.model.config
    try:
        prediction = recognizer(str(args.audio), return_frames=True)
    except ValueError as error:
        sys.exit(str(error))

    clip = describe_clip(args.audio)
    print("\n".join(format_table(prediction, clip, config)))

    waveform = audio_emotion.read_audio(str(args.audio), config.sampling_rate).waveform
    args.plot.parent.mkdir(parents=True, exist_ok=True)
    draw(prediction, clip, config, waveform).savefig(args.plot, dpi=150, facecolor="white")
    print(f"\nPlot: {args.plot}")


def describe_clip(audio: Path) -> dict[str, str]:
    """Title, transcript and source of the bundled clip from its SOURCE.md; of any other clip its name."""
    if audio != CLIP:
        return {"title": audio.name}
    rows = [line.split("|") for line in CLIP.with_name("SOURCE.md").read_text(encoding="utf-8").splitlines()]
    facts = {row[1].strip(): row[2].strip().replace("*", "").replace("`", "") for row in rows if len(row) == 4}
    return {
        "title": facts["Text"],
        "transcript": facts["What is said"],
        "source": f"{facts['Recording']}; public domain",
    }


def format_table(prediction: dict[str, Any], clip: dict[str, str], config) -> list[str]:
    """The prediction as lines of text."""
    lines = ["", clip["title"], *(f"  {clip[part]}" for part in ("transcript", "source") if part in clip)]
    lines += [f"  {prediction['duration']:.2f} s; flags: {', '.join(prediction['flags']) or 'none'}"]

    dimensions, emotions = prediction.get("dimensions", {}), prediction.get("emotions", [])
    notes = []
    if dimensions:
        lines += ["", f"Dimensions{'0':>26}{'1':>{BAR_WIDTH}}"]
        for name, value in dimensions.items():
            low, high = dimension_ends(name)
            track = ["─"] * (BAR_WIDTH + 1)
            track[BAR_WIDTH // 2] = "┼"
            track[round(BAR_WIDTH * value)] = "●"
            lines += [f"  {name:<12}{value:5.2f}  {low:>12}  {''.join(track)}  {high}"]
        source = config.dimensions_source
        meaning = DIMENSIONS_MEANING.get(source, "the checkpoint does not state their source").replace("*", "")
        notes += [f"Dimensions are in 0..1. Source: {source or 'unknown'}. {meaning}"]
    if emotions:
        lines += ["", "Emotions"]
        for each in emotions:
            eighths = round(8 * BAR_WIDTH * each["score"])
            bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
            lines += [f"  {each['label']:<12}{each['score']:5.2f}  {bar}".rstrip()]
        notes += [f"The probabilities of the {len(emotions)} emotions sum to 1; chance is 1 in {len(emotions)}."]
    notes += ["The output describes how the voice sounds to the model, not what the speaker feels."]
    wrapped = [textwrap.fill(each, 100, initial_indent="  ", subsequent_indent="  ") for each in notes]
    return [*lines, "", "Notes", *wrapped]


def draw(prediction: dict[str, Any], clip: dict[str, str], config, waveform: np.ndarray) -> Figure:
    """Waveform `(S,)` and dimensions over time on the left, emotions on the right."""
    dimensions, emotions = prediction.get("dimensions", {}), prediction.get("emotions", [])
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 2.4 + 1.1 * max(len(dimensions), 2)), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.06)
        left, right = figure.subfigures(1, 2, width_ratios=(2.4, 1)) if emotions else (figure.subfigures(1, 1), None)
        figure.suptitle(clip["title"], x=0.012, ha="left", fontsize=14, fontweight="bold")

        rows = left.subplots(
            1 + len(dimensions), 1, sharex=True, squeeze=False, height_ratios=[1.3] + [1] * len(dimensions)
        )[:, 0]
        draw_waveform(rows[0], waveform, prediction["duration"], clip.get("transcript", ""))
        for axes, name in zip(rows[1:], dimensions, strict=True):
            draw_dimension(axes, name, prediction["frames"])
        if dimensions:
            is_causal = config.model_type == "student-emotion"  # a teacher's frames depend on the whole clip
            over_time = "running output of the streaming model" if is_causal else "output for each frame"
            rows[1].set_title(f"Dimensions: {over_time}", loc="left", fontsize=10)
        rows[-1].set_xlabel("seconds")
        rows[-1].set_xlim(0, prediction["duration"])
        if right:
            draw_emotions(right.subplots(), emotions)
        if dimensions and (config.dimensions_source or "").startswith("norm-derived"):
            rated = "felt emotions" if config.dimensions_source == "norm-derived-pad" else "emotion words"
            note = f"Dimensions are norm-derived: from published ratings of {rated}, not of speech."
            figure.supxlabel(note, x=0.012, ha="left", fontsize=8.5, color=NOTE)
    return figure


def draw_waveform(axes: Axes, waveform: np.ndarray, duration: float, transcript: str) -> None:
    """Lowest and highest sample of at most 1200 segments."""
    segments = np.array_split(waveform, min(1200, len(waveform)))
    times = np.linspace(0, duration, len(segments))
    low, high = [segment.min() for segment in segments], [segment.max() for segment in segments]
    axes.fill_between(times, low, high, color="#4a6178", linewidth=0.4)
    limit = 1.1 * max(float(np.abs(waveform).max()), 1e-3)  # an axis even for silence
    axes.set_ylim(-limit, limit)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_title(transcript, loc="left", fontsize=10, style="italic")


def draw_dimension(axes: Axes, name: str, frames: list[dict[str, Any]]) -> None:
    """One dimension over time; the last value is the prediction for the clip."""
    ends = [frame["end"] for frame in frames]
    values = [frame["dimensions"][name] for frame in frames]
    color = COLORS.get(name, DARK)
    axes.axhline(0.5, color=GRAY, linewidth=0.8)
    axes.fill_between(ends, 0.5, values, color=color, alpha=0.18, linewidth=0)
    axes.plot(ends, values, color=color, linewidth=1.8)
    axes.plot(ends[-1], values[-1], "o", color=color, markersize=6, clip_on=False)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 1], dimension_ends(name))
    axes.tick_params(axis="y", length=0)
    bottom, top = axes.get_yticklabels()
    bottom.set_verticalalignment("bottom")
    top.set_verticalalignment("top")
    beside = {"textcoords": "offset points", "color": color, "fontweight": "bold", "va": "center"}
    height = min(max(values[-1], 0.15), 0.85)  # keeps two lines of text inside the axes
    axes.annotate(f"{name}\n{values[-1]:.2f}", (ends[-1], height), (10, 0), **beside)


def draw_emotions(axes: Axes, emotions: list[dict[str, Any]]) -> None:
    """Probabilities as bars, sorted, with chance as a line and the values in a column on the right."""
    labels, scores = [each["label"] for each in emotions], [each["score"] for each in emotions]
    axes.barh(labels, scores, color=[DARK] + [BAR] * (len(scores) - 1), height=0.55)
    axes.invert_yaxis()
    chance = 1 / len(scores)
    axes.axvline(chance, color=NOTE, linewidth=1, linestyle=(0, (4, 3)))
    below = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "center", "va": "top"}
    axes.annotate("chance", (chance, 0), (0, -3), fontsize=8.5, color=NOTE, **below)
    for row, score in enumerate(scores):
        axes.text(1.24, row, f"{score:.2f}", transform=axes.get_yaxis_transform(), ha="right", va="center")
    axes.set_xlim(0, max(scores[0], 1.2 * chance))
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title("Emotion probabilities", loc="left", fontsize=10)


if __name__ == "__main__":
    # Only our own messages, such as the license of the default model's weights.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.basicConfig(format="%(message)s")
    main(parse_arguments())
