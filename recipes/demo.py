"""Hear one clip: print a table of what the model says, and draw how it came to say so.

    python recipes/demo.py                                       # the bundled clip, the embedded student
    python recipes/demo.py clip.wav --model runs/distill/student

Needs a CPU and a few seconds; no network unless `--model` is a Hub id.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from matplotlib import rc_context
from matplotlib.figure import Figure
from transformers import pipeline

import audio_emotion

EMBEDDED = Path(audio_emotion.__file__).parent / "embedded"
CLIP = EMBEDDED / "speech" / "sense_and_sensibility.flac"

ENDS = {"activation": ("calm", "excited"), "valence": ("negative", "positive"), "dominance": ("weak", "strong")}
SOURCES = {
    "rated": "learned from listeners' ratings of speech.",
    "norm-derived": "norm-derived: from how readers rated the emotion words, not from rated speech.",
    "synthetic": "learned on synthetic sounds: they say nothing of real speech.",
    None: "of unknown origin: the checkpoint does not say from what they were learned.",
}
COLORS = {"activation": "#d9662b", "valence": "#1f8a7d", "dominance": "#5a55a3"}
INK, FAINT = "#22282f", "#a9b4be"
BAR = 32  # characters of the widest bar


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", nargs="?", type=Path, default=CLIP, help="an audio file (default: the bundled clip)")
    parser.add_argument("--model", help="a folder or a Hub id (default: the embedded student)")
    parser.add_argument("--picture", type=Path, default=Path("runs/demo.png"), help="where to (default: %(default)s)")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    if args.model is None and not (EMBEDDED / "student" / "config.json").is_file():
        sys.exit("This installation carries no embedded student. Name a model: --model FOLDER, or --model HUB_ID.")
    judge = pipeline("audio-emotion", model=args.model)
    config = judge.model.config
    try:
        answer = judge(str(args.audio), return_frames=True)
    except ValueError as error:
        sys.exit(f"This clip cannot be judged. {error}")

    clip = describe(args.audio)
    print("\n".join(table(answer, clip, config)))

    heard = audio_emotion.read_audio(str(args.audio), config.sampling_rate)
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    draw(answer, clip, config, heard.waveform).savefig(args.picture, dpi=150, facecolor="white")
    print(f"\nPicture: {args.picture}")


def describe(audio: Path) -> dict[str, str]:
    """What is known of a clip: for the bundled one the table of its SOURCE.md, for any other its name."""
    if audio != CLIP:
        return {"title": audio.name}
    rows = [line.split("|") for line in CLIP.with_name("SOURCE.md").read_text(encoding="utf-8").splitlines()]
    facts = {row[1].strip(): row[2].strip().replace("*", "").replace("`", "") for row in rows if len(row) == 4}
    return {
        "title": facts["Text"],
        "words": facts["What is said"],
        "source": f"{facts['Recording']}; public domain",
    }


def table(answer: dict[str, Any], clip: dict[str, str], config) -> list[str]:
    """The answer in lines of text."""
    lines = ["", clip["title"], *(f"  {clip[part]}" for part in ("words", "source") if part in clip)]
    flags = ", ".join(answer["flags"]) or "none"
    lines += [f"  {answer['duration']:.2f} s; flags: {flags}"]

    if dimensions := answer.get("dimensions"):
        lines += ["", f"Dimensions{'0':>26}{'1':>{BAR}}"]
        for name, value in dimensions.items():
            low, high = ENDS.get(name, ("low", "high"))
            track = ["─"] * (BAR + 1)
            track[BAR // 2] = "┼"
            track[round(BAR * value)] = "●"
            lines += [f"  {name:<12}{value:5.2f}  {low:>12}  {''.join(track)}  {high}"]

    if emotions := answer.get("emotions"):
        lines += ["", "Emotions"]
        for each in emotions:
            eighths = round(8 * BAR * each["score"])
            bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
            lines += [f"  {each['label']:<12}{each['score']:5.2f}  {bar}".rstrip()]

    lines += ["", "What the numbers mean"]
    if dimensions:
        lines += [f"  Dimensions lie in 0..1; they are {SOURCES[config.dimensions_source]}"]
    if emotions:
        lines += [
            f"  Scores of the {len(emotions)} emotions add up to 1; blind guessing is right once in {len(emotions)}."
        ]
    return [*lines, "  They describe how the voice sounds to the model, not what the speaker feels."]


def draw(answer: dict[str, Any], clip: dict[str, str], config, waveform: np.ndarray) -> Figure:
    """The waveform `(S,)`, below it each dimension over time, and beside them the emotions."""
    dimensions, emotions = answer.get("dimensions", {}), answer.get("emotions", [])
    style = {
        **{"font.size": 10, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT},
        **{"axes.spines.top": False, "axes.spines.right": False, "xtick.color": INK, "ytick.color": INK},
    }
    with rc_context(style):
        figure = Figure(figsize=(12, 2.6 + 1.25 * max(len(dimensions), 2)), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.06)
        left, right = figure.subfigures(1, 2, width_ratios=(2.1, 1)) if emotions else (figure.subfigures(1, 1), None)
        figure.suptitle(clip["title"], x=0.012, ha="left", fontsize=14, fontweight="bold")

        strips = left.subplots(
            1 + len(dimensions), 1, sharex=True, squeeze=False, height_ratios=[1.3] + [1] * len(dimensions)
        )[:, 0]
        draw_waveform(strips[0], waveform, answer["duration"], clip.get("words", ""))
        for axes, name in zip(strips[1:], dimensions, strict=True):
            draw_dimension(axes, name, answer["frames"])
        if dimensions:
            streams = config.model_type == "student-emotion"  # a teacher has heard the whole clip at every frame
            until = "what the model would have said had the clip ended there" if streams else "frame by frame"
            strips[1].set_title(f"Dimensions: {until}", loc="left", fontsize=10)
        strips[-1].set_xlabel("seconds")
        strips[-1].set_xlim(0, answer["duration"])
        if right:
            draw_emotions(right.subplots(), emotions)
        if dimensions and config.dimensions_source == "norm-derived":
            note = (
                "Dimensions are norm-derived: learned from how readers rated the emotion words, not from rated speech."
            )
            figure.supxlabel(note, x=0.012, ha="left", fontsize=8.5, color="#66717c")
    return figure


def draw_waveform(axes, waveform: np.ndarray, duration: float, words: str) -> None:
    """The envelope: lowest and highest sample of each of at most 1200 pieces."""
    pieces = np.array_split(waveform, min(1200, len(waveform)))
    times = np.linspace(0, duration, len(pieces))
    low, high = [piece.min() for piece in pieces], [piece.max() for piece in pieces]
    axes.fill_between(times, low, high, color="#4a6178", linewidth=0.4)
    reach = 1.1 * max(float(np.abs(waveform).max()), 1e-3)  # silence still gets an axis
    axes.set_ylim(-reach, reach)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_title(words, loc="left", fontsize=10, style="italic")


def draw_dimension(axes, name: str, frames: list[dict[str, Any]]) -> None:
    """One dimension: its distance from the middle, shaded, and its last value, which is the answer's."""
    ends = [frame["end"] for frame in frames]
    values = [frame["dimensions"][name] for frame in frames]
    color = COLORS.get(name, INK)
    axes.axhline(0.5, color=FAINT, linewidth=0.8)
    axes.fill_between(ends, 0.5, values, color=color, alpha=0.18, linewidth=0)
    axes.plot(ends, values, color=color, linewidth=1.8)
    axes.plot(ends[-1], values[-1], "o", color=color, markersize=6, clip_on=False)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 1], ENDS.get(name, ("low", "high")))
    axes.tick_params(axis="y", length=0)
    bottom, top = axes.get_yticklabels()
    bottom.set_verticalalignment("bottom")
    top.set_verticalalignment("top")
    beside = {"textcoords": "offset points", "color": color, "fontweight": "bold", "va": "center"}
    at = min(max(values[-1], 0.15), 0.85)  # two lines of text stay inside their strip
    axes.annotate(f"{name}\n{values[-1]:.2f}", (ends[-1], at), (10, 0), **beside)


def draw_emotions(axes, emotions: list[dict[str, Any]]) -> None:
    """Scores as bars, the highest on top, with chance as a line."""
    labels, scores = [each["label"] for each in emotions], [each["score"] for each in emotions]
    axes.barh(labels, scores, color=[INK] + ["#8fa3b5"] * (len(scores) - 1), height=0.62)
    axes.invert_yaxis()
    chance = 1 / len(scores)
    axes.axvline(chance, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    below = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "center", "va": "top"}
    axes.annotate("chance", (chance, 0), (0, -3), fontsize=8.5, color="#66717c", **below)
    on_white = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    for row, score in enumerate(scores):
        axes.annotate(f"{score:.2f}", (score, row), (5, 0), textcoords="offset points", va="center", bbox=on_white)
    axes.set_xlim(0, 1.2 * max(scores[0], chance))
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title("Emotions", loc="left", fontsize=10)


if __name__ == "__main__":
    # A stranger should see the table alone; our own one-line notice of the default model's license stays.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.basicConfig(format="%(message)s")
    main(parse_arguments())
