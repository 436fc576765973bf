"""Prepare tables for people: names instead of identifiers, intervals in the cell of their estimate.

Files of `tables/` are for programs. Pages show the same rows as words and rounded numbers.
"""

import json
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from plasticity.config.quantities import (
    MEASURES,
    OUTCOMES,
    SPECTRUM_NUMBERS,
    one_line_name,
    split_operator,
)
from plasticity.config.titles import arm_title, method_title

SIGNIFICANT_DIGITS = 4
NOT_TESTED = "not tested"
NOT_MEASURED = "not measured"  # in tables of means
NOTHING = "none"  # in a column of texts or counts
TABLES_OF_MEANS = ("summary", "outcomes", "measures", "methods", "treatments", "tuning")
TESTS = ("p", "power", "p_adjusted", "adjusted_p", "p_heterogeneity", "difference_to_none")
CLAIMS = {-1: "falls", 0: "no claim", 1: "rises"}
# Bounds of an interval are columns with these endings, or with these names for the main estimate.
LOW, HIGH = "low", "high"
MAIN_ESTIMATES = ("estimate", "mean")
# Texts of these columns are names of a config.
SETTING_COLUMNS = ("setting", "worst_setting")
ARM_COLUMNS = ("arm", "treatment")
QUANTITY_COLUMNS = ("measure", "outcome", "first", "second", "quantity")
TABLES_OF_ARM_PAIRS = ("comparisons",)  # there, `versus` is an arm; elsewhere it is a measure
FREE_TEXT_COLUMNS = ("note", "statement", "claim", "interval", "verdict")
IDENTIFIER = re.compile(r"\b[a-z0-9]+(?:_[a-z0-9]+)+\b")
SETTINGS_OF_SEVERAL = {
    "all": "all settings",
    "all: lost": "all that lose plasticity",
    "all: kept": "all that keep plasticity",
}
STAGES = ("early", "late")

HEADINGS = {
    "about": "about",
    "adjusted_p": "adjusted p",
    "as_claimed": "share as claimed",
    "beating": "share that beats other seeds",
    "chosen": "selected",
    "difference_to_none": "difference to no intervention",
    "i_squared": "I²",
    "interval": "interval from",
    "judged_arms": "judged arms",
    "kept": "arms that keep",
    "lost": "arms that lose",
    "p_adjusted": "adjusted p",
    "p_heterogeneity": "p of heterogeneity",
    "prediction": "next problem",
    "q": "Cochran's Q",
    "rank": "rank on the first page",
    "sign_agreement": "share with the same sign",
    "tau": "τ, positive as claimed",
    "tau_settings": "settings with τ",
    "versus": "compared with",
    "warning": "AUC of a warning",
    "worst_setting": "worst setting",
    "worst_tau": "worst τ",
}
# Headings that differ between tables.
HEADINGS_OF_TABLES = {
    "counterexamples": {"loss": "growth of the gap", "change": "change of the measure"},
    "treatments": {"change": "change compared with none"},
    "arms": {"estimate": "AUC over arms"},
    "explanations": {"auc": "AUC over arms", "claim": "as plasticity is lost, it"},
    "consistency": {"estimate": "ρ over problems", "claim": "as plasticity is lost, it"},
    "interventions": {"estimate": "τ or difference", "claim": "as plasticity is lost, it"},
    "redundancy": {"estimate": "ρ"},
    "population": {"estimate": "ρ or difference"},
    "profiles": {"estimate": "share of runs"},
}
# Notes about one column, by table. Other notes are about the main estimate.
NOTES = {
    "explanations": {
        "auc": "auc_note",
        "tau": "tau_note",
        "worst_tau": "tau_note",
        "tau_settings": "tau_note",
        "counterexamples": "counterexamples_note",
        "warning": "warning_note",
    }
}


def for_readers(name: str, table: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame | None:
    """Rewrite a table of `tables/` for people.

    - Numbers have four significant digits. An estimate and its interval share a cell, such as
      ``0.86 [0.84, 0.88]``.
    - A word stands for a missing number, with the note that says why it is missing.
    - Settings, arms, methods and measures have the names that figures show.
    - Columns without any value are left out, and so is a note that a cell has.

    Args:
        name: of the table.
        table: as `table_files.read_table` reads it.
        titles: of settings, by name.

    Returns:
        Texts, and numbers in columns of whole numbers that miss none. None if the table has no
        rows, or if all its estimates are missing.
    """
    if table.empty or _has_no_estimate(table):
        return None
    intervals = find_intervals(table)
    bounds = {bound for low, high in intervals.values() for bound in (low, high)}
    notes = NOTES.get(name, {})
    own_notes = set(notes.values())
    main = next((column for column in intervals if column in table), "")  # notes are about it
    columns: dict[str, pd.Series] = {}
    shown_notes = pd.Series(False, table.index)
    for column in _with_bare_intervals(table, intervals):
        if column in bounds | own_notes | {"note"} or not _has_values(table, column, intervals):
            continue
        heading = _heading(name, column)
        note_column = notes.get(column, "note" if column == main else "")
        note = table[note_column] if note_column in table else pd.Series("", table.index)
        has_intervals = column in intervals and table[intervals[column][0]].notna().any()
        if has_intervals or (column in intervals and column in notes):
            cells = _interval_cells(name, table, column, intervals[column], note)
            heading += " [95 % interval]" if has_intervals else ""
        else:
            cells = _cells(name, table[column], titles, note)
        if note_column == "note":
            shown_notes = table[column].isna()
        columns[heading] = cells
    if "note" in table:
        rest = table["note"].where(~shown_notes, "")
        if (rest != "").any():
            columns["note"] = rest.map(lambda note: _text_cell(name, "note", note, titles))
    return pd.DataFrame(columns, table.index).reset_index(drop=True)


def find_intervals(table: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Find the columns that bound the interval of an estimate.

    Returns:
        Names of the lower and the upper bound, by the name of the estimate. An interval without an
        estimate, such as a prediction interval, has the name that its bounds begin with.
    """
    intervals = {}
    if LOW in table and HIGH in table:
        main = next((column for column in MAIN_ESTIMATES if column in table), None)
        if main:
            intervals[main] = (LOW, HIGH)
    for column in table:
        base = str(column).removesuffix(f"_{LOW}")
        if base != column and f"{base}_{HIGH}" in table:
            intervals[base] = (f"{base}_{LOW}", f"{base}_{HIGH}")
    return intervals


def format_number(value: float) -> str:
    """Write a number with at most four significant digits: ``0.8635``, ``1234``, ``1.2e-05``."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value)}"
    if abs(value) >= 10**SIGNIFICANT_DIGITS:
        return f"{value:.0f}"
    return f"{value:.{SIGNIFICANT_DIGITS}g}"


def _with_bare_intervals(
    table: pd.DataFrame, intervals: Mapping[str, tuple[str, str]]
) -> list[str]:
    """List the columns, with each interval that has no estimate in place of its lower bound."""
    bare = {low: column for column, (low, _) in intervals.items() if column not in table}
    return [bare.get(str(column), str(column)) for column in table]


def _has_no_estimate(table: pd.DataFrame) -> bool:
    """Tell whether the table is about estimates, and all of them are missing."""
    main = next((column for column in MAIN_ESTIMATES if column in table), None)
    return main is not None and bool(table[main].isna().all())


def _has_values(table: pd.DataFrame, column: str, intervals: Mapping[str, tuple[str, str]]) -> bool:
    """Tell whether a column, or its interval, has a value in any row."""
    own = column if column in table else intervals[column][0]
    values = table[own]
    return bool(values.notna().any() and (values.astype(str) != "").any())


def _interval_cells(
    name: str, table: pd.DataFrame, column: str, bounds: tuple[str, str], notes: pd.Series
) -> pd.Series:
    """Write estimates with their intervals.

    A note of the table has a column. A note of this column says here why there is no interval.
    """
    texts = []
    has_own_notes = notes.name == f"{column}_note"
    for index in table.index:
        low, high = (table.at[index, bound] for bound in bounds)
        has_interval = np.isfinite(low) and np.isfinite(high)
        interval = f"[{format_number(low)}, {format_number(high)}]" if has_interval else ""
        if column not in table:
            texts.append(interval or NOTHING)
        elif np.isfinite(table.at[index, column]):
            note = notes.at[index] if has_own_notes and not has_interval else ""
            remark = f"({note})" if note else interval
            texts.append(f"{format_number(table.at[index, column])} {remark}".strip())
        else:
            texts.append(_missing(name, column, notes.at[index]))
    return pd.Series(texts, table.index)


def _missing(table: str, column: str, note: str) -> str:
    """Write a word for a missing number, and the note that says why it is missing."""
    is_test = column in (*TESTS, *MAIN_ESTIMATES) or note
    word = NOT_TESTED if is_test else NOTHING
    if table in TABLES_OF_MEANS and column not in (*TESTS, "strength"):
        word = NOT_MEASURED
    if note.startswith((word, NOT_MEASURED)):
        return note
    return f"{word} ({note})" if note else word


def _cells(table: str, values: pd.Series, titles: Mapping[str, str], notes: pd.Series) -> pd.Series:
    """Write the values of a column that has no interval."""
    column = str(values.name)
    if pd.api.types.is_bool_dtype(values):
        return values.map({True: "yes", False: "no"})
    if not pd.api.types.is_numeric_dtype(values):
        return values.map(lambda value: _text_cell(table, column, value, titles))
    if column == "claim":
        return values.map(CLAIMS)
    if values.isna().any():
        texts = [
            format_number(value) if np.isfinite(value) else _missing(table, column, note)
            for value, note in zip(values, notes, strict=True)
        ]
        return pd.Series(texts, values.index)
    # stays a column of numbers, which a page can sort
    rounded = values.map(lambda value: float(format_number(value)))
    return rounded.astype(int) if (rounded == rounded.round()).all() else rounded


def _text_cell(table: str, column: str, value: object, titles: Mapping[str, str]) -> str:
    """Write one cell of a column of texts."""
    text = "" if pd.isna(value) else str(value)
    if not text:
        return NOTHING if column in ("versus", "worst_setting") else ""
    if column in SETTING_COLUMNS:
        known = {**SETTINGS_OF_SEVERAL, **titles}
        return known.get(text, text.replace("_", " "))
    if column in ARM_COLUMNS or (column == "versus" and table in TABLES_OF_ARM_PAIRS):
        return arm_title(text)
    if column == "method":
        return method_title(text)
    if column in QUANTITY_COLUMNS or column == "versus":
        return " + ".join(one_line_name(part) for part in text.split(" + "))
    if column == "hyperparameters":
        return _hyperparameters(text)
    if column in FREE_TEXT_COLUMNS:
        return IDENTIFIER.sub(lambda match: _name_in_text(match[0], titles), text)
    return text.replace("_", " ")


def _name_in_text(identifier: str, titles: Mapping[str, str]) -> str:
    """Return the title of a setting or the name of a measure; other words stay as they are."""
    if identifier in titles:
        return titles[identifier]
    return one_line_name(identifier) if _is_quantity(identifier) else identifier


def _is_quantity(name: str) -> bool:
    """Tell whether a word is the name of an outcome or a measure."""
    operator, number = split_operator(name)
    return name in OUTCOMES or name in MEASURES or bool(operator and number in SPECTRUM_NUMBERS)


def _hyperparameters(text: str) -> str:
    """Write the hyperparameters of an arm, given as JSON: ``strength 0.01``."""
    values = json.loads(text)
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in values.items())


def _heading(table: str, column: str) -> str:
    """Write the name of a column as words."""
    own = HEADINGS_OF_TABLES.get(table, {}).get(column) or HEADINGS.get(column)
    if own:
        return own
    stage = re.fullmatch(rf"(\w+)_({'|'.join(STAGES)})", column)
    base = stage[1] if stage else column
    if _is_quantity(base):
        heading = one_line_name(base)
    elif base.endswith("_gap"):
        heading = f"{base.removesuffix('_gap').replace('_', ' ')}, gap to a fresh network"
    else:
        heading = base.replace("_", " ")
    return f"{heading}, {stage[2]}" if stage else heading
