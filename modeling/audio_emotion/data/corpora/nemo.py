"""nEMO: nine actors speak Polish sentences in six emotions; labels are read from file names.

A name is speaker, emotion and number, such as `KS0_surprised_18` (Christop 2024). There are no ratings of activation,
valence or dominance: the dimensions are derived from the category. The genders of the speakers are not in the files.

Protocols. `nemo-fold-1` .. `-9` (ours) test one speaker each; `nemo-all` trains on all (never for scores).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audio_emotion.data.affective_norms import norm_derived_dimensions
from audio_emotion.data.corpora.corpus_info import PAD_NORMS, CorpusInfo, find_corpus_root
from audio_emotion.data.protocols import Protocol, fold_protocols

SPEAKERS = ("EB0", "IC0", "KD0", "KS0", "MK0", "MP0", "SM0", "TP0", "WR0")
NAMES = tuple(f"nemo/{speaker}" for speaker in SPEAKERS)
INFO = CorpusInfo(
    name="nemo",
    license="CC-BY-NC-SA-4.0",
    citation=(
        "Christop 2024, nEMO: Dataset of Emotional Speech in Polish, LREC-COLING 2024, "
        "https://aclanthology.org/2024.lrec-main.1059"
    ),
    emotions=("angry", "fearful", "happy", "neutral", "sad", "surprised"),
    dimensions_source="norm-derived",
    languages=("pl",),
    speech="acted: nine actors speak Polish sentences",
    variants={"pad": PAD_NORMS},
    protocols={
        **fold_protocols("nemo-fold", [(speaker,) for speaker in NAMES]),
        "nemo-all": Protocol(train=NAMES, validation=(), test=()),
    },
)
WORDS = dict(zip(("anger", "fear", "happiness", "neutral", "sadness", "surprised"), INFO.emotions, strict=True))
CLIP_NAME = re.compile(rf"([A-Z]{{2}}\d)_({'|'.join(WORDS)})_\d+")
SUFFIXES = (".wav", ".flac", ".ogg")


def rows(root: str | Path | None = None, dimensions_source: str = "norm-derived") -> Iterator[dict[str, Any]]:
    """One row per clip in `root/` or `root/samples/`, as published, sorted by name.

    Args:
        root: the folder with the clips (`.wav`, or re-encoded `.flac` or `.ogg`); by default
            `$AUDIO_EMOTION_DATA/nemo`.
        dimensions_source: a key of `affective_norms.NORM_SETS`.

    Raises:
        FileNotFoundError: at the call, if the folder is missing or holds no clip.
        ValueError: at the call, for a name or a speaker that is not nEMO's.
    """
    root = find_corpus_root(INFO.name, root)
    found = [path for folder in (root, root / "samples") for path in folder.glob("*")]
    clips = sorted(path for path in found if path.suffix in SUFFIXES and not path.name.startswith("."))
    for path in clips:
        match = CLIP_NAME.fullmatch(path.stem)
        if match is None or match[1] not in SPEAKERS:
            raise ValueError(
                f"Expected a name like `KS0_surprised_18` (speaker, emotion, number) of a speaker among "
                f"{', '.join(SPEAKERS)}, got `{path}`. Move the file out of the corpus."
            )
    if not clips:
        raise FileNotFoundError(
            f"Expected clips such as `KS0_surprised_18.wav` in `{root}` or its `samples/`, got none. Copy nEMO there."
        )
    return (_row(path, dimensions_source) for path in clips)


def _row(path: Path, dimensions_source: str) -> dict[str, Any]:
    speaker, word, _ = path.stem.split("_")
    activation, valence, dominance = norm_derived_dimensions(WORDS[word], source=dimensions_source)
    return {
        "id": f"{INFO.name}/{path.stem}",
        "audio": {"bytes": None, "path": str(path)},
        "speaker": f"{INFO.name}/{speaker}",
        "gender": None,
        "emotion": WORDS[word],
        "activation": activation,
        "valence": valence,
        "dominance": dominance,
    }
