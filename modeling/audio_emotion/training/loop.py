"""The parts of a training loop that all recipes share: a step, the end of an epoch, and the state to resume from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm.auto import tqdm

from audio_emotion.data.dataset import Augment, Batch, ClipStream, batches
from audio_emotion.data.sampler import ResumableSampler
from audio_emotion.evaluation.report import headline, selection_score
from audio_emotion.training.arguments import TrainingArguments
from audio_emotion.training.experiment import ExperimentData
from audio_emotion.training.trainer_state import StateCheckpoints


class TrainingLoop:
    """Bookkeeping of one training; the loop itself is in the recipe.

        for batch in loop.batches():
            terms = ...
            loop.step(terms, weights)
            if loop.epoch_ended:
                loop.end_epoch(scores, save_best)
            loop.save_state()

    A killed training resumes at its last saved state: create the loop after `accelerator.prepare` and `set_seed`.

    Args:
        args: arguments of the recipe.
        data: data of the run.
        model: as prepared by the accelerator.
        optimizer: as prepared by the accelerator.
        schedule: as prepared by the accelerator.
        stream: training clips.
        sampler: order of the training clips.
        name: name of the model in the progress bar.
        part: name of the model in the metrics and of its states, if a run trains several.
    """

    def __init__(
        self,
        args: TrainingArguments,
        data: ExperimentData,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: LRScheduler,
        stream: ClipStream,
        sampler: ResumableSampler,
        name: str,
        part: str = "",
    ) -> None:
        self.args, self.data, self.stream, self.sampler, self.part = args, data, stream, sampler, part
        self.optimizer, self.schedule = optimizer, schedule
        self.accelerator: Accelerator = data.accelerator
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.total_steps = args.epochs * sampler.steps
        folder = data.run.path / "state" / part.replace(" ", "-")
        self.states = StateCheckpoints(self.accelerator, folder, args.save_every)
        self.state = self.states.load()
        stream.quarantine |= self.state.quarantine
        hidden = not self.accelerator.is_local_main_process
        self.bar = tqdm(total=self.total_steps, initial=self.state.step, desc=name, unit="step", disable=hidden)

    @property
    def step_number(self) -> int:
        """Optimizer steps taken, over all epochs."""
        return self.state.step

    @property
    def epoch(self) -> int:
        """Epoch of the next step, counted from 0: the number of completed epochs."""
        return self.state.step // self.sampler.steps

    @property
    def epoch_ended(self) -> bool:
        """Whether the last step was the last one of its epoch."""
        return self.state.step % self.sampler.steps == 0

    def batches(self, augment: Augment | None = None, waveforms: bool = True) -> Iterator[Batch]:
        """Batches of this process, from the step to resume at to the end of the last epoch."""
        data, epochs = self.data, self.args.epochs
        yield from batches(
            self.stream, self.sampler, data.emotions, data.dimensions, epochs, self.state.step, augment, waveforms
        )
        self.bar.close()
        data.gather_quarantine(self.stream)

    def step(self, terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> None:
        """Take one optimizer step on the weighted sum of the loss terms.

        Args:
            terms: terms of the loss over the global batch, by name.
            weights: weight of each term.
        """
        loss = sum(weights[name] * term for name, term in terms.items())
        # DistributedDataParallel averages the gradients of the processes; each has those of its clips alone.
        self.accelerator.backward(loss * self.accelerator.num_processes)
        self.accelerator.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        for name, term in terms.items():
            self.state.totals[name] = self.state.totals.get(name, 0.0) + term.item()
        self.bar.update()
        self.state.step += 1
        self.state.quarantine = self.stream.quarantine

    def end_epoch(self, scores: dict[str, Any] | None, save_best: Callable[[], None]) -> None:
        """Log mean loss terms and validation scores of the epoch, and save the model if it is the best so far.

        Args:
            scores: metrics of the validation split; None for an epoch without validation.
            save_best: saves the model; called on the main process.
        """
        values = {f"loss_{name}": round(total / self.sampler.steps, 4) for name, total in self.state.totals.items()}
        self.state.totals = {}
        if scores is not None:
            known = headline(scores, self.data.dimensions)
            values |= {f"validation_{name}": round(value, 4) for name, value in known.items()}
            name, value = next(iter(known.items()))  # one score: a longer line would wrap in a narrow terminal
            self.bar.set_postfix({f"validation_{name}": value})
            score = selection_score(scores, self.data.dimensions)
            if score > self.state.best:
                self.state.best = score
                if self.accelerator.is_main_process:
                    save_best()
        self.data.gather_quarantine(self.stream)
        epoch = self.state.step // self.sampler.steps
        self.data.run.log(**({"model": self.part} if self.part else {}), epoch=epoch, **values)
        prefix = f"{self.part}/" if self.part else ""
        self.accelerator.log({f"{prefix}{name}": value for name, value in values.items()}, step=epoch)

    def save_state(self) -> None:
        """Save the training state if it is due: every `--save_every` steps, and at the end."""
        self.states.save(self.state, last=self.state.step == self.total_steps)


def supervised_weights(args: TrainingArguments, terms: Iterable[str]) -> dict[str, float]:
    """Weight of each supervised term: `--<term>_weight`, or 1 for a term without such a flag."""
    return {name: getattr(args, f"{name}_weight", 1.0) for name in terms}
