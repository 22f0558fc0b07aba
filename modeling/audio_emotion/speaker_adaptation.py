"""Adaptation to a speaker: features are standardized with the statistics of a few unlabeled clips of that speaker."""

# SPDX-License-Identifier: Apache-2.0

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

PRIOR_CLIPS = 5.0  # clips that the statistics of the training set count for


@torch.no_grad()
def adapted_model(model: nn.Module, clips: Sequence[Mapping[str, Any]], prior: float = PRIOR_CLIPS) -> nn.Module:
    """A model whose features are standardized for the speaker and the microphone of some clips.

    A model subtracts the mean of its training set from each log-mel bin, or each feature of its encoder layers, and
    divides by the standard deviation. Both become `(N * own + prior * training) / (N + prior)` for `N` clips. Features
    normalized per speaker: Busso et al. 2013, doi 10.1109/T-AFFC.2013.26; statistics of the target domain in a trained
    network: Li et al. 2016, arXiv 1603.04779. The prior is our choice.

    Args:
        model: of this package; it is not changed.
        clips: inputs of a forward pass, such as `input_values (1, S)`, for each clip of one speaker.
        prior: number of clips that the statistics of the training set count for, at least 0.

    Returns:
        a copy that shares the parameters of the model, and has statistics of its own.

    Raises:
        ValueError: without clips, or for a negative prior.
    """
    if not clips or prior < 0:
        raise ValueError(f"Expected at least one clip and a `prior` of at least 0, got {len(clips)} and {prior}.")
    adapted = copy.deepcopy(model, {id(each): each for each in model.parameters()})
    weight = len(clips) / (len(clips) + prior)
    module: Any
    for module, (mean, std) in feature_statistics(adapted, clips).items():
        module.set_statistics(
            module.mean + weight * (mean.to(module.mean) - module.mean),
            module.deviation + weight * (std.to(module.deviation) - module.deviation),
        )
    return adapted


@torch.no_grad()
def feature_statistics(
    model: nn.Module, clips: Iterable[Mapping[str, Any]]
) -> dict[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """Mean and standard deviation over the frames of some clips, of every module that standardizes features."""
    parts: dict[nn.Module, list[torch.Tensor]] = {}

    def keep(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        parts.setdefault(module, []).append(module.features_of_clip(*inputs).cpu())

    modules = [module for module in model.modules() if hasattr(module, "features_of_clip")]
    hooks = [module.register_forward_pre_hook(keep) for module in modules]
    try:
        for clip in clips:
            model(**clip)
    finally:
        for hook in hooks:
            hook.remove()
    return {module: mean_and_std(features) for module, features in parts.items()}


def mean_and_std(parts: Iterable[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation over the first axis of parts `(N_i, ...)`, computed in float64; at least 0.001."""
    count, total, square = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for part in parts:
        wide = part.cpu().double()
        count, total, square = count + len(wide), total + wide.sum(0), square + wide.square().sum(0)
    mean = total / count
    return mean.float(), (square / count - mean.square()).clamp(min=1e-6).sqrt().float()
