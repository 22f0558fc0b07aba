"""What a group of teachers asks of a student, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from audio_emotion.outputs import EmotionOutput
from audio_emotion.training.distillation import (
    clip_weights,
    distillation_terms,
    fitted_exponents,
    product_loss,
    product_of_teachers,
)
from audio_emotion.training.global_batch import gathered
from audio_emotion.training.teacher_outputs import TeacherOutputs


@dataclass
class Teaching:
    """Teachers, how far each is believed, and what they say together.

    Attributes:
        said: by each teacher's name, of the same `N` clips.
        args: of the recipe: `temperature`, `contrastive` and the weights of the terms.
        importance: of each teacher.
        clip_weight: `(N,)` for each teacher.
        own_heads: teachers to whom the student answers by a head in their own classes.
        target: `(N, C)`, the product of the teachers; None if it is not used.
        exponents: of each teacher in the product.
    """

    said: Mapping[str, TeacherOutputs]
    args: Any
    importance: Mapping[str, float]
    clip_weight: Mapping[str, Tensor]
    own_heads: list[str]
    target: Tensor | None
    exponents: dict[str, float]

    @classmethod
    def of(cls, said: Mapping[str, TeacherOutputs], emotions: Sequence[str], labels: Tensor, args: Any) -> Teaching:
        """Weigh the teachers as a recipe's arguments say.

        Args:
            said: by each teacher's name, of the same `N` clips.
            emotions: of the corpus, in logit order.
            labels: `(N,)` class numbers, -100 where the label is not to be used.
            args: of `distill.py`.

        Raises:
            ValueError: for weights that are not one a teacher, and for what the terms do not know.
        """
        teachers = list(said.values())
        target, exponents = None, [1.0] * len(teachers)
        if args.product_weight and teachers:
            if args.product_fit:
                exponents = fitted_exponents(teachers, emotions, labels)
            target = product_of_teachers(teachers, emotions, args.temperature, exponents)
        return cls(
            said,
            args,
            importance=dict(zip(said, args.teacher_weights or [1.0] * len(said), strict=True)),
            clip_weight=clip_weights(said, emotions, args.confidence, args.agreement),
            own_heads=heads_of_their_own(args.teacher_heads, said, emotions),
            target=target,
            exponents=dict(zip(said, exponents, strict=True)),
        )

    @property
    def spaces(self) -> dict[str, tuple[int, int]]:
        """Of each teacher that embeds clips: how many cross-fitted ones there are, and their width."""
        return {
            name: (each.num_teachers, each.embedding.shape[1])
            for name, each in self.said.items()
            if each.embedding.numel()
        }

    @cached_property
    def _place(self) -> dict[str, int]:
        return {name: place for outputs in self.said.values() for place, name in enumerate(outputs.ids)}

    def terms(
        self,
        ids: Sequence[str],
        output: EmotionOutput,
        projected: Mapping[str, Tensor],
        weight: Tensor,
        dimension_weights: list[float],
        accelerator: Accelerator,
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The terms of a batch, and the weight of each in the loss.

        Args:
            ids: `B` clips of this process; those that only fill its batch may have no name.
            output: of the student for the batch of all processes, but for the heads of single teachers.
            projected: the student's embedding in each teacher's space, `(B, K, D_t)`, of this process.
            weight: of the clips of all processes; 0 for those that only fill a batch.
            dimension_weights: one a dimension.
            accelerator: of the run.
        """
        terms: dict[str, Tensor] = {}
        scale: dict[str, float] = {}
        assert output.logits is not None
        rows = torch.tensor([self._place.get(name, 0) for name in ids])

        def everywhere(tensor: Tensor) -> Tensor:
            return gathered(accelerator, tensor.to(accelerator.device))

        for name, outputs in self.said.items():
            heard = outputs.of([outputs.ids[row] for row in rows])
            for field, tensor in heard.tensors().items():
                setattr(heard, field, everywhere(tensor))
            logits = output.logits
            if name in self.own_heads:
                assert output.teacher_logits is not None
                logits = everywhere(output.teacher_logits[name])
            different = distillation_terms(
                logits,
                output.dimensions,
                everywhere(projected[name]) if name in projected else None,
                heard,
                weight * everywhere(self.clip_weight[name][rows]),
                dimension_weights,
                self.args.temperature,
                contrastive=name in self.args.contrastive,
            )
            for kind, term in different.items():
                terms[f"{name}_{kind}"] = term
                scale[f"{name}_{kind}"] = self.importance[name] * getattr(self.args, f"teacher_{kind}_weight")
        if self.target is not None:
            any_spoke = torch.stack([outputs.spoken for outputs in self.said.values()]).any(0)[rows].float()
            together = everywhere(self.target[rows])
            terms["product"] = product_loss(
                output.logits, together, weight * everywhere(any_spoke), self.args.temperature
            )
            scale["product"] = self.args.product_weight
        return terms, scale


def heads_of_their_own(wish: str, said: Mapping[str, TeacherOutputs], emotions: Sequence[str]) -> list[str]:
    """Teachers to whom the student answers by a head in their own classes.

    Args:
        wish: own, shared, or empty for own heads where there is more than one teacher, or one of other classes.
        said: by each teacher's name.
        emotions: of the corpus, in logit order.

    Raises:
        ValueError: for another wish, and for a shared head where classes differ.
    """
    if wish not in ("", "own", "shared"):
        raise ValueError(f"Expected `--teacher_heads` own or shared, got {wish!r}.")
    foreign = [name for name, outputs in said.items() if outputs.emotions != list(emotions)]
    if wish == "shared" and foreign:
        raise ValueError(f"Expected teachers of the classes {list(emotions)} to share a head, got others: {foreign}.")
    return [] if wish == "shared" or (not wish and len(said) == 1 and not foreign) else list(said)
