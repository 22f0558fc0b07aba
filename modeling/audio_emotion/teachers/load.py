"""Loading of teachers: the YAML description of a model, and the outputs of teachers for a training set."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from accelerate import Accelerator
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import AutoModelForAudioClassification

from audio_emotion.checkpoint_loading import loading_options
from audio_emotion.data.dataset import ClipStream, batches
from audio_emotion.data.sampler import ResumableSampler
from audio_emotion.evaluation.predictions import predict
from audio_emotion.teachers.outputs import TeacherOutputs, version_id
from audio_emotion.teachers.pseudo_labels import read_teacher_outputs

MODEL_FILES = (".onnx", ".tflite")


@strict
@dataclass
class TeacherDescription:
    """A model as described in a YAML file; see docs/pseudo_labels.md."""

    model: str  # Hub id, folder, or ONNX or LiteRT file
    classes: list[str] | None = None  # of the outputs, in order; None to take them from the model's configuration
    outputs: Literal["logits", "probabilities"] = "logits"
    color: Literal["rgb", "bgr", "gray"] = "rgb"  # of the input image
    mean: int | float = 0.0  # subtracted from pixels in 0..1
    std: int | float = 1.0  # divides them then
    license: str = "LicenseRef-unknown"  # of the weights, SPDX
    training_data: list[dict] | None = None  # as in a checkpoint's configuration; None if unknown

    def validate_std(self) -> None:
        """Called by the constructor."""
        if self.std <= 0:
            raise ValueError(f"Expected `std` above 0, got {self.std}.")


def read_description(source: str) -> TeacherDescription:
    """The description of a teacher: a YAML file, in which paths are relative to its folder, or the model itself."""
    if not source.endswith((".yaml", ".yml")):
        return TeacherDescription(source)
    if not Path(source).is_file():
        raise FileNotFoundError(f"Expected the description of a teacher in `{source}`, got no such file.")
    values = yaml.safe_load(Path(source).read_text(encoding="utf-8"))
    try:
        description = TeacherDescription(**values)
    except (StrictDataclassError, TypeError) as error:
        raise ValueError(f"{source}: {error}. Describe the teacher as in docs/pseudo_labels.md.") from error
    path = Path(source).parent / description.model
    if description.model.endswith(MODEL_FILES) and not path.is_file():
        raise FileNotFoundError(f"{source}: expected the model in `{path}`, got no such file.")
    return replace(description, model=str(path)) if path.exists() else description


def public_source(source: str) -> str:
    """A Hub id unchanged; the last two parts of a path, so that no path of this machine is published."""
    parts = Path(source).parts
    return "/".join(parts[-2:]) if Path(source).is_absolute() or Path(source).exists() else source


def get_revision(source: str, config: Any = None) -> str:
    """Commit on the Hub, or the digest of a file or of the weights in a folder."""
    path = Path(source)
    if not path.exists():
        return str(config._commit_hash or "unknown")
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(path.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return f"sha256:{digest.hexdigest()[:16]}"


def load_teacher_outputs(
    sources: Sequence[str],
    accelerator: Accelerator,
    stream: ClipStream,
    emotions: Sequence[str],
    dimensions: Sequence[str],
    versions: int = 1,
) -> dict[str, TeacherOutputs]:
    """Outputs of each teacher for the training clips, by the teacher's name; for the sources see [`find_teacher`].

    They are in the order of the clips, masked where the teacher has none, and with `versions` above 1 for all clips
    of the first version, then of the next. Embeddings are standardized over the training clips; dimensions are those
    of the corpus, `(N, 0)` if the teacher has none of them.
    """
    clips = [version_id(name, version) for version in range(versions) for name in stream.table["id"]]
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
        each = "" if versions == 1 else f", {versions} versions of each"
        accelerator.print(f"{name}: outputs for {count // versions} of {len(stream.table)} training clips{each}")
    return teachers


def find_teacher(source: str) -> tuple[str, Literal["data set", "outputs", "model"], str]:
    """Name of a teacher, empty if not given, what it is, and where.

    Args:
        source: `NAME=TEACHER` or `TEACHER`: a data set of `recipes/pseudo_label.py` (a folder or `hf://...`), a folder
            of teacher outputs, a run folder, a folder with a checkpoint, or the id of a model on the Hub.

    Raises:
        FileNotFoundError: if there is no such teacher.
    """
    name, _, place = source.rpartition("=")
    folder = Path(place)
    if place.startswith("hf://") or (folder / "teachers.json").exists():
        return name, "data set", place
    for path in (folder, folder / "teacher_outputs"):
        if (path / "teacher_outputs.json").exists():
            return name, "outputs", str(path)
    return name, "model", find_checkpoint(place)


def teacher_augmentation(sources: Sequence[str]) -> tuple[dict[str, Any], int]:
    """Strengths and number of the augmented versions of which all teachers have outputs; `{}` and 1 if not all do.

    Raises:
        ValueError: for teachers with outputs for versions of different augmentations.
    """
    found = []
    for source in sources:
        _, kind, place = find_teacher(source)
        outputs = TeacherOutputs.load(place) if kind == "outputs" else None
        strengths = {} if outputs is None else outputs.augmentation
        ranges = {name: tuple(value) for name, value in strengths.items() if isinstance(value, list)}
        found.append((strengths | ranges, 1 if outputs is None else outputs.versions))
    if not found or any(count == 1 for _, count in found):
        return {}, 1
    if any(strengths != found[0][0] for strengths, _ in found):
        raise ValueError(
            f"Expected teachers with outputs for the same augmented versions, got different ones of {list(sources)}. "
            "Train them with the same augmentation, or pass `--consistent false`."
        )
    return found[0][0], min(count for _, count in found)


def find_checkpoint(source: str) -> str:
    """The folder of a checkpoint, given it or its run folder; or an id on the Hub, which is looked up there.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
    """
    for path in (Path(source), Path(source) / "checkpoints" / "last"):
        if (path / "config.json").exists():
            return str(path)
    expected = "Expected a run folder, a checkpoint, teacher outputs or an id on the Hub"
    if Path(source).exists() or Path(source).parent.is_dir():
        raise FileNotFoundError(f"{expected}, got `{source}`: there is no checkpoint there.")
    try:
        if not isinstance(try_to_load_from_cache(source, "config.json"), str):
            HfApi().model_info(source, timeout=10)  # unlike a download, it does not try for a minute
    except Exception as error:
        raise FileNotFoundError(f"{expected}, got `{source}`: no such folder, and on the Hub: {error}") from error
    return source


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
    name, kind, place = find_teacher(source)
    if kind == "data set":
        return read_teacher_outputs(place, name)
    if kind == "outputs":
        outputs = TeacherOutputs.load(place)
        return replace(outputs, name=name or outputs.name)

    teacher = AutoModelForAudioClassification.from_pretrained(place, **loading_options(place))
    teacher = teacher.to(accelerator.device).eval()
    config = teacher.config
    if not hasattr(config, "training_data"):
        raise ValueError(
            f"Expected a model of this package as the teacher `{place}`, got a {config.model_type} model. Compute its "
            "outputs with recipes/pseudo_label.py and pass their folder."
        )
    sampler = ResumableSampler.in_order(stream.table, 16, accelerator.num_processes)

    predictions = predict(accelerator, teacher, batches(stream, sampler, emotions, dimensions))
    return TeacherOutputs.from_predictions(
        predictions, config.emotions, list(config.training_data), name or "teacher", config.dimensions, config.license
    )


def standardize_embedding(embedding: Tensor, teacher: Tensor, has_output: Tensor) -> Tensor:
    """Zero mean and unit standard deviation of each feature `(N, D)`, separately for each cross-fitted teacher `(N,)`.

    0 for clips without output, which do not count, and for the only clip of a teacher.
    """
    embedding = embedding.float()  # pseudo-labels are stored in half precision
    result = torch.zeros_like(embedding)
    for index in teacher[has_output].unique():
        rows = has_output & (teacher == index)
        values = embedding[rows]
        if len(values) > 1 and values.shape[1]:
            result[rows] = (values - values.mean(0)) / values.std(0).clamp(min=1e-4)
    return result
