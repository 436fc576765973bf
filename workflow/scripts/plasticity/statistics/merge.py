"""Merge the ensembles of a setting into one dataset."""

import itertools
from collections.abc import Sequence

import numpy as np
import xarray as xr

from plasticity.config.models import baseline_of
from plasticity.errors import StudyError
from plasticity.training.outcomes import FRESH

# Fill values of tasks without a measurement: the flag `not_asked_for`, and NaN for all others.
FILL_VALUES = {"curvature_status": np.int8(3)}


def merge_ensembles(outcomes: Sequence[xr.Dataset], measures: Sequence[xr.Dataset]) -> xr.Dataset:
    """Join all ensembles of a setting, and add to every arm the outcomes of its baseline.

    Args:
        outcomes: of each ensemble, dims ``(arm, seed, task)``.
        measures: of the same ensembles in the same order. They may lack tasks, and spectra may have
            different lengths.

    Returns:
        All arms and seeds in the order of the ensembles. Missing measurements are NaN.
        ``fresh_{outcome}`` is the outcome of the arm's baseline on the same seed and task.

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
    return _with_baseline(merged)


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
