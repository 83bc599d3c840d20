"""Fits a learned selector: a small linear regression from stored statistics to the measured gain of learning
from answers. Published costs are compared with it.

It is fitted on pairs of a student and a teacher whose gain was measured by training. The features of a pair
are means over the teacher's answers under that student. Because the regression is linear, the same
coefficients give a cost of single answers (`learned` in `selection/costs.py`). It must be judged on other
students and other tasks; the caller of `fit` has to ensure that.

Shapes: N pairs, F features.
"""

import numpy as np
import pandas as pd

RIDGE = 0.1  # relative to a standardised feature's sum of squares


def fit(features: pd.DataFrame, gains: pd.Series, ridge: float = RIDGE) -> dict[str, float]:
    """Coefficients of a ridge regression of gains on standardised features. 0 for a constant feature. The
    intercept is left out, because it does not affect the order.

    Args:
        features: [N, F], by name.
        gains: [N], for example points of accuracy.

    Raises:
        ValueError: fewer than two pairs, or a number that is not finite.

    >>> x = pd.DataFrame({"mean_loss": [1.0, 2.0, 3.0], "max_loss": [5.0, 5.0, 5.0]})
    >>> fit(x, pd.Series([4.0, 2.0, 0.0]), ridge=0.0)
    {'mean_loss': -2.0, 'max_loss': 0.0}
    """
    x, y = features.to_numpy(float), gains.to_numpy(float)
    if len(x) < 2 or len(x) != len(y) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a regression needs two pairs or more, of finite numbers")
    spread = x.std(axis=0)
    moves = spread > 1e-9 * np.maximum(1.0, np.abs(x).max(axis=0))
    z = (x[:, moves] - x[:, moves].mean(axis=0)) / spread[moves]
    fitted = np.linalg.solve(z.T @ z + ridge * len(z) * np.eye(z.shape[1]), z.T @ (y - y.mean()))
    coefficients = np.zeros(x.shape[1])
    coefficients[moves] = fitted / spread[moves]
    return dict(zip(map(str, features.columns), coefficients.round(12).tolist(), strict=True))
