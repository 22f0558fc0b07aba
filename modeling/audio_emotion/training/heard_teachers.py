"""What teachers say of the training clips: read where they have spoken, or asked now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import AutoModelForAudioClassification

from audio_emotion.evaluation.predictions import predict
from audio_emotion.outputs import EmotionOutput
from audio_emotion.training.batches import Batch, batches
from audio_emotion.training.order import Order
from audio_emotion.training.pseudo_labels import to_teacher_outputs
from audio_emotion.training.streams import ClipStream
from audio_emotion.training.teacher_outputs import TeacherOutputs


def heard_teachers(
    sources: Sequence[str],
    accelerator: Accelerator,
    stream: ClipStream,
    emotions: Sequence[str],
    dimensions: Sequence[str],
) -> dict[str, TeacherOutputs]:
    """What each teacher says of every training clip, by the teacher's name.

    Args:
        sources: `NAME=FOLDER` or `FOLDER`: outputs on disk, a data set of `pseudo_label.py` (`hf://...` too), or a run
            of `train_teacher.py`.
        accelerator: of the run.
        stream: of the training clips.
        emotions: of the corpus, in logit order.
        dimensions: of the corpus.

    Returns:
        Outputs in the order of the clips: embeddings standardised, masked where a teacher is silent, `(N, 0)`
        dimensions of teachers who have none.

    Raises:
        ValueError: for two teachers of one name, and for one who speaks of none of the clips.
    """
    clips = stream.table["id"]
    said: dict[str, TeacherOutputs] = {}
    for source in sources:
        outputs = teacher_outputs(source, accelerator, stream, emotions, dimensions)
        if outputs.name in said:
            raise ValueError(f"Expected a name for each teacher, got {outputs.name!r} twice. Write `NAME={source}`.")
        outputs = replace(outputs, embedding=standardised(outputs.embedding, outputs.teacher, outputs.spoken))
        if not outputs.dimensions.isfinite().any():  # a classifier
            outputs = replace(outputs, dimensions=outputs.dimensions[:, :0])
        said[outputs.name] = outputs.covering(clips)
        silent = len(clips) - int(said[outputs.name].spoken.sum())
        accelerator.print(f"{outputs.name}: speaks of all but {silent} of {len(clips)} training clips")
    return said


def teachers_data(said: Mapping[str, TeacherOutputs]) -> list[dict]:
    """What the teachers have seen, each corpus or model once."""
    seen: list[dict] = []
    for outputs in said.values():
        seen += [facts for facts in outputs.training_data if facts not in seen]
    return seen


def teacher_outputs(
    source: str, accelerator: Accelerator, stream: ClipStream, emotions: Sequence[str], dimensions: Sequence[str]
) -> TeacherOutputs:
    """Outputs on disk, cross-fitted, or of the teacher itself now; see [`heard_teachers`]."""
    name, _, run = source.rpartition("=")
    if run.startswith("hf://") or (Path(run) / "teachers.json").exists():  # a data set of recipes/pseudo_label.py
        return to_teacher_outputs(run, name)
    for folder in (Path(run), Path(run) / "teacher_outputs"):
        if (folder / "teacher_outputs.json").exists():
            outputs = TeacherOutputs.load(folder)
            return replace(outputs, name=name or outputs.name)
    teacher = AutoModelForAudioClassification.from_pretrained(Path(run) / "checkpoints" / "last")
    teacher = teacher.to(accelerator.device).eval()
    size = 16 // accelerator.num_processes * accelerator.num_processes

    def judge(batch: Batch) -> EmotionOutput:
        return teacher(batch.input_values.to(accelerator.device), batch.attention_mask.to(accelerator.device))

    order = Order.of(stream.table, size, num_processes=accelerator.num_processes)
    said = predict(accelerator, judge, batches(stream, order, emotions, dimensions))
    return TeacherOutputs.of_one(said, emotions, list(teacher.config.training_data), name or "teacher")


def standardised(embedding: Tensor, teacher: Tensor, spoken: Tensor) -> Tensor:
    """Zero mean and unit deviation of every feature, teacher by teacher, `(N, D)`; 0 where it says nothing."""
    embedding = embedding.float()  # labels made in bulk are in half precision
    result = torch.zeros_like(embedding)
    for number in teacher[spoken].unique():
        hers = spoken & (teacher == number)
        mine = embedding[hers]
        result[hers] = (mine - mine.mean(0)) / mine.std(0).clamp(min=1e-4)
    return result
