"""Mean absolute error (MAE) of predicted and rated values.

    MAE = mean |p - r|

In the unit of the references: 0.1 is a tenth of a scale of 0 to 1.

It stands alone: nothing of the audio-emotion package is imported, so that the file can live on the Hub.
"""

# SPDX-License-Identifier: Apache-2.0

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """
Mean absolute error (MAE) of predicted and rated values.

    MAE = mean |p - r|

In the unit of the references: 0.1 is a tenth of a scale of 0 to 1.

Range: 0 or more; 0 is agreement.
Source: Willmott & Matsuura 2005, Advantages of the mean absolute error (MAE) over the root mean square error (RMSE),
Climate Research 30, 79-82.
"""

_CITATION = r"""
@article{willmott2005advantages,
  author = {Willmott, Cort J. and Matsuura, Kenji},
  title = {Advantages of the mean absolute error (MAE) over the root mean square error (RMSE)},
  journal = {Climate Research}, volume = {30}, pages = {79--82}, year = {2005}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: one finite number a clip; with the configuration "multilist", a list of D numbers a clip.
    references: the same; NaN or None where a clip has no rating, which leaves it out, column by column.
Returns:
    mae: a float; with "multilist", a list of D floats, one a column.
    NaN without a rated clip; one rated clip is enough.
Raises:
    ValueError: for a prediction that is not finite beside a reference, and for rows of unequal length.
Examples:
    >>> metric = evaluate.load("path/to/mae")
    >>> metric.compute(predictions=[1, 2, 3], references=[2, 3, 4])
    {'mae': 1.0}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class MeanAbsoluteError(evaluate.Metric):
    """Mean absolute error."""

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
            return {"mae": [mean_absolute_error(p[known], r[known]) for p, r, known in columns]}
        return {"mae": mean_absolute_error(predicted[rated], true[rated])}


def mean_absolute_error(predicted: np.ndarray, true: np.ndarray) -> float:
    """Mean absolute error. Both `(N,)`, every clip rated."""
    return float(np.mean(np.abs(predicted - true))) if len(true) else float("nan")
