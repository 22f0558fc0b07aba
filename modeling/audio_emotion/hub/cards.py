"""Model cards: prose from a template, every fact from a configuration or a results file, and no hole left open."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from jinja2 import Environment, StrictUndefined, UndefinedError, meta

from audio_emotion.evaluation.provenance import heard_speakers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from audio_emotion.training.teacher_outputs import TeacherOutputs

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
HUB_LICENSES = {"odbl-1.0": "odbl"}  # where the Hub's name is not SPDX's in small letters
MOST_GROUPS = 12  # of one kind that a card lists: many single speakers are for results.json
# Sections that are there only if there is something to say.
OPTIONAL = {"base_models", "model_index", "streams", "groups", "plots"}
COMPUTED = {"dimensions_meaning", "corpora", "languages"}  # by `render_card`, from other facts
MEASURES = {  # of `results.json`, with the Hub's name of the metric and how a reader knows it
    "uar": ("recall", "unweighted average recall"),
    "accuracy": ("accuracy", "accuracy"),
    "macro_f1": ("f1", "macro F1"),
    "ccc_activation": ("concordance_correlation", "CCC activation"),
    "ccc_valence": ("concordance_correlation", "CCC valence"),
    "ccc_dominance": ("concordance_correlation", "CCC dominance"),
}

Template = Literal["student", "teacher", "pseudo_labels", "audio_visual_labels", "metric"]


def render_card(template: Template, facts: dict[str, Any]) -> str:
    """Fill a card template with facts, and with nothing else.

    Args:
        template: which card.
        facts: what fills the holes, as `model_facts`, `pseudo_label_facts` and `metric_facts` gather them. Those of a
            model, all of them required:
            `model_name`, and `model_id` as one loads it: a Hub id or a folder;
            `license` of the weights, one identifier of the Hub's or SPDX's, and `license_name_line`, a sentence that
            names the terms and whence they come;
            `emotions` (list); `dimensions_source` (`"rated"`, `"norm-derived"` or `"synthetic"`);
            `parameters` (how many); `megabytes` of the weights;
            `training_data`, a dict per corpus: `corpus`, `speakers` (list), `teachers` (list, may be empty);
            `recipe_command`; `results_table` (Markdown); `results_note`; `version` of this package.
            Those that open a section of their own, left out or empty where there is nothing to say: `base_models`
            (Hub ids), `model_index` (the Hub's form of results), `streams` (list of dicts: `name`, `source`,
            `revision`), `groups` (Markdown), `plots` (list of dicts: `path`, `caption`).

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
    environment.filters["thousands"] = "{:,}".format
    environment.filters["yaml"] = _yaml
    environment.filters["hub_license"] = _hub_license
    holes = meta.find_undeclared_variables(environment.parse(text))
    if "dimensions_source" in holes:
        facts = {**facts, "dimensions_meaning": dimensions_meaning(facts.get("dimensions_source"))}
    if "corpora" in holes:
        names = sorted({str(seen["corpus"]) for seen in facts.get("training_data") or [] if "corpus" in seen})
        unknown = "a corpus of which this card knows no more: find out how its speech was recorded"
        facts["corpora"] = [
            {"name": name, "speech": CORPUS_SPEECH.get(name, unknown), "citation": _citation(name)} for name in names
        ]
        facts["languages"] = sorted({CORPUS_LANGUAGES[name] for name in names if name in CORPUS_LANGUAGES})
    facts = {name: [] for name in OPTIONAL & holes} | facts
    if unknown_facts := sorted(set(facts) - holes - COMPUTED):
        raise ValueError(f"Expected facts that {path.name} has holes for, got {unknown_facts}. Remove them.")
    if missing := sorted(holes - set(facts)):
        raise ValueError(f"Expected facts for every hole of {path.name}, got none for {missing}. Add them to `facts`.")
    if empty := sorted(hole for hole in holes - OPTIONAL - COMPUTED if _is_empty(facts[hole])):
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


def model_facts(
    model: PreTrainedModel, model_id: str, results: dict[str, Any], megabytes: float, plots: list[str]
) -> dict[str, Any]:
    """What the card of a teacher or student says, from its configuration and its run's results.

    Args:
        model: with its heads.
        model_id: `owner/name` on the Hub.
        results: of the run, as in `results.json`.
        megabytes: of the weights.
        plots: paths of pictures beside the card.

    Raises:
        ValueError: where the configuration does not name its licence or what the model has heard, or the results hold
            no scores.
    """
    config = model.config
    _check_told(config.license, list(config.training_data))
    side, scores = _scores(results)
    heard = heard_speakers(list(config.training_data)) & set(scores["speakers"])
    streams = list(config.streams) if config.model_type == "fused-emotion" else []
    encoders = [
        {"name": each["name"], "source": each["source"], "revision": each["revision"] or "not pinned"}
        for each in streams
        if each["kind"] == "encoder"
    ]
    facts = {
        "model_name": model_id.partition("/")[2],
        "model_id": model_id,
        "license": config.license,
        "license_name_line": _license_line("the weights", config.license, list(config.training_data)),
        "emotions": list(config.emotions),
        "dimensions_source": config.dimensions_source,
        "parameters": model.num_parameters(),
        "megabytes": megabytes,
        "training_data": _heard(list(config.training_data)),
        "recipe_command": f"accelerate launch recipes/{results['recipe']}.py --config training/config.yaml",
        "results_table": _results_table(scores),
        "results_note": _results_note(results, side, scores, heard, len(config.emotions)),
        "version": _version(),
        "model_index": _model_index(model_id, results, side, scores),
        "groups": _groups_table(scores),
        "plots": [{"path": path, "caption": Path(path).stem.replace("_", " ")} for path in plots],
    }
    if config.model_type == "fused-emotion":
        facts["streams"] = encoders
        facts["base_models"] = [each["source"] for each in encoders if each["source"].count("/") == 1]
    return facts


def pseudo_label_facts(
    said: TeacherOutputs, config: dict[str, Any], dataset_id: str, results: dict[str, Any]
) -> dict[str, Any]:
    """What the card of a data set of pseudo-labels says.

    Args:
        said: what the teachers said.
        config: of the teacher, as in `config.json`.
        dataset_id: `owner/name` on the Hub.
        results: of the teacher's run.
    """
    _check_told(config.get("license"), said.training_data)
    side, scores = _scores(results)
    heard = heard_speakers(said.training_data) & set(scores["speakers"])
    corpora = sorted({name.partition("/")[0] for name in said.ids})
    return {
        "dataset_name": dataset_id.partition("/")[2],
        "dataset_id": dataset_id,
        "license": config["license"],
        "license_name_line": _license_line("the labels", config["license"], said.training_data),
        "clips": len(said.ids),
        "size_category": _size_category(len(said.ids)),
        "teachers": said.num_teachers,
        "spoken_of": corpora,
        "emotions": said.emotions,
        "embedding_size": said.embedding.shape[1],
        "dimensions_source": config["dimensions_source"],
        "training_data": _heard(said.training_data),
        "results_table": _results_table(scores),
        "results_note": _results_note(results, side, scores, heard, len(said.emotions)),
        "recipe_command": f"accelerate launch recipes/{results['recipe']}.py --config training/config.yaml",
        "version": _version(),
    }


def metric_facts(module: Path, metric_id: str) -> dict[str, Any]:
    """What the card of a metric says: the words that stand in its module.

    Args:
        module: a module of `evaluate`, with `_DESCRIPTION`, `_KWARGS_DESCRIPTION` and `_CITATION`; it is not run.
        metric_id: `owner/name` on the Hub.
    """
    words = {
        target.id: str(node.value.value)
        for node in ast.parse(module.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return {
        "metric_name": metric_id.partition("/")[2],
        "metric_id": metric_id,
        "description": words.get("_DESCRIPTION", "").strip(),
        "arguments": words.get("_KWARGS_DESCRIPTION", "").strip(),
        "citation": words.get("_CITATION", "").strip(),
        "version": _version(),
    }


def _version() -> str:
    """Of this package."""
    from audio_emotion import __version__  # the façade imports this folder

    return __version__


def _check_told(license_: Any, training_data: list[dict[str, Any]]) -> None:
    """Refuse a card for weights of which nobody says under which terms they stand, or whom they have heard."""
    if not license_:
        raise ValueError("Expected `license` in the configuration of the model, got none. Set it: readers need it.")
    if not training_data:
        raise ValueError("Expected `training_data` in the configuration of the model, got none. Set it: see the card.")


def _license_line(what: str, license_: str, training_data: list[dict[str, Any]]) -> str:
    """Terms, and whence they come."""
    names = sorted({seen["corpus"] for seen in training_data})
    terms = {"NC": "not for commercial use", "SA": "what is made of them stands under the same terms"}
    said = [text for part, text in terms.items() if part in license_.upper().split("-")]
    return (
        f"{what.capitalize()} stand under {license_}, the terms of {', '.join(names)}"
        + "".join(f"; {each}" for each in said)
        + "."
    )


def _heard(training_data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`training_data` of a configuration for reading: teachers in words."""

    def told(teacher: dict[str, Any]) -> str:
        speakers = ", ".join(_short_names(teacher))
        own = [told(each) for each in teacher.get("teachers", [])]
        return f"heard {teacher['corpus']} ({speakers})" + (f", taught by one who {'; '.join(own)}" if own else "")

    return [
        {
            "corpus": seen["corpus"],
            "speakers": _short_names(seen),
            "teachers": list(dict.fromkeys(told(teacher) for teacher in seen.get("teachers", []))),
        }
        for seen in training_data
    ]


def _short_names(seen: dict[str, Any]) -> list[str]:
    """Speakers without their corpus."""
    return [str(name).removeprefix(f"{seen['corpus']}/") for name in seen["speakers"]]


def _scores(results: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The side that was scored and its scores: the test, or else the validation."""
    for side in ("test", "validation"):
        if side in results:
            return side, results[side]
    raise ValueError(f"Expected scores of a test or validation side in results.json, got {sorted(results)}.")


def _results_table(scores: dict[str, Any]) -> str:
    """Measures with intervals, and the control where targets are norm-derived."""
    controlled = any(name.startswith("control_") for name in scores)
    lines = ["| measure | value | 95 % interval |" + (" control |" if controlled else "")]
    lines += ["| --- | --- | --- |" + (" --- |" if controlled else "")]
    for name, (_, words) in MEASURES.items():
        if name not in scores:
            continue
        low, high = scores.get("intervals", {}).get(name, (None, None))
        interval = "not computed" if low is None else f"{low:.2f} to {high:.2f}"
        control = scores.get(f"control_{name}")
        cell = (" |" if control is None else f" {control:.3f} |") if controlled else ""
        lines.append(f"| {words} | {scores[name]:.3f} | {interval} |{cell}")
    return "\n".join(lines)


def _results_note(results: dict[str, Any], side: str, scores: dict[str, Any], heard: set[str], emotions: int) -> str:
    """On what, and how sure."""
    speakers = sorted(str(name) for name in scores["speakers"])
    shown = ", ".join(speakers[:20]) + (f" and {len(speakers) - 20} more" if len(speakers) > 20 else "")
    kind = "" if side == "test" else ", on which the run was tuned: too good"
    lines = [f"{scores['clips']} clips of {len(speakers)} speakers ({shown}), the {side} side of `{results['split']}`"]
    lines[0] += f"{kind}. Intervals are bootstrapped over {scores.get('intervals_over', 'clips')}."
    if heard:
        lines.append(f"**Contaminated: the model, or a teacher of it, has heard {', '.join(sorted(heard))}.**")
    else:
        lines.append("Neither the model nor a teacher of it has heard any of them.")
    if "seed" in results and "folds" not in results:
        lines.append(f"One split, one seed ({results['seed']}): a hint, not a result.")
    lines.append(
        f"Unweighted average recall gives every emotion the same weight; blind guessing scores 1 in {emotions}. "
        "CCC is Lin's concordance correlation: 1 is agreement, a constant prediction scores 0."
    )
    if any(name.startswith("control_") for name in scores):
        lines.append(
            "*Control* is what the model's own categories say of the dimensions, through the norms of the emotion "
            "words: only what the value adds to it is a claim."
        )
    return " ".join(lines)


def _model_index(model_id: str, results: dict[str, Any], side: str, scores: dict[str, Any]) -> list[dict[str, Any]]:
    """Results as the Hub reads them."""
    corpora = sorted({str(name).partition("/")[0] for name in scores["speakers"]})
    metrics = [
        {"type": kind, "name": words, "value": round(scores[name], 4)}
        for name, (kind, words) in MEASURES.items()
        if name in scores
    ]
    dataset = {"type": corpora[0], "name": ", ".join(corpora), "config": results["split"], "split": side}
    task = {"type": "audio-classification", "name": "speech emotion recognition"}
    return [{"name": model_id.partition("/")[2], "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}]


def _groups_table(scores: dict[str, Any]) -> str:
    """Scores of each group of speakers, if the evaluation has told them apart."""
    groups = {kind: each for kind, each in scores.get("groups", {}).items() if len(each) <= MOST_GROUPS}
    if not groups:
        return ""
    columns = [name for name in MEASURES if any(name in each for kind in groups.values() for each in kind.values())]
    lines = ["| group | clips | " + " | ".join(MEASURES[name][1] for name in columns) + " |"]
    lines += ["| --- | --- |" + " --- |" * len(columns)]
    for kind, members in groups.items():
        for member, each in members.items():
            known = {name: each[name] for name in columns if name in each and each[name] == each[name]}  # NaN: none
            cells = [f"{known[name]:.3f}" if name in known else "not measured" for name in columns]
            lines.append(f"| {kind}: {member} | {each['clips']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _citation(corpus: str) -> str:
    """How a corpus wants to be cited."""
    from audio_emotion.training.tables import corpus_info  # imports `datasets`; the façade imports this folder

    try:
        return corpus_info(corpus).citation
    except ValueError:
        return "as its owners ask"


def _hub_license(license_: str) -> str:
    """An SPDX expression as the Hub's metadata: one of its own names, or `other` and a name."""
    if license_.startswith("LicenseRef-") or " " in license_:
        return f"other\nlicense_name: {license_.removeprefix('LicenseRef-').replace(' ', '-').lower()}"
    return HUB_LICENSES.get(license_.lower(), license_.lower())


def _size_category(rows: int) -> str:
    """The Hub's name for how many rows a data set has."""
    for limit, name in ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")):
        if rows < limit:
            return name
    return "n>1M"


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
