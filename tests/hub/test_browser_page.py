"""The browser page: its files, its runtime, its server and what it states about a model."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import subprocess
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from audio_emotion.hub import browser_runtime, card
from audio_emotion.hub.browser_page import (
    CONTENT_TYPES,
    DIMENSION_ENDS,
    DIMENSION_SOURCES,
    EMBEDDED,
    GRAPH,
    NOT_FEELINGS,
    STATIC,
    cautions,
    find_or_export_graph,
    page_facts,
    page_files,
)
from audio_emotion.hub.browser_runtime import find_runtime
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion_cli import EXIT_USAGE, main
from audio_emotion_cli.demo import make_server

LITE = EMBEDDED / "lite"


@pytest.fixture
def runtime(tmp_path, monkeypatch) -> Path:
    """A folder with two short files in place of the runtime, whose hashes are the pinned ones."""
    folder = tmp_path / "package" / "dist"
    folder.mkdir(parents=True)
    for name in browser_runtime.FILES:
        (folder / name).write_bytes(name.encode())
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in browser_runtime.FILES}
    monkeypatch.setattr(browser_runtime, "FILES", hashes)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("PATH", "")  # without npm
    return folder


@pytest.fixture
def files(runtime, tmp_path) -> dict:
    """The files of the page of the default model, with a graph of three bytes."""
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(b"onx")
    return page_files(LITE, graph, runtime, "lite")


@pytest.fixture
def get(files):
    """Send a request to the server of the page; returns the response with its body read."""
    server = make_server(files, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def send(path: str, method: str = "GET", host: str | None = None):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
        connection.request(method, path, headers={} if host is None else {"Host": host})
        response = connection.getresponse()
        response.body = response.read()
        connection.close()
        return response

    yield send
    server.shutdown()
    server.server_close()


def test_every_file_that_the_page_refers_to_is_there_with_its_type(files):
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    referred = set(re.findall(r'(?:src|href)="(?!data:|#)([^"]+)"', page))
    for script in STATIC.glob("*.js"):
        text = script.read_text(encoding="utf-8")
        referred |= set(re.findall(r'from "\./([^"]+)"', text))
        referred |= set(re.findall(r'(?:fetch|Worker|addModule)\("([^"]+)"', text))
    facts = json.loads(files["model.json"])
    referred |= {facts["graph"]["file"], facts["runtime"]["wasm"], facts["sample"]["file"]}
    referred.add(facts["runtime"]["script"].removeprefix("./"))

    assert referred <= files.keys()
    assert {"worker.js", "capture-worklet.js", GRAPH} <= referred
    assert {Path(name).suffix for name in files} <= CONTENT_TYPES.keys()


def test_a_streaming_graph_is_part_of_the_page(runtime):
    files = page_files(EMBEDDED / "student", find_or_export_graph(EMBEDDED / "student"), runtime, "student")

    facts = json.loads(files["model.json"])
    config = json.loads((EMBEDDED / "student" / "config.json").read_text())
    assert facts["streaming"] == {"file": "onnx/model_streaming.onnx", "step": 160 * config["frames_per_step"]}
    assert files["onnx/model_streaming.onnx"].is_file()


def test_page_names_no_other_host():
    for path in STATIC.iterdir():
        addresses = re.findall(r"https?://[^\s\"']+", path.read_text(encoding="utf-8"))
        assert path.suffix == ".txt" or set(addresses) <= {"http://www.w3.org/2000/svg"}, path
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', (STATIC / "index.html").read_text())[1]
    assert "default-src 'none'" in policy
    assert "connect-src 'self';" in policy
    assert "unsafe-inline" not in policy


def test_server_sends_the_page_with_types_and_nothing_else(get):
    page = get("/")
    assert (page.status, page.getheader("Content-Type")) == (200, "text/html; charset=utf-8")
    assert page.body == (STATIC / "index.html").read_bytes()
    assert get("/runtime/ort.wasm?v=1").getheader("Content-Type") == "application/wasm"
    assert get("/runtime/ort.js").getheader("Content-Type").startswith("text/javascript")
    assert get(f"/{GRAPH}").body == b"onx"
    head = get("/app.js", "HEAD")
    assert (head.body, int(head.getheader("Content-Length"))) == (b"", (STATIC / "app.js").stat().st_size)
    for path in ("/../demo.py", "/..%2f..%2fcard.py", "//etc/passwd", "/runtime", "/runtime/", "/%00", "/style.css/"):
        assert get(path).status == 404, path
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert get("/", method).status == 501


def test_server_refuses_another_host_name(get):
    assert get("/model.json", host="evil.example:8765").status == 403
    assert get("/model.json", host="localhost:8765").status == 200


def test_a_port_that_is_taken_is_replaced_unless_it_was_chosen(files, monkeypatch):
    with make_server(files, 0) as first:
        assert first.server_address[0] == "127.0.0.1"
        monkeypatch.setattr("audio_emotion_cli.demo.PORT", first.server_port)
        with make_server(files, None) as second:
            assert second.server_port != first.server_port
        with pytest.raises(ValueError, match=f"port {first.server_port} cannot be used"):
            make_server(files, first.server_port)


@pytest.mark.parametrize("form", ["folder", "unpacked package", "archive"])
def test_own_copy_of_the_runtime_needs_no_network(runtime, tmp_path, form):
    archive = tmp_path / "onnxruntime-web.tgz"
    with tarfile.open(archive, "w:gz") as package:
        package.add(runtime.parent, "package")
    given = {"folder": runtime, "unpacked package": tmp_path, "archive": archive}[form]

    found = find_runtime(given, source="http://127.0.0.1:9", report=pytest.fail)

    assert {path.name for path in found.iterdir()} == set(browser_runtime.FILES)
    assert (found / browser_runtime.WASM).read_bytes() == browser_runtime.WASM.encode()


def test_runtime_is_downloaded_once(runtime):
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    messages = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(runtime))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = f"http://127.0.0.1:{server.server_port}"
        first = find_runtime(source=source, report=messages.append)
        server.shutdown()

    assert find_runtime(source=source, report=pytest.fail) == first
    assert len(messages) == 1
    assert messages[0].endswith(f"from {source}")
    assert sorted(path.name for path in first.iterdir()) == sorted(browser_runtime.FILES)


def test_a_runtime_that_differs_from_the_pinned_one_is_refused(runtime, tmp_path):
    (runtime / browser_runtime.WASM).write_bytes(b"another")

    with pytest.raises(ValueError, match=r"expected ort-wasm.* SHA-256 .*--runtime-folder"):
        find_runtime(runtime)
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(runtime))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(ValueError, match="expected ort-wasm"):
            find_runtime(source=f"http://127.0.0.1:{server.server_port}", report=lambda _: None)
        server.shutdown()
    assert not browser_runtime.cache_folder().exists()


def test_without_network_the_error_names_the_remedy(runtime, monkeypatch):
    with pytest.raises(ValueError, match=r"could not be downloaded: .*npm pack onnxruntime-web@"):
        find_runtime(source="http://127.0.0.1:9", report=lambda _: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"HF_HUB_OFFLINE is set. .*npm pack"):
        find_runtime(report=pytest.fail)


DEMO = """
import http.server, importlib, sys
from pathlib import Path
import audio_emotion_cli

def import_module(name):
    module = importlib.import_module(name)
    if name == "audio_emotion_cli.demo":
        module.find_runtime = lambda *_, **__: Path(sys.argv[1])
    return module

audio_emotion_cli.import_module = import_module
http.server.ThreadingHTTPServer.serve_forever = lambda server: print("torch" in sys.modules)
sys.exit(audio_emotion_cli.main(["demo", "--no-browser", "--port", "0"]))
"""


def test_demo_of_the_default_model_starts_without_torch(runtime):
    done = subprocess.run([sys.executable, "-c", DEMO, str(runtime)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"Open http://127\.0\.0\.1:\d+/ in a browser\. .*\nFalse\n", done.stdout)


def test_what_is_no_model_is_refused(capsys, tmp_path):
    assert main(["demo", "--model", str(tmp_path), "--no-browser"]) == EXIT_USAGE
    assert "which has no config.json" in capsys.readouterr().err
    assert main(["demo", "--model", "no-such-model", "--no-browser"]) == EXIT_USAGE
    assert "expected a folder, or a Hub id" in capsys.readouterr().err


def test_graph_is_that_of_the_checkpoint_or_is_exported_once(tiny_student, tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    checkpoint = write_checkpoint(tiny_student, tmp_path / "student")
    messages = []

    exported = find_or_export_graph(checkpoint, messages.append)
    again = find_or_export_graph(checkpoint, pytest.fail)
    (checkpoint / "onnx").mkdir()
    (checkpoint / GRAPH).write_bytes(b"onx")

    assert exported == again
    assert exported.is_relative_to(tmp_path / "cache")
    assert len(messages) == 1
    session = onnxruntime.InferenceSession(exported)
    assert {"input_values", "attention_mask"} == {each.name for each in session.get_inputs()}
    assert find_or_export_graph(checkpoint, pytest.fail) == checkpoint / GRAPH


def test_cautions_hold_the_figures_of_the_card():
    facts = page_facts(LITE, "lite")
    text = (LITE / "README.md").read_text(encoding="utf-8")
    table = text.partition("not trained on:")[2].partition("These weights")[0]
    rows = [line.split("|")[2:4] for line in table.splitlines() if re.search(r"\| [01]\.\d+ \|", line)]
    scores = [round(100 * float(score)) for score, _ in rows]

    assert rows
    assert facts["caution"][0] == NOT_FEELINGS
    assert f"{len(rows)} collections" in facts["caution"][1]
    assert f"in {min(scores)} to {max(scores)} of 100 clips" in facts["caution"][1]
    speech = re.findall(r"^- Training speech: (.+)$", text, re.MULTILINE)
    assert [
        each.removeprefix("Its training speech: ") for each in facts["caution"] if "training speech" in each
    ] == speech
    assert "work or in education" in facts["caution"][-1]


def test_cautions_without_figures_state_none():
    assert not re.search(r"\d", " ".join(cautions("", "rated")))
    (own,) = [each for each in cautions("| accuracy | 0.715 | 0.69 to 0.73 |", None) if "of 100" in each]
    assert "72 of 100 clips" in own
    assert "same collection" in own


def test_dimensions_are_explained_as_in_the_cards():
    assert DIMENSION_ENDS == card.DIMENSION_ENDS
    assert DIMENSION_SOURCES.keys() == card.DIMENSIONS_MEANING.keys()
