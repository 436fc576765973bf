"""Put what the tables say about each explanation into one row: it joins them and tests nothing.

An explanation is a measure that is claimed to change as plasticity is lost: the three ranks of each
operator, feature rank, units that are dead or dormant, weight norm and others. They are in
one table, so that they are compared by the same numbers.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from plasticity.config import registry
from plasticity.config.models import is_baseline
from plasticity.config.quantities import MEASURES, RANKS, describe
from plasticity.statistics.estimate import Row
from plasticity.statistics.meta_analysis import EXPLAINED_ARM
from plasticity.statistics.wording import select

INTERVENED_OUTCOME = "final_error"  # copies of a checkpoint learn one task, so they have no gap
ENDS = ("low", "high")
NOT_MEASURED = "not measured"
NO_INTERVENTIONS = "no interventions"
NO_FATE = "of no arm is it known whether it loses plasticity"
COLUMNS = [
    "measure",
    "claim",
    "auc",
    "auc_low",
    "auc_high",
    "auc_note",
    "tau",
    "tau_low",
    "tau_high",
    "tau_settings",
    "tau_note",
    "worst_setting",
    "worst_tau",
    "worst_tau_low",
    "worst_tau_high",
    "counterexamples",
    "judged_arms",
    "counterexamples_note",
    "warning",
    "warning_low",
    "warning_high",
    "warning_note",
]


def explanations(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Join the numbers that other tables have about each explanation.

    Args:
        tables: `arms`, `interventions`, `counterexamples` and `early_warning`.

    Returns:
        One row per explanation in one of the tables, in the order of `names`:

        - ``claim``: the claimed sign of its change as plasticity is lost.
        - ``auc``: of the table `arms`.
        - ``tau``: mean over settings of Kendall's τ-b with the final error over treated copies,
          times the claim. So positive values agree with the claim. ``worst_tau`` is that of the
          setting that agrees least.
        - ``counterexamples`` among ``judged_arms``, which lose or keep plasticity. Baselines are
          no arms.
        - ``warning``: of the table `early_warning`.

        ``low`` and ``high`` bound 95 % intervals. A missing number has a note.
    """
    measured = set().union(*(tables[name]["measure"] for name in _SOURCES))
    rows: list[Row] = []
    for measure in names():
        if measure not in measured:
            continue
        rows.append(
            {
                "measure": measure,
                "claim": describe(measure).claimed_sign,
                **_over_arms(tables["arms"], measure),
                **_over_copies(tables["interventions"], measure),
                **_counterexamples(tables["counterexamples"], measure),
                **_early_warning(tables["early_warning"], measure),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


_SOURCES = ("arms", "interventions", "counterexamples", "early_warning")


def names() -> Iterator[str]:
    """Name all explanations: the ranks of each operator, then other measures with a claim."""
    for operator in registry.names("operators"):
        yield from (f"{operator}_{rank}" for rank in RANKS)
    yield from (name for name, row in MEASURES.items() if row.claimed_sign)


def _over_arms(arms: pd.DataFrame, measure: str) -> Row:
    """Take the AUC over arms."""
    rows = arms[arms["measure"] == measure]
    return _numbers(rows, "auc") | {"auc_note": _note(rows, NOT_MEASURED)}


def _over_copies(interventions: pd.DataFrame, measure: str) -> Row:
    """Take the mean of τ over settings, and that of the worst setting."""
    keys = {
        "arm": EXPLAINED_ARM,
        "task": "all",
        "measure": measure,
        "outcome": INTERVENED_OUTCOME,
        "statistic": "tau",
    }
    taus = select(interventions, keys)
    claim = describe(measure).claimed_sign
    over_settings = taus[taus["setting"] == "all"]
    worst_setting = over_settings["worst_setting"].iloc[0] if len(over_settings) else ""
    of_worst = taus[(taus["setting"] == worst_setting) & (worst_setting != "")]
    reason = NOT_MEASURED if len(interventions) else NO_INTERVENTIONS
    return {
        **_numbers(over_settings, "tau", claim),
        "tau_settings": over_settings["settings"].iloc[0] if len(over_settings) else np.nan,
        "tau_note": _note(over_settings, reason),
        "worst_setting": worst_setting,
        **_numbers(of_worst, "worst_tau", claim),
    }


def _counterexamples(counterexamples: pd.DataFrame, measure: str) -> Row:
    """Count the arms of known fate, and those that contradict the claim."""
    judged = judged_arms(counterexamples[counterexamples["measure"] == measure])
    count = int(judged["counterexample"].sum()) if len(judged) else np.nan
    return {
        "counterexamples": count,
        "judged_arms": len(judged),
        "counterexamples_note": "" if len(judged) else NO_FATE,
    }


def judged_arms(counterexamples: pd.DataFrame) -> pd.DataFrame:
    """Select the arms that lose or keep plasticity, without baselines."""
    is_known = counterexamples["verdict"].str.startswith(("lost", "kept"))
    is_arm = ~counterexamples["arm"].map(is_baseline).astype(bool)
    return counterexamples[is_known & is_arm]


def verdicts(counterexamples: pd.DataFrame, measure: str) -> dict[tuple[str, str], str]:
    """Return the verdict on each arm: whether it loses plasticity, and whether the measure moves.

    Args:
        counterexamples: their table.
        measure: whose verdict counts; that of another measure counts for arms that lack it.

    Returns:
        By setting and arm, such as ``lost, moves as claimed``.
    """
    is_preferred = counterexamples["measure"] == measure
    ordered = pd.concat([counterexamples[is_preferred], counterexamples[~is_preferred]])
    first = ordered.drop_duplicates(["setting", "arm"]).sort_index()
    return {
        (str(row["setting"]), str(row["arm"])): str(row["verdict"])
        for _, row in first.sort_values("setting", kind="stable").iterrows()
    }


def fates(counterexamples: pd.DataFrame, measure: str) -> dict[tuple[str, str], str]:
    """Tell whether each arm loses plasticity: the first word of `verdicts`, with its arguments.

    Returns:
        By setting and arm: ``lost``, ``kept``, ``unclear``, or why there is no verdict.
    """
    found = verdicts(counterexamples, measure)
    return {key: verdict.partition(",")[0] for key, verdict in found.items()}


def _early_warning(early_warning: pd.DataFrame, measure: str) -> Row:
    """Take the AUC of a warning in settings that the model has not seen."""
    keys = {"measure": measure, "versus": "", "statistic": "auc"}
    rows = select(early_warning, keys)
    return _numbers(rows, "warning") | {"warning_note": _note(rows, NOT_MEASURED)}


def _numbers(rows: pd.DataFrame, name: str, sign: int = 1) -> Row:
    """Take the estimate of the only row with its interval, times a sign; NaN without a row."""
    columns = [name, *(f"{name}_{end}" for end in ENDS)]
    if not len(rows):
        return dict.fromkeys(columns, np.nan)
    low, high = (sign * rows[end].iloc[0] for end in (ENDS if sign > 0 else ENDS[::-1]))
    return dict(zip(columns, [sign * rows["estimate"].iloc[0], low, high], strict=True))


def _note(rows: pd.DataFrame, reason: str) -> str:
    """Take the note of the only row; without a row, state the reason."""
    return str(rows["note"].iloc[0]) if len(rows) else reason
