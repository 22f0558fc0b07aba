"""Fixtures: tiny models and synthetic speech."""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path

import numpy as np
import pytest

# Before torch: on AMX, bfloat16 outputs of the tiny random models differ from float32 by 0.05, not 0.02. Those of the
# default model differ by 0.02 there, too.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModel, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

from audio_emotion import (
    FusedEmotionConfig,
    FusedEmotionForAudioClassification,
    StudentEmotionConfig,
    StudentEmotionForAudioClassification,
)

sys.modules["silero_vad"] = None  # type: ignore[assignment] # flags must not depend on an optional package

EMOTIONS = ["neutral", "happy", "sad", "angry"]


def tiny_encoder_config() -> Wav2Vec2Config:
    # Layer norm in the feature extractor: with group norm, padding changes true frames.
    return Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        conv_dim=(8, 8, 8, 8),
        conv_kernel=(10, 8, 4, 4),
        conv_stride=(5, 4, 4, 4),
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )


@pytest.fixture(scope="session")
def tiny_encoders(tmp_path_factory) -> list[str]:
    """Folders of two encoders at 50 Hz that differ in their weights."""
    folders = []
    for seed, name in enumerate(["first", "second"]):
        torch.manual_seed(seed)
        folder = tmp_path_factory.mktemp("encoders") / name
        AutoModel.from_config(tiny_encoder_config()).save_pretrained(folder)
        Wav2Vec2FeatureExtractor().save_pretrained(folder)
        folders.append(str(folder))
    return folders


@pytest.fixture
def make_external_model():
    """Write a tiny wav2vec 2.0 classifier of transformers with random weights; returns its folder."""

    def make(folder: Path, names: list[str]) -> str:
        torch.manual_seed(0)
        config = Wav2Vec2Config(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=24,
            conv_dim=(8, 8),
            conv_kernel=(10, 8),
            conv_stride=(80, 8),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=8,
            num_conv_pos_embedding_groups=2,
            classifier_proj_size=8,
            id2label=dict(enumerate(names)),
            label2id={name: place for place, name in enumerate(names)},
        )
        Wav2Vec2ForSequenceClassification(config).save_pretrained(folder)
        Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)
        return str(folder)

    return make


@pytest.fixture
def tiny_student_config() -> StudentEmotionConfig:
    return StudentEmotionConfig(
        emotions=EMOTIONS,
        num_mel_bins=20,
        convolution_size=8,
        hidden_size=12,
        embedding_size=10,
        predict_variance=True,
    )


@pytest.fixture
def tiny_teacher_config() -> FusedEmotionConfig:
    encoder = tiny_encoder_config()
    stream = {
        "name": "tiny-wav2vec2",
        "kind": "encoder",
        "source": "tiny-wav2vec2",
        "revision": None,
        "config": {**encoder.to_diff_dict(), "model_type": encoder.model_type},
        "preprocessing": {"do_normalize": True, "sampling_rate": 16000},
        "frame_rate": 50.0,
        "layers": None,
        "one_at_a_time": False,
    }
    log_mel = {"name": "log-mel", "kind": "log-mel", "num_mel_bins": 20}
    return FusedEmotionConfig(
        streams=[stream, log_mel],
        emotions=EMOTIONS,
        projection_size=8,
        convolution_size=8,
        hidden_size=12,
        embedding_size=10,
    )


@pytest.fixture
def tiny_student(tiny_student_config) -> StudentEmotionForAudioClassification:
    torch.manual_seed(0)
    return StudentEmotionForAudioClassification(tiny_student_config).eval()


@pytest.fixture
def tiny_teacher(tiny_teacher_config) -> FusedEmotionForAudioClassification:
    torch.manual_seed(0)
    return FusedEmotionForAudioClassification(tiny_teacher_config).eval()


@pytest.fixture(params=["student", "teacher"])
def tiny_model(request):
    """Student and teacher."""
    return request.getfixturevalue(f"tiny_{request.param}")


class _WithoutFloat64(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, result)):
            assert not isinstance(value, torch.Tensor) or value.dtype not in (torch.float64, torch.complex128), func
        return result


@pytest.fixture
def without_float64():
    """A context that refuses every operation with a float64 tensor, which Apple's GPUs do not have."""
    return _WithoutFloat64()


@pytest.fixture(scope="session")
def _speech() -> np.ndarray:
    seconds = np.arange(2 * 16000) / 16000
    pitch = 120 + 30 * np.sin(2 * np.pi * 1.5 * seconds)  # hertz
    phase = 2 * np.pi * np.cumsum(pitch) / 16000
    voice = sum(np.sin(k * phase) / k for k in range(1, 20))
    syllables = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * seconds)
    breath = np.random.default_rng(0).normal(scale=0.01, size=seconds.shape)
    return (0.2 * voice * syllables + breath).astype(np.float32)


@pytest.fixture
def speech(_speech) -> np.ndarray:
    """Two seconds at 16 kHz, `(32000,)`: a gliding voice with four syllables a second, peaks at about 0.4."""
    return copy.copy(_speech)
