"""Write a checkpoint that can be published: weights, configuration, feature extractor and code."""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForAudioClassification, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME

from audio_emotion.checkpoint_loading import ADAPTER, weights_digest
from audio_emotion.encoders import POSITIONS
from audio_emotion.feature_extraction_emotion import EmotionFeatureExtractor
from audio_emotion.pipeline_audio_emotion import AudioEmotionPipeline
from audio_emotion.pretrained_emotion import auto_map

BASE_ENCODERS = "base_encoders.json"  # beside an adapter: the digest of the encoder of each stream


def write_checkpoint(
    model: PreTrainedModel,
    folder: str | Path,
    feature_extractor: EmotionFeatureExtractor | None = None,
    half_precision: bool = False,
) -> Path:
    """Write a folder that loads with the Auto classes and both pipelines, with or without this package.

    Only `pipeline.save_pretrained` writes the pipeline's code. Weights are safetensors. LoRA adapters are merged in a
    copy of the model; those of a teacher are also written to `adapter/`, to be published without the encoders.

    Args:
        model: a teacher or student with its heads, or a `PeftModel` around one.
        folder: output folder, created if missing.
        feature_extractor: by default one at the model's sampling rate.
        half_precision: store weights in float16, and not the positions of Whisper, which are a formula. The model is
            still loaded in float32.

    Returns:
        The folder.

    Raises:
        ValueError: if the model has no heads, or its configuration contains an absolute path.
    """
    adapted, model = model, _without_adapters(model)
    config = model.config
    if type(config) not in AutoModelForAudioClassification._model_mapping or not isinstance(
        model, AutoModelForAudioClassification._model_mapping[type(config)]
    ):
        raise ValueError(
            f"Expected a model with its heads, such as StudentEmotionForAudioClassification, got "
            f"{type(model).__name__}. Publish the model with heads: AutoModel loads its base from the same folder."
        )
    if paths := dict(_absolute_paths(config.to_dict())):
        raise ValueError(
            f"Expected a configuration without absolute paths, got {paths}. Put a name or a Hub id there."
        )
    config.auto_map = auto_map(config)
    training = model.training
    pipeline = AudioEmotionPipeline(
        model=model,
        feature_extractor=feature_extractor or EmotionFeatureExtractor(sampling_rate=config.sampling_rate),
        task="audio-emotion",
        device=model.device,
    )
    pipeline.save_pretrained(folder)
    model.train(training)
    if half_precision:
        _store_in_half_precision(model, Path(folder) / SAFE_WEIGHTS_NAME)
    if adapted is not model and config.model_type == "fused-emotion":
        _write_adapter(adapted, Path(folder) / ADAPTER)
    return Path(folder)


def _store_in_half_precision(model: PreTrainedModel, file: Path) -> None:
    """Rewrite a file of weights in float16, except for statistics, and without what loading fills by a formula."""
    exact = model._keep_in_fp32_modules_strict or ()
    tensors = {
        name: tensor if any(part in exact for part in name.split(".")) else tensor.half()
        for name, tensor in load_file(file).items()
        if not re.search(POSITIONS, name)
    }
    if too_large := sorted(name for name, tensor in tensors.items() if not tensor.isfinite().all()):
        raise ValueError(f"Expected weights that float16 can represent, got larger ones in {too_large}. Use float32.")
    save_file(tensors, file, metadata={"format": "pt"})


def _write_adapter(adapted: Any, folder: Path) -> None:
    """Write the adapters and the other trained weights as peft does, with the digests of the encoders."""
    from peft import PeftModel, get_peft_model_state_dict

    weights = {
        f"base_model.model.{name.removeprefix('base_model.model.')}": tensor.detach().cpu().contiguous().clone()
        for name, tensor in get_peft_model_state_dict(adapted).items()
    }
    config = copy.deepcopy(adapted.peft_config["default"])
    config.base_model_name_or_path = None  # the configuration of the model names the encoders
    teacher = (adapted.get_base_model() if isinstance(adapted, PeftModel) else adapted).teacher
    facts = teacher.config.streams
    encoders = {
        each["name"]: weights_digest(stream.encoder)
        for each, stream in zip(facts, teacher.streams, strict=True)
        if each["kind"] == "encoder"
    }
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / BASE_ENCODERS).write_text(json.dumps(encoders, indent=2) + "\n", encoding="utf-8")


def _without_adapters(model: Any) -> PreTrainedModel:
    """The model, or a copy with merged adapters if it has any."""
    peft = sys.modules.get("peft")
    if peft is None:  # without peft there are no adapters
        return model
    if isinstance(model, peft.PeftModel):
        return copy.deepcopy(model).merge_and_unload()
    if not any(isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer) for module in model.modules()):
        return model
    model = copy.deepcopy(model)
    _merge_into(model, peft)
    del model.peft_config  # otherwise `save_pretrained` writes the adapter alone
    model._hf_peft_config_loaded = False
    # Left by loading an adapter: `save_pretrained` would rename every tensor as in an adapter.
    model.__dict__.pop("_weight_conversions", None)
    return model


def _merge_into(module: nn.Module, peft: Any) -> None:
    """Replace each adapted layer by its merged base layer, in place."""
    for name, child in module.named_children():
        if isinstance(child, peft.tuners.tuners_utils.BaseTunerLayer):
            child.merge()
            setattr(module, name, child.get_base_layer())
        elif isinstance(child, peft.utils.other.ModulesToSaveWrapper):
            setattr(module, name, child.modules_to_save[child.active_adapter])
        else:
            _merge_into(child, peft)


def _absolute_paths(value: Any, field: str = "config") -> Iterator[tuple[str, str]]:
    """Yield every absolute path in a nested value, with its field."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key != "_name_or_path":  # not saved
                yield from _absolute_paths(item, f"{field}.{key}")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _absolute_paths(item, f"{field}[{number}]")
    elif isinstance(value, str) and (PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()):
        yield field, value
