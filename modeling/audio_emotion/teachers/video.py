"""Pictures of a video with their times in seconds, counted from where its sound begins."""

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

LONGEST_SIDE = 640  # pixels; larger pictures are shrunk while they are decoded, so that memory stays flat
DISAGREEMENT = (0.5, 0.1)  # seconds, and share of the longer one: more than both is another take, or a broken file


class VideoError(ValueError):
    """A video of which the pictures cannot be used."""


class NoVideoFramesError(VideoError):
    """A file with sound alone."""


@dataclass
class VideoFrame:
    """One frame.

    Attributes:
        time: seconds since the sound began.
        frame: as PyAV decodes it; to make pixels of it takes longer than to decode it.
    """

    time: float
    frame: Any

    @cached_property
    def pixels(self) -> np.ndarray:
        """`(H, W, 3)` red, green, blue, 0..255, upright; the longer side is at most `LONGEST_SIDE`."""
        scale = min(1.0, LONGEST_SIDE / max(self.frame.width, self.frame.height))
        width, height = (max(2, round(side * scale)) for side in (self.frame.width, self.frame.height))
        pixels = self.frame.to_ndarray(format="rgb24", width=width, height=height)
        # Telephones lay the picture on its side and write how far to turn it, in degrees against the clock.
        return np.ascontiguousarray(np.rot90(pixels, round(self.frame.rotation / 90) % 4))


@dataclass(frozen=True)
class Video:
    """A video file, mp4, flv, webm, avi, mkv or mov; may be read several times.

    Attributes:
        source: path, or the file's bytes.
        sounds: whether the clip's audio was decoded from this very file: times then count from its sound track, which
            may begin before or after the pictures. Else they count from the first picture.
    """

    source: str | bytes
    sounds: bool = False

    def pictures(self) -> Iterator[VideoFrame]:
        """Frames in order of time, one in memory at a time.

        Raises:
            NoVideoFramesError: where the file has no track of pictures, or only a cover.
            VideoError: where it is empty, cannot be decoded, or has a single picture.
            ImportError: without PyAV.
        """
        if av is None:
            raise ImportError("Reading video needs PyAV: `pip install 'audio-emotion[video]'`.")
        count, last = 0, -math.inf
        try:
            with av.open(self._file()) as container:
                stream = _moving_pictures(container)
                sound = container.streams.audio[0] if self.sounds and container.streams.audio else None
                origin = None if sound is None or sound.start_time is None else sound.start_time * sound.time_base
                for frame in container.decode(stream):
                    if frame.pts is None:
                        continue
                    seconds = float(frame.pts * frame.time_base)
                    origin = seconds if origin is None else origin
                    time = seconds - float(origin)
                    if time <= last:  # a broken index repeats or turns back
                        continue
                    count, last = count + 1, time
                    yield VideoFrame(time, frame)
        except VideoError:
            raise
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(
                f"expected a video that PyAV can decode, got {type(error).__name__}: {str(error).rstrip('.')}"
            ) from error
        if count < 2:
            raise VideoError(f"expected moving pictures, got {count} frame{'s' * (count != 1)}")

    def _file(self) -> Any:
        if isinstance(self.source, bytes):
            if not self.source:
                raise VideoError("expected a video, got an empty file (0 bytes)")
            return io.BytesIO(self.source)
        if Path(self.source).is_file() and Path(self.source).stat().st_size == 0:
            raise VideoError("expected a video, got an empty file (0 bytes)")
        return self.source


def check_durations(sound: float, pictures: float) -> None:
    """Refuse a clip whose sound and pictures cannot be of the same take.

    Args:
        sound: seconds of it.
        pictures: seconds from the beginning of the sound to the end of the last frame.

    Raises:
        VideoError: where they differ by more than both values of `DISAGREEMENT`.
    """
    seconds, share = DISAGREEMENT
    if abs(sound - pictures) > max(seconds, share * max(sound, pictures)):
        raise VideoError(f"expected sound and pictures of one length, got {sound:.2f} s and {pictures:.2f} s")


def _moving_pictures(container: Any) -> Any:
    """The first track of pictures that is no cover."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise NoVideoFramesError("expected a track of pictures, got none in the file")
