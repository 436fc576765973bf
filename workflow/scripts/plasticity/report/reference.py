"""Compare results with a published reference, bit for bit, and describe the differences."""

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

from plasticity.config.spelling import hint
from plasticity.errors import StudyError
from plasticity.provenance import code_digest, record
from plasticity.storage import netcdf

COMPARED = ("datasets/*.nc", "tables/*.csv")
UNCOMPARED_TABLE = "cost"  # it describes a machine, not results
# The reference holds smaller tables as files. Of larger tables and of datasets it holds a checksum
# and the mean of each column or variable.
LARGEST_TABLE = 200_000  # bytes
MEANS = "means.csv"
REFERENCE = "reference.json"
ROUNDING = 1e-8  # in standard deviations: the means of a reference have nine digits


def machine() -> dict[str, str]:
    """Describe what equal bytes may depend on: the processor, and versions of packages."""
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "vendor": _processor_vendor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        **{
            name: code_digest.version(name)
            for name in sorted(code_digest.COMPUTING_PACKAGES.values())
        },
    }


def _processor_vendor() -> str:
    """Read the vendor of the processor, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("vendor_id"):
                return line.partition(":")[2].strip()
    return platform.processor()


def publish(results: Path, reference: Path) -> int:
    """Write the reference of a study: checksums of all results, small tables, means of the rest.

    Args:
        results: the study's finished results.
        reference: folder of the reference; an earlier reference there is replaced.

    Returns:
        The number of tables and datasets in the reference.

    Raises:
        StudyError: the study is not finished, or the folder is not that of a published study.
    """
    files = _compared_files(results)
    if not files:
        raise StudyError(f"{results} has no datasets and tables: run the study first")
    if reference.exists() and not (reference / REFERENCE).exists():
        raise StudyError(
            f"{reference} exists, but is not a published study. Give the study another name, or"
            " move that folder away."
        )
    for folder in {name.partition("/")[0] for name in files}:
        shutil.rmtree(reference / folder, ignore_errors=True)
    reference.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        if _is_small_table(path):
            (reference / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, reference / name)
    summarise(files).to_csv(reference / MEANS, index=False, float_format="%.9g")
    of_files = {name: checksum(path) for name, path in files.items()}
    text = json.dumps({"machine": machine(), "files": of_files}, indent=1)
    (reference / REFERENCE).write_text(text + "\n", encoding="utf-8")
    return len(files)


def compare(results: Path, reference: Path, setting: str | None = None) -> tuple[bool, list[str]]:
    """Compare results with their reference.

    Args:
        results: the study's finished results.
        reference: folder of the reference.
        setting: whose dataset alone is compared, instead of all datasets and tables.

    Returns:
        Whether all files have the same content, and lines that describe the differences.

    Raises:
        StudyError: the reference is missing or cannot be read, or has no dataset of the setting.
    """
    expected, files = checksums(reference, setting), _compared_files(results)
    missing = sorted(set(expected) - set(files))
    additional = [] if setting else sorted(set(files) - set(expected))
    changed = [
        name for name in expected if name in files and checksum(files[name]) != expected[name]
    ]
    lines = [f"{name} is missing" for name in missing]
    lines += [f"{name} is not in the reference" for name in additional]
    lines += _describe_changes({name: files[name] for name in changed}, reference)
    lines += _describe_machines(machine(), _read_reference(reference)["machine"])
    equal_count = len(expected) - len(changed) - len(missing)
    lines.append(
        f"{equal_count} of {len(expected)} tables and datasets hold what the reference holds,"
        " bit for bit"
    )
    return not (changed or missing or additional), lines


def checksums(reference: Path, setting: str | None = None) -> dict[str, str]:
    """Return the checksum of each published file, or of the dataset of one setting, by its path.

    Raises:
        StudyError: the reference is missing, cannot be read, or has no dataset of the setting.
    """
    files: dict[str, str] = _read_reference(reference)["files"]
    if setting is None:
        return files
    dataset = f"datasets/{setting}.nc"
    if dataset not in files:
        published = [Path(name).stem for name in files if name.endswith(".nc")]
        raise StudyError(f"{reference} does not publish {setting!r}. {hint(setting, published)}")
    return {dataset: files[dataset]}


def is_same_kind_of_machine(reference: Path) -> bool:
    """Check whether the reference was made on this kind of machine, so that bytes should be equal.

    Raises:
        StudyError: the reference is missing or cannot be read.
    """
    return bool(_read_reference(reference)["machine"] == machine())


def checksum(path: Path) -> str:
    """Compute the checksum of a table, or of the variables of a dataset.

    Global attributes of a dataset do not count, because they name the code that made it.
    """
    if path.suffix != ".nc":
        return record.digest(path)
    sha256 = hashlib.sha256()
    for name, values in sorted(netcdf.read(path).variables.items()):
        header = f"{name} {values.dims} {values.dtype} {sorted(values.attrs)}"
        if values.dtype.kind in "OU":
            numbers = str(values.values.tolist()).encode()
        else:
            numbers = np.ascontiguousarray(values.values).tobytes()
        sha256.update(header.encode() + numbers)
    return sha256.hexdigest()


def summarise(files: Mapping[str, Path]) -> pd.DataFrame:
    """Summarise each variable of datasets and each column of large tables.

    Returns:
        One row per variable or column: count of finite numbers, mean and standard deviation.
    """
    rows = []
    for name, path in files.items():
        if _is_small_table(path):
            continue
        variables = netcdf.read(path).data_vars if path.suffix == ".nc" else pd.read_csv(path)
        for variable, values in variables.items():
            numbers = np.array([])
            if values.dtype.kind in "fiu":
                numbers = np.asarray(values, float)
                numbers = numbers[np.isfinite(numbers)]
            mean = numbers.mean() if numbers.size else np.nan
            std = numbers.std() if numbers.size else np.nan
            rows.append([name, variable, numbers.size, mean, std])
    return pd.DataFrame(rows, columns=["file", "variable", "numbers", "mean", "std"])


def _is_small_table(path: Path) -> bool:
    """Check whether a reference holds the file itself."""
    return path.suffix == ".csv" and path.stat().st_size <= LARGEST_TABLE


def _compared_files(results: Path) -> dict[str, Path]:
    """List the files that are compared, by their path in the folder of results."""
    paths = [path for pattern in COMPARED for path in sorted(results.glob(pattern))]
    return {str(path.relative_to(results)): path for path in paths if path.stem != UNCOMPARED_TABLE}


def _describe_changes(changed: Mapping[str, Path], reference: Path) -> list[str]:
    """Describe changed files: small tables by their cells, all others by their means."""
    lines: list[str] = []
    summarised = {}
    for name, path in changed.items():
        if (reference / name).exists():
            lines += _describe_cells(name, pd.read_csv(reference / name), pd.read_csv(path))
        else:
            summarised[name] = path
    if summarised:
        lines += _describe_means(pd.read_csv(reference / MEANS), summarise(summarised))
    return lines


def _describe_machines(this: Mapping[str, str], other: Mapping[str, str]) -> Iterator[str]:
    """Describe how this machine differs from that of the reference."""
    differences = [
        f"{key} {other.get(key)}, here {value}"
        for key, value in this.items()
        if other.get(key) != value
    ]
    if differences:
        yield f"the reference was made on another kind of machine: {'; '.join(differences)}"


def _describe_cells(name: str, old: pd.DataFrame, new: pd.DataFrame) -> Iterator[str]:
    """Describe which columns of a table differ, and by how much."""
    if list(old) != list(new) or len(old) != len(new):
        yield (
            f"{name} has {len(new)} rows of {len(new.columns)} columns, and the reference"
            f" {len(old)} of {len(old.columns)}"
        )
        return
    for column in old:
        both_missing = old[column].isna() & new[column].isna()
        differs = (old[column] != new[column]) & ~both_missing
        if differs.any():
            count = f"{differs.sum()} of {len(old)} rows"
            amount = _largest_difference(old[column], new[column], differs)
            yield f"{name}: {column} differs in {count}{amount}"


def _largest_difference(old: pd.Series, new: pd.Series, differs: pd.Series) -> str:
    """Describe the largest difference of two columns; empty if they hold no numbers."""
    if not (pd.api.types.is_numeric_dtype(old) and pd.api.types.is_numeric_dtype(new)):
        return ""
    sizes = (new.astype(float) - old.astype(float)).abs().where(differs)
    row = sizes.idxmax() if sizes.notna().any() else differs.idxmax()
    return f", at most by {sizes[row]:.3g} ({old[row]:.6g} in the reference, {new[row]:.6g} here)"


def _describe_means(old: pd.DataFrame, new: pd.DataFrame) -> Iterator[str]:
    """Describe how many variables of each file have another mean, and the three that moved most.

    Args:
        old: summary of the reference.
        new: summary of the changed files.
    """
    for name, changed in new.groupby("file"):
        both = old[old["file"] == name].merge(
            changed, on="variable", how="outer", suffixes=("_old", "_new")
        )
        difference = (both["mean_new"] - both["mean_old"]).abs()
        both["distance"] = (difference / both["std_old"].where(both["std_old"] > 0)).fillna(0.0)
        is_moved = (both["distance"] > ROUNDING) | (both["numbers_new"] != both["numbers_old"])
        moved = both[is_moved].sort_values("distance", ascending=False)
        detail = ", the furthest:" if len(moved) else "; single numbers differ"
        yield f"{name}: {len(moved)} of {len(both)} variables have another mean{detail}"
        for _, row in moved.head(3).iterrows():
            means = f"{row['mean_old']:.6g} in the reference, {row['mean_new']:.6g} here"
            distance = f"{row['distance']:.2g} standard deviations"
            yield f"  {row['variable']}: by {distance} ({means})"


def _read_reference(reference: Path) -> Any:
    """Read the machine and the checksums of a reference.

    Raises:
        StudyError: the reference is missing or cannot be read.
    """
    path = reference / REFERENCE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(
            f"{path} cannot be read ({error}). Only studies that are published below docs can be"
            " compared."
        ) from error
