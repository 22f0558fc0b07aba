"""RAVDESS: speech and song, acted in eight emotions by 24 actors; labels are read from file names.

Names are modality-channel-emotion-intensity-statement-repetition-actor, two digits each (Livingstone & Russo 2018).
Audio and video of one take differ in the modality only: `take_of` returns the rest. Song has six emotions (no disgust,
no surprised) and no actor 18. The clips have no ratings of activation, valence or dominance: the dimensions are
derived from category and intensity.

Protocols. `ravdess-20-*` are ours, of actors 01 to 20: `-all` trains on all of them (for published weights, never for
scores), `-fixed` is for quick work (a result on it is a hint), and the five folds `-fold-1` .. `-5` test every actor
once; fold 2 tests women only. The published folds are of speech of all 24 actors: `ravdess-emobox-fold-1` .. `-6` (Ma
et al. 2024, EmoBox), `ravdess-hicmae-fold-1` .. `-6` (Sun et al. 2024: four consecutive actors a fold) and
`ravdess-luna-jimenez-fold-1` .. `-5` (Luna-Jiménez et al. 2021).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from audio_emotion.data.affective_norms import norm_derived_dimensions
from audio_emotion.data.corpora.corpus_info import PAD_NORMS, CorpusInfo, Variant, find_corpus_root
from audio_emotion.data.protocols import Protocol, fold_protocols


def _speakers(actors: Iterable[int]) -> tuple[str, ...]:
    return tuple(f"ravdess/{actor:02d}" for actor in actors)


FOLDS = {  # test actors of each fold
    "ravdess-20": ((1, 11, 17, 20), (4, 10, 12, 14), (8, 9, 15, 19), (3, 5, 7, 18), (2, 6, 13, 16)),
    "ravdess-emobox": (
        (1, 11, 20, 21),
        (4, 10, 12, 14),
        (8, 9, 19, 23),
        (3, 5, 7, 24),
        (2, 15, 16, 18),
        (6, 13, 17, 22),
    ),
    "ravdess-hicmae": tuple(tuple(range(first, first + 4)) for first in range(1, 25, 4)),
    "ravdess-luna-jimenez": (
        (2, 5, 14, 15, 16),
        (3, 6, 7, 13, 18),
        (10, 11, 12, 19, 20),
        (8, 17, 21, 23, 24),
        (1, 4, 9, 22),
    ),
}
PROTOCOLS = {
    "ravdess-20-all": Protocol(train=_speakers(range(1, 21)), validation=(), test=()),
    "ravdess-20-fixed": Protocol(
        train=_speakers(range(1, 13)), validation=_speakers(range(13, 17)), test=_speakers(range(17, 21))
    ),
}
for _name, _folds in FOLDS.items():
    PROTOCOLS |= fold_protocols(f"{_name}-fold", [_speakers(fold) for fold in _folds])

INFO = CorpusInfo(
    name="ravdess",
    license="CC-BY-NC-SA-4.0",
    citation=(
        "Livingstone & Russo 2018, The Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS), "
        "PLoS ONE 13(5): e0196391, https://doi.org/10.1371/journal.pone.0196391"
    ),
    emotions=("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"),
    dimensions_source="norm-derived",
    languages=("en",),
    speech="acted: adult professional actors from North America speak two English sentences in a studio",
    variants={
        "song": Variant({"channel": "song"}),
        "speech-and-song": Variant({"channel": "both"}),
        "video": Variant({"video": True}),
        "pad": PAD_NORMS,
    },
    protocols=PROTOCOLS,
)
INTENSITIES = ("normal", "strong")
AUDIO_VISUAL, VIDEO_ONLY, AUDIO_ONLY = "01", "02", "03"
CHANNELS = {"speech": ("01",), "song": ("02",), "both": ("01", "02")}
CLIP_NAME = re.compile(r"(\d\d)-(\d\d)-(0[1-8])-(0[12])-(\d\d)-(\d\d)-(\d\d)")


def rows(
    root: str | Path | None = None,
    channel: Literal["speech", "song", "both"] = "speech",
    video: bool = False,
    dimensions_source: str = "norm-derived",
) -> Iterator[dict[str, Any]]:
    """One row per audio clip in `root/Actor_*/`, sorted by clip name.

    Args:
        root: the folder with `Actor_01/` in it, `.wav` as published or `.flac`; by default
            `$AUDIO_EMOTION_DATA/ravdess`.
        channel: speech, song, or both.
        video: pair each clip with the `.mp4` of the same take and folder, None where there is none; the
            audio-visual file (`01-`) is preferred to the silent one (`02-`).
        dimensions_source: a key of `affective_norms.NORM_SETS`.

    Raises:
        FileNotFoundError: at the call, if the folder is missing or holds no such clip, or no requested video.
        ValueError: at the call, for a name that is not RAVDESS's, one clip present in two formats, or an unknown
            channel.
    """
    if channel not in CHANNELS:
        raise ValueError(f"Expected a channel among {list(CHANNELS)}, got {channel!r}.")
    root = find_corpus_root(INFO.name, root)
    clips: dict[str, Path] = {}
    videos: dict[str, Path] = {}  # by take
    for path in sorted(root.glob("Actor_*/*")):
        suffix = path.suffix.lower()
        if suffix not in {".wav", ".flac", ".mp4"} or path.name.startswith("."):
            continue
        match = CLIP_NAME.fullmatch(path.stem)
        if match is None:
            raise ValueError(
                f"Expected a name like `03-01-05-02-01-01-16` (modality-channel-emotion-intensity-statement-"
                f"repetition-actor), got `{path}`. Move the file out of the corpus."
            )
        if suffix == ".mp4":
            videos.setdefault(take_of(path.stem), path)  # sorted: 01 before 02
            continue
        if match[1] != AUDIO_ONLY or match[2] not in CHANNELS[channel]:
            continue
        if path.stem in clips:
            raise ValueError(f"Expected each clip once, got `{clips[path.stem]}` and `{path}`. Keep one of the two.")
        clips[path.stem] = path
    if not clips:
        code, archive = CHANNELS[channel][0], "Song" if channel == "song" else "Speech"
        raise FileNotFoundError(
            f"Expected clips such as `Actor_01/03-{code}-01-01-01-01-01.wav` in `{root}`, got none. Unpack "
            f"`Audio_{archive}_Actors_01-24.zip` there."
        )
    if video and not videos:
        raise FileNotFoundError(
            f"Expected videos such as `Actor_01/01-01-01-01-01-01-01.mp4` in `{root}`, got none. Unpack "
            f"`Video_Speech_Actor_01.zip` and its neighbors there."
        )
    return (_row(clips[name], videos if video else None, dimensions_source) for name in sorted(clips))


def take_of(clip: str) -> str:
    """Identifier of a take, shared by its audio and video files: fields 2 to 7 of a name or a row id."""
    return clip.removeprefix(f"{INFO.name}/").split("-", 1)[1]


def action_units(path: str | Path | None = None) -> dict[str, dict[str, float]]:
    """Facial action units of each take, by `take_of`: 17 intensities (`AU01_r`, 0..5) and 18 presences (`AU01_c`).

    Computed with OpenFace and averaged over the frames of the video by Luna-Jiménez et al. 2021
    (https://doi.org/10.3390/s21227665).

    Args:
        path: a CSV file with a column `clip` and one for each action unit; by default
            `$AUDIO_EMOTION_DATA/ravdess_faces/action_units.csv`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a take with two rows.
    """
    file = find_corpus_root("ravdess_faces") / "action_units.csv" if path is None else Path(path)
    units: dict[str, dict[str, float]] = {}
    with file.open(encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            clip = line.pop("clip")
            if take_of(clip) in units:
                raise ValueError(f"Expected each take once, got a second row of `{clip}` in `{file}`. Remove it.")
            units[take_of(clip)] = {name: float(value) for name, value in line.items()}
    return units


def _row(path: Path, videos: dict[str, Path] | None, dimensions_source: str) -> dict[str, Any]:
    _, _, emotion_code, intensity_code, _, _, actor = path.stem.split("-")
    emotion = INFO.emotions[int(emotion_code) - 1]
    activation, valence, dominance = norm_derived_dimensions(
        emotion, INTENSITIES[int(intensity_code) - 1], dimensions_source
    )
    row: dict[str, Any] = {
        "id": f"{INFO.name}/{path.stem}",
        "audio": {"bytes": None, "path": str(path)},
        "speaker": f"{INFO.name}/{actor}",
        "gender": "male" if int(actor) % 2 else "female",
        "emotion": emotion,
        "activation": activation,
        "valence": valence,
        "dominance": dominance,
    }
    if videos is not None:
        file = videos.get(take_of(path.stem))
        row["video"] = None if file is None else {"bytes": None, "path": str(file)}
    return row
