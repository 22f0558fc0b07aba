"""A sampler that can resume at any step: the rows of each batch, computed without reading any data.

The place of every clip is a function of (seed, epoch, step, process). A killed run resumes at its step without reading
the batches before it, and, unlike with a shuffle buffer, no clip is lost or repeated.

Single files are permuted by (seed, epoch), and the k-th goes to process k modulo their number, so that the global
batches of two processes are those of one. For clips in shards that would read a whole shard per clip: there the shards
are permuted, then the rows within each, and every worker of every process reads one contiguous part of that sequence.
"""

from __future__ import annotations

import math
from collections import Counter
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
        if self.batch_size % self.num_processes:
            raise ValueError(
                f"`batch_size` {self.batch_size} must be a multiple of the {self.num_processes} processes."
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
        balance_emotions: bool = False,
        **others: Any,
    ) -> ResumableSampler:
        """Sampler of a table, with its shards.

        Args:
            table: see `corpus_table`.
            batch_size: clips in a global batch.
            weights: sampling weight of a corpus by its name; 1 for corpora that are not named.
            balance_emotions: sample the emotions of a corpus equally often, with its number of clips unchanged.
            others: further attributes.
        """
        shards = table["shard"]
        shards = None if None in shards else np.asarray(shards)
        if not weights and not balance_emotions:
            return cls(len(table), batch_size, shards=shards, **others)
        weights = weights or {}
        names = [speaker.split("/")[0] for speaker in table["speaker"]]
        by_group: list[float]
        if balance_emotions:
            clips = Counter(zip(names, table["emotion"], strict=True))
            emotions, total = Counter(name for name, _ in clips), Counter(names)
            pairs = sorted(clips, key=str)
            groups = np.array([pairs.index(each) for each in zip(names, table["emotion"], strict=True)])
            by_group = [weights.get(name, 1.0) * total[name] / emotions[name] / clips[name, e] for name, e in pairs]
        else:
            known = sorted(set(names))
            groups = np.array([known.index(name) for name in names])
            by_group = [weights.get(name, 1.0) for name in known]
        return cls(len(table), batch_size, shards=shards, groups=groups, weights=by_group, **others)

    def with_sampling_weights(
        self, labeled: np.ndarray, labeled_weight: float, unlabeled_weight: float = 1.0
    ) -> ResumableSampler:
        """The same sampler with other sampling weights for labeled and unlabeled clips.

        CCC and cross-entropy are computed over the labeled clips of a batch: with few labels a batch may have none.

        Args:
            labeled: `(N,)`, whether each row is labeled.
            labeled_weight: factor on the sampling weight of labeled clips.
            unlabeled_weight: factor on that of the others; 0 leaves them out.
        """
        groups = np.zeros(self.size, int) if self.groups is None else self.groups
        weights = [weight * factor for weight in self.weights for factor in (unlabeled_weight, labeled_weight)]
        return replace(self, groups=2 * groups + labeled, weights=weights, _epochs={})

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
