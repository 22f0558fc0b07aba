"""The page of corpora names every corpus and every split that a recipe knows."""

import re
from pathlib import Path

import pytest

from audio_emotion.data.registry import CORPORA, VARIANTS, corpus_info
from audio_emotion.data.splits import SPLIT_NAMES

PAGE = Path(__file__).parents[3] / "docs" / "corpora.md"


@pytest.fixture(scope="module")
def names():
    """What stands between backticks."""
    return set(re.findall(r"`([^`\n]+)`", PAGE.read_text(encoding="utf-8")))


def pattern(name):
    """`fold-1..6` stands for six names, `<release>` for any, `...` for whatever follows."""
    name = re.escape(name).replace(re.escape("<release>"), r"[\d.]+")
    name = re.sub(r"1\\\.\\\.(\d)", r"[1-\1]", name)
    return name.replace(r"\.\.\.", ".*")


@pytest.mark.parametrize("corpus", [*CORPORA, *(f"{name}/{word}" for name in VARIANTS for word in VARIANTS[name])])
def test_every_corpus_is_on_the_page(names, corpus):
    assert corpus in names


@pytest.mark.parametrize("split", SPLIT_NAMES)
def test_every_split_is_on_the_page(names, split):
    assert any(re.fullmatch(pattern(name), split) for name in names)


def test_no_name_of_a_corpus_on_the_page_is_unknown_to_recipes(names):
    pages = {name for name in names if re.fullmatch(rf"({'|'.join(CORPORA)})(/[a-z-]+)*", name)}

    assert {corpus_info(name).name for name in pages} == set(CORPORA)  # an error, if one is unknown
