"""Facts of a corpus, the location of its folder, and helpers that several readers share.

A corpus is a module in `data/corpora` with `INFO`, a [`CorpusInfo`], and `rows(root=None, **options)`. A row is a
dictionary: `id`, `audio` (`bytes` or `path`), `speaker`, `gender` ("male", "female" or None), `emotion`, `activation`,
`valence`, `dominance` (None where unlabeled). Dimensions are in 0..1: 0 is calm, negative, weak; 1 is excited,
positive, strong.

Optional, and None where absent: `probabilities`, a soft label over `INFO.emotions` that sums to 1; `partition`, as
published ("train", "validation", "test", "test-2"); `video` (`bytes` or `path`) of the same take.

An emotion has the same name in all corpora, so that they can be mixed: `angry bored calm contempt disgust excited
fearful frustrated happy neutral sad surprised`, and `other`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from audio_emotion.data.protocols import Protocol

DATA_VARIABLE = "AUDIO_EMOTION_DATA"


@dataclass(frozen=True)
class Variant:
    """Another way to read a corpus, chosen by a word after its name (`iemocap/four`).

    Attributes:
        options: keyword arguments of the reader's `rows`.
        emotions: category names, where they differ from those of the corpus.
    """

    options: Mapping[str, Any]
    emotions: tuple[str, ...] | None = None


PAD_NORMS = Variant({"dimensions_source": "norm-derived-pad"})  # of every corpus with norm-derived dimensions


@dataclass(frozen=True)
class CorpusInfo:
    """Everything about a corpus that is not in its files.

    Attributes:
        name: of the corpus in recipes, in speaker names ("ravdess/01"), and of its folder in `$AUDIO_EMOTION_DATA`.
        license: SPDX identifier of the terms of the recordings, `LicenseRef-...` where SPDX has none; trained weights
            inherit its restrictions.
        citation: authors, year, title and DOI.
        emotions: category names, in the order of the corpus's codes.
        dimensions_source: "rated" by listeners; "norm-derived" or "norm-derived-pad" from the category alone, by the
            norms of that name in `affective_norms.NORM_SETS`; "synthetic" where the audio was generated from them; or
            "none".
        dimensions: names of the dimensions, in the order of a model's outputs.
        languages: ISO 639-1 codes; empty where unknown or mixed.
        speech: how it was recorded, in a few words, for model cards.
        variants: by the word that selects them.
        protocols: published divisions of the speakers, by name.
        default_protocol: the one that is used where none is named; empty where a choice is needed.
        refused_protocols: prefixes of published names that are no speaker-independent divisions, with the reason.
    """

    name: str
    license: str
    citation: str
    emotions: tuple[str, ...]
    dimensions_source: Literal["rated", "norm-derived", "norm-derived-pad", "synthetic", "none"]
    dimensions: tuple[str, ...] = ("activation", "valence", "dominance")
    languages: tuple[str, ...] = ()
    speech: str = ""
    variants: Mapping[str, Variant] = field(default_factory=dict)
    protocols: Mapping[str, Protocol] = field(default_factory=dict)
    default_protocol: str = ""
    refused_protocols: Mapping[str, str] = field(default_factory=dict)


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
    """Map a rating from the scale of the corpus to 0..1.

    Args:
        rating: mean or single rating.
        low: end of the scale that becomes 0.
        high: end of the scale that becomes 1.
        slack: ratings up to this far outside the scale, in its units, are clipped to its end.

    Raises:
        ValueError: for a rating further out, or one that is not a number.
    """
    if not low - slack <= rating <= high + slack:
        raise ValueError(f"Expected a rating in {low:g}..{high:g}, got {rating:g}. Look for a shifted column.")
    return (min(max(rating, low), high) - low) / (high - low)


def vote_probabilities(votes: Mapping[str, float], emotions: Sequence[str]) -> list[float] | None:
    """Fraction of the votes for each emotion; None without a vote for any of them.

    Args:
        votes: number of votes by emotion; those for other emotions are not counted.
        emotions: in the order of the result.
    """
    counts = [votes.get(emotion, 0.0) for emotion in emotions]
    total = math.fsum(counts)
    return [count / total for count in counts] if total else None


def majority(probabilities: Sequence[float], emotions: Sequence[str]) -> str | None:
    """The most probable emotion; None for a tie."""
    first, second = sorted(probabilities, reverse=True)[:2]
    return None if math.isclose(first, second) else emotions[probabilities.index(first)]
