"""Models within checkpoints: compare with least squares of statsmodels and with loops."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from treated_settings import Truth, treated_setting

from plasticity.statistics import intervention_models, resampling
from plasticity.statistics.intervention_models import (
    permuted_families,
    permuted_partial_correlations,
    residuals_of_ranks,
    shares_between,
    taus_with,
)
from plasticity.statistics.resampling import Draws
from plasticity.statistics.treated_arrays import TreatedArrays

PRIMARY = "fisher_effective_rank"
SIMPLE = ["weight_norm", "feature_rank", "dead_fraction"]
DRAWS = Draws(99)
MISSING = {("shrink(strength=0.6)", 1): "diverged", ("split_units", 0): "unchanged"}


def arrays_of(*arguments, **options):
    return TreatedArrays.from_dataset("s", treated_setting(*arguments, **options))


def table_of(arrays, draws=DRAWS):
    return intervention_models.intervention_models([arrays], draws, 0.3)


def only_row(table, **keys):
    keys = {"setting": "s", "arm": "none", "task": "all", "outcome": "final_error"} | keys
    rows = table[np.logical_and.reduce([table[key] == value for key, value in keys.items()])]
    assert len(rows) == 1
    return rows.iloc[0]


def cells_of(arrays, measures):
    """Yield the index of each seed and task, its measures and final errors of trained copies."""
    x = arrays.x[[arrays.measures.index(name) for name in measures], 0]
    y = arrays.y[0, 0]
    for seed, task in np.ndindex(y.shape[:2]):
        known = np.isfinite(y[seed, task])
        yield (seed, task), x[:, seed, task][:, known], y[seed, task][known]


def partial_correlation(x, y, given):
    """Correlate the residuals of two least squares fits of ranks."""
    design = sm.add_constant(stats.rankdata(given, axis=-1).T)
    ranks = [stats.rankdata(values) for values in (x, y)]
    residuals = [sm.OLS(values, design).fit().resid for values in ranks]
    return np.corrcoef(*residuals)[0, 1]


@pytest.mark.parametrize("statuses", [{}, MISSING], ids=["complete", "missing copies"])
def test_added_is_the_partial_rank_correlation_given_simple_measures(statuses):
    arrays = arrays_of(Truth(noise=0.3), statuses=statuses)
    taus = np.empty((5, 2))
    for cell, x, y in cells_of(arrays, [PRIMARY, *SIMPLE]):
        taus[cell] = partial_correlation(x[0], y, x[1:])
    table = table_of(arrays)
    row = only_row(table, measure=PRIMARY, statistic="added")
    assert row["estimate"] == pytest.approx(taus.mean())
    low, high, _ = resampling.interval(taus.mean(axis=1), DRAWS)
    assert (row["low"], row["high"]) == pytest.approx((float(low), float(high)))
    late = only_row(table, measure=PRIMARY, statistic="added", task="12")
    assert late["estimate"] == pytest.approx(taus[:, 1].mean())
    assert row["note"] == "given weight_norm, feature_rank, dead_fraction"


def test_permuted_partial_correlations_are_those_of_refitted_outcomes():
    arrays = arrays_of(Truth(noise=0.3), seeds=1, treated_tasks=(12,))
    orders = arrays.orders(DRAWS)[:30]
    ((_, x, y),) = cells_of(arrays, [PRIMARY, *SIMPLE])
    drawn = permuted_partial_correlations(x[:1], y[None], x[1:], np.ones(len(y), bool), orders)[
        :, 0, 0
    ]
    design = sm.add_constant(stats.rankdata(x[1:], axis=-1).T)
    fit = sm.OLS(stats.rankdata(y), design).fit()
    of_measure = sm.OLS(stats.rankdata(x[0]), design).fit().resid
    for order, value in zip(orders, drawn, strict=True):
        permuted = fit.fittedvalues + fit.resid[order]
        of_outcome = sm.OLS(permuted, design).fit().resid
        assert value == pytest.approx(np.corrcoef(of_measure, of_outcome)[0, 1])


def test_constant_simple_measure_is_dropped():
    arrays = arrays_of(Truth(noise=0.3, constant=("dead_fraction",)))
    row = only_row(table_of(arrays), measure=PRIMARY, statistic="added")
    assert row["note"] == "given weight_norm, feature_rank"
    values = [
        partial_correlation(x[0], y, x[1:]) for _, x, y in cells_of(arrays, [PRIMARY, *SIMPLE[:2]])
    ]
    assert row["estimate"] == pytest.approx(np.mean(values))


def test_rank_that_simple_measures_determine_adds_nothing():
    arrays = arrays_of()
    arrays.x[arrays.measures.index(PRIMARY)] = arrays.x[arrays.measures.index("feature_rank")]
    row = only_row(table_of(arrays), measure=PRIMARY, statistic="added")
    assert np.isnan(row["estimate"])
    assert "constant over treatments" in row["note"]


def test_only_the_ordering_rank_adds():
    table = table_of(arrays_of(Truth(noise=0.2)), Draws(999))
    p = {
        measure: only_row(table, measure=measure, statistic="added")["p"]
        for measure in (PRIMARY, "fisher_stable_rank", "fisher_entropy_rank")
    }
    assert p.pop(PRIMARY) <= 0.002
    assert min(p.values()) > 0.05


# one curve for all families


@pytest.mark.parametrize("statuses", [{}, MISSING], ids=["complete", "missing copies"])
def test_share_between_families_is_the_r2_of_families_for_the_residuals(statuses):
    arrays = arrays_of(Truth(noise=0.3), statuses=statuses)
    shares = np.empty((5, 2))
    families = np.array(arrays.families)
    for (seed, task), x, y in cells_of(arrays, ["fisher_stable_rank"]):
        design = sm.add_constant(stats.rankdata(x[0]))
        residuals = sm.OLS(stats.rankdata(y), design).fit().resid
        known = families[np.isfinite(arrays.y[0, 0, seed, task])]
        dummies = (known[:, None] == np.unique(known)).astype(float)
        shares[seed, task] = sm.OLS(residuals, dummies).fit().rsquared
    row = only_row(table_of(arrays), measure="fisher_stable_rank", statistic="family")
    assert row["estimate"] == pytest.approx(shares.mean())


def test_families_are_permuted_with_all_doses_of_a_treatment():
    arrays = arrays_of()
    families = permuted_families(arrays, DRAWS)
    assert (families.sum(axis=-1) == 1).all()
    names = list(dict.fromkeys(arrays.families))
    observed = [names[index] for index in families[0].argmax(axis=-1)]
    assert observed == arrays.families
    of_copy = families.argmax(axis=-1)
    for treatment in range(len(arrays.treatments)):
        doses = of_copy[:, arrays.treatment_of_copy == treatment]
        assert (doses == doses[:, :1]).all()
    # the number of treatments of a family stays the same
    first_copies = np.unique(arrays.treatment_of_copy, return_index=True)[1]
    counts = np.sort(of_copy[:, first_copies], axis=1)
    assert (counts == counts[0]).all()


def test_p_of_families_is_the_share_of_permutations_with_a_larger_share():
    arrays = arrays_of(Truth(noise=0.3), treated_tasks=(12,))
    families = permuted_families(arrays, DRAWS).argmax(axis=-1)
    drawn = np.zeros(len(families))
    for _, x, y in cells_of(arrays, [PRIMARY]):
        residuals = residuals_of_ranks(x, y[None])[0, 0]
        for draw, family in enumerate(families):
            means = np.array([residuals[family == index].mean() for index in range(4)])
            drawn[draw] += (means[family] ** 2).sum() / (residuals**2).sum() / 5
    row = only_row(table_of(arrays), measure=PRIMARY, statistic="family")
    assert row["p"] == pytest.approx((drawn >= drawn[0] - 1e-9).mean())
    assert row["note"] == f"by chance {drawn.mean():.2f}"


def test_offset_of_a_family_is_found_and_one_curve_is_not_rejected():
    one_curve = table_of(arrays_of(Truth(noise=0.05), draw=2), Draws(999))
    assert only_row(one_curve, measure=PRIMARY, statistic="family")["p"] > 0.05
    offset = Truth(noise=0.05, family_offsets={"restoring": 0.25, "harmful": -0.15})
    two_curves = table_of(arrays_of(offset, draw=2), Draws(999))
    assert only_row(two_curves, measure=PRIMARY, statistic="family")["p"] < 0.05


def test_perfect_curve_leaves_nothing_between_families():
    residuals = residuals_of_ranks(np.arange(8.0)[None], np.arange(8.0)[None])
    families = np.eye(2)[[0, 0, 1, 1, 0, 1, 0, 1]][None]
    assert np.isnan(shares_between(residuals, families)).all()


# doses


def test_tau_with_the_strength_is_that_of_scipy():
    random = np.random.default_rng(0)
    strengths = np.array([0.3, 0.1, 0.8, 0.5])
    values = random.integers(0, 4, (50, 4)).astype(float)
    values[::5, 2] = np.nan
    taus = taus_with(strengths, values)
    for value, tau in zip(values, taus, strict=True):
        known = np.isfinite(value)
        expected = stats.kendalltau(strengths[known], value[known])[0]
        assert tau == pytest.approx(expected, nan_ok=True)


def test_dose_rows_are_about_treatments_with_three_doses():
    table = table_of(arrays_of())
    rows = table[table["statistic"] == "dose"]
    assert set(rows["treatment"]) == {"shrink", "perturb", "low_rank"}
    assert rows["p"].isna().all()
    assert (rows["treatments"] == 3).all()


def test_dose_row_is_the_mean_over_seeds_and_tasks():
    arrays = arrays_of()
    copies = [index for index, name in enumerate(arrays.copies) if name.startswith("shrink")]
    table = table_of(arrays)
    taus = [
        stats.kendalltau(arrays.strengths[copies], values[copies])[0]
        for values in arrays.y[0, 0].reshape(-1, len(arrays.copies))
    ]
    row = only_row(table, statistic="dose", treatment="shrink")
    assert row["estimate"] == pytest.approx(np.mean(taus))
    row = only_row(table, statistic="dose", treatment="shrink", measure=PRIMARY, outcome="")
    assert row["estimate"] > 0


def test_dose_without_values_says_why():
    statuses = {("shrink(strength=0.3)", seed): "unchanged" for seed in range(5)}
    table = table_of(arrays_of(Truth(constant=("dead_fraction",)), statuses=statuses))
    row = only_row(table, statistic="dose", treatment="shrink")
    assert row["note"] == "fewer than 3 doses"
    row = only_row(
        table, statistic="dose", treatment="perturb", measure="dead_fraction", outcome=""
    )
    assert row["note"] == "constant over treatments"
