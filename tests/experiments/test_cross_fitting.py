"""Classifiers as teachers: nobody speaks of a speaker by whose labels he was fitted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cross_fitting import as_predictions, cross_fitted, log_probabilities
from datasets import Dataset
from sklearn.linear_model import LogisticRegression

EMOTIONS = ["calm", "sad", "angry"]
SPEAKERS = [f"test/{number}" for number in range(6)]


def corpus(clips: int = 60) -> tuple[Dataset, np.ndarray]:
    """Six speakers in turn, and features that tell the emotion."""
    random = np.random.default_rng(0)
    classes = random.integers(0, 3, clips)
    rows = {
        "id": [f"test/{number:03d}" for number in range(clips)],
        "speaker": [SPEAKERS[number % 6] for number in range(clips)],
        "gender": [None] * clips,
        "emotion": [EMOTIONS[each] for each in classes],
    }
    return Dataset.from_dict(rows), np.eye(3)[classes] * 2 + random.standard_normal((clips, 3))


def ask(rows: Dataset, features: np.ndarray, labeled: set[str], **others):
    facts = {"train_speakers": SPEAKERS[:4], "emotions": EMOTIONS, "folds": 2, "inverse_penalty": 1.0, "name": "face"}
    return cross_fitted(rows, features, labeled=labeled, **{**facts, **others})


def training_ids(rows: Dataset) -> set[str]:
    return {row["id"] for row in rows if row["speaker"] in SPEAKERS[:4]}


def test_the_labels_of_a_speaker_and_of_his_fold_change_nothing_that_is_said_of_him():
    rows, features = corpus()
    said = ask(rows, features, training_ids(rows))

    # Speakers 0 and 2 are one fold: with their labels turned round, of them the same is said, of others not.
    turned = [
        EMOTIONS[2 - EMOTIONS.index(row["emotion"])] if row["speaker"] in ("test/0", "test/2") else row["emotion"]
        for row in rows
    ]
    other = ask(rows.remove_columns("emotion").add_column("emotion", turned), features, training_ids(rows))

    moved = (said.logits - other.logits).abs().amax(1)
    for clip, speaker in enumerate(rows["speaker"]):
        assert (moved[clip] < 1e-6) == (speaker in ("test/0", "test/2")), speaker


def test_who_was_not_trained_on_hears_from_the_classifier_of_all_labeled_clips_and_no_label_of_his_is_used():
    rows, features = corpus()
    labeled = {name for name in training_ids(rows) if int(name[-1]) % 2}
    chosen = np.isin(rows["id"], sorted(labeled))
    classes = np.array([EMOTIONS.index(name) for name in rows["emotion"]])

    said = ask(rows, features, labeled)

    center, scale = features[chosen].mean(0), features[chosen].std(0)
    fitted = LogisticRegression(C=1.0, max_iter=3000).fit((features[chosen] - center) / scale, classes[chosen])
    held_out = ~np.isin(rows["speaker"], SPEAKERS[:4])
    expected = fitted.predict_log_proba((features[held_out] - center) / scale)
    np.testing.assert_allclose(said.logits[held_out].numpy(), expected, atol=1e-4)
    assert said.training_data == [{"corpus": "test", "speakers": SPEAKERS[:4], "teachers": []}]
    with pytest.raises(ValueError, match="training speakers alone"):
        ask(rows, features, set(rows["id"]))


def test_a_class_without_a_label_counts_as_one_clip_and_without_any_label_all_are_equal():
    features = np.array([[0.0], [0.1], [1.0], [1.1]])

    shares = np.exp(log_probabilities(features, np.array([0, 0, 2, 2]), features, 3, 1.0))

    np.testing.assert_allclose(shares[:, 1], 1 / 5)
    np.testing.assert_allclose(shares.sum(1), 1)
    assert shares[0].argmax() == 0
    assert shares[3].argmax() == 2
    np.testing.assert_allclose(
        np.exp(log_probabilities(features[:2], np.array([1, 1]), features, 3, 1.0))[:, 1], 1 / 2
    )
    np.testing.assert_allclose(np.exp(log_probabilities(features[:0], np.array([], int), features, 3, 1.0)), 1 / 3)


def test_a_clip_without_a_face_is_masked_and_wide_features_are_reduced_without_labels():
    rows, features = corpus()
    wide = np.concatenate([features, np.random.default_rng(1).standard_normal((60, 97))], axis=1)
    wide[7] = np.nan

    said = ask(rows, wide, training_ids(rows))
    fewer = ask(rows, wide, set(sorted(training_ids(rows))[:20]))

    assert said.mask.tolist() == [float(number != 7) for number in range(60)]
    assert said.embedding.shape[1] < 64
    assert torch.equal(said.embedding, fewer.embedding)
    assert torch.isfinite(said.embedding).all()
    test = as_predictions(said, rows.select(range(4, 60, 6)))
    assert test.speakers.tolist() == ["test/4"] * 10
    np.testing.assert_array_equal(test.logits, said.logits.numpy()[4::6])
