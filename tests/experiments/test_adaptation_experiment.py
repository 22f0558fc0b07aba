"""The experiment on adaptation to speakers: halves of the clips, classes, and what is left out."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForAudioClassification

from audio_emotion.data.registry import corpus_table

EXPERIMENTS = Path(__file__).parents[2] / "recipes" / "experiments"


@pytest.fixture
def experiment(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(EXPERIMENTS), *sys.path])
    return runpy.run_path(str(EXPERIMENTS / "speaker_adaptation.py"))


@pytest.fixture
def unseen(experiment, tiny_student, tmp_path):
    arguments = experiment["AdaptationArguments"](corpora=["synthetic"], cache=str(tmp_path))
    table = corpus_table("synthetic", count=24)
    return experiment["Unseen"](tiny_student, "synthetic", table, arguments)


def test_no_clip_is_predicted_by_a_model_that_was_adapted_to_it(experiment, unseen, monkeypatch):
    namespace = type(unseen).predict_adapted.__globals__
    original, enrolled = namespace["adapted_model"], []

    def adapted_model(model, clips):
        adapted = original(model, clips)
        adapted.enrolled = {tuple(each["input_values"][0, :50].tolist()) for each in clips}
        enrolled.append(len(clips))
        return adapted

    def predict(self, model, ids):
        samples = {tuple(self.read(name)["input_values"][0, :50].tolist()) for name in ids}
        assert samples.isdisjoint(getattr(model, "enrolled", set()))
        return plain(self, model, ids)

    plain = type(unseen).predict
    monkeypatch.setitem(namespace, "adapted_model", adapted_model)
    monkeypatch.setattr(type(unseen), "predict", predict)

    predictions = unseen.predict_adapted(2, None, seed=0)

    assert predictions.ids == unseen.ids
    assert enrolled
    assert max(enrolled) <= 2


def test_clips_of_the_emotion_alone_adapt_the_model(experiment, unseen, monkeypatch):
    namespace = type(unseen).predict_adapted.__globals__
    read: list[str] = []
    original = unseen.read
    unseen.read = lambda name: {**original(name), "name": name}
    monkeypatch.setitem(
        namespace, "adapted_model", lambda model, clips: read.extend(c["name"] for c in clips) or model
    )
    monkeypatch.setattr(type(unseen), "predict", lambda self, model, ids: self.empty(ids), raising=False)
    monkeypatch.setitem(namespace, "pool_folds", lambda parts: parts)
    monkeypatch.setattr(type(unseen), "empty", lambda self, ids: ids, raising=False)
    emotion = unseen.emotions[0]

    unseen.predict_adapted(5, emotion, seed=0)

    assert read
    assert {unseen.emotion[name] for name in read} == {emotion}


def test_scores_are_those_of_the_emotions_that_model_and_corpus_have(unseen):
    predictions = unseen.predict(unseen.model, unseen.ids)

    assert predictions.logits.shape == (len(unseen.ids), len(unseen.emotions))
    named = [unseen.emotions[label] if label >= 0 else None for label in predictions.labels]
    assert [name for name in named if name] == [
        unseen.emotion[name] for name in unseen.ids if unseen.emotion[name] in unseen.emotions
    ]
    assert np.isfinite(predictions.logits).all()


def test_a_corpus_whose_speakers_are_all_known_is_left_out(experiment, tiny_student, tmp_path):
    table = corpus_table("synthetic")
    speakers = sorted({name for name in table["speaker"] if name})
    tiny_student.config.training_data = [{"corpus": "synthetic", "speakers": speakers}]
    tiny_student.save_pretrained(tmp_path / "model")
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "model")
    arguments = experiment["AdaptationArguments"](corpora=["synthetic"], cache=str(tmp_path))

    assert experiment["measure_corpus"]([model], "synthetic", arguments) == {}
