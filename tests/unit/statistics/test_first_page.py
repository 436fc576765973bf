"""The first page has few sentences, with numbers of the tables, and none that says nothing."""

import numpy as np
import pandas as pd

from plasticity.statistics import explanations, first_page, statements

RANK = "fisher_effective_rank"
OTHER_RANK = "ggn_effective_rank"
TITLES = {"a": "MNIST, shuffled labels, ReLU"}
COLUMNS = {
    "outcomes": ["setting", "arm", "outcome", "stage", "mean", "low", "high", "note"],
    "counterexamples": ["setting", "arm", "measure", "verdict", "counterexample", "change"],
    "arms": ["measure", "estimate", "low", "high", "lost", "kept", "settings"],
    "interventions": [
        *("setting", "arm", "task", "measure", "outcome", "statistic", "versus"),
        *("estimate", "low", "high", "claim", "settings", "worst_setting", "worst_estimate"),
    ],
    "intervention_counterexamples": ["measure", "outcome", "kind"],
    "hypotheses": ["hypothesis", "claim", "setting", "verdict"],
    "consistency": [
        *("measure", "outcome", "association", "estimate", "low", "high", "as_claimed"),
        *("prediction_low", "prediction_high", "settings", "problems"),
    ],
    "associations": [
        *("setting", "level", "arm", "measure", "outcome", "evaluation_point", "block"),
        *("estimate", "strongest_null_model"),
    ],
    "early_warning": ["measure", "versus", "statistic", "estimate", "low", "high", "settings"],
}
LOST, KEPT = "lost, and the measure moves as claimed", "kept, and nothing against the claim"
GAP = "final_error_gap"


def study(**tables):
    """Make all tables; those that are not given have no rows."""
    rows = {name: tables.get(name, []) for name in COLUMNS}
    return {name: pd.DataFrame(rows[name], columns=COLUMNS[name]) for name in COLUMNS}


def state(primary=RANK, **tables):
    """Return the sentences in the order of the page."""
    return [row["statement"] for row in first_page.sentences(study(**tables), primary, TITLES)]


def only(**tables):
    """Return the only sentence."""
    (sentence,) = state(**tables)
    return sentence


def errors(*settings):
    return [
        {"setting": setting, "arm": "none", "outcome": "final_error", "stage": "late", "mean": 0.5}
        for setting in settings
    ]


def gap(setting, mean):
    return {"setting": setting, "arm": "none", "outcome": GAP, "stage": "late", "mean": mean}


def verdict(setting, verdict, arm="none", measure=RANK, change=0.5, against=False):
    return {
        "setting": setting,
        "arm": arm,
        "measure": measure,
        "verdict": verdict,
        "counterexample": against,
        "change": change,
    }


def score(measure=RANK, estimate=0.86, low=0.84, high=0.88, settings=3, **values):
    numbers = {"estimate": estimate, "low": low, "high": high, "settings": settings}
    return {"measure": measure, **numbers, **values}


def tau(measure=RANK, estimate=-0.6, claim=-1, **values):
    keys = {"setting": "all", "arm": "none", "task": "all", "outcome": "final_error"}
    worst = {"worst_setting": "a", "worst_estimate": -0.21}
    return (
        keys | worst | score(measure, estimate, -0.8, -0.4, claim=claim, statistic="tau") | values
    )


def test_loss_counts_settings_and_names_the_range_of_the_late_gap():
    (loss, *_) = state(
        outcomes=[*errors(*"abcd"), gap("a", 0.7), gap("b", 0.123), gap("c", 0.9)],
        counterexamples=[verdict("a", LOST), verdict("b", LOST), verdict("c", KEPT)],
    )
    assert loss == (
        "Without an intervention, plasticity is lost in 2 of 4 settings (kept in 1 and unclear in "
        "1); the late gap to a fresh network is 0.12 to 0.70 where it is lost."
    )


def test_loss_that_is_unclear_everywhere_has_the_late_gap():
    rows = [*errors("a", "b"), gap("a", 0.2), gap("b", 0.05)]
    assert only(outcomes=rows) == (
        "Whether plasticity is lost without an intervention is unclear in 2 settings; the late gap "
        "to a fresh network is 0.05 to 0.20."
    )


def test_study_without_the_arm_none_says_so():
    assert only(outcomes=[errors("a")[0] | {"arm": "fresh"}]) == first_page.NOTHING_TO_EXPLAIN


def test_fate_of_an_arm_is_that_of_the_tasks_with_the_rank():
    rows = [verdict("a", "unclear", measure="hessian_trace"), verdict("a", KEPT)]
    other = verdict("b", LOST, measure="weight_norm")
    fates = explanations.fates(pd.DataFrame([*rows, other]), RANK)
    assert fates == {("a", "none"): "kept", ("b", "none"): "lost"}


def test_fall_of_the_rank_is_compared_where_plasticity_is_lost_and_kept():
    rows = [
        verdict("a", LOST, change=0.434),
        verdict("b", LOST, change=0.93),
        verdict("c", "lost, and the measure is unclear"),
        verdict("d", KEPT),
    ]
    (loss, *_) = state(counterexamples=rows)
    assert loss == (
        "The Fisher effective rank falls in 2 of 3 settings that lose plasticity (by 43 to 93 %, "
        "unclear in 1) and in 0 of 1 setting that keeps plasticity."
    )


def test_agreement_over_arms_is_compared_with_the_best_rival_without_curvature():
    rows = [
        score(lost=23, kept=60),
        score("weight_norm", 0.7, 0.6, 0.8),
        score("feature_rank", 0.81, np.nan, np.nan),
        score(OTHER_RANK, 0.99),
        score("dead_fraction", 0.95, settings=1),
    ]
    assert only(arms=rows) == (
        "Over 23 arms that lose and 60 that keep plasticity, the change of the Fisher effective "
        "rank tells them apart with AUC 0.86 (95 % interval 0.84 to 0.88); chance is 0.5, and the "
        "best measure without curvature, feature rank (last hidden), has 0.81 (no interval)."
    )


def test_of_equal_rivals_the_first_of_the_table_of_explanations_is_named():
    rows = [score(lost=2, kept=2), score("weight_norm", 0.8), score("feature_rank", 0.8)]
    assert "feature rank" in state(arms=rows)[0]


def test_tau_over_settings_names_the_worst_by_its_title_and_the_best_rival():
    rows = [
        tau(),
        tau("weight_norm", -0.7, claim=1),
        tau("dead_fraction", 0.3, claim=1, low=0.1, high=0.5),
        tau(task="4", estimate=-0.9),
    ]
    assert only(interventions=rows) == (
        "Among treated copies of a checkpoint, Kendall's τ of the Fisher effective rank and the "
        "error after the next task is -0.60 (95 % interval -0.80 to -0.40) over 3 settings; least "
        "in MNIST, shuffled labels, ReLU: -0.21; for the best measure without curvature, dead "
        "units (share), it is 0.30 (95 % interval 0.10 to 0.50)."
    )


def test_tau_of_one_setting_has_no_worst_setting():
    (sentence,) = state(interventions=[tau(settings=1)])
    assert sentence.endswith("(95 % interval -0.80 to -0.40) over 1 setting.")


def test_tau_of_one_seed_is_the_range_over_settings():
    rows = [tau(setting=setting, estimate=-0.1 * k) for k, setting in enumerate("abc", 4)]
    assert only(interventions=[*rows, tau(estimate=np.nan)]) == (
        "Among treated copies of a checkpoint, Kendall's τ of the Fisher effective rank and the "
        "error after the next task is -0.60 to -0.40 in 3 settings (no interval)."
    )


def hypotheses(count):
    verdicts = ["undecided", "supported", "supported"]
    return [
        {"hypothesis": f"C{number}", "claim": "…", "setting": setting, "verdict": result}
        for number in range(count)
        for setting, result in zip("abc", verdicts, strict=True)
    ]


def test_few_hypotheses_are_stated_one_by_one_and_many_are_counted():
    assert only(hypotheses=hypotheses(2)) == (
        "Declared hypotheses, adjusted by Holm's method. C0: supported in 2, undecided in 1 of 3 "
        "settings; C1: supported in 2, undecided in 1 of 3 settings."
    )
    assert only(hypotheses=hypotheses(5)) == (
        "15 tests of 5 declared hypotheses, adjusted by Holm's method: supported in 10, undecided "
        "in 5."
    )


def test_counter_examples_are_counted_without_baselines():
    rows = [
        verdict("a", "lost, and the measure is still", against=True),
        verdict("a", LOST, arm="l2"),
        verdict("a", "unclear", arm="redo"),
        verdict("a", "kept, and the measure moves as claimed", arm="fresh", against=True),
    ]
    sentence = "Counter-examples to the Fisher effective rank: 1 of 2 arms that lose plasticity."
    assert sentence in state(counterexamples=rows)


def test_treatments_that_restore_only_plasticity_or_only_the_rank_are_counted():
    kinds = ["both"] * 3 + ["not_necessary"] * 5 + ["unclear", "neither"]
    rows = [{"measure": RANK, "outcome": "final_error", "kind": kind} for kind in kinds]
    assert only(intervention_counterexamples=rows) == (
        "Treatments of checkpoints (each dose, task and setting counts): of 8 that restore "
        "plasticity, 5 do not restore the Fisher effective rank; of 3 that restore the Fisher "
        "effective rank, all restore plasticity."
    )


def test_one_treatment_does_and_two_do_not():
    rows = [
        {"measure": RANK, "outcome": "final_error", "kind": kind}
        for kind in ["both", "not_necessary", "not_sufficient", "not_sufficient"]
    ]
    sentence = only(intervention_counterexamples=rows)
    assert "of 2 that restore plasticity, 1 does not restore the Fisher effective rank" in sentence
    assert "of 3 that restore the Fisher effective rank, 2 do not restore plasticity" in sentence


def consistency(**values):
    row = score(outcome=GAP, association="within_run", as_claimed=2 / 3, problems=3)
    return row | {"prediction_low": -0.9, "prediction_high": 0.2} | values


def associations(*models):
    keys = {"level": "within_run", "arm": "none", "measure": RANK, "outcome": GAP}
    variant = {"evaluation_point": "next", "block": "all"}
    return [
        keys
        | variant
        | {"setting": str(k), "estimate": -0.1 * (k + 1), "strongest_null_model": model}
        for k, model in enumerate(models)
    ]


def test_correlation_within_runs_has_the_meta_analysis_or_the_range_over_settings():
    assert only(consistency=[consistency()]) == (
        "Within runs, the Fisher effective rank and the gap to a fresh network are correlated as "
        "claimed in 2 of 3 settings; over 3 problems, Spearman's ρ is 0.86 (95 % interval 0.84 to "
        "0.88), and -0.90 to 0.20 is expected of the next problem."
    )
    (sentence, _) = state(
        consistency=[consistency(low=np.nan)], associations=associations("none", "task", "none")
    )
    assert sentence.endswith("in 2 of 3 settings; Spearman's ρ is -0.30 to -0.10.")


def test_null_models_that_are_beaten_are_counted():
    models = ("none", "task", "mismatched", "mismatched", "")
    assert only(associations=associations(*models)) == (
        "Within runs, the correlation of the Fisher effective rank and the gap to a fresh network "
        "beats a null model of a shared trend in 3 of 4 settings, and the one that assumes least "
        "(seeds mismatched) in 2."
    )
    assert state(associations=associations("", "")) == []


def test_early_warning_is_compared_with_the_best_rival_and_the_number_of_the_task():
    keys = {"statistic": "auc", "versus": ""}
    rows = [
        score(**keys),
        score("feature_rank", 0.92, **keys),
        score("task", 0.8, **keys),
        score("weight_norm", 0.99, statistic="auc", versus=RANK),
    ]
    assert only(early_warning=rows) == (
        "As a warning of a large gap, tested in settings that the model has not seen, the change "
        "of the Fisher effective rank since a run's first task has AUC 0.86 (95 % interval 0.84 "
        "to 0.88); the best measure without curvature, feature rank (last hidden), has 0.92 (95 % "
        "interval 0.84 to 0.88), and the number of the task alone has 0.80."
    )


def methods(rows):
    return state(counterexamples=rows)[-1]


def test_methods_are_listed_that_keep_plasticity_in_all_settings_that_lose_it():
    rows = [
        *(verdict(setting, LOST) for setting in "ab"),
        verdict("c", KEPT),
        verdict("a", KEPT, arm="l2(strength=0.1)"),
        verdict("b", LOST, arm="l2(strength=0.3)"),
        verdict("c", KEPT, arm="spectral(strength=1)"),
        verdict("a", KEPT, arm="l2_init(strength=0.1)"),
        verdict("b", KEPT, arm="l2_init(strength=0.3)"),
        verdict("a", KEPT, arm="layer_norm"),
        verdict("a", KEPT, arm="fresh+layer_norm"),
    ]
    assert methods(rows) == (
        "In 2 settings that lose plasticity without an intervention, 2 of 3 methods keep it "
        "wherever trained: L2 Init, layer norm."
    )


def test_arms_are_listed_if_a_method_has_several():
    arms = [f"l2(strength={strength})" for strength in range(9)]
    rows = [verdict("a", LOST), *(verdict("a", KEPT, arm=arm) for arm in arms)]
    assert methods(rows) == (
        "In 1 setting that loses plasticity without an intervention, 9 of 9 arms keep it wherever "
        "trained: L2 0, L2 1, L2 2, L2 3, L2 4, L2 5 and 3 more."
    )
    rows[1:] = [verdict("a", LOST, arm=arm) for arm in arms]
    assert methods(rows).endswith("0 of 9 arms keep it wherever trained.")


def test_rank_of_another_operator_stands_for_curvature_without_a_fisher():
    (sentence, *_) = state(counterexamples=[verdict("a", LOST, measure=OTHER_RANK)])
    assert sentence.startswith("The GGN effective rank falls")


def test_study_without_results_has_no_sentence():
    assert state() == []


def test_measure_without_an_estimate_is_not_stated():
    row = score(estimate=np.nan, lost=0, kept=3)
    warning = score(estimate=np.nan, statistic="auc", versus="")
    assert state(arms=[row], interventions=[tau(estimate=np.nan)], early_warning=[warning]) == []


def test_there_are_at_most_twelve_sentences_and_they_are_ranked():
    assert len(first_page._SENTENCES) <= first_page.MAX_SENTENCES
    tables = study(
        outcomes=[
            *(row | {"stage": stage} for row in errors("a") for stage in ("early", "late")),
            errors("a")[0] | {"arm": "fresh"},
        ],
        counterexamples=[verdict("a", KEPT)],
    )
    others = {
        "population": ["measure", "statistic", "estimate"],
        "lead_lag": ["measure", "arm", "outcome", "estimate"],
        "prediction": ["measure", "setting", "outcome", "estimate", "statistic"],
        "comparisons": ["statistic", "stage", "outcome", "versus", "estimate"],
    }
    tables |= {name: pd.DataFrame(columns=columns) for name, columns in others.items()}
    table = statements.statements(tables, RANK)
    ranked = table[table["rank"].notna()]
    assert ranked["rank"].tolist() == [1, 2, 3]
    assert ranked["about"].tolist() == ["outcomes", "counterexamples", "counterexamples"]
    assert table["rank"].isna().sum() == 2
    assert table.loc[table["about"] == "loss", "setting"].tolist() == ["a"]
