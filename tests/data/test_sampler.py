"""The sampler: every clip once per epoch, for any number of processes, and the same after a resume."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from datasets import Dataset

from audio_emotion.data.sampler import ResumableSampler

SHARDS = np.repeat(np.arange(130), 9)  # 130 shards of 9 rows


def rows_of_processes(sampler: ResumableSampler, epoch: int = 0) -> list[np.ndarray]:
    """Rows of each process over an epoch."""
    return [
        np.concatenate([sampler.batch(epoch, step, process) for step in range(sampler.steps)])
        for process in range(sampler.num_processes)
    ]


@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shards", [None, SHARDS], ids=["files", "shards"])
def test_every_clip_occurs_once_and_the_processes_have_equal_parts(ranks, workers, shards):
    sampler = ResumableSampler(1170, 4 * ranks, 3, True, ranks, workers, shards)

    each = rows_of_processes(sampler)

    np.testing.assert_array_equal(np.sort(np.concatenate(each)), np.arange(1170))
    lengths = [len(rows) for rows in each]
    assert min(lengths) >= 1170 // ranks - max(workers, 1)
    assert max(lengths) - min(lengths) <= max(workers, 1)


@pytest.mark.parametrize("shards", [None, SHARDS], ids=["files", "shards"])
def test_epochs_differ_and_an_epoch_is_reproducible(shards):
    sampler, again = (ResumableSampler(1170, 8, 3, True, 2, 2, shards) for _ in range(2))

    assert not np.array_equal(sampler.epoch(0), sampler.epoch(1))
    np.testing.assert_array_equal(sampler.batch(5, 17, 1), again.batch(5, 17, 1))
    assert not np.array_equal(sampler.epoch(0), ResumableSampler(1170, 8, 4, True, 2, 2, shards).epoch(0))


def test_the_global_batch_of_two_processes_is_that_of_one():
    one, two = ResumableSampler(50, 8, 1, True), ResumableSampler(50, 8, 1, True, num_processes=2)

    for step in range(one.steps):
        together = np.concatenate([two.batch(0, step, process) for process in range(2)])
        assert set(together) == set(one.batch(0, step, 0))


def test_a_worker_reads_each_of_its_shards_once():
    sampler = ResumableSampler(1170, 8, 0, True, num_processes=2, num_workers=2, shards=SHARDS)

    for process in range(2):
        for worker in range(2):
            steps = range(worker, sampler.steps, 2)
            shards = SHARDS[np.concatenate([sampler.batch(0, step, process) for step in steps])]
            changes = int((np.diff(shards) != 0).sum())
            assert changes == len(set(shards)) - 1


def test_rows_within_a_shard_and_the_shards_themselves_are_permuted():
    rows = ResumableSampler(1170, 8, 0, True, shards=SHARDS).epoch(0)

    first = rows[:9]
    assert len(set(SHARDS[first])) == 1
    assert list(first) != sorted(first)
    assert list(SHARDS[rows[::9]]) != sorted(SHARDS[rows[::9]])


def test_more_readers_than_shards_are_an_error_with_a_remedy():
    with pytest.raises(ValueError, match=r"130 shards for 66 processes of 2 reading worker.*--shard_mb"):
        ResumableSampler(1170, 66, num_processes=66, num_workers=2, shards=SHARDS)
    with pytest.raises(ValueError, match="multiple of the 3 processes"):
        ResumableSampler(10, 8, num_processes=3)


def test_corpora_are_sampled_by_their_weights_and_each_clip_equally_often():
    corpora = np.repeat([0, 1, 2], [100, 40, 60])
    sampler = ResumableSampler(200, 10, 7, True, groups=corpora, weights=(0.5, 2.5, 1.0))

    epochs = [sampler.epoch(number) for number in range(2)]

    for rows in epochs:
        counts = np.bincount(rows, minlength=200)
        assert [counts[corpora == number].sum() for number in range(3)] == [50, 100, 60]
        assert set(counts[corpora == 0]) == {0, 1}
        assert set(counts[corpora == 1]) == {2, 3}
        assert set(counts[corpora == 2]) == {1}
    assert set(epochs[0][corpora[epochs[0]] == 0]) != set(epochs[1][corpora[epochs[1]] == 0])
    assert sampler.steps == 21


def test_sampling_weights_of_labeled_clips_multiply_those_of_corpora():
    labeled = np.arange(20) < 4
    sampler = ResumableSampler(20, 8, seed=3, shuffle=True)

    rows = sampler.with_sampling_weights(labeled, [1.0, 5.0]).epoch(0)

    assert sorted(rows.tolist()) == sorted([*range(20), *[0, 1, 2, 3] * 4])
    assert sorted(sampler.with_sampling_weights(labeled, [0.0, 2.0]).epoch(0).tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    corpora = np.array([0] * 10 + [1] * 10)
    mixed = ResumableSampler(20, 8, seed=3, shuffle=True, groups=corpora, weights=[1.0, 0.5])
    rows = mixed.with_sampling_weights(labeled, [1.0, 2.0]).epoch(0)
    assert np.bincount(rows, minlength=20)[:10].tolist() == [2] * 4 + [1] * 6
    assert (rows >= 10).sum() == 5


def test_balanced_classes_are_sampled_equally_often():
    classes = np.array([0] * 60 + [1] * 20 + [-100] * 30 + [3] * 10)  # no clip of class 2
    sampler = ResumableSampler(120, 10, seed=3, shuffle=True)

    balanced = sampler.with_balanced_classes(classes)

    rows = balanced.epoch(0)
    assert [int((classes[rows] == number).sum()) for number in (0, 1, 3, -100)] == [30, 30, 30, 30]
    assert np.bincount(rows, minlength=120)[60:80].tolist().count(1) == 10  # 1.5 times each of class 1
    assert balanced.steps == sampler.steps
    unlabeled = sampler.with_balanced_classes(np.full(120, -100)).epoch(0)
    assert sorted(unlabeled.tolist()) == list(range(120))


@pytest.mark.parametrize("processes", [1, 24, 48, 200])
@pytest.mark.parametrize("shards", [[None] * 100, [number // 10 for number in range(100)]], ids=["files", "shards"])
def test_predictions_are_divided_among_any_number_of_processes(processes, shards):
    table = Dataset.from_dict({"shard": shards})
    sampler = ResumableSampler.in_order(table, 32, processes)

    each = rows_of_processes(sampler)

    assert sampler.batch_size % processes == 0
    assert sorted(np.concatenate(each).tolist()) == list(range(100))


def test_a_batch_without_clips_is_refused_with_a_size_that_fits():
    with pytest.raises(ValueError, match=r"multiple of the 48 processes.*got 32\. Pass 48"):
        ResumableSampler(100, 32, num_processes=48)
    with pytest.raises(ValueError, match=r"got 0\. Pass 1"):
        ResumableSampler(100, 0)


def test_balanced_emotions_occur_equally_often_in_each_corpus():
    emotions = [*["happy"] * 30, *["sad"] * 10, *["happy"] * 2, *["angry"] * 18]
    speakers = [*["large/1"] * 40, *["small/1"] * 20]
    table = Dataset.from_dict({"speaker": speakers, "emotion": emotions, "shard": [None] * 60})

    classes = np.array([["angry", "happy", "sad"].index(emotion) for emotion in emotions])
    sampler = ResumableSampler.from_table(table, 10, {"small": 0.5}, shuffle=True).with_balanced_classes(classes)

    drawn = Counter((speakers[row], emotions[row]) for row in sampler.epoch(0))
    assert drawn == {
        ("large/1", "happy"): 20,
        ("large/1", "sad"): 20,
        ("small/1", "happy"): 5,
        ("small/1", "angry"): 5,
    }
