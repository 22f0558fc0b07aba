"""The handler in a published model answers requests as Inference Endpoints make them, without this package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from transformers import pipeline

import audio_emotion
from audio_emotion.hub.checks import check_folder
from audio_emotion.hub.endpoint_handler import EndpointHandler
from audio_emotion.hub.publish import assemble

SPEECH = Path(audio_emotion.__file__).parent / "embedded" / "speech" / "sense_and_sensibility.flac"

# As the toolkit of Inference Endpoints loads a handler, and as its two deserializers fill a request.
ENDPOINT = """
import base64, importlib.util, json, sys
from pathlib import Path
sys.modules["audio_emotion"] = None
folder, clip = sys.argv[1:]
spec = importlib.util.spec_from_file_location("handler", Path(folder) / "handler.py")
handler = importlib.util.module_from_spec(spec)
sys.modules["handler"] = handler
spec.loader.exec_module(handler)
endpoint = handler.EndpointHandler(folder)
content = Path(clip).read_bytes()
as_json = json.loads(json.dumps({"inputs": base64.b64encode(content).decode(), "parameters": {"top_k": 1}}))
print(json.dumps([endpoint({"inputs": bytearray(content)}), endpoint(as_json)]))
"""


@pytest.fixture
def published(tiny_student, make_run, tmp_path) -> Path:
    return assemble(make_run(tiny_student), tmp_path / "published", "owner/name")


@pytest.fixture(scope="module")
def endpoint() -> EndpointHandler:
    return EndpointHandler(audio_emotion.STUDENT)


def test_a_published_model_answers_where_the_package_is_absent(published, tmp_path):
    check_folder(published)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(
        [sys.executable, "-c", ENDPOINT, published, SPEECH],
        env=environment | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert finished.returncode == 0, finished.stderr
    emotion = pipeline("audio-emotion", model=str(published), device="cpu")
    expected = [emotion(SPEECH.read_bytes()), emotion(SPEECH.read_bytes(), top_k=1)]
    for found, each in zip(json.loads(finished.stdout), expected, strict=True):
        assert found["dimensions"] == pytest.approx(each["dimensions"], abs=1e-5)
        assert [one["label"] for one in found["emotions"]] == [one["label"] for one in each["emotions"]]


def test_samples_in_json_are_predicted_with_their_rate(endpoint):
    samples = np.sin(np.arange(8000) / 10).tolist()
    expected = endpoint.pipeline({"array": samples, "sampling_rate": 8000})

    assert endpoint({"inputs": samples, "parameters": {"sampling_rate": 8000}}) == expected
    assert endpoint({"inputs": {"array": samples, "sampling_rate": 8000}}) == expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"inputs": str(SPEECH)}, "base64"),
        ({"inputs": SPEECH.as_uri()}, "base64"),
        ({"inputs": "https://example.com/clip.wav"}, "base64"),
        ({"inputs": {"path": str(SPEECH)}}, "got dict"),
        ({"inputs": {"path": str(SPEECH), "bytes": None}}, "got dict"),
        ({"inputs": [str(SPEECH)], "parameters": {"sampling_rate": 16000}}, "samples"),
        ({"inputs": [0.1, 0.2]}, "sampling_rate"),
        ({}, "got NoneType"),
        ({"inputs": "AAAA"}, "of no format that is read"),
        ({"inputs": b"", "parameters": {"unknown": 1}}, "unknown"),
        ({"inputs": b"", "parameters": {"max_duration": "long"}}, "not supported"),
    ],
)
def test_what_is_no_clip_is_refused_and_no_path_or_address_is_opened(endpoint, data, reason):
    with pytest.raises(ValueError, match=reason):
        endpoint(data)


def test_the_requirements_are_those_of_prediction(published):
    lines = (published / "requirements.txt").read_text().splitlines()

    assert {Requirement(each).name for each in lines} == {"numpy", "soundfile", "soxr", "transformers"}
