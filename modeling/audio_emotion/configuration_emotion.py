"""Configurations of the models: what teacher and student share, and the fields of each."""

# SPDX-License-Identifier: Apache-2.0

import difflib

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .layers import get_trunk

DIMENSIONS = ("activation", "valence", "dominance")
POOLINGS = ("last", "statistics", "attentive")


@strict
class EmotionConfig(PreTrainedConfig):
    r"""Base class of the configurations.

    Args:
        emotions (`list[str]`, *optional*, defaults to `[]`):
            Category names in logit order; empty for a model of dimensions only. They become `id2label`.
        dimensions (`list[str]`, *optional*):
            Names of the dimensions, in output order; each is in 0..1
            (0 calm / negative / weak, 1 excited / positive / strong).
        dimension_weights (`list[float]`, *optional*):
            Weight of each dimension in the CCC loss; equal by default, as in Mitra et al. (2022).
        measure_distance (`bool`, *optional*, defaults to `False`):
            Whether the model outputs the distance of a clip from the training clips.
        predict_variance (`bool`, *optional*, defaults to `False`):
            Whether an additional head predicts the logarithm of each dimension's variance.
        trunk (`str`, *optional*, defaults to `"tc-gru"`):
            A key of `audio_emotion.layers.TRUNKS`: `"tc-gru"` (Mitra et al. 2022, Figure 1), `"convolutional"`
            (causal, dilated, depthwise-separable convolutions) or `"linear"` (one layer per frame, for encoders).
        convolution_size (`int`, *optional*, defaults to 128):
            Channels of the TC-GRU's convolution, in parallel to the identity (Figure 1(B)); 0 for none (Figure 1(A)).
        convolution_kernel (`int`, *optional*, defaults to 3):
            Width of a convolution in frames, in both trunks.
        look_ahead (`int`, *optional*, defaults to 0):
            Frames after `t` on which the output of the TC-GRU's convolution at `t` depends; 0 is causal.
        hidden_size (`int`, *optional*, defaults to 128):
            Width of both GRU layers, of every block of the convolutional trunk, or of the linear layer.
        num_gru_layers (`int`, *optional*, defaults to 2):
            GRU layers; two in the paper.
        num_convolution_blocks (`int`, *optional*, defaults to 4):
            Blocks of the convolutional trunk; their dilations cycle through 1, 2, 4 and 8.
        bidirectional (`bool`, *optional*, defaults to `False`):
            Whether the GRU is bidirectional, which prevents streaming; for ablations.
        pooling (`str`, *optional*, defaults to `"last"`):
            Pooling over time: `"last"` true frame (the paper's), `"statistics"` (cumulative mean and standard
            deviation) or `"attentive"` (the same, weighted by a learned score).
        pooling_heads (`int`, *optional*, defaults to 1):
            Learned scores of attentive pooling, each with a mean and standard deviation of its own.
        embedding_size (`int`, *optional*, defaults to 128):
            Width `D` of the embedding layer.
        dropout (`float`, *optional*, defaults to 0.1):
            Dropout on features, between GRU layers and before the heads.
        sampling_rate (`int`, *optional*, defaults to 16000):
            Sampling rate of the waveform, in hertz.
        license (`str`, *optional*):
            License of the weights, as an SPDX expression.
        training_data (`list[dict]`, *optional*):
            Training data, that of the teachers included: one `{"corpus", "speakers", ...}` per corpus.
        dimensions_source (`str`, *optional*):
            Source of the targets of the dimensions: `"rated"`, `"norm-derived"` or `"synthetic"`.
    """

    emotions: list[str] | tuple[str, ...] = ()
    dimensions: list[str] | tuple[str, ...] = DIMENSIONS
    dimension_weights: list[float | int] | tuple[float | int, ...] | None = None
    predict_variance: bool = False
    measure_distance: bool = False
    trunk: str = "tc-gru"
    convolution_size: int = 128
    convolution_kernel: int = 3
    look_ahead: int = 0
    hidden_size: int = 128
    num_gru_layers: int = 2
    num_convolution_blocks: int = 4
    bidirectional: bool = False
    pooling: str = "last"
    pooling_heads: int = 1
    embedding_size: int = 128
    dropout: float | int = 0.1
    sampling_rate: int = 16000
    license: str | None = None
    training_data: list[dict] | tuple[dict, ...] = ()
    dimensions_source: str | None = None

    def __setattr__(self, name, value):
        """Keep `emotions`, `id2label` and `label2id` consistent, whichever is assigned.

        `from_pretrained(..., id2label=...)` and `num_labels` assign after the constructor. Empty values are skipped:
        the constructor assigns the default of every field that it was not given.
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
        if "read_out" in kwargs:  # the name of `pooling` in the first checkpoints
            self.pooling = kwargs.pop("read_out")
        # PreTrainedConfig keeps any keyword as an attribute, so a misspelled field would be ignored.
        fields = [name for name in type(self).__dataclass_fields__ if not name.startswith("_")]
        for keyword in set(kwargs) - set(dir(type(self))):
            if close := difflib.get_close_matches(keyword, fields, n=1, cutoff=0.8):
                raise TypeError(f"{type(self).__name__} has no field `{keyword}`. Did you mean `{close[0]}`?")
        if self.id2label is None:
            self.id2label = self.label2id = {}  # no emotions; the default of transformers is two
        if self.dimension_weights is None:
            self.dimension_weights = [1 / len(self.dimensions) for _ in self.dimensions]
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Check that the fields are consistent; called by the constructor.

        Raises:
            ValueError: naming the field, the allowed values and the given one.
        """
        if self.pooling not in POOLINGS:
            raise ValueError(f"`pooling` must be one of {POOLINGS}, got {self.pooling!r}.")
        if get_trunk(self.trunk).is_causal and (self.bidirectional or self.look_ahead):
            raise ValueError(
                f"The {self.trunk} trunk is causal: `bidirectional` must be False and `look_ahead` 0, got "
                f'{self.bidirectional} and {self.look_ahead}. Use `trunk="tc-gru"` for these.'
            )
        if len(self.dimension_weights) != len(self.dimensions):
            raise ValueError(
                f"`dimension_weights` needs one weight for each of {list(self.dimensions)}, "
                f"got {len(self.dimension_weights)}."
            )
        if not 0 <= self.look_ahead < self.convolution_kernel:
            raise ValueError(
                f"`look_ahead` must be in 0..{self.convolution_kernel - 1} (`convolution_kernel` - 1), "
                f"got {self.look_ahead}."
            )
        if len(set(self.emotions)) != len(self.emotions):
            raise ValueError(f"`emotions` must be distinct names, got {list(self.emotions)}.")


FUSIONS = ("concatenate", "gate")
LAYER_FUSIONS = ("mix", "concatenate")


@strict
class FusedEmotionConfig(EmotionConfig):
    r"""Configuration of a [`FusedEmotionForAudioClassification`]: several streams fused into one trunk.

    Args:
        streams (`list[dict]`):
            One dict per stream, in fusion order. The log-mel filterbank is
            `{"name": "log-mel", "kind": "log-mel", "num_mel_bins": 40, "level": "absolute"}` (or `"relative"`, see
            [`StudentEmotionConfig`]). A pretrained encoder is
            `{"name", "kind": "encoder", "config", "preprocessing", "frame_rate", "one_at_a_time", "layers", "source",
            "revision"}`, as [`FusedEmotionModel.from_encoders`] writes it: the encoder's configuration with its
            `model_type`, its `preprocessor_config.json`, frames per second, whether padding changes its outputs (then
            clips run one at a time), and which hidden states are used (`None`: all); the encoder ends with the last.
        frames_per_step (`int`, *optional*, defaults to 1):
            Frames of the streams' 50 Hz grid that are averaged into one step of the trunk. Not in the paper.
        projection_size (`int`, *optional*, defaults to 128):
            Width `P` to which every stream is projected before fusion; 0 for a single stream that is not projected.
        layer_fusion (`str`, *optional*, defaults to `"mix"`):
            Combination of an encoder's layers: `"mix"` with one softmax weight per layer, or `"concatenate"`.
        fusion (`str`, *optional*, defaults to `"concatenate"`):
            Combination of the streams: `"concatenate"` per frame (as in the paper) or a softmax `"gate"` per frame.
        stream_dropout (`float`, *optional*, defaults to 0.0):
            Probability of dropping a stream of a clip in training; if above 0, streams can be dropped at inference.
    """

    model_type = "fused-emotion"

    convolution_size: int = 128
    look_ahead: int = 1
    streams: list[dict] | tuple[dict, ...] = ()
    frames_per_step: int = 1
    projection_size: int = 128
    layer_fusion: str = "mix"
    fusion: str = "concatenate"
    stream_dropout: float | int = 0.0

    def validate_architecture(self):
        """Check that the fields are consistent; called by the constructor.

        Raises:
            ValueError: naming the field, the allowed values and the given one.
        """
        super().validate_architecture()
        if self.fusion not in FUSIONS:
            raise ValueError(f"`fusion` must be one of {FUSIONS}, got {self.fusion!r}.")
        if self.layer_fusion not in LAYER_FUSIONS:
            raise ValueError(f"`layer_fusion` must be one of {LAYER_FUSIONS}, got {self.layer_fusion!r}.")
        if self.frames_per_step < 1:
            raise ValueError(f"`frames_per_step` must be 1 or more, got {self.frames_per_step}.")
        if not self.projection_size and (len(self.streams) != 1 or self.fusion == "gate"):
            raise ValueError(
                f"`projection_size` 0 needs a single stream without a gate, got {len(self.streams)} streams and "
                f"`fusion` {self.fusion!r}. Project several streams to one width."
            )
        names = [stream["name"] for stream in self.streams]
        if len(set(names)) != len(names):
            raise ValueError(f"Streams need distinct names, got {names}.")
        for stream in self.streams:
            if stream["kind"] not in ("encoder", "log-mel"):
                raise ValueError(f"A stream's `kind` is 'encoder' or 'log-mel', got {stream['kind']!r}.")


LEVELS = ("absolute", "relative")


@strict
class StudentEmotionConfig(EmotionConfig):
    r"""Configuration of a [`StudentEmotionForAudioClassification`]: log-mel frames into a small causal trunk.

    The defaults allow streaming: fixed normalization, a causal convolution, a forward GRU and cumulative pooling.

    Args:
        num_mel_bins (`int`, *optional*, defaults to 40):
            Mel filters of the front end (40 as in the paper's baseline).
        level (`str`, *optional*, defaults to `"absolute"`):
            Level of the log-mel frames: `"absolute"`, or `"relative"` to the clip so far. The absolute level is
            informative about activation where all clips were recorded alike, and misleading elsewhere.
        frames_per_step (`int`, *optional*, defaults to 4):
            Log-mel frames (10 ms each) stacked into one step of the trunk: 2, 4 or 8 give 50, 25 or 12.5 Hz.
        teacher_emotions (`dict[str, list[str]]`, *optional*):
            While distilling, class names of each teacher that has a separate head.
    """

    model_type = "student-emotion"

    pooling: str = "attentive"
    num_mel_bins: int = 40
    level: str = "absolute"
    frames_per_step: int = 4
    teacher_emotions: dict[str, list[str]] | None = None

    def validate_architecture(self):
        """Check that the fields are consistent; called by the constructor.

        Raises:
            ValueError: naming the field, the allowed values and the given one.
        """
        super().validate_architecture()
        if self.level not in LEVELS:
            raise ValueError(f"`level` must be one of {LEVELS}, got {self.level!r}.")

    @classmethod
    def of_size(cls, size: str, **fields) -> "StudentEmotionConfig":
        """Build the configuration of a named size.

        Args:
            size: `"nano"`, `"small"` or `"base"`; a key of the trunk's `sizes` in `audio_emotion.layers.TRUNKS`.
            **fields: any fields; they override those of the size.

        Raises:
            ValueError: on an unknown size or trunk.
        """
        sizes = get_trunk(fields.get("trunk", cls.trunk)).sizes
        if size not in sizes:
            raise ValueError(f"`size` must be one of {list(sizes)}, got {size!r}.")
        return cls(**{**sizes[size], **fields})
