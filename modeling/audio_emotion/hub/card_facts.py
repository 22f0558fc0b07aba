"""What a card says of a model, a data set of labels or a metric: facts from its configuration or its results."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_emotion.hub.card_heard import heard_line, heard_of, heard_rows, listed, public_models
from audio_emotion.hub.card_results import (
    OF_OTHER_WEIGHTS,
    groups_table,
    model_index,
    results_note,
    results_table,
    scored_side,
)
from audio_emotion.hub.metadata import size_category

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from audio_emotion.training.teacher_outputs import TeacherOutputs


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
        ValueError: where the configuration does not name its licence or what the model has heard, or the results hold
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
