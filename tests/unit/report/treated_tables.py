"""Plain versions of the tables of interventions, with the columns that figures read."""

import numpy as np
import pandas as pd
from scipy import stats

from plasticity.config.quantities import describe
from plasticity.statistics.resampling import t_interval

OUTCOMES = ("final_error", "online_error")
ALL_OUTCOMES = (*OUTCOMES, "final_loss", "update_norm")
TREATMENTS = [
    *("setting", "arm", "task", "treatment", "treatment_family", "strength", "quantity", "block"),
    *("mean", "change", "low", "high", "seeds", "note"),
]
INTERVENTIONS = [
    *("setting", "arm", "task", "measure", "block", "outcome", "statistic", "versus", "seeds"),
    *("treatments", "estimate", "low", "high", "p", "power", "interval", "note"),
    *("settings", "sign_agreement"),
]
COUNTEREXAMPLES = ["setting", "arm", "task", "treatment", "measure", "outcome", "kind"]


def copies(data, name):
    """List the values of trained copies: arm, block, and values (seed, task, treatment).

    The block is the last that has values.
    """
    values = data[f"treated_{name}"].where(data["treated_copy_status"] == 0)
    block = ""
    if "block" in values.dims:
        values = values.dropna("block", how="all")
        if values.sizes["block"] == 0:
            return []
        values = values.isel(block=-1)
        block = str(values.block.item())
    values = values.transpose("treated_arm", "seed", "treated_task", "treatment")
    return [(str(arm), block, values.sel(treated_arm=arm)) for arm in data.treated_arm.values]


def quantities_of(data):
    """List the treated outcomes and measures."""
    names = [str(name).removeprefix("treated_") for name in data if str(name)[:8] == "treated_"]
    return [name for name in names if name != "copy_status"]


def mean_interval(values):
    """Compute the mean over the seeds that have a value, with its interval."""
    known = values[np.isfinite(values)]
    if not known.size:
        return np.nan, np.nan, np.nan
    return (known.mean(), *t_interval(known))


def treatments(datasets):
    """Compute means and changes of every quantity."""
    rows = []
    for setting, data in with_interventions(datasets).items():
        words = data["treatment_family"].attrs["flag_meanings"].split()
        families = [words[code] for code in data["treatment_family"].values]
        strengths = data["treatment_strength"].values
        for name in quantities_of(data):
            for arm, block, values in copies(data, name):
                names = values.treatment.values
                of_copies = values.values
                changes = of_copies - of_copies[..., [list(names).index("none")]]
                for t, task in enumerate(values.treated_task.values):
                    for c, copy in enumerate(names):
                        about = [setting, arm, task, copy, families[c], strengths[c], name, block]
                        mean = mean_interval(of_copies[:, t, c])[0]
                        seeds = np.isfinite(of_copies[:, t, c]).sum()
                        interval = mean_interval(changes[:, t, c])
                        rows.append([*about, mean, *interval, seeds, ""])
    return pd.DataFrame(rows, columns=TREATMENTS)


def with_interventions(datasets):
    """Select the settings that have interventions."""
    return {name: data for name, data in datasets.items() if "treated_final_error" in data}


def interventions(datasets):
    """Compute τ within checkpoints, as the mean over treated tasks and seeds."""
    rows = []
    for setting, data in with_interventions(datasets).items():
        for measure in quantities_of(data):
            if measure in ALL_OUTCOMES:
                continue
            for outcome in OUTCOMES:
                errors = {arm: values for arm, _, values in copies(data, outcome)}
                for arm, block, values in copies(data, measure):
                    interval = mean_interval(taus(values.values, errors[arm].values))
                    about = [setting, arm, "all", measure, block, outcome, "tau", ""]
                    counts = [values.sizes["seed"], values.sizes["treatment"]]
                    rows.append([*about, *counts, *interval, np.nan, np.nan, "", "", 1, np.nan])
    table = pd.DataFrame(rows, columns=INTERVENTIONS)
    keys = ["arm", "measure", "outcome"]
    summaries = []
    for (arm, measure, outcome), group in table.groupby(keys, sort=False):
        estimates = group["estimate"].dropna().to_numpy(float)
        if not estimates.size:
            continue
        agreement = np.mean(estimates * describe(measure).claimed_sign > 0)
        about = ["all", arm, "all", measure, "", outcome, "tau", "", 0, 0]
        numbers = [*mean_interval(estimates), np.nan, np.nan, "", "", len(estimates), agreement]
        summaries.append([*about, *numbers])
    return pd.DataFrame([*rows, *summaries], columns=INTERVENTIONS)


def taus(measures, errors):
    """Compute the mean τ over tasks for each seed; shapes (seed, task, treatment)."""
    means = []
    for of_seed in zip(measures, errors, strict=True):
        of_tasks = []
        for x, y in zip(*of_seed, strict=True):
            known = np.isfinite(x) & np.isfinite(y)
            is_constant = known.sum() < 3 or np.ptp(x[known]) == 0 or np.ptp(y[known]) == 0
            tau = np.nan if is_constant else stats.kendalltau(x[known], y[known])[0]
            of_tasks.append(tau)
        means.append(np.mean(of_tasks))
    return np.array(means)


def counterexamples(table):
    """Find treatments that restore plasticity or a measure, but not both."""
    keys = ["setting", "arm", "task", "treatment"]
    rows = []
    for outcome in OUTCOMES:
        errors = table[table["quantity"] == outcome].set_index(keys)
        for _, row in table[~table["quantity"].isin(ALL_OUTCOMES)].iterrows():
            error = errors.loc[tuple(row[keys])]
            sign = describe(row["quantity"]).claimed_sign
            ends = sorted([sign * row["low"], sign * row["high"]])
            about = [*row[keys], row["quantity"], outcome]
            if error["high"] < 0 and ends[1] > 0:
                rows.append([*about, "not_necessary"])
            elif ends[1] < 0 and error["high"] > 0:
                rows.append([*about, "not_sufficient"])
    return pd.DataFrame(rows, columns=COUNTEREXAMPLES)


def tables(datasets):
    """Compute the tables that figures of interventions are drawn from."""
    of_treatments = treatments(datasets)
    return {
        "treatments": of_treatments,
        "interventions": interventions(datasets),
        "intervention_counterexamples": counterexamples(of_treatments),
    }
