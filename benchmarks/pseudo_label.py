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
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import numpy as np
import torch
import yaml
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

import audio_emotion
from audio_emotion.teachers.video import Video

ROOT = Path(__file__).parents[1]
STUDENT = Path(audio_emotion.STUDENT)
UNIQUE_CLIPS = 20  # the other clips are copies of these
WIDTH, HEIGHT = 320, 180  # pixels
FRAME_RATE, SAMPLING_RATE = 25, 16000  # hertz


def draw_disc(time: float) -> np.ndarray:
    """A red face whose mouth opens and closes four times per second, `(HEIGHT, WIDTH, 3)` at a time in seconds."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    pixels[(x - 160) ** 2 + (y - 90) ** 2 <= 50**2] = (220, 40, 40)
    pixels[(abs(x - 160) <= 18) & (abs(y - 120) <= 4 + 4 * np.sin(8 * np.pi * time))] = (70, 10, 10)
    return pixels


def find_disc(pixels: np.ndarray) -> np.ndarray:
    """Box `(1, 4)` of the red pixels."""
    red = pixels[..., 0].astype(int) - pixels[..., 1] > 80
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    return np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], float)


def encode_mp4(frames: list[np.ndarray], audio: np.ndarray) -> bytes:
    """Content of an mp4 file with frames `(H, W, 3)` and audio `(S,)`."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        video_stream = container.add_stream("libx264", rate=FRAME_RATE)
        video_stream.width, video_stream.height, video_stream.pix_fmt = *frames[0].shape[1::-1], "yuv420p"
        audio_stream = container.add_stream("aac", rate=SAMPLING_RATE)
        audio_stream.layout = "mono"
        for frame in frames:
            container.mux(video_stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video_stream.encode(None))
        samples = av.AudioFrame.from_ndarray(audio[None], format="fltp", layout="mono")
        samples.sample_rate = SAMPLING_RATE
        splitter = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLING_RATE, frame_size=1024)
        for part in [*splitter.resample(samples), *splitter.resample(None)]:
            container.mux(audio_stream.encode(part))
        container.mux(audio_stream.encode(None))
    return file.getvalue()


def write_corpus(folder: Path, clips: int, seconds: float, video: str) -> None:
    """Write clips and the description of their corpus."""
    random = np.random.default_rng(0)
    real = [frame.pixels for frame in Video(video).frames()] if video else []
    contents = []
    for _ in range(UNIQUE_CLIPS):
        times = random.uniform(0, 5) + np.arange(round(seconds * FRAME_RATE)) / FRAME_RATE
        frames = [real[round(time * FRAME_RATE) % len(real)] if real else draw_disc(time) for time in times]
        audio = random.uniform(-0.3, 0.3, round(seconds * SAMPLING_RATE)).astype(np.float32)
        contents.append(encode_mp4(frames, audio))
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
    """One process of a run, which logs its memory twice per second."""
    torch.set_num_threads(1)
    stop = threading.Event()
    with (folder / f"memory-{Path(output).name}-{os.environ.get('RANK', '0')}.txt").open("a") as log:

        def log_memory() -> None:
            while not stop.wait(0.5):
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                log.write(f"{pages * os.sysconf('SC_PAGE_SIZE') / 2**20:.1f}\n")
                log.flush()

        thread = threading.Thread(target=log_memory)
        thread.start()
        try:
            recipe = runpy.run_path(str(ROOT / "recipes" / "pseudo_label.py"))
            arguments = recipe["PseudoLabelArguments"](
                output=output,
                corpus=str(folder / "videos.yaml"),
                teachers=[f"speech:{STUDENT}", f"face:{folder / 'face'}"],
                shard_clips=25,
            )
            recipe["main"](arguments, None if real else find_disc)
        finally:
            stop.set()
            thread.join()


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


def run_to_the_end(folder: Path, output: Path, processes: int, real: bool) -> None:
    """Start a run and wait for its end."""
    with launched(folder, output, processes, real) as run:
        if run.wait():
            raise SystemExit((folder / "log.txt").read_text()[-3000:])


def shard_digests(output: Path) -> dict[str, str]:
    """SHA-256 of every finished shard."""
    files = sorted((output / "dataset" / "data").glob("*.parquet"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def peak_memory(folder: Path, name: str) -> dict[str, float]:
    """Peak megabytes of the largest process in the second and in the last quarter of the run."""
    peaks = {"megabytes_early": 0.0, "megabytes_late": 0.0}
    for file in folder.glob(f"memory-{name}-*.txt"):
        megabytes = [float(line) for line in file.read_text().split()]
        quarter = max(1, len(megabytes) // 4)
        peaks["megabytes_early"] = max(peaks["megabytes_early"], *megabytes[quarter : 2 * quarter + 1])
        peaks["megabytes_late"] = max(peaks["megabytes_late"], *megabytes[-quarter:])
    return peaks


def main(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_corpus(folder, args.clips, args.seconds, args.video)
        write_face_teacher(folder / "face")
        real = bool(args.video)

        start = time.monotonic()
        run_to_the_end(folder, folder / "whole", args.processes, real)
        seconds = time.monotonic() - start
        whole = shard_digests(folder / "whole")

        kills = 0
        for fraction in (1 / 3, 2 / 3):
            with launched(folder, folder / "killed", args.processes, real) as run:
                while run.poll() is None and len(shard_digests(folder / "killed")) < fraction * len(whole):
                    time.sleep(0.05)
                kills += run.poll() is None
        run_to_the_end(folder, folder / "killed", args.processes, real)
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
                    **peak_memory(folder, "whole"),
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
