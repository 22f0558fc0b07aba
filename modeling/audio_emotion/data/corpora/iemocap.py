"""IEMOCAP: ten actors in five dyadic sessions, improvised and scripted, rated for category and dimensions.

The released folder (Busso et al. 2008):

    Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M003.wav   16 kHz, a file a turn
    Session1/dialog/EmoEvaluation/Ses01F_impro01.txt                a block a turn

and a block of the latter, with tabs, valence first:

    [6.2901 - 8.2357]   Ses01F_impro01_M003   ang   [2.0000, 3.5000, 4.0000]
    C-E2:   Anger; Frustration;   ()
    C-M1:   Anger;   ()
    A-E3:   val 2; act 3; dom  4;   ()

The letter before the turn number is the speaker; the one in the dialog name is the actor with the motion capture
markers, not the speaker.
Dimensions go from 1 to 5; the release has a few means half a step outside, which are clipped to the end of the scale.

Protocols. `iemocap-session-1` .. `-5` test both speakers of that session.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from audio_emotion.data.corpora.corpus_info import (
    CorpusInfo,
    Variant,
    find_corpus_root,
    rating_to_unit,
    vote_probabilities,
)
from audio_emotion.data.protocols import fold_protocols

FOUR_CLASSES = ("angry", "happy", "sad", "neutral")  # used by most papers: excited counts as happy, 5,531 turns

INFO = CorpusInfo(
    name="iemocap",
    license="LicenseRef-IEMOCAP",  # a signed release form; not to be passed on
    citation=(
        "Busso, Bulut, Lee, Kazemzadeh, Mower, Kim, Chang, Lee & Narayanan 2008, IEMOCAP: interactive emotional "
        "dyadic motion capture database, Language Resources and Evaluation 42: 335-359, "
        "https://doi.org/10.1007/s10579-008-9076-6"
    ),
    emotions=(
        "angry",
        "happy",
        "excited",
        "sad",
        "neutral",
        "frustrated",
        "fearful",
        "surprised",
        "disgust",
        "other",
    ),
    dimensions_source="rated",
    languages=("en",),
    speech="acted: ten adult actors in English dialogues, scripted and improvised",
    variants={
        "four": Variant({"classes": "four"}, emotions=FOUR_CLASSES),
        "improvised": Variant({"part": "improvised"}),
        "scripted": Variant({"part": "scripted"}),
    },
    protocols=fold_protocols(
        "iemocap-session", [tuple(f"iemocap/Ses0{session}{speaker}" for speaker in "FM") for session in range(1, 6)]
    ),
)
CODES = dict(zip(("ang", "hap", "exc", "sad", "neu", "fru", "fea", "sur", "dis", "oth"), INFO.emotions, strict=True))
NO_AGREEMENT = "xxx"
RATERS_WORDS = {
    "anger": "angry",
    "happiness": "happy",
    "sadness": "sad",
    "neutral state": "neutral",
    "frustration": "frustrated",
    "fear": "fearful",
    "surprise": "surprised",
}  # excited, disgust and other are spelled as here
SCALE = (1.0, 5.0)
SCALE_SLACK = 0.5

TURN = re.compile(r"\[[\d.]+ - [\d.]+\]\t(Ses0([1-5])[FM]_(impro|script)\S*_([FM])\w+)\t(\w+)\t\[(.+)\]")
RATER = re.compile(r"C-E\d+:\t(.*?)\t")  # evaluators; C-F1 and C-M1 are the actors' ratings of themselves


def rows(
    root: str | Path | None = None,
    classes: Literal["all", "four"] = "all",
    part: Literal["both", "improvised", "scripted"] = "both",
) -> Iterator[dict[str, Any]]:
    """One row per rated turn, by session and dialog, in the order of the evaluations.

    `emotion` is None where the raters did not agree; `probabilities` are fractions of the evaluators' votes, where an
    evaluator who named several emotions divides one vote among them.

    Args:
        root: the folder with `Session1/` in it, or with `IEMOCAP_full_release/`; by default
            `$AUDIO_EMOTION_DATA/iemocap`.
        classes: "all", or "four" for `FOUR_CLASSES`: excited counts as happy, in `probabilities` too, and the turns of
            other emotions are left out.
        part: which half of the dialogs.

    Raises:
        FileNotFoundError: at the call, if the folder is missing or holds no evaluation.
        ValueError: for an unknown option or label, or a rating off the scale.
    """
    for value, known in ((classes, ("all", "four")), (part, ("both", "improvised", "scripted"))):
        if value not in known:
            raise ValueError(f"Expected one of {list(known)}, got {value!r}.")
    root = find_corpus_root(INFO.name, root)
    if (root / "IEMOCAP_full_release").is_dir():
        root = root / "IEMOCAP_full_release"
    files = sorted(
        path for path in root.glob("Session[1-5]/dialog/EmoEvaluation/*.txt") if not path.name.startswith(".")
    )
    if not files:
        raise FileNotFoundError(
            f"Expected evaluations such as `Session1/dialog/EmoEvaluation/Ses01F_impro01.txt` in `{root}`, got none. "
            f"Unpack the release there."
        )
    return _rows(root, files, classes, part)


def _rows(root: Path, files: list[Path], classes: str, part: str) -> Iterator[dict[str, Any]]:
    wanted = {"both": ("impro", "script"), "improvised": ("impro",), "scripted": ("script",)}[part]
    for file in files:
        for block in re.split(r"^(?=\[)", file.read_text(encoding="utf-8", errors="replace"), flags=re.MULTILINE):
            match = TURN.match(block)
            if match is None or match[3] not in wanted:
                continue
            row = _row(root, match, block, merge=classes == "four")
            if classes == "four" and row["emotion"] not in FOUR_CLASSES:
                continue
            yield row


def _row(root: Path, match: re.Match[str], block: str, merge: bool) -> dict[str, Any]:
    turn, session, _, speaker, code, ratings = match.groups()
    if code not in CODES and code != NO_AGREEMENT:
        raise ValueError(f"Expected a label among {[*CODES, NO_AGREEMENT]}, got `{code}` of `{turn}`.")
    valence, activation, dominance = (rating_to_unit(float(each), *SCALE, SCALE_SLACK) for each in ratings.split(","))
    emotion = CODES.get(code)
    votes: defaultdict[str, float] = defaultdict(float)
    for answer in RATER.findall(block):
        words = [word.strip().lower() for word in answer.split(";") if word.strip()]
        for word in words:
            votes[RATERS_WORDS.get(word, word)] += 1 / len(words)
    if merge:
        emotion = "happy" if emotion == "excited" else emotion
        votes["happy"] += votes.pop("excited", 0.0)
    path = root / f"Session{session}" / "sentences" / "wav" / turn.rsplit("_", 1)[0] / f"{turn}.wav"
    return {
        "id": f"{INFO.name}/{turn}",
        "audio": {"bytes": None, "path": str(path)},
        "speaker": f"{INFO.name}/Ses0{session}{speaker}",
        "gender": {"F": "female", "M": "male"}[speaker],
        "emotion": emotion,
        "activation": activation,
        "valence": valence,
        "dominance": dominance,
        "probabilities": vote_probabilities(votes, INFO.emotions),
    }
