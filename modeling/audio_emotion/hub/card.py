"""Cards: the holes of a template filled with facts, none of them left open."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from jinja2 import Environment, StrictUndefined, UndefinedError, meta

HUB_LICENSES = {"odbl-1.0": "odbl"}  # where the Hub's name is not SPDX's in small letters


def hub_license(license_: str) -> str:
    """An SPDX expression as the Hub's metadata: one of its own names, or `other` and a name."""
    if license_.startswith("LicenseRef-") or " " in license_:
        return f"other\nlicense_name: {license_.removeprefix('LicenseRef-').replace(' ', '-').lower()}"
    return HUB_LICENSES.get(license_.lower(), license_.lower())


def size_category(rows: int) -> str:
    """The Hub's name for how many rows a data set has."""
    for limit, name in ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")):
        if rows < limit:
            return name
    return "n>1M"


TEMPLATES = Path(__file__).parents[1] / "hub_cards"  # a link in a checkout, a folder in an installed wheel

# What stands behind the dimensions decides what a reader may conclude; the words go with the configuration's value.
DIMENSIONS_MEANING = {
    "rated": "Listeners rated the clips it learned from, and it predicts the mean of their ratings.",
    "norm-derived": (
        "Nobody rated the clips it learned from: each takes the values that readers gave to its emotion *word* "
        "(Warriner, Kuperman and Brysbaert 2013, doi 10.3758/s13428-012-0314-x). They are not ratings of speech."
    ),
    "synthetic": "They were computed from made-up sounds, to show that learning works; they say nothing of speech.",
    "none": "Nothing that it learned from has them: do not use them.",
}


# How the speech of known corpora came about, which decides where a model may be expected to work; and its language.
CORPUS_SPEECH = {
    "ravdess": "acted: adult professional actors from North America speak two English sentences in a studio",
    "crema-d": "acted: adult actors in the United States speak twelve English sentences",
    "emodb": "acted: ten adult actors speak ten German sentences",
    "iemocap": "acted: ten adult actors in English dialogues, scripted and improvised",
    "msp-podcast": "spontaneous English speech from podcasts",
    "voxceleb2": "interviews of celebrities in many languages, without emotion labels",
    "synthetic": "no speech at all: sounds made by code",
}
CORPUS_LANGUAGES = {"ravdess": "en", "crema-d": "en", "emodb": "de", "iemocap": "en", "msp-podcast": "en"}
# What 0 and 1 are; of somebody's own dimensions only that much is known.
DIMENSION_ENDS = {
    "activation": ("calm", "excited"),
    "valence": ("negative", "positive"),
    "dominance": ("weak", "strong"),
}
OWN_ENDS = ("least", "most")
# Sections that are there only if there is something to say.
OPTIONAL = {"base_models", "model_index", "streams", "groups", "plots", "fine_tuned"}
LISTS = {"emotions", "dimensions"}  # empty where a model has none
COMPUTED = {"dimensions_meaning", "corpora", "languages"}  # by `render_card`, from other facts

Template = Literal["student", "teacher", "pseudo_labels", "audio_visual_labels", "metric", "adapter"]


def render_card(template: Template, facts: dict[str, Any], citations: Mapping[str, str] | None = None) -> str:
    """Fill a card template with facts, and with nothing else.

    Args:
        template: which card.
        facts: what fills the holes, as `card_facts.py` gathers them. Those of a model, all of
            them required:
            `model_name`, and `model_id` as one loads it: a Hub id or a folder;
            `license` of the weights, one identifier of the Hub's or SPDX's, and `license_name_line`, a sentence that
            names the terms and whence they come;
            `emotions` and `dimensions` (lists of names, empty where it has none);
            `dimensions_source` (`"rated"`, `"norm-derived"` or `"synthetic"`);
            `parameters` (how many); `megabytes` of the weights;
            `training_data`, a dict per corpus: `corpus`, `speakers` (list), `teachers` (list, may be empty); with
            `model` it is of a public model, and `corpus` says so in words;
            `recipe_command`; `results_table` (Markdown); `results_note`; `version` of this package.
            Those that open a section of their own, left out or empty where there is nothing to say: `base_models`
            (Hub ids), `model_index` (the Hub's form of results), `streams` (list of dicts: `name`, `source`,
            `revision`), `groups` (Markdown), `plots` (list of dicts: `path`, `caption`), and `fine_tuned`, whether
            another checkpoint was the beginning.
        citations: by name, of corpora that this package does not know.

    Returns:
        the card: YAML metadata and Markdown, ready for `README.md`.

    Raises:
        ValueError: on an unknown template or `dimensions_source`; on a fact that is missing or empty, or that the card
            has no hole for, naming it.
    """
    path = TEMPLATES / f"{template}.md"
    if not path.is_file():
        known = sorted(each.stem for each in TEMPLATES.glob("*.md"))
        raise ValueError(f"Expected a card template among {known}, got {template!r}. Name one of them.")
    text = path.read_text(encoding="utf-8")
    environment = Environment(
        undefined=StrictUndefined, finalize=_filled, keep_trailing_newline=True, autoescape=False
    )
    environment.filters["ends"] = ends
    environment.filters["thousands"] = "{:,}".format
    environment.filters["yaml"] = _yaml
    environment.filters["hub_license"] = hub_license
    holes = meta.find_undeclared_variables(environment.parse(text))
    if "dimensions_source" in holes:
        facts = {**facts, "dimensions_meaning": dimensions_meaning(facts.get("dimensions_source"))}
    if "corpora" in holes:
        seen_corpora = [seen for seen in facts.get("training_data") or [] if "corpus" in seen and "model" not in seen]
        names = sorted({str(seen["corpus"]) for seen in seen_corpora})
        unknown = "a corpus of which this card knows no more: find out how its speech was recorded"
        facts["corpora"] = [
            {
                "name": name,
                "speech": CORPUS_SPEECH.get(name, unknown),
                "citation": (citations or {}).get(name) or _citation(name),
            }
            for name in names
        ]
        facts["languages"] = sorted({CORPUS_LANGUAGES[name] for name in names if name in CORPUS_LANGUAGES})
    facts = {name: [] for name in OPTIONAL & holes} | facts
    if unknown_facts := sorted(set(facts) - holes - COMPUTED):
        raise ValueError(f"Expected facts that {path.name} has holes for, got {unknown_facts}. Remove them.")
    if missing := sorted(holes - set(facts)):
        raise ValueError(f"Expected facts for every hole of {path.name}, got none for {missing}. Add them to `facts`.")
    required = [hole for hole in holes - OPTIONAL - COMPUTED if hole not in LISTS or not isinstance(facts[hole], list)]
    if empty := sorted(hole for hole in required if _is_empty(facts[hole])):
        raise ValueError(
            f"Expected a fact in every hole of {path.name}, got nothing in {empty}. Fill them in `facts`."
        )
    try:
        return environment.from_string(text).render(facts)
    except (UndefinedError, TypeError) as error:  # an entry of a list lacks a field, or has None in its place
        raise ValueError(
            f"Expected facts for every hole of {path.name}, got an entry with a gap: {error}. Look through the "
            "lists in `facts`, `training_data` above all."
        ) from error


def dimensions_meaning(source: Any) -> str:
    """What stands behind the dimensions, in words.

    Raises:
        ValueError: on an unknown source.
    """
    if source not in DIMENSIONS_MEANING:
        raise ValueError(
            f"Expected `dimensions_source` among {sorted(DIMENSIONS_MEANING)}, got {source!r}. Set it in the "
            "configuration of the model: a card must say what its dimensions are."
        )
    return DIMENSIONS_MEANING[source]


def ends(dimension: str) -> tuple[str, str]:
    """What 0 and 1 of a dimension are, in a word each."""
    return DIMENSION_ENDS.get(dimension, OWN_ENDS)


def _citation(corpus: str) -> str:
    """How a corpus wants to be cited."""
    from audio_emotion.data.registry import corpus_info  # imports `datasets`; the façade imports this folder

    try:
        return corpus_info(corpus).citation
    except ValueError:
        return "as its owners ask"


def _yaml(value: Any) -> str:
    """A nested value as a block of YAML, or of JSON where it is a plain string."""
    if isinstance(value, str):
        return json.dumps(value)
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10**6).rstrip()


def _is_empty(value: Any) -> bool:
    """Whether a reader would see nothing, or the word None; zero is a fact."""
    return value is None or (isinstance(value, str) and not value.strip()) or value in ([], (), {})


def _filled(value: Any) -> Any:
    """Refuse what a hole inside a list's entry would silently leave empty."""
    if _is_empty(value):
        raise ValueError(
            f"Expected a fact in every hole of the card, got {value!r}. Look through the lists in `facts`, "
            "`training_data` above all: no `corpus` and no list of `speakers` may be empty."
        )
    return value
