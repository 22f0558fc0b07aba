"""Pearson's correlation coefficient of predicted and rated values.

    r = cov(p, r) / (std(p) std(r))

No CCC of the same values is further from 0: what lies between the two is a wrong mean or spread.

It stands alone: nothing of the audio-emotion package is imported, so that the file can live on the Hub.
"""

# SPDX-License-Identifier: Apache-2.0

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """
Pearson's correlation coefficient of predicted and rated values.

    r = cov(p, r) / (std(p) std(r))

No CCC of the same values is further from 0: what lies between the two is a wrong mean or spread.

Range: -1 to 1; blind to shift and scale.
Source: Pearson 1895, Note on regression and inheritance in the case of two parents, Proc. R. Soc. Lond. 58,
240-242.
"""

_CITATION = r"""
@article{pearson1895note,
  author = {Pearson, Karl}, title = {Note on regression and inheritance in the case of two parents},
  journal = {Proceedings of the Royal Society of London}, volume = {58}, pages = {240--242}, year = {1895}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: one finite number a clip; with the configuration "multilist", a list of D numbers a clip.
    references: the same; NaN or None where a clip has no rating, which leaves it out, column by column.
Returns:
    pearson: a float; with "multilist", a list of D floats, one a column.
    0 if predictions or references are constant, even if they are equal; NaN with fewer than two rated clips.
Raises:
    ValueError: for a prediction that is not finite beside a reference, and for rows of unequal length.
Examples:
    >>> metric = evaluate.load("path/to/pearson")
    >>> metric.compute(predictions=[1, 2, 3], references=[2, 3, 4])
    {'pearson': 1.0}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class PearsonCorrelation(evaluate.Metric):
    """Pearson's correlation coefficient."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        feature = datasets.Sequence(number) if self.config_name == "multilist" else number
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": feature, "references": feature}),
        )

    def _compute(self, predictions: list, references: list) -> dict[str, float | list[float]]:
        predicted, true = np.asarray(predictions, dtype=np.float64), np.asarray(references, dtype=np.float64)
        if predicted.shape != true.shape:
            raise ValueError(f"Expected rows of equal length, got {predicted.shape} and {true.shape}.")
        rated = ~np.isnan(true)
        if not np.isfinite(predicted[rated]).all():
            raise ValueError("Expected a finite prediction for every rated clip, got NaN or infinity. Mend the model.")
        if predicted.ndim == 2:
            columns = zip(predicted.T, true.T, rated.T, strict=True)
            return {"pearson": [pearson_correlation(p[known], r[known]) for p, r, known in columns]}
        return {"pearson": pearson_correlation(predicted[rated], true[rated])}


def pearson_correlation(predicted: np.ndarray, true: np.ndarray) -> float:
    """Pearson's correlation coefficient. Both `(N,)`, every clip rated."""
    if len(true) < 2:
        return float("nan")
    if np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return 0.0
    covariance = np.mean((predicted - predicted.mean()) * (true - true.mean()))
    return float(np.clip(covariance / (predicted.std() * true.std()), -1.0, 1.0))
