"""The log-mel filterbank as a module: causal frames, fixed statistics."""

# SPDX-License-Identifier: Apache-2.0

import torch
from torch import nn
from transformers import initialization as init
from transformers.audio_utils import mel_filter_bank

WINDOW = 400  # samples: 25 ms at 16 kHz
HOP = 160  # samples: 10 ms at 16 kHz
FLOOR = 1e-6  # added to the power; about the noise of 16-bit audio
# Of relative frames: 50 dB below the power so far, and what stands for the power of digital silence.
RELATIVE_FLOOR, NOTHING = 1e-5, 1e-12


class LogMel(nn.Module):
    """Waveform to normalised log-mel frames at 100 Hz.

    Frame `t` sees the samples `160 t` to `160 t + 399` and nothing else, so that a clip cut short has the same frames
    as the whole one. Each bin is normalised by a mean and a deviation fixed at training time, never by the clip's own.
    The buffers are persistent: a buffer outside the checkpoint is uninitialised memory after `from_pretrained`.

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

    def unnormalised(self, waveform: torch.Tensor) -> torch.Tensor:
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
            return self.normalised(self.unnormalised(waveform), lengths), lengths

    def normalised(self, frames: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Normalise the frames of `unnormalised`, `(B, T, M)`, and put 0 beyond each clip's `lengths (B,)`."""
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
    """Join `per_step` neighbours into one step; a last, unfilled step is left out unless it is the only one.

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
