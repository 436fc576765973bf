"""Results are compared with their reference bit for bit, and differences are described."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from plasticity.errors import StudyError
from plasticity.report import reference as references
from plasticity.storage import netcdf


@pytest.fixture
def results(tmp_path):
    """Two datasets and two tables of a study, and the cost, which is never compared."""
    results = tmp_path / "results"
    for offset, name in enumerate("ab"):
        values = np.arange(6.0).reshape(2, 3) + offset
        values[0, 0] = np.nan
        dataset = xr.Dataset({"error": (("seed", "task"), values)})
        netcdf.write(dataset, results / f"datasets/{name}.nc")
    (results / "tables").mkdir()
    write_outcomes(results, [0.25, 0.5])
    write_statements(results, "Error rises.")
    (results / "tables/cost.csv").write_text("seconds\n3\n")
    return results


def write_outcomes(results, means):
    table = pd.DataFrame({"arm": ["none", "l2"], "mean": means, "n": [5, 5]})
    table.to_csv(results / "tables/outcomes.csv", index=False)


def write_statements(results, statement):
    table = pd.DataFrame({"statement": [statement, ""]})
    table.to_csv(results / "tables/statements.csv", index=False)


def load(path):
    with xr.open_dataset(path) as dataset:
        return dataset.load()


@pytest.fixture
def reference(results, tmp_path):
    assert references.publish(results, tmp_path / "reference") == 4
    return tmp_path / "reference"


def test_equal_results_are_equal_at_any_cost(results, reference):
    (results / "tables/cost.csv").write_text("seconds\n4\n")
    assert references.compare(results, reference) == (
        True,
        ["4 of 4 tables and datasets hold what the reference holds, bit for bit"],
    )
    assert references.is_same_kind_of_machine(reference)


def test_cells_that_differ_are_counted_and_measured(results, reference):
    write_outcomes(results, [0.26, 0.75])
    write_statements(results, "Error falls.")
    is_equal, lines = references.compare(results, reference)
    assert not is_equal
    assert lines == [
        (
            "tables/outcomes.csv: mean differs in 2 of 2 rows, at most by 0.25"
            " (0.5 in the reference, 0.75 here)"
        ),
        "tables/statements.csv: statement differs in 1 of 2 rows",
        "2 of 4 tables and datasets hold what the reference holds, bit for bit",
    ]


def test_variables_with_another_mean_are_named(results, reference):
    path = results / "datasets/a.nc"
    netcdf.write(load(path) + 1, path)
    is_equal, lines = references.compare(results, reference)
    assert not is_equal
    distance = 1 / np.std(range(1, 6))
    assert lines[0] == "datasets/a.nc: 1 of 1 variables have another mean, the furthest:"
    assert lines[1] == (
        f"  error: by {distance:.2g} standard deviations (3 in the reference, 4 here)"
    )


def test_attributes_of_a_dataset_are_not_compared(results, reference):
    path = results / "datasets/a.nc"
    netcdf.write(load(path).assign_attrs(code="other"), path)
    assert references.compare(results, reference)[0]


def test_difference_of_one_bit_in_a_dataset_is_found(results, reference):
    path = results / "datasets/a.nc"
    dataset = load(path)
    dataset["error"][1, 1] = np.nextafter(4.0, 5)
    netcdf.write(dataset, path)
    is_equal, lines = references.compare(results, reference)
    assert not is_equal
    assert lines[0] == "datasets/a.nc: 0 of 1 variables have another mean; single numbers differ"


def test_reference_holds_small_tables_as_files_and_large_ones_as_means(
    results, tmp_path, monkeypatch
):
    monkeypatch.setattr(references, "LARGEST_TABLE", 60)
    assert references.publish(results, tmp_path / "reference") == 4
    names = sorted(path.name for path in (tmp_path / "reference").rglob("*.csv"))
    assert names == ["means.csv", "outcomes.csv", "statements.csv"]
    monkeypatch.setattr(references, "LARGEST_TABLE", 10)
    assert references.publish(results, tmp_path / "reference") == 4
    assert [path.name for path in (tmp_path / "reference").rglob("*.csv")] == ["means.csv"]


def test_large_tables_are_compared_by_the_means_of_their_columns(results, tmp_path, monkeypatch):
    monkeypatch.setattr(references, "LARGEST_TABLE", 10)
    references.publish(results, tmp_path / "reference")
    write_outcomes(results, [0.25, 0.75])
    is_equal, lines = references.compare(results, tmp_path / "reference")
    assert not is_equal
    assert lines[:2] == [
        "tables/outcomes.csv: 1 of 3 variables have another mean, the furthest:",
        "  mean: by 1 standard deviations (0.375 in the reference, 0.5 here)",
    ]


def test_dataset_of_one_setting_is_compared_alone(results, reference):
    (results / "datasets/b.nc").unlink()
    (results / "datasets/c.nc").touch()
    write_outcomes(results, [0.26, 0.75])
    one = ["1 of 1 tables and datasets hold what the reference holds, bit for bit"]
    assert references.compare(results, reference, "a") == (True, one)
    is_equal, lines = references.compare(results, reference, "b")
    assert not is_equal
    assert lines[0] == "datasets/b.nc is missing"
    netcdf.write(load(results / "datasets/a.nc") + 1, results / "datasets/a.nc")
    is_equal, lines = references.compare(results, reference, "a")
    assert not is_equal
    assert lines[0].startswith("datasets/a.nc: 1 of 1 variables have another mean")


def test_setting_that_is_not_published_is_refused(results, reference):
    with pytest.raises(StudyError, match=r"reference does not publish 'c'. Known: a, b."):
        references.compare(results, reference, "c")


def test_missing_additional_and_longer_files_are_named(results, reference):
    (results / "datasets/b.nc").unlink()
    (results / "tables/more.csv").write_text("a\n1\n")
    with (results / "tables/outcomes.csv").open("a") as table:
        table.write("l2_init,0.1,5\n")
    is_equal, lines = references.compare(results, reference)
    assert not is_equal
    assert lines[:3] == [
        "datasets/b.nc is missing",
        "tables/more.csv is not in the reference",
        "tables/outcomes.csv has 3 rows of 3 columns, and the reference 2 of 3",
    ]


def test_another_kind_of_machine_is_described(results, reference):
    recorded = json.loads((reference / "reference.json").read_text())
    recorded["machine"] |= {"vendor": "Else", "torch": "1.0"}
    (reference / "reference.json").write_text(json.dumps(recorded))
    assert not references.is_same_kind_of_machine(reference)
    this = references.machine()
    is_equal, lines = references.compare(results, reference)
    assert is_equal, "bytes may be equal on another kind of machine"
    assert lines[0] == (
        "the reference was made on another kind of machine:"
        f" vendor Else, here {this['vendor']}; torch 1.0, here {this['torch']}"
    )


def test_missing_reference_is_refused(results, tmp_path):
    message = r"Only studies that are published below docs can be compared"
    with pytest.raises(StudyError, match=message):
        references.compare(results, tmp_path / "none")


def test_missing_results_are_refused(tmp_path):
    with pytest.raises(StudyError, match=r"has no datasets and tables: run the study first"):
        references.publish(tmp_path / "empty", tmp_path / "reference")


def test_publishing_keeps_other_files_of_a_published_study(results, reference):
    (reference / "figures").mkdir()
    references.publish(results, reference)
    assert (reference / "figures").exists()


def test_publishing_into_another_folder_is_refused_and_leaves_it_unchanged(results, tmp_path):
    (tmp_path / "gallery").mkdir()
    with pytest.raises(StudyError, match=r"gallery exists, but is not a published study"):
        references.publish(results, tmp_path / "gallery")
    assert not list((tmp_path / "gallery").iterdir())
