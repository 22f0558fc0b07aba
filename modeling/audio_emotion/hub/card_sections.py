"""Whom a model has heard, its teachers and the public models in it included, in the words of a card."""

from __future__ import annotations

import ast
import math
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_emotion.evaluation.provenance import contamination
from audio_emotion.hub.card import size_category
from audio_emotion.teachers.outputs import TeacherFacts

MOST_NAMES = 20  # that a sentence lists


def heard_rows(training_data: Sequence[dict[str, Any]], silent_teachers: Iterable[str] = ()) -> list[dict[str, Any]]:
    """`training_data` of a configuration for reading: an entry a corpus or public model, teachers in words.

    Args:
        training_data: see `contamination`.
        silent_teachers: names of teachers who are known to have taught, and who name nothing that they have met.

    Returns:
        Dicts of `corpus`, `speakers` without their corpus, and `teachers`; of a public model with `model` as well.
    """
    silent = [f"{name}, which names nothing that it has met" for name in silent_teachers]
    return [
        {
            **({"model": seen["model"]} if seen.get("model") else {}),
            "corpus": f"what {_public(seen)} has met" if seen.get("model") else seen["corpus"],
            "speakers": ["told by its own card alone"] if seen.get("model") else _short_names(seen),
            "teachers": list(dict.fromkeys(_teacher(each) for each in seen.get("teachers") or ())) or silent,
        }
        for seen in training_data
    ]


def what_it_met(seen: dict[str, Any]) -> str:
    """An entry of `training_data` in words."""
    if seen.get("model"):
        return f"what {_public(seen)} has met"
    return f"{seen['corpus']} ({', '.join(_short_names(seen))})"


def public_models(training_data: Iterable[dict[str, Any]]) -> list[str]:
    """Names of the public models in `training_data`, teachers of teachers included."""
    names: set[str] = set()
    for seen in training_data:
        names |= {seen["model"]} if seen.get("model") else set()
        names |= set(public_models(seen.get("teachers") or ()))
    return sorted(names)


def heard_of(
    results: dict[str, Any], scores: dict[str, Any], training_data: Sequence[dict[str, Any]], encoders: Sequence[str]
) -> list[str]:
    """What of the scored clips has been heard: see `contamination`; what the results say themselves is added.

    Args:
        results: of a run.
        scores: of the side that was scored.
        training_data: of the model.
        encoders: where its pretrained parts come from.
    """
    names = [str(name) for name in scores["speakers"]]
    # The run names those of all held-out sides: speakers of another side are none of these; models end in a bracket.
    found = {name for name in results.get("contaminated_by") or () if name in names or name.endswith(")")}
    for corpus in {name.partition("/")[0] for name in names}:
        speakers = [name for name in names if name.partition("/")[0] == corpus]
        found |= set(contamination(corpus, speakers, training_data, encoders))
    return sorted(found)


def heard_line(
    scores: dict[str, Any],
    found: Sequence[str],
    training_data: Sequence[dict[str, Any]],
    encoders: Sequence[str],
    silent: bool,
) -> str:
    """Whether those on whom a model was scored are strangers to it, in words that claim no more than is known.

    Args:
        scores: of the side that was scored.
        found: as `heard_of` gives it.
        training_data: of the model.
        encoders: public models on which it is built.
        silent: whether it has teachers who name nothing that they have met.
    """
    speakers = [name for name in found if name in set(map(str, scores["speakers"]))]
    public = [name for name in found if name not in speakers]
    if found:
        said = [f"the model or a teacher of it has heard {listed(speakers)}"] if speakers else []
        said += [f"it learned from, or is built on, what has met this corpus: {'; '.join(public)}"] if public else []
        return f"**Contaminated: {'; and '.join(said)}.**"
    if not scores["speakers"]:
        return "The results name no speakers: whether the model or a teacher of it has heard them, nobody can tell."
    teachers = public_models(training_data)
    if not (teachers or encoders or silent):
        if not any(seen.get("teachers") for seen in training_data):
            return "The model has heard none of them, and nobody taught it."
        return (
            "Neither the model nor a teacher of it was trained on any of them; what the encoders of its teachers, if "
            "they have any, were pretrained on is not recorded."
        )
    line = "As far as its training is recorded, neither the model nor a teacher of it was trained on any of them."
    if teachers:
        line += f" What the public models that taught it ({listed(teachers)}) have met, their own cards alone tell."
    if encoders:
        line += f" What its encoders ({listed(encoders)}) were pretrained on, their own cards alone tell."
    return line


def listed(names: Collection[str]) -> str:
    """Some names, and how many more there are."""
    shown = sorted(names)
    more = f" and {len(shown) - MOST_NAMES} more" if len(shown) > MOST_NAMES else ""
    return ", ".join(shown[:MOST_NAMES]) + more


def _teacher(teacher: dict[str, Any]) -> str:
    """What a teacher has met, and who taught it."""
    met = f"met {what_it_met(teacher)}" if teacher.get("model") else f"heard {what_it_met(teacher)}"
    own = [_teacher(each) for each in teacher.get("teachers") or ()]
    return met + (f", taught by one who {'; '.join(own)}" if own else "")


def _public(seen: dict[str, Any]) -> str:
    return f"the public model {seen['model']}"


def _short_names(seen: dict[str, Any]) -> list[str]:
    """Speakers without their corpus; one without a list has been heard as a whole."""
    return [str(name).removeprefix(f"{seen['corpus']}/") for name in seen.get("speakers") or ["all"]]


MOST_GROUPS = 12  # of one kind that a card lists: many single speakers are for results.json
CATEGORICAL = {  # of `results.json`, with the Hub's name of the metric and how a reader knows it
    "uar": ("recall", "unweighted average recall"),
    "accuracy": ("accuracy", "accuracy"),
    "macro_f1": ("f1", "macro F1"),
}
OF_OTHER_WEIGHTS = (
    "**These are not the scores of these weights.** The run measured the weights with which it ended (`last`); these "
    "are the ones that did best on its validation side (`best`), and were not scored. Score them with "
    "`recipes/evaluate.py`. All figures and pictures below are of `last`."
)


def scored_side(results: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The side that was scored and its scores: the test, or else the validation."""
    for side in ("test", "validation"):
        if side in results:
            return side, results[side]
    raise ValueError(f"Expected scores of a test or validation side in results.json, got {sorted(results)}.")


def results_table(scores: dict[str, Any], dimensions: Sequence[str]) -> str:
    """Measures with intervals, and the control where targets are norm-derived.

    Args:
        scores: of a side.
        dimensions: of the model.
    """
    controlled = any(name.startswith("control_") for name in scores)
    lines = ["| measure | value | 95 % interval |" + (" control |" if controlled else "")]
    lines += ["| --- | --- | --- |" + (" --- |" if controlled else "")]
    for name, (_, words) in _measures(scores, dimensions).items():
        low, high = scores.get("intervals", {}).get(name, (None, None))
        interval = "not computed" if low is None else f"{low:.2f} to {high:.2f}"
        control = scores.get(f"control_{name}")
        cell = (" |" if control is None else f" {control:.3f} |") if controlled else ""
        lines.append(f"| {words} | {scores[name]:.3f} | {interval} |{cell}")
    return "\n".join(lines) if len(lines) > 2 else "No clip of it has a label that this model could be compared with."


def results_note(
    results: dict[str, Any], side: str, scores: dict[str, Any], heard: str, emotions: int, dimensions: Sequence[str]
) -> str:
    """On what, and how sure.

    Args:
        results: of the run.
        side: that was scored.
        scores: of that side.
        heard: whether its speakers are strangers to the model, in words.
        emotions: how many the model tells apart.
        dimensions: of the model.
    """
    speakers = sorted(str(name) for name in scores["speakers"])
    kind = "" if side == "test" else ", on which the run was tuned: too good"
    lines = [
        f"{scores['clips']} clips of {len(speakers)} speakers ({listed(speakers)}), the {side} side of "
        f"`{results['split']}`{kind}. Intervals are bootstrapped over {scores.get('intervals_over', 'clips')}.",
        heard,
    ]
    if "seed" in results and "folds" not in results:
        lines.append(f"One split, one seed ({results['seed']}): a hint, not a result.")
    measures = _measures(scores, dimensions)
    if emotions and "uar" in measures:
        lines.append(
            f"Unweighted average recall gives every emotion the same weight; blind guessing scores 1 in {emotions}."
        )
    if any(name.startswith("ccc_") for name in measures):
        lines.append("CCC is Lin's concordance correlation: 1 is agreement, a constant prediction scores 0.")
    if any(name.startswith("control_") for name in scores):
        lines.append(
            "*Control* is what the model's own categories say of the dimensions, through the norms of the emotion "
            "words: only what the value adds to it is a claim."
        )
    return " ".join(lines)


def model_index(
    model_id: str, results: dict[str, Any], side: str, scores: dict[str, Any], dimensions: Sequence[str]
) -> list[dict[str, Any]]:
    """Results as the Hub reads them; none where nothing was measured."""
    metrics = [
        {"type": kind, "name": words, "value": round(scores[name], 4)}
        for name, (kind, words) in _measures(scores, dimensions).items()
    ]
    if not metrics:
        return []
    corpora = sorted({str(name).partition("/")[0] for name in scores["speakers"]}) or [results["split"]]
    dataset = {"type": corpora[0], "name": ", ".join(corpora), "config": results["split"], "split": side}
    task = {"type": "audio-classification", "name": "speech emotion recognition"}
    return [{"name": model_id.partition("/")[2], "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}]


def groups_table(scores: dict[str, Any], dimensions: Sequence[str]) -> str:
    """Scores of each group of speakers, if the evaluation has told them apart."""
    groups = {kind: each for kind, each in scores.get("groups", {}).items() if len(each) <= MOST_GROUPS}
    measured = [_measures(each, dimensions) for members in groups.values() for each in members.values()]
    columns = {name: words for each in measured for name, (_, words) in each.items()}
    if not columns:
        return ""
    lines = ["| group | clips | " + " | ".join(columns.values()) + " |"]
    lines += ["| --- | --- |" + " --- |" * len(columns)]
    for kind, members in groups.items():
        for member, each in members.items():
            known = _measures(each, dimensions)
            cells = [f"{each[name]:.3f}" if name in known else "not measured" for name in columns]
            lines.append(f"| {kind}: {member} | {each['clips']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _measures(scores: dict[str, Any], dimensions: Sequence[str]) -> dict[str, tuple[str, str]]:
    """What was measured, of what a card shows: the Hub's name of each metric and how a reader knows it."""
    shown = CATEGORICAL | {f"ccc_{name}": ("concordance_correlation", f"CCC {name}") for name in dimensions}
    return {name: words for name, words in shown.items() if math.isfinite(scores.get(name, math.nan))}


def card_facts(
    teachers: Sequence[TeacherFacts], results: dict[str, Any], name: str, dataset_id: str, citation: str, version: str
) -> dict[str, Any]:
    """What the card of a data set says; see `hub_cards/audio_visual_labels.md`.

    Args:
        teachers: who spoke.
        results: `summary`, with `corpus` and `quarantined`.
        name: of the data set.
        dataset_id: `owner/name` on the Hub, or the data set's folder.
        citation: of the corpus.
        version: of this package.
    """
    licenses = sorted({facts.license for facts in teachers})
    clips = results["clips"]
    lines = [
        "| Teacher | Clips | Mean confidence | Most probable, clips | Silent because, clips |",
        "|" + " --- |" * 5,
    ]
    for teacher, said in results["spoken"].items():
        counts = [_counted(said[key]) for key in ("most_probable", "silent")]
        sure = "none" if said["confidence"] is None else f"{said['confidence']:.3f}"
        lines.append(f"| {teacher} | {said['clips']} | {sure} | {counts[0]} | {counts[1]} |")
    agreed = results["agreement"]
    return {
        "dataset_name": name,
        "dataset_id": dataset_id,
        "license": licenses[0] if len(licenses) == 1 else "LicenseRef-several",
        "license_name_line": f"those of the teachers: {', '.join(licenses)}.",
        "size_category": size_category(clips),
        "corpus": results["corpus"],
        "corpus_citation": citation,
        "clips": clips,
        "hours": results["hours"],
        "quarantined": results["quarantined"],
        "votes": any(facts.kind == "votes" for facts in teachers),
        "teachers": [
            {
                "name": facts.name,
                "kind": facts.kind,
                "source": facts.source,
                "revision": facts.revision,
                "classes": ", ".join(facts.classes) or "none",
                "dimensions": ", ".join(facts.dimensions) or "none",
                "training": "; ".join(map(what_it_met, facts.training_data)) or "nothing",
                "license": facts.license,
            }
            for facts in teachers
        ],
        "spoken_table": "\n".join(lines),
        "agreement_line": "No clip has both a voice and a face to compare."
        if agreed is None
        else f"Speech and face agree to {agreed:.3f} in the mean.",
        "version": version,
    }


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from audio_emotion.teachers.outputs import TeacherOutputs


def model_facts(
    model: PreTrainedModel,
    model_id: str,
    results: dict[str, Any],
    megabytes: float,
    plots: list[str],
    scored: bool = True,
) -> dict[str, Any]:
    """What the card of a teacher or student says, from its configuration and its run's results.

    Args:
        model: with its heads.
        model_id: `owner/name` on the Hub.
        results: of the run, as in `results.json`.
        megabytes: of the weights.
        plots: paths of pictures beside the card.
        scored: whether the results are of these weights, and not of others of the run.

    Raises:
        ValueError: where the configuration does not name its license or what the model has heard, or the results hold
            no scores.
    """
    config = model.config
    training_data, dimensions = list(config.training_data), list(config.dimensions)
    _check_told(config.license, training_data)
    side, scores = scored_side(results)
    is_teacher = config.model_type == "fused-emotion"
    encoders = [
        {"name": each["name"], "source": each["source"], "revision": each["revision"] or "not pinned"}
        for each in (config.streams if is_teacher else [])
        if each["kind"] == "encoder"
    ]
    sources = [each["source"] for each in encoders]
    taught = any(seen.get("teachers") for seen in training_data)
    silent = [] if taught else list(results.get("teachers") or ())
    found = heard_of(results, scores, training_data, sources)
    heard = heard_line(scores, found, training_data, sources, bool(silent))
    table = results_table(scores, dimensions)
    facts = {
        "model_name": model_id.partition("/")[2],
        "model_id": model_id,
        "license": config.license,
        "license_name_line": _license_line("the weights", config.license, training_data),
        "emotions": list(config.emotions),
        "dimensions": dimensions,
        "dimensions_source": config.dimensions_source,
        "parameters": model.num_parameters(),
        "megabytes": megabytes,
        "training_data": heard_rows(training_data, silent),
        "fine_tuned": results["recipe"] == "fine_tune",
        "recipe_command": f"accelerate launch recipes/{results['recipe']}.py --config training/config.yaml",
        "results_table": table if scored else f"{OF_OTHER_WEIGHTS}\n\n{table}",
        "results_note": results_note(results, side, scores, heard, len(config.emotions), dimensions),
        "version": _version(),
        # Where machines read them, scores stand without these words beside them.
        "model_index": model_index(model_id, results, side, scores, dimensions) if scored and not found else [],
        "groups": groups_table(scores, dimensions),
        "plots": [{"path": path, "caption": Path(path).stem.replace("_", " ")} for path in plots],
    }
    if is_teacher:
        facts["streams"] = encoders
        facts["base_models"] = [source for source in sources if source.count("/") == 1]
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
    side, scores = scored_side(results)
    sources = [each["source"] for each in config.get("streams", []) if each["kind"] == "encoder"]
    found = heard_of(results, scores, said.training_data, sources)
    heard = heard_line(scores, found, said.training_data, sources, silent=False)
    return {
        "dataset_name": dataset_id.partition("/")[2],
        "dataset_id": dataset_id,
        "license": config["license"],
        "license_name_line": _license_line("the labels", config["license"], said.training_data),
        "clips": len(said.ids),
        "size_category": size_category(len(said.ids)),
        "teachers": said.num_teachers,
        "spoken_of": sorted({name.partition("/")[0] for name in said.ids}),
        "emotions": said.emotions,
        "dimensions": config["dimensions"],
        "embedding_size": said.embedding.shape[1],
        "dimensions_source": config["dimensions_source"],
        "training_data": heard_rows(said.training_data),
        "results_table": results_table(scores, config["dimensions"]),
        "results_note": results_note(results, side, scores, heard, len(said.emotions), config["dimensions"]),
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
    names = sorted({seen["corpus"] for seen in training_data if not seen.get("model")})
    terms = {"NC": "not for commercial use", "SA": "what is made of them stands under the same terms"}
    said = [text for part, text in terms.items() if part in license_.upper().split("-")]
    public = public_models(training_data)
    theirs = f" The public models that taught, {listed(public)}, have terms of their own, told by their cards."
    return (
        f"{what.capitalize()} stand under {license_}"
        + (f", the terms of {', '.join(names)}" if names else "")
        + "".join(f"; {each}" for each in said)
        + "."
        + (theirs if public else "")
    )
