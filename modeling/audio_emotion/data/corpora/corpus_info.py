"""What every corpus says about itself, and where its folder is found.

A corpus is a module with `INFO` and `rows(...)`. A row is a dictionary: `id`, `audio` (`bytes` or `path`), `speaker`,
`gender` ("male", "female" or None), `emotion`, `activation`, `valence`, `dominance` (None where unlabeled).
Dimensions are in 0..1: 0 is calm, negative, weak; 1 is excited, positive, strong.

Where a corpus has them, and absent means None: `shares`, a soft label over `INFO.emotions` that sums to 1;
`partition`, the corpus's own ("train", "validation", "test", "test-2"); `video` (`bytes` or `path`), the take seen.

One emotion has one word in all corpora, so that they can be mixed: `angry bored calm contempt disgust excited fearful
frustrated happy neutral sad surprised`, and `other`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DATA_VARIABLE = "AUDIO_EMOTION_DATA"


@dataclass(frozen=True)
class CorpusInfo:
    """Facts that a model card has to repeat.

    Attributes:
        name: the name in speaker names ("ravdess/01") and below the data folder.
        license: SPDX identifier of the terms of the recordings, `LicenseRef-...` where SPDX knows none; trained
            weights inherit its restrictions.
        citation: authors, year, title and DOI.
        emotions: category names in the order of the corpus's own codes.
        dimensions_source: "rated" by listeners, "norm-derived" from the category alone, "synthetic", known because
            the clip was made from them, or "none" where a corpus has no dimensions.
        dimensions: their names, in the order of a model's outputs.
    """

    name: str
    license: str
    citation: str
    emotions: tuple[str, ...]
    dimensions_source: Literal["rated", "norm-derived", "synthetic", "none"]
    dimensions: tuple[str, ...] = ("activation", "valence", "dominance")


def find_corpus_root(name: str, path: str | Path | None = None) -> Path:
    """Folder of a corpus: `path` if given, else the folder `name` inside `$AUDIO_EMOTION_DATA`.

    Raises:
        FileNotFoundError: if that is not a folder, or if neither a path nor the variable is given.
    """
    if path is None:
        data = os.environ.get(DATA_VARIABLE)
        if not data:
            raise FileNotFoundError(
                f"Expected a folder for the corpus `{name}`, got neither a path nor `{DATA_VARIABLE}`. Pass the "
                f"folder, or set `{DATA_VARIABLE}` to a folder with `{name}/` in it."
            )
        path = Path(data) / name
    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(
            f"Expected the corpus `{name}` in `{root}`, got no such folder. Pass the right one, or set "
            f"`{DATA_VARIABLE}` to a folder with `{name}/` in it."
        )
    return root


def rating_to_unit(rating: float, low: float, high: float, slack: float = 0.0) -> float:
    """A rating on the corpus's scale as a number in 0..1.

    Args:
        rating: mean or single rating.
        low: end of the scale that becomes 0.
        high: end of the scale that becomes 1.
        slack: how far beyond an end a rating may lie, in units of the scale; it is then taken for that end.

    Raises:
        ValueError: for a rating further out, or one that is not a number.
    """
    if not low - slack <= rating <= high + slack:
        raise ValueError(f"Expected a rating in {low:g}..{high:g}, got {rating:g}. Look for a shifted column.")
    return (min(max(rating, low), high) - low) / (high - low)


def vote_probabilities(votes: Mapping[str, float], emotions: Sequence[str]) -> list[float] | None:
    """A soft label: the share of each emotion among the votes for any of them; None without such a vote.

    Args:
        votes: number of votes by emotion; those for other words are left out.
        emotions: what a place in the result stands for.
    """
    counts = [votes.get(emotion, 0.0) for emotion in emotions]
    total = math.fsum(counts)
    return [count / total for count in counts] if total else None


def majority(shares: Sequence[float], emotions: Sequence[str]) -> str | None:
    """The emotion with the largest share; None where two share the first place."""
    first, second = sorted(shares, reverse=True)[:2]
    return None if math.isclose(first, second) else emotions[shares.index(first)]
