"""EmoTale: Danish and English sentences in five enacted emotions, rated by three listeners each.

A name is language, speaker, emotion and sentence, such as `DK_001_A_1` (Hjuler et al. 2025). `annotations.csv` has the
ratings of arousal, valence and dominance by listeners 1 to 3 (`a1_A`, `a1_V`, `a1_D`), from 1 to 5: the dimensions are
the means over the listeners. `speaker_info.csv` has the speakers' sex and age. Boredom is a label of its own.

Protocols. `emotale-14-fold-1` .. `-7` (ours) are of 14 of the 18 speakers and test two each; the paper leaves one
speaker out.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audio_emotion.data.corpora.corpus_info import CorpusInfo, find_corpus_root, rating_to_unit
from audio_emotion.data.protocols import fold_protocols

PAIRS = (
    ("001", "005"),
    ("003", "006"),
    ("007", "015"),
    ("008", "019"),
    ("009", "011"),
    ("012", "014"),
    ("016", "017"),
)
INFO = CorpusInfo(
    name="emotale",
    license="LicenseRef-EmoTale",  # openly published; its page requests the citation and names no license
    citation=(
        "Hjuler, Skat-Rørdam, Clemmensen & Das 2025, EmoTale: An Enacted Speech-emotion Dataset in Danish, ASRU 2025, "
        "https://doi.org/10.48550/arXiv.2508.14548"
    ),
    emotions=("angry", "bored", "happy", "neutral", "sad"),
    dimensions_source="rated",
    languages=("da", "en"),
    speech="acted: adults and children in Denmark speak five sentences in Danish and in English",
    protocols=fold_protocols("emotale-14-fold", [tuple(f"emotale/{each}" for each in pair) for pair in PAIRS]),
)
CODES = dict(zip("ABHNS", INFO.emotions, strict=True))
GENDERS = {"F": "female", "M": "male"}
LISTENERS = ("a1", "a2", "a3")
SUFFIXES = (".wav", ".flac", ".ogg")


def rows(root: str | Path | None = None) -> Iterator[dict[str, Any]]:
    """One row per clip that `root/annotations.csv` lists, sorted by name.

    Args:
        root: the folder with the clips (`.wav`, or re-encoded `.flac` or `.ogg`), `annotations.csv` and
            `speaker_info.csv`; by default `$AUDIO_EMOTION_DATA/emotale`.

    Raises:
        FileNotFoundError: at the call, if the folder, a table or a listed clip is missing.
        ValueError: at the call, for a name that is not EmoTale's; at a row, for a rating outside 1..5.
    """
    root = find_corpus_root(INFO.name, root)
    lines = {line["file"].removesuffix(".wav"): line for line in _table(root / "annotations.csv")}
    genders = {line["speaker"]: GENDERS.get(line["gender"]) for line in _table(root / "speaker_info.csv")}
    files = {path.stem: path for path in root.glob("*") if path.suffix in SUFFIXES}
    if missing := sorted(set(lines) - set(files)):
        raise FileNotFoundError(
            f"Expected a clip for every row of `annotations.csv` in `{root}`, got none for {missing[:5]}. Copy the "
            f"audio there."
        )
    for name in lines:
        parts = name.split("_")
        if len(parts) != 4 or parts[2] not in CODES:
            raise ValueError(
                f"Expected a name like `DK_001_A_1` (language, speaker, emotion, sentence), got `{name}` in "
                f"`annotations.csv`. Use the published table."
            )
    return (_row(files[name], lines[name], genders) for name in sorted(lines))


def attributes(row: dict[str, Any], root: str | Path | None = None) -> dict[str, str]:
    """Language of the clip of a row, for comparisons of groups: every speaker has clips in both."""
    return {"language": {"DK": "Danish", "EN": "English"}.get(row["id"].rpartition("/")[2][:2], "")}


def _table(file: Path) -> list[dict[str, str]]:
    if not file.is_file():
        raise FileNotFoundError(f"Expected `{file}`, got no such file. Copy the tables of EmoTale there.")
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _row(path: Path, line: dict[str, str], genders: dict[str, str | None]) -> dict[str, Any]:
    _, speaker, code, _ = path.stem.split("_")

    def rated(letter: str) -> float:
        ratings = [float(line[f"{listener}_{letter}"]) for listener in LISTENERS]
        return rating_to_unit(math.fsum(ratings) / len(ratings), 1, 5)

    return {
        "id": f"{INFO.name}/{path.stem}",
        "audio": {"bytes": None, "path": str(path)},
        "speaker": f"{INFO.name}/{speaker}",
        "gender": genders.get(speaker),
        "emotion": CODES[code],
        "activation": rated("A"),
        "valence": rated("V"),
        "dominance": rated("D"),
    }
