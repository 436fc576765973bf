"""Checks that the results of every study must pass before figures are drawn."""

import json
import re

import numpy as np

from plasticity.config.models import BASELINE, Curvature, Setting, is_baseline
from plasticity.curvature import measure
from plasticity.data import shift
from plasticity.interventions import variables
from plasticity.statistics import merge
from plasticity.training import outcomes

# A trace is stored in float32, the eigenvalues in float64. So smaller differences do not count.
TINY = np.finfo(np.float32).tiny


def read_curvature(data):
    """Return the curvature section of the config."""
    return Curvature.of(json.loads(data.attrs["settings"])["curvature"])


def build_problem(data):
    """Return the problem of the setting."""
    return Setting.of(json.loads(data.attrs["settings"])["setting"]).problem


def build_shift(data):
    """Build the shift of the setting, which says how its tasks differ."""
    return shift.build_shift(build_problem(data))


def of_runs(data):
    """Return the variables of runs, so without those of treated copies."""
    return data.drop_dims(["treatment"], errors="ignore")


# Runs


def test_every_variable_has_the_documented_dims_and_a_description(data):
    documented = outcomes.TABLE | outcomes.FRESH | merge.GAPS | measure.table(read_curvature(data))
    for name, values in of_runs(data).items():
        dims = documented[name].dims
        assert values.dims == dims, f"{name} has dims {values.dims}, not {dims}"
        assert values.attrs["long_name"], f"{name} has no long_name"
        assert values.attrs["units"], f"{name} has no units"


def test_every_coordinate_has_a_description(data):
    for name, values in data.coords.items():
        assert values.attrs["long_name"], f"{name} has no long_name"
        assert values.attrs["units"], f"{name} has no units"


def test_numbers_in_the_name_of_an_arm_are_its_coordinates(data):
    for arm in data.arm.values:
        for key, number in re.findall(r"([\w.]+)=([-+.\de]+)[,)]", arm):
            name = merge.HYPERPARAMETER + key.replace(".", "_")
            assert data[name].dims == ("arm",), f"{name} has dims {data[name].dims}"
            value = data[name].sel(arm=arm).item()
            assert value == float(number), f"{name} of {arm} is {value}"


def test_every_run_is_present_once(data):
    for dim in ("arm", "seed", "task"):
        assert data[dim].to_index().is_unique, f"{dim} has a value twice: {data[dim].values}"
    assert BASELINE in data.arm, "the fresh network per task is missing"
    seeds = np.arange(data.sizes["seed"])
    assert (data.seed == seeds).all(), f"seeds are missing: only {data.seed.values} are there"
    expected_arms = json.loads(data.attrs["settings"])["arms"]
    arms = list(data.arm.values)
    assert arms == expected_arms, (
        f"arms are missing: {', '.join(expected_arms)} are expected, but the dataset has "
        f"{', '.join(arms)}"
    )


# Outcomes


def test_errors_are_in_range(data):
    largest = 1 if build_shift(data).LOSS == "cross_entropy" else np.inf
    for name, variable in data.data_vars.items():
        is_of_curvature = "block" in variable.dims
        if "error" not in name or is_of_curvature or name in merge.GAPS:
            continue
        values = variable.values[np.isfinite(variable.values)]
        assert ((values >= 0) & (values <= largest)).all(), f"{name} leaves [0, {largest}]"


def test_outcome_is_missing_exactly_where_the_run_diverged(data):
    names = {
        "final_error",
        "final_loss",
        "online_error",
        "update_norm",
        "error_curve",
        "loss_curve",
        "test_error",
    }
    has_diverged = data["status"] == 1
    for name in names & set(data):
        assert (np.isnan(data[name]) == has_diverged).all(), (
            f"{name} is missing for a run that did not diverge, or the reverse"
        )


def test_gap_is_the_outcome_minus_that_of_the_baseline(data):
    for name in set(merge.GAPS) & set(data):
        outcome = name.removesuffix("_gap")
        difference = data[outcome] - data[f"fresh_{outcome}"]
        assert np.array_equal(data[name], difference, equal_nan=True), f"{name} is no difference"
        assert (data[name].sel(arm=BASELINE).fillna(0) == 0).all(), "the baseline has a gap"


def test_baseline_learns_late_tasks_as_well_as_early_ones(data):
    for arm in (arm for arm in data.arm.values if is_baseline(arm)):
        errors = data["final_error"].sel(arm=arm).dropna("seed", how="any").mean("seed").values
        if build_shift(data).EQUALLY_HARD:
            assert_no_drift(errors)


def assert_no_drift(errors):
    """Assert that the errors of late tasks are like those of early ones."""
    early, late = np.array_split(errors, 2)
    if len(late) < 4 or np.isnan(errors).any():
        return
    noise = np.sqrt(early.var(ddof=1) / len(early) + late.var(ddof=1) / len(late))
    drift = abs(early.mean() - late.mean())
    assert drift < 0.1 * max(1, errors.mean()) + 4 * noise, (
        "a fresh network's error drifts over the tasks"
    )


# Interventions


def test_every_variable_of_copies_has_the_documented_dims_and_a_description(data):
    if "treatment" not in data.dims:
        return
    documented = variables.table(read_curvature(data), build_problem(data))
    for name in set(data.data_vars) - set(of_runs(data).data_vars):
        values = data[name]
        dims = [dim.removeprefix("treated_") for dim in values.dims]
        assert dims == list(documented[name.removeprefix("treated_")].dims), f"{name} has {dims}"
        assert values.attrs["long_name"], f"{name} has no long_name"
        assert values.attrs["units"], f"{name} has no units"


def test_every_copy_is_present(data):
    settings = json.loads(data.attrs["settings"])
    if "treatments" not in settings:
        assert "treatment" not in data.dims, "there are copies that nobody asked for"
        return
    expected = [treatment["name"] for treatment in settings["treatments"]]
    assert list(data.treatment.values) == expected, "copies are missing, or in another order"
    assert list(data.treated_task.values) == settings["treated_tasks"], "treated tasks are missing"
    assert set(data.treated_arm.values) <= set(data.arm.values), "copies of an unknown arm"


def test_untreated_copy_repeats_its_run_to_the_bit(data):
    if "treatment" not in data.dims:
        return
    same_runs = data.sel(arm=data.treated_arm, task=data.treated_task)
    untreated = data.sel(treatment="none")
    for name in variables.outcomes_of_copies(build_problem(data)):
        of_run = same_runs[name].transpose("treated_arm", "seed", "treated_task").values
        of_copy = untreated[f"treated_{name}"].values
        assert np.array_equal(of_copy, of_run, equal_nan=True), (
            f"{name} of a copy without a treatment differs from that of its run"
        )


def test_outcome_of_a_copy_is_missing_exactly_where_it_or_its_run_diverged(data):
    if "treatment" not in data.dims:
        return
    codes = [variables.STATUS["diverged"], variables.STATUS["run_diverged"]]
    has_diverged = data["treated_copy_status"].isin(codes)
    for name in variables.outcomes_of_copies(build_problem(data)):
        assert (np.isnan(data[f"treated_{name}"]) == has_diverged).all(), (
            f"{name} is missing for a copy that did not diverge, or the reverse"
        )


# Curvature


def has_exact_spectrum(data, operator):
    """Return a mask of where all eigenvalues of an operator are exact."""
    trace = data[f"{operator}_trace"]
    margin = data.get(f"{operator}_trace_margin", 0 * trace)
    return np.isfinite(trace) & (margin == 0)


def test_eigenvalues_descend(data):
    for operator in read_curvature(data).operators:
        values = data[f"{operator}_eigenvalue"]
        is_measured = np.isfinite(data[f"{operator}_trace"])
        largest = abs(values).max("rank").where(is_measured, 1)
        steps = values.diff("rank").where(is_measured, -1).fillna(-1)
        assert (steps <= 1e-6 * largest).all(), f"{operator}: eigenvalues do not descend"


def test_eigenvalues_add_up_to_the_trace(data):
    for operator in read_curvature(data).operators:
        values = data[f"{operator}_eigenvalue"]
        difference = abs(values.sum("rank") - data[f"{operator}_trace"])
        tolerance = 1e-4 * abs(values).sum("rank") + TINY
        is_exact = has_exact_spectrum(data, operator)
        assert (difference.where(is_exact, 0) <= tolerance).all(), (
            f"{operator}: eigenvalues do not add up to the trace"
        )


def test_effective_rank_is_in_range(data):
    for operator in read_curvature(data).operators:
        rank = data[f"{operator}_effective_rank"]
        largest = data[f"{operator}_rank_limit"]
        is_in_range = (rank >= 0) & (rank <= largest)
        assert is_in_range.where(np.isfinite(rank), True).all(), (
            f"{operator}: a rank leaves [0, {float(largest.max()):.0f}]"
        )
        # of an estimate the rank may be unknown
        is_known = np.isfinite(rank).where(has_exact_spectrum(data, operator), True)
        assert is_known.all(), f"{operator}: a rank of an exact spectrum is missing"


def test_top_eigenvalue_is_the_first_of_the_spectrum(data):
    for operator in read_curvature(data).operators:
        first = data[f"{operator}_eigenvalue"].isel(rank=0)
        top = data[f"{operator}_top_eigenvalue"]
        is_exact = has_exact_spectrum(data, operator)
        difference = abs(first - top).where(is_exact, 0)
        tolerance = 1e-6 * abs(top).where(is_exact, 0) + TINY
        assert (difference <= tolerance).all(), (
            f"{operator}: the largest eigenvalue is not the first"
        )


def test_traces_of_layers_add_up_to_the_trace_of_all(data):
    for operator, spectra in read_curvature(data).operators.items():
        if not {"layers", "all"} <= set(spectra.blocks):
            continue
        trace = data[f"{operator}_trace"]
        is_exact = has_exact_spectrum(data, operator)
        layers = [block for block in data.block.values if block not in ("last_two", "all")]
        # the trace of a layer is missing where the network has no layer of that name
        are_layers_exact = (is_exact | trace.isnull()).sel(block=layers).all("block")
        are_all_exact = is_exact.sel(block="all") & are_layers_exact
        total = trace.sel(block=layers).sum("block")
        difference = abs(total - trace.sel(block="all")).where(are_all_exact, 0)
        tolerance = 1e-4 * abs(trace).sum("block") + TINY
        assert (difference <= tolerance).all(), (
            f"{operator}: the layers' traces do not add up to the whole"
        )


def check_share_is_in_range(name, share):
    """Check that the finite values of a share are in [0, 1], but for rounding."""
    values = share.values[np.isfinite(share.values)]
    assert ((values >= -1e-6) & (values <= 1 + 1e-6)).all(), f"{name} leaves [0, 1]"


def test_shares_of_curvature_are_in_range_and_errors_are_not_negative(data):
    for operator in read_curvature(data).operators:
        for name in (f"{operator}_gradient_overlap", f"{operator}_negative_fraction"):
            check_share_is_in_range(name, data[name])
        for name in data:
            if name.startswith(f"{operator}_") and name.endswith(("_error", "_margin")):
                assert not (data[name] < 0).any(), f"{name} is below zero"


def test_curvature_has_values_only_where_it_was_requested_and_computed(data):
    is_layer = ~data.block.isin(["last_two", "all"])
    is_measured = data["curvature_status"] == measure.STATUS["measured"]
    for operator, spectra in read_curvature(data).operators.items():
        is_requested = (
            data.evaluation_point.isin(spectra.evaluation_points)
            & (data.task % spectra.every == 0)
            & (data.block.isin(spectra.blocks) | (is_layer & ("layers" in spectra.blocks)))
        )
        has_value = data[f"{operator}_trace"].notnull()
        assert not (has_value & ~(is_requested & is_measured)).any(), (
            f"{operator} has values where it was not requested, or could not be computed"
        )


def test_first_task_has_no_previous_data(data):
    if "previous" in data.evaluation_point:
        rank = data["feature_rank"].sel(evaluation_point="previous").isel(task=0)
        assert np.isnan(rank).all(), "the first task has measures on data of a previous task"


# Tables


def interval_columns(table):
    """List the names of the columns with an estimate, and with the ends of its interval."""
    named = {"estimate", "mean"} & set(table) if "low" in table else set()
    columns = [(name, "low", "high") for name in sorted(named)]
    columns += [(name, f"{name}_low", f"{name}_high") for name in table if f"{name}_low" in table]
    return columns


def test_intervals_contain_their_estimate(table):
    for estimate_name, low_name, high_name in interval_columns(table):
        estimate = table[estimate_name]
        low = table[low_name]
        high = table[high_name]
        is_inside = (low <= estimate + 1e-9) & (estimate <= high + 1e-9)
        assert is_inside[low.notna()].all(), "an interval does not contain its estimate"


def test_row_without_a_number_has_a_note(table):
    if "note" not in table:
        return
    for name in {"estimate", "mean", "final_error_late"} & set(table):
        notes = table["note"][table[name].isna()]
        assert (notes != "").all(), "a number is missing, and no note says why"


def test_missing_number_has_the_note_of_its_column(table):
    for note_name in table.columns[table.columns.str.endswith("_note")]:
        name = note_name.removesuffix("_note")
        notes = table[note_name][table[name].isna()]
        assert (notes != "").all(), f"{name} is missing without a note"


def test_adjusted_p_is_not_below_p_and_missing_together_with_it(table):
    if "p_adjusted" not in table:
        return
    p = table["p"]
    adjusted = table["p_adjusted"]
    assert (adjusted.isna() == p.isna()).all(), "p or adjusted p is missing, but not both"
    assert ((adjusted >= p - 1e-9) | p.isna()).all(), "an adjusted p is below its p"


def test_p_is_a_probability(table):
    for name in {"p", "p_adjusted", "p_heterogeneity"} & set(table):
        assert (table[name].dropna().between(0, 1)).all(), f"{name} leaves [0, 1]"
