"""Windows of recordings of any length, decoded in blocks: memory does not grow with the length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from .audio_decoding import SOUNDFILE_FORMATS, UnreadableClipError, open_recording
from .audio_io import SHORTEST
from .pipeline_outputs import mean_over_time

BLOCK = 10.0  # seconds that are decoded at a time
WHOLE_DAYS = 14 * 86_400.0  # seconds, no limit in practice
NOT_SPOKEN = {"silence", "no_speech"}  # flags of windows that do not count for the whole


@dataclass(frozen=True)
class Window:
    """A part of a recording.

    Attributes:
        start: in seconds.
        end: in seconds.
        waveform: `(S,)`.
    """

    start: float
    end: float
    waveform: np.ndarray


def read_blocks(path: str | Path, sampling_rate: int = 16000, channel: int | None = None) -> Iterator[np.ndarray]:
    """Blocks `(S,)` of a file in one channel, resampled; joined, they are the whole.

    A file that soundfile reads (wav, flac, mp3, ogg, aiff) is decoded from disk. Of other containers the encoded
    bytes are held in memory: an hour of speech as AAC takes 30 MB. Only the first of several joined files is read.

    Args:
        path: of the file.
        sampling_rate: of the blocks, in hertz.
        channel: counted from 1; None for the mean of all.

    Raises:
        ValueError: for a file that cannot be decoded, a missing channel, and samples that are not finite.
    """
    resampler, before = None, 0.0
    for samples, rate in _chunks(Path(path)):
        if channel is not None and channel > samples.shape[1]:
            raise UnreadableClipError(f"{path}: expected a channel from 1 to {samples.shape[1]}, got {channel}.")
        mono = samples.mean(axis=1) if channel is None else samples[:, channel - 1]
        if not np.isfinite(mono).all():
            raise UnreadableClipError(f"{path}: expected finite samples, got NaN or infinite ones. Repair the file.")
        if rate != sampling_rate and (resampler is None or rate != before):
            resampler, before = soxr.ResampleStream(rate, sampling_rate, 1, dtype="float32"), rate
        mono = np.ascontiguousarray(mono, dtype=np.float32)
        yield mono if resampler is None else resampler.resample_chunk(mono)
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _chunks(path: Path) -> Iterator[tuple[np.ndarray, float]]:
    """Samples `(S, C)` and their rate."""
    try:
        file = soundfile.SoundFile(path)
    except Exception:
        file = None
    if file is None or file.format not in SOUNDFILE_FORMATS:
        yield from open_recording(path).chunks(WHOLE_DAYS)
        return
    with file:
        file.seekable = lambda: False  # soundfile seeks after each read, which fails where the length is unknown
        while len(samples := file.read(round(BLOCK * file.samplerate), dtype="float32", always_2d=True)):
            yield samples, file.samplerate


def count_channels(path: str | Path) -> int:
    """Number of channels of a file."""
    samples, _ = next(_chunks(Path(path)))
    return int(samples.shape[1])


def windows_of_blocks(
    blocks: Iterable[np.ndarray], window: float, hop: float, sampling_rate: int = 16000
) -> Iterator[Window]:
    """The windows of [`audio_emotion.pipeline_segments.window_bounds`], as the blocks arrive.

    Args:
        blocks: `(S,)` each.
        window: length of a window, in seconds.
        hop: from the start of one window to that of the next, in seconds.
        sampling_rate: of the blocks, in hertz.

    Raises:
        ValueError: for less than 0.25 s in all.
    """
    length, step = round(window * sampling_rate), max(round(hop * sampling_rate), 1)
    held, first, total, start = np.zeros(0, np.float32), 0, 0, 0  # samples from `first` on; `start` of the next window
    last_end = 0
    for block in blocks:
        held, total = np.concatenate([held, block]), total + len(block)
        while total >= start + length:
            yield Window(start / sampling_rate, (start + length) / sampling_rate, held[start - first :][:length])
            last_end, start = start + length, start + step
            drop = min(start - first, len(held))
            held, first = held[drop:], first + drop
    if total < SHORTEST * sampling_rate:
        raise UnreadableClipError(f"Expected at least {SHORTEST} s of audio, got {total / sampling_rate:g} s.")
    while start == 0 or (last_end < total and total - start >= SHORTEST * sampling_rate):
        end = min(start + length, total)
        yield Window(start / sampling_rate, end / sampling_rate, held[start - first :][: end - start])
        last_end, start = end, start + step


def predict_windows(recognizer: Any, windows: Iterable[Window], **parameters: Any) -> Iterator[dict[str, Any]]:
    """`start`, `end` and the prediction of each window, with its flags.

    Args:
        recognizer: the pipeline, or an `EmotionRuntime`.
        windows: of one recording.
        **parameters: of the pipeline.
    """
    for each in windows:
        prediction = recognizer({"array": each.waveform, "sampling_rate": 16000}, **parameters)
        prediction.pop("duration")
        yield {"start": each.start, "end": each.end, **prediction}


def summarize(windows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean over windows, weighted by duration, of dimensions and of all emotions' probabilities.

    Windows without speech do not count, unless there are no others.

    Returns:
        `dimensions`, `emotions`, `windows` (their number), `seconds` that count, and the flag `"long"`: an average
        over minutes hides what changes.
    """
    spoken = [each for each in windows if not NOT_SPOKEN & set(each["flags"])]
    used = spoken or windows
    seconds = sum(each["end"] - each["start"] for each in used)
    flags = [*(["long"] if seconds > 60 else []), *([] if spoken else ["no_speech"])]
    return {**mean_over_time(used), "windows": len(used), "seconds": seconds, "flags": flags}
