"""The sentences of the report's first page: at most twelve, each with one message.

A sentence is left out if the study says nothing about it, for example without interventions.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from plasticity.config.models import is_baseline, method_of
from plasticity.config.quantities import one_line_name, split_operator
from plasticity.config.titles import arm_title, method_title
from plasticity.statistics.explanations import INTERVENED_OUTCOME, fates, judged_arms
from plasticity.statistics.explanations import names as explanations
from plasticity.statistics.meta_analysis import EXPLAINED_ARM
from plasticity.statistics.setting_arrays import preferred_variants
from plasticity.statistics.wording import (
    OUTCOME,
    does_not,
    interval_words,
    plural,
    range_words,
    select,
)

NOTHING_TO_EXPLAIN = (
    "The study has no arm without an intervention, so it does not tell whether plasticity is lost."
)
MAX_SENTENCES = 12
MAX_HYPOTHESES = 4  # more of them are counted together
MAX_ARMS = 6  # that a sentence lists
TASK = "task"  # the number of the task, a rival in the table `early_warning`
Sentence = dict[str, object]


@dataclass(frozen=True)
class Study:
    """What sentences are about.

    Attributes:
        tables: all tables that sentences state.
        measure: the rank that stands for curvature.
        titles: of settings, by name.
        fates: whether plasticity is ``lost`` or ``kept``, by setting and arm, see `fates`.
    """

    tables: Mapping[str, pd.DataFrame]
    measure: str
    titles: Mapping[str, str]
    fates: Mapping[tuple[str, str], str]

    @property
    def name(self) -> str:
        """The name of the measure."""
        return one_line_name(self.measure)

    def settings_that(self, fate: str) -> list[str]:
        """List the settings with a fate without an intervention."""
        return [
            setting
            for (setting, arm), own in self.fates.items()
            if arm == EXPLAINED_ARM and own == fate
        ]


def sentences(
    tables: Mapping[str, pd.DataFrame], primary: str, titles: Mapping[str, str]
) -> list[Sentence]:
    """State what the study found, the most important first.

    Args:
        tables: all tables but the statements.
        primary: the measure that stands for curvature.
        titles: of settings, by name.

    Returns:
        At most `MAX_SENTENCES` rows with the table that a sentence is ``about``, its ``measure``
        and the ``statement``.
    """
    measure = _curvature(tables["counterexamples"], primary)
    study = Study(tables, measure, titles, fates(tables["counterexamples"], measure))
    rows: list[Sentence] = []
    for about, state in _SENTENCES:
        statement = state(study)
        if statement:
            is_about_measure = about not in ("outcomes", "hypotheses", "comparisons")
            rows.append(
                {
                    "about": about,
                    "measure": measure if is_about_measure else "",
                    "statement": statement,
                }
            )
    return rows[:MAX_SENTENCES]


def _curvature(counterexamples: pd.DataFrame, primary: str) -> str:
    """Name the rank that stands for curvature: that of another operator if there is no Fisher."""
    measures = list(dict.fromkeys(counterexamples["measure"]))
    number = split_operator(primary)[1]
    others = sorted(name for name in measures if split_operator(name)[1] == number)
    return primary if primary in measures or not others else others[0]


def _loss(study: Study) -> str:
    """State in how many settings plasticity is lost, and the late gap there."""
    outcomes = select(study.tables["outcomes"], {"outcome": "final_error", "arm": EXPLAINED_ARM})
    settings = list(dict.fromkeys(outcomes["setting"]))
    if not settings:
        return NOTHING_TO_EXPLAIN if len(study.tables["outcomes"]) else ""
    total = plural(len(settings), "setting")
    lost, kept = study.settings_that("lost"), study.settings_that("kept")
    unclear = len(settings) - len(lost) - len(kept)
    keys = {"outcome": OUTCOME, "arm": EXPLAINED_ARM, "stage": "late"}
    gaps = select(study.tables["outcomes"], keys).set_index("setting")["mean"].dropna()
    if unclear == len(settings):
        gap = f"; the late gap to a fresh network is {range_words(gaps)}" if len(gaps) else ""
        return f"Whether plasticity is lost without an intervention is unclear in {total}{gap}."
    others = [
        f"{word} in {count}" for word, count in (("kept", len(kept)), ("unclear", unclear)) if count
    ]
    remark = f" ({' and '.join(others)})" if others else ""
    late = gaps[gaps.index.isin(lost)]
    gap = f"; the late gap to a fresh network is {range_words(late)} where it is lost"
    return (
        f"Without an intervention, plasticity is lost in {len(lost)} of {total}{remark}"
        f"{gap if len(late) else ''}."
    )


def _change_of_curvature(study: Study) -> str:
    """State in how many settings the rank falls where plasticity is lost, and where it is kept."""
    table = study.tables["counterexamples"]
    rows = select(table, {"arm": EXPLAINED_ARM, "measure": study.measure})
    moves = rows["verdict"].str.endswith("moves as claimed")
    parts = []
    for fate in ("lost", "kept"):
        of_fate = rows["verdict"].str.startswith(f"{fate},")
        if not of_fate.any():
            continue
        part = f"in {int((of_fate & moves).sum())} of {_fate_words(of_fate.sum(), 'setting', fate)}"
        changes = 100 * rows.loc[of_fate & moves, "change"]
        remarks = [f"by {range_words(changes, 0)} %"] if len(changes) else []
        unclear = int((of_fate & rows["verdict"].str.endswith("is unclear")).sum())
        remarks += [f"unclear in {unclear}"] if unclear else []
        parts.append(f"{part} ({', '.join(remarks)})" if remarks else part)
    return f"The {study.name} falls {' and '.join(parts)}." if parts else ""


def _fate_words(count: int, noun: str, fate: str) -> str:
    """Write how many settings or arms have a fate: ``1 arm that loses plasticity``."""
    verb = {"lost": "lose", "kept": "keep"}[fate]
    return f"{plural(count, noun)} that {verb}{'s' if count == 1 else ''} plasticity"


def _over_arms(study: Study) -> str:
    """State how well the change of the rank tells arms that lose plasticity from others."""
    arms = study.tables["arms"]
    row = _row(arms, study.measure)
    if row is None:
        return ""
    sentence = (
        f"Over {plural(int(row['lost']), 'arm')} that lose and {int(row['kept'])} that keep "
        f"plasticity, the change of the {study.name} tells them apart with AUC "
        f"{_estimate_words(row)}; chance is 0.5"
    )
    rival = _best_rival(arms, arms["estimate"], int(row["settings"]))
    if rival is not None:
        sentence += (
            f", and the best measure without curvature, {one_line_name(rival['measure'])}, has "
            f"{_estimate_words(rival)}"
        )
    return f"{sentence}."


def _over_copies(study: Study) -> str:
    """State how well the rank orders treated copies of a checkpoint by their error."""
    keys = {
        "arm": EXPLAINED_ARM,
        "task": "all",
        "outcome": INTERVENED_OUTCOME,
        "statistic": "tau",
    }
    of_settings = select(study.tables["interventions"], keys)
    taus = of_settings[of_settings["setting"] == "all"]
    row = _row(taus, study.measure)
    what = (
        f"Among treated copies of a checkpoint, Kendall's τ of the {study.name} and the error "
        "after the next task is"
    )
    if row is None:  # one seed has no spread by which settings are weighted
        alone = of_settings.loc[of_settings["measure"] == study.measure, "estimate"].dropna()
        place = plural(len(alone), "setting")
        return f"{what} {range_words(alone)} in {place} (no interval)." if len(alone) else ""
    settings = int(row["settings"])
    worst = f"; least in {study.titles.get(row['worst_setting'], row['worst_setting'])}: "
    sentence = f"{what} {_estimate_words(row)} over {plural(settings, 'setting')}"
    if settings > 1:
        sentence = sentence + worst + f"{row['worst_estimate']:.2f}"
    rival = _best_rival(taus, taus["estimate"] * taus["claim"], settings)
    if rival is not None:
        sentence += (
            f"; for the best measure without curvature, {one_line_name(rival['measure'])}, it is "
            f"{_estimate_words(rival)}"
        )
    return f"{sentence}."


def _hypotheses(study: Study) -> str:
    """State the verdicts on the declared hypotheses."""
    table = study.tables["hypotheses"]
    groups = [(str(name), rows) for name, rows in table.groupby("hypothesis", sort=False)]
    if not groups:
        return ""
    if len(groups) > MAX_HYPOTHESES:
        verdicts = _verdict_words(table["verdict"])
        tests = f"{len(table)} tests of {len(groups)} declared hypotheses"
        return f"{tests}, adjusted by Holm's method: {verdicts}."
    parts = [
        f"{name}: {_verdict_words(rows['verdict'])} of {plural(len(rows), 'setting')}"
        for name, rows in groups
    ]
    return f"Declared hypotheses, adjusted by Holm's method. {'; '.join(parts)}."


def _verdict_words(verdicts: pd.Series) -> str:
    """Count the verdicts, decided ones first: ``supported in 3, undecided in 1``."""
    counts = verdicts.value_counts()
    first = [verdict for verdict in ("supported", "contradicted") if verdict in counts]
    others = sorted(verdict for verdict in counts.index if verdict not in first)
    return ", ".join(f"{verdict} in {counts[verdict]}" for verdict in [*first, *others])


def _counterexamples(study: Study) -> str:
    """Count the arms that contradict the claim about the rank."""
    judged = judged_arms(select(study.tables["counterexamples"], {"measure": study.measure}))
    parts = []
    for fate in ("lost", "kept"):
        rows = judged[judged["verdict"].str.startswith(fate)]
        count = int(rows["counterexample"].sum())
        if len(rows):
            parts.append(f"{count} of {_fate_words(len(rows), 'arm', fate)}")
    if not parts:
        return ""
    return f"Counter-examples to the {study.name}: {' and '.join(parts)}."


def _treated_counterexamples(study: Study) -> str:
    """Count the treatments that restore plasticity or the rank, but not the other."""
    keys = {"measure": study.measure, "outcome": INTERVENED_OUTCOME}
    kinds = Counter(select(study.tables["intervention_counterexamples"], keys)["kind"])
    rank, plasticity = f"the {study.name}", "plasticity"
    parts = [
        f"of {total} that restore {restored}, {_exceptions(kinds[exception], other)}"
        for restored, exception, other in (
            (plasticity, "not_necessary", rank),
            (rank, "not_sufficient", plasticity),
        )
        if (total := kinds["both"] + kinds[exception])
    ]
    if not parts:
        return ""
    return f"Treatments of checkpoints (each dose, task and setting counts): {'; '.join(parts)}."


def _exceptions(count: int, other: str) -> str:
    """Write how many treatments do not restore the other of plasticity and rank."""
    return f"{does_not(count)} restore {other}" if count else f"all restore {other}"


def _within_runs(study: Study) -> str:
    """State in how many settings rank and gap are correlated as claimed along a run."""
    keys = {"outcome": OUTCOME, "association": "within_run"}
    row = _row(select(study.tables["consistency"], keys), study.measure)
    if row is None or not row["settings"]:
        return ""
    settings = int(row["settings"])
    agreeing = round(row["as_claimed"] * settings)
    sentence = (
        f"Within runs, the {study.name} and the gap to a fresh network are correlated as claimed "
        f"in {agreeing} of {plural(settings, 'setting')}"
    )
    if np.isfinite(row["low"]):
        sentence += (
            f"; over {row['problems']} problems, Spearman's ρ is {row['estimate']:.2f} "
            f"({interval_words(row)})"
        )
        if np.isfinite(row["prediction_low"]):
            ends = f"{row['prediction_low']:.2f} to {row['prediction_high']:.2f}"
            sentence += f", and {ends} is expected of the next problem"
    else:
        correlations = _associations(study)["estimate"].dropna()
        if len(correlations):
            sentence += f"; Spearman's ρ is {range_words(correlations)}"
    return f"{sentence}."


def _associations(study: Study) -> pd.DataFrame:
    """Select the correlation of rank and gap within runs of each setting."""
    keys = {
        "level": "within_run",
        "arm": EXPLAINED_ARM,
        "measure": study.measure,
        "outcome": OUTCOME,
    }
    return preferred_variants(select(study.tables["associations"], keys), ["setting"])


def _shared_trend(study: Study) -> str:
    """State in how many settings the correlation is more than a trend that all seeds share."""
    strongest = _associations(study)["strongest_null_model"]
    tested = strongest[strongest != ""]
    if not len(tested):
        return ""
    beating = int((tested != "none").sum())
    mismatched = int((tested == "mismatched").sum())
    return (
        f"Within runs, the correlation of the {study.name} and the gap to a fresh network beats a "
        f"null model of a shared trend in {beating} of {plural(len(tested), 'setting')}, and the "
        f"one that assumes least (seeds mismatched) in {mismatched}."
    )


def _early_warning(study: Study) -> str:
    """State how well a change of the rank warns of a large gap."""
    scores = select(study.tables["early_warning"], {"statistic": "auc", "versus": ""})
    row = _row(scores, study.measure)
    if row is None:
        return ""
    sentence = (
        f"As a warning of a large gap, tested in settings that the model has not seen, the change "
        f"of the {study.name} since a run's first task has AUC {_estimate_words(row)}"
    )
    rivals = []
    rival = _best_rival(scores, scores["estimate"], int(row["settings"]))
    if rival is not None:
        name = one_line_name(rival["measure"])
        rivals.append(f"the best measure without curvature, {name}, has {_estimate_words(rival)}")
    task = _row(scores, TASK)
    if task is not None:
        rivals.append(f"the number of the task alone has {task['estimate']:.2f}")
    if rivals:
        sentence += f"; {', and '.join(rivals)}"
    return f"{sentence}."


def _methods(study: Study) -> str:
    """List the methods, or the arms, that keep plasticity where it is otherwise lost."""
    lost = study.settings_that("lost")
    of_arms = {
        key: fate
        for key, fate in study.fates.items()
        if key[0] in lost and key[1] != EXPLAINED_ARM and not is_baseline(key[1])
    }
    # Strengths are selected for each setting, so then one arm is a method.
    arms_of_methods = Counter((setting, method_of(arm)) for setting, arm in of_arms)
    are_methods = max(arms_of_methods.values(), default=0) <= 1
    title = _title_of_method if are_methods else arm_title
    results: dict[str, list[str]] = {}
    for (_, arm), fate in of_arms.items():
        results.setdefault(title(arm), []).append(fate)
    if not results:
        return ""
    keeping = [name for name, of_settings in results.items() if set(of_settings) == {"kept"}]
    keeping.sort(key=lambda name: -len(results[name]))
    kind = "method" if are_methods else "arm"
    place = (
        f"In {plural(len(lost), 'setting')} that lose{'s' if len(lost) == 1 else ''} plasticity "
        f"without an intervention, {len(keeping)} of {plural(len(results), kind)} "
        f"keep{'s' if len(keeping) == 1 else ''} it wherever trained"
    )
    if not keeping:
        return f"{place}."
    listed = ", ".join(keeping[:MAX_ARMS])
    more = len(keeping) - MAX_ARMS
    return f"{place}: {listed}{f' and {more} more' if more > 0 else ''}."


def _title_of_method(arm: str) -> str:
    """Return the name of an arm's method."""
    return method_title(method_of(arm))


def _row(table: pd.DataFrame, measure: str) -> pd.Series | None:
    """Take the row of a measure; None if it has no estimate."""
    rows = table[(table["measure"] == measure) & table["estimate"].notna()]
    return rows.iloc[0] if len(rows) else None


def _best_rival(table: pd.DataFrame, agreement: pd.Series, settings: int) -> pd.Series | None:
    """Find the measure without an operator that agrees most with its claim.

    Args:
        table: one row per measure.
        agreement: of each row; larger is better.
        settings: number of those of the rank. Rivals from fewer settings are not comparable, so
            they only count if there are no others.
    """
    order = {name: k for k, name in enumerate(explanations()) if not split_operator(name)[0]}
    rivals = table[table["measure"].isin(list(order)) & agreement.notna()]
    comparable = rivals[rivals["settings"] >= settings]
    rivals = comparable if len(comparable) else rivals
    # of equal ones, the first of the table of explanations
    rivals = rivals.sort_values("measure", key=lambda names: names.map(order), kind="stable")
    return rivals.loc[agreement[rivals.index].idxmax()] if len(rivals) else None


def _estimate_words(row: pd.Series) -> str:
    """Write an estimate with its interval."""
    return f"{row['estimate']:.2f} ({interval_words(row)})"


_SENTENCES: tuple[tuple[str, Callable[[Study], str]], ...] = (
    ("outcomes", _loss),
    ("counterexamples", _change_of_curvature),
    ("arms", _over_arms),
    ("interventions", _over_copies),
    ("hypotheses", _hypotheses),
    ("counterexamples", _counterexamples),
    ("intervention_counterexamples", _treated_counterexamples),
    ("consistency", _within_runs),
    ("associations", _shared_trend),
    ("early_warning", _early_warning),
    ("comparisons", _methods),
)
