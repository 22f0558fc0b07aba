"""Training speed and memory with clips streamed from shards, compared with clips decoded in memory.

    python benchmarks/streaming.py --clips 1200 --long 50000

Trains the `small` student from audio on the same batches twice: with clips decoded in memory, and with the same clips
streamed from parquet shards. Then reads a large corpus once and prints the resident memory at ten points. The clips
are synthetic. Prints JSON Lines, one measurement each.
"""

import argparse
import json
import os
import runpy
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for training, one for reading

import psutil
import torch

from audio_emotion import StudentEmotionConfig, StudentEmotionForAudioClassification
from audio_emotion.data.dataset import ClipStream, batches
from audio_emotion.data.registry import corpus_info, corpus_table, shard_files
from audio_emotion.data.sampler import ResumableSampler

RECIPES = Path(__file__).parents[1] / "recipes"
BATCH_SIZE = 32


def pack_clips(folder: Path, clips: int, shard_mb: int) -> str:
    """Pack synthetic clips; returns the path of the corpus description."""
    recipe = runpy.run_path(str(RECIPES / "pack.py"))
    recipe["main"](recipe["PackArguments"](output=str(folder), corpus_count=clips, shard_mb=shard_mb))
    return str(folder / "corpus.yaml")


def train(stream: ClipStream, sampler: ResumableSampler, epochs: int) -> list[float]:
    """Train the `small` student; returns the clips per second of each epoch but the first."""
    info = corpus_info("synthetic")
    torch.manual_seed(0)
    model = StudentEmotionForAudioClassification(StudentEmotionConfig.of_size("small", emotions=list(info.emotions)))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rates, start = [], time.perf_counter()
    for number, batch in enumerate(batches(stream, sampler, info.emotions, info.dimensions, epochs)):
        output = model(batch.input_values, batch.attention_mask, batch.labels, batch.dimension_labels)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if (number + 1) % sampler.steps == 0:
            now = time.perf_counter()
            rates.append(len(stream) / (now - start))
            start = now
    return rates[1:]  # in the first epoch the clips in memory are decoded


def main(args: argparse.Namespace) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        file = pack_clips(Path(name) / "short", args.clips, 8)
        memory, shards = corpus_table("synthetic", count=args.clips), corpus_table(file)
        rates: dict[str, list[float]] = {"memory": [], "shards": []}
        for _ in range(args.repeats):  # alternating, so that load on the machine affects both
            for where, table, workers in (("memory", memory, 0), ("shards", shards, args.workers)):
                stream = ClipStream(
                    table,
                    shard_files(file) if where == "shards" else (),
                    memory=1e6 if where == "memory" else 0.0,
                )
                sampler = ResumableSampler.from_table(table, BATCH_SIZE, shuffle=True, num_workers=workers)
                rates[where] += train(stream, sampler, args.epochs)
        medians = {where: statistics.median(each) for where, each in rates.items()}
        for where, each in rates.items():
            print(json.dumps({"clips_from": where, "clips_per_second": [round(rate, 1) for rate in each]}))
        print(json.dumps({"slowdown_percent": round(100 * (1 - medians["shards"] / medians["memory"]), 1)}))

        file = pack_clips(Path(name) / "long", args.long, 32)
        table = corpus_table(file)
        stream, info = ClipStream(table, shard_files(file), memory=0.0), corpus_info(file)
        sampler = ResumableSampler.from_table(table, BATCH_SIZE, shuffle=True)
        num_clips, megabytes = 0, []
        for number, batch in enumerate(batches(stream, sampler, info.emotions, info.dimensions)):
            num_clips += int(batch.weight.sum())
            if number % (sampler.steps // 10) == 0:
                megabytes.append(round(psutil.Process().memory_info().rss / 2**20))
        print(json.dumps({"clips": num_clips, "resident_megabytes": megabytes}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1200, help="clips of the training")
    parser.add_argument("--long", type=int, default=50_000, help="clips of the memory test")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each training")
    parser.add_argument("--repeats", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--workers", type=int, default=1, help="worker processes that read shards")
    main(parser.parse_args())
