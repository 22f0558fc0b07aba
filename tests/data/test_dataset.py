"""Clips from files, tables and shards; quarantine of bad ones; batches that do not depend on the workers."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from datasets import Dataset

from audio_emotion.audio_io import read_audio
from audio_emotion.data.dataset import ClipReader, ClipStream, TooManyBadClipsError, batches
from audio_emotion.data.registry import corpus_table
from audio_emotion.data.sampler import ResumableSampler
from audio_emotion.data.shards import read_shard, read_videos

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


def all_batches(stream: ClipStream, sampler: ResumableSampler, **options) -> list:
    return list(batches(stream, sampler, EMOTIONS, DIMENSIONS, **options))


def unlabeled(table: Dataset) -> Dataset:
    return table.map(lambda row: {"emotion": None}, features=table.features)


def test_clips_in_shards_have_the_waveforms_of_the_table(table, shards):
    rows, files = shards

    for ours, theirs in zip(ClipStream(rows, files).clips(), ClipStream(table).clips(), strict=True):
        assert ours["id"] == theirs["id"]
        np.testing.assert_array_equal(ours["waveform"], theirs["waveform"])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_after_a_resume_are_those_of_an_uninterrupted_run(shards, workers):
    rows, files = unlabeled(shards[0]), shards[1]
    sampler = ResumableSampler.from_table(rows, 4, seed=5, shuffle=True, num_workers=workers)

    whole = all_batches(ClipStream(rows, files), sampler, epochs=2)
    rest = all_batches(ClipStream(rows, files), sampler, epochs=2, first=5)

    assert len(whole) == 2 * sampler.steps
    for ours, theirs in zip(rest, whole[5:], strict=True):
        assert ours.ids == theirs.ids
        assert torch.equal(ours.input_values, theirs.input_values)
        assert torch.equal(ours.weight, theirs.weight)


def test_workers_leave_the_default_generator_untouched(table):
    rows = unlabeled(table)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)

    all_batches(ClipStream(rows), ResumableSampler.from_table(rows, 10, shuffle=True, num_workers=2))

    assert torch.equal(torch.rand(1), expected)


def test_a_bad_clip_is_dropped_and_every_other_clip_occurs_once(table):
    rows = unlabeled(with_bad(table, 1))
    stream = ClipStream(rows)

    each = all_batches(stream, ResumableSampler.from_table(rows, 4, seed=1, shuffle=True))

    named = [name for batch in each for name, weight in zip(batch.ids, batch.weight, strict=True) if weight]
    assert sorted(named) == sorted(table["id"])
    assert set(stream.quarantine) == {"bad-0"}


def test_too_many_bad_clips_stop_the_run_and_one_is_named(table):
    rows = unlabeled(with_bad(table, 4))

    with pytest.raises(TooManyBadClipsError, match=r"of 34 clips are bad, more than 5%.*bad-\d"):
        all_batches(ClipStream(rows), ResumableSampler.from_table(rows, 4))


def test_decoded_clips_in_memory_stay_below_the_limit(table):
    stream = ClipStream(table, memory=0.2)

    first = [clip["waveform"] for clip in stream.clips()]
    again = [clip["waveform"] for clip in stream.clips()]

    kept = [ours is theirs for ours, theirs in zip(first, again, strict=True)]
    assert 0 < sum(each.nbytes for each, same in zip(first, kept, strict=True) if same) <= 0.2e6
    assert not all(kept)


def test_batches_without_waveforms_read_no_audio(table):
    rows = unlabeled(with_bad(table, 20))

    each = all_batches(ClipStream(rows), ResumableSampler.from_table(rows, 10), waveforms=False)

    assert sum(len(batch.bad) for batch in each) == 0
    assert sum(int(batch.weight.sum()) for batch in each) == 50


def wav(samples: np.ndarray, rate: int = 16000) -> bytes:
    """A file of 32-bit floats; a rate of 100 Hz, which libsndfile does not write, is put into the header."""
    content = io.BytesIO()
    soundfile.write(content, samples, 16000, format="WAV", subtype="FLOAT")
    header = content.getvalue()
    return header[:24] + struct.pack("<I", rate) + header[28:]


def result_of(read: Callable, source: Any) -> np.ndarray | str:
    """A waveform, or the message of the error."""
    try:
        return read(source)
    except ValueError as error:
        return str(error)


SINE = 0.5 * np.sin(np.arange(12000) / 10)  # 0.75 s


@pytest.mark.parametrize(
    "content",
    [
        wav(SINE),
        wav(np.stack([SINE, -SINE], axis=1)),  # their mean is silence
        wav(np.stack([SINE, 0.1 * SINE], axis=1)),
        wav(1e25 * SINE),  # finite, but its power is not
        wav(SINE, rate=100),  # two minutes by its header
        wav(SINE[:3000]),
        b"no sound at all",
    ],
    ids=["mono", "anti-phase", "stereo", "1e25", "100 Hz", "short", "text"],
)
def test_training_reads_a_clip_as_the_pipeline_does(table, content, tmp_path):
    (tmp_path / "clip.wav").write_bytes(content)
    files = [{"bytes": content, "path": "clip.wav"}, {"bytes": None, "path": str(tmp_path / "clip.wav")}]
    rows = Dataset.from_list([{**table[0], "audio": file} for file in files], features=table.features)

    for index, file in enumerate(files):
        training = result_of(lambda index: ClipReader(rows).row(index)["waveform"], index)
        np.testing.assert_array_equal(training, result_of(lambda file: read_audio(file).waveform, file))


def test_a_path_in_a_shard_opens_no_file(table, tmp_path):
    (tmp_path / "secret.wav").write_bytes(wav(SINE))
    place = {"bytes": None, "path": str(tmp_path / "secret.wav")}
    embedded = {"bytes": wav(SINE), "path": "clip.wav"}
    shard = str(tmp_path / "part.parquet")
    pq.write_table(pa.Table.from_pylist([{"audio": each, "video": each} for each in (place, embedded)]), shard)
    rows = Dataset.from_list([{**table[0], "audio": None, "shard": 0, "row": 0}], features=table.features)

    with pytest.raises(ValueError, match="expected the content of the file in the shard, got only a path"):
        ClipReader(rows, [shard]).row(0)
    for clips, column in ((read_shard(shard), "audio"), (read_videos(shard), "video")):
        assert [clip[column] for clip in clips] == [{"bytes": None, "path": None}, embedded]
