"""A linear mixed model by REML: y = a + b x + (aᵣ + bᵣ x) + e, with random intercepts and slopes per run r, correlated.

The likelihood needs of a run only XᵀX, Xᵀy and yᵀy (X = [1, x]): with V = I + X Ψ Xᵀ, XᵀV⁻¹X = G (I + Ψ G)⁻¹ for G = XᵀX, and so on. So a
fit of 360 runs takes milliseconds, where statsmodels' MixedLM, to which a test holds it, takes seconds: a study has a thousand of them.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize


@dataclass(frozen=True)
class Fit:
    """Fixed slopes of pairs of a measure and an outcome, shapes ``(measure, outcome)``.

    Attributes:
        estimate: the slope.
        error: its standard error.
        spread: standard deviation of the runs' slopes.
    """

    estimate: np.ndarray
    error: np.ndarray
    spread: np.ndarray


def slopes(x: np.ndarray, y: np.ndarray) -> Fit:
    """Fit every pair.

    Args:
        x: shape ``(measure, run, task)``, no gaps.
        y: shape ``(outcome, run, task)``.

    Returns:
        NaN where a series is constant throughout.
    """
    found = np.full((3, len(x), len(y)), np.nan)
    for m, measure in enumerate(x):
        for o, outcome in enumerate(y):
            if np.ptp(measure) > 0 and np.ptp(outcome) > 0:
                found[:, m, o] = _fit(measure, outcome)
    return Fit(*found)


def _fit(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Slope, standard error and spread of one pair, shapes ``(run, task)``; in units in which both have a spread of 1."""
    unit_x, unit_y = x.std(), y.std()
    x, y = (x - x.mean()) / unit_x, (y - y.mean()) / unit_y
    sums = np.array(
        [
            np.full(len(x), x.shape[1]),
            x.sum(axis=1),
            (x * x).sum(axis=1),
            y.sum(axis=1),
            (x * y).sum(axis=1),
            (y * y).sum(axis=1),
        ]
    )
    found = minimize(
        lambda factor: _likelihood(factor, sums)[0], [0.3, 0.0, 0.3], method="L-BFGS-B"
    )
    _, slope, error, sigma = _likelihood(found.x, sums)
    return (
        slope * unit_y / unit_x,
        error * unit_y / unit_x,
        float(np.hypot(*found.x[1:]) * sigma) * unit_y / unit_x,
    )


def _likelihood(factor: np.ndarray, sums: np.ndarray) -> tuple[float, float, float, float]:
    """−2 log restricted likelihood up to a constant, slope, its standard error and σ.

    Args:
        factor: of Ψ, the covariance of intercepts and slopes over σ²: its Cholesky factor's numbers, row by row.
        sums: of each run: n, Σx, Σx², Σy, Σxy, Σy², shape ``(6, run)``.
    """
    n, sx, sxx, sy, sxy, syy = sums
    a, b, d = factor[0] ** 2, factor[0] * factor[1], factor[1] ** 2 + factor[2] ** 2
    # H = I + GΨ of each run, and its inverse by the adjugate
    h00, h01, h10, h11 = 1 + n * a + sx * b, n * b + sx * d, sx * a + sxx * b, 1 + sx * b + sxx * d
    determinant = h00 * h11 - h01 * h10
    u, v = (h11 * sy - h01 * sxy) / determinant, (h00 * sxy - h10 * sy) / determinant  # XᵀV⁻¹y
    g00 = ((h11 * n - h01 * sx) / determinant).sum()  # XᵀV⁻¹X
    g01 = ((h11 * sx - h01 * sxx) / determinant).sum()
    g11 = ((h00 * sxx - h10 * sx) / determinant).sum()
    rest = (syy - (sy * (a * u + b * v) + sxy * (b * u + d * v))).sum()  # yᵀV⁻¹y
    u, v, information = u.sum(), v.sum(), g00 * g11 - g01**2
    intercept, slope = (g11 * u - g01 * v) / information, (g00 * v - g01 * u) / information
    freedom = n.sum() - 2
    variance = max((rest - intercept * u - slope * v) / freedom, 1e-300)
    value = freedom * np.log(variance) + np.log(determinant).sum() + np.log(information)
    return (
        float(value),
        float(slope),
        float(np.sqrt(variance * g00 / information)),
        float(np.sqrt(variance)),
    )
