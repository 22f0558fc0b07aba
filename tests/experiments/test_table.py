"""recipes/experiments/table.py: figures come from files, folds and seeds are aggregated, comparisons are paired."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from set_tables import strength

from audio_emotion.evaluation.metrics import concordance_correlation, unweighted_average_recall
from audio_emotion.evaluation.predictions import Predictions, save_predictions

RECIPES = Path(__file__).parents[2] / "recipes"
EMOTIONS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]
DIMENSIONS = ["activation", "valence", "dominance"]


@pytest.fixture(scope="module")
def table():
    return runpy.run_path(str(RECIPES / "experiments" / "table.py"))


@pytest.fixture(scope="module")
def ravdess(table) -> dict:
    """The set whose table is in docs/results.md."""
    return table["read_set"](RECIPES / "configs" / "mitra2022" / "ravdess.yaml")


def write_run(folder: Path, name: str, fold: int, seed: int, right: float, noise: float, derived=True) -> Predictions:
    """One run's two files: four speakers of sixteen clips each."""
    clips = np.random.default_rng(fold)  # of the corpus: the same for every model and seed
    labels, ratings = np.tile(np.arange(8), 8), clips.random((64, 3)).astype(np.float32)
    random = np.random.default_rng([fold, seed, int(100 * right)])
    predicted = np.where(random.random(64) < right, labels, random.integers(8, size=64))
    predictions = Predictions(
        ids=[f"ravdess/{fold}-{clip:02d}" for clip in range(64)],
        speakers=np.array([f"ravdess/{4 * (fold - 1) + clip // 16 + 1:02d}" for clip in range(64)]),
        logits=4.0 * np.eye(8, dtype=np.float32)[predicted],
        dimensions=(ratings + noise * random.normal(size=(64, 3))).astype(np.float32),
        embedding=np.zeros((64, 0)),
        labels=labels,
        dimension_labels=ratings,
    )
    results = {"recipe": "distill", "protocol": f"fold-{fold}", "parameters": 1234, "seed": seed}
    results["test"] = {"control_ccc_valence": 0.5} if derived else {}
    (folder / f"{name}-fold-{fold}-seed-{seed}.json").write_text(json.dumps(results))
    save_predictions(predictions, folder / f"{name}-fold-{fold}-seed-{seed}.parquet", EMOTIONS, DIMENSIONS)
    return predictions


@pytest.fixture(scope="module")
def folds(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("folds")
    runs = {}
    for name, right, noise in (("distilled", 0.8, 0.1), ("labels_only", 0.5, 0.3)):
        for fold in range(1, 6):
            for seed in range(3):
                runs[name, fold, seed] = write_run(folder, name, fold, seed, right, noise)
    for name in ("teacher", "mel"):
        runs[name, 1, 0] = write_run(folder, name, 1, 0, 0.7, 0.2)
    return folder, runs


def cells(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_score_is_the_mean_over_seeds_of_pooled_folds(table, ravdess, folds):
    folder, runs = folds
    row = cells(table["fold_table"](folder, ravdess, 20), "`small` student, distilled")

    uar, ccc = [], []
    for seed in range(3):
        mine = [runs["distilled", fold, seed] for fold in range(1, 6)]
        uar.append(
            unweighted_average_recall(
                np.concatenate([run.logits.argmax(-1) for run in mine]), np.concatenate([run.labels for run in mine])
            )
        )
        pair = (
            np.concatenate([getattr(run, each)[:, 1] for run in mine]) for each in ("dimensions", "dimension_labels")
        )
        ccc.append(concordance_correlation(*pair))
    assert row[1] == "5, 3"
    assert row[2].startswith(f"{np.mean(uar):.3f} (")
    assert f"seeds {min(uar):.3f} to {max(uar):.3f}" in row[2]
    assert row[4].startswith(f"{np.mean(ccc):.3f} (")
    assert row[-1] == "1,234"


def test_one_fold_and_seed_is_a_hint_and_five_by_three_is_not(table, ravdess, folds):
    text = table["fold_table"](folds[0], ravdess, 20)

    assert cells(text, "teacher")[1] == "1, 1, *hint*"
    assert cells(text, "`small` student, labels only")[1] == "5, 3"
    assert "320 clips of 20 speakers" in text
    once = {(fold, 0) for fold in range(1, 6)}  # enough for a deterministic recipe
    assert strength(once, ravdess, "baseline") == "5, 1"
    assert strength(once, ravdess, "distill") == "5, 1, *hint*"


def test_comparisons_include_the_claims_of_the_paper(table, ravdess, folds):
    text = table["comparison_table"](folds[0], ravdess, 200)

    better = cells(text, "distilled vs labels only | 5, 3 | CCC valence")
    assert better[-1] == "+12 %"
    assert better[-2].endswith("(20 speakers)")
    assert float(better[-2].split()[0]) < 0.01
    first, second = float(better[3]), float(better[4])
    assert better[5].startswith(f"{first - second:+.3f}"[:5])
    assert better[6].startswith(f"{first / second - 1:+.0%}"[:3])
    equal = cells(text, "fusion vs mel | 1, 1, *hint* | CCC valence")
    assert equal[-1] == "+79 %"


def test_only_runs_that_have_a_partner_are_compared(table, ravdess, folds, tmp_path):
    for path in folds[0].glob("*"):
        if not path.name.startswith("labels_only-fold-5-seed-2"):
            (tmp_path / path.name).write_bytes(path.read_bytes())

    assert cells(table["comparison_table"](tmp_path, ravdess, 20), "distilled vs labels only | 4, 3, *hint* | UAR")


def test_results_without_predictions_are_an_error_that_names_the_file(table, ravdess, tmp_path):
    write_run(tmp_path, "distilled", 1, 0, 0.8, 0.1)
    (tmp_path / "distilled-fold-1-seed-0.parquet").unlink()

    with pytest.raises(FileNotFoundError, match=r"distilled-fold-1-seed-0\.parquet"):
        table["fold_table"](tmp_path, ravdess)
    (tmp_path / "distilled-fold-1-seed-0.json").rename(tmp_path / "distilled.json")
    with pytest.raises(ValueError, match="fold-<k>"):
        table["fold_table"](tmp_path, ravdess)


def test_a_task_that_was_not_trained_has_no_score(table, ravdess, tmp_path):
    for name in ("teacher_emotions", "teacher_dimensions", "baseline", "teacher_cross_fitted"):
        write_run(tmp_path, name, 1, 0, 0.7, 0.2)
    text = table["fold_table"](tmp_path, ravdess, 20)

    dimensions = ["not trained"] * 3
    assert cells(text, "teacher, categories alone")[3:6] == dimensions
    assert cells(text, "teacher, dimensions alone")[2] == "not trained"
    assert cells(text, "teacher, dimensions alone")[6] == "not trained"  # nor has its control
    assert cells(text, "logistic regression")[3:6] == ["no head"] * 3
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == 5  # a run without a title has no row


def test_a_set_has_its_own_metrics_and_one_table_per_test_set(table, tmp_path):
    run_set = {"folds": [1], "results": tmp_path, "metrics": ["ccc_valence"], "also_test": {"second": "other"}}
    arguments = {"recipe": "distill", "arguments": {"emotions_weight": 0.0}}
    run_set["runs"] = {name: {"title": name.upper(), **arguments} for name in ("a", "b", "c")}
    pairs = (("a", "b", "+79 %"), ("a", "c", ""))
    run_set["comparisons"] = [
        {"first": one, "second": two, "title": f"{one} vs {two}", "paper": claim} for one, two, claim in pairs
    ]
    (tmp_path / "second").mkdir()
    for name, noise in (("a", 0.1), ("b", 0.4), ("c", 0.4)):
        for seed in range(1 if name == "c" else 3):
            write_run(tmp_path, name, 1, seed, 0.5, noise, derived=False)
            write_run(tmp_path / "second", name, 1, seed, 0.5, 2 * noise, derived=False)

    first, second = table["set_tables"](run_set, 50).split("Tested on")[1:]
    for text in (first, second):
        assert cells(text, "model")[2:] == ["CCC valence", "parameters"]
        assert cells(text, "A")[1] == "1, 3"
        assert cells(text, "C")[1] == "1, 1, *hint*"
        assert cells(text, "a vs b")[-1] == "+79 %"
        assert cells(text, "a vs c")[1] == "1, 1, *hint*"
        assert "norm" not in text
    assert cells(first, "A")[2] != cells(second, "A")[2]


def test_relative_gain_over_a_negative_score_is_none(table, ravdess, tmp_path):
    write_run(tmp_path, "distilled", 1, 0, 0.8, 0.1)
    worse = write_run(tmp_path, "labels_only", 1, 0, 0.8, 0.1)
    worse.dimensions = 1 - worse.dimensions
    save_predictions(worse, tmp_path / "labels_only-fold-1-seed-0.parquet", EMOTIONS, DIMENSIONS)

    row = cells(table["comparison_table"](tmp_path, ravdess, 50), "distilled vs labels only | 1, 1, *hint* | CCC")
    assert row[6] == "none"


def test_tables_of_few_speakers_have_intervals_over_clips(table, ravdess, folds, tmp_path):
    for name, right in (("distilled", 0.8), ("labels_only", 0.5)):
        predictions = write_run(tmp_path, name, 1, 0, right, 0.1)
        save_predictions(
            predictions.take(np.arange(32)), tmp_path / f"{name}-fold-1-seed-0.parquet", EMOTIONS, DIMENSIONS
        )

    assert "95 % bootstrap intervals over clips, and" in table["fold_table"](tmp_path, ravdess, 20)
    few = table["comparison_table"](tmp_path, ravdess, 20)
    assert "Paired over clips: 95 %" in few
    assert "(2 speakers)" in few  # the permutation test exchanges speakers
    assert "95 % bootstrap intervals over speakers, and" in table["fold_table"](folds[0], ravdess, 20)
    assert "Paired over speakers: 95 %" in table["comparison_table"](folds[0], ravdess, 20)


def test_a_set_without_results_raises_with_the_command_to_run(table, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run_set\.py"):
        table["set_tables"]({"runs": {}, "results": tmp_path})


def test_the_pages_have_the_scores_of_the_results(table):
    """All but the intervals, which take a minute."""

    def figures(text: str) -> list[str]:
        rows = [line.rsplit("|", 4)[0] for line in text.splitlines() if line.startswith("| ")]
        return [re.sub(r" \(.*?\)", "", row) for row in rows]

    for page, text in table["render_pages"](repeats=2).items():
        assert figures(page.read_text()) == figures(text), f"{page.name}: run `python recipes/experiments/table.py`"


@pytest.mark.slow
def test_the_pages_equal_the_rendered_results(table):
    for page, text in table["render_pages"]().items():
        assert page.read_text() == text, f"{page.name}: run `python recipes/experiments/table.py`"


def test_prompts_have_a_cell_per_model_and_speaker_and_none_for_speakers_that_a_model_was_trained_on(table):
    measured = {"clips": 10, "neutral": 0.456, "confidence": 0.512}
    results = {"models": {"one": {"en a": measured, "fr b": measured}, "two": {"en a": measured}}}

    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table["prompts_table"](results).splitlines()]

    assert lines[0] == ["language, speaker", "clips", "one", "two"]
    assert lines[2] == ["en a", "10", "46% (0.51)", "46% (0.51)"]
    assert lines[3] == ["fr b", "10", "46% (0.51)", "trained on it"]
