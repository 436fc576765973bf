"""Compare a dry run of a large study with a dry run of a bare Snakefile with as many jobs.

    python benchmarks/planning.py [--quick]

The study is `studies/paper.yaml` with one seed per job. Nothing is trained. Time and peak memory
are those of one `snakemake --dry-run`. The two take turns. The best time and the highest peak of
three turns count, and the ratio of times is the median over turns.
"""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
# run Snakemake, then print the peak memory of the process in kB
SNAKEMAKE = """
import resource
from snakemake.cli import main

try:
    main()
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
BARE_SNAKEFILE = """
SEEDS = range({seeds})

rule all:
    input: "all.txt"

rule gather:
    input: expand("{{seed}}.b", seed=SEEDS)
    output: "all.txt"
    shell: "cat {{input}} > {{output}}"

rule measure:
    input: "{{seed}}.a"
    output: "{{seed}}.b"
    shell: "cp {{input}} {{output}}"

rule train:
    output: "{{seed}}.a"
    shell: "touch {{output}}"
"""


class DryRun(NamedTuple):
    """Cost of a dry run.

    Attributes:
        seconds: that it took.
        gigabytes: peak memory.
        jobs: number of planned jobs.
    """

    seconds: float
    gigabytes: float
    jobs: int


def dry_run(folder: Path, *options: str | Path) -> DryRun:
    """Measure a dry run of Snakemake in a folder."""
    command = [sys.executable, "-c", SNAKEMAKE, "--dry-run", "--quiet", "rules", "reason"]
    command += ["--cores", "2", *map(str, options)]
    start = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    jobs = re.search(r"^total +(\d+)$", done.stdout, re.MULTILINE)
    peak = re.search(r"^peak (\d+)$", done.stdout, re.MULTILINE)
    if not jobs or not peak:
        sys.exit(done.stdout)
    return DryRun(seconds, int(peak[1]) / 1e6, int(jobs[1]))


def write_study(path: Path, seeds: int) -> None:
    """Write the config of the paper study with some seeds, one per job."""
    config = yaml.safe_load((ROOT / "studies/paper.yaml").read_text())
    config["study"] = "planning"
    config["seeds"] = {"tune": 0, "report": seeds}
    config["seeds_per_job"] = 1
    path.write_text(yaml.safe_dump(config))


def print_comparison(seeds: int, turns: int) -> None:
    """Print the costs of both dry runs for a number of seeds."""
    ours = []
    bare = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_study(folder / "study.yaml", seeds)
        for _ in range(turns):
            ours.append(dry_run(ROOT, "--configfile", folder / "study.yaml"))
            # two jobs per seed, and the jobs of gather and all
            bare_seeds = ours[0].jobs // 2 - 1
            (folder / "Snakefile").write_text(BARE_SNAKEFILE.format(seeds=bare_seeds))
            bare.append(dry_run(folder))
    ratio = statistics.median(a.seconds / b.seconds for a, b in zip(ours, bare, strict=True))
    print_row(f"paper.yaml, {seeds} seeds", ours, ratio)
    print_row("  a bare Snakefile", bare, 1)


def print_row(name: str, runs: Sequence[DryRun], ratio: float) -> None:
    """Print the jobs, the best time and the highest peak of some dry runs."""
    seconds = min(run.seconds for run in runs)
    gigabytes = max(run.gigabytes for run in runs)
    numbers = f"{runs[0].jobs:9}{seconds:9.1f}{gigabytes:9.2f}{ratio:9.2f}"
    print(f"{name:36}{numbers}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one turn, three seeds")
    is_quick = parser.parse_args().quick
    print(f"{platform.platform()}, {os.cpu_count()} cores")
    print(f"\n{'a dry run of':36}{'jobs':>9}{'s':>9}{'GB':>9}{'ratio':>9}")
    for seeds in (3,) if is_quick else (30, 75):
        print_comparison(seeds, turns=1 if is_quick else 3)


if __name__ == "__main__":
    main()
