"""Plain versions of the tables of interventions, with the columns that figures read."""

import numpy as np
import pandas as pd
from scipy import stats

from plasticity.config.quantities import describe
from plasticity.statistics.resampling import t_interval

OUTCOMES = ("final_error", "online_error")
TREATMENTS = [
    *("setting", "arm", "task", "treatment", "treatment_family", "strength", "quantity", "block"),
    *("mean", "change", "low", "high", "seeds", "note"),
]
INTERVENTIONS = [
    *("setting", "arm", "task", "measure", "block", "outcome", "statistic", "versus", "seeds"),
    *("treatments", "estimate", "low", "high", "p", "power", "interval", "note"),
]
COUNTEREXAMPLES = ["setting", "arm", "task", "treatment", "measure", "outcome", "kind"]


def copies(data, name):
    """Yield values with dims (seed, task, treatment) by block, for each arm."""
    values = data[f"treated_{name}"]
    is_trained = data["treated_copy_status"] == 0
    for arm in data.treated_arm.values:
        of_arm = values.where(is_trained).sel(treated_arm=arm)
        if "block" not in values.dims:
            yield arm, "", of_arm.transpose("seed", "treated_task", "treatment")
            continue
        for block in data.block.values:
            of_block = of_arm.sel(block=block)
            yield arm, block, of_block.transpose("seed", "treated_task", "treatment")


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
    for setting, data in datasets.items():
        if "treated_final_error" not in data:
            continue
        families = data["treatment_family"].attrs["flag_meanings"].split()
        for name in quantities_of(data):
            for arm, block, values in copies(data, name):
                for copy in values.treatment.values:
                    one = values.sel(treatment=copy)
                    change = one - values.sel(treatment="none")
                    for task in values.treated_task.values:
                        mean = mean_interval(one.sel(treated_task=task).values)[0]
                        interval = mean_interval(change.sel(treated_task=task).values)
                        of_copy = data.sel(treatment=copy)
                        family = families[int(of_copy["treatment_family"])]
                        strength = float(of_copy["treatment_strength"])
                        about = [setting, arm, task, copy, family, strength, name, block]
                        seeds = int(one.sel(treated_task=task).notnull().sum())
                        rows.append([*about, mean, *interval, seeds, ""])
    return pd.DataFrame(rows, columns=TREATMENTS)


def interventions(datasets):
    """Compute τ within checkpoints, as the mean over treated tasks and seeds."""
    rows = []
    for setting, data in datasets.items():
        if "treated_final_error" not in data:
            continue
        for measure in quantities_of(data):
            if measure in ("final_error", "final_loss", "online_error", "update_norm"):
                continue
            for outcome in OUTCOMES:
                errors = {arm: values for arm, _, values in copies(data, outcome)}
                for arm, block, values in copies(data, measure):
                    interval = mean_interval(taus(values.values, errors[arm].values))
                    about = [setting, arm, "all", measure, block, outcome, "tau", ""]
                    counts = [values.sizes["seed"], values.sizes["treatment"]]
                    rows.append([*about, *counts, *interval, np.nan, np.nan, "", ""])
    table = pd.DataFrame(rows, columns=INTERVENTIONS)
    summaries = [
        [
            *("all", arm, "all", measure, block, outcome, "tau", "", 0, 0),
            *mean_interval(group["estimate"].to_numpy(float)),
            *(np.nan, np.nan, "", ""),
        ]
        for (arm, measure, block, outcome), group in table.groupby(
            ["arm", "measure", "block", "outcome"], sort=False
        )
    ]
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
        for _, row in table[table["block"].isin(["all"])].iterrows():
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
