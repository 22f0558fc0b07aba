"""A logistic regression on fixed features as a teacher: silent on the speakers by whose labels it was fitted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from audio_emotion.data.mixture import training_data
from audio_emotion.evaluation.predictions import Predictions
from audio_emotion.teachers.outputs import TeacherOutputs

EMBEDDING_SIZE = 64  # wider features are projected on so many principal components


def cross_fitted(
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
    """Ask classifiers about every clip of a corpus.

    There are `folds` of them for the training speakers, each fitted on the labeled clips of the others, and one
    fitted on all labeled clips for whoever else is there. The embedding needs no labels, so that all share one space.

    Args:
        rows: of the corpus, with `id`, `speaker` and `emotion`.
        features: `(N, F)`, NaN in rows of which nothing is known: they are masked.
        train_speakers: whose labels may be used.
        labeled: ids of the clips whose labels are used.
        emotions: class names in logit order.
        folds: classifiers for the training speakers.
        inverse_penalty: scikit-learn's `C`.
        name: of the teacher.
        license: of the corpus, which the classifiers inherit.

    Raises:
        ValueError: for fewer than two folds, or labels of speakers who are not trained on.
    """
    if not 2 <= folds <= len(train_speakers):
        raise ValueError(f"Expected 2 to {len(train_speakers)} folds of the training speakers, got {folds}.")
    ids, speakers = np.array(rows["id"]), np.array(rows["speaker"])
    training = np.isin(speakers, train_speakers)
    if strangers := sorted(set(labeled) - set(ids[training])):
        raise ValueError(f"Expected labels of training speakers alone, got those of {strangers[:3]}.")
    known = np.isfinite(features).all(1)
    labels = np.array([-100 if emotion is None else list(emotions).index(emotion) for emotion in rows["emotion"]])
    usable = known & np.isin(ids, sorted(labeled)) & (labels >= 0)
    fold_of = {speaker: number % folds for number, speaker in enumerate(train_speakers)}
    folds_of = np.array([fold_of.get(speaker, -1) for speaker in speakers])  # (N,)

    logits = np.zeros((len(ids), len(emotions)))
    for number in range(-1, folds):
        fit, ask = usable & (folds_of != number), known & (folds_of == number)
        if ask.any():
            logits[ask] = log_probabilities(features[fit], labels[fit], features[ask], len(emotions), inverse_penalty)
    return TeacherOutputs(
        ids.tolist(),
        torch.tensor(logits, dtype=torch.float32),
        torch.full((len(ids), 3), torch.nan),
        torch.tensor(_embedding(features, known, training), dtype=torch.float32),
        torch.zeros(len(ids), dtype=torch.long),
        list(emotions),
        training_data(sorted(train_speakers)),
        name,
        mask=torch.tensor(known, dtype=torch.float32),
        license=license,
    )


def log_probabilities(
    features: np.ndarray, labels: np.ndarray, asked: np.ndarray, num_classes: int, inverse_penalty: float
) -> np.ndarray:
    """Fit on `(M, F)` with classes `(M,)`, and give logarithms of the shares of `(N, F)`, `(N, C)`.

    Of few labels some classes may have none: each of them counts as if one more clip had been of that class.
    """
    present, total = np.unique(labels), len(labels)
    absent = num_classes - len(present)
    shares = np.full((len(asked), num_classes), 1.0 / (total + absent))
    if len(present) > 1:
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=3000))
        seen = classifier.fit(features, labels).predict_proba(asked)  # (N, classes present)
    else:
        seen = np.ones((len(asked), len(present)))
    shares[:, present] = np.maximum(seen, 1e-9) * total / (total + absent)
    return np.log(shares)


def as_predictions(outputs: TeacherOutputs, rows: Dataset) -> Predictions:
    """What a teacher says of some clips, to be scored as a model's answers are; it has no dimensions."""
    names = sorted(rows["id"])
    said = outputs.of(names)
    by_id = {row["id"]: row for row in rows.select_columns(["id", "speaker", "gender", "emotion"])}
    emotions = [by_id[name]["emotion"] for name in names]
    predictions = Predictions(
        names,
        np.array([by_id[name]["speaker"] for name in names]),
        said.logits.numpy(),
        np.zeros((len(names), 0)),
        said.embedding.numpy(),
        np.array([-100 if emotion is None else outputs.emotions.index(emotion) for emotion in emotions]),
        np.zeros((len(names), 0)),
    )
    predictions.name_genders({name: row["gender"] for name, row in by_id.items()})
    return predictions


def _embedding(features: np.ndarray, known: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Standardized features `(N, D)`, 0 where unknown; means, deviations and axes are the training clips'."""
    steps = [StandardScaler()]
    if features.shape[1] > EMBEDDING_SIZE:
        steps.append(PCA(min(EMBEDDING_SIZE, int((known & training).sum())), random_state=0))
    reduce = make_pipeline(*steps).fit(features[known & training])
    reduced = reduce.transform(features[known])
    embedding = np.zeros((len(features), reduced.shape[1]))
    embedding[known] = reduced
    return embedding
