"""The contract of a teacher of pseudo-labels: who it is, what it is shown, how it answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audio_emotion.configuration_emotion import DIMENSIONS
from audio_emotion.evaluation.predictions import Predictions
from audio_emotion.teachers.faces import SpeakingFace

FLOOR = 1e-4  # smallest share of a class; its logarithm is a logit that a student can reach


@dataclass
class TeacherFacts:
    """Who speaks in a column.

    Attributes:
        name: of the column.
        kind: "speech", "face" or "votes".
        source: Hub id, or name of a folder or file.
        revision: commit, or digest of the weights.
        classes: of the logits, in their order; a word of ours where it is one by another name.
        dimensions: in column order; empty without.
        training_data: what it has heard, as in a checkpoint's configuration; `{"model": id}` for a public model.
        license: of the weights, SPDX.
    """

    name: str
    kind: str
    source: str
    revision: str
    classes: list[str]
    dimensions: list[str] = field(default_factory=list)
    training_data: list[dict] = field(default_factory=list)
    license: str = "LicenseRef-unknown"


@dataclass
class Clip:
    """What teachers are shown.

    Attributes:
        id: of the clip.
        waveform: `(S,)` at 16 kHz.
        face: of the speaker; None where there is none that can be used.
        no_face: why.
        faces: how many were followed through the clip; None where nobody looked.
        face_rate: share of the pictures with the best of them.
    """

    id: str
    waveform: np.ndarray
    face: SpeakingFace | None = None
    no_face: str = "the clip has no video"
    faces: int | None = None
    face_rate: float | None = None


@dataclass
class TeacherPrediction:
    """One teacher on one clip.

    Attributes:
        logits: `(C,)`; None from a teacher without categories, or one that says nothing.
        dimensions: `(A,)` in 0..1, or None.
        embedding: `(D,)`, or None.
        frame_times: `(F,)` seconds since the clip's audio began, or None.
        frame_logits: `(F, C)`, or None.
        reason: why it says nothing; None if it speaks.
    """

    logits: np.ndarray | None = None
    dimensions: np.ndarray | None = None
    embedding: np.ndarray | None = None
    frame_times: np.ndarray | None = None
    frame_logits: np.ndarray | None = None
    reason: str | None = None


def pooled(probabilities: np.ndarray) -> np.ndarray:
    """Logits `(C,)` of a clip from the probabilities `(F, C)` of its frames: the logarithm of their mean."""
    return log_probabilities(probabilities.mean(axis=0))


def log_probabilities(shares: np.ndarray) -> np.ndarray:
    """Logits whose softmax is the shares; those below `FLOOR` are raised to it."""
    return np.log(np.maximum(shares, FLOOR)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def agreement(
    one: np.ndarray, classes: Sequence[str], other: np.ndarray, other_classes: Sequence[str]
) -> float | None:
    """How alike two teachers see a clip: 1 less the Jensen-Shannon divergence in bits, 0..1.

    Only classes that both have count, and each teacher's probabilities of these are brought to a sum of 1.

    Args:
        one: logits `(C,)`.
        classes: their names.
        other: logits `(K,)` of the other teacher.
        other_classes: their names.

    Returns:
        None where they share fewer than two classes.
    """
    shared = [name for name in classes if name in other_classes]
    if len(shared) < 2:
        return None
    first = softmax(one[[list(classes).index(name) for name in shared]].astype(np.float64))
    second = softmax(other[[list(other_classes).index(name) for name in shared]].astype(np.float64))
    middle = (first + second) / 2
    divergence = sum(_bits(each, middle) for each in (first, second)) / 2
    return float(min(max(1.0 - divergence, 0.0), 1.0))


def _bits(shares: np.ndarray, middle: np.ndarray) -> float:
    """Kullback-Leibler divergence from the middle, in bits."""
    known = shares > 0
    return float(np.sum(shares[known] * np.log2(shares[known] / middle[known])))


TENSORS = ("logits", "dimensions", "embedding", "teacher")
OPTIONAL = ("confidence", "agreement", "mask")


@dataclass
class TeacherOutputs:
    """Outputs of one teacher, or of several cross-fitted ones of one kind, for `N` clips.

    Teachers of different kinds, such as one who hears and one who sees, are several of these, each with classes of its
    own.

    Attributes:
        ids: clip names.
        logits: `(N, C)` before the softmax.
        dimensions: `(N, A)` in 0..1; NaN where the teacher gives none, or `(N, 0)`.
        embedding: `(N, D)`; embeddings of different teachers live in different spaces. `D` is 0 where it gives none.
        teacher: `(N,)`, which of the cross-fitted teachers spoke.
        emotions: names of the `C` classes.
        training_data: what the teachers have seen, as in a checkpoint's configuration.
        name: what the terms of the loss are called after.
        confidence: `(N,)` in 0..1, how sure the teacher is; None if it does not say.
        agreement: `(N,)` in 0..1, how far it agrees with the other teachers of the clip; None if nobody compared.
        mask: `(N,)`, 0 for clips of which it says nothing, such as those without a face; None if it speaks of all.
        dimension_names: of the `A` columns. Outputs of before names were kept have none: three columns are then
            activation, valence and dominance.
        license: of the teacher's weights, an SPDX expression; empty where nobody has said.
    """

    ids: list[str]
    logits: Tensor
    dimensions: Tensor
    embedding: Tensor
    teacher: Tensor
    emotions: list[str]
    training_data: list[dict]
    name: str = "teacher"
    confidence: Tensor | None = None
    agreement: Tensor | None = None
    mask: Tensor | None = None
    dimension_names: list[str] = field(default_factory=list)
    license: str = ""

    def __post_init__(self) -> None:
        if not self.dimension_names and self.dimensions.shape[1] == len(DIMENSIONS):
            self.dimension_names = list(DIMENSIONS)

    @property
    def num_teachers(self) -> int:
        """How many teachers spoke."""
        return int(self.teacher.max()) + 1

    @property
    def spoken(self) -> Tensor:
        """`(N,)`, whether it says something of each clip."""
        return torch.ones(len(self.ids), dtype=torch.bool) if self.mask is None else self.mask > 0

    @cached_property
    def _place(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.ids)}

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that is there, by name; the first axis is the clips."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def save(self, folder: str | Path) -> None:
        """Write `teacher_outputs.safetensors` and its index."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file(self.tensors(), Path(folder) / "teacher_outputs.safetensors")
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        index = {name: value for name, value in values.items() if name not in (*TENSORS, *OPTIONAL)}
        (Path(folder) / "teacher_outputs.json").write_text(json.dumps(index))

    @classmethod
    def load(cls, folder: str | Path) -> TeacherOutputs:
        """Read what `save` wrote."""
        index = json.loads((Path(folder) / "teacher_outputs.json").read_text())
        return cls(**index, **load_file(Path(folder) / "teacher_outputs.safetensors"))

    @classmethod
    def of_one(
        cls,
        said: Predictions,
        emotions: Sequence[str],
        training_data: list[dict],
        name: str = "teacher",
        dimension_names: Sequence[str] = (),
        license: str | None = None,
    ) -> TeacherOutputs:
        """The answers of one model, for all clips of which it was asked; names and terms are the model's."""
        logits, dimensions, embedding = map(torch.from_numpy, (said.logits, said.dimensions, said.embedding))
        number = torch.zeros(len(said.ids), dtype=torch.long)
        return cls(
            said.ids,
            logits,
            dimensions,
            embedding,
            number,
            list(emotions),
            training_data,
            name,
            dimension_names=list(dimension_names),
            license=license or "",
        )

    def of(self, ids: Sequence[str]) -> TeacherOutputs:
        """The rows of some clips, in that order.

        Raises:
            ValueError: naming clips that no teacher has heard.
        """
        if missing := [name for name in ids if name not in self._place]:
            raise ValueError(f"No teacher output for {len(missing)} clips, {missing[:3]} among them.")
        places = torch.tensor([self._place[name] for name in ids])
        rows: dict[str, Any] = {name: tensor[places] for name, tensor in self.tensors().items()}
        return replace(self, ids=list(ids), **rows)

    def covering(self, ids: Sequence[str]) -> TeacherOutputs:
        """The rows of some clips, masked ones for those of which there are none.

        Raises:
            ValueError: where the teacher says nothing of any of them.
        """
        present = [name for name in ids if name in self._place]
        if not present or not self.of(present).spoken.any():
            raise ValueError(
                f"Expected outputs of the teacher {self.name!r} for some of {len(ids)} clips such as {list(ids[:2])}, "
                f"got none: it speaks of clips such as {self.ids[:2]}. Give the outputs for this corpus and split."
            )
        absent = sorted(set(ids) - set(present))
        spoken = replace(self, mask=self.spoken.float())
        rows: dict[str, Any] = {
            name: torch.cat([tensor, tensor.new_zeros(len(absent), *tensor.shape[1:])])
            for name, tensor in spoken.tensors().items()
        }
        return replace(spoken, ids=[*self.ids, *absent], **rows).of(ids)

    def in_dimensions(self, names: Sequence[str]) -> TeacherOutputs:
        """The same with the dimensions of somebody else, matched by name: NaN where the teacher gives none.

        A teacher who gives none of them has `(N, 0)`. Outputs of before names were kept count as they stand.

        Raises:
            ValueError: for such outputs of another width.
        """
        given, width = self.dimension_names, self.dimensions.shape[1]
        if width and not given:
            if width != len(names):
                raise ValueError(
                    f"Expected the dimensions {list(names)} of the teacher {self.name!r}, got {width} without names. "
                    "Let the teacher's recipe write its outputs again."
                )
            given = list(names)
        nothing = self.dimensions.new_full((len(self.ids),), torch.nan)
        columns = [self.dimensions[:, given.index(name)] if name in given else nothing for name in names]
        dimensions = torch.stack(columns, 1) if columns else self.dimensions[:, :0]  # (N, A)
        if not dimensions.isfinite().any():  # a classifier
            return replace(self, dimensions=self.dimensions[:, :0], dimension_names=[])
        return replace(self, dimensions=dimensions, dimension_names=list(names))

    @staticmethod
    def joined(parts: list[TeacherOutputs]) -> TeacherOutputs:
        """Several teachers' outputs in one, numbered in this order; an optional field that some lack is 1 there."""
        counts = [part.num_teachers for part in parts]
        first = [sum(counts[:index]) for index in range(len(parts))]
        optional = {
            name: torch.cat([part.tensors().get(name, torch.ones(len(part.ids))) for part in parts])
            for name in OPTIONAL
            if any(name in part.tensors() for part in parts)
        }
        return TeacherOutputs(
            [name for part in parts for name in part.ids],
            torch.cat([part.logits for part in parts]),
            torch.cat([part.dimensions for part in parts]),
            torch.cat([part.embedding for part in parts]),
            torch.cat([part.teacher + begin for part, begin in zip(parts, first, strict=True)]),
            parts[0].emotions,
            parts[0].training_data,
            parts[0].name,
            dimension_names=parts[0].dimension_names,
            license=parts[0].license,
            **optional,
        )
