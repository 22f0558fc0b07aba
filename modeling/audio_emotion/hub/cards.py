"""Model cards: prose from a template, every fact from a configuration or a results file, and no hole left open."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, StrictUndefined, UndefinedError, meta

TEMPLATES = Path(__file__).parents[1] / "hub_cards"  # a link in a checkout, a folder in an installed wheel

# What stands behind the dimensions decides what a reader may conclude; the words go with the configuration's value.
DIMENSIONS_MEANING = {
    "rated": "Listeners rated the clips it learned from, and it predicts the mean of their ratings.",
    "norm-derived": (
        "Nobody rated the clips it learned from: each takes the values that readers gave to its emotion *word* "
        "(Warriner, Kuperman and Brysbaert 2013, doi 10.3758/s13428-012-0314-x). They are not ratings of speech."
    ),
    "synthetic": "They were computed from made-up sounds, to show that learning works; they say nothing of speech.",
}


def render_card(template: Literal["student", "teacher"], facts: dict[str, Any]) -> str:
    """Fill a card template with facts, and with nothing else.

    Args:
        template: which card.
        facts: what fills the holes, all of them required:
            `model_name`, and `model_id` as one loads it: a Hub id or a folder;
            `license` of the weights, one identifier of the Hub's or SPDX's, and `license_name_line`, a sentence that
            names the terms and whence they come;
            `emotions` (list); `dimensions_source` (`"rated"`, `"norm-derived"` or `"synthetic"`);
            `parameters` (how many); `megabytes` of the weights;
            `training_data`, a dict per corpus: `corpus`, `speakers` (list), `teachers` (list, may be empty);
            `recipe_command`; `results_table` (Markdown); `results_note`; `version` of this package.

    Returns:
        the card: YAML metadata and Markdown, ready for `README.md`.

    Raises:
        ValueError: on an unknown template or `dimensions_source`; on a fact that is missing or empty, naming it.
    """
    path = TEMPLATES / f"{template}.md"
    if not path.is_file():
        known = sorted(each.stem for each in TEMPLATES.glob("*.md"))
        raise ValueError(f"Expected a card template among {known}, got {template!r}. Name one of them.")
    source = facts.get("dimensions_source")
    if source not in DIMENSIONS_MEANING:
        raise ValueError(
            f"Expected `dimensions_source` among {sorted(DIMENSIONS_MEANING)}, got {source!r}. Set it in the "
            "configuration of the model: a card must say what its dimensions are."
        )
    facts = {**facts, "dimensions_meaning": DIMENSIONS_MEANING[source]}

    environment = Environment(
        undefined=StrictUndefined, finalize=_filled, keep_trailing_newline=True, autoescape=False
    )
    environment.filters["thousands"] = "{:,}".format
    text = path.read_text(encoding="utf-8")
    holes = meta.find_undeclared_variables(environment.parse(text))
    if missing := sorted(holes - set(facts)):
        raise ValueError(f"Expected facts for every hole of {path.name}, got none for {missing}. Add them to `facts`.")
    if empty := sorted(hole for hole in holes if _is_empty(facts[hole])):
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
