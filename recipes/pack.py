"""Pack a corpus into shards that stream from disk or the Hub: parquet files or WebDataset tars, and a description.

    python recipes/pack.py --corpus ravdess --output runs/packed/ravdess

The output folder is a corpus: `--corpus runs/packed/ravdess/corpus.yaml`. Clips that cannot be decoded are left out
and listed in `quarantine.jsonl` with the reason. Start a killed run again with the same command: it resumes with the
next shard. The license of the recordings still applies: packing them does not permit publishing them.
"""

import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
import yaml
from tqdm.auto import tqdm

from audio_emotion.audio_io import read_audio
from audio_emotion.data.custom import load_custom_corpus
from audio_emotion.data.dataset import TooManyBadClipsError
from audio_emotion.data.protocols import SPLITS
from audio_emotion.data.registry import corpus_info, corpus_rows, corpus_table, features, shard_files
from audio_emotion.data.shards import (
    ParquetWriter,
    TarWriter,
    merge_tar_labels,
    read_labels,
    read_shard,
    write_atomically,
)
from audio_emotion.training.arguments import argument_group, fraction, parse_arguments


@argument_group("data")
class PackedCorpusArguments:
    """The corpus that is packed."""

    corpus: str = field(default="synthetic", metadata={"help": "Name of a corpus, or YAML file that describes one."})
    corpus_path: str = field(
        default="", metadata={"help": "Folder of the corpus. Empty: the folder in $AUDIO_EMOTION_DATA named after it."}
    )
    corpus_count: int = field(default=600, metadata={"help": "Number of clips of the synthetic corpus."})
    video: bool = field(default=False, metadata={"help": "Pack video beside the audio, where the corpus has it."})
    resample: int = field(
        default=0, metadata={"help": "Sampling rate of mono 16-bit FLAC to convert to. 0: keep the files as they are."}
    )
    max_bad_fraction: float = fraction(0.05, "Fraction of unreadable clips, 0 to 1, above which the run stops.")


@argument_group("shards")
class ShardArguments:
    """The shards that are written."""

    output: str = field(default="runs/packed", metadata={"help": "Folder of the shards and their `corpus.yaml`."})
    format: str = field(default="parquet", metadata={"help": "parquet or webdataset."})
    shard_mb: int = field(default=256, metadata={"help": "Megabytes of audio per shard."})
    shuffle: bool = field(
        default=True, metadata={"help": "Distribute clips in single files over the shards at random."}
    )


@argument_group()
class PackArguments(PackedCorpusArguments, ShardArguments):
    """Pack a corpus into shards."""


def main(args: PackArguments) -> dict[str, Any]:
    """Write the shards and their description; returns the contents of `corpus.yaml`."""
    if args.format not in ("parquet", "webdataset"):
        raise ValueError(f"Expected `format` parquet or webdataset, got {args.format!r}.")

    # An earlier run: finished, or killed after some shards.
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {key: value for key, value in asdict(args).items() if key not in ("output", "max_bad_fraction")}
    progress = load_progress(folder, settings)
    if "clips" in progress:
        print(f"Finished before: {folder / 'corpus.yaml'}")
        return progress

    # Clips into shards.
    total = args.corpus_count
    if args.corpus != "synthetic":
        total = sum(1 for _ in corpus_rows(args.corpus, args.corpus_path or None))
    schema = packed_schema(args)
    writer: ParquetWriter | TarWriter | None = None
    with (folder / "quarantine.jsonl").open("a") as quarantine:
        for row in tqdm(rows_with_audio(args, progress["rows"]), total=total, initial=progress["rows"], unit="clip"):
            progress["rows"] += 1
            try:
                clip = load_clip(row, args)
            except ValueError as error:
                quarantine.write(json.dumps({"id": row["id"], "reason": str(error)}) + "\n")
                quarantine.flush()
                progress["bad"] += 1
                if progress["bad"] > args.max_bad_fraction * total:
                    raise TooManyBadClipsError(
                        f"{progress['bad']} of {total} clips are bad, more than {args.max_bad_fraction:.0%}. The last "
                        f"one is {row['id']}: {error} `{folder / 'quarantine.jsonl'}` lists all of them. Repair them "
                        "or remove them from the corpus, or allow a larger fraction with `--max_bad_fraction`."
                    ) from error
            else:
                if writer is None:
                    writer_class = ParquetWriter if args.format == "parquet" else TarWriter
                    writer = writer_class(folder, progress["shards"], schema)
                writer.add({name: clip[name] for name in schema.names})
            if writer is not None and writer.size >= args.shard_mb * 1e6:
                writer.close()
                writer = None
                progress["shards"] += 1
                write_atomically(folder / "progress.json", json.dumps({"settings": settings, **progress}))
    if writer is not None:
        writer.close()
        progress["shards"] += 1
    if not progress["shards"]:
        raise ValueError(f"Expected clips in the corpus `{args.corpus}`, got none that can be packed.")

    # Description, which marks the run as finished.
    suffix = "parquet" if args.format == "parquet" else "tar"
    shards = [f"part-{number:05d}.{suffix}" for number in range(progress["shards"])]
    index = merge_tar_labels(folder, len(shards)) if args.format == "webdataset" else None
    description = describe(args, folder, shards, index)
    description |= {"quarantined": progress["bad"], "packed_from": settings}
    write_atomically(folder / "corpus.yaml", yaml.safe_dump(description, sort_keys=False, allow_unicode=True))
    for part in [folder / "progress.json", *folder.glob("part-*.labels")]:
        part.unlink(missing_ok=True)
    print(
        f"{description['clips']} clips in {len(shards)} shards, {progress['bad']} left out: {folder / 'corpus.yaml'}"
    )
    return description


def load_progress(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """`corpus.yaml` of a finished run, or the numbers of shards, rows and bad clips of an unfinished one.

    Raises:
        ValueError: for a run with other settings.
    """
    finished = (folder / "corpus.yaml").is_file()
    progress = {"shards": 0, "rows": 0, "bad": 0}
    earlier = settings
    if finished:
        progress = yaml.safe_load((folder / "corpus.yaml").read_text())
        earlier = progress.get("packed_from")
    elif (folder / "progress.json").is_file():
        progress = json.loads((folder / "progress.json").read_text())
        earlier = progress.pop("settings")
    if earlier != settings:
        raise ValueError(
            f"Expected `{folder}` to be empty or packed with {settings}, got one packed with {earlier}. Choose "
            "another `--output`, or delete the folder."
        )
    if not finished and (folder / "quarantine.jsonl").is_file():  # may contain clips of the unfinished shard
        lines = (folder / "quarantine.jsonl").read_text().splitlines(keepends=True)
        write_atomically(folder / "quarantine.jsonl", "".join(lines[: progress["bad"]]))
    return progress


def packed_schema(args: PackArguments) -> pa.Schema:
    """Columns of a packed row: all but its place in the shards of the source."""
    schema = features(corpus_info(args.corpus).dimensions).arrow_schema
    left_out = {"shard", "row"} if args.video else {"shard", "row", "video"}
    return pa.schema([column for column in schema if column.name not in left_out])


def rows_with_audio(args: PackArguments, first: int) -> Iterator[dict]:
    """Rows from number `first` on, in the order of the shards; the audio of rows in shards is read."""
    path = args.corpus_path or None
    files = shard_files(args.corpus, path)
    if files and args.video:
        raise ValueError("Expected a corpus of single files for `--video`, got one in shards. Pack its single files.")
    rows = corpus_rows(args.corpus, path, args.corpus_count)
    if args.shuffle and (row := next(rows, None)) is not None:
        rows = itertools.chain([row], rows)
        if row["audio"]["path"] is not None:
            # A training batch comes from one shard: it should have many speakers. The table holds paths only.
            table = corpus_table(args.corpus, path)
            rows = (table[int(index)] for index in np.random.default_rng(0).permutation(len(table)))
    current, position, clips = None, 0, iter(())
    for row in itertools.islice(rows, first, None):
        if row["shard"] is not None:
            if row["shard"] != current:
                current, position, clips = row["shard"], 0, read_shard(files[row["shard"]])
            row["audio"] = next(itertools.islice(clips, row["row"] - position, None))["audio"]
            position = row["row"] + 1
        yield row


def load_clip(row: dict, args: PackArguments) -> dict:
    """The row with the bytes of its files, after its audio has been decoded to check it.

    Raises:
        ValueError: for a clip that is not audio, shorter than 0.25 s, or not finite; for a missing video file.
    """
    name = row["id"].rsplit("/", 1)[-1]
    audio = load_file(row["audio"], name)
    clip = read_audio({**audio, "path": row["audio"]["path"] or name}, args.resample or 16000)
    if args.resample:
        flac = io.BytesIO()
        soundfile.write(flac, clip.waveform, args.resample, format="FLAC", subtype="PCM_16")
        audio = {"bytes": flac.getvalue(), "path": f"{Path(audio['path']).stem}.flac"}
    video = load_file(row["video"], name) if args.video and row["video"] else None
    return {**row, "audio": audio, "video": video}


def load_file(file: dict, name: str) -> dict:
    """`{"bytes", "path"}` of a file, the path without its folder."""
    content = file["bytes"]
    if content is None:
        if file["path"] is None:
            raise ValueError(f"{name}: expected a file, got none.")
        try:
            content = Path(file["path"]).read_bytes()
        except OSError as error:
            raise ValueError(f"{name}: expected a file, got {type(error).__name__}: {error}.") from error
    return {"bytes": content, "path": Path(file["path"] or name).name}


def describe(args: PackArguments, folder: Path, shards: list[str], index: str | None) -> dict[str, Any]:
    """Facts, shards and splits of the packed corpus, as a description (docs/your_own_data.md)."""
    info = corpus_info(args.corpus)
    labels = [row for name in ([index] if index else shards) for row in read_labels(str(folder / name))]
    description: dict[str, Any] = {
        "name": info.name,
        "license": info.license,
        "citation": info.citation,
        "language": list(info.languages),
        "source": "packed",
        "emotions": list(info.emotions),
        "dimensions": list(info.dimensions),
        "dimensions_source": info.dimensions_source,
        "clips": len(labels),
        "shards": shards,
    }
    if index:
        description["index"] = index
    source = load_custom_corpus(args.corpus, args.corpus_path or None) if args.corpus.endswith(".yaml") else None
    if source is None or source.splits is None:
        return description
    if source.splits == "partition":  # lists of speakers would add their clips of other partitions
        description["splits"] = "partition"
    else:
        protocol, present = source.protocol(), {row["speaker"] for row in labels}
        description["splits"] = {
            split: [name.removeprefix(f"{info.name}/") for name in getattr(protocol, split) if name in present]
            for split in SPLITS
        }
    return description


if __name__ == "__main__":
    main(parse_arguments(PackArguments))
