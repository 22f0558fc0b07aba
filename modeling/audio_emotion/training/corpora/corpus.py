"""What every corpus says about itself, and where its folder is found.

A corpus is a module with `INFO` and `rows(...)`. A row is a dictionary: `id`, `audio` (`bytes` or `path`), `speaker`,
`gender` ("male", "female" or None), `emotion`, `activation`, `valence`, `dominance` (None where unlabelled).
Dimensions are in 0..1: 0 is calm, negative, weak; 1 is excited, positive, strong.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DATA_VARIABLE = "AUDIO_EMOTION_DATA"


@dataclass(frozen=True)
class CorpusInfo:
    """Facts that a model card has to repeat.

    Attributes:
        name: the name in speaker names ("ravdess/01") and below the data folder.
        license: SPDX identifier of the terms of the recordings; trained weights inherit its restrictions.
        citation: authors, year, title and DOI.
        emotions: category names in the order of the corpus's own codes.
        dimensions_source: "rated" by listeners, "norm-derived" from the category alone, or "synthetic", known because
            the clip was made from them.
    """

    name: str
    license: str
    citation: str
    emotions: tuple[str, ...]
    dimensions_source: Literal["rated", "norm-derived", "synthetic"]


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
