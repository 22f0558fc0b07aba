"""Leave one corpus out: no model is tested on a corpus that it is trained on, and sampling follows the temperature."""

from __future__ import annotations

import shlex
from pathlib import Path

import leave_one_out
import numpy as np
import pytest
import yaml
from embed import CALIBRATION, RECIPE_OF_STUDENT
from leave_one_out import (
    LeaveOneOutArguments,
    corpus_scores,
    leave_one_out_table,
    mixture,
    plan_jobs,
    trainings,
    updated,
)

import audio_emotion
from audio_emotion.evaluation.metrics import unweighted_average_recall
from audio_emotion.evaluation.predictions import Predictions, save_predictions
from audio_emotion.training.arguments import parse_arguments

CONFIG = Path(__file__).parents[2] / "recipes" / "configs" / "leave_one_out.yaml"


@pytest.fixture
def run_set() -> dict:
    return yaml.safe_load(CONFIG.read_text())


@pytest.fixture
def sizes(monkeypatch) -> None:
    """The sizes of the corpora, which need not be at hand."""
    sizes = {"crema-d/pad": 7442, "ravdess/pad": 1200, "nemo/pad": 1120, "emospeech-commands/pad": 1031}
    monkeypatch.setattr(leave_one_out, "corpus_table", lambda name: range(sizes[name]))


@pytest.mark.usefixtures("sizes")
def test_no_model_is_tested_on_a_corpus_that_it_is_trained_on(run_set, monkeypatch):
    monkeypatch.chdir(CONFIG.parents[2])

    jobs = {job.name: job for job in plan_jobs(run_set, LeaveOneOutArguments(seeds=[0], replace=["a=b"]))}

    tested = {}
    for job in jobs.values():
        flags = dict(zip(job.flags[::2], job.flags[1::2], strict=False))
        if job.recipe == "evaluate":
            training = list(jobs[job.needs[0]].flags)
            begin = training.index("--corpus") + 1
            mix = training[training.index("--mix") + 1 :] if "--mix" in training else []
            trained_on = {training[begin], *(name.partition("=")[0] for name in mix if "=" in name)}
            assert flags["--corpus"] not in {name.split("/")[0] for name in trained_on}
            tested.setdefault(job.needs[0].rpartition("-seed-")[0], set()).add(flags["--corpus"])
    assert tested["lite-without-nemo"] == {"nemo"}
    assert tested["lite-all"] == {"emotale"}
    assert tested["lite-only-nemo"] == {"crema-d", "ravdess", "emospeech-commands", "emotale"}
    assert len(trainings(run_set)) == sum(name.startswith("lite-") for name in tested) == 9
    assert tested["lite_prompts-only-crema-d"] == {"ravdess", "nemo", "emospeech-commands", "emotale"}
    training = jobs["lite_prompts-only-crema-d-seed-0"].flags
    also = run_set["models"]["lite_prompts"]["also_trained_on"]
    assert list(training[training.index("--mix") + 1 :])[: len(also)] == also
    assert "--mix" not in jobs["lite-only-crema-d-seed-0"].flags


@pytest.mark.usefixtures("sizes")
def test_the_commands_on_the_student_card_run_what_its_calibration_needs(run_set, monkeypatch):
    monkeypatch.chdir(CONFIG.parents[2])
    train, copy = (shlex.split(line)[2:] for line in RECIPE_OF_STUDENT.splitlines())

    folders = [str(job.folder) for job in plan_jobs(run_set, parse_arguments(LeaveOneOutArguments, train))]

    needed = [copy[copy.index("--run") + 1], *(str(Path(each).parent) for each in CALIBRATION["student"])]
    assert set(needed) <= set(folders)
    assert RECIPE_OF_STUDENT in Path(audio_emotion.STUDENT, "README.md").read_text()


@pytest.mark.usefixtures("sizes")
def test_what_a_model_needs_is_trained_before_it_on_the_same_corpora(run_set, monkeypatch):
    monkeypatch.chdir(CONFIG.parents[2])

    jobs = plan_jobs(run_set, LeaveOneOutArguments(seeds=[0], only=["small"], trained_on=["without-nemo"]))

    teacher, pretraining, student, evaluation = jobs
    assert [job.recipe for job in jobs] == ["train_teacher", "pretrain_student", "distill", "evaluate"]
    assert student.needs == (teacher.name, pretraining.name)
    assert evaluation.needs == (student.name,)
    flags = student.flags
    assert flags[flags.index("--teacher") + 1] == str(teacher.folder)
    assert flags[flags.index("--initial_model") + 1] == str(pretraining.folder)
    for job in (teacher, pretraining, student):
        assert job.flags[job.flags.index("--corpus") + 1] == "crema-d/pad"
        assert not any("nemo" in flag for flag in job.flags[: job.flags.index("--output")])
        mixed = job.flags[job.flags.index("--mix") + 1 :]
        assert {each.partition("=")[0] for each in mixed if "/pad=" in each} == {
            "ravdess/pad",
            "emospeech-commands/pad",
        }


def test_new_scores_replace_old_ones_and_those_of_absent_runs_are_kept():
    known = {"lite": {"title": "lite", "trained_on": {"all": {"emotale": 1, "nemo": 2}, "only-nemo": {"ravdess": 3}}}}
    found = {"lite": {"title": "new", "trained_on": {"all": {"emotale": 4}}}, "other": {"title": "", "trained_on": {}}}

    result = updated(known, found)

    assert result["lite"] == {
        "title": "new",
        "trained_on": {"all": {"emotale": 4, "nemo": 2}, "only-nemo": {"ravdess": 3}},
    }
    assert set(result) == {"lite", "other"}
    assert known["lite"]["trained_on"]["all"]["emotale"] == 1


def test_corpora_are_sampled_by_the_power_of_their_size():
    sizes = {"large": 6400, "small": 100}

    (weight,) = (float(each.split("=")[1]) for each in mixture("large", ["small"], sizes, 2))
    assert weight * 100 / 6400 == pytest.approx((100 / 6400) ** 0.5, rel=1e-3)
    assert mixture("large", ["small"], sizes, 1) == ["small=1.000"]


def test_scores_are_means_over_seeds_of_the_four_emotions(tmp_path):
    emotions, random = ["angry", "calm", "happy", "neutral", "sad"], np.random.default_rng(0)
    labels, folders, expected = np.arange(60) % 5, [], []
    for seed in range(2):
        logits = random.normal(size=(60, 5)).astype(np.float32)
        predictions = Predictions(
            ids=[f"nemo/{number}" for number in range(60)],
            speakers=np.array([f"nemo/{number % 6}" for number in range(60)]),
            labels=labels,
            logits=logits,
            dimensions=np.full((60, 0), np.nan, np.float32),
            dimension_labels=np.full((60, 0), np.nan, np.float32),
            embedding=np.zeros((60, 0), np.float32),
            durations=np.ones(60),
        )
        (tmp_path / str(seed)).mkdir()
        folders.append(tmp_path / str(seed))
        save_predictions(predictions, folders[-1] / "predictions.parquet", emotions, [])
        merged = np.exp(logits)[:, [0, 2, 3, 4]]
        merged[:, 2] += np.exp(logits)[:, 1]  # calm counts as neutral
        expected.append(unweighted_average_recall(merged.argmax(1), np.array([0, 2, 1, 2, 3])[labels]))

    found = corpus_scores("nemo", folders, 20)

    assert found["uar"] == pytest.approx(np.mean(expected))
    assert found["seeds"] == pytest.approx(expected)
    assert (found["classes"], found["chance"]) == (4, 0.25)
    assert found["interval"][0] < found["uar"] < found["interval"][1]


def test_the_mean_is_given_only_where_every_corpus_was_left_out():
    def row(uar: float) -> dict:
        return {"uar": uar, "interval": (uar - 0.1, uar + 0.1), "chance": 0.25}

    trained_on = {
        "without-nemo": {"nemo": row(0.6)},
        "without-ravdess": {"ravdess": row(0.4)},
        "only-nemo": {"ravdess": row(0.3)},
    }
    table = leave_one_out_table({"models": {"lite": {"title": "lite", "trained_on": trained_on}}})

    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert lines[0][2:] == ["RAVDESS (English)", "nEMO (Polish)", "mean"]
    assert lines[2] == ["lite", "all others", "0.400 (0.30 to 0.50)", "0.600 (0.50 to 0.70)", "0.500"]
    assert lines[3] == ["lite", "nemo alone", "0.300 (0.20 to 0.40)", "", ""]
