"""Cross-fitted logistic regressions on fixed features of clips, used as teachers and baselines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from audio_emotion.data.training_set import training_data
from audio_emotion.evaluation.predictions import Predictions
from audio_emotion.teachers.outputs import TeacherOutputs

LOWEST = 0.01  # probability of a class below which a clip is no example of it
EMBEDDING_SIZE = 64  # wider features are projected on this many principal components


def pool_states(states: Tensor, with_input: bool = False) -> np.ndarray:
    """Statistics pooling of encoder layers `(L, T, H)`: means over time, then standard deviations, `(L * 2H,)`.

    If there are several layers, the first is left out unless `with_input`: it is the input of the encoder's layers.
    """
    layers = (states[1:] if len(states) > 1 and not with_input else states).float()
    return torch.cat([layers.mean(1), layers.std(1)], 1).flatten().numpy()


def normalize_by_speaker(features: np.ndarray, speakers: Sequence[str], prior: float = 5.0) -> np.ndarray:
    """Standardize features per speaker, with the mean and standard deviation of the speaker's clips; needs no labels.

    Both statistics are shrunk towards those of all clips, as if `prior` more clips of the speaker had these: a
    speaker's only clip is barely changed. If most clips of a speaker are of one emotion, the mean removes part of that
    emotion; in an acted corpus, in which every speaker acts every emotion, it does not. Rows of features `(N, F)` with
    NaN stay NaN.
    """
    names = np.asarray(speakers)
    known = np.isfinite(features).all(1)
    global_mean, global_variance = features[known].mean(0), features[known].var(0)
    result = np.full(features.shape, np.nan)
    for name in np.unique(names[known]):
        rows = known & (names == name)
        clips = features[rows]
        mean = (clips.sum(0) + prior * global_mean) / (len(clips) + prior)
        variance = (np.square(clips - mean).sum(0) + prior * global_variance) / (len(clips) + prior)
        result[rows] = (clips - mean) / np.sqrt(np.maximum(variance, 1e-12))
    return result


def cross_fit(
    rows: Dataset,
    features: np.ndarray,
    train_speakers: Sequence[str],
    labeled: set[str],
    emotions: Sequence[str],
    folds: int,
    inverse_penalty: float,
    name: str,
    license: str = "",
) -> TeacherOutputs:
    """Teacher outputs for all clips of a corpus, none by a classifier that was trained on the clip's speaker.

    The training speakers are divided into `folds`, each predicted by a classifier that is trained on the labeled clips
    of the others; all other speakers are predicted by one that is trained on all labeled clips. The embedding uses no
    labels and is the same for all. Features are `(N, F)`; rows with NaN are unknown and masked.
    """
    if not 2 <= folds <= len(train_speakers):
        raise ValueError(f"Expected 2 to {len(train_speakers)} folds of the training speakers, got {folds}.")
    ids, speakers = np.array(rows["id"]), np.array(rows["speaker"])
    training = np.isin(speakers, train_speakers)
    if unexpected := sorted(set(labeled) - set(ids[training])):
        raise ValueError(f"Expected labels of training speakers only, got those of {unexpected[:3]}.")
    known = np.isfinite(features).all(1)
    labels = np.array([-100 if emotion is None else list(emotions).index(emotion) for emotion in rows["emotion"]])
    usable = known & np.isin(ids, sorted(labeled)) & (labels >= 0)
    fold_of = {speaker: number % folds for number, speaker in enumerate(train_speakers)}
    fold_numbers = np.array([fold_of.get(speaker, -1) for speaker in speakers])  # (N,)

    logits = np.zeros((len(ids), len(emotions)))
    for fold in range(-1, folds):
        fit, predicted = usable & (fold_numbers != fold), known & (fold_numbers == fold)
        if predicted.any():
            logits[predicted] = fit_log_probabilities(
                features[fit], labels[fit], features[predicted], len(emotions), inverse_penalty
            )
    # The embedding: standardized features or their principal components, fitted on training clips; 0 where unknown.
    steps = [StandardScaler()]
    if features.shape[1] > EMBEDDING_SIZE:
        steps.append(PCA(min(EMBEDDING_SIZE, int((known & training).sum())), random_state=0))
    reduced = make_pipeline(*steps).fit(features[known & training]).transform(features[known])
    embedding = np.zeros((len(ids), reduced.shape[1]))  # (N, D)
    embedding[known] = reduced
    return TeacherOutputs(
        ids.tolist(),
        torch.tensor(logits, dtype=torch.float32),
        torch.full((len(ids), 3), torch.nan),
        torch.tensor(embedding, dtype=torch.float32),
        torch.zeros(len(ids), dtype=torch.long),
        list(emotions),
        training_data(sorted(train_speakers)),
        name,
        mask=torch.tensor(known, dtype=torch.float32),
        license=license,
    )


def fit_log_probabilities(
    features: np.ndarray, labels: np.ndarray, test_features: np.ndarray, num_classes: int, inverse_penalty: float
) -> np.ndarray:
    """Train on `(M, F)` with classes `(M,)` and predict log probabilities `(N, C)` for `(N, F)`.

    A class without a training clip gets the probability that one more clip of that class would add.
    """
    present, total = np.unique(labels), len(labels)
    absent = num_classes - len(present)
    probabilities = np.full((len(test_features), num_classes), 1.0 / (total + absent))
    if len(present) > 1:
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=3000))
        predicted = classifier.fit(features, labels).predict_proba(test_features)  # (N, classes present)
    else:
        predicted = np.ones((len(test_features), len(present)))
    probabilities[:, present] = np.maximum(predicted, 1e-9) * total / (total + absent)
    return np.log(probabilities)


def fit_soft_log_probabilities(
    features: np.ndarray,
    probabilities: np.ndarray,
    weights: np.ndarray,
    test_features: np.ndarray,
    inverse_penalty: float,
) -> np.ndarray:
    """Train on `(M, F)` with probabilities `(M, C)` and weights `(M,)`, and predict log probabilities `(N, C)`.

    Each clip is an example of every class with more than `LOWEST` of its probability, which is its weight. A class
    that no clip has gets `LOWEST`.
    """
    scaler = StandardScaler().fit(features)
    rows, classes = np.nonzero(probabilities > LOWEST)
    classifier = LogisticRegression(C=inverse_penalty, max_iter=3000)
    examples = scaler.transform(features).astype(np.float32)[rows]
    classifier.fit(examples, classes, sample_weight=weights[rows] * probabilities[rows, classes])
    result = np.full((len(test_features), probabilities.shape[1]), LOWEST)
    result[:, classifier.classes_] = classifier.predict_proba(scaler.transform(test_features).astype(np.float32))
    return np.log(np.maximum(result, LOWEST))


def as_predictions(outputs: TeacherOutputs, rows: Dataset) -> Predictions:
    """Teacher outputs for some clips as predictions, so that they can be scored; without dimensions."""
    ids = sorted(rows["id"])
    outputs = outputs.select(ids)
    row_of = {row["id"]: row for row in rows.select_columns(["id", "speaker", "gender", "emotion"])}
    emotions = [row_of[name]["emotion"] for name in ids]
    predictions = Predictions(
        ids,
        np.array([row_of[name]["speaker"] for name in ids]),
        outputs.logits.numpy(),
        np.zeros((len(ids), 0)),
        outputs.embedding.numpy(),
        np.array([-100 if emotion is None else outputs.emotions.index(emotion) for emotion in emotions]),
        np.zeros((len(ids), 0)),
    )
    predictions.name_genders({name: row["gender"] for name, row in row_of.items()})
    return predictions
