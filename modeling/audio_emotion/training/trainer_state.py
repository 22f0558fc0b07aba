"""One folder a run: the resolved configuration, the metrics as they come, the results, the checkpoints."""

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
    """Writes a run's files; on other processes than the first it writes nothing.

    Args:
        path: the folder, made if missing.
        arguments: the recipe's dataclass, written to `config.yaml` as resolved.
        resume: whether a run of the same arguments that was killed here is to be continued. Else the folder's
            metrics start anew.
        restart: whether to throw away what another run has left here.

    Attributes:
        finished: the results of a run of the same arguments that had ended; None if there is something to do.

    Raises:
        ValueError: where the folder holds a run of other arguments that could be continued, naming the first of them.
    """

    def __init__(self, path: str | Path, arguments: Any, resume: bool = False, restart: bool = False) -> None:
        self.path = Path(path)
        self.finished: dict[str, Any] | None = None
        processes = PartialState()
        self.writes = processes.is_main_process
        values = {name: value for name, value in dataclasses.asdict(arguments).items() if name != "restart"}
        if resume and not restart and (self.path / "config.yaml").exists():
            there = yaml.safe_load((self.path / "config.yaml").read_text()) or {}
            # An argument that did not exist yet had the value that it has by default now.
            there = {**defaults(arguments), **there}
            different = [name for name in values if there.get(name) != values[name]]
            if different and ((self.path / "results.json").exists() or (self.path / "state").exists()):
                name = different[0]
                raise ValueError(
                    f"`{self.path}` holds another run: `{name}` was {there.get(name)!r} there, is {values[name]!r} "
                    "here. Choose another `--output`, or pass `--restart true` to write over it."
                )
            if (self.path / "results.json").exists():
                self.finished = json.loads((self.path / "results.json").read_text())
        else:
            resume = False
        processes.wait_for_everyone()  # all have looked before the first one writes
        self.logged: set[tuple] = set()  # names of the lines that stand in `metrics.jsonl`
        self.begin = time.monotonic()
        if not self.writes or self.finished is not None:
            return
        (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        lines = self._lines_at_hand() if resume else []
        if not resume:
            shutil.rmtree(self.path / "state", ignore_errors=True)
            (self.path / "results.json").unlink(missing_ok=True)
        self.logged = {self._name(line) for line in lines}
        self.begin -= max((line["seconds"] for line in lines), default=0.0)
        write_atomically(self.path / "config.yaml", yaml.safe_dump(values, sort_keys=False))
        write_atomically(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))

    def _lines_at_hand(self) -> list[dict]:
        """Metrics of the run that is taken up; a line that was torn by its end is left out."""
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
    def _name(line: dict) -> tuple:
        return line.get("model"), line.get("epoch")

    def log(self, **values: Any) -> None:
        """Append one line to `metrics.jsonl`, with the seconds since the run began.

        A line that stands there already, because the run was killed after it and has come by again, is not repeated.
        """
        if self.writes and self._name(values) not in self.logged:
            self.logged.add(self._name(values))
            line = {**values, "seconds": round(time.monotonic() - self.begin, 1)}
            with (self.path / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")

    def quarantine(self, bad: dict[str, str], from_any: bool = False) -> None:
        """Write `quarantine.jsonl`: clip id and reason of every clip that was left out.

        Args:
            bad: id and reason.
            from_any: whether another process than the first may write it, because the run is about to stop.
        """
        if self.writes or from_any:
            lines = [json.dumps({"id": name, "reason": reason}) + "\n" for name, reason in sorted(bad.items())]
            write_atomically(self.path / "quarantine.jsonl", "".join(lines))

    def results(self, values: dict[str, Any]) -> None:
        """Write `results.json`, with which the run has ended; what would have continued it goes."""
        if self.writes:
            write_atomically(self.path / "results.json", json.dumps(values, indent=2) + "\n")
            shutil.rmtree(self.path / "state", ignore_errors=True)


def defaults(arguments: Any) -> dict[str, Any]:
    """What a dataclass takes where nothing is said, for the fields that need not be said."""
    made = {
        each.name: each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
        for each in dataclasses.fields(arguments)
    }
    return {name: value for name, value in made.items() if value is not dataclasses.MISSING}


@dataclass
class Progress:
    """What a loop has to remember beside weights and generators.

    Attributes:
        step: batches trained on, over all epochs.
        best: highest validation score so far.
        totals: sums of the loss terms since the epoch began.
        quarantine: id and reason of the clips that this process has left out.
    """

    step: int = 0
    best: float = -1.0
    totals: dict[str, float] = field(default_factory=dict)
    quarantine: dict[str, str] = field(default_factory=dict)


class Resume:
    """The states of one training.

    Args:
        accelerator: with the model, the optimizer and the schedule of this training prepared, and no others.
        folder: where this training's states live.
        every: steps between two of them.
    """

    def __init__(self, accelerator: Accelerator, folder: Path, every: int) -> None:
        self.accelerator = accelerator
        self.folder = folder
        self.every = every

    def load(self) -> Progress:
        """Take up the newest whole state; a fresh `Progress` if there is none."""
        states = sorted(path for path in self.folder.glob("step-*") if path.suffix != ".partial")
        self.accelerator.wait_for_everyone()  # all have seen the same states before anybody writes a new one
        if not states:
            return Progress()
        self.accelerator.load_state(str(states[-1]))
        progress = Progress(**json.loads((states[-1] / self._ours).read_text()))
        self.accelerator.print(f"Taken up at step {progress.step} from {states[-1]}")
        return progress

    def save(self, progress: Progress, last: bool = False) -> None:
        """Write a state where one is due: every so many steps, and at the end."""
        if progress.step % self.every and not last:
            return
        whole = self.folder / f"step-{progress.step:09d}"
        if whole.exists():  # taken up at the end
            return
        partial = whole.with_suffix(".partial")
        self.accelerator.save_state(str(partial))
        (partial / self._ours).write_text(json.dumps(asdict(progress)))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            partial.rename(whole)
            for old in self.folder.glob("step-*"):
                if old != whole:
                    shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    @property
    def _ours(self) -> str:
        return f"progress-{self.accelerator.process_index}.json"
