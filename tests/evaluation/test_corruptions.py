"""Conditions change every clip, the same way each time."""

import numpy as np
import pytest

from audio_emotion.evaluation.corruptions import CONDITIONS, under


def power_above(waveform, frequency):
    return np.sum(np.abs(np.fft.rfft(waveform))[frequency * len(waveform) // 16_000 :] ** 2)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_changes_every_clip_the_same_way_each_time(condition):
    clip = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)

    once, again, other = under(condition)(clip, "a", 0), under(condition)(clip, "a", 3), under(condition)(clip, "b", 0)

    np.testing.assert_array_equal(once, again)
    assert once.dtype == np.float32
    for heard in (once, other):
        assert len(heard) != len(clip) or np.abs(heard - clip).max() > 1e-3


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("quiet", lambda heard, clip: np.allclose(heard, clip * 10**-1.5, atol=1e-7)),
        ("pauses", lambda heard, clip: len(heard) - len(clip) in (160_000, 320_000)),
        ("noise", lambda heard, clip: abs(10 * np.log10(np.sum(clip**2) / np.sum((heard - clip) ** 2)) - 10) < 0.1),
        ("telephone", lambda heard, clip: power_above(heard, 4_500) < 1e-2 * power_above(clip, 4_500)),
        ("room", lambda heard, clip: np.isclose(np.sum(heard**2), np.sum(clip**2), rtol=1e-3)),
    ],
)
def test_a_condition_is_what_its_name_says(condition, holds):
    clip = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)

    assert holds(under(condition)(clip, "a", 0), clip)
