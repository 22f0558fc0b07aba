"""Parameters of a call of the pipeline."""

# SPDX-License-Identifier: Apache-2.0

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from .audio_io import SHORTEST
from .pipeline_segments import SpeakerSegments, positive_integer

SHORTEST_HOP = 0.01  # seconds; shorter hops would take days for an hour of speech
PARAMETERS = {
    "on_error",
    "window",
    "hop",
    "segments",
    "return_frames",
    "max_duration",
    "top_k",
    "scale",
    "return_embedding",
    "return_uncertainty",
    "channels",
    "abstain",
}


def validate_parameters(given: dict[str, Any]) -> dict[str, Any]:
    """Check the pipeline's parameters; numpy numbers become Python's, and `segments` a [`SpeakerSegments`].

    Raises:
        TypeError: on an unknown parameter.
        ValueError: on an invalid value.
    """
    if unknown := set(given) - PARAMETERS:
        raise TypeError(f"Unknown parameters {sorted(unknown)}. The pipeline has {sorted(PARAMETERS)}.")
    checked = dict(given)
    if (on_error := given.get("on_error", "raise")) not in ("raise", "skip"):
        raise ValueError(f'`on_error` must be "raise" or "skip", got {on_error!r}.')
    if (top_k := given.get("top_k")) is not None:
        checked["top_k"] = positive_integer("top_k", top_k, "emotions")
    if (scale := given.get("scale")) is not None:
        if not _is_scale(scale):
            raise ValueError(f"`scale` must be two numbers, the lower one first, as in (1, 7), got {scale!r}.")
        checked["scale"] = (float(scale[0]), float(scale[1]))
    for name, least in (("window", SHORTEST), ("hop", SHORTEST_HOP), ("max_duration", SHORTEST)):
        if (seconds := given.get(name)) is not None:
            if not (_is_number(seconds) and seconds >= least):
                raise ValueError(f"`{name}` must be at least {least} seconds, got {seconds!r}.")
            checked[name] = float(seconds)
    if (channels := given.get("channels", "mix")) not in ("mix", "split"):
        if isinstance(channels, str):
            raise ValueError(f'`channels` must be "mix", "split" or a number counted from 1, got {channels!r}.')
        checked["channels"] = positive_integer("channels", channels, "channels, counted from 1")
    if (abstain := given.get("abstain")) is not None:
        if not (_is_number(abstain) and 0 <= abstain <= 1):
            raise ValueError(f"`abstain` must be a probability from 0 to 1, got {abstain!r}.")
        checked["abstain"] = float(abstain)
    if (segments := given.get("segments")) is not None:
        checked["segments"] = SpeakerSegments.parse(segments)
    return checked


def _is_scale(value: Any) -> bool:
    is_row = isinstance(value, np.ndarray) and value.ndim == 1
    if not (is_row or isinstance(value, Sequence)) or len(value) != 2:
        return False
    return all(map(_is_number, value)) and bool(value[0] < value[1])


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
