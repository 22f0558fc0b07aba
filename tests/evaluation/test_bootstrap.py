"""Paired comparison of two models over speakers: intervals and p values agree with direct computation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from audio_emotion.evaluation.bootstrap import aggregate, bootstrap_interval, compare
from audio_emotion.evaluation.metrics import concordance_correlation
from audio_emotion.evaluation.predictions import Predictions, pool_folds
from audio_emotion.evaluation.report import measure

DIMENSIONS = ["activation", "valence", "dominance"]


def predictions_of(labels, ratings, classes=None, values=None, speakers=8, prefix="c") -> Predictions:
    """Predictions with given classes `(N,)` and values `(N, 3)`, by default the right ones."""
    count = len(labels)
    classes = labels if classes is None else classes
    return Predictions(
        ids=[f"{prefix}{index:05d}" for index in range(count)],
        speakers=np.array([f"{prefix}/{index % speakers:02d}" for index in range(count)]),
        logits=5.0 * np.eye(4)[classes],
        dimensions=ratings if values is None else values,
        embedding=np.zeros((count, 0)),
        labels=labels,
        dimension_labels=ratings,
    )


def corpus(count=240, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(4, size=count), random.random((count, 3)), random


def noisy(labels, ratings, random, right, noise, **more) -> Predictions:
    classes = np.where(random.random(len(labels)) < right, labels, random.integers(4, size=len(labels)))
    return predictions_of(labels, ratings, classes, ratings + noise * random.normal(size=ratings.shape), **more)


def test_a_model_better_for_every_speaker_has_an_interval_above_zero():
    labels, ratings, random = corpus()
    good, poor = (noisy(labels, ratings, random, *how) for how in ((0.9, 0.1), (0.4, 0.5)))

    for metric in ("uar", "ccc_valence"):
        found = compare([good], [poor], metric, DIMENSIONS, repeats=500)
        assert found.difference == pytest.approx(found.first - found.second)
        assert found.interval[0] > 0
        assert found.p_value == pytest.approx(2 / 2**8)  # no other permutation is as extreme
        assert found.relative == pytest.approx(found.first / found.second - 1)
        back = compare([poor], [good], metric, DIMENSIONS, repeats=500)
        assert back.difference == pytest.approx(-found.difference)
        assert back.p_value == found.p_value


def test_p_value_of_few_speakers_counts_all_permutations():
    labels, ratings, random = corpus(40)
    one, other = (noisy(labels, ratings, random, 0.6, noise, speakers=4) for noise in (0.25, 0.35))

    found = compare([one], [other], "ccc_valence", DIMENSIONS, repeats=100)

    target, a, b = ratings[:, 1], one.dimensions[:, 1], other.dimensions[:, 1]
    differences = []
    for permutation in product([0, 1], repeat=4):
        swap = np.array([permutation[index % 4] for index in range(40)], dtype=bool)
        differences.append(
            concordance_correlation(np.where(swap, b, a), target)
            - concordance_correlation(np.where(swap, a, b), target)
        )
    extreme = sum(abs(each) >= abs(differences[0]) - 1e-12 for each in differences)
    assert found.p_value == pytest.approx(extreme / 16)
    assert (found.units, found.unit) == (4, "speakers")


def test_false_positive_rate_of_equal_models_is_the_level():
    rejected = 0
    for seed in range(40):
        labels, ratings, random = corpus(80, seed)
        pair = [noisy(labels, ratings, random, 0.6, 0.3, speakers=6) for _ in range(2)]
        rejected += compare([pair[0]], [pair[1]], "ccc_valence", DIMENSIONS, repeats=64).p_value <= 0.1

    assert 1 <= rejected <= 10  # binomial of 40 and 0.1: 4 expected, 98 % within these


def test_a_model_compared_with_itself_has_difference_zero():
    labels, ratings, random = corpus()
    one = noisy(labels, ratings, random, 0.6, 0.3)

    found = compare([one], [one], "uar", DIMENSIONS, repeats=100)
    assert (found.difference, found.interval, found.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_paired_interval_is_narrower_if_the_errors_are_correlated():
    labels, ratings, random = corpus(400)
    base = noisy(labels, ratings, random, 0.6, 0.4)
    near = predictions_of(labels, ratings, values=base.dimensions + 0.02 * random.normal(size=ratings.shape))
    apart = noisy(labels, ratings, random, 0.6, 0.4)

    widths = []
    for other in (near, apart):
        low, high = compare([base], [other], "ccc_valence", DIMENSIONS, repeats=300).interval
        widths.append(high - low)
    assert widths[0] < widths[1] / 3


def test_aggregate_is_the_mean_over_seeds():
    labels, ratings, random = corpus()
    seeds = [noisy(labels, ratings, random, 0.6, 0.3) for _ in range(3)]
    value, (low, high) = aggregate(seeds, "ccc_valence", DIMENSIONS, repeats=300)

    alone = [concordance_correlation(each.dimensions[:, 1], ratings[:, 1]) for each in seeds]
    assert value == pytest.approx(np.mean(alone))
    assert low < value < high
    assert compare(seeds, seeds, "uar", DIMENSIONS, repeats=50).runs == 3


def test_interval_over_speakers_equals_a_direct_bootstrap():
    labels, ratings, random = corpus(120)
    one = noisy(labels, ratings, random, 0.6, 0.3)
    _, interval = aggregate([one], "ccc_valence", DIMENSIONS, repeats=200, seed=3)

    draws, values = np.random.default_rng(3), []
    members = [np.flatnonzero(one.speakers == name) for name in sorted(set(one.speakers))]
    for _ in range(200):
        rows = np.concatenate([members[place] for place in draws.integers(8, size=8)])
        values.append(concordance_correlation(one.dimensions[rows, 1], ratings[rows, 1]))
    assert interval == pytest.approx((np.quantile(values, 0.025), np.quantile(values, 0.975)), abs=1e-12)


@pytest.mark.parametrize(("speakers", "over"), [(2, "clips"), (3, "clips"), (4, "speakers")])
def test_comparison_and_single_scores_resample_the_same_units(speakers, over):
    labels, ratings, random = corpus(60)
    one, other = (noisy(labels, ratings, random, 0.6, noise, speakers=speakers) for noise in (0.3, 0.5))

    found = compare([one], [other], "ccc_valence", DIMENSIONS, repeats=100)
    alone = measure(one, list("abcd"), DIMENSIONS, None, repeats=100)

    assert found.intervals_over == alone["intervals_over"] == over
    _, interval = aggregate([one], "ccc_valence", DIMENSIONS, repeats=100)
    assert interval == pytest.approx(alone["intervals"]["ccc_valence"], abs=1e-12)
    by_hand = bootstrap_interval(
        lambda a, b, r: concordance_correlation(a, r) - concordance_correlation(b, r),
        *(one.dimensions[:, 1], other.dimensions[:, 1], ratings[:, 1]),
        groups=None if over == "clips" else one.speakers,
        repeats=100,
    )
    assert found.interval == pytest.approx(by_hand, abs=1e-12)
    assert (found.units, found.unit) == (speakers, "speakers")  # the permutation test exchanges speakers
    assert found.p_value >= 2 / 2**speakers


def test_relative_difference_leaves_out_resamples_without_a_positive_second_score():
    labels, ratings, random = corpus(40)
    one = noisy(labels, ratings, random, 0.6, 0.3)
    other = predictions_of(labels, ratings, values=ratings[random.permutation(40)])  # a CCC about 0
    found = compare([one], [other], "ccc_valence", DIMENSIONS, repeats=200)

    draws, values = np.random.default_rng(0), []
    members = [np.flatnonzero(one.speakers == name) for name in sorted(set(one.speakers))]
    for _ in range(200):
        rows = np.concatenate([members[place] for place in draws.integers(8, size=8)])
        a, b = (concordance_correlation(each.dimensions[rows, 1], ratings[rows, 1]) for each in (one, other))
        values.append((a - b) / b if b > 0 else None)
    kept = [value for value in values if value is not None]
    assert 20 < len(kept) < 180
    assert found.relative_interval == pytest.approx((np.quantile(kept, 0.025), np.quantile(kept, 0.975)))
    never = compare(
        [one], [predictions_of(labels, ratings, values=1 - ratings)], "ccc_valence", DIMENSIONS, repeats=20
    )
    assert np.isnan(never.relative_interval).all()


def test_pooling_folds_sorts_clips_and_rejects_duplicates():
    labels, ratings, random = corpus(40)
    folds = [noisy(labels, ratings, random, 0.6, 0.3, prefix=name) for name in ("b", "a")]

    pooled = pool_folds(folds)
    assert pooled.ids == sorted(folds[0].ids + folds[1].ids)
    np.testing.assert_array_equal(pooled.dimensions, np.concatenate([folds[1].dimensions, folds[0].dimensions]))
    with pytest.raises(ValueError, match="a00000"):
        pool_folds([folds[1], folds[1]])


def test_different_clips_labels_or_numbers_of_runs_raise():
    labels, ratings, random = corpus(40)
    one = noisy(labels, ratings, random, 0.6, 0.3)

    with pytest.raises(ValueError, match="c00039"):
        compare([one], [one.take(np.arange(39))], "uar", DIMENSIONS)
    with pytest.raises(ValueError, match="same labels"):
        compare([one], [predictions_of((labels + 1) % 4, ratings)], "uar", DIMENSIONS)
    with pytest.raises(ValueError, match="as many runs"):
        compare([one, one], [one], "uar", DIMENSIONS)
    with pytest.raises(ValueError, match="ccc_dominance"):
        compare([one], [one], "ccc_boredom", DIMENSIONS)


def test_unknown_speakers_give_an_interval_over_clips():
    labels, ratings, random = corpus(60)
    one, other = (noisy(labels, ratings, random, 0.6, 0.3) for _ in range(2))
    one.speakers = other.speakers = np.array([""] * 60)

    found = compare([one], [other], "ccc_valence", DIMENSIONS, repeats=100)
    assert (found.units, found.unit) == (60, "clips")
    columns = one.dimensions[:, 1], other.dimensions[:, 1], ratings[:, 1]
    by_hand = bootstrap_interval(
        lambda a, b, r: concordance_correlation(a, r) - concordance_correlation(b, r), *columns, repeats=100
    )
    assert found.interval == pytest.approx(by_hand)
