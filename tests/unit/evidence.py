"""Draws docs/evidence.md, and what README says of it, from the tables in docs/evidence and docs/digits: python tests/unit/evidence.py."""

import functools
import json
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

DOCS = Path(__file__).parents[2] / "docs"
README = DOCS.parent / "README.md"
RANK, GAP, NONE, FRESH, SURE = "fisher_effective_rank", "final_error_gap", "none", "fresh", 0.05
RIVALS = ("feature_rank", "dead_fraction", "dormant_fraction", "weight_norm", "update_norm")
FULL = (
    "mnist_separable_relu",
    "mnist_labels_relu",
    "mnist_pixels_relu",
)  # settings that have every method


@functools.cache
def table(name: str, study: str = "evidence") -> pd.DataFrame:
    return pd.read_csv(next((DOCS / study).glob(f"*/{name}.csv*")))


def pick(name: str, **keys: object) -> pd.DataFrame:
    """The rows of a table that have these values."""
    found = table(name)
    for column, value in keys.items():
        found = found[found[column] == value]
    return found


def one(name: str, **keys: object) -> pd.Series:
    """The row of a table that has these values."""
    found = pick(name, **keys)
    assert len(found) == 1, (name, keys, len(found))
    return found.iloc[0]


def number(value: float, digits: int = 2) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def between(row: pd.Series, digits: int = 2) -> str:
    """An estimate with its interval."""
    value, low, high = (number(row[column], digits) for column in ("estimate", "low", "high"))
    return f"{value} [{low}, {high}]"


def about(row: pd.Series, name: str, digits: int) -> str:
    """A mean with its interval of Student's t, which reaches as far to either side."""
    return f"{row[name]:.{digits}f} ± {row[f'{name}_high'] - row[name]:.{digits}f}"


def span(values: Sequence[float], digits: int = 2, percent: bool = False) -> str:
    """From the least to the greatest."""
    ends = [
        f"{100 * value:.0f}" if percent else number(value, digits)
        for value in (min(values), max(values))
    ]
    return f"{ends[0]} to {ends[1]}" + " %" * percent


def drawn(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A table in Markdown, whose numbers stay on one line with their intervals."""
    rows = [f"| {' | '.join(map(str, line))} |" for line in [head, ["---"] * len(head), *lines]]
    return re.sub(
        r" (?=±|\[[−\d])|(?<=±) |(?<=\d,) (?=[−\d])", "\N{NO-BREAK SPACE}", "\n".join(rows)
    )


def settings(verdict: str = "", arm: str = NONE) -> list[str]:
    """The settings, or those where an arm's plasticity is lost, kept, or neither for sure."""
    return [
        name
        for name in table("settings")["setting"]
        if not verdict or judged(name, arm)["verdict"].startswith(verdict)
    ]


def judged(setting: str, arm: str = NONE, measure: str = RANK) -> pd.Series:
    """Loss of plasticity beside the relative fall of the rank."""
    return one("counterexamples", setting=setting, arm=arm, measure=measure)


def within(setting: str, block: str = "all") -> pd.Series:
    """How the rank goes with the gap to a fresh network within runs without an intervention."""
    keys = {
        "level": "within_run",
        "arm": NONE,
        "outcome": GAP,
        "measure": RANK,
        "evaluation_point": "next",
    }
    return one("associations", setting=setting, block=block, **keys)


def against(measure: str, side: str) -> tuple[int, int]:
    """Of arms that lose plasticity, or keep it, how many speak against a measure, and how many there are; without networks drawn anew."""
    found = pick("counterexamples", measure=measure)
    found = found[found["verdict"].str.startswith(side) & (found["arm"] != FRESH)]
    return int(found["counterexample"].sum()), len(found)


def where() -> str:
    """A row for each setting: errors, whether plasticity is lost, the rank, and how they go together."""
    lines = []
    for name in settings():
        errors, rho = one("summary", setting=name, arm=NONE), within(name)
        lines.append(
            [
                f"`{name}`",
                number(errors["final_error_early"], 3),
                about(errors, "final_error_late", 3),
                number(one("summary", setting=name, arm=FRESH)["final_error_late"], 3),
                kept_or_lost(judged(name)),
                f"{errors[f'{RANK}_early']:.0f} → {about(errors, f'{RANK}_late', 0)}",
                "–" if np.isnan(rho["estimate"]) else between(rho),
            ]
        )
    return drawn(
        [
            "setting",
            "early",
            "late",
            "fresh, late",
            "plasticity",
            "rank, first → late",
            "ρ within runs",
        ],
        lines,
    )


def explanations() -> str:
    """A row for each explanation: over settings, between methods, as a forecast, and its counter-examples."""
    lines = []
    for measure in (RANK, *RIVALS):
        over, shared = (
            one("consistency", measure=measure, outcome=GAP, association=how)
            for how in ("within_run", "task")
        )
        arms = pick("associations", level="between_arms", outcome=GAP, measure=measure)
        arms = arms[
            arms["setting"].isin(FULL[:2]) & (arms["evaluation_point"] != "previous")
        ].drop_duplicates("setting", keep="last")
        lost, kept = (against(measure, side) for side in ("lost", "kept"))
        lines.append(
            [
                measure.replace("fisher_effective_rank", "**Fisher effective rank**").replace(
                    "_", " "
                ),
                between(over),
                between(shared),
                f"{round(over['beating'] * over['settings'])} of {over['settings']}",
                ", ".join(number(value) for value in arms["estimate"]) or "–",
                between(
                    one(
                        "prediction",
                        setting="all",
                        outcome=GAP,
                        measure=measure,
                        statistic="auc_left_out",
                    )
                ),
                f"{lost[0]} of {lost[1]}, {kept[0]} of {kept[1]}" if lost[1] else "no claim",
            ]
        )
    head = [
        "measure",
        "ρ over settings",
        "less the shared curve",
        "beats other seeds",
        "between methods",
        "AUC",
    ]
    return drawn([*head, "against"], lines)


def over(measure: str) -> str:
    """A measure's correlation with the gap within runs, over all settings."""
    return between(one("consistency", measure=measure, outcome=GAP, association="within_run"))


def blocks() -> str:
    """Correlation within runs by part of the network, on average over the settings that lose plasticity."""
    found = []
    for name, block in {
        "all layers": "all",
        "the last two": "last_two",
        "the output layer": "output",
        "the first": "first",
    }.items():
        where = {
            one: block.replace("first", "conv_1" if one.endswith("cnn") else "hidden_1")
            for one in settings("lost")
        }
        rho = [within(*place)["estimate"] for place in where.items()]
        low, high = stats.t.interval(0.95, len(rho) - 1, np.mean(rho), stats.sem(rho))
        found.append(f"{name} {number(np.mean(rho))} [{number(low)}, {number(high)}]")
    return ", ".join(found)


def timing(question: str) -> pd.DataFrame:
    """The settings in which the rank, or the error, comes first (adjusted)."""
    found = pick(
        "lead_lag",
        arm=NONE,
        outcome=GAP,
        measure=RANK,
        evaluation_point="next",
        block="all",
        question=question,
    )
    return found[found["p_adjusted"] <= SURE]


def evaluation_point(setting: str, name: str) -> float:
    """The rank at the last measured task, on the ended task's data, the coming one's, or there of a network drawn anew."""
    found = one(
        "measures",
        setting=setting,
        arm=NONE,
        measure=RANK,
        block="all",
        evaluation_point=name,
        stage="late",
    )
    return float(found["mean"])


def arms() -> list[str]:
    """The methods that are compared in the settings of `FULL`."""
    return sorted(set(pick("counterexamples", setting=FULL[0])["arm"]) - {NONE, FRESH})


def methods() -> str:
    """A row for each method, a column for each setting that has all: late error, plasticity, and by how much the rank fell."""
    lines = []
    for arm in [NONE, *arms()]:
        cells = []
        for name in FULL:
            found, errors = judged(name, arm), one("summary", setting=name, arm=arm)
            cells.append(
                f"{about(errors, 'final_error_late', 3)}, {kept_or_lost(found)}, {fallen(found)}"
            )
        lines.append([f"`{arm}`", *cells])
    return drawn(["method", *(f"`{name}`" for name in FULL)], lines)


def kept_or_lost(row: pd.Series) -> str:
    verdict: str = row["verdict"].partition(",")[0]
    return f"**{verdict}**" if verdict == "lost" else verdict


def fallen(row: pd.Series) -> str:
    return f"−{100 * row['change']:.0f} %"


def verdicts(hypothesis: str) -> str:
    """How a declared hypothesis came out, in words."""
    found = pick("hypotheses", hypothesis=hypothesis)["verdict"].value_counts()
    said = [
        f"{verdict} in {found[verdict]}"
        for verdict in ("supported", "contradicted", "undecided")
        if verdict in found
    ]
    return f"{', '.join(said)} of {found.sum()} settings"


def at_an_end() -> str:
    """Of how many methods the tuned arm lies at an end of its grid."""
    chosen = table("tuning").query("stage == 'all' and outcome == 'final_error'")
    ends = []
    for _, found in chosen.groupby(["setting", "method"]):
        options = pd.DataFrame(
            [json.loads(text) for text in found["hyper_parameters"]], index=found.index
        )
        best = options[found["chosen"]].iloc[0]
        ends.append(
            any(
                options[key].nunique() > 1 and best[key] in (options[key].min(), options[key].max())
                for key in options
            )
        )
    return f"{sum(ends)} of {len(ends)}"


def made(study: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / study / "made.json").read_text())
    return found


def falls(verdict: str, counter: bool) -> list[str]:
    """Settings that lose, or keep, plasticity without an intervention, and speak against the rank or not."""
    return [name for name in settings(verdict) if bool(judged(name)["counterexample"]) is counter]


def page() -> str:
    lost = settings("lost")
    fell, stayed = falls("lost", False), falls("lost", True)
    declared = {name: verdicts(name) for name in ("rank", "wasserstein", "wasserstein-l2-init")}
    keep = [
        arm
        for arm in arms()
        if all(judged(name, arm)["verdict"].startswith("kept") for name in FULL)
    ]
    least = min(1 - judged(name, arm)["change"] for arm in keep for name in FULL)
    still = pick("counterexamples", measure=RANK, verdict="lost, and the measure is still").query(
        "arm != 'none'"
    )
    points = [
        f"on `{row['setting']}` the rank's is {between(row, digits=1)} tasks ahead"
        for _, row in timing("change_point").iterrows()
    ]
    versus = {
        "arm": "wasserstein",
        "versus": "l2_init",
        "outcome": "final_error",
        "stage": "late",
        "statistic": "mean_difference",
    }
    above = [between(one("comparisons", setting=name, **versus)) for name in FULL[:2]]
    beside = f"weight_norm + feature_rank + dead_fraction + {RANK}"
    adds = one("prediction", setting="all", outcome=GAP, measure=beside, statistic="added")
    (entropy, losing), (without, keeping) = (
        against("fisher_entropy_rank", side) for side in ("lost", "kept")
    )
    return flowed(f"""# The evidence

Fourteen settings on MNIST, CIFAR-10 (its first batch) and twenty ImageNet classes, 30 tasks each,
at 0.6 to 3 % of the borrowed protocols' training ([each one's share](../studies/evidence.yaml)):
no intervention, a fresh network per task, and ten methods, whose arms 2 seeds chose and 10 *others* report.
Rank: effective rank (0.99) of the Fisher of all layers on 128 images of the coming task. Early, late: first and last three tasks;
brackets and ±: 95 % intervals. Drawn from [the tables](evidence/tables), to which a test holds it; [how all is tested](statistics.md).

**Is plasticity lost, and where?** In {len(lost)} of {len(settings())} settings the gap to a fresh network surely grows by more than 0.05,
by up to {number(max(judged(name)["loss"] for name in lost))}
(rank: before any training → at the last measured task; ρ: Spearman's, of rank and gap within runs):

{where()}

**Does the rank go with it?** Where plasticity is lost, yes:
the rank falls by {span([judged(name)["change"] for name in fell], percent=True)} in {len(fell)} of the {len(lost)} settings,
with ρ within their runs of {span([within(name)["estimate"] for name in lost])}.
**Beyond a shared trend?** Hardly: deviations from the curve that all seeds share leave
ρ = {between(one("consistency", measure=RANK, outcome=GAP, association="task"))} over all settings.
What was declared before, that a run's rank goes with its own error more than with another seed's, is {declared["rank"]}.
Where all seeds lose plasticity alike, as in most settings here, no test over seeds can tell a cause from a shared trend.
**Before it?** Not shown: the rank helps to predict the error to come in {len(timing("measure_first"))} of {len(settings())} settings,
the error the rank in {len(timing("outcome_first"))} (Granger); their change points surely differ in {len(points)}: {", ".join(points)}.

**Better than the other explanations?**

{explanations()}

No. Feature rank does as well or better by every column;
between methods (ρ over 12 arms on MNIST labels, and on separable MNIST), dead and dormant units do, too.
Beats other seeds: a run's own error goes with it more than with another seed's (in whichever direction, unadjusted).
AUC: of ranking checkpoints by the gap to come, the direction taken from other settings;
all are near chance or beyond it the wrong way, and the Fisher's rank adds {between(adds, digits=3)}
to that of weight norm, feature rank and dead units.
Against: arms that lose plasticity while the measure surely moves by less than a fifth, and that keep it while it surely moves by more.

**Which operator, which rank, which block?** It hardly matters; all intervals overlap.
ρ over all settings of the effective rank: Fisher {over(RANK)}, Gauss–Newton {over("ggn_effective_rank")},
NTK {over("ntk_effective_rank")}, Hessian (estimated) {over("hessian_effective_rank")};
of the Fisher's entropy rank {over("fisher_entropy_rank")}, stable rank {over("fisher_stable_rank")}, trace {over("fisher_trace")}.
The entropy rank moves with every loss ({entropy} of {losing} against), but in {without} of {keeping} arms without one.
Blocks, mean of the {len(lost)} settings: {blocks()}.

**Data or parameters?** Parameters: a network drawn anew has rank {span([evaluation_point(name, "fresh") for name in settings()], 0)}
on the last tasks' data. But rank also tells whether data are fitted already:
with permuted MNIST pixels it is {number(evaluation_point("mnist_pixels_relu", "old"), 0)} on the ended task's data
and {number(evaluation_point("mnist_pixels_relu", "new"), 0)} on the coming one's.
In the two controls the coming data are the ended ones, fitted to an error of 0, and the rank is low.

**Which methods keep both?** Late error, whether plasticity is lost, fall of the rank:

{methods()}

{", ".join(f"`{arm}`" for arm in keep)} keep plasticity in all three, and at least {100 * least:.0f} % of the rank
(`crelu` has more parameters). That the paper's Wasserstein regularizer has a lower late error
than no intervention is {declared["wasserstein"]}; than L2-init, {declared["wasserstein-l2-init"]},
where it is {" and ".join(above)} *above*.

**Where does the explanation fail?** The rank falls and nothing is lost:
{", ".join(f"`{name}` ({fallen(judged(name))})" for name in falls("kept", True))}. Plasticity is lost and the rank is still:
{", ".join(f"`{name}` ({fallen(judged(name))})" for name in stayed)} without an intervention;
{", ".join(f"`{row['arm']}` on `{row['setting']}`" for _, row in still.sort_values(["arm", "setting"]).iterrows())}.

**What was not tested?** The borrowed budgets in full, and more than 30 tasks; other widths, depths, step and batch sizes;
residual networks and transformers; ImageNet beyond 20 classes of Tiny-ImageNet at 32 × 32. No GPU was at hand.
Of {at_an_end()} tuned methods the arm lies at an end of its grid, and 2 seeds chose it: the order of methods may change.
All but the declared hypotheses is exploratory.

**How was it made?** `make run ARGS="--configfile studies/evidence.yaml"`,
torch {made("evidence")["versions"]["torch"]}, {made("evidence")["cores"]} cores:
{table("cost")["hours"].sum():.1f} hours of jobs, two at a time ([cost](evidence/tables/cost.csv), [versions](evidence/made.json)).
[Figures](evidence/figures), [sentences](evidence/tables/statements.csv).
""")


def result() -> str:
    """What README says came out."""
    lost, kept = settings("lost"), settings("kept")
    fell, too = (
        [judged(name)["change"] for name in falls(*which)]
        for which in (("lost", False), ("kept", True))
    )
    still, losing = against(RANK, "lost")
    return flowed(f"""**Without an intervention plasticity is lost in {len(lost)} of {len(settings())} settings on real images,
and in {len(fell)} of these the effective rank of the Fisher falls, by {span(fell, percent=True)}.**
But it falls in {len(too)} of the {len(kept)} settings that keep their plasticity, too (by {span(too, percent=True)}),
it is still while {still} of {losing} arms lose theirs, and that a run's rank goes with its own error more than with another seed's,
as was declared before, is {verdicts("rank")}.
Feature rank explains as much (ρ with the gap to a fresh network, over settings, {over("feature_rank")}; Fisher's {over(RANK)}),
nothing shows that the rank moves first, and it hardly matters which curvature is taken.

<img src="docs/evidence/figures/scatter.png" width="560" alt="Scatter of rank at a task's start and error at its end, 14 settings">

A point per seed and task, no intervention; ρ: of rank and error within runs; beneath it the strongest [null](docs/statistics.md)
that it beats. All answers, with intervals, counter-examples and what was not tested: [docs/evidence.md](docs/evidence.md).
Budgets are 0.6 to 3 % of the borrowed ones.
""")


def costs() -> str:
    """What the default study and the evidence took: jobs, time and disk."""
    studies = {"digits": "the default study", "evidence": "the evidence"}
    stages = {"tune": "choosing arms", "train": "training", "curvature": "curvature"}
    lines: dict[str, list[str]] = {name: [] for name in (*stages.values(), "all else", "on disk")}
    for study in studies:
        cost, disk = table("cost", study).set_index("stage"), made(study)["MB"]
        for stage, name in stages.items():
            lines[name].append(spent(cost.loc[[stage]]) if stage in cost.index else "–")
        lines["all else"].append(spent(cost.drop(stages, errors="ignore")))
        lines["on disk"].append(
            f"{sum(disk.values()) / 1000:.2f} GB, of it {disk['runs'] / 1000:.2f} checkpoints and spectra"
        )
    whole = {name: 30 * table("cost", study)["hours"].sum() for study, name in studies.items()}
    said = " and ".join(f"{name} {minutes:.0f} minutes" for name, minutes in whole.items())
    rows = [[name, *cells] for name, cells in lines.items()]
    return flowed(f"""{drawn(["", *studies.values()], rows)}

Measured on two cores of a cloud machine without a GPU, two jobs at a time: {said}, figures and report not counted.
""")


def spent(cost: pd.DataFrame) -> str:
    """Jobs, their hours and the longest."""
    return f"{cost['jobs'].sum()} jobs, {60 * cost['hours'].sum():.1f} min (the longest {cost['longest seconds'].max() / 60:.1f})"


def flowed(text: str) -> str:
    """Paragraphs as wide as all documents here; tables, titles and pictures as they are."""
    whole = [
        one if one.startswith(("|", "#", "<")) else textwrap.fill(one, 180, break_on_hyphens=False)
        for one in text.split("\n\n")
    ]
    return "\n\n".join(whole) + "\n"


def within_readme(text: str) -> str:
    """README with the parts that are drawn."""
    for name, part in {"result": result(), "costs": costs()}.items():
        start, end = f"<!-- {name}: tests/unit/evidence.py -->\n", f"<!-- end of {name} -->"
        assert text.count(start) == text.count(end) == 1, name
        text = text.partition(start)[0] + start + part + end + text.partition(end)[2]
    return text


if __name__ == "__main__":
    (DOCS / "evidence.md").write_text(page())
    README.write_text(within_readme(README.read_text()))
