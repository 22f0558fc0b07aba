"""Listeners' votes as a teacher: the upper bound of a speech or face teacher on CREMA-D."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from audio_emotion.data.corpora import crema_d
from audio_emotion.data.corpora.corpus_info import find_corpus_root
from audio_emotion.teachers.outputs import Clip, TeacherInfo, TeacherPrediction, logits_from_probabilities


class VotesTeacher:
    """Logits whose softmax is the distribution of the raters' votes.

    The source is `crema-d/voice`, `crema-d/face` or `crema-d/audio-visual`: what was presented to the raters. `root`
    is the corpus, or a folder with `tabulatedVotes.csv`; by default `$AUDIO_EMOTION_DATA/crema-d`.
    """

    def __init__(self, name: str, source: str, root: str | Path | None = None) -> None:
        corpus, _, labels = source.partition("/")
        if corpus != crema_d.INFO.name or labels not in crema_d.QUERIES:
            known = [f"{crema_d.INFO.name}/{each}" for each in crema_d.QUERIES]
            raise ValueError(f"Expected votes among {known}, got {source!r}.")
        self.probabilities = crema_d.votes(
            find_corpus_root(crema_d.INFO.name, root),
            labels,  # type: ignore[arg-type]
        )
        digest = hashlib.sha256(repr(sorted(self.probabilities.items())).encode()).hexdigest()
        self.info = TeacherInfo(
            name=name,
            kind="votes",
            source=source,
            revision=f"sha256:{digest[:16]}",
            classes=list(crema_d.INFO.emotions),
            license=crema_d.INFO.license,
        )

    def predict(self, clip: Clip) -> TeacherPrediction:
        """The votes for a clip, found by its name."""
        probabilities = self.probabilities.get(clip.id.removeprefix(f"{crema_d.INFO.name}/"))
        if probabilities is None:
            return TeacherPrediction(reason="no votes")
        return TeacherPrediction(logits_from_probabilities(np.array(probabilities)))
