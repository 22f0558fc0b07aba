"""MSP-Podcast rows say what the consensus and the raters say, in the files of any release."""

import csv
import json

import pytest

from audio_emotion.data.corpora import msp_podcast

COLUMNS = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set")
CLIPS = (
    ("MSP-PODCAST_0001_0008.wav", "N", 4.0, 2.5, 7.0, "127", "Male", "Train"),
    ("MSP-PODCAST_0002_0033.wav", "X", 1.0, 4.0, 4.0, "Unknown", "Unknown", "Train"),
    ("MSP-PODCAST_0002_0039.wav", "H", 5.5, 6.4, 4.6, "Unknown", "Female", "Test1"),
    ("MSP-PODCAST_0003_0001.wav", "U", 3.0, 3.0, 3.0, "8", "Female", "Development"),
    ("MSP-PODCAST_0004_0001_0002.wav", "O", 3.0, 3.0, 3.0, "9", "Female", "Test2"),
    ("MSP-PODCAST_0005_0001.wav", "", "", "", "", "10", "Male", "Test3"),
)
RATINGS = (  # file, worker, primary, secondary, activation, valence, dominance
    ("MSP-PODCAST_0001_0008.wav", "WORKER00000001", "Neutral", "Neutral,Concerned", 3, 4, 3),
    ("MSP-PODCAST_0001_0008.wav", "WORKER00000002", "Sad", "Sad", 2, 2, 3),
    ("MSP-PODCAST_0001_0008.wav", "WORKER00000003", "Neutral", "Neutral", 4, 4, 4),
    ("MSP-PODCAST_0001_0008.wav", "WORKER00000004", "Surprise", "Surprise,Amused", 4, 4, 4),
    ("MSP-PODCAST_0001_0008.wav", "WORKER00000005", "Other-bored", "Other", 4, 4, 4),
    ("MSP-PODCAST_0002_0033.wav", "WORKER00000001", "Other", "Other", 4, 4, 4),
)


def write_csv(file, header, lines):
    with file.open("w", newline="") as text:
        csv.writer(text).writerows([header, *lines])


@pytest.fixture
def corpus(tmp_path):
    """A release of today: CSV files, `Audios/`, clips of every partition."""
    (tmp_path / "Audios").mkdir()
    (tmp_path / "Labels").mkdir()
    write_csv(tmp_path / "Labels" / "labels_consensus.csv", COLUMNS, CLIPS)
    return tmp_path


def rows_by_clip(*args, **options):
    return {row["id"].removeprefix("msp-podcast/MSP-PODCAST_"): row for row in msp_podcast.rows(*args, **options)}


def test_attributes_go_from_1_to_7(corpus):
    assert next(msp_podcast.rows(corpus)) == {
        "id": "msp-podcast/MSP-PODCAST_0001_0008",
        "audio": {"bytes": None, "path": str(corpus / "Audios" / "MSP-PODCAST_0001_0008.wav")},
        "speaker": "msp-podcast/127",
        "gender": "male",
        "emotion": "neutral",
        "activation": 0.5,
        "valence": 0.25,
        "dominance": 1.0,
        "partition": "train",
    }


def test_letters_are_emotions_and_other_or_disagreement_is_none(corpus):
    assert [row["emotion"] for row in msp_podcast.rows(corpus)] == ["neutral", None, "happy", "surprised", None, None]


def test_partitions_have_the_same_names_in_all_releases(corpus):
    write_csv(corpus / "Labels" / "labels_consensus.csv", COLUMNS, [(*clip[:-1], "Validation") for clip in CLIPS])

    assert {row["partition"] for row in msp_podcast.rows(corpus)} == {"validation"}


def test_partitions_are_mapped_to_their_names(corpus):
    partitions = [row["partition"] for row in msp_podcast.rows(corpus)]

    assert partitions == ["train", "train", "test", "validation", "test-2", "test-3"]


def test_withheld_labels_are_none(corpus):
    row = rows_by_clip(corpus)["0005_0001"]

    assert [row[name] for name in ("emotion", "activation", "valence", "dominance")] == [None] * 4


def test_unknown_speakers_are_never_one_and_the_same(corpus):
    rows = rows_by_clip(corpus)

    assert rows["0002_0033"]["speaker"] == "msp-podcast/unknown-MSP-PODCAST_0002_0033"
    assert rows["0002_0039"]["speaker"] == "msp-podcast/unknown-MSP-PODCAST_0002_0039"
    assert rows["0002_0033"]["gender"] is None


def test_unknown_speakers_can_be_dropped(corpus):
    assert [row["speaker"] for row in msp_podcast.rows(corpus, unknown_speakers="drop")] == [
        "msp-podcast/127",
        "msp-podcast/8",
        "msp-podcast/9",
        "msp-podcast/10",
    ]


@pytest.mark.parametrize(
    "name", ["label/labels_concensus.csv", "labels/labels_concensus.json", "Labels/labels_consensus.json"]
)
def test_every_release_gives_the_same_rows_wherever_its_labels_lie(corpus, name):
    expected = list(msp_podcast.rows(corpus))
    (corpus / "Labels" / "labels_consensus.csv").unlink()
    file = corpus / name
    file.parent.mkdir(exist_ok=True)
    if file.suffix == ".json":
        by_name = {clip[0]: dict(zip(COLUMNS[1:], map(str, clip[1:]), strict=True)) for clip in CLIPS}
        file.write_text(json.dumps(by_name))
    else:
        write_csv(file, COLUMNS, CLIPS)

    assert list(msp_podcast.rows(corpus)) == expected


@pytest.mark.parametrize("form", ["a column each", "one column", "json"])
def test_raters_primary_classes_are_the_soft_label(corpus, form):
    if form == "a column each":
        header = ("FileName", "Workers", "EmoClass_Major", "EmoClass_Second", "EmoAct", "EmoVal", "EmoDom")
        write_csv(corpus / "Labels" / "labels_detailed.csv", header, RATINGS)
    elif form == "one column":
        lines = [
            (name, f"{who}; {first}; {second}; A:{a}; V:{v}; D:{d};") for name, who, first, second, a, v, d in RATINGS
        ]
        write_csv(corpus / "Labels" / "labels_detailed.csv", ("FileName", "EmoDetail"), lines)
    else:
        names = ("EmoClass_Major", "EmoClass_Second", "EmoAct", "EmoVal", "EmoDom")
        by_name: dict = {}
        for name, who, *said in RATINGS:
            by_name.setdefault(name, {})[who] = dict(zip(names, said, strict=True))
        (corpus / "Labels" / "labels_detailed.json").write_text(json.dumps(by_name))

    rows = rows_by_clip(corpus, votes=True)

    assert dict(zip(msp_podcast.INFO.emotions, rows["0001_0008"]["probabilities"], strict=True)) == dict.fromkeys(
        msp_podcast.INFO.emotions, 0
    ) | {"neutral": 0.5, "sad": 0.25, "surprised": 0.25}
    assert rows["0002_0033"]["probabilities"] is None  # the only vote is for another word
    assert rows["0003_0001"]["probabilities"] is None  # nobody's votes are there


def test_missing_ratings_are_an_error(corpus):
    with pytest.raises(FileNotFoundError, match="labels_detailed"):
        msp_podcast.rows(corpus, votes=True)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("EmoClass", "Q", "class"), ("Split_Set", "Dev", "partition"), ("EmoVal", "8.5", r"1\.\.7")],
)
def test_value_that_no_release_has_is_an_error(corpus, column, value, message):
    clip = [value if name == column else each for name, each in zip(COLUMNS, CLIPS[0], strict=True)]
    write_csv(corpus / "Labels" / "labels_consensus.csv", COLUMNS, [clip])

    with pytest.raises(ValueError, match=message):
        list(msp_podcast.rows(corpus))


def test_missing_audio_is_named_at_the_call(corpus):
    (corpus / "Audios").rmdir()

    with pytest.raises(FileNotFoundError, match="Audios"):
        msp_podcast.rows(corpus)
