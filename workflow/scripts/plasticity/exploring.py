"""A page to look at a study's datasets: choices on the left, curves, their scatter and spectra beside them, all by Panel and hvPlot."""

from collections.abc import Mapping, Sequence

import hvplot.pandas  # noqa: F401 - gives tables their `hvplot`
import pandas as pd
import panel as pn
import xarray as xr

from plasticity import drawing
from plasticity.outcomes import LOWER_IS_BETTER
from plasticity.statistics.summaries import with_gaps
from plasticity.style import Style

SIZE = {"width": 540, "height": 360, "grid": True, "legend": "bottom"}


def serve(study: str, datasets: Mapping[str, xr.Dataset], style: Style, port: int) -> None:
    """Serve the page on this machine alone, until the process ends."""
    pn.serve(lambda: page(study, datasets, style), port=port, address="localhost", show=False, title=f"Study {study}")


def page(study: str, datasets: Mapping[str, xr.Dataset], style: Style) -> pn.Row:
    """The page. What is chosen in one setting stays chosen in the next, where that has it."""
    setting = pn.widgets.Select(name="setting", options=list(datasets))
    arms = pn.widgets.MultiChoice(name="arms")
    names = ("measure", "outcome", "moment", "block", "spectrum at task")
    measure, outcome, moment, block, task = (pn.widgets.Select(name=name) for name in names)

    def offer(name: str) -> None:
        """What the setting has."""
        data = datasets[name]
        options = [str(arm) for arm in data.arm.values]
        arms.param.update(options=options, value=[arm for arm in arms.value or drawing.REFERENCES if arm in options])
        _offer(measure, measures_of(data), "fisher_effective_rank")
        _offer(outcome, outcomes_of(data), "final_error")
        _offer(moment, [str(one) for one in data.moment.values], "new")
        _offer(block, [str(one) for one in data.block.values], "all")
        _offer(task, [int(one) for one in data.task.values], 0)

    def view(name: str, arms: Sequence[str], measure: str, outcome: str, moment: str, block: str, task: int) -> pn.Column:
        """The figures of what is chosen."""
        both = table(datasets[name], measure, outcome, arms, moment, block)
        means = both.groupby(["arm", "task"], sort=False)[[measure, outcome]].mean().reset_index()
        operator = measure.partition("_")[0]
        found = spectra(datasets[name], operator if operator in drawing.OPERATORS else "fisher", arms, task, moment, block)
        look = SIZE | {"color": [style.of_arm(arm)["color"] for arm in dict.fromkeys(both["arm"])]}
        curves = [
            means.dropna(subset=quantity).hvplot.line(x="task", y=quantity, by="arm", title="mean over seeds", **look)
            for quantity in (outcome, measure)
        ]
        scatter = both.dropna().hvplot.scatter(x=measure, y=outcome, by="arm", title="every seed and task", size=12, alpha=0.6, **look)
        title = f"eigenvalues at task {task}, mean over seeds"
        spectrum = found.hvplot.line(x="index", y="eigenvalue", by="arm", title=title, logx=True, logy=True, **look)
        nothing = pn.pane.Markdown("No eigenvalues were kept for this choice.")
        return pn.Column(pn.Row(*curves), pn.Row(scatter, spectrum if len(found) else nothing))

    pn.bind(offer, setting, watch=True)
    offer(setting.value)
    choices = (setting, arms, measure, outcome, moment, block, task)
    for choice in choices:
        choice.width = 240
    return pn.Row(pn.Column(f"## Study {study}", *choices, width=270), pn.bind(view, *choices))


def _offer(widget: pn.widgets.Select, options: list[str] | list[int], first: object) -> None:
    """Give a widget its options, and keep what was chosen where it still can be."""
    wanted = next((one for one in (widget.value, first) if one in options), options[0])
    widget.param.update(options=options, value=wanted)


def measures_of(data: xr.Dataset) -> list[str]:
    """Names of the measures: a number per member, task and block."""
    return [str(name) for name, values in data.items() if "block" in values.dims and not {"rank", "grid"} & set(values.dims)]


def outcomes_of(data: xr.Dataset) -> list[str]:
    """Names of the outcomes, with their gaps to a fresh network."""
    return [name for one in LOWER_IS_BETTER if one in data for name in (one, f"{one}_gap")]


def table(data: xr.Dataset, measure: str, outcome: str, arms: Sequence[str], moment: str, block: str) -> pd.DataFrame:
    """A measure at tasks' starts beside an outcome of the same tasks: one row per arm, seed and task."""
    place = {"arm": list(arms), "block": block} | ({"moment": moment} if "moment" in data[measure].dims else {})
    both = xr.Dataset({measure: data[measure].sel(place), outcome: with_gaps(data)[outcome].sel(arm=list(arms))})
    return both.reset_coords(drop=True).to_dataframe(dim_order=["arm", "seed", "task"]).reset_index()


def spectra(data: xr.Dataset, operator: str, arms: Sequence[str], task: int, moment: str, block: str) -> pd.DataFrame:
    """Positive eigenvalues, means over seeds: one row per arm and ``index``, from 1; none where none were kept."""
    name = f"{operator}_eigenvalue"
    if name not in data:
        return pd.DataFrame({"arm": [], "index": [], "eigenvalue": []})
    values = data[name].sel(arm=list(arms), task=task, moment=moment, block=block).mean("seed").rename("eigenvalue")
    found = values.reset_coords(drop=True).to_dataframe().reset_index().rename(columns={"rank": "index"})
    return found[found["eigenvalue"] > 0].assign(index=lambda rows: rows["index"] + 1)
