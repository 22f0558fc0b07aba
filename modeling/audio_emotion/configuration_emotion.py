"""What the configurations of teacher and student share: labels, trunk, read-out, provenance."""

# SPDX-License-Identifier: Apache-2.0

import difflib

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

DIMENSIONS = ("activation", "valence", "dominance")
POOLINGS = ("last", "statistics", "attentive")
TRUNKS = ("tc-gru", "convolutional")


@strict
class EmotionConfig(PreTrainedConfig):
    r"""Fields that every model of this package has.

    Args:
        emotions (`list[str]`, *optional*, defaults to `[]`):
            Category names in logit order; empty for a model of dimensions alone. They become `id2label`.
        dimensions (`list[str]`, *optional*):
            Names of the regressed dimensions, in output order; each lies in 0..1
            (0 calm / negative / weak, 1 excited / positive / strong).
        dimension_weights (`list[float]`, *optional*):
            Weight of each dimension in the CCC loss; a third each is the paper's (Mitra et al. 2022, loss).
        predict_variance (`bool`, *optional*, defaults to `False`):
            Whether a further head gives the logarithm of each dimension's variance.
        trunk (`str`, *optional*, defaults to `"tc-gru"`):
            `"tc-gru"` (Figure 1 of the paper) or `"convolutional"`: depthwise-separable dilated convolutions, causal.
        convolution_size (`int`, *optional*, defaults to 128):
            Channels of the TC-GRU's convolution beside the identity (Figure 1(B)); 0 leaves it out: Figure 1(A).
        convolution_kernel (`int`, *optional*, defaults to 3):
            Width of a convolution in frames, in both trunks.
        look_ahead (`int`, *optional*, defaults to 0):
            Frames after `t` that the TC-GRU's convolution sees at `t`; 0 is causal. What a model says at frame `t` has
            heard so many frames more.
        hidden_size (`int`, *optional*, defaults to 128):
            Width of both GRU layers, or of every block of the convolutional trunk.
        num_gru_layers (`int`, *optional*, defaults to 2):
            GRU layers; two in the paper.
        num_convolution_blocks (`int`, *optional*, defaults to 4):
            Blocks of the convolutional trunk; their dilations are 1, 2, 4, 8 and again from 1.
        bidirectional (`bool`, *optional*, defaults to `False`):
            Whether the GRU also runs backwards: an ablation, it cannot stream.
        pooling (`str`, *optional*, defaults to `"last"`):
            Frames to clip: `"last"` true frame (the paper's), `"statistics"` (cumulative mean and deviation) or
            `"attentive"` (the same, weighted by a learned score).
        embedding_size (`int`, *optional*, defaults to 128):
            Width `D` of the embedding layer.
        dropout (`float`, *optional*, defaults to 0.1):
            Dropout on features, between GRU layers and before the heads.
        sampling_rate (`int`, *optional*, defaults to 16000):
            Samples per second of the waveform, in hertz.
        license (`str`, *optional*):
            Terms of the weights, as an SPDX expression.
        training_data (`list[dict]`, *optional*):
            What the weights have seen: one `{"corpus", "speakers", ...}` per corpus, its teachers' data included.
        dimensions_source (`str`, *optional*):
            Where the targets came from: `"rated"`, `"norm-derived"` or `"synthetic"`.
    """

    emotions: list[str] | tuple[str, ...] = ()
    dimensions: list[str] | tuple[str, ...] = DIMENSIONS
    dimension_weights: list[float | int] | tuple[float | int, ...] | None = None
    predict_variance: bool = False
    trunk: str = "tc-gru"
    convolution_size: int = 128
    convolution_kernel: int = 3
    look_ahead: int = 0
    hidden_size: int = 128
    num_gru_layers: int = 2
    num_convolution_blocks: int = 4
    bidirectional: bool = False
    pooling: str = "last"
    embedding_size: int = 128
    dropout: float | int = 0.1
    sampling_rate: int = 16000
    license: str | None = None
    training_data: list[dict] | tuple[dict, ...] = ()
    dimensions_source: str | None = None

    def __setattr__(self, name, value):
        """Keep `emotions`, `id2label` and `label2id` one thing, whichever is assigned.

        `from_pretrained(..., id2label=...)` and `num_labels` assign after the constructor. Empty values are not passed
        on: the constructor assigns the default of every field that it was not given.
        """
        super().__setattr__(name, value)
        if name == "id2label" and value:
            emotions = [value[index] for index in sorted(value, key=int)]
            super().__setattr__("emotions", emotions)
        elif name == "emotions" and value:
            emotions = list(value)
            super().__setattr__("id2label", dict(enumerate(emotions)))
        else:
            return
        super().__setattr__("label2id", {emotion: index for index, emotion in enumerate(emotions)})

    def __post_init__(self, **kwargs):
        if "read_out" in kwargs:  # what checkpoints of version 0.1 call `pooling`
            self.pooling = kwargs.pop("read_out")
        # PreTrainedConfig keeps any keyword as an attribute, so a misspelled field would be swallowed.
        fields = [name for name in type(self).__dataclass_fields__ if not name.startswith("_")]
        for keyword in set(kwargs) - set(dir(type(self))):
            if close := difflib.get_close_matches(keyword, fields, n=1, cutoff=0.8):
                raise TypeError(f"{type(self).__name__} has no field `{keyword}`. Did you mean `{close[0]}`?")
        if self.id2label is None:
            self.id2label = self.label2id = {}  # no emotions; transformers would make up two
        if self.dimension_weights is None:
            self.dimension_weights = [1 / len(self.dimensions) for _ in self.dimensions]
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Check what must agree; called by the constructor.

        Raises:
            ValueError: naming the field, what it may be and what it is.
        """
        if self.pooling not in POOLINGS:
            raise ValueError(f"`pooling` must be one of {POOLINGS}, got {self.pooling!r}.")
        if self.trunk not in TRUNKS:
            raise ValueError(f"`trunk` must be one of {TRUNKS}, got {self.trunk!r}.")
        if self.trunk == "convolutional" and (self.bidirectional or self.look_ahead):
            raise ValueError(
                "The convolutional trunk is causal: `bidirectional` must be False and `look_ahead` 0, got "
                f'{self.bidirectional} and {self.look_ahead}. Both belong to `trunk="tc-gru"`.'
            )
        if len(self.dimension_weights) != len(self.dimensions):
            raise ValueError(
                f"`dimension_weights` needs one weight for each of {list(self.dimensions)}, "
                f"got {len(self.dimension_weights)}."
            )
        if not 0 <= self.look_ahead < self.convolution_kernel:
            raise ValueError(
                f"`look_ahead` must lie in 0..{self.convolution_kernel - 1} (`convolution_kernel` - 1), "
                f"got {self.look_ahead}."
            )
        if len(set(self.emotions)) != len(self.emotions):
            raise ValueError(f"`emotions` must be different names, got {list(self.emotions)}.")
