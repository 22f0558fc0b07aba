"""What several teachers said of clips, as a data set of parquet shards.

    dataset/README.md                              the card, which also tells `datasets` where the shards are
    dataset/teachers.json                          a `TeacherFacts` for each column of a teacher
    dataset/data/train-00000-of-00004.parquet      a row a clip, whole or not there

A teacher's column is a struct. Where `mask` is false it said nothing of the clip, `reason` says why, and the rest is
None or empty.
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

from audio_emotion.data.shards import write_atomically
from audio_emotion.teachers.outputs import Clip, TeacherFacts, TeacherOutputs, TeacherPrediction, agreement, softmax

TEACHER = pa.struct(
    [
        ("mask", pa.bool_()),  # whether the teacher said anything
        ("reason", pa.string()),  # why not
        ("logits", pa.list_(pa.float32())),  # (C,), in the order of the teacher's `classes`
        ("confidence", pa.float32()),  # largest probability
        ("dimensions", pa.list_(pa.float32())),  # (A,) in 0..1, in the order of the teacher's `dimensions`
        ("embedding", pa.list_(pa.float16())),  # (D,)
        ("frame_times", pa.list_(pa.float32())),  # (F,) seconds since the clip's audio began
        ("frame_logits", pa.list_(pa.list_(pa.float16()))),  # (F, C)
        ("teacher", pa.string()),  # Hub id, folder or file
        ("revision", pa.string()),  # commit, or a digest of the file
    ]
)
CLIP = [
    ("id", pa.string()),
    ("speaker", pa.string()),
    ("duration", pa.float32()),  # seconds of audio
    ("faces", pa.int16()),  # followed through the clip; None where no teacher looks at faces
    ("face_detection_rate", pa.float32()),  # share of the pictures with the speaker's face
    ("agreement", pa.float32()),  # of speech and face, 0..1; see `agreement`
]


def row_of(
    clip: Clip, speaker: str | None, said: Sequence[TeacherPrediction], teachers: Sequence[TeacherFacts]
) -> dict[str, Any]:
    """A clip's row of the data set."""
    row: dict[str, Any] = {"id": clip.id, "speaker": speaker, "duration": len(clip.waveform) / 16000}
    row |= {"faces": clip.faces, "face_detection_rate": clip.face_rate}
    spoken: dict[str, list[tuple[np.ndarray, list[str]]]] = {"speech": [], "face": [], "votes": []}
    for facts, each in zip(teachers, said, strict=True):
        confidence = None
        if each.logits is not None:
            confidence = float(softmax(each.logits).max())
            spoken[facts.kind].append((each.logits, facts.classes))
        row[facts.name] = {
            "mask": each.reason is None,
            "reason": each.reason,
            "logits": _listed(each.logits),
            "confidence": confidence,
            "dimensions": _listed(each.dimensions),
            "embedding": _listed(each.embedding, np.float16),
            "frame_times": _listed(each.frame_times),
            "frame_logits": None if each.frame_logits is None else [_listed(f, np.float16) for f in each.frame_logits],
            "teacher": facts.source,
            "revision": facts.revision,
        }
    pairs = [agreement(*heard, *seen) for heard in spoken["speech"] for seen in spoken["face"]]
    known = [value for value in pairs if value is not None]
    row["agreement"] = math.fsum(known) / len(known) if known else None
    return row


def write_shard(path: Path, rows: Sequence[dict[str, Any]], teachers: Sequence[TeacherFacts]) -> None:
    """Write a parquet file whole or not at all."""
    fields = [*CLIP, *((facts.name, TEACHER) for facts in teachers)]
    told = {"audio_emotion.teachers": json.dumps([asdict(facts) for facts in teachers])}
    table = pa.Table.from_pylist(list(rows), pa.schema(fields, metadata=told))
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial)
    partial.replace(path)


def write_teachers(folder: Path, teachers: Sequence[TeacherFacts]) -> None:
    """Write `teachers.json` whole or not at all."""
    write_atomically(folder / "teachers.json", json.dumps([asdict(facts) for facts in teachers], indent=2) + "\n")


def read_teachers(folder: str | Path) -> dict[str, TeacherFacts]:
    """Who speaks in a data set, by the name of the column.

    Args:
        folder: `dataset/` of a run, or `hf://datasets/owner/name` on the Hub.

    Raises:
        FileNotFoundError: where the folder is no such data set.
    """
    files, root = fsspec.core.url_to_fs(str(folder))
    if not files.isfile(f"{root}/teachers.json"):
        raise FileNotFoundError(
            f"Expected pseudo-labels with `teachers.json` in `{folder}`, got none. Pass the folder `dataset/` of a "
            "run of recipes/pseudo_label.py, or `hf://datasets/owner/name`."
        )
    return {facts["name"]: TeacherFacts(**facts) for facts in json.loads(files.cat_file(f"{root}/teachers.json"))}


def read_rows(folder: str | Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a data set, a row group in memory at a time.

    Args:
        folder: as for `read_teachers`.
        columns: names, fields of a struct with a dot (`"face.logits"`); by default all.
    """
    for shard in _shards(folder):
        for batch in shard.iter_batches(columns=None if columns is None else list(columns)):
            yield from batch.to_pylist()


def _shards(folder: str | Path) -> Iterator[pq.ParquetFile]:
    """Every shard of a data set, in order."""
    files, root = fsspec.core.url_to_fs(str(folder))
    for path in sorted(files.glob(f"{root}/data/*.parquet")):
        with files.open(path, "rb") as opened:
            yield pq.ParquetFile(opened)


def to_teacher_outputs(folder: str | Path, teacher_name: str) -> TeacherOutputs:
    """What one teacher said of every clip; clips of which it said nothing have mask 0.

    A teacher without embedding has one of no numbers, `(N, 0)`; dimensions that it does not give are NaN; an
    agreement that nobody could tell is 1, as where no other teacher is asked.

    Args:
        folder: as for `read_teachers`.
        teacher_name: its column.

    Raises:
        ValueError: on an unknown teacher, one without categories, or one that said nothing of any clip.
    """
    teachers = read_teachers(folder)
    if teacher_name not in teachers:
        raise ValueError(f"Expected a teacher among {list(teachers)}, got {teacher_name!r}.")
    facts = teachers[teacher_name]
    if not facts.classes:
        raise ValueError(f"Expected a teacher with categories, got `{teacher_name}`, which has {facts.dimensions}.")
    names = ["mask", "logits", "dimensions", "embedding", "confidence"]
    columns = ["id", "agreement", *(f"{teacher_name}.{name}" for name in names)]
    ids: list[str] = []
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*names, "agreement")}
    for shard in _shards(folder):
        table = shard.read(columns=columns)
        said = {name: table[teacher_name].combine_chunks().field(name) for name in names} if len(table) else {}
        ids += table["id"].to_pylist()
        parts["agreement"].append(table["agreement"].to_numpy())
        for name, column in said.items():
            lists = pa.types.is_list(column.type)
            parts[name].append(_rectangle(column) if lists else column.to_numpy(zero_copy_only=False))
    mask = np.concatenate(parts["mask"]) if parts["mask"] else np.zeros(0, bool)
    if not mask.any():
        raise ValueError(f"Expected clips of which `{teacher_name}` said something in `{folder}`, got none.")
    agreed = np.concatenate(parts["agreement"])
    dimensions = _joined(parts["dimensions"])  # (N, A)
    return TeacherOutputs(
        ids=ids,
        logits=torch.from_numpy(np.nan_to_num(_joined(parts["logits"]))),
        dimensions=torch.from_numpy(dimensions if dimensions.shape[1] else np.full((len(ids), 3), np.nan, np.float32)),
        embedding=torch.from_numpy(np.nan_to_num(_joined(parts["embedding"]))),
        teacher=torch.zeros(len(ids), dtype=torch.long),
        emotions=facts.classes,
        training_data=facts.training_data,
        name=teacher_name,
        confidence=torch.from_numpy(np.nan_to_num(np.concatenate(parts["confidence"])).astype(np.float32)),
        agreement=None if np.isnan(agreed).all() else torch.from_numpy(np.nan_to_num(agreed, nan=1.0)).float(),
        mask=torch.from_numpy(mask.astype(np.float32)),
        dimension_names=facts.dimensions if dimensions.shape[1] else [],
        license=facts.license,
    )


def _rectangle(column: pa.ListArray) -> np.ndarray:
    """`(N, D)` of lists of one length, NaN in rows that have none; `(N, 0)` where no row has."""
    there = np.asarray(column.is_valid())
    values = column.drop_null().flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    size = len(values) // there.sum() if there.any() else 0
    filled = np.full((len(column), size), np.nan, np.float32)
    filled[there] = values.reshape(-1, size) if size else filled[there]
    return filled


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Rows of all shards; a shard in which nobody spoke has no width of its own."""
    width = max(part.shape[1] for part in parts)
    return np.concatenate(
        [part if part.shape[1] else np.full((len(part), width), np.nan, np.float32) for part in parts]
    )


def _listed(values: np.ndarray | None, kind: type = np.float32) -> list[Any] | None:
    """As Arrow takes them: halves stay numpy's."""
    return None if values is None else list(np.asarray(values).astype(kind))


def summary(folder: str | Path, teachers: Sequence[TeacherFacts]) -> dict[str, Any]:
    """What a data set holds: clips, hours, and of each teacher how it spoke and why not.

    Returns:
        `clips`, `hours`, `agreement` (mean, None where nobody can be compared), and `spoken`: for each teacher
        `clips`, `confidence` (mean), `most_probable` (clips by class) and `silent` (clips by reason).
    """
    clips, seconds, agreed = 0, 0.0, []
    told: dict[str, dict[str, Any]] = {}
    for facts in teachers:
        told[facts.name] = {"confidence": [], "most_probable": dict.fromkeys(facts.classes, 0), "silent": Counter()}
    columns = ["id", "duration", "agreement"]
    fields = ("mask", "reason", "logits", "confidence")
    for row in read_rows(folder, [*columns, *(f"{facts.name}.{name}" for facts in teachers for name in fields)]):
        clips, seconds = clips + 1, seconds + row["duration"]
        agreed += [row["agreement"]] if row["agreement"] is not None else []
        for facts in teachers:
            said, of_teacher = row[facts.name], told[facts.name]
            if not said["mask"]:
                of_teacher["silent"][re.sub(r"\d[\d.%]*", "N", said["reason"])] += 1  # "4 faces" is "N faces"
            elif said["logits"] is not None:
                of_teacher["confidence"].append(said["confidence"])
                of_teacher["most_probable"][facts.classes[int(np.argmax(said["logits"]))]] += 1
    for of_teacher in told.values():
        sure = of_teacher["confidence"]
        of_teacher["silent"] = dict(of_teacher["silent"].most_common())
        of_teacher["clips"] = clips - sum(of_teacher["silent"].values())
        of_teacher["confidence"] = round(math.fsum(sure) / len(sure), 4) if sure else None
    mean = round(math.fsum(agreed) / len(agreed), 4) if agreed else None
    return {"clips": clips, "hours": round(seconds / 3600, 4), "agreement": mean, "spoken": told}
