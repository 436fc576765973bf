"""Write docs/results/evidence.md and the generated parts of README.md from the published tables.

Usage: python tests/unit/evidence.py
"""

import functools
import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

DOCS = Path(__file__).parents[2] / "docs"
README = DOCS.parent / "README.md"
PAGE = DOCS / "results" / "evidence.md"
DIGITS = DOCS / "results" / "digits.md"

RANK = "fisher_effective_rank"
GAP = "final_error_gap"
NONE = "none"
BASELINE = "fresh"
SIGNIFICANCE = 0.05
COLUMNS = 100  # of a line of text
OTHER_MEASURES = (
    "feature_rank",
    "dead_fraction",
    "dormant_fraction",
    "weight_norm",
    "update_norm",
)
CURVATURE_MEASURES = {  # without the Hessian's effective rank, whose estimate is not reliable
    "fisher_effective_rank": "Fisher, effective rank",
    "ggn_effective_rank": "GGN, effective rank",
    "ntk_effective_rank": "NTK, effective rank",
    "fisher_entropy_rank": "Fisher, entropy rank",
    "fisher_stable_rank": "Fisher, stable rank",
    "fisher_trace": "Fisher, trace",
}
INTERVENED_MEASURES = {
    "fisher_effective_rank": "Fisher, effective rank",
    "fisher_entropy_rank": "Fisher, entropy rank",
    "fisher_stable_rank": "Fisher, stable rank",
    "feature_rank": "feature rank",
    "dead_fraction": "dead units",
    "weight_norm": "weight norm",
    "fisher_top_eigenvalue": "top eigenvalue",
}
SETTINGS_WITH_ALL_METHODS = ("mnist_separable_relu", "mnist_labels_relu", "mnist_pixels_relu")


# Access to the tables


@functools.cache
def table(name: str, study: str = "evidence") -> pd.DataFrame:
    """Read a published table."""
    path = next((DOCS / study).glob(f"*/{name}.csv*"))
    return pd.read_csv(path, dtype={"task": str})


def select_rows(name: str, **values: object) -> pd.DataFrame:
    """Return the rows of a table that have these values."""
    rows = table(name)
    for column, value in values.items():
        rows = rows[rows[column] == value]
    return rows


def select_row(name: str, **values: object) -> pd.Series:
    """Return the only row of a table that has these values."""
    rows = select_rows(name, **values)
    assert len(rows) == 1, (name, values, len(rows))
    return rows.iloc[0]


def published_run(study: str) -> dict[str, Any]:
    """Return versions, cores and disk use of a published run."""
    record: dict[str, Any] = json.loads((DOCS / study / "made.json").read_text())
    return record


@functools.cache
def mean_ranks(setting: str) -> dict[int, float]:
    """Return the mean rank over seeds by measured task, without an intervention, on next data."""
    with xr.open_dataset(DOCS / "evidence" / "drawn" / f"{setting}.nc") as data:
        ranks = data[RANK].sel(arm=NONE, block="all", evaluation_point="next").mean("seed")
        measured = ranks.dropna("task")
        return dict(zip(measured["task"].values.tolist(), measured.values.tolist(), strict=True))


# Selections that the page needs


def setting_names() -> list[str]:
    """Return all settings of the study."""
    return list(table("settings")["setting"])


def loss_of_plasticity(setting: str, arm: str = NONE) -> pd.Series:
    """Return the verdict on an arm: the growth of the gap and the change of the rank."""
    return select_row("counterexamples", setting=setting, arm=arm, measure=RANK)


def settings_that(verdict: str) -> list[str]:
    """Return the settings whose plasticity is `lost` or `kept` without an intervention."""
    return [
        name for name in setting_names() if loss_of_plasticity(name)["verdict"].startswith(verdict)
    ]


def settings_with_fallen_rank() -> list[str]:
    """Return the settings that lose plasticity and in which the rank moves as claimed."""
    return [
        name for name in settings_that("lost") if not loss_of_plasticity(name)["counterexample"]
    ]


def correlation_within_runs(setting: str) -> pd.Series:
    """Return the correlation of rank and gap within runs without an intervention."""
    return select_row(
        "associations",
        level="within_run",
        arm=NONE,
        outcome=GAP,
        measure=RANK,
        evaluation_point="next",
        setting=setting,
        block="all",
    )


def correlation_over_settings(measure: str, association: str = "within_run") -> pd.Series:
    """Return the meta-analysis over settings of a measure's correlation with the gap."""
    return select_row("consistency", measure=measure, outcome=GAP, association=association)


def significant_order(question: str) -> pd.DataFrame:
    """Return the settings with an adjusted p of at most 0.05 for a question of lead and lag."""
    rows = select_rows(
        "lead_lag",
        arm=NONE,
        outcome=GAP,
        measure=RANK,
        evaluation_point="next",
        block="all",
        question=question,
    )
    return rows[rows["p_adjusted"] <= SIGNIFICANCE]


def rank_at_evaluation_point(setting: str, evaluation_point: str) -> float:
    """Return the mean rank at the last measured task."""
    row = select_row(
        "measures",
        setting=setting,
        arm=NONE,
        measure=RANK,
        block="all",
        evaluation_point=evaluation_point,
        stage="late",
    )
    return float(row["mean"])


def compared_methods() -> list[str]:
    """Return the methods that were trained in the settings with all methods."""
    arms = select_rows("counterexamples", setting=SETTINGS_WITH_ALL_METHODS[0])["arm"]
    return sorted(set(arms) - {NONE, BASELINE})


def methods_that_keep_plasticity() -> list[str]:
    """Return the methods that keep plasticity in all settings with all methods."""

    def is_kept(setting: str, method: str) -> bool:
        return bool(loss_of_plasticity(setting, method)["verdict"].startswith("kept"))

    return [
        method
        for method in compared_methods()
        if all(is_kept(setting, method) for setting in SETTINGS_WITH_ALL_METHODS)
    ]


def hypothesis_verdicts(hypothesis: str) -> str:
    """Return how often each verdict on a declared hypothesis was found."""
    counts = select_rows("hypotheses", hypothesis=hypothesis)["verdict"].value_counts()
    first = [name for name in ("supported", "contradicted") if name in counts]
    others = [name for name in sorted(counts.index) if name not in first]
    listed = ", ".join(f"{name} in {counts[name]}" for name in [*first, *others])
    return f"{listed} of {counts.sum()} settings"


def selected_arms_at_grid_ends() -> str:
    """Return of how many methods the selected arm lies at an end of its grid."""
    criterion = table("tuning").query("stage == 'all' and outcome == 'final_error'")
    at_end = []
    for _, rows in criterion.groupby(["setting", "method"]):
        grid = pd.DataFrame([json.loads(text) for text in rows["hyperparameters"]], rows.index)
        selected = grid[rows["chosen"]].iloc[0]
        varied = [key for key in grid if grid[key].nunique() > 1]
        at_end.append(any(selected[key] in (grid[key].min(), grid[key].max()) for key in varied))
    return f"{sum(at_end)} of {len(at_end)}"


# Text


def format_number(value: float, digits: int = 2) -> str:
    """Format a number with a true minus sign."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def format_interval(row: pd.Series, digits: int = 2) -> str:
    """Format an estimate with its interval in brackets."""
    value, low, high = (format_number(row[key], digits) for key in ("estimate", "low", "high"))
    return f"{value} [{low}, {high}]"


def format_mean(row: pd.Series, name: str, digits: int) -> str:
    """Format a mean with the half width of its interval (Student's t, symmetric)."""
    half_width = row[f"{name}_high"] - row[name]
    return f"{row[name]:.{digits}f} ± {half_width:.{digits}f}"


def format_range(values: Iterable[float], digits: int = 2) -> str:
    """Format the smallest and the largest of some values."""
    values = list(values)
    return f"{format_number(min(values), digits)} to {format_number(max(values), digits)}"


def format_percent_range(shares: Iterable[float]) -> str:
    """Format the smallest and the largest of some shares in percent."""
    return f"{format_range([100 * share for share in shares], 0)} %"


def format_verdict(row: pd.Series) -> str:
    """Format whether plasticity is lost; a loss is bold."""
    verdict: str = row["verdict"].partition(",")[0]
    return f"**{verdict}**" if verdict == "lost" else verdict


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a table in which a number stays on one line with its interval."""
    lines = [f"| {' | '.join(map(str, cells))} |" for cells in [head, ["---"] * len(head), *rows]]
    breakable = r" (?=±|\[[−\d])|(?<=±) |(?<=\d,) (?=[−\d])"
    return re.sub(breakable, "\N{NO-BREAK SPACE}", "\n".join(lines))


def wrap_text(text: str) -> str:
    """Wrap paragraphs and lists; leave tables, titles and pictures as they are."""
    return "\n\n".join(_wrap_paragraph(part) for part in text.strip().split("\n\n")) + "\n"


def _wrap_paragraph(text: str) -> str:
    if text.startswith(("|", "#", "<")):
        return text
    if not text.startswith("- "):
        return _fill(text)
    items = re.split(r"\n(?=- )", text)
    return "\n".join(_fill(item, indent="  ") for item in items)


def _fill(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, COLUMNS, break_on_hyphens=False, break_long_words=False, subsequent_indent=indent
    )


# Tables of the page


def settings_table() -> str:
    """Return a row per setting: errors, verdict, ranks, and their correlation."""
    rows = []
    for name in setting_names():
        errors = select_row("summary", setting=name, arm=NONE)
        baseline = select_row("summary", setting=name, arm=BASELINE)
        correlation = correlation_within_runs(name)
        ranks = list(mean_ranks(name).values())
        rows.append(
            [
                f"`{name}`",
                format_number(errors["final_error_early"], 3),
                format_mean(errors, "final_error_late", 3),
                format_number(baseline["final_error_late"], 3),
                format_verdict(loss_of_plasticity(name)),
                f"{ranks[0]:.0f} → {ranks[1]:.0f} → {ranks[-1]:.0f}",
                "–" if np.isnan(correlation["estimate"]) else format_interval(correlation),
            ]
        )
    ranks_head = "rank at task 0 → 2 → 28"
    return markdown_table(
        ["setting", "early", "late", "baseline, late", "plasticity", ranks_head, "ρ within runs"],
        rows,
    )


def explanations_table() -> str:
    """Return a row per explanation: its correlations over settings, and its forecast."""
    rows = []
    for measure in (RANK, *OTHER_MEASURES):
        over_settings = correlation_over_settings(measure)
        beating = round(over_settings["beating"] * over_settings["settings"])
        forecast = select_row(
            "prediction", setting="all", outcome=GAP, measure=measure, statistic="auc_left_out"
        )
        rows.append(
            [
                measure.replace("_", " ").replace("fisher", "Fisher"),
                format_interval(over_settings),
                format_interval(correlation_over_settings(measure, "task")),
                f"{beating} of {over_settings['settings']}",
                format_interval(forecast),
            ]
        )
    head = ["measure", "ρ over settings", "ρ without the shared curve", "beats other seeds", "AUC"]
    return markdown_table(head, rows)


def curvature_table() -> str:
    """Return a row per measure of curvature: its correlation with the gap over settings."""
    rows = [
        [label, format_interval(correlation_over_settings(measure))]
        for measure, label in CURVATURE_MEASURES.items()
    ]
    return markdown_table(["measure", "ρ over settings"], rows)


def methods_table() -> str:
    """Return a row per method: late error and verdict in the settings with all methods."""
    rows = []
    for method in [NONE, *compared_methods()]:
        cells = []
        for setting in SETTINGS_WITH_ALL_METHODS:
            error = select_row("summary", setting=setting, arm=method)
            verdict = format_verdict(loss_of_plasticity(setting, method))
            cells.append(f"{format_mean(error, 'final_error_late', 3)}, {verdict}")
        rows.append([f"`{method}`", *cells])
    return markdown_table(["method", *(f"`{name}`" for name in SETTINGS_WITH_ALL_METHODS)], rows)


# Pages


def page() -> str:
    """Return docs/results/evidence.md."""
    lost, fallen = settings_that("lost"), settings_with_fallen_rank()
    changes = [loss_of_plasticity(name)["change"] for name in fallen]
    correlations = [correlation_within_runs(name)["estimate"] for name in lost]
    largest_loss = max(loss_of_plasticity(name)["loss"] for name in lost)
    baseline_ranks = [rank_at_evaluation_point(name, "fresh") for name in setting_names()]
    first_ranks = [mean_ranks(name)[0] for name in setting_names()]
    pairs, stationary = mean_ranks("imagenet_pairs_cnn"), mean_ranks("mnist_stationary_relu")
    added_measures = f"weight_norm + feature_rank + dead_fraction + {RANK}"
    added = select_row(
        "prediction", setting="all", outcome=GAP, measure=added_measures, statistic="added"
    )
    leads = [
        (row["setting"], format_interval(row, digits=1))
        for _, row in significant_order("change_point").iterrows()
    ]
    points = [
        f"in `{setting}` the rank changes {lead} tasks before the error" for setting, lead in leads
    ]
    run = published_run("evidence")
    return wrap_text(f"""# The first evidence

Plasticity is lost in {len(lost)} of {len(setting_names())} settings without an intervention. In
{len(fallen)} of these {len(lost)} the effective rank of the Fisher falls as well. The study does
not show that the rank explains the loss: most tests against a shared trend are undecided.

## Limits: read this first

This first evidence has three known weaknesses. (1) The baseline window of the rank, "early", is the
untrained network. The rank falls during the first task in every setting, also where plasticity is
kept. So a change from early to late mixes this first fall with the loss of plasticity. (2) The rank
is measured on 128 samples and cannot exceed 128. It starts at {format_range(first_ranks, 0)}, which
is close to this ceiling. (3) The training budgets are 0.6 to 3 % of the published ones. A better
study is being made.

Because of these weaknesses, this study supports no conclusion about the rank in settings that keep
plasticity, about the choice of the operator, about feature rank against the Fisher's rank, or about
L2 Init against the Wasserstein regularizer.

## What was run

- **Settings:** {len(setting_names())}, on MNIST, CIFAR-10 (first batch) and twenty ImageNet
classes. Each has 30 tasks.
- **Budget:** 0.6 to 3 % of the published training. `studies/evidence.yaml` was another file then:
  `git show 08e2288:studies/evidence.yaml`. The file of today is the better study, which still runs.
- **Arms:** no intervention, the baseline (a network initialised from scratch for every task), and
ten methods. Two seeds selected each method's arm. Ten *other* seeds report it.
- **Rank:** effective rank (0.99) of the Fisher of all layers, on 128 samples of the next task.
- **Early and late:** the first and the last three tasks. Brackets and ± are 95 % intervals.

The numbers come from [the tables](../evidence/tables), and a test compares them. The tests are
explained in [statistics.md](../statistics.md).

## Where is plasticity lost?

Plasticity counts as lost if the gap to the baseline grows by more than 0.05 and the 95 % interval
agrees. This holds in {len(lost)} of {len(setting_names())} settings. The largest growth is
{format_number(largest_loss)}. In the table, ρ is Spearman's correlation of rank and gap within
runs.

{settings_table()}

## Does the rank fall with plasticity?

- From task 0 to the last measured task the rank falls by {format_percent_range(changes)} in
{len(fallen)} of the {len(lost)} settings that lose plasticity. This includes the fall during the
first task.
- Within runs of the {len(lost)} settings, ρ of rank and gap is {format_range(correlations)}.
- The first fall alone is no loss of plasticity. In `imagenet_pairs_cnn` the rank goes from
{pairs[0]:.0f} to {pairs[2]:.0f} by task 2 and then rises to {pairs[28]:.0f}. In
`mnist_stationary_relu` it goes from {stationary[0]:.0f} to {stationary[2]:.0f} and then stays.
Both keep their plasticity.

## Is it more than a shared trend?

- Without the curve that all seeds share, ρ over all settings is
{format_interval(correlation_over_settings(RANK, "task"))}.
- The declared hypothesis was: a run's rank is correlated with its own error more than with the
error of another seed. It is {hypothesis_verdicts("rank")}.
- In most settings all seeds lose plasticity alike. Then no test over seeds can separate a cause
from a shared trend.
- The rank helps to predict later error in {len(significant_order("measure_first"))} of
{len(setting_names())} settings, and error helps to predict the later rank in
{len(significant_order("outcome_first"))} (Granger's test). Change points differ significantly in
{len(points)} of {len(setting_names())} settings: {"; ".join(points)}.

## How do other explanations compare?

{explanations_table()}

- **ρ over settings:** correlation with the gap within runs, a random-effects mean over settings.
- **Beats other seeds:** settings in which a run's own error is correlated with the measure more
than another seed's error is (either sign, p not adjusted).
- **AUC:** how well the measure ranks checkpoints by the gap to come; 0.5 is chance. The direction
comes from other settings. The Fisher's rank adds {format_interval(added, digits=3)} to weight
norm, feature rank and dead units.

The intervals are wide and overlap. This study does not order the explanations.

## Which measure of curvature?

{curvature_table()}

The intervals overlap, so this study cannot say whether the choice matters. The effective rank of
the Hessian is left out: it was estimated, and its error is too large.

## Data or parameters?

On the data of the last tasks, a network initialised from scratch has a rank of
{format_number(min(baseline_ranks), 0)} to {format_number(max(baseline_ranks), 0)} in all settings.
So the fall comes from the parameters. The rank also depends on whether the network already fits the
data. With permuted MNIST pixels it is
{format_number(rank_at_evaluation_point("mnist_pixels_relu", "previous"), 0)} on the previous task's
data and {format_number(rank_at_evaluation_point("mnist_pixels_relu", "next"), 0)} on the next
task's.

## Which methods keep plasticity?

Late error, and whether plasticity is lost:

{methods_table()}

{", ".join(f"`{method}`" for method in methods_that_keep_plasticity())} keep plasticity in all
three settings. The selected arm lies at an end of its grid for {selected_arms_at_grid_ends()}
methods, and two seeds selected it. So the order of methods may change with a larger grid.

Three methods have changed since these runs. `layer_norm` and `crelu` were compared with a plain
network from scratch; now each has a baseline of its own architecture. `crelu` had more parameters
than the others; now its layers are narrower. `continual_backprop` drew new weights from the
network's own initial distribution, not from He's uniform one (`new_weights: drawn`).

## What was not tested?

- The published budgets in full, and more than 30 tasks.
- Other widths, depths, step sizes and batch sizes; residual networks and transformers.
- ImageNet beyond 20 classes of Tiny-ImageNet at 32 × 32 pixels.
- A GPU.

Everything except the declared hypotheses is exploratory.

## Reproduce it

Write that file to `studies/first.yaml`. Then `make run STUDY=first` takes
{table("cost")["hours"].sum():.1f} hours of jobs, two at a time on {run["cores"]} cores. It was made
with torch {run["versions"]["torch"]} ([cost](../evidence/tables/cost.csv),
[versions](../evidence/made.json)).
See also the [figures](../evidence/figures) and the [tables](../evidence/tables). Two figures were
drawn again later: `curvature` also shows the entropy rank, and the early tasks of `learning` leave
out the first one.
""")


def readme_result() -> str:
    """Return the result in README.md, in four bullets."""
    lost, fallen = settings_that("lost"), settings_with_fallen_rank()
    correlations = [correlation_within_runs(name)["estimate"] for name in lost]
    rank, features = (taus_over_copies(name) for name in (RANK, "feature_rank"))
    return wrap_text(f"""- **Plasticity is lost in {len(lost)} of {len(setting_names())}
settings** without an intervention, and the effective rank of the Fisher falls in {len(fallen)} of
these {len(lost)}. Within runs their correlation is {format_range(correlations)}.
- **The rank is not shown to be the cause.** The declared test against a shared trend is
{hypothesis_verdicts("rank")}.
- **In an experiment a larger rank predicts a smaller error.** Among treated copies of a checkpoint
in the [default study](docs/results/digits.md), Kendall's τ of the rank and the error to come is
{format_range(rank)}. That of the feature rank is {format_range(features)}.
- **{len(methods_that_keep_plasticity())} of {len(compared_methods())} methods keep plasticity** in
all three MNIST settings where we compared them. See [the evidence](docs/results/evidence.md).

The evidence along runs is weak. Its baseline window includes the untrained network, its ranks are
close to the ceiling of 128 samples, and its budgets are 0.6 to 3 % of the published ones. A better
study is being made.
""")


def readme_costs() -> str:
    """Return the table of costs in README.md: jobs, time and disk of two studies."""
    studies = {"digits": "default study", "evidence": "evidence"}
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


def taus_over_copies(measure: str) -> list[float]:
    """Return τ of a measure and the final error in each setting of the default study."""
    taus = table("interventions", "digits")
    keys = {"measure": measure, "outcome": "final_error", "statistic": "tau", "task": "all"}
    for column, value in keys.items():
        taus = taus[taus[column] == value]
    return taus.loc[taus["setting"] != "all", "estimate"].tolist()


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
    return replace_parts(text, {"result": readme_result(), "costs": readme_costs()})


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
    DIGITS.write_text(update_digits(DIGITS.read_text()))
    README.write_text(update_readme(README.read_text()))
