"""Cached encoder states: what the model would have computed, and an encoder runs once however many teachers use it."""

from __future__ import annotations

import pytest
import torch

from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.registry import corpus_table
from audio_emotion.encoders import EncoderStream
from audio_emotion.modeling_fused_emotion import FusedEmotionForAudioClassification
from audio_emotion.training.feature_cache import EncoderStates


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
def test_a_batch_from_the_cache_is_judged_as_the_same_clips_are(tmp_path, encoder, clips, frames_per_step):
    model = teacher(encoder, "log-mel", frames_per_step=frames_per_step)
    cache = EncoderStates(tmp_path, model)
    cache.fill(clips)
    heard = list(clips.clips())

    states, lengths = cache.batch([clip["id"] for clip in heard])
    batched = model(states=states, lengths=lengths)

    for row, clip in enumerate(heard):
        alone = model(torch.as_tensor(clip["waveform"])[None])
        torch.testing.assert_close(batched.dimensions[row], alone.dimensions[0], atol=2e-3, rtol=0)  # half precision
        assert lengths[row] == alone.frame_mask.sum()


def test_another_teacher_with_the_same_encoder_does_not_run_it_again(tmp_path, encoder, clips, monkeypatch):
    EncoderStates(tmp_path, teacher(encoder, "log-mel")).fill(clips)
    other = teacher("log-mel", encoder, fusion="gate")
    other.teacher.streams[0].log_mel.mean += 1.0  # of other training clips
    monkeypatch.setattr(EncoderStream, "encode", lambda *_: pytest.fail("the encoder ran again"))

    cache = EncoderStates(tmp_path, other)
    cache.fill(clips)

    assert clips.table[0]["id"] in cache
    assert len(list(tmp_path.iterdir())) == 3  # one encoder, two log-mel front ends


def test_encoders_of_other_weights_have_caches_of_their_own(tmp_path, encoder):
    model, tuned = teacher(encoder), teacher(encoder)
    with torch.no_grad():
        next(tuned.teacher.streams[0].encoder.parameters()).add_(0.1)

    one, other = (EncoderStates(tmp_path, each).caches[0].folder for each in (model, tuned))

    assert one != other
