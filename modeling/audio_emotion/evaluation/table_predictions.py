"""Predictions of any program, read from a table: a CSV or a Parquet file with a row per clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
from datasets import Dataset

from audio_emotion.data.corpora.corpus_info import CorpusInfo
from audio_emotion.evaluation.label_matching import DIMENSION_SYNONYMS, match_classes
from audio_emotion.evaluation.predictions import Predictions

NAMES = ("id", "file", "path", "audio")  # of the column that names the clip
LABELS = ("emotion", "label", "prediction", "predicted")  # of a column with one class per clip


def read_table(path: str, rows: Dataset, info: CorpusInfo) -> tuple[Predictions, list[str], list[str]]:
    """Predictions for clips of a corpus, matched to its emotions and dimensions by name.

    Columns: `id` (or `file`, `path`), the clip's id in the corpus or the name of its file, with or without folder and
    suffix; then a column of probabilities for each class, or one, `emotion`, with a name; and, if predicted, columns
    named after dimensions, in 0..1.

    Args:
        path: of the table.
        rows: clips of the corpus.
        info: facts of the corpus.

    Returns:
        Predictions of all clips of `rows`, sorted by id, and the scored emotions and dimensions.

    Raises:
        ValueError: for a table without a name of the clip, without predictions, or without a row for some clip.
    """
    table = pq.read_table(path) if path.endswith(".parquet") else pyarrow.csv.read_csv(path)
    columns = {name: table[name].to_pylist() for name in table.column_names}
    name = next((each for each in NAMES if each in columns), None)
    if name is None:
        raise ValueError(f"{path}: expected a column among {NAMES}, got {list(columns)}.")
    place = {_stem(str(value)): index for index, value in enumerate(columns[name])}
    ids = sorted(rows["id"])
    if missing := [each for each in ids if _stem(each) not in place]:
        raise ValueError(
            f"{path}: expected a row for every clip, got none for {missing[:3]} and {len(missing)} in all."
        )
    chosen = [place[_stem(each)] for each in ids]
    by_id = {row["id"]: row for row in rows.remove_columns(["audio", "video"])}

    given = {
        synonym: dimension for dimension, others in DIMENSION_SYNONYMS.items() for synonym in (dimension, *others)
    }
    values = {given[key]: np.array(columns[key], float)[chosen] for key in columns if key in given}
    dimensions = [each for each in info.dimensions if each in values]
    logits, emotions, labels = _classes(path, columns, {name, *given}, chosen, info)
    numbers = np.array(
        [info.emotions.index(by_id[each]["emotion"]) if by_id[each]["emotion"] else -100 for each in ids]
    )
    predictions = Predictions(
        ids=ids,
        speakers=np.array([by_id[each]["speaker"] or "" for each in ids]),
        logits=logits,
        dimensions=np.stack([values[each] for each in dimensions], 1) if dimensions else np.zeros((len(ids), 0)),
        embedding=np.zeros((len(ids), 0)),
        labels=labels(numbers) if emotions else np.full(len(ids), -100),
        dimension_labels=np.array(
            [[np.nan if by_id[each].get(key) is None else by_id[each][key] for key in dimensions] for each in ids]
        ).reshape(len(ids), len(dimensions)),
    )
    predictions.name_genders({each: row["gender"] for each, row in by_id.items()})
    return predictions, emotions, dimensions


def _classes(
    path: str, columns: dict[str, list], others: set[str], chosen: list[int], info: CorpusInfo
) -> tuple[np.ndarray, list[str], Any]:
    """Logits `(N, K)`, the scored emotions, and a function from class numbers of the corpus to those of the logits."""
    label = next((each for each in LABELS if each in columns), None)
    if label is not None:
        classes = sorted({str(each) for each in columns[label]})
        given = np.array([classes.index(str(columns[label][index])) for index in chosen])
        scores = np.log(np.where(np.eye(len(classes))[given] > 0, 1.0, 1e-6))  # one answer, and no probabilities
    else:
        classes = [each for each in columns if each not in others and _numbers(columns[each])]
        scores = np.array([[columns[each][index] for each in classes] for index in chosen], float)
        if classes and (scores < 0).any():
            raise ValueError(f"{path}: expected probabilities in the columns {classes}, got values below 0.")
        scores = np.log(np.maximum(scores, 1e-9))
    if not classes:
        return np.zeros((len(chosen), 0)), [], None
    match = match_classes(classes, info.emotions)
    logits = np.stack([np.logaddexp.reduce(scores[:, list(each)], axis=1) for each in match.sources], axis=1)
    return logits, list(match.emotions), lambda numbers: match.labels(info.emotions, numbers)


def _numbers(values: list) -> bool:
    return all(isinstance(each, int | float) for each in values)


def _stem(name: str) -> str:
    return Path(name).stem
