"""A user's corpus, described by one YAML file: its terms, clips, columns, rating scales, emotions and splits.

docs/your_own_data.md explains every key. `recipes/pack.py` writes descriptions of the same kind (`source: packed`).
"""

from __future__ import annotations

import copy
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import yaml
from datasets import Value

from audio_emotion.data.corpora.corpus_info import CorpusInfo
from audio_emotion.data.protocols import SPLITS, Protocol, assert_disjoint, random_protocol
from audio_emotion.data.shards import audio_column, hub_files, parquet_features, read_labels, read_table

logger = logging.getLogger(__name__)

SOURCES = ("csv", "parquet", "audiofolder", "webdataset", "hub", "packed")
LABEL_COLUMNS = ("audio", "id", "speaker", "gender", "emotion", "partition")
STANDARD_DIMENSIONS = ("activation", "valence", "dominance")
SYNONYMS = {"arousal": "activation"}
DIMENSION_SOURCES = ("rated", "norm-derived", "norm-derived-pad", "synthetic", "none")
RESERVED = {*LABEL_COLUMNS, "probabilities", "video", "shard", "row", "waveform"}
COMMON_KEYS = {"name", "license", "citation", "source", "emotions", "dimensions", "dimensions_source", "splits"}
KEYS = COMMON_KEYS | {"path", "audio_folder", "columns", "scale", "config", "split", "revision"}
PACKED_KEYS = COMMON_KEYS | {"shards", "index", "clips", "quarantined", "packed_from"}
PARTITIONS = {"dev": "validation", "development": "validation", "valid": "validation", "val": "validation"}
GENDERS = {
    **dict.fromkeys(("male", "m", "man"), "male"),
    **dict.fromkeys(("female", "f", "woman"), "female"),
    **dict.fromkeys(("other", "unknown", "nonbinary", "non-binary"), None),
}
AUDIO_SUFFIXES = {
    *(".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a"),
    *(".mp4", ".webm", ".flv", ".avi", ".mkv", ".mov"),  # videos, of which the audio is read
}
NO_AUDIO = {"bytes": None, "path": None}  # of a clip in a shard

Record = tuple[str, dict[str, Any], dict[str, Any]]  # location for messages, columns, `audio` (and `shard`, `row`)


def load_custom_corpus(file: str, path: str | None = None) -> CustomCorpus:
    """Read and check a description; it is parsed again only if its text has changed.

    Args:
        file: path or URL of the YAML file.
        path: folder from which the paths in it start; by default the folder of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a key or value that is unknown, missing or invalid.
    """
    try:
        with fsspec.open(file, "r", encoding="utf-8") as opened:
            text = opened.read()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"Expected the description of a corpus in `{file}`, got no such file. Write one (docs/your_own_data.md)."
        ) from error
    return copy.copy(_parsed(file, path, text))  # a copy looks for its files again


@lru_cache(maxsize=8)
def _parsed(file: str, path: str | None, text: str) -> CustomCorpus:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: expected YAML, got {error}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file}: expected keys such as `name:` and `source:`, got {type(values).__name__}.")
    return CustomCorpus(file, path, values)


class CustomCorpus:
    """A checked description, and the clips that it describes.

    Args:
        file: of the description, for messages.
        path: folder or URL from which relative paths start; None for the folder of the file.
        values: keys and values of the YAML file.

    Attributes:
        info: facts of the corpus.
        source: one of `SOURCES`.
        columns: source column of each column of ours.
        scale: lowest and highest rating of each dimension.
        emotions: our name for each value of the emotion column; None where the value is no label.
        splits: `"partition"`, lists of speakers by split, `{"fractions", "seed"}`, or None.
    """

    def __init__(self, file: str, path: str | None, values: dict[str, Any]) -> None:
        self.file, self.values = file, values
        self.base = path or (file.rsplit("/", 1)[0] if "://" in file else str(Path(file).parent))
        self.source = self._one_of("source", self._text("source"), SOURCES)
        known = PACKED_KEYS if self.source == "packed" else KEYS
        if unknown := sorted(set(values) - known, key=str):
            raise self._error(f"keys among {sorted(known)}, got {unknown}. Correct or remove them.")
        self.columns: dict[str, str] = {}
        self.scale: dict[str, tuple[float, float]] = {}
        if self.source == "packed":
            self.emotions: dict[str, str | None] = {name: name for name in self._texts("emotions")}
            dimensions = self._texts("dimensions")
            self._texts("shards")
        else:
            self.columns, dimensions = self._parse_columns()
            self.emotions = self._parse_emotions()
            self.scale = self._parse_scale(dimensions)
            self._check_source()
        self.splits = self._parse_splits()
        self.info = self._parse_info(dimensions)

    # ------------------------------------------------------------------ values of the YAML file

    def _error(self, expected: str) -> ValueError:
        return ValueError(f"{self.file}: expected {expected}")

    def _one_of(self, key: str, value: Any, allowed: Iterable[str]) -> Any:
        if value not in (allowed := list(allowed)):
            raise self._error(f"`{key}` among {allowed}, got {value!r}.")
        return value

    def _text(self, key: str) -> str:
        value = self.values.get(key)
        if not isinstance(value, str) or not value:
            raise self._error(f"text for `{key}`, got {value!r}. Add it; docs/your_own_data.md explains the keys.")
        return value

    def _texts(self, key: str, values: Mapping[str, Any] | None = None, label: str = "") -> tuple[str, ...]:
        given = (self.values if values is None else values).get(key)
        if not isinstance(given, list) or not all(isinstance(value, str) and value for value in given):
            raise self._error(
                f"`{label or key}` as a list of texts, got {given!r}. Put numbers, `no`, `yes` and `off` in quotes: "
                "without them YAML does not read text."
            )
        if len(set(given)) < len(given):
            raise self._error(f"`{label or key}` without repetition, got {given!r}.")
        return tuple(given)

    def _parse_info(self, dimensions: tuple[str, ...]) -> CorpusInfo:
        name = self._text("name")
        if not re.fullmatch(r"[\w.-]+", name):
            raise self._error(f"`name` of letters, digits, `.`, `_` and `-`, got {name!r}.")
        origin = self.values.get("dimensions_source", None if dimensions else "none")
        origin = self._one_of("dimensions_source", origin, DIMENSION_SOURCES)
        if (origin == "none") != (not dimensions):
            raise self._error(f"`dimensions_source: none` exactly where there are no dimensions, got {origin}.")
        emotions = tuple(dict.fromkeys(name for name in self.emotions.values() if name))
        return CorpusInfo(name, self._text("license"), self._text("citation"), emotions, origin, dimensions)

    def _parse_columns(self) -> tuple[dict[str, str], tuple[str, ...]]:
        """Source columns by our names, and the dimensions in their order."""
        given = self.values.get("columns")
        if not isinstance(given, dict) or "audio" not in given:
            raise self._error(f"`columns: {{audio: ..., ...}}`, got {given!r}. Name the column of audio.")
        for name, column in given.items():
            if not isinstance(name, str) or not isinstance(column, str):
                raise self._error(f"the name of a column for `{name}`, got {column!r}. Put it in quotes.")
        columns = {str(SYNONYMS.get(name, name)): column for name, column in given.items()}
        if len(columns) < len(given):
            raise self._error("`activation` or `arousal`, two names of one dimension, got both.")
        rated = [name for name in columns if name not in LABEL_COLUMNS]
        if self.values.get("dimensions") is None:
            dimensions = tuple(name for name in STANDARD_DIMENSIONS if name in rated)
        else:
            dimensions = tuple(SYNONYMS.get(name, name) for name in self._texts("dimensions"))
        if unknown := sorted(set(rated) - set(dimensions), key=str):
            raise self._error(
                f"`columns` among {list(LABEL_COLUMNS)}, {list(STANDARD_DIMENSIONS)} and the names under "
                f"`dimensions`, got {unknown}. Correct the name, or list it under `dimensions`."
            )
        if without := sorted(set(dimensions) - set(rated)):
            raise self._error(f"a column for each of `dimensions`, got none for {without}.")
        if wrong := [name for name in dimensions if name in RESERVED or not re.fullmatch(r"[A-Za-z]\w*", name)]:
            raise self._error(f"`dimensions` of letters, digits and `_`, got {wrong}. Rename them.")
        return columns, dimensions

    def _parse_emotions(self) -> dict[str, str | None]:
        given = self.values.get("emotions")
        emotions: dict[str, str | None] = {}
        if isinstance(given, dict):
            for value, name in given.items():
                if isinstance(value, bool) or isinstance(name, bool) or not isinstance(name, str | None):
                    raise self._error(
                        f"`emotions` from a value of the column to a name (or to null for no label), got {value!r}: "
                        f"{name!r}. Put both in quotes; without them YAML reads `no` and `off` as false."
                    )
                emotions[str(value)] = name
            if not any(emotions.values()):
                raise self._error("at least one name in `emotions`, got none.")
        elif given is not None:
            emotions = {name: name for name in self._texts("emotions")}
        if ("emotion" in self.columns) != bool(emotions):
            raise self._error(
                "`emotions` and a column `emotion` together, got only one of them. List the category names under "
                "`emotions`, or leave both out."
            )
        return emotions

    def _parse_scale(self, dimensions: tuple[str, ...]) -> dict[str, tuple[float, float]]:
        given = self.values.get("scale")
        if not dimensions and given is None:
            return {}
        if isinstance(given, dict):
            scale: dict[str, Any] = {SYNONYMS.get(str(name), str(name)): pair for name, pair in given.items()}
        else:
            scale = dict.fromkeys(dimensions, given)
        if set(scale) != set(dimensions):
            raise self._error(f"`scale` of each of {list(dimensions)}, got it of {sorted(scale)}.")
        for name, pair in scale.items():
            numbers = isinstance(pair, list) and [type(value) in (int, float) for value in pair] == [True, True]
            if not numbers or pair[0] == pair[1]:
                raise self._error(
                    f"`scale` of `{name}` as two numbers, the ratings that mean 0 and 1 (`[1, 5]`), got {pair!r}."
                )
        return {name: (float(low), float(high)) for name, (low, high) in scale.items()}

    def _check_source(self) -> None:
        """Check keys that some sources require, or do not have."""
        self._text("path")
        for key in ("audio_folder", "config", "split", "revision"):
            allowed = ("csv", "parquet") if key == "audio_folder" else ("hub",)
            if key in self.values and self._text(key) and self.source not in allowed:
                raise self._error(f"`{key}` with `source: {' or '.join(allowed)}` only, got `source: {self.source}`.")
        if self.values.get("splits") == "partition" and "partition" not in self.columns and self.source != "hub":
            raise self._error(
                f"a column `partition` for `splits: partition`, got {sorted(self.columns)}. Name it under `columns`, "
                "or list the speakers of each split."
            )

    def _parse_splits(self) -> Any:
        given = self.values.get("splits")
        if given is None or given == "partition":
            return given
        if not isinstance(given, dict):
            raise self._error(f"`splits` as `partition`, lists of speakers, or `fractions`, got {given!r}.")
        if "fractions" not in given:
            if unknown := sorted(set(given) - set(SPLITS), key=str):
                raise self._error(f"`splits` of {SPLITS}, got {unknown}.")
            return {split: self._texts(split, given, f"splits: {split}") for split in given}
        fractions, seed = given["fractions"], given.get("seed", 0)
        if set(given) - {"fractions", "seed"} or type(seed) is not int or seed < 0:
            raise self._error(f"`splits: {{fractions: ..., seed: 0}}`, got {given!r}.")
        numbers = isinstance(fractions, dict) and set(fractions) <= set(SPLITS)
        numbers = numbers and all(type(value) in (int, float) and value >= 0 for value in fractions.values())
        if not numbers or not math.isclose(sum(fractions.values()), 1.0, abs_tol=1e-6):
            raise self._error(f"`fractions` of {SPLITS} that sum to 1, got {fractions!r}.")
        return given

    # ------------------------------------------------------------------ files

    def _resolve(self, path: str) -> str:
        """A path of the description as one that can be opened."""
        if "://" in path or Path(path).is_absolute():
            return path
        return f"{self.base}/{path}" if "://" in self.base else str(Path(self.base) / path)

    def _files(self, suffix: str) -> list[str]:
        """Files of `path`, which may be one file, a folder, or a pattern; sorted."""
        path = self._resolve(self.values["path"])
        if "://" in path:
            return [path]
        found = [Path(path)] if Path(path).is_file() else sorted(Path(path).glob(f"*{suffix}"))
        found = found or sorted(Path(path).parent.glob(Path(path).name))
        if not found:
            raise FileNotFoundError(
                f"{self.file}: expected `{suffix}` files in `{path}`, got none. Correct `path`: a file, a folder or a "
                "pattern such as `part-*.parquet`."
            )
        return [str(file) for file in found]

    @property
    def shards(self) -> list[str]:
        """Paths or URLs of the files that `shard` in the rows refers to; empty where clips are single files."""
        return [shard for shard, _ in self._shards]

    @cached_property
    def _shards(self) -> list[tuple[str, str | None]]:
        """Files that contain the audio, each with its split on the Hub."""
        if self.source == "packed":
            return [(self._resolve(name), None) for name in self.values["shards"]]
        if self.source == "webdataset":
            return [(file, None) for file in self._files(".tar")]
        if self.source == "parquet":
            files = self._files(".parquet")
            types = parquet_features(files[0])
            self._check_columns(files[0], types)
            return [] if types[self.columns["audio"]] == Value("string") else [(file, None) for file in files]
        return self._hub_shards() if self.source == "hub" else []

    def _hub_shards(self) -> list[tuple[str, str | None]]:
        name, local = self.values["path"], self._resolve(self.values["path"])
        source = local if Path(local).is_dir() else name  # a folder of the same layout is read without a network
        files = hub_files(source, self.values.get("config"), self.values.get("revision"))
        if (only := self.values.get("split")) is not None:
            files = {only: files[self._one_of("split", only, files)]}
        shards: list[tuple[str, str | None]] = [(file, split) for split, each in files.items() for file in each]
        if unreadable := [file for file, _ in shards if not file.endswith((".parquet", ".tar"))]:
            raise self._error(
                f"the Hub data set `{name}` in parquet files or tars, got {_some(unreadable)}. Try `revision: "
                "refs/convert/parquet`, where the Hub keeps a converted copy, or download it and describe the files."
            )
        return shards

    # ------------------------------------------------------------------ rows

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every clip, in the order of the source; a clip in a shard has its `shard` and `row` in place of audio.

        Raises:
            FileNotFoundError: naming audio files that do not exist.
            ValueError: naming the row and the value that the description does not allow, and what it allows.
        """
        return self._packed_rows() if self.source == "packed" else self._checked_rows()

    def _packed_rows(self) -> Iterator[dict[str, Any]]:
        if (index := self.values.get("index")) is not None:
            for row in read_labels(self._resolve(index)):
                yield {**row, "audio": NO_AUDIO}
            return
        for number, shard in enumerate(self.shards):
            for index, row in enumerate(read_labels(shard)):
                yield {**row, "audio": NO_AUDIO, "shard": number, "row": index}

    def _checked_rows(self) -> Iterator[dict[str, Any]]:
        paths = () if self._shards else (place["audio"]["path"] for _, _, place in self._records())
        if missing := [path for path in paths if not Path(path).is_file()]:
            raise FileNotFoundError(
                f"{self.file}: expected the audio file of every clip, got no file {_some(missing)}. Correct "
                "`audio_folder` or the paths, or remove these clips from the table."
            )
        self._warn_of_skipped_files()
        seen: dict[str, str] = {}
        without_speaker = 0
        for where, record, place in self._records():
            row = self._row(where, record) | place
            if row["id"] in seen:
                raise ValueError(
                    f"{where}: expected ids that differ, got {row['id']!r} here and in {seen[row['id']]}. Name a "
                    "column of unique values under `columns: {id: ...}`, or remove one of the two."
                )
            seen[row["id"]] = where
            if row["speaker"] is None:
                row["speaker"] = row["id"]
                without_speaker += 1
            yield row
        if not seen:
            raise self._error(f"clips in `{self.values['path']}`, got none.")
        if without_speaker:
            logger.warning(
                "%s: %d of %d clips have no speaker; each counts as a speaker. If one person speaks in several of "
                "them, the same speaker can be in two splits: name a column under `columns: {speaker: ...}`.",
                self.file,
                without_speaker,
                len(seen),
            )

    def _row(self, where: str, record: Mapping[str, Any]) -> dict[str, Any]:
        """Labels of a clip, with our names and dimensions in 0..1."""

        def value(key: str) -> str | None:
            found = record[self.columns[key]] if key in self.columns else None
            if found is None or (isinstance(found, float) and math.isnan(found)):
                return None
            return str(found).strip() or None

        emotion, gender, speaker = value("emotion"), value("gender"), value("speaker")
        if emotion is not None and emotion not in self.emotions:
            raise ValueError(
                f"{where}: expected an emotion among {list(self.emotions)}, got {emotion!r}. Add it to `emotions` (as "
                "`value: null` if it is no label), or correct the row."
            )
        if gender is not None and gender.lower() not in GENDERS:
            raise ValueError(f"{where}: expected a gender among {sorted(GENDERS)} or none, got {gender!r}.")
        partition = value("partition") or record.get("__partition__")
        row = {
            "id": f"{self.info.name}/{value('id') or record['__id__']}",
            "speaker": None if speaker is None else f"{self.info.name}/{speaker}",
            "gender": None if gender is None else GENDERS[gender.lower()],
            "emotion": None if emotion is None else self.emotions[emotion],
            "partition": None if partition is None else PARTITIONS.get(partition.lower(), partition),
        }
        ratings = {name: (value(name), *ends) for name, ends in self.scale.items()}
        return row | {
            name: text and _rating(where, name, text, low, high) for name, (text, low, high) in ratings.items()
        }

    def _records(self) -> Iterator[Record]:
        if self.source == "csv":
            yield from self._table_records(self._resolve(self.values["path"]), self.values.get("audio_folder"))
        elif self.source == "audiofolder":
            yield from self._folder_records()
        elif self._shards:
            yield from self._shard_records()
        else:
            for file in self._files(".parquet"):
                yield from self._table_records(file, self.values.get("audio_folder"))

    def _table_records(self, file: str, audio_folder: str | None = None) -> Iterator[Record]:
        """Rows of a CSV, JSON Lines or parquet table with paths of audio files."""
        if not Path(file).is_file():
            raise FileNotFoundError(
                f"{self.file}: expected the table of clips in `{file}`, got no such file. Correct `path`."
            )
        folder = Path(file).parent if audio_folder is None else Path(self._resolve(audio_folder))
        columns, records = read_table(file)
        self._check_columns(file, columns)
        for number, record in enumerate(records, start=1):
            where = f"{file}, row {number}"
            audio = str(record[self.columns["audio"]] or "").strip()
            if not audio:
                raise ValueError(f"{where}: expected the path of a clip, got none. Fill it in, or remove the row.")
            record["__id__"] = Path(audio).with_suffix("").as_posix()
            yield where, record, {"audio": {"bytes": None, "path": str(folder / audio)}}

    def _folder_records(self) -> Iterator[Record]:
        """Clips of a folder, labeled by its `metadata.csv` or `metadata.jsonl`, or by the names of their folders."""
        root = Path(self._resolve(self.values["path"]))
        if (table := _metadata_file(root)) is not None:
            yield from self._table_records(str(table))
            return
        if not root.is_dir():
            raise FileNotFoundError(f"{self.file}: expected a folder of clips in `{root}`, got none there.")
        numbered = [re.fullmatch(r"folder_(\d+)", column) for column in self.columns.values()]
        depth = max((int(match[1]) for match in numbered if match), default=0)
        self._check_columns(str(root), ["file_name", "label", *(f"folder_{level}" for level in range(1, depth + 1))])
        for path in _visible_files(root):
            if path.suffix.lower() not in AUDIO_SUFFIXES:
                continue
            relative = path.relative_to(root)
            folders = relative.parent.parts
            if len(folders) < depth:
                raise ValueError(
                    f"{path}: expected at least {depth} folders below `{root}`, got fewer. Move the file."
                )
            record = {"file_name": relative.as_posix(), "label": path.parent.name}
            record |= {f"folder_{level}": name for level, name in enumerate(folders, start=1)}
            record["__id__"] = relative.with_suffix("").as_posix()
            yield str(path), record, {"audio": {"bytes": None, "path": str(path)}}

    def _warn_of_skipped_files(self) -> None:
        root = Path(self._resolve(self.values["path"]))
        if self.source != "audiofolder" or _metadata_file(root) is not None:
            return
        suffixes = Counter(path.suffix.lower() for path in _visible_files(root))
        if skipped := [
            f"{suffixes[name]} {name or 'without a suffix'}" for name in sorted({*suffixes} - AUDIO_SUFFIXES)
        ]:
            logger.warning(
                "%s: skipped %s in `%s`; clips are files of %s.",
                self.file,
                ", ".join(skipped),
                self.values["path"],
                ", ".join(sorted(AUDIO_SUFFIXES)),
            )

    def _shard_records(self) -> Iterator[Record]:
        """Clips of parquet files or tars that contain the audio, which stays there."""
        label_columns = [column for name, column in self.columns.items() if name != "audio"]
        for number, (shard, split) in enumerate(self._shards):
            tar = shard.endswith(".tar")
            if not tar:
                self._check_columns(shard, parquet_features(shard))
                if (audio := audio_column(shard)) != self.columns["audio"]:
                    raise ValueError(
                        f"{shard}: expected the audio in the column `{self.columns['audio']}`, got it in `{audio}`. "
                        "Correct `columns: {audio: ...}`, or name the column that you mean `audio`."
                    )
            for index, record in enumerate(read_labels(shard, None if tar else label_columns)):
                where = f"{shard}, row {index + 1}"
                if tar:
                    self._check_columns(where, [*record, record["audio"] or "no audio"])
                record["__id__"] = record["__key__"] if tar else f"{number:05d}-{index:06d}"
                record["__partition__"] = split
                yield where, record, {"audio": NO_AUDIO, "shard": number, "row": index}

    def _check_columns(self, where: str, present: Iterable[str]) -> None:
        if missing := sorted(set(self.columns.values()) - set(present)):
            raise ValueError(
                f"{where}: expected the columns {sorted(self.columns.values())}, got none called {missing} among "
                f"{list(present)}. Correct `columns` in `{self.file}`."
            )

    # ------------------------------------------------------------------ splits

    def protocol(self, clips: Iterable[Mapping[str, Any]] | None = None) -> Protocol:
        """The division that `splits` describes: speakers of each split, and clips that are in none.

        Args:
            clips: `id`, `speaker` and `partition` of every clip, where they have been read already.

        Raises:
            ValueError: without `splits`; naming speakers that are in two splits, or have no clip.
        """
        if self.splits is None:
            raise self._error(
                "`splits`, got none. Add `splits: {fractions: {train: 0.8, test: 0.2}, seed: 0}` for random splits of "
                "the speakers, lists of speakers, or `splits: partition` for a column of the corpus."
            )
        clips = list(self.rows() if clips is None else clips)
        present = sorted({clip["speaker"] for clip in clips})
        if self.splits == "partition":
            return self._partition_protocol(clips)
        if "fractions" in self.splits:
            return random_protocol(present, self.splits["fractions"], self.splits.get("seed", 0))
        train, validation, test = (
            tuple(f"{self.info.name}/{name}" for name in self.splits.get(split, ())) for split in SPLITS
        )
        named = {*train, *validation, *test}
        if absent := sorted(named - set(present)):
            raise self._error(
                f"clips of every speaker in `splits`, got none of {_some(absent)}. The corpus has {_some(present)}."
            )
        if unused := sorted(set(present) - named):
            logger.warning("%s: the speakers %s are in no split.", self.file, _some(unused))
        protocol = Protocol(train, validation, test)
        assert_disjoint(protocol)
        return protocol

    def _partition_protocol(self, clips: list[Mapping[str, Any]]) -> Protocol:
        train, validation, test = (
            tuple(sorted({clip["speaker"] for clip in clips if clip["partition"] == split})) for split in SPLITS
        )
        left_out = {clip["id"]: str(clip["partition"]) for clip in clips if clip["partition"] not in SPLITS}
        if left_out:
            logger.warning(
                "%s: clips of the partitions %s are in no split, %d in all.",
                self.file,
                sorted(set(left_out.values())),
                len(left_out),
            )
        protocol = Protocol(train, validation, test, left_out=frozenset(left_out))
        assert_disjoint(protocol)
        return protocol


def _rating(where: str, dimension: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not min(low, high) <= value <= max(low, high):
        raise ValueError(
            f"{where}: expected `{dimension}` on the scale {low:g} to {high:g}, got {text!r}. Correct the row, or "
            "`scale`; leave the field empty where there is no rating."
        )
    return (value - low) / (high - low)


def _metadata_file(root: Path) -> Path | None:
    return next((root / name for name in ("metadata.csv", "metadata.jsonl") if (root / name).is_file()), None)


def _visible_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if not path.name.startswith(".") and path.is_file())


def _some(names: list[str], most: int = 5) -> str:
    """The first few names, and the number of others."""
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
