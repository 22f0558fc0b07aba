"""Protocols: named divisions of a corpus into the splits train, validation and test, without a speaker in two of them.

A protocol names speakers ("ravdess/01") or, where a corpus is published with partitions, those ("msp-podcast/train").
The published protocols of a corpus are in its file in `data/corpora`; docs/corpora.md lists them.

Most published folds do not define which speakers to validate on, and choosing the best epoch on the test speakers
would bias the scores. [`fold_protocols`] therefore validates on the test speakers of the next fold (our choice). To
train on as many speakers as the authors did, train on the validation speakers too (`--train_on_validation true`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Protocol:
    """Speakers ("ravdess/01") or partitions ("msp-podcast/train") of each split.

    Attributes:
        train: names that are trained on.
        validation: names that the best epoch is chosen on; may be empty.
        test: names that are tested; may be empty.
        by: what the names are.
        left_out: ids of clips that are in no split, regardless of their speaker.
        test_clips: published number of test clips; None where it is not known.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    by: Literal["speaker", "partition"] = "speaker"
    left_out: Collection[str] = ()
    test_clips: int | None = None


def fold_protocols(name: str, tests: Sequence[tuple[str, ...]], left_out: Collection[str] = ()) -> dict[str, Protocol]:
    """Cross-validation: one protocol a fold, `<name>-1` and on.

    Args:
        name: prefix of the protocols' names.
        tests: test speakers of each fold. A fold validates on those of the next (the last on those of the first) and
            trains on all others.
        left_out: ids of clips that no fold uses.
    """
    speakers = sorted(speaker for test in tests for speaker in test)
    protocols = {}
    for number, test in enumerate(tests, start=1):
        validation = tests[number % len(tests)]
        train = tuple(speaker for speaker in speakers if speaker not in test + validation)
        protocols[f"{name}-{number}"] = Protocol(train, validation, test, left_out=left_out)
    return protocols


def random_protocol(speakers: Sequence[str], fractions: Mapping[str, float], seed: int) -> Protocol:
    """Speakers divided at random, at least one for every split with a fraction above 0.

    Args:
        speakers: of the corpus, sorted.
        fractions: of the speakers, by split; they sum to 1.
        seed: of the order of the speakers.

    Raises:
        ValueError: for fewer speakers than splits.
    """
    wanted = [split for split in SPLITS if fractions.get(split, 0) > 0]
    if len(speakers) < len(wanted):
        raise ValueError(
            f"Expected at least {len(wanted)} speakers for {wanted}, got {list(speakers)}. Name fewer splits in "
            "`fractions`, or record more speakers."
        )
    order = [speakers[index] for index in np.random.default_rng(seed).permutation(len(speakers))]
    counts = dict.fromkeys(wanted, 1)
    for _ in range(len(speakers) - len(wanted)):  # the next one to the split that is furthest below its fraction
        counts[max(wanted, key=lambda split: fractions[split] * len(speakers) - counts[split])] += 1
    splits: dict[SplitName, tuple[str, ...]] = dict.fromkeys(SPLITS, ())
    for split, count in counts.items():
        splits[split], order = tuple(sorted(order[:count])), order[count:]
    return Protocol(splits["train"], splits["validation"], splits["test"])


def split_of(row: Mapping[str, Any], protocol: Protocol) -> SplitName | None:
    """Split of a row, or None where the protocol does not use it.

    Args:
        row: `id` and `speaker`, and `partition` for a protocol by partition.
        protocol: the division.
    """
    if row["id"] in protocol.left_out:
        return None
    name = _name(row, protocol)
    return next((split for split in SPLITS if name in getattr(protocol, split)), None)


def divide(table: Dataset, protocol: Protocol, splits: Sequence[SplitName] = SPLITS) -> tuple[Dataset, Protocol]:
    """The rows that a protocol uses, and the same division by speaker.

        table, speakers = divide(table, load_protocol("msp-podcast-1.11-test"))
        training_rows = select_speakers(table, speakers.train)

    Args:
        table: with the columns `id` and `speaker`, and `partition` for a protocol by partition.
        protocol: the division.
        splits: the splits that are needed; the others come back empty, and need not be in the table.

    Returns:
        rows of these splits, and their speakers.

    Raises:
        ValueError: naming the speakers or partitions of these splits that the table lacks, or the speakers that are
            in two of them; for a test split of another size than published.
    """
    if protocol.by == "partition" and "partition" not in table.column_names:
        raise ValueError(
            f"Expected a column `partition`, by which the protocol divides, got {table.column_names}. Read the corpus "
            f"by its name."
        )
    columns = [name for name in ("id", "speaker", "partition") if name in table.column_names]
    rows = table.select_columns(columns).to_list()
    present = {_name(row, protocol) for row in rows}
    if missing := sorted({name for split in splits for name in getattr(protocol, split)} - present):
        raise ValueError(
            f"Expected clips of every {protocol.by} of the protocol, got none of {missing}. Complete the corpus, or "
            f"choose a protocol of the {protocol.by}s at hand."
        )
    places = [(index, split) for index, row in enumerate(rows) if (split := split_of(row, protocol)) in splits]
    tested = sum(split == "test" for _, split in places)
    if "test" in splits and protocol.test_clips not in (None, tested):
        raise ValueError(
            f"Expected {protocol.test_clips} clips of {', '.join(protocol.test)}, as published, got {tested}. Choose "
            f"the protocol of the release at hand, and read all of its clips."
        )
    speakers: dict[SplitName, tuple[str, ...]] = dict.fromkeys(SPLITS, ())
    for split in splits:
        found = {rows[index]["speaker"] for index, where in places if where == split}
        speakers[split] = getattr(protocol, split) if protocol.by == "speaker" else tuple(sorted(found))
    by_speaker = Protocol(speakers["train"], speakers["validation"], speakers["test"], left_out=protocol.left_out)
    assert_disjoint(by_speaker)
    return table.select([index for index, _ in places]), by_speaker


def _name(row: Mapping[str, Any], protocol: Protocol) -> str:
    """A row's speaker or partition, as the protocol spells it."""
    return row["speaker"] if protocol.by == "speaker" else f"{row['id'].split('/', 1)[0]}/{row['partition']}"


def assert_disjoint(protocol: Protocol) -> None:
    """Stop if a name is in two splits; [`divide`] checks the speakers of partitions.

    Raises:
        ValueError: naming the speakers and both splits.
    """
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        if both := sorted(set(getattr(protocol, first)) & set(getattr(protocol, second))):
            raise ValueError(
                f"Expected every speaker in one split, got {', '.join(both)} in `{first}` and in `{second}`. Remove "
                f"them from one: a model must not be tested on speakers that it was trained on."
            )
