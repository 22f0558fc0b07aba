"""Scores of a run as a card shows them: tables, a note on how sure they are, the Hub's own form.

Numbers come from `results.json` alone.
"""

from __future__ import annotations

from typing import Any

MOST_GROUPS = 12  # of one kind that a card lists: many single speakers are for results.json
MEASURES = {  # of `results.json`, with the Hub's name of the metric and how a reader knows it
    "uar": ("recall", "unweighted average recall"),
    "accuracy": ("accuracy", "accuracy"),
    "macro_f1": ("f1", "macro F1"),
    "ccc_activation": ("concordance_correlation", "CCC activation"),
    "ccc_valence": ("concordance_correlation", "CCC valence"),
    "ccc_dominance": ("concordance_correlation", "CCC dominance"),
}


def scored_side(results: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The side that was scored and its scores: the test, or else the validation."""
    for side in ("test", "validation"):
        if side in results:
            return side, results[side]
    raise ValueError(f"Expected scores of a test or validation side in results.json, got {sorted(results)}.")


def results_table(scores: dict[str, Any]) -> str:
    """Measures with intervals, and the control where targets are norm-derived."""
    controlled = any(name.startswith("control_") for name in scores)
    lines = ["| measure | value | 95 % interval |" + (" control |" if controlled else "")]
    lines += ["| --- | --- | --- |" + (" --- |" if controlled else "")]
    for name, (_, words) in MEASURES.items():
        if name not in scores:
            continue
        low, high = scores.get("intervals", {}).get(name, (None, None))
        interval = "not computed" if low is None else f"{low:.2f} to {high:.2f}"
        control = scores.get(f"control_{name}")
        cell = (" |" if control is None else f" {control:.3f} |") if controlled else ""
        lines.append(f"| {words} | {scores[name]:.3f} | {interval} |{cell}")
    return "\n".join(lines)


def results_note(results: dict[str, Any], side: str, scores: dict[str, Any], heard: set[str], emotions: int) -> str:
    """On what, and how sure."""
    speakers = sorted(str(name) for name in scores["speakers"])
    shown = ", ".join(speakers[:20]) + (f" and {len(speakers) - 20} more" if len(speakers) > 20 else "")
    kind = "" if side == "test" else ", on which the run was tuned: too good"
    lines = [f"{scores['clips']} clips of {len(speakers)} speakers ({shown}), the {side} side of `{results['split']}`"]
    lines[0] += f"{kind}. Intervals are bootstrapped over {scores.get('intervals_over', 'clips')}."
    if heard:
        lines.append(f"**Contaminated: the model, or a teacher of it, has heard {', '.join(sorted(heard))}.**")
    else:
        lines.append("Neither the model nor a teacher of it has heard any of them.")
    if "seed" in results and "folds" not in results:
        lines.append(f"One split, one seed ({results['seed']}): a hint, not a result.")
    lines.append(
        f"Unweighted average recall gives every emotion the same weight; blind guessing scores 1 in {emotions}. "
        "CCC is Lin's concordance correlation: 1 is agreement, a constant prediction scores 0."
    )
    if any(name.startswith("control_") for name in scores):
        lines.append(
            "*Control* is what the model's own categories say of the dimensions, through the norms of the emotion "
            "words: only what the value adds to it is a claim."
        )
    return " ".join(lines)


def model_index(model_id: str, results: dict[str, Any], side: str, scores: dict[str, Any]) -> list[dict[str, Any]]:
    """Results as the Hub reads them."""
    corpora = sorted({str(name).partition("/")[0] for name in scores["speakers"]})
    metrics = [
        {"type": kind, "name": words, "value": round(scores[name], 4)}
        for name, (kind, words) in MEASURES.items()
        if name in scores
    ]
    dataset = {"type": corpora[0], "name": ", ".join(corpora), "config": results["split"], "split": side}
    task = {"type": "audio-classification", "name": "speech emotion recognition"}
    return [{"name": model_id.partition("/")[2], "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}]


def groups_table(scores: dict[str, Any]) -> str:
    """Scores of each group of speakers, if the evaluation has told them apart."""
    groups = {kind: each for kind, each in scores.get("groups", {}).items() if len(each) <= MOST_GROUPS}
    if not groups:
        return ""
    columns = [name for name in MEASURES if any(name in each for kind in groups.values() for each in kind.values())]
    lines = ["| group | clips | " + " | ".join(MEASURES[name][1] for name in columns) + " |"]
    lines += ["| --- | --- |" + " --- |" * len(columns)]
    for kind, members in groups.items():
        for member, each in members.items():
            known = {name: each[name] for name in columns if name in each and each[name] == each[name]}  # NaN: none
            cells = [f"{known[name]:.3f}" if name in known else "not measured" for name in columns]
            lines.append(f"| {kind}: {member} | {each['clips']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
