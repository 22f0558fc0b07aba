"""Fine-tuning on a described corpus with its own categories and scale."""

from __future__ import annotations

import csv
import io
import json
import logging
import runpy
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForAudioClassification, pipeline

import audio_emotion
from audio_emotion.data.registry import corpus_rows
from audio_emotion.hub.card_facts import model_kind
from audio_emotion.hub.checkpoint import write_checkpoint

RECIPE = runpy.run_path(str(Path(__file__).parents[1] / "recipes" / "fine_tune.py"))
EMBEDDED_LITE = Path(audio_emotion.__file__).parent / "embedded" / "lite"
NAMES = {"neutral": "flat", "calm": "flat", "happy": "pleased", "angry": "cross"}
OLD = json.loads(Path(audio_emotion.STUDENT, "config.json").read_text())["emotions"]


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """Sixty clips of ten speakers in a CSV, with categories and a scale that no built-in corpus has."""
    folder = tmp_path_factory.mktemp("own")
    with (folder / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "who", "label", "arousal", "other"])
        for number, row in enumerate(corpus_rows("synthetic", count=60)):
            name = row["id"].rsplit("/", 1)[-1] + ".wav"
            samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
            soundfile.write(folder / name, samples, rate)
            table.writerow([name, row["speaker"], NAMES.get(row["emotion"], ""), 1 + 4 * row["activation"],
                            f"my-{OLD[number % len(OLD)]}"])  # fmt: skip
    description = {
        "name": "callcenter",
        "license": "CC0-1.0",
        "citation": "Made by the test.",
        "source": "csv",
        "path": "clips.csv",
        "columns": {"audio": "file", "speaker": "who", "emotion": "label", "activation": "arousal"},
        "scale": [1, 5],
        "emotions": ["flat", "pleased", "cross"],
        "dimensions": ["activation"],
        "dimensions_source": "rated",
        "splits": {"fractions": {"train": 0.6, "validation": 0.2, "test": 0.2}, "seed": 0},
    }
    (folder / "callcenter.yaml").write_text(yaml.safe_dump(description))
    return folder


@pytest.fixture(scope="module")
def tuned(own, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("tuned")
    arguments = {"corpus": str(own / "callcenter.yaml"), "model": audio_emotion.STUDENT, "epochs": 2}
    RECIPE["main"](RECIPE["FineTuneArguments"](output=str(output), **arguments))
    return output


def test_a_fine_tuned_model_predicts_the_categories_of_its_corpus(own, tuned):
    clip = next(iter(sorted(own.glob("*.wav"))))

    answer = pipeline("audio-emotion", model=str(tuned / "checkpoints" / "last"))(str(clip))

    assert {each["label"] for each in answer["emotions"]} == {"flat", "pleased", "cross"}
    assert set(answer["dimensions"]) == {"activation"}


def test_a_fine_tuned_model_records_old_and_new_training_data_and_license(tuned):
    config = json.loads((tuned / "checkpoints" / "last" / "config.json").read_text())
    results = json.loads((tuned / "results.json").read_text())

    old = ["crema-d", "emospeech-commands", "nemo", "ravdess"]
    assert [each["corpus"] for each in config["training_data"]] == [*old, "callcenter"]
    assert set(config["training_data"][-1]["speakers"]) == set(results["train_speakers"])
    assert set(results["test"]["speakers"]).isdisjoint(results["train_speakers"])
    assert results["contaminated_by"] == []
    assert config["license"] == "ODbL-1.0 AND CC-BY-NC-SA-4.0 AND CC0-1.0"
    assert config["dimensions_source"] == "rated"


def test_the_default_model_is_fine_tuned_and_stays_lite(own, tmp_path):
    lite = str(EMBEDDED_LITE)
    arguments = {"corpus": str(own / "callcenter.yaml"), "model": lite, "tuning": "frozen", "epochs": 1}
    RECIPE["main"](RECIPE["FineTuneArguments"](output=str(tmp_path), **arguments))

    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "checkpoints" / "last")
    assert model_kind(model.config) == "lite"
    assert model.config.license == "ODbL-1.0 AND MIT AND CC0-1.0"
    assert model.heads.emotions.out_features == 3
    before = AutoModelForAudioClassification.from_pretrained(lite).base_model.state_dict()
    assert all(torch.equal(before[name], each) for name, each in model.base_model.state_dict().items())


def test_the_default_is_the_model_of_the_pipeline():
    given = RECIPE["FineTuneArguments"](corpus="synthetic")

    assert given.model == ""
    assert pipeline("audio-emotion", device="cpu").model.name_or_path == audio_emotion.DEFAULT


def test_frozen_tuning_changes_only_the_heads(own, tuned, tmp_path):
    source = tuned / "checkpoints" / "last"
    arguments = {"corpus": str(own / "callcenter.yaml"), "model": str(source), "tuning": "frozen", "epochs": 1}
    RECIPE["main"](RECIPE["FineTuneArguments"](output=str(tmp_path), **arguments))

    before = load_file(source / "model.safetensors")
    after = load_file(tmp_path / "checkpoints" / "last" / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("heads.") for name in changed)


def test_heads_have_the_size_of_the_corpus_labels(tuned):
    model = AutoModelForAudioClassification.from_pretrained(tuned / "checkpoints" / "last")

    assert model.heads.emotions.out_features == 3
    assert model.heads.dimensions.out_features == 1


def test_heads_for_as_many_new_emotions_are_newly_initialized(own, tmp_path, caplog):
    student = AutoModelForAudioClassification.from_pretrained(audio_emotion.STUDENT)
    names = [f"my-{name}" for name in student.config.emotions]
    description = yaml.safe_load((own / "callcenter.yaml").read_text()) | {"emotions": names}
    description["columns"]["emotion"] = "other"
    (own / "as_many.yaml").write_text(yaml.safe_dump(description))
    logging.getLogger("transformers.modeling_utils").addHandler(caplog.handler)
    arguments = {"corpus": str(own / "as_many.yaml"), "model": audio_emotion.STUDENT}
    arguments |= {"tuning": "frozen", "epochs": 1, "learning_rate": 0.0}

    RECIPE["main"](RECIPE["FineTuneArguments"](output=str(tmp_path), **arguments))

    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "checkpoints" / "last")
    before, after = student.heads.emotions.weight.flatten(), model.heads.emotions.weight.flatten()
    assert before.shape == after.shape
    assert abs(torch.corrcoef(torch.stack([before, after]))[0, 1]) < 0.2
    assert not model.heads.emotions.bias.any()
    assert "LOAD REPORT" not in caplog.text  # new heads are what was asked for


def test_new_heads_keep_the_weights_of_the_same_labels_only(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    names = [f"my-{name}" for name in tiny_model.config.emotions]

    model = type(tiny_model).from_pretrained(tmp_path, new_heads=True, emotions=names)

    assert not torch.equal(model.heads.emotions.weight, tiny_model.heads.emotions.weight)
    assert torch.equal(model.heads.dimensions.weight, tiny_model.heads.dimensions.weight)
    assert not model.heads.training


def test_the_encoders_of_a_teacher_have_a_learning_rate_of_their_own(own, tiny_teacher, tmp_path):
    write_checkpoint(tiny_teacher, tmp_path / "teacher")
    arguments = {"model": str(tmp_path / "teacher"), "epochs": 1, "augment": 0.0}
    arguments |= {"learning_rate": 1e-2, "encoder_learning_rate": 0.0}

    RECIPE["main"](
        RECIPE["FineTuneArguments"](corpus=str(own / "callcenter.yaml"), output=str(tmp_path / "run"), **arguments)
    )

    before = load_file(tmp_path / "teacher" / "model.safetensors")
    after = load_file(tmp_path / "run" / "checkpoints" / "last" / "model.safetensors")
    changed = {name for name in before if name in after and not torch.equal(before[name], after[name])}
    assert {name.split(".")[1] for name in changed} >= {"trunk", "emotions", "dimensions"}
    assert not [name for name in changed if ".encoder." in name]


def test_own_categories_with_norm_derived_dimensions_have_no_control_and_are_scored(own, tmp_path):
    description = yaml.safe_load((own / "callcenter.yaml").read_text()) | {"dimensions_source": "norm-derived"}
    (own / "derived.yaml").write_text(yaml.safe_dump(description))

    arguments = {"corpus": str(own / "derived.yaml"), "model": audio_emotion.STUDENT, "tuning": "frozen"}
    results = RECIPE["main"](RECIPE["FineTuneArguments"](output=str(tmp_path), epochs=1, **arguments))

    assert "ccc_activation" in results["test"]
    assert not any(name.startswith("control") for name in results["test"])


def test_a_corpus_without_dimensions_trains_and_contamination_is_reported(own, tuned, tmp_path, capsys):
    description = yaml.safe_load((own / "callcenter.yaml").read_text())
    earlier = json.loads((tuned / "results.json").read_text())["train_speakers"]
    names = [name.removeprefix("callcenter/") for name in earlier]
    description |= {"dimensions": [], "splits": {"train": names[:2], "test": names[2:3]}}
    description["columns"].pop("activation")
    for key in ("scale", "dimensions_source"):
        description.pop(key)
    (own / "words.yaml").write_text(yaml.safe_dump(description))
    arguments = {"corpus": str(own / "words.yaml"), "model": str(tuned / "checkpoints" / "last"), "epochs": 1}

    results = RECIPE["main"](RECIPE["FineTuneArguments"](output=str(tmp_path), **arguments))

    assert "uar" in results["test"]
    assert not any(name.startswith("ccc") for name in results["test"])
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "checkpoints" / "last")
    assert model.heads.dimensions is None
    assert results["contaminated_by"] == earlier[2:3]
    printed = capsys.readouterr().out
    assert earlier[2] in printed[printed.index("WARNING") : printed.index("test (contaminated): ")]


def test_lora_on_a_student_is_refused(own, tmp_path):
    arguments = {"corpus": str(own / "callcenter.yaml"), "model": audio_emotion.STUDENT, "tuning": "lora"}
    with pytest.raises(ValueError, match="adapts a teacher's encoders"):
        RECIPE["main"](RECIPE["FineTuneArguments"](output=str(tmp_path), **arguments))
