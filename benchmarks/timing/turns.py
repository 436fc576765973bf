"""Time several ways in turns, and summarize the turns.

Ways take turns, so that a slow phase of the machine slows all of them. A ratio is the median of the
ratios within turns.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

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

    def times(self, factor: float) -> "Spread":
        """Convert the unit, such as seconds to milliseconds."""
        return Spread(*(factor * value for value in self))


def take_turns(
    ways: Mapping[str, Action], turns: int, clock: Callable[[], float] = CLOCK
) -> dict[str, list[float]]:
    """Measure each way once per turn.

    Args:
        ways: what is measured, by name. A way is warm if the caller has called it before.
        turns: number of turns.
        clock: seconds. A way that waits for a device, for threads or for processes needs
            `time.perf_counter`.

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
