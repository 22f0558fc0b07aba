"""EmoSpeech rows say what the table of the corpus says."""

import os
from pathlib import Path

import pytest

from audio_emotion.data.affective_norms import norm_derived_dimensions
from audio_emotion.data.corpora import emospeech_commands
from audio_emotion.data.registry import load_protocol

REAL = Path(os.environ.get("AUDIO_EMOTION_DATA", "/nowhere")) / "emospeech-commands"
HEADER = "file,speaker,emotion,word,place\n"


@pytest.fixture
def corpus(tmp_path):
    """Two clips of two speakers."""
    names = {"s002_calm_yes_006.ogg": "s002,calm,yes,webservice", "s001_angry_go_002.ogg": "s001,angry,go,roads"}
    (tmp_path / "clips.csv").write_text(HEADER + "".join(f"{name},{line}\n" for name, line in names.items()))
    for name in names:
        (tmp_path / name).touch()
    return tmp_path


def test_rows_have_the_values_of_the_table(corpus):
    angry, calm = emospeech_commands.rows(corpus)

    assert (angry["id"], angry["speaker"]) == ("emospeech-commands/s001_angry_go_002", "emospeech-commands/s001")
    assert (calm["emotion"], calm["gender"]) == ("calm", None)
    assert (calm["activation"], calm["valence"], calm["dominance"]) == norm_derived_dimensions("calm")


def test_folds_test_every_speaker_once():
    tests = [load_protocol(f"emospeech-commands-fold-{fold}").test for fold in range(1, 6)]

    assert sorted(len(test) for test in tests) == [19, 20, 20, 20, 20]
    assert len({speaker for test in tests for speaker in test}) == 99


def test_a_missing_clip_or_table_or_an_unknown_emotion_is_named(corpus):
    (corpus / "clips.csv").write_text(HEADER + "s001_angry_go_002.ogg,s001,furious,go,roads\n")
    with pytest.raises(ValueError, match="furious"):
        emospeech_commands.rows(corpus)
    (corpus / "s001_angry_go_002.ogg").unlink()
    with pytest.raises(FileNotFoundError, match="s001_angry_go_002"):
        emospeech_commands.rows(corpus)
    (corpus / "clips.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"clips\.csv"):
        emospeech_commands.rows(corpus)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs AUDIO_EMOTION_DATA with emospeech-commands/ in it")
def test_the_speakers_of_the_real_corpus_are_those_of_the_folds():
    folds = [load_protocol(f"emospeech-commands-fold-{fold}").test for fold in range(1, 6)]

    real = list(emospeech_commands.rows(REAL))
    assert {row["speaker"] for row in real} == {speaker for fold in folds for speaker in fold}
    assert {row["emotion"] for row in real} == set(emospeech_commands.INFO.emotions)
