"""A page to look at a study's datasets: choices on the left, curves, their scatter and spectra beside them, all by Panel and hvPlot."""

from collections.abc import Mapping, Sequence
from typing import Any

import hvplot.pandas  # noqa: F401 - gives tables their `hvplot`
import pandas as pd
import panel as pn
import xarray as xr

from plasticity.report import panels
from plasticity.report.style import Style
from plasticity.statistics.summaries import with_gaps
from plasticity.training.outcomes import LOWER_IS_BETTER

WIDTH = 240  # of a choice
SIZE = {"width": 540, "height": 360, "grid": True, "legend": "bottom"}


def serve(study: str, datasets: Mapping[str, xr.Dataset], style: Style, port: int) -> None:
    """Serve the page on this machine alone, until the process ends."""
    pn.serve(
        lambda: page(study, datasets, style),
        port=port,
        address="localhost",
        show=False,
        title=f"Study {study}",
    )


def page(study: str, datasets: Mapping[str, xr.Dataset], style: Style) -> pn.Column:
    """The page. What is chosen in one setting stays chosen in the next, where that has it."""
    setting = pn.widgets.Select(name="setting", options=list(datasets), width=WIDTH)
    kept: dict[str, Any] = {
        "arms": list(panels.REFERENCES),
        "measure": "fisher_effective_rank",
        "evaluation_point": "next",
        "block": "all",
    }

    def of_setting(name: str) -> pn.Row:
        """The choices that a setting has, and the figures of what is chosen."""
        data = datasets[name]
        arms = [str(arm) for arm in data.arm.values]
        several = pn.widgets.MultiChoice(
            name="arms",
            options=arms,
            value=[arm for arm in kept["arms"] if arm in arms] or arms[:1],
            width=WIDTH,
        )
        options: dict[str, list[Any]] = {"measure": measures_of(data), "outcome": outcomes_of(data)}
        options |= {
            place: data[place].values.tolist() for place in ("evaluation_point", "block", "task")
        }
        choices: dict[str, Any] = {"arms": several} | {
            what: pn.widgets.Select(
                name=what,
                options=of,
                value=kept[what] if kept.get(what) in of else of[0],
                width=WIDTH,
            )
            for what, of in options.items()
        }

        def shown(**chosen: Any) -> pn.Column:
            kept.update(chosen)
            return view(data, style, **chosen)

        return pn.Row(pn.Column(*choices.values()), pn.bind(shown, **choices))

    return pn.Column(f"## Study {study}", setting, pn.bind(of_setting, setting))


def view(
    data: xr.Dataset,
    style: Style,
    arms: Sequence[str],
    measure: str,
    outcome: str,
    evaluation_point: str,
    block: str,
    task: int,
) -> pn.Column:
    """Curves, their scatter, and spectra at a task."""
    if not arms:
        return pn.Column(pn.pane.Markdown("Choose an arm."))
    both = table(data, measure, outcome, arms, evaluation_point, block)
    means = both.groupby(["arm", "task"], sort=False)[[measure, outcome]].mean().reset_index()
    operator = measure.partition("_")[0]
    found = spectra(
        data,
        operator if operator in panels.OPERATORS else panels.main_operator({"": data}),
        arms,
        task,
        evaluation_point,
        block,
    )
    look = SIZE | {"color": [style.of_arm(arm)["color"] for arm in arms]}
    curves = [
        means.dropna(subset=quantity).hvplot.line(
            x="task", y=quantity, by="arm", title="mean over seeds", **look
        )
        for quantity in (outcome, measure)
    ]
    scatter = both.dropna().hvplot.scatter(
        x=measure, y=outcome, by="arm", title="every seed and task", size=12, alpha=0.6, **look
    )
    if not len(found):
        return pn.Column(
            pn.Row(*curves),
            pn.Row(scatter, pn.pane.Markdown("No eigenvalues were kept for this choice.")),
        )
    title = f"eigenvalues at task {task}, mean over seeds"
    spectrum = found.hvplot.line(
        x="index", y="eigenvalue", by="arm", title=title, logx=True, logy=True, **look
    )
    return pn.Column(pn.Row(*curves), pn.Row(scatter, spectrum))


def measures_of(data: xr.Dataset) -> list[str]:
    """Names of the measures: a number per run, task and block."""
    return [
        str(name)
        for name, values in data.items()
        if "block" in values.dims and not {"rank", "grid"} & set(values.dims)
    ]


def outcomes_of(data: xr.Dataset) -> list[str]:
    """Names of the outcomes, with their gaps to a fresh network."""
    return [name for one in LOWER_IS_BETTER if one in data for name in (one, f"{one}_gap")]


def table(
    data: xr.Dataset,
    measure: str,
    outcome: str,
    arms: Sequence[str],
    evaluation_point: str,
    block: str,
) -> pd.DataFrame:
    """A measure at tasks' starts beside an outcome of the same tasks: one row per arm, seed and task."""
    place = {"arm": list(arms), "block": block} | (
        {"evaluation_point": evaluation_point} if "evaluation_point" in data[measure].dims else {}
    )
    both = xr.Dataset(
        {measure: data[measure].sel(place), outcome: with_gaps(data)[outcome].sel(arm=list(arms))}
    )
    return (
        both.reset_coords(drop=True).to_dataframe(dim_order=["arm", "seed", "task"]).reset_index()
    )


def spectra(
    data: xr.Dataset,
    operator: str,
    arms: Sequence[str],
    task: int,
    evaluation_point: str,
    block: str,
) -> pd.DataFrame:
    """Positive eigenvalues, means over seeds: one row per arm and ``index``, from 1; none where none were kept."""
    name = f"{operator}_eigenvalue"
    if name not in data:
        return pd.DataFrame({"arm": [], "index": [], "eigenvalue": []})
    values = (
        data[name]
        .sel(arm=list(arms), task=task, evaluation_point=evaluation_point, block=block)
        .mean("seed")
        .rename("eigenvalue")
    )
    found = (
        values.reset_coords(drop=True)
        .to_dataframe()
        .reset_index()
        .rename(columns={"rank": "index"})
    )
    return found[found["eigenvalue"] > 0].assign(index=lambda rows: rows["index"] + 1)
