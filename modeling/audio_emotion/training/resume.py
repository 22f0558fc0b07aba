"""Where a training stands, on disk every so many steps, so that a killed run goes on from there.

The heavy part is Accelerate's own state (weights, optimiser, schedule, random generators), which it reads with
`weights_only=True`; ours is one JSON file. A state is written beside the last one and renamed when it is whole.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from accelerate import Accelerator


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
        accelerator: with the model, the optimiser and the schedule of this training prepared, and no others.
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
