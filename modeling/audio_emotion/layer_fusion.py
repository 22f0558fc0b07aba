"""Standardize the layers of a frozen encoder, and mix or concatenate them."""

# SPDX-License-Identifier: Apache-2.0

import torch
from torch import nn
from transformers import initialization as init


class LayerStatistics(nn.Module):
    """Mean and standard deviation of each feature of each layer on the training set; 0 and 1 until set.

    A few features of hidden states are a hundred times larger than the others, and not informative about emotion.

    Args:
        num_layers: hidden states `L`.
        hidden_size: their width `H`.
    """

    def __init__(self, num_layers: int, hidden_size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_layers, hidden_size))
        self.register_buffer("deviation", torch.ones(num_layers, hidden_size))  # as named in checkpoints

    def reset(self) -> None:
        """Set the mean to 0 and the standard deviation to 1."""
        init.zeros_(self.mean)
        init.ones_(self.deviation)

    @torch.no_grad()
    def set_statistics(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Set the mean and standard deviation of each feature of each layer, both `(L, H)`."""
        self.mean.copy_(mean)
        self.deviation.copy_(std)

    def features_of_clip(self, states: torch.Tensor) -> torch.Tensor:
        """What is standardized of the states `(1, L, T, H)` of one clip: `(T, L, H)`."""
        return states[0].transpose(0, 1)


class LayerMix(LayerStatistics):
    """Weighted mean of the layers, with a softmax over one learned weight per layer, equal at initialization.

    Args:
        num_layers: hidden states `L` to mix.
        hidden_size: their width `H`.
    """

    def __init__(self, num_layers: int, hidden_size: int):
        super().__init__(num_layers, hidden_size)
        self.weight = nn.Parameter(torch.zeros(1, num_layers))
        self.output_size = hidden_size

    def reset(self) -> None:
        """Set equal weights, and the statistics to 0 and 1."""
        super().reset()
        init.zeros_(self.weight)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Mix `(B, L, T, H)` into `(B, T, H)`, in float32: half precision would round large features."""
        with torch.autocast(states.device.type, enabled=False):
            scale = self.weight.float().softmax(dim=-1).view(-1, 1) / self.deviation.float()  # (L, H)
            return torch.einsum("blth,lh->bth", states.float(), scale) - (self.mean.float() * scale).sum(0)


class LayerConcatenation(LayerStatistics):
    """Concatenation of all layers, so that the projection weights every feature of each. Not in the paper.

    Args:
        num_layers: hidden states `L`.
        hidden_size: their width `H`.
    """

    def __init__(self, num_layers: int, hidden_size: int):
        super().__init__(num_layers, hidden_size)
        self.output_size = num_layers * hidden_size

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Standardize `(B, L, T, H)` in float32 and concatenate to `(B, T, L * H)`."""
        with torch.autocast(states.device.type, enabled=False):
            standard = (states.float() - self.mean.float()[:, None]) / self.deviation.float()[:, None]
            return standard.transpose(1, 2).flatten(2)  # (B, T, L * H)
