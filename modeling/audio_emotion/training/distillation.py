"""The distillation loss: named, unweighted terms between a student and each of its teachers.

Mitra et al. (2022) do not publish what their distillation matches. Here it is the embedding, by one linear projection
per teacher (cross-fitted teachers do not share a space), and the outputs. The abstract of LiSER (Pendyala et al. 2025)
does not describe how speech and face teachers are combined; the combination is our own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from audio_emotion.layers import EmotionOutput
from audio_emotion.losses import dimension_loss
from audio_emotion.teachers.outputs import TeacherOutputs
from audio_emotion.training.optim import gather_with_gradient
from audio_emotion.training.teacher_ensemble import clip_weights, fit_exponents, product_of_teachers


class StudentWithProjections(nn.Module):
    """A student, and for training linear projections of its embedding into the embedding spaces of its teachers.

    Args:
        student: a `StudentEmotionForAudioClassification`.
        spaces: by teacher, the number of its cross-fitted teachers `K`, which have a space each, and their size `D_t`.
    """

    def __init__(self, student: nn.Module, spaces: Mapping[str, tuple[int, int]]) -> None:
        super().__init__()
        self.student = student
        size: int = student.config.embedding_size  # type: ignore[union-attr, assignment]
        self.projections = nn.ModuleDict(
            {
                name: nn.ModuleList(nn.Linear(size, width) for _ in range(count))
                for name, (count, width) in spaces.items()
            }
        )

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[EmotionOutput, dict[str, Tensor]]:
        """Output for steps of log-mel frames `(B, T, F)`, and the embedding in each teacher's spaces `(B, K, D_t)`."""
        output = self.student(features=features, lengths=lengths)
        return output, {
            name: torch.stack([project(output.embedding) for project in projections], dim=1)  # type: ignore[union-attr]
            for name, projections in self.projections.items()
        }


@dataclass
class TermInputs:
    """Outputs of the student and of one teacher for the `B` clips of a global batch."""

    logits: Tensor  # (B, C) of the student, in the teacher's classes
    dimensions: Tensor | None  # (B, A) of the student
    projected: Tensor | None  # (B, K, D_t), the student's embedding in the space of each cross-fitted teacher
    teacher: TeacherOutputs  # with standardized embeddings
    weight: Tensor  # (B,), 0 for padding and clips without an output of the teacher, 1 on average for the others
    dimension_weights: list[float]
    temperature: float  # of the softmax of student and teacher

    @property
    def embedding(self) -> Tensor | None:
        """`(B, D_t)`, the student's embedding in the space of the teacher that each clip's output is from."""
        if self.projected is None:
            return None
        rows = torch.arange(len(self.projected), device=self.projected.device)
        return self.projected[rows, self.teacher.teacher.to(self.projected.device)].float()


def emotions_term(inputs: TermInputs) -> Tensor:
    """Divergence of the softened class probabilities from the teacher's; see [`softened_divergence`]."""
    target = (inputs.teacher.logits.to(inputs.logits.device) / inputs.temperature).softmax(-1)  # (B, C)
    return softened_divergence(inputs.logits, target, inputs.weight, inputs.temperature)


def embedding_term(inputs: TermInputs) -> Tensor | None:
    """Mean squared error of the projected embedding."""
    embedding = inputs.embedding
    if embedding is None:
        return None
    distance = (embedding - inputs.teacher.embedding.to(embedding.device)).square().mean(-1)  # (B,)
    return _weighted_mean(distance, inputs.weight)


def contrastive_term(inputs: TermInputs) -> Tensor | None:
    """InfoNCE between the projected embedding and the teacher's; see [`contrastive_loss`]."""
    embedding = inputs.embedding
    if embedding is None:
        return None
    device = embedding.device
    return contrastive_loss(
        embedding, inputs.teacher.embedding.to(device), inputs.teacher.teacher.to(device), inputs.weight
    )


def dimensions_term(inputs: TermInputs) -> Tensor | None:
    """One minus the mean CCC with the teacher's dimensions; NaN in the teacher's outputs is left out."""
    if inputs.dimensions is None or not inputs.teacher.dimensions.shape[-1]:
        return None
    targets = inputs.teacher.dimensions.to(inputs.dimensions.device)
    return dimension_loss(inputs.dimensions, targets, inputs.dimension_weights, inputs.weight)


# Terms by name. Each maps `TermInputs` to a scalar, or to None where student or teacher lack what it compares. To add
# one, from inside or outside the package, assign a function to its name; the recipe weights it by its argument
# `teacher_<name>_weight`, or by 1.
DISTILLATION_TERMS: dict[str, Callable[[TermInputs], Tensor | None]] = {
    "emotions": emotions_term,
    "embedding": embedding_term,
    "contrastive": contrastive_term,
    "dimensions": dimensions_term,
}


def distillation_terms(inputs: TermInputs, contrastive: bool = False) -> dict[str, Tensor]:
    """All terms of one teacher, by name and unweighted; `contrastive` in place of `embedding` on request."""
    left_out = "embedding" if contrastive else "contrastive"
    terms = {name: term(inputs) for name, term in DISTILLATION_TERMS.items() if name != left_out}
    return {name: value for name, value in terms.items() if value is not None}


def softened_divergence(logits: Tensor, target: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the softened student from a target distribution (Hinton et al. 2015, section 2).

    https://arxiv.org/abs/1503.02531. Times `temperature ** 2`, so that the size of its gradient does not depend on it.
    The target `(B, C)` is softened already, the logits `(B, C)` are not; `weight (B,)` is 0 for clips to leave out.
    """
    log_probabilities = (logits.float() / temperature).log_softmax(-1)  # (B, C)
    each = nn.functional.kl_div(log_probabilities, target.to(logits.device), reduction="none").sum(-1)  # (B,)
    return temperature**2 * _weighted_mean(each, weight)


def contrastive_loss(
    student: Tensor, teacher: Tensor, space: Tensor, weight: Tensor, temperature: float = 0.1
) -> Tensor:
    """Symmetric InfoNCE: the student's embedding of a clip should be closest to the teacher's of the same clip.

    van den Oord et al. 2018 (https://arxiv.org/abs/1807.03748), in both directions as in Radford et al. 2021
    (https://arxiv.org/abs/2103.00020). Visible information that speech does not carry need not be reproduced.

    Args:
        student: `(B, D)`, embeddings in the teacher's space.
        teacher: `(B, D)`, embeddings of the teacher.
        space: `(B,)`, number of the cross-fitted teacher; clips of different spaces are not compared.
        weight: `(B,)`, 0 for clips that are neither positives nor negatives.
        temperature: divisor of the cosine similarities.
    """
    cosines = nn.functional.normalize(student, dim=-1) @ nn.functional.normalize(teacher, dim=-1).T  # (B, B)
    positive = torch.eye(len(student), dtype=torch.bool, device=student.device)
    _, clip = teacher.unique(dim=0, return_inverse=True)  # (B,): a repeated clip is not its own negative
    negative = (space[:, None] == space) & (clip[:, None] != clip) & (weight > 0)[:, None] & (weight > 0)
    logits = (cosines / temperature).masked_fill(~(negative | positive), -math.inf)  # (B, B)
    each = -(logits.log_softmax(0).diagonal() + logits.log_softmax(1).diagonal()) / 2  # (B,)
    return _weighted_mean(each, weight)


def _weighted_mean(each: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum over the number of clips with a weight, which is 1 on average."""
    return (weight * each).sum() / (weight > 0).sum().clamp(min=1)


@dataclass
class DistillationLoss:
    """The loss terms between a student and its teachers; mappings are by the teacher's name."""

    outputs: Mapping[str, TeacherOutputs]  # for the same `N` clips
    args: Any  # of the recipe: `temperature`, `contrastive`, and the weights of the terms
    teacher_weights: Mapping[str, float]
    clip_weights: Mapping[str, Tensor]  # (N,)
    separate_heads: list[str]  # teachers with a head of their own in the student
    target: Tensor | None  # (N, C), product of the teachers; None if not used
    exponents: dict[str, float]  # of each teacher in the product

    @classmethod
    def from_arguments(
        cls, outputs: Mapping[str, TeacherOutputs], emotions: Sequence[str], labels: Tensor, args: Any
    ) -> DistillationLoss:
        """Compute weights, heads and product from the arguments of the recipe.

        Args:
            outputs: for the same `N` clips, by the teacher's name.
            emotions: classes of the corpus, in logit order.
            labels: `(N,)` class numbers, -100 for clips whose label is not used; for `--product_fit`.
            args: arguments of `distill.py`.
        """
        teachers = list(outputs.values())
        target, exponents = None, [1.0] * len(teachers)
        if args.product_weight and teachers:
            if args.product_fit:
                exponents = fit_exponents(teachers, emotions, labels)
            target = product_of_teachers(teachers, emotions, args.temperature, exponents)
        if args.teacher_weights and len(args.teacher_weights) != len(teachers):
            raise ValueError(
                f"Expected one of `--teacher_weights` per teacher, {len(teachers)}, got {len(args.teacher_weights)}."
            )
        if unknown := sorted({*args.contrastive} - {*outputs}):
            raise ValueError(f"Expected names of teachers, {list(outputs)}, in `--contrastive`, got {unknown}.")
        return cls(
            outputs,
            args,
            teacher_weights=dict(zip(outputs, args.teacher_weights or [1.0] * len(teachers), strict=True)),
            clip_weights=clip_weights(outputs, emotions, args.confidence, args.agreement),
            separate_heads=separate_teacher_heads(args.teacher_heads, outputs, emotions),
            target=target,
            exponents=dict(zip(outputs, exponents, strict=True)),
        )

    @property
    def spaces(self) -> dict[str, tuple[int, int]]:
        """Number of cross-fitted teachers and size of their embeddings, for each teacher with embeddings."""
        return {
            name: (each.num_teachers, each.embedding.shape[1])
            for name, each in self.outputs.items()
            if each.embedding.numel()
        }

    def without_teacher(
        self, emotions: Sequence[str], dimensions: Sequence[str]
    ) -> tuple[Sequence[str], Sequence[str]]:
        """Emotions and dimensions of the student's own heads that no teacher trains: they need labels.

        Args:
            emotions: classes of the corpus.
            dimensions: of the corpus, in the order of the teachers' outputs.
        """
        shared = [name for name in self.outputs if name not in self.separate_heads]
        has_teacher = self.target is not None or (bool(shared) and self.args.teacher_emotions_weight > 0)
        rated = [each.dimensions for each in self.outputs.values() if self.args.teacher_dimensions_weight > 0]
        known = [each.isfinite().any(0).tolist() for each in rated if each.shape[-1]]  # per teacher and dimension
        return [] if has_teacher else emotions, [
            name for column, name in enumerate(dimensions) if not any(each[column] for each in known)
        ]

    @cached_property
    def _row_of_id(self) -> dict[str, int]:
        return {name: row for outputs in self.outputs.values() for row, name in enumerate(outputs.ids)}

    def compute_terms(
        self,
        ids: Sequence[str],
        output: EmotionOutput,
        projected: Mapping[str, Tensor],
        weight: Tensor,
        dimension_weights: list[float],
        accelerator: Accelerator,
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Terms of a batch, and the weight of each in the loss; both by `<teacher>_<term>`, and `product`.

        Args:
            ids: `B` clips of this process; padding has an empty or repeated name.
            output: of the student for the global batch, but `teacher_logits` of this process.
            projected: see [`StudentWithProjections`], of this process.
            weight: `(W B,)` of the global batch of `W` processes; 0 for padding.
            dimension_weights: one weight per dimension.
            accelerator: of the run.
        """
        terms: dict[str, Tensor] = {}
        weights: dict[str, float] = {}
        assert output.logits is not None
        rows = torch.tensor([self._row_of_id.get(name, 0) for name in ids])

        def gather(tensor: Tensor) -> Tensor:
            return gather_with_gradient(accelerator, tensor.to(accelerator.device))

        for name, outputs in self.outputs.items():
            teacher = outputs.select([outputs.ids[row] for row in rows])
            for field, tensor in teacher.tensors().items():
                setattr(teacher, field, gather(tensor))
            logits = output.logits
            if name in self.separate_heads:
                assert output.teacher_logits is not None
                logits = gather(output.teacher_logits[name])
            inputs = TermInputs(
                logits,
                output.dimensions,
                gather(projected[name]) if name in projected else None,
                teacher,
                weight * gather(self.clip_weights[name][rows]),
                dimension_weights,
                self.args.temperature,
            )
            for kind, term in distillation_terms(inputs, name in self.args.contrastive).items():
                terms[f"{name}_{kind}"] = term
                kind_weight = getattr(self.args, f"teacher_{kind}_weight", 1.0)
                weights[f"{name}_{kind}"] = self.teacher_weights[name] * kind_weight
        if self.target is not None:
            has_output = torch.stack([outputs.has_output for outputs in self.outputs.values()]).any(0)[rows].float()
            target = gather(self.target[rows])
            terms["product"] = softened_divergence(
                output.logits, target, weight * gather(has_output), self.args.temperature
            )
            weights["product"] = self.args.product_weight
        return terms, weights


def separate_teacher_heads(choice: str, outputs: Mapping[str, TeacherOutputs], emotions: Sequence[str]) -> list[str]:
    """Names of the teachers that get a head of their own in the student, by `--teacher_heads` and their classes."""
    if choice not in ("", "separate", "shared"):
        raise ValueError(f"Expected `--teacher_heads` separate or shared, got {choice!r}.")
    different = [name for name, each in outputs.items() if each.emotions != list(emotions)]
    if choice == "shared" and different:
        raise ValueError(
            f"Expected teachers with the classes {list(emotions)} for `--teacher_heads shared`, got others: "
            f"{different}. Pass `--teacher_heads separate`."
        )
    return [] if choice == "shared" or (not choice and len(outputs) == 1 and not different) else list(outputs)
