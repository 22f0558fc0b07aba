"""Augmentation of waveforms: speed, reverberation, pauses, telephone, noise, gain.

Noise and room responses are generated, and on request taken from recordings, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchaudio.functional import add_noise, fftconvolve, highpass_biquad
from torchaudio.transforms import Resample

from audio_emotion.audio_io import decode
from audio_emotion.audio_resampling import resample

SAMPLING_RATE = 16_000
SILENCE = 1e-10  # mean square: -100 dB of full scale
RECORDED = 0.6  # fraction of the noises and rooms that are recorded, where recordings are given
NOISE_SLOPES = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # amplitude falls with frequency to this power
FFT_MULTIPLE = 4_096  # lengths that are multiples of this have fast transforms; a prime length takes many times longer


@dataclass(frozen=True)
class AugmentationStrengths:
    """Probability and strength (uniform in its range) of each kind of augmentation.

    Attributes:
        speed_probability: of faster or slower playback, which changes the pitch too.
        speed_factors: one is chosen; rounded to hundredths.
        reverberation_probability: of reverberation.
        rt60: seconds until the reverberation has decayed by 60 dB.
        direct_to_reverberant: direct-to-reverberant ratio, dB.
        noise_probability: of white, pink or brown noise.
        snr: signal-to-noise ratio over the whole clip, dB.
        gain_probability: of a gain.
        gain: dB; keep it small where the level of the recordings depends on activation.
        pause_probability: of digital silence before the clip, after it, or both.
        pause: duration of each pause, seconds.
        telephone_probability: of a band limit: nothing above half of one of `telephone_rates`, and in half of the
            cases little below 300 Hz; applied before or after the noise.
        telephone_rates: Hz.
        noise_folder: recordings of noise, beside the generated one; empty for none.
        rooms_folder: room impulse responses, a microphone per channel, beside the generated ones; empty for none.
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
    noise_folder: str = ""
    rooms_folder: str = ""


class WaveformAugmentation:
    """Augments a 16 kHz waveform at random, reproducibly for a seed.

    Order: speed, reverberation, pauses, noise, gain, with the telephone before or after the noise. Only the gain
    changes the level of the speech. Nothing is clipped: samples may exceed ±1. With the default strengths a clip of
    3.7 s takes about 3 ms on one CPU core on average.
    """

    def __init__(self, strengths: AugmentationStrengths | None = None) -> None:
        """Compute the resampling filters; `strengths` None for the defaults."""
        self.strengths = strengths if strengths is not None else AugmentationStrengths()
        # in hundredths: the size of the filter bank is that of the reduced ratio
        self.speeds = [Resample(round(100 * factor), 100) for factor in self.strengths.speed_factors]
        self.telephones = [
            (Resample(SAMPLING_RATE, rate), Resample(rate, SAMPLING_RATE)) for rate in self.strengths.telephone_rates
        ]
        self.noises = [
            mix for each in recordings(self.strengths.noise_folder) if (mix := each.mean(0)).square().mean() > SILENCE
        ]
        self.rooms = [channel for each in recordings(self.strengths.rooms_folder) for channel in each]

    def __call__(self, waveform: Tensor, generator: torch.Generator | int) -> Tensor:
        """Augment one clip.

        Args:
            waveform: (S,) float32.
            generator: of the CPU, or a seed.

        Returns:
            (S',) float32; S' is S unless the speed changed: ceil(S / factor).
        """
        strengths, generator = self.strengths, seeded_generator(generator)
        if _happens(strengths.speed_probability, generator):
            waveform = self.speeds[_choose(len(self.speeds), generator)](waveform)
        if _happens(strengths.reverberation_probability, generator):
            if self.rooms and _happens(RECORDED, generator):
                response = self.rooms[_choose(len(self.rooms), generator)]
            else:
                response = room_response(
                    _uniform(strengths.rt60, generator),
                    _uniform(strengths.direct_to_reverberant, generator),
                    generator,
                )
            waveform = reverberate(waveform, response)
        # With probability 0 no random number is drawn, so that a seed gives the same result as before they were added.
        if strengths.pause_probability and _happens(strengths.pause_probability, generator):
            waveform = with_pauses(waveform, strengths.pause, generator)
        telephone = strengths.telephone_probability and _happens(strengths.telephone_probability, generator)
        telephone_last = telephone and _choose(2, generator)
        if telephone and not telephone_last:
            waveform = self._over_telephone(waveform, generator)
        if _happens(strengths.noise_probability, generator):
            if self.noises and _happens(RECORDED, generator):
                noise = excerpt(self.noises[_choose(len(self.noises), generator)], waveform.shape[-1], generator)
                snr = _uniform(strengths.snr, generator)
            else:
                color = [*NOISE_SLOPES][_choose(len(NOISE_SLOPES), generator)]
                snr = _uniform(strengths.snr, generator)
                noise = colored_noise(waveform.shape[-1], color, generator)
            waveform = add_noise(waveform, noise, torch.tensor(snr))
        if telephone_last:
            waveform = self._over_telephone(waveform, generator)
        if _happens(strengths.gain_probability, generator):
            waveform = waveform * 10 ** (_uniform(strengths.gain, generator) / 20)
        return waveform

    def _over_telephone(self, waveform: Tensor, generator: torch.Generator) -> Tensor:
        """The clip with a narrow band, (S,)."""
        down, up = self.telephones[_choose(len(self.telephones), generator)]
        narrow = up(down(waveform))[: waveform.shape[-1]]
        if _choose(2, generator):
            scale = 4 * narrow.abs().max().clamp(min=1e-12)  # the filter clips at 1
            narrow = scale * highpass_biquad(narrow / scale, SAMPLING_RATE, 300.0)
        return narrow


def recordings(folder: str) -> list[Tensor]:
    """Every audio file below a folder, sorted by path: (C, S) at 16 kHz; none for an empty name.

    Raises:
        FileNotFoundError: if there is no audio in the folder.
    """
    if not folder:
        return []
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix in (".flac", ".ogg", ".wav"))
    if not files:
        raise FileNotFoundError(f"Expected .flac, .ogg or .wav files in `{folder}`, got none. Correct the folder.")
    decoded = (decode(file) for file in files)
    return [torch.as_tensor(resample(samples, rate, SAMPLING_RATE)).T for samples, rate in decoded]


def excerpt(noise: Tensor, samples: int, generator: torch.Generator | int) -> Tensor:
    """A recording from a random sample on, or if silent there from its loudest one, repeated as needed, (S,)."""
    repeats = -(-samples // len(noise))
    part = noise.roll(-_choose(len(noise), seeded_generator(generator))).repeat(repeats)[:samples]
    return part if part.square().mean() > SILENCE else noise.roll(-int(noise.abs().argmax())).repeat(repeats)[:samples]


def with_pauses(waveform: Tensor, seconds: tuple[float, float], generator: torch.Generator | int) -> Tensor:
    """The clip with digital silence before it, after it, or both, each of a duration in this range, (S',)."""
    generator = seeded_generator(generator)
    where = _choose(3, generator)
    before, after = (round(_uniform(seconds, generator) * SAMPLING_RATE) for _ in range(2))
    return torch.nn.functional.pad(waveform, (before if where != 1 else 0, after if where != 0 else 0))


def colored_noise(samples: int, color: str, generator: torch.Generator | int) -> Tensor:
    """White, pink (-3 dB per octave) or brown (-6 dB per octave) noise, (S,), flat below 20 Hz."""
    generator = seeded_generator(generator)
    if color == "white":
        return torch.randn(samples, generator=generator)
    length = math.ceil(samples / FFT_MULTIPLE) * FFT_MULTIPLE
    spectrum = torch.randn(length // 2 + 1, 2, generator=generator)  # (F, 2) real and imaginary
    frequencies = torch.linspace(0.0, SAMPLING_RATE / 2, length // 2 + 1).clamp(min=20.0)
    spectrum = torch.view_as_complex(spectrum) * (20.0 / frequencies) ** NOISE_SLOPES[color]
    return torch.fft.irfft(spectrum, n=length)[:samples] * math.sqrt(length)


def room_response(rt60: float, direct_to_reverberant: float, generator: torch.Generator | int) -> Tensor:
    """Impulse response of a room, (K,) at 16 kHz: 1 at sample 0, then white noise that decays by 60 dB in `rt60` s.

    A statistical model of late reverberation (Polack 1988), without early reflections, truncated at 0.4 s.
    """
    generator = seeded_generator(generator)
    length = round(min(rt60, 0.4) * SAMPLING_RATE)
    seconds = torch.arange(1, length + 1) / SAMPLING_RATE
    tail = torch.randn(length, generator=generator) * 10 ** (-3.0 * seconds / rt60)  # (K-1,)
    tail = tail / tail.square().sum().sqrt() * 10 ** (-direct_to_reverberant / 20)
    return torch.cat([torch.ones(1), tail])


def reverberate(waveform: Tensor, response: Tensor) -> Tensor:
    """The clip with reverberation, (S,): no delay of the direct sound, truncated at the end, level unchanged."""
    samples, direct = waveform.shape[-1], int(response.abs().argmax())  # the loudest sample
    length = math.ceil((samples + len(response) - 1) / FFT_MULTIPLE) * FFT_MULTIPLE
    padded = torch.nn.functional.pad(waveform, (0, length + 1 - len(response) - samples))  # full length: `length`
    wet = fftconvolve(padded, response)[direct : direct + samples]
    level, wet_level = waveform.square().mean().sqrt(), wet.square().mean().sqrt()
    return wet * (level / wet_level.clamp(min=1e-12))


def seeded_generator(generator: torch.Generator | int) -> torch.Generator:
    """The generator itself, or a new one of the CPU with this seed."""
    return torch.Generator().manual_seed(generator) if isinstance(generator, int) else generator


def _happens(probability: float, generator: torch.Generator) -> bool:
    return torch.rand((), generator=generator).item() < probability


def _choose(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator).item())


def _uniform(bounds: tuple[float, float], generator: torch.Generator) -> float:
    low, high = bounds
    return low + (high - low) * torch.rand((), generator=generator).item()
