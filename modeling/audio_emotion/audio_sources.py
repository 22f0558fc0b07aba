"""Open any source of audio: a path, a URL, bytes, a file object, an array, a row of `datasets` or a decoder."""

# SPDX-License-Identifier: Apache-2.0

import http.client
import queue
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .audio_decoding import (
    CHUNK,
    MAX_BYTES,
    MAX_CHANNELS,
    Chunk,
    Recording,
    check_duration,
    check_format,
    default_name,
    describe_error,
    open_recording,
)
from .audio_flags import FRAME

URL_TIMEOUT = 30.0  # seconds without any data
URL_DURATION = 600.0  # seconds for a whole download
SCHEME = r"([A-Za-z][A-Za-z0-9+.-]*)://"  # RFC 3986
ARRAY_KEYS, RATE_KEYS = ("array", "raw", "waveform"), ("sampling_rate", "sample_rate")  # of a dict
ARRAY_EXAMPLE = '{"array": samples, "sampling_rate": rate in hertz}'
AUDIO_SUFFIXES = {  # by which files are found in a folder
    *(".wav", ".wave", ".rf64", ".w64", ".flac", ".mp3", ".mp2", ".ogg", ".oga", ".opus", ".spx", ".aif", ".aiff"),
    *(".aifc", ".au", ".snd", ".caf", ".nist", ".sph", ".aac", ".amr", ".awb", ".m4a", ".m4b", ".mka", ".wma"),
    *(".mp4", ".m4v", ".mov", ".3gp", ".webm", ".mkv", ".avi", ".flv", ".wmv", ".asf", ".ts", ".mts", ".m2ts"),
}


def open_source(source: Any) -> Recording:
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
            raise ValueError(f"decoder: expected audio that can be decoded, got {describe_error(error)}.") from error
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
        recording = open_source(audio)
        return replace(recording, name=str(source.get("id") or recording.name))
    if (content := source.get("bytes")) is not None:
        if not isinstance(content, (bytes, bytearray, memoryview)):
            raise ValueError(f'dict: expected bytes under "bytes", got {type(content).__name__}.')
        return _load_bytes(content, source.get("path"))
    if (path := source.get("path")) is not None:
        if not isinstance(path, (str, Path)):
            raise ValueError(f'dict: expected a string under "path", got {type(path).__name__}.')
        return open_source(path)
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
        raise ValueError(f"bytes: expected the content of an audio file, got {describe_error(error)}.") from error
    return open_recording(content, public_name(path or default_name(content)))


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
            f"{name}: expected an array of samples and a rate in hertz, got {describe_error(error)}."
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
    check_format(name, rate, samples.shape[1])
    check_duration(name, len(samples) / rate, max_duration)
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


def _read_file_object(file: Any, name: str) -> bytes:
    try:
        content = file.read()
    except Exception as error:  # closed, opened for writing, or not a file
        raise ValueError(f"{name}: expected a file that can be read, got {describe_error(error)}.") from error
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


def public_name(source: str | Path) -> str:
    """A path as it is; a URL without what may be secret: user, password, query and fragment."""
    scheme, separator, rest = str(source).partition("://")
    if not separator or not re.match(SCHEME, str(source)):
        return str(source)
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
