"""Compositions of methods: each method acts as it does alone."""

import pytest
import torch
from ensembles import ARMS, SETTING, changed, new_trainer, train_all

from plasticity.config.models import hyperparameters, parts
from plasticity.models.ensemble import QuadraticPenalty
from plasticity.training.method import Intervention
from plasticity.training.trainer import train


def gradient_of_step(data, method, arm):
    """Take a step away from the initial parameters and return its gradient."""
    trainer = new_trainer(data, method, [arm], [0, 1], SETTING)
    learner = trainer.learner
    trainer.on_task_start()
    noise = torch.randn(
        learner.parameters.flat.shape,
        generator=torch.Generator().manual_seed(0),
        dtype=torch.float64,
    )
    with torch.no_grad():
        learner.parameters.flat.add_(0.1 * noise)
    trainer._take_step(torch.arange(14) * 2)
    return learner.parameters.padded_gradient.clone()


PENALTIES = ["l2", "l2_init", "wasserstein", "spectral", "parseval", "l2_er"]


@pytest.mark.parametrize("other", PENALTIES[1:])
def test_gradients_of_penalties_add_up(data, other):
    one, two = ARMS["l2"][1], ARMS[other][1]
    both = {f"l2.{key}": value for key, value in one.items()} | {
        f"{other}.{key}": value for key, value in two.items()
    }
    none, first, second = (
        gradient_of_step(data, method, arm)
        for method, arm in (("none", {}), ("l2", one), (other, two))
    )
    for order in (f"l2+{other}", f"{other}+l2"):
        torch.testing.assert_close(
            gradient_of_step(data, order, both) - none,
            (first - none) + (second - none),
            rtol=1e-9,
            atol=1e-12,
        )


def test_gradients_of_three_penalties_of_both_kinds_add_up(data):
    arms = {method: ARMS[method][1] for method in ("spectral", "l2", "l2_init")}
    combined = {
        f"{method}.{key}": value for method, arm in arms.items() for key, value in arm.items()
    }
    none = gradient_of_step(data, "none", {})
    expected = none + sum(
        gradient_of_step(data, method, arm) - none for method, arm in arms.items()
    )
    torch.testing.assert_close(
        gradient_of_step(data, "spectral+l2+l2_init", combined), expected, rtol=1e-9, atol=1e-12
    )


def test_after_step_hooks_are_called_in_the_order_of_names(data):
    decay, clip = {"weight_decay.strength": 1.0}, {"weight_clipping.bound": 0.1}
    _, first = train_all(data, "weight_decay+weight_clipping", [decay | clip], [0])
    _, second = train_all(data, "weight_clipping+weight_decay", [decay | clip], [0])
    assert not torch.equal(first[-1], second[-1])
    bounds = (
        new_trainer(data, "weight_clipping", [{"bound": 0.1}], [0])
        .interventions["weight_clipping"]
        ._bound
    )
    assert (first[-1].abs() == bounds).any()  # clipped last
    assert not (second[-1].abs() == bounds).any()  # and decayed since


def test_masks_of_several_methods_are_multiplied(data):
    class Half(Intervention):
        def masks(self, learner):
            return {"hidden_2": torch.full((2, 7, 8), 0.5, dtype=torch.float64)}

    class Third(Intervention):
        def masks(self, learner):
            return {
                "hidden_1": torch.full((2, 7, 8), 0.25, dtype=torch.float64),
                "hidden_2": torch.full((2, 7, 8), 1 / 3, dtype=torch.float64),
            }

    trainer = new_trainer(data, "dropout", [{"rate": 0}], [0, 1])
    trainer.on_task_start()
    trainer._step.draw_masks()
    trainer._take_step(torch.arange(14))
    unmasked = trainer.learner.hidden
    trainer = new_trainer(data, "dropout", [{"rate": 0}], [0, 1])
    trainer.on_task_start()
    dropout = trainer.interventions.pop("dropout")
    trainer.interventions |= {"half": Half(), "dropout": dropout, "third": Third()}
    trainer._step.draw_masks()
    trainer._take_step(torch.arange(14))
    torch.testing.assert_close(
        trainer.learner.hidden["hidden_1"], unmasked["hidden_1"] / 4, rtol=1e-12, atol=0
    )
    assert (trainer.learner.hidden["hidden_2"] != unmasked["hidden_2"]).any()
    alone = torch.relu(
        trainer.learner.hidden["hidden_1"].detach()
        @ new_trainer(data, "none", [{}], [0, 1]).learner.parameters.tensors["hidden_2.weight"].mT
    )
    torch.testing.assert_close(
        trainer.learner.hidden["hidden_2"], alone / 6, rtol=1e-12, atol=1e-15
    )  # biases are 0


def test_layer_norm_with_l2_equals_l2_on_a_network_with_layer_norm(data):
    normed = changed(network={"options": {"width": 8, "depth": 2, "norm": "layer"}})
    _, composed = train_all(
        data, "layer_norm+l2", [{"l2.strength": 0.1}], [0, 1], dtype=torch.float32
    )
    _, alone = train_all(data, "l2", [{"strength": 0.1}], [0, 1], normed, torch.float32)
    assert torch.equal(composed, alone)


@pytest.mark.parametrize(
    "neutral",
    [
        {"dropout.rate": 0},
        {"weight_decay.strength": 0},
        {"hare_tortoise.period": 0},
        {"spectral.strength": 0},
    ],
)
@pytest.mark.parametrize("method", ["redo", "shrink_perturb", "l2_er"])
def test_neutral_method_does_not_change_another_method(data, method, neutral):
    other = next(iter(neutral)).split(".")[0]
    named = [
        {f"{method}.{key}": value for key, value in arm.items()} | neutral for arm in ARMS[method]
    ]
    _, alone = train_all(data, method, ARMS[method], [0, 1], dtype=torch.float32)
    for name in (f"{method}+{other}", f"{other}+{method}"):
        assert torch.equal(train_all(data, name, named, [0, 1], dtype=torch.float32)[1], alone)


def test_state_of_each_method_is_prefixed_with_its_name(data):
    arm = {
        "hare_tortoise.period": 5,
        "continual_backprop.rate": 0.1,
        "spectral.strength": 0.1,
        "l2_init.strength": 0.1,
    }
    trainer = new_trainer(data, "hare_tortoise+continual_backprop+spectral+l2_init", [arm], [0])
    train(trainer)
    names = {
        name for name in trainer.state_tensors() if not name.startswith(("outcome", "optimizer"))
    }
    parts = {
        f"continual_backprop_{kind}_hidden_{level}"
        for kind in ("utility", "age", "due")
        for level in (1, 2)
    }
    spectral = {f"spectral_{layer}" for layer in ("hidden_1", "hidden_2", "output")}
    assert names == {"parameters", "alive", "hare_tortoise_slow"} | parts | spectral


def test_hyperparameters_of_a_part_are_prefixed_with_its_name():
    arm = {"l2.strength": 1, "l2_init.strength": 2, "spectral.kernels": "flat"}
    found = {
        part: hyperparameters("l2 + l2_init+spectral", part, arm)
        for part in ("l2", "l2_init", "spectral")
    }
    assert found == {
        "l2": {"strength": 1},
        "l2_init": {"strength": 2},
        "spectral": {"kernels": "flat"},
    }
    assert hyperparameters("l2", "l2", {"strength": 3}) == {"strength": 3}
    assert parts("layer_norm + l2+redo") == ["layer_norm", "l2", "redo"]


def test_hyperparameters_are_set_per_run_with_defaults(data):
    trainer = new_trainer(
        data,
        "spectral",
        [{"strength": 0.1, "power": 3}, {"strength": 0.2}],
        [0, 1],
        dtype=torch.float32,
    )
    spectral = trainer.interventions["spectral"]
    assert spectral.strength.tolist() == pytest.approx([0.1, 0.1, 0.2, 0.2])
    assert spectral.power.tolist() == [3, 3, 2, 2]
    assert {spectral.strength.dtype, spectral.power.dtype} == {torch.float32}


def test_quadratic_and_autograd_penalties_are_both_built(data):
    trainer = new_trainer(
        data, "l2+parseval", [{"l2.strength": 0.1, "parseval.strength": 0.1}], [0]
    )
    l2, parseval = (
        trainer.interventions[name].penalty(trainer.learner) for name in ("l2", "parseval")
    )
    assert isinstance(l2, QuadraticPenalty)
    assert parseval.shape == (1,)


def test_masks_of_all_steps_have_the_same_address(data):
    """A captured graph reads them there."""
    trainer = new_trainer(data, "dropout", [{"rate": 0.5}], [0, 1])
    trainer.on_task_start()
    trainer._step.draw_masks()
    first = {layer: mask.clone() for layer, mask in trainer._step._masks.items()}
    addresses = {layer: mask.data_ptr() for layer, mask in trainer._step._masks.items()}
    trainer._step.draw_masks()
    for layer, mask in trainer._step._masks.items():
        assert mask.data_ptr() == addresses[layer]
        assert (mask != first[layer]).any()
