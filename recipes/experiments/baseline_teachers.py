"""Teachers and probes of the label-efficiency experiment, trained on the labels of one list only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import Dataset
from linear_classifiers import as_predictions, cross_fit, fit_log_probabilities, normalize_by_speaker, pool_states
from transformers import PreTrainedModel

from audio_emotion.data.dataset import Batch, ClipStream, batches
from audio_emotion.data.registry import corpus_info, shard_files
from audio_emotion.data.sampler import ResumableSampler
from audio_emotion.data.training_set import percent, read_list
from audio_emotion.evaluation.predictions import Predictions, predict, save_predictions
from audio_emotion.evaluation.report import measure
from audio_emotion.layers import EmotionOutput
from audio_emotion.modeling_fused_emotion import FusedEmotionForAudioClassification
from audio_emotion.teachers.outputs import TeacherOutputs
from audio_emotion.training.feature_cache import EncoderStateCache
from audio_emotion.training.feature_statistics import set_log_mel_statistics
from audio_emotion.training.trainer_state import RunFolder


@dataclass(frozen=True)
class ExperimentCorpus:
    """The corpus that teachers and students of an experiment share.

    Attributes:
        name: of the corpus, or the file that describes it.
        path: its folder; None for the default one.
        protocol: its name; empty for the one of the corpus.
        training: rows of the training speakers.
        test: rows of the test speakers.
        rows: of both.
        train_speakers: names of the training speakers.
        emotions: class names in logit order.
    """

    name: str
    path: str | None
    protocol: str
    training: Dataset
    test: Dataset
    rows: Dataset
    train_speakers: tuple[str, ...]
    emotions: list[str]


@dataclass(kw_only=True)
class ClassifierArguments:
    """Arguments of a classifier, for the `config.yaml` of its run folder."""

    corpus: str
    protocol: str
    labels: str
    inverse_penalty: float
    encoder: str = ""
    cross_fit: int = 0
    by_speaker: bool = False
    seed: int = 0


class SpeechFeatures:
    """Pooled layers of a frozen encoder, computed on first use.

    Args:
        encoder: Hub id, folder, or log-mel.
        cache: folder of cached encoder states.
        corpus: whose clips are encoded.
    """

    def __init__(self, encoder: str, cache: str, corpus: ExperimentCorpus) -> None:
        self.encoder, self.cache, self.corpus = encoder, cache, corpus
        self._features: np.ndarray | None = None

    def __call__(self) -> np.ndarray:
        """`(N, F)` for the rows of the corpus; NaN for clips that cannot be decoded."""
        if self._features is None:
            set_seed(0)
            corpus = self.corpus
            model = FusedEmotionForAudioClassification.from_encoders([self.encoder], emotions=corpus.emotions)
            cache = EncoderStateCache(self.cache, model)
            cache.fill(ClipStream(corpus.rows, shard_files(corpus.name, corpus.path)))
            features = {name: pool_states(cache[name][0]) for name in corpus.rows["id"] if name in cache}
            unknown = np.full_like(next(iter(features.values())), np.nan)
            self._features = np.stack([features.get(name, unknown) for name in corpus.rows["id"]])
        return self._features


@dataclass
class BaselineTeachers:
    """Teachers trained on the labels of one list, each trained on first use in a folder with `teacher_outputs/`.

    Attributes:
        args: of the recipe: `speech_teacher`, `encoder`, `cross_fit`, `by_speaker`, `inverse_penalty` and `restart`.
        corpus: that they predict.
        speech_features: input of the speech teacher.
        train_face: trains the face teacher in a folder, on the labels of a list.
        folder: parent of the teachers' folders.
        labels: file of the list.
        seed: of the list.
        fraction: of the labels that are in the list.
    """

    args: Any
    corpus: ExperimentCorpus
    speech_features: SpeechFeatures
    train_face: Callable[[Path, str], None]
    folder: Path
    labels: str
    seed: int
    fraction: float

    def __call__(self, name: str) -> Path:
        """Folder of `speech`, `face` or `face-shuffled`."""
        return {"speech": self.speech, "face": self.face, "face-shuffled": self.shuffled_face}[name]()

    def outputs(self, name: str) -> TeacherOutputs:
        """Outputs of one teacher."""
        return TeacherOutputs.load(self(name) / "teacher_outputs")

    def speech(self) -> Path:
        """A logistic regression on a frozen encoder, or a run of `train_teacher.py`."""
        args, corpus = self.args, self.corpus
        if args.speech_teacher != "baseline":
            return Path(args.speech_teacher.format(percent=percent(self.fraction), seed=self.seed))
        classifier = ClassifierArguments(
            corpus=corpus.name,
            protocol=corpus.protocol,
            labels=self.labels,
            inverse_penalty=args.inverse_penalty,
            encoder=args.encoder,
            cross_fit=args.cross_fit,
            by_speaker=args.by_speaker,
        )
        run = RunFolder(self.folder / "speech", classifier, resume=True, restart=args.restart)
        if run.finished is None:
            features = self.speech_features()
            outputs = cross_fit(
                corpus.rows,
                normalize_by_speaker(features, corpus.rows["speaker"]) if args.by_speaker else features,
                corpus.train_speakers,
                set(read_list(self.labels)),
                corpus.emotions,
                args.cross_fit,
                args.inverse_penalty,
                name="speech",
                license=corpus_info(corpus.name).license,
            )
            outputs.save(run.path / "teacher_outputs")
            write_scores(run, as_predictions(outputs, corpus.test), corpus.emotions)
        return run.path

    def face(self) -> Path:
        """A logistic regression on facial action units."""
        self.train_face(self.folder / "face", self.labels)
        return self.folder / "face"

    def shuffled_face(self) -> Path:
        """The outputs of the face teacher, permuted among the training clips."""
        outputs = self.outputs("face").select(self.corpus.training["id"])
        permuted = outputs.select(np.random.default_rng(self.seed).permutation(outputs.ids).tolist())
        replace(permuted, ids=outputs.ids).save(self.folder / "face-shuffled" / "teacher_outputs")
        return self.folder / "face-shuffled"


def random_probe(
    model: PreTrainedModel, corpus: ExperimentCorpus, labeled: Sequence[str], inverse_penalty: float
) -> Predictions:
    """Test predictions of a logistic regression on the embedding of an untrained student.

    Args:
        model: the student; its log-mel statistics are set to those of the training clips.
        corpus: with training and test rows.
        labeled: ids of the training clips whose labels are used.
        inverse_penalty: scikit-learn's `C`.
    """
    accelerator = Accelerator(mixed_precision="no")
    model = model.to(accelerator.device).eval()
    stream = ClipStream(corpus.rows, shard_files(corpus.name, corpus.path))
    set_log_mel_statistics(model, ClipStream(corpus.training, stream.reader.files))

    def forward(batch: Batch) -> EmotionOutput:
        return model(batch.input_values.to(accelerator.device), batch.attention_mask.to(accelerator.device))

    sampler = ResumableSampler.from_table(corpus.rows, 64)
    predictions = predict(accelerator, forward, batches(stream, sampler, corpus.emotions, model.config.dimensions))
    train = np.isin(predictions.ids, labeled) & (predictions.labels >= 0)
    test = np.isin(predictions.ids, corpus.test["id"])
    embedding, labels = predictions.embedding, predictions.labels
    predictions = predictions.take(test)
    predictions.logits = fit_log_probabilities(
        embedding[train], labels[train], embedding[test], len(corpus.emotions), inverse_penalty
    )
    predictions.dimensions = predictions.dimension_labels = np.zeros((len(predictions.ids), 0))
    return predictions


def write_scores(run: RunFolder, predictions: Predictions, emotions: list[str]) -> None:
    """Write test predictions and their scores to a run folder."""
    save_predictions(predictions, run.path / "predictions.parquet", emotions, [])
    run.results({"test": measure(predictions, emotions, [], None, 0)})
