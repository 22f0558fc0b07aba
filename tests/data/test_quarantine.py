"""Runs on a corpus with broken files: each of them is listed, and all other clips are used exactly once."""

from __future__ import annotations

import json
import runpy
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import yaml

import audio_emotion
from audio_emotion.data.dataset import ClipStream, batches
from audio_emotion.data.registry import corpus_table
from audio_emotion.data.sampler import ResumableSampler

COUNT = 200
RECIPES = {
    name: runpy.run_path(str(Path(__file__).parents[2] / "recipes" / f"{name}.py"))
    for name in ("distill", "evaluate", "fine_tune", "pretrain_student", "train_teacher")
}
DISTIL = RECIPES["distill"]


def video_without_audio(path: Path) -> None:
    with av.open(str(path), "w") as video:
        stream = video.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            video.mux(stream.encode(frame))
        video.mux(stream.encode())


def break_files(folder: Path, names: list[str]) -> None:
    """Six kinds of faults, in turn."""
    for number, name in enumerate(names):
        path = folder / name
        kind = number % 6
        if kind == 0:  # truncated
            path.write_bytes(path.read_bytes()[:600])
        elif kind == 1:  # empty
            path.write_bytes(b"")
        elif kind == 2:  # wrong extension
            path.write_text("this is no sound")
        elif kind == 3:  # not finite
            soundfile.write(path, np.full(8000, np.nan), 16000, subtype="FLOAT")
        elif kind == 4:  # zero length
            soundfile.write(path, np.zeros(0), 16000)
        else:  # a video without audio
            video_without_audio(path.with_suffix(".mp4"))
            path.with_suffix(".mp4").rename(path)


@pytest.fixture
def corpus(tmp_path):
    """A function that writes a corpus with a number of broken clips; it returns its description and their ids."""

    def make(bad: int) -> tuple[str, set[str]]:
        random = np.random.default_rng(0)
        lines = ["file,who,label,activation"]
        for index in range(COUNT):
            soundfile.write(tmp_path / f"{index:03d}.wav", 0.1 * random.standard_normal(6000), 16000)
            lines.append(f"{index:03d}.wav,s{index % 10},{('low', 'high')[index % 2]},{index % 5 / 4}")
        (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
        broken = [f"{index:03d}.wav" for index in random.choice(COUNT, bad, replace=False)]
        break_files(tmp_path, broken)
        description = {"name": "own", "license": "CC0-1.0", "citation": "Made by the test.", "source": "csv"}
        description |= {
            "path": "clips.csv",
            "scale": [0, 1],
            "emotions": ["low", "high"],
            "dimensions": ["activation"],
        }
        description |= {"columns": {"audio": "file", "speaker": "who", "emotion": "label", "activation": "activation"}}
        description |= {"dimensions_source": "rated", "splits": {"train": [f"s{n}" for n in range(10)]}}
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(description))
        return str(tmp_path / "own.yaml"), {f"own/{name.removesuffix('.wav')}" for name in broken}

    return make


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_files_are_listed_and_all_other_clips_occur_once(corpus, workers):
    file, broken = corpus(6)
    table = corpus_table(file)
    stream = ClipStream(table)

    counts: Counter = Counter()
    for batch in batches(
        stream,
        ResumableSampler.from_table(table, 8, shuffle=True, num_workers=workers),
        ["low", "high"],
        ["activation"],
    ):
        counts.update(name for name, weight in zip(batch.ids, batch.weight, strict=True) if weight)

    assert set(stream.quarantine) == broken
    assert all(stream.quarantine.values())
    assert counts == Counter(set(table["id"]) - broken)


def test_a_run_with_3_percent_broken_files_finishes_and_one_with_6_percent_stops(corpus, tmp_path):
    arguments = {"teacher": "", "size": "nano", "epochs": 1, "labeled": 1.0}
    file, broken = corpus(6)
    DISTIL["main"](DISTIL["DistillArguments"](corpus=file, output=str(tmp_path / "three"), **arguments))

    lines = [json.loads(line) for line in (tmp_path / "three" / "quarantine.jsonl").read_text().splitlines()]
    assert {line["id"] for line in lines} == broken
    assert (tmp_path / "three" / "checkpoints" / "last" / "model.safetensors").exists()

    file, _ = corpus(12)
    with pytest.raises(ValueError, match=r"of 200 clips are bad, more than 5%.*quarantine.jsonl"):
        DISTIL["main"](DISTIL["DistillArguments"](corpus=file, output=str(tmp_path / "six"), **arguments))
    lines = [json.loads(line) for line in (tmp_path / "six" / "quarantine.jsonl").read_text().splitlines()]
    assert len(lines) == 11  # the first that are more than 5 %


@pytest.fixture
def held_out(tmp_path) -> str:
    """Forty clips to train on, every second without a label, and six of a test speaker; one of each is broken."""
    lines = ["file,who,label,activation"]
    random = np.random.default_rng(0)
    for index in range(46):
        soundfile.write(tmp_path / f"{index:03d}.wav", 0.1 * random.standard_normal(6000), 16000)
        speaker = "tested" if index >= 40 else f"s{index % 4}"
        labels = f"{('low', 'high')[index // 2 % 2]},{index % 5 / 4}" if index % 2 or index >= 40 else ","
        lines.append(f"{index:03d}.wav,{speaker},{labels}")
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
    break_files(tmp_path, ["007.wav", "043.wav"])
    (tmp_path / "own.yaml").write_text(
        "name: own\nlicense: CC0-1.0\ncitation: made by the test\nsource: csv\npath: clips.csv\n"
        "columns: {audio: file, speaker: who, emotion: label, activation: activation}\nscale: [0, 1]\n"
        "emotions: [low, high]\ndimensions: [activation]\ndimensions_source: rated\n"
        "splits: {train: [s0, s1, s2, s3], test: [tested]}\n"
    )
    return str(tmp_path / "own.yaml")


def quarantine(run: Path) -> set[str]:
    return {json.loads(line)["id"] for line in (run / "quarantine.jsonl").read_text().splitlines()}


@pytest.mark.parametrize(
    ("name", "cls", "others"),
    [
        ("distill", "DistillArguments", {"teacher": "", "size": "nano", "labeled": 0.5}),
        ("fine_tune", "FineTuneArguments", {}),
        ("train_teacher", "TeacherArguments", {"cache": "", "hidden_size": 16, "convolution_size": 16}),
    ],
)
def test_a_broken_clip_of_the_test_split_does_not_lose_the_training_and_is_listed(
    held_out, name, cls, others, tmp_path, capsys
):
    def train(run: str, **more) -> dict:
        arguments = {"corpus": held_out, "output": str(tmp_path / run), "epochs": 1, **others, **more}
        return RECIPES[name]["main"](RECIPES[name][cls](**arguments))

    with pytest.raises(ValueError, match="1 of 6 clips are bad"):
        train("stopped")
    assert (tmp_path / "stopped" / "checkpoints" / "last" / "model.safetensors").exists()
    assert quarantine(tmp_path / "stopped") == {"own/007", "own/043"}

    results = train("allowed", max_bad_fraction=0.5)
    assert results["test"]["clips"] == 5
    assert quarantine(tmp_path / "allowed") == {"own/007", "own/043"}
    if name == "distill":
        assert "10 of 20 labels used" in capsys.readouterr().out
        assert results["labeled"] == 0.5


def test_a_teacher_with_cached_states_is_tested_without_the_broken_clips(held_out, tmp_path):
    arguments = {"corpus": held_out, "epochs": 1, "hidden_size": 16, "convolution_size": 16}
    arguments |= {"output": str(tmp_path / "run"), "cache": str(tmp_path / "cache")}

    results = RECIPES["train_teacher"]["main"](RECIPES["train_teacher"]["TeacherArguments"](**arguments))

    assert results["test"]["clips"] == 5
    assert quarantine(tmp_path / "run") == {"own/007", "own/043"}


def test_a_student_is_pretrained_and_tested_without_the_broken_clips(held_out, tiny_encoders, tmp_path):
    arguments = {"corpus": held_out, "epochs": 1, "size": "nano", "encoder": tiny_encoders[0], "layers": [0, 1]}
    arguments |= {"output": str(tmp_path / "run"), "cache": str(tmp_path / "cache"), "frames_per_step": 4}

    RECIPES["pretrain_student"]["main"](RECIPES["pretrain_student"]["PretrainArguments"](**arguments))

    assert (tmp_path / "run" / "checkpoints" / "last" / "model.safetensors").exists()
    assert quarantine(tmp_path / "run") == {"own/007", "own/043"}


@pytest.mark.parametrize(
    ("name", "cls", "others"),
    [
        ("distill", "DistillArguments", {"teacher": "", "size": "nano"}),
        ("fine_tune", "FineTuneArguments", {}),
        ("train_teacher", "TeacherArguments", {"cache": "", "cross_fit": 2}),
    ],
)
def test_a_recipe_refuses_a_class_without_training_label_before_it_trains(held_out, name, cls, others, tmp_path):
    table, text = Path(held_out).with_name("clips.csv"), Path(held_out).read_text()
    last = table.read_text().splitlines()[-1]
    table.write_text(table.read_text().replace(last, f"{last.split(',')[0]},tested,rare,0.5"))
    Path(held_out).write_text(text.replace("[low, high]", "[low, high, rare]"))

    arguments = RECIPES[name][cls](corpus=held_out, output=str(tmp_path / "run"), epochs=1, **others)

    with pytest.raises(ValueError, match=r"training clips of every emotion, got none of \['rare'\]"):
        RECIPES[name]["main"](arguments)
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_an_evaluation_lists_the_broken_clips_of_all_processes(held_out, tmp_path, monkeypatch):
    other = {"own/008": "broken on another process"}
    monkeypatch.setattr("audio_emotion.data.dataset.gather_object", lambda each: [*each, other])
    student = str(Path(audio_emotion.__file__).parent / "embedded" / "student")
    classes = ("happy", "sad", "fearful", "disgust")
    label_map = {"neutral": "low", "angry": "high", **dict.fromkeys(classes)}
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(label_map))
    arguments = {"corpus": held_out, "model": student, "label_map": str(tmp_path / "map.yaml"), "plots": False}
    arguments |= {"split": "train", "repeats": 0, "output": str(tmp_path / "run")}

    RECIPES["evaluate"]["main"](RECIPES["evaluate"]["EvaluateArguments"](**arguments))

    assert quarantine(tmp_path / "run") == {"own/007", "own/008"}
