"""Decoded clips of a corpus's table: from files, from bytes in the table, or from shards, local or remote."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from accelerate.utils import gather_object
from datasets import Dataset

from audio_emotion.audio_io import decode, resample
from audio_emotion.data.shards import read_shard

SHARDS_AT_HAND = 2  # of each reader: the one at work, and its neighbor at the border of a stretch


class TooManyBadClipsError(ValueError):
    """More clips are bad than a run may leave out."""


@dataclass
class ClipReader:
    """From a row to its waveform; every worker has one of its own.

    Attributes:
        table: rows as `corpus_table` makes them.
        files: the shards that `row["shard"]` counts, paths or URLs.
        sampling_rate: wanted, in hertz.
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
        """Labels and `waveform (S,)` of a clip, channels averaged, at the wanted rate.

        Raises:
            ValueError: for a clip that is no audio, shorter than 0.25 s, or not finite.
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
        source = audio["bytes"] if audio["bytes"] is not None else audio["path"]
        if source is None:
            raise ValueError("Expected audio, got none.")
        samples, rate = decode(source)
        waveform = resample(samples.mean(axis=1), rate, self.sampling_rate)
        if len(waveform) < self.sampling_rate // 4:
            raise ValueError(f"Expected at least 0.25 s of audio, got {len(waveform) / self.sampling_rate:.3f} s.")
        if not np.isfinite(waveform).all():
            raise ValueError("Expected finite samples, got NaN or infinite ones.")
        return waveform

    def _shard(self, number: int) -> list[dict]:
        """The encoded audio of a whole shard, in its order."""
        if number not in self._shards:
            while len(self._shards) >= SHARDS_AT_HAND:
                self._shards.popitem(last=False)
            self._shards[number] = [clip["audio"] for clip in read_shard(self.files[number])]
        self._shards.move_to_end(number)
        return self._shards[number]


class ClipStream:
    """What one process hears of a corpus, and what it had to leave out.

    Args:
        table: rows as `corpus_table` makes them.
        files: the shards that the table points into.
        process_index: this process.
        num_processes: all of them.
        max_bad_fraction: share of bad clips that stops the run.
        sampling_rate: wanted, in hertz.
        memory: megabytes of decoded clips to keep.
        before_stop: is given the quarantine when there are too many bad clips, to write it down.
    """

    def __init__(
        self,
        table: Dataset,
        files: Sequence[str] = (),
        process_index: int = 0,
        num_processes: int = 1,
        max_bad_fraction: float = 0.05,
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
        self.quarantine: dict[str, str] = {}  # clip id -> reason

    def __len__(self) -> int:
        return len(self.table)

    def clips(self, rows: Iterable[int] | None = None) -> Iterator[dict]:
        """Every clip once, on every process, in the order of the table; bad ones go to the quarantine.

        Args:
            rows: some of them alone.

        Raises:
            TooManyBadClipsError: when more than `max_bad_fraction` of all clips are bad.
        """
        for index in range(len(self.table)) if rows is None else rows:
            try:
                row = self.reader.row(index)
            except ValueError as error:
                self.leave_out({self.table[index]["id"]: str(error)})
            else:
                yield row

    def leave_out(self, bad: dict[str, str]) -> None:
        """Take clips into the quarantine.

        Raises:
            TooManyBadClipsError: when there are more of them than `max_bad_fraction` of all clips.
        """
        self.quarantine |= bad
        if len(self.quarantine) > self.max_bad_fraction * len(self):
            if self.before_stop is not None:
                self.before_stop(self.quarantine)
            name, reason = next(reversed(self.quarantine.items()))
            raise TooManyBadClipsError(
                f"{len(self.quarantine)} of {len(self)} clips are bad, more than {self.max_bad_fraction:.0%}. "
                f"The last one is {name}: {reason} All stand in `quarantine.jsonl`. Repair them or take them out of "
                "the corpus, or allow a larger share with `--max_bad_fraction`."
            )

    def exchange(self) -> None:
        """Take in what the other processes have left out.

        Raises:
            TooManyBadClipsError: when that makes too many.
        """
        self.leave_out({name: reason for bad in gather_object([self.quarantine]) for name, reason in bad.items()})
