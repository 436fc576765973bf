"""One row per explanation: its numbers are cells of other tables."""

import numpy as np
import pandas as pd
import pytest

from plasticity.config.quantities import RANKS
from plasticity.statistics import explanations

RANK = "fisher_effective_rank"


def arms(**values):
    row = {"measure": RANK, "estimate": 0.86, "low": 0.84, "high": 0.88, "note": "a note"}
    return pd.DataFrame([row | values])


def taus(*rows):
    row = {
        "setting": "all",
        "arm": "none",
        "task": "all",
        "measure": RANK,
        "outcome": "final_error",
        "statistic": "tau",
        "estimate": -0.6,
        "low": -0.8,
        "high": -0.3,
        "settings": 3,
        "worst_setting": "s",
        "note": "",
    }
    return pd.DataFrame([row | values for values in rows], columns=list(row))


def counterexamples(*rows):
    columns = ["measure", "arm", "verdict", "counterexample"]
    return pd.DataFrame(rows, columns=columns)


def warnings(**values):
    row = {"measure": RANK, "versus": "", "statistic": "auc"}
    numbers = {"estimate": 0.7, "low": 0.6, "high": 0.8, "note": ""}
    return pd.DataFrame([row | numbers | values])


def joined(**tables):
    empty = {
        "arms": arms()[:0],
        "interventions": taus(),
        "counterexamples": counterexamples(),
        "early_warning": warnings()[:0],
    }
    return explanations.explanations(empty | tables).set_index("measure")


def test_row_has_the_numbers_of_four_tables():
    table = joined(
        arms=arms(),
        interventions=taus({}, {"setting": "s", "estimate": -0.2, "low": -0.4, "high": 0.1}),
        counterexamples=counterexamples(
            (RANK, "none", "lost, and the measure is still", True),
            (RANK, "l2", "kept, and nothing against the claim", False),
            (RANK, "redo", "unclear", False),
            (RANK, "fresh", "kept, and the measure moves as claimed", True),
        ),
        early_warning=warnings(),
    )
    row = table.loc[RANK]
    assert row["claim"] == -1
    assert row[["auc", "auc_low", "auc_high"]].tolist() == [0.86, 0.84, 0.88]
    assert row["auc_note"] == "a note"
    assert row[["tau", "tau_low", "tau_high"]].tolist() == [0.6, 0.3, 0.8]
    assert (row["tau_settings"], row["worst_setting"]) == (3, "s")
    assert row[["worst_tau", "worst_tau_low", "worst_tau_high"]].tolist() == [0.2, -0.1, 0.4]
    assert (row["counterexamples"], row["judged_arms"]) == (1, 2)
    assert row[["warning", "warning_low", "warning_high"]].tolist() == [0.7, 0.6, 0.8]


def test_tau_of_a_measure_that_should_rise_keeps_its_sign():
    row = joined(interventions=taus({"measure": "dead_fraction"})).loc["dead_fraction"]
    assert row[["tau", "tau_low", "tau_high"]].tolist() == [-0.6, -0.8, -0.3]


@pytest.mark.parametrize(
    "other", [{"task": "4"}, {"statistic": "difference"}, {"outcome": "online_error"}]
)
def test_other_rows_of_interventions_do_not_count(other):
    row = joined(interventions=taus({"estimate": -0.1} | other, {})).loc[RANK]
    assert row["tau"] == 0.6


def test_difference_to_another_measure_is_no_early_warning():
    table = joined(early_warning=pd.concat([warnings(versus="task", estimate=0.1), warnings()]))
    assert table.loc[RANK, "warning"] == 0.7


def test_missing_numbers_have_notes():
    row = joined(arms=arms()).loc[RANK]
    assert np.isnan(row[["tau", "worst_tau", "counterexamples", "warning"]].astype(float)).all()
    assert row["tau_note"] == "no interventions"
    assert row["counterexamples_note"] == explanations.NO_FATE
    assert row["warning_note"] == "not measured"
    assert row["judged_arms"] == 0
    assert row["worst_setting"] == ""
    others = joined(interventions=taus({"measure": "weight_norm"}), arms=arms())
    assert others.loc[RANK, "tau_note"] == "not measured"


def test_only_measured_explanations_have_a_row_in_the_order_of_quantities():
    measured = ["weight_norm", "fisher_trace", "fisher_epsilon_rank", "feature_rank", RANK]
    table = joined(arms=pd.concat([arms(measure=measure) for measure in measured]))
    assert list(table.index) == [RANK, "feature_rank", "weight_norm"]


def test_explanations_are_three_ranks_of_each_operator_and_other_measures_with_a_claim():
    names = list(explanations.names())
    assert names[:3] == [f"fisher_{rank}" for rank in RANKS]
    assert {"ntk_stable_rank", "dormant_fraction", "isometry_deviation"} <= set(names)
    assert not {"update_norm", "fisher_trace", "gradient_strength"} & set(names)
