"""Which clip comes when, on which process: arithmetic on the number of rows, nothing is read.

The place of every clip follows from (seed, epoch, step, process) alone. So a run that was killed goes on at its step
without reading what came before, and unlike with a shuffle buffer no clip is lost or heard twice.

Clips that can be reached one by one are permuted by (seed, epoch), and the k-th goes to process k modulo their number,
so that the global batches of two processes are those of one. Clips in shards would cost a whole shard each: there the
shards are permuted, then the rows within each, and every worker of every process reads one stretch of that sequence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from datasets import Dataset


@dataclass(frozen=True)
class Order:
    """The order of a corpus, epoch after epoch.

    Attributes:
        size: rows `N`.
        batch_size: clips of a global batch.
        seed: of the order.
        shuffle: whether to permute; without it, the order of the rows.
        num_processes: that share each epoch.
        num_workers: that read ahead in each process; without shards, any of them can read any batch.
        shards: `(N,)`, the shard of each row; None where every clip can be reached alone.
        corpora: `(N,)`, the number of the corpus of each row, where several are mixed.
        weights: how often an epoch draws each corpus: 1 is every clip once, 0.5 a fresh half of them each time.
    """

    size: int
    batch_size: int
    seed: int = 0
    shuffle: bool = False
    num_processes: int = 1
    num_workers: int = 0
    shards: np.ndarray | None = None
    corpora: np.ndarray | None = None
    weights: Sequence[float] = (1.0,)
    _epochs: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.batch_size % self.num_processes:
            raise ValueError(
                f"`batch_size` {self.batch_size} must be a multiple of the {self.num_processes} processes."
            )
        if self.shards is not None and (count := len(np.unique(self.shards))) < self.lanes:
            raise ValueError(
                f"Expected at least as many shards as readers, got {count} shards for {self.num_processes} processes "
                f"of {max(self.num_workers, 1)} reading worker(s). Pack the corpus into smaller shards "
                "(`recipes/pack.py --shard_mb`), or start fewer processes or workers."
            )

    @classmethod
    def of(cls, table: Dataset, batch_size: int, weights: Mapping[str, float] | None = None, **others: Any) -> Order:
        """The order of a corpus's table, which says itself what lies in shards.

        Args:
            table: rows as `corpus_table` makes them.
            batch_size: clips of a global batch.
            weights: how often an epoch draws a corpus, by its name; those not named are drawn once.
            others: see `Order`.
        """
        shards = table["shard"]
        shards = None if None in shards else np.asarray(shards)
        if not weights:
            return cls(len(table), batch_size, shards=shards, **others)
        names = [speaker.split("/")[0] for speaker in table["speaker"]]
        known = sorted(set(names))
        corpora = np.array([known.index(name) for name in names])
        draws = [weights.get(name, 1.0) for name in known]
        return cls(len(table), batch_size, shards=shards, corpora=corpora, weights=draws, **others)

    def with_sampling_weights(self, labeled: np.ndarray, draws: float, of_others: float = 1.0) -> Order:
        """The same order with each labeled clip drawn more or less often, and each of the others; `labeled (N,)`.

        CCC and cross-entropy are taken over the labeled clips of a batch: of few labels a batch may hold none.
        """
        corpora = np.zeros(self.size, int) if self.corpora is None else self.corpora
        weights = [weight * often for weight in self.weights for often in (of_others, draws)]
        return replace(self, corpora=2 * corpora + labeled, weights=weights, _epochs={})

    @property
    def lanes(self) -> int:
        """Readers that each follow a stretch of the shards."""
        return self.num_processes * max(self.num_workers, 1)

    @property
    def drawn(self) -> int:
        """Clips of an epoch."""
        return sum(self._draws()[1]) if self.corpora is not None else self.size

    @property
    def steps(self) -> int:
        """Batches of an epoch, as many on every process."""
        if self.shards is None:
            return math.ceil(self.drawn / self.batch_size)
        per_lane = math.ceil(self.drawn / self.lanes)
        return math.ceil(per_lane / (self.batch_size // self.num_processes)) * max(self.num_workers, 1)

    def batch(self, epoch: int, step: int, process: int) -> np.ndarray:
        """Rows of one batch of one process, `(n,)` with `n` at most its share; the last ones may be short or empty."""
        rows = self.epoch(epoch)
        share = self.batch_size // self.num_processes
        if self.shards is None:
            return rows[step * self.batch_size : (step + 1) * self.batch_size][process :: self.num_processes]
        workers = max(self.num_workers, 1)
        lane = process * workers + step % workers
        begin, end = (number * len(rows) // self.lanes for number in (lane, lane + 1))
        first = begin + step // workers * share
        return rows[first : min(first + share, end)]

    def epoch(self, number: int) -> np.ndarray:
        """All rows of an epoch in their order, `(drawn,)`."""
        if number not in self._epochs:
            self._epochs.clear()  # one at a time: a large corpus has a large order
            self._epochs[number] = self._order(np.random.default_rng((self.seed, number)))
        return self._epochs[number]

    def _order(self, random: np.random.Generator) -> np.ndarray:
        rows = np.arange(self.size) if self.corpora is None else self._drawn_rows(random)
        if not self.shuffle:
            return rows
        if self.shards is None:
            return random.permutation(rows)
        rows = random.permutation(rows)
        place = random.permutation(int(self.shards.max()) + 1)  # of each shard
        return rows[np.argsort(place[self.shards[rows]], kind="stable")]

    def _draws(self) -> tuple[list[np.ndarray], list[int]]:
        """Rows of each corpus, and how many of them an epoch draws."""
        assert self.corpora is not None
        members = [np.flatnonzero(self.corpora == number) for number in range(len(self.weights))]
        return members, [round(weight * len(rows)) for weight, rows in zip(self.weights, members, strict=True)]

    def _drawn_rows(self, random: np.random.Generator) -> np.ndarray:
        """Whole copies of every corpus, and a fresh part of it for the rest of its weight."""
        parts = []
        for rows, count in zip(*self._draws(), strict=True):
            whole, rest = divmod(count, max(len(rows), 1))
            parts += [np.tile(rows, whole), np.sort(random.choice(rows, rest, replace=False))]
        return np.sort(np.concatenate(parts), kind="stable")
