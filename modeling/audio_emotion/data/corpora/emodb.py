"""EmoDB, the Berlin database: ten German actors, seven emotions, 535 clips; labels are read from file names.

A name is speaker, text, emotion and version, such as `03a01Fa`: the letter is of the German word (Burkhardt et al.
2005). There are no ratings of activation, valence or dominance: the dimensions are derived from the category, and
empty for boredom, which the norms of words do not contain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audio_emotion.data.affective_norms import NORM_SETS, norm_derived_dimensions
from audio_emotion.data.corpora.corpus_info import PAD_NORMS, CorpusInfo, find_corpus_root

INFO = CorpusInfo(
    name="emodb",
    license="LicenseRef-EmoDB",  # its page requests the citation and names no license
    citation=(
        "Burkhardt, Paeschke, Rolfes, Sendlmeier & Weiss 2005, A Database of German Emotional Speech, Interspeech "
        "2005: 1517-1520, https://doi.org/10.21437/Interspeech.2005-446"
    ),
    emotions=("angry", "bored", "disgust", "fearful", "happy", "neutral", "sad"),
    dimensions_source="norm-derived",
    languages=("de",),
    variants={"pad": PAD_NORMS},
    speech="acted: ten adult actors speak ten German sentences",
)
# Wut, Langeweile, Ekel, Angst, Freude, neutral, Trauer
CODES = dict(zip("WLEAFNT", INFO.emotions, strict=True))
MEN, WOMEN = ("03", "10", "11", "12", "15"), ("08", "09", "13", "14", "16")
CLIP_NAME = re.compile(r"(\d\d)([ab]\d\d)([WLEAFNT])([a-z]?)")


def rows(root: str | Path | None = None, dimensions_source: str = "norm-derived") -> Iterator[dict[str, Any]]:
    """One row per clip in `root/wav/`, sorted by name.

    Args:
        root: the folder with `wav/` in it; by default `$AUDIO_EMOTION_DATA/emodb`.
        dimensions_source: a key of `affective_norms.NORM_SETS`.

    Raises:
        FileNotFoundError: at the call, if the folder is missing or holds no clip.
        ValueError: at the call, for a name or a speaker that is not EmoDB's.
    """
    root = find_corpus_root(INFO.name, root)
    clips = sorted(path for path in (root / "wav").glob("*.wav") if not path.name.startswith("."))
    for path in clips:
        match = CLIP_NAME.fullmatch(path.stem)
        if match is None or match[1] not in MEN + WOMEN:
            raise ValueError(
                f"Expected a name like `03a01Fa` (speaker, text, emotion, version) of a speaker among "
                f"{', '.join(sorted(MEN + WOMEN))}, got `{path}`. Move the file out of the corpus."
            )
    if not clips:
        raise FileNotFoundError(f"Expected clips such as `wav/03a01Fa.wav` in `{root}`, got none. Unpack EmoDB there.")
    return (_row(path, dimensions_source) for path in clips)


def _row(path: Path, dimensions_source: str) -> dict[str, Any]:
    speaker, emotion = path.stem[:2], CODES[path.stem[5]]
    norms = (
        norm_derived_dimensions(emotion, source=dimensions_source)
        if emotion in NORM_SETS[dimensions_source][0]
        else (None, None, None)
    )
    return {
        "id": f"{INFO.name}/{path.stem}",
        "audio": {"bytes": None, "path": str(path)},
        "speaker": f"{INFO.name}/{speaker}",
        "gender": "male" if speaker in MEN else "female",
        "emotion": emotion,
        "activation": norms[0],
        "valence": norms[1],
        "dominance": norms[2],
    }
