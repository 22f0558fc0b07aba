"""Cross-fitted face teacher on RAVDESS: logistic regression on published facial action units.

    python recipes/experiments/face_teacher.py --config recipes/configs/face_teacher_ravdess.yaml

Reads `ravdess_faces/action_units.csv` and writes scores and `teacher_outputs/` in the format of `train_teacher.py`:
logits, and standardized action units as embedding. Clips without a face are masked. On the synthetic corpus, which has
no faces, the features are the rated dimensions with noise.
"""

import numpy as np
from datasets import Dataset
from linear_classifiers import as_predictions, cross_fit, normalize_by_speaker

from audio_emotion.data.corpora import ravdess
from audio_emotion.data.registry import apply_protocol, corpus_info, corpus_table, select_speakers
from audio_emotion.data.training_set import labeled_clips
from audio_emotion.evaluation.predictions import save_predictions
from audio_emotion.evaluation.report import measure
from audio_emotion.training.arguments import CorpusArguments, argument_group, option, parse_arguments
from audio_emotion.training.trainer_state import RunFolder


@argument_group()
class FaceTeacherArguments(CorpusArguments):
    """Train a cross-fitted face teacher on action units."""

    output: str = option("runs/face_teacher", "Run folder.")
    corpus: str = option("ravdess", "ravdess or synthetic.")
    faces: str = option("", "CSV file of action units. Empty: the one in $AUDIO_EMOTION_DATA.")
    protocol: str = option("", "Name of the protocol. Empty: the corpus's default.")
    train_on_validation: bool = option(False, "Train on the validation speakers too.")
    labeled_list: str = option("", "File with a clip id per line: use the labels of these only.")
    cross_fit: int = option(4, "Number of folds of the training speakers.")
    by_speaker: bool = option(False, "Standardize features per speaker, without labels.")
    inverse_penalty: float = option(0.1, "scikit-learn's C.")
    restart: bool = option(False, "Overwrite another run in `--output`.")


def main(args: FaceTeacherArguments) -> dict:
    """Train, test and write the run folder; returns the content of `results.json`."""
    run = RunFolder(args.output, args, resume=True, restart=args.restart)
    if run.finished is not None:
        return run.finished
    info = corpus_info(args.corpus)
    emotions = list(info.emotions)
    table = corpus_table(args.corpus, args.corpus_path or None, args.corpus_count)
    table, speakers = apply_protocol(args.corpus, table, args.protocol, args.corpus_path or None)
    train_speakers = speakers.train + (speakers.validation if args.train_on_validation else ())
    labeled = labeled_clips(select_speakers(table, train_speakers)["id"], 1.0, args.labeled_list)

    features = face_features(args.corpus, table, args.faces)
    if args.by_speaker:
        features = normalize_by_speaker(features, table["speaker"])
    outputs = cross_fit(
        table,
        features,
        train_speakers,
        labeled,
        emotions,
        args.cross_fit,
        args.inverse_penalty,
        name="face",
        license=info.license,
    )
    outputs.save(run.path / "teacher_outputs")
    test = as_predictions(outputs, select_speakers(table, speakers.test))
    save_predictions(test, run.path / "predictions.parquet", emotions, [])
    results = {
        "recipe": "face_teacher",
        "model": "logistic regression on facial action units",
        "protocol": args.protocol or args.corpus,
        "seed": 0,
        "labeled": len(labeled),
        "faces": int(outputs.has_output.sum()),
        "parameters": (features.shape[1] + 1) * len(emotions),
        "train_speakers": sorted(train_speakers),
        "test": measure(test, emotions, [], None),
    }
    run.results(results)
    faces = f"{results['faces']} of {len(table)} clips with a face"
    print(f"{len(labeled)} labels, {faces}: test uar {results['test']['uar']:.3f}")
    return results


def face_features(corpus: str, table: Dataset, faces: str = "") -> np.ndarray:
    """Features of the face in each clip, `(N, F)`; NaN for a clip without a face."""
    if corpus.split("/")[0] == "ravdess":
        units = ravdess.action_units(faces or None)
        names = list(next(iter(units.values())))
        unknown = dict.fromkeys(names, np.nan)
        takes = [units.get(ravdess.take_of(name), unknown) for name in table["id"]]
        return np.array([[take[name] for name in names] for take in takes])
    if corpus == "synthetic":
        dimensions = np.stack([np.array(table[name]) for name in ("activation", "valence", "dominance")], axis=1)
        return dimensions + 0.15 * np.random.default_rng(0).standard_normal(dimensions.shape)
    raise ValueError(
        f"Expected the corpus ravdess, whose action units are published, or synthetic, got {corpus!r}. Label "
        "videos with recipes/pseudo_label.py."
    )


if __name__ == "__main__":
    main(parse_arguments(FaceTeacherArguments))
