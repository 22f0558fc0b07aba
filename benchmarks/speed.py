"""Speed, memory and size of the ways to predict, beside other models, on one core.

    python benchmarks/speed.py            # what is not in results/speed.json yet, then the tables
    python benchmarks/speed.py --again    # everything
    python benchmarks/speed.py --render   # the tables of docs/deployment.md alone

Each way runs in a process of its own with one thread. Times are CPU time of the process (user and system), which other
work on the machine changes less than elapsed time, and the smallest of several repetitions. Other models have random
weights, which changes no time: wav2vec 2.0 base, the shape of audEERING's emotion model (wav2vec 2.0 large with 12
layers), and Whisper tiny's encoder, which pads every clip to 30 s. openSMILE (extra `benchmark`; licensed for research
only) computes the functionals of eGeMAPS.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "modeling" / "audio_emotion"
RESULTS = Path(__file__).with_name("results") / "speed.json"
PAGE = ROOT / "docs" / "deployment.md"
LENGTHS = (1, 3, 10, 60)  # seconds
RATE = 16_000
PART = RATE // 2  # of a stream
BATCH = 8  # clips
ENOUGH, MOST = 1.5, 100  # seconds and repetitions of one measurement
Run = Callable[[np.ndarray], Any]


def load_pipeline(model: str, batch: int = 1) -> tuple[Run, Path]:
    """The pipeline, one clip or a batch at a time."""
    from transformers import pipeline

    import audio_emotion  # noqa: F401 - registers the task

    folder = PACKAGE / "embedded" / model
    emotion = pipeline("audio-emotion", model=str(folder), device="cpu")

    def run(samples: np.ndarray) -> Any:
        clip = {"array": samples, "sampling_rate": RATE}
        return emotion(clip) if batch == 1 else emotion([clip] * batch, batch_size=batch)

    return run, folder / "model.safetensors"


def load_pipeline_stream(model: str) -> tuple[Run, Path]:
    """The pipeline, on half a second at a time."""
    from transformers import pipeline

    import audio_emotion  # noqa: F401 - registers the task

    folder = PACKAGE / "embedded" / model
    emotion = pipeline("audio-emotion", model=str(folder), device="cpu")
    return partial(feed, emotion.stream), folder / "model.safetensors"


def load_runtime(model: str) -> tuple[Run, Path]:
    """The runtime, one clip at a time."""
    from audio_emotion.runtime import EmotionRuntime

    emotion = EmotionRuntime(PACKAGE / "embedded" / model)
    return lambda samples: emotion({"array": samples, "sampling_rate": RATE}), emotion.path


def load_runtime_stream(model: str) -> tuple[Run, Path]:
    """The runtime, on half a second at a time."""
    from audio_emotion.runtime import EmotionRuntime

    emotion = EmotionRuntime(PACKAGE / "embedded" / model)
    streaming = emotion.path.with_name("model_streaming.onnx")
    return partial(feed, emotion.stream), streaming if streaming.is_file() else emotion.path


def feed(start: Callable[[], Any], samples: np.ndarray) -> Any:
    """Predict a stream in parts."""
    stream = start()
    for begin in range(0, len(samples), PART):
        stream.feed(samples[begin : begin + PART])
    return stream.result()


def load_opensmile() -> tuple[Run, Path]:
    """EGeMAPS functionals."""
    import opensmile

    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=opensmile.FeatureLevel.Functionals
    )
    return lambda samples: smile.process_signal(samples, RATE), Path(opensmile.__file__).parent


def load_wav2vec2(**sizes: Any) -> tuple[Run, Path]:
    """A wav2vec 2.0 model without heads."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    folder = written(lambda: Wav2Vec2Model(Wav2Vec2Config(**sizes)))
    model = Wav2Vec2Model.from_pretrained(folder).eval()

    def run(samples: np.ndarray) -> Any:
        with torch.no_grad():
            return model(torch.from_numpy(samples)[None])

    return run, folder


def load_whisper_encoder() -> tuple[Run, Path]:
    """Whisper tiny's encoder, with its own feature extractor."""
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    sizes = {"d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536}
    folder = written(lambda: WhisperEncoder(WhisperConfig(**sizes)))
    model, features = WhisperEncoder.from_pretrained(folder).eval(), WhisperFeatureExtractor()

    def run(samples: np.ndarray) -> Any:
        with torch.no_grad():
            for begin in range(0, len(samples), 30 * RATE):
                part = features(samples[begin : begin + 30 * RATE], sampling_rate=RATE, return_tensors="pt")
                model(part.input_features)

    return run, folder


LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}
WAYS: dict[str, Callable[[], tuple[Run, Path]]] = {
    "runtime, `lite`": partial(load_runtime, "lite"),
    "runtime, student": partial(load_runtime, "student"),
    "runtime, student, stream": partial(load_runtime_stream, "student"),
    "runtime, `lite`, stream of 4 s windows": partial(load_runtime_stream, "lite"),
    "pipeline, `lite`": partial(load_pipeline, "lite"),
    f"pipeline, `lite`, batch of {BATCH}": partial(load_pipeline, "lite", BATCH),
    "pipeline, student": partial(load_pipeline, "student"),
    f"pipeline, student, batch of {BATCH}": partial(load_pipeline, "student", BATCH),
    "pipeline, student, stream": partial(load_pipeline_stream, "student"),
    "openSMILE eGeMAPS": load_opensmile,
    "Whisper tiny's encoder": load_whisper_encoder,
    "wav2vec 2.0 base": load_wav2vec2,
    "wav2vec 2.0 large, 12 layers": partial(load_wav2vec2, **LARGE),
}


def written(make: Callable[[], Any]) -> Path:
    """The folder of a model with random weights, made in another process so that this one only loads it."""
    folder = Path(os.environ["SPEED_FOLDER"])
    if not (folder / "config.json").is_file():
        make().save_pretrained(folder)
    return folder


def measure(name: str) -> dict[str, Any]:
    """Measure one way in this process."""
    import psutil

    process = psutil.Process()
    run, files = WAYS[name]()
    load = time.process_time()  # since the process began
    speech, _ = soundfile.read(PACKAGE / "embedded" / "speech" / "sense_and_sensibility.flac", dtype="float32")
    clips = BATCH if "batch" in name else 1
    found: dict[str, Any] = {"load_cpu_seconds": load, "loaded_megabytes": process.memory_info().rss / 2**20}
    paths = [files] if files.is_file() else [each for each in files.rglob("*") if each.is_file()]
    found["disk_megabytes"] = sum(each.stat().st_size for each in paths) / 1e6
    found["milliseconds"], found["megabytes"] = {}, {}
    run(np.resize(speech, RATE))
    for length in LENGTHS:
        samples, times = np.resize(speech, length * RATE), []
        while not times or (sum(times) < ENOUGH and len(times) < MOST):
            began = time.process_time()
            run(samples)
            times.append(time.process_time() - began)
        found["milliseconds"][str(length)] = 1000 * min(times) / clips
        found["megabytes"][str(length)] = process.memory_info().rss / 2**20
    return found


def profile() -> dict[str, float]:
    """Milliseconds of the parts of one prediction of the student in the runtime, for 10 s of sound."""
    import onnxruntime

    from audio_emotion.audio_io import read_audio
    from audio_emotion.runtime import EmotionRuntime

    emotion = EmotionRuntime(PACKAGE / "embedded" / "student")
    speech, _ = soundfile.read(PACKAGE / "embedded" / "speech" / "sense_and_sensibility.flac", dtype="float32")
    samples = np.resize(speech, 10 * RATE)
    clip = {"array": samples, "sampling_rate": RATE}
    whole, graph = smallest(lambda: emotion(clip)), smallest(lambda: emotion.run(samples))
    reading = smallest(lambda: read_audio(clip))
    flags = smallest(lambda: read_audio(clip).flags) - reading
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_profiling, options.log_severity_level = 1, True, 3
    options.profile_file_prefix = f"{os.environ['SPEED_FOLDER']}/profile"
    session = onnxruntime.InferenceSession(str(emotion.path), options, providers=["CPUExecutionProvider"])
    for _ in range(MOST):
        session.run(None, {"input_values": samples[None], "attention_mask": np.ones((1, len(samples)), np.int64)})
    parts: dict[str, float] = {}
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            is_gru = event["args"]["op_name"] == "GRU"
            part = "log-mel frames" if "/log_mel/" in event["name"] else "GRU" if is_gru else "other layers"
            parts[part] = parts.get(part, 0.0) + event["dur"]
    share = graph / sum(parts.values())  # the profiler counts elapsed time, and slows the graph down
    found = {f"graph: {name}": value * share for name, value in sorted(parts.items())}
    return found | {"reading": reading, "flags": flags, "formatting": whole - graph - reading - flags}


def smallest(step: Callable[[], Any]) -> float:
    """Milliseconds of CPU of the fastest of many repetitions."""
    times = []
    for _ in range(MOST):
        began = time.process_time()
        step()
        times.append(time.process_time() - began)
    return 1000 * min(times)


def measure_apart(name: str) -> dict[str, Any]:
    """Measure one way in a process of one thread, without torch where it is not needed, and without silero-vad."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "modeling"), "HF_HUB_OFFLINE": "1"}
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    if name.startswith(("runtime", "profile")):
        environment["AUDIO_EMOTION_RUNTIME"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        environment["SPEED_FOLDER"] = folder
        command = [sys.executable, __file__, "--measure", name]
        if name.startswith(("wav2vec", "Whisper")):  # writes the weights, so that the next process only loads them
            subprocess.run([*command, "--write-only"], env=environment, check=True, stdout=subprocess.DEVNULL)
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def processor() -> str:
    """The name of the processor."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(": ")[2] if names else platform.processor()


def tables(results: dict[str, Any]) -> str:
    """The tables of the page, in Markdown."""
    lines = [
        f"One core of {results['processor']}, one thread, CPU time; {results['versions']}.",
        "",
        "| Way | "
        + " | ".join(f"{each} s" for each in LENGTHS)
        + " | CPU s per hour | MB | load, CPU s | on disk, MB |",
        "| --- |" + " --- |" * (len(LENGTHS) + 4),
    ]
    ways = {name: results["ways"][name] for name in WAYS if name in results["ways"]}
    for name, each in ways.items():
        times = [1000 * length / each["milliseconds"][str(length)] for length in LENGTHS]
        lines.append(
            f"| {name} | "
            + " | ".join(f"{value:,.0f}" for value in times)
            + f" | {3600 / times[LENGTHS.index(10)]:.1f} | {each['megabytes']['10']:,.0f} "
            + f"| {each['load_cpu_seconds']:.1f} | {each['disk_megabytes']:.0f} |"
        )
    lines += [
        "",
        "Seconds of sound per second of one core, by length of the clips; CPU time per hour and memory are for 10 s.",
        "",
        "| Way | " + " | ".join(f"{each} s: ms, MB" for each in LENGTHS) + " |",
        "| --- |" + " --- |" * len(LENGTHS),
    ]
    for name, each in ways.items():
        cells = [
            f"{each['milliseconds'][str(length)]:,.1f}, {each['megabytes'][str(length)]:,.0f}" for length in LENGTHS
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "Milliseconds of CPU per clip, and resident memory after clips of this length."]
    if parts := results.get("profile"):
        lines += ["", "| Part of `runtime, student`, 10 s | ms |", "| --- | --- |"]
        lines += [f"| {name} | {value:.2f} |" for name, value in parts.items()]
    return "\n".join(lines)


def render(page: str, results: dict[str, Any]) -> str:
    """The page with the tables between its two marks."""
    marks = r"(<!-- speed:begin -->\n).*?(<!-- speed:end -->)"
    return re.sub(marks, lambda found: f"{found[1]}{tables(results)}\n{found[2]}", page, flags=re.DOTALL)


def main(args: argparse.Namespace) -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"ways": {}}
    if not args.render:
        from importlib.metadata import version

        names = ("torch", "transformers", "onnxruntime")
        results["processor"] = processor()
        results["versions"] = ", ".join(f"{name} {version(name)}" for name in names)
        for name in WAYS:
            if name in results["ways"] and not args.again:
                continue
            if "openSMILE" in name and importlib.util.find_spec("opensmile") is None:
                print(f"{name}: left out, it needs the extra `benchmark`", file=sys.stderr)
                continue
            results["ways"][name] = measure_apart(name)
            print(name, json.dumps(results["ways"][name]), flush=True)
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        if args.again or "profile" not in results:
            results["profile"] = measure_apart("profile")
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="measure what is measured already, too")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # the processes run this file
    parser.add_argument("--write-only", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        sys.modules["silero_vad"] = None  # type: ignore[assignment]  # an extra, which not everyone installs
        if not arguments.measure.startswith(("runtime", "profile", "openSMILE")):
            import torch

            torch.set_num_threads(1)
            torch.set_num_interop_threads(1)
        if arguments.write_only:
            WAYS[arguments.measure]()
        else:
            print(json.dumps(profile() if arguments.measure == "profile" else measure(arguments.measure)))
    else:
        main(arguments)
