"""Unweighted average recall (UAR, balanced accuracy): the mean of the classes' recalls.

    UAR = 1/C sum_c  correct_c / N_c

Every class weighs the same, however few clips it has. Only classes with a reference clip have a recall and count.

It stands alone: nothing of the audio-emotion package is imported, so that the file can live on the Hub.
"""

# SPDX-License-Identifier: Apache-2.0

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """
Unweighted average recall (UAR, balanced accuracy): the mean of the classes' recalls.

    UAR = 1/C sum_c  correct_c / N_c

Every class weighs the same, however few clips it has. Only classes with a reference clip have a recall and count.

Range: 0 to 1; chance is 1/C.
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
    uar: a float; NaN without clips.
Examples:
    >>> metric = evaluate.load("path/to/uar", "names")
    >>> metric.compute(predictions=["sad", "sad", "calm"], references=["sad", "calm", "calm"])
    {'uar': 0.75}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class UnweightedAverageRecall(evaluate.Metric):
    """Mean of the classes' recalls."""

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
        recalls = [np.mean(called[true == label] == label) for label in np.unique(true)]
        return {"uar": float(np.mean(recalls)) if recalls else float("nan")}
