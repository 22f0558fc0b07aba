"""Concordance correlation coefficient. Works on the Hub, because it does not import the audio-emotion package."""

# SPDX-License-Identifier: Apache-2.0

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """
Concordance correlation coefficient (CCC) of predicted and rated values, with population moments.

    CCC = 2 cov(p, r) / (var(p) + var(r) + (mean(p) - mean(r))^2)

Moments are divided by N and computed once over the whole set: the mean of the CCCs of batches is another, lower
number.

Range: -1 to 1; 1 is agreement; unlike Pearson's coefficient it falls when predictions are shifted or scaled.
Source: Lin 1989, A concordance correlation coefficient to evaluate reproducibility, Biometrics 45(1), 255-268.
"""

_CITATION = r"""
@article{lin1989concordance,
  author = {Lin, Lawrence I-Kuei}, title = {A concordance correlation coefficient to evaluate reproducibility},
  journal = {Biometrics}, volume = {45}, number = {1}, pages = {255--268}, year = {1989}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: one finite number per clip; with the configuration "multilist", a list of D numbers per clip.
    references: the same; NaN or None where a clip has no rating, which leaves it out, column by column.
Returns:
    ccc: a float; with "multilist", a list of D floats, one per column.
    0 if predictions or references are constant, even if they are equal; NaN with fewer than two rated clips.
Raises:
    ValueError: for a prediction that is not finite beside a reference, and for rows of unequal length.
Examples:
    >>> metric = evaluate.load("path/to/ccc")
    >>> metric.compute(predictions=[1, 2, 3], references=[2, 3, 4])
    {'ccc': 0.5714285714285715}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ConcordanceCorrelation(evaluate.Metric):
    """Lin's concordance correlation coefficient."""

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
            raise ValueError(
                "Expected a finite prediction for every rated clip, got NaN or infinity. Correct the model."
            )
        if predicted.ndim == 2:
            columns = zip(predicted.T, true.T, rated.T, strict=True)
            return {"ccc": [concordance_correlation(p[known], r[known]) for p, r, known in columns]}
        return {"ccc": concordance_correlation(predicted[rated], true[rated])}


def concordance_correlation(predicted: np.ndarray, true: np.ndarray) -> float:
    """Lin's concordance correlation coefficient. Both `(N,)`, every clip rated."""
    if len(true) < 2:
        return float("nan")
    if np.ptp(predicted) == 0 or np.ptp(true) == 0:  # not variance == 0: that of equal floats may differ from 0
        return 0.0
    covariance = np.mean((predicted - predicted.mean()) * (true - true.mean()))
    return float(2 * covariance / (predicted.var() + true.var() + (predicted.mean() - true.mean()) ** 2))
