"""Model and data set cards: Jinja templates for the text, huggingface_hub's card data for the metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from huggingface_hub import CardData, DatasetCardData, ModelCardData, SpaceCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError, meta

if TYPE_CHECKING:
    from audio_emotion.data.corpora.corpus_info import CorpusInfo

TEMPLATES = Path(__file__).parents[1] / "hub_cards"  # a link in a checkout, a folder in an installed wheel
Template = Literal[
    "student",
    "lite",
    "teacher",
    "pseudo_labels",
    "audio_visual_labels",
    "benchmark",
    "metric",
    "browser_space",
    "gradio_space",
]

DIMENSIONS_MEANING = {
    "rated": "Listeners rated the training clips; the model predicts the mean of their ratings.",
    "norm-derived": (
        "The training clips are not rated: each takes the values that readers gave to its emotion *word* (Warriner, "
        "Kuperman and Brysbaert 2013, doi 10.3758/s13428-012-0314-x). They are not ratings of speech."
    ),
    "norm-derived-pad": (
        "The training clips are not rated: each takes the values that persons gave to its emotion as a felt *state* "
        "(Russell and Mehrabian 1977, doi 10.1016/0092-6566(77)90037-X). They are not ratings of speech."
    ),
    "synthetic": "They are computed from synthetic sounds, to test training, and mean nothing for speech.",
    "none": "The training clips have no dimensions: do not use this output.",
}
DIMENSION_ENDS = {
    "activation": ("calm", "excited"),
    "valence": ("negative", "positive"),
    "dominance": ("weak", "strong"),
}
HUB_LICENSES = {"odbl-1.0": "odbl"}  # where the Hub's identifier is not SPDX's in lower case
SIZE_CATEGORIES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M"}
# Facts that may be missing: each opens a section, a sentence or a metadata field of its own.
_SECTIONS = {"adapter_encoders", "eval_results", "fine_tuned", "groups", "plots", "report", "streams"}
OPTIONAL = _SECTIONS | {"constant", "is_default_model"}
# Facts that are in the metadata, but not in the text.
METADATA_ONLY = {
    **dict.fromkeys(("student", "lite", "teacher"), ("license", "eval_results")),
    **dict.fromkeys(("pseudo_labels", "audio_visual_labels"), ("license",)),
    "benchmark": ("configs", "languages"),
    "gradio_space": ("sdk_version",),
}
POSSIBLY_EMPTY = {"emotions", "dimensions"}  # lists that a model without that head leaves empty


def render_card(template: Template, facts: dict[str, Any], own: Mapping[str, CorpusInfo] | None = None) -> str:
    """Render the card of a model, a data set or a metric.

    `ModelCard.from_template` leaves a variable without a value silently empty. Here that is an error.

    Args:
        template: name of a file in `hub_cards/`.
        facts: a value for every variable of the template, as computed by `card_facts.py`; those in `OPTIONAL` may
            be missing. `eval_results` (a list of `EvalResult`) goes into the metadata of a model alone.
        own: corpora that the run was trained on, by name; they state the language and, if they are described by a
            file of the user, the citation.

    Returns:
        The content of `README.md`: YAML metadata and Markdown.

    Raises:
        ValueError: on an unknown template or `dimensions_source`; on a fact that is missing, empty, or that the
            template does not use, with its name.
    """
    path = TEMPLATES / f"{template}.md"
    if not path.is_file():
        known = sorted(each.stem for each in TEMPLATES.glob("*.md"))
        raise ValueError(f"Expected a card template among {known}, got {template!r}. Name one of them.")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, finalize=_require_value, autoescape=False
    )
    environment.filters |= {"ends": dimension_ends, "thousands": "{:,}".format}
    variables = _variables(environment, path.name) - {"card_data"} | set(METADATA_ONLY.get(template, ()))

    facts = {"version": version("audio-emotion"), **{name: [] for name in OPTIONAL & variables}, **facts}
    computed: dict[str, Any] = {}
    if "dimensions_meaning" in variables:
        computed["dimensions_meaning"] = dimensions_meaning(facts.get("dimensions_source"))
    if "corpora" in variables:
        computed["corpora"] = corpora_facts(facts.get("training_data") or [], own or {})
    variables -= computed.keys()
    if unknown := sorted(facts.keys() - variables):
        raise ValueError(f"Expected facts that {path.name} uses, got {unknown}. Remove them.")
    if missing := sorted(variables - facts.keys()):
        raise ValueError(f"Expected a fact for every variable of {path.name}, got none for {missing}. Add them.")
    may_be_empty = OPTIONAL | {name for name in POSSIBLY_EMPTY if isinstance(facts.get(name), list)}
    if empty := sorted(name for name in facts if name not in may_be_empty and _is_empty(facts[name])):
        raise ValueError(f"Expected a value for every variable of {path.name}, got none for {empty}. Fill them in.")
    facts |= computed
    try:
        card_data = _card_data(template, facts).to_yaml()
        text = environment.get_template(path.name).render(facts, card_data=card_data)
    except (KeyError, UndefinedError, TypeError) as error:  # an entry of a list lacks a field, or holds None
        raise ValueError(
            f"Expected complete entries in the lists of facts of {path.name}, got an incomplete one: {error}. Check "
            "`training_data` first."
        ) from error
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def dimensions_meaning(source: Any) -> str:
    """What the values of the dimensions are derived from, in one or two sentences.

    Raises:
        ValueError: on an unknown source.
    """
    if source not in DIMENSIONS_MEANING:
        raise ValueError(
            f"Expected `dimensions_source` among {sorted(DIMENSIONS_MEANING)}, got {source!r}. Set it in the "
            "configuration of the model: the card has to state what its dimensions are."
        )
    return DIMENSIONS_MEANING[source]


def dimension_ends(dimension: str) -> tuple[str, str]:
    """A word for 0 and a word for 1 of a dimension; of a custom dimension only the order is known."""
    return DIMENSION_ENDS.get(dimension, ("lowest", "highest"))


def corpora_facts(training_data: Sequence[Mapping[str, Any]], own: Mapping[str, CorpusInfo]) -> list[dict[str, Any]]:
    """Name, citation, languages and kind of speech of each training corpus, public models left out."""
    from audio_emotion.data.registry import corpus_info  # slow: imports `datasets`

    facts = []
    names = {str(entry["corpus"]) for entry in training_data if "corpus" in entry and "model" not in entry}
    for name in sorted(names):
        try:
            info = own.get(name) or corpus_info(name)
        except ValueError:  # of another installation, which described it by a file
            info = None
        facts.append(
            {
                "name": name,
                "citation": info.citation if info else "as its owners request",
                "languages": list(info.languages) if info and (name in own or not own) else [],
                "speech": info.speech if info and info.speech else "not described here: check how it was recorded",
            }
        )
    return facts


def _card_data(template: Template, facts: Mapping[str, Any]) -> CardData:
    """The metadata of a card, as the Hub reads it."""
    if template == "metric":
        tags = ["evaluate", "metric", "audio-emotion"]
        return SpaceCardData(title=facts["metric_name"], license="apache-2.0", sdk="static", tags=tags)
    if template in ("browser_space", "gradio_space"):
        is_static = template == "browser_space"
        sdk = {"sdk": "static"} if is_static else {"sdk": "gradio", "sdk_version": facts["sdk_version"]}
        return SpaceCardData(
            title=facts["model_name"],
            app_file="index.html" if is_static else "app.py",
            suggested_hardware=None if is_static else facts["hardware"],
            models=None if is_static else [facts["model_id"]],
            tags=["audio-emotion", "speech-emotion-recognition"],
            **sdk,
            **_license(facts["license"]),
        )
    tags = ["audio-emotion", "speech-emotion-recognition"]
    languages = sorted({each for corpus in facts.get("corpora", []) for each in corpus["languages"]}) or None
    if template in ("student", "lite", "teacher"):
        tags += ["dimensional-emotion"] if facts["dimensions"] else []
        if template == "teacher":
            tags.append("feature-fusion")
        elif any(entry["teachers"] for entry in facts["training_data"]):
            tags.append("knowledge-distillation")
        metrics = {"recall": facts["emotions"], "concordance_correlation": facts["dimensions"]}
        base_models = [each["source"] for each in facts.get("streams", []) if each["source"].count("/") == 1]
        return ModelCardData(
            language=languages,
            library_name="transformers",
            pipeline_tag="audio-classification",
            tags=tags,
            datasets=[corpus["name"] for corpus in facts["corpora"]] or None,
            metrics=[name for name, outputs in metrics.items() if outputs],
            base_model=base_models or None,
            model_name=facts["model_name"] if facts["eval_results"] else None,
            eval_results=facts["eval_results"] or None,
            **_license(facts["license"]),
        )
    if template == "benchmark":
        return DatasetCardData(
            language=facts["languages"] or None,
            pretty_name=facts["dataset_name"],
            task_categories=["audio-classification"],
            size_categories=[_size(facts["clips"])],
            tags=[*tags, "benchmark"],
            source_datasets=[facts["corpus"]],
            configs=facts["configs"],
            **_license(facts["license"]),
        )
    tags += ["facial-expression-recognition"] if template == "audio_visual_labels" else []
    tags += ["dimensional-emotion"] if facts.get("dimensions") else []
    return DatasetCardData(
        language=languages,
        pretty_name=facts["dataset_name"],
        task_categories=["audio-classification"],
        size_categories=[_size(facts["clips"])],
        tags=[*tags, "pseudo-labels", "knowledge-distillation"],
        source_datasets=facts["source_datasets"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}],
        **_license(facts["license"]),
    )


def _size(clips: int) -> str:
    """The Hub's category of a number of clips."""
    return next((name for limit, name in SIZE_CATEGORIES.items() if clips < limit), "n>1M")


def _license(spdx: str) -> dict[str, str]:
    """An SPDX expression as fields of the metadata: the Hub's identifier, or `other` with a name."""
    if spdx.startswith("LicenseRef-") or " " in spdx:
        name = spdx.removeprefix("LicenseRef-").replace(" ", "-").lower()
        return {"license": "other", "license_name": name}
    return {"license": HUB_LICENSES.get(spdx.lower(), spdx.lower())}


def _variables(environment: Environment, template: str) -> set[str]:
    """Names of the variables that a template and those it includes use."""
    assert environment.loader is not None
    tree = environment.parse(environment.loader.get_source(environment, template)[0])
    included = (_variables(environment, name) for name in meta.find_referenced_templates(tree) if name)
    return meta.find_undeclared_variables(tree).union(*included)


def _is_empty(value: Any) -> bool:
    """Whether a reader would see nothing, or the word None; zero is a value."""
    return value is None or (isinstance(value, str) and not value.strip()) or value in ([], (), {})


def _require_value(value: Any) -> Any:
    """Refuse an empty value inside the entry of a list, which would leave a gap in the card."""
    if _is_empty(value):
        raise ValueError(
            f"Expected a value in every entry of the card, got {value!r}. Check the lists in `facts`, "
            "`training_data` first: neither `corpus` nor the list of `speakers` may be empty."
        )
    return value
