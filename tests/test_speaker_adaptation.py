"""Adaptation to a speaker: statistics of features from a few clips, common parameters, the pipeline."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import pipeline

from audio_emotion import EmotionFeatureExtractor
from audio_emotion.layer_fusion import LayerStatistics
from audio_emotion.log_mel import LogMel
from audio_emotion.speaker_adaptation import adapted_model, feature_statistics


def statistics_of(model: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    modules = [module for module in model.modules() if isinstance(module, (LogMel, LayerStatistics))]
    return [(module.mean.clone(), module.deviation.clone()) for module in modules]


@pytest.fixture
def clips(speech) -> list[dict[str, torch.Tensor]]:
    samples = torch.tensor(speech)
    return [{"input_values": each[None]} for each in (samples, samples.flip(0) * 0.5, samples[: len(samples) // 2])]


def test_features_of_the_clips_have_mean_0_and_standard_deviation_1_without_a_prior(tiny_model, clips):
    adapted = adapted_model(tiny_model, clips, prior=0)

    found = feature_statistics(adapted, clips)

    assert len(found) == len(statistics_of(tiny_model))
    for module, (mean, std) in found.items():
        torch.testing.assert_close(module.mean, mean)
        torch.testing.assert_close(module.deviation, std)


def test_as_many_clips_as_the_prior_are_half_of_the_statistics(tiny_model, clips):
    before, own = statistics_of(tiny_model), statistics_of(adapted_model(tiny_model, clips, prior=0))

    half = statistics_of(adapted_model(tiny_model, clips, prior=len(clips)))

    for training, speaker, found in zip(before, own, half, strict=True):
        torch.testing.assert_close(found[0], (training[0] + speaker[0]) / 2)
        torch.testing.assert_close(found[1], (training[1] + speaker[1]) / 2)


def test_the_model_keeps_its_statistics_and_both_have_the_same_parameters(tiny_model, clips):
    before = statistics_of(tiny_model)

    adapted = adapted_model(tiny_model, clips)

    for one, other in zip(before, statistics_of(tiny_model), strict=True):
        torch.testing.assert_close(one, other)
    pairs = list(zip(tiny_model.parameters(), adapted.parameters(), strict=True))
    assert pairs
    assert all(one is other for one, other in pairs)


def test_an_adapted_student_is_independent_of_the_level_of_the_recordings(tiny_student, speech):
    loud = torch.tensor(speech)[None]
    quiet = 0.1 * loud

    outputs = [
        adapted_model(tiny_student, [{"input_values": each}], prior=0)(input_values=each).logits
        for each in (loud, quiet)
    ]

    torch.testing.assert_close(outputs[0], outputs[1], atol=2e-2, rtol=0)  # 1e-6 is added to the power
    assert not torch.allclose(tiny_student(loud).logits, tiny_student(quiet).logits, atol=2e-2)


def test_an_adapted_pipeline_is_saved_and_loaded_with_its_statistics(tiny_model, speech, tmp_path):
    emotion = pipeline("audio-emotion", model=tiny_model, feature_extractor=EmotionFeatureExtractor())
    before = emotion((16000, speech))

    adapted = emotion.adapt([(16000, speech * 0.3), (16000, speech[::-1].copy())])
    adapted.save_pretrained(tmp_path)

    found = adapted((16000, speech))
    assert found != before
    assert emotion((16000, speech)) == before
    loaded = pipeline("audio-emotion", model=str(tmp_path))((16000, speech))
    assert {e["label"]: e["score"] for e in loaded["emotions"]} == pytest.approx(
        {e["label"]: e["score"] for e in found["emotions"]}, abs=1e-4
    )


def test_no_clips_and_a_negative_prior_are_refused(tiny_student, clips):
    emotion = pipeline("audio-emotion", model=tiny_student, feature_extractor=EmotionFeatureExtractor())

    with pytest.raises(ValueError, match="at least one clip"):
        emotion.adapt([])
    with pytest.raises(ValueError, match="prior"):
        adapted_model(tiny_student, clips, prior=-1)


def test_a_single_clip_is_the_same_as_a_list_of_it(tiny_student, speech):
    emotion = pipeline("audio-emotion", model=tiny_student, feature_extractor=EmotionFeatureExtractor())
    clip = (16000, speech)

    results = [emotion.adapt(clips)(clip) for clips in (clip, [clip], iter([clip]))]

    assert results[0] == results[1] == results[2] != emotion(clip)
