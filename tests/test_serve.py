"""The server answers what the pipeline answers, refuses what it cannot do, and outlives hostile clients."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from transformers import pipeline

import audio_emotion
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.hub.onnx_export import export_onnx
from audio_emotion_cli import UsageError, argument_parser
from audio_emotion_cli.inputs import load_recognizer
from audio_emotion_cli.serve import describe, make_server

pytest.importorskip("fastapi")
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from audio_emotion_cli.serve_app import Limits, make_app

RATE = 16_000
SPEECH = Path(audio_emotion.__file__).parent / "embedded" / "speech" / "sense_and_sensibility.flac"
SOUND = {"content-type": "audio/flac"}


@pytest.fixture(scope="module")
def recognizer():
    """The student in the package, which streams."""
    return pipeline("audio-emotion", model=audio_emotion.STUDENT, device="cpu")


@pytest.fixture(scope="module")
def client(recognizer):
    with TestClient(make_app(recognizer, {"model": "student", "engine": "torch"})) as client:
        yield client


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return (soundfile.read(SPEECH, dtype="float32")[0] * 32767).astype("<i2")


class Blocked:
    """A recognizer that waits, and answers with the number of bytes."""

    def __init__(self):
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, clip, **_):
        self.begun.set()
        assert self.go_on.wait(20)
        return {"size": len(clip["bytes"]), "duration": 1.0}


def test_an_upload_has_the_prediction_of_the_pipeline(client, recognizer):
    content = SPEECH.read_bytes()
    expected = recognizer(content, top_k=2, scale=(1, 7), window=2.0)
    asked = {"top_k": 2, "low": 1, "high": 7, "window": 2.0}
    raw = client.post("/predict", content=content, params=asked, headers=SOUND)
    form = client.post("/predict", files={"file": ("clip.flac", content)}, params=asked)

    assert raw.status_code == form.status_code == 200
    assert raw.json() == form.json() == json.loads(json.dumps(expected))


@pytest.mark.parametrize(
    ("status", "reason", "request_"),
    [
        (422, "of no format that is read", {"content": b"no audio", "headers": SOUND}),
        (422, "empty", {"content": b"", "headers": SOUND}),
        (422, "of no format that is read", {"content": str(SPEECH).encode(), "headers": SOUND}),
        (422, "of no format that is read", {"content": SPEECH.as_uri().encode(), "headers": SOUND}),
        (422, "of no format that is read", {"content": f"#EXTM3U\n#EXTINF:5,\n{SPEECH.as_uri()}\n".encode()}),
        (422, "of no format that is read", {"content": f"ffconcat version 1.0\nfile '{SPEECH}'\n".encode()}),
        (415, "application/json", {"json": {"inputs": str(SPEECH)}}),
        (415, "application/x-www-form-urlencoded", {"data": {"file": str(SPEECH)}}),
        (400, "one file", {"data": {"file": str(SPEECH)}, "files": {"other": b"1"}}),
        (400, "name `file`", {"files": {"other": b"1"}}),
        (400, "top_k", {"content": b"1", "params": {"top_k": 0}}),
        (400, "unknown", {"content": b"1", "params": {"unknown": "x"}}),
        (400, "quarter", {"content": b"1", "params": {"window": 4, "hop": 0.01}}),
        (400, "window", {"content": b"1", "params": {"window": "nan"}}),
    ],
)
def test_anything_but_sound_is_refused_and_no_path_or_address_is_opened(client, status, reason, request_):
    response = client.post("/predict", **request_)

    assert response.status_code == status, response.text
    assert reason in response.json()["error"]
    assert str(SPEECH) not in response.text


@pytest.mark.parametrize(
    "path", ["/", "/predict", "/etc/passwd", "/../pyproject.toml", "/%2e%2e/pyproject.toml", "/docs", "/static/x"]
)
def test_no_file_can_be_read(client, path):
    assert client.get(path).status_code in (404, 405)


def test_a_clip_is_refused_that_is_too_large_or_too_long(recognizer):
    content = SPEECH.read_bytes()
    limits = Limits(max_bytes=len(content) - 1, max_duration=2.0)
    with TestClient(make_app(recognizer, limits=limits)) as client:
        for sent in (content, iter([content[:1000], content[1000:]])):  # with its length stated, and without
            large = client.post("/predict", content=sent, headers=SOUND)
            assert large.status_code == 413
            assert large.headers["connection"] == "close"
        with_file = client.post("/predict", files={"file": ("clip.flac", content * 2)})
        assert with_file.status_code == 413
    with TestClient(make_app(recognizer, limits=Limits(max_duration=2.0))) as client:
        long = client.post("/predict", content=content, headers=SOUND)
        assert long.status_code == 422
        assert "2" in long.json()["error"]


def test_a_full_queue_refuses_with_a_time_to_try_again_and_loses_nothing():
    blocked = Blocked()
    with TestClient(make_app(blocked, limits=Limits(max_clips=2))) as client:
        answers = []
        threads = [
            threading.Thread(target=lambda n=n: answers.append(client.post("/predict", content=b"1" * n).json()))
            for n in (1, 2)
        ]
        for each in threads:
            each.start()
        while "audio_emotion_clips 2.0" not in client.get("/metrics").text:
            time.sleep(0.01)
        refused = client.post("/predict", content=b"123")
        blocked.go_on.set()
        for each in threads:
            each.join()

        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert sorted(each["size"] for each in answers) == [1, 2]
        assert client.post("/predict", content=b"123").json()["size"] == 3


def test_the_memory_of_all_uploads_is_bounded_and_returned():
    blocked = Blocked()
    with TestClient(make_app(blocked, limits=Limits(max_upload_bytes=1000))) as client:
        first = threading.Thread(target=lambda: client.post("/predict", content=b"1" * 900))
        first.start()
        assert blocked.begun.wait(10)
        refused = client.post("/predict", content=b"1" * 200)
        blocked.go_on.set()
        first.join()

        assert refused.status_code == 503
        assert client.post("/predict", content=b"1" * 200).status_code == 200
        assert "audio_emotion_upload_bytes 0.0" in client.get("/metrics").text


def test_an_answer_that_takes_too_long_is_given_up_and_its_place_is_free_when_it_ends():
    blocked = Blocked()
    with TestClient(make_app(blocked, limits=Limits(max_clips=1, answer_timeout=0.1))) as client:
        late = client.post("/predict", content=b"1")
        assert late.status_code == 503
        assert client.post("/predict", content=b"1").status_code == 503  # the thread is still busy
        blocked.go_on.set()
        while "audio_emotion_clips 0.0" not in client.get("/metrics").text:
            time.sleep(0.01)
        assert client.post("/predict", content=b"1").status_code == 200


def test_the_reason_of_a_fault_of_the_server_is_not_sent():
    def fails(*_, **__):
        raise RuntimeError("/secret/path")

    with TestClient(make_app(fails)) as client:
        response = client.post("/predict", content=b"1")
    assert response.status_code == 500
    assert "secret" not in response.text


def test_health_and_metrics_state_the_model_and_the_counts(client):
    assert client.get("/health").json() == {"status": "ok", "model": "student", "engine": "torch"}
    before = client.get("/metrics").text
    client.post("/predict", content=SPEECH.read_bytes())
    after = client.get("/metrics").text

    def value(text: str, name: str) -> float:
        return float(next((line.split()[-1] for line in text.splitlines() if line.startswith(name + " ")), 0))

    for name, by in (('audio_emotion_requests_total{status="200"}', 1), ("audio_emotion_audio_seconds_total", 5.28)):
        assert value(after, name) - value(before, name) == pytest.approx(by, abs=0.1)


@pytest.mark.parametrize("sample_format", ["s16le", "f32le"])
def test_a_stream_ends_in_the_prediction_of_the_whole(client, recognizer, samples, sample_format):
    sent = samples if sample_format == "s16le" else (samples / 32768).astype("<f4")
    content = sent.tobytes()
    expected = recognizer({"array": samples, "sampling_rate": RATE})
    with client.websocket_connect(f"/stream?sample_format={sample_format}&interval=1") as stream:
        for start in range(0, len(content), 1001):  # within samples
            stream.send_bytes(content[start : start + 1001])
        stream.send_text("end")
        answers = [stream.receive_json()]
        while not answers[-1]["final"]:
            answers.append(stream.receive_json())

    assert [int(each["duration"]) for each in answers] == [1, 2, 3, 4, 5, 5]
    assert answers[-1]["dimensions"] == pytest.approx(expected["dimensions"], abs=1e-4)
    assert answers[-1]["emotions"][0]["label"] == expected["emotions"][0]["label"]


def test_each_channel_of_a_telephone_call_is_predicted_by_itself(client, recognizer, samples):
    one, other = samples[::2], samples[::-2]
    call = np.stack([one, other], axis=1).astype("<i2")
    with client.websocket_connect("/stream?sampling_rate=8000&channels=2&interval=60") as stream:
        for start in range(0, len(call), 160):  # 20 ms
            stream.send_bytes(call[start : start + 160].tobytes())
        stream.send_text("end")
        answers = [stream.receive_json(), stream.receive_json()]

    assert [each["channel"] for each in answers] == [1, 2]
    for answer, channel in zip(answers, (one, other), strict=True):
        live = recognizer.stream(sampling_rate=8000)
        live.feed(channel)
        assert answer["dimensions"] == pytest.approx(live.result()["dimensions"], abs=1e-4)
    assert answers[0]["dimensions"] != pytest.approx(answers[1]["dimensions"], abs=1e-3)


@pytest.mark.parametrize(
    ("sent", "code"),
    [("hello", 1003), ("end", 1007), (np.full(8000, np.nan, "<f4").tobytes(), 1007)],
)
def test_a_stream_without_sound_is_closed_with_a_reason(client, sent, code):
    with client.websocket_connect("/stream?sample_format=f32le") as stream:
        (stream.send_text if isinstance(sent, str) else stream.send_bytes)(sent)
        if code == 1007:
            assert "expected" in stream.receive_json()["error"].lower()
        with pytest.raises(WebSocketDisconnect) as closed:
            stream.receive_json()
    assert closed.value.code == code


def test_streams_are_bounded_in_number_and_in_silence(recognizer):
    limits = Limits(max_streams=1, idle_timeout=0.2)
    with TestClient(make_app(recognizer, limits=limits)) as client:
        with client.websocket_connect("/stream") as first:
            with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/stream"):
                pass
            assert refused.value.status_code == 503
            assert refused.value.headers["retry-after"] == "1"
            with pytest.raises(WebSocketDisconnect) as closed:
                first.receive_json()
            assert closed.value.code == 1008
        with client.websocket_connect("/stream"):
            pass  # the place is free again


def test_the_arguments_state_the_limits():
    args = argument_parser().parse_args(["serve"])
    limits = Limits()

    assert (args.max_seconds, args.max_clips, args.max_streams) == (
        limits.max_duration,
        limits.max_clips,
        limits.max_streams,
    )
    assert args.host == "127.0.0.1"


def test_an_address_that_cannot_be_used_is_a_usage_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for host, port in (("127.0.0.1", taken.getsockname()[1]), ("127.0.0.1", 99_999), ("no such host", 0)):
            with pytest.raises(UsageError, match="--port"):
                make_server(None, host, port)


@pytest.fixture
def address(recognizer):
    """A server on loopback, with short deadlines."""
    server, listening = make_server(
        make_app(recognizer, limits=Limits(upload_timeout=0.5, max_bytes=10**6)), "127.0.0.1", 0, header_timeout=0.5
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listening.getsockname()
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nX-", b""),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc", b"HTTP/1.1 408"),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\nabc", b"HTTP/1.1 413"),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HT", b"HTTP/1.1 200"),  # a second one, incomplete
    ],
)
def test_a_connection_that_stops_is_closed(address, sent, answer):
    with socket.create_connection(address, timeout=5) as connection:
        connection.sendall(sent)
        received = b""
        try:
            while part := connection.recv(1000):
                received += part
        except ConnectionResetError:
            pass
        assert received.startswith(answer)
        assert bool(received) == bool(answer)


@pytest.mark.slow
def test_no_answer_is_lost_or_wrong_beside_hostile_clients_and_memory_is_bounded():
    script = Path(__file__).parents[1] / "benchmarks" / "serve.py"
    finished = subprocess.run([sys.executable, script, "--seconds", "60"], capture_output=True, text=True, check=True)
    results = json.loads(finished.stdout)

    assert results["right"] > 200
    assert results["wrong"] == results["lost"] == 0
    assert results["endless_uploads"] > 10
    assert results["half-open_connections"] > 500
    assert results["megabytes_most"] < results["megabytes_before"] + 200


def test_a_checkpoint_with_a_graph_is_served_from_it(tiny_student, tmp_path):
    folder = str(write_checkpoint(tiny_student, tmp_path / "model"))
    assert describe(folder, load_recognizer(folder, None, None))["engine"] == "torch"
    export_onnx(tiny_student, tmp_path / "model" / "onnx")
    runtime = load_recognizer(folder, None, None)
    facts = describe(folder, runtime)

    assert facts["engine"] == "onnx"
    assert facts["model"] == "model"
    with TestClient(make_app(runtime, facts)) as client:
        answer = client.post("/predict", content=SPEECH.read_bytes()).json()
    expected = pipeline("audio-emotion", model=folder, device="cpu")(SPEECH)
    assert answer["dimensions"] == pytest.approx(expected["dimensions"], abs=1e-4)
