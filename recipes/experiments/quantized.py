"""Compare the graph of the default model with 8-bit matrices with the one that is published: size, speed, UAR.

python recipes/experiments/quantized.py

Writes `recipes/results/quantized.json`: UAR on samples of corpora that the model was not trained on, with the paired
difference over speakers, the fraction of answers that change, and CPU milliseconds for 10 s.
"""

import json
import tempfile
import time
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForAudioClassification

import audio_emotion
from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.registry import corpus_info, corpus_table
from audio_emotion.evaluation.bootstrap import compare
from audio_emotion.evaluation.label_matching import match_classes
from audio_emotion.evaluation.predictions import Predictions
from audio_emotion.hub.onnx_export import OFFLINE, QUANTIZED, export_onnx
from audio_emotion.runtime import EmotionRuntime

RESULTS = Path(__file__).parents[1] / "results" / "quantized.json"
CORPORA, CLIPS = ("ravdess", "nemo"), 400


def main() -> None:
    """Export both graphs, predict, and write the results."""
    model = AutoModelForAudioClassification.from_pretrained(audio_emotion._DEFAULT_MODEL, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(model, folder, quantize=True)
        paths = {name: Path(folder) / name for name in (OFFLINE, QUANTIZED)}
        graphs = {name: EmotionRuntime(path) for name, path in paths.items()}
        results: dict = {"source": "recipes/experiments/quantized.py", "clips": CLIPS, "graphs": {}, "corpora": {}}
        for name, graph in graphs.items():
            size = paths[name].stat().st_size
            results["graphs"][name] = {"bytes": size, "milliseconds_for_10_s": milliseconds(graph)}
        for corpus in CORPORA:
            exact, small = (predict(graph, corpus) for graph in graphs.values())
            found = compare([small], [exact], "uar", [])
            flips = float((small.logits.argmax(1) != exact.logits.argmax(1)).mean())
            results["corpora"][corpus] = {**asdict(found), "flips": flips}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


def predict(graph: EmotionRuntime, corpus: str) -> Predictions:
    """Predictions for a sample of a corpus, over the emotions that graph and corpus both have."""
    info, table = corpus_info(corpus), corpus_table(corpus)
    rows = sorted(range(len(table)), key=lambda place: zlib.crc32(table[place]["id"].encode()))[:CLIPS]
    match = match_classes(graph.emotions, info.emotions)
    clips = list(ClipStream(table).clips(sorted(rows)))
    logits = torch.from_numpy(np.concatenate([graph.run(clip["waveform"])["logits"] for clip in clips]))
    labels = np.array([info.emotions.index(clip["emotion"]) for clip in clips])
    empty = np.zeros((len(clips), 0))
    return Predictions(
        [clip["id"] for clip in clips],
        np.array([clip["speaker"] for clip in clips]),
        match.logits(logits).numpy(),
        empty,
        empty,
        match.labels(info.emotions, labels),
        empty,
    )


def milliseconds(graph: EmotionRuntime, repeats: int = 20) -> float:
    """CPU time for 10 s of sound, the smallest of several repetitions."""
    sound = 0.05 * np.random.default_rng(0).normal(size=160_000).astype(np.float32)
    graph.run(sound)
    times = []
    for _ in range(repeats):
        start = time.process_time()
        graph.run(sound)
        times.append(1000 * (time.process_time() - start))
    return min(times)


if __name__ == "__main__":
    main()
