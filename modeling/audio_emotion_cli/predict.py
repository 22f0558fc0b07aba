"""`audio-emotion predict`: stream predictions for clips to a file or to stdout, and continue an interrupted file."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

import audio_emotion
from audio_emotion.diarization import read_rttm
from audio_emotion.runtime import EmotionRuntime
from audio_emotion_cli import EXIT_OK, EXIT_SOME_FAILED, UsageError, printable
from audio_emotion_cli.inputs import (
    allow_any_file_name,
    find_clips,
    labels_of,
    load_recognizer,
    predict_clips,
    progress_bar,
    report_failure,
    strip_trailing_slash,
    write_above_bar,
)
from audio_emotion_cli.plot import Overview
from audio_emotion_cli.rows import Row, RowWriter, continue_file, prediction_spans

PLOT_SUFFIXES = (".png", ".pdf", ".svg", ".jpg")


def run(args: argparse.Namespace) -> int:
    """Predict for every clip and write one row or more for each."""
    _check_arguments(args)
    clips = find_clips(args.inputs)
    if (first := next(clips, None)) is None:
        raise UsageError(f"no audio files in {', '.join(args.inputs)}. Give files, or a folder that contains some.")
    clips = chain([first], clips)
    overview = Overview(tuple(args.scale)) if args.plot else None
    recognizer = load_recognizer(args.model, args.revision, args.device)
    dimensions, emotions = labels_of(recognizer)
    if args.format == "rttm" and not emotions:
        raise UsageError("RTTM holds categories, and this model has none. Use --format json or csv.")
    writer = RowWriter(args.format, dimensions, emotions, args.window is not None)
    parameters = {"scale": tuple(args.scale), "top_k": args.top_k, "window": args.window, "hop": args.hop}
    parameters |= {"channels": int(args.channels) if args.channels.isdecimal() else args.channels}
    parameters |= {"max_duration": args.max_duration, "return_embedding": args.embeddings or None}
    parameters["abstain"] = args.abstain
    parameters = {name: value for name, value in parameters.items() if value is not None}
    try:
        if args.segments:
            parameters["segments"] = read_rttm(args.segments)
        recognizer.check_parameters(**parameters)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error

    done, failed = 0, 0

    def add_existing(row: Row) -> None:
        nonlocal failed
        failed += row.failed
        if overview:
            overview.add(row.spans)

    lock: AbstractContextManager = nullcontext()
    if args.output:
        settings = _output_settings(args, recognizer)
        lock = _lock_output(Path(args.output))
        clips, done, file = _open_output(Path(args.output), writer, clips, add_existing, settings)
    else:
        allow_any_file_name("surrogateescape" if args.format == "csv" else "backslashreplace")
        file = sys.stdout
        file.write(writer.header())
    on_terminal = not args.output and sys.stdout.isatty()
    shared_terminal = on_terminal and sys.stderr.isatty()
    write = write_above_bar if shared_terminal else file.write
    failed_before, count = failed, done
    with lock, file if args.output else nullcontext(file):
        predictions = predict_clips(recognizer, clips, args.batch_size, **parameters)
        for name, prediction in progress_bar(predictions, done):
            count += 1
            if "error" in prediction:
                failed += 1
                if not shared_terminal:  # there, the row itself shows the error
                    report_failure(name, prediction["error"])
            elif overview:
                overview.add(prediction_spans(prediction))
            rows = writer.lines(name, prediction)
            write(printable(rows, keep="\n") if on_terminal else rows)
            if count % args.batch_size == 0 or not args.output:
                file.flush()
    if overview:
        overview.draw(args.plot)
    if failed:
        before = f" ({failed_before} of them in an earlier run)" if failed_before else ""
        print(f"{failed} of {count} inputs failed{before}.", file=sys.stderr)
    return EXIT_SOME_FAILED if failed else EXIT_OK


def _check_arguments(args: argparse.Namespace) -> None:
    """Refuse invalid combinations before the model is loaded."""
    if "-" in args.inputs:
        raise UsageError("standard input is not read: give a file. A file named - is ./-.")
    if args.output and args.format == "table":
        raise UsageError("a table cannot be written to a file. With --output, use --format json, csv or rttm.")
    if args.plot and args.output and args.format == "rttm":
        raise UsageError("RTTM has no dimensions to plot. With --plot, use --format json or csv.")
    if args.format != "json" and (args.embeddings or args.segments or args.channels == "split"):
        raise UsageError("--embeddings, --segments and --channels split need --format json.")
    if args.hop and not args.window:
        raise UsageError("--hop needs --window, the length of a window in seconds.")
    if args.plot and find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib: `pip install matplotlib`.")
    if args.plot and Path(args.plot).suffix.lower() not in ("", *PLOT_SUFFIXES):  # matplotlib's default is png
        raise UsageError(f"expected a --plot file that ends in {', '.join(PLOT_SUFFIXES)}, got {args.plot!r}.")
    for path in filter(None, (args.output, args.plot)):
        if "\0" in path or (Path(path).exists() and not Path(path).is_file()):
            raise UsageError(
                f"expected the name of a file, got {path!r}, which is a folder, a device, or no valid name."
            )
        if not Path(path).absolute().parent.is_dir():
            raise UsageError(f"expected an existing folder for {path}, got none. Create it first.")


def _output_settings(args: argparse.Namespace, recognizer: Any) -> dict[str, Any]:
    """Everything that determines the content of an output file; only a run with the same settings continues it."""
    has_graph = isinstance(recognizer, EmotionRuntime)
    folder = recognizer.path.parent if has_graph else Path(recognizer.model.config._name_or_path)
    weights = hashlib.sha256()
    # Of a Hub id, the commit identifies the weights.
    for path in [recognizer.path] if has_graph else sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            weights.update(hashlib.file_digest(file, "sha256").digest())
    return {
        "inputs": [strip_trailing_slash(each) for each in args.inputs],
        "model": args.model and strip_trailing_slash(args.model),
        "revision": None if has_graph else vars(recognizer.model.config).get("_commit_hash"),  # of a Hub id
        "engine": "onnx" if has_graph else "torch",
        "weights": weights.hexdigest() if folder.is_dir() else None,
        **{
            name: getattr(args, name)
            for name in ("format", "top_k", "window", "hop", "channels", "embeddings", "segments", "abstain")
        },
        "scale": list(args.scale),
        "audio_emotion": audio_emotion.__version__,
    }


def _lock_output(path: Path) -> AbstractContextManager:
    """Lock a file against other commands, with a hidden file beside it that remains; a killed command holds no lock.

    Raises:
        UsageError: if another command holds the lock.
    """
    try:
        return FileLock(path.with_name(f".{path.name}.lock"), timeout=0).acquire()
    except Timeout as error:
        raise UsageError(
            f"cannot write {path}: another command is writing to it. Wait for it, or use another --output."
        ) from error


def _has_rows(path: Path, writer: RowWriter) -> bool:
    """Whether a run has written a complete row to the file."""
    with path.open("rb") as file:
        return next(writer.read(file), None) is not None


def _open_output(
    path: Path,
    writer: RowWriter,
    clips: Iterator[str],
    on_row: Callable[[Row], None],
    settings: dict[str, Any],
) -> tuple[Iterator[str], int, TextIO]:
    """Open the locked output file for appending; its settings are in `FILE.command.json` beside it.

    Returns:
        The clips that are left, the number of clips that are done, and the file.
    """
    settings_file = path.with_name(f"{path.name}.command.json")
    done = 0
    if path.exists() and path.stat().st_size and not settings_file.exists():
        raise UsageError(f"{path} exists and was not written by this command. Remove it, or use another --output.")
    if path.exists() and _has_rows(path, writer):
        before = json.loads(settings_file.read_text(encoding="utf-8"))
        if different := sorted(name for name in settings if before.get(name) != settings[name]):
            raise UsageError(
                f"{path} was started with different settings: {', '.join(different)}. Use the same ones, remove the "
                "file, or use another --output."
            )
        try:
            clips, done = continue_file(path, writer, clips, on_row)
        except ValueError as error:
            raise UsageError(str(error)) from error
        print(f"Continuing {path}: {done} clips are done.", file=sys.stderr)
    else:
        settings_file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        path.unlink(missing_ok=True)  # of a run that died before its first row
    file = path.open("a", encoding="utf-8", errors="surrogateescape", newline="")
    if not file.tell():
        file.write(writer.header())
    return clips, done, file
