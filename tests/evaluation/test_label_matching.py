"""Classes of a model are matched with the emotions of a corpus by name, or an error is raised."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audio_emotion.evaluation.label_matching import SYNONYMS, canonical_labels, dimension_columns, match_classes

CORPUS = ["neutral", "happy", "sad", "angry"]


def test_synonyms_are_matched_in_any_order():
    match = match_classes(["ANG", "hap", "neu", "sadness"], CORPUS)

    assert match.emotions == tuple(CORPUS)
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    torch.testing.assert_close(match.logits(scores), torch.tensor([[3.0, 2.0, 4.0, 1.0]]), rtol=0, atol=0)


def test_no_synonym_belongs_to_two_emotions():
    names = [name for word, others in SYNONYMS.items() for name in (word, *others)]

    assert len(names) == len(set(names))


def test_an_equal_name_takes_precedence_over_a_synonym():
    corpus = ["joy", "happy", "sad"]

    assert match_classes(corpus, corpus).sources == ((0,), (1,), (2,))
    assert match_classes(["Happy", "sadness", "Joy"], corpus).sources == ((2,), (0,), (1,))
    assert match_classes(["happiness", "joy", "sad"], corpus).sources == (
        (1,),
        (0,),
        (2,),
    )  # the canonical name, then others
    assert match_classes(corpus, ["happy", "sad"]).sources == ((0, 1), (2,))
    with pytest.raises(ValueError, match=r"emotions \['joy'\]"):
        match_classes(["happy", "sad"], corpus)


def test_synonymous_classes_of_a_teacher_keep_their_names():
    assert canonical_labels(["Joy", "happy", "Sadness"], "teacher") == ["joy", "happy", "sad"]
    assert canonical_labels(["joy", "happiness", "ang"], "teacher") == ["joy", "happiness", "angry"]
    with pytest.raises(ValueError, match="differ"):
        canonical_labels(["Anger", "anger"], "teacher")


def test_names_without_a_match_raise_an_error_that_lists_both():
    with pytest.raises(ValueError, match=r"\['LABEL_0', 'LABEL_1'\].*\['neutral', 'happy', 'sad', 'angry'\]"):
        match_classes(["LABEL_0", "LABEL_1"], CORPUS)
    with pytest.raises(ValueError, match=r"classes \['wistful'\].*emotions \['sad'\]"):
        match_classes(["neu", "hap", "ang", "wistful"], CORPUS)


def test_emotions_that_model_or_corpus_lacks_are_left_out():
    match = match_classes(["surprised", "neu", "fear", "hap", "ang"], ["angry", "bored", "happy", "neutral", "sad"])

    assert match.emotions == ("angry", "happy", "neutral")
    assert (match.left_out, match.ignored) == (("bored", "sad"), ("surprised", "fear"))
    torch.testing.assert_close(
        match.logits(torch.tensor([[9.0, 1.0, 9.0, 3.0, 2.0]])), torch.tensor([[2.0, 3.0, 1.0]])
    )
    np.testing.assert_array_equal(
        match.labels(["angry", "bored", "happy", "neutral", "sad"], np.arange(5))[[0, 1, 2]], [0, -100, 1]
    )
    with pytest.raises(ValueError, match=r"at least two emotions.*got \['happy'\]"):
        match_classes(["happy", "sad"], ["happy", "angry"])


def test_calm_counts_as_neutral_where_model_or_corpus_has_one_of_them():
    both = ["neutral", "calm", "happy"]
    of_model = match_classes(both, ["neutral", "happy"])
    of_corpus = match_classes(["neutral", "happy"], both)
    other = match_classes(["neutral", "happy"], ["calm", "happy"])

    assert of_model.sources == ((0, 1), (2,))
    assert (of_corpus.emotions, of_corpus.left_out) == (("neutral", "happy"), ())
    np.testing.assert_array_equal(of_corpus.labels(both, np.array([0, 1, 2])), [0, 0, 1])
    assert (other.emotions, other.sources) == (("calm", "happy"), ((0,), (1,)))
    assert match_classes(both, both).sources == ((0,), (1,), (2,))


def test_a_label_map_keeps_calm_and_neutral_apart():
    both = ["neutral", "calm", "happy"]

    assert match_classes(both, ["neutral", "happy"], {"calm": None}).sources == ((0,), (2,))
    assert match_classes(["neutral", "happy"], both, {"calm": None}).left_out == ("calm",)


def test_a_label_map_matches_other_names():
    match = match_classes(["neu", "joyous", "ang", "other"], CORPUS, {"joyous": "happy", "other": None, "sad": None})

    assert match.emotions == ("neutral", "happy", "angry")
    assert match.left_out == ("sad",)
    np.testing.assert_array_equal(match.labels(CORPUS, np.array([0, 1, 2, 3, -100])), [0, 1, -100, 2, -100])


def test_two_classes_of_one_emotion_add_their_probabilities():
    match = match_classes(["neu", "calm", "hap", "sad", "ang"], CORPUS, {"calm": "neutral"})
    scores = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))

    probabilities = scores.softmax(-1)
    expected = torch.stack(
        [probabilities[:, 0] + probabilities[:, 1], probabilities[:, 2], probabilities[:, 3], probabilities[:, 4]],
        dim=-1,
    )
    torch.testing.assert_close(match.logits(scores).softmax(-1), expected)


def test_an_unknown_name_in_the_label_map_raises():
    with pytest.raises(ValueError, match="hapy"):
        match_classes(["neu", "hap", "sad", "ang"], CORPUS, {"hapy": "happy"})
    with pytest.raises(ValueError, match="joyful"):
        match_classes(["neu", "hap", "sad", "ang"], CORPUS, {"hap": "joyful"})


def test_dimension_outputs_are_matched_by_name():
    assert dimension_columns(["arousal", "dominance", "valence"], ["activation", "valence", "dominance"]) == [0, 2, 1]
    assert dimension_columns(["neu", "valence"], ["valence"]) is None
    assert dimension_columns(["valence"], ["activation", "valence"]) is None
