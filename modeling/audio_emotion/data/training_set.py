"""What a training uses: several corpora with sampling weights, a subset of the labels, and the record of both."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from torch import Tensor, nn

from audio_emotion.data.corpora.corpus_info import CorpusInfo
from audio_emotion.data.dataset import Batch
from audio_emotion.data.registry import corpus_info, corpus_table, features, shard_files

NEAREST = {"calm": "neutral", "neutral": "calm"}  # counts as the other where only that one is known


@dataclass(frozen=True)
class Mixture:
    """A corpus, and others that are added for training.

    Attributes:
        table: rows of all of them; emotions and dimensions that the first corpus does not have are unlabeled, except
            that calm counts as neutral, and neutral as calm, where the first corpus has one of the two only.
        files: the shards that the column `shard` of the table refers to.
        speakers: of the added corpora.
        weights: sampling weight of each added corpus, by name.
        license: SPDX expression of all licenses together, which trained weights inherit.
        emotions: that each corpus distinguishes, by name.
    """

    table: Dataset
    files: list[str]
    speakers: tuple[str, ...]
    weights: dict[str, float]
    license: str
    emotions: dict[str, tuple[str, ...]]


def mix_corpora(table: Dataset, files: Sequence[str], info: CorpusInfo, added: Sequence[str]) -> Mixture:
    """Join corpora into one table.

    Args:
        table: of the first corpus, which is also validated and tested on.
        files: its shards.
        info: its facts.
        added: `name` or `name=weight` of each further training corpus; weight 1 is every clip once an epoch, 0.5 a
            random half, new in each epoch.

    Raises:
        ValueError: for a weight that is not a positive number, or a corpus that occurs twice.
    """
    tables, all_files, licenses = [table], list(files), [info.license]
    speakers: list[str] = []
    weights: dict[str, float] = {}
    emotions = {info.name: info.emotions}
    for each in added:
        name, _, weight = each.partition("=")
        added_info, added_files = corpus_info(name), shard_files(name)
        if added_info.name in {info.name, *weights}:
            raise ValueError(f"Expected every corpus once, got {added_info.name} again. Raise its weight instead.")
        weights[added_info.name] = _weight(each, weight or "1")
        tables.append(_with_columns_of(corpus_table(name), info, len(all_files)))
        all_files += added_files
        speakers += sorted(set(tables[-1]["speaker"]))
        licenses.append(added_info.license)
        known = (_emotion_in(info.emotions, name) for name in added_info.emotions)
        emotions[added_info.name] = tuple(dict.fromkeys(name for name in known if name))
    whole = concatenate_datasets(tables) if added else table
    return Mixture(whole, all_files, tuple(speakers), weights, combine_licenses(licenses), emotions)


def _emotion_in(emotions: Sequence[str], name: str | None) -> str | None:
    """The emotion that a label of another corpus counts as; None for one that is not among them."""
    return next((each for each in (name, NEAREST.get(name or "")) if each in emotions), None)


def _weight(corpus: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise ValueError(f"Expected a positive weight, as in `crema-d=0.5`, got {corpus!r}.")
    return weight


def _with_columns_of(table: Dataset, info: CorpusInfo, first_file: int) -> Dataset:
    """The table with the columns and emotions of the first corpus, its shards numbered from `first_file`."""

    def convert(row: dict) -> dict:
        return {
            "emotion": _emotion_in(info.emotions, row["emotion"]),
            "probabilities": None,  # of the emotions of another corpus
            "shard": None if row["shard"] is None else row["shard"] + first_file,
            **{name: row.get(name) for name in info.dimensions},
        }

    columns = features(info.dimensions)
    extra = [name for name in table.column_names if name not in columns]
    converted = table.map(convert, remove_columns=extra, load_from_cache_file=False, keep_in_memory=True)
    return converted.select_columns(list(columns)).cast(columns)


def combine_licenses(licenses: Iterable[str | None]) -> str:
    """SPDX expression of several licenses together, each of them once.

    Args:
        licenses: SPDX expressions; empty ones and None are ignored.
    """
    parts: dict[str, None] = {}
    for license_ in licenses:
        if license_:
            # AND binds more closely than OR, so an expression with OR is kept whole, in brackets
            parts |= dict.fromkeys([license_] if " OR " in license_ else license_.split(" AND "))
    whole = list(parts)
    return " AND ".join(f"({each})" if " OR " in each and len(whole) > 1 else each for each in whole)


def without_repetitions(training_data: Iterable[dict]) -> list[dict]:
    """Records of training data, each once: the teacher and the pretraining of a student often have the same."""
    kept: list[dict] = []
    for each in training_data:
        if each not in kept:
            kept.append(each)
    return kept


def training_data(speakers: Sequence[str], teachers: Sequence[dict] = ()) -> list[dict]:
    """Record of the training data in a checkpoint's configuration: `corpus`, `speakers`, `teachers` of each corpus.

    Args:
        speakers: all speakers that are trained on, named `corpus/speaker`.
        teachers: `training_data` of the teachers.
    """
    corpora = sorted({speaker.split("/")[0] for speaker in speakers})
    teachers = without_repetitions(teachers)
    return [
        {
            "corpus": corpus,
            "speakers": sorted(speaker for speaker in speakers if speaker.split("/")[0] == corpus),
            "teachers": list(teachers),
        }
        for corpus in corpora
    ]


def require_training_labels(rows: Dataset, emotions: Sequence[str], dimensions: Sequence[str]) -> None:
    """Stop if an output of a model would not be trained: its numbers would mean nothing.

    Args:
        rows: the training rows whose labels are used.
        emotions: classes that are trained on labels.
        dimensions: those that are trained on ratings.

    Raises:
        ValueError: naming the emotions without a training clip, a single emotion, and the dimensions without two
            different ratings.
    """
    counts = Counter(rows["emotion"])
    if missing := [name for name in emotions if not counts[name]]:
        raise ValueError(
            f"Expected training clips of every emotion, got none of {missing} among {len(rows)}. Move a speaker with "
            f"such clips to the training split, or leave the class out: in a description, `emotions: {{{missing[0]}: "
            "null, ...}`; otherwise, a variant of the corpus or another protocol."
        )
    if len(emotions) == 1:
        raise ValueError(
            f"Expected training clips of two emotions or more, got {counts[emotions[0]]} clips that all are "
            f"{emotions[0]}. Add another class, such as `neutral`, or train dimensions only."
        )
    if constant := [name for name in dimensions if len({*rows[name]} - {None}) < 2]:
        raise ValueError(
            f"Expected training clips with different ratings of every dimension, got none or one value of {constant} "
            f"among {len(rows)} clips. Add ratings, or leave the dimension out of `columns` and `dimensions`."
        )


def class_numbers(rows: Dataset, emotions: Sequence[str], labeled: Collection[str] | None = None) -> np.ndarray:
    """Class number of each clip, `(N,)`; -100 without a label, or if it is not used.

    Args:
        rows: `N` clips.
        emotions: class names, in label order.
        labeled: ids of the clips whose labels are used; all if None.
    """
    index = {name: number for number, name in enumerate(emotions)}
    used = (labeled is None or name in labeled for name in rows["id"])
    named = zip(rows["emotion"], used, strict=True)
    return np.array([index[emotion] if is_used and emotion is not None else -100 for emotion, is_used in named])


def soft_labels(rows: Dataset) -> dict[str, list[float]]:
    """Distribution over the emotions of the corpus of each clip that has one, by id.

    Raises:
        ValueError: if no clip has one.
    """
    pairs = zip(rows["id"], rows["probabilities"], strict=True)
    found = {name: probabilities for name, probabilities in pairs if probabilities is not None}
    if not found:
        raise ValueError(
            f"Expected clips with a distribution of votes, got none among {len(rows)}. Choose a corpus that has them, "
            "such as `crema-d/voice-votes` or `msp-podcast/votes` (docs/corpora.md), or leave `--soft_labels` out."
        )
    return found


def distributions(
    batch: Batch, count: int, soft: Mapping[str, Sequence[float]] | None = None, weight: float = 1.0
) -> Tensor:
    """Labels of a batch as distributions `(B, C)`, NaN for -100.

    Those of the clips named in `soft` are its values, by `weight`, and the label, by the rest if there is one.
    """
    if batch.labels.is_floating_point():
        return batch.labels
    labels = batch.labels
    one_hot = nn.functional.one_hot(labels.clamp(min=0), count).float()  # (B, C)
    targets = one_hot.masked_fill(labels[:, None] < 0, torch.nan)
    for target, name in zip(targets, batch.ids, strict=True):
        if soft and name in soft:
            votes = torch.tensor(soft[name])
            target[:] = votes if target.isnan().any() else weight * votes + (1 - weight) * target
    return targets


def labeled_clips(ids: Sequence[str], fraction: float, file: str = "", seed: int = 0) -> set[str]:
    """Ids of the clips whose labels are used: a random fraction, or those that a file lists, one a line.

    Raises:
        ValueError: for ids in the file that are not among `ids`.
    """
    if not file:
        return set(random.Random(seed).sample(list(ids), len(ids))[: round(fraction * len(ids))])
    listed = set(read_list(file))
    if unknown := sorted(listed - set(ids)):
        raise ValueError(
            f"Expected training clips in `{file}`, got {len(unknown)} others, such as {unknown[:3]}. Use a list for "
            "this corpus and protocol."
        )
    return listed


def read_list(file: str) -> list[str]:
    """Clip ids of a text file, one a line (ids may contain blanks), without empty lines."""
    return [line for line in Path(file).read_text().splitlines() if line.strip()]


def stratified_lists(
    ids: Sequence[str], emotions: Sequence[str | None], fractions: Sequence[float], seed: int
) -> dict[float, list[str]]:
    """For each fraction, that fraction of every class, at least one clip; smaller lists are subsets of larger ones.

    Args:
        ids: of the clips.
        emotions: of each; unlabeled clips are in no list.
        fractions: in 0..1.
        seed: of the choice, which depends neither on the order of the clips nor on the other fractions.
    """
    chosen: dict[float, list[str]] = {fraction: [] for fraction in fractions}
    for emotion in sorted({name for name in emotions if name is not None}):
        members = sorted(name for name, each in zip(ids, emotions, strict=True) if each == emotion)
        random.Random(f"{seed}/{emotion}").shuffle(members)
        for fraction in fractions:
            chosen[fraction] += members[: max(1, round(fraction * len(members)))]
    return {fraction: sorted(names) for fraction, names in chosen.items()}


def write_lists(
    folder: Path, ids: Sequence[str], emotions: Sequence[str | None], fractions: Sequence[float], seed: int
) -> dict[float, str]:
    """Write the list of each fraction to a file, a clip id a line; see [`stratified_lists`] for the arguments.

    Raises:
        ValueError: for a file that exists with another content.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for fraction, names in stratified_lists(ids, emotions, fractions, seed).items():
        file = folder / f"{percent(fraction)}.txt"
        text = "".join(f"{name}\n" for name in names)
        if file.exists() and file.read_text() != text:
            raise ValueError(
                f"Expected the list of this corpus and protocol in `{file}`, got another. Choose a new `--output`."
            )
        file.write_text(text)
        files[fraction] = str(file)
    return files


def percent(fraction: float) -> str:
    """A fraction in percent, as in file names."""
    return f"{100 * fraction:g}"
