"""Compare measures of checkpoints with plain networks, one run and one sample at a time."""

import math
from dataclasses import replace
from functools import partial
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from ensembles import train_all
from scipy.linalg import subspace_angles
from scipy.sparse.linalg import LinearOperator, eigsh
from tiers import slow_except
from torch import nn

from plasticity.config.models import Curvature, Network, Optimizer, Problem, Setting
from plasticity.curvature import measure, spectrum, spectrum_variables, unit_measures
from plasticity.data import dataset, tasks
from plasticity.errors import StudyError
from plasticity.models import architecture, ensemble
from plasticity.models.activations import ACTIVATIONS, slopes
from plasticity.models.ensemble import Parameters, Watch
from plasticity.storage import netcdf
from plasticity.storage.checkpoints import CheckpointRows, Checkpoints, write

SHAPES = {
    "hidden_1.weight": (6, 12),
    "hidden_1.bias": (6,),
    "hidden_2.weight": (6, 6),
    "hidden_2.bias": (6,),
    "output.weight": (4, 6),
    "output.bias": (4,),
}
# Columns of each block in a row of parameters.
COLUMNS = {
    "hidden_1": slice(0, 78),
    "hidden_2": slice(78, 120),
    "output": slice(120, 148),
    "last_two": slice(78, 148),
    "all": slice(0, 148),
}
BLOCKS = list(COLUMNS)
ARMS, SEEDS, TASKS = ["a", "b"], [3, 8], 4
DIVERGED = (1, 0, 2)  # arm, seed and task of the run that has diverged


def setting(activation="relu"):
    problem = Problem("tiny", "shuffle_labels", samples=20, batch=5, epochs=1, tasks=TASKS)
    return Setting(
        problem,
        Network("mlp", activation, options={"width": 6, "depth": 2}),
        Optimizer("adam", options={"lr": 0.001}),
    )


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoints") / "c.nc"
    generator = torch.Generator().manual_seed(0)
    parameters_by_task = torch.randn(TASKS, len(ARMS), len(SEEDS), 148, generator=generator)
    parameters_by_task[..., 72:75] = -50.0  # biases that make three units of hidden_1 dead
    parameters_by_task[DIVERGED[2], DIVERGED[0], DIVERGED[1]] = torch.nan
    rows = CheckpointRows(path.with_name("rows"), range(TASKS), len(ARMS) * len(SEEDS), SHAPES)
    for task, parameters in enumerate(parameters_by_task):
        rows.write(0, task, parameters.flatten(0, 1))
    write(path, rows, ARMS, SEEDS, {"settings": "{}"})
    return Checkpoints(path)


def curvature(
    operators=("fisher",), samples=9, evaluation_points=("previous", "next"), every=1, **keys
):
    """Build the curvature section of a config; operators may be a mapping to keys of their own."""
    common = {
        "operators": operators if isinstance(operators, dict) else list(operators),
        "samples": samples,
        "evaluation_points": list(evaluation_points),
        "every": every,
    }
    return Curvature.of(common | keys)


def measured(checkpoints, data, activation="relu", **keys):
    config = curvature(**keys)
    values, coordinates = measure.measure(checkpoints, setting(activation), config, data)
    return netcdf.dataset(measure.table(config), values, coordinates, "measures", {})


def plain_network(row, activation):
    """Build one run's network as a plain module."""
    kind = {"relu": nn.ReLU, "tanh": nn.Tanh, "identity": nn.Identity}[activation]
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(12, 6), kind(), nn.Linear(6, 6), kind(), nn.Linear(6, 4)
    ).double()
    nn.utils.vector_to_parameters(row, network.parameters())
    return network


def gradient_of(loss, network, **options):
    gradients = torch.autograd.grad(loss, list(network.parameters()), **options)
    return torch.cat([gradient.flatten() for gradient in gradients])


def dense_fisher(network, inputs, labels):
    """Compute the empirical Fisher of each block as a matrix."""
    rows = []
    for x, y in zip(inputs, labels, strict=True):
        loss = nn.functional.cross_entropy(network(x[None]), y[None])
        rows.append(gradient_of(loss, network))
    rows = torch.stack(rows)
    return {
        block: rows[:, columns].T @ rows[:, columns] / len(inputs)
        for block, columns in COLUMNS.items()
    }


def is_defined(arm, seed, task, evaluation_point):
    """Tell whether a run has measures: it has not diverged, and the task exists."""
    return (arm, seed, task) != DIVERGED and (task, evaluation_point) != (0, "previous")


@pytest.mark.parametrize("activation", ["relu", "tanh", "identity"])
def test_fisher_of_every_run_evaluation_point_and_block_is_that_of_its_network_and_data(
    checkpoints, data, activation
):
    found = measured(checkpoints, data, activation)
    numbers = [
        name
        for name in found
        if "evaluation_point" in found[name].dims and found[name].dtype.kind == "f"
    ]
    for arm, seed, task, point in product(
        range(len(ARMS)), range(len(SEEDS)), range(TASKS), ("previous", "next")
    ):
        of_run = found.isel(arm=arm, seed=seed).sel(task=task, evaluation_point=point)
        if not is_defined(arm, seed, task, point):
            assert all(of_run[name].isnull().all() for name in numbers)
            continue
        network = plain_network(checkpoints.at(task)[arm * len(SEEDS) + seed], activation)
        inputs, labels = tasks.build_task(
            setting().problem, data, SEEDS[seed], task - (point == "previous")
        )
        matrices = dense_fisher(network, inputs[:9].double(), labels[:9])
        for block, matrix in matrices.items():
            assert_is_fisher(of_run.sel(block=block), matrix)


def assert_is_fisher(of_block, matrix):
    """Compare the stored Fisher spectrum of a block on 9 samples with a matrix."""
    values = np.linalg.eigvalsh(matrix.numpy())[::-1].clip(0)[:9]
    values = np.pad(values, (0, 9 - len(values)))
    stored = of_block["fisher_eigenvalue"].values
    np.testing.assert_allclose(stored, values, rtol=1e-5, atol=1e-6 * values[0])
    assert of_block["fisher_trace"].item() == pytest.approx(matrix.trace().item(), rel=1e-6)
    assert of_block["fisher_top_eigenvalue"].item() == pytest.approx(values[0], rel=1e-6)
    entropy = -sum(p * math.log(p) for p in values / values.sum() if p > 1e-14)
    assert of_block["fisher_entropy_rank"].item() == pytest.approx(math.exp(entropy), rel=1e-5)
    rank = next(k for k in range(1, 10) if values[:k].sum() >= 0.99 * values.sum())
    assert of_block["fisher_effective_rank"] == rank


@pytest.mark.parametrize("activation", ["relu", "tanh", "identity"])
def test_units_and_features_are_measured_on_all_training_images_of_a_task(
    checkpoints, data, activation
):
    found = measured(checkpoints, data, activation).sel(arm="b", seed=8, task=3)
    inputs, _ = tasks.build_task(setting().problem, data, 8, 3)
    network = plain_network(checkpoints.at(3)[3], activation)
    layers = {"hidden_1": network[:3](inputs.double()), "hidden_2": network[:5](inputs.double())}
    layers = {name: features.detach().numpy() for name, features in layers.items()}
    for evaluation_point in ("previous", "next"):  # both tasks have the same images
        of_point = found.sel(evaluation_point=evaluation_point)
        for name, features in layers.items():
            assert of_point["feature_rank"].sel(block=name) == rank_by_singular_values(features)
            assert of_point["saturated_fraction"].sel(block=name).item() == pytest.approx(
                saturated_by_loops(features, activation), rel=1e-6
            )
            assert of_point["dead_fraction"].sel(block=name).item() == pytest.approx(
                dead_by_loops(features), rel=1e-6
            )
            assert of_point["dormant_fraction"].sel(block=name).item() == pytest.approx(
                dormant_by_loops(features), rel=1e-6
            )
        for variable, by_loops in {
            "dead_fraction": dead_by_loops,
            "dormant_fraction": dormant_by_loops,
            "cloned_fraction": cloned_by_loops,
            "saturated_fraction": partial(saturated_by_loops, activation=activation),
        }.items():
            assert of_point[variable].sel(block="all").item() == pytest.approx(
                sum(map(by_loops, layers.values())) / 2, rel=1e-6
            )
            assert of_point[variable].sel(block="output").isnull()
        assert of_point["feature_rank"].sel(block=["output", "last_two", "all"]).isnull().all()
        assert of_point["flattened_feature_rank"].isnull().all(), "there are no places"
        assert of_point["dead_fraction"].sel(block="last_two") == of_point["dead_fraction"].sel(
            block="hidden_2"
        )
        assert (of_point["dead_fraction"].sel(block="hidden_1") >= 0.5) == (activation == "relu")


@pytest.mark.parametrize("convolutional", ["cnn"], indirect=True)
def test_isometry_deviation_is_that_of_the_singular_values_of_weights(
    checkpoints, data, convolutional
):
    """MLP: weights with fewer, as many and more outputs than inputs; CNN: kernels."""
    of_mlp = measured(checkpoints, data)
    setting_of_cnn, data_of_cnn, checkpoints_of_cnn = convolutional
    config = curvature(samples=6)
    values, coordinates = measure.measure(checkpoints_of_cnn, setting_of_cnn, config, data_of_cnn)
    of_cnn = netcdf.dataset(measure.table(config), values, coordinates, "measures", {})
    for found, source_of_rows in ((of_mlp, checkpoints), (of_cnn, checkpoints_of_cnn)):
        for arm, seed in product(range(len(ARMS)), range(len(SEEDS))):
            row = source_of_rows.at(1)[arm * len(SEEDS) + seed].numpy()
            of_run = found["isometry_deviation"].isel(arm=arm, seed=seed).sel(task=1)
            total, start = 0.0, 0
            for name, shape in source_of_rows.shapes.items():
                size = math.prod(shape)
                part, start = row[start : start + size], start + size
                if name.endswith("weight"):
                    singular = np.linalg.svd(part.reshape(shape[0], -1), compute_uv=False)
                    expected = ((singular**2 - 1) ** 2).sum()
                    total += expected
                    layer = name.removesuffix(".weight")
                    assert of_run.sel(block=layer).item() == pytest.approx(expected, rel=1e-5)
            assert of_run.sel(block="all").item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
def test_isometry_deviation_of_an_orthogonal_weight_is_zero(shape):
    network = nn.Sequential(nn.Linear(shape[1], shape[0], bias=False), nn.LayerNorm(shape[0]))
    nn.init.orthogonal_(network[0].weight)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    row = ensemble.rows([dict(network.named_parameters())]).detach()
    rows = torch.cat([row, 2 * row, row * torch.inf]).double()
    found = unit_measures.isometry_deviation(
        network, Parameters(rows, shapes), {"0": ["0"], "1": ["1"], "all": ["0", "1"]}
    )
    assert found[0, [0, 2]].tolist() == pytest.approx([0, 0], abs=1e-10)
    assert found[1, [0, 2]].tolist() == pytest.approx([9 * min(shape)] * 2)  # (2² − 1)²
    assert found[2].isnan().all()
    assert found[:, 1].isnan().all(), "a norm is no linear layer"


def test_weight_norm_covers_weights_and_biases_of_a_block(checkpoints, data):
    found = measured(checkpoints, data)["weight_norm"].sel(arm="a", seed=8, task=1).values
    row = checkpoints.at(1)[1].numpy()
    parts = [row[:78], row[78:120], row[120:], row[78:], row]
    np.testing.assert_allclose(
        found, [math.sqrt(sum(w * w for w in part)) for part in parts], rtol=1e-6
    )


@pytest.mark.parametrize("samples", [6, 9])
def test_displacement_of_every_run_and_block_is_that_of_its_dense_fishers(
    checkpoints, data, samples
):
    top = 3
    config = {"samples": samples, "top": top}
    found = measured(checkpoints, data, "tanh", **config)["eigenspace_displacement"]
    assert found.dims == ("arm", "seed", "task", "block")
    for arm, seed, task in product(range(len(ARMS)), range(len(SEEDS)), range(TASKS)):
        of_run = found.isel(arm=arm, seed=seed).sel(task=task)
        if not is_defined(arm, seed, task, "previous"):
            assert of_run.isnull().all()
            continue
        network = plain_network(checkpoints.at(task)[arm * len(SEEDS) + seed], "tanh")
        matrices = []
        for task_of_data in (task - 1, task):
            inputs, labels = tasks.build_task(setting().problem, data, SEEDS[seed], task_of_data)
            batch = (inputs[:samples].double(), labels[:samples])
            matrices.append(dense_fisher(network, *batch))
        for block in BLOCKS:
            spans = [np.linalg.eigh(one[block].numpy())[1][:, -top:] for one in matrices]
            expected = 1 - np.mean(np.cos(subspace_angles(*spans)) ** 2)
            assert of_run.sel(block=block).item() == pytest.approx(expected, abs=1e-6)


def test_displacement_is_missing_where_the_fisher_is_not_measured(checkpoints, data):
    own_keys = {"fisher": {"every": 2, "blocks": ["all"]}}
    found = measured(checkpoints, data, operators=own_keys, top=3)["eigenspace_displacement"]
    everywhere = measured(checkpoints, data, top=3)["eigenspace_displacement"]
    is_measured = (found["block"] == "all") & (found["task"] % 2 == 0)
    xr.testing.assert_equal(found, everywhere.where(is_measured).transpose(*found.dims))
    assert found.notnull().any()


def test_diverged_run_is_nan_in_every_measure_and_no_other_run_is(checkpoints, data):
    found = measured(checkpoints, data)
    expected = np.zeros((len(ARMS), len(SEEDS), TASKS), bool)
    expected[DIVERGED] = True
    for name, values in found.drop_vars("curvature_status").data_vars.items():
        if "evaluation_point" in values.dims:
            values = values.sel(evaluation_point="next")
        if name in ("flattened_feature_rank", "eigenspace_displacement"):
            continue  # missing without convolutions, and with fewer samples than eigenvectors
        if name == "frozen_fraction" or name in unit_measures.TABLE:
            values = values.sel(block=["hidden_1", "hidden_2"])
        other_dims = [dim for dim in values.dims if dim not in ("arm", "seed", "task")]
        missing = values.isnull().stack(rest=other_dims)
        np.testing.assert_array_equal(missing.all("rest"), expected, err_msg=name)
        np.testing.assert_array_equal(missing.any("rest"), expected, err_msg=name)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_every_selects_tasks_and_previous_stays_the_task_just_before(checkpoints, data, every):
    all_tasks = measured(checkpoints, data)
    thinned = measured(checkpoints, data, every=every)
    assert thinned["task"].values.tolist() == list(range(0, TASKS, every))
    assert all_tasks.isel(task=slice(None, None, every)).equals(thinned)


def test_only_configured_evaluation_points_are_measured_in_any_order_of_the_config(
    checkpoints, data
):
    both = measured(checkpoints, data).drop_vars("eigenspace_displacement")
    for evaluation_points in (["next", "previous"], ["previous"], ["next"]):
        chosen = measured(checkpoints, data, evaluation_points=evaluation_points)
        assert chosen["evaluation_point"].values.tolist() == sorted(evaluation_points, reverse=True)
        chosen = chosen.drop_vars("eigenspace_displacement", errors="ignore")  # needs both
        assert both.sel(evaluation_point=chosen["evaluation_point"]).equals(chosen)


def test_previous_and_next_differ_because_labels_do(checkpoints, data):
    trace = measured(checkpoints, data)["fisher_trace"].sel(
        arm="a", task=slice(1, None), block="all"
    )
    assert (
        abs(trace.sel(evaluation_point="previous") / trace.sel(evaluation_point="next") - 1) > 1e-3
    ).all()


def test_variables_and_coordinates_match_the_table(checkpoints, data):
    found = measured(checkpoints, data)
    assert found["block"].values.tolist() == BLOCKS
    assert found["rank"].values.tolist() == list(range(9))
    assert found["arm"].values.tolist() == ARMS
    assert found["seed"].values.tolist() == SEEDS
    assert set(found.data_vars) == set(measure.table(curvature()))


def rank_by_singular_values(features, level=0.99):
    singular = np.linalg.svd(features, compute_uv=False)
    return next(k for k in range(len(singular) + 1) if singular[:k].sum() >= level * singular.sum())


def dead_by_loops(features):
    return sum(all(value == 0 for value in unit) for unit in features.T) / features.shape[1]


def dormant_by_loops(features):
    magnitudes = [sum(abs(value) for value in unit) / len(unit) for unit in features.T]
    mean = sum(magnitudes) / len(magnitudes)
    return sum(mean == 0 or magnitude / mean <= 0.025 for magnitude in magnitudes) / len(magnitudes)


def saturated_by_loops(features, activation):
    """Use the definition by the value of the activation: |tanh| ≥ 0.99, or a relu of 0."""
    is_flat = {
        "relu": lambda value: value == 0,
        "tanh": lambda value: abs(value) >= 0.99,
        "identity": lambda value: False,
    }[activation]
    shares = [sum(map(is_flat, unit)) / len(unit) for unit in features.T]
    return sum(share >= 0.95 for share in shares) / len(shares)


def cloned_by_loops(features):
    """Compare every unit with those before it."""
    cloned = 0
    for index, unit in enumerate(features.T):
        norms = [np.linalg.norm(unit) * np.linalg.norm(other) for other in features.T[:index]]
        products = [unit @ other for other in features.T[:index]]
        cloned += any(
            norm > 0 and product / norm > 0.95
            for product, norm in zip(products, norms, strict=True)
        )
    return cloned / features.shape[1]


def test_cloned_units_are_proportional_to_an_earlier_one():
    one, other = torch.tensor([1.0, 2, 3]), torch.tensor([3.0, -1, 0])
    units = torch.stack([one, other, 2 * one, -one, one + 0.1 * other, 0 * one, 0 * one], dim=1)
    assert unit_measures.cloned(units[None])[0].tolist() == [
        False,
        False,
        True,
        False,  # the opposite of the first
        True,
        False,
        False,
    ]


SLOPES = {  # at −20, −1, 0.5 and 3
    "leaky_relu": [0.01, 0.01, 1, 1],
    "tanh": [0, 0.419974, 0.786448, 0.009866],
    "identity": [1, 1, 1, 1],
    "gelu": [0, -0.083315, 0.867495, 1.011945],
    "sin": [0.408082, 0.540302, 0.877583, -0.989992],
    "crelu": [0, 0, 1, 1, -1, -1, 0, 0],
    "fourier": [0.408082, 0.540302, 0.877583, -0.989992, 0.912945, 0.841471, -0.479426, -0.14112],
    "relu": [0, 0, 1, 1],
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_slope_is_the_derivative_of_the_activation(activation):
    inputs = torch.tensor([-20, -1, 0.5, 3]).double()
    found = slopes(ACTIVATIONS[activation](), inputs)
    assert found.tolist() == pytest.approx(SLOPES[activation], abs=2e-6)


@pytest.mark.parametrize(("flat", "is_saturated"), [(18, False), (19, True), (20, True)])
def test_saturated_unit_is_flat_on_at_least_95_percent_of_the_data(flat, is_saturated):
    values = torch.ones(1, 20, 1)
    values[:, :flat] = 0.0198
    assert unit_measures.saturated(values) == torch.tensor([[is_saturated]])
    values[:, :flat] = -0.0200
    assert not unit_measures.saturated(values).any()


def test_features_of_a_convolution_have_a_row_per_place_or_per_image():
    network = Network("cnn", "relu", options={"width": 6})
    module = architecture.build(network, (2, 16, 16), 3).double()
    torch.manual_seed(1)
    inputs = torch.randn(10, 2, 16, 16).double()
    tensors = {
        name: values[None]
        for name, values in architecture.draw_initial(module, network, seed=0).items()
    }
    watch = unit_measures.hidden_units(module, tensors, inputs[None])
    values = unit_measures.unit_measures(watch, 10, {"conv_1": ["conv_1"], "output": ["output"]})

    weight, bias = (tensors[f"conv_1.{name}"][0] for name in ("weight", "bias"))
    convolved = torch.nn.functional.conv2d(inputs, weight, bias, padding=module.conv_1.padding)
    features = convolved.relu().detach().numpy()
    channels = features.shape[1]
    by_place = np.moveaxis(features, 1, -1).reshape(-1, channels)
    assert values["feature_rank"][0, 0] == rank_by_singular_values(by_place)
    by_image = features.reshape(10, -1)
    assert values["flattened_feature_rank"][0, 0] == rank_by_singular_values(by_image)
    assert values["feature_rank"][0, 0] != values["flattened_feature_rank"][0, 0]
    dead = np.mean([(features[:, channel] == 0).mean() >= 0.95 for channel in range(channels)])
    assert values["saturated_fraction"][0, 0].item() == pytest.approx(dead)
    assert all(of_block[0, 1].isnan() for of_block in values.values())


@pytest.mark.parametrize(("n", "units"), [(30, 8), (8, 30), (12, 12), (5, 1), (1, 5)])
@pytest.mark.parametrize("seed", range(3))
def test_feature_rank_equals_the_effective_rank_of_singular_values(n, units, seed):
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(4, n, units)) * draw.lognormal(sigma=2, size=units)
    found = unit_measures.feature_rank(torch.from_numpy(features))
    assert found.tolist() == [rank_by_singular_values(matrix) for matrix in features]


def test_feature_rank_of_low_rank_features_is_their_rank():
    draw = torch.Generator().manual_seed(0)
    for planted in (1, 2, 4):
        rows, columns = (
            torch.linalg.qr(torch.randn(size, planted, generator=draw).double()).Q
            for size in (30, 10)
        )
        assert unit_measures.feature_rank((rows @ columns.T)[None]) == planted
    assert unit_measures.feature_rank(torch.zeros(1, 30, 10).double()) == 0


def measures_of(activations, blocks):
    """Measure units of given activations, shapes ``(run, sample, unit)``, with slopes of 1."""
    slopes = {layer: torch.ones_like(values) for layer, values in activations.items()}
    samples = next(iter(activations.values())).shape[1]
    watch = Watch(hidden=activations, slopes=slopes)
    return unit_measures.unit_measures(watch, samples, blocks)


def test_dead_and_dormant_fractions_of_known_units():
    activations = torch.tensor([[[0.0, 1.0, 100.0, 0.0], [0.0, 0.0, 100.0, 2.0]]]).double()
    layers = {"hidden_1": ["hidden_1"], "hidden_2": ["hidden_2"]}
    values = measures_of(
        {"hidden_1": activations, "hidden_2": torch.ones(1, 2, 4).double()},
        layers | {"all": list(layers)},
    )
    assert values["dead_fraction"].tolist() == [[0.25, 0.0, 0.125]]
    assert values["dormant_fraction"].tolist() == [
        [0.5, 0.0, 0.25]
    ]  # scores 0, 0.5, 100 and 1, over their mean 25.375


def test_silent_layer_is_fully_dead_and_dormant():
    values = measures_of({"hidden_1": torch.zeros(2, 5, 3).double()}, {"hidden_1": ["hidden_1"]})
    assert values["dead_fraction"].tolist() == values["dormant_fraction"].tolist() == [[1.0], [1.0]]
    assert values["feature_rank"].tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_dormant_fraction_does_not_depend_on_the_scale(scale):
    draw = np.random.default_rng(0)
    activations = draw.normal(size=(3, 7, 50)) * draw.lognormal(sigma=3, size=50)
    expected = [dormant_by_loops(run) for run in activations]
    assert all(0.1 < fraction < 0.95 for fraction in expected)
    values = measures_of(
        {"hidden_1": torch.from_numpy(scale * activations)}, {"hidden_1": ["hidden_1"]}
    )
    assert values["dormant_fraction"].flatten().tolist() == pytest.approx(expected)
    assert not values["dead_fraction"].any()


def test_measuring_hidden_units_removes_its_hooks(data):
    network = architecture.build_for(setting(), data)
    flat = torch.randn(2, 148, generator=torch.Generator().manual_seed(0))
    watch = unit_measures.hidden_units(
        network, Parameters(flat, SHAPES).tensors, torch.randn(2, 4, 2, 2, 3)
    )
    for recorded in (watch.hidden, watch.slopes):
        assert {name: tuple(values.shape) for name, values in recorded.items()} == {
            "hidden_1": (2, 4, 6),
            "hidden_2": (2, 4, 6),
        }
    assert not any(module._forward_hooks for module in network.modules())


def test_measures_do_not_depend_on_the_seeds_in_memory(checkpoints, data, monkeypatch):
    together = measured(checkpoints, data)
    monkeypatch.setattr(measure, "AT_ONCE", 1)
    for name, values in measured(checkpoints, data).items():
        np.testing.assert_allclose(values, together[name], rtol=1e-12, err_msg=name)


def test_seeds_in_memory_follow_from_free_memory_on_a_gpu_only(checkpoints, data):
    """A seed's Gram matrix has 400 numbers, of 32 bytes each."""
    config = curvature(samples=20)

    def seeds_at_once(device, memory):
        arguments = (checkpoints, setting(), config, data, memory, torch.device(device))
        return min(measure.CheckpointMeasurer(*arguments)._seeds_at_once(), len(SEEDS))

    # the device `meta` stands for a GPU
    assert [seeds_at_once("meta", size) for size in (float("inf"), 10**5, 20_000, 0)] == [
        2,
        2,
        1,
        1,
    ]
    assert [seeds_at_once("cpu", size) for size in (float("inf"), 0)] == [2, 2]


# Operators.


OPERATORS = ["fisher", "ggn", "hessian", "ntk"]
ESTIMATED = {
    "exact_up_to": 1,
    "steps": 8,
    "probes": 3,
}  # of any block: the smallest has 28 parameters
HOW = {"exact": {}, "estimated": ESTIMATED | {"blocks": ["last_two"]}}


def hessian(function):
    """Compute a Hessian by two backward passes: torch's own uses forward mode, and warns."""
    return torch.func.jacrev(torch.func.grad(function))


def dense(operator, network, inputs, targets, loss=nn.functional.cross_entropy):
    """Compute an operator as a matrix, and the gradient of the mean loss, by torch.func."""
    names = [name for name, _ in network.named_parameters()]
    tensors = [parameter.detach() for parameter in network.parameters()]
    row = torch.cat([tensor.flatten() for tensor in tensors])

    def outputs(row):
        parts = row.split([tensor.numel() for tensor in tensors])
        shaped = {
            name: part.view(tensor.shape)
            for name, part, tensor in zip(names, parts, tensors, strict=True)
        }
        return torch.func.functional_call(network, shaped, (inputs,))

    def mean_loss(row):
        return loss(outputs(row), targets)

    gradient = torch.func.grad(mean_loss)(row)
    if operator == "hessian":
        return hessian(mean_loss)(row), gradient
    J, z = torch.func.jacrev(outputs)(row), outputs(row)
    inner = {
        "ntk": lambda z, target: torch.eye(len(z), dtype=z.dtype),
        "ggn": hessian(lambda z, target: loss(z[None], target[None])),
        "fisher": lambda z, target: torch.outer(
            *[torch.func.grad(lambda z: loss(z[None], target[None]))(z)] * 2
        ),
    }[operator]
    H = torch.stack([inner(one, target) for one, target in zip(z, targets, strict=True)])
    return torch.einsum("nca,ncd,ndb->ab", J, H, J) / len(inputs), gradient


def squared(outputs, targets):
    return (outputs.squeeze(-1) - targets).square().mean()


def numbers(values, levels=(0.99,)):
    """Compute the numbers of a spectrum in plain loops."""
    magnitudes = sorted((abs(value) for value in values), reverse=True)
    total = sum(magnitudes)
    names = [
        "effective_rank",
        *(f"effective_rank_at_{level}".replace(".", "_") for level in levels[1:]),
    ]
    return {
        name: next(
            k
            for k in range(1, len(values) + 1)
            if sum(magnitudes[:k]) >= level * total * (1 - 1e-12)
        )
        for name, level in zip(names, levels, strict=True)
    } | {
        "stable_rank": total / magnitudes[0],
        "entropy_rank": math.exp(
            -sum(m / total * math.log(m / total) for m in magnitudes if m > 1e-14 * total)
        ),
        "epsilon_rank": sum(m > 1e-3 * magnitudes[0] for m in magnitudes),
        "absolute_epsilon_rank": sum(m > 1e-3 for m in magnitudes),
        "top_eigenvalue": max(values),
        "trace": sum(values),
        "negative_fraction": sum(-value for value in values if value < 0) / total,
    }


def assert_has_spectrum_of(stored, operator, matrix, gradient, top, levels=(0.99,)):
    """Compare the stored variables of one block with those of a matrix."""
    values, vectors = np.linalg.eigh((matrix + matrix.T).numpy() / 2)
    values, vectors = values[::-1], vectors[:, ::-1]
    eigenvalues = stored[f"{operator}_eigenvalue"].dropna("rank").values
    expected = (
        values
        if operator == "hessian"
        else np.pad(values, (0, max(0, len(eigenvalues) - len(values))))[: len(eigenvalues)]
    )
    np.testing.assert_allclose(eigenvalues, expected, rtol=1e-6, atol=1e-9 * abs(values).max())
    for name, number in numbers(expected, levels).items():
        assert stored[f"{operator}_{name}"].item() == pytest.approx(number, rel=1e-5, abs=1e-7), (
            name
        )
    tied = values >= values[top - 1] - 1e-9 * abs(values).max()  # equal eigenvalues have one span
    overlap = ((vectors[:, tied].T @ gradient.numpy()) ** 2).sum() / (gradient.numpy() ** 2).sum()
    assert stored[f"{operator}_gradient_overlap"].item() == pytest.approx(
        overlap, rel=1e-5, abs=1e-7
    )


def fresh_row(seed, task, data, activation="relu"):
    """Draw the baseline's parameters for a task, rounded to float32 as in training."""
    network = architecture.build_for(setting(activation), data)
    drawn = architecture.draw_initial(network, setting(activation).network, seed, task)
    return torch.cat([tensor.flatten() for tensor in drawn.values()]).float().double()


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_uses_the_parameters_and_data_of_its_run_and_task(
    checkpoints, data, operator
):
    points = ["previous", "next", "fresh"]
    levels = [0.99, 0.9]
    found = measured(
        checkpoints,
        data,
        "tanh",
        operators=[operator],
        evaluation_points=points,
        top=3,
        levels=levels,
    )

    def batch(seed, task):
        inputs, labels = tasks.build_task(setting().problem, data, seed, task)
        return inputs[:9].double(), labels[:9]

    for arm, seed, task in [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 3)]:
        for point in points if task else ["fresh"]:
            row = checkpoints.at(task)[arm * len(SEEDS) + seed]
            if point == "fresh":
                row = fresh_row(SEEDS[seed], task, data, "tanh")
            network = plain_network(row, "tanh")
            measured_task = task - 1 if point == "previous" else task
            matrix, _ = dense(operator, network, *batch(SEEDS[seed], measured_task))
            _, next_gradient = dense("fisher", network, *batch(SEEDS[seed], task))
            of_run = found.isel(arm=arm, seed=seed).sel(task=task, evaluation_point=point)
            for block, columns in COLUMNS.items():
                assert_has_spectrum_of(
                    of_run.sel(block=block),
                    operator,
                    matrix[columns, columns],
                    next_gradient[columns],
                    3,
                    levels,
                )


def test_overlap_at_previous_uses_the_gradient_of_the_next_task(checkpoints, data):
    found = measured(checkpoints, data, "tanh", operators=["hessian"], top=3)
    stored = found.sel(arm="b", seed=8, task=3, evaluation_point="previous", block="all")
    network = plain_network(checkpoints.at(3)[3], "tanh")

    def hessian_and_gradient(task):
        inputs, labels = tasks.build_task(setting().problem, data, 8, task)
        return dense("hessian", network, inputs[:9].double(), labels[:9])

    matrix, previous_gradient = hessian_and_gradient(2)
    _, next_gradient = hessian_and_gradient(3)
    top = torch.linalg.eigh(matrix).eigenvectors[:, -3:]

    def share(gradient):
        return ((top.T @ gradient).square().sum() / gradient.square().sum()).item()

    overlap = stored["hessian_gradient_overlap"].item()
    assert overlap == pytest.approx(share(next_gradient), rel=1e-5)
    assert abs(share(previous_gradient) - share(next_gradient)) > 0.01


def source(at, task_list, seeds=SEEDS, arms=ARMS, shapes=SHAPES):
    """Build a source of checkpoints from a function of the task."""
    return SimpleNamespace(arms=arms, seeds=seeds, tasks=task_list, shapes=shapes, at=at)


def test_fresh_equals_next_of_the_baseline_bit_for_bit(data):
    _, states = train_all(data, "fresh", [{}], SEEDS, setting=setting(), dtype=torch.float32)
    baseline = source(lambda task: states[task].double(), list(range(TASKS)), arms=["fresh"])
    for how in HOW.values():
        found = measured(
            baseline, data, operators=OPERATORS, evaluation_points=["next", "fresh"], **how
        )
        found = found[[name for name in found if "evaluation_point" in found[name].dims]]
        at_next = found.sel(evaluation_point="next", drop=True)
        assert at_next.equals(found.sel(evaluation_point="fresh", drop=True))


def test_fresh_is_equal_across_arms_and_differs_across_tasks_and_seeds(checkpoints, data):
    found = measured(checkpoints, data, evaluation_points=["fresh"])["fisher_trace"].sel(
        block="all", evaluation_point="fresh"
    )
    assert found.notnull().all(), "the baseline is measured even where a run has diverged"
    assert found.sel(arm="a", drop=True).equals(found.sel(arm="b", drop=True))
    assert len(set(found.sel(arm="a").values.ravel())) == len(SEEDS) * TASKS


OWN_KEYS = {
    "fisher": {"samples": 6, "evaluation_points": ["next"]},
    "ggn": {"every": 2, "blocks": ["last_two"]},
    "hessian": {
        "exact_up_to": 60,
        "steps": 8,
        "probes": 3,
        "evaluation_points": ["previous", "next"],
    },
    "ntk": {"every": 3, "blocks": ["all", "layers"], "evaluation_points": ["fresh", "next"]},
}


# ranks that are missing where an estimate does not know them
RANKS = tuple(f"_{name}" for name in spectrum.rank_names([0.99]))


@pytest.fixture(scope="module")
def with_own_keys(checkpoints, data):
    """Measure all operators, each with keys of its own."""
    return measured(
        checkpoints, data, operators=OWN_KEYS, evaluation_points=["previous", "next", "fresh"]
    )


@pytest.mark.parametrize("operator", OPERATORS)
def test_exactly_the_measures_outside_an_operators_keys_are_missing(with_own_keys, operator):
    defaults = {
        "every": 1,
        "evaluation_points": ["previous", "next", "fresh"],
        "blocks": ["layers", "last_two", "all"],
    }
    keys = defaults | OWN_KEYS[operator]
    block = with_own_keys["block"]
    is_layer = ~block.isin(["last_two", "all"])
    expected = block.isin(keys["blocks"]) | (is_layer & ("layers" in keys["blocks"]))
    expected = expected & (with_own_keys["task"] % keys["every"] == 0)
    expected = expected & with_own_keys["evaluation_point"].isin(keys["evaluation_points"])
    expected = expected & (with_own_keys["curvature_status"] == 0)
    for name in (name for name in with_own_keys if name.startswith(f"{operator}_")):
        present = with_own_keys[name].notnull()
        present = present.any(set(present.dims) & {"rank", "grid"})
        at_keys = expected.transpose(*present.dims)
        if operator == "hessian" and name.endswith(RANKS):
            present = present | at_keys
        xr.testing.assert_equal(present, at_keys)


@pytest.mark.parametrize("operator", OPERATORS)
def test_own_keys_of_an_operator_equal_common_keys(with_own_keys, checkpoints, data, operator):
    common = {"evaluation_points": ["previous", "next", "fresh"]} | OWN_KEYS[operator]
    single = measured(checkpoints, data, operators=[operator], **common)
    coordinates = {"task": single["task"], "evaluation_point": single["evaluation_point"]}
    for name in (name for name in single if name.startswith(f"{operator}_")):
        values = with_own_keys[name].sel(coordinates)
        if "rank" in values.dims:
            ranks = single.sizes["rank"]
            assert values.isel(rank=slice(ranks, None)).isnull().all()
            values = values.isel(rank=slice(ranks))
        xr.testing.assert_equal(values, single[name])


def test_rank_of_an_estimate_is_missing_where_it_is_not_known(checkpoints, data):
    """A rank is refused if its margin is larger than itself, or if it is impossible."""
    rank, limit = torch.tensor([5.0, 5, 5, 5]), torch.tensor([9.0, 9, 9, 4])
    margin = torch.tensor([0.0, 5, 5.1, 0])
    known = spectrum_variables.known_rank(rank, margin, limit)
    assert known.isnan().tolist() == [False, False, True, True]
    assert known[:2].tolist() == [5, 5]

    found = measured(checkpoints, data, "tanh", operators=["hessian"], **ESTIMATED)
    at_all = found.sel(block="all", evaluation_point="next")
    limits = at_all["hessian_rank_limit"].values
    assert (limits[np.isfinite(limits)] == 148).all(), "the number of parameters"
    for name in spectrum.rank_names([0.99]):
        value, margin = at_all[f"hessian_{name}"], at_all[f"hessian_{name}_margin"]
        assert (margin <= value).where(value.notnull(), True).all()
        assert (margin.notnull() | value.isnull()).all()


def test_rank_limit_is_the_number_of_samples_or_parameters(checkpoints, data):
    found = measured(checkpoints, data).sel(arm="a", seed=3, task=1, evaluation_point="next")
    limits = found["fisher_rank_limit"].sel(block=BLOCKS).values.tolist()
    assert limits == [9] * len(BLOCKS)


def test_operator_is_measured_at_listed_tasks_only(checkpoints, data):
    listed = measured(checkpoints, data, operators={"fisher": {}, "ggn": {"tasks": [3, 1]}})
    everywhere = measured(checkpoints, data, operators={"fisher": {}, "ggn": {}})
    is_listed = listed["task"].isin([1, 3])
    for name in everywhere:
        expected = everywhere[name]
        if name.startswith("ggn_"):
            expected = expected.where(is_listed).transpose(*expected.dims)
        xr.testing.assert_equal(listed[name], expected)


def test_only_blocks_above_exact_up_to_have_errors(with_own_keys):
    at_next = with_own_keys.sel(evaluation_point="next")
    is_measured = at_next["curvature_status"] == 0
    is_estimated = {
        "hidden_1": True,
        "hidden_2": False,
        "output": False,
        "last_two": True,
        "all": True,
    }
    # Other errors are 0 where so few eigenvalues are nonzero that all of them converge.
    positive = {
        "hessian_effective_rank_margin",
        "hessian_trace_margin",
        "hessian_density_error",
    }
    names = [
        name
        for name in at_next
        if name.startswith("hessian_") and name.endswith(("_error", "_margin"))
    ]
    for name, (block, estimated) in product(names, is_estimated.items()):
        errors = at_next[name].sel(block=block).where(is_measured, drop=True)
        if not estimated:
            assert (errors.fillna(0) == 0).all(), (name, block)
        elif name in positive:
            assert (errors > 0).mean() > 0.5, (name, block)


@pytest.mark.slow
def test_estimate_keeps_both_ends_of_the_spectrum_and_is_within_its_errors(checkpoints, data):
    keys = {"operators": ["hessian"], "top": 2}
    point = {"block": "all", "evaluation_point": "next"}
    estimated = measured(checkpoints, data, "tanh", **keys, **ESTIMATED).sel(point)
    exact = measured(checkpoints, data, "tanh", **keys).sel(point)
    assert estimated.sizes["rank"] == 4
    eigenvalues = exact["hessian_eigenvalue"].rename(rank="other")
    # The nearest eigenvalue, because a Ritz value may skip some.
    deviation = abs(estimated["hessian_eigenvalue"] - eigenvalues).min("other")
    round_off = 1e-5 * eigenvalues.max("other")
    bound = 1.01 * estimated["hessian_eigenvalue_error"] + round_off
    assert (deviation <= bound).where(deviation.notnull(), True).all()
    ratio = estimated["hessian_eigenvalue"].isel(rank=0) / eigenvalues.isel(other=0)
    assert ((ratio > 0.98) & (ratio < 1 + 1e-5)).where(ratio.notnull(), True).all()
    for name in ("trace", "entropy_rank", "negative_fraction"):
        deviation = abs(estimated[f"hessian_{name}"] - exact[f"hessian_{name}"])
        in_margins = deviation / estimated[f"hessian_{name}_margin"]
        assert in_margins.max() < 2, name
        assert in_margins.median() < 1, name


def test_eigenvalues_descend_and_padding_comes_last(with_own_keys):
    for operator in OPERATORS:
        values = with_own_keys[f"{operator}_eigenvalue"]
        missing = values.isnull().values
        assert (values.diff("rank").fillna(0) <= 0).all()
        assert not (missing[..., :-1] & ~missing[..., 1:]).any()


def test_variables_of_several_operators_match_the_table(with_own_keys):
    described = measure.table(curvature(OWN_KEYS, evaluation_points=["previous", "next", "fresh"]))
    assert set(with_own_keys.data_vars) == set(described)
    for name, variable in described.items():
        assert with_own_keys[name].dims == variable.dims
    for operator in OPERATORS:
        errors = {
            name
            for name in described
            if name.startswith(f"{operator}_") and name.endswith(("_error", "_margin"))
        }
        assert bool(errors) == (f"{operator}_density" in described) == (operator != "fisher")
    rows_of_hidden_2 = 42  # the largest exact Hessian
    assert with_own_keys["rank"].values.tolist() == list(range(rows_of_hidden_2))
    assert with_own_keys["grid"].values.tolist() == pytest.approx(spectrum.grid().tolist())
    assert with_own_keys["evaluation_point"].values.tolist() == ["previous", "next", "fresh"]


def test_exact_operators_have_no_errors_and_no_density(checkpoints, data):
    found = measured(checkpoints, data, operators=["fisher", "ggn"], estimate=False)
    assert not [name for name in found if "error" in name or "density" in name]
    assert "grid" not in found.dims


def test_each_level_has_a_rank_and_the_first_has_the_plain_name(checkpoints, data):
    one = measured(checkpoints, data, levels=[0.99, 0.9, 0.5])
    other = measured(checkpoints, data, levels=[0.9])
    assert {name for name in one if "effective_rank" in name} == {
        *(f"fisher_effective_rank{level}" for level in ("", "_at_0_9", "_at_0_5")),
    }
    ranks = [one[f"fisher_effective_rank{level}"] for level in ("", "_at_0_9", "_at_0_5")]
    assert (ranks[0] >= ranks[1]).where(ranks[0].notnull(), True).all()
    assert (ranks[1] > ranks[2]).any()
    np.testing.assert_array_equal(ranks[1], other["fisher_effective_rank"])


BROKEN = [
    ("exact", torch.nan),
    ("exact", -torch.inf),
    ("estimated", torch.nan),
    ("estimated", torch.inf),
]


@pytest.mark.parametrize(("how", "broken"), slow_except([BROKEN[1], BROKEN[2]], BROKEN))
def test_diverged_run_is_missing_and_changes_no_bit_of_other_runs(checkpoints, data, how, broken):
    def with_value(value):
        """Set one parameter of the first arm's second seed at a task."""

        def at(task):
            if task != DIVERGED[2]:
                return checkpoints.at(task)
            rows = checkpoints.at(task).clone()
            rows[rows.isnan()] = 0.1
            rows[1, 17] = value
            return rows

        return source(at, [1, 2])

    keys = {"operators": OPERATORS, "evaluation_points": ["previous", "fresh"], **HOW[how]}
    diverged = measured(with_value(broken), data, **keys)
    healthy = measured(with_value(0.1), data, **keys)
    run = {"arm": 0, "seed": 1, "task": 1}
    assert diverged["curvature_status"].isel(run).values.tolist() == [1, 0]
    assert (diverged["curvature_status"] == 1).sum() == 1
    missing_anyway = ("curvature_status", "flattened_feature_rank")
    for name in diverged.drop_vars(missing_anyway):
        if "evaluation_point" not in diverged[name].dims:
            continue
        at_previous = diverged[name].isel(run).sel(evaluation_point="previous")
        assert at_previous.isnull().all(), name
        repaired = diverged[name].copy()
        repaired[run] = healthy[name].isel(run)
        xr.testing.assert_identical(repaired.drop_attrs(), healthy[name].drop_attrs())
        may_be_unknown = how == "estimated" and name.endswith(RANKS)
        assert may_be_unknown or healthy[name].isel(run).notnull().any(), name


@pytest.mark.parametrize(("how", "samples"), [("exact", 9), ("estimated", 2), ("estimated", 9)])
def test_a_runs_numbers_do_not_depend_on_other_seeds_or_on_the_seeds_in_memory(
    checkpoints, data, monkeypatch, how, samples
):
    def with_seeds(seeds):
        rows = [arm * len(SEEDS) + SEEDS.index(seed) for arm in range(len(ARMS)) for seed in seeds]
        return source(lambda task: checkpoints.at(task)[rows], [1], seeds)

    keys = {
        "operators": OPERATORS,
        "samples": samples,
        "evaluation_points": ["previous", "fresh"],
        **HOW[how],
    }
    together = measured(with_seeds(SEEDS), data, **keys)
    for seed in SEEDS:
        single = measured(with_seeds([seed]), data, **keys)
        xr.testing.assert_identical(single, together.sel(seed=[seed]))
    monkeypatch.setattr(measure, "AT_ONCE", 1)
    xr.testing.assert_identical(measured(with_seeds(SEEDS), data, **keys), together)


def test_probes_depend_on_seed_task_and_block_only():
    probes = spectrum_variables.probes(3, 1, "all", 4, 50)
    assert torch.equal(probes, spectrum_variables.probes(3, 1, "all", 4, 50))
    for other in (
        spectrum_variables.probes(4, 1, "all", 4, 50),
        spectrum_variables.probes(3, 2, "all", 4, 50),
        spectrum_variables.probes(3, 1, "last_two", 4, 50),
    ):
        assert not torch.equal(probes, other)
    assert spectrum_variables.probes(3, 1, "all", 4, 50).dtype == torch.float64
    assert abs(spectrum_variables.probes(0, 0, "all", 4, 10**4).std() - 1) < 0.02


def test_every_run_is_estimated_from_probes_of_its_seed_task_and_block(
    checkpoints, data, monkeypatch
):
    draws, probes = set(), spectrum_variables.probes

    def recorded_probes(*arguments):
        draws.add(arguments)
        return probes(*arguments)

    monkeypatch.setattr(spectrum_variables, "probes", recorded_probes)
    measured(checkpoints, data, operators=["hessian"], evaluation_points=["next"], **ESTIMATED)
    sizes = {block: part.stop - part.start for block, part in COLUMNS.items()}
    assert draws == {
        (seed, task, block, 4, d)
        for seed in SEEDS
        for task in range(TASKS)
        for block, d in sizes.items()
    }


class TaskStore(dict):
    """Keeps results in memory, and stops the job when it is full."""

    def __init__(self, capacity=math.inf):
        super().__init__()
        self.capacity = capacity

    def save(self, place, state):
        if len(self) == self.capacity:
            raise KeyboardInterrupt
        self[place] = state

    def load(self, place):
        return self.get(place)


def test_restarted_job_measures_only_the_remaining_tasks(checkpoints, data, monkeypatch):
    config = curvature(["fisher", "hessian"])
    expected, _ = measure.measure(checkpoints, setting(), config, data)
    store = TaskStore(capacity=2)
    with pytest.raises(KeyboardInterrupt):
        measure.measure(checkpoints, setting(), config, data, saved_tasks=store)
    assert list(store) == [0, 1]
    store.capacity = math.inf
    tasks_read, at = [], Checkpoints.at

    def recorded_at(self, task):
        tasks_read.append(task)
        return at(self, task)

    monkeypatch.setattr(Checkpoints, "at", recorded_at)
    found, _ = measure.measure(checkpoints, setting(), config, data, saved_tasks=store)
    assert tasks_read == [2, 3]
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


HESSIAN_BEYOND_MEMORY = "the exact spectrum of the Hessian on all takes a matrix of 148 rows"
# Room for the matrix and the eigenvectors of the last two layers only.
MEMORY = 70**2 * 8 * 4


def test_spectrum_beyond_memory_is_estimated_with_a_warning(checkpoints, data, caplog):
    config = curvature(["hessian"], steps=8, probes=2, blocks=["all", "last_two"])
    found, coordinates = measure.measure(checkpoints, setting(), config, data, memory=MEMORY)
    errors = found["hessian_trace_margin"][0, 0, 3, 1]
    assert errors[coordinates["block"].index("all")] > 0
    assert errors[coordinates["block"].index("last_two")] == 0
    assert any(HESSIAN_BEYOND_MEMORY in message for message in caplog.messages)


def test_spectrum_beyond_memory_is_refused_if_estimates_are_forbidden(checkpoints, data):
    config = curvature(["hessian"], estimate=False, blocks=["all", "last_two"])
    message = rf"{HESSIAN_BEYOND_MEMORY} and 0\.000701 GB.*: set curvature\.estimate to true"
    with pytest.raises(StudyError, match=message):
        measure.measure(checkpoints, setting(), config, data, memory=MEMORY)


def test_spectrum_above_exact_up_to_is_refused_if_estimates_are_forbidden(checkpoints, data):
    message = (
        "the GGN on hidden_1 takes a matrix of 27 rows, more than 26: "
        r"set curvature\.estimate to true"
    )
    with pytest.raises(StudyError, match=message):
        measured(checkpoints, data, operators=["ggn"], exact_up_to=26, estimate=False)


def test_refusal_of_a_fisher_beyond_memory_does_not_suggest_estimates(checkpoints, data):
    message = (
        "the Fisher on hidden_1 takes a matrix of 9 rows and .* GB.*: "
        "take fewer samples, or ask for more"
    )
    with pytest.raises(StudyError, match=message):
        measure.measure(checkpoints, setting(), curvature(), data, memory=1000)


def test_fisher_is_exact_for_any_estimate_keys(checkpoints, data):
    xr.testing.assert_identical(
        measured(checkpoints, data, **ESTIMATED), measured(checkpoints, data)
    )


# Networks whose runs are measured one after another.


@pytest.fixture(scope="module", params=["cnn", "resnet18"])
def convolutional(request, tmp_path_factory):
    """Build a setting with a convolutional network, data, and checkpoints of two arms and seeds."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 10, (40, 2, 16, 16), np.uint8)
    data = dataset.describe("small", dataset.Images(images, np.arange(40) % 3, list("abc"), 9), {})
    problem = Problem(
        "small", "shuffle_labels", samples=20, batch=5, epochs=1, tasks=2, test_samples=7
    )
    setting = Setting(
        problem,
        Network(request.param, "relu", options={"width": 2}),
        Optimizer("sgd", options={"lr": 0.1}),
    )
    network = architecture.build_for(setting, data)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    folder = tmp_path_factory.mktemp(request.param)
    rows = CheckpointRows(folder / "rows", range(2), 4, shapes)
    for task in range(2):
        drawn = [
            architecture.draw_initial(network, setting.network, seed, task) for seed in range(4)
        ]
        rows.write(0, task, ensemble.rows(drawn))
    write(folder / "c.nc", rows, ARMS, SEEDS, {"settings": "{}"})
    return setting, data, Checkpoints(folder / "c.nc")


def test_fisher_of_convolutional_runs_equals_per_sample_gradient_products(convolutional):
    setting, data, checkpoints = convolutional
    values, coordinates = measure.measure(checkpoints, setting, curvature(samples=6), data)
    block, at_next = coordinates["block"].index("all"), 1
    network = architecture.build_for(setting, data).double().eval()
    for arm, seed, task in [(0, 0, 1), (1, 1, 1), (1, 0, 0)]:
        nn.utils.vector_to_parameters(checkpoints.at(task)[2 * arm + seed], network.parameters())
        inputs, labels = tasks.build_task(setting.problem, data, SEEDS[seed], task)
        losses = nn.functional.cross_entropy(
            network(inputs[:6].double()), labels[:6], reduction="none"
        )
        G = torch.stack([gradient_of(loss, network, retain_graph=True) for loss in losses])
        expected = torch.linalg.eigvalsh(G @ G.T / 6).flip(0).clamp(min=0)
        stored = values["fisher_eigenvalue"][arm, seed, task, at_next, block]
        np.testing.assert_allclose(stored, expected, rtol=1e-8, atol=1e-12 * expected[0])


def only_run(convolutional):
    """Select the second arm's first run at the second task.

    Returns:
        Setting, data, checkpoints of this run only, its network, inputs and labels.
    """
    setting, data, checkpoints = convolutional
    row = checkpoints.at(1)[2]
    single = source(lambda task: row[None], [1], SEEDS[:1], ["b"], checkpoints.shapes)
    network = architecture.build_for(setting, data).double().eval()
    nn.utils.vector_to_parameters(row, network.parameters())
    inputs, labels = tasks.build_task(setting.problem, data, SEEDS[0], 1)
    return setting, data, single, network, inputs[:6].double(), labels[:6]


def test_ggn_of_convolutional_runs_equals_that_of_their_jacobians(convolutional):
    setting, data, single, network, inputs, _ = only_run(convolutional)
    config = curvature(["ggn"], samples=6, evaluation_points=["next"])
    values, coordinates = measure.measure(single, setting, config, data)
    outputs, parameters = network(inputs), dict(network.named_parameters())
    rows = []
    for i, p in enumerate(outputs.detach().softmax(-1)):
        root = torch.linalg.cholesky(torch.diag(p) - torch.outer(p, p) + 1e-15 * torch.eye(3))
        for column in root.T:
            loss = outputs[i] @ column
            rows.append(gradient_of(loss, network, retain_graph=True))
    G = torch.stack(rows)
    layer_of = [name.rpartition(".")[0] for name in parameters]
    sizes = torch.tensor([parameter.numel() for parameter in parameters.values()])
    layer_of_column = np.repeat(layer_of, sizes)
    for block in [*dict.fromkeys(layer_of), "all"]:
        is_in_block = torch.from_numpy((layer_of_column == block) | (block == "all"))
        J = G[:, is_in_block]
        expected = torch.linalg.eigvalsh(J @ J.T / 6).flip(0)
        stored = values["ggn_eigenvalue"][0, 0, 0, 0, coordinates["block"].index(block)]
        np.testing.assert_allclose(
            stored, expected[: len(stored)], rtol=1e-6, atol=1e-10 * expected[0]
        )


# The other network runs the same code, and its layers take long.
@pytest.mark.parametrize("convolutional", ["cnn"], indirect=True)
def test_hessian_of_small_convolutional_layers_equals_that_of_torch_func(convolutional):
    setting, data, single, network, inputs, labels = only_run(convolutional)
    config = curvature(
        ["hessian"],
        samples=6,
        evaluation_points=["next"],
        exact_up_to=40,
        steps=4,
        probes=2,
        blocks=["layers"],
    )
    values, coordinates = measure.measure(single, setting, config, data)
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
    errors = values["hessian_trace_margin"][0, 0, 0, 0]
    for layer in ("hidden_1", "hidden_2", "output"):
        names = [f"{layer}.weight", f"{layer}.bias"]

        def loss(row, names=names):
            parts = row.split([parameters[name].numel() for name in names])
            shaped = {
                name: part.view(parameters[name].shape)
                for name, part in zip(names, parts, strict=True)
            }
            outputs = torch.func.functional_call(network, parameters | shaped, (inputs,))
            return nn.functional.cross_entropy(outputs, labels)

        matrix = hessian(loss)(torch.cat([parameters[name].flatten() for name in names]))
        expected = torch.linalg.eigvalsh((matrix + matrix.T) / 2).flip(0)
        block = coordinates["block"].index(layer)
        stored = values["hessian_eigenvalue"][0, 0, 0, 0, block]
        tolerance = 1e-9 * expected.abs().max()
        np.testing.assert_allclose(stored[: len(expected)], expected, rtol=1e-6, atol=tolerance)
        assert np.isnan(stored[len(expected) :]).all()
        assert errors[block] == 0
    assert (errors[:2] > 0).all(), "convolutions are estimated"


@pytest.mark.parametrize("operator", ["ggn", "hessian"])
def test_estimate_of_a_convolutional_network_has_its_largest_eigenvalue(convolutional, operator):
    setting, data, single, network, inputs, labels = only_run(convolutional)
    config = curvature(
        [operator],
        samples=6,
        evaluation_points=["next"],
        exact_up_to=1,
        steps=12,
        probes=2,
        blocks=["all"],
    )
    values, coordinates = measure.measure(single, setting, config, data)
    outputs = network(inputs)
    p = outputs.detach().softmax(-1)
    start = torch.zeros_like(outputs, requires_grad=True)
    pulled = gradient_of(outputs, network, grad_outputs=start, create_graph=True)
    loss = nn.functional.cross_entropy(outputs, labels)
    gradient = gradient_of(loss, network, create_graph=True)

    def hessian_product(vector):
        return gradient_of(gradient @ vector, network, retain_graph=True)

    def ggn_product(vector):
        pushed = torch.autograd.grad(pulled @ vector, start, retain_graph=True)[0]
        weighted = (p * pushed - p * (p * pushed).sum(-1, keepdim=True)) / len(inputs)
        return gradient_of(outputs, network, grad_outputs=weighted, retain_graph=True)

    vector_product = {"hessian": hessian_product, "ggn": ggn_product}[operator]
    d = len(gradient)

    def numpy_product(vector):
        return vector_product(torch.from_numpy(vector).flatten()).numpy()

    linear_operator = LinearOperator((d, d), numpy_product, dtype=float)
    (expected,), _ = eigsh(linear_operator, k=1, which="LA", v0=np.ones(d))
    block = coordinates["block"].index("all")
    stored = values[f"{operator}_top_eigenvalue"][0, 0, 0, 0, block]
    assert stored == pytest.approx(expected, rel=1e-4)
    error = values[f"{operator}_top_eigenvalue_margin"][0, 0, 0, 0, block]
    assert error < 1e-2 * expected


def test_units_of_a_convolution_are_its_channels(convolutional):
    setting, data, checkpoints = convolutional
    config = curvature(samples=6, evaluation_points=["next"])
    values, coordinates = measure.measure(checkpoints, setting, config, data)
    network = architecture.build_for(setting, data).double().eval()
    nn.utils.vector_to_parameters(checkpoints.at(1)[3], network.parameters())
    inputs, _ = tasks.build_task(setting.problem, data, SEEDS[1], 1)
    activations = []
    network.activation_1.register_forward_hook(
        lambda module, inputs, outputs: activations.append(outputs.detach())
    )
    network(inputs[:20].double())
    channels = activations[0].transpose(0, 1).flatten(1)
    block = coordinates["block"].index("conv_1")
    dead_fraction = (channels == 0).all(dim=1).double().mean()
    assert values["dead_fraction"][1, 1, 1, 0, block] == dead_fraction
    singular = torch.linalg.svdvals(channels)
    rank = int((singular.cumsum(0) < 0.99 * singular.sum()).sum()) + 1
    assert values["feature_rank"][1, 1, 1, 0, block] == rank


def test_test_images_are_not_measured(convolutional):
    setting, data, checkpoints = convolutional
    without = replace(setting, problem=replace(setting.problem, test_samples=0))
    config = curvature(samples=20, evaluation_points=["next"])
    found, _ = measure.measure(checkpoints, setting, config, data)
    expected, _ = measure.measure(checkpoints, without, config, data)
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


@pytest.mark.parametrize("operator", OPERATORS)
def test_curvature_of_regression_is_that_of_squared_errors(operator):
    draw = np.random.default_rng(0)
    bits = draw.integers(0, 2, (60, 1, 1, 12), np.uint8)
    data = dataset.describe("bits", dataset.Images(bits, np.zeros(60, int), ["none"], 1), {})
    problem = Problem(
        "bits", "flip_bits", samples=20, batch=5, epochs=1, tasks=TASKS, options={"flipping": 4}
    )
    regression = replace(setting("tanh"), problem=problem)
    network = architecture.build_for(regression, data).double()
    checkpoints = random_checkpoints(network)
    config = curvature([operator], samples=7, evaluation_points=["next"], top=2)
    values, coordinates = measure.measure(checkpoints, regression, config, data)
    found = netcdf.dataset(measure.table(config), values, coordinates, "measures", {})
    nn.utils.vector_to_parameters(checkpoints.at(0)[2], network.parameters())
    inputs, targets = tasks.build_task(problem, data, SEEDS[0], 0)
    batch = (inputs[:7].double(), targets[:7].double())
    matrix, gradient = dense(operator, network, *batch, squared)
    stored = found.sel(arm="b", seed=SEEDS[0], task=0, evaluation_point="next", block="all")
    assert_has_spectrum_of(stored, operator, matrix, gradient, 2)
    if operator == "ggn":
        ntk, _ = dense("ntk", network, *batch, squared)
        torch.testing.assert_close(matrix, 2 * ntk)


def random_checkpoints(network):
    """Draw parameters of a network for all runs, at one task."""
    shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    size = sum(tensor.numel() for tensor in network.parameters())
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(len(ARMS) * len(SEEDS), size, generator=generator, dtype=torch.float64)
    return source(lambda task: rows, [0], shapes=shapes)
