"""Clips in parquet files and WebDataset tars: their labels without audio, their audio in order, and their writers.

Shards are read with `datasets`, from paths and URLs (`https://`, `hf://`) alike. Files in columns stay encoded:
decoding with `datasets` would need torchcodec.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from datasets import (
    Audio,
    ClassLabel,
    Features,
    IterableDataset,
    Json,
    Value,
    load_dataset,
    load_dataset_builder,
)

READ_ROWS = 16  # at a time
ROW_GROUP_BYTES = 16_000_000  # of audio and video, which a reader of parquet has in memory at least
FILE_COLUMNS = ("audio", "video")
NO_FILE = {"bytes": None, "path": None}
TAR_AUDIO = ("wav", "flac", "mp3", "ogg", "opus", "m4a", "mp4", "webm")
TAR_VIDEO = tuple(f"video.{extension}" for extension in ("mp4", "flv", "avi", "mkv", "mov", "webm"))
# As plain bytes: by default `datasets` would infer Audio, and expect the same extensions in every clip.
TAR_FIELDS = {
    **dict.fromkeys(("__key__", "__url__", "txt", "cls"), Value("string")),
    **dict.fromkeys((*TAR_AUDIO, *TAR_VIDEO), Value("binary")),
    "json": Json(),
}


def read_shard(file: str) -> Iterator[dict[str, Any]]:
    """Encoded audio of every clip of a shard, in order, a row group (parquet) or a clip (tar) in memory at a time.

    Args:
        file: path or URL that ends in `.parquet` or `.tar`. The audio of a parquet file is its column `audio`, or
            else its only column of `{"bytes", "path"}`; that of a tar, the file of each key with an audio extension.

    Yields:
        `{"audio": {"bytes", "path"}}`; both None where the shard has no bytes, because a path in it is not opened.

    Raises:
        ValueError: where the audio column is not unique.
    """
    if file.endswith(".tar"):
        for clip in _tar(file):
            extension = next((name for name in TAR_AUDIO if clip[name] is not None), None)
            content = clip[extension] if extension else None  # without audio the clip is quarantined later
            yield {"audio": {"bytes": content, "path": f"{clip['__key__']}.{extension}" if extension else None}}
        return
    column = audio_column(file)
    stream = _parquet(file, [column]).cast_column(column, Audio(decode=False))
    for row in _rows(stream):
        yield {"audio": _embedded(row[column])}


def read_videos(file: str) -> Iterator[dict[str, Any]]:
    """Encoded video of every clip of a shard packed with video, in order.

    Yields:
        `{"video": {"bytes", "path"}}`; both None where the shard has no bytes.
    """
    if file.endswith(".tar"):
        for clip in _tar(file):
            extension = next((name for name in TAR_VIDEO if clip[name] is not None), None)
            path = f"{clip['__key__']}.{extension}" if extension else None
            yield {"video": {"bytes": clip[extension] if extension else None, "path": path}}
        return
    for row in _rows(_parquet(file, ["video"])):
        yield {"video": _embedded(row["video"])}


def read_labels(file: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Labels of every clip of a shard, in order, without its audio.

    Args:
        file: path or URL that ends in `.parquet` or `.tar`.
        columns: of a parquet file; by default all but audio and video.

    Yields:
        The columns of a parquet file, class numbers as names; of a tar, the values of each `.json`, `__key__`, `txt`,
        `cls` and `audio`, which is the extension of the clip's audio.
    """
    if file.endswith(".tar"):
        for clip in _tar(file):
            extension = next((name for name in TAR_AUDIO if clip[name] is not None), None)
            yield {**(clip["json"] or {}), **{name: clip[name] for name in ("__key__", "txt", "cls")}} | {
                "audio": extension
            }
        return
    features = parquet_features(file)
    names = [name for name in features if not _holds_files(features[name])] if columns is None else list(columns)
    classes = {name: features[name] for name in names if isinstance(features[name], ClassLabel)}
    for row in _rows(_parquet(file, names)):
        for name, label in classes.items():
            # Hub data sets write -1 where there is no label
            row[name] = label.int2str(row[name]) if row[name] is not None and row[name] >= 0 else None
        yield row


def parquet_features(file: str) -> Features:
    """Types of the columns of a parquet file, path or URL.

    Raises:
        ValueError: for a file that is none, or is damaged.
    """
    try:
        features = _parquet(file).features
    except pa.ArrowException as error:
        raise ValueError(f"{file}: expected a parquet file, got {error} Write it again, or correct `path`.") from error
    assert isinstance(features, Features)  # parquet files are typed
    return features


def audio_column(file: str) -> str:
    """Name of the column of a parquet file that holds encoded audio.

    Raises:
        ValueError: where there is none, or several and none of them is called `audio`.
    """
    features = parquet_features(file)
    found = [name for name in features if _holds_files(features[name])]
    if "audio" in found:
        return "audio"
    if len(found) != 1:
        raise ValueError(
            f"{file}: expected a column `audio`, or one column of encoded files (bytes and path), got "
            f"{found or 'none'} among the columns {list(features)}. Rename the audio column to `audio`."
        )
    return found[0]


def hub_files(name: str, config: str | None, revision: str | None) -> dict[str, list[str]]:
    """URLs or paths of the files of each split of a Hub data set, or of a folder of the same layout."""
    data_files = load_dataset_builder(name, config, revision=revision).config.data_files or {}
    return {str(split): [str(file) for file in files] for split, files in data_files.items()}


def _holds_files(feature: Any) -> bool:
    """Whether a column is `{"bytes", "path"}`, declared as Audio, Video or Image, or not declared."""
    if isinstance(feature, dict):
        return set(feature) == {"bytes", "path"}
    return type(feature).__name__ in {"Audio", "Video", "Image"}


def _embedded(file: dict[str, Any] | None) -> dict[str, Any]:
    """A file in a column, none without its bytes: its path was chosen by the shard's author, and opens no file."""
    return NO_FILE if file is None or file["bytes"] is None else file


def _rows(stream: IterableDataset) -> Iterator[dict[str, Any]]:
    """Every row of a stream, also in a worker of a DataLoader, where plain iteration would give some rows only."""
    for batch in stream.iter(batch_size=READ_ROWS):
        names = list(batch)
        for values in zip(*(batch[name] for name in names), strict=True):
            yield dict(zip(names, values, strict=True))


def _parquet(file: str, columns: list[str] | None = None) -> IterableDataset:
    return load_dataset("parquet", data_files=[file], columns=columns, split="train", streaming=True)


def _tar(file: str) -> Iterator[dict[str, Any]]:
    """Fields of every key of a tar; files with other extensions are ignored."""
    yield from load_dataset(
        "webdataset", data_files=[file], split="train", streaming=True, features=Features(TAR_FIELDS)
    )


class ParquetWriter:
    """Writes `part-<number>.parquet`; the file gets its name when it is complete.

    Args:
        folder: of the file.
        number: of the shard.
        schema: columns of a row.

    Attributes:
        size: bytes of audio and video so far.
    """

    def __init__(self, folder: Path, number: int, schema: pa.Schema) -> None:
        self.file, self.schema = folder / f"part-{number:05d}.parquet", schema
        self.size = 0
        self._rows: list[dict] = []  # of the current row group
        self._group_bytes = 0
        labels = [name for name in schema.names if name not in FILE_COLUMNS]
        self._writer = pq.ParquetWriter(f"{self.file}.partial", schema, use_dictionary=labels)

    def add(self, row: dict) -> None:
        """Append a row."""
        self._rows.append(row)
        added = sum(len(row[name]["bytes"]) for name in FILE_COLUMNS if row.get(name))
        self.size += added
        self._group_bytes += added
        if self._group_bytes >= ROW_GROUP_BYTES:
            self._write_row_group()

    def _write_row_group(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self.schema), row_group_size=len(self._rows))
        self._rows, self._group_bytes = [], 0

    def close(self) -> None:
        """Complete the file."""
        self._write_row_group()
        self._writer.close()
        os.replace(f"{self.file}.partial", self.file)


class TarWriter:
    """Writes `part-<number>.tar`, and its labels to `part-<number>.labels`; see [`ParquetWriter`]."""

    def __init__(self, folder: Path, number: int, schema: pa.Schema) -> None:
        self.file, self.labels_file = folder / f"part-{number:05d}.tar", folder / f"part-{number:05d}.labels"
        self.number, self.size = number, 0
        self._labels: list[dict] = []
        place = [pa.field(name, pa.int32()) for name in ("shard", "row")]
        self.schema = pa.schema([*(column for column in schema if column.name not in FILE_COLUMNS), *place])
        self._tar = tarfile.open(f"{self.file}.partial", "w")  # noqa: SIM115 (closed by `close`)

    def add(self, row: dict) -> None:
        """Append a row."""
        labels = {name: value for name, value in row.items() if name not in FILE_COLUMNS}
        # everything after the first point of a file name is its extension; the number keeps keys unique
        key = f"{len(self._labels):06d}-{re.sub(r'[^A-Za-z0-9_-]', '_', row['id'])}"
        self._write(f"{key}.{_tar_extension(row['audio'], '', TAR_AUDIO)}", row["audio"]["bytes"])
        if row.get("video"):
            self._write(f"{key}.{_tar_extension(row['video'], 'video.', TAR_VIDEO)}", row["video"]["bytes"])
        self._write(f"{key}.json", json.dumps(labels).encode())
        self._labels.append({**labels, "shard": self.number, "row": len(self._labels)})

    def _write(self, name: str, content: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        self._tar.addfile(entry, io.BytesIO(content))
        self.size += len(content)

    def close(self) -> None:
        """Complete the files."""
        self._tar.close()
        pq.write_table(pa.Table.from_pylist(self._labels, self.schema), f"{self.labels_file}.partial")
        os.replace(f"{self.labels_file}.partial", self.labels_file)
        os.replace(f"{self.file}.partial", self.file)


def _tar_extension(file: dict, prefix: str, known: Sequence[str]) -> str:
    """Extension of a file in a tar, from its name or its content."""
    found = prefix + Path(file["path"]).suffix.lower().lstrip(".")
    if found not in known:
        with contextlib.suppress(soundfile.LibsndfileError):
            found = prefix + soundfile.info(io.BytesIO(file["bytes"])).format.lower()
    if found not in known:
        raise TypeError(
            f"{file['path']}: expected a file among {list(known)} for a tar, got another format. Convert it with "
            "`--resample 16000`, or pack into parquet."
        )
    return found


def merge_tar_labels(folder: Path, shards: int) -> str:
    """Write the labels of all tars to one table, which is read in place of the tars; returns its name."""
    parts = [folder / f"part-{number:05d}.labels" for number in range(shards)]
    with pq.ParquetWriter(folder / "index.parquet.partial", pq.read_schema(parts[0])) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part))
    os.replace(folder / "index.parquet.partial", folder / "index.parquet")
    return "index.parquet"


def write_atomically(path: Path, text: str) -> None:
    """Write a UTF-8 text file that is never seen incomplete."""
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
