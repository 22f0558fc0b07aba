"""Frame-level feature distillation: the frames of a student regress the states of a pretrained encoder's lower layers.

The regression onto intermediate representations follows FitNets (Romero et al. 2015, arXiv 1412.6550, section 2.2),
and several layers of a speech encoder as its targets DistilHuBERT (Chang et al. 2022, arXiv 2110.01900, section 2).
Here targets are standardized and the loss is the squared error alone: one minus the loss is the explained variance.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audio_emotion.layer_fusion import LayerStatistics
from audio_emotion.log_mel import frame_mask, stack_frames
from audio_emotion.modeling_student_emotion import StudentEmotionModel


class StateRegression(nn.Module):
    """The frames of a student's trunk, and a linear layer from them to the standardized states of an encoder.

    Args:
        student: its pooling and its embedding layer are neither used nor trained.
        statistics: mean and standard deviation of the `L` states of width `H` of the encoder.
    """

    def __init__(self, student: StudentEmotionModel, statistics: LayerStatistics) -> None:
        super().__init__()
        self.recurrence = student.trunk.recurrence
        self.dropout = student.trunk.dropout
        self.frames_per_step = student.config.frames_per_step
        self.regression = nn.Linear(int(student.trunk.recurrence.output_size), statistics.mean.numel())
        self.register_buffer("mean", statistics.mean.clone())  # (L, H)
        self.register_buffer("deviation", statistics.deviation.clone())  # (L, H)

    def predict(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Standardized states `(B, T', L, H)` and their number `(B,)`, of normalized log-mel frames `(B, T, M)`."""
        features, steps = stack_frames(frames, lengths, self.frames_per_step)  # (B, T', F)
        states = self.regression(self.recurrence(self.dropout(features), steps))  # (B, T', L * H)
        return states.unflatten(-1, self.mean.shape), steps

    def forward(self, frames: Tensor, lengths: Tensor, states: Tensor, state_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Squared errors of each clip, averaged over layers and features.

        Args:
            frames (`torch.Tensor` of shape `(B, T, M)`): normalized log-mel frames.
            lengths (`torch.Tensor` of shape `(B,)`): true frames.
            states (`torch.Tensor` of shape `(B, L, T', H)`): of the encoder, one per step of the student.
            state_lengths (`torch.Tensor` of shape `(B,)`): true states.

        Returns:
            sums of the errors over the steps that both have, `(B,)`, and the number of these steps, `(B,)`.
        """
        predicted, steps = self.predict(frames, lengths)  # (B, T', L, H)
        time = min(predicted.shape[1], states.shape[2])
        targets = (states.transpose(1, 2)[:, :time] - self.mean) / self.deviation  # (B, T', L, H)
        error = (predicted[:, :time].float() - targets).square().mean((2, 3))  # (B, T')
        mask = frame_mask(torch.minimum(steps, state_lengths), time).to(error.dtype)  # (B, T')
        return (error * mask).sum(1), mask.sum(1)
