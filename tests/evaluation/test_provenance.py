"""Leakage checks: training speakers, teachers at any depth, public models."""

from __future__ import annotations

import pytest

from audio_emotion.evaluation.provenance import (
    PUBLIC_MODELS,
    contamination,
    hashed_speaker,
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


def test_a_model_trained_on_other_speakers_passes():
    assert require_uncontaminated("m", "ravdess", TEST, CLEAN) == []


def test_a_training_speaker_of_the_model_raises():
    trained_on = [{"corpus": "ravdess", "speakers": ["ravdess/17", "ravdess/01"], "teachers": []}]

    with pytest.raises(ValueError, match=r"runs/m .*ravdess/17"):
        require_uncontaminated("runs/m", "ravdess", TEST, trained_on)


def test_a_training_speaker_of_the_teachers_teacher_raises():
    assert training_speakers(TEACHER_OF_TEACHER) == {"ravdess/01", "crema-d/1001", "ravdess/18"}
    with pytest.raises(ValueError, match="ravdess/18"):
        require_uncontaminated("m", "ravdess", TEST, TEACHER_OF_TEACHER)


def test_hashed_speakers_are_refused_as_named_ones():
    hashed = [{"corpus": "mine", "speakers": [hashed_speaker("mine/anna")], "teachers": []}]

    assert "anna" not in str(hashed) + hashed_speaker("anna")
    assert hashed_speaker(hashed_speaker("mine/anna")) == hashed_speaker("mine/anna")
    assert contamination("mine", ["mine/anna", "mine/ben"], hashed) == ["mine/anna"]
    assert contamination("mine", hashed[0]["speakers"], [hashed[0] | {"speakers": ["mine/anna"]}]) != []
    with pytest.raises(ValueError, match="mine/anna"):
        require_uncontaminated("m", "mine", ["mine/anna"], [{"corpus": "mine", "speakers": [], "teachers": hashed}])


def test_contaminated_returns_the_speakers_instead_of_raising():
    assert require_uncontaminated("m", "ravdess", TEST, TEACHER_OF_TEACHER, contaminated=True) == ["ravdess/18"]


def test_a_corpus_without_speakers_counts_entirely():
    corpus_only = [{"corpus": "RAVDESS", "speakers": None, "teachers": []}]

    assert contamination("ravdess", TEST, corpus_only) == list(TEST)
    assert contamination("crema-d", ["crema-d/1001"], corpus_only) == []


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
def test_public_models_trained_on_ravdess_raise_on_it(name):
    with pytest.raises(ValueError, match="ravdess"):
        require_uncontaminated(name, "ravdess", TEST, models=[name])


def test_a_contaminated_public_teacher_raises_for_its_student():
    student = [{**CLEAN[0], "teachers": [{"model": "emotion2vec/emotion2vec_plus_seed"}]}]

    with pytest.raises(ValueError, match="EmoBox"):
        require_uncontaminated("m", "crema_d", ["crema-d/1001"], student)
    assert require_uncontaminated("m", "iemocap", ["iemocap/01F"], student) == []


def test_a_public_model_raises_only_on_its_training_speakers():
    name = "amir0907/student-v2"

    assert "actors 1 to 18" in contamination("ravdess", ["ravdess/18"], models=[name])[0]
    assert contamination("ravdess", ["ravdess/19", "ravdess/20"], models=[name]) == []
    assert contamination("crema-d", ["crema-d/1001"], models=[name]) == []
    assert public_model("facebook/wav2vec2-base") is None


def test_every_listed_model_names_its_source():
    assert all(known.source and known.corpora and "/" in known.name for known in PUBLIC_MODELS)
