"""How far runs move since their first task: their gap to the baseline, and their measures.

The end of the first task is the start of the second one. So the gap at that end and a measure at
that start describe the same network: the first that was trained. At full budgets plasticity can be
lost within the second task. A mean over several early tasks would hide most of such a loss.
"""

from collections.abc import Sequence

import numpy as np

from plasticity.config.quantities import describe
from plasticity.training.outcomes import stage_masks, stages


def growth_of_gap(gaps: np.ndarray) -> np.ndarray:
    """Compute by how much the gap to the baseline grows from the first task to late tasks.

    Without an intervention the first gap is 0: both networks start alike. A method that learns a
    first task worse than the baseline, such as a strong penalty, has not lost plasticity by that.

    Args:
        gaps: of all tasks, shape ``(seed, task)``.

    Returns:
        Shape ``(seed,)``; NaN if there is only one task.
    """
    tasks = gaps.shape[1]
    if tasks == 1:
        return np.full(len(gaps), np.nan)
    return np.asarray(gaps[:, stages(tasks)["late"]].mean(axis=1) - gaps[:, 0])


def first_and_late(
    values: np.ndarray, measured: Sequence[int] | np.ndarray, tasks: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a measure of the first trained network, and its mean over late tasks.

    Args:
        values: at the start of each measured task, shape ``(seed, measured)``.
        measured: numbers of these tasks.
        tasks: number of tasks of the runs.

    Returns:
        Shapes ``(seed,)``. The first value is that of the first measured task of the stage "early",
        which is the second task if it was measured. Both are NaN if no early or no late task was
        measured.
    """
    masks = stage_masks(measured, tasks)
    if not (masks["early"].any() and masks["late"].any()):
        missing = np.full(len(values), np.nan)
        return missing, missing
    return values[:, masks["early"].argmax()], values[:, masks["late"]].mean(axis=1)


def compute_change(measure: str, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Compute how a measure changed: absolutely for a share, otherwise relatively.

    A relative change is divided by the larger magnitude of the two. So it is defined for 0 and for
    negative values, and lies in [−1, 1] if the values have one sign.

    Args:
        measure: its name.
        before: values, shape ``(…)``.
        after: values, same shape.
    """
    difference = after - before
    if describe(measure).is_share:
        return np.asarray(difference)
    largest = np.maximum(abs(before), abs(after))
    return np.asarray(difference / np.where(largest > 0, largest, 1))
