"""What a regression makes of a model that has learned nothing: how far a score is due to training at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from accelerate import Accelerator
from baseline_teachers import Corpus
from cross_fitting import log_probabilities
from transformers import PreTrainedModel

from audio_emotion.data.collate import Batch, batches
from audio_emotion.data.dataset import ClipStream
from audio_emotion.data.registry import shard_files
from audio_emotion.data.sampler import Order
from audio_emotion.evaluation.predictions import Predictions, predict
from audio_emotion.layers import EmotionOutput
from audio_emotion.training.feature_cache import set_log_mel_statistics


def random_probe(
    model: PreTrainedModel, corpus: Corpus, labeled: Sequence[str], inverse_penalty: float
) -> Predictions:
    """A logistic regression on what a student embeds before it has learned anything, asked about the test clips.

    Args:
        model: the student; its log-mel statistics become those of the training clips.
        corpus: on its sides.
        labeled: ids of the training clips whose labels are used.
        inverse_penalty: scikit-learn's `C`.
    """
    accelerator = Accelerator(mixed_precision="no")
    model = model.to(accelerator.device).eval()
    stream = ClipStream(corpus.rows, shard_files(corpus.name, corpus.path))
    set_log_mel_statistics(model, ClipStream(corpus.training, stream.reader.files))

    def judge(batch: Batch) -> EmotionOutput:
        return model(batch.input_values.to(accelerator.device), batch.attention_mask.to(accelerator.device))

    each = batches(stream, Order.of(corpus.rows, 64), corpus.emotions, model.config.dimensions)
    said = predict(accelerator, judge, each)
    fit = np.isin(said.ids, labeled) & (said.labels >= 0)
    ask = np.isin(said.ids, corpus.test["id"])
    answers = said.take(ask)
    answers.logits = log_probabilities(
        said.embedding[fit], said.labels[fit], said.embedding[ask], len(corpus.emotions), inverse_penalty
    )
    answers.dimensions = answers.dimension_labels = np.zeros((len(answers.ids), 0))
    return answers
