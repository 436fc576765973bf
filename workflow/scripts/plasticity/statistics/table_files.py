"""Read the tables of a study."""

from pathlib import Path

import pandas as pd

# These columns have text, also where it looks like a number. An empty cell is empty text there, and
# a missing number in all others.
TEXT_COLUMNS = {
    "setting",
    "arm",
    "versus",
    "evaluation_point",
    "block",
    "interval",
    "note",
    "family",
    "strongest_null_model",
    "worst_setting",
    "about",
    "task",
    "treatment",
    "treatment_family",
    "outcome",
    "measure",
    "auc_note",
    "tau_note",
    "counterexamples_note",
    "warning_note",
}


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV file of `tables/`.

    Args:
        path: the file.

    Returns:
        The table. Empty cells are empty strings in `TEXT_COLUMNS` and NaN in other columns.
    """
    header = pd.read_csv(path, nrows=0)
    number_columns = [name for name in header if name not in TEXT_COLUMNS]
    missing_numbers = {name: [""] for name in number_columns}
    texts = {name: str for name in header if name in TEXT_COLUMNS}
    return pd.read_csv(path, keep_default_na=False, na_values=missing_numbers, dtype=texts)
