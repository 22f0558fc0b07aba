"""Paired differences on corrupted clips, in the form of the results file that the documentation is rendered from."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from robustness import RobustnessArguments, main

from audio_emotion.evaluation.metrics import unweighted_average_recall
from audio_emotion.evaluation.predictions import load_predictions

RECIPES = Path(__file__).parents[2] / "recipes"


def test_the_difference_is_that_of_the_scores_on_the_same_clips(tmp_path):
    recipe = runpy.run_path(str(RECIPES / "distill.py"))
    run = {"output": str(tmp_path / "run"), "cache": str(tmp_path / "cache"), "corpus_count": 60, "epochs": 1}
    recipe["main"](recipe["DistillArguments"](**run, teacher="", size="nano"))
    given = {"corpus": "synthetic", "corpus_count": 60, "protocol": "", "corruptions": ["noise"], "repeats": 10}
    folders = {"output": str(tmp_path / "evaluations"), "results": str(tmp_path / "results.json")}

    main(RobustnessArguments(model=str(tmp_path / "run" / "checkpoints" / "last"), **given, **folders))

    (each,) = json.loads((tmp_path / "results.json").read_text())["corruptions"].values()
    committed = json.loads((RECIPES / "results" / "default_robustness.json").read_text())["corruptions"]
    assert {*each} == {*committed["noise"]}
    scores = {}
    for name in ("noise", "as_recorded"):
        predictions, _, _ = load_predictions(tmp_path / "evaluations" / name / "predictions.parquet")
        scores[name] = unweighted_average_recall(predictions.logits.argmax(1), predictions.labels)
    assert each["uar"] == pytest.approx(scores["noise"])
    assert each["difference"] == pytest.approx(scores["noise"] - scores["as_recorded"])
