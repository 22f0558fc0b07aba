"""Inputs of the command line: files and folders to clips, and clips to predictions."""

from __future__ import annotations

import io
import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from audio_emotion.audio_sources import AUDIO_SUFFIXES
from audio_emotion.runtime import EmotionRuntime
from audio_emotion_cli import UsageError, graph_of, printable

if TYPE_CHECKING:  # importing it takes seconds, and a graph needs none of it
    from transformers import Pipeline


def find_clips(inputs: Iterable[str]) -> Iterator[str]:
    """Yield every file and URL, and every clip below the folders, in an order that is the same every time.

    Folders are walked depth first, each directory sorted by name, so that memory holds the names of one directory per
    level. Hidden entries and files with other suffixes are left out; links to folders are not followed.

    Args:
        inputs: paths and URLs; a path that does not exist is yielded, and fails when it is read.
    """
    for each in inputs:
        if os.path.isdir(each):
            yield from _clips_in_folder(strip_trailing_slash(each))
        else:
            yield each


def strip_trailing_slash(name: str) -> str:
    """A folder without the slash that shell completion adds; any other name unchanged."""
    return os.path.dirname(os.path.join(name, "")) if os.path.isdir(name) else name


def _clips_in_folder(folder: str) -> Iterator[str]:
    """Yield the clips of a folder and of those below it."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                entry.name + os.sep * entry.is_dir(follow_symlinks=False)
                for entry in entries
                if not entry.name.startswith(".")
                and (entry.is_dir(follow_symlinks=False) or Path(entry.name).suffix.lower() in AUDIO_SUFFIXES)
            )
    except OSError:
        yield folder  # an unreadable folder is an input that fails, not an empty folder
        return
    for name in names:
        path = os.path.join(folder, name.removesuffix(os.sep))
        if name.endswith(os.sep):
            yield from _clips_in_folder(path)
        else:
            yield path


def load_recognizer(model: str | None, revision: str | None, device: str | None) -> Pipeline | EmotionRuntime:
    """The graph of a model where it has one, else its pipeline; with a device or a revision always the pipeline.

    Raises:
        UsageError: if it cannot be loaded, with the reason.
    """
    graph = graph_of(model, revision, device)
    if graph is None:
        return load_pipeline(model, revision, device)
    try:
        recognizer = EmotionRuntime(graph)
    except Exception as error:  # a broken file can raise anything
        raise UsageError(f"cannot load {graph}. {type(error).__name__}: {error}") from error
    if model is None:
        import audio_emotion

        audio_emotion._log_license_of_default_model()
    return recognizer


def labels_of(recognizer: Pipeline | EmotionRuntime) -> tuple[list[str], list[str]]:
    """Names of the dimensions and of the emotions."""
    source = recognizer if isinstance(recognizer, EmotionRuntime) else recognizer.model.config
    return list(source.dimensions), list(source.emotions)


def load_pipeline(model: str | None, revision: str | None, device: str | None) -> Pipeline:
    """The pipeline of a model, without the messages of transformers.

    Raises:
        UsageError: if it cannot be loaded, with the reason.
    """
    from huggingface_hub import constants
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline
    from transformers.utils import logging

    import audio_emotion  # noqa: F401 - registers the task
    from audio_emotion.checkpoint_loading import loading_options

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if revision and model is None:
        raise UsageError("--revision pins a Hub id: give the id with --model.")
    hub_id = "" if model is None or os.path.isdir(model) else model
    # The few Hub ids without an owner are old checkpoints of transformers, and none of them fits.
    if hub_id and hub_id.count("/") != 1:
        raise UsageError(
            f"cannot load {model}: expected a folder, or a Hub id such as owner/name, got neither. There is no such "
            "folder here."
        )
    was_offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = was_offline or not hub_id  # with `local_files_only` alone, the Hub is still contacted
    try:
        if model is None:
            return pipeline("audio-emotion", device=device)
        options = loading_options(model)
        # Given a name, `pipeline` would try several classes, and report a traceback of each.
        loaded = AutoModelForAudioClassification.from_pretrained(model, revision=revision, **options)
        feature_extractor = AutoFeatureExtractor.from_pretrained(model, revision=revision, **options)
        return pipeline("audio-emotion", model=loaded, feature_extractor=feature_extractor, device=device)
    except Exception as error:  # a broken file or device can raise anything
        where = ": there is no such folder here, and as a Hub id it cannot be loaded" if hub_id else ""
        reason = f"{type(error).__name__}: {error}"
        if "trust_remote_code" in reason:
            reason = (
                "It needs code of its own, which this command never runs. Review that code, and pass "
                "`trust_remote_code=True` to `pipeline` in Python."
            )
        elif base := None if hub_id or model is None else _base_on_hub(model):
            reason = (
                f"It is an adapter of {base}, and a folder is loaded without the network: `hf download {base}` first. "
                f"{reason.splitlines()[0]}"
            )
        raise UsageError(f"cannot load {model or 'the default model'}{where}. {reason}") from error
    finally:
        constants.HF_HUB_OFFLINE = was_offline


def _base_on_hub(folder: str) -> str | None:
    """The Hub id that the adapter in a folder names as its base."""
    try:
        base = str(json.loads(Path(folder, "adapter_config.json").read_text())["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if os.path.isdir(base) else base


def predict_clips(
    recognizer: Pipeline | EmotionRuntime, clips: Iterable[str], batch_size: int, **parameters: Any
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each clip with its prediction, or with `{"error": reason}`, in the order of the clips."""
    pending: deque[str] = deque()  # read by the pipeline and not yet predicted: one or two batches

    def names() -> Iterator[str]:
        for name in clips:
            pending.append(name)
            yield name

    if not isinstance(recognizer, EmotionRuntime):  # a graph predicts one by one
        parameters["batch_size"] = batch_size
    for prediction in recognizer(names(), on_error="skip", **parameters):
        yield pending.popleft(), prediction


def progress_bar(clips: Iterable[Any], done: int = 0) -> tqdm:
    """A progress bar on stderr, updated every half minute if that is a file."""
    interval = 0.2 if sys.stderr.isatty() else 30.0  # seconds
    return tqdm(
        clips, initial=done, unit="clip", mininterval=interval, maxinterval=max(10.0, interval), file=sys.stderr
    )


def report_failure(name: str, error: str) -> None:
    """Print a clip that failed to stderr, above the progress bar."""
    name, error = printable(name), printable(error)
    tqdm.write(error if name in error else f"{name}: {error}", file=sys.stderr)


def write_above_bar(rows: str) -> None:
    """Write rows to stdout on a terminal that also has a progress bar."""
    tqdm.write(rows, file=sys.stdout, end="")


def allow_any_file_name(errors: str = "backslashreplace") -> None:
    """Let stdout accept file names that are not valid UTF-8."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=errors)
