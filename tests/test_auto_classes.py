"""Loading by the Auto classes: bit-identical outputs, and an error for missing weights."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, pipeline

from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.log_mel import LogMel
from audio_emotion_cli import EXIT_USAGE, main


@pytest.fixture
def folder(tiny_model, tmp_path):
    return write_checkpoint(tiny_model, tmp_path / "checkpoint")


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_loaded_model_has_the_same_outputs_bit_for_bit(tiny_model, folder, speech):
    loaded = AutoModelForAudioClassification.from_pretrained(folder)
    base = AutoModel.from_pretrained(folder)
    clip = AutoFeatureExtractor.from_pretrained(folder)(speech, sampling_rate=16000, return_tensors="pt")

    assert type(loaded) is type(tiny_model)
    assert type(base) is type(tiny_model.base_model)
    assert loaded.config.to_dict() == AutoConfig.from_pretrained(folder).to_dict() | {
        "dtype": loaded.config.to_dict()["dtype"]
    }
    with torch.no_grad():
        before, after = tiny_model(**clip), loaded(**clip)
        assert torch.equal(base(**clip).embedding, before.embedding)
    for name in ("dimensions", "logits", "embedding"):
        assert torch.equal(after[name], before[name]), name


def test_a_run_folder_is_refused_with_the_folder_of_its_checkpoint(tiny_model, tmp_path, capsys):
    checkpoint = write_checkpoint(tiny_model, tmp_path / "run" / "checkpoints" / "last")
    run = str(tmp_path / "run")

    for load in (
        lambda: pipeline("audio-emotion", model=run),
        lambda: pipeline(model=run),
        lambda: AutoModel.from_pretrained(run),
        lambda: AutoConfig.from_pretrained(tmp_path / "run"),
        lambda: type(tiny_model).from_pretrained(run),
    ):
        with pytest.raises(ValueError, match=f"got the run folder '{run}'. Load '{checkpoint}'"):
            load()
    assert main(["info", run]) == EXIT_USAGE
    assert f"Load '{checkpoint}'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="Unrecognized model"):  # any other folder: the error of transformers
        AutoConfig.from_pretrained(tmp_path)


def test_the_front_end_of_a_loaded_model_equals_a_new_one(folder):
    # transformers builds models on the meta device: a buffer outside the checkpoint would be uninitialized memory.
    loaded = AutoModelForAudioClassification.from_pretrained(folder)
    (front_end,) = [module for module in loaded.modules() if isinstance(module, LogMel)]
    fresh = LogMel(front_end.num_mel_bins, front_end.sampling_rate)

    for name, buffer in fresh.named_buffers():
        assert torch.equal(buffer, front_end.get_buffer(name)), name


def test_a_missing_head_is_an_error_that_names_its_tensors(folder):
    change_weights(folder, lambda weights: weights.pop("heads.emotions.weight"))

    with pytest.raises(ValueError, match=r"lacks weights.*heads\.emotions\.weight"):
        AutoModelForAudioClassification.from_pretrained(folder)
    with pytest.raises(ValueError, match=r"heads\.emotions\.weight"):
        pipeline("audio-emotion", model=str(folder), device="cpu")


def test_a_missing_tensor_of_the_base_model_is_an_error_even_with_new_heads(tiny_model, folder):
    name = next(name for name in tiny_model.state_dict() if name.endswith("trunk.embedding.weight"))
    change_weights(folder, lambda weights: weights.pop(name))

    with pytest.raises(ValueError, match=r"trunk\.embedding\.weight"):
        type(tiny_model).from_pretrained(folder, new_heads=True)


def test_a_missing_tensor_of_the_base_model_is_an_error_without_heads_too(tiny_model, folder):
    name = next(name for name in tiny_model.state_dict() if name.endswith("trunk.embedding.weight"))
    change_weights(folder, lambda weights: weights.pop(name))

    with pytest.raises(ValueError, match=r"lacks weights.*trunk\.embedding\.weight"):
        AutoModel.from_pretrained(folder)


def test_the_model_without_heads_ignores_heads_and_reports_other_unexpected_tensors(folder):
    _, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert info["unexpected_keys"] == set()

    change_weights(folder, lambda weights: weights.update({"trunk.unknown": torch.zeros(1)}))
    _, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert info["unexpected_keys"] == {"trunk.unknown"}


def test_the_model_with_heads_reports_a_head_that_it_does_not_have(folder):
    change_weights(folder, lambda weights: weights.update({"heads.unknown.weight": torch.zeros(1)}))

    _, info = AutoModelForAudioClassification.from_pretrained(folder, output_loading_info=True)

    assert info["unexpected_keys"] == {"heads.unknown.weight"}


def test_a_head_of_another_shape_is_an_error_without_new_heads(tiny_model, folder):
    change_weights(folder, lambda weights: weights.update({"heads.emotions.weight": torch.zeros(7, 10)}))

    with pytest.raises((ValueError, RuntimeError), match=r"heads\.emotions\.weight|mismatch"):
        type(tiny_model).from_pretrained(folder)
    model = type(tiny_model).from_pretrained(folder, new_heads=True)
    assert model.heads.emotions.weight.shape == (4, 10)
    assert torch.isfinite(model.heads.emotions.weight).all()


def test_the_pipeline_needs_no_trust_remote_code_where_the_package_is_imported(tiny_model, folder, speech):
    assert "custom_pipelines" in json.loads((folder / "config.json").read_text())

    pipe = pipeline("audio-emotion", model=str(folder), device="cpu")

    assert type(pipe.model) is type(tiny_model)
    assert pipe({"array": speech, "sampling_rate": 16000})["duration"] == 2.0


def test_the_audio_classification_pipeline_gives_the_same_scores(folder, speech):
    clip = {"array": speech, "sampling_rate": 16000}
    ours = pipeline("audio-emotion", model=str(folder), device="cpu")(clip)["emotions"]
    classification = pipeline("audio-classification", model=str(folder), device="cpu")(dict(clip))

    assert [each["label"] for each in classification] == [each["label"] for each in ours]
    assert [each["score"] for each in classification] == pytest.approx([each["score"] for each in ours], abs=1e-6)


def test_a_published_checkpoint_names_its_task(tiny_student, speech, tmp_path):
    write_checkpoint(tiny_student, tmp_path)

    named, unnamed = pipeline("audio-emotion", model=str(tmp_path)), pipeline(model=str(tmp_path))

    clip = {"array": speech, "sampling_rate": 16000}
    assert unnamed.task == "audio-emotion"
    assert unnamed(clip) == named(clip)
