"""Publishing: what a run folder becomes, and what is refused before anything is sent."""

from __future__ import annotations

import copy
import json
import re
import runpy
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from datasets import load_dataset
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoModelForAudioClassification

from audio_emotion import StudentEmotionForAudioClassification
from audio_emotion.evaluation.provenance import contamination
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.hub.checks import check_folder
from audio_emotion.hub.private_names import without_private_names
from audio_emotion.hub.publish import assemble
from audio_emotion.teachers.outputs import TeacherOutputs
from audio_emotion_cli import EXIT_OK, EXIT_USAGE, main


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_run_becomes_a_checkpoint_with_code_card_results_and_plots(tiny_model, make_run, tmp_path, speech):
    run = make_run(tiny_model)

    folder = assemble(run, tmp_path / "out", "somebody/mouse")

    code = {path.name for path in (run / "checkpoints" / "last").glob("*.py")}
    others = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md", "results.json"}
    others |= {"handler.py", "requirements.txt"}
    graphs = (
        {"onnx/model.onnx"} if tiny_model.config.model_type == "student-emotion" else set()
    )  # its encoder has none
    graphs |= {"onnx/model_streaming.onnx"} if graphs and not tiny_model.config.look_ahead else set()
    assert files_of(folder) == code | others | graphs | {"training/config.yaml", "plots/confusion_matrix.png"}
    clip = {"input_values": torch.from_numpy(speech)[None], "attention_mask": torch.ones(1, len(speech)).long()}
    with torch.no_grad():
        loaded = AutoModelForAudioClassification.from_pretrained(folder)
        torch.testing.assert_close(loaded(**clip).dimensions, tiny_model(**clip).dimensions)
    text = (folder / "README.md").read_text()
    assert "![confusion matrix](plots/confusion_matrix.png)" in text
    assert "| unweighted average recall | 0.512 | 0.43 to 0.59 |  |" in text
    assert "| CCC valence | 0.330 | 0.20 to 0.40 | 0.350 |" in text
    metrics = ModelCard(text).data.eval_results
    assert {each.metric_name: each.metric_value for each in metrics}["CCC valence"] == 0.33
    assert {each.dataset_config for each in metrics} == {"ravdess-20-fixed"}


def test_no_path_of_this_machine_is_published(tiny_student, make_run, tmp_path):
    run = make_run(tiny_student)

    folder = assemble(run, tmp_path / "out", "somebody/mouse")

    assert str(tmp_path) in (run / "config.yaml").read_text()
    for path in folder.rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes(), path
    assert "whisper-tiny.en" in (folder / "training" / "config.yaml").read_text()


def test_absolute_paths_are_cut_to_their_last_part():
    home, windows = "/" + "home/me/whisper", "C:\\data\\ravdess"

    assert without_private_names({"a": [home, windows, "runs/x", 3, None]}) == {
        "a": ["whisper", "ravdess", "runs/x", 3, None]
    }


HOME = "/" + "home/alice/secret"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"speech={HOME}/labels", "speech=labels"),
        (f"speech:{HOME}/model", "speech:model"),
        (f"second=speech:{HOME}/model", "second=speech:model"),
        ("face:C:\\users\\alice\\face.yaml", "face:face.yaml"),
        (f"file://{HOME}/talk.yaml", "file:talk.yaml"),
        (f"{HOME}/talk.yaml=0.5", "talk.yaml=0.5"),
        ("../mine/mine.yaml", "mine.yaml"),
        ("runs/anna/checkpoints/last", "last"),
        ("mine/mine.yaml=0.5", "mine.yaml=0.5"),
        ("speech=./labels/", "speech=labels"),
        ("..\\mine\\mine.yaml", "mine.yaml"),
        ("crema-d/face/video", "crema-d/face/video"),
        *((kept, kept) for kept in ("speech=runs/x", "face:owner/name", "a=speech:owner/name", "crema-d=0.5")),
        *((kept, kept) for kept in ("hf://datasets/owner/name", "speech=hf://datasets/o/n", "https://host/a/b:c=d")),
    ],
)
def test_paths_after_names_and_kinds_are_cut_and_urls_stay(text, left):
    assert without_private_names({"teacher": [text], text: text}) == {"teacher": [left], left: left}


def test_dry_run_writes_the_folder_that_can_be_published_as_it_is(tiny_student, make_run, tmp_path, capsys):
    run = make_run(tiny_student)

    assert main(["publish", str(run), "--repo", "somebody/mouse", "--dry-run"]) == EXIT_OK
    written = Path(capsys.readouterr().out.strip())
    first = {name: (written / name).read_bytes() for name in files_of(written)}
    (written / "old.py").write_text("left by an earlier version")
    assert main(["publish", str(run), "--repo", "somebody/mouse", "--dry-run"]) == EXIT_OK

    assert written == run / "published"
    assert {name: (written / name).read_bytes() for name in files_of(written)} == first
    assert assemble(written, tmp_path / "unused", "somebody/mouse") == written


def test_an_unrelated_folder_is_not_overwritten(tiny_student, make_run, tmp_path, capsys):
    mine = tmp_path / "thesis"
    mine.mkdir()
    (mine / "chapter.tex").write_text("years of work")

    code = main(["publish", str(make_run(tiny_student)), "--repo", "a/b", "--dry-run", "--output", str(mine)])

    assert code == EXIT_USAGE
    assert files_of(mine) == {"chapter.tex"}
    assert "empty folder" in capsys.readouterr().err


def test_an_adapter_is_published_merged(tiny_teacher, make_run, tmp_path, speech):
    peft = pytest.importorskip("peft")
    run = make_run(tiny_teacher)
    base = write_checkpoint(tiny_teacher, tmp_path / "base")
    tuned = AutoModelForAudioClassification.from_pretrained(base)
    tuned.add_adapter(peft.LoraConfig(r=2, target_modules=r".*feed_forward\.(intermediate|output)_dense"))
    torch.manual_seed(1)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    last = run / "checkpoints" / "last"
    shutil.rmtree(last)
    tuned.save_pretrained(last)
    assert (last / "adapter_model.safetensors").is_file()
    assert not (last / "model.safetensors").is_file()

    folder = assemble(run, tmp_path / "out", "somebody/elephant")

    clip = {"input_values": torch.from_numpy(speech)[None], "attention_mask": torch.ones(1, len(speech)).long()}
    with torch.no_grad():
        expected, plain = tuned.eval()(**clip).dimensions, tiny_teacher(**clip).dimensions
        merged = AutoModelForAudioClassification.from_pretrained(folder).eval()(**clip).dimensions
    assert "adapter_config.json" not in files_of(folder)
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-5)
    assert (expected - plain).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["pytorch_model.bin", "training_args.pt", "scaler.pkl", "deep/inside/x.JOBLIB"])
def test_pickles_are_refused(name, tiny_student, make_run, tmp_path):
    run = make_run(tiny_student)
    path = run / "checkpoints" / "last" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"whatever")

    with pytest.raises(ValueError, match=re.escape(Path(name).name)):
        assemble(run, tmp_path / "out", "somebody/mouse")


def test_a_pickle_named_safetensors_is_refused(tiny_student, make_run, tmp_path):
    run = make_run(tiny_student)
    torch.save(tiny_student.state_dict(), run / "checkpoints" / "last" / "model.safetensors")

    with pytest.raises(ValueError, match="safetensors"):
        assemble(run, tmp_path / "out", "somebody/mouse")


def test_a_missing_head_is_refused(tiny_model, make_run, tmp_path):
    run = make_run(tiny_model)
    path = run / "checkpoints" / "last" / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if not name.startswith("heads.emotions")}
    save_file(kept, path, metadata={"format": "pt"})

    with pytest.raises(ValueError, match=r"heads\.emotions\.bias"):
        assemble(run, tmp_path / "out", "somebody/mouse")


@pytest.mark.parametrize(("field", "value"), [("hidden_size", 24), ("num_gru_layers", 3), ("num_gru_layers", 1)])
def test_a_configuration_that_does_not_fit_the_weights_is_refused(field, value, tiny_student, make_run, tmp_path):
    run = make_run(tiny_student)
    path = run / "checkpoints" / "last" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))

    with pytest.raises(ValueError, match="gru"):
        assemble(run, tmp_path / "out", "somebody/mouse")


def test_a_link_out_of_the_folder_is_refused(tiny_student, make_run, tmp_path):
    folder = assemble(make_run(tiny_student), tmp_path / "out", "somebody/mouse")
    check_folder(folder)
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "notes.txt").symlink_to(tmp_path / "secret.txt")

    with pytest.raises(ValueError, match="link"):
        check_folder(folder)


@pytest.mark.parametrize(
    "reference", ["../evil.StudentEmotionConfig", "other/repo--module.Class", "absent.Class", "sub/module.Class"]
)
def test_code_from_elsewhere_is_refused(reference, tiny_student, make_run, tmp_path):
    folder = assemble(make_run(tiny_student), tmp_path / "out", "somebody/mouse")
    config = json.loads((folder / "config.json").read_text())
    for change in (
        {"auto_map": {**config["auto_map"], "AutoConfig": reference}},
        {"custom_pipelines": {"audio-emotion": {**config["custom_pipelines"]["audio-emotion"], "impl": reference}}},
    ):
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=re.escape(reference)):
            check_folder(folder)


@pytest.mark.parametrize("shard", ["../model.safetensors", "a/b.safetensors", "absent.safetensors"])
def test_shards_from_elsewhere_are_refused(shard, tiny_student, make_run, tmp_path):
    folder = assemble(make_run(tiny_student), tmp_path / "out", "somebody/mouse")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"x": shard}}))

    with pytest.raises(ValueError, match=re.escape(shard)):
        check_folder(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "results.json").unlink(), "results.json"),
        (lambda run: shutil.rmtree(run / "checkpoints" / "last"), "checkpoints/last"),
        (lambda run: (run / "results.json").write_text("{}"), "test or validation"),
    ],
)
def test_missing_parts_of_a_run_are_named(damage, message, tiny_student, make_run, capsys):
    run = make_run(tiny_student)
    damage(run)

    assert main(["publish", str(run), "--repo", "somebody/mouse", "--dry-run"]) == EXIT_USAGE
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("repo", ["mouse", "some/body/mouse", "../mouse ", "https://hub/a/b"])
def test_a_repository_is_owner_and_name(repo, tiny_student, make_run, tmp_path):
    with pytest.raises(ValueError, match="owner/name"):
        assemble(make_run(tiny_student), tmp_path / "out", repo)


@pytest.mark.parametrize("field", ["license", "training_data"])
def test_weights_without_license_or_training_data_are_refused(field, tiny_student, make_run, tmp_path):
    run = make_run(tiny_student)
    path = run / "checkpoints" / "last" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: None if field == "license" else []}))

    with pytest.raises(ValueError, match=field):
        assemble(run, tmp_path / "out", "somebody/mouse")


def test_a_score_on_training_speakers_is_called_contaminated(tiny_student, make_run, results, tmp_path):
    run = make_run(tiny_student)
    clean = (assemble(run, tmp_path / "clean", "somebody/mouse") / "README.md").read_text()
    results = copy.deepcopy(results)
    results["test"]["speakers"] = ["ravdess/02", "ravdess/18"]  # 02 is in the training data of the teacher
    (run / "results.json").write_text(json.dumps(results))

    stained = (assemble(run, tmp_path / "stained", "somebody/mouse") / "README.md").read_text()

    assert "Contaminated" not in clean
    assert "includes ravdess/02.**" in stained


def test_scores_of_the_last_weights_are_not_presented_as_those_of_the_best(tiny_student, make_run, tmp_path):
    run = make_run(tiny_student)
    same = (assemble(run, tmp_path / "same", "somebody/mouse", which="best") / "README.md").read_text()
    with torch.no_grad():
        tiny_student.heads.dimensions.bias += 0.5
    write_checkpoint(tiny_student, run / "checkpoints" / "best")

    best = (assemble(run, tmp_path / "best", "somebody/mouse", which="best") / "README.md").read_text()
    last = (assemble(run, tmp_path / "last", "somebody/mouse") / "README.md").read_text()

    caveat = "These scores are not of the weights published here"
    assert (caveat in same, caveat in best, caveat in last) == (False, True, False)
    assert best.index(caveat) < best.index("| unweighted average recall | 0.512 |")
    assert ModelCard(best).data.eval_results is None  # nothing that a machine could take for theirs
    assert ModelCard(last).data.eval_results


def test_a_student_of_a_public_model_is_published(tiny_student, make_run, tmp_path):
    run = make_run(tiny_student)
    path = run / "checkpoints" / "last" / "config.json"
    config = json.loads(path.read_text())
    config["training_data"][0]["teachers"] = [{"model": "somebody/faces"}]
    path.write_text(json.dumps(config))

    text = (assemble(run, tmp_path / "out", "somebody/mouse") / "README.md").read_text()

    assert "| ravdess | 01 | public model somebody/faces |" in text
    assert "For the license terms of the public teachers see their model cards: somebody/faces." in text
    assert "As far as it is recorded, the training data of the model and of its teachers" in text


def test_a_fine_tuned_model_of_labels_alone_is_not_called_distilled(tiny_student, make_run, results, tmp_path):
    run = make_run(tiny_student)
    path = run / "checkpoints" / "last" / "config.json"
    config = json.loads(path.read_text())
    config["training_data"][0]["teachers"] = []
    path.write_text(json.dumps(config))
    (run / "results.json").write_text(json.dumps(results | {"recipe": "fine_tune"}))

    text = (assemble(run, tmp_path / "out", "somebody/mouse") / "README.md").read_text()

    assert "was fine-tuned on labels with `audio-emotion`" in text
    assert "knowledge-distillation" not in text


PRIVATE = """
name: mine
language: de
license: MIT
citation: Recordings of Example Ltd, 2026, unpublished.
source: csv
path: clips.csv
columns: {audio: file, emotion: label}
emotions: [cross, pleased]
"""


def test_neither_paths_nor_speakers_of_private_recordings_are_published(
    tiny_student, make_run, results, tmp_path, monkeypatch
):
    run = make_run(tiny_student)
    monkeypatch.chdir(run)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.yaml").write_text(PRIVATE)
    arguments = {"corpus": "../mine/mine.yaml", "output": "../runs/first"}
    (run / "config.yaml").write_text(yaml.safe_dump(arguments))
    trained, tested = ["mine/anna", "mine/monday/0001"], ["mine/ben", "mine/tuesday/0002"]
    private = {"corpus": "mine", "speakers": trained, "teachers": [{"corpus": "mine", "speakers": trained[:1]}]}
    public = {"corpus": "ravdess", "speakers": ["ravdess/01"], "teachers": []}
    path = run / "checkpoints" / "last" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "training_data": [public, private]}))
    results["test"]["speakers"] = tested
    results["test"]["groups"] = {"speaker": {name: {"clips": 6, "uar": 0.5} for name in tested}}
    results |= {"protocol": "../mine/mine.yaml", "contaminated_by": ["mine/ben"]}
    (run / "results.json").write_text(json.dumps(results))

    folder = assemble(run, tmp_path / "out", "somebody/mouse")

    texts = [name for name in files_of(folder) if name.endswith((".json", ".md", ".yaml"))]
    text = "".join((folder / name).read_text() for name in texts)
    assert [each for each in ("anna", "ben", "monday", "0001", "tuesday", "../", "/mine.yaml") if each in text] == []
    config = json.loads((folder / "config.json").read_text())
    assert config["training_data"][0] == public
    assert contamination("mine", ["mine/anna", "mine/x"], config["training_data"]) == ["mine/anna"]
    card = ModelCard.load(folder / "README.md")
    assert card.data.language == ["de"]
    assert "2 speakers, hashed" in card.text
    assert "Contaminated" in card.text


SECRETS = [
    ".env",
    "id_rsa",
    "notes.ipynb",
    "training/optimizer.json",
    "me.png",
    "plots/deep/me.png",
    "x/README.md",
]


@pytest.mark.parametrize("name", SECRETS)
def test_a_complete_folder_holds_only_files_of_a_published_model(name, tiny_student, make_run, tmp_path, capsys):
    folder = assemble(make_run(tiny_student), tmp_path / "out", "somebody/mouse")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("not uploaded")
    (folder / ".gitattributes").write_text("from the Hub")
    check_folder(folder)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("secret")

    for repo in ("somebody/mouse", "somebody/else"):
        command = ["publish", str(folder), "--repo", repo, "--dry-run", "--output", str(tmp_path / "copy")]
        assert main(command) == EXIT_USAGE
        assert name in capsys.readouterr().err
        assert not (tmp_path / "copy" / name).exists()


def test_only_the_plots_of_a_run_are_published(tiny_student, make_run, tmp_path):
    run = make_run(tiny_student)
    for name in ("me.png", "holiday/me.png", "plots/holiday/me.png"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_bytes(b"private")

    folder = assemble(run, tmp_path / "out", "somebody/mouse")

    assert [path.name for path in folder.rglob("*.png")] == ["confusion_matrix.png"]


def test_without_a_network_publishing_ends_with_one_line(tiny_student, make_run, monkeypatch, capsys):
    def fail(*_, **__):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_unused")

    assert main(["publish", str(make_run(tiny_student)), "--repo", "somebody/mouse"]) == EXIT_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot reach the Hub" in line


DESCRIPTION = """
name: ravdess
license: other
citation: Callcenter recordings of Example Ltd, 2026, unpublished.
source: csv
path: clips.csv
columns: {audio: file, speaker: who, emotion: label}
emotions: [cross, pleased]
"""


def test_the_citation_of_a_described_corpus_comes_from_its_description(tiny_student, make_run, tmp_path):
    run = make_run(tiny_student)
    described = tmp_path / "elsewhere" / "callcenter.yaml"
    described.parent.mkdir()
    described.write_text(DESCRIPTION)
    for values in ({"corpus": str(described)}, {"corpus": "crema-d", "mix": [f"{described}=0.5"]}):
        (run / "config.yaml").write_text(yaml.safe_dump(values))
        text = (assemble(run, tmp_path / "out", "somebody/mouse") / "README.md").read_text()
        assert "- ravdess: Callcenter recordings of Example Ltd, 2026, unpublished." in text

    described.unlink()
    with pytest.raises(ValueError, match=r"callcenter\.yaml.*copy the file to"):
        assemble(run, tmp_path / "out", "somebody/mouse")
    (run / "callcenter.yaml").write_text(DESCRIPTION)
    text = (assemble(run, tmp_path / "out", "somebody/mouse") / "README.md").read_text()
    assert "- ravdess: Callcenter recordings of Example Ltd, 2026, unpublished." in text


def test_a_model_with_custom_dimensions_alone_has_only_their_rows(tiny_student_config, make_run, results, tmp_path):
    config = copy.deepcopy(tiny_student_config)
    config.emotions, config.id2label, config.label2id = [], {}, {}
    config.dimensions, config.dimension_weights = ["tension", "pleasure"], [0.5, 0.5]
    scores = {"clips": 12, "speakers": ["ravdess/17"], "ccc_tension": 0.25, "ccc_pleasure": float("nan")}
    scores |= {"intervals": {"ccc_tension": [0.125, 0.375]}, "groups": {"gender": {"male": dict(scores)}}}
    run = make_run(StudentEmotionForAudioClassification(config))
    (run / "results.json").write_text(json.dumps(results | {"test": scores}))

    text = (assemble(run, tmp_path / "out", "somebody/mouse") / "README.md").read_text()

    assert "| CCC tension | 0.250 | 0.12 to 0.38 |" in text
    assert "| gender: male | 12 | 0.250 |" in text
    assert "1 in 0" not in text
    assert not any(word in text for word in ("nan", "valence", "recall weighs", 'result["emotions"]'))
    metrics = ModelCard(text).data.eval_results
    assert {each.metric_name: each.metric_value for each in metrics} == {"CCC tension": 0.25}


def test_results_of_groups_are_in_the_card(tiny_student, make_run, results, tmp_path):
    run = make_run(tiny_student)
    results["test"]["groups"] = {"gender": {"female": {"clips": 6, "uar": 0.4}, "male": {"clips": 6, "uar": 0.6}}}
    (run / "results.json").write_text(json.dumps(results))

    text = (assemble(run, tmp_path / "out", "somebody/mouse") / "README.md").read_text()

    assert "| gender: female | 6 | 0.400 |" in text
    assert "were not measured" not in text


def pseudo_labels(run: Path) -> TeacherOutputs:
    random = torch.Generator().manual_seed(0)
    outputs = TeacherOutputs(
        ["ravdess/a", "ravdess/b", "ravdess/c"],
        torch.randn(3, 4, generator=random),
        torch.rand(3, 3, generator=random),
        torch.randn(3, 5, generator=random),
        torch.tensor([0, 1, 1]),
        ["neutral", "happy", "sad", "angry"],
        [{"corpus": "ravdess", "speakers": ["ravdess/01"], "teachers": []}],
    )
    outputs.save(run / "teacher_outputs")
    return outputs


def test_teacher_outputs_become_a_data_set_of_the_same_numbers(tiny_teacher, make_run, tmp_path):
    run = make_run(tiny_teacher)
    outputs = pseudo_labels(run)

    folder = assemble(run, tmp_path / "out", "somebody/labels", kind="dataset")

    check_folder(folder, "dataset")
    rows = list(load_dataset(str(folder), split="train", streaming=True))
    assert [row["id"] for row in rows] == outputs.ids
    assert [row["teacher"] for row in rows] == [0, 1, 1]
    for index, row in enumerate(rows):
        expected = outputs.logits[index].exp() / outputs.logits[index].exp().sum()
        assert list(row["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-6)
        assert row["probabilities"][row["emotion"]] == max(row["probabilities"].values())
        assert [row[name] for name in ("activation", "valence", "dominance")] == outputs.dimensions[index].tolist()
        assert row["embedding"] == outputs.embedding[index].tolist()


def test_outputs_of_a_teacher_without_a_checkpoint_are_refused_with_the_reason(tiny_teacher, make_run, tmp_path):
    run = make_run(tiny_teacher)
    pseudo_labels(run)
    shutil.rmtree(run / "checkpoints")

    with pytest.raises(ValueError, match=r"face_teacher\.py keeps no checkpoint"):
        assemble(run, tmp_path / "out", "somebody/labels", kind="dataset")


def test_labels_without_categories_become_a_data_set_of_custom_dimensions(tiny_teacher, make_run, tmp_path):
    run = make_run(tiny_teacher)
    outputs = pseudo_labels(run)
    fields = {"logits": torch.zeros(3, 0), "emotions": [], "dimensions": outputs.dimensions[:, :1].contiguous()}
    replace(outputs, **fields).save(run / "teacher_outputs")
    path = run / "checkpoints" / "last" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dimensions": ["tension"], "emotions": []}))

    folder = assemble(run, tmp_path / "out", "somebody/labels", kind="dataset")

    rows = list(load_dataset(str(folder), split="train", streaming=True))
    assert [row["tension"] for row in rows] == outputs.dimensions[:, 0].tolist()
    text = (folder / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    shown: dict = {}
    exec(code.replace("somebody/labels", str(folder)), shown)
    assert 'row["tension"]  # 0 lowest .. 1 highest' in code
    assert not any(name in code for name in ("valence", "probabilities"))


def test_a_complete_folder_is_sent_with_a_card_that_loads_from_the_repository(tmp_path, capsys):
    source = tmp_path / "talk_labels" / "dataset"
    (source / "data").mkdir(parents=True)
    (source / "data" / "rows.parquet").write_bytes(b"rows")
    local = f'# talk_labels\n\nrows = load_dataset("{source}", split="train")\n\nMade by `audio-emotion` 1.\n'
    (source / "README.md").write_text(local)

    folder = assemble(source, tmp_path / "out", "owner/name", "dataset")

    assert files_of(folder) == {"README.md", "data/rows.parquet"}
    sent = (folder / "README.md").read_text()
    assert sent == local.replace(str(source), "owner/name")
    assert (source / "README.md").read_text() == local
    assert assemble(folder, tmp_path / "unused", "owner/name", "dataset") == folder
    assert main(["publish", str(source), "--repo", "owner/name", "--type", "dataset", "--dry-run"]) == EXIT_OK
    assert (Path(capsys.readouterr().out.strip()) / "README.md").read_text() == sent
    assert files_of(source) == {"README.md", "data/rows.parquet"}


def test_the_card_of_labels_loads_from_their_folder_until_they_are_published(
    tiny_student, make_run, tmp_path, monkeypatch
):
    teacher = make_run(tiny_student) / "checkpoints" / "last"
    recipe = runpy.run_path(str(Path(__file__).parents[2] / "recipes" / "pseudo_label.py"))
    monkeypatch.chdir(tmp_path)
    arguments = {"output": "runs/talk_labels", "corpus": "synthetic", "corpus_count": 2}
    recipe["main"](recipe["PseudoLabelArguments"](**arguments, teachers=[f"speech:{teacher}"]))

    folder = Path("runs/talk_labels/dataset")
    card = (folder / "README.md").read_text()
    sent = (assemble(folder, tmp_path / "out", "owner/name", "dataset") / "README.md").read_text()

    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert names["row"]["id"].startswith("synthetic/")
    assert "# talk_labels\n" in card
    assert sent == card.replace("runs/talk_labels/dataset", "owner/name")


def test_the_card_of_a_complete_model_follows_it_to_another_repository(tiny_student, make_run, tmp_path):
    folder = assemble(make_run(tiny_student), tmp_path / "out", "somebody/mouse")

    text = (assemble(folder, tmp_path / "moved", "other/rat") / "README.md").read_text()

    assert "somebody/mouse" not in text
    assert 'model="other/rat"' in text
    assert "--model other/rat" in text
    assert "audio-emotion info other/rat\n" in text


def test_links_in_a_complete_folder_are_not_followed(tmp_path):
    source = tmp_path / "dataset"
    source.mkdir()
    (source / "README.md").write_text('rows = load_dataset("talk_labels")\n\nMade by `audio-emotion` 1.\n')
    (tmp_path / "secret.txt").write_text("secret")
    (source / "notes.txt").symlink_to(tmp_path / "secret.txt")

    with pytest.raises(ValueError, match="link"):
        assemble(source, tmp_path / "out", "owner/name", "dataset")


def test_a_metric_is_named_as_its_repository(tmp_path):
    source = tmp_path / "toy"
    source.mkdir()
    (source / "toy.py").write_text(
        '_DESCRIPTION = "It counts."\n_KWARGS_DESCRIPTION = "Args: x"\n_CITATION = "@misc{x}"'
    )

    folder = assemble(source, tmp_path / "out", "somebody/counter", kind="space")

    assert files_of(folder) == {"counter.py", "README.md"}
    text = (folder / "README.md").read_text()
    assert all(each in text for each in ("It counts.", "Args: x", "@misc{x}", 'evaluate.load("somebody/counter")'))
