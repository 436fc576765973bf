"""A cohort in lock-step against a plain PyTorch loop over one network, and what one member may know of another: nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from plasticity import networks, tasks
from plasticity.settings import Network, Optimizer, Problem, Setting
from plasticity.training import Cohort, train

SETTING = Setting(
    Problem("tiny", "shuffle_labels", samples=30, batch=7, epochs=10, tasks=6),
    Network("mlp", width=8, depth=2, activation="relu"),
    Optimizer("adam", lr=0.003),
)
ARMS = {"none": [{}], "fresh": [{}]} | {name: [{"strength": 0.01}, {"strength": 0.3}] for name in ("l2", "l2_init", "wasserstein")}
ODD = replace(SETTING, network=replace(SETTING.network, width=11))  # rows that fill no whole number of the processor's vectors
OUTCOMES = ["final_error", "online_error", "final_loss", "update_norm"]


def trained(data, method, arms, seeds, setting=SETTING, dtype=torch.float64, sabotage=None):
    """Outcomes, and the parameters at each task's start and at the end, shape ``(time, arm, seed, parameter)``."""
    cohort = Cohort(setting, method, arms, seeds, data, torch.device("cpu"), dtype)
    if sabotage:
        sabotage(cohort)
    saved = {}
    outcomes = train(cohort, lambda task, parameters: saved.update({task: parameters.clone()}))
    assert list(saved) == list(range(setting.problem.tasks))
    end = cohort.parameters.flat.detach().view(len(arms), len(seeds), -1)
    return outcomes, torch.stack([*saved.values(), end])


def penalty(method, strength, module, start):
    """A penalty on one network, by its definition."""
    pairs = list(zip(module.parameters(), start, strict=True))
    match method:
        case "l2":
            return strength / 2 * sum((w**2).sum() for w, _ in pairs)
        case "l2_init":
            return strength / 2 * sum(((w - w0) ** 2).sum() for w, w0 in pairs)
        case "wasserstein":
            return strength / 2 * sum(((w.flatten().sort().values - w0.flatten().sort().values) ** 2).sum() for w, w0 in pairs)
    return 0.0


def trained_plainly(data, method, strength, seed, setting=SETTING):
    """One member, one network: outcomes of each task, and the parameters at each task's start and at the end."""
    problem = setting.problem
    activation = networks.ACTIVATIONS[setting.network.activation]
    hidden = [nn.Linear(12, 8), activation(), nn.Linear(8, 8), activation()]
    module = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(8, 4)).double()

    def reset(task):
        drawn = networks.initial(networks.build(setting.network, (2, 2, 3), 4), setting.network, seed, task)
        with torch.no_grad():
            for parameter, value in zip(module.parameters(), drawn.values(), strict=True):
                parameter.copy_(value)
        return torch.optim.Adam(module.parameters(), lr=setting.optimizer.lr, fused=False, foreach=False)

    def flat():
        return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])

    optimizer = reset(0)
    start = [parameter.detach().clone() for parameter in module.parameters()]
    outcomes, states = {name: [] for name in OUTCOMES}, []
    for task in range(problem.tasks):
        inputs, labels = tasks.task(problem, data, seed, task)
        inputs = inputs.double()
        if method == "fresh":
            optimizer = reset(task)
        states.append(flat())
        errors, moves = [], []
        for samples in torch.from_numpy(tasks.batches(problem, seed, task)).flatten(0, 1):
            outputs = module(inputs[samples])
            optimizer.zero_grad()
            (nn.functional.cross_entropy(outputs, labels[samples]) + penalty(method, strength, module, start)).backward()
            before = flat()
            optimizer.step()
            errors.append((outputs.argmax(dim=1) != labels[samples]).double().mean())
            moves.append((flat() - before).norm())
        with torch.no_grad():
            outputs = module(inputs)
        outcomes["final_error"].append((outputs.argmax(dim=1) != labels).double().mean())
        outcomes["final_loss"].append(nn.functional.cross_entropy(outputs, labels))
        outcomes["online_error"].append(sum(errors) / len(errors))
        outcomes["update_norm"].append(sum(moves) / len(moves))
    return {name: np.array(values) for name, values in outcomes.items()}, torch.stack([*states, flat()])


@pytest.mark.parametrize(("method", "arms"), ARMS.items())
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_each_member_is_trained_as_by_a_plain_loop_over_its_network(data, method, arms, activation):
    setting = replace(SETTING, network=replace(SETTING.network, activation=activation))
    assert setting.problem.steps * setting.problem.tasks >= 200
    outcomes, states = trained(data, method, arms, [0, 3], setting)
    assert not outcomes["status"].any()
    for a, arm in enumerate(arms):
        for s, seed in enumerate([0, 3]):
            expected, expected_states = trained_plainly(data, method, arm.get("strength"), seed, setting)
            torch.testing.assert_close(states[:, a, s], expected_states, rtol=0, atol=1e-10)
            for name in OUTCOMES:
                np.testing.assert_allclose(outcomes[name][a, s], expected[name], rtol=0, atol=1e-10, err_msg=name)


def test_learning_happens_and_outcomes_are_of_the_right_size(data):
    longer = replace(SETTING, problem=replace(SETTING.problem, epochs=120, tasks=2))
    outcomes, _ = trained(data, "none", [{}], [0], longer)
    assert (outcomes["final_error"] <= 0.1).all()
    assert (outcomes["final_error"] < outcomes["online_error"]).all()
    assert ((outcomes["update_norm"] > 0) & (outcomes["update_norm"] < 0.003 * 10 * np.sqrt(212))).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["none", "fresh", "wasserstein"])
def test_a_members_numbers_do_not_depend_on_the_block_it_is_trained_in(data, method, dtype):
    block, block_states = trained(data, method, ARMS[method], [0, 1, 2], ODD, dtype)
    alone, alone_states = trained(data, method, ARMS[method], [2], ODD, dtype)
    assert torch.equal(block_states[:, :, 2:], alone_states)
    for name, values in alone.items():
        np.testing.assert_array_equal(block[name][:, 2:], values, err_msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["l2", "l2_init", "wasserstein"])
def test_a_members_numbers_do_not_depend_on_other_arms(data, method, dtype):
    both, both_states = trained(data, method, ARMS[method], [0, 1], ODD, dtype)
    alone, alone_states = trained(data, method, ARMS[method][1:], [0, 1], ODD, dtype)
    assert torch.equal(both_states[:, 1:], alone_states)
    for name, values in alone.items():
        np.testing.assert_array_equal(both[name][1:], values, err_msg=name)
    assert not np.array_equal(both["final_loss"][0], both["final_loss"][1])


@pytest.mark.parametrize("method", ["l2", "l2_init", "wasserstein"])
def test_a_strength_of_zero_is_no_intervention_bit_for_bit(data, method):
    zero, zero_states = trained(data, method, [{"strength": 0.0}], [0, 1], dtype=torch.float32)
    none, none_states = trained(data, "none", [{}], [0, 1], dtype=torch.float32)
    assert torch.equal(zero_states, none_states)
    for name, values in none.items():
        np.testing.assert_array_equal(zero[name], values, err_msg=name)


def test_the_same_cohort_twice_gives_the_same_bytes(data):
    (first, states), (second, states_again) = (
        trained(data, "wasserstein", ARMS["wasserstein"], [0, 1], dtype=torch.float32) for _ in range(2)
    )
    assert states.numpy().tobytes() == states_again.numpy().tobytes()
    assert {name: values.tobytes() for name, values in first.items()} == {name: values.tobytes() for name, values in second.items()}


def test_global_randomness_plays_no_part(data):
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 # it must play no part
        runs.append(trained(data, "fresh", [{}], [0])[1])
    assert torch.equal(*runs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_arm_that_diverges_at_once_is_nan_from_the_first_task_and_harms_no_other(data, dtype):
    excessive = 2 * torch.finfo(dtype).max  # overflows to inf in its dtype, if not in Python
    arms = [{"strength": excessive}, {"strength": 0.01}]
    both, both_states = trained(data, "l2", arms, [0, 1], dtype=dtype)
    sane, sane_states = trained(data, "l2", arms[1:], [0, 1], dtype=dtype)
    assert torch.equal(both_states[:, 1:], sane_states)
    for name, values in sane.items():
        np.testing.assert_array_equal(both[name][1:], values, err_msg=name)
    assert (both["status"][0] == 1).all()
    assert (both["status"][1] == 0).all()
    assert all(np.isnan(both[name][0]).all() for name in OUTCOMES)


def test_a_member_that_diverges_midway_keeps_its_numbers_until_then(data):
    steps = SETTING.problem.steps

    def sabotage(cohort):
        penalty, calls = cohort.intervention.penalty, iter(range(10**6))

        def poisoned(parameters):
            factor = torch.ones(4, dtype=torch.float64)
            factor[1] = torch.inf if next(calls) >= 2 * steps + 5 else 1  # within task 2
            return penalty(parameters) * factor

        cohort.intervention.penalty = poisoned

    broken, broken_states = trained(data, "l2", ARMS["l2"], [0, 1], sabotage=sabotage)
    whole, whole_states = trained(data, "l2", ARMS["l2"], [0, 1])
    assert broken["status"].reshape(4, 6).tolist() == [[0] * 6, [0, 0, 1, 1, 1, 1], [0] * 6, [0] * 6]
    for name in OUTCOMES:
        values, expected = broken[name].reshape(4, 6), whole[name].reshape(4, 6).copy()
        expected[1, 2:] = np.nan
        np.testing.assert_array_equal(values, expected, err_msg=name)
    states = broken_states.view(7, 4, -1)
    assert states[3:, 1].isnan().any(dim=-1).all()
    assert torch.equal(states[:3], whole_states.view(7, 4, -1)[:3])
    assert torch.equal(states[:, [0, 2, 3]], whole_states.view(7, 4, -1)[:, [0, 2, 3]])


def test_every_task_is_saved_at_its_start_the_first_with_the_initial_draw(data):
    module = networks.build(SETTING.network, (2, 2, 3), 4)
    for method, arms in ARMS.items():
        _, states = trained(data, method, arms, [0, 1])
        for task in range(SETTING.problem.tasks if method == "fresh" else 1):
            for s, seed in enumerate([0, 1]):
                drawn = torch.cat([value.flatten() for value in networks.initial(module, SETTING.network, seed, task).values()])
                for a in range(len(arms)):
                    assert torch.equal(states[task, a, s], drawn)
        assert all(not torch.equal(states[task], states[task + 1]) for task in range(SETTING.problem.tasks))


def test_progress_wraps_the_loop_over_tasks(data):
    seen = []

    def progress(rounds):
        for task in rounds:
            seen.append(task)
            yield task

    train(Cohort(SETTING, "none", [{}], [0], data, torch.device("cpu")), lambda task, parameters: None, progress)
    assert seen == list(range(SETTING.problem.tasks))
