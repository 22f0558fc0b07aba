"""How alike two teachers of pseudo-labels see a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from audio_emotion.training.answers import softmax


def agreement(
    one: np.ndarray, classes: Sequence[str], other: np.ndarray, other_classes: Sequence[str]
) -> float | None:
    """How alike two teachers see a clip: 1 less the Jensen-Shannon divergence in bits, 0..1.

    Only classes that both have count, and each teacher's probabilities of these are brought to a sum of 1.

    Args:
        one: logits `(C,)`.
        classes: their names.
        other: logits `(K,)` of the other teacher.
        other_classes: their names.

    Returns:
        None where they share fewer than two classes.
    """
    shared = [name for name in classes if name in other_classes]
    if len(shared) < 2:
        return None
    first = softmax(one[[list(classes).index(name) for name in shared]].astype(np.float64))
    second = softmax(other[[list(other_classes).index(name) for name in shared]].astype(np.float64))
    middle = (first + second) / 2
    divergence = sum(_bits(each, middle) for each in (first, second)) / 2
    return float(min(max(1.0 - divergence, 0.0), 1.0))


def _bits(shares: np.ndarray, middle: np.ndarray) -> float:
    """Kullback-Leibler divergence from the middle, in bits."""
    known = shares > 0
    return float(np.sum(shares[known] * np.log2(shares[known] / middle[known])))
