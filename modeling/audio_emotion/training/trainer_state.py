"""The run folder, and the training states from which a killed run resumes."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from accelerate import Accelerator, PartialState

from audio_emotion.data.shards import write_atomically


class RunFolder:
    """Files of one run: `config.yaml`, `metrics.jsonl`, `quarantine.jsonl`, `results.json`, `checkpoints/`, `state/`.

    Only the main process writes.

    Args:
        path: the folder; created if missing.
        arguments: the recipe's dataclass, written to `config.yaml`.
        resume: whether to continue a run of the same arguments that was killed in this folder. Otherwise metrics and
            state of the folder are deleted.
        restart: whether to delete metrics and state even of a run that could be resumed.

    Attributes:
        finished: results of a run of the same arguments that had ended; None if there is something to do.

    Raises:
        ValueError: if the folder holds a run of other arguments that could be resumed; names the first that differs.
    """

    def __init__(self, path: str | Path, arguments: Any, resume: bool = False, restart: bool = False) -> None:
        self.path = Path(path)
        self.finished: dict[str, Any] | None = None
        processes = PartialState()
        self.writes = processes.is_main_process
        values = {name: value for name, value in dataclasses.asdict(arguments).items() if name != "restart"}
        resume = resume and not restart and (self.path / "config.yaml").exists()
        if resume:
            self._check_same_arguments(values, default_values(arguments))
            if (self.path / "results.json").exists():
                self.finished = json.loads((self.path / "results.json").read_text())
        processes.wait_for_everyone()  # all have read the folder before the main process writes
        self.logged: set[tuple] = set()  # (model, epoch) of the lines in `metrics.jsonl`
        self.begin = time.monotonic()
        if not self.writes or self.finished is not None:
            return
        (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        lines = self._read_metrics() if resume else []
        if not resume:
            shutil.rmtree(self.path / "state", ignore_errors=True)
            (self.path / "results.json").unlink(missing_ok=True)
        self.logged = {self._key(line) for line in lines}
        self.begin -= max((line["seconds"] for line in lines), default=0.0)
        write_atomically(self.path / "config.yaml", yaml.safe_dump(values, sort_keys=False))
        write_atomically(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))

    def _check_same_arguments(self, values: dict[str, Any], defaults: dict[str, Any]) -> None:
        """Compare the arguments with `config.yaml`; one that was added to the recipe since had its default there."""
        before = {**defaults, **(yaml.safe_load((self.path / "config.yaml").read_text()) or {})}
        different = [name for name in values if before.get(name) != values[name]]
        if different and ((self.path / "results.json").exists() or (self.path / "state").exists()):
            name = different[0]
            raise ValueError(
                f"`{self.path}` holds another run: `{name}` was {before.get(name)!r} there, is {values[name]!r} "
                "here. Choose another `--output`, or pass `--restart true` to overwrite it."
            )

    def _read_metrics(self) -> list[dict]:
        """Lines of `metrics.jsonl`, up to one that is incomplete because the run was killed while writing it."""
        if not (self.path / "metrics.jsonl").exists():
            return []
        lines = []
        for text in (self.path / "metrics.jsonl").read_text().splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                break
        return lines

    @staticmethod
    def _key(line: dict) -> tuple:
        return line.get("model"), line.get("epoch")

    def log(self, **values: Any) -> None:
        """Append one line to `metrics.jsonl`, with the seconds since the run began.

        The line of an epoch that was logged before the run was killed, and is trained again, is not repeated.
        """
        if self.writes and self._key(values) not in self.logged:
            self.logged.add(self._key(values))
            line = {**values, "seconds": round(time.monotonic() - self.begin, 1)}
            with (self.path / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")

    def quarantine(self, bad: dict[str, str], from_any: bool = False) -> None:
        """Write `quarantine.jsonl`: id and reason of every clip that was excluded.

        Args:
            bad: reason by clip id.
            from_any: whether other processes than the main one write too, because the run is about to stop.
        """
        if self.writes or from_any:
            lines = [json.dumps({"id": name, "reason": reason}) + "\n" for name, reason in sorted(bad.items())]
            write_atomically(self.path / "quarantine.jsonl", "".join(lines))

    def results(self, values: dict[str, Any]) -> None:
        """Write `results.json`, which marks the run as finished, and delete the training states."""
        if self.writes:
            write_atomically(self.path / "results.json", json.dumps(values, indent=2) + "\n")
            shutil.rmtree(self.path / "state", ignore_errors=True)


def default_values(arguments: Any) -> dict[str, Any]:
    """Defaults of the fields of a dataclass that have one."""
    values = {
        each.name: each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
        for each in dataclasses.fields(arguments)
    }
    return {name: value for name, value in values.items() if value is not dataclasses.MISSING}


@dataclass
class TrainerState:
    """State of a training loop beside weights, optimizer and random generators.

    Attributes:
        step: number of batches trained on, over all epochs.
        best: highest validation score so far.
        totals: sum of each loss term since the epoch began.
        quarantine: id and reason of the clips that this process has excluded.
    """

    step: int = 0
    best: float = -1.0
    totals: dict[str, float] = field(default_factory=dict)
    quarantine: dict[str, str] = field(default_factory=dict)


class StateCheckpoints:
    """Saves and loads the complete state of one training.

    Args:
        accelerator: with model, optimizer and schedule of this training prepared, and no others.
        folder: folder of the states.
        every: steps between two states.
    """

    def __init__(self, accelerator: Accelerator, folder: Path, every: int) -> None:
        self.accelerator = accelerator
        self.folder = folder
        self.every = every

    def load(self) -> TrainerState:
        """Load the newest complete state; a new `TrainerState` if there is none."""
        states = sorted(path for path in self.folder.glob("step-*") if path.suffix != ".partial")
        self.accelerator.wait_for_everyone()  # all have listed the states before one of them writes a new one
        if not states:
            return TrainerState()
        self.accelerator.load_state(str(states[-1]))
        state = TrainerState(**json.loads((states[-1] / self._file).read_text()))
        self.accelerator.print(f"Resumed at step {state.step} from {states[-1]}")
        return state

    def save(self, state: TrainerState, last: bool = False) -> None:
        """Write a state every `every` steps, and the last one; it replaces the one before."""
        if state.step % self.every and not last:
            return
        complete = self.folder / f"step-{state.step:09d}"
        if complete.exists():  # the run resumed at its last step
            return
        partial = complete.with_suffix(".partial")
        self.accelerator.save_state(str(partial))
        (partial / self._file).write_text(json.dumps(asdict(state)))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            partial.rename(complete)
            for old in self.folder.glob("step-*"):
                if old != complete:
                    shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    @property
    def _file(self) -> str:
        return f"trainer_state-{self.accelerator.process_index}.json"
