"""Students: size, streaming, padding, precision and loading."""

from __future__ import annotations

import json
import re
import warnings

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from safetensors.torch import load_file, save_file

from audio_emotion.configuration_emotion import StudentEmotionConfig
from audio_emotion.log_mel import HOP, WINDOW, LogMel
from audio_emotion.modeling_student_emotion import StudentEmotionForAudioClassification, StudentEmotionModel

TOLERANCE = 1e-4  # of padding and batching, float32
TINY = {"num_mel_bins": 20, "convolution_size": 8, "hidden_size": 12, "embedding_size": 10, "predict_variance": True}
OUTPUTS = ("dimensions", "logits", "log_variance", "embedding")


def student(**fields) -> StudentEmotionForAudioClassification:
    torch.manual_seed(0)
    config = StudentEmotionConfig(**{**TINY, "emotions": ["calm", "angry", "sad"], **fields})
    model = StudentEmotionForAudioClassification(config).eval()
    bins = config.num_mel_bins
    model.student.log_mel.set_statistics(torch.linspace(-6, -3, bins), torch.linspace(1, 2, bins))
    return model


def clips(*lengths: int) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Noise of these lengths: alone, and as one padded batch with its mask."""
    generator = torch.Generator().manual_seed(1)
    alone = [0.1 * torch.randn(1, length, generator=generator) for length in lengths]
    waveform, mask = torch.zeros(len(lengths), max(lengths)), torch.zeros(len(lengths), max(lengths)).long()
    for row, clip in enumerate(alone):
        waveform[row, : clip.shape[1]], mask[row, : clip.shape[1]] = clip[0], 1
    return alone, waveform, mask


def largest_difference(one, other, row: int) -> float:
    """The largest difference between a clip alone and the same clip as a row of a batch."""
    return max((one[name][0] - other[name][row]).abs().max().item() for name in OUTPUTS)


@pytest.mark.parametrize("trunk", ["tc-gru", "convolutional"])
@pytest.mark.parametrize(("size", "limit"), [("nano", 75_000), ("small", 500_000), ("base", 2_000_000)])
def test_a_size_is_within_its_parameter_limit_with_eight_emotions_and_variance(size, limit, trunk):
    config = StudentEmotionConfig.of_size(size, trunk=trunk, emotions=list("abcdefgh"), predict_variance=True)

    parameters = StudentEmotionForAudioClassification(config).num_parameters()

    assert limit / 4 < parameters <= limit


@pytest.mark.parametrize("pooling", ["last", "statistics", "attentive"])
@pytest.mark.parametrize(
    "trunk",
    [
        *({"bidirectional": both, "look_ahead": frames} for both in (False, True) for frames in (0, 1)),
        {"trunk": "convolutional", "num_convolution_blocks": 6, "convolution_kernel": 5},
        {"level": "relative"},
    ],
    ids=str,
)
@torch.no_grad()
def test_padding_and_batch_order_do_not_change_the_outputs(pooling, trunk):
    model = student(pooling=pooling, **trunk)
    alone, waveform, mask = clips(9000, 20000, 800, 300, 16123)

    batched = model(waveform, mask)

    order = [4, 1, 3, 0, 2]
    shuffled = model(waveform[order], mask[order])
    for row, clip in enumerate(alone):
        one = model(clip)
        assert largest_difference(one, batched, row) < TOLERANCE
        assert largest_difference(one, shuffled, order.index(row)) < TOLERANCE


@torch.no_grad()
def test_the_content_of_the_padding_does_not_change_the_outputs():
    model = student()
    _, waveform, mask = clips(9000, 20000)
    dirty = waveform + (1 - mask) * 5.0

    assert largest_difference(model(dirty, mask), model(waveform, mask), 0) == 0


@pytest.mark.parametrize("pooling", ["last", "statistics", "attentive"])
@pytest.mark.parametrize("frames_per_step", [2, 4, 8])
@pytest.mark.parametrize("trunk", [{"trunk": "tc-gru"}, {"trunk": "convolutional"}, {"level": "relative"}], ids=str)
@torch.no_grad()
def test_the_output_at_a_frame_is_that_of_the_clip_cut_there(pooling, frames_per_step, trunk):
    model = student(pooling=pooling, frames_per_step=frames_per_step, **trunk)
    alone, waveform, mask = clips(12000, 20000)

    whole = model(waveform, mask, output_frames=True)

    for row, clip in enumerate(alone):
        steps = int(whole.frame_mask[row].sum())
        assert steps == ((clip.shape[1] - WINDOW) // HOP + 1) // frames_per_step
        torch.testing.assert_close(whole.frame_dimensions[row, steps - 1], whole.dimensions[row])
        for t in range(0, steps, 5):
            end = HOP * (frames_per_step * (t + 1) - 1) + WINDOW  # the end of the last sample of step t
            for cut in (end, end + 1, end + HOP * frames_per_step - 1):  # and until the next step is full
                if cut > clip.shape[1]:
                    continue
                ended = model(clip[:, :cut])
                torch.testing.assert_close(ended.dimensions[0], whole.frame_dimensions[row, t], atol=1e-5, rtol=1e-4)
                torch.testing.assert_close(ended.logits[0], whole.frame_logits[row, t], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("seconds", [0.01, 0.025, 0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("frames_per_step", [2, 8])
@torch.no_grad()
def test_very_short_clips_have_finite_outputs(seconds, frames_per_step):
    output = student(frames_per_step=frames_per_step)(clips(int(16000 * seconds))[1], output_frames=True)

    assert all(output[name].isfinite().all() for name in OUTPUTS)
    assert output.frame_dimensions.shape[1] == output.frame_mask.shape[1] >= 1


@pytest.mark.parametrize("trunk", ["tc-gru", "convolutional"])
@torch.no_grad()
def test_removing_the_teacher_heads_does_not_change_the_outputs(trunk, tmp_path):
    model = student(trunk=trunk, teacher_emotions={"speech": ["a", "b"], "face": ["c", "d", "e"]})
    _, waveform, mask = clips(9000, 20000)

    alone = model.without_teacher_heads()
    alone.save_pretrained(tmp_path)
    again = StudentEmotionForAudioClassification.from_pretrained(tmp_path)

    assert set(model(waveform, mask).teacher_logits) == {"speech", "face"}  # the student in training keeps them
    assert again.config.teacher_emotions is None
    assert not [name for name in load_file(tmp_path / "model.safetensors") if "teacher" in name]
    assert again(waveform, mask).teacher_logits is None
    assert largest_difference(again(waveform, mask), model(waveform, mask), 0) == 0


@pytest.mark.parametrize("fields", [{"bidirectional": True}, {"look_ahead": 1}], ids=str)
def test_the_convolutional_trunk_refuses_look_ahead_and_bidirectional(fields):
    with pytest.raises(StrictDataclassClassValidationError, match=r"convolutional trunk is causal"):
        student(trunk="convolutional", **fields)
    with pytest.raises(StrictDataclassClassValidationError, match=r"`trunk` must be one of"):
        student(trunk="transformer")


@torch.no_grad()
def test_gain_does_not_change_the_outputs_with_relative_level():
    (clip,), waveform, mask = clips(16000)
    for level, moves in (("relative", False), ("absolute", True)):
        model = student(level=level)
        with torch.no_grad():
            difference = (model(waveform, mask).dimensions - model(0.05 * clip).dimensions).abs().max()
        assert (difference > 1e-3) == moves, level


@pytest.mark.parametrize("pooling", ["last", "statistics", "attentive"])
@pytest.mark.parametrize("fields", [{}, {"level": "relative"}, {"trunk": "convolutional"}], ids=str)
def test_a_forward_and_a_backward_pass_need_no_float64(fields, pooling, without_float64):
    model = student(pooling=pooling, **fields)
    _, waveform, mask = clips(9000, 20000)

    with without_float64:
        output = model(waveform, mask, torch.tensor([0, 1]), torch.full((2, 3), 0.5), output_frames=True)
        output.loss.backward()


@torch.no_grad()
def test_eight_bit_linear_layers_change_the_outputs_little():
    """Dynamic quantization, the common method for small CPUs."""
    model = student().eval()
    waveform = clips(16000)[1]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        small = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, torch.qint8)

    assert any("dynamic" in type(module).__module__ for module in small.modules())
    assert (small(waveform).dimensions - model(waveform).dimensions).abs().max() < 0.02


@pytest.mark.parametrize("shape", [(16000,), (1, 2, 16000)])
def test_a_waveform_without_a_batch_axis_or_with_channels_is_refused(shape):
    with pytest.raises(ValueError, match=re.escape(f"(batch, samples), got {shape}")):
        student()(torch.zeros(shape))


def test_an_unknown_level_is_refused():
    with pytest.raises((ValueError, StrictDataclassClassValidationError), match="level"):
        student(level="loud")


def test_a_bidirectional_student_refuses_output_frames():
    with pytest.raises(ValueError, match="bidirectional"):
        student(bidirectional=True)(clips(8000)[1], output_frames=True)


@torch.no_grad()
def test_dimensions_are_in_0_to_1_and_every_output_has_its_shape():
    model = student(teacher_emotions={"speech": ["a", "b"], "face": ["c", "d", "e", "f"]})
    output = model(100 * clips(9000, 20000)[1], output_frames=True)
    steps = output.frame_mask.shape[1]

    assert output.dimensions.shape == output.log_variance.shape == (2, 3)
    assert ((output.dimensions >= 0) & (output.dimensions <= 1)).all()
    assert output.logits.shape == (2, 3)
    assert output.embedding.shape == (2, 10)
    assert output.frame_dimensions.shape == output.frame_logits.shape == (2, steps, 3)
    assert {name: tuple(logits.shape) for name, logits in output.teacher_logits.items()} == {
        "speech": (2, 2),
        "face": (2, 4),
    }
    assert output.loss is None


@torch.no_grad()
def test_the_output_of_a_missing_head_is_none():
    output = student(emotions=[], predict_variance=False)(clips(9000)[1], output_frames=True)
    assert output.logits is output.log_variance is output.teacher_logits is output.frame_logits is None

    output = student(dimensions=[], dimension_weights=[], predict_variance=False)(clips(9000)[1], output_frames=True)
    assert output.dimensions is output.frame_dimensions is None
    assert output.logits is not None


@pytest.mark.parametrize("trunk", ["tc-gru", "convolutional"])
def test_the_loss_is_the_sum_of_the_terms_and_reaches_every_parameter(trunk):
    model = student(trunk=trunk).train()
    _, waveform, mask = clips(9000, 20000, 12000)
    targets = torch.tensor([[0.1, 0.9, 0.4], [0.8, 0.2, 0.6], [0.4, 0.5, float("nan")]])

    model(waveform, mask, labels=torch.tensor([0, -100, 2]), dimension_labels=targets).loss.backward()

    assert {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0} == set()


@torch.no_grad()
def test_return_dict_false_gives_the_same_values_as_a_tuple():
    model = student()
    waveform = clips(9000)[1]

    assert torch.equal(model(waveform, return_dict=False)[0], model(waveform).logits)


@pytest.mark.parametrize("trunk", ["tc-gru", "convolutional"])
@torch.no_grad()
def test_a_saved_student_is_loaded_bit_for_bit(trunk, tmp_path):
    model = student(teacher_emotions={"speech": ["a", "b"]}, trunk=trunk)
    _, waveform, mask = clips(9000, 20000)
    model.save_pretrained(tmp_path)
    torch.manual_seed(99)

    again = StudentEmotionForAudioClassification.from_pretrained(tmp_path)

    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert largest_difference(again(waveform, mask), model(waveform, mask), 0) == 0
    fresh = LogMel(20, 16000)
    assert torch.equal(again.student.log_mel.window, fresh.window)
    assert torch.equal(again.student.log_mel.filters, fresh.filters)
    assert torch.equal(again.student.log_mel.mean, torch.linspace(-6, -3, 20))


@torch.no_grad()
def test_a_checkpoint_with_the_former_names_is_loaded(tmp_path):
    model = student(trunk="convolutional", pooling="attentive")
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["read_out"] = config.pop("pooling")  # as the first checkpoints have it
    (tmp_path / "config.json").write_text(json.dumps(config))
    _, waveform, mask = clips(9000, 20000)

    loaded = StudentEmotionForAudioClassification.from_pretrained(tmp_path)

    assert loaded.config.pooling == "attentive"
    assert torch.equal(loaded(waveform, mask).embedding, model(waveform, mask).embedding)
    # Names of tensors in published checkpoints, which renaming an attribute would change.
    assert {
        "student.log_mel.deviation",
        "student.trunk.recurrence.blocks.0.normalisation.weight",
        "student.trunk.recurrence.blocks.0.depthwise.weight",
        "student.trunk.read_out.score.weight",
        "student.trunk.embedding.weight",
        "heads.emotions.weight",
    } <= set(load_file(tmp_path / "model.safetensors"))


def test_the_model_without_heads_loads_from_the_one_with_heads(tmp_path):
    model = student()
    _, waveform, mask = clips(9000, 20000)
    model.save_pretrained(tmp_path)

    bare = StudentEmotionModel.from_pretrained(tmp_path)

    assert torch.equal(bare(waveform, mask).embedding, model(waveform, mask).embedding)


@torch.no_grad()
@pytest.mark.parametrize("trunk", ["tc-gru", "convolutional"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_changes_the_outputs_of_a_student_little(dtype, trunk, tmp_path):
    model = student(trunk=trunk)
    _, waveform, mask = clips(9000, 20000)
    model.save_pretrained(tmp_path)

    half = StudentEmotionForAudioClassification.from_pretrained(tmp_path, dtype=dtype)

    assert half.dtype == getattr(torch, dtype)
    assert {parameter.dtype for parameter in half.parameters()} == {half.dtype}
    for name, buffer in model.student.log_mel.named_buffers():
        assert torch.equal(half.student.log_mel.get_buffer(name), buffer)  # float32, bit for bit
    output, exact = half(waveform, mask, output_frames=True), model(waveform, mask, output_frames=True)
    assert (output.dimensions - exact.dimensions).abs().max() < 0.02
    assert (output.frame_dimensions - exact.frame_dimensions).abs().max() < 0.02


@torch.no_grad()
def test_mixed_precision_changes_the_outputs_little():
    model = student()
    _, waveform, mask = clips(9000, 20000)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(waveform, mask)

    assert (mixed.dimensions - model(waveform, mask).dimensions).abs().max() < 0.02


def without(folder, start: str) -> None:
    """Remove the tensors with this prefix from a checkpoint."""
    file = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(file).items() if not name.startswith(start)}
    save_file(kept, file, metadata={"format": "pt"})


@pytest.mark.parametrize("lost", ["heads.emotions.weight", "student.trunk.embedding.bias", "student.log_mel.mean"])
def test_a_checkpoint_that_lacks_a_tensor_is_an_error_that_names_it(lost, tmp_path):
    student().save_pretrained(tmp_path)
    without(tmp_path, lost)

    with pytest.raises(ValueError, match=lost):
        StudentEmotionForAudioClassification.from_pretrained(tmp_path)


def test_a_checkpoint_of_another_shape_is_an_error_that_names_the_tensors(tmp_path):
    student().save_pretrained(tmp_path)

    with pytest.raises(ValueError, match=r"student\.trunk\.embedding\.weight"):
        StudentEmotionForAudioClassification.from_pretrained(tmp_path, embedding_size=11)
    with pytest.raises(ValueError, match=r"heads\.emotions\.weight"):
        StudentEmotionForAudioClassification.from_pretrained(tmp_path, id2label={0: "x"}, label2id={"x": 0})


def test_a_checkpoint_without_heads_is_refused_by_the_model_with_heads(tmp_path):
    student().student.save_pretrained(tmp_path)

    with pytest.raises(ValueError, match=r"heads\.dimensions\.weight"):
        StudentEmotionForAudioClassification.from_pretrained(tmp_path)


def test_new_heads_allows_missing_heads_and_nothing_else(tmp_path):
    model = student()
    model.save_pretrained(tmp_path)
    without(tmp_path, "heads.log_variance")

    again = StudentEmotionForAudioClassification.from_pretrained(tmp_path, new_heads=True)
    assert torch.equal(again.heads.dimensions.weight, model.heads.dimensions.weight)
    assert again.heads.log_variance.weight.abs().max() > 0
    assert again.heads.log_variance.weight.isfinite().all()

    without(tmp_path, "student.trunk.embedding.bias")
    with pytest.raises(ValueError, match=r"student\.trunk\.embedding\.bias"):
        StudentEmotionForAudioClassification.from_pretrained(tmp_path, new_heads=True)
    with pytest.raises(ValueError, match="gru"):
        StudentEmotionForAudioClassification.from_pretrained(tmp_path, new_heads=True, hidden_size=16)


@pytest.mark.parametrize(
    "labels",
    [{"id2label": {0: "x", 1: "y"}, "label2id": {"x": 0, "y": 1}}, {"emotions": ["x", "y"]}],
)
def test_labels_given_on_loading_initialize_new_heads_with_these_names(labels, tmp_path):
    model = student()
    model.save_pretrained(tmp_path / "old")

    tuned = StudentEmotionForAudioClassification.from_pretrained(tmp_path / "old", new_heads=True, **labels)
    tuned.save_pretrained(tmp_path / "new")
    again = StudentEmotionForAudioClassification.from_pretrained(tmp_path / "new")

    for one in (tuned, again):
        assert one.config.emotions == ["x", "y"]
        assert one.config.id2label == {0: "x", 1: "y"}
        assert one.config.label2id == {"x": 0, "y": 1}
        assert one.heads.emotions.weight.shape == (2, 10)
        assert torch.equal(one.student.trunk.embedding.weight, model.student.trunk.embedding.weight)
    assert torch.equal(again.heads.emotions.weight, tuned.heads.emotions.weight)


def test_emotions_can_be_renamed_without_new_heads(tmp_path):
    model = student()
    model.save_pretrained(tmp_path)

    german = StudentEmotionForAudioClassification.from_pretrained(
        tmp_path, id2label={0: "ruhig", 1: "wütend", 2: "traurig"}
    )

    assert german.config.emotions == ["ruhig", "wütend", "traurig"]
    assert torch.equal(german.heads.emotions.weight, model.heads.emotions.weight)


def test_a_misspelled_field_on_loading_is_an_error(tmp_path):
    student().save_pretrained(tmp_path)

    with pytest.raises(TypeError, match="hiden_size"):
        StudentEmotionForAudioClassification.from_pretrained(tmp_path, hiden_size=9)


def test_a_new_student_is_initialized_from_the_seed():
    first, second = student().state_dict(), student().state_dict()

    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
        assert tensor.isfinite().all()
    hidden = first["student.trunk.recurrence.gru.weight_hh_l0"].chunk(3)
    for gate in hidden:
        torch.testing.assert_close(gate @ gate.T, torch.eye(12), atol=1e-5, rtol=0)
