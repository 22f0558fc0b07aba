"""Markdown tables of a set of runs over folds and seeds: its models, paired comparisons, and robustness.

The results of a run are `<name>-fold-<k>-seed-<s>.json` and, with its predictions, `.parquet`, as copied by
`recipes/experiments/run_set.py`. The titles of the rows are in the set.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from audio_emotion.evaluation.bootstrap import aggregate, compare, intervals_over
from audio_emotion.evaluation.metrics import concordance_correlation
from audio_emotion.evaluation.plots import metric_title
from audio_emotion.evaluation.predictions import Predictions, load_predictions, pool_folds
from audio_emotion.evaluation.report import control_dimensions
from audio_emotion.hub.card_sections import markdown_table

DIMENSIONS = ("activation", "valence", "dominance")
FOLD_FILE = re.compile(r"(?P<name>.+)-fold-(?P<fold>\d+)-seed-(?P<seed>\d+)\.json")
SEEDS = 3  # of a claim, on every fold of its set; a row with fewer is a hint
METRICS = ("uar", *(f"ccc_{name}" for name in DIMENSIONS))  # columns, unless the set lists them
COMPARED_METRICS = ("uar", "ccc_valence")


@dataclass
class Row:
    """One model over folds and seeds."""

    results: dict  # `results.json` of one of its runs
    runs: dict[tuple[int, int], Predictions]  # by fold and seed
    emotions: list[str]
    dimensions: list[str]

    def seeds(self, keys: set[tuple[int, int]]) -> list[Predictions]:
        """Predictions of each seed, its folds pooled: each speaker is tested once."""
        return [
            pool_folds([self.runs[fold, at] for fold, at in sorted(keys) if at == seed]) for seed in seeds_of(keys)
        ]


def seeds_of(keys: set[tuple[int, int]]) -> list[int]:
    """The seeds of (fold, seed) pairs."""
    return sorted({seed for _, seed in keys})


def common_folds(keys: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """The (fold, seed) pairs of the folds that all seeds have, so that all seeds have the same test clips."""
    return {(fold, seed) for fold, seed in keys if all((fold, each) in keys for each in seeds_of(keys))}


def fold_rows(folder: Path, run_set: dict[str, Any]) -> dict[str, Row]:
    """The models of a set that have results in `folder`, in the order of the set."""
    rows: dict[str, Row] = {}
    for path in sorted(folder.glob("*.json")):
        match = FOLD_FILE.fullmatch(path.name)
        if match is None:
            raise ValueError(f"Expected files named <name>-fold-<k>-seed-<s>.json in {folder}, got {path.name}.")
        predictions_file = path.with_suffix(".parquet")
        if not predictions_file.exists():
            raise FileNotFoundError(
                f"Expected the predictions of {path.name} in the same folder, got no {predictions_file.name}. Copy it."
            )
        predictions, emotions, dimensions = load_predictions(predictions_file)
        row = rows.setdefault(match["name"], Row(json.loads(path.read_text()), {}, emotions, dimensions))
        row.runs[int(match["fold"]), int(match["seed"])] = predictions
    return {name: rows[name] for name, run in run_set["runs"].items() if name in rows and "title" in run}


def strength(keys: set[tuple[int, int]], run_set: dict[str, Any], recipe: str = "") -> str:
    """Cell with the number of folds and seeds, marked as a hint if there are fewer than a claim needs."""
    folds, seeds = {fold for fold, _ in keys}, seeds_of(keys)
    needed = 1 if recipe == "baseline" else SEEDS  # which is deterministic
    claim = folds >= set(run_set["folds"]) and len(seeds) >= needed
    return f"{len(folds)}, {len(seeds)}" + ("" if claim else ", *hint*")


def no_score_reason(run: dict[str, Any], metric: str) -> str:
    """Why a run has no score in a metric; empty if it has one."""
    task = "emotions" if metric == "uar" else "dimensions"
    if run["recipe"] == "baseline" and task == "dimensions":
        return "no head"
    weights = run["arguments"].get("dimension_weights")
    untrained = task == "dimensions" and weights and weights[DIMENSIONS.index(metric.removeprefix("ccc_"))] == 0
    return "not trained" if untrained or run["arguments"].get(f"{task}_weight", 1.0) == 0 else ""


def fold_table(
    folder: Path, run_set: dict[str, Any], repeats: int = 2000, only: set[tuple[int, int]] | None = None
) -> str:
    """Models over folds and seeds in Markdown: the mean over seeds of each seed's pooled folds.

    `only` these (fold, seed) pairs; None for all that exist.
    """
    rows, metrics = fold_rows(folder, run_set), run_set.get("metrics", METRICS)
    if only is not None:
        kept = {name: {key: run for key, run in row.runs.items() if key in only} for name, row in rows.items()}
        rows = {name: replace(row, runs=kept[name]) for name, row in rows.items() if kept[name]}
    derived = norm_derived(rows) and any(metric.startswith("ccc_") for metric in metrics)
    control = ["control CCC (a / v / d)"] if derived else []
    columns = ["model", "folds, seeds", *map(metric_title, metrics), *control, "parameters"]
    lines, resampled = [], set()
    for name, row in rows.items():
        run, keys = run_set["runs"][name], common_folds(set(row.runs))
        seeds = row.seeds(keys)
        resampled.add(intervals_over(seeds[0]))
        values = [run["title"], strength(keys, run_set, run["recipe"])]
        for metric in metrics:
            if why := no_score_reason(run, metric):
                values.append(why)
                continue
            value, (low, high) = aggregate(seeds, metric, row.dimensions, repeats)
            each = [aggregate([seed], metric, row.dimensions, repeats=1)[0] for seed in seeds]
            spread = f"; seeds {min(each):.3f} to {max(each):.3f}" if len(seeds) > 1 else ""
            values.append(f"{value:.3f} ({low:.2f} to {high:.2f}{spread})")
        if derived and no_score_reason(run, "uar"):
            values.append("not trained")
        elif derived:
            controls = [
                concordance_correlation(control_dimensions(seed.logits, row.emotions), seed.dimension_labels)
                for seed in seeds
            ]
            values.append(" / ".join(f"{value:.2f}" for value in np.mean(controls, axis=0)))
        lines.append([*values, f"{row.results['parameters']:,}"])
    first = next(iter(rows.values()))
    clips, speakers = (
        {name for run in first.runs.values() for name in getattr(run, what)} for what in ("ids", "speakers")
    )
    note = (
        f"{len(clips):,} clips of {len(speakers)} speakers, each tested by a model that was not trained on them. The "
        "folds of a seed are pooled and scored as one set; the score is the mean over seeds. In brackets, 95 % "
        f"bootstrap intervals over {resampled_units(resampled)}, and the range of the seeds. Rows with fewer than "
        f"{len(run_set['folds'])} fold{'s' * (len(run_set['folds']) > 1)} or {SEEDS} seeds are hints."
    )
    if "uar" in metrics:
        note += f" Chance is a UAR of {1 / len(first.emotions):.3f}."
    if derived:
        note += (
            " The dimensions are norm-derived: *control* is the score of the norms averaged under the category "
            "posterior, and only a regression head's gain over it is a claim."
        )
    return f"{markdown_table(columns, lines)}\n\n{note}"


def resampled_units(units: Collection[str]) -> str:
    """What the intervals of a table resample, for its note."""
    return "speakers, or clips where few speakers are known" if len(units) > 1 else next(iter(units), "speakers")


def norm_derived(rows: dict[str, Row]) -> bool:
    """Whether the dimensions are norm-derived, in which case the control was scored."""
    return any("control_ccc_valence" in row.results.get("test", {}) for row in rows.values())


def comparison_table(folder: Path, run_set: dict[str, Any], repeats: int = 2000) -> str:
    """Paired comparisons in Markdown, with the paper's claim for valence CCC."""
    rows = fold_rows(folder, run_set)
    columns = "comparison", "folds, seeds", "metric", "first", "second", "difference", "relative", "p", "the paper"
    lines, resampled = [], set()
    for comparison in run_set["comparisons"]:
        names = (comparison["first"], comparison["second"])
        if not set(names) <= set(rows):
            continue
        keys = common_folds(set(rows[names[0]].runs) & set(rows[names[1]].runs))
        if not keys:
            continue
        for metric in [metric for metric in COMPARED_METRICS if metric in run_set.get("metrics", METRICS)]:
            if any(no_score_reason(run_set["runs"][name], metric) for name in names):
                continue
            first, second = (rows[name].seeds(keys) for name in names)
            found = compare(first, second, metric, rows[names[0]].dimensions, repeats)
            resampled.add(found.intervals_over)
            (low, high), (below, above) = found.interval, found.relative_interval
            relative = f"{found.relative:+.0%} ({below:+.0%} to {above:+.0%})"
            cells = [
                comparison["title"],
                strength(keys, run_set),
                metric_title(metric),
                f"{found.first:.3f}",
                f"{found.second:.3f}",
                f"{found.difference:+.3f} ({low:+.3f} to {high:+.3f})",
                relative if np.isfinite(found.relative) else "none",
                f"{found.p_value:.3f} ({found.units} {found.unit})",
                comparison.get("paper", "") if metric == "ccc_valence" else "",
            ]
            lines.append(cells)
    if not lines:
        return ""
    if not any(line[-1] for line in lines):  # the paper claims nothing about these
        columns, lines = columns[:-1], [line[:-1] for line in lines]
    paired = (
        f"Paired over {resampled_units(resampled)}: 95 % bootstrap intervals, and a two-sided permutation test that "
        "exchanges the two models for each speaker. "
    )
    if not any(metric.startswith("ccc_") for metric in run_set.get("metrics", METRICS)):
        pass
    elif norm_derived(rows):
        paired += (
            "The paper's gains are on listeners' ratings of spontaneous speech (MSP-Podcast), ours on norms of the "
            "acted emotion's word, which contain no more information than the category and its intensity: they can "
            "show that distillation and fusion help to distinguish these emotions, but not that a model predicts "
            "differences of valence within one emotion."
        )
    else:
        paired += (
            "The paper's gains are on test sets of early releases of MSP-Podcast, and much of its method is not "
            "public: only the relative gains can be compared, not the values."
        )
    return f"{markdown_table(columns, lines)}\n\n{paired}"


def corruption_table(folder: Path, run_set: dict[str, Any], repeats: int = 2000) -> str:
    """Models on corrupted clips beside the same models on clips as recorded, in Markdown.

    Results with a corruption are in a subfolder of its name; runs with `corruptions` are shown.
    """
    clean_rows, metrics = fold_rows(folder, run_set), run_set.get("metrics", METRICS)
    lines = [
        f"| model | clips | folds, seeds | {' | '.join(map(metric_title, metrics))} |",
        "| --- " * (3 + len(metrics)) + "|",
    ]
    for name, run in run_set["runs"].items():
        rows = {each: fold_rows(folder / each, run_set).get(name) for each in run.get("corruptions", [])}
        for number, (corruption, row) in enumerate((each, row) for each, row in rows.items() if row is not None):
            keys = common_folds(set(clean_rows[name].runs) & set(row.runs))
            clean, corrupted = clean_rows[name].seeds(keys), row.seeds(keys)
            if number == 0:
                cells = [f"{aggregate(clean, metric, row.dimensions, repeats=1)[0]:.3f}" for metric in metrics]
                lines.append(f"| {run['title']} | as recorded | {strength(keys, run_set)} | {' | '.join(cells)} |")
            cells = []
            for metric in metrics:
                found = compare(corrupted, clean, metric, row.dimensions, repeats)
                low, high = found.interval
                cells.append(f"{found.first:.3f}: {found.difference:+.3f} ({low:+.2f} to {high:+.2f})")
            lines.append(f"| | {corruption} | {strength(keys, run_set)} | {' | '.join(cells)} |")
    lines += [
        "",
        "Score, and its difference from the score on clips as recorded, with the 95 % bootstrap interval over "
        "speakers. One seed is a hint.",
    ]
    return "\n".join(lines)


def set_tables(run_set: dict[str, Any], repeats: int = 2000) -> str:
    """All tables of a set, one group per test set, because scores on different clips cannot be compared."""
    results = Path(run_set["results"])
    parts = []
    for folder in (results, *(results / name for name in run_set.get("also_test", {}))):
        if rows := fold_rows(folder, run_set):
            protocol = next(iter(rows.values())).results["protocol"]
            parts += [f"Tested on `{protocol}`:"] if run_set.get("also_test") else []
            parts += [fold_table(folder, run_set, repeats), comparison_table(folder, run_set, repeats)]
    if not parts:
        raise FileNotFoundError(
            f"Expected results in {results}, got none. Run the set: recipes/experiments/run_set.py."
        )
    return "\n\n".join(parts)
