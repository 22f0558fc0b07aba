"""Flag problems of a recording from measurements of the source and from the waveform that a model receives."""

# SPDX-License-Identifier: Apache-2.0

import importlib
import importlib.util
import sys
import threading
from functools import cache
from typing import Any

import numpy as np

from .audio_resampling import resample

# Thresholds of the flags.
SHORT = 1.0  # seconds
SILENCE = 1e-3  # peak, -60 dB of full scale; RAVDESS's quietest clips peak 17 dB above it
FULL_SCALE = 0.99  # a lower peak is no clipping
CANCELED = 0.1  # of the power that the mean of independent channels keeps
TELEPHONE = 4200.0  # hertz; telephone speech, and a file at 8 kHz, has nothing above
RUMBLE = 100.0  # hertz; power below is not counted as speech
# Fraction of the power of speech, -37 dB: RAVDESS has at least -32.6 dB above TELEPHONE; 16-bit rounding of its
# quietest clips at 8 kHz adds at most -40.2 dB.
NARROW = 2e-4
BLOCK = 1024  # samples per spectrum
BLOCKS_AT_ONCE = 1024  # spectra in memory
FRAME = 0.05  # seconds
DOMINANT, OFTEN = 10.0, 0.1  # ratio of powers, and fraction of loud frames that a channel dominates, as in a call
QUIET = 2e-2  # fraction of the power of the loudest frame, -17 dB
SILERO_RATE, SILERO_PIECE = 16000, 512  # hertz, and samples that its detector expects
BRIDGED = 4  # quiet frames next to a loud one that are no pause: 0.2 s
PAUSES = 0.72  # fraction of pauses; at most 0.69 in RAVDESS, and at least 0.76 with 10 s of zeros before
STEADY = 1.5  # dB, standard deviation of the level of loud frames; at least 1.7 in clips of five speech corpora
SPOKEN, SPOKEN_IN_A_ROW = 0.3, 3  # Silero's probability, and pieces of 32 ms; 0.5 misses 3 % of acted speech

# Measurements of 50 ms of a clip, before downmix and resampling, which hide problems.
MEASUREMENTS = np.dtype(
    [
        ("start", "f8"),  # seconds
        ("seconds", "f8"),
        ("peak", "f4"),  # of all channels
        ("swing", "f4"),  # the peak without the mean (DC) of each channel
        ("clipped", "f4"),  # the highest peak of a channel that has three samples in a row at it; else 0
        ("kept", "f4"),  # power of the mean of the channels
        ("independent", "f4"),  # the same, if the channels were independent
        ("dominant", "i2"),  # the channel that exceeds all others by `DOMINANT`; -1 if there is none
    ]
)


def measure_frames(samples: np.ndarray, rate: float, start: float) -> tuple[np.ndarray, np.ndarray]:
    """Measure the frames of a chunk `(S, C)` that starts at `start` seconds.

    Returns:
        `MEASUREMENTS` `(N,)`, and the power of each channel times its number of samples, `(C,)`.
    """
    length, channels = round(FRAME * rate), samples.shape[1]
    by_channel = np.ascontiguousarray(samples.T)  # (C, S): reductions over the last axis are fast
    whole = len(samples) // length * length
    measured, powers = [], np.zeros(channels)
    for frames in (by_channel[:, :whole].reshape(channels, -1, length), by_channel[:, None, whole:]):  # (C, N, L)
        if frames.size == 0:
            continue
        high, low, mean = frames.max(axis=2), frames.min(axis=2), frames.mean(axis=2)  # (C, N)
        peak, power = np.maximum(high, -low), frames.var(axis=2)  # (C, N)
        found = np.zeros(frames.shape[1], MEASUREMENTS)
        found["seconds"] = frames.shape[2] / rate
        found["start"] = start + np.arange(frames.shape[1]) * (length / rate)
        found["peak"] = peak.max(axis=0)
        found["swing"] = np.maximum(high - mean, mean - low).max(axis=0)
        if found["peak"].max() >= FULL_SCALE:
            is_high = np.abs(frames) >= peak[..., None] * (1 - 1e-5)  # (C, N, L)
            in_a_row = (is_high[..., :-2] & is_high[..., 1:-1] & is_high[..., 2:]).any(axis=2)  # (C, N)
            found["clipped"] = np.where(in_a_row, peak, 0).max(axis=0)
        found["kept"] = power[0] if channels == 1 else frames.mean(axis=0).var(axis=1)
        found["dominant"] = -1
        if channels > 1:
            second, first = np.partition(power, -2, axis=0)[-2:]  # (N,)
            found["dominant"] = np.where(first > DOMINANT * second, power.argmax(axis=0), -1)
        found["independent"] = power.mean(axis=0) / channels  # the mean of C such channels has 1 / C of their power
        measured.append(found)
        powers += power.sum(axis=1) * frames.shape[2]
        start += whole / rate
    return np.concatenate(measured), powers


def is_canceled(measurements: np.ndarray) -> bool:
    """Whether the channels cancel each other in their mean."""
    kept, independent = (float((measurements[key] * measurements["seconds"]).sum()) for key in ("kept", "independent"))
    return kept < CANCELED * independent


def _do_channels_differ(measurements: np.ndarray) -> bool:
    """Whether different channels dominate at different times, as those of two speakers on a telephone line."""
    power = measurements["independent"]
    dominant = measurements["dominant"][power >= QUIET * power.max()]
    counts = np.bincount(dominant[dominant >= 0], minlength=1)
    return int((counts >= OFTEN * len(dominant)).sum()) > 1


def find_flags(
    measurements: np.ndarray, waveform: np.ndarray, sampling_rate: int, is_narrow_band: bool
) -> tuple[str, ...]:
    """The flags of a clip or of a part of one, see [`AudioClip`].

    Args:
        measurements: `(N,)`, of the source.
        waveform: `(S,)`, the model's input.
        sampling_rate: of the waveform, in hertz.
        is_narrow_band: whether the whole clip is; a part, such as a vowel, is too short to decide.
    """
    peak = measurements["peak"].max()
    is_silent = measurements["swing"].max() < SILENCE
    is_short = measurements["seconds"].sum() < SHORT * (1 - 1e-9)
    flags = {
        "silence": is_silent,
        "clipped": peak >= FULL_SCALE and measurements["clipped"].max() >= peak * (1 - 1e-5),
        "short": is_short,
        "out_of_range": peak > 1.0,
        "canceled": is_canceled(measurements),
        "channels_differ": not is_silent and _do_channels_differ(measurements),
        "narrow_band": not is_silent and is_narrow_band,
        "pauses": not is_silent and _is_mostly_pauses(waveform, sampling_rate),
        "no_speech": not is_silent and not _has_speech(waveform, sampling_rate),
    }
    return tuple(flag for flag, is_set in flags.items() if is_set)


def is_narrow_band(waveform: np.ndarray, rate: float) -> bool:
    """Whether a waveform `(S,)` at `rate` hertz has almost no power above the telephone band."""
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


def _is_mostly_pauses(waveform: np.ndarray, rate: float) -> bool:
    """Whether most of a waveform `(S,)` at `rate` hertz is far below its loudest part, at any gain."""
    power = _frame_powers(waveform, rate)  # (N,)
    if len(power) == 0:
        return False
    loud = power >= QUIET * power.max()  # (N,)
    speech = np.convolve(loud, np.ones(2 * BRIDGED + 1))[BRIDGED : BRIDGED + len(loud)] > 0.5  # (N,)
    return bool((~speech).mean() > PAUSES)


def _frame_powers(waveform: np.ndarray, rate: float) -> np.ndarray:
    """Power of every 50 ms of a waveform `(S,)`, without DC, `(N,)`."""
    length = round(FRAME * rate)
    frames = waveform[: len(waveform) // length * length].reshape(-1, length)  # (N, L)
    parts = [frames[first : first + BLOCKS_AT_ONCE].var(axis=1) for first in range(0, len(frames), BLOCKS_AT_ONCE)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _has_speech(waveform: np.ndarray, rate: int) -> bool:
    """Whether there may be speech in a waveform `(S,)` at `rate` hertz.

    By Silero's detector, if it is installed. Without it, only what is loud and steady is found to be no speech, such
    as a tone, a hum or a noise: the level of speech changes with every syllable. Less than a second is too short.
    """
    silero, lock = _silero()
    if silero is not None:
        torch = importlib.import_module("torch")
        if rate != SILERO_RATE:
            waveform = resample(waveform, rate, SILERO_RATE)
        with lock, torch.inference_mode():  # the detector keeps a state from piece to piece
            silero.reset_states()
            in_a_row = 0
            for first in range(0, len(waveform), SILERO_PIECE):
                piece = np.zeros(SILERO_PIECE, np.float32)
                piece[: len(waveform) - first] = waveform[first : first + SILERO_PIECE]
                probability = float(silero(torch.from_numpy(piece), SILERO_RATE))
                in_a_row = in_a_row + 1 if probability >= SPOKEN else 0
                if in_a_row == SPOKEN_IN_A_ROW:
                    return True
        return False
    power = _frame_powers(waveform, rate)  # (N,)
    if len(power) < SHORT / FRAME or power.max() == 0:
        return True
    loud = power[power >= QUIET * power.max()]
    return bool(np.std(10 * np.log10(loud)) >= STEADY)


@cache
def _silero() -> tuple[Any, Any]:
    """Silero's voice activity detector, whose weights are in its package, and a lock; None where it is missing."""
    if "silero_vad" not in sys.modules and importlib.util.find_spec("silero_vad") is None:  # before torch is imported
        return None, threading.Lock()
    try:
        torch = importlib.import_module("torch")
        threads = torch.get_num_threads()
        detector = importlib.import_module("silero_vad").load_silero_vad()
    except ImportError:
        return None, threading.Lock()
    torch.set_num_threads(threads)  # its import sets one thread
    return detector, threading.Lock()
