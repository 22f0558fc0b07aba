"""Configuration of the teacher."""

# SPDX-License-Identifier: Apache-2.0

from huggingface_hub.dataclasses import strict

from .configuration_emotion import EmotionConfig

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
