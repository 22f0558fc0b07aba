"""Load on `audio-emotion serve`: many clients at once on loopback, two of them hostile.

    python benchmarks/serve.py --seconds 60

Starts the server in a process of its own. Clients send clips whose predictions are known, one after another, over HTTP
and over WebSocket, and send a refused clip again. One hostile client uploads without end, up to 10 GB at a time;
the other opens connections that send half of their headers, or half of an upload. Prints as JSON: answers, wrong and
lost ones, refusals, latency of an answer in milliseconds (the clients share the machine with the server), the
server's CPU time per answer, and its resident memory before and at most. With `--output results/serve.json`, the
table of docs/deployment.md is rendered from it.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

import audio_emotion
from audio_emotion_cli.inputs import load_recognizer

PAGE = Path(__file__).parents[1] / "docs" / "deployment.md"
RATE = 16_000
CLIPS = 20
UPLOAD = 10 * 10**9  # bytes
HALF_OPEN = 100  # connections at a time
HALVES = (
    b"",
    b"POST /predict HTTP/1.1\r\nHost: x\r\n",
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nx",
)


class Load:
    """Clients of one server, and what they count."""

    def __init__(self, address: tuple[str, int], seconds: float, model: str | None):
        self.address, self.end = address, time.monotonic() + seconds
        self.counts: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.lock = threading.Lock()
        random = np.random.default_rng(0)
        recognizer = load_recognizer(model, None, None)
        speech, _ = soundfile.read(
            f"{audio_emotion.__path__[0]}/embedded/speech/sense_and_sensibility.flac", dtype="int16"
        )
        self.files, self.samples, self.expected, self.streamed = [], [], [], []
        for _ in range(CLIPS):
            start, length = random.integers(0, len(speech) // 2), random.integers(RATE, 2.5 * RATE)
            samples = speech[start : start + length]
            file = io.BytesIO()
            soundfile.write(file, samples, RATE, format="WAV")
            live = recognizer.stream()
            live.feed(samples)
            self.files.append(file.getvalue())
            self.samples.append(samples)
            self.expected.append(recognizer(file.getvalue())["dimensions"])
            self.streamed.append(live.result()["dimensions"])

    def count(self, name: str) -> None:
        """Add one."""
        with self.lock:
            self.counts[name] += 1

    def check(self, found: dict, expected: dict, begin: float) -> None:
        """Compare an answer with the prediction that is known."""
        right = all(abs(found["dimensions"][name] - each) < 1e-3 for name, each in expected.items())
        with self.lock:
            self.counts["right" if right else "wrong"] += 1
            self.latencies.append(time.monotonic() - begin)

    def upload(self, number: int) -> None:
        """Send files one after another on one connection, and refused ones again."""
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        while time.monotonic() < self.end:
            number = (number + 1) % CLIPS
            begin = time.monotonic()
            try:
                connection.request("POST", "/predict", self.files[number], {"Content-Type": "audio/wav"})
                response = connection.getresponse()
                content = json.loads(response.read())
            except (OSError, http.client.HTTPException, ValueError):
                self.count("lost")
                connection.close()
                continue
            if response.status == 503:
                self.count("refused")
                time.sleep(float(response.headers["Retry-After"]))
            elif response.status == 200:
                self.check(content, self.expected[number], begin)
            else:
                self.count("lost")

    def stream(self, number: int) -> None:
        """Send the samples of clips in parts of 20 ms, as fast as they are taken."""
        address = f"ws://{self.address[0]}:{self.address[1]}/stream?interval=60"
        while time.monotonic() < self.end:
            number = (number + 1) % CLIPS
            content = self.samples[number].tobytes()
            try:
                with connect(address, open_timeout=60) as stream:
                    for start in range(0, len(content), RATE // 25):
                        stream.send(content[start : start + RATE // 25])
                    begin = time.monotonic()
                    stream.send("end")
                    self.check(json.loads(stream.recv(timeout=60)), self.streamed[number], begin)
            except (OSError, WebSocketException, KeyError):
                self.count("lost")

    def endless(self) -> None:
        """Upload 10 GB, its length stated or not, until refused; again and again."""
        part = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        stated = False
        while time.monotonic() < self.end:
            stated = not stated
            length = f"Content-Length: {UPLOAD}" if stated else "Transfer-Encoding: chunked"
            with suppress(OSError), socket.create_connection(self.address, timeout=5) as connection:
                connection.sendall(f"POST /predict HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n".encode())
                sent = 0
                while sent < UPLOAD and time.monotonic() < self.end:
                    connection.sendall(part)
                    sent += len(part)
            self.count("endless uploads")
            time.sleep(0.05)

    def half_open(self) -> None:
        """Hold connections that stop in the middle."""
        held: list[socket.socket] = []
        number = 0
        while time.monotonic() < self.end:
            number += 1
            with suppress(OSError):
                held.append(socket.create_connection(self.address, timeout=5))
                held[-1].sendall(HALVES[number % len(HALVES)])
                self.count("half-open connections")
            if len(held) > HALF_OPEN:
                held.pop(0)
            time.sleep(0.02)

    def run(self, clients: int, process: psutil.Process) -> dict[str, Any]:
        """Run all clients, and describe what happened."""
        jobs = [self.endless, self.half_open]
        kinds = (self.upload, self.upload, self.upload, self.stream)
        jobs += [lambda n=n: kinds[n % len(kinds)](n) for n in range(clients - len(jobs))]
        threads = [threading.Thread(target=job) for job in jobs]
        before, cpu = process.memory_info().rss, sum(process.cpu_times()[:2])
        most = before
        for each in threads:
            each.start()
        while any(each.is_alive() for each in threads):
            most = max(most, process.memory_info().rss)
            time.sleep(0.1)
        cpu = sum(process.cpu_times()[:2]) - cpu
        at_50, at_95 = np.quantile(self.latencies, [0.5, 0.95])
        return {
            "clients": clients,
            **{name: self.counts[name] for name in ("right", "wrong", "lost", "refused")},
            **{name.replace(" ", "_"): self.counts[name] for name in ("endless uploads", "half-open connections")},
            "milliseconds_median": round(1000 * at_50, 1),
            "milliseconds_95": round(1000 * at_95, 1),
            "server_cpu_milliseconds_per_answer": round(1000 * cpu / max(self.counts["right"], 1), 2),
            "megabytes_before": round(before / 2**20),
            "megabytes_most": round(most / 2**20),
        }


def main(args: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "audio_emotion_cli", "serve", "--port", "0"]
    command += ["--model", args.model] if args.model else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            first = server.stdout.readline()
            port = int(re.search(r":(\d+)\. ", first)[1])
            load = Load(("127.0.0.1", port), args.seconds, args.model)
            load.end = time.monotonic() + args.seconds
            results = {"seconds": args.seconds, "server": first.split(" on ")[0].strip()}
            results |= load.run(args.clients, psutil.Process(server.pid))
        finally:
            server.terminate()
    print(json.dumps(results, indent=2))
    if args.output:
        Path(args.output).write_text(json.dumps(results, indent=1) + "\n")
        PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


def table(results: dict[str, Any]) -> str:
    """The table of the page, in Markdown."""
    names = {
        "seconds": "seconds",
        "clients": "clients, two of them hostile",
        "right": "right answers",
        "wrong": "wrong answers",
        "lost": "lost answers",
        "endless_uploads": "uploads without end, refused",
        "half-open_connections": "half-open connections, closed",
        "milliseconds_median": "median latency, ms, with all clients on the same two cores",
        "milliseconds_95": "95th percentile of latency, ms",
        "server_cpu_milliseconds_per_answer": "CPU time of the server per right answer, ms",
        "megabytes_before": "resident memory before, MB",
        "megabytes_most": "largest resident memory, MB",
    }
    rows = [f"| {text} | {results[name]:,} |" for name, text in names.items()]
    return "\n".join([f"| {results['server']} | |", "| --- | --- |", *rows])


def render(page: str, results: dict[str, Any]) -> str:
    """The page with the table between its two marks."""
    marks = r"(<!-- serve:begin -->\n).*?(<!-- serve:end -->)"
    return re.sub(marks, lambda found: f"{found[1]}{table(results)}\n{found[2]}", page, flags=re.DOTALL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of the load")
    parser.add_argument("--clients", type=int, default=32, help="clients at once, two of them hostile")
    parser.add_argument("--model", help="a folder (default: the model in this package)")
    parser.add_argument("--output", help="file of the results; the page is then rendered from them")
    main(parser.parse_args())
