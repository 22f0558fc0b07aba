"""Every clip of a source that a YAML file describes: its columns as they stand, with the place of its audio."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Features, Value, load_dataset, load_dataset_builder

from audio_emotion.training.corpora.description import Description, one_of, some
from audio_emotion.training.shards import audio_column, parquet_features, read_labels

AUDIO_EXTENSIONS = {
    *(".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a"),
    *(".mp4", ".webm", ".flv", ".avi", ".mkv", ".mov"),  # films, whose sound is the clip
}


def clip_records(description: Description) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Every clip as (where it stands, its columns, where its audio is)."""
    if description.source == "csv":
        yield from _table_records(description, description.at(description.path), description.audio_folder)
    elif description.source == "audiofolder":
        yield from _folder_records(description)
    elif description.source == "parquet" and not _has_audio_inside(description):
        for file in _files(description, ".parquet"):
            yield from _table_records(description, file, description.audio_folder)
    else:
        yield from _shard_records(description)


def _table_records(
    description: Description, file: str, audio_folder: str | None
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Rows of a CSV, JSON Lines or parquet table whose audio column holds paths."""
    if not Path(file).is_file():
        raise FileNotFoundError(
            f"{description.file}: expected the table of clips in `{file}`, got no such file. Correct `path`."
        )
    folder = Path(file).parent if audio_folder is None else Path(description.at(audio_folder))
    if file.endswith(".parquet"):
        _check_columns(description, file, list(parquet_features(file)))
        records: Iterator[dict[str, Any]] = read_labels(file)
    elif file.endswith(".jsonl"):
        with Path(file).open(encoding="utf-8") as lines:
            first = json.loads(lines.readline())
        _check_columns(description, file, list(first))
        records = iter(load_dataset("json", data_files=[file], split="train", streaming=True))
    else:
        separator = "\t" if file.endswith(".tsv") else ","
        with Path(file).open(encoding="utf-8-sig", newline="") as lines:
            header = next(csv.reader(lines, delimiter=separator), [])
        _check_columns(description, file, header)
        # as text: read as a number, the speaker `01` would be 1; and the word `NA` may be a label
        text = Features({name: Value("string") for name in header})
        records = iter(
            load_dataset(
                "csv",
                data_files=[file],
                sep=separator,
                encoding="utf-8-sig",
                keep_default_na=False,
                features=text,
                split="train",
                streaming=True,
            )
        )
    for number, record in enumerate(records, start=1):
        where = f"{file}, row {number}"
        audio = str(record[description.columns["audio"]] or "").strip()
        if not audio:
            raise ValueError(f"{where}: expected the path of a clip, got none. Fill it in, or take the row out.")
        record["__id__"] = Path(audio).with_suffix("").as_posix()
        yield where, record, {"audio": {"bytes": None, "path": str(folder / audio)}}


def _folder_records(description: Description) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Clips of a folder: with `metadata.csv` or `metadata.jsonl` a table, else named by the folders they lie in."""
    root = Path(description.at(description.path))
    if table := _metadata(root):
        yield from _table_records(description, str(table), None)
        return
    if not root.is_dir():
        raise FileNotFoundError(f"{description.file}: expected a folder of clips in `{root}`, got none there.")
    # Columns that paths give: the file, the folder it lies in, and each folder on the way, counted from the top.
    depth = [int(column[7:]) for column in description.columns.values() if re.fullmatch(r"folder_\d+", column)]
    columns = ["file_name", "label", *(f"folder_{number}" for number in range(1, max(depth, default=0) + 1))]
    _check_columns(description, str(root), columns)
    for path in _visible_files(root):
        if path.suffix.lower() not in AUDIO_EXTENSIONS:
            continue
        relative = path.relative_to(root)
        record = {"file_name": relative.as_posix(), "label": path.parent.name}
        record |= {f"folder_{number}": name for number, name in enumerate(relative.parent.parts, start=1)}
        if len(relative.parent.parts) < max(depth, default=0):
            raise ValueError(
                f"{path}: expected at least {max(depth)} folders below `{root}`, got fewer. Move the file."
            )
        record["__id__"] = relative.with_suffix("").as_posix()
        yield str(path), record, {"audio": {"bytes": None, "path": str(path)}}


def skipped_files(description: Description) -> dict[str, int]:
    """How many files of a folder of clips are no clips by their suffix, by suffix; a table says what is one itself."""
    if description.source != "audiofolder" or _metadata(root := Path(description.at(description.path))):
        return {}
    suffixes = Counter(path.suffix.lower() for path in _visible_files(root))
    return {name or "without a suffix": suffixes[name] for name in sorted(suffixes) if name not in AUDIO_EXTENSIONS}


def _metadata(root: Path) -> Path | None:
    """The table in a folder of clips, if there is one."""
    return next((root / name for name in ("metadata.csv", "metadata.jsonl") if (root / name).is_file()), None)


def _visible_files(root: Path) -> list[Path]:
    """Files below a folder, sorted, without those whose names begin with a point."""
    return sorted(path for path in root.rglob("*") if not path.name.startswith(".") and path.is_file())


def _shard_records(description: Description) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Clips of parquet files or tars that hold the audio: labels are read, audio is pointed at."""
    for number, (shard, split) in enumerate(audio_shards(description)):
        if shard.endswith(".tar"):
            wanted = None
        else:
            _check_columns(description, shard, list(parquet_features(shard)))
            wanted = [column for name, column in description.columns.items() if name != "audio"]
            if (audio := audio_column(shard)) != description.columns["audio"]:
                raise ValueError(
                    f"{shard}: expected the audio in the column `{description.columns['audio']}`, got it in `{audio}`."
                    " Correct `columns: {audio: ...}`, or call the column that you mean `audio`."
                )
        for index, record in enumerate(read_labels(shard, wanted)):
            where = f"{shard}, row {index + 1}"
            if shard.endswith(".tar"):
                _check_columns(description, where, [*record, record["audio"] or "no audio"])
                record["__id__"] = record["__key__"]
            else:
                record["__id__"] = f"{number:05d}-{index:06d}"
            record["__partition__"] = split
            yield where, record, {"audio": {"bytes": None, "path": None}, "shard": number, "row": index}


def _check_columns(description: Description, where: str, present: list[str]) -> None:
    if missing := sorted(set(description.columns.values()) - set(present)):
        raise ValueError(
            f"{where}: expected the columns {sorted(description.columns.values())}, got none called {missing} among "
            f"{present}. Correct `columns` in `{description.file}`."
        )


def _has_audio_inside(description: Description) -> bool:
    """Whether a parquet source holds audio, not paths."""
    column = description.columns["audio"]
    first = _files(description, ".parquet")[0]
    features = parquet_features(first)
    _check_columns(description, first, list(features))
    return features[column] != Value("string")


def audio_shards(description: Description) -> list[tuple[str, str | None]]:
    """Files that hold the audio, each with the split it stands for on the Hub; none for audio in files of its own."""
    if description.source == "webdataset":
        return [(file, None) for file in _files(description, ".tar")]
    if description.source == "parquet" and _has_audio_inside(description):
        return [(file, None) for file in _files(description, ".parquet")]
    if description.source != "hub":
        return []
    # a folder that is there stands for itself: the same layout as on the Hub, without a network
    local = description.at(description.path)
    builder = load_dataset_builder(
        local if Path(local).is_dir() else description.path,
        description.hub.get("config"),
        revision=description.hub.get("revision"),
    )
    files = builder.config.data_files or {}
    if "split" in description.hub:
        one_of(description.file, "split", description.hub["split"], tuple(map(str, files)))
    shards: list[tuple[str, str | None]] = [
        (str(file), str(split))
        for split in files
        if description.hub.get("split", split) == split
        for file in files[split]
    ]
    if unreadable := [file for file, _ in shards if not file.endswith((".parquet", ".tar"))]:
        raise ValueError(
            f"{description.file}: expected the Hub data set `{description.path}` in parquet files or tars, got "
            f"{some(unreadable)}. Try `revision: refs/convert/parquet`, where the Hub keeps a converted copy, or "
            "download it and describe the files."
        )
    return shards


def _files(description: Description, suffix: str) -> list[str]:
    """Files of `path`, which may be one file, a folder, or a pattern; sorted."""
    path = description.at(description.path)
    if "://" in path:
        return [path]
    found = [Path(path)] if Path(path).is_file() else sorted(Path(path).glob(f"*{suffix}"))
    if not found:
        folder, pattern = Path(path).parent, Path(path).name
        found = sorted(folder.glob(pattern))
    if not found:
        raise FileNotFoundError(
            f"{description.file}: expected `{suffix}` files in `{path}`, got none. Correct `path`: a file, a folder "
            "or a pattern such as `part-*.parquet`."
        )
    return [str(file) for file in found]
