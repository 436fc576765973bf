"""A linear mixed model, fitted by restricted maximum likelihood (REML).

    y = a + b x + (aᵣ + bᵣ x) + e

Intercepts aᵣ and slopes bᵣ of the runs r are random and correlated. The likelihood needs only XᵀX,
Xᵀy and yᵀy of each run, where X = [1, x]. With V = I + X Ψ Xᵀ and G = XᵀX, for example,
XᵀV⁻¹X = G (I + Ψ G)⁻¹. A fit of 360 runs therefore takes milliseconds. `MixedLM` of statsmodels
takes seconds, and a study has about a thousand fits. A test compares the two.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize


@dataclass(frozen=True)
class SlopeFit:
    """Fixed slopes of all pairs of a measure and an outcome, shapes ``(measure, outcome)``.

    Attributes:
        slope: NaN where a series is constant.
        error: standard error of the slope.
        spread: standard deviation of the slopes of runs.
    """

    slope: np.ndarray
    error: np.ndarray
    spread: np.ndarray


def fit_slopes(x: np.ndarray, y: np.ndarray) -> SlopeFit:
    """Fit the model to every pair of a measure and an outcome.

    Args:
        x: measures without gaps, shape ``(measure, run, task)``.
        y: outcomes, shape ``(outcome, run, task)``.
    """
    numbers = np.full((3, len(x), len(y)), np.nan)
    for m, measure in enumerate(x):
        for o, outcome in enumerate(y):
            if np.ptp(measure) > 0 and np.ptp(outcome) > 0:
                numbers[:, m, o] = _fit_pair(measure, outcome)
    return SlopeFit(*numbers)


def _fit_pair(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Fit one pair, scaled to a standard deviation of 1.

    Args:
        x: shape ``(run, task)``.
        y: shape ``(run, task)``.

    Returns:
        The slope, its standard error and the standard deviation of the slopes of runs.
    """
    unit_x, unit_y = x.std(), y.std()
    x = (x - x.mean()) / unit_x
    y = (y - y.mean()) / unit_y
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

    def objective(factor: np.ndarray) -> float:
        return _likelihood(factor, sums)[0]

    optimum = minimize(objective, [0.3, 0.0, 0.3], method="L-BFGS-B")
    _, slope, error, sigma = _likelihood(optimum.x, sums)
    spread = float(np.hypot(*optimum.x[1:]) * sigma)
    return slope * unit_y / unit_x, error * unit_y / unit_x, spread * unit_y / unit_x


def _likelihood(factor: np.ndarray, sums: np.ndarray) -> tuple[float, float, float, float]:
    """Evaluate the restricted likelihood, with fixed effects and σ at their optimum.

    Args:
        factor: entries of the lower Cholesky factor of Ψ, row by row. Ψ is the covariance of random
            intercepts and slopes, divided by σ².
        sums: n, Σx, Σx², Σy, Σxy and Σy² of each run, shape ``(6, run)``.

    Returns:
        −2 log likelihood up to a constant, the slope, its standard error and σ.
    """
    n, sx, sxx, sy, sxy, syy = sums
    # Ψ = [[a, b], [b, d]]
    a = factor[0] ** 2
    b = factor[0] * factor[1]
    d = factor[1] ** 2 + factor[2] ** 2
    # H = I + G Ψ of each run, inverted by its adjugate
    h00 = 1 + n * a + sx * b
    h01 = n * b + sx * d
    h10 = sx * a + sxx * b
    h11 = 1 + sx * b + sxx * d
    determinant = h00 * h11 - h01 * h10
    # Xᵀ V⁻¹ y of each run
    u = (h11 * sy - h01 * sxy) / determinant
    v = (h00 * sxy - h10 * sy) / determinant
    # Xᵀ V⁻¹ X of all runs
    g00 = ((h11 * n - h01 * sx) / determinant).sum()
    g01 = ((h11 * sx - h01 * sxx) / determinant).sum()
    g11 = ((h00 * sxx - h10 * sx) / determinant).sum()
    # yᵀ V⁻¹ y of all runs
    y_v_y = (syy - (sy * (a * u + b * v) + sxy * (b * u + d * v))).sum()
    u = u.sum()
    v = v.sum()
    information = g00 * g11 - g01**2
    intercept = (g11 * u - g01 * v) / information
    slope = (g00 * v - g01 * u) / information
    freedom = n.sum() - 2
    variance = max((y_v_y - intercept * u - slope * v) / freedom, 1e-300)
    value = freedom * np.log(variance) + np.log(determinant).sum() + np.log(information)
    error = np.sqrt(variance * g00 / information)
    return float(value), float(slope), float(error), float(np.sqrt(variance))
