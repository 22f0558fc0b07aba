"""Checks before publication: no pickles, no links or code from outside of the folder, complete weights."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from transformers import AutoModelForAudioClassification, PreTrainedModel

from audio_emotion.checkpoint_loading import ADAPTER, loading_options

RepositoryType = Literal["model", "dataset", "space"]
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".npy", ".npz"}
EVERYWHERE = ("README.md", "LICENSE*", ".gitattributes", "training/config.yaml")
PUBLISHED: dict[RepositoryType, tuple[str, ...]] = {  # patterns of the files of a repository; no other is uploaded
    "model": (
        *EVERYWHERE,
        *(
            "config.json",
            "preprocessor_config.json",
            "results.json",
            "report.json",
            "plots/*.png",
            "onnx/*.onnx",
            ".eval_results/*.yaml",
        ),
        *("handler.py", "requirements.txt"),  # for Inference Endpoints
        *("*.safetensors", "*.safetensors.index.json", "adapter_config.json"),
        *(f"{ADAPTER}/*.safetensors", f"{ADAPTER}/adapter_config.json"),
        *(path.name for path in Path(__file__).parents[1].glob("*.py")),  # the code that a checkpoint carries
    ),
    "dataset": (*EVERYWHERE, "data/*.parquet", "teachers.json", "eval.yaml"),
    "space": (
        *(*EVERYWHERE, "*.py", "requirements.txt", "THIRD_PARTY.txt"),
        *("index.html", "*.css", "*.js", "model.json", "*.flac", "onnx/*.onnx", "runtime/*.js", "runtime/*.wasm"),
    ),
}
LOCAL_CLASS = re.compile(r"[A-Za-z_]\w*\.[A-Za-z_]\w*")  # `module.Class`, without a repository or folder


def check_folder(folder: Path, kind: RepositoryType = "model", encoders: dict[str, str] | None = None) -> None:
    """Check the folder of a repository before it is uploaded.

    Args:
        folder: with a card, and without what `check_published` and `check_files` refuse.
        kind: of the repository; a model has to load strictly.
        encoders: for a teacher published as an adapter, see `load_strictly`.

    Raises:
        ValueError: if a check fails.
    """
    check_published(folder, kind)
    if not (folder / "README.md").is_file():
        raise ValueError(f"Expected a card, README.md, in {folder}, got none.")
    if kind == "model":
        load_strictly(folder, encoders)


def check_published(folder: Path, kind: RepositoryType) -> None:
    """Refuse every file that is not one of a published repository, such as keys, notebooks and optimizer states.

    Raises:
        ValueError: with the names of the files.
    """
    check_files(folder)
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    others = [
        name
        for name in names
        if not name.startswith((".git/", ".cache/huggingface/"))  # never uploaded
        and not any(name.count("/") == each.count("/") and fnmatchcase(name, each) for each in PUBLISHED[kind])
    ]
    if others:
        raise ValueError(f"Expected only files of a published {kind} in {folder}, got {others}. Move them elsewhere.")


def check_files(folder: Path) -> None:
    """Refuse pickles, links, and configurations that refer to code or shards outside of the folder.

    Raises:
        ValueError: with the name of the file.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise ValueError(f"Expected plain files, got the link {path}: its target would be published.")
        if path.suffix.lower() in PICKLES:
            raise ValueError(
                f"Expected weights in safetensors, got {path}: loading it could run code. Convert or remove it."
            )
    for name in ("config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            _check_local_code(folder, json.loads((folder / name).read_text(encoding="utf-8")), name)
    loading_options(folder)  # refuses shards that are not beside their index


def _check_local_code(folder: Path, values: dict[str, Any], name: str) -> None:
    """Refuse classes in a configuration that are not in files beside it."""
    references = dict(values.get("auto_map") or {})
    references |= {task: each["impl"] for task, each in (values.get("custom_pipelines") or {}).items()}
    for use, reference in references.items():
        for each in reference if isinstance(reference, list) else [reference]:
            if each is None:
                continue
            if not LOCAL_CLASS.fullmatch(each) or not (folder / f"{each.partition('.')[0]}.py").is_file():
                raise ValueError(
                    f"Expected {name} to name classes of files beside it, got {each!r} for {use}. Write the "
                    "checkpoint again with `write_checkpoint`."
                )


def load_strictly(checkpoint: Path, encoders: dict[str, str] | None = None) -> PreTrainedModel:
    """Load the model of a checkpoint or adapter, with every weight from its safetensors.

    Args:
        checkpoint: its folder.
        encoders: for a teacher published as an adapter, folders of its encoders by name of the stream.

    Raises:
        ValueError: if weights are missing, unexpected, of another shape, or not in safetensors.
    """
    check_files(checkpoint)
    if (checkpoint / "adapter_config.json").is_file():
        return _load_adapter_strictly(checkpoint)
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": False}  # encoders can be on the Hub
    options |= {"encoders": encoders} if encoders else {}
    try:
        model, report = AutoModelForAudioClassification.from_pretrained(
            checkpoint, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        raise ValueError(f"Expected a checkpoint that loads from safetensors, got {checkpoint}: {error}") from error
    if unexpected := sorted(report["unexpected_keys"]):
        raise ValueError(
            f"Expected a configuration that fits the weights, got unexpected weights in {checkpoint}: "
            f"{unexpected}. Write the checkpoint again with the model that was trained."
        )
    return model


def _load_adapter_strictly(checkpoint: Path) -> PreTrainedModel:
    """Load the base that an adapter names, then the adapter.

    transformers loads both at once and reports all weights that are not in the adapter as missing.
    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    base = json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    try:
        model = AutoModelForAudioClassification.from_pretrained(base, use_safetensors=True, trust_remote_code=False)
        model.load_adapter(str(checkpoint))
        with safe_open(checkpoint / "adapter_model.safetensors", framework="pt") as file:
            given = {name.removeprefix("base_model.model."): file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (OSError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        raise ValueError(f"Expected an adapter that loads on {base}, got {checkpoint}: {error}") from error
    loaded = {
        name.removeprefix("base_model.model."): list(tensor.shape)
        for name, tensor in get_peft_model_state_dict(model).items()
    }
    if wrong := sorted(name for name in given.keys() | loaded.keys() if given.get(name) != loaded.get(name)):
        raise ValueError(f"Expected an adapter that fits {base}, got {checkpoint}, which differs in {wrong}.")
    return model
