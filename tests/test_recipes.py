"""Recipes: run in-process on a few synthetic clips; launched for real only under `slow`."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace as Namespace

import numpy as np
import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.state import AcceleratorState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForAudioClassification

from audio_emotion.data.augmentation import WaveformAugmentation
from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.registry import apply_protocol, corpus_info, corpus_table, select_speakers
from audio_emotion.evaluation.predictions import load_predictions
from audio_emotion.evaluation.report import posterior
from audio_emotion.teachers.load import teacher_augmentation
from audio_emotion.teachers.outputs import TeacherOutputs, version_id
from audio_emotion.training.arguments import parse_arguments

RECIPES = Path(__file__).parents[1] / "recipes"
EMOTIONS = list(corpus_info("synthetic").emotions)


def recipe(name: str) -> dict:
    return runpy.run_path(str(RECIPES / f"{name}.py"))


@dataclass
class TeacherRun:
    folder: Path
    trained_on: dict[str, set[str]]  # speakers, by the name of the teacher


@pytest.fixture(scope="module")
def teacher_run(tmp_path_factory) -> TeacherRun:
    """A run with two cross-fitted teachers, and the speakers that each of its three teachers was trained on."""
    folder = tmp_path_factory.mktemp("teacher")
    main = recipe("train_teacher")["main"]
    train, trained_on = main.__globals__["train"], {}

    def spy(args, data, accelerator, model, rows, forward, name, validation=None):
        trained_on[name] = set(rows["speaker"])
        train(args, data, accelerator, model, rows, forward, name, validation)

    main.__globals__["train"] = spy
    arguments = {"corpus_count": 60, "epochs": 1, "cross_fit": 2, "hidden_size": 16, "convolution_size": 16}
    main(main.__globals__["TeacherArguments"](output=str(folder / "run"), cache=str(folder / "cache"), **arguments))
    return TeacherRun(folder / "run", trained_on)


def distill(folder: Path, **arguments) -> dict:
    """Distill a `nano` student; the cache is beside the run folder."""
    namespace = recipe("distill")
    arguments = {"size": "nano", "cache": str(folder.parent / "cache"), **arguments}
    return namespace["main"](namespace["DistillArguments"](output=str(folder), **arguments))


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_teacher_run_writes_all_files_of_the_run_folder(teacher_run):
    assert {path.name for path in teacher_run.folder.iterdir()} >= {
        "config.yaml",
        "metrics.jsonl",
        "results.json",
        "checkpoints",
        "quarantine.jsonl",
        "teacher_outputs",
    }
    results = json.loads((teacher_run.folder / "results.json").read_text())
    assert results["test"]["clips"] == 12
    assert set(results["test"]["speakers"]).isdisjoint(results["train_speakers"])


def test_targets_are_the_votes_of_a_clip_and_its_label_where_it_has_none():
    namespace = recipe("train_teacher")
    batch = Namespace(ids=["a", "b", "c"], labels=torch.tensor([1, 2, -100]))

    targets = namespace["distributions"](batch, 3, {"a": [0.5, 0.25, 0.25]})

    assert targets[:2].tolist() == [[0.5, 0.25, 0.25], [0, 0, 1]]
    assert targets[2].isnan().all()
    mixed = namespace["distributions"](batch, 3, {"a": [0.5, 0.25, 0.25], "c": [0.0, 0.5, 0.5]}, weight=0.5)
    label = batch.labels[0].item()
    assert mixed[0].tolist() == [0.5 * vote + 0.5 * (place == label) for place, vote in enumerate([0.5, 0.25, 0.25])]
    assert mixed[1:].tolist() == [[0, 0, 1], [0.0, 0.5, 0.5]]  # no votes, and no label
    batch.labels = targets  # which augmentation by mixing clips asks for again
    assert namespace["distributions"](batch, 3) is targets


def test_a_teacher_trained_on_votes_predicts_their_distribution_and_not_the_label(tmp_path, monkeypatch):
    namespace = recipe("train_teacher")
    votes = [0.1, 0.2, 0.3, 0.4]
    monkeypatch.setitem(namespace["main"].__globals__, "soft_labels", lambda rows: dict.fromkeys(rows["id"], votes))
    arguments = {"corpus_count": 40, "epochs": 12, "hidden_size": 8, "convolution_size": 8, "soft_labels": True}
    arguments |= {"label_smoothing": 0.0, "learning_rate": 1e-2}

    namespace["main"](
        namespace["TeacherArguments"](output=str(tmp_path / "run"), cache=str(tmp_path / "cache"), **arguments)
    )

    predictions, _, _ = load_predictions(tmp_path / "run" / "predictions.parquet")
    assert posterior(predictions.logits).mean(0) == pytest.approx(votes, abs=0.05)
    assert len(set(predictions.labels.tolist())) > 1  # the label is tested as before


def test_a_corpus_without_votes_is_refused_before_training(tmp_path, monkeypatch):
    namespace = recipe("train_teacher")
    monkeypatch.setitem(namespace["main"].__globals__, "new_teacher", lambda *_: pytest.fail("built a teacher"))

    with pytest.raises(ValueError, match="distribution of votes"):
        namespace["main"](
            namespace["TeacherArguments"](output=str(tmp_path / "run"), corpus_count=20, soft_labels=True)
        )


def test_teacher_outputs_are_of_speakers_that_the_teacher_was_not_trained_on(teacher_run):
    outputs = TeacherOutputs.load(teacher_run.folder / "teacher_outputs")
    table = corpus_table("synthetic", count=60)
    speaker_of = dict(zip(table["id"], table["speaker"], strict=True))

    assert sorted(outputs.ids) == sorted(table["id"])
    assert outputs.num_teachers == 3
    for number, name in enumerate(["cross-fit 1 of 2", "cross-fit 2 of 2", "teacher"]):
        speakers = {
            speaker_of[clip] for clip, teacher in zip(outputs.ids, outputs.teacher, strict=True) if teacher == number
        }
        assert speakers, name
        assert speakers.isdisjoint(teacher_run.trained_on[name]), name


def test_teacher_outputs_have_dimension_names_a_license_and_training_speakers(teacher_run):
    outputs = TeacherOutputs.load(teacher_run.folder / "teacher_outputs")

    assert outputs.dimension_names == ["activation", "valence", "dominance"]
    assert outputs.license == "Apache-2.0"
    assert {name for each in outputs.training_data for name in each["speakers"]} == teacher_run.trained_on["teacher"]


def test_a_student_learns_from_outputs_for_the_version_that_it_is_given(tmp_path):
    arguments = {"corpus_count": 40, "hidden_size": 16, "convolution_size": 16, "augment": 0.9, "telephone": 0.5}
    arguments |= {"epochs": 1, "augment_versions": 3, "time_mask": 0.0, "speaker_adaptation": 0.5}
    namespace = recipe("train_teacher")
    given = namespace["TeacherArguments"](output=str(tmp_path / "teacher"), cache=str(tmp_path / "cache"), **arguments)
    namespace["main"](given)
    outputs = TeacherOutputs.load(tmp_path / "teacher" / "teacher_outputs")
    teacher = AutoModelForAudioClassification.from_pretrained(tmp_path / "teacher" / "checkpoints" / "last").eval()
    table = corpus_table("synthetic", count=40)
    _, speakers = apply_protocol("synthetic", table, "")
    rows = select_speakers(table, speakers.train)
    clips = {each["id"]: torch.from_numpy(each["waveform"]) for each in ClipStream(rows, []).clips(range(3))}

    # The outputs are those for the augmented waveforms themselves, and differ between versions.
    augmentation = WaveformAugmentation(namespace["waveform_augmentation"](given))
    for name, waveform in clips.items():
        for version in range(3):
            heard = augmentation(waveform, zlib.crc32(f"{version}/{name}".encode())) if version else waveform
            with torch.no_grad():
                expected = teacher(heard[None]).logits[0]
            found = outputs.select([version_id(name, version)]).logits[0]
            torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)  # states are cached in half precision
    assert outputs.versions == 3
    assert {"#1", "#2"} < {name[-2:] for name in outputs.ids}

    # The student's frames of an epoch are of the same version as the outputs that it is compared with.
    distill_recipe, seen = recipe("distill"), []
    main = distill_recipe["main"]
    compute_frames = main.__globals__["compute_frames"]

    def spy(student, batch, frame_cache, padding, epoch):
        frames, lengths = compute_frames(student, batch, frame_cache, padding, epoch)
        seen.append((frame_cache, epoch))
        return frames, lengths

    class Spy(main.__globals__["DistillationLoss"]):
        def compute_terms(self, ids, *others):
            versions = {int(name.partition("#")[2] or 0) for name in ids if name}
            assert versions == {seen[-1][1] % 3}
            return super().compute_terms(ids, *others)

    main.__globals__.update(compute_frames=spy, DistillationLoss=Spy)
    student = {"size": "nano", "cache": str(tmp_path / "cache"), "corpus_count": 40, "epochs": 4}
    run = main.__globals__["DistillArguments"](
        output=str(tmp_path / "s"), teacher=str(tmp_path / "teacher"), **student
    )
    main(run)
    cache = seen[0][0]
    assert {epoch for _, epoch in seen} == {0, 1, 2, 3}
    for name, waveform in clips.items():
        heard = augmentation(waveform, zlib.crc32(f"2/{name}".encode()))
        expected = cache.front_end.compute_log_mel(heard[None])[0]
        torch.testing.assert_close(cache.tensor(name, 2).float(), expected, atol=2e-2, rtol=1e-3)


def test_teachers_of_different_augmentation_are_refused(tmp_path):
    tensors = {"logits": torch.zeros(2, 4), "dimensions": torch.zeros(2, 0), "embedding": torch.zeros(2, 0)}
    facts = {"ids": ["a", "a#1"], "teacher": torch.zeros(2, dtype=torch.long), "emotions": EMOTIONS}
    for name, strength in (("one", 0.3), ("two", 0.4)):
        augmentation = {"noise_probability": strength, "snr": (5.0, 25.0)}
        one = TeacherOutputs(**facts, **tensors, training_data=[], augmentation=augmentation, versions=2)
        one.save(tmp_path / name)
    replace(one, versions=1, augmentation={}).save(tmp_path / "clean")

    assert teacher_augmentation([str(tmp_path / "one")]) == ({"noise_probability": 0.3, "snr": (5.0, 25.0)}, 2)
    assert teacher_augmentation([str(tmp_path / "one"), str(tmp_path / "clean")]) == ({}, 1)
    with pytest.raises(ValueError, match="--consistent false"):
        teacher_augmentation([str(tmp_path / "one"), str(tmp_path / "two")])


def test_a_student_records_license_and_contamination_of_its_teacher(teacher_run, tmp_path, capsys):
    outputs = TeacherOutputs.load(teacher_run.folder / "teacher_outputs")
    tested = json.loads((teacher_run.folder / "results.json").read_text())["test"]["speakers"][0]
    seen = [*outputs.training_data, {"corpus": "synthetic", "speakers": [tested], "teachers": []}]
    replace(outputs, license="CC-BY-NC-4.0 AND Apache-2.0", training_data=seen).save(tmp_path / "outputs")
    capsys.readouterr()

    results = distill(tmp_path / "run", corpus_count=60, epochs=1, teacher=str(tmp_path / "outputs"))

    config = json.loads((tmp_path / "run" / "checkpoints" / "last" / "config.json").read_text())
    assert config["license"] == "Apache-2.0 AND CC-BY-NC-4.0"
    assert results["labeled"] == 1
    assert results["contaminated_by"] == [tested]
    printed = capsys.readouterr().out
    assert printed.startswith("Distill a student\n")  # what the run will do comes first
    assert str(tmp_path / "outputs") in printed.split("\n\n")[0]
    clips = len(select_speakers(corpus_table("synthetic", count=60), results["train_speakers"]))
    assert f"{clips} of {clips} labels used" in printed
    warning = printed.index("WARNING")
    assert tested in printed[warning:].splitlines()[0]
    assert warning < printed.index("test (contaminated): ")


def test_a_teacher_that_knows_validation_speakers_does_not_contaminate_the_test(teacher_run, tmp_path, capsys):
    outputs = TeacherOutputs.load(teacher_run.folder / "teacher_outputs")
    _, speakers = apply_protocol("synthetic", corpus_table("synthetic", count=60), "")
    known = {"corpus": "synthetic", "speakers": [speakers.validation[0]], "teachers": []}
    replace(outputs, training_data=[*outputs.training_data, known]).save(tmp_path / "outputs")

    results = distill(tmp_path / "run", corpus_count=60, epochs=1, teacher=str(tmp_path / "outputs"))

    assert results["contaminated_by"] == []
    assert results["validation"]["contaminated_by"] == [speakers.validation[0]]
    assert "contaminated_by" not in results["test"]
    printed = capsys.readouterr().out
    assert f"validation data: {speakers.validation[0]}" in printed
    assert "validation (contaminated): " in printed
    assert "test: " in printed


@pytest.mark.parametrize("cross_fit", [1, 9])
def test_cross_fitting_that_leaves_a_teacher_without_speakers_is_refused_before_training(cross_fit, tmp_path):
    main = recipe("train_teacher")["main"]
    main.__globals__["train"] = lambda *_: pytest.fail("trained before the arguments were checked")
    arguments = {"corpus_count": 20, "cross_fit": cross_fit, "cache": str(tmp_path / "cache")}

    with pytest.raises(ValueError, match=rf"cross_fit.*got {cross_fit}"):
        main(main.__globals__["TeacherArguments"](output=str(tmp_path / "run"), **arguments))


@pytest.mark.slow
def test_a_masked_band_is_hidden_in_every_frame_of_a_step(monkeypatch, tmp_path):
    namespace = recipe("distill")
    model, hidden = namespace["StudentWithProjections"], []
    forward = model.forward

    def spy(self, features, lengths):
        for steps, length in zip(features, lengths, strict=True):
            frames = steps[:length].reshape(-1, 40)  # (T, M) of 10 ms
            hidden.append(int((frames == 0).all(0).sum()))
        return forward(self, features, lengths)

    monkeypatch.setattr(model, "forward", spy)
    shared = {"corpus_count": 40, "epochs": 2, "teacher": "", "augment_versions": 1, "augment": 0.5}
    distill(tmp_path / "run", **shared)

    assert np.mean(np.array(hidden) > 0) > 0.7  # the narrowest of the widths that are drawn is no band
    assert 4 < max(hidden) <= 8
    losses = [line["loss_emotions"] for line in metrics(tmp_path / "run")]
    distill(tmp_path / "again", **shared)
    assert [line["loss_emotions"] for line in metrics(tmp_path / "again")] == losses  # masks follow the seed


@pytest.mark.parametrize("kind", ["run folder", pytest.param("checkpoint", marks=pytest.mark.slow), "Hub id"])
def test_a_teacher_may_be_a_run_a_checkpoint_or_a_hub_id(kind, teacher_run, tmp_path, monkeypatch):
    checkpoint = teacher_run.folder / "checkpoints" / "last"
    run = tmp_path / "other_teacher"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last").symlink_to(checkpoint)
    source = {"run folder": str(run), "checkpoint": str(checkpoint), "Hub id": "somebody/teacher"}[kind]
    namespace = distill.__globals__["recipe"]("distill")
    loader = namespace["load_teacher_outputs"].__globals__
    load = loader["AutoModelForAudioClassification"].from_pretrained
    if kind == "Hub id":
        monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: None)
        monkeypatch.setitem(
            loader,
            "AutoModelForAudioClassification",
            type("Hub", (), {"from_pretrained": lambda name, **_: load({"somebody/teacher": checkpoint}[str(name)])}),
        )

    results = distill(tmp_path / "run", corpus_count=60, epochs=1, teacher=f"good={source}")

    assert results["teachers"] == {"good": 1.0}
    assert "loss_good_emotions" in metrics(tmp_path / "run")[0]


@pytest.mark.parametrize("source", ["runs/nothing", "runs", "./nothing", "somebody/nothing"])
def test_a_missing_teacher_is_an_error_before_the_corpus_is_read(source, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)

    def no_such_model(*_, **__):
        if source != "somebody/nothing":
            pytest.fail("asked the Hub for a folder")
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", no_such_model)
    namespace = recipe("distill")
    monkeypatch.setitem(namespace["main"].__globals__, "ExperimentData", lambda *_: pytest.fail("read the corpus"))

    with pytest.raises(FileNotFoundError, match=f"checkpoint.*got `{source}`"):
        namespace["main"](namespace["DistillArguments"](output=str(tmp_path / "run"), teacher=f"a={source}"))


@pytest.mark.parametrize("gain", [[3.0], [10.0, -15.0]])
def test_a_gain_that_is_no_range_is_an_error(gain):
    namespace = recipe("train_teacher")
    arguments = namespace["TeacherArguments"]

    assert namespace["waveform_augmentation"](arguments(gain=[-30.0, 10.0])).gain == (-30.0, 10.0)
    with pytest.raises(ValueError, match=r"lowest and the highest `--gain` in dB, got \["):
        namespace["waveform_augmentation"](arguments(gain=gain))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("train_teacher", "TeacherArguments"),
        ("pretrain_student", "PretrainArguments"),
        ("distill", "DistillArguments"),
        ("fine_tune", "FineTuneArguments"),
    ],
)
def test_help_states_no_empty_default(name, arguments, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(recipe(name)[arguments], ["--help"])

    printed = " ".join(capsys.readouterr().out.split())
    assert "Random seed. (default: 0)" in printed
    for empty in ("(default: )", "(default: [])", "(default: None)"):
        assert empty not in printed


def test_clips_with_labels_have_an_emotion_or_a_dimension():
    table = corpus_table("synthetic", count=20)
    dimensions = ["activation", "valence", "dominance"]
    nothing = dict.fromkeys(["emotion", *dimensions])
    partly = table.map(
        lambda row, number: {**row, **(nothing if number % 2 else {"emotion": None})}, with_indices=True
    )
    labeled = recipe("distill")["clips_with_labels"]

    assert labeled(table, dimensions) == list(table["id"])
    assert labeled(partly, dimensions) == list(table["id"])[::2]
    assert labeled(partly, []) == []


@pytest.mark.slow
def test_a_student_without_labels_approaches_its_teacher(tmp_path):
    table = corpus_table("synthetic", count=60)
    labels = torch.tensor([EMOTIONS.index(name) for name in table["emotion"]])
    TeacherOutputs(
        ids=list(table["id"]),
        logits=6.0 * torch.nn.functional.one_hot(labels, len(EMOTIONS)),
        dimensions=torch.rand(60, 3),
        embedding=torch.zeros(60, 0),
        teacher=torch.zeros(60, dtype=torch.long),
        emotions=EMOTIONS,
        training_data=[],
    ).save(tmp_path / "outputs")
    (tmp_path / "labels.txt").write_text("")
    arguments = {"corpus_count": 60, "epochs": 8, "batch_size": 8, "teacher": str(tmp_path / "outputs")}
    negligible = 1e-12  # not 0: an output that nothing trains is an error
    arguments |= {
        "labeled_list": str(tmp_path / "labels.txt"),
        "dropout": 0.0,
        "teacher_dimensions_weight": negligible,
    }

    changes = []
    for weight in (1.0, negligible):
        distill(tmp_path / str(weight), teacher_emotions_weight=weight, **arguments)
        losses = [line["loss_teacher_emotions"] for line in metrics(tmp_path / str(weight))]
        changes.append(losses[-1] / losses[0])

    assert changes[0] < 0.9
    assert changes[1] > 0.97  # no other term of the loss has a label


def test_evaluation_of_a_student_refuses_speakers_of_its_training(teacher_run, tmp_path):
    results = distill(
        tmp_path / "run", corpus_count=60, epochs=1, augment=1.0, labeled=0.5, teacher=str(teacher_run.folder)
    )
    assert results["parameters"] < 75_000
    assert results["contaminated_by"] == []

    evaluate = recipe("evaluate")
    where = {"model": str(tmp_path / "run" / "checkpoints" / "last"), "corpus_count": 60, "repeats": 20}
    where["plots"] = False
    with pytest.raises(ValueError, match="synthetic/01"):
        evaluate["main"](evaluate["EvaluateArguments"](output=str(tmp_path / "e"), split="train", **where))
    again = evaluate["main"](evaluate["EvaluateArguments"](output=str(tmp_path / "e"), batch_size=5, **where))
    assert again["test"]["ccc_valence"] == pytest.approx(results["test"]["ccc_valence"], abs=1e-6)
    marked = evaluate["main"](
        evaluate["EvaluateArguments"](output=str(tmp_path / "marked"), split="train", contaminated=True, **where)
    )
    assert "synthetic/01" in marked["contaminated_by"]


def test_cached_frames_train_a_student_like_waveforms_and_each_epoch_has_its_version(tmp_path):
    arguments = {"corpus_count": 40, "epochs": 2, "batch_size": 8, "teacher": "", "dropout": 0.0}
    losses = {}
    for name, options in {
        "waveforms": {},
        "clean version": {"augment_versions": 1, "telephone": 1.0},
        "two versions": {"augment_versions": 2, "telephone": 1.0},
    }.items():
        distill(tmp_path / name, **arguments, **options)
        losses[name] = [line["loss_dimensions"] for line in metrics(tmp_path / name)]

    half_precision = 2e-3
    assert losses["clean version"] == pytest.approx(losses["waveforms"], abs=half_precision)
    assert losses["two versions"][0] == pytest.approx(losses["waveforms"][0], abs=half_precision)
    assert abs(losses["two versions"][1] - losses["waveforms"][1]) > 5 * half_precision  # over the telephone


@pytest.fixture
def fresh_accelerate():
    """Accelerate keeps the precision of a process's first run."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_run_in_bfloat16_with_tensorboard_has_finite_scores_and_events(fresh_accelerate, tmp_path):
    arguments = {"corpus_count": 40, "epochs": 1, "batch_size": 8, "mixed_precision": "bf16"}
    results = distill(tmp_path / "run", teacher="", trackers=["tensorboard"], **arguments)

    assert np.isfinite([value for value in results["test"].values() if isinstance(value, float)]).all()
    events = EventAccumulator(str(next(tmp_path.rglob("events.out.tfevents.*")).parent)).Reload()
    assert {"loss_dimensions", "loss_emotions"} <= set(events.Tags()["scalars"])


@pytest.mark.parametrize(("text", "teachers"), [("teacher: ''", [""]), ("teacher: runs/a", ["runs/a"])])
def test_one_teacher_in_a_file_need_not_be_a_list(tmp_path, text, teachers):
    (tmp_path / "run.yaml").write_text(text)

    arguments = parse_arguments(recipe("distill")["DistillArguments"], ["--config", str(tmp_path / "run.yaml")])

    assert arguments.teacher == teachers


def test_the_configuration_for_two_machines_is_one_that_accelerate_reads():
    config = load_config_from_file(str(RECIPES / "configs" / "accelerate" / "two_machines.yaml"))

    assert (config.num_machines, config.num_processes, config.mixed_precision) == (2, 8, "bf16")


@pytest.mark.slow
def test_two_cpu_processes_distill_and_give_the_same_metrics_as_one(teacher_run, tmp_path):
    flags = [
        "--corpus_count",
        "60",
        "--epochs",
        "1",
        "--size",
        "nano",
        "--cache",
        str(tmp_path / "cache"),
        "--teacher",
        str(teacher_run.folder),
    ]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    two = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command = [*two, str(RECIPES / "distill.py"), *flags, "--output", str(tmp_path / "two")]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "2 process(es)" in printed

    scores = []
    for launch, name in ((two, "a"), ([sys.executable], "b")):
        model = ["--model", str(tmp_path / "two" / "checkpoints" / "last"), "--batch_size", "10"]
        command = [*launch, str(RECIPES / "evaluate.py"), *model, "--corpus_count", "60"]
        subprocess.run([*command, "--output", str(tmp_path / name)], env=environment, check=True, capture_output=True)
        scores.append(json.loads((tmp_path / name / "results.json").read_text())["test"])
    for key, value in scores[0].items():
        if isinstance(value, float):
            assert scores[1][key] == pytest.approx(value, abs=1e-6), key
