"""Malformed audio, checkpoints and arguments give a named error or a flag, never a crash, a hang or a plain output."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import resource
import shutil
import signal
import struct
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import soundfile
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from test_audio_io import FFMPEG_FORMS, SOUNDFILE_FORMS, encoded_by_ffmpeg, without_length
from transformers import pipeline

from audio_emotion import AudioEmotionPipeline, EmotionFeatureExtractor
from audio_emotion.data.custom import load_custom_corpus
from audio_emotion.diarization import read_rttm
from audio_emotion.hub.checkpoint import write_checkpoint
from audio_emotion_cli import EXIT_ABORTED, EXIT_OK, EXIT_SOME_FAILED, EXIT_USAGE, main

CASES = {"audio": 900, "rttm": 60, "table": 60, "checkpoint": 60, "command": 40}
EVERY = 11  # every eleventh case is part of the fast tests
LIMIT = 20.0  # seconds a case
MOST_MEMORY = 2e9  # bytes that a case may add to the most that the process has used
Draw = np.random.Generator


class Hang(BaseException):
    """A timeout that no `except Exception` catches."""


@contextlib.contextmanager
def bounded(name: str) -> Iterator[None]:
    """Fail after LIMIT seconds, or with more than MOST_MEMORY."""

    def late(*_):
        raise Hang(f"{name}: no result within {LIMIT} s")

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most)
    assert grown < MOST_MEMORY, f"{name}: {grown / 1e9:.1f} GB"


def numbers_in(output: Any) -> list[float]:
    if isinstance(output, dict):
        return [number for item in output.values() for number in numbers_in(item)]
    if isinstance(output, list):
        return [number for item in output for number in numbers_in(item)]
    return [float(output)] if isinstance(output, (int, float)) else []


def encoded(samples: np.ndarray, form: str, subtype: str | None = None, rate: int = 16000) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, samples, rate, format=form, subtype=subtype)
    return content.getvalue()


def flipped(content: bytes, draw: Draw, first: int, last: int, count: int) -> bytes:
    changed = bytearray(content)
    for place in draw.integers(first, min(last, len(content)), size=count):
        changed[place] ^= 1 << int(draw.integers(8))
    return bytes(changed)


# --- audio: each maker gives an input, and whether an output without a flag can be right ---

FORMS = [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16")]
LOSSY = [("OGG", "VORBIS"), ("MP3", None)]
NO_AUDIO = [
    b"",
    b"\0" * 5000,
    b"RIFF",
    b"RIFF\xff\xff\xff\xffWAVE",
    b"fLaC" + b"\0" * 60,
    b"OggS" + b"\0" * 60,
    b"ID3" + b"\xff" * 600,
    b"\x89PNG\r\n\x1a\n" + b"\0" * 300,
    b"PK\x03\x04" + b"\0" * 300,
    b"<!DOCTYPE html><html><body>404</body></html>" * 20,
    b'{"error": "not found"}' * 30,
    "наушники".encode() * 100,
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 64044\n",
]


@cache
def in_container(number: int, gap: float = 0.0) -> bytes:
    """The synthetic speech of the fixture, or what is like it, in one of the containers that are read."""
    seconds = np.arange(32000) / 16000
    samples = 0.3 * np.sin(2 * np.pi * 150 * seconds) * np.sin(2 * np.pi * 2 * seconds)
    samples += np.random.default_rng(0).normal(scale=0.01, size=32000)
    if number < len(SOUNDFILE_FORMS):
        return encoded(samples, *SOUNDFILE_FORMS[number])
    return encoded_by_ffmpeg(*FFMPEG_FORMS[number - len(SOUNDFILE_FORMS)], samples, gap=gap)


CONTAINERS = len(SOUNDFILE_FORMS) + len(FFMPEG_FORMS)


def truncated(speech: np.ndarray, draw: Draw) -> tuple[Any, bool]:
    content = in_container(int(draw.integers(CONTAINERS)))
    size = int(len(content) * draw.uniform(0.01, 0.97))
    # A stream that is cut between two packets of MPEG-TS is a valid stream.
    return content[:size], content[:1] == b"G" and size % 188 == 0


def joined(speech: np.ndarray, draw: Draw) -> tuple[Any, bool]:
    number = int(draw.integers(CONTAINERS))
    return in_container(number) * int(draw.integers(2, 5)), True


def damaged(speech: np.ndarray, draw: Draw) -> tuple[Any, bool]:
    """A slice is removed, repeated, moved, or overwritten; a field of the header is made extreme."""
    content = in_container(int(draw.integers(CONTAINERS)))
    for _ in range(int(draw.integers(1, 4))):
        first, last = sorted(int(place) for place in draw.integers(0, min(len(content), 4000), size=2))
        middle = content[first:last]
        extreme = bytes([int(draw.choice([0, 1, 0x7F, 0x80, 0xFF]))])
        place = int(draw.integers(0, min(len(content), 300)))
        content = [
            content[:first] + content[last:],
            content[:last] + middle + content[last:],
            content[:first] + middle[::-1] + content[last:],
            content[:first] + draw.bytes(len(middle)) + content[last:],
            content[:place] + extreme * int(draw.integers(1, 9)) + content[place + 4 :],
            flipped(content, draw, 0, len(content), 20),
        ][draw.integers(6)]
    return content, True


def nested(speech: np.ndarray, draw: Draw) -> tuple[Any, bool]:
    """A file amid, before or behind another one."""
    outer, inner = (in_container(int(number)) for number in draw.integers(0, CONTAINERS, size=2))
    place = int(draw.choice([0, 12, 44, len(outer) // 2, len(outer)]))
    return outer[:place] + inner + outer[place:], True


SCRIPTS = [
    b"ffconcat version 1.0\nfile 'clip.wav'\n",
    b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n/etc/hostname\n#EXT-X-ENDLIST\n",
    b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 40000 RTP/AVP 0\n",
    b"-E\nNOW base\nbase: 440+10/20\n+99:00:02 off\noff: -\n",
    b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'/>",
    b"[playlist]\nFile1=http://127.0.0.1:1/x.wav\n",
    b";FFMETADATA1\ntitle=x\n",
    b"\xff\xfe" + "ffconcat version 1.0\nfile 'clip.wav'\n".encode("utf-16-le"),
]


def script(speech: np.ndarray, draw: Draw) -> tuple[Any, bool]:
    content = SCRIPTS[draw.integers(len(SCRIPTS))]
    return content + draw.bytes(int(draw.integers(0, 50))) * int(draw.integers(2)), False


def bomb(speech: np.ndarray, draw: Draw) -> tuple[Any, bool]:
    number = int(draw.integers(4))
    if number == 0:
        return giant_flac(speech, draw)
    if number == 1:
        return (silent_bomb(), {"max_duration": 600.0}), False
    if number == 2:
        webm = len(SOUNDFILE_FORMS) + [form for form, _ in FFMPEG_FORMS].index("webm")
        return in_container(webm, gap=float(draw.choice([20_000, 2_000_000]))), False
    return b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + draw.bytes(2000), False


@cache
def silent_bomb() -> bytes:
    """Five hours of silence in stereo that do not state their length: 0.3 MB for 0.9 GB."""
    return without_length(encoded(np.zeros((5 * 3600 * 1000, 2), np.float32), "FLAC", "PCM_16", rate=1000)) * 2


def flipped_in_header(speech: np.ndarray, draw: Draw) -> tuple[Any, bool]:
    forms = FORMS + LOSSY
    content = encoded(speech, *forms[draw.integers(len(forms))])
    return flipped(content, draw, 0, 64, int(draw.integers(1, 9))), True  # 16,001 Hz is a rate, too


def flipped_in_samples(speech: np.ndarray, draw: Draw) -> tuple[Any, bool]:
    forms = FORMS + LOSSY
    form, subtype = forms[draw.integers(len(forms))]
    content = encoded(speech, form, subtype)
    return flipped(content, draw, 200, len(content), int(draw.integers(5, 50))), form != "FLAC"  # has checksums


def wrong_header(speech: np.ndarray, draw: Draw) -> tuple[Any, bool]:
    content = bytearray(encoded(speech, "WAV", "PCM_16"))
    values = [
        ("<I", 40, 10 * len(content)),  # ten times the samples
        ("<I", 40, 0x7FFE0000),  # two gigabytes of them
        ("<H", 22, 0),  # channels
        ("<H", 22, 32),
        ("<H", 22, 1000),
        ("<H", 22, 65535),
        ("<I", 24, 0),  # hertz
        ("<I", 24, 1),
        ("<I", 24, 999),
        ("<I", 24, 2**31 - 1),
        ("<I", 24, 2**32 - 1),
        ("<H", 34, 0),  # bits a sample
        ("<H", 20, 0xFFFE),  # format
        ("<H", 20, 0x5555),
        ("<I", 16, 2**32 - 1),  # length of the chunk with the format
    ]
    form, place, value = values[draw.integers(len(values))]
    struct.pack_into(form, content, place, value)
    return bytes(content), value == 0x7FFE0000  # programs that write into a pipe claim as much


def giant_flac(speech: np.ndarray, draw: Draw) -> tuple[Any, bool]:
    content = bytearray(encoded(speech, "FLAC", "PCM_16"))
    content[21] |= 0x0F  # the 36 bits of the number of samples
    content[22:26] = bytes(draw.integers(200, 256, size=4, dtype=np.uint8))
    return bytes(content), False


def no_audio(speech: np.ndarray, draw: Draw) -> tuple[Any, bool]:
    number = int(draw.integers(len(NO_AUDIO) + 3))
    if number < len(NO_AUDIO):
        return NO_AUDIO[number], False
    return draw.bytes(int(draw.integers(1, 20000))), False


def junk_before(speech: np.ndarray, draw: Draw) -> tuple[Any, bool]:
    return draw.bytes(int(draw.integers(1, 3000))) + encoded(speech, "WAV"), True  # FFmpeg finds what is behind


def odd_path(speech: np.ndarray, draw: Draw) -> tuple[Any, bool]:
    folder = Path(tempfile.mkdtemp())
    (folder / "circle").symlink_to(folder / "circle")
    (folder / "dead").symlink_to(folder / "nowhere")
    (folder / "folder.wav").mkdir()
    os.mkfifo(folder / "pipe.wav")
    (folder / "empty.wav").touch()
    (folder / "locked.wav").write_bytes(b"text")
    (folder / "locked.wav").chmod(0)
    names = ["circle", "dead", "folder.wav", "pipe.wav", "empty.wav", "locked.wav", "nowhere.wav", "x" * 5000, "a\0b"]
    others = ["", ".", "/dev/zero", "/dev/null", "\ud800.wav", "ftp://x/y.wav", "file:///x.wav", "http://", "http://["]
    others += ["http://a b/c.wav", "https://127.0.0.1:1/x.wav", "http://127.0.0.1:99999/x.wav", "~/x.wav", "*"]
    choices = [str(folder / name) for name in names] + others
    return choices[draw.integers(len(choices))], False


def odd_array(speech: np.ndarray, draw: Draw) -> tuple[Any, bool]:
    holes = speech.copy()
    holes[draw.integers(len(holes), size=3)] = [np.nan, np.inf, -np.inf]
    arrays = [
        holes,
        np.full(16000, np.inf),
        speech.astype(np.float64) * 1e300,
        speech * 1e20,
        np.zeros(16000),
        np.zeros(0),
        np.zeros((0, 2)),
        np.zeros((2, 0)),
        np.float32(0.5),
        np.zeros((1, 1, 16000)),
        np.zeros((200, 200)),
        np.zeros((16000, 40)),
        np.zeros(100),
        np.ones(16000, dtype=bool),
        speech.astype(np.complex64),
        speech.astype(object),
        speech.astype(str),
        np.zeros(16000, dtype="datetime64[s]"),
        np.zeros(16000, dtype=[("left", "f4"), ("right", "f4")]),
        np.full(16000, np.iinfo(np.int64).min),
        np.array([[0.1, 0.2], [0.3]], dtype=object),
        [[0.1, 0.2], [0.3]],
        ["a"] * 16000,
        [None] * 16000,
        {"0": 1.0},
        torch.zeros(16000, device="meta"),
        torch.zeros(16000).to_sparse(),
        torch.full((16000,), float("nan"), requires_grad=True),
        torch.zeros(16000, dtype=torch.complex64),
        torch.nn.Linear(2, 2),
        "clip.wav",
        b"bytes",
    ]
    return {"array": arrays[draw.integers(len(arrays))], "sampling_rate": 16000}, False


def odd_rate(speech: np.ndarray, draw: Draw) -> tuple[Any, bool]:
    rates = [0, -16000, 1, 999, 1e12, math.nan, math.inf, "fast", None, [], {}, True, 16000j, np.zeros(2), object()]
    return {"array": speech, "sampling_rate": rates[draw.integers(len(rates))]}, False


def odd_object(speech: np.ndarray, draw: Draw) -> tuple[Any, bool]:
    def fall(*_):
        raise KeyError("fell")

    itself: dict = {}
    itself["audio"] = itself
    released = memoryview(encoded(speech, "WAV"))
    released.release()
    closed = io.BytesIO(b"x")
    closed.close()
    objects = [
        None,
        7,
        math.nan,
        speech,
        torch.zeros(16000),
        object(),
        {1, 2},
        range(5),
        lambda: speech,
        io.BytesIO,
        io.StringIO("text"),
        closed,
        released,
        itself,
        {},
        {"audio": None},
        {"audio": {"audio": {"audio": b""}}},
        {"audio": 5},
        {"bytes": 10**12},
        {"bytes": "RIFF"},
        {"bytes": [1, 2, 3]},
        {"path": 5},
        {"path": ["a"]},
        {"path": {"path": "a"}},
        {"array": speech},
        {"sampling_rate": 16000},
        {None: None},
        {"array": None, "bytes": None, "path": None, "audio": None},
        SimpleNamespace(read=fall),
        SimpleNamespace(read=lambda: None),
        SimpleNamespace(get_all_samples=fall),
        SimpleNamespace(get_all_samples=lambda: None),
        SimpleNamespace(get_all_samples=lambda: SimpleNamespace(data=None, sample_rate=None)),
    ]
    return objects[draw.integers(len(objects))], False


ODD_PARAMETERS = {
    "top_k": [0, -1, "all", 1.5, math.inf, math.nan, [1], True],
    "scale": [(7, 1), 5, (1,), (0, math.inf), (math.nan, 1), ("a", "b"), {}, "07"],
    "window": [0, -1, math.nan, math.inf, "long", [1.0], 0.2],
    "hop": [0, -1, 1e-9, math.nan, "often"],
    "batch_size": [0, -1, "many", 1.5, math.nan],
    "on_error": ["ignore", None, 5, []],
    "max_duration": [0, -1, math.nan, math.inf, "long", [1.0]],
    "segments": [5, "nowhere.rttm", "/", [5], [{}], [{"start": 1, "end": math.inf, "speaker": "a"}], [[]], {"a": 1}],
}


def odd_parameter(speech: np.ndarray, draw: Draw) -> tuple[Any, bool]:
    name = sorted(ODD_PARAMETERS)[draw.integers(len(ODD_PARAMETERS))]
    values = ODD_PARAMETERS[name]
    more = {"window": 1.0} if name == "hop" else {}
    return ({"array": speech, "sampling_rate": 16000}, {name: values[draw.integers(len(values))], **more}), False


AUDIO_MAKERS: list[tuple[Callable[[np.ndarray, Draw], tuple[Any, bool]], int]] = [
    (truncated, 12),
    (joined, 5),
    (damaged, 10),
    (nested, 4),
    (script, 3),
    (bomb, 2),
    (flipped_in_header, 5),
    (flipped_in_samples, 4),
    (wrong_header, 4),
    (giant_flac, 1),
    (no_audio, 4),
    (junk_before, 1),
    (odd_path, 5),
    (odd_array, 6),
    (odd_rate, 3),
    (odd_object, 6),
    (odd_parameter, 6),
]
AUDIO_CASES = [maker for maker, weight in AUDIO_MAKERS for _ in range(weight)]


def try_audio(number: int, pipe: AudioEmotionPipeline, speech: np.ndarray, folder: Path) -> None:
    draw = np.random.default_rng(number)
    maker = AUDIO_CASES[number % len(AUDIO_CASES)]
    given, may_be_valid = maker(speech, draw)
    parameters: dict = {}
    if isinstance(given, tuple):
        given, parameters = given
    name = f"{maker.__name__} {number}: {parameters or repr(given)[:200]}"
    if isinstance(given, bytes) and draw.random() < 0.5:  # as a file with any suffix
        path = folder / f"clip.{draw.choice(['wav', 'mp3', 'flac', 'txt'])}"
        path.write_bytes(given)
        given = str(path)
    with bounded(name):
        try:
            output = pipe(given, **parameters)
        except (ValueError, OSError):
            output = None
        if output is not None:
            assert all(map(math.isfinite, numbers_in(output))), name
            assert may_be_valid or output["flags"], f"{name}: an output without a flag, {output}"
            assert maker is not truncated or may_be_valid or "truncated" in output["flags"], f"{name}: {output}"
            assert maker is not joined or output["duration"] > 3.7, f"{name}: {output}"
        if not parameters and not isinstance(given, SimpleNamespace):
            again = pipe([given], on_error="skip")[0]
            assert ("error" in again) == (output is None) or hasattr(given, "read"), name


# --- text: speaker segments, and the table of a described corpus ---

RTTM = b"SPEAKER call 1 0.00 1.50 <NA> <NA> ann <NA> <NA>\nSPEAKER call 1 1.50 0.50 <NA> <NA> bob <NA> <NA>\n" * 3
TABLE = b"file,emotion,speaker,activation\n" + b"".join(
    f"clips/{number}.wav,{'sad' if number % 2 else 'happy'},speaker {number},{number % 7 + 1}\n".encode()
    for number in range(8)
)
DESCRIPTION = """name: calls
license: CC0-1.0
citation: none
source: csv
path: clips.csv
columns: {audio: file, emotion: emotion, speaker: speaker, activation: activation}
scale: [1, 7]
emotions: [happy, sad]
dimensions: [activation]
dimensions_source: rated
"""


def damaged_text(content: bytes, draw: Draw) -> bytes:
    places = sorted(int(place) for place in draw.integers(0, len(content), size=2))
    words = [b"", b"\0", b"\xff", b'"', b"\n", b"\r", b"\t", b";", b",", b"1e999", b"-1", b"nan", b"x" * 5000]
    return [
        content[: places[0]],
        content[: places[0]] + words[draw.integers(len(words))] + content[places[1] :],
        content[: places[0]] + words[draw.integers(len(words))] + content[places[0] :],
        content.replace(b",", b";").replace(b" ", b"\t"),
        b"\xef\xbb\xbf" + content,
        content.decode().encode("utf-16"),
        content.decode().replace("a", "ä").encode("cp1252"),
        flipped(content, draw, 0, len(content), 10),
        draw.bytes(len(content)),
        b"",
    ][draw.integers(10)]


def try_rttm(number: int, folder: Path) -> None:
    path = folder / f"{number}.rttm"
    path.write_bytes(damaged_text(RTTM, np.random.default_rng(3000 + number)))
    with bounded(f"rttm {number}"), contextlib.suppress(ValueError, OSError):
        for segments in read_rttm(path).values():
            assert all(0 <= each["start"] < each["end"] < math.inf for each in segments)


def try_table(number: int, folder: Path) -> None:
    draw = np.random.default_rng(4000 + number)
    changes_table = draw.random() < 0.6
    (folder / "clips").mkdir(exist_ok=True)
    for clip in range(8):
        (folder / "clips" / f"{clip}.wav").write_bytes(in_container(0))
    (folder / "clips.csv").write_bytes(damaged_text(TABLE, draw) if changes_table else TABLE)
    description = DESCRIPTION.encode()
    (folder / "calls.yaml").write_bytes(description if changes_table else damaged_text(description, draw))
    with bounded(f"table {number}"), contextlib.suppress(ValueError, OSError):
        for row in load_custom_corpus(str(folder / "calls.yaml")).rows():
            assert row["activation"] is None or 0 <= row["activation"] <= 1


# --- checkpoints: each maker corrupts a folder, and returns whether it may still load ---

JUNK: list[Any] = [None, -1, 0, 1.5, "junk", "", [], {}, [None], {"a": [1]}, True, 10**9, -(10**30), "../../etc"]


def change_config(folder: Path, draw: Draw) -> bool:
    config = json.loads((folder / "config.json").read_text())
    field = sorted(config)[draw.integers(len(config))]
    if draw.random() < 0.2:
        del config[field]
    else:
        config[field] = JUNK[draw.integers(len(JUNK))]
    (folder / "config.json").write_text(json.dumps(config))
    return True  # a license or a dropout rate may be anything: then the output must be the same


def break_json(folder: Path, draw: Draw) -> bool:
    path = folder / ["config.json", "preprocessor_config.json"][draw.integers(2)]
    content = path.read_bytes()
    texts = [b"", b"{", b"[]", b"null", b"5", b'"text"', b"\xff\xfe", content[: len(content) // 2], b"{" * 5000]
    path.write_bytes(texts[draw.integers(len(texts))])
    return False


def break_weights(folder: Path, draw: Draw) -> bool:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    contents = [
        b"",
        b"\0" * 100,
        content[: draw.integers(len(content) // 2)],
        content[:-1],
        content + b"more",
        struct.pack("<Q", 2**63) + content[8:],
        struct.pack("<Q", length - 1) + content[8:],
        flipped(content, draw, 0, length, 3),
        draw.bytes(2000),
        b"PK\x03\x04" + content,
    ]
    path.write_bytes(contents[draw.integers(len(contents))])
    return True  # a flipped bit may be in a blank of the header


def change_tensors(folder: Path, draw: Draw) -> bool:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = sorted(name for name in tensors if "log_mel" not in name)[draw.integers(len(tensors) - 4)]
    tensor = tensors.pop(name)
    way = draw.integers(5)
    if way == 1:
        tensors[name] = torch.full_like(tensor, float("nan"))
    elif way == 2:
        tensors[name] = torch.cat([tensor, tensor])
    elif way == 3:
        tensors[name] = tensor.reshape(1, -1)
    elif way == 4:
        tensors[f"{name}s"] = tensor
    save_file(tensors, path, metadata={"format": "pt"})
    return False


def take_away(folder: Path, draw: Draw) -> bool:
    names = ["config.json", "model.safetensors", "preprocessor_config.json"]
    path = folder / names[draw.integers(3)]
    path.unlink()
    if draw.random() < 0.5:
        path.mkdir()
    elif path.suffix == ".safetensors":
        torch.save({"a": torch.ones(1)}, folder / "pytorch_model.bin")
    return False


def change_front_end(folder: Path, draw: Draw) -> bool:
    path = folder / "preprocessor_config.json"
    config = json.loads(path.read_text())
    field = ["sampling_rate", "padding_value", "feature_size", "feature_extractor_type", "padding_side"][
        draw.integers(5)
    ]
    values = [8000, 0, -1, None, "fast", [], {}, 48000.5]
    config[field] = values[draw.integers(len(values))]
    path.write_text(json.dumps(config))
    return field != "sampling_rate"


CHECKPOINT_MAKERS = [change_config] * 4 + [break_json, break_weights, break_weights, change_tensors, change_tensors]
CHECKPOINT_MAKERS += [take_away, change_front_end]


def try_checkpoint(number: int, good: Path, speech: np.ndarray, folder: Path) -> None:
    draw = np.random.default_rng(1000 + number)
    maker = CHECKPOINT_MAKERS[number % len(CHECKPOINT_MAKERS)]
    bad = folder / f"checkpoint-{number}"
    shutil.copytree(good, bad)
    may_be_valid = maker(bad, draw)
    name = f"{maker.__name__} {number}"
    clip = {"array": speech, "sampling_rate": 16000}
    with bounded(name):
        try:
            output = pipeline("audio-emotion", model=str(bad), device="cpu")(clip)
        except (ValueError, OSError, StrictDataclassError):
            output = None
        except (TypeError, AttributeError) as error:
            # The Auto classes fail on JSON of another kind before they call code of this package.
            last = traceback.extract_tb(error.__traceback__)[-1].filename
            assert Path(last).is_relative_to(Path(transformers.__file__).parent), name
            output = None
        if output is not None:
            assert may_be_valid, f"{name}: an output, {output}"
            expected = pipeline("audio-emotion", model=str(good), device="cpu")(clip)
            np.testing.assert_allclose(numbers_in(output), numbers_in(expected), atol=1e-6, err_msg=name)
        with contextlib.redirect_stderr(io.StringIO()) as printed:
            code = main(["info", str(bad)])
        assert code in (EXIT_OK, EXIT_USAGE), f"{name}: {printed.getvalue()}"
        assert "Traceback" not in printed.getvalue(), name


# --- command line ---

ODD_ARGUMENTS = [
    "",
    "-",
    "--",
    "nowhere",
    "\0",
    "\ud800",
    "nan",
    "inf",
    "-1",
    "0",
    "1e309",
    "x" * 5000,
    "*",
    "%s",
    "{}",
]
OPTIONS = ["--format", "--output", "--plot", "--top-k", "--scale", "--window", "--hop", "--batch-size", "--device"]
OPTIONS += ["--model", "--revision", "--repo", "--type", "--branch", "--nonsense", "--help"]
# Options of `predict`, with values of which argparse lets most pass.
NEARLY = {
    "--top-k": ["1", "1000000", "0"],
    "--scale": ["1 7", "7 1", "nan 1", "0 inf", "-1 1"],
    "--window": ["0.5", "0", "nan", "inf", "1e-9", "1e9"],
    "--hop": ["0.5", "0", "1e-9"],
    "--batch-size": ["1", "3", "10000000"],
    "--device": ["cpu", "toaster", "cuda:99", "-7", ""],
    "--output": ["{folder}/out", "{clips}", "/dev/full", "{folder}/no/where", "{clips}/good.wav", "a\0b"],
    "--plot": ["{folder}/a.png", "{folder}/a.docx", "{folder}/a", "{clips}", "a\0b"],
    "--revision": ["main", "../..", ""],
}


def try_command(number: int, good: Path, speech: np.ndarray, folder: Path) -> None:
    draw = np.random.default_rng(2000 + number)
    clips = folder / f"clips-{number}"
    clips.mkdir()
    soundfile.write(clips / "good.wav", speech, 16000)
    (clips / "bad.wav").write_bytes(NO_AUDIO[draw.integers(len(NO_AUDIO))])
    paths = [str(clips), str(clips / "bad.wav"), str(good), str(folder)]

    def word() -> str:
        words = paths if draw.random() < 0.4 else ODD_ARGUMENTS
        return str(words[draw.integers(len(words))])

    command = ["predict", "predict", "predict", "predict", "info", "compare", "publish", "sing"][draw.integers(8)]
    if draw.random() < 0.3:  # random words
        options = [str(OPTIONS[draw.integers(len(OPTIONS))]) for _ in range(3)]
        arguments = [command, word(), *(each for option in options for each in (option, word()))]
    else:  # an almost valid command
        inputs = [word() if draw.random() < 0.5 else str(clips) for _ in range(1 if command == "info" else 2)]
        arguments = [command, *inputs[: 1 if command in ("info", "publish") else 2]]
        arguments += ["--repo", word()] * (command == "publish")
        arguments += ["--model", str(good) if draw.random() < 0.8 else word()] * (command in ("predict", "compare"))
        arguments += ["--format", "json"] * (command != "publish")
        if command == "predict":
            for option in draw.choice(sorted(NEARLY), size=2, replace=False):
                values = NEARLY[option]
                arguments += [
                    option,
                    *values[draw.integers(len(values))].format(folder=folder, clips=clips).split(" "),
                ]
    printed = io.StringIO()
    with bounded(str(arguments)), contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(arguments)
        except SystemExit as end:  # argparse
            code = end.code
    assert code in (EXIT_OK, EXIT_SOME_FAILED, EXIT_USAGE, EXIT_ABORTED), (arguments, code)
    assert "Traceback" not in printed.getvalue(), (arguments, printed.getvalue())
    assert code in (EXIT_OK, EXIT_SOME_FAILED) or printed.getvalue().strip(), arguments


@dataclass
class Bench:
    """The inputs that the cases are derived from."""

    pipe: AudioEmotionPipeline
    good: Path
    speech: np.ndarray
    folder: Path

    def attempt(self, kind: str, number: int) -> None:
        if kind == "audio":
            try_audio(number, self.pipe, self.speech, self.folder)
        elif kind in ("rttm", "table"):
            (try_rttm if kind == "rttm" else try_table)(number, self.folder)
        else:
            attempt = try_checkpoint if kind == "checkpoint" else try_command
            attempt(number, self.good, self.speech, self.folder)


@pytest.fixture
def bench(tiny_student, speech, tmp_path, monkeypatch) -> Bench:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # "nan" might be a Hub id
    pipe = AudioEmotionPipeline(
        model=tiny_student, feature_extractor=EmotionFeatureExtractor(), task="audio-emotion", device="cpu"
    )
    return Bench(pipe, write_checkpoint(tiny_student, tmp_path / "good"), speech, tmp_path)


@pytest.mark.parametrize("kind", CASES)
def test_every_eleventh_malformed_input_is_refused_or_flagged(kind, bench):
    for number in range(0, CASES[kind], EVERY):
        bench.attempt(kind, number)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "number"), [(kind, number) for kind, count in CASES.items() for number in range(count)]
)
def test_a_malformed_input_is_refused_or_flagged(kind, number, bench):
    bench.attempt(kind, number)
