"""Tables: what became of each arm, what goes with the loss of plasticity, and what is more than a shared trend.

A row is one comparison with its estimate, its interval over seeds and the numbers that it rests on. Seeds are the unit of
resampling: tasks of one run are not independent of each other.
"""

from pathlib import Path

import pandas as pd

# columns of words, where an empty cell is no missing number
TEXT = {
    "setting",
    "arm",
    "versus",
    "evaluation_point",
    "block",
    "interval",
    "note",
    "family",
    "strongest_null",
    "worst_setting",
    "about",
    "measure",
}


def read_table(path: Path) -> pd.DataFrame:
    """A table of the study; an empty cell is a missing number, or empty text."""
    numbers = [name for name in pd.read_csv(path, nrows=0) if name not in TEXT]
    return pd.read_csv(path, keep_default_na=False, na_values={name: [""] for name in numbers})
