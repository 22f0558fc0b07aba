"""How the teachers of a data set of pseudo-labels spoke: counts of clips, hours, reasons of silence."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audio_emotion.training.answers import TeacherFacts
from audio_emotion.training.pseudo_labels import read_rows


def summary(folder: str | Path, teachers: Sequence[TeacherFacts]) -> dict[str, Any]:
    """What a data set holds: clips, hours, and of each teacher how it spoke and why not.

    Returns:
        `clips`, `hours`, `agreement` (mean, None where nobody can be compared), and `spoken`: for each teacher
        `clips`, `confidence` (mean), `most_probable` (clips by class) and `silent` (clips by reason).
    """
    clips, seconds, agreed = 0, 0.0, []
    told: dict[str, dict[str, Any]] = {}
    for facts in teachers:
        told[facts.name] = {"confidence": [], "most_probable": dict.fromkeys(facts.classes, 0), "silent": Counter()}
    columns = ["id", "duration", "agreement"]
    fields = ("mask", "reason", "logits", "confidence")
    for row in read_rows(folder, [*columns, *(f"{facts.name}.{name}" for facts in teachers for name in fields)]):
        clips, seconds = clips + 1, seconds + row["duration"]
        agreed += [row["agreement"]] if row["agreement"] is not None else []
        for facts in teachers:
            said, of_teacher = row[facts.name], told[facts.name]
            if not said["mask"]:
                of_teacher["silent"][re.sub(r"\d[\d.%]*", "N", said["reason"])] += 1  # "4 faces" is "N faces"
            elif said["logits"] is not None:
                of_teacher["confidence"].append(said["confidence"])
                of_teacher["most_probable"][facts.classes[int(np.argmax(said["logits"]))]] += 1
    for of_teacher in told.values():
        sure = of_teacher["confidence"]
        of_teacher["silent"] = dict(of_teacher["silent"].most_common())
        of_teacher["clips"] = clips - sum(of_teacher["silent"].values())
        of_teacher["confidence"] = round(math.fsum(sure) / len(sure), 4) if sure else None
    mean = round(math.fsum(agreed) / len(agreed), 4) if agreed else None
    return {"clips": clips, "hours": round(seconds / 3600, 4), "agreement": mean, "spoken": told}
