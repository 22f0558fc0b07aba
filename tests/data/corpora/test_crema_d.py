"""CREMA-D rows say what file names, demographics and raters' votes say."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio_emotion.data.affective_norms import norm_derived_dimensions
from audio_emotion.data.corpora import crema_d
from audio_emotion.data.registry import corpus_table

LABELS = Path(os.environ.get("AUDIO_EMOTION_DATA", "/nowhere")) / "crema_d_labels"
needs_labels = pytest.mark.skipif(not LABELS.is_dir(), reason="needs AUDIO_EMOTION_DATA with crema_d_labels/ in it")
CLIPS = ("1001_IEO_ANG_HI", "1001_IEO_ANG_LO", "1002_DFA_NEU_XX", "1076_MTI_NEU_XX", "1076_MTI_SAD_XX")
VOTES = {  # clip: votes for A, D, F, H, N, S of those who heard, saw, or both
    "1001_IEO_ANG_HI": ((4, 1, 0, 0, 5, 0), (9, 0, 0, 1, 0, 0), (10, 0, 0, 0, 0, 0)),
    "1001_IEO_ANG_LO": ((3, 0, 0, 0, 3, 0), (1, 0, 0, 0, 7, 0), (2, 0, 0, 0, 6, 0)),
    "1002_DFA_NEU_XX": ((0, 0, 0, 0, 8, 2), (0, 0, 0, 1, 9, 0), (0, 0, 0, 0, 10, 0)),
    "1076_MTI_NEU_XX": ((0, 0, 0, 0, 8, 0), (0, 0, 0, 0, 8, 0), (0, 0, 0, 0, 8, 0)),
    "1076_MTI_SAD_XX": ((0, 1, 0, 0, 5, 3), (0, 0, 0, 0, 0, 9), (0, 0, 1, 0, 1, 8)),
}


@pytest.fixture
def corpus(tmp_path):
    """Three actors in the published layout, with votes, demographics, videos and a hidden file."""
    for folder in ("AudioWAV", "VideoFlash", "processedResults"):
        (tmp_path / folder).mkdir()
    for name in CLIPS:
        soundfile.write(tmp_path / "AudioWAV" / f"{name}.wav", np.zeros(160, dtype=np.float32), 16_000)
        (tmp_path / "VideoFlash" / f"{name}.flv").write_bytes(b"FLV")
    (tmp_path / "VideoFlash" / "1001_IEO_ANG_LO.flv").unlink()
    (tmp_path / "AudioWAV" / "._1001_IEO_ANG_HI.wav").write_bytes(b"resource fork")
    (tmp_path / "VideoDemographics.csv").write_text(
        '"ActorID","Age","Sex","Race","Ethnicity"\n'
        '1001,51,"Male","Caucasian","Not Hispanic"\n'
        '1002,21,"Female","Caucasian","Not Hispanic"\n'
        '1076,25,"Female","African American","Hispanic"\n'
    )
    lines = ['"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote","meanEmoResp"']
    for query in range(3):
        for number, (name, votes) in enumerate(VOTES.items(), start=1):
            counts = ",".join(map(str, votes[query]))
            lines.append(f'"{query + 1}{number:05d}",{counts},"{name}",{sum(votes[query])},0.5,"N",71.7')
    (tmp_path / "processedResults" / "tabulatedVotes.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_name_gives_intended_emotion_speaker_and_dimensions(corpus):
    activation, valence, dominance = norm_derived_dimensions("angry", "strong")

    assert next(crema_d.rows(corpus)) == {
        "id": "crema-d/1001_IEO_ANG_HI",
        "audio": {"bytes": None, "path": str(corpus / "AudioWAV" / "1001_IEO_ANG_HI.wav")},
        "speaker": "crema-d/1001",
        "gender": "male",
        "emotion": "angry",
        "activation": activation,
        "valence": valence,
        "dominance": dominance,
    }


def test_clip_without_sound_is_left_out(corpus):
    assert [row["id"] for row in crema_d.rows(corpus)] == [f"crema-d/{name}" for name in CLIPS[:-1]]


def test_recording_under_two_labels_is_left_out(corpus):
    for name in ("1006_TIE_HAP_XX", "1006_TIE_NEU_XX", "1006_TIE_SAD_XX"):
        soundfile.write(corpus / "AudioWAV" / f"{name}.wav", np.zeros(160, dtype=np.float32), 16_000)

    assert [row["id"] for row in crema_d.rows(corpus) if "1006" in row["id"]] == ["crema-d/1006_TIE_SAD_XX"]
    assert crema_d.LEFT_OUT["1006_TIE_HAP_XX"] == "the same recording as 1006_TIE_NEU_XX"


def test_recoded_copies_are_read_and_the_published_format_first(corpus):
    wav = corpus / "AudioWAV" / "1001_IEO_ANG_HI.wav"
    for folder, suffix in (("AudioWAV", ".flac"), ("AudioWAV", ".ogg"), ("AudioMP3", ".mp3")):
        (corpus / folder).mkdir(exist_ok=True)
        (corpus / folder / f"1003_DFA_SAD_XX{suffix}").write_bytes(b"recoded")
        (corpus / folder / f"1001_IEO_ANG_HI{suffix}").write_bytes(b"recoded")
    paths = {row["id"]: row["audio"]["path"] for row in crema_d.rows(corpus)}

    assert paths["crema-d/1001_IEO_ANG_HI"] == str(wav)
    assert paths["crema-d/1003_DFA_SAD_XX"] == str(corpus / "AudioWAV" / "1003_DFA_SAD_XX.flac")


def test_the_published_mp3_files_alone_are_the_corpus(corpus):
    wav_files = sorted((corpus / "AudioWAV").glob("[!.]*"))
    (corpus / "AudioMP3").mkdir()
    for path in wav_files:
        path.rename(corpus / "AudioMP3" / f"{path.stem}.mp3")

    assert [row["id"] for row in crema_d.rows(corpus)] == [f"crema-d/{name}" for name in CLIPS[:-1]]


def test_votes_of_each_kind_of_rater_are_soft_labels(corpus):
    heard, seen = (next(crema_d.rows(corpus, labels=labels)) for labels in ("voice", "face"))

    assert (heard["emotion"], heard["probabilities"]) == ("neutral", [0.4, 0.1, 0.0, 0.0, 0.5, 0.0])
    assert (seen["emotion"], seen["probabilities"]) == ("angry", [0.9, 0.0, 0.0, 0.1, 0.0, 0.0])
    assert next(crema_d.rows(corpus, labels="audio-visual"))["probabilities"] == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_votes_fit_into_the_table_of_recipes(corpus):
    table = corpus_table("crema-d/voice", str(corpus))

    assert table["emotion"][:] == ["neutral", None, "neutral", "neutral"]
    assert table["probabilities"][1] == [0.5, 0.0, 0.0, 0.0, 0.5, 0.0]


def test_votes_beside_the_intended_emotion_change_nothing_but_the_soft_label(corpus):
    intended, both = (list(crema_d.rows(corpus, labels=labels)) for labels in ("intended", "voice-votes"))
    votes = [row["probabilities"] for row in crema_d.rows(corpus, labels="voice")]

    assert both == [{**row, "probabilities": each} for row, each in zip(intended, votes, strict=True)]
    assert corpus_table("crema-d/voice-votes", str(corpus))["emotion"][:] == ["angry", "angry", "neutral", "neutral"]


def test_tied_votes_have_probabilities_and_no_emotion(corpus):
    tied = list(crema_d.rows(corpus, labels="voice"))[1]

    assert tied["emotion"] is None
    assert tied["probabilities"] == [0.5, 0.0, 0.0, 0.0, 0.5, 0.0]


def test_dimensions_of_votes_are_the_mean_norms_of_the_voters(corpus):
    tied = list(crema_d.rows(corpus, labels="voice"))[1]
    angry, neutral = np.array(norm_derived_dimensions("angry")), np.array(norm_derived_dimensions("neutral"))

    assert [tied[name] for name in ("activation", "valence", "dominance")] == pytest.approx((angry + neutral) / 2)


def test_video_is_paired_and_broken_or_missing_ones_are_none(corpus):
    videos = {row["id"]: row["video"] for row in crema_d.rows(corpus, video=True)}

    assert videos["crema-d/1001_IEO_ANG_HI"] == {
        "bytes": None,
        "path": str(corpus / "VideoFlash" / "1001_IEO_ANG_HI.flv"),
    }
    assert videos["crema-d/1001_IEO_ANG_LO"] is None  # missing
    assert videos["crema-d/1076_MTI_NEU_XX"] is None  # broken


def test_clip_misnamed_in_old_copies_has_its_right_name(corpus):
    soundfile.write(corpus / "AudioWAV" / "1040_ITH_SAD_X.wav", np.zeros(160, dtype=np.float32), 16_000)

    row = {row["speaker"]: row for row in crema_d.rows(corpus)}["crema-d/1040"]

    assert row["id"] == "crema-d/1040_ITH_SAD_XX"
    assert row["audio"]["path"].endswith("1040_ITH_SAD_X.wav")
    assert row["gender"] is None  # not among the demographics


def test_demographics_are_by_speaker(corpus):
    assert crema_d.demographics(corpus)["crema-d/1076"] == {
        "Age": "25",
        "Sex": "Female",
        "Race": "African American",
        "Ethnicity": "Hispanic",
    }


def test_audio_without_demographics_has_no_genders(corpus):
    (corpus / "VideoDemographics.csv").unlink()

    assert {row["gender"] for row in crema_d.rows(corpus)} == {None}


def test_missing_votes_are_an_error_that_names_the_file(corpus):
    (corpus / "processedResults" / "tabulatedVotes.csv").unlink()

    with pytest.raises(FileNotFoundError, match=r"tabulatedVotes\.csv"):
        crema_d.rows(corpus, labels="voice")


def test_clips_without_votes_are_named(corpus):
    soundfile.write(corpus / "AudioWAV" / "1003_DFA_SAD_XX.wav", np.zeros(160, dtype=np.float32), 16_000)

    with pytest.raises(ValueError, match="1003_DFA_SAD_XX"):
        crema_d.rows(corpus, labels="face")


def test_unknown_labels_are_an_error_that_lists_the_known(corpus):
    with pytest.raises(ValueError, match=r"intended.*audio-visual.*got 'heard'"):
        crema_d.rows(corpus, labels="heard")


def test_git_lfs_pointer_is_named_before_the_first_row(corpus):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (corpus / "AudioWAV" / "1001_IEO_ANG_HI.wav").write_text(pointer)

    with pytest.raises(ValueError, match="git lfs pull"):
        crema_d.rows(corpus)


def test_folder_without_clips_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="got none"):
        crema_d.rows(tmp_path)


def test_foreign_name_is_an_error_that_names_the_file(corpus):
    (corpus / "AudioWAV" / "03-01-05-02-01-01-01.wav").touch()

    with pytest.raises(ValueError, match="03-01-05-02-01-01-01"):
        crema_d.rows(corpus)


@pytest.mark.skipif(not (LABELS.parent / "crema-d").is_dir(), reason="needs AUDIO_EMOTION_DATA with crema-d/ in it")
def test_real_corpus_has_7435_clips_and_six_emotions():
    real = list(crema_d.rows(LABELS.parent / "crema-d"))

    assert len(real) == 7442 - len(crema_d.LEFT_OUT)
    assert {row["emotion"] for row in real} == set(crema_d.INFO.emotions)
    assert len({row["speaker"] for row in real}) == 91


@needs_labels
@pytest.mark.parametrize(("labels", "percent"), [("voice", 44.6), ("face", 68.5), ("audio-visual", 74.4)])
def test_real_majority_equals_the_intended_emotion_as_often_as_known(labels, percent):
    votes = crema_d.votes(LABELS, labels)
    hits = 0.0
    for clip, shares in votes.items():
        first = [emotion for emotion, share in zip(crema_d.INFO.emotions, shares, strict=True) if share == max(shares)]
        hits += (crema_d.CODES[clip.split("_")[2]] in first) / len(first)  # a tie is split

    assert len(votes) == 7442
    assert round(100 * hits / len(votes), 1) == percent


@needs_labels
def test_real_demographics_have_48_men_and_43_women():
    people = crema_d.demographics(LABELS)

    assert sorted(people) == [f"crema-d/{actor}" for actor in range(1001, 1092)]
    assert sum(person["Sex"] == "Male" for person in people.values()) == 48


def test_attributes_are_age_and_ethnicity_of_the_speaker(corpus):
    row = {"speaker": "crema-d/1076"}
    person = crema_d.demographics(corpus)["crema-d/1076"]
    age = int(person["Age"])
    expected = "under 30" if age < 30 else "30 to 49" if age < 50 else "50 or more"
    found = crema_d.attributes(row, corpus)
    assert found["age"] == expected
    assert found["ethnicity"] == ("Hispanic" if person["Ethnicity"] == "Hispanic" else person["Race"])
    assert crema_d.attributes({"speaker": "crema-d/9999"}, corpus) == {}


def test_votes_of_raters_are_counts_whose_fractions_are_the_soft_labels(corpus):
    counts, fractions = crema_d.rater_votes(corpus, "voice"), crema_d.votes(corpus, "voice")
    assert set(fractions) <= set(counts)
    for name, row in fractions.items():
        total = sum(counts[name].values())
        assert [counts[name][emotion] / total for emotion in crema_d.INFO.emotions] == pytest.approx(row)
