"""What is odd about a clip: of its samples as they came, and of the waveform that a model hears."""

# SPDX-License-Identifier: Apache-2.0

import numpy as np

SHORT = 1.0  # seconds; below, an answer carries the flag "short"
SILENCE = 1e-3  # peak, -60 dB of full scale; the quietest of RAVDESS's clips peak at 7 times as much
FULL_SCALE = 0.99  # a peak that may come from clipping
CANCELLED = 0.1  # of the power that channels which have nothing to do with each other keep when they are averaged
TELEPHONE = 4200.0  # hertz; a telephone, and a file at 8 kHz, end below
RUMBLE = 100.0  # hertz; what lies below is no speech
# Of the power of speech, -37 dB: RAVDESS has at least -32.6 dB above TELEPHONE; at 8 kHz, what 16-bit samples of its
# quietest clips bring in by rounding is at most -40.2 dB.
NARROW = 2e-4
BLOCK = 1024  # samples of a spectrum
BLOCKS_AT_ONCE = 1024  # spectra in memory
FRAME = 0.05  # seconds
QUIET = 2e-2  # of the power of the loudest frame, -17 dB
BRIDGED = 4  # quiet frames after and before a loud one that are no pause: 0.2 s
PAUSES = 0.72  # share of pauses; at most 0.69 in RAVDESS, and at least 0.76 with 10 s of zeros before


def mixed_down(samples: np.ndarray) -> tuple[np.ndarray, bool]:
    """The mean of the channels or, where they cancel each other, the loudest one.

    Args:
        samples: `(S, C)`.

    Returns:
        one channel `(S,)`, and whether they cancel.
    """
    mean, channels = samples.mean(axis=1), samples.shape[1]  # (S,)
    if channels == 1:
        return mean, False
    powers = [float(samples[:, channel].var()) for channel in range(channels)]
    # Of channels with the same power that are independent, the mean has the `channels`-th part.
    if mean.var() < CANCELLED * np.mean(powers) / channels:
        return samples[:, int(np.argmax(powers))], True
    return mean, False


def is_narrow_band(waveform: np.ndarray, rate: float) -> bool:
    """Whether a waveform `(S,)` at `rate` hertz has next to nothing above what a telephone lets through."""
    length = min(BLOCK, len(waveform))
    blocks = waveform[: len(waveform) // length * length].reshape(-1, length)  # (N, L)
    taper = np.hanning(length).astype(np.float32)  # (L,)
    power = np.zeros(length // 2 + 1)  # (L / 2 + 1,)
    for first in range(0, len(blocks), BLOCKS_AT_ONCE):
        spectra = np.fft.rfft(blocks[first : first + BLOCKS_AT_ONCE] * taper)  # (n, L / 2 + 1)
        power += (np.abs(spectra) ** 2).sum(axis=0)
    frequencies = np.fft.rfftfreq(length, 1 / rate)  # (L / 2 + 1,), hertz
    speech = power[frequencies > RUMBLE].sum()
    return bool(power[frequencies > TELEPHONE].sum() < NARROW * speech)


def flags_of(
    samples: np.ndarray, duration: float, waveform: np.ndarray, rate: float, narrow_band: bool
) -> tuple[str, ...]:
    """What is odd about a clip or a part of one.

    Args:
        samples: `(S, C)`, as they came, before averaging and resampling hide what is odd.
        duration: in seconds.
        waveform: `(S',)`, as the model hears it.
        rate: of the waveform, in hertz.
        narrow_band: whether the whole clip is, see [`is_narrow_band`]: a single vowel tells nothing.
    """
    level = np.abs(samples)  # (S, C)
    peak = level.max()
    limited = level >= peak * (1 - 1e-5)  # at the highest level that occurs
    silent = peak < SILENCE
    found = {
        "silence": silent,
        "clipped": peak >= FULL_SCALE and (limited[:-2] & limited[1:-1] & limited[2:]).any(),  # three in a row
        "short": duration < SHORT,
        "out_of_range": peak > 1.0,
        "cancelled": mixed_down(samples)[1],
        "narrow_band": not silent and narrow_band,
        "pauses": not silent and _is_mostly_pauses(waveform, rate),
    }
    return tuple(flag for flag, holds in found.items() if holds)


def _is_mostly_pauses(waveform: np.ndarray, rate: float) -> bool:
    """Whether most of a waveform `(S,)` at `rate` hertz is far below its loudest part, at any gain."""
    length = round(FRAME * rate)
    frames = waveform[: len(waveform) // length * length].reshape(-1, length)  # (N, L)
    if len(frames) == 0:
        return False
    power = (frames**2).mean(axis=1)  # (N,)
    loud = power >= QUIET * power.max()  # (N,)
    speech = np.convolve(loud, np.ones(2 * BRIDGED + 1))[BRIDGED : BRIDGED + len(loud)] > 0.5  # (N,)
    return bool((~speech).mean() > PAUSES)
