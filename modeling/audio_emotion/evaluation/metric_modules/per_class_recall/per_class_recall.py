"""Recall of each class: the share of its clips that were called it.

    recall_c = correct_c / N_c

Their mean is the UAR.

It stands alone: nothing of the audio-emotion package is imported, so that the file can live on the Hub.
"""

# SPDX-License-Identifier: Apache-2.0

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """
Recall of each class: the share of its clips that were called it.

    recall_c = correct_c / N_c

Their mean is the UAR.

Range: 0 to 1 each.
Source: Schuller et al. 2009, The INTERSPEECH 2009 emotion challenge.
"""

_CITATION = r"""
@inproceedings{schuller2009interspeech,
  author = {Schuller, Bj{\"o}rn and Steidl, Stefan and Batliner, Anton},
  title = {The {INTERSPEECH} 2009 emotion challenge}, booktitle = {Interspeech}, pages = {312--315}, year = {2009}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: one class a clip, an integer; with the configuration "names", a string.
    references: the same.
Returns:
    per_class_recall: a dict from class to float, over the classes in predictions or references in sorted order;
    NaN for a class without a reference clip; empty without clips.
Examples:
    >>> metric = evaluate.load("path/to/per_class_recall", "names")
    >>> metric.compute(predictions=["sad", "sad", "calm"], references=["sad", "calm", "calm"])
    {'per_class_recall': {'calm': 0.5, 'sad': 1.0}}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class PerClassRecall(evaluate.Metric):
    """Recall of each class."""

    def _info(self) -> evaluate.MetricInfo:
        feature = datasets.Value("string" if self.config_name == "names" else "int64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": feature, "references": feature}),
        )

    def _compute(self, predictions: list, references: list) -> dict:
        called, true = np.asarray(predictions), np.asarray(references)
        return {
            "per_class_recall": {
                label.item(): float(np.mean(called[true == label] == label)) if (true == label).any() else float("nan")
                for label in np.union1d(called, true)
            }
        }
