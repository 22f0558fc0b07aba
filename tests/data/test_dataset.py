"""Clips from files, tables and shards; bad ones quarantined; batches the same whoever reads them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset

from audio_emotion.data.collate import batches
from audio_emotion.data.dataset import ClipStream, TooManyBadClipsError
from audio_emotion.data.registry import corpus_table
from audio_emotion.data.sampler import Order

EMOTIONS, DIMENSIONS = ["neutral"], ["activation", "valence", "dominance"]


@pytest.fixture(scope="module")
def table() -> Dataset:
    return corpus_table("synthetic", count=30)


@pytest.fixture(scope="module")
def shards(table, tmp_path_factory) -> tuple[Dataset, list[str]]:
    """The same clips in four parquet shards of 8, 8, 8 and 6, and the table that points into them."""
    folder = tmp_path_factory.mktemp("shards")
    files = []
    for number in range(4):
        files.append(str(folder / f"part-{number:05d}.parquet"))
        table.select(range(8 * number, min(8 * number + 8, 30))).to_parquet(files[-1])
    rows = [
        {**row, "audio": {"bytes": None, "path": None}, "shard": index // 8, "row": index % 8}
        for index, row in enumerate(table)
    ]
    return Dataset.from_list(rows, features=table.features), files


def with_bad(table: Dataset, count: int) -> Dataset:
    bad = {**table[0], "audio": {"bytes": b"no sound at all", "path": None}}
    return Dataset.from_list([{**bad, "id": f"bad-{n}"} for n in range(count)] + list(table), features=table.features)


def everything(stream: ClipStream, order: Order, **options) -> list:
    return list(batches(stream, order, EMOTIONS, DIMENSIONS, **options))


def unlabeled(table: Dataset) -> Dataset:
    return table.map(lambda row: {"emotion": None}, features=table.features)


def test_clips_in_shards_sound_as_they_do_in_the_table(table, shards):
    rows, files = shards

    for ours, theirs in zip(ClipStream(rows, files).clips(), ClipStream(table).clips(), strict=True):
        assert ours["id"] == theirs["id"]
        np.testing.assert_array_equal(ours["waveform"], theirs["waveform"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_taken_up_at_a_step_goes_on_as_if_it_had_never_stopped(shards, workers):
    rows, files = unlabeled(shards[0]), shards[1]
    order = Order.of(rows, 4, seed=5, shuffle=True, num_workers=workers)

    whole = everything(ClipStream(rows, files), order, epochs=2)
    rest = everything(ClipStream(rows, files), order, epochs=2, first=5)

    assert len(whole) == 2 * order.steps
    for ours, theirs in zip(rest, whole[5:], strict=True):
        assert ours.ids == theirs.ids
        assert torch.equal(ours.input_values, theirs.input_values)
        assert torch.equal(ours.weight, theirs.weight)


def test_workers_read_ahead_without_touching_the_generator_of_dropout(table):
    rows = unlabeled(table)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)

    everything(ClipStream(rows), Order.of(rows, 10, shuffle=True, num_workers=2))

    assert torch.equal(torch.rand(1), expected)


def test_a_bad_clip_leaves_its_place_empty_and_every_other_clip_comes_once(table):
    rows = unlabeled(with_bad(table, 1))
    stream = ClipStream(rows)

    each = everything(stream, Order.of(rows, 4, seed=1, shuffle=True))

    named = [name for batch in each for name, weight in zip(batch.ids, batch.weight, strict=True) if weight]
    assert sorted(named) == sorted(table["id"])
    assert set(stream.quarantine) == {"bad-0"}


def test_too_many_bad_clips_stop_the_run_and_the_message_names_one(table):
    rows = unlabeled(with_bad(table, 4))

    with pytest.raises(TooManyBadClipsError, match=r"of 34 clips are bad, more than 5%.*bad-\d"):
        everything(ClipStream(rows), Order.of(rows, 4))


def test_clips_kept_in_memory_stay_below_the_stated_size(table):
    stream = ClipStream(table, memory=0.2)

    first = [clip["waveform"] for clip in stream.clips()]
    again = [clip["waveform"] for clip in stream.clips()]

    kept = [ours is theirs for ours, theirs in zip(first, again, strict=True)]
    assert 0 < sum(each.nbytes for each, same in zip(first, kept, strict=True) if same) <= 0.2e6
    assert not all(kept)


def test_an_order_without_waveforms_reads_no_audio(table):
    rows = unlabeled(with_bad(table, 20))

    each = everything(ClipStream(rows), Order.of(rows, 10), waveforms=False)

    assert sum(len(batch.bad) for batch in each) == 0
    assert sum(int(batch.weight.sum()) for batch in each) == 50
