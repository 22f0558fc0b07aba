"""A run folder as recipes leave it, with a tiny model in it."""

from __future__ import annotations

import copy
import json

import pytest
import yaml

from audio_emotion.hub.checkpoints import write_checkpoint

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
    return {"recipe": "distill", "model": "tiny", "split": "ravdess-20-fixed", "seed": 0, "test": scores}


@pytest.fixture
def make_run(tmp_path, results):
    """Write a run folder around a model and return its path."""

    def make(model, name="run"):
        model.config.license = "CC-BY-NC-SA-4.0"
        model.config.dimensions_source = "norm-derived"
        teacher = {"corpus": "ravdess", "speakers": ["ravdess/01", "ravdess/02"], "teachers": []}
        heard = {"corpus": "ravdess", "speakers": ["ravdess/01"], "teachers": [teacher]}
        model.config.training_data = [heard if model.config.model_type == "student-emotion" else teacher]
        folder = tmp_path / name
        for which in ("last", "best"):
            write_checkpoint(model, folder / "checkpoints" / which)
        (folder / "results.json").write_text(json.dumps(results))
        encoders = [str(tmp_path / "encoders" / "whisper-tiny.en"), "log-mel"]
        (folder / "config.yaml").write_text(yaml.safe_dump({"encoders": encoders, "seed": 0}))
        (folder / "pictures").mkdir(exist_ok=True)
        (folder / "pictures" / "confusion_matrix.png").write_bytes(b"\x89PNG a picture")
        return folder

    return make
