"""Read audio from a file, URL, bytes or array: decode, downmix, resample, and flag recording problems."""

# SPDX-License-Identifier: Apache-2.0

import http.client
import importlib
import importlib.util
import io
import queue
import re
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .audio_containers import MISSING, split_joined

try:  # optional: a checkpoint loads without them, and reading audio reports what is missing
    import soundfile
except ImportError:
    soundfile = None
try:
    import soxr
except ImportError:
    soxr = None

# Limits of what is read.
SHORTEST = 0.25  # seconds; shorter clips are refused
MAX_DURATION = 4 * 3600.0  # seconds; by default, longer clips are refused
MAX_BYTES = 2**31  # of a file or a download, 2 GiB
LOUDEST = 2.0**31  # peak; no audio format exceeds it, and the power of a larger one would overflow float32
MAX_CHANNELS = 32  # the smaller axis of a 2-D array is taken for channels only below this
RATES = (1_000, 768_000)  # hertz; a rate outside was given in another unit
CHUNK = 2**20  # samples of all channels that are decoded at a time
GAP = 0.1  # seconds; a longer gap in the timestamps of a stream becomes silence
DISCONTINUITY = 10.0  # seconds; a longer jump in MPEG-TS is a new clock, and not a gap
URL_TIMEOUT = 30.0  # seconds without any data
URL_DURATION = 600.0  # seconds for a whole download
SCHEME = r"([A-Za-z][A-Za-z0-9+.-]*)://"  # RFC 3986
ARRAY_KEYS, RATE_KEYS = ("array", "raw", "waveform"), ("sampling_rate", "sample_rate")  # of a dict
ARRAY_EXAMPLE = '{"array": samples, "sampling_rate": rate in hertz}'

# What is decoded. Containers are recognized by their first bytes, and not by FFmpeg, which also opens playlists.
SOUNDFILE_FORMATS = {"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "FLAC", "OGG", "MP3"}
AV_CODECS = (
    "aac,aac_latm,ac3,adpcm_g722,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,adpcm_swf,alac,amrnb,amrwb,eac3,flac,g722,g726,"
    "g726le,gsm,gsm_ms,libopus,libspeex,libvorbis,mp1,mp1float,mp2,mp2float,mp3,mp3float,opus,pcm_alaw,pcm_f32be,"
    "pcm_f32le,pcm_f64be,pcm_f64le,pcm_mulaw,pcm_s16be,pcm_s16le,pcm_s24be,pcm_s24le,pcm_s32be,pcm_s32le,pcm_s8,"
    "pcm_u8,shorten,speex,vorbis,wmapro,wmav1,wmav2,wmavoice"
)
AUDIO_SUFFIXES = {  # by which files are found in a folder
    *(".wav", ".wave", ".rf64", ".w64", ".flac", ".mp3", ".mp2", ".ogg", ".oga", ".opus", ".spx", ".aif", ".aiff"),
    *(".aifc", ".au", ".snd", ".caf", ".nist", ".sph", ".aac", ".amr", ".awb", ".m4a", ".m4b", ".mka", ".wma"),
    *(".mp4", ".m4v", ".mov", ".3gp", ".webm", ".mkv", ".avi", ".flv", ".wmv", ".asf", ".ts", ".mts", ".m2ts"),
}
ESTIMATED = {"aac", "amr", "mp3", "mpegts", "ogg"}  # FFmpeg estimates their duration from the size

# Thresholds of the flags.
SHORT = 1.0  # seconds
SILENCE = 1e-3  # peak, -60 dB of full scale; RAVDESS's quietest clips peak 17 dB above it
FULL_SCALE = 0.99  # a lower peak is no clipping
CANCELED = 0.1  # of the power that the mean of independent channels keeps
TELEPHONE = 4200.0  # hertz; telephone speech, and a file at 8 kHz, has nothing above
RUMBLE = 100.0  # hertz; power below is not counted as speech
# Fraction of the power of speech, -37 dB: RAVDESS has at least -32.6 dB above TELEPHONE; 16-bit rounding of its
# quietest clips at 8 kHz adds at most -40.2 dB.
NARROW = 2e-4
BLOCK = 1024  # samples per spectrum
BLOCKS_AT_ONCE = 1024  # spectra in memory
FRAME = 0.05  # seconds
DOMINANT, OFTEN = 10.0, 0.1  # ratio of powers, and fraction of loud frames that a channel dominates, as in a call
QUIET = 2e-2  # fraction of the power of the loudest frame, -17 dB
SILERO_RATE, SILERO_PIECE = 16000, 512  # hertz, and samples that its detector expects
BRIDGED = 4  # quiet frames next to a loud one that are no pause: 0.2 s
PAUSES = 0.72  # fraction of pauses; at most 0.69 in RAVDESS, and at least 0.76 with 10 s of zeros before
STEADY = 1.5  # dB, standard deviation of the level of loud frames; at least 1.7 in clips of five speech corpora
SPOKEN, SPOKEN_IN_A_ROW = 0.3, 3  # Silero's probability, and pieces of 32 ms; 0.5 misses 3 % of acted speech

# Measurements of 50 ms of a clip, before downmix and resampling, which hide problems.
MEASUREMENTS = np.dtype(
    [
        ("start", "f8"),  # seconds
        ("seconds", "f8"),
        ("peak", "f4"),  # of all channels
        ("swing", "f4"),  # the peak without the mean (DC) of each channel
        ("clipped", "f4"),  # the highest peak of a channel that has three samples in a row at it; else 0
        ("kept", "f4"),  # power of the mean of the channels
        ("independent", "f4"),  # the same, if the channels were independent
        ("dominant", "i2"),  # the channel that exceeds all others by `DOMINANT`; -1 if there is none
    ]
)
Chunk = tuple[np.ndarray, float]  # samples (S, C) in float32, and their rate in hertz


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
        flags = _find_flags(
            self.measurements, self.waveform, self.sampling_rate, _is_narrow_band(self.waveform, self.sampling_rate)
        )
        return (*flags, "truncated") if self.is_truncated else flags

    def flags_between(self, start: float, end: float) -> tuple[str, ...]:
        """The flags of the part from `start` to `end` seconds; `"narrow_band"` is that of the whole clip."""
        begins = self.measurements["start"]  # (N,)
        first = np.searchsorted(begins, start + FRAME / 100) - 1  # the frame that `start` is in
        last = np.searchsorted(begins, end - FRAME / 100)
        waveform = self.waveform[round(start * self.sampling_rate) : round(end * self.sampling_rate)]  # (S',)
        inside = self.measurements[max(first, 0) : last]
        return _find_flags(inside, waveform, self.sampling_rate, "narrow_band" in self.flags)

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


@dataclass(frozen=True)
class Recording:
    """A source that has been opened and not been decoded.

    Args:
        name: of the source, for messages.
        chunks: from the longest duration in seconds that may be decoded to successive parts, from the start on.
        is_truncated: whether the end is missing.
    """

    name: str
    chunks: Callable[[float], Iterable[Chunk]]
    is_truncated: bool = False


class UnreadableClipError(ValueError):
    """A clip that cannot be used; the message is complete."""


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
    return _read_clip(_load(source), sampling_rate, max_duration)


def _read_clip(recording: Recording, sampling_rate: int, max_duration: float) -> AudioClip:
    """Read what has been opened, see [`read_audio`]."""
    try:
        waveform, duration, measurements, powers = _read(recording, sampling_rate, max_duration)
        if _is_canceled(measurements):
            waveform = _read(recording, sampling_rate, max_duration, channel=int(np.argmax(powers)))[0]
    except MemoryError as error:
        raise UnreadableClipError(
            f"{recording.name}: expected a clip that fits into memory, got {_describe(error)}. Cut it into shorter "
            "ones."
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


def resample(samples: np.ndarray, rate: float, sampling_rate: float) -> np.ndarray:
    """Resample `(S,)` or `(S, C)` from `rate` to `sampling_rate`, both in hertz.

    Raises:
        ImportError: where the rates differ and soxr is missing.
    """
    if rate == sampling_rate:
        return samples
    _require_soxr(rate, sampling_rate)
    return soxr.resample(samples, rate, sampling_rate)


def _require_soxr(rate: float, sampling_rate: float) -> None:
    if soxr is None:
        raise ImportError(f"Resampling from {rate} to {sampling_rate} Hz needs soxr: `pip install soxr`.")


def public_name(source: str | Path) -> str:
    """A path as it is; a URL without what may be secret: user, password, query and fragment."""
    scheme, separator, rest = str(source).partition("://")
    if not separator or not re.match(SCHEME, str(source)):
        return str(source)
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


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
        found, channel_powers = _measure(samples, rate, duration)
        measured.append(found)
        powers[: len(channel_powers)] += channel_powers
        duration += len(samples) / rate
        _check_duration(recording.name, duration, max_duration)
        if channel is None:
            mono = np.ascontiguousarray(samples.T).mean(axis=0)  # faster than over the last axis
        else:
            mono = samples[:, min(channel, samples.shape[1] - 1)]
        if rate != resampled_rate:
            if resampler is not None:
                append(resampler.resample_chunk(mono[:0], last=True))
            resampler, resampled_rate = _resampler(rate, sampling_rate), rate
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
            _check_format(name, *form)
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


def _resampler(rate: float, sampling_rate: float) -> Any:
    """A resampler of successive chunks `(S,)`, or None where the rates are the same."""
    if rate == sampling_rate:
        return None
    _require_soxr(rate, sampling_rate)
    return soxr.ResampleStream(rate, sampling_rate, 1, dtype="float32")


def _check_format(name: str, rate: float, channels: int) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise UnreadableClipError(
            f"{name}: expected a sampling rate in hertz ({RATES[0]} to {RATES[1]}), got {rate:g}."
        )
    if channels >= MAX_CHANNELS:
        raise UnreadableClipError(
            f"{name}: expected fewer than {MAX_CHANNELS} channels, got {channels}. Pass that of the voice."
        )


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


def _check_duration(name: str, duration: float, max_duration: float) -> None:
    if duration > max_duration:
        raise UnreadableClipError(
            f"{name}: expected at most {max_duration:g} s of audio, got more. Cut it into shorter clips, or allow "
            "more with `max_duration`."
        )


def _load(source: Any) -> Recording:
    """Open any source."""
    if isinstance(source, Mapping):
        return _load_mapping(source)
    if isinstance(source, (str, Path)):
        if not str(source):
            raise ValueError("'': expected the path of an audio file, got an empty path.")
        if isinstance(source, str) and re.match(SCHEME, source):
            return _open_url(source)
        return open_recording(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _load_bytes(source, None)
    if callable(getattr(source, "get_all_samples", None)):  # torchcodec, which need not be installed
        try:
            decoded = source.get_all_samples()
            samples, rate = decoded.data, decoded.sample_rate
        except Exception as error:  # decoders raise anything on what is not audio
            raise ValueError(f"decoder: expected audio that can be decoded, got {_describe(error)}.") from error
        return _load_array(samples, rate, "decoder")
    if callable(getattr(source, "read", None)):
        name = str(getattr(source, "name", "file object"))
        return open_recording(_read_file_object(source, name), name)
    if isinstance(source, (np.ndarray, np.number, list, tuple, float, int)) or _is_tensor(source):
        shape = f" of shape {tuple(source.shape)}" if isinstance(source, np.ndarray) or _is_tensor(source) else ""
        raise ValueError(f"bare array{shape}: expected its sampling rate beside it, got none. Pass {ARRAY_EXAMPLE}.")
    raise ValueError(
        f"{type(source).__name__} object: expected audio, got something else. Pass a path, a URL, bytes, a binary "
        "file, a row of datasets or a dict with an array and its rate."
    )


def _load_mapping(source: Mapping) -> Recording:
    """Open a dict: an array with its rate, a row, or a struct of path and bytes."""
    array = next((source[key] for key in ARRAY_KEYS if source.get(key) is not None), None)
    if array is not None:
        rate = next((source[key] for key in RATE_KEYS if source.get(key) is not None), None)
        if rate is None:
            raise ValueError(f"array in a dict: expected its sampling rate beside it, got none. Pass {ARRAY_EXAMPLE}.")
        return _load_array(array, rate, str(source.get("path") or "array"))
    if (audio := source.get("audio")) is not None:
        if isinstance(audio, Mapping) and audio.get("audio") is not None:
            raise ValueError(
                'dict: expected audio under "audio", got a dict with another "audio". Pass the inner one.'
            )
        if isinstance(audio, (list, tuple)) and audio and not isinstance(audio[0], (int, float, np.number, list)):
            raise ValueError(
                f'dict: expected one row, got several rows, {len(audio)} under "audio". Iterate over the dataset, or '
                "pass it as a whole."
            )
        recording = _load(audio)
        return replace(recording, name=str(source.get("id") or recording.name))
    if (content := source.get("bytes")) is not None:
        if not isinstance(content, (bytes, bytearray, memoryview)):
            raise ValueError(f'dict: expected bytes under "bytes", got {type(content).__name__}.')
        return _load_bytes(content, source.get("path"))
    if (path := source.get("path")) is not None:
        if not isinstance(path, (str, Path)):
            raise ValueError(f'dict: expected a string under "path", got {type(path).__name__}.')
        return _load(path)
    if empty := [key for key in (*ARRAY_KEYS, "audio", "bytes", "path") if key in source]:
        raise ValueError(f"dict: expected audio under {empty}, got None. Give one of them a value.")
    raise ValueError(
        'dict: expected "array" and "sampling_rate", or "audio", or "bytes" or "path", got the keys '
        f"{sorted(map(str, source))}. Name the audio by one of these."
    )


def _load_bytes(content: bytes | bytearray | memoryview, path: Any) -> Recording:
    """Open the content of a file; its path, if known, is its name."""
    try:
        content = bytes(content)
    except ValueError as error:  # a released memoryview
        raise ValueError(f"bytes: expected the content of an audio file, got {_describe(error)}.") from error
    return open_recording(content, public_name(path or _default_name(content)))


def _load_array(array: Any, rate: Any, name: str) -> Recording:
    """Check an array and its rate, scale integers, and put the channels last."""
    try:
        if _is_tensor(array):
            array = array.detach().cpu()
            array = array.float() if array.is_floating_point() else array  # numpy has no bfloat16
        array = np.asarray(array)
        rate = float(rate)
    except Exception as error:  # meta tensors, ragged lists, objects with a failing `__array__`
        raise ValueError(
            f"{name}: expected an array of samples and a rate in hertz, got {_describe(error)}."
        ) from error
    name = f"{name} of shape {array.shape}" if name == "array" else name
    if array.ndim == 2 and min(array.shape) < MAX_CHANNELS:
        samples = array.T if array.shape[0] < array.shape[1] else array  # (S, C)
    elif array.ndim == 1:
        samples = array[:, None]  # (S, 1)
    else:
        raise ValueError(
            f"{name}: expected an array of shape (samples,), (channels, samples) or (samples, channels) with fewer "
            f"than {MAX_CHANNELS} channels, got {array.shape}. Pass several clips as a list of dicts."
        )
    scaled = scale_to_unit_range(samples, name)
    return Recording(name, lambda max_duration: _chunks_of_array(name, scaled, rate, max_duration))


def _chunks_of_array(name: str, samples: np.ndarray, rate: float, max_duration: float) -> Iterator[Chunk]:
    _check_format(name, rate, samples.shape[1])
    _check_duration(name, len(samples) / rate, max_duration)
    frame = round(FRAME * rate)
    step = max(1, CHUNK // frame) * frame
    for first in range(0, len(samples), step):
        yield samples[first : first + step], rate


def scale_to_unit_range(samples: np.ndarray, name: str) -> np.ndarray:
    """Samples in float32; integers are divided by the full scale of their type."""
    kind, bits = samples.dtype.kind, 8 * samples.dtype.itemsize
    if kind == "f":
        with np.errstate(over="ignore"):  # an overflow is infinite, which `read_audio` refuses
            return samples.astype(np.float32, copy=False)
    if kind == "u":
        middle = 2.0 ** (bits - 1)  # zero of unsigned audio
        return ((samples - middle) / middle).astype(np.float32)
    if kind == "i":
        if bits == 64:
            bits = 16 if samples.size == 0 or (samples.min() >= -(2**15) and samples.max() <= 2**15) else 32
        return (samples / 2.0 ** (bits - 1)).astype(np.float32)
    raise ValueError(f"{name}: expected samples that are floats or integers, got {samples.dtype}.")


def _is_tensor(source: Any) -> bool:
    """Whether this is a torch tensor; torch itself need not be imported."""
    return type(source).__module__.partition(".")[0] == "torch"


def _read_file(path: Path, name: str) -> bytes:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # reading a pipe or /dev/zero may never end
            raise OSError("it is a pipe or a device; pass its bytes")
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise OSError(f"more than {MAX_BYTES} bytes; extract the audio, or cut it into shorter clips")
        return path.read_bytes()
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a null byte in the path
        raise ValueError(f"{name}: expected an audio file, got {_describe(error)}.") from error


def _read_file_object(file: Any, name: str) -> bytes:
    try:
        content = file.read()
    except Exception as error:  # closed, opened for writing, or not a file
        raise ValueError(f"{name}: expected a file that can be read, got {_describe(error)}.") from error
    if not isinstance(content, bytes):
        raise ValueError(
            f"{name}: expected a file opened in binary mode ('rb'), whose `read()` gives bytes, got "
            f"{type(content).__name__}."
        )
    if not content:
        try:
            is_at_end = file.seekable() and file.tell() > 0
        except (AttributeError, OSError, ValueError):  # an object with `read` alone
            is_at_end = False
        if is_at_end:
            raise ValueError(
                f"{name}: expected the content of an audio file, got nothing: the file object is at its end. Call "
                "its `seek(0)` before."
            )
    return content


def _open_url(url: str) -> Recording:
    """Open what an http(s) URL, or a file URL of this machine, points to."""
    scheme, _, rest = url.partition("://")
    host, _, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    scheme, name = scheme.lower(), public_name(url)
    if scheme == "file" and host in ("", "localhost"):
        return open_recording(Path(urllib.request.url2pathname(f"/{path}")), name)
    if scheme not in ("http", "https"):
        raise ValueError(
            f"{name}: expected a path, or a URL of http, https or a file of this machine, got "
            f"{scheme}://{host.rpartition('@')[2]}. Fetch the clip, and pass its path or its bytes."
        )
    result: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
    # A thread, because a server that sends its headers byte by byte never times out.
    threading.Thread(target=lambda: result.put(_download(url)), daemon=True).start()
    try:
        content = result.get(timeout=URL_DURATION)
    except queue.Empty:
        content = TimeoutError(f"no end within {URL_DURATION:g} s")
    if isinstance(content, Exception):
        # Other messages, such as that of InvalidURL, repeat the URL, which may hold a password or a signature.
        reason = ""
        if isinstance(content, urllib.error.HTTPError):
            reason = f"status {content.code}"
        elif isinstance(content, urllib.error.URLError):  # of the connection, or of the scheme of a redirect
            reason = str(content.reason)
        elif isinstance(content, (TimeoutError, MemoryError)):
            reason = str(content)
        found = f"{type(content).__name__}: {reason}".rstrip(".: ")
        raise ValueError(f"{name}: expected an audio file, got {found}.") from None
    return open_recording(content, name)


def _download(url: str) -> bytes | Exception:
    """The content, or why there is none."""
    # Without handlers of ftp, file and data: a redirect to them is refused.
    handlers = [
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ]
    opener = urllib.request.OpenerDirector()
    for handler in handlers:
        opener.add_handler(handler())
    deadline, content = time.monotonic() + URL_DURATION, bytearray()
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "audio-emotion"})
        with opener.open(request, timeout=URL_TIMEOUT) as response:
            while part := response.read1(2**16):
                content += part
                if len(content) > MAX_BYTES:
                    return TimeoutError(f"more than {MAX_BYTES} bytes")
                if time.monotonic() > deadline:
                    return TimeoutError(f"no end within {URL_DURATION:g} s")
            if response.length:  # `read1` passes over an end that comes too early
                return TimeoutError(f"{response.length} bytes too few")
        return bytes(content)
    except (OSError, ValueError, MemoryError, http.client.HTTPException) as error:  # URLError is an OSError
        return error


def open_recording(source: bytes | str | Path, name: str | None = None) -> Recording:
    """Open a file or its content: recognize its container, find where it ends, and what is joined to it."""
    if isinstance(source, (str, Path)):
        name = name or str(source)
        source = _read_file(Path(source), name)
    name = name or _default_name(source)
    if not source:
        raise ValueError(f"{name}: expected an audio file, got an empty one (0 bytes).")
    try:
        files, is_truncated = split_joined(source)
    except Exception as error:  # of a header that is damaged
        raise UnreadableClipError(_undecodable(name, source, error)) from error

    def chunks(max_duration: float) -> Iterator[Chunk]:
        for demuxer, content, duration in files:
            try:
                yield from _decode(name, demuxer, content, duration, max_duration)
            except (UnreadableClipError, MemoryError):
                raise
            except Exception as error:  # decoders raise anything on bytes that are not audio
                raise UnreadableClipError(_undecodable(name, source, error)) from error

    return Recording(name, chunks, is_truncated)


def _undecodable(name: str, content: bytes, error: Exception) -> str:
    return (
        f"{name}: expected audio that can be decoded (wav, flac, mp3, ogg, aiff, au, caf and nist by soundfile; m4a, "
        f"mp4, webm, mkv, avi, flv, ts, aac, amr and wma by PyAV), got {len(content)} bytes that cannot: "
        f"{str(error).rstrip('.')}. Repair or convert the file, or leave it out."
    )


def _decode(name: str, demuxer: str, content: bytes, duration: float, max_duration: float) -> Iterator[Chunk]:
    """Decode one file with soundfile if it recognizes the format, else with PyAV.

    PyAV is not tried on a file that libsndfile finds broken. `duration` is that of all frames that were found, in
    seconds, or 0.
    """
    try:
        file = soundfile.SoundFile(io.BytesIO(content))
    except Exception:
        file = None
    if file is None or file.format not in SOUNDFILE_FORMATS:
        yield from _decode_with_av(name, demuxer, content, max_duration)
        return
    with file:
        stated = file.frames if file.frames < 2**62 else 0  # else unknown
        _check_format(name, file.samplerate, file.channels)
        _check_duration(name, stated / file.samplerate, max_duration)
        frame = round(FRAME * file.samplerate)
        step = max(1, CHUNK // file.channels // frame) * frame
        count = 0
        file.seekable = lambda: False  # soundfile seeks after each read, which fails where the length is unknown
        if file.subtype.startswith("MPEG"):  # libsndfile estimates the number from the size
            stated = round(duration * file.samplerate)
            end = 2**62
        else:
            end = stated or 2**62
        while len(samples := file.read(min(step, end - count), dtype="float32", always_2d=True)):
            count += len(samples)
            yield samples, file.samplerate
        if count < (stated if file.format == "FLAC" else (1 - MISSING) * stated - GAP * file.samplerate):
            raise ValueError(f"it is cut short, {count} of {stated} samples")


def _decode_with_av(name: str, demuxer: str, content: bytes, max_duration: float) -> Iterator[Chunk]:
    """Decode the first audio track with FFmpeg's demuxer of this name, and without any of its protocols."""
    try:
        av = importlib.import_module("av")  # by name: optional, and slow to import
    except ImportError as error:
        missing = "av" if soundfile else "soundfile"
        raise ImportError(f"{missing} is not installed (`pip install {missing}`)") from error
    limits = {"format_whitelist": demuxer, "protocol_whitelist": "none", "codec_whitelist": AV_CODECS}
    with av.open(io.BytesIO(content), format=demuxer, options=limits) as container:
        if not container.streams.audio:
            raise ValueError("it has no audio track")
        stream = container.streams.audio[0]
        if (codec := stream.codec_context.name) not in AV_CODECS.split(","):
            raise ValueError(f"its codec {codec} is none of {AV_CODECS}")
        stated = 0.0  # seconds
        if demuxer not in ESTIMATED:
            if stream.duration is not None:
                stated = float(stream.duration * stream.time_base)
            elif container.duration is not None and len(container.streams) == 1:
                stated = container.duration / av.time_base
        _check_duration(name, stated, max_duration)
        form, to_floats, clock, decoded = None, av.AudioResampler(format="fltp"), None, 0.0  # seconds
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise ValueError(f"it is damaged or cut short after {decoded:.3f} s")
            for frame in packet.decode():
                if (frame.rate, frame.format.name, frame.layout.name) != form:
                    form = (frame.rate, frame.format.name, frame.layout.name)
                    to_floats = av.AudioResampler(format="fltp")
                if frame.pts is not None and frame.time_base:
                    begin = float(frame.pts * frame.time_base)
                    gap = 0.0 if clock is None else begin - clock
                    if gap > GAP and not (demuxer == "mpegts" and gap > DISCONTINUITY):
                        _check_duration(name, decoded + gap, max_duration)
                        yield from _silence(gap, frame.rate, frame.layout.nb_channels)
                        decoded += gap
                    clock = begin
                if clock is not None:
                    clock += frame.samples / frame.rate
                decoded += frame.samples / frame.rate
                for part in to_floats.resample(frame):
                    yield part.to_ndarray().T, frame.rate
        if decoded < (1 - MISSING) * stated - GAP:
            raise ValueError(f"it is cut short, {decoded:.3f} of {stated:.3f} s")


def _silence(seconds: float, rate: int, channels: int) -> Iterator[Chunk]:
    count, step = round(seconds * rate), max(1, CHUNK // channels)
    for first in range(0, count, step):
        yield np.zeros((min(step, count - first), channels), np.float32), rate


def _default_name(content: bytes) -> str:
    return f"audio of {len(content)} bytes"


def _describe(error: Exception) -> str:
    """Type and message of an error, without a full stop."""
    return f"{type(error).__name__}: {error}".rstrip(".: ")


def _measure(samples: np.ndarray, rate: float, start: float) -> tuple[np.ndarray, np.ndarray]:
    """Measure the frames of a chunk `(S, C)` that starts at `start` seconds.

    Returns:
        `MEASUREMENTS` `(N,)`, and the power of each channel times its number of samples, `(C,)`.
    """
    length, channels = round(FRAME * rate), samples.shape[1]
    by_channel = np.ascontiguousarray(samples.T)  # (C, S): reductions over the last axis are fast
    whole = len(samples) // length * length
    measured, powers = [], np.zeros(channels)
    for frames in (by_channel[:, :whole].reshape(channels, -1, length), by_channel[:, None, whole:]):  # (C, N, L)
        if frames.size == 0:
            continue
        high, low, mean = frames.max(axis=2), frames.min(axis=2), frames.mean(axis=2)  # (C, N)
        peak, power = np.maximum(high, -low), frames.var(axis=2)  # (C, N)
        found = np.zeros(frames.shape[1], MEASUREMENTS)
        found["seconds"] = frames.shape[2] / rate
        found["start"] = start + np.arange(frames.shape[1]) * (length / rate)
        found["peak"] = peak.max(axis=0)
        found["swing"] = np.maximum(high - mean, mean - low).max(axis=0)
        if found["peak"].max() >= FULL_SCALE:
            is_high = np.abs(frames) >= peak[..., None] * (1 - 1e-5)  # (C, N, L)
            in_a_row = (is_high[..., :-2] & is_high[..., 1:-1] & is_high[..., 2:]).any(axis=2)  # (C, N)
            found["clipped"] = np.where(in_a_row, peak, 0).max(axis=0)
        found["kept"] = power[0] if channels == 1 else frames.mean(axis=0).var(axis=1)
        found["dominant"] = -1
        if channels > 1:
            second, first = np.partition(power, -2, axis=0)[-2:]  # (N,)
            found["dominant"] = np.where(first > DOMINANT * second, power.argmax(axis=0), -1)
        found["independent"] = power.mean(axis=0) / channels  # the mean of C such channels has 1 / C of their power
        measured.append(found)
        powers += power.sum(axis=1) * frames.shape[2]
        start += whole / rate
    return np.concatenate(measured), powers


def _is_canceled(measurements: np.ndarray) -> bool:
    """Whether the channels cancel each other in their mean."""
    kept, independent = (float((measurements[key] * measurements["seconds"]).sum()) for key in ("kept", "independent"))
    return kept < CANCELED * independent


def _do_channels_differ(measurements: np.ndarray) -> bool:
    """Whether different channels dominate at different times, as those of two speakers on a telephone line."""
    power = measurements["independent"]
    dominant = measurements["dominant"][power >= QUIET * power.max()]
    counts = np.bincount(dominant[dominant >= 0], minlength=1)
    return int((counts >= OFTEN * len(dominant)).sum()) > 1


def _find_flags(
    measurements: np.ndarray, waveform: np.ndarray, sampling_rate: int, is_narrow_band: bool
) -> tuple[str, ...]:
    """The flags of a clip or of a part of one, see [`AudioClip`].

    Args:
        measurements: `(N,)`, of the source.
        waveform: `(S,)`, the model's input.
        sampling_rate: of the waveform, in hertz.
        is_narrow_band: whether the whole clip is; a part, such as a vowel, is too short to decide.
    """
    peak = measurements["peak"].max()
    is_silent = measurements["swing"].max() < SILENCE
    is_short = measurements["seconds"].sum() < SHORT * (1 - 1e-9)
    flags = {
        "silence": is_silent,
        "clipped": peak >= FULL_SCALE and measurements["clipped"].max() >= peak * (1 - 1e-5),
        "short": is_short,
        "out_of_range": peak > 1.0,
        "canceled": _is_canceled(measurements),
        "channels_differ": not is_silent and _do_channels_differ(measurements),
        "narrow_band": not is_silent and is_narrow_band,
        "pauses": not is_silent and _is_mostly_pauses(waveform, sampling_rate),
        "no_speech": not is_silent and not _has_speech(waveform, sampling_rate),
    }
    return tuple(flag for flag, is_set in flags.items() if is_set)


def _is_narrow_band(waveform: np.ndarray, rate: float) -> bool:
    """Whether a waveform `(S,)` at `rate` hertz has almost no power above the telephone band."""
    length = min(BLOCK, len(waveform))
    blocks = waveform[: len(waveform) // length * length].reshape(-1, length)  # (N, L)
    taper = np.hanning(length).astype(np.float32)  # (L,)
    power = np.zeros(length // 2 + 1)  # (L / 2 + 1,)
    for first in range(0, len(blocks), BLOCKS_AT_ONCE):
        spectra = np.fft.rfft(blocks[first : first + BLOCKS_AT_ONCE] * taper)  # (n, L / 2 + 1)
        power += (np.abs(spectra) ** 2).sum(axis=0)
    frequencies = np.fft.rfftfreq(length, 1 / rate)  # (L / 2 + 1,), hertz
    speech = power[frequencies > RUMBLE].sum()
    return bool(power[frequencies > TELEPHONE].sum() < NARROW * speech)


def _is_mostly_pauses(waveform: np.ndarray, rate: float) -> bool:
    """Whether most of a waveform `(S,)` at `rate` hertz is far below its loudest part, at any gain."""
    power = _frame_powers(waveform, rate)  # (N,)
    if len(power) == 0:
        return False
    loud = power >= QUIET * power.max()  # (N,)
    speech = np.convolve(loud, np.ones(2 * BRIDGED + 1))[BRIDGED : BRIDGED + len(loud)] > 0.5  # (N,)
    return bool((~speech).mean() > PAUSES)


def _frame_powers(waveform: np.ndarray, rate: float) -> np.ndarray:
    """Power of every 50 ms of a waveform `(S,)`, without DC, `(N,)`."""
    length = round(FRAME * rate)
    frames = waveform[: len(waveform) // length * length].reshape(-1, length)  # (N, L)
    parts = [frames[first : first + BLOCKS_AT_ONCE].var(axis=1) for first in range(0, len(frames), BLOCKS_AT_ONCE)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _has_speech(waveform: np.ndarray, rate: int) -> bool:
    """Whether there may be speech in a waveform `(S,)` at `rate` hertz.

    By Silero's detector, if it is installed. Without it, only what is loud and steady is found to be no speech, such
    as a tone, a hum or a noise: the level of speech changes with every syllable. Less than a second is too short.
    """
    silero, lock = _silero()
    if silero is not None:
        torch = importlib.import_module("torch")
        if rate != SILERO_RATE:
            waveform = resample(waveform, rate, SILERO_RATE)
        with lock, torch.inference_mode():  # the detector keeps a state from piece to piece
            silero.reset_states()
            in_a_row = 0
            for first in range(0, len(waveform), SILERO_PIECE):
                piece = np.zeros(SILERO_PIECE, np.float32)
                piece[: len(waveform) - first] = waveform[first : first + SILERO_PIECE]
                probability = float(silero(torch.from_numpy(piece), SILERO_RATE))
                in_a_row = in_a_row + 1 if probability >= SPOKEN else 0
                if in_a_row == SPOKEN_IN_A_ROW:
                    return True
        return False
    power = _frame_powers(waveform, rate)  # (N,)
    if len(power) < SHORT / FRAME or power.max() == 0:
        return True
    loud = power[power >= QUIET * power.max()]
    return bool(np.std(10 * np.log10(loud)) >= STEADY)


@cache
def _silero() -> tuple[Any, Any]:
    """Silero's voice activity detector, whose weights are in its package, and a lock; None where it is missing."""
    if "silero_vad" not in sys.modules and importlib.util.find_spec("silero_vad") is None:  # before torch is imported
        return None, threading.Lock()
    try:
        torch = importlib.import_module("torch")
        threads = torch.get_num_threads()
        detector = importlib.import_module("silero_vad").load_silero_vad()
    except ImportError:
        return None, threading.Lock()
    torch.set_num_threads(threads)  # its import sets one thread
    return detector, threading.Lock()
