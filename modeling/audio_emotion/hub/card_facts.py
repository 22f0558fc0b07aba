"""What a card says of a model, a data set of labels or a metric: facts from its configuration or its results."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_emotion.evaluation.provenance import heard_speakers
from audio_emotion.hub.card_results import groups_table, model_index, results_note, results_table, scored_side
from audio_emotion.hub.metadata import size_category

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from audio_emotion.training.teacher_outputs import TeacherOutputs


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
    side, scores = scored_side(results)
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
        "results_table": results_table(scores),
        "results_note": results_note(results, side, scores, heard, len(config.emotions)),
        "version": _version(),
        "model_index": model_index(model_id, results, side, scores),
        "groups": groups_table(scores),
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
    side, scores = scored_side(results)
    heard = heard_speakers(said.training_data) & set(scores["speakers"])
    corpora = sorted({name.partition("/")[0] for name in said.ids})
    return {
        "dataset_name": dataset_id.partition("/")[2],
        "dataset_id": dataset_id,
        "license": config["license"],
        "license_name_line": _license_line("the labels", config["license"], said.training_data),
        "clips": len(said.ids),
        "size_category": size_category(len(said.ids)),
        "teachers": said.num_teachers,
        "spoken_of": corpora,
        "emotions": said.emotions,
        "embedding_size": said.embedding.shape[1],
        "dimensions_source": config["dimensions_source"],
        "training_data": _heard(said.training_data),
        "results_table": results_table(scores),
        "results_note": results_note(results, side, scores, heard, len(said.emotions)),
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
