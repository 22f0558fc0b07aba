"""The one output of every model."""

# SPDX-License-Identifier: Apache-2.0

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class EmotionOutput(ModelOutput):
    """What a model says of each of `B` clips.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*): returned when labels are given.
        logits (`torch.Tensor` of shape `(B, C)`, *optional*): one score per emotion, before the softmax.
        dimensions (`torch.Tensor` of shape `(B, 3)`, *optional*): in the order of `config.dimensions`, each in 0..1.
        log_variance (`torch.Tensor` of shape `(B, 3)`, *optional*): of the dimensions, natural logarithm.
        embedding (`torch.Tensor` of shape `(B, D)`): the clip's vector, the target of distillation.
        frame_dimensions (`torch.Tensor` of shape `(B, T, 3)`, *optional*): at `t`, what the model would have said had
            the clip ended there; with `config.look_ahead` it has heard so many frames more.
        frame_logits (`torch.Tensor` of shape `(B, T, C)`, *optional*): the same for the emotions.
        frame_mask (`torch.Tensor` of shape `(B, T)`): 1 for true frames, 0 for padding.
        teacher_logits (`dict[str, torch.Tensor]`, *optional*): one `(B, C_k)` per teacher, in that teacher's labels.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    dimensions: torch.Tensor | None = None
    log_variance: torch.Tensor | None = None
    embedding: torch.Tensor | None = None
    frame_dimensions: torch.Tensor | None = None
    frame_logits: torch.Tensor | None = None
    frame_mask: torch.Tensor | None = None
    teacher_logits: dict[str, torch.Tensor] | None = None
