"""What must hold of any study's results. The rule `check` runs this; no figure is drawn before it passes."""

import json

import numpy as np

from plasticity.config.models import BASELINE, Curvature, Setting
from plasticity.curvature import measure
from plasticity.data import shift
from plasticity.training import outcomes

TINY = np.finfo(np.float32).tiny  # a trace is kept in float32, its eigenvalues are not


def curvature(data):
    """What was asked for of each operator."""
    return Curvature.of(json.loads(data.attrs["settings"])["curvature"])


def test_every_variable_is_one_of_the_contract_and_says_what_it_is(data):
    contract = outcomes.TABLE | outcomes.FRESH | measure.table(curvature(data))
    for name, values in data.data_vars.items():
        assert values.dims == contract[name].dims, (
            f"{name} has dims {values.dims}, not {contract[name].dims}"
        )
        assert values.attrs["long_name"], f"{name} has no long_name"
        assert values.attrs["units"], f"{name} has no units"


def test_every_run_is_there_once(data):
    for dim in ("arm", "seed", "task"):
        assert data[dim].to_index().is_unique, f"{dim} has a value twice: {data[dim].values}"
    assert BASELINE in data.arm, "the fresh network per task is missing"
    assert (data.seed == np.arange(data.sizes["seed"])).all(), (
        f"seeds are missing: only {data.seed.values} are there"
    )
    arms = json.loads(data.attrs["settings"])["arms"]
    assert list(data.arm.values) == arms, (
        f"arms are missing: {', '.join(arms)} are due, and {', '.join(data.arm.values)} are there"
    )


def change(data):
    """How the tasks of a setting change."""
    return shift.of(Setting.of(json.loads(data.attrs["settings"])["setting"]).problem)


def test_errors_are_shares_or_squares(data):
    most = 1 if change(data).LOSS == "cross_entropy" else np.inf
    for name in (
        name for name in data.data_vars if "block" not in data[name].dims and "error" in name
    ):
        values = data[name].values[np.isfinite(data[name].values)]
        assert ((values >= 0) & (values <= most)).all(), f"{name} leaves [0, {most}]"


def test_an_outcome_is_missing_just_where_the_run_diverged(data):
    for name in {
        "final_error",
        "final_loss",
        "online_error",
        "update_norm",
        "error_curve",
        "loss_curve",
        "test_error",
    } & set(data):
        assert (np.isnan(data[name]) == (data["status"] == 1)).all(), (
            f"{name} is missing for a run that did not diverge, or the reverse"
        )


def test_a_fresh_network_learns_every_task_alike(data):
    errors = data["fresh_final_error"].dropna("seed", how="any").mean("seed").values
    early, late = np.array_split(errors, 2)
    if (
        len(late) < 4 or np.isnan(errors).any() or not change(data).ALIKE
    ):  # too few tasks to tell, or every fresh network diverged: the status says so
        return
    noise = np.sqrt(early.var(ddof=1) / len(early) + late.var(ddof=1) / len(late))
    assert abs(early.mean() - late.mean()) < 0.1 * max(1, errors.mean()) + 4 * noise, (
        "a fresh network's error drifts over the tasks"
    )


def exact(data, operator):
    """Where all eigenvalues of an operator are known."""
    trace = data[f"{operator}_trace"]
    return np.isfinite(trace) & (data.get(f"{operator}_trace_standard_error", 0 * trace) == 0)


def test_a_spectrum_agrees_with_its_numbers(data):
    for operator in curvature(data).operators:
        values, trace, rank, top = (
            data[f"{operator}_{name}"]
            for name in ("eigenvalue", "trace", "effective_rank", "top_eigenvalue")
        )
        there, known = np.isfinite(trace), exact(data, operator)
        largest = abs(values).max("rank").where(there, 1)
        assert (values.diff("rank").where(there, -1).fillna(-1) <= 1e-6 * largest).all(), (
            f"{operator}: eigenvalues do not descend"
        )
        assert (
            abs(values.sum("rank") - trace).where(known, 0) <= 1e-4 * abs(values).sum("rank") + TINY
        ).all(), f"{operator}: eigenvalues do not add up to the trace"
        assert ((rank >= 0) & ((rank <= values.sizes["rank"]) | ~known)).where(there, True).all(), (
            f"{operator}: a rank leaves [0, n]"
        )
        off = abs(values.isel(rank=0) - top).where(known, 0)
        assert (off <= 1e-6 * abs(top).where(known, 0) + TINY).all(), (
            f"{operator}: the largest eigenvalue is not the first"
        )


def test_the_layers_traces_add_up_to_the_whole(data):
    for operator, how in curvature(data).operators.items():
        if not {"layers", "all"} <= set(how.blocks):
            continue
        trace, known = data[f"{operator}_trace"], exact(data, operator)
        layers = [block for block in data.block.values if block not in ("last_two", "all")]
        # a layer is missing where the network has none of that name
        known = known.sel(block="all") & (known | trace.isnull()).sel(block=layers).all("block")
        off = abs(trace.sel(block=layers).sum("block") - trace.sel(block="all")).where(known, 0)
        assert (off <= 1e-4 * abs(trace).sum("block") + TINY).all(), (
            f"{operator}: the layers' traces do not add up to the whole"
        )


def test_shares_of_curvature_are_shares_and_errors_are_not_below_zero(data):
    for operator in curvature(data).operators:
        for name in (f"{operator}_gradient_overlap", f"{operator}_negative_fraction"):
            values = data[name].values[np.isfinite(data[name].values)]
            assert ((values >= -1e-6) & (values <= 1 + 1e-6)).all(), f"{name} leaves [0, 1]"
        for name in (
            name for name in data if name.startswith(f"{operator}_") and name.endswith("_error")
        ):
            assert not (data[name] < 0).any(), f"{name} is below zero"


def test_curvature_is_there_only_where_it_was_asked_for_and_could_be_taken(data):
    for operator, how in curvature(data).operators.items():
        layers = ~data.block.isin(["last_two", "all"]) & ("layers" in how.blocks)
        asked = (
            data.evaluation_point.isin(how.evaluation_points)
            & (data.task % how.every == 0)
            & (data.block.isin(how.blocks) | layers)
        )
        beyond = data[f"{operator}_trace"].notnull() & ~(
            asked & (data["curvature_status"] == measure.STATUS["measured"])
        )
        assert not beyond.any(), (
            f"{operator} is there where it was not asked for, or could not be taken"
        )


def test_the_first_task_has_no_old_data(data):
    if "previous" in data.evaluation_point:
        assert np.isnan(data["feature_rank"].sel(evaluation_point="previous").isel(task=0)).all(), (
            "an old task before the first"
        )


def estimates(table):
    """Each number of a table that has an interval, with its ends."""
    return [
        (table[name], table["low"], table["high"]) for name in {"estimate", "mean"} & set(table)
    ] + [
        (table[name], table[f"{name}_low"], table[f"{name}_high"])
        for name in table
        if f"{name}_low" in table
    ]


def test_intervals_hold_their_estimate(table):
    for estimate, low, high in estimates(table):
        assert ((low <= estimate + 1e-9) & (estimate <= high + 1e-9))[low.notna()].all(), (
            "an interval without its estimate"
        )


def test_a_row_without_a_number_says_why(table):
    for name in {"estimate", "mean", "final_error_late"} & set(table):
        if "note" in table:
            assert (table["note"] != "")[table[name].isna()].all(), (
                "a number is missing and no note says why"
            )


def test_adjusted_p_are_no_smaller_and_lie_where_p_do(table):
    if "p_adjusted" in table:
        assert (table["p_adjusted"].isna() == table["p"].isna()).all(), (
            "a p without its adjusted one, or the reverse"
        )
        assert ((table["p_adjusted"] >= table["p"] - 1e-9) | table["p"].isna()).all(), (
            "an adjusted p below its own"
        )


def test_a_p_is_a_probability(table):
    for name in {"p", "p_adjusted", "p_heterogeneity"} & set(table):
        assert (table[name].dropna().between(0, 1)).all(), f"{name} leaves [0, 1]"
