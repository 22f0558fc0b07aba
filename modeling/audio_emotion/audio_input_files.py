"""What holds a recording, a file, its bytes or a URL, to samples at some rate."""

# SPDX-License-Identifier: Apache-2.0

import http.client
import importlib
import io
import re
import urllib.request
from pathlib import Path

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
    """Whether libsndfile recognises the format; what it then finds broken is broken, and PyAV is not asked."""
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
