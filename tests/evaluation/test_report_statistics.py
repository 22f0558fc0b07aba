"""The statistics of a model report equal second implementations and formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import rel_entr, softmax
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, confusion_matrix

from audio_emotion.evaluation import report_statistics
from audio_emotion.evaluation.predictions import Predictions

EMOTIONS = ["angry", "happy", "neutral", "sad"]


def predictions(skill: float = 1.5, clips: int = 400, speakers: int = 10, seed: int = 0) -> Predictions:
    """Random clips, whose logit of the true class is raised by `skill`."""
    random = np.random.default_rng(seed)
    labels = random.integers(len(EMOTIONS), size=clips)
    logits = random.normal(size=(clips, len(EMOTIONS))) + skill * np.eye(len(EMOTIONS))[labels]
    rated = random.uniform(0.1, 0.9, size=(clips, 3))
    found = Predictions(
        ids=[f"toy/{place:04d}" for place in range(clips)],
        speakers=np.array([f"toy/{place % speakers}" for place in range(clips)]),
        logits=logits,
        dimensions=0.7 * rated + 0.15 + random.normal(size=rated.shape) * 0.05,
        embedding=np.zeros((clips, 0)),
        labels=labels,
        dimension_labels=rated,
    )
    found.name_genders({name: ("female", "male")[int(name[-1]) % 2] for name in found.ids})
    return found


def test_correctness_equals_scikit_learn():
    found = predictions()
    scores = report_statistics.correctness(found, EMOTIONS, ["activation", "valence", "dominance"], "rated", 50)
    chosen = found.logits.argmax(-1)
    assert scores["uar"] == pytest.approx(balanced_accuracy_score(found.labels, chosen), abs=1e-6)
    assert scores["skill"] == pytest.approx(balanced_accuracy_score(found.labels, chosen, adjusted=True), abs=1e-6)
    assert scores["confusion"] == confusion_matrix(found.labels, chosen).tolist()
    expected = np.corrcoef(found.dimensions.T, found.dimension_labels.T)[:3, 3:]
    np.testing.assert_allclose(scores["cross_correlation"], expected, atol=1e-6)


def test_intervals_of_dimensions_contain_as_much_as_their_normal_distribution():
    """Errors of known deviations: the fraction inside follows from the distribution function, for any wrong scale."""
    random = np.random.default_rng(0)
    found = predictions(clips=8000, speakers=40)
    deviations = random.uniform(0.02, 0.3, size=(8000, 3))
    found.dimension_labels = found.dimensions + deviations * random.normal(size=(8000, 3))
    found.dimension_labels[:3, 1] = np.nan
    factors = np.array([1.0, 0.5, 2.0])  # of the predicted deviations
    found.variances = (factors * deviations) ** 2

    scores = report_statistics.coverage(found, ["activation", "valence", "dominance"], 200)

    assert [each["clips"] for each in scores.values()] == [8000, 7997, 8000]
    for factor, each in zip(factors, scores.values(), strict=True):
        assert each["scale"] == pytest.approx(1 / factor, rel=0.02)
        for level, inside in each["inside"].items():
            expected = 2 * norm.cdf(factor * norm.ppf((1 + float(level)) / 2)) - 1
            assert inside["fraction"] == pytest.approx(expected, abs=0.015)
            assert inside["interval"][0] <= inside["fraction"] <= inside["interval"][1]
    rated, mean, deviation = found.dimension_labels[:, 0], found.dimensions[:, 0], deviations[:, 0]
    low, high = norm.interval(0.9, mean, deviation)
    assert scores["activation"]["inside"]["0.9"]["fraction"] == ((low <= rated) & (rated <= high)).mean()


def test_calibration_equals_scikit_learn_and_formulas():
    found = predictions()
    scores = report_statistics.calibration(found, 20)
    probabilities = softmax(found.logits, axis=1)
    assert scores["brier"] == pytest.approx(
        brier_score_loss(found.labels, probabilities, labels=range(4), scale_by_half=False), abs=1e-6
    )
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == found.labels
    order = np.argsort(confidence)  # 400 clips in 15 bins: ten of 27 and five of 26
    bins = np.split(order, np.cumsum([27] * 10 + [26] * 5)[:-1])
    expected = sum(len(each) * abs(confidence[each].mean() - correct[each].mean()) for each in bins) / 400
    assert scores["adaptive_ece"] == pytest.approx(expected, abs=1e-6)
    assert scores["selective"]["0.4"] == pytest.approx(correct[order[::-1][:160]].mean(), abs=1e-6)
    assert scores["selective"]["1"] == pytest.approx(scores["accuracy"], abs=1e-6)
    weighted = sum(each["clips"] * abs(each["accuracy"] - each["confidence"]) for each in scores["bins"]) / 400
    assert scores["ece"] == pytest.approx(weighted, abs=1e-6)


def test_agreement_is_the_probability_that_two_raters_agree():
    """Three raters: two of four chose the same in every second clip; the model follows the majority."""
    found = predictions(skill=30.0)
    votes = 3.0 * np.eye(4)[found.labels]
    votes[::2] = [2, 1, 0, 0]
    scores = report_statistics.agreement(found, votes, 20)
    expected = np.where(np.arange(400) % 2 == 0, 1 / 3, 1.0).mean()
    assert scores["raters"] == pytest.approx(expected, abs=1e-6)
    chosen = found.logits.argmax(1)
    assert scores["model"] == pytest.approx((votes[np.arange(400), chosen] / 3).mean(), abs=1e-6)


def test_the_divergence_is_jensen_and_shannons():
    random = np.random.default_rng(0)
    first, second = random.dirichlet(np.ones(4), 50), random.dirichlet(np.ones(4), 50)
    middle = (first + second) / 2
    expected = (rel_entr(first, middle) + rel_entr(second, middle)).sum(1) / 2 / np.log(2)
    np.testing.assert_allclose(report_statistics.jensen_shannon(first, second), expected, atol=1e-9)
    assert report_statistics.jensen_shannon(np.eye(4), np.eye(4)) == pytest.approx(0)
    assert report_statistics.jensen_shannon(np.eye(4), np.roll(np.eye(4), 1, 0)) == pytest.approx(1)


def test_a_difference_between_groups_is_found_and_equal_groups_are_not():
    found = predictions(speakers=20)
    worse = np.array([int(name.rpartition("/")[2]) < 10 for name in found.speakers])
    found.logits[worse] = np.random.default_rng(1).normal(size=(worse.sum(), 4))
    attributes = {
        "age": np.where(worse, "under 30", "30 or more").tolist(),
        "sex": found.genders.tolist(),
        "rare": ["yes"] * 20 + [""] * 380,
    }
    rows = {row["attribute"]: row for row in report_statistics.groups(found, attributes, 200)}
    assert set(rows) == {"age", "sex"}
    assert rows["age"]["corrected_p"] < 0.05 < rows["sex"]["corrected_p"]
    assert rows["age"]["visible"] < abs(rows["age"]["difference"])
    assert rows["age"]["corrected_p"] >= rows["age"]["p_value"]


def test_an_attribute_within_speakers_is_permuted_within_them():
    """Every speaker has clips in both languages, and is right in one of them only."""
    found = predictions(skill=30.0, speakers=5)
    danish = np.arange(400) % 2 == 0
    found.speakers = np.array([f"toy/{place // 80}" for place in range(400)])
    found.logits[danish] = np.random.default_rng(1).normal(size=(danish.sum(), 4))
    (row,) = report_statistics.groups(found, {"language": np.where(danish, "Danish", "English").tolist()}, 200)
    assert row["p_value"] < 0.01  # with five speakers, a permutation over speakers cannot be below 0.05


def test_the_loss_by_a_corruption_is_the_difference_in_skill():
    clean, other = predictions(), predictions(skill=0.5, seed=0)
    scores = report_statistics.robustness(clean, other, 100)
    skills = [balanced_accuracy_score(clean.labels, each.logits.argmax(1), adjusted=True) for each in (clean, other)]
    assert scores["loss"] == pytest.approx(skills[0] - skills[1], abs=1e-6)
    assert scores["interval"][0] < scores["loss"] < scores["interval"][1]
    assert scores["flips"] == pytest.approx((clean.logits.argmax(1) != other.logits.argmax(1)).mean())
    with pytest.raises(ValueError, match="same clips"):
        report_statistics.robustness(clean, other.take(np.arange(10)), 100)
