"""A teacher by Hub id, folder, file, or a YAML file that says more of it; and which revision of it that is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from torch import Tensor
from transformers import AutoModelForAudioClassification

from audio_emotion.data.collate import Batch, batches
from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.sampler import Order
from audio_emotion.evaluation.predictions import predict
from audio_emotion.layers import EmotionOutput
from audio_emotion.teachers.outputs import TeacherOutputs
from audio_emotion.teachers.pseudo_labels import to_teacher_outputs

FILES = (".onnx", ".tflite")
COLORS = ("rgb", "bgr", "gray")
OUTPUTS = ("logits", "probabilities")
KEYS = {"model", "classes", "outputs", "color", "mean", "std", "license", "training_data"}


def describe(file: str) -> dict[str, Any]:
    """What is told of a teacher: all keys of its YAML file, or else its `model` alone.

    Args:
        file: YAML, in which paths start from its own folder; anything else is taken for the model itself.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for what is unknown, missing, or cannot be.
    """
    if not file.endswith((".yaml", ".yml")):
        return {"model": file}
    if not Path(file).is_file():
        raise FileNotFoundError(f"Expected the description of a teacher in `{file}`, got no such file.")
    told = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    if not isinstance(told, dict) or not isinstance(told.get("model"), str):
        raise ValueError(f"{file}: expected `model:`, a file or a Hub id, got {told!r}.")
    if unknown := sorted(set(told) - KEYS):
        raise ValueError(f"{file}: expected keys among {sorted(KEYS)}, got {unknown}. Correct or remove them.")
    for key, allowed in (("color", COLORS), ("outputs", OUTPUTS)):
        if key in told and told[key] not in allowed:
            raise ValueError(f"{file}: expected `{key}` among {allowed}, got {told[key]!r}.")
    for key in ("mean", "std"):
        if key in told and (type(told[key]) not in (int, float) or (key == "std" and told[key] <= 0)):
            raise ValueError(f"{file}: expected `{key}` as one number, in pixels of 0..1, got {told[key]!r}.")
    classes = told.get("classes", [])
    if not isinstance(classes, list) or not all(isinstance(each, str) for each in classes):
        raise ValueError(
            f"{file}: expected `classes` as a list of names in the order of the outputs, got {classes!r}."
        )
    beside = Path(file).parent / told["model"]
    if told["model"].endswith(FILES) and not beside.is_file():
        raise FileNotFoundError(f"{file}: expected the model in `{beside}`, got no such file.")
    if beside.exists():
        told["model"] = str(beside)
    return told


def public_name(source: str) -> str:
    """A Hub id as it is, of a path the last two parts: the rest tells of this machine alone."""
    parts = Path(source).parts
    return "/".join(parts[-2:]) if Path(source).is_absolute() or Path(source).exists() else source


def revision_of(source: str, config: Any = None) -> str:
    """The commit on the Hub; of a file, or a folder's weights, the digest."""
    path = Path(source)
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
    elif path.is_file():
        files = [path]
    else:
        return str(config._commit_hash or "unknown")
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return f"sha256:{digest.hexdigest()[:16]}"


def load_teacher_outputs(
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
        Outputs in the order of the clips: embeddings standardized over them, masked where a teacher is silent, in the
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
        outputs = replace(outputs, embedding=standardized(outputs.embedding, outputs.teacher, trained_on))
        if outputs.dimensions.isfinite().any() and (absent := sorted(set(dimensions) - set(outputs.dimension_names))):
            accelerator.print(f"{outputs.name}: has {outputs.dimension_names}, and teaches nothing of {absent}")
        outputs = outputs.in_dimensions(dimensions)
        said[outputs.name] = outputs.covering(clips)
        silent = len(clips) - int(said[outputs.name].spoken.sum())
        accelerator.print(f"{outputs.name}: speaks of all but {silent} of {len(clips)} training clips")
    return said


def training_data_of_teachers(said: Mapping[str, TeacherOutputs]) -> list[dict]:
    """What the teachers have seen, each corpus or model once."""
    seen: list[dict] = []
    for outputs in said.values():
        seen += [facts for facts in outputs.training_data if facts not in seen]
    return seen


def teacher_outputs(
    source: str, accelerator: Accelerator, stream: ClipStream, emotions: Sequence[str], dimensions: Sequence[str]
) -> TeacherOutputs:
    """Outputs on disk, cross-fitted, or of the teacher itself now; see [`load_teacher_outputs`]."""
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


def standardized(embedding: Tensor, teacher: Tensor, spoken: Tensor) -> Tensor:
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
