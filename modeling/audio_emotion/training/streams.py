"""Decoded clips in an order fixed by seed and epoch, each process its share.

Shards are permuted by (seed, epoch), then the rows of one shard in memory: unlike a shuffle buffer, nothing is lost
when a run is taken up again. The k-th clip of an epoch goes to process k modulo their number, so that the global
batches of two processes are those of one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from datasets import IterableDataset

from audio_emotion.audio_input import decode, resample


class ClipStream:
    """Rows of a `datasets` stream with their waveform.

    Args:
        source: rows as `corpus_table` makes them, with undecoded audio.
        size: number of rows.
        seed: of the order.
        shuffle: whether to permute; without it, the order of the source.
        process_index: this process.
        num_processes: all of them.
        sampling_rate: wanted, in hertz.
        keep_decoded: whether to hold decoded clips in memory (a corpus of an hour is 230 MB).
        max_bad_share: share of undecodable clips that stops the run.
    """

    def __init__(
        self,
        source: IterableDataset,
        size: int,
        seed: int = 0,
        shuffle: bool = False,
        process_index: int = 0,
        num_processes: int = 1,
        sampling_rate: int = 16000,
        keep_decoded: bool = True,
        max_bad_share: float = 0.05,
    ) -> None:
        self.source = source
        self.size = size
        self.seed = seed
        self.shuffle = shuffle
        self.process_index = process_index
        self.num_processes = num_processes
        self.sampling_rate = sampling_rate
        self.max_bad_share = max_bad_share
        self.decoded: dict[str, np.ndarray] | None = {} if keep_decoded else None
        self.quarantine: dict[str, str] = {}  # clip id -> reason

    def epoch(self, number: int) -> Iterator[dict]:
        """Rows of this process with `waveform (S,)` float32; bad clips are left out and noted in `quarantine`.

        Raises:
            ValueError: when more than `max_bad_share` of all clips are bad.
        """
        random = np.random.default_rng((self.seed, number))
        shards = self.source.num_shards
        position = 0
        for shard in random.permutation(shards) if self.shuffle else range(shards):
            rows = list(self.source.shard(num_shards=shards, index=int(shard)))
            order = random.permutation(len(rows)) if self.shuffle else range(len(rows))
            for index in order:
                mine = position % self.num_processes == self.process_index
                position += 1
                if mine and (waveform := self._waveform(rows[index])) is not None:
                    yield {**rows[index], "waveform": waveform}

    def _waveform(self, row: dict) -> np.ndarray | None:
        """The clip at the wanted rate, channels averaged; None for a bad one."""
        if self.decoded is not None and row["id"] in self.decoded:
            return self.decoded[row["id"]]
        audio = row["audio"]
        try:
            samples, rate = decode(audio["bytes"] if audio["bytes"] is not None else audio["path"])
            waveform = resample(samples.mean(axis=1), rate, self.sampling_rate)
            if len(waveform) < self.sampling_rate // 4 or not np.isfinite(waveform).all():
                raise ValueError(f"Expected at least 0.25 s of finite samples, got {len(waveform)} samples.")
        except ValueError as error:
            self.quarantine[row["id"]] = str(error)
            if len(self.quarantine) > self.max_bad_share * self.size:
                raise ValueError(
                    f"{len(self.quarantine)} of {self.size} clips are bad, more than {self.max_bad_share:.0%}. "
                    f"The last one is {row['id']}: {error}"
                ) from error
            return None
        if self.decoded is not None:
            self.decoded[row["id"]] = waveform
        return waveform
