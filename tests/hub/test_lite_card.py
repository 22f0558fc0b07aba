"""The `lite` model: how `info` and a published card describe it, and how its parameters are counted."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForAudioClassification

import audio_emotion
from audio_emotion import FusedEmotionForAudioClassification
from audio_emotion.hub.card_facts import encoder_facts, model_kind
from audio_emotion_cli import main

LITE = Path(audio_emotion.__file__).parent / "embedded" / "lite"
POSITIONS = 1500 * 384  # of Whisper tiny.en


@pytest.fixture
def tiny_lite(tiny_teacher_config) -> FusedEmotionForAudioClassification:
    config = copy.deepcopy(tiny_teacher_config)
    config.streams = [{**config.streams[0], "source": "somebody/tiny-encoder", "layers": [0, 1]}]
    config.trunk, config.look_ahead, config.pooling = "linear", 0, "attentive"
    return FusedEmotionForAudioClassification(config).eval()


def publish(run: Path, folder: Path) -> str:
    assert main(["publish", str(run), "--repo", "somebody/mouse", "--dry-run", "--output", str(folder)]) == 0
    return (folder / "README.md").read_text()


def test_a_published_lite_model_is_not_called_a_teacher(tiny_lite, make_run, results, tmp_path):
    results["recipe"] = "train_teacher"
    run = make_run(tiny_lite)

    card = publish(run, tmp_path / "published")

    text = " ".join(card.split())
    assert card.split("---")[2].strip().startswith("# mouse")
    assert "A `lite` model for speech emotion recognition: the first layer of somebody/tiny-encoder, and" in text
    assert f"{tiny_lite.num_parameters():,} parameters" in text
    assert "was trained on labels, without a teacher" in text
    assert "It contains weights of somebody/tiny-encoder, under the license in the model card there." in text
    assert "CC-BY-NC-SA-4.0, the terms of ravdess; non-commercial use only" in text
    assert "| ravdess | 01, 02 | none |" in text
    assert "Emotion recognition in recordings of consenting speakers" in text
    assert not re.search("fuse|training students|distilled", text)
    metadata = ModelCard(card).data
    assert metadata.base_model == ["somebody/tiny-encoder"]
    assert not {"feature-fusion", "knowledge-distillation"} & set(metadata.tags)


def test_a_model_with_layers_of_whisper_is_published_with_its_license(make_run, results, tmp_path):
    results["recipe"] = "train_teacher"
    run = make_run(AutoModelForAudioClassification.from_pretrained(LITE))

    card = publish(run, tmp_path / "published")

    notice = (tmp_path / "published" / "LICENSE-whisper").read_text()
    assert notice in "\n".join(line.removeprefix("   ") for line in (LITE / "LICENSE").read_text().splitlines()) + "\n"
    assert notice.startswith("MIT License")
    assert "Copyright (c) 2022 OpenAI" in notice
    assert "LICENSE-whisper" in card


def test_several_streams_and_other_trunks_are_teachers(tiny_teacher, tiny_lite, tiny_student):
    kinds = [model_kind(each.config) for each in (tiny_teacher, tiny_lite, tiny_student)]

    assert kinds == ["teacher", "lite", "student"]
    tiny_lite.config.trunk = "tc-gru"
    assert model_kind(tiny_lite.config) == "teacher"


@pytest.mark.parametrize(
    ("layers", "part"),
    [
        (None, "all layers"),
        ([0], "the input of the first layer"),
        ([1, 2], "the first 2 layers"),
        ([1], "the first layer"),
    ],
)
def test_the_used_part_of_an_encoder(tiny_lite, layers, part):
    tiny_lite.config.streams[0]["layers"] = layers

    assert [each["part"] for each in encoder_facts(tiny_lite.config)] == [part]


def test_info_and_card_of_the_default_model_agree(capsys):
    assert main(["info", "--format", "json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert main(["info"]) == 0
    text = capsys.readouterr().out

    model = AutoModelForAudioClassification.from_pretrained(LITE)
    assert facts["kind"] == "lite"
    assert re.search(r"^kind +lite: the first 2 layers of the pretrained encoder whisper-tiny.en", text, re.MULTILINE)
    assert facts["parameters"] == model.num_parameters()
    assert facts["parameters"] == sum(each.numel() for each in model.parameters()) - POSITIONS
    assert f"{facts['parameters']:,} parameters" in (LITE / "README.md").read_text()
    trained = [each.numel() for each in model.parameters() if each.requires_grad]
    assert model.num_parameters(only_trainable=True) == sum(trained)


def test_the_card_of_the_default_model_is_rendered_from_the_template():
    card = (LITE / "README.md").read_text()

    assert "A `lite` model for speech emotion recognition: the first 2 layers of openai/whisper-tiny.en" in card
