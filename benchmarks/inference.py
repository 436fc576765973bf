"""Statistics: how often the tests find what is not there, how often what is, and how long the tables take.

    python benchmarks/inference.py [--quick]

Parts: 1. false positives at the 5 % level under trends that runs share; 2. power at a planted relation; 3. coverage of intervals over
seeds; 4. time against scipy's and statsmodels' ways to the same numbers (one thread each, best of three, ratios last), and of all tables
of a large study.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

import argparse
import platform
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

from plasticity.config.models import Statistics
from plasticity.statistics import (
    mixed_model,
    null_models,
    prediction,
    resampling,
    simulated,
    tables,
)
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
MEASURES = [f"{operator}_{number}" for operator in OPERATORS for number in NUMBERS]
MEASURES += [
    "feature_rank",
    "dead_fraction",
    "dormant_fraction",
    "weight_norm",
    "gradient_norm",
]  # 30 with the update norm


def shares(
    title: str, tests: dict[str, simulated.Test], studies: int, relation: float = 0.0
) -> None:
    """A table of shares of rejections, in %: a row a test, a column a shape."""
    columns = [
        simulated.rejections(tests, shape, studies, DRAWS, relation=relation)
        for shape in simulated.SHAPES
    ]
    print(
        f"\n{title}: rejections at the 5 % level, in % of {studies} studies of 10 seeds × 60 tasks\n"
    )
    print(f"| test | {' | '.join(simulated.SHAPES)} |\n|---|{'---|' * len(columns)}")
    for name in tests:
        print(f"| {name} | {' | '.join(f'{100 * column[name]:.1f}' for column in columns)} |")


def coverage(studies: int) -> None:
    """How often the interval of a mean over seeds holds the truth."""
    draw = np.random.default_rng(0)
    kinds: dict[str, Callable[[tuple[int, int]], np.ndarray]] = {
        "normal": lambda size: draw.normal(size=size),
        "exponential": lambda size: draw.exponential(size=size) - 1,
        "correlations": lambda size: np.tanh(0.8 + 0.5 * draw.normal(size=size)) - CENTRE,
    }
    print(f"\nCoverage of the 95 % interval of a mean over seeds, in % of {studies} studies\n")
    print("| seeds | method | normal | exponential | correlations |\n|---|---|---|---|---|")
    for seeds in (5, 8, 10, 30):
        cells = []
        for of in kinds.values():
            low, high, how = resampling.interval(of((studies, seeds)), DRAWS)
            cells.append(f"{100 * ((low <= 0) & (high >= 0)).mean():.1f}")
        print(f"| {seeds} | {how} | {' | '.join(cells)} |")


CENTRE = float(np.tanh(0.8 + 0.5 * np.random.default_rng(1).normal(size=10**6)).mean())


def best(of: Callable[[], object]) -> float:
    """Seconds, best of three."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        of()
        times.append(time.perf_counter() - start)
    return min(times)


def peers() -> None:
    """The same numbers by scipy's and statsmodels' ways."""
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(2, 1, 30, 100)).cumsum(axis=-1)
    pairs = null_models.crossed(null_models.ranked(x), null_models.ranked(y))
    values = draw.normal(size=30)
    runs, outcomes = draw.normal(size=(2, 1, 30, 60))
    group, long = np.repeat(np.arange(30), 60), np.column_stack([np.ones(1800), runs.ravel()])
    scores, errors, seeds = (
        draw.normal(size=(100, 360)),
        draw.normal(size=(1, 100, 360)),
        np.repeat(np.arange(30), 12),
    )

    def paired(order: np.ndarray) -> float:
        return float(pairs[0, 0][np.arange(30), order.astype(int)].mean())

    def of_statsmodels() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            MixedLM(outcomes.ravel(), long, group, exog_re=long).fit(reml=True)

    ways: list[tuple[str, str, Callable[[], object], Callable[[], object]]] = [
        (
            "p of mismatched seeds",
            "scipy's permutation_test",
            lambda: resampling.permuted(pairs, DRAWS),
            lambda: stats.permutation_test(
                (np.arange(30),),
                paired,
                permutation_type="pairings",
                vectorized=False,
                n_resamples=999,
                rng=0,
            ),
        ),
        (
            "BCa interval of a mean",
            "scipy's bootstrap",
            lambda: resampling.bca(resampling.of_each(values), 30, DRAWS),
            lambda: stats.bootstrap((values,), np.mean, n_resamples=999, rng=0),
        ),
        (
            "mixed model, 30 runs × 60 tasks",
            "statsmodels' MixedLM",
            lambda: mixed_model.slopes(runs, outcomes),
            of_statsmodels,
        ),
        (
            "τ of 360 checkpoints at 100 tasks",
            "scipy's kendalltau",
            lambda: list(prediction.pairs(scores, prediction.signs(errors), seeds)),
            lambda: [
                stats.kendalltau(one, other).statistic
                for one, other in zip(scores, errors[0], strict=True)
            ],
        ),
    ]
    print("\n| what | ours, ms | peer | peer, ms | ratio |\n|---|---|---|---|---|")
    for what, peer, ours, theirs in ways:
        own, other = best(ours), best(theirs)
        print(f"| {what} | {1000 * own:.2f} | {peer} | {1000 * other:.1f} | {other / own:.1f} |")


def study(settings: int, arms: int, seeds: int, tasks: int) -> dict[str, xr.Dataset]:
    """Datasets of random walks, as large as asked for."""
    draw = np.random.default_rng(0)
    member, shape = ("arm", "seed", "task"), (arms, seeds, tasks)
    names = ["none", *(f"method_{place}" for place in range(arms - 2)), "fresh"]
    found = {}
    for setting in range(settings):
        values = {
            name: (member, draw.normal(size=shape).cumsum(axis=-1))
            for name in ("final_error", "online_error", "update_norm")
        }
        values |= {
            name: (
                (*member, "evaluation_point", "block"),
                draw.normal(size=(*shape, 1, 1)).cumsum(axis=2),
            )
            for name in MEASURES
        }
        data = xr.Dataset(
            values,
            {
                "arm": names,
                "seed": range(seeds),
                "task": range(tasks),
                "evaluation_point": ["next"],
                "block": ["all"],
            },
        )
        fresh = {
            f"fresh_{name}": data[name].sel(arm="fresh", drop=True)
            for name in ("final_error", "online_error")
        }
        found[f"setting_{setting}"] = data.assign(fresh)
    return found


def large(*sizes: int) -> None:
    """Time and memory of all tables of one study."""
    datasets = study(*sizes)
    start = time.perf_counter()
    made = tables.tables(datasets, Statistics())
    took, rows = time.perf_counter() - start, sum(map(len, made.values()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    words = " × ".join(
        f"{size} {name}"
        for size, name in zip(sizes, ("settings", "arms", "seeds", "tasks"), strict=True)
    )
    print(
        f"\nAll tables of {words} × 30 measures × 3 outcomes: {took:.0f} s, {rows} rows, peak memory {peak:.1f} GiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="few studies and a small one, in under a minute"
    )
    quick = parser.parse_args().quick
    print(f"{platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}")
    studies = 20 if quick else 1000
    shares("No relation but a shared trend", simulated.NAIVE | simulated.TESTS, studies)
    shares(
        "A relation of 0.3 in what is a run's own",
        simulated.TESTS,
        max(20, studies // 5),
        relation=0.3,
    )
    coverage(500 if quick else 3000)
    large(*((1, 6, 10, 50) if quick else (12, 12, 30, 100)))
    peers()


if __name__ == "__main__":
    main()
