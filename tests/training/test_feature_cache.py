"""Caches: encoder states equal those of the model and are computed once; augmented frames do not change."""

from __future__ import annotations

import random
import shutil
import zlib

import pytest
import torch
from datasets import Dataset

from audio_emotion.data.augmentation import AugmentationStrengths, WaveformAugmentation
from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.registry import corpus_table
from audio_emotion.encoders import EncoderStream
from audio_emotion.log_mel import LogMel, stack_frames
from audio_emotion.modeling_fused_emotion import FusedEmotionForAudioClassification
from audio_emotion.training.feature_cache import AugmentedFrameCache, EncoderStateCache, TensorCache

ALWAYS = AugmentationStrengths(1.0, reverberation_probability=1.0, noise_probability=1.0, gain_probability=1.0)
BAD = "synthetic/bad"


@pytest.fixture
def encoder(tiny_encoders) -> str:
    return tiny_encoders[0]


@pytest.fixture(scope="module")
def clips() -> ClipStream:
    return ClipStream(corpus_table("synthetic", count=6))


def teacher(*sources: str, **fields) -> FusedEmotionForAudioClassification:
    torch.manual_seed(1)
    sizes = {"projection_size": 8, "convolution_size": 8, "hidden_size": 12, "embedding_size": 10}
    return FusedEmotionForAudioClassification.from_encoders(list(sources), emotions=["calm"], **sizes, **fields).eval()


@pytest.mark.parametrize("frames_per_step", [1, 3])
@torch.no_grad()
def test_predictions_from_cached_states_equal_those_from_waveforms(tmp_path, encoder, clips, frames_per_step):
    model = teacher(encoder, "log-mel", frames_per_step=frames_per_step)
    cache = EncoderStateCache(tmp_path, model)
    cache.fill(clips)
    decoded = list(clips.clips())

    states, lengths = cache.batch([clip["id"] for clip in decoded])
    batched = model(features=states, lengths=lengths)

    for row, clip in enumerate(decoded):
        alone = model(torch.as_tensor(clip["waveform"])[None])
        torch.testing.assert_close(batched.dimensions[row], alone.dimensions[0], atol=2e-3, rtol=0)  # half precision
        assert lengths[row] == alone.frame_mask.sum()


def test_another_teacher_with_the_same_encoder_does_not_run_it_again(tmp_path, encoder, clips, monkeypatch):
    EncoderStateCache(tmp_path, teacher(encoder, "log-mel")).fill(clips)
    other = teacher("log-mel", encoder, fusion="gate")
    other.teacher.streams[0].log_mel.mean += 1.0  # of other training clips
    monkeypatch.setattr(EncoderStream, "encode", lambda *_: pytest.fail("the encoder ran again"))

    cache = EncoderStateCache(tmp_path, other)
    cache.fill(clips)

    assert clips.table[0]["id"] in cache
    assert len(list(tmp_path.iterdir())) == 3  # one encoder, two log-mel front ends


def test_encoders_with_different_weights_have_different_caches(tmp_path, encoder):
    model, tuned = teacher(encoder), teacher(encoder)
    with torch.no_grad():
        next(tuned.teacher.streams[0].encoder.parameters()).add_(0.1)

    one, other = (EncoderStateCache(tmp_path, each).caches[0].folder for each in (model, tuned))

    assert one != other


@pytest.fixture
def table() -> Dataset:
    """One clip that is not audio, and thirty good ones."""
    good = corpus_table("synthetic", count=30)
    bad = {**good[0], "id": BAD, "audio": {"bytes": b"not audio", "path": None}}
    return Dataset.from_list([bad, *good], features=good.features)


def frame_cache(folder, table, strengths=ALWAYS, versions=3) -> AugmentedFrameCache:
    cache = AugmentedFrameCache(folder, LogMel(40, 16000), strengths, versions)
    cache.fill(ClipStream(table))
    return cache


def test_the_first_version_is_the_features_of_the_clean_waveform(tmp_path, table, tiny_student):
    cache = AugmentedFrameCache(tmp_path, tiny_student.student.log_mel, ALWAYS, 3)
    cache.fill(ClipStream(table))
    clips = list(ClipStream(table).clips())[:4]

    frames, lengths = cache.batch([clip["id"] for clip in clips], epoch=3)
    per_step = tiny_student.config.frames_per_step
    features, lengths = stack_frames(tiny_student.student.log_mel.normalize(frames, lengths), lengths, per_step)

    for row, length, clip in zip(features, lengths, clips, strict=True):
        expected, count = tiny_student.student.encode(torch.as_tensor(clip["waveform"])[None], None)
        assert length == count
        torch.testing.assert_close(row[:length], expected[0], atol=0.02, rtol=0)  # half precision
        assert not row[length:].any()


def test_versions_differ_from_each_other_and_do_not_change(tmp_path, table):
    name = table[1]["id"]
    cache = frame_cache(tmp_path, table)
    again = frame_cache(tmp_path, table)
    computed_again = frame_cache(tmp_path / "elsewhere", table)

    versions = [cache.tensor(name, number) for number in range(3)]
    assert not torch.equal(versions[1][:20], versions[2][:20])
    assert not torch.equal(versions[0][:20], versions[1][:20])
    for number, version in enumerate(versions):
        assert torch.equal(version, again.tensor(name, number))
        assert torch.equal(version, computed_again.tensor(name, number))


def test_a_bad_clip_is_quarantined_and_not_cached(tmp_path, table):
    stream = ClipStream(table)
    cache = AugmentedFrameCache(tmp_path, LogMel(40, 16000), ALWAYS, 2)
    cache.fill(stream)

    assert set(stream.quarantine) == {BAD}
    assert BAD not in cache
    assert len(cache.file_of) == 30


@pytest.mark.parametrize(
    "other", [{"versions": 2}, {"strengths": AugmentationStrengths(noise_probability=0.1)}], ids=["versions", "noise"]
)
def test_another_augmentation_has_another_cache(tmp_path, table, other):
    assert frame_cache(tmp_path, table).folder != frame_cache(tmp_path, table, **other).folder


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory) -> AugmentedFrameCache:
    return frame_cache(tmp_path_factory.mktemp("undamaged"), corpus_table("synthetic", count=10))


@pytest.mark.parametrize("place", range(20))
def test_a_damaged_file_is_an_error_that_names_it(place, undamaged, tmp_path):
    table = corpus_table("synthetic", count=10)
    shutil.copytree(undamaged.folder, tmp_path / undamaged.folder.name)
    file = next((tmp_path / undamaged.folder.name).iterdir())
    content, where = bytearray(file.read_bytes()), random.Random(place)
    if place % 4 == 0:
        content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    elif place % 4 == 1:
        del content[where.randrange(len(content)) :]
    else:
        content[where.randrange(len(content))] ^= 1 << where.randrange(8)
    file.write_bytes(content)

    with pytest.raises(ValueError, match=rf"{file.name}.*Delete"):
        frame_cache(tmp_path, table).batch(table["id"], epoch=0)

    if place == 0:
        file.unlink()
        again = frame_cache(tmp_path, table)
        assert all(torch.equal(again.tensor(name, 1), undamaged.tensor(name, 1)) for name in table["id"])


def test_states_beyond_half_precision_are_cached_as_its_largest_number(tmp_path, table):
    cache = TensorCache(tmp_path / "states", 1)

    cache.compute(ClipStream(table), lambda waveform, name: [torch.tensor([7e4, -7e4, 1.0])], "encoding")

    assert cache.tensor(table[1]["id"], 0).tolist() == [65504.0, -65504.0, 1.0]


@torch.no_grad()
def test_an_augmented_version_has_the_states_of_its_waveform_in_a_cache_of_its_own(tmp_path, encoder, clips):
    model = teacher(encoder)
    clean, *versions = (
        EncoderStateCache(tmp_path, model),
        *(EncoderStateCache(tmp_path, model, ALWAYS, version) for version in (1, 2)),
    )
    for cache in (clean, *versions):
        cache.fill(clips)
    clip = next(iter(clips.clips()))
    seed = zlib.crc32(f"1/{clip['id']}".encode())

    augmented = WaveformAugmentation(ALWAYS)(torch.as_tensor(clip["waveform"]), seed)

    expected, _ = model.teacher.encode(augmented[None])
    torch.testing.assert_close(versions[0][clip["id"]][0].float(), expected[0][0], atol=2e-2, rtol=2e-3)
    assert len({each.caches[0].folder for each in (clean, *versions)}) == 3
