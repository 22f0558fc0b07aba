"""A teacher of two encoders from folders and log-mel: frozen, with LoRA, and fully fine-tuned."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForAudioClassification,
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

RECIPE = runpy.run_path(str(Path(__file__).parents[1] / "recipes" / "train_teacher.py"))
FAMILIES = {"tiny-wav2vec2": (Wav2Vec2Config, Wav2Vec2Model), "tiny-hubert": (HubertConfig, HubertModel)}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> list[str]:
    folders = []
    torch.manual_seed(0)
    for name, (config, model) in FAMILIES.items():
        folder = tmp_path_factory.mktemp("encoders") / name
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
        convolutions = {"conv_dim": (8, 8, 8, 8), "conv_kernel": (10, 8, 4, 4), "conv_stride": (5, 4, 4, 4)}
        positions = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
        layers = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
        model(config(**sizes, **convolutions, **positions, **layers)).save_pretrained(folder)
        Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
        folders.append(str(folder))
    return folders


@pytest.mark.parametrize("tuning", ["frozen", "lora", pytest.param("full", marks=pytest.mark.slow)])
def test_only_the_trained_parameters_change(encoders, tuning, tmp_path):
    size = {"hidden_size": 16, "convolution_size": 16, "corpus_count": 40, "epochs": 1, "batch_size": 8}
    arguments = RECIPE["TeacherArguments"](
        output=str(tmp_path / "run"),
        cache=str(tmp_path / "cache"),
        encoders=[*encoders, "log-mel"],
        tuning=tuning,
        encoder_learning_rate=1e-3,
        **size,
    )
    results = RECIPE["main"](arguments)

    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "run" / "checkpoints" / "last")
    assert [stream["name"] for stream in model.config.streams] == ["tiny-wav2vec2", "tiny-hubert", "log-mel"]
    for folder, stream in zip(encoders, model.teacher.streams, strict=False):
        changed = {
            name
            for name, tensor in AutoModel.from_pretrained(folder).state_dict().items()
            if not torch.equal(tensor, stream.encoder.state_dict()[name])
        }
        feed_forward = {name for name in changed if "_dense.weight" in name}
        if tuning == "frozen":
            assert changed == set()
        elif tuning == "lora":
            assert len(feed_forward) == 4  # two of each layer
            assert changed == feed_forward
        else:
            assert len(feed_forward) == 4
            assert any("attention" in name for name in changed)
    assert not any("lora" in name for name in model.state_dict())

    # The saved checkpoint has the scores of the run.
    evaluate = runpy.run_path(str(Path(__file__).parents[1] / "recipes" / "evaluate.py"))
    again = evaluate["main"](
        evaluate["EvaluateArguments"](
            model=str(tmp_path / "run" / "checkpoints" / "last"),
            output=str(tmp_path / "again"),
            corpus_count=40,
            repeats=0,
            plots=False,
        )
    )
    scores = json.loads((tmp_path / "run" / "results.json").read_text())["test"]
    assert scores["ccc_valence"] == results["test"]["ccc_valence"]
    # Cached states are float16.
    assert again["test"]["ccc_valence"] == pytest.approx(scores["ccc_valence"], abs=2e-3)
