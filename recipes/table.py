"""Render the README's result table from the results files in `recipes/results/`.

    python recipes/table.py

Nothing in the table is typed: a figure that is not in a file is not in the table.
"""

import json
from pathlib import Path

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"
ROWS = ("baseline", "labels_only", "teacher", "distilled")
NAMES = {
    "baseline": "logistic regression on frozen Whisper tiny.en",
    "labels_only": "`small` student, labels only",
    "teacher": "teacher: Whisper tiny.en + log-mel, fused",
    "distilled": "`small` student, distilled",
}


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
        dimensions = ("activation", "valence", "dominance")
        regressed = row != "baseline"
        values += [cell(scores, f"ccc_{name}") if regressed else "no head" for name in dimensions]
        values.append(" / ".join(f"{scores[f'control_ccc_{name}']:.2f}" for name in dimensions))
        lines.append(f"| {NAMES[row]} | " + " | ".join(values) + f" | {run['parameters']:,} |")
    lines.append(f"| chance | {1 / 8:.3f} | | 0 | 0 | 0 | | |")
    first = next(iter(runs.values()))
    speakers = ", ".join(name.removeprefix("ravdess/") for name in first["test"]["speakers"])
    lines += [
        "",
        f"RAVDESS, split `{first['split']}`: {first['test']['clips']} clips of actors {speakers}, none of them heard "
        f"in training; seed {first['seed']}. In brackets, 95 % bootstrap intervals over clips. **One split, one seed: "
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
        values = [cell(run["test"], f"ccc_{name}") for name in ("activation", "valence", "dominance")]
        lines.append(f"| {row.replace('_', ' ')}{share} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def main() -> None:
    """Write the tables between the README's markers, and print them."""
    rendered = f"{table(HERE / 'results')}\n\n{synthetic_table(HERE / 'results')}"
    before, rest = README.read_text().split(BEGIN)
    README.write_text(f"{before}{BEGIN}\n{rendered}\n{END}{rest.split(END)[1]}")
    print(rendered)


if __name__ == "__main__":
    main()
