"""Neuroplastic expansion against plain loops over the layers of one run."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from ensembles import ARMS, CNN, arrays_of, changed, images, new_trainer, record_steps, train_all

from plasticity.training.methods.neuroplastic_expansion import erdos_renyi
from plasticity.training.trainer import train

METHOD = "neuroplastic_expansion"
ARM = {"density": 0.3, "growth": 0.1, "prune": 0.5, "most": 0.7, "period": 2}
SETTINGS = {
    "mlp": (changed(network={"options": {"width": 8, "depth": 2, "norm": "layer"}}), 4),
    "cnn": (changed(CNN, problem={"tasks": 2, "epochs": 2}), 16),
}


def plain_shares(sizes, density):
    """Find the scale in min(1, scale · (outputs + inputs) / (outputs · inputs)) by bisection."""
    rule = [(outputs + inputs) / (outputs * inputs) for outputs, inputs in sizes]
    total = density * sum(outputs * inputs for outputs, inputs in sizes)
    low, high = 0.0, 1e6
    for _ in range(200):
        scale = (low + high) / 2
        active = sum(
            min(1, scale * share) * outputs * inputs
            for share, (outputs, inputs) in zip(rule, sizes, strict=True)
        )
        low, high = (scale, high) if active < total else (low, scale)
    return [min(1, scale * share) for share in rule]


@pytest.mark.parametrize("density", [0.001, 0.05, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    "shapes",
    [
        [(8, 16), (8, 8), (3, 8)],
        [(100, 784), (100, 100), (10, 100)],
        [(16, 3, 5, 5), (16, 16, 5, 5), (10, 16)],
        [(4, 5)],
    ],
)
def test_shares_follow_the_erdos_renyi_rule_and_add_up_to_the_density(shapes, density):
    sizes = [(shape[0], math.prod(shape[1:])) for shape in shapes]
    found = erdos_renyi(shapes, density)
    np.testing.assert_allclose(found, plain_shares(sizes, density), rtol=1e-9)
    assert sum(share * a * b for share, (a, b) in zip(found, sizes, strict=True)) == pytest.approx(
        density * sum(a * b for a, b in sizes)
    )


@pytest.mark.parametrize("density", [0, 1])
def test_density_one_activates_all_weights_and_density_zero_none(density):
    assert erdos_renyi([(8, 16), (3, 8)], density) == [density] * 2


@pytest.mark.parametrize("kind", SETTINGS)
def test_largest_initial_weights_biases_and_norms_are_active_at_the_start(kind):
    setting, size = SETTINGS[kind]
    learner = new_trainer(images(size), METHOD, ARMS[METHOD], [0, 3], setting).learner
    dense = new_trainer(images(size), "none", [{}, {}], [0, 3], setting).learner
    names = [
        name
        for name, shape in learner.parameters.shapes.items()
        if name.endswith("weight") and len(shape) > 1
    ]
    sizes = [
        (shape[0], math.prod(shape[1:])) for shape in map(learner.parameters.shapes.get, names)
    ]
    for run in range(4):
        shares = dict(
            zip(names, plain_shares(sizes, ARMS[METHOD][run // 2]["density"]), strict=True)
        )
        for name, tensor in learner.parameters.tensors.items():
            values, expected = (
                tensor[run].detach().flatten().tolist(),
                dense.parameters.tensors[name][run].detach().flatten().tolist(),
            )
            if name in names:
                largest = sorted(
                    range(len(expected)), key=lambda place, of=expected: -abs(of[place])
                )[: round(shares[name] * len(expected))]
                expected = [
                    value if place in set(largest) else 0 for place, value in enumerate(expected)
                ]
            assert values == expected, name


@pytest.mark.parametrize("kind", SETTINGS)
def test_gained_and_lost_weights_equal_the_definition(kind):
    setting, size = SETTINGS[kind]
    arms = [
        ARM,
        {**ARM, "prune": 1, "growth": 0.05, "period": 3},
        {**ARM, "prune": 0, "growth": 0.3},
    ]
    trainer, steps, starts = record_steps(images(size), METHOD, arms, [0], setting)
    events = 0
    for run, arm in enumerate(arms):
        active = {
            name: values != 0
            if "weight" in name and "norm" not in name
            else np.ones_like(values, bool)
            for name, values in arrays_of(starts[0][0], run).items()
        }
        for step in steps:
            stepped, after = arrays_of(step.stepped, run), arrays_of(step.after, run)
            gradient, new = arrays_of(step.gradient, run), {}
            for name, mask in active.items():
                new[name] = np.zeros_like(mask)
                if not (
                    step.count % arm["period"] == 0
                    and "weight" in name
                    and "norm" not in name
                    and mask.mean() < arm["most"]
                ):
                    continue
                flat, size = mask.ravel(), mask.size
                gain = math.floor(arm["growth"] * size)
                weights, derivatives = np.abs(stepped[name]).ravel(), np.abs(gradient[name]).ravel()
                lost = sorted(
                    np.flatnonzero(flat), key=lambda place, of=weights: (of[place], place)
                )[: math.floor(arm["prune"] * gain)]
                flat[lost] = False
                gained = sorted(
                    np.flatnonzero(~flat), key=lambda place, of=derivatives: (-of[place], place)
                )[:gain]
                flat[gained] = True
                new[name].ravel()[[*lost, *gained]] = True
                events += 1
            for name, mask in active.items():
                np.testing.assert_array_equal(
                    after[name], np.where(mask & ~new[name], stepped[name], 0), err_msg=name
                )
                for mean, tensors in step.means.items():
                    expected = np.where(new[name], 0, step.stepped_means[mean][name][run].numpy())
                    np.testing.assert_array_equal(tensors[name][run].numpy(), expected)
            state = trainer.learner.parameters.split(step.state["active"])
            assert all((state[name][run].numpy() == mask).all() for name, mask in active.items())
    assert events > 10


def test_growth_stops_at_the_largest_share(data):
    setting = changed(problem={"epochs": 8, "tasks": 2})
    _, steps, _ = record_steps(data, METHOD, [ARM], [0], setting)
    shares = [step.state["active"].double().mean().item() for step in steps]
    assert shares == sorted(shares)
    assert shares[0] < 0.5 < 0.7 < shares[-1] < 0.95
    assert len(set(shares[len(shares) // 2 :])) == 1
    _, states = train_all(data, METHOD, [{**ARM, "period": 0}], [0], setting)
    assert (states[-1] == 0).double().mean() > 0.4


def test_inactive_weights_stay_zero_with_a_fresh_head(data):
    setting = changed(problem={"head": "fresh"})
    _, steps, starts = record_steps(data, METHOD, [{**ARM, "period": 0}], [0], setting)
    absent = starts[0][0]["output.weight"] == 0
    assert absent.any()
    for tensors, _ in starts:
        assert torch.equal(tensors["output.weight"] == 0, absent)
    assert all(torch.equal(step.before["output.weight"] == 0, absent) for step in steps)
    assert not torch.equal(
        starts[1][0]["output.weight"], steps[11].after["output.weight"]
    )  # it was drawn again


def test_active_weights_of_a_run_depend_on_its_own_arm_only(data):
    together, states = train_all(data, METHOD, [ARM, {**ARM, "density": 0.8}], [0])
    _, alone = train_all(data, METHOD, [ARM], [0])
    assert torch.equal(states[:, :1], alone)
    assert (states[0, 0] == 0).sum() > (states[0, 1] == 0).sum()
    assert not together.recorder.outcomes["status"].any()


@pytest.mark.parametrize(
    "other",
    ["full_reset", "last_layer_reset", "shrink_perturb", "shrink_perturb_switch", "hare_tortoise"],
)
def test_inactive_weights_stay_zero_in_compositions_of_any_order(data, other):
    arm = {f"{METHOD}.{key}": value for key, value in ARM.items()} | {
        f"{other}.{key}": value for key, value in ARMS[other][0].items()
    }
    runs = []
    for order in permutations([METHOD, other]):
        trainer, seen = new_trainer(data, "+".join(order), [arm], [0, 1]), []

        def check(trainer=trainer, seen=seen):
            seen.append(trainer.learner.parameters.flat.detach().clone())
            assert not seen[-1][~trainer.interventions[METHOD].active].any()

        take = trainer._take_step
        trainer._take_step = lambda samples, take=take, check=check: (check(), take(samples))[1]
        train(trainer, lambda task, parameters, check=check: check())
        check()
        runs.append(seen)
    assert len(runs[0]) == 3 * 12 + 3 + 1
    assert other == "hare_tortoise" or all(
        map(torch.equal, *runs)
    )  # its slow copy depends on the order
