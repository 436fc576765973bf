"""Studies whose truth is known, to hold the tests to: how often they find what is not there, and what is.

The measure and the outcome of a run share nothing but what all runs share: a curve over tasks, of whatever shape. A relation is planted
into what is a run's own.
"""

from collections.abc import Callable, Mapping

import numpy as np
from scipy import stats

from plasticity.statistics import lead_lag, null_models
from plasticity.statistics.associations import pooled
from plasticity.statistics.resampling import Draws

SHAPES = (
    "curves",
    "steep curves",
    "drifting noise",
    "random walks",
    "curves and walks",
    "unequal severity",
    "unequal timing",
)
Series = tuple[np.ndarray, np.ndarray]
Test = Callable[[np.ndarray, np.ndarray, Draws], float]
SURE = 0.05


def study(
    shape: str, draw: np.random.Generator, seeds: int, tasks: int, relation: float = 0.0
) -> Series:
    """One arm's measure and outcome, shapes ``(1, seed, task)``.

    Args:
        shape: of the trends, one of `SHAPES`.
        draw: of everything.
        seeds: runs.
        tasks: of each.
        relation: correlation of what is the outcome's own with what is the measure's own.
    """
    x, y = (_series(shape, draw, seeds, tasks) for _ in range(2))
    if relation:
        own, other = null_models.deviations(y), null_models.deviations(x)
        mixture = relation * other / other.std() + np.sqrt(1 - relation**2) * own / own.std()
        y = y - own + mixture * own.std()
    return x[None], y[None]


def _series(shape: str, draw: np.random.Generator, seeds: int, tasks: int) -> np.ndarray:
    """One quantity of an arm's runs, shape ``(seed, task)``."""
    index, noise = np.arange(tasks), draw.normal(size=(seeds, tasks))
    curve = 5 * (1 - np.exp(-index / draw.uniform(3, 30)))
    walks = noise.cumsum(axis=1)
    match shape:
        case "curves":
            return np.asarray(curve + noise)
        case "steep curves":
            return np.asarray(curve + 0.2 * noise)
        case "drifting noise":
            weights = 0.9 ** np.arange(tasks)
            return np.asarray(
                curve + np.array([np.convolve(one, weights)[:tasks] for one in noise])
            )
        case "random walks":
            return np.asarray(0.3 * index + walks)
        case "curves and walks":
            return np.asarray(curve + 0.3 * walks)
        case "unequal severity":
            return np.asarray(np.exp(0.5 * draw.normal(size=(seeds, 1))) * curve + 0.5 * noise)
    return np.asarray(5 * (1 - np.exp(-index / draw.lognormal(2.3, 0.5, (seeds, 1)))) + 0.3 * noise)


def naive_run(x: np.ndarray, y: np.ndarray, draws: Draws) -> float:
    """Spearman's own p over the tasks of one run."""
    return float(stats.spearmanr(x[0, 0], y[0, 0]).pvalue)


def naive_seeds(x: np.ndarray, y: np.ndarray, draws: Draws) -> float:
    """A t test over seeds of the correlations within runs: what a careful author would do."""
    return float(
        stats.ttest_1samp(
            null_models.matched(null_models.ranked(x), null_models.ranked(y))[0, 0], 0
        ).pvalue
    )


def naive_partial(x: np.ndarray, y: np.ndarray, draws: Draws) -> float:
    """The same of the partial correlations given the task's index, as a straight line."""
    first, second, index = (
        null_models.ranked(x)[0],
        null_models.ranked(y)[0],
        null_models.standardised(np.arange(x.shape[-1], dtype=float)),
    )
    a, b = first @ index, second @ index
    return float(
        stats.ttest_1samp(
            ((first * second).sum(axis=-1) - a * b) / np.sqrt((1 - a**2) * (1 - b**2)), 0
        ).pvalue
    )


def naive_differences(x: np.ndarray, y: np.ndarray, draws: Draws) -> float:
    """The same of correlations of first differences, the shared curve left in."""
    return naive_seeds(np.diff(x), np.diff(y), draws)


def _null(name: str) -> Test:
    return lambda x, y, draws: float(np.asarray(null_models.nulls(x, y, draws)[name]["p"])[0, 0])


def _question(name: str) -> Test:
    return lambda x, y, draws: float(
        np.asarray(lead_lag.asked(x, y, np.arange(x.shape[-1]), draws)[name]["p"])[0, 0]
    )


def _pooled(x: np.ndarray, y: np.ndarray, draws: Draws) -> float:
    return float(pooled([x], [y])["p"][0, 0])


NAIVE: dict[str, Test] = {
    "Spearman within one run": naive_run,
    "t test over seeds of correlations within runs": naive_seeds,
    "… of partial correlations, the task's index a straight line": naive_partial,
    "… of first differences, the shared curve left in": naive_differences,
}
TESTS: dict[str, Test] = {f"null: {name}": _null(name) for name in null_models.NULLS} | {
    "mixed model": _pooled,
    "lead and lag: cross-correlation": _question("cross_correlation"),
    "lead and lag: Granger, measure first": _question("measure_first"),
    "lead and lag: Granger, outcome first": _question("outcome_first"),
}


def rejections(
    tests: Mapping[str, Test],
    shape: str,
    studies: int,
    draws: Draws,
    seeds: int = 10,
    tasks: int = 60,
    relation: float = 0.0,
) -> dict[str, float]:
    """Share of simulated studies in which each test rejects at the 5 % level.

    Args:
        tests: those of `NAIVE` or `TESTS`.
        shape: of the trends.
        studies: how many.
        draws: of seeds, for permutations.
        seeds: runs of each study.
        tasks: of each run.
        relation: planted.
    """
    found = dict.fromkeys(tests, 0)
    for place in range(studies):
        x, y = study(
            shape, np.random.default_rng([place, SHAPES.index(shape)]), seeds, tasks, relation
        )
        for name, test in tests.items():
            found[name] += test(x, y, draws) <= SURE
    return {name: count / studies for name, count in found.items()}
