"""What a regression makes of a model that has learnt nothing: how far a score is due to training at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from accelerate import Accelerator
from transformers import PreTrainedModel

from audio_emotion.evaluation.predictions import Predictions, predict
from audio_emotion.outputs import EmotionOutput
from audio_emotion.training.batches import Batch, batches
from audio_emotion.training.cross_fitting import log_shares
from audio_emotion.training.list_teachers import Corpus
from audio_emotion.training.order import Order
from audio_emotion.training.statistics import set_log_mel_statistics
from audio_emotion.training.streams import ClipStream
from audio_emotion.training.tables import shard_files


def random_probe(
    model: PreTrainedModel, corpus: Corpus, labelled: Sequence[str], inverse_penalty: float
) -> Predictions:
    """A logistic regression on what a student embeds before it has learnt anything, asked about the test clips.

    Args:
        model: the student; its log-mel statistics become those of the training clips.
        corpus: on its sides.
        labelled: ids of the training clips whose labels are used.
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
    fit = np.isin(said.ids, labelled) & (said.labels >= 0)
    ask = np.isin(said.ids, corpus.test["id"])
    answers = said.take(ask)
    answers.logits = log_shares(
        said.embedding[fit], said.labels[fit], said.embedding[ask], len(corpus.emotions), inverse_penalty
    )
    answers.dimensions = answers.dimension_labels = np.zeros((len(answers.ids), 0))
    return answers
