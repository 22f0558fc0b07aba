"""Render Markdown tables from results files: those of the documentation, or with `--set` those of a set of runs.

    python recipes/experiments/table.py
    python recipes/experiments/table.py --set recipes/configs/mitra2022/msp_podcast.yaml

No number is typed by hand: all are computed from `recipes/results/`. The first command writes the tables of the README
(short), docs/results.md (claims), docs/mitra2022.md (hints), docs/robustness.md (corruptions) and docs/few_labels.md,
and the plots of the latter. The second command prints. The results of a set are copied by
`recipes/experiments/run_set.py`: `<name>-fold-<k>-seed-<s>.json`, and `.parquet` with the predictions.
"""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml
from elsewhere import elsewhere_table
from intervals import interval_table
from label_efficiency_report import label_efficiency_plot, render_table, select_results
from leave_one_out import leave_one_out_table
from set_tables import DIMENSIONS, comparison_table, corruption_table, fold_table, set_tables
from speaker_adaptation import adaptation_table
from vote_targets import vote_target_table

from audio_emotion.evaluation.bootstrap import aggregate
from audio_emotion.evaluation.plots import save_figure
from audio_emotion.evaluation.predictions import load_predictions, pool_folds
from audio_emotion.hub.card_sections import markdown_table
from audio_emotion.training.arguments import argument_group, option, parse_arguments

RECIPES = Path(__file__).parents[1]
README, HINTS = RECIPES.parent / "README.md", RECIPES.parent / "docs" / "mitra2022.md"
RESULTS, FEW_LABELS, ROBUSTNESS = (
    RECIPES.parent / "docs" / f"{name}.md" for name in ("results", "few_labels", "robustness")
)
STREAMING = RECIPES.parent / "docs" / "streaming.md"
STUDENT_TITLES = {  # students with all labels: of the first paper and of the label-efficiency experiment
    "labels_only": "`small` student, labels only",
    "distilled": "`small` student, distilled from the fused teacher",
    "speech-100-percent": "`small` student of the speech teacher",
    "both-100-percent": "`small` student of both teachers",
}
RESULTS_ARMS = ("scratch", "speech", "both", "both-teachers")  # of the label-efficiency experiment, in docs/results.md
CREMA_D_ARMS = ("scratch-regression", "speech-regression", "both-regression", "both-teachers")
OWN_FOLDS = {  # corpus and fold predictions of each embedded model
    "student": ("RAVDESS", "folds/default-fold-*-seed-*.parquet"),
    "lite": ("CREMA-D", "crema_d/lite-fold-*-seed-*.parquet"),
}
MAIN_SET = RECIPES / "configs" / "mitra2022" / "ravdess.yaml"


@argument_group()
class TableArguments:
    """Render tables from results files."""

    set: str = option("", "YAML file of a set: print its tables. Empty: write those of the documentation.")


def cell(scores: dict, name: str) -> str:
    """A value and its interval."""
    text = f"{scores[name]:.3f}"
    if name in scores["intervals"]:
        low, high = scores["intervals"][name]
        text += f" ({low:.2f} to {high:.2f})"
    return text


def read_set(path: str | Path) -> dict[str, Any]:
    """A set of runs, each with all its arguments: those of its file, of the set and its own."""
    run_set = yaml.safe_load(Path(path).read_text())
    for run in run_set["runs"].values():
        from_file = yaml.safe_load((RECIPES.parent / run["config"]).read_text()) if "config" in run else {}
        run["arguments"] = {**from_file, **run_set.get("arguments", {}), **run.get("arguments", {})}
    return run_set


def synthetic_table(folder: Path) -> str:
    """CCC on the synthetic corpus, whose targets are computed from pitch, level and spectral tilt."""
    rows = []
    for row in ("teacher", "labels_only", "distilled"):
        run = json.loads((folder / f"synthetic_{row}.json").read_text())
        labels = f", {run['labeled']:.0%} of the labels" if "labeled" in run else ", all labels"
        rows.append([f"{row.replace('_', ' ')}{labels}", *(cell(run["test"], f"ccc_{name}") for name in DIMENSIONS)])
    return markdown_table(["synthetic corpus", *(f"CCC {name}" for name in DIMENSIONS)], rows)


def default_table(folder: Path, repeats: int = 2000) -> str:
    """UAR of the default model's recipe on unseen actors of its corpus, and of the default itself on other corpora."""
    elsewhere = json.loads((folder / "default_elsewhere.json").read_text())
    corpus, pattern = OWN_FOLDS[elsewhere["default"]]
    by_seed: dict[str, list] = {}
    for path in sorted(folder.glob(pattern)):
        predictions, emotions, dimensions = load_predictions(path)
        by_seed.setdefault(path.stem.rpartition("-")[2], []).append(predictions)
    uar, interval = aggregate([pool_folds(folds) for folds in by_seed.values()], "uar", dimensions, repeats)
    rows = [(f"{corpus} (its own corpus), unseen actors", uar, interval, len(emotions))]
    rows += [(each["corpus"], each["uar"], each["interval"], each["classes"]) for each in elsewhere["corpora"]]
    cells = [[name, f"{uar:.3f} ({low:.2f} to {high:.2f})", f"{1 / n:.3f}"] for name, uar, (low, high), n in rows]
    return markdown_table(["tested on", "UAR", "chance"], cells)


def emotale_tables(repeats: int) -> list[str]:
    """The first paper's comparison on listeners' ratings, and the agreement of single listeners."""
    run_set, folder = read_set(RECIPES / "configs" / "mitra2022" / "emotale.yaml"), RECIPES / "results" / "emotale"
    listeners = json.loads((RECIPES / "results" / "emotale_listeners.json").read_text())
    rows = [[name, f"{listeners[name]['ccc']:.3f}", f"{listeners[name]['pearson']:.3f}"] for name in DIMENSIONS]
    agreement = markdown_table(["one listener against the mean of the others", "CCC", "Pearson r"], rows)
    return [fold_table(folder, run_set, repeats), comparison_table(folder, run_set, repeats), agreement]


def set_pages(name: str, repeats: int) -> list[str]:
    """Scores and comparisons of a set on one corpus, whose results are in a folder of its name."""
    run_set, folder = read_set(RECIPES / "configs" / f"{name}.yaml"), RECIPES / "results" / name
    return [fold_table(folder, run_set, repeats), comparison_table(folder, run_set, repeats)]


def quantized_table(folder: Path) -> str:
    """Size, speed and UAR of the default model's graph with and without 8-bit matrices."""
    results = json.loads((folder / "quantized.json").read_text())
    exact, small = results["graphs"].values()
    rows = [
        ["size, MB", f"{exact['bytes'] / 1e6:.1f}", f"{small['bytes'] / 1e6:.1f}"],
        ["CPU for 10 s, ms", f"{exact['milliseconds_for_10_s']:.0f}", f"{small['milliseconds_for_10_s']:.0f}"],
    ]
    for corpus, each in results["corpora"].items():
        low, high = each["interval"]
        change = f"{each['difference']:+.3f}, {low:+.3f} to {high:+.3f}; {each['flips']:.1%} of answers differ"
        rows.append(
            [f"UAR on {corpus}", f"{each['second']:.3f}", f"{each['first']:.3f} ({change.replace('%', ' %')})"]
        )
    return markdown_table(["", "`model.onnx`", "`model_quantized.onnx`"], rows)


def distance_table(folder: Path) -> str:
    """Fraction of clips that the default model finds unlike its training clips."""
    flagged = json.loads((folder / "lite_distance.json").read_text())["flagged"]
    rows = [[name, f"{fraction:.1%}".replace("%", " %")] for name, fraction in flagged.items()]
    return markdown_table(["clips", "flagged"], rows)


def default_robustness_table(folder: Path) -> str:
    """UAR of the default model's recipe on corrupted clips of unseen actors, against the same clips as recorded.

    The last rows are of the same recipe, trained with a wider range of gains.
    """
    rows = []
    for title, file in (("`lite`", "default"), ("`lite`, trained with gains of -30 to 10 dB", "gain")):
        for name, each in json.loads((folder / f"{file}_robustness.json").read_text())["corruptions"].items():
            low, high = each["interval"]
            difference = f"{each['difference']:+.3f} ({low:+.2f} to {high:+.2f})"
            rows.append([title, name, f"{each['as_recorded']:.3f}", f"{each['uar']:.3f}", difference])
    return markdown_table(["model", "clips", "UAR as recorded", "UAR", "difference"], rows)


def prompts_table(results: dict) -> str:
    """How often each model calls the prompts of each speaker neutral, with its mean confidence."""
    models = results["models"]
    rows = []
    for speaker in dict.fromkeys(name for measured in models.values() for name in measured):
        clips = next(each[speaker]["clips"] for each in models.values() if speaker in each)
        cells = [
            f"{each[speaker]['neutral']:.0%} ({each[speaker]['confidence']:.2f})"
            if speaker in each
            else "trained on it"
            for each in models.values()
        ]
        rows.append([speaker, str(clips), *cells])
    return markdown_table(["language, speaker", "clips", *models], rows)


def replace_table(text: str, marker: str, rendered: str) -> str:
    """A page with the text between its `<!-- marker:begin -->` and `<!-- marker:end -->` replaced."""
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    before, rest = text.split(begin)
    return f"{before}{begin}\n{rendered.strip()}\n{end}{rest.split(end)[1]}"


def render_pages(repeats: int = 2000) -> dict[Path, str]:
    """The text of all pages with tables; with other `repeats` the intervals differ."""
    folder, run_set = RECIPES / "results" / "folds", read_set(MAIN_SET)
    fixed, folds, crema_d = (
        json.loads((RECIPES / "results" / f"few_labels{name}.json").read_text()) for name in ("", "_folds", "_crema_d")
    )

    # Rows of priority 0 and their comparisons are claims, the others hints.
    runs = {name: run for name, run in run_set["runs"].items() if not run.get("priority", 0)}
    claims = {**run_set, "runs": runs}
    hints = [each for each in run_set["comparisons"] if not {each["first"], each["second"]} <= set(runs)]
    claim_tables = [fold_table(folder, claims, repeats), comparison_table(folder, claims, repeats)]
    hint_tables = [
        fold_table(folder, run_set, repeats, only={(1, 0)}),
        comparison_table(folder, {**run_set, "comparisons": hints}, repeats),
    ]

    # Students with all labels, compared in pairs.
    students = {name: {**run_set["runs"]["distilled"], "title": title} for name, title in STUDENT_TITLES.items()}
    pairs = [
        {"first": first, "second": second, "title": f"{one} vs {other}".replace("`small` ", "")}
        for (first, one), (second, other) in combinations(reversed(STUDENT_TITLES.items()), 2)
    ]
    student_set = {**run_set, "runs": students, "comparisons": pairs}
    student_tables = [fold_table(folder, student_set, repeats), comparison_table(folder, student_set, repeats)]

    elsewhere = json.loads((RECIPES / "results" / "default_elsewhere.json").read_text())
    intervals_set = read_set(RECIPES / "configs" / "emotale_intervals.yaml")
    left_out, adapted = (
        json.loads((RECIPES / "results" / f"{name}.json").read_text())
        for name in ("leave_one_out", "speaker_adaptation")
    )
    default = default_table(RECIPES / "results", repeats)
    tables: dict[Path, dict[str, list[str]]] = {
        README: {"default": [default]},
        RESULTS: {
            "table": [*claim_tables, synthetic_table(RECIPES / "results")],
            "few-labels": [render_table(select_results(fixed, RESULTS_ARMS, (0.1, 1.0)))],
            "default": [default],
            "elsewhere": [elsewhere_table(elsewhere)],
            "leave-one-out": [leave_one_out_table(left_out)],
            "crema-d": set_pages("crema_d", repeats),
            "reslstm": set_pages("reslstm", repeats),
            "lite-ravdess": set_pages("lite_ravdess", repeats),
            "students-ravdess": set_pages("students_ravdess", repeats),
            "students-crema-d": set_pages("students_crema_d", repeats),
            "few-labels-crema-d": [render_table(select_results(crema_d, CREMA_D_ARMS, (0.1, 1.0)))],
            "adaptation": [adaptation_table(adapted)],
            "prompts": [prompts_table(json.loads((RECIPES / "results" / "prompts.json").read_text()))],
            "distance": [distance_table(RECIPES / "results")],
            "intervals": [interval_table(RECIPES / "results" / "emotale_intervals", intervals_set, repeats)],
            "votes": [vote_target_table(json.loads((RECIPES / "results" / "crema_d_votes.json").read_text()))],
        },
        HINTS: {"table": hint_tables, "emotale": emotale_tables(repeats)},
        FEW_LABELS: {
            "table": [render_table(fixed)],
            "folds": [render_table(folds).strip(), *student_tables],
            "crema-d": [render_table(crema_d)],
        },
        STREAMING: {"quantized": [quantized_table(RECIPES / "results")]},
        ROBUSTNESS: {
            "table": [corruption_table(folder, run_set, repeats)],
            "default": [default_robustness_table(RECIPES / "results")],
        },
    }
    pages = {}
    for page, rendered in tables.items():
        pages[page] = page.read_text()
        for marker, parts in rendered.items():
            pages[page] = replace_table(pages[page], marker, "\n\n".join(parts))
    return pages


def main(args: TableArguments) -> None:
    """Print the tables of a set, or write those of the documentation."""
    if args.set:
        print(set_tables(read_set(args.set)))
        return
    for page, text in render_pages().items():
        page.write_text(text)
        print("\n".join(re.findall(r"<!-- [a-z-]+:begin -->\n(.*?)<!-- [a-z-]+:end -->", text, re.DOTALL)))
    for name in ("few_labels", "few_labels_crema_d"):
        results = json.loads((RECIPES / "results" / f"{name}.json").read_text())
        save_figure(label_efficiency_plot(results), FEW_LABELS.with_name(f"{name}.png"))


if __name__ == "__main__":
    main(parse_arguments(TableArguments))
