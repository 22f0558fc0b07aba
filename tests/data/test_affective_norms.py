"""Tests of the norm-derived dimensions: the quoted table, its mapping to 0..1, and our rule for strong intensity."""

from __future__ import annotations

import pytest

from audio_emotion.data.affective_norms import (
    NORMS,
    PAD_NORMS,
    dimensions_of_emotion,
    nearest_emotions,
    norm_derived_dimensions,
)

# Columns as published, in the order of the published table: word, V.Mean.Sum, A.Mean.Sum, D.Mean.Sum.
PUBLISHED = """\
neutral,5.5,3.45,5.81
calm,6.89,1.67,7.44
happy,8.47,6.05,7.21
sad,2.1,3.49,3.84
angry,2.53,6.2,4.11
fearful,2.66,5.45,3.12
disgust,3.32,5,4.84
surprised,6.57,5.95,4.72
"""


def test_the_quoted_norms_are_the_published_rows_with_activation_before_valence():
    rows = [line.split(",") for line in PUBLISHED.splitlines()]
    published = {
        word: (float(arousal), float(valence), float(dominance)) for word, valence, arousal, dominance in rows
    }
    assert published == NORMS


def test_every_ravdess_emotion_has_a_norm_and_nothing_else_has():
    assert list(NORMS) == ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]


@pytest.mark.parametrize("emotion", list(NORMS))
def test_normal_intensity_maps_back_to_the_published_scale(emotion):
    mapped_back = tuple(1.0 + 8.0 * value for value in norm_derived_dimensions(emotion))
    assert mapped_back == pytest.approx(NORMS[emotion], abs=1e-12)


def test_angry_and_calm_agree_with_arithmetic_done_by_hand():
    assert norm_derived_dimensions("angry") == pytest.approx((0.65, 0.19125, 0.38875))  # 5.2/8, 1.53/8, 3.11/8
    assert norm_derived_dimensions("angry", "strong") == pytest.approx((0.7375, 0.19125, 0.38875))  # 0.65 + 0.35/4
    assert norm_derived_dimensions("calm") == pytest.approx((0.08375, 0.73625, 0.805))  # 0.67/8, 5.89/8, 6.44/8


@pytest.mark.parametrize("emotion", list(NORMS))
def test_strong_intensity_moves_activation_a_quarter_of_its_way_to_one_and_nothing_else(emotion):
    normal, strong = norm_derived_dimensions(emotion, "normal"), norm_derived_dimensions(emotion, "strong")
    assert 1.0 - strong[0] == pytest.approx(0.75 * (1.0 - normal[0]))
    assert strong[1:] == normal[1:]
    assert all(0.0 <= value <= 1.0 for value in strong)


def test_strong_intensity_keeps_the_order_of_the_emotions_in_activation():
    by_normal = sorted(NORMS, key=lambda emotion: norm_derived_dimensions(emotion, "normal")[0])
    by_strong = sorted(NORMS, key=lambda emotion: norm_derived_dimensions(emotion, "strong")[0])
    assert by_normal == by_strong


def test_an_unknown_emotion_is_refused_with_the_known_ones_named():
    with pytest.raises(ValueError, match=r"'boredom'.*neutral, calm, happy, sad, angry, fearful, disgust, surprised"):
        norm_derived_dimensions("boredom")


def test_an_unknown_intensity_is_refused_with_the_known_ones_named():
    with pytest.raises(ValueError, match=r"'very strong'.*normal, strong"):
        norm_derived_dimensions("angry", "very strong")


@pytest.mark.parametrize("word", list(NORMS))
def test_an_emotion_is_nearest_to_its_own_norms(word):
    nearest, distance = nearest_emotions(dimensions_of_emotion(word))[0]

    assert (nearest, distance) == (word, 0.0)


def test_distances_are_those_of_the_published_norms():
    near = dict(nearest_emotions(dimensions_of_emotion("angry")))

    assert list(near)[:2] == ["angry", "fearful"]
    for word, values in NORMS.items():
        squares = [((one - other) / 8) ** 2 for one, other in zip(NORMS["angry"], values, strict=True)]
        assert near[word] == pytest.approx(sum(squares) ** 0.5)


def test_nearest_emotions_do_not_depend_on_the_scale_and_arousal_is_activation():
    point = {"activation": 0.2, "valence": 0.7, "dominance": 0.8}
    scaled = {"arousal": 1 + 6 * 0.2, "valence": 1 + 6 * 0.7, "dominance": 1 + 6 * 0.8}

    words, distances = zip(*nearest_emotions(point), strict=True)
    again, same = zip(*nearest_emotions(scaled, scale=(1, 7)), strict=True)

    assert words == again
    assert words[0] == "calm"
    assert distances == pytest.approx(same)
    assert nearest_emotions({"valence": 0.0})[0][0] == "sad"  # 2.10 is the lowest valence of the table


@pytest.mark.parametrize(
    ("dimensions", "scale"),
    [({}, (0, 1)), ({"mood": 0.5}, (0, 1)), ({"valence": float("nan")}, (0, 1)), ({"valence": 0.5}, (7, 1))],
)
def test_invalid_dimensions_are_refused(dimensions, scale):
    with pytest.raises(ValueError, match="activation, valence, dominance by name"):
        nearest_emotions(dimensions, scale)


# Russell & Mehrabian 1977, table 4: term, pleasure, arousal, dominance.
PUBLISHED_STATES = """\
happy,.81,.51,.46
sad,-.63,-.27,-.33
angry,-.51,.59,.25
fearful,-.64,.60,-.43
disgust,-.60,.35,.11
surprised,.40,.67,-.13
bored,-.65,-.62,-.33
calm,.68,-.46,.06
neutral,0,0,0
"""


def test_the_norms_of_states_are_the_published_rows_and_are_mapped_from_their_own_scale():
    rows = [line.split(",") for line in PUBLISHED_STATES.splitlines()]

    assert {term: (float(a), float(p), float(d)) for term, p, a, d in rows} == PAD_NORMS
    assert norm_derived_dimensions("neutral", source="norm-derived-pad") == (0.5, 0.5, 0.5)
    assert dimensions_of_emotion("angry", "norm-derived-pad") == pytest.approx(
        {"activation": 0.795, "valence": 0.245, "dominance": 0.625}
    )
    with pytest.raises(ValueError, match=r"norm-derived, norm-derived-pad, got 'anew'"):
        norm_derived_dimensions("angry", source="anew")
