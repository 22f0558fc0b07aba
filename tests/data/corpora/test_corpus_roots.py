"""A corpus is found by path or by `AUDIO_EMOTION_DATA`, and a missing one is named."""

import pytest

from audio_emotion.data.corpora.corpus_info import find_corpus_root


def test_explicit_path_wins_over_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIO_EMOTION_DATA", str(tmp_path / "elsewhere"))

    assert find_corpus_root("ravdess", tmp_path) == tmp_path


def test_variable_names_the_folder_above_the_corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIO_EMOTION_DATA", str(tmp_path))
    (tmp_path / "ravdess").mkdir()

    assert find_corpus_root("ravdess") == tmp_path / "ravdess"


def test_missing_folder_is_named_with_the_variable(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent.*AUDIO_EMOTION_DATA"):
        find_corpus_root("ravdess", tmp_path / "absent")


def test_neither_path_nor_variable_is_an_error_that_names_both(monkeypatch):
    monkeypatch.delenv("AUDIO_EMOTION_DATA", raising=False)

    with pytest.raises(FileNotFoundError, match=r"ravdess.*AUDIO_EMOTION_DATA"):
        find_corpus_root("ravdess")
