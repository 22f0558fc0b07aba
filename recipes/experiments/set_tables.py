"""Tables of a set of runs over folds and seeds, in Markdown: its models, and its paired comparisons.

A run is what `recipes/experiments/run_set.py` leaves: `<name>-fold-<k>-seed-<s>.json`, with the predictions beside it as
`.parquet`. The words of the rows stand in the set.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from audio_emotion.evaluation.bootstrap import Comparison, aggregate, compare, pooled
from audio_emotion.evaluation.metrics import concordance_correlation
from audio_emotion.evaluation.predictions import Predictions, load_predictions
from audio_emotion.evaluation.report import control_dimensions, intervals_over

DIMENSIONS = ("activation", "valence", "dominance")
FOLD_FILE = re.compile(r"(?P<name>.+)-fold-(?P<fold>\d+)-seed-(?P<seed>\d+)\.json")
SEEDS = 3  # that a claim takes, on every fold of its set; less is a hint
METRICS = ("uar", *(f"ccc_{name}" for name in DIMENSIONS))  # columns, unless the set says which
COMPARED = ("uar", "ccc_valence")  # those of them in which models are compared


@dataclass
class Row:
    """One model over folds and seeds.

    Attributes:
        results: what any of its runs wrote.
        runs: predictions by fold and seed.
        emotions: in logit order.
        dimensions: in column order.
    """

    results: dict
    runs: dict[tuple[int, int], Predictions]
    emotions: list[str]
    dimensions: list[str]

    def seeds(self, keys: set[tuple[int, int]]) -> list[Predictions]:
        """One set of test clips a seed: its folds pooled, each speaker once."""
        return [pooled([self.runs[fold, at] for fold, at in sorted(keys) if at == seed]) for seed in seeds_of(keys)]


def seeds_of(keys: set[tuple[int, int]]) -> list[int]:
    """Seeds among (fold, seed)."""
    return sorted({seed for _, seed in keys})


def complete(keys: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """The (fold, seed) whose fold every seed has, so that all seeds judge the same clips."""
    return {(fold, seed) for fold, seed in keys if all((fold, each) in keys for each in seeds_of(keys))}


def fold_rows(folder: Path, whole: dict[str, Any]) -> dict[str, Row]:
    """Every model of a set that has runs in `folder`, in the set's order.

    Raises:
        FileNotFoundError: for a results file without its predictions, naming what is missing.
    """
    rows: dict[str, Row] = {}
    for path in sorted(folder.glob("*.json")):
        match = FOLD_FILE.fullmatch(path.name)
        if match is None:
            raise ValueError(f"Expected files named <name>-fold-<k>-seed-<s>.json in {folder}, got {path.name}.")
        beside = path.with_suffix(".parquet")
        if not beside.exists():
            raise FileNotFoundError(
                f"Expected the run's predictions beside {path.name}, got no {beside.name}. Copy it."
            )
        predictions, emotions, dimensions = load_predictions(beside)
        row = rows.setdefault(match["name"], Row(json.loads(path.read_text()), {}, emotions, dimensions))
        row.runs[int(match["fold"]), int(match["seed"])] = predictions
    return {name: rows[name] for name, run in whole["runs"].items() if name in rows and "title" in run}


def strength(keys: set[tuple[int, int]], whole: dict[str, Any], recipe: str = "") -> str:
    """How many folds and seeds, and whether that is a hint only."""
    folds, seeds = {fold for fold, _ in keys}, seeds_of(keys)
    needed = 1 if recipe == "baseline" else SEEDS  # in which nothing is random
    claim = folds >= set(whole["folds"]) and len(seeds) >= needed
    return f"{len(folds)}, {len(seeds)}" + ("" if claim else ", *hint*")


def silent_on(run: dict[str, Any], metric: str) -> str:
    """Why a run has no figure in a metric; empty if it has one."""
    task = "emotions" if metric == "uar" else "dimensions"
    if run["recipe"] == "baseline" and task == "dimensions":
        return "no head"
    weights = run["arguments"].get("dimension_weights")
    alone = task == "dimensions" and weights and weights[DIMENSIONS.index(metric.removeprefix("ccc_"))] == 0
    return "not trained" if alone or run["arguments"].get(f"{task}_weight", 1.0) == 0 else ""


def heading(metric: str) -> str:
    """A metric as a column is called."""
    return "UAR" if metric == "uar" else f"CCC {metric.removeprefix('ccc_')}"


def fold_table(
    folder: Path, whole: dict[str, Any], repeats: int = 2000, only: set[tuple[int, int]] | None = None
) -> str:
    """Models over folds and seeds in Markdown: the mean over seeds of each seed's pooled folds.

    Args:
        folder: of the results.
        whole: the set.
        repeats: bootstrap samples.
        only: (fold, seed) of which every row is made; None for all that there are.
    """
    rows, metrics = fold_rows(folder, whole), whole.get("metrics", METRICS)
    if only is not None:
        kept = {name: {key: run for key, run in row.runs.items() if key in only} for name, row in rows.items()}
        rows = {name: replace(row, runs=kept[name]) for name, row in rows.items() if kept[name]}
    derived = norm_derived(rows)
    columns = ["model", "folds, seeds", *map(heading, metrics), *(["control CCC (a / v / d)"] if derived else [])]
    lines = [f"| {' | '.join([*columns, 'parameters'])} |", "| --- " * (len(columns) + 1) + "|"]
    drawn = set()
    for name, row in rows.items():
        run, keys = whole["runs"][name], complete(set(row.runs))
        seeds = row.seeds(keys)
        drawn.add(intervals_over(seeds[0]))
        values = []
        for metric in metrics:
            if why := silent_on(run, metric):
                values.append(why)
                continue
            value, (low, high) = aggregate(seeds, metric, row.dimensions, repeats)
            each = [aggregate([seed], metric, row.dimensions, repeats=1)[0] for seed in seeds]
            spread = f"; seeds {min(each):.3f} to {max(each):.3f}" if len(seeds) > 1 else ""
            values.append(f"{value:.3f} ({low:.2f} to {high:.2f}{spread})")
        if derived and silent_on(run, "uar"):
            values.append("not trained")
        elif derived:
            values.append(" / ".join(f"{value:.2f}" for value in controls(seeds, row.emotions)))
        values.append(f"{row.results['parameters']:,}")
        lines.append(f"| {run['title']} | {strength(keys, whole, run['recipe'])} | " + " | ".join(values) + " |")
    first = next(iter(rows.values()))
    clips, speakers = (
        {name for run in first.runs.values() for name in getattr(run, what)} for what in ("ids", "speakers")
    )
    lines += [
        "",
        f"{len(clips):,} clips of {len(speakers)} speakers, each tested by a model that has not heard them. A seed's "
        "folds are scored together as one set; the figure is the mean over seeds. In brackets, 95 % bootstrap "
        f"intervals over {in_words(drawn)}, and the range of the seeds. Rows with fewer than "
        f"{len(whole['folds'])} fold{'s' * (len(whole['folds']) > 1)} or {SEEDS} seeds are hints."
        + (f" Chance is a UAR of {1 / len(first.emotions):.3f}." if "uar" in metrics else "")
        + (
            " The dimensions are norm-derived: *control* is what category posterior → norms alone scores on them, and "
            "only what a regression head adds to it is a claim."
            if derived
            else ""
        ),
    ]
    return "\n".join(lines)


def in_words(drawn: Collection[str]) -> str:
    """What the intervals of a table are drawn over."""
    return "speakers, or clips where few speakers are known" if len(drawn) > 1 else next(iter(drawn), "speakers")


def norm_derived(rows: dict[str, Row]) -> bool:
    """Whether the dimensions are those of the emotion's word, for then their control was scored."""
    return any("control_ccc_valence" in row.results.get("test", {}) for row in rows.values())


def controls(seeds: list[Predictions], emotions: list[str]) -> np.ndarray:
    """CCC of the norms averaged under the category posterior, mean over seeds, `(3,)`."""
    scores = [
        concordance_correlation(control_dimensions(seed.logits, emotions), seed.dimension_labels) for seed in seeds
    ]
    return np.mean(np.stack(scores), axis=0)


def comparison_table(folder: Path, whole: dict[str, Any], repeats: int = 2000) -> str:
    """Paired comparisons in Markdown, beside what the paper claims for valence CCC."""
    rows = fold_rows(folder, whole)
    lines = [
        "| comparison | folds, seeds | metric | first | second | difference | relative | p | the paper |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    drawn = set()
    for comparison in whole["comparisons"]:
        names = (comparison["first"], comparison["second"])
        if not set(names) <= set(rows):
            continue
        keys = complete(set(rows[names[0]].runs) & set(rows[names[1]].runs))
        if not keys:
            continue
        for metric in [metric for metric in COMPARED if metric in whole.get("metrics", METRICS)]:
            if any(silent_on(whole["runs"][name], metric) for name in names):
                continue
            first, second = (rows[name].seeds(keys) for name in names)
            found = compare(first, second, metric, rows[names[0]].dimensions, repeats)
            drawn.add(found.intervals_over)
            values = comparison_cells(found, comparison.get("paper", "") if metric == "ccc_valence" else "")
            lines.append(f"| {comparison['title']} | {strength(keys, whole)} | {' | '.join(values)} |")
    paired = (
        f"Paired over {in_words(drawn)}: 95 % bootstrap intervals, and a two-sided permutation test in which the two "
        "models change places with each speaker. "
    )
    if norm_derived(rows):
        paired += (
            "The paper's gains are on listeners' ratings of spontaneous speech (MSP-Podcast), ours on norms of the "
            "acted emotion's word, which hold nothing that the category and its strength do not: they can show that "
            "distillation and fusion help a model to tell these emotions apart, and cannot show that it hears shades "
            "of valence within one emotion."
        )
    else:
        paired += (
            "The paper's gains are on test sets of early releases of MSP-Podcast, and much of its method is not "
            "public: only the relations can be compared with it, not the values."
        )
    return "\n".join([*lines, "", paired])


def comparison_cells(found: Comparison, claim: str) -> list[str]:
    """One row of figures."""
    low, high = found.interval
    below, above = found.relative_interval
    return [
        heading(found.metric),
        f"{found.first:.3f}",
        f"{found.second:.3f}",
        f"{found.difference:+.3f} ({low:+.3f} to {high:+.3f})",
        # A gain over a score of 0 or less has no size.
        f"{found.relative:+.0%} ({below:+.0%} to {above:+.0%})" if np.isfinite(found.relative) else "none",
        f"{found.p_value:.3f} ({found.units} {found.unit})",
        claim,
    ]


def set_tables(whole: dict[str, Any], repeats: int = 2000) -> str:
    """All tables of a set, each test set apart: scores on two of them do not compare."""
    results = Path(whole["results"])
    parts = []
    for name in ("", *whole.get("also_test", {})):
        folder = results / name
        if fold_rows(folder, whole):
            split = next(iter(fold_rows(folder, whole).values())).results["split"]
            parts += [f"Tested on `{split}`:"] if whole.get("also_test") else []
            parts += [fold_table(folder, whole, repeats), comparison_table(folder, whole, repeats)]
    if not parts:
        raise FileNotFoundError(
            f"Expected results in {results}, got none. Run the set: recipes/experiments/run_set.py."
        )
    return "\n\n".join(parts)
