"""Expected calibration error. Works on the Hub, because it does not import the audio-emotion package."""

# SPDX-License-Identifier: Apache-2.0

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """
Expected calibration error (ECE): the mean difference between confidence and accuracy.

    ECE = sum_b  n_b / N  |accuracy_b - confidence_b|

over bins of equal width, each ((b - 1) / bins, b / bins], of the largest probability of each clip.

Range: 0 to 1; 0 is perfectly calibrated.
Source: Guo et al. 2017, On calibration of modern neural networks, https://arxiv.org/abs/1706.04599, equation 3.
"""

_CITATION = r"""
@inproceedings{guo2017calibration,
  author = {Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.},
  title = {On calibration of modern neural networks}, booktitle = {ICML}, year = {2017},
  url = {https://arxiv.org/abs/1706.04599}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: a list of C probabilities per clip, which sum to 1; not logits.
    references: integer index of the true class of each clip.
    bins: number of bins; 15 by default.
Returns:
    expected_calibration_error: a float; NaN without clips.
Raises:
    ValueError: if a row is not a probability distribution.
Examples:
    >>> metric = evaluate.load("path/to/expected_calibration_error")
    >>> metric.compute(predictions=[[0.5, 0.5], [0.9, 0.1]], references=[0, 1], bins=2)
    {'expected_calibration_error': 0.7}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ExpectedCalibrationError(evaluate.Metric):
    """Expected calibration error."""

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(features),
        )

    def _compute(self, predictions: list, references: list, bins: int = 15) -> dict[str, float]:
        if not references:
            return {"expected_calibration_error": float("nan")}
        scores, true = np.asarray(predictions, dtype=np.float64), np.asarray(references)
        if (scores < 0).any() or not np.allclose(scores.sum(axis=1), 1.0, atol=1e-3):
            raise ValueError("Expected probabilities, rows of 0 or more that sum to 1. Apply softmax to logits first.")
        confidence = scores.max(axis=1)
        gap = (scores.argmax(axis=1) == true) - confidence
        bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
        sums = np.bincount(bin_of, weights=gap, minlength=bins)
        return {"expected_calibration_error": float(np.abs(sums).sum() / len(true))}
