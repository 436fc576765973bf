"""Compare a dry run of a large study with a dry run of a bare Snakefile with as many jobs.

    python benchmarks/planning.py [--quick] [--save]

The first study is `studies/paper.yaml` with one seed per job. The second has 100 settings, 20 arms
and 30 seeds, five per job. Nothing is trained. Seconds are CPU time of one `snakemake --dry-run`,
and memory is its peak. The two take turns. Numbers are medians of the turns with quartiles, and a
ratio is the median of the ratios within turns.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import yaml
from timing import results, turns
from timing.tables import Cell, Table
from timing.turns import Spread

ROOT = Path(__file__).resolve().parents[1]
# run Snakemake, then print the peak memory of the process in kB, and its CPU time in seconds
SNAKEMAKE = """
import resource
from snakemake.cli import main

try:
    main()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print("used", used.ru_maxrss, used.ru_utime + used.ru_stime)
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

TURNS = 5


class DryRun(NamedTuple):
    """Cost of a dry run.

    Attributes:
        seconds: of CPU time.
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
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    jobs = re.search(r"^total +(\d+)$", done.stdout, re.MULTILINE)
    used = re.search(r"^used (\d+) (\S+)$", done.stdout, re.MULTILINE)
    if not jobs or not used:
        sys.exit(done.stdout)
    return DryRun(float(used[2]), int(used[1]) / 1e6, int(jobs[1]))


def write_paper(path: Path, seeds: int) -> None:
    """Write the config of the paper study with some seeds, one per job."""
    config = yaml.safe_load((ROOT / "studies/paper.yaml").read_text())
    config["study"] = "planning"
    config["seeds"] = {"tune": 0, "report": seeds}
    config["seeds_per_job"] = 1
    path.write_text(yaml.safe_dump(config))


def write_large(path: Path, settings: int) -> None:
    """Write a config with 20 arms, each of a method of its own, and 30 seeds."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    setting = config["settings"]["digits_labels_relu"]
    config["study"] = "planning"
    config["settings"] = {f"setting_{index:03}": setting for index in range(settings)}
    config["seeds"] = {"tune": 0, "report": 30}
    config["methods"] = {"none": {}}
    for name in ("l2", "l2_init", "wasserstein", "weight_decay", "spectral", "parseval"):
        strength = {f"{name}.strength": 0.001}
        config["methods"][name] = {"strength": 0.001}
        config["methods"][f"{name}+last_layer_reset"] = strength
        config["methods"][f"{name}+full_reset"] = strength | {"full_reset.period": 5}
    for treatment in config["interventions"]["treatments"].values():
        treatment.pop("settings", None)
    path.write_text(yaml.safe_dump(config))


def compare(name: str, write_config: Callable[[Path], None], number: int) -> list[list[Cell]]:
    """Measure both dry runs in turns, and return the rows of the table.

    Args:
        name: of the study.
        write_config: that writes its config.
        number: of turns.
    """
    ours = []
    bare = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_config(folder / "study.yaml")
        for _ in range(number):
            ours.append(dry_run(ROOT, "--configfile", folder / "study.yaml"))
            # two jobs per seed, and the jobs of gather and all
            bare_seeds = ours[0].jobs // 2 - 1
            (folder / "Snakefile").write_text(BARE_SNAKEFILE.format(seeds=bare_seeds))
            bare.append(dry_run(folder))
    return [summarize(name, ours, bare), summarize("  a bare Snakefile", bare, bare)]


def summarize(name: str, runs: Sequence[DryRun], of_reference: Sequence[DryRun]) -> list[Cell]:
    """Build the row of some dry runs of one workflow."""
    seconds = [run.seconds for run in runs]
    ratio = turns.ratios(seconds, [run.seconds for run in of_reference])
    peak = max(run.gigabytes for run in runs)
    return [name, runs[0].jobs, Spread.of(seconds), peak, ratio]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    results.add_options(parser, "one turn of small studies")
    arguments = parser.parse_args()
    number = 1 if arguments.quick else TURNS
    ours = results.Results(
        "planning",
        is_quick=arguments.quick,
        setup=f"Snakemake {version('snakemake')}, CPU time, turns: {number}",
    )
    rows = []
    for seeds in (3,) if arguments.quick else (30, 75):
        name = f"paper.yaml, {seeds} seeds"
        rows += compare(name, lambda path, seeds=seeds: write_paper(path, seeds), number)
    settings = 2 if arguments.quick else 100
    name = f"{settings} settings × 20 arms × 30 seeds"
    rows += compare(name, lambda path: write_large(path, settings), number)
    columns = {"jobs": 0, "CPU s": 1, "GB": 2, "ratio": 2}
    ours.add(Table("Dry runs", "a dry run of", columns, rows))
    ours.finish(is_saved=arguments.save)


if __name__ == "__main__":
    main()
