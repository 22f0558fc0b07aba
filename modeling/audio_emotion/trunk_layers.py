"""Layers of the trunks: features in, frames out, in one piece or step by step."""

# SPDX-License-Identifier: Apache-2.0

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

DILATIONS = (1, 2, 4, 8)  # of successive convolutional blocks: 61 frames with kernel 5, 2.4 s at 25 Hz
EXPANSION = 2  # hidden width of a convolutional block, relative to its channels


class TemporalConvolutionGRU(nn.Module):
    """Temporal convolution and identity into a GRU (Mitra et al. 2022, Figure 1): `(B, T, F)` to `(B, T, G)`.

    Args:
        input_size: width `F` of the features.
        config: an `EmotionConfig`.
    """

    def __init__(self, input_size: int, config):
        super().__init__()
        self.left = config.convolution_kernel - 1 - config.look_ahead
        self.right = config.look_ahead
        self.convolution = (
            nn.Conv1d(input_size, config.convolution_size, config.convolution_kernel)
            if config.convolution_size
            else None
        )
        self.gru = nn.GRU(
            input_size + config.convolution_size,
            config.hidden_size,
            num_layers=config.num_gru_layers,
            batch_first=True,
            dropout=config.dropout if config.num_gru_layers > 1 else 0.0,
            bidirectional=config.bidirectional,
        )
        self.bidirectional = config.bidirectional
        self.input_size = input_size
        self.output_size = config.hidden_size * (2 if config.bidirectional else 1)

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Run the frames, which must be 0 beyond each clip's `lengths (B,)`."""
        time = features.shape[1]
        if self.convolution is not None:
            padded = nn.functional.pad(features, (0, 0, self.left, self.right))  # (B, left + T + right, F)
            features = self._convolve(padded)  # (B, T, K + F)
        if not self.bidirectional:
            return self.gru(features)[0]  # (B, T, G): padding after a clip has no effect on it
        packed = pack_padded_sequence(features, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=time)[0]

    def _convolve(self, padded: torch.Tensor) -> torch.Tensor:
        """The convolution of `(B, left + T + right, F)` and its input, `(B, T, K + F)`."""
        assert self.convolution is not None
        convolved = nn.functional.relu(self.convolution(padded.transpose(1, 2))).transpose(1, 2)  # (B, T, K)
        return torch.cat([convolved, padded[:, self.left : self.left + convolved.shape[1]]], dim=-1)

    def initial_state(self, batch_size: int) -> dict[str, torch.Tensor]:
        """State before the first frame of `batch_size` streams."""
        weight = self.gru.weight_hh_l0
        state = {"hidden": weight.new_zeros(batch_size, self.gru.num_layers, self.gru.hidden_size)}
        if self.convolution is not None:
            state["features"] = weight.new_zeros(batch_size, self.left, self.input_size)
        return state

    def step(
        self, features: torch.Tensor, state: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The frames `(B, T', G)` that the next features `(B, T, F)` complete, and the new state.

        With a look-ahead, `T'` is smaller at the start: a frame waits for the features that it depends on.
        """
        following = dict(state)
        if self.convolution is not None:
            joined = torch.cat([state["features"], features], dim=1)  # (B, context + T, F)
            following["features"] = joined[:, -(self.left + self.right) :] if self.left + self.right else joined[:, :0]
            if joined.shape[1] <= self.left + self.right:
                return features.new_zeros(features.shape[0], 0, self.output_size), following
            features = self._convolve(joined)
        frames, hidden = self.gru(features, state["hidden"].transpose(0, 1).contiguous())
        following["hidden"] = hidden.transpose(0, 1)  # (B, layers, G)
        return frames, following


class SeparableBlock(nn.Module):
    """A causal depthwise convolution and two pointwise layers, with a residual connection.

    The order is that of a ConvNeXt block (Liu et al. 2022, https://arxiv.org/abs/2201.03545). Each frame is normalized
    over its channels, so that it depends neither on the length of the clip nor on the batch.

    Args:
        size: channels `C`.
        kernel: width of the convolution in frames.
        dilation: frames between its taps.
        dropout: on the residual.
    """

    def __init__(self, size: int, kernel: int, dilation: int, dropout: float):
        super().__init__()
        self.left = (kernel - 1) * dilation
        self.depthwise = nn.Conv1d(size, size, kernel, dilation=dilation, groups=size)
        self.normalisation = nn.LayerNorm(size)  # the name in published checkpoints
        self.widen = nn.Linear(size, EXPANSION * size)
        self.narrow = nn.Linear(EXPANSION * size, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """`(B, T, C)` to `(B, T, C)`; `context (B, left, C)` are the frames before, by default zeros."""
        if context is None:
            padded = nn.functional.pad(frames, (0, 0, self.left, 0))  # (B, left + T, C)
        else:
            padded = torch.cat([context, frames], dim=1)
        normalized = self.normalisation(self.depthwise(padded.transpose(1, 2)).transpose(1, 2))  # (B, T, C)
        return frames + self.dropout(self.narrow(nn.functional.gelu(self.widen(normalized))))


class SeparableConvolutions(nn.Module):
    """Causal dilated convolutions: `(B, T, F)` to `(B, T, C)` in -1..1, the range of a GRU.

    Args:
        input_size: width `F` of the features.
        config: an `EmotionConfig`.
    """

    def __init__(self, input_size: int, config):
        super().__init__()
        self.input = nn.Linear(input_size, config.hidden_size)
        self.blocks = nn.ModuleList(
            SeparableBlock(
                config.hidden_size,
                config.convolution_kernel,
                DILATIONS[number % len(DILATIONS)],
                config.dropout,
            )
            for number in range(config.num_convolution_blocks)
        )
        self.output_size = config.hidden_size

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Run the frames; padding after a clip has no effect on it, so `lengths (B,)` is not used."""
        frames = self.input(features)  # (B, T, C)
        for block in self.blocks:
            frames = block(frames)
        return torch.tanh(frames)

    def initial_state(self, batch_size: int) -> dict[str, torch.Tensor]:
        """State before the first frame of `batch_size` streams."""
        weight = self.input.weight
        return {
            f"block_{number}": weight.new_zeros(batch_size, block.left, self.output_size)
            for number, block in enumerate(self.blocks)
        }

    def step(
        self, features: torch.Tensor, state: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The frames `(B, T, C)` of the next features `(B, T, F)`, and the new state."""
        frames, following = self.input(features), dict(state)  # (B, T, C)
        for number, block in enumerate(self.blocks):
            context = state[f"block_{number}"]  # (B, left, C)
            following[f"block_{number}"] = torch.cat([context, frames], dim=1)[:, -block.left :]
            frames = block(frames, context)
        return torch.tanh(frames), following


class LinearFrames(nn.Module):
    """One linear layer with GELU on each frame, `(B, T, F)` to `(B, T, G)`: an encoder has seen the context already.

    Args:
        input_size: width `F` of the features.
        config: an `EmotionConfig`.
    """

    def __init__(self, input_size: int, config):
        super().__init__()
        self.linear = nn.Linear(input_size, config.hidden_size)
        self.output_size = config.hidden_size

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Run the frames, each by itself, so `lengths (B,)` is not used."""
        return nn.functional.gelu(self.linear(features))

    def initial_state(self, batch_size: int) -> dict[str, torch.Tensor]:
        """No state."""
        return {}

    def step(
        self, features: torch.Tensor, state: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The frames `(B, T, G)` of the next features `(B, T, F)`."""
        return nn.functional.gelu(self.linear(features)), state
