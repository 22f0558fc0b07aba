"""Leak checks bite: heard speakers, teachers at any depth, contaminated public models."""

from __future__ import annotations

import pytest

from audio_emotion.evaluation.provenance import (
    PUBLIC_MODELS,
    contamination,
    public_model,
    require_uncontaminated,
    training_speakers,
)

TEST = ("ravdess/17", "ravdess/18")
CLEAN = [{"corpus": "ravdess", "speakers": ["ravdess/01"], "teachers": []}]
TEACHER_OF_TEACHER = [
    {
        "corpus": "ravdess",
        "speakers": ["ravdess/01"],
        "teachers": [
            {
                "corpus": "crema-d",
                "speakers": ["crema-d/1001"],
                "teachers": [{"corpus": "ravdess", "speakers": ["ravdess/18"], "teachers": []}],
            }
        ],
    }
]


def test_a_model_that_heard_others_is_let_through():
    assert require_uncontaminated("m", "ravdess", TEST, CLEAN) == []


def test_a_speaker_whom_the_model_has_heard_stops_it():
    heard = [{"corpus": "ravdess", "speakers": ["ravdess/17", "ravdess/01"], "teachers": []}]

    with pytest.raises(ValueError, match=r"runs/m .*ravdess/17"):
        require_uncontaminated("runs/m", "ravdess", TEST, heard)


def test_a_speaker_whom_only_the_teachers_teacher_has_heard_stops_it():
    assert training_speakers(TEACHER_OF_TEACHER) == {"ravdess/01", "crema-d/1001", "ravdess/18"}
    with pytest.raises(ValueError, match="ravdess/18"):
        require_uncontaminated("m", "ravdess", TEST, TEACHER_OF_TEACHER)


def test_what_is_asked_for_is_marked_instead():
    assert require_uncontaminated("m", "ravdess", TEST, TEACHER_OF_TEACHER, contaminated=True) == ["ravdess/18"]


def test_a_corpus_without_a_list_of_speakers_counts_as_heard_whole():
    whole = [{"corpus": "RAVDESS", "speakers": None, "teachers": []}]

    assert contamination("ravdess", TEST, whole) == list(TEST)
    assert contamination("crema-d", ["crema-d/1001"], whole) == []


@pytest.mark.parametrize(
    "name",
    [
        "ehcalabres/wav2vec2-lg-xlsr-en-speech-emotion-recognition",
        "EHCALABRES/wav2vec2-lg-xlsr-en-speech-emotion-recognition",
        "models/wav2vec2-lg-xlsr-en-speech-emotion-recognition/",
        "hub/models--ehcalabres--wav2vec2-lg-xlsr-en-speech-emotion-recognition/snapshots/0123",
        "emotion2vec/emotion2vec_plus_large",
        "emotion2vec/emotion2vec_plus_base",
    ],
)
def test_public_models_that_heard_ravdess_are_refused_on_it(name):
    with pytest.raises(ValueError, match="ravdess"):
        require_uncontaminated(name, "ravdess", TEST, models=[name])


def test_a_contaminated_public_teacher_stops_its_student():
    student = [{**CLEAN[0], "teachers": [{"model": "emotion2vec/emotion2vec_plus_seed"}]}]

    with pytest.raises(ValueError, match="EmoBox"):
        require_uncontaminated("m", "crema_d", ["crema-d/1001"], student)
    assert require_uncontaminated("m", "iemocap", ["iemocap/01F"], student) == []


def test_a_public_model_is_refused_only_on_what_it_has_heard():
    name = "amir0907/student-v2"

    assert "actors 1 to 18" in contamination("ravdess", ["ravdess/18"], models=[name])[0]
    assert contamination("ravdess", ["ravdess/19", "ravdess/20"], models=[name]) == []
    assert contamination("crema-d", ["crema-d/1001"], models=[name]) == []
    assert public_model("facebook/wav2vec2-base") is None


def test_every_listed_model_names_its_source():
    assert all(known.source and known.corpora and "/" in known.name for known in PUBLIC_MODELS)
