"""Changes of treated copies compared with `none`, and planted counterexamples."""

import numpy as np
import pytest
from treated_settings import treated_setting

from plasticity.statistics import resampling
from plasticity.statistics.changes import compute_change
from plasticity.statistics.resampling import Draws
from plasticity.statistics.table_files import read_table
from plasticity.statistics.treated_arrays import TreatedArrays
from plasticity.statistics.treatment_effects import find_intervention_counterexamples, treatments

PRIMARY = "fisher_effective_rank"
DRAWS = Draws(99)
LOST, MOVED = 0.05, 0.2


def arrays_of(**options):
    return TreatedArrays.from_dataset("s", treated_setting(**options))


def only_row(table, **keys):
    keys = {"task": "12", "treatment": "perturb(strength=1)"} | keys
    rows = table[np.logical_and.reduce([table[key] == value for key, value in keys.items()])]
    assert len(rows) == 1
    return rows.iloc[0]


def t_interval(values):
    low, high = resampling.t_interval(values)
    return float(low), float(high)


def test_treatments_have_means_and_changes_of_all_outcomes_and_measures():
    data = treated_setting()
    table = treatments([TreatedArrays.from_dataset("s", data)], DRAWS)
    assert len(table) == 2 * 20 * (4 + 7)
    for quantity in ("final_loss", "update_norm", "online_error", PRIMARY):
        values = data[f"treated_{quantity}"].sel(treated_arm="none", treated_task=12)
        if "block" in values.dims:
            values = values.sel(block="all")
        copies = values.sel(treatment="perturb(strength=1)").values
        changes = copies - values.sel(treatment="none").values
        row = only_row(table, quantity=quantity)
        assert row["mean"] == pytest.approx(copies.mean())
        assert row["change"] == pytest.approx(changes.mean())
        assert (row["change_low"], row["change_high"]) == pytest.approx(t_interval(changes))
        assert row["block"] == ("all" if quantity == PRIMARY else "")
        assert (row["treatment_family"], row["strength"], row["seeds"]) == ("restoring", 1, 5)


def test_copies_without_a_partner_are_left_out_and_noted():
    statuses = {("perturb(strength=1)", 0): "diverged", ("none", 2): "run_diverged"}
    statuses |= {("perturb(strength=1)", 2): "run_diverged"}
    arrays = arrays_of(statuses=statuses)
    table = treatments([arrays], DRAWS)
    row = only_row(table, quantity="final_error")
    assert row["seeds"] == 3
    assert row["note"] == "1 diverged; 1 run diverged"
    row = only_row(table, quantity="final_error", treatment="fresh")
    assert row["seeds"] == 4
    errors = arrays.y[arrays.outcomes.index("final_error"), 0, :, 1, arrays.copies.index("fresh")]
    assert row["mean"] == pytest.approx(np.delete(errors, 2).mean())


def test_treatment_that_never_changes_anything_has_no_numbers():
    statuses = {("split_units", seed): "unchanged" for seed in range(5)}
    row = only_row(
        treatments([arrays_of(statuses=statuses)], DRAWS),
        quantity="final_error",
        treatment="split_units",
    )
    assert np.isnan(row["mean"])
    assert (row["seeds"], row["note"]) == (0, "5 unchanged")


def planted(outcome_change, measure_change, noise=0.0, measure=PRIMARY):
    """Make the arrays of a setting in which one treatment has these changes."""
    arrays = arrays_of()
    random = np.random.default_rng(0)
    index = arrays.measures.index(measure)
    copy, reference = arrays.copies.index("perturb(strength=1)"), arrays.reference
    arrays.y[..., copy] = arrays.y[..., reference] + outcome_change
    arrays.y[..., copy] += noise * random.normal(size=arrays.y.shape[:-1])
    arrays.x[index, ..., copy] = arrays.x[index, ..., reference] + measure_change
    return arrays


@pytest.mark.parametrize(
    ("outcome_change", "measure_change", "noise", "kind"),
    [
        (-0.2, 0.0, 0.0, "not_necessary"),
        (-0.2, -30.0, 0.0, "not_necessary"),
        (0.0, 60.0, 0.0, "not_sufficient"),
        (0.2, 60.0, 0.0, "not_sufficient"),
        (-0.2, 60.0, 0.0, "both"),
        (0.0, 0.0, 0.0, "neither"),
        (-0.04, 1.0, 0.0, "neither"),
        (-0.06, 0.0, 0.2, "unclear"),
    ],
)
def test_kind_of_a_planted_treatment(outcome_change, measure_change, noise, kind):
    arrays = planted(outcome_change, measure_change, noise)
    table = find_intervention_counterexamples([arrays], DRAWS, LOST, MOVED)
    assert only_row(table, measure=PRIMARY, outcome="final_error")["kind"] == kind


def test_measure_that_grows_with_the_loss_is_restored_when_it_falls():
    arrays = planted(-0.2, -0.3, measure="dead_fraction")
    table = find_intervention_counterexamples([arrays], DRAWS, LOST, MOVED)
    row = only_row(table, measure="dead_fraction", outcome="final_error")
    assert row["measure_change"] == pytest.approx(0.3)
    assert row["kind"] == "both"


def test_changes_and_intervals_are_those_of_seeds():
    arrays = arrays_of()
    table = find_intervention_counterexamples([arrays], DRAWS, LOST, MOVED)
    copy, reference = arrays.copies.index("perturb(strength=1)"), arrays.reference
    x = arrays.x[arrays.measures.index(PRIMARY), 0, :, 1]
    y = arrays.y[arrays.outcomes.index("online_error"), 0, :, 1]
    of_measure = compute_change(PRIMARY, x[:, reference], x[:, copy])
    of_outcome = y[:, copy] - y[:, reference]
    row = only_row(table, measure=PRIMARY, outcome="online_error")
    assert row["measure_change"] == pytest.approx(of_measure.mean())
    assert (row["measure_change_low"], row["measure_change_high"]) == pytest.approx(
        t_interval(of_measure)
    )
    assert row["outcome_change"] == pytest.approx(of_outcome.mean())
    assert (row["outcome_change_low"], row["outcome_change_high"]) == pytest.approx(
        t_interval(of_outcome)
    )


def test_counterexamples_come_first_and_are_about_claimed_measures_only():
    table = find_intervention_counterexamples([arrays_of()], DRAWS, LOST, MOVED)
    is_against = table["kind"].isin(["not_necessary", "not_sufficient"])
    assert is_against.any()
    assert is_against.is_monotonic_decreasing
    assert "fisher_top_eigenvalue" not in set(table["measure"])
    assert "none" not in set(table["treatment"])


def test_one_seed_decides_nothing():
    table = find_intervention_counterexamples([arrays_of(seeds=1)], DRAWS, LOST, MOVED)
    assert set(table["kind"]) == {"unclear"}
    assert set(table["note"]) == {"too few seeds for an interval"}


def test_numbers_of_tasks_are_read_as_text(tmp_path):
    table = treatments([arrays_of()], DRAWS)
    table.to_csv(tmp_path / "table.csv", index=False)
    read = read_table(tmp_path / "table.csv")
    assert set(read["task"]) == set(table["task"]) == {"4", "12"}
    assert read["block"].equals(table["block"])
