"""Measures of checkpoints against plain networks, one member and one sample at a time, in float64."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from plasticity import contracts, datasets, measures, networks, tasks
from plasticity.checkpoints import Checkpoints, Rows, write
from plasticity.lockstep import Parameters
from plasticity.settings import Curvature, Network, Optimizer, Problem, Setting

SHAPES = {
    "hidden_1.weight": (6, 12),
    "hidden_1.bias": (6,),
    "hidden_2.weight": (6, 6),
    "hidden_2.bias": (6,),
    "output.weight": (4, 6),
    "output.bias": (4,),
}
BLOCKS = ["hidden_1", "hidden_2", "output", "last_two", "all"]
ARMS, SEEDS, TASKS = ["a", "b"], [3, 8], 4
NAN = (1, 0, 2)  # arm, seed, task of the member that has diverged


def setting(activation="relu"):
    problem = Problem("tiny", "shuffle_labels", samples=20, batch=5, epochs=1, tasks=TASKS)
    return Setting(problem, Network("mlp", activation, options={"width": 6, "depth": 2}), Optimizer("adam", options={"lr": 0.001}))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoints") / "c.nc"
    drawn = torch.randn(TASKS, len(ARMS), len(SEEDS), 148, generator=torch.Generator().manual_seed(0))
    drawn[..., 72:75] = -50.0  # the biases of hidden_1's first three units: dead
    drawn[NAN[2], NAN[0], NAN[1]] = torch.nan
    rows = Rows(path.with_name("rows"), range(TASKS), len(ARMS) * len(SEEDS), SHAPES)
    for task, parameters in enumerate(drawn):
        rows.write(0, task, parameters.flatten(0, 1))
    write(path, rows, ARMS, SEEDS, {"settings": "{}"})
    return Checkpoints(path)


def curvature(operators=("fisher",), samples=9, moments=("old", "new"), every=1, **keys):
    """What a config asks for: operators as a list, or as a mapping from each to the keys of its own."""
    operators = operators if isinstance(operators, dict) else list(operators)
    return Curvature.of({"operators": operators, "samples": samples, "moments": list(moments), "every": every} | keys)


def measured(checkpoints, data, activation="relu", **keys):
    asked = curvature(**keys)
    values, coordinates = measures.measure(checkpoints, setting(activation), asked, data)
    return contracts.dataset(measures.table(asked), values, coordinates, "measures", {})


def alone(row, activation):
    """One member's network as a plain module."""
    kind = {"relu": nn.ReLU, "tanh": nn.Tanh, "identity": nn.Identity}[activation]
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), kind(), nn.Linear(6, 6), kind(), nn.Linear(6, 4)).double()
    nn.utils.vector_to_parameters(row, network.parameters())
    return network


def fisher(network, inputs, labels):
    """The empirical Fisher of each block, formed densely."""
    rows = []
    for x, y in zip(inputs, labels, strict=True):
        loss = nn.functional.cross_entropy(network(x[None]), y[None])
        rows.append(torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, list(network.parameters()))]))
    rows = torch.stack(rows)
    parts = dict(zip(BLOCKS, [*rows.split([78, 42, 28], dim=1), rows[:, 78:], rows], strict=True))
    return {block: part.T @ part / len(inputs) for block, part in parts.items()}


@pytest.mark.parametrize("activation", ["relu", "tanh", "identity"])
def test_fisher_of_every_member_moment_and_block_is_that_of_its_own_network_and_data(checkpoints, data, activation):
    found = measured(checkpoints, data, activation)
    for arm, name in enumerate(ARMS):
        for seed in SEEDS:
            for task in range(TASKS):
                for moment in ("old", "new"):
                    here = found.sel(arm=name, seed=seed, task=task, moment=moment)
                    if (arm, SEEDS.index(seed), task) == NAN or (task, moment) == (0, "old"):
                        numbers = [variable for variable in found if "moment" in found[variable].dims and found[variable].dtype.kind == "f"]
                        assert all(here[variable].isnull().all() for variable in numbers)
                        continue
                    row = checkpoints.at(task)[arm * len(SEEDS) + SEEDS.index(seed)]
                    inputs, labels = tasks.task(setting().problem, data, seed, task - (moment == "old"))
                    for block, matrix in fisher(alone(row, activation), inputs[:9].double(), labels[:9]).items():
                        values = np.linalg.eigvalsh(matrix.numpy())[::-1].clip(0)[:9]
                        values = np.pad(values, (0, 9 - len(values)))
                        eigenvalue = here["fisher_eigenvalue"].sel(block=block).values
                        np.testing.assert_allclose(eigenvalue, values, rtol=1e-5, atol=1e-6 * values[0])
                        assert here["fisher_trace"].sel(block=block).item() == pytest.approx(matrix.trace().item(), rel=1e-6)
                        assert here["fisher_top_eigenvalue"].sel(block=block).item() == pytest.approx(values[0], rel=1e-6)
                        entropy = -sum(p * math.log(p) for p in values / values.sum() if p > 1e-14)
                        assert here["fisher_entropy_rank"].sel(block=block).item() == pytest.approx(math.exp(entropy), rel=1e-5)
                        rank = next(k for k in range(1, 10) if values[:k].sum() >= 0.99 * values.sum())
                        assert here["fisher_effective_rank"].sel(block=block) == rank


@pytest.mark.parametrize("activation", ["relu", "tanh", "identity"])
def test_units_and_features_are_measured_on_all_of_the_tasks_images(checkpoints, data, activation):
    found = measured(checkpoints, data, activation).sel(arm="b", seed=8, task=3)
    inputs, _ = tasks.task(setting().problem, data, 8, 3)
    network = alone(checkpoints.at(3)[3], activation)
    layers = {"hidden_1": network[:3](inputs.double()), "hidden_2": network[:5](inputs.double())}
    layers = {name: features.detach().numpy() for name, features in layers.items()}
    for moment in ("old", "new"):  # both tasks have the same images
        here = found.sel(moment=moment)
        for name, features in layers.items():
            assert here["feature_rank"].sel(block=name) == rank_by_singular_values(features)
            assert here["dead_fraction"].sel(block=name).item() == pytest.approx(dead_by_loops(features), rel=1e-6)
            assert here["dormant_fraction"].sel(block=name).item() == pytest.approx(dormant_by_loops(features), rel=1e-6)
        for variable, by_loops in {"dead_fraction": dead_by_loops, "dormant_fraction": dormant_by_loops}.items():
            assert here[variable].sel(block="all").item() == pytest.approx(sum(map(by_loops, layers.values())) / 2, rel=1e-6)
            assert here[variable].sel(block="output").isnull()
        assert here["feature_rank"].sel(block=["output", "last_two", "all"]).isnull().all()
        assert here["dead_fraction"].sel(block="last_two") == here["dead_fraction"].sel(block="hidden_2")
        assert (here["dead_fraction"].sel(block="hidden_1") >= 0.5) == (activation == "relu")


def test_weight_norm_is_that_of_each_layers_weights_and_biases(checkpoints, data):
    found = measured(checkpoints, data)["weight_norm"].sel(arm="a", seed=8, task=1).values
    row = checkpoints.at(1)[1].numpy()
    parts = [row[:78], row[78:120], row[120:], row[78:], row]
    np.testing.assert_allclose(found, [math.sqrt(sum(w * w for w in part)) for part in parts], rtol=1e-6)


def test_a_member_of_nan_is_nan_everywhere_and_no_other_is(checkpoints, data):
    found = measured(checkpoints, data)
    for name, values in found.drop_vars("curvature_status").data_vars.items():
        here = values.isel(moment=-1) if "moment" in values.dims else values
        if name in ("feature_rank", "dead_fraction", "dormant_fraction"):
            here = here.sel(block=["hidden_1", "hidden_2"])
        missing = here.isnull().stack(rest=[dim for dim in here.dims if dim not in ("arm", "seed", "task")])
        expected = np.zeros((len(ARMS), len(SEEDS), TASKS), bool)
        expected[NAN] = True
        np.testing.assert_array_equal(missing.all("rest"), expected, err_msg=name)
        np.testing.assert_array_equal(missing.any("rest"), expected, err_msg=name)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_every_thins_tasks_and_old_is_still_the_task_just_ended(checkpoints, data, every):
    whole, thinned = measured(checkpoints, data), measured(checkpoints, data, every=every)
    assert thinned["task"].values.tolist() == list(range(0, TASKS, every))
    assert whole.isel(task=slice(None, None, every)).equals(thinned)


def test_moments_are_measured_in_the_order_that_the_config_gives(checkpoints, data):
    both = measured(checkpoints, data)
    for moments in (["new", "old"], ["old"], ["new"]):
        chosen = measured(checkpoints, data, moments=moments)
        assert chosen["moment"].values.tolist() == moments
        assert both.sel(moment=moments).equals(chosen)


def test_old_and_new_differ_since_labels_do(checkpoints, data):
    trace = measured(checkpoints, data)["fisher_trace"].sel(arm="a", task=slice(1, None), block="all")
    assert (abs(trace.sel(moment="old") / trace.sel(moment="new") - 1) > 1e-3).all()


def test_names_and_coordinates_are_those_of_the_contract(checkpoints, data):
    found = measured(checkpoints, data)
    assert found["block"].values.tolist() == BLOCKS
    assert found["rank"].values.tolist() == list(range(9))
    assert found["arm"].values.tolist() == ARMS
    assert found["seed"].values.tolist() == SEEDS
    assert set(found.data_vars) == set(measures.table(curvature()))


def rank_by_singular_values(features, level=0.99):
    singular = np.linalg.svd(features, compute_uv=False)
    return next(k for k in range(len(singular) + 1) if singular[:k].sum() >= level * singular.sum())


def dead_by_loops(features):
    return sum(all(value == 0 for value in unit) for unit in features.T) / features.shape[1]


def dormant_by_loops(features):
    magnitudes = [sum(abs(value) for value in unit) / len(unit) for unit in features.T]
    mean = sum(magnitudes) / len(magnitudes)
    return sum(mean == 0 or magnitude / mean <= 0.025 for magnitude in magnitudes) / len(magnitudes)


@pytest.mark.parametrize(("n", "units"), [(30, 8), (8, 30), (12, 12), (5, 1), (1, 5)])
@pytest.mark.parametrize("seed", range(3))
def test_feature_rank_is_that_of_the_singular_values(n, units, seed):
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(4, n, units)) * draw.lognormal(sigma=2, size=units)
    found = measures.feature_rank(torch.from_numpy(features))
    assert found.tolist() == [rank_by_singular_values(matrix) for matrix in features]


def test_feature_rank_of_planted_features():
    draw = torch.Generator().manual_seed(0)
    for planted in (1, 2, 4):
        rows, columns = (torch.linalg.qr(torch.randn(size, planted, generator=draw).double()).Q for size in (30, 10))
        assert measures.feature_rank((rows @ columns.T)[None]) == planted
    assert measures.feature_rank(torch.zeros(1, 30, 10).double()) == 0


def test_dead_and_dormant_fractions_of_known_units():
    activations = torch.tensor([[[0.0, 1.0, 100.0, 0.0], [0.0, 0.0, 100.0, 2.0]]]).double()
    layers = {"hidden_1": ["hidden_1"], "hidden_2": ["hidden_2"]}
    values = measures.unit_measures({"hidden_1": activations, "hidden_2": torch.ones(1, 2, 4).double()}, layers | {"all": list(layers)})
    assert values["dead_fraction"].tolist() == [[0.25, 0.0, 0.125]]
    assert values["dormant_fraction"].tolist() == [[0.5, 0.0, 0.25]]  # scores 0, 0.5, 100 and 1, over their mean 25.375


def test_a_silent_layer_is_all_dead_and_dormant():
    values = measures.unit_measures({"hidden_1": torch.zeros(2, 5, 3).double()}, {"hidden_1": ["hidden_1"]})
    assert values["dead_fraction"].tolist() == values["dormant_fraction"].tolist() == [[1.0], [1.0]]
    assert values["feature_rank"].tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_unit_is_dormant_by_its_share_of_its_layers_mean_magnitude_whatever_the_scale(scale):
    draw = np.random.default_rng(0)
    activations = draw.normal(size=(3, 7, 50)) * draw.lognormal(sigma=3, size=50)
    expected = [dormant_by_loops(member) for member in activations]
    assert all(0.1 < fraction < 0.95 for fraction in expected)
    values = measures.unit_measures({"hidden_1": torch.from_numpy(scale * activations)}, {"hidden_1": ["hidden_1"]})
    assert values["dormant_fraction"].flatten().tolist() == pytest.approx(expected)
    assert not values["dead_fraction"].any()


def test_hidden_activations_leave_no_hook_behind(data):
    network = networks.fitting(setting(), data)
    flat = torch.randn(2, 148, generator=torch.Generator().manual_seed(0))
    found = measures.hidden_activations(network, Parameters(flat, SHAPES).tensors, torch.randn(2, 4, 2, 2, 3))
    assert {name: tuple(values.shape) for name, values in found.items()} == {"hidden_1": (2, 4, 6), "hidden_2": (2, 4, 6)}
    assert not any(module._forward_hooks for module in network.modules())


def test_measures_do_not_depend_on_how_many_seeds_data_are_in_memory(checkpoints, data, monkeypatch):
    together = measured(checkpoints, data)
    monkeypatch.setattr(measures, "AT_ONCE", 1)
    for name, values in measured(checkpoints, data).items():
        np.testing.assert_allclose(values, together[name], rtol=1e-12, err_msg=name)


# networks whose members go one after the other


@pytest.fixture(scope="module", params=["cnn", "resnet18"])
def convolutional(request, tmp_path_factory):
    """A setting with a convolutional network, its data, and checkpoints of two arms and two seeds."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 10, (40, 2, 16, 16), np.uint8)
    data = datasets.describe("small", datasets.Images(images, np.arange(40) % 3, list("abc"), 9), {})
    problem = Problem("small", "shuffle_labels", samples=20, batch=5, epochs=1, tasks=2, test_samples=7)
    setting = Setting(problem, Network(request.param, "relu", options={"width": 2}), Optimizer("sgd", options={"lr": 0.1}))
    network = networks.fitting(setting, data)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    folder = tmp_path_factory.mktemp(request.param)
    rows = Rows(folder / "rows", range(2), 4, shapes)
    for task in range(2):
        drawn = [networks.initial(network, setting.network, seed, task) for seed in range(4)]
        rows.write(0, task, torch.stack([torch.cat([tensor.flatten() for tensor in one.values()]) for one in drawn]))
    write(folder / "c.nc", rows, ARMS, SEEDS, {"settings": "{}"})
    return setting, data, Checkpoints(folder / "c.nc")


def test_the_fisher_of_convolutional_members_is_that_of_each_ones_samples_one_by_one(convolutional):
    setting, data, checkpoints = convolutional
    values, coordinates = measures.measure(checkpoints, setting, curvature(samples=6), data)
    network = networks.fitting(setting, data).double().eval()
    for arm, seed, task in [(0, 0, 1), (1, 1, 1), (1, 0, 0)]:
        nn.utils.vector_to_parameters(checkpoints.at(task)[2 * arm + seed], network.parameters())
        inputs, labels = tasks.task(setting.problem, data, SEEDS[seed], task)
        losses = nn.functional.cross_entropy(network(inputs[:6].double()), labels[:6], reduction="none")
        rows = [
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)]) for loss in losses
        ]
        gram = torch.stack(rows) @ torch.stack(rows).T / 6
        expected = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0)
        found = values["fisher_eigenvalue"][arm, seed, task, 1, coordinates["block"].index("all")]
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12 * expected[0])


def test_a_convolutions_units_are_its_channels(convolutional):
    setting, data, checkpoints = convolutional
    values, coordinates = measures.measure(checkpoints, setting, curvature(samples=6, moments=["new"]), data)
    network = networks.fitting(setting, data).double().eval()
    nn.utils.vector_to_parameters(checkpoints.at(1)[3], network.parameters())
    inputs, _ = tasks.task(setting.problem, data, SEEDS[1], 1)
    seen = []
    network.activation_1.register_forward_hook(lambda module, given, outputs: seen.append(outputs.detach()))
    network(inputs[:20].double())
    channels = seen[0].transpose(0, 1).flatten(1)
    block = coordinates["block"].index("conv_1")
    assert values["dead_fraction"][1, 1, 1, 0, block] == (channels == 0).all(dim=1).double().mean()
    singular = torch.linalg.svdvals(channels)
    rank = int((singular.cumsum(0) < 0.99 * singular.sum()).sum()) + 1
    assert values["feature_rank"][1, 1, 1, 0, block] == rank


def test_images_to_test_on_are_not_measured(convolutional):
    setting, data, checkpoints = convolutional
    without = replace(setting, problem=replace(setting.problem, test_samples=0))
    found, expected = (measures.measure(checkpoints, one, curvature(samples=20, moments=["new"]), data)[0] for one in (setting, without))
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


def test_the_curvature_of_regression_is_that_of_squared_errors(checkpoints):
    draw = np.random.default_rng(0)
    data = datasets.describe("bits", datasets.Images(draw.integers(0, 2, (60, 1, 1, 12), np.uint8), np.zeros(60, int), ["none"], 1), {})
    problem = Problem("bits", "flip_bits", samples=20, batch=5, epochs=1, tasks=TASKS, options={"flipping": 4})
    regression = replace(setting(), problem=problem)
    network = networks.fitting(regression, data).double()
    few = replace_output(checkpoints, network)
    values, _ = measures.measure(few, regression, curvature(samples=7, moments=["new"]), data)
    nn.utils.vector_to_parameters(few.at(0)[0], network.parameters())
    inputs, targets = tasks.task(problem, data, few.seeds[0], 0)
    norms = []
    for x, y in zip(inputs[:7].double(), targets[:7], strict=True):
        gradients = torch.autograd.grad((network(x[None])[0, 0] - y) ** 2, list(network.parameters()))
        norms.append(sum(float((gradient**2).sum()) for gradient in gradients))
    assert values["fisher_trace"][0, 0, 0, 0, -1] == pytest.approx(np.mean(norms), rel=1e-5)


def replace_output(checkpoints, network):
    """Checkpoints of another network with drawn parameters, of the same members."""
    shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    size = sum(tensor.numel() for tensor in network.parameters())
    drawn = torch.randn(len(ARMS) * len(SEEDS), size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return SimpleNamespace(arms=checkpoints.arms, seeds=checkpoints.seeds, tasks=[0], shapes=shapes, at=lambda task: drawn)
