"""One loss over the batch of all processes, with gradient."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor

from audio_emotion.outputs import EmotionOutput


def gathered(accelerator: Accelerator, tensor: Tensor) -> Tensor:
    """`(B, ...)` of this process to `(W B, ...)` of all `W`, in process order; this process's part keeps its gradient.

    CCC is not additive over clips, so every process computes it over the whole batch. Each then holds the gradient of
    its own part, and DistributedDataParallel averages them: multiply the loss by `W` to undo the average.
    """
    if accelerator.num_processes == 1:
        return tensor
    whole = accelerator.gather(tensor.detach())
    begin = accelerator.process_index * len(tensor)
    return torch.cat([whole[:begin], tensor, whole[begin + len(tensor) :]])


def gather_output(accelerator: Accelerator, output: EmotionOutput) -> None:
    """Put the answers of all processes into an output: those of the heads that the model has, and the embedding."""
    for name in ("logits", "dimensions", "log_variance", "embedding"):
        if (answer := getattr(output, name)) is not None:
            output[name] = gathered(accelerator, answer)
