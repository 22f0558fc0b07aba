"""The teachers of one list of labels, each made when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import set_seed
from cross_fitting import as_predictions, cross_fitted
from datasets import Dataset
from pooled_states import pool
from speaker_normalization import by_speaker

from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.label_subset import percent, read_list
from audio_emotion.data.registry import corpus_info, shard_files
from audio_emotion.evaluation.predictions import Predictions, save_predictions
from audio_emotion.evaluation.report import measure
from audio_emotion.modeling_fused_emotion import FusedEmotionForAudioClassification
from audio_emotion.teachers.outputs import TeacherOutputs
from audio_emotion.training.feature_cache import EncoderStates
from audio_emotion.training.trainer_state import RunFolder


@dataclass(frozen=True)
class Corpus:
    """What the teachers and students of an experiment share.

    Attributes:
        name: of the corpus, or the file that describes it.
        path: its folder; None for its own.
        split: by name; empty for the corpus's own.
        training: rows of the speakers who train.
        test: rows of those who are tested.
        rows: of both.
        train_speakers: who trains.
        emotions: class names in logit order.
    """

    name: str
    path: str | None
    split: str
    training: Dataset
    test: Dataset
    rows: Dataset
    train_speakers: tuple[str, ...]
    emotions: list[str]


@dataclass(kw_only=True)
class ClassifierFacts:
    """What decides a classifier's numbers, for the `config.yaml` of its folder."""

    corpus: str
    split: str
    labels: str
    inverse_penalty: float
    encoder: str = ""
    cross_fit: int = 0
    by_speaker: bool = False
    seed: int = 0


class SpeechFeatures:
    """Pooled layers of a frozen encoder, computed when asked for.

    Args:
        encoder: Hub id, folder, or log-mel.
        cache: folder where its states are kept.
        corpus: whose clips are heard.
    """

    def __init__(self, encoder: str, cache: str, corpus: Corpus) -> None:
        self.encoder, self.cache, self.corpus = encoder, cache, corpus
        self._features: np.ndarray | None = None

    def __call__(self) -> np.ndarray:
        """`(N, F)` for the corpus's rows; NaN for clips that cannot be read."""
        if self._features is None:
            set_seed(0)
            corpus, names = self.corpus, self.corpus.rows["id"]
            model = FusedEmotionForAudioClassification.from_encoders([self.encoder], emotions=corpus.emotions)
            cache = EncoderStates(self.cache, model)
            cache.fill(ClipStream(corpus.rows, shard_files(corpus.name, corpus.path)))
            pooled = {name: pool(cache[name][0]) for name in names if name in cache}
            nothing = np.full_like(next(iter(pooled.values())), np.nan)
            self._features = np.stack([pooled.get(name, nothing) for name in names])
        return self._features


@dataclass
class BaselineTeachers:
    """Folders with `teacher_outputs/`, of teachers that use the labels of a list and no others.

    Attributes:
        args: of the recipe: `speech_teacher`, `encoder`, `cross_fit`, `by_speaker`, `inverse_penalty` and `restart`.
        corpus: which they speak of.
        speech_features: what the baseline is fitted on.
        make_face: makes the face teacher in a folder, by the labels of a list.
        folder: where theirs are.
        labels: file of the list.
        seed: of the list.
        fraction: of the labels that it holds.
    """

    args: Any
    corpus: Corpus
    speech_features: SpeechFeatures
    make_face: Callable[[Path, str], None]
    folder: Path
    labels: str
    seed: int
    fraction: float

    def __call__(self, name: str) -> Path:
        """Folder of `speech`, `face` or `face-shuffled`."""
        return {"speech": self.speech, "face": self.face, "face-shuffled": self.shuffled}[name]()

    def outputs(self, name: str) -> TeacherOutputs:
        """What one of them says."""
        return TeacherOutputs.load(self(name) / "teacher_outputs")

    def speech(self) -> Path:
        """The baseline, or that of a run of `train_teacher.py`."""
        args, corpus = self.args, self.corpus
        if args.speech_teacher != "baseline":
            return Path(args.speech_teacher.format(percent=percent(self.fraction), seed=self.seed))
        facts = ClassifierFacts(
            corpus=corpus.name,
            split=corpus.split,
            labels=self.labels,
            inverse_penalty=args.inverse_penalty,
            encoder=args.encoder,
            cross_fit=args.cross_fit,
            by_speaker=args.by_speaker,
        )
        run = RunFolder(self.folder / "speech", facts, resume=True, restart=args.restart)
        if run.finished is None:
            features = self.speech_features()
            said = cross_fitted(
                corpus.rows,
                by_speaker(features, corpus.rows["speaker"]) if args.by_speaker else features,
                corpus.train_speakers,
                set(read_list(self.labels)),
                corpus.emotions,
                args.cross_fit,
                args.inverse_penalty,
                name="speech",
                license=corpus_info(corpus.name).license,
            )
            said.save(run.path / "teacher_outputs")
            finish(run, as_predictions(said, corpus.test), corpus.emotions)
        return run.path

    def face(self) -> Path:
        """A classifier on what faces show."""
        self.make_face(self.folder / "face", self.labels)
        return self.folder / "face"

    def shuffled(self) -> Path:
        """The face teacher's words on the training clips, each given to another clip at random."""
        said = self.outputs("face").of(self.corpus.training["id"])
        moved = said.of(np.random.default_rng(self.seed).permutation(said.ids).tolist())
        replace(moved, ids=said.ids).save(self.folder / "face-shuffled" / "teacher_outputs")
        return self.folder / "face-shuffled"


def finish(run: RunFolder, said: Predictions, emotions: list[str]) -> None:
    """Write what the test clips were called, with the scores."""
    save_predictions(said, run.path / "predictions.parquet", emotions, [])
    run.results({"test": measure(said, emotions, [], None, 0)})
