"""Ways in which a clip may reach a model that are not those in which it was recorded."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import torch

from audio_emotion.data.augmentation import AugmentationStrengths, WaveformAugmentation

NOTHING = dict.fromkeys(
    [f"{name}_probability" for name in ("speed", "reverberation", "noise", "gain", "pause", "telephone")], 0.0
)
CONDITIONS = {  # what is changed of every clip, always
    "telephone": {"telephone_probability": 1.0, "telephone_rates": (8_000,)},  # every other one without its lows too
    "pauses": {"pause_probability": 1.0, "pause": (10.0, 10.0)},  # before, after, or both
    "noise": {"noise_probability": 1.0, "snr": (10.0, 10.0)},  # white, pink or brown
    "room": {"reverberation_probability": 1.0, "rt60": (0.4, 0.4), "direct_to_reverberant": (3.0, 3.0)},
    "quiet": {"gain_probability": 1.0, "gain": (-30.0, -30.0)},
}


def under(condition: str) -> Callable[[np.ndarray, str, int], np.ndarray]:
    """What a condition does to a waveform `(S,)` of a clip of some name; the same each time.

    The changes are those with which students may have been trained (`AugmentationStrengths`), at one strength.

    Raises:
        ValueError: for a condition that there is not.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"Expected a condition among {sorted(CONDITIONS)}, got {condition!r}.")
    change = WaveformAugmentation(AugmentationStrengths(**{**NOTHING, **CONDITIONS[condition]}))  # type: ignore[arg-type]

    def changed(waveform: np.ndarray, name: str, epoch: int = 0) -> np.ndarray:
        return change(torch.as_tensor(waveform), zlib.crc32(f"{condition}/{name}".encode())).numpy()

    return changed
