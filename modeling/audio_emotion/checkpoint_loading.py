"""Load checkpoints without running their code, and adapters with the encoders that they were trained with."""

# SPDX-License-Identifier: Apache-2.0

import hashlib
import json
import os
import re
from pathlib import Path, PurePosixPath

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import (
    CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    cached_file,
    find_adapter_config_file,
    is_peft_available,
)

HUB_KWARGS = {"cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token"}
ADAPTER = "adapter"  # folder of a published adapter, beside the configuration of the whole model


def loading_options(source) -> dict[str, bool]:
    """Arguments of every `from_pretrained` with which nothing of a checkpoint runs and a folder needs no network.

    Args:
        source: Hub id or folder.

    Raises:
        ValueError: for a run folder, and for a folder whose index of weights names files that are not beside it.
    """
    require_checkpoint(source)
    is_folder = source is not None and os.path.isdir(source)
    index = Path(source, SAFE_WEIGHTS_INDEX_NAME) if is_folder else None
    if index is not None and index.is_file():
        for shard in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())):
            if shard != Path(shard).name or "\\" in shard or not index.with_name(shard).is_file():
                raise ValueError(f"Expected shards beside {index}, got {shard!r}. Do not use this checkpoint.")
    return {"trust_remote_code": False, "local_files_only": is_folder}


def require_checkpoint(source) -> None:
    """Refuse the folder of a training run, which transformers would call an unrecognized model.

    Raises:
        ValueError: naming the folder of its checkpoint.
    """
    last = Path("" if source is None else source, "checkpoints", "last")
    if source is not None and (last / CONFIG_NAME).is_file() and not Path(source, CONFIG_NAME).exists():
        raise ValueError(f"Expected a checkpoint, got the run folder {str(source)!r}. Load {str(last)!r}.")


def base_digests(config: PreTrainedConfig) -> dict[str, str]:
    """For a model published as an adapter, the `weights_digest` of each encoder by the name of its stream."""
    streams = config.to_dict().get("streams") or []
    return {stream["name"]: stream["base_sha256"] for stream in streams if "base_sha256" in stream}


def weights_digest(encoder: nn.Module) -> str:
    """SHA-256 of an encoder's weights, without those of an adapter in it."""
    digest = hashlib.sha256()
    weights = {name.replace(".base_layer.", "."): tensor for name, tensor in encoder.state_dict().items()}
    for name, tensor in sorted(weights.items()):
        # `masked_spec_embed` is used only in training, and random where the encoder's file lacks it.
        if "lora_" not in name and not name.endswith("masked_spec_embed"):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def merged_weights(
    cls, config: PreTrainedConfig, digests: dict[str, str], source, encoders: dict[str, str], hub_kwargs: dict
) -> dict[str, torch.Tensor]:
    """Weights of a teacher that was published as an adapter: encoders merged with the adapter, and all other layers.

    Raises:
        ValueError: where an encoder is not the one that the adapter was trained with, or the adapter does not fit.
        OSError: where an encoder is not found.
        ImportError: where peft is missing.
    """
    if not is_peft_available():
        raise ImportError(f"{str(source)!r} is an adapter of pretrained encoders: `pip install peft` to load it.")
    for stream in config.streams:  # the merged model is no adapter
        stream.pop("base_sha256", None)
    model = cls(config)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(torch.nan)  # to find below what neither an encoder nor the adapter sets
    for stream in model.base_model.streams:
        if "encoder" in dict(stream.named_children()):  # log-mel has none
            _load_base_encoder(stream, digests[stream.stream["name"]], source, encoders, hub_kwargs)
    if Path(source).is_dir():
        load_adapter(model, Path(source) / ADAPTER, {})
    else:
        within = str(PurePosixPath(hub_kwargs.get("subfolder", "")) / ADAPTER)
        load_adapter(model, source, {**hub_kwargs, "subfolder": within})
    for module in model.modules():
        if "base_layer" in dict(module.named_children()):  # a layer of peft, which a checkpoint's code cannot import
            module.merge()
    merged = {
        name.replace(".base_layer.", ".").replace(".modules_to_save.default.", "."): tensor
        for name, tensor in model.state_dict().items()
        if "lora_" not in name and ".original_module." not in name
    }
    if unset := sorted(name for name, tensor in merged.items() if not tensor.isfinite().all()):
        raise ValueError(
            f"The adapter {str(source)!r} does not fit {cls.__name__}: neither it nor the encoders have {unset}. "
            "Publish it again from its run."
        )
    return merged


def _load_base_encoder(module: nn.Module, expected: str, folder, encoders: dict[str, str], hub_kwargs: dict) -> None:
    """Load the pretrained encoder of a stream of the adapter in `folder`, and compare its digest with the expected."""
    stream = module.stream
    name = PurePosixPath(stream["source"])
    if name.is_absolute() or ".." in name.parts:
        raise ValueError(f"Expected the name of an encoder or its Hub id in the configuration, got {str(name)!r}.")
    source, revision = encoders.get(stream["name"]), None
    if source is None and (data := os.environ.get("AUDIO_EMOTION_DATA")):
        local = Path(data) / "encoders" / name
        source = str(local) if local.is_dir() else None
    if source is None:
        source, revision = stream["source"], stream["revision"]
    access = {name: hub_kwargs[name] for name in ("cache_dir", "local_files_only", "token") if name in hub_kwargs}
    if stream["name"] in encoders:  # the caller names it
        access |= loading_options(source)
    else:
        _require_request(folder, source, hub_kwargs)
        access = {**loading_options(source), **access}
    try:
        model = AutoModel.from_pretrained(
            source, revision=revision, dtype=torch.float32, use_safetensors=True, **access
        )
    except OSError as error:
        raise OSError(
            f"This adapter needs the pretrained encoder {stream['source']!r}, got none from {source!r}: {error} "
            f'Pass its location: `encoders={{"{stream["name"]}": "a folder or a Hub id"}}`.'
        ) from error
    loaded = (model.get_encoder() if model.config.is_encoder_decoder else model).state_dict()
    for name, tensor in module.encoder.state_dict().items():  # without the layers that are not used
        if name in loaded and loaded[name].shape == tensor.shape:
            tensor.copy_(loaded[name])
    if (found := weights_digest(module.encoder)) != expected:
        raise ValueError(
            f"Expected the encoder that the adapter was trained with, {stream['source']!r} with weights of SHA-256 "
            f"{expected[:12]}..., got {source!r} with {found[:12]}... The outputs would be meaningless. Pass the "
            "folder of that encoder or its Hub id, as in the model card."
        )


def base_and_adapter(source, kwargs: dict) -> tuple:
    """The base to load, the adapter to load on it or None, and the keyword arguments of the Hub for the adapter.

    The Auto classes have already looked for an adapter: they pass its base, and the adapter in `adapter_kwargs`.
    """
    hub_kwargs = {name: value for name, value in kwargs.items() if name in HUB_KWARGS}
    if "adapter_kwargs" in kwargs:
        adapter_kwargs = dict(kwargs.pop("adapter_kwargs") or {})
        adapter = adapter_kwargs.pop("_adapter_model_path", None)
        return source, adapter, {**hub_kwargs, **adapter_kwargs}
    if source is None or not is_peft_available():
        return source, None, hub_kwargs
    adapter_config = find_adapter_config_file(source, **hub_kwargs)
    if adapter_config is None:
        return source, None, hub_kwargs
    if (Path(source) / CONFIG_NAME).exists():  # a complete model with an adapter beside it
        return source, source, hub_kwargs
    base = json.loads(Path(adapter_config).read_text(encoding="utf-8"))["base_model_name_or_path"]
    _require_request(source, base, hub_kwargs)
    return base, source, hub_kwargs


def _require_request(folder, name: str, hub_kwargs: dict) -> None:
    """Refuse to fetch from the Hub what nothing but a file in a folder names."""
    if Path(folder).is_dir() and not Path(name).is_dir() and "local_files_only" not in hub_kwargs:
        raise OSError(
            f"Expected all of the model in {str(folder)!r}, got a reference to {name!r} on the Hub. Pass "
            "`local_files_only=False` to fetch it, or `True` to take it from the cache."
        )


def load_adapter(model: PreTrainedModel, adapter, hub_kwargs: dict) -> None:
    """Load an adapter on a loaded model.

    Raises:
        ValueError: where it does not fit the model, naming the tensors.
        OSError: where it has no weights in safetensors.
    """
    cached_file(adapter, "adapter_model.safetensors", **hub_kwargs)  # else peft loads `adapter_model.bin`, a pickle
    info = model.load_adapter(str(adapter), adapter_kwargs=hub_kwargs, ignore_mismatched_sizes=True)
    ignored = "|".join(model._keys_to_ignore_on_load_unexpected or ["(?!)"])  # heads, in a model without
    unexpected = {name for name in info.unexpected_keys if not re.match(ignored, name)}
    if wrong := {*info.missing_keys, *unexpected, *(name for name, *_ in info.mismatched_keys)}:
        raise ValueError(
            f"The adapter {str(adapter)!r} does not fit {type(model).__name__}: it lacks these weights, has them in "
            f"another shape, or has unexpected ones: {sorted(wrong)}. Load it on the model that it was trained with."
        )
