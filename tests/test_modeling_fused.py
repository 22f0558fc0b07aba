"""The teacher: fusion by its formula, dropped streams, cached states and loading."""

from __future__ import annotations

import re

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError

from audio_emotion.configuration_emotion import FusedEmotionConfig
from audio_emotion.encoders import average_steps
from audio_emotion.modeling_fused_emotion import FusedEmotionForAudioClassification, FusedEmotionModel

TEACHER = {"emotions": ["calm", "angry", "sad"], "projection_size": 8, "convolution_size": 8} | {
    "hidden_size": 12,
    "embedding_size": 10,
}


@pytest.fixture
def sources(tiny_encoders) -> list[str]:
    """Two encoders, and the filterbank."""
    return [*tiny_encoders, "log-mel"]


def teacher(sources: list[str], **fields) -> FusedEmotionForAudioClassification:
    torch.manual_seed(0)
    return FusedEmotionForAudioClassification.from_encoders(sources, **{**TEACHER, **fields}).eval()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Two clips, 1 s and 0.6 s."""
    waveform = 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 16000).long()
    mask[1, 9600:] = 0
    return waveform * mask, mask


@torch.no_grad()
def test_a_stream_is_a_softmax_over_standardized_layers_then_a_projection(sources):
    stream = teacher(sources).teacher.streams[0]
    states, _ = stream.encode(*batch())
    mask = torch.ones(2, states.shape[2])

    stream.layer_mix.weight.copy_(torch.tensor([[0.5, -1.0, 2.0]]))
    mean, deviation = torch.randn(3, 16), 0.5 + torch.rand(3, 16)
    stream.layer_mix.set_statistics(mean, deviation)

    mixed = torch.zeros(2, states.shape[2], 16)
    weights = stream.layer_mix.weight[0].exp() / stream.layer_mix.weight[0].exp().sum()
    for layer in range(3):
        mixed += weights[layer] * (states[:, layer] - mean[layer]) / deviation[layer]

    expected = mixed @ stream.projection.weight.T + stream.projection.bias
    torch.testing.assert_close(stream(states, mask), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_concatenated_layers_are_standardized_one_by_one_and_saved(sources, tmp_path):
    model = teacher(sources, layer_fusion="concatenate")
    stream = model.teacher.streams[0]
    states, _ = stream.encode(*batch())
    mean, deviation = torch.randn(3, 16), 0.5 + torch.rand(3, 16)
    stream.layer_mix.set_statistics(mean, deviation)
    model.save_pretrained(tmp_path)

    again = FusedEmotionForAudioClassification.from_pretrained(tmp_path).eval()

    expected = stream.projection.bias.clone().expand(2, states.shape[2], 8)
    for layer in range(3):
        weight = stream.projection.weight[:, 16 * layer : 16 * (layer + 1)]
        expected = expected + (states[:, layer] - mean[layer]) / deviation[layer] @ weight.T
    everywhere = torch.ones(2, states.shape[2])
    torch.testing.assert_close(stream(states, everywhere), expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(again(*batch()).logits, model.eval()(*batch()).logits)


@torch.no_grad()
def test_concatenation_keeps_the_order_of_the_streams(sources):
    model = teacher(sources).teacher
    states, lengths = model.encode(*batch())
    mask = (torch.arange(states[0].shape[2]) < lengths[:, None]).float()

    fused = model.fuse(states, lengths)

    assert fused.shape == (2, states[0].shape[2], 24)
    for number, stream in enumerate(model.streams):
        torch.testing.assert_close(fused[..., 8 * number : 8 * (number + 1)], stream(states[number], mask))
    assert not fused[1, lengths[1] :].any()


@torch.no_grad()
def test_a_gate_is_one_softmax_over_the_streams_per_frame(sources):
    model = teacher(sources, fusion="gate").teacher
    states, lengths = model.encode(*batch())
    mask = (torch.arange(states[0].shape[2]) < lengths[:, None]).float()

    fused = model.fuse(states, lengths)

    views = [stream(state, mask) for stream, state in zip(model.streams, states, strict=True)]
    weights = model.gate(torch.cat(views, dim=-1)).softmax(-1)
    expected = sum(weights[..., number, None] * view for number, view in enumerate(views))
    torch.testing.assert_close(fused, expected * mask[..., None])
    assert fused.shape == (2, states[0].shape[2], 8)
    assert not fused[1, lengths[1] :].any()


@pytest.mark.parametrize("fusion", ["concatenate", "gate"])
@pytest.mark.parametrize("pooling", ["last", "statistics", "attentive"])
@pytest.mark.parametrize("frames_per_step", [1, 2])
@torch.no_grad()
def test_padding_does_not_change_the_outputs_with_any_fusion(sources, fusion, pooling, frames_per_step):
    fields = {"fusion": fusion, "pooling": pooling, "frames_per_step": frames_per_step}
    model = teacher(sources, stream_dropout=0.3, **fields)
    waveform, mask = batch()
    for names in ([], ["first"], ["second", "log-mel"]):
        if names:
            model.teacher.drop_streams(names)
        batched, alone = model(waveform, mask), model(waveform[1:, :9600])

        assert (batched.embedding[1] - alone.embedding[0]).abs().max() < 1e-4
        assert (batched.dimensions[1] - alone.dimensions[0]).abs().max() < 1e-4


@torch.no_grad()
def test_dropping_a_stream_needs_a_model_trained_with_stream_dropout(sources):
    model = teacher(sources)

    with pytest.raises(ValueError, match="stream_dropout"):
        model.teacher.drop_streams(["first"])


@pytest.mark.parametrize("names", [["third"], ["first", "second", "log-mel"]])
def test_streams_to_drop_must_exist_and_not_be_all(sources, names):
    with pytest.raises(ValueError, match="first"):
        teacher(sources, stream_dropout=0.5).teacher.drop_streams(names)


@pytest.mark.parametrize("fusion", ["concatenate", "gate"])
@torch.no_grad()
def test_a_dropped_stream_is_not_run_and_does_not_affect_the_outputs(sources, fusion, monkeypatch):
    model = teacher(sources, fusion=fusion, stream_dropout=0.5)
    waveform, mask = batch()
    whole = model(waveform, mask)
    model.teacher.drop_streams(["first"])
    monkeypatch.setattr(model.teacher.streams[0], "encode", None)  # calling it would fail

    dropped = model(waveform, mask)
    torch.nn.init.normal_(model.teacher.streams[0].projection.weight)

    assert torch.equal(model(waveform, mask).embedding, dropped.embedding)
    assert not torch.allclose(dropped.embedding, whole.embedding)
    model.teacher.drop_streams([])
    assert model.teacher.dropped == set()


@pytest.mark.parametrize("fusion", ["concatenate", "gate"])
@torch.no_grad()
def test_dropping_at_inference_equals_dropout_in_training(sources, fusion):
    """A clip whose first stream is dropped in training is fused as if that stream had been dropped."""
    model = teacher(sources, fusion=fusion, stream_dropout=0.5).teacher
    states, lengths = model.encode(*batch())
    model.train()
    model._drop_at_random = lambda present: torch.tensor([[False, True, True], [False, True, True]])
    dropped = model.fuse(states, lengths)
    model.eval()

    torch.testing.assert_close(model.fuse([None, *states[1:]], lengths), dropped)


def test_stream_dropout_drops_its_fraction_and_never_all_streams(sources):
    model = teacher(sources, stream_dropout=0.4).teacher
    torch.manual_seed(0)

    kept = model._drop_at_random(torch.ones(20000, 3, dtype=torch.bool))

    assert kept.any(-1).all()
    # A clip that would lose all three, 0.4 to the third, keeps all three.
    assert (~kept).float().mean().item() == pytest.approx(0.4 - 0.4**3, abs=0.01)


@torch.no_grad()
def test_stream_dropout_is_off_in_evaluation(sources):
    model = teacher(sources, stream_dropout=0.9, dropout=0.0)
    plain = teacher(sources, stream_dropout=0.0, dropout=0.0)

    assert torch.equal(model(*batch()).embedding, plain(*batch()).embedding)


@torch.no_grad()
def test_cached_states_give_the_same_outputs(sources):
    model = teacher(sources)
    waveform, mask = batch()

    states, lengths = model.teacher.encode(waveform, mask)

    assert torch.equal(model(features=states, lengths=lengths).dimensions, model(waveform, mask).dimensions)


@torch.no_grad()
def test_steps_are_means_of_frames_and_an_incomplete_last_one_is_left_out(sources):
    waveform, mask = batch()
    frames, lengths = teacher(sources).teacher.encode(waveform, mask)
    steps, counts = teacher(sources, frames_per_step=3).teacher.encode(waveform, mask)

    assert counts.tolist() == [length // 3 for length in lengths.tolist()]
    for fine, coarse in zip(frames, steps, strict=True):
        for clip, count in enumerate(counts.tolist()):
            for step in range(count):
                expected = fine[clip, :, 3 * step : 3 * step + 3].mean(1)
                torch.testing.assert_close(coarse[clip, :, step], expected)


def test_a_clip_shorter_than_a_step_is_the_mean_of_its_true_frames():
    states = torch.arange(4.0).view(1, 1, 4, 1)

    assert average_steps(states, torch.tensor([3]), 5).tolist() == [[[[1.0]]]]


def test_a_step_of_no_frames_is_an_error():
    with pytest.raises((ValueError, StrictDataclassClassValidationError), match="frames_per_step"):
        FusedEmotionConfig(frames_per_step=0)


@torch.no_grad()
def test_a_teacher_may_have_the_filterbank_as_its_only_stream():
    model = teacher(["log-mel"])
    waveform, mask = batch()

    batched = model(waveform, mask, output_frames=True)

    assert (batched.dimensions[1] - model(waveform[1:, :9600]).dimensions[0]).abs().max() < 1e-4
    assert batched.frame_dimensions.shape == (2, 49, 3)


@torch.no_grad()
def test_the_model_without_heads_loads_from_the_one_with_heads_and_not_the_reverse(sources, tmp_path):
    model = teacher(sources)
    model.save_pretrained(tmp_path / "whole")

    bare = FusedEmotionModel.from_pretrained(tmp_path / "whole")

    assert torch.equal(bare(*batch()).embedding, model(*batch()).embedding)
    bare.save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match=r"heads\.dimensions\.weight"):
        FusedEmotionForAudioClassification.from_pretrained(tmp_path / "bare")


@torch.no_grad()
def test_the_model_without_heads_can_be_built_from_encoders(sources):
    torch.manual_seed(0)
    bare = FusedEmotionModel.from_encoders(sources, **TEACHER).eval()
    held = bare.streams[1].encoder.state_dict()

    for name, tensor in teacher(sources).teacher.streams[1].encoder.state_dict().items():
        assert torch.equal(held[name], tensor), name
    assert bare(*batch()).embedding.shape == (2, 10)


def test_two_encoders_of_one_name_are_an_error(sources):
    with pytest.raises(Exception, match="distinct names"):
        teacher([sources[0], sources[0]])


@torch.no_grad()
def test_labels_given_on_loading_initialize_new_heads_and_keep_the_encoders(sources, tmp_path):
    model = teacher(sources)
    model.save_pretrained(tmp_path)

    tuned = FusedEmotionForAudioClassification.from_pretrained(
        tmp_path, id2label={0: "x", 1: "y"}, label2id={"x": 0, "y": 1}, new_heads=True
    )

    assert tuned.config.emotions == ["x", "y"]
    assert tuned(*batch()).logits.shape == (2, 2)
    assert torch.equal(tuned(*batch()).embedding, model(*batch()).embedding)


def test_a_saved_teacher_contains_no_local_path(sources, tmp_path):
    model = teacher(sources)
    model.save_pretrained(tmp_path)

    text = (tmp_path / "config.json").read_text()

    assert [stream.get("source") for stream in model.config.streams] == ["first", "second", None]
    assert sources[0] not in text
    assert str(tmp_path.parent) not in text


@pytest.mark.parametrize("shape", [(16000,), (1, 2, 16000)])
def test_a_waveform_without_a_batch_axis_or_with_channels_is_refused(sources, shape):
    with pytest.raises(ValueError, match=re.escape(f"(batch, samples), got {shape}")):
        teacher(sources)(torch.zeros(shape))
