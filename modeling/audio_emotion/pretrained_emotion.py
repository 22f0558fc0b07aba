"""Base classes of the models: forward, initialization and strict loading."""

# SPDX-License-Identifier: Apache-2.0

import itertools
import math
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForAudioClassification, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

from .checkpoint_loading import base_and_adapter, base_digests, load_adapter, loading_options, merged_weights
from .layers import EmbeddingDistance, EmotionHeads, EmotionOutput, VarianceHead
from .log_mel import LogMel
from .losses import supervised_terms

LOG_VARIANCE = math.log(0.15**2)  # of a new head: about the errors of dimensions in 0..1
LARGEST_SIZE = 50_000  # of an integer in a configuration, so that a broken file does not fill the memory
HEADS = r"^heads\."  # ignored without a report by a model without heads


class EmotionPreTrainedModel(PreTrainedModel):
    """Weight initialization and strict loading."""

    main_input_name = "input_values"
    input_modalities = ("audio",)
    # Their statistics would be rounded in bfloat16.
    _keep_in_fp32_modules_strict = ("log_mel", "layer_mix", "training_distance")

    def __init__(self, config, *inputs, **kwargs):
        sizes = {name: getattr(config, name) for name in type(config).__dataclass_fields__}
        too_large = {name: size for name, size in sizes.items() if isinstance(size, int) and abs(size) > LARGEST_SIZE}
        if too_large:
            raise ValueError(f"Expected sizes of at most {LARGEST_SIZE} in the configuration, got {too_large}.")
        super().__init__(config, *inputs, **kwargs)

    def _init_weights(self, module: nn.Module) -> None:
        """Initialize a module that was not loaded: transformers leaves GRUs and buffers as uninitialized memory."""
        if isinstance(module, (LogMel, EmbeddingDistance)):
            module.reset()
        elif isinstance(module, (nn.Linear, nn.Conv1d)):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.constant_(module.bias, LOG_VARIANCE if isinstance(module, VarianceHead) else 0.0)
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
        base model that it names. What a folder refers to on the Hub is fetched only with an explicit
        `local_files_only=False`. For a teacher that was published as an adapter, the pretrained encoders are
        loaded from the sources in its configuration, compared with their digests, and merged with the adapter.

        Args:
            pretrained_model_name_or_path: Hub id or folder.
            *model_args: passed on.
            new_heads: for fine-tuning: initialize `heads.*` at random where missing, of another shape, or of other
                emotions or dimensions than in the checkpoint's configuration.
            encoders: for a teacher published as an adapter, folders or Hub ids of its encoders by the name of their
                stream; by default `$AUDIO_EMOTION_DATA/encoders/<source>` or else the Hub.
            **kwargs: passed on.

        Raises:
            ValueError: naming the tensors that are missing, of another shape, NaN or infinite, or the encoder that
                differs.
            OSError: where there are no weights in safetensors.
        """
        loading_options(pretrained_model_name_or_path)  # checks the index of a folder
        report = kwargs.pop("output_loading_info", False)
        kwargs["use_safetensors"] = True  # a pickle can run code
        kwargs["ignore_mismatched_sizes"] = True  # reported below
        base, adapter, hub_kwargs = base_and_adapter(pretrained_model_name_or_path, kwargs)
        source = base
        if adapter is None and base is not None:
            config = kwargs.get("config")
            if not isinstance(config, PreTrainedConfig):
                config = cls.config_class.from_pretrained(base, **hub_kwargs)
            if digests := base_digests(config):
                kwargs["config"] = config
                kwargs["state_dict"] = merged_weights(cls, config, digests, base, encoders or {}, hub_kwargs)
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
            load_adapter(model, adapter, hub_kwargs)
        if new_heads and base is not None and isinstance(model, EmotionForAudioClassification):
            model.initialize_heads(cls.config_class.from_pretrained(base, **hub_kwargs))
        # The tensors of safetensors are memory-mapped and unaligned, for which some kernels round differently. With
        # copies, a loaded model is bit-identical to the saved one.
        for tensor in itertools.chain(model.parameters(), model.buffers()):
            if tensor.device.type == "cpu":
                tensor.data = tensor.data.clone()
        weights = {name: tensor for name, tensor in model.state_dict().items() if tensor.device.type != "meta"}
        if not_finite := sorted(name for name, tensor in weights.items() if not tensor.isfinite().all()):
            raise ValueError(
                f"Expected finite weights in {str(base)!r}, got NaN or infinite ones: {not_finite}. The outputs would "
                "be meaningless. Load another checkpoint of the run, or train it again."
            )
        return (model, info) if report else model


class EmotionBaseModel(EmotionPreTrainedModel):
    """A model without heads: waveform to embedding.

    A subclass defines `encode`, from samples and mask to features and their true steps `(B,)`, which training can
    cache or augment; and `embed`, from these to the embedding `(B, D)`, on request those of all frames `(B, T, D)`,
    and the frame mask `(B, T)`.
    """

    _keys_to_ignore_on_load_unexpected = (HEADS,)

    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> EmotionOutput:
        """Embed a batch of clips.

        Args:
            input_values (`torch.Tensor` of shape `(B, S)`): 16 kHz mono samples in ±1.
            attention_mask (`torch.Tensor` of shape `(B, S)`, *optional*): 1 for true samples, 0 for the padding after.
            return_dict (`bool`, *optional*): `False` gives a tuple.
        """
        embedding, _, mask = self.embed(*self.encode(input_values, attention_mask))
        output = EmotionOutput(embedding=embedding, frame_mask=mask)
        return output if return_dict is not False else output.to_tuple()


class EmotionForAudioClassification(EmotionPreTrainedModel):
    """A model with its heads: dimensions, categories and, while distilling, one head per teacher.

    Args:
        config: an `EmotionConfig`.
    """

    base_class: type[EmotionBaseModel]

    def __init__(self, config):
        super().__init__(config)
        setattr(self, self.base_model_prefix, self.base_class(config))
        self.heads = EmotionHeads(config, getattr(config, "teacher_emotions", None))
        self.post_init()
        self._keys_to_ignore_on_load_unexpected.discard(HEADS)  # inherited from the base model, which has none

    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        dimension_labels: torch.Tensor | None = None,
        output_frames: bool = False,
        return_dict: bool | None = None,
        features: Any = None,
        lengths: torch.Tensor | None = None,
    ) -> EmotionOutput:
        """Predict dimensions and emotions of a batch of clips.

        Args:
            input_values (`torch.Tensor` of shape `(B, S)`): 16 kHz mono samples in ±1.
            attention_mask (`torch.Tensor` of shape `(B, S)`, *optional*): 1 for true samples, 0 for the padding after.
            labels (`torch.Tensor` of shape `(B,)` or `(B, C)`, *optional*): class numbers (-100 where missing) or
                distributions.
            dimension_labels (`torch.Tensor` of shape `(B, 3)`, *optional*): in 0..1, NaN where missing.
            output_frames (`bool`, *optional*): whether to predict at each frame, too: a student as for the clip cut
                there, a teacher from the whole clip.
            return_dict (`bool`, *optional*): `False` gives a tuple.
            features (*optional*): output of the base model's `encode` in place of samples.
            lengths (`torch.Tensor` of shape `(B,)`, *optional*): true steps of `features`.
        """
        if features is None or lengths is None:
            if input_values is None:
                raise ValueError("Expected `input_values`, or `features` with `lengths`, got neither.")
            features, lengths = self.base_model.encode(input_values, attention_mask)
        embedding, frames, mask = self.base_model.embed(features, lengths, output_frames)
        output = EmotionOutput(embedding=embedding, frame_mask=mask, **self.heads(embedding))
        if frames is not None:
            at_frames = self.heads(frames)
            output.frame_dimensions, output.frame_logits = at_frames["dimensions"], at_frames["logits"]
        terms = supervised_terms(output, labels, dimension_labels, self.config.dimension_weights)
        if terms:
            output.loss = torch.stack(list(terms.values())).sum()
        return output if return_dict is not False else output.to_tuple()

    def initialize_heads(self, known: PreTrainedConfig) -> None:
        """Initialize the heads at random whose labels differ from those of `known`, with which they were trained."""
        heads = EmotionHeads(self.config).apply(self._init_weights).to(self.device).train(self.training)
        if self.config.emotions == known.emotions:
            heads.emotions = self.heads.emotions
        if self.config.dimensions == known.dimensions:
            heads.dimensions, heads.log_variance = self.heads.dimensions, self.heads.log_variance
        heads.training_distance = self.heads.training_distance
        heads.teachers = self.heads.teachers
        self.heads = heads


def check_batch(input_values: torch.Tensor, attention_mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples `(B, S)`, 0 beyond each clip, and their mask `(B, S)`, all true by default.

    Raises:
        ValueError: for a waveform without a batch axis, or with channels.
    """
    if input_values.ndim != 2:
        raise ValueError(f"Expected `input_values` of shape (batch, samples), got {tuple(input_values.shape)}.")
    if attention_mask is None:
        attention_mask = torch.ones_like(input_values, dtype=torch.long)
    return input_values * attention_mask, attention_mask


def auto_map(config) -> dict[str, str]:
    """The `auto_map` of a configuration; `register_for_auto_class` alone would name only one of the two models."""
    classes = {
        "AutoConfig": type(config),
        "AutoModel": AutoModel._model_mapping[type(config)],
        "AutoModelForAudioClassification": AutoModelForAudioClassification._model_mapping[type(config)],
    }
    return {auto: f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}" for auto, cls in classes.items()}


def _is_loaded(parameter) -> bool:
    """Whether transformers has marked the parameter as read from a checkpoint."""
    return getattr(parameter, "_is_hf_initialized", False)
