"""Augmented frames that are kept: the clean clip is its own frames, every version keeps what it was."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from audio_emotion.data.augmentation import AugmentationStrengths
from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.registry import corpus_table
from audio_emotion.layers import LogMel
from audio_emotion.training.feature_cache import AugmentedFrames

ALWAYS = AugmentationStrengths(1.0, reverberation_probability=1.0, noise_probability=1.0, gain_probability=1.0)
BAD = "synthetic/bad"


@pytest.fixture
def table() -> Dataset:
    """One clip that is no audio, and thirty good ones."""
    good = corpus_table("synthetic", count=30)
    bad = {**good[0], "id": BAD, "audio": {"bytes": b"no sound at all", "path": None}}
    return Dataset.from_list([bad, *good], features=good.features)


def frames(tmp_path, table, **options) -> AugmentedFrames:
    kept = AugmentedFrames(tmp_path, LogMel(40, 16000), options.get("strengths", ALWAYS), options.get("versions", 3))
    kept.fill(ClipStream(table))
    return kept


def test_the_first_version_is_what_a_student_makes_of_the_clean_waveform(tmp_path, table, tiny_student):
    kept = AugmentedFrames(tmp_path, tiny_student.student.log_mel, ALWAYS, 3)
    kept.fill(ClipStream(table))
    clips = list(ClipStream(table).clips())[:4]

    ours, lengths = tiny_student.student.features_of_frames(*kept.batch([clip["id"] for clip in clips], epoch=3))

    for row, length, clip in zip(ours, lengths, clips, strict=True):
        expected, count = tiny_student.student.features(torch.as_tensor(clip["waveform"])[None], None)
        assert length == count
        torch.testing.assert_close(row[:length], expected[0], atol=0.02, rtol=0)  # kept in half precision
        assert not row[length:].any()


def test_versions_differ_from_each_other_and_stay_what_they_were(tmp_path, table):
    name = table[1]["id"]
    kept = frames(tmp_path, table)
    again = frames(tmp_path, table)
    alone = frames(tmp_path / "elsewhere", table)

    versions = [kept.tensor(name, number) for number in range(3)]
    assert not torch.equal(versions[1][:20], versions[2][:20])
    assert not torch.equal(versions[0][:20], versions[1][:20])
    for number, version in enumerate(versions):
        assert torch.equal(version, again.tensor(name, number))
        assert torch.equal(version, alone.tensor(name, number))


def test_a_bad_clip_is_named_and_has_no_frames(tmp_path, table):
    stream = ClipStream(table)
    kept = AugmentedFrames(tmp_path, LogMel(40, 16000), ALWAYS, 2)
    kept.fill(stream)

    assert set(stream.quarantine) == {BAD}
    assert BAD not in kept
    assert len(kept.shard_of) == 30


@pytest.mark.parametrize(
    "other", [{"versions": 2}, {"strengths": AugmentationStrengths(noise_probability=0.1)}], ids=["versions", "noise"]
)
def test_another_augmentation_is_kept_apart(tmp_path, table, other):
    assert frames(tmp_path, table).folder != frames(tmp_path, table, **other).folder
