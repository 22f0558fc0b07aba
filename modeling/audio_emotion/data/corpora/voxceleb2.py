"""VoxCeleb2: audio and video of interviews of 6,112 celebrities, without emotion labels.

The unpacked folder (Chung, Nagrani & Zisserman 2018), with the same key for audio and video:

    dev/aac/id03965/MmpzE5-VO9E/00047.m4a    speaker / YouTube video / utterance; 16 kHz
    dev/mp4/id03965/MmpzE5-VO9E/00047.mp4    the face of the speaker, 25 frames a second
    test/aac, test/mp4                       118 other speakers
    vox2_meta.csv                            gender of the speakers; may be absent

Of the 1,092,009 utterances of dev, users report 283 videos that do not open and 145 whose audio and video differ in
length; no list names them, so they are found when they are decoded, and quarantined.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from audio_emotion.data.corpora.corpus_info import CorpusInfo, Variant, find_corpus_root

INFO = CorpusInfo(
    name="voxceleb2",
    license="LicenseRef-VoxCeleb2",  # CC BY 4.0 covers the metadata; the recordings belong to their owners
    citation="Chung, Nagrani & Zisserman 2018, VoxCeleb2: Deep Speaker Recognition, Interspeech 2018: 1086-1090, "
    "https://doi.org/10.21437/Interspeech.2018-1929",
    emotions=(),
    dimensions_source="none",
    speech="interviews of celebrities in many languages, without emotion labels",
    variants={"audio": Variant({"video": False})},
)
PARTITIONS = {"dev": "train", "test": "test"}
GENDERS = {"m": "male", "f": "female"}


def rows(root: str | Path | None = None, video: bool = True) -> Iterator[dict[str, Any]]:
    """One row per utterance in `dev/aac/` and `test/aac/`, sorted within each; read lazily: there are over a million.

    Args:
        root: the folder with `dev/` or `test/` in it; by default `$AUDIO_EMOTION_DATA/voxceleb2`.
        video: pair each utterance with its mp4, None where it has none.

    Raises:
        FileNotFoundError: at the call, if the folder has neither part, or no requested video.
    """
    root = find_corpus_root(INFO.name, root)
    parts = [part for part in PARTITIONS if (root / part / "aac").is_dir()]
    if not parts:
        raise FileNotFoundError(
            f"Expected `dev/aac/` or `test/aac/` in `{root}`, got neither. Unpack the audio archives there."
        )
    if video and (missing := [part for part in parts if not (root / part / "mp4").is_dir()]):
        raise FileNotFoundError(
            f"Expected `{missing[0]}/mp4/` in `{root}`, got no such folder. Unpack the video archives there, or "
            f"request rows without video."
        )
    return _rows(root, parts, _genders(root / "vox2_meta.csv"), video)


def _genders(file: Path) -> dict[str, str]:
    """Gender by speaker, from a table whose columns are padded with blanks; one edition is separated by tabs."""
    if not file.is_file():
        return {}
    text = file.read_text(encoding="utf-8-sig")
    lines = csv.reader(text.splitlines(), delimiter="\t" if "\t" in text.split("\n", 1)[0] else ",")
    header = [name.strip() for name in next(lines)]
    speaker, gender = header.index("VoxCeleb2 ID"), header.index("Gender")
    return {line[speaker].strip(): GENDERS[line[gender].strip()] for line in lines if line}


def _rows(root: Path, parts: list[str], genders: Mapping[str, str], video: bool) -> Iterator[dict[str, Any]]:
    for part in parts:
        for folder in sorted((root / part / "aac").glob("id*")):
            for path in sorted(folder.glob("*/*.m4a")):
                key = path.relative_to(root / part / "aac").with_suffix("")
                row = {
                    "id": f"{INFO.name}/{key.as_posix()}",
                    "audio": {"bytes": None, "path": str(path)},
                    "speaker": f"{INFO.name}/{folder.name}",
                    "gender": genders.get(folder.name),
                    "emotion": None,
                    "activation": None,
                    "valence": None,
                    "dominance": None,
                    "partition": PARTITIONS[part],
                }
                if video:
                    file = root / part / "mp4" / f"{key.as_posix()}.mp4"
                    row["video"] = {"bytes": None, "path": str(file)} if file.is_file() else None
                yield row
