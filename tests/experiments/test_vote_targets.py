"""recipes/experiments/vote_targets.py: both targets are scored alike, and equal second implementations."""

from __future__ import annotations

import numpy as np
import pytest
import vote_targets
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.metrics import accuracy_score, balanced_accuracy_score, brier_score_loss
from vote_targets import TITLES, compare_targets, load_seeds, scores, vote_target_table, with_frequencies

from audio_emotion.data.corpora import crema_d
from audio_emotion.evaluation.predictions import Predictions, save_predictions

EMOTIONS = list(crema_d.INFO.emotions)


def fold(number: int, seed: int, clips: int = 40) -> Predictions:
    """Random predictions of four speakers."""
    labels = np.random.default_rng(number).integers(6, size=clips)
    logits = np.random.default_rng([number, seed]).normal(size=(clips, 6)) + np.eye(6)[labels]
    return Predictions(
        ids=[f"crema-d/{number}-{clip:02d}" for clip in range(clips)],
        speakers=np.array([f"crema-d/{4 * number + clip % 4}" for clip in range(clips)]),
        logits=logits,
        dimensions=np.zeros((clips, 0)),
        embedding=np.zeros((clips, 0)),
        labels=labels,
        dimension_labels=np.zeros((clips, 0)),
    )


def votes_on(folds) -> dict[str, dict[str, float]]:
    random = np.random.default_rng(5)
    names = [name.partition("/")[2] for each in folds for name in each.ids]
    return {
        name: dict(zip(EMOTIONS, map(float, random.multinomial(10, np.full(6, 1 / 6))), strict=True)) for name in names
    }


def test_scores_equal_scikit_learn_and_scipy():
    random = np.random.default_rng(0)
    probabilities = softmax(random.normal(size=(300, 6)), axis=1)
    votes = random.multinomial(10, np.full(6, 1 / 6), size=300) / 10
    intended, named = random.integers(6, size=300), random.integers(6, size=300)
    named[:20] = -100

    found = dict(zip(TITLES, scores(probabilities, intended, named, votes), strict=True))

    chosen = probabilities.argmax(1)
    assert found["accuracy_intended"] == pytest.approx(accuracy_score(intended, chosen), abs=1e-9)
    assert found["uar_majority"] == pytest.approx(balanced_accuracy_score(named[20:], chosen[20:]), abs=1e-9)
    brier = brier_score_loss(named[20:], probabilities[20:], labels=range(6), scale_by_half=False)
    assert found["brier_majority"] == pytest.approx(brier, abs=1e-9)
    between = (probabilities + votes) / 2
    divergence = (entropy(probabilities, between, base=2, axis=1) + entropy(votes, between, base=2, axis=1)) / 2
    assert found["divergence"] == pytest.approx(divergence.mean(), abs=1e-9)
    excess = entropy(votes, axis=1) + entropy(votes, probabilities, axis=1)
    assert found["cross_entropy"] == pytest.approx(excess.mean(), abs=1e-9)
    drawn = random.random((2000, 300, 1)) < votes.cumsum(1)  # one rater of each clip, many times
    assert found["agreement"] == pytest.approx((drawn.argmax(2) == chosen).mean(), abs=0.005)
    assert found["excess_confidence"] == pytest.approx(probabilities.max(1).mean() - found["agreement"], abs=1e-9)


def test_other_frequencies_give_the_posterior_of_a_model_that_was_trained_with_them():
    random = np.random.default_rng(0)
    likelihood, own, other = random.random((50, 6)), *random.dirichlet(np.ones(6), size=2)
    adjusted = softmax(with_frequencies(np.log(likelihood * own) - 7, own, other), axis=1)
    np.testing.assert_allclose(adjusted, likelihood * other / (likelihood * other).sum(1, keepdims=True))


def test_the_difference_is_votes_minus_intended_over_the_seeds_of_both():
    runs = {
        "intended": {seed: {number: fold(number, seed) for number in (1, 2)} for seed in range(3)},
        "votes": {seed: {number: fold(number, 10 + seed) for number in (1, 2)} for seed in range(2)},
    }
    counts = votes_on(runs["intended"][0].values())

    results = compare_targets(runs, counts, 20)

    assert results["seeds"] == [0, 1]
    assert results["clips"] == 80
    for name in TITLES:
        intended, votes, difference = (results["scores"][each][name] for each in ("intended", "votes", "difference"))
        assert difference[0] == pytest.approx(votes[0] - intended[0])
        assert difference[1] <= difference[0] <= difference[2]
    expected = [
        (np.concatenate([each.logits for each in runs["votes"][seed].values()]).argmax(1)
         == np.concatenate([each.labels for each in runs["votes"][seed].values()])).mean()
        for seed in range(2)
    ]  # fmt: skip
    assert results["scores"]["votes"]["accuracy_intended"][0] == pytest.approx(np.mean(expected))
    table = vote_target_table(results)
    assert f"| {results['scores']['votes']['divergence'][0]:.3f} |" in table
    assert "mean of 2 seeds" in table

    runs["votes"][0][1] = fold(1, 0, clips=39)
    with pytest.raises(ValueError, match="same clips"):
        compare_targets(runs, counts, 20)


def test_a_seed_without_all_folds_is_left_out(tmp_path):
    for seed, folds in ((0, (1, 2)), (1, (1,))):
        for number in folds:
            for name in ("lite", "lite_votes"):
                path = tmp_path / f"{name}-fold-{number}-seed-{seed}.parquet"
                save_predictions(fold(number, len(name)), path, EMOTIONS, [])

    found = load_seeds(tmp_path, "lite")

    assert {seed: [*folds] for seed, folds in found.items()} == {0: [1, 2]}
    np.testing.assert_allclose(found[0][1].logits, fold(1, len("lite")).logits, rtol=1e-6)


@pytest.mark.parametrize("target", vote_targets.RUNS)
def test_both_runs_are_in_the_set(target):
    text = (vote_targets.RESULTS.parent / "configs" / "crema_d.yaml").read_text()
    assert f"\n  {vote_targets.RUNS[target]}:\n" in text
