"""What a model says, from tensors to named values in plain Python."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Words:
    """How answers are worded.

    Attributes:
        dimensions: names of the `A` rated columns.
        emotions: names of the `C` classes, in logit order.
        scale: ends of the dimensions' scale.
        uncertainty: whether the dimensions' standard deviations are told, in units of the scale.
        embedding: whether the embedding is told.
    """

    dimensions: Sequence[str]
    emotions: Sequence[str]
    scale: tuple[float, float] = (0.0, 1.0)
    uncertainty: bool = False
    embedding: bool = False

    def rows(self, answer: Mapping[str, Any], kind: str, count: int, top_k: int | None) -> list[dict[str, Any]]:
        """What the model says of a clip, as one row, or of so many of its pieces.

        Args:
            answer: outputs of one clip: `dimensions`, `log_variance` `(1, A)`, `logits` `(1, C)` and `embedding`
                `(1, D)`, as far as the model has them; those of its pieces `(1, N, ...)`, with their kind before it.
            kind: `"window"`, `"turn"` or `"frame"`; empty for the clip itself.
            count: of the pieces, at most `N`; 1 for the clip.
            top_k: how many emotions to name; all if None.
        """
        rows: list[dict[str, Any]] = [{} for _ in range(count)]
        low, high = self.scale
        told: dict[str, tuple[str, Callable[[torch.Tensor], list[Any]]]] = {
            "dimensions": ("dimensions", lambda values: self.named_values(low + (high - low) * values)),
            "emotions": ("logits", lambda values: self.named_scores(values, top_k)),
        }
        if self.uncertainty:
            told["uncertainty"] = (
                "log_variance",
                lambda values: self.named_values((high - low) * (0.5 * values).exp()),
            )
        if self.embedding:
            told["embedding"] = ("embedding", lambda values: values.tolist())
        for key, (name, in_words) in told.items():
            if (values := answer.get(f"{kind}_{name}" if kind else name)) is not None:
                values = values[0, :count] if kind else values  # (N, A), (N, C) or (N, D)
                for row, each in zip(rows, in_words(values.float()), strict=True):
                    row[key] = each
        return rows

    def named_values(self, values: torch.Tensor) -> list[dict[str, float]]:
        """Rows of `(N, A)` to a dict each."""
        return [dict(zip(self.dimensions, row, strict=True)) for row in values.tolist()]

    def named_scores(self, logits: torch.Tensor, top_k: int | None) -> list[list[dict[str, Any]]]:
        """Rows of `(N, C)` to a list each of labels and probabilities, the most probable first."""
        scores, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)  # (N, C), (N, C)
        return [
            [{"label": self.emotions[i], "score": score} for i, score in zip(numbers, row, strict=True)]
            for numbers, row in zip(order[:, :top_k].tolist(), scores[:, :top_k].tolist(), strict=True)
        ]
