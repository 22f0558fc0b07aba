"""Macro-F1: the mean over classes of the harmonic mean of precision and recall.

    F1 = 1/C sum_c  2 correct_c / (N_c + called_c)

The mean runs over classes in predictions or references: one that was called and never was true counts as 0.

It stands alone: nothing of the audio-emotion package is imported, so that the file can live on the Hub.
"""

# SPDX-License-Identifier: Apache-2.0

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """
Macro-F1: the mean over classes of the harmonic mean of precision and recall.

    F1 = 1/C sum_c  2 correct_c / (N_c + called_c)

The mean runs over classes in predictions or references: one that was called and never was true counts as 0.

Range: 0 to 1.
Source: van Rijsbergen 1979, Information retrieval, chapter 7.
"""

_CITATION = r"""
@book{rijsbergen1979information,
  author = {van Rijsbergen, C. J.}, title = {Information retrieval}, edition = {2}, publisher = {Butterworths},
  year = {1979}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: one class a clip, an integer; with the configuration "names", a string.
    references: the same.
Returns:
    macro_f1: a float; NaN without clips.
Examples:
    >>> metric = evaluate.load("path/to/macro_f1", "names")
    >>> metric.compute(predictions=["sad", "sad", "calm"], references=["sad", "calm", "calm"])
    {'macro_f1': 0.6666666666666666}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class MacroF1(evaluate.Metric):
    """Mean of the classes' F1 scores."""

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
        scores = [
            2 * np.sum((called == label) & (true == label)) / (np.sum(called == label) + np.sum(true == label))
            for label in np.union1d(called, true)
        ]
        return {"macro_f1": float(np.mean(scores)) if scores else float("nan")}
