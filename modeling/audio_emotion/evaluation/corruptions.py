"""Fixed corruptions of the audio of a clip, for measuring the robustness of a model."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchaudio.functional import add_noise, highpass_biquad, lowpass_biquad
from torchaudio.transforms import Resample

from audio_emotion.data.augmentation import (
    AugmentationStrengths,
    WaveformAugmentation,
    colored_noise,
    excerpt,
    recordings,
    reverberate,
    room_response,
)

SAMPLING_RATE = 16_000
NO_AUGMENTATION = dict.fromkeys(
    [f"{name}_probability" for name in ("speed", "reverberation", "noise", "gain", "pause", "telephone")], 0.0
)
CORRUPTIONS: dict[str, dict[str, Any]] = {  # each is applied to every clip
    "telephone": {"telephone_probability": 1.0, "telephone_rates": (8_000,)},  # half of the clips lose the lows too
    "pauses": {"pause_probability": 1.0, "pause": (10.0, 10.0)},  # before the clip, after it, or both
    "noise": {"noise_probability": 1.0, "snr": (10.0, 10.0)},  # white, pink or brown
    "room": {"reverberation_probability": 1.0, "rt60": (0.4, 0.4), "direct_to_reverberant": (3.0, 3.0)},
    "quiet": {"gain_probability": 1.0, "gain": (-30.0, -30.0)},
}
Corruption = Callable[[np.ndarray, str, int], np.ndarray]
LOST_PACKET = 320  # samples, 20 ms


def get_corruption(name: str) -> Corruption:
    """A function that corrupts the waveform `(S,)` of a clip, given its id; the same each time.

    The corruptions are the augmentations of the training recipes (`AugmentationStrengths`), at one strength.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"Expected a corruption among {sorted(CORRUPTIONS)}, got {name!r}.")
    augment = WaveformAugmentation(AugmentationStrengths(**{**NO_AUGMENTATION, **CORRUPTIONS[name]}))

    def corrupt(waveform: np.ndarray, clip: str, epoch: int = 0) -> np.ndarray:
        return augment(torch.as_tensor(waveform), zlib.crc32(f"{name}/{clip}".encode())).numpy()

    return corrupt


def robustness_tests(noise_folder: str = "", rooms_folder: str = "") -> dict[str, dict[str, Corruption]]:
    """The corruptions of a model report, by group and name.

    Beside codecs (`evaluation/codecs.py`) these are noise, rooms, lost packets, levels, bands, speed and silence.

    Args:
        noise_folder: recordings of noise; generated noise if empty.
        rooms_folder: room impulse responses; generated ones if empty.
    """
    from audio_emotion.evaluation.codecs import CODECS, transcode  # needs PyAV, which other corruptions do not

    noise = partial(_noise, folder=noise_folder)
    groups: dict[str, Mapping[str, Callable[..., torch.Tensor]]] = {
        "codec": {name: partial(_codec, transcode=transcode, codec=codec) for name, codec in CODECS.items()},
        "noise": {f"{ratio} dB": partial(noise, ratio=float(ratio)) for ratio in (20, 10, 5, 0)},
        "room": {"reverberant": partial(_room, folder=rooms_folder)},
        "packets": {"5 % lost": partial(_lose_packets, rate=0.05), "20 % lost": partial(_lose_packets, rate=0.2)},
        "level": {
            "-30 dB": partial(_scale, decibels=-30.0),
            "-10 dB": partial(_scale, decibels=-10.0),
            "clipped": _clip,
            "DC offset": _add_offset,
        },
        "band": {
            "300 to 3,400 Hz": partial(_limit_band, low=300.0, high=3_400.0),
            "below 2 kHz": partial(_limit_band, low=0.0, high=2_000.0),
        },
        "time": {
            "10 % slower": partial(_change_speed, factor=0.9),
            "10 % faster": partial(_change_speed, factor=1.1),
            "2 s of silence around": partial(_pad, seconds=2.0),
        },
        "control": {"silence in its place": _silence},
    }
    return {
        group: {name: _seeded(f"{group}/{name}", each) for name, each in tests.items()}
        for group, tests in groups.items()
    }


def _seeded(name: str, function: Callable[..., torch.Tensor]) -> Corruption:
    """A corruption with a random generator that depends on its name and the clip."""

    def corrupt(waveform: np.ndarray, clip: str, epoch: int = 0) -> np.ndarray:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{name}/{clip}".encode()))
        corrupted: np.ndarray = function(torch.as_tensor(waveform), generator).float().numpy()
        return corrupted

    return corrupt


def _codec(waveform: torch.Tensor, _: torch.Generator, transcode: Callable, codec: Any) -> torch.Tensor:
    return torch.from_numpy(transcode(waveform.numpy(), codec))


def _noise(waveform: torch.Tensor, generator: torch.Generator, folder: str, ratio: float) -> torch.Tensor:
    sounds = _mono_recordings(folder)
    if sounds:
        chosen = sounds[int(torch.randint(len(sounds), (), generator=generator))]
        noise = excerpt(chosen, len(waveform), generator)
    else:
        noise = colored_noise(len(waveform), "pink", generator)
    return add_noise(waveform, noise, torch.tensor(ratio))


def _room(waveform: torch.Tensor, generator: torch.Generator, folder: str) -> torch.Tensor:
    responses = _channels(folder)
    if responses:
        return reverberate(waveform, responses[int(torch.randint(len(responses), (), generator=generator))])
    return reverberate(waveform, room_response(0.4, 3.0, generator))


def _lose_packets(waveform: torch.Tensor, generator: torch.Generator, rate: float) -> torch.Tensor:
    """Packets of 20 ms are zero, without concealment."""
    lost = torch.rand(-(-len(waveform) // LOST_PACKET), generator=generator) < rate
    return waveform * ~lost.repeat_interleave(LOST_PACKET)[: len(waveform)]


def _scale(waveform: torch.Tensor, _: torch.Generator, decibels: float) -> torch.Tensor:
    return waveform * 10 ** (decibels / 20)


def _clip(waveform: torch.Tensor, _: torch.Generator) -> torch.Tensor:
    """Amplified until one sample in twenty is at full scale."""
    loud = torch.quantile(waveform.abs(), 0.95).clamp(min=1e-6)
    return (waveform / loud).clamp(-1, 1)


def _add_offset(waveform: torch.Tensor, _: torch.Generator) -> torch.Tensor:
    return (waveform + 0.05).clamp(-1, 1)


def _limit_band(waveform: torch.Tensor, _: torch.Generator, low: float, high: float) -> torch.Tensor:
    """Fourth order at each end; scaled so that the filters do not clip."""
    scale = 4 * waveform.abs().max().clamp(min=1e-12)
    limited = waveform / scale
    for _order in range(2):
        limited = lowpass_biquad(limited, SAMPLING_RATE, high)
        limited = highpass_biquad(limited, SAMPLING_RATE, low) if low else limited
    return limited * scale


def _change_speed(waveform: torch.Tensor, _: torch.Generator, factor: float) -> torch.Tensor:
    """Faster or slower playback, which changes the pitch too."""
    return Resample(round(100 * factor), 100)(waveform)


def _pad(waveform: torch.Tensor, _: torch.Generator, seconds: float) -> torch.Tensor:
    padding = round(seconds * SAMPLING_RATE)
    return torch.nn.functional.pad(waveform, (padding, padding))


def _silence(waveform: torch.Tensor, _: torch.Generator) -> torch.Tensor:
    return torch.zeros_like(waveform)


@cache
def _mono_recordings(folder: str) -> Sequence[torch.Tensor]:
    return [each.mean(0) for each in recordings(folder) if each.mean(0).square().mean() > 1e-10]


@cache
def _channels(folder: str) -> Sequence[torch.Tensor]:
    return [channel for each in recordings(folder) for channel in each] if folder and Path(folder).is_dir() else []
