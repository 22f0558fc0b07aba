"""A sampler that can resume at any step: the rows of each batch, computed without reading any data.

The place of every clip is a function of (seed, epoch, step, process). A killed run resumes at its step without reading
the batches before it, and, unlike with a shuffle buffer, no clip is lost or repeated.

Single files are permuted by (seed, epoch), and the k-th goes to process k modulo their number, so that the global
batches of two processes are those of one. For clips in shards that would read a whole shard per clip: there the shards
are permuted, then the rows within each, and every worker of every process reads one contiguous part of that sequence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from datasets import Dataset


@dataclass(frozen=True)
class ResumableSampler:
    """Rows of a table, batch by batch and epoch by epoch.

    Attributes:
        size: number of rows `N`.
        batch_size: clips in a global batch.
        seed: of shuffling and sampling.
        shuffle: permute the rows in each epoch; otherwise they keep the order of the table.
        num_processes: number of training processes, among which an epoch is divided.
        num_workers: reading workers of each process; without shards, any worker can read any batch.
        shards: `(N,)`, shard of each row; None for single files.
        groups: `(N,)`, group of each row (such as its corpus), for sampling weights.
        weights: sampling weight of each group: 1 is every clip once an epoch, 0.5 a random half, new in each epoch.
    """

    size: int
    batch_size: int
    seed: int = 0
    shuffle: bool = False
    num_processes: int = 1
    num_workers: int = 0
    shards: np.ndarray | None = None
    groups: np.ndarray | None = None
    weights: Sequence[float] = (1.0,)
    _epochs: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.num_processes:
            raise ValueError(
                f"Expected a multiple of the {self.num_processes} processes as `batch_size`, got {self.batch_size}. "
                f"Pass {max(1, round(self.batch_size / self.num_processes)) * self.num_processes}."
            )
        if self.shards is not None and (count := len(np.unique(self.shards))) < self.num_readers:
            raise ValueError(
                f"Expected at least as many shards as readers, got {count} shards for {self.num_processes} processes "
                f"of {max(self.num_workers, 1)} reading worker(s). Pack the corpus into smaller shards "
                "(`recipes/pack.py --shard_mb`), or start fewer processes or workers."
            )

    @classmethod
    def from_table(
        cls,
        table: Dataset,
        batch_size: int,
        weights: Mapping[str, float] | None = None,
        **others: Any,
    ) -> ResumableSampler:
        """Sampler of a table, with its shards.

        Args:
            table: see `corpus_table`.
            batch_size: clips in a global batch.
            weights: sampling weight of a corpus by its name; 1 for corpora that are not named.
            others: further attributes.
        """
        shards = _shards_of(table)
        if not weights:
            return cls(len(table), batch_size, shards=shards, **others)
        names = [speaker.split("/")[0] for speaker in table["speaker"]]
        known = sorted(set(names))
        groups = np.array([known.index(name) for name in names])
        by_group = [weights.get(name, 1.0) for name in known]
        return cls(len(table), batch_size, shards=shards, groups=groups, weights=by_group, **others)

    @classmethod
    def in_order(cls, table: Dataset, batch_size: int, num_processes: int = 1) -> ResumableSampler:
        """Sampler for predictions: every row once, in the order of the table, for any number of processes.

        Args:
            table: see `corpus_table`.
            batch_size: clips in a global batch, about: a multiple of the processes is used, at least a clip for each.
            num_processes: number of processes; with fewer shards, each of them reads all shards.
        """
        shards = _shards_of(table)
        if shards is not None and len(np.unique(shards)) < num_processes:
            shards = None
        size = max(1, batch_size // num_processes) * num_processes
        return cls(len(table), size, num_processes=num_processes, shards=shards)

    def with_sampling_weights(self, groups: np.ndarray, weights: Sequence[float]) -> ResumableSampler:
        """The same sampler with other sampling weights.

        Labeled clips, for example: CCC and cross-entropy are computed over those of a batch, which may have none.

        Args:
            groups: `(N,)`, group number of each row.
            weights: factor on the sampling weight of the clips of each group; 0 leaves them out.
        """
        own = np.zeros(self.size, int) if self.groups is None else self.groups
        products = [weight * factor for weight in self.weights for factor in weights]
        return replace(self, groups=len(weights) * own + groups, weights=products, _epochs={})

    def with_balanced_classes(self, classes: np.ndarray) -> ResumableSampler:
        """The same sampler with the classes of each corpus equally often, in an epoch of about the same length.

        Args:
            classes: `(N,)`, class number of each row; clips of negative ones are unlabeled and keep their weight.
        """
        own = np.zeros(self.size, int) if self.groups is None else self.groups
        unlabeled = max(int(classes.max(initial=0)), 0) + 1
        counts = np.zeros((len(self.weights), unlabeled), int)  # (G, C)
        np.add.at(counts, (own[classes >= 0], classes[classes >= 0]), 1)
        present = np.count_nonzero(counts, axis=1, keepdims=True).clip(min=1)
        factors = counts.sum(axis=1, keepdims=True) / present / counts.clip(min=1)  # (G, C)
        weights = [
            weight * factor for weight, row in zip(self.weights, factors, strict=True) for factor in [*row, 1.0]
        ]
        groups = (unlabeled + 1) * own + np.where(classes < 0, unlabeled, classes)
        return replace(self, groups=groups, weights=weights, _epochs={})

    @property
    def num_readers(self) -> int:
        """Workers of all processes, each of which reads one part of the shards."""
        return self.num_processes * max(self.num_workers, 1)

    @property
    def samples_per_epoch(self) -> int:
        """Clips of an epoch, repeated ones included."""
        return sum(self._samples_per_group()[1]) if self.groups is not None else self.size

    @property
    def steps(self) -> int:
        """Batches of an epoch, the same number on every process."""
        if self.shards is None:
            return math.ceil(self.samples_per_epoch / self.batch_size)
        per_reader = math.ceil(self.samples_per_epoch / self.num_readers)
        return math.ceil(per_reader / (self.batch_size // self.num_processes)) * max(self.num_workers, 1)

    def batch(self, epoch: int, step: int, process: int) -> np.ndarray:
        """Rows of one batch of one process, `(n,)`; the last batches may be short or empty."""
        rows = self.epoch(epoch)
        size = self.batch_size // self.num_processes
        if self.shards is None:
            return rows[step * self.batch_size : (step + 1) * self.batch_size][process :: self.num_processes]
        workers = max(self.num_workers, 1)
        reader = process * workers + step % workers
        begin, end = (number * len(rows) // self.num_readers for number in (reader, reader + 1))
        first = begin + step // workers * size
        return rows[first : min(first + size, end)]

    def epoch(self, number: int) -> np.ndarray:
        """All rows of an epoch in their order, `(samples_per_epoch,)`."""
        if number not in self._epochs:
            self._epochs.clear()  # only one is kept in memory
            self._epochs[number] = self._sample(np.random.default_rng((self.seed, number)))
        return self._epochs[number]

    def _sample(self, random: np.random.Generator) -> np.ndarray:
        rows = np.arange(self.size) if self.groups is None else self._weighted_rows(random)
        if not self.shuffle:
            return rows
        if self.shards is None:
            return random.permutation(rows)
        rows = random.permutation(rows)
        place = random.permutation(int(self.shards.max()) + 1)  # of each shard
        return rows[np.argsort(place[self.shards[rows]], kind="stable")]

    def _samples_per_group(self) -> tuple[list[np.ndarray], list[int]]:
        """Rows of each group, and how many samples of them an epoch has."""
        assert self.groups is not None
        members = [np.flatnonzero(self.groups == number) for number in range(len(self.weights))]
        return members, [round(weight * len(rows)) for weight, rows in zip(self.weights, members, strict=True)]

    def _weighted_rows(self, random: np.random.Generator) -> np.ndarray:
        """Every group as many times as the integer part of its weight, and a random part of it for the rest."""
        parts = []
        for rows, count in zip(*self._samples_per_group(), strict=True):
            copies, rest = divmod(count, max(len(rows), 1))
            parts += [np.tile(rows, copies), np.sort(random.choice(rows, rest, replace=False))]
        return np.sort(np.concatenate(parts), kind="stable")


def _shards_of(table: Dataset) -> np.ndarray | None:
    """Shard of each row, `(N,)`; None for single files."""
    shards = table["shard"]
    return None if None in shards else np.asarray(shards)
