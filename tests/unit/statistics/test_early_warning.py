"""Early warning: compare fits with statsmodels and scores with loops; simulate level and power."""

import dataclasses

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import statsmodels.api as sm

from plasticity.statistics import early_warning
from plasticity.statistics.setting_arrays import SettingArrays, Variant

LOST = 0.05
SEEDS, TASKS = 4, 16  # early are the tasks 1 and 2
RANK, NORM, SHARE = "fisher_effective_rank", "weight_norm", "dead_fraction"


def make_setting(name, measures, gaps, arms=("none",)):
    """Build a setting from measures by name and gaps, shapes ``(arm, seed, task)``."""
    return SettingArrays(
        setting=name,
        arms=list(arms),
        variants=[Variant(measure, "next", "all") for measure in measures],
        measures=np.stack(list(measures.values())),
        outcome_names=["final_error", "final_error_gap"],
        outcomes=np.stack([gaps, gaps]),
    )


def gaps_of_logits(logits, random):
    """Draw gaps that exceed the margin with the probability that has these logits."""
    return LOST + 0.01 * (logits + random.logistic(size=logits.shape))


def draw_study(seed, settings, effects, trend=0.0, noise=1.0):
    """Draw settings in which shares with normal values change the logit of the event.

    Args:
        seed: of the study.
        settings: number of settings.
        effects: of each measure on the logit, by name.
        trend: growth of the logit and of all measures per task.
        noise: standard deviation of what all runs of a setting share.
    """
    random = np.random.default_rng(seed)
    shape = (1, SEEDS, TASKS)
    study = []
    for index in range(settings):
        measures = {}
        logits = np.full(shape, noise * random.normal()) + trend * (np.arange(TASKS) - 9)
        for name, effect in effects.items():
            values = random.normal(size=shape)
            values[..., :3] = 0
            logits = logits + effect * values
            measures[name] = values + trend * np.maximum(np.arange(TASKS) - 2, 0)
        study.append(make_setting(f"s{index}", measures, gaps_of_logits(logits, random)))
    return study


def select(study):
    return {arrays.setting: early_warning.select_checkpoints(arrays, LOST) for arrays in study}


def forecasts_of(study, measure):
    return early_warning.forecast(early_warning.samples(select(study), measure))


def numbered(forecasts):
    """Name a problem of its own for each forecast."""
    return [str(index) for index in range(len(forecasts))]


def only_row(table, **keys):
    conditions = [table[key] == value for key, value in keys.items()]
    rows = table.loc[np.logical_and.reduce(conditions)]
    assert len(rows) == 1
    return rows.iloc[0]


# Selection


def test_checkpoints_are_changes_since_the_first_trained_network_of_their_run():
    random = np.random.default_rng(0)
    values = random.uniform(1, 9, (2, 3, TASKS))
    gaps = random.normal(size=(2, 3, TASKS))
    values[0, 1, 5] = np.nan
    gaps[1, 2, 8] = np.nan
    arrays = make_setting("s", {RANK: values, SHARE: values}, gaps, arms=("none", "l2"))
    selected = early_warning.select_checkpoints(arrays, LOST)
    expected = {RANK: [], SHARE: [], "task": []}
    events = []
    for arm, seed, task in np.ndindex(2, 3, TASKS):
        if task < 3 or np.isnan(gaps[arm, seed, task]):
            continue
        first, now = values[arm, seed, 1], values[arm, seed, task]
        expected[RANK].append((now - first) / max(now, first))
        expected[SHARE].append(now - first)
        expected["task"].append((task - 1) / task)
        events.append(gaps[arm, seed, task] > LOST)
    assert selected.is_event.tolist() == events
    for measure, changes in expected.items():
        np.testing.assert_allclose(selected.changes[measure], changes)


def test_baselines_are_no_checkpoints():
    random = np.random.default_rng(0)
    values, gaps = random.normal(size=(2, 3, SEEDS, TASKS))
    arrays = make_setting("s", {RANK: values}, gaps, arms=("none", "fresh", "fresh+layer_norm"))
    selected = early_warning.select_checkpoints(arrays, LOST)
    assert len(selected.is_event) == SEEDS * (TASKS - 3)


def test_measure_that_was_not_taken_at_an_early_task_has_no_changes():
    random = np.random.default_rng(0)
    values, gaps = random.normal(size=(2, 1, SEEDS, TASKS))
    values[..., 1:3] = np.nan
    checkpoints = select([make_setting("s", {RANK: values}, gaps)])
    assert early_warning.samples(checkpoints, RANK) == {}


def test_two_measures_are_compared_at_the_checkpoints_that_have_both():
    random = np.random.default_rng(0)
    first, second, gaps = random.normal(size=(3, 1, SEEDS, TASKS))
    first[..., 5] = np.nan
    second[..., 7] = np.nan
    checkpoints = select([make_setting("s", {RANK: first, NORM: second}, gaps)])
    of_first = early_warning.samples(checkpoints, RANK, NORM)["s"]
    of_second = early_warning.samples(checkpoints, NORM, RANK)["s"]
    assert len(of_first.change) == SEEDS * (TASKS - 5)
    np.testing.assert_array_equal(of_first.is_event, of_second.is_event)


# Numbers


def random_regression(seed, size=300):
    random = np.random.default_rng(seed)
    change = random.normal(2, 3, size)
    is_event = random.uniform(size=size) < scipy.special.expit(0.4 * change - 1)
    weights = random.uniform(0.5, 2, size)
    return change, is_event, weights / weights.sum()


@pytest.mark.parametrize("seed", range(5))
def test_fit_equals_a_weighted_fit_of_statsmodels(seed, monkeypatch):
    monkeypatch.setattr(early_warning, "RIDGE", 0)
    change, is_event, weights = random_regression(seed)
    expected = sm.GLM(
        is_event.astype(float),
        sm.add_constant(change),
        family=sm.families.Binomial(),
        freq_weights=weights * len(weights),
    ).fit()
    fitted = early_warning.fit_logistic(change, is_event, weights)
    np.testing.assert_allclose(fitted, expected.params, rtol=1e-4)


def test_ridge_changes_a_slope_by_less_than_a_hundredth(monkeypatch):
    data = random_regression(0)
    with_ridge = early_warning.fit_logistic(*data)[1]
    monkeypatch.setattr(early_warning, "RIDGE", 0)
    assert with_ridge == pytest.approx(early_warning.fit_logistic(*data)[1], rel=0.01)


def test_slope_of_perfect_separation_is_where_the_penalty_balances_the_likelihood():
    change = np.arange(20.0)
    spread = change.std()
    x = (change - 9.5) / spread

    def derivative(slope):
        errors = (change > 9) - scipy.special.expit(slope * x)
        return (errors * x).mean() - early_warning.RIDGE * slope

    expected = scipy.optimize.brentq(derivative, 0, 1000) / spread
    intercept, slope = early_warning.fit_logistic(change, change > 9, np.full(20, 1 / 20))
    assert slope == pytest.approx(expected, rel=1e-3)
    assert intercept == pytest.approx(-9.5 * slope)


def test_constant_predictor_gives_the_base_rate():
    is_event = np.arange(8) < 2
    intercept, slope = early_warning.fit_logistic(np.ones(8), is_event, np.full(8, 1 / 8))
    assert slope == 0
    assert scipy.special.expit(intercept) == pytest.approx(0.25)


def test_forecast_of_a_setting_does_not_use_its_own_outcomes():
    study = draw_study(0, 3, {SHARE: 2.0})
    samples = early_warning.samples(select(study), SHARE)
    before = early_warning.forecast(samples)["s0"]
    samples["s0"].is_event[:] = ~samples["s0"].is_event
    after = early_warning.forecast(samples)["s0"]
    np.testing.assert_array_equal(before.logits, after.logits)
    assert before.base_rate == after.base_rate


def test_settings_have_equal_weight_however_many_checkpoints_they_have():
    study = draw_study(1, 3, {SHARE: 2.0})
    samples = early_warning.samples(select(study), SHARE)
    before = early_warning.forecast(samples)["s0"]
    twice = samples["s1"]
    samples["s1"] = early_warning.Sample(np.tile(twice.change, 2), np.tile(twice.is_event, 2))
    after = early_warning.forecast(samples)["s0"]
    np.testing.assert_allclose(before.logits, after.logits, rtol=1e-5)
    assert before.base_rate == pytest.approx(after.base_rate)


def win(first, second):
    if first == second:
        return 0.5
    return 1.0 if first > second else 0.0


def test_auc_and_brier_scores_equal_loops_over_checkpoints():
    random = np.random.default_rng(0)
    logits = random.integers(-2, 3, 40).astype(float)
    is_event = random.uniform(size=40) < 0.4
    one = early_warning.Forecast(logits, is_event, base_rate=0.3, slope=1.0)
    wins = [win(a, b) for a in logits[is_event] for b in logits[~is_event]]
    assert one.auc == pytest.approx(np.mean(wins))
    squares, base_squares = [], []
    for logit, happens in zip(logits, is_event, strict=True):
        squares.append((1 / (1 + np.exp(-logit)) - happens) ** 2)
        base_squares.append((0.3 - happens) ** 2)
    assert one.brier == pytest.approx(np.mean(squares))
    assert one.base_brier == pytest.approx(np.mean(base_squares))


def test_mean_has_students_interval_and_leaves_out_problems_without_a_value():
    values = np.array([0.6, np.nan, 0.7, 0.9])
    estimate = early_warning.mean_over_problems(values, bounds=(0, 1))
    known = values[[0, 2, 3]]
    low, high = scipy.stats.t.interval(0.95, 2, known.mean(), scipy.stats.sem(known))
    assert estimate.value == pytest.approx(known.mean())
    assert estimate.low == pytest.approx(low)
    assert high > 1
    assert estimate.high == 1


def test_error_of_a_ratio_is_close_to_that_of_the_jackknife():
    random = np.random.default_rng(0)
    denominators = random.uniform(0.1, 0.3, 40)
    numerators = 0.4 * denominators + random.normal(0, 0.02, 40)
    estimate = early_warning.ratio_over_problems(numerators, denominators)
    without_one = []
    for index in range(40):
        others = np.arange(40) != index
        without_one.append(numerators[others].mean() / denominators[others].mean())
    spread = np.std(without_one)
    error = spread * np.sqrt(39)
    reach = scipy.stats.t.ppf(0.975, 39) * error
    assert estimate.value == pytest.approx(numerators.sum() / denominators.sum())
    assert estimate.high - estimate.value == pytest.approx(reach, rel=0.05)


def test_skill_is_one_minus_the_ratio_of_brier_scores():
    study = draw_study(0, 6, {RANK: 0.0, SHARE: 2.0})
    table = early_warning.early_warning(study, LOST, RANK)
    forecasts = forecasts_of(study, SHARE).values()
    ratio = sum(one.brier for one in forecasts) / sum(one.base_brier for one in forecasts)
    row = only_row(table, measure=SHARE, versus="", statistic="skill")
    assert row["estimate"] == pytest.approx(1 - ratio)


def test_differences_are_of_the_scores_of_both_measures():
    study = draw_study(0, 6, {RANK: 1.0, SHARE: 2.0})
    table = early_warning.early_warning(study, LOST, RANK)
    for statistic in ("auc", "skill"):
        keys = {"versus": "", "statistic": statistic}
        first = only_row(table, measure=SHARE, **keys)["estimate"]
        second = only_row(table, measure=RANK, **keys)["estimate"]
        row = only_row(table, measure=SHARE, versus=RANK, statistic=statistic)
        assert row["estimate"] == pytest.approx(first - second)
    assert not len(table.query("measure == versus"))


def test_calibration_equals_a_weighted_fit_with_its_sandwich():
    forecasts = list(forecasts_of(draw_study(3, 6, {SHARE: 1.5}), SHARE).values())
    forecasts[0] = early_warning.Forecast(
        forecasts[0].logits[:20], forecasts[0].is_event[:20], forecasts[0].base_rate, 1.0
    )
    logits = np.concatenate([one.logits for one in forecasts])
    is_event = np.concatenate([one.is_event for one in forecasts]).astype(float)
    sizes = np.array([len(one.logits) for one in forecasts])
    weights = np.repeat(1 / sizes, sizes)
    x = sm.add_constant(logits)
    family = sm.families.Binomial()
    fit = sm.GLM(is_event, x, family=family, freq_weights=weights).fit()
    probability = fit.predict()
    bread = np.linalg.inv((x.T * weights * probability * (1 - probability)) @ x)
    scores = x * (weights * (is_event - probability))[:, None]
    by_setting = np.add.reduceat(scores, np.r_[0, sizes.cumsum()[:-1]])
    errors = np.sqrt(np.diag(bread @ by_setting.T @ by_setting @ bread) * 6 / 5)
    calibration = early_warning.calibrate(forecasts, numbered(forecasts))
    for index, name in enumerate(early_warning.CALIBRATION):
        estimate = calibration[name]
        reach = scipy.stats.t.ppf(0.975, 5) * errors[index]
        assert estimate.value == pytest.approx(fit.params[index], rel=1e-5)
        assert estimate.high - estimate.value == pytest.approx(reach, rel=1e-4)


def test_settings_of_a_problem_count_once():
    values = np.array([0.5, 0.7, np.nan, 0.9, np.nan])
    means = early_warning.by_problem(values, ["a", "a", "b", "c", "c"])
    np.testing.assert_allclose(means, [0.6, np.nan, 0.9])

    study = draw_study(0, 6, {RANK: 1.0, SHARE: 2.0})
    two_problems = [
        dataclasses.replace(arrays, problem=str(index % 2)) for index, arrays in enumerate(study)
    ]
    table = early_warning.early_warning(two_problems, LOST, RANK)
    assert table["low"].isna().all()
    assert table["note"].str.contains("too few problems").all()
    estimates = early_warning.early_warning(study, LOST, RANK)["estimate"]
    np.testing.assert_allclose(table["estimate"], estimates)  # of equally many settings each


# Notes


def test_setting_without_events_has_no_auc_and_stays_in_the_calibration():
    study = draw_study(0, 5, {SHARE: 2.0})
    study[0].outcomes[:] = 0.0
    table = early_warning.early_warning(study, LOST, RANK)
    settings = table.query(f"measure == '{SHARE}' and versus == ''").set_index("statistic")
    assert settings.loc["auc", "settings"] == 4
    assert settings.loc["skill", "settings"] == 5
    assert settings.loc["calibration_slope", "settings"] == 5
    assert settings.loc["auc", "checkpoints"] == 5 * SEEDS * (TASKS - 3)


@pytest.mark.parametrize("settings", [1, 2])
def test_too_few_settings_have_no_interval_and_a_note(settings):
    table = early_warning.early_warning(
        draw_study(0, settings, {RANK: 2.0, SHARE: 2.0}), LOST, RANK
    )
    assert len(table)
    assert table["low"].isna().all()
    assert (table["interval"] == "").all()
    assert (table["note"] != "").all()
    assert table["estimate"].isna().all() == (settings == 1)


def test_auc_without_a_stable_direction_has_no_interval():
    study = draw_study(0, 4, {SHARE: 3.0}, noise=0.0)
    for arrays in study[:2]:
        arrays.measures[:] *= -1
    row = only_row(
        early_warning.early_warning(study, LOST, RANK), measure=SHARE, versus="", statistic="auc"
    )
    assert row["estimate"] < 0.5
    assert np.isnan(row["low"])
    assert "direction" in row["note"]


def test_perfectly_separated_events_have_no_calibration():
    study = draw_study(0, 4, {SHARE: 0.0})
    for arrays in study:
        arrays.measures[0] = (arrays.outcomes[1] > LOST) * 1.0
        arrays.measures[0, ..., :3] = 0.0
    table = early_warning.early_warning(study, LOST, RANK)
    rows = table.query(f"measure == '{SHARE}' and versus == ''").set_index("statistic")
    assert rows.loc["auc", "estimate"] == 1
    assert rows.loc["auc", "note"] == "the same in all problems"
    assert np.isnan(rows.loc["calibration_slope", "estimate"])
    assert "separates" in rows.loc["calibration_slope", "note"]


# Simulations


def unrelated_auc(seed, settings=10):
    """Estimate the AUC of random walks that have nothing to do with the event."""
    random = np.random.default_rng(seed)
    study = draw_study(seed, settings, {SHARE: 0.0})
    for arrays in study:
        arrays.measures[:] = random.normal(size=arrays.measures.shape).cumsum(axis=-1)
    forecasts = list(forecasts_of(study, SHARE).values())
    aucs = np.array([one.auc for one in forecasts])
    return early_warning._directed(early_warning.mean_over_problems(aucs, bounds=(0, 1)), forecasts)


def check_level(estimates, truth, most):
    """Check that few intervals exclude the truth; an estimate without interval excludes nothing."""
    excluding = [one.low > truth or one.high < truth for one in estimates]
    assert np.mean(excluding) <= most


def test_auc_of_an_unrelated_measure_is_one_half():
    estimates = [unrelated_auc(seed) for seed in range(60)]
    assert np.mean([one.value for one in estimates]) == pytest.approx(0.5, abs=0.03)
    assert any(np.isfinite(one.low) for one in estimates)
    check_level(estimates, truth=0.5, most=0.12)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [5, 10, 20])
def test_interval_of_an_unrelated_measure_excludes_one_half_in_at_most_5_percent(settings):
    estimates = [unrelated_auc(seed, settings) for seed in range(1000)]
    check_level(estimates, truth=0.5, most=0.067)


def difference_of_equal_measures(seed, settings=10):
    study = draw_study(seed, settings, {RANK: 1.0, SHARE: 1.0})
    first, second = (
        list(forecasts_of([only_measure(arrays, index) for arrays in study], SHARE).values())
        for index in (0, 1)
    )
    aucs = np.array([one.auc - two.auc for one, two in zip(first, second, strict=True)])
    briers = np.array([two.brier - one.brier for one, two in zip(first, second, strict=True)])
    base_briers = np.array([one.base_brier for one in first])
    return (
        early_warning.mean_over_problems(aucs, bounds=(-1, 1)),
        early_warning.ratio_over_problems(briers, base_briers),
    )


def only_measure(arrays, index):
    """Keep one measure, under the name of a share, so that its changes are absolute."""
    gaps = arrays.outcomes[1]
    return make_setting(arrays.setting, {SHARE: arrays.measures[index]}, gaps)


def test_differences_of_equally_good_measures_cover_zero():
    estimates = [difference_of_equal_measures(seed) for seed in range(40)]
    for of_statistic in zip(*estimates, strict=True):
        check_level(of_statistic, truth=0.0, most=0.13)


@pytest.mark.slow
def test_differences_of_equally_good_measures_cover_zero_in_95_percent():
    estimates = [difference_of_equal_measures(seed) for seed in range(1000)]
    for of_statistic in zip(*estimates, strict=True):
        check_level(of_statistic, truth=0.0, most=0.067)
        widths = np.array([one.high - one.low for one in of_statistic])
        assert np.isfinite(widths).all()


def test_planted_predictor_is_found_and_an_unrelated_one_is_worse():
    found, better, skilled = [], [], []
    for seed in range(10):
        study = draw_study(seed, 8, {SHARE: 1.5, RANK: 0.0})
        table = early_warning.early_warning(study, LOST, RANK)
        row = only_row(table, measure=SHARE, versus="", statistic="auc")
        found.append(row["low"] > 0.5)
        skilled.append(only_row(table, measure=SHARE, versus="", statistic="skill")["low"] > 0)
        skill = only_row(table, measure=SHARE, versus=RANK, statistic="skill")
        better.append(skill["low"] > 0)
    assert np.mean(found) == 1
    assert np.mean(skilled) >= 0.8
    assert np.mean(better) >= 0.8


def test_forecast_of_the_true_model_is_calibrated():
    intercepts, slopes = [], []
    for seed in range(20):
        forecasts = forecasts_of(draw_study(seed, 12, {SHARE: 1.5}, noise=0.0), SHARE)
        calibration = early_warning.calibrate(list(forecasts.values()), list(forecasts))
        intercepts.append(calibration["calibration_intercept"])
        slopes.append(calibration["calibration_slope"])
    assert np.mean([one.value for one in intercepts]) == pytest.approx(0, abs=0.05)
    assert np.mean([one.value for one in slopes]) == pytest.approx(1, abs=0.05)
    check_level(intercepts, truth=0.0, most=0.2)
    check_level(slopes, truth=1.0, most=0.2)


@pytest.mark.slow
def test_intervals_of_the_calibration_cover_the_true_model_in_about_95_percent():
    calibrations = []
    for seed in range(1000):
        forecasts = forecasts_of(draw_study(seed, 12, {SHARE: 1.5}, noise=0.0), SHARE)
        calibrations.append(early_warning.calibrate(list(forecasts.values()), list(forecasts)))
    for name, truth in zip(early_warning.CALIBRATION, (0.0, 1.0), strict=True):
        check_level([calibration[name] for calibration in calibrations], truth, most=0.08)


def test_overconfident_forecast_has_a_slope_below_one():
    forecasts = list(forecasts_of(draw_study(0, 12, {SHARE: 1.5}, noise=0.0), SHARE).values())
    doubled = [
        early_warning.Forecast(2 * one.logits, one.is_event, one.base_rate, one.slope)
        for one in forecasts
    ]
    slope = early_warning.calibrate(forecasts, numbered(forecasts))["calibration_slope"].value
    slope_of_doubled = early_warning.calibrate(doubled, numbered(doubled))["calibration_slope"]
    assert slope_of_doubled.value == pytest.approx(slope / 2)


def test_forecast_far_on_the_wrong_side_has_no_calibration_and_a_note():
    """As in the published evidence: the regression of these forecasts diverges."""
    events = np.arange(43) < 23
    forecasts = [
        early_warning.Forecast(logits, is_event, 0.5, 1.0)
        for logits, is_event in (
            (np.linspace(0.58, 0.66, 87), np.zeros(87, bool)),
            (np.linspace(-0.52, 0.01, 437), np.arange(437) < 430),
            (np.linspace(1.03, 15.7, 43), np.zeros(43, bool)),
            (np.linspace(-0.06, -0.005, 43), events),
            (np.linspace(-42.8, -3.7, 43), np.ones(43, bool)),
            (np.linspace(-0.49, -0.05, 43), np.ones(43, bool)),
        )
    ]
    calibration = early_warning.calibrate(forecasts, ["a", "b", "a", "a", "c", "a"])
    assert {estimate.note for estimate in calibration.values()} == {"the fit diverges"}
    assert all(np.isnan(estimate.value) for estimate in calibration.values())


def test_measure_that_only_drifts_is_not_better_than_the_number_of_the_task():
    """Its AUC is far above one half, because the gap drifts, too."""
    differences = []
    for seed in range(10):
        study = draw_study(seed, 8, {SHARE: 0.0, RANK: 0.0}, trend=0.4)
        table = early_warning.early_warning(study, LOST, RANK)
        assert only_row(table, measure=SHARE, versus="", statistic="auc")["low"] > 0.6
        row = only_row(table, measure=SHARE, versus="task", statistic="auc")
        differences.append(row)
    assert not any(row["low"] > 0 for row in differences)
    assert np.mean([row["estimate"] for row in differences]) < 0
