"""Kendall's τ over treated copies: compare with scipy, with loops, and with planted truths."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from treated_settings import Truth, treated_setting

from plasticity.config.models import Statistics
from plasticity.config.quantities import describe
from plasticity.statistics import interventions, resampling, tables
from plasticity.statistics.resampling import Draws
from plasticity.statistics.treated_arrays import TreatedArrays

PRIMARY = "fisher_effective_rank"
DRAWS = Draws(99)
MISSING = {
    ("shrink(strength=0.6)", 1): "diverged",
    ("split_units", 0): "unchanged",
    ("split_units", 3): "unchanged",
    ("low_rank(strength=0.5)", 0): "diverged",
}


def arrays_of(*arguments, name="s", **options):
    return TreatedArrays.from_dataset(name, treated_setting(*arguments, **options))


def table_of(*settings, problems=None, draws=DRAWS):
    problems = problems or {arrays.setting: arrays.setting for arrays in settings}
    return interventions.interventions(settings, problems, draws, 0.3, PRIMARY)


def only_row(table, **keys):
    keys = {"setting": "s", "arm": "none", "task": "all", "outcome": "final_error"} | keys
    conditions = [table[key] == value for key, value in keys.items()]
    rows = table[np.logical_and.reduce(conditions)]
    assert len(rows) == 1
    return rows.iloc[0]


def taus_by_scipy(arrays, measure, outcome, order=None):
    """Compute τ-b of every seed and task; the outcome of `order[i]` goes to copy i."""
    x = arrays.x[arrays.measures.index(measure), 0]
    # a copy is compared if it has all outcomes
    has_outcomes = np.isfinite(arrays.y[:, 0]).all(axis=0)
    y = np.where(has_outcomes, arrays.y[arrays.outcomes.index(outcome), 0], np.nan)
    order = np.arange(x.shape[-1]) if order is None else order
    taus = np.empty(x.shape[:2])
    for seed, task in np.ndindex(taus.shape):
        permuted = y[seed, task][order]
        known = np.isfinite(x[seed, task]) & np.isfinite(permuted)
        known &= np.isfinite(x[seed, task][order]) & np.isfinite(y[seed, task])
        taus[seed, task] = stats.kendalltau(x[seed, task][known], permuted[known])[0]
    return taus


def with_ties(arrays):
    """Round all values, so that many copies are tied."""
    for measure, values in zip(arrays.measures, arrays.x, strict=True):
        values[:] = np.round(values, 1 if measure == "dead_fraction" else 0)
    arrays.y[:] = np.round(arrays.y, 1)
    return arrays


def without_some_outcomes(arrays):
    """Remove outcomes of copies whose measures are known."""
    arrays.y[:, :, 1, :, 5] = np.nan
    arrays.y[0, :, 2, 1, [7, 8]] = np.nan
    return arrays


SETTINGS = {
    "complete": lambda: arrays_of(draw=3),
    "ties": lambda: with_ties(arrays_of(draw=4)),
    "missing outcomes": lambda: without_some_outcomes(arrays_of(draw=6)),
    "missing copies": lambda: arrays_of(draw=5, statuses=MISSING),
}


@pytest.fixture(params=SETTINGS)
def arrays(request):
    return SETTINGS[request.param]()


@pytest.mark.parametrize("task", ["4", "12", "all"])
@pytest.mark.parametrize("measure", [PRIMARY, "dead_fraction", "feature_rank"])
def test_tau_is_the_mean_of_scipys_over_seeds(arrays, measure, task):
    taus = taus_by_scipy(arrays, measure, "online_error")
    per_seed = taus.mean(axis=1) if task == "all" else taus[:, ["4", "12"].index(task)]
    row = only_row(
        table_of(arrays), measure=measure, task=task, statistic="tau", outcome="online_error"
    )
    assert row["estimate"] == pytest.approx(per_seed.mean(), abs=1e-12)
    low, high, method = resampling.interval(per_seed, DRAWS)
    assert (row["low"], row["high"]) == pytest.approx((float(low), float(high)))
    assert row["interval"] == method
    assert row["seeds"] == 5


def test_p_is_the_share_of_permuted_treatments_with_a_larger_tau(arrays):
    table = table_of(arrays)
    orders = arrays.orders(DRAWS)
    for measure in (PRIMARY, "weight_norm"):
        drawn = np.stack([taus_by_scipy(arrays, measure, "final_error", order) for order in orders])
        for task, of_draw in (("12", drawn[..., 1].mean(axis=1)), ("all", drawn.mean(axis=(1, 2)))):
            expected = (abs(of_draw) >= abs(of_draw[0]) - 1e-9).mean()
            row = only_row(table, measure=measure, task=task, statistic="tau")
            assert row["p"] == pytest.approx(expected)


def test_only_the_measure_that_orders_the_copies_has_a_small_p():
    rows = table_of(arrays_of(Truth(noise=0.2), draw=1), draws=Draws(999))
    rows = rows[(rows["statistic"] == "tau") & (rows["setting"] == "s") & (rows["task"] == "all")]
    p = rows[rows["outcome"] == "final_error"].set_index("measure")["p"]
    assert p.pop(PRIMARY) <= 0.002
    assert p.min() > 0.05


def test_a_growing_transformation_of_a_measure_changes_nothing():
    plain = table_of(arrays_of())
    arrays = arrays_of()
    arrays.x[:] = np.exp(arrays.x / 50)
    arrays.y[:] = arrays.y**3
    transformed = table_of(arrays)
    for name in ("estimate", "low", "high", "p", "power"):
        np.testing.assert_allclose(transformed[name], plain[name], atol=1e-12, err_msg=name)


def test_a_falling_transformation_flips_the_sign_only():
    arrays = arrays_of()
    plain = table_of(arrays)
    arrays.x[:] = -arrays.x
    flipped = table_of(arrays)
    is_tau = (plain["statistic"] == "tau") & (plain["setting"] == "s")
    np.testing.assert_allclose(flipped["estimate"][is_tau], -plain["estimate"][is_tau])
    np.testing.assert_allclose(flipped["p"][is_tau], plain["p"][is_tau])


def test_values_of_copies_that_were_not_trained_do_not_matter():
    data = treated_setting(statuses=MISSING)
    plain = table_of(TreatedArrays.from_dataset("s", data))
    is_trained = data["treated_copy_status"] == 0
    for name in ("treated_final_error", "treated_fisher_effective_rank"):
        data[name] = data[name].where(is_trained, 7.0).transpose(*data[name].dims)
    changed = table_of(TreatedArrays.from_dataset("s", data))
    assert plain.equals(changed)


def test_measure_that_is_constant_over_treatments_has_no_tau_and_a_note():
    table = table_of(arrays_of(Truth(constant=("dead_fraction",))))
    row = only_row(table, measure="dead_fraction", statistic="tau")
    assert row[["estimate", "low", "high", "p", "power"]].isna().all()
    assert row["note"] == "constant over treatments"
    assert (row["seeds"], row["treatments"]) == (0, 0)
    difference = only_row(table, measure=PRIMARY, versus="dead_fraction")
    assert difference["note"] == "constant over treatments"


def test_tau_without_harmful_treatments_is_that_of_the_other_copies(arrays):
    others = arrays.without_family("harmful")
    assert 0 < len(others.copies) < len(arrays.copies)
    table, table_of_others = table_of(arrays), table_of(others)
    assert "tau_without_harmful" not in set(table_of_others["statistic"])
    for measure in (PRIMARY, "dead_fraction"):
        keys = {"measure": measure, "task": "12"}
        row = only_row(table, statistic="tau_without_harmful", **keys)
        expected = only_row(table_of_others, statistic="tau", **keys)
        for name in ("estimate", "low", "high", "p", "seeds", "treatments"):
            assert row[name] == pytest.approx(expected[name], nan_ok=True), name


def test_order_by_harmful_treatments_alone_is_no_order_of_the_others():
    arrays = arrays_of(draw=8)
    is_harmful = np.array(arrays.families) == "harmful"
    noise = np.random.default_rng(0).normal(size=arrays.y.shape)
    arrays.y[:] = 10 * is_harmful + noise
    arrays.x[arrays.measures.index(PRIMARY)] = -10.0 * is_harmful + np.arange(len(is_harmful)) / 99
    table = table_of(arrays)
    assert only_row(table, measure=PRIMARY, statistic="tau")["estimate"] < -0.2
    others = only_row(table, measure=PRIMARY, statistic="tau_without_harmful")
    assert abs(others["estimate"]) < 0.2


def test_task_at_which_a_measure_is_constant_is_left_out_of_the_mean():
    arrays = arrays_of()
    measure = arrays.measures.index("dead_fraction")
    arrays.x[measure, :, :, 0] = 0.5
    table = table_of(arrays)
    mean = only_row(table, measure="dead_fraction", statistic="tau")
    late = only_row(table, measure="dead_fraction", statistic="tau", task="12")
    assert mean["note"] == "without task 4"
    assert (mean["estimate"], mean["p"]) == pytest.approx((late["estimate"], late["p"]))
    assert only_row(table, measure="dead_fraction", statistic="tau", task="4")["note"] == (
        "constant over treatments"
    )


def test_seed_without_a_value_is_left_out_and_counted():
    arrays = arrays_of()
    arrays.y[:, :, 2, 1] = np.nan
    row = only_row(table_of(arrays), measure=PRIMARY, statistic="tau")
    taus = taus_by_scipy(arrays_of(), PRIMARY, "final_error")
    assert row["estimate"] == pytest.approx(np.delete(taus, 2, axis=0).mean())
    assert (row["seeds"], row["note"]) == (4, "1 seed left out")


def test_fewer_than_six_copies_have_no_tau():
    treatments = {"none": ("control", ()), "shrink": ("restoring", (0.1, 0.2, 0.3, 0.4))}
    row = only_row(table_of(arrays_of(treatments=treatments)), measure=PRIMARY, statistic="tau")
    assert np.isnan(row["estimate"])
    assert row["note"] == "fewer than 6 copies"


def test_one_seed_has_an_estimate_and_a_p_but_no_interval():
    row = only_row(table_of(arrays_of(seeds=1)), measure=PRIMARY, statistic="tau")
    assert np.isfinite(row["estimate"])
    assert np.isfinite(row["p"])
    assert np.isnan(row["low"])
    assert row["note"] == "too few seeds for an interval"


def test_power_is_zero_if_no_permutation_can_be_significant():
    treatments = {"none": ("control", ()), "shrink": ("restoring", (0.1, 0.2, 0.3, 0.4, 0.5))}
    row = only_row(table_of(arrays_of(treatments=treatments)), measure=PRIMARY, statistic="tau")
    assert row["power"] == 0
    assert row["p"] >= 0.5


# differences


def agreement(arrays, measure):
    return describe(measure).claimed_sign * taus_by_scipy(arrays, measure, "final_error")


def test_difference_is_that_of_the_agreements_of_each_seed(arrays):
    table = table_of(arrays)
    for rival in ("dead_fraction", "feature_rank"):
        per_seed = (agreement(arrays, PRIMARY) - agreement(arrays, rival)).mean(axis=1)
        row = only_row(table, measure=PRIMARY, versus=rival, statistic="difference")
        assert row["estimate"] == pytest.approx(per_seed.mean(), abs=1e-12)
        low, high, _ = resampling.interval(per_seed, DRAWS)
        assert (row["low"], row["high"]) == pytest.approx((float(low), float(high)))


def test_every_rival_with_a_claim_is_compared():
    rows = table_of(arrays_of())
    rivals = set(rows.loc[rows["statistic"] == "difference", "versus"])
    assert rivals == {
        "fisher_entropy_rank",
        "fisher_stable_rank",
        "feature_rank",
        "dead_fraction",
        "weight_norm",
    }


def test_contributions_of_treatments_add_up_to_the_difference(arrays):
    own, rival = arrays.measures.index(PRIMARY), arrays.measures.index("dead_fraction")
    orders = arrays.orders(DRAWS)
    taus = interventions.agreements_of_arm(arrays, 0, orders).taus
    differences = -taus[own] - taus[rival]
    of_treatments = interventions.contributions(arrays, 0, own, rival, differences)
    np.testing.assert_allclose(of_treatments[-1].sum(axis=-1), differences.mean(axis=(1, 2)))
    np.testing.assert_allclose(of_treatments[0].sum(axis=-1), differences[..., 0].mean(axis=1))


def test_flipped_contributions_are_differences_after_ranks_are_exchanged():
    arrays = arrays_of(draw=6, treated_tasks=(12,))
    random = np.random.default_rng(0)
    own, rival = arrays.measures.index(PRIMARY), arrays.measures.index("feature_rank")
    # ranks without ties between the two measures, so that exchanged ranks have no ties either
    ranks = {m: stats.rankdata(arrays.x[m], axis=-1) for m in (own, rival)}
    taus = interventions.agreements_of_arm(arrays, 0, arrays.orders(DRAWS)).taus
    of_treatments = interventions.contributions(arrays, 0, own, rival, taus[rival] - taus[own])
    for _ in range(20):
        flips = random.choice([-1.0, 1.0], len(arrays.treatments))
        is_exchanged = flips[arrays.treatment_of_copy] < 0
        total = 0.0
        for seed in range(5):
            first, second = ranks[own][0, seed, 0], ranks[rival][0, seed, 0]
            a = np.where(is_exchanged, second, first)
            b = np.where(is_exchanged, first, second)
            y = arrays.y[0, 0, seed, 0]
            for i in range(len(a)):
                for j in range(i):
                    sign = np.sign(y[i] - y[j])
                    total -= (np.sign(a[i] - a[j]) - np.sign(b[i] - b[j])) * sign
        pairs = len(arrays.copies) * (len(arrays.copies) - 1) / 2
        assert of_treatments[0, 0] @ flips == pytest.approx(total / pairs / 5)


def test_equal_measures_do_not_differ():
    arrays = arrays_of()
    arrays.x[arrays.measures.index("feature_rank")] = arrays.x[arrays.measures.index(PRIMARY)]
    row = only_row(table_of(arrays), measure=PRIMARY, versus="feature_rank")
    assert row["estimate"] == pytest.approx(0, abs=1e-12)
    assert row["p"] == 1


# over settings


def four_settings(**options):
    return [arrays_of(Truth(noise=0.3), name=f"s{draw}", draw=draw, **options) for draw in range(4)]


def test_row_over_settings_agrees_with_its_settings():
    settings = four_settings()
    table = table_of(*settings)
    keys = {"measure": "weight_norm", "statistic": "tau"}
    rows = [only_row(table, setting=f"s{draw}", **keys) for draw in range(4)]
    taus = np.array([row["estimate"] for row in rows])
    row = only_row(table, setting="all", **keys)
    assert taus.min() < row["estimate"] < taus.max()
    assert row["low"] < row["estimate"] < row["high"]
    assert row["sign_agreement"] == (taus > 0).mean()  # weight norms are claimed to grow
    assert row["worst_setting"] == f"s{taus.argmin()}"
    assert row["worst_estimate"] == pytest.approx(taus.min())
    assert 0 <= row["i_squared"] <= 1
    assert (row["settings"], row["problems"], row["seeds"]) == (4, 4, 5)
    assert row["interval"] == "Hartung-Knapp over problems"


def test_mean_over_equal_standard_errors_is_the_mean_of_fishers_z():
    settings = four_settings()
    table = table_of(*settings)
    row = only_row(table, setting="all", measure=PRIMARY, statistic="tau")
    z = np.arctanh(
        [
            only_row(table, setting=f"s{d}", measure=PRIMARY, statistic="tau")["estimate"]
            for d in range(4)
        ]
    )
    # Weights differ, so the mean lies close to the unweighted one, in units of its error.
    assert abs(np.arctanh(row["estimate"]) - z.mean()) < stats.sem(z)


def test_difference_over_settings_is_combined_on_its_own_scale():
    table = table_of(*four_settings())
    keys = {"measure": PRIMARY, "versus": "feature_rank", "statistic": "difference"}
    values = [only_row(table, setting=f"s{draw}", **keys)["estimate"] for draw in range(4)]
    row = only_row(table, setting="all", **keys)
    assert min(values) <= row["estimate"] <= max(values)
    assert row["sign_agreement"] == np.mean(np.array(values) > 0)
    assert row["worst_estimate"] == pytest.approx(min(values))


def test_difference_over_settings_may_exceed_one():
    settings = four_settings()
    for arrays in settings:
        rival = arrays.measures.index("feature_rank")
        arrays.x[rival] = -arrays.x[arrays.measures.index(PRIMARY)]
    table = table_of(*settings)
    keys = {"measure": PRIMARY, "versus": "feature_rank", "statistic": "difference"}
    values = [only_row(table, setting=f"s{draw}", **keys)["estimate"] for draw in range(4)]
    assert 1 < only_row(table, setting="all", **keys)["estimate"] < max(values)


def test_settings_of_one_problem_have_no_interval():
    settings = four_settings()
    table = table_of(*settings, problems=dict.fromkeys(["s0", "s1", "s2", "s3"], "digits"))
    row = only_row(table, setting="all", measure=PRIMARY, statistic="tau")
    assert np.isfinite(row["estimate"])
    assert row[["low", "high", "p", "power"]].isna().all()
    assert (row["note"], row["interval"], row["problems"]) == ("one problem", "", 1)
    two = {"s0": "a", "s1": "a", "s2": "b", "s3": "b"}
    row = only_row(
        table_of(*settings, problems=two), setting="all", measure=PRIMARY, statistic="tau"
    )
    assert (row["note"], row["problems"]) == ("too few problems", 2)
    assert np.isnan(row["low"])


# all tables of a study


def test_interventions_change_no_other_table():
    data = treated_setting()
    config = Statistics(draws=99)
    treated = [name for name in data if str(name).startswith("treat")]
    bare = data.drop_vars([*treated, "treated_arm", "treated_task", "treatment"])
    with_treatments = tables.build_tables({"s": data}, config)
    without = tables.build_tables({"s": bare}, config)
    new = {"treatments", "interventions", "intervention_models", "mediation"}
    new |= {"intervention_counterexamples"}
    assert set(with_treatments) == set(without)
    for name, table in without.items():
        if name in new:
            assert not len(table), name
            assert list(table) == list(with_treatments[name])
            assert len(with_treatments[name]), name
        elif name == "statements":
            sentences = set(with_treatments[name]["statement"])
            assert set(table["statement"]) < sentences
        elif name == "explanations":
            about_copies = table.columns[table.columns.str.contains("tau|worst")]
            others = table.columns.difference(about_copies)
            assert table[others].equals(with_treatments[name][others])
            assert table["tau"].isna().all()
            assert with_treatments[name]["tau"].notna().any()
        else:
            assert table.equals(with_treatments[name]), name


def test_exploratory_p_values_are_adjusted_over_all_tests_of_a_statistic():
    all_tables = tables.build_tables({"s": treated_setting()}, Statistics(draws=99))
    counts = {
        "interventions": {"tau", "tau_without_harmful", "difference"},
        "intervention_models": {"added", "family"},
    }
    for name, statistics in counts.items():
        tested = all_tables[name].dropna(subset="p")
        assert set(tested["statistic"]) == statistics
        for _, rows in tested.groupby("statistic"):
            expected = multipletests(rows["p"], method="fdr_bh")[1]
            np.testing.assert_allclose(rows["p_adjusted"], expected)
            assert set(rows["family"]) == {"exploratory"}


def hypothesis(**values):
    declared = {
        "name": "H3",
        "test": "interventions",
        "measure": PRIMARY,
        "outcome": "final_error",
        "direction": "negative",
    }
    return Statistics.of({"draws": 999, "hypotheses": [declared | values]})


def test_hypothesis_about_interventions_is_tested_by_tau_over_all_tasks():
    settings = {"s": treated_setting(Truth(noise=0.2)), "t": treated_setting(draw=1)}
    all_tables = tables.build_tables(settings, hypothesis())
    rows = all_tables["hypotheses"]
    assert list(rows["setting"]) == ["s", "t"]
    tested = only_row(all_tables["interventions"], measure=PRIMARY, statistic="tau")
    row = rows.iloc[0]
    for name in ("estimate", "low", "high", "p", "power"):
        assert row[name] == tested[name]
    assert tested["family"] == "confirmatory"
    assert row["p_adjusted"] == pytest.approx(min(1, 2 * rows["p"].min()))
    assert set(rows["verdict"]) == {"supported"}
    assert row["claim"] == (
        "fisher effective rank orders treated copies of none by final error (negative)"
    )


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({"direction": "positive"}, "contradicted"),
        ({"measure": "dead_fraction"}, "constant over treatments"),
    ],
)
def test_verdict_of_a_hypothesis_about_interventions(values, verdict):
    data = treated_setting(Truth(noise=0.2, constant=("dead_fraction",)))
    rows = tables.build_tables({"s": data}, hypothesis(**values))["hypotheses"]
    assert list(rows["verdict"]) == [verdict]
