"""Video frames with their times in seconds since the start of the clip's audio."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

try:
    import av
    from av.stream import Disposition
except ImportError:
    av = None

MAX_SIDE_PIXELS = 640  # larger frames are scaled down when they are converted to pixels, to bound the memory
# A clip whose audio and video differ by more than both is a mismatch or a broken file.
MAX_DURATION_DIFFERENCE_SECONDS = 0.5
MAX_DURATION_DIFFERENCE_FRACTION = 0.1  # of the longer one


class VideoError(ValueError):
    """The video cannot be used."""


class NoVideoStreamError(VideoError):
    """The file has audio only."""


@dataclass
class VideoFrame:
    """One decoded frame."""

    time: float  # seconds since the start of the audio
    decoded: Any  # PyAV's frame; converting it to pixels takes longer than decoding it

    @cached_property
    def pixels(self) -> np.ndarray:
        """`(H, W, 3)` RGB, 0..255, upright; the longer side is at most `MAX_SIDE_PIXELS`."""
        scale = min(1.0, MAX_SIDE_PIXELS / max(self.decoded.width, self.decoded.height))
        width, height = (max(2, round(side * scale)) for side in (self.decoded.width, self.decoded.height))
        pixels = self.decoded.to_ndarray(format="rgb24", width=width, height=height)
        # Phones store rotated frames and the rotation that makes them upright, in degrees counterclockwise.
        return np.ascontiguousarray(np.rot90(pixels, round(self.decoded.rotation / 90) % 4))


@dataclass(frozen=True)
class Video:
    """A video file (mp4, flv, webm, avi, mkv or mov) that can be read several times.

    Attributes:
        source: path, or the file's bytes.
        has_clip_audio: whether the clip's audio was decoded from this file. If so, times count from the start of its
            audio stream, which may be before or after the first frame; else from the first frame.
    """

    source: str | bytes
    has_clip_audio: bool = False

    def frames(self) -> Iterator[VideoFrame]:
        """Frames in order of time, one in memory at a time.

        Raises:
            NoVideoStreamError: if the file has no video stream, or only cover art.
            VideoError: if the file is empty, cannot be decoded, or has a single frame.
        """
        if av is None:
            raise ImportError("Reading video needs PyAV: `pip install 'audio-emotion[video]'`.")
        count, last = 0, -math.inf
        try:
            if Path(self.source).stat().st_size == 0 if isinstance(self.source, str) else not self.source:
                raise VideoError("expected a video, got an empty file (0 bytes)")
            with av.open(io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source) as container:
                # Cover art is a video stream too.
                streams = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
                if not streams:
                    raise NoVideoStreamError("expected a video stream, got a file without one")
                audio = container.streams.audio[0] if self.has_clip_audio and container.streams.audio else None
                origin = None if audio is None or audio.start_time is None else audio.start_time * audio.time_base
                for decoded in container.decode(streams[0]):
                    if decoded.pts is None:
                        continue
                    seconds = float(decoded.pts * decoded.time_base)
                    origin = seconds if origin is None else origin
                    time = seconds - float(origin)
                    if time <= last:  # timestamps of a broken index repeat or decrease
                        continue
                    count, last = count + 1, time
                    yield VideoFrame(time, decoded)
        except VideoError:
            raise
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(
                f"expected a video that PyAV can decode, got {type(error).__name__}: {str(error).rstrip('.')}"
            ) from error
        if count < 2:
            raise VideoError(f"expected a video of at least 2 frames, got {count}")


def check_durations(audio_seconds: float, video_seconds: float) -> None:
    """Refuse a clip whose audio and video, from the start of the audio to the end of the last frame, do not match."""
    tolerance = max(
        MAX_DURATION_DIFFERENCE_SECONDS, MAX_DURATION_DIFFERENCE_FRACTION * max(audio_seconds, video_seconds)
    )
    if abs(audio_seconds - video_seconds) > tolerance:
        raise VideoError(
            f"expected audio and video of the same duration, got {audio_seconds:.2f} s and {video_seconds:.2f} s"
        )
