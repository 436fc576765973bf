"""Write docs/results/drawn.md from the published tables of the drawn settings.

Usage: python tests/unit/drawn.py
"""

import pandas as pd
from pages import DOCS, NO_TEST, format_interval, wrap_text

from plasticity.config.quantities import one_line_name

PAGE = DOCS / "results" / "drawn.md"
TABLES = DOCS / "drawn"
PRIMARY = "fisher_effective_rank"
SIGNIFICANT = 0.05
# Its correlation is clearly larger than the rank's, but not with the change since the mean over
# early tasks: the difference was 0.22 [−0.05, 0.51] then.
DEPENDS_ON_WINDOW = ("feature_rank",)
OTHERS = ("fisher_trace", "fisher_top_eigenvalue", "update_norm")  # measures without a claimed sign


def agreement() -> pd.DataFrame:
    """Return what tables say about each explanation, by measure."""
    return pd.read_csv(TABLES / "explanations.csv").set_index("measure")


def shown() -> list[str]:
    """Name the measures of the page: all explanations, then some without a claim."""
    return [*agreement().index, *OTHERS]


def correlations() -> pd.DataFrame:
    """Return the correlations over settings, by measure."""
    table = pd.read_csv(TABLES / "population.csv")
    rows = table[(table["statistic"] == "spearman") & table["measure"].isin(shown())]
    return rows.set_index("measure").loc[shown()]


def differences() -> pd.DataFrame:
    """Return the differences of the sizes of two correlations: of a measure and of the rank."""
    table = pd.read_csv(TABLES / "population.csv")
    rows = table[(table["statistic"] == "size_of_spearman") & (table["versus"] == PRIMARY)]
    return rows.set_index("measure")


def verdicts() -> dict[str, int]:
    """Count the settings that lose plasticity without an intervention, and that keep it."""
    table = pd.read_csv(TABLES / "counterexamples.csv")
    rows = table[(table["arm"] == "none") & (table["measure"] == PRIMARY)]
    counts = rows["verdict"].str.split(",").str[0].value_counts()
    return {name: int(counts.get(name, 0)) for name in ("lost", "kept", "unclear")}


def clearly_different(sign: int) -> str:
    """Name the explanations whose correlation is larger (sign 1) or smaller (−1) than the rank's.

    What depends on the window does not count. Measures without a claimed sign do not count either:
    the trace has no correlation if the untrained network counts.
    """
    names = agreement().index.difference(DEPENDS_ON_WINDOW)
    rows = differences().loc[lambda table: table.index.isin(names)]
    is_different = (sign * rows["low"] > 0) & (sign * rows["high"] > 0)
    return ", ".join(one_line_name(str(name)) for name in rows.index[is_different]) or "none"


def headline() -> str:
    """Answer the question."""
    primary = correlations().loc[PRIMARY]
    is_found = primary["p_adjusted"] <= SIGNIFICANT and primary["estimate"] < 0
    verdict = "Yes" if is_found else "This is not shown"
    counts = verdicts()
    auc = format_interval(agreement().loc[PRIMARY], "auc")
    return wrap_text(f"""{verdict}. Over 60 settings, Spearman's correlation of the two changes is
{format_interval(primary)} for the effective rank of the Fisher. Explanations whose correlation is
clearly larger in each window: {clearly_different(1)}. Clearly smaller: {clearly_different(-1)}. But
only {counts["lost"]} of these settings lose plasticity. The change of the rank tells them from the
{counts["kept"]} that keep it with AUC {auc}. Several other measures do so as well.""")


def page() -> str:
    """Write the page."""
    counts = verdicts()
    rows = []
    for measure, row in correlations().iterrows():
        versus = NO_TEST if measure == PRIMARY else format_interval(differences().loc[measure])
        auc = NO_TEST
        if measure in agreement().index:
            auc = format_interval(agreement().loc[measure], "auc")
        rows.append(
            f"| {one_line_name(str(measure))} | {format_interval(row)} | {row['p_adjusted']:.2g} |"
            f" {versus} | {auc} |"
        )
    table = "\n".join(rows)
    heading = (
        "| measure | ρ of its change and the growth of the gap | adjusted p |"
        " size of ρ minus that of the effective rank | AUC: lost or kept |"
    )
    return f"""# Sixty drawn settings

Do settings whose curvature falls more also lose more plasticity?

{headline()}
{heading}
| --- | --- | --- | --- | --- |
{table}

![Error and rank where plasticity is lost and where it is kept](../drawn/summary.png)

- **Settings:** 60, drawn at random from a declared distribution
  ([`studies/draw.py`](../../studies/draw.py)) of shifts, activations, depths, widths, optimizers
  and step sizes. None was selected by its result. Plasticity is lost in {counts["lost"]}, kept in
  {counts["kept"]}, and unclear in {counts["unclear"]}.
- **Change:** from the first trained network to late tasks. Each setting is one point, the mean over
  five seeds. Brackets are 95 % intervals over settings.
- **Other windows** were tried once, by no command of this repository: the change since the
  untrained network, since the mean over early tasks, and since tasks 2 and 5. The correlations of
  the three ranks stay weak, and that of saturated units stays larger. That of the feature rank is
  not clearly larger since early tasks, and the trace has none since the untrained network.
- **Limits:** all settings use scikit-learn's digits, 16 tasks and 150 steps per task. The rank of
  the Fisher is limited by 96 images.
- **Reproduce it:** `make run STUDY=drawn`. [The tables](../drawn) are `population`,
  `counterexamples` and `explanations`.
"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
