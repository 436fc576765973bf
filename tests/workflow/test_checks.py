"""The checks on a study's results: a spoiled dataset is named in one line, and nothing is drawn from it."""

import shutil

import pytest
import xarray as xr
from tiers import slow_except

RELU = "digits_labels_relu"


def negative(data):
    """An error below zero."""
    data["final_error"][0, 1, 2] = -0.25
    return data


def ascending(data):
    """The largest eigenvalue last."""
    data["fisher_eigenvalue"] = (
        data["fisher_eigenvalue"].isel(rank=slice(None, None, -1)).assign_coords(rank=data["rank"])
    )
    return data


def one_seed_less(data):
    """The first seed taken out."""
    return data.isel(seed=[1])


def one_arm_less(data):
    """An arm is missing, and it is not the baseline."""
    return data.isel(arm=[0, *range(2, data.sizes["arm"])])


def a_gap(data):
    """An outcome missing of a run that did not diverge."""
    data["final_loss"][1, 0, 3] = float("nan")
    return data


def a_gap_in_a_curve(data):
    """A point of a learning curve missing of a run that did not diverge."""
    data["loss_curve"][1, 0, 3, 2] = float("nan")
    return data


def a_share_above_one(data):
    """A point of a learning curve that no error can have."""
    data["error_curve"][1, 0, 3, 2] = 1.5
    return data


def without_the_baseline(data):
    """No fresh network per task."""
    return data.drop_sel(arm="fresh")


def a_wrong_trace(data):
    """Twice the trace."""
    data["fisher_trace"] *= 2
    return data


def a_wrong_top(data):
    """A largest eigenvalue that no eigenvalue is."""
    data["fisher_top_eigenvalue"] *= 1.01
    return data


def a_layer_too_much(data):
    """A layer's numbers and spectrum ten times too large: they agree with each other, and with no other block's."""
    of_layer = {"block": data["block"].values == "hidden_1"}
    for name in ("fisher_trace", "fisher_top_eigenvalue", "fisher_eigenvalue"):
        data[name][of_layer] *= 10
    return data


def more_than_all_of_a_gradient(data):
    """A share above one."""
    data["fisher_gradient_overlap"][1, 0, 3, 1, 0] = 1.5
    return data


def curvature_of_no_data(data):
    """Curvature on old data before the first task."""
    data["fisher_trace"][:, :, 0] = data["fisher_trace"][:, :, 1]
    return data


HARMS = {
    a_wrong_top: "fisher: the largest eigenvalue is not the first",
    a_layer_too_much: "fisher: the layers' traces do not add up to the whole",
    more_than_all_of_a_gradient: "fisher_gradient_overlap leaves [0, 1]",
    curvature_of_no_data: "fisher has values where it was not requested, or could not be computed",
    negative: "final_error leaves [0, 1]",
    ascending: "fisher: eigenvalues do not descend",
    one_seed_less: "seeds are missing: only [1] are there",
    one_arm_less: "arms are missing: none, l2(strength=0.001)",
    a_gap: "final_loss is missing for a run that did not diverge",
    a_gap_in_a_curve: "loss_curve is missing for a run that did not diverge",
    a_share_above_one: "error_curve leaves [0, 1]",
    without_the_baseline: "the fresh network per task is missing",
    a_wrong_trace: "fisher: eigenvalues do not add up to the trace",
}


def spoil(path, harm):
    """Change a dataset where it lies."""
    with xr.open_dataset(path) as data:
        spoiled = harm(data.load().copy(deep=True))
    path.unlink()
    spoiled.to_netcdf(path)


def checked(project, datasets, verdict):
    """The checks by hand, as the rule calls them."""
    typeset = {"settings.csv", "methods.csv", "cost.csv"}  # after the checks
    tables = sorted(
        path for path in (project.results / "tables").glob("*.csv") if path.name not in typeset
    )
    command = ["python", "-m", "pytest", "-p", "no:cacheprovider", "-q", "tests/results"]
    return project.run(*command, "--datasets", *datasets, "--tables", *tables, "--verdict", verdict)


def test_results_as_they_were_made_pass_every_check(built, tmp_path):
    done = checked(
        built, sorted((built.results / "datasets").glob("*.nc")), tmp_path / "checks.txt"
    )
    assert done.returncode == 0, done.stdout
    passed = (tmp_path / "checks.txt").read_text().splitlines()
    assert sorted(passed) == sorted((built.results / "checks.txt").read_text().splitlines())
    assert len(passed) == len(set(passed)) > 10


@pytest.mark.parametrize(
    "harm",
    slow_except([negative, one_seed_less, a_wrong_trace], HARMS),
    ids=lambda harm: harm.__name__,
)
def test_a_spoiled_dataset_is_found_and_no_verdict_is_written(built, tmp_path, harm):
    path = tmp_path / f"{RELU}.nc"
    shutil.copy(built.results / "datasets" / path.name, path)
    spoil(path, harm)
    done = checked(built, [path], tmp_path / "checks.txt")
    assert done.returncode == 1
    assert [
        line for line in done.stdout.splitlines() if line.startswith("E ") and HARMS[harm] in line
    ], done.stdout
    assert not (tmp_path / "checks.txt").exists()


def test_the_rule_says_what_is_wrong_in_a_line_and_draws_nothing(copy):
    shutil.rmtree(copy.results / "figures")
    (copy.results / "report.html").unlink()
    spoil(copy.results / "datasets" / f"{RELU}.nc", negative)
    (
        copy.results / "provenance" / "datasets" / f"{RELU}.nc.json"
    ).unlink()  # else it is refused for its checksum
    done = copy.snakemake()
    assert done.returncode != 0
    assert [line for line in done.stdout.splitlines() if "final_error leaves [0, 1]" in line], (
        done.stdout[-3000:]
    )
    assert "Traceback" not in done.stdout
    assert not (copy.results / "figures").exists()
    assert not (copy.results / "report.html").exists()
    assert not (copy.results / "checks.txt").exists()
