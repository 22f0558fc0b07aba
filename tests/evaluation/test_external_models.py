"""Models of other projects: FunASR's interface, audEERING's class, and tables of predictions."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from audio_emotion.data.registry import corpus_info, corpus_table
from audio_emotion.evaluation.external_models import external_model
from audio_emotion.evaluation.label_matching import MatchedClassifier
from audio_emotion.evaluation.table_predictions import read_table

EMOTIONS = ("angry", "happy", "neutral", "sad")
DIMENSIONS = ("activation", "valence", "dominance")


class Recognizer:
    """The interface of `funasr.AutoModel` for emotion2vec: the louder, the angrier."""

    def __init__(self, model, disable_update):
        assert (model, disable_update) == ("iic/emotion2vec_plus_seed", True)
        self.model = torch.nn.Linear(3, 4)

    def generate(self, clip, granularity, extract_embedding, disable_pbar):
        loud = float(min(np.abs(clip).max(), 0.97))
        assert (granularity, extract_embedding) == ("utterance", False)
        labels = ["生气/angry", "开心/happy", "中立/neutral", "难过/sad", "<unk>"]
        return [{"labels": labels, "scores": [loud, *[(1 - loud) / 4] * 4]}]


def test_a_model_of_funasr_is_matched_by_its_english_names(monkeypatch):
    monkeypatch.setitem(sys.modules, "funasr", SimpleNamespace(AutoModel=Recognizer))
    model = MatchedClassifier("funasr:iic/emotion2vec_plus_seed", EMOTIONS, DIMENSIONS)
    assert model.emotions == list(EMOTIONS)
    assert model.dimensions == []
    assert model.public_models == ["iic/emotion2vec_plus_seed"]
    assert model.model.num_parameters() == 16
    clips = torch.stack([torch.full((400,), 0.9), torch.zeros(400)])
    probabilities = model(clips, torch.ones(2, 400)).logits.exp()
    torch.testing.assert_close(probabilities[0, 0], torch.tensor(0.9))
    torch.testing.assert_close(probabilities[1, 1:], torch.full((3,), 0.25))


def test_funasr_that_is_not_installed_is_an_error_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "funasr", None)
    with pytest.raises(ImportError, match="pip install funasr"):
        external_model("funasr:iic/emotion2vec_plus_seed")


@pytest.fixture
def regression_folder(tmp_path):
    """A tiny checkpoint with the names of audEERING's published one."""
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, conv_dim=(8, 8),
        conv_kernel=(10, 8), conv_stride=(5, 4), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, id2label={0: "arousal", 1: "dominance", 2: "valence"},
        architectures=["Wav2Vec2ForSpeechClassification"],
    )  # fmt: skip
    weights = {f"wav2vec2.{name}": each for name, each in Wav2Vec2Model(config).state_dict().items()}
    weights |= {"classifier.dense.weight": torch.randn(16, 16), "classifier.dense.bias": torch.randn(16)}
    weights |= {"classifier.out_proj.weight": torch.randn(3, 16), "classifier.out_proj.bias": torch.randn(3)}
    config.save_pretrained(tmp_path)
    names = {"original0": "weight_g", "original1": "weight_v"}  # as torch named them when it was published
    old = {name: next((new for end, new in names.items() if name.endswith(end)), None) for name in weights}
    renamed = {
        name if new is None else name.replace(f"parametrizations.weight.{name.rpartition('.')[2]}", new): weights[name]
        for name, new in old.items()
    }
    save_file({name: each.contiguous() for name, each in renamed.items()}, tmp_path / "model.safetensors")
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
    return tmp_path, weights


def test_audeerings_class_gives_the_formula_of_its_card(regression_folder):
    folder, weights = regression_folder
    model = MatchedClassifier(str(folder), EMOTIONS, DIMENSIONS).eval()
    assert model.dimensions == list(DIMENSIONS)
    assert model.emotions == []
    clip = torch.randn(1, 4_000)
    found = model(clip, torch.ones(1, 4_000)).dimensions[0]

    encoder = Wav2Vec2Model.from_pretrained(folder)
    encoder.load_state_dict({name[9:]: each for name, each in weights.items() if name.startswith("wav2vec2.")})
    normalized = (clip - clip.mean()) / torch.sqrt(clip.var(correction=0) + 1e-7)
    pooled = encoder.eval()(normalized).last_hidden_state.mean(1)
    dense = torch.tanh(pooled @ weights["classifier.dense.weight"].T + weights["classifier.dense.bias"])
    scores = (dense @ weights["classifier.out_proj.weight"].T + weights["classifier.out_proj.bias"])[0]
    torch.testing.assert_close(found, scores[[0, 2, 1]], atol=1e-5, rtol=1e-4)


def test_a_missing_weight_of_the_regression_is_an_error(regression_folder):
    folder, _ = regression_folder
    save_file({"classifier.dense.bias": torch.zeros(16)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"classifier\.dense\.weight"):
        external_model(str(folder))


def test_a_folder_without_such_a_class_is_left_to_the_auto_classes(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["HubertForSequenceClassification"]}))
    assert external_model(str(tmp_path)) is None


def test_a_table_of_probabilities_is_read_by_name(tmp_path):
    info, rows = corpus_info("synthetic"), corpus_table("synthetic", count=6)
    names = [name.rpartition("/")[2] for name in rows["id"]]
    lines = ["file,arousal," + ",".join(info.emotions)]
    for place, name in enumerate(reversed(names)):
        probabilities = [0.7 if each == place % len(info.emotions) else 0.1 for each in range(len(info.emotions))]
        lines.append(f"somewhere/{name}.wav,0.{place}," + ",".join(map(str, probabilities)))
    path = tmp_path / "predictions.csv"
    path.write_text("\n".join(lines))
    predictions, emotions, dimensions = read_table(str(path), rows, info)
    assert emotions == list(info.emotions)
    assert dimensions == ["activation"]
    assert predictions.ids == sorted(rows["id"])
    order = [names[::-1].index(name.rpartition("/")[2]) for name in predictions.ids]
    assert predictions.logits.argmax(1).tolist() == [each % len(info.emotions) for each in order]
    np.testing.assert_allclose(predictions.dimensions[:, 0], [each / 10 for each in order])

    path.write_text("\n".join(lines[:-1]))
    with pytest.raises(ValueError, match="a row for every clip"):
        read_table(str(path), rows, info)
    path.write_text("name,angry\nx,1")
    with pytest.raises(ValueError, match="expected a column among"):
        read_table(str(path), rows, info)


def test_a_table_with_one_class_per_clip_is_read(tmp_path):
    info, rows = corpus_info("synthetic"), corpus_table("synthetic", count=6)
    path = tmp_path / "answers.csv"
    answers = [info.emotions[place % 2] for place in range(6)]
    path.write_text(
        "\n".join(["id,emotion", *(f"{name},{each}" for name, each in zip(rows["id"], answers, strict=True))])
    )
    predictions, emotions, dimensions = read_table(str(path), rows, info)
    found = dict(zip(predictions.ids, (emotions[place] for place in predictions.logits.argmax(1)), strict=True))
    assert [found[name] for name in rows["id"]] == answers
    assert dimensions == []
