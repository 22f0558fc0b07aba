"""The output layer: named dimensions, their variance, categories, and a head per teacher."""

# SPDX-License-Identifier: Apache-2.0

import torch
from torch import nn


class EmotionHeads(nn.Module):
    """Embedding to everything a model says.

    Args:
        config: an `EmotionConfig`.
        teacher_emotions: label names of each teacher that has a head of its own while distilling.
    """

    def __init__(self, config, teacher_emotions: dict[str, list[str]] | None = None):
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.dimensions = nn.Linear(config.embedding_size, len(config.dimensions)) if config.dimensions else None
        self.emotions = nn.Linear(config.embedding_size, len(config.emotions)) if config.emotions else None
        self.log_variance = (
            nn.Linear(config.embedding_size, len(config.dimensions)) if config.predict_variance else None
        )
        self.teachers = nn.ModuleDict(
            {name: nn.Linear(config.embedding_size, len(labels)) for name, labels in (teacher_emotions or {}).items()}
        )

    def drop_teachers(self) -> None:
        """Forget the teachers' heads, which nobody needs once the student has learnt."""
        self.teachers = nn.ModuleDict()

    def forward(self, embedding: torch.Tensor) -> dict[str, torch.Tensor | dict[str, torch.Tensor] | None]:
        """Apply the heads to `(..., D)`.

        Returns:
            `dimensions (..., 3)` in 0..1, `logits (..., C)`, `log_variance (..., 3)` and `teacher_logits`, a dict of
            `(..., C_k)`; None for a head that the model does not have.
        """
        embedding = self.dropout(embedding)
        return {
            "dimensions": self.dimensions(embedding).float().sigmoid() if self.dimensions else None,  # (..., 3)
            "logits": self.emotions(embedding) if self.emotions else None,  # (..., C)
            "log_variance": self.log_variance(embedding) if self.log_variance else None,  # (..., 3)
            "teacher_logits": {name: head(embedding) for name, head in self.teachers.items()} or None,
        }
