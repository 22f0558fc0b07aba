"""Whom a model has heard, its teachers and the public models in it included, in the words of a card."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from audio_emotion.evaluation.provenance import contamination

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
        said += [f"it learnt from, or is built on, what has met this corpus: {'; '.join(public)}"] if public else []
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
