"""Small ensembles of every method, and helpers that train them."""

import math
from dataclasses import asdict, replace
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from plasticity.config import registry
from plasticity.config.models import Network, Optimizer, Problem, Setting, Training, parts
from plasticity.data import dataset
from plasticity.training.trainer import Trainer, train

# two arms of each method, which has an effect within a dozen steps
ARMS = {
    "none": [{}, {}],
    "fresh": [{}, {}],
    "l2": [{"strength": 0.01}, {"strength": 0.3}],
    "l2_init": [{"strength": 0.01}, {"strength": 0.3}],
    "wasserstein": [{"strength": 0.01}, {"strength": 0.3}],
    "weight_decay": [{"strength": 0.5}, {"strength": 20}],
    "spectral": [{"strength": 0.01}, {"strength": 0.1, "power": 1}],
    "parseval": [{"strength": 0.01}, {"strength": 0.1}],
    "l2_er": [{"strength": 0.01, "rank": 0.01}, {"strength": 0.1, "rank": 0.3}],
    "shrink_perturb": [{"shrink": 0.01, "perturb": 0.01}, {"shrink": 0.001, "perturb": 0.1}],
    "shrink_perturb_switch": [{"shrink": 0.5, "perturb": 0.5}, {"shrink": 0.2, "perturb": 0.1}],
    "weight_clipping": [{"bound": 1}, {"bound": 0.3}],
    "hare_tortoise": [{"period": 5, "momentum": 0.9}, {"period": 7, "momentum": 0.5}],
    "last_layer_reset": [{}, {}],
    "full_reset": [{"period": 1}, {"period": 2}],
    "redo": [{"threshold": 0.1, "period": 3}, {"threshold": 0.7, "period": 5}],
    "continual_backprop": [
        {"rate": 0.1, "maturity": 3, "decay": 0.9},
        {"rate": 0.3, "maturity": 5, "decay": 0.5},
    ],
    "self_normalized_resets": [{"rejection": 0.1}, {"rejection": 0.4}],
    "neuroplastic_expansion": [
        {"density": 0.3, "growth": 0.1, "prune": 0.5, "most": 0.8, "period": 4},
        {"density": 0.6, "growth": 0.05, "prune": 1, "most": 0.9, "period": 3},
    ],
    "dropout": [{"rate": 0.2}, {"rate": 0.6}],
    "layer_norm": [{}, {}],
    "crelu": [{}, {}],
}
COMPOSED = {
    "layer_norm+l2": [{"l2.strength": 0.01}, {"l2.strength": 0.3}],
    "dropout+redo": [
        {"dropout.rate": 0.3, "redo.threshold": 0.1, "redo.period": 3},
        {"dropout.rate": 0.6, "redo.threshold": 0.7, "redo.period": 5},
    ],
    "neuroplastic_expansion+shrink_perturb_switch": [
        {
            "neuroplastic_expansion.density": 0.5,
            "shrink_perturb_switch.shrink": shrink,
            "shrink_perturb_switch.perturb": 0.1,
        }
        for shrink in (0.1, 0.5)
    ],
}
SETTING = Setting(
    Problem("tiny", "shuffle_labels", samples=30, batch=7, epochs=3, tasks=3),
    Network("mlp", "relu", options={"width": 8, "depth": 2}),
    Optimizer("adam", options={"lr": 0.01}),
)
CNN = replace(SETTING, network=Network("cnn", "relu", options={"width": 6}))


def changed(setting=SETTING, **parts):
    """Replace some values of a setting: ``changed(problem={"tasks": 1})``."""
    return replace(
        setting,
        **{part: replace(getattr(setting, part), **values) for part, values in parts.items()},
    )


def images(size, n=40, channels=1):
    """Make a prepared dataset of noise with three classes."""
    pixels = np.random.default_rng(0).integers(0, 10, (n, channels, size, size), np.uint8)
    labels = np.arange(n) % 3
    return dataset.describe("small", dataset.Images(pixels, labels, list("abc"), 9), {})


def with_network_of(setting, method):
    """Apply the changes that a method makes to the network of a setting."""
    changes = {}
    for part in parts(method):
        changes |= registry.network_of(part)
    return replace(setting, network=Network.of(asdict(setting.network) | changes))


def new_trainer(
    data,
    method,
    arms,
    seeds=(0,),
    setting=SETTING,
    dtype=torch.float64,
    recorded=Training(curve_points=3),  # noqa: B008 - it is frozen
):
    """Make a trainer of each arm with each seed."""
    return Trainer(
        with_network_of(setting, method),
        method,
        list(product(arms, seeds)),
        data,
        recorded,
        torch.device("cpu"),
        dtype,
    )


def train_all(*args, sabotage=None, **kwargs):
    """Train all tasks.

    Returns:
        The trainer, and the parameters at the start of each task and at the end, shape
        ``(time, run, parameter)``.
    """
    trainer = new_trainer(*args, **kwargs)
    if sabotage:
        sabotage(trainer)
    states = []
    train(trainer, lambda task, parameters: states.append(parameters.clone()))
    return trainer, torch.stack([*states, trainer.learner.parameters.flat.detach()])


class Step(NamedTuple):
    """One step of training.

    Attributes:
        task: number of the task.
        count: steps in all tasks, starting from 1.
        inputs: batch of each run, shape ``(run, batch, channel, row, column)``.
        before: parameters before the step, by name, shapes ``(run, …)``; so are the others.
        gradient: gradient of the loss and the penalties.
        stepped: parameters after the step of the optimizer.
        stepped_means: the optimizer's means then.
        after: parameters after the method acted.
        means: the optimizer's means then.
        hidden: activations, by layer, shapes ``(run, row, unit)``.
        state: state of the method after it acted.
    """

    task: int
    count: int
    inputs: Tensor
    before: dict[str, Tensor]
    gradient: dict[str, Tensor]
    stepped: dict[str, Tensor]
    stepped_means: dict[str, dict[str, Tensor]]
    after: dict[str, Tensor]
    means: dict[str, dict[str, Tensor]]
    hidden: dict[str, Tensor]
    state: dict[str, Tensor]


def record_steps(data, method, arms, seeds=(0,), setting=SETTING, **kwargs):
    """Train all tasks with a single method and record every step.

    Returns:
        The trainer, the steps, and the parameters and means at the start of each task.
    """
    trainer = new_trainer(data, method, arms, seeds, setting, **kwargs)
    learner = trainer.learner
    intervention = trainer.interventions[method]
    optimizer_step, method_after_step = learner.optimizer.step, intervention.after_step
    steps, starts, pending = [], [], []

    def copies(matrix):
        width = learner.parameters.flat.shape[1]
        views = learner.parameters.split(matrix[:, :width])
        return {name: tensor.detach().clone() for name, tensor in views.items()}

    def means():
        return {name: copies(values) for name, values in learner.optimizer.means.items()}

    def step(parameters, gradient):
        before = [batch_inputs(trainer), copies(parameters), copies(gradient)]
        optimizer_step(parameters, gradient)
        pending.append([*before, copies(parameters), means()])

    def after_step(learner):
        method_after_step(learner)
        hidden = {name: values.detach() for name, values in learner.hidden.items()}
        state = {name: tensor.clone() for name, tensor in intervention.state().items()}
        after = [copies(learner.parameters.padded), means(), hidden, state]
        steps.append(Step(learner.task, learner.total_steps, *pending.pop(), *after))

    def checkpoint(task, parameters):
        starts.append((copies(learner.parameters.padded), means()))

    learner.optimizer.step, intervention.after_step = step, after_step
    train(trainer, checkpoint)
    return trainer, steps, starts


def batch_inputs(trainer):
    """Copy the inputs of the current step, shape ``(run, batch, channel, row, column)``."""
    inputs = trainer.batches.batch_inputs
    return inputs.unflatten(0, (len(trainer.recorder.alive), -1)).clone()


def arrays_of(tensors, run):
    """Return the arrays of one run by name."""
    return {name: tensor[run].numpy() for name, tensor in tensors.items()}


# standard deviation of initial weights by gain, outputs, inputs and places of a kernel
DEVIATIONS = {
    "he": lambda gain, outputs, inputs, places: gain / math.sqrt(inputs * places),
    "he_uniform": lambda gain, outputs, inputs, places: gain / math.sqrt(inputs * places),
    "xavier": lambda gain, outputs, inputs, places: (
        gain * math.sqrt(2 / ((outputs + inputs) * places))
    ),
    "pytorch": lambda gain, outputs, inputs, places: 1 / math.sqrt(3 * inputs * places),
    "orthogonal": lambda gain, outputs, inputs, places: (
        gain / math.sqrt(max(outputs, inputs * places))
    ),
}


def deviation(initialization, shape, gain):
    """Compute the standard deviation of initial weights of a shape ``(output, input, …)``."""
    return DEVIATIONS[initialization](gain, shape[0], shape[1], math.prod(shape[2:]))
