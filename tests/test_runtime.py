"""The runtime without torch gives the answers of the pipeline, and exported graphs those of the model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoModelForAudioClassification, pipeline

import audio_emotion
from audio_emotion import StudentEmotionConfig, StudentEmotionForAudioClassification
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.hub.onnx_export import check_offline, check_streaming, export_onnx
from audio_emotion.runtime import EmotionRuntime, find_graph

ROOT = Path(__file__).parents[1]
SPEECH = ROOT / "modeling" / "audio_emotion" / "embedded" / "speech" / "sense_and_sensibility.flac"
RATE = 16_000
SIZES = {"num_mel_bins": 12, "convolution_size": 6, "hidden_size": 10, "embedding_size": 8}


def student(**fields) -> StudentEmotionForAudioClassification:
    """A student with random weights, without exact half-precision values."""
    torch.manual_seed(0)
    config = StudentEmotionConfig(emotions=["angry", "neutral", "sad"], **{**SIZES, **fields})
    model = StudentEmotionForAudioClassification(config)
    model.student.log_mel.set_statistics(torch.full((12,), -6.0), torch.full((12,), 2.0))
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A published student with its graphs."""
    path = tmp_path_factory.mktemp("student")
    model = student(level="relative", pooling="statistics", predict_variance=True)
    write_checkpoint(model, path)
    export_onnx(model, path / "onnx")
    return path


@pytest.fixture(scope="module")
def both(folder):
    """The pipeline and the runtime of one checkpoint."""
    return pipeline("audio-emotion", model=str(folder), device="cpu"), EmotionRuntime(folder)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    samples, rate = soundfile.read(SPEECH, dtype="float32")
    assert rate == RATE
    return samples


def require_equal(one, other, place: str = "") -> None:
    """Equal structure; numbers within 1e-4."""
    if isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-4), place
    elif isinstance(one, dict):
        assert list(one) == list(other), place
        for name, each in one.items():
            require_equal(each, other[name], f"{place}.{name}")
    elif isinstance(one, list):
        assert len(one) == len(other), place
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            require_equal(a, b, f"{place}[{number}]")
    else:
        assert one == other, place


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"level": "relative", "frames_per_step": 8, "pooling": "statistics"},
        {"pooling": "last", "frames_per_step": 2, "predict_variance": True},
        {"trunk": "convolutional", "convolution_kernel": 5, "num_convolution_blocks": 2},
        {"pooling": "attentive", "pooling_heads": 2},
    ],
)
def test_graphs_of_a_student_equal_the_model(fields, tmp_path):
    model = student(**fields)
    offline, streaming = export_onnx(model, tmp_path)
    assert check_offline(model, offline) < 1e-4  # rounding in the cumulative statistics of 33 s
    assert check_streaming(model, streaming) < 1e-5


def test_a_student_with_a_look_ahead_has_no_graph_for_streams(tmp_path):
    (only,) = export_onnx(student(look_ahead=2, convolution_kernel=5), tmp_path)
    assert only.name == "model.onnx"


def test_the_graph_of_the_default_model_equals_it_also_beyond_thirty_seconds(tmp_path):
    model = AutoModelForAudioClassification.from_pretrained(audio_emotion._DEFAULT_MODEL, dtype=torch.float32)
    (path,) = export_onnx(model, tmp_path)
    assert check_offline(model.eval(), path) < 1e-4
    assert path.stat().st_size < 12e6  # weights that half precision represents are stored in it


def test_a_graph_that_differs_from_the_model_is_refused(tmp_path):
    model = student()
    offline, _ = export_onnx(model, tmp_path)
    model.heads.emotions.bias.data += 1.0 * torch.arange(3)
    with pytest.raises(ValueError, match="equals PyTorch"):
        check_offline(model, offline)


def test_one_clip_has_the_prediction_of_the_pipeline(both, speech):
    recognizer, runtime = both
    quiet = (speech * 0).astype(np.float32)
    for clip in (str(SPEECH), SPEECH.read_bytes(), {"array": speech[:9_000], "sampling_rate": RATE}):
        require_equal(runtime(clip), recognizer(clip))
    for array in (quiet, 3 * speech):
        clip = {"array": array, "sampling_rate": RATE}
        require_equal(runtime(clip), recognizer(clip))
    assert runtime({"array": quiet, "sampling_rate": RATE})["flags"]


def test_parameters_are_those_of_the_pipeline(both):
    recognizer, runtime = both
    for parameters in (
        {"top_k": 1, "scale": (1, 7)},
        {"return_embedding": True, "return_uncertainty": True},
        {"window": 2.0, "hop": 1.0},
        {"segments": [{"start": 0.0, "end": 1.5, "speaker": "a"}, (2.0, 4.0, "b"), (9.0, 9.9, "b")]},
    ):
        require_equal(runtime(str(SPEECH), **parameters), recognizer(str(SPEECH), **parameters))
    with pytest.raises(TypeError, match="Unknown parameters"):
        runtime(str(SPEECH), windows=2.0)
    with pytest.raises(ValueError, match="pipeline"):
        runtime(str(SPEECH), return_frames=True)
    with pytest.raises(ValueError, match="needs `window`"):
        runtime(str(SPEECH), hop=1.0)


def test_lists_iterators_and_bad_clips_are_those_of_the_pipeline(both, tmp_path):
    recognizer, runtime = both
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF")
    clips = [str(SPEECH), str(bad), SPEECH.read_bytes()]
    expected = recognizer(clips, on_error="skip")
    require_equal(runtime(clips, on_error="skip"), expected)
    require_equal(list(runtime(iter(clips), on_error="skip")), expected)
    with pytest.raises(ValueError, match=r"bad\.wav"):
        runtime(str(bad))
    mapping = {"sense_and_sensibility": [(0.0, 2.0, "a")]}
    require_equal(runtime([str(SPEECH)], segments=mapping), recognizer([str(SPEECH)], segments=mapping))


@pytest.mark.parametrize("rate", [16_000, 8_000, 44_100])
@pytest.mark.parametrize("chunk", [160, 5_000])
def test_streams_of_runtime_and_pipeline_give_the_same_and_end_in_the_whole(both, speech, rate, chunk):
    import soxr

    recognizer = both[0]
    samples = speech if rate == RATE else soxr.resample(speech, RATE, rate)
    streams = [each.stream(sampling_rate=rate) for each in both]
    for start in range(0, len(samples), chunk):
        one, other = (each.feed(samples[start : start + chunk]) for each in streams)
        assert (one is None) == (other is None)
        if one is not None:
            require_equal(one, other)
    results = [each.result() for each in streams]
    require_equal(*results)
    whole = recognizer({"array": samples, "sampling_rate": rate})
    for emotion in whole["emotions"]:
        found = next(each for each in results[0]["emotions"] if each["label"] == emotion["label"])
        assert found["score"] == pytest.approx(emotion["score"], abs=1e-5 if rate == RATE else 5e-3)
    assert results[0]["duration"] == pytest.approx(whole["duration"])
    with pytest.raises(ValueError, match="ends a stream"):
        streams[0].feed(samples[:10])


def test_a_stream_takes_integers_and_channels_and_refuses_what_is_no_sound(both, speech):
    stream, plain = (both[1].stream() for _ in range(2))
    integers = (speech * 2**15).astype(np.int16)
    stereo = np.stack([integers, integers], axis=1)
    require_equal(stream.feed(stereo[:40_000]), plain.feed((integers / 2**15).astype(np.float32)[:40_000]))
    for wrong in (np.zeros((2, 2, 2)), np.array(["a"]), np.array([np.nan], np.float32)):
        with pytest.raises(ValueError, match=r"[Ee]xpected"):
            stream.feed(wrong)
    with pytest.raises(ValueError, match=r"0\.25 s"):
        both[1].stream().result()


def test_a_model_without_a_streaming_graph_predicts_windows(tmp_path, speech):
    model = student(look_ahead=1)
    write_checkpoint(model, tmp_path)
    export_onnx(model, tmp_path / "onnx")
    runtime = EmotionRuntime(tmp_path)
    stream = runtime.stream(window=2.0, hop=0.5)
    assert stream.feed(speech[:3_000]) is None
    for start in range(3_000, 48_000, 3_000):
        now = stream.feed(speech[start : start + 3_000])
    last = runtime({"array": speech[48_000 - 32_000 : 48_000], "sampling_rate": RATE})
    assert now["duration"] == 3.0
    require_equal(now["emotions"], last["emotions"])  # the last hop ends at 3 s
    result = stream.result()
    assert sum(each["score"] for each in result["emotions"]) == pytest.approx(1.0, abs=1e-5)


def test_flags_of_a_stream_are_those_of_its_last_seconds(both, speech):
    stream = both[1].stream()
    now = stream.feed(np.concatenate([speech, np.zeros(5 * RATE, np.float32)]))
    assert "silence" in now["flags"]
    assert "silence" not in stream.feed(speech)["flags"]


def test_a_folder_without_a_graph_is_an_error_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="audio-emotion export"):
        EmotionRuntime(tmp_path)


def test_a_foreign_graph_is_refused(folder, tmp_path):
    import onnx

    graph = onnx.load(find_graph(folder))
    del graph.metadata_props[:]
    onnx.save(graph, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="audio-emotion export"):
        EmotionRuntime(tmp_path)


def test_a_graph_with_8_bit_matrices_is_read_and_close(tmp_path, speech):
    model = student(level="relative", pooling="statistics")
    write_checkpoint(model, tmp_path)
    export_onnx(model, tmp_path / "onnx", quantize=True)
    exact, small = EmotionRuntime(tmp_path), EmotionRuntime(tmp_path / "onnx" / "model_quantized.onnx")
    clip = {"array": speech, "sampling_rate": RATE}
    for name, value in exact(clip)["dimensions"].items():
        assert small(clip)["dimensions"][name] == pytest.approx(value, abs=0.1)


WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "huggingface_hub", "safetensors"):
    sys.modules[name] = None
import json
from audio_emotion.runtime import EmotionRuntime
runtime = EmotionRuntime(sys.argv[1])
found = runtime(sys.argv[2], window=2.0)
stream = runtime.stream()
import soundfile
stream.feed(soundfile.read(sys.argv[2], dtype="float32")[0])
print(json.dumps([found, stream.result()]))
"""


def test_the_runtime_works_where_torch_and_transformers_are_absent(folder, both):
    import json

    command = [sys.executable, "-c", WITHOUT_TORCH, str(folder), str(SPEECH)]
    paths = {"PYTHONPATH": str(ROOT / "modeling")}
    done = subprocess.run(command, env={**os.environ, **paths}, capture_output=True, text=True, check=True)
    found, streamed = json.loads(done.stdout)
    expected = both[0](str(SPEECH), window=2.0)
    require_equal(found, expected)
    require_equal(streamed["emotions"], expected["emotions"])


def test_the_variable_imports_the_package_without_torch():
    code = "import sys, audio_emotion, audio_emotion.runtime; print({'torch', 'transformers'} & set(sys.modules))"
    variables = {**os.environ, "AUDIO_EMOTION_RUNTIME": "1", "PYTHONPATH": str(ROOT / "modeling")}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
