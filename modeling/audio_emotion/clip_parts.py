"""Parts of a clip that are judged on their own: where windows and turns begin and end, and what is odd about each."""

# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence
from dataclasses import dataclass

from .audio_input import SHORTEST, AudioClip
from .speaker_turns import HeardTurn


@dataclass(frozen=True)
class HeardWindow:
    """A window from `start` to `end`, in seconds, with the flags of this part of its clip."""

    start: float
    end: float
    flags: tuple[str, ...]


def heard_windows(clip: AudioClip, window: float, hop: float | None) -> tuple[HeardWindow, ...]:
    """The windows of a clip, see [`window_bounds`], none of which ends after it."""
    rate = clip.sampling_rate
    edges = [
        (first / rate, min(stop / rate, clip.duration))
        for first, stop in window_bounds(len(clip.waveform), window, hop, rate)
    ]
    return tuple(HeardWindow(start, end, clip.flags_between(start, end)) for start, end in edges)


def window_bounds(samples: int, window: float, hop: float | None, rate: int) -> list[tuple[int, int]]:
    """First sample of each window, and the one after its last.

    The last window ends with the clip and may be shorter, but never shorter than a clip may be: what is left over then
    stays unheard. A clip shorter than a window is one window.

    Args:
        samples: in the clip.
        window: its length, in seconds.
        hop: from one start to the next, in seconds; as long as a window if None.
        rate: samples per second.
    """
    length, step = round(window * rate), max(round((hop or window) * rate), 1)
    bounds = [(0, min(length, samples))]
    for start in range(step, samples, step):
        if bounds[-1][1] == samples or samples - start < SHORTEST * rate:
            break
        bounds.append((start, min(start + length, samples)))
    return bounds


def turn_bounds(turns: Sequence[HeardTurn], samples: int, rate: int) -> list[tuple[int, int]]:
    """First sample of each turn that can be judged, and the one after its last, in a clip of so many samples."""
    judged = [heard.turn for heard in turns if heard.error is None]
    return [(round(turn.start * rate), min(round(turn.end * rate), samples)) for turn in judged]
