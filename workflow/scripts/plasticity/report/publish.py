"""A study's figures beside its published tables, with as much of its datasets as it takes to draw them again."""

import json
import os
import shutil
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from plasticity.config import registry
from plasticity.config.study import Study
from plasticity.provenance.record import read
from plasticity.report import panels
from plasticity.report.style import Style
from plasticity.statistics.meta_analysis import ARM
from plasticity.statistics.summaries import with_gaps
from plasticity.statistics.table_files import read_table
from plasticity.storage import netcdf

MADE = "made.json"
OF_NONE = (
    "associations",
    "lead_lag",
    "measures",
)  # large tables: of one arm, that without an intervention is published
LEFT_OUT = (
    "nulls"  # larger than all others together; which of them is beaten stands in the associations
)
OF_EVERY_ARM = ("final_error", "fresh_final_error")  # beside the rank of the main operator
OF_REFERENCES = (
    "feature_rank",
    "dormant_fraction",
    "dead_fraction",
    "weight_norm",
    "update_norm",
    "error_curve",
    "loss_curve",
)
OF_OPERATORS = (
    "effective_rank",
    "stable_rank",
    "entropy_rank",
    "top_eigenvalue",
    "negative_fraction",
    "gradient_overlap",
    "trace",
)
SPECTRA = ("eigenvalue", "density")  # on the coming task's data, of the whole network


def publish(study: Study, results: Path, folder: Path, command: str) -> None:
    """Copy a study's figures, with what they are drawn from, and say how they were made.

    Args:
        study: what figures show.
        results: of the study, which is finished.
        folder: that has the reference of the study already.
        command: that made them.
    """
    for name in ("figures", "drawn"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()
    shutil.copyfile(results / "tables" / "cost.csv", folder / "tables" / "cost.csv")
    for name in registry.names("figures"):
        shutil.copyfile(results / "figures" / f"{name}.png", folder / "figures" / f"{name}.png")
    (folder / MADE).write_text(
        json.dumps(_made(results, command), indent=1) + "\n", encoding="utf-8"
    )
    datasets = {
        name: netcdf.open_dataset(results / "datasets" / f"{name}.nc") for name in study.settings
    }
    for name, data in datasets.items():
        spectra = name in study.drawn("spectra")
        part = reduced(data, panels.main_operator(datasets), spectra)
        packed = {
            str(variable): {"zlib": True, "complevel": 9, "shuffle": True}
            for variable in part.data_vars
        }
        part.to_netcdf(folder / "drawn" / f"{name}.nc", engine="netcdf4", encoding=packed)
    for path in sorted((results / "tables").glob("*.csv")):
        if not (folder / "tables" / path.name).exists() and path.stem != LEFT_OUT:
            table = read_table(path)
            table = table[table["arm"].isin([ARM, ""])] if path.stem in OF_NONE else table
            table.to_csv(
                folder / "drawn" / f"{path.name}.gz",
                index=False,
                compression={"method": "gzip", "mtime": 0},
            )


def reduced(data: xr.Dataset, main: str, spectra: bool) -> xr.Dataset:
    """What figures draw of a setting's dataset; all else is left out, or NaN, which takes no space.

    Args:
        data: of the setting.
        main: operator that stands for curvature.
        spectra: whether whole spectra are drawn.
    """
    every = {*OF_EVERY_ARM, f"{main}_effective_rank"}
    operators = panels.operators_of({"": data})
    wanted = [*every, *OF_REFERENCES]
    wanted += [
        f"{operator}_{number}{end}"
        for operator in operators
        for number in OF_OPERATORS
        for end in ("", "_standard_error")
    ]
    whole = (
        [f"{operator}_{number}" for operator in operators for number in SPECTRA] if spectra else []
    )
    part = data[sorted(name for name in (*wanted, *whole) if name in data)].load()
    for name in part.data_vars:
        values, dims = part[name], part[name].dims
        if name not in every and "arm" in dims:
            values = values.where(
                part.arm.isin([ARM] if name in whole else list(panels.REFERENCES))
            )
        if "evaluation_point" in dims and not str(name).endswith("_overlap"):
            values = values.where(part.evaluation_point == "next")
        if "block" in dims and name not in (*every, *OF_REFERENCES):
            values = values.where(part.block == "all")
        part[name] = values
    return part


def _made(results: Path, command: str) -> dict[str, object]:
    """By what results were made, and the megabytes of each of their folders."""
    record = read(results / "tables" / "statements.csv")
    by = (
        {
            "commit": record.commit,
            "files_changed_since": record.changed,
            "versions": record.versions,
        }
        if record
        else {}
    )
    sizes = {
        folder.name: sum(
            {
                file.stat().st_ino: file.stat().st_size
                for file in folder.rglob("*")
                if file.is_file()
            }.values()
        )
        for folder in sorted(results.iterdir())
        if folder.is_dir()
    }
    return {
        "command": command,
        "cores": os.cpu_count(),
        **by,
        "MB": {name: round(size / 1e6, 1) for name, size in sizes.items()},
    }


def published(study: Study, folder: Path) -> dict[str, xr.Dataset]:
    """Read what was published of each setting's dataset."""
    return {
        name: with_gaps(netcdf.read(folder / "drawn" / f"{name}.nc")) for name in study.settings
    }


def draw(
    study: Study, datasets: dict[str, xr.Dataset], folder: Path, figure: str, style: Style
) -> Figure:
    """Draw a figure of a published study again, from what was published."""
    datasets = {name: datasets[name] for name in study.drawn(figure)}
    wanted = registry.constant("figures", figure, "TABLES")
    tables = {name: read_table(place(folder, name)) for name in wanted}
    drawn: Figure = registry.load("figures", figure).draw(datasets, tables, style)
    return drawn


def place(folder: Path, name: str) -> Path:
    """Where a published table lies, whole or in part."""
    whole = folder / "tables" / f"{name}.csv"
    return whole if whole.exists() else folder / "drawn" / f"{name}.csv.gz"
