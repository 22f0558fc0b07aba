"""Cross-fitted classifiers use no label of the speaker they predict; features are standardized per speaker."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from linear_classifiers import as_predictions, cross_fit, fit_log_probabilities, normalize_by_speaker
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

EMOTIONS = ["calm", "sad", "angry"]
SPEAKERS = [f"test/{number}" for number in range(6)]


def corpus(clips: int = 60) -> tuple[Dataset, np.ndarray]:
    """Clips of six speakers, and features that depend on the emotion."""
    random = np.random.default_rng(0)
    classes = random.integers(0, 3, clips)
    rows = {
        "id": [f"test/{number:03d}" for number in range(clips)],
        "speaker": [SPEAKERS[number % 6] for number in range(clips)],
        "gender": [None] * clips,
        "emotion": [EMOTIONS[each] for each in classes],
    }
    return Dataset.from_dict(rows), np.eye(3)[classes] * 2 + random.standard_normal((clips, 3))


def fit_teacher(rows: Dataset, features: np.ndarray, labeled: set[str], **others):
    facts = {"train_speakers": SPEAKERS[:4], "emotions": EMOTIONS, "folds": 2, "inverse_penalty": 1.0, "name": "face"}
    return cross_fit(rows, features, labeled=labeled, **{**facts, **others})


def training_ids(rows: Dataset) -> set[str]:
    return {row["id"] for row in rows if row["speaker"] in SPEAKERS[:4]}


def test_labels_of_the_fold_of_a_speaker_do_not_change_the_outputs_for_that_speaker():
    rows, features = corpus()
    outputs = fit_teacher(rows, features, training_ids(rows))

    # Speakers 0 and 2 are one fold: reversing their labels changes the outputs for all other speakers only.
    reversed_labels = [
        EMOTIONS[2 - EMOTIONS.index(row["emotion"])] if row["speaker"] in ("test/0", "test/2") else row["emotion"]
        for row in rows
    ]
    other = fit_teacher(
        rows.remove_columns("emotion").add_column("emotion", reversed_labels), features, training_ids(rows)
    )

    moved = (outputs.logits - other.logits).abs().amax(1)
    for clip, speaker in enumerate(rows["speaker"]):
        assert (moved[clip] < 1e-6) == (speaker in ("test/0", "test/2")), speaker


def test_other_speakers_are_predicted_from_all_labeled_training_clips():
    rows, features = corpus()
    labeled = {name for name in training_ids(rows) if int(name[-1]) % 2}
    chosen = np.isin(rows["id"], sorted(labeled))
    classes = np.array([EMOTIONS.index(name) for name in rows["emotion"]])

    outputs = fit_teacher(rows, features, labeled)

    center, scale = features[chosen].mean(0), features[chosen].std(0)
    fitted = LogisticRegression(C=1.0, max_iter=3000).fit((features[chosen] - center) / scale, classes[chosen])
    held_out = ~np.isin(rows["speaker"], SPEAKERS[:4])
    expected = fitted.predict_log_proba((features[held_out] - center) / scale)
    np.testing.assert_allclose(outputs.logits[held_out].numpy(), expected, atol=1e-4)
    assert outputs.training_data == [{"corpus": "test", "speakers": SPEAKERS[:4], "teachers": []}]
    with pytest.raises(ValueError, match="training speakers only"):
        fit_teacher(rows, features, set(rows["id"]))


def test_a_class_without_labels_has_the_probability_of_one_clip():
    features = np.array([[0.0], [0.1], [1.0], [1.1]])

    probabilities = np.exp(fit_log_probabilities(features, np.array([0, 0, 2, 2]), features, 3, 1.0))

    np.testing.assert_allclose(probabilities[:, 1], 1 / 5)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert probabilities[0].argmax() == 0
    assert probabilities[3].argmax() == 2
    np.testing.assert_allclose(
        np.exp(fit_log_probabilities(features[:2], np.array([1, 1]), features, 3, 1.0))[:, 1], 1 / 2
    )
    np.testing.assert_allclose(np.exp(fit_log_probabilities(features[:0], np.array([], int), features, 3, 1.0)), 1 / 3)


def test_unknown_features_are_masked_and_wide_features_are_reduced_without_labels():
    rows, features = corpus()
    wide = np.concatenate([features, np.random.default_rng(1).standard_normal((60, 97))], axis=1)
    wide[7] = np.nan

    outputs = fit_teacher(rows, wide, training_ids(rows))
    fewer = fit_teacher(rows, wide, set(sorted(training_ids(rows))[:20]))

    assert outputs.mask.tolist() == [float(number != 7) for number in range(60)]
    assert outputs.embedding.shape[1] < 64
    assert torch.equal(outputs.embedding, fewer.embedding)
    assert torch.isfinite(outputs.embedding).all()
    test = as_predictions(outputs, rows.select(range(4, 60, 6)))
    assert test.speakers.tolist() == ["test/4"] * 10
    np.testing.assert_array_equal(test.logits, outputs.logits.numpy()[4::6])


TWO_SPEAKERS = ["a"] * 200 + ["b"] * 200


def speaker_features() -> tuple[np.ndarray, np.ndarray]:
    """Features of two speakers with other means and scales, and the standard normal features, `(400, 3)` each."""
    normal = np.random.default_rng(0).standard_normal((400, 3))
    scale, mean = np.repeat([[1.0], [5.0]], 200, axis=0), np.repeat([[0.0], [40.0]], 200, axis=0)
    return scale * normal + mean, normal


def test_normalized_features_of_two_speakers_have_the_same_distribution():
    features, normal = speaker_features()

    normalized = normalize_by_speaker(features, TWO_SPEAKERS, prior=1e-9)

    for rows in (slice(0, 200), slice(200, 400)):
        np.testing.assert_allclose(normalized[rows], StandardScaler().fit_transform(normal[rows]), atol=1e-6)


def test_a_single_clip_is_barely_changed_and_speakers_are_independent():
    features, _ = speaker_features()
    mean, std = features.mean(0), features.std(0)
    single = mean + std * np.array([[1.0, 0.0, -1.0]])

    together = normalize_by_speaker(np.concatenate([features, single]), [*TWO_SPEAKERS, "c"])

    assert np.isfinite(together).all()
    np.testing.assert_allclose(together[-1], [1.0, 0.0, -1.0], atol=0.2)
    changed = np.concatenate([features, single])
    changed[:200] *= 2  # hardly affects the second speaker
    np.testing.assert_allclose(
        normalize_by_speaker(changed, [*TWO_SPEAKERS, "c"])[200:400], together[200:400], atol=0.15
    )


def test_unknown_features_stay_nan_and_do_not_change_the_others():
    features, _ = speaker_features()
    with_nan = np.concatenate([features, np.full((2, 3), np.nan)])

    result = normalize_by_speaker(with_nan, [*TWO_SPEAKERS, "a", "d"])

    np.testing.assert_allclose(result[:400], normalize_by_speaker(features, TWO_SPEAKERS))
    assert np.isnan(result[400:]).all()


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_constant_feature_becomes_zero(value):
    features, _ = speaker_features()
    features[:, 1] = value

    assert normalize_by_speaker(features, TWO_SPEAKERS)[:, 1] == pytest.approx(0.0)
