"""Results beside those that were published: bit for bit, and where bits differ, which numbers do, and by how much."""

import hashlib
import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from plasticity.errors import StudyError
from plasticity.provenance import code_digest, record
from plasticity.storage import netcdf

COMPARED = ("datasets/*.nc", "tables/*.csv")
TIMED = "cost"  # the one table that is about a machine
WHOLE = 200_000  # bytes; larger tables are known by a checksum and the means of their columns, as datasets are
SUMMARY = "means.csv"
REFERENCE = "reference.json"


def machine() -> dict[str, str]:
    """What equal bytes may depend on: the kind of processor, and the versions of what computes."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.exists() else []
    vendor = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")),
        platform.processor(),
    )
    kind = {"system": platform.system(), "processor": platform.machine(), "vendor": vendor}
    kind |= {"instructions": torch.backends.cpu.get_cpu_capability()}
    return kind | {
        package: code_digest.version(package) for package in sorted(code_digest.WEIGHTY.values())
    }


def publish(results: Path, reference: Path) -> int:
    """Lay down what a study's results are to be compared with: checksums of its tables and datasets, small tables, and means of all else.

    Returns:
        how many files.

    Raises:
        StudyError: the study is not finished, or its name is that of another folder.
    """
    files = _compared(results)
    if not files:
        raise StudyError(f"{results} has no datasets and tables: run the study first")
    if reference.exists() and not (reference / REFERENCE).exists():
        raise StudyError(
            f"{reference} is there, and no published study: give the study another name, or move that folder away"
        )
    for folder in {name.partition("/")[0] for name in files}:
        shutil.rmtree(reference / folder, ignore_errors=True)
    reference.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        if _is_whole(path):
            (reference / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, reference / name)
    summary(files).to_csv(reference / SUMMARY, index=False, float_format="%.9g")
    said = {"machine": machine(), "files": {name: content(path) for name, path in files.items()}}
    (reference / REFERENCE).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return len(files)


def compare(results: Path, reference: Path) -> tuple[bool, list[str]]:
    """Results beside their reference.

    Returns:
        whether all files hold the same; and sentences.

    Raises:
        StudyError: no reference, or one that cannot be read.
    """
    said = _said(reference)
    found, expected = _compared(results), said["files"]
    missing, others = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    differ = [name for name in expected if name in found and content(found[name]) != expected[name]]
    lines = [f"{name} is missing" for name in missing] + [
        f"{name} is not in the reference" for name in others
    ]
    lines += [
        line
        for name in differ
        if (reference / name).exists()
        for line in _cells(name, pd.read_csv(reference / name), pd.read_csv(found[name]))
    ]
    if means := {name: found[name] for name in differ if not (reference / name).exists()}:
        lines += _means(pd.read_csv(reference / SUMMARY), summary(means))
    here, there = machine(), said["machine"]
    if unlike := [
        f"{key} {there.get(key)}, here {value}"
        for key, value in here.items()
        if there.get(key) != value
    ]:
        lines.append(f"the reference was made elsewhere: {'; '.join(unlike)}")
    same = len(expected) - len(differ) - len(missing)
    lines.append(
        f"{same} of {len(expected)} tables and datasets hold what the reference holds, bit for bit"
    )
    return not (differ or missing or others), lines


def same_kind(reference: Path) -> bool:
    """Whether the reference was made on this kind of machine, where equal bytes are to be expected.

    Raises:
        StudyError: no reference, or one that cannot be read.
    """
    return bool(_said(reference)["machine"] == machine())


def content(path: Path) -> str:
    """Checksum of a table, or of all that a dataset holds but the attributes of the file, which name the code that made it."""
    if path.suffix != ".nc":
        return record.digest(path)
    held = hashlib.sha256()
    for name, values in sorted(netcdf.read(path).variables.items()):
        numbers = (
            str(values.values.tolist()).encode()
            if values.dtype.kind in "OU"
            else np.ascontiguousarray(values.values).tobytes()
        )
        held.update(
            f"{name} {values.dims} {values.dtype} {sorted(values.attrs)}".encode() + numbers
        )
    return held.hexdigest()


def summary(files: Mapping[str, Path]) -> pd.DataFrame:
    """Of each variable of datasets, and each column of large tables: how many numbers there are, their mean and standard deviation."""
    rows = []
    for name, path in files.items():
        if not _is_whole(path):
            for variable, values in (
                netcdf.read(path).data_vars if path.suffix == ".nc" else pd.read_csv(path)
            ).items():
                numbers = np.asarray(values, float) if values.dtype.kind in "fiu" else np.array([])
                numbers = numbers[np.isfinite(numbers)]
                mean, std = (numbers.mean(), numbers.std()) if numbers.size else (np.nan, np.nan)
                rows.append(
                    {
                        "file": name,
                        "variable": variable,
                        "numbers": numbers.size,
                        "mean": mean,
                        "std": std,
                    }
                )
    return pd.DataFrame(rows, columns=["file", "variable", "numbers", "mean", "std"])


def _is_whole(path: Path) -> bool:
    """Whether a reference keeps the file itself."""
    return path.suffix == ".csv" and path.stat().st_size <= WHOLE


def _compared(results: Path) -> dict[str, Path]:
    paths = [
        path for pattern in COMPARED for path in sorted(results.glob(pattern)) if path.stem != TIMED
    ]
    return {str(path.relative_to(results)): path for path in paths}


def _cells(name: str, old: pd.DataFrame, new: pd.DataFrame) -> Iterator[str]:
    """Which columns of a table differ, and by how much."""
    if list(old) != list(new) or len(old) != len(new):
        yield f"{name} has {len(new)} rows of {len(new.columns)} columns, and the reference {len(old)} of {len(old.columns)}"
        return
    for column in old:
        differ = (old[column] != new[column]) & ~(old[column].isna() & new[column].isna())
        if not differ.any():
            continue
        amount = ""
        if pd.api.types.is_numeric_dtype(old[column]) and pd.api.types.is_numeric_dtype(
            new[column]
        ):
            away = (new[column].astype(float) - old[column].astype(float)).abs().where(differ)
            at = away.idxmax() if away.notna().any() else differ.idxmax()
            amount = f", at most by {away[at]:.3g} ({old[column][at]:.6g} there, {new[column][at]:.6g} here)"
        yield f"{name}: {column} differs in {differ.sum()} of {len(old)} rows{amount}"


def _means(old: pd.DataFrame, new: pd.DataFrame) -> Iterator[str]:
    """Which variables have another mean, in units of their standard deviation: the furthest ones of each file."""
    for name, found in new.groupby("file"):
        both = old[old["file"] == name].merge(
            found, on="variable", how="outer", suffixes=("_there", "_here")
        )
        away = (
            (both["mean_here"] - both["mean_there"]).abs()
            / both["std_there"].where(both["std_there"] > 0)
        ).fillna(0.0)
        # a reference has nine digits
        moved = both.assign(away=away)[
            (away > 1e-8) | (both["numbers_here"] != both["numbers_there"])
        ].sort_values("away", ascending=False)
        yield f"{name}: {len(moved)} of {len(both)} variables have another mean" + (
            ", the furthest:" if len(moved) else "; single numbers differ"
        )
        for _, row in moved.head(3).iterrows():
            numbers = f"{row['mean_there']:.6g} there, {row['mean_here']:.6g} here"
            yield f"  {row['variable']}: by {row['away']:.2g} of its standard deviation ({numbers})"


def config_of(study: str) -> Path:
    """The config file of a study by its name.

    Raises:
        StudyError: no config has that name; those that there are are listed.
    """
    paths = [
        code_digest.ROOT / "config.yaml",
        *sorted((code_digest.ROOT / "studies").rglob("*.yaml")),
    ]
    named = {
        yaml.safe_load(path.read_text(encoding="utf-8"))["study"]: path for path in reversed(paths)
    }
    if study not in named:
        raise StudyError(f"no config has the study {study!r}: there are {', '.join(sorted(named))}")
    return named[study]


def _said(reference: Path) -> Any:
    """What a reference says of itself."""
    try:
        return json.loads((reference / REFERENCE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(
            f"{reference / REFERENCE} cannot be read ({error}): only studies that were published below docs can be compared"
        ) from error
