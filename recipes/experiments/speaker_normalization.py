"""Features as they differ from what is usual for the speaker; no labels are looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PRIOR = 5.0  # clips: so much does what is usual for everybody weigh beside a speaker's own


def by_speaker(features: np.ndarray, speakers: Sequence[str], prior: float = PRIOR) -> np.ndarray:
    """Subtract from each clip's features its speaker's mean, and divide by the speaker's deviation.

    Both are drawn towards those of all clips, as if `prior` more clips of the speaker were like everybody's: the one
    clip of a stranger is barely moved. The mean takes part of the emotion with it where most of a speaker's clips are
    of one emotion; in an acted corpus, in which everybody acts everything, it does not.

    Args:
        features: `(N, F)`, NaN in rows of which nothing is known: they stay so.
        speakers: of each.
        prior: weight in clips, more than 0.
    """
    names = np.asarray(speakers)
    known = np.isfinite(features).all(1)
    everybody, spread = features[known].mean(0), features[known].var(0)
    result = np.full(features.shape, np.nan)
    for name in np.unique(names[known]):
        mine = known & (names == name)
        clips = features[mine]
        mean = (clips.sum(0) + prior * everybody) / (len(clips) + prior)
        variance = (np.square(clips - mean).sum(0) + prior * spread) / (len(clips) + prior)
        result[mine] = (clips - mean) / np.sqrt(np.maximum(variance, 1e-12))
    return result
