"""Streams: a student's predictions while samples arrive, with a state of fixed size."""

# SPDX-License-Identifier: Apache-2.0

from collections import defaultdict
from typing import Any

import torch

from .layers import EmotionOutput
from .log_mel import CONTEXT, HOP

OUTPUTS = ("embedding", "dimensions", "logits", "log_variance", "distance")


class EmotionStream:
    """Streams of samples, run together, that are fed in parts of any length.

    After any division into parts, the output is that of the model for all samples so far in one piece.

    Args:
        model: a `StudentEmotionForAudioClassification` in evaluation mode.
        batch_size: number of streams `B`.

    Examples:
        >>> stream = model.stream()
        >>> for samples in microphone:  # (S,) at 16 kHz
        ...     output = stream.feed(samples)  # None until the first step
        >>> output = stream.result()

    Attributes:
        state: tensors with `B` first; replacing them, as a copy, restores streams, together with `waiting`.
        waiting: for each stream the samples `(S,)` that do not fill a step yet.
        fed: number of samples of each stream so far.
    """

    def __init__(self, model, batch_size: int = 1):
        self.model = model
        self.step_samples = model.config.frames_per_step * HOP
        self.look_ahead = model.config.look_ahead if model.config.convolution_size else 0
        self.state = model.base_model.initial_state(batch_size)
        self.reset()

    def reset(self, rows: list[int] | None = None) -> None:
        """Start some streams anew, by default all."""
        rows = list(range(len(self.state["context"]))) if rows is None else rows
        fresh = self.model.base_model.initial_state(len(rows))
        if len(rows) == len(self.state["context"]):
            self.waiting = [self._no_samples() for _ in rows]
            self.fed = [0] * len(rows)
            self.last: list[dict[str, torch.Tensor] | None] = [None] * len(rows)
            self.state = fresh
            return
        for row in rows:
            self.waiting[row], self.fed[row], self.last[row] = self._no_samples(), 0, None
        self._store(rows, fresh)

    @torch.no_grad()
    def feed(self, samples: torch.Tensor | list[torch.Tensor]) -> EmotionOutput | None:
        """Add samples and return the outputs so far.

        Args:
            samples: `(S,)` for a single stream, `(B, S)`, or for streams of different lengths a list of `B` tensors
                `(S,)`; 16 kHz, in ±1.

        Returns:
            `embedding (B, D)`, `dimensions (B, 3)`, `logits (B, C)`, `log_variance (B, 3)` at the last complete step
            of each stream; None while a stream has no complete step.

        Raises:
            ValueError: for samples of another shape, or that are not finite.
        """
        parts = self._parts(samples)
        ready = defaultdict(list)  # rows by the number of steps that they complete
        for row, part in enumerate(parts):
            self.fed[row] += len(part)
            self.waiting[row] = torch.cat([self.waiting[row], part])
            if self.fed[row] - len(part) < CONTEXT <= self.fed[row]:  # the samples before the first step
                self.state["context"][row] = self.waiting[row][:CONTEXT]
                self.waiting[row] = self.waiting[row][CONTEXT:]
            if self.fed[row] >= CONTEXT and len(self.waiting[row]) >= self.step_samples:
                ready[len(self.waiting[row]) // self.step_samples].append(row)
        for steps, rows in ready.items():
            length = steps * self.step_samples
            batch = torch.stack([self.waiting[row][:length] for row in rows])
            outputs, state = self.model.streaming_step(batch, self._select(rows))
            self._store(rows, state)
            for place, row in enumerate(rows):
                self.waiting[row] = self.waiting[row][length:]
                if outputs["embedding"].shape[1]:
                    self.last[row] = {name: each[place, -1] for name, each in outputs.items()}
        return self._output(self.last)

    @torch.no_grad()
    def result(self) -> EmotionOutput:
        """Outputs for all samples so far, as if the clips ended here; the streams can be fed further.

        Samples that do not fill a step are left out, as in a clip in one piece, unless they are all there is.

        Raises:
            ValueError: for a stream without samples.
        """
        if not all(self.fed):
            raise ValueError("Expected samples in every stream, got none. Call `feed` before `result`.")
        last = list(self.last)
        for row, fed in enumerate(self.fed):
            if fed < CONTEXT + self.step_samples:  # shorter than a step
                head = self.state["context"][row] if fed >= CONTEXT else self._no_samples()
                output = self.model(torch.cat([head, self.waiting[row]])[None])
                last[row] = {name: output[name][0] for name in OUTPUTS if name in output}
            elif self.look_ahead:  # the last steps wait for features that do not come
                trunk, heads = self.model.base_model.trunk, self.model.heads
                width = trunk.recurrence.input_size
                silence = torch.zeros(1, self.look_ahead, width, device=self.model.device, dtype=self.model.dtype)
                embeddings, _ = trunk.step(silence, self._select([row]))
                outputs = {"embedding": embeddings, **heads(embeddings)}
                last[row] = {name: outputs[name][0, -1] for name in OUTPUTS if outputs[name] is not None}
        found = self._output(last)
        assert found is not None
        return found

    def _parts(self, samples) -> list[torch.Tensor]:
        """The samples of each stream, `(S,)` on the device of the model."""
        count = len(self.waiting)
        if isinstance(samples, torch.Tensor) and samples.ndim == 1 and count == 1:
            samples = [samples]
        parts = [torch.as_tensor(each, dtype=torch.float32, device=self.model.device) for each in samples]
        if len(parts) != count or any(each.ndim != 1 for each in parts):
            shapes = [tuple(each.shape) for each in parts[:3]]
            raise ValueError(f"Expected samples of {count} stream(s), each of shape (samples,), got {shapes}.")
        if not all(bool(each.isfinite().all()) for each in parts):
            raise ValueError("Expected finite samples, got NaN or infinite ones.")
        return parts

    def _select(self, rows: list[int]) -> dict[str, torch.Tensor]:
        if len(rows) == len(self.waiting):
            return self.state
        return {name: each[rows] for name, each in self.state.items()}

    def _store(self, rows: list[int], state: dict[str, torch.Tensor]) -> None:
        if len(rows) == len(self.waiting):
            self.state = dict(state)
            return
        for name, each in state.items():
            if each.shape[1:] != self.state[name].shape[1:]:  # features wait for a look-ahead, at the start only
                raise ValueError(
                    "Expected streams of equal length with `look_ahead`, got others. Run them one by one."
                )
            self.state[name] = self.state[name].index_copy(0, torch.tensor(rows, device=each.device), each)

    def _output(self, last: list[dict[str, torch.Tensor] | None]) -> EmotionOutput | None:
        known = [each for each in last if each is not None]
        if len(known) < len(last):
            return None
        stacked: dict[str, Any] = {name: torch.stack([each[name] for each in known]) for name in known[0]}
        return EmotionOutput(**stacked)

    def _no_samples(self) -> torch.Tensor:
        return torch.zeros(0, device=self.model.device)
