"""Configuration of the students."""

# SPDX-License-Identifier: Apache-2.0

from huggingface_hub.dataclasses import strict

from .configuration_emotion import EmotionConfig
from .layers import get_trunk

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
