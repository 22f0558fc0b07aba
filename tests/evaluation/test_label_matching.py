"""Classes of any model meet a corpus's emotions by name, or not at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audio_emotion.evaluation.label_matching import SYNONYMS, canonical_labels, dimension_columns, match_classes

CORPUS = ["neutral", "happy", "sad", "angry"]


def test_other_names_and_another_order_find_their_emotions():
    match = match_classes(["ANG", "hap", "neu", "sadness"], CORPUS)

    assert match.emotions == tuple(CORPUS)
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    torch.testing.assert_close(match.logits(scores), torch.tensor([[3.0, 2.0, 4.0, 1.0]]), rtol=0, atol=0)


def test_no_name_means_two_emotions():
    names = [name for word, others in SYNONYMS.items() for name in (word, *others)]

    assert len(names) == len(set(names))


def test_an_equal_name_comes_before_a_synonym():
    corpus = ["joy", "happy", "sad"]

    assert match_classes(corpus, corpus).sources == ((0,), (1,), (2,))
    assert match_classes(["Happy", "sadness", "Joy"], corpus).sources == ((2,), (0,), (1,))
    assert match_classes(["happiness", "joy", "sad"], corpus).sources == ((1,), (0,), (2,))  # our word, then others
    assert match_classes(corpus, ["happy", "sad"]).sources == ((0, 1), (2,))
    with pytest.raises(ValueError, match=r"emotions \['joy'\]"):
        match_classes(["happy", "sad"], corpus)


def test_classes_of_a_teacher_that_mean_the_same_keep_their_names():
    assert canonical_labels(["Joy", "happy", "Sadness"], "teacher") == ["joy", "happy", "sad"]
    assert canonical_labels(["joy", "happiness", "ang"], "teacher") == ["joy", "happiness", "angry"]
    with pytest.raises(ValueError, match="differ"):
        canonical_labels(["Anger", "anger"], "teacher")


def test_names_without_a_partner_are_an_error_that_lists_both_sides():
    with pytest.raises(ValueError, match=r"\['LABEL_0', 'LABEL_1'\].*\['neutral', 'happy', 'sad', 'angry'\]"):
        match_classes(["LABEL_0", "LABEL_1"], CORPUS)
    with pytest.raises(ValueError, match=r"classes \['other'\].*emotions \['sad'\]"):
        match_classes(["neu", "hap", "ang", "other"], CORPUS)


def test_a_label_map_says_what_names_do_not():
    match = match_classes(["neu", "joyous", "ang", "other"], CORPUS, {"joyous": "happy", "other": None, "sad": None})

    assert match.emotions == ("neutral", "happy", "angry")
    assert match.left_out == ("sad",)
    np.testing.assert_array_equal(match.labels(CORPUS, np.array([0, 1, 2, 3, -100])), [0, 1, -100, 2, -100])


def test_two_classes_of_one_emotion_add_their_probabilities():
    match = match_classes(["neu", "calm", "hap", "sad", "ang"], CORPUS, {"calm": "neutral"})
    scores = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))

    shares = scores.softmax(-1)
    expected = torch.stack([shares[:, 0] + shares[:, 1], shares[:, 2], shares[:, 3], shares[:, 4]], dim=-1)
    torch.testing.assert_close(match.logits(scores).softmax(-1), expected)


def test_a_name_in_the_label_map_that_nobody_has_is_an_error():
    with pytest.raises(ValueError, match="hapy"):
        match_classes(["neu", "hap", "sad", "ang"], CORPUS, {"hapy": "happy"})
    with pytest.raises(ValueError, match="joyful"):
        match_classes(["neu", "hap", "sad", "ang"], CORPUS, {"hap": "joyful"})


def test_outputs_that_are_dimensions_are_found_by_name():
    assert dimension_columns(["arousal", "dominance", "valence"], ["activation", "valence", "dominance"]) == [0, 2, 1]
    assert dimension_columns(["neu", "valence"], ["valence"]) is None
    assert dimension_columns(["valence"], ["activation", "valence"]) is None
