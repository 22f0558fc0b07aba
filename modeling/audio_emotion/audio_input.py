"""Anything that a user may call audio to one mono waveform, flagged where it is odd."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .audio_input_files import decode, decode_url, name_of_bytes, resample, said, scheme_of
from .clip_flags import flags_of, is_narrow_band, mixed_down

SHORTEST = 0.25  # seconds; below, no model of ours says anything
LOUDEST = 2.0**31  # peak; above, no number format of audio gives it, and its power would leave float32
MAX_CHANNELS = 32  # the smaller axis of a 2-D array is its channels only below this
RATES = (1_000, 768_000)  # hertz; a rate outside was given in another unit
ARRAYS, RATE_NAMES = ("array", "raw", "waveform"), ("sampling_rate", "sample_rate")  # keys of a dict
PASS_ARRAYS = 'pass {"array": samples, "sampling_rate": rate in hertz}'


@dataclass(frozen=True)
class AudioClip:
    """One clip, ready for a feature extractor.

    Args:
        waveform (`numpy.ndarray` of shape `(S,)`): mono float32 samples, ±1 unless flagged.
        duration: of the source, in seconds.
        flags: any of `"silence"`, `"clipped"`, `"short"` (less than a second), `"out_of_range"` (outside ±1),
            `"cancelled"` (channels whose mean is next to nothing: the loudest was taken), `"narrow_band"` (nothing
            above 4 kHz, as on a telephone) and `"pauses"` (most of it is far below its loudest part).
        name: how messages call the source.
        samples (`numpy.ndarray` of shape `(S', C)`): as they came, before averaging and resampling.
        rate: of these samples, in hertz.
        sampling_rate: of the waveform, in hertz.
    """

    waveform: np.ndarray
    duration: float
    flags: tuple[str, ...]
    name: str
    samples: np.ndarray
    rate: float
    sampling_rate: int

    def flags_between(self, start: float, end: float) -> tuple[str, ...]:
        """The flags of a part, from `start` to `end` in seconds, at least one sample; the band is the clip's."""
        part = self.samples[round(start * self.rate) : round(end * self.rate)]  # (S', C)
        heard = self.waveform[round(start * self.sampling_rate) : round(end * self.sampling_rate)]  # (S,)
        return flags_of(
            part, len(part) / self.rate, heard, self.sampling_rate, narrow_band="narrow_band" in self.flags
        )


def read_audio(source: Any, sampling_rate: int = 16000) -> AudioClip:
    """Read one clip, average its channels and resample it. Of channels that cancel each other, the loudest is taken.

    Args:
        source: a path, an http(s) or file URL, the bytes of a file, a binary file object, `{"array", "sampling_rate"}`
            with a numpy array, list or torch tensor (`"raw"` or `"waveform"`, and `"sample_rate"`, mean the same), a
            row of `datasets` (`{"audio": ...}`, `{"path", "bytes"}`) or a decoder of torchcodec. An array is `(S,)`,
            `(C, S)` or `(S, C)`: of two axes the smaller one is the channels. Integer arrays are scaled to ±1 by their
            type; 64-bit ones, as lists of integers become, are taken for 16-bit audio if every sample fits, else for
            32-bit audio.
        sampling_rate: of the result, in hertz.

    Raises:
        ValueError: where the source is missing, is no audio, is cut short, holds no samples or NaN or infinite ones,
            lasts less than 0.25 s, has a rate or channels that no recording has, or is a bare array, whose rate nobody
            knows.
    """
    samples, rate, name = _samples_of(source)
    if not RATES[0] <= rate <= RATES[1]:
        raise ValueError(f"{name}: expected a sampling rate in hertz ({RATES[0]} to {RATES[1]}), got {rate:g}.")
    if samples.shape[1] >= MAX_CHANNELS:
        raise ValueError(
            f"{name}: expected fewer than {MAX_CHANNELS} channels, got {samples.shape[1]}. Pass that of the voice."
        )
    if samples.size == 0:
        raise ValueError(f"{name}: expected audio of at least {SHORTEST} s, got no samples. Leave this clip out.")
    if not np.isfinite(samples).all():
        count = int((~np.isfinite(samples)).sum())
        raise ValueError(
            f"{name}: expected finite samples, got {count} that are NaN or infinite. Repair the recording, or leave "
            "this clip out."
        )
    if (peak := float(np.abs(samples).max())) > LOUDEST:
        raise ValueError(
            f"{name}: expected samples in ±1, got one of size {peak:.3g}. Divide them by the full scale of their type."
        )
    duration = len(samples) / rate  # seconds
    if duration < SHORTEST:
        raise ValueError(
            f"{name}: expected at least {SHORTEST} s of audio, got {duration:.6g} s. Join it with its neighbours, or "
            "leave this clip out."
        )
    waveform = np.ascontiguousarray(resample(mixed_down(samples)[0], rate, sampling_rate), dtype=np.float32)  # (S,)
    flags = flags_of(samples, duration, waveform, sampling_rate, is_narrow_band(waveform, sampling_rate))
    return AudioClip(waveform, duration, flags, name, samples, rate, sampling_rate)


def _samples_of(source: Any) -> tuple[np.ndarray, float, str]:
    """Samples `(S, C)` in float32, their rate in hertz and the source's name."""
    if isinstance(source, str) and not source:
        raise ValueError("'': expected the path of an audio file, got an empty path.")
    if isinstance(source, str) and scheme_of(source):
        return *decode_url(source), source
    if isinstance(source, (str, Path)):
        return *decode(source), str(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _samples_of_bytes(source, None)
    if isinstance(source, Mapping):
        return _samples_of_mapping(source)
    if callable(getattr(source, "get_all_samples", None)):  # torchcodec, whose class need not be installed
        try:
            decoded = source.get_all_samples()
            samples, rate = decoded.data, decoded.sample_rate
        except Exception as error:  # a decoder may fail in any way on what is no audio
            raise ValueError(f"decoder: expected audio that can be decoded, got {said(error)}.") from error
        return _samples_of_array(samples, rate, "decoder")
    if callable(getattr(source, "read", None)):
        name = str(getattr(source, "name", "file object"))
        try:
            content = source.read()
        except Exception as error:  # closed, opened for writing, or no file at all
            raise ValueError(f"{name}: expected a file that can be read, got {said(error)}.") from error
        if not isinstance(content, bytes):
            raise ValueError(
                f"{name}: expected a file opened in binary mode ('rb'), whose `read()` gives bytes, got "
                f"{type(content).__name__}."
            )
        if not content and _stands_behind_content(source):
            raise ValueError(
                f"{name}: expected the content of an audio file, got nothing: the file object stands at its end. Call "
                "its `seek(0)` before."
            )
        return *decode(content, name), name
    if isinstance(source, (np.ndarray, np.number, list, tuple, float, int)) or _is_tensor(source):
        shape = f" of shape {tuple(source.shape)}" if isinstance(source, np.ndarray) or _is_tensor(source) else ""
        raise ValueError(f"bare array{shape}: expected its sampling rate beside it, got none. Please {PASS_ARRAYS}.")
    raise ValueError(
        f"{type(source).__name__} object: expected audio, got something else. Pass a path, a URL, bytes, a binary "
        "file, a row of datasets or a dict with an array and its rate."
    )


def _samples_of_mapping(source: Mapping) -> tuple[np.ndarray, float, str]:
    """The same for a dict: an array with its rate, a row, or a struct of path and bytes."""
    array = next((source[key] for key in ARRAYS if source.get(key) is not None), None)
    if array is not None:
        rate = next((source[key] for key in RATE_NAMES if source.get(key) is not None), None)
        if rate is None:
            raise ValueError(f"array in a dict: expected its sampling rate beside it, got none. Please {PASS_ARRAYS}.")
        return _samples_of_array(array, rate, str(source.get("path") or "array"))
    if (audio := source.get("audio")) is not None:
        if isinstance(audio, Mapping) and audio.get("audio") is not None:
            raise ValueError(
                'dict: expected audio under "audio", got a dict with another "audio". Pass the inner one.'
            )
        if isinstance(audio, (list, tuple)) and audio and not isinstance(audio[0], (int, float, np.number, list)):
            raise ValueError(
                f'dict: expected one row, got several rows, {len(audio)} under "audio". Iterate over the data set, or '
                "pass it as a whole."
            )
        samples, rate, name = _samples_of(audio)
        return samples, rate, str(source.get("id") or name)
    if (content := source.get("bytes")) is not None:
        if not isinstance(content, (bytes, bytearray, memoryview)):
            raise ValueError(f'dict: expected bytes under "bytes", got {type(content).__name__}.')
        return _samples_of_bytes(content, source.get("path"))
    if (path := source.get("path")) is not None:
        if not isinstance(path, (str, Path)):
            raise ValueError(f'dict: expected a string under "path", got {type(path).__name__}.')
        return _samples_of(path)
    if read := [key for key in (*ARRAYS, "audio", "bytes", "path") if key in source]:
        raise ValueError(f"dict: expected audio under {read}, got None. Give one of them a value.")
    raise ValueError(
        'dict: expected "array" and "sampling_rate", or "audio", or "bytes" or "path", got the keys '
        f"{sorted(map(str, source))}. Name the audio by one of these."
    )


def _samples_of_bytes(content: bytes | bytearray | memoryview, path: Any) -> tuple[np.ndarray, float, str]:
    """The same for the bytes of a file, whose path is known or None."""
    try:
        content = bytes(content)
    except ValueError as error:  # a memoryview that was released
        raise ValueError(f"bytes: expected the content of an audio file, got {said(error)}.") from error
    name = str(path or name_of_bytes(content))
    return *decode(content, name), name


def _samples_of_array(array: Any, rate: Any, name: str) -> tuple[np.ndarray, float, str]:
    """Check an array and its rate, scale integers, and bring the channels last."""
    try:
        if _is_tensor(array):
            array = array.detach().cpu()
            array = array.float() if array.is_floating_point() else array  # numpy has no bfloat16
        array = np.asarray(array)
        rate = float(rate)
    except Exception as error:  # tensors without content, ragged lists, objects with an `__array__` of their own
        raise ValueError(f"{name}: expected an array of samples and a rate in hertz, got {said(error)}.") from error
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
    return _in_unit_range(samples, name), rate, name


def _in_unit_range(samples: np.ndarray, name: str) -> np.ndarray:
    """Samples in float32; integers are divided by the full scale of their type."""
    kind, bits = samples.dtype.kind, 8 * samples.dtype.itemsize
    if kind == "f":
        with np.errstate(over="ignore"):  # becomes infinite, which is refused by name
            return samples.astype(np.float32)
    if kind == "u":
        middle = 2.0 ** (bits - 1)  # unsigned audio rests at the middle of its range
        return ((samples - middle) / middle).astype(np.float32)
    if kind == "i":
        if bits == 64:
            bits = 16 if samples.size == 0 or np.abs(samples).max() <= 2**15 else 32
        return (samples / 2.0 ** (bits - 1)).astype(np.float32)
    raise ValueError(f"{name}: expected samples that are floats or integers, got {samples.dtype}.")


def _is_tensor(source: Any) -> bool:
    """Whether this is a torch tensor; torch itself need not be installed here."""
    return type(source).__module__.partition(".")[0] == "torch"


def _stands_behind_content(file: Any) -> bool:
    """Whether a file object that gave nothing has something before the place at which it stands."""
    try:
        return bool(file.seekable() and file.tell() > 0)
    except (AttributeError, OSError, ValueError):  # it only reads, as what stands for a file may
        return False
