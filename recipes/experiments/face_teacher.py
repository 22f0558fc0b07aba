"""A teacher that sees: a classifier on facial action units, cross-fitted, for students that hear.

    python recipes/experiments/face_teacher.py --config recipes/configs/face_teacher_ravdess.yaml

It reads the action units of RAVDESS's own takes (`ravdess_faces/action_units.csv`), and writes its scores and
`teacher_outputs/` in the same form as `train_teacher.py`: logits, standardized action units as embedding. A clip
without a face is masked. The synthetic corpus has no faces: what its labels say, with noise, stands in for one.
"""

from dataclasses import dataclass, field

import numpy as np
from cross_fitting import as_predictions, cross_fitted
from datasets import Dataset
from huggingface_hub.dataclasses import strict
from speaker_normalization import by_speaker

from audio_emotion.data.corpora import ravdess
from audio_emotion.data.label_subset import labeled_clips
from audio_emotion.data.registry import corpus_info, corpus_table, select_speakers, sides
from audio_emotion.evaluation.predictions import save_predictions
from audio_emotion.evaluation.report import measure
from audio_emotion.training.arguments import parse_arguments
from audio_emotion.training.trainer_state import RunFolder


@strict
@dataclass(kw_only=True)
class FaceTeacherArguments:
    """What one run needs."""

    output: str = field(default="runs/face_teacher", metadata={"help": "Run folder."})
    corpus: str = field(default="ravdess", metadata={"help": "ravdess or synthetic."})
    corpus_path: str = field(default="", metadata={"help": "Its folder; else $AUDIO_EMOTION_DATA/<corpus>."})
    corpus_count: int = field(default=600, metadata={"help": "Clips of the synthetic corpus."})
    faces: str = field(default="", metadata={"help": "CSV of action units; else that of $AUDIO_EMOTION_DATA."})
    split: str = field(default="", metadata={"help": "Speaker split by name; else the corpus's own."})
    train_on_validation: bool = field(default=False, metadata={"help": "Train on the validation speakers too."})
    labeled: float = field(default=1.0, metadata={"help": "Share of training clips whose labels are used."})
    labeled_list: str = field(default="", metadata={"help": "File with a clip id a line: they are used instead."})
    cross_fit: int = field(default=4, metadata={"help": "Classifiers for the training speakers."})
    by_speaker: bool = field(
        default=False, metadata={"help": "See clips as they differ from the speaker's others, unlabeled."}
    )
    inverse_penalty: float = field(default=0.1, metadata={"help": "scikit-learn's C."})
    restart: bool = field(default=False, metadata={"help": "Write over what another run has left in `output`."})
    seed: int = field(default=0, metadata={"help": "Of the choice of labels."})


def main(args: FaceTeacherArguments) -> dict:
    """Fit, test and write the run folder; returns what stands in `results.json`."""
    run = RunFolder(args.output, args, resume=True, restart=args.restart)
    if run.finished is not None:
        return run.finished
    info = corpus_info(args.corpus)
    emotions = list(info.emotions)
    table = corpus_table(args.corpus, args.corpus_path or None, args.corpus_count)
    table, speakers = sides(args.corpus, table, args.split, args.corpus_path or None)
    train_speakers = speakers.train + (speakers.validation if args.train_on_validation else ())
    labeled = labeled_clips(select_speakers(table, train_speakers)["id"], args.labeled, args.labeled_list, args.seed)

    seen = what_faces_show(args.corpus, table, args.faces)
    if args.by_speaker:
        seen = by_speaker(seen, table["speaker"])
    said = cross_fitted(
        table,
        seen,
        train_speakers,
        labeled,
        emotions,
        args.cross_fit,
        args.inverse_penalty,
        name="face",
        license=info.license,
    )
    said.save(run.path / "teacher_outputs")
    test = as_predictions(said, select_speakers(table, speakers.test))
    save_predictions(test, run.path / "predictions.parquet", emotions, [])
    results = {
        "recipe": "face_teacher",
        "model": "logistic regression on facial action units",
        "split": args.split or args.corpus,
        "seed": args.seed,
        "labeled": len(labeled),
        "faces": int(said.spoken.sum()),
        "parameters": (seen.shape[1] + 1) * len(emotions),
        "train_speakers": sorted(train_speakers),
        "test": measure(test, emotions, [], None),
    }
    run.results(results)
    print(f"{len(labeled)} labels, {results['faces']} of {len(table)} clips with a face: "
          f"test uar {results['test']['uar']:.3f}")  # fmt: skip
    return results


def what_faces_show(corpus: str, table: Dataset, faces: str = "") -> np.ndarray:
    """Features of the face in each clip, `(N, F)`; NaN for a clip without one.

    Raises:
        ValueError: for a corpus whose faces nobody has looked at.
    """
    if corpus.split("/")[0] == "ravdess":
        units = ravdess.action_units(faces or None)
        names = list(next(iter(units.values())))
        nothing = dict.fromkeys(names, np.nan)
        takes = [units.get(ravdess.take_of(name), nothing) for name in table["id"]]
        return np.array([[take[name] for name in names] for take in takes])
    if corpus == "synthetic":
        made_from = np.stack([np.array(table[name]) for name in ("activation", "valence", "dominance")], axis=1)
        return made_from + 0.15 * np.random.default_rng(0).standard_normal(made_from.shape)
    raise ValueError(
        f"Expected the corpus ravdess, whose action units are published, or synthetic, got {corpus!r}. Label "
        "videos with recipes/pseudo_label.py."
    )


if __name__ == "__main__":
    main(parse_arguments(FaceTeacherArguments))
