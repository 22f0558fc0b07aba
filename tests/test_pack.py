"""Packing keeps every clip and label unchanged, and leaves no incomplete file."""

from __future__ import annotations

import io
import json
import re
import runpy
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from audio_emotion.data.custom import load_custom_corpus
from audio_emotion.data.protocols import SPLITS
from audio_emotion.data.registry import apply_protocol, corpus_info, corpus_rows, corpus_table, shard_files
from audio_emotion.data.shards import read_shard, read_videos

COUNT = 40
PACK = runpy.run_path(str(Path(__file__).parents[1] / "recipes" / "pack.py"))


def pack(output: Path, **arguments) -> dict:
    arguments = {"corpus_count": COUNT, "shard_mb": 1, **arguments}
    return PACK["main"](PACK["PackArguments"](output=str(output), **arguments))


def rows_with_audio(corpus: str) -> list[dict]:
    """Rows of a packed corpus, their audio read from the shards."""
    shards = [list(read_shard(file)) for file in shard_files(corpus)]
    return [row | shards[row["shard"]][row["row"]] for row in corpus_table(corpus)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    pack(folder)
    return folder


@pytest.fixture
def own(tmp_path) -> Path:
    """Forty clips of twenty speakers in files."""
    for number in range(COUNT):
        samples = 0.1 * np.random.default_rng(number).standard_normal(12000)
        soundfile.write(tmp_path / f"{number:02d}.wav", samples, 24000, subtype="PCM_16")
    lines = [f"{number:02d}.wav,s{number % 20:02d}" for number in range(COUNT)]
    (tmp_path / "clips.csv").write_text("file,who\n" + "\n".join(lines) + "\n")
    description = {"name": "own", "license": "CC-BY-4.0", "citation": "Nobody 2026.", "source": "csv"}
    description |= {"path": "clips.csv", "columns": {"audio": "file", "speaker": "who"}}
    description |= {"splits": {"fractions": {"train": 0.8, "test": 0.2}}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(description))
    return tmp_path / "own.yaml"


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_a_packed_corpus_equals_its_source(packed, tmp_path, form):
    if form == "webdataset":  # from the parquet shards: packed twice
        pack(tmp_path / "tars", corpus=str(packed / "corpus.yaml"), format=form)
    corpus = str((packed if form == "parquet" else tmp_path / "tars") / "corpus.yaml")

    rows = rows_with_audio(corpus)
    for name in ("name", "license", "citation", "emotions", "dimensions", "dimensions_source"):
        assert getattr(corpus_info(corpus), name) == getattr(corpus_info("synthetic"), name)
    assert len(shard_files(corpus)) > 1
    for row, original in zip(rows, corpus_table("synthetic", count=COUNT), strict=True):
        assert row["audio"]["bytes"] == original["audio"]["bytes"]
        for name in ("id", "speaker", "gender", "emotion", "activation", "valence", "dominance", "probabilities"):
            assert row[name] == original[name]


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_clips_of_other_partitions_are_in_no_split_after_packing(own, tmp_path, form):
    splits_of = ["train", "train", "validation", "test"]
    parts = ["excluded" if number >= 36 else splits_of[number % 4] for number in range(COUNT)]
    lines = [f"{number:02d}.wav,s{number % 4},{part}" for number, part in enumerate(parts)]
    (own.parent / "clips.csv").write_text("file,who,part\n" + "\n".join(lines) + "\n")
    described = yaml.safe_load(own.read_text()) | {"splits": "partition"}
    described["columns"]["partition"] = "part"
    own.write_text(yaml.safe_dump(described))

    pack(tmp_path / "shards", corpus=str(own), format=form)

    for corpus in (str(own), str(tmp_path / "shards" / "corpus.yaml")):
        rows, _ = apply_protocol(corpus, corpus_table(corpus))
        assert sorted(set(rows["partition"])) == ["test", "train", "validation"], corpus
        assert len(rows) == 36


def test_a_packed_corpus_is_read_from_a_url(packed):
    class Ranges(BaseHTTPRequestHandler):
        """Parts of files, as the Hub and every storage service serve them."""

        def do_GET(self) -> None:
            content = (packed / self.path.lstrip("/")).read_bytes()
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            first, last = (int(asked[1]), min(int(asked[2]), len(content) - 1)) if asked else (0, len(content) - 1)
            self.send_response(206 if asked else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(last + 1 - first))
            if asked:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content[first : last + 1])

        do_HEAD = do_GET  # noqa: N815 (the server's own name)

        def log_message(self, *args) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        corpus = f"http://127.0.0.1:{server.server_port}/corpus.yaml"
        table = corpus_table(corpus)
        first = next(read_shard(shard_files(corpus)[0]))
    finally:
        server.shutdown()

    assert table["id"][:] == [row["id"] for row in corpus_rows("synthetic", count=COUNT)]
    assert first["audio"]["bytes"] == next(corpus_rows("synthetic", count=1))["audio"]["bytes"]


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_a_killed_run_resumes_and_writes_the_same_files(tmp_path, monkeypatch, form):
    bad = {"synthetic/0/000003"}
    load = PACK["load_clip"]

    def load_until(last: str | None):
        def load_clip(row, args):
            if row["id"] == last:
                raise KeyboardInterrupt
            if row["id"] in bad:
                raise ValueError("not a clip")
            return load(row, args)

        return load_clip

    monkeypatch.setitem(PACK["main"].__globals__, "load_clip", load_until(None))
    pack(tmp_path / "undisturbed", format=form)
    for last in ("synthetic/0/000002", "synthetic/0/000007", "synthetic/0/000030", "synthetic/0/000038"):
        monkeypatch.setitem(PACK["main"].__globals__, "load_clip", load_until(last))
        with pytest.raises(KeyboardInterrupt):
            pack(tmp_path / "killed", format=form)
        assert not (tmp_path / "killed" / "corpus.yaml").exists()
    shard = next(iter(sorted((tmp_path / "killed").glob("part-00000.*[tr]"))))
    written = shard.stat().st_mtime_ns
    monkeypatch.setitem(PACK["main"].__globals__, "load_clip", load_until(None))
    described = pack(tmp_path / "killed", format=form)

    assert shard.stat().st_mtime_ns == written  # not packed again
    assert (described["clips"], described["quarantined"]) == (COUNT - 1, 1)
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")
    assert pack(tmp_path / "killed", format=form) == described  # finished before
    with pytest.raises(ValueError, match="resample"):
        pack(tmp_path / "killed", format=form, resample=16000)


def test_bad_files_are_listed_and_too_many_stop_the_run(own):
    good = (own.parent / "05.wav").read_bytes()
    (own.parent / "05.wav").write_bytes(good[:600])
    (own.parent / "25.wav").write_bytes(b"")
    described = pack(own.parent / "packed", corpus=str(own), max_bad_fraction=0.05, shuffle=False)

    lines = [json.loads(line) for line in (own.parent / "packed" / "quarantine.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["own/05", "own/25"]
    assert "empty" in lines[1]["reason"]
    assert described["clips"] == COUNT - 2
    before = load_custom_corpus(str(own)).protocol()
    after = load_custom_corpus(str(own.parent / "packed" / "corpus.yaml")).protocol()  # both clips of s05 are gone
    for split in SPLITS:
        assert set(getattr(before, split)) - {"own/s05"} == set(getattr(after, split))

    (own.parent / "07.wav").write_bytes(b"no sound")
    with pytest.raises(ValueError, match=r"3 of 40 clips are bad.*own/25"):
        pack(own.parent / "again", corpus=str(own), shuffle=False)


def test_files_keep_their_bytes_unless_resampled(own):
    pack(own.parent / "whole", corpus=str(own))
    rows = rows_with_audio(str(own.parent / "whole" / "corpus.yaml"))
    assert all(row["audio"]["bytes"] == (own.parent / row["audio"]["path"]).read_bytes() for row in rows)

    pack(own.parent / "less", corpus=str(own), resample=16000, format="webdataset")
    audio = rows_with_audio(str(own.parent / "less" / "corpus.yaml"))[0]["audio"]
    facts = soundfile.info(io.BytesIO(audio["bytes"]))
    assert (facts.format, facts.subtype, facts.samplerate, facts.channels) == ("FLAC", "PCM_16", 16000, 1)
    assert facts.frames == 8000  # half a second


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_video_is_packed_on_request(own, monkeypatch, form):
    (own.parent / "video.mp4").write_bytes(b"moving pictures")
    video = {"bytes": None, "path": str(own.parent / "video.mp4")}

    def with_videos(*place):
        return ({**row, "video": video if row["id"] == "own/01" else None} for row in corpus_rows(*place))

    monkeypatch.setitem(PACK["main"].__globals__, "corpus_rows", with_videos)
    pack(own.parent / "videos", corpus=str(own), format=form, video=True, shuffle=False)
    corpus = str(own.parent / "videos" / "corpus.yaml")

    (file,) = shard_files(corpus)
    videos = [row["video"] and row["video"]["bytes"] for row in read_videos(file)]
    assert videos[:3] == [None, b"moving pictures", None]
    assert len(rows_with_audio(corpus)) == COUNT


def test_every_shard_holds_clips_of_many_speakers_and_every_clip_is_in_one(own):
    lines = [f"{number:02d}.wav,s{number // 3}" for number in range(12)]  # four speakers, one after another
    (own.parent / "clips.csv").write_text("file,who\n" + "\n".join(lines) + "\n")
    pack(own.parent / "shuffled", corpus=str(own), shard_mb=0)  # a shard a clip

    table = corpus_table(str(own.parent / "shuffled" / "corpus.yaml"))
    assert sorted(table["id"]) == [f"own/{number:02d}" for number in range(12)]
    assert len(set(table["speaker"][:4])) > 2
