"""Small ensembles of every method: hyper-parameters that act, settings, and how they are trained."""

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

# two arms of each method in which it acts within a dozen steps
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
    """A setting with some values of its parts replaced: ``changed(problem={"tasks": 1})``."""
    return replace(
        setting,
        **{part: replace(getattr(setting, part), **values) for part, values in parts.items()},
    )


def images(size, n=40, channels=1):
    """A prepared dataset of noise, of three classes."""
    draw = np.random.default_rng(0)
    return dataset.describe(
        "small",
        dataset.Images(
            draw.integers(0, 10, (n, channels, size, size), np.uint8),
            np.arange(n) % 3,
            list("abc"),
            9,
        ),
        {},
    )


def seen(setting, method):
    """The setting with what a method makes of its network."""
    changes = {
        key: value
        for part in parts(method)
        for key, value in (registry.constant("methods", part, "NETWORK") or {}).items()
    }
    return replace(setting, network=Network.of(asdict(setting.network) | changes))


def begun(
    data,
    method,
    arms,
    seeds=(0,),
    setting=SETTING,
    dtype=torch.float64,
    recorded=Training(curve_points=3),  # noqa: B008 - it is frozen
):
    """Runs that have not learned anything."""
    return Trainer(
        seen(setting, method),
        method,
        list(product(arms, seeds)),
        data,
        recorded,
        torch.device("cpu"),
        dtype,
    )


def trained(*args, sabotage=None, **kwargs):
    """Runs that learned all tasks, and the parameters at each task's start and at the end, ``(time, run, parameter)``."""
    runs = begun(*args, **kwargs)
    if sabotage:
        sabotage(runs)
    states = []
    train(runs, lambda task, parameters: states.append(parameters.clone()))
    return runs, torch.stack([*states, runs.learner.parameters.flat.detach()])


def alone(runs, run):
    """One run's parameters by name, copied."""
    return {
        name: tensor[run].detach().clone()
        for name, tensor in runs.learner.parameters.tensors.items()
    }


class Step(NamedTuple):
    """What was there around one step: parameters before it, after the optimizer and after the methods, each ``(run, …)`` by name."""

    task: int
    count: int  # of steps in all tasks, from 1
    inputs: Tensor
    before: dict[str, Tensor]
    gradient: dict[str, Tensor]
    stepped: dict[str, Tensor]
    stepped_means: dict[str, dict[str, Tensor]]
    after: dict[str, Tensor]
    means: dict[str, dict[str, Tensor]]
    hidden: dict[str, Tensor]
    state: dict[str, Tensor]


def steps_of(data, method, arms, seeds=(0,), setting=SETTING, **kwargs):
    """Runs of a single method that learned all tasks, all their steps, and the parameters at each task's start."""
    runs = begun(data, method, arms, seeds, setting, **kwargs)
    learner, intervention, steps, starts = runs.learner, runs.interventions[method], [], []
    take, act, halves = learner.optimizer.step, intervention.after_step, []

    def split(matrix):
        return {
            name: tensor.detach().clone()
            for name, tensor in learner.parameters.split(
                matrix[:, : learner.parameters.flat.shape[1]]
            ).items()
        }

    def means():
        return {name: split(values) for name, values in learner.optimizer.means.items()}

    def step(parameters, gradient):
        inputs = runs.batches.batch_inputs.view(len(runs.recorder.alive), -1, *runs.batches.batch_inputs.shape[1:]).clone()
        first = [inputs, split(parameters), split(gradient)]
        take(parameters, gradient)
        halves.append([*first, split(parameters), means()])

    def after_step(learner):
        act(learner)
        state = {name: tensor.clone() for name, tensor in intervention.state().items()}
        last = [
            split(learner.parameters.padded),
            means(),
            {name: values.detach() for name, values in learner.hidden.items()},
            state,
        ]
        steps.append(Step(learner.task, learner.total_steps, *halves.pop(), *last))

    learner.optimizer.step, intervention.after_step = step, after_step
    train(runs, lambda task, parameters: starts.append((split(learner.parameters.padded), means())))
    return runs, steps, starts


def of_run(tensors, run):
    return {name: tensor[run].numpy() for name, tensor in tensors.items()}


# deviations of weights of so many outputs, inputs and places of a kernel under the initial laws
LAWS = {
    "he": lambda gain, outputs, inputs, places: gain / math.sqrt(inputs * places),
    "xavier": lambda gain, outputs, inputs, places: (
        gain * math.sqrt(2 / ((outputs + inputs) * places))
    ),
    "pytorch": lambda gain, outputs, inputs, places: 1 / math.sqrt(3 * inputs * places),
    "orthogonal": lambda gain, outputs, inputs, places: (
        gain / math.sqrt(max(outputs, inputs * places))
    ),
}


def deviation(initialization, shape, gain):
    return LAWS[initialization](gain, shape[0], shape[1], math.prod(shape[2:]))
