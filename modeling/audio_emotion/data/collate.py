"""Rows into padded tensors, read ahead by workers; short batches are filled with clips of weight 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from audio_emotion.data.dataset import ClipReader, ClipStream
from audio_emotion.data.sampler import Order

Augment = Callable[[np.ndarray, str, int], np.ndarray]


@dataclass
class Batch:
    """`B` clips of one process.

    Attributes:
        ids: clip names.
        speakers: of each clip.
        input_values: `(B, S)` samples, 0 after shorter clips.
        attention_mask: `(B, S)`, 1 for true samples.
        labels: `(B,)` class numbers, -100 where unlabeled.
        dimension_labels: `(B, A)` in 0..1, NaN where unlabeled.
        weight: `(B,)`, 0 for clips that only fill the batch.
        bad: id and reason of the clips that should have been here.
    """

    ids: list[str]
    speakers: list[str]
    input_values: Tensor
    attention_mask: Tensor
    labels: Tensor
    dimension_labels: Tensor
    weight: Tensor
    bad: dict[str, str] = field(default_factory=dict)


NOTHING = np.zeros(4000, np.float32)  # a quarter of a second of silence
NOBODY: dict = {"id": "", "speaker": "", "emotion": None, "waveform": NOTHING}


def collate(examples: Sequence[dict], emotions: Sequence[str], dimensions: Sequence[str], size: int) -> Batch:
    """Pad and label a list of examples, filled up to `size` with copies of the first, or silence, at weight 0."""
    first = examples[0] if examples else NOBODY
    filled = [*examples, *[first] * (size - len(examples))]
    lengths = [len(example["waveform"]) for example in filled]
    input_values = torch.zeros(size, max(lengths))
    for row, example in zip(input_values, filled, strict=True):
        row[: len(example["waveform"])] = torch.as_tensor(example["waveform"])
    number = {name: index for index, name in enumerate(emotions)}
    # A corpus without a dimension of the model's has no such column.
    targets = [[math.nan if e.get(name) is None else e[name] for name in dimensions] for e in filled]
    return Batch(
        ids=[example["id"] for example in filled],
        speakers=[example["speaker"] for example in filled],
        input_values=input_values,
        attention_mask=(torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long(),
        labels=torch.tensor([-100 if e["emotion"] is None else number[e["emotion"]] for e in filled]),
        dimension_labels=torch.tensor(targets, dtype=torch.float32).reshape(size, len(dimensions)),
        weight=torch.tensor([1.0] * len(examples) + [0.0] * (size - len(examples))),
    )


@dataclass
class BatchReader(torch.utils.data.Dataset):
    """One batch per (epoch, step), the same whoever reads it.

    Attributes:
        reader: of single clips.
        order: which rows come when.
        process_index: this process.
        emotions: class names in label order.
        dimensions: names of the rated columns.
        augment: from waveform `(S,)`, clip id and epoch to another waveform.
        waveforms: whether to read audio at all; without it, a batch is labels alone.
    """

    reader: ClipReader
    order: Order
    process_index: int
    emotions: Sequence[str]
    dimensions: Sequence[str]
    augment: Augment | None = None
    waveforms: bool = True

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        """Read the batch of (epoch, step)."""
        epoch, step = place
        examples, bad = [], {}
        for index in self.order.batch(epoch, step, self.process_index):
            try:
                example = self.reader.row(index) if self.waveforms else self._labels(index)
            except ValueError as error:
                bad[self.reader.table[int(index)]["id"]] = str(error)
                continue
            if self.augment is not None:
                example["waveform"] = self.augment(example["waveform"], example["id"], epoch)
            examples.append(example)
        size = self.order.batch_size // self.order.num_processes
        batch = collate(examples, self.emotions, self.dimensions, size)
        batch.bad = bad
        return batch

    def _labels(self, index: int) -> dict:
        return {**self.reader.table[int(index)], "waveform": NOTHING[:1]}


def batches(
    stream: ClipStream,
    order: Order,
    emotions: Sequence[str],
    dimensions: Sequence[str],
    epochs: int = 1,
    first: int = 0,
    augment: Augment | None = None,
    waveforms: bool = True,
) -> Iterator[Batch]:
    """Batches of some epochs, one after another, the same number of them on every process.

    Args:
        stream: of clips; its quarantine takes in the bad ones.
        order: which rows come when.
        emotions: class names in label order.
        dimensions: names of the rated columns.
        epochs: how many.
        first: batches to leave out because they were trained on before; they are not read.
        augment: from waveform `(S,)`, clip id and epoch to another waveform.
        waveforms: whether to read audio at all; without it, a batch is labels alone.

    Raises:
        TooManyBadClipsError: when too many clips are bad.
    """
    reader = BatchReader(stream.reader, order, stream.process_index, emotions, dimensions, augment, waveforms)
    loader: DataLoader = DataLoader(
        reader,
        batch_size=None,
        sampler=[divmod(number, order.steps) for number in range(first, epochs * order.steps)],  # type: ignore[arg-type]
        num_workers=order.num_workers,
        collate_fn=_as_it_is,  # type: ignore[arg-type]
        generator=torch.Generator(),  # its own: the loader must not draw from the generator that dropout draws from
        multiprocessing_context="fork" if order.num_workers else None,
        worker_init_fn=_one_thread,
    )
    for batch in loader:
        if batch.bad:
            stream.leave_out(batch.bad)
        yield batch


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)  # workers beside a training that has its own threads
