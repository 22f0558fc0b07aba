"""Scores in the repository of a model: those on a benchmark data set, and a report for its card."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
from transformers import PreTrainedModel

from audio_emotion.hub.card_sections import report_table


def write_eval_results(
    folder: Path, benchmark: str, repo: str, results: Mapping[str, Any], split: str, scores: Mapping[str, Any]
) -> Path:
    """Write a run's UAR to `.eval_results/<protocol>.yaml`, which the Hub shows beside the benchmark.

    Args:
        folder: of the model's repository.
        benchmark: `owner/name` of the data set that `write_benchmark` wrote.
        repo: `owner/name` of the model.
        results: of the run; its protocol is the task.
        split: that was scored.
        scores: of that split.

    Raises:
        ValueError: for a split other than test, or scores without UAR.
    """
    value = scores.get("uar", math.nan)
    if split != "test" or not math.isfinite(value):
        raise ValueError(
            f"Expected the UAR of a test split for the benchmark `{benchmark}`, got {value} of the {split} split. "
            "Leave `--benchmark` out."
        )
    notes = f"UAR, 0 to 1, {scores['clips']} clips of {len(scores['speakers'])} speakers"
    if interval := scores.get("intervals", {}).get("uar"):
        notes += f"; 95 % interval {interval[0]:.3f} to {interval[1]:.3f}"
    entry = EvalResultEntry(
        dataset_id=benchmark,
        task_id=results["protocol"],
        value=round(value, 4),
        source_url=f"https://huggingface.co/{repo}",
        source_name="audio-emotion, results.json",
        notes=notes,
    )
    path = folder / ".eval_results" / f"{results['protocol']}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False), encoding="utf-8")
    return path


def add_report(source: Path, folder: Path, model: PreTrainedModel) -> dict[str, str]:
    """Copy the scores of an evaluation report, draw them, and return what the card states about them.

    Raises:
        ValueError: if there is no report, or its first model was trained on other speakers or has another size.
    """
    from audio_emotion.evaluation.plots import report_figure, save_figure
    from audio_emotion.evaluation.report_page import verdict

    file = source / "report.json"
    if not file.is_file():
        raise ValueError(
            f"Expected the folder of `audio-emotion evaluate --report`, got {source} without report.json."
        )
    report = json.loads(file.read_text(encoding="utf-8"))
    name, facts = next(iter(report["models"].items()))
    corpora = sorted({each["corpus"] for each in model.config.training_data})
    if facts["parameters"] != model.num_parameters() or sorted({*facts["training_corpora"]}) != corpora:
        raise ValueError(
            f"Expected a report of this model, with {model.num_parameters():,} parameters trained on {corpora}, got "
            f"one of {name}, with {facts['parameters']:,} trained on {facts['training_corpora']}."
        )
    (folder / "plots").mkdir(exist_ok=True)
    save_figure(report_figure(report, name), folder / "plots" / "report.png")
    shutil.copyfile(file, folder / "report.json")
    return {"verdict": verdict(report), "table": report_table(report, name), "plot": "plots/report.png"}
