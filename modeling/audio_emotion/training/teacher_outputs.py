"""What teachers said of clips, by clip id: written by `train_teacher.py`, read by `distill.py`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


@dataclass
class TeacherOutputs:
    """Outputs of one or several cross-fitted teachers for `N` clips.

    Attributes:
        ids: clip names.
        logits: `(N, C)` before the softmax.
        dimensions: `(N, 3)` in 0..1.
        embedding: `(N, D)`; embeddings of different teachers live in different spaces.
        teacher: `(N,)`, which of the teachers spoke.
        emotions: names of the `C` classes.
        training_data: what the teachers have seen, as in a checkpoint's configuration.
    """

    ids: list[str]
    logits: Tensor
    dimensions: Tensor
    embedding: Tensor
    teacher: Tensor
    emotions: list[str]
    training_data: list[dict]

    @property
    def num_teachers(self) -> int:
        """How many teachers spoke."""
        return int(self.teacher.max()) + 1

    def save(self, folder: str | Path) -> None:
        """Write `teacher_outputs.safetensors` and its index."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        tensors = {name: getattr(self, name) for name in ("logits", "dimensions", "embedding", "teacher")}
        save_file(tensors, Path(folder) / "teacher_outputs.safetensors")
        index = {"ids": self.ids, "emotions": self.emotions, "training_data": self.training_data}
        (Path(folder) / "teacher_outputs.json").write_text(json.dumps(index))

    @classmethod
    def load(cls, folder: str | Path) -> TeacherOutputs:
        """Read what `save` wrote."""
        index = json.loads((Path(folder) / "teacher_outputs.json").read_text())
        return cls(**index, **load_file(Path(folder) / "teacher_outputs.safetensors"))

    def of(self, ids: list[str]) -> TeacherOutputs:
        """The rows of some clips, in that order.

        Raises:
            ValueError: naming clips that no teacher has heard.
        """
        place = {name: index for index, name in enumerate(self.ids)}
        if missing := [name for name in ids if name not in place]:
            raise ValueError(f"No teacher output for {len(missing)} clips, {missing[:3]} among them.")
        rows = torch.tensor([place[name] for name in ids])
        return TeacherOutputs(
            ids,
            self.logits[rows],
            self.dimensions[rows],
            self.embedding[rows],
            self.teacher[rows],
            self.emotions,
            self.training_data,
        )

    @staticmethod
    def joined(parts: list[TeacherOutputs]) -> TeacherOutputs:
        """Several teachers' outputs in one, numbered in this order."""
        counts = [part.num_teachers for part in parts]
        first = [sum(counts[:index]) for index in range(len(parts))]
        return TeacherOutputs(
            [name for part in parts for name in part.ids],
            torch.cat([part.logits for part in parts]),
            torch.cat([part.dimensions for part in parts]),
            torch.cat([part.embedding for part in parts]),
            torch.cat([part.teacher + begin for part, begin in zip(parts, first, strict=True)]),
            parts[0].emotions,
            parts[0].training_data,
        )
