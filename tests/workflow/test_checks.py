"""The rule `check` refuses a dataset with an error, and Snakemake draws no figure from it."""

import shutil

import pytest
import xarray as xr
from tiers import slow_except

RELU = "digits_labels_relu"
TABLES_AFTER_CHECKS = {"settings.csv", "methods.csv", "cost.csv"}


# Errors in a dataset


def set_negative_error(data):
    """Set an error below 0."""
    data["final_error"][0, 1, 2] = -0.25
    return data


def reverse_eigenvalues(data):
    """Put the largest eigenvalue last."""
    reversed_values = data["fisher_eigenvalue"].isel(rank=slice(None, None, -1))
    data["fisher_eigenvalue"] = reversed_values.assign_coords(rank=data["rank"])
    return data


def drop_seed(data):
    """Drop the first of two seeds."""
    return data.isel(seed=[1])


def drop_arm(data):
    """Drop an arm that is not the baseline."""
    return data.isel(arm=[0, *range(2, data.sizes["arm"])])


def drop_baseline(data):
    """Drop the network initialised from scratch for every task."""
    return data.drop_sel(arm="fresh")


def remove_outcome(data):
    """Set an outcome of a run that did not diverge to NaN."""
    data["final_loss"][1, 0, 3] = float("nan")
    return data


def remove_curve_point(data):
    """Set a point of a learning curve of a run that did not diverge to NaN."""
    data["loss_curve"][1, 0, 3, 2] = float("nan")
    return data


def set_curve_point_above_one(data):
    """Set a point of a curve of errors above 1."""
    data["error_curve"][1, 0, 3, 2] = 1.5
    return data


def double_trace(data):
    """Double the trace, but not the eigenvalues."""
    data["fisher_trace"] *= 2
    return data


def enlarge_top_eigenvalue(data):
    """Make the largest eigenvalue differ from the first one of the spectrum."""
    data["fisher_top_eigenvalue"] *= 1.01
    return data


def enlarge_layer(data):
    """Multiply all numbers of one layer by 10, so that they contradict those of other blocks."""
    layer = {"block": data["block"].values == "hidden_1"}
    for name in ("fisher_trace", "fisher_top_eigenvalue", "fisher_eigenvalue"):
        data[name][layer] *= 10
    return data


def set_overlap_above_one(data):
    """Set the share of a gradient above 1."""
    data["fisher_gradient_overlap"][1, 0, 3, 1, 0] = 1.5
    return data


def set_curvature_without_data(data):
    """Set the curvature on the previous task's data at the first task, which has no such data."""
    data["fisher_trace"][:, :, 0] = data["fisher_trace"][:, :, 1]
    return data


MESSAGES = {
    enlarge_top_eigenvalue: "fisher: the largest eigenvalue is not the first",
    enlarge_layer: "fisher: the layers' traces do not add up to the whole",
    set_overlap_above_one: "fisher_gradient_overlap leaves [0, 1]",
    set_curvature_without_data: (
        "fisher has values where it was not requested, or could not be computed"
    ),
    set_negative_error: "final_error leaves [0, 1]",
    reverse_eigenvalues: "fisher: eigenvalues do not descend",
    drop_seed: "seeds are missing: only [1] are there",
    drop_arm: "arms are missing: none, l2(strength=0.001)",
    remove_outcome: "final_loss is missing for a run that did not diverge",
    remove_curve_point: "loss_curve is missing for a run that did not diverge",
    set_curve_point_above_one: "error_curve leaves [0, 1]",
    drop_baseline: "the fresh network per task is missing",
    double_trace: "fisher: eigenvalues do not add up to the trace",
}
QUICK_CASES = [set_negative_error, drop_seed, double_trace]


def damage_dataset(path, damage):
    """Apply a function to a dataset, and write the result to the same file."""
    with xr.open_dataset(path) as data:
        damaged = damage(data.load().copy(deep=True))
    path.unlink()
    damaged.to_netcdf(path)


# Checks


def run_checks(project, datasets, verdict):
    """Run the checks with the command of the rule `check`."""
    paths = sorted((project.results / "tables").glob("*.csv"))
    tables = [path for path in paths if path.name not in TABLES_AFTER_CHECKS]
    command = ["python", "-m", "pytest", "-p", "no:cacheprovider", "-q", "tests/results"]
    return project.run(*command, "--datasets", *datasets, "--tables", *tables, "--verdict", verdict)


def test_unchanged_results_pass_every_check(tiny_study, tmp_path):
    verdict = tmp_path / "checks.txt"
    datasets = sorted((tiny_study.results / "datasets").glob("*.nc"))
    process = run_checks(tiny_study, datasets, verdict)
    assert process.returncode == 0, process.stdout
    passed = verdict.read_text().splitlines()
    passed_in_study = (tiny_study.results / "checks.txt").read_text().splitlines()
    assert sorted(passed) == sorted(passed_in_study)
    assert len(passed) == len(set(passed))
    assert len(passed) > 10


@pytest.mark.parametrize(
    "damage", slow_except(QUICK_CASES, MESSAGES), ids=lambda damage: damage.__name__
)
def test_damaged_dataset_fails_a_check_and_gets_no_verdict(tiny_study, tmp_path, damage):
    path = tmp_path / f"{RELU}.nc"
    verdict = tmp_path / "checks.txt"
    shutil.copy(tiny_study.results / "datasets" / path.name, path)
    damage_dataset(path, damage)
    process = run_checks(tiny_study, [path], verdict)
    assert process.returncode == 1
    error_lines = [line for line in process.stdout.splitlines() if line.startswith("E ")]
    assert any(MESSAGES[damage] in line for line in error_lines), process.stdout
    assert not verdict.exists()


def test_snakemake_names_the_failed_check_and_draws_no_figure(built_copy):
    results = built_copy.results
    shutil.rmtree(results / "figures")
    (results / "report.html").unlink()
    damage_dataset(results / "datasets" / f"{RELU}.nc", set_negative_error)
    # With its record, the dataset would be refused because of its checksum.
    (results / "provenance" / "datasets" / f"{RELU}.nc.json").unlink()
    process = built_copy.snakemake()
    assert process.returncode != 0
    lines = process.stdout.splitlines()
    assert any("final_error leaves [0, 1]" in line for line in lines), process.stdout[-3000:]
    assert "Traceback" not in process.stdout
    assert not (results / "figures").exists()
    assert not (results / "report.html").exists()
    assert not (results / "checks.txt").exists()
