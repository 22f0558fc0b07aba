"""Frame times count from the start of the clip's audio."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from audio_visual import encode, random_audio

from audio_emotion.audio_io import decode
from audio_emotion.audio_resampling import resample
from audio_emotion.teachers.video import MAX_SIDE_PIXELS, NoVideoStreamError, Video, VideoError, check_durations

SECONDS = 2.0
AUDIO, _ = random_audio(SECONDS)


def draw_time(time: float) -> np.ndarray:
    """A gray frame whose brightness encodes its time: 40 plus 100 per second."""
    return np.full((64, 96, 3), 40 + 100 * time, np.uint8)


def decode_time(pixels: np.ndarray) -> float:
    return (float(pixels.mean()) - 40) / 100


def delay(samples: np.ndarray, rate: int) -> float:
    """Seconds by which decoded audio is later than `AUDIO`."""
    decoded = resample(samples.mean(axis=1), rate, 16000)[: len(AUDIO)]
    return float(np.correlate(decoded, AUDIO, "full").argmax() - len(AUDIO) + 1) / 16000


@pytest.mark.parametrize("suffix", ["mp4", "flv", "webm", "avi", "mkv"])
def test_frame_times_match_the_decoded_audio_in_every_format(suffix, tmp_path):
    content = encode(suffix, draw_time, AUDIO, SECONDS)
    (tmp_path / f"clip.{suffix}").write_bytes(content)

    frames = list(Video(content, has_clip_audio=True).frames())
    from_path = list(Video(str(tmp_path / f"clip.{suffix}"), has_clip_audio=True).frames())

    assert len(frames) == 50
    assert [frame.time for frame in from_path] == [frame.time for frame in frames]
    seconds = delay(*decode(content))  # mp3 in flv: 50 ms, by which the file also delays the frames
    for frame in frames:
        assert decode_time(frame.pixels) + seconds == pytest.approx(frame.time, abs=0.03)


def test_times_count_from_the_audio_of_the_same_file_or_else_from_the_first_frame():
    content = encode("mkv", draw_time, AUDIO, 1.0, delay=0.4)

    with_audio = next(Video(content, has_clip_audio=True).frames())
    video_only = next(Video(content).frames())

    assert with_audio.time == pytest.approx(0.4, abs=0.03)
    assert decode_time(with_audio.pixels) == pytest.approx(0.4, abs=0.03)
    assert video_only.time == 0.0
    assert decode(content)[0].shape[0] / decode(content)[1] == pytest.approx(SECONDS, abs=0.05)


def test_large_frames_are_scaled_down_and_keep_their_aspect_ratio():
    content = encode("mp4", lambda time: np.zeros((360, 1280, 3), np.uint8), None, 0.2)

    assert next(Video(content).frames()).pixels.shape == (MAX_SIDE_PIXELS * 360 // 1280, MAX_SIDE_PIXELS, 3)


def test_rotated_video_of_a_phone_is_turned_upright():
    def dark_top(time: float) -> np.ndarray:
        return np.concatenate([np.zeros((32, 96, 3), np.uint8), np.full((32, 96, 3), 255, np.uint8)])

    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    # x' = a x + c y + t, y' = b x + d y + u, in the order a b 0 c d 0 t u 1: a quarter turn clockwise
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
    content = encode("mp4", dark_top, None, 0.2)
    header = content.index(b"tkhd")
    place = content.index(upright, header)
    content = content[:place] + turned + content[place + len(turned) :]

    pixels = next(Video(content).frames()).pixels

    assert pixels.shape == (96, 64, 3)
    assert pixels[:, 40:].mean() < 20  # the top is on the right
    assert pixels[:, :24].mean() > 235


def test_audio_without_video_stream_has_its_own_error():
    with pytest.raises(NoVideoStreamError, match="video stream"):
        list(Video(encode("mp4", None, AUDIO, 0)).frames())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes"),
        (b"no video at all" * 99, "InvalidData"),
        (encode("mp4", draw_time, AUDIO, SECONDS)[:2000], "PyAV can decode"),
        (encode("mp4", draw_time, AUDIO, 0.04), "2 frames, got 1$"),
    ],
    ids=["empty", "text", "truncated", "one frame"],
)
def test_unusable_video_is_refused(content, message, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(content)

    for source in (content, str(tmp_path / "clip.mp4")):
        with pytest.raises(VideoError, match=message):
            list(Video(source).frames())


@pytest.mark.parametrize(
    ("audio", "video", "match"),
    [
        (3.0, 3.0, True),
        (3.0, 3.4, True),
        (11.9, 0.6, False),
        (0.6, 11.9, False),
        (20.0, 18.5, True),
        (3.0, 2.4, False),
    ],
)
def test_audio_and_video_of_different_duration_are_refused(audio, video, match):
    if match:
        check_durations(audio, video)
    else:
        with pytest.raises(VideoError, match=f"{audio:.2f} s and {video:.2f} s"):
            check_durations(audio, video)
