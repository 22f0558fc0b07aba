"""Audio classifiers as teachers: checkpoints of this package, and any audio classifier on the Hub."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoFeatureExtractor

from audio_emotion.checkpoint_loading import loading_options
from audio_emotion.configuration_emotion import DIMENSIONS, EmotionConfig
from audio_emotion.evaluation.label_matching import MatchedClassifier, canonical_labels, dimension_columns
from audio_emotion.teachers.load import get_revision, public_source, read_description
from audio_emotion.teachers.outputs import Clip, TeacherInfo, TeacherPrediction

SAMPLING_RATE = 16000  # hertz


class SpeechTeacher:
    """Predicts from the audio of a clip.

    The source is a Hub id or folder, or a YAML file that names the classes of a model without class names.
    """

    def __init__(self, name: str, source: str, device: torch.device | str = "cpu") -> None:
        description = read_description(source)
        model, classes = description.model, description.classes
        options = loading_options(model)
        config = AutoConfig.from_pretrained(model, **options)
        native = isinstance(config, EmotionConfig)
        outputs = list(config.emotions) if native else [config.id2label[index] for index in range(config.num_labels)]
        if classes is not None and len(classes) != len(outputs):
            raise ValueError(f"{model}: expected {len(outputs)} classes, got {list(classes)}.")
        dimensions = list(config.dimensions) if native else list(DIMENSIONS)
        regression = not native and dimension_columns(outputs, dimensions) is not None
        self.native = native
        self.classifier = MatchedClassifier(model, outputs, dimensions).to(device).eval()
        self.extractor: Any = self.classifier.extractor
        if native:
            self.extractor = AutoFeatureExtractor.from_pretrained(model, **options)
        training_data = list(self.classifier.training_data) if native else description.training_data
        self.info = TeacherInfo(
            name=name,
            kind="speech",
            source=public_source(model),
            revision=get_revision(model, config),
            classes=[] if regression else canonical_labels(classes or outputs, model),
            dimensions=dimensions if native or regression else [],
            training_data=[{"model": public_source(model)}] if training_data is None else training_data,
            license=(config.license if native else description.license) or "LicenseRef-unknown",
        )

    @torch.no_grad()
    def predict(self, clip: Clip) -> TeacherPrediction:
        """Output for one clip; clips are not batched, because padding changes the outputs of many public models."""
        features = self.extractor(clip.waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt")
        features = features.to(next(self.classifier.parameters()).device)
        if self.native:
            output = self.classifier.model(**features)
            return TeacherPrediction(
                logits=output.logits[0].float().cpu().numpy() if self.info.classes else None,  # (C,)
                dimensions=output.dimensions[0].float().cpu().numpy() if self.info.dimensions else None,  # (A,)
                embedding=output.embedding[0].float().cpu().numpy(),  # (D,)
            )
        output = self.classifier.model(**features, output_hidden_states=True)
        scores = output.logits[0].float().cpu()  # (C,)
        embedding = output.hidden_states[-1][0].float().mean(0).cpu().numpy()  # (D,)
        if not self.info.classes:
            dimensions = scores[self.classifier.columns].clamp(0, 1).numpy()  # (A,)
            return TeacherPrediction(dimensions=dimensions, embedding=embedding)
        return TeacherPrediction(logits=scores.numpy(), embedding=embedding)
