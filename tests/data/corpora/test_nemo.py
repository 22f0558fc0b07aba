"""nEMO rows say what the file names say."""

import os
from pathlib import Path

import pytest

from audio_emotion.data.affective_norms import norm_derived_dimensions
from audio_emotion.data.corpora import nemo
from audio_emotion.data.registry import corpus_info, corpus_rows, load_protocol

REAL = Path(os.environ.get("AUDIO_EMOTION_DATA", "/nowhere")) / "nemo"


@pytest.fixture
def corpus(tmp_path):
    """Every word once, two speakers, one of them in the published folder."""
    (tmp_path / "samples").mkdir()
    for number, word in enumerate(nemo.WORDS):
        (tmp_path / f"KS0_{word}_{number}.ogg").touch()
    (tmp_path / "samples" / "EB0_anger_18.wav").touch()
    return tmp_path


def test_name_gives_speaker_and_emotion(corpus):
    found = {row["id"]: (row["speaker"], row["emotion"]) for row in nemo.rows(corpus)}

    assert found["nemo/EB0_anger_18"] == ("nemo/EB0", "angry")
    assert found["nemo/KS0_surprised_5"] == ("nemo/KS0", "surprised")
    assert [emotion for _, emotion in list(found.values())].count("angry") == 2


def test_dimensions_are_derived_from_the_chosen_norms(corpus):
    row = next(row for row in corpus_rows("nemo/pad", str(corpus)) if row["emotion"] == "fearful")
    dimensions = tuple(row[name] for name in ("activation", "valence", "dominance"))

    assert dimensions == norm_derived_dimensions("fearful", source="norm-derived-pad")
    assert corpus_info("nemo/pad").dimensions_source == "norm-derived-pad"
    assert corpus_info("nemo").dimensions_source == "norm-derived"


def test_a_fold_tests_one_speaker():
    assert load_protocol("nemo-fold-9").test == ("nemo/WR0",)
    assert load_protocol("nemo-fold-9").validation == ("nemo/EB0",)


@pytest.mark.parametrize("name", ["XX0_anger_1.ogg", "KS0_joy_1.ogg"])
def test_foreign_name_is_an_error(corpus, name):
    (corpus / name).touch()

    with pytest.raises(ValueError, match=name):
        nemo.rows(corpus)


def test_folder_without_clips_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="got none"):
        nemo.rows(tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs AUDIO_EMOTION_DATA with nemo/ in it")
def test_the_real_corpus_has_nine_speakers_and_all_emotions():
    real = list(nemo.rows(REAL))

    assert {row["speaker"] for row in real} == {f"nemo/{speaker}" for speaker in nemo.SPEAKERS}
    assert {row["emotion"] for row in real} == set(nemo.INFO.emotions)
