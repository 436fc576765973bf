"""Explanations over settings: compare with the formulas, and find planted counterexamples."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats
import simulated_problems
from tiers import slow_except

from plasticity.statistics import meta_analysis
from plasticity.statistics.resampling import Draws
from plasticity.statistics.setting_arrays import SettingArrays, Variant

DRAWS = Draws(199)
SEEDS, TASKS = 10, 24


def random_setting(name, seed=0, relation=-1.0, loss=0.4, collapse=0.5):
    """Draw a setting in which the gap grows by `loss` and the rank falls by the share `collapse`.

    `relation` relates the deviations of both from these trends.
    """
    random = np.random.default_rng(seed)
    trend = np.linspace(0, 1, TASKS)
    gap_noise = 0.02 * random.normal(size=(SEEDS, TASKS))
    rank_noise = relation * gap_noise + 0.02 * random.normal(size=gap_noise.shape)
    rank = 100 * (1 - collapse * trend) + 100 * rank_noise
    gap = loss * trend + gap_noise
    gap[:, 0] = 0  # both networks start alike
    return SettingArrays(
        setting=name,
        arms=["none"],
        variants=[Variant("fisher_effective_rank", "next", "all")],
        measures=rank[None, None],
        outcome_names=["final_error_gap"],
        outcomes=gap[None, None],
    )


def counterexamples(*settings):
    return meta_analysis.find_counterexamples(settings, DRAWS, lost=0.05, moved=0.2)


def heterogeneity(z, error, variance_between):
    """Compute Cochran's Q with a variance between settings, the mean and its weights."""
    weights = 1 / (error**2 + variance_between)
    mean = (weights * z).sum() / weights.sum()
    return (weights * (z - mean) ** 2).sum(), mean, weights


def test_problems_that_differ_by_round_off_are_the_same():
    z = 1.027062
    effects = pd.DataFrame(
        {
            "setting": list("ab"),
            "z": [z, np.nextafter(z, 2)],
            "error": [0.1, 0.2],
            "p": 0.01,
            "seeds": 5,
        }
    )
    effects["problem"] = effects["setting"]
    row = meta_analysis.combine_effects_over_settings(effects, claimed=1, relevant=0.3)
    assert row["estimate"] == pytest.approx(np.tanh(z))
    assert np.isnan(row["low"])
    assert row["note"] == "the same in all problems"


def test_meta_analysis_equals_the_formulas():
    z = np.array([0.5, 0.9, 1.4, 0.2])
    error = np.array([0.1, 0.2, 0.15, 0.1])
    effects = pd.DataFrame(
        {"setting": list("abcd"), "z": z, "error": error, "p": [0.01, 0.2, 0.03, 0.5], "seeds": 5}
    )
    effects["problem"] = effects["setting"]
    row = meta_analysis.combine_effects_over_settings(effects, claimed=1, relevant=0.3)

    q, _, _ = heterogeneity(z, error, 0)
    assert row["q"] == pytest.approx(q)
    assert row["i_squared"] == pytest.approx((q - 3) / q)
    assert row["p_heterogeneity"] == pytest.approx(scipy.stats.chi2.sf(q, 3))

    def excess(variance_between):
        return heterogeneity(z, error, variance_between)[0] - 3

    # Paule and Mandel: with the variance between settings, Q equals its expectation.
    variance_between = scipy.optimize.brentq(excess, 0, 5)
    _, centre, weights = heterogeneity(z, error, variance_between)
    # Hartung and Knapp
    mean_error = np.sqrt((weights * (z - centre) ** 2).sum() / (3 * weights.sum()))
    reach = scipy.stats.t.ppf(0.975, 3) * mean_error
    expected = np.tanh([centre, centre - reach, centre + reach])
    assert [row["estimate"], row["low"], row["high"]] == pytest.approx(expected, rel=1e-3)
    spread = np.sqrt(variance_between + mean_error**2)
    reach = scipy.stats.t.ppf(0.975, 2) * spread
    expected = np.tanh([centre - reach, centre + reach])
    assert [row["prediction_low"], row["prediction_high"]] == pytest.approx(expected, rel=1e-3)

    assert row["sign_agreement"] == row["as_claimed"] == 1
    assert row["beating"] == 0.5
    assert row["worst_setting"] == "d"


def test_settings_of_one_problem_are_combined_into_one_effect():
    z = np.array([0.5, 0.9, 1.4, 0.2, 0.6])
    error = np.array([0.1, 0.2, 0.15, 0.1, 0.3])
    effects = pd.DataFrame({"setting": list("abcde"), "z": z, "error": error, "p": 0.5, "seeds": 5})
    effects["problem"] = ["first", "second", "second", "third", "second"]
    row = meta_analysis.combine_effects_over_settings(effects, claimed=1, relevant=0.3)

    second = [1, 2, 4]
    combined = pd.DataFrame(
        {
            "setting": ["a", "bce", "d"],
            "z": [0.5, z[second].mean(), 0.2],
            "error": [0.1, np.sqrt((error[second] ** 2).mean()), 0.1],
            "p": 0.5,
            "seeds": 5,
        }
    )
    combined["problem"] = combined["setting"]
    expected = meta_analysis.combine_effects_over_settings(combined, claimed=1, relevant=0.3)
    for name in ("estimate", "low", "high", "p", "q", "i_squared", "prediction_low"):
        assert row[name] == pytest.approx(expected[name]), name
    assert (row["settings"], row["problems"]) == (5, 3)
    assert row["worst_setting"] == "d"


def test_settings_of_only_one_problem_have_an_estimate_without_an_interval():
    settings = [replace(random_setting(name, seed), problem="p") for seed, name in enumerate("abc")]
    row = meta_analysis.consistency(settings, DRAWS, 0.3).iloc[0]
    assert np.isfinite(row["estimate"])
    assert np.isnan(row["low"])
    assert (row["settings"], row["problems"]) == (3, 1)
    assert "one problem" in row["note"]


def test_setting_that_disagrees_is_named_without_the_shared_trend():
    settings = [
        random_setting("a", 0),
        random_setting("b", 1),
        random_setting("c", 2, relation=1.0),
    ]
    table = meta_analysis.consistency(settings, DRAWS, 0.3).set_index("association")
    assert table.loc["task", "as_claimed"] == pytest.approx(2 / 3)
    assert table.loc["task", "worst_setting"] == "c"
    assert table.loc["within_run", "as_claimed"] == 1  # because of the trend alone
    assert table.loc["task", "i_squared"] > 0.9


def test_one_setting_has_an_estimate_without_an_interval():
    row = meta_analysis.consistency([random_setting("a")], DRAWS, 0.3).iloc[0]
    assert np.isfinite(row["estimate"])
    assert np.isnan(row["low"])
    assert "one setting" in row["note"]


@pytest.mark.parametrize(
    ("loss", "collapse", "verdict", "is_counterexample"),
    [
        (0.4, 0.5, "lost, and the measure moves as claimed", False),
        (0.4, 0.0, "lost, and the measure is still", True),
        (0.4, -0.5, "lost, and the measure moves the other way", True),
        (0.4, 0.225, "lost, and the measure is unclear", False),
        (0.0, 0.5, "kept, and the measure moves as claimed", True),
        (0.0, 0.0, "kept, and nothing against the claim", False),
        (0.055, 0.5, "unclear", False),
    ],
)
def test_verdict_follows_from_loss_and_collapse(loss, collapse, verdict, is_counterexample):
    table = counterexamples(random_setting("a", loss=loss, collapse=collapse))
    assert list(table["verdict"]) == [verdict]
    assert list(table["counterexample"]) == [is_counterexample]


def test_counterexamples_come_first():
    table = counterexamples(random_setting("a"), random_setting("b", collapse=0.0))
    assert list(table["setting"]) == ["b", "a"]


def test_single_seed_has_too_few_seeds_for_a_verdict():
    setting = random_setting("a")
    single_seed = replace(
        setting, measures=setting.measures[:, :, :1], outcomes=setting.outcomes[:, :, :1]
    )
    assert list(counterexamples(single_seed)["verdict"]) == ["too few seeds"]


def test_loss_uses_all_tasks_and_change_those_of_the_measure():
    setting = random_setting("a")
    setting.measures[..., 1::2] = np.nan
    row = counterexamples(setting).iloc[0]
    gap, rank = setting.outcomes[0, 0], setting.measures[0, 0]
    # early are tasks 1 to 3, late 21 to 23; of these, tasks 2 and 22 were measured
    assert row["loss"] == pytest.approx((gap[:, 21:].mean(axis=1) - gap[:, 0]).mean())
    expected = (rank[:, 2] - rank[:, 22]) / np.maximum(rank[:, 2], rank[:, 22])
    assert row["change"] == pytest.approx(expected.mean())
    assert row["tasks"] == TASKS // 2


def test_fall_from_the_untrained_network_is_no_counterexample():
    """The rank falls once, in the first task, also where no plasticity is lost."""
    setting = random_setting("a", loss=0.0, collapse=0.0)
    setting.measures[..., 0] *= 5
    assert list(counterexamples(setting)["verdict"]) == ["kept, and nothing against the claim"]


def test_measure_that_was_not_taken_early_gets_no_verdict():
    setting = random_setting("a")
    is_measured = np.isin(np.arange(TASKS), [0, 12, 22])
    setting.measures[..., ~is_measured] = np.nan
    table = counterexamples(setting)
    assert list(table["verdict"]) == ["not measured early and late"]
    assert table["change"].isna().all()
    assert not table["counterexample"].any()


@pytest.mark.parametrize(("loss", "expected"), [(0.4, "lost"), (0.0, "kept"), (0.055, "unclear")])
def test_fate_of_a_setting_follows_from_the_interval_of_its_loss(loss, expected):
    setting = random_setting("a", loss=loss)
    assert meta_analysis.fate(setting, DRAWS, lost=0.05) == expected
    assert meta_analysis.fate(setting, DRAWS, lost=0.05, arm="l2") == "unclear"
    single_seed = replace(setting, outcomes=setting.outcomes[:, :, :1])
    assert meta_analysis.fate(single_seed, DRAWS, lost=0.05) == "unclear"
    setting.outcomes[:] = np.nan
    assert meta_analysis.fate(setting, DRAWS, lost=0.05) == "unclear"


def verdicts(rows):
    """Make a table of setting, arm, change and whether plasticity is lost, kept or unclear."""
    table = pd.DataFrame(rows, columns=["setting", "arm", "change", "fate"])
    verdict = table["fate"].map({"lost": "lost, …", "kept": "kept, …", "unclear": "unclear"})
    return table.assign(measure="weight_norm", verdict=verdict)


def rank_arms(table, problems=None):
    """Rank arms; by default each setting is a problem of its own."""
    own = {setting: setting for setting in table["setting"]}
    return meta_analysis.rank_arms(table, problems or own, DRAWS)


def test_arms_are_ranked_by_the_auc_of_the_change():
    random = np.random.default_rng(0)
    rows = []
    for setting in range(10):
        for arm in range(3):
            is_lost = random.random() < 0.5
            change = random.normal() + 1.0 * is_lost
            rows.append(
                (f"s{setting}", f"l2(strength={arm})", change, "lost" if is_lost else "kept")
            )
        rows.append((f"s{setting}", "fresh", 99.0, "kept"))
        rows.append((f"s{setting}", "dropout", -99.0, "unclear"))
    (row,) = rank_arms(verdicts(rows)).to_dict("records")
    lost = [change for _, _, change, fate in rows if fate == "lost"]
    kept = [change for _, arm, change, fate in rows if fate == "kept" and arm != "fresh"]
    wins = scipy.stats.mannwhitneyu(lost, kept).statistic
    assert row["estimate"] == pytest.approx(wins / len(lost) / len(kept))
    assert row["low"] < row["estimate"] < row["high"]
    assert (row["lost"], row["kept"], row["settings"]) == (len(lost), len(kept), 10)


def test_arms_of_one_fate_or_of_few_settings_have_a_note():
    one_fate = rank_arms(verdicts([("a", "none", 1.0, "lost")] * 3)).iloc[0]
    assert np.isnan(one_fate["estimate"])
    assert "none keeps it" in one_fate["note"]
    rows = [("a", "none", 1.0, "lost"), ("b", "none", 0.0, "kept")]
    few_settings = rank_arms(verdicts(rows)).iloc[0]
    assert few_settings["estimate"] == 1
    assert np.isnan(few_settings["low"])


def test_measure_that_separates_all_arms_has_no_interval():
    """No resample can differ from 1, which is no proof that the next arm is ranked right."""
    rows = [(f"s{index}", "none", 5.0 + index, "lost") for index in range(3)]
    rows += [(f"s{index}", "none", -float(index), "kept") for index in range(3, 20)]
    for sign, value in ((1, 1), (-1, 0)):
        signed = [(setting, arm, sign * change, fate) for setting, arm, change, fate in rows]
        row = rank_arms(verdicts(signed)).iloc[0]
        assert row["estimate"] == value
        assert np.isnan([row["low"], row["high"]]).all()
        assert row["note"] == "it separates all arms, so resamples give no interval"


def test_arms_are_resampled_by_problem():
    """Twenty copies of each of two settings are still two problems."""
    rows = []
    for copy in range(20):
        rows += [(f"a{copy}", "none", 1.0, "lost"), (f"b{copy}", "none", 0.0, "kept")]
        rows += [(f"a{copy}", "l2", 0.2, "kept"), (f"b{copy}", "l2", 0.1, "lost")]
    table = verdicts(rows)
    problems = {setting: setting[0] for setting in table["setting"]}
    clustered = rank_arms(table, problems).iloc[0]
    assert (clustered["settings"], clustered["problems"]) == (40, 2)
    assert clustered["note"] == "too few problems for an interval"
    assert clustered["estimate"] == rank_arms(table).iloc[0]["estimate"]
    assert np.isfinite(rank_arms(table).iloc[0]["low"])


def test_interval_over_arms_does_not_narrow_when_settings_are_copied():
    random = np.random.default_rng(1)
    rows, copied = [], []
    for index in range(10):
        for arm in ("none", "l2"):
            fate = "lost" if random.random() < 0.5 else "kept"
            change = random.normal() + (fate == "lost")
            rows.append((f"s{index}", arm, change, fate))
            copied += [(f"s{index}_{copy}", arm, change, fate) for copy in range(3)]
    problems = {setting: setting[:2] for setting, *_ in copied}
    one, three = rank_arms(verdicts(rows)).iloc[0], rank_arms(verdicts(copied), problems).iloc[0]
    assert [three["low"], three["high"]] == pytest.approx([one["low"], one["high"]])


@pytest.mark.parametrize("studies", slow_except([150], [150, 2000]))
def test_intervals_over_problems_cover_where_settings_share_an_error(studies):
    """The settings of a problem share an error, so settings alone give too narrow intervals."""
    error = np.sqrt(0.05 * 0.95 / studies)
    clustered = simulated_problems.coverage(studies, is_clustered=True)
    by_setting = simulated_problems.coverage(studies, is_clustered=False)
    for table in ("consistency", "prediction"):
        assert abs(clustered[table] - 0.95) < 0.01 + 3 * error
        assert by_setting[table] < 0.85
