"""The limit beyond which a recording is unlike the training clips: fitted on embeddings, stored in the checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from audio_emotion.layers import EmbeddingDistance

QUANTILE = 0.99  # of the distances of held-out speakers' clips, which are within the limit
SHRINKAGE = 1e-3  # of the mean variance that is added to every variance: features of an embedding are correlated


def distances(embeddings: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Mahalanobis distances of `(N, D)` from a Gaussian, `(N,)`."""
    centered = embeddings - mean
    squares: np.ndarray = np.einsum("nd,nd->n", centered, np.linalg.solve(covariance, centered.T).T)
    return np.sqrt(squares)


def moments(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean `(D,)` and shrunk covariance `(D, D)` of embeddings `(N, D)`, in float64."""
    covariance = np.cov(embeddings.T.astype(np.float64))
    covariance += SHRINKAGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    return embeddings.mean(0, dtype=np.float64), covariance


def fit_distance(model: Any, training: np.ndarray, held_out: np.ndarray | None = None, ratio: float = 1.0) -> float:
    """Let a model output the distance of a clip from its training clips; returns the limit.

    The limit is the quantile `QUANTILE` of the distances of held-out speakers. A model that was trained on all
    speakers has none: then it is that of the training clips times the ratio of both in models of the same recipe.

    Args:
        model: with its heads.
        training: embeddings of training clips, `(N, D)`.
        held_out: those of speakers that the model was not trained on, `(M, D)`.
        ratio: of the limits of held-out and of training clips, without `held_out`.
    """
    mean, covariance = moments(training)
    limit = float(np.quantile(distances(training if held_out is None else held_out, mean, covariance), QUANTILE))
    limit *= 1.0 if held_out is not None else ratio
    model.config.measure_distance = True
    distance = EmbeddingDistance(training.shape[1]).to(model.device)
    distance.set_statistics(torch.from_numpy(mean), torch.from_numpy(covariance), limit)
    model.heads.training_distance = distance
    return limit
