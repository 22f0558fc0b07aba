"""Base class of the models: initialization, strict loading of checkpoints, and loading of adapters."""

# SPDX-License-Identifier: Apache-2.0

import hashlib
import itertools
import json
import os
import re
from pathlib import Path, PurePosixPath

import torch
from torch import nn
from transformers import AutoModel, AutoModelForAudioClassification, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import CONFIG_NAME, cached_file, find_adapter_config_file, is_peft_available

from .layers import LogMel

HUB_KWARGS = {"cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token"}
LARGEST_SIZE = 50_000  # of an integer in a configuration, so that a broken file does not fill the memory
ADAPTER = "adapter"  # folder of a published adapter, beside the configuration of the whole model
HEADS = r"^heads\."  # ignored without a report by a model without heads


class EmotionPreTrainedModel(PreTrainedModel):
    """Weight initialization and strict loading."""

    main_input_name = "input_values"
    input_modalities = ("audio",)
    _keep_in_fp32_modules_strict = ("log_mel", "layer_mix")  # their statistics would be rounded in bfloat16

    def __init__(self, config, *inputs, **kwargs):
        sizes = {name: getattr(config, name) for name in type(config).__dataclass_fields__}
        too_large = {name: size for name, size in sizes.items() if isinstance(size, int) and abs(size) > LARGEST_SIZE}
        if too_large:
            raise ValueError(f"Expected sizes of at most {LARGEST_SIZE} in the configuration, got {too_large}.")
        super().__init__(config, *inputs, **kwargs)

    def _init_weights(self, module: nn.Module) -> None:
        """Initialize a module that was not loaded: transformers leaves GRUs and buffers as uninitialized memory."""
        if isinstance(module, LogMel):
            module.reset()
        elif isinstance(module, (nn.Linear, nn.Conv1d)):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.GRU):
            for name, parameter in module.named_parameters():
                if name.startswith("weight_hh"):
                    for gate in parameter.chunk(3):  # reset, update and new gate, each (G, G)
                        init.orthogonal_(gate) if not _is_loaded(parameter) else None
                elif name.startswith("weight"):
                    init.xavier_uniform_(parameter)
                else:
                    init.zeros_(parameter)
        else:
            super()._init_weights(module)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path,
        *model_args,
        new_heads: bool = False,
        encoders: dict[str, str] | None = None,
        **kwargs,
    ):
        """Load a checkpoint as transformers does, but only complete ones, and only from safetensors.

        A folder with only an adapter, as `save_pretrained` writes it for a model with a peft adapter, is loaded on the
        base model that it names. For a teacher that was published as an adapter, the pretrained encoders are loaded
        from the sources in its configuration, compared with their digests, and merged with the adapter.

        Args:
            pretrained_model_name_or_path: Hub id or folder.
            *model_args: passed on.
            new_heads: for fine-tuning: initialize `heads.*` at random where missing or of another shape.
            encoders: for a teacher published as an adapter, folders or Hub ids of its encoders by the name of their
                stream; by default `$AUDIO_EMOTION_DATA/encoders/<source>` or else the Hub.
            **kwargs: passed on.

        Raises:
            ValueError: naming the tensors that are missing or of another shape, or the encoder that differs.
            OSError: where there are no weights in safetensors.
        """
        report = kwargs.pop("output_loading_info", False)
        kwargs["use_safetensors"] = True  # a pickle can run code
        kwargs["ignore_mismatched_sizes"] = True  # reported below
        base, adapter, hub_kwargs = _base_and_adapter(pretrained_model_name_or_path, kwargs)
        source = base
        if adapter is None and base is not None:
            config = kwargs.get("config")
            if not isinstance(config, PreTrainedConfig):
                config = cls.config_class.from_pretrained(base, **hub_kwargs)
            if digests := base_digests(config):
                kwargs["config"] = config
                kwargs["state_dict"] = _merged_weights(cls, config, digests, base, encoders or {}, hub_kwargs)
                source = None
        # The adapter is loaded below: for both at once, transformers returns the adapter's report, not the base's.
        try:
            model, info = super().from_pretrained(source, *model_args, output_loading_info=True, **kwargs)
        except Exception as error:
            if type(error).__name__ != "SafetensorError":  # from a library that a checkpoint's code does not import
                raise
            raise ValueError(
                f"Expected weights in safetensors in {str(base)!r}, got a broken file: {error}."
            ) from error
        absent = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
        if new_heads:
            absent = {name for name in absent if not name.startswith("heads.")}
        if absent:
            raise ValueError(
                f"The checkpoint {str(base)!r} lacks weights of {cls.__name__}, or has them "
                f"in another shape: {sorted(absent)}. Its outputs would be random. Load a complete checkpoint or, to "
                "fine-tune new heads on your own labels, pass `new_heads=True`."
            )
        if adapter is not None:
            _load_adapter(model, adapter, hub_kwargs)
        # The tensors of safetensors are memory-mapped and unaligned, for which some kernels round differently. With
        # copies, a loaded model is bit-identical to the saved one.
        for tensor in itertools.chain(model.parameters(), model.buffers()):
            if tensor.device.type == "cpu":
                tensor.data = tensor.data.clone()
        return (model, info) if report else model


def auto_map(config) -> dict[str, str]:
    """The `auto_map` of a configuration; `register_for_auto_class` alone would name only one of the two models."""
    classes = {
        "AutoConfig": type(config),
        "AutoModel": AutoModel._model_mapping[type(config)],
        "AutoModelForAudioClassification": AutoModelForAudioClassification._model_mapping[type(config)],
    }
    return {auto: f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}" for auto, cls in classes.items()}


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


def _merged_weights(
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
            encoder = _base_encoder(stream.stream, digests[stream.stream["name"]], encoders, hub_kwargs)
            stream.encoder.load_state_dict(encoder.state_dict())
    if Path(source).is_dir():
        _load_adapter(model, Path(source) / ADAPTER, {})
    else:
        within = str(PurePosixPath(hub_kwargs.get("subfolder", "")) / ADAPTER)
        _load_adapter(model, source, {**hub_kwargs, "subfolder": within})
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


def _base_encoder(stream: dict, expected: str, encoders: dict[str, str], hub_kwargs: dict) -> nn.Module:
    """Load the pretrained encoder of a stream and compare its digest with the expected one."""
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
    try:
        model = AutoModel.from_pretrained(
            source, revision=revision, dtype=torch.float32, use_safetensors=True, **access
        )
    except OSError as error:
        raise OSError(
            f"This adapter needs the pretrained encoder {stream['source']!r}, got none from {source!r}: {error} "
            f'Pass its location: `encoders={{"{stream["name"]}": "a folder or a Hub id"}}`.'
        ) from error
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    if (found := weights_digest(encoder)) != expected:
        raise ValueError(
            f"Expected the encoder that the adapter was trained with, {stream['source']!r} with weights of SHA-256 "
            f"{expected[:12]}..., got {source!r} with {found[:12]}... The outputs would be meaningless. Pass the "
            "folder of that encoder or its Hub id, as in the model card."
        )
    return encoder


def _base_and_adapter(source, kwargs: dict) -> tuple:
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
    return json.loads(Path(adapter_config).read_text(encoding="utf-8"))["base_model_name_or_path"], source, hub_kwargs


def _load_adapter(model: PreTrainedModel, adapter, hub_kwargs: dict) -> None:
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


def _is_loaded(parameter) -> bool:
    """Whether transformers has marked the parameter as read from a checkpoint."""
    return getattr(parameter, "_is_hf_initialized", False)
