"""The command `audio-emotion`: outputs, exit codes, and continuation after a kill."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.torch import load_file, save_file
from transformers import AutoModelForAudioClassification, pipeline

import audio_emotion
from audio_emotion import StudentEmotionForAudioClassification
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion_cli import EXIT_ABORTED, EXIT_OK, EXIT_SOME_FAILED, EXIT_USAGE, argument_parser, main
from audio_emotion_cli.compare import FolderPredictions, compare_folders
from audio_emotion_cli.inputs import find_clips
from audio_emotion_cli.plot import MAX_POINTS, Overview
from audio_emotion_cli.rows import RowWriter, continue_file

ROOT = Path(__file__).parents[1]
PACKAGE_ROOT = Path(audio_emotion.__file__).parents[1]
DIMENSIONS = ["activation", "valence", "dominance"]
EMOTIONS = ["sad", "glad"]
ODD_NAMES = ["a b.wav", "b\nc.wav", 'c"d",e.wav', "d%20.wav", "é\u2003.wav", os.fsdecode(b"f\xff.wav"), "g;;.wav"]


@pytest.fixture
def checkpoint(tiny_student, tmp_path) -> str:
    return str(write_checkpoint(tiny_student, tmp_path / "checkpoint"))


@pytest.fixture
def folder(tmp_path, speech) -> Path:
    """Three clips in two levels, one file that is no audio under an audio name, and things to leave out."""
    root = tmp_path / "clips"
    (root / "b").mkdir(parents=True)
    for name, length in (("b/two.wav", 20000), ("a.wav", 32000), ("c.flac", 8000)):
        soundfile.write(root / name, speech[:length], 16000)
    (root / "b" / "bad.wav").write_bytes(b"no audio")
    (root / "notes.txt").write_text("left out")
    (root / "._a.wav").write_bytes(b"left out")
    return root


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "audio_emotion_cli", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def prediction(number: int, windows: int = 0) -> dict:
    """An output as the pipeline returns it."""
    if number % 3 == 2:
        return {"error": f'it is no, "audio"\n{number}', "input": "x"}
    span = {
        "dimensions": dict(zip(DIMENSIONS, [0.1, number / 100, 0.3], strict=True)),
        "emotions": [{"label": "glad", "score": 0.75}, {"label": "sad", "score": 0.25}],
    }
    spans = [{"start": float(each), "end": each + 1.0, **span} for each in range(windows)]
    return {**span, "scale": [0.0, 1.0], "duration": 2.5, "flags": ["short"]} | ({"windows": spans} if spans else {})


def test_the_installed_script_is_this_command():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["scripts"] == {"audio-emotion": "audio_emotion_cli:main"}


def output_without_heavy_imports(*words: str) -> str:
    """Stdout of the command, after a check that it succeeded and imported nothing heavy."""
    code = (
        "import sys, audio_emotion_cli as c\n"
        "try:\n    c.main(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code\n"
        "print({'torch', 'transformers', 'numpy', 'audio_emotion'} & set(sys.modules), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()"
    return done.stdout


def test_help_imports_nothing_heavy():
    assert "--batch-size" in output_without_heavy_imports("predict", "--help")


def test_every_argument_has_a_help_text():
    commands = next(action for action in argument_parser()._actions if action.dest == "command")
    lacking = [
        f"{name} {action.dest}"
        for name, each in commands.choices.items()
        for action in each._actions
        if not action.help
    ]

    expected = {"predict", "timeline", "listen", "serve", "info", "compare", "evaluate", "check", "demo", "export"}
    assert set(commands.choices) == {*expected, "publish"}
    assert lacking == []


def test_version_is_that_of_the_package_and_imports_nothing_heavy():
    assert output_without_heavy_imports("--version") == f"audio-emotion {audio_emotion.__version__}\n"


def test_folders_are_walked_in_one_order_without_hidden_and_other_files(folder):
    (folder / "b" / "circle").symlink_to(folder)

    found = [Path(name).relative_to(folder).as_posix() for name in find_clips([str(folder)])]

    assert found == ["a.wav", "b/bad.wav", "b/two.wav", "c.flac"]
    assert list(find_clips(["no.wav", str(folder / "notes.txt")])) == ["no.wav", str(folder / "notes.txt")]


def test_a_folder_holds_clips_of_every_format_that_is_read(tmp_path):
    formats = ["wav", "flac", "mp3", "ogg", "aiff", "au", "caf", "nist"]  # as errors list them
    formats += ["m4a", "mp4", "webm", "mkv", "avi", "flv", "ts", "aac", "amr", "wma"]
    for suffix in formats:
        (tmp_path / f"{suffix}.{suffix.upper()}").touch()

    assert [Path(name).stem for name in find_clips([str(tmp_path)])] == sorted(formats)


def test_walking_reads_directories_lazily(folder, monkeypatch):
    read: list[str] = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (read.append(str(path)), scan(path))[1])

    walk = find_clips([str(folder), str(folder / "b")])
    next(walk)

    assert read == [str(folder)]


def test_json_rows_are_the_output_of_the_pipeline(folder, checkpoint, capsys):
    code = main(
        ["predict", str(folder), "--model", checkpoint, "--format", "json", "--top-k", "2", "--scale", "1", "7"]
    )

    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    recognizer = pipeline("audio-emotion", model=checkpoint, device="cpu")
    assert code == EXIT_SOME_FAILED
    assert [Path(row["input"]).name for row in rows] == ["a.wav", "bad.wav", "two.wav", "c.flac"]
    assert "bad.wav" in rows[1]["error"]
    assert rows[1].keys() == {"input", "error"}
    assert rows[1]["error"] in err
    assert "1 of 4 inputs failed" in err
    for row in (rows[0], rows[2], rows[3]):
        expected = recognizer(row.pop("input"), top_k=2, scale=(1, 7))
        assert row["dimensions"] == pytest.approx(expected["dimensions"], abs=1e-4)
        assert [each["label"] for each in row["emotions"]] == [each["label"] for each in expected["emotions"]]
        assert (row["scale"], row["duration"], row["flags"]) == ([1.0, 7.0], expected["duration"], expected["flags"])


def test_csv_and_rttm_hold_the_same_predictions_as_json(folder, checkpoint, capsys):
    written = {}
    for kind in ("json", "csv", "rttm"):
        main(["predict", str(folder / "b" / "two.wav"), "--model", checkpoint, "--format", kind, "--window", "0.5"])
        written[kind] = capsys.readouterr().out
    windows = json.loads(written["json"])["windows"]
    table = list(csv.DictReader(written["csv"].splitlines()))
    turns = [line.split() for line in written["rttm"].splitlines()]

    assert len(windows) == len(table) == len(turns) == 3  # 1.25 s: the last window is half as long
    for window, row, turn in zip(windows, table, turns, strict=True):
        assert (float(row["start"]), float(row["end"])) == (window["start"], window["end"])
        assert {name: float(row[name]) for name in DIMENSIONS} == window["dimensions"]
        assert {each["label"]: each["score"] for each in window["emotions"]} == {
            name: float(row[name]) for name in ("neutral", "happy", "sad", "angry")
        }
        first = window["emotions"][0]
        assert turn[0] == "SPEAKER"
        assert (float(turn[3]), float(turn[4])) == (window["start"], window["end"] - window["start"])
        assert (turn[7], float(turn[8])) == (first["label"], pytest.approx(first["score"], abs=1e-4))
        assert len(turn) == 10


@pytest.mark.parametrize("kind", ["csv", "table"])
def test_a_window_s_row_has_its_own_flags_and_a_clip_s_row_those_of_the_clip(kind):
    whole = prediction(0)
    whole["flags"] = ["silence", "clipped"]
    windowed = {**prediction(0, windows=3), "flags": ["silence", "clipped"]}
    for window, flags in zip(windowed["windows"], (["silence", "short"], [], ["clipped"]), strict=True):
        window["flags"] = flags
    writer = RowWriter(kind, DIMENSIONS, EMOTIONS, True)

    rows = [line for each in (whole, windowed) for line in writer.lines("a.wav", each).splitlines()]

    # In a table they stand before the name, which two blanks part from them.
    shown = [row.split(",")[3] if kind == "csv" else row.removesuffix("  a.wav")[-20:] for row in rows]
    found = [{flag for flag in ("silence", "clipped", "short") if flag in each} for each in shown]
    assert found == [{"silence", "clipped"}, {"silence", "short"}, set(), {"clipped"}]


class Terminal(io.StringIO):
    """One of two streams that a person sees on one screen."""

    def __init__(self, screen: list[str]) -> None:
        super().__init__()
        self.screen = screen

    def write(self, text: str) -> int:
        self.screen.append(text)
        return len(text)

    def isatty(self) -> bool:
        return True


def seen(screen: list[str]) -> list[str]:
    """Lines as they stand in the end: after a carriage return the line is written over from its start."""
    lines = []
    for text in "".join(screen).replace("\x1b[A", "").split("\n"):
        line = ""
        for part in text.split("\r"):
            line = part + line[len(part) :]
        lines.append(line.rstrip())
    return lines


def test_on_a_terminal_rows_and_progress_bar_do_not_mix_and_a_failure_is_shown_once(
    folder, checkpoint, monkeypatch, capsys
):
    arguments = ["predict", str(folder), "--model", checkpoint, "--batch-size", "1"]
    main(arguments)
    piped = capsys.readouterr()
    screen: list[str] = []
    monkeypatch.setattr(sys, "stdout", Terminal(screen))
    monkeypatch.setattr(sys, "stderr", Terminal(screen))

    code = main(arguments)

    lines = seen(screen)
    rows = [line.rstrip() for line in piped.out.splitlines()]
    assert code == EXIT_SOME_FAILED
    assert len(rows) == 5  # a header and four clips
    assert [line for line in lines if line in rows] == rows
    left = [line for line in lines if line and line not in rows]
    assert [line.partition(" ")[0] for line in left] == ["4clip", "1"]  # the bar as it ended, and how many failed
    assert left[1] == "1 of 4 inputs failed."
    assert "bad.wav" in piped.err  # of which stdout, going elsewhere, says nothing to whoever watches


ESCAPE = "\x1b]0;owned\x07\x1b[31m"


def test_no_escape_sequence_of_a_name_or_a_model_reaches_the_terminal(tiny_student, tmp_path, speech, capsys):
    clips, broken = tmp_path / "clips", f"b{ESCAPE}.wav"
    clips.mkdir()
    for name in (f"a{ESCAPE}.wav", "c.wav"):
        soundfile.write(clips / name, speech, 16000)
    (clips / broken).write_bytes(b"no audio")
    config = tiny_student.config
    config.license, config.training_data = f"MIT{ESCAPE}", [{"corpus": f"x{ESCAPE}", "speakers": [f"1{ESCAPE}"]}]
    config.id2label = {index: f"{name}{ESCAPE}" for index, name in enumerate(config.emotions)}
    config.emotions = list(config.id2label.values())
    model = str(write_checkpoint(tiny_student, tmp_path / "model"))

    main(["predict", str(clips), "--model", model])
    main(["predict", str(clips), "--model", model, "--format", "rttm"])
    main(["compare", str(clips), str(clips), "--model", model])
    main(["info", model])
    main(["info", f"no{ESCAPE}"])
    main(["predict", str(clips / broken), "--model", model, "--output", str(tmp_path / f"no{ESCAPE}" / "out")])

    output = "".join(capsys.readouterr())
    assert "owned" in output
    assert "\x1b" not in output
    assert "\x07" not in output


def test_csv_is_exact_in_a_file_and_printable_on_a_terminal(checkpoint, tmp_path, speech, monkeypatch, capsys):
    clip = tmp_path / f"a{ESCAPE}.wav"
    soundfile.write(clip, speech, 16000)
    arguments = ["predict", str(clip), "--model", checkpoint, "--format", "csv"]
    main(arguments)
    piped = capsys.readouterr().out
    screen: list[str] = []
    monkeypatch.setattr(sys, "stdout", Terminal(screen))
    main(arguments)

    assert str(clip) in piped
    assert "\x1b" not in "".join(screen)
    assert "owned" in "".join(screen)


def test_table_shows_errors_and_exit_codes_differ(folder, checkpoint, capsys):
    failed = main(["predict", str(folder), str(folder / "none.wav"), "--model", checkpoint])
    text = capsys.readouterr().out
    fine = main(["predict", str(folder / "a.wav"), "--model", checkpoint])

    assert (failed, fine) == (EXIT_SOME_FAILED, EXIT_OK)
    assert "bad.wav: expected audio" in text
    assert "none.wav: expected an audio file" in text
    assert "0.00 to 2.00" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "CLIPS", "--output", "out", "--format", "table"], "--format json"),
        (["predict", "CLIPS", "--hop", "1"], "--window"),
        (["predict", "CLIPS", "--output", "nowhere/out", "--format", "json"], "nowhere"),
        (["predict", "CLIPS", "--output", "out", "--format", "rttm", "--plot", "a.png"], "csv"),
        (["predict", "CLIPS", "--model", "CLIPS"], "cannot load"),
        (["predict", "CLIPS", "--revision", "v1"], "--model"),
        (["predict", "CLIPS", "--scale", "7", "1"], "lower one first"),
        (["predict", "CLIPS", "--window", "0.1"], "0.25"),
        (["predict", "EMPTY"], "no audio files"),
        (["predict", "CLIPS", "--device", "toaster"], "toaster"),
        (["compare", "CLIPS", "nowhere"], "nowhere"),
        (["compare", "CLIPS", "EMPTY"], "at least 2"),
        (["info", "EMPTY"], "cannot load"),
        (["info", "nope"], "no such folder here"),
        (["predict", "CLIPS", "--model", "runs/teacher/checkpoint"], "no such folder here"),
        (["predict", "-"], "standard input is not read"),
    ],
)
def test_unusable_input_ends_with_2_and_a_remedy(arguments, message, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    places = {"CLIPS": str(folder), "EMPTY": str(tmp_path / "empty")}

    code = main([places.get(each, each) for each in arguments])

    assert code == EXIT_USAGE
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--output", "out.jsonl", "--format", "json"], ["--format", "csv"]])
def test_a_folder_without_clips_leaves_neither_a_header_nor_a_file(
    arguments, checkpoint, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.iterdir())

    code = main(["predict", "empty", "--model", checkpoint, *arguments])

    output = capsys.readouterr()
    assert (code, output.out) == (EXIT_USAGE, "")
    assert "no audio files in empty" in output.err
    assert sorted(tmp_path.iterdir()) == before


def test_the_error_for_an_unknown_model_mentions_folder_and_hub(monkeypatch, capsys):
    asked = []

    def fail(model: str, **_) -> None:
        asked.append(model)
        raise OSError("no way to the Hub")

    monkeypatch.setattr(AutoModelForAudioClassification, "from_pretrained", fail)

    codes = [main(["info", model]) for model in ("nope/nope", "nope", "./nope/nope")]

    message = capsys.readouterr().err.splitlines()
    assert codes == [EXIT_USAGE] * 3
    assert asked == ["nope/nope"]  # the others can be no Hub id of ours, so nobody waits for the network
    assert all("no such folder here" in line for line in message)
    assert ["no way to the Hub" in line for line in message] == [True, False, False]


@pytest.mark.parametrize("wrong", ["x", "1.5", "0", "-1", ""])
def test_the_error_for_an_invalid_batch_size_is_readable(wrong, capsys):
    with pytest.raises(SystemExit) as end:
        main(["predict", "a.wav", f"--batch-size={wrong}"])

    message = capsys.readouterr().err
    assert end.value.code == EXIT_USAGE
    assert f"argument --batch-size: expected a whole number of at least 1, got {wrong!r}" in message
    assert "positive_int" not in message


@pytest.mark.parametrize("arguments", [[], ["predict"], ["predict", "a", "--batch-size", "0"], ["sing"]])
def test_wrong_arguments_end_with_2(arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == EXIT_USAGE


def test_an_unexpected_error_ends_with_3(folder, checkpoint, monkeypatch, capsys):
    def fall(*_):
        raise ZeroDivisionError("unforeseen")

    monkeypatch.setattr(RowWriter, "lines", fall)

    assert main(["predict", str(folder), "--model", checkpoint]) == EXIT_ABORTED
    assert "unforeseen" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "windows"),
    [
        ("json", 0),
        ("csv", 0),
        ("rttm", 3),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("json", 2), ("csv", 2), ("rttm", 0))),
    ],
)
def test_a_file_cut_at_any_byte_is_continued_to_the_same_file(kind, windows, tmp_path):
    writer = RowWriter(kind, DIMENSIONS, EMOTIONS, windows > 0)
    predictions = {name: prediction(number, windows) for number, name in enumerate(ODD_NAMES)}
    rows = [writer.header(), *(writer.lines(name, each) for name, each in predictions.items())]
    whole = "".join(rows).encode(errors="surrogateescape")
    path = tmp_path / "out"

    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        seen = []
        left, done = continue_file(path, writer, iter(ODD_NAMES), seen.append)
        assert len({row.clip for row in seen}) == done
        with path.open("a", errors="surrogateescape", newline="") as file:
            if not file.tell():
                file.write(writer.header())
            file.writelines(writer.lines(name, predictions[name]) for name in left)
        assert path.read_bytes() == whole, cut
        assert [row.failed for row in seen] == ["error" in predictions[row.clip] for row in seen]


@pytest.mark.parametrize("kind", ["json", "csv", "rttm"])
def test_a_file_is_not_continued_where_the_clips_have_changed(kind, tmp_path):
    writer = RowWriter(kind, DIMENSIONS, EMOTIONS, False)
    path = tmp_path / "out"
    path.write_text(writer.header() + "".join(writer.lines(name, prediction(0)) for name in "abc"))
    before = path.read_bytes()

    for clips in ("axbc", "bc", "ab"):
        with pytest.raises(ValueError, match="have changed"):
            continue_file(path, writer, iter(clips), lambda row: None)
        assert path.read_bytes() == before


def test_output_of_another_command_is_not_continued(folder, checkpoint, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    begin = ["predict", str(folder), "--model", checkpoint, "--format", "json", "--output", str(out)]
    main(begin)
    made = out.read_bytes()

    again = main(begin)  # all done: nothing is doubled, and the bad clip is still reported
    other = main([*begin, "--scale", "1", "7"])
    message = capsys.readouterr().err
    out.with_name("out.jsonl.command.json").unlink()
    strange = main(begin)

    assert (again, other, strange) == (EXIT_SOME_FAILED, EXIT_USAGE, EXIT_USAGE)
    assert "1 of 4 inputs failed (1 of them in an earlier run)" in message
    assert "different settings: scale" in message
    assert "not written by this command" in capsys.readouterr().err
    assert out.read_bytes() == made


def test_output_is_continued_whether_or_not_a_folder_ends_with_a_slash(folder, checkpoint, tmp_path, capsys):
    out = tmp_path / "out.jsonl"

    def predict(slashes: str) -> int:
        model = f"{checkpoint}{slashes}"
        return main(["predict", f"{folder}{slashes}", "--model", model, "--format", "json", "--output", str(out)])

    predict("/")
    made = out.read_bytes()
    out.write_bytes(made[:-10])  # torn
    codes = [predict(slashes) for slashes in ("", "/", "//")]

    assert codes == [EXIT_SOME_FAILED] * 3  # bad.wav
    assert [json.loads(line)["input"] for line in out.read_text().splitlines()] == list(find_clips([str(folder)]))
    assert "different settings" not in capsys.readouterr().err


def test_output_is_not_continued_with_retrained_weights(folder, checkpoint, tmp_path, capsys):
    begin = ["predict", str(folder), "--model", checkpoint, "--format", "csv", "--output", str(tmp_path / "out.csv")]
    main(begin)
    weights = load_file(Path(checkpoint) / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, Path(checkpoint) / "model.safetensors")

    assert main(begin) == EXIT_USAGE
    assert "different settings: weights" in capsys.readouterr().err


def test_plot_of_a_continued_run_equals_that_of_a_whole_run(folder, checkpoint, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Overview, "draw", lambda self, path: drawn.append((self.points, self.emotions, self.count)))
    for kind in ("json", "csv"):
        out = tmp_path / f"out.{kind}"
        begin = ["predict", str(folder), "--model", checkpoint, "--format", kind, "--output", str(out), "--plot", "p"]
        main(begin)
        out.write_bytes(out.read_bytes()[:-100])
        main(begin)

        (dots, emotions, count), (dots_after, emotions_after, count_after) = drawn[-2:]
        assert count == count_after == 3
        np.testing.assert_allclose(dots, dots_after, atol=1e-5)
        assert emotions == pytest.approx(emotions_after, abs=1e-4)


def test_plot_counts_every_prediction_in_bounded_memory(tmp_path):
    overview = Overview((1.0, 7.0))
    random = np.random.default_rng(0)
    for valence, activation in random.uniform(1, 7, size=(MAX_POINTS + 500, 2)):
        overview.add([{"dimensions": {"valence": valence, "activation": activation}, "emotions": []}])
    overview.add([{"dimensions": {"valence": 7.0, "activation": 1.0}, "emotions": [{"label": "sad", "score": 1.0}]}])

    overview.draw(str(tmp_path / "plot.png"))

    assert (len(overview.points), overview.density.sum()) == (MAX_POINTS, MAX_POINTS + 501)
    assert overview.density[-1, 0] >= 1
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_info_shows_the_facts_of_the_checkpoint(tiny_student, tmp_path, capsys):
    tiny_student.config.training_data = [
        {
            "corpus": "toy",
            "speakers": ["toy/1"],
            "teachers": [{"corpus": "toy", "speakers": ["toy/2"], "teachers": []}],
        }
    ]
    tiny_student.config.license = "MIT"
    tiny_student.config.dimensions_source = "rated"
    model = str(write_checkpoint(tiny_student, tmp_path / "model"))

    assert main(["info", model, "--format", "json"]) == EXIT_OK
    facts = json.loads(capsys.readouterr().out)
    assert main(["info", model]) == EXIT_OK
    text = capsys.readouterr().out

    assert (facts["kind"], facts["parameters"]) == ("student", tiny_student.num_parameters())
    assert (facts["license"], facts["num_training_speakers"], facts["complete"]) == ("MIT", 2, True)
    for fact in ("MIT", f"{tiny_student.num_parameters():,}", "toy: 1 speakers (2)", "3 dimensions and 4 emotions"):
        assert fact in text


@pytest.mark.parametrize("facts", [[{"speakers": ["a"]}], [{"corpus": "a", "speakers": 3}]])
def test_info_of_invalid_facts_is_one_line(facts, checkpoint, capsys):
    path = Path(checkpoint) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "training_data": facts}))

    assert main(["info", checkpoint]) == EXIT_USAGE
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_info_of_a_checkpoint_without_a_head_ends_with_2_and_names_it(checkpoint, capsys):
    weights = load_file(Path(checkpoint) / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("heads.dimensions")}
    assert len(kept) < len(weights)
    save_file(kept, Path(checkpoint) / "model.safetensors", metadata={"format": "pt"})

    assert main(["info", checkpoint]) == EXIT_USAGE
    assert "heads.dimensions" in capsys.readouterr().err


def random_predictions(names: list[str], seed: int) -> FolderPredictions:
    random = np.random.default_rng(seed)
    emotions = random.dirichlet([1.0, 1.0], size=len(names))
    return FolderPredictions(
        names, random.uniform(size=(len(names), 3)), emotions, random.normal(size=(len(names), 5))
    )


def test_comparison_of_pairs_is_the_formula_over_matching_names():
    reference = random_predictions(["a", "b", "c", "only here"], 0)
    other = random_predictions(["c", "only there", "b", "a"], 1)

    result = compare_folders(reference, other, DIMENSIONS, EMOTIONS)

    assert (result["paired"], result["pairs"], result["unpaired"]) == (True, 3, 2)
    pairs = [(0, 3), (1, 2), (2, 0)]
    for column, name in enumerate(DIMENSIONS):
        differences = [other.dimensions[j, column] - reference.dimensions[i, column] for i, j in pairs]
        each = result["dimensions"][name]
        assert each["difference"] == pytest.approx(sum(differences) / 3)
        assert each["interval"][0] <= each["difference"] <= each["interval"][1]
        assert min(differences) - 1e-9 <= each["interval"][0]
    same = [reference.emotions[i].argmax() == other.emotions[j].argmax() for i, j in pairs]
    assert result["category_agreement"]["value"] == pytest.approx(sum(same) / 3)
    cosines = [
        float(a @ b / (a @ a * (b @ b)) ** 0.5)
        for a, b in ((reference.embeddings[i], other.embeddings[j]) for i, j in pairs)
    ]
    assert result["embedding_cosine"]["value"] == pytest.approx(sum(cosines) / 3)


def test_comparison_of_a_folder_with_itself_finds_no_difference():
    one = random_predictions(list("abcdef"), 0)

    result = compare_folders(one, one, DIMENSIONS, EMOTIONS)

    assert all(each["interval"] == [0.0, 0.0] for each in result["dimensions"].values())
    assert result["category_agreement"] == {"value": 1.0, "interval": [1.0, 1.0]}
    assert result["embedding_cosine"]["value"] == pytest.approx(1.0)


def test_comparison_without_pairs_is_of_whole_folders():
    reference, other = random_predictions([f"r{n}" for n in range(40)], 0), random_predictions(list("abcdef"), 1)

    result = compare_folders(reference, other, DIMENSIONS, EMOTIONS)

    assert (result["paired"], result["clips"]) == (False, {"reference": 40, "other": 6})
    for column, name in enumerate(DIMENSIONS):
        each, first, second = result["dimensions"][name], reference.dimensions[:, column], other.dimensions[:, column]
        assert each["difference"] == pytest.approx(second.mean() - first.mean())
        # The normal approximation of the same interval: half its width is 1.96 standard errors.
        error = (first.var() / len(first) + second.var() / len(second)) ** 0.5
        assert (each["interval"][1] - each["interval"][0]) / 2 == pytest.approx(1.96 * error, rel=0.15)
    distance = 0.5 * np.abs(reference.emotions.mean(0) - other.emotions.mean(0)).sum()
    assert result["category_overlap"]["value"] == pytest.approx(1 - distance)


def test_compare_pairs_clips_by_their_place_below_the_folders(folder, checkpoint, tmp_path, capsys):
    other = tmp_path / "synthesized"
    (other / "b").mkdir(parents=True)
    for source, target in (("a.wav", "a.flac"), ("b/two.wav", "b/two.wav")):
        soundfile.write(other / target, *soundfile.read(folder / source))

    code = main(["compare", str(folder), str(other), "--model", checkpoint, "--format", "json"])

    result = json.loads(capsys.readouterr().out)
    assert code == EXIT_SOME_FAILED  # bad.wav
    assert list(result["failed"]) == [str(folder / "b" / "bad.wav")]
    assert (result["pairs"], result["unpaired"]) == (2, 1)
    assert all(abs(each["difference"]) < 1e-4 for each in result["dimensions"].values())


@pytest.mark.parametrize("absent", ["dimensions", "emotions"])
def test_compare_needs_neither_dimensions_nor_emotions(absent, tiny_student_config, folder, tmp_path, capsys):
    tiny_student_config.predict_variance = False
    if absent == "dimensions":
        tiny_student_config.dimensions, tiny_student_config.dimension_weights = [], []
    else:
        tiny_student_config.emotions, tiny_student_config.id2label, tiny_student_config.label2id = [], {}, {}
    model = write_checkpoint(StudentEmotionForAudioClassification(tiny_student_config), tmp_path / "model")

    code = main(["compare", str(folder), str(folder), "--model", str(model), "--format", "json"])
    result = json.loads(capsys.readouterr().out)
    main(["compare", str(folder), str(folder), "--model", str(model)])

    assert code == EXIT_SOME_FAILED  # bad.wav
    assert bool(result["dimensions"]) == (absent != "dimensions")
    assert ("category_agreement" in result) == (absent != "emotions")
    assert "embedding cosine" in capsys.readouterr().out


def test_compare_refuses_two_clips_that_differ_in_their_suffix_alone(folder, checkpoint, tmp_path, capsys):
    (folder / "a.flac").write_bytes((folder / "a.wav").read_bytes())

    assert main(["compare", str(tmp_path), str(folder), "--model", checkpoint]) == EXIT_USAGE
    message = capsys.readouterr().err
    assert "a.flac" in message
    assert "a.wav" in message


def test_two_commands_do_not_write_to_one_file(folder, checkpoint, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.jsonl"
    arguments = ["predict", str(folder), "--model", checkpoint, "--format", "json", "--output", str(out)]
    codes, lines = [], RowWriter.lines

    def start_another(self, clip, found):
        if not codes:
            codes.append(None)
            codes[0] = main(arguments)
        return lines(self, clip, found)

    monkeypatch.setattr(RowWriter, "lines", start_another)
    codes.append(main(arguments))

    assert codes == [EXIT_USAGE, EXIT_SOME_FAILED]
    assert "another command is writing to it" in capsys.readouterr().err
    assert [json.loads(line)["input"] for line in out.read_text().splitlines()] == list(find_clips([str(folder)]))


@pytest.mark.parametrize("left", ["", "input,start,end", None])
def test_a_run_that_died_before_its_first_row_leaves_no_obstacle(left, folder, checkpoint, tmp_path):
    out = tmp_path / "out.csv"
    arguments = ["predict", str(folder), "--model", checkpoint, "--format", "csv", "--output", str(out)]
    main(arguments)
    whole = out.read_text()
    out.write_text(whole.partition("\n")[0] + "\n" if left is None else left)

    assert main([*arguments, "--scale", "1", "7"]) == EXIT_SOME_FAILED
    assert len(out.read_text().splitlines()) == len(whole.splitlines())


def wait_for_rows(path: Path, count: int, process: subprocess.Popen) -> None:
    for _ in range(1200):
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        assert process.poll() is None, "the command ended before it could be killed"
        time.sleep(0.05)
    raise AssertionError(f"expected {count} rows within a minute")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "window"), [("json", []), ("csv", ["--window", "0.3"])])
def test_killed_in_the_middle_and_started_again_no_row_is_missing_or_doubled(
    kind, window, checkpoint, tmp_path, speech
):
    clips = tmp_path / "many"
    names = [f"{number // 100}/{number:04d}.wav" for number in range(600)]
    for number, name in enumerate(names):
        (clips / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(clips / name, speech[number * 10 : number * 10 + 6000 + 10 * number], 16000)
    arguments = ["predict", str(clips), "--model", checkpoint, "--format", kind, *window, "--batch-size", "4"]
    out, whole = tmp_path / "killed", tmp_path / "whole"

    for rows in (60, 250):  # killed twice
        process = subprocess.Popen(
            command(*arguments, "--output", str(out)), env=environment(), stderr=subprocess.DEVNULL
        )
        wait_for_rows(out, rows, process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        torn = out.read_bytes()
        out.write_bytes(torn + b'{"input": "torn')  # what a full disk or a lost machine may leave
    for path in (out, whole):
        subprocess.run(
            command(*arguments, "--output", str(path)), env=environment(), check=True, stderr=subprocess.DEVNULL
        )

    with out.open(newline="") as file:
        found = [json.loads(line)["input"] for line in file] if kind == "json" else None
        found = found or [row["input"] for row in csv.DictReader(file)]
    per_clip = len(found) // len(names) if kind == "json" else None
    assert list(dict.fromkeys(found)) == [str(clips / name) for name in names]
    if per_clip:
        assert per_clip == 1
        assert len(found) == len(names)
    # Batches fall differently after a kill, and with them the last digits: names and spans are equal to the byte.
    rows_of = {path: path.read_text().splitlines() for path in (out, whole)}
    assert len(rows_of[out]) == len(rows_of[whole])
    numbers = [list(chain(*[_numbers(line) for line in rows_of[path]])) for path in (out, whole)]
    np.testing.assert_allclose(numbers[0], numbers[1], atol=1e-4)


def _numbers(line: str) -> list[float]:
    """Every number of a row."""
    cells = json.loads(line)["dimensions"].values() if line.startswith("{") else line.split(",")
    found = []
    for cell in cells:
        try:
            found.append(float(cell))
        except ValueError:
            continue
    return found


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_files():
    script = ROOT / "benchmarks" / "command_line.py"
    done = subprocess.run(
        [sys.executable, str(script), "--counts", "500", "2000"],
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )

    few, many = (json.loads(line)["peak_megabytes"] for line in done.stdout.splitlines())

    assert many < few * 1.05


def test_every_example_of_its_page_runs(tmp_path, speech, monkeypatch, capsys):
    page = (ROOT / "docs" / "command_line.md").read_text()
    examples = [
        shlex.split(line, comments=True)[1:]
        for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
        for line in block.splitlines()
    ]
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for name in ("clips/one.wav", "recordings/a.wav", "recordings/b.wav", "synthesized/a.flac", "synthesized/b.flac"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, speech, 16000)
    monkeypatch.chdir(tmp_path)

    codes = [main(each) for each in examples]
    names: dict = {}
    exec(code, names)

    assert codes == [EXIT_OK] * len(examples)
    assert len(examples) == 11
    assert list(names["valence"]) == ["clips/one.wav"]
    assert names["failed"] == []
    assert (tmp_path / "predictions.png").is_file()
    capsys.readouterr()


def test_a_model_with_a_graph_is_predicted_without_torch_and_like_the_pipeline(folder, checkpoint, capsys):
    words = ["predict", str(folder), "--model", checkpoint, "--format", "json"]
    main(words)
    expected = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(["export", checkpoint]) == EXIT_OK
    assert "model.onnx" in capsys.readouterr().out

    code = (
        "import sys, audio_emotion_cli as c\nresult = c.main(sys.argv[1:])\n"
        "print({'torch', 'transformers'} & set(sys.modules), file=sys.stderr)\nraise SystemExit(result)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], env=environment(), capture_output=True, text=True)
    assert done.returncode == EXIT_SOME_FAILED
    assert done.stderr.strip().endswith("set()")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["input"] for row in rows] == [row["input"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row.get("error") == other.get("error")
        for name, value in other.get("dimensions", {}).items():
            assert row["dimensions"][name] == pytest.approx(value, abs=1e-4)


def test_a_file_of_the_graph_is_not_continued_by_pytorch(folder, checkpoint, tmp_path, capsys):
    assert main(["export", checkpoint]) == EXIT_OK
    words = ["predict", str(folder), "--model", checkpoint, "--format", "csv", "--output", str(tmp_path / "rows.csv")]
    assert main(words) == EXIT_SOME_FAILED
    assert main([*words, "--device", "cpu"]) == EXIT_USAGE
    assert "engine" in capsys.readouterr().err


@pytest.mark.parametrize(("form", "kind"), [("s16le", "<i2"), ("f32le", "<f4")])
def test_listen_prints_a_line_per_second_and_the_whole(checkpoint, speech, form, kind):
    assert main(["export", checkpoint]) == EXIT_OK  # which starts without torch
    samples = np.tile(speech[:16_000], 3)
    scaled = samples * 2**15 if form == "s16le" else samples
    stereo = np.stack([scaled, scaled], axis=1).astype(kind)
    words = [
        "listen",
        "--stdin",
        "--model",
        checkpoint,
        "--channels",
        "2",
        "--sample-format",
        form,
        "--format",
        "json",
    ]
    done = subprocess.run(command(*words), env=environment(), input=stereo.tobytes() + b"x", capture_output=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == EXIT_OK
    assert [round(row["duration"]) for row in rows[:-1]] == [1, 2, 3]
    whole = pipeline("audio-emotion", model=checkpoint, device="cpu")({"array": samples, "sampling_rate": 16_000})
    for name, value in whole["dimensions"].items():
        assert rows[-1]["whole"]["dimensions"][name] == pytest.approx(value, abs=1e-3)


def test_listen_formats_a_line_for_a_person_and_needs_sound(checkpoint):
    assert main(["export", checkpoint]) == EXIT_OK
    done = subprocess.run(
        command("listen", "--stdin", "--model", checkpoint),
        env=environment(),
        input=b"\0" * 64_000,
        capture_output=True,
    )
    lines = done.stdout.decode().splitlines()
    assert lines[0].split() == ["time", "activation", "valence", "dominance", "emotion"]
    assert re.fullmatch(r"\s+1\.0s  (\d\.\d\d [█·]{10} +){3}\w+ \d\.\d\d +silence.*", lines[1])
    none = subprocess.run(
        command("listen", "--stdin", "--model", checkpoint), env=environment(), input=b"", capture_output=True
    )
    assert none.returncode == EXIT_USAGE
    assert b"0.25 s" in none.stderr
