"""Render the README's result tables from the results files in `recipes/results/`.

    python recipes/table.py

Nothing in the tables is typed: a figure that is not in a file is not in them. Runs on a single split are
`<name>.json`. Runs over folds and seeds are `folds/<name>-fold-<k>-seed-<s>.json`, a run's `results.json`, with its
`predictions.parquet` beside it under the same name with `.parquet`; their figures are made from the predictions.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audio_emotion.evaluation.comparison import Comparison, aggregate, compare, pooled
from audio_emotion.evaluation.metrics import concordance_correlation
from audio_emotion.evaluation.predictions import Predictions, load_predictions
from audio_emotion.evaluation.results import control_dimensions

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"
ROWS = ("baseline", "labels_only", "teacher", "distilled")
NAMES = {
    "baseline": "logistic regression on frozen Whisper tiny.en",
    "labels_only": "`small` student, labels only",
    "teacher": "teacher: Whisper tiny.en + log-mel, fused",
    "distilled": "`small` student, distilled",
    "mel": "log-mel alone, Figure 1(B)",
    "mel_figure_1a": "log-mel alone, Figure 1(A)",
    "whisper": "Whisper tiny.en alone",
}
DIMENSIONS = ("activation", "valence", "dominance")
FOLD_FILE = re.compile(r"(?P<name>.+)-fold-(?P<fold>\d+)-seed-(?P<seed>\d+)\.json")
FOLDS, SEEDS = 5, 3  # that a claim takes; less is a hint
# (first, second, in words, what the paper says of valence CCC)
COMPARISONS = (
    ("distilled", "labels_only", "distilled vs labels only", "+12 %"),
    ("teacher", "mel", "fusion vs mel", "+79 %"),
)


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


def cell(scores: dict, name: str) -> str:
    """A value and its interval."""
    text = f"{scores[name]:.3f}"
    if name in scores["intervals"]:
        low, high = scores["intervals"][name]
        text += f" ({low:.2f} to {high:.2f})"
    return text


def table(folder: Path) -> str:
    """The table in Markdown, from `<row>.json` of each row."""
    lines = [
        "| model | UAR | accuracy | CCC activation | CCC valence | CCC dominance "
        "| control CCC (a / v / d) | parameters |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    runs = {row: json.loads((folder / f"{row}.json").read_text()) for row in ROWS if (folder / f"{row}.json").exists()}
    for row, run in runs.items():
        scores = run["test"]
        values = [cell(scores, name) for name in ("uar", "accuracy")]
        regressed = row != "baseline"
        values += [cell(scores, f"ccc_{name}") if regressed else "no head" for name in DIMENSIONS]
        values.append(" / ".join(f"{scores[f'control_ccc_{name}']:.2f}" for name in DIMENSIONS))
        lines.append(f"| {NAMES[row]} | " + " | ".join(values) + f" | {run['parameters']:,} |")
    lines.append(f"| chance | {1 / 8:.3f} | | 0 | 0 | 0 | | |")
    first = next(iter(runs.values()))
    speakers = ", ".join(name.removeprefix("ravdess/") for name in first["test"]["speakers"])
    lines += [
        "",
        f"RAVDESS, split `{first['split']}`: {first['test']['clips']} clips of actors {speakers}, none of them heard "
        f"in training; seed {first['seed']}. In brackets, 95 % bootstrap intervals over "
        f"{first['test'].get('intervals_over', 'clips')}. **One split, one seed: "
        "a hint, not a result.** The dimensions are norm-derived; *control* is what category posterior → norms alone "
        "scores on them, and only what a regression head adds to it is a claim.",
    ]
    return "\n".join(lines)


def synthetic_table(folder: Path) -> str:
    """The proof on the synthetic corpus: CCC of targets that were computed from pitch, level and spectral tilt."""
    lines = ["| synthetic corpus | CCC activation | CCC valence | CCC dominance |", "| --- | --- | --- | --- |"]
    for row in ("teacher", "labels_only", "distilled"):
        run = json.loads((folder / f"synthetic_{row}.json").read_text())
        share = f", {run['labelled']:.0%} of the labels" if "labelled" in run else ", all labels"
        values = [cell(run["test"], f"ccc_{name}") for name in DIMENSIONS]
        lines.append(f"| {row.replace('_', ' ')}{share} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def seeds_of(keys: set[tuple[int, int]]) -> list[int]:
    """Seeds among (fold, seed)."""
    return sorted({seed for _, seed in keys})


def complete(keys: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """The (fold, seed) whose fold every seed has, so that all seeds judge the same clips."""
    return {(fold, seed) for fold, seed in keys if all((fold, each) in keys for each in seeds_of(keys))}


def fold_rows(folder: Path) -> dict[str, Row]:
    """Every model that has runs in `folder`, in the order of `NAMES`, others after them.

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
    order = [*(name for name in NAMES if name in rows), *(name for name in rows if name not in NAMES)]
    return {name: rows[name] for name in order}


def strength(keys: set[tuple[int, int]]) -> str:
    """How many folds and seeds, and whether that is a hint only."""
    folds, seeds = len({fold for fold, _ in keys}), len(seeds_of(keys))
    return f"{folds}, {seeds}" + ("" if folds >= FOLDS and seeds >= SEEDS else ", *hint*")


def fold_table(folder: Path, repeats: int = 1000) -> str:
    """Models over folds and seeds in Markdown: the mean over seeds of each seed's pooled folds."""
    lines = [
        "| model | folds, seeds | UAR | CCC activation | CCC valence | CCC dominance | control CCC (a / v / d) "
        "| parameters |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows = fold_rows(folder)
    for name, row in rows.items():
        keys = complete(set(row.runs))
        seeds = row.seeds(keys)
        regressed = row.results["recipe"] != "baseline"
        values = []
        for metric in ("uar", *(f"ccc_{each}" for each in DIMENSIONS)):
            if metric != "uar" and not regressed:
                values.append("no head")
                continue
            value, (low, high) = aggregate(seeds, metric, row.dimensions, repeats)
            each = [aggregate([seed], metric, row.dimensions, repeats=1)[0] for seed in seeds]
            spread = f"; seeds {min(each):.3f} to {max(each):.3f}" if len(seeds) > 1 else ""
            values.append(f"{value:.3f} ({low:.2f} to {high:.2f}{spread})")
        values.append(" / ".join(f"{value:.2f}" for value in controls(seeds, row.emotions)))
        label = NAMES.get(name, row.results["model"])
        lines.append(f"| {label} | {strength(keys)} | " + " | ".join(values) + f" | {row.results['parameters']:,} |")
    first = next(iter(rows.values()))
    clips, speakers = (
        {name for run in first.runs.values() for name in getattr(run, field)} for field in ("ids", "speakers")
    )
    lines += [
        "",
        f"{len(clips):,} clips of {len(speakers)} speakers, each tested by a model that has not heard them. A seed's "
        "folds are scored together as one set; the figure is the mean over seeds. In brackets, 95 % bootstrap "
        "intervals over speakers, and the range of the seeds. Rows with fewer than "
        f"{FOLDS} folds and {SEEDS} seeds are hints. The dimensions are norm-derived: *control* is what category "
        "posterior → norms alone scores on them, and only what a regression head adds to it is a claim.",
    ]
    return "\n".join(lines)


def controls(seeds: list[Predictions], emotions: list[str]) -> np.ndarray:
    """CCC of the norms averaged under the category posterior, mean over seeds, `(3,)`."""
    scores = [
        concordance_correlation(control_dimensions(seed.logits, emotions), seed.dimension_labels) for seed in seeds
    ]
    return np.mean(scores, axis=0)


def comparison_table(folder: Path, repeats: int = 2000) -> str:
    """Paired comparisons in Markdown, beside what the paper claims for valence CCC."""
    rows = fold_rows(folder)
    lines = [
        "| comparison | folds, seeds | metric | first | second | difference | relative | p | the paper |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for first, second, words, claim in COMPARISONS:
        if first not in rows or second not in rows:
            continue
        keys = complete(set(rows[first].runs) & set(rows[second].runs))
        if not keys:
            continue
        for metric in ("uar", "ccc_valence"):
            pair = [rows[name].seeds(keys) for name in (first, second)]
            found = compare(*pair, metric, rows[first].dimensions, repeats)
            values = comparison_cells(found, claim if metric == "ccc_valence" else "")
            lines.append(f"| {words} | {strength(keys)} | {' | '.join(values)} |")
    lines += [
        "",
        "Paired over speakers: 95 % bootstrap intervals, and a two-sided permutation test in which the two models "
        "change places with each speaker. The paper's gains are on listeners' ratings of spontaneous speech "
        "(MSP-Podcast), ours on norms of the acted emotion's word, which hold nothing that the category and its "
        "strength do not: they can show that distillation and fusion help a model to tell these emotions apart, and "
        "cannot show that it hears shades of valence within one emotion.",
    ]
    return "\n".join(lines)


def comparison_cells(found: Comparison, claim: str) -> list[str]:
    """One row of figures."""
    low, high = found.interval
    below, above = found.relative_interval
    return [
        "UAR" if found.metric == "uar" else f"CCC {found.metric.removeprefix('ccc_')}",
        f"{found.first:.3f}",
        f"{found.second:.3f}",
        f"{found.difference:+.3f} ({low:+.3f} to {high:+.3f})",
        f"{found.relative:+.0%} ({below:+.0%} to {above:+.0%})",
        f"{found.p_value:.3f} ({found.units} {found.unit})",
        claim,
    ]


def main() -> None:
    """Write the tables between the README's markers, and print them."""
    parts = [table(HERE / "results")]
    if any((HERE / "results" / "folds").glob("*.json")):
        parts += [fold_table(HERE / "results" / "folds"), comparison_table(HERE / "results" / "folds")]
    rendered = "\n\n".join([*parts, synthetic_table(HERE / "results")])
    before, rest = README.read_text().split(BEGIN)
    README.write_text(f"{before}{BEGIN}\n{rendered}\n{END}{rest.split(END)[1]}")
    print(rendered)


if __name__ == "__main__":
    main()
