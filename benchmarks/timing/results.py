"""Results of a benchmark: the machine, its load, and its tables, printed and saved as JSON."""

import argparse
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from timing import pages
from timing.tables import Table


class Results:
    """Results of one benchmark. Tables are printed when they are added."""

    def __init__(self, name: str, *, is_quick: bool, setup: str) -> None:
        """Print the machine and its load before the first turn.

        Args:
            name: of the file in the folder of results, without its ending.
            is_quick: whether little is measured, so that the numbers are rough.
            setup: versions, threads and clock, as a part of a sentence.
        """
        self._name = name
        self._content: dict[str, Any] = machine() | {
            "setup": setup,
            "is_quick": is_quick,
            "load_before": round(load(), 1),
        }
        self._tables: list[Table] = []
        print(f"{self._content['processor']}, {self._content['cores']} cores; {setup}")
        print(f"load {self._content['load_before']}", flush=True)

    def add(self, table: Table) -> None:
        """Add a table, and print it."""
        self._tables.append(table)
        print(f"\n{table.text()}", flush=True)

    def finish(self, *, is_saved: bool) -> None:
        """Print the load after the last turn. Save the results, and draw them into their page."""
        self._content["load_after"] = round(load(), 1)
        print(f"\nload {self._content['load_after']}")
        if is_saved:
            content = self._content | {"tables": [asdict(table) for table in self._tables]}
            path = pages.RESULTS / f"{self._name}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
            print(f"saved {path}")
            pages.update(self._name)


def add_options(parser: argparse.ArgumentParser, quick: str) -> None:
    """Add the options of every benchmark of time.

    Args:
        parser: of the benchmark.
        quick: what `--quick` leaves out.
    """
    parser.add_argument("--quick", action="store_true", help=f"{quick}; at most 20 seconds")
    parser.add_argument(
        "--save", action="store_true", help="write benchmarks/results, and draw it into its page"
    )


def machine() -> dict[str, Any]:
    """Describe the machine: processor, cores that this process may use, and system."""
    return {
        "processor": _processor(),
        "cores": _cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    """Read the model of the processor, which only Linux tells in this way."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _cores() -> int:
    """Count the cores that this process may use; macOS tells only those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> float:
    """Return the number of processes that wanted to run, mean over the last minute."""
    return os.getloadavg()[0]
