"""Whose labels a training may use: a random share, or lists on disk that are stratified by class and nested."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path


def labelled_clips(ids: Sequence[str], share: float, file: str = "", seed: int = 0) -> set[str]:
    """A random share of some clips, or those that a file names, one a line.

    Raises:
        ValueError: where the file names clips that are not among them.
    """
    if not file:
        return set(random.Random(seed).sample(list(ids), len(ids))[: round(share * len(ids))])
    named = set(Path(file).read_text().split())
    if strangers := sorted(named - set(ids)):
        raise ValueError(
            f"Expected training clips in `{file}`, got {len(strangers)} others, {strangers[:3]} among them. Make the "
            "list for this corpus and split."
        )
    return named


def stratified_lists(
    ids: Sequence[str], emotions: Sequence[str | None], fractions: Sequence[float], seed: int
) -> dict[float, list[str]]:
    """For each fraction that share of every class, at least one clip; a smaller list is part of every larger one.

    Args:
        ids: of the clips.
        emotions: of each; unlabelled clips are in no list.
        fractions: in 0..1.
        seed: of the choice, which depends on nothing else: neither on the order of the clips nor on other fractions.
    """
    chosen: dict[float, list[str]] = {fraction: [] for fraction in fractions}
    for emotion in sorted({name for name in emotions if name is not None}):
        mine = sorted(name for name, its in zip(ids, emotions, strict=True) if its == emotion)
        random.Random(f"{seed}/{emotion}").shuffle(mine)
        for fraction in fractions:
            chosen[fraction] += mine[: max(1, round(fraction * len(mine)))]
    return {fraction: sorted(names) for fraction, names in chosen.items()}
