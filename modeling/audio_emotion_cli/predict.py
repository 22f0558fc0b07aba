"""`audio-emotion predict`: one answer a clip, streamed, and continued after a kill."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from transformers import Pipeline

import audio_emotion
from audio_emotion_cli import FINE, SOME_FAILED, UsageError
from audio_emotion_cli.inputs import (
    clips_of,
    judged,
    load_pipeline,
    name_failure,
    on_one_terminal,
    progress,
    show_any_name,
    without_last_slash,
    write_above_bar,
)
from audio_emotion_cli.plot import Overview
from audio_emotion_cli.rows import Row, RowWriter, continue_file, spans_of

PICTURES = (".png", ".pdf", ".svg", ".jpg")


def run(args: argparse.Namespace) -> int:
    """MatchedClassifier every clip; the exit code says whether all could be judged."""
    _check(args)
    clips = clips_of(args.inputs)
    if (first := next(clips, None)) is None:
        raise UsageError(f"no audio files in {', '.join(args.inputs)}. Name files, or a folder that holds some.")
    clips = chain([first], clips)
    overview = Overview(tuple(args.scale)) if args.plot else None
    judge = load_pipeline(args.model, args.revision, args.device)
    config = judge.model.config
    if args.format == "rttm" and not config.emotions:
        raise UsageError("RTTM holds categories, and this model has none. Ask for json or csv.")
    writer = RowWriter(args.format, list(config.dimensions), list(config.emotions), args.window is not None)
    parameters = {"scale": tuple(args.scale), "top_k": args.top_k, "window": args.window, "hop": args.hop}
    parameters = {name: value for name, value in parameters.items() if value is not None}
    try:
        judge._sanitize_parameters(**parameters)
    except ValueError as error:
        raise UsageError(str(error)) from error

    done, failed = 0, 0

    def take_up(row: Row) -> None:
        nonlocal failed
        failed += row.failed
        if overview:
            overview.add(row.spans)

    if args.output:
        clips, done, file = _open_output(Path(args.output), writer, clips, take_up, _facts(args, judge))
    else:
        show_any_name("surrogateescape" if args.format == "csv" else "backslashreplace")
        file = sys.stdout
        file.write(writer.header())
    together = not args.output and on_one_terminal()
    write = write_above_bar if together else file.write
    already = failed
    count = done
    with file if args.output else nullcontext(file):
        for name, answer in progress(judged(judge, clips, args.batch_size, **parameters), done):
            count += 1
            if "error" in answer:
                failed += 1
                if not together:  # else its row names it
                    name_failure(name, answer["error"])
            elif overview:
                overview.add(spans_of(answer))
            write(writer.lines(name, answer))
            if count % args.batch_size == 0 or not args.output:
                file.flush()
    if overview:
        overview.draw(args.plot)
    if failed:
        before = f" ({already} of them in an earlier run)" if already else ""
        print(f"{failed} of {count} inputs failed{before}.", file=sys.stderr)
    return SOME_FAILED if failed else FINE


def _check(args: argparse.Namespace) -> None:
    """Refuse combinations that make no sense, before anything heavy is loaded."""
    if "-" in args.inputs:
        raise UsageError("standard input is not read: give a file. One that is called - is ./-.")
    if args.output and args.format == "table":
        raise UsageError("a table is for reading. With --output, ask for --format json, csv or rttm.")
    if args.plot and args.output and args.format == "rttm":
        raise UsageError("RTTM keeps no dimensions to draw a picture from. With --plot, ask for json or csv.")
    if args.hop and not args.window:
        raise UsageError("--hop needs --window, the length of a window in seconds.")
    if args.plot and find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib: `pip install matplotlib`.")
    if args.plot and Path(args.plot).suffix.lower() not in ("", *PICTURES):  # without one, it is a png
        raise UsageError(f"expected a picture's name ending in {', '.join(PICTURES)} for --plot, got {args.plot!r}.")
    for path in filter(None, (args.output, args.plot)):
        if "\0" in path or (Path(path).exists() and not Path(path).is_file()):
            raise UsageError(f"expected the name of a file, got {path!r}: a folder, a device, or no name.")
        if not Path(path).absolute().parent.is_dir():
            raise UsageError(f"expected a folder for {path}, got none. Make it first.")


def _facts(args: argparse.Namespace, judge: Pipeline) -> dict[str, Any]:
    """What decides the content of an output file: a run with other facts must not continue it."""
    folder = Path(judge.model.config._name_or_path)
    weights = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):  # of a Hub id, the commit says it
        with path.open("rb") as file:
            weights.update(hashlib.file_digest(file, "sha256").digest())
    return {
        "inputs": [without_last_slash(each) for each in args.inputs],
        "model": args.model and without_last_slash(args.model),
        "revision": vars(judge.model.config).get("_commit_hash"),  # of a Hub id
        "weights": weights.hexdigest() if folder.is_dir() else None,
        **{name: getattr(args, name) for name in ("format", "top_k", "window", "hop")},
        "scale": list(args.scale),
        "audio_emotion": audio_emotion.__version__,
    }


def _open_output(
    path: Path, writer: RowWriter, clips: Iterator[str], take_up: Any, facts: dict[str, Any]
) -> tuple[Iterator[str], int, TextIO]:
    """The output file at the place where its next row goes, the clips that are left, and how many are done.

    Beside `FILE` stands `FILE.command.json`: how it was made.
    """
    beside = path.with_name(f"{path.name}.command.json")
    done = 0
    if path.exists() and path.stat().st_size:
        if not beside.exists():
            raise UsageError(f"{path} exists and was not made by this command. Remove it, or name another --output.")
        before = json.loads(beside.read_text(encoding="utf-8"))
        if other := sorted(name for name in facts if before.get(name) != facts[name]):
            raise UsageError(
                f"{path} was begun with another {', '.join(other)}. Give the same again, remove the file, or name "
                "another --output."
            )
        try:
            clips, done = continue_file(path, writer, clips, take_up)
        except ValueError as error:
            raise UsageError(str(error)) from error
        print(f"{path}: {done} clips are done.", file=sys.stderr)
    else:
        beside.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    file = path.open("a", encoding="utf-8", errors="surrogateescape", newline="")
    if not file.tell():
        file.write(writer.header())
    return clips, done, file
