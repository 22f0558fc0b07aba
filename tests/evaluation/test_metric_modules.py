"""The `evaluate` modules work offline and without the package, and agree with metrics.py."""

from __future__ import annotations

import ast
import sys

import audmetric
import evaluate
import numpy as np
import pytest

from audio_emotion.evaluation import METRIC_MODULES, metric_module, metrics

NAMES = {"ccc", "expected_calibration_error"}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a metric used the network"))


def load(name: str, configuration: str | None = None):
    return evaluate.load(metric_module(name), configuration)


def test_every_metric_loads_by_name_and_an_unknown_name_raises():
    assert {path.name for path in METRIC_MODULES.iterdir() if path.name != "__pycache__"} == NAMES
    with pytest.raises(ValueError, match="ccc"):
        metric_module("f2")


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_module_does_not_import_the_package(name):
    tree = ast.parse((METRIC_MODULES / name / f"{name}.py").read_text())
    roots = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    roots |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    assert roots - set(sys.stdlib_module_names) == {"datasets", "evaluate", "numpy"}


def test_ccc_agrees_with_metrics_and_a_second_implementation():
    random = np.random.default_rng(0)
    true = random.random((60, 3))
    predicted = 0.5 * true + 0.3 * random.random((60, 3))

    one = load("ccc").compute(predictions=predicted[:, 0], references=true[:, 0])["ccc"]
    several = load("ccc", "multilist").compute(predictions=predicted, references=true)["ccc"]
    assert one == pytest.approx(audmetric.concordance_cc(true[:, 0], predicted[:, 0]), abs=1e-12)
    np.testing.assert_allclose(several, metrics.concordance_correlation(predicted, true), rtol=0, atol=1e-12)


def test_ccc_leaves_unrated_clips_out_and_too_few_give_nan():
    metric, predicted = load("ccc"), [0.2, 0.4, 0.9, 0.1]

    for gap in (None, float("nan")):
        scored = metric.compute(predictions=predicted, references=[0.1, gap, 0.8, 0.3])["ccc"]
        expected = metrics.concordance_correlation([0.2, 0.9, 0.1], [0.1, 0.8, 0.3])
        assert scored == pytest.approx(expected, abs=1e-12)
    assert np.isnan(metric.compute(predictions=[0.2], references=[0.3])["ccc"])
    assert np.isnan(metric.compute(predictions=[], references=[])["ccc"])
    with pytest.raises(ValueError, match="finite"):
        metric.compute(predictions=[float("nan"), 0.1], references=[0.1, 0.2])


def test_ccc_of_constant_predictions_is_zero():
    assert load("ccc").compute(predictions=[0.1] * 5, references=[0.1, 0.2, 0.3, 0.4, 0.5])["ccc"] == 0.0
    assert load("ccc").compute(predictions=[0.1] * 5, references=[0.1] * 5)["ccc"] == 0.0


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
