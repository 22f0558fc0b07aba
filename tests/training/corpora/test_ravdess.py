"""RAVDESS rows say what the file names say."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio_emotion.training.affective_norms import norm_derived_dimensions
from audio_emotion.training.corpora import ravdess


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
