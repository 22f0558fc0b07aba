"""Whose labels a training may use: a random share, or nested lists on disk, stratified by class."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path


def labeled_clips(ids: Sequence[str], share: float, file: str = "", seed: int = 0) -> set[str]:
    """A random share of some clips, or those that a file names, one a line.

    Raises:
        ValueError: where the file names clips that are not among them.
    """
    if not file:
        return set(random.Random(seed).sample(list(ids), len(ids))[: round(share * len(ids))])
    named = set(read_list(file))
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
        emotions: of each; unlabeled clips are in no list.
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


def write_lists(
    folder: Path, ids: Sequence[str], emotions: Sequence[str | None], fractions: Sequence[float], seed: int
) -> dict[float, str]:
    """Write the file of each fraction, a clip id a line; see `stratified_lists` for the arguments.

    Raises:
        ValueError: where a file is there and says something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for fraction, names in stratified_lists(ids, emotions, fractions, seed).items():
        file = folder / f"{percent(fraction)}.txt"
        text = "".join(f"{name}\n" for name in names)
        if file.exists() and file.read_text() != text:
            raise ValueError(
                f"Expected the list of this corpus and split in `{file}`, got another. Take a new `--output`."
            )
        file.write_text(text)
        files[fraction] = str(file)
    return files


def read_list(file: str) -> list[str]:
    """Clip ids of a list, in its order: one a line, for there may be blanks in them; empty lines are nothing."""
    return [line for line in Path(file).read_text().splitlines() if line.strip()]


def percent(fraction: float) -> str:
    """A share as it stands in names of files."""
    return f"{100 * fraction:g}"
