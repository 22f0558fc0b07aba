"""Predictions of a model for a set of clips, gathered from all processes, and the file that stores them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from audio_emotion.data.dataset import Batch
from audio_emotion.layers import EmotionOutput

SAMPLING_RATE = 16000  # Hz, of every batch
MIN_DURATION = 0.25  # seconds; shorter clips are rejected, so a shorter input is not audio


@dataclass
class Predictions:
    """Predictions and labels of `N` clips, sorted by clip id.

    Attributes:
        ids: clip ids.
        speakers: `(N,)` names, "" where unknown.
        logits: `(N, C)`.
        dimensions: `(N, 3)` in 0..1.
        embedding: `(N, D)`.
        labels: `(N,)` class numbers, -100 where unlabeled.
        dimension_labels: `(N, 3)`, NaN where unlabeled.
        durations: `(N,)` seconds, NaN where no audio was decoded (frames came from a cache); None if unknown.
        genders: `(N,)` of the speakers, "" where unknown; None if unknown for all.
    """

    ids: list[str]
    speakers: np.ndarray
    logits: np.ndarray
    dimensions: np.ndarray
    embedding: np.ndarray
    labels: np.ndarray
    dimension_labels: np.ndarray
    durations: np.ndarray | None = None
    genders: np.ndarray | None = None

    def take(self, chosen: np.ndarray) -> Predictions:
        """The clips at the given indices, or where a mask is true."""
        places = np.arange(len(self.ids))[chosen]
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        taken = {name: None if value is None else np.asarray(value)[places] for name, value in values.items()}
        return Predictions(**{**taken, "ids": [self.ids[place] for place in places]})  # type: ignore[arg-type]

    def clusters(self) -> np.ndarray:
        """Group of each clip in which errors are correlated, `(N,)`: the speaker, or where unknown the clip itself."""
        return np.where(self.speakers == "", np.array(self.ids), self.speakers)

    def name_genders(self, gender_of: Mapping[str, str | None]) -> None:
        """Fill `genders` from a table by clip id."""
        self.genders = np.array([gender_of[name] or "" for name in self.ids], dtype=np.str_)


@torch.no_grad()
def predict(
    accelerator: Accelerator, model: Callable[[Batch], EmotionOutput], batches: Iterable[Batch]
) -> Predictions:
    """Run a model on batches, drop clips of weight 0, and gather the predictions of all processes.

    Args:
        accelerator: of the run.
        model: from a batch to the model's output; it must be in evaluation mode.
        batches: of this process.
    """
    rows = []
    for batch in batches:
        output = model(batch)
        assert output.embedding is not None
        absent = output.embedding.new_zeros(len(batch.ids), 0)  # for a head that the model does not have
        logits = absent if output.logits is None else output.logits
        dimensions = absent if output.dimensions is None else output.dimensions
        columns = (logits, dimensions, output.embedding, batch.labels, batch.dimension_labels)
        arrays = [column.float().cpu().numpy() for column in columns]
        seconds = batch.attention_mask.sum(-1).numpy() / SAMPLING_RATE
        seconds[seconds < MIN_DURATION] = np.nan  # a batch without audio
        for index, name in enumerate(batch.ids):
            if batch.weight[index] > 0:
                rows.append((name, batch.speakers[index] or "", *(array[index] for array in arrays), seconds[index]))
    gathered = sorted(gather_object(rows) if accelerator.num_processes > 1 else rows, key=lambda row: row[0])
    ids, speakers, all_logits, all_dimensions, embedding, labels, dimension_labels, durations = zip(
        *gathered, strict=True
    )
    return Predictions(
        list(ids),
        np.array(speakers),
        np.stack(all_logits),
        np.stack(all_dimensions),
        np.stack(embedding),
        np.array(labels).astype(int),
        np.stack(dimension_labels),
        np.array(durations),
    )


def pool_folds(folds: Sequence[Predictions]) -> Predictions:
    """The test sets of several folds as one set, sorted by clip.

    Raises:
        ValueError: if a clip is in two of them.
    """
    ids = [name for fold in folds for name in fold.ids]
    if len(set(ids)) < len(ids):
        twice = sorted({name for name in ids if ids.count(name) > 1})
        raise ValueError(f"Expected folds without a common clip, got {twice[:3]} in two. Pool the folds of one seed.")
    if len(folds) == 1:
        return folds[0]
    arrays = ("speakers", "logits", "dimensions", "labels", "dimension_labels")
    joined = {name: np.concatenate([getattr(fold, name) for fold in folds]) for name in arrays}
    return Predictions(ids=ids, embedding=np.zeros((len(ids), 0)), **joined).take(np.argsort(ids))


def save_predictions(
    predictions: Predictions, path: str | Path, emotions: Sequence[str], dimensions: Sequence[str]
) -> None:
    """Write all but the embeddings to a parquet file, from which every score and plot can be computed again.

    Columns: `id`, `speaker`, `gender`, `duration` (seconds), `emotion` (null where unlabeled), `logit_<emotion>`,
    `predicted_<dimension>` and `rated_<dimension>` (null where unlabeled). 240 clips take about 20 kB.

    Args:
        predictions: of `N` clips.
        path: of the file; its folder is created.
        emotions: class names in logit order.
        dimensions: names in column order.
    """
    known = [emotions[label] if label >= 0 else None for label in predictions.labels]
    genders = [None] * len(known) if predictions.genders is None else [name or None for name in predictions.genders]
    columns = {
        "id": pa.array(predictions.ids, pa.string()),
        "speaker": pa.array([name or None for name in predictions.speakers.tolist()], pa.string()),
        "gender": pa.array(genders, pa.string()),
        "duration": _numbers(np.full(len(known), np.nan) if predictions.durations is None else predictions.durations),
        "emotion": pa.array(known, pa.string()),
    }
    for index, name in enumerate(emotions):
        columns[f"logit_{name}"] = _numbers(predictions.logits[:, index])
    for index, name in enumerate(dimensions):
        columns[f"predicted_{name}"] = _numbers(predictions.dimensions[:, index])
        columns[f"rated_{name}"] = _numbers(predictions.dimension_labels[:, index])
    names = {"emotions": json.dumps(list(emotions)), "dimensions": json.dumps(list(dimensions))}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(names), path, compression="zstd", use_dictionary=True)


def load_predictions(path: str | Path) -> tuple[Predictions, list[str], list[str]]:
    """Read a file of `save_predictions`: predictions (embeddings `(N, 0)`), emotions and dimensions.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for any other parquet file.
    """
    table = pq.read_table(path)
    names = table.schema.metadata or {}
    if b"emotions" not in names or b"dimensions" not in names:
        raise ValueError(
            f"Expected a file of predictions, got `{path}`, without `emotions` and `dimensions` in its metadata. "
            "Write it with `save_predictions`, or run recipes/evaluate.py again."
        )
    emotions, dimensions = json.loads(names[b"emotions"]), json.loads(names[b"dimensions"])
    count = table.num_rows

    def numbers(prefix: str, wanted: list[str]) -> np.ndarray:
        read = [_floats(table[f"{prefix}_{name}"]) for name in wanted]
        return np.stack(read, axis=1) if read else np.zeros((count, 0), np.float32)

    return (
        Predictions(
            ids=table["id"].to_pylist(),
            speakers=np.array([name or "" for name in table["speaker"].to_pylist()], dtype=np.str_),
            logits=numbers("logit", emotions),
            dimensions=numbers("predicted", dimensions),
            embedding=np.zeros((count, 0), np.float32),
            labels=np.array([-100 if name is None else emotions.index(name) for name in table["emotion"].to_pylist()]),
            dimension_labels=numbers("rated", dimensions),
            durations=_floats(table["duration"]),
            genders=np.array([name or "" for name in table["gender"].to_pylist()], dtype=np.str_),
        ),
        emotions,
        dimensions,
    )


def _numbers(values: np.ndarray) -> pa.Array:
    """A column of float32, NaN as null."""
    return pa.array(values.astype(np.float32), pa.float32(), from_pandas=True)


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    """A column of float32, null as NaN, writable."""
    return np.array([np.nan if value is None else value for value in column.to_pylist()], dtype=np.float32)
