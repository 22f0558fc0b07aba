"""Several corpora trained on as one, each drawn as often as its weight says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from datasets import Dataset, concatenate_datasets

from audio_emotion.data.corpora.corpus_info import CorpusInfo
from audio_emotion.data.registry import corpus_info, corpus_table, features, shard_files


@dataclass(frozen=True)
class Mixture:
    """A corpus and what is trained on beside it.

    Attributes:
        table: rows of all of them; a category or dimension that the first corpus does not have is unlabeled.
        files: the shards that the table's column `shard` counts.
        speakers: of the added corpora.
        weights: how often an epoch draws each added corpus, by name.
        license: SPDX expression of the terms of all of them, which trained weights inherit.
    """

    table: Dataset
    files: list[str]
    speakers: tuple[str, ...]
    weights: dict[str, float]
    license: str


def mixture(table: Dataset, files: Sequence[str], info: CorpusInfo, others: Sequence[str]) -> Mixture:
    """Join corpora into one table.

    Args:
        table: of the first corpus, which is also validated and tested on.
        files: its shards.
        info: its facts.
        others: `name` or `name=weight` of each corpus to train on as well; weight 1 is every clip once an epoch, 0.5 a
            fresh half of them each time.

    Raises:
        ValueError: for a weight that is no positive number, or a corpus that is there twice.
    """
    tables, joined_files, licenses = [table], list(files), [info.license]
    speakers: list[str] = []
    weights: dict[str, float] = {}
    for other in others:
        name, _, weight = other.partition("=")
        if not 0 < (share := _number(other, weight or "1")) < float("inf"):
            raise ValueError(f"Expected a positive weight, as in `crema-d=0.5`, got {other!r}.")
        its_info, its_files = corpus_info(name), shard_files(name)
        if its_info.name in {info.name, *weights}:
            raise ValueError(f"Expected every corpus once, got {its_info.name} again. Raise its weight instead.")
        tables.append(_fitted(corpus_table(name), info, len(joined_files)))
        joined_files += its_files
        speakers += sorted(set(tables[-1]["speaker"]))
        weights[its_info.name] = share
        licenses.append(its_info.license)
    whole = concatenate_datasets(tables) if others else table
    return Mixture(whole, joined_files, tuple(speakers), weights, combine_licenses(licenses))


def combine_licenses(licenses: Iterable[str | None]) -> str:
    """SPDX expression of the terms of all of some works together, each of them once.

    Args:
        licenses: SPDX expressions; one that is empty or None adds nothing.
    """
    parts: dict[str, None] = {}
    for license_ in licenses:
        if license_:
            # AND binds more closely than OR, so a choice of terms stays whole, in brackets.
            parts |= dict.fromkeys([license_] if " OR " in license_ else license_.split(" AND "))
    whole = list(parts)
    return " AND ".join(f"({each})" if " OR " in each and len(whole) > 1 else each for each in whole)


def _number(other: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"Expected a weight, as in `crema-d=0.5`, got {other!r}.") from error


def _fitted(table: Dataset, info: CorpusInfo, first_file: int) -> Dataset:
    """The table with the columns and categories of the first corpus, its shards counted on from there."""

    def fit(row: dict) -> dict:
        return {
            "emotion": row["emotion"] if row["emotion"] in info.emotions else None,
            "shares": None,  # they are of this corpus's own categories
            "shard": None if row["shard"] is None else row["shard"] + first_file,
            **{name: row.get(name) for name in info.dimensions},
        }

    columns = features(info.dimensions)
    extra = [name for name in table.column_names if name not in columns]
    fitted = table.map(fit, remove_columns=extra, load_from_cache_file=False, keep_in_memory=True)
    return fitted.select_columns(list(columns)).cast(columns)


def training_data(speakers: Sequence[str], teachers: Sequence[dict] = ()) -> list[dict]:
    """What a checkpoint says of its training: a dict of `corpus`, `speakers` and `teachers` per corpus.

    Args:
        speakers: all it was trained on, named `corpus/speaker`.
        teachers: the `training_data` of whoever it learned from.
    """
    corpora = sorted({speaker.split("/")[0] for speaker in speakers})
    return [
        {
            "corpus": corpus,
            "speakers": sorted(speaker for speaker in speakers if speaker.split("/")[0] == corpus),
            "teachers": list(teachers),
        }
        for corpus in corpora
    ]
