"""From what a user names to clips, in an order that is the same every time, and from clips to answers."""

from __future__ import annotations

import io
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, Pipeline, pipeline
from transformers.utils import logging

import audio_emotion  # noqa: F401 - registers the task
from audio_emotion_cli import UsageError

SUFFIXES = {
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".caf"),  # soundfile
    *(".m4a", ".aac", ".mp4", ".webm", ".mkv", ".mov", ".flv", ".wma"),  # PyAV
}


def clips_of(inputs: Iterable[str]) -> Iterator[str]:
    """Every clip that files, URLs and folders name, as they are needed.

    A folder is walked depth first, each directory sorted by name: memory holds the names of one directory a level, and
    two walks over the same files give the same order. Hidden entries and files of other suffixes are left out; links
    to folders are not followed, so that there is no circle.

    Args:
        inputs: paths and URLs; one that does not exist is passed on, to fail by name where it is read.
    """
    for each in inputs:
        if os.path.isdir(each):
            yield from _clips_in(without_last_slash(each))
        else:
            yield each


def without_last_slash(name: str) -> str:
    """The one name of a folder, which a shell may complete with a slash; what is no folder stays as it is."""
    return os.path.dirname(os.path.join(name, "")) if os.path.isdir(name) else name


def _clips_in(folder: str) -> Iterator[str]:
    """Clips of one folder and those below it."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                entry.name + os.sep * entry.is_dir(follow_symlinks=False)
                for entry in entries
                if not entry.name.startswith(".")
                and (entry.is_dir(follow_symlinks=False) or Path(entry.name).suffix.lower() in SUFFIXES)
            )
    except OSError:
        yield folder  # fails by name where it is read: a folder that nobody may list is no folder without clips
        return
    for name in names:
        path = os.path.join(folder, name.removesuffix(os.sep))
        if name.endswith(os.sep):
            yield from _clips_in(path)
        else:
            yield path


def load_pipeline(model: str | None, revision: str | None, device: str | None) -> Pipeline:
    """The pipeline of a model, quiet but for our own words.

    Raises:
        UsageError: where it cannot be loaded, with the reason.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if revision and model is None:
        raise UsageError("`--revision` pins a Hub id: name it with --model.")
    hub_id = "" if model is None or os.path.isdir(model) else model
    # The Hub's few ids without an owner are older than our kinds of model: none of them can be one.
    if hub_id and hub_id.count("/") != 1:
        raise UsageError(
            f"cannot load {model}: expected a folder, or a Hub id such as owner/name, got neither. There is no such "
            "folder here."
        )
    try:
        if model is None:
            return pipeline("audio-emotion", device=device)
        # Given a name, `pipeline` would try several ways, and say why with a traceback of each.
        loaded = AutoModelForAudioClassification.from_pretrained(model, revision=revision)
        front_end = AutoFeatureExtractor.from_pretrained(model, revision=revision)
        return pipeline("audio-emotion", model=loaded, feature_extractor=front_end, device=device)
    except Exception as error:  # a broken file may fail anywhere, a device in any way
        where = ": there is no such folder here, and as a Hub id it cannot be loaded" if hub_id else ""
        raise UsageError(
            f"cannot load {model or 'the default model'}{where}. {type(error).__name__}: {error}"
        ) from error


def judged(
    judge: Pipeline, clips: Iterable[str], batch_size: int, **parameters: Any
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each clip's name with its answer, or with `{"error": why}`, in the order of the clips."""
    waiting: deque[str] = deque()  # what has gone in and not yet come out: at most a batch or two

    def feed() -> Iterator[str]:
        for name in clips:
            waiting.append(name)
            yield name

    for answer in judge(feed(), batch_size=batch_size, on_error="skip", **parameters):
        yield waiting.popleft(), answer


def progress(clips: Iterable[Any], done: int = 0) -> tqdm:
    """A count and a rate on stderr: a bar for a person, a line every half minute for a log file."""
    waits = 0.2 if sys.stderr.isatty() else 30.0  # seconds
    return tqdm(clips, initial=done, unit="clip", mininterval=waits, maxinterval=max(10.0, waits), file=sys.stderr)


def name_failure(name: str, error: str) -> None:
    """Say on stderr which clip failed, without tearing the progress bar."""
    shown = name.encode(errors="backslashreplace").decode()  # a file name need not be valid UTF-8
    said = error.encode(errors="backslashreplace").decode()
    tqdm.write(said if shown in said else f"{shown}: {said}", file=sys.stderr)


def on_one_terminal() -> bool:
    """Whether stdout and the progress bar are seen together."""
    return sys.stdout.isatty() and sys.stderr.isatty()


def write_above_bar(rows: str) -> None:
    """Write to stdout where the progress bar stands, without tearing either."""
    tqdm.write(rows, file=sys.stdout, end="")


def show_any_name(how: str = "backslashreplace") -> None:
    """Let stdout take file names that are not valid UTF-8."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=how)
