"""What the card of audio-visual pseudo-labels says of its teachers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from audio_emotion.hub.card_heard import what_it_met
from audio_emotion.hub.metadata import size_category
from audio_emotion.training.answers import TeacherFacts


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
