"""recipes/experiments/intervals.py: coverage of calibrated variances, and of those before."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from intervals import interval_table, surest_half
from scipy.stats import norm

from audio_emotion.evaluation.predictions import Predictions, save_predictions

NAMES = ["activation", "valence", "dominance"]
SET = {"folds": [1, 2], "runs": {"means": {"title": "means"}, "variances": {"title": "variances"}}}


def fold(number: int) -> Predictions:
    """Four speakers, whose errors have the predicted standard deviation."""
    random = np.random.default_rng(number)
    rated = random.random((400, 3)).astype(np.float32)
    errors = random.uniform(0.02, 0.2, (400, 3))
    empty = np.zeros((400, 0))
    return Predictions(
        ids=[f"toy/{number}-{clip:03d}" for clip in range(400)],
        speakers=np.array([f"toy/{4 * number + clip % 4}" for clip in range(400)]),
        logits=empty,
        dimensions=(rated + errors * random.normal(size=(400, 3))).astype(np.float32),
        embedding=empty,
        labels=np.full(400, -100),
        dimension_labels=rated,
        variances=errors**2,
    )


def test_coverage_is_of_calibrated_variances_and_beside_it_of_those_before(tmp_path):
    for number, scale in ((1, 2.0), (2, 4.0)):
        found = fold(number)
        for name in SET["runs"]:
            results = {"recipe": "train_teacher", "variance_scale": dict.fromkeys(NAMES, scale)}
            (tmp_path / f"{name}-fold-{number}-seed-0.json").write_text(json.dumps(results))
            found.variances = None if name == "means" else fold(number).variances
            save_predictions(found, tmp_path / f"{name}-fold-{number}-seed-0.parquet", [], NAMES)

    table = interval_table(tmp_path, SET, 20)

    for name in NAMES:
        (line,) = [line for line in table.splitlines() if line.startswith(f"| {name}")]
        without, with_, before, ninety, fifty, error, half = (cell.strip() for cell in line.strip("|").split("|")[1:])
        assert with_.startswith(f"{without} (+0.000, +0.000")
        expected = np.mean([2 * norm.cdf(norm.ppf(0.95) / scale) - 1 for scale in (2.0, 4.0)])
        assert int(before.split()[0]) == pytest.approx(100 * expected, abs=4)
        assert int(ninety.split()[0]) == pytest.approx(90, abs=3)
        assert int(fifty.split()[0]) == pytest.approx(50, abs=4)
        assert float(half) < 0.7 * float(error)
    assert re.search(r"800 clips of 8 speakers in 2 folds", table)


def test_the_surest_half_has_the_smallest_variances():
    found = fold(1)
    found.dimension_labels[:200, 1] = np.nan
    errors = np.abs(found.dimensions - found.dimension_labels)[200:, 1]
    smallest = errors[found.variances[200:, 1] <= np.median(found.variances[200:, 1])]
    assert surest_half(found, 1) == pytest.approx((errors.mean(), smallest.mean()))
