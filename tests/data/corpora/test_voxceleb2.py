"""VoxCeleb2 rows pair sound with picture, and carry no label."""

import pytest

from audio_emotion.data.corpora import voxceleb2
from audio_emotion.data.registry import corpus_table

KEYS = ("dev/{}/id00012/21Uxsk56VDQ/00001", "dev/{}/id03965/MmpzE5-VO9E/00047", "test/{}/id00017/01dfn2spqyE/00001")


@pytest.fixture
def corpus(tmp_path):
    """Two speakers of dev and one of test; the second utterance has no video."""
    for key in KEYS:
        for kind, suffix in (("aac", "m4a"), ("mp4", "mp4")):
            path = tmp_path / f"{key.format(kind)}.{suffix}"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"\x00")
    (tmp_path / "dev/mp4/id03965/MmpzE5-VO9E/00047.mp4").unlink()
    (tmp_path / "vox2_meta.csv").write_text(
        "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid00012 ,n000012 ,m ,dev \nid00017 ,n000017 ,f ,test \n"
    )
    return tmp_path


def test_row_has_speaker_gender_video_and_no_label(corpus):
    assert next(voxceleb2.rows(corpus)) == {
        "id": "voxceleb2/id00012/21Uxsk56VDQ/00001",
        "audio": {"bytes": None, "path": str(corpus / "dev/aac/id00012/21Uxsk56VDQ/00001.m4a")},
        "speaker": "voxceleb2/id00012",
        "gender": "male",
        "emotion": None,
        "activation": None,
        "valence": None,
        "dominance": None,
        "partition": "train",
        "video": {"bytes": None, "path": str(corpus / "dev/mp4/id00012/21Uxsk56VDQ/00001.mp4")},
    }


def test_parts_are_partitions_and_a_missing_video_is_none(corpus):
    rows = list(voxceleb2.rows(corpus))

    assert [row["partition"] for row in rows] == ["train", "train", "test"]
    assert [row["video"] is None for row in rows] == [False, True, False]
    assert [row["gender"] for row in rows] == ["male", None, "female"]  # the second is not in the table


def test_rows_without_a_label_fit_into_the_table_of_recipes(corpus):
    table = corpus_table("voxceleb2", str(corpus))

    assert table["emotion"][:] == [None] * 3
    assert table["video"][1] is None or table["video"][1]["path"] is None


def test_table_of_genders_may_be_cut_by_tabs_or_absent(corpus):
    file = corpus / "vox2_meta.csv"
    file.write_text(file.read_text().replace(",", "\t"))
    assert next(voxceleb2.rows(corpus))["gender"] == "male"

    file.unlink()
    assert next(voxceleb2.rows(corpus))["gender"] is None


def test_only_audio_is_read_without_the_option_video(corpus):
    (corpus / "dev" / "mp4").rename(corpus / "elsewhere")

    assert len(list(voxceleb2.rows(corpus, video=False))) == 3
    with pytest.raises(FileNotFoundError, match="dev/mp4"):
        voxceleb2.rows(corpus)


def test_folder_without_either_part_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="got neither"):
        voxceleb2.rows(tmp_path)
