"""An estimate with its interval and its test: the numbers that the rows of all tables share."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

Row = dict[str, object]
Numbers = float | np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A number with its interval and its test, or an array of such numbers.

    Numbers of one estimate are arrays of the same shape, or single numbers.

    Attributes:
        value: the estimate; NaN where there is none.
        low: lower end of the 95 % interval; NaN where there is none.
        high: upper end of the 95 % interval; NaN where there is none.
        method: how the interval was computed; empty without an interval.
        p: p value; NaN where there is no test.
        power: of the test for a relevant effect, see `power`; NaN where it is not computed.
        note: why a number is missing, and other facts that a reader needs.
    """

    value: Numbers = np.nan
    low: Numbers = np.nan
    high: Numbers = np.nan
    method: str = ""
    p: Numbers = np.nan
    power: Numbers = np.nan
    note: str = ""

    def at(self, *index: int) -> Self:
        """Take the estimate at an index of the arrays; single numbers hold for every index."""
        return replace(
            self,
            value=_number_at(self.value, index),
            low=_number_at(self.low, index),
            high=_number_at(self.high, index),
            p=_number_at(self.p, index),
            power=_number_at(self.power, index),
        )

    def row(self) -> Row:
        """Build the columns of a table that hold this estimate."""
        return {
            "estimate": self.value,
            "low": self.low,
            "high": self.high,
            "p": self.p,
            "power": self.power,
            "interval": self.method,
            "note": self.note,
        }


def join_notes(*notes: str) -> str:
    """Join the notes that are not empty."""
    return "; ".join(filter(None, notes))


def _number_at(numbers: Numbers, index: tuple[int, ...]) -> float:
    """Take the number at an index of an array, or the number itself."""
    if isinstance(numbers, np.ndarray) and numbers.ndim > 0:
        return float(numbers[index])
    return float(numbers)
