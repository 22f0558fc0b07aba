"""Loading: no missing weights, no pickles, and adapters only on a complete base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForAudioClassification

from audio_emotion import FusedEmotionForAudioClassification
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.training.lora import add_lora


def predict(model, speech) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.from_numpy(speech)[None])


@pytest.fixture
def adapted(tiny_teacher, tmp_path):
    """A teacher with LoRA whose outputs differ from those of its base, and the folders of both."""
    pytest.importorskip("peft")
    base = write_checkpoint(tiny_teacher, tmp_path / "base")
    model = AutoModelForAudioClassification.from_pretrained(base)
    add_lora(model)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    return model.eval(), base, tmp_path / "adapter"


def test_a_checkpoint_with_only_a_pickle_is_refused(tiny_model, tmp_path):
    folder = write_checkpoint(tiny_model, tmp_path / "checkpoint")
    (folder / "model.safetensors").unlink()
    torch.save(tiny_model.state_dict(), folder / "pytorch_model.bin")

    with pytest.raises(OSError, match=r"model\.safetensors"):
        AutoModelForAudioClassification.from_pretrained(folder)
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AutoModelForAudioClassification.from_pretrained(folder, use_safetensors=False)


@pytest.mark.parametrize("loader", [AutoModelForAudioClassification, FusedEmotionForAudioClassification])
def test_a_folder_with_only_an_adapter_is_loaded_on_its_base(loader, adapted, speech):
    model, base, folder = adapted

    loaded = loader.from_pretrained(folder)

    output, plain = predict(loaded, speech), predict(AutoModelForAudioClassification.from_pretrained(base), speech)
    torch.testing.assert_close(output.dimensions, predict(model, speech).dimensions, rtol=0, atol=1e-6)
    torch.testing.assert_close(output.logits, predict(model, speech).logits, rtol=0, atol=1e-6)
    assert (output.dimensions - plain.dimensions).abs().max() > 1e-4


def test_an_adapter_is_loaded_on_a_model_without_heads(adapted, speech):
    model, _, folder = adapted

    embedding = predict(AutoModel.from_pretrained(folder), speech).embedding

    torch.testing.assert_close(embedding, predict(model, speech).embedding, rtol=0, atol=1e-6)


def test_an_adapter_on_a_base_without_heads_is_refused(adapted):
    _, base, folder = adapted
    described = json.loads((folder / "adapter_config.json").read_text())
    described["modules_to_save"] = None
    (folder / "adapter_config.json").write_text(json.dumps(described))
    change(base / "model.safetensors", lambda name, tensor: None if name.startswith("heads.") else tensor)
    change(folder / "adapter_model.safetensors", lambda name, tensor: tensor if "lora" in name else None)

    with pytest.raises(ValueError, match=r"base.*lacks weights.*heads\.dimensions\.bias"):
        AutoModelForAudioClassification.from_pretrained(folder)


@pytest.mark.parametrize("what", ["missing", "misshapen", "left over"])
def test_an_adapter_that_does_not_fit_is_an_error_that_names_its_tensors(what, adapted):
    _, _, folder = adapted
    first = min(name for name in load_file(folder / "adapter_model.safetensors") if "lora_A" in name)

    def mend(name: str, tensor: torch.Tensor) -> torch.Tensor | None:
        if name == first:
            return {"missing": None, "misshapen": tensor[:1], "left over": tensor}[what]
        return tensor

    change(folder / "adapter_model.safetensors", mend)
    if what == "left over":
        weights = load_file(folder / "adapter_model.safetensors")
        weights["base_model.model.teacher.nowhere.lora_A.weight"] = torch.ones(2, 2)
        save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ValueError, match=r"does not fit.*lora_A"):
        AutoModelForAudioClassification.from_pretrained(folder)


def test_an_adapter_in_a_pickle_is_refused(adapted):
    _, _, folder = adapted
    weights = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    torch.save(weights, folder / "adapter_model.bin")

    with pytest.raises(OSError, match=r"adapter_model\.safetensors"):
        AutoModelForAudioClassification.from_pretrained(folder)


def change(path: Path, each) -> None:
    """Rewrite a safetensors file with the tensors of `each(name, tensor)`; None leaves a tensor out."""
    changed = {name: each(name, tensor) for name, tensor in load_file(path).items()}
    kept = {name: tensor.clone() for name, tensor in changed.items() if tensor is not None}
    save_file(kept, path, metadata={"format": "pt"})
