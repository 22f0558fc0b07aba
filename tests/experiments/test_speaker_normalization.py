"""Speakers made alike: what is usual for one is taken off, what changes is kept."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler
from speaker_normalization import by_speaker

SPEAKERS = ["a"] * 200 + ["b"] * 200


def spoken() -> tuple[np.ndarray, np.ndarray]:
    """Two speakers who move alike, one about another place and five times as far; and the movement, `(400, 3)`."""
    moved = np.random.default_rng(0).standard_normal((400, 3))
    scale, place = np.repeat([[1.0], [5.0]], 200, axis=0), np.repeat([[0.0], [40.0]], 200, axis=0)
    return scale * moved + place, moved


def test_what_two_speakers_do_alike_becomes_alike():
    features, moved = spoken()

    alike = by_speaker(features, SPEAKERS, prior=1e-9)

    for mine in (slice(0, 200), slice(200, 400)):
        np.testing.assert_allclose(alike[mine], StandardScaler().fit_transform(moved[mine]), atol=1e-6)


def test_the_one_clip_of_a_stranger_is_barely_moved_and_every_speaker_is_judged_alone():
    features, _ = spoken()
    mean, deviation = features.mean(0), features.std(0)
    stranger = mean + deviation * np.array([[1.0, 0.0, -1.0]])

    together = by_speaker(np.concatenate([features, stranger]), [*SPEAKERS, "c"])

    assert np.isfinite(together).all()
    np.testing.assert_allclose(together[-1], [1.0, 0.0, -1.0], atol=0.2)
    changed = np.concatenate([features, stranger])
    changed[:200] *= 2  # the first speaker's clips say little about the second's
    np.testing.assert_allclose(by_speaker(changed, [*SPEAKERS, "c"])[200:400], together[200:400], atol=0.15)


def test_clips_of_which_nothing_is_known_stay_unknown_and_weigh_nothing():
    features, _ = spoken()
    holed = np.concatenate([features, np.full((2, 3), np.nan)])

    said = by_speaker(holed, [*SPEAKERS, "a", "d"])

    np.testing.assert_allclose(said[:400], by_speaker(features, SPEAKERS))
    assert np.isnan(said[400:]).all()


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_feature_that_never_changes_says_nothing(value):
    features, _ = spoken()
    features[:, 1] = value

    assert by_speaker(features, SPEAKERS)[:, 1] == pytest.approx(0.0)
