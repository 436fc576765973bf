"""Serve a page that shows a study's datasets: choices on the left, plots on the right."""

import socket
from collections.abc import Mapping, Sequence
from typing import Any

import hvplot.pandas  # noqa: F401 - gives tables their `hvplot`
import pandas as pd
import panel as pn
import xarray as xr

from plasticity.config import quantities
from plasticity.config.models import FAMILIES
from plasticity.errors import StudyError
from plasticity.report import panels
from plasticity.report.style import Style
from plasticity.statistics.treated_arrays import has_interventions
from plasticity.training.outcomes import LOWER_IS_BETTER

WIDGET_WIDTH = 240  # pixels
PLOT = {"width": 540, "height": 360, "grid": True, "legend": "bottom"}
COPY_COLUMNS = ("arm", "seed", "task", "treatment", "family")
DEFAULTS = {
    "arms": list(panels.REFERENCES),
    **quantities.EXPLANATION,
}


def serve(study: str, datasets: Mapping[str, xr.Dataset], style: Style, port: int) -> None:
    """Serve the page to this machine only, until the process ends.

    Pages of other sites cannot connect: only the page's own address is an allowed origin.

    Args:
        study: its name.
        datasets: by setting.
        style: the style of figures.
        port: to serve on; 0 takes any free one.

    Raises:
        StudyError: another program uses the port.
    """
    port = _check_port(port)
    pn.serve(
        lambda: page(study, datasets, style),
        port=port,
        address="localhost",
        websocket_origin=[f"localhost:{port}"],
        show=False,
        title=f"Study {study}",
    )


def _check_port(port: int) -> int:
    """Return a port that is free now: the given one, or any if it is 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("localhost", port))
        except OSError as error:
            raise StudyError(
                f"port {port} cannot be used ({error.strerror}). Choose another: "
                "make explore ARGS=--port=0"
            ) from error
        return int(probe.getsockname()[1])


def page(study: str, datasets: Mapping[str, xr.Dataset], style: Style) -> pn.Column:
    """Build the page. A choice in one setting carries over to the next, if that offers it."""
    setting = pn.widgets.Select(name="setting", options=list(datasets), width=WIDGET_WIDTH)
    last_choices: dict[str, Any] = DEFAULTS | {"measure": panels.primary_measure(datasets)}

    def show_setting(name: str) -> pn.Row:
        data = datasets[name]
        widgets = _widgets(data, last_choices)

        def show_plots(**choices: Any) -> pn.Column:
            last_choices.update(choices)
            return view(data, style, **choices)

        return pn.Row(pn.Column(*widgets.values()), pn.bind(show_plots, **widgets))

    return pn.Column(f"## Study {study}", setting, pn.bind(show_setting, setting))


def _widgets(data: xr.Dataset, last_choices: Mapping[str, Any]) -> dict[str, Any]:
    """Make a widget for each choice that a setting offers.

    Args:
        data: dataset of the setting.
        last_choices: by name; they are the initial values where the setting offers them.
    """
    arms = [str(arm) for arm in data.arm.values]
    initial_arms = [arm for arm in last_choices["arms"] if arm in arms] or arms[:1]
    widgets: dict[str, Any] = {
        "arms": pn.widgets.MultiChoice(
            name="arms", options=arms, value=initial_arms, width=WIDGET_WIDTH
        )
    }
    options = {"measure": measures_of(data), "outcome": outcomes_of(data)}
    for dim in ("evaluation_point", "block", "task"):
        options[dim] = data[dim].values.tolist()
    for name, values in options.items():
        last_choice = last_choices.get(name)
        initial = last_choice if last_choice in values else values[0]
        widgets[name] = pn.widgets.Select(
            name=name, options=values, value=initial, width=WIDGET_WIDTH
        )
    return widgets


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
    """Plot a measure and an outcome over tasks, one against the other, and spectra at a task.

    If the setting has interventions, the last plot is one against the other over treated copies.
    """
    if not arms:
        return pn.Column(pn.pane.Markdown("Choose an arm."))
    plot_options = PLOT | {"color": [style.of_arm(arm)["color"] for arm in arms]}
    values = table(data, measure, outcome, arms, evaluation_point, block)
    means = values.groupby(["arm", "task"], sort=False)[[measure, outcome]].mean().reset_index()
    curves = [
        means.dropna(subset=quantity).hvplot.line(
            x="task", y=quantity, by="arm", title="mean over seeds", **plot_options
        )
        for quantity in (outcome, measure)
    ]
    scatter = values.dropna().hvplot.scatter(
        x=measure,
        y=outcome,
        by="arm",
        title="every seed and task",
        size=12,
        alpha=0.6,
        **plot_options,
    )
    operator = quantities.split_operator(measure)[0] or panels.main_operator({"": data})
    eigenvalues = spectra(data, operator, arms, task, evaluation_point, block)
    if len(eigenvalues):
        spectrum = eigenvalues.hvplot.line(
            x="index",
            y="eigenvalue",
            by="arm",
            title=f"eigenvalues at task {task}, mean over seeds",
            logx=True,
            logy=True,
            **plot_options,
        )
    else:
        spectrum = pn.pane.Markdown("The study has no eigenvalues for this choice.")
    rows = [pn.Row(*curves), pn.Row(scatter, spectrum)]
    if has_interventions(data):
        rows.append(pn.Row(_view_copies(data, style, measure, outcome, arms, block)))
    return pn.Column(*rows)


def _view_copies(
    data: xr.Dataset, style: Style, measure: str, outcome: str, arms: Sequence[str], block: str
) -> Any:
    """Plot the outcome of treated copies against a measure, coloured by family of treatment."""
    values = copies(data, measure, outcome, arms, block).dropna()
    if values.empty:
        return pn.pane.Markdown("The study has no treated copies for this choice.")
    families = dict.fromkeys(values["family"])  # in the order in which they are drawn
    return values.hvplot.scatter(
        x=measure,
        y=outcome.removesuffix("_gap"),
        by="family",
        hover_cols=list(COPY_COLUMNS),
        title="treated copies, every seed and treated task",
        size=12,
        alpha=0.6,
        **PLOT | {"color": [style.families[family] for family in families]},
    )


def measures_of(data: xr.Dataset) -> list[str]:
    """List the measures: variables with a number per run, task and block."""
    return [
        str(name)
        for name, values in data.items()
        if {"task", "block"} <= set(values.dims) and not {"rank", "grid"} & set(values.dims)
    ]


def outcomes_of(data: xr.Dataset) -> list[str]:
    """List the outcomes, each followed by its gap to the baseline."""
    names = []
    for outcome in LOWER_IS_BETTER:
        if outcome in data:
            names += [outcome, f"{outcome}_gap"]
    return names


def table(
    data: xr.Dataset,
    measure: str,
    outcome: str,
    arms: Sequence[str],
    evaluation_point: str,
    block: str,
) -> pd.DataFrame:
    """Join a measure at the start of tasks with an outcome of the same tasks.

    Returns:
        One row per arm, seed and task.
    """
    selection: dict[str, Any] = {"arm": list(arms), "block": block}
    if "evaluation_point" in data[measure].dims:
        selection["evaluation_point"] = evaluation_point
    values = xr.Dataset(
        {
            measure: data[measure].sel(selection),
            outcome: data[outcome].sel(arm=list(arms)),
        }
    )
    rows = values.reset_coords(drop=True).to_dataframe(dim_order=["arm", "seed", "task"])
    return rows.reset_index()


def copies(
    data: xr.Dataset, measure: str, outcome: str, arms: Sequence[str], block: str
) -> pd.DataFrame:
    """Join a measure of treated copies with their outcome; copies have no gap to the baseline.

    Returns:
        One row per arm, seed, task and treatment, with its family; no rows if the study did not
        measure this on copies.
    """
    own_outcome = outcome.removesuffix("_gap")
    names = [f"treated_{measure}", f"treated_{own_outcome}"]
    treated_arms = [arm for arm in arms if arm in data.treated_arm]
    if not treated_arms or any(name not in data for name in names):
        return pd.DataFrame(columns=[*COPY_COLUMNS, measure, own_outcome])
    values = data[names].sel(block=block, treated_arm=treated_arms)
    is_trained = data["treated_copy_status"] == 0
    rows = values.where(is_trained).reset_coords(drop=True).to_dataframe().reset_index()
    families = dict(zip(data.treatment.values, data["treatment_family"].values, strict=True))
    rows["family"] = [FAMILIES[int(families[name])] for name in rows["treatment"]]
    short_names = {name: name.removeprefix("treated_") for name in rows}
    return rows.rename(columns=short_names)[[*COPY_COLUMNS, measure, own_outcome]]


def spectra(
    data: xr.Dataset,
    operator: str,
    arms: Sequence[str],
    task: int,
    evaluation_point: str,
    block: str,
) -> pd.DataFrame:
    """Average positive eigenvalues over seeds.

    Returns:
        One row per arm and ``index``, counted from 1; no rows if the study has no eigenvalues of
        this operator.
    """
    name = f"{operator}_eigenvalue"
    if name not in data:
        return pd.DataFrame({"arm": [], "index": [], "eigenvalue": []})
    selected = data[name].sel(
        arm=list(arms), task=task, evaluation_point=evaluation_point, block=block
    )
    means = selected.mean("seed").rename("eigenvalue").reset_coords(drop=True)
    rows = means.to_dataframe().reset_index().rename(columns={"rank": "index"})
    rows["index"] += 1
    return rows[rows["eigenvalue"] > 0]
