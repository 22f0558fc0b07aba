"""Learning rates of parameter groups, the one-cycle schedule, and gathering over processes with gradient."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from audio_emotion.data.dataset import Batch
from audio_emotion.encoders import EncoderStream
from audio_emotion.layers import EmotionOutput


def parameter_groups(model: nn.Module, learning_rate: float, encoder_learning_rate: float) -> list[dict]:
    """Trained parameters in two groups: all but pretrained encoders, and these or their adapters."""
    streams = [module for module in model.modules() if isinstance(module, EncoderStream)]
    encoders = {id(parameter) for stream in streams for parameter in stream.encoder.parameters()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    inside = [parameter for parameter in trained if id(parameter) in encoders]
    others = [parameter for parameter in trained if id(parameter) not in encoders]
    groups = [{"params": others, "lr": learning_rate}, {"params": inside, "lr": encoder_learning_rate}]
    return [group for group in groups if group["params"]]


def one_cycle(optimizer: Optimizer, steps: int) -> OneCycleLR:
    """One-cycle schedule (Smith & Topin 2017, https://arxiv.org/abs/1708.07120): warm-up over a fifth of the steps.

    The learning rate of each parameter group is its peak.
    """
    steps = max(steps, 3)  # OneCycleLR needs a step of warm-up and one of decay
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, peaks, total_steps=steps, pct_start=max(0.2, 2 / steps))


def gather_with_gradient(accelerator: Accelerator, tensor: Tensor) -> Tensor:
    """Concatenate `(B, ...)` of `W` processes to `(W B, ...)`; the rows of this process keep their gradient.

    CCC is not additive over clips, so every process computes it over the global batch. Each process then has the
    gradient of its own rows, and DistributedDataParallel averages them: multiply the loss by `W` to undo the average.
    """
    if accelerator.num_processes == 1:
        return tensor
    whole = accelerator.gather(tensor.detach())
    begin = accelerator.process_index * len(tensor)
    return torch.cat([whole[:begin], tensor, whole[begin + len(tensor) :]])


def gather_output(accelerator: Accelerator, output: EmotionOutput) -> None:
    """Replace logits, dimensions, variance and embedding of an output by those of all processes, in place."""
    for name in ("logits", "dimensions", "log_variance", "embedding"):
        if (tensor := getattr(output, name)) is not None:
            output[name] = gather_with_gradient(accelerator, tensor)


def gather_labels(accelerator: Accelerator, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Labels `(W B,)`, rated dimensions `(W B, A)` and weights `(W B,)` of the global batch."""
    labels, ratings, weight = (
        gather_with_gradient(accelerator, each.to(accelerator.device))
        for each in (batch.labels, batch.dimension_labels, batch.weight)
    )
    return labels, ratings, weight
