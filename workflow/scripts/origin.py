"""Trace a result back to the data: the checksum, commit, settings and code of each file.

    python workflow/scripts/origin.py results/digits/figures/scatter.svg
    python workflow/scripts/origin.py results/digits/tables/outcomes.csv setting=digits_labels_relu

COLUMN=VALUE selects rows of a table. Then only the inputs of these rows are traced.
"""

import argparse
import csv
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from plasticity.config.models import method_of
from plasticity.config.study import baseline_of_method
from plasticity.errors import StudyError
from plasticity.provenance import lineage
from plasticity.provenance.record import Record, digest

INDENT = " " * 14  # of the lines below a file's checksum


def select_rows(table: Path, selection: Mapping[str, str]) -> list[dict[str, str]]:
    """Read the rows of a table that have the selected values.

    Raises:
        StudyError: the table lacks a column, or no row has the values.
    """
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        rows = []
    columns = list(rows[0]) if rows else []
    unknown = sorted(set(selection) - set(columns))
    if unknown:
        raise StudyError(
            f"{table} has no column {unknown[0]!r}. Its columns are {', '.join(columns) or 'none'}"
        )
    selected = [
        row for row in rows if all(row[column] == value for column, value in selection.items())
    ]
    if not selected:
        values = " and ".join(f"{column}={value}" for column, value in selection.items())
        raise StudyError(f"{table} has no row with {values}")
    return selected


def is_relevant(name: str, selection: Mapping[str, str]) -> bool:
    """Answer whether a file can hold data of the selected setting and arm.

    Args:
        name: of the file in records, such as ``runs/digits_labels_relu/none/0-4/outcomes.nc``.
        selection: values of a table's columns.
    """
    stage, *parts = name.split("/")
    if stage == "datasets" and "setting" in selection:
        return parts == [f"{selection['setting']}.nc"]
    if stage in ("runs", "tuning") and len(parts) > 1 and "arm" in selection:
        method = method_of(selection["arm"])
        # the baseline is part of every gap
        return parts[1] in (method, baseline_of_method(method))
    return True


def print_step(step: lineage.Step) -> None:
    """Print a file, its mismatches, and how it was computed."""
    if step.path.exists():
        print(f"{digest(step.path)[:12]}  {step.name}")
        for mismatch in step.mismatches:
            print(f"{INDENT}! {mismatch}")
    if step.record is None:
        print(f"{INDENT}no job wrote it, or its record is lost")
    else:
        print_record(step.record)


def print_record(record: Record) -> None:
    """Print the entry, commit, code, packages and settings of a record."""
    files = {name: value for name, value in record.code.items() if name.endswith(".py")}
    code = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12]
    versions = record.versions | record.code
    packages = " ".join(
        f"{name} {version}" for name, version in versions.items() if name not in files
    )
    commit = record.commit[:12] or "unknown"
    if record.changed:
        commit += ", changed since"
    print(
        f"{INDENT}made by {record.source}, commit {commit}, release {record.release or 'unknown'}; "
        f"code {code} ({len(files)} files), {packages}"
    )
    if record.settings:
        print(f"{INDENT}settings {json.dumps(record.settings, sort_keys=True)}")


def main(arguments: argparse.Namespace) -> None:
    if arguments.file is None:
        raise StudyError("name a result: make origin FILE=results/digits/figures/scatter.svg")
    selection = {}
    for text in arguments.row:
        column, sign, value = text.partition("=")
        if not sign:
            raise StudyError(f"{text!r} selects no row: write COLUMN=VALUE, such as arm=none")
        selection[column] = value
    if selection:
        for row in select_rows(arguments.file, selection):
            print(", ".join(f"{column} {value}" for column, value in row.items() if value))
    for step in lineage.trace(arguments.file, lambda name: is_relevant(name, selection)):
        print_step(step)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path, help="a result")
    parser.add_argument("row", nargs="*", help="COLUMN=VALUE of a table")
    try:
        main(parser.parse_args())
    except StudyError as error:
        sys.exit(str(error))
