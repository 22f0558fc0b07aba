"""Mixtures of corpora, labels of a training set, and the record of training data in a checkpoint."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import soundfile
from datasets import Dataset

from audio_emotion.data.registry import corpus_info, corpus_table
from audio_emotion.data.sampler import ResumableSampler
from audio_emotion.data.training_set import (
    class_numbers,
    mix_corpora,
    require_training_labels,
    soft_labels,
    training_data,
)


@pytest.fixture
def own(tmp_path) -> str:
    """Six clips of two speakers, described by a file; one of its categories is RAVDESS's `angry`."""
    lines = ["file,who,label,arousal"]
    for index in range(6):
        soundfile.write(tmp_path / f"{index}.wav", np.zeros(8000), 16000)
        lines.append(f"{index}.wav,speaker{index % 2},{'angry' if index % 3 else 'bored'},{index % 5 + 1}")
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "own.yaml").write_text(
        "name: own\nlicense: CC0-1.0\ncitation: made by the test\nsource: csv\npath: clips.csv\n"
        "columns: {audio: file, speaker: who, emotion: label, activation: arousal}\nscale: [1, 5]\n"
        "emotions: [angry, bored]\ndimensions: [activation]\ndimensions_source: rated\n"
    )
    return str(tmp_path / "own.yaml")


def test_an_added_corpus_keeps_the_emotions_and_dimensions_of_the_first(own):
    table, info = corpus_table("synthetic", count=20), corpus_info("synthetic")

    mixed = mix_corpora(table, [], info, [f"{own}=2.5"])

    added = mixed.table.select(range(20, 26))
    assert list(added["emotion"]) == [None, "angry", "angry"] * 2  # the synthetic corpus has no `bored`
    assert added["activation"] == pytest.approx([0, 0.25, 0.5, 0.75, 1, 0])
    assert list(added["valence"]) == [None] * 6
    assert mixed.speakers == ("own/speaker0", "own/speaker1")
    assert mixed.license == f"{info.license} AND CC0-1.0"
    sampler = ResumableSampler.from_table(mixed.table, 4, mixed.weights, shuffle=True)
    counts = np.bincount(sampler.epoch(0), minlength=26)
    assert counts[:20].tolist() == [1] * 20
    assert counts[20:].sum() == 15


def test_calm_and_neutral_of_an_added_corpus_count_as_the_one_that_the_first_has(tmp_path):
    for number, emotion in enumerate(("calm", "neutral", "bored")):
        soundfile.write(tmp_path / f"{number}.wav", np.zeros(8000), 16000)
        with (tmp_path / "clips.csv").open("a") as file:
            file.write(("file,who,label\n" if number == 0 else "") + f"{number}.wav,one,{emotion}\n")
    (tmp_path / "own.yaml").write_text(
        "name: own\nlicense: CC0-1.0\ncitation: made by the test\nsource: csv\npath: clips.csv\n"
        "columns: {audio: file, speaker: who, emotion: label}\nemotions: [calm, neutral, bored]\n"
    )
    table, info = corpus_table("synthetic", count=4), corpus_info("synthetic")
    found = {}
    for known in (("angry", "calm"), ("angry", "neutral"), ("angry", "calm", "neutral")):
        mixed = mix_corpora(table, [], replace(info, emotions=known), [str(tmp_path / "own.yaml")])
        found[known[1:]] = list(mixed.table["emotion"])[4:], mixed.emotions["own"]

    assert found == {
        ("calm",): (["calm", "calm", None], ("calm",)),
        ("neutral",): (["neutral", "neutral", None], ("neutral",)),
        ("calm", "neutral"): (["calm", "neutral", None], ("calm", "neutral")),
    }


def test_a_repeated_corpus_or_an_invalid_weight_is_refused(own):
    table, info = corpus_table("synthetic", count=20), corpus_info("synthetic")

    with pytest.raises(ValueError, match="synthetic again"):
        mix_corpora(table, [], info, ["synthetic"])
    for weight in ("0", "-1", "much", "inf"):
        with pytest.raises(ValueError, match="weight"):
            mix_corpora(table, [], info, [f"{own}={weight}"])


def test_training_data_lists_every_corpus_with_its_speakers():
    record = training_data(["b/2", "a/1", "b/1"], [{"corpus": "c", "speakers": ["c/1"], "teachers": []}])

    assert [(each["corpus"], each["speakers"]) for each in record] == [("a", ["a/1"]), ("b", ["b/1", "b/2"])]
    assert all(each["teachers"][0]["corpus"] == "c" for each in record)


def labels(emotions: list, activation: list, valence: list) -> Dataset:
    ids = [f"own/{index}" for index in range(len(emotions))]
    return Dataset.from_dict({"id": ids, "emotion": emotions, "activation": activation, "valence": valence})


@pytest.mark.parametrize(
    ("emotions", "activation", "message"),
    [
        (["angry", None, "calm"], [0.1, 0.2, None], r"none of \['sad'\] among 3.*`emotions: {sad: null, ...}`"),
        ([None, None, None], [0.1, 0.2, None], r"none of \['angry', 'calm', 'sad'\]"),
        (["angry", "calm", "sad"], [None, None, None], r"none or one value of \['activation'\]"),
        (["angry", "calm", "sad"], [0.5, None, 0.5], r"none or one value of \['activation'\]"),
        (["angry", "calm", "sad"], [0.5, None, 0.1], None),
    ],
)
def test_a_class_or_dimension_without_training_label_is_refused(emotions, activation, message):
    rows = labels(emotions, activation, [0.0, 0.5, 1.0])

    if message is None:
        require_training_labels(rows, ["angry", "calm", "sad"], ["activation", "valence"])
    else:
        with pytest.raises(ValueError, match=message):
            require_training_labels(rows, ["angry", "calm", "sad"], ["activation", "valence"])
    require_training_labels(rows, [], ["valence"])


def test_labels_of_one_class_are_refused():
    with pytest.raises(ValueError, match="two emotions or more, got 3 clips that all are angry"):
        require_training_labels(labels(["angry"] * 3, [0.1, 0.2, 0.3], [0.1, 0.2, 0.3]), ["angry"], [])


def test_class_numbers_are_those_of_the_labels_that_are_used():
    rows = labels(["calm", None, "angry"], [0.0] * 3, [0.0] * 3)

    assert class_numbers(rows, ["angry", "calm"]).tolist() == [1, -100, 0]
    assert class_numbers(rows, ["angry", "calm"], {"own/2"}).tolist() == [-100, -100, 0]


def test_soft_labels_are_of_the_clips_that_have_votes_and_a_corpus_without_is_refused():
    rows = Dataset.from_dict({"id": ["a", "b", "c"], "probabilities": [[0.25, 0.75], None, [1.0, 0.0]]})

    assert soft_labels(rows) == {"a": [0.25, 0.75], "c": [1.0, 0.0]}
    with pytest.raises(ValueError, match=r"none among 1.*voice-votes"):
        soft_labels(rows.select([1]))
