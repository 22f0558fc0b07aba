"""What may be asked of the pipeline beside a clip: checked, and made plain Python."""

# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from .audio_input import SHORTEST
from .speaker_turns import SpeakerTurns

SHORTEST_HOP = 0.01  # seconds; below, an hour of speech would take days
PARAMETERS = {
    "on_error",
    "window",
    "hop",
    "segments",
    "return_frames",
    "top_k",
    "scale",
    "return_embedding",
    "return_uncertainty",
}


def checked_parameters(given: dict[str, Any]) -> dict[str, Any]:
    """The same parameters, numbers of numpy as those of Python and `segments` read.

    Raises:
        TypeError: on an unknown one.
        ValueError: on one that makes no sense.
    """
    if unknown := set(given) - PARAMETERS:
        raise TypeError(f"Unknown parameters {sorted(unknown)}. The pipeline knows {sorted(PARAMETERS)}.")
    checked = dict(given)
    if (on_error := given.get("on_error", "raise")) not in ("raise", "skip"):
        raise ValueError(f'`on_error` must be "raise" or "skip", got {on_error!r}.')
    if (top_k := given.get("top_k")) is not None:
        checked["top_k"] = whole_number("top_k", top_k, "emotions")
    if (scale := given.get("scale")) is not None:
        if not _is_scale(scale):
            raise ValueError(f"`scale` must be two numbers, the lower one first, as in (1, 7), got {scale!r}.")
        checked["scale"] = (float(scale[0]), float(scale[1]))
    for name, least in (("window", SHORTEST), ("hop", SHORTEST_HOP)):
        if (seconds := given.get(name)) is not None:
            if not (_is_number(seconds) and seconds >= least):
                raise ValueError(f"`{name}` must be at least {least} seconds, got {seconds!r}.")
            checked[name] = float(seconds)
    if (segments := given.get("segments")) is not None and not isinstance(segments, SpeakerTurns):
        checked["segments"] = SpeakerTurns.read(segments)
    return checked


def whole_number(name: str, value: Any, what: str) -> int:
    """A parameter that counts something.

    Raises:
        ValueError: where it is no whole number of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"`{name}` must be a whole number of {what}, at least 1, got {value!r}.")
    return int(value)


def _is_scale(value: Any) -> bool:
    is_row = isinstance(value, np.ndarray) and value.ndim == 1
    if not (is_row or isinstance(value, Sequence)) or len(value) != 2:
        return False
    return all(map(_is_number, value)) and bool(value[0] < value[1])


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
