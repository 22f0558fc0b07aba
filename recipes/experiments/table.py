"""Render tables from results files: those of the documentation, or with `--set` those of any set of runs.

    python recipes/experiments/table.py
    python recipes/experiments/table.py --set recipes/configs/mitra2022/msp_podcast.yaml

Nothing in the tables is typed: a figure that is not in a file is not in them. The first command writes those of the
README (rows that are claims), of docs/mitra2022.md (hints), of docs/robustness.md (conditions) and of
docs/few_labels.md, whose curve it draws, from `recipes/results/`. The second prints. Runs over folds and seeds are
what `recipes/experiments/run_set.py` leaves, `<name>-fold-<k>-seed-<s>.json` with the predictions beside it as `.parquet`; their
figures are made from the predictions, and the words of their rows stand in the set.
"""

import json
import re
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import label_efficiency_tables as few_labels
import yaml
from condition_tables import condition_table
from huggingface_hub.dataclasses import strict
from label_curve import label_curve
from set_tables import DIMENSIONS, comparison_table, fold_table, set_tables

from audio_emotion.evaluation.plots import save_figure
from audio_emotion.training.arguments import parse_arguments

RECIPES = Path(__file__).parents[1]
README, HINTS = RECIPES.parent / "README.md", RECIPES.parent / "docs" / "mitra2022.md"
FEW_LABELS, ROBUSTNESS = (RECIPES.parent / "docs" / f"{name}.md" for name in ("few_labels", "robustness"))
TAUGHT = {  # students of the experiment on few labels who have all labels, beside those of the first paper
    "labels_only": "`small` student, labels only",
    "distilled": "`small` student, distilled from the fused teacher",
    "speech-100-percent": "`small` student of the speech teacher",
    "both-100-percent": "`small` student of both teachers",
}
SHOWN_ARMS = ("scratch", "speech", "both", "both-teachers")  # of the experiment on few labels, in the README
README_SET = RECIPES / "configs" / "mitra2022" / "ravdess.yaml"


@strict
@dataclass(kw_only=True)
class TableArguments:
    """Which table."""

    set: str = field(default="", metadata={"help": "File of the set whose tables are printed; else ours are written."})


def cell(scores: dict, name: str) -> str:
    """A value and its interval."""
    text = f"{scores[name]:.3f}"
    if name in scores["intervals"]:
        low, high = scores["intervals"][name]
        text += f" ({low:.2f} to {high:.2f})"
    return text


def read_set(path: str | Path) -> dict[str, Any]:
    """A set of runs, every run with the whole of its arguments: those of its file, of the set and its own."""
    whole = yaml.safe_load(Path(path).read_text())
    for run in whole["runs"].values():
        configured = yaml.safe_load((RECIPES.parent / run["config"]).read_text()) if "config" in run else {}
        run["arguments"] = {**configured, **whole.get("arguments", {}), **run.get("arguments", {})}
    return whole


def synthetic_table(folder: Path) -> str:
    """The proof on the synthetic corpus: CCC of targets that were computed from pitch, level and spectral tilt."""
    lines = ["| synthetic corpus | CCC activation | CCC valence | CCC dominance |", "| --- | --- | --- | --- |"]
    for row in ("teacher", "labels_only", "distilled"):
        run = json.loads((folder / f"synthetic_{row}.json").read_text())
        share = f", {run['labeled']:.0%} of the labels" if "labeled" in run else ", all labels"
        values = [cell(run["test"], f"ccc_{name}") for name in DIMENSIONS]
        lines.append(f"| {row.replace('_', ' ')}{share} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def written(text: str, marker: str, rendered: str) -> str:
    """A page with what stands between its `<!-- marker:begin -->` and `<!-- marker:end -->` replaced."""
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    before, rest = text.split(begin)
    return f"{before}{begin}\n{rendered.strip()}\n{end}{rest.split(end)[1]}"


def documentation(repeats: int = 2000) -> dict[Path, str]:
    """The pages that have tables, as they should be; of other `repeats` the intervals differ."""
    folder, whole = RECIPES / "results" / "folds", read_set(README_SET)
    claims = {**whole, "runs": {name: run for name, run in whole["runs"].items() if not run.get("priority", 0)}}
    hinted = {**whole, "comparisons": [each for each in whole["comparisons"] if each not in of_claims(whole)]}
    tables = [fold_table(folder, claims, repeats), comparison_table(folder, claims, repeats)]
    hints = [fold_table(folder, whole, repeats, only={(1, 0)}), comparison_table(folder, hinted, repeats)]
    fixed, folds = (
        json.loads((RECIPES / "results" / f"few_labels{name}.json").read_text()) for name in ("", "_folds")
    )
    shown = few_labels.table(few_labels.narrowed(fixed, SHOWN_ARMS, (0.1, 1.0)))
    taught = {**whole, "runs": {name: {**whole["runs"]["distilled"], "title": TAUGHT[name]} for name in TAUGHT}}
    taught["comparisons"] = [
        {"first": first, "second": second, "title": f"{TAUGHT[first]} vs {TAUGHT[second]}".replace("`small` ", "")}
        for first, second in combinations(reversed(TAUGHT), 2)
    ]
    both = [
        few_labels.table(folds).strip(),
        fold_table(folder, taught, repeats),
        comparison_table(folder, taught, repeats),
    ]
    readme = written(README.read_text(), "table", "\n\n".join([*tables, synthetic_table(RECIPES / "results")]))
    page = written(FEW_LABELS.read_text(), "table", few_labels.table(fixed))
    return {
        README: written(readme, "few-labels", shown),
        HINTS: written(HINTS.read_text(), "table", "\n\n".join(hints)),
        FEW_LABELS: written(page, "folds", "\n\n".join(both)),
        ROBUSTNESS: written(ROBUSTNESS.read_text(), "table", condition_table(folder, whole, repeats)),
    }


def of_claims(whole: dict[str, Any]) -> list[dict]:
    """Comparisons between rows that are to be claims."""
    hints = {name for name, run in whole["runs"].items() if run.get("priority", 0)}
    return [each for each in whole["comparisons"] if not {each["first"], each["second"]} & hints]


def main(args: TableArguments) -> None:
    """Print the tables of a set, or write those of the documentation."""
    if args.set:
        print(set_tables(read_set(args.set)))
        return
    for page, text in documentation().items():
        page.write_text(text)
        print("\n".join(re.findall(r"<!-- [a-z-]+:begin -->\n(.*?)<!-- [a-z-]+:end -->", text, re.DOTALL)))
    fixed = json.loads((RECIPES / "results" / "few_labels.json").read_text())
    save_figure(label_curve(fixed), FEW_LABELS.with_suffix(".png"))


if __name__ == "__main__":
    main(parse_arguments(TableArguments))
