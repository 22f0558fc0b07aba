"""Speed and memory of `audio-emotion predict` over folders of short files.

    python benchmarks/command_line.py --counts 500 2000

Generates that many sounds of 0.3 to 1 s, runs the command on each folder in a separate process with the default model,
and prints files per second and peak resident memory as JSON Lines.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

# The child process prints its own peak memory; ru_maxrss is in kB on Linux, in bytes on macOS.
CHILD = """
import resource, sys
from audio_emotion_cli import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))
raise SystemExit(code)
"""


def make_folder(folder: Path, count: int) -> None:
    """Write `count` hums of 0.3 to 1 s, 200 in each folder."""
    random = np.random.default_rng(0)
    for number in range(count):
        seconds = np.arange(int(16000 * random.uniform(0.3, 1.0))) / 16000
        hum = 0.3 * np.sin(2 * np.pi * random.uniform(90, 250) * seconds) + random.normal(
            scale=0.01, size=len(seconds)
        )
        path = folder / f"{number // 200:05d}" / f"{number:07d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, hum.astype(np.float32), 16000)


def measure(folder: Path, count: int, batch_size: int) -> dict[str, float]:
    """Speed, loading included, and peak memory of one run."""
    output = folder.with_suffix(f".{batch_size}.jsonl")
    command = ["predict", str(folder), "--format", "json", "--output", str(output)]
    command += ["--batch-size", str(batch_size), "--device", "cpu"]
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", CHILD, *command], check=True, stdout=subprocess.PIPE, text=True)
    seconds = time.monotonic() - begin
    rows = sum(1 for _ in output.open())
    if rows != count:
        raise SystemExit(f"Expected {count} rows, got {rows}.")
    return {
        "files": count,
        "batch_size": batch_size,
        "files_per_second": round(count / seconds, 1),
        "seconds": round(seconds, 1),
        "peak_megabytes": round(float(done.stdout.split()[-1])),
    }


def main(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for count in args.counts:
            folder = Path(scratch) / f"files{count}"
            make_folder(folder, count)
            print(json.dumps(measure(folder, count, args.batch_size)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[500, 2000], help="how many files")
    parser.add_argument("--batch_size", type=int, default=16, help="clips at once")
    main(parser.parse_args())
