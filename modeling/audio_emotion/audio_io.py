"""Anything that a user may call audio to one mono waveform, flagged where it is odd."""

# SPDX-License-Identifier: Apache-2.0

import http.client
import importlib
import io
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

try:  # a checkpoint loads without them; what needs them says so
    import soundfile
except ImportError:
    soundfile = None
try:
    import soxr
except ImportError:
    soxr = None

UNKNOWN_SIZE = 0x7FFF0000  # bytes; what writes into a pipe claims at least so much, for want of knowing
CLAIM = r"(?i)\b(?:riff|form|data|ssnd|(?:riff|data) size)\s*: (\d+) \(should be (\d+)\)"  # in libsndfile's log
LOST = 0.01  # share of what a header claims that may be missing: headers are often a few bytes wrong
URL_TIMEOUT = 30.0  # seconds
SCHEME = r"([A-Za-z][A-Za-z0-9+.-]*)://"  # RFC 3986


def decode(source: bytes | str | Path, name: str | None = None) -> tuple[np.ndarray, int]:
    """Decode an audio file, or the sound track of a video.

    Args:
        source: the file's bytes, or its path.
        name: how messages call it; by default its path.

    Returns:
        samples `(S, C)` in float32, and their rate in hertz.

    Raises:
        ValueError: where the file is missing, empty, undecodable or cut short.
    """
    if isinstance(source, (str, Path)):
        name = name or str(source)
        source = _content_of(Path(source), name)
    name = name or name_of_bytes(source)
    if not source:
        raise ValueError(f"{name}: expected an audio file, got an empty one (0 bytes).")
    try:
        return _decode_with_soundfile(source) if _soundfile_knows(source) else _decode_with_av(source)
    except Exception as error:  # a decoder may fail in any way on bytes that are no audio
        raise ValueError(
            f"{name}: expected audio that can be decoded (wav, flac, mp3 and ogg by soundfile; m4a, mp4 and webm by "
            f"PyAV), got {len(source)} bytes that cannot: {str(error).rstrip('.')}. Repair or convert the file, or "
            "leave it out."
        ) from error


def decode_url(url: str) -> tuple[np.ndarray, int]:
    """Decode what a URL names; returns what [`decode`] does.

    Raises:
        ValueError: where its scheme is none of http, https and file, or what [`decode`] refuses.
    """
    scheme = scheme_of(url)
    if scheme in ("http", "https"):
        return decode(_download(url), url)
    host, _, path = url[len(f"{scheme}://") :].partition("/")
    if scheme == "file" and host in ("", "localhost"):
        return decode(Path(urllib.request.url2pathname(f"/{path}")), url)
    raise ValueError(
        f"{url}: expected a path, or a URL of http, https or a file of this machine, got {scheme}://{host}. Fetch the "
        "clip, and pass its path or its bytes."
    )


def scheme_of(source: str) -> str:
    """The scheme of a URL in lower case; of a path, nothing."""
    found = re.match(SCHEME, source)
    return found[1].lower() if found else ""


def resample(samples: np.ndarray, rate: float, sampling_rate: float) -> np.ndarray:
    """Change the rate of samples `(S,)` or `(S, C)` from `rate` to `sampling_rate`, both in hertz.

    Raises:
        ImportError: where the rates differ and soxr is missing.
    """
    if rate == sampling_rate:
        return samples
    if soxr is None:
        raise ImportError(f"Resampling from {rate} to {sampling_rate} Hz needs soxr: `pip install soxr`.")
    return soxr.resample(samples, rate, sampling_rate)


def said(error: Exception) -> str:
    """Kind and words of an error, without a full stop."""
    return f"{type(error).__name__}: {error}".rstrip(".: ")


def name_of_bytes(content: bytes | bytearray | memoryview) -> str:
    """How messages call bytes whose path nobody knows."""
    return f"audio of {len(content)} bytes"


def _content_of(path: Path, name: str) -> bytes:
    """What is in a file."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # a pipe may never end, /dev/zero never does
            raise OSError("it is a pipe or a device; pass its bytes")
        return path.read_bytes()
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a null byte in the path
        raise ValueError(f"{name}: expected an audio file, got {said(error)}.") from error


def _soundfile_knows(content: bytes) -> bool:
    """Whether libsndfile recognizes the format; what it then finds broken is broken, and PyAV is not asked."""
    try:
        with soundfile.SoundFile(io.BytesIO(content)):
            return True
    except Exception:
        return False


def _decode_with_soundfile(content: bytes) -> tuple[np.ndarray, int]:
    """wav, flac, mp3, ogg and what else libsndfile knows."""
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        samples = file.read(dtype="float32", always_2d=True)  # (S, C)
        if len(samples) < file.frames:
            raise ValueError(f"it is cut short, {len(samples)} of {file.frames} samples")
        # libsndfile takes what there is of wav, aiff and au, and notes in its log what the header claims.
        for claimed, found in re.findall(CLAIM, file.extra_info):
            if int(found) < (1 - LOST) * int(claimed) and int(claimed) < UNKNOWN_SIZE:
                raise ValueError(f"it is cut short, {found} of {claimed} bytes")
        return samples, file.samplerate


def _decode_with_av(content: bytes) -> tuple[np.ndarray, int]:
    """m4a, mp4, webm and what else FFmpeg knows: the first sound track."""
    try:
        av = importlib.import_module("av")  # by name: optional, and slow to import
    except ImportError as error:
        missing = "av" if soundfile else "soundfile"
        raise ImportError(f"{missing} is not installed (`pip install {missing}`)") from error
    with av.open(io.BytesIO(content)) as container:
        if not container.streams.audio:
            raise ValueError("it has no sound track")
        rate = container.streams.audio[0].rate
        to_floats = av.AudioResampler(format="fltp", rate=rate)
        frames = [part for frame in container.decode(audio=0) for part in to_floats.resample(frame)]
        frames += to_floats.resample(None)
    return np.concatenate([frame.to_ndarray() for frame in frames], axis=1).T, rate  # (S, C)


def _download(url: str) -> bytes:
    """The content of a URL."""
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "audio-emotion"})
        with urllib.request.urlopen(request, timeout=URL_TIMEOUT) as response:
            return response.read()
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
        raise ValueError(f"{url}: expected an audio file, got {said(error)}.") from error


SHORT = 1.0  # seconds; below, an answer carries the flag "short"
SILENCE = 1e-3  # peak, -60 dB of full scale; the quietest of RAVDESS's clips peak at 7 times as much
FULL_SCALE = 0.99  # a peak that may come from clipping
CANCELLED = 0.1  # of the power that channels which have nothing to do with each other keep when they are averaged
TELEPHONE = 4200.0  # hertz; a telephone, and a file at 8 kHz, end below
RUMBLE = 100.0  # hertz; what lies below is no speech
# Of the power of speech, -37 dB: RAVDESS has at least -32.6 dB above TELEPHONE; at 8 kHz, what 16-bit samples of its
# quietest clips bring in by rounding is at most -40.2 dB.
NARROW = 2e-4
BLOCK = 1024  # samples of a spectrum
BLOCKS_AT_ONCE = 1024  # spectra in memory
FRAME = 0.05  # seconds
QUIET = 2e-2  # of the power of the loudest frame, -17 dB
BRIDGED = 4  # quiet frames after and before a loud one that are no pause: 0.2 s
PAUSES = 0.72  # share of pauses; at most 0.69 in RAVDESS, and at least 0.76 with 10 s of zeros before


def downmix(samples: np.ndarray) -> tuple[np.ndarray, bool]:
    """The mean of the channels or, where they cancel each other, the loudest one.

    Args:
        samples: `(S, C)`.

    Returns:
        one channel `(S,)`, and whether they cancel.
    """
    mean, channels = samples.mean(axis=1), samples.shape[1]  # (S,)
    if channels == 1:
        return mean, False
    powers = [float(samples[:, channel].var()) for channel in range(channels)]
    # Of channels with the same power that are independent, the mean has the `channels`-th part.
    if mean.var() < CANCELLED * np.mean(powers) / channels:
        return samples[:, int(np.argmax(powers))], True
    return mean, False


def is_narrow_band(waveform: np.ndarray, rate: float) -> bool:
    """Whether a waveform `(S,)` at `rate` hertz has next to nothing above what a telephone lets through."""
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


def flags_of(
    samples: np.ndarray, duration: float, waveform: np.ndarray, rate: float, narrow_band: bool
) -> tuple[str, ...]:
    """What is odd about a clip or a part of one.

    Args:
        samples: `(S, C)`, as they came, before averaging and resampling hide what is odd.
        duration: in seconds.
        waveform: `(S',)`, as the model hears it.
        rate: of the waveform, in hertz.
        narrow_band: whether the whole clip is, see [`is_narrow_band`]: a single vowel tells nothing.
    """
    level = np.abs(samples)  # (S, C)
    peak = level.max()
    limited = level >= peak * (1 - 1e-5)  # at the highest level that occurs
    silent = peak < SILENCE
    found = {
        "silence": silent,
        "clipped": peak >= FULL_SCALE and (limited[:-2] & limited[1:-1] & limited[2:]).any(),  # three in a row
        "short": duration < SHORT,
        "out_of_range": peak > 1.0,
        "canceled": downmix(samples)[1],
        "narrow_band": not silent and narrow_band,
        "pauses": not silent and _is_mostly_pauses(waveform, rate),
    }
    return tuple(flag for flag, holds in found.items() if holds)


def _is_mostly_pauses(waveform: np.ndarray, rate: float) -> bool:
    """Whether most of a waveform `(S,)` at `rate` hertz is far below its loudest part, at any gain."""
    length = round(FRAME * rate)
    frames = waveform[: len(waveform) // length * length].reshape(-1, length)  # (N, L)
    if len(frames) == 0:
        return False
    power = (frames**2).mean(axis=1)  # (N,)
    loud = power >= QUIET * power.max()  # (N,)
    speech = np.convolve(loud, np.ones(2 * BRIDGED + 1))[BRIDGED : BRIDGED + len(loud)] > 0.5  # (N,)
    return bool((~speech).mean() > PAUSES)


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
            `"canceled"` (channels whose mean is next to nothing: the loudest was taken), `"narrow_band"` (nothing
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
            f"{name}: expected at least {SHORTEST} s of audio, got {duration:.6g} s. Join it with its neighbors, or "
            "leave this clip out."
        )
    waveform = np.ascontiguousarray(resample(downmix(samples)[0], rate, sampling_rate), dtype=np.float32)  # (S,)
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
