"""docs/corpora.md has one row for every registered corpus, which agrees with its `CorpusInfo`."""

import re
from pathlib import Path

import pytest

from audio_emotion.data.registry import CORPORA, corpus_info

PAGE = Path(__file__).parents[3] / "docs" / "corpora.md"


@pytest.fixture(scope="module")
def table():
    """Cells of each row by column, by the name of its corpus."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    cells = [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]
    return {quoted(row["name in recipes"])[0]: row for row in cells}


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", cell)


def pattern(name: str) -> str:
    """`fold-1..6` matches six names, `<release>` any release."""
    name = re.escape(name).replace(re.escape("<release>"), r"[\d.]+")
    return re.sub(r"1\\\.\\\.(\d)", r"[1-\1]", name)


def test_the_table_has_one_row_for_every_corpus(table):
    assert sorted(table) == sorted(CORPORA)


@pytest.mark.parametrize("corpus", sorted(CORPORA))
def test_a_row_has_the_variants_license_languages_and_labels_of_the_corpus(table, corpus):
    row, info = table[corpus], corpus_info(corpus)

    assert quoted(row["name in recipes"]) == [corpus, *(f"{corpus}/{word}" for word in info.variants)]
    assert quoted(row["license"]) == [info.license]
    assert row["language"] == ", ".join(info.languages) or (not info.languages and row["language"] in ("many", "none"))
    assert row["dimensions"].startswith(info.dimensions_source)
    assert row["labels"].startswith(str(len(info.emotions)) if info.emotions else "none")


@pytest.mark.parametrize("corpus", sorted(CORPORA))
def test_a_row_has_the_protocols_of_the_corpus_and_no_others(table, corpus):
    patterns = [pattern(name) for name in quoted(table[corpus]["protocols"])]
    protocols = corpus_info(corpus).protocols

    assert [name for name in protocols if not any(re.fullmatch(each, name) for each in patterns)] == []
    assert [each for each in patterns if not any(re.fullmatch(each, name) for name in protocols)] == []


def test_every_other_corpus_name_on_the_page_is_known():
    names = {name for name in quoted(PAGE.read_text(encoding="utf-8")) if re.fullmatch(r"[a-z-]+\d?(/[a-z-]+)+", name)}
    names = {name for name in names if name.split("/")[0] in CORPORA}

    assert len(names) > 10
    assert {corpus_info(name).name for name in names} <= set(CORPORA)  # an error for an unknown variant
