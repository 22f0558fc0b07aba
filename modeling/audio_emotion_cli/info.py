"""`audio-emotion info`: what a model is, what it has heard, and whether it is complete."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from audio_emotion.evaluation.provenance import training_speakers
from audio_emotion.hub.card import DIMENSIONS_MEANING
from audio_emotion_cli import FINE
from audio_emotion_cli.inputs import load_pipeline, show_any_name


def run(args: argparse.Namespace) -> int:
    """Load strictly, then tell."""
    facts = facts_of(args.model, args.revision)
    if args.format == "json":
        print(json.dumps(facts))
    else:
        show_any_name()
        print(_table(facts))
    return FINE


def facts_of(model: str | None, revision: str | None) -> dict[str, Any]:
    """Facts of a model, after loading it has proved that every weight is there and of its shape.

    Raises:
        UsageError: where it is not complete, naming what is missing.
    """
    loaded = load_pipeline(model, revision, "cpu").model
    config = loaded.config
    training_data = list(config.training_data)
    source = config.dimensions_source
    facts = {
        "model": model or str(Path(config._name_or_path)),
        "revision": vars(config).get("_commit_hash") or revision,
        "kind": {"student-emotion": "student", "fused-emotion": "teacher"}[config.model_type],
        "complete": True,  # else loading has raised
        "parameters": loaded.num_parameters(),
        "sampling_rate": config.sampling_rate,
        "dimensions": list(config.dimensions),
        "dimensions_source": source,
        "dimensions_meaning": DIMENSIONS_MEANING.get(source, "The checkpoint does not say where they come from."),
        "emotions": list(config.emotions),
        "license": config.license,
        "training_data": training_data,
        "speakers_heard": len(training_speakers(training_data)),
    }
    if config.model_type == "fused-emotion":
        facts["streams"] = [stream["name"] for stream in config.streams]
    return facts


def _table(facts: dict[str, Any]) -> str:
    """The facts in lines, for reading."""
    heads = [*([f"{len(facts['dimensions'])} dimensions"] if facts["dimensions"] else [])]
    heads += [f"{len(facts['emotions'])} emotions"] if facts["emotions"] else []
    lines = {
        "model": facts["model"],
        "revision": facts["revision"] or "none: a folder",
        "kind": facts["kind"] + (f", fusing {', '.join(facts['streams'])}" if "streams" in facts else ""),
        "parameters": f"{facts['parameters']:,}",
        "weights": f"complete: every tensor is there and fits, those of {' and '.join(heads)} included",
        "license": facts["license"] or "not stated in the checkpoint: ask whoever made it before you use it",
        "input": f"speech at {facts['sampling_rate']} Hz; other rates are resampled",
        "dimensions": f"{', '.join(facts['dimensions'])}, each 0..1",
        "  source": f"{facts['dimensions_source'] or 'unknown'}. {facts['dimensions_meaning']}",
        "emotions": ", ".join(facts["emotions"]) or "none",
    }
    told = [f"{name:<12}{text}" for name, text in lines.items()]
    told += [f"{'heard':<12}{line}" if number == 0 else f"{'':<12}{line}" for number, line in enumerate(_heard(facts))]
    return "\n".join(told)


def _heard(facts: dict[str, Any]) -> list[str]:
    """Which speakers, corpus by corpus, teachers indented below those who learned from them."""
    if not facts["training_data"]:
        return ["not stated in the checkpoint: no result on any corpus can be trusted"]

    def tell(training_data: list[dict[str, Any]], indent: str) -> list[str]:
        lines = []
        for seen in training_data:
            names = [name.removeprefix(f"{seen['corpus']}/") for name in seen["speakers"]]
            shown = ", ".join(names[:30]) + (f" and {len(names) - 30} more" if len(names) > 30 else "")
            lines.append(f"{indent}{seen['corpus']}: {len(names)} speakers ({shown})")
            if teachers := list(seen.get("teachers", [])):
                lines += [f"{indent}  taught by teachers who have heard", *tell(teachers, indent + "    ")]
        return lines

    return [*tell(facts["training_data"], ""), "do not test it on these speakers"]
