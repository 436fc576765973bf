"""Definitions of the outcomes: what plasticity is, per run and task."""

from collections.abc import Sequence

import numpy as np

from plasticity.config.models import Problem, Training
from plasticity.storage.netcdf import RUN, Variable

STATUS = {"trained": 0, "diverged": 1}

TABLE = {
    "final_error": Variable(RUN, "error on the task's data after its last step"),
    "final_loss": Variable(RUN, "loss on the task's data after its last step"),
    "online_error": Variable(RUN, "mean error on each batch before the step on it"),
    "update_norm": Variable(
        RUN,
        "norm of a step's change of the parameters, mean over the task, estimated from some of its "
        "steps",
    ),
    "error_curve": Variable(
        (*RUN, "step"),
        "mean error on each batch before the step on it, over the stretch of steps that ends here",
    ),
    "loss_curve": Variable(
        (*RUN, "step"),
        "mean loss on each batch before the step on it, over the stretch of steps that ends here",
    ),
    "test_error": Variable(
        RUN, "error on images of the task that were kept out of its training, after its last step"
    ),
    "status": Variable(RUN, "what became of the run", "int8", STATUS),
}

# arms are selected by one of these, and compared with the baseline in them
LOWER_IS_BETTER = ("final_error", "online_error", "final_loss", "test_error")

FRESH = {
    f"fresh_{name}": Variable(
        RUN,
        "that of a freshly initialised network of the same architecture, same budget: "
        f"{TABLE[name].meaning}",
    )
    for name in LOWER_IS_BETTER
}


def table(problem: Problem) -> dict[str, Variable]:
    """Return the outcomes of a problem: all, but no test error if it has no test images."""
    return {
        name: variable
        for name, variable in TABLE.items()
        if problem.test_samples or name != "test_error"
    }


def stages(tasks: int) -> dict[str, slice]:
    """Return the tasks of each stage by its name: early, late and all.

    Late is the last eighth of the tasks. Early is as many tasks, from the second one on: the first
    task starts with an untrained network, so what happens there is no loss of plasticity.
    """
    eighth = max(1, tasks // 8)
    second = min(1, tasks - 1)
    return {
        "early": slice(second, second + eighth),
        "late": slice(tasks - eighth, tasks),
        "all": slice(0, tasks),
    }


def stage_masks(measured: Sequence[int] | np.ndarray, tasks: int) -> dict[str, np.ndarray]:
    """Select measured tasks by the stage to which they belong.

    Args:
        measured: numbers of the tasks that were measured.
        tasks: number of tasks of the runs.

    Returns:
        Booleans by stage, shape ``(measured,)``. A stage in which nothing was measured has none.
    """
    numbers = np.asarray(measured)
    return {
        stage: (numbers >= window.start) & (numbers < window.stop)
        for stage, window in stages(tasks).items()
    }


def curve_steps(problem: Problem, training: Training) -> list[int]:
    """Return the ends of equal stretches of a task, where a learning curve has its points."""
    points = min(training.curve_points, problem.steps)
    return [problem.steps * point // points for point in range(1, points + 1)]
