"""Speed, memory and endurance of `recipes/pseudo_label.py` over small audio-visual clips.

    python benchmarks/pseudo_label.py --clips 1000

Makes clips by code, labels them in two processes of one thread each, labels them once more while killing the run
twice, and prints clips per second, resident memory at the beginning and at the end, and whether both runs left the
same rows, as JSON. The faces are colored discs with a detector of their own, so that the time of a
real one is missing; with `--video FILE` they are that film's, found by OpenCV.
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
STUDENT = Path(audio_emotion.__file__).parent / "embedded" / "student"
DIFFERENT = 20  # clips; the others are copies of them under other names
SIDES = (320, 180)
RATE, SOUND_RATE = 25, 16000


def disc(seconds: float) -> np.ndarray:
    """A red face whose mouth opens and closes four times a second."""
    down, across = np.mgrid[: SIDES[1], : SIDES[0]]
    pixels = np.full((SIDES[1], SIDES[0], 3), 128, np.uint8)
    pixels[(across - 160) ** 2 + (down - 90) ** 2 <= 50**2] = (220, 40, 40)
    pixels[(abs(across - 160) <= 18) & (abs(down - 120) <= 4 + 4 * np.sin(8 * np.pi * seconds))] = (70, 10, 10)
    return pixels


def find_disc(pixels: np.ndarray) -> np.ndarray:
    """The box `(1, 4)` around what is red."""
    red = pixels[..., 0].astype(int) - pixels[..., 1] > 80
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    return np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], float)


def film(pictures: list[np.ndarray], sound: np.ndarray) -> bytes:
    """An mp4."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        seen, heard = container.add_stream("libx264", rate=RATE), container.add_stream("aac", rate=SOUND_RATE)
        seen.width, seen.height, seen.pix_fmt = *pictures[0].shape[1::-1], "yuv420p"
        heard.layout = "mono"
        for picture in pictures:
            container.mux(seen.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(seen.encode(None))
        samples = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        samples.sample_rate = SOUND_RATE
        cut = av.AudioResampler(format="fltp", layout="mono", rate=SOUND_RATE, frame_size=1024)
        for part in [*cut.resample(samples), *cut.resample(None)]:
            container.mux(heard.encode(part))
        container.mux(heard.encode(None))
    return file.getvalue()


def make_corpus(folder: Path, clips: int, seconds: float, video: str) -> None:
    """`clips` films and the description of their corpus."""
    random = np.random.default_rng(0)
    frames = [picture.pixels for picture in Video(video).pictures()] if video else []
    films = []
    for _ in range(DIFFERENT):
        times = random.uniform(0, 5) + np.arange(round(seconds * RATE)) / RATE
        pictures = [frames[round(t * RATE) % len(frames)] if frames else disc(t) for t in times]
        sound = random.uniform(-0.3, 0.3, round(seconds * SOUND_RATE)).astype(np.float32)
        films.append(film(pictures, sound))
    (folder / "clips").mkdir()
    for number in range(clips):
        (folder / "clips" / f"{number:06d}.mp4").write_bytes(films[number % DIFFERENT])
    told = {"name": "films", "license": "Apache-2.0", "citation": "Made by code.", "source": "audiofolder"}
    told |= {"path": "clips", "columns": {"audio": "file_name"}}
    (folder / "films.yaml").write_text(yaml.safe_dump(told))


def make_face_teacher(folder: Path) -> None:
    """A small vision transformer with random weights."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}
    names = {0: "happy", 1: "sad", 2: "angry", 3: "neutral"}
    ViTForImageClassification(ViTConfig(**sizes, image_size=64, id2label=names)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)


def worker(folder: Path, output: str, real: bool) -> None:
    """One process of a run, which writes down its memory twice a second."""
    torch.set_num_threads(1)
    stop = threading.Event()
    with (folder / f"memory-{Path(output).name}-{os.environ.get('RANK', '0')}.txt").open("a") as log:

        def watch() -> None:
            while not stop.wait(0.5):
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                log.write(f"{pages * os.sysconf('SC_PAGE_SIZE') / 2**20:.1f}\n")
                log.flush()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            recipe = runpy.run_path(str(ROOT / "recipes" / "pseudo_label.py"))
            arguments = recipe["PseudoLabelArguments"](
                output=output,
                corpus=str(folder / "films.yaml"),
                teachers=[f"speech:{STUDENT}", f"face:{folder / 'face'}"],
                shard_clips=25,
            )
            recipe["main"](arguments, None if real else find_disc)
        finally:
            stop.set()
            thread.join()


@contextmanager
def launched(folder: Path, output: Path, processes: int, real: bool) -> Iterator[subprocess.Popen]:
    """A run in a group of its own, which is killed at once on the way out, however that is taken."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command += [__file__, "--work_in", str(folder), "--output", str(output), *(["--video", "yes"] if real else [])]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("a") as log:
        run = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield run
    finally:
        with suppress(ProcessLookupError):  # it has ended
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


def label_all(folder: Path, output: Path, processes: int, real: bool) -> None:
    """Let a run end by itself."""
    with launched(folder, output, processes, real) as run:
        if run.wait():
            raise SystemExit((folder / "log.txt").read_text()[-3000:])


def digests(output: Path) -> dict[str, str]:
    """Of every shard."""
    files = sorted((output / "dataset" / "data").glob("*.parquet"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def memory(folder: Path, name: str) -> dict[str, float]:
    """Megabytes of the largest process: the most in the second quarter of the run, and in the last."""
    found = {"megabytes_early": 0.0, "megabytes_late": 0.0}
    for file in folder.glob(f"memory-{name}-*.txt"):
        told = [float(line) for line in file.read_text().split()]
        quarter = max(1, len(told) // 4)
        found["megabytes_early"] = max(found["megabytes_early"], *told[quarter : 2 * quarter + 1])
        found["megabytes_late"] = max(found["megabytes_late"], *told[-quarter:])
    return found


def main(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_corpus(folder, args.clips, args.seconds, args.video)
        make_face_teacher(folder / "face")
        real = bool(args.video)

        begin = time.monotonic()
        label_all(folder, folder / "whole", args.processes, real)
        took = time.monotonic() - begin
        whole = digests(folder / "whole")

        kills = 0
        for share in (1 / 3, 2 / 3):
            with launched(folder, folder / "killed", args.processes, real) as run:
                while run.poll() is None and len(digests(folder / "killed")) < share * len(whole):
                    time.sleep(0.05)
                kills += run.poll() is None
        label_all(folder, folder / "killed", args.processes, real)
        results = json.loads((folder / "whole" / "results.json").read_text())
        print(
            json.dumps(
                {
                    "clips": args.clips,
                    "seconds_each": args.seconds,
                    "processes": args.processes,
                    "detector": "OpenCV" if real else "none: colored discs",
                    "clips_with_face": results["spoken"]["face"]["clips"],
                    "seconds": round(took, 1),
                    "clips_per_second": round(args.clips / took, 2),
                    **memory(folder, "whole"),
                    "killed": kills,
                    "same_rows_after_kills": digests(folder / "killed") == whole,
                },
                indent=2,
            )
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1000, help="how many")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each")
    parser.add_argument("--processes", type=int, default=2, help="of a run")
    parser.add_argument("--video", default="", help="film of a face, 25 frames a second, for real faces")
    parser.add_argument("--work_in", help=argparse.SUPPRESS)  # this very file is what a process of a run executes
    parser.add_argument("--output", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work_in:
        worker(Path(given.work_in), given.output, bool(given.video))
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, which takes the runs along
        main(given)
