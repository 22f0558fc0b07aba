"""The base of both models: initialisation, and loading that refuses a checkpoint without its heads."""

# SPDX-License-Identifier: Apache-2.0

import itertools
import json
import re
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import CONFIG_NAME, cached_file, find_adapter_config_file, is_peft_available

from .log_mel import LogMel

FROM_HUB = {"cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token"}
LARGEST = 50_000  # of a size in a configuration; a broken file must not fill the memory
HEADS = r"^heads\."  # a model without heads leaves them in the checkpoint, and need not report it


class EmotionPreTrainedModel(PreTrainedModel):
    """Weights initialisation and strict loading."""

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
        """Fill a module that was not loaded: transformers leaves GRUs and buffers as uninitialised memory."""
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
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, new_heads: bool = False, **kwargs):
        """Load a checkpoint as transformers does, but never with weights that it does not have, and never a pickle.

        A folder with an adapter alone, as `save_pretrained` writes when peft has put one into the model, loads over
        the base that it names.

        Args:
            pretrained_model_name_or_path: Hub id or folder.
            *model_args: passed on.
            new_heads: for fine-tuning only: let missing or misshapen `heads.*` start at random.
            **kwargs: passed on.

        Raises:
            ValueError: naming the tensors that are missing or of another shape.
            OSError: where there are no weights in safetensors.
        """
        report = kwargs.pop("output_loading_info", False)
        kwargs["use_safetensors"] = True  # a pickle can run code: it is not opened even where there is nothing else
        kwargs["ignore_mismatched_sizes"] = True  # they are an error below, which names them
        base, adapter, at_hub = _base_and_adapter(pretrained_model_name_or_path, kwargs)
        # transformers would load both at once, and return the report of the adapter in place of the base's.
        try:
            model, info = super().from_pretrained(base, *model_args, output_loading_info=True, **kwargs)
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
