"""The students: log-mel front end, causal trunk, heads."""

# SPDX-License-Identifier: Apache-2.0

import copy

import torch

from .configuration_student_emotion import StudentEmotionConfig
from .layers import HOP, WINDOW, EmotionHeads, EmotionOutput, EmotionTrunk, LogMel, stack_frames
from .losses import supervised_terms
from .pretrained_emotion import HEADS, EmotionPreTrainedModel


class StudentEmotionPreTrainedModel(EmotionPreTrainedModel):
    """Base class of the students."""

    config_class = StudentEmotionConfig
    base_model_prefix = "student"


class StudentEmotionModel(StudentEmotionPreTrainedModel):
    """A student without heads: waveform to embedding.

    Args:
        config: a `StudentEmotionConfig`.
    """

    _keys_to_ignore_on_load_unexpected = (HEADS,)

    def __init__(self, config: StudentEmotionConfig):
        super().__init__(config)
        self.log_mel = LogMel(config.num_mel_bins, config.sampling_rate, config.level)
        self.trunk = EmotionTrunk(config.frames_per_step * config.num_mel_bins, config)
        self.post_init()

    def features(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None):
        """Compute steps `(B, T, F)` and their number `(B,)` from waveforms `(B, S)`.

        A step is `frames_per_step` log-mel frames. A clip shorter than one step is padded with silence.

        Raises:
            ValueError: for a waveform without a batch axis, or with channels.
        """
        if input_values.ndim != 2:
            raise ValueError(f"Expected `input_values` of shape (batch, samples), got {tuple(input_values.shape)}.")
        if attention_mask is None:
            attention_mask = torch.ones_like(input_values, dtype=torch.long)
        shortest = WINDOW + (self.config.frames_per_step - 1) * HOP
        if input_values.shape[1] < shortest:
            missing = (0, shortest - input_values.shape[1])
            input_values = torch.nn.functional.pad(input_values, missing)
            attention_mask = torch.nn.functional.pad(attention_mask, missing)
        frames, lengths = self.log_mel(input_values * attention_mask, attention_mask)
        return stack_frames(frames, lengths, self.config.frames_per_step)

    def features_from_frames(self, frames: torch.Tensor, lengths: torch.Tensor):
        """Compute the same from cached frames of `LogMel.compute_log_mel`, `(B, T, M)`, and their number `(B,)`."""
        return stack_frames(self.log_mel.normalize(frames, lengths), lengths, self.config.frames_per_step)

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
        features, lengths = self.features(input_values, attention_mask)
        embedding, _, mask = self.trunk(features.to(self.dtype), lengths)
        output = EmotionOutput(embedding=embedding, frame_mask=mask)
        return output if return_dict is not False else output.to_tuple()


class StudentEmotionForAudioClassification(StudentEmotionPreTrainedModel):
    """A student with its heads: dimensions, categories and, while distilling, one head per teacher.

    Args:
        config: a `StudentEmotionConfig`.
    """

    def __init__(self, config: StudentEmotionConfig):
        super().__init__(config)
        self.student = StudentEmotionModel(config)
        self.heads = EmotionHeads(config, config.teacher_emotions)
        self.post_init()
        self._keys_to_ignore_on_load_unexpected.discard(HEADS)  # inherited from `student`, which has none

    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        dimension_labels: torch.Tensor | None = None,
        output_frames: bool = False,
        return_dict: bool | None = None,
        features: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
    ) -> EmotionOutput:
        """Predict dimensions and emotions of a batch of clips.

        Args:
            input_values (`torch.Tensor` of shape `(B, S)`): 16 kHz mono samples in ±1.
            attention_mask (`torch.Tensor` of shape `(B, S)`, *optional*): 1 for true samples, 0 for the padding after.
            labels (`torch.Tensor` of shape `(B,)` or `(B, C)`, *optional*): class numbers (-100 where missing) or
                distributions.
            dimension_labels (`torch.Tensor` of shape `(B, 3)`, *optional*): in 0..1, NaN where missing.
            output_frames (`bool`, *optional*): whether to predict at each frame, too, as for the clip cut there.
            return_dict (`bool`, *optional*): `False` gives a tuple.
            features (`torch.Tensor` of shape `(B, T, F)`, *optional*): output of [`StudentEmotionModel.features`] in
                place of samples, so that training can augment it.
            lengths (`torch.Tensor` of shape `(B,)`, *optional*): true steps of `features`.
        """
        if features is None or lengths is None:
            if input_values is None:
                raise ValueError("Expected `input_values`, or `features` with `lengths`, got neither.")
            features, lengths = self.student.features(input_values, attention_mask)
        embedding, frames, mask = self.student.trunk(features.to(self.dtype), lengths, output_frames)
        output = EmotionOutput(embedding=embedding, frame_mask=mask, **self.heads(embedding))
        if frames is not None:
            if self.config.bidirectional:
                raise ValueError("`output_frames` needs a forward GRU; this model's `bidirectional` is true.")
            at_frames = self.heads(frames)
            output.frame_dimensions, output.frame_logits = at_frames["dimensions"], at_frames["logits"]
        terms = supervised_terms(output, labels, dimension_labels, self.config.dimension_weights)
        if terms:
            output.loss = torch.stack(list(terms.values())).sum()
        return output if return_dict is not False else output.to_tuple()

    def without_teacher_heads(self) -> "StudentEmotionForAudioClassification":
        """The student for publication: itself, or a copy without the heads that distillation needed."""
        if not self.config.teacher_emotions:
            return self
        student = copy.deepcopy(self)
        student.heads.drop_teacher_heads()
        student.config.teacher_emotions = None
        return student
