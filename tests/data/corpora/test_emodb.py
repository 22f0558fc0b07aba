"""EmoDB rows say what the file names say."""

import numpy as np
import pytest
import soundfile

from audio_emotion.data.affective_norms import norm_derived_dimensions
from audio_emotion.data.corpora import emodb


@pytest.fixture
def corpus(tmp_path):
    """Every letter once, two speakers, in the published layout."""
    (tmp_path / "wav").mkdir()
    for name in ("03a01Wa", "03a01Nc", "03a02Ta", "03b01Fb", "16a01Lb", "16b03Ed", "16a07Aa"):
        soundfile.write(tmp_path / "wav" / f"{name}.wav", np.zeros(160, dtype=np.float32), 16_000)
    return tmp_path


def test_letter_gives_the_emotion_of_the_german_word(corpus):
    assert {row["id"].removeprefix("emodb/"): row["emotion"] for row in emodb.rows(corpus)} == {
        "03a01Nc": "neutral",
        "03a01Wa": "angry",
        "03a02Ta": "sad",
        "03b01Fb": "happy",
        "16a01Lb": "bored",
        "16a07Aa": "fearful",
        "16b03Ed": "disgust",
    }


def test_first_digits_give_speaker_and_gender(corpus):
    assert {(row["speaker"], row["gender"]) for row in emodb.rows(corpus)} == {
        ("emodb/03", "male"),
        ("emodb/16", "female"),
    }


def test_dimensions_are_derived_and_empty_for_boredom(corpus):
    rows = {row["emotion"]: row for row in emodb.rows(corpus)}
    names = ("activation", "valence", "dominance")

    assert tuple(rows["angry"][name] for name in names) == norm_derived_dimensions("angry")
    assert tuple(rows["bored"][name] for name in names) == (None, None, None)


def test_speaker_who_is_not_in_emodb_is_an_error(corpus):
    (corpus / "wav" / "04a01Wa.wav").touch()

    with pytest.raises(ValueError, match="04a01Wa"):
        emodb.rows(corpus)


def test_folder_without_clips_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="got none"):
        emodb.rows(tmp_path)
