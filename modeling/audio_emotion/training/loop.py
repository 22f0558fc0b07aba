"""The parts of a training loop that all recipes share: a step, the end of an epoch, and the state to resume from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from tqdm.auto import tqdm

from audio_emotion.data.dataset import Augment, Batch, ClipStream, batches
from audio_emotion.data.sampler import ResumableSampler
from audio_emotion.evaluation.report import headline, selection_score
from audio_emotion.training.arguments import TrainingArguments
from audio_emotion.training.experiment import ExperimentData
from audio_emotion.training.optim import one_cycle
from audio_emotion.training.trainer_state import StateCheckpoints


class TrainingLoop:
    """Bookkeeping of one training; the loop itself is in the recipe.

        for batch in loop.batches():
            terms = ...
            loop.step(terms, weights)
            if loop.epoch_ended:
                loop.end_epoch(scores, save_best)
            loop.save_state()

    A killed training resumes at its last saved state. Models that were trained before are freed.

    Args:
        args: of the recipe.
        data: of the run.
        model: with its trained parameters; the attribute `model` is the one prepared by the accelerator.
        groups: trained parameters `params` and their peak learning rates `lr`.
        stream: training clips.
        sampler: of their order.
        name: of the model in the progress bar.
        part: name of the model in the metrics and of its states, if a run trains several.
    """

    def __init__(
        self,
        args: TrainingArguments,
        data: ExperimentData,
        model: nn.Module,
        groups: list[dict[str, Any]],
        stream: ClipStream,
        sampler: ResumableSampler,
        name: str,
        part: str = "",
    ) -> None:
        self.args, self.data, self.stream, self.sampler, self.part = args, data, stream, sampler, part
        self.accelerator: Accelerator = data.accelerator
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.total_steps = args.epochs * sampler.steps
        optimizer = torch.optim.AdamW(groups, weight_decay=args.weight_decay)
        schedule = one_cycle(optimizer, self.total_steps)
        self.accelerator.free_memory()
        self.model, self.optimizer, self.schedule = self.accelerator.prepare(model, optimizer, schedule)
        set_seed(args.seed)
        folder = data.run.path / "state" / part.replace(" ", "-")
        self.states = StateCheckpoints(self.accelerator, folder, args.save_every)
        self.state = self.states.load()
        stream.quarantine |= self.state.quarantine
        hidden = not self.accelerator.is_local_main_process
        self._batch_ids: list[str] = []  # of the current batch, for messages
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
        for batch in batches(
            self.stream, self.sampler, data.emotions, data.dimensions, epochs, self.state.step, augment, waveforms
        ):
            self._batch_ids = batch.ids
            self.model.train()
            yield batch
        self.bar.close()
        data.gather_quarantine(self.stream)

    def step(self, terms: Mapping[str, Tensor], weights: Mapping[str, float] | None = None) -> None:
        """Take one optimizer step on the weighted sum of the loss terms over the global batch.

        A term that is not in `weights` is weighted by the argument `<term>_weight`, or by 1 if there is none.

        Raises:
            FloatingPointError: for a loss or a gradient that is not finite, before it changes the model.
        """
        weights = {name: getattr(self.args, f"{name}_weight", 1.0) for name in terms} | dict(weights or {})
        loss = sum(weights[name] * term for name, term in terms.items())
        values = {name: term.item() for name, term in terms.items()}
        self._require_finite("loss", sum(weights[name] * value for name, value in values.items()), values)
        # DistributedDataParallel averages the gradients of the processes; each has those of its clips alone.
        self.accelerator.backward(loss * self.accelerator.num_processes)
        norm = self.accelerator.clip_grad_norm_(self.parameters, 1.0)
        if self.accelerator.scaler is None:  # with float16, the scaler skips such a step
            self._require_finite("gradient", float(norm), values)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        for name, value in values.items():
            self.state.totals[name] = self.state.totals.get(name, 0.0) + value
        self.bar.update()
        self.state.step += 1
        self.state.quarantine = self.stream.quarantine

    def _require_finite(self, what: str, value: float, terms: Mapping[str, float]) -> None:
        if math.isfinite(value):
            return
        named = ", ".join(f"{name} {term:g}" for name, term in terms.items())
        raise FloatingPointError(
            f"Expected a finite {what} in step {self.step_number + 1} (epoch {self.epoch + 1}), got {value} from the "
            f"terms {named} for the clips {', '.join(dict.fromkeys(self._batch_ids))} of process "
            f"{self.accelerator.process_index}. Lower `--learning_rate`, or remove the clip that causes it; the state "
            "before this step is kept."
        )

    def end_epoch(self, scores: dict[str, Any] | None, save_best: Callable[[], None]) -> None:
        """Log mean loss terms and, if any, validation scores; the main process saves the model of the best ones."""
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
