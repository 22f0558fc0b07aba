"""What streaming from shards costs a training, and how much memory it takes.

    python benchmarks/streaming.py --clips 1200 --long 50000

Trains the `small` student from audio for the same batches twice: on clips that are decoded in memory, and on the same
clips streamed from parquet shards; then reads a corpus of many clips once, and prints the resident memory as it goes.
Clips are made by code. One JSON line a measurement.
"""

import argparse
import json
import os
import runpy
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core trains, the other reads

import torch

from audio_emotion import StudentEmotionConfig, StudentEmotionForAudioClassification
from audio_emotion.data.collate import batches
from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.registry import corpus_info, corpus_table, shard_files
from audio_emotion.data.sampler import Order

RECIPES = Path(__file__).parents[1] / "recipes"
BATCH = 32


def packed(folder: Path, clips: int, shard_mb: int) -> str:
    """Pack that many synthetic clips; returns the description that makes them a corpus."""
    recipe = runpy.run_path(str(RECIPES / "pack.py"))
    recipe["main"](recipe["PackArguments"](output=str(folder), corpus_count=clips, shard_mb=shard_mb))
    return str(folder / "corpus.yaml")


def train(stream: ClipStream, order: Order, epochs: int) -> list[float]:
    """Clips per second of each epoch of a training of the `small` student."""
    info = corpus_info("synthetic")
    torch.manual_seed(0)
    model = StudentEmotionForAudioClassification(StudentEmotionConfig.of_size("small", emotions=list(info.emotions)))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rates, begin = [], time.perf_counter()
    for number, batch in enumerate(batches(stream, order, info.emotions, info.dimensions, epochs)):
        output = model(batch.input_values, batch.attention_mask, batch.labels, batch.dimension_labels)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if (number + 1) % order.steps == 0:
            now = time.perf_counter()
            rates.append(len(stream) / (now - begin))
            begin = now
    return rates[1:]  # the first epoch decodes what the other keeps in memory


def resident() -> float:
    """Resident memory of this process, in megabytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(args: argparse.Namespace) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        file = packed(Path(name) / "short", args.clips, 8)
        memory, shards = corpus_table("synthetic", count=args.clips), corpus_table(file)
        rates: dict[str, list[float]] = {"memory": [], "shards": []}
        for _ in range(args.repeats):  # in turn, so that a slow minute of the machine hits both
            for where, table, workers in (("memory", memory, 0), ("shards", shards, args.workers)):
                stream = ClipStream(
                    table,
                    shard_files(file) if where == "shards" else (),
                    memory=1e6 if where == "memory" else 0.0,
                )
                order = Order.of(table, BATCH, shuffle=True, num_workers=workers)
                rates[where] += train(stream, order, args.epochs)
        medians = {where: statistics.median(each) for where, each in rates.items()}
        for where, each in rates.items():
            print(json.dumps({"clips_from": where, "clips_per_second": [round(rate, 1) for rate in each]}))
        print(json.dumps({"shards_cost_percent": round(100 * (1 - medians["shards"] / medians["memory"]), 1)}))

        file = packed(Path(name) / "long", args.long, 32)
        table = corpus_table(file)
        stream, info = ClipStream(table, shard_files(file), memory=0.0), corpus_info(file)
        order = Order.of(table, BATCH, shuffle=True)
        heard, marks = 0, []
        for number, batch in enumerate(batches(stream, order, info.emotions, info.dimensions)):
            heard += int(batch.weight.sum())
            if number % (order.steps // 10) == 0:
                marks.append(round(resident()))
        print(json.dumps({"clips": heard, "resident_megabytes": marks}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1200, help="of the training")
    parser.add_argument("--long", type=int, default=50_000, help="clips of the memory test")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="that read shards ahead")
    main(parser.parse_args())
