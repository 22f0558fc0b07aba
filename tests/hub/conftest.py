"""A run folder as recipes leave it, with a tiny model in it."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import yaml
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from audio_emotion import FusedEmotionForAudioClassification
from audio_emotion.hub.checkpoint import write_checkpoint

SCORES = {
    "clips": 12,
    "speakers": ["ravdess/17", "ravdess/18"],
    **{"uar": 0.5123, "accuracy": 0.5, "macro_f1": 0.4},
    **{"ccc_activation": 0.61, "ccc_valence": 0.33, "ccc_dominance": 0.4},
    **{"control_ccc_activation": 0.5, "control_ccc_valence": 0.35, "control_ccc_dominance": 0.41},
    "intervals": {"uar": [0.4321, 0.5912], "ccc_valence": [0.2, 0.4]},
}


@pytest.fixture
def results() -> dict:
    scores = copy.deepcopy(SCORES)
    return {"recipe": "distill", "model": "tiny", "protocol": "ravdess-20-fixed", "seed": 0, "test": scores}


@pytest.fixture
def make_run(tmp_path, results):
    """Write a run folder around a model and return its path."""

    def make(model, name="run"):
        model.config.license = "CC-BY-NC-SA-4.0"
        model.config.dimensions_source = "norm-derived"
        teacher = {"corpus": "ravdess", "speakers": ["ravdess/01", "ravdess/02"], "teachers": []}
        distilled = {"corpus": "ravdess", "speakers": ["ravdess/01"], "teachers": [teacher]}
        model.config.training_data = [distilled if model.config.model_type == "student-emotion" else teacher]
        folder = tmp_path / name
        for which in ("last", "best"):
            write_checkpoint(model, folder / "checkpoints" / which)
        (folder / "results.json").write_text(json.dumps(results))
        encoders = [str(tmp_path / "encoders" / "whisper-tiny.en"), "log-mel"]
        (folder / "config.yaml").write_text(yaml.safe_dump({"encoders": encoders, "seed": 0}))
        (folder / "plots").mkdir(exist_ok=True)
        (folder / "plots" / "confusion_matrix.png").write_bytes(b"\x89PNG a picture")
        return folder

    return make


@pytest.fixture
def make_encoder(tiny_teacher_config):
    """Write a pretrained encoder of somebody else's to a folder and return that."""

    def make(folder):
        facts = {key: value for key, value in tiny_teacher_config.streams[0]["config"].items() if key != "model_type"}
        torch.manual_seed(3)
        Wav2Vec2Model(Wav2Vec2Config(**facts)).save_pretrained(folder)
        Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def make_lora_run(make_run):
    """Write the run folder of a teacher with LoRA: no trained part, statistics included, is as it began."""

    def make(encoder, name="run", source=None, layers=None):
        from audio_emotion.training.lora import add_lora

        torch.manual_seed(0)
        sizes = {"projection_size": 8, "convolution_size": 8, "hidden_size": 12, "embedding_size": 10}
        emotions = ["neutral", "happy", "sad", "angry"]
        teacher = FusedEmotionForAudioClassification.from_encoders(
            [str(encoder), "log-mel"], {str(encoder): layers}, emotions=emotions, **sizes
        )
        teacher.config.streams[0]["source"] = source or encoder.name
        folder = make_run(teacher, name)  # gives it license and provenance, too
        add_lora(teacher)
        with torch.no_grad():
            for key, tensor in teacher.state_dict().items():
                if "lora_B" in key or ".modules_to_save." in key:
                    tensor += 0.05 * torch.rand_like(tensor)
        for which in ("last", "best"):
            write_checkpoint(teacher, folder / "checkpoints" / which)
        encoders = [source or str(encoder), "log-mel"]
        (folder / "config.yaml").write_text(yaml.safe_dump({"encoders": encoders, "tuning": "lora"}))
        return folder

    return make
