"""The page on deployment: its tables are those of results files, its examples run, the container's steps install."""

from __future__ import annotations

import asyncio
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile
from packaging.requirements import Requirement

import audio_emotion
from audio_emotion.runtime import EmotionRuntime
from audio_emotion_cli.serve import make_server

pytest.importorskip("fastapi")
from audio_emotion_cli.serve_app import make_app

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
SPEECH = Path(audio_emotion.__file__).parent / "embedded" / "speech" / "sense_and_sensibility.flac"


@pytest.fixture(scope="module")
def speed() -> dict:
    return runpy.run_path(str(ROOT / "benchmarks" / "speed.py"))


@pytest.fixture(scope="module")
def environments() -> dict:
    return runpy.run_path(str(ROOT / "benchmarks" / "environments.py"))


def installed_packages() -> list[str]:
    """What the Dockerfile installs beside the wheel."""
    command = re.search(r"RUN pip install --no-cache-dir \\\n(.*?)\\\n +&&", DOCKERFILE, re.DOTALL)[1]
    return shlex.split(command.replace("\\\n", " "))


def same(one: list[str], other: list[str]) -> bool:
    return {str(Requirement(each)) for each in one} == {str(Requirement(each)) for each in other}


def test_the_tables_are_those_of_the_results(speed, environments):
    results = json.loads(speed["RESULTS"].read_text(encoding="utf-8"))

    assert set(results["ways"]) == set(speed["WAYS"])
    assert speed["tables"](results) in PAGE
    sizes = json.loads(environments["RESULTS"].read_text(encoding="utf-8"))
    assert set(sizes) == set(environments["ENVIRONMENTS"])
    assert environments["table"](sizes) in PAGE
    load = json.loads((ROOT / "benchmarks" / "results" / "serve.json").read_text(encoding="utf-8"))
    assert runpy.run_path(str(ROOT / "benchmarks" / "serve.py"))["table"](load) in PAGE


def test_times_real_time_is_the_length_over_the_time(speed):
    results = json.loads(speed["RESULTS"].read_text(encoding="utf-8"))
    way = results["ways"]["pipeline, student"] | {"milliseconds": {"1": 2.0, "3": 3.0, "10": 4.0, "60": 120.0}}
    text = speed["tables"](results | {"ways": {"pipeline, student": way}})

    # 1 s in 2 ms is 500 times real time; an hour at 2,500 times is 1.44 s
    assert "| pipeline, student | 500 | 1,000 | 2,500 | 500 | 1.4 |" in text


def test_packages_without_torch_are_those_of_the_extras(environments):
    extras = environments["extras"]
    without_torch = re.search(r"^pip install --no-deps audio-emotion\npip install (.*)$", PAGE, re.MULTILINE)[1]

    assert same(shlex.split(without_torch), extras("runtime"))
    assert same(installed_packages(), extras("runtime", "serve"))


def test_the_example_of_a_telephone_call_prints_both_channels(capsys):
    samples = (soundfile.read(SPEECH, dtype="float32")[0][::2] * 32767).astype("<i2")  # 8 kHz
    call = np.stack([samples, samples[::-1]], axis=1).astype("<i2")
    server, listening = make_server(make_app(EmotionRuntime(audio_emotion.STUDENT)), "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    code = next(
        each for each in re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) if "8 kHz" in each
    )
    scope: dict = {}
    exec(code.replace(":8000/", f":{listening.getsockname()[1]}/"), scope)

    async def telephone():
        for start in range(0, len(call), 160):
            yield call[start : start + 160].tobytes()

    try:
        asyncio.run(scope["follow"](telephone()))
    finally:
        server.should_exit = True
        thread.join()
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [each[0] for each in printed] == ["1", "2"] * (len(printed) // 2)
    assert len(printed) == 2 * 11  # 5.28 s in halves, and the whole
    live = EmotionRuntime(audio_emotion.STUDENT).stream(sampling_rate=8000)
    live.feed(samples)
    assert float(printed[-2][1]) == pytest.approx(live.result()["dimensions"]["activation"], abs=1e-4)


@pytest.mark.slow
def test_the_steps_of_the_container_give_a_server_without_torch(tmp_path):
    if shutil.which("uv") is None:
        pytest.skip("needs uv")
    python = tmp_path / "environment" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(*command: object) -> None:
        subprocess.run([str(each) for each in command], check=True, cwd=tmp_path, env=environment)

    for name in ("modeling", "hub_cards"):
        shutil.copytree(
            ROOT / name, tmp_path / "source" / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "source" / name)
    run("uv", "build", "-q", "--wheel", "--python", sys.executable, "source", "-o", "wheels")
    run("uv", "venv", "-q", "--python", sys.executable, "environment")
    run("uv", "pip", "install", "-q", "--python", python, *installed_packages())
    run("uv", "pip", "install", "-q", "--python", python, "--no-deps", *(tmp_path / "wheels").glob("*.whl"))
    (entry, *_), command = map(json.loads, re.findall(r"^(?:ENTRYPOINT|CMD) (.*)$", DOCKERFILE, re.MULTILINE))
    program = [str(python.with_name(entry)), *command, "--port", "0"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment) as server:
        try:
            port = int(re.search(r":(\d+)\. ", server.stdout.readline())[1])
            request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", SPEECH.read_bytes())
            request.add_header("Content-Type", "audio/flac")
            with urllib.request.urlopen(request, timeout=60) as response:
                answer = json.loads(response.read())
        finally:
            server.terminate()
    assert subprocess.run([str(python), "-c", "import torch"], capture_output=True, cwd=tmp_path).returncode != 0
    assert answer["dimensions"] == pytest.approx(EmotionRuntime()(SPEECH)["dimensions"], abs=1e-4)
