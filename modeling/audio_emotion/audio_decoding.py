"""Decode audio files chunk by chunk with soundfile or PyAV, within limits of size, duration and format."""

# SPDX-License-Identifier: Apache-2.0

import importlib
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .audio_containers import split_joined
from .audio_flags import FRAME
from .audio_frames import MISSING

try:  # optional: a checkpoint loads without it, and reading audio reports that it is missing
    import soundfile
except ImportError:
    soundfile = None

# Limits of what is read.
MAX_DURATION = 4 * 3600.0  # seconds; by default, longer clips are refused
MAX_BYTES = 2**31  # of a file or a download, 2 GiB
MAX_CHANNELS = 32  # the smaller axis of a 2-D array is taken for channels only below this
RATES = (1_000, 768_000)  # hertz; a rate outside was given in another unit
CHUNK = 2**20  # samples of all channels that are decoded at a time
GAP = 0.1  # seconds; a longer gap in the timestamps of a stream becomes silence
DISCONTINUITY = 10.0  # seconds; a longer jump in MPEG-TS is a new clock, and not a gap

# What is decoded. Containers are recognized by their first bytes, and not by FFmpeg, which also opens playlists.
SOUNDFILE_FORMATS = {"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "FLAC", "OGG", "MP3"}
AV_CODECS = (
    "aac,aac_latm,ac3,adpcm_g722,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,adpcm_swf,alac,amrnb,amrwb,eac3,flac,g722,g726,"
    "g726le,gsm,gsm_ms,libopus,libspeex,libvorbis,mp1,mp1float,mp2,mp2float,mp3,mp3float,opus,pcm_alaw,pcm_f32be,"
    "pcm_f32le,pcm_f64be,pcm_f64le,pcm_mulaw,pcm_s16be,pcm_s16le,pcm_s24be,pcm_s24le,pcm_s32be,pcm_s32le,pcm_s8,"
    "pcm_u8,shorten,speex,vorbis,wmapro,wmav1,wmav2,wmavoice"
)
ESTIMATED = {"aac", "amr", "mp3", "mpegts", "ogg"}  # FFmpeg estimates their duration from the size
Chunk = tuple[np.ndarray, float]  # samples (S, C) in float32, and their rate in hertz


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


def open_recording(source: bytes | str | Path, name: str | None = None) -> Recording:
    """Open a file or its content: recognize its container, find where it ends, and what is joined to it."""
    if isinstance(source, (str, Path)):
        name = name or str(source)
        source = _read_file(Path(source), name)
    name = name or default_name(source)
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
        check_format(name, file.samplerate, file.channels)
        check_duration(name, stated / file.samplerate, max_duration)
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
        check_duration(name, stated, max_duration)
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
                        check_duration(name, decoded + gap, max_duration)
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


def default_name(content: bytes) -> str:
    """Name in messages of content without a path."""
    return f"audio of {len(content)} bytes"


def describe_error(error: Exception) -> str:
    """Type and message of an error, without a full stop."""
    return f"{type(error).__name__}: {error}".rstrip(".: ")


def check_format(name: str, rate: float, channels: int) -> None:
    """Refuse a rate in hertz or a number of channels that no recording of a voice has."""
    if not RATES[0] <= rate <= RATES[1]:
        raise UnreadableClipError(
            f"{name}: expected a sampling rate in hertz ({RATES[0]} to {RATES[1]}), got {rate:g}."
        )
    if channels >= MAX_CHANNELS:
        raise UnreadableClipError(
            f"{name}: expected fewer than {MAX_CHANNELS} channels, got {channels}. Pass that of the voice."
        )


def check_duration(name: str, duration: float, max_duration: float) -> None:
    """Refuse a clip of more than `max_duration` seconds."""
    if duration > max_duration:
        raise UnreadableClipError(
            f"{name}: expected at most {max_duration:g} s of audio, got more. Cut it into shorter clips, or allow "
            "more with `max_duration`."
        )


def _read_file(path: Path, name: str) -> bytes:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # reading a pipe or /dev/zero may never end
            raise OSError("it is a pipe or a device; pass its bytes")
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise OSError(f"more than {MAX_BYTES} bytes; extract the audio, or cut it into shorter clips")
        return path.read_bytes()
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a null byte in the path
        raise ValueError(f"{name}: expected an audio file, got {describe_error(error)}.") from error
