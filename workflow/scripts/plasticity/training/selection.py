"""Which arm of a method is trained on the reporting seeds: the one that did best on the tuning seeds, which report nothing."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr

from plasticity.config.models import Criterion
from plasticity.errors import StudyError
from plasticity.training.outcomes import stages


def scores(outcomes: xr.Dataset, criterion: Criterion) -> np.ndarray:
    """Each arm's mean of the outcome over the tasks of the stage, then over seeds; infinite if a seed of it diverged. Shape ``(arm,)``.

    Args:
        outcomes: dims ``(arm, seed, task)``.
        criterion: which outcome and stage.
    """
    runs = (
        outcomes[criterion.outcome]
        .astype(np.float64)
        .isel(task=stages(outcomes.sizes["task"])[criterion.stage])
    )
    diverged = (outcomes["status"].isel(task=-1) != 0).any(
        "seed"
    )  # late tasks count, whatever the stage
    return np.asarray(runs.mean("task").mean("seed").where(~diverged, np.inf))


def choose(blocks: Sequence[xr.Dataset], criterion: Criterion, setting: str) -> dict[str, Any]:
    """The arm with the lowest score, the first of equal ones.

    Args:
        blocks: outcomes of all arms on each block of tuning seeds.
        criterion: what the score is of.
        setting: its name, for messages.

    Returns:
        For JSON: the chosen arm's hyper-parameters and score, the criterion, the seeds, and every arm with its score (none if it diverged).

    Raises:
        StudyError: a seed of every arm diverged.
    """
    outcomes = xr.concat(blocks, "seed", join="exact")
    trained = json.loads(blocks[0].attrs["settings"])
    found = scores(outcomes, criterion)
    if not np.isfinite(found).any():
        raise StudyError(
            f"every arm of {trained['method']} diverged on some tuning seed of {setting}, so none can be chosen: "
            "give it other values, or limit it to other settings by `settings`"
        )
    best = int(found.argmin())
    compared = [
        {"arm": arm, "score": score if np.isfinite(score) else None}
        for arm, score in zip(trained["arms"], found, strict=True)
    ]
    return {
        **compared[best],
        "criterion": asdict(criterion),
        "seeds": outcomes.seed.values.tolist(),
        "compared": compared,
    }
