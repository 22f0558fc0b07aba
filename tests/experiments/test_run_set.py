"""recipes/experiments/run_set.py: order, skipping, failures and copies; the set of MSP-Podcast end to end."""

from __future__ import annotations

import csv
import io
import json
import os
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from transformers import AutoModel, HubertConfig, Wav2Vec2Config, Wav2Vec2FeatureExtractor

from audio_emotion.data.corpora import synthetic
from audio_emotion.evaluation.metrics import concordance_correlation
from audio_emotion.evaluation.predictions import load_predictions
from audio_emotion.training.arguments import parse_arguments

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
SETS = RECIPES / "configs" / "mitra2022"

# In place of a recipe: writes the files of a run, and a line when it starts. `--wait_for` waits for another's start.
STUB = """
import json, pathlib, sys, time
from dataclasses import asdict, dataclass
import yaml

@dataclass
class Arguments:
    output: str = ""
    protocol: str = ""
    corpus: str = ""
    corpus_path: str = ""
    corruption: str = ""
    encoder: str = ""
    model: str = ""
    teacher: str = ""
    initial_model: str = ""
    wait_for: str = ""
    epochs: int = 20
    seed: int = 0
    breaks: bool = False
    plots: bool = True

BaselineArguments = TeacherArguments = PretrainArguments = DistillArguments = EvaluateArguments = Arguments

def main():
    flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    text = {"output", "protocol", "model", "teacher", "initial_model"}
    values = {name[2:]: value if name[2:] in text else yaml.safe_load(value) for name, value in flags.items()}
    run = pathlib.Path(flags["--output"])
    run.mkdir(parents=True, exist_ok=True)
    here = pathlib.Path(__file__).parent
    with (here / "order.txt").open("a") as order:
        order.write(run.name + "\\n")
    (here / f"{run.name}.started").touch()
    end = time.monotonic() + 20
    while "--wait_for" in flags and not (here / f"{flags['--wait_for']}.started").exists():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    for needed in {"--teacher", "--initial_model"} & set(flags):
        assert (pathlib.Path(flags[needed]) / "results.json").exists()
    if (here / "broken").exists() and "--breaks" in flags:
        sys.exit("this is why it broke")
    (run / "config.yaml").write_text(yaml.safe_dump(asdict(Arguments(**values))))
    if here.joinpath(sys.argv[0]).stem != "pretrain_student":
        (run / "predictions.parquet").write_bytes(b"predictions of " + run.name.encode())
    (run / "results.json").write_text(json.dumps({"flags": flags, "test": {"uar": 0.5}}))

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def stubs(tmp_path):
    """The recipe with stubs in place of the recipes that it runs."""

    class Stubs:
        folder = tmp_path
        recipe = runpy.run_path(str(RECIPES / "experiments" / "run_set.py"))

        def __init__(self) -> None:
            for name in ("baseline", "train_teacher", "pretrain_student", "distill", "evaluate"):
                (tmp_path / f"{name}.py").write_text(STUB)
            self.recipe["main"].__globals__["RECIPES"] = tmp_path

        def write(self, runs: dict, **others) -> None:
            run_set = {"protocol": "fold-{fold}", "folds": [1, 2], "seeds": [0, 1], "runs": runs, **others}
            run_set |= {"output": str(tmp_path / "runs"), "results": str(tmp_path / "results")}
            (tmp_path / "set.yaml").write_text(yaml.safe_dump(run_set, sort_keys=False))

        def arguments(self, **arguments):
            return self.recipe["SetArguments"](set=str(tmp_path / "set.yaml"), **arguments)

        def run(self, **arguments) -> int:
            return self.recipe["main"](self.arguments(**arguments))

        def order(self) -> list[str]:
            file = tmp_path / "order.txt"
            return file.read_text().splitlines() if file.exists() else []

        def flags(self, name: str) -> dict:
            return json.loads((tmp_path / "runs" / name / "results.json").read_text())["flags"]

    return Stubs()


def test_all_folds_of_a_seed_come_before_the_next_seed_and_hints_come_last(stubs):
    hint = {"recipe": "distill", "folds": [1], "seeds": [0], "priority": 1}
    stubs.write({"hint": hint, "b": {"recipe": "distill", "teacher": "t"}, "t": {"recipe": "train_teacher"}})

    assert stubs.run() == 0
    claims = [f"{name}-fold-{fold}-seed-{seed}" for seed in (0, 1) for fold in (1, 2) for name in ("t", "b")]
    assert stubs.order() == [*claims, "hint-fold-1-seed-0"]  # each teacher before its student


def test_a_teacher_comes_before_its_student_even_with_a_later_priority(stubs):
    runs = {"b": {"recipe": "distill", "teacher": "t"}, "t": {"recipe": "train_teacher", "priority": 3}}
    stubs.write(runs)

    jobs = stubs.recipe["plan_jobs"](stubs.arguments(folds=[1], seeds=[0]))
    assert [job.name for job in jobs] == ["t-fold-1-seed-0", "b-fold-1-seed-0"]


def test_list_prints_the_commands_of_unfinished_runs_and_runs_nothing(stubs, capsys):
    stubs.write({"b": {"recipe": "distill", "teacher": "t", "title": "B"}, "t": {"recipe": "train_teacher"}})

    assert stubs.run(list=True, folds=[1], seeds=[0]) == 0
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert [command[1] for command in commands] == [
        str(stubs.folder / f"{n}.py") for n in ("train_teacher", "distill")
    ]
    assert stubs.order() == []
    for command in commands:
        subprocess.run(command, check=True)
    assert stubs.run(list=True, folds=[1], seeds=[0]) == 0
    assert capsys.readouterr().out.strip() == ""
    assert stubs.run(folds=[1], seeds=[0]) == 0  # runs nothing again, and copies the results
    assert len(stubs.order()) == 2
    assert (stubs.folder / "results" / "b-fold-1-seed-0.json").exists()


def test_a_pretraining_of_one_seed_serves_the_students_of_all_seeds(stubs):
    pretrained = {"recipe": "pretrain_student", "seeds": [0]}
    stubs.write({"b": {"recipe": "distill", "initial_model": "p"}, "p": pretrained, "c": pretrained})

    stubs.run(seeds=[1], folds=[2])
    assert stubs.order() == ["p-fold-2-seed-0", "b-fold-2-seed-1"]
    assert stubs.flags("b-fold-2-seed-1")["--initial_model"] == str(stubs.folder / "runs" / "p-fold-2-seed-0")
    stubs.run(seeds=[1], folds=[2])
    assert len(stubs.order()) == 2  # finished


def test_a_student_has_the_teacher_of_its_own_fold_and_seed(stubs):
    stubs.write({"t": {"recipe": "train_teacher"}, "b": {"recipe": "distill", "teacher": "t"}})

    assert stubs.run(jobs=4) == 0
    flags = stubs.flags("b-fold-2-seed-1")
    assert flags["--teacher"] == str(stubs.folder / "runs" / "t-fold-2-seed-1")
    assert (flags["--protocol"], flags["--seed"]) == ("fold-2", "1")


def test_jobs_is_the_number_of_parallel_runs(stubs):
    # Each waits until the other has started, so that one at a time could not end.
    wait = {name: {"wait_for": f"{other}-fold-1-seed-0"} for name, other in (("a", "b"), ("b", "a"))}
    stubs.write({name: {"recipe": "distill", "arguments": each} for name, each in wait.items()})

    assert stubs.run(jobs=2, folds=[1], seeds=[0]) == 0


def test_finished_runs_are_not_run_again_and_titled_ones_are_copied(stubs, capsys):
    stubs.write({"a": {"recipe": "distill", "title": "A"}, "help": {"recipe": "distill"}})
    stubs.run(folds=[1])
    (stubs.folder / "results" / "a-fold-1-seed-0.json").unlink()

    assert stubs.run() == 0
    assert len(stubs.order()) == len(set(stubs.order())) == 8
    assert "8 runs, 4 of them finished" in capsys.readouterr().out
    copied = {path.name for path in (stubs.folder / "results").iterdir()}
    endings = ("json", "parquet")
    assert copied == {f"a-fold-{fold}-seed-{s}.{end}" for fold in (1, 2) for s in (0, 1) for end in endings}
    assert (stubs.folder / "results" / "a-fold-2-seed-1.parquet").read_bytes() == b"predictions of a-fold-2-seed-1"


def test_a_finished_folder_of_other_arguments_raises(stubs):
    stubs.write({"a": {"recipe": "distill", "title": "A", "arguments": {"epochs": 3}}})
    stubs.run(folds=[1], seeds=[0])
    (stubs.folder / "results" / "a-fold-1-seed-0.json").unlink()

    for arguments in ({}, {"epochs": 4}):  # 20 by default
        stubs.write({"a": {"recipe": "distill", "title": "A", "arguments": arguments}})
        with pytest.raises(ValueError, match=r"a-fold-1-seed-0.*`epochs` was 3"):
            stubs.run(folds=[1], seeds=[0])
    assert not (stubs.folder / "results" / "a-fold-1-seed-0.json").exists()


def test_a_failed_run_is_named_with_its_last_lines_and_independent_runs_continue(stubs, capsys):
    breaks = {"recipe": "train_teacher", "arguments": {"breaks": True}}
    stubs.write({"t": breaks, "b": {"recipe": "distill", "teacher": "t"}, "c": {"recipe": "distill"}})
    (stubs.folder / "broken").touch()

    assert stubs.run(folds=[1], seeds=[0]) == 1
    assert stubs.order() == ["t-fold-1-seed-0", "c-fold-1-seed-0"]
    printed = capsys.readouterr().out
    assert "t-fold-1-seed-0 failed" in printed
    assert "this is why it broke" in printed
    assert "b-fold-1-seed-0 was not run, because it needs t-fold-1-seed-0" in printed
    assert "c-fold-1-seed-0: 0 s, uar 0.500" in printed

    (stubs.folder / "broken").unlink()
    assert stubs.run(folds=[1], seeds=[0]) == 0
    assert stubs.order()[2:] == ["t-fold-1-seed-0", "b-fold-1-seed-0"]


def test_selected_runs_include_their_teachers(stubs):
    runs = {"t": {"recipe": "train_teacher"}, "b": {"recipe": "distill", "teacher": "t"}, "c": {"recipe": "distill"}}
    stubs.write(runs)

    assert stubs.run(only=["b"], folds=[2], seeds=[1]) == 0
    assert stubs.order() == ["t-fold-2-seed-1", "b-fold-2-seed-1"]
    with pytest.raises(ValueError, match=r"\['t', 'b', 'c'\], got \['d'\]"):
        stubs.run(only=["d"])
    with pytest.raises(ValueError, match="--folds"):
        stubs.run(folds=[3])


def test_values_are_replaced_in_the_set_and_in_its_configuration_files(stubs):
    (stubs.folder / "teacher.yaml").write_text("encoders: [hub/encoder, log-mel]\nepochs: 3\n")
    teacher = {"recipe": "train_teacher", "config": str(stubs.folder / "teacher.yaml")}
    stubs.write({"t": teacher, "base": {"recipe": "baseline", "arguments": {"encoder": "hub/encoder"}}})
    replace = ["hub/encoder=a/folder", "fold-1=other"]
    (job, other) = stubs.recipe["plan_jobs"](stubs.arguments(replace=replace, folds=[1], seeds=[0]))

    typed = " ".join(job.flags)
    assert typed.startswith(f"--config {stubs.folder / 'teacher.yaml'} ")
    assert "--encoders a/folder log-mel" in typed
    assert "--protocol other" in typed
    assert "--epochs" not in typed  # is in the file already
    assert "--encoder a/folder" in " ".join(other.flags)
    assert "--seed" not in other.flags  # the baseline is deterministic


def test_further_test_sets_are_evaluated_after_the_training(stubs):
    runs = {"t": {"recipe": "train_teacher", "title": "T"}, "help": {"recipe": "train_teacher"}}
    stubs.write(runs, also_test={"second": "second-protocol"}, arguments={"corpus": "a-corpus"})

    assert stubs.run(folds=[1], seeds=[0]) == 0
    flags = stubs.flags("second/t-fold-1-seed-0")
    assert flags["--model"] == str(stubs.folder / "runs" / "t-fold-1-seed-0" / "checkpoints" / "last")
    assert (flags["--protocol"], flags["--corpus"]) == ("second-protocol", "a-corpus")
    assert (stubs.folder / "results" / "second" / "t-fold-1-seed-0.json").exists()
    assert not (stubs.folder / "runs" / "second" / "help-fold-1-seed-0").exists()


def test_the_first_seed_is_evaluated_with_corruptions(stubs):
    stubs.write({"t": {"recipe": "train_teacher", "title": "T", "corruptions": ["telephone"]}})

    assert stubs.run(folds=[2]) == 0
    flags = stubs.flags("telephone/t-fold-2-seed-0")
    assert flags["--model"] == str(stubs.folder / "runs" / "t-fold-2-seed-0" / "checkpoints" / "last")
    assert (flags["--protocol"], flags["--corruption"]) == ("fold-2", "telephone")
    assert (stubs.folder / "results" / "telephone" / "t-fold-2-seed-0.parquet").exists()
    assert not (stubs.folder / "runs" / "telephone" / "t-fold-2-seed-1").exists()


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            {"recipe": "distill", "teacher": "t", "folds": [1, 2]},
            r"folds \[1, 2\] with one seed or seeds \[0, 1\], got 't'",
        ),
        ({"recipe": "distill", "teacher": "missing"}, "got 'missing'"),
        ({"recipe": "bake"}, "got 'bake'"),
    ],
)
def test_an_inconsistent_set_raises_before_anything_runs(stubs, run, message):
    stubs.write({"t": {"recipe": "train_teacher", "folds": [1]}, "b": run})

    with pytest.raises(ValueError, match=message):
        stubs.run()
    assert stubs.order() == []


@pytest.mark.parametrize("name", ["ravdess", "msp_podcast"])
def test_the_sets_of_the_paper_pass_only_arguments_of_their_recipes(name):
    recipe = runpy.run_path(str(RECIPES / "experiments" / "run_set.py"))
    jobs = recipe["plan_jobs"](recipe["SetArguments"](set=str(SETS / f"{name}.yaml"), seeds=[0], folds=[1]))
    recipes = {
        name: runpy.run_path(str(recipe["recipe_path"](name)))[cls] for name, cls in recipe["ARGUMENTS"].items()
    }
    titles = [
        run["title"] for run in yaml.safe_load((SETS / f"{name}.yaml").read_text())["runs"].values() if "title" in run
    ]

    assert len(jobs) == len({job.name for job in jobs})
    assert len(titles) == len(set(titles))
    for job in jobs:
        assert parse_arguments(recipes[job.recipe], list(job.flags)).output == str(job.folder)


# MSP-Podcast from end to end.


def write_msp_podcast(root: Path, clips: int) -> None:
    """A corpus in the layout of the releases: synthetic voices, rated 1..7, whose letters are not all classes."""
    (root / "Audios").mkdir(parents=True)
    (root / "Labels").mkdir()
    lines = []
    partitions = ("Train", "Train", "Train", "Train", "Development", "Test1", "Test1", "Test2", "Test2")
    for number, row in enumerate(synthetic.rows(clips, seed=3)):
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
        name = f"MSP-PODCAST_{number // 20:04d}_{number:04d}.wav"
        soundfile.write(root / "Audios" / name, samples, rate, subtype="PCM_16")
        ratings = [round(1 + 6 * row[each], 2) for each in ("activation", "valence", "dominance")]
        letter = (
            "XO"[number % 2]
            if number % 7 == 0
            else {"happy": "H", "angry": "A", "sad": "S", "calm": "N"}[row["emotion"]]
        )
        partition = partitions[number % 9]
        speaker = "Unknown" if number % 11 == 0 and partition == "Train" else f"{partition}{number % 4}"
        lines.append((name, letter, *ratings, speaker, ("Male", "Female")[number % 2], partition))
    with (root / "Labels" / "labels_consensus.csv").open("w", newline="") as text:
        header = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set")
        csv.writer(text).writerows([header, *lines])


def write_encoder(folder: Path, config) -> None:
    """An encoder with random weights, as on the Hub."""
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)


@pytest.mark.slow
def test_the_set_of_msp_podcast_runs_end_to_end_and_its_tables_are_rendered(tmp_path):
    write_msp_podcast(tmp_path / "data" / "msp-podcast", clips=135)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24} | {
        **{"conv_dim": (8, 8, 8, 8), "conv_kernel": (10, 8, 4, 4), "conv_stride": (5, 4, 4, 4)},
        **{"feat_extract_norm": "layer", "do_stable_layer_norm": True},
        **{"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2},
    }
    write_encoder(tmp_path / "tiny-wav2vec2", Wav2Vec2Config(**small))
    write_encoder(tmp_path / "tiny-hubert", HubertConfig(**small))
    run_set = yaml.safe_load((SETS / "msp_podcast.yaml").read_text())
    run_set |= {"output": str(tmp_path / "runs"), "results": str(tmp_path / "results")}
    for run in run_set["runs"].values():
        run["arguments"] = {**run.get("arguments", {}), "epochs": 1, "batch_size": 16}
        run["arguments"]["cache"] = str(tmp_path / "cache")
        if run["recipe"] == "train_teacher":
            run["arguments"]["hidden_size"] = 16
        if "cross_fit" in run["arguments"]:
            run["arguments"]["cross_fit"] = 2
    (tmp_path / "set.yaml").write_text(yaml.safe_dump(run_set, sort_keys=False))

    command = [
        sys.executable,
        str(RECIPES / "experiments" / "run_set.py"),
        "--set",
        str(tmp_path / "set.yaml"),
        "--jobs",
        "2",
    ]
    command += ["--seeds", "0", "--only", "mel", "fusion", "labels_only", "distilled", "mel_figure_1a", "--replace"]
    command += [f"facebook/wav2vec2-large-lv60={tmp_path / 'tiny-wav2vec2'}"]
    command += [f"facebook/hubert-large-ll60k={tmp_path / 'tiny-hubert'}"]
    command += [f"msp-podcast-1.11-{test}=msp-podcast-1.12-{test}" for test in ("test", "test-2")]
    environment = {**os.environ, "AUDIO_EMOTION_DATA": str(tmp_path / "data"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 runs, 0 of them finished" in done.stdout

    table = [sys.executable, str(RECIPES / "experiments" / "table.py"), "--set", str(tmp_path / "set.yaml")]
    readme = (ROOT / "README.md").read_bytes()
    tables = subprocess.run(table, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert (ROOT / "README.md").read_bytes() == readme
    first, second = tables.split("Tested on `msp-podcast-1.12-test-2`:")
    assert "Tested on `msp-podcast-1.12-test`:" in first
    for part, folder in ((first, tmp_path / "results"), (second, tmp_path / "results" / "test-2")):
        (row,) = [line.split(" | ") for line in part.splitlines() if line.startswith("| `small` student, distilled")]
        predictions, _, _ = load_predictions(folder / "distilled-fold-1-seed-0.parquet")
        valence = concordance_correlation(predictions.dimensions[:, 1], predictions.dimension_labels[:, 1])
        assert row[1] == "1, 1, *hint*"
        assert row[3].startswith(f"{valence:.3f} (")
        for comparison, claim in (("fusion vs mel", "+79 %"), ("distilled vs labels only", "+12 %")):
            (line,) = [
                line for line in part.splitlines() if line.startswith(f"| {comparison} |") and "valence" in line
            ]
            assert line.endswith(f"| {claim} |")
        assert "| log-mel alone, Figure 1(A) | 1, 1, *hint* |" in part
        assert "UAR" not in part
        assert "control" not in part
    speakers = {
        test: set(load_predictions(tmp_path / "results" / test / "mel-fold-1-seed-0.parquet")[0].speakers)
        for test in ("", "test-2")
    }
    assert speakers[""] == {f"msp-podcast/Test1{number}" for number in range(4)}
    assert speakers["test-2"] == {f"msp-podcast/Test2{number}" for number in range(4)}

    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert "10 runs, 10 of them finished" in again
