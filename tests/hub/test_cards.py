"""Cards: every hole is filled with a fact, and what comes out is a card that the Hub can read."""

from __future__ import annotations

import copy
import re
import runpy
from pathlib import Path

import pytest
import soundfile
from huggingface_hub import ModelCard

from audio_emotion.hub.card import DIMENSIONS_MEANING, TEMPLATES, render_card
from audio_emotion.hub.checkpoint import write_checkpoint

FACTS = {
    "model_name": "Mouse",
    "model_id": "somebody/mouse",
    "license": "CC-BY-NC-SA-4.0",
    "license_name_line": "CC BY-NC-SA 4.0, the terms of RAVDESS: not for commercial use.",
    "emotions": ["neutral", "happy", "sad", "angry"],
    "dimensions": ["activation", "valence", "dominance"],
    "dimensions_source": "norm-derived",
    "parameters": 251203,
    "megabytes": 1.0374,
    "training_data": [
        {"corpus": "ravdess", "speakers": ["01", "02"], "teachers": ["somebody/elephant"]},
        {"corpus": "ravdess", "speakers": ["03"], "teachers": []},
    ],
    "recipe_command": "accelerate launch recipes/distill.py --config mouse.yaml",
    "results_table": "| UAR |\n| --- |\n| 0.123 |",
    "results_note": "Two folds, one seed: a hint.",
    "version": "9.8.7",
}
RECIPES = Path(__file__).parents[2] / "recipes"
both = pytest.mark.parametrize("template", ["student", "teacher"])


@both
def test_metadata_is_what_the_hub_reads(template):
    card = ModelCard(render_card(template, FACTS))

    data = card.data
    assert (data.license, data.library_name, data.language) == ("cc-by-nc-sa-4.0", "transformers", ["en"])
    assert data.pipeline_tag == "audio-classification"
    assert data.datasets == ["ravdess"]
    assert "audio-emotion" in data.tags
    assert data.metrics == ["recall", "concordance_correlation"]
    assert card.text.lstrip().startswith("# Mouse\n")


@both
def test_every_fact_is_in_the_card(template):
    card = render_card(template, FACTS)

    said = ["Mouse", "somebody/mouse", FACTS["license_name_line"], "neutral, happy, sad, angry", "251,203", "1.04 MB"]
    said += ["| ravdess | 01, 02 | somebody/elephant |\n| ravdess | 03 | none |\n", FACTS["recipe_command"]]
    said += [FACTS["results_table"], FACTS["results_note"], "9.8.7", "norm-derived", "Article 5(1)(f)"]
    assert [each for each in said if each not in card] == []
    assert not re.search(r"\{\{|\}\}|\{%|\bNone\b", card)


@both
def test_a_card_says_what_its_dimensions_are(template):
    for source, meaning in DIMENSIONS_MEANING.items():
        card = render_card(template, {**FACTS, "dimensions_source": source})
        assert meaning in card
        assert not any(other in card for other in DIMENSIONS_MEANING.values() if other != meaning)


@both
@pytest.mark.parametrize("name", sorted(FACTS))
def test_a_missing_or_empty_fact_is_an_error_that_names_it(template, name):
    with pytest.raises(ValueError, match=name):
        render_card(template, {key: value for key, value in FACTS.items() if key != name})
    for nothing in (None, "", "  \n"):
        with pytest.raises(ValueError, match=name):
            render_card(template, {**FACTS, name: nothing})


@both
@pytest.mark.parametrize("name", ["corpus", "speakers", "teachers"])
def test_a_missing_or_empty_fact_of_a_corpus_is_an_error(template, name):
    missing, empty = copy.deepcopy(FACTS), copy.deepcopy(FACTS)
    del missing["training_data"][1][name]
    empty["training_data"][0][name] = None

    with pytest.raises(ValueError, match=name):
        render_card(template, missing)
    with pytest.raises(ValueError, match="training_data"):
        render_card(template, empty)


def test_a_corpus_without_speakers_is_an_error():
    facts = copy.deepcopy(FACTS)
    facts["training_data"][0]["speakers"] = []

    with pytest.raises(ValueError, match="speakers"):
        render_card("student", facts)


def test_unknown_template_and_source_are_errors_that_name_the_known():
    with pytest.raises(ValueError, match=r"student.*teacher.*parrot"):
        render_card("parrot", FACTS)
    with pytest.raises(ValueError, match=r"norm-derived.*guessed"):
        render_card("student", {**FACTS, "dimensions_source": "guessed"})


def test_zero_is_a_fact():
    assert "0 MB" in render_card("student", {**FACTS, "megabytes": 0})


def test_templates_type_no_result():
    for path in TEMPLATES.glob("*.md"):
        decimals = re.findall(r"\b\d+\.\d+\b", path.read_text(encoding="utf-8"))
        assert set(decimals) <= {"2.0", "2207.03334", "2507.00055"}, path  # a license, and the numbers of papers


@both
def test_code_in_the_card_runs(template, request, tmp_path, monkeypatch, speech):
    model = request.getfixturevalue(f"tiny_{template}")
    write_checkpoint(model, tmp_path / "model")
    soundfile.write(tmp_path / "clip.wav", speech, 16000)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", render_card(template, {**FACTS, "model_id": "./model"}), re.DOTALL)

    said: dict = {}
    exec(code, said)

    assert set(said["answer"]["dimensions"]) == {"activation", "valence", "dominance"}


def test_a_fact_without_a_hole_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="favorite_color"):
        render_card("student", {**FACTS, "favorite_color": "green"})


@pytest.mark.parametrize(
    ("license_", "on_the_hub", "name"),
    [
        ("ODbL-1.0", "odbl", None),
        ("LicenseRef-MSP-Podcast", "other", "msp-podcast"),
        ("Apache-2.0 AND CC-BY-4.0", "other", "apache-2.0-and-cc-by-4.0"),
    ],
)
def test_licenses_have_the_names_of_the_hub(license_, on_the_hub, name):
    data = ModelCard(render_card("student", {**FACTS, "license": license_})).data

    assert (data.license, data.license_name) == (on_the_hub, name)


@both
def test_a_card_tells_of_its_own_corpora_and_of_no_other(template):
    facts = copy.deepcopy(FACTS)
    facts["training_data"][0]["corpus"] = "emodb"
    facts["training_data"][1]["corpus"] = "my-recordings"

    card = render_card(template, facts)

    assert "ten German sentences" in card
    assert "North America" not in card
    assert "my-recordings is a corpus of which this card knows no more" in card
    assert "my-recordings: as its owners ask" in card
    assert ModelCard(card).data.language == ["de"]


@both
def test_corpora_without_a_language_leave_it_out(template):
    facts = copy.deepcopy(FACTS)
    facts["training_data"] = [{"corpus": "synthetic", "speakers": ["01"], "teachers": []}]

    card = render_card(template, facts)

    assert ModelCard(card).data.language is None
    assert card.startswith("---\nlicense:")


@both
def test_own_dimensions_stand_in_lists_and_snippets_and_others_do_not(template):
    card = render_card(template, {**FACTS, "dimensions": ["tension", "pleasure"], "dimensions_source": "rated"})

    assert 'answer["dimensions"]["tension"]  # 0 least .. 1 most' in card
    assert "`tension` (0 least, 1 most), `pleasure` (0 least, 1 most); `scale" in card
    assert not any(name in card for name in ("valence", "activation", "dominance"))


@both
def test_a_card_speaks_of_no_output_that_the_model_lacks(template):
    without_emotions = render_card(template, {**FACTS, "emotions": []})
    without_dimensions = render_card(template, {**FACTS, "dimensions": [], "dimensions_source": "none"})

    assert 'answer["emotions"]' not in without_emotions
    assert "an emotion outside its list" not in without_emotions.lower()
    assert ModelCard(without_emotions).data.metrics == ["concordance_correlation"]
    assert 'answer["dimensions"]' not in without_dimensions
    assert "Source of the dimensions" not in without_dimensions
    assert ModelCard(without_dimensions).data.metrics == ["recall"]
    for card in (without_emotions, without_dimensions):
        (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        assert 'answer = judge("clip.wav")\n\nanswer[' in code


@pytest.mark.parametrize(
    ("taught", "fine_tuned", "said"),
    [
        (True, False, "was distilled with"),
        (True, True, "was distilled and then fine-tuned with"),
        (False, True, "was fine-tuned on labels with"),
        (False, False, "was trained on labels alone with"),
    ],
)
def test_only_a_student_with_teachers_is_called_distilled(taught, fine_tuned, said):
    facts = copy.deepcopy(FACTS) | {"fine_tuned": fine_tuned}
    if not taught:
        facts["training_data"][0]["teachers"] = []

    card = render_card("student", facts)

    assert said in card
    assert ("knowledge-distillation" in ModelCard(card).data.tags) == taught
    assert ("or its teachers have" in card) == taught


@both
def test_a_corpus_described_by_a_file_is_cited_as_it_asks(template):
    facts = copy.deepcopy(FACTS)
    facts["training_data"][0]["corpus"] = "callcenter"

    card = render_card(template, facts, {"callcenter": "Example Ltd, 2026, unpublished."})

    assert "- callcenter: Example Ltd, 2026, unpublished." in card


@both
def test_a_public_model_is_no_corpus(template):
    facts = copy.deepcopy(FACTS)
    public = {"model": "a/b", "corpus": "what the public model a/b has met", "speakers": ["unknown"], "teachers": []}
    facts["training_data"].append(public)

    card = render_card(template, facts)

    assert "| what the public model a/b has met | unknown | none |" in card
    assert ModelCard(card).data.datasets == ["ravdess"]
    assert "- what the public" not in card


def test_the_card_of_the_default_model_finds_the_texts_that_it_words_otherwise():
    embed = runpy.run_path(str(RECIPES / "experiments" / "embed.py"))

    card = render_card("student", {**FACTS, "model_id": embed["NAME"]})

    assert [text for text in embed["OF_THE_DEFAULT"] if text not in card] == []
