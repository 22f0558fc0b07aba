"""The distance of a clip from the training clips: formula, checkpoint, graph, and the flags that follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from transformers import pipeline

from audio_emotion import StudentEmotionConfig, StudentEmotionForAudioClassification
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.hub.onnx_export import export_onnx
from audio_emotion.runtime import EmotionRuntime
from audio_emotion.training.embedding_distance import distances, fit_distance, moments

SIZES = {"num_mel_bins": 12, "convolution_size": 6, "hidden_size": 10, "embedding_size": 8}


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = StudentEmotionConfig(emotions=["angry", "neutral", "sad"], level="relative", **SIZES)
    return StudentEmotionForAudioClassification(config).eval()


def test_distances_are_those_of_scipy_and_the_limit_is_their_quantile(model):
    random = np.random.default_rng(0)
    training, held_out = (random.normal(size=(300, 8)) @ random.normal(size=(8, 8)) for _ in range(2))
    mean, covariance = moments(training)
    inverse = np.linalg.inv(covariance)
    expected = [mahalanobis(each, mean, inverse) for each in held_out]
    np.testing.assert_allclose(distances(held_out, mean, covariance), expected, rtol=1e-8)

    limit = fit_distance(model, training, held_out)
    assert limit == pytest.approx(np.quantile(expected, 0.99))
    found = model.heads.training_distance(torch.from_numpy(held_out).float())
    np.testing.assert_allclose(found.numpy(), np.array(expected) / limit, rtol=1e-3)
    assert (found > 1).float().mean() == pytest.approx(0.01, abs=0.004)
    assert fit_distance(model, training, ratio=1.5) == pytest.approx(
        1.5 * np.quantile(distances(training, mean, covariance), 0.99)
    )


@torch.no_grad()
def test_a_clip_unlike_the_training_clips_is_flagged_by_pipeline_runtime_and_streams(model, tmp_path, speech):
    part = speech[:16_000]
    clips = [torch.from_numpy(part * (1 + 0.02 * place)).float()[None] for place in range(12)]
    embeddings = np.concatenate([model(clip).embedding.numpy() for clip in clips])
    random = np.random.default_rng(0)
    spread = np.repeat(embeddings, 20, axis=0) + random.normal(0, 0.02, (240, 8))
    fit_distance(model, spread)
    write_checkpoint(model, tmp_path)
    export_onnx(model, tmp_path / "onnx")
    recognizer, runtime = pipeline("audio-emotion", model=str(tmp_path), device="cpu"), EmotionRuntime(tmp_path)

    tone = (0.5 * np.sin(np.arange(32_000) / 3)).astype(np.float32)
    for predict in (recognizer, runtime):
        usual = predict({"array": part, "sampling_rate": 16_000})
        strange = predict({"array": tone, "sampling_rate": 16_000}, window=1.0)
        assert "unlike_training" not in usual["flags"]
        assert "unlike_training" in strange["flags"]
        assert all("unlike_training" in each["flags"] for each in strange["windows"])
        segments = predict({"array": tone, "sampling_rate": 16_000}, segments=[(0.0, 1.0, "a"), (5.0, 6.0, "b")])
        assert "unlike_training" in segments["segments"][0]["flags"]
        assert "error" in segments["segments"][1]
        assert "unlike_training" in predict.stream().feed(tone)["flags"]


def test_a_model_without_statistics_flags_nothing(model, tmp_path, speech):
    write_checkpoint(model, tmp_path)
    recognizer = pipeline("audio-emotion", model=str(tmp_path), device="cpu")
    assert recognizer.model(torch.from_numpy(speech)[None]).distance is None
    tone = np.sin(np.arange(32_000) / 3).astype(np.float32)
    assert "unlike_training" not in recognizer({"array": tone, "sampling_rate": 16_000})["flags"]


def test_abstaining_flags_what_is_less_probable_and_drops_nothing(model, tmp_path, speech):
    write_checkpoint(model, tmp_path)
    recognizer = pipeline("audio-emotion", model=str(tmp_path), device="cpu")
    clip = {"array": speech[:40_000], "sampling_rate": 16_000}
    plain = recognizer(clip, window=1.0)
    best = plain["emotions"][0]["score"]
    below, above = (recognizer(clip, window=1.0, abstain=each) for each in (best - 1e-4, best + 1e-4))
    assert below["flags"] == plain["flags"]
    assert above["flags"] == [*plain["flags"], "abstained"]
    assert above["emotions"] == plain["emotions"]
    for window in above["windows"]:
        assert ("abstained" in window["flags"]) == (window["emotions"][0]["score"] < best + 1e-4)
    for wrong in (-0.1, 1.1, "0.5", True):
        with pytest.raises(ValueError, match="abstain"):
            recognizer(clip, abstain=wrong)
