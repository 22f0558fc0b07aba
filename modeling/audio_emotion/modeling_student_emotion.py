"""The students: log-mel front end, causal trunk, heads."""

# SPDX-License-Identifier: Apache-2.0

import copy

import torch

from .configuration_emotion import StudentEmotionConfig
from .layers import EmotionTrunk
from .log_mel import CONTEXT, HOP, WINDOW, LogMel, stack_frames
from .pretrained_emotion import EmotionBaseModel, EmotionForAudioClassification, EmotionPreTrainedModel, check_batch
from .streaming_emotion import EmotionStream


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

    def initial_state(self, batch_size: int = 1) -> dict[str, torch.Tensor]:
        """State of `batch_size` streams after their first `CONTEXT` samples, which are its `context`, here zeros.

        Raises:
            ValueError: for a bidirectional student, or a trunk without `step`.
        """
        if self.config.bidirectional or not hasattr(self.trunk.recurrence, "step"):
            raise ValueError(
                f"A stream needs a forward trunk, got `bidirectional` {self.config.bidirectional} and the trunk "
                f"{self.config.trunk!r}. Predict windows of the clip instead."
            )
        like = self.log_mel.window
        state = {"context": like.new_zeros(batch_size, CONTEXT), "level": like.new_zeros(batch_size, 4)}
        return {**state, **self.trunk.initial_state(batch_size)}

    def step(
        self, samples: torch.Tensor, state: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Embeddings `(B, T, D)` at the steps that the next samples complete, and the new state.

        Args:
            samples (`torch.Tensor` of shape `(B, S)`): `S` is a multiple of `frames_per_step * HOP`.
            state: of `initial_state` or of the last call.
        """
        joined = torch.cat([state["context"], samples], dim=1)  # (B, CONTEXT + S)
        frames, level = self.log_mel.continue_log_mel(joined, state["level"])  # (B, S / HOP, M)
        frames = (frames - self.log_mel.mean.float()) / self.log_mel.deviation.float()
        steps = frames.reshape(frames.shape[0], -1, self.config.frames_per_step * frames.shape[-1])  # (B, T, F)
        embeddings, following = self.trunk.step(steps.to(self.dtype), state)
        return embeddings, {**following, "context": joined[:, -CONTEXT:], "level": level}


class StudentEmotionForAudioClassification(EmotionForAudioClassification, StudentEmotionPreTrainedModel):
    """A student with its heads: dimensions, categories and, while distilling, one head per teacher.

    Args:
        config: a `StudentEmotionConfig`.
    """

    base_class = StudentEmotionModel

    def stream(self, batch_size: int = 1) -> EmotionStream:
        """Start streams whose samples arrive in parts, see [`EmotionStream`].

        Args:
            batch_size: number of streams that are run together.

        Raises:
            ValueError: for a bidirectional student.
        """
        return EmotionStream(self, batch_size)

    def streaming_step(
        self, samples: torch.Tensor, state: dict[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Outputs at the steps that the next samples complete, and the new state; see [`StudentEmotionModel.step`].

        Returns:
            `embedding (B, T, D)`, `dimensions (B, T, 3)`, `logits (B, T, C)`, `log_variance (B, T, 3)` and
            `distance (B, T)`, those that the model has; and the state.
        """
        embeddings, state = self.base_model.step(samples, state)
        heads = self.heads(embeddings)
        names = ("dimensions", "logits", "log_variance", "distance")
        return {"embedding": embeddings, **{name: heads[name] for name in names if heads[name] is not None}}, state

    def without_teacher_heads(self) -> "StudentEmotionForAudioClassification":
        """The student for publication: itself, or a copy without the heads that distillation needed."""
        if not self.config.teacher_emotions:
            return self
        student = copy.deepcopy(self)
        student.heads.drop_teacher_heads()
        student.config.teacher_emotions = None
        return student
