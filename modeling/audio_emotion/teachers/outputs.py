"""Data types of teachers: their description, their input, their prediction for a clip, their outputs for a corpus."""

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
from scipy.special import rel_entr, softmax
from torch import Tensor

from audio_emotion.configuration_emotion import DIMENSIONS
from audio_emotion.evaluation.predictions import Predictions
from audio_emotion.teachers.faces import SpeakingFace

MIN_PROBABILITY = 1e-4  # smaller class probabilities are raised to it, so that their logits stay finite
OPTIONAL_TENSORS = ("confidence", "agreement", "mask")


@dataclass
class TeacherInfo:
    """Name, origin and output space of one teacher."""

    name: str  # column of the pseudo-labels
    kind: str  # "speech", "face" or "votes"
    source: str  # Hub id, or name of a folder or file
    revision: str  # commit, or digest of the weights
    classes: list[str]  # of the logits, in order; the names of this package where a synonym is known
    dimensions: list[str] = field(default_factory=list)  # in order; empty for a classifier
    training_data: list[dict] = field(default_factory=list)  # as in a configuration; `{"model": id}` if public
    license: str = "LicenseRef-unknown"  # of the weights, SPDX


@dataclass
class Clip:
    """Input of a teacher."""

    id: str
    waveform: np.ndarray  # (S,) at 16 kHz
    face: SpeakingFace | None = None  # None without a usable one
    no_face_reason: str = "the clip has no video"  # why `face` is None
    num_faces: int | None = None  # tracked through the clip; None if no face detection was run
    face_rate: float | None = None  # fraction of the searched frames with the speaker's or most frequent face


@dataclass
class TeacherPrediction:
    """Output of one teacher for one clip."""

    logits: np.ndarray | None = None  # (C,); None for a regression model
    dimensions: np.ndarray | None = None  # (A,) in 0..1
    embedding: np.ndarray | None = None  # (D,)
    frame_times: np.ndarray | None = None  # (F,) seconds since the start of the clip's audio
    frame_logits: np.ndarray | None = None  # (F, C)
    reason: str | None = None  # why there is no output; None if there is one


def version_id(clip: str, version: int) -> str:
    """Name of an augmented version of a clip among teacher outputs; version 0 is the clip itself."""
    return f"{clip}#{version}" if version else clip


def logits_from_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Logits whose softmax is the probabilities; those below `MIN_PROBABILITY` are raised to it."""
    return np.log(np.maximum(probabilities, MIN_PROBABILITY)).astype(np.float32)


def compute_agreement(
    logits: np.ndarray, classes: Sequence[str], other_logits: np.ndarray, other_classes: Sequence[str]
) -> float | None:
    """Agreement of two teachers on a clip: 1 minus the Jensen-Shannon divergence in bits, 0..1.

    Only classes of both teachers count; the probabilities of each are normalized to a sum of 1 over these. None if the
    teachers, with logits `(C,)` and `(K,)`, have fewer than two classes in common.
    """
    shared = [name for name in classes if name in other_classes]
    if len(shared) < 2:
        return None
    p = softmax(logits[[list(classes).index(name) for name in shared]].astype(np.float64))
    q = softmax(other_logits[[list(other_classes).index(name) for name in shared]].astype(np.float64))
    mean = (p + q) / 2
    divergence = (rel_entr(p, mean).sum() + rel_entr(q, mean).sum()) / (2 * np.log(2))
    return float(np.clip(1.0 - divergence, 0.0, 1.0))


@dataclass
class TeacherOutputs:
    """Outputs for `N` clips of one teacher, or of several cross-fitted teachers of one kind.

    Teachers of different kinds, such as a speech and a face teacher, have one `TeacherOutputs` each, with classes of
    their own.
    """

    ids: list[str]
    logits: Tensor  # (N, C)
    dimensions: Tensor  # (N, A) in 0..1, NaN without a value; or (N, 0)
    embedding: Tensor  # (N, D), in a separate space for each cross-fitted teacher; or (N, 0)
    teacher: Tensor  # (N,) index of the cross-fitted teacher
    emotions: list[str]  # names of the C classes
    training_data: list[dict]  # of the teachers, as in a checkpoint's configuration
    name: str = "teacher"  # prefix of the names of its loss terms
    confidence: Tensor | None = None  # (N,) in 0..1, largest class probability
    agreement: Tensor | None = None  # (N,) in 0..1, with the other teachers of the clip
    mask: Tensor | None = None  # (N,) 0 for clips without output, such as those without a face; None if all have one
    dimension_names: list[str] = field(default_factory=list)  # of the A columns; of three by default `DIMENSIONS`
    license: str = ""  # of the teacher's weights, SPDX
    augmentation: dict = field(default_factory=dict)  # strengths of the augmented versions, with ids by `version_id`
    versions: int = 1  # of each training clip, the clip itself among them

    def __post_init__(self) -> None:
        if not self.dimension_names and self.dimensions.shape[1] == len(DIMENSIONS):
            self.dimension_names = list(DIMENSIONS)

    @property
    def num_teachers(self) -> int:
        """Number of cross-fitted teachers."""
        return int(self.teacher.max()) + 1

    @property
    def has_output(self) -> Tensor:
        """`(N,)`, whether there is an output for each clip."""
        return torch.ones(len(self.ids), dtype=torch.bool) if self.mask is None else self.mask > 0

    @cached_property
    def _row_of_id(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.ids)}

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that is not None, by name; the first axis is the clips."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def save(self, folder: str | Path) -> None:
        """Write `teacher_outputs.safetensors` and `teacher_outputs.json`."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file(self.tensors(), Path(folder) / "teacher_outputs.safetensors")
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        index = {name: value for name, value in values.items() if not (value is None or isinstance(value, Tensor))}
        (Path(folder) / "teacher_outputs.json").write_text(json.dumps(index))

    @classmethod
    def load(cls, folder: str | Path) -> TeacherOutputs:
        """Read the files of `save`."""
        index = json.loads((Path(folder) / "teacher_outputs.json").read_text())
        return cls(**index, **load_file(Path(folder) / "teacher_outputs.safetensors"))

    @classmethod
    def from_predictions(
        cls,
        predictions: Predictions,
        emotions: Sequence[str],
        training_data: list[dict],
        name: str = "teacher",
        dimension_names: Sequence[str] = (),
        license: str | None = None,
    ) -> TeacherOutputs:
        """Outputs of a single model for all clips of its predictions."""
        return cls(
            predictions.ids,
            torch.from_numpy(predictions.logits),
            torch.from_numpy(predictions.dimensions),
            torch.from_numpy(predictions.embedding),
            torch.zeros(len(predictions.ids), dtype=torch.long),
            list(emotions),
            training_data,
            name,
            dimension_names=list(dimension_names),
            license=license or "",
        )

    def select(self, ids: Sequence[str]) -> TeacherOutputs:
        """The rows of the given clips, in that order."""
        if missing := [name for name in ids if name not in self._row_of_id]:
            raise ValueError(f"No teacher output for {len(missing)} clips, {missing[:3]} among them.")
        rows = torch.tensor([self._row_of_id[name] for name in ids])
        selected: dict[str, Any] = {name: tensor[rows] for name, tensor in self.tensors().items()}
        return replace(self, ids=list(ids), **selected)

    def of_clips(self) -> TeacherOutputs:
        """The rows of the clips themselves, without those of augmented versions."""
        augmented = {version_id(name, version) for name in self.ids for version in range(1, self.versions)}
        return replace(self.select([name for name in self.ids if name not in augmented]), augmentation={}, versions=1)

    def align(self, ids: Sequence[str]) -> TeacherOutputs:
        """The rows of the given clips, in that order, with masked rows for clips without one."""
        present = [name for name in ids if name in self._row_of_id]
        if not present or not self.select(present).has_output.any():
            raise ValueError(
                f"Expected outputs of the teacher {self.name!r} for some of {len(ids)} clips such as {list(ids[:2])}, "
                f"got none: its outputs are for clips such as {self.ids[:2]}. Pass the outputs for this corpus and "
                "protocol."
            )
        absent = sorted(set(ids) - set(present))
        masked = replace(self, mask=self.has_output.float())
        padded: dict[str, Any] = {
            name: torch.cat([tensor, tensor.new_zeros(len(absent), *tensor.shape[1:])])
            for name, tensor in masked.tensors().items()
        }
        return replace(masked, ids=[*self.ids, *absent], **padded).select(ids)

    def with_dimensions(self, names: Sequence[str]) -> TeacherOutputs:
        """The same outputs with the given dimensions, matched by name: NaN where the teacher has no such dimension.

        If it has none of them, `dimensions` becomes `(N, 0)`. Columns without names are taken in the given order.
        """
        present, width = self.dimension_names, self.dimensions.shape[1]
        if width and not present:
            if width != len(names):
                raise ValueError(
                    f"Expected the dimensions {list(names)} of the teacher {self.name!r}, got {width} without names. "
                    "Compute its outputs again."
                )
            present = list(names)
        missing = self.dimensions.new_full((len(self.ids),), torch.nan)
        columns = [self.dimensions[:, present.index(name)] if name in present else missing for name in names]
        dimensions = torch.stack(columns, 1) if columns else self.dimensions[:, :0]  # (N, A)
        if not dimensions.isfinite().any():  # a classifier
            return replace(self, dimensions=self.dimensions[:, :0], dimension_names=[])
        return replace(self, dimensions=dimensions, dimension_names=list(names))

    @staticmethod
    def concatenate(parts: list[TeacherOutputs]) -> TeacherOutputs:
        """Outputs of several cross-fitted teachers as one, numbered in this order.

        An optional tensor that only some parts have is 1 for the clips of the others.
        """
        counts = [part.num_teachers for part in parts]
        first = [sum(counts[:index]) for index in range(len(parts))]
        optional: dict[str, Any] = {
            name: torch.cat([part.tensors().get(name, torch.ones(len(part.ids))) for part in parts])
            for name in OPTIONAL_TENSORS
            if any(name in part.tensors() for part in parts)
        }
        return replace(
            parts[0],
            ids=[name for part in parts for name in part.ids],
            logits=torch.cat([part.logits for part in parts]),
            dimensions=torch.cat([part.dimensions for part in parts]),
            embedding=torch.cat([part.embedding for part in parts]),
            teacher=torch.cat([part.teacher + offset for part, offset in zip(parts, first, strict=True)]),
            **optional,
        )
