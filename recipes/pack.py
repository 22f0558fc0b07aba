"""Pack a corpus into shards that stream from disk or the Hub: parquet files or WebDataset tars, and a description.

    python recipes/pack.py --corpus ravdess --output runs/packed/ravdess

The folder is then a corpus itself: `--corpus runs/packed/ravdess/corpus.yaml`. Clips that cannot be decoded are left
out and stand in `quarantine.jsonl` with the reason. A killed run goes on with the next shard when started again with
the same command. The recordings keep their terms: packing does not permit publishing them.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import yaml
from huggingface_hub.dataclasses import strict
from tqdm.auto import tqdm

from audio_emotion.audio_io import read_audio
from audio_emotion.data.custom import describe, described_split
from audio_emotion.data.dataset import TooManyBadClipsError
from audio_emotion.data.registry import corpus_info, corpus_rows, corpus_table, features, shard_files
from audio_emotion.data.shards import TAR_AUDIO, TAR_VIDEO, read_labels, read_shard, write_atomically
from audio_emotion.training.arguments import parse_arguments

ROW_GROUP = 16_000_000  # bytes of audio that a reader of parquet has to hold at least
FILES = ("audio", "video")
PLACE = ("shard", "row")


@strict
@dataclass(kw_only=True)
class PackArguments:
    """What one run needs."""

    output: str = field(default="runs/packed", metadata={"help": "Folder of the shards and their corpus.yaml."})
    corpus: str = field(default="synthetic", metadata={"help": "Corpus by name, or the .yaml that describes it."})
    corpus_path: str = field(default="", metadata={"help": "Its folder; else $AUDIO_EMOTION_DATA/<corpus>."})
    corpus_count: int = field(default=600, metadata={"help": "Clips of the synthetic corpus."})
    format: str = field(default="parquet", metadata={"help": "parquet or webdataset."})
    shard_mb: int = field(default=256, metadata={"help": "Megabytes of audio in a shard."})
    resample: int = field(default=0, metadata={"help": "Hertz of mono 16-bit FLAC to convert to; 0: bytes untouched."})
    shuffle: bool = field(default=True, metadata={"help": "Deal the files of a corpus to the shards at random."})
    video: bool = field(default=False, metadata={"help": "Pack video beside the audio, where the corpus has it."})
    max_bad_fraction: float = field(default=0.05, metadata={"help": "More undecodable clips than this stop the run."})


def main(args: PackArguments) -> dict:
    """Pack every clip; returns what stands in `corpus.yaml`."""
    if args.format not in ("parquet", "webdataset"):
        raise ValueError(f"Expected `format` parquet or webdataset, got {args.format!r}.")
    folder, info = Path(args.output), corpus_info(args.corpus)
    folder.mkdir(parents=True, exist_ok=True)
    asked = {key: value for key, value in asdict(args).items() if key not in ("output", "max_bad_fraction")}
    done = take_up(folder, asked)
    if "clips" in done and (folder / "corpus.yaml").is_file():
        print(f"Finished before: {folder / 'corpus.yaml'}")
        return done

    place = (args.corpus, args.corpus_path or None, args.corpus_count)
    total = args.corpus_count if args.corpus == "synthetic" else sum(1 for _ in corpus_rows(*place))
    columns = features(info.dimensions)
    schema = {name: kind for name, kind in columns.items() if name not in PLACE and (name != "video" or args.video)}
    suffix, kind = (".parquet", ParquetShard) if args.format == "parquet" else (".tar", TarShard)
    shard = None
    with (folder / "quarantine.jsonl").open("a") as quarantine:
        for row in tqdm(encoded(args, done["rows"]), total=total, initial=done["rows"], unit="clip"):
            try:
                packed = checked(row, args)
            except ValueError as error:
                quarantine.write(json.dumps({"id": row["id"], "reason": str(error)}) + "\n")
                quarantine.flush()
                done["bad"] += 1
                if done["bad"] > args.max_bad_fraction * total:
                    raise TooManyBadClipsError(
                        f"{done['bad']} of {total} clips are bad, more than {args.max_bad_fraction:.0%}. The last one is "
                        f"{row['id']}: {error} All stand in `{folder / 'quarantine.jsonl'}`. Repair them or take them "
                        "out of the corpus, or allow a larger share with `--max_bad_fraction`."
                    ) from error
                packed = None
            done["rows"] += 1
            if packed is not None:
                if shard is None:
                    shard = kind(folder, done["shards"], features_of(columns, schema))
                shard.add({name: packed[name] for name in schema})
            if shard is not None and shard.size >= args.shard_mb * 1e6:
                shard.close()
                shard = None
                done["shards"] += 1
                write_atomically(folder / "progress.json", json.dumps({"asked": asked, **done}))
    if shard is not None:
        shard.close()
        done["shards"] += 1
    if not done["shards"]:
        raise ValueError(f"Expected clips in the corpus `{args.corpus}`, got none that can be packed.")

    shards = [f"part-{number:05d}{suffix}" for number in range(done["shards"])]
    if args.format == "webdataset":
        merge_labels(folder, done["shards"])
    described = describe_pack(args, folder, shards, done, asked)
    (folder / "progress.json").unlink(missing_ok=True)
    print(f"{described['clips']} clips in {len(shards)} shards, {done['bad']} left out: {folder / 'corpus.yaml'}")
    return described


def take_up(folder: Path, asked: dict) -> dict:
    """What an earlier run with the same arguments has done; its quarantine is cut to what the shards stand for."""
    done = {"shards": 0, "rows": 0, "bad": 0}
    before = asked
    if (folder / "corpus.yaml").is_file():
        done = yaml.safe_load((folder / "corpus.yaml").read_text())
        before = done.get("packed_from")
    elif (folder / "progress.json").is_file():
        done = json.loads((folder / "progress.json").read_text())
        before = done.pop("asked")
    if before != asked:
        raise ValueError(
            f"Expected `{folder}` to be empty or packed from {asked}, got what was packed from {before}. Choose "
            "another `--output`, or remove the folder."
        )
    if "clips" not in done and (folder / "quarantine.jsonl").is_file():
        lines = (folder / "quarantine.jsonl").read_text().splitlines(keepends=True)
        write_atomically(folder / "quarantine.jsonl", "".join(lines[: done["bad"]]))
    return done


def encoded(args: PackArguments, first: int) -> Iterator[dict]:
    """Rows from the `first` on; those whose audio lies in shards get its bytes, a shard read once from its begin."""
    files = shard_files(args.corpus, args.corpus_path or None)
    if files and args.video:
        raise ValueError("Expected a corpus of single files for `--video`, got one in shards. Pack from its files.")
    rows = corpus_rows(args.corpus, args.corpus_path or None, args.corpus_count)
    if args.shuffle and (row := next(rows, None)) is not None:
        rows = itertools.chain([row], rows)
        if row["audio"]["path"] is not None:
            # A batch comes from one shard: it must not be one speaker's. A table of paths is small, also of millions.
            table = corpus_table(args.corpus, args.corpus_path or None)
            rows = (table[int(index)] for index in np.random.default_rng(0).permutation(len(table)))
    open_shard, position, clips = None, 0, iter(())
    for row in itertools.islice(rows, first, None):
        if row["shard"] is not None:
            if row["shard"] != open_shard:
                open_shard, position, clips = row["shard"], 0, read_shard(files[row["shard"]])
            row["audio"] = next(itertools.islice(clips, row["row"] - position, None))["audio"]
            position = row["row"] + 1
        yield row


def checked(row: dict, args: PackArguments) -> dict:
    """The row with its files' bytes, once its audio has been decoded.

    Raises:
        ValueError: for a clip that is no audio, shorter than 0.25 s, or not finite; for video that is not there.
    """
    name = row["id"].rsplit("/", 1)[-1]
    audio = whole_file(row["audio"], name)
    clip = read_audio({**audio, "path": row["audio"]["path"] or name}, args.resample or 16000)
    if args.resample:
        flac = io.BytesIO()
        soundfile.write(flac, clip.waveform, args.resample, format="FLAC", subtype="PCM_16")
        audio = {"bytes": flac.getvalue(), "path": f"{Path(audio['path']).stem}.flac"}
    video = whole_file(row["video"], name) if args.video and row["video"] else None
    return {**row, "audio": audio, "video": video}


def whole_file(place: dict, name: str) -> dict:
    """`{"bytes", "path"}` of a file, the path without its folder."""
    content = place["bytes"]
    if content is None:
        if place["path"] is None:
            raise ValueError(f"{name}: expected a file, got none.")
        try:
            content = Path(place["path"]).read_bytes()
        except OSError as error:
            raise ValueError(f"{name}: expected a file, got {type(error).__name__}: {error}.") from error
    return {"bytes": content, "path": Path(place["path"] or name).name}


def features_of(columns, names) -> pa.Schema:
    """The Arrow schema of some columns, without what `datasets` notes about them."""
    schema = columns.arrow_schema
    return pa.schema([schema.field(name) for name in names])


class ParquetShard:
    """One parquet file, whole under its name or not at all."""

    def __init__(self, folder: Path, number: int, schema: pa.Schema) -> None:
        self.file = folder / f"part-{number:05d}.parquet"
        self.schema = schema
        self.size = self.held = 0  # bytes of audio and video: of the shard, of the row group in memory
        self.rows: list[dict] = []
        labels = [name for name in schema.names if name not in FILES]
        self.writer = pq.ParquetWriter(f"{self.file}.partial", schema, use_dictionary=labels)

    def add(self, row: dict) -> None:
        """Take in a row."""
        self.rows.append(row)
        added = sum(len(row[name]["bytes"]) for name in FILES if row.get(name))
        self.size += added
        self.held += added
        if self.held >= ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write a row group."""
        if self.rows:
            self.writer.write_table(pa.Table.from_pylist(self.rows, self.schema), row_group_size=len(self.rows))
        self.rows, self.held = [], 0

    def close(self) -> None:
        """Give the file its name."""
        self.flush()
        self.writer.close()
        os.replace(f"{self.file}.partial", self.file)


class TarShard:
    """One WebDataset tar, and its labels for the index; whole under its name or not at all."""

    def __init__(self, folder: Path, number: int, schema: pa.Schema) -> None:
        self.file, self.labels = folder / f"part-{number:05d}.tar", folder / f"part-{number:05d}.labels"
        self.number, self.size = number, 0
        self.rows: list[dict] = []
        places = [pa.field(name, pa.int32()) for name in PLACE]
        self.schema = pa.schema([*(each for each in schema if each.name not in FILES), *places])
        self.tar = tarfile.open(f"{self.file}.partial", "w")  # noqa: SIM115 (closed by `close`)

    def add(self, row: dict) -> None:
        """Take in a row."""
        labels = {name: value for name, value in row.items() if name not in FILES}
        # what follows the first point of a name is its extension; a number keeps keys apart
        key = f"{len(self.rows):06d}-{re.sub(r'[^A-Za-z0-9_-]', '_', row['id'])}"
        self._write(f"{key}.{extension(row['audio'], '', TAR_AUDIO)}", row["audio"]["bytes"])
        if row.get("video"):
            self._write(f"{key}.{extension(row['video'], 'video.', TAR_VIDEO)}", row["video"]["bytes"])
        self._write(f"{key}.json", json.dumps(labels).encode())
        self.rows.append({**labels, "shard": self.number, "row": len(self.rows)})

    def _write(self, name: str, content: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        self.tar.addfile(entry, io.BytesIO(content))
        self.size += len(content)

    def close(self) -> None:
        """Give the files their names."""
        self.tar.close()
        pq.write_table(pa.Table.from_pylist(self.rows, self.schema), f"{self.labels}.partial")
        os.replace(f"{self.labels}.partial", self.labels)
        os.replace(f"{self.file}.partial", self.file)


def extension(file: dict, prefix: str, known: tuple[str, ...]) -> str:
    """What follows the key in a tar, from the file's name or its first bytes."""
    found = prefix + Path(file["path"]).suffix.lower().lstrip(".")
    if found not in known:
        with contextlib.suppress(soundfile.LibsndfileError):
            found = prefix + soundfile.info(io.BytesIO(file["bytes"])).format.lower()
    if found not in known:
        raise TypeError(
            f"{file['path']}: expected a file among {known} for a tar, got another format. Convert it with "
            "`--resample 16000`, or pack into parquet."
        )
    return found


def merge_labels(folder: Path, shards: int) -> None:
    """The tars' labels in one table, which is read in place of the tars."""
    parts = [folder / f"part-{number:05d}.labels" for number in range(shards)]
    with pq.ParquetWriter(folder / "index.parquet.partial", pq.read_schema(parts[0])) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part))
    os.replace(folder / "index.parquet.partial", folder / "index.parquet")


def describe_pack(args: PackArguments, folder: Path, shards: list[str], done: dict, asked: dict) -> dict:
    """Write `corpus.yaml`, which makes the folder a corpus; it comes last."""
    info = corpus_info(args.corpus)
    index = "index.parquet" if args.format == "webdataset" else None
    speakers = [row["speaker"] for name in ([index] if index else shards) for row in read_labels(str(folder / name))]
    described = {
        "name": info.name,
        "license": info.license,
        "citation": info.citation,
        "source": "packed",
        "emotions": list(info.emotions),
        "dimensions": list(info.dimensions),
        "dimensions_source": info.dimensions_source,
        "clips": len(speakers),
        "quarantined": done["bad"],
        "packed_from": asked,
        "shards": shards,
    }
    if index:
        described["index"] = index
    splits = describe(args.corpus).splits if args.corpus.endswith(".yaml") else None
    if splits == "partition":  # as lists, clips of no side would be on their speakers'
        described["splits"] = "partition"
    elif splits is not None:
        prefix, present = f"{info.name}/", set(speakers)
        described["splits"] = {
            side: [name.removeprefix(prefix) for name in names if name in present]
            for side, names in described_split(args.corpus, args.corpus_path or None).items()
        }
    write_atomically(folder / "corpus.yaml", yaml.safe_dump(described, sort_keys=False, allow_unicode=True))
    for part in folder.glob("part-*.labels"):
        part.unlink()
    return described


if __name__ == "__main__":
    main(parse_arguments(PackArguments))
