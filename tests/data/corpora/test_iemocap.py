"""IEMOCAP rows say what the evaluations of each turn say."""

import pytest

from audio_emotion.data.corpora import iemocap
from audio_emotion.data.registry import corpus_info, corpus_table

IMPROVISED = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.0000, 3.0000]
C-E2:\tNeutral state;\t()
C-E3:\tNeutral state;\t()
C-E4:\tNeutral state; Frustration;\t(a little tense)
C-F1:\tAnger;\t()
A-E3:\tval 3; act 2; dom  2;\t()
A-F1:\tval 3; act 2; dom  1;\t()

[10.0100 - 11.3925]\tSes01F_impro01_M001\texc\t[5.5000, 4.0000, 0.5000]
C-E2:\tExcited;\t()
C-E3:\tHappiness; Excited;\t()
C-E4:\tOther;\t(amused)
A-E3:\tval 5; act 4; dom  4;\t()

[12.5000 - 14.0000]\tSes01F_impro01_M002\txxx\t[3.0000, 3.0000, 3.0000]
C-E2:\tSadness;\t()
C-E3:\tAnger;\t()

[15.0000 - 16.0000]\tSes01F_impro01_F001\tfru\t[1.0000, 5.0000, 5.0000]
C-E2:\tFrustration;\t()
"""
SCRIPTED = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[1.0000 - 2.0000]\tSes05M_script01_1b_F011\tsad\t[1.5000, 2.0000, 2.0000]
C-E1:\tSadness;\t()
"""


@pytest.fixture
def corpus(tmp_path):
    """Two sessions in the released layout; a hidden file and the raters' own folder beside the evaluations."""
    release = tmp_path / "IEMOCAP_full_release"
    for session, dialog, text in ((1, "Ses01F_impro01", IMPROVISED), (5, "Ses05M_script01_1b", SCRIPTED)):
        folder = release / f"Session{session}" / "dialog" / "EmoEvaluation"
        (folder / "Categorical").mkdir(parents=True)
        (folder / f"{dialog}.txt").write_text(text)
        (folder / f"._{dialog}.txt").write_bytes(b"\x00\xb0resource fork")
        (folder / "Categorical" / f"{dialog}_e2_cat.txt").write_text(f"{dialog}_F000 :Neutral state; ()\n")
    return tmp_path


def test_turns_come_in_the_order_of_the_release(corpus):
    assert [row["id"] for row in iemocap.rows(corpus)] == [
        "iemocap/Ses01F_impro01_F000",
        "iemocap/Ses01F_impro01_M001",
        "iemocap/Ses01F_impro01_M002",
        "iemocap/Ses01F_impro01_F001",
        "iemocap/Ses05M_script01_1b_F011",
    ]


def test_audio_is_in_the_folder_of_the_dialog(corpus):
    path = "IEMOCAP_full_release/Session5/sentences/wav/Ses05M_script01_1b/Ses05M_script01_1b_F011.wav"

    assert list(iemocap.rows(corpus))[-1]["audio"] == {"bytes": None, "path": str(corpus / path)}


def test_folder_of_the_sessions_itself_will_do(corpus):
    assert len(list(iemocap.rows(corpus / "IEMOCAP_full_release"))) == 5


def test_speaker_is_who_speaks_and_not_who_wears_the_markers(corpus):
    rows = list(iemocap.rows(corpus))

    assert [(row["speaker"], row["gender"]) for row in rows[:2]] == [
        ("iemocap/Ses01F", "female"),
        ("iemocap/Ses01M", "male"),
    ]
    assert rows[-1]["speaker"] == "iemocap/Ses05F"


def test_dimensions_are_valence_first_on_a_scale_of_1_to_5(corpus):
    row = next(iemocap.rows(corpus))

    assert (row["valence"], row["activation"], row["dominance"]) == (0.375, 0.25, 0.5)


def test_mean_half_a_step_off_the_scale_is_its_end(corpus):
    row = list(iemocap.rows(corpus))[1]

    assert (row["valence"], row["activation"], row["dominance"]) == (1.0, 0.75, 0.0)


def test_without_agreement_there_are_probabilities_and_no_emotion(corpus):
    row = list(iemocap.rows(corpus))[2]

    assert row["emotion"] is None
    assert dict(zip(iemocap.INFO.emotions, row["probabilities"], strict=True)) == dict.fromkeys(
        iemocap.INFO.emotions, 0
    ) | {
        "sad": 0.5,
        "angry": 0.5,
    }


def test_evaluator_who_named_two_emotions_splits_the_vote_and_actors_have_none(corpus):
    shares = dict(zip(iemocap.INFO.emotions, next(iemocap.rows(corpus))["probabilities"], strict=True))

    assert shares["neutral"] == pytest.approx(2.5 / 3)
    assert shares["frustrated"] == pytest.approx(0.5 / 3)
    assert shares["angry"] == 0  # C-F1 is the actress on herself


def test_four_classes_count_excited_as_happy_and_drop_the_rest(corpus):
    rows = list(iemocap.rows(corpus, classes="four"))
    shares = dict(zip(iemocap.INFO.emotions, rows[1]["probabilities"], strict=True))

    assert [row["emotion"] for row in rows] == ["neutral", "happy", "sad"]
    assert (shares["happy"], shares["excited"], shares["other"]) == pytest.approx((2 / 3, 0, 1 / 3))


def test_four_classes_are_a_table_of_recipes(corpus):
    table = corpus_table("iemocap/four", str(corpus))

    assert corpus_info("iemocap/four").emotions == ("angry", "happy", "sad", "neutral")
    assert table["emotion"][:] == ["neutral", "happy", "sad"]
    assert table["probabilities"][1] == [0, 1, 0, 0]  # two votes for excited or happy; the one for other is left out


@pytest.mark.parametrize(("part", "count"), [("improvised", 4), ("scripted", 1), ("both", 5)])
def test_improvised_and_scripted_parts_are_those_of_the_dialogs(corpus, part, count):
    assert len(list(iemocap.rows(corpus, part=part))) == count


def test_unknown_label_is_an_error_that_names_the_turn(corpus):
    file = corpus / "IEMOCAP_full_release/Session5/dialog/EmoEvaluation/Ses05M_script01_1b.txt"
    file.write_text(SCRIPTED.replace("\tsad\t", "\tzzz\t"))

    with pytest.raises(ValueError, match=r"zzz.*Ses05M_script01_1b_F011"):
        list(iemocap.rows(corpus))


def test_unknown_option_is_an_error_at_the_call(corpus):
    with pytest.raises(ValueError, match=r"'all', 'four'.*'five'"):
        iemocap.rows(corpus, classes="five")


def test_folder_without_evaluations_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="got none"):
        iemocap.rows(tmp_path)
