"""A model's answers for a stream of clips, gathered from every process, each clip once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from audio_emotion.outputs import EmotionOutput
from audio_emotion.training.batches import Batch


@dataclass
class Predictions:
    """Answers for `N` clips, sorted by clip id.

    Attributes:
        ids: clip names.
        speakers: `(N,)` names.
        logits: `(N, C)`.
        dimensions: `(N, 3)` in 0..1.
        embedding: `(N, D)`.
        labels: `(N,)` class numbers, -100 where unlabelled.
        dimension_labels: `(N, 3)`, NaN where unlabelled.
    """

    ids: list[str]
    speakers: np.ndarray
    logits: np.ndarray
    dimensions: np.ndarray
    embedding: np.ndarray
    labels: np.ndarray
    dimension_labels: np.ndarray


@torch.no_grad()
def predict(
    accelerator: Accelerator, judge: Callable[[Batch], EmotionOutput], batches: Iterable[Batch]
) -> Predictions:
    """Judge every batch, leave out clips of weight 0, and join what all processes have.

    Args:
        accelerator: of the run.
        judge: from a batch to the model's output; the model must be in evaluation mode.
        batches: of this process.
    """
    rows = []
    for batch in batches:
        output = judge(batch)
        columns = (output.logits, output.dimensions, output.embedding, batch.labels, batch.dimension_labels)
        arrays = [column.float().cpu().numpy() for column in columns]  # type: ignore[union-attr]
        for index, name in enumerate(batch.ids):
            if batch.weight[index] > 0:
                rows.append((name, batch.speakers[index], *(array[index] for array in arrays)))
    whole = sorted(gather_object(rows) if accelerator.num_processes > 1 else rows, key=lambda row: row[0])
    ids, speakers, logits, dimensions, embedding, labels, dimension_labels = zip(*whole, strict=True)
    return Predictions(
        list(ids),
        np.array(speakers),
        np.stack(logits),
        np.stack(dimensions),
        np.stack(embedding),
        np.array(labels).astype(int),
        np.stack(dimension_labels),
    )
