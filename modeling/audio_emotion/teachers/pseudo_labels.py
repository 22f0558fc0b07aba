"""Pseudo-labels: the outputs of several teachers as a data set of parquet shards.

    dataset/README.md                              the card, with the paths of the shards for `datasets`
    dataset/teachers.json                          a `TeacherInfo` for each teacher's column
    dataset/data/train-00000-of-00004.parquet      one row per clip; a shard is written completely or not at all

A teacher's column is a struct. Where `mask` is false, the teacher has no output for the clip: `reason` is set, and
the other fields are None.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy.special import softmax

from audio_emotion.data.shards import write_atomically
from audio_emotion.teachers.outputs import Clip, TeacherInfo, TeacherOutputs, TeacherPrediction, compute_agreement

TEACHER_STRUCT = pa.struct(
    [
        ("mask", pa.bool_()),  # whether the teacher has an output for the clip
        ("reason", pa.string()),  # why not
        ("logits", pa.list_(pa.float32())),  # (C,), in the order of the teacher's `classes`
        ("confidence", pa.float32()),  # largest probability
        ("dimensions", pa.list_(pa.float32())),  # (A,) in 0..1, in the order of the teacher's `dimensions`
        ("embedding", pa.list_(pa.float16())),  # (D,)
        ("frame_times", pa.list_(pa.float32())),  # (F,) seconds since the start of the clip's audio
        ("frame_logits", pa.list_(pa.list_(pa.float16()))),  # (F, C)
        ("teacher", pa.string()),  # Hub id, folder or file
        ("revision", pa.string()),  # commit, or digest of the weights
    ]
)
CLIP_COLUMNS = [
    ("id", pa.string()),
    ("speaker", pa.string()),
    ("duration", pa.float32()),  # seconds of audio
    ("faces", pa.int16()),  # tracked through the clip; None without a face teacher
    ("face_detection_rate", pa.float32()),  # fraction of the searched frames with the speaker's face
    ("agreement", pa.float32()),  # of speech and face teachers, 0..1; see `compute_agreement`
]


def build_row(
    clip: Clip, speaker: str | None, predictions: Sequence[TeacherPrediction], teachers: Sequence[TeacherInfo]
) -> dict[str, Any]:
    """The row of a clip, with the predictions of the teachers in the same order."""
    row: dict[str, Any] = {"id": clip.id, "speaker": speaker, "duration": len(clip.waveform) / 16000}
    row |= {"faces": clip.num_faces, "face_detection_rate": clip.face_rate}
    classified: dict[str, list[tuple[np.ndarray, list[str]]]] = {"speech": [], "face": [], "votes": []}
    for info, prediction in zip(teachers, predictions, strict=True):
        confidence = None
        if prediction.logits is not None:
            confidence = float(softmax(prediction.logits).max())
            classified[info.kind].append((prediction.logits, info.classes))
        frames = prediction.frame_logits
        row[info.name] = {
            "mask": prediction.reason is None,
            "reason": prediction.reason,
            "logits": _to_list(prediction.logits),
            "confidence": confidence,
            "dimensions": _to_list(prediction.dimensions),
            "embedding": _to_list(prediction.embedding, np.float16),
            "frame_times": _to_list(prediction.frame_times),
            "frame_logits": None if frames is None else [_to_list(frame, np.float16) for frame in frames],
            "teacher": info.source,
            "revision": info.revision,
        }
    pairs = [compute_agreement(*speech, *face) for speech in classified["speech"] for face in classified["face"]]
    comparable = [value for value in pairs if value is not None]
    row["agreement"] = math.fsum(comparable) / len(comparable) if comparable else None
    return row


def _to_list(values: np.ndarray | None, dtype: type = np.float32) -> list[Any] | None:
    """A list of numpy scalars, in the range of their type: Arrow takes half precision only from these."""
    if values is None:
        return None
    return list(np.clip(values, np.finfo(dtype).min, np.finfo(dtype).max).astype(dtype))


def write_shard(path: Path, rows: Sequence[dict[str, Any]], teachers: Sequence[TeacherInfo]) -> None:
    """Write a parquet file atomically."""
    fields = [*CLIP_COLUMNS, *((info.name, TEACHER_STRUCT) for info in teachers)]
    metadata = {"audio_emotion.teachers": json.dumps([asdict(info) for info in teachers])}
    partial = path.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist(list(rows), pa.schema(fields, metadata=metadata)), partial)
    partial.replace(path)


def write_teachers(folder: Path, teachers: Sequence[TeacherInfo]) -> None:
    """Write `teachers.json` atomically."""
    write_atomically(folder / "teachers.json", json.dumps([asdict(info) for info in teachers], indent=2) + "\n")


def read_teachers(folder: str | Path) -> dict[str, TeacherInfo]:
    """The teachers of a data set, `dataset/` of a run or `hf://datasets/owner/name`, by the name of the column."""
    files, root = fsspec.core.url_to_fs(str(folder))
    if not files.isfile(f"{root}/teachers.json"):
        raise FileNotFoundError(
            f"Expected pseudo-labels with `teachers.json` in `{folder}`, got none. Pass the folder `dataset/` of a "
            "run of recipes/pseudo_label.py, or `hf://datasets/owner/name`."
        )
    return {info["name"]: TeacherInfo(**info) for info in json.loads(files.cat_file(f"{root}/teachers.json"))}


def read_rows(folder: str | Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a data set, one batch in memory at a time, with some columns (`"id"`, `"face.logits"`) or all."""
    for shard in _shards(folder):
        for batch in shard.iter_batches(columns=columns):
            yield from batch.to_pylist()


def _shards(folder: str | Path) -> Iterator[pq.ParquetFile]:
    """Every shard of a data set, in order."""
    files, root = fsspec.core.url_to_fs(str(folder))
    for path in sorted(files.glob(f"{root}/data/*.parquet")):
        with files.open(path, "rb") as file:
            yield pq.ParquetFile(file)


def read_teacher_outputs(folder: str | Path, name: str) -> TeacherOutputs:
    """Outputs of one teacher for all clips of a data set; the mask is 0 for clips without output.

    Without embeddings, `embedding` is `(N, 0)`; missing dimensions are NaN; the agreement is 1 for clips without one.
    """
    teachers = read_teachers(folder)
    if name not in teachers:
        raise ValueError(f"Expected a teacher among {list(teachers)}, got {name!r}. Write `NAME=FOLDER`.")
    info = teachers[name]
    if not info.classes:
        raise ValueError(f"Expected a teacher with classes, got `{name}`, which has only {info.dimensions}.")
    fields = ["mask", "logits", "dimensions", "embedding", "confidence"]
    ids: list[str] = []
    parts: dict[str, list[np.ndarray]] = {each: [] for each in (*fields, "agreement")}
    for shard in _shards(folder):
        table = shard.read(columns=["id", "agreement", *(f"{name}.{each}" for each in fields)])
        if not len(table):
            continue
        ids += table["id"].to_pylist()
        parts["agreement"].append(table["agreement"].to_numpy())
        struct = table[name].combine_chunks()
        for each in fields:
            column = struct.field(each)
            is_list = pa.types.is_list(column.type)
            parts[each].append(_to_array(column) if is_list else column.to_numpy(zero_copy_only=False))
    mask = np.concatenate(parts["mask"]) if ids else np.zeros(0, bool)
    if not mask.any():
        raise ValueError(f"Expected clips with an output of `{name}` in `{folder}`, got none.")
    agreement = np.concatenate(parts["agreement"])
    dimensions = _concatenate(parts["dimensions"])  # (N, A)
    has_dimensions = dimensions.shape[1] > 0
    return TeacherOutputs(
        ids=ids,
        logits=torch.from_numpy(np.nan_to_num(_concatenate(parts["logits"]))),
        dimensions=torch.from_numpy(dimensions if has_dimensions else np.full((len(ids), 3), np.nan, np.float32)),
        embedding=torch.from_numpy(np.nan_to_num(_concatenate(parts["embedding"]))),
        teacher=torch.zeros(len(ids), dtype=torch.long),
        emotions=info.classes,
        training_data=info.training_data,
        name=name,
        confidence=torch.from_numpy(np.nan_to_num(np.concatenate(parts["confidence"])).astype(np.float32)),
        agreement=None if np.isnan(agreement).all() else torch.from_numpy(np.nan_to_num(agreement, nan=1.0)).float(),
        mask=torch.from_numpy(mask.astype(np.float32)),
        dimension_names=info.dimensions if has_dimensions else [],
        license=info.license,
    )


def _to_array(column: pa.ListArray) -> np.ndarray:
    """`(N, D)` from lists of equal length, NaN in rows that are None; `(N, 0)` if all are."""
    valid = np.asarray(column.is_valid())
    values = column.drop_null().flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    size = len(values) // valid.sum() if valid.any() else 0
    array = np.full((len(column), size), np.nan, np.float32)
    array[valid] = values.reshape(-1, size) if size else array[valid]
    return array


def _concatenate(parts: list[np.ndarray]) -> np.ndarray:
    """Rows `(N, D)` of all shards; a shard in which all values are None has width 0 and becomes NaN."""
    width = max(part.shape[1] for part in parts)
    return np.concatenate(
        [part if part.shape[1] else np.full((len(part), width), np.nan, np.float32) for part in parts]
    )


def summarize(folder: str | Path, teachers: Sequence[TeacherInfo]) -> dict[str, Any]:
    """Statistics of a data set.

    Returns:
        `clips`, `hours`, `agreement` (mean; None without comparable clips), and `outputs`: for each teacher `clips`
        (with output), `confidence` (mean), `most_probable` (clips by class) and `no_output` (clips by reason).
    """
    clips, seconds, agreements = 0, 0.0, []
    confidences: dict[str, list[float]] = {info.name: [] for info in teachers}
    most_probable = {info.name: dict.fromkeys(info.classes, 0) for info in teachers}
    no_output: dict[str, Counter[str]] = {info.name: Counter() for info in teachers}
    columns = ["id", "duration", "agreement"]
    columns += [f"{info.name}.{each}" for info in teachers for each in ("mask", "reason", "logits", "confidence")]
    for row in read_rows(folder, columns):
        clips, seconds = clips + 1, seconds + row["duration"]
        agreements += [row["agreement"]] if row["agreement"] is not None else []
        for info in teachers:
            output = row[info.name]
            if not output["mask"]:
                no_output[info.name][re.sub(r"\d[\d.%]*", "N", output["reason"])] += 1  # "4 faces" is "N faces"
            elif output["logits"] is not None:
                confidences[info.name].append(output["confidence"])
                most_probable[info.name][info.classes[int(np.argmax(output["logits"]))]] += 1
    outputs = {
        name: {
            "clips": clips - no_output[name].total(),
            "confidence": _mean(confidences[name]),
            "most_probable": most_probable[name],
            "no_output": dict(no_output[name].most_common()),
        }
        for name in confidences
    }
    return {"clips": clips, "hours": round(seconds / 3600, 4), "agreement": _mean(agreements), "outputs": outputs}


def _mean(values: list[float]) -> float | None:
    """Rounded to 4 decimals; None of no values."""
    return round(math.fsum(values) / len(values), 4) if values else None
