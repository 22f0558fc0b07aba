"""Fixed corruptions of the audio of a clip, for measuring the robustness of a model."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import torch

from audio_emotion.data.augmentation import AugmentationStrengths, WaveformAugmentation

NO_AUGMENTATION = dict.fromkeys(
    [f"{name}_probability" for name in ("speed", "reverberation", "noise", "gain", "pause", "telephone")], 0.0
)
CORRUPTIONS = {  # each is applied to every clip
    "telephone": {"telephone_probability": 1.0, "telephone_rates": (8_000,)},  # half of the clips lose the lows too
    "pauses": {"pause_probability": 1.0, "pause": (10.0, 10.0)},  # before the clip, after it, or both
    "noise": {"noise_probability": 1.0, "snr": (10.0, 10.0)},  # white, pink or brown
    "room": {"reverberation_probability": 1.0, "rt60": (0.4, 0.4), "direct_to_reverberant": (3.0, 3.0)},
    "quiet": {"gain_probability": 1.0, "gain": (-30.0, -30.0)},
}


def get_corruption(name: str) -> Callable[[np.ndarray, str, int], np.ndarray]:
    """A function that corrupts the waveform `(S,)` of a clip, given its id; the same each time.

    The corruptions are the augmentations of the training recipes (`AugmentationStrengths`), at one strength.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"Expected a corruption among {sorted(CORRUPTIONS)}, got {name!r}.")
    augment = WaveformAugmentation(AugmentationStrengths(**{**NO_AUGMENTATION, **CORRUPTIONS[name]}))  # type: ignore[arg-type]

    def corrupt(waveform: np.ndarray, clip: str, epoch: int = 0) -> np.ndarray:
        return augment(torch.as_tensor(waveform), zlib.crc32(f"{name}/{clip}".encode())).numpy()

    return corrupt
