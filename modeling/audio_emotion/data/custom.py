"""The YAML file that describes somebody's own corpus, read and checked.

It says what the corpus is called, under which terms it stands, where its clips are, which column means what, on which
scale the ratings are, and who is on which side of the split; `docs/your_own_data.md` explains every key. What
`recipes/pack.py` writes is described in the same way, with the source `packed`.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import numpy as np
import yaml
from datasets import Features, Value, load_dataset, load_dataset_builder

from audio_emotion.data.corpora.corpus_info import CorpusInfo
from audio_emotion.data.shards import audio_column, parquet_features, read_labels
from audio_emotion.data.splits import Split

SOURCES = ("csv", "parquet", "audiofolder", "webdataset", "hub", "packed")
SIDES = ("train", "validation", "test")
LABEL_COLUMNS = ("audio", "id", "speaker", "gender", "emotion", "partition")
STANDARD_DIMENSIONS = ("activation", "valence", "dominance")
DIMENSION_SOURCES = ("rated", "norm-derived", "synthetic", "none")
RESERVED = {*LABEL_COLUMNS, "shares", "video", "shard", "row", "waveform"}
KEYS = {
    "name", "license", "citation", "source", "path", "audio_folder", "columns", "scale", "emotions", "dimensions",
    "dimensions_source", "splits", "config", "split", "revision",
}  # fmt: skip
PACKED_KEYS = {
    "name", "license", "citation", "source", "emotions", "dimensions", "dimensions_source", "splits", "shards",
    "index", "clips", "quarantined", "packed_from",
}  # fmt: skip
OTHER_NAMES = {"arousal": "activation"}


@dataclass(frozen=True)
class Description:
    """A checked YAML file.

    Attributes:
        file: where it stands, for messages.
        base: folder or URL from which relative paths start.
        info: the corpus's facts.
        source: one of `SOURCES`.
        path: of the clips' table, folder or shards below `base`, or a Hub id.
        audio_folder: where relative audio paths start; None for beside the table.
        columns: from our name to the source's.
        scale: lowest and highest rating of each dimension.
        emotions: from the source's word to ours, None for words that are no label.
        splits: `"partition"`, lists of speakers by side, or `{"seed", "shares"}`; None without.
        hub: configuration, split and revision of a Hub data set.
        shards: files of a packed corpus, below `base`.
        index: the table of a corpus packed into tars.
    """

    file: str
    base: str
    info: CorpusInfo
    source: str
    path: str = ""
    audio_folder: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    scale: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    emotions: Mapping[str, str | None] = field(default_factory=dict)
    splits: Any = None
    hub: Mapping[str, str] = field(default_factory=dict)
    shards: tuple[str, ...] = ()
    index: str | None = None

    def at(self, path: str) -> str:
        """A path of the description as one that can be opened."""
        if "://" in path or Path(path).is_absolute():
            return path
        return f"{self.base}/{path}" if "://" in self.base else str(Path(self.base) / path)


def describe(file: str, path: str | None = None) -> Description:
    """Read and check a description.

    Args:
        file: path or URL of the YAML file.
        path: folder from which the paths in it start; by default its own.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for anything in it that is unknown, missing or cannot be.
    """
    try:
        with fsspec.open(file, "r", encoding="utf-8") as opened:
            values = yaml.safe_load(opened)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"Expected the description of a corpus in `{file}`, got no such file. Write one (docs/your_own_data.md)."
        ) from error
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: expected YAML, got {error}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file}: expected keys such as `name:` and `source:`, got {type(values).__name__}.")
    base = path or (file.rsplit("/", 1)[0] if "://" in file else str(Path(file).parent))
    source = _text(file, values, "source")
    one_of(file, "source", source, SOURCES)
    known = PACKED_KEYS if source == "packed" else KEYS
    if unknown := sorted(set(values) - known, key=str):
        raise ValueError(f"{file}: expected keys among {sorted(known)}, got {unknown}. Correct or remove them.")
    return _packed(file, base, values) if source == "packed" else _written(file, base, source, values)


def _written(file: str, base: str, source: str, values: dict[str, Any]) -> Description:
    """A description that a person wrote."""
    columns, dimensions = _columns(file, values)
    emotions = _emotions(file, values.get("emotions"))
    if ("emotion" in columns) != bool(emotions):
        raise ValueError(
            f"{file}: expected `emotions` and a column `emotion` together, got only one of them. List the category "
            "names under `emotions`, or leave both out."
        )
    hub: dict[str, str] = {key: _text(file, values, key) for key in ("config", "split", "revision") if key in values}
    if hub and source != "hub":
        raise ValueError(f"{file}: expected {sorted(hub)} with `source: hub` alone, got `source: {source}`.")
    if "audio_folder" in values and source not in {"csv", "parquet"}:
        raise ValueError(f"{file}: expected `audio_folder` with `source: csv` or `parquet`, got `source: {source}`.")
    if values.get("splits") == "partition" and "partition" not in columns and source != "hub":
        raise ValueError(
            f"{file}: expected a column `partition` for `splits: partition`, got {sorted(columns)}. Name it under "
            "`columns`, or list the speakers of each side."
        )
    return Description(
        file=file,
        base=base,
        info=_info(file, values, tuple(dict.fromkeys(word for word in emotions.values() if word)), dimensions),
        source=source,
        path=_text(file, values, "path"),
        audio_folder=_text(file, values, "audio_folder") if "audio_folder" in values else None,
        columns=columns,
        scale=_scale(file, values, dimensions),
        emotions=emotions,
        splits=_splits(file, values.get("splits")),
        hub=hub,
    )


def _packed(file: str, base: str, values: dict[str, Any]) -> Description:
    """A description that `recipes/pack.py` wrote."""
    shards = _texts(file, "shards", values.get("shards"))
    emotions = _texts(file, "emotions", values.get("emotions"))
    dimensions = _texts(file, "dimensions", values.get("dimensions"))
    return Description(
        file=file,
        base=base,
        info=_info(file, values, emotions, dimensions),
        source="packed",
        splits=_splits(file, values.get("splits")),
        shards=shards,
        index=values.get("index"),
    )


def _info(file: str, values: dict[str, Any], emotions: tuple[str, ...], dimensions: tuple[str, ...]) -> CorpusInfo:
    name = _text(file, values, "name")
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"{file}: expected `name` of letters, digits, `.`, `_` and `-`, got {name!r}.")
    origin: Any = values.get("dimensions_source", None if dimensions else "none")
    one_of(file, "dimensions_source", origin, DIMENSION_SOURCES)
    if (origin == "none") != (not dimensions):
        raise ValueError(
            f"{file}: expected `dimensions_source: none` just where there are no dimensions, got {origin}."
        )
    return CorpusInfo(
        name=name,
        license=_text(file, values, "license"),
        citation=_text(file, values, "citation"),
        emotions=emotions,
        dimensions_source=origin,
        dimensions=dimensions,
    )


def _columns(file: str, values: dict[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Our names to the source's, and the dimensions in their order."""
    given = values.get("columns")
    if not isinstance(given, dict) or "audio" not in given:
        raise ValueError(f"{file}: expected `columns: {{audio: ..., ...}}`, got {given!r}. Name the column of audio.")
    columns: dict[str, str] = {}
    for name, column in given.items():
        if not isinstance(name, str) or not isinstance(column, str):
            raise ValueError(f"{file}: expected the name of a column for `{name}`, got {column!r}. Put it in quotes.")
        columns[OTHER_NAMES.get(name, name)] = column
    if len(columns) < len(given):
        raise ValueError(f"{file}: expected `activation` or `arousal`, two names of one dimension, got both.")
    rated = [name for name in columns if name not in LABEL_COLUMNS]
    if values.get("dimensions") is None:
        dimensions = tuple(name for name in STANDARD_DIMENSIONS if name in rated)
    else:
        dimensions = _texts(file, "dimensions", values["dimensions"])
        dimensions = tuple(OTHER_NAMES.get(name, name) for name in dimensions)
    if unknown := sorted(set(rated) - set(dimensions), key=str):
        raise ValueError(
            f"{file}: expected `columns` among {list(LABEL_COLUMNS)}, {list(STANDARD_DIMENSIONS)} and the names under "
            f"`dimensions`, got {unknown}. Correct the name, or list it under `dimensions`."
        )
    if without := sorted(set(dimensions) - set(rated)):
        raise ValueError(f"{file}: expected a column for each of `dimensions`, got none for {without}.")
    if wrong := [name for name in dimensions if name in RESERVED or not re.fullmatch(r"[A-Za-z]\w*", name)]:
        raise ValueError(f"{file}: expected `dimensions` of letters, digits and `_`, got {wrong}. Rename them.")
    return columns, dimensions


def _emotions(file: str, given: Any) -> dict[str, str | None]:
    """The source's words to ours: a list says both at once."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        return {word: word for word in _texts(file, "emotions", given)}
    words: dict[str, str | None] = {}
    for word, name in given.items():
        if isinstance(word, bool) or isinstance(name, bool) or not isinstance(name, str | None):
            raise ValueError(
                f"{file}: expected `emotions` from a value of the column to a name (or to null for no label), got "
                f"{word!r}: {name!r}. Put both in quotes; without them YAML reads `no` and `off` as false."
            )
        words[str(word)] = name
    if not any(words.values()):
        raise ValueError(f"{file}: expected at least one name in `emotions`, got none.")
    return words


def _scale(file: str, values: dict[str, Any], dimensions: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    given = values.get("scale")
    if not dimensions and given is None:
        return {}
    if isinstance(given, dict):
        scales: dict[str, Any] = {OTHER_NAMES.get(str(name), str(name)): pair for name, pair in given.items()}
    else:
        scales = dict.fromkeys(dimensions, given)
    if set(scales) != set(dimensions):
        raise ValueError(f"{file}: expected `scale` of each of {list(dimensions)}, got it of {sorted(scales)}.")
    for name, pair in scales.items():
        numbers = isinstance(pair, list) and [type(value) in (int, float) for value in pair] == [True, True]
        if not numbers or pair[0] == pair[1]:
            raise ValueError(
                f"{file}: expected `scale` of `{name}` as two numbers, the ratings that mean 0 and 1 (`[1, 5]`), got "
                f"{pair!r}."
            )
    return {name: (float(pair[0]), float(pair[1])) for name, pair in scales.items()}


def _splits(file: str, given: Any) -> Any:
    if given is None or given == "partition":
        return given
    if not isinstance(given, dict):
        raise ValueError(f"{file}: expected `splits` as `partition`, lists of speakers, or `shares`, got {given!r}.")
    if "shares" in given:
        shares = given["shares"]
        if set(given) - {"shares", "seed"} or type(given.get("seed", 0)) is not int or given.get("seed", 0) < 0:
            raise ValueError(f"{file}: expected `splits: {{shares: ..., seed: 0}}`, got {given!r}.")
        sums = isinstance(shares, dict) and set(shares) <= set(SIDES)
        sums = sums and all(type(share) in (int, float) and share >= 0 for share in shares.values())
        if not sums or not math.isclose(sum(shares.values()), 1.0, abs_tol=1e-6):
            raise ValueError(f"{file}: expected `shares` of {SIDES} that sum to 1, got {shares!r}.")
        return given
    if unknown := sorted(set(given) - set(SIDES), key=str):
        raise ValueError(f"{file}: expected `splits` of {SIDES}, got {unknown}.")
    return {side: _texts(file, f"splits: {side}", speakers) for side, speakers in given.items()}


def _text(file: str, values: dict[str, Any], key: str) -> str:
    value = values.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{file}: expected text for `{key}`, got {value!r}. Add it; docs/your_own_data.md says what.")
    return value


def _texts(file: str, key: str, given: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(value, str) and value for value in given):
        raise ValueError(
            f"{file}: expected `{key}` as a list of texts, got {given!r}. Put numbers, `no`, `yes` and `off` in "
            "quotes: without them YAML does not read text."
        )
    if len(set(given)) < len(given):
        raise ValueError(f"{file}: expected `{key}` without repetition, got {given!r}.")
    return tuple(given)


def one_of(file: str, key: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raise a `ValueError` unless the value of a key is among the allowed ones."""
    if value not in allowed:
        raise ValueError(f"{file}: expected `{key}` among {list(allowed)}, got {value!r}.")


def some(names: list[str], most: int = 5) -> str:
    """The first few names, and how many more."""
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


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


logger = logging.getLogger(__name__)


def described_split(file: str, path: str | None = None) -> dict[str, tuple[str, ...]]:
    """Speakers of each side, as the description's `splits` say: `{"train", "validation", "test"}`.

    By `splits: partition` a speaker may have clips that are on no side: `described_sides` names them.

    Args:
        file: path or URL of the description.
        path: folder from which the paths in it start; by default its own.

    Raises:
        ValueError: as `described_sides`.
    """
    split = described_sides(file, path)
    return {"train": split.train, "validation": split.validation, "test": split.test}


def described_sides(file: str, path: str | None = None) -> Split:
    """The split that a description's `splits` say: speakers of each side, and the clips of theirs that are on none.

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
    left_out: frozenset[str] = frozenset()
    if splits == "partition":
        sides, left_out = _partition_sides(description, path)
    else:
        present = sorted({row["speaker"] for row in described_rows(file, path)})
        if "shares" in splits:
            sides = _random_sides(present, splits["shares"], splits.get("seed", 0))
        else:
            sides = {side: tuple(f"{name}/{speaker}" for speaker in splits.get(side, ())) for side in SIDES}
        named = {speaker for speakers in sides.values() for speaker in speakers}
        if absent := sorted(named - set(present)):
            raise ValueError(
                f"{file}: expected clips of every speaker in `splits`, got none of {some(absent)}. The corpus has "
                f"{some(present)}."
            )
        if unused := sorted(set(present) - named):
            logger.warning("%s: the speakers %s are on no side.", file, some(unused))
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        if both := sorted(set(sides[first]) & set(sides[second])):
            raise ValueError(
                f"{file}: expected every speaker on one side, got {some(both)} in `{first}` and in `{second}`. Take "
                "them out of one: a model is not tested on voices that it knows."
            )
    return Split(sides["train"], sides["validation"], sides["test"], left_out=left_out)


def _partition_sides(description: Description, path: str | None) -> tuple[dict[str, tuple[str, ...]], frozenset[str]]:
    """Who speaks in each of the corpus's own partitions, and the ids of clips that are in none of the three."""
    found: dict[str, set[str]] = {side: set() for side in SIDES}
    others: dict[str, str | None] = {}
    for row in described_rows(description.file, path):
        if row["partition"] in SIDES:
            found[row["partition"]].add(row["speaker"])
        else:
            others[row["id"]] = row["partition"]
    if others:
        logger.warning(
            "%s: clips of the partitions %s are on no side, %d in all.",
            description.file,
            sorted({str(name) for name in others.values()}),
            len(others),
        )
    return {side: tuple(sorted(found[side])) for side in SIDES}, frozenset(others)


def _random_sides(speakers: list[str], shares: Mapping[str, float], seed: int) -> dict[str, tuple[str, ...]]:
    """Speakers permuted by the seed and dealt out by shares, at least one to every side with a share."""
    wanted = [side for side in SIDES if shares.get(side, 0) > 0]
    if len(speakers) < len(wanted):
        raise ValueError(
            f"Expected at least {len(wanted)} speakers for {wanted}, got {some(speakers)}. Name fewer sides in "
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
