"""Metrics as modules of `evaluate`: offline, alone, equal to metrics.py and to a second implementation."""

from __future__ import annotations

import ast
import sys

import audmetric
import evaluate
import numpy as np
import pytest
import sklearn.metrics

from audio_emotion.evaluation import METRIC_MODULES, metric_module, metrics

NAMES = {"ccc", "pearson", "mae", "uar", "war", "macro_f1", "per_class_recall", "expected_calibration_error"}
OF_NUMBERS = {
    "ccc": (metrics.concordance_correlation, audmetric.concordance_cc),
    "pearson": (metrics.pearson_correlation, audmetric.pearson_cc),
    "mae": (metrics.mean_absolute_error, audmetric.mean_absolute_error),
}
OF_CLASSES = {
    "uar": (metrics.unweighted_average_recall, sklearn.metrics.balanced_accuracy_score),
    "war": (metrics.accuracy, sklearn.metrics.accuracy_score),
    "macro_f1": (
        metrics.macro_f1,
        lambda true, called: sklearn.metrics.f1_score(true, called, average="macro"),
    ),
    "per_class_recall": (metrics.per_class_recall, audmetric.recall_per_class),
}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a metric reached for the network"))


def load(name: str, configuration: str | None = None):
    return evaluate.load(metric_module(name), configuration)


def test_every_metric_is_a_module_and_another_name_is_refused():
    assert {path.name for path in METRIC_MODULES.iterdir() if path.name != "__pycache__"} == NAMES
    with pytest.raises(ValueError, match="macro_f1"):
        metric_module("f2")


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_module_needs_nothing_of_our_package(name):
    tree = ast.parse((METRIC_MODULES / name / f"{name}.py").read_text())
    roots = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    roots |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    assert roots - set(sys.stdlib_module_names) == {"datasets", "evaluate", "numpy"}


@pytest.mark.parametrize("name", sorted(OF_NUMBERS))
def test_numbers_agree_with_metrics_and_a_second_implementation(name):
    random = np.random.default_rng(0)
    true = random.random((60, 3))
    predicted = 0.5 * true + 0.3 * random.random((60, 3))
    ours, theirs = OF_NUMBERS[name]

    one = load(name).compute(predictions=predicted[:, 0], references=true[:, 0])[name]
    several = load(name, "multilist").compute(predictions=predicted, references=true)[name]
    assert one == pytest.approx(theirs(true[:, 0], predicted[:, 0]), abs=1e-12)
    np.testing.assert_allclose(several, ours(predicted, true), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", sorted(OF_NUMBERS))
def test_unrated_clips_are_left_out_and_too_few_give_nan(name):
    ours, _ = OF_NUMBERS[name]
    metric, predicted = load(name), [0.2, 0.4, 0.9, 0.1]

    for gap in (None, float("nan")):
        scored = metric.compute(predictions=predicted, references=[0.1, gap, 0.8, 0.3])[name]
        assert scored == pytest.approx(ours([0.2, 0.9, 0.1], [0.1, 0.8, 0.3]), abs=1e-12)
    alone = metric.compute(predictions=[0.2], references=[0.3])[name]
    assert alone == pytest.approx(0.1) if name == "mae" else np.isnan(alone)
    assert np.isnan(metric.compute(predictions=[], references=[])[name])
    with pytest.raises(ValueError, match="finite"):
        metric.compute(predictions=[float("nan"), 0.1], references=[0.1, 0.2])


@pytest.mark.parametrize("name", ["ccc", "pearson"])
def test_constant_predictions_score_zero_in_the_module_too(name):
    assert load(name).compute(predictions=[0.1] * 5, references=[0.1, 0.2, 0.3, 0.4, 0.5])[name] == 0.0
    assert load(name).compute(predictions=[0.1] * 5, references=[0.1] * 5)[name] == 0.0


@pytest.mark.parametrize("name", sorted(OF_CLASSES))
def test_classes_agree_with_metrics_and_a_second_implementation(name):
    random = np.random.default_rng(1)
    words = np.array(["angry", "calm", "happy", "sad"])
    true = random.choice(4, 200, p=[0.5, 0.3, 0.15, 0.05])
    called = np.where(random.random(200) < 0.6, true, random.permutation(true))
    ours, theirs = OF_CLASSES[name]

    numbers = load(name).compute(predictions=called, references=true)[name]
    names = load(name, "names").compute(predictions=words[called].tolist(), references=words[true].tolist())[name]
    assert numbers == pytest.approx(theirs(true, called), abs=1e-12)
    assert numbers == pytest.approx(ours(called, true), abs=1e-12)
    assert names == pytest.approx(ours(words[called], words[true]), abs=1e-12)


def test_absent_class_has_no_recall_and_counts_against_f1():
    pair = {"predictions": ["happy", "sad", "calm"], "references": ["happy", "sad", "sad"]}

    assert load("uar", "names").compute(**pair)["uar"] == pytest.approx((1 + 1 / 2) / 2)
    assert load("macro_f1", "names").compute(**pair)["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert np.isnan(load("per_class_recall", "names").compute(**pair)["per_class_recall"]["calm"])


@pytest.mark.parametrize("name", ["uar", "war", "macro_f1"])
def test_no_clips_give_nan_and_one_right_clip_gives_one(name):
    assert np.isnan(load(name).compute(predictions=[], references=[])[name])
    assert load(name).compute(predictions=[3], references=[3])[name] == 1.0


def test_calibration_error_agrees_with_metrics_and_the_sum_by_hand():
    random = np.random.default_rng(2)
    scores, labels = random.dirichlet([0.4] * 4, size=300), random.integers(4, size=300)
    metric = load("expected_calibration_error")

    found = metric.compute(predictions=scores, references=labels)["expected_calibration_error"]
    assert found == pytest.approx(metrics.expected_calibration_error(scores, labels), abs=1e-12)
    by_hand = metric.compute(predictions=[[0.5, 0.5], [0.9, 0.1]], references=[0, 1], bins=2)
    assert by_hand["expected_calibration_error"] == pytest.approx((0.5 + 0.9) / 2)
    with pytest.raises(ValueError, match="softmax"):
        metric.compute(predictions=[[2.0, -1.0]], references=[0])
