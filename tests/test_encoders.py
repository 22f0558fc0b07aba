"""Every encoder family is loaded in the same way, and padding, batching and saving do not change the outputs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    Data2VecAudioConfig,
    HubertConfig,
    PreTrainedConfig,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from audio_emotion.encoders import (
    load_encoder,
    normalize_waveform,
    resample_to_grid,
)
from audio_emotion.modeling_fused_emotion import FusedEmotionForAudioClassification
from audio_emotion.whisper_states import whisper_hidden_states, whisper_log_mel

TOLERANCE = 1e-4  # DESIGN: padding and batching change nothing, float32
# Weights ten times the default 0.02: with smaller ones, the leakage of padding would be below the tolerance.
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24} | {
    "initializer_range": 0.2
}
CONVOLUTIONS = {  # of stride 320 in all: 50 Hz
    "conv_dim": (8, 8, 8, 8),
    "conv_kernel": (10, 8, 4, 4),
    "conv_stride": (5, 4, 4, 4),
    "num_conv_pos_embedding_groups": 2,
}
STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
TEACHER = {"emotions": ["calm", "angry", "sad"], "projection_size": 8, "convolution_size": 8} | {
    "hidden_size": 12,
    "embedding_size": 10,
}
WHISPER = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24} | {
    "init_std": 0.2,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 24,
    "vocab_size": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}

# Each family, and whether its architecture lets padding into true frames.
FAMILIES: dict[str, tuple[PreTrainedConfig, bool]] = {
    "wav2vec2-layer": (Wav2Vec2Config(**SIZES, **CONVOLUTIONS, **STABLE, num_conv_pos_embeddings=8), False),
    "wav2vec2-group": (Wav2Vec2Config(**SIZES, **CONVOLUTIONS, num_conv_pos_embeddings=8), True),
    "hubert-layer": (HubertConfig(**SIZES, **CONVOLUTIONS, **STABLE, num_conv_pos_embeddings=8), False),
    "hubert-group": (HubertConfig(**SIZES, **CONVOLUTIONS, num_conv_pos_embeddings=8), True),
    "wavlm-layer": (WavLMConfig(**SIZES, **CONVOLUTIONS, **STABLE, num_conv_pos_embeddings=8, num_buckets=32), False),
    "data2vec-audio": (
        Data2VecAudioConfig(**SIZES, **CONVOLUTIONS, num_conv_pos_embeddings=2, conv_pos_kernel_size=5),
        True,
    ),
    "whisper": (WhisperConfig(**WHISPER, max_source_positions=100), False),  # chunks of 2 s
    "wav2vec2-bert": (Wav2Vec2BertConfig(**SIZES, feature_projection_input_dim=160), False),
    "wav2vec2-25-hz": (
        Wav2Vec2Config(
            **SIZES,
            **STABLE,
            conv_dim=(8, 8, 8, 8, 8),
            conv_kernel=(10, 8, 4, 4, 2),
            conv_stride=(5, 4, 4, 4, 2),
            num_conv_pos_embedding_groups=2,
            num_conv_pos_embeddings=8,
        ),
        False,
    ),
}
EXTRACTORS = {
    "whisper": WhisperFeatureExtractor(),
    "wav2vec2-bert": SeamlessM4TFeatureExtractor(),
}


@pytest.fixture(scope="session")
def encoder_folders(tmp_path_factory) -> dict[str, Path]:
    """A folder for each family, as on the Hub: weights, configuration and preprocessor configuration."""
    folders = {}
    for seed, (name, (config, _)) in enumerate(FAMILIES.items()):
        torch.manual_seed(seed)
        folders[name] = tmp_path_factory.mktemp("encoders") / name
        AutoModel.from_config(config).save_pretrained(folders[name])
        EXTRACTORS.get(name, Wav2Vec2FeatureExtractor(do_normalize=True)).save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="session")
def build(encoder_folders):
    """A teacher on the named families and log-mel."""

    def build_teacher(*families: str, **fields) -> FusedEmotionForAudioClassification:
        torch.manual_seed(0)
        sources = [str(encoder_folders[name]) for name in families]
        return FusedEmotionForAudioClassification.from_encoders([*sources, "log-mel"], **{**TEACHER, **fields}).eval()

    return build_teacher


def clips(*lengths: int) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Noise with a slow swell, of these lengths: alone, and as one padded batch with its mask."""
    generator = torch.Generator().manual_seed(1)
    alone = [0.1 * torch.randn(1, n, generator=generator) * (1 + torch.sin(torch.arange(n) / 3000)) for n in lengths]
    waveform, mask = torch.zeros(len(lengths), max(lengths)), torch.zeros(len(lengths), max(lengths)).long()
    for row, clip in enumerate(alone):
        waveform[row, : clip.shape[1]] = clip[0]
        mask[row, : clip.shape[1]] = 1
    return alone, waveform, mask


def furthest(one, other) -> float:
    """The largest difference between two outputs for a clip."""
    names = ("dimensions", "logits", "embedding")
    return max((getattr(one, name) - getattr(other, name)).abs().max().item() for name in names)


def rows(output, order: list[int]):
    """The output with its clips in another order."""
    return type(output)(**{name: output[name][order] for name in ("dimensions", "logits", "embedding")})


def without_gradient(parameters) -> set[str]:
    """Names of the trainable parameters without a gradient, or with one of zeros."""
    return {
        name for name, p in parameters if p.requires_grad and (p.grad is None or not p.grad.abs().max().item() > 0)
    }


def loss_of(model) -> torch.Tensor:
    """A loss with a gradient for every head."""
    _, waveform, mask = clips(16000, 12000, 14000)
    targets = torch.tensor([[0.1, 0.9, 0.4], [0.8, 0.2, 0.6], [0.4, 0.5, 0.9]])
    return model(waveform, mask, labels=torch.tensor([0, 2, 1]), dimension_labels=targets).loss


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_padding_and_batch_order_do_not_change_the_outputs(build, family):
    model = build(family)
    alone, waveform, mask = clips(9000, 20000, 16123, 4000)

    batched = model(waveform, mask)

    for row, clip in enumerate(alone):
        assert furthest(model(clip), rows(batched, [row])) < TOLERANCE
    order = [2, 0, 3, 1]
    assert furthest(model(waveform[order], mask[order]), rows(batched, order)) < TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_padding_does_not_change_a_batch_of_one(build, family):
    model = build(family)
    (clip,), _, _ = clips(9000)
    padded, mask = torch.nn.functional.pad(clip, (0, 5000)), torch.nn.functional.pad(torch.ones(1, 9000), (0, 5000))

    assert furthest(model(padded, mask), model(clip)) < TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_a_forward_and_a_backward_pass_need_no_float64(build, family, without_float64):
    model = build(family)

    with without_float64:
        loss_of(model).backward()


@pytest.mark.parametrize("family", FAMILIES)
def test_families_whose_outputs_padding_changes_are_detected(build, family):
    facts = build(family).config.streams[0]

    assert facts["one_at_a_time"] is FAMILIES[family][1]
    assert facts["frame_rate"] == (25.0 if family == "wav2vec2-25-hz" else 50.0)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_streams_are_aligned_on_the_50_hz_grid(build, family):
    model = build(family)
    _, waveform, mask = clips(32000, 20000)

    states, frames = model.teacher.streams[0].encode(waveform, mask)

    assert states.shape[1] == 3  # the input of the first layer and two layers
    assert states.shape[3] == 16
    assert abs(frames[0] - 100) <= 2
    assert abs(frames[1] - 62) <= 2
    assert states.shape[2] >= frames[0]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_saved_teacher_is_loaded_bit_for_bit(build, family, tmp_path):
    model = build(family)
    _, waveform, mask = clips(16000, 9000)
    model.save_pretrained(tmp_path)
    torch.manual_seed(99)

    again = FusedEmotionForAudioClassification.from_pretrained(tmp_path)

    assert not again.training
    assert again.config.streams == json.loads(json.dumps(model.config.streams))
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert furthest(again(waveform, mask), model(waveform, mask)) == 0


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_encoder_weights_are_those_of_the_file(build, encoder_folders, family):
    saved = load_file(encoder_folders[family] / "model.safetensors")
    held = build(family).teacher.streams[0].encoder.state_dict()
    sums = sorted(tensor.double().abs().sum().item() for tensor in held.values())
    expected = sorted(
        tensor.double().abs().sum().item() for name, tensor in saved.items() if not name.startswith("decoder.")
    )

    np.testing.assert_allclose(sums, expected, rtol=1e-6)


@torch.no_grad()
def test_padding_does_not_change_the_outputs_of_two_encoders_and_the_filterbank(build, tmp_path):
    model = build("wav2vec2-group", "whisper")
    alone, waveform, mask = clips(9000, 20000)

    batched = model(waveform, mask, output_frames=True)

    assert [stream["name"] for stream in model.config.streams] == ["wav2vec2-group", "whisper", "log-mel"]
    assert batched.frame_dimensions.shape == (2, batched.frame_mask.shape[1], 3)
    for row, clip in enumerate(alone):
        assert furthest(model(clip), rows(batched, [row])) < TOLERANCE
    model.save_pretrained(tmp_path)
    again = FusedEmotionForAudioClassification.from_pretrained(tmp_path)
    assert furthest(again(waveform, mask), batched) == 0


def test_an_encoder_without_preprocessor_config_is_an_error(encoder_folders, tmp_path):
    source = encoder_folders["wav2vec2-layer"]
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((source / name).read_bytes())

    with pytest.raises(OSError, match=r"preprocessor_config\.json"):
        FusedEmotionForAudioClassification.from_encoders([str(tmp_path)])


def test_a_source_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(OSError):
        FusedEmotionForAudioClassification.from_encoders([str(tmp_path / "nowhere")])


def test_an_encoder_stored_in_float16_is_computed_in_float32(encoder_folders, tmp_path):
    AutoModel.from_pretrained(encoder_folders["hubert-layer"], dtype="float16").save_pretrained(tmp_path / "half")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "half")
    assert {tensor.dtype for tensor in load_file(tmp_path / "half" / "model.safetensors").values()} == {torch.float16}

    model = FusedEmotionForAudioClassification.from_encoders([str(tmp_path / "half"), "log-mel"], **TEACHER)
    model.save_pretrained(tmp_path / "teacher")
    again = FusedEmotionForAudioClassification.from_pretrained(tmp_path / "teacher")

    for teacher in (model, again):
        assert {parameter.dtype for parameter in teacher.parameters()} == {torch.float32}
        assert teacher.dtype == torch.float32


@torch.no_grad()
def test_only_the_selected_layers_are_mixed(encoder_folders):
    source = str(encoder_folders["hubert-layer"])
    _, waveform, mask = clips(9000)
    torch.manual_seed(0)
    every = FusedEmotionForAudioClassification.from_encoders([source], **TEACHER).eval()
    chosen = FusedEmotionForAudioClassification.from_encoders([source], layers={source: [2, 0]}, **TEACHER).eval()

    all_states = every.teacher.streams[0].encode(waveform, mask)[0]

    torch.testing.assert_close(chosen.teacher.streams[0].encode(waveform, mask)[0], all_states[:, [2, 0]])
    assert chosen.teacher.streams[0].layer_mix.weight.shape == (1, 2)


@pytest.mark.parametrize("layers", [[0], [1, 0]], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_ends_with_the_last_layer_that_is_used(build, encoder_folders, family, layers, tmp_path):
    source = str(encoder_folders[family])
    whole, cut = build(family), build(family, layers={source: layers})
    _, waveform, mask = clips(9000, 16000)

    with torch.no_grad():
        states, lengths = cut.teacher.streams[0].encode(waveform, mask)
        expected, expected_lengths = whole.teacher.streams[0].encode(waveform, mask)
    assert torch.equal(states, expected[:, layers])
    assert torch.equal(lengths, expected_lengths)
    assert cut.num_parameters() < whole.num_parameters()

    loss_of(cut.train()).backward()
    exempt = (*EXEMPT, "layer_mix.weight") if len(layers) == 1 else EXEMPT  # the softmax over one layer is 1
    assert {name for name in without_gradient(cut.named_parameters()) if not name.endswith(exempt)} == set()

    cut.eval().save_pretrained(tmp_path / "cut")
    # As checkpoints were written before: with the layers above.
    unused = {n: t for n, t in whole.state_dict().items() if n.startswith("teacher.streams.0.encoder.")}
    cut.save_pretrained(tmp_path / "former", state_dict=unused | cut.state_dict())
    for folder in ("cut", "former"):
        again = FusedEmotionForAudioClassification.from_pretrained(tmp_path / folder)
        assert furthest(again(waveform, mask), cut(waveform, mask)) == 0


@pytest.mark.parametrize("layers", [[3], [-1], []], ids=str)
def test_layers_that_an_encoder_does_not_have_are_refused(build, encoder_folders, layers):
    with pytest.raises(ValueError, match=r"hubert-layer.*layers in 0\.\.2.*got"):
        build("hubert-layer", layers={str(encoder_folders["hubert-layer"]): layers})


@torch.no_grad()
def test_a_new_layer_mix_is_the_mean_of_the_layers_in_every_stream(build):
    model = build("hubert-layer", "whisper")
    _, waveform, mask = clips(9000)

    for stream in model.teacher.streams[:2]:
        states, _ = stream.encode(waveform, mask)
        everywhere = torch.ones(states.shape[0], states.shape[2])

        assert torch.equal(stream.layer_mix.weight, torch.zeros(1, 3))
        torch.testing.assert_close(stream(states, everywhere), stream.projection(states.mean(1)))


@torch.no_grad()
def test_a_learned_layer_mix_is_loaded_and_not_reset(build, tmp_path):
    model = build("hubert-layer")
    mix = model.teacher.streams[0].layer_mix
    mix.weight.copy_(torch.tensor([[0.5, -1.0, 2.0]]))
    mix.set_statistics(torch.randn_like(mix.mean), torch.rand_like(mix.deviation) + 0.5)
    model.save_pretrained(tmp_path)

    again = FusedEmotionForAudioClassification.from_pretrained(tmp_path)

    loaded = again.teacher.streams[0].layer_mix
    assert torch.equal(loaded.weight, torch.tensor([[0.5, -1.0, 2.0]]))
    assert torch.equal(loaded.mean, mix.mean)
    assert torch.equal(loaded.deviation, mix.deviation)


@torch.no_grad()
def test_the_waveform_is_normalized_as_by_the_feature_extractor_of_wav2vec2():
    alone, waveform, mask = clips(9000, 5000)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)

    ours = normalize_waveform(waveform + 0.05 * mask, mask)  # a constant offset, too

    for row, clip in enumerate(alone):
        expected = extractor((clip[0] + 0.05).numpy(), sampling_rate=16000, return_tensors="pt")["input_values"]
        torch.testing.assert_close(ours[row : row + 1, : clip.shape[1]], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_hidden_states_are_those_of_the_encoder_in_transformers(build, encoder_folders):
    for family in ("wav2vec2-group", "wavlm-layer", "wav2vec2-bert"):
        (clip,), _, mask = clips(16000)
        extractor = EXTRACTORS.get(family, Wav2Vec2FeatureExtractor(do_normalize=True))
        inputs = extractor(clip[0].numpy(), sampling_rate=16000, return_tensors="pt")
        reference = AutoModel.from_pretrained(encoder_folders[family])(**inputs, output_hidden_states=True)
        expected = torch.stack([*reference.hidden_states[:-1], reference.last_hidden_state], dim=1)

        ours, frames = build(family).teacher.streams[0].encode(clip, mask)

        torch.testing.assert_close(ours, expected[:, :, : ours.shape[2]], atol=1e-4, rtol=1e-4)
        assert frames.item() == ours.shape[2]


def test_frames_of_a_lower_rate_are_repeated_on_the_grid_and_of_a_higher_rate_left_out():
    states = torch.arange(4.0).view(1, 1, 4, 1)

    repeated, frames = resample_to_grid(states, torch.tensor([3]), 25.0)
    assert repeated.flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert frames.tolist() == [6]

    thinned, frames = resample_to_grid(states, torch.tensor([4]), 100.0)
    assert thinned.flatten().tolist() == [0, 2]
    assert frames.tolist() == [2]


# What cannot get a gradient: masks of pretraining that are switched on at random, fixed positions, and biases of keys,
# which a softmax over keys takes out again.
EXEMPT = ("masked_spec_embed", "k_proj.bias", "linear_k.bias", "embed_positions.weight")


@pytest.mark.parametrize("family", FAMILIES)
def test_in_full_fine_tuning_every_parameter_has_a_gradient(build, family):
    model = build(family).train()
    loss_of(model).backward()

    forgotten = {name for name in without_gradient(model.named_parameters()) if not name.endswith(EXEMPT)}

    assert forgotten == set()


@pytest.mark.parametrize("family", ["wav2vec2-group", "wavlm-layer", "whisper", "wav2vec2-bert"])
def test_a_frozen_encoder_stays_in_evaluation_mode_and_all_other_parameters_have_a_gradient(build, family):
    model = build(family)
    model.teacher.freeze_encoders()
    model.train()

    loss_of(model).backward()

    encoder = model.teacher.streams[0].encoder
    assert not any(module.training for module in encoder.modules())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in encoder.parameters())
    assert model.training
    assert model.teacher.trunk.training
    assert without_gradient(model.named_parameters()) == set()
    model.eval().train()
    assert not encoder.training


FEED_FORWARD = r".*encoder\.layers\.\d+\.feed_forward\.(intermediate_dense|output_dense)"
# peft compares the ends of names: a bare "projection" would catch the encoder's own `feature_projection`, too.
NEW = ["heads", "trunk", "layer_mix", "streams.0.projection", "streams.1.projection"]


@pytest.mark.parametrize(
    ("family", "target"),
    [
        ("wavlm-layer", FEED_FORWARD),
        ("wav2vec2-group", FEED_FORWARD),
        ("data2vec-audio", r".*encoder\.layers\.\d+\.attention\.(q_proj|v_proj|out_proj)"),
        ("whisper", r".*encoder\.layers\.\d+\.(fc1|fc2|self_attn\.q_proj|self_attn\.v_proj)"),
        ("wav2vec2-bert", r".*encoder\.layers\.\d+\.ffn[12]\.(intermediate_dense|output_dense)"),
    ],
)
def test_every_parameter_that_lora_makes_trainable_has_a_gradient(build, family, target):
    model = build(family)
    model.add_adapter(LoraConfig(r=2, target_modules=target, modules_to_save=NEW, init_lora_weights=False))
    model.train()

    loss_of(model).backward()

    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert any("lora_B" in name for name, _ in trainable)
    assert any("heads" in name for name, _ in trainable)
    assert without_gradient(trainable) == set()


def test_lora_on_the_attention_projections_of_wavlm_has_no_gradient(build):
    """A defect of transformers, whose attention bypasses its modules. If this test fails, it has been fixed."""
    model = build("wavlm-layer")
    model.add_adapter(LoraConfig(r=2, target_modules=r".*attention\.(q_proj|v_proj)", init_lora_weights=False))
    model.train()

    loss_of(model).backward()

    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trainable) == 8  # A and B, of two projections, in two layers
    assert without_gradient(trainable) == {name for name, _ in trainable}


@torch.no_grad()
def test_a_merged_lora_checkpoint_has_the_outputs_of_the_adapted_model(build, tmp_path):
    plain = build("hubert-layer")
    _, waveform, mask = clips(9000, 12000)
    before = plain(waveform, mask)
    # As in a trained adapter, the weights of B are not 0.
    adapted = get_peft_model(plain, LoraConfig(r=2, target_modules=FEED_FORWARD, init_lora_weights=False)).eval()
    after = adapted.base_model.model(waveform, mask)
    assert furthest(after, before) > 10 * TOLERANCE

    adapted.merge_and_unload().save_pretrained(tmp_path)
    merged = FusedEmotionForAudioClassification.from_pretrained(tmp_path)

    assert furthest(merged(waveform, mask), after) < 1e-5


@torch.no_grad()
def test_an_adapter_only_checkpoint_saves_and_loads(build, tmp_path):
    build("hubert-layer").save_pretrained(tmp_path / "base")
    model = FusedEmotionForAudioClassification.from_pretrained(tmp_path / "base")
    model.add_adapter(LoraConfig(r=2, target_modules=FEED_FORWARD, init_lora_weights=False))
    _, waveform, mask = clips(9000, 12000)

    model.eval().save_pretrained(tmp_path / "adapter")
    again = FusedEmotionForAudioClassification.from_pretrained(tmp_path / "adapter").eval()

    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    assert furthest(again(waveform, mask), model(waveform, mask)) < 1e-6


def whisper_stream(build):
    return build("whisper").teacher.streams[0]


@torch.no_grad()
def test_whisper_processes_clips_longer_than_its_positions(build):
    """The tiny encoder has positions for 2 s, a pretrained one for 30 s: longer clips are split into chunks."""
    model = build("whisper")
    alone, waveform, mask = clips(70123, 5000, 32000, 41000)

    batched = model(waveform, mask)

    assert all(output.isfinite().all() for output in (batched.dimensions, batched.logits, batched.embedding))
    for row, clip in enumerate(alone):
        assert furthest(model(clip), rows(batched, [row])) < TOLERANCE
    whole, _ = whisper_stream(build).encode(alone[0], torch.ones_like(alone[0]))
    assert whole.shape[2] == -(-70123 // 320)


@torch.no_grad()
def test_the_attention_implementation_does_not_change_the_outputs_of_whisper(build):
    model = build("whisper")
    _, waveform, mask = clips(9000, 20000)
    fused = model(waveform, mask)

    model.teacher.streams[0].encoder.set_attn_implementation("eager")

    assert model.teacher.streams[0].encoder.config._attn_implementation == "eager"
    assert furthest(model(waveform, mask), fused) < 1e-5


@torch.no_grad()
def test_mixed_precision_does_not_change_the_features_of_whisper(build):
    _, waveform, mask = clips(9000, 20000)
    expected, _ = whisper_log_mel(waveform, mask.sum(-1), 80)
    model = build("whisper")
    exact = model(waveform, mask)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, _ = whisper_log_mel(waveform, mask.sum(-1), 80)
        mixed = model(waveform, mask)

    assert torch.equal(features, expected)
    assert (mixed.dimensions - exact.dimensions).abs().max() < 0.02


@torch.no_grad()
@pytest.mark.parametrize("family", ["whisper", "wavlm-layer", "wav2vec2-bert"])
def test_bfloat16_changes_the_outputs_of_a_teacher_little(build, family, tmp_path):
    model = build(family)
    _, waveform, mask = clips(9000, 20000)
    model.save_pretrained(tmp_path)

    small = FusedEmotionForAudioClassification.from_pretrained(tmp_path, dtype="bfloat16")

    kinds = {True: set(), False: set()}
    for name, tensor in small.state_dict().items():
        kinds["log_mel" in name or "layer_mix" in name].add(tensor.dtype)
    assert kinds == {True: {torch.float32}, False: {torch.bfloat16}}
    assert (small(waveform, mask).dimensions - model(waveform, mask).dimensions).abs().max() < 0.02


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_very_short_clips_have_finite_outputs(build, family):
    model = build(family)
    alone, waveform, mask = clips(800, 1600, 4800, 16000)  # 0.05, 0.1, 0.3 and 1 s

    batched = model(waveform, mask)

    assert batched.embedding.isfinite().all()
    for row, clip in enumerate(alone):
        assert furthest(model(clip), rows(batched, [row])) < TOLERANCE


REAL_WHISPER = Path(os.environ.get("AUDIO_EMOTION_DATA", "")) / "encoders" / "whisper-tiny.en"
needs_real_whisper = pytest.mark.skipif(
    "AUDIO_EMOTION_DATA" not in os.environ or not REAL_WHISPER.exists(),
    reason="needs encoders/whisper-tiny.en in AUDIO_EMOTION_DATA",
)


@pytest.fixture(scope="module")
def real_whisper():
    """The encoder of Whisper tiny.en."""
    return WhisperModel.from_pretrained(REAL_WHISPER, dtype=torch.float32).get_encoder().eval()


@pytest.fixture(scope="module")
def real_speech() -> list[np.ndarray]:
    """Two clips of RAVDESS, at 16 kHz."""
    import soundfile
    import soxr

    files = sorted((Path(os.environ["AUDIO_EMOTION_DATA"]) / "ravdess").rglob("*.flac"))[:2]
    files = files or sorted((Path(os.environ["AUDIO_EMOTION_DATA"]) / "ravdess").rglob("*.wav"))[:2]
    if not files:
        pytest.skip("needs ravdess in AUDIO_EMOTION_DATA")
    speech = []
    for file in files:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
        speech.append(soxr.resample(samples.mean(1), rate, 16000).astype(np.float32))
    return speech


@needs_real_whisper
def test_features_are_those_of_the_feature_extractor_of_whisper(real_speech):
    extractor = WhisperFeatureExtractor.from_pretrained(REAL_WHISPER)
    for clip in real_speech:
        expected = extractor(clip, sampling_rate=16000, return_tensors="pt")["input_features"]

        ours, frames = whisper_log_mel(torch.tensor(clip)[None], torch.tensor([len(clip)]), 80)

        assert frames.item() == ours.shape[2] == -(-len(clip) // 160)
        torch.testing.assert_close(ours, expected[..., : ours.shape[2]], atol=2e-4, rtol=0)


@needs_real_whisper
@torch.no_grad()
def test_hidden_states_of_30_s_are_those_of_whisper_in_transformers(real_whisper, real_speech):
    clip = np.tile(np.concatenate(real_speech), 20)[: 30 * 16000]
    extractor = WhisperFeatureExtractor.from_pretrained(REAL_WHISPER)
    features = extractor(clip, sampling_rate=16000, return_tensors="pt")["input_features"]
    reference = real_whisper(features, output_hidden_states=True).hidden_states

    ours, lengths = whisper_hidden_states(real_whisper, features, torch.tensor([3000]))

    assert lengths.item() == 1500
    assert len(ours) == len(reference)
    for one, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@needs_real_whisper
@torch.no_grad()
def test_padding_does_not_change_the_outputs_of_a_teacher_on_real_speech(real_speech):
    torch.manual_seed(0)
    model = FusedEmotionForAudioClassification.from_encoders([str(REAL_WHISPER), "log-mel"], **TEACHER).eval()
    short, long = (torch.tensor(clip) for clip in real_speech)
    short = short[:20000]
    waveform, mask = torch.zeros(2, len(long)), torch.zeros(2, len(long))
    waveform[0, : len(short)], waveform[1] = short, long
    mask[0, : len(short)], mask[1] = 1, 1

    batched = model(waveform, mask)

    assert furthest(model(short[None]), rows(batched, [0])) < TOLERANCE
    assert furthest(model(long[None]), rows(batched, [1])) < TOLERANCE
    assert load_encoder(str(REAL_WHISPER))[0]["one_at_a_time"] is False
