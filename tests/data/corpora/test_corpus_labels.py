"""Ratings and votes become numbers in 0..1 as their formulas say."""

import pytest

from audio_emotion.data.corpora.corpus_info import majority, rating_to_unit, vote_probabilities


@pytest.mark.parametrize(
    ("rating", "low", "high", "unit"), [(1, 1, 7, 0), (4, 1, 7, 0.5), (5, 1, 5, 1), (2, 1, 5, 0.25)]
)
def test_ends_of_a_scale_become_0_and_1(rating, low, high, unit):
    assert rating_to_unit(rating, low, high) == unit


def test_rating_within_the_slack_is_taken_for_the_end():
    assert rating_to_unit(5.5, 1, 5, slack=0.5) == 1
    assert rating_to_unit(0.5, 1, 5, slack=0.5) == 0


@pytest.mark.parametrize("rating", [0.9, 7.1, float("nan")])
def test_rating_off_the_scale_is_an_error(rating):
    with pytest.raises(ValueError, match=r"1\.\.7"):
        rating_to_unit(rating, 1, 7)


def test_probabilities_count_the_votes_for_known_emotions_only():
    assert vote_probabilities({"sad": 3, "angry": 1, "tired": 6}, ["angry", "happy", "sad"]) == [0.25, 0.0, 0.75]
    assert vote_probabilities({"tired": 6}, ["angry", "happy", "sad"]) is None


def test_tie_has_no_majority():
    assert majority([0.2, 0.5, 0.3], ["angry", "happy", "sad"]) == "happy"
    assert majority([0.4, 0.2, 0.4], ["angry", "happy", "sad"]) is None
