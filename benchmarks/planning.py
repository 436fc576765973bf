"""What planning a large study takes: a dry run of the paper study at one seed per job, beside a bare Snakefile of as many jobs.

    python benchmarks/planning.py [--quick]

Nothing is trained. Time and peak of memory are those of one `snakemake --dry-run`; the two take turns, the best of three counts.
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
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
MEASURED = """
import resource
from snakemake.cli import main

try:
    main()
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
BARE = """
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


def dry_run(*options: str | Path, at: Path) -> tuple[float, float, int]:
    """Seconds, GB and jobs of a dry run."""
    command = [
        sys.executable,
        "-c",
        MEASURED,
        "--dry-run",
        "--quiet",
        "rules",
        "reason",
        "--cores",
        "2",
        *map(str, options),
    ]
    begun = time.perf_counter()
    done = subprocess.run(
        command, cwd=at, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    took = time.perf_counter() - begun
    jobs, peak = (
        re.search(r"^total +(\d+)$", done.stdout, re.MULTILINE),
        re.search(r"^peak (\d+)$", done.stdout, re.MULTILINE),
    )
    if not jobs or not peak:
        sys.exit(done.stdout)
    return took, int(peak[1]) / 1e6, int(jobs[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one turn, three seeds")
    quick = parser.parse_args().quick
    print(f"{platform.platform()}, {os.cpu_count()} cores")
    print(f"\n{'a dry run of':36}{'jobs':>9}{'s':>9}{'GB':>9}{'ratio':>9}")
    for seeds in (3,) if quick else (30, 75):
        with tempfile.TemporaryDirectory() as folder:
            here = Path(folder)
            config = yaml.safe_load((ROOT / "studies/paper.yaml").read_text())
            config |= {
                "study": "planning",
                "seeds": {"tune": 0, "report": seeds},
                "seeds_per_job": 1,
            }
            (here / "study.yaml").write_text(yaml.safe_dump(config))
            took: dict[str, list[tuple[float, float, int]]] = {
                f"paper.yaml, {seeds} seeds": [],
                "  a bare Snakefile": [],
            }
            ours, bare = took.values()
            for _ in range(1 if quick else 3):
                ours.append(dry_run("--configfile", here / "study.yaml", at=ROOT))
                (here / "Snakefile").write_text(BARE.format(seeds=ours[0][2] // 2 - 1))
                bare.append(dry_run(at=here))
            ratio = statistics.median(
                one[0] / other[0] for one, other in zip(ours, bare, strict=True)
            )
            for (name, runs), times in zip(took.items(), (ratio, 1), strict=True):
                print(
                    f"{name:36}{runs[0][2]:9}{min(run[0] for run in runs):9.1f}{max(run[1] for run in runs):9.2f}{times:9.2f}",
                    flush=True,
                )
