"""Corpora by name in one table."""

from __future__ import annotations

import pytest
import yaml

from audio_emotion.data import registry as tables
from audio_emotion.data.corpora import iemocap
from audio_emotion.data.registry import (
    CORPORA,
    VARIANTS,
    corpus_info,
    corpus_rows,
    corpus_table,
    features,
    select_speakers,
    shard_files,
)


def test_a_table_has_every_column_and_none_where_the_corpus_has_nothing():
    table = corpus_table("synthetic", count=3)

    assert table.column_names == [
        *("id", "audio", "speaker", "gender", "emotion", "activation", "valence", "dominance"),
        *("shares", "partition", "video", "shard", "row"),
    ]
    assert table[0]["video"] is None or table[0]["video"] == {"bytes": None, "path": None}
    assert [table[0][name] for name in ("shares", "partition", "shard", "row")] == [None] * 4
    assert table[0]["audio"]["bytes"][:4] == b"fLaC"
    assert shard_files("synthetic") == []


def test_columns_follow_the_dimensions_of_the_corpus(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"")  # nobody listens yet
    (tmp_path / "clips.csv").write_text("file,tension\na.wav,3\n")
    description = {"name": "own", "license": "CC0-1.0", "citation": "Nobody 2026.", "source": "csv"}
    description |= {"path": "clips.csv", "columns": {"audio": "file", "tension": "tension"}, "scale": [1, 5]}
    description |= {"dimensions": ["tension"], "dimensions_source": "rated"}
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(description))
    table = corpus_table(str(file))

    assert corpus_info(str(file)).dimensions == ("tension",)
    assert list(features(("tension",))) == table.column_names
    assert "activation" not in table.column_names
    assert table["tension"][0] == 0.5

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    file.rename(elsewhere / "own.yaml")
    assert corpus_table(str(elsewhere / "own.yaml"), str(tmp_path))["id"][0] == "own/a"


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"crema-d.*ravdess.*your_own_data.*ravdes'"):
        corpus_info("ravdes")


def test_a_table_of_many_parts_is_one_table(monkeypatch):
    whole = corpus_table("synthetic", count=7)
    monkeypatch.setattr(tables, "PART", 3)

    assert corpus_table("synthetic", count=7)[:] == whole[:]
    assert len(corpus_table("synthetic", count=0)) == 0


def test_rows_come_in_the_same_order_each_time():
    assert [row["id"] for row in corpus_rows("synthetic", count=5)] == corpus_table("synthetic", count=5)["id"][:]


@pytest.mark.parametrize("name", sorted(CORPORA))
def test_every_name_leads_to_a_corpus_of_that_name(name):
    assert corpus_info(name).name == name


@pytest.mark.parametrize("name", [f"{corpus}/{word}" for corpus, words in VARIANTS.items() for word in words])
def test_every_variant_is_an_option_of_the_corpus(name, tmp_path):
    corpus = name.split("/")[0]
    assert corpus_info(name).name == corpus
    with pytest.raises(FileNotFoundError):  # the folder is empty, the option known
        list(corpus_rows(name, str(tmp_path)))
    with pytest.raises(ValueError, match="one word a kind"):
        corpus_info(f"{name}/{name.split('/')[1]}")


def test_four_classes_of_iemocap_keep_their_votes_alone(monkeypatch):
    votes = [0.5, 0.0, 0.0, 0.25, 0.0, 0.25, 0.0, 0.0, 0.0, 0.0]  # angry, sad, frustrated
    frustrated = [float(name == "frustrated") for name in iemocap.INFO.emotions]
    rows = [{"id": "a", "shares": votes}, {"id": "b", "shares": frustrated}, {"id": "c", "shares": None}]
    monkeypatch.setattr(iemocap, "rows", lambda root, classes: iter(rows))

    assert corpus_info("iemocap/four").emotions == ("angry", "happy", "sad", "neutral")
    shares = [row["shares"] for row in corpus_rows("iemocap/four")]
    assert shares == [pytest.approx([2 / 3, 0, 1 / 3, 0]), None, None]


def test_speakers_of_whom_nothing_is_there_are_named():
    table = corpus_table("synthetic", count=10)

    assert select_speakers(table, ["synthetic/03"])["id"][:] == ["synthetic/0/000002"]
    with pytest.raises(ValueError, match="synthetic/11"):
        select_speakers(table, ["synthetic/03", "synthetic/11"])
