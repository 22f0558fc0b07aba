"""`audio-emotion timeline`: predictions over time of recordings of any length."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from audio_emotion.long_audio import count_channels, predict_windows, read_blocks, summarize, windows_of_blocks
from audio_emotion_cli import EXIT_OK, UsageError, printable
from audio_emotion_cli.inputs import load_recognizer, progress_bar
from audio_emotion_cli.timeline_formats import WRITERS


def run(args: argparse.Namespace) -> int:
    """Predict every window of every channel, continue an interrupted command, and write what is requested."""
    source = Path(args.input)
    if not source.is_file():
        raise UsageError(f"expected an audio file, got {source}.")
    if args.plot and find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib: `pip install matplotlib`.")
    hop = args.hop or args.window
    recognizer = load_recognizer(args.model, args.revision, args.device)
    state = Path(args.output).with_name(f".{Path(args.output).name}.windows.jsonl") if args.output else None
    settings = {"input": source.name, "size": source.stat().st_size, "model": args.model, "window": args.window}
    settings |= {"hop": hop, "channels": args.channels, "abstain": args.abstain}
    try:
        lanes = dict(predict_lanes(args, recognizer, hop, state, settings))
    except ValueError as error:
        raise UsageError(str(error)) from error
    text = WRITERS[args.format](source.name, lanes)
    if args.output:
        Path(args.output).write_text(text, encoding="utf-8")
    else:
        print(printable(text, keep="\n"), end="")
    if args.plot:
        from audio_emotion_cli.timeline_plot import draw_timeline

        draw_timeline(lanes, args.plot, source.name)
    for channel, windows in lanes.items():
        print(_summary(channel, summarize(windows)), file=sys.stderr)
    if state is not None:
        state.unlink(missing_ok=True)
    return EXIT_OK


def predict_lanes(
    args: argparse.Namespace, recognizer: Any, hop: float, state: Path | None, settings: dict[str, Any]
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The windows of each channel; those of an interrupted command are not predicted again."""
    if args.channels == "mix":
        channels: list[int | None] = [None]
    elif args.channels == "split":
        channels = list(range(1, count_channels(args.input) + 1))
    else:
        channels = [int(args.channels)]
    done = read_state(state, settings)
    with state.open("a", encoding="utf-8") if state else io.StringIO() as file:
        for channel in channels:
            name = str(channel or "")
            known = done.get(name, [])
            windows = windows_of_blocks(read_blocks(args.input, 16000, channel), args.window, hop)
            rest = islice(windows, len(known), None)  # decoded, and not predicted
            parameters = {} if args.abstain is None else {"abstain": args.abstain}
            for each in progress_bar(predict_windows(recognizer, rest, **parameters), len(known)):
                known.append(each)
                file.write(json.dumps([name, each]) + "\n")
                if len(known) % 50 == 0:
                    file.flush()
            yield name, known


def read_state(state: Path | None, settings: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The windows of an interrupted command with the same settings, by channel; the file begins with the settings."""
    done: dict[str, list[dict[str, Any]]] = {}
    if state is None:
        return done
    if state.is_file():
        lines = state.read_text(encoding="utf-8").split("\n")
        if lines and lines[0] == json.dumps(settings):
            for line in lines[1:-1]:  # after the last line feed, a line is incomplete
                channel, window = json.loads(line)
                done.setdefault(channel, []).append(window)
            print(f"Continuing: {sum(map(len, done.values()))} windows are done.", file=sys.stderr)
            whole = "\n".join(lines[:-1]) + "\n"
            state.write_text(whole, encoding="utf-8")
            return done
    state.write_text(json.dumps(settings) + "\n", encoding="utf-8")
    return done


def _summary(channel: str, whole: dict[str, Any]) -> str:
    values = "  ".join(f"{name} {value:.2f}" for name, value in whole.get("dimensions", {}).items())
    best = "  ".join(f"{each['label']} {each['score']:.2f}" for each in whole.get("emotions", [])[:2])
    title = f"channel {channel}" if channel else "mean"
    flags = f"  [{', '.join(whole['flags'])}]" if whole["flags"] else ""
    return f"{title} over {whole['seconds']:.0f} s of speech in {whole['windows']} windows: {values}  {best}{flags}"
