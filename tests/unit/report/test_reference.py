"""A study beside its reference: equal bytes, and where they differ, which numbers and by how much."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from plasticity.errors import StudyError
from plasticity.report import reference as reproducing
from plasticity.storage import netcdf


@pytest.fixture
def results(tmp_path):
    """Two datasets and two tables of a study, and the cost, which is never compared."""
    results = tmp_path / "results"
    for place, name in enumerate("ab"):
        values = np.arange(6.0).reshape(2, 3) + place
        values[0, 0] = np.nan
        netcdf.write(
            xr.Dataset({"error": (("seed", "task"), values)}), results / f"datasets/{name}.nc"
        )
    (results / "tables").mkdir()
    pd.DataFrame({"arm": ["none", "l2"], "mean": [0.25, 0.5], "n": [5, 5]}).to_csv(
        results / "tables/outcomes.csv", index=False
    )
    pd.DataFrame({"statement": ["Error rises.", ""]}).to_csv(
        results / "tables/statements.csv", index=False
    )
    (results / "tables/cost.csv").write_text("seconds\n3\n")
    return results


@pytest.fixture
def reference(results, tmp_path):
    assert reproducing.publish(results, tmp_path / "reference") == 4
    return tmp_path / "reference"


def test_the_same_results_are_the_same_whatever_they_cost(results, reference):
    (results / "tables/cost.csv").write_text("seconds\n4\n")
    assert reproducing.compare(results, reference) == (
        True,
        ["4 of 4 tables and datasets hold what the reference holds, bit for bit"],
    )
    assert reproducing.same_kind(reference)


def test_cells_that_differ_are_counted_and_measured(results, reference):
    pd.DataFrame({"arm": ["none", "l2"], "mean": [0.26, 0.75], "n": [5, 5]}).to_csv(
        results / "tables/outcomes.csv", index=False
    )
    pd.DataFrame({"statement": ["Error falls.", ""]}).to_csv(
        results / "tables/statements.csv", index=False
    )
    same, lines = reproducing.compare(results, reference)
    assert not same
    assert lines == [
        "tables/outcomes.csv: mean differs in 2 of 2 rows, at most by 0.25 (0.5 there, 0.75 here)",
        "tables/statements.csv: statement differs in 1 of 2 rows",
        "2 of 4 tables and datasets hold what the reference holds, bit for bit",
    ]


def test_variables_whose_mean_moved_are_named(results, reference):
    with xr.open_dataset(results / "datasets/a.nc") as data:
        moved = data.load() + 1
    netcdf.write(moved, results / "datasets/a.nc")
    same, lines = reproducing.compare(results, reference)
    assert not same
    assert lines[0] == "datasets/a.nc: 1 of 1 variables have another mean, the furthest:"
    assert (
        lines[1]
        == f"  error: by {1 / np.std(range(1, 6)):.2g} of its standard deviation (3 there, 4 here)"
    )


def test_a_single_bit_of_a_dataset_is_seen_and_the_code_that_made_it_is_not(results, reference):
    with xr.open_dataset(results / "datasets/a.nc") as data:
        held = data.load()
    netcdf.write(held.assign_attrs(code="other"), results / "datasets/a.nc")
    assert reproducing.compare(results, reference)[0]
    held["error"][1, 1] = np.nextafter(4.0, 5)
    netcdf.write(held, results / "datasets/a.nc")
    same, lines = reproducing.compare(results, reference)
    assert not same
    assert lines[0] == "datasets/a.nc: 0 of 1 variables have another mean; single numbers differ"


def test_large_tables_are_compared_by_the_means_of_their_columns(results, tmp_path, monkeypatch):
    monkeypatch.setattr(reproducing, "WHOLE", 60)
    assert reproducing.publish(results, tmp_path / "reference") == 4
    assert sorted(path.name for path in (tmp_path / "reference").rglob("*.csv")) == [
        "means.csv",
        "outcomes.csv",
        "statements.csv",
    ]
    monkeypatch.setattr(reproducing, "WHOLE", 10)
    assert reproducing.publish(results, tmp_path / "reference") == 4
    assert [path.name for path in (tmp_path / "reference").rglob("*.csv")] == ["means.csv"]
    pd.DataFrame({"arm": ["none", "l2"], "mean": [0.25, 0.75], "n": [5, 5]}).to_csv(
        results / "tables/outcomes.csv", index=False
    )
    same, lines = reproducing.compare(results, tmp_path / "reference")
    assert not same
    assert lines[:2] == [
        "tables/outcomes.csv: 1 of 3 variables have another mean, the furthest:",
        "  mean: by 1 of its standard deviation (0.375 there, 0.5 here)",
    ]


def test_missing_other_and_longer_files_are_said(results, reference):
    (results / "datasets/b.nc").unlink()
    (results / "tables/more.csv").write_text("a\n1\n")
    with (results / "tables/outcomes.csv").open("a") as table:
        table.write("l2_init,0.1,5\n")
    same, lines = reproducing.compare(results, reference)
    assert not same
    assert lines[:3] == [
        "datasets/b.nc is missing",
        "tables/more.csv is not in the reference",
        "tables/outcomes.csv has 3 rows of 3 columns, and the reference 2 of 3",
    ]


def test_another_kind_of_machine_is_said(results, reference):
    said = json.loads((reference / "reference.json").read_text())
    said["machine"] |= {"vendor": "Else", "torch": "1.0"}
    (reference / "reference.json").write_text(json.dumps(said))
    assert not reproducing.same_kind(reference)
    here = reproducing.machine()
    same, lines = reproducing.compare(results, reference)
    assert same, "bytes may be equal all the same"
    assert (
        lines[0]
        == f"the reference was made elsewhere: vendor Else, here {here['vendor']}; torch 1.0, here {here['torch']}"
    )


def test_without_a_reference_or_results_there_is_a_sentence(results, tmp_path):
    with pytest.raises(
        StudyError, match=r"only studies that were published below docs can be compared"
    ):
        reproducing.compare(results, tmp_path / "none")
    with pytest.raises(StudyError, match=r"has no datasets and tables: run the study first"):
        reproducing.publish(tmp_path / "empty", tmp_path / "reference")


def test_a_folder_that_is_no_reference_stays_as_it_is(results, reference, tmp_path):
    (reference / "figures").mkdir()
    reproducing.publish(results, reference)
    assert (reference / "figures").exists(), "what publishing does not write, it does not remove"
    (tmp_path / "gallery").mkdir()
    with pytest.raises(StudyError, match=r"gallery is there, and no published study"):
        reproducing.publish(results, tmp_path / "gallery")
    assert not list((tmp_path / "gallery").iterdir())


def test_configs_are_found_by_the_name_of_their_study():
    assert reproducing.config_of("digits").name == "config.yaml"
    assert reproducing.config_of("mnist").name == "mnist.yaml"
    with pytest.raises(StudyError, match=r"no config has the study 'mnits': there are .*digits"):
        reproducing.config_of("mnits")
