"""Several teachers together: the product of their probabilities, and the weight of each clip."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from audio_emotion.evaluation.label_matching import matching_label
from audio_emotion.teachers.outputs import TeacherOutputs

CONFIDENCES = ("", "given", "probability", "entropy")


def product_of_teachers(
    teachers: Sequence[TeacherOutputs],
    emotions: Sequence[str],
    temperature: float,
    exponents: Sequence[float] | None = None,
) -> Tensor:
    """Product of the teachers' class probabilities, a product of experts (Hinton 2002), normalized.

    Classes are matched by name. For an emotion that a teacher does not have, it contributes the geometric mean of its
    other probabilities. A teacher without output for a clip contributes nothing to it.

    Args:
        teachers: outputs for the same `N` clips.
        emotions: classes of the corpus, in logit order.
        temperature: softmax temperature of every teacher.
        exponents: power to which the probabilities of each teacher are raised; 1 each if None. See [`fit_exponents`].

    Returns:
        `(N, C)` probabilities.
    """
    total = torch.zeros(len(teachers[0].ids), len(emotions))
    for teacher, exponent in zip(teachers, exponents or [1.0] * len(teachers), strict=True):
        total += exponent * teacher.has_output[:, None] * log_probabilities(teacher, emotions, temperature)
    return total.softmax(-1)


def fit_exponents(teachers: Sequence[TeacherOutputs], emotions: Sequence[str], labels: Tensor) -> list[float]:
    """Exponents for which the product of the teachers has the lowest cross-entropy on labeled clips.

    Teachers with correlated errors get lower exponents, an overconfident teacher a lower one than a calibrated one,
    and a teacher at chance 0. Half the squared distance from 1 is added as a penalty, about as much as one clip.

    Args:
        teachers: outputs for the same `N` clips; none of the teachers is fitted to the labels of these clips.
        emotions: classes of the corpus, in logit order.
        labels: `(N,)` class numbers, -100 where not used; without any, exponents are 1.
    """
    known = labels >= 0
    scores = torch.stack([each.has_output[:, None] * log_probabilities(each, emotions) for each in teachers])
    scores = scores[:, known].double()  # (K, M, C)
    roots = torch.ones(len(scores), dtype=torch.float64, requires_grad=True)  # squared, exponents are at least 0
    optimizer = torch.optim.LBFGS([roots], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = torch.einsum("k,kmc->mc", roots.square(), scores)  # (M, C)
        loss = nn.functional.cross_entropy(logits, labels[known], reduction="sum")
        loss = loss + 0.5 * (roots.square() - 1).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return roots.detach().square().tolist()


def log_probabilities(teacher: TeacherOutputs, emotions: Sequence[str], temperature: float = 1.0) -> Tensor:
    """Log-probabilities of a teacher over the corpus's emotions, `(N, C)`; see [`product_of_teachers`]."""
    matched = [matching_label(name, emotions) for name in teacher.emotions]
    columns_of = [[column for column, name in enumerate(matched) if name == emotion] for emotion in emotions]
    if not any(columns_of):
        raise ValueError(
            f"Expected classes of the teacher {teacher.name!r} among the corpus's emotions {list(emotions)}, got "
            f"{teacher.emotions}. Use `--teacher_heads separate` and no product for such a teacher."
        )
    scores = (teacher.logits.float() / temperature).log_softmax(-1)  # (N, C_t)
    known = torch.stack([scores[:, columns].logsumexp(-1) for columns in columns_of if columns], dim=-1)
    known_columns, result = iter(known.unbind(-1)), []
    for columns in columns_of:
        result.append(next(known_columns) if columns else known.mean(-1))
    return torch.stack(result, dim=-1).log_softmax(-1)


def clip_weights(
    teachers: Mapping[str, TeacherOutputs], emotions: Sequence[str], confidence: str = "", agreement: bool = False
) -> dict[str, Tensor]:
    """Weight of each clip in the terms of each teacher, `(N,)`: 0 without output, 1 on average over the others.

    Args:
        teachers: outputs for the same `N` clips, by name.
        emotions: classes of the corpus, in which teachers are compared.
        confidence: `""` for equal weights; `"given"` for the confidence stored with the outputs; `"probability"` for
            the highest class probability; `"entropy"` for 1 - entropy / log(classes).
        agreement: whether to multiply by the stored agreement, or if there is none by the overlap of the teachers'
            probabilities: the Bhattacharyya coefficient in 0..1, averaged over the other teachers with an output.
    """
    if confidence not in CONFIDENCES:
        raise ValueError(f"Expected `--confidence` among {CONFIDENCES}, got {confidence!r}.")
    weights = {}
    for name, teacher in teachers.items():
        weight = teacher.has_output.float()  # (N,)
        probabilities = teacher.logits.float().softmax(-1)  # (N, C)
        if confidence == "given":
            if teacher.confidence is None:
                raise ValueError(
                    f"Expected a confidence in the outputs of {name!r}, got none. Compute them with "
                    "recipes/pseudo_label.py, or pass `--confidence probability`."
                )
            weight = weight * teacher.confidence
        elif confidence == "probability":
            weight = weight * probabilities.amax(-1)
        elif confidence == "entropy":
            negative_entropy = (probabilities * probabilities.clamp(min=1e-12).log()).sum(-1)  # (N,)
            weight = weight * (1 + negative_entropy / math.log(probabilities.shape[-1]))
        if agreement:
            stored = teacher.agreement
            weight = weight * (_overlap(name, teachers, emotions) if stored is None else stored)
        weights[name] = weight / weight[teacher.has_output].mean().clamp(min=1e-8)
    return weights


def _overlap(name: str, teachers: Mapping[str, TeacherOutputs], emotions: Sequence[str]) -> Tensor:
    """Mean Bhattacharyya coefficient of one teacher with the others, `(N,)`; 1 if no other has an output."""
    scores = log_probabilities(teachers[name], emotions)  # (N, C)
    total, count = torch.zeros(len(scores)), torch.zeros(len(scores))
    for other, teacher in teachers.items():
        if other != name:
            overlap = ((scores + log_probabilities(teacher, emotions)) / 2).exp().sum(-1)  # (N,)
            total, count = total + teacher.has_output * overlap, count + teacher.has_output
    return torch.where(count > 0, total / count.clamp(min=1), 1.0)
