"""A teacher by Hub id, folder, file, or a YAML file that says more of it; and which revision of it that is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

FILES = (".onnx", ".tflite")
COLOURS = ("rgb", "bgr", "grey")
OUTPUTS = ("logits", "probabilities")
KEYS = {"model", "classes", "outputs", "colour", "mean", "std", "license", "training_data"}


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
    for key, allowed in (("colour", COLOURS), ("outputs", OUTPUTS)):
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
