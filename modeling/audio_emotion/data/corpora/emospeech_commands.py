"""Indian EmoSpeech commands: single words spoken on telephones in India, at home and outdoors, in four emotions.

`clips.csv` has `file`, `speaker`, `emotion`, `word` and `place` (RakshakTeam 2019, version 1). The emotion is
what the speaker meant; nobody rated the clips. There are no ratings of activation, valence or dominance: the
dimensions are derived from the category.

Protocols. `emospeech-commands-fold-1` .. `-5` (ours) divide the 99 speakers by their number modulo 5;
`emospeech-commands-all` trains on all (never for scores).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audio_emotion.data.affective_norms import norm_derived_dimensions
from audio_emotion.data.corpora.corpus_info import PAD_NORMS, CorpusInfo, find_corpus_root
from audio_emotion.data.protocols import Protocol, fold_protocols

NAMES = {number: f"emospeech-commands/s{number:03d}" for number in range(1, 101) if number != 72}
INFO = CorpusInfo(
    name="emospeech-commands",
    license="CC-BY-NC-SA-4.0",
    citation=(
        "RakshakTeam 2019, Indian EmoSpeech Command Dataset: A dataset for emotion based speech recognition in the "
        "wild, version 1, https://arxiv.org/abs/1910.13801"
    ),
    emotions=("angry", "calm", "fearful", "happy"),
    dimensions_source="norm-derived",
    languages=("en", "hi"),
    speech="acted: people in India speak single words on their telephones, at home and outdoors",
    variants={"pad": PAD_NORMS},
    protocols={
        **fold_protocols(
            "emospeech-commands-fold",
            [tuple(name for number, name in NAMES.items() if number % 5 == remainder) for remainder in range(5)],
        ),
        "emospeech-commands-all": Protocol(train=tuple(NAMES.values()), validation=(), test=()),
    },
)


def rows(root: str | Path | None = None, dimensions_source: str = "norm-derived") -> Iterator[dict[str, Any]]:
    """One row per clip that `root/clips.csv` lists, sorted by name.

    Args:
        root: the folder with the clips and `clips.csv`; by default `$AUDIO_EMOTION_DATA/emospeech-commands`.
        dimensions_source: a key of `affective_norms.NORM_SETS`.

    Raises:
        FileNotFoundError: at the call, if the folder, the table or a listed clip is missing.
        ValueError: at the call, for an emotion that is not EmoSpeech's.
    """
    root = find_corpus_root(INFO.name, root)
    file = root / "clips.csv"
    if not file.is_file():
        raise FileNotFoundError(f"Expected `{file}`, got no such file. Copy the table of the corpus there.")
    with file.open(encoding="utf-8", newline="") as lines:
        clips = sorted(csv.DictReader(lines), key=lambda line: line["file"])
    if missing := [line["file"] for line in clips if not (root / line["file"]).is_file()]:
        raise FileNotFoundError(
            f"Expected every clip of `clips.csv` in `{root}`, got none of {missing[:5]}. Copy the audio there."
        )
    if unknown := sorted({line["emotion"] for line in clips} - set(INFO.emotions)):
        raise ValueError(
            f"Expected emotions among {', '.join(INFO.emotions)} in `{file}`, got {unknown}. Use the published table."
        )
    return (_row(root / line["file"], line, dimensions_source) for line in clips)


def _row(path: Path, line: dict[str, str], dimensions_source: str) -> dict[str, Any]:
    activation, valence, dominance = norm_derived_dimensions(line["emotion"], source=dimensions_source)
    return {
        "id": f"{INFO.name}/{path.stem}",
        "audio": {"bytes": None, "path": str(path)},
        "speaker": f"{INFO.name}/{line['speaker']}",
        "gender": None,
        "emotion": line["emotion"],
        "activation": activation,
        "valence": valence,
        "dominance": dominance,
    }
