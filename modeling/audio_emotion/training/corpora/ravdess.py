"""RAVDESS speech: acted clips of eight emotions, read from their file names.

Names are modality-channel-emotion-intensity-statement-repetition-actor, two digits each (Livingstone & Russo 2018).
Nobody rated activation, valence or dominance of these clips: the dimensions are derived from category and intensity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audio_emotion.training.affective_norms import norm_derived_dimensions
from audio_emotion.training.corpora.corpus import CorpusInfo, find_corpus_root

INFO = CorpusInfo(
    name="ravdess",
    license="CC-BY-NC-SA-4.0",
    citation=(
        "Livingstone & Russo 2018, The Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS), "
        "PLoS ONE 13(5): e0196391, https://doi.org/10.1371/journal.pone.0196391"
    ),
    emotions=("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"),
    dimensions_source="norm-derived",
)
INTENSITIES = ("normal", "strong")
AUDIO_ONLY, SPEECH = "03", "01"
CLIP_NAME = re.compile(r"(\d\d)-(\d\d)-(0[1-8])-(0[12])-(\d\d)-(\d\d)-(\d\d)")


def rows(root: str | Path | None = None) -> Iterator[dict[str, Any]]:
    """One row per spoken audio clip in `root/Actor_*/`, sorted by clip name; songs and videos are left out.

    Args:
        root: the folder with `Actor_01/` in it, `.wav` as published or `.flac`; by default
            `$AUDIO_EMOTION_DATA/ravdess`.

    Raises:
        FileNotFoundError: at the call, if the folder is missing or holds no spoken clip.
        ValueError: at the call, for a name that is not RAVDESS's, or one clip present in two formats.
    """
    root = find_corpus_root(INFO.name, root)
    clips: dict[str, Path] = {}
    for path in root.glob("Actor_*/*"):
        if path.suffix.lower() not in {".wav", ".flac"} or path.name.startswith("."):
            continue
        match = CLIP_NAME.fullmatch(path.stem)
        if match is None:
            raise ValueError(
                f"Expected a name like `03-01-05-02-01-01-16` (modality-channel-emotion-intensity-statement-"
                f"repetition-actor), got `{path}`. Move the file out of the corpus."
            )
        if match[1] != AUDIO_ONLY or match[2] != SPEECH:
            continue
        if path.stem in clips:
            raise ValueError(f"Expected each clip once, got `{clips[path.stem]}` and `{path}`. Keep one of the two.")
        clips[path.stem] = path
    if not clips:
        raise FileNotFoundError(
            f"Expected clips such as `Actor_01/03-01-01-01-01-01-01.wav` in `{root}`, got none. Unpack "
            f"`Audio_Speech_Actors_01-24.zip` there."
        )
    return (_row(clips[name]) for name in sorted(clips))


def _row(path: Path) -> dict[str, Any]:
    _, _, emotion_code, intensity_code, _, _, actor = path.stem.split("-")
    emotion = INFO.emotions[int(emotion_code) - 1]
    activation, valence, dominance = norm_derived_dimensions(emotion, INTENSITIES[int(intensity_code) - 1])
    return {
        "id": f"{INFO.name}/{path.stem}",
        "audio": {"bytes": None, "path": str(path)},
        "speaker": f"{INFO.name}/{actor}",
        "gender": "male" if int(actor) % 2 else "female",
        "emotion": emotion,
        "activation": activation,
        "valence": valence,
        "dominance": dominance,
    }
