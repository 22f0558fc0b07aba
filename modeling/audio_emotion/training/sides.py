"""The split of a corpus by name, or the one that its own description brings."""

from __future__ import annotations

from collections.abc import Sequence

from datasets import Dataset

from audio_emotion.evaluation.protocols import SIDES, Side, Split, divide, split
from audio_emotion.training.corpora.described_sides import described_sides

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
