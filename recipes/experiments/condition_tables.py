"""What a telephone, pauses, noise and rooms leave of the models of a set, in Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from set_tables import METRICS, complete, fold_rows, heading, strength

from audio_emotion.evaluation.bootstrap import aggregate, compare


def condition_table(folder: Path, whole: dict[str, Any], repeats: int = 2000) -> str:
    """Models under conditions beside the same models on the clips as they were recorded.

    Args:
        folder: of the results; those under a condition lie in a folder of its name.
        whole: the set; runs with `conditions` are shown.
        repeats: bootstrap samples.
    """
    clean, metrics = fold_rows(folder, whole), whole.get("metrics", METRICS)
    lines = [
        f"| model | clips | folds, seeds | {' | '.join(map(heading, metrics))} |",
        "| --- " * (3 + len(metrics)) + "|",
    ]
    for name, run in whole["runs"].items():
        shown = False
        for condition in run.get("conditions", []):
            changed = fold_rows(folder / condition, whole).get(name)
            if changed is None:
                continue
            keys = complete(set(clean[name].runs) & set(changed.runs))
            before, after = clean[name].seeds(keys), changed.seeds(keys)
            dimensions = changed.dimensions
            if not shown:
                cells = [f"{aggregate(before, metric, dimensions, repeats=1)[0]:.3f}" for metric in metrics]
                lines.append(f"| {run['title']} | as recorded | {strength(keys, whole)} | {' | '.join(cells)} |")
                shown = True
            cells = []
            for metric in metrics:
                found = compare(after, before, metric, dimensions, repeats)
                low, high = found.interval
                cells.append(f"{found.first:.3f}: {found.difference:+.3f} ({low:+.2f} to {high:+.2f})")
            lines.append(f"| | {condition} | {strength(keys, whole)} | {' | '.join(cells)} |")
    lines += [
        "",
        "The figure, and its difference from that of the clips as recorded, with the 95 % bootstrap interval over "
        "speakers. One seed is a hint.",
    ]
    return "\n".join(lines)
