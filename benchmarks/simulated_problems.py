"""Measure the coverage of intervals over problems whose settings share an error.

    python benchmarks/simulated_problems.py [--quick]

Each simulated study has several problems, and each problem has several settings. The effect of a
setting is the true mean, plus an error that all settings of its problem share, plus its own error.
Each interval is computed twice: over problems, as the tables do, and over settings, as if every
setting were a problem of its own.
"""

import argparse
import os
import platform
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

from plasticity.statistics import meta_analysis, population, prediction
from plasticity.statistics.resampling import Draws

TRUE_Z = 0.3  # Fisher's z of the mean correlation
OF_PROBLEM = 0.3  # standard deviation of the error that settings of a problem share
OF_SETTING = 0.15  # standard deviation of a setting's own error
SAMPLING_ERROR = 0.1  # standard error of a setting's z, over seeds
AUC_MARGIN = 0.6  # how far the measure moves more where plasticity is lost, in standard deviations


def simulate_effects(random: np.random.Generator, problems: int, settings: int) -> pd.DataFrame:
    """Draw the effects of one study.

    Args:
        random: generator of all draws.
        problems: number of problems.
        settings: number of settings of each problem.

    Returns:
        Columns ``setting, problem, z, error, p, seeds``, a row per setting.
    """
    of_problems = OF_PROBLEM * random.normal(size=(problems, 1))
    own = np.hypot(OF_SETTING, SAMPLING_ERROR) * random.normal(size=(problems, settings))
    names = [f"p{problem}" for problem in range(problems) for _ in range(settings)]
    return pd.DataFrame(
        {
            "setting": [f"s{index}" for index in range(len(names))],
            "problem": names,
            "z": (TRUE_Z + of_problems + own).ravel(),
            "error": SAMPLING_ERROR,
            "p": np.nan,
            "seeds": 10,
        }
    )


def simulate_arms(random: np.random.Generator, problems: int, settings: int) -> pd.DataFrame:
    """Draw a table of counterexamples whose changes and fates depend on the problem.

    Returns:
        Columns ``setting, problem, measure, arm, change, verdict``: four arms per setting, with an
        AUC of Φ(`AUC_MARGIN` / √2) on average.
    """
    rows = []
    for problem in range(problems):
        is_often_lost = random.uniform(0.2, 0.8)
        shift = random.normal()
        for setting in range(settings):
            for arm in ("none", "l2", "dropout", "redo"):
                is_lost = random.random() < is_often_lost
                change = AUC_MARGIN * np.sqrt(2) * is_lost + shift + random.normal()
                rows.append(
                    {
                        "setting": f"p{problem}_{setting}",
                        "problem": f"p{problem}",
                        "measure": "weight_norm",
                        "arm": arm,
                        "change": change,
                        "verdict": "lost, …" if is_lost else "kept, …",
                    }
                )
    return pd.DataFrame(rows)


def coverage(
    studies: int, is_clustered: bool, problems: int = 10, settings: int = 4
) -> dict[str, float]:
    """Compute how often the intervals of `consistency` and `prediction` hold the true mean.

    Args:
        studies: number of simulated studies.
        is_clustered: whether the settings of a problem are known to share it.
        problems: number of problems.
        settings: number of settings of each problem.

    Returns:
        Shares of studies, by the name of the table.
    """
    covered = {"consistency": 0, "prediction": 0}
    for index in range(studies):
        effects = simulate_effects(np.random.default_rng([index, 1]), problems, settings)
        if not is_clustered:
            effects["problem"] = effects["setting"]
        row = meta_analysis.combine_effects_over_settings(effects, claimed=0, relevant=0.3)
        covered["consistency"] += row["low"] <= np.tanh(TRUE_Z) <= row["high"]
        problem_names = dict(zip(effects["setting"], effects["problem"], strict=True))
        by_setting = dict(zip(effects["setting"], effects["z"], strict=True))
        mean = prediction._mean_over_settings(by_setting, problem_names)
        covered["prediction"] += mean["low"] <= TRUE_Z <= mean["high"]
    return {name: count / studies for name, count in covered.items()}


def coverage_of_arms(
    studies: int, is_clustered: bool, problems: int = 10, settings: int = 4
) -> float:
    """Compute how often the interval of `arms` holds the AUC of very many problems."""
    many = simulate_arms(np.random.default_rng(0), 3000, settings)
    lost, kept = (
        np.sort(many.loc[many["verdict"].str.startswith(fate), "change"])
        for fate in ("lost", "kept")
    )
    truth = np.searchsorted(kept, lost).mean() / len(kept)
    covered = 0
    for index in range(studies):
        table = simulate_arms(np.random.default_rng([index, 2]), problems, settings)
        unit = "problem" if is_clustered else "setting"
        units = dict(zip(table["setting"], table[unit], strict=True))
        row = meta_analysis.rank_arms(table, units, Draws(499)).iloc[0]
        covered += row["low"] <= truth <= row["high"]
    return covered / studies


def rates_of_population(studies: int, settings: int, correlation: float) -> tuple[float, float]:
    """Compute how often the table `population` rejects, and how often its interval is right.

    Args:
        studies: number of simulated studies.
        settings: of each study; each is a pair of normal changes.
        correlation: Pearson's, of the changes. Spearman's true value is 6/π · asin(ρ/2).

    Returns:
        Shares of studies.
    """
    truth = 6 / np.pi * np.arcsin(correlation / 2)
    covariance = [[1, correlation], [correlation, 1]]
    rejected = covered = 0
    for index in range(studies):
        random = np.random.default_rng([index, settings])
        points = random.multivariate_normal([0, 0], covariance, settings)
        estimate = population.correlate(points, Draws(499))
        rejected += estimate.p <= 0.05
        covered += estimate.low <= truth <= estimate.high
    return rejected / studies, covered / studies


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few studies, at most 20 seconds")
    is_quick = parser.parse_args().quick
    studies = 50 if is_quick else 2000
    print(f"{platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}")
    print(f"\nCoverage of 95 % intervals, in % of {studies} studies\n")
    print("| problems × settings | unit | consistency | prediction | arms |\n|---|---|---|---|---|")
    for problems, settings in ((5, 4), (10, 4), (10, 1)):
        for unit, is_clustered in (("setting", False), ("problem", True)):
            rates = coverage(studies, is_clustered, problems, settings)
            cells = [f"{100 * rate:.1f}" for rate in rates.values()]
            if problems * settings >= 8 and (problems >= 8 or not is_clustered):
                of_arms = coverage_of_arms(studies // 4, is_clustered, problems, settings)
                cells.append(f"{100 * of_arms:.1f}")
            else:
                cells.append("no interval")
            print(f"| {problems} × {settings} | {unit} | {' | '.join(cells)} |", flush=True)
    studies //= 2
    print(f"\nThe table `population`: rejections / coverage, in % of {studies} studies\n")
    correlations = (0.0, 0.3, 0.5, 0.8)
    print(f"| settings | {' | '.join(f'ρ = {value}' for value in correlations)} |")
    print(f"|---|{'---|' * len(correlations)}")
    for settings in (8, 14, 30, 60):
        cells = []
        for correlation in correlations:
            rejected, covered = rates_of_population(studies, settings, correlation)
            cells.append(f"{100 * rejected:.1f} / {100 * covered:.1f}")
        print(f"| {settings} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
