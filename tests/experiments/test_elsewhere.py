"""recipes/experiments/elsewhere.py and norms.py: four emotions, unseen speakers, and tables that equal the results."""

from __future__ import annotations

import json
from pathlib import Path

import elsewhere
import norms
import numpy as np
import pytest
from table import default_robustness_table, replace_table

from audio_emotion.data.corpora.synthetic import SPEAKERS
from audio_emotion.evaluation.predictions import Predictions

ROOT = Path(__file__).parents[2]
EMOTIONS = ["neutral", "calm", "happy", "fearful"]


def predictions(logits: np.ndarray, labels: list[int]) -> Predictions:
    count = len(labels)
    return Predictions(
        ids=[f"c/{place}" for place in range(count)],
        speakers=np.array([f"c/{place % 4}" for place in range(count)]),
        logits=logits,
        dimensions=np.zeros((count, 0)),
        embedding=np.zeros((count, 0)),
        labels=np.array(labels),
        dimension_labels=np.zeros((count, 0)),
    )


def test_calm_is_added_to_neutral_and_other_emotions_are_left_out():
    logits = np.log(np.array([[0.2, 0.25, 0.3, 0.25], [0.1, 0.2, 0.4, 0.3], [0.1, 0.2, 0.3, 0.4]]))
    four, names = elsewhere.only_four(predictions(logits, [1, 2, 3]), EMOTIONS)

    assert names == ["happy", "neutral"]
    np.testing.assert_allclose(np.exp(four.logits), [[0.3, 0.45], [0.4, 0.3], [0.3, 0.3]])
    assert four.labels.tolist() == [1, 0, -100]


def test_over_confidence_is_confidence_minus_accuracy_and_the_surest_half_has_the_highest_confidence():
    probability = np.linspace(0.55, 0.9, 8)
    logits = np.log(np.stack([probability, 1 - probability], axis=1))
    scores = elsewhere.class_scores(predictions(logits, [1, 1, 1, 1, 0, 0, 0, 1]), ["happy", "sad"], repeats=20)

    assert scores["over_confidence"] == pytest.approx(probability.mean() - 3 / 8)
    assert scores["surest_half_accuracy"] == 3 / 4
    assert (scores["chance"], scores["speakers"]) == (0.5, 4)


def test_a_corpus_of_which_a_model_knows_all_speakers_is_not_scored(tiny_student, tmp_path):
    tiny_student.config.training_data = [{"corpus": "synthetic", "speakers": list(SPEAKERS), "teachers": []}]
    tiny_student.save_pretrained(tmp_path)

    row = elsewhere.evaluate_on("synthetic", str(tmp_path), tmp_path / "run", repeats=0)
    assert row == {"corpus": "synthetic", "name": "synthetic", "contaminated": True}


def test_the_table_of_norms_is_that_of_the_results():
    results = json.loads((ROOT / "recipes" / "results" / "norms.json").read_text())
    page = (ROOT / "docs" / "dimensions.md").read_text()

    assert replace_table(page, "norms", norms.norms_table(results)) == page


def test_the_robustness_of_the_default_model_is_that_of_the_results():
    page = (ROOT / "docs" / "robustness.md").read_text()

    assert replace_table(page, "default", default_robustness_table(ROOT / "recipes" / "results")) == page
