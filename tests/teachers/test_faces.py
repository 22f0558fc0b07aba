"""The speaking face is found, followed, and told from a silent one."""

from __future__ import annotations

import os
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from audio_visual import HEIGHT, RADIUS, WIDTH, Face, babble, draw, encode, find_discs, talking

from audio_emotion.teachers.faces import (
    CROP,
    EVERY,
    MARGIN,
    HaarDetector,
    NoFaceError,
    Track,
    crop,
    follow,
    loudness,
    overlap,
    speaking_face,
)
from audio_emotion.teachers.video import Video, VideoError

SECONDS = 3.0
SOUND, LOUDNESS = babble(SECONDS, seed=1)
OTHERS = babble(SECONDS, seed=2)[1]  # the loudness of somebody who is not heard
LEFT, RIGHT = (lambda time: (46.0, 64.0)), (lambda time: (146.0, 64.0))


def film(*faces: Face, seconds: float = SECONDS) -> Video:
    return Video(encode("mkv", lambda time: draw(faces, time), None, seconds))


def is_red(crops: np.ndarray) -> np.ndarray:
    """Of each crop, whether its middle is red rather than green."""
    middle = crops[:, CROP // 2 - 20 : CROP // 2, CROP // 2 - 20 : CROP // 2].mean(axis=(1, 2))  # (N, 3)
    return middle[:, 0] > middle[:, 1]


def test_one_face_is_the_speakers_in_every_picture_whatever_its_mouth_does():
    face = speaking_face(film(Face(mouth=lambda time: 0.3)), SOUND, find_discs)

    assert face.times == pytest.approx(np.arange(13) * EVERY, abs=0.03)
    assert face.crops.shape == (13, CROP, CROP, 3)
    assert (face.rate, face.faces) == (1.0, 1)
    assert is_red(face.crops).all()


@pytest.mark.parametrize("speaker", ["red", "green"])
@pytest.mark.parametrize("silent", ["still", "talks of something else"])
def test_of_two_faces_the_one_whose_mouth_moves_with_the_loudness_speaks(speaker, silent):
    mouth = (lambda time: 0.5) if silent == "still" else talking(OTHERS)
    other = "green" if speaker == "red" else "red"
    video = film(Face(speaker, talking(LOUDNESS), LEFT), Face(other, mouth, RIGHT))

    face = speaking_face(video, SOUND, find_discs)

    assert face.faces == 2
    assert (is_red(face.crops) == (speaker == "red")).all()


@pytest.mark.parametrize("mouths", [(lambda time: 0.5,) * 2, (talking(LOUDNESS),) * 2, (talking(OTHERS),) * 2])
def test_two_faces_of_which_none_alone_moves_with_the_sound_are_nobody(mouths):
    video = film(Face("red", mouths[0], LEFT), Face("green", mouths[1], RIGHT))

    with pytest.raises(NoFaceError, match="2 faces") as caught:
        speaking_face(video, SOUND, find_discs)

    assert (caught.value.faces, caught.value.rate) == (2, 1.0)


def test_a_head_that_nods_with_the_sound_does_not_speak():
    def nodding(time: float) -> tuple[float, float]:
        return 146.0, 64.0 + 4 * LOUDNESS(time) * np.sin(2 * np.pi * 6 * time)  # too quick for the boxes

    video = film(Face("red", talking(LOUDNESS), LEFT), Face("green", lambda time: 0.5, nodding))

    assert is_red(speaking_face(video, SOUND, find_discs).crops).all()


def test_a_passer_by_is_not_asked_whether_he_speaks():
    passing = Face("green", talking(LOUDNESS), lambda time: (146.0, 64.0) if 1.0 < time < 1.5 else None)

    face = speaking_face(film(Face(place=LEFT, mouth=lambda time: 0.5), passing), SOUND, find_discs)

    assert face.faces == 1
    assert is_red(face.crops).all()


def test_a_walking_face_stays_one():
    face = speaking_face(film(Face(place=lambda time: (35 + 40 * time, 64.0))), SOUND, find_discs)

    assert (face.rate, face.faces) == (1.0, 1)


def test_a_face_in_too_few_pictures_is_nobody_and_the_share_is_told():
    video = film(Face(place=lambda time: (64.0, 64.0) if time < 1.2 else None))

    with pytest.raises(NoFaceError, match="40%") as caught:
        speaking_face(video, SOUND, find_discs)

    assert caught.value.rate == pytest.approx(1.2 / SECONDS, abs=0.03)
    assert speaking_face(video, SOUND, find_discs, least_rate=0.3).times.max() < 1.2


def test_without_a_face_there_is_nobody():
    with pytest.raises(NoFaceError, match="no face") as caught:
        speaking_face(film(), SOUND, find_discs)

    assert (caught.value.faces, caught.value.rate) == (0, 0.0)


def test_pictures_after_the_end_of_the_sound_do_not_count():
    sound = SOUND[: int(2.7 * 16000)]

    face = speaking_face(film(Face()), sound, find_discs)

    assert face.times.max() <= 2.7
    assert face.rate == 1.0


def test_pictures_much_shorter_than_the_sound_are_refused():
    with pytest.raises(VideoError, match=r"3\.00 s and 1\.00 s"):
        speaking_face(film(Face(), seconds=1.0), SOUND, find_discs)


def test_overlap_is_intersection_over_union():
    assert overlap(np.array([0, 0, 4, 2]), np.array([2, 0, 6, 4])) == pytest.approx(4 / (8 + 16 - 4))
    assert overlap(np.array([0, 0, 1, 1]), np.array([3, 3, 4, 4])) == 0.0
    assert overlap(np.array([0, 0, 2, 3]), np.array([0, 0, 2, 3])) == 1.0


def test_a_face_lost_for_a_moment_is_the_same_and_for_long_another():
    box, pixels = np.array([[10.0, 10, 50, 50]]), np.zeros((80, 80, 3), np.uint8)
    tracks: list[Track] = []
    for time in (0.0, 0.24, 0.72, 2.0):
        follow(tracks, time, pixels, box)

    assert [track.times for track in tracks] == [[0.0, 0.24, 0.72], [2.0]]


def test_each_face_continues_the_track_that_it_overlaps_most():
    pixels = np.zeros((80, 80, 3), np.uint8)
    tracks: list[Track] = []
    follow(tracks, 0.0, pixels, np.array([[0.0, 0, 20, 20], [30, 0, 50, 20]]))
    follow(tracks, 0.24, pixels, np.array([[28.0, 0, 48, 20], [4, 0, 24, 20]]))

    assert [track.boxes[-1][0] for track in tracks] == [4, 28]
    assert tracks[0].box(0.12)[0] == pytest.approx(2.0)


def test_a_crop_is_square_with_a_margin_and_repeats_the_edge():
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, :10] = 200  # the left edge
    box = np.array([0.0, 20, 40, 100])  # a square of 80 around (20, 60), with margins 96: from -28 on

    cut = crop(pixels, box)

    side = 80 * (1 + 2 * MARGIN)
    assert cut.shape == (CROP, CROP, 3)
    bright = (cut[CROP // 2, :, 0] > 100).sum()
    assert bright == pytest.approx((28 + 10) / side * CROP, abs=2)


def test_loudness_is_the_root_mean_square_around_each_time():
    waveform = np.concatenate([np.zeros(8000), np.tile([0.5, -0.5], 4000)])

    assert loudness(waveform, [0.2, 0.5, 0.8, 5.0], 16000) == pytest.approx([0, 0.5 * np.sqrt(0.5), 0.5, 0])


def test_a_detector_box_is_the_disc_that_was_drawn():
    ((left, top, right, bottom),) = find_discs(draw([Face()], 0.0))

    assert [left, top, right, bottom] == pytest.approx([64 - RADIUS, 64 - RADIUS, 65 + RADIUS, 65 + RADIUS], abs=1)


def test_without_opencv_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)

    with pytest.raises(ImportError, match=re.escape("pip install 'audio-emotion[video]'")):
        HaarDetector()


@pytest.mark.parametrize(("name", "has_face"), [("single_face", True), ("no_face", False)])
def test_real_faces_are_found(name, has_face):
    pytest.importorskip("cv2", reason="needs the extra `video`")
    file = Path(os.environ.get("AUDIO_EMOTION_DATA", "")) / "faces" / f"{name}.mp4"
    if not file.is_file():
        pytest.skip("needs $AUDIO_EMOTION_DATA/faces")
    detect = HaarDetector()
    found = [len(detect(picture.pixels)) for picture in islice(Video(str(file)).pictures(), 0, None, 15)]

    assert found == [int(has_face)] * len(found)
