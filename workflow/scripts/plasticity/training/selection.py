"""Selection of an arm: the best one on the tuning seeds, which are never reported."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from plasticity.config.models import Tuning
from plasticity.errors import StudyError
from plasticity.training.outcomes import stages


def scores(outcomes: xr.Dataset, tuning: Tuning) -> np.ndarray:
    """Average an outcome over the tasks of a stage, then over seeds.

    Args:
        outcomes: dims ``(arm, seed, task)``.
        tuning: the outcome and the stage.

    Returns:
        Shape ``(arm,)``; infinite if a seed of the arm diverged, in whatever task.
    """
    stage = stages(outcomes.sizes["task"])[tuning.stage]
    values = outcomes[tuning.outcome].astype(np.float64).isel(task=stage)
    diverged = (outcomes["status"].isel(task=-1) != 0).any("seed")
    return np.asarray(values.mean("task").mean("seed").where(~diverged, np.inf))


def choose(blocks: Sequence[xr.Dataset], tuning: Tuning, setting: str) -> dict[str, Any]:
    """Select the arm with the lowest score; of equal arms, the first.

    Args:
        blocks: outcomes of all arms on each block of tuning seeds.
        tuning: the outcome and the stage that are scored.
        setting: name of the setting, for messages.

    Returns:
        For JSON: hyperparameters and score of the selected arm, the criterion, the seeds, and
        every arm with its score (None if it diverged).

    Raises:
        StudyError: a seed of every arm diverged.
    """
    outcomes = xr.concat(blocks, "seed", join="exact")
    settings = json.loads(blocks[0].attrs["settings"])
    of_arms = scores(outcomes, tuning)
    if not np.isfinite(of_arms).any():
        raise StudyError(
            f"every arm of {settings['method']} diverged on some tuning seed of {setting}, so none "
            "can be chosen: change its values, or limit it to other settings by `settings`"
        )
    compared = [
        {"arm": arm, "score": score if np.isfinite(score) else None}
        for arm, score in zip(settings["arms"], of_arms, strict=True)
    ]
    best = int(of_arms.argmin())
    return {
        **compared[best],
        "criterion": tuning.criterion,
        "seeds": outcomes.seed.values.tolist(),
        "compared": compared,
    }
