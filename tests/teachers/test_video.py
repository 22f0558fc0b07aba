"""Pictures come with the time of the sound that belongs to them."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from audio_visual import babble, encode

from audio_emotion.audio_io import decode, resample
from audio_emotion.teachers.video import LONGEST_SIDE, NoVideoFramesError, Video, VideoError, check_durations

SECONDS = 2.0
SOUND, _ = babble(SECONDS)


def clock(time: float) -> np.ndarray:
    """A gray picture whose brightness says when it was taken: 100 a second, from 40."""
    return np.full((64, 96, 3), 40 + 100 * time, np.uint8)


def told(pixels: np.ndarray) -> float:
    return (float(pixels.mean()) - 40) / 100


def lag(samples: np.ndarray, rate: int) -> float:
    """Seconds by which a decoded sound is later than `SOUND`."""
    heard = resample(samples.mean(axis=1), rate, 16000)[: len(SOUND)]
    return float(np.correlate(heard, SOUND, "full").argmax() - len(SOUND) + 1) / 16000


@pytest.mark.parametrize("suffix", ["mp4", "flv", "webm", "avi", "mkv"])
def test_pictures_of_every_format_stay_with_the_sound_as_we_decode_it(suffix, tmp_path):
    content = encode(suffix, clock, SOUND, SECONDS)
    (tmp_path / f"clip.{suffix}").write_bytes(content)

    pictures = list(Video(content, sounds=True).pictures())
    again = list(Video(str(tmp_path / f"clip.{suffix}"), sounds=True).pictures())

    assert len(pictures) == 50
    assert [each.time for each in again] == [each.time for each in pictures]
    late = lag(*decode(content))  # mp3 in flv: 50 ms, by which the file also delays the pictures
    for each in pictures:
        assert told(each.pixels) + late == pytest.approx(each.time, abs=0.03)


def test_times_count_from_the_sound_of_the_same_file_and_else_from_the_first_picture():
    content = encode("mkv", clock, SOUND, 1.0, late=0.4)

    with_sound = next(Video(content, sounds=True).pictures())
    alone = next(Video(content).pictures())

    assert with_sound.time == pytest.approx(0.4, abs=0.03)
    assert told(with_sound.pixels) == pytest.approx(0.4, abs=0.03)
    assert alone.time == 0.0
    assert decode(content)[0].shape[0] / decode(content)[1] == pytest.approx(SECONDS, abs=0.05)


def test_large_pictures_are_shrunk_and_keep_their_shape():
    content = encode("mp4", lambda time: np.zeros((360, 1280, 3), np.uint8), None, 0.2)

    assert next(Video(content).pictures()).pixels.shape == (LONGEST_SIDE * 360 // 1280, LONGEST_SIDE, 3)


def test_a_film_from_a_telephone_stands_upright():
    def dark_above(time: float) -> np.ndarray:
        return np.concatenate([np.zeros((32, 96, 3), np.uint8), np.full((32, 96, 3), 255, np.uint8)])

    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    # x' = a x + c y + t, y' = b x + d y + u, in the order a b 0 c d 0 t u 1: a quarter turn with the clock
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
    content = encode("mp4", dark_above, None, 0.2)
    header = content.index(b"tkhd")
    place = content.index(upright, header)
    content = content[:place] + turned + content[place + len(turned) :]

    pixels = next(Video(content).pictures()).pixels

    assert pixels.shape == (96, 64, 3)
    assert pixels[:, 40:].mean() < 20  # what was above is on the right
    assert pixels[:, :24].mean() > 235


def test_sound_alone_is_no_broken_video():
    with pytest.raises(NoVideoFramesError, match="track of pictures"):
        list(Video(encode("mp4", None, SOUND, 0)).pictures())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes"),
        (b"no video at all" * 99, "InvalidData"),
        (encode("mp4", clock, SOUND, SECONDS)[:2000], "PyAV can decode"),
        (encode("mp4", clock, SOUND, 0.04), "got 1 frame$"),
    ],
    ids=["empty", "text", "torn", "one frame"],
)
def test_what_is_no_moving_picture_is_refused(content, message, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(content)

    for source in (content, str(tmp_path / "clip.mp4")):
        with pytest.raises(VideoError, match=message):
            list(Video(source).pictures())


@pytest.mark.parametrize(
    ("sound", "pictures", "fits"),
    [
        (3.0, 3.0, True),
        (3.0, 3.4, True),
        (11.9, 0.6, False),
        (0.6, 11.9, False),
        (20.0, 18.5, True),
        (3.0, 2.4, False),
    ],
)
def test_sound_and_pictures_last_as_long(sound, pictures, fits):
    if fits:
        check_durations(sound, pictures)
    else:
        with pytest.raises(VideoError, match=f"{sound:.2f} s and {pictures:.2f} s"):
            check_durations(sound, pictures)
