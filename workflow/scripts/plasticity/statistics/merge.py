"""Ensembles into one dataset per setting."""

import itertools
from collections.abc import Sequence

import numpy as np
import xarray as xr

from plasticity.config.models import BASELINE
from plasticity.errors import StudyError
from plasticity.training.outcomes import FRESH

UNMEASURED = {"curvature_status": np.int8(3)}  # not_asked_for; NaN for all others


def gather(outcomes: Sequence[xr.Dataset], measures: Sequence[xr.Dataset]) -> xr.Dataset:
    """Join all ensembles of a setting, with the baseline's outcomes beside everyone's own.

    Args:
        outcomes: of each ensemble, dims ``(arm, seed, task)``.
        measures: of the same ensembles in the same order; tasks that were not measured are NaN, and what a spectrum lacks to the longest.

    Returns:
        All arms and seeds, in the order of the ensembles.

    Raises:
        StudyError: arms that do not have the same seeds, tasks or blocks.
    """
    # a network with further layers has all of the others' blocks, and its own in between
    of_networks = sorted(
        (list(measure.block.values) for measure in measures), key=len, reverse=True
    )
    along: dict[str, object] = {"block": list(dict.fromkeys(itertools.chain(*of_networks)))}
    if longest := max(measure.sizes.get("rank", 0) for measure in measures):
        along["rank"] = range(longest)
    ensembles = [
        outcome.merge(
            measure.reindex(along | {"task": outcome.task}, fill_value=UNMEASURED), join="exact"
        )
        for outcome, measure in zip(outcomes, measures, strict=True)
    ]
    arms: dict[tuple[str, ...], list[xr.Dataset]] = {}
    for ensemble in ensembles:
        arms.setdefault(tuple(ensemble.arm.values), []).append(ensemble)
    try:
        whole = xr.concat(
            [xr.concat(blocks, "seed", join="exact") for blocks in arms.values()],
            "arm",
            join="exact",
        )
    except ValueError as error:
        raise StudyError(
            f"the arms of a setting do not have the same runs ({error}): remove its runs and start snakemake again"
        ) from error
    baseline = whole.sel(arm=BASELINE, drop=True)
    there = {
        name: baseline[name.removeprefix("fresh_")]
        for name in FRESH
        if name.removeprefix("fresh_") in whole
    }
    return whole.assign(
        {name: values.assign_attrs(long_name=FRESH[name].meaning) for name, values in there.items()}
    )
