"""Clips in parquet files and WebDataset tars: their labels without their audio, and their audio in order.

All goes through `datasets`, local paths and URLs (`https://`, `hf://`) alike. Columns are read undecoded: decoding
through `datasets` would need torchcodec.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets import Audio, ClassLabel, Features, IterableDataset, Json, Value, load_dataset

ROWS_AT_ONCE = 16
TAR_AUDIO = ("wav", "flac", "mp3", "ogg", "opus", "m4a", "mp4", "webm")
TAR_VIDEO = tuple(f"video.{extension}" for extension in ("mp4", "flv", "avi", "mkv", "mov", "webm"))
# As plain bytes: left to itself, `datasets` takes them for Audio, and wants the same extensions in every clip.
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
        `{"audio": {"bytes", "path"}}`.

    Raises:
        ValueError: where it is not plain which column is the audio.
    """
    if file.endswith(".tar"):
        for clip in _tar(file):
            extension = next((name for name in TAR_AUDIO if clip[name] is not None), None)
            content = clip[extension] if extension else None  # without: no audio, and a clip for the quarantine
            yield {"audio": {"bytes": content, "path": f"{clip['__key__']}.{extension}" if extension else None}}
        return
    column = audio_column(file)
    stream = _parquet(file, [column]).cast_column(column, Audio(decode=False))
    for row in _rows(stream):
        yield {"audio": row[column]}


def read_videos(file: str) -> Iterator[dict[str, Any]]:
    """Encoded video of every clip of a shard packed with video, in order.

    Yields:
        `{"video": {"bytes", "path"}}`.
    """
    if file.endswith(".tar"):
        for clip in _tar(file):
            extension = next((name for name in TAR_VIDEO if clip[name] is not None), None)
            path = f"{clip['__key__']}.{extension}" if extension else None
            yield {"video": {"bytes": clip[extension] if extension else None, "path": path}}
        return
    yield from _rows(_parquet(file, ["video"]))


def read_labels(file: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Labels of every clip of a shard, in order; its audio is passed over.

    Args:
        file: path or URL that ends in `.parquet` or `.tar`.
        columns: of a parquet file; by default all but audio and video.

    Yields:
        The columns of a parquet file, class numbers as names; of a tar, what each `.json` says, `__key__`, `txt`,
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
    """Types of the columns of a parquet file, path or URL."""
    features = _parquet(file).features
    assert isinstance(features, Features)  # a parquet file names its types
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
            f"{found or 'none'} among the columns {list(features)}. Call the one with the audio `audio`."
        )
    return found[0]


def _holds_files(feature: Any) -> bool:
    """Whether a column is `{"bytes", "path"}`, declared as audio, video or image or not declared."""
    if isinstance(feature, dict):
        return set(feature) == {"bytes", "path"}
    return type(feature).__name__ in {"Audio", "Video", "Image"}


def _rows(stream: IterableDataset) -> Iterator[dict[str, Any]]:
    """Every row of a stream, also in a worker of a DataLoader: plain iteration would give it the worker's share."""
    for batch in stream.iter(batch_size=ROWS_AT_ONCE):
        names = list(batch)
        for values in zip(*(batch[name] for name in names), strict=True):
            yield dict(zip(names, values, strict=True))


def _parquet(file: str, columns: list[str] | None = None) -> IterableDataset:
    return load_dataset("parquet", data_files=[file], columns=columns, split="train", streaming=True)


def _tar(file: str) -> Iterator[dict[str, Any]]:
    """Fields of every key of a tar; files with other extensions are passed over."""
    yield from load_dataset(
        "webdataset", data_files=[file], split="train", streaming=True, features=Features(TAR_FIELDS)
    )


def write_atomically(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
