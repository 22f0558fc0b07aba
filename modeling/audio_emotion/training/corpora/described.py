"""Anybody's own data, or a packed corpus: rows of what one YAML file describes."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from audio_emotion.training.corpora.corpus import CorpusInfo
from audio_emotion.training.corpora.described_sources import (
    AUDIO_EXTENSIONS,
    audio_shards,
    clip_records,
    skipped_files,
)
from audio_emotion.training.corpora.description import Description, describe, some
from audio_emotion.training.shards import read_labels

logger = logging.getLogger(__name__)

PARTITION_NAMES = {"dev": "validation", "development": "validation", "valid": "validation", "val": "validation"}
GENDERS = {
    **dict.fromkeys(("male", "m", "man"), "male"),
    **dict.fromkeys(("female", "f", "woman"), "female"),
    **dict.fromkeys(("other", "unknown", "nonbinary", "non-binary"), None),
}


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
    return [shard for shard, _ in audio_shards(description)]


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
    in_files = description.source in {"csv", "audiofolder", "parquet"} and not audio_shards(description)
    paths = (place["audio"]["path"] for _, _, place in clip_records(description)) if in_files else ()
    if missing := [path for path in paths if not Path(path).is_file()]:
        raise FileNotFoundError(
            f"{description.file}: expected every clip's audio file, got no file {some(missing)}. Correct "
            "`audio_folder` or the paths, or take these clips out of the table."
        )
    if skipped := skipped_files(description):
        logger.warning(
            "%s: skipped %s in `%s`, where clips are files of %s.",
            description.file,
            ", ".join(f"{count} {suffix}" for suffix, count in skipped.items()),
            description.path,
            ", ".join(sorted(AUDIO_EXTENSIONS)),
        )
    seen: dict[str, str] = {}
    alone = 0
    for where, record, place in clip_records(description):
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
