"""CREMA-D: 91 actors say twelve sentences in six emotions, and raters vote on what they hear, see, or both.

Names are actor-sentence-emotion-level, such as `1001_IEO_ANG_HI` (Cao et al. 2014). The published folder:

    AudioWAV/*.wav                       16 kHz mono
    VideoFlash/*.flv                     the same takes seen; read on request
    VideoDemographics.csv                age, sex, race, ethnicity of the actors
    processedResults/tabulatedVotes.csv  votes of each clip, heard (row id 1...), seen (2...), heard and seen (3...)

The intended emotion is the usual label, though listeners alone vote for it on 44.6 % of the clips: `labels` takes the
raters' votes instead. Nobody rated activation, valence or dominance: the dimensions are derived from the category, for
votes as their mean.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from audio_emotion.data.affective_norms import norm_derived_dimensions
from audio_emotion.data.corpora.corpus_info import CorpusInfo, find_corpus_root, majority, vote_probabilities

INFO = CorpusInfo(
    name="crema-d",
    license="ODbL-1.0",
    citation=(
        "Cao, Cooper, Keutmann, Gur, Nenkova & Verma 2014, CREMA-D: Crowd-sourced Emotional Multimodal Actors "
        "Dataset, IEEE Transactions on Affective Computing 5(4): 377-390, https://doi.org/10.1109/TAFFC.2014.2336244"
    ),
    emotions=("angry", "disgust", "fearful", "happy", "neutral", "sad"),
    dimensions_source="norm-derived",
)
CODES = dict(zip(("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"), INFO.emotions, strict=True))
CLIP_NAME = re.compile(r"(10[0-9]{2})_[A-Z]{3}_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX)")
MISNAMED = {"1040_ITH_SAD_X": "1040_ITH_SAD_XX"}  # in copies made before October 2022

# What the corpus's own page and its users report; the rest of each take is sound.
BAD_AUDIO = {"1076_MTI_SAD_XX": "too short, no speech in any format"}
BAD_VIDEO = {
    "1076_MTI_SAD_XX": "too short in every format",
    "1076_MTI_NEU_XX": "broken video; the wav is sound",
    "1064_TIE_SAD_XX": "video without a duration",
    "1064_IEO_DIS_MD": "video of a minute",
}

Labels = Literal["intended", "voice", "face", "audio-visual"]
QUERIES = {"voice": "1", "face": "2", "audio-visual": "3"}  # first digit of a row id of the votes


def rows(root: str | Path | None = None, labels: Labels = "intended", video: bool = False) -> Iterator[dict[str, Any]]:
    """One row per clip in `root/AudioWAV/`, sorted by name, without those in `BAD_AUDIO`.

    Args:
        root: the folder with `AudioWAV/` in it; by default `$AUDIO_EMOTION_DATA/crema-d`.
        labels: "intended" by the actor; or the votes of raters who had the "voice" alone, the "face" alone, or both
            ("audio-visual"): `shares` are then theirs, and `emotion` their majority, None for a tie.
        video: pair each clip with its `VideoFlash/*.flv`; None for those in `BAD_VIDEO` and for a missing file.

    Raises:
        FileNotFoundError: at the call, if the folder, its clips, or the votes asked for are missing.
        ValueError: at the call, for a name that is not CREMA-D's, a Git LFS pointer in place of a clip, or an unknown
            kind of labels.
    """
    root = find_corpus_root(INFO.name, root)
    clips: dict[str, Path] = {}
    for path in sorted((root / "AudioWAV").glob("*.wav")):
        if path.name.startswith("."):
            continue
        name = MISNAMED.get(path.stem, path.stem)
        if CLIP_NAME.fullmatch(name) is None:
            raise ValueError(
                f"Expected a name like `1001_IEO_ANG_HI` (actor_sentence_emotion_level), got `{path}`. Move the file "
                f"out of the corpus."
            )
        if name not in BAD_AUDIO:
            clips[name] = path
    if not clips:
        raise FileNotFoundError(
            f"Expected clips such as `AudioWAV/1001_IEO_ANG_HI.wav` in `{root}`, got none. Copy `AudioWAV` there."
        )
    first = next(iter(clips.values()))
    with first.open("rb") as file:
        if file.read(15) == b"version https:/":
            raise ValueError(
                f"Expected audio, got a Git LFS pointer: `{first}`. Run `git lfs pull` in the clone, or download the "
                f"files from the corpus's page."
            )
    shares = None if labels == "intended" else votes(root, labels)
    if shares is not None and (missing := sorted(set(clips) - set(shares))):
        raise ValueError(f"Expected votes on every clip, got none on {missing[:5]}. Use the published votes.")
    people = demographics(root)
    return (_row(root, name, clips[name], people, shares, video) for name in sorted(clips))


def votes(root: str | Path, labels: Labels) -> dict[str, list[float]]:
    """Soft label of every clip by name, over `INFO.emotions`; needs no audio.

    Args:
        root: the corpus, or a folder with `tabulatedVotes.csv` in it.
        labels: "voice", "face" or "audio-visual".

    Raises:
        FileNotFoundError: if the votes are missing.
        ValueError: for other labels.
    """
    if labels not in QUERIES:
        raise ValueError(f"Expected labels among {['intended', *QUERIES]}, got {labels!r}.")
    places = [Path(root) / "processedResults" / "tabulatedVotes.csv", Path(root) / "tabulatedVotes.csv"]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise FileNotFoundError(
            f"Expected the votes in `{places[0]}`, got no such file. Copy `processedResults` there, or ask for the "
            f"intended labels."
        )
    shares = {}
    with file.open(encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            if line[""].startswith(QUERIES[labels]):
                counts = {emotion: float(line[emotion[0].upper()]) for emotion in INFO.emotions}  # columns A D F H N S
                share = vote_probabilities(counts, INFO.emotions)
                if share is not None:
                    shares[line["fileName"]] = share
    return shares


def demographics(root: str | Path) -> dict[str, dict[str, str]]:
    """Age, Sex, Race and Ethnicity by speaker ("crema-d/1001"), as published; empty where the file is absent."""
    file = Path(root) / "VideoDemographics.csv"
    if not file.is_file():  # re-uploads of the audio alone leave it out
        return {}
    with file.open(encoding="utf-8", newline="") as lines:
        return {f"{INFO.name}/{line.pop('ActorID')}": line for line in csv.DictReader(lines)}


def _row(
    root: Path,
    name: str,
    path: Path,
    people: Mapping[str, Mapping[str, str]],
    shares: Mapping[str, list[float]] | None,
    video: bool,
) -> dict[str, Any]:
    actor, _, code, level = name.split("_")
    speaker = f"{INFO.name}/{actor}"
    if shares is None:
        emotion: str | None = CODES[code]
        intensity = "strong" if level == "HI" else "normal"
        activation, valence, dominance = norm_derived_dimensions(CODES[code], intensity)
    else:
        emotion = majority(shares[name], INFO.emotions)
        words = zip(shares[name], (norm_derived_dimensions(word) for word in INFO.emotions), strict=True)
        weighted = [(share * a, share * v, share * d) for share, (a, v, d) in words]
        activation, valence, dominance = (math.fsum(column) for column in zip(*weighted, strict=True))
    row: dict[str, Any] = {
        "id": f"{INFO.name}/{name}",
        "audio": {"bytes": None, "path": str(path)},
        "speaker": speaker,
        "gender": people[speaker]["Sex"].lower() if speaker in people else None,
        "emotion": emotion,
        "activation": activation,
        "valence": valence,
        "dominance": dominance,
    }
    if shares is not None:
        row["shares"] = shares[name]
    if video:
        seen = root / "VideoFlash" / f"{path.stem}.flv"
        sound = name not in BAD_VIDEO and seen.is_file()
        row["video"] = {"bytes": None, "path": str(seen)} if sound else None
    return row
