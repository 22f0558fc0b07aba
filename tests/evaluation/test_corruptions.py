"""Every corruption changes every clip, deterministically, in the way that its name says."""

import numpy as np
import pytest

from audio_emotion.evaluation.corruptions import CORRUPTIONS, get_corruption


def power_above(waveform, frequency):
    return np.sum(np.abs(np.fft.rfft(waveform))[frequency * len(waveform) // 16_000 :] ** 2)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_changes_every_clip_deterministically(name):
    clip = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)

    corrupt = get_corruption(name)
    once, again, other = corrupt(clip, "a", 0), get_corruption(name)(clip, "a", 3), corrupt(clip, "b", 0)

    np.testing.assert_array_equal(once, again)
    assert once.dtype == np.float32
    for corrupted in (once, other):
        assert len(corrupted) != len(clip) or np.abs(corrupted - clip).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("quiet", lambda corrupted, clip: np.allclose(corrupted, clip * 10**-1.5, atol=1e-7)),
        ("pauses", lambda corrupted, clip: len(corrupted) - len(clip) in (160_000, 320_000)),
        (
            "noise",
            lambda corrupted, clip: abs(10 * np.log10(np.sum(clip**2) / np.sum((corrupted - clip) ** 2)) - 10) < 0.1,
        ),
        ("telephone", lambda corrupted, clip: power_above(corrupted, 4_500) < 1e-2 * power_above(clip, 4_500)),
        ("room", lambda corrupted, clip: np.isclose(np.sum(corrupted**2), np.sum(clip**2), rtol=1e-3)),
    ],
)
def test_a_corruption_has_the_documented_effect(name, holds):
    clip = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)

    assert holds(get_corruption(name)(clip, "a", 0), clip)
