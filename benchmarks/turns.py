"""Time several ways in turns, summarize the turns, state the load, and save results as JSON.

Ways take turns, so that a slow phase of the machine slows all of them. A ratio is the median of the
ratios within turns. This module needs the standard library only.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"

Action = Callable[[], object]
# of a process: not of the machine, so that other work changes it little
CLOCK = time.process_time


class Spread(NamedTuple):
    """Median of the turns, with the lower and the upper quartile."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarize some values. One value has no spread."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


def take_turns(
    ways: Mapping[str, Action], turns: int, clock: Callable[[], float] = CLOCK
) -> dict[str, list[float]]:
    """Measure each way once per turn.

    Args:
        ways: what is measured, by name. A way is warm if the caller has called it before.
        turns: number of turns.
        clock: seconds. A way that waits for a device or a process needs `time.perf_counter`.

    Returns:
        Seconds of each turn, by the name of the way.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, action in ways.items():
            start = clock()
            action()
            seconds[name].append(clock() - start)
    return seconds


def ratios(seconds: Sequence[float], of_reference: Sequence[float]) -> Spread:
    """Summarize the ratios within turns."""
    return Spread.of([a / b for a, b in zip(seconds, of_reference, strict=True)])


def machine() -> dict[str, Any]:
    """Describe the machine: processor, cores that this process may use, and system."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    """Read the model of the processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def load() -> float:
    """Return the number of processes that wanted to run, mean over the last minute."""
    return os.getloadavg()[0]


def save(name: str, load_before: float, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the rows of a benchmark with the machine and its load.

    Args:
        name: of the file in `RESULTS`, without its ending.
        load_before: `load` before the first turn.
        rows: of its table.
    """
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    loads = {"load_before": round(load_before, 1), "load_after": round(load(), 1)}
    content = machine() | loads | {"rows": list(rows)}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
