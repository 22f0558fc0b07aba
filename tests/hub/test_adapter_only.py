"""A teacher trained with LoRA, published as its adapters alone and loaded over its encoders again."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForAudioClassification, pipeline

from audio_emotion import FusedEmotionForAudioClassification
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion_cli import EXIT_OK, EXIT_USAGE, main

pytest.importorskip("peft")


@pytest.fixture
def encoder(make_encoder, tmp_path) -> Path:
    return make_encoder(tmp_path / "somewhere" / "tiny-wav2vec2")


@pytest.fixture
def run(make_lora_run, encoder, request) -> Path:
    return make_lora_run(encoder, layers=getattr(request, "param", None))


@pytest.fixture
def published(run, tmp_path, capsys) -> Path:
    command = ["publish", str(run), "--repo", "somebody/elephant", "--adapter-only", "--dry-run"]
    assert main([*command, "--output", str(tmp_path / "out")]) == EXIT_OK, capsys.readouterr().err
    return tmp_path / "out"


def predict(model, speech):
    with torch.no_grad():
        return model.eval()(torch.from_numpy(speech)[None])


@pytest.mark.parametrize("run", [None, [1]], ids=["all layers", "the first layer"], indirect=True)
def test_an_adapter_has_the_outputs_of_the_merged_checkpoint(published, run, encoder, speech):
    encoders = {"tiny-wav2vec2": str(encoder)}
    merged = predict(AutoModelForAudioClassification.from_pretrained(run / "checkpoints" / "last"), speech)

    for loader in (AutoModelForAudioClassification, FusedEmotionForAudioClassification):
        output = predict(loader.from_pretrained(published, encoders=encoders), speech)
        for name in ("dimensions", "logits", "embedding"):
            torch.testing.assert_close(output[name], merged[name], rtol=0, atol=1e-5)
    embedding = predict(AutoModel.from_pretrained(published, encoders=encoders), speech).embedding
    torch.testing.assert_close(embedding, merged.embedding, rtol=0, atol=1e-5)
    recognizer = pipeline("audio-emotion", model=str(published), model_kwargs={"encoders": encoders}, device="cpu")
    prediction = recognizer({"raw": speech, "sampling_rate": 16000})["dimensions"]
    assert list(prediction.values()) == pytest.approx(merged.dimensions[0].tolist(), abs=1e-5)

    # It is the adapters that make the difference.
    path = published / "adapter" / "adapter_model.safetensors"
    silenced = {name: 0 * tensor if "lora_B" in name else tensor for name, tensor in load_file(path).items()}
    save_file(silenced, path, metadata={"format": "pt"})
    plain = predict(AutoModelForAudioClassification.from_pretrained(published, encoders=encoders), speech)
    assert (plain.embedding - merged.embedding).abs().max() > 1e-4


def test_what_is_published_holds_no_encoder_and_names_it(published, run):
    names = set(load_file(published / "adapter" / "adapter_model.safetensors"))
    streams = json.loads((published / "config.json").read_text())["streams"]
    card = (published / "README.md").read_text()

    assert list(published.rglob("*.safetensors")) == [published / "adapter" / "adapter_model.safetensors"]
    assert {name for name in names if ".encoder." in name} == {name for name in names if ".lora_" in name}
    assert any("heads.dimensions" in name for name in names)
    assert (published / "results.json").is_file()
    assert (published / "adapter" / "adapter_config.json").is_file()
    assert len(streams[0]["base_sha256"]) == 64
    assert (
        f"| tiny-wav2vec2 | tiny-wav2vec2 | not pinned: the digest decides | `{streams[0]['base_sha256']}` |" in card
    )
    for path in published.rglob("*"):
        if path.is_file():
            assert str(run.parent).encode() not in path.read_bytes(), path


def test_encoders_are_found_in_the_folder_of_the_environment(published, encoder, monkeypatch, tmp_path, speech):
    shutil.copytree(encoder, tmp_path / "data" / "encoders" / "tiny-wav2vec2")
    monkeypatch.setenv("AUDIO_EMOTION_DATA", str(tmp_path / "data"))

    found = AutoModelForAudioClassification.from_pretrained(published)

    given = AutoModelForAudioClassification.from_pretrained(published, encoders={"tiny-wav2vec2": str(encoder)})
    assert torch.equal(predict(found, speech).dimensions, predict(given, speech).dimensions)


def test_the_error_for_a_missing_encoder_shows_how_to_pass_it(published, monkeypatch, tmp_path):
    monkeypatch.delenv("AUDIO_EMOTION_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    with pytest.raises(OSError, match=r'encoders=\{"tiny-wav2vec2"'):
        AutoModelForAudioClassification.from_pretrained(
            published, encoders={"tiny-wav2vec2": str(tmp_path / "nothing")}
        )


def test_another_base_of_the_same_shape_is_refused(published, encoder, run, tmp_path, capsys):
    other = shutil.copytree(encoder, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["encoder.layers.1.attention.k_proj.bias"][0] += 1e-3
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ValueError, match=r"trained with, 'tiny-wav2vec2'.*other"):
        AutoModelForAudioClassification.from_pretrained(published, encoders={"tiny-wav2vec2": str(other)})

    # An encoder that has changed since the training is refused when publishing, too.
    shutil.copy(other / "model.safetensors", encoder / "model.safetensors")
    command = ["publish", str(run), "--repo", "a/b", "--adapter-only", "--dry-run", "--output", str(tmp_path / "new")]
    assert main(command) == EXIT_USAGE
    assert "trained with" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["lora_A", "heads.dimensions.weight", "log_mel.mean", "layer_mix.deviation"])
@pytest.mark.parametrize("what", ["missing", "misshapen"])
def test_an_adapter_that_does_not_fit_is_refused_by_its_tensor(what, part, published, encoder):
    path = published / "adapter" / "adapter_model.safetensors"
    weights = load_file(path)
    first = min(name for name in weights if part in name)
    tensor = weights.pop(first)
    if what == "misshapen":
        weights[first] = tensor[..., :1].contiguous()
    save_file(weights, path, metadata={"format": "pt"})

    with pytest.raises(ValueError, match=rf"does not fit.*{part.replace('.', '.*')}"):
        AutoModelForAudioClassification.from_pretrained(published, encoders={"tiny-wav2vec2": str(encoder)})


@pytest.mark.parametrize("source", ["../tiny-wav2vec2", "/tiny-wav2vec2", "a/../../b"])
def test_an_encoder_outside_its_folder_is_refused(source, published, encoder):
    config = json.loads((published / "config.json").read_text())
    config["streams"][0]["source"] = source
    (published / "config.json").write_text(json.dumps(config))

    with pytest.raises(ValueError, match=rf"name of an encoder.*{source}"):
        AutoModelForAudioClassification.from_pretrained(published, encoders={"tiny-wav2vec2": str(encoder)})


def test_a_run_without_adapters_is_refused(tiny_teacher, make_run, tmp_path, capsys):
    command = ["publish", str(make_run(tiny_teacher)), "--repo", "a/b", "--adapter-only", "--dry-run"]

    assert main([*command, "--output", str(tmp_path / "out")]) == EXIT_USAGE
    assert "--tuning lora" in capsys.readouterr().err


def test_a_model_loaded_from_its_adapter_is_written_as_a_whole(published, encoder, speech, tmp_path):
    model = AutoModelForAudioClassification.from_pretrained(published, encoders={"tiny-wav2vec2": str(encoder)})

    again = AutoModelForAudioClassification.from_pretrained(write_checkpoint(model, tmp_path / "whole"))

    assert torch.equal(predict(again, speech).dimensions, predict(model, speech).dimensions)


def test_the_code_in_the_card_runs(published, encoder, speech):
    (code,) = re.findall(r"`(pipeline\(.*?\))`", (published / "README.md").read_text())
    here = code.replace("somebody/elephant", str(published)).replace("path/or/id", str(encoder))

    recognizer = eval(here, {"pipeline": pipeline})

    assert set(recognizer({"raw": speech, "sampling_rate": 16000})["dimensions"]) == {
        "activation",
        "valence",
        "dominance",
    }
