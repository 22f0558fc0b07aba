"""A killed run resumes: its final weights equal those of a run that was not killed."""

from __future__ import annotations

import json
import os
import random
import runpy
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

RECIPES = Path(__file__).parents[1] / "recipes"
TEACHER = {"corpus_count": 60, "epochs": 2, "cross_fit": 2, "hidden_size": 16, "convolution_size": 16, "batch_size": 8}
STUDENT = {"corpus_count": 60, "epochs": 3, "size": "nano", "augment": 0.5, "batch_size": 8, "dropout": 0.3}


class Killed(BaseException):
    """Ends a run at some step."""


def train(name: str, **arguments) -> dict:
    recipe = runpy.run_path(str(RECIPES / f"{name}.py"))
    cls = {"train_teacher": "TeacherArguments", "distill": "DistillArguments"}[name]
    cache = str(Path(arguments["output"]).parent / "cache")
    return recipe["main"](recipe[cls](save_every=3, **{"cache": cache, **arguments}))


@pytest.fixture
def killed_at(monkeypatch):
    """Kill a run at the n-th step of the learning-rate schedule."""

    def arm(step: int) -> None:
        original, count = torch.optim.lr_scheduler.OneCycleLR.step, iter(range(10_000))

        def counted(self, *args):
            if next(count) == step:
                raise Killed
            return original(self, *args)

        monkeypatch.setattr(torch.optim.lr_scheduler.OneCycleLR, "step", counted)

    return arm


def assert_same_run(one: Path, two: Path) -> None:
    """Weights are equal bit for bit, and metrics line by line."""
    for checkpoint in ("last", "best"):
        first, second = (load_file(run / "checkpoints" / checkpoint / "model.safetensors") for run in (one, two))
        assert {name for name in first if not torch.equal(first[name], second[name])} == set(), checkpoint
    lines = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, two)]
    assert [{**line, "seconds": 0} for line in lines[0]] == [{**line, "seconds": 0} for line in lines[1]]


@pytest.mark.parametrize("steps", [(4, 7), pytest.param((14,), marks=pytest.mark.slow)], ids=str)
def test_a_teacher_that_was_killed_and_resumed_has_the_same_weights(steps, killed_at, monkeypatch, tmp_path):
    shared = {**TEACHER, "cache": str(tmp_path / "cache")}
    train("train_teacher", output=str(tmp_path / "not_killed"), **shared)
    for step in steps:
        with monkeypatch.context():
            killed_at(step)
            with pytest.raises(Killed):
                train("train_teacher", output=str(tmp_path / "killed"), **shared)
        monkeypatch.undo()
    train("train_teacher", output=str(tmp_path / "killed"), **shared)

    assert_same_run(tmp_path / "not_killed", tmp_path / "killed")
    outputs = [
        load_file(tmp_path / run / "teacher_outputs" / "teacher_outputs.safetensors")
        for run in ("not_killed", "killed")
    ]
    assert all(torch.equal(outputs[0][name], outputs[1][name]) for name in outputs[0])


def test_a_student_that_was_killed_and_resumed_has_the_same_weights(killed_at, monkeypatch, tmp_path):
    shared = {**STUDENT, "teacher": ""}
    train("distill", output=str(tmp_path / "not_killed"), **shared)
    for step in (5, 4):
        killed_at(step)
        with pytest.raises(Killed):
            train("distill", output=str(tmp_path / "killed"), **shared)
        monkeypatch.undo()
    train("distill", output=str(tmp_path / "killed"), **shared)

    assert_same_run(tmp_path / "not_killed", tmp_path / "killed")
    assert not (tmp_path / "killed" / "state").exists()


def test_a_run_whose_newest_state_is_damaged_has_the_same_weights(killed_at, monkeypatch, tmp_path, capsys):
    shared = {**STUDENT, "teacher": ""}
    train("distill", output=str(tmp_path / "not_killed"), **shared)
    killed_at(8)
    with pytest.raises(Killed):
        train("distill", output=str(tmp_path / "killed"), **shared)
    monkeypatch.undo()
    newest = max((tmp_path / "killed" / "state").glob("step-*"))
    (newest / "random_states_0.pkl").write_bytes((newest / "random_states_0.pkl").read_bytes()[:-100])
    capsys.readouterr()

    train("distill", output=str(tmp_path / "killed"), **shared)

    printed = capsys.readouterr().out
    assert "random_states_0.pkl" in printed
    assert "Resumed at step 3" in printed
    assert_same_run(tmp_path / "not_killed", tmp_path / "killed")


def test_a_finished_run_is_not_repeated_and_another_run_is_not_overwritten(tmp_path):
    first = train("distill", output=str(tmp_path), teacher="", **STUDENT)
    written = (tmp_path / "checkpoints" / "last" / "model.safetensors").stat().st_mtime_ns

    assert train("distill", output=str(tmp_path), teacher="", **STUDENT) == first
    assert (tmp_path / "checkpoints" / "last" / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(ValueError, match=r"`epochs` was 3 there, is 1 here.*--restart"):
        train("distill", output=str(tmp_path), teacher="", **{**STUDENT, "epochs": 1})
    train("distill", output=str(tmp_path), teacher="", restart=True, **{**STUDENT, "epochs": 1})
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["epochs"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_sigkill_at_random_times_changes_no_weight(processes, tmp_path):
    """From shards, shuffled, with two workers in each process."""
    pack = runpy.run_path(str(RECIPES / "pack.py"))
    pack["main"](pack["PackArguments"](output=str(tmp_path / "shards"), corpus_count=120, shard_mb=1))
    flags = ["--corpus", str(tmp_path / "shards" / "corpus.yaml"), "--protocol", "synthetic-10", "--teacher", ""]
    flags += ["--epochs", "20", "--size", "nano", "--augment", "0.5", "--labeled", "1.0"]
    flags += ["--cache", str(tmp_path / "cache"), "--batch_size", "8", "--num_workers", "2", "--save_every", "3"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    if processes == 1:
        launch = [sys.executable]

    def command(name: str) -> list[str]:
        return [*launch, str(RECIPES / "distill.py"), *flags, "--output", str(tmp_path / name)]

    subprocess.run(command("not_killed"), env=environment, check=True, capture_output=True)
    chance = random.Random(processes)
    for _ in range(2):
        seen = set((tmp_path / "killed" / "state").glob("step-*"))
        run = psutil.Popen(command("killed"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not set((tmp_path / "killed" / "state").glob("step-*")) - seen:  # until it has saved a new state
            assert run.poll() is None
            time.sleep(0.05)
        time.sleep(chance.random() / 3)
        for process in [run, *run.children(recursive=True)]:  # torchrun starts each process in a new session
            process.kill()
        run.wait()
        assert not (tmp_path / "killed" / "results.json").exists()
    printed = subprocess.run(command("killed"), env=environment, check=True, capture_output=True, text=True).stdout

    assert "Resumed at step" in printed
    assert_same_run(tmp_path / "not_killed", tmp_path / "killed")
