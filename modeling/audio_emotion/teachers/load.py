"""Loading of teachers: the YAML description of a model, and the outputs of teachers for a training set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from torch import Tensor
from transformers import AutoModelForAudioClassification

from audio_emotion.data.dataset import Batch, ClipStream, batches
from audio_emotion.data.sampler import ResumableSampler
from audio_emotion.evaluation.predictions import predict
from audio_emotion.layers import EmotionOutput
from audio_emotion.teachers.outputs import TeacherOutputs
from audio_emotion.teachers.pseudo_labels import read_teacher_outputs

MODEL_FILES = (".onnx", ".tflite")
CHOICES = {"color": ("rgb", "bgr", "gray"), "outputs": ("logits", "probabilities")}


@dataclass
class TeacherDescription:
    """A model as described in a YAML file; see docs/pseudo_labels.md.

    Attributes:
        model: Hub id, folder, or ONNX or LiteRT file.
        classes: names of the outputs, in order; None to take them from the model's configuration.
        outputs: "logits" or "probabilities".
        color: of the input image: "rgb", "bgr" or "gray".
        mean: subtracted from pixels in 0..1.
        std: divides them then.
        license: of the weights, SPDX.
        training_data: as in a checkpoint's configuration; None for a public model whose training data are unknown.
    """

    model: str
    classes: list[str] | None = None
    outputs: str = "logits"
    color: str = "rgb"
    mean: float = 0.0
    std: float = 1.0
    license: str = "LicenseRef-unknown"
    training_data: list[dict] | None = None


def read_description(source: str) -> TeacherDescription:
    """Read the description of a teacher.

    Args:
        source: a YAML file, in which paths are relative to its folder; anything else is the model itself.

    Raises:
        FileNotFoundError: if the YAML file or its model file does not exist.
        ValueError: for unknown keys, missing ones, or invalid values.
    """
    if not source.endswith((".yaml", ".yml")):
        return TeacherDescription(source)
    if not Path(source).is_file():
        raise FileNotFoundError(f"Expected the description of a teacher in `{source}`, got no such file.")
    values = yaml.safe_load(Path(source).read_text(encoding="utf-8"))
    if not isinstance(values, dict) or not isinstance(values.get("model"), str):
        raise ValueError(f"{source}: expected `model:`, a file or a Hub id, got {values!r}.")
    known = {each.name for each in fields(TeacherDescription)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{source}: expected keys among {sorted(known)}, got {unknown}. Correct or remove them.")
    for key, allowed in CHOICES.items():
        if key in values and values[key] not in allowed:
            raise ValueError(f"{source}: expected `{key}` among {allowed}, got {values[key]!r}.")
    for key in ("mean", "std"):
        if key in values and (type(values[key]) not in (int, float) or (key == "std" and values[key] <= 0)):
            raise ValueError(f"{source}: expected `{key}` as one number, for pixels in 0..1, got {values[key]!r}.")
    classes = values.get("classes", [])
    if not isinstance(classes, list) or not all(isinstance(each, str) for each in classes):
        raise ValueError(
            f"{source}: expected `classes` as a list of names in the order of the outputs, got {classes!r}."
        )
    path = Path(source).parent / values["model"]
    if values["model"].endswith(MODEL_FILES) and not path.is_file():
        raise FileNotFoundError(f"{source}: expected the model in `{path}`, got no such file.")
    if path.exists():
        values["model"] = str(path)
    return TeacherDescription(**values)


def public_source(source: str) -> str:
    """A Hub id unchanged; the last two parts of a path, so that no path of this machine is published."""
    parts = Path(source).parts
    return "/".join(parts[-2:]) if Path(source).is_absolute() or Path(source).exists() else source


def get_revision(source: str, config: Any = None) -> str:
    """Commit on the Hub, or the digest of a file or of the weights in a folder."""
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
    """Outputs of each teacher for the training clips, by the teacher's name.

    Args:
        sources: `NAME=FOLDER` or `FOLDER`: saved outputs, a data set of `recipes/pseudo_label.py` (`hf://...` too), or
            a run of `recipes/train_teacher.py`.
        accelerator: of the run.
        stream: of the training clips.
        emotions: of the corpus, in logit order.
        dimensions: of the corpus.

    Returns:
        Outputs in the order of the clips, masked where the teacher has none. Embeddings are standardized over the
        training clips; dimensions are those of the corpus, `(N, 0)` if the teacher has none of them.

    Raises:
        ValueError: for two teachers of one name, and for a teacher without output for any of the clips or with
            dimensions without names.
    """
    clips = list(stream.table["id"])
    training_clips = set(clips)
    teachers: dict[str, TeacherOutputs] = {}
    for source in sources:
        outputs = _load_outputs(source, accelerator, stream, emotions, dimensions)
        name = outputs.name
        if name in teachers:
            raise ValueError(f"Expected a name for each teacher, got {name!r} twice. Write `NAME={source}`.")
        in_training = outputs.has_output & torch.tensor([each in training_clips for each in outputs.ids])
        outputs = replace(outputs, embedding=standardize_embedding(outputs.embedding, outputs.teacher, in_training))
        if outputs.dimensions.isfinite().any() and (missing := sorted(set(dimensions) - set(outputs.dimension_names))):
            accelerator.print(f"{name}: has the dimensions {outputs.dimension_names}; no distillation of {missing}")
        teachers[name] = outputs.with_dimensions(dimensions).align(clips)
        count = int(teachers[name].has_output.sum())
        accelerator.print(f"{name}: outputs for {count} of {len(clips)} training clips")
    return teachers


def training_data_of_teachers(teachers: Mapping[str, TeacherOutputs]) -> list[dict]:
    """Training data of all teachers, without duplicates."""
    entries: list[dict] = []
    for outputs in teachers.values():
        entries += [entry for entry in outputs.training_data if entry not in entries]
    return entries


def _load_outputs(
    source: str, accelerator: Accelerator, stream: ClipStream, emotions: Sequence[str], dimensions: Sequence[str]
) -> TeacherOutputs:
    """Saved outputs, or those of the checkpoint of a run, computed now; see [`load_teacher_outputs`]."""
    name, _, folder = source.rpartition("=")
    if folder.startswith("hf://") or (Path(folder) / "teachers.json").exists():  # of recipes/pseudo_label.py
        return read_teacher_outputs(folder, name)
    for path in (Path(folder), Path(folder) / "teacher_outputs"):
        if (path / "teacher_outputs.json").exists():
            outputs = TeacherOutputs.load(path)
            return replace(outputs, name=name or outputs.name)

    teacher = AutoModelForAudioClassification.from_pretrained(Path(folder) / "checkpoints" / "last")
    teacher = teacher.to(accelerator.device).eval()
    config = teacher.config
    batch_size = 16 // accelerator.num_processes * accelerator.num_processes
    sampler = ResumableSampler.from_table(stream.table, batch_size, num_processes=accelerator.num_processes)

    def forward(batch: Batch) -> EmotionOutput:
        return teacher(batch.input_values.to(accelerator.device), batch.attention_mask.to(accelerator.device))

    predictions = predict(accelerator, forward, batches(stream, sampler, emotions, dimensions))
    return TeacherOutputs.from_predictions(
        predictions, config.emotions, list(config.training_data), name or "teacher", config.dimensions, config.license
    )


def standardize_embedding(embedding: Tensor, teacher: Tensor, has_output: Tensor) -> Tensor:
    """Zero mean and unit standard deviation of each feature, separately for each cross-fitted teacher.

    Args:
        embedding: `(N, D)`.
        teacher: `(N,)`, index of the teacher of each clip.
        has_output: `(N,)`, which clips count.

    Returns:
        `(N, D)`; 0 for clips that do not count, and for the only clip of a teacher.
    """
    embedding = embedding.float()  # pseudo-labels are stored in half precision
    result = torch.zeros_like(embedding)
    for index in teacher[has_output].unique():
        rows = has_output & (teacher == index)
        values = embedding[rows]
        if len(values) > 1 and values.shape[1]:
            result[rows] = (values - values.mean(0)) / values.std(0).clamp(min=1e-4)
    return result
