"""Generated voice-like clips with exactly known emotion, to test that training works.

A clip is generated from three independent uniform variables, each scaled to 0..1:

    pitch  p = log(F0 / 80 Hz) / log(5)           F0 80..400 Hz, the clip's geometric mean
    level  l = (level + 38 dBFS) / 24 dB          level -38..-14 dBFS, root mean square while the voice sounds
    tilt   t = (tilt + 18 dB/octave) / 15 dB      slope of the harmonics, -18 (soft) .. -3 (bright) dB per octave

and three targets are smooth functions of them, with s(x) = 1 / (1 + exp(-6 (x - 0.5))):

    activation = s(0.7 l + 0.3 p)     valence = s(0.75 t + 0.25 p)     dominance = s(0.6 (1 - p) + 0.4 l)

From the weights, the correlations of the three sums are 0.12 (activation, valence), 0.18 (activation, dominance) and
-0.26 (valence, dominance). The emotion is the quadrant of activation and valence, cut at 0.5. Duration, rhythm,
pauses, vibrato, jitter, noise and the speaker's formants carry no information. A front end that normalizes the level
of each clip removes `l`, so that activation and dominance cannot be predicted.

Scores on this corpus show that regression works; they mean nothing for emotion in people.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile

from audio_emotion.data.corpora.corpus_info import CorpusInfo
from audio_emotion.data.protocols import Protocol

SPEAKERS = tuple(f"synthetic/{number:02d}" for number in range(1, 11))

INFO = CorpusInfo(
    name="synthetic",
    license="Apache-2.0",
    citation="Made by this package; no recordings.",
    emotions=("happy", "angry", "sad", "calm"),
    dimensions_source="synthetic",
    speech="no speech at all: sounds made by code",
    protocols={"synthetic-10": Protocol(SPEAKERS[:6], SPEAKERS[6:8], SPEAKERS[8:])},
    default_protocol="synthetic-10",
)
SAMPLING_RATE = 16_000

PITCH_RANGE = (80.0, 400.0)  # Hz
LEVEL_RANGE = (-38.0, -14.0)  # dBFS
TILT_RANGE = (-18.0, -3.0)  # dB per octave
HIGHEST_HARMONIC = 7_500.0  # Hz; leaves room for vibrato below half the sampling rate
PERIOD_POINTS = 2_048  # of the table that holds one period of the voice; a power of two
CONTROL_STEP = 0.01  # s between points of the pitch contour


def rows(count: int, seed: int, first: int = 0) -> Iterator[dict[str, Any]]:
    """Clips `first` .. `first + count - 1` of the unlimited corpus with this seed.

    A clip depends on `(seed, index)` only, so disjoint ranges are disjoint clips. All are labeled.
    Speakers alternate, so ten consecutive clips have ten speakers.

    Args:
        count: number of clips.
        seed: not negative.
        first: index of the first clip.

    Yields:
        Rows whose `audio["bytes"]` is 16-bit FLAC, mono, 16 kHz, 1.0 to 2.5 s.
    """
    for index in range(first, first + count):
        random = np.random.default_rng([seed, index])
        pitch, level, tilt = random.random(3)
        activation, valence, dominance = _dimensions(pitch, level, tilt)
        speaker = index % len(SPEAKERS)
        voice = _voice(
            random,
            fundamental=PITCH_RANGE[0] * (PITCH_RANGE[1] / PITCH_RANGE[0]) ** pitch,
            level=LEVEL_RANGE[0] + level * (LEVEL_RANGE[1] - LEVEL_RANGE[0]),
            tilt=TILT_RANGE[0] + tilt * (TILT_RANGE[1] - TILT_RANGE[0]),
            # a short vocal tract has high formants: 0.85 to 1.2 times those of a neutral tube
            formant_scale=0.85 * (1.2 / 0.85) ** (speaker / (len(SPEAKERS) - 1)),
        )
        flac = io.BytesIO()
        soundfile.write(flac, voice, SAMPLING_RATE, format="FLAC", subtype="PCM_16")
        yield {
            "id": f"{INFO.name}/{seed}/{index:06d}",
            "audio": {"bytes": flac.getvalue(), "path": None},
            "speaker": SPEAKERS[speaker],
            "gender": None,
            "emotion": _quadrant(activation, valence),
            "activation": activation,
            "valence": valence,
            "dominance": dominance,
        }


def _dimensions(pitch: float, level: float, tilt: float) -> tuple[float, float, float]:
    """Activation, valence and dominance; with the formulas at the top of this file."""
    sums = (0.7 * level + 0.3 * pitch, 0.75 * tilt + 0.25 * pitch, 0.6 * (1 - pitch) + 0.4 * level)
    activation, valence, dominance = (1 / (1 + math.exp(-6 * (value - 0.5))) for value in sums)
    return activation, valence, dominance


def _quadrant(activation: float, valence: float) -> str:
    if activation >= 0.5:
        return "happy" if valence >= 0.5 else "angry"
    return "calm" if valence >= 0.5 else "sad"


def _voice(
    random: np.random.Generator, fundamental: float, level: float, tilt: float, formant_scale: float
) -> np.ndarray:
    """A voiced clip in float32, (S,)."""
    samples = int(random.uniform(1.0, 2.5) * SAMPLING_RATE)
    phase = _phase(random, fundamental, samples)  # (S,) in periods
    envelope = _syllables(random, samples)  # (S,) in 0..1

    period = _period(fundamental, tilt, formant_scale)  # (P,)
    position = phase * PERIOD_POINTS
    before = position.astype(np.int32)
    fraction = (position - before).astype(np.float32)
    before &= PERIOD_POINTS - 1
    voice = period.take(before) + fraction * (np.roll(period, -1) - period).take(before)  # (S,)
    voice *= envelope

    sounding = math.sqrt(float(np.mean(np.square(voice[envelope > 0.1]))))
    voice *= np.float32(10 ** (level / 20) / sounding)
    noise_level = level - random.uniform(25.0, 40.0)  # dBFS
    return voice + np.float32(10 ** (noise_level / 20)) * random.standard_normal(samples, dtype=np.float32)


def _phase(random: np.random.Generator, fundamental: float, samples: int) -> np.ndarray:
    """Running phase in periods, (S,): vibrato and jitter around a geometric mean of `fundamental` Hz."""
    times = np.arange(0.0, samples / SAMPLING_RATE + CONTROL_STEP, CONTROL_STEP)
    vibrato = random.uniform(0.003, 0.015) * np.sin(2 * np.pi * (random.uniform(4.5, 6.5) * times + random.random()))
    jitter = random.uniform(0.001, 0.005) * random.standard_normal(len(times))
    deviation = vibrato + jitter
    contour = fundamental * np.exp(deviation - deviation.mean())  # Hz
    contour = np.interp(np.arange(samples) / SAMPLING_RATE, times, contour)  # (S,)
    return random.random() + np.cumsum(contour) / SAMPLING_RATE


def _syllables(random: np.random.Generator, samples: int) -> np.ndarray:
    """Loudness over time in 0..1, (S,): three to six syllables a second with soft edges, and pauses between some."""
    most = 40
    lengths = random.uniform(0.14, 0.28, most)  # s
    gaps = random.uniform(0.01, 0.04, most) + (random.random(most) < 0.2) * random.uniform(0.1, 0.25, most)
    gaps[0] = random.uniform(0.03, 0.12)  # silence before the voice
    heights = random.uniform(0.6, 1.0, most)

    onsets = np.cumsum(gaps) + np.cumsum(lengths) - lengths
    inside = onsets + lengths < samples / SAMPLING_RATE - 0.03
    onsets, lengths, heights = onsets[inside], lengths[inside], heights[inside]
    silence = np.zeros_like(onsets)
    corners = np.stack([onsets, onsets + 0.25 * lengths, onsets + 0.6 * lengths, onsets + lengths], axis=1)
    values = np.stack([silence, heights, 0.9 * heights, silence], axis=1)
    line = np.interp(np.arange(samples) / SAMPLING_RATE, corners.ravel(), values.ravel())
    return np.sin(np.float32(np.pi / 2) * line.astype(np.float32)) ** 2


def _period(fundamental: float, tilt: float, formant_scale: float) -> np.ndarray:
    """One period of the voice, (P,): harmonics that fall by `tilt` dB per octave, with four mild formants on them."""
    harmonics = np.arange(1, int(HIGHEST_HARMONIC / fundamental) + 1)
    frequencies = harmonics * fundamental
    formants = formant_scale * np.array([500.0, 1_500.0, 2_500.0, 3_500.0])  # Hz, a uniform tube of 17 cm
    octaves_away = np.log2(frequencies[:, None] / formants)
    decibels = tilt * np.log2(harmonics) + 6.0 * np.exp(-0.5 * (octaves_away / 0.15) ** 2).sum(axis=1)
    amplitudes = 10 ** (decibels / 20)

    # phases of low peak factor (Schroeder 1970): loud clips stay inside full scale
    power = np.square(amplitudes) / np.square(amplitudes).sum()
    phases = -2 * np.pi * (np.cumsum(np.cumsum(power)) - np.cumsum(power))
    spectrum = np.zeros(PERIOD_POINTS // 2 + 1, dtype=np.complex128)
    spectrum[harmonics] = amplitudes * np.exp(1j * phases)
    return np.fft.irfft(spectrum).astype(np.float32)
