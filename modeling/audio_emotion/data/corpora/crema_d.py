"""CREMA-D: 91 actors speak twelve sentences in six emotions; crowd votes on audio, video, and both.

Names are actor-sentence-emotion-level, such as `1001_IEO_ANG_HI` (Cao et al. 2014). The published folder:

    AudioWAV/*.wav                       16 kHz mono; also read as .flac, .ogg or .mp3, or from AudioMP3/*.mp3
    VideoFlash/*.flv                     video of the same takes; read on request
    VideoDemographics.csv                age, sex, race, ethnicity of the actors
    processedResults/tabulatedVotes.csv  votes on audio (row ids 1...), video (2...) and both (3...) of each clip

The intended emotion is the usual label, although raters of the audio vote for it on 44.6 % of the clips only: `labels`
selects the votes instead, or adds them as a soft label. There are no ratings of activation, valence or dominance: the
dimensions are derived from the category, and for votes in its place are the mean over them.

Protocols. `crema-d-all` trains on all actors (for published weights, never for scores). `crema-d-hicmae-fold-1` ..
`-5` (Sun et al. 2024): 18, 18, 18, 18 and 19 consecutive actors, without the five clips that the corpus reports as
broken or once misnamed (we infer which five: without them the folds have the published sizes 1463, 1470, 1475, 1474,
1555; this reader also leaves out three pairs of clips that are one recording under two labels, all of them in fold 1,
which then has 1457). `crema-d-63-9-19`: the speaker-disjoint split of TensorFlow Datasets, 5144, 738 and 1556 clips,
without the four that it leaves out (of each such pair, one); this reader also leaves out the other one of each pair
and a training clip without sound. The fold of EmoBox (5,586 and 1,856 clips) is refused: all 91 actors are in training
and in test, because its script disregards speakers in unbalanced corpora, so published scores on it are not
speaker-independent.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from audio_emotion.data.affective_norms import norm_derived_dimensions
from audio_emotion.data.corpora.corpus_info import (
    PAD_NORMS,
    CorpusInfo,
    Variant,
    find_corpus_root,
    majority,
    vote_probabilities,
)
from audio_emotion.data.protocols import Protocol, fold_protocols


def _prefixed(names: Iterable[int | str]) -> tuple[str, ...]:
    return tuple(f"crema-d/{name}" for name in names)


ACTORS = range(1001, 1092)
HICMAE_TESTS = (range(1001, 1019), range(1019, 1037), range(1037, 1055), range(1055, 1073), range(1073, 1092))
HICMAE_LEFT_OUT = ("1040_ITH_SAD_XX", "1064_IEO_DIS_MD", "1064_TIE_SAD_XX", "1076_MTI_NEU_XX", "1076_MTI_SAD_XX")
TFDS_VALIDATION = (1015, 1020, 1021, 1030, 1050, 1070, 1079, 1089, 1090)
TFDS_TEST = (
    *(1010, 1013, 1022, 1026, 1037, 1038, 1040, 1045, 1047, 1048),
    *(1059, 1065, 1066, 1068, 1071, 1073, 1084, 1086, 1088),
)
TFDS_LEFT_OUT = ("1006_TIE_NEU_XX", "1013_WSI_DIS_XX", "1017_IWW_FEA_XX", "1040_ITH_SAD_XX")
PROTOCOLS = {
    "crema-d-all": Protocol(train=_prefixed(ACTORS), validation=(), test=()),
    **fold_protocols(
        "crema-d-hicmae-fold", [_prefixed(fold) for fold in HICMAE_TESTS], left_out=_prefixed(HICMAE_LEFT_OUT)
    ),
    "crema-d-63-9-19": Protocol(
        train=_prefixed(actor for actor in ACTORS if actor not in TFDS_VALIDATION + TFDS_TEST),
        validation=_prefixed(TFDS_VALIDATION),
        test=_prefixed(TFDS_TEST),
        left_out=_prefixed(TFDS_LEFT_OUT),
    ),
}

INFO = CorpusInfo(
    name="crema-d",
    license="ODbL-1.0",
    citation=(
        "Cao, Cooper, Keutmann, Gur, Nenkova & Verma 2014, CREMA-D: Crowd-sourced Emotional Multimodal Actors "
        "Dataset, IEEE Transactions on Affective Computing 5(4): 377-390, https://doi.org/10.1109/TAFFC.2014.2336244"
    ),
    emotions=("angry", "disgust", "fearful", "happy", "neutral", "sad"),
    dimensions_source="norm-derived",
    languages=("en",),
    speech="acted: adult actors in the United States speak twelve English sentences",
    variants={
        "voice": Variant({"labels": "voice"}),
        "face": Variant({"labels": "face"}),
        "audio-visual": Variant({"labels": "audio-visual"}),
        "voice-votes": Variant({"labels": "voice-votes"}),
        "video": Variant({"video": True}),
        "pad": PAD_NORMS,
    },
    protocols=PROTOCOLS,
    refused_protocols={
        "crema-d-emobox": "EmoBox's CREMA-D fold has all 91 actors in training and in test. Choose "
        "`crema-d-hicmae-fold-1` .. `-5` or `crema-d-63-9-19`."
    },
)
CODES = dict(zip(("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"), INFO.emotions, strict=True))
CLIP_NAME = re.compile(r"(10[0-9]{2})_[A-Z]{3}_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX)")
MISNAMED = {"1040_ITH_SAD_X": "1040_ITH_SAD_XX"}  # in copies made before October 2022

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")  # a clip in several is read from the first

LEFT_OUT = {  # of every protocol, with the reason
    "1076_MTI_SAD_XX": "too short, no speech in any format",
    "1006_TIE_HAP_XX": "the same recording as 1006_TIE_NEU_XX",
    "1006_TIE_NEU_XX": "the same recording as 1006_TIE_HAP_XX",
    "1013_WSI_DIS_XX": "the same recording as 1013_WSI_SAD_XX",
    "1013_WSI_SAD_XX": "the same recording as 1013_WSI_DIS_XX",
    "1017_IWW_ANG_XX": "the same recording as 1017_IWW_FEA_XX",
    "1017_IWW_FEA_XX": "the same recording as 1017_IWW_ANG_XX",
}
# As reported by the corpus page and its users; the audio of the last three is sound.
BAD_VIDEO = {
    "1076_MTI_SAD_XX": "too short in every format",
    "1076_MTI_NEU_XX": "broken video; the wav is sound",
    "1064_TIE_SAD_XX": "video without a duration",
    "1064_IEO_DIS_MD": "video of a minute",
}

Labels = Literal["intended", "voice", "face", "audio-visual", "voice-votes"]
VOTES_BESIDE: dict[Labels, Labels] = {"voice-votes": "voice"}  # of which the votes are added to the intended label
QUERIES = {"voice": "1", "face": "2", "audio-visual": "3"}  # first digit of a row id of the votes


def rows(
    root: str | Path | None = None,
    labels: Labels = "intended",
    video: bool = False,
    dimensions_source: str = "norm-derived",
) -> Iterator[dict[str, Any]]:
    """One row per clip in `root/AudioWAV/` or `root/AudioMP3/`, sorted by name, without those in `LEFT_OUT`.

    Args:
        root: the folder with `AudioWAV/` or `AudioMP3/` in it; by default `$AUDIO_EMOTION_DATA/crema-d`.
        labels: "intended" by the actor; or the votes of raters who were given the "voice", the "face", or both
            ("audio-visual"): `probabilities` are then fractions of the votes, and `emotion` their majority, None for a
            tie. "voice-votes": the intended label and its dimensions, and the `probabilities` of "voice".
        video: pair each clip with its `VideoFlash/*.flv`; None for those in `BAD_VIDEO` and for a missing file.
        dimensions_source: a key of `affective_norms.NORM_SETS`.

    Raises:
        FileNotFoundError: at the call, if the folder, its clips, or the requested votes are missing.
        ValueError: at the call, for a name that is not CREMA-D's, a Git LFS pointer in place of a clip, or an unknown
            kind of labels.
    """
    root = find_corpus_root(INFO.name, root)
    clips: dict[str, Path] = {}
    for path in _audio_files(root):
        name = MISNAMED.get(path.stem, path.stem)
        if CLIP_NAME.fullmatch(name) is None:
            raise ValueError(
                f"Expected a name like `1001_IEO_ANG_HI` (actor_sentence_emotion_level), got `{path}`. Move the file "
                f"out of the corpus."
            )
        if name not in LEFT_OUT:
            clips.setdefault(name, path)
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
    beside = labels in VOTES_BESIDE
    soft_labels = None if labels == "intended" else votes(root, VOTES_BESIDE.get(labels, labels))
    if soft_labels is not None and (missing := sorted(set(clips) - set(soft_labels))):
        raise ValueError(f"Expected votes on every clip, got none on {missing[:5]}. Use the published votes.")
    people = demographics(root)
    others = people, soft_labels, beside, video, dimensions_source
    return (_row(root, name, clips[name], *others) for name in sorted(clips))


def _audio_files(root: Path) -> list[Path]:
    """Audio of the corpus; of a clip in several formats, the first of `SUFFIXES` comes first."""
    found = [path for folder in ("AudioWAV", "AudioMP3") for path in (root / folder).glob("*")]
    audio = [path for path in found if path.suffix in SUFFIXES and not path.name.startswith(".")]
    return sorted(audio, key=lambda path: (SUFFIXES.index(path.suffix), path.name))


def votes(root: str | Path, labels: Labels) -> dict[str, list[float]]:
    """Soft label of every clip by name, over `INFO.emotions`; needs no audio.

    Args:
        root: the corpus, or a folder with `tabulatedVotes.csv` in it.
        labels: "voice", "face" or "audio-visual".

    Raises:
        FileNotFoundError: if the votes are missing.
        ValueError: for other labels.
    """
    counts = rater_votes(root, labels)
    fractions = {name: vote_probabilities(votes, INFO.emotions) for name, votes in counts.items()}
    return {name: each for name, each in fractions.items() if each is not None}


def rater_votes(root: str | Path | None = None, labels: Labels = "voice") -> dict[str, dict[str, float]]:
    """Number of votes for each emotion by clip name; see [`votes`] for arguments and errors."""
    if labels not in QUERIES:
        raise ValueError(f"Expected labels among {['intended', *QUERIES]}, got {labels!r}.")
    root = find_corpus_root(INFO.name, root)
    places = [root / "processedResults" / "tabulatedVotes.csv", root / "tabulatedVotes.csv"]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise FileNotFoundError(
            f"Expected the votes in `{places[0]}`, got no such file. Copy `processedResults` there, or request the "
            f"intended labels."
        )
    counts = {}
    with file.open(encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            if line[""].startswith(QUERIES[labels]):
                columns = {emotion: float(line[emotion[0].upper()]) for emotion in INFO.emotions}  # A D F H N S
                counts[line["fileName"]] = columns
    return counts


def attributes(row: dict[str, Any], root: str | Path | None = None) -> dict[str, str]:
    """Age and ethnicity of the speaker of a row, for comparisons of groups; empty where unknown."""
    person = _people(find_corpus_root(INFO.name, root)).get(row["speaker"])
    if person is None:
        return {}
    age = int(person["Age"])
    hispanic = person["Ethnicity"] == "Hispanic"
    return {
        "age": "under 30" if age < 30 else "30 to 49" if age < 50 else "50 or more",
        "ethnicity": "Hispanic" if hispanic else person["Race"],
    }


@cache
def _people(root: Path) -> dict[str, dict[str, str]]:
    return demographics(root)


def demographics(root: str | Path) -> dict[str, dict[str, str]]:
    """Age, Sex, Race and Ethnicity by speaker ("crema-d/1001"), as published; empty without the file."""
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
    soft_labels: Mapping[str, list[float]] | None,
    beside: bool,  # soft labels are added to the intended one and do not replace it
    video: bool,
    dimensions_source: str,
) -> dict[str, Any]:
    actor, _, code, level = name.split("_")
    speaker = f"{INFO.name}/{actor}"
    if soft_labels is None or beside:
        emotion: str | None = CODES[code]
        intensity = "strong" if level == "HI" else "normal"
        activation, valence, dominance = norm_derived_dimensions(CODES[code], intensity, dimensions_source)
    else:
        emotion = majority(soft_labels[name], INFO.emotions)
        norms = [norm_derived_dimensions(emotion, source=dimensions_source) for emotion in INFO.emotions]
        weights = zip(soft_labels[name], norms, strict=True)
        weighted = [(weight * a, weight * v, weight * d) for weight, (a, v, d) in weights]
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
    if soft_labels is not None:
        row["probabilities"] = soft_labels[name]
    if video:
        file = root / "VideoFlash" / f"{path.stem}.flv"
        usable = name not in BAD_VIDEO and file.is_file()
        row["video"] = {"bytes": None, "path": str(file)} if usable else None
    return row
