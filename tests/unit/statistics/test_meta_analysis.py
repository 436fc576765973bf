"""Explanations over settings: a meta-analysis by hand, and counter-examples that were planted."""

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats

from plasticity.statistics import meta_analysis
from plasticity.statistics.panels import Key, Panel
from plasticity.statistics.resampling import Draws

DRAWS = Draws(199)
SEEDS, TASKS = 10, 24


def panel(name, seed=0, relation=-1.0, loss=0.4, collapse=0.5, arm="none"):
    """The gap grows by `loss`, the rank falls by the share `collapse`; what is a run's own goes together by `relation`."""
    draw = np.random.default_rng(seed)
    line, own = np.linspace(0, 1, TASKS), 0.02 * draw.normal(size=(SEEDS, TASKS))
    rank = 100 * (1 - collapse * line) + 100 * (relation * own + 0.02 * draw.normal(size=own.shape))
    gap = loss * line + own
    return Panel(
        name,
        [arm],
        [Key("fisher_effective_rank", "next", "all")],
        rank[None, None],
        ["final_error_gap"],
        gap[None, None],
    )


def test_the_meta_analysis_is_that_of_the_formulas():
    z, error = np.array([0.5, 0.9, 1.4, 0.2]), np.array([0.1, 0.2, 0.15, 0.1])
    found = meta_analysis._over_settings(
        pd.DataFrame(
            {
                "setting": list("abcd"),
                "z": z,
                "error": error,
                "p": [0.01, 0.2, 0.03, 0.5],
                "seeds": 5,
            }
        ),
        1,
    )
    weights = 1 / error**2
    q = (weights * (z - (weights * z).sum() / weights.sum()) ** 2).sum()
    assert found["q"] == pytest.approx(q)
    assert found["i_squared"] == pytest.approx((q - 3) / q)
    assert found["p_heterogeneity"] == pytest.approx(scipy.stats.chi2.sf(q, 3))

    def excess(
        tau,
    ):  # Paule and Mandel: the variance between settings at which Q is its expectation
        weight = 1 / (error**2 + tau)
        return (weight * (z - (weight * z).sum() / weight.sum()) ** 2).sum() - 3

    tau = scipy.optimize.brentq(excess, 0, 5)
    weight = 1 / (error**2 + tau)
    centre = (weight * z).sum() / weight.sum()
    spread = np.sqrt((weight * (z - centre) ** 2).sum() / (3 * weight.sum()))
    reach = scipy.stats.t.ppf(0.975, 3) * spread
    assert [found["estimate"], found["low"], found["high"]] == pytest.approx(
        np.tanh([centre, centre - reach, centre + reach]), rel=1e-3
    )
    ahead = scipy.stats.t.ppf(0.975, 2) * np.sqrt(tau + spread**2)
    assert [found["prediction_low"], found["prediction_high"]] == pytest.approx(
        np.tanh([centre - ahead, centre + ahead]), rel=1e-3
    )
    assert found["sign_agreement"] == found["as_claimed"] == 1
    assert found["beating"] == 0.5
    assert found["worst_setting"] == "d"


def test_settings_that_agree_and_one_that_does_not():
    table = meta_analysis.consistency(
        [panel("a", 0), panel("b", 1), panel("c", 2, relation=1.0)], DRAWS
    ).set_index("association")
    assert table.loc["task", "as_claimed"] == pytest.approx(2 / 3)
    assert table.loc["task", "worst_setting"] == "c"
    assert table.loc["within_run", "as_claimed"] == 1  # the trend alone makes it so
    assert table.loc["task", "i_squared"] > 0.9


def test_one_setting_is_an_estimate_without_an_interval():
    found = meta_analysis.consistency([panel("a")], DRAWS).iloc[0]
    assert np.isfinite(found["estimate"])
    assert np.isnan(found["low"])
    assert "one setting" in found["note"]


@pytest.mark.parametrize(
    ("loss", "collapse", "verdict", "against"),
    [
        (0.4, 0.5, "lost, and the measure moves as claimed", False),
        (0.4, 0.0, "lost, and the measure is still", True),
        (0.4, -0.5, "lost, and the measure moves the other way", True),
        (0.4, 0.2, "lost, and the measure is unclear", False),
        (0.0, 0.5, "kept, and the measure moves as claimed", True),
        (0.0, 0.0, "kept, and nothing against the claim", False),
        (0.055, 0.5, "unclear", False),
    ],
)
def test_counter_examples_are_found(loss, collapse, verdict, against):
    found = meta_analysis.counterexamples(
        [panel("a", loss=loss, collapse=collapse)], DRAWS, 0.05, 0.2
    )
    assert list(found["verdict"]) == [verdict]
    assert list(found["counterexample"]) == [against]


def test_counter_examples_come_first_and_a_single_seed_is_too_few():
    table = meta_analysis.counterexamples([panel("a"), panel("b", collapse=0.0)], DRAWS, 0.05, 0.2)
    assert list(table["setting"]) == ["b", "a"]
    one = panel("a")
    few = Panel("a", one.arms, one.keys, one.measures[:, :, :1], one.outcomes, one.values[:, :, :1])
    assert list(meta_analysis.counterexamples([few], DRAWS, 0.05, 0.2)["verdict"]) == [
        "too few seeds"
    ]


def test_a_loss_is_that_of_all_tasks_whatever_tasks_were_measured():
    one = panel("a")
    one.measures[..., 1::2] = np.nan
    found = meta_analysis.counterexamples([one], DRAWS, 0.05, 0.2).iloc[0]
    whole = meta_analysis.counterexamples([panel("a")], DRAWS, 0.05, 0.2).iloc[0]
    assert found["loss"] == whole["loss"]
    assert found["tasks"] == TASKS // 2
