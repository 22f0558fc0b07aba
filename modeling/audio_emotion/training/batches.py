"""Examples into padded tensors; the last, uneven batch is filled with clips of weight 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from audio_emotion.training.streams import ClipStream


@dataclass
class Batch:
    """`B` clips of one process.

    Attributes:
        ids: clip names.
        speakers: of each clip.
        input_values: `(B, S)` samples, 0 after shorter clips.
        attention_mask: `(B, S)`, 1 for true samples.
        labels: `(B,)` class numbers, -100 where unlabelled.
        dimension_labels: `(B, 3)` in 0..1, NaN where unlabelled.
        weight: `(B,)`, 0 for clips that only fill the batch.
    """

    ids: list[str]
    speakers: list[str]
    input_values: Tensor
    attention_mask: Tensor
    labels: Tensor
    dimension_labels: Tensor
    weight: Tensor


def collate(examples: Sequence[dict], emotions: Sequence[str], dimensions: Sequence[str], size: int) -> Batch:
    """Pad and label a list of examples, filled up to `size` with copies of the first at weight 0."""
    filled = [*examples, *[examples[0]] * (size - len(examples))]
    lengths = [len(example["waveform"]) for example in filled]
    input_values = torch.zeros(size, max(lengths))
    for row, example in zip(input_values, filled, strict=True):
        row[: len(example["waveform"])] = torch.as_tensor(example["waveform"])
    number = {name: index for index, name in enumerate(emotions)}
    targets = [[math.nan if e[name] is None else e[name] for name in dimensions] for e in filled]
    return Batch(
        ids=[example["id"] for example in filled],
        speakers=[example["speaker"] for example in filled],
        input_values=input_values,
        attention_mask=(torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long(),
        labels=torch.tensor([-100 if e["emotion"] is None else number[e["emotion"]] for e in filled]),
        dimension_labels=torch.tensor(targets, dtype=torch.float32).reshape(size, len(dimensions)),
        weight=torch.tensor([1.0] * len(examples) + [0.0] * (size - len(examples))),
    )


def batches(
    stream: ClipStream,
    epoch: int,
    batch_size: int,
    emotions: Sequence[str],
    dimensions: Sequence[str],
    augment: Callable[[np.ndarray, str, int], np.ndarray] | None = None,
) -> Iterator[Batch]:
    """Batches of one epoch, the same number of them on every process.

    Args:
        stream: of clips.
        epoch: number of the epoch.
        batch_size: clips of a global batch; each process makes its share.
        emotions: class names in label order.
        dimensions: names of the rated columns.
        augment: from waveform `(S,)`, clip id and epoch to another waveform.

    Raises:
        ValueError: where the global batch does not divide by the number of processes.
    """
    if batch_size % stream.num_processes:
        raise ValueError(f"`batch_size` {batch_size} must be a multiple of the {stream.num_processes} processes.")
    size = batch_size // stream.num_processes
    clips = stream.epoch(epoch)
    last: list[dict] = []
    for _ in range(math.ceil(stream.size / batch_size)):
        examples = []
        for example in clips:
            if augment is not None:
                example = {**example, "waveform": augment(example["waveform"], example["id"], epoch)}
            examples.append(example)
            if len(examples) == size:
                break
        # A process that has run out repeats a clip at weight 0, so that nobody waits for it.
        batch = collate(examples or last[:1], emotions, dimensions, size)
        if not examples:
            batch.weight.zero_()
        last = examples or last
        yield batch
