"""Publish a study's figures, with the part of its datasets and tables that they are drawn from."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from plasticity.config import registry
from plasticity.config.quantities import EXPLANATIONS, RANKS, SPECTRUM_NUMBERS
from plasticity.config.study import Study
from plasticity.provenance import record
from plasticity.report import pages, panels
from plasticity.report.drawing import draw_pages
from plasticity.report.style import Style
from plasticity.statistics.merge import add_gaps
from plasticity.statistics.meta_analysis import EXPLAINED_ARM
from plasticity.statistics.table_files import read_table
from plasticity.storage import netcdf

PROVENANCE = "made.json"
# large tables, of which only the arm without an intervention is published
TABLES_OF_ONE_ARM = ("associations", "lead_lag", "measures")
# the associations name the strongest null model that each of them beats
UNPUBLISHED_TABLE = "null_models"
# variables of all arms, in addition to the rank of the main operator
VARIABLES_OF_ALL_ARMS = ("final_error", "fresh_final_error")
# means of the tasks of a stage are drawn, so values of each task are left out
LEARNING_CURVES = ("error_curve", "loss_curve")
# variables of the arms without an intervention: none and the baseline
VARIABLES_OF_REFERENCES = (*EXPLANATIONS, *LEARNING_CURVES)


def publish(study: Study, results: Path, folder: Path, command: str) -> None:
    """Copy a study's figures, with the data that they are drawn from and their provenance.

    Args:
        study: the study.
        results: its finished results.
        folder: for published studies; it has the study's reference already.
        command: that made the results.
    """
    for name in ("figures", "drawn"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()
    shutil.copyfile(results / "tables" / "cost.csv", folder / "tables" / "cost.csv")
    for name in registry.names("figures"):
        for stem in pages.stems(name, study.drawn(name)):
            shutil.copyfile(results / "figures" / f"{stem}.png", folder / "figures" / f"{stem}.png")
    provenance = json.dumps(_provenance(results, command), indent=1)
    (folder / PROVENANCE).write_text(provenance + "\n", encoding="utf-8")
    _publish_datasets(study, results, folder)
    _publish_tables(results, folder)


def _publish_datasets(study: Study, results: Path, folder: Path) -> None:
    """Write the part of each dataset that figures are drawn from."""
    datasets = {
        name: netcdf.open_dataset(results / "datasets" / f"{name}.nc") for name in study.settings
    }
    main_operator = panels.main_operator(datasets)
    for name, data in datasets.items():
        part = reduced(data, main_operator, name in study.drawn("spectra"))
        encoding = {
            str(variable): {"zlib": True, "complevel": 9, "shuffle": True}
            for variable in part.data_vars
        }
        part.to_netcdf(folder / "drawn" / f"{name}.nc", engine="netcdf4", encoding=encoding)


def _publish_tables(results: Path, folder: Path) -> None:
    """Write the tables that the reference does not hold as files."""
    for path in sorted((results / "tables").glob("*.csv")):
        if (folder / "tables" / path.name).exists() or path.stem == UNPUBLISHED_TABLE:
            continue
        table = read_table(path)
        if path.stem in TABLES_OF_ONE_ARM:
            table = table[table["arm"].isin([EXPLAINED_ARM, ""])]
        table.to_csv(
            folder / "drawn" / f"{path.name}.gz",
            index=False,
            compression={"method": "gzip", "mtime": 0},
        )


def reduced(data: xr.Dataset, main_operator: str, has_spectra: bool) -> xr.Dataset:
    """Keep only what figures draw; all else is left out, or NaN, which takes no space on disk.

    Args:
        data: dataset of a setting.
        main_operator: the operator that stands for curvature.
        has_spectra: whether whole spectra of this setting are drawn.
    """
    operators = panels.measured_operators({"": data})
    of_all_arms = {*VARIABLES_OF_ALL_ARMS, *(f"{main_operator}_{rank}" for rank in RANKS)}
    of_all_blocks = {*of_all_arms, *VARIABLES_OF_REFERENCES}
    numbers = {
        f"{operator}_{number}{ending}"
        for operator in operators
        for number in SPECTRUM_NUMBERS
        for ending in ("", "_margin")
    }
    spectra = set()
    if has_spectra:
        spectra = {name for operator in operators for name in _drawn_spectra(data, operator)}
    wanted = of_all_blocks | numbers | spectra

    part = data[sorted(name for name in wanted if name in data)].load()
    for name in part.data_vars:
        values, dims = part[name], part[name].dims
        if "arm" in dims and name not in of_all_arms:
            drawn_arms = [EXPLAINED_ARM] if name in spectra else list(panels.REFERENCES)
            values = values.where(part.arm.isin(drawn_arms))
        if "evaluation_point" in dims and not str(name).endswith("_overlap"):
            values = values.where(part.evaluation_point == "next")
        if "block" in dims and name not in of_all_blocks:
            values = values.where(part.block == "all")
        if name in LEARNING_CURVES:
            values = panels.stage_means(values)
        # spectra are most of the file, and a figure needs no more digits
        part[name] = values.astype(np.float32) if name in spectra else values
    return part


def _drawn_spectra(data: xr.Dataset, operator: str) -> list[str]:
    """Name what is drawn of an operator's spectra, of the whole network on the next task's data.

    Of an estimate no eigenvalues are drawn. Of exact spectra a figure draws the density, too, if
    those of another setting are estimated.
    """
    if panels.has_estimates({"": data}, operator):
        return [f"{operator}_density"]
    return [f"{operator}_eigenvalue", f"{operator}_density"]


def _provenance(results: Path, command: str) -> dict[str, object]:
    """State what made the results, and the size of each of their folders in MB."""
    provenance: dict[str, Any] = {"command": command, "cores": os.cpu_count()}
    made_by = record.read(results / "tables" / "statements.csv")
    if made_by:
        provenance["release"] = made_by.release
        provenance["commit"] = made_by.commit
        provenance["files_changed_since"] = made_by.changed
        provenance["versions"] = made_by.versions
    provenance["MB"] = {
        folder.name: round(_folder_size(folder) / 1e6, 1)
        for folder in sorted(results.iterdir())
        if folder.is_dir()
    }
    return provenance


def _folder_size(folder: Path) -> int:
    """Sum up the sizes of files in bytes; hard links to one file count once."""
    sizes = {}
    for file in folder.rglob("*"):
        if file.is_file():
            status = file.stat()
            sizes[status.st_ino] = status.st_size
    return sum(sizes.values())


def published(study: Study, folder: Path) -> dict[str, xr.Dataset]:
    """Read the published part of each setting's dataset.

    Settings are described as in the study's config, because an earlier release may have stored
    keys that this one does not know.
    """
    datasets = {}
    for name, setting in study.settings.items():
        data = add_gaps(netcdf.read(folder / "drawn" / f"{name}.nc"))
        stored = json.loads(data.attrs["settings"]) | {"setting": asdict(setting)}
        datasets[name] = data.assign_attrs(settings=json.dumps(stored))
    return datasets


def draw(
    study: Study, datasets: Mapping[str, xr.Dataset], folder: Path, figure: str, style: Style
) -> Iterator[Figure]:
    """Draw the pages of a figure of a published study from its published data.

    Args:
        study: the study.
        datasets: as `published` reads them.
        folder: of the published study.
        figure: its name.
        style: the style of figures.

    Returns:
        One figure per page.
    """
    drawn_datasets = {name: datasets[name] for name in study.drawn(figure)}
    table_names = registry.constant("figures", figure, "TABLES")
    tables = {name: read_table(table_path(folder, name)) for name in table_names}
    return draw_pages(figure, drawn_datasets, tables, style)


def table_path(folder: Path, name: str) -> Path:
    """Return the path of a published table, which holds all rows or those of one arm."""
    complete = folder / "tables" / f"{name}.csv"
    return complete if complete.exists() else folder / "drawn" / f"{name}.csv.gz"
