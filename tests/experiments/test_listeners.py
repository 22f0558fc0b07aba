"""Agreement of single listeners is that of each with the mean of the others."""

import numpy as np
import pytest
from listeners import agreement


def test_agreement_is_the_mean_over_listeners():
    random = np.random.default_rng(0)
    ratings = random.uniform(size=(50, 1)) + random.normal(0, 0.1, (50, 3))
    expected = [np.corrcoef(ratings[:, one], ratings[:, [two, three]].mean(1))[0, 1] for one, two, three in
                ((0, 1, 2), (1, 0, 2), (2, 0, 1))]  # fmt: skip
    assert agreement(ratings)["pearson"] == pytest.approx(np.mean(expected))
    assert agreement(np.repeat(ratings[:, :1], 3, axis=1))["ccc"] == pytest.approx(1.0)
