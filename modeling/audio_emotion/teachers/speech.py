"""Any audio classifier as a teacher of pseudo-labels: checkpoints of ours, and of anybody on the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoFeatureExtractor

from audio_emotion.configuration_emotion import EmotionConfig
from audio_emotion.evaluation.label_matching import MatchedClassifier, canonical_labels, dimension_columns
from audio_emotion.teachers.load import describe, public_name, revision_of
from audio_emotion.teachers.outputs import Clip, TeacherFacts, TeacherPrediction

RATE = 16000  # hertz, of every waveform here
DIMENSIONS = ("activation", "valence", "dominance")


class SpeechTeacher:
    """Hears clips.

    Args:
        name: of its column.
        source: Hub id or folder; or a YAML file that names the classes of one that only numbers them.
        device: where it computes.

    Attributes:
        facts: who it is.

    Raises:
        ValueError: for missing weights, or classes without names.
    """

    def __init__(self, name: str, source: str, device: torch.device | str = "cpu") -> None:
        told = describe(source)
        source, classes = told["model"], told.get("classes")
        config = AutoConfig.from_pretrained(source)
        ours = isinstance(config, EmotionConfig)
        own = list(config.emotions) if ours else [config.id2label[place] for place in range(config.num_labels)]
        if classes is not None and len(classes) != len(own):
            raise ValueError(f"{source}: expected {len(own)} classes, got {list(classes)}.")
        dimensions = list(config.dimensions) if ours else list(DIMENSIONS)
        regression = not ours and dimension_columns(own, dimensions) is not None
        self.judge = MatchedClassifier(source, own, dimensions).to(device).eval()
        self.extractor: Any = AutoFeatureExtractor.from_pretrained(source) if ours else self.judge.extractor
        self.ours = ours
        self.facts = TeacherFacts(
            name=name,
            kind="speech",
            source=public_name(source),
            revision=revision_of(source, config),
            classes=[] if regression else canonical_labels(classes or own, source),
            dimensions=dimensions if ours or regression else [],
            training_data=list(self.judge.training_data)
            if ours
            else told.get("training_data", [{"model": public_name(source)}]),
            license=(config.license if ours else told.get("license")) or "LicenseRef-unknown",
        )

    @torch.no_grad()
    def label(self, clips: Sequence[Clip]) -> list[TeacherPrediction]:
        """Hear clips, one at a time: many public models hear the padding of a batch."""
        return [self._hear(clip.waveform) for clip in clips]

    def _hear(self, waveform: np.ndarray) -> TeacherPrediction:
        features = self.extractor(waveform, sampling_rate=RATE, return_tensors="pt")
        features = features.to(next(self.judge.parameters()).device)
        if self.ours:
            output = self.judge.model(**features)
            dimensions = output.dimensions[0].float().cpu().numpy()  # (A,)
            embedding = output.embedding[0].float().cpu().numpy()  # (D,)
            return TeacherPrediction(
                output.logits[0].float().cpu().numpy() if self.facts.classes else None, dimensions, embedding
            )
        output = self.judge.model(**features, output_hidden_states=True)
        scores = output.logits[0].float().cpu()  # (C,)
        embedding = output.hidden_states[-1][0].float().mean(0).cpu().numpy()  # (D,)
        if not self.facts.classes:
            return TeacherPrediction(dimensions=scores[self.judge.columns].clamp(0, 1).numpy(), embedding=embedding)
        return TeacherPrediction(scores.numpy(), embedding=embedding)
