"""Adjust p values within families, and judge the hypotheses that the config declares.

A declared hypothesis is one test per setting. Its family is adjusted by Holm's method, which bounds
the probability of any false finding in the family. All other tests are exploratory. They are
adjusted by the method of Benjamini and Hochberg over all tests of a kind in a table, which bounds
the expected share of false findings.

An effect is negligible if its whole 95 % interval lies within a margin around 0. This is the same
as two one-sided tests at 2.5 % each (Schuirmann 1987), which are not adjusted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from plasticity.config.models import Hypothesis, Statistics
from plasticity.errors import StudyError
from plasticity.statistics.estimate import Row
from plasticity.statistics.null_models import NULL_MODELS
from plasticity.statistics.resampling import SIGNIFICANCE_LEVEL
from plasticity.statistics.setting_arrays import preferred_variants

# Outcomes whose null models are in the table. Those of others are only there if they are declared.
REPORTED_OUTCOMES = ("final_error", "final_error_gap")
EXPLORATORY = "exploratory"
MIN_POWER = 0.5  # a test with less power misses a relevant effect more often than it finds it
# Tables with tests, and the column that tells kinds of tests apart.
KINDS = {
    "associations": "level",
    "null_models": "null_model",
    "lead_lag": "question",
    "consistency": "association",
    "comparisons": "statistic",
    "population": "statistic",
    "interventions": "statistic",
    "intervention_models": "statistic",
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
    "power",
    "verdict",
    "seeds",
    "tasks",
    "interval",
    "note",
]
NUMBERS_OF_TEST = [
    "setting",
    "estimate",
    "low",
    "high",
    "p",
    "p_adjusted",
    "power",
    "seeds",
    "tasks",
    "interval",
    "note",
]


@dataclass(frozen=True)
class DeclaredTest:
    """The test of a hypothesis in one setting.

    Attributes:
        hypothesis: as the config declares it.
        index: label of the row in the table ``hypothesis.table``.
    """

    hypothesis: Hypothesis
    index: int


def adjust_p_values(
    tables: Mapping[str, pd.DataFrame], config: Statistics
) -> dict[str, pd.DataFrame]:
    """Adjust the p values of all tables and judge the hypotheses.

    Args:
        tables: those of `KINDS`.
        config: the hypotheses, and the margins of negligible effects.

    Returns:
        The same tables with the columns ``p_adjusted`` and ``family``. `associations` also has
        ``strongest_null_model``, the null model with the weakest assumptions among those that the
        association beats. `null_models` has fewer rows, see `_without_unread_rows`; all its tests
        count for the adjustment. A further table, `hypotheses`, has one row per hypothesis and
        setting.
        Its ``verdict`` is `supported`, `contradicted` (significant in the other direction),
        `no effect larger than` the margin, `could not have been found` (power below `MIN_POWER`),
        `undecided`, or the reason why there is no test.

    Raises:
        StudyError: a hypothesis is about something that was not measured.
    """
    tables = {name: _with_families(table) for name, table in tables.items()}
    declared = []
    for hypothesis in config.hypotheses:
        indices = _matching_rows(hypothesis, tables[hypothesis.table])
        declared += [DeclaredTest(hypothesis, index) for index in indices]
    _adjust_declared(tables, declared)
    _adjust_exploratory(tables)
    tables["associations"]["strongest_null_model"] = _strongest_null_models(
        tables["associations"], tables["null_models"]
    )
    tables["null_models"] = _without_unread_rows(tables["null_models"], declared)
    rows = []
    for test in declared:
        tested_row = tables[test.hypothesis.table].loc[test.index]
        rows.append(_hypothesis_row(test.hypothesis, tested_row, config))
    return tables | {"hypotheses": pd.DataFrame(rows, columns=COLUMNS)}


def _with_families(table: pd.DataFrame) -> pd.DataFrame:
    """Copy a table with all tests in the exploratory family and without adjusted p values."""
    family = np.where(table["p"].notna(), EXPLORATORY, "")
    return table.assign(p_adjusted=np.nan, family=family)


def _adjust_declared(tables: Mapping[str, pd.DataFrame], declared: Sequence[DeclaredTest]) -> None:
    """Set family and adjusted p of declared tests, by Holm's method within each family."""
    for family in dict.fromkeys(test.hypothesis.family for test in declared):
        tests = [test for test in declared if test.hypothesis.family == family]
        p_values = [tables[test.hypothesis.table].at[test.index, "p"] for test in tests]
        p = np.array(p_values, dtype=float)
        for test, p_adjusted in zip(tests, _corrected(p, "holm"), strict=True):
            table = tables[test.hypothesis.table]
            table.loc[test.index, ["p_adjusted", "family"]] = [p_adjusted, family]


def _adjust_exploratory(tables: Mapping[str, pd.DataFrame]) -> None:
    """Set adjusted p of all other tests, by the method of Benjamini and Hochberg."""
    for name, kind in KINDS.items():
        table = tables[name]
        exploratory = table[table["family"] == EXPLORATORY]
        for _, rows in exploratory.groupby(kind, sort=False):
            p = rows["p"].to_numpy()
            table.loc[rows.index, "p_adjusted"] = _corrected(p, "fdr_bh")


def _corrected(p: np.ndarray, method: str) -> np.ndarray:
    """Adjust p values; missing ones stay missing and do not count.

    Args:
        p: shape ``(test,)``.
        method: name that `multipletests` knows.
    """
    is_known = np.isfinite(p)
    p_adjusted = np.full(p.shape, np.nan)
    if is_known.any():
        p_adjusted[is_known] = multipletests(p[is_known], method=method)[1]
    return p_adjusted


def _matching_rows(hypothesis: Hypothesis, table: pd.DataFrame) -> list[int]:
    """Find the rows that test a hypothesis, one per setting.

    Raises:
        StudyError: there is none.
    """
    conditions = [table[column] == value for column, value in hypothesis.row.items()]
    rows = table[np.logical_and.reduce(conditions)]
    if hypothesis.settings:
        rows = rows[rows["setting"].isin(hypothesis.settings)]
    rows = rows[rows["setting"] != "all"]
    if hypothesis.table == "null_models" and hypothesis.block is None:
        rows = preferred_variants(rows, ["setting"])
    if rows.empty:
        raise StudyError(
            f"config: hypothesis {hypothesis.name} ({hypothesis.claim}) matches nothing that was "
            "measured. Correct it in statistics.hypotheses."
        )
    return [int(index) for index in rows.index]


def _without_unread_rows(null_rows: pd.DataFrame, declared: Sequence[DeclaredTest]) -> pd.DataFrame:
    """Leave out the null models that no reader needs: they are nine tenths of the table.

    Args:
        null_rows: the table of null models.
        declared: tests of hypotheses.

    Returns:
        The rows of `REPORTED_OUTCOMES` with the preferred variant of each measure, and those that
        test a hypothesis. They keep their labels and their order.
    """
    reported = null_rows[null_rows["outcome"].isin(REPORTED_OUTCOMES)]
    keys = ["setting", "arm", "outcome", "measure", "null_model"]
    labels = set(preferred_variants(reported, keys).index)
    labels |= {test.index for test in declared if test.hypothesis.table == "null_models"}
    return null_rows.loc[sorted(labels)]


def _hypothesis_row(hypothesis: Hypothesis, test: pd.Series, config: Statistics) -> Row:
    """Build a row of the table of hypotheses.

    Args:
        hypothesis: as the config declares it.
        test: the row that tests it.
        config: the margins of negligible effects.
    """
    margin = config.negligible if hypothesis.measure else config.negligible_difference
    return {
        "hypothesis": hypothesis.name,
        "family": hypothesis.family,
        "claim": hypothesis.claim,
        **{name: test.get(name, np.nan) for name in NUMBERS_OF_TEST},
        "verdict": _verdict(hypothesis, test, margin),
    }


def _verdict(hypothesis: Hypothesis, test: pd.Series, margin: float) -> str:
    """Judge a hypothesis by its test.

    Args:
        hypothesis: as the config declares it.
        test: the row that tests it.
        margin: of negligible effects.
    """
    if np.isnan(test["p_adjusted"]):
        return test["note"] or "no test"
    if test["p_adjusted"] <= SIGNIFICANCE_LEVEL:
        claimed_sign = 1 if hypothesis.direction == "positive" else -1
        return "supported" if np.sign(test["estimate"]) == claimed_sign else "contradicted"
    if -margin <= test["low"] and test["high"] <= margin:
        return f"no effect larger than {margin:g}"
    return "could not have been found" if test["power"] < MIN_POWER else "undecided"


def _strongest_null_models(associations: pd.DataFrame, null_rows: pd.DataFrame) -> pd.Series:
    """Find the null model with the weakest assumptions that each association beats.

    Args:
        associations: their table, with adjusted p values.
        null_rows: the table of null models, with adjusted p values.

    Returns:
        One text per association: the null model, `none` if it beats none, or empty if it was not
        tested within runs.
    """
    keys = ["setting", "arm", "outcome", "measure", "evaluation_point", "block"]
    beaten = null_rows[null_rows["p_adjusted"] <= SIGNIFICANCE_LEVEL]
    beaten = beaten.assign(order=beaten["null_model"].map(NULL_MODELS.index))
    strongest = beaten.sort_values("order", kind="stable").groupby(keys)["null_model"].last()
    is_tested = (associations["level"] == "within_run") & associations["p"].notna()
    names = pd.Series(np.where(is_tested, "none", ""), associations.index, dtype=object)
    matches = associations.loc[is_tested, keys].merge(
        strongest.rename("strongest"), left_on=keys, right_index=True, how="left"
    )
    names[is_tested] = matches["strongest"].fillna("none").to_numpy()
    return names
