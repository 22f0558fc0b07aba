"""Who trains, validates or is tested, as a description of somebody's own corpus says."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from audio_emotion.evaluation.protocols import Split
from audio_emotion.training.corpora.described import described_rows
from audio_emotion.training.corpora.description import SIDES, Description, describe, some

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
