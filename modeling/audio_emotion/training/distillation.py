"""Student and teacher into named, unweighted terms.

The paper (Mitra et al. 2022) does not say what its distillation matches. Ours: the embedding layer of the drawing, by
one linear projection per teacher because cross-fitted teachers do not share a space, and the outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audio_emotion.losses import dimension_loss
from audio_emotion.outputs import EmotionOutput
from audio_emotion.training.teacher_outputs import TeacherOutputs


class Apprentice(nn.Module):
    """A student and the projections of its embedding into its teachers' spaces; the projections are thrown away.

    Args:
        student: a `StudentEmotionForAudioClassification`.
        num_teachers: number of embedding spaces; 0 without a teacher.
        teacher_size: width `D_t` of the teachers' embedding.
    """

    def __init__(self, student: nn.Module, num_teachers: int, teacher_size: int) -> None:
        super().__init__()
        self.student = student
        self.projections = nn.ModuleList(
            nn.Linear(student.config.embedding_size, teacher_size)  # type: ignore[union-attr, arg-type]
            for _ in range(num_teachers)
        )

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[EmotionOutput, Tensor]:
        """Steps `(B, T, F)` to the student's output and its embedding in every teacher's space, `(B, K, D_t)`."""
        output = self.student(features=features, lengths=lengths)
        if not len(self.projections):
            return output, output.embedding[:, None]
        return output, torch.stack([project(output.embedding) for project in self.projections], dim=1)


def distillation_terms(
    logits: Tensor,
    dimensions: Tensor,
    projected: Tensor,
    teacher: TeacherOutputs,
    weight: Tensor,
    dimension_weights: list[float],
    temperature: float,
) -> dict[str, Tensor]:
    """Three ways in which the student differs from its teacher.

    Args:
        logits: `(B, C)` of the student.
        dimensions: `(B, 3)` of the student.
        projected: `(B, K, D_t)`, the student's embedding in each teacher's space.
        teacher: what the teachers said of the same clips; embeddings standardised per teacher.
        weight: `(B,)`, 0 for clips that only fill the batch.
        dimension_weights: one weight a dimension.
        temperature: softens both distributions; the term is multiplied by its square, so that its gradient keeps its
            size (Hinton et al. 2015, https://arxiv.org/abs/1503.02531, section 2).

    Returns:
        `teacher_embedding` (mean squared error), `teacher_emotions` (Kullback-Leibler divergence) and
        `teacher_dimensions` (one minus the mean CCC).
    """
    device = logits.device
    count = weight.sum().clamp(min=1.0)
    chosen = projected[torch.arange(len(projected), device=device), teacher.teacher.to(device)]  # (B, D_t)
    distance = (chosen.float() - teacher.embedding.to(device)).square().mean(-1)  # (B,)
    soft = (teacher.logits.to(device) / temperature).softmax(-1)  # (B, C)
    divergence = nn.functional.kl_div((logits.float() / temperature).log_softmax(-1), soft, reduction="none").sum(
        -1
    )  # (B,)
    return {
        "teacher_embedding": (weight * distance).sum() / count,
        "teacher_emotions": temperature**2 * (weight * divergence).sum() / count,
        "teacher_dimensions": dimension_loss(dimensions, teacher.dimensions.to(device), dimension_weights, weight),
    }
