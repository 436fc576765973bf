"""What the tables say, in sentences: captions and README take their numbers from here, never by hand."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from plasticity.config.models import BASELINE
from plasticity.statistics.meta_analysis import SURE
from plasticity.statistics.null_models import MEANINGS

OUTCOME = "final_error_gap"  # what sentences are about: how much worse than a fresh network
QUESTIONS = {
    "measure_first": "past values of the measure help to predict the outcome",
    "outcome_first": "the reverse holds",
}
VERDICTS = {
    "lost": "plasticity is lost",
    "kept": "plasticity is kept",
    "unclear": "whether plasticity is lost is unclear",
}
COLUMNS = ["about", "measure", "setting", "statement"]


def statements(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Sentences with their numbers.

    Args:
        tables: all others, adjusted.

    Returns:
        One row per sentence: the table or figure that it is ``about``, the measure and the setting if it is about one, and the
        ``statement``.
    """
    rows = [
        *_loss(tables),
        *_scatter(tables),
        *_consistency(tables),
        *_counterexamples(tables),
        *_timing(tables),
        *_prediction(tables),
    ]
    rows += [*_comparisons(tables), *_hypotheses(tables)]
    return pd.DataFrame(rows, columns=COLUMNS)


def words(name: str) -> str:
    """A measure's or an outcome's name as words."""
    return "gap to a fresh network" if name == OUTCOME else name.replace("_", " ")


def _between(row: pd.Series, low: str = "low", high: str = "high") -> str:
    """An interval in words, or why there is none."""
    return (
        f"95 % interval {row[low]:.2f} to {row[high]:.2f}"
        if np.isfinite(row[low])
        else "no interval"
    )


def _row(about: str, statement: str, measure: str = "", setting: str = "") -> dict[str, str]:
    """A row of the table."""
    return {"about": about, "measure": measure, "setting": setting, "statement": statement}


def _loss(tables: Mapping[str, pd.DataFrame]) -> Iterator[dict[str, str]]:
    """What became of the arm without an intervention, each setting."""
    outcomes = tables["outcomes"]
    means = outcomes[outcomes["outcome"] == "final_error"].set_index(["setting", "arm", "stage"])
    judged = tables["counterexamples"]
    verdicts = (
        judged[judged["arm"] == "none"].drop_duplicates("setting").set_index("setting")["verdict"]
    )
    for setting in dict.fromkeys(setting for setting, arm, _ in means.index if arm == "none"):
        early, late, fresh = (
            means.loc[(setting, arm, stage)]
            for arm, stage in (("none", "early"), ("none", "late"), (BASELINE, "late"))
        )
        if np.isnan(late["mean"]):
            yield _row(
                "loss",
                f"{setting}: no seed without an intervention came to the end ({late['note']}).",
                setting=setting,
            )
            continue
        said = f"{setting}: without an intervention the final error is {early['mean']:.3f} on the first eighth of the tasks "
        said += f"and {late['mean']:.3f} on the last ({_between(late)}), where that of a fresh network is {fresh['mean']:.3f}"
        verdict = str(verdicts.get(setting, "")).partition(",")[0]
        yield _row(
            "loss",
            f"{said}: {VERDICTS.get(verdict, 'too little to tell whether plasticity is lost')}.",
            setting=setting,
        )


def _scatter(tables: Mapping[str, pd.DataFrame]) -> Iterator[dict[str, str]]:
    """Rank of the Fisher against the error, each setting."""
    table = tables["associations"]
    keys = {
        "level": "within_run",
        "arm": "none",
        "measure": "fisher_effective_rank",
        "evaluation_point": "next",
        "block": "all",
        "outcome": "final_error",
    }
    for _, row in table[(table[list(keys)] == pd.Series(keys)).all(axis=1)].iterrows():
        if np.isnan(row["estimate"]):
            said = f"{row['setting']}: no correlation ({row['note']})."
        else:
            beaten = row["strongest_null"]
            more = {"none": "it beats no null", "": "too few seeds for a null"}.get(
                beaten
            ) or f"the strongest null that it beats: {MEANINGS[beaten]}"
            said = f"{row['setting']}: ρ = {row['estimate']:.2f} ({_between(row)}, {row['seeds']} seeds); {more}."
        yield _row("scatter", said, row["measure"], row["setting"])


def _consistency(tables: Mapping[str, pd.DataFrame]) -> Iterator[dict[str, str]]:
    """Each explanation over settings."""
    table = tables["consistency"]
    for _, row in table[
        (table["outcome"] == OUTCOME) & (table["association"] == "within_run")
    ].iterrows():
        measure, settings = row["measure"], row["settings"]
        if not settings:
            yield _row(
                "consistency",
                f"{words(measure)}: no correlation in any setting ({row['note']}).",
                measure,
            )
            continue
        share = row["sign_agreement"] if np.isnan(row["as_claimed"]) else row["as_claimed"]
        side = "have the same sign" if np.isnan(row["as_claimed"]) else "have the claimed sign"
        said = f"{words(measure)} and {words(OUTCOME)}, within runs: "
        said += f"in {round(share * settings)} of {settings} settings the correlations {side}, "
        said += f"in {round(row['beating'] * settings)} the measure beats mismatched seeds (p ≤ {SURE}, unadjusted)"
        if np.isfinite(row["low"]):
            said += f"; over settings ρ = {row['estimate']:.2f} ({_between(row)}, I² = {100 * row['i_squared']:.0f} %"
            said += (
                f", for the next setting {row['prediction_low']:.2f} to {row['prediction_high']:.2f})"
                * bool(np.isfinite(row["prediction_low"]))
            )
            said += ")" * (not np.isfinite(row["prediction_low"]))
        yield _row(
            "consistency",
            f"{said}; worst: {row['worst_setting']} ({row['worst_estimate']:.2f}).",
            measure,
        )


def _counterexamples(tables: Mapping[str, pd.DataFrame]) -> Iterator[dict[str, str]]:
    """How many counter-examples each explanation has."""
    for measure, found in tables["counterexamples"].groupby("measure", sort=False):
        verdicts = found["verdict"]
        lost, kept = verdicts.str.startswith("lost"), verdicts.str.startswith("kept")
        against = found["counterexample"]
        count = int((lost & against).sum())
        said = f"{words(str(measure))}: {count} counter-example{'s' * (count != 1)} among {int(lost.sum())} arms that lose plasticity, "
        said += f"{int((kept & against).sum())} among {int(kept.sum())} that keep it; of {int((~lost & ~kept).sum())} it is unclear."
        yield _row("counterexamples", said, str(measure))


def _timing(tables: Mapping[str, pd.DataFrame]) -> Iterator[dict[str, str]]:
    """What comes first, without an intervention."""
    table = tables["lead_lag"]
    table = table[
        (table["arm"] == "none") & (table["outcome"] == OUTCOME) & table["estimate"].notna()
    ]
    for measure, found in table.groupby("measure", sort=False):
        parts = []
        for question, said in (
            ("measure_first", "past values of the measure help to predict the outcome"),
            ("outcome_first", "the reverse holds"),
        ):
            rows = found[found["question"] == question]
            if len(rows):
                parts.append(
                    f"{said} in {int((rows['p_adjusted'] <= SURE).sum())} of {len(rows)} settings"
                )
        if parts:
            yield _row(
                "lead_lag",
                f"{words(str(measure))} and {words(OUTCOME)}: {'; '.join(parts)} (adjusted p ≤ {SURE}).",
                str(measure),
            )


def _prediction(tables: Mapping[str, pd.DataFrame]) -> Iterator[dict[str, str]]:
    """How well checkpoints are ranked, over settings."""
    table = tables["prediction"]
    overall = table[
        (table["setting"] == "all") & (table["outcome"] == OUTCOME) & table["estimate"].notna()
    ]
    for _, row in overall[overall["statistic"].isin(["auc_left_out", "added"])].iterrows():
        if row["statistic"] == "added":
            operator = words(row["measure"].split(" + ")[-1])
            said = f"{operator} adds {row['estimate']:+.3f} to the AUC of weight norm, feature rank and dead units"
        else:
            said = f"{words(row['measure'])} ranks two checkpoints of a task by the {words(OUTCOME)} to come with AUC {row['estimate']:.2f}"
        yield _row(
            "prediction",
            f"{said}, its direction taken from other settings ({_between(row)}, {row['note']}).",
            row["measure"],
        )


def _comparisons(tables: Mapping[str, pd.DataFrame]) -> Iterator[dict[str, str]]:
    """Each arm against none, late."""
    table = tables["comparisons"]
    keys = {
        "statistic": "mean_difference",
        "stage": "late",
        "outcome": "final_error",
        "versus": "none",
    }
    found = table[(table[list(keys)] == pd.Series(keys)).all(axis=1) & table["estimate"].notna()]
    for _, row in found.iterrows():
        where = "over all settings" if row["setting"] == "all" else row["setting"]
        tested = (
            f"adjusted p = {row['p_adjusted']:.3g}"
            if np.isfinite(row["p_adjusted"])
            else "not tested"
        )
        said = f"{where}: the final error of {row['arm']} is {row['estimate']:+.3f} beside none, late ({_between(row)}, {tested})."
        yield _row("comparisons", said, setting=row["setting"])


def _hypotheses(tables: Mapping[str, pd.DataFrame]) -> Iterator[dict[str, str]]:
    """What became of each hypothesis."""
    for name, found in tables["hypotheses"].groupby("hypothesis", sort=False):
        counts = found["verdict"].value_counts()
        said = ", ".join(f"{verdict} in {count}" for verdict, count in counts.items())
        yield _row(
            "hypotheses",
            f"{name} ({found['claim'].iloc[0]}): {said} of {len(found)} settings (Holm over its family).",
        )
