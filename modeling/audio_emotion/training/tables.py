"""A corpus by name into one table: a row a clip, audio still encoded."""

from __future__ import annotations

from collections.abc import Collection

from datasets import Dataset, Features, Value

from audio_emotion.training.corpora import ravdess, synthetic
from audio_emotion.training.corpora.corpus import CorpusInfo

CORPORA = {"ravdess": ravdess, "synthetic": synthetic}

# The audio is a plain struct: the Audio feature needs torchcodec even where nothing is decoded.
FEATURES = Features(
    {
        "id": Value("string"),
        "audio": {"bytes": Value("binary"), "path": Value("string")},
        "speaker": Value("string"),
        "gender": Value("string"),
        "emotion": Value("string"),
        "activation": Value("float32"),
        "valence": Value("float32"),
        "dominance": Value("float32"),
    }
)


def corpus_info(corpus: str) -> CorpusInfo:
    """Facts of a corpus.

    Raises:
        ValueError: on an unknown name.
    """
    if corpus not in CORPORA:
        raise ValueError(f"Expected a corpus among {sorted(CORPORA)}, got {corpus!r}.")
    return CORPORA[corpus].INFO


def corpus_table(corpus: str, path: str | None = None, count: int = 600, seed: int = 0) -> Dataset:
    """Every clip of a corpus.

    Args:
        corpus: `"ravdess"` or `"synthetic"`.
        path: its folder; by default the folder of that name in `$AUDIO_EMOTION_DATA`.
        count: clips to make, of the synthetic corpus.
        seed: of the synthetic corpus.
    """
    corpus_info(corpus)
    rows = synthetic.rows(count, seed) if corpus == "synthetic" else ravdess.rows(path)
    return Dataset.from_list(list(rows), features=FEATURES)


def spoken_by(table: Dataset, speakers: Collection[str]) -> Dataset:
    """The rows of some speakers.

    Raises:
        ValueError: naming the speakers of whom the table has nothing.
    """
    present = table["speaker"]
    if missing := sorted(set(speakers) - set(present)):
        raise ValueError(f"The split asks for the speakers {missing}, of whom the corpus at hand has no clip.")
    return table.select([index for index, speaker in enumerate(present) if speaker in speakers])
