"""What a card claims about the scored speakers: no more than is recorded."""

from __future__ import annotations

import pytest

from audio_emotion.data.training_set import without_repetitions
from audio_emotion.hub.card_sections import contamination_note, find_contamination, training_data_rows

SCORES = {"speakers": ["ravdess/17", "ravdess/18"]}
ENTRY = {"corpus": "ravdess", "speakers": ["ravdess/01"], "teachers": []}
NO_TEACHERS = "The training data includes none of these speakers, and the model has no teachers."
WITH_TEACHERS = "The training data of the model and of its teachers includes none of these speakers; the pretraining"


def line(training_data, encoders=(), results=None, scores=SCORES, undocumented=False) -> str:
    found = find_contamination(results or {}, scores, training_data, list(encoders))
    return contamination_note(scores, found, training_data, list(encoders), undocumented)


def test_unseen_speakers_of_a_model_without_public_parts():
    assert line([ENTRY]) == NO_TEACHERS
    assert line([{**ENTRY, "teachers": [ENTRY]}]).startswith(WITH_TEACHERS)


@pytest.mark.parametrize(
    ("training_data", "encoders", "results", "expected"),
    [
        ([{"corpus": "ravdess", "teachers": []}], [], {}, "a teacher includes ravdess/17, ravdess/18.**"),
        ([ENTRY | {"teachers": [{"corpus": "RAVDESS"}]}], [], {}, "includes ravdess/17, ravdess/18.**"),
        (
            [ENTRY | {"teachers": [{"model": "emotion2vec/emotion2vec_plus_base"}]}],
            [],
            {},
            "was trained on this corpus: emotion2vec/emotion2vec_plus_base (ravdess; ",
        ),
        ([ENTRY], ["emotion2vec/emotion2vec_plus_seed"], {}, "emotion2vec/emotion2vec_plus_seed (ravdess; "),
        ([ENTRY], [], {"contaminated_by": ["ravdess/18"]}, "a teacher includes ravdess/18.**"),
        ([ENTRY], [], {"contaminated_by": ["somebody/model (ravdess; its card)"]}, "somebody/model (ravdess; its"),
    ],
)
def test_scores_on_training_speakers_are_called_contaminated(training_data, encoders, results, expected):
    note = line(training_data, encoders, results)

    assert note.startswith("**Contaminated: ")
    assert expected in note
    assert NO_TEACHERS not in note


@pytest.mark.parametrize(
    ("training_data", "encoders", "undocumented"),
    [
        ([ENTRY | {"teachers": [{"model": "somebody/faces"}]}], [], False),
        ([ENTRY | {"teachers": [ENTRY | {"teachers": [{"model": "somebody/faces"}]}]}], [], False),
        ([ENTRY], ["somebody/faces"], False),
        ([ENTRY], [], True),
    ],
)
def test_undocumented_training_data_limits_the_claim(training_data, encoders, undocumented):
    note = line(training_data, encoders, undocumented=undocumented)

    assert note.startswith("As far as it is recorded")
    assert NO_TEACHERS not in note
    assert undocumented or "somebody/faces" in note


def test_speakers_of_another_split_are_not_held_against_the_scores():
    assert line([ENTRY], results={"contaminated_by": ["ravdess/16"]}) == NO_TEACHERS


def test_scores_without_speakers_claim_nothing():
    assert "is unknown" in line([ENTRY], scores={"speakers": []})


def test_public_models_and_whole_corpora_are_named_in_the_rows():
    public = {"model": "somebody/faces"}
    rows = training_data_rows([ENTRY | {"teachers": [public, {"corpus": "crema-d", "teachers": [public]}]}, public])

    assert rows[0]["speakers"] == ["01"]
    assert rows[0]["teachers"] == [
        "public model somebody/faces",
        "trained on crema-d (all), distilled from: public model somebody/faces",
    ]
    assert rows[1]["corpus"] == "training data of the public model somebody/faces"
    assert training_data_rows([ENTRY], ["votes"])[0]["teachers"] == ["votes (training data not documented)"]


def test_consecutive_speakers_are_shown_as_a_range():
    speakers = [f"ravdess/{number:02d}" for number in [1, 2, 3, 4, 5, 8, 9, 12]]

    rows = training_data_rows([ENTRY | {"speakers": speakers}])

    assert rows[0]["speakers"] == ["01 to 05", "08", "09", "12"]
    prefixed = [f"ravdess/s{number:03d}" for number in [1, 2, 3, 4, 6]] + ["ravdess/EB0", "ravdess/s1"]
    assert training_data_rows([ENTRY | {"speakers": prefixed}])[0]["speakers"] == ["EB0", "s001 to s004", "s006", "s1"]


def test_a_teacher_of_the_same_speakers_is_not_listed_again():
    speakers = [f"ravdess/{number:02d}" for number in (1, 3, 5, 7)]
    same, fewer = {"corpus": "ravdess", "speakers": speakers}, {"corpus": "ravdess", "speakers": speakers[:1]}

    rows = training_data_rows([ENTRY | {"speakers": speakers, "teachers": [same, fewer, same]}])

    assert rows[0]["teachers"] == ["trained on ravdess (the same speakers)", "trained on ravdess (01)"]
    assert without_repetitions([same, fewer, same]) == [same, fewer]
