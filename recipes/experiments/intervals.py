"""Table of predicted variances: their effect on the means, and how many ratings lie inside their intervals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from set_tables import fold_rows

from audio_emotion.evaluation.bootstrap import compare
from audio_emotion.evaluation.metrics import interval_coverage
from audio_emotion.evaluation.predictions import Predictions, pool_folds
from audio_emotion.evaluation.report_statistics import coverage
from audio_emotion.hub.card_sections import markdown_table


def uncalibrated(folds: dict[int, Predictions], scales: dict[int, dict[str, float]], names: list[str]) -> Predictions:
    """The pooled folds with the variances of the training: each divided by its factor from the validation speakers."""
    for number, fold in folds.items():
        factors = np.array([scales[number].get(name, 1.0) for name in names])
        assert fold.variances is not None
        fold.variances = fold.variances / factors**2
    return pool_folds(list(folds.values()))


def surest_half(predictions: Predictions, column: int) -> tuple[float, float]:
    """Mean absolute error of all rated clips, and of the half with the smallest predicted variance."""
    assert predictions.variances is not None
    rated = np.isfinite(predictions.dimension_labels[:, column])
    errors = np.abs(predictions.dimensions - predictions.dimension_labels)[rated, column]
    order = np.argsort(predictions.variances[rated, column], kind="stable")
    return float(errors.mean()), float(errors[order[: len(order) // 2]].mean())


def interval_table(folder: Path, run_set: dict[str, Any], repeats: int = 2000) -> str:
    """CCC with and without a head for the variance, and coverage of its intervals, in Markdown.

    Args:
        folder: results of the runs `means` and `variances` of the set, one seed.
        run_set: the set.
        repeats: bootstrap samples.
    """
    rows = fold_rows(folder, run_set)
    names, keys = rows["variances"].dimensions, sorted(set(rows["variances"].runs) & set(rows["means"].runs))
    means, variances = (pool_folds([rows[name].runs[key] for key in keys]) for name in ("means", "variances"))
    scales = {
        fold: json.loads((folder / f"variances-fold-{fold}-seed-{seed}.json").read_text())["variance_scale"]
        for fold, seed in keys
    }
    before = uncalibrated(
        {fold: rows["variances"].runs[fold, seed].take(slice(None)) for fold, seed in keys}, scales, names
    )
    inside = coverage(variances, names, repeats)
    lines = []
    for column, name in enumerate(names):
        found = compare([variances], [means], f"ccc_{name}", names, repeats)
        low, high = found.interval
        cells = [f"{found.second:.3f}", f"{found.first:.3f} ({found.difference:+.3f}, {low:+.3f} to {high:+.3f})"]
        assert before.variances is not None
        parts = (before.dimensions, before.variances, before.dimension_labels)
        cells.append(percent(float(interval_coverage(*(each[:, column] for each in parts), 0.9))))
        for level in ("0.9", "0.5"):
            ends = " to ".join(percent(end) for end in inside[name]["inside"][level]["interval"])
            cells.append(f"{percent(inside[name]['inside'][level]['fraction'])} ({ends})")
        error, of_half = surest_half(variances, column)
        lines.append([name, *cells, f"{error:.3f}", f"{of_half:.3f}"])
    columns = [
        "rated by listeners",
        "CCC without variances",
        "CCC with (difference)",
        "in 90 % intervals, not calibrated",
        "in 90 % intervals",
        "in 50 % intervals",
        "mean error",
        "of the half with the smallest variance",
    ]
    return (
        f"{markdown_table(columns, lines)}\n\n"
        f"{len(means.ids):,} clips of {len({*means.speakers.tolist()})} speakers in {len(keys)} folds, one seed: a "
        "hint. In brackets, 95 % bootstrap intervals over speakers."
    )


def percent(fraction: float) -> str:
    """A fraction in whole percent."""
    return f"{100 * fraction:.0f} %"
