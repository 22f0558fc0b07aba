"""recipes/pseudo_label.py: correct outputs for every clip and time, complete shards, resumption, unreadable files."""

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
from audio_visual import Face, draw, encode, find_discs, moving_mouth, random_audio, write_clip
from datasets import load_dataset
from scipy.special import softmax
from transformers import (
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
)

from audio_emotion import EmotionFeatureExtractor
from audio_emotion.audio_io import read_audio
from audio_emotion.data.dataset import TooManyBadClipsError
from audio_emotion.evaluation.label_matching import MatchedClassifier, canonical_label, canonical_labels
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.hub.checks import check_folder
from audio_emotion.hub.publish import assemble
from audio_emotion.teachers.outputs import Clip, TeacherOutputs, compute_agreement
from audio_emotion.teachers.pseudo_labels import _to_list, read_rows, read_teacher_outputs, read_teachers
from audio_emotion.teachers.speech import SpeechTeacher
from audio_emotion.teachers.votes import VotesTeacher

RECIPES = Path(__file__).parents[1] / "recipes"
SECONDS = 1.5
CLASSES = ["Happiness", "Fear", "neutral"]  # of the tiny face teacher


@pytest.fixture(scope="module")
def recipe() -> dict:
    return runpy.run_path(str(RECIPES / "pseudo_label.py"))


@pytest.fixture
def label(recipe, tmp_path, monkeypatch):
    """Run the recipe with the detector of discs."""
    monkeypatch.chdir(tmp_path)

    def run(output: str = "run", **arguments) -> dict:
        arguments = {"output": output, "shard_clips": 4, **arguments}
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


def describe_corpus(folder: Path) -> str:
    """Describe a folder of clips; the speaker is the folder of a clip."""
    described = {"name": "talk", "license": "CC-BY-4.0", "citation": "Nobody 2026.", "source": "audiofolder"}
    described |= {"path": "clips", "columns": {"audio": "file_name", "speaker": "folder_1"}}
    (folder / "talk.yaml").write_text(yaml.safe_dump(described))
    return str(folder / "talk.yaml")


@pytest.fixture(scope="module")
def good_clips(tmp_path_factory) -> Path:
    """Ten clips of a red face; in the last one a green face speaks next to it."""
    folder = tmp_path_factory.mktemp("corpus") / "clips" / "anna"
    folder.mkdir(parents=True)
    for number in range(10):
        audio, loudness = random_audio(SECONDS + 0.1 * number, seed=number)
        faces = [Face(place=lambda time, number=number: (50 + 3 * number, 60.0))]
        if number == 9:
            faces = [
                Face("red", lambda time: 0.5, lambda time: (46.0, 64.0)),
                Face("green", moving_mouth(loudness), lambda time: (146.0, 64.0)),
            ]
        write_clip(folder / f"{number}.mp4", faces, audio)
    return folder.parents[1]


@pytest.fixture
def good(good_clips, tmp_path) -> str:
    shutil.copytree(good_clips / "clips", tmp_path / "clips")
    return describe_corpus(tmp_path)


def by_clip(folder: Path) -> dict[str, dict]:
    return {row["id"].rsplit("/", 1)[-1]: row for row in read_rows(folder / "dataset")}


def parquet_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "dataset" / "data").iterdir())}


def test_the_outputs_for_every_clip_are_those_of_its_models(
    label, good, speech_model, face_model, tiny_student, tmp_path
):
    results = label(corpus=good, teachers=[f"speech:{speech_model}", f"face:{face_model}"])
    rows = by_clip(tmp_path / "run")

    assert (results["clips"], results["quarantined"], list(rows)) == (10, 0, [str(number) for number in range(10)])
    for name, row in rows.items():
        clip = read_audio(str(tmp_path / "clips" / "anna" / f"{name}.mp4"))
        waveform = torch.from_numpy(clip.waveform)[None]
        with torch.no_grad():
            output = tiny_student(waveform, torch.ones_like(waveform).long())
        assert row["speech"]["logits"] == pytest.approx(output.logits[0].tolist(), abs=1e-4)
        assert row["speech"]["dimensions"] == pytest.approx(output.dimensions[0].tolist(), abs=1e-4)
        assert row["speech"]["embedding"] == pytest.approx(output.embedding[0].tolist(), abs=1e-3)
        assert row["duration"] == pytest.approx(len(clip.waveform) / 16000)
        assert row["speaker"] == "talk/anna"
        face = row["face"]
        assert face["confidence"] == pytest.approx(softmax(np.array(face["logits"])).max(), abs=1e-5)
        frames = softmax(np.array(face["frame_logits"], float), axis=-1)
        assert softmax(np.array(face["logits"])) == pytest.approx(frames.mean(0), abs=2e-3)  # stored in half precision
    assert [row["faces"] for row in rows.values()] == [1] * 9 + [2]


def test_frame_times_are_within_the_duration_of_the_audio(label, good, face_model, tmp_path):
    label(corpus=good, teachers=[f"face:{face_model}"])

    for row in by_clip(tmp_path / "run").values():
        times = row["face"]["frame_times"]
        assert times == pytest.approx(np.arange(len(times)) * 0.24, abs=0.05)
        assert row["duration"] - 0.34 < times[-1] <= row["duration"]
        assert len(row["face"]["frame_logits"]) == len(times)
        assert row["face_detection_rate"] == pytest.approx(1.0, abs=0.05)


def bad_clips() -> dict[str, bytes]:
    audio, loudness = random_audio(SECONDS)
    other_loudness = random_audio(SECONDS, seed=5)[1]
    left, right = (lambda time: (46.0, 64.0)), (lambda time: (146.0, 64.0))
    speaker, other = Face("red", moving_mouth(loudness), left), Face("green", moving_mouth(other_loudness), right)

    def video(*faces: Face):
        return lambda time: draw(faces, time)

    return {
        "good": encode("mp4", video(Face()), audio, SECONDS),
        "no_audio": encode("mp4", video(Face()), None, SECONDS),
        "no_video": encode("mp4", None, audio, 0),
        "no_face": encode("mp4", video(), audio, SECONDS),
        "two_faces": encode("mp4", video(speaker, other), audio, SECONDS),
        "two_still_faces": encode("mp4", video(Face("red", place=left), Face("green", place=right)), audio, SECONDS),
        "one_frame": encode("mp4", video(Face()), audio, 0.04),
        "empty": b"",
        "short_video": encode("mp4", video(Face()), audio, 0.4),
        "long_video": encode("mp4", video(Face()), audio, 4.0),
        "text": b"no clip at all" * 50,
    }


# Whether there is a row, why it has no face (None: it has one), and whether the clip is in the quarantine.
EXPECTED = {
    "good": (True, None, False),
    "no_audio": (False, None, True),
    "no_video": (True, "the clip has no video", False),
    "no_face": (True, "no face", False),
    "two_faces": (True, None, False),
    "two_still_faces": (True, "2 faces", False),
    "one_frame": (True, "video: expected a video of at least 2 frames, got 1", True),
    "empty": (False, None, True),
    "short_video": (True, "video: expected audio and video of the same duration", True),
    "long_video": (True, "video: expected audio and video of the same duration", True),
    "text": (False, None, True),
}


def test_bad_clips_are_quarantined_or_masked_with_a_reason(label, speech_model, face_model, tmp_path):
    (tmp_path / "clips" / "anna").mkdir(parents=True)
    for name, content in bad_clips().items():
        (tmp_path / "clips" / "anna" / f"{name}.mp4").write_bytes(content)

    results = label(
        corpus=describe_corpus(tmp_path),
        teachers=[f"speech:{speech_model}", f"face:{face_model}"],
        max_bad_fraction=0.6,
    )
    rows = by_clip(tmp_path / "run")
    lines = (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()
    quarantine = {json.loads(line)["id"].rsplit("/", 1)[-1]: json.loads(line)["reason"] for line in lines}

    assert set(rows) == {name for name, (has_row, _, _) in EXPECTED.items() if has_row}
    assert set(quarantine) == {name for name, (_, _, broken) in EXPECTED.items() if broken}
    for name, row in rows.items():
        reason = EXPECTED[name][1]
        assert row["speech"]["mask"]
        assert row["face"]["mask"] == (reason is None), name
        assert (row["face"]["reason"] or "").startswith(reason or ""), name
        assert (row["agreement"] is None) == (reason is not None)
        assert (row["face"]["logits"] is None) == (reason is not None)
        if EXPECTED[name][2]:
            assert quarantine[name].endswith("its audio is used")
    assert "0 bytes" in quarantine["empty"]
    assert "no audio track" in quarantine["no_audio"]
    assert results["quarantined"] == len(quarantine)
    assert results["outputs"]["face"]["no_output"]["no face"] == 1


def test_too_many_unreadable_files_stop_the_run_and_are_in_its_quarantine(label, speech_model, tmp_path):
    (tmp_path / "clips" / "anna").mkdir(parents=True)
    audio, _ = random_audio(SECONDS)
    for number in range(12):
        soundfile.write(tmp_path / "clips" / "anna" / f"{number:02d}.wav", audio, 16000)
    (tmp_path / "clips" / "anna" / "05.wav").write_bytes(b"")
    corpus = describe_corpus(tmp_path)

    with pytest.raises(TooManyBadClipsError, match=r"1 of 12 clips.*anna/05"):
        label(corpus=corpus, teachers=[f"speech:{speech_model}"])

    (line,) = (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == "talk/anna/05"
    assert label("other", corpus=corpus, teachers=[f"speech:{speech_model}"], max_bad_fraction=0.1)["clips"] == 11


def test_a_run_killed_twice_resumes_and_writes_the_same_shards(
    label, recipe, good, speech_model, face_model, tmp_path, monkeypatch
):
    arguments = {"corpus": good, "teachers": [f"speech:{speech_model}", f"face:{face_model}"], "max_bad_fraction": 0.2}
    (tmp_path / "clips" / "anna" / "1.mp4").write_bytes(b"")
    label("whole", **arguments)
    decode_clip = recipe["decode_clip"]
    decoded: list[str] = []

    def until(last: str):
        def decode_or_interrupt(row, *others):
            decoded.append(row["id"])
            if row["id"] == last:
                raise KeyboardInterrupt
            return decode_clip(row, *others)

        return decode_or_interrupt

    for last in ("talk/anna/6", "talk/anna/9"):
        monkeypatch.setitem(recipe["main"].__globals__, "decode_clip", until(last))
        with pytest.raises(KeyboardInterrupt):
            label("killed", **arguments)
        assert not list((tmp_path / "killed").glob("results.json"))
    monkeypatch.setitem(recipe["main"].__globals__, "decode_clip", until("nobody"))
    decoded.clear()
    label("killed", **arguments)

    assert decoded == ["talk/anna/8", "talk/anna/9"]  # the first two shards of four clips were complete
    assert parquet_of(tmp_path / "killed") == parquet_of(tmp_path / "whole")
    for name in ("quarantine.jsonl", "results.json", "dataset/teachers.json"):
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert not list((tmp_path / "killed").rglob("*.partial"))


def test_a_finished_run_is_not_repeated_and_a_different_one_is_not_overwritten(label, good, speech_model, tmp_path):
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


def test_pseudo_labels_are_loaded_as_teacher_outputs_of_a_student(label, speech_model, face_model, tmp_path):
    (tmp_path / "clips" / "anna").mkdir(parents=True)
    for name in ("good", "no_face", "two_faces", "no_video", "two_still_faces"):
        (tmp_path / "clips" / "anna" / f"{name}.mp4").write_bytes(bad_clips()[name])
    label(
        corpus=describe_corpus(tmp_path),
        teachers=[f"speech:{speech_model}", f"face2=face:{face_model}"],
        shard_clips=1,
    )
    rows = by_clip(tmp_path / "run")

    speech = read_teacher_outputs(tmp_path / "run" / "dataset", "speech")
    face = read_teacher_outputs(tmp_path / "run" / "dataset", "face2")

    assert speech.ids == face.ids == [f"talk/anna/{name}" for name in sorted(rows)]
    assert (speech.name, face.name) == ("speech", "face2")
    assert speech.mask.tolist() == [1] * 5
    assert face.mask.tolist() == [1, 0, 0, 1, 0]  # good, no face, no video, two faces, two still faces
    assert face.emotions == ["happy", "fearful", "neutral"]
    assert speech.training_data == [{"corpus": "ravdess", "speakers": ["ravdess/01"], "teachers": []}]
    for place, name in enumerate(sorted(rows)):
        assert speech.logits[place].tolist() == rows[name]["speech"]["logits"]
        assert speech.dimensions[place].tolist() == rows[name]["speech"]["dimensions"]
        if face.mask[place]:
            assert face.logits[place].tolist() == rows[name]["face2"]["logits"]
            assert face.embedding[place].tolist() == rows[name]["face2"]["embedding"]
            assert face.confidence[place].item() == rows[name]["face2"]["confidence"]
            assert face.agreement[place].item() == rows[name]["agreement"]
        else:
            assert face.agreement[place] == 1
    assert face.dimensions.isnan().all()
    assert not face.logits.isnan().any()
    face.save(tmp_path / "outputs")
    assert torch.equal(TeacherOutputs.load(tmp_path / "outputs").logits, face.logits)
    with pytest.raises(ValueError, match=r"speech.*face2.*listener"):
        read_teacher_outputs(tmp_path / "run" / "dataset", "listener")


def test_the_data_set_streams_and_can_be_published(label, good, speech_model, face_model, tmp_path):
    label(corpus=good, teachers=[f"speech:{speech_model}", f"face:{face_model}"])
    folder = Path("run") / "dataset"

    rows = list(load_dataset(str(folder), split="train", streaming=True))

    assert rows == list(read_rows(folder))
    remote = fsspec.filesystem("memory")  # read through fsspec like `hf://`
    remote.put(str(folder), "/labels", recursive=True)
    assert list(read_rows("memory://labels")) == rows
    assert read_teachers("memory://labels") == read_teachers(folder)
    published = assemble(folder, tmp_path / "published", "somebody/faces", "dataset")
    check_folder(published, "dataset")
    card = (published / "README.md").read_text()
    assert 'load_dataset("somebody/faces"' in card
    assert "| `face` | face |" in card
    assert "happy, fearful, neutral" in card
    assert "ravdess (01)" in card
    for path in published.rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes(), path
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    variables: dict = {}
    exec(code.replace("somebody/faces", str(folder)), variables)
    assert variables["row"]["id"] == "talk/anna/0"


def test_packed_clips_have_the_same_outputs_as_files(label, speech_model, face_model, tmp_path):
    root = tmp_path / "ravdess" / "Actor_01"
    root.mkdir(parents=True)
    for number in range(1, 6):
        audio, _ = random_audio(SECONDS, seed=number)
        take = f"01-{number:02d}-01-01-01-01"
        soundfile.write(root / f"03-{take}.wav", audio, 16000)
        if number != 2:
            content = encode("mp4", lambda time: draw([Face()], time), None, SECONDS)
            (root / f"02-{take}.mp4").write_bytes(content)
    pack = runpy.run_path(str(RECIPES / "pack.py"))
    packing = {"corpus": "ravdess/video", "corpus_path": str(root.parent), "output": str(tmp_path / "packed")}
    pack["main"](pack["PackArguments"](**packing, video=True))
    teachers = [f"speech:{speech_model}", f"face:{face_model}"]

    label("files", corpus="ravdess/video", corpus_path=str(root.parent), teachers=teachers, shard_clips=2)
    label("shards", corpus=str(tmp_path / "packed" / "corpus.yaml"), teachers=teachers, shard_clips=2)

    assert by_clip(tmp_path / "shards") == by_clip(tmp_path / "files")  # packing changes the order
    rows = by_clip(tmp_path / "files").values()
    assert [row["face"]["mask"] for row in rows] == [True, False, True, True, True]


def test_outputs_of_a_public_audio_classifier_have_canonical_class_names(make_external_model, tmp_path):
    folder = make_external_model(tmp_path / "foreign", ["ang", "Happiness", "sad", "neutral"])
    teacher = SpeechTeacher("speech", folder)
    audio, _ = random_audio(2.0)
    model = Wav2Vec2ForSequenceClassification.from_pretrained(folder).eval()
    features = Wav2Vec2FeatureExtractor.from_pretrained(folder)(audio, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        output = model(**features, output_hidden_states=True)

    prediction = teacher.predict(Clip("c/1", audio))

    assert teacher.info.classes == ["angry", "happy", "sad", "neutral"]
    assert prediction.logits == pytest.approx(output.logits[0].numpy(), abs=1e-5)
    assert prediction.embedding == pytest.approx(output.hidden_states[-1][0].mean(0).numpy(), abs=1e-5)
    assert prediction.dimensions is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@torch.no_grad()
def test_models_stored_in_half_precision_are_computed_in_float32(make_external_model, tiny_student, dtype, tmp_path):
    folder = make_external_model(tmp_path / "foreign", ["angry", "happy"])
    Wav2Vec2ForSequenceClassification.from_pretrained(folder).to(dtype).save_pretrained(folder)
    tiny_student.to(dtype).save_pretrained(tmp_path / "ours")
    EmotionFeatureExtractor().save_pretrained(tmp_path / "ours")
    audio, _ = random_audio(2.0)
    waveform = torch.tensor(audio)[None]

    for source, emotions in ((folder, ["angry", "happy"]), (str(tmp_path / "ours"), tiny_student.config.emotions)):
        prediction = SpeechTeacher("speech", source).predict(Clip("c/1", audio))
        classifier = MatchedClassifier(source, emotions, []).eval()

        assert {parameter.dtype for parameter in classifier.parameters()} == {torch.float32}
        output = classifier(waveform, torch.ones_like(waveform))
        assert prediction.logits == pytest.approx(output.logits[0].numpy(), abs=1e-5)


def test_embeddings_too_large_for_half_precision_are_clamped():
    assert _to_list(np.array([7e4, -7e4, 1.0]), np.float16) == [65504.0, -65504.0, 1.0]


def test_a_public_regression_model_outputs_dimensions_by_name_and_no_classes(make_external_model, tmp_path):
    folder = make_external_model(tmp_path / "foreign", ["dominance", "arousal", "valence"])
    teacher = SpeechTeacher("speech", folder)
    audio, _ = random_audio(2.0)
    features = Wav2Vec2FeatureExtractor.from_pretrained(folder)(audio, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        dominance, arousal, valence = Wav2Vec2ForSequenceClassification.from_pretrained(folder)(**features).logits[0]

    prediction = teacher.predict(Clip("c/1", audio))

    assert teacher.info.classes == []
    assert prediction.logits is None
    assert prediction.dimensions == pytest.approx(
        [max(0.0, float(each)) for each in (arousal, valence, dominance)], abs=1e-5
    )


def test_numbered_classes_are_refused_unless_a_description_names_them(make_external_model, tmp_path):
    folder = make_external_model(tmp_path / "foreign", ["LABEL_0", "LABEL_1"])
    (tmp_path / "teacher.yaml").write_text("{model: foreign, classes: [Sadness, joy], license: MIT}")

    with pytest.raises(ValueError, match=r"LABEL_0.*classes"):
        SpeechTeacher("speech", folder)
    info = SpeechTeacher("speech", str(tmp_path / "teacher.yaml")).info
    assert (info.classes, info.license) == (["sad", "happy"], "MIT")


@pytest.mark.parametrize("argument", ["hearing:x", "speech", "speech:", "1=speech:x", "id=speech:x"])
def test_an_invalid_teacher_argument_is_refused(label, argument, speech_model):
    with pytest.raises((ValueError, OSError), match=r"speech|Hub"):
        label(teachers=[argument.replace(":x", f":{speech_model}")])


def test_no_teachers_and_duplicate_names_are_refused(label, speech_model):
    for teachers in ([], [f"speech:{speech_model}"] * 2):
        with pytest.raises(ValueError, match="different names"):
            label(teachers=teachers)


def test_agreement_is_one_minus_the_jensen_shannon_divergence_over_shared_classes():
    one, other = np.log([0.5, 0.25, 0.25]), np.log([0.2, 0.2, 0.6])  # of happy, sad, calm; of sad, contempt, happy
    p, q = np.array([0.5, 0.25]) / 0.75, np.array([0.6, 0.2]) / 0.8
    middle = (p + q) / 2
    divergence = (np.sum(p * np.log2(p / middle)) + np.sum(q * np.log2(q / middle))) / 2

    computed = compute_agreement(one, ["happy", "sad", "calm"], other, ["sad", "contempt", "happy"])

    assert computed == pytest.approx(1 - divergence)
    assert compute_agreement(one, ["happy", "sad", "calm"], one, ["happy", "sad", "calm"]) == pytest.approx(1.0)
    far = np.array([0.0, -99.0])
    assert compute_agreement(far, ["happy", "sad"], far, ["sad", "happy"]) == pytest.approx(0.0, abs=1e-9)
    assert compute_agreement(one, ["happy", "sad", "calm"], other, ["happy", "other", "contempt"]) is None


def test_synonyms_have_one_canonical_label():
    assert [canonical_label(name) for name in ("Fear", "JOY", "Sadness", "sur", " Awe")] == [
        "fearful", "happy", "sad", "surprised", "awe",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="differ"):
        canonical_labels(["anger", "Anger"], "model")


VOTES = Path(os.environ.get("AUDIO_EMOTION_DATA", "")) / "crema_d_labels"


@pytest.mark.skipif(not (VOTES / "tabulatedVotes.csv").is_file(), reason="needs $AUDIO_EMOTION_DATA/crema_d_labels")
def test_the_softmax_of_a_votes_teacher_is_the_distribution_of_votes():
    silence = np.zeros(16000, np.float32)
    outputs = {}
    for query in ("voice", "face", "audio-visual"):
        teacher = VotesTeacher(query, f"crema-d/{query}", VOTES)
        outputs[query] = {name: teacher.predict(Clip(f"crema-d/{name}", silence)) for name in teacher.probabilities}
        votes = np.array(list(teacher.probabilities.values()))  # (7442, 6)
        assert softmax(np.stack([each.logits for each in outputs[query].values()]), axis=-1) == pytest.approx(
            votes, abs=6e-4
        )
        assert teacher.predict(Clip("crema-d/9", silence)).reason == "no votes"
    assert [len(each) for each in outputs.values()] == [7442] * 3
    # The first clip of tabulatedVotes.csv, counted from its row.
    with (VOTES / "tabulatedVotes.csv").open() as lines:
        header, line = (next(lines).replace('"', "").strip().split(",") for _ in range(2))
    row = dict(zip(header, line, strict=True))
    counts = np.array([float(row[letter]) for letter in "ADFHNS"])
    assert row[""].startswith("1")
    assert softmax(outputs["voice"][row["fileName"]].logits) == pytest.approx(counts / counts.sum(), abs=6e-4)
    with pytest.raises(ValueError, match="crema-d/face"):
        VotesTeacher("votes", "crema-d/eyes", VOTES)


@pytest.mark.skipif(not (VOTES / "tabulatedVotes.csv").is_file(), reason="needs $AUDIO_EMOTION_DATA/crema_d_labels")
def test_pseudo_labels_of_crema_d_are_the_votes(label, speech_model, tmp_path):
    root = tmp_path / "crema-d"
    (root / "AudioWAV").mkdir(parents=True)
    (root / "processedResults").mkdir()
    shutil.copyfile(VOTES / "tabulatedVotes.csv", root / "processedResults" / "tabulatedVotes.csv")
    names = ["1001_DFA_ANG_XX", "1001_IEO_HAP_HI", "1002_TAI_SAD_XX"]
    for name in names:
        soundfile.write(root / "AudioWAV" / f"{name}.wav", random_audio(1.0)[0], 16000)

    label(corpus="crema-d", corpus_path=str(root), teachers=[f"speech:{speech_model}", "rated=votes:crema-d/face"])
    rows = by_clip(tmp_path / "run")

    expected = VotesTeacher("rated", "crema-d/face", VOTES).probabilities
    assert list(rows) == names
    for name, row in rows.items():
        assert softmax(np.array(row["rated"]["logits"])) == pytest.approx(np.array(expected[name]), abs=6e-4)
    outputs = read_teacher_outputs(tmp_path / "run" / "dataset", "rated")
    assert outputs.emotions == ["angry", "disgust", "fearful", "happy", "neutral", "sad"]
    assert outputs.embedding.shape == (3, 0)
    assert outputs.agreement is None
    assert read_teachers(tmp_path / "run" / "dataset")["rated"].license == "ODbL-1.0"
    assert all(math.isfinite(value) for value in outputs.logits.flatten().tolist())


@pytest.mark.slow
def test_two_processes_write_the_same_shards_as_one(speech_model, tmp_path):
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
