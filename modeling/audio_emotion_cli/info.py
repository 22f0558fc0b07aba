"""`audio-emotion info`: outputs, training data and license of a model whose weights are complete."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from audio_emotion.evaluation.provenance import training_speakers
from audio_emotion.hub.card import DIMENSIONS_MEANING
from audio_emotion.hub.card_facts import encoder_facts, model_kind
from audio_emotion.hub.card_sections import speaker_names
from audio_emotion_cli import EXIT_OK, UsageError, printable
from audio_emotion_cli.inputs import allow_any_file_name, load_pipeline


def run(args: argparse.Namespace) -> int:
    """Load a model strictly and print its facts."""
    try:
        facts = load_facts(args.model, args.revision)
        text = json.dumps(facts) if args.format == "json" else printable(_table(facts), keep="\n")
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # the configuration is what somebody wrote
        raise UsageError(
            f"expected the facts of a model in its configuration, got invalid ones: {error!r}."
        ) from error
    allow_any_file_name()
    print(text)
    return EXIT_OK


def load_facts(model: str | None, revision: str | None) -> dict[str, Any]:
    """Facts of a model. Loading verifies that every weight is present, of the right shape and finite.

    Raises:
        UsageError: if a weight is missing, does not fit or is not finite, with its name.
    """
    loaded = load_pipeline(model, revision, "cpu").model
    config = loaded.config
    training_data = list(config.training_data)
    source = config.dimensions_source
    facts = {
        "model": model or str(Path(config._name_or_path)),
        "revision": vars(config).get("_commit_hash") or revision,
        "kind": model_kind(config),
        "complete": True,  # and finite: otherwise loading has raised
        "parameters": loaded.num_parameters(),
        "sampling_rate": config.sampling_rate,
        "dimensions": list(config.dimensions),
        "dimensions_source": source,
        "dimensions_meaning": DIMENSIONS_MEANING.get(source, "The checkpoint does not state their source."),
        "emotions": list(config.emotions),
        "license": config.license,
        "training_data": training_data,
        "num_training_speakers": len(training_speakers(training_data)),
    }
    if config.model_type == "fused-emotion":
        facts["streams"] = [stream["name"] for stream in config.streams]
        facts["encoders"] = encoder_facts(config)
    return facts


def _kind(facts: dict[str, Any]) -> str:
    """The kind of model, and the pretrained encoders in it."""
    if facts["kind"] == "lite":
        (encoder,) = facts["encoders"]
        return f"lite: {encoder['part']} of the pretrained encoder {encoder['name']}, and a network on top"
    if "streams" in facts:
        return f"{facts['kind']} that fuses {', '.join(facts['streams'])}"
    return facts["kind"]


def _table(facts: dict[str, Any]) -> str:
    """The facts as text."""
    heads = [f"{len(facts[name])} {name}" for name in ("dimensions", "emotions") if facts[name]]
    rows = {
        "model": facts["model"],
        "revision": facts["revision"] or "none (a local folder)",
        "kind": _kind(facts),
        "parameters": f"{facts['parameters']:,}",
        "weights": f"complete and finite, with the heads for {' and '.join(heads)}",
        "license": facts["license"] or "not stated: ask the author before you use the model",
        "input": f"speech at {facts['sampling_rate']} Hz; other sampling rates are resampled",
        "dimensions": f"{', '.join(facts['dimensions'])}, each in 0..1" if facts["dimensions"] else "none",
    }
    if facts["dimensions"]:
        meaning = facts["dimensions_meaning"].replace("*", "")  # emphasis in Markdown
        rows["  source"] = f"{facts['dimensions_source'] or 'unknown'}. {meaning}"
    rows["emotions"] = ", ".join(facts["emotions"]) or "none"
    lines = [f"{name:<12}{text}" for name, text in rows.items()]
    if facts["training_data"]:
        training = [*_training_data_lines(facts["training_data"]), "Do not evaluate the model on these speakers."]
    else:
        training = ["not stated: scores on any corpus may be contaminated"]
    return "\n".join([*lines, "training data", *(f"  {line}" for line in training)])


def _training_data_lines(training_data: list[dict[str, Any]]) -> list[str]:
    """A line for each corpus or public model, those of teachers indented."""
    lines = []
    for entry in training_data:
        if entry.get("model"):
            lines.append(f"public model {entry['model']}: see its model card")
            continue
        count = f"{len(entry['speakers'])} speakers" if entry.get("speakers") else "speakers"
        lines.append(f"{entry['corpus']}: {count} ({', '.join(speaker_names(entry))})")
        if teachers := list(entry.get("teachers") or ()):
            lines += [
                "  distilled from teachers trained on",
                *(f"    {line}" for line in _training_data_lines(teachers)),
            ]
    return lines
