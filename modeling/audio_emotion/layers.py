"""The one output of every model."""

# SPDX-License-Identifier: Apache-2.0

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import initialization as init
from transformers.audio_utils import mel_filter_bank
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


WINDOW = 400  # samples: 25 ms at 16 kHz
HOP = 160  # samples: 10 ms at 16 kHz
FLOOR = 1e-6  # added to the power; about the noise of 16-bit audio
# Of relative frames: 50 dB below the power so far, and what stands for the power of digital silence.
RELATIVE_FLOOR, NOTHING = 1e-5, 1e-12


class LogMel(nn.Module):
    """Waveform to normalized log-mel frames at 100 Hz.

    Frame `t` sees the samples `160 t` to `160 t + 399` and nothing else, so that a clip cut short has the same frames
    as the whole one. Each bin is normalized by a mean and a deviation fixed at training time, never by the clip's own.
    The buffers are persistent: a buffer outside the checkpoint is uninitialized memory after `from_pretrained`.

    Args:
        num_mel_bins: mel filters `M` between 20 Hz and half the sampling rate (HTK mel scale).
        sampling_rate: of the waveform, in hertz.
        level: `"absolute"`, or `"relative"` to the power of the clip so far, which no gain of a microphone changes.
            A frame still sees nothing that comes after it. Ours.
    """

    def __init__(self, num_mel_bins: int, sampling_rate: int, level: str = "absolute"):
        super().__init__()
        self.num_mel_bins = num_mel_bins
        self.sampling_rate = sampling_rate
        self.level = level
        self.register_buffer("window", torch.empty(WINDOW))
        self.register_buffer("filters", torch.empty(WINDOW // 2 + 1, num_mel_bins))
        self.register_buffer("mean", torch.empty(num_mel_bins))
        self.register_buffer("deviation", torch.empty(num_mel_bins))
        self.reset()

    def reset(self) -> None:
        """Fill the buffers: window and filters by their formulas, statistics 0 and 1."""
        filters = mel_filter_bank(
            WINDOW // 2 + 1, self.num_mel_bins, 20.0, self.sampling_rate / 2, self.sampling_rate, mel_scale="htk"
        )
        init.copy_(self.window, torch.hann_window(WINDOW, device="cpu"))
        init.copy_(self.filters, torch.tensor(filters, dtype=torch.float32, device="cpu"))
        init.zeros_(self.mean)
        init.ones_(self.deviation)

    def unnormalized(self, waveform: torch.Tensor) -> torch.Tensor:
        """Natural logarithm of the mel power, `(B, S)` to `(B, T, M)` with `T = (S - 400) // 160 + 1`.

        Of a relative level it is that of the ratio to the mean power of all bins and frames up to this one, in which
        each frame counts by its amplitude: a pause before the voice is not the level of the voice.
        """
        frames = waveform.float().unfold(-1, WINDOW, HOP) * self.window.float()  # (B, T, 400)
        power = torch.view_as_real(torch.fft.rfft(frames)).square().sum(-1)  # (B, T, 201)
        power = power @ self.filters.float()  # (B, T, M)
        if self.level == "absolute":
            return (power + FLOOR).log()
        each = power.mean(-1).double()  # (B, T): a sum of hours in float32 would round
        amplitude = each.sqrt()
        so_far = (amplitude * each).cumsum(-1) / amplitude.cumsum(-1).clamp(min=NOTHING)  # (B, T)
        return (power / (so_far.float() + NOTHING).unsqueeze(-1) + RELATIVE_FLOOR).log()

    def forward(self, waveform: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the frames that lie wholly inside each clip.

        Args:
            waveform (`torch.Tensor` of shape `(B, S)`): samples, at least 400 of them after padding.
            mask (`torch.Tensor` of shape `(B, S)`): 1 for true samples.

        Returns:
            frames `(B, T, M)`, 0 beyond the clip, and their number `(B,)`.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            lengths = ((mask.sum(-1).long() - WINDOW) // HOP + 1).clamp(min=1)  # (B,)
            return self.normalized(self.unnormalized(waveform), lengths), lengths

    def normalized(self, frames: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Normalize the frames of `unnormalized`, `(B, T, M)`, and put 0 beyond each clip's `lengths (B,)`."""
        frames = (frames - self.mean.float()) / self.deviation.float()  # (B, T, M)
        return frames * frame_mask(lengths, frames.shape[1]).unsqueeze(-1)

    @torch.no_grad()
    def set_statistics(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        """Fix the mean and deviation of each bin, both `(M,)`, measured on the training set."""
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)


def frame_mask(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """Lengths `(B,)` to a mask `(B, size)` of 1.0 for true frames and 0.0 beyond."""
    return (torch.arange(size, device=lengths.device) < lengths.unsqueeze(-1)).float()


def stack_frames(frames: torch.Tensor, lengths: torch.Tensor, per_step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Join `per_step` neighbors into one step; a last, unfilled step is left out unless it is the only one.

    Args:
        frames (`torch.Tensor` of shape `(B, T, M)`): 0 beyond each clip.
        lengths (`torch.Tensor` of shape `(B,)`): true frames.
        per_step: frames in a step.

    Returns:
        steps `(B, max(T // per_step, 1), per_step * M)`, 0 beyond each clip, and their number `(B,)`.
    """
    batch, time, bins = frames.shape
    if time < per_step:
        frames = nn.functional.pad(frames, (0, 0, 0, per_step - time))
        time = per_step
    steps = frames[:, : time // per_step * per_step].reshape(batch, time // per_step, per_step * bins)
    lengths = (lengths // per_step).clamp(min=1)
    return steps * frame_mask(lengths, steps.shape[1]).unsqueeze(-1), lengths


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

    The order is that of a ConvNeXt block (Liu et al. 2022, https://arxiv.org/abs/2201.03545). Each frame is normalized
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
        self.normalisation = nn.LayerNorm(size)  # its name in published checkpoints
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


class Pooling(nn.Module):
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
        self.read_out = Pooling(self.recurrence.output_size, config.pooling)  # its name in published checkpoints
        self.embedding = nn.Linear(self.read_out.output_size, config.embedding_size)

    def forward(
        self, features: torch.Tensor, lengths: torch.Tensor, output_frames: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """MatchedClassifier clips, and on request every frame of them.

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


class EmotionHeads(nn.Module):
    """Embedding to everything a model says.

    Args:
        config: an `EmotionConfig`.
        teacher_emotions: label names of each teacher that has a head of its own while distilling.
    """

    def __init__(self, config, teacher_emotions: dict[str, list[str]] | None = None):
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.dimensions = nn.Linear(config.embedding_size, len(config.dimensions)) if config.dimensions else None
        self.emotions = nn.Linear(config.embedding_size, len(config.emotions)) if config.emotions else None
        self.log_variance = (
            nn.Linear(config.embedding_size, len(config.dimensions)) if config.predict_variance else None
        )
        self.teachers = nn.ModuleDict(
            {name: nn.Linear(config.embedding_size, len(labels)) for name, labels in (teacher_emotions or {}).items()}
        )

    def drop_teachers(self) -> None:
        """Forget the teachers' heads, which nobody needs once the student has learned."""
        self.teachers = nn.ModuleDict()

    def forward(self, embedding: torch.Tensor) -> dict[str, torch.Tensor | dict[str, torch.Tensor] | None]:
        """Apply the heads to `(..., D)`.

        Returns:
            `dimensions (..., 3)` in 0..1, `logits (..., C)`, `log_variance (..., 3)` and `teacher_logits`, a dict of
            `(..., C_k)`; None for a head that the model does not have.
        """
        embedding = self.dropout(embedding)
        return {
            "dimensions": self.dimensions(embedding).float().sigmoid() if self.dimensions else None,  # (..., 3)
            "logits": self.emotions(embedding) if self.emotions else None,  # (..., C)
            "log_variance": self.log_variance(embedding) if self.log_variance else None,  # (..., 3)
            "teacher_logits": {name: head(embedding) for name, head in self.teachers.items()} or None,
        }
