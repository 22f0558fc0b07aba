"""Metrics agree with a second implementation and with formulas, edge cases included."""

import audmetric
import numpy as np
import pytest
import sklearn.metrics

from audio_emotion.evaluation.bootstrap import bootstrap_interval
from audio_emotion.evaluation.metrics import (
    _confusion_counts,
    accuracy,
    concordance_correlation,
    expected_calibration_error,
    macro_f1,
    mean_absolute_error,
    pearson_correlation,
    unweighted_average_recall,
)


@pytest.fixture
def values():
    """Related predictions and references, (50, 3)."""
    random = np.random.default_rng(0)
    references = random.random((50, 3))
    return 0.4 * references + 0.2 * random.random((50, 3)), references


@pytest.fixture
def classes():
    """Predictions and references of four classes of unequal size, (200,)."""
    random = np.random.default_rng(1)
    references = random.choice(["angry", "calm", "happy", "sad"], 200, p=[0.5, 0.3, 0.15, 0.05])
    predictions = np.where(random.random(200) < 0.6, references, random.permutation(references))
    return predictions, references


def _lin_1989(predictions, references):
    """The formula as Lin prints it, with sums over clips."""
    n = len(predictions)
    mean_p, mean_r = sum(predictions) / n, sum(references) / n
    covariance = sum((p - mean_p) * (r - mean_r) for p, r in zip(predictions, references, strict=True)) / n
    variance_p = sum((p - mean_p) ** 2 for p in predictions) / n
    variance_r = sum((r - mean_r) ** 2 for r in references) / n
    return 2 * covariance / (variance_p + variance_r + (mean_p - mean_r) ** 2)


def test_concordance_agrees_with_lin_and_audmetric_in_every_column(values):
    predictions, references = values
    ours = concordance_correlation(predictions, references)

    for column in range(3):
        assert ours[column] == pytest.approx(_lin_1989(predictions[:, column], references[:, column]), abs=1e-12)
        assert ours[column] == pytest.approx(
            audmetric.concordance_cc(references[:, column], predictions[:, column]), abs=1e-12
        )


def test_concordance_of_three_clips_is_four_sevenths():
    # means 2 and 3, both variances 2/3, covariance 2/3: 2 (2/3) / (2/3 + 2/3 + 1) = 4/7
    assert concordance_correlation([1, 2, 3], [2, 3, 4]) == pytest.approx(4 / 7, abs=1e-15)


def test_concordance_is_computed_in_double_precision():
    random = np.random.default_rng(2)
    references = (1e4 + random.random(500)).astype(np.float32)
    predictions = (1e4 + random.random(500)).astype(np.float32)

    assert concordance_correlation(predictions, references) == pytest.approx(
        _lin_1989(predictions.astype(float).tolist(), references.astype(float).tolist()), abs=1e-9
    )


@pytest.mark.parametrize("metric", [concordance_correlation, pearson_correlation])
def test_constant_column_scores_zero(metric):
    varied = np.linspace(0, 1, 9)

    assert metric(np.full(9, 0.1), varied) == 0.0
    assert metric(varied, np.full(9, 0.1)) == 0.0
    assert metric(np.full(9, 0.1), np.full(9, 0.1)) == 0.0


@pytest.mark.parametrize("metric", [concordance_correlation, pearson_correlation, mean_absolute_error])
def test_unlabeled_clips_are_left_out_column_by_column(metric, values):
    predictions, references = values
    gaps = references.copy()
    gaps[:7, 0] = np.nan
    gaps[40:, 2] = np.nan

    expected = [
        metric(predictions[7:, 0], references[7:, 0]),
        metric(predictions[:, 1], references[:, 1]),
        metric(predictions[:40, 2], references[:40, 2]),
    ]
    np.testing.assert_allclose(metric(predictions, gaps), expected, rtol=0, atol=1e-15)


def test_fewer_than_two_labels_give_nan():
    assert np.isnan(concordance_correlation([0.1, 0.2], [np.nan, 0.3]))
    assert np.isnan(pearson_correlation([0.1, 0.2], [np.nan, 0.3]))
    assert np.isnan(mean_absolute_error([0.1], [np.nan]))


def test_prediction_that_is_not_finite_is_an_error_that_names_the_clip():
    with pytest.raises(ValueError, match="clip 1"):
        concordance_correlation([0.1, np.nan, 0.3], [0.1, 0.2, 0.3])


def test_unequal_shapes_are_an_error():
    with pytest.raises(ValueError, match="one shape"):
        concordance_correlation([0.1, 0.2], [[0.1], [0.2]])
    with pytest.raises(ValueError, match="one shape"):
        accuracy(["sad", "calm"], ["sad"])


def test_pearson_and_absolute_error_agree_with_audmetric(values):
    predictions, references = values

    for column in range(3):
        pair = references[:, column], predictions[:, column]
        assert pearson_correlation(*pair[::-1]) == pytest.approx(audmetric.pearson_cc(*pair), abs=1e-12)
        assert mean_absolute_error(*pair[::-1]) == pytest.approx(audmetric.mean_absolute_error(*pair), abs=1e-12)


def test_class_metrics_agree_with_scikit_learn(classes):
    predictions, references = classes

    assert accuracy(*classes) == pytest.approx(sklearn.metrics.accuracy_score(references, predictions))
    assert unweighted_average_recall(*classes) == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(references, predictions)
    )
    assert macro_f1(*classes) == pytest.approx(sklearn.metrics.f1_score(references, predictions, average="macro"))
    np.testing.assert_array_equal(
        _confusion_counts(*classes), sklearn.metrics.confusion_matrix(references, predictions)
    )


def test_class_without_references_counts_in_f1_and_not_in_recall():
    predictions, references = ["happy", "sad", "calm"], ["happy", "sad", "sad"]

    assert unweighted_average_recall(predictions, references) == pytest.approx((1 + 1 / 2) / 2)
    assert macro_f1(predictions, references) == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_no_clips_give_nan_and_one_right_clip_gives_one():
    for metric in (accuracy, unweighted_average_recall, macro_f1):
        assert np.isnan(metric(np.zeros(0, int), np.zeros(0, int)))
        assert metric([3], [3]) == 1.0


def test_calibration_error_is_the_sum_over_bins():
    random = np.random.default_rng(3)
    probabilities = random.dirichlet([0.4] * 4, size=400)
    labels = random.integers(4, size=400)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels

    expected = 0.0
    for lower in np.arange(15) / 15:
        inside = (confidence > lower) & (confidence <= lower + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(probabilities, labels) == pytest.approx(expected, abs=1e-9)


def test_certain_and_right_is_calibrated_and_certain_and_wrong_is_not():
    assert expected_calibration_error(np.eye(3), [0, 1, 2]) == 0.0
    assert expected_calibration_error(np.eye(3), [1, 2, 0]) == 1.0


@pytest.mark.parametrize("logits", [[[2.0, -1.0]], [[3.0, 1.0]]])
def test_logits_are_refused_as_probabilities(logits):
    with pytest.raises(ValueError, match="softmax"):
        expected_calibration_error(logits, [0])


def test_bootstrap_of_a_mean_agrees_with_the_normal_interval():
    sample = np.random.default_rng(4).normal(size=400)
    low, high = bootstrap_interval(np.mean, sample, repeats=4000)
    half = 1.96 * sample.std(ddof=1) / np.sqrt(400)

    assert low == pytest.approx(sample.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(sample.mean() + half, abs=0.1 * half)


def test_bootstrap_over_speakers_resamples_whole_speakers():
    speakers = np.repeat(["a", "b", "c"], [1, 2, 3])
    sampled = []

    bootstrap_interval(lambda names: sampled.append(names) or 0.0, speakers, groups=speakers, repeats=50)

    for names in sampled:
        times = {name: np.count_nonzero(names == name) / size for name, size in zip("abc", (1, 2, 3), strict=True)}
        assert sum(times.values()) == 3
        assert all(count == int(count) for count in times.values())


def test_interval_over_speakers_is_wider_if_clips_of_a_speaker_are_correlated():
    speakers = np.repeat(np.arange(8), 30)
    sample = np.random.default_rng(5).normal(size=8)[speakers]
    by_clip, by_speaker = bootstrap_interval(np.mean, sample), bootstrap_interval(np.mean, sample, groups=speakers)

    assert by_speaker[1] - by_speaker[0] > 3 * (by_clip[1] - by_clip[0])


def test_bootstrap_resamples_all_arrays_together_and_keeps_columns(values):
    low, high = bootstrap_interval(concordance_correlation, *values, repeats=200)
    point = concordance_correlation(*values)

    assert low.shape == high.shape == (3,)
    assert ((low < point) & (point < high)).all()


def test_bootstrap_repeats_itself_for_one_seed(values):
    one, same = (bootstrap_interval(mean_absolute_error, *values, repeats=50, seed=3) for _ in range(2))
    other = bootstrap_interval(mean_absolute_error, *values, repeats=50, seed=4)

    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_bootstrap_over_one_speaker_is_an_error():
    with pytest.raises(ValueError, match="at least two"):
        bootstrap_interval(np.mean, [0.1, 0.2], groups=["a", "a"])


def test_confidence_on_an_edge_belongs_to_the_bin_below():
    # two bins: 0.5 and right, 0.9 and wrong; together in one bin they would give 0.2
    assert expected_calibration_error([[0.5, 0.5], [0.9, 0.1]], [0, 1], bins=2) == pytest.approx((0.5 + 0.9) / 2)
