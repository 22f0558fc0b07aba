"""The log-mel front end: waveform to frames, for whole clips and for their successive parts."""

# SPDX-License-Identifier: Apache-2.0

import torch
from torch import nn
from transformers import initialization as init
from transformers.audio_utils import mel_filter_bank

WINDOW = 400  # samples: 25 ms at 16 kHz
HOP = 160  # samples: 10 ms at 16 kHz
CONTEXT = WINDOW - HOP  # samples that the next frame has in common with the last one
FLOOR = 1e-6  # added to the power; about the noise of 16-bit audio
# For the relative level: a floor 50 dB below the power so far, and the power assigned to digital silence.
RELATIVE_FLOOR, SILENCE_POWER = 1e-5, 1e-12
AMPLITUDE_SCALE = 2.0**-20  # cancels out; without it, sums over the loudest samples would overflow float32


class LogMel(nn.Module):
    """Waveform to normalized log-mel frames at 100 Hz.

    Frame `t` depends on the samples `160 t` to `160 t + 399` alone, so that a clip cut short has the same frames as
    the whole one. Each bin is normalized by the mean and standard deviation of the training set, never by the clip's.
    The buffers are persistent: a buffer outside the checkpoint is uninitialized memory after `from_pretrained`.

    Args:
        num_mel_bins: mel filters `M` between 20 Hz and half the sampling rate (HTK mel scale).
        sampling_rate: of the waveform, in hertz.
        level: `"absolute"`, or `"relative"` to the power of the clip up to the frame, which is independent of the
            recording's gain. Not in the paper.
    """

    def __init__(self, num_mel_bins: int, sampling_rate: int, level: str = "absolute"):
        super().__init__()
        self.num_mel_bins = num_mel_bins
        self.sampling_rate = sampling_rate
        self.level = level
        self.register_buffer("window", torch.empty(WINDOW))
        self.register_buffer("filters", torch.empty(WINDOW // 2 + 1, num_mel_bins))
        self.register_buffer("mean", torch.empty(num_mel_bins))
        self.register_buffer("deviation", torch.empty(num_mel_bins))  # standard deviation, as named in checkpoints
        self.reset()

    def reset(self) -> None:
        """Fill the buffers: window and filters by their formulas, mean 0 and standard deviation 1."""
        filters = mel_filter_bank(
            WINDOW // 2 + 1, self.num_mel_bins, 20.0, self.sampling_rate / 2, self.sampling_rate, mel_scale="htk"
        )
        init.copy_(self.window, torch.hann_window(WINDOW, device="cpu"))
        init.copy_(self.filters, torch.tensor(filters, dtype=torch.float32, device="cpu"))
        init.zeros_(self.mean)
        init.ones_(self.deviation)

    def compute_log_mel(self, waveform: torch.Tensor) -> torch.Tensor:
        """Natural logarithm of the mel power, `(B, S)` to `(B, T, M)` with `T = (S - 400) // 160 + 1`, not normalized.

        With a relative level, the power is divided by the mean power of all bins and frames up to this one, weighted
        by amplitude so that a pause before the voice does not count.
        """
        return self.continue_log_mel(waveform, waveform.new_zeros(waveform.shape[0], 4, dtype=torch.float32))[0]

    def continue_log_mel(self, waveform: torch.Tensor, level: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The frames of `compute_log_mel` for the next part of clips, `(B, T, M)`, and the new state of the level.

        Args:
            waveform (`torch.Tensor` of shape `(B, S)`): it begins with the last `CONTEXT` samples of the part before.
            level (`torch.Tensor` of shape `(B, 4)`): sums of weights and of weighted powers so far, each followed by
                what rounding has lost; 0 at the start.
        """
        power = mel_power(waveform.float(), self.window.float(), self.filters.float())  # (B, T, M)
        if self.level == "absolute":
            return (power + FLOOR).log(), level
        mean = power.mean(-1)  # (B, T)
        weight = AMPLITUDE_SCALE * mean.sqrt()  # (B, T)
        total, weight_state = cumulative_sum(weight, level[:, :2])  # (B, T)
        weighted, power_state = cumulative_sum(weight * mean, level[:, 2:])  # (B, T)
        so_far = weighted / total.clamp(min=AMPLITUDE_SCALE * SILENCE_POWER)  # (B, T)
        frames = (power / (so_far + SILENCE_POWER).unsqueeze(-1) + RELATIVE_FLOOR).log()
        return frames, torch.cat([weight_state, power_state], dim=-1)

    def forward(self, waveform: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the normalized frames that are entirely inside each clip.

        Args:
            waveform (`torch.Tensor` of shape `(B, S)`): samples, at least 400 of them after padding.
            mask (`torch.Tensor` of shape `(B, S)`): 1 for true samples.

        Returns:
            frames `(B, T, M)`, 0 beyond the clip, and their number `(B,)`.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            lengths = ((mask.sum(-1).long() - WINDOW) // HOP + 1).clamp(min=1)  # (B,)
            return self.normalize(self.compute_log_mel(waveform), lengths), lengths

    def normalize(self, frames: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Normalize the frames of `compute_log_mel`, `(B, T, M)`, and set those beyond `lengths (B,)` to 0."""
        frames = (frames - self.mean.float()) / self.deviation.float()  # (B, T, M)
        return frames * frame_mask(lengths, frames.shape[1]).unsqueeze(-1)

    @torch.no_grad()
    def set_statistics(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Set the mean and standard deviation of each bin, both `(M,)`, computed on the training set."""
        self.mean.copy_(mean)
        self.deviation.copy_(std)

    def features_of_clip(self, waveform: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """What is normalized of the samples `(1, S)` of one clip: `(T, M)`."""
        return self.compute_log_mel(waveform)[0]


def mel_power(waveform: torch.Tensor, window: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """Mel power of the frames that are entirely inside waveforms `(B, S)`: `(B, T, M)`.

    Args:
        waveform (`torch.Tensor` of shape `(B, S)`): at least 400 samples.
        window (`torch.Tensor` of shape `(400,)`): of a frame.
        filters (`torch.Tensor` of shape `(201, M)`): weights of the powers of a frame.

    An exported graph has matrix products in place of the transform of 400, which its formats lack.
    """
    if torch.onnx.is_in_onnx_export():
        return _mel_power_by_products(waveform, window, filters)
    frames = waveform.unfold(-1, WINDOW, HOP) * window  # (B, T, 400)
    return torch.view_as_real(torch.fft.rfft(frames)).square().sum(-1) @ filters


def _mel_power_by_products(waveform: torch.Tensor, window: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """[`mel_power`] with a quarter of the products of a plain transform.

    Cosines are even and sines odd around the middle of a frame, and each is even or odd around its quarter, depending
    on whether the frequency is even or odd: samples at mirrored places are added or subtracted first.
    """
    half, quarter = WINDOW // 2, WINDOW // 4  # 200, 100
    time = (waveform.shape[1] - WINDOW) // HOP + 1
    blocks = nn.functional.pad(waveform, (0, HOP))[:, : (time + 2) * HOP].reshape(waveform.shape[0], -1, HOP)
    rest = WINDOW - 2 * HOP
    frames = torch.cat([blocks[:, :-2], blocks[:, 1:-1], blocks[:, 2:, :rest]], dim=-1) * window  # (B, T, 400)
    mirrored = frames[..., half + 1 :].flip(-1)  # (B, T, 199)
    even = torch.cat([frames[..., :1], frames[..., 1:half] + mirrored, frames[..., half : half + 1]], dim=-1)
    odd = frames[..., 1:half] - mirrored  # of the places 1 to 199
    angles = 2 * torch.pi / WINDOW * (torch.outer(torch.arange(quarter + 1), torch.arange(half + 1)) % WINDOW).double()
    cosines, sines = angles.cos().float(), angles.sin().float()  # (101, 201): place by frequency
    low, high = even[..., :quarter], even[..., quarter + 1 :].flip(-1)  # (B, T, 100): places 0 to 99, and 200 to 101
    middle = even[..., quarter : quarter + 1]
    real_even = torch.cat([low + high, middle], dim=-1) @ cosines[:, ::2]  # (B, T, 101)
    real_odd = (low - high) @ cosines[:quarter, 1::2]  # (B, T, 100)
    low, high = odd[..., : quarter - 1], odd[..., quarter:].flip(-1)  # (B, T, 99): places 1 to 99, and 199 to 101
    middle = odd[..., quarter - 1 : quarter]
    imaginary_even = (low - high) @ sines[1:quarter, ::2]  # (B, T, 101)
    imaginary_odd = torch.cat([low + high, middle], dim=-1) @ sines[1:, 1::2]  # (B, T, 100)
    power_even = real_even.square() + imaginary_even.square()
    power_odd = real_odd.square() + imaginary_odd.square()
    return power_even @ filters[::2] + power_odd @ filters[1::2]


def cumulative_sum(values: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cumulative sum of positive `(B, T)`, precise in float32 over hours of frames: Apple's GPUs have no float64.

    What rounding has lost in each step is computed (Dekker 1971, https://doi.org/10.1007/BF01397083) and added.

    Args:
        values (`torch.Tensor` of shape `(B, T)`): 0 or more.
        state (`torch.Tensor` of shape `(B, 2)`): the sum before them, and what rounding has lost of it.

    Returns:
        the sums `(B, T)`, and the new state.
    """
    sums = torch.cat([state[:, :1], values], dim=-1).cumsum(-1)  # (B, 1 + T)
    before, total = sums[:, :-1], sums[:, 1:]
    lost = torch.minimum(before, values) - (total - torch.maximum(before, values))
    lost = state[:, 1:] + lost.cumsum(-1)
    return total + lost, torch.stack([total[:, -1], lost[:, -1]], dim=-1)


def frame_mask(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """Lengths `(B,)` to a mask `(B, size)` of 1.0 for true frames and 0.0 beyond."""
    return (torch.arange(size, device=lengths.device) < lengths.unsqueeze(-1)).float()


def stack_frames(frames: torch.Tensor, lengths: torch.Tensor, per_step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Concatenate `per_step` frames into one step; an incomplete last step is left out unless it is the only one.

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
