"""A corpus by name into one table: a row a clip, audio still encoded, or pointed at where it lies in shards."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from types import ModuleType
from typing import Any

from datasets import Dataset, Features, List, Value, concatenate_datasets

from audio_emotion.data.corpora.corpus_info import CorpusInfo
from audio_emotion.data.custom import described_info, described_rows, described_shards, described_sides
from audio_emotion.data.splits import SIDES, Side, Split, divide, split

# name: module in training/corpora, imported when asked for
CORPORA = {
    "crema-d": "crema_d",
    "emodb": "emodb",
    "iemocap": "iemocap",
    "msp-podcast": "msp_podcast",
    "ravdess": "ravdess",
    "synthetic": "synthetic",
    "voxceleb2": "voxceleb2",
}
# words that may follow a name (`crema-d/face/video`), each an option of the corpus's `rows`
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "crema-d": {
        "voice": {"labels": "voice"},
        "face": {"labels": "face"},
        "audio-visual": {"labels": "audio-visual"},
        "video": {"video": True},
    },
    "iemocap": {
        "four": {"classes": "four"},
        "improvised": {"part": "improvised"},
        "scripted": {"part": "scripted"},
    },
    "msp-podcast": {"votes": {"shares": True}, "known-speakers": {"unknown_speakers": "drop"}},
    "ravdess": {"song": {"channel": "song"}, "speech-and-song": {"channel": "both"}, "video": {"video": True}},
    "voxceleb2": {"audio": {"video": False}},
}
# The audio is a plain struct: the Audio feature needs torchcodec even where nothing is decoded.
ENCODED = {"bytes": Value("binary"), "path": Value("string")}
PART = 10_000  # rows that are Python objects at one time; VoxCeleb2 has a million
OPTIONAL = ("shares", "partition", "video", "shard", "row")  # columns that a row may leave out


def features(dimensions: Sequence[str]) -> Features:
    """Columns of a table, in their order.

    Args:
        dimensions: the corpus's, by their own names.
    """
    return Features(
        {
            "id": Value("string"),
            "audio": ENCODED,
            "speaker": Value("string"),
            "gender": Value("string"),
            "emotion": Value("string"),
            **{name: Value("float32") for name in dimensions},
            "shares": List(Value("float32")),  # of the corpus's emotions, sums to 1
            "partition": Value("string"),  # the corpus's own
            "video": ENCODED,
            "shard": Value("int32"),  # index into `shard_files`
            "row": Value("int32"),  # in that shard
        }
    )


def corpus_info(corpus: str) -> CorpusInfo:
    """Facts of a corpus.

    Args:
        corpus: one of `CORPORA`, with `VARIANTS` after it or without (`"crema-d/voice"`); or the path or URL of a
            description that ends in `.yaml`.

    Raises:
        ValueError: on an unknown name, or a description that is wrong.
    """
    if corpus.endswith(".yaml"):
        return described_info(corpus)
    module, options = _module(corpus)
    emotions = module.FOUR_CLASSES if options.get("classes") == "four" else module.INFO.emotions
    return replace(module.INFO, emotions=emotions)


def corpus_rows(corpus: str, path: str | None = None, count: int = 600, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Every clip of a corpus, one after another, always in the same order.

    Args:
        corpus: as for `corpus_info`.
        path: its folder; by default the folder of that name in `$AUDIO_EMOTION_DATA`, or that of the description.
        count: clips to make, of the synthetic corpus.
        seed: of the synthetic corpus.

    Yields:
        Every column of `features`, None where the corpus has nothing.
    """
    if corpus.endswith(".yaml"):
        rows = described_rows(corpus, path)
    else:
        module, options = _module(corpus)
        rows = module.rows(count, seed) if corpus == "synthetic" else module.rows(path, **options)
        kept = [module.INFO.emotions.index(name) for name in corpus_info(corpus).emotions]
        if len(kept) < len(module.INFO.emotions):
            rows = ({**row, "shares": _shares_of(row["shares"], kept)} for row in rows)
    return ({**dict.fromkeys(OPTIONAL), **row} for row in rows)


def corpus_table(corpus: str, path: str | None = None, count: int = 600, seed: int = 0) -> Dataset:
    """Every clip of a corpus; see `corpus_rows`."""
    columns = features(corpus_info(corpus).dimensions)
    rows = ({name: row[name] for name in columns} for row in corpus_rows(corpus, path, count, seed))
    parts = []
    while part := list(islice(rows, PART)):
        parts.append(Dataset.from_list(part, features=columns))
    return concatenate_datasets(parts or [Dataset.from_dict({name: [] for name in columns}, features=columns)])


def shard_files(corpus: str, path: str | None = None) -> list[str]:
    """Paths or URLs of the files that the column `shard` counts; none where the audio lies in files of its own."""
    return described_shards(corpus, path) if corpus.endswith(".yaml") else []


def select_speakers(table: Dataset, speakers: Collection[str]) -> Dataset:
    """The rows of some speakers.

    Raises:
        ValueError: naming the speakers of whom the table has nothing.
    """
    present = table["speaker"]
    if missing := sorted(set(speakers) - set(present)):
        raise ValueError(f"The split asks for the speakers {missing}, of whom the corpus at hand has no clip.")
    return table.select([index for index, speaker in enumerate(present) if speaker in speakers])


def _shares_of(shares: list[float] | None, kept: list[int]) -> list[float] | None:
    """The soft label over some of the emotions; None where they have no share."""
    left = [shares[index] for index in kept] if shares is not None else []
    return [share / sum(left) for share in left] if sum(left) > 0 else None


def _module(corpus: str) -> tuple[ModuleType, dict[str, Any]]:
    """A corpus's module, and the options of its `rows` that the name asks for."""
    name, *words = corpus.split("/")
    if name not in CORPORA:
        raise ValueError(
            f"Expected a corpus among {sorted(CORPORA)}, or the `.yaml` file of your own (docs/your_own_data.md), got "
            f"{corpus!r}."
        )
    variants = VARIANTS.get(name, {})
    options: dict[str, Any] = {}
    for word in words:
        if word not in variants or set(variants[word]) & set(options):
            raise ValueError(
                f"Expected `{name}` with at most one word a kind among {sorted(variants)}, got {corpus!r}."
            )
        options |= variants[word]
    return importlib.import_module(f"audio_emotion.data.corpora.{CORPORA[name]}"), options


OWN = {"synthetic": "synthetic-10"}  # corpora of ours with one split


def sides(
    corpus: str, table: Dataset, name: str = "", path: str | None = None, wanted: Sequence[Side] = SIDES
) -> tuple[Dataset, Split]:
    """Rows that a split uses, and the speakers of its sides.

    Args:
        corpus: its name, or the file that describes it.
        table: its rows.
        name: one of `protocols.SPLIT_NAMES`, or a description with `splits`; empty for the corpus's own.
        path: of the corpus, as for `corpus_table`.
        wanted: the sides that are used; of the others nobody need be there.

    Raises:
        ValueError: for a corpus without a split of its own, for speakers who are missing or on two sides.
    """
    if name and not name.endswith(".yaml"):
        return divide(table, split(name), wanted)
    if (description := name or corpus).endswith(".yaml"):
        return divide(table, described_sides(description, path), wanted)
    if corpus not in OWN:
        raise ValueError(f"Expected `--split`, for {corpus} has several (docs/corpora.md), got none.")
    return divide(table, split(OWN[corpus]), wanted)
