"""Benchmark the statistics: coverage, time and memory.

    python benchmarks/inference.py [--quick] [--save]

Parts:

1. Coverage of intervals over seeds.
2. CPU time compared with scipy and statsmodels, which take turns with ours. Times are medians of
   the turns with quartiles. The ratio is their time divided by ours, the median of the ratios
   within turns.
3. Time and memory of all tables of a large study, measured once.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import resource
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM
from timing import results, turns
from timing.tables import Table
from timing.turns import Action, Spread

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

from plasticity.config.models import Statistics
from plasticity.statistics import mixed_model, null_models, prediction, resampling, tables
from plasticity.statistics.merge import add_gaps
from plasticity.statistics.resampling import Draws

DRAWS = Draws(999)
OPERATORS = ("fisher", "ggn", "hessian", "ntk")
NUMBERS = (
    "effective_rank",
    "stable_rank",
    "entropy_rank",
    "epsilon_rank",
    "top_eigenvalue",
    "trace",
)
# 30 measures with the update norm
MEASURES = [
    *(f"{operator}_{number}" for operator in OPERATORS for number in NUMBERS),
    "feature_rank",
    "dead_fraction",
    "dormant_fraction",
    "weight_norm",
    "gradient_norm",
]


def print_coverage(studies: int) -> None:
    """Print how often the interval of a mean over seeds contains the true mean, which is 0."""
    random = np.random.default_rng(0)
    correlation_mean = mean_of_correlations()
    distributions: dict[str, Callable[[tuple[int, int]], np.ndarray]] = {
        "normal": lambda size: random.normal(size=size),
        "exponential": lambda size: random.exponential(size=size) - 1,
        "correlations": lambda size: (
            np.tanh(0.8 + 0.5 * random.normal(size=size)) - correlation_mean
        ),
    }
    print(f"\nCoverage of the 95 % interval of a mean over seeds, in % of {studies} studies\n")
    print("| seeds | method | normal | exponential | correlations |\n|---|---|---|---|---|")
    for seeds in (5, 8, 10, 30):
        cells = []
        for draw in distributions.values():
            low, high, method = resampling.interval(draw((studies, seeds)), DRAWS)
            is_covered = (low <= 0) & (high >= 0)
            cells.append(f"{100 * is_covered.mean():.1f}")
        print(f"| {seeds} | {method} | {' | '.join(cells)} |")


def mean_of_correlations() -> float:
    """Estimate the mean of the simulated correlations from a million draws."""
    random = np.random.default_rng(1)
    return float(np.tanh(0.8 + 0.5 * random.normal(size=10**6)).mean())


@dataclass(frozen=True)
class Contest:
    """The same number, computed by this project and by another library.

    Attributes:
        number: what is computed.
        ours: how this project computes it.
        peer: name of the other library's function.
        theirs: how the other library computes it.
    """

    number: str
    ours: Action
    peer: str
    theirs: Action


def permutation_contest(random: np.random.Generator) -> Contest:
    """Compare permutation tests of 30 seeds."""
    x, y = random.normal(size=(2, 1, 30, 100)).cumsum(axis=-1)
    pairs = null_models.crossed_correlations(
        null_models.standardized_ranks(x), null_models.standardized_ranks(y)
    )

    def mean_of_pairs(order: np.ndarray) -> float:
        return float(pairs[0, 0][np.arange(30), order.astype(int)].mean())

    return Contest(
        "p of mismatched seeds",
        lambda: resampling.permutation_test(pairs, DRAWS),
        "scipy's permutation_test",
        lambda: stats.permutation_test(
            (np.arange(30),),
            mean_of_pairs,
            permutation_type="pairings",
            vectorized=False,
            n_resamples=999,
            rng=0,
        ),
    )


def bootstrap_contest(random: np.random.Generator) -> Contest:
    """Compare BCa intervals of 30 seeds."""
    values = random.normal(size=30)
    return Contest(
        "BCa interval of a mean",
        lambda: resampling.bca(resampling.mean_over_seeds(values), 30, DRAWS),
        "scipy's bootstrap",
        lambda: stats.bootstrap((values,), np.mean, n_resamples=999, rng=0),
    )


def mixed_model_contest(random: np.random.Generator) -> Contest:
    """Compare mixed models of 30 runs."""
    x, y = random.normal(size=(2, 1, 30, 60))
    run = np.repeat(np.arange(30), 60)
    design = np.column_stack([np.ones(1800), x.ravel()])

    def fit_by_statsmodels() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            MixedLM(y.ravel(), design, run, exog_re=design).fit(reml=True)

    return Contest(
        "mixed model, 30 runs × 60 tasks",
        lambda: mixed_model.fit_slopes(x, y),
        "statsmodels' MixedLM",
        fit_by_statsmodels,
    )


def tau_contest(random: np.random.Generator) -> Contest:
    """Compare Kendall's τ of 360 checkpoints."""
    scores = random.normal(size=(100, 360))
    errors = random.normal(size=(1, 100, 360))
    seeds = np.repeat(np.arange(30), 12)
    return Contest(
        "τ of 360 checkpoints at 100 tasks",
        lambda: list(prediction.pair_sums(scores, prediction.difference_signs(errors), seeds)),
        "scipy's kendalltau",
        lambda: [
            stats.kendalltau(score, error).statistic
            for score, error in zip(scores, errors[0], strict=True)
        ],
    )


def measure_contests(number: int) -> Table:
    """Measure this project, scipy and statsmodels in a number of turns."""
    random = np.random.default_rng(0)
    rows = []
    for make_contest in (permutation_contest, bootstrap_contest, mixed_model_contest, tau_contest):
        contest = make_contest(random)
        ways = {"ours": contest.ours, "theirs": contest.theirs}
        turns.take_turns(ways, 1)  # the first calls are slower
        seconds = turns.take_turns(ways, number)
        ours, theirs = (Spread.of(values).times(1e3) for values in seconds.values())
        ratio = turns.ratios(seconds["theirs"], seconds["ours"])
        rows.append([contest.number, ours, contest.peer, theirs, ratio])
    columns = {"ours, ms": 2, "peer": 0, "peer, ms": 2, "ratio": 1}
    return Table(f"Single computations, {number} turns of CPU time", "computation", columns, rows)


def simulate_datasets(settings: int, arms: int, seeds: int, tasks: int) -> dict[str, xr.Dataset]:
    """Draw datasets of random walks, by the name of the setting."""
    random = np.random.default_rng(0)
    run = ("arm", "seed", "task")
    shape = (arms, seeds, tasks)
    coordinates = {
        "arm": ["none", *(f"method_{index}" for index in range(arms - 2)), "fresh"],
        "seed": range(seeds),
        "task": range(tasks),
        "evaluation_point": ["next"],
        "block": ["all"],
    }
    datasets = {}
    for setting in range(settings):
        variables = {}
        for name in ("final_error", "online_error", "update_norm"):
            variables[name] = (run, random.normal(size=shape).cumsum(axis=-1))
        for name in MEASURES:
            walks = random.normal(size=(*shape, 1, 1)).cumsum(axis=2)
            variables[name] = ((*run, "evaluation_point", "block"), walks)
        data = xr.Dataset(variables, coordinates)
        baseline = data.sel(arm="fresh", drop=True)
        fresh = {f"fresh_{name}": baseline[name] for name in ("final_error", "online_error")}
        datasets[f"setting_{setting}"] = add_gaps(data.assign(fresh))
    return datasets


def measure_table_costs(settings: int, arms: int, seeds: int, tasks: int) -> Table:
    """Measure the time and the memory of all tables of one study."""
    datasets = simulate_datasets(settings, arms, seeds, tasks)
    start = time.perf_counter()
    all_tables = tables.build_tables(datasets, Statistics())
    seconds = time.perf_counter() - start
    rows = sum(len(table) for table in all_tables.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    study = f"{settings} settings × {arms} arms × {seeds} seeds × {tasks} tasks"
    return Table(
        "All tables of a study with 30 measures and 3 outcomes, wall-clock time, measured once",
        "study",
        {"s": 0, "rows": 0, "GiB": 1},
        [[study, seconds, rows, peak]],
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    results.add_options(parser, "few studies and a small one")
    arguments = parser.parse_args()
    ours = results.Results(
        "inference", is_quick=arguments.quick, setup=f"numpy {np.__version__}, one thread"
    )
    print_coverage(500 if arguments.quick else 3000)
    ours.add(measure_contests(3 if arguments.quick else 11))
    if arguments.quick:
        ours.add(measure_table_costs(settings=1, arms=4, seeds=10, tasks=30))
    else:
        ours.add(measure_table_costs(settings=12, arms=12, seeds=30, tasks=100))
    ours.finish(is_saved=arguments.save)


if __name__ == "__main__":
    main()
