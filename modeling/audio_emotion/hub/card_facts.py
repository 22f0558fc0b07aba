"""Facts of each card, computed from the configuration of a model and the results of its run."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_emotion.hub.card_sections import (
    contamination_note,
    describe_training_data,
    eval_results,
    find_contamination,
    groups_table,
    join_names,
    markdown_table,
    public_models,
    results_note,
    results_table,
    scored_split,
    training_data_rows,
)

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from audio_emotion.hub.card import Template
    from audio_emotion.teachers.outputs import TeacherInfo, TeacherOutputs

NOT_SCORED = (
    "**These scores are not of the weights published here.** The run scored its last weights (`last`). These are the "
    "weights with the best validation score (`best`), which were not scored: use `recipes/evaluate.py` for that. All "
    "numbers and plots below are of `last`."
)


def model_kind(config: PreTrainedConfig) -> Template:
    """`student`, `teacher`, or `lite`: a single pretrained encoder, or its first layers, below a linear trunk."""
    if config.model_type == "student-emotion":
        return "student"
    kinds = [stream["kind"] for stream in config.streams]
    return "lite" if kinds == ["encoder"] and config.trunk == "linear" else "teacher"


def holds_whisper(config: PreTrainedConfig) -> bool:
    """Whether a part of Whisper, whose license requires its notice, is in the weights of a full copy."""
    streams = getattr(config, "streams", ())
    return any(each.get("config", {}).get("model_type") == "whisper" for each in streams)


def encoder_facts(config: PreTrainedConfig) -> list[dict[str, str]]:
    """Name, source, revision and used part of each pretrained encoder; a student has none."""
    facts = []
    for stream in getattr(config, "streams", ()):
        if stream["kind"] != "encoder":
            continue
        last = max(stream["layers"]) if stream["layers"] else None  # an encoder ends with the last layer that is used
        part = "all layers" if last is None else f"the first {last} layers" if last > 1 else "the first layer"
        facts.append(
            {
                "name": stream["name"],
                "source": stream["source"],
                "revision": stream["revision"] or "not pinned",
                "part": part if last != 0 else "the input of the first layer",
            }
        )
    return facts


def model_facts(
    model: PreTrainedModel,
    model_id: str,
    results: dict[str, Any],
    megabytes: float,
    plots: list[str],
    scored: bool = True,
) -> dict[str, Any]:
    """Facts of the card of a model, from its configuration and the results of its run.

    Args:
        model: with its heads.
        model_id: `owner/name` on the Hub.
        results: of the run, as in `results.json`.
        megabytes: of the weights.
        plots: paths of images beside the card.
        scored: whether the results are of these weights, and not of others of the run.

    Raises:
        ValueError: if the configuration lacks the license or the training data, or the results hold no scores.
    """
    config = model.config
    training_data, dimensions = list(config.training_data), list(config.dimensions)
    encoders = encoder_facts(config)
    has_documented_teachers = any(entry.get("teachers") for entry in training_data)
    undocumented = [] if has_documented_teachers else list(results.get("teachers") or ())
    sources = [each["source"] for each in encoders]
    evaluation, contaminated = _evaluation_facts(
        results, training_data, sources, bool(undocumented), len(config.emotions), dimensions
    )
    if not scored:
        evaluation["results_table"] = f"{NOT_SCORED}\n\n{evaluation['results_table']}"
    split, scores = scored_split(results)
    license_facts = _license_facts(config.license, training_data)
    if sources:
        license_facts["license_note"] += (
            f" It contains weights of {join_names(sources)}, under the license in the model card there"
            f"{' and, in a full copy, in the file `LICENSE-whisper`' if holds_whisper(config) else ''}."
        )
    return {
        "model_name": model_id.partition("/")[2],
        "model_id": model_id,
        **license_facts,
        "emotions": list(config.emotions),
        "dimensions": dimensions,
        "dimensions_source": config.dimensions_source,
        "parameters": model.num_parameters(),
        "megabytes": megabytes,
        "training_data": training_data_rows(training_data, undocumented),
        "fine_tuned": results["recipe"] == "fine_tune",
        **evaluation,
        # The metadata has no place for a caveat: leave out scores that need one.
        "eval_results": eval_results(results, split, scores, dimensions) if scored and not contaminated else [],
        "groups": groups_table(scores, dimensions),
        "plots": [{"path": path, "caption": Path(path).stem.replace("_", " ")} for path in plots],
        **({"streams": encoders} if encoders else {}),
    }


def pseudo_label_facts(
    outputs: TeacherOutputs, config: dict[str, Any], dataset_id: str, results: dict[str, Any]
) -> dict[str, Any]:
    """Facts of the card of the teacher outputs that a run of `train_teacher.py` computed.

    Args:
        outputs: of the teachers.
        config: of the teacher, as in `config.json`.
        dataset_id: `owner/name` on the Hub.
        results: of the teacher's run.
    """
    sources = [each["source"] for each in config.get("streams", []) if each["kind"] == "encoder"]
    dimensions = config["dimensions"]
    evaluation, _ = _evaluation_facts(
        results, outputs.training_data, sources, False, len(outputs.emotions), dimensions
    )
    return {
        "dataset_name": dataset_id.partition("/")[2],
        "dataset_id": dataset_id,
        **_license_facts(config.get("license"), outputs.training_data),
        "clips": len(outputs.ids),
        "num_teachers": outputs.num_teachers,
        "source_datasets": sorted({name.partition("/")[0] for name in outputs.ids}),
        "emotions": outputs.emotions,
        "dimensions": dimensions,
        "embedding_size": outputs.embedding.shape[1],
        "dimensions_source": config["dimensions_source"],
        "training_data": training_data_rows(outputs.training_data),
        **evaluation,
    }


def audio_visual_label_facts(
    teachers: Sequence[TeacherInfo], results: dict[str, Any], name: str, dataset_id: str, citation: str
) -> dict[str, Any]:
    """Facts of the card of pseudo-labels that `pseudo_label.py` computed.

    Args:
        teachers: all of them.
        results: `summarize`, with `corpus` and `quarantined`.
        name: of the data set.
        dataset_id: `owner/name` on the Hub, or the folder of the data set.
        citation: of the corpus.
    """
    licenses = sorted({teacher.license for teacher in teachers})
    rows = []
    for teacher_name, each in results["outputs"].items():
        confidence = "none" if each["confidence"] is None else f"{each['confidence']:.3f}"
        counts = [
            ", ".join(f"{label} {count}" for label, count in each[key].items()) or "none"
            for key in ("most_probable", "no_output")
        ]
        rows.append([teacher_name, str(each["clips"]), confidence, *counts])
    agreement = results["agreement"]
    return {
        "dataset_name": name,
        "dataset_id": dataset_id,
        "license": licenses[0] if len(licenses) == 1 else "LicenseRef-several",
        "license_note": f"those of the teachers: {', '.join(licenses)}.",
        "source_datasets": [results["corpus"]],
        "corpus_citation": citation,
        "clips": results["clips"],
        "hours": results["hours"],
        "quarantined": results["quarantined"],
        "has_votes": any(teacher.kind == "votes" for teacher in teachers),
        "teachers": [
            {
                "name": teacher.name,
                "kind": teacher.kind,
                "source": teacher.source,
                "revision": teacher.revision,
                "classes": ", ".join(teacher.classes) or "none",
                "dimensions": ", ".join(teacher.dimensions) or "none",
                "training": "; ".join(map(describe_training_data, teacher.training_data)) or "none",
                "license": teacher.license,
            }
            for teacher in teachers
        ],
        "outputs_table": markdown_table(
            [
                "Teacher",
                "Clips with output",
                "Mean confidence",
                "Clips by most probable class",
                "Clips without output",
            ],
            rows,
        ),
        "agreement_note": "No clip has the output of both a speech and a face teacher."
        if agreement is None
        else f"Mean agreement of speech and face: {agreement:.3f}.",
    }


def metric_facts(module: Path, metric_id: str) -> dict[str, Any]:
    """Facts of the card of a metric, read from its module without running it.

    Args:
        module: a module of `evaluate`, with `_DESCRIPTION`, `_KWARGS_DESCRIPTION` and `_CITATION`.
        metric_id: `owner/name` on the Hub.
    """
    constants = {
        target.id: str(node.value.value).strip()
        for node in ast.parse(module.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return {
        "metric_name": metric_id.partition("/")[2],
        "metric_id": metric_id,
        "description": constants.get("_DESCRIPTION", ""),
        "arguments": constants.get("_KWARGS_DESCRIPTION", ""),
        "citation": constants.get("_CITATION", ""),
    }


def _evaluation_facts(
    results: dict[str, Any],
    training_data: Sequence[dict[str, Any]],
    encoders: Sequence[str],
    has_undocumented_teachers: bool,
    num_emotions: int,
    dimensions: Sequence[str],
) -> tuple[dict[str, Any], list[str]]:
    """Facts of the evaluation section, and what contaminates the scores."""
    split, scores = scored_split(results)
    found = find_contamination(results, scores, training_data, encoders)
    note = contamination_note(scores, found, training_data, encoders, has_undocumented_teachers)
    facts = {
        "results_table": results_table(scores, dimensions),
        "results_note": results_note(results, split, scores, note, num_emotions, dimensions),
        "recipe_command": f"accelerate launch recipes/{results['recipe']}.py --config training/config.yaml",
    }
    return facts, found


def _license_facts(license_: str | None, training_data: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The license, and a sentence on what it derives from.

    Raises:
        ValueError: if the license or the training data is not stated.
    """
    for name, value in (("license", license_), ("training_data", training_data)):
        if not value:
            raise ValueError(
                f"Expected `{name}` in the configuration of the model, got none. Set it: the card states it."
            )
    assert license_ is not None
    corpora = sorted({entry["corpus"] for entry in training_data if not entry.get("model")})
    terms = {"NC": "non-commercial use only", "SA": "derivatives under the same license"}
    note = f"{license_}, the terms of {', '.join(corpora)}" if corpora else license_
    note += "".join(f"; {text}" for part, text in terms.items() if part in license_.upper().split("-")) + "."
    if public := public_models(training_data):
        note += f" For the license terms of the public teachers see their model cards: {join_names(public)}."
    return {"license": license_, "license_note": note}
