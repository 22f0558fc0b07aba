"""A user's corpus, described by one YAML file: its terms, columns, rating scales, emotions and splits.

docs/your_own_data.md explains every key. `recipes/pack.py` writes descriptions of the same kind (`source: packed`).
"""

from __future__ import annotations

import copy
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import yaml

from audio_emotion.data.corpora.corpus_info import CorpusInfo
from audio_emotion.data.protocols import SPLITS, Protocol, assert_disjoint, random_protocol
from audio_emotion.data.shards import NO_FILE, read_labels
from audio_emotion.data.sources import Source, some

logger = logging.getLogger(__name__)

SOURCES = ("csv", "parquet", "audiofolder", "webdataset", "hub", "packed")
LABEL_COLUMNS = ("audio", "id", "speaker", "gender", "emotion", "partition")
STANDARD_DIMENSIONS = ("activation", "valence", "dominance")
SYNONYMS = {"arousal": "activation"}
DIMENSION_SOURCES = ("rated", "norm-derived", "norm-derived-pad", "synthetic", "none")
RESERVED = {*LABEL_COLUMNS, "probabilities", "video", "shard", "row", "waveform"}
COMMON_KEYS = {"name", "license", "citation", "language", "source", "emotions", "dimensions", "dimensions_source"}
KEYS = COMMON_KEYS | {"splits", "path", "audio_folder", "columns", "scale", "config", "split", "revision"}
PACKED_KEYS = COMMON_KEYS | {"splits", "shards", "index", "clips", "quarantined", "packed_from"}
PARTITIONS = {"dev": "validation", "development": "validation", "valid": "validation", "val": "validation"}
GENDERS = {
    **dict.fromkeys(("male", "m", "man"), "male"),
    **dict.fromkeys(("female", "f", "woman"), "female"),
    **dict.fromkeys(("other", "unknown", "nonbinary", "non-binary"), None),
}


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
        with fsspec.open(file, "rb") as opened:
            content = opened.read()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise FileNotFoundError(
            f"Expected the description of a corpus in `{file}`, got no such file. Write one (docs/your_own_data.md)."
        ) from error
    return copy.copy(_parsed(file, path, content))  # a copy looks for its files again


@lru_cache(maxsize=8)
def _parsed(file: str, path: str | None, content: bytes) -> CustomCorpus:
    try:
        values = yaml.safe_load(content)
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
        columns: source column of each column of ours.
        scale: lowest and highest rating of each dimension.
        emotions: our name for each value of the emotion column; None where the value is no label.
        splits: `"partition"`, lists of speakers by split, `{"fractions", "seed"}`, or None.
    """

    def __init__(self, file: str, path: str | None, values: dict[str, Any]) -> None:
        self.file, self.values = file, values
        self.base = path or (file.rsplit("/", 1)[0] if "://" in file else str(Path(file).parent))
        self.is_packed = self._one_of("source", self._text("source"), SOURCES) == "packed"
        known = PACKED_KEYS if self.is_packed else KEYS
        if unknown := sorted(set(values) - known, key=str):
            raise self._error(f"keys among {sorted(known)}, got {unknown}. Correct or remove them.")
        self.columns: dict[str, str] = {}
        self.scale: dict[str, tuple[float, float]] = {}
        if self.is_packed:
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

    def _texts(self, key: str, values: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        given = (self.values if values is None else values).get(key)
        if not isinstance(given, list) or not all(isinstance(value, str) and value for value in given):
            raise self._error(
                f"`{key}` as a list of texts, got {given!r}. Put numbers, `no`, `yes` and `off` in quotes: without "
                "them YAML does not read text."
            )
        if len(set(given)) < len(given):
            raise self._error(f"`{key}` without repetition, got {given!r}.")
        return tuple(given)

    def _parse_info(self, dimensions: tuple[str, ...]) -> CorpusInfo:
        name = self._text("name")
        if not re.fullmatch(r"[\w.-]+", name):
            raise self._error(f"`name` of letters, digits, `.`, `_` and `-`, got {name!r}.")
        origin = self.values.get("dimensions_source", None if dimensions else "none")
        origin = self._one_of("dimensions_source", origin, DIMENSION_SOURCES)
        if (origin == "none") != (not dimensions):
            raise self._error(f"`dimensions_source: none` exactly where there are no dimensions, got {origin}.")
        languages = self.values.get("language", [])
        languages = self._texts("language", {"language": [languages] if isinstance(languages, str) else languages})
        emotions = tuple(dict.fromkeys(name for name in self.emotions.values() if name))
        license, citation = self._text("license"), self._text("citation")
        return CorpusInfo(name, license, citation, emotions, origin, dimensions, languages)

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
        source = self.values["source"]
        for key in ("audio_folder", "config", "split", "revision"):
            allowed = ("csv", "parquet") if key == "audio_folder" else ("hub",)
            if key in self.values and self._text(key) and source not in allowed:
                raise self._error(f"`{key}` with `source: {' or '.join(allowed)}` only, got `source: {source}`.")
        if self.values.get("splits") == "partition" and "partition" not in self.columns and source != "hub":
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
            return {split: self._texts(split, given) for split in given}
        fractions, seed = given["fractions"], given.get("seed", 0)
        if set(given) - {"fractions", "seed"} or type(seed) is not int or seed < 0:
            raise self._error(f"`splits: {{fractions: ..., seed: 0}}`, got {given!r}.")
        numbers = isinstance(fractions, dict) and set(fractions) <= set(SPLITS)
        numbers = numbers and all(type(value) in (int, float) and value >= 0 for value in fractions.values())
        if not numbers or not math.isclose(sum(fractions.values()), 1.0, abs_tol=1e-6):
            raise self._error(f"`fractions` of {SPLITS} that sum to 1, got {fractions!r}.")
        return given

    # ------------------------------------------------------------------ clips

    @cached_property
    def _source(self) -> Source:
        return Source(self.file, self.base, self.columns, self.values)

    @property
    def shards(self) -> list[str]:
        """Paths or URLs of the files that `shard` in the rows refers to; empty where clips are single files."""
        return [shard for shard, _ in self._source.shards]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every clip, in the order of the source; a clip in a shard has its `shard` and `row` in place of audio.

        Raises:
            FileNotFoundError: naming audio files that do not exist.
            ValueError: naming the row and the value that the description does not allow, and what it allows.
        """
        return self._packed_rows() if self.is_packed else self._checked_rows()

    def _packed_rows(self) -> Iterator[dict[str, Any]]:
        if (index := self.values.get("index")) is not None:
            for row in read_labels(self._source.resolve(index)):
                yield {**row, "audio": NO_FILE}
            return
        for number, shard in enumerate(self.shards):
            for index, row in enumerate(read_labels(shard)):
                yield {**row, "audio": NO_FILE, "shard": number, "row": index}

    def _checked_rows(self) -> Iterator[dict[str, Any]]:
        paths = () if self.shards else (place["audio"]["path"] for _, _, place in self._source.records())
        if missing := [path for path in paths if not Path(path).is_file()]:
            raise FileNotFoundError(
                f"{self.file}: expected the audio file of every clip, got no file {some(missing)}. Correct "
                "`audio_folder` or the paths, or remove these clips from the table."
            )
        self._source.warn_of_skipped_files()
        seen: dict[str, str] = {}
        without_speaker = 0
        for where, record, place in self._source.records():
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
            raise self._error(f"clips in `{self.values['path']}`, got none. Correct `path`.")
        if without_speaker:
            message = (
                "%s: %d of %d clips have no speaker; each counts as a speaker. If one person speaks in several of "
                "them, the same speaker can be in two splits: name a column under `columns: {speaker: ...}`."
            )
            logger.warning(message, self.file, without_speaker, len(seen))

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
        left_out: dict[str, str] = {}
        if self.splits == "partition":
            speakers_of = {
                split: {clip["speaker"] for clip in clips if clip["partition"] == split} for split in SPLITS
            }
            named = {split: tuple(sorted(speakers)) for split, speakers in speakers_of.items()}
            left_out = {clip["id"]: str(clip["partition"]) for clip in clips if clip["partition"] not in SPLITS}
            if left_out:
                unused = sorted(set(left_out.values()))
                message = "%s: clips of the partitions %s are in no split, %d in all."
                logger.warning(message, self.file, unused, len(left_out))
        elif "fractions" in self.splits:
            return random_protocol(present, self.splits["fractions"], self.splits.get("seed", 0))
        else:
            prefix = f"{self.info.name}/"
            named = {split: tuple(prefix + name for name in self.splits.get(split, ())) for split in SPLITS}
            every = {name for names in named.values() for name in names}
            if absent := sorted(every - set(present)):
                raise self._error(
                    f"clips of every speaker in `splits`, got none of {some(absent)}. The corpus has {some(present)}. "
                    "Correct or remove these names under `splits`."
                )
            if unused := sorted(set(present) - every):
                logger.warning("%s: the speakers %s are in no split.", self.file, some(unused))
        protocol = Protocol(named["train"], named["validation"], named["test"], left_out=frozenset(left_out))
        assert_disjoint(protocol)
        return protocol


def _rating(where: str, dimension: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not min(low, high) <= value <= max(low, high):
        raise ValueError(
            f"{where}: expected `{dimension}` on the scale {low:g} to {high:g}, with a decimal point, got {text!r}. "
            "Correct the row, or `scale`; leave the field empty where there is no rating."
        )
    return (value - low) / (high - low)
