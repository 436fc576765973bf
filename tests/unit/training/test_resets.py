"""Unit resets against plain loops over the units of one run: which units, and new values."""

import importlib
import math

import numpy as np
import pytest
import torch
from ensembles import (
    ARMS,
    CNN,
    COMPOSED,
    DEVIATIONS,
    SETTING,
    arrays_of,
    changed,
    deviation,
    images,
    new_trainer,
    record_steps,
    train_all,
)
from scipy import stats
from torch import nn

from plasticity.training import hidden_units
from plasticity.training.hidden_units import UnitResetter

GAIN = math.sqrt(2)  # of relu
UNIFORM = stats.uniform(-math.sqrt(3), 2 * math.sqrt(3))  # with variance 1
LEARNING = {"problem": {"tasks": 2, "epochs": 6}}
SETTINGS = {
    "mlp": (changed(**LEARNING), 4),
    "mlp with momentum": (
        changed(**LEARNING, optimizer={"kind": "sgd", "options": {"lr": 0.03, "momentum": 0.9}}),
        4,
    ),
    "crelu": (changed(**LEARNING, network={"activation": "crelu"}), 4),
    "cnn": (changed(CNN, problem={"tasks": 2, "epochs": 2}), 20),
}


def units_of(kind):
    """Return, by layer, the next layer and the inputs of it that come from one unit."""
    if kind == "cnn":
        takers = {
            "conv_1": "conv_2",
            "conv_2": "hidden_1",
            "hidden_1": "hidden_2",
            "hidden_2": "output",
        }
        return {
            layer: (
                taker,
                lambda unit, places=4 if layer == "conv_2" else 1: [
                    *range(unit * places, (unit + 1) * places)
                ],
            )
            for layer, taker in takers.items()
        }
    return {
        layer: (taker, lambda unit: [unit, unit + 8] if kind == "crelu" else [unit])
        for layer, taker in (("hidden_1", "hidden_2"), ("hidden_2", "output"))
    }


def activations_of(kind, tensors, inputs):
    """Compute the activations of one network with relu, by layer, shapes ``(unit, rest)``."""
    tensors = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    found, x = {}, inputs
    for layer in units_of(kind):
        weight, bias = tensors[f"{layer}.weight"], tensors[f"{layer}.bias"]
        if layer.startswith("conv"):
            x = nn.functional.conv2d(x, weight, bias).relu()
            found[layer] = x.movedim(1, 0).flatten(1).numpy()
            x = nn.functional.max_pool2d(x, 2)
        else:
            x = x.flatten(1) @ weight.T + bias
            x = torch.cat([x.relu(), (-x).relu()], dim=1) if kind == "crelu" else x.relu()
            found[layer] = x.T.unflatten(0, (-1, len(weight))).movedim(0, 1).flatten(1).numpy()
    return found


class Dormant:
    """ReDo, for one run."""

    def __init__(self, kind, arm):
        self.kind, self.arm = kind, arm

    def __call__(self, count, hidden, after):
        chosen = {layer: [] for layer in hidden}
        if self.arm["period"] and count % self.arm["period"] == 0:
            for layer, activations in hidden.items():
                sizes = [np.abs(row).mean() for row in activations]
                chosen[layer] = [
                    unit
                    for unit, size in enumerate(sizes)
                    if size <= self.arm["threshold"] * sum(sizes) / len(sizes)
                ]
        return chosen

    def agrees(self, state, run):
        return True


class Useless:
    """Continual backprop, for one run."""

    def __init__(self, kind, arm):
        self.kind, self.arm, self.numbers = kind, arm, {}

    def __call__(self, count, hidden, after):
        rate, maturity, decay = (self.arm[name] for name in ("rate", "maturity", "decay"))
        chosen = {}
        for layer, activations in hidden.items():
            taker, columns = units_of(self.kind)[layer]
            numbers = self.numbers.setdefault(
                layer,
                {"utility": [0.0] * len(activations), "age": [0] * len(activations), "due": 0.0},
            )
            for unit, row in enumerate(activations):
                outgoing = np.abs(after[f"{taker}.weight"][:, columns(unit)]).sum()
                numbers["utility"][unit] = (
                    decay * numbers["utility"][unit] + (1 - decay) * np.abs(row).mean() * outgoing
                )
                numbers["age"][unit] += 1
            mature = [unit for unit, age in enumerate(numbers["age"]) if age > maturity]
            numbers["due"] += rate * len(mature)
            mature.sort(
                key=lambda unit, numbers=numbers: (
                    numbers["utility"][unit] / (1 - decay ** numbers["age"][unit])
                )
            )
            chosen[layer] = mature[: math.floor(numbers["due"])]
            numbers["due"] -= math.floor(numbers["due"])
            for unit in chosen[layer]:
                numbers["utility"][unit], numbers["age"][unit] = 0.0, 0
        return chosen

    def agrees(self, state, run):
        return all(
            np.allclose(state[f"{name}_{layer}"][run].numpy(), values, rtol=1e-8, atol=1e-12)
            for layer, numbers in self.numbers.items()
            for name, values in numbers.items()
        )


class Silent:
    """Self-normalised resets, for one run."""

    def __init__(self, kind, arm):
        self.kind, self.arm, self.age, self.waits = kind, arm, {}, {}

    def __call__(self, count, hidden, after):
        chosen = {layer: [] for layer in hidden}
        for layer, activations in hidden.items():
            for unit, row in enumerate(activations):
                key = layer, unit
                waits = self.waits.setdefault(key, [1])
                self.age[key] = self.age.get(key, 0) + 1
                if row.any():
                    waits.append(self.age[key])
                    self.age[key] = 0
                elif self.age[key] >= -math.log(self.arm["rejection"]) * sum(waits) / len(waits):
                    chosen[layer].append(unit)
                    self.age[key], self.waits[key] = 0, [1]
        return chosen

    def agrees(self, state, run):
        return all(
            (
                state[f"age_{layer}"][run][unit],
                state[f"waited_{layer}"][run][unit],
                state[f"waits_{layer}"][run][unit],
            )
            == (self.age[layer, unit], sum(waits), len(waits))
            for (layer, unit), waits in self.waits.items()
        )


RULES = {"redo": Dormant, "continual_backprop": Useless, "self_normalized_resets": Silent}


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (method, kind)
        for method in RULES
        for kind in SETTINGS
        if (method, kind) != ("self_normalized_resets", "crelu")
    ],
)
def test_exactly_the_units_of_the_definition_are_reset_after_each_step(method, kind):
    setting, size = SETTINGS[kind]
    _, steps, _ = record_steps(images(size), method, ARMS[method], [0, 3], setting)
    assert len(steps) == setting.problem.tasks * setting.problem.steps
    total, drawn = 0, []
    for run in range(4):
        rule = RULES[method](kind, ARMS[method][run // 2])
        for step in steps:
            hidden = activations_of(kind, arrays_of(step.before, run), step.inputs[run])
            stepped, after = arrays_of(step.stepped, run), arrays_of(step.after, run)
            chosen = rule(step.count, hidden, stepped)
            assert rule.agrees(step.state, run)
            new = {name: np.zeros(values.shape, bool) for name, values in after.items()}
            for layer, (taker, columns) in units_of(kind).items():
                for unit in chosen[layer]:
                    new[f"{taker}.weight"][:, columns(unit)] = True
            for layer, own in chosen.items():
                outgoing = new[f"{layer}.weight"]
                outgoing[own] = False  # a weight between two units that are both reset is drawn
                assert not after[f"{layer}.weight"][outgoing].any()
                assert not after[f"{layer}.bias"][own].any()
                for unit in own:
                    new[f"{layer}.weight"][unit] = new[f"{layer}.bias"][unit] = True
                    total += 1
                    if run < 2:  # arms of a seed draw alike
                        drawn.append(after[f"{layer}.weight"][unit])
            assert not after["output.weight"][new["output.weight"]].any()
            for name, where in new.items():
                np.testing.assert_array_equal(after[name][~where], stepped[name][~where])
                for mean, tensors in step.means.items():
                    values, expected = (
                        tensors[name][run].numpy(),
                        step.stepped_means[mean][name][run].numpy(),
                    )
                    np.testing.assert_array_equal(values, np.where(where, 0, expected))
    assert total > 5
    assert len({row.tobytes() for row in drawn}) == len(drawn)


def learner_and_resetter(
    initialization="he", arms=2, seeds=(0, 1), activation="relu", kind="mlp", norm="none", **options
):
    """Make a learner with initial parameters, and its resetter."""
    options = {"mlp": {"width": 8, "depth": 2, "norm": norm}, "cnn": {"width": 6, "norm": norm}}[
        kind
    ] | options
    network = {
        "kind": kind,
        "activation": activation,
        "initialization": initialization,
        "options": options,
    }
    trainer = new_trainer(
        images(20 if kind == "cnn" else 4), "none", [{}] * arms, seeds, changed(network=network)
    )
    return trainer.learner, UnitResetter(trainer.learner)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_new_weights_may_be_he_uniform_whatever_the_network_starts_with(kind):
    """As in the code of continual backprop: Kaiming-uniform with the gain, and biases of 0."""
    learner = learner_and_resetter("pytorch", seeds=range(20), arms=1, kind=kind)[0]
    resetter = UnitResetter(learner, "he_uniform")
    with torch.no_grad():
        resetter.reinitialize(learner, everywhere(learner, resetter))
    for units in resetter.units:
        weight, bias = (learner.parameters.tensors[name].detach() for name in units.incoming)
        fan_in = math.prod(weight.shape[2:])
        values = weight.numpy().ravel() / (GAIN / math.sqrt(fan_in))
        assert stats.kstest(values, UNIFORM.cdf).pvalue > 1e-3
        assert not bias.any()


@pytest.mark.parametrize("initialization", ["he", "pytorch"])
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_new_weights_may_be_the_units_own_initial_ones(kind, initialization):
    """As in the code of L2 Init."""
    learner = learner_and_resetter(initialization, kind=kind)[0]
    initial = {name: values.detach().clone() for name, values in learner.parameters.tensors.items()}
    resetter = UnitResetter(learner, "stored")
    draw = torch.Generator().manual_seed(0)
    chosen = {
        units.layer: torch.rand(4, units.width, generator=draw) < 0.5 for units in resetter.units
    }
    with torch.no_grad():
        learner.parameters.flat.add_(1)
        resetter.reinitialize(learner, chosen)
    for units in resetter.units:
        where = chosen[units.layer]
        for name in units.incoming:
            now = learner.parameters.tensors[name]
            assert torch.equal(now[where], initial[name][where])
    first = resetter.units[0]
    kept = learner.parameters.tensors[first.incoming[0]][~chosen[first.layer]]
    assert torch.equal(kept, (initial[first.incoming[0]] + 1)[~chosen[first.layer]])


def test_means_of_reset_weights_may_be_kept():
    learner = learner_and_resetter()[0]
    learner.optimizer.step(learner.parameters.padded, torch.ones_like(learner.parameters.padded))
    before = {name: mean.clone() for name, mean in learner.optimizer.means.items()}
    for clears_means in (False, True):
        resetter = UnitResetter(learner, clears_means=clears_means)
        with torch.no_grad():
            resetter.reinitialize(learner, everywhere(learner, resetter))
        are_equal = [
            torch.equal(mean, before[name]) for name, mean in learner.optimizer.means.items()
        ]
        assert are_equal == [not clears_means] * len(before)


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("continual_backprop", {}, ("he_uniform", True)),
        ("continual_backprop", {"new_weights": "drawn"}, ("drawn", True)),
        ("redo", {}, ("drawn", True)),
        ("redo", {"new_weights": "stored", "means": "kept"}, ("stored", False)),
    ],
)
def test_options_reach_the_resetter(monkeypatch, method, options, expected):
    calls = []

    class Recorder(UnitResetter):
        def __init__(self, learner, new_weights="drawn", *, clears_means=True):
            calls.append((new_weights, clears_means))
            super().__init__(learner, new_weights, clears_means=clears_means)

    module = importlib.import_module(f"plasticity.training.methods.{method}")
    monkeypatch.setattr(module, "UnitResetter", Recorder)
    new_trainer(images(4), method, [ARMS[method][0] | options], [0], SETTING)
    assert calls == [expected]


def everywhere(learner, resetter, which=slice(None)):
    """Choose all units of some runs."""
    chosen = {
        units.layer: torch.zeros(len(learner.seed_of), units.width, dtype=torch.bool)
        for units in resetter.units
    }
    for mask in chosen.values():
        mask[which] = True
    return chosen


@pytest.mark.parametrize("initialization", DEVIATIONS)
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_new_incoming_weights_follow_the_initial_distribution_and_never_repeat(
    initialization, kind
):
    learner, resetter = learner_and_resetter(initialization, arms=1, kind=kind)
    found = {name: [] for units in resetter.units for name in units.incoming}
    for task in range(2):
        learner.task = task
        for _ in range(6):
            with torch.no_grad():
                resetter.reinitialize(learner, everywhere(learner, resetter))
            for units in resetter.units:
                weight, bias = units.incoming
                found[weight].append(learner.parameters.tensors[weight].detach().clone())
                found[bias].append(learner.parameters.tensors[bias].detach().clone())
    for units in resetter.units:
        weight, bias = units.incoming
        shape = learner.parameters.shapes[weight]
        expected = deviation(initialization, shape, GAIN)
        values = torch.cat(found[weight]).flatten(1).numpy() / expected  # (draw, seed, unit …)
        rows = torch.cat(found[weight]).flatten(0, 1).flatten(1)
        assert len(rows.unique(dim=0)) == len(rows)
        distribution = {
            "he_uniform": UNIFORM,
            "pytorch": UNIFORM,
            "orthogonal": None,
        }.get(initialization, stats.norm())
        if distribution is None:
            lengths, inputs = rows.norm(dim=1).numpy(), rows.shape[1]
            assert inputs >= shape[0]
            np.testing.assert_allclose(lengths, GAIN)
        else:
            assert stats.kstest(values.ravel(), distribution.cdf).pvalue > 1e-3
        assert abs(values.std() - 1) < 4 / math.sqrt(values.size)
        assert abs(values.mean()) < 4 / math.sqrt(values.size)
        if initialization == "pytorch":
            assert (
                stats.kstest(
                    torch.cat(found[bias]).numpy().ravel() / expected, distribution.cdf
                ).pvalue
                > 1e-3
            )
        else:
            assert not torch.cat(found[bias]).any()


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_units_reset_one_at_a_time_follow_the_initial_distribution(kind):
    learner, resetter = learner_and_resetter("he", arms=1, seeds=range(4), kind=kind)
    for units in resetter.units:
        rows = []
        for _ in range(3):
            for unit in range(units.width):
                chosen = {
                    other.layer: torch.zeros(4, other.width, dtype=torch.bool)
                    for other in resetter.units
                }
                chosen[units.layer][:, unit] = True
                with torch.no_grad():
                    resetter.reinitialize(learner, chosen)
                rows.append(
                    learner.parameters.tensors[units.incoming[0]]
                    .detach()[:, unit]
                    .flatten(1)
                    .clone()
                )
        rows = torch.cat(rows)
        assert len(rows.unique(dim=0)) == len(rows)
        values = rows.numpy().ravel() / deviation(
            "he", learner.parameters.shapes[units.incoming[0]], GAIN
        )
        assert stats.kstest(values, "norm").pvalue > 1e-3


def test_new_weights_depend_on_seed_task_and_layer_but_not_on_arm():
    learner, resetter = learner_and_resetter(arms=2, seeds=(0, 1), width=16)
    found = []
    for task in range(2):
        learner.task = task
        resetter.start_task(learner)
        with torch.no_grad():
            resetter.reinitialize(learner, everywhere(learner, resetter))
        rows = learner.parameters.tensors["hidden_1.weight"].detach().clone()
        assert torch.equal(rows[:2], rows[2:])
        found += [*rows[:2].flatten(1)]
    assert len(torch.stack(found).unique(dim=0)) == 4
    chosen = everywhere(learner, resetter)
    chosen["hidden_1"][:] = False
    with torch.no_grad():
        resetter.reinitialize(learner, chosen)
    second = learner.parameters.tensors["hidden_2.weight"].detach()
    assert not torch.isclose(second[0].flatten()[:64], found[0][:64]).any()


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_norm_parameters_are_reset_with_their_unit(norm):
    for kind, layer, place in (("mlp", "hidden_2", "norm_2"), ("cnn", "conv_1", "norm_1")):
        learner, resetter = learner_and_resetter(arms=1, seeds=(0,), kind=kind, norm=norm)
        learner.optimizer.step(
            learner.parameters.padded, torch.ones_like(learner.parameters.padded)
        )
        chosen = everywhere(learner, resetter, slice(0, 0))
        chosen[layer][0, 1] = True
        with torch.no_grad():
            learner.parameters.tensors[f"{place}.weight"].fill_(3)
            learner.parameters.tensors[f"{place}.bias"].fill_(5)
            resetter.reinitialize(learner, chosen)
        for name, old, new in (("weight", 3, 1), ("bias", 5, 0)):
            expected = torch.full(
                (learner.parameters.shapes[f"{place}.{name}"][0],),
                float(old),
                dtype=torch.float64,
            )
            expected[1] = new
            assert torch.equal(learner.parameters.tensors[f"{place}.{name}"][0], expected)
            mean = learner.parameters.split(
                learner.optimizer.means["first"][:, : learner.parameters.flat.shape[1]]
            )[f"{place}.{name}"][0]
            assert (mean == 0).nonzero().tolist() == [[1]]


@pytest.mark.parametrize("activation", ["relu", "crelu"])
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_reset_of_silent_units_does_not_change_outputs(kind, activation):
    learner, resetter = learner_and_resetter(kind=kind, activation=activation)
    inputs = torch.randn(
        4, 5, *learner.image, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    chosen = {
        units.layer: torch.rand(4, units.width, generator=torch.Generator().manual_seed(1)) < 0.4
        for units in resetter.units
    }
    with torch.no_grad():
        for units in resetter.units:
            weight, bias = (learner.parameters.tensors[name] for name in units.incoming)
            weight[chosen[units.layer]], bias[chosen[units.layer]] = (
                0,
                0 if activation == "crelu" else -1,
            )
        before = learner(inputs)
        learner.parameters.flat.add_(0)
        resetter.reinitialize(learner, chosen)
        after = learner(inputs)
        assert all(mask.any() for mask in chosen.values())
        torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)
        learner.parameters.tensors["output.weight"].add_(1)
        assert not torch.allclose(learner(inputs), before)


def test_reset_of_no_units_changes_nothing():
    learner, resetter = learner_and_resetter()
    before = learner.parameters.flat.detach().clone()
    resetter.reinitialize(learner, everywhere(learner, resetter, slice(0, 0)))
    assert torch.equal(learner.parameters.flat, before)


def ages_at_reset(arm, fires, steps=40):
    """Return the steps after which self-normalized resets reset a unit.

    The unit fires in the given steps. All other units always fire.
    """
    trainer = new_trainer(images(4), "self_normalized_resets", [arm], [0])
    learner, method = trainer.learner, trainer.interventions["self_normalized_resets"]
    resets = []
    with torch.no_grad():
        method.on_task_start(learner)
        for step in range(1, steps + 1):
            learner.hidden = {
                layer: torch.ones(1, 7, 8, dtype=torch.float64)
                for layer in ("hidden_1", "hidden_2")
            }
            learner.hidden["hidden_1"][:, :, 2] = float(fires(step))
            before = learner.parameters.tensors["hidden_1.weight"].detach()[0].clone()
            method.after_step(learner)
            changes = (learner.parameters.tensors["hidden_1.weight"][0] != before).any(dim=1)
            assert not changes[[0, 1, 3, 4, 5, 6, 7]].any()
            if changes[2]:
                resets.append(step)
    return resets


def test_silent_unit_is_reset_when_its_age_reaches_the_quantile():
    for rejection in (0.5, math.exp(-2), 0.01, 1e-4):
        wait = math.ceil(-math.log(rejection))  # waits of one step each
        assert ages_at_reset({"rejection": rejection}, lambda step: step <= 10)[0] == 10 + wait
        assert ages_at_reset({"rejection": rejection}, lambda step: False)[:2] == [wait, 2 * wait]


def test_rarely_firing_unit_is_reset_later():
    waited = [1, *[3] * 6]  # starting from one wait of one step
    expected = 18 + math.ceil(-math.log(0.05) * sum(waited) / len(waited))
    assert (
        ages_at_reset({"rejection": 0.05}, lambda step: step % 3 == 0 and step <= 18)[0] == expected
    )
    assert ages_at_reset({"rejection": 0.05}, lambda step: True) == []
    assert ages_at_reset({"rejection": 0}, lambda step: False) == []


def resets_by_utility(arm, steps, magnitudes):
    """Find the (step, unit) pairs that continual backprop resets in the first layer.

    Units have the given magnitudes and outgoing weights of 1.
    """
    trainer = new_trainer(images(4), "continual_backprop", [arm], [0])
    learner, method = trainer.learner, trainer.interventions["continual_backprop"]
    found = []
    for step in range(1, steps + 1):
        learner.hidden = {
            layer: torch.ones(1, 7, 8, dtype=torch.float64) * torch.tensor(magnitudes)
            for layer in ("hidden_1", "hidden_2")
        }
        with torch.no_grad():
            learner.parameters.tensors["hidden_2.weight"].fill_(1)
            before = learner.parameters.tensors["hidden_1.weight"].detach()[0].clone()
            method.after_step(learner)
        found += [
            (step, int(unit))
            for unit in (learner.parameters.tensors["hidden_1.weight"][0] != before)
            .any(dim=1)
            .nonzero()
        ]
    return found, method


def test_continual_backprop_resets_mature_units_of_lowest_utility():
    magnitudes = [8.0, 7, 6, 5, 1, 2, 3, 4]
    found, _ = resets_by_utility({"rate": 1 / 4, "maturity": 5, "decay": 0.9}, 8, magnitudes)
    # due are 8 / 4, then 6 / 4, then half a unit and 5 / 4
    assert found == [(6, 4), (6, 5), (7, 6), (8, 7)]
    assert resets_by_utility({"rate": 1, "maturity": 7, "decay": 0.9}, 7, magnitudes)[0] == []
    assert len(resets_by_utility({"rate": 1, "maturity": 6, "decay": 0.9}, 7, magnitudes)[0]) == 8


def test_continual_backprop_adds_up_fractions_of_units():
    found, method = resets_by_utility(
        {"rate": 1 / 64, "maturity": 0, "decay": 0.5}, 24, [8.0, 7, 6, 5, 4, 3, 2, 1]
    )
    assert found == [(8, 7), (16, 7), (24, 7)]  # an eighth of a unit is due each step
    assert method.due["hidden_1"].item() == 0


def test_utilities_are_corrected_for_age():
    found, method = resets_by_utility({"rate": 0, "maturity": 0, "decay": 0.9}, 3, [1.0] * 8)
    corrected = method.utility["hidden_1"] / (1 - 0.9**3)
    torch.testing.assert_close(
        corrected, torch.full((1, 8), 8.0, dtype=torch.float64)
    )  # |h| times eight outgoing weights of 1
    assert found == []


def test_resets_revive_dead_units(data):
    def dead(method, arm):
        trainer = new_trainer(data, method, [arm], [0], changed(problem={"epochs": 10}))
        with torch.no_grad():
            trainer.learner.parameters.tensors["hidden_1.bias"][:, :4] = -100
        for _ in range(2):
            trainer.on_task_start()
            trainer.learn()
        inputs = trainer.batches.inputs[None]
        with torch.no_grad():
            trainer.learner.record_activations(inputs, {})
        return int((trainer.learner.hidden["hidden_1"].abs().sum(dim=1) == 0).sum())

    assert dead("none", {}) >= 4 or dead("redo", {"threshold": 0.0, "period": 0}) >= 4
    assert dead("redo", {"threshold": 0.0, "period": 5}) == 0
    assert dead("self_normalized_resets", {"rejection": 0.01}) == 0


def test_resetter_has_the_units_that_are_found():
    learner, resetter = learner_and_resetter()
    assert (
        [units.layer for units in resetter.units]
        == [units.layer for units in hidden_units.find_hidden_units(learner.network)]
        == ["hidden_1", "hidden_2"]
    )


def test_resets_of_a_run_do_not_depend_on_other_runs(data):
    arms = ARMS["redo"]
    _, states = train_all(data, "redo", arms, [0, 1], SETTING)
    _, alone = train_all(data, "redo", arms[:1], [1], SETTING)
    assert torch.equal(states[:, 1], alone[:, 0])


def reset_without_waiting(trainer):
    """Reset units as on a GPU, where nothing waits for a decision."""
    for intervention in trainer.interventions.values():
        if hasattr(intervention, "_resetter"):
            intervention._resetter._may_wait = False


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("redo", {}),
        ("redo", {"new_weights": "he_uniform", "means": "kept"}),
        ("redo", {"new_weights": "stored"}),
        ("continual_backprop", {}),
        ("continual_backprop", {"new_weights": "drawn"}),
        ("self_normalized_resets", {}),
        ("dropout+redo", {}),
    ],
)
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_resets_without_waiting_equal_resets_one_by_one(monkeypatch, kind, method, options):
    monkeypatch.setattr(hidden_units, "DRAWS", 30)
    arms = [arm | options for arm in (ARMS | COMPOSED)[method]]
    setting = CNN if kind == "cnn" else SETTING
    data = images(16 if kind == "cnn" else 4)
    (one_by_one, first), (at_once, second) = (
        train_all(data, method, arms, [0, 1], setting, sabotage=sabotage)
        for sabotage in (None, reset_without_waiting)
    )
    assert torch.equal(first, second)
    for name, tensor in one_by_one.state_tensors().items():
        assert torch.equal(tensor, at_once.state_tensors()[name]), name
    if method == "continual_backprop":
        used = at_once.interventions[method]._resetter._used
        assert any((numbers > 1).any() for numbers in used.values())


def test_draws_in_advance_repeat_with_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(hidden_units, "DRAWS", 1)
    learner, resetter = learner_and_resetter()
    resetter._may_wait = False
    hidden_units.warn_once.cache_clear()
    rows = []
    with torch.no_grad():
        resetter.start_task(learner)
        for _ in range(2):
            resetter.reinitialize(learner, everywhere(learner, resetter))
            rows.append(learner.parameters.flat.clone())
        assert torch.equal(*rows)
        assert "a run reset more than" not in caplog.text
        resetter.start_task(learner)
    assert "a run reset more than" in caplog.text
