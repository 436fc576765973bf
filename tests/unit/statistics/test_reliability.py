"""Reliability: compare with simulated errors, and measure the coverage of corrected intervals."""

import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import simulated_noise
import xarray as xr
from tiers import slow_except

from plasticity.statistics import associations, null_models, reliability
from plasticity.statistics.estimate import Estimate
from plasticity.statistics.merge import add_gaps
from plasticity.statistics.resampling import Draws
from plasticity.statistics.setting_arrays import CompleteSeries, SettingArrays, Variant

TRACE = Variant("ggn_trace", "next", "all")
NORM = Variant("weight_norm", "", "all")
DRAWS = Draws(199)


def noisy_series(noise, seeds=8, tasks=400):
    """Draw walks, exact and with an error of estimation whose variance differs between tasks."""
    random = np.random.default_rng(0)
    exact = random.normal(size=(1, seeds, tasks)).cumsum(axis=-1) + np.linspace(0, 20, tasks)
    errors = noise * random.uniform(0.5, 1.5, (seeds, tasks))
    x = exact + errors * random.normal(size=exact.shape)
    series = CompleteSeries(
        variants=[TRACE],
        x=x,
        y=x,
        seeds=np.arange(seeds),
        tasks=np.arange(tasks),
        runs=seeds,
        errors={TRACE: errors},
    )
    return exact, series


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_reliability_is_the_squared_correlation_with_the_exact_measure(noise):
    exact, series = noisy_series(noise)
    shares = reliability.reliabilities(series)
    transforms = {
        "mismatched": lambda values: values,
        "task": null_models.deviations,
        "differenced": null_models.innovations,
    }
    for name, transform in transforms.items():
        a, b = transform(exact)[0], transform(series.x)[0]
        slopes = [scipy.stats.linregress(x, y) for x, y in zip(a, b, strict=True)]
        explained = sum(fit.slope**2 * x.var() for fit, x in zip(slopes, a, strict=True))
        assert shares[name][0] == pytest.approx(explained / b.var(axis=-1).sum(), abs=0.06)
    assert shares["shifted"] == shares["differenced"]


def test_exact_measure_has_reliability_1_and_its_correction_changes_nothing():
    _, series = noisy_series(0.0)
    exact = replace(series, errors={})
    for shares in reliability.reliabilities(exact).values():
        assert shares == 1
    columns = reliability.columns(Estimate(0.4, -0.1, 0.8), 1.0)
    assert list(columns.values()) == [1.0, 0.4, -0.1, 0.8]


def test_correction_divides_by_the_root_of_the_reliability_and_stays_a_correlation():
    columns = reliability.columns(Estimate(0.4, -0.1, 0.8), 0.25 + 0.24)
    assert list(columns.values()) == pytest.approx([0.49, 0.4 / 0.7, -0.1 / 0.7, 1.0])


@pytest.mark.parametrize(
    ("share", "note"),
    [
        (0.29, "measured too coarsely"),
        (0.3, "measured with error"),
        (0.89, "measured with error"),
        (0.9, ""),
        (np.nan, ""),
    ],
)
def test_note_says_how_well_a_measure_is_known(share, note):
    assert reliability.note(share) == note
    corrected = reliability.columns(Estimate(0.4, 0.1, 0.6), share)["corrected"]
    assert np.isfinite(corrected) == (share >= 0.3)


def dataset(probes=None, margin=1.0):
    """Draw a setting with an estimated trace and an exact norm of the weights."""
    random = np.random.default_rng(0)
    run, shape = ("arm", "seed", "task"), (2, 5, 20)
    trace = random.normal(size=(*shape, 1, 1))
    variables = {
        name: (run, random.uniform(size=shape))
        for name in ("final_error", "online_error", "update_norm")
    }
    variables["weight_norm"] = ((*run, "block"), random.normal(size=(*shape, 1)))
    by_point = (*run, "evaluation_point", "block")
    variables["ggn_trace"] = (by_point, trace)
    variables["ggn_trace_margin"] = (by_point, np.full(trace.shape, margin))
    coordinates = {"arm": ["none", "fresh"], "evaluation_point": ["next"], "block": ["all"]}
    data = xr.Dataset(variables, coordinates)
    baseline = data.sel(arm="fresh", drop=True)
    fresh = {f"fresh_{name}": baseline[name] for name in ("final_error", "online_error")}
    data = add_gaps(data.assign(fresh))
    if probes:
        settings = {"curvature": {"operators": {"ggn": {"probes": probes}}}}
        data = data.assign_attrs(settings=json.dumps(settings))
    return data


@pytest.mark.parametrize(("probes", "quantile"), [(2, 12.706), (4, 3.182), (None, 1.960)])
def test_standard_error_is_the_margin_over_the_quantile_that_it_was_made_with(probes, quantile):
    arrays = SettingArrays.from_dataset("s", dataset(probes, margin=0.5))
    assert set(arrays.errors) == {TRACE}
    np.testing.assert_allclose(arrays.errors[TRACE], 0.5 / quantile, rtol=1e-3)
    assert arrays.without_baselines().errors[TRACE].shape == (1, 5, 20)


def test_tables_say_which_measures_have_an_error():
    arrays = SettingArrays.from_dataset("s", dataset(probes=4, margin=1.5))
    table, null_rows = associations.associations([arrays], DRAWS, 0.3)
    within = table[(table["level"] == "within_run") & (table["arm"] == "none")]
    of_trace = within[within["measure"] == "ggn_trace"].iloc[0]
    of_norm = within[within["measure"] == "weight_norm"].iloc[0]
    x = arrays.measures[arrays.variants.index(TRACE), 0]
    expected = 1 - (1.5 / 3.182) ** 2 / x.var(axis=-1, ddof=1).mean()
    assert of_trace["reliability"] == pytest.approx(expected, rel=1e-3)
    corrected = of_trace["estimate"] / np.sqrt(expected)
    assert of_trace["corrected"] == pytest.approx(corrected, rel=1e-3)
    assert "measured with error" in of_trace["note"]
    assert of_norm["reliability"] == 1
    assert of_norm["corrected"] == of_norm["estimate"]
    assert of_norm["note"] == ""
    is_of_trace = (null_rows["measure"] == "ggn_trace") & (null_rows["arm"] == "none")
    shares = null_rows[is_of_trace].groupby("null_model")["reliability"].first()
    assert shares["mismatched"] == pytest.approx(expected, rel=1e-3)
    assert shares["differenced"] < 1
    assert table.loc[table["level"] != "within_run", "reliability"].isna().all()


CASES = [("curves", 20), *((shape, 300) for shape in simulated_noise.SHAPES)]


@pytest.mark.parametrize(("shape", "studies"), slow_except([("curves", 20)], CASES))
def test_corrected_intervals_cover_where_raw_ones_miss(shape, studies):
    _, raw, corrected = simulated_noise.coverage(shape, 1.0, studies, DRAWS)["task"]
    assert raw < 0.7
    assert corrected > 0.88 - 3 * np.sqrt(0.1 * 0.9 / studies)
