"""The YAML file that describes somebody's own corpus, read and checked.

It says what the corpus is called, under which terms it stands, where its clips are, which column means what, on which
scale the ratings are, and who is on which side of the split; `docs/your_own_data.md` explains every key. What
`recipes/pack.py` writes is described in the same way, with the source `packed`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import yaml

from audio_emotion.training.corpora.corpus import CorpusInfo

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
