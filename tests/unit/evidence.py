"""Write the pages of the evidence, and the generated parts of README.md and docs/results/digits.md.

Usage: python tests/unit/evidence.py
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import evidence_methods
import numpy as np
import pandas as pd
import xarray as xr
import yaml
from pages import (
    DOCS,
    NO_TEST,
    ROOT,
    format_interval,
    format_number,
    format_percent,
    format_range,
    markdown_table,
    published_run,
    rivals_of_curvature,
    select_row,
    select_rows,
    table,
    taus_of_copies,
    turned,
    wrap_text,
)

from plasticity.config import registry, titles
from plasticity.config.models import Statistics
from plasticity.config.quantities import one_line_name

README = ROOT / "README.md"
PAGE = DOCS / "results" / "evidence.md"
DETAILS = DOCS / "results" / "evidence_details.md"
DIGITS = DOCS / "results" / "digits.md"

STUDY = "evidence"
RANK = "fisher_effective_rank"
NONE = "none"
BASELINE = "fresh"
INITIAL_WEIGHTS = "toward_initial(strength=1)"  # it keeps the optimizer's state
SUPPORTED = "supported"
LOST = Statistics.lost  # the study does not change it
MOVED = Statistics.moved  # nor this
# Claim C3: the setting in which each other explanation fails, as declared before the run.
RIVALS_FAIL = {
    "dead_fraction": "mnist_separable_leaky_relu",
    "dormant_fraction": "mnist_separable_tanh",
    "weight_norm": "mnist_separable_identity",
    "feature_rank": "cifar10_pixels_relu",
}
CLAIMS = (  # as declared before the run, in docs/development/decisions.md
    "C1: plasticity is lost with ReLU, leaky ReLU and tanh, and kept with the identity",
    "C2: in each setting, treated copies of a checkpoint with more curvature have a lower error",
    "C3: each rival fails in a setting named beforehand",
    "C4: arms that keep their curvature keep their plasticity",
    "C5: Wasserstein beats no intervention in each setting, and is less sensitive than L2 Init",
)
# Measures of the default study's table of interventions, with short names.
INTERVENED_MEASURES = {
    "fisher_effective_rank": "Fisher, effective rank",
    "fisher_entropy_rank": "Fisher, entropy rank",
    "fisher_stable_rank": "Fisher, stable rank",
    "feature_rank": "feature rank",
    "dead_fraction": "dead units",
    "weight_norm": "weight norm",
    "fisher_top_eigenvalue": "top eigenvalue",
}


@functools.cache
def declared_settings(study: str) -> dict[str, dict[str, Any]]:
    """Return the settings of a file in `studies/`, by name."""
    config = yaml.safe_load((ROOT / "studies" / f"{study}.yaml").read_text())
    settings: dict[str, dict[str, Any]] = config["settings"]
    return settings


# Selections that the pages need


def setting_names() -> list[str]:
    """Return the settings, in the order of the study."""
    return list(declared_settings(STUDY))


def setting_title(setting: str) -> str:
    """Return the title of a setting in the order that reads best: ``MNIST, shuffled labels``."""
    return titles.setting_titles(declared_settings(STUDY))[setting]


def training_steps(setting: Mapping[str, Any]) -> int:
    """Return the optimizer steps of a setting over all its tasks."""
    problem = setting["problem"]
    batches = -(-problem["samples"] // problem["batch"])
    return int(problem["tasks"] * problem["epochs"] * batches)


def share_of_budget(setting: str) -> float:
    """Return the share of the published steps that a setting is trained for."""
    return training_steps(declared_settings(STUDY)[setting]) / training_steps(
        declared_settings("paper")[setting]
    )


def fate(setting: str, measure: str = RANK) -> pd.Series:
    """Return what happens without an intervention: growth of the gap, change of a measure."""
    return select_row("counterexamples", STUDY, setting=setting, arm=NONE, measure=measure)


def settings_that(verdict: str) -> list[str]:
    """Return the settings whose plasticity is `lost` or `kept` without an intervention."""
    return [name for name in setting_names() if fate(name)["verdict"].startswith(verdict)]


def verdicts(hypothesis: str) -> pd.DataFrame:
    """Return the tests of a declared hypothesis, one row per setting."""
    return select_rows("hypotheses", STUDY, hypothesis=hypothesis)


def count_supported(hypothesis: str) -> str:
    """Return in how many settings a hypothesis is supported."""
    rows = verdicts(hypothesis)
    return f"{(rows['verdict'] == SUPPORTED).sum()} of {len(rows)}"


# Tables of the page


def explanations_table() -> str:
    """Return a row per explanation that was measured on copies: what each test says about it."""
    rows = []
    explanations = table("explanations", STUDY)
    of_methods = table("explanations", evidence_methods.STUDY).set_index("measure")
    for _, row in in_all_settings(explanations[explanations["tau"].notna()]).iterrows():
        worst = format_interval(row, "worst_tau")
        counterexamples = f"{row['counterexamples']:.0f} of {row['judged_arms']}"
        rows.append(
            [
                one_line_name(str(row["measure"])),
                format_interval(row, "auc"),
                format_interval(of_methods.loc[row["measure"]], "auc"),
                format_interval(row, "tau"),
                worst if worst == NO_TEST else f"{worst}, {setting_title(row['worst_setting'])}",
                counterexamples if row["judged_arms"] else NO_TEST,
                format_interval(row, "warning"),
            ]
        )
    head = [
        "explanation",
        "AUC, settings",
        "AUC, methods",
        "τ of copies",
        "worst τ",
        "counter-examples",
        "warning",
    ]
    return markdown_table(head, rows)


def in_all_settings(explanations: pd.DataFrame) -> pd.DataFrame:
    """Leave out measures of convolutional networks, which few settings have."""
    return explanations[explanations["judged_arms"] == explanations["judged_arms"].max()]


def settings_table() -> str:
    """Return a row per setting: budget, late errors, fate, and the rank over tasks."""
    rows = []
    for name in setting_names():
        errors = select_row("summary", STUDY, setting=name, arm=NONE)
        baseline = select_row("summary", STUDY, setting=name, arm=BASELINE)
        change = fate(name)
        verdict = change["verdict"].partition(",")[0]
        rows.append(
            [
                setting_title(name),
                format_percent(share_of_budget(name)),
                format_number(errors["final_error_late"], 3),
                format_number(baseline["final_error_late"], 3),
                f"**{verdict}**" if verdict == "lost" else verdict,
                rank_words(name),
                tau_of_copies(name),
            ]
        )
    head = [
        "setting",
        "budget",
        "late error",
        "from scratch",
        "plasticity",
        "rank: task 0, 1, late",
        "τ of copies",
    ]
    return markdown_table(head, rows)


def rank_words(setting: str) -> str:
    """Return the mean rank of the untrained network, of the first trained one, and late."""
    ranks = mean_ranks(setting)
    tasks = len(ranks)
    late = ranks[tasks - max(1, tasks // 8) :]
    return f"{ranks[0]:.0f} → {ranks[1]:.0f} → {np.nanmean(late):.0f}"


@functools.cache
def mean_ranks(setting: str) -> np.ndarray:
    """Return the mean rank over seeds without an intervention, on next data, shape ``(task,)``."""
    with xr.open_dataset(DOCS / STUDY / "drawn" / f"{setting}.nc") as data:
        ranks = data[RANK].sel(arm=NONE, block="all", evaluation_point="next")
        return np.asarray(ranks.transpose("seed", "task").mean("seed").values)


def tau_of_copies(setting: str) -> str:
    """Return Kendall's τ of rank and final error over copies, with its interval."""
    taus = pooled_taus()
    (row,) = (row for _, row in taus[taus["setting"] == setting].iterrows())
    return NO_TEST if pd.isna(row["low"]) else format_interval(row)


def pooled_taus(statistic: str = "tau", outcome: str = "final_error") -> pd.DataFrame:
    """Return τ of rank and an outcome over the copies of all treated tasks, a row per setting."""
    where = {"arm": NONE, "task": "all", "statistic": statistic, "outcome": outcome}
    return taus_of_copies(STUDY, RANK, **where)


# Claims


def loss_claim() -> tuple[str, str]:
    """Judge claim C1: lost with non-linear activations, kept with the identity."""
    rows = pd.concat([verdicts("C1"), verdicts("C1-identity")])
    is_supported = rows["verdict"] == SUPPORTED
    as_claimed = is_supported.iloc[:-1].all() and not is_supported.iloc[-1]
    listed = [f"{activation(row['setting'])} {format_interval(row)}" for _, row in rows.iterrows()]
    return (
        "holds" if as_claimed else "fails",
        f"late error minus that of a network from scratch: {'; '.join(listed)}",
    )


def activation(setting: str) -> str:
    """Return the last word of a setting's title."""
    return setting_title(setting).rpartition(", ")[2]


def copies_claim() -> tuple[str, str]:
    """Judge claim C2: in each setting, copies with more curvature have a lower error."""
    rows = turned(verdicts("C2"))
    others = rows[rows["verdict"] != SUPPORTED]
    found = (
        f"effective rank: supported in {count_supported('C2')} settings (τ"
        f" {format_range(rows['estimate'])}); entropy rank: in {count_supported('C2-entropy')}"
    )
    for verdict, of_verdict in others.groupby("verdict", sort=False):
        listed = [
            f"{setting_title(row['setting'])} ({reason_of_verdict(row)})"
            for _, row in of_verdict.iterrows()
        ]
        found += f". {verdict_words(str(verdict))}: {'; '.join(listed)}"
    return "holds" if others.empty else "fails", found


def verdict_words(verdict: str) -> str:
    """Return the verdict of a test as the start of a list of settings."""
    had_no_power = verdict == "could not have been found"
    return "The test had too little power" if had_no_power else verdict.capitalize()


def reason_of_verdict(row: pd.Series) -> str:
    """Tell τ and p of an undecided test, or that copies hardly differ if it has no interval."""
    if pd.notna(row["low"]):
        return f"τ {format_interval(row)}, adjusted p {row['p_adjusted']:.2g}"
    copies = select_rows(
        "treatments", STUDY, setting=row["setting"], arm=NONE, quantity="final_error"
    )
    return f"its copies end with a mean error of at most {format_number(copies['mean'].max(), 3)}"


def rivals_claim() -> tuple[str, str]:
    """Judge claim C3: each other explanation fails in a setting named beforehand."""
    failed, found = 0, []
    for measure, setting in RIVALS_FAIL.items():
        row = fate(setting, measure)
        failed += bool(row["counterexample"])
        found.append(f"{one_line_name(measure)}, {setting_title(setting)}: {row['verdict']}")
    return f"holds for {failed} of {len(RIVALS_FAIL)}", "; ".join(found)


def claims_table() -> str:
    """Return a row per declared claim."""
    answers = (
        loss_claim(),
        copies_claim(),
        rivals_claim(),
        evidence_methods.arms_claim(),
        evidence_methods.wasserstein_claim(),
    )
    rows = [
        [claim, f"**{verdict}**", found]
        for claim, (verdict, found) in zip(CLAIMS, answers, strict=True)
    ]
    return markdown_table(["claim", "verdict", "found"], rows)


# Pages


def page() -> str:
    """Return docs/results/evidence.md."""
    run = published_run(STUDY)
    return wrap_text(f"""# The evidence at published budgets

{answer()}
{explanations_table()}

- **AUC:** how well the change of a measure tells arms that lose plasticity from arms that keep it:
settings without an intervention, and arms of [methods](evidence_details.md#methods).
- **τ of copies:** copies of a checkpoint are changed on purpose, measured, and trained for one
task. Kendall's τ is over these copies; on this page, positive means ordered as claimed. **Worst
τ** is that of the setting that agrees least.
- **Counter-examples:** arms that lose plasticity while the measure stays, or the reverse.
- **Warning:** AUC for a gap above {LOST} at the end of a task, in settings new to the model.
- Brackets are 95 % intervals over problems, or over seeds for a single setting. There are none if
problems are too few, or all arms are separated. A dash: no test. [The
table](../evidence/tables/explanations.csv) has the ranks of GGN, NTK and Hessian.

![Error and rank where plasticity is lost and kept](../evidence/figures/summary.png)

## What was declared before the run

{claims_table()}

## Tried to break it

- {other_copies_words()}
- {evidence_methods.definition_words()}
- {evidence_methods.copies_words()}
- {optimizer_state_words()}
- {treatments_sentence()} {shrinking_words()}
- {untrained_words()}
- If a loss counted from the mean over early tasks, {early_window_words()}.
- {optimizer_words()}

## What was not tested

{limits()}

## Reproduce it

`make run STUDY={STUDY}` trains and measures the settings, and `make run
STUDY={evidence_methods.STUDY}` the methods. `make reproduce STUDY=evidence
ARGS="--setting mnist_separable_relu"` confirms one setting. The studies took {hours(STUDY)} and
{hours(evidence_methods.STUDY)} hours of jobs, two at a time on {run["cores"]} cores
([cost](../evidence/tables/cost.csv), [versions](../evidence/made.json)). See
[settings and methods](evidence_details.md), all [figures](../evidence/figures) and
[tables](../evidence/tables).
""")


def details() -> str:
    """Return docs/results/evidence_details.md."""
    return wrap_text(f"""# The evidence by setting and method

What [the evidence](evidence.md) rests on.

## Settings

{settings_table()}

Budget is the share of the published steps. Late is the last eighth of the tasks. Plasticity is
lost if the gap to a network from scratch grows by more than {LOST}
([definition](../statistics.md)).
The rank of the Fisher is that of an untrained network, after one task, and late.
{late_window_words()}

## Methods

Late error and late rank. Bold: plasticity is lost. `fresh` is a network from scratch; `layer_norm`
and `crelu` are compared with networks of their own architecture.

{evidence_methods.methods_table()}

Three tuning seeds selected the strength of each method, and ten others report it. Runs have 5
(separable labels) or 10 tasks. Intervals and all strengths are in [the
tables](../evidence_methods/tables).
""")


def hours(study: str) -> str:
    """Return the hours of all jobs of a published study."""
    return format_number(table("cost", study)["hours"].sum(), 1)


def copies_sentence() -> str:
    """Tell in how many settings copies with a larger rank have a smaller error, and τ elsewhere."""
    rows = pooled_taus().dropna(subset="low")
    as_claimed, others = rows[rows["low"] > 0], rows[rows["low"] <= 0]
    sentence = (
        "Among treated copies of a checkpoint, a larger rank means a smaller error in"
        f" {len(as_claimed)} of {len(rows)} settings (Kendall's τ"
        f" {format_range(as_claimed['estimate'])})"
    )
    listed = [
        f"{setting_title(row['setting'])} ({format_number(row['estimate'])})"
        for _, row in others.iterrows()
    ]
    return f"{sentence}, but not in {join_words(listed)}." if listed else f"{sentence}."


def rank_sentence() -> str:
    """Tell in how many settings the rank falls, where plasticity is lost and where it is kept."""
    lost, kept = settings_that("lost"), settings_that("kept")
    fallen = sum(not fate(name)["counterexample"] for name in lost)
    moved = sum(bool(fate(name)["counterexample"]) for name in kept)
    from_untrained = sum(fall_from_untrained(name) > MOVED for name in kept)
    return (
        f"After the first task, the Fisher's effective rank falls in {fallen} of {len(lost)}"
        f" settings that lose plasticity, and in {moved} of {len(kept)} that keep it"
        f" ({from_untrained} from the untrained network on)."
    )


def rivals_as_good() -> list[str]:
    """Name the measures without curvature whose AUC is at least that of the rank."""
    rivals = in_all_settings(rivals_of_curvature(STUDY))
    auc = select_row("explanations", STUDY, measure=RANK)["auc"]
    return [one_line_name(str(name)) for name in rivals.loc[rivals["auc"] >= auc, "measure"]]


def rivals_sentence() -> str:
    """Tell whether a measure without curvature explains as much."""
    rivals = rivals_as_good()
    if not rivals:
        return "No measure without curvature tells settings apart as well."
    return (
        f"Of the measures without curvature, {join_words(rivals)} tell settings apart as well. So"
        " curvature is not shown to be the better explanation."
    )


def other_copies_words() -> str:
    """Tell τ of the rank without harmful treatments, at single tasks, and with another outcome."""
    gentle = taus_of_copies(
        STUDY, RANK, outcome="final_error", statistic="tau_without_harmful"
    ).dropna(subset="low")
    pooled = gentle.loc[gentle["task"] == "all", "estimate"]
    single = gentle[gentle["task"] != "all"]
    worst = single.loc[single["estimate"].idxmin()]
    online = pooled_taus(outcome="online_error").dropna(subset="low")
    return (
        "Without the harmful treatments, τ of the effective rank and the error is"
        f" {format_range(pooled)} in {len(pooled)} settings. At single tasks it is down to"
        f" {format_interval(worst)} ({setting_title(worst['setting'])}, task {worst['task']}). With"
        " all treatments, τ of rank and mean error within the task is"
        f" {format_range(online['estimate'])}."
    )


def treatments_sentence() -> str:
    """Return the study's own sentence about treatments that restore only one of two."""
    sentences = table("statements", STUDY)["statement"]
    (sentence,) = sentences[sentences.str.startswith("Treatments of checkpoints")]
    return str(sentence)


def shrinking_words() -> str:
    """Tell what shrinking the weights does to error and rank with tanh."""
    setting, task = "mnist_separable_tanh", "45"
    (error, old_error), (rank, old_rank) = (
        [
            select_row(
                "treatments",
                STUDY,
                setting=setting,
                arm=NONE,
                task=task,
                treatment=treatment,
                quantity=quantity,
                block=block,
            )["mean"]
            for treatment in ("shrink(strength=0.6)", NONE)
        ]
        for quantity, block in (("final_error", ""), (RANK, "all"))
    )
    return (
        f"For example, shrinking the weights by 0.6 ({setting_title(setting)}, task {task}) takes"
        f" the error from {format_number(old_error)} to {format_number(error)}, and the rank from"
        f" {format_number(old_rank, 0)} to {format_number(rank, 0)}."
    )


def optimizer_state_words() -> str:
    """Tell τ among copies that keep the optimizer's state, and among all of them."""
    kept, every = (format_range(taus_of_means(only_kept).values()) for only_kept in (True, False))
    return (
        "Some treatments clear the optimizer's state. Among those that keep it, τ of mean rank and"
        f" mean error, averaged over tasks, is {kept}, and {every} among all."
    )


def taus_of_means(only_kept: bool) -> dict[str, float]:
    """Return τ of rank and error over treatments, by setting: of means over seeds, mean over tasks.

    It is positive if a larger rank means a smaller error.

    Args:
        only_kept: whether only treatments count that keep the optimizer's state.
    """
    keys = ["setting", "task", "treatment"]
    rows = select_rows("treatments", STUDY, arm=NONE)
    errors = rows[rows["quantity"] == "final_error"].set_index(keys)["mean"]
    is_rank = (rows["quantity"] == RANK) & (rows["block"] == "all")
    copies = pd.DataFrame({"error": errors, "rank": rows[is_rank].set_index(keys)["mean"]})
    copies = copies.reset_index()
    if only_kept:
        names = copies["treatment"].str.partition("(")[0]
        copies = copies[[optimizer_state(name) == "kept" for name in names]]
    taus = {}
    for setting, of_setting in copies.groupby("setting"):
        of_tasks = [
            -of_task["rank"].corr(of_task["error"], method="kendall")
            for _, of_task in of_setting.groupby("task")
        ]
        if np.isfinite(of_tasks).all():
            taus[str(setting)] = float(np.mean(of_tasks))
    return taus


def optimizer_state(treatment: str) -> str:
    """Return what a treatment does to the optimizer's state."""
    return str(registry.constant("treatments", treatment, "OPTIMIZER_STATE"))


def errors_of_copies(study: str) -> pd.DataFrame:
    """Return the mean final error of copies, a row per setting and task, a column per treatment."""
    rows = select_rows("treatments", study, arm=NONE, quantity="final_error")
    return rows.pivot(index=["setting", "task"], columns="treatment", values="mean")


def excess_errors(errors: pd.DataFrame) -> pd.Series:
    """Return how far copies with initial weights and the run's state end above new networks."""
    return errors[INITIAL_WEIGHTS] - errors[BASELINE]


def count_like_new(errors: pd.DataFrame) -> str:
    """Tell in how many settings these copies learn like new networks.

    At each task, their excess is at most what counts as a loss.
    """
    is_like_new = excess_errors(errors).groupby("setting").max() <= LOST
    return f"{is_like_new.sum()} of {is_like_new.size} settings"


def adam_errors() -> pd.DataFrame:
    """Return the errors of copies in settings with Adam that lose plasticity."""
    optimizers = {name: item["optimizer"] for name, item in declared_settings(STUDY).items()}
    names = [name for name in settings_that("lost") if optimizers[name]["kind"] == "adam"]
    errors = errors_of_copies(STUDY)
    return errors[errors.index.get_level_values("setting").isin(names)]


def optimizer_sentence() -> str:
    """Tell where copies with their initial weights, but the run's Adam state, learn again."""
    errors = adam_errors()
    return (
        "With initial weights, but the run's Adam state, copies learn like new networks in"
        f" {count_like_new(errors)} that lost plasticity; elsewhere their error is up to"
        f" {format_number(excess_errors(errors).max())} larger."
    )


def optimizer_words() -> str:
    """Tell where copies with the initial weights and the run's Adam state end worst."""
    errors = adam_errors()
    setting, task = excess_errors(errors).idxmax()
    rank, new_rank = (
        select_row(
            "treatments",
            STUDY,
            setting=setting,
            task=task,
            arm=NONE,
            treatment=treatment,
            quantity=RANK,
            block="all",
        )["mean"]
        for treatment in (INITIAL_WEIGHTS, BASELINE)
    )
    error, new_error = errors.loc[(setting, task), [INITIAL_WEIGHTS, BASELINE]]
    digits = errors_of_copies("digits")
    change = (digits["reset_optimizer"] - digits[NONE]).abs().max()
    return (
        "Copies with the initial weights and the run's Adam state end worst in"
        f" {setting_title(setting)}, task {task}: their error is {format_number(error)}, that of a"
        f" new network with a new state {format_number(new_error)}; their ranks are"
        f" {format_number(rank, 0)} and {format_number(new_rank, 0)}. So there the state alone"
        " takes plasticity away, and no measure of the weights sees it (exploratory). On digits,"
        f" they learn like new ones in {count_like_new(digits)}, and clearing the state alone"
        f" changes the error by at most {format_number(change)}."
    )


def early_window_words() -> str:
    """Tell which settings would not lose plasticity by the change from early to late tasks."""
    changed = []
    for name in settings_that("lost"):
        growth = select_row(
            "outcomes", STUDY, setting=name, arm=NONE, outcome="final_error_gap", stage="change"
        )
        if not growth["low"] > LOST:
            changed.append(f"{setting_title(name)} ({format_interval(growth, 'mean')})")
    listed = " and ".join(changed)
    return f"it would not be lost with {listed}" if changed else "the same settings would lose it"


def untrained_words() -> str:
    """Tell the AUC of the rank's fall over settings if it counts from the untrained network."""
    lost, kept = (
        [fall_from_untrained(name) for name in settings_that(verdict)]
        for verdict in ("lost", "kept")
    )
    auc = float(np.mean([fall > other for fall in lost for other in kept]))
    return (
        "Counted from the untrained network, the rank's AUC over settings is"
        f" {format_number(auc)}. Where labels stay or nothing changes, there is nothing new to"
        " learn, so kept plasticity and τ of copies say little."
    )


def fall_from_untrained(setting: str) -> float:
    """Return how far the mean rank falls from the untrained network, as a share of the larger."""
    ranks = mean_ranks(setting)
    late = np.nanmean(ranks[-max(1, len(ranks) // 8) :])
    return float((ranks[0] - late) / max(ranks[0], late))


def late_window_words() -> str:
    """Tell the gap in another late window, where plasticity is lost and where it is kept."""
    lost, kept = (
        format_range(map(late_gap, settings_that(verdict))) for verdict in ("lost", "kept")
    )
    return (
        f"In the last quarter of the tasks the gap is {lost} where plasticity is lost, and {kept}"
        " where it is kept."
    )


def late_gap(setting: str) -> float:
    """Return the mean gap over the last quarter of the tasks."""
    with xr.open_dataset(DOCS / STUDY / "drawn" / f"{setting}.nc") as data:
        gaps = data["final_error"].sel(arm=NONE) - data["fresh_final_error"].sel(arm=NONE)
        quarter = gaps.sizes["task"] // 4
        return float(gaps.isel(task=slice(-quarter, None)).mean())


def limits() -> str:
    """Return the list of what was not tested."""
    budgets = [share_of_budget(name) for name in setting_names()]
    in_part = [share for share in budgets if share < 1]
    return f"""- The full published budget of {len(in_part)} of {len(budgets)} settings: they have
{format_percent(min(in_part))} to {format_percent(max(in_part))} of it.
- Methods over more than ten tasks, and at other shifts; other widths, depths, step sizes and batch
sizes; residual networks and transformers; ranks on other numbers of samples; a GPU."""


def answer() -> str:
    """Return the results in five bullets, for the page and for README.md."""
    lost = settings_that("lost")
    late = [
        select_row("summary", STUDY, setting=name, arm=NONE)["final_error_late"] for name in lost
    ]
    return f"""- **Plasticity is lost in {len(lost)} of {len(setting_names())} settings** without an
intervention (late error {format_range(late)}). On separable MNIST it is {separable_words()}.
- **Curvature falls with it.** {rank_sentence()}
- **In experiments.** {copies_sentence()}
- **Over methods.** {evidence_methods.arms_sentence()}
- **Other explanations.** {rivals_sentence()} {optimizer_sentence()}
"""


def separable_words() -> str:
    """Tell with which activations plasticity is lost and kept on separable labels."""
    separable = {
        name
        for name, setting in declared_settings(STUDY).items()
        if setting["problem"].get("separable")
    }
    words = []
    for verdict in ("lost", "kept"):
        activations = [activation(name) for name in settings_that(verdict) if name in separable]
        if activations:
            words.append(f"{verdict} with {join_words(activations)}")
    return ", and ".join(words)


def join_words(words: Sequence[str]) -> str:
    """Join words: ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def readme_costs() -> str:
    """Return the table of costs in README.md: jobs, time and disk of published studies."""
    studies = {
        "digits": "default study",
        "evidence": "evidence",
        "evidence_methods": "methods of the evidence",
    }
    stages = {
        "tune": "select arms",
        "train": "train",
        "curvature": "curvature",
        "intervene": "treat checkpoints",
    }
    labels = [*stages.values(), "all other stages", "disk"]
    rows: dict[str, list[str]] = {label: [label] for label in labels}
    for study in studies:
        cost = table("cost", study).set_index("stage")
        for stage, label in stages.items():
            rows[label].append(format_cost(cost.loc[[stage]]) if stage in cost.index else "–")
        rows["all other stages"].append(format_cost(cost.drop(stages, errors="ignore")))
        megabytes = published_run(study)["MB"]
        rows["disk"].append(f"{sum(megabytes.values()) / 1000:.2f} GB")
    return wrap_text(markdown_table(["", *studies.values()], list(rows.values())))


def format_cost(cost: pd.DataFrame) -> str:
    """Format the jobs of some stages, their time and the longest job."""
    minutes, longest = 60 * cost["hours"].sum(), cost["longest seconds"].max() / 60
    return f"{cost['jobs'].sum()} jobs, {minutes:.1f} min (longest {longest:.1f})"


def interventions_table(statistic: str) -> str:
    """Return a table of the default study: τ within checkpoints, by setting and measure."""
    taus = table("interventions", "digits")
    taus = taus[(taus["statistic"] == statistic) & (taus["outcome"] == "final_error")]
    taus = taus[(taus["arm"] == NONE) & (taus["setting"] != "all")]
    rows = []
    for setting, of_setting in taus.groupby("setting"):
        for task in (task for task in dict.fromkeys(of_setting["task"]) if task != "all"):
            of_task = of_setting[of_setting["task"] == task].set_index("measure")
            cells = [format_tau(of_task.loc[measure]) for measure in INTERVENED_MEASURES]
            rows.append([str(setting).removeprefix("digits_labels_"), str(task), *cells])
    return markdown_table(["network", "task", *INTERVENED_MEASURES.values()], rows) + "\n"


def format_tau(row: pd.Series) -> str:
    """Format a τ with its interval, or tell that the measure is constant."""
    return "constant" if pd.isna(row["estimate"]) else format_interval(row)


def update_digits(text: str) -> str:
    """Return docs/results/digits.md with its generated part replaced."""
    parts = {
        "interventions": interventions_table("tau"),
        "without harmful": interventions_table("tau_without_harmful"),
    }
    return replace_parts(text, parts)


def update_readme(text: str) -> str:
    """Return README.md with its generated parts replaced."""
    return replace_parts(text, {"result": wrap_text(answer()), "costs": readme_costs()})


def replace_parts(text: str, parts: Mapping[str, str]) -> str:
    """Replace the generated parts of a page, which comments enclose."""
    for name, part in parts.items():
        start, end = f"<!-- {name}: tests/unit/evidence.py -->\n", f"<!-- end of {name} -->"
        assert text.count(start) == text.count(end) == 1, name
        before, _, rest = text.partition(start)
        after = rest.partition(end)[2]
        text = before + start + part + end + after
    return text


if __name__ == "__main__":
    PAGE.write_text(page())
    DETAILS.write_text(details())
    DIGITS.write_text(update_digits(DIGITS.read_text()))
    README.write_text(update_readme(README.read_text()))
