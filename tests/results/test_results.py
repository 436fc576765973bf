"""Checks that the results of every study must pass before figures are drawn."""

import json

import numpy as np

from plasticity.config.models import BASELINE, Curvature, Setting
from plasticity.curvature import measure
from plasticity.data import shift
from plasticity.training import outcomes

TINY = np.finfo(np.float32).tiny  # a trace is stored in float32, the eigenvalues in float64


def curvature_of(data):
    """Return the curvature section of the config."""
    return Curvature.of(json.loads(data.attrs["settings"])["curvature"])


def shift_of(data):
    """Return how the tasks of the setting differ."""
    setting = Setting.of(json.loads(data.attrs["settings"])["setting"])
    return shift.build_shift(setting.problem)


# Runs


def test_every_variable_is_described_as_in_the_contract(data):
    contract = outcomes.TABLE | outcomes.FRESH | measure.table(curvature_of(data))
    for name, values in data.data_vars.items():
        dims = contract[name].dims
        assert values.dims == dims, f"{name} has dims {values.dims}, not {dims}"
        assert values.attrs["long_name"], f"{name} has no long_name"
        assert values.attrs["units"], f"{name} has no units"


def test_every_run_is_there_once(data):
    for dim in ("arm", "seed", "task"):
        assert data[dim].to_index().is_unique, f"{dim} has a value twice: {data[dim].values}"
    assert BASELINE in data.arm, "the fresh network per task is missing"
    seeds = np.arange(data.sizes["seed"])
    assert (data.seed == seeds).all(), f"seeds are missing: only {data.seed.values} are there"
    arms = json.loads(data.attrs["settings"])["arms"]
    present = list(data.arm.values)
    assert present == arms, (
        f"arms are missing: {', '.join(arms)} are expected, and {', '.join(present)} are there"
    )


# Outcomes


def test_errors_are_in_range(data):
    largest = 1 if shift_of(data).LOSS == "cross_entropy" else np.inf
    for name, variable in data.data_vars.items():
        if "error" not in name or "block" in variable.dims:
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


def test_baseline_learns_late_tasks_as_well_as_early_ones(data):
    errors = data["fresh_final_error"].dropna("seed", how="any").mean("seed").values
    early, late = np.array_split(errors, 2)
    has_diverged = np.isnan(errors).any()  # the status tells it
    if len(late) < 4 or has_diverged or not shift_of(data).EQUALLY_HARD:
        return
    noise = np.sqrt(early.var(ddof=1) / len(early) + late.var(ddof=1) / len(late))
    drift = abs(early.mean() - late.mean())
    assert drift < 0.1 * max(1, errors.mean()) + 4 * noise, (
        "a fresh network's error drifts over the tasks"
    )


# Curvature


def all_eigenvalues_known(data, operator):
    """Return where all eigenvalues of an operator are known exactly."""
    trace = data[f"{operator}_trace"]
    standard_error = data.get(f"{operator}_trace_standard_error", 0 * trace)
    return np.isfinite(trace) & (standard_error == 0)


def test_eigenvalues_descend(data):
    for operator in curvature_of(data).operators:
        values = data[f"{operator}_eigenvalue"]
        is_measured = np.isfinite(data[f"{operator}_trace"])
        largest = abs(values).max("rank").where(is_measured, 1)
        steps = values.diff("rank").where(is_measured, -1).fillna(-1)
        assert (steps <= 1e-6 * largest).all(), f"{operator}: eigenvalues do not descend"


def test_eigenvalues_add_up_to_the_trace(data):
    for operator in curvature_of(data).operators:
        values, trace = data[f"{operator}_eigenvalue"], data[f"{operator}_trace"]
        difference = abs(values.sum("rank") - trace).where(all_eigenvalues_known(data, operator), 0)
        assert (difference <= 1e-4 * abs(values).sum("rank") + TINY).all(), (
            f"{operator}: eigenvalues do not add up to the trace"
        )


def test_effective_rank_is_in_range(data):
    for operator in curvature_of(data).operators:
        rank = data[f"{operator}_effective_rank"]
        samples = data[f"{operator}_eigenvalue"].sizes["rank"]
        is_measured = np.isfinite(data[f"{operator}_trace"])
        in_range = (rank >= 0) & ((rank <= samples) | ~all_eigenvalues_known(data, operator))
        assert in_range.where(is_measured, True).all(), f"{operator}: a rank leaves [0, n]"


def test_top_eigenvalue_is_the_first_of_the_spectrum(data):
    for operator in curvature_of(data).operators:
        first = data[f"{operator}_eigenvalue"].isel(rank=0)
        top = data[f"{operator}_top_eigenvalue"]
        known = all_eigenvalues_known(data, operator)
        difference = abs(first - top).where(known, 0)
        assert (difference <= 1e-6 * abs(top).where(known, 0) + TINY).all(), (
            f"{operator}: the largest eigenvalue is not the first"
        )


def test_traces_of_layers_add_up_to_the_trace_of_all(data):
    for operator, spectra in curvature_of(data).operators.items():
        if not {"layers", "all"} <= set(spectra.blocks):
            continue
        trace, known = data[f"{operator}_trace"], all_eigenvalues_known(data, operator)
        layers = [block for block in data.block.values if block not in ("last_two", "all")]
        # the trace of a layer is missing where the network has no layer of that name
        known_layers = (known | trace.isnull()).sel(block=layers).all("block")
        known = known.sel(block="all") & known_layers
        total = trace.sel(block=layers).sum("block")
        difference = abs(total - trace.sel(block="all")).where(known, 0)
        assert (difference <= 1e-4 * abs(trace).sum("block") + TINY).all(), (
            f"{operator}: the layers' traces do not add up to the whole"
        )


def test_shares_of_curvature_are_in_range_and_errors_are_not_negative(data):
    for operator in curvature_of(data).operators:
        for name in (f"{operator}_gradient_overlap", f"{operator}_negative_fraction"):
            values = data[name].values[np.isfinite(data[name].values)]
            assert ((values >= -1e-6) & (values <= 1 + 1e-6)).all(), f"{name} leaves [0, 1]"
        for name in data:
            if name.startswith(f"{operator}_") and name.endswith("_error"):
                assert not (data[name] < 0).any(), f"{name} is below zero"


def test_curvature_has_values_only_where_it_was_requested_and_computed(data):
    is_layer = ~data.block.isin(["last_two", "all"])
    is_measured = data["curvature_status"] == measure.STATUS["measured"]
    for operator, spectra in curvature_of(data).operators.items():
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


def intervals(table):
    """List the numbers of a table that have an interval, with the ends of the interval."""
    columns = [(name, "low", "high") for name in ("estimate", "mean") if name in table]
    columns += [(name, f"{name}_low", f"{name}_high") for name in table if f"{name}_low" in table]
    return [tuple(table[name] for name in names) for names in columns]


def test_intervals_contain_their_estimate(table):
    for estimate, low, high in intervals(table):
        is_inside = (low <= estimate + 1e-9) & (estimate <= high + 1e-9)
        assert is_inside[low.notna()].all(), "an interval does not contain its estimate"


def test_row_without_a_number_has_a_note(table):
    if "note" not in table:
        return
    for name in {"estimate", "mean", "final_error_late"} & set(table):
        notes = table["note"][table[name].isna()]
        assert (notes != "").all(), "a number is missing, and no note says why"


def test_adjusted_p_is_not_below_p_and_missing_together_with_it(table):
    if "p_adjusted" not in table:
        return
    p, adjusted = table["p"], table["p_adjusted"]
    assert (adjusted.isna() == p.isna()).all(), "p or adjusted p is missing without the other"
    assert ((adjusted >= p - 1e-9) | p.isna()).all(), "an adjusted p is below its p"


def test_p_is_a_probability(table):
    for name in {"p", "p_adjusted", "p_heterogeneity"} & set(table):
        assert (table[name].dropna().between(0, 1)).all(), f"{name} leaves [0, 1]"
