"""Baseline: logistic regression on the statistics-pooled layers of a frozen encoder.

python recipes/experiments/baseline.py --encoder openai/whisper-tiny.en --protocol ravdess-20-fixed
"""

from dataclasses import field

import numpy as np
from accelerate.utils import set_seed
from linear_classifiers import pool_states
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from audio_emotion import FusedEmotionForAudioClassification
from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.registry import apply_protocol, corpus_info, corpus_table, select_speakers
from audio_emotion.evaluation.predictions import Predictions, save_predictions
from audio_emotion.evaluation.report import control_dimensions, measure
from audio_emotion.training.arguments import argument_group, option, parse_arguments
from audio_emotion.training.feature_cache import EncoderStateCache
from audio_emotion.training.trainer_state import RunFolder

DIMENSIONS = ["activation", "valence", "dominance"]


@argument_group()
class BaselineArguments:
    """Train and test a logistic regression on a frozen encoder."""

    encoder: str = field(metadata={"help": "Hub id or folder of the encoder."})
    corpus: str = option("ravdess", "Name of the corpus.")
    protocol: str = option("ravdess-20-fixed", "Name of the protocol.")
    inverse_penalty: float = option(0.1, "scikit-learn's C.")
    output: str = option("runs/baseline_ravdess", "Run folder.")
    cache: str = option("runs/cache", "Folder of cached encoder states.")
    restart: bool = option(False, "Overwrite another run in the output folder.")


def main(args: BaselineArguments) -> dict:
    """Train on the training and validation speakers, test, and write the run folder."""
    run = RunFolder(args.output, args, restart=args.restart)
    set_seed(0)
    info = corpus_info(args.corpus)
    emotions = list(info.emotions)
    table, speakers = apply_protocol(args.corpus, corpus_table(args.corpus), args.protocol)
    model = FusedEmotionForAudioClassification.from_encoders([args.encoder], emotions=emotions)
    cache = EncoderStateCache(args.cache, model)
    cache.fill(ClipStream(table))

    def features(rows):
        return np.stack([pool_states(cache[name][0]) for name in rows["id"]])

    def labels(rows):
        return np.array([emotions.index(name) for name in rows["emotion"]])

    train, test = select_speakers(table, speakers.train + speakers.validation), select_speakers(table, speakers.test)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=args.inverse_penalty, max_iter=3000))
    classifier.fit(features(train), labels(train))
    logits = classifier.predict_log_proba(features(test))
    predictions = Predictions(
        list(test["id"]),
        np.array(test["speaker"]),
        logits,
        control_dimensions(logits, emotions),  # without a regression head, the dimensions are those of the control
        logits,
        labels(test),
        np.stack([np.array(test[name]) for name in DIMENSIONS], axis=1),
    )
    predictions.name_genders(dict(zip(test["id"], test["gender"], strict=True)))
    results = {
        "recipe": "baseline",
        "model": "logistic regression on frozen Whisper tiny.en",
        "protocol": args.protocol,
        "seed": 0,
        "parameters": int(classifier[-1].coef_.size + classifier[-1].intercept_.size),
        "test": measure(predictions, emotions, DIMENSIONS, info.dimensions_source),
    }
    save_predictions(predictions, run.path / "predictions.parquet", emotions, DIMENSIONS)
    run.results(results)
    print({key: round(value, 4) for key, value in results["test"].items() if isinstance(value, float)})
    return results


if __name__ == "__main__":
    main(parse_arguments(BaselineArguments))
