"""The learning rate over a training: up in the first fifth, down to nothing at the end."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from audio_emotion.layers import EmotionOutput


def one_cycle(optimizer: Optimizer, steps: int) -> OneCycleLR:
    """Smith & Topin's one cycle (2017, https://arxiv.org/abs/1708.07120), also for trainings of a few steps.

    Args:
        optimizer: whose rates it sets; the rate of each group is its peak.
        steps: of the whole training.
    """
    steps = max(steps, 3)  # fewer have no room for a rise and a fall
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, peaks, total_steps=steps, pct_start=max(0.2, 2 / steps))


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
