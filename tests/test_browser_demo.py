"""The browser page in a headless Chromium: numbers, microphone, keyboard, themes and sizes."""

from __future__ import annotations

import base64
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from chromium import Chromium, find_chromium
from transformers import pipeline

import audio_emotion
from audio_emotion.hub import browser_runtime
from audio_emotion.hub.browser_page import EMBEDDED, SAMPLE, find_or_export_graph, page_files
from audio_emotion.hub.browser_runtime import FILES, find_runtime
from audio_emotion_cli.demo import make_server

LITE = EMBEDDED / "lite"
EMOTIONS = ["angry", "disgust", "fearful", "happy", "neutral", "sad"]
DIMENSIONS = ["activation", "valence", "dominance"]
WEIGHTS = np.random.default_rng(0).normal(scale=3, size=(4, 9)).astype(np.float32)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runtime() -> Path:
    """The real runtime, from `$AUDIO_EMOTION_BROWSER_RUNTIME` or from the cache."""
    if find_chromium() is None:
        pytest.skip("needs Chromium or Chrome")
    given = os.environ.get("AUDIO_EMOTION_BROWSER_RUNTIME")
    if given is None and not all((browser_runtime.cache_folder() / name).is_file() for name in FILES):
        pytest.skip("needs onnxruntime-web: run `audio-emotion demo` once, or set AUDIO_EMOTION_BROWSER_RUNTIME")
    return find_runtime(Path(given) if given else None)


@pytest.fixture(scope="module")
def formula_graph(tmp_path_factory) -> Path:
    """A graph that computes [`formula`]."""
    onnx = pytest.importorskip("onnx")
    node, tensor = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    weights = [
        ("emotions", WEIGHTS[:, :6]),
        ("values", WEIGHTS[:, 6:]),
        ("axis", np.array([1])),
        ("100", np.float32(100)),
    ]
    nodes = [
        node("Abs", ["input_values"], ["size"]),
        node("Mul", ["input_values", "input_values"], ["square"]),
        node("Cast", ["attention_mask"], ["mask"], to=onnx.TensorProto.FLOAT),
        node("ReduceMean", ["size", "axis"], ["mean"]),
        node("ReduceMax", ["size", "axis"], ["peak"]),
        node("ReduceMean", ["square", "axis"], ["power"]),
        node("Mul", ["power", "100"], ["scaled"]),
        node("ReduceMean", ["mask", "axis"], ["ones"]),
        node("Concat", ["mean", "peak", "scaled", "ones"], ["features"], axis=1),
        node("MatMul", ["features", "emotions"], ["logits"]),
        node("MatMul", ["features", "values"], ["raw"]),
        node("Sigmoid", ["raw"], ["dimensions"]),
    ]
    inputs = [tensor("input_values", 1, ["batch", "samples"]), tensor("attention_mask", 7, ["batch", "samples"])]
    outputs = [tensor("logits", 1, ["batch", 6]), tensor("dimensions", 1, ["batch", 3])]
    tensors = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in weights]
    graph = onnx.helper.make_graph(nodes, "formula", inputs, outputs, tensors)
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def formula(waveform: np.ndarray) -> dict[str, dict[str, float]]:
    """Dimensions and emotions of a waveform `(S,)` by the formula of the graph."""
    size = np.abs(waveform.astype(np.float64))
    features = np.array([size.mean(), size.max(), 100 * (size**2).mean(), 1.0])
    logits, raw = features @ WEIGHTS[:, :6], features @ WEIGHTS[:, 6:]
    powers = np.exp(logits - logits.max())
    return {
        "emotions": dict(zip(EMOTIONS, powers / powers.sum(), strict=True)),
        "dimensions": dict(zip(DIMENSIONS, 1 / (1 + np.exp(-raw)), strict=True)),
    }


@contextmanager
def served(graph: Path, runtime: Path, model: Path = LITE) -> Iterator[str]:
    """The address of the page with this graph, described as a model."""
    server = make_server(page_files(model, graph, runtime, model.name), 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def address(formula_graph, runtime) -> Iterator[str]:
    with served(formula_graph, runtime) as where:
        yield where


def predict_file(browser: Chromium, path: Path) -> tuple[dict, list[dict]]:
    """Open a file in the page; returns the prediction for the whole and those for windows."""
    browser.choose_file("#file", path)
    browser.wait("audioEmotion.isDone === true", 60)
    return json.loads(browser.evaluate("JSON.stringify([audioEmotion.clip, audioEmotion.windows])"))


def differences(found: dict, expected: dict) -> float:
    """Largest difference of dimensions and probabilities."""
    return max(
        abs(found[kind][name] - value) for kind in ("dimensions", "emotions") for name, value in expected[kind].items()
    )


def in_pipeline_form(prediction: dict) -> dict:
    """A prediction of the pipeline with its emotions by name."""
    return {**prediction, "emotions": {each["label"]: each["score"] for each in prediction["emotions"]}}


@pytest.fixture
def browser(address) -> Iterator[Chromium]:
    """The page, ready."""
    with Chromium() as opened:
        opened.open(address)
        opened.wait("window.audioEmotion?.isReady")
        yield opened


def test_file_gets_the_numbers_of_the_graph_and_is_sent_nowhere(browser, address, tmp_path, speech):
    waveform = np.concatenate([speech, 0.5 * speech, speech])[: int(5.3 * 16000)]
    soundfile.write(tmp_path / "clip.wav", waveform, 16000, subtype="FLOAT")

    clip, windows = predict_file(browser, tmp_path / "clip.wav")

    assert differences(clip, formula(waveform)) < 1e-4
    assert [each["end"] for each in windows] == [*np.arange(1, 5.3, 0.5), 5.3]
    for each in windows:
        part = waveform[round(each["start"] * 16000) : round(each["end"] * 16000)]
        assert differences(each, formula(part)) < 1e-4
    requests = browser.requests()
    assert {method for method, _ in requests} == {"GET"}
    assert all(url.startswith((address, "blob:", "data:")) for _, url in requests), requests
    assert browser.errors() == []


def test_other_rates_channels_and_formats_are_decoded(browser, tmp_path, speech):
    expected = formula(speech)
    at_44100 = soxr.resample(speech, 16000, 44100)
    soundfile.write(tmp_path / "high.wav", at_44100, 44100, subtype="FLOAT")
    soundfile.write(tmp_path / "two.wav", np.stack([speech, speech], axis=1), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "clip.flac", speech, 16000, subtype="PCM_24")
    soundfile.write(tmp_path / "clip.ogg", at_44100, 44100)
    for name, tolerance in {"high.wav": 2e-3, "two.wav": 1e-4, "clip.flac": 1e-4, "clip.ogg": 2e-2}.items():
        clip, _ = predict_file(browser, tmp_path / name)
        assert differences(clip, expected) < tolerance, name


def test_microphone_gives_live_predictions_and_its_samples_stay_in_the_page(address, tmp_path, speech):
    seconds = np.concatenate([speech, np.zeros(8 * 16000, np.float32)])  # then the device plays zeros
    soundfile.write(tmp_path / "voice.wav", seconds, 16000, subtype="PCM_16")
    with Chromium(microphone=tmp_path / "voice.wav") as browser:
        browser.open(address)
        browser.wait("window.audioEmotion?.isReady")
        before = len(browser.requests())
        browser.evaluate("document.getElementById('microphone').click()")
        browser.wait("audioEmotion.windows.length >= 10", 30)
        curves = browser.evaluate("[...document.querySelectorAll('.curve')].map((each) => each.getAttribute('d'))")
        browser.evaluate("document.getElementById('microphone').click()")
        browser.wait("audioEmotion.isDone === true")
        windows = json.loads(browser.evaluate("JSON.stringify(audioEmotion.windows)"))
        requests = browser.requests()[before:]
        title = browser.evaluate("document.getElementById('now-title').textContent")

        assert [each["start"] for each in windows] == pytest.approx([max(0, each["end"] - 3) for each in windows])
        assert np.diff([each["end"] for each in windows]) == pytest.approx(0.5, abs=0.15)
        assert len({round(each["dimensions"]["activation"], 4) for each in windows}) > 3
        assert windows[0]["flags"] == []
        assert windows[-1]["flags"] == ["silence"]
        assert len(curves) == 3
        assert all("L" in each for each in curves)
        assert {url.rsplit("/", 1)[1] for _, url in requests} <= {"capture-worklet.js"}
        assert title == "Average of your recording"
        assert browser.errors() == []


def test_files_that_cannot_be_used_get_a_reason(browser, tmp_path, speech):
    (tmp_path / "notes.wav").write_bytes(b"no audio")
    soundfile.write(tmp_path / "click.wav", speech[:1600], 16000)
    for name, reason in {"notes.wav": "cannot decode it", "click.wav": "at least 0.25 s of sound, got 0.10 s"}.items():
        browser.choose_file("#file", tmp_path / name)
        assert reason in browser.wait(
            "document.querySelector('.status.error')?.textContent.includes('expected') "
            "|| document.querySelector('.status.error')?.textContent.includes('decode') "
            "? document.querySelector('.status.error').textContent : ''"
        ), name
        browser.evaluate("document.getElementById('status').classList.remove('error')")
    clip, _ = predict_file(browser, SAMPLE)  # the page still works
    assert clip["flags"] == []


def test_a_microphone_that_is_refused_gets_a_reason_and_leaves_the_page_usable(browser):
    browser.evaluate("document.getElementById('microphone').click()")

    reason = browser.wait("document.querySelector('.status.error')?.textContent")

    assert re.match(r"The microphone did not start: (there is none|the browser was not allowed)", reason)
    clip, _ = predict_file(browser, SAMPLE)
    assert clip["flags"] == []
    assert browser.evaluate("document.getElementById('status').className") == "status"


def test_everything_is_reached_and_operated_by_keyboard(browser, tmp_path, speech):
    names = []
    for _ in range(8):
        browser.press("Tab", "Tab", 9)
        names.append(browser.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert names[:5] == ["Skip to the controls", "theme", "microphone", "open", "sample"]
    predict_file(browser, SAMPLE)
    browser.evaluate("document.getElementById('cursor').focus()")
    before = browser.evaluate("document.getElementById('now-title').textContent")
    for _ in range(20):
        browser.press("ArrowRight", "ArrowRight", 39)
    assert before == "Whole recording"
    assert browser.evaluate("document.getElementById('now-title').textContent") == "From 0.0 to 2.0 s"
    spoken = browser.evaluate("document.getElementById('cursor').getAttribute('aria-valuetext')")
    assert spoken.startswith("2.0 seconds; ")
    assert "valence" in spoken
    browser.evaluate("document.getElementById('theme').focus()")
    browser.press("Enter", "Enter", 13, "\r")
    assert browser.evaluate("document.documentElement.dataset.theme") == "dark"


def test_screen_readers_get_a_name_for_every_control_and_the_result(browser):
    predict_file(browser, SAMPLE)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "slider", "checkbox", "textbox", "link", "progressbar", "image", "DisclosureTriangle"}
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and node.get("role", {}).get("value") in roles
    ]
    assert {"button", "slider", "image"} <= {role for role, _ in named}
    assert [role for role, name in named if not name.strip()] == []
    announced = browser.evaluate("document.getElementById('announcement').textContent")
    assert "activation 0." in announced


CONTRAST = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  for (const each of document.querySelectorAll("body *")) {
    const isText = [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!isText || !each.checkVisibility() || each.closest(":disabled, .skip, .visually-hidden, noscript")) continue;
    let behind = each;
    while (behind && rgb(getComputedStyle(behind).backgroundColor)[3] < 255) behind = behind.parentElement;
    const style = getComputedStyle(each);
    const text = luminance(rgb(each instanceof SVGElement ? style.fill : style.color));
    const back = luminance(rgb(behind ? getComputedStyle(behind).backgroundColor : "white"));
    const ratio = (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
    if (ratio < 4.5) found.push([each.textContent.trim().slice(0, 40), ratio]);
  }
  return found;
})()"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_have_readable_text_on_telephone_and_desktop(address, theme):
    with Chromium(theme=theme) as browser:
        for width in (390, 1440):
            browser.resize(width, 900)
            browser.open(address)
            browser.wait("window.audioEmotion?.isReady")
            predict_file(browser, SAMPLE)
            time.sleep(0.4)  # transitions
            assert browser.evaluate(CONTRAST) == []
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
            targets = browser.evaluate(
                "[...document.querySelectorAll('button')].filter((each) => each.checkVisibility())"
                ".map((each) => each.getBoundingClientRect().height)"
            )
            assert min(targets) >= 36
        back = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (max(map(int, back.strip("rgb()").split(","))) < 60) == (theme == "dark")


@pytest.fixture(scope="module")
def default_model_address(runtime) -> Iterator[str]:
    pytest.importorskip("onnx")
    with served(find_or_export_graph(LITE), runtime) as where:
        yield where


def recordings(folder: Path) -> list[Path]:
    """The bundled clip in several forms, and quiet recordings of RAVDESS at 16 and 48 kHz where they are present.

    Lossy formats are left out: decoders of Opus and MP3 differ from each other.
    """
    waveform, rate = soundfile.read(SAMPLE, dtype="float32")
    soundfile.write(folder / "start.wav", waveform[: 2 * rate], rate, subtype="PCM_16")
    two = soxr.resample(np.stack([waveform, 0.4 * waveform], axis=1)[rate:], rate, 44100)
    soundfile.write(folder / "two_channels.wav", two, 44100, subtype="PCM_24")
    seconds = np.arange(3 * rate) / rate
    noise = 0.1 * np.random.default_rng(0).normal(size=seconds.size) * (0.5 + 0.5 * np.sin(6 * seconds))
    soundfile.write(folder / "noise.wav", noise, rate, subtype="FLOAT")  # unlike the training clips
    corpora = Path(os.environ.get("AUDIO_EMOTION_DATA", "nowhere"))
    found = [sorted(corpora.glob(pattern))[:1] for pattern in ("ravdess_original/*.wav", "ravdess/*/*.flac")]
    own = [folder / name for name in ("start.wav", "two_channels.wav", "noise.wav")]
    return [SAMPLE, *own, *(path for paths in found for path in paths)]


def test_page_gives_the_numbers_of_the_pipeline(default_model_address, tmp_path):
    emotion = pipeline("audio-emotion", device="cpu")
    with Chromium() as browser:
        browser.open(default_model_address)
        browser.wait("window.audioEmotion?.isReady", 120)
        for path in recordings(tmp_path):
            clip, windows = predict_file(browser, path)
            expected = emotion(str(path), window=3.0, hop=0.5)
            assert differences(clip, in_pipeline_form(expected)) < 1e-3, path
            assert clip["flags"] == expected["flags"]
            assert ("unlike_training" in clip["flags"]) == (path.name == "noise.wav")
            assert clip["end"] == pytest.approx(expected["duration"], abs=1e-3)
            by_start = {round(each["start"], 3): each for each in windows if each["end"] - each["start"] > 2.999}
            for each in (each for each in expected["windows"] if each["end"] - each["start"] > 2.999):
                found = by_start[round(each["start"], 3)]
                assert differences(found, in_pipeline_form(each)) < 1e-3, path
                assert found["flags"] == each["flags"]


def test_fake_microphone_reaches_the_default_model_in_time(default_model_address, tmp_path):
    waveform, rate = soundfile.read(SAMPLE, dtype="float32")
    soundfile.write(tmp_path / "voice.wav", waveform, rate, subtype="PCM_16")
    with Chromium(microphone=tmp_path / "voice.wav") as browser:
        browser.open(default_model_address)
        browser.wait("window.audioEmotion?.isReady", 120)
        browser.evaluate("document.getElementById('microphone').click()")
        browser.wait("audioEmotion.windows.length >= 12", 60)
        windows = json.loads(browser.evaluate("JSON.stringify(audioEmotion.windows)"))
    values = np.array([[each["dimensions"][name] for name in DIMENSIONS] for each in windows])
    assert (np.ptp(values, axis=0) > 0.02).all()  # the curves move
    assert np.median([each["lag"] for each in windows]) < 500  # milliseconds, less than a hop
    assert np.median(np.diff([each["end"] for each in windows])) < 0.6  # none was left out


FEED = """(async () => {
  const config = await (await fetch("model.json")).json();
  const samples = new Float32Array(Uint8Array.from(atob("%s"), (each) => each.charCodeAt(0)).buffer);
  const worker = new Worker("worker.js", { type: "module" });
  const rows = [];
  const until = (kind) => new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => {
      if (data.type === "error") reject(new Error(data.message));
      if (data.type === "window") rows.push(data);
      if (data.type === kind) resolve(data);
    };
  });
  worker.postMessage({ type: "load", config });
  await until("ready");
  worker.postMessage({ type: "start", id: 1, rate: 16000 });
  for (let at = 0; at < samples.length; at += 1777) {
    worker.postMessage({ type: "samples", id: 1, samples: samples.slice(at, at + 1777), arrival: 0 });
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  worker.postMessage({ type: "stop", id: 1 });
  await until("done");
  return rows;
})()"""


def test_student_streams_in_the_page_as_in_the_package_and_starts_anew_after_a_pause(runtime):
    student = EMBEDDED / "student"
    waveform, _ = soundfile.read(SAMPLE, dtype="float32")
    noise = 1e-4 * np.random.default_rng(0).normal(size=2 * 16000)
    samples = np.concatenate([waveform, noise, waveform[: 3 * 16000]]).astype(np.float32)
    with served(find_or_export_graph(student), runtime, student) as address, Chromium() as browser:
        browser.open(address)
        browser.wait("window.audioEmotion?.isReady", 120)
        rows = browser.evaluate(FEED % base64.b64encode(samples.tobytes()).decode())

    emotion = pipeline("audio-emotion", model=audio_emotion.STUDENT, device="cpu")
    begins = sorted({each["start"] for each in rows})
    assert begins[0] == 0
    assert len(begins) == 2
    assert begins[1] == pytest.approx(7.3, abs=0.5)  # the clip begins with a short silence
    assert len(rows) >= 12
    for each in rows:
        part = samples[round(each["start"] * 16000) : round(each["end"] * 16000)]
        expected = emotion({"array": part, "sampling_rate": 16000})
        assert differences(each, in_pipeline_form(expected)) < 1e-3, (each["start"], each["end"])
