"""EmoTale rows say what file names and listeners say."""

import os
from pathlib import Path

import numpy as np
import pytest

from audio_emotion.data.corpora import emotale
from audio_emotion.data.registry import load_protocol

REAL = Path(os.environ.get("AUDIO_EMOTION_DATA", "/nowhere")) / "emotale"
HEADER = "file,a1_A,a1_V,a1_D,a1_cat,a2_A,a2_V,a2_D,a2_cat,a3_A,a3_V,a3_D,a3_cat,gt_emotion\n"


@pytest.fixture
def corpus(tmp_path):
    """Two clips, rated by three listeners."""
    lines = ["DK_001_A_1.wav,4,1.5,5,A,4,2.5,5,A,5,1,5,A,A", "EN_005_B_2.wav,1,3,2,B,1,3,2,N,1,3,2,B,B"]
    (tmp_path / "annotations.csv").write_text(HEADER + "\n".join(lines) + "\n")
    (tmp_path / "speaker_info.csv").write_text("speaker,gender,age\n001,F,22\n005,M,24\n")
    (tmp_path / "DK_001_A_1.ogg").touch()
    (tmp_path / "EN_005_B_2.wav").touch()
    return tmp_path


def test_dimensions_are_the_means_of_the_listeners_in_units_of_0_to_1(corpus):
    angry, bored = emotale.rows(corpus)

    assert [angry[name] for name in ("activation", "valence", "dominance")] == pytest.approx([10 / 12, 2 / 12, 1])
    assert [bored[name] for name in ("activation", "valence", "dominance")] == [0, 0.5, 0.25]


def test_name_gives_speaker_and_emotion_and_the_table_gender(corpus):
    assert [(row["id"], row["speaker"], row["gender"], row["emotion"]) for row in emotale.rows(corpus)] == [
        ("emotale/DK_001_A_1", "emotale/001", "female", "angry"),
        ("emotale/EN_005_B_2", "emotale/005", "male", "bored"),
    ]


def test_a_fold_tests_two_speakers_and_every_speaker_is_tested_once():
    tests = [load_protocol(f"emotale-14-fold-{fold}").test for fold in range(1, 8)]

    assert {len(test) for test in tests} == {2}
    assert len({speaker for test in tests for speaker in test}) == 14


def test_a_missing_clip_or_table_is_named(corpus):
    (corpus / "EN_005_B_2.wav").unlink()
    with pytest.raises(FileNotFoundError, match="EN_005_B_2"):
        emotale.rows(corpus)
    (corpus / "annotations.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"annotations\.csv"):
        emotale.rows(corpus)


def test_foreign_name_or_rating_is_an_error(corpus):
    (corpus / "DK_001_X_1.wav").touch()
    for line, error in (("DK_001_X_1.wav" + ",3,3,3,A" * 3 + ",A", "DK_001_X_1"), ("", "shifted column")):
        text = (corpus / "annotations.csv").read_text()
        broken = text + line + "\n" if line else text.replace(",4,1.5,5,A", ",40,1.5,5,A")
        (corpus / "annotations.csv").write_text(broken)
        with pytest.raises(ValueError, match=error):
            list(emotale.rows(corpus))
        (corpus / "annotations.csv").write_text(text)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs AUDIO_EMOTION_DATA with emotale/ in it")
def test_the_real_ratings_of_anger_are_active_negative_and_strong():
    real = [row for row in emotale.rows(REAL) if row["emotion"] == "angry"]
    means = [np.mean([row[name] for row in real]) for name in ("activation", "valence", "dominance")]

    assert means[0] > 0.6 > 0.4 > means[1]
    assert means[2] > 0.6


def test_the_language_of_a_clip_is_an_attribute():
    assert emotale.attributes({"id": "emotale/DK_001_A_1"}) == {"language": "Danish"}
    assert emotale.attributes({"id": "emotale/EN_001_A_1"}) == {"language": "English"}
