"""Anybody's own data, or a packed corpus: rows of what one YAML file describes."""

from __future__ import annotations

import csv
import json
import logging
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Features, Value, load_dataset, load_dataset_builder

from audio_emotion.training.corpora.corpus import CorpusInfo
from audio_emotion.training.corpora.description import SIDES, Description, describe, one_of
from audio_emotion.training.shards import audio_column, parquet_features, read_labels

logger = logging.getLogger(__name__)

PARTITION_NAMES = {"dev": "validation", "development": "validation", "valid": "validation", "val": "validation"}
GENDERS = {
    **dict.fromkeys(("male", "m", "man"), "male"),
    **dict.fromkeys(("female", "f", "woman"), "female"),
    **dict.fromkeys(("other", "unknown", "nonbinary", "non-binary"), None),
}
AUDIO_EXTENSIONS = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".webm"}


def described_info(file: str) -> CorpusInfo:
    """Facts of a described corpus, from its YAML file alone.

    Args:
        file: path or URL of the description.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for anything in it that is unknown, missing or cannot be.
    """
    return describe(file).info


def described_rows(file: str, path: str | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a described corpus, in the order of its source; audio in shards is pointed at by `shard` and `row`.

    Args:
        file: path or URL of the description.
        path: folder from which the paths in it start; by default its own.

    Raises:
        FileNotFoundError: naming audio files that are not there.
        ValueError: naming the row and the value that the description does not allow, with what it does allow.
    """
    description = describe(file, path)
    if description.source == "packed":
        return _packed_rows(description)
    return _rows(description)


def described_shards(file: str, path: str | None = None) -> list[str]:
    """Files, paths or URLs, that `shard` in the rows counts; none where audio lies in files of its own.

    Args:
        file: path or URL of the description.
        path: folder from which the paths in it start; by default its own.
    """
    description = describe(file, path)
    if description.source == "packed":
        return [description.at(name) for name in description.shards]
    return [shard for shard, _ in _shards(description)]


def described_split(file: str, path: str | None = None) -> dict[str, tuple[str, ...]]:
    """Speakers of each side, as the description's `splits` say: `{"train", "validation", "test"}`.

    Args:
        file: path or URL of the description.
        path: folder from which the paths in it start; by default its own.

    Raises:
        ValueError: without `splits`; naming speakers who are on two sides, or of whom there is no clip.
    """
    description = describe(file, path)
    splits, name = description.splits, description.info.name
    if splits is None:
        raise ValueError(
            f"{file}: expected `splits`, got none. Add `splits: {{shares: {{train: 0.8, test: 0.2}}, seed: 0}}` for a "
            "random one of speakers, lists of speakers, or `splits: partition` for a column of the corpus."
        )
    rows = described_rows(file, path)
    if splits == "partition":
        found: dict[str, set[str]] = {side: set() for side in SIDES}
        left_out = set()
        for row in rows:
            if row["partition"] in SIDES:
                found[row["partition"]].add(row["speaker"])
            else:
                left_out.add(row["partition"])
        if left_out:
            logger.warning("%s: clips of the partitions %s are on no side.", file, sorted(map(str, left_out)))
        sides = {side: tuple(sorted(found[side])) for side in SIDES}
    else:
        present = sorted({row["speaker"] for row in rows})
        if "shares" in splits:
            sides = _random_sides(present, splits["shares"], splits.get("seed", 0))
        else:
            sides = {side: tuple(f"{name}/{speaker}" for speaker in splits.get(side, ())) for side in SIDES}
        named = {speaker for speakers in sides.values() for speaker in speakers}
        if absent := sorted(named - set(present)):
            raise ValueError(
                f"{file}: expected clips of every speaker in `splits`, got none of {_some(absent)}. The corpus has "
                f"{_some(present)}."
            )
        if unused := sorted(set(present) - named):
            logger.warning("%s: the speakers %s are on no side.", file, _some(unused))
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        if both := sorted(set(sides[first]) & set(sides[second])):
            raise ValueError(
                f"{file}: expected every speaker on one side, got {_some(both)} in `{first}` and in `{second}`. Take "
                "them out of one: a model is not tested on voices that it knows."
            )
    return sides


def _random_sides(speakers: list[str], shares: Mapping[str, float], seed: int) -> dict[str, tuple[str, ...]]:
    """Speakers permuted by the seed and dealt out by shares, at least one to every side with a share."""
    wanted = [side for side in SIDES if shares.get(side, 0) > 0]
    if len(speakers) < len(wanted):
        raise ValueError(
            f"Expected at least {len(wanted)} speakers for {wanted}, got {_some(speakers)}. Name fewer sides in "
            "`shares`, or record more speakers."
        )
    order = [speakers[index] for index in np.random.default_rng(seed).permutation(len(speakers))]
    counts = dict.fromkeys(wanted, 1)
    for _ in range(len(speakers) - len(wanted)):  # the next one to the side that is furthest behind its share
        behind = max(wanted, key=lambda side: shares[side] * len(speakers) - counts[side])
        counts[behind] += 1
    sides: dict[str, tuple[str, ...]] = dict.fromkeys(SIDES, ())
    for side, count in counts.items():
        sides[side], order = tuple(sorted(order[:count])), order[count:]
    return sides


def _packed_rows(description: Description) -> Iterator[dict[str, Any]]:
    """Rows of a packed corpus: labels are read, audio is pointed at."""
    if description.index is not None:
        for row in read_labels(description.at(description.index)):
            yield {**row, "audio": {"bytes": None, "path": None}}
        return
    for number, shard in enumerate(description.shards):
        for index, row in enumerate(read_labels(description.at(shard))):
            yield {**row, "audio": {"bytes": None, "path": None}, "shard": number, "row": index}


def _rows(description: Description) -> Iterator[dict[str, Any]]:
    """Rows of a source as a person describes it, every value checked."""
    in_files = description.source in {"csv", "audiofolder", "parquet"} and not _shards(description)
    paths = (place["audio"]["path"] for _, _, place in _records(description)) if in_files else ()
    if missing := [path for path in paths if not Path(path).is_file()]:
        raise FileNotFoundError(
            f"{description.file}: expected every clip's audio file, got no file {_some(missing)}. Correct "
            "`audio_folder` or the paths, or take these clips out of the table."
        )
    seen: dict[str, str] = {}
    alone = 0
    for where, record, place in _records(description):
        row = _row(description, where, record) | place
        if row["id"] in seen:
            raise ValueError(
                f"{where}: expected ids that differ, got {row['id']!r} here and in {seen[row['id']]}. Name a column "
                "of unique values under `columns: {id: ...}`, or take one of the two out."
            )
        seen[row["id"]] = where
        if row["speaker"] is None:
            row["speaker"] = row["id"]
            alone += 1
        yield row
    if not seen:
        raise ValueError(f"{description.file}: expected clips in `{description.path}`, got none.")
    if alone:
        logger.warning(
            "%s: %d of %d clips have no speaker; each is taken for a speaker of its own. If one person speaks in "
            "several of them, a split can put the same voice on two sides: name a column under `columns: {speaker: "
            "...}`.",
            description.file,
            alone,
            len(seen),
        )


def _row(description: Description, where: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """One clip's labels in our words and in 0..1."""
    columns, name = description.columns, description.info.name

    def said(key: str) -> str | None:
        value = record[columns[key]] if key in columns else None
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        return str(value).strip() or None

    clip = said("id") or record["__id__"]
    emotion = said("emotion")
    if emotion is not None and emotion not in description.emotions:
        raise ValueError(
            f"{where}: expected an emotion among {list(description.emotions)}, got {emotion!r}. Add it to `emotions` "
            "(as `value: null` if it is no label), or correct the row."
        )
    gender = said("gender")
    if gender is not None and gender.lower() not in GENDERS:
        raise ValueError(f"{where}: expected a gender among {sorted(GENDERS)} or none, got {gender!r}.")
    partition = said("partition") or record.get("__partition__")
    speaker = said("speaker")
    row: dict[str, Any] = {
        "id": f"{name}/{clip}",
        "speaker": None if speaker is None else f"{name}/{speaker}",
        "gender": None if gender is None else GENDERS[gender.lower()],
        "emotion": None if emotion is None else description.emotions[emotion],
        "partition": None if partition is None else PARTITION_NAMES.get(partition.lower(), partition),
    }
    for dimension, (lowest, highest) in description.scale.items():
        text = said(dimension)
        row[dimension] = None if text is None else _rating(where, dimension, text, lowest, highest)
    return row


def _rating(where: str, dimension: str, text: str, lowest: float, highest: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not min(lowest, highest) <= value <= max(lowest, highest):
        raise ValueError(
            f"{where}: expected `{dimension}` on the scale {lowest:g} to {highest:g}, got {text!r}. Correct the row, "
            "or `scale`; leave the field empty where nobody rated."
        )
    return (value - lowest) / (highest - lowest)


def _records(description: Description) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
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
    for name in ("metadata.csv", "metadata.jsonl"):
        if (root / name).is_file():
            yield from _table_records(description, str(root / name), None)
            return
    if not root.is_dir():
        raise FileNotFoundError(f"{description.file}: expected a folder of clips in `{root}`, got none there.")
    # Columns that paths give: the file, the folder it lies in, and each folder on the way, counted from the top.
    depth = [int(column[7:]) for column in description.columns.values() if re.fullmatch(r"folder_\d+", column)]
    columns = ["file_name", "label", *(f"folder_{number}" for number in range(1, max(depth, default=0) + 1))]
    _check_columns(description, str(root), columns)
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in AUDIO_EXTENSIONS or path.name.startswith("."):
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


def _shard_records(description: Description) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Clips of parquet files or tars that hold the audio: labels are read, audio is pointed at."""
    for number, (shard, split) in enumerate(_shards(description)):
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


def _shards(description: Description) -> list[tuple[str, str | None]]:
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
            f"{_some(unreadable)}. Try `revision: refs/convert/parquet`, where the Hub keeps a converted copy, or "
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


def _some(names: list[str], most: int = 5) -> str:
    """The first few names, and how many more."""
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
