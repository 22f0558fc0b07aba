"""Weighted average recall (WAR, accuracy): the share of clips whose class is right.

    WAR = sum_c  N_c / N  correct_c / N_c  =  correct / N

Frequent classes weigh more: where classes are uneven, see UAR.

It stands alone: nothing of the audio-emotion package is imported, so that the file can live on the Hub.
"""

# SPDX-License-Identifier: Apache-2.0

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """
Weighted average recall (WAR, accuracy): the share of clips whose class is right.

    WAR = sum_c  N_c / N  correct_c / N_c  =  correct / N

Frequent classes weigh more: where classes are uneven, see UAR.

Range: 0 to 1.
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
    war: a float; NaN without clips.
Examples:
    >>> metric = evaluate.load("path/to/war", "names")
    >>> metric.compute(predictions=["sad", "sad", "calm"], references=["sad", "calm", "calm"])
    {'war': 0.6666666666666666}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class WeightedAverageRecall(evaluate.Metric):
    """Share of clips whose class is right."""

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
        return {"war": float(np.mean(called == true)) if len(true) else float("nan")}
