"""The votes of people as a teacher: what a perfect listener or face teacher would say of CREMA-D's clips."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audio_emotion.data.corpora import crema_d
from audio_emotion.data.corpora.corpus_info import find_corpus_root
from audio_emotion.teachers.outputs import Clip, TeacherFacts, TeacherPrediction, log_probabilities


class VotesTeacher:
    """Shares of raters' votes, as logits.

    Args:
        name: of its column.
        source: `crema-d/voice`, `crema-d/face` or `crema-d/audio-visual`: what the raters had.
        root: the corpus, or a folder with `tabulatedVotes.csv`; by default `$AUDIO_EMOTION_DATA/crema-d`.

    Attributes:
        facts: who it is; votes have heard no training clip.
    """

    def __init__(self, name: str, source: str, root: str | Path | None = None) -> None:
        corpus, _, labels = source.partition("/")
        if corpus != crema_d.INFO.name or labels not in crema_d.QUERIES:
            known = [f"{crema_d.INFO.name}/{each}" for each in crema_d.QUERIES]
            raise ValueError(f"Expected votes among {known}, got {source!r}.")
        self.shares = crema_d.votes(find_corpus_root(crema_d.INFO.name, root), labels)  # type: ignore[arg-type]
        digest = hashlib.sha256(repr(sorted(self.shares.items())).encode()).hexdigest()
        self.facts = TeacherFacts(
            name=name,
            kind="votes",
            source=source,
            revision=f"sha256:{digest[:16]}",
            classes=list(crema_d.INFO.emotions),
            license=crema_d.INFO.license,
        )

    def label(self, clips: Sequence[Clip]) -> list[TeacherPrediction]:
        """Look clips up by name."""
        found = [self.shares.get(clip.id.removeprefix(f"{crema_d.INFO.name}/")) for clip in clips]
        return [
            TeacherPrediction(reason="no votes")
            if each is None
            else TeacherPrediction(log_probabilities(np.array(each)))
            for each in found
        ]
