"""Sections of cards as Markdown: training data, contamination, and scores."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from huggingface_hub import EvalResult

from audio_emotion.evaluation.provenance import HASHED, contamination

MAX_NAMES = 20  # listed in a sentence
MAX_GROUPS = 12  # of one kind in a card's table; results.json has all of them
CATEGORICAL = {  # measures of `results.json`: the Hub's metric and a readable name
    "uar": ("recall", "unweighted average recall"),
    "accuracy": ("accuracy", "accuracy"),
    "macro_f1": ("f1", "macro F1"),
}


# Training data and contamination


def training_data_rows(
    training_data: Sequence[dict[str, Any]], undocumented_teachers: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """Rows of the training data table.

    Args:
        training_data: of a configuration, see `contamination`.
        undocumented_teachers: names of teachers whose training data is not recorded anywhere.

    Returns:
        A dict for each corpus or public model: `corpus`, `speakers`, `teachers`, and `model` of a public model.
    """
    undocumented = [f"{name} (training data not documented)" for name in undocumented_teachers]
    rows = []
    own = {entry["corpus"]: speaker_names(entry) for entry in training_data if entry.get("corpus")}
    for entry in training_data:
        teachers = list(dict.fromkeys(_describe_teacher(each, own) for each in entry.get("teachers") or ()))
        row = {"corpus": entry.get("corpus"), "speakers": speaker_names(entry), "teachers": teachers or undocumented}
        if entry.get("model"):
            row |= {"model": entry["model"], "corpus": f"training data of the public model {entry['model']}"}
            row["speakers"] = ["see its model card"]
        rows.append(row)
    return rows


def describe_training_data(entry: dict[str, Any]) -> str:
    """One entry of `training_data` as text: a public model, or a corpus with its speakers."""
    if entry.get("model"):
        return f"public model {entry['model']}"
    return f"{entry['corpus']} ({', '.join(speaker_names(entry))})"


def public_models(training_data: Iterable[dict[str, Any]]) -> list[str]:
    """Names of the public models in `training_data`, teachers of teachers included."""
    names: set[str] = set()
    for entry in training_data:
        names |= {entry["model"]} if entry.get("model") else set()
        names |= set(public_models(entry.get("teachers") or ()))
    return sorted(names)


def find_contamination(
    results: dict[str, Any], scores: dict[str, Any], training_data: Sequence[dict[str, Any]], encoders: Sequence[str]
) -> list[str]:
    """Scored speakers and public models that contaminate the scores: `contamination`, and what the results record.

    Args:
        results: of a run.
        scores: of the split that was scored.
        training_data: of the model.
        encoders: sources of its pretrained encoders.
    """
    names = [str(name) for name in scores["speakers"]]
    # `contaminated_by` covers all held-out splits: keep the speakers of this one, and models, which end in a bracket.
    found = {name for name in results.get("contaminated_by") or () if name in names or name.endswith(")")}
    for corpus in {name.partition("/")[0] for name in names}:
        speakers = [name for name in names if name.partition("/")[0] == corpus]
        found |= set(contamination(corpus, speakers, training_data, encoders))
    return sorted(found)


def contamination_note(
    scores: dict[str, Any],
    found: Sequence[str],
    training_data: Sequence[dict[str, Any]],
    encoders: Sequence[str],
    has_undocumented_teachers: bool,
) -> str:
    """State whether the scored speakers are in the training data, and claim no more than is recorded.

    Args:
        scores: of the split that was scored.
        found: from `find_contamination`.
        training_data: of the model.
        encoders: sources of its pretrained encoders.
        has_undocumented_teachers: whether it has teachers whose training data is not recorded.
    """
    speakers = [name for name in found if name in set(map(str, scores["speakers"]))]
    public = [name for name in found if name not in speakers]
    if found:
        reasons = []
        if speakers:
            reasons.append(f"the training data of the model or of a teacher includes {join_names(speakers)}")
        if public:
            reasons.append(f"a teacher or encoder was trained on this corpus: {'; '.join(public)}")
        return f"**Contaminated: {'; and '.join(reasons)}.**"
    if not scores["speakers"]:
        return "The results name no speakers: whether the training data includes them is unknown."
    teachers = public_models(training_data)
    if not (teachers or encoders or has_undocumented_teachers):
        if not any(entry.get("teachers") for entry in training_data):
            return "The training data includes none of these speakers, and the model has no teachers."
        return (
            "The training data of the model and of its teachers includes none of these speakers; the pretraining data "
            "of the teachers' encoders, if they have any, is not recorded."
        )
    note = (
        "As far as it is recorded, the training data of the model and of its teachers includes none of these speakers."
    )
    if teachers:
        note += f" For the public teachers' training data see their model cards: {join_names(teachers)}."
    if encoders:
        note += f" For the encoders' pretraining data see their model cards: {join_names(encoders)}."
    return note


def join_names(names: Collection[str]) -> str:
    """At most `MAX_NAMES` names, and how many more there are."""
    shown = sorted(names)
    more = f" and {len(shown) - MAX_NAMES} more" if len(shown) > MAX_NAMES else ""
    return ", ".join(shown[:MAX_NAMES]) + more


def _describe_teacher(teacher: dict[str, Any], known: Mapping[str, list[str]]) -> str:
    """What a teacher was trained on, with its own teachers; `known` are the speakers of the student by corpus."""
    own = [_describe_teacher(each, known) for each in teacher.get("teachers") or ()]
    text = describe_training_data(teacher)
    if not teacher.get("model"):
        is_known = len(known.get(teacher["corpus"], ())) > 1 and known[teacher["corpus"]] == speaker_names(teacher)
        text = f"trained on {teacher['corpus']} (the same speakers)" if is_known else f"trained on {text}"
    return text + (f", distilled from: {'; '.join(own)}" if own else "")


def speaker_names(entry: dict[str, Any]) -> list[str]:
    """Speakers without their corpus, consecutive numbers as a range; an entry without a list includes all of them."""
    if not entry.get("speakers"):
        return ["all"]
    names = sorted(str(name).removeprefix(f"{entry.get('corpus')}/") for name in entry["speakers"])
    if hashed := sum(name.startswith(HASHED) for name in names):
        return [f"{hashed} speakers, hashed", *(name for name in names if not name.startswith(HASHED))]
    ranges: list[str] = []
    for _, members in groupby(enumerate(names), _place_in_range):
        group = [name for _, name in members]
        ranges += [f"{group[0]} to {group[-1]}"] if len(group) > 3 else group
    return ranges


def _place_in_range(numbered: tuple[int, str]) -> tuple[str, int]:
    """What names have in common that differ by one in their number at the end, in sorted order."""
    place, name = numbered
    found = re.fullmatch(r"(.*?)(\d+)", name)
    return (name, -1) if found is None else (f"{found[1]} {len(found[2])}", int(found[2]) - place)


# Scores


def scored_split(results: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The split that was scored and its scores: the test split, else the validation split."""
    for split in ("test", "validation"):
        if split in results:
            return split, results[split]
    raise ValueError(f"Expected scores of a test or validation split in results.json, got {sorted(results)}.")


def results_table(scores: dict[str, Any], dimensions: Sequence[str]) -> str:
    """Measures with intervals, and the control where the dimensions are norm-derived.

    Args:
        scores: of a split.
        dimensions: of the model.
    """
    has_control = any(name.startswith("control_") for name in scores)
    rows = []
    for name, (_, label) in _measures(scores, dimensions).items():
        low, high = scores.get("intervals", {}).get(name, (None, None))
        row = [label, f"{scores[name]:.3f}", "not computed" if low is None else f"{low:.2f} to {high:.2f}"]
        if has_control:
            control = scores.get(f"control_{name}")
            row.append("" if control is None else f"{control:.3f}")
        rows.append(row)
    columns = ["Measure", "Value", "95 % interval", *(["Control"] if has_control else [])]
    return markdown_table(columns, rows) if rows else "No clip of this split has a label to compare the model with."


def results_note(
    results: dict[str, Any],
    split: str,
    scores: dict[str, Any],
    contamination_text: str,
    num_emotions: int,
    dimensions: Sequence[str],
) -> str:
    """The evaluation set, whether it is contaminated, and how to read the measures.

    Args:
        results: of the run.
        split: that was scored.
        scores: of that split.
        contamination_text: see `contamination_note`.
        num_emotions: number of the model's classes.
        dimensions: of the model.
    """
    speakers = sorted(str(name) for name in scores["speakers"])
    named = "" if any(f"/{HASHED}" in name for name in speakers) else f" ({join_names(speakers)})"
    caution = "" if split == "test" else ", which also selected the weights: optimistic"
    clips = (
        f"{scores['clips']} clips of {len(speakers)} speakers{named}, the {split} split of "
        f"`{results['protocol']}`{caution}. Intervals: bootstrap over {scores.get('intervals_over', 'clips')}."
    )
    if "seed" in results and "folds" not in results:
        clips += f" One train/test split and one seed ({results['seed']}): an indication, not a conclusive result."
    measures = _measures(scores, dimensions)
    notes = []
    if num_emotions and "uar" in measures:
        notes.append(f"- Unweighted average recall weighs all emotions equally; chance is 1 in {num_emotions}.")
    if any(name.startswith("ccc_") for name in measures):
        notes.append("- CCC is Lin's concordance correlation: 1 is perfect agreement, a constant prediction scores 0.")
    if any(name.startswith("control_") for name in scores):
        notes.append(
            "- *Control* computes the dimensions from the model's own emotion probabilities and the norms of the "
            "emotion words: only a value above it shows that the dimensions add information."
        )
    return "\n\n".join([clips, contamination_text, *(["\n".join(notes)] if notes else [])])


def eval_results(
    results: dict[str, Any], split: str, scores: dict[str, Any], dimensions: Sequence[str]
) -> list[EvalResult]:
    """Scores for the card's metadata, which the Hub shows beside the model."""
    corpora = sorted({str(name).partition("/")[0] for name in scores["speakers"]}) or [results["protocol"]]
    return [
        EvalResult(
            task_type="audio-classification",
            task_name="speech emotion recognition",
            dataset_type=corpora[0],
            dataset_name=", ".join(corpora),
            dataset_config=results["protocol"],
            dataset_split=split,
            metric_type=metric,
            metric_name=label,
            metric_value=round(scores[name], 4),
        )
        for name, (metric, label) in _measures(scores, dimensions).items()
    ]


def report_table(report: Mapping[str, Any], model: str) -> str:
    """Scores of a model on every corpus of a report; those of a corpus that it was trained on are left out.

    Args:
        report: content of `report.json`.
        model: its name there.
    """
    rows = []
    for corpus in report["corpora"]:
        scores = corpus["models"].get(model, {})
        if "uar" not in scores or scores.get("contaminated_by"):
            continue
        low, high = scores["intervals"].get("uar", (math.nan, math.nan))
        clips = f"{scores['clips']} of {corpus['of_clips']}"
        confidence = f"{scores['over_confidence']:+.2f}"
        own = " (its own corpus, unseen speakers)" if corpus["within"] else ""
        cells = [f"{scores['uar']:.3f} ({low:.2f} to {high:.2f})", f"{scores['chance']:.3f}", f"{scores['ece']:.3f}"]
        rows.append([corpus["name"] + own, clips, *cells, confidence])
    columns = ["Tested on", "Clips", "UAR", "Chance", "Calibration error", "Confidence minus accuracy"]
    return markdown_table(columns, rows)


def groups_table(scores: dict[str, Any], dimensions: Sequence[str]) -> str:
    """Scores by group of speakers, empty if the evaluation did not compute any."""
    groups = {kind: each for kind, each in scores.get("groups", {}).items() if len(each) <= MAX_GROUPS}
    measured = [_measures(each, dimensions) for members in groups.values() for each in members.values()]
    labels = {name: label for each in measured for name, (_, label) in each.items()}
    rows = []
    for kind, members in groups.items():
        for member, each in members.items():
            known = _measures(each, dimensions)
            values = [f"{each[name]:.3f}" if name in known else "not measured" for name in labels]
            rows.append([f"{kind}: {member}", str(each["clips"]), *values])
    return markdown_table(["Group", "Clips", *labels.values()], rows) if labels else ""


def _measures(scores: dict[str, Any], dimensions: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The Hub's metric and the label of each measure that a card shows and that was computed."""
    shown = CATEGORICAL | {f"ccc_{name}": ("concordance_correlation", f"CCC {name}") for name in dimensions}
    return {name: labels for name, labels in shown.items() if math.isfinite(scores.get(name, math.nan))}


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with a header."""
    lines = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
