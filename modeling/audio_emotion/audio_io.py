"""Read audio from a file, URL, bytes or array: decode, downmix, resample, and flag recording problems."""

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
LOUDEST = 2.0**31  # peak; no audio format exceeds it, and the power of a larger one would overflow float32
MAX_CHANNELS = 32  # the smaller axis of a 2-D array is taken for channels only below this
RATES = (1_000, 768_000)  # hertz; a rate outside was given in another unit
URL_TIMEOUT = 30.0  # seconds
UNKNOWN_SIZE = 0x7FFF0000  # bytes; programs that write to a pipe put at least this into the header
MISSING = 0.01  # fraction of the size in the header that may be missing: headers are often a few bytes wrong
HEADER_SIZES = r"(?i)\b(?:riff|form|data|ssnd|(?:riff|data) size)\s*: (\d+) \(should be (\d+)\)"  # in libsndfile's log
SCHEME = r"([A-Za-z][A-Za-z0-9+.-]*)://"  # RFC 3986
ARRAY_KEYS, RATE_KEYS = ("array", "raw", "waveform"), ("sampling_rate", "sample_rate")  # of a dict
ARRAY_EXAMPLE = '{"array": samples, "sampling_rate": rate in hertz}'

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
QUIET = 2e-2  # fraction of the power of the loudest frame, -17 dB
BRIDGED = 4  # quiet frames next to a loud one that are no pause: 0.2 s
PAUSES = 0.72  # fraction of pauses; at most 0.69 in RAVDESS, and at least 0.76 with 10 s of zeros before


@dataclass(frozen=True)
class AudioClip:
    """One clip, ready for a feature extractor.

    Args:
        waveform (`numpy.ndarray` of shape `(S,)`): mono float32 samples, within ±1 unless flagged.
        duration: of the source, in seconds.
        flags: any of `"silence"`, `"clipped"`, `"short"` (less than a second), `"out_of_range"` (outside ±1),
            `"canceled"` (the channels cancel in their mean: the loudest was taken), `"narrow_band"` (nothing above
            4 kHz, as on a telephone) and `"pauses"` (most of it is far below its loudest part).
        name: of the source, for messages.
        samples (`numpy.ndarray` of shape `(S', C)`): as decoded, before downmix and resampling.
        rate: of `samples`, in hertz.
        sampling_rate: of `waveform`, in hertz.
    """

    waveform: np.ndarray
    duration: float
    flags: tuple[str, ...]
    name: str
    samples: np.ndarray
    rate: float
    sampling_rate: int

    def flags_between(self, start: float, end: float) -> tuple[str, ...]:
        """The flags of the part from `start` to `end` seconds; `"narrow_band"` is that of the whole clip."""
        samples = self.samples[round(start * self.rate) : round(end * self.rate)]  # (S', C)
        waveform = self.waveform[round(start * self.sampling_rate) : round(end * self.sampling_rate)]  # (S,)
        return _find_flags(samples, self.rate, waveform, self.sampling_rate, "narrow_band" in self.flags)


def read_audio(source: Any, sampling_rate: int = 16000) -> AudioClip:
    """Read one clip, downmix it to mono and resample it.

    Channels are averaged; where they cancel each other, the loudest one is taken.

    Args:
        source: a path, an http(s) or file URL, the bytes of a file, a binary file object, `{"array", "sampling_rate"}`
            with a numpy array, list or torch tensor (`"raw"` or `"waveform"`, and `"sample_rate"`, mean the same), a
            row of `datasets` (`{"audio": ...}`, `{"path", "bytes"}`) or a torchcodec decoder. An array is `(S,)`,
            `(C, S)` or `(S, C)`: the smaller of two axes is the channels. Integer arrays are scaled to ±1 by their
            type; 64-bit ones, such as lists of integers, are taken for 16-bit audio if every sample fits, else for
            32-bit audio.
        sampling_rate: of the result, in hertz.

    Raises:
        ValueError: where the source is missing, not audio, cut short, without samples or with NaN or infinite ones,
            shorter than 0.25 s, of an impossible rate or number of channels, or an array without its rate.
    """
    samples, rate, name = _load(source)
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
    flags = _find_flags(samples, rate, waveform, sampling_rate, _is_narrow_band(waveform, sampling_rate))
    return AudioClip(waveform, duration, flags, name, samples, rate, sampling_rate)


def decode(source: bytes | str | Path, name: str | None = None) -> tuple[np.ndarray, int]:
    """Decode an audio file, or the audio track of a video.

    Args:
        source: the content of a file, or its path.
        name: used in messages; by default the path.

    Returns:
        samples `(S, C)` in float32, and their rate in hertz.

    Raises:
        ValueError: where the file is missing, empty, undecodable or cut short.
    """
    if isinstance(source, (str, Path)):
        name = name or str(source)
        source = _read_file(Path(source), name)
    name = name or _default_name(source)
    if not source:
        raise ValueError(f"{name}: expected an audio file, got an empty one (0 bytes).")
    try:
        return _decode_with_soundfile(source) if _is_known_to_soundfile(source) else _decode_with_av(source)
    except Exception as error:  # decoders raise anything on bytes that are not audio
        raise ValueError(
            f"{name}: expected audio that can be decoded (wav, flac, mp3 and ogg by soundfile; m4a, mp4 and webm by "
            f"PyAV), got {len(source)} bytes that cannot: {str(error).rstrip('.')}. Repair or convert the file, or "
            "leave it out."
        ) from error


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
    if soxr is None:
        raise ImportError(f"Resampling from {rate} to {sampling_rate} Hz needs soxr: `pip install soxr`.")
    return soxr.resample(samples, rate, sampling_rate)


def _load(source: Any) -> tuple[np.ndarray, float, str]:
    """Samples `(S, C)` in float32, their rate in hertz and the source's name."""
    if isinstance(source, Mapping):
        return _load_mapping(source)
    if isinstance(source, (str, Path)):
        if not str(source):
            raise ValueError("'': expected the path of an audio file, got an empty path.")
        if isinstance(source, str) and re.match(SCHEME, source):
            return *_decode_url(source), source
        return *decode(source), str(source)
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
        return *decode(_read_file_object(source, name), name), name
    if isinstance(source, (np.ndarray, np.number, list, tuple, float, int)) or _is_tensor(source):
        shape = f" of shape {tuple(source.shape)}" if isinstance(source, np.ndarray) or _is_tensor(source) else ""
        raise ValueError(f"bare array{shape}: expected its sampling rate beside it, got none. Pass {ARRAY_EXAMPLE}.")
    raise ValueError(
        f"{type(source).__name__} object: expected audio, got something else. Pass a path, a URL, bytes, a binary "
        "file, a row of datasets or a dict with an array and its rate."
    )


def _load_mapping(source: Mapping) -> tuple[np.ndarray, float, str]:
    """Load a dict: an array with its rate, a row, or a struct of path and bytes."""
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
        samples, rate, name = _load(audio)
        return samples, rate, str(source.get("id") or name)
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


def _load_bytes(content: bytes | bytearray | memoryview, path: Any) -> tuple[np.ndarray, float, str]:
    """Load the content of a file; its path, if known, is its name."""
    try:
        content = bytes(content)
    except ValueError as error:  # a released memoryview
        raise ValueError(f"bytes: expected the content of an audio file, got {_describe(error)}.") from error
    name = str(path or _default_name(content))
    return *decode(content, name), name


def _load_array(array: Any, rate: Any, name: str) -> tuple[np.ndarray, float, str]:
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
    return _scale_to_unit_range(samples, name), rate, name


def _scale_to_unit_range(samples: np.ndarray, name: str) -> np.ndarray:
    """Samples in float32; integers are divided by the full scale of their type."""
    kind, bits = samples.dtype.kind, 8 * samples.dtype.itemsize
    if kind == "f":
        with np.errstate(over="ignore"):  # an overflow is infinite, which `read_audio` refuses
            return samples.astype(np.float32)
    if kind == "u":
        middle = 2.0 ** (bits - 1)  # zero of unsigned audio
        return ((samples - middle) / middle).astype(np.float32)
    if kind == "i":
        if bits == 64:
            bits = 16 if samples.size == 0 or np.abs(samples).max() <= 2**15 else 32
        return (samples / 2.0 ** (bits - 1)).astype(np.float32)
    raise ValueError(f"{name}: expected samples that are floats or integers, got {samples.dtype}.")


def _is_tensor(source: Any) -> bool:
    """Whether this is a torch tensor; torch itself need not be imported."""
    return type(source).__module__.partition(".")[0] == "torch"


def _read_file(path: Path, name: str) -> bytes:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # reading a pipe or /dev/zero may never end
            raise OSError("it is a pipe or a device; pass its bytes")
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


def _decode_url(url: str) -> tuple[np.ndarray, int]:
    """Decode what an http(s) URL, or a file URL of this machine, points to."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    scheme = scheme.lower()
    if scheme == "file" and host in ("", "localhost"):
        return decode(Path(urllib.request.url2pathname(f"/{path}")), url)
    if scheme not in ("http", "https"):
        raise ValueError(
            f"{url}: expected a path, or a URL of http, https or a file of this machine, got {scheme}://{host}. Fetch "
            "the clip, and pass its path or its bytes."
        )
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "audio-emotion"})
        with urllib.request.urlopen(request, timeout=URL_TIMEOUT) as response:
            content = response.read()
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
        raise ValueError(f"{url}: expected an audio file, got {_describe(error)}.") from error
    return decode(content, url)


def _is_known_to_soundfile(content: bytes) -> bool:
    """Whether libsndfile recognizes the format; if so, PyAV is not tried on a file that it finds broken."""
    try:
        with soundfile.SoundFile(io.BytesIO(content)):
            return True
    except Exception:
        return False


def _decode_with_soundfile(content: bytes) -> tuple[np.ndarray, int]:
    """Decode wav, flac, mp3, ogg and the other formats of libsndfile."""
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        samples = file.read(dtype="float32", always_2d=True)  # (S, C)
        if len(samples) < file.frames:
            raise ValueError(f"it is cut short, {len(samples)} of {file.frames} samples")
        # libsndfile reads truncated wav, aiff and au files without an error, but logs the size in the header.
        for claimed, found in re.findall(HEADER_SIZES, file.extra_info):
            if int(found) < (1 - MISSING) * int(claimed) and int(claimed) < UNKNOWN_SIZE:
                raise ValueError(f"it is cut short, {found} of {claimed} bytes")
        return samples, file.samplerate


def _decode_with_av(content: bytes) -> tuple[np.ndarray, int]:
    """Decode the first audio track of m4a, mp4, webm and the other formats of FFmpeg."""
    try:
        av = importlib.import_module("av")  # by name: optional, and slow to import
    except ImportError as error:
        missing = "av" if soundfile else "soundfile"
        raise ImportError(f"{missing} is not installed (`pip install {missing}`)") from error
    with av.open(io.BytesIO(content)) as container:
        if not container.streams.audio:
            raise ValueError("it has no audio track")
        rate = container.streams.audio[0].rate
        to_floats = av.AudioResampler(format="fltp", rate=rate)
        frames = [part for frame in container.decode(audio=0) for part in to_floats.resample(frame)]
        frames += to_floats.resample(None)
    return np.concatenate([frame.to_ndarray() for frame in frames], axis=1).T, rate  # (S, C)


def _default_name(content: bytes) -> str:
    return f"audio of {len(content)} bytes"


def _describe(error: Exception) -> str:
    """Type and message of an error, without a full stop."""
    return f"{type(error).__name__}: {error}".rstrip(".: ")


def _find_flags(
    samples: np.ndarray, rate: float, waveform: np.ndarray, sampling_rate: float, is_narrow_band: bool
) -> tuple[str, ...]:
    """The flags of a clip or of a part of one, see [`AudioClip`].

    Args:
        samples: `(S', C)`, as decoded: downmix and resampling hide problems.
        rate: of the samples, in hertz.
        waveform: `(S,)`, the model's input.
        sampling_rate: of the waveform, in hertz.
        is_narrow_band: whether the whole clip is; a part, such as a vowel, is too short to decide.
    """
    level = np.abs(samples)  # (S', C)
    peak = level.max()
    at_peak = level >= peak * (1 - 1e-5)
    is_silent = peak < SILENCE
    flags = {
        "silence": is_silent,
        "clipped": peak >= FULL_SCALE and (at_peak[:-2] & at_peak[1:-1] & at_peak[2:]).any(),  # three in a row
        "short": len(samples) / rate < SHORT,
        "out_of_range": peak > 1.0,
        "canceled": downmix(samples)[1],
        "narrow_band": not is_silent and is_narrow_band,
        "pauses": not is_silent and _is_mostly_pauses(waveform, sampling_rate),
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
    length = round(FRAME * rate)
    frames = waveform[: len(waveform) // length * length].reshape(-1, length)  # (N, L)
    if len(frames) == 0:
        return False
    power = (frames**2).mean(axis=1)  # (N,)
    loud = power >= QUIET * power.max()  # (N,)
    speech = np.convolve(loud, np.ones(2 * BRIDGED + 1))[BRIDGED : BRIDGED + len(loud)] > 0.5  # (N,)
    return bool((~speech).mean() > PAUSES)
