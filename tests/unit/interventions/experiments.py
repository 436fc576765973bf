"""Small intervention experiments, from the training of an ensemble to the arrays of its copies."""

import json
from dataclasses import asdict
from itertools import product

from ensembles import ARMS, COMPOSED, SETTING, with_network_of

from plasticity.config.models import Curvature, Training, arm_name
from plasticity.interventions.experiment import Experiment, Treatment
from plasticity.models.ensemble import Parameters
from plasticity.storage import checkpoints, restart
from plasticity.storage.checkpoints import Checkpoints
from plasticity.training import chunks

SEEDS = [0, 1]
STAMP = {"contract": "9"}
UNTREATED = Treatment("none", "none", None, "control")
SHRUNK = Treatment("shrink(strength=0.5)", "shrink", 0.5, "restoring")
CURVATURE = Curvature.of(
    {"operators": {"fisher": {}}, "samples": 12, "every": 1, "evaluation_points": ["next"]}
)
RECORDED = Training(curve_points=3)


def train(folder, data, method="none", setting=SETTING, tasks=(1,), seeds=SEEDS):
    """Train both arms of a method, with states at some tasks.

    Returns:
        The checkpoints, the settings of the training job, and the outcomes.
    """
    setting = with_network_of(setting, method)
    arms = {**ARMS, **COMPOSED}[method]
    named_arms = {arm_name(method, arm) + str(index): arm for index, arm in enumerate(arms)}
    settings = {
        "setting": asdict(setting),
        "method": method,
        "arms": list(named_arms.values()),
        "seeds": seeds,
        "training": asdict(RECORDED),
    }
    states = restart.RestartStates(folder / "resume", {})
    states.folder.mkdir(parents=True)
    trained = chunks.train_ensemble(
        setting,
        method,
        named_arms,
        seeds,
        data,
        RECORDED,
        states,
        with_checkpoints=True,
        memory_limit=None,
        attributes={},
        state_tasks=tasks,
    )
    path = folder / "checkpoints.nc"
    stamp = STAMP | {"settings": json.dumps(settings)}
    checkpoints.write(path, trained.rows, list(named_arms), seeds, stamp, trained.states)
    return Checkpoints(path), settings, trained.outcomes


def run(folder, trained, data, treatments, tasks=(1,), curvature=CURVATURE, memory_limit=None):
    """Run the experiment of a trained ensemble; return its arrays and coordinates."""
    stored, settings, _ = trained
    experiment = Experiment(stored, settings, treatments, curvature, data, memory_limit)
    states = restart.RestartStates(folder / f"resume_{memory_limit}", {})
    states.folder.mkdir(parents=True, exist_ok=True)
    return experiment.run(tasks, states)


def runs_of(trained):
    """List the arm and the seed of each run."""
    stored, settings, _ = trained
    return list(product(settings["arms"], stored.seeds))


def split(trainer, row):
    """Split a row of parameters by name."""
    return {
        name: tensor[0]
        for name, tensor in Parameters(row[None], trainer.learner.parameters.shapes).tensors.items()
    }
