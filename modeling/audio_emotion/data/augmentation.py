"""What may happen to a voice on its way to a student: speed, room, pauses, telephone, noise, level, masks.

Nothing is recorded: noise and rooms are made by code, and babble is other clips of the corpus. The teacher hears the
clip as it was; only the student hears it augmented.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchaudio.functional import add_noise, fftconvolve, highpass_biquad
from torchaudio.transforms import Resample

SAMPLING_RATE = 16_000
NOISE_SLOPES = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # amplitude falls with frequency to this power
FFT_MULTIPLE = 4_096  # lengths that are multiples of this have fast transforms; a prime length takes many times longer


@dataclass(frozen=True)
class AugmentationStrengths:
    """How often each change is made, and how strong it is (uniform in its range).

    Attributes:
        speed_probability: of playing the clip faster or slower, which moves pitch too.
        speed_factors: one is chosen; rounded to hundredths.
        reverberation_probability: of putting the voice into a room.
        rt60: s until the reverberation has fallen by 60 dB.
        direct_to_reverberant: dB between the voice and its reverberation.
        noise_probability: of noise: white, pink, brown, or babble where other clips are given.
        snr: dB of signal to noise over the whole clip.
        gain_probability: of another level.
        gain: dB. Level tells activation: keep it small where levels of the corpus mean something.
        pause_probability: of digital silence before the clip, after it, or both.
        pause: s of each.
        telephone_probability: of a narrow band: nothing above half of one of `telephone_rates`, and every other time
            little below 300 Hz. It comes before the noise or after it.
        telephone_rates: Hz.
    """

    speed_probability: float = 0.3
    speed_factors: tuple[float, ...] = (0.9, 0.95, 1.05, 1.1)
    reverberation_probability: float = 0.3
    rt60: tuple[float, float] = (0.1, 0.4)
    direct_to_reverberant: tuple[float, float] = (0.0, 15.0)
    noise_probability: float = 0.5
    snr: tuple[float, float] = (5.0, 30.0)
    gain_probability: float = 0.5
    gain: tuple[float, float] = (-6.0, 6.0)
    pause_probability: float = 0.0
    pause: tuple[float, float] = (0.2, 4.0)
    telephone_probability: float = 0.0
    telephone_rates: tuple[int, ...] = (8_000, 12_000)


class WaveformAugmentation:
    """Changes one 16 kHz waveform at random, the same way for the same seed.

    Order: speed, room, pauses, noise, gain, with the telephone before the noise or after it. The level of the voice
    stays until the last step, which alone moves it. Nothing is clipped: float audio may leave ±1. With the default
    strengths a clip of 3.7 s costs about 3 ms of one CPU core in the mean.
    """

    def __init__(self, strengths: AugmentationStrengths | None = None) -> None:
        """Makes the resampling filters once; `strengths` None takes the defaults."""
        self.strengths = strengths if strengths is not None else AugmentationStrengths()
        # in hundredths, so that the ratio stays small: its terms are the size of the filter bank
        self.speeds = [Resample(round(100 * factor), 100) for factor in self.strengths.speed_factors]
        self.telephones = [
            (Resample(SAMPLING_RATE, rate), Resample(rate, SAMPLING_RATE)) for rate in self.strengths.telephone_rates
        ]

    def __call__(self, waveform: Tensor, generator: torch.Generator | int, pool: Sequence[Tensor] = ()) -> Tensor:
        """Augment one clip.

        Args:
            waveform: (S,) float32.
            generator: of the CPU, or a seed.
            pool: other clips, each (S_i,), that babble may be made of.

        Returns:
            (S',) float32; S' is S unless the speed changed: ceil(S / factor).
        """
        strengths, generator = self.strengths, _generator(generator)
        if _happens(strengths.speed_probability, generator):
            waveform = self.speeds[_choose(len(self.speeds), generator)](waveform)
        if _happens(strengths.reverberation_probability, generator):
            response = room_response(
                _uniform(strengths.rt60, generator), _uniform(strengths.direct_to_reverberant, generator), generator
            )
            waveform = reverberate(waveform, response)
        # Without these two no number is drawn for them: what a seed did before there were any stays as it was.
        if strengths.pause_probability and _happens(strengths.pause_probability, generator):
            waveform = with_pauses(waveform, strengths.pause, generator)
        called = strengths.telephone_probability and _happens(strengths.telephone_probability, generator)
        noisy_line = called and _choose(2, generator)
        if called and not noisy_line:
            waveform = self._over_telephone(waveform, generator)
        if _happens(strengths.noise_probability, generator):
            kinds = [*NOISE_SLOPES, "babble"] if pool else [*NOISE_SLOPES]
            kind = kinds[_choose(len(kinds), generator)]
            snr = _uniform(strengths.snr, generator)
            samples = waveform.shape[-1]
            noise = babble(samples, pool, generator) if kind == "babble" else colored_noise(samples, kind, generator)
            if noise.any():  # babble of silent clips has no level to scale
                waveform = add_noise(waveform, noise, torch.tensor(snr))
        if noisy_line:
            waveform = self._over_telephone(waveform, generator)
        if _happens(strengths.gain_probability, generator):
            waveform = waveform * 10 ** (_uniform(strengths.gain, generator) / 20)
        return waveform

    def _over_telephone(self, waveform: Tensor, generator: torch.Generator) -> Tensor:
        """The clip in a narrow band, (S,)."""
        down, up = self.telephones[_choose(len(self.telephones), generator)]
        narrow = up(down(waveform))[: waveform.shape[-1]]
        if _choose(2, generator):
            scale = 4 * narrow.abs().max().clamp(min=1e-12)  # the filter clips at 1
            narrow = scale * highpass_biquad(narrow / scale, SAMPLING_RATE, 300.0)
        return narrow


def with_pauses(waveform: Tensor, seconds: tuple[float, float], generator: torch.Generator | int) -> Tensor:
    """Digital silence before the clip, after it, or both, each of so many seconds: (S',)."""
    generator = _generator(generator)
    where = _choose(3, generator)
    before, after = (round(_uniform(seconds, generator) * SAMPLING_RATE) for _ in range(2))
    return torch.nn.functional.pad(waveform, (before if where != 1 else 0, after if where != 0 else 0))


def colored_noise(samples: int, color: str, generator: torch.Generator | int) -> Tensor:
    """White, pink (-3 dB per octave) or brown (-6 dB per octave) noise, (S,), flat below 20 Hz."""
    generator = _generator(generator)
    if color == "white":
        return torch.randn(samples, generator=generator)
    length = math.ceil(samples / FFT_MULTIPLE) * FFT_MULTIPLE
    spectrum = torch.randn(length // 2 + 1, 2, generator=generator)  # (F, 2) real and imaginary
    frequencies = torch.linspace(0.0, SAMPLING_RATE / 2, length // 2 + 1).clamp(min=20.0)
    spectrum = torch.view_as_complex(spectrum) * (20.0 / frequencies) ** NOISE_SLOPES[color]
    return torch.fft.irfft(spectrum, n=length)[:samples] * math.sqrt(length)


def babble(samples: int, pool: Sequence[Tensor], generator: torch.Generator | int) -> Tensor:
    """Three to six voices at once, (S,): clips of `pool` at equal level, from random places, repeated to fill."""
    generator = _generator(generator)
    voices = torch.zeros(samples)
    for _ in range(3 + _choose(4, generator)):
        clip = pool[_choose(len(pool), generator)]
        start = _choose(len(clip), generator)
        voice = clip.roll(-start).repeat(math.ceil(samples / len(clip)))[:samples]
        voices += voice / voice.square().mean().sqrt().clamp(min=1e-4)
    return voices


def room_response(rt60: float, direct_to_reverberant: float, generator: torch.Generator | int) -> Tensor:
    """Impulse response of a room, (K,) at 16 kHz: 1 at sample 0, then white noise that falls by 60 dB in `rt60` s.

    The simplest statistical model of a late field (Polack 1988), without early reflections. It is cut at 0.4 s, so
    that convolution stays cheap.
    """
    generator = _generator(generator)
    length = round(min(rt60, 0.4) * SAMPLING_RATE)
    seconds = torch.arange(1, length + 1) / SAMPLING_RATE
    tail = torch.randn(length, generator=generator) * 10 ** (-3.0 * seconds / rt60)  # (K-1,)
    tail = tail / tail.square().sum().sqrt() * 10 ** (-direct_to_reverberant / 20)
    return torch.cat([torch.ones(1), tail])


def reverberate(waveform: Tensor, response: Tensor) -> Tensor:
    """The clip in a room, (S,): direct sound where it was, the tail past the end cut off, the level as before."""
    samples = waveform.shape[-1]
    length = math.ceil((samples + len(response) - 1) / FFT_MULTIPLE) * FFT_MULTIPLE
    padded = torch.nn.functional.pad(waveform, (0, length + 1 - len(response) - samples))  # full length: `length`
    wet = fftconvolve(padded, response)[:samples]
    level, wet_level = waveform.square().mean().sqrt(), wet.square().mean().sqrt()
    return wet * (level / wet_level.clamp(min=1e-12))


def mask_spectrogram(
    features: Tensor,
    lengths: Tensor,
    generator: torch.Generator | int,
    time_masks: int = 2,
    time_width: int = 25,
    time_share: float = 0.2,
    frequency_masks: int = 2,
    frequency_width: int = 12,
) -> Tensor:
    """Blank random spans of time and bands of frequency in each clip, and leave padding as it was.

    Blanks are 0, which is the mean of features normalized with training-set statistics: normalize first.

    Args:
        features: (B, T, F).
        lengths: (B,) true frames of each clip.
        generator: of the CPU, or a seed.
        time_masks: spans in each clip; they may overlap.
        time_width: widest span, frames.
        time_share: widest span as a share of the clip, so that short clips keep something.
        frequency_masks: bands in each clip.
        frequency_width: widest band, bins.

    Returns:
        (B, T, F), a new tensor.

    Source:
        Park et al. 2019, SpecAugment, https://arxiv.org/abs/1904.08779.
    """
    generator = _generator(generator)
    _, frames, bins = features.shape
    lengths = lengths.to(features.device)
    widest = (lengths * time_share).floor().clamp(max=time_width)  # (B,)
    in_time = _spans(frames, lengths.float(), widest, time_masks, generator)  # (B, T)
    all_bins, widest = torch.full_like(widest, bins), torch.full_like(widest, frequency_width)
    in_frequency = _spans(bins, all_bins, widest, frequency_masks, generator)  # (B, F)
    speech = torch.arange(frames, device=features.device) < lengths[:, None]  # (B, T)
    blank = (in_time[:, :, None] | in_frequency[:, None, :]) & speech[:, :, None]  # (B, T, F)
    return features.masked_fill(blank, 0.0)


def mask_time(
    states: Sequence[Tensor],
    lengths: Tensor,
    fills: Sequence[Tensor],
    generator: torch.Generator | int,
    time_share: float = 0.2,
) -> list[Tensor]:
    """Blank one random span of time in each clip, the same in every stream.

    Args:
        states: per stream (B, L, T, H), as `FusedEmotionModel.encode` gives them.
        lengths: (B,) true frames of each clip.
        fills: per stream (L, H), what stands for nothing: the mean that the stream subtracts.
        generator: of the CPU, or a seed.
        time_share: widest span as a share of the clip.

    Returns:
        per stream (B, L, T, H), new tensors.
    """
    lengths = lengths.cpu().float()
    spans = _spans(states[0].shape[2], lengths, (lengths * time_share).floor(), 1, _generator(generator))  # (B, T)
    return [
        torch.where(spans.to(each.device)[:, None, :, None], fill.to(each.device)[None, :, None], each)
        for each, fill in zip(states, fills, strict=True)
    ]


def mix_clips(
    states: Sequence[Tensor],
    lengths: Tensor,
    labels: Tensor,
    ratings: Tensor,
    weight: Tensor,
    seed: int,
    alpha: float = 0.4,
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Add to every clip of a batch another one, and to its labels that one's: mixup (Zhang et al. 2018).

    https://arxiv.org/abs/1710.09412; here on encoder states, frame by frame, with one share for the whole batch. The
    longer clip of a pair is cut to the shorter one.

    Args:
        states: per stream `(B, L, T, H)`.
        lengths: `(B,)` true frames of each clip.
        labels: `(B, C)` distributions, NaN where missing.
        ratings: `(B, A)`, NaN where missing.
        weight: `(B,)`, 0 for clips that only fill the batch and are not added to others.
        seed: of share and partners.
        alpha: of the beta distribution that the share is drawn from.

    Returns:
        states, lengths, labels and ratings; a label that either clip of a pair lacks is missing.
    """
    random = np.random.default_rng(seed)
    share = random.beta(alpha, alpha)
    partners = torch.arange(len(lengths))
    true = torch.nonzero(weight > 0).squeeze(1)
    partners[true] = true[torch.from_numpy(random.permutation(len(true)))]
    shorter = torch.minimum(lengths, lengths[partners])  # (B,)
    time = int(shorter.max())

    def mixed(tensor: Tensor) -> Tensor:
        return share * tensor + (1 - share) * tensor[partners]

    return [mixed(each[:, :, :time]) for each in states], shorter, mixed(labels), mixed(ratings)


def _spans(size: int, lengths: Tensor, widest: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Which of `size` places lie in one of `count` random spans, at most `widest` (B,) long: (B, N)."""
    draws = torch.rand(2, len(lengths), count, generator=generator).to(lengths.device)
    widths = (draws[0] * (widest[:, None] + 1)).floor().minimum(lengths[:, None])  # (B, M)
    starts = (draws[1] * (lengths[:, None] - widths + 1)).floor()  # (B, M)
    places = torch.arange(size, device=lengths.device)
    return ((places >= starts[..., None]) & (places < (starts + widths)[..., None])).any(dim=1)


def _generator(generator: torch.Generator | int) -> torch.Generator:
    return torch.Generator().manual_seed(generator) if isinstance(generator, int) else generator


def _happens(probability: float, generator: torch.Generator) -> bool:
    return torch.rand((), generator=generator).item() < probability


def _choose(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator).item())


def _uniform(bounds: tuple[float, float], generator: torch.Generator) -> float:
    low, high = bounds
    return low + (high - low) * torch.rand((), generator=generator).item()
