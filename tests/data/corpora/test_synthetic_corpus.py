"""Synthetic clips sound as their labels say, and depend on seed and index only."""

import io
import itertools
import math

import numpy as np
import pytest
import soundfile

from audio_emotion.data.corpora import synthetic

DIMENSIONS = ("activation", "valence", "dominance")


@pytest.fixture(scope="module")
def clips():
    """Two hundred rows, and their waveforms."""
    rows = list(synthetic.rows(200, seed=7))
    return rows, [_decode(row) for row in rows]


def _decode(row):
    waveform, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
    assert rate == 16_000
    return waveform


def _inverse(value):
    return 0.5 + math.log(value / (1 - value)) / 6


def _sources(row):
    """Pitch, level and tilt in 0..1, solved from the three formulas at the top of `synthetic.py`."""
    weights = [[0.3, 0.7, 0.0], [0.25, 0.0, 0.75], [-0.6, 0.4, 0.0]]
    sums = [_inverse(row["activation"]), _inverse(row["valence"]), _inverse(row["dominance"]) - 0.6]
    return np.linalg.solve(weights, sums)


def _spectrum(waveform):
    """Power spectrum of the whole clip and its frequencies."""
    size = 65_536
    return np.abs(np.fft.rfft(waveform, size)) ** 2, np.fft.rfftfreq(size, 1 / 16_000)


def test_measured_level_is_that_of_the_labels(clips):
    for row, waveform in zip(*clips, strict=True):
        frames = waveform[: len(waveform) // 160 * 160].reshape(-1, 160)
        power = np.mean(frames**2, axis=1)
        sounding = power[power > 0.01 * power.max()]
        heard = 10 * math.log10(sounding.mean())

        assert heard == pytest.approx(-38 + 24 * _sources(row)[1], abs=1.0)


def test_strongest_harmonics_lie_at_the_pitch_of_the_labels(clips):
    for row, waveform in zip(*clips, strict=True):
        fundamental = 80 * 5 ** _sources(row)[0]
        power, frequencies = _spectrum(waveform)
        distance = np.abs(frequencies / fundamental - np.round(frequencies / fundamental))
        low = (frequencies > 0.5 * fundamental) & (frequencies < 4.5 * fundamental)

        assert power[low & (distance < 0.1)].sum() > 0.9 * power[low].sum()


def test_measured_slope_depends_on_the_tilt_of_the_labels(clips):
    heard, labeled = [], []
    for row, waveform in zip(*clips, strict=True):
        pitch, _, tilt = _sources(row)
        power, frequencies = _spectrum(waveform)
        bands = [
            power[np.abs(frequencies / (80 * 5**pitch) - harmonic) < 0.2].sum() for harmonic in (1, 2, 3, 4, 5, 6)
        ]
        heard.append(np.polyfit(np.log2([1, 2, 3, 4, 5, 6]), 10 * np.log10(bands), 1)[0])
        labeled.append(-18 + 15 * tilt)

    assert np.corrcoef(heard, labeled)[0, 1] > 0.8


def test_dimensions_are_spread_and_not_collinear(clips):
    values = np.array([[row[name] for name in DIMENSIONS] for row in clips[0]])  # (N, 3)
    correlation = np.corrcoef(values.T)

    assert (values.min(axis=0) < 0.15).all()
    assert (values.max(axis=0) > 0.85).all()
    assert (values.std(axis=0) > 0.2).all()
    assert all(abs(correlation[i, j]) < 0.4 for i, j in itertools.combinations(range(3), 2))


def test_emotion_is_the_quadrant_of_activation_and_valence(clips):
    names = {(True, True): "happy", (True, False): "angry", (False, False): "sad", (False, True): "calm"}

    for row in clips[0]:
        assert row["emotion"] == names[row["activation"] >= 0.5, row["valence"] >= 0.5]
    assert {row["emotion"] for row in clips[0]} == set(synthetic.INFO.emotions)


def test_clip_depends_on_seed_and_index_only():
    assert list(synthetic.rows(5, seed=3))[2:] == list(synthetic.rows(3, seed=3, first=2))
    assert next(synthetic.rows(1, seed=3))["audio"] != next(synthetic.rows(1, seed=4))["audio"]


def test_speakers_take_turns(clips):
    assert [row["speaker"] for row in clips[0][:11]] == [*synthetic.SPEAKERS, synthetic.SPEAKERS[0]]
    assert synthetic.SPEAKERS[2] == "synthetic/03"


def test_clips_are_short_mono_and_never_clipped(clips):
    for waveform in clips[1]:
        assert waveform.ndim == 1
        assert 1.0 <= len(waveform) / 16_000 <= 2.5
        assert np.abs(waveform).max() < 0.99


@pytest.mark.parametrize(
    ("pitch", "level", "tilt"), [(0.5, 0.5, 0.5), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0.2, 0.9, 0.4)]
)
def test_dimensions_are_the_documented_functions_of_pitch_level_and_tilt(pitch, level, tilt):
    sums = np.array([0.7 * level + 0.3 * pitch, 0.75 * tilt + 0.25 * pitch, 0.6 - 0.6 * pitch + 0.4 * level])

    assert synthetic._dimensions(pitch, level, tilt) == pytest.approx(0.5 + 0.5 * np.tanh(3 * (sums - 0.5)))
