"""The part about methods of the pages of the evidence: claims C4 and C5, and a table."""

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import yaml
from pages import (
    ROOT,
    format_interval,
    format_number,
    format_range,
    markdown_table,
    rivals_of_curvature,
    select_row,
    select_rows,
    table,
    taus_of_copies,
)

from plasticity.config import titles
from plasticity.config.quantities import one_line_name

STUDY = "evidence_methods"
RANK = "fisher_effective_rank"
SUPPORTED = "supported"
SECOND_TEST = "mnist_labels_tanh"  # of C4, as declared
LEVEL = 0.05  # of the second test
SAME_ARM = "crelu"  # it replaces the activation, so its runs are equal in two settings
MIN_ARMS = 2  # on each side, or the second test cannot be decided
CLOSE = 0.05  # an error at most so much above the best one is as good, as declared


def declared() -> dict[str, Any]:
    """Return the file of the study."""
    study: dict[str, Any] = yaml.safe_load((ROOT / "studies" / f"{STUDY}.yaml").read_text())
    return study


def setting_names() -> list[str]:
    """Return the settings, in the order of the study."""
    return list(declared()["settings"])


def setting_title(setting: str) -> str:
    """Return the title of a setting."""
    return titles.setting_titles(declared()["settings"])[setting]


def methods_table() -> str:
    """Return a row per method: late error and rank in each setting, bold if plasticity is lost."""
    rows = [
        [f"`{method}`", *(cell(setting, method) for setting in setting_names())]
        for method in [*declared()["methods"], "fresh"]
    ]
    return markdown_table(["method", *map(setting_title, setting_names())], rows)


def cell(setting: str, method: str) -> str:
    """Return the late error of a method and its late rank; the error is bold if it is a loss."""
    row = select_row("summary", STUDY, setting=setting, arm=method)
    error = format_number(row["final_error_late"])
    fates = select_rows("counterexamples", STUDY, setting=setting, arm=method, measure=RANK)
    if fates["verdict"].str.startswith("lost").any():
        error = f"**{error}**"
    return f"{error}, rank {format_number(row[f'{RANK}_late'], 0)}"


# Claim C4


def arms_claim() -> tuple[str, str]:
    """Judge claim C4: arms that keep their curvature keep their plasticity."""
    row = select_row("arms", STUDY, measure=RANK)
    within = [auc for auc in map(auc_within, problems()) if not np.isnan(auc)]
    found = (
        f"AUC of the effective rank's change {format_interval(row)}, over {row['lost']} arms that"
        f" lose plasticity and {row['kept']} that keep it; within {len(within)} of"
        f" {len(problems())} problems it is {format_range(within)}"
    )
    if row["estimate"] == 1 or row["low"] > 0.5:
        return "holds", found
    if pd.notna(row["low"]):
        return "fails", found
    verdict, second = second_test()
    exploratory = exact_p([changes_by_fate(setting) for setting in setting_names()])
    return verdict, (
        f"{found}. {row['note'].capitalize()}. {second} Within all {len(setting_names())} settings"
        f" p is {exploratory:.1g} (exploratory)"
    )


def second_test() -> tuple[str, str]:
    """Judge claim C4 in the setting that was not run when this test was declared."""
    title = setting_title(SECOND_TEST)
    lost, kept = changes_by_fate(SECOND_TEST)
    counts = f"{lost.size} lost and {kept.size} kept"
    if min(lost.size, kept.size) < MIN_ARMS:
        return "not decided", f"A second test in {title} had too few arms on a side: {counts}."
    p = exact_p([(lost, kept)])
    own_p = exact_p([changes_by_fate(SECOND_TEST, without=SAME_ARM)])
    found = (
        f"Second test, declared before {title} was run, and only in this setting: AUC"
        f" {format_number(pairs_won(lost, kept) / (lost.size * kept.size))}, {counts}, exact p"
        f" {p:.2g}; without `{SAME_ARM}`, whose runs are those of another activation, {own_p:.2g}."
    )
    return ("holds in a second test" if p < LEVEL else "fails in a second test"), found


def exact_p(strata: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return the exact one-sided p of the Mann–Whitney statistic, summed over strata.

    The null hypothesis is that within a stratum all choices of the arms that lose plasticity are
    equally likely (van Elteren 1960, with weights of one).

    Args:
        strata: changes of the arms that lose plasticity, and of those that keep it. Lost ones are
            larger if the alternative holds.
    """
    observed = sum(pairs_won(lost, kept) for lost, kept in strata)
    counts = Counter({0.0: 1})
    for lost, kept in strata:
        values = np.concatenate([lost, kept])
        counts_of_stratum: Counter[float] = Counter()
        for chosen in itertools.combinations(range(values.size), lost.size):
            is_chosen = np.isin(np.arange(values.size), chosen)
            counts_of_stratum[pairs_won(values[is_chosen], values[~is_chosen])] += 1
        counts = counts_of_sums(counts, counts_of_stratum)
    as_extreme = sum(count for total, count in counts.items() if total >= observed)
    return as_extreme / counts.total()


def counts_of_sums(first: Counter[float], second: Counter[float]) -> Counter[float]:
    """Return how often each sum occurs over all pairs of a draw from each."""
    sums: Counter[float] = Counter()
    for (a, count_a), (b, count_b) in itertools.product(first.items(), second.items()):
        sums[a + b] += count_a * count_b
    return sums


def pairs_won(lost: np.ndarray, kept: np.ndarray) -> float:
    """Return in how many pairs the first is larger; a tie counts half."""
    difference = lost[:, None] - kept[None, :]
    return float((difference > 0).sum() + (difference == 0).sum() / 2)


def changes_by_fate(*settings: str, without: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Return how far the rank falls in arms that lose plasticity, and in arms that keep it.

    Args:
        settings: names.
        without: an arm that is left out.
    """
    rows = fates(RANK)
    rows = rows[rows["setting"].isin(settings) & (rows["arm"] != without)]
    lost, kept = (
        rows.loc[rows["verdict"].str.startswith(fate), "change"].to_numpy()
        for fate in ("lost", "kept")
    )
    return lost, kept


def arms_sentence() -> str:
    """Tell how well the change of the rank tells arms that lose plasticity from others."""
    row = select_row("arms", STUDY, measure=RANK)
    rivals = rivals_of_curvature(STUDY)
    best = rivals[rivals["auc"] == rivals["auc"].max()]
    names = " and ".join(one_line_name(str(measure)) for measure in best["measure"])
    aucs = aucs_by_definition()
    own = aucs[aucs["measure"] == RANK]
    is_best = own["auc"] == own["definition"].map(aucs.groupby("definition")["auc"].max())
    return (
        f"In {len(setting_names())} settings with {len(declared()['methods']) - 1} methods, the"
        f" rank's change tells {row['lost']} arms that lose plasticity from {row['kept']} that"
        f" keep it: AUC {format_interval(row)} (best without curvature: {names},"
        f" {format_interval(best.iloc[0], 'auc')}). By {len(own)} other definitions of a loss it is"
        f" {format_range(own['auc'])}, and the best of all measures in {is_best.sum()}."
    )


def copies_words() -> str:
    """Tell Kendall's τ of the rank and the error over copies of runs with regularizers."""
    rows = taus_of_copies(STUDY, RANK, outcome="final_error", statistic="tau", task="all")
    is_clear = (rows["high"] < 0) | (rows["low"] > 0)
    clear, others = rows[is_clear], rows[~is_clear]
    listed = [
        f"{format_interval(row)} (`{row['arm']}`, {setting_title(row['setting'])})"
        for _, row in others.iterrows()
    ]
    return (
        f"In copies of runs with a regularizer, τ is {format_range(clear['estimate'])} in"
        f" {len(clear)} of {len(rows)} cases, and not clear in the others: {'; '.join(listed)}."
    )


def problem_of(setting: str) -> str:
    """Return all that defines the data of a setting, as text."""
    return json.dumps(declared()["settings"][setting]["problem"], sort_keys=True)


def problems() -> list[str]:
    """Return the problems of the published settings."""
    return list(dict.fromkeys(map(problem_of, setting_names())))


def fates(measure: str) -> pd.DataFrame:
    """Return a row per arm without baselines: its verdict, and the change of a measure."""
    rows = select_rows("counterexamples", STUDY, measure=measure)
    return rows[~rows["arm"].str.startswith("fresh") & rows["change"].notna()]


def auc_within(problem: str) -> float:
    """Return the share of pairs, a lost and a kept arm, in which the rank of the first falls more.

    It is NaN if no arm loses plasticity, or none keeps it.
    """
    own = [setting for setting in setting_names() if problem_of(setting) == problem]
    lost, kept = changes_by_fate(*own)
    pairs = lost.size * kept.size
    return pairs_won(lost, kept) / pairs if pairs else float("nan")


def aucs_by_definition() -> pd.DataFrame:
    """Return the AUC of each measure if other definitions decide which arms lose plasticity.

    Means alone decide, so no arm is unclear.

    Returns:
        Columns ``definition, measure, auc, lost, kept``.
    """
    late = select_rows("outcomes", STUDY, outcome="final_error_gap", stage="late")
    late_gaps = late.set_index(["setting", "arm"])["mean"]
    found = []
    for measure in table("explanations", STUDY)["measure"]:
        rows = fates(measure).set_index(["setting", "arm"])
        late_gap = late_gaps.reindex(rows.index)
        definitions = {
            "the gap grows by more than 0.05": rows["loss"] > 0.05,
            "it grows by more than 0.2": rows["loss"] > 0.2,
            "the late gap is above 0.2": late_gap > 0.2,
        }
        for definition, is_lost in definitions.items():
            lost, kept = (rows.loc[chosen, "change"].to_numpy() for chosen in (is_lost, ~is_lost))
            pairs = lost.size * kept.size
            auc = pairs_won(lost, kept) / pairs if pairs else np.nan
            found.append([definition, measure, auc, lost.size, kept.size])
    return pd.DataFrame(found, columns=["definition", "measure", "auc", "lost", "kept"])


def definition_words() -> str:
    """Tell how the AUC depends on what counts as a loss, and which measure is the best."""
    listed = []
    for definition, rows in aucs_by_definition().groupby("definition", sort=False):
        own = rows[rows["measure"] == RANK].iloc[0]
        best = rows.loc[rows["auc"].idxmax()]
        text = f"{format_number(own['auc'])} if {definition} ({own['lost']} of"
        text += f" {own['lost'] + own['kept']} arms"
        if best["measure"] != RANK:
            text += f"; best: {one_line_name(best['measure'])}, {format_number(best['auc'])}"
        listed.append(f"{text})")
    return (
        "The AUC over methods depends on what counts as a loss. If the mean alone decides, so that"
        f" no arm is unclear, that of the rank is {', '.join(listed)}."
    )


# Claim C5


def wasserstein_claim() -> tuple[str, str]:
    """Judge claim C5: Wasserstein beats no intervention, and is less sensitive than L2 Init."""
    rows = select_rows("hypotheses", STUDY, hypothesis="C5")
    is_better = rows["verdict"] == SUPPORTED
    ranges = {
        setting: [len(good_strengths(setting, method)) for method in ("wasserstein", "l2_init")]
        for setting in setting_names()
    }
    is_wider = [own > other for own, other in ranges.values()]
    listed = "; ".join(
        f"{setting_title(setting)}: {own} and {other}" for setting, (own, other) in ranges.items()
    )
    found = (
        f"it beats no intervention in {is_better.sum()} of {len(rows)} settings (late error"
        f" {format_range(rows['estimate'])}); strengths within {CLOSE} of the best error, for"
        f" Wasserstein and L2 Init: {listed}"
    )
    return "holds" if is_better.all() and all(is_wider) else "fails", found


def good_strengths(setting: str, method: str) -> list[float]:
    """Return the neighbouring strengths around the best one whose error is close to its error."""
    rows = select_rows("tuning", STUDY, setting=setting, method=method, criterion=True)
    strengths = [json.loads(values)["strength"] for values in rows["hyperparameters"]]
    errors = pd.Series(rows["mean"].to_numpy(), index=strengths).sort_index()
    is_close = (errors <= errors.min() + CLOSE).to_numpy()
    best = int(errors.to_numpy().argmin())
    first = last = best
    while first > 0 and is_close[first - 1]:
        first -= 1
    while last < len(errors) - 1 and is_close[last + 1]:
        last += 1
    return [float(strength) for strength in errors.index[first : last + 1]]
