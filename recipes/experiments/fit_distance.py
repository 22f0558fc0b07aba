"""Let an embedded model output the distance of a clip from its training clips, and measure what the flag finds.

    python recipes/experiments/fit_distance.py --model modeling/audio_emotion/embedded/lite --corpus crema-d \
        --fold_model runs/crema_d/lite-fold-1-seed-0/checkpoints/last --fold crema-d-hicmae-fold-1

The limit is the 99 % quantile of the training clips' distances, times the ratio of this quantile on held-out and on
training speakers in a model of one fold. Rewrites the checkpoint and its graphs, and
`recipes/results/<name>_distance.json`: the fraction of clips with the flag for held-out speakers, other corpora,
noises, tones and silence.
"""

import argparse
import json
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from embed import copy_checkpoint
from transformers import AutoModelForAudioClassification, PreTrainedModel

import audio_emotion  # noqa: F401 - registers the Auto classes
from audio_emotion.data.augmentation import recordings
from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.registry import corpus_table, load_protocol
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion.hub.onnx_export import export_onnx
from audio_emotion.training.embedding_distance import QUANTILE, distances, fit_distance, moments

RESULTS = Path(__file__).parents[1] / "results"
LONGEST = 10.0  # seconds of a clip


def main(args: argparse.Namespace) -> None:
    """Fit, write and measure."""
    table = corpus_table(args.corpus)
    protocol = load_protocol(args.fold)
    speakers = table["speaker"]

    def chosen(members) -> list[int]:
        rows = [place for place, name in enumerate(speakers) if name in set(members)]
        return sorted(rows, key=lambda place: zlib.crc32(table[place]["id"].encode()))[: args.clips]

    fold = AutoModelForAudioClassification.from_pretrained(args.fold_model).eval()
    training = embed_clips(fold, corpus_clips(table, chosen(protocol.train + protocol.validation)))
    held_out = embed_clips(fold, corpus_clips(table, chosen(protocol.test)))
    statistics = moments(training)
    quantiles = [float(np.quantile(distances(each, *statistics), QUANTILE)) for each in (held_out, training)]
    ratio = quantiles[0] / quantiles[1]

    model = AutoModelForAudioClassification.from_pretrained(args.model).eval()
    rows = sorted(range(len(table)), key=lambda place: zlib.crc32(table[place]["id"].encode()))[: args.clips]
    limit = fit_distance(model, embed_clips(model, corpus_clips(table, rows)), ratio=ratio)
    fit_distance(fold, training, held_out)
    found = {f"{args.corpus}, held-out speakers": flagged(fold, corpus_clips(table, chosen(protocol.test)))}
    for name in args.others:
        other = corpus_table(name)
        places = sorted(range(len(other)), key=lambda place: zlib.crc32(other[place]["id"].encode()))[:300]
        found[name] = flagged(model, corpus_clips(other, places))
    if args.noise:
        found["recordings of noise"] = flagged(model, (each.mean(0).numpy() for each in recordings(args.noise)))
    found["tones, white noise, silence"] = flagged(model, artificial())
    results = {"source": "recipes/experiments/fit_distance.py", "model": Path(args.model).name, "limit": limit}
    results |= {"ratio": ratio, "quantile": QUANTILE, "clips": args.clips, "fold": args.fold, "flagged": found}
    (RESULTS / f"{Path(args.model).name}_distance.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))

    half = next(iter(stored_types(Path(args.model)))) == "F16"
    with tempfile.TemporaryDirectory() as written:
        write_checkpoint(model, written, half_precision=half)
        copy_checkpoint(Path(written), Path(args.model))
    export_onnx(AutoModelForAudioClassification.from_pretrained(args.model).float(), Path(args.model) / "onnx")


def stored_types(folder: Path) -> set[str]:
    """Types of the weights of a checkpoint, the most frequent first."""
    with (folder / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    types = [each["dtype"] for name, each in header.items() if name != "__metadata__"]
    return dict.fromkeys(sorted(types, key=types.count, reverse=True)).keys()  # type: ignore[return-value]


def corpus_clips(table, rows: list[int]) -> Iterator[np.ndarray]:
    """Waveforms `(S,)` of some rows."""
    return (clip["waveform"] for clip in ClipStream(table, max_bad_fraction=1.0).clips(rows))


@torch.no_grad()
def embed_clips(model: PreTrainedModel, clips: Iterator[np.ndarray]) -> np.ndarray:
    """Embeddings `(N, D)`."""
    found = [model(torch.from_numpy(clip[: round(LONGEST * 16_000)])[None]).embedding[0] for clip in clips]
    return torch.stack(found).numpy()


@torch.no_grad()
def flagged(model: PreTrainedModel, clips: Iterator[np.ndarray]) -> float:
    """Fraction of clips that are unlike the training clips."""
    found = [model(torch.from_numpy(clip[: round(LONGEST * 16_000)])[None]).distance.item() > 1 for clip in clips]
    return float(np.mean(found))


def artificial() -> Iterator[np.ndarray]:
    """Three seconds of what is no speech."""
    random, seconds = np.random.default_rng(0), np.arange(48_000) / 16_000
    for frequency in (100, 220, 440, 1_000, 3_000):
        yield (0.1 * np.sin(2 * np.pi * frequency * seconds)).astype(np.float32)
    for level in (0.0, 1e-5, 0.01, 0.05, 0.3):
        yield (level * random.normal(size=48_000)).astype(np.float32)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of the embedded model, rewritten")
    parser.add_argument("--corpus", default="crema-d", help="that the model was trained on")
    parser.add_argument("--fold_model", required=True, help="checkpoint of the same recipe on a fold")
    parser.add_argument("--fold", default="crema-d-hicmae-fold-1", help="protocol of that fold")
    parser.add_argument("--others", nargs="*", default=["ravdess", "nemo", "emospeech-commands", "emotale"])
    parser.add_argument("--noise", default="", help="folder of recorded noise")
    parser.add_argument("--clips", type=int, default=1500, help="training clips, and held-out clips")
    main(parser.parse_args())
