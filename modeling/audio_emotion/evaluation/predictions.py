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
from torch import nn

from audio_emotion.data.dataset import Batch
from audio_emotion.layers import EmotionOutput

SAMPLING_RATE = 16000  # Hz, of every batch
MIN_DURATION = 0.25  # seconds; shorter clips are rejected, so a shorter input is not audio


@dataclass
class Predictions:
    """Predictions and labels of `N` clips, sorted by clip id."""

    ids: list[str]
    speakers: np.ndarray  # (N,) names, "" where unknown
    logits: np.ndarray  # (N, C)
    dimensions: np.ndarray  # (N, A) in 0..1
    embedding: np.ndarray  # (N, D)
    labels: np.ndarray  # (N,) class numbers, -100 where unlabeled
    dimension_labels: np.ndarray  # (N, A), NaN where unlabeled
    durations: np.ndarray | None = None  # (N,) seconds, NaN where no audio was decoded (frames came from a cache)
    genders: np.ndarray | None = None  # (N,) of the speakers, "" where unknown
    variances: np.ndarray | None = None  # (N, A) of the dimensions, of a model that predicts them

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
    accelerator: Accelerator, model: nn.Module | Callable[[Batch], EmotionOutput], batches: Iterable[Batch]
) -> Predictions:
    """Run a model in evaluation mode on the batches of this process; gather the predictions of all processes.

    A module is called with waveforms and their mask, a function with the batch. Clips of weight 0 are dropped.
    """
    rows = []
    for batch in batches:
        waveforms = (each.to(accelerator.device) for each in (batch.input_values, batch.attention_mask))
        output = model(*waveforms) if isinstance(model, nn.Module) else model(batch)
        assert output.embedding is not None
        absent = output.embedding.new_zeros(len(batch.ids), 0)  # for a head that the model does not have
        logits = absent if output.logits is None else output.logits
        dimensions = absent if output.dimensions is None else output.dimensions
        variances = absent if output.log_variance is None else output.log_variance.float().exp()
        columns = (logits, dimensions, variances, output.embedding, batch.labels, batch.dimension_labels)
        arrays = [column.float().cpu().numpy() for column in columns]
        seconds = batch.attention_mask.sum(-1).numpy() / SAMPLING_RATE
        seconds[seconds < MIN_DURATION] = np.nan  # a batch without audio
        for index, name in enumerate(batch.ids):
            if batch.weight[index] > 0:
                rows.append((name, batch.speakers[index] or "", *(array[index] for array in arrays), seconds[index]))
    gathered = sorted(gather_object(rows) if accelerator.num_processes > 1 else rows, key=lambda row: row[0])
    names = ("speakers", "logits", "dimensions", "variances", "embedding", "labels", "dimension_labels", "durations")
    ids, *values = zip(*gathered, strict=True)
    predictions = Predictions(list(ids), **dict(zip(names, map(np.array, values), strict=True)))
    predictions.labels = predictions.labels.astype(int)
    if predictions.variances is not None and not predictions.variances.size:
        predictions.variances = None  # of a model without
    return predictions


def pool_folds(folds: Sequence[Predictions]) -> Predictions:
    """The test sets of several folds as one set, sorted by clip."""
    ids = [name for fold in folds for name in fold.ids]
    if len(set(ids)) < len(ids):
        twice = sorted({name for name in ids if ids.count(name) > 1})
        raise ValueError(f"Expected folds without a common clip, got {twice[:3]} in two. Pool the folds of one seed.")
    if len(folds) == 1:
        return folds[0]
    arrays = ["speakers", "logits", "dimensions", "labels", "dimension_labels"]
    arrays += ["variances"] if all(fold.variances is not None for fold in folds) else []
    joined = {name: np.concatenate([getattr(fold, name) for fold in folds]) for name in arrays}
    return Predictions(ids=ids, embedding=np.zeros((len(ids), 0)), **joined).take(np.argsort(ids))


def save_predictions(
    predictions: Predictions, path: str | Path, emotions: Sequence[str], dimensions: Sequence[str]
) -> None:
    """Write all but the embeddings to a parquet file, from which every score and plot can be computed again.

    Columns: `id`, `speaker`, `gender`, `duration` (seconds), `emotion` (null where unlabeled), `logit_<emotion>`,
    `predicted_<dimension>` and `rated_<dimension>` (null where unlabeled), and of a model that predicts them
    `variance_<dimension>`. 240 clips take about 20 kB.
    """
    known = [emotions[label] if label >= 0 else None for label in predictions.labels]
    genders = [None] * len(known) if predictions.genders is None else [name or None for name in predictions.genders]

    def numbers(values: np.ndarray) -> pa.Array:  # NaN as null
        return pa.array(values.astype(np.float32), pa.float32(), from_pandas=True)

    columns = {
        "id": pa.array(predictions.ids, pa.string()),
        "speaker": pa.array([name or None for name in predictions.speakers.tolist()], pa.string()),
        "gender": pa.array(genders, pa.string()),
        "duration": numbers(np.full(len(known), np.nan) if predictions.durations is None else predictions.durations),
        "emotion": pa.array(known, pa.string()),
    }
    for index, name in enumerate(emotions):
        columns[f"logit_{name}"] = numbers(predictions.logits[:, index])
    for index, name in enumerate(dimensions):
        columns[f"predicted_{name}"] = numbers(predictions.dimensions[:, index])
        columns[f"rated_{name}"] = numbers(predictions.dimension_labels[:, index])
        if predictions.variances is not None:
            columns[f"variance_{name}"] = numbers(predictions.variances[:, index])
    names = {"emotions": json.dumps(list(emotions)), "dimensions": json.dumps(list(dimensions))}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(names), path, compression="zstd", use_dictionary=True)


def load_predictions(path: str | Path) -> tuple[Predictions, list[str], list[str]]:
    """Read a file of `save_predictions`: predictions (embeddings `(N, 0)`), emotions and dimensions."""
    table = pq.read_table(path)
    names = table.schema.metadata or {}
    if b"emotions" not in names or b"dimensions" not in names:
        raise ValueError(
            f"Expected a file of predictions, got `{path}`, without `emotions` and `dimensions` in its metadata. "
            "Write it with `save_predictions`, or run recipes/evaluate.py again."
        )
    emotions, dimensions = json.loads(names[b"emotions"]), json.loads(names[b"dimensions"])

    def numbers(*names: str) -> np.ndarray:  # (N, number of names), null as NaN
        columns = [np.array(table[name].to_pylist(), dtype=np.float32) for name in names]
        return np.stack(columns, axis=1) if columns else np.zeros((table.num_rows, 0), np.float32)

    def texts(name: str) -> np.ndarray:
        return np.array([text or "" for text in table[name].to_pylist()], dtype=np.str_)

    variances = [f"variance_{name}" for name in dimensions]
    predictions = Predictions(
        ids=table["id"].to_pylist(),
        speakers=texts("speaker"),
        logits=numbers(*(f"logit_{name}" for name in emotions)),
        dimensions=numbers(*(f"predicted_{name}" for name in dimensions)),
        embedding=np.zeros((table.num_rows, 0), np.float32),
        labels=np.array([-100 if name is None else emotions.index(name) for name in table["emotion"].to_pylist()]),
        dimension_labels=numbers(*(f"rated_{name}" for name in dimensions)),
        durations=numbers("duration")[:, 0],
        genders=texts("gender"),
        variances=numbers(*variances) if variances and set(variances) <= set(table.column_names) else None,
    )
    return predictions, emotions, dimensions
