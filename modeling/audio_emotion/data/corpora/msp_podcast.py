"""MSP-Podcast: speaking turns of podcasts, crowd-rated for category and dimensions; any release from 1.6 on.

The released folder (Lotfian & Busso 2019), with what differs between releases:

    Audios/MSP-PODCAST_0001_0008.wav   or Audio/; 16 kHz, 2.75 to 11 s
    Labels/labels_consensus.csv        or labels/, label/; concensus in older releases; or .json, by file name:
                                       FileName EmoClass EmoAct EmoVal EmoDom SpkrID Gender Split_Set
    Labels/labels_detailed.csv         a line a rating: FileName, Workers or WorkerID, EmoClass_Major, ...; or FileName
                                       and EmoDetail, "WORKER0001; Neutral; Neutral,Concerned; A:3; V:4; D:3;";
                                       or as .json, by file name, then by worker

Attributes go from 1 to 7. Scores of different releases cannot be compared: their test sets are different clips.

A clip of an unknown speaker gets a speaker name per clip, `msp-podcast/unknown-<clip>`: one name for all of them would
be one speaker in every split. It cannot be checked that an unknown speaker of the train partition is not one of the
test partition, so only the published partitions may divide such clips. `unknown_speakers="drop"` leaves them out.

Protocols. `msp-podcast-1.11-test`, `msp-podcast-1.11-test-2` and so on: the published partitions, by release. Where
the published size of a test set is known, a table with another number of clips is refused. Test-3 has no public labels
and no protocol.
"""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from audio_emotion.data.corpora.corpus_info import (
    CorpusInfo,
    Variant,
    find_corpus_root,
    rating_to_unit,
    vote_probabilities,
)
from audio_emotion.data.protocols import Protocol

TEST_CLIPS: dict[str, dict[str, int | None]] = {  # by release and test set; None where no size is published
    "1.6": {"test": 10_124},
    "1.7": {"test": 12_902, "test-2": None},
    "1.8": {"test": None, "test-2": None},
    "1.9": {"test": None, "test-2": None},
    "1.10": {"test": None, "test-2": None},
    "1.11": {"test": 30_647, "test-2": 14_815},
    "1.12": {"test": None, "test-2": None},
    "2.0": {"test": 46_294, "test-2": 14_822},
}
PROTOCOLS = {
    f"msp-podcast-{release}-{test}": Protocol(
        train=("msp-podcast/train",),
        validation=("msp-podcast/validation",),
        test=(f"msp-podcast/{test}",),
        by="partition",
        test_clips=clips,
    )
    for release, tests in TEST_CLIPS.items()
    for test, clips in tests.items()
}

INFO = CorpusInfo(
    name="msp-podcast",
    license="LicenseRef-MSP-Podcast",  # an agreement of one's institution with the University of Texas at Dallas
    citation=(
        "Lotfian & Busso 2019, Building Naturalistic Emotionally Balanced Speech Corpus by Retrieving Emotional "
        "Speech from Existing Podcast Recordings, IEEE Transactions on Affective Computing 10(4): 471-483, "
        "https://doi.org/10.1109/TAFFC.2017.2736999"
    ),
    emotions=("angry", "sad", "happy", "surprised", "fearful", "disgust", "contempt", "neutral"),
    dimensions_source="rated",
    languages=("en",),
    speech="spontaneous English speech from podcasts",
    variants={
        "votes": Variant({"votes": True}),
        "known-speakers": Variant({"unknown_speakers": "drop"}),
    },
    protocols=PROTOCOLS,
)
CODES = dict(zip("ASHUFDCN", INFO.emotions, strict=True))
WITHOUT_CLASS = ("O", "X", "")  # other, no agreement, withheld: the dimensions may still be there
RATERS_WORDS = {"surprise": "surprised", "fear": "fearful"}  # the others are spelled as here
PARTITIONS = {
    "Train": "train",
    "Development": "validation",
    "Validation": "validation",
    "Test": "test",
    "Test1": "test",
    "Test2": "test-2",
    "Test3": "test-3",
}
SCALE = (1.0, 7.0)


def rows(
    root: str | Path | None = None, votes: bool = False, unknown_speakers: Literal["keep", "drop"] = "keep"
) -> Iterator[dict[str, Any]]:
    """One row per clip of the consensus labels, sorted by file name.

    Args:
        root: the folder with `Labels/` in it; by default `$AUDIO_EMOTION_DATA/msp-podcast`.
        votes: read the primary classes of all raters as `probabilities`; votes for other words are left out.
        unknown_speakers: "drop" leaves out the clips of unknown speakers.

    Raises:
        FileNotFoundError: at the call, if the folder, its audio, or the requested labels are missing.
        ValueError: for an unknown option, class or partition, or a rating off the scale.
    """
    if unknown_speakers not in ("keep", "drop"):
        raise ValueError(f"Expected one of ['keep', 'drop'], got {unknown_speakers!r}.")
    root = find_corpus_root(INFO.name, root)
    audio = next((root / name for name in ("Audios", "Audio") if (root / name).is_dir()), None)
    if audio is None:
        raise FileNotFoundError(f"Expected the clips in `{root / 'Audios'}`, got no such folder. Unpack them there.")
    consensus = _consensus(_labels_file(root, "labels_consensus", "labels_concensus"))
    counts = _votes(_labels_file(root, "labels_detailed")) if votes else None
    return _rows(audio, consensus, counts, unknown_speakers == "keep")


def _labels_file(root: Path, *names: str) -> Path:
    for folder in ("Labels", "labels", "label"):
        for name in names:
            for ending in ("csv", "json"):
                if (file := root / folder / f"{name}.{ending}").is_file():
                    return file
    raise FileNotFoundError(
        f"Expected `Labels/{names[0]}.csv` or `.json` in `{root}`, got neither. Unpack the release's labels there."
    )


def _consensus(file: Path) -> dict[str, dict[str, Any]]:
    """Consensus labels by file name."""
    with file.open(encoding="utf-8-sig", newline="") as text:
        if file.suffix == ".json":
            return dict(json.load(text))
        return {line["FileName"]: line for line in csv.DictReader(text)}


def _votes(file: Path) -> dict[str, Counter[str]]:
    """Votes for each emotion, by file name."""
    votes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    with file.open(encoding="utf-8-sig", newline="") as text:
        if file.suffix == ".json":
            for name, workers in json.load(text).items():
                votes[name].update(_emotion(rating["EmoClass_Major"]) for rating in workers.values())
        else:
            for line in csv.DictReader(text):
                word = line["EmoDetail"].split(";")[1] if "EmoDetail" in line else line["EmoClass_Major"]
                votes[line["FileName"]][_emotion(word)] += 1
    return votes


def _emotion(word: str) -> str:
    word = word.strip().lower()
    return RATERS_WORDS.get(word, word)


def _rows(
    audio: Path, consensus: Mapping[str, Mapping[str, Any]], votes: Mapping[str, Counter[str]] | None, unknown: bool
) -> Iterator[dict[str, Any]]:
    for name in sorted(consensus):
        labels = consensus[name]
        clip = Path(name).stem
        code, partition, speaker = labels["EmoClass"] or "", labels["Split_Set"], str(labels["SpkrID"]).strip()
        if code not in CODES and code not in WITHOUT_CLASS:
            raise ValueError(f"Expected a class among {[*CODES, *WITHOUT_CLASS]}, got {code!r} of `{name}`.")
        if partition not in PARTITIONS:
            raise ValueError(f"Expected a partition among {list(PARTITIONS)}, got {partition!r} of `{name}`.")
        if speaker.lower() in ("unknown", "", "none", "nan"):
            if not unknown:
                continue
            speaker = f"unknown-{clip}"
        row: dict[str, Any] = {
            "id": f"{INFO.name}/{clip}",
            "audio": {"bytes": None, "path": str(audio / f"{clip}.wav")},
            "speaker": f"{INFO.name}/{speaker}",
            "gender": {"male": "male", "female": "female"}.get(str(labels["Gender"]).strip().lower()),
            "emotion": CODES.get(code),
            "activation": _attribute(labels["EmoAct"]),
            "valence": _attribute(labels["EmoVal"]),
            "dominance": _attribute(labels["EmoDom"]),
            "partition": PARTITIONS[partition],
        }
        if votes is not None:
            row["probabilities"] = vote_probabilities(votes.get(name, {}), INFO.emotions)
        yield row


def _attribute(value: str | float | None) -> float | None:
    """In 0..1; None where it is withheld."""
    return None if value is None or value == "" else rating_to_unit(float(value), *SCALE)
