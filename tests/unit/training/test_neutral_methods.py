"""Methods with neutral hyperparameters equal `none` to the bit."""

import pytest
import torch
from ensembles import CNN, SETTING, changed, images, train_all, with_network_of

from plasticity.config import registry

# with these a method never does anything; each method is in one of the three tables
NEUTRAL = {
    "l2": [{"strength": 0}],
    "l2_init": [{"strength": 0}],
    "wasserstein": [{"strength": 0}],
    "weight_decay": [{"strength": 0}],
    "spectral": [
        {"strength": 0, "kernels": "flat"},
        {"strength": 0, "power": 1, "kernels": "flat"},
    ],
    "parseval": [{"strength": 0, "kernels": "places"}],
    "l2_er": [{"strength": 0, "rank": 0}],
    "shrink_perturb": [{"shrink": 0, "perturb": 0}],
    "shrink_perturb_switch": [{"shrink": 0, "perturb": 0}],
    "weight_clipping": [{"bound": 1e6}],
    "hare_tortoise": [
        {"period": 0, "momentum": 0.9},
        {"period": 3, "momentum": 0},
        {"period": 0, "momentum": 1},
    ],
    "full_reset": [{"period": 0}, {"period": 4}],
    "redo": [{"threshold": 0.5, "period": 0}],
    "continual_backprop": [{"rate": 0, "maturity": 0}, {"rate": 1, "maturity": 1e6}],
    "self_normalized_resets": [{"rejection": 0}],
    "neuroplastic_expansion": [
        {"density": 1, "period": 2},
        {"density": 1, "growth": 0, "most": 1, "period": 1},
    ],
    "dropout": [{"rate": 0}],
}
AT_BOUNDARIES = ["fresh", "last_layer_reset"]  # these act at task boundaries only
CHANGE_NETWORK = ["crelu", "layer_norm"]  # these equal `none` with another network


def assert_same_training(one, other):
    (runs, states), (others, other_states) = one, other
    count = len(runs.recorder.alive) // len(others.recorder.alive)
    assert torch.equal(states, other_states.repeat(1, count, 1))
    for name, values in others.recorder.outcomes.items():
        assert torch.equal(
            runs.recorder.outcomes[name], values.repeat(count, *[1] * (values.ndim - 1))
        ), name


def test_every_method_is_in_the_table():
    assert sorted([*NEUTRAL, *AT_BOUNDARIES, *CHANGE_NETWORK, "none"]) == registry.names("methods")


@pytest.mark.parametrize("method", NEUTRAL)
def test_neutral_method_equals_none(data, method):
    arms = NEUTRAL[method]
    assert_same_training(
        train_all(data, method, arms, [0, 1], dtype=torch.float32),
        train_all(data, "none", [{}], [0, 1], dtype=torch.float32),
    )


@pytest.mark.parametrize("method", NEUTRAL)
def test_neutral_method_equals_none_on_a_cnn(method):
    data, setting = (
        images(16),
        changed(
            CNN,
            problem={"tasks": 2, "epochs": 1},
            network={"options": {"width": 6, "norm": "layer"}},
        ),
    )
    none = train_all(data, "none", [{}], [0], setting, torch.float32)
    assert_same_training(
        train_all(data, method, NEUTRAL[method], [0], setting, torch.float32), none
    )


@pytest.mark.parametrize("method", AT_BOUNDARIES)
def test_boundary_methods_change_nothing_before_the_first_boundary(data, method):
    setting = changed(problem={"tasks": 1})
    assert_same_training(
        train_all(data, method, [{}], [0, 1], setting),
        train_all(data, "none", [{}], [0, 1], setting),
    )


@pytest.mark.parametrize("method", CHANGE_NETWORK)
def test_baseline_of_a_changed_network_is_fresh_on_that_network(data, method):
    assert_same_training(
        train_all(data, f"fresh+{method}", [{}], [0, 1]),
        train_all(data, "fresh", [{}], [0, 1], with_network_of(SETTING, method)),
    )


@pytest.mark.parametrize("method", CHANGE_NETWORK)
def test_network_methods_equal_none_on_the_changed_network(data, method):
    none = train_all(data, "none", [{}], [0, 1], with_network_of(SETTING, method), torch.float32)
    assert_same_training(train_all(data, method, [{}], [0, 1], dtype=torch.float32), none)
    assert not torch.equal(
        none[1][-1], train_all(data, "none", [{}], [0, 1], dtype=torch.float32)[1][-1]
    )
