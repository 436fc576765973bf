"""What was declared before the data, and what was not: p values adjusted within families.

A declared hypothesis is one test a setting, and its family is adjusted by Holm's method, which bounds the chance of any false finding in
it. All other tests are exploratory: adjusted by Benjamini and Hochberg's, over all of a kind in a table, which bounds the expected share
of false findings.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from plasticity.config.models import Hypothesis
from plasticity.errors import StudyError
from plasticity.statistics.null_models import NULLS

SURE = 0.05
EXPLORATORY = "exploratory"
# tables of tests, and the column that tells their kinds apart
KINDS = {
    "associations": "level",
    "nulls": "null",
    "lead_lag": "question",
    "consistency": "association",
    "comparisons": "statistic",
}
COLUMNS = [
    "hypothesis",
    "family",
    "claim",
    "setting",
    "estimate",
    "low",
    "high",
    "p",
    "p_adjusted",
    "verdict",
    "seeds",
    "tasks",
    "interval",
    "note",
]


def adjusted(
    tables: Mapping[str, pd.DataFrame], hypotheses: Sequence[Hypothesis]
) -> dict[str, pd.DataFrame]:
    """Tables with `p_adjusted` and `family` beside each p, associations within runs with the strongest null that they beat, and hypotheses.

    Args:
        tables: those of `KINDS`.
        hypotheses: as the config declares them.

    Returns:
        The same tables, and ``hypotheses`` with one row per hypothesis and setting: its verdict is `supported`, `contradicted`
        (significant in the other direction), `undecided`, or why there is no test.

    Raises:
        StudyError: a hypothesis about something that was not measured.
    """
    tables = {
        name: table.assign(p_adjusted=np.nan, family=np.where(table["p"].notna(), EXPLORATORY, ""))
        for name, table in tables.items()
    }
    declared = [(one, place) for one in hypotheses for place in _rows_of(one, tables[one.table])]
    for family in dict.fromkeys(one.family for one, _ in declared):
        runs = [(one.table, place) for one, place in declared if one.family == family]
        p = np.array([tables[table].at[place, "p"] for table, place in runs], dtype=float)
        for (table, place), value in zip(runs, _corrected(p, "holm"), strict=True):
            tables[table].loc[place, ["p_adjusted", "family"]] = [value, family]
    for name, kind in KINDS.items():
        table = tables[name]
        for _, rows in table[table["family"] == EXPLORATORY].groupby(kind, sort=False):
            table.loc[rows.index, "p_adjusted"] = _corrected(rows["p"].to_numpy(), "fdr_bh")
    tables["associations"]["strongest_null"] = _strongest(tables["associations"], tables["nulls"])
    rows = [_verdict(one, tables[one.table].loc[place]) for one, place in declared]
    return tables | {"hypotheses": pd.DataFrame(rows, columns=COLUMNS)}


def _corrected(p: np.ndarray, method: str) -> np.ndarray:
    """Adjusted p; those that are missing stay so and count for nothing."""
    known = np.isfinite(p)
    found = np.full(p.shape, np.nan)
    if known.any():
        found[known] = multipletests(p[known], method=method)[1]
    return found


def _rows_of(one: Hypothesis, table: pd.DataFrame) -> Sequence[int]:
    """Index of the hypothesis' rows, one a setting."""
    found = table[
        np.logical_and.reduce([table[column] == value for column, value in one.row.items()])
    ]
    if one.settings:
        found = found[found["setting"].isin(one.settings)]
    found = found[found["setting"] != "all"]
    if (
        one.measure and one.block is None
    ):  # the explanation: on the coming task's data, of the whole network or the last layer that has it
        order = found.assign(new=found["evaluation_point"] == "next", whole=found["block"] == "all")
        found = (
            order.sort_values(["next", "whole"], kind="stable")
            .groupby("setting", sort=False)
            .tail(1)
        )
    if found.empty:
        raise StudyError(
            f"hypothesis {one.name} is about something that no setting has ({one.claim}): mend statistics.hypotheses"
        )
    return [int(place) for place in found.index]


def _verdict(one: Hypothesis, row: pd.Series) -> dict[str, object]:
    """A row of the table of hypotheses."""
    right = np.sign(row["estimate"]) == (1 if one.direction == "positive" else -1)
    if np.isnan(row["p_adjusted"]):
        verdict = row["note"] or "no test"
    elif row["p_adjusted"] > SURE:
        verdict = "undecided"
    else:
        verdict = "supported" if right else "contradicted"
    numbers = {
        name: row.get(name, np.nan)
        for name in (
            "setting",
            "estimate",
            "low",
            "high",
            "p",
            "p_adjusted",
            "seeds",
            "tasks",
            "interval",
            "note",
        )
    }
    return {
        "hypothesis": one.name,
        "family": one.family,
        "claim": one.claim,
        **numbers,
        "verdict": verdict,
    }


def _strongest(associations: pd.DataFrame, nulls: pd.DataFrame) -> pd.Series:
    """Of each association within runs, the null that assumes least among those that it beats (adjusted p of at most 0.05)."""
    keys = ["setting", "arm", "outcome", "measure", "evaluation_point", "block"]
    beaten = nulls[nulls["p_adjusted"] <= SURE].assign(
        order=lambda table: table["null"].map(NULLS.index)
    )
    best = beaten.sort_values("order", kind="stable").groupby(keys)["null"].last()
    within = associations["level"] == "within_run"
    tested = within & associations["p"].notna()
    found = pd.Series(np.where(tested, "none", ""), associations.index, dtype=object)
    names = associations.loc[tested, keys].merge(
        best.rename("found"), left_on=keys, right_index=True, how="left"
    )["found"]
    found[tested] = names.fillna("none").to_numpy()
    return found
