"""Spaces of models: a static page for small models, a Gradio app for teachers."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from huggingface_hub import RepoCard
from loopback_hub import LoopbackHub
from transformers import pipeline

import audio_emotion
from audio_emotion.hub import browser_runtime
from audio_emotion.hub.browser_page import SPACE_HOSTS, STATIC
from audio_emotion.hub.checks import check_folder
from audio_emotion.hub.publish import assemble
from audio_emotion_cli import EXIT_OK, EXIT_USAGE, main

PACKAGE_ROOT = Path(audio_emotion.__file__).parents[1]
RUNTIME_FILES = {"runtime/ort.js", "runtime/ort.wasm"}

# In place of gradio: keeps what the app would show, and calls its function.
GRADIO = """
import contextlib, sys
from types import ModuleType

class Part:
    def __init__(self, *args, **options): self.options = options
    def __enter__(self): return self
    def __exit__(self, *error): pass
    def click(self, function, inputs, outputs): Part.predict = staticmethod(function)
    def launch(self): pass

class Error(Exception): pass

module = ModuleType("gradio")
module.Error = Error
for name in ("Audio", "Blocks", "Button", "Column", "JSON", "Label", "Markdown", "Row"):
    setattr(module, name, Part)
sys.modules["gradio"] = module
"""


@pytest.fixture
def runtime(tmp_path, monkeypatch) -> Path:
    """A folder with two short files in place of the runtime, whose hashes are the pinned ones."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    for name in browser_runtime.FILES:
        (folder / name).write_bytes(name.encode())
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in browser_runtime.FILES}
    monkeypatch.setattr(browser_runtime, "FILES", hashes)
    return folder


@pytest.fixture
def student_run(tiny_student, make_run) -> Path:
    """A run of a student whose checkpoints have graphs of three bytes."""
    run = make_run(tiny_student)
    for which in ("last", "best"):
        (run / "checkpoints" / which / "onnx").mkdir()
        (run / "checkpoints" / which / "onnx" / "model.onnx").write_bytes(b"onx")
    return run


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_student_becomes_a_static_page_with_model_and_runtime(student_run, runtime, tmp_path):
    folder = assemble(student_run, tmp_path / "out", "somebody/mouse", "space", runtime=runtime)

    check_folder(folder, "space")
    own = {"README.md", "model.json", "onnx/model.onnx", "sense_and_sensibility.flac", *RUNTIME_FILES}
    assert files_of(folder) == {path.name for path in STATIC.iterdir()} | own
    assert (folder / "onnx" / "model.onnx").read_bytes() == b"onx"
    data = RepoCard.load(folder / "README.md").data
    assert (data.sdk, data.app_file, data.license) == ("static", "index.html", "cc-by-nc-sa-4.0")
    facts = json.loads((folder / "model.json").read_text())
    assert facts["emotions"] == ["neutral", "happy", "sad", "angry"]
    assert "in 50 of 100 clips" in facts["caution"][1]  # the accuracy in the results of the run
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', (folder / "index.html").read_text())[1]
    assert f"connect-src 'self' {SPACE_HOSTS};" in policy
    assert {name: (folder / name).read_bytes() for name in ("app.js", "style.css")} == {
        name: (STATIC / name).read_bytes() for name in ("app.js", "style.css")
    }


def test_a_teacher_becomes_a_gradio_app_with_a_note_on_hardware(tiny_teacher, make_run, tmp_path):
    folder = assemble(make_run(tiny_teacher), tmp_path / "out", "somebody/elephant", "space")

    check_folder(folder, "space")
    assert files_of(folder) == {"README.md", "app.py", "requirements.txt"}
    card = RepoCard.load(folder / "README.md")
    assert (card.data.sdk, card.data.app_file) == ("gradio", "app.py")
    assert (card.data.suggested_hardware, card.data.models) == ("cpu-basic", ["somebody/elephant"])
    assert f"{tiny_teacher.num_parameters():,} parameters" in card.text
    assert '"MODEL_ID", "somebody/elephant")' in (folder / "app.py").read_text()
    compile((folder / "app.py").read_text(), "app.py", "exec")


def test_dry_runs_of_model_and_space_do_not_replace_each_other(student_run, runtime, capsys):
    space = ["publish", str(student_run), "--repo", "a/b", "--type", "space", "--runtime-folder", str(runtime)]
    assert main([*space, "--dry-run"]) == EXIT_OK
    written = Path(capsys.readouterr().out.strip())
    assert main(["publish", str(student_run), "--repo", "a/b", "--dry-run"]) == EXIT_OK
    published = Path(capsys.readouterr().out.strip())

    assert (written, published) == (student_run / "space", student_run / "published")
    assert (written / "index.html").is_file()
    assert (published / "model.safetensors").is_file()
    assert assemble(written, student_run / "unused", "a/b", "space") == written  # complete, as it is


def test_a_model_without_a_license_is_refused(tiny_student, make_run, runtime, tmp_path, capsys):
    run = make_run(tiny_student)
    config = run / "checkpoints" / "last" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "license": None}))

    assert main(["publish", str(run), "--repo", "a/b", "--type", "space", "--dry-run"]) == EXIT_USAGE
    assert "Expected `license`" in capsys.readouterr().err
    assert not (run / "space").exists()


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as server:
        yield server


@pytest.fixture
def run_fresh(hub, tmp_path):
    """Run Python in a process that knows the Hub, with the package or without it."""

    def run(*arguments: str, package: bool = True, **variables: str) -> str:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment = {**kept, **hub.environment(tmp_path / "home"), "OMP_NUM_THREADS": "1", **variables}
        environment |= {"PYTHONPATH": str(PACKAGE_ROOT)} if package else {}
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


@pytest.mark.slow  # fresh processes, and the real runtime
def test_static_space_is_uploaded_with_its_files(student_run, hub, run_fresh):
    folder = browser_runtime.cache_folder()
    given = Path(os.environ.get("AUDIO_EMOTION_BROWSER_RUNTIME", folder))
    if not (given.is_file() or any(given.rglob(browser_runtime.WASM))):
        pytest.skip("needs onnxruntime-web: run `audio-emotion demo` once, or set AUDIO_EMOTION_BROWSER_RUNTIME")
    arguments = [str(student_run), "--repo", "somebody/mouse", "--type", "space", "--runtime-folder", str(given)]

    commit = run_fresh("-m", "audio_emotion_cli", "publish", *arguments).strip()

    space = hub.repositories["spaces", "somebody/mouse"]
    tree = space.commits[commit]
    assert space.sdk == "static"
    assert b"sdk: static" in tree["README.md"]
    assert RUNTIME_FILES | {"index.html", "worker.js", "model.json", "onnx/model.onnx"} <= tree.keys()
    assert hashlib.sha256(tree["runtime/ort.wasm"]).hexdigest() == browser_runtime.FILES[browser_runtime.WASM]


@pytest.mark.slow  # fresh processes
def test_app_of_an_uploaded_space_predicts_with_the_uploaded_model(
    tiny_teacher, make_run, hub, run_fresh, tmp_path, speech
):
    run = str(make_run(tiny_teacher))
    soundfile.write(tmp_path / "clip.wav", speech, 16000)
    run_fresh("-m", "audio_emotion_cli", "publish", run, "--repo", "somebody/elephant")
    commit = run_fresh("-m", "audio_emotion_cli", "publish", run, "--repo", "somebody/elephant", "--type", "space")
    space = hub.repositories["spaces", "somebody/elephant"]
    (tmp_path / "app.py").write_bytes(space.commits[commit.strip()]["app.py"])
    (tmp_path / "try.py").write_text(
        f"{GRADIO}\nimport json, runpy\nrunpy.run_path('app.py')\nprint(json.dumps(Part.predict('clip.wav')))\n"
        "try: Part.predict(None)\nexcept Error as error: print(error)\n"
    )

    *_, answer, refusal = run_fresh("try.py", package=False).splitlines()

    emotions, dimensions, flags = json.loads(answer)
    expected = pipeline("audio-emotion", model=f"{run}/checkpoints/last")(str(tmp_path / "clip.wav"))
    assert space.sdk == "gradio"
    assert dimensions == pytest.approx(expected["dimensions"], abs=1e-5)
    assert emotions == pytest.approx({each["label"]: each["score"] for each in expected["emotions"]}, abs=1e-5)
    assert flags == "No problem was found with the recording."
    assert refusal == "Record or upload a voice first."
