"""The baseline of a model report: logistic regression on the pooled layers of a frozen encoder."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from audio_emotion import FusedEmotionForAudioClassification
from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.registry import corpus_table, shard_files
from audio_emotion.evaluation.label_matching import canonical_label
from audio_emotion.evaluation.predictions import Predictions
from audio_emotion.layers import EmotionOutput

INVERSE_PENALTY = 0.01  # scikit-learn's C, our choice, not tuned
CLIPS = 2000  # of each training corpus, at most
FOLDS = 5


class PooledFeatures(nn.Module):
    """Means and standard deviations over time of all layers of an encoder but its input, as embedding `(B, L * 2H)`.

    Args:
        encoder: Hub id or folder.
    """

    def __init__(self, encoder: str) -> None:
        super().__init__()
        model = FusedEmotionForAudioClassification.from_encoders([encoder], emotions=["angry", "neutral"])
        self.encoders = model.teacher.eval()
        self.dimensions: list[str] = []

    @torch.no_grad()
    def forward(self, input_values: Tensor, attention_mask: Tensor) -> EmotionOutput:
        """Pool clips `(B, S)`."""
        (states, *_), (frames, *_) = zip(
            *(stream.encode(input_values, attention_mask) for stream in self.encoders.streams), strict=True
        )
        pooled = []
        for clip, count in zip(states, _lengths(frames), strict=True):  # (L, T, H)
            layers = (clip[1:] if len(clip) > 1 else clip)[:, :count]
            pooled.append(torch.cat([layers.mean(1), layers.std(1, correction=0)], 1).flatten())
        embedding = torch.stack(pooled)
        absent = embedding.new_zeros(len(embedding), 0)
        return EmotionOutput(logits=absent, dimensions=absent, embedding=embedding)


class PooledRegression(nn.Module):
    """A logistic regression on [`PooledFeatures`].

    Attributes:
        classes: after fitting.
    """

    def __init__(self, encoder: str) -> None:
        super().__init__()
        self.features = PooledFeatures(encoder)
        self.dimensions: list[str] = []
        self.classes: list[str] = []
        self.regression = regression()

    def fit(self, features: np.ndarray, labels: Sequence[str]) -> None:
        """Train on `(N, F)` and the names of their classes."""
        self.regression.fit(features, list(labels))
        self.classes = [str(name) for name in self.regression.classes_]

    def forward(self, input_values: Tensor, attention_mask: Tensor) -> EmotionOutput:
        """Log probabilities of clips `(B, S)`."""
        output = self.features(input_values, attention_mask)
        logits = self.regression.predict_log_proba(output.embedding.cpu().numpy())
        return EmotionOutput(
            logits=torch.from_numpy(logits).float(), dimensions=output.dimensions, embedding=output.dimensions
        )


def cross_fitted(features: Predictions, emotions: list[str]) -> Predictions:
    """Predictions for the labeled clips by regressions that were trained on the other speakers.

    Args:
        features: with the embeddings of [`PooledFeatures`].
        emotions: names of the labels; the logits are in their order.
    """
    predictions = features.take(features.labels >= 0)
    speakers, labels = predictions.clusters(), predictions.labels
    folds = GroupKFold(min(FOLDS, len(set(speakers.tolist()))))
    found = cross_val_predict(
        regression(), predictions.embedding, labels, groups=speakers, cv=folds, method="predict_log_proba"
    )
    predictions.logits = np.full((len(labels), len(emotions)), np.log(1e-9), dtype=np.float32)
    predictions.logits[:, np.unique(labels)] = found
    return predictions


def fit_on_corpora(
    encoder: str, corpora: Sequence[str], report: Callable[[str], object], seed: int = 0
) -> PooledRegression | None:
    """Train on at most `CLIPS` clips of each corpus; None if none of the corpora is at hand."""
    model = PooledRegression(encoder)
    features, labels = [], []
    for corpus in corpora:
        try:
            table = corpus_table(corpus)
        except FileNotFoundError as error:
            report(f"baseline: {error}")
            continue
        order = np.argsort([zlib.crc32(f"{seed}/{name}".encode()) for name in table["id"]])[:CLIPS]
        for clip in ClipStream(table, shard_files(corpus)).clips(sorted(order.tolist())):
            if clip["emotion"] is not None:
                waveform = torch.from_numpy(clip["waveform"])[None]
                output = model.features(waveform, torch.ones_like(waveform, dtype=torch.long))
                features.append(output.embedding[0].numpy())
                labels.append(canonical_label(clip["emotion"]))
        report(f"baseline: trained on {corpus}")
    if len(set(labels)) < 2:
        return None
    model.fit(np.stack(features), labels)
    return model


def regression() -> Pipeline:
    """Standardization and a logistic regression, classes weighted equally."""
    return make_pipeline(
        StandardScaler(), LogisticRegression(C=INVERSE_PENALTY, class_weight="balanced", max_iter=3000)
    )


def _lengths(frames: Tensor) -> list[int]:
    """Frames of each clip, from lengths `(B,)` or a mask `(B, T)`."""
    return [int(each) for each in (frames if frames.ndim == 1 else frames.sum(-1))]
