"""Recipes: run in-process on a few synthetic clips; launched for real only under `slow`."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.state import AcceleratorState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.registry import corpus_table, select_speakers
from audio_emotion.teachers.outputs import TeacherOutputs
from audio_emotion.training.arguments import parse_arguments
from audio_emotion.training.feature_cache import set_log_mel_statistics

RECIPES = Path(__file__).parents[1] / "recipes"


def recipe(name: str) -> dict:
    return runpy.run_path(str(RECIPES / f"{name}.py"))


@pytest.fixture(scope="module")
def teacher_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    train = recipe("train_teacher")
    arguments = {"corpus_count": 60, "epochs": 1, "cross_fit": 2, "hidden_size": 16, "convolution_size": 16}
    train["main"](train["TeacherArguments"](output=str(folder / "run"), cache=str(folder / "cache"), **arguments))
    return folder / "run"


def test_a_teacher_run_leaves_the_whole_run_folder(teacher_run):
    assert {path.name for path in teacher_run.iterdir()} >= {
        "config.yaml",
        "metrics.jsonl",
        "results.json",
        "checkpoints",
        "quarantine.jsonl",
        "teacher_outputs",
    }
    results = json.loads((teacher_run / "results.json").read_text())
    assert results["test"]["clips"] == 12
    assert set(results["test"]["speakers"]).isdisjoint(results["train_speakers"])


def test_cross_fitted_teachers_speak_of_every_clip_once_and_never_of_their_own_speakers(teacher_run):
    index = json.loads((teacher_run / "teacher_outputs" / "teacher_outputs.json").read_text())

    assert len(index["ids"]) == len(set(index["ids"])) == 60


def test_the_teacher_counts_as_one_of_however_many_sides_it_speaks_and_leaves_its_terms(teacher_run):
    said = TeacherOutputs.load(teacher_run / "teacher_outputs")
    results = json.loads((teacher_run / "results.json").read_text())

    assert said.num_teachers == 3  # two cross-fitted ones, and the teacher
    assert {"synthetic/09", "synthetic/10"} & set(results["test"]["speakers"])
    assert said.dimension_names == ["activation", "valence", "dominance"]
    assert said.license == "Apache-2.0"


def test_a_student_uses_every_label_stands_under_its_teachers_terms_and_says_whom_they_have_heard(
    teacher_run, tmp_path, capsys
):
    said = TeacherOutputs.load(teacher_run / "teacher_outputs")
    results = json.loads((teacher_run / "results.json").read_text())
    tested = results["test"]["speakers"][0]
    heard = [*said.training_data, {"corpus": "synthetic", "speakers": [tested], "teachers": []}]
    replace(said, license="CC-BY-NC-4.0 AND Apache-2.0", training_data=heard).save(tmp_path / "outputs")
    distil = recipe("distill")
    arguments = {"corpus_count": 60, "epochs": 1, "size": "nano", "teacher": str(tmp_path / "outputs")}

    results = distil["main"](distil["DistillArguments"](output=str(tmp_path / "run"), **arguments))

    config = json.loads((tmp_path / "run" / "checkpoints" / "last" / "config.json").read_text())
    assert config["license"] == "Apache-2.0 AND CC-BY-NC-4.0"
    assert results["labeled"] == 1
    assert results["contaminated_by"] == [tested]
    printed = capsys.readouterr().out
    clips = len(select_speakers(corpus_table("synthetic", count=60), results["train_speakers"]))
    assert f"{clips} of {clips} labels used" in printed
    warning = printed.index("WARNING")
    assert tested in printed[warning:].splitlines()[0]
    assert warning < printed.index("test (contaminated): ")


def test_labels_are_drawn_from_the_clips_that_have_one(capsys, tmp_path):
    table = corpus_table("synthetic", count=20)
    dimensions = ["activation", "valence", "dominance"]
    nothing = dict.fromkeys(["emotion", *dimensions])
    partly = table.map(
        lambda row, number: {**row, **(nothing if number % 2 else {"emotion": None})}, with_indices=True
    )
    labeled = recipe("distill")["clips_with_labels"]

    assert labeled(table, dimensions) == list(table["id"])
    assert labeled(partly, dimensions) == list(table["id"])[::2]
    assert labeled(partly, []) == []


def test_distillation_learns_from_the_teacher_and_names_its_terms(teacher_run, tmp_path):
    distil = recipe("distill")
    arguments = {"corpus_count": 60, "epochs": 1, "size": "nano", "augment": 1.0, "labeled": 0.5}
    results = distil["main"](
        distil["DistillArguments"](output=str(tmp_path / "run"), teacher=str(teacher_run), **arguments)
    )

    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    terms = {"dimensions", "emotions", "teacher_embedding", "teacher_emotions", "teacher_dimensions"}
    assert {f"loss_{term}" for term in terms} <= set(lines[-1])
    assert results["parameters"] < 75_000

    # A speaker that the student or its teacher has heard is refused, and marked when asked for.
    evaluate = recipe("evaluate")
    where = {"model": str(tmp_path / "run" / "checkpoints" / "last"), "corpus_count": 60, "repeats": 20}
    where["pictures"] = False
    with pytest.raises(ValueError, match="synthetic/01"):
        evaluate["main"](evaluate["EvaluateArguments"](output=str(tmp_path / "e"), side="train", **where))
    again = evaluate["main"](evaluate["EvaluateArguments"](output=str(tmp_path / "e"), batch_size=5, **where))
    assert results["contaminated_by"] == []
    assert again["test"]["ccc_valence"] == pytest.approx(results["test"]["ccc_valence"], abs=1e-6)
    marked = evaluate["main"](
        evaluate["EvaluateArguments"](output=str(tmp_path / "e"), side="train", contaminated=True, **where)
    )
    assert "synthetic/01" in marked["contaminated_by"]


def test_kept_versions_of_augmented_clips_train_a_student_as_new_ones_do(tmp_path):
    distil = recipe("distill")
    arguments = {"corpus_count": 40, "epochs": 3, "size": "nano", "batch_size": 8, "augment": 1.0, "teacher": ""}
    arguments |= {"augment_versions": 2, "cache": str(tmp_path / "cache"), "labeled": 1.0}
    results = [
        distil["main"](distil["DistillArguments"](output=str(tmp_path / name), **arguments)) for name in ("one", "two")
    ]

    assert results[0]["test"] == results[1]["test"]  # computed for the first run, read by the second
    assert (tmp_path / "cache").exists()
    lines = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss_dimensions"] < lines[0]["loss_dimensions"]


def test_front_end_statistics_are_those_of_the_clips(tiny_student):
    table = select_speakers(corpus_table("synthetic", count=20), ["synthetic/01"])
    clips = ClipStream(table)

    set_log_mel_statistics(tiny_student, clips)

    front_end = tiny_student.student.log_mel
    frames = np.concatenate(
        [front_end.unnormalized(torch.tensor(row["waveform"])[None])[0].numpy() for row in clips.clips()]
    )
    np.testing.assert_allclose(front_end.mean.numpy(), frames.mean(0), atol=1e-4)
    np.testing.assert_allclose(front_end.deviation.numpy(), frames.std(0), atol=1e-4)


@pytest.fixture
def fresh_accelerate():
    """Accelerate keeps the precision of a process's first run."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_tensorboard_and_bfloat16_do_what_they_are_asked_for(fresh_accelerate, tmp_path):
    distil = recipe("distill")
    arguments = {"corpus_count": 40, "epochs": 1, "size": "nano", "batch_size": 8, "mixed_precision": "bf16"}
    results = distil["main"](
        distil["DistillArguments"](output=str(tmp_path / "run"), teacher="", trackers=["tensorboard"], **arguments)
    )

    assert np.isfinite([value for value in results["test"].values() if isinstance(value, float)]).all()
    events = EventAccumulator(str(next(tmp_path.rglob("events.out.tfevents.*")).parent)).Reload()
    assert {"loss_dimensions", "loss_emotions"} <= set(events.Tags()["scalars"])


@pytest.mark.parametrize(("text", "teachers"), [("teacher: ''", [""]), ("teacher: runs/a", ["runs/a"])])
def test_one_teacher_in_a_file_need_not_be_a_list(tmp_path, text, teachers):
    (tmp_path / "run.yaml").write_text(text)

    arguments = parse_arguments(recipe("distill")["DistillArguments"], ["--config", str(tmp_path / "run.yaml")])

    assert arguments.teacher == teachers


def test_the_configuration_for_two_machines_is_one_that_accelerate_reads():
    config = load_config_from_file(str(RECIPES / "configs" / "accelerate" / "two_machines.yaml"))

    assert (config.num_machines, config.num_processes, config.mixed_precision) == (2, 8, "bf16")


@pytest.mark.slow
def test_two_cpu_processes_distil_and_give_the_same_metrics_as_one(teacher_run, tmp_path):
    flags = ["--corpus_count", "60", "--epochs", "1", "--size", "nano", "--teacher", str(teacher_run)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    two = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command = [*two, str(RECIPES / "distill.py"), *flags, "--output", str(tmp_path / "two")]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "2 process(es)" in said

    scores = []
    for launch, name in ((two, "a"), ([sys.executable], "b")):
        model = ["--model", str(tmp_path / "two" / "checkpoints" / "last"), "--batch_size", "10"]
        command = [*launch, str(RECIPES / "evaluate.py"), *model, "--corpus_count", "60"]
        subprocess.run([*command, "--output", str(tmp_path / name)], env=environment, check=True, capture_output=True)
        scores.append(json.loads((tmp_path / name / "results.json").read_text())["test"])
    for key, value in scores[0].items():
        if isinstance(value, float):
            assert scores[1][key] == pytest.approx(value, abs=1e-6), key
