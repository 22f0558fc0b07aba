"""`audio-emotion listen`: a line per second for a microphone, or for raw samples from standard input."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from audio_emotion_cli import EXIT_OK, UsageError, printable
from audio_emotion_cli.inputs import load_recognizer

TYPES = {"s16le": "<i2", "s32le": "<i4", "f32le": "<f4"}
PART = 0.02  # seconds that are read at a time from standard input, at least
BAR = 10  # characters


def run(args: argparse.Namespace) -> int:
    """Print the prediction at each interval, and at the end that of the whole."""
    if args.interval <= 0:
        raise UsageError(f"expected an --interval above 0, got {args.interval:g}.")
    recognizer = load_recognizer(args.model, None, None)
    stream = recognizer.stream(sampling_rate=args.rate, window=args.window, hop=min(args.interval, 0.5))
    chunks = _standard_input(args) if args.stdin else _microphone(args)
    if args.format == "table":
        print(_header(), flush=True)
    due, latest = args.interval, None
    with suppress(KeyboardInterrupt):  # the usual end
        for chunk in chunks:
            latest = stream.feed(chunk) or latest
            if latest is not None and stream.duration >= due:
                due = (stream.duration // args.interval + 1) * args.interval
                print(json.dumps(latest) if args.format == "json" else _line(latest), flush=True)
    try:
        whole = stream.result()
    except ValueError as error:
        raise UsageError(str(error)) from error
    if args.format == "json":
        print(json.dumps({"whole": whole}), flush=True)
    else:
        print(f"\nThe whole, {whole['duration']:.1f} s:\n{_line(whole)}", flush=True)
    return EXIT_OK


def _standard_input(args: argparse.Namespace) -> Iterator[np.ndarray]:
    """Raw samples as they arrive, `(S, C)`; an incomplete sample at the end is left out."""
    kind = np.dtype(TYPES[args.sample_format])
    size = kind.itemsize * args.channels
    left = b""
    source: Any = sys.stdin.buffer
    while part := source.read1(max(size, round(PART * args.rate) * size)):
        left += part
        whole = len(left) // size * size
        if whole:
            yield np.frombuffer(left[:whole], kind).reshape(-1, args.channels)
            left = left[whole:]


def _microphone(args: argparse.Namespace) -> Iterator[np.ndarray]:
    """Samples of the default microphone, `(S, C)`, until Ctrl-C."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: PortAudio is missing
        raise UsageError(
            f'the microphone needs `pip install "audio-emotion[live]"` ({error}). Or pipe samples: --stdin.'
        ) from error
    try:
        with sounddevice.InputStream(args.rate, channels=args.channels, dtype="float32") as source:
            print("Listening; Ctrl-C ends.", file=sys.stderr)
            while True:
                samples, overflowed = source.read(round(0.1 * args.rate))
                if overflowed:
                    print("some samples were lost: the machine is too slow", file=sys.stderr)
                yield samples
    except sounddevice.PortAudioError as error:
        raise UsageError(f"no microphone: {error}. Or pipe samples: --stdin.") from error


def _header() -> str:
    return f"{'time':>7}  {'activation':<16}{'valence':<16}{'dominance':<16}emotion"


def _line(prediction: dict[str, Any]) -> str:
    """One line for a person: time, dimensions with a bar, the most probable emotion, flags."""
    low, high = prediction.get("scale", (0.0, 1.0))
    cells = []
    for value in prediction.get("dimensions", {}).values():
        filled = round(BAR * min(max((value - low) / (high - low), 0.0), 1.0))
        cells.append(f"{value:.2f} {'█' * filled + '·' * (BAR - filled):<11}")
    emotions = prediction.get("emotions", [])
    best = f"{emotions[0]['label']} {emotions[0]['score']:.2f}" if emotions else ""
    flags = " ".join(prediction["flags"])
    line = f"{prediction['duration']:6.1f}s  {''.join(cells)}{best:<16}{flags}".rstrip()
    return printable(line)
