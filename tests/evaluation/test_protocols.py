"""Named splits put every speaker on one side and are those of the protocol."""

from collections import Counter

import pytest

from audio_emotion.evaluation.protocols import SPLIT_NAMES, Split, assert_disjoint, split
from audio_emotion.training.corpora.synthetic import SPEAKERS

ALL = {f"ravdess/{actor:02d}" for actor in range(1, 21)}
FOLDS = [name for name in SPLIT_NAMES if "fold" in name]


@pytest.mark.parametrize("name", ["ravdess-20-fixed", *FOLDS])
def test_every_actor_is_on_exactly_one_side(name):
    sides = split(name)

    assert_disjoint(sides)
    assert {*sides.train, *sides.validation, *sides.test} == ALL
    assert (len(sides.train), len(sides.validation), len(sides.test)) == (12, 4, 4)


def test_the_split_for_shipped_weights_tests_nobody():
    assert {*split("ravdess-20-all").train} == ALL
    assert not split("ravdess-20-all").validation + split("ravdess-20-all").test


def test_the_synthetic_split_has_every_voice_on_one_side():
    sides = split("synthetic-10")

    assert_disjoint(sides)
    assert {*sides.train, *sides.validation, *sides.test} == set(SPEAKERS)


def test_fixed_split_tests_the_last_four_actors():
    sides = split("ravdess-20-fixed")

    assert sides.test == ("ravdess/17", "ravdess/18", "ravdess/19", "ravdess/20")
    assert sides.validation == ("ravdess/13", "ravdess/14", "ravdess/15", "ravdess/16")


def test_folds_test_every_actor_once_and_validate_on_the_next_fold():
    folds = [split(name) for name in FOLDS]

    assert Counter(speaker for fold in folds for speaker in fold.test) == dict.fromkeys(ALL, 1)
    assert [fold.validation for fold in folds] == [fold.test for fold in folds[1:] + folds[:1]]


def test_folds_are_those_of_earlier_results():
    tests = [" ".join(speaker.removeprefix("ravdess/") for speaker in split(name).test) for name in FOLDS]

    assert tests == ["01 11 17 20", "04 10 12 14", "08 09 15 19", "03 05 07 18", "02 06 13 16"]


def test_speaker_on_two_sides_is_named_with_both_sides():
    with pytest.raises(ValueError, match=r"ravdess/03.*`train`.*`test`"):
        assert_disjoint(Split(train=("ravdess/02", "ravdess/03"), validation=(), test=("ravdess/03",)))


def test_unknown_split_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match="ravdess-20-fold-5"):
        split("ravdess-24")
