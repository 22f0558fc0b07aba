"""Arms of the label-efficiency experiment: teachers and students that use the labels of one list only."""

from __future__ import annotations

import runpy
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import concatenate_datasets
from linear_classifiers import (
    as_predictions,
    cross_fit,
    fit_log_probabilities,
    fit_soft_log_probabilities,
    normalize_by_speaker,
    pool_states,
)

from audio_emotion.data.dataset import ClipStream, batches
from audio_emotion.data.registry import apply_protocol, corpus_info, corpus_table, select_speakers, shard_files
from audio_emotion.data.sampler import ResumableSampler
from audio_emotion.data.training_set import read_list
from audio_emotion.evaluation.predictions import Predictions, predict, save_predictions
from audio_emotion.evaluation.report import measure
from audio_emotion.modeling_fused_emotion import FusedEmotionForAudioClassification
from audio_emotion.teachers.outputs import Clip, TeacherOutputs
from audio_emotion.teachers.votes import VotesTeacher
from audio_emotion.training.feature_cache import EncoderStateCache
from audio_emotion.training.feature_statistics import set_log_mel_statistics
from audio_emotion.training.teacher_ensemble import fit_exponents, product_of_teachers
from audio_emotion.training.trainer_state import RunFolder

STUDENT_ARMS = {  # arm: its teachers
    "scratch": (),
    "speech": ("speech",),
    "face": ("face",),
    "both": ("speech", "face"),
    "both-shuffled": ("speech", "face-shuffled"),
}
OTHER_ARMS = ("random-probe", "speech-teacher", "face-teacher", "both-teachers")
CONVOLUTIONAL, REGRESSION = "-convolutional", "-regression"
FACES = ("action-units", "votes")  # of the face teacher
# Arguments in which a later experiment in the same folder may differ.
EXTENDED = ("arms", "other_arms", "other_fraction", "fractions", "seeds", "folds", "results", "repeats")


@dataclass(kw_only=True)
class ClassifierArguments:
    """Arguments of a classifier, for the `config.yaml` of its run folder."""

    corpus: str
    protocol: str
    labels: str
    inverse_penalty: float
    encoder: str = ""
    layers: list[int] = field(default_factory=list)
    frames_per_step: int = 1
    faces: str = ""
    teachers: list[str] = field(default_factory=list)
    labeled_fraction: float = 0.0
    cross_fit: int = 0
    by_speaker: bool = False
    seed: int = 0


class Experiment:
    """The corpus and the arguments that all arms of one protocol share.

    Args:
        args: of `label_efficiency.py`.
        student: arguments of `distill.py`.
        distill: globals of `distill.py`.
    """

    def __init__(self, args: Any, student: Any, distill: dict[str, Any]) -> None:
        self.args, self.student, self.distill = args, student, distill
        self.info, path = corpus_info(student.corpus), student.corpus_path or None
        self.emotions, self.files = list(self.info.emotions), shard_files(student.corpus, path)
        rows = corpus_table(student.corpus, path, student.corpus_count)
        rows, speakers = apply_protocol(student.corpus, rows, student.protocol, path)
        self.train_speakers = speakers.train + (speakers.validation if student.train_on_validation else ())
        self.training, self.test = select_speakers(rows, self.train_speakers), select_speakers(rows, speakers.test)
        self.rows = concatenate_datasets([self.training, self.test])

    @cached_property
    def speech_features(self) -> np.ndarray:
        """Pooled layers of the frozen encoder, `(N, F)` for all rows; NaN for clips that cannot be decoded."""
        set_seed(0)
        args = self.args
        model = FusedEmotionForAudioClassification.from_encoders(
            [args.encoder],
            {args.encoder: args.layers} if args.layers else None,
            emotions=self.emotions,
            frames_per_step=args.frames_per_step,
        )
        cache = EncoderStateCache(args.cache, model)
        cache.fill(ClipStream(self.rows, self.files))
        with_input = bool(args.layers)
        features = {name: pool_states(cache[name][0], with_input) for name in self.rows["id"] if name in cache}
        unknown = np.full_like(next(iter(features.values())), np.nan)
        return np.stack([features.get(name, unknown) for name in self.rows["id"]])


@dataclass
class Arms:
    """Teachers and students of one list of labels; what is finished in their folders is not run again."""

    experiment: Experiment
    folder: Path
    labels: str  # file of the list
    seed: int  # of the list and of the training

    def run(self, arm: str) -> Path:
        """Run an arm; returns its folder, with `predictions.parquet`."""
        folder = self.folder / arm
        if arm in ("speech-teacher", "face-teacher"):
            return self.teacher(arm.removesuffix("-teacher"))
        if arm == "both-teachers":
            self.score_both_teachers(folder)
        elif arm == "random-probe":
            self.random_probe(folder)
        elif arm.endswith(REGRESSION):
            self.train_regression(arm, folder)
        else:
            self.train_student(arm, folder)
        return folder

    def train_student(self, arm: str, folder: Path) -> None:
        """Run `distill.py` with the teachers of an arm.

        A student without teachers is trained on labeled clips only, with as many steps and as many labeled clips per
        batch as a student with teachers.
        """
        args, student = self.experiment.args, self.experiment.student
        fraction = len(read_list(self.labels)) / len(self.experiment.training)
        weight = labeled_sampling_weight(fraction, args.labeled_fraction)
        names = STUDENT_ARMS[arm.removesuffix(CONVOLUTIONAL)]
        changes: dict[str, Any] = {"trunk": "convolutional"} if arm.endswith(CONVOLUTIONAL) else {}
        if not names:
            in_batch = fraction * weight / (fraction * weight + 1 - fraction)
            changes |= {"unlabeled_weight": 0.0, "batch_size": max(2, round(in_batch * student.batch_size))}
        arguments = replace(
            student,
            output=str(folder),
            teacher=[f"{name.removesuffix('-shuffled')}={self.teacher(name)}" for name in names],
            labeled_list=self.labels,
            labeled_weight=weight,
            seed=self.seed,
            restart=args.restart,
            **changes,
        )
        self.experiment.distill["main"](arguments)

    def train_regression(self, arm: str, folder: Path) -> None:
        """A logistic regression on the frozen encoder, from labels and the product of the teachers of an arm.

        A labeled clip has its label, and as much weight as in the training of a student; any other training clip has
        the product, or is left out where the arm has no teacher. No clip is standardized by its speaker.
        """
        experiment, args = self.experiment, self.experiment.args
        names, labeled = STUDENT_ARMS[arm.removesuffix(REGRESSION)], set(read_list(self.labels))
        facts = {"encoder": args.encoder, "layers": args.layers, "frames_per_step": args.frames_per_step}
        facts |= {"teachers": list(names), "labeled_fraction": args.labeled_fraction, "faces": args.faces}
        run = self.classifier_run(folder, **facts, seed=self.seed)
        if run.finished is not None:
            return
        rows, emotions, features = experiment.training, experiment.emotions, experiment.speech_features
        is_labeled = np.isin(rows["id"], sorted(labeled))
        labels = [
            emotions.index(name) if known else -100 for name, known in zip(rows["emotion"], is_labeled, strict=True)
        ]
        targets = np.zeros((len(rows), len(emotions)))
        if names:
            teachers = [self.outputs(name).align(rows["id"]) for name in names]
            exponents = (
                fit_exponents(teachers, emotions, torch.tensor(labels)) if experiment.student.product_fit else None
            )
            targets = product_of_teachers(teachers, emotions, 1.0, exponents).double().numpy()
        targets[is_labeled] = np.eye(len(emotions))[[label for label in labels if label >= 0]]
        fraction = len(labeled) / len(rows)
        weights = np.where(is_labeled, labeled_sampling_weight(fraction, args.labeled_fraction), 1.0)
        used = np.isfinite(features[: len(rows)]).all(1) & (targets.sum(1) > 0)
        logits = fit_soft_log_probabilities(
            features[: len(rows)][used],
            targets[used],
            weights[used],
            np.nan_to_num(features[len(rows) :]),
            args.inverse_penalty,
        )
        outputs = outputs_of_emotions(experiment.test["id"], logits, emotions)
        self.write_scores(run, as_predictions(outputs, experiment.test))

    def teacher(self, name: str) -> Path:
        """Folder of `speech`, `face` or `face-shuffled`, with its `teacher_outputs/`."""
        train = {"speech": self.train_speech, "face": self.train_face, "face-shuffled": self.shuffle_face}[name]
        train(self.folder / "teachers" / name)
        return self.folder / "teachers" / name

    def outputs(self, name: str) -> TeacherOutputs:
        """Outputs of a teacher."""
        return TeacherOutputs.load(self.teacher(name) / "teacher_outputs")

    def train_speech(self, folder: Path) -> None:
        """A logistic regression on a frozen encoder."""
        experiment, args = self.experiment, self.experiment.args
        facts = {"encoder": args.encoder, "layers": args.layers, "frames_per_step": args.frames_per_step}
        facts |= {"cross_fit": args.cross_fit, "by_speaker": args.by_speaker}
        run = self.classifier_run(folder, **facts)
        if run.finished is not None:
            return
        rows, features = experiment.rows, experiment.speech_features
        outputs = cross_fit(
            rows,
            normalize_by_speaker(features, rows["speaker"]) if args.by_speaker else features,
            experiment.train_speakers,
            set(read_list(self.labels)),
            experiment.emotions,
            args.cross_fit,
            args.inverse_penalty,
            name="speech",
            license=experiment.info.license,
        )
        outputs.save(run.path / "teacher_outputs")
        self.write_scores(run, as_predictions(outputs, experiment.test))

    def train_face(self, folder: Path) -> None:
        """Run `face_teacher.py` on the corpus of the student, or take the votes of raters."""
        args, student = self.experiment.args, self.experiment.student
        if args.faces == "votes":
            self.take_face_votes(folder)
            return
        recipe = runpy.run_path(str(Path(__file__).with_name("face_teacher.py")))
        from_student = ("corpus", "corpus_path", "corpus_count", "protocol", "train_on_validation")
        arguments = {name: getattr(student, name) for name in from_student}
        arguments |= {name: getattr(args, name) for name in ("cross_fit", "by_speaker", "inverse_penalty", "restart")}
        recipe["main"](recipe["FaceTeacherArguments"](output=str(folder), labeled_list=self.labels, **arguments))

    def take_face_votes(self, folder: Path) -> None:
        """The votes of raters who saw the face alone, as the outputs of a teacher that needs no training."""
        experiment = self.experiment
        run = self.classifier_run(folder, faces="votes")
        if run.finished is not None:
            return
        teacher = VotesTeacher("face", f"{experiment.info.name}/face", experiment.student.corpus_path or None)
        ids = list(experiment.rows["id"])
        logits = [teacher.predict(Clip(name, np.zeros(0, np.float32))).logits for name in ids]
        known = [each is not None for each in logits]
        unknown = np.zeros(len(teacher.info.classes), np.float32)
        outputs = outputs_of_emotions(
            ids,
            np.stack([unknown if each is None else each for each in logits]),
            teacher.info.classes,
            name="face",
            mask=torch.tensor(known, dtype=torch.float32),
            license=teacher.info.license,
        )
        outputs.save(run.path / "teacher_outputs")
        self.write_scores(run, as_predictions(outputs, experiment.test))

    def shuffle_face(self, folder: Path) -> None:
        """The outputs of the face teacher, permuted among the training clips."""
        outputs = self.outputs("face").select(self.experiment.training["id"])
        permuted = outputs.select(np.random.default_rng(self.seed).permutation(outputs.ids).tolist())
        replace(permuted, ids=outputs.ids).save(folder / "teacher_outputs")

    def score_both_teachers(self, folder: Path) -> None:
        """Score the product of both teachers, with the exponents that a student with `product_fit` uses."""
        emotions, training, test = (getattr(self.experiment, name) for name in ("emotions", "training", "test"))
        teachers, exponents = [self.outputs(name) for name in ("speech", "face")], None
        if self.experiment.student.product_fit:
            labeled = sorted(read_list(self.labels))
            emotion_of = dict(zip(training["id"], training["emotion"], strict=True))
            labels = torch.tensor([emotions.index(emotion_of[name]) for name in labeled])
            exponents = fit_exponents([each.align(labeled) for each in teachers], emotions, labels)
        outputs = [each.align(test["id"]) for each in teachers]
        probabilities = product_of_teachers(outputs, emotions, 1.0, exponents)
        both = replace(outputs[0], logits=probabilities.clamp(min=1e-12).log(), emotions=emotions)
        run = RunFolder(folder, self.experiment.args, restart=self.experiment.args.restart, extends=EXTENDED)
        self.write_scores(run, as_predictions(both, test))

    def random_probe(self, folder: Path) -> None:
        """A logistic regression on the embedding of an untrained student with the log-mel statistics of the corpus."""
        experiment, labeled = self.experiment, read_list(self.labels)
        run = self.classifier_run(folder, seed=self.seed)
        if run.finished is not None:
            return
        set_seed(self.seed)
        model = experiment.distill["new_student"](experiment.student, emotions=experiment.emotions)
        accelerator = Accelerator(mixed_precision="no")
        model = model.to(accelerator.device).eval()
        set_log_mel_statistics(model, ClipStream(experiment.training, experiment.files))
        stream = ClipStream(experiment.rows, experiment.files)
        sampler = ResumableSampler.from_table(experiment.rows, 64)
        every_batch = batches(stream, sampler, experiment.emotions, model.config.dimensions)
        predictions = predict(accelerator, model, every_batch)
        train = predictions.take(np.isin(predictions.ids, labeled) & (predictions.labels >= 0))
        test = predictions.take(np.isin(predictions.ids, experiment.test["id"]))
        test.logits = fit_log_probabilities(
            train.embedding, train.labels, test.embedding, len(experiment.emotions), experiment.args.inverse_penalty
        )
        test.dimensions = test.dimension_labels = np.zeros((len(test.ids), 0))
        self.write_scores(run, test)

    def classifier_run(self, folder: Path, **arguments: Any) -> RunFolder:
        """Run folder of a classifier."""
        args, student = self.experiment.args, self.experiment.student
        shared = {"corpus": student.corpus, "protocol": student.protocol, "labels": self.labels}
        classifier = ClassifierArguments(**shared, inverse_penalty=args.inverse_penalty, **arguments)
        return RunFolder(folder, classifier, resume=True, restart=args.restart)

    def write_scores(self, run: RunFolder, predictions: Predictions) -> None:
        """Write test predictions and their scores to a run folder."""
        save_predictions(predictions, run.path / "predictions.parquet", self.experiment.emotions, [])
        run.results({"test": measure(predictions, self.experiment.emotions, [], None, 0)})


def labeled_sampling_weight(fraction: float, target: float) -> float:
    """Sampling weight of the labeled clips, a fraction of all, that makes them the target fraction of an epoch."""
    return round(max(1.0, target * (1 - fraction) / ((1 - target) * fraction)), 2)


def outputs_of_emotions(ids: Iterable[str], logits: np.ndarray, emotions: list[str], **facts: Any) -> TeacherOutputs:
    """Outputs with logits `(N, C)` alone: without dimensions, embedding and training data."""
    names, empty = list(ids), torch.zeros(len(logits), 0)
    teacher = torch.zeros(len(logits), dtype=torch.long)
    return TeacherOutputs(
        names, torch.tensor(logits, dtype=torch.float32), empty, empty, teacher, emotions, [], **facts
    )
