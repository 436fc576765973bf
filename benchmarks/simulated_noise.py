"""Measure the coverage of correlations with a measure that has an error of estimation.

    python benchmarks/simulated_noise.py [--quick]

A relation is planted between what is particular to each run in the measure and in the outcome. Then
noise with a known standard error is added to the measure. The true correlation is the mean over
studies of the correlation with the measure before noise was added.
"""

import argparse
import os
import platform
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

from simulated_studies import simulate_study

from plasticity.statistics import null_models, reliability
from plasticity.statistics.resampling import Draws
from plasticity.statistics.setting_arrays import CompleteSeries, Variant

RELATION = 0.5
SHAPES = ("curves", "drifting noise", "random walks")
# The others repeat these, or depend on the curve that seeds share, which differs between studies.
NAMES = ("task", "differenced")
MEASURE = Variant("ggn_trace", "next", "all")


def coverage(
    shape: str, noise: float, studies: int, draws: Draws, seeds: int = 10, tasks: int = 60
) -> dict[str, tuple[float, float, float]]:
    """Compute how often raw and corrected intervals hold the true correlation.

    Args:
        shape: of the trends, see `simulated_studies`.
        noise: standard error of the measure, in standard deviations of what is particular to a run.
        studies: number of simulated studies.
        draws: of seeds.
        seeds: runs of each study.
        tasks: tasks of each run.

    Returns:
        By the name of the null model: the mean reliability, and the shares of studies in which the
        raw and the corrected interval hold the true correlation. A study whose measure is too
        coarse for a correction counts in neither share.
    """
    exact: dict[str, list[float]] = {name: [] for name in NAMES}
    rows: dict[str, list[dict[str, object]]] = {name: [] for name in NAMES}
    for index in range(studies):
        random = np.random.default_rng([index, SHAPES.index(shape)])
        x, y = simulate_study(shape, random, seeds, tasks, RELATION)
        error = noise * null_models.deviations(x).std()
        noisy = x + error * random.normal(size=x.shape)
        series = CompleteSeries(
            variants=[MEASURE],
            x=noisy,
            y=y,
            seeds=np.arange(seeds),
            tasks=np.arange(tasks),
            runs=seeds,
            errors={MEASURE: np.full((seeds, tasks), error)},
        )
        shares = reliability.reliabilities(series)
        true_estimates = null_models.compare_with_null_models(x, y, draws, relevant=0.3)
        estimates = null_models.compare_with_null_models(noisy, y, draws, relevant=0.3)
        for name in NAMES:
            exact[name].append(true_estimates[name].at(0, 0).value)
            numbers = estimates[name].at(0, 0)
            cells = reliability.columns(numbers, float(shares[name][0]))
            rows[name].append({**numbers.row(), **cells})
    return {name: _shares(rows[name], float(np.mean(exact[name]))) for name in rows}


def _shares(rows: list[dict[str, object]], truth: float) -> tuple[float, float, float]:
    """Average the reliability, and count the intervals that hold the truth."""
    columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    is_corrected = np.isfinite(columns["corrected"].astype(float))
    raw = (columns["low"] <= truth) & (truth <= columns["high"])
    corrected = (columns["corrected_low"] <= truth) & (truth <= columns["corrected_high"])
    if not is_corrected.any():
        return float(columns["reliability"].mean()), np.nan, np.nan
    return (
        float(columns["reliability"].mean()),
        float(raw[is_corrected].mean()),
        float(corrected[is_corrected].mean()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few studies, at most 20 seconds")
    studies = 20 if parser.parse_args().quick else 500
    print(f"{platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}")
    print(
        f"\nReliability, and coverage of raw / corrected 95 % intervals in % of {studies} studies\n"
    )
    print(f"| curves | noise | {' | '.join(NAMES)} |\n|---|---|{'---|' * len(NAMES)}")
    for shape in SHAPES:
        for noise in (0.3, 0.6, 1.0):
            cells = []
            for share, raw, corrected in coverage(shape, noise, studies, Draws(499)).values():
                cells.append(f"{share:.2f}: {100 * raw:.0f} / {100 * corrected:.0f}")
            print(f"| {shape} | {noise} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
