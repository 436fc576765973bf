"""Plant one fault at a time in a copy of the repository, and check that `make test` finds it.

    PYTHONPATH=tests python tests/planted_faults.py [--jobs 2] [--only NAME …]

The faults are in planted_faults.yaml. Each is a change that a person could make by mistake: a wrong
sign, a missing bias, swapped seeds. The script runs only the test files that the fault names,
because the whole suite includes them.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import yaml
from projects import ROOT, copy_files

QUICK = ["-m", "not (slow or data or browser or slurm or gpu)", "--hypothesis-profile", "quick"]


class Fault(NamedTuple):
    """A change of one file, and the test files that must find it.

    Attributes:
        file: path in the repository.
        old: text that the file has exactly once.
        new: text that replaces it.
        tests: paths in the repository.
    """

    file: str
    old: str
    new: str
    tests: list[str]


def read_faults() -> dict[str, Fault]:
    """Read the table of faults."""
    table = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    return {name: Fault(**fields) for name, fields in yaml.safe_load(table).items()}


FAULTS = read_faults()


def plant(fault: Fault, root: Path) -> None:
    """Change the file in a copy of the repository.

    Raises:
        ValueError: the file does not have the old text exactly once.
    """
    path = root / fault.file
    text = path.read_text(encoding="utf-8")
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.file} has {text.count(fault.old)} times: {fault.old}")
    path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")


def first_failure(fault: Fault, source: Path, options: list[str]) -> str:
    """Return the first test that fails with a fault, or an empty text.

    Args:
        fault: to plant.
        source: repository to copy.
        options: of pytest.
    """
    with TemporaryDirectory() as folder:
        root = Path(folder) / "copy"
        copy_files(source, root)
        # the tests of the workflow list the files of a git repository
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)
        plant(fault, root)
        return run_tests(fault.tests, root, options)


def run_tests(tests: list[str], root: Path, options: list[str]) -> str:
    """Return the line of the first test that fails in a repository, or an empty text."""
    plugins = ["-p", "no:cacheprovider", "-p", "no:xdist"]
    command = [sys.executable, "-m", "pytest", "-x", "-q", *plugins, *options, *tests]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    env.pop("PYTHONPATH", None)
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 1:
        return ""
    for line in done.stdout.splitlines():
        if line.startswith(("FAILED", "ERROR")):
            return line
    return ""


def try_faults(names: Iterable[str], jobs: int, source: Path, options: list[str]) -> int:
    """Print the test that finds each fault, and return how many faults no test finds."""
    with ThreadPoolExecutor(jobs) as pool:
        failures = {
            name: pool.submit(first_failure, FAULTS[name], source, options) for name in names
        }
        missed = 0
        for name, failure in failures.items():
            test = failure.result()
            print(f"{name}: {test[:120] or 'NOT FOUND'}", flush=True)
            if not test:
                missed += 1
    print(f"{len(failures) - missed} of {len(failures)} faults were found")
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many faults to try at a time")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=FAULTS,
        default=list(FAULTS),
        metavar="NAME",
        help="try only these faults",
    )
    parser.add_argument(
        "--source", type=Path, default=ROOT, help="checkout to copy (default: this one)"
    )
    parser.add_argument("--all", action="store_true", help="run the tests of `make test-all`")
    arguments = parser.parse_args()
    options = [] if arguments.all else QUICK
    missed = try_faults(arguments.only, arguments.jobs, arguments.source, options)
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
