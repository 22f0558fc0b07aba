"""The trunks: frames in, one embedding per clip (and per frame, as if the clip had ended there) out.

Figure 1(B) of Mitra et al. 2022 (https://arxiv.org/abs/2207.03334): the features go through a temporal convolution and
around it, both enter the first of two GRU layers, then comes the embedding layer. Figure 1(A) has no convolution. The
figure does not say how the two paths meet (here they are concatenated) nor what the embedding layer's activation is
(here tanh): these choices are ours.

The convolutional trunk is the light student of the LiSER idea (Pendyala et al. 2025, https://arxiv.org/abs/2507.00055).
We could read that paper's abstract alone: it speaks of "lightweight student models" and does not name them. So kind,
widths and depths of this trunk are ours entirely, and its numbers are not that paper's.
"""

# SPDX-License-Identifier: Apache-2.0

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .log_mel import frame_mask

DILATIONS = (1, 2, 4, 8)  # of the convolutional blocks, in turn: 61 frames with kernel 5, 2.4 s at 25 Hz
EXPANSION = 2  # how much wider the middle of a convolutional block is
SCORE_BOUND = 6.0  # attention scores lie in +-6, so that cumulative sums of exp(score) need no maximum of the future


class TemporalConvolutionGRU(nn.Module):
    """Frames `(B, T, F)` to frames `(B, T, G)`.

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
        self.output_size = config.hidden_size * (2 if config.bidirectional else 1)

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Run the frames, which must be 0 beyond each clip's `lengths (B,)`."""
        if self.convolution is not None:
            padded = nn.functional.pad(features.transpose(1, 2), (self.left, self.right))  # (B, F, left + T + right)
            convolved = nn.functional.relu(self.convolution(padded)).transpose(1, 2)  # (B, T, K)
            features = torch.cat([convolved, features], dim=-1)  # (B, T, K + F)
        if not self.bidirectional:
            return self.gru(features)[0]  # (B, T, G): what follows a clip cannot reach back into it
        packed = pack_padded_sequence(features, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=features.shape[1])[0]


class SeparableBlock(nn.Module):
    """A causal depthwise convolution, then two pointwise layers, around which the frames pass unchanged.

    The order is that of a ConvNeXt block (Liu et al. 2022, https://arxiv.org/abs/2201.03545). Each frame is normalised
    over its own channels: nothing depends on other frames, on the length of the clip or on the batch.

    Args:
        size: channels `C`.
        kernel: width of the convolution in frames.
        dilation: frames between its taps.
        dropout: on what the block adds.
    """

    def __init__(self, size: int, kernel: int, dilation: int, dropout: float):
        super().__init__()
        self.left = (kernel - 1) * dilation
        self.depthwise = nn.Conv1d(size, size, kernel, dilation=dilation, groups=size)
        self.normalisation = nn.LayerNorm(size)
        self.widen = nn.Linear(size, EXPANSION * size)
        self.narrow = nn.Linear(EXPANSION * size, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """`(B, T, C)` to `(B, T, C)`."""
        padded = nn.functional.pad(frames.transpose(1, 2), (self.left, 0))  # (B, C, left + T)
        near = self.normalisation(self.depthwise(padded).transpose(1, 2))  # (B, T, C)
        return frames + self.dropout(self.narrow(nn.functional.gelu(self.widen(near))))


class SeparableConvolutions(nn.Module):
    """Frames `(B, T, F)` to frames `(B, T, C)` in -1..1, as a GRU's are.

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
        """Run the frames; what follows a clip cannot reach back into it, so `lengths (B,)` need not be known."""
        frames = self.input(features)  # (B, T, C)
        for block in self.blocks:
            frames = block(frames)
        return torch.tanh(frames)


class ReadOut(nn.Module):
    """Frames to what the clip says at each of them: the frame itself, or statistics of all frames so far.

    Args:
        input_size: width `G` of the frames.
        mode: `"last"`, `"statistics"` or `"attentive"` (attentive statistics: Okabe et al. 2018,
            https://arxiv.org/abs/1803.10963, here cumulative, with a bounded score).
    """

    def __init__(self, input_size: int, mode: str):
        super().__init__()
        self.mode = mode
        self.score = nn.Linear(input_size, 1) if mode == "attentive" else None
        self.output_size = input_size if mode == "last" else 2 * input_size

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Read `(B, T, G)` with a mask `(B, T)` into `(B, T, output_size)`."""
        if self.mode == "last":
            return frames
        weight = mask.unsqueeze(-1)  # (B, T, 1)
        if self.score is not None:
            weight = weight * torch.exp(SCORE_BOUND * torch.tanh(self.score(frames).float() / SCORE_BOUND))
        frames = frames.float()
        total = weight.cumsum(1).clamp(min=1e-6)  # (B, T, 1)
        mean = (weight * frames).cumsum(1) / total  # (B, T, G)
        square = (weight * frames.square()).cumsum(1) / total  # (B, T, G)
        deviation = (square - mean.square()).clamp(min=1e-5).sqrt()  # (B, T, G)
        return torch.cat([mean, deviation], dim=-1)  # (B, T, 2G)


class EmotionTrunk(nn.Module):
    """The layers that `config.trunk` names, read-out and embedding layer.

    Args:
        input_size: width `F` of the features.
        config: an `EmotionConfig`.
    """

    def __init__(self, input_size: int, config):
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        layers = TemporalConvolutionGRU if config.trunk == "tc-gru" else SeparableConvolutions
        self.recurrence = layers(input_size, config)  # checkpoints know both kinds by this name
        self.read_out = ReadOut(self.recurrence.output_size, config.read_out)
        self.embedding = nn.Linear(self.read_out.output_size, config.embedding_size)

    def forward(
        self, features: torch.Tensor, lengths: torch.Tensor, output_frames: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Judge clips, and on request every frame of them.

        Args:
            features (`torch.Tensor` of shape `(B, T, F)`): 0 beyond each clip.
            lengths (`torch.Tensor` of shape `(B,)`): true frames, at least 1.
            output_frames: whether to embed every frame too.

        Returns:
            embedding `(B, D)`, frame embeddings `(B, T, D)` or None, and the frame mask `(B, T)`.
        """
        mask = frame_mask(lengths, features.shape[1])  # (B, T)
        frames = self.recurrence(self.dropout(features), lengths)  # (B, T, G)
        read = self.read_out(frames, mask).to(frames.dtype)  # (B, T, R)
        last = (lengths - 1).view(-1, 1, 1).expand(-1, 1, read.shape[-1])
        embedding = torch.tanh(self.embedding(read.gather(1, last).squeeze(1)))  # (B, D)
        return embedding, torch.tanh(self.embedding(read)) if output_frames else None, mask
