"""Codecs keep the length and the time of a clip, and lose what they are known to lose."""

from __future__ import annotations

import numpy as np
import pytest

from audio_emotion.evaluation.codecs import CODECS, transcode
from audio_emotion.evaluation.corruptions import robustness_tests

RATE = 16_000


def tone_and_silence() -> np.ndarray:
    """A tone of 440 Hz and weak noise between 0.5 and 1.5 s of two seconds."""
    seconds = np.arange(2 * RATE) / RATE
    inside = (seconds > 0.5) & (seconds < 1.5)
    noise = np.random.default_rng(0).normal(0, 0.01, len(seconds))
    return (inside * (0.3 * np.sin(2 * np.pi * 440 * seconds) + noise)).astype(np.float32)


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_keeps_length_pitch_and_time(name):
    clip = tone_and_silence()
    coded = transcode(clip, CODECS[name])
    assert coded.shape == clip.shape
    assert coded.dtype == np.float32
    assert not np.array_equal(coded, clip)
    spectrum = np.abs(np.fft.rfft(coded))
    assert abs(spectrum.argmax() * RATE / len(clip) - 440) < 2
    middle = np.arange(2 * RATE)[(np.abs(coded) > 0.1)]
    assert abs(middle.min() - 0.5 * RATE) < 0.03 * RATE
    assert abs(middle.max() - 1.5 * RATE) < 0.03 * RATE


@pytest.mark.parametrize("name", ["amr-12", "amr-5", "mu-law"])
def test_telephone_codecs_remove_what_is_above_4_khz(name):
    clip = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    power = np.abs(np.fft.rfft(transcode(clip, CODECS[name]))) ** 2
    assert power[4_200:].sum() < 0.01 * power.sum()


def test_every_test_of_the_report_is_deterministic_and_changes_a_clip():
    clip = tone_and_silence()
    first, second = robustness_tests(), robustness_tests()
    assert {"codec", "noise", "room", "packets", "level", "band", "time", "control"} == set(first)
    for group, tests in first.items():
        for name, corrupt in tests.items():
            once, again = corrupt(clip, "a", 0), second[group][name](clip, "a", 7)
            np.testing.assert_array_equal(once, again, err_msg=f"{group}, {name}")
            assert len(once) != len(clip) or np.abs(once - clip).max() > 1e-4, (group, name)
            assert np.isfinite(once).all()


def test_noise_has_the_requested_ratio():
    clip = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    for decibels in (20, 0):
        added = robustness_tests()["noise"][f"{decibels} dB"](clip, "a", 0) - clip
        assert 10 * np.log10(np.mean(clip**2) / np.mean(added**2)) == pytest.approx(decibels, abs=0.1)


def test_lost_packets_are_silent_and_as_many_as_stated():
    clip = np.ones(100 * RATE, np.float32)
    left = robustness_tests()["packets"]["20 % lost"](clip, "a", 0).reshape(-1, 320)
    assert set(left.mean(1)) == {0.0, 1.0}
    assert left.mean() == pytest.approx(0.8, abs=0.02)
