"""Say where a result came from, back to the data: each file's checksum, commit, settings and code.

    python workflow/scripts/origin.py results/digits/figures/scatter.svg
    python workflow/scripts/origin.py results/digits/tables/outcomes.csv setting=digits_labels_relu arm=none outcome=final_error

Columns' values choose rows of a table; then only what those were made of is followed.
"""

import argparse
import csv
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from plasticity.config.models import BASELINE
from plasticity.errors import StudyError
from plasticity.provenance import lineage
from plasticity.provenance import record as records


def rows(table: Path, chosen: Mapping[str, str]) -> list[dict[str, str]]:
    try:
        with table.open(encoding="utf-8", newline="") as file:
            read = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        read = []
    if unknown := sorted(set(chosen) - set(read[0] if read else ())):
        raise StudyError(
            f"{table} has no column {unknown[0]!r}: it has {', '.join(read[0]) if read else 'none'}"
        )
    found = [row for row in read if all(row[column] == value for column, value in chosen.items())]
    if not found:
        raise StudyError(
            f"{table} has no row with {' and '.join(f'{column}={value}' for column, value in chosen.items())}"
        )
    return found


def concerns(name: str, chosen: Mapping[str, str]) -> bool:
    """Whether a file holds something of the setting and arm that rows are of; the fresh network is in every gap."""
    stage, *places = name.split("/")
    methods = {chosen.get("arm", "").partition("(")[0], BASELINE}
    if stage == "datasets" and "setting" in chosen:
        return places == [f"{chosen['setting']}.nc"]
    return not (
        stage in ("runs", "tuning")
        and len(places) > 1
        and "arm" in chosen
        and places[1] not in methods
    )


def say(step: lineage.Step) -> None:
    if step.path.exists():
        print(
            f"{records.digest(step.path)[:12]}  {step.name}"
            + "".join(f"\n{'':14}! {fault}" for fault in step.faults)
        )
    if (record := step.record) is None:
        print(f"{'':14}no job made it, or its record is lost")
        return
    files = {name: digest for name, digest in record.code.items() if name.endswith(".py")}
    packages = " ".join(
        f"{name} {number}"
        for name, number in (record.versions | record.code).items()
        if name not in files
    )
    code = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12]
    commit = (record.commit[:12] or "unknown") + (", changed since" if record.changed else "")
    print(
        f"{'':14}made by {record.source}, commit {commit}; code {code} ({len(files)} files), {packages}"
    )
    if record.settings:
        print(f"{'':14}settings {json.dumps(record.settings, sort_keys=True)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="a result")
    parser.add_argument("row", nargs="*", help="COLUMN=VALUE, of a table")
    given = parser.parse_args()
    chosen = dict(one.partition("=")[::2] for one in given.row)
    try:
        for row in rows(given.file, chosen) if chosen else ():
            print(", ".join(f"{column} {value}" for column, value in row.items() if value))
        for step in lineage.chain(given.file, lambda name: concerns(name, chosen)):
            say(step)
    except StudyError as mistake:
        sys.exit(str(mistake))
