"""The students: log-mel front end, causal trunk, heads."""

# SPDX-License-Identifier: Apache-2.0

import copy

import torch

from .configuration_emotion import StudentEmotionConfig
from .layers import HOP, WINDOW, EmotionTrunk, LogMel, stack_frames
from .pretrained_emotion import EmotionBaseModel, EmotionForAudioClassification, EmotionPreTrainedModel, check_batch


class StudentEmotionPreTrainedModel(EmotionPreTrainedModel):
    """Base class of the students."""

    config_class = StudentEmotionConfig
    base_model_prefix = "student"


class StudentEmotionModel(EmotionBaseModel, StudentEmotionPreTrainedModel):
    """A student without heads: waveform to embedding.

    Args:
        config: a `StudentEmotionConfig`.
    """

    def __init__(self, config: StudentEmotionConfig):
        super().__init__(config)
        self.log_mel = LogMel(config.num_mel_bins, config.sampling_rate, config.level)
        self.trunk = EmotionTrunk(config.frames_per_step * config.num_mel_bins, config)
        self.post_init()

    def frames(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute normalized log-mel frames `(B, T, M)` and their number `(B,)` from waveforms `(B, S)`.

        A clip shorter than `frames_per_step` frames is padded with silence.

        Raises:
            ValueError: for a waveform without a batch axis, or with channels.
        """
        input_values, attention_mask = check_batch(input_values, attention_mask)
        shortest = WINDOW + (self.config.frames_per_step - 1) * HOP
        if input_values.shape[1] < shortest:
            missing = (0, shortest - input_values.shape[1])
            input_values = torch.nn.functional.pad(input_values, missing)
            attention_mask = torch.nn.functional.pad(attention_mask, missing)
        return self.log_mel(input_values, attention_mask)

    def encode(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute steps of `frames_per_step` log-mel frames, `(B, T, F)`, and their number `(B,)`; see [`frames`]."""
        return stack_frames(*self.frames(input_values, attention_mask), self.config.frames_per_step)

    def embed(
        self, features: torch.Tensor, lengths: torch.Tensor, output_frames: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Run the trunk on steps `(B, T, F)`, see [`EmotionBaseModel`].

        Raises:
            ValueError: on `output_frames` for a bidirectional student.
        """
        if output_frames and self.config.bidirectional:
            raise ValueError("`output_frames` needs a forward GRU; this model's `bidirectional` is true.")
        return self.trunk(features.to(self.dtype), lengths, output_frames)


class StudentEmotionForAudioClassification(EmotionForAudioClassification, StudentEmotionPreTrainedModel):
    """A student with its heads: dimensions, categories and, while distilling, one head per teacher.

    Args:
        config: a `StudentEmotionConfig`.
    """

    base_class = StudentEmotionModel

    def without_teacher_heads(self) -> "StudentEmotionForAudioClassification":
        """The student for publication: itself, or a copy without the heads that distillation needed."""
        if not self.config.teacher_emotions:
            return self
        student = copy.deepcopy(self)
        student.heads.drop_teacher_heads()
        student.config.teacher_emotions = None
        return student
