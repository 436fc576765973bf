"""Properties of every method: independent runs, exact restarts, reproducible bytes."""

import copy

import numpy as np
import pytest
import torch
from ensembles import ARMS, CNN, COMPOSED, SETTING, changed, images, new_trainer, train_all
from tiers import slow_except

from plasticity.config import registry
from plasticity.config.models import Training
from plasticity.training.trainer import train

# rows that fill no intact number of the processor's vectors
ODD = changed(network={"options": {"width": 11, "depth": 2}})
# so wide that products of one matrix are another routine's than those of several
WIDE = changed(problem={"batch": 16, "tasks": 2}, network={"options": {"width": 100, "depth": 2}})
EVERY = ARMS | COMPOSED
ON_CNN = {
    method: ARMS[method]
    for method in (
        "continual_backprop",
        "dropout",
        "l2_er",
        "neuroplastic_expansion",
        "redo",
        "shrink_perturb",
    )
} | {
    method: [arm | {"kernels": "flat"} for arm in ARMS[method]]
    for method in ("spectral", "parseval")
}


def bits(values):
    """Return shapes and bytes, which tell even 0 from −0."""
    return {name: (values[name].shape, values[name].tobytes()) for name in values}


def share(trainer, which):
    """Return the bytes of some runs in a trainer's state."""
    return bits(
        {
            name: values if name == "task" else values[which]
            for name, values in trainer.state().items()
        }
    )


def test_every_method_is_in_the_table():
    assert sorted(ARMS) == registry.names("methods")


@pytest.mark.parametrize("dtype", slow_except([torch.float32], [torch.float32, torch.float64]))
@pytest.mark.parametrize("setting", [ODD, WIDE], ids=["odd", "wide"])
@pytest.mark.parametrize("method", EVERY)
def test_run_in_an_ensemble_equals_run_alone(data, method, setting, dtype):
    arms = EVERY[method]
    block, states = train_all(data, method, arms, [0, 1, 2], setting, dtype)
    one, states_alone = train_all(data, method, arms[1:], [2], setting, dtype)
    assert torch.equal(states[:, 5:], states_alone)
    assert share(block, [5]) == share(one, [0])
    assert arms[0] == arms[1] or not torch.equal(states[:, 2], states[:, 5])


@pytest.mark.parametrize("method", ON_CNN)
def test_convolutional_run_in_an_ensemble_equals_run_alone(method):
    data, setting = images(16), changed(CNN, problem={"tasks": 2, "epochs": 2})
    block, states = train_all(data, method, ON_CNN[method], [0, 1], setting, torch.float32)
    one, states_alone = train_all(data, method, ON_CNN[method][1:], [1], setting, torch.float32)
    assert torch.equal(states[:, 3:], states_alone)
    assert share(block, [3]) == share(one, [0])


@pytest.mark.parametrize("method", EVERY)
def test_run_restored_after_any_task_equals_uninterrupted_run(data, method):
    trainer, states_of_tasks, saved = (
        new_trainer(data, method, EVERY[method], [0, 1], dtype=torch.float32),
        [],
        {},
    )
    train(
        trainer,
        lambda task, parameters: saved.update({task: parameters.clone()}),
        lambda state: states_of_tasks.append(copy.deepcopy(state)),
    )
    for state in states_of_tasks:
        restored, rest = new_trainer(data, method, EVERY[method], [0, 1], dtype=torch.float32), {}
        restored.restore(state)
        train(restored, lambda task, parameters, rest=rest: rest.update({task: parameters.clone()}))
        assert list(rest) == list(range(int(state["task"]), SETTING.problem.tasks))
        assert all(torch.equal(parameters, saved[task]) for task, parameters in rest.items())
        assert bits(restored.state()) == bits(states_of_tasks[-1])


@pytest.mark.parametrize("method", EVERY)
def test_bytes_do_not_depend_on_global_random_state(data, method):
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 # it must play no part
        runs.append(
            bits(train_all(data, method, EVERY[method], [0, 1], dtype=torch.float32)[0].state())
        )
    assert runs[0] == runs[1]


@pytest.mark.parametrize("value", slow_except([torch.inf], [torch.nan, torch.inf]))
@pytest.mark.parametrize("method", EVERY)
def test_diverged_run_does_not_change_other_runs(data, method, value):
    def sabotage(trainer):
        optimizer, calls = trainer.learner.optimizer, iter(range(1000))
        step = optimizer.step

        def poisoned(parameters, gradient):
            step(parameters, gradient)
            if next(calls) == SETTING.problem.steps + 3:
                parameters[1, :20] = value

        optimizer.step = poisoned

    arms = EVERY[method]
    broken, states = train_all(data, method, arms, [0, 1], dtype=torch.float32, sabotage=sabotage)
    intact, expected = train_all(data, method, arms, [0, 1], dtype=torch.float32)
    assert torch.equal(states[:, [0, 2, 3]], expected[:, [0, 2, 3]])
    assert share(broken, [0, 2, 3]) == share(intact, [0, 2, 3])
    assert torch.equal(states[:2, 1], expected[:2, 1])
    if method != "weight_clipping" or value is torch.nan:  # clipping makes inf finite
        assert broken.recorder.outcomes["status"][1].tolist() == [0, 1, 1]
        assert states[2:, 1].isnan().all()


@pytest.mark.parametrize("method", EVERY)
def test_tensors_that_a_method_changes_are_in_its_state(data, method):
    trainer = new_trainer(data, method, EVERY[method], [0, 1])
    before = {
        part: copy.deepcopy(public(intervention))
        for part, intervention in trainer.interventions.items()
    }
    train(trainer)
    for part, intervention in trainer.interventions.items():
        in_state = {tensor.data_ptr() for tensor in intervention.state().values()}
        after = public(intervention)
        assert after.keys() == before[part].keys()
        changes = [
            name for name, tensor in after.items() if not torch.equal(tensor, before[part][name])
        ]
        assert all(after[name].data_ptr() in in_state for name in changes), (part, changes)


def public(intervention):
    """Return the tensors of a method that must be in its state.

    Names that begin with _ are temporary, or drawn at the start of each task.
    """
    found = {}
    for name, value in vars(intervention).items():
        if not name.startswith("_"):
            tensors = value if isinstance(value, dict) else {"": value}
            found |= {
                f"{name}.{key}": tensor
                for key, tensor in tensors.items()
                if isinstance(tensor, torch.Tensor)
            }
    return found


@pytest.mark.parametrize("method", EVERY)
def test_method_works_in_bfloat16(data, method):
    trainer, _ = train_all(
        data,
        method,
        EVERY[method],
        [0],
        dtype=torch.float32,
        recorded=Training(precision="bfloat16"),
    )
    assert not trainer.recorder.outcomes["status"].any()
    assert all(tensor.dtype != torch.bfloat16 for tensor in trainer.state_tensors().values())
