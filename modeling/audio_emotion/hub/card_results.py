"""Scores of a run as a card shows them: tables, a note on how sure they are, the Hub's own form.

Numbers come from `results.json` alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from audio_emotion.hub.card_heard import listed

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
