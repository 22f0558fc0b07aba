"""Predictions for tables of clips, in the form that Ray, Spark and Arrow distribute over machines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

PREFIX = "predicted_"  # of the new columns: the shards can hold labels of the same names


class BatchPredictor:
    """Predicts the emotion of every row of a table, for `ray.data`'s `map_batches` with `batch_format="pyarrow"`.

    An object holds one model, from its ONNX graph where it has one; make one per worker, with one thread per core.

    Args:
        model: a folder or a Hub id; by default the model in this package.
        column: of the clips, each `{"bytes", "path"}` or bytes, as `recipes/pack.py` and `datasets` write them.
        drop: columns with audio or video that the output leaves out.
        threads: of one prediction.
        device: of a model in PyTorch, such as `cuda`; its graph is then not used.
        batch_size: clips in one forward pass in PyTorch.
        **parameters: of the pipeline, such as `max_duration` and `scale`.

    Examples:
        >>> import ray
        >>> clips = ray.data.read_parquet("shards/")
        >>> rows = clips.map_batches(BatchPredictor, batch_format="pyarrow", batch_size=64, concurrency=8)
        >>> rows.write_parquet("predictions/")
    """

    def __init__(
        self,
        model: str | None = None,
        column: str = "audio",
        drop: Iterable[str] = ("audio", "video"),
        threads: int = 1,
        device: str | None = None,
        batch_size: int = 8,
        **parameters: Any,
    ) -> None:
        self.column, self.drop, self.parameters = column, {column, *drop}, parameters
        self._predict, dimensions, emotions = _load(model, threads, device, batch_size)
        fields = [(name, pa.float64()) for name in dimensions]
        if emotions:
            probabilities = pa.struct([(name, pa.float64()) for name in emotions])
            fields += [("emotion", pa.string()), ("probabilities", probabilities)]
        fields += [("duration", pa.float64()), ("flags", pa.list_(pa.string())), ("error", pa.string())]
        self.dimensions, self.emotions = dimensions, emotions
        self.schema = pa.schema([(PREFIX + name, kind) for name, kind in fields])

    def __call__(self, table: pa.Table) -> pa.Table:
        """The rows of a table, with predictions in place of the audio.

        Args:
            table: of any number of rows; none of its paths is opened.

        Returns:
            as many rows in the same order; where a clip cannot be read, `predicted_error` states why.

        Raises:
            ValueError: if there is no column of clips, or a column has the name of a new one.
        """
        if self.column not in table.column_names:
            raise ValueError(
                f"Expected a column {self.column!r} with clips, got {table.column_names}. Name it: column=."
            )
        if taken := sorted(set(self.schema.names) & set(table.column_names)):
            raise ValueError(f"Expected a table without predictions, got the columns {taken}. Drop or rename them.")
        clips = (_content(each) for each in table[self.column].to_pylist())
        rows = [self._row(each) for each in self._predict(clips, on_error="skip", **self.parameters)]
        kept = table.drop_columns([name for name in table.column_names if name in self.drop])
        added = pa.Table.from_pylist(rows, self.schema)
        for name in added.column_names:
            kept = kept.append_column(self.schema.field(name), added[name])
        return kept

    def pandas(self, frames: Iterable[Any]) -> Iterator[Any]:
        """The same for the data frames that Spark's `mapInPandas` iterates over."""
        for frame in frames:
            yield self(pa.Table.from_pandas(frame, preserve_index=False)).to_pandas()

    def _row(self, prediction: dict[str, Any]) -> dict[str, Any]:
        if "error" in prediction:
            return {PREFIX + "error": prediction["error"]}
        row: dict[str, Any] = dict(prediction["dimensions"])
        row |= {name: prediction[name] for name in ("duration", "flags")}
        if emotions := prediction.get("emotions"):
            row["emotion"] = emotions[0]["label"]
            row["probabilities"] = {each["label"]: each["score"] for each in emotions}
        return {PREFIX + name: value for name, value in row.items()}


def _content(clip: Any) -> dict[str, Any]:
    """A clip of a shard, whose bytes are read and whose path is a name only."""
    content = clip.get("bytes") if isinstance(clip, dict) else clip
    return {"bytes": content or b"", "path": clip.get("path") if isinstance(clip, dict) else None}


def _load(model: str | None, threads: int, device: str | None, batch_size: int) -> tuple[Any, list[str], list[str]]:
    """A function of clips, and the names of dimensions and emotions."""
    if device is None:
        from audio_emotion.runtime import EmotionRuntime

        try:
            runtime = EmotionRuntime(model, threads)
        except (FileNotFoundError, ImportError):  # no graph, or no onnxruntime
            pass
        else:
            return runtime, runtime.dimensions, runtime.emotions
    import torch
    from transformers import pipeline

    torch.set_num_threads(threads)
    emotion = pipeline("audio-emotion", model=model, device=device or "cpu")

    def predict(clips: Iterable[Any], **parameters: Any) -> Iterable[dict[str, Any]]:
        return emotion(list(clips), batch_size=batch_size, **parameters)

    return predict, list(emotion.model.config.dimensions), list(emotion.model.config.emotions)
