"""The label-efficiency recipe: label lists, arms, pooling of folds, and resuming."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import yaml
from datasets import Dataset
from label_efficiency_arms import Arms, labeled_sampling_weight
from linear_classifiers import fit_soft_log_probabilities

from audio_emotion.data.registry import corpus_info
from audio_emotion.data.training_set import labeled_clips, read_list, stratified_lists, write_lists
from audio_emotion.evaluation.predictions import load_predictions
from audio_emotion.teachers.outputs import TeacherOutputs

RECIPES = Path(__file__).parents[2] / "recipes"
FILE = "predictions.parquet"
ARMS = ["speech", "both-shuffled", "random-probe", "speech-teacher", "face-teacher", "both-teachers"]
ARMS += ["scratch-regression", "both-regression"]


def recipe(name: str) -> dict:
    return runpy.run_path(str(RECIPES / "experiments" / f"{name}.py"))


def test_lists_are_stratified_and_nested():
    emotions = ["sad"] * 40 + ["angry"] * 60 + ["calm"] * 10 + [None] * 5
    ids = [f"clip-{number:03d}" for number in range(len(emotions))]
    of = dict(zip(ids, emotions, strict=True))

    lists = stratified_lists(ids, emotions, [0.01, 0.1, 0.5, 1.0], seed=3)

    counts = {
        fraction: [sum(of[name] == emotion for name in names) for emotion in ("sad", "angry", "calm")]
        for fraction, names in lists.items()
    }
    assert counts == {0.01: [1, 1, 1], 0.1: [4, 6, 1], 0.5: [20, 30, 5], 1.0: [40, 60, 10]}
    assert set(lists[0.01]) < set(lists[0.1]) < set(lists[0.5]) < set(lists[1.0])
    order = np.random.default_rng(0).permutation(len(ids))
    again = stratified_lists([ids[place] for place in order], [emotions[place] for place in order], [0.1], seed=3)
    assert again[0.1] == lists[0.1]
    assert stratified_lists(ids, emotions, [0.1], seed=4)[0.1] != lists[0.1]


def test_a_list_of_other_clips_raises(tmp_path):
    (tmp_path / "list.txt").write_text("a\nb\n")

    assert labeled_clips(["a", "b", "c"], 1.0, str(tmp_path / "list.txt")) == {"a", "b"}
    with pytest.raises(ValueError, match="'b'"):
        labeled_clips(["a", "c"], 1.0, str(tmp_path / "list.txt"))
    assert len(labeled_clips([str(number) for number in range(50)], 0.1)) == 5


def test_ids_with_spaces_survive_their_list(tmp_path):
    ids = ["own/monday morning/1", "own/monday morning/2 ", "own/b"]

    files = write_lists(tmp_path / "lists", ids, ["sad", "sad", "angry"], [1.0], seed=0)

    assert read_list(files[1.0]) == sorted(ids)
    (tmp_path / "by_hand.txt").write_text("own/b\r\n\nown/monday morning/1\n  \n")
    assert read_list(str(tmp_path / "by_hand.txt")) == ["own/b", "own/monday morning/1"]
    assert labeled_clips(ids, 1.0, files[1.0]) == set(ids)


@pytest.mark.parametrize("given", ["recipes/configs/distill_ravdess.yaml", "recipes/configs/smoke/distill.yaml"])
def test_the_file_of_the_student_is_found_from_another_folder(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    module = recipe("label_efficiency")

    assert module["find_file"](given) == RECIPES.parent / given
    assert module["find_file"](module["LabelEfficiencyArguments"]().student).is_file()
    (tmp_path / given).parent.mkdir(parents=True)
    (tmp_path / given).write_text("epochs: 3\n")
    assert module["find_file"](given).read_text() == "epochs: 3\n"  # the working folder comes first
    with pytest.raises(FileNotFoundError, match=r"missing\.yaml.*--student"):
        module["find_file"]("missing.yaml")


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.1, 0.25, 1.0])
def test_labeled_clips_are_at_least_a_quarter_of_an_epoch(fraction):
    weight = labeled_sampling_weight(fraction, 0.25)

    assert weight * fraction / (weight * fraction + 1 - fraction) == pytest.approx(max(fraction, 0.25), abs=1e-3)


def test_a_student_without_teachers_has_as_many_steps_and_labels(experiment):
    run, _, _ = experiment
    labeled, clips = len((run / "labels" / "seed-5" / "30.txt").read_text().split()), 36
    alone, taught = (
        yaml.safe_load((run / "seed-5" / "30" / arm / "config.yaml").read_text()) for arm in ("scratch", "speech")
    )

    draws = [
        labeled * each["labeled_weight"] + (clips - labeled) * each["unlabeled_weight"] for each in (alone, taught)
    ]
    steps = [math.ceil(round(count) / each["batch_size"]) for count, each in zip(draws, (alone, taught), strict=True)]
    assert steps[0] == pytest.approx(steps[1], abs=1)
    assert alone["batch_size"] / taught["batch_size"] == pytest.approx(draws[0] / draws[1], abs=0.05)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> tuple[Path, dict, dict]:
    folder = tmp_path_factory.mktemp("experiment")
    student = {
        "teacher": "",
        "corpus_count": 60,
        "size": "nano",
        "epochs": 1,
        "product_weight": 1.0,
        "product_fit": True,
    }
    (folder / "student.yaml").write_text(yaml.safe_dump(student))
    module = recipe("label_efficiency")
    arguments = {
        "output": str(folder / "run"),
        "student": str(folder / "student.yaml"),
        "fractions": [0.3, 1.0],
        "seeds": [5],
        "arms": ["scratch"],
        "other_arms": ARMS,
        "other_fraction": 0.3,
        "encoder": "log-mel",
        "cache": str(folder / "cache"),
        "cross_fit": 3,
        "repeats": 20,
    }
    return folder / "run", arguments, module["main"](module["LabelEfficiencyArguments"](**arguments))


def test_every_arm_is_run_at_its_fractions_and_scored_on_the_same_clips(experiment):
    run, _, results = experiment

    assert {(point["arm"], point["fraction"]) for point in results["points"]} == {
        *(("scratch", fraction) for fraction in (0.3, 1.0)),
        *((arm, 0.3) for arm in ARMS),
    }
    assert json.loads((run / "results.json").read_text())["points"] == results["points"]
    assert {each["units"] for each in results["comparisons"]} == {2}  # both test speakers
    assert results["intervals_over"] == "clips"  # two speakers are too few
    table = (run / "table.md").read_text()
    assert table.count("interval over clips") == 2
    assert "over speakers" not in table
    for point in results["points"]:
        assert f"{point['uar']:.3f}" in table
    assert (run / "curve.png").stat().st_size > 10_000


def test_students_and_teachers_use_only_the_labels_of_the_list(experiment):
    run, _, _ = experiment
    labels = str(run / "labels" / "seed-5" / "30.txt")

    configs = [yaml.safe_load(path.read_text()) for path in (run / "seed-5" / "30").glob("**/config.yaml")]
    named = [config.get("labeled_list", config.get("labels")) for config in configs if "output" not in config
             or config["output"].endswith(("scratch", "speech", "both-shuffled", "face"))]  # fmt: skip
    assert len(named) == 8  # three students, two regressions, two teachers, the probe
    assert set(named) == {labels}
    student = json.loads((run / "seed-5" / "30" / "speech" / "results.json").read_text())
    assert student["labeled"] == len(Path(labels).read_text().split()) / 36


def test_a_regression_is_trained_on_the_outputs_of_teachers_for_unlabeled_clips(experiment):
    run, _, _ = experiment
    alone, both = (
        load_predictions(run / "seed-5" / "30" / f"{name}-regression" / FILE)[0] for name in ("scratch", "both")
    )

    assert list(alone.ids) == list(both.ids)
    assert not np.allclose(alone.logits, both.logits)
    assert both.logits.shape == alone.logits.shape
    assert np.isfinite(both.logits).all()


def test_a_regression_on_probabilities_predicts_them():
    random = np.random.default_rng(0)
    features, weights = random.standard_normal((400, 3)), np.ones(400)
    of_first = 1 / (1 + np.exp(-4 * features[:, 0]))
    soft = np.stack([of_first, 1 - of_first, np.zeros(400)], axis=1)

    found = np.exp(fit_soft_log_probabilities(features, soft, weights, features, 10.0))

    assert np.abs(found[:, 0] - of_first).max() < 0.05
    assert found[:, 2] == pytest.approx(np.full(400, 0.01))  # no clip has it
    ignored = soft.copy()
    ignored[:200] = [0, 0, 1]
    weights[:200] = 1e-6
    found = np.exp(fit_soft_log_probabilities(features, ignored, weights, features, 10.0))
    assert np.abs(found[:, 0] - of_first).max() < 0.1


def test_the_votes_on_faces_are_outputs_of_a_teacher(tmp_path):
    header, votes = '"","A","D","F","H","N","S","fileName"', ['"100001",9,0,0,0,1,0,"1001_DFA_ANG_XX"']
    votes += ['"200001",0,0,0,0,6,2,"1001_DFA_ANG_XX"', '"200002",0,0,0,0,0,5,"1001_DFA_SAD_XX"']
    (tmp_path / "tabulatedVotes.csv").write_text("\n".join([header, *votes]) + "\n")
    names = ["crema-d/1001_DFA_ANG_XX", "crema-d/1001_DFA_SAD_XX", "crema-d/1001_DFA_HAP_XX"]
    rows = Dataset.from_dict(
        {"id": names, "speaker": ["crema-d/1001"] * 3, "gender": ["male"] * 3, "emotion": ["angry", "sad", "happy"]}
    )
    student = SimpleNamespace(corpus="crema-d", protocol="", corpus_path=str(tmp_path))
    experiment = SimpleNamespace(
        rows=rows,
        test=rows,
        emotions=list(corpus_info("crema-d").emotions),
        info=corpus_info("crema-d"),
        student=student,
        args=SimpleNamespace(faces="votes", inverse_penalty=0.1, restart=False),
    )
    arms = Arms(experiment, tmp_path / "run", "labels.txt", seed=0)

    arms.run("face-teacher")

    outputs = arms.outputs("face")
    assert outputs.has_output.tolist() == [True, True, False]
    chosen = [outputs.emotions[number] for number in outputs.logits.argmax(1).tolist()[:2]]
    assert chosen == ["neutral", "sad"]  # of those who saw the face, and not of those who were given the voice
    assert torch.allclose(outputs.logits.softmax(1)[0].max(), torch.tensor(0.75), atol=0.01)


def test_shuffled_face_outputs_are_a_permutation(experiment):
    teachers = experiment[0] / "seed-5" / "30" / "teachers"
    face, shuffled = (TeacherOutputs.load(teachers / name / "teacher_outputs") for name in ("face", "face-shuffled"))
    face = face.select(shuffled.ids)

    assert not torch.equal(face.logits, shuffled.logits)
    assert torch.equal(face.logits.sort(0).values, shuffled.logits.sort(0).values)
    place = {tuple(logits.tolist()): row for row, logits in enumerate(face.logits)}
    rows = [place[tuple(logits.tolist())] for logits in shuffled.logits]
    assert torch.equal(face.embedding[rows], shuffled.embedding)  # logits and embedding move together


def test_finished_arms_are_not_run_again_and_new_arms_are_added(experiment):
    run, arguments, first = experiment
    written = {path: path.stat().st_mtime_ns for path in run.glob("seed-5/**/model.safetensors")}
    module = recipe("label_efficiency")

    more = module["main"](module["LabelEfficiencyArguments"](**{**arguments, "other_arms": [*ARMS, "face"]}))

    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert [point for point in more["points"] if point["arm"] != "face"] == first["points"]
    assert {point["arm"] for point in more["points"]} == {"scratch", "face", *ARMS}
    with pytest.raises(ValueError, match="'nonsense'"):
        module["main"](module["LabelEfficiencyArguments"](**{**arguments, "arms": ["nonsense"]}))


def test_the_folds_are_pooled_and_scored_as_one_set(tmp_path):
    random = np.random.default_rng(0)
    lines = ["file,who,label"]
    for index in range(36):
        tone = np.sin(np.arange(8000) * (0.05 + 0.3 * (index // 6 % 2)))
        soundfile.write(tmp_path / f"{index:02d}.wav", 0.1 * tone + 0.01 * random.standard_normal(8000), 16000)
        lines.append(f"{index:02d}.wav,s{index % 6},{('low', 'high')[index // 6 % 2]}")
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
    description = {"name": "own", "license": "CC0-1.0", "citation": "Made by the test.", "source": "csv"}
    description |= {"path": "clips.csv", "emotions": ["low", "high"], "dimensions": []}
    description |= {"columns": {"audio": "file", "speaker": "who", "emotion": "label"}}
    for fold, test in {1: ["s0", "s1"], 2: ["s2", "s3", "s4"]}.items():
        splits = {"train": sorted({"s0", "s1", "s2", "s3", "s4", "s5"} - set(test)), "test": test}
        (tmp_path / f"fold-{fold}.yaml").write_text(yaml.safe_dump(description | {"splits": splits}))
    student = {"teacher": "", "corpus": str(tmp_path / "fold-1.yaml"), "protocol": str(tmp_path / "fold-{fold}.yaml")}
    (tmp_path / "student.yaml").write_text(yaml.safe_dump(student | {"size": "nano", "epochs": 1, "batch_size": 8}))
    module = recipe("label_efficiency")
    arguments = {
        "output": str(tmp_path / "run"),
        "student": str(tmp_path / "student.yaml"),
        "fractions": [1.0],
        "seeds": [0],
        "arms": ["speech-teacher", "scratch"],
        "encoder": "log-mel",
        "cache": str(tmp_path / "cache"),
        "cross_fit": 2,
        "repeats": 20,
        "results": str(tmp_path / "results"),
    }

    results = module["main"](module["LabelEfficiencyArguments"](**arguments, folds=[1, 2]))

    assert results["test_clips"] == 30
    teacher = next(row for row in results["rows"] if row["arm"] == "speech-teacher")
    folds = [
        load_predictions(tmp_path / "run" / f"fold-{fold}" / "seed-0" / "100" / "teachers" / "speech" / FILE)[0]
        for fold in (1, 2)
    ]
    assert [len(fold.ids) for fold in folds] == [12, 18]
    right = [fold.logits.argmax(1) == fold.labels for fold in folds]
    assert teacher["accuracy"] == pytest.approx(np.concatenate(right).mean())
    names = {f"scratch-100-percent-fold-{fold}-seed-0.{end}" for fold in (1, 2) for end in ("json", "parquet")}
    assert {path.name for path in (tmp_path / "results").iterdir()} == names
    with pytest.raises(ValueError, match="--folds"):
        module["main"](module["LabelEfficiencyArguments"](**arguments))
