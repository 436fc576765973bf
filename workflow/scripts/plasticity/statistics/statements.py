"""Sentences about the tables. Captions and the README take their numbers from here."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from plasticity.config.models import BASELINE, is_baseline
from plasticity.config.quantities import EXPLANATION, describe, split_operator
from plasticity.statistics import first_page
from plasticity.statistics.explanations import INTERVENED_OUTCOME, fates, judged_arms
from plasticity.statistics.meta_analysis import EXPLAINED_ARM
from plasticity.statistics.null_models import MEANINGS
from plasticity.statistics.resampling import SIGNIFICANCE_LEVEL
from plasticity.statistics.wording import (
    OUTCOME,
    does_not,
    interval_words,
    p_words,
    select,
    words,
)

QUESTIONS = {
    "measure_first": "past values of the measure help to predict the outcome",
    "outcome_first": "the reverse holds",
}
VERDICTS = {
    "lost": "plasticity is lost",
    "kept": "plasticity is kept",
    "unclear": "whether plasticity is lost is unclear",
}
NO_VERDICT = "too little to tell whether plasticity is lost"
COLUMNS = ["about", "measure", "setting", "rank", "statement"]
Statement = dict[str, object]


def statements(
    tables: Mapping[str, pd.DataFrame], primary: str, titles: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """State the results of all tables in sentences.

    Args:
        tables: all other tables, with adjusted p values.
        primary: the measure that stands for curvature.
        titles: of settings, by name, for the sentences of the first page.

    Returns:
        One row per sentence: the table or figure that it is ``about``, the measure and the setting
        (empty if it is about several), its ``rank`` on the first page of the report (1 is the most
        important, NaN for sentences that are not there), and the ``statement``.
    """
    ranked = first_page.sentences(tables, primary, titles or {})
    rows = [
        *({"rank": rank, "setting": "", **row} for rank, row in enumerate(ranked, 1)),
        *_losses(tables["outcomes"], tables["counterexamples"], primary),
        *_scatter(tables["associations"], primary),
        *_consistency(tables["consistency"]),
        *_counterexamples(tables["counterexamples"]),
        *_population(tables["population"]),
        *_lead_lag(tables["lead_lag"]),
        *_prediction(tables["prediction"]),
        *_comparisons(tables["comparisons"]),
        *_interventions(tables["interventions"], primary),
        *_rivals(tables["interventions"], primary),
        *_intervention_counterexamples(tables["intervention_counterexamples"]),
        *_hypotheses(tables["hypotheses"]),
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _statement(about: str, statement: str, measure: str = "", setting: str = "") -> Statement:
    """Build a row of the table."""
    return {"about": about, "measure": measure, "setting": setting, "statement": statement}


def _losses(
    outcomes: pd.DataFrame, counterexamples: pd.DataFrame, primary: str
) -> Iterator[Statement]:
    """State for each setting how the error without an intervention changes."""
    final_errors = outcomes[outcomes["outcome"] == "final_error"]
    means = final_errors.set_index(["setting", "arm", "stage"])
    verdicts = fates(counterexamples, primary)
    settings = dict.fromkeys(setting for setting, arm, _ in means.index if arm == EXPLAINED_ARM)
    for setting in settings:
        early = means.loc[(setting, EXPLAINED_ARM, "early")]
        late = means.loc[(setting, EXPLAINED_ARM, "late")]
        fresh = means.loc[(setting, BASELINE, "late")]
        if np.isnan(late["mean"]):
            sentence = (
                f"{setting}: no seed without an intervention came to the end ({late['note']})."
            )
        else:
            verdict = verdicts.get((setting, EXPLAINED_ARM), "")
            sentence = (
                f"{setting}: without an intervention the final error is {early['mean']:.3f} "
                f"on early tasks and {late['mean']:.3f} on late ones "
                f"({interval_words(late)}), where that of a fresh network is "
                f"{fresh['mean']:.3f}: {VERDICTS.get(verdict, NO_VERDICT)}."
            )
        yield _statement("loss", sentence, setting=setting)


def _scatter(associations: pd.DataFrame, primary: str) -> Iterator[Statement]:
    """State for each setting the correlation of the primary rank and the error."""
    keys = {
        "level": "within_run",
        "arm": EXPLAINED_ARM,
        "measure": primary,
        **EXPLANATION,
        "outcome": "final_error",
    }
    for _, row in select(associations, keys).iterrows():
        setting = row["setting"]
        if np.isnan(row["estimate"]):
            sentence = f"{setting}: no correlation ({row['note']})."
        else:
            sentence = (
                f"{setting}: ρ = {row['estimate']:.2f} ({interval_words(row)}, "
                f"{row['seeds']} seeds); {_null_model_words(row['strongest_null_model'])}."
            )
        yield _statement("scatter", sentence, row["measure"], setting)


def _null_model_words(strongest_null_model: str) -> str:
    """Write the strongest null model that an association beats as words."""
    if strongest_null_model == "none":
        return "it beats no null model"
    if not strongest_null_model:
        return "too few seeds for a null model"
    return f"the strongest null model that it beats: {MEANINGS[strongest_null_model]}"


def _consistency(consistency: pd.DataFrame) -> Iterator[Statement]:
    """State for each explanation how far settings agree."""
    keys = {"outcome": OUTCOME, "association": "within_run"}
    for _, row in select(consistency, keys).iterrows():
        measure = row["measure"]
        if not row["settings"]:
            continue
        sentence = (
            f"{words(measure)} and {words(OUTCOME)}, within runs: {_agreement_words(row)}"
            f"{_meta_analysis_words(row)}; worst: {row['worst_setting']} "
            f"({row['worst_estimate']:.2f})."
        )
        yield _statement("consistency", sentence, measure)


def _agreement_words(row: pd.Series) -> str:
    """Write in how many settings the correlations agree as words."""
    settings = row["settings"]
    if np.isnan(row["as_claimed"]):
        share, sign = row["sign_agreement"], "have the same sign"
    else:
        share, sign = row["as_claimed"], "have the claimed sign"
    return (
        f"in {round(share * settings)} of {settings} settings the correlations {sign}, "
        f"in {round(row['beating'] * settings)} the measure beats mismatched seeds "
        f"(p ≤ {SIGNIFICANCE_LEVEL}, unadjusted)"
    )


def _meta_analysis_words(row: pd.Series) -> str:
    """Write the estimate over settings as words; empty if there is none."""
    if not np.isfinite(row["low"]):
        return ""
    prediction = ""
    if np.isfinite(row["prediction_low"]):
        low, high = row["prediction_low"], row["prediction_high"]
        prediction = f", for the next problem {low:.2f} to {high:.2f}"
    return (
        f"; over {row['problems']} problems ρ = {row['estimate']:.2f} ({interval_words(row)}, "
        f"I² = {100 * row['i_squared']:.0f} %{prediction})"
    )


def _counterexamples(counterexamples: pd.DataFrame) -> Iterator[Statement]:
    """State for each explanation how many arms contradict it, if it is known of any arm."""
    for measure, rows in counterexamples.groupby("measure", sort=False):
        judged = judged_arms(rows)
        if not len(judged):
            continue
        is_lost = judged["verdict"].str.startswith("lost")
        is_against = judged["counterexample"]
        arms = rows.loc[~rows["arm"].map(is_baseline)]
        count = int((is_lost & is_against).sum())
        plural = "" if count == 1 else "s"
        sentence = (
            f"{words(str(measure))}: {count} counter-example{plural} "
            f"among {int(is_lost.sum())} arms that lose plasticity, "
            f"{int((~is_lost & is_against).sum())} among {int((~is_lost).sum())} that keep it; "
            f"of {len(arms) - len(judged)} it is unclear."
        )
        yield _statement("counterexamples", sentence, str(measure))


def _population(population: pd.DataFrame) -> Iterator[Statement]:
    """State for each explanation whether it changes more where more plasticity is lost."""
    rows = select(population, {"statistic": "spearman"})
    for _, row in rows[rows["estimate"].notna()].iterrows():
        measure = row["measure"]
        sentence = (
            f"{words(measure)}: over {row['settings']} settings, the correlation of its change and "
            f"the change of the {words(OUTCOME)} is ρ = {row['estimate']:.2f} "
            f"({interval_words(row)}, adjusted p = {row['p_adjusted']:.3g})."
        )
        yield _statement("population", sentence, measure)


def _lead_lag(lead_lag: pd.DataFrame) -> Iterator[Statement]:
    """State in how many settings each measure helps to predict the outcome, or the reverse."""
    is_tested = lead_lag["estimate"].notna()
    tested = select(lead_lag[is_tested], {"arm": EXPLAINED_ARM, "outcome": OUTCOME})
    for measure, rows in tested.groupby("measure", sort=False):
        parts = []
        for question, meaning in QUESTIONS.items():
            answers = rows[rows["question"] == question]
            if len(answers):
                count = int((answers["p_adjusted"] <= SIGNIFICANCE_LEVEL).sum())
                parts.append(f"{meaning} in {count} of {len(answers)} settings")
        if parts:
            sentence = (
                f"{words(str(measure))} and {words(OUTCOME)}: {'; '.join(parts)} "
                f"(adjusted p ≤ {SIGNIFICANCE_LEVEL})."
            )
            yield _statement("lead_lag", sentence, str(measure))


def _prediction(prediction: pd.DataFrame) -> Iterator[Statement]:
    """State how well measures rank checkpoints, over the settings that lose plasticity."""
    rows = select(prediction, {"setting": "all: lost", "outcome": OUTCOME})
    rows = rows[rows["estimate"].notna() & rows["statistic"].isin(["auc_left_out", "added"])]
    for _, row in rows.iterrows():
        measure = row["measure"]
        if row["statistic"] == "added":
            operator = words(measure.split(" + ")[-1])
            result = (
                f"{operator} adds {row['estimate']:+.3f} to the AUC of weight norm, "
                "feature rank and dead units"
            )
        else:
            result = (
                f"{words(measure)} ranks two checkpoints of a task by the {words(OUTCOME)} "
                f"to come with AUC {row['estimate']:.2f}"
            )
        *reasons, settings = row["note"].split("; ")
        interval = ": ".join([interval_words(row), *reasons])
        sentence = (
            f"{result}, its direction taken from other settings "
            f"({interval}; {settings} that lose plasticity, "
            f"{int(row['problems'])} problem{'' if row['problems'] == 1 else 's'})."
        )
        yield _statement("prediction", sentence, measure)


def _comparisons(comparisons: pd.DataFrame) -> Iterator[Statement]:
    """State how each arm compares with no intervention, late."""
    keys = {
        "statistic": "mean_difference",
        "stage": "late",
        "outcome": "final_error",
        "versus": EXPLAINED_ARM,
    }
    rows = select(comparisons, keys)
    for _, row in rows[rows["estimate"].notna()].iterrows():
        setting = row["setting"]
        sentence = (
            f"{_place(setting)}: the final error of {row['arm']} is {row['estimate']:+.3f} "
            f"compared with none, late ({interval_words(row)}, {p_words(row)})."
        )
        yield _statement("comparisons", sentence, setting=setting)


def _taus(interventions: pd.DataFrame) -> pd.DataFrame:
    """Select the correlations with the final error over treated copies, mean over tasks."""
    keys = {"outcome": INTERVENED_OUTCOME, "task": "all", "arm": EXPLAINED_ARM}
    return select(interventions, keys)


def _place(setting: str) -> str:
    """Write the setting of a row as words."""
    return "over all settings" if setting == "all" else setting


def _interventions(interventions: pd.DataFrame, primary: str) -> Iterator[Statement]:
    """State how well the primary rank orders the treated copies of a checkpoint."""
    of_primary = select(_taus(interventions), {"measure": primary})
    others = select(of_primary, {"statistic": "tau_without_harmful"}).set_index("setting")
    for _, row in select(of_primary, {"statistic": "tau"}).iterrows():
        setting = row["setting"]
        if np.isnan(row["estimate"]):
            sentence = f"{setting}: no τ over treated copies ({row['note']})."
        else:
            worst = ""
            if setting == "all":
                worst = f"; worst: {row['worst_setting']} ({row['worst_estimate']:.2f})"
            sentence = (
                f"{_place(setting)}: among {row['treatments']} treated copies of a checkpoint, "
                f"τ of {words(primary)} and {words(INTERVENED_OUTCOME)} after the task is "
                f"{row['estimate']:.2f} ({interval_words(row)}, {p_words(row)}{worst})"
            )
            if setting in others.index and np.isfinite(others.loc[setting, "estimate"]):
                other = others.loc[setting]
                sentence += (
                    f"; without harmful treatments it is {other['estimate']:.2f} "
                    f"({interval_words(other)}, {p_words(other)})"
                )
            sentence += "."
        yield _statement("interventions", sentence, primary, setting)


def _rivals(interventions: pd.DataFrame, primary: str) -> Iterator[Statement]:
    """State for each setting which measure without an operator agrees most with its claim."""
    taus = _taus(interventions)
    rivals = select(taus, {"statistic": "tau"})
    is_rival = [
        bool(describe(measure).claimed_sign) and not split_operator(measure)[0]
        for measure in rivals["measure"]
    ]
    rivals = rivals.loc[np.array(is_rival, bool) & rivals["estimate"].notna()]
    agreement = rivals["estimate"] * rivals["claim"]
    for setting, of_setting in agreement.groupby(rivals["setting"], sort=False):
        rival = rivals.loc[of_setting.idxmax()]
        keys = {"setting": str(setting), "measure": primary, "versus": rival["measure"]}
        difference = select(taus, {**keys, "statistic": "difference"})
        comparison = ""
        if len(difference) and np.isfinite(difference["estimate"].iloc[0]):
            row = difference.iloc[0]
            comparison = (
                f"; the agreement of {words(primary)} minus this one is {row['estimate']:+.2f} "
                f"({interval_words(row)}, {p_words(row)})"
            )
        sentence = (
            f"{_place(str(setting))}: of the measures without curvature, "
            f"{words(rival['measure'])} agrees most with its claim over treated copies "
            f"(τ = {rival['estimate']:.2f}){comparison}."
        )
        yield _statement("interventions", sentence, rival["measure"], str(setting))


def _intervention_counterexamples(counterexamples: pd.DataFrame) -> Iterator[Statement]:
    """State for each measure how many treatments restore it or plasticity, but not the other."""
    cases = select(counterexamples, {"outcome": INTERVENED_OUTCOME})
    for measure, rows in cases.groupby("measure", sort=False):
        counts = rows["kind"].value_counts()
        both = int(counts.get("both", 0))
        not_necessary = int(counts.get("not_necessary", 0))
        not_sufficient = int(counts.get("not_sufficient", 0))
        sentence = (
            f"{words(str(measure))}: of {both + not_necessary} treatments that restore plasticity, "
            f"{does_not(not_necessary)} restore the measure; of {both + not_sufficient} that "
            f"restore the measure, {does_not(not_sufficient)} restore plasticity "
            "(doses, tasks and settings counted one by one)."
        )
        yield _statement("intervention_counterexamples", sentence, str(measure))


def _hypotheses(hypotheses: pd.DataFrame) -> Iterator[Statement]:
    """State the verdicts on each hypothesis."""
    for name, rows in hypotheses.groupby("hypothesis", sort=False):
        counts = rows["verdict"].value_counts()
        verdicts = ", ".join(f"{verdict} in {count}" for verdict, count in counts.items())
        sentence = (
            f"{name} ({rows['claim'].iloc[0]}): {verdicts} of {len(rows)} settings "
            "(Holm over its family)."
        )
        yield _statement("hypotheses", sentence)
