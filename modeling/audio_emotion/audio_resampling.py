"""Resample audio with soxr, at once or chunk by chunk."""

# SPDX-License-Identifier: Apache-2.0

from typing import Any

import numpy as np

try:  # optional: a checkpoint loads without it, and resampling reports that it is missing
    import soxr
except ImportError:
    soxr = None


def resample(samples: np.ndarray, rate: float, sampling_rate: float) -> np.ndarray:
    """Resample `(S,)` or `(S, C)` from `rate` to `sampling_rate`, both in hertz.

    Raises:
        ImportError: where the rates differ and soxr is missing.
    """
    if rate == sampling_rate:
        return samples
    _require_soxr(rate, sampling_rate)
    return soxr.resample(samples, rate, sampling_rate)


def stream_resampler(rate: float, sampling_rate: float) -> Any:
    """A resampler of successive chunks `(S,)`, or None where the rates are the same."""
    if rate == sampling_rate:
        return None
    _require_soxr(rate, sampling_rate)
    return soxr.ResampleStream(rate, sampling_rate, 1, dtype="float32")


def _require_soxr(rate: float, sampling_rate: float) -> None:
    if soxr is None:
        raise ImportError(f"Resampling from {rate} to {sampling_rate} Hz needs soxr: `pip install soxr`.")
