"""Student and teachers into named, unweighted terms.

The paper (Mitra et al. 2022) does not say what its distillation matches. Ours: the embedding layer of the drawing, by
one linear projection per teacher because cross-fitted teachers do not share a space, and the outputs. Of how LiSER
(Pendyala et al. 2025) combines its speech and face teachers, its abstract says nothing: all that follows is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from audio_emotion.evaluation.label_matching import matching_label
from audio_emotion.layers import EmotionOutput
from audio_emotion.losses import dimension_loss
from audio_emotion.teachers.outputs import TeacherOutputs
from audio_emotion.training.optim import gathered

CONFIDENCES = ("", "given", "probability", "entropy")


class StudentWithProjections(nn.Module):
    """A student and the projections of its embedding into its teachers' spaces; the projections are thrown away.

    Args:
        student: a `StudentEmotionForAudioClassification`.
        spaces: for each kind of teacher that gives embeddings, the number of its cross-fitted teachers `K`, each with
            a space of its own, and their width `D_t`.
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
        """Steps `(B, T, F)` to the student's output and its embedding in every teacher's space, `(B, K, D_t)` each."""
        output = self.student(features=features, lengths=lengths)
        return output, {
            name: torch.stack([project(output.embedding) for project in projections], dim=1)  # type: ignore[union-attr]
            for name, projections in self.projections.items()
        }


def distillation_terms(
    logits: Tensor,
    dimensions: Tensor | None,
    projected: Tensor | None,
    teacher: TeacherOutputs,
    weight: Tensor,
    dimension_weights: list[float],
    temperature: float,
    contrastive: bool = False,
) -> dict[str, Tensor]:
    """The ways in which the student differs from one teacher.

    Args:
        logits: `(B, C)` of the student, in the teacher's classes.
        dimensions: `(B, 3)` of the student; None if it has none.
        projected: `(B, K, D_t)`, the student's embedding in each cross-fitted teacher's space; None if there is none.
        teacher: what it said of the same clips; embeddings standardized per teacher.
        weight: `(B,)`, 0 for clips that only fill the batch or of which the teacher says nothing, 1 on average else.
        dimension_weights: one weight a dimension.
        temperature: softens both distributions; the term is multiplied by its square, so that its gradient keeps its
            size (Hinton et al. 2015, https://arxiv.org/abs/1503.02531, section 2).
        contrastive: whether the embeddings need only recognize each other, instead of being equal.

    Returns:
        `emotions` (Kullback-Leibler divergence), `embedding` (mean squared error) or in its place `contrastive` (see
        [`contrastive_loss`]), and `dimensions` (one minus the mean CCC); those for which the teacher says something.
    """
    device = logits.device
    soft = (teacher.logits.to(device) / temperature).softmax(-1)  # (B, C)
    terms = {"emotions": temperature**2 * _divergence(soft, logits.float() / temperature, weight)}
    if projected is not None:
        number = teacher.teacher.to(device)  # (B,)
        chosen = projected[torch.arange(len(projected), device=device), number].float()  # (B, D_t)
        theirs = teacher.embedding.to(device)  # (B, D_t)
        if contrastive:
            terms["contrastive"] = contrastive_loss(chosen, theirs, number, weight)
        else:
            distance = (chosen - theirs).square().mean(-1)  # (B,)
            terms["embedding"] = (weight * distance).sum() / _count(weight)
    if dimensions is not None and teacher.dimensions.shape[-1]:
        targets = teacher.dimensions.to(device)  # NaN where it gives none
        terms["dimensions"] = dimension_loss(dimensions, targets, dimension_weights, weight)
    return terms


def contrastive_loss(ours: Tensor, theirs: Tensor, number: Tensor, weight: Tensor, temperature: float = 0.1) -> Tensor:
    """InfoNCE both ways: of all clips in the batch, the student's embedding of a clip is nearest to its teacher's.

    (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748; both ways as Radford et al. 2021,
    https://arxiv.org/abs/2103.00020.) What the face shows and the voice does not carry need not be reproduced, only
    told apart.

    Args:
        ours: `(B, D)`, of the student, in the teacher's space.
        theirs: `(B, D)`, of the teacher.
        number: `(B,)`, in which space each clip lies: clips of other spaces are not compared.
        weight: `(B,)`, 0 for clips that are no examples, neither right nor wrong ones.
        temperature: of the cosines.
    """
    cosines = nn.functional.normalize(ours, dim=-1) @ nn.functional.normalize(theirs, dim=-1).T  # (B, B)
    itself = torch.eye(len(ours), dtype=torch.bool, device=ours.device)
    _, clip = theirs.unique(dim=0, return_inverse=True)  # (B,): a clip that is there twice is no wrong answer
    other = (number[:, None] == number) & (clip[:, None] != clip) & (weight > 0)[:, None] & (weight > 0)
    logits = (cosines / temperature).masked_fill(~(other | itself), -math.inf)  # (B, B)
    each = -(logits.log_softmax(0).diagonal() + logits.log_softmax(1).diagonal()) / 2  # (B,)
    return (weight * each).sum() / _count(weight)


def product_loss(logits: Tensor, target: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the student's own classes `(B, C)` from [`product_of_teachers`], times T^2."""
    return temperature**2 * _divergence(target.to(logits.device), logits.float() / temperature, weight)


def product_of_teachers(
    teachers: Sequence[TeacherOutputs],
    emotions: Sequence[str],
    temperature: float,
    exponents: Sequence[float] | None = None,
) -> Tensor:
    """What the teachers say together of each clip, as if they were independent: the product of their shares.

    Classes are matched by name. Of an emotion that a teacher does not know it says neither good nor bad: it gives the
    geometric mean of its other shares. A teacher that is silent on a clip leaves it to the others.

    Args:
        teachers: of the same `N` clips.
        emotions: of the corpus, in logit order.
        temperature: of every teacher.
        exponents: one a teacher, to which its shares are raised; 1 each if None. See [`fitted_exponents`].

    Returns:
        `(N, C)`, rows sum to 1.

    Raises:
        ValueError: for a teacher of whose classes none is an emotion of the corpus.
    """
    total = torch.zeros(len(teachers[0].ids), len(emotions))
    for teacher, exponent in zip(teachers, exponents or [1.0] * len(teachers), strict=True):
        total += exponent * teacher.spoken[:, None] * log_probabilities(teacher, emotions, temperature)
    return total.softmax(-1)


def fitted_exponents(teachers: Sequence[TeacherOutputs], emotions: Sequence[str], labels: Tensor) -> list[float]:
    """The exponents with which the product of the teachers says best what labeled clips are.

    Two teachers who err together count less than two who err apart, one who is too sure of himself less than his
    shares say, one who knows nothing not at all. Half the squared distance from 1 is the penalty, which weighs as much
    as a clip or so: from few labels little is learned.

    Args:
        teachers: of the same `N` clips, none of them fitted on these clips' labels.
        emotions: of the corpus, in logit order.
        labels: `(N,)` class numbers, -100 where unlabeled or not to be used.

    Returns:
        One number of 0 or more a teacher; 1 each where nothing is labeled.
    """
    known = labels >= 0
    shares = torch.stack([each.spoken[:, None] * log_probabilities(each, emotions) for each in teachers])[
        :, known
    ]  # (K, M, C)
    root = torch.ones(len(shares), dtype=torch.float64, requires_grad=True)  # of the exponents: none becomes negative
    search = torch.optim.LBFGS([root], max_iter=200, line_search_fn="strong_wolfe")

    def cost() -> Tensor:
        search.zero_grad()
        together = torch.einsum("k,kmc->mc", root.square(), shares.double())  # (M, C)
        missed = nn.functional.cross_entropy(together, labels[known], reduction="sum")
        value = missed + 0.5 * (root.square() - 1).square().sum()
        value.backward()
        return value

    search.step(cost)  # type: ignore[no-untyped-call]
    return root.detach().square().tolist()


def log_probabilities(teacher: TeacherOutputs, emotions: Sequence[str], temperature: float = 1.0) -> Tensor:
    """Logarithms of a teacher's shares of the corpus's emotions, `(N, C)`; see [`product_of_teachers`]."""
    meant = [matching_label(name, emotions) for name in teacher.emotions]
    places = [[place for place, name in enumerate(meant) if name == each] for each in emotions]
    if not any(places):
        raise ValueError(
            f"Expected classes of the teacher {teacher.name!r} among the corpus's emotions {list(emotions)}, got "
            f"{teacher.emotions}. Such a teacher can teach by a head of its own, not in a product."
        )
    shares = (teacher.logits.float() / temperature).log_softmax(-1)  # (N, C_t)
    known = torch.stack([shares[:, each].logsumexp(-1) for each in places if each], dim=-1)
    columns, result = iter(known.unbind(-1)), []
    for each in places:
        result.append(next(columns) if each else known.mean(-1))
    return torch.stack(result, dim=-1).log_softmax(-1)


def clip_weights(
    teachers: Mapping[str, TeacherOutputs], emotions: Sequence[str], confidence: str = "", agreement: bool = False
) -> dict[str, Tensor]:
    """How much each clip counts in each teacher's terms.

    Args:
        teachers: of the same `N` clips, by name.
        emotions: of the corpus, over which teachers are compared.
        confidence: `""` for equal weights; `"given"` for what the outputs hold; `"probability"` of the likeliest
            class; `"entropy"` for 1 - entropy / log(classes).
        agreement: whether to weigh by `agreement`, or where the outputs hold none by the overlap of the teachers'
            shares, the Bhattacharyya coefficient in 0..1, averaged over the other teachers that speak of the clip.

    Returns:
        `(N,)` for each: 0 where it says nothing, 1 on average over the clips of which it speaks.

    Raises:
        ValueError: for an unknown word, or outputs that hold no confidence where it is asked for.
    """
    if confidence not in CONFIDENCES:
        raise ValueError(f"Expected a confidence among {CONFIDENCES}, got {confidence!r}.")
    weights = {}
    for name, teacher in teachers.items():
        weight = teacher.spoken.float()  # (N,)
        shares = teacher.logits.float().softmax(-1)  # (N, C)
        if confidence == "given":
            if teacher.confidence is None:
                raise ValueError(
                    f"Expected the outputs of {name!r} to hold a confidence, got none. Label with it, or take "
                    "`--confidence probability`."
                )
            weight = weight * teacher.confidence
        elif confidence == "probability":
            weight = weight * shares.amax(-1)
        elif confidence == "entropy":
            weight = weight * (1 + (shares * shares.clamp(min=1e-12).log()).sum(-1) / math.log(shares.shape[-1]))
        if agreement:
            given = teacher.agreement
            weight = weight * (_overlap(name, teachers, emotions) if given is None else given)
        spoken = teacher.spoken
        weights[name] = weight / weight[spoken].mean().clamp(min=1e-8)
    return weights


def _overlap(name: str, teachers: Mapping[str, TeacherOutputs], emotions: Sequence[str]) -> Tensor:
    """Bhattacharyya coefficient of a teacher's shares with the others', `(N,)`; 1 where no other speaks."""
    ours = log_probabilities(teachers[name], emotions)  # (N, C)
    total, count = torch.zeros(len(ours)), torch.zeros(len(ours))
    for other, teacher in teachers.items():
        if other != name:
            overlap = ((ours + log_probabilities(teacher, emotions)) / 2).exp().sum(-1)  # (N,)
            total, count = total + teacher.spoken * overlap, count + teacher.spoken
    return torch.where(count > 0, total / count.clamp(min=1), 1.0)


def _divergence(target: Tensor, logits: Tensor, weight: Tensor) -> Tensor:
    each = nn.functional.kl_div(logits.log_softmax(-1), target, reduction="none").sum(-1)  # (B,)
    return (weight * each).sum() / _count(weight)


def _count(weight: Tensor) -> Tensor:
    """Clips that count at all."""
    return (weight > 0).sum().clamp(min=1)


@dataclass
class DistillationLoss:
    """Teachers, how far each is believed, and what they say together.

    Attributes:
        said: by each teacher's name, of the same `N` clips.
        args: of the recipe: `temperature`, `contrastive` and the weights of the terms.
        importance: of each teacher.
        clip_weight: `(N,)` for each teacher.
        separate_heads: teachers to whom the student answers by a head in their own classes.
        target: `(N, C)`, the product of the teachers; None if it is not used.
        exponents: of each teacher in the product.
    """

    said: Mapping[str, TeacherOutputs]
    args: Any
    importance: Mapping[str, float]
    clip_weight: Mapping[str, Tensor]
    separate_heads: list[str]
    target: Tensor | None
    exponents: dict[str, float]

    @classmethod
    def of(
        cls, said: Mapping[str, TeacherOutputs], emotions: Sequence[str], labels: Tensor, args: Any
    ) -> DistillationLoss:
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
            separate_heads=separate_teacher_heads(args.teacher_heads, said, emotions),
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
            if name in self.separate_heads:
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


def separate_teacher_heads(wish: str, said: Mapping[str, TeacherOutputs], emotions: Sequence[str]) -> list[str]:
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
