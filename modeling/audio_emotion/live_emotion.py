"""Predictions for sound that arrives in parts, in the form of the pipeline's output, with PyTorch or ONNX below."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import soxr

from .audio_io import SHORTEST, downmix, read_audio
from .audio_sources import scale_to_unit_range
from .pipeline_outputs import OutputFormatter

FLAGGED = 4.0  # seconds up to now that the flags describe
Outputs = dict[str, np.ndarray]  # `dimensions (1, A)`, `logits (1, C)`, `embedding (1, D)`, those that a model has


class Engine(Protocol):
    """What a model needs to predict for samples in parts: at 16 kHz, `(S,)`."""

    def feed(self, samples: np.ndarray) -> Outputs | None:
        """Add samples; the newest outputs, or None where there are none yet."""

    def result(self) -> Outputs | None:
        """Outputs for all samples so far; None where there are too few."""


class SlidingWindow:
    """An engine for a model that is not causal: it predicts the last seconds, again and again.

    Args:
        predict: from samples `(S,)` to outputs.
        rate: samples per second.
        window: seconds that are predicted.
        hop: seconds from one prediction to the next.
    """

    def __init__(self, predict: Callable[[np.ndarray], Outputs], rate: int, window: float, hop: float):
        self.predict, self.window, self.hop = predict, round(window * rate), max(round(hop * rate), 1)
        self.shortest = round(SHORTEST * rate)
        self.recent = np.zeros(0, np.float32)
        self.waiting, self.count = 0, 0
        self.outputs: Outputs | None = None
        self.sums: Outputs = {}

    def feed(self, samples: np.ndarray) -> Outputs | None:
        """See [`Engine`]; predictions are at multiples of the hop, however the samples are divided."""
        while len(samples):
            part, samples = np.split(samples, [self.hop - self.waiting])
            self.recent = np.concatenate([self.recent, part])[-self.window :]
            self.waiting += len(part)
            if self.waiting == self.hop:
                self._predict()
        return self.outputs

    def result(self) -> Outputs | None:
        """The mean over the predictions at every hop: of probabilities, dimensions and embeddings."""
        if self.waiting:
            self._predict()
        if not self.count:
            return None
        means = {name: each / self.count for name, each in self.sums.items()}
        return means | ({"logits": np.log(np.maximum(means["logits"], 1e-9))} if "logits" in means else {})

    def _predict(self) -> None:
        self.waiting = 0
        if len(self.recent) < self.shortest:
            return
        self.outputs = self.predict(self.recent)
        self.count += 1
        for name, values in self.outputs.items():
            values = values.astype(np.float64)
            if name == "logits":  # added as probabilities
                values = np.exp(values - values.max(-1, keepdims=True))
                values /= values.sum(-1, keepdims=True)
            self.sums[name] = self.sums.get(name, 0.0) + values


class LiveEmotion:
    """A stream of sound and its predictions.

    Args:
        engine: of the model.
        formatter: of the outputs.
        sampling_rate: of the samples that are fed, in hertz.
        model_rate: of the model.
        top_k: number of emotions; all if None.

    Examples:
        >>> stream = emotion.stream(sampling_rate=8000)
        >>> for samples in telephone:  # arrays of any length, or pieces of PCM as int16
        ...     now = stream.feed(samples)  # None at first
        >>> whole = stream.result()
    """

    def __init__(
        self,
        engine: Engine,
        formatter: OutputFormatter,
        sampling_rate: int = 16000,
        model_rate: int = 16000,
        top_k: int | None = None,
    ):
        self._engine, self._formatter, self._top_k = engine, formatter, top_k
        self.sampling_rate, self._model_rate = sampling_rate, model_rate
        self._resampler = None
        if sampling_rate != model_rate:
            self._resampler = soxr.ResampleStream(sampling_rate, model_rate, 1, dtype="float32")
        self._recent = np.zeros(0, np.float32)
        self._flags: tuple[str, ...] = ()
        self._since_flags = np.inf
        self._samples = 0
        self._ended = False

    @property
    def duration(self) -> float:
        """Seconds so far."""
        return self._samples / self.sampling_rate

    def feed(self, samples: Any) -> dict[str, Any] | None:
        """Add samples, and return the newest prediction.

        Args:
            samples: `(S,)` or `(S, C)`, of which the mean is taken; floats in ±1, or integers.

        Returns:
            the pipeline's output, with `duration` in seconds from the start of the stream and the flags of the last
            seconds; None where there is too little sound for a prediction.

        Raises:
            ValueError: for samples of another shape or kind, that are not finite, or after `result`.
        """
        if self._ended:
            raise ValueError("Expected no samples after `result`, which ends a stream. Start a new one.")
        array = np.asarray(samples)
        if array.ndim not in (1, 2):
            raise ValueError(f"Expected samples of shape (S,) or (S, C), got {array.shape}.")
        array = scale_to_unit_range(array, "the stream")
        if not np.isfinite(array).all():
            raise ValueError("Expected finite samples, got NaN or infinite ones.")
        mono = array if array.ndim == 1 else downmix(array)[0]
        self._samples += len(mono)
        if self._resampler is not None:
            mono = self._resampler.resample_chunk(np.ascontiguousarray(mono, np.float32))
        return self._format(self._engine.feed(self._remember(mono.astype(np.float32, copy=False))))

    def result(self) -> dict[str, Any]:
        """The prediction for the whole stream, which ends it.

        A student's is that of the whole recording in one piece, another model's the mean over its windows.

        Raises:
            ValueError: for less than 0.25 s of sound.
        """
        if not self._ended and self._resampler is not None:
            rest = self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            self._engine.feed(self._remember(rest))
        self._ended = True
        outputs = self._engine.result() if self.duration >= SHORTEST else None
        if outputs is None:
            raise ValueError(f"Expected at least {SHORTEST} s of sound, got {self.duration:g} s.")
        self._since_flags = np.inf
        found = self._format(outputs)
        assert found is not None
        return found

    def predictions(self, chunks: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """Feed chunks, and yield the prediction after each from the first one on."""
        for chunk in chunks:
            if (found := self.feed(chunk)) is not None:
                yield found

    def _remember(self, mono: np.ndarray) -> np.ndarray:
        """Keep the last seconds, whose flags are found at most twice a second."""
        self._recent = np.concatenate([self._recent, mono])[-round(FLAGGED * self._model_rate) :]
        self._since_flags += len(mono) / self._model_rate
        return mono

    def _format(self, outputs: Outputs | None) -> dict[str, Any] | None:
        if outputs is None:
            return None
        if self._since_flags >= 0.5 and len(self._recent) >= SHORTEST * self._model_rate:
            clip = read_audio({"array": self._recent, "sampling_rate": self._model_rate}, self._model_rate)
            self._flags, self._since_flags = clip.flags, 0.0
        return self._formatter.prediction(outputs, self.duration, self._flags, top_k=self._top_k)
