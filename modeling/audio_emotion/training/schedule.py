"""The learning rate over a training: up in the first fifth, down to nothing at the end."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR


def one_cycle(optimizer: Optimizer, steps: int) -> OneCycleLR:
    """Smith & Topin's one cycle (2017, https://arxiv.org/abs/1708.07120), also for trainings of a few steps.

    Args:
        optimizer: whose rates it sets; the rate of each group is its peak.
        steps: of the whole training.
    """
    steps = max(steps, 3)  # fewer have no room for a rise and a fall
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, peaks, total_steps=steps, pct_start=max(0.2, 2 / steps))
