"""The base of both models: initialisation, and loading that refuses a checkpoint without its heads."""

# SPDX-License-Identifier: Apache-2.0

import itertools

from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init

from .log_mel import LogMel

HEADS = r"^heads\."  # a model without heads leaves them in the checkpoint, and need not report it


class EmotionPreTrainedModel(PreTrainedModel):
    """Weights initialisation and strict loading."""

    main_input_name = "input_values"
    input_modalities = ("audio",)
    _keep_in_fp32_modules_strict = ("log_mel", "layer_mix")  # statistics in bfloat16 make another front end

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
        """Load a checkpoint as transformers does, but never with weights that it does not have.

        Args:
            pretrained_model_name_or_path: Hub id or folder.
            *model_args: passed on.
            new_heads: for fine-tuning only: let missing or misshapen `heads.*` start at random.
            **kwargs: passed on.

        Raises:
            ValueError: naming the tensors that are missing or of another shape.
        """
        report = kwargs.pop("output_loading_info", False)
        kwargs["ignore_mismatched_sizes"] = True  # they are an error below, which names them
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
        )
        absent = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
        if new_heads:
            absent = {name for name in absent if not name.startswith("heads.")}
        if absent:
            raise ValueError(
                f"The checkpoint {str(pretrained_model_name_or_path)!r} lacks weights of {cls.__name__}, or has them "
                f"in another shape: {sorted(absent)}. Its answers would be random. Load a complete checkpoint or, to "
                "fine-tune new heads on your own labels, pass `new_heads=True`."
            )
        # safetensors maps the file, its tensors lie unaligned in memory, and there some kernels round the last bit
        # differently: a loaded model would not equal, bit for bit, the one that was saved.
        for tensor in itertools.chain(model.parameters(), model.buffers()):
            if tensor.device.type == "cpu":
                tensor.data = tensor.data.clone()
        return (model, info) if report else model


def _is_loaded(parameter) -> bool:
    """Whether transformers has marked the parameter as read from a checkpoint."""
    return getattr(parameter, "_is_hf_initialized", False)
