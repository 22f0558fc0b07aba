"""The speaker's face is detected, tracked, and told apart from other faces."""

from __future__ import annotations

import os
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from audio_visual import HEIGHT, RADIUS, WIDTH, Face, draw, encode, find_discs, moving_mouth, random_audio

from audio_emotion.teachers.faces import (
    CROP_MARGIN,
    CROP_PIXELS,
    DETECTION_INTERVAL_SECONDS,
    FaceTrack,
    HaarDetector,
    NoFaceError,
    crop_face,
    find_speaking_face,
    intersection_over_union,
    loudness,
    update_tracks,
)
from audio_emotion.teachers.video import Video, VideoError

SECONDS = 3.0
AUDIO, LOUDNESS = random_audio(SECONDS, seed=1)
OTHER_LOUDNESS = random_audio(SECONDS, seed=2)[1]  # of another recording
LEFT, RIGHT = (lambda time: (46.0, 64.0)), (lambda time: (146.0, 64.0))


def make_video(*faces: Face, seconds: float = SECONDS) -> Video:
    return Video(encode("mkv", lambda time: draw(faces, time), None, seconds))


def is_red(crops: np.ndarray) -> np.ndarray:
    """Whether the middle of each crop is red rather than green."""
    middle = slice(CROP_PIXELS // 2 - 20, CROP_PIXELS // 2)
    color = crops[:, middle, middle].mean(axis=(1, 2))  # (N, 3)
    return color[:, 0] > color[:, 1]


def test_a_single_face_is_the_speakers_whatever_its_mouth_does():
    face = find_speaking_face(make_video(Face(mouth=lambda time: 0.3)), AUDIO, find_discs)

    assert face.times == pytest.approx(np.arange(13) * DETECTION_INTERVAL_SECONDS, abs=0.03)
    assert face.crops.shape == (13, CROP_PIXELS, CROP_PIXELS, 3)
    assert (face.rate, face.num_faces) == (1.0, 1)
    assert is_red(face.crops).all()


@pytest.mark.parametrize("speaker", ["red", "green"])
@pytest.mark.parametrize("other_mouth", ["still", "moves with other audio"])
def test_of_two_faces_the_one_whose_mouth_moves_with_the_loudness_is_chosen(speaker, other_mouth):
    mouth = (lambda time: 0.5) if other_mouth == "still" else moving_mouth(OTHER_LOUDNESS)
    other = "green" if speaker == "red" else "red"
    video = make_video(Face(speaker, moving_mouth(LOUDNESS), LEFT), Face(other, mouth, RIGHT))

    face = find_speaking_face(video, AUDIO, find_discs)

    assert face.num_faces == 2
    assert (is_red(face.crops) == (speaker == "red")).all()


@pytest.mark.parametrize("mouth", [lambda time: 0.5, moving_mouth(LOUDNESS), moving_mouth(OTHER_LOUDNESS)])
def test_two_faces_are_refused_if_none_or_both_mouths_move_with_the_loudness(mouth):
    video = make_video(Face("red", mouth, LEFT), Face("green", mouth, RIGHT))

    with pytest.raises(NoFaceError, match="2 faces") as caught:
        find_speaking_face(video, AUDIO, find_discs)

    assert (caught.value.num_faces, caught.value.rate) == (2, 1.0)


def test_a_nodding_head_is_not_chosen_as_the_speaker():
    def nodding(time: float) -> tuple[float, float]:
        return 146.0, 64.0 + 4 * LOUDNESS(time) * np.sin(2 * np.pi * 6 * time)  # faster than the detections

    video = make_video(Face("red", moving_mouth(LOUDNESS), LEFT), Face("green", lambda time: 0.5, nodding))

    assert is_red(find_speaking_face(video, AUDIO, find_discs).crops).all()


def test_a_face_in_few_frames_is_not_a_candidate():
    passing = Face("green", moving_mouth(LOUDNESS), lambda time: (146.0, 64.0) if 1.0 < time < 1.5 else None)

    face = find_speaking_face(make_video(Face(place=LEFT, mouth=lambda time: 0.5), passing), AUDIO, find_discs)

    assert face.num_faces == 1
    assert is_red(face.crops).all()


def test_a_moving_face_stays_one_track():
    face = find_speaking_face(make_video(Face(place=lambda time: (35 + 40 * time, 64.0))), AUDIO, find_discs)

    assert (face.rate, face.num_faces) == (1.0, 1)


def test_the_speakers_face_must_be_in_enough_frames():
    video = make_video(Face(place=lambda time: (64.0, 64.0) if time < 1.2 else None))

    with pytest.raises(NoFaceError, match="40%") as caught:
        find_speaking_face(video, AUDIO, find_discs)

    assert caught.value.rate == pytest.approx(1.2 / SECONDS, abs=0.03)
    assert find_speaking_face(video, AUDIO, find_discs, min_rate=0.3).times.max() < 1.2


def test_a_video_without_faces_is_refused():
    with pytest.raises(NoFaceError, match="no face") as caught:
        find_speaking_face(make_video(), AUDIO, find_discs)

    assert (caught.value.num_faces, caught.value.rate) == (0, 0.0)


def test_frames_after_the_end_of_the_audio_are_ignored():
    audio = AUDIO[: int(2.7 * 16000)]

    face = find_speaking_face(make_video(Face()), audio, find_discs)

    assert face.times.max() <= 2.7
    assert face.rate == 1.0


def test_video_much_shorter_than_the_audio_is_refused():
    with pytest.raises(VideoError, match=r"3\.00 s and 1\.00 s"):
        find_speaking_face(make_video(Face(), seconds=1.0), AUDIO, find_discs)


def test_overlap_of_boxes_matches_the_formula():
    assert intersection_over_union(np.array([0, 0, 4, 2]), np.array([2, 0, 6, 4])) == pytest.approx(4 / (8 + 16 - 4))
    assert intersection_over_union(np.array([0, 0, 1, 1]), np.array([3, 3, 4, 4])) == 0.0
    assert intersection_over_union(np.array([0, 0, 2, 3]), np.array([0, 0, 2, 3])) == 1.0


def test_a_short_gap_continues_a_track_and_a_long_one_ends_it():
    box, pixels = np.array([[10.0, 10, 50, 50]]), np.zeros((80, 80, 3), np.uint8)
    tracks: list[FaceTrack] = []
    for time in (0.0, 0.24, 0.72, 2.0):
        update_tracks(tracks, time, pixels, box)

    assert [track.times for track in tracks] == [[0.0, 0.24, 0.72], [2.0]]


def test_each_face_continues_the_track_that_it_overlaps_most():
    pixels = np.zeros((80, 80, 3), np.uint8)
    tracks: list[FaceTrack] = []
    update_tracks(tracks, 0.0, pixels, np.array([[0.0, 0, 20, 20], [30, 0, 50, 20]]))
    update_tracks(tracks, 0.24, pixels, np.array([[28.0, 0, 48, 20], [4, 0, 24, 20]]))

    assert [track.boxes[-1][0] for track in tracks] == [4, 28]
    assert tracks[0].box_at(0.12)[0] == pytest.approx(2.0)


def test_a_crop_is_square_with_a_margin_and_repeats_the_edge():
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, :10] = 200  # the left edge
    box = np.array([0.0, 20, 40, 100])  # a square of 80 around (20, 60), with margins 96: from -28 on

    crop = crop_face(pixels, box)

    side = 80 * (1 + 2 * CROP_MARGIN)
    assert crop.shape == (CROP_PIXELS, CROP_PIXELS, 3)
    bright = (crop[CROP_PIXELS // 2, :, 0] > 100).sum()
    assert bright == pytest.approx((28 + 10) / side * CROP_PIXELS, abs=2)


def test_loudness_is_the_root_mean_square_around_each_time():
    waveform = np.concatenate([np.zeros(8000), np.tile([0.5, -0.5], 4000)])

    assert loudness(waveform, [0.2, 0.5, 0.8, 5.0]) == pytest.approx([0, 0.5 * np.sqrt(0.5), 0.5, 0])


def test_the_disc_detector_returns_the_bounding_box_of_a_disc():
    ((left, top, right, bottom),) = find_discs(draw([Face()], 0.0))

    assert [left, top, right, bottom] == pytest.approx([64 - RADIUS, 64 - RADIUS, 65 + RADIUS, 65 + RADIUS], abs=1)


def test_without_opencv_the_error_names_the_package_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)

    with pytest.raises(ImportError, match=re.escape("pip install 'audio-emotion[video]'")):
        HaarDetector()


@pytest.mark.parametrize(("name", "has_face"), [("single_face", True), ("no_face", False)])
def test_faces_are_detected_in_real_videos(name, has_face):
    pytest.importorskip("cv2", reason="needs the extra `video`")
    file = Path(os.environ.get("AUDIO_EMOTION_DATA", "")) / "faces" / f"{name}.mp4"
    if not file.is_file():
        pytest.skip("needs $AUDIO_EMOTION_DATA/faces")
    detect = HaarDetector()
    found = [len(detect(frame.pixels)) for frame in islice(Video(str(file)).frames(), 0, None, 15)]

    assert found == [int(has_face)] * len(found)
