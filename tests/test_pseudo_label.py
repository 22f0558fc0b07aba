"""Pseudo-labels: what teachers said, of the right clip at the right time, whole or not at all."""

from __future__ import annotations

import json
import math
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile
import torch
import yaml
from audio_visual import Face, babble, draw, encode, find_discs, talking, write_clip
from datasets import load_dataset
from transformers import (
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
)

from audio_emotion.audio_io import read_audio
from audio_emotion.data.dataset import TooManyBadClipsError
from audio_emotion.evaluation.label_matching import canonical_label, canonical_labels
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.hub.checks import check_folder
from audio_emotion.hub.publish import assemble
from audio_emotion.teachers.outputs import Clip, TeacherOutputs, agreement, softmax
from audio_emotion.teachers.pseudo_labels import read_rows, read_teachers, to_teacher_outputs
from audio_emotion.teachers.speech import SpeechTeacher
from audio_emotion.teachers.votes import VotesTeacher

RECIPES = Path(__file__).parents[1] / "recipes"
SECONDS = 1.5
CLASSES = ["Happiness", "Fear", "neutral"]  # of the tiny face teacher


@pytest.fixture(scope="module")
def recipe() -> dict:
    return runpy.run_path(str(RECIPES / "pseudo_label.py"))


@pytest.fixture
def label(recipe, tmp_path):
    """The recipe, with the discs' detector."""

    def run(output: str = "run", **arguments) -> dict:
        arguments = {"output": str(tmp_path / output), "shard_clips": 4, "batch_size": 3, **arguments}
        return recipe["main"](recipe["PseudoLabelArguments"](**arguments), find_discs)

    return run


@pytest.fixture(scope="module")
def face_model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(**sizes, image_size=32, patch_size=8, id2label=dict(enumerate(CLASSES)), initializer_range=0.5)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def speech_model(tiny_student, tmp_path) -> str:
    tiny_student.config.training_data = [{"corpus": "ravdess", "speakers": ["ravdess/01"], "teachers": []}]
    tiny_student.config.license = "CC-BY-NC-SA-4.0"
    return str(write_checkpoint(tiny_student, tmp_path / "student"))


def corpus_of(folder: Path, **arguments) -> str:
    """Describe a folder of clips; the speaker is the folder that a clip lies in."""
    described = {"name": "talk", "license": "CC-BY-4.0", "citation": "Nobody 2026.", "source": "audiofolder"}
    described |= {"path": "clips", "columns": {"audio": "file_name", "speaker": "folder_1"}, **arguments}
    (folder / "talk.yaml").write_text(yaml.safe_dump(described))
    return str(folder / "talk.yaml")


@pytest.fixture(scope="module")
def good_clips(tmp_path_factory) -> Path:
    """Ten clips of a red face, the last with a green one that speaks in its place."""
    folder = tmp_path_factory.mktemp("corpus") / "clips" / "anna"
    folder.mkdir(parents=True)
    for number in range(10):
        sound, loudness = babble(SECONDS + 0.1 * number, seed=number)
        faces = [Face(place=lambda time, number=number: (50 + 3 * number, 60.0))]
        if number == 9:
            faces = [
                Face("red", lambda time: 0.5, lambda time: (46.0, 64.0)),
                Face("green", talking(loudness), lambda time: (146.0, 64.0)),
            ]
        write_clip(folder / f"{number}.mp4", faces, sound)
    return folder.parents[1]


@pytest.fixture
def good(good_clips, tmp_path) -> str:
    shutil.copytree(good_clips / "clips", tmp_path / "clips")
    return corpus_of(tmp_path)


def by_clip(folder: Path) -> dict[str, dict]:
    return {row["id"].rsplit("/", 1)[-1]: row for row in read_rows(folder / "dataset")}


def parquet_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "dataset" / "data").iterdir())}


def test_every_teacher_says_of_every_clip_what_it_says_alone(
    label, good, speech_model, face_model, tiny_student, tmp_path
):
    results = label(corpus=good, teachers=[f"speech:{speech_model}", f"face:{face_model}"])
    rows = by_clip(tmp_path / "run")

    assert (results["clips"], results["quarantined"], list(rows)) == (10, 0, [str(number) for number in range(10)])
    for name, row in rows.items():
        clip = read_audio(str(tmp_path / "clips" / "anna" / f"{name}.mp4"))
        heard = torch.from_numpy(clip.waveform)[None]
        with torch.no_grad():
            output = tiny_student(heard, torch.ones_like(heard).long())
        assert row["speech"]["logits"] == pytest.approx(output.logits[0].tolist(), abs=1e-4)
        assert row["speech"]["dimensions"] == pytest.approx(output.dimensions[0].tolist(), abs=1e-4)
        assert row["speech"]["embedding"] == pytest.approx(output.embedding[0].tolist(), abs=1e-3)
        assert row["duration"] == pytest.approx(len(clip.waveform) / 16000)
        assert row["speaker"] == "talk/anna"
        face = row["face"]
        assert face["confidence"] == pytest.approx(softmax(np.array(face["logits"])).max(), abs=1e-5)
        frames = softmax(np.array(face["frame_logits"], float))
        assert softmax(np.array(face["logits"])) == pytest.approx(frames.mean(0), abs=2e-3)  # kept in half precision
    assert [row["faces"] for row in rows.values()] == [1] * 9 + [2]


def test_faces_have_the_time_of_the_sound_and_only_as_long_as_it_lasts(label, good, face_model, tmp_path):
    label(corpus=good, teachers=[f"face:{face_model}"])

    for row in by_clip(tmp_path / "run").values():
        times = row["face"]["frame_times"]
        assert times == pytest.approx(np.arange(len(times)) * 0.24, abs=0.05)
        assert row["duration"] - 0.34 < times[-1] <= row["duration"]
        assert len(row["face"]["frame_logits"]) == len(times)
        assert row["face_detection_rate"] == pytest.approx(1.0, abs=0.05)


def bad_clips(folder: Path) -> dict[str, bytes]:
    sound, loudness = babble(SECONDS)
    other = babble(SECONDS, seed=5)[1]
    left, right = (lambda time: (46.0, 64.0)), (lambda time: (146.0, 64.0))

    def film(*faces: Face):
        return lambda time: draw(faces, time)

    whole = encode("mp4", film(Face()), sound, SECONDS)
    return {
        "good": whole,
        "no_sound": encode("mp4", film(Face()), None, SECONDS),
        "no_pictures": encode("mp4", None, sound, 0),
        "no_face": encode("mp4", film(), sound, SECONDS),
        "two_faces": encode("mp4", film(Face("red", talking(loudness), left), Face("green", talking(other), right)),
                            sound, SECONDS),
        "two_silent_faces": encode("mp4", film(Face("red", place=left), Face("green", place=right)), sound, SECONDS),
        "one_frame": encode("mp4", film(Face()), sound, 0.04),
        "empty": b"",
        "short_film": encode("mp4", film(Face()), sound, 0.4),
        "long_film": encode("mp4", film(Face()), sound, 4.0),
        "text": b"no clip at all" * 50,
    }  # fmt: skip


# Whether it is heard, why its face is not seen (None: it is), and whether it counts as broken.
FATE = {
    "good": (True, None, False),
    "no_sound": (False, None, True),
    "no_pictures": (True, "the clip has no video", False),
    "no_face": (True, "no face", False),
    "two_faces": (True, None, False),
    "two_silent_faces": (True, "2 faces", False),
    "one_frame": (True, "video: expected moving pictures, got 1 frame", True),
    "empty": (False, None, True),
    "short_film": (True, "video: expected sound and pictures of one length", True),
    "long_film": (True, "video: expected sound and pictures of one length", True),
    "text": (False, None, True),
}


def test_bad_clips_are_quarantined_or_masked_each_with_its_reason(label, speech_model, face_model, tmp_path):
    (tmp_path / "clips" / "anna").mkdir(parents=True)
    for name, content in bad_clips(tmp_path).items():
        (tmp_path / "clips" / "anna" / f"{name}.mp4").write_bytes(content)

    results = label(
        corpus=corpus_of(tmp_path),
        teachers=[f"speech:{speech_model}", f"face:{face_model}"],
        max_bad_fraction=0.6,
    )
    rows = by_clip(tmp_path / "run")
    lines = (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()
    quarantine = {json.loads(line)["id"].rsplit("/", 1)[-1]: json.loads(line)["reason"] for line in lines}

    assert set(rows) == {name for name, (heard, _, _) in FATE.items() if heard}
    assert set(quarantine) == {name for name, (_, _, broken) in FATE.items() if broken}
    for name, row in rows.items():
        reason = FATE[name][1]
        assert row["speech"]["mask"]
        assert row["face"]["mask"] == (reason is None), name
        assert (row["face"]["reason"] or "").startswith(reason or ""), name
        assert (row["agreement"] is None) == (reason is not None)
        assert (row["face"]["logits"] is None) == (reason is not None)
        if FATE[name][2]:
            assert quarantine[name].endswith("its sound is kept")
    assert "0 bytes" in quarantine["empty"]
    assert "no sound track" in quarantine["no_sound"]
    assert results["quarantined"] == len(quarantine)
    assert results["spoken"]["face"]["silent"]["no face"] == 1


def test_too_many_broken_files_stop_the_run_and_stand_in_its_quarantine(label, speech_model, tmp_path):
    (tmp_path / "clips" / "anna").mkdir(parents=True)
    sound, _ = babble(SECONDS)
    for number in range(12):
        soundfile.write(tmp_path / "clips" / "anna" / f"{number:02d}.wav", sound, 16000)
    (tmp_path / "clips" / "anna" / "05.wav").write_bytes(b"")
    corpus = corpus_of(tmp_path)

    with pytest.raises(TooManyBadClipsError, match=r"1 of 12 clips.*anna/05"):
        label(corpus=corpus, teachers=[f"speech:{speech_model}"])

    (line,) = (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == "talk/anna/05"
    assert label("other", corpus=corpus, teachers=[f"speech:{speech_model}"], max_bad_fraction=0.1)["clips"] == 11


def test_a_run_killed_twice_goes_on_and_leaves_the_same_shards(
    label, recipe, good, speech_model, face_model, tmp_path, monkeypatch
):
    arguments = {"corpus": good, "teachers": [f"speech:{speech_model}", f"face:{face_model}"], "max_bad_fraction": 0.2}
    (tmp_path / "clips" / "anna" / "1.mp4").write_bytes(b"")
    label("whole", **arguments)
    work = recipe["clip_of"]
    asked: list[str] = []

    def until(last: str):
        def clip_of(row, *others):
            asked.append(row["id"])
            if row["id"] == last:
                raise KeyboardInterrupt  # what a kill leaves behind, but for shutting down
            return work(row, *others)

        return clip_of

    for last in ("talk/anna/6", "talk/anna/9"):
        monkeypatch.setitem(recipe["main"].__globals__, "clip_of", until(last))
        with pytest.raises(KeyboardInterrupt):
            label("killed", **arguments)
        assert not list((tmp_path / "killed").glob("results.json"))
    monkeypatch.setitem(recipe["main"].__globals__, "clip_of", until("nobody"))
    asked.clear()
    label("killed", **arguments)

    assert asked == ["talk/anna/8", "talk/anna/9"]  # shards of four; the first two were whole
    assert parquet_of(tmp_path / "killed") == parquet_of(tmp_path / "whole")
    for name in ("quarantine.jsonl", "results.json", "dataset/teachers.json"):
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert not list((tmp_path / "killed").rglob("*.partial"))


def test_a_finished_run_is_not_done_again_and_another_one_is_not_written_over(label, good, speech_model, tmp_path):
    arguments = {"corpus": good, "teachers": [f"speech:{speech_model}"]}
    first = label(**arguments)
    before = parquet_of(tmp_path / "run")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}

    assert label(**arguments) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == written
    with pytest.raises(ValueError, match="shard_clips"):
        label(**arguments, shard_clips=3)
    label(**arguments, shard_clips=3, restart=True)
    assert set(before).isdisjoint(parquet_of(tmp_path / "run"))


def test_what_teachers_said_becomes_what_a_student_learns_from(label, speech_model, face_model, tmp_path):
    (tmp_path / "clips" / "anna").mkdir(parents=True)
    for name in ("good", "no_face", "two_faces", "no_pictures", "two_silent_faces"):
        (tmp_path / "clips" / "anna" / f"{name}.mp4").write_bytes(bad_clips(tmp_path)[name])
    label(corpus=corpus_of(tmp_path), teachers=[f"speech:{speech_model}", f"look=face:{face_model}"], shard_clips=1)
    rows = by_clip(tmp_path / "run")

    heard = to_teacher_outputs(tmp_path / "run" / "dataset", "speech")
    seen = to_teacher_outputs(tmp_path / "run" / "dataset", "look")

    assert heard.ids == seen.ids == [f"talk/anna/{name}" for name in sorted(rows)]
    assert (heard.name, seen.name) == ("speech", "look")
    assert heard.mask.tolist() == [1] * 5
    assert seen.mask.tolist() == [1, 0, 0, 1, 0]  # good, no face, no pictures, two, two silent
    assert seen.emotions == ["happy", "fearful", "neutral"]
    assert heard.training_data == [{"corpus": "ravdess", "speakers": ["ravdess/01"], "teachers": []}]
    for place, name in enumerate(sorted(rows)):
        assert heard.logits[place].tolist() == rows[name]["speech"]["logits"]
        assert heard.dimensions[place].tolist() == rows[name]["speech"]["dimensions"]
        if seen.mask[place]:
            assert seen.logits[place].tolist() == rows[name]["look"]["logits"]
            assert seen.embedding[place].tolist() == rows[name]["look"]["embedding"]
            assert seen.confidence[place].item() == rows[name]["look"]["confidence"]
            assert seen.agreement[place].item() == rows[name]["agreement"]
        else:
            assert seen.agreement[place] == 1
    assert seen.dimensions.isnan().all()
    assert not seen.logits.isnan().any()
    seen.save(tmp_path / "outputs")
    assert torch.equal(TeacherOutputs.load(tmp_path / "outputs").logits, seen.logits)
    with pytest.raises(ValueError, match=r"speech.*look.*listener"):
        to_teacher_outputs(tmp_path / "run" / "dataset", "listener")


def test_the_folder_is_a_data_set_that_streams_and_can_be_published(label, good, speech_model, face_model, tmp_path):
    label(corpus=good, teachers=[f"speech:{speech_model}", f"face:{face_model}"], repo="somebody/faces")
    folder = tmp_path / "run" / "dataset"

    rows = list(load_dataset(str(folder), split="train", streaming=True))

    assert rows == list(read_rows(folder))
    elsewhere = fsspec.filesystem("memory")  # as on the Hub, whose files are `hf://`
    elsewhere.put(str(folder), "/labels", recursive=True)
    assert list(read_rows("memory://labels")) == rows
    assert read_teachers("memory://labels") == read_teachers(folder)
    assert assemble(folder, tmp_path / "unused", "somebody/faces", "dataset") == folder
    check_folder(folder, "dataset")
    card = (folder / "README.md").read_text()
    assert 'load_dataset("somebody/faces"' in card
    assert "| `face` | face |" in card
    assert "happy, fearful, neutral" in card
    assert "ravdess (01)" in card
    for path in folder.rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes(), path
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    said: dict = {}
    exec(code.replace("somebody/faces", str(folder)), said)
    assert said["row"]["id"] == "talk/anna/0"


def test_packed_clips_are_labeled_like_those_in_files(label, speech_model, face_model, tmp_path):
    root = tmp_path / "ravdess" / "Actor_01"
    root.mkdir(parents=True)
    for number in range(1, 6):
        sound, _ = babble(SECONDS, seed=number)
        take = f"01-{number:02d}-01-01-01-01"
        soundfile.write(root / f"03-{take}.wav", sound, 16000)
        if number != 2:
            pictures = encode("mp4", lambda time: draw([Face()], time), None, SECONDS)
            (root / f"02-{take}.mp4").write_bytes(pictures)
    pack = runpy.run_path(str(RECIPES / "pack.py"))
    packing = {"corpus": "ravdess/video", "corpus_path": str(root.parent), "output": str(tmp_path / "packed")}
    pack["main"](pack["PackArguments"](**packing, video=True))
    teachers = [f"speech:{speech_model}", f"face:{face_model}"]

    label("files", corpus="ravdess/video", corpus_path=str(root.parent), teachers=teachers, shard_clips=2)
    label("shards", corpus=str(tmp_path / "packed" / "corpus.yaml"), teachers=teachers, shard_clips=2)

    assert by_clip(tmp_path / "shards") == by_clip(tmp_path / "files")  # packing changes the order
    rows = by_clip(tmp_path / "files").values()
    assert [row["face"]["mask"] for row in rows] == [True, False, True, True, True]


def test_any_public_audio_classifier_is_a_teacher_under_our_words(make_foreign_model, tmp_path):
    folder = make_foreign_model(tmp_path / "foreign", ["ang", "Happiness", "sad", "neutral"])
    teacher = SpeechTeacher("speech", folder)
    sound, _ = babble(2.0)
    model = Wav2Vec2ForSequenceClassification.from_pretrained(folder).eval()
    features = Wav2Vec2FeatureExtractor.from_pretrained(folder)(sound, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        output = model(**features, output_hidden_states=True)

    (said,) = teacher.label([Clip("c/1", sound)])

    assert teacher.facts.classes == ["angry", "happy", "sad", "neutral"]
    assert said.logits == pytest.approx(output.logits[0].numpy(), abs=1e-5)
    assert said.embedding == pytest.approx(output.hidden_states[-1][0].mean(0).numpy(), abs=1e-5)
    assert said.dimensions is None


def test_a_public_regression_gives_dimensions_by_name_and_no_categories(make_foreign_model, tmp_path):
    folder = make_foreign_model(tmp_path / "foreign", ["dominance", "arousal", "valence"])
    teacher = SpeechTeacher("speech", folder)
    sound, _ = babble(2.0)
    features = Wav2Vec2FeatureExtractor.from_pretrained(folder)(sound, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        dominance, arousal, valence = Wav2Vec2ForSequenceClassification.from_pretrained(folder)(**features).logits[0]

    (said,) = teacher.label([Clip("c/1", sound)])

    assert teacher.facts.classes == []
    assert said.logits is None
    assert said.dimensions == pytest.approx(
        [max(0.0, float(each)) for each in (arousal, valence, dominance)], abs=1e-5
    )


def test_numbered_classes_are_refused_and_take_names_from_a_description(make_foreign_model, tmp_path):
    folder = make_foreign_model(tmp_path / "foreign", ["LABEL_0", "LABEL_1"])
    (tmp_path / "teacher.yaml").write_text("{model: foreign, classes: [Sadness, joy], license: MIT}")

    with pytest.raises(ValueError, match=r"LABEL_0.*classes"):
        SpeechTeacher("speech", folder)
    facts = SpeechTeacher("speech", str(tmp_path / "teacher.yaml")).facts
    assert (facts.classes, facts.license) == (["sad", "happy"], "MIT")


@pytest.mark.parametrize("told", ["hearing:x", "speech", "speech:", "1=speech:x", "id=speech:x"])
def test_a_teacher_nobody_knows_is_refused(label, told, speech_model):
    with pytest.raises((ValueError, OSError), match=r"speech|Hub"):
        label(teachers=[told.replace(":x", f":{speech_model}")])


def test_teachers_of_one_name_or_none_are_refused(label, speech_model):
    for teachers in ([], [f"speech:{speech_model}"] * 2):
        with pytest.raises(ValueError, match="names that differ"):
            label(teachers=teachers)


def test_agreement_is_one_less_the_jensen_shannon_divergence_over_shared_classes():
    one, other = np.log([0.5, 0.25, 0.25]), np.log([0.2, 0.2, 0.6])  # of happy, sad, calm; of sad, contempt, happy
    p, q = np.array([0.5, 0.25]) / 0.75, np.array([0.6, 0.2]) / 0.8
    middle = (p + q) / 2
    divergence = (np.sum(p * np.log2(p / middle)) + np.sum(q * np.log2(q / middle))) / 2

    found = agreement(one, ["happy", "sad", "calm"], other, ["sad", "contempt", "happy"])

    assert found == pytest.approx(1 - divergence)
    assert agreement(one, ["happy", "sad", "calm"], one, ["happy", "sad", "calm"]) == pytest.approx(1.0)
    far = np.array([0.0, -99.0])
    assert agreement(far, ["happy", "sad"], far, ["sad", "happy"]) == pytest.approx(0.0, abs=1e-9)
    assert agreement(one, ["happy", "sad", "calm"], other, ["happy", "other", "contempt"]) is None


def test_one_emotion_has_one_word():
    assert [canonical_label(name) for name in ("Fear", "JOY", "Sadness", "sur", " Awe")] == [
        "fearful", "happy", "sad", "surprised", "awe",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="differ"):
        canonical_labels(["anger", "Anger"], "model")


VOTES = Path(os.environ.get("AUDIO_EMOTION_DATA", "")) / "crema_d_labels"


@pytest.mark.skipif(not (VOTES / "tabulatedVotes.csv").is_file(), reason="needs $AUDIO_EMOTION_DATA/crema_d_labels")
def test_the_votes_of_crema_d_speak_as_a_teacher_whose_softmax_they_are():
    nothing = np.zeros(16000, np.float32)
    told = {}
    for heard in ("voice", "face", "audio-visual"):
        teacher = VotesTeacher(heard, f"crema-d/{heard}", VOTES)
        said = teacher.label(
            [Clip(f"crema-d/{name}", nothing) for name in teacher.shares] + [Clip("crema-d/9", nothing)]
        )
        shares = np.array(list(teacher.shares.values()))  # (7442, 6)
        assert softmax(np.stack([each.logits for each in said[:-1]])) == pytest.approx(shares, abs=6e-4)
        assert said[-1].reason == "no votes"
        told[heard] = dict(zip(teacher.shares, said, strict=False))
    assert [len(each) for each in told.values()] == [7442] * 3
    # The first clip of tabulatedVotes.csv: counted there by hand.
    with (VOTES / "tabulatedVotes.csv").open() as lines:
        header, line = (next(lines).replace('"', "").strip().split(",") for _ in range(2))
    row = dict(zip(header, line, strict=True))
    counts = np.array([float(row[letter]) for letter in "ADFHNS"])
    assert row[""].startswith("1")
    assert softmax(told["voice"][row["fileName"]].logits) == pytest.approx(counts / counts.sum(), abs=6e-4)
    with pytest.raises(ValueError, match="crema-d/face"):
        VotesTeacher("votes", "crema-d/eyes", VOTES)


@pytest.mark.skipif(not (VOTES / "tabulatedVotes.csv").is_file(), reason="needs $AUDIO_EMOTION_DATA/crema_d_labels")
def test_a_run_over_crema_d_writes_what_raters_of_the_face_voted(label, speech_model, tmp_path):
    root = tmp_path / "crema-d"
    (root / "AudioWAV").mkdir(parents=True)
    (root / "processedResults").mkdir()
    shutil.copyfile(VOTES / "tabulatedVotes.csv", root / "processedResults" / "tabulatedVotes.csv")
    names = ["1001_DFA_ANG_XX", "1001_IEO_HAP_HI", "1002_TAI_SAD_XX"]
    for name in names:
        soundfile.write(root / "AudioWAV" / f"{name}.wav", babble(1.0)[0], 16000)

    label(corpus="crema-d", corpus_path=str(root), teachers=[f"speech:{speech_model}", "seen=votes:crema-d/face"])
    rows = by_clip(tmp_path / "run")

    expected = VotesTeacher("seen", "crema-d/face", VOTES).shares
    assert list(rows) == names
    for name, row in rows.items():
        assert softmax(np.array(row["seen"]["logits"])) == pytest.approx(np.array(expected[name]), abs=6e-4)
    outputs = to_teacher_outputs(tmp_path / "run" / "dataset", "seen")
    assert outputs.emotions == ["angry", "disgust", "fearful", "happy", "neutral", "sad"]
    assert outputs.embedding.shape == (3, 0)
    assert outputs.agreement is None
    assert read_teachers(tmp_path / "run" / "dataset")["seen"].license == "ODbL-1.0"
    assert all(math.isfinite(value) for value in outputs.logits.flatten().tolist())


@pytest.mark.slow
def test_two_processes_write_the_shards_of_one(speech_model, tmp_path):
    def run(output: str, *launcher: str) -> None:
        command = [*launcher, str(RECIPES / "pseudo_label.py"), "--output", str(tmp_path / output)]
        command += ["--corpus_count", "30", "--shard_clips", "8", "--teachers", f"speech:{speech_model}"]
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert f"{2 if len(launcher) > 1 else 1} process(es)" in done.stdout

    run("one", sys.executable)
    run("two", sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29731")

    assert parquet_of(tmp_path / "two") == parquet_of(tmp_path / "one")
    assert (tmp_path / "two" / "results.json").read_text() == (tmp_path / "one" / "results.json").read_text()
