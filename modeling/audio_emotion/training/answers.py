"""The contract of a teacher of pseudo-labels: who it is, what it is shown, how it answers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from audio_emotion.training.faces import SpeakingFace

FLOOR = 1e-4  # smallest share of a class; its logarithm is a logit that a student can reach


@dataclass
class TeacherFacts:
    """Who speaks in a column.

    Attributes:
        name: of the column.
        kind: "speech", "face" or "votes".
        source: Hub id, or name of a folder or file.
        revision: commit, or digest of the weights.
        classes: of the logits, in their order; a word of ours where it is one by another name.
        dimensions: in column order; empty without.
        training_data: what it has heard, as in a checkpoint's configuration; `{"model": id}` for a public model.
        license: of the weights, SPDX.
    """

    name: str
    kind: str
    source: str
    revision: str
    classes: list[str]
    dimensions: list[str] = field(default_factory=list)
    training_data: list[dict] = field(default_factory=list)
    license: str = "LicenseRef-unknown"


@dataclass
class Clip:
    """What teachers are shown.

    Attributes:
        id: of the clip.
        waveform: `(S,)` at 16 kHz.
        face: of the speaker; None where there is none that can be used.
        no_face: why.
        faces: how many were followed through the clip; None where nobody looked.
        face_rate: share of the pictures with the best of them.
    """

    id: str
    waveform: np.ndarray
    face: SpeakingFace | None = None
    no_face: str = "the clip has no video"
    faces: int | None = None
    face_rate: float | None = None


@dataclass
class Said:
    """One teacher on one clip.

    Attributes:
        logits: `(C,)`; None from a teacher without categories, or one that says nothing.
        dimensions: `(A,)` in 0..1, or None.
        embedding: `(D,)`, or None.
        frame_times: `(F,)` seconds since the clip's audio began, or None.
        frame_logits: `(F, C)`, or None.
        reason: why it says nothing; None if it speaks.
    """

    logits: np.ndarray | None = None
    dimensions: np.ndarray | None = None
    embedding: np.ndarray | None = None
    frame_times: np.ndarray | None = None
    frame_logits: np.ndarray | None = None
    reason: str | None = None


def pooled(probabilities: np.ndarray) -> np.ndarray:
    """Logits `(C,)` of a clip from the probabilities `(F, C)` of its frames: the logarithm of their mean."""
    return log_shares(probabilities.mean(axis=0))


def log_shares(shares: np.ndarray) -> np.ndarray:
    """Logits whose softmax is the shares; those below `FLOOR` are raised to it."""
    return np.log(np.maximum(shares, FLOOR)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
