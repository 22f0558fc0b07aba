"""A static page that runs a model in the browser: the files that it is made of, for a local server or for a Space."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from audio_emotion import audio_flags, audio_io
from audio_emotion.hub import browser_runtime

STATIC = Path(__file__).parent / "browser"  # HTML, CSS and JavaScript, without a build step
EMBEDDED = Path(__file__).parents[1] / "embedded"
SAMPLE = EMBEDDED / "speech" / "sense_and_sensibility.flac"
GRAPH, STREAMING_GRAPH = "onnx/model.onnx", "onnx/model_streaming.onnx"  # where transformers.js expects the former
RUNTIME = {"script": "runtime/ort.js", "wasm": "runtime/ort.wasm"}  # names that every static host has a type for
FRAME = 160  # samples between two log-mel frames of a student
WINDOW, HOP = 3.0, 0.5  # seconds of sound per prediction, and between two
CONTENT_TYPES = {
    **{
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
    },
    **{".json": "application/json", ".wasm": "application/wasm", ".onnx": "application/octet-stream"},
    **{".flac": "audio/flac", ".txt": "text/plain; charset=utf-8"},
}
# Large files of a Space are redirected there; the page of a local server connects to itself alone.
SPACE_HOSTS = "https://*.hf.co https://*.huggingface.co"
DIMENSION_ENDS = {
    "activation": ("calm", "excited"),
    "valence": ("negative", "positive"),
    "dominance": ("weak", "strong"),
}
DIMENSION_SOURCES = {
    "rated": "Activation, valence and dominance follow listeners' ratings of the training clips.",
    "norm-derived": (
        "Activation, valence and dominance are derived from published values of emotion words, not from ratings of "
        "speech."
    ),
    "norm-derived-pad": (
        "Activation, valence and dominance are derived from published values of felt emotions, not from ratings of "
        "speech."
    ),
    "synthetic": "Activation, valence and dominance come from synthetic sounds, and mean nothing for speech.",
    "none": "The training clips have no dimensions: ignore activation, valence and dominance.",
}
NOT_FEELINGS = "It shows how a voice sounds to the model, not what the speaker feels."
NOT_FOR = (
    "Do not use it for people at work or in education (prohibited in the European Union, with exceptions for medicine "
    "and safety), for decisions about a person, or for speakers who have not agreed."
)


def find_or_export_graph(checkpoint: Path, report: Callable[[str], object] = print) -> Path:
    """The ONNX graph of a checkpoint, or one that is exported into the cache where it has none.

    Args:
        checkpoint: its folder.
        report: called with a message before an export.

    Raises:
        ValueError: where the checkpoint is incomplete, or its graph differs from the model.
        ImportError: where the extra `onnx` is missing.
    """
    if (checkpoint / GRAPH).is_file():
        return checkpoint / GRAPH
    weights = sorted(checkpoint.glob("*.safetensors"))
    digest = hashlib.sha256()
    for path in (checkpoint / "config.json", *weights):
        digest.update(path.read_bytes())
    folder = browser_runtime.cache_folder().parent / "onnx" / f"{version('audio-emotion')}-{digest.hexdigest()[:16]}"
    if not (folder / GRAPH).is_file():
        from audio_emotion.hub.checks import load_strictly  # slow: imports torch
        from audio_emotion.hub.onnx_export import export_onnx

        report(f"Exporting the model of {checkpoint} to ONNX (once)")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            export_onnx(load_strictly(checkpoint).float(), Path(temporary) / "onnx")
            (folder / "onnx").mkdir(parents=True, exist_ok=True)
            for path in (Path(temporary) / "onnx").iterdir():
                path.replace(folder / "onnx" / path.name)
    return folder / GRAPH


def page_files(model: Path, graph: Path, runtime: Path, name: str) -> dict[str, Path | bytes]:
    """The files of the page, by their address relative to it.

    Args:
        model: folder of a checkpoint, with `config.json`; its card, if there is one, states how good the model is.
        graph: ONNX graph of the model: `input_values` and `attention_mask` `(B, S)` to `logits` and `dimensions`. A
            streaming graph beside it is used for the microphone.
        runtime: folder from `find_runtime`.
        name: of the model, as the page shows it.

    Raises:
        ValueError: where the configuration lacks a fact that the page needs.
    """
    facts = page_facts(model, name) | {"graph": {"file": GRAPH, "bytes": graph.stat().st_size}}
    streaming = graph.with_name(Path(STREAMING_GRAPH).name)
    if streaming.is_file():
        steps = json.loads((model / "config.json").read_text(encoding="utf-8"))["frames_per_step"]
        facts["streaming"] = {"file": STREAMING_GRAPH, "step": steps * FRAME}
    files: dict[str, Path | bytes] = {path.name: path for path in sorted(STATIC.iterdir()) if path.is_file()}
    files |= {
        "model.json": json.dumps(facts, indent=1, ensure_ascii=False).encode(),
        GRAPH: graph,
        RUNTIME["script"]: runtime / browser_runtime.SCRIPT,
        RUNTIME["wasm"]: runtime / browser_runtime.WASM,
        SAMPLE.name: SAMPLE,
    }
    return files | ({STREAMING_GRAPH: streaming} if streaming.is_file() else {})


def page_facts(model: Path, name: str) -> dict[str, Any]:
    """What `model.json` holds: outputs of the model, thresholds of the flags, and words of caution."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    emotions, dimensions = list(config.get("emotions") or []), list(config.get("dimensions") or [])
    if not emotions and not dimensions:
        raise ValueError(f"Expected emotions or dimensions in {model / 'config.json'}, got neither.")
    path = model / "README.md"
    card = path.read_text(encoding="utf-8") if path.is_file() else ""
    for results in (model / "results.json", model.parents[1] / "results.json"):  # a checkpoint has none, its run has
        if not card and results.is_file():
            accuracy = json.loads(results.read_text(encoding="utf-8")).get("test", {}).get("accuracy")
            card = f"| accuracy | {accuracy:.3f} |" if isinstance(accuracy, float) else ""
    source = config.get("dimensions_source")
    about = {
        "model": name,
        "parameters": _first(r"It has ([\d,]+) parameters", card) or "see its configuration",
        "emotions": ", ".join(emotions) or "none",
        "dimensions": ", ".join(dimensions) or "none",
        "license": config.get("license") or "not stated: contact the author before you use it",
        "software": f"audio-emotion {version('audio-emotion')}, onnxruntime-web {browser_runtime.VERSION}",
    }
    return {
        "name": name,
        "sampling_rate": config["sampling_rate"],
        "window": WINDOW,
        "hop": HOP,
        "emotions": emotions,
        "dimensions": dimensions,
        "dimension_ends": {each: DIMENSION_ENDS[each] for each in dimensions if each in DIMENSION_ENDS},
        "limits": flag_limits(),
        "caution": cautions(card, source if dimensions else None),
        "about": about,
        "runtime": {"script": f"./{RUNTIME['script']}", "wasm": RUNTIME["wasm"]},
        "sample": {"file": SAMPLE.name, "title": "Jane Austen, Sense and Sensibility"},
    }


def flag_limits() -> dict[str, float]:
    """The thresholds of the flags, which the page applies by the rules of `audio_flags`."""
    names = ["short", "silence", "full_scale", "canceled", "telephone", "rumble", "narrow", "block"]
    names += ["frame", "quiet", "bridged", "pauses", "steady", "dominant", "often"]
    return {"shortest": audio_io.SHORTEST} | {each: getattr(audio_flags, each.upper()) for each in names}


def cautions(card: str, dimensions_source: str | None) -> list[str]:
    """Plain sentences on what a result means.

    Figures are those of the model's card, which is rendered from results files; without a card there is none.

    Args:
        card: content of the model's `README.md`, or nothing.
        dimensions_source: of the configuration; None for a model without dimensions.
    """
    sentences = [NOT_FEELINGS]
    elsewhere = card.partition("On corpora that it was not trained on:")[2].partition("\n\n|")[2].partition("\n\n")[0]
    rows = [(float(own), float(chance)) for own, chance in re.findall(r"\| (0?\.\d+) \| (0?\.\d+) \|", elsewhere)]
    if rows:
        low, high, worst, best = (
            round(100 * each) for pair in zip(*rows, strict=True) for each in (min(pair), max(pair))
        )
        sentences.append(
            f"It is often wrong. On {len(rows)} collections of recordings unlike its training data it found the right "
            f"emotion in {low} to {high} of 100 clips, averaged over the emotions; guessing finds {worst} to {best}."
        )
    elif accuracy := _first(r"^\| accuracy \| (0?\.\d+) \|", card):
        sentences.append(
            f"It is often wrong. On speakers that it was not trained on, but of the same collection, it found the "
            f"right emotion in {round(100 * float(accuracy))} of 100 clips. On your recordings, expect fewer."
        )
    else:
        sentences.append("It is often wrong; how often on recordings like yours was not measured.")
    sentences += [
        f"Its training speech: {speech}."
        for speech in re.findall(r"^- Training speech: (.+?)\.?$", card, re.MULTILINE)
    ]
    sentences.append(
        "An emotion that is not in the list is still given a name from the list. Children's voices are untested."
    )
    if dimensions_source in DIMENSION_SOURCES:
        sentences.append(DIMENSION_SOURCES[dimensions_source])
    return [*sentences, NOT_FOR]


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else None
