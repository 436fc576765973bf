"""Measure false positives and power of the tests, in simulated studies whose truth is known.

    python benchmarks/simulated_studies.py [--quick]

The measure and the outcome of a run share only a trend that all runs share, a curve over tasks. A
relation can be added to the deviations from that curve.
"""

import argparse
import os
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

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
SIGNIFICANCE = 0.05
RELATION = 0.3  # planted to measure power
# From a measure and an outcome, shapes (1, seed, task), to a p value.
Test = Callable[[np.ndarray, np.ndarray, Draws], float]


def simulate_study(
    shape: str, random: np.random.Generator, seeds: int, tasks: int, relation: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one measure and one outcome of an arm.

    Args:
        shape: of the trends, one of `SHAPES`.
        random: generator of all draws.
        seeds: number of runs.
        tasks: number of tasks of a run.
        relation: correlation between the deviations of the outcome and those of the measure.

    Returns:
        The measure and the outcome, shapes ``(1, seed, task)``.
    """
    x = _simulate_series(shape, random, seeds, tasks)
    y = _simulate_series(shape, random, seeds, tasks)
    if relation:
        y_deviations = null_models.deviations(y)
        x_deviations = null_models.deviations(x)
        x_unit = relation * x_deviations / x_deviations.std()
        y_unit = np.sqrt(1 - relation**2) * y_deviations / y_deviations.std()
        y = y - y_deviations + (x_unit + y_unit) * y_deviations.std()
    return x[None], y[None]


def _simulate_series(shape: str, random: np.random.Generator, seeds: int, tasks: int) -> np.ndarray:
    """Draw one quantity of an arm's runs, shape ``(seed, task)``."""
    index = np.arange(tasks)
    noise = random.normal(size=(seeds, tasks))
    curve = 5 * (1 - np.exp(-index / random.uniform(3, 30)))
    walks = noise.cumsum(axis=1)
    match shape:
        case "curves":
            return curve + noise
        case "steep curves":
            return curve + 0.2 * noise
        case "drifting noise":
            weights = 0.9**index
            drifts = [np.convolve(of_run, weights)[:tasks] for of_run in noise]
            return curve + np.array(drifts)
        case "random walks":
            return 0.3 * index + walks
        case "curves and walks":
            return curve + 0.3 * walks
        case "unequal severity":
            severity = np.exp(0.5 * random.normal(size=(seeds, 1)))
            return severity * curve + 0.5 * noise
        case "unequal timing":
            time_constants = random.lognormal(2.3, 0.5, (seeds, 1))
            return 5 * (1 - np.exp(-index / time_constants)) + 0.3 * noise
    raise ValueError(f"unknown shape {shape!r}; choose one of {', '.join(SHAPES)}")


def one_run(x: np.ndarray, y: np.ndarray, draws: Draws) -> float:
    """Test Spearman's correlation over the tasks of one run."""
    return float(stats.spearmanr(x[0, 0], y[0, 0]).pvalue)


def over_seeds(x: np.ndarray, y: np.ndarray, draws: Draws) -> float:
    """Test the correlations within runs by a t test over seeds, as a careful author might."""
    x_ranks = null_models.standardized_ranks(x)
    y_ranks = null_models.standardized_ranks(y)
    per_seed = null_models.matched_correlations(x_ranks, y_ranks)[0, 0]
    return float(stats.ttest_1samp(per_seed, 0).pvalue)


def partial_correlations(x: np.ndarray, y: np.ndarray, draws: Draws) -> float:
    """Test partial correlations given the task's index, as a straight line, over seeds."""
    x_ranks = null_models.standardized_ranks(x)[0]
    y_ranks = null_models.standardized_ranks(y)[0]
    index = null_models.standardize(np.arange(x.shape[-1], dtype=float))
    x_trend = x_ranks @ index
    y_trend = y_ranks @ index
    correlations = (x_ranks * y_ranks).sum(axis=-1)
    scale = np.sqrt((1 - x_trend**2) * (1 - y_trend**2))
    return float(stats.ttest_1samp((correlations - x_trend * y_trend) / scale, 0).pvalue)


def differences(x: np.ndarray, y: np.ndarray, draws: Draws) -> float:
    """Test correlations of first differences, which still contain the shared curve, over seeds."""
    return over_seeds(np.diff(x), np.diff(y), draws)


def _null_model_test(name: str) -> Test:
    def test(x: np.ndarray, y: np.ndarray, draws: Draws) -> float:
        return null_models.compare_with_null_models(x, y, draws, RELATION)[name].at(0, 0).p

    return test


def _lead_lag_test(question: str) -> Test:
    def test(x: np.ndarray, y: np.ndarray, draws: Draws) -> float:
        answers = lead_lag.answer_questions(x, y, np.arange(x.shape[-1]), draws, RELATION)
        return answers[question].estimate.at(0, 0).p

    return test


def _mixed_model_test(x: np.ndarray, y: np.ndarray, draws: Draws) -> float:
    return pooled([x], [y]).at(0, 0).p


NAIVE: dict[str, Test] = {
    "Spearman within one run": one_run,
    "t test over seeds of correlations within runs": over_seeds,
    "… of partial correlations, the task's index a straight line": partial_correlations,
    "… of first differences, the shared curve left in": differences,
}
TESTS: dict[str, Test] = {
    **{f"null: {name}": _null_model_test(name) for name in null_models.NULL_MODELS},
    "mixed model": _mixed_model_test,
    "lead and lag: cross-correlation": _lead_lag_test("cross_correlation"),
    "lead and lag: Granger, measure first": _lead_lag_test("measure_first"),
    "lead and lag: Granger, outcome first": _lead_lag_test("outcome_first"),
}


def rejection_rates(
    tests: Mapping[str, Test],
    shape: str,
    studies: int,
    draws: Draws,
    seeds: int = 10,
    tasks: int = 60,
    relation: float = 0.0,
) -> dict[str, float]:
    """Compute the share of simulated studies in which each test rejects at the 5 % level.

    Args:
        tests: those of `NAIVE` or `TESTS`.
        shape: of the trends.
        studies: number of studies.
        draws: of seeds, for permutations.
        seeds: runs of each study.
        tasks: tasks of each run.
        relation: see `simulate_study`.
    """
    rejections = dict.fromkeys(tests, 0)
    for index in range(studies):
        random = np.random.default_rng([index, SHAPES.index(shape)])
        x, y = simulate_study(shape, random, seeds, tasks, relation)
        for name, test in tests.items():
            rejections[name] += test(x, y, draws) <= SIGNIFICANCE
    return {name: count / studies for name, count in rejections.items()}


def rates_and_powers(
    shape: str, studies: int, draws: Draws, seeds: int = 10, tasks: int = 60
) -> tuple[dict[str, float], dict[str, float]]:
    """Compare the power that the tables print with the share of studies that reject.

    `RELATION` is planted in what is particular to each run, and is the relevant correlation.

    Args:
        shape: of the trends.
        studies: number of studies.
        draws: of seeds, for permutations.
        seeds: runs of each study.
        tasks: tasks of each run.

    Returns:
        The rejection rate and the mean power of each test that has a power.
    """
    names = (*null_models.NULL_MODELS, "cross_correlation")
    rejections = dict.fromkeys(names, 0.0)
    powers = dict.fromkeys(names, 0.0)
    for index in range(studies):
        random = np.random.default_rng([index, SHAPES.index(shape)])
        x, y = simulate_study(shape, random, seeds, tasks, RELATION)
        estimates = null_models.compare_with_null_models(x, y, draws, RELATION)
        x_innovations, y_innovations = null_models.innovations(x), null_models.innovations(y)
        estimates["cross_correlation"] = lead_lag.cross_correlation(
            x_innovations, y_innovations, draws, RELATION
        ).estimate
        for name, estimate in estimates.items():
            rejections[name] += (estimate.at(0, 0).p <= SIGNIFICANCE) / studies
            powers[name] += estimate.at(0, 0).power / studies
    return rejections, powers


def print_powers(studies: int, seeds: int) -> None:
    """Print rates of rejection and, after a slash, mean powers, in %."""
    columns = [rates_and_powers(shape, studies, Draws(999), seeds) for shape in SHAPES]
    print(
        f"\nA relation of {RELATION} in what is a run's own: rejections / mean power, "
        f"in % of {studies} studies of {seeds} seeds × 60 tasks\n"
    )
    print(f"| test | {' | '.join(SHAPES)} |\n|---|{'---|' * len(SHAPES)}")
    for name in columns[0][0]:
        cells = [f"{100 * rates[name]:.0f} / {100 * powers[name]:.0f}" for rates, powers in columns]
        print(f"| {name} | {' | '.join(cells)} |")


def print_rejection_rates(
    title: str, tests: Mapping[str, Test], studies: int, relation: float = 0.0
) -> None:
    """Print the rate of rejections in %, a row per test and a column per shape of the trends."""
    columns = [
        rejection_rates(tests, shape, studies, Draws(999), relation=relation) for shape in SHAPES
    ]
    print(
        f"\n{title}: rejections at the 5 % level, "
        f"in % of {studies} studies of 10 seeds × 60 tasks\n"
    )
    print(f"| test | {' | '.join(SHAPES)} |\n|---|{'---|' * len(SHAPES)}")
    for name in tests:
        cells = [f"{100 * column[name]:.1f}" for column in columns]
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few studies, at most 20 seconds")
    is_quick = parser.parse_args().quick
    print(f"{platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}")
    studies = 10 if is_quick else 1000
    print_rejection_rates("No relation but a shared trend", NAIVE | TESTS, studies)
    print_rejection_rates(
        f"A relation of {RELATION} in what is a run's own",
        TESTS,
        10 if is_quick else 200,
        relation=RELATION,
    )
    for seeds in (10, 5):
        print_powers(10 if is_quick else 200, seeds)


if __name__ == "__main__":
    main()
