"""Read audio from a file, URL, bytes or array: decode, downmix, resample, and flag recording problems."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .audio_decoding import (
    CHUNK,
    MAX_CHANNELS,
    MAX_DURATION,
    RATES,
    Chunk,
    Recording,
    UnreadableClipError,
    check_duration,
    check_format,
    describe_error,
    open_recording,
)
from .audio_flags import CANCELED, FRAME, find_flags, is_canceled, is_narrow_band, measure_frames
from .audio_resampling import resample, stream_resampler
from .audio_sources import open_source

SHORTEST = 0.25  # seconds; shorter clips are refused
LOUDEST = 2.0**31  # peak; no audio format exceeds it, and the power of a larger one would overflow float32


@dataclass(frozen=True)
class AudioClip:
    """One clip, ready for a feature extractor.

    Args:
        waveform (`numpy.ndarray` of shape `(S,)`): mono float32 samples, within ±1 unless flagged.
        duration: of the source, in seconds.
        name: of the source, for messages; a URL without password and query.
        sampling_rate: of `waveform`, in hertz.
        measurements (`numpy.ndarray` of shape `(N,)` of `MEASUREMENTS`): of every 50 ms of the source.
        is_truncated: whether the end of the source is missing.
        recording: the source, from which a channel is read.
    """

    waveform: np.ndarray
    duration: float
    name: str
    sampling_rate: int
    measurements: np.ndarray
    is_truncated: bool = False
    recording: "Recording | None" = None

    @cached_property
    def flags(self) -> tuple[str, ...]:
        """Problems of the recording.

        Any of `"silence"`, `"clipped"`, `"short"` (less than a second), `"out_of_range"` (outside ±1), `"canceled"`
        (the channels cancel in their mean: the loudest was taken), `"channels_differ"` (different channels are loud at
        different times, as in a call), `"narrow_band"` (nothing above 4 kHz, as on a
        telephone), `"pauses"` (most of it is far below its loudest part), `"no_speech"` and `"truncated"` (its end is
        missing).
        """
        flags = find_flags(
            self.measurements, self.waveform, self.sampling_rate, is_narrow_band(self.waveform, self.sampling_rate)
        )
        return (*flags, "truncated") if self.is_truncated else flags

    def flags_between(self, start: float, end: float) -> tuple[str, ...]:
        """The flags of the part from `start` to `end` seconds; `"narrow_band"` is that of the whole clip."""
        begins = self.measurements["start"]  # (N,)
        first = np.searchsorted(begins, start + FRAME / 100) - 1  # the frame that `start` is in
        last = np.searchsorted(begins, end - FRAME / 100)
        waveform = self.waveform[round(start * self.sampling_rate) : round(end * self.sampling_rate)]  # (S',)
        inside = self.measurements[max(first, 0) : last]
        return find_flags(inside, waveform, self.sampling_rate, "narrow_band" in self.flags)

    def count_channels(self, max_duration: float) -> int:
        """Number of channels of the source, 1 without one; those of its first part."""
        if self.recording is None:
            return 1
        samples, _ = next(iter(self.recording.chunks(max_duration)))
        return int(samples.shape[1])

    def channel(self, number: int, max_duration: float) -> "AudioClip":
        """One channel of the source, counted from 1, as a clip of its own.

        Raises:
            ValueError: where the source does not have it.
        """
        if (source := self.recording) is None:
            raise UnreadableClipError(f"{self.name}: expected a clip of `read_audio`, got one without its source.")

        def chunks(longest: float) -> Iterator[Chunk]:
            for samples, rate in source.chunks(longest):
                if number > samples.shape[1]:
                    raise UnreadableClipError(
                        f"{source.name}: expected a channel from 1 to {samples.shape[1]}, got {number}."
                    )
                yield samples[:, number - 1 : number], rate

        return _read_clip(replace(source, chunks=chunks), self.sampling_rate, max_duration)


def read_audio(source: Any, sampling_rate: int = 16000, max_duration: float = MAX_DURATION) -> AudioClip:
    """Read one clip, downmix it to mono and resample it.

    Channels are averaged; where they cancel each other, the loudest one is taken. Of several files joined into one,
    all are read; a gap in the timestamps of a stream becomes silence.

    Args:
        source: a path, an http(s) or file URL, the bytes of a file, a binary file object, `{"array", "sampling_rate"}`
            with a numpy array, list or torch tensor (`"raw"` or `"waveform"`, and `"sample_rate"`, mean the same), a
            row of `datasets` (`{"audio": ...}`, `{"path", "bytes"}`) or a torchcodec decoder. An array is `(S,)`,
            `(C, S)` or `(S, C)`: the smaller of two axes is the channels. Integer arrays are scaled to ±1 by their
            type; 64-bit ones, such as lists of integers, are taken for 16-bit audio if every sample fits, else for
            32-bit audio.
        sampling_rate: of the result, in hertz.
        max_duration: in seconds; a longer clip is refused, before it is decoded if its header states its duration.

    Raises:
        ValueError: where the source is missing, of a format that is not read, cut short, without samples or with NaN
            or infinite ones, shorter than 0.25 s or longer than `max_duration`, too large for the memory, of an
            impossible rate or number of channels, or an array without its rate.
    """
    return _read_clip(open_source(source), sampling_rate, max_duration)


def _read_clip(recording: Recording, sampling_rate: int, max_duration: float) -> AudioClip:
    """Read what has been opened, see [`read_audio`]."""
    try:
        waveform, duration, measurements, powers = _read(recording, sampling_rate, max_duration)
        if is_canceled(measurements):
            waveform = _read(recording, sampling_rate, max_duration, channel=int(np.argmax(powers)))[0]
    except MemoryError as error:
        raise UnreadableClipError(
            f"{recording.name}: expected a clip that fits into memory, got {describe_error(error)}. Cut it into "
            "shorter ones."
        ) from error
    is_truncated = recording.is_truncated
    return AudioClip(waveform, duration, recording.name, sampling_rate, measurements, is_truncated, recording)


def decode(source: bytes | str | Path, name: str | None = None) -> tuple[np.ndarray, float]:
    """Decode an audio file, or the audio track of a video.

    Args:
        source: the content of a file, or its path.
        name: used in messages; by default the path.

    Returns:
        samples `(S, C)` in float32, and their rate in hertz; that of the first part where it changes.

    Raises:
        ValueError: where the file is missing, empty, undecodable or cut short.
    """
    chunks = list(open_recording(source, name).chunks(MAX_DURATION))
    if not chunks:
        return np.zeros((0, 1), np.float32), float(RATES[0])
    rate = chunks[0][1]
    parts = [resample(samples, part_rate, rate) for samples, part_rate in chunks]
    if len({part.shape[1] for part in parts}) > 1:
        parts = [part.mean(axis=1, keepdims=True) for part in parts]
    return np.concatenate(parts), rate


def downmix(samples: np.ndarray) -> tuple[np.ndarray, bool]:
    """Average the channels or, where they cancel each other, take the loudest one.

    Args:
        samples: `(S, C)`.

    Returns:
        one channel `(S,)`, and whether the channels cancel.
    """
    mean, channels = samples.mean(axis=1), samples.shape[1]  # (S,)
    if channels == 1:
        return mean, False
    powers = [float(samples[:, channel].var()) for channel in range(channels)]
    # The mean of C independent channels of equal power has 1 / C of that power.
    if mean.var() < CANCELED * np.mean(powers) / channels:
        return samples[:, int(np.argmax(powers))], True
    return mean, False


def _read(
    recording: Recording, sampling_rate: int, max_duration: float, channel: int | None = None
) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Decode, measure, downmix and resample chunk by chunk, so that the result is all that is kept.

    Args:
        recording: to read.
        sampling_rate: of the result, in hertz.
        max_duration: in seconds.
        channel: to take; the mean of all channels if None.

    Returns:
        waveform `(S,)`, duration in seconds, measurements `(N,)`, and the power of each channel.
    """
    waveform, size = np.empty(sampling_rate, np.float32), 0
    measured, powers, duration = [], np.zeros(MAX_CHANNELS), 0.0
    resampler, resampled_rate = None, None  # they change where the rate does

    def append(samples: np.ndarray) -> None:
        nonlocal size
        if size + len(samples) > len(waveform):
            waveform.resize(max(size + len(samples), len(waveform) * 3 // 2), refcheck=False)  # without a copy
        waveform[size : size + len(samples)] = samples
        size += len(samples)

    for samples, rate in _regroup(recording.name, recording.chunks(max_duration)):
        _check_samples(recording.name, samples)
        found, channel_powers = measure_frames(samples, rate, duration)
        measured.append(found)
        powers[: len(channel_powers)] += channel_powers
        duration += len(samples) / rate
        check_duration(recording.name, duration, max_duration)
        if channel is None:
            mono = np.ascontiguousarray(samples.T).mean(axis=0)  # faster than over the last axis
        else:
            mono = samples[:, min(channel, samples.shape[1] - 1)]
        if rate != resampled_rate:
            if resampler is not None:
                append(resampler.resample_chunk(mono[:0], last=True))
            resampler, resampled_rate = stream_resampler(rate, sampling_rate), rate
        append(mono if resampler is None else resampler.resample_chunk(np.ascontiguousarray(mono)))
    if duration == 0:
        raise UnreadableClipError(
            f"{recording.name}: expected audio of at least {SHORTEST} s, got no samples. Leave this clip out."
        )
    if duration < SHORTEST:
        raise UnreadableClipError(
            f"{recording.name}: expected at least {SHORTEST} s of audio, got {duration:.6g} s. Join it with its "
            "neighbors, or leave this clip out."
        )
    if resampler is not None:
        append(resampler.resample_chunk(np.empty(0, np.float32), last=True))
    waveform.resize(size, refcheck=False)
    return waveform, duration, np.concatenate(measured), powers


def _regroup(name: str, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Chunks of one format and of whole frames of 50 ms, except before a change of format and at the end."""
    held: list[np.ndarray] = []
    form, count, length = (0.0, 0), 0, 1  # of the chunks: rate and channels
    for samples, rate in chunks:
        if (rate, samples.shape[1]) != form:
            if count:
                yield np.concatenate(held), form[0]
            form, held, count = (rate, samples.shape[1]), [], 0
            check_format(name, *form)
            length = round(FRAME * rate)
        held.append(samples)
        count += len(samples)
        if count * form[1] >= CHUNK and count >= length:
            joined = held[0] if len(held) == 1 else np.concatenate(held)
            whole = count // length * length
            yield joined[:whole], rate
            held, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(held), form[0]


def _check_samples(name: str, samples: np.ndarray) -> None:
    if not np.isfinite(samples).all():
        count = int((~np.isfinite(samples)).sum())
        raise UnreadableClipError(
            f"{name}: expected finite samples, got {count} that are NaN or infinite. Repair the recording, or leave "
            "this clip out."
        )
    if (peak := float(max(samples.max(), -samples.min()))) > LOUDEST:
        raise UnreadableClipError(
            f"{name}: expected samples in ±1, got one of size {peak:.3g}. Divide them by the full scale of their type."
        )
