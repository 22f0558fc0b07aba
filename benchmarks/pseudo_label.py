"""Speed, memory and resumption of `recipes/pseudo_label.py` on short synthetic videos.

    python benchmarks/pseudo_label.py --clips 1000

Generates clips, computes their pseudo-labels in two processes of one thread each, repeats this while killing the run
twice, and prints as JSON: clips per second, resident memory early and late in the run, and whether both runs wrote the
same rows. The faces are colored discs with a trivial detector, so that the time of face detection is not included.
With `--video FILE` they are the faces of that video, detected by OpenCV.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import torch
import yaml
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

import audio_emotion
from audio_emotion.teachers.video import Video

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

from audio_visual import Face, draw, encode, find_discs, moving_mouth, random_audio  # noqa: E402

STUDENT = Path(audio_emotion.STUDENT)
UNIQUE_CLIPS = 20  # the other clips are copies of these
FRAME_RATE = 25  # hertz


def write_corpus(folder: Path, clips: int, seconds: float, video: str) -> None:
    """Write clips and the description of their corpus."""
    random = np.random.default_rng(0)
    real = [frame.pixels for frame in Video(video).frames()] if video else []
    contents = []
    for number in range(UNIQUE_CLIPS):
        audio, loudness = random_audio(seconds, seed=number)
        face, start = Face(mouth=moving_mouth(loudness)), random.uniform(0, 5)

        def frame(time: float, face: Face = face, start: float = start) -> np.ndarray:
            return real[round((start + time) * FRAME_RATE) % len(real)] if real else draw([face], time)

        contents.append(encode("mp4", frame, audio, seconds, FRAME_RATE))
    (folder / "clips").mkdir()
    for number in range(clips):
        (folder / "clips" / f"{number:06d}.mp4").write_bytes(contents[number % UNIQUE_CLIPS])
    description = {"name": "videos", "license": "Apache-2.0", "citation": "Generated.", "source": "audiofolder"}
    description |= {"path": "clips", "columns": {"audio": "file_name"}}
    (folder / "videos.yaml").write_text(yaml.safe_dump(description))


def write_face_teacher(folder: Path) -> None:
    """A small vision transformer with random weights."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}
    names = {0: "happy", 1: "sad", 2: "angry", 3: "neutral"}
    ViTForImageClassification(ViTConfig(**sizes, image_size=64, id2label=names)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)


def worker(folder: Path, output: str, real: bool) -> None:
    """One process of a run."""
    torch.set_num_threads(1)
    recipe = runpy.run_path(str(ROOT / "recipes" / "pseudo_label.py"))
    arguments = recipe["PseudoLabelArguments"](
        output=output,
        corpus=str(folder / "videos.yaml"),
        teachers=[f"speech:{STUDENT}", f"face:{folder / 'face'}"],
        shard_clips=25,
    )
    recipe["main"](arguments, None if real else find_discs)


@contextmanager
def launched(folder: Path, output: Path, processes: int, real: bool) -> Iterator[subprocess.Popen]:
    """Start a run in its own process group, which is killed when the context ends."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command += [__file__, "--work_in", str(folder), "--output", str(output), *(["--video", "yes"] if real else [])]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("a") as log:
        run = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield run
    finally:
        with suppress(ProcessLookupError):  # the run has ended
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


def run_to_the_end(folder: Path, output: Path, processes: int, real: bool) -> list[float]:
    """Start a run and wait for its end; returns the megabytes of its largest process, twice per second."""
    megabytes = []
    with launched(folder, output, processes, real) as run:
        while run.poll() is None:
            with suppress(psutil.NoSuchProcess):
                sizes = [each.memory_info().rss for each in psutil.Process(run.pid).children(recursive=True)]
                megabytes.append(max(sizes, default=0) / 2**20)
            time.sleep(0.5)
        if run.returncode:
            raise SystemExit((folder / "log.txt").read_text()[-3000:])
    return megabytes


def shard_digests(output: Path) -> dict[str, str]:
    """SHA-256 of every finished shard."""
    files = sorted((output / "dataset" / "data").glob("*.parquet"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def main(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_corpus(folder, args.clips, args.seconds, args.video)
        write_face_teacher(folder / "face")
        real = bool(args.video)

        start = time.monotonic()
        megabytes = run_to_the_end(folder, folder / "whole", args.processes, real)
        seconds = time.monotonic() - start
        whole = shard_digests(folder / "whole")

        kills = 0
        for fraction in (1 / 3, 2 / 3):
            with launched(folder, folder / "killed", args.processes, real) as run:
                while run.poll() is None and len(shard_digests(folder / "killed")) < fraction * len(whole):
                    time.sleep(0.05)
                kills += run.poll() is None
        run_to_the_end(folder, folder / "killed", args.processes, real)
        quarter = max(1, len(megabytes) // 4)
        results = json.loads((folder / "whole" / "results.json").read_text())
        print(
            json.dumps(
                {
                    "clips": args.clips,
                    "seconds_per_clip": args.seconds,
                    "processes": args.processes,
                    "detector": "OpenCV" if real else "none (colored discs)",
                    "clips_with_face": results["outputs"]["face"]["clips"],
                    "seconds": round(seconds, 1),
                    "clips_per_second": round(args.clips / seconds, 2),
                    "megabytes_early": round(max(megabytes[quarter : 2 * quarter + 1])),
                    "megabytes_late": round(max(megabytes[-quarter:])),
                    "killed": kills,
                    "same_rows_after_kills": shard_digests(folder / "killed") == whole,
                },
                indent=2,
            )
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1000, help="number of clips")
    parser.add_argument("--seconds", type=float, default=2.0, help="duration of a clip")
    parser.add_argument("--processes", type=int, default=2, help="number of processes")
    parser.add_argument("--video", default="", help="video of a face at 25 frames per second")
    parser.add_argument("--work_in", help=argparse.SUPPRESS)  # the processes of a run execute this file
    parser.add_argument("--output", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work_in:
        worker(Path(arguments.work_in), arguments.output, bool(arguments.video))
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # raises SystemExit, so that the run is killed too
        main(arguments)
