"""RAVDESS rows say what the file names say."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio_emotion.data.affective_norms import norm_derived_dimensions
from audio_emotion.data.corpora import ravdess


@pytest.fixture
def corpus(tmp_path):
    """Two actors in the published layout: three spoken clips, a song, a spoken video's sound, and a hidden file."""
    names = [
        "Actor_02/03-01-06-01-02-01-02.flac",
        "Actor_01/03-01-05-02-01-01-01.wav",
        "Actor_01/03-01-01-01-01-02-01.wav",
        "Actor_01/03-02-05-01-01-01-01.wav",
        "Actor_01/01-01-05-01-01-01-01.wav",
    ]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.zeros(160, dtype=np.float32), 16_000)
    (tmp_path / "Actor_01" / "._03-01-05-02-01-01-01.wav").write_bytes(b"resource fork")
    (tmp_path / "Actor_01" / "notes.txt").write_text("not audio")
    return tmp_path


def test_only_spoken_audio_is_read_in_order_of_names(corpus):
    assert [row["id"] for row in ravdess.rows(corpus)] == [
        "ravdess/03-01-01-01-01-02-01",
        "ravdess/03-01-05-02-01-01-01",
        "ravdess/03-01-06-01-02-01-02",
    ]


def test_name_gives_emotion_speaker_gender_and_dimensions(corpus):
    row = list(ravdess.rows(corpus))[1]
    activation, valence, dominance = norm_derived_dimensions("angry", "strong")

    assert row == {
        "id": "ravdess/03-01-05-02-01-01-01",
        "audio": {"bytes": None, "path": str(corpus / "Actor_01" / "03-01-05-02-01-01-01.wav")},
        "speaker": "ravdess/01",
        "gender": "male",
        "emotion": "angry",
        "activation": activation,
        "valence": valence,
        "dominance": dominance,
    }


def test_even_actors_are_women(corpus):
    assert {row["speaker"]: row["gender"] for row in ravdess.rows(corpus)} == {
        "ravdess/01": "male",
        "ravdess/02": "female",
    }


def test_song_is_read_on_request(corpus):
    assert [row["id"] for row in ravdess.rows(corpus, channel="song")] == ["ravdess/03-02-05-01-01-01-01"]
    assert len(list(ravdess.rows(corpus, channel="both"))) == 4


def test_unknown_channel_is_an_error_that_lists_the_known(corpus):
    with pytest.raises(ValueError, match=r"'speech', 'song', 'both'.*'opera'"):
        ravdess.rows(corpus, channel="opera")


def test_video_of_the_same_take_is_paired_and_the_one_with_sound_preferred(corpus):
    for name in ("02-01-05-02-01-01-01", "01-01-05-02-01-01-01", "02-01-01-01-01-02-01"):
        (corpus / "Actor_01" / f"{name}.mp4").touch()

    videos = {row["id"].removeprefix("ravdess/"): row["video"] for row in ravdess.rows(corpus, video=True)}

    assert videos == {
        "03-01-01-01-01-02-01": {"bytes": None, "path": str(corpus / "Actor_01" / "02-01-01-01-01-02-01.mp4")},
        "03-01-05-02-01-01-01": {"bytes": None, "path": str(corpus / "Actor_01" / "01-01-05-02-01-01-01.mp4")},
        "03-01-06-01-02-01-02": None,
    }


def test_missing_video_is_an_error(corpus):
    with pytest.raises(FileNotFoundError, match="Video_Speech"):
        ravdess.rows(corpus, video=True)


def test_action_units_pair_with_the_take_whatever_its_modality(tmp_path):
    file = tmp_path / "action_units.csv"
    file.write_text("clip,AU01_r,AU45_c\n01-01-05-02-01-01-01,0.071939,0.346939\n")

    units = ravdess.action_units(file)

    assert units[ravdess.take_of("ravdess/03-01-05-02-01-01-01")] == {"AU01_r": 0.071939, "AU45_c": 0.346939}


def test_action_units_of_one_take_twice_are_an_error(tmp_path):
    file = tmp_path / "action_units.csv"
    file.write_text("clip,AU01_r\n01-01-05-02-01-01-01,0.1\n02-01-05-02-01-01-01,0.1\n")

    with pytest.raises(ValueError, match="02-01-05-02-01-01-01"):
        ravdess.action_units(file)


@pytest.mark.skipif(
    not (Path(os.environ.get("AUDIO_EMOTION_DATA", "/nowhere")) / "ravdess_faces").is_dir(),
    reason="needs AUDIO_EMOTION_DATA with ravdess_faces/ in it",
)
def test_every_real_take_of_twenty_actors_has_its_35_action_units():
    units = ravdess.action_units()

    assert {take.split("-")[-1] for take in units} == {f"{actor:02d}" for actor in range(1, 21)}
    assert len(units) == 1200
    assert {len(values) for values in units.values()} == {35}


def test_every_emotion_has_norms_at_both_intensities():
    for emotion in ravdess.INFO.emotions:
        for intensity in ravdess.INTENSITIES:
            assert all(0.0 <= value <= 1.0 for value in norm_derived_dimensions(emotion, intensity))


def test_missing_folder_is_named_before_the_first_row(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent.*AUDIO_EMOTION_DATA"):
        ravdess.rows(tmp_path / "absent")


def test_folder_without_clips_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="got none"):
        ravdess.rows(tmp_path)


def test_foreign_name_is_an_error_that_names_the_file(corpus):
    (corpus / "Actor_01" / "1001_DFA_ANG_XX.wav").touch()

    with pytest.raises(ValueError, match="1001_DFA_ANG_XX"):
        ravdess.rows(corpus)


def test_clip_in_two_formats_is_an_error(corpus):
    (corpus / "Actor_01" / "03-01-05-02-01-01-01.flac").touch()

    with pytest.raises(ValueError, match="once"):
        ravdess.rows(corpus)


@pytest.mark.skipif(
    not (Path(os.environ.get("AUDIO_EMOTION_DATA", "/nowhere")) / "ravdess").is_dir(),
    reason="needs RAVDESS: set AUDIO_EMOTION_DATA to a folder with ravdess/ in it",
)
def test_every_actor_of_the_real_corpus_speaks_sixty_clips():
    found = list(ravdess.rows())
    emotions = Counter(row["emotion"] for row in found if row["speaker"] == "ravdess/01")

    assert set(Counter(row["speaker"] for row in found).values()) == {60}
    assert emotions == {"neutral": 4} | dict.fromkeys(ravdess.INFO.emotions[1:], 8)
    assert len({row["id"] for row in found}) == len(found)
