"""The wheel, installed with its dependencies into a clean environment, behaves like the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import soundfile

from audio_emotion.hub.checkpoint import write_checkpoint

ROOT = Path(__file__).parents[1]
PREDICT = """
import json, audio_emotion
from transformers import pipeline
print(json.dumps({"file": audio_emotion.__file__, "prediction": pipeline("audio-emotion", device="cpu")("clip.wav")}))
"""

pytestmark = pytest.mark.slow


def run(*arguments: object, folder: Path, **more: str) -> subprocess.CompletedProcess:
    """Run outside the checkout, without its packages."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(each) for each in arguments],
        cwd=folder,
        env=environment | more,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of what is in the checkout, built from a copy so that nothing is left in it."""
    if shutil.which("uv") is None:
        pytest.skip("needs uv")
    folder = tmp_path_factory.mktemp("wheel")
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    shutil.copytree(ROOT / "modeling", folder / "source" / "modeling", symlinks=True, ignore=leave)
    shutil.copytree(ROOT / "hub_cards", folder / "source" / "hub_cards")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source" / name)
    built = run("uv", "build", "-q", "--wheel", "--python", sys.executable, "source", "-o", "dist", folder=folder)
    if built.returncode:
        pytest.skip(f"the build needs the package index: {built.stderr[-300:]}")
    return next((folder / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder of programs of an environment that holds the wheel and what it needs, without extras."""
    folder = tmp_path_factory.mktemp("installed")
    made = run("uv", "venv", "-q", "--python", sys.executable, "env", folder=folder)
    assert made.returncode == 0, made.stderr
    constraints = ROOT / "constraints.txt"
    done = run(
        *("uv", "pip", "install", "-q", "--python", folder / "env" / "bin" / "python", "-c", constraints, wheel),
        folder=folder,
    )
    if done.returncode:
        pytest.skip(f"installing needs the package index: {done.stderr[-300:]}")
    return folder / "env" / "bin"


def test_wheel_holds_every_file_of_the_packages(wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    here = {
        path.relative_to(ROOT / "modeling").as_posix()
        for package in ("audio_emotion", "audio_emotion_cli")
        for folder, _, names in os.walk(ROOT / "modeling" / package, followlinks=True)
        for path in (Path(folder) / name for name in names)
        if "__pycache__" not in path.parts
    }
    assert here == packed


def test_wheel_predicts_as_the_checkout_does(installed, speech, tmp_path):
    soundfile.write(tmp_path / "clip.wav", speech, 16000)

    there = run(installed / "python", "-c", PREDICT, folder=tmp_path, HF_HUB_OFFLINE="1")
    here = run(
        *(sys.executable, "-c", PREDICT), folder=tmp_path, HF_HUB_OFFLINE="1", PYTHONPATH=str(ROOT / "modeling")
    )

    assert there.returncode == 0, there.stderr
    actual, expected = json.loads(there.stdout), json.loads(here.stdout)
    assert Path(actual["file"]).is_relative_to(installed.parent)
    assert actual["prediction"]["dimensions"] == pytest.approx(expected["prediction"]["dimensions"], abs=1e-5)


def test_wheel_installs_the_command(installed, speech, tmp_path):
    soundfile.write(tmp_path / "clip.wav", speech, 16000)
    command = installed / "audio-emotion"

    help_text = run(command, "--help", folder=tmp_path)
    predicted = run(command, "predict", "clip.wav", "--format", "json", folder=tmp_path, HF_HUB_OFFLINE="1")
    info = run(command, "info", "--format", "json", folder=tmp_path, HF_HUB_OFFLINE="1")

    assert "predict" in help_text.stdout
    assert predicted.returncode == 0, predicted.stderr
    assert json.loads(predicted.stdout)["duration"] == 2.0
    assert json.loads(info.stdout)["license"] == "ODbL-1.0 AND MIT"


@pytest.fixture
def run_folder(tiny_student, tmp_path) -> Path:
    tiny_student.config.license = "MIT"
    tiny_student.config.dimensions_source = "rated"
    tiny_student.config.training_data = [{"corpus": "toy", "speakers": ["toy/1"], "teachers": []}]
    write_checkpoint(tiny_student, tmp_path / "run" / "checkpoints" / "last")
    scores = {"clips": 12, "speakers": ["toy/2"], "uar": 0.5, "accuracy": 0.5, "macro_f1": 0.4}
    scores |= {f"{control}ccc_{name}": 0.3 for control in ("", "control_") for name in tiny_student.config.dimensions}
    results = {"recipe": "distill", "model": "tiny", "protocol": "toy", "seed": 0, "test": scores | {"intervals": {}}}
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    (tmp_path / "run" / "config.yaml").write_text("encoders: [log-mel]\nseed: 0\n")
    return tmp_path / "run"


def test_publishing_without_the_training_extra_names_the_extra(installed, run_folder, tmp_path):
    if (installed / "accelerate").exists():
        pytest.skip("the extra is there already")

    done = run(installed / "audio-emotion", "publish", run_folder, "--repo", "a/mouse", "--dry-run", folder=tmp_path)

    assert done.returncode == 2
    assert "audio-emotion[train]" in done.stderr


def test_wheel_with_the_training_extra_writes_a_publishable_folder(wheel, installed, run_folder, tmp_path):
    constraints = ROOT / "constraints.txt"
    more = run(
        *("uv", "pip", "install", "-q", "--python", installed / "python", "-c", constraints, f"{wheel}[train]"),
        folder=tmp_path,
    )
    if more.returncode:
        pytest.skip(f"installing needs the package index: {more.stderr[-300:]}")
    done = run(
        *(installed / "audio-emotion", "publish", run_folder, "--repo", "a/mouse", "--dry-run", "--output", "out"),
        folder=tmp_path,
        HF_HUB_OFFLINE="1",
    )

    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "README.md").read_text().startswith("---")
    assert (tmp_path / "out" / "modeling_student_emotion.py").is_file()
