"""The baseline of every table: a frozen encoder, mean and deviation over time of its layers, logistic regression.

python recipes/experiments/baseline.py --encoder $AUDIO_EMOTION_DATA/encoders/whisper-tiny.en --split ravdess-20-fixed
"""

import argparse

import numpy as np
from accelerate.utils import set_seed
from pooled_states import pool
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from audio_emotion import FusedEmotionForAudioClassification
from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.registry import corpus_info, corpus_table, select_speakers, sides
from audio_emotion.evaluation.predictions import Predictions, save_predictions
from audio_emotion.evaluation.report import control_dimensions, measure
from audio_emotion.training.feature_cache import EncoderStates
from audio_emotion.training.trainer_state import RunFolder

DIMENSIONS = ["activation", "valence", "dominance"]


def main(args: argparse.Namespace) -> dict:
    """Fit on training and validation speakers, test, write `results.json`."""
    set_seed(0)
    emotions = list(corpus_info(args.corpus).emotions)
    table, speakers = sides(args.corpus, corpus_table(args.corpus), args.split)
    model = FusedEmotionForAudioClassification.from_encoders([args.encoder], emotions=emotions)
    cache = EncoderStates(args.cache, model)
    cache.fill(ClipStream(table))

    def features(rows):
        return np.stack([pool(cache[name][0]) for name in rows["id"]])

    def labels(rows):
        return np.array([emotions.index(name) for name in rows["emotion"]])

    train, test = select_speakers(table, speakers.train + speakers.validation), select_speakers(table, speakers.test)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=args.inverse_penalty, max_iter=3000))
    classifier.fit(features(train), labels(train))
    logits = classifier.predict_log_proba(features(test))
    targets = np.stack([np.array(test[name]) for name in DIMENSIONS], axis=1)
    # It has no regression head: its dimensions are the control itself.
    predictions = Predictions(
        list(test["id"]),
        np.array(test["speaker"]),
        logits,
        control_dimensions(logits, emotions),
        logits,
        labels(test),
        targets,
    )
    results = {
        "recipe": "baseline",
        "model": "logistic regression on frozen Whisper tiny.en",
        "split": args.split,
        "seed": 0,
        "parameters": int(classifier[-1].coef_.size + classifier[-1].intercept_.size),
        "test": measure(predictions, emotions, DIMENSIONS, corpus_info(args.corpus).dimensions_source),
    }
    run = RunFolder(args.output, argparse_dataclass(args))
    run.results(results)
    predictions.name_genders(dict(zip(test["id"], test["gender"], strict=True)))
    save_predictions(predictions, run.path / "predictions.parquet", emotions, list(DIMENSIONS))
    print({key: round(value, 4) for key, value in results["test"].items() if isinstance(value, float)})
    return results


def argparse_dataclass(args: argparse.Namespace):
    """The namespace as a dataclass instance, for `config.yaml`."""
    from dataclasses import make_dataclass

    return make_dataclass("BaselineArguments", [(name, type(value)) for name, value in vars(args).items()])(
        **vars(args)
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True, help="Hub id or folder")
    parser.add_argument("--corpus", default="ravdess")
    parser.add_argument("--split", default="ravdess-20-fixed")
    parser.add_argument("--inverse_penalty", type=float, default=0.1, help="scikit-learn's C")
    parser.add_argument("--output", default="runs/baseline_ravdess")
    parser.add_argument("--cache", default="runs/cache")
    main(parser.parse_args())
