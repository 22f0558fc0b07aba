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
        Outputs in the order of the clips: embeddings standardised over them, masked where a teacher is silent, in the
        corpus's dimensions, `(N, 0)` of teachers who have none of them.

    Raises:
        ValueError: for two teachers of one name, and for one who speaks of none of the clips or in dimensions without
            names.
    """
    clips = list(stream.table["id"])
    wanted = set(clips)
    said: dict[str, TeacherOutputs] = {}
    for source in sources:
        outputs = teacher_outputs(source, accelerator, stream, emotions, dimensions)
        if outputs.name in said:
            raise ValueError(f"Expected a name for each teacher, got {outputs.name!r} twice. Write `NAME={source}`.")
        trained_on = outputs.spoken & torch.tensor([name in wanted for name in outputs.ids])
        outputs = replace(outputs, embedding=standardised(outputs.embedding, outputs.teacher, trained_on))
        if outputs.dimensions.isfinite().any() and (absent := sorted(set(dimensions) - set(outputs.dimension_names))):
            accelerator.print(f"{outputs.name}: has {outputs.dimension_names}, and teaches nothing of {absent}")
        outputs = outputs.in_dimensions(dimensions)
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
    config = teacher.config
    return TeacherOutputs.of_one(
        said, config.emotions, list(config.training_data), name or "teacher", config.dimensions, config.license
    )


def standardised(embedding: Tensor, teacher: Tensor, spoken: Tensor) -> Tensor:
    """Zero mean and unit deviation of every feature, teacher by teacher, `(N, D)`; 0 where it says nothing.

    Of a teacher who speaks of one clip alone there is no deviation: that clip is its mean, 0.
    """
    embedding = embedding.float()  # labels made in bulk are in half precision
    result = torch.zeros_like(embedding)
    for number in teacher[spoken].unique():
        hers = spoken & (teacher == number)
        mine = embedding[hers]
        if len(mine) > 1 and mine.shape[1]:
            result[hers] = (mine - mine.mean(0)) / mine.std(0).clamp(min=1e-4)
    return result
