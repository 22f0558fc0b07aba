"""The base of both models: initialization, and loading that refuses a checkpoint without its heads."""

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

FROM_HUB = {"cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token"}
LARGEST = 50_000  # of a size in a configuration; a broken file must not fill the memory
ADAPTER = "adapter"  # the folder of a published adapter, beside a configuration that describes the whole model
HEADS = r"^heads\."  # a model without heads leaves them in the checkpoint, and need not report it


class EmotionPreTrainedModel(PreTrainedModel):
    """Weights initialization and strict loading."""

    main_input_name = "input_values"
    input_modalities = ("audio",)
    _keep_in_fp32_modules_strict = ("log_mel", "layer_mix")  # statistics in bfloat16 make another front end

    def __init__(self, config, *inputs, **kwargs):
        sizes = {name: getattr(config, name) for name in type(config).__dataclass_fields__}
        absurd = {name: size for name, size in sizes.items() if isinstance(size, int) and abs(size) > LARGEST}
        if absurd:
            raise ValueError(f"Expected sizes of at most {LARGEST} in the configuration, got {absurd}.")
        super().__init__(config, *inputs, **kwargs)

    def _init_weights(self, module: nn.Module) -> None:
        """Fill a module that was not loaded: transformers leaves GRUs and buffers as uninitialized memory."""
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
        """Load a checkpoint as transformers does, but never with weights that it does not have, and never a pickle.

        A folder with an adapter alone, as `save_pretrained` writes when peft has put one into the model, loads over
        the base that it names. A teacher that was published as an adapter fetches its pretrained encoders from where
        its configuration says, proves that they are the ones it was trained over, and has the adapter merged in.

        Args:
            pretrained_model_name_or_path: Hub id or folder.
            *model_args: passed on.
            new_heads: for fine-tuning only: let missing or misshapen `heads.*` start at random.
            encoders: of a teacher published as an adapter, for a stream's name the folder or Hub id of its encoder;
                where not given, `$AUDIO_EMOTION_DATA/encoders/<source>` or else the Hub.
            **kwargs: passed on.

        Raises:
            ValueError: naming the tensors that are missing or of another shape, or the encoder that is another one.
            OSError: where there are no weights in safetensors.
        """
        report = kwargs.pop("output_loading_info", False)
        kwargs["use_safetensors"] = True  # a pickle can run code: it is not opened even where there is nothing else
        kwargs["ignore_mismatched_sizes"] = True  # they are an error below, which names them
        base, adapter, at_hub = _base_and_adapter(pretrained_model_name_or_path, kwargs)
        source = base
        if adapter is None and base is not None:
            config = kwargs.get("config")
            if not isinstance(config, PreTrainedConfig):
                config = cls.config_class.from_pretrained(base, **at_hub)
            if digests := base_digests(config):
                kwargs["config"] = config
                kwargs["state_dict"] = _merged_weights(cls, config, digests, base, encoders or {}, at_hub)
                source = None
        # transformers would load both at once, and return the report of the adapter in place of the base's.
        try:
            model, info = super().from_pretrained(source, *model_args, output_loading_info=True, **kwargs)
        except Exception as error:
            if type(error).__name__ != "SafetensorError":  # its library is no dependency of a checkpoint's code
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
                f"in another shape: {sorted(absent)}. Its answers would be random. Load a complete checkpoint or, to "
                "fine-tune new heads on your own labels, pass `new_heads=True`."
            )
        if adapter is not None:
            _load_adapter(model, adapter, at_hub)
        # safetensors maps the file, its tensors lie unaligned in memory, and there some kernels round the last bit
        # differently: a loaded model would not equal, bit for bit, the one that was saved.
        for tensor in itertools.chain(model.parameters(), model.buffers()):
            if tensor.device.type == "cpu":
                tensor.data = tensor.data.clone()
        return (model, info) if report else model


def auto_map(config) -> dict[str, str]:
    """Which carried class each Auto class finds; `register_for_auto_class` alone would name one model of the two."""
    classes = {
        "AutoConfig": type(config),
        "AutoModel": AutoModel._model_mapping[type(config)],
        "AutoModelForAudioClassification": AutoModelForAudioClassification._model_mapping[type(config)],
    }
    return {auto: f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}" for auto, cls in classes.items()}


def base_digests(config: PreTrainedConfig) -> dict[str, str]:
    """Of a model published as an adapter, for each stream's name what `weights_digest` said of its encoder."""
    streams = config.to_dict().get("streams") or []
    return {stream["name"]: stream["base_sha256"] for stream in streams if "base_sha256" in stream}


def weights_digest(encoder: nn.Module) -> str:
    """SHA-256 of the weights that an encoder was given, before any adapter in it: which encoder it is, to the bit."""
    digest = hashlib.sha256()
    weights = {name.replace(".base_layer.", "."): tensor for name, tensor in encoder.state_dict().items()}
    for name, tensor in sorted(weights.items()):
        # The second is used in training alone, and starts at random where the encoder's own file lacks it.
        if "lora_" not in name and not name.endswith("masked_spec_embed"):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _merged_weights(
    cls, config: PreTrainedConfig, digests: dict[str, str], source, encoders: dict[str, str], at_hub: dict
) -> dict[str, torch.Tensor]:
    """Weights of a teacher that was published as an adapter: its encoders, with the adapter merged in, and the rest.

    Raises:
        ValueError: where an encoder is not the one that the adapter was trained over, or the adapter does not fit.
        OSError: where an encoder is not to be found.
        ImportError: where peft is absent.
    """
    if not is_peft_available():
        raise ImportError(f"{str(source)!r} is an adapter over pretrained encoders: `pip install peft` to load it.")
    for stream in config.streams:  # once merged, it is an adapter no longer
        stream.pop("base_sha256", None)
    model = cls(config)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(torch.nan)  # what neither an encoder nor the adapter fills is found below
    for stream in model.base_model.streams:
        if "encoder" in dict(stream.named_children()):  # log-mel has none
            encoder = _base_encoder(stream.stream, digests[stream.stream["name"]], encoders, at_hub)
            stream.encoder.load_state_dict(encoder.state_dict())
    if Path(source).is_dir():
        _load_adapter(model, Path(source) / ADAPTER, {})
    else:
        within = str(PurePosixPath(at_hub.get("subfolder", "")) / ADAPTER)
        _load_adapter(model, source, {**at_hub, "subfolder": within})
    for module in model.modules():
        if "base_layer" in dict(module.named_children()):  # peft's; a checkpoint's code cannot import peft itself
            module.merge()
    merged = {
        name.replace(".base_layer.", ".").replace(".modules_to_save.default.", "."): tensor
        for name, tensor in model.state_dict().items()
        if "lora_" not in name and ".original_module." not in name
    }
    if open_ := sorted(name for name, tensor in merged.items() if not tensor.isfinite().all()):
        raise ValueError(
            f"The adapter {str(source)!r} does not fit {cls.__name__}: neither it nor the encoders have {open_}. "
            "Publish it anew from its run."
        )
    return merged


def _base_encoder(stream: dict, expected: str, encoders: dict[str, str], at_hub: dict) -> nn.Module:
    """The pretrained encoder of a stream, proved to be the one that an adapter was trained over."""
    named = PurePosixPath(stream["source"])
    if named.is_absolute() or ".." in named.parts:
        raise ValueError(f"Expected the name of an encoder or its Hub id in the configuration, got {str(named)!r}.")
    source, revision = encoders.get(stream["name"]), None
    if source is None and (data := os.environ.get("AUDIO_EMOTION_DATA")):
        at_home = Path(data) / "encoders" / named
        source = str(at_home) if at_home.is_dir() else None
    if source is None:
        source, revision = stream["source"], stream["revision"]
    access = {name: at_hub[name] for name in ("cache_dir", "local_files_only", "token") if name in at_hub}
    try:
        model = AutoModel.from_pretrained(
            source, revision=revision, dtype=torch.float32, use_safetensors=True, **access
        )
    except OSError as error:
        raise OSError(
            f"This adapter needs the pretrained encoder {stream['source']!r}, got none from {source!r}: {error} Say "
            f'where it is: `encoders={{"{stream["name"]}": "a folder or a Hub id"}}`.'
        ) from error
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    if (found := weights_digest(encoder)) != expected:
        raise ValueError(
            f"Expected the encoder that the adapter was trained over, {stream['source']!r} with weights of SHA-256 "
            f"{expected[:12]}..., got {source!r} with {found[:12]}... The answers would mean nothing: give the folder "
            "of that encoder or its Hub id, as the card names it."
        )
    return encoder


def _base_and_adapter(source, kwargs: dict) -> tuple:
    """What to load, the adapter to load over it or None, and where on the Hub the adapter lies.

    The Auto classes have looked for an adapter already: they hand over its base, and name it in `adapter_kwargs`.
    """
    at_hub = {name: value for name, value in kwargs.items() if name in FROM_HUB}
    if "adapter_kwargs" in kwargs:
        handed_over = dict(kwargs.pop("adapter_kwargs") or {})
        adapter = handed_over.pop("_adapter_model_path", None)
        return source, adapter, {**at_hub, **handed_over}
    if source is None or not is_peft_available():
        return source, None, at_hub
    described = find_adapter_config_file(source, **at_hub)
    if described is None:
        return source, None, at_hub
    if (Path(source) / CONFIG_NAME).exists():  # a complete model with an adapter beside it
        return source, source, at_hub
    return json.loads(Path(described).read_text(encoding="utf-8"))["base_model_name_or_path"], source, at_hub


def _load_adapter(model: PreTrainedModel, adapter, at_hub: dict) -> None:
    """Put an adapter into a model whose own weights are loaded.

    Raises:
        ValueError: where it does not fit the model, naming the tensors.
        OSError: where it has no weights in safetensors.
    """
    cached_file(adapter, "adapter_model.safetensors", **at_hub)  # else peft would open `adapter_model.bin`, a pickle
    info = model.load_adapter(str(adapter), adapter_kwargs=at_hub, ignore_mismatched_sizes=True)
    known = "|".join(model._keys_to_ignore_on_load_unexpected or ["(?!)"])  # such as heads, where a model has none
    left_over = {name for name in info.unexpected_keys if not re.match(known, name)}
    if wrong := {*info.missing_keys, *left_over, *(name for name, *_ in info.mismatched_keys)}:
        raise ValueError(
            f"The adapter {str(adapter)!r} does not fit {type(model).__name__}: it lacks these weights, has them in "
            f"another shape, or has no place for them: {sorted(wrong)}. Load it over the model it was trained with."
        )


def _is_loaded(parameter) -> bool:
    """Whether transformers has marked the parameter as read from a checkpoint."""
    return getattr(parameter, "_is_hf_initialized", False)
