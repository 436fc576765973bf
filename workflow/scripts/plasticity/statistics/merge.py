"""Merge the ensembles of a setting into one dataset."""

import itertools
import json
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from plasticity.config.models import baseline_of
from plasticity.errors import StudyError
from plasticity.storage.netcdf import RUN, Variable
from plasticity.training.outcomes import FRESH, LOWER_IS_BETTER, TABLE

# Fill values of tasks without a measurement: the flag `not_asked_for`, and NaN for all others.
FILL_VALUES = {"curvature_status": np.int8(3)}
# Treated copies have dims of their own, because only some arms and tasks have copies.
TREATED = "treated_"
# The coordinate of a hyperparameter begins with it, because some have the name of a dim.
HYPERPARAMETER = "arm_"
GAPS = {
    f"{name}_gap": Variable(
        RUN,
        "that of the arm minus that of its baseline on the same seed and task: "
        f"{TABLE[name].meaning}",
    )
    for name in LOWER_IS_BETTER
}


def merge_ensembles(outcomes: Sequence[xr.Dataset], measures: Sequence[xr.Dataset]) -> xr.Dataset:
    """Join all ensembles of a setting; compare every arm with its baseline.

    Args:
        outcomes: of each ensemble, dims ``(arm, seed, task)``. Its attribute `settings` has the
            hyperparameters of its arms.
        measures: of the same ensembles in the same order. They may lack tasks, and spectra may have
            different lengths.

    Returns:
        All arms and seeds in the order of the ensembles. Missing measurements are NaN.
        ``fresh_{outcome}`` is the outcome of the arm's baseline on the same seed and task, and
        ``{outcome}_gap`` the difference. ``arm_{hyperparameter}`` is a coordinate of the arms.

    Raises:
        StudyError: the arms do not have the same seeds and tasks.
    """
    coordinates = _common_coordinates(measures)
    arms: dict[tuple[str, ...], list[xr.Dataset]] = {}
    for outcome, measure in zip(outcomes, measures, strict=True):
        completed = measure.reindex(coordinates | {"task": outcome.task}, fill_value=FILL_VALUES)
        ensemble = outcome.merge(completed, join="exact")
        arms.setdefault(tuple(ensemble.arm.values), []).append(ensemble)
    try:
        by_arm = [xr.concat(blocks, "seed", join="exact") for blocks in arms.values()]
        merged = xr.concat(by_arm, "arm", join="exact")
    except ValueError as error:
        raise StudyError(
            "runs: the arms of a setting do not have the same seeds and tasks "
            f"({error}). Delete the runs of this setting and start snakemake again."
        ) from error
    return add_gaps(_with_baseline(merged)).assign_coords(_hyperparameters(outcomes, merged.arm))


def add_gaps(data: xr.Dataset) -> xr.Dataset:
    """Add ``{outcome}_gap``: the outcome minus that of the baseline on the same seed and task.

    Args:
        data: dataset of a setting.
    """
    gaps = {}
    for name, variable in GAPS.items():
        outcome = name.removesuffix("_gap")
        if outcome in data:
            gap = data[outcome] - data[f"fresh_{outcome}"]
            gaps[name] = gap.transpose(*RUN).assign_attrs(variable.attributes)
    return data.assign(gaps)


def _hyperparameters(
    outcomes: Sequence[xr.Dataset], arms: xr.DataArray
) -> dict[str, tuple[str, np.ndarray, Mapping[str, object]]]:
    """Collect the numeric hyperparameters that the config gives the arms.

    Args:
        outcomes: of each ensemble, as `merge_ensembles` takes them.
        arms: of all ensembles.

    Returns:
        Coordinates of the arms by name; NaN where an arm has no such hyperparameter. In float64,
        so that ``data.arm_strength == 0.001`` selects an arm.
    """
    values: dict[str, dict[str, float]] = {}
    for outcome in outcomes:
        settings = json.loads(outcome.attrs["settings"])
        for arm, hyperparameters in zip(outcome.arm.values, settings["arms"], strict=True):
            for key, value in hyperparameters.items():
                if not isinstance(value, str):
                    values.setdefault(key, {})[str(arm)] = float(value)
    return {
        HYPERPARAMETER + key.replace(".", "_"): (
            "arm",
            np.array([of_arms.get(str(arm), np.nan) for arm in arms.values]),
            {"long_name": f"hyperparameter {key} of the arm, if it has one", "units": "1"},
        )
        for key, of_arms in sorted(values.items())
    }


def add_interventions(data: xr.Dataset, interventions: Sequence[xr.Dataset]) -> xr.Dataset:
    """Add the treated copies of a setting's checkpoints.

    Args:
        data: all runs of the setting, from `merge_ensembles`.
        interventions: of each treated ensemble, dims ``(arm, seed, task, treatment, …)``; maybe
            none.

    Returns:
        The same dataset with the variables of copies, such as ``treated_final_error`` with dims
        ``(treated_arm, seed, treated_task, treatment)``. Descriptions of treatments keep their
        names.

    Raises:
        StudyError: the ensembles do not have the same seeds, tasks and treatments.
    """
    if not interventions:
        return data
    arms: dict[tuple[str, ...], list[xr.Dataset]] = {}
    for ensemble in interventions:
        copies = ensemble.reindex(block=data.block)
        arms.setdefault(tuple(ensemble.arm.values), []).append(copies)
    try:
        merged = _concatenate([_concatenate(blocks, "seed") for blocks in arms.values()], "arm")
        names = {
            name: f"{TREATED}{name}" for name in merged.data_vars if "arm" in merged[name].dims
        }
        renamed = merged.rename(names | {dim: f"{TREATED}{dim}" for dim in ("arm", "task")})
        return data.merge(renamed, join="exact", combine_attrs="override")
    except ValueError as error:
        raise StudyError(
            "runs: the interventions of a setting do not have the same seeds, tasks and treatments "
            f"({error}). Delete its files interventions.nc and start snakemake again."
        ) from error


def _concatenate(copies: Sequence[xr.Dataset], dim: str) -> xr.Dataset:
    """Concatenate copies along a dim. What lacks this dim must be equal in all of them."""
    return xr.concat(
        copies, dim, join="exact", data_vars="minimal", coords="minimal", compat="equals"
    )


def _common_coordinates(measures: Sequence[xr.Dataset]) -> dict[str, object]:
    """Find the blocks and ranks that cover all ensembles.

    A network with additional layers has all blocks of the others, and its own between them. The
    longest list of blocks therefore comes first.
    """
    block_lists = sorted(
        (list(measure.block.values) for measure in measures), key=len, reverse=True
    )
    blocks = list(dict.fromkeys(itertools.chain(*block_lists)))
    coordinates: dict[str, object] = {"block": blocks}
    if length := max(measure.sizes.get("rank", 0) for measure in measures):
        coordinates["rank"] = range(length)
    return coordinates


def _with_baseline(data: xr.Dataset) -> xr.Dataset:
    """Add ``fresh_{outcome}``, the outcomes of each arm's baseline."""
    arms = [str(arm) for arm in data.arm.values]
    baselines = [baseline_of(arm, arms) for arm in arms]
    baseline = data.sel(arm=baselines).assign_coords(arm=data.arm)
    baseline_outcomes = {}
    for name, variable in FRESH.items():
        outcome = name.removeprefix("fresh_")
        if outcome in data:
            values = baseline[outcome]
            baseline_outcomes[name] = values.assign_attrs(long_name=variable.meaning)
    return data.assign(baseline_outcomes)
