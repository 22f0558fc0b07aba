"""Corpora by name in one table."""

from __future__ import annotations

import pytest
import yaml

from audio_emotion.data import registry
from audio_emotion.data.corpora import iemocap
from audio_emotion.data.corpora.corpus_info import CorpusInfo, Variant
from audio_emotion.data.protocols import fold_protocols
from audio_emotion.data.registry import (
    CORPORA,
    RegisteredCorpus,
    apply_protocol,
    corpus_info,
    corpus_rows,
    corpus_table,
    features,
    load_protocol,
    register_corpus,
    select_speakers,
    shard_files,
)


def test_a_table_has_every_column_and_none_where_the_corpus_has_nothing():
    table = corpus_table("synthetic", count=3)

    assert table.column_names == [
        *("id", "audio", "speaker", "gender", "emotion", "activation", "valence", "dominance"),
        *("probabilities", "partition", "video", "shard", "row"),
    ]
    assert table[0]["video"] is None or table[0]["video"] == {"bytes": None, "path": None}
    assert [table[0][name] for name in ("probabilities", "partition", "shard", "row")] == [None] * 4
    assert table[0]["audio"]["bytes"][:4] == b"fLaC"
    assert shard_files("synthetic") == []


def test_columns_follow_the_dimensions_of_the_corpus(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"")  # is not decoded
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
    monkeypatch.setattr(registry, "ROWS_IN_MEMORY", 3)

    assert corpus_table("synthetic", count=7)[:] == whole[:]
    assert len(corpus_table("synthetic", count=0)) == 0


def test_rows_come_in_the_same_order_each_time():
    assert [row["id"] for row in corpus_rows("synthetic", count=5)] == corpus_table("synthetic", count=5)["id"][:]


@pytest.mark.parametrize("name", sorted(CORPORA))
def test_every_name_leads_to_a_corpus_of_that_name(name):
    assert corpus_info(name).name == name


@pytest.mark.parametrize("name", [f"{name}/{word}" for name in CORPORA for word in CORPORA[name].info.variants])
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
    rows = [
        {"id": "a", "probabilities": votes},
        {"id": "b", "probabilities": frustrated},
        {"id": "c", "probabilities": None},
    ]
    reader = RegisteredCorpus(iemocap.INFO, lambda root, classes: iter(rows))
    monkeypatch.setitem(CORPORA, "iemocap", reader)

    assert corpus_info("iemocap/four").emotions == ("angry", "happy", "sad", "neutral")
    found = [row["probabilities"] for row in corpus_rows("iemocap/four")]
    assert found == [pytest.approx([2 / 3, 0, 1 / 3, 0]), None, None]


def test_speakers_without_clips_are_named():
    table = corpus_table("synthetic", count=10)

    assert select_speakers(table, ["synthetic/03"])["id"][:] == ["synthetic/0/000002"]
    with pytest.raises(ValueError, match="synthetic/11"):
        select_speakers(table, ["synthetic/03", "synthetic/11"])


def test_a_corpus_is_registered_from_outside_the_package(monkeypatch):
    """With a variant, a protocol and a soft label."""
    monkeypatch.setattr(registry, "CORPORA", dict(CORPORA))
    speakers = [f"toy/{number}" for number in range(3)]
    info = CorpusInfo(
        name="toy",
        license="CC0-1.0",
        citation="Nobody 2026.",
        emotions=("happy", "sad"),
        dimensions_source="none",
        dimensions=(),
        languages=("en",),
        variants={"loud": Variant({"loud": True})},
        protocols=fold_protocols("toy-fold", [(speaker,) for speaker in speakers]),
        default_protocol="toy-fold-1",
    )

    def rows(root, loud=False):
        for index, speaker in enumerate(speakers * 2):
            audio = {"bytes": b"loud" if loud else b"quiet", "path": None}
            row = {"id": f"toy/{index}", "audio": audio, "speaker": speaker, "gender": None, "emotion": "sad"}
            yield row | {"probabilities": [0.25, 0.75]}

    register_corpus(info, rows)

    table = corpus_table("toy/loud")
    assert (table["audio"][0]["bytes"], table["probabilities"][0]) == (b"loud", [0.25, 0.75])
    assert corpus_info("toy/loud").emotions == ("happy", "sad")
    divided, protocol = apply_protocol("toy", table)
    assert protocol == load_protocol("toy-fold-1")
    assert select_speakers(divided, protocol.test)["id"][:] == ["toy/0", "toy/3"]
    with pytest.raises(ValueError, match="toy"):
        register_corpus(info, rows)
