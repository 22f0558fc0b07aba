"""Synthetic clips with audio and video: faces are colored discs with dark bars for eyes and mouth."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, RADIUS = 192, 128, 28
COLORS = {"red": (220, 40, 40), "green": (40, 200, 40)}
CODECS = {  # of video and audio, and the sampling rate of the audio encoder
    "mp4": ("libx264", "aac", 16000),
    "flv": ("flv", "libmp3lame", 22050),
    "webm": ("libvpx", "libopus", 48000),
    "avi": ("mpeg4", "pcm_s16le", 16000),
    "mkv": ("libx264", "flac", 16000),
}


@dataclass
class Face:
    """A disc.

    Attributes:
        color: one of `COLORS`.
        mouth: opening 0..1 as a function of seconds.
        place: center in pixels as a function of seconds; None while out of view.
    """

    color: str = "red"
    mouth: Callable[[float], float] = lambda time: 0.5
    place: Callable[[float], tuple[float, float] | None] = lambda time: (64.0, 64.0)


def random_audio(seconds: float, seed: int = 0, rate: int = 16000) -> tuple[np.ndarray, Callable[[float], float]]:
    """Noise `(S,)` of randomly varying loudness, like speech, and its loudness 0..1 as a function of seconds."""
    random = np.random.default_rng(seed)
    knots = np.arange(0, seconds + 0.4, 0.2)
    levels = random.permutation(np.linspace(0, 1, len(knots)))

    def loudness(time: float) -> float:
        return float(np.interp(time, knots, levels))

    times = np.arange(int(seconds * rate)) / rate
    return (0.4 * np.interp(times, knots, levels) * random.uniform(-1, 1, len(times))).astype(np.float32), loudness


def moving_mouth(loudness: Callable[[float], float]) -> Callable[[float], float]:
    """A mouth that opens and closes at 8 Hz with an amplitude proportional to the loudness."""
    return lambda time: 0.5 + 0.5 * loudness(time) * np.sin(2 * np.pi * 8 * time)


def draw(faces: Sequence[Face], time: float) -> np.ndarray:
    """A frame `(HEIGHT, WIDTH, 3)`."""
    pixels = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    down, across = np.mgrid[:HEIGHT, :WIDTH]
    for face in faces:
        center = face.place(time)
        if center is None:
            continue
        x, y = center
        pixels[(across - x) ** 2 + (down - y) ** 2 <= RADIUS**2] = COLORS[face.color]
        height = 1 + 9 * face.mouth(time)
        mouth = (np.abs(across - x) <= 10) & (np.abs(down - y - 0.6 * RADIUS) <= height / 2)
        eyes = (np.abs(across - x) <= 10) & (np.abs(down - y + 0.6 * RADIUS) <= 3)
        pixels[mouth | eyes] = [value // 3 for value in COLORS[face.color]]  # dark, of the same hue
    return pixels


def find_discs(pixels: np.ndarray) -> np.ndarray:
    """Detector of the discs: boxes `(N, 4)`."""
    red, green = pixels[..., 0].astype(int), pixels[..., 1].astype(int)
    boxes = []
    for inside in (red - green > 80, green - red > 80):
        if inside.sum() > 200:
            rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return np.array(boxes, float).reshape(-1, 4)


def encode(
    suffix: str,
    draw_frame: Callable[[float], np.ndarray] | None,
    audio: np.ndarray | None,
    seconds: float,
    rate: int = 25,
    delay: float = 0.0,
) -> bytes:
    """Content of a media file.

    Args:
        suffix: one of `CODECS`.
        draw_frame: pixels as a function of seconds; None for audio only.
        audio: `(S,)` at 16 kHz; None for video only.
        seconds: of video.
        rate: frames per second.
        delay: seconds from the start of the audio to the first frame, whose time is then `delay`.
    """
    video_codec, audio_codec, audio_rate = CODECS[suffix]
    file = io.BytesIO()
    with av.open(file, "w", format="matroska" if suffix == "mkv" else suffix) as container:
        streams = {}
        if draw_frame is not None:
            streams["video"] = container.add_stream(video_codec, rate=rate)
            first = draw_frame(delay)
            streams["video"].width, streams["video"].height = first.shape[1], first.shape[0]
            streams["video"].pix_fmt = "yuv420p"
            streams["video"].bit_rate = 2_000_000
        if audio is not None:
            streams["audio"] = container.add_stream(audio_codec, rate=audio_rate)
            streams["audio"].layout = "mono"
        packets = []
        if draw_frame is not None:
            for number in range(round(seconds * rate)):
                frame = av.VideoFrame.from_ndarray(draw_frame(delay + number / rate), format="rgb24")
                frame.pts = number + round(delay * rate)
                packets += streams["video"].encode(frame)
            packets += streams["video"].encode(None)
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(audio[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, 0
            encoder = streams["audio"].codec_context
            to_encoder = av.AudioResampler(
                format=encoder.format.name, layout="mono", rate=audio_rate, frame_size=encoder.frame_size or 1024
            )
            for part in [*to_encoder.resample(frame), *to_encoder.resample(None)]:
                packets += streams["audio"].encode(part)
            packets += streams["audio"].encode(None)
        for packet in sorted(packets, key=lambda each: float((each.dts or 0) * each.time_base)):
            container.mux(packet)
    return file.getvalue()


def write_clip(path: Path, faces: Sequence[Face], audio: np.ndarray) -> None:
    """Write a clip of one or more faces in the format of the suffix of `path`."""
    path.write_bytes(encode(path.suffix[1:], lambda time: draw(faces, time), audio, len(audio) / 16000))
