"""Corpora by name: facts, rows, protocols, and the table in which all corpora look alike.

Every module of `data/corpora` with `INFO` and `rows` is registered under `INFO.name`; [`register_corpus`] adds one
from outside the package. The path of a `.yaml` file is the name of the corpus that it describes (`data/custom.py`).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from datasets import Dataset, Features, List, Value, concatenate_datasets

from audio_emotion.data import corpora
from audio_emotion.data.corpora.corpus_info import CorpusInfo
from audio_emotion.data.custom import load_custom_corpus
from audio_emotion.data.protocols import SPLITS, Protocol, SplitName, divide

# A plain struct: the Audio feature needs torchcodec even where nothing is decoded.
ENCODED = {"bytes": Value("binary"), "path": Value("string")}
OPTIONAL = ("probabilities", "partition", "video", "shard", "row")  # columns that a row may leave out
ROWS_IN_MEMORY = 10_000  # Python objects at one time; VoxCeleb2 has a million rows


@dataclass(frozen=True)
class RegisteredCorpus:
    """A corpus with a reader.

    Attributes:
        info: facts.
        rows: `rows(root, **options)`, the clips in a fixed order; see `corpus_info.py` for what a row contains.
        attributes: `attributes(row, root)`, further facts of a row by which groups are compared, such as age.
        rater_votes: `rater_votes(root)`, by the name of a clip the number of raters that chose each emotion.
    """

    info: CorpusInfo
    rows: Callable[..., Iterator[dict[str, Any]]]
    attributes: Callable[..., dict[str, str]] | None = None
    rater_votes: Callable[..., dict[str, dict[str, float]]] | None = None


CORPORA: dict[str, RegisteredCorpus] = {}


def register_corpus(info: CorpusInfo, rows: Callable[..., Iterator[dict[str, Any]]], **others: Any) -> None:
    """Make a corpus known under its name, with its variants and protocols.

    Args:
        info: facts.
        rows: `rows(root, **options)` of the reader; `options` are those of `info.variants`.
        **others: optional fields of [`RegisteredCorpus`].

    Raises:
        ValueError: for a name that is taken.
    """
    if info.name in CORPORA:
        raise ValueError(f"Expected a name other than {sorted(CORPORA)}, got `{info.name}` again. Rename the corpus.")
    CORPORA[info.name] = RegisteredCorpus(info, rows, **others)


for _module in pkgutil.iter_modules(corpora.__path__):
    _reader = importlib.import_module(f"{corpora.__name__}.{_module.name}")
    if hasattr(_reader, "INFO"):
        _optional = {name: getattr(_reader, name) for name in ("attributes", "rater_votes") if hasattr(_reader, name)}
        register_corpus(_reader.INFO, _reader.rows, **_optional)


def features(dimensions: Sequence[str]) -> Features:
    """Columns of a table, in their order.

    Args:
        dimensions: names of the dimensions of the corpus.
    """
    return Features(
        {
            "id": Value("string"),
            "audio": ENCODED,
            "speaker": Value("string"),
            "gender": Value("string"),
            "emotion": Value("string"),
            **{name: Value("float32") for name in dimensions},
            "probabilities": List(Value("float32")),  # of the emotions of the corpus, sums to 1
            "partition": Value("string"),  # as published
            "video": ENCODED,
            "shard": Value("int32"),  # index into `shard_files`
            "row": Value("int32"),  # in that shard
        }
    )


def corpus_info(corpus: str) -> CorpusInfo:
    """Facts of a corpus.

    Args:
        corpus: a name in `CORPORA`, optionally followed by its variants (`"crema-d/face/video"`), or the path or URL
            of a description that ends in `.yaml`.

    Raises:
        ValueError: for an unknown name, or an invalid description.
    """
    if corpus.endswith(".yaml"):
        return load_custom_corpus(corpus).info
    reader, options, emotions = _registered(corpus)
    source = options.get("dimensions_source", reader.info.dimensions_source)
    return replace(reader.info, emotions=emotions, dimensions_source=source)


def corpus_rows(corpus: str, path: str | None = None, count: int = 600, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Every clip of a corpus, always in the same order.

    Args:
        corpus: see [`corpus_info`].
        path: folder of the corpus; by default `$AUDIO_EMOTION_DATA/<name>`, or the folder of the description.
        count: number of clips of the synthetic corpus.
        seed: of the synthetic corpus.

    Yields:
        Every column of [`features`], None where the corpus has no value.
    """
    if corpus.endswith(".yaml"):
        rows = load_custom_corpus(corpus, path).rows()
    else:
        reader, options, emotions = _registered(corpus)
        rows = reader.rows(count, seed) if corpus == "synthetic" else reader.rows(path, **options)
        if emotions != reader.info.emotions:
            kept = [reader.info.emotions.index(name) for name in emotions]
            rows = ({**row, "probabilities": _renormalized(row["probabilities"], kept)} for row in rows)
    return ({**dict.fromkeys(OPTIONAL), **row} for row in rows)


def corpus_table(corpus: str, path: str | None = None, count: int = 600, seed: int = 0) -> Dataset:
    """Every clip of a corpus as a data set, audio still encoded; see [`corpus_rows`]."""
    columns = features(corpus_info(corpus).dimensions)
    rows = ({name: row[name] for name in columns} for row in corpus_rows(corpus, path, count, seed))
    parts = []
    while part := list(islice(rows, ROWS_IN_MEMORY)):
        parts.append(Dataset.from_list(part, features=columns))
    return concatenate_datasets(parts or [Dataset.from_dict({name: [] for name in columns}, features=columns)])


def shard_files(corpus: str, path: str | None = None) -> list[str]:
    """Paths or URLs of the shards that the column `shard` refers to; empty where clips are single files."""
    return load_custom_corpus(corpus, path).shards if corpus.endswith(".yaml") else []


def select_speakers(table: Dataset, speakers: Collection[str]) -> Dataset:
    """The rows of some speakers.

    Raises:
        ValueError: naming speakers without a row.
    """
    present = table["speaker"]
    if missing := sorted(set(speakers) - set(present)):
        raise ValueError(
            f"Expected clips of every speaker of the protocol, got none of {missing}. Complete the corpus."
        )
    return table.select([index for index, speaker in enumerate(present) if speaker in speakers])


def protocols() -> dict[str, Protocol]:
    """Every named protocol of every registered corpus."""
    return {name: protocol for each in CORPORA.values() for name, protocol in each.info.protocols.items()}


def load_protocol(name: str) -> Protocol:
    """Protocol of a name, such as `ravdess-20-fixed`.

    Raises:
        ValueError: for an unknown name, or one that is refused because it is not speaker-independent.
    """
    for each in CORPORA.values():
        for prefix, reason in each.info.refused_protocols.items():
            if name.startswith(prefix):
                raise ValueError(f"Expected a protocol with every speaker in one split, got `{name}`: {reason}")
    known = protocols()
    if name not in known:
        raise ValueError(f"Expected a protocol among {list(known)}, got `{name}`.")
    return known[name]


def apply_protocol(
    corpus: str, table: Dataset, name: str = "", path: str | None = None, splits: Sequence[SplitName] = SPLITS
) -> tuple[Dataset, Protocol]:
    """Rows that a protocol uses, and the speakers of each split.

    Args:
        corpus: see [`corpus_info`].
        table: rows of the corpus.
        name: of the protocol, or a description with `splits`; empty for the default of the corpus; "all" for every
            clip as a test clip.
        path: of the corpus, as for [`corpus_table`].
        splits: the splits that are needed; speakers of the others may be missing in the table.

    Raises:
        ValueError: for a corpus without a default protocol, and for speakers that are missing or in two splits.
    """
    if name == "all":
        return table, Protocol(train=(), validation=(), test=tuple(sorted(set(filter(None, table["speaker"])))))
    description = name or corpus
    if description.endswith(".yaml"):
        clips = table.select_columns(["id", "speaker", "partition"]) if description == corpus else None
        return divide(table, load_custom_corpus(description, path).protocol(clips), splits)
    if not name:
        name = corpus_info(corpus).default_protocol
    if not name:
        raise ValueError(f"Expected `--protocol`, because {corpus} has several (docs/corpora.md), got none.")
    return divide(table, load_protocol(name), splits)


def _registered(corpus: str) -> tuple[RegisteredCorpus, dict[str, Any], tuple[str, ...]]:
    """Reader, keyword arguments of its `rows`, and emotions of a name with variants."""
    name, *words = corpus.split("/")
    if name not in CORPORA:
        raise ValueError(
            f"Expected a corpus among {sorted(CORPORA)}, or the `.yaml` file that describes one "
            f"(docs/your_own_data.md), got {corpus!r}."
        )
    info = CORPORA[name].info
    options: dict[str, Any] = {}
    emotions = info.emotions
    for word in words:
        variant = info.variants.get(word)
        if variant is None or set(variant.options) & set(options):
            raise ValueError(
                f"Expected `{name}` with at most one word a kind among {sorted(info.variants)}, got {corpus!r}."
            )
        options |= variant.options
        emotions = variant.emotions or emotions
    return CORPORA[name], options, emotions


def _renormalized(probabilities: list[float] | None, kept: list[int]) -> list[float] | None:
    """Probabilities of some of the emotions; None where their sum is 0."""
    values = [probabilities[index] for index in kept] if probabilities is not None else []
    return [value / sum(values) for value in values] if sum(values) > 0 else None
