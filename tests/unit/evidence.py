"""The page docs/evidence.md, and what README says of its result, drawn from docs/evidence: python tests/unit/evidence.py > docs/evidence.md."""

import functools
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from plasticity import publishing, statistics

FOLDER = Path(__file__).parents[2] / "docs/evidence"
RANK, GAP, NONE = "fisher_effective_rank", "final_error_gap", "none"
RANKS = ("fisher_effective_rank", "ggn_effective_rank", "ntk_effective_rank", "hessian_effective_rank")
OTHERS = ("fisher_entropy_rank", "fisher_stable_rank", "fisher_trace", "fisher_top_eigenvalue", "fisher_gradient_overlap")
RIVALS = ("feature_rank", "dead_fraction", "dormant_fraction", "weight_norm", "update_norm")
SURE = 0.05


@functools.cache
def table(name: str) -> pd.DataFrame:
    return statistics.read_table(publishing.place(FOLDER, name))


def pick(name: str, **keys: object) -> pd.DataFrame:
    """The rows of a table that have these values."""
    found = table(name)
    for column, value in keys.items():
        found = found[found[column] == value]
    return found


def one(name: str, **keys: object) -> pd.Series:
    """The row of a table that has these values; NaN where there is none."""
    found = pick(name, **keys)
    assert len(found) < 2, (name, keys)
    return found.iloc[0] if len(found) else pd.Series(index=found.columns, dtype=float)


def signed(value: float, digits: int = 2) -> str:
    return "–" if pd.isna(value) else f"{value:.{digits}f}".replace("-", "−")


def between(row: pd.Series, name: str = "", digits: int = 2) -> str:
    """An estimate with its interval."""
    value, low, high = (row[column] for column in ([name, f"{name}_low", f"{name}_high"] if name else ["estimate", "low", "high"]))
    return signed(value, digits) + (f" [{signed(low, digits)}, {signed(high, digits)}]" if pd.notna(low) else "")


def drawn(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in [head, ["---"] * len(head), *lines])


def settings() -> list[str]:
    return list(dict.fromkeys(table("summary")["setting"]))


def verdict(setting: str, arm: str = NONE) -> str:
    """Whether an arm loses plasticity: lost, kept or unclear."""
    found: str = pick("counterexamples", setting=setting, arm=arm)["verdict"].iloc[0].partition(",")[0]
    return found


def within(setting: str, measure: str = RANK, moment: str = "new", block: str = "all") -> pd.Series:
    """The correlation of a measure with the gap to a fresh network, within runs without an intervention."""
    return one("associations", setting=setting, level="within_run", arm=NONE, outcome=GAP, measure=measure, moment=moment, block=block)


def where_lost() -> str:
    """A row for each setting: errors, whether plasticity is lost, the rank, and how they go together."""
    lines = []
    for setting in settings():
        errors, went = one("summary", setting=setting, arm=NONE), within(setting)
        lines.append(
            [
                f"`{setting}`",
                signed(errors["final_error_early"], 3),
                between(errors, "final_error_late", 3),
                signed(one("summary", setting=setting, arm="fresh")["final_error_late"], 3),
                f"**{verdict(setting)}**" if verdict(setting) == "lost" else verdict(setting),
                f"{signed(errors[f'{RANK}_early'], 1)} → {between(errors, f'{RANK}_late', 1)}",
                between(went),
                went["strongest_null"],
            ]
        )
    return drawn(
        ["setting", "error early", "error late", "fresh, late", "plasticity", "Fisher rank, early → late", "ρ within runs", "beats"], lines
    )


def which_explains(measures: Sequence[str]) -> str:
    """A row for each measure: over settings, as a forecast, first or not, and its counter-examples."""
    lines = []
    for measure in measures:
        over = one("consistency", measure=measure, outcome=GAP, association="within_run")
        shared = one("consistency", measure=measure, outcome=GAP, association="task")
        ranked = one("prediction", setting="all", outcome=GAP, measure=measure, statistic="auc_left_out")
        first, second = (
            pick("lead_lag", arm=NONE, outcome=GAP, measure=measure, question=question).dropna(subset="p_adjusted")
            for question in ("measure_first", "outcome_first")
        )
        found = pick("counterexamples", measure=measure)
        lost, kept = (found[found["verdict"].str.startswith(side)] for side in ("lost", "kept"))
        lines.append(
            [
                measure.replace("_", " "),
                between(over),
                between(shared),
                f"{round(over['beating'] * over['settings'])} of {over['settings']:.0f}" if over["settings"] else "–",
                between(ranked),
                f"{(first['p_adjusted'] <= SURE).sum()}, {(second['p_adjusted'] <= SURE).sum()} of {len(first)}",
                f"{lost['verdict'].str.endswith('as claimed').sum()}, {lost['counterexample'].sum()} of {len(lost)}" if len(found) else "–",
                f"{kept['counterexample'].sum()} of {len(kept)}" if len(found) else "–",
            ]
        )
    head = [
        "measure",
        "ρ over settings",
        "less the shared curve",
        "beats mismatched seeds",
        "AUC",
        "first, second",
        "lost: as claimed, against",
        "kept: against",
    ]
    return drawn(head, lines)


def methods() -> str:
    """A row for each method: in how many of its settings it keeps what."""
    arms = [arm for arm in dict.fromkeys(table("summary")["arm"]) if arm not in (NONE, "fresh")]
    lines = []
    for arm in arms:
        found = pick("counterexamples", arm=arm, measure=RANK)
        keeps, holds = found["verdict"].str.startswith("kept"), ~(found["change_low"] > 0)
        lines.append([f"`{arm}`", len(found), keeps.sum(), holds.sum(), (keeps & holds).sum()])
    return drawn(["method", "settings", "keeps plasticity", "keeps the rank", "both"], lines)


if __name__ == "__main__":
    print(where_lost(), which_explains(RANKS + OTHERS + RIVALS), methods(), sep="\n\n")
