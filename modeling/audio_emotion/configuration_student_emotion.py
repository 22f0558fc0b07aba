"""Configuration of the distilled students."""

# SPDX-License-Identifier: Apache-2.0

from huggingface_hub.dataclasses import strict

from .configuration_emotion import EmotionConfig

LEVELS = ("absolute", "relative")
# Named sizes; `small` is the published default. Parameter limits: nano 75 k, small 0.5 M, base 2 M.
STUDENT_SIZES = {
    "nano": {"convolution_size": 32, "hidden_size": 48, "embedding_size": 48},
    "small": {"convolution_size": 128, "hidden_size": 128, "embedding_size": 128},
    "base": {"convolution_size": 256, "hidden_size": 288, "embedding_size": 256},
}
# The same limits for `trunk="convolutional"`.
CONVOLUTIONAL_SIZES = {
    "nano": {"convolution_kernel": 5, "hidden_size": 48, "num_convolution_blocks": 4, "embedding_size": 48},
    "small": {"convolution_kernel": 5, "hidden_size": 128, "num_convolution_blocks": 6, "embedding_size": 128},
    "base": {"convolution_kernel": 5, "hidden_size": 256, "num_convolution_blocks": 6, "embedding_size": 256},
}


@strict
class StudentEmotionConfig(EmotionConfig):
    r"""Configuration of a [`StudentEmotionForAudioClassification`]: log-mel frames into a small causal trunk.

    Every default streams: fixed normalization, a causal convolution, a forward GRU and a cumulative read-out.
    `trunk="convolutional"` streams always.

    Args:
        num_mel_bins (`int`, *optional*, defaults to 40):
            Mel filters of the front end (40 as in the paper's baseline).
        level (`str`, *optional*, defaults to `"absolute"`):
            What the front end hears of loudness: `"absolute"`, or `"relative"` to the clip so far. Absolute level
            tells activation where all clips were recorded alike, and misleads where they were not.
        frames_per_step (`int`, *optional*, defaults to 4):
            Log-mel frames (10 ms each) stacked into one step of the trunk: 2, 4 or 8 give 50, 25 or 12.5 Hz.
        teacher_emotions (`dict[str, list[str]]`, *optional*):
            While distilling, one further head for each named teacher in that teacher's own label space.
    """

    model_type = "student-emotion"

    pooling: str = "attentive"
    num_mel_bins: int = 40
    level: str = "absolute"
    frames_per_step: int = 4
    teacher_emotions: dict[str, list[str]] | None = None

    def validate_architecture(self):
        """Check what must agree; called by the constructor.

        Raises:
            ValueError: naming the field, what it may be and what it is.
        """
        super().validate_architecture()
        if self.level not in LEVELS:
            raise ValueError(f"`level` must be one of {LEVELS}, got {self.level!r}.")

    @classmethod
    def of_size(cls, size: str, **fields) -> "StudentEmotionConfig":
        """Build the configuration of a named size.

        Args:
            size: `"nano"`, `"small"` or `"base"`.
            **fields: any field, which replaces the size's own; with `trunk="convolutional"`, a size of that trunk.

        Raises:
            ValueError: on an unknown size.
        """
        sizes = CONVOLUTIONAL_SIZES if fields.get("trunk") == "convolutional" else STUDENT_SIZES
        if size not in sizes:
            raise ValueError(f"`size` must be one of {list(sizes)}, got {size!r}.")
        return cls(**{**sizes[size], **fields})
