"""A run folder is resumed with the same arguments only, and a training from an undamaged state only."""

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator
from filelock import FileLock, Timeout

from audio_emotion.training.trainer_state import RunFolder, StateCheckpoints, TrainerState


@dataclass
class Arguments:
    corpus: str
    epochs: int = 3
    telephone: float = 0.0
    speakers: list[str] = field(default_factory=list)


def test_a_finished_run_of_the_same_arguments_returns_its_results(tmp_path):
    RunFolder(tmp_path, Arguments("a", epochs=2)).results({"uar": 0.5})

    assert RunFolder(tmp_path, Arguments("a", epochs=2), resume=True).finished == {"uar": 0.5}
    with pytest.raises(ValueError, match=r"`epochs` was 2 there, is 3 here"):
        RunFolder(tmp_path, Arguments("a"), resume=True)


@pytest.mark.parametrize(("now", "same"), [(0.0, True), (0.3, False)])
def test_an_argument_added_since_had_its_default(now, same, tmp_path):
    RunFolder(tmp_path, Arguments("a")).results({"uar": 0.5})
    stored = yaml.safe_load((tmp_path / "config.yaml").read_text())
    del stored["telephone"], stored["speakers"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(stored))

    if same:
        assert RunFolder(tmp_path, Arguments("a", telephone=now), resume=True).finished == {"uar": 0.5}
    else:
        with pytest.raises(ValueError, match=r"`telephone` was 0\.0 there, is 0\.3 here"):
            RunFolder(tmp_path, Arguments("a", telephone=now), resume=True)


@pytest.fixture
def states(tmp_path) -> StateCheckpoints:
    """A training with states at steps 1 and 2."""
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    model = torch.nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(model.parameters())
    accelerator.prepare(model, optimizer)
    states = StateCheckpoints(accelerator, tmp_path / "state", 1)
    for step in (1, 2):
        model(torch.rand(4, 8)).sum().backward()
        optimizer.step()
        states.save(TrainerState(step, quarantine={"a": "not audio"}))
    states.weight = model.weight
    yield states
    accelerator.free_memory()


def damage(folder: Path, number: int) -> str:
    """Cut, flip a bit of, or replace one file of a state, or add one; returns its name."""
    where = random.Random(number)
    files = sorted(path for path in folder.iterdir() if path.stat().st_size)
    file = where.choice(files)
    content = bytearray(file.read_bytes())
    if number % 4 == 0:
        del content[where.randrange(len(content)) :]
    elif number % 4 == 1:
        content[where.randrange(len(content))] ^= 1 << where.randrange(8)
    elif number % 4 == 2:  # a generator's state that loads without an error
        file = folder / "random_states_0.pkl"
        planted = torch.Generator().manual_seed(number).get_state()
        torch.save({**torch.load(file, weights_only=False), "torch_manual_seed": planted}, file)
        content = bytearray(file.read_bytes())
    else:
        file = folder / "custom_checkpoint_0.pkl"
        content = bytearray(b"planted")
    file.write_bytes(content)
    return file.name


@pytest.mark.parametrize("number", range(20))
def test_a_damaged_state_is_passed_over_with_a_warning_for_the_one_before(number, states, capsys):
    damaged = damage(states.folder / "step-000000002", number)

    assert states.load() == TrainerState(1, quarantine={"a": "not audio"})

    printed = capsys.readouterr().out
    assert "WARNING" in printed
    assert damaged in printed or "SHA256SUMS" in printed
    assert [path.name for path in states.folder.iterdir()] == ["step-000000001"]
    states.save(TrainerState(2))
    assert states.load().step == 2


def test_without_an_undamaged_state_nothing_is_trained(states):
    for folder in states.folder.iterdir():
        (folder / "random_states_0.pkl").unlink()

    with pytest.raises(ValueError, match=r"random_states_0\.pkl.*--restart"):
        states.load()
    assert len(list(states.folder.iterdir())) == 2


def test_of_all_states_the_last_two_are_kept(states):
    states.save(TrainerState(3))

    assert sorted(path.name for path in states.folder.iterdir()) == ["step-000000002", "step-000000003"]


@dataclass
class OtherArguments:
    """Of another recipe."""

    model: str = "a"


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("arguments", [OtherArguments(), Arguments("b")])
def test_another_run_is_never_deleted_unless_requested(arguments, resume, tmp_path):
    RunFolder(tmp_path, Arguments("a")).results({"uar": 0.5})

    with pytest.raises(ValueError, match=r"holds another run.*`--restart true`"):
        RunFolder(tmp_path, arguments, resume=resume)
    assert (tmp_path / "results.json").exists()
    RunFolder(tmp_path, arguments, resume=resume, restart=True)
    assert not (tmp_path / "results.json").exists()


def test_results_that_no_run_of_ours_wrote_are_not_deleted(tmp_path):
    (tmp_path / "results.json").write_text("{}")

    with pytest.raises(ValueError, match="holds another run"):
        RunFolder(tmp_path, Arguments("a"))


def test_an_experiment_is_extended_in_its_own_arguments_alone(tmp_path):
    RunFolder(tmp_path, Arguments("a", epochs=2)).results({"uar": 0.5})

    RunFolder(tmp_path, Arguments("a"), extends=("epochs",)).results({"uar": 0.6})
    with pytest.raises(ValueError, match="`corpus` was 'a' there"):
        RunFolder(tmp_path, Arguments("b"), extends=("epochs",))
    with pytest.raises(ValueError, match="holds another run"):
        RunFolder(tmp_path, OtherArguments(), extends=("epochs",))


def test_two_processes_do_not_run_in_one_folder(tmp_path):
    lock = FileLock(tmp_path / ".lock", timeout=0)  # as another process has it
    with lock, pytest.raises(ValueError, match="another process is running in it"):
        RunFolder(tmp_path, Arguments("a"), resume=True)

    run = RunFolder(tmp_path, Arguments("a"), resume=True)
    RunFolder(tmp_path, Arguments("a"), resume=True)  # another part of the same process
    with pytest.raises(Timeout):
        lock.acquire()
    run.results({"uar": 0.5})
    with lock:
        assert RunFolder(tmp_path, Arguments("a"), resume=True).finished == {"uar": 0.5}


@pytest.mark.parametrize("left", [None, "step-000000004.partial/model.safetensors"])
def test_a_run_that_died_before_its_first_state_leaves_no_obstacle(left, tmp_path):
    RunFolder(tmp_path, Arguments("a"), resume=True)
    path = tmp_path / "state" / (left or "")
    path.mkdir(parents=True)

    RunFolder(tmp_path, Arguments("b"), resume=True)
    (tmp_path / "state" / "step-000000004").mkdir(parents=True)
    (tmp_path / "state" / "step-000000004" / "model.safetensors").touch()
    with pytest.raises(ValueError, match="holds another run"):
        RunFolder(tmp_path, Arguments("a"), resume=True)
