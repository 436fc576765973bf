"""Plant one fault at a time into a copy of the repository, and check that the tests of `make test` find it.

    PYTHONPATH=tests python tests/planted_faults.py [--jobs 2] [--only NAME …]

The faults are in planted_faults.yaml. Each is a change that somebody could make by mistake: a wrong sign, a dropped bias, swapped seeds.
Only the test files that are named with a fault are run, because a fault that these find is found by the whole suite.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import yaml
from projects import ROOT, repository_files

QUICK = ["-m", "not (slow or data or browser or slurm or gpu)", "--hypothesis-profile", "quick"]


class Fault(NamedTuple):
    """A change of one file, and the test files that must find it.

    Attributes:
        file: in the repository.
        old: text that is in it exactly once.
        new: text in its place.
        tests: files in the repository.
    """

    file: str
    old: str
    new: str
    tests: list[str]


FAULTS = {
    name: Fault(**fault)
    for name, fault in yaml.safe_load(
        Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    ).items()
}


def plant(fault: Fault, root: Path) -> None:
    """Change the file of a copy.

    Raises:
        ValueError: the old text is not there exactly once.
    """
    path = root / fault.file
    text = path.read_text(encoding="utf-8")
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.file} has {text.count(fault.old)} times: {fault.old}")
    path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")


def finder(fault: Fault, source: Path, options: list[str]) -> str:
    """Return the first test that fails with a fault, or nothing."""
    with TemporaryDirectory() as folder:
        root = Path(folder) / "copy"
        for name in repository_files(source):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, root / name)
        subprocess.run(
            ["git", "init", "-q"], cwd=root, check=True
        )  # the tests of the workflow list the files of a repository
        plant(fault, root)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            *options,
        ]
        env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
            "OMP_NUM_THREADS": "1"
        }
        done = subprocess.run(
            [*command, *fault.tests], cwd=root, env=env, capture_output=True, text=True, check=False
        )
        failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return failed[0] if done.returncode == 1 and failed else ""


def report(faults: Iterable[str], jobs: int, source: Path, options: list[str]) -> int:
    """Print by what each fault is found; return how many are not."""
    with ThreadPoolExecutor(jobs) as pool:
        found = {name: pool.submit(finder, FAULTS[name], source, options) for name in faults}
        missed = 0
        for name, test in found.items():
            print(f"{name}: {test.result()[:120] or 'NOT FOUND'}", flush=True)
            missed += not test.result()
    print(f"{len(found) - missed} of {len(found)} faults were found")
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many faults are tried at a time")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=FAULTS,
        default=list(FAULTS),
        metavar="NAME",
        help="try only these faults",
    )
    parser.add_argument(
        "--source", type=Path, default=ROOT, help="another checkout, whose tests are tried"
    )
    parser.add_argument("--all", action="store_true", help="run the tests of `make test-all`")
    given = parser.parse_args()
    sys.exit(report(given.only, given.jobs, given.source, [] if given.all else QUICK) > 0)


if __name__ == "__main__":
    main()
