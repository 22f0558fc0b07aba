"""What a card claims of the speakers it was scored on: never more than is known."""

from __future__ import annotations

import pytest

from audio_emotion.hub.card_sections import heard_line, heard_of, heard_rows

SCORES = {"speakers": ["ravdess/17", "ravdess/18"]}
CLEAN = {"corpus": "ravdess", "speakers": ["ravdess/01"], "teachers": []}
NOBODY = "The model has heard none of them, and nobody taught it."
TAUGHT = "Neither the model nor a teacher of it was trained on any of them; what the encoders of its teachers"


def line(training_data, encoders=(), results=None, scores=SCORES, silent=False) -> str:
    found = heard_of(results or {}, scores, training_data, list(encoders))
    return heard_line(scores, found, training_data, list(encoders), silent)


def test_strangers_to_a_model_without_public_parts_are_said_to_be_unheard():
    assert line([CLEAN]) == NOBODY
    assert line([{**CLEAN, "teachers": [CLEAN]}]).startswith(TAUGHT)


@pytest.mark.parametrize(
    ("training_data", "encoders", "results", "said"),
    [
        ([{"corpus": "ravdess", "teachers": []}], [], {}, "a teacher of it has heard ravdess/17, ravdess/18.**"),
        ([CLEAN | {"teachers": [{"corpus": "RAVDESS"}]}], [], {}, "has heard ravdess/17, ravdess/18.**"),
        (
            [CLEAN | {"teachers": [{"model": "emotion2vec/emotion2vec_plus_base"}]}],
            [],
            {},
            "what has met this corpus: emotion2vec/emotion2vec_plus_base (ravdess; ",
        ),
        ([CLEAN], ["emotion2vec/emotion2vec_plus_seed"], {}, "emotion2vec/emotion2vec_plus_seed (ravdess; "),
        ([CLEAN], [], {"contaminated_by": ["ravdess/18"]}, "a teacher of it has heard ravdess/18.**"),
        ([CLEAN], [], {"contaminated_by": ["somebody/model (ravdess; its card)"]}, "somebody/model (ravdess; its"),
    ],
)
def test_what_was_heard_is_called_contaminated(training_data, encoders, results, said):
    told = line(training_data, encoders, results)

    assert told.startswith("**Contaminated: ")
    assert said in told
    assert NOBODY not in told


@pytest.mark.parametrize(
    ("training_data", "encoders", "silent"),
    [
        ([CLEAN | {"teachers": [{"model": "somebody/faces"}]}], [], False),
        ([CLEAN | {"teachers": [CLEAN | {"teachers": [{"model": "somebody/faces"}]}]}], [], False),
        ([CLEAN], ["somebody/faces"], False),
        ([CLEAN], [], True),
    ],
)
def test_where_nobody_knows_what_a_part_has_met_the_card_says_no_more(training_data, encoders, silent):
    told = line(training_data, encoders, silent=silent)

    assert told.startswith("As far as its training is recorded")
    assert NOBODY not in told
    assert silent or "somebody/faces" in told


def test_speakers_of_another_side_are_not_held_against_the_scores():
    assert line([CLEAN], results={"contaminated_by": ["ravdess/16"]}) == NOBODY


def test_scores_without_speakers_claim_nothing():
    assert "nobody can tell" in line([CLEAN], scores={"speakers": []})


def test_public_models_and_whole_corpora_are_named_in_the_rows():
    public = {"model": "somebody/faces"}
    rows = heard_rows([CLEAN | {"teachers": [public, {"corpus": "crema-d", "teachers": [public]}]}, public])

    assert rows[0]["speakers"] == ["01"]
    assert rows[0]["teachers"] == [
        "met what the public model somebody/faces has met",
        "heard crema-d (all), taught by one who met what the public model somebody/faces has met",
    ]
    assert rows[1]["corpus"] == "what the public model somebody/faces has met"
    assert heard_rows([CLEAN], ["votes"])[0]["teachers"] == ["votes, which names nothing that it has met"]
