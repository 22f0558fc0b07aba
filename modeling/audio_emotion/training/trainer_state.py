"""The run folder, and the training states from which a killed run resumes."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout

from audio_emotion.data.shards import write_atomically
from audio_emotion.training.checksums import SUMS, damaged_files, write_checksums


class RunFolder:
    """Files of one run: `config.yaml`, `metrics.jsonl`, `quarantine.jsonl`, `results.json`, `checkpoints/`, `state/`.

    Only the main process writes.

    Args:
        path: the folder; created if missing.
        arguments: the recipe's dataclass, written to `config.yaml`.
        resume: whether to continue a run of the same arguments that was killed in this folder. Otherwise its metrics
            and state are deleted.
        restart: whether to delete metrics, state and results of any run in the folder.
        extends: names of arguments in which an earlier run may differ; this one contains it.

    Attributes:
        finished: results of a run of the same arguments that had ended; None if there is something to do.

    Raises:
        ValueError: if the folder holds a run of other arguments that is finished or could be resumed, with the first
            that differs; or if another process is running in it.
    """

    def __init__(
        self,
        path: str | Path,
        arguments: Any,
        resume: bool = False,
        restart: bool = False,
        extends: Collection[str] = (),
    ) -> None:
        self.path = Path(path)
        self.finished: dict[str, Any] | None = None
        processes = PartialState()
        self.writes = processes.is_main_process
        values = {name: value for name, value in dataclasses.asdict(arguments).items() if name != "restart"}
        resume = not restart and self._is_same_run(values, default_values(arguments), extends) and resume
        if resume and (self.path / "results.json").exists():
            self.finished = json.loads((self.path / "results.json").read_text())
        processes.wait_for_everyone()  # all have read the folder before the main process writes
        self.logged: set[tuple] = set()  # (model, epoch) of the lines in `metrics.jsonl`
        self.begin = time.monotonic()
        if not self.writes or self.finished is not None:
            return
        (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        # Of this process, however many of its parts open the folder; it ends with the process, at the latest.
        self.lock = FileLock(self.path / ".lock", timeout=0, thread_local=False, is_singleton=True)
        try:
            self.lock.acquire()
        except Timeout as error:
            raise ValueError(
                f"Expected `{self.path}` for this run alone, but another process is running in it. Wait for its end, "
                "or choose another `--output`."
            ) from error
        lines = self._read_metrics() if resume else []
        if not resume:
            shutil.rmtree(self.path / "state", ignore_errors=True)
            (self.path / "results.json").unlink(missing_ok=True)
        self.logged = {self._key(line) for line in lines}
        self.begin -= max((line["seconds"] for line in lines), default=0.0)
        write_atomically(self.path / "config.yaml", yaml.safe_dump(values, sort_keys=False))
        write_atomically(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))

    def _is_same_run(self, values: dict[str, Any], defaults: dict[str, Any], extends: Collection[str]) -> bool:
        """Whether `config.yaml` has these arguments; one that was added to the recipe since had its default there.

        Raises:
            ValueError: if it has others, and there are results, or a state to resume from.
        """
        config = self.path / "config.yaml"
        before = defaults | ((yaml.safe_load(config.read_text()) or {}) if config.exists() else {"recipe": "unknown"})
        names = [name for name in {**values, **before} if name not in (*extends, "restart")]
        different = [name for name in names if before.get(name) != values.get(name)]
        files = [path for path in (self.path / "state").rglob("*") if path.is_file()]
        has_state = any(".partial" not in str(path.relative_to(self.path)) for path in files)
        if different and (has_state or (self.path / "results.json").exists()):
            name = different[0]
            raise ValueError(
                f"`{self.path}` holds another run: `{name}` was {before.get(name)!r} there, is {values.get(name)!r} "
                "here. Choose another `--output`, or pass `--restart true` to overwrite it."
            )
        return not different

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
        """Write `quarantine.jsonl` from the reason by clip id; `from_any` process if the run is about to stop."""
        if self.writes or from_any:
            lines = [json.dumps({"id": name, "reason": reason}) + "\n" for name, reason in sorted(bad.items())]
            write_atomically(self.path / "quarantine.jsonl", "".join(lines))

    def results(self, values: dict[str, Any]) -> None:
        """Write `results.json`, which marks the run as finished, and delete the training states."""
        if self.writes:
            write_atomically(self.path / "results.json", json.dumps(values, indent=2) + "\n")
            shutil.rmtree(self.path / "state", ignore_errors=True)
            self.lock.release(force=True)


def default_values(arguments: Any) -> dict[str, Any]:
    """Defaults of the fields of a dataclass that have one."""
    values = {
        each.name: each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
        for each in dataclasses.fields(arguments)
    }
    return {name: value for name, value in values.items() if value is not dataclasses.MISSING}


@dataclass
class TrainerState:
    """State of a training loop beside weights, optimizer and random generators."""

    step: int = 0  # batches trained on, over all epochs
    best: float = -1.0  # highest validation score so far
    totals: dict[str, float] = field(default_factory=dict)  # of each loss term since the epoch began
    quarantine: dict[str, str] = field(default_factory=dict)  # reason by id of the clips excluded by this process


class StateCheckpoints:
    """Saves and loads the complete state of one training; the accelerator has prepared no other."""

    def __init__(self, accelerator: Accelerator, folder: Path, every: int) -> None:
        self.accelerator, self.folder, self.every = accelerator, folder, every

    def load(self) -> TrainerState:
        """Load the newest undamaged state; a new `TrainerState` if there is no state.

        Raises:
            ValueError: if all states are damaged.
        """
        newest: Path | None = None
        damaged: dict[Path, list[str]] = {}
        if self.accelerator.is_main_process:  # one process decides for all
            for path in reversed(self._complete()):
                if names := damaged_files(path):
                    damaged[path] = names
                else:
                    newest = path
                    break
        newest, damaged = broadcast_object_list([newest, damaged])
        report = "; ".join(f"{path}: {', '.join(names)}" for path, names in damaged.items())
        if newest is None:
            if damaged:
                raise ValueError(
                    f"Expected a training state whose files match its `{SUMS}`, got damaged files in {report}. Pass "
                    "`--restart true` to train from the beginning."
                )
            return TrainerState()
        if damaged:
            self.accelerator.print(f"WARNING: damaged training states, which are deleted: {report}.")
            if self.accelerator.is_main_process:
                for path in damaged:
                    shutil.rmtree(path)
        self.accelerator.load_state(str(newest))
        state = TrainerState(**json.loads((newest / self._file).read_text()))
        self.accelerator.print(f"Resumed at step {state.step} from {newest}")
        return state

    def save(self, state: TrainerState, last: bool = False) -> None:
        """Write a state every `every` steps, and the last one; the one before is kept, in case it gets damaged."""
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
            write_checksums(partial)
            partial.rename(complete)
            for old in {*self.folder.glob("step-*")} - {*self._complete()[-2:]}:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def _complete(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step-*") if path.suffix != ".partial")

    @property
    def _file(self) -> str:
        return f"trainer_state-{self.accelerator.process_index}.json"
