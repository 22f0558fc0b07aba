"""The layers of a frozen encoder pooled over the time of a clip: features for a classifier."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def pool(states: Tensor) -> np.ndarray:
    """Layers `(L, T, H)` to `(L * 2H,)`: of each layer the means over time, then the deviations.

    The input of the first of several layers, which comes before them, is left out.
    """
    layers = (states[1:] if len(states) > 1 else states).float()
    return torch.cat([layers.mean(1), layers.std(1)], 1).flatten().numpy()
