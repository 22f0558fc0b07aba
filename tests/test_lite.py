"""The `lite` model: the first layers of an encoder and a linear trunk, stored in half precision."""

from __future__ import annotations

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForAudioClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
    pipeline,
)

import audio_emotion
from audio_emotion import FusedEmotionForAudioClassification
from audio_emotion.hub.checkpoint import write_checkpoint

EMOTIONS = ["angry", "happy", "sad"]
SIZES = {"d_model": 16, "encoder_layers": 4, "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "init_std": 0.2}
DECODER = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 24, "vocab_size": 32}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
LITE = {
    "layer_fusion": "concatenate",
    "projection_size": 0,
    "frames_per_step": 4,
    "trunk": "linear",
    "look_ahead": 0,
} | {
    "hidden_size": 12,
    "embedding_size": 10,
    "pooling": "attentive",
    "pooling_heads": 4,
}


@pytest.fixture(scope="module")
def whisper(tmp_path_factory) -> str:
    """Folder of a tiny Whisper with four layers."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoders") / "tiny-whisper"
    WhisperModel(WhisperConfig(**SIZES, **DECODER, **TOKENS, max_source_positions=100)).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def lite(whisper) -> FusedEmotionForAudioClassification:
    torch.manual_seed(1)
    model = FusedEmotionForAudioClassification.from_encoders([whisper], {whisper: [1, 2]}, emotions=EMOTIONS, **LITE)
    return model.eval()


@torch.no_grad()
def test_lite_uses_the_states_of_two_layers_of_the_whole_encoder(lite, whisper, speech):
    whole = FusedEmotionForAudioClassification.from_encoders([whisper], emotions=EMOTIONS, **LITE).eval()
    waveform = torch.tensor(speech)[None]

    (states,), _ = lite.teacher.encode(waveform)

    assert len(lite.teacher.streams[0].encoder.layers) == 2
    torch.testing.assert_close(states, whole.teacher.encode(waveform)[0][0][:, 1:3])


@torch.no_grad()
def test_padding_and_batching_do_not_change_the_outputs(lite, speech):
    waveform, mask = torch.zeros(3, 32000), torch.zeros(3, 32000).long()
    for row, length in enumerate([32000, 17000, 4000]):
        waveform[row, :length], mask[row, :length] = torch.tensor(speech[:length]), 1

    batch = lite(waveform, mask, output_frames=True)

    for row, length in enumerate([32000, 17000, 4000]):
        alone = lite(waveform[row : row + 1, :length], output_frames=True)
        for name in ("logits", "dimensions", "embedding"):
            torch.testing.assert_close(batch[name][row], alone[name][0], atol=1e-4, rtol=0)
        steps = int(alone.frame_mask.sum())
        torch.testing.assert_close(batch.frame_logits[row, :steps], alone.frame_logits[0], atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_checkpoint_in_half_precision_is_loaded_in_float32_with_positions_by_their_formula(lite, speech, tmp_path):
    lite.teacher.streams[0].layer_mix.mean += 0.123456789
    waveform = torch.tensor(speech)[None]
    expected = lite(waveform)

    write_checkpoint(lite, tmp_path, half_precision=True)
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path).eval()

    stored = load_file(tmp_path / "model.safetensors")
    exact = {name for name, tensor in stored.items() if tensor.dtype != torch.float16}
    assert exact == {f"teacher.streams.0.layer_mix.{name}" for name in ("mean", "deviation")}
    assert not any("embed_positions" in name for name in stored)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(loaded(waveform).logits, expected.logits, atol=0.01, rtol=0)
    torch.testing.assert_close(AutoModel.from_pretrained(tmp_path)(waveform).embedding, loaded(waveform).embedding)
    positions = [each.teacher.streams[0].encoder.embed_positions.weight for each in (lite, loaded)]
    torch.testing.assert_close(*positions, atol=1e-6, rtol=0)
    assert pipeline("audio-emotion", model=str(tmp_path), device="cpu").model.dtype == torch.float32


def test_positions_in_a_checkpoint_are_kept(lite, tmp_path):
    with torch.no_grad():
        lite.teacher.streams[0].encoder.embed_positions.weight += 0.5

    write_checkpoint(lite, tmp_path)
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path)

    positions = [each.teacher.streams[0].encoder.embed_positions.weight for each in (lite, loaded)]
    assert torch.equal(*positions)


def test_any_other_weight_that_is_missing_is_an_error(lite, tmp_path):
    write_checkpoint(lite, tmp_path, half_precision=True)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["teacher.streams.0.encoder.layers.1.fc1.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ValueError, match=r"layers\.1\.fc1\.weight"):
        AutoModelForAudioClassification.from_pretrained(tmp_path)


def test_a_weight_beyond_half_precision_is_an_error(lite, tmp_path):
    with torch.no_grad():
        lite.heads.emotions.weight[0, 0] = 1e6

    with pytest.raises(ValueError, match=r"heads\.emotions\.weight"):
        write_checkpoint(lite, tmp_path, half_precision=True)


def test_several_streams_need_a_projection(whisper):
    with pytest.raises(StrictDataclassClassValidationError, match="`projection_size` 0 needs a single stream"):
        FusedEmotionForAudioClassification.from_encoders([whisper, "log-mel"], emotions=EMOTIONS, **LITE)


@torch.no_grad()
def test_the_default_model_is_lite_and_the_student_has_a_name(speech):
    waveform = torch.tensor(speech)[None]

    default = pipeline("audio-emotion", device="cpu").model
    student = pipeline("audio-emotion", model=audio_emotion.STUDENT, device="cpu").model

    assert default.config.model_type == "fused-emotion"
    assert student.config.model_type == "student-emotion"
    padded = torch.nn.functional.pad(waveform, (0, 16000)), torch.nn.functional.pad(torch.ones(1, 32000), (0, 16000))
    torch.testing.assert_close(default(*padded).logits, default(waveform).logits, atol=1e-4, rtol=0)
