"""Rows of a corpus table to padded batches: clips are decoded, quarantined if they are bad, labeled and collated.

Clips come from files, from bytes in the table, or from shards, local or remote. A batch is a function of
(epoch, step, process), so that reading workers and interruptions do not change it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader

from audio_emotion.audio_io import read_audio
from audio_emotion.data.sampler import ResumableSampler
from audio_emotion.data.shards import read_shard

MAX_BAD_FRACTION = 0.05  # of the clips, above which a run stops
SHARDS_IN_MEMORY = 2  # per reader: the current one, and the next at the border between two readers
FILLER = np.zeros(4000, np.float32)  # 0.25 s of silence
FILLER_CLIP: dict = {"id": "", "speaker": "", "emotion": None, "waveform": FILLER}

Augment = Callable[[np.ndarray, str, int], np.ndarray]


class TooManyBadClipsError(ValueError):
    """More clips are bad than the run allows."""


@dataclass
class ClipReader:
    """Decodes the audio of a row; every worker has its own copy.

    Attributes:
        table: see `corpus_table`.
        files: paths or URLs of the shards that the column `shard` refers to.
        sampling_rate: of the waveforms, in hertz.
        memory: megabytes of decoded clips to keep; an hour at 16 kHz is 230.
    """

    table: Dataset
    files: Sequence[str] = ()
    sampling_rate: int = 16000
    memory: float = 0.0
    _decoded: dict[int, np.ndarray] = field(default_factory=dict, repr=False)
    _shards: OrderedDict[int, list[dict]] = field(default_factory=OrderedDict, repr=False)
    _bytes: int = 0

    def row(self, index: int) -> dict:
        """Labels and `waveform (S,)` of a clip, as [`read_audio`] reads it for the pipeline.

        Raises:
            ValueError: for a clip that [`read_audio`] refuses, and for one that a shard does not contain.
        """
        row = self.table[int(index)]
        if index not in self._decoded:
            waveform = self._waveform(row)
            if self._bytes + waveform.nbytes > self.memory * 1e6:
                return {**row, "waveform": waveform}
            self._decoded[index] = waveform
            self._bytes += waveform.nbytes
        return {**row, "waveform": self._decoded[index]}

    def _waveform(self, row: dict) -> np.ndarray:
        audio = row["audio"] if row["shard"] is None else self._shard(row["shard"])[row["row"]]
        if row["shard"] is not None and audio["bytes"] is None:
            raise ValueError(
                f"{self.files[row['shard']]}, row {row['row'] + 1}: expected the content of the file in the shard, "
                "got only a path, or nothing. Embed the audio, or describe a table of paths."
            )
        return read_audio(audio, self.sampling_rate).waveform

    def _shard(self, number: int) -> list[dict]:
        """Encoded audio of a whole shard, in its order."""
        if number not in self._shards:
            while len(self._shards) >= SHARDS_IN_MEMORY:
                self._shards.popitem(last=False)
            self._shards[number] = [clip["audio"] for clip in read_shard(self.files[number])]
        self._shards.move_to_end(number)
        return self._shards[number]


class ClipStream:
    """The clips of a table, as one process reads them, with a quarantine of bad clips.

    Args:
        table: see `corpus_table`.
        files: paths or URLs of the shards that the column `shard` refers to.
        process_index: of this process.
        num_processes: of the run.
        max_bad_fraction: fraction of bad clips above which the run stops.
        sampling_rate: of the waveforms, in hertz.
        memory: megabytes of decoded clips to keep.
        before_stop: called with the quarantine before the run stops because of it, for example to write it to disk.

    Attributes:
        quarantine: reason by id of every bad clip.
    """

    def __init__(
        self,
        table: Dataset,
        files: Sequence[str] = (),
        process_index: int = 0,
        num_processes: int = 1,
        max_bad_fraction: float = MAX_BAD_FRACTION,
        sampling_rate: int = 16000,
        memory: float = 500.0,
        before_stop: Callable[[dict[str, str]], None] | None = None,
    ) -> None:
        self.table = table
        self.reader = ClipReader(table, files, sampling_rate, memory)
        self.process_index = process_index
        self.num_processes = num_processes
        self.max_bad_fraction = max_bad_fraction
        self.before_stop = before_stop
        self.quarantine: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.table)

    def clips(self, rows: Iterable[int] | None = None) -> Iterator[dict]:
        """Every clip once, on every process, in the order of the table, without bad ones.

        Args:
            rows: row numbers to read; None for all.

        Raises:
            TooManyBadClipsError: when more than `max_bad_fraction` of all clips are bad.
        """
        for index in range(len(self.table)) if rows is None else rows:
            try:
                row = self.reader.row(index)
            except ValueError as error:
                self.add_to_quarantine({self.table[index]["id"]: str(error)})
            else:
                yield row

    def add_to_quarantine(self, bad: dict[str, str]) -> None:
        """Record bad clips.

        Args:
            bad: reason by id.

        Raises:
            TooManyBadClipsError: when more than `max_bad_fraction` of all clips are bad.
        """
        self.quarantine |= bad
        if len(self.quarantine) > self.max_bad_fraction * len(self):
            if self.before_stop is not None:
                self.before_stop(self.quarantine)
            name, reason = next(reversed(self.quarantine.items()))
            raise TooManyBadClipsError(
                f"{len(self.quarantine)} of {len(self)} clips are bad, more than {self.max_bad_fraction:.0%}. "
                f"The last one is {name}: {reason} `quarantine.jsonl` of a run lists them. Repair them or remove them "
                "from the corpus, or allow a larger fraction with `--max_bad_fraction`."
            )

    def gather_quarantine(self) -> None:
        """Merge the quarantines of all processes.

        Raises:
            TooManyBadClipsError: when that are more than `max_bad_fraction` of all clips.
        """
        gathered = gather_object([self.quarantine])
        self.add_to_quarantine({name: reason for bad in gathered for name, reason in bad.items()})


@dataclass
class Batch:
    """`B` clips of one process.

    Attributes:
        ids: clip ids.
        speakers: of each clip.
        input_values: `(B, S)` samples, zero-padded.
        attention_mask: `(B, S)`, 1 for samples of the clip, 0 for padding.
        labels: `(B,)` class indices, -100 where unlabeled.
        dimension_labels: `(B, A)` in 0..1, NaN where unlabeled.
        weight: `(B,)`, 0 for clips that only fill the batch.
        bad: reason by id of clips that were dropped from the batch.
    """

    ids: list[str]
    speakers: list[str]
    input_values: Tensor
    attention_mask: Tensor
    labels: Tensor
    dimension_labels: Tensor
    weight: Tensor
    bad: dict[str, str] = field(default_factory=dict)


def collate(examples: Sequence[dict], emotions: Sequence[str], dimensions: Sequence[str], size: int) -> Batch:
    """Pad a list of examples, filled up to `size` with copies of the first, or silence, of weight 0.

    Args:
        examples: rows with `waveform`.
        emotions: class names in label order.
        dimensions: names of the dimensions; one that an example does not have is unlabeled.
        size: `B`.
    """
    first = examples[0] if examples else FILLER_CLIP
    filled = [*examples, *[first] * (size - len(examples))]
    lengths = [len(example["waveform"]) for example in filled]
    input_values = torch.zeros(size, max(lengths))
    for row, example in zip(input_values, filled, strict=True):
        row[: len(example["waveform"])] = torch.as_tensor(example["waveform"])
    index = {name: number for number, name in enumerate(emotions)}
    targets = [[math.nan if e.get(name) is None else e[name] for name in dimensions] for e in filled]
    return Batch(
        ids=[example["id"] for example in filled],
        speakers=[example["speaker"] for example in filled],
        input_values=input_values,
        attention_mask=(torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long(),
        labels=torch.tensor([-100 if e["emotion"] is None else index[e["emotion"]] for e in filled]),
        dimension_labels=torch.tensor(targets, dtype=torch.float32).reshape(size, len(dimensions)),
        weight=torch.tensor([1.0] * len(examples) + [0.0] * (size - len(examples))),
    )


@dataclass
class BatchDataset(torch.utils.data.Dataset):
    """The batch of every (epoch, step) of one process, the same in whichever worker it is read.

    Attributes:
        reader: of single clips.
        sampler: of their rows.
        process_index: of this process.
        emotions: class names in label order.
        dimensions: names of the dimensions.
        augment: from waveform `(S,)`, clip id and epoch to another waveform.
        waveforms: read audio; without it, a batch has labels only.
    """

    reader: ClipReader
    sampler: ResumableSampler
    process_index: int
    emotions: Sequence[str]
    dimensions: Sequence[str]
    augment: Augment | None = None
    waveforms: bool = True

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        """Batch of (epoch, step)."""
        epoch, step = place
        examples, bad = [], {}
        for index in self.sampler.batch(epoch, step, self.process_index):
            try:
                example = self.reader.row(index) if self.waveforms else self._labels(index)
            except ValueError as error:
                bad[self.reader.table[int(index)]["id"]] = str(error)
                continue
            if self.augment is not None:
                example["waveform"] = self.augment(example["waveform"], example["id"], epoch)
            examples.append(example)
        size = self.sampler.batch_size // self.sampler.num_processes
        batch = collate(examples, self.emotions, self.dimensions, size)
        batch.bad = bad
        return batch

    def _labels(self, index: int) -> dict:
        return {**self.reader.table[int(index)], "waveform": FILLER[:1]}


def batches(
    stream: ClipStream,
    sampler: ResumableSampler,
    emotions: Sequence[str],
    dimensions: Sequence[str],
    epochs: int = 1,
    first: int = 0,
    augment: Augment | None = None,
    waveforms: bool = True,
) -> Iterator[Batch]:
    """Batches of consecutive epochs, the same number on every process.

    Args:
        stream: of clips; bad clips are added to its quarantine.
        sampler: of the rows of each batch.
        emotions: class names in label order.
        dimensions: names of the dimensions.
        epochs: number of epochs.
        first: number of batches to skip on resume; they are not read.
        augment: from waveform `(S,)`, clip id and epoch to another waveform.
        waveforms: read audio; without it, a batch has labels only.

    Raises:
        TooManyBadClipsError: when too many clips are bad.
    """
    loader: DataLoader = DataLoader(
        BatchDataset(stream.reader, sampler, stream.process_index, emotions, dimensions, augment, waveforms),
        batch_size=None,
        sampler=[divmod(number, sampler.steps) for number in range(first, epochs * sampler.steps)],  # type: ignore[arg-type]
        num_workers=sampler.num_workers,
        collate_fn=_identity,  # type: ignore[arg-type]
        generator=torch.Generator(),  # the default generator is that of dropout
        multiprocessing_context="fork" if sampler.num_workers else None,
        worker_init_fn=_use_one_thread,
    )
    for batch in loader:
        if batch.bad:
            stream.add_to_quarantine(batch.bad)
        yield batch


def _identity(batch: Batch) -> Batch:
    return batch


def _use_one_thread(worker: int) -> None:
    torch.set_num_threads(1)  # the training process uses the others
