"""Mediation: planted effects, slopes of numpy, and Fieller's interval by a t test."""

import numpy as np
import pytest
from scipy import optimize, stats
from treated_settings import treated_setting

from plasticity.config.models import method_of
from plasticity.statistics import mediation
from plasticity.statistics.mediation import NO_SLOPE, shares_mediated, slopes_of_others
from plasticity.statistics.resampling import Draws
from plasticity.statistics.treated_arrays import TreatedArrays, average_over_seeds

PRIMARY = "fisher_effective_rank"
DRAWS = Draws(99)
MISSING = {("perturb(strength=1)", 1): "diverged", ("none", 3): "run_diverged"}


def arrays_of(**options):
    return TreatedArrays.from_dataset("s", treated_setting(**options))


def rows_of(arrays, **keys):
    table = mediation.mediation([arrays], DRAWS)
    keys = {"measure": PRIMARY, "outcome": "final_error", "task": "12"} | keys
    return table[np.logical_and.reduce([table[key] == value for key, value in keys.items()])]


def with_a_line(arrays, slope, direct):
    """Make the final error a line in the primary rank, plus a direct effect of each copy."""
    x = arrays.x[arrays.measures.index(PRIMARY)]
    arrays.y[arrays.outcomes.index("final_error")] = 0.3 + slope * x + direct
    return arrays


def test_all_of_the_effect_goes_through_the_only_cause():
    rows = rows_of(with_a_line(arrays_of(), -0.02, 0.0))
    assert len(rows) == 19  # all treatments but `none`
    np.testing.assert_allclose(rows["direct"], 0, atol=1e-12)
    np.testing.assert_allclose(rows["indirect"], rows["total"], atol=1e-12)
    shares = rows["share"].dropna()
    assert len(shares)
    np.testing.assert_allclose(shares, 1)
    np.testing.assert_allclose(rows["share_low"].dropna(), 1)


def test_table_has_the_final_error_and_the_measures_with_a_claim():
    arrays = arrays_of()
    table = mediation.mediation([arrays], DRAWS)
    assert "fisher_top_eigenvalue" in arrays.measures
    assert set(table["measure"]) == set(arrays.measures) - {"fisher_top_eigenvalue"}
    assert set(table["outcome"]) == {"final_error"}
    keys = ["setting", "arm", "task", "treatment", "measure"]
    assert not table.duplicated(keys).any(), "one block of each measure"


def test_direct_effect_of_one_treatment_is_found():
    arrays = arrays_of()
    direct = np.where(np.array(arrays.copies) == "rescale_norms", -0.2, 0.0)
    rows = rows_of(with_a_line(arrays, -0.02, direct)).set_index("treatment")
    row = rows.loc["rescale_norms"]
    assert row["direct"] == pytest.approx(-0.2)
    assert row["total"] == pytest.approx(row["direct"] + row["indirect"])
    assert row["share"] == pytest.approx(row["indirect"] / row["total"])
    assert row["share_low"] <= row["share"] <= row["share_high"]


def test_parts_are_means_over_seeds_with_intervals():
    arrays = arrays_of(statuses=MISSING)
    rows = rows_of(arrays).set_index("treatment")
    measure = arrays.measures.index(PRIMARY)
    copy, reference = arrays.copies.index("perturb(strength=1)"), arrays.copies.index("none")
    x, y = arrays.x[measure, 0, :, 1], arrays.y[0, 0, :, 1]
    slopes = slopes_of_others(arrays)[measure, 0, 0, :, 1, copy]
    total = y[:, copy] - y[:, reference]
    indirect = slopes * (x[:, copy] - x[:, reference])
    row = rows.loc["perturb(strength=1)"]
    assert row["seeds"] == 3
    assert row["note"] == "1 diverged"
    for name, values in (("total", total), ("indirect", indirect), ("direct", total - indirect)):
        known = values[np.isfinite(values)]
        means = average_over_seeds(known, DRAWS)
        assert row[name] == pytest.approx(known.mean())
        assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(
            (float(means.low), float(means.high))
        )


def test_slope_is_that_of_a_line_through_the_other_treatments():
    arrays = arrays_of(statuses=MISSING)
    slopes = slopes_of_others(arrays)
    for measure, outcome, seed, copy in ((0, 0, 0, 4), (4, 1, 1, 10), (6, 0, 3, 0), (2, 1, 4, 19)):
        x, y = arrays.x[measure, 0, seed, 1], arrays.y[outcome, 0, seed, 1]
        is_other = np.array(
            [
                name != "none" and method_of(name) != method_of(arrays.copies[copy])
                for name in arrays.copies
            ]
        )
        known = is_other & np.isfinite(x) & np.isfinite(y)
        expected = np.polyfit(x[known], y[known], 1)[0]
        assert slopes[measure, outcome, 0, seed, 1, copy] == pytest.approx(expected)


def test_values_of_a_treatment_do_not_change_its_own_slope():
    arrays = arrays_of()
    before = slopes_of_others(arrays)
    is_shrink = np.array([name.startswith("shrink") for name in arrays.copies])
    arrays.y[..., is_shrink] += 5
    arrays.y[..., arrays.reference] += 3
    after = slopes_of_others(arrays)
    np.testing.assert_allclose(after[..., is_shrink], before[..., is_shrink])
    assert not np.allclose(after[..., ~is_shrink], before[..., ~is_shrink])


@pytest.mark.parametrize("changed", ["none", "rescale_norms"])
def test_measure_that_others_do_not_change_has_no_slope_and_a_note(changed):
    arrays = arrays_of()
    measure = arrays.measures.index("dead_fraction")
    # 0.1 is no sum of powers of 2, so that means of it have round-off
    arrays.x[measure] = 0.1
    arrays.x[measure, ..., arrays.copies.index(changed)] = 0.7
    rows = rows_of(arrays, measure="dead_fraction")
    if changed != "none":
        rows = rows[rows["treatment"] == changed]
    assert rows[["total", "direct", "indirect", "share"]].isna().all(axis=None)
    assert set(rows["note"]) == {NO_SLOPE}


def test_share_is_missing_where_the_total_effect_may_be_zero():
    random = np.random.default_rng(0)
    total = np.stack([0.1 + 0.01 * random.normal(size=6), 0.1 + random.normal(size=6)])
    share, low, high = shares_mediated(total / 2, total, average_over_seeds(total, DRAWS))
    assert share[0] == pytest.approx(0.5)
    assert np.isfinite([low[0], high[0]]).all()
    assert np.isnan([share[1], low[1], high[1]]).all()


@pytest.mark.parametrize("seeds", [5, 12])
def test_ends_of_fiellers_interval_have_a_p_of_5_percent(seeds):
    random = np.random.default_rng(seeds)
    total = 1 + 0.3 * random.normal(size=seeds)
    indirect = 0.6 * total + 0.3 * random.normal(size=seeds)
    _, low, high = shares_mediated(indirect, total, average_over_seeds(total, DRAWS))

    def excess(ratio):
        return stats.ttest_1samp(indirect - ratio * total, 0).pvalue - 0.05

    share = indirect.mean() / total.mean()
    assert float(low) == pytest.approx(optimize.brentq(excess, share - 3, share))
    assert float(high) == pytest.approx(optimize.brentq(excess, share, share + 3))


def test_seeds_without_a_value_do_not_count_for_the_share():
    random = np.random.default_rng(1)
    total = 1 + 0.2 * random.normal(size=6)
    indirect = total * random.uniform(0.4, 0.6, 6)
    expected = shares_mediated(indirect, total, average_over_seeds(total, DRAWS))
    gap = np.array([np.nan, np.nan])
    total, indirect = np.append(total, gap), np.append(indirect, gap)
    found = shares_mediated(indirect, total, average_over_seeds(total, DRAWS))
    np.testing.assert_allclose(found, expected)
