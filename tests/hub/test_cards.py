"""Cards: every variable has a value, and the result is a card that the Hub can read."""

from __future__ import annotations

import copy
import re
from dataclasses import replace

import pytest
import soundfile
from huggingface_hub import ModelCard

import audio_emotion
from audio_emotion.data.registry import corpus_info
from audio_emotion.hub.card import DIMENSIONS_MEANING, TEMPLATES, render_card
from audio_emotion.hub.checkpoint import write_checkpoint

FACTS = {
    "model_name": "Mouse",
    "model_id": "somebody/mouse",
    "license": "CC-BY-NC-SA-4.0",
    "license_note": "CC BY-NC-SA 4.0, the terms of RAVDESS: not for commercial use.",
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
}
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

    expected = ["Mouse", "somebody/mouse", FACTS["license_note"], "neutral, happy, sad, angry", "251,203", "1.04 MB"]
    expected += ["| ravdess | 01, 02 | somebody/elephant |\n| ravdess | 03 | none |\n", FACTS["recipe_command"]]
    expected += [
        FACTS["results_table"],
        FACTS["results_note"],
        audio_emotion.__version__,
        "norm-derived",
        "Article 5(1)(f)",
    ]
    assert [each for each in expected if each not in card] == []
    assert not re.search(r"\{\{|\}\}|\{%|\bNone\b", card)


@both
def test_the_card_explains_the_source_of_the_dimensions(template):
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


def test_zero_is_a_value():
    assert "0 MB" in render_card("student", {**FACTS, "megabytes": 0})


def test_templates_contain_no_results():
    for path in TEMPLATES.rglob("*.md"):
        decimals = re.findall(r"\b\d+\.\d+\b", path.read_text(encoding="utf-8"))
        assert set(decimals) <= {"2.0", "2207.03334", "2507.00055"}, path  # a license, and the numbers of papers


@both
def test_code_in_the_card_runs(template, request, tmp_path, monkeypatch, speech):
    model = request.getfixturevalue(f"tiny_{template}")
    write_checkpoint(model, tmp_path / "model")
    soundfile.write(tmp_path / "clip.wav", speech, 16000)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", render_card(template, {**FACTS, "model_id": "./model"}), re.DOTALL)

    names: dict = {}
    exec(code, names)

    assert set(names["result"]["dimensions"]) == {"activation", "valence", "dominance"}


def test_a_fact_that_the_template_does_not_use_is_an_error_that_names_it():
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
def test_a_card_describes_its_own_corpora_only(template):
    facts = copy.deepcopy(FACTS)
    facts["training_data"][0]["corpus"] = "emodb"
    facts["training_data"][1]["corpus"] = "my-recordings"

    card = render_card(template, facts)

    assert "ten German sentences" in card
    assert "North America" not in card
    assert "my-recordings is not described here" in card
    assert "my-recordings: as its owners request" in card
    assert ModelCard(card).data.language == ["de"]


@both
def test_corpora_without_a_language_leave_it_out(template):
    facts = copy.deepcopy(FACTS)
    facts["training_data"] = [{"corpus": "synthetic", "speakers": ["01"], "teachers": []}]

    assert ModelCard(render_card(template, facts)).data.language is None


@both
def test_custom_dimensions_are_in_lists_and_snippets_and_others_are_not(template):
    card = render_card(template, {**FACTS, "dimensions": ["tension", "pleasure"], "dimensions_source": "rated"})

    assert 'result["dimensions"]["tension"]  # 0 lowest .. 1 highest' in card
    assert "`tension` (0 lowest, 1 highest), `pleasure` (0 lowest, 1 highest); `scale" in card
    assert not any(name in card for name in ("valence", "activation", "dominance"))


@both
def test_a_card_mentions_no_output_that_the_model_lacks(template):
    without_emotions = render_card(template, {**FACTS, "emotions": []})
    without_dimensions = render_card(template, {**FACTS, "dimensions": [], "dimensions_source": "none"})

    assert 'result["emotions"]' not in without_emotions
    assert "an emotion outside the list" not in without_emotions.lower()
    assert ModelCard(without_emotions).data.metrics == ["concordance_correlation"]
    assert 'result["dimensions"]' not in without_dimensions
    assert "Source of the dimensions" not in without_dimensions
    assert ModelCard(without_dimensions).data.metrics == ["recall"]
    for card in (without_emotions, without_dimensions):
        (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        assert 'result = recognizer("clip.wav")\n\nresult[' in code


@pytest.mark.parametrize(
    ("has_teachers", "fine_tuned", "expected"),
    [
        (True, False, "was distilled from teachers with"),
        (True, True, "was distilled from teachers and then fine-tuned with"),
        (False, True, "was fine-tuned on labels with"),
        (False, False, "was trained on labels without a teacher with"),
    ],
)
def test_only_a_student_with_teachers_is_called_distilled(has_teachers, fine_tuned, expected):
    facts = copy.deepcopy(FACTS) | {"fine_tuned": fine_tuned}
    if not has_teachers:
        facts["training_data"][0]["teachers"] = []

    card = render_card("student", facts)

    assert expected in card
    assert ("knowledge-distillation" in ModelCard(card).data.tags) == has_teachers
    assert ("or that of its teachers" in card) == has_teachers


@both
def test_a_described_corpus_is_cited_from_its_description(template):
    facts = copy.deepcopy(FACTS)
    facts["training_data"][0]["corpus"] = "callcenter"

    info = replace(corpus_info("ravdess"), name="callcenter", citation="Example Ltd, 2026, unpublished.")
    card = render_card(template, facts, {"callcenter": info})

    assert "- callcenter: Example Ltd, 2026, unpublished." in card


@both
def test_a_public_model_is_no_corpus(template):
    facts = copy.deepcopy(FACTS)
    public = {
        "model": "a/b",
        "corpus": "training data of the public model a/b",
        "speakers": ["see its model card"],
        "teachers": [],
    }
    facts["training_data"].append(public)

    card = render_card(template, facts)

    assert "| training data of the public model a/b | see its model card | none |" in card
    assert ModelCard(card).data.datasets == ["ravdess"]
    assert "- training data of" not in card


def test_the_card_of_the_default_model_needs_no_name():
    card = render_card("student", FACTS | {"is_default_model": True})

    assert 'pipeline("audio-emotion")' in card
    assert "\naudio-emotion info\n" in card
    assert FACTS["model_id"] not in card
    assert "trust_remote_code" not in card
