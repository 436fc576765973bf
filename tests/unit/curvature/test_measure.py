"""Measures of checkpoints against plain networks, one run and one sample at a time, in float64."""

import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from ensembles import trained
from scipy.sparse.linalg import LinearOperator, eigsh
from tiers import slow_except
from torch import nn

from plasticity.config.models import Curvature, Network, Optimizer, Problem, Setting
from plasticity.curvature import measure as measures
from plasticity.curvature import spectrum, spectrum_variables
from plasticity.data import dataset, tasks
from plasticity.errors import StudyError
from plasticity.models import architecture
from plasticity.models.ensemble import Parameters
from plasticity.storage import netcdf
from plasticity.storage.checkpoints import Checkpoints, Rows, write

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
NAN = (1, 0, 2)  # arm, seed, task of the run that has diverged


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
    drawn = torch.randn(
        TASKS, len(ARMS), len(SEEDS), 148, generator=torch.Generator().manual_seed(0)
    )
    drawn[..., 72:75] = -50.0  # the biases of hidden_1's first three units: dead
    drawn[NAN[2], NAN[0], NAN[1]] = torch.nan
    rows = Rows(path.with_name("rows"), range(TASKS), len(ARMS) * len(SEEDS), SHAPES)
    for task, parameters in enumerate(drawn):
        rows.write(0, task, parameters.flatten(0, 1))
    write(path, rows, ARMS, SEEDS, {"settings": "{}"})
    return Checkpoints(path)


def curvature(
    operators=("fisher",), samples=9, evaluation_points=("previous", "next"), every=1, **keys
):
    """What a config asks for: operators as a list, or as a mapping from each to the keys of its own."""
    operators = operators if isinstance(operators, dict) else list(operators)
    return Curvature.of(
        {
            "operators": operators,
            "samples": samples,
            "evaluation_points": list(evaluation_points),
            "every": every,
        }
        | keys
    )


def measured(checkpoints, data, activation="relu", **keys):
    asked = curvature(**keys)
    values, coordinates = measures.measure(checkpoints, setting(activation), asked, data)
    return netcdf.dataset(measures.table(asked), values, coordinates, "measures", {})


def alone(row, activation):
    """One run's network as a plain module."""
    kind = {"relu": nn.ReLU, "tanh": nn.Tanh, "identity": nn.Identity}[activation]
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(12, 6), kind(), nn.Linear(6, 6), kind(), nn.Linear(6, 4)
    ).double()
    nn.utils.vector_to_parameters(row, network.parameters())
    return network


def fisher(network, inputs, labels):
    """The empirical Fisher of each block, formed densely."""
    rows = []
    for x, y in zip(inputs, labels, strict=True):
        loss = nn.functional.cross_entropy(network(x[None]), y[None])
        rows.append(
            torch.cat(
                [
                    gradient.flatten()
                    for gradient in torch.autograd.grad(loss, list(network.parameters()))
                ]
            )
        )
    rows = torch.stack(rows)
    parts = dict(zip(BLOCKS, [*rows.split([78, 42, 28], dim=1), rows[:, 78:], rows], strict=True))
    return {block: part.T @ part / len(inputs) for block, part in parts.items()}


@pytest.mark.parametrize("activation", ["relu", "tanh", "identity"])
def test_fisher_of_every_run_evaluation_point_and_block_is_that_of_its_own_network_and_data(
    checkpoints, data, activation
):
    found = measured(checkpoints, data, activation)
    for arm, name in enumerate(ARMS):
        for seed in SEEDS:
            for task in range(TASKS):
                for evaluation_point in ("previous", "next"):
                    here = found.sel(
                        arm=name, seed=seed, task=task, evaluation_point=evaluation_point
                    )
                    if (arm, SEEDS.index(seed), task) == NAN or (task, evaluation_point) == (
                        0,
                        "previous",
                    ):
                        numbers = [
                            variable
                            for variable in found
                            if "evaluation_point" in found[variable].dims
                            and found[variable].dtype.kind == "f"
                        ]
                        assert all(here[variable].isnull().all() for variable in numbers)
                        continue
                    row = checkpoints.at(task)[arm * len(SEEDS) + SEEDS.index(seed)]
                    inputs, labels = tasks.task(
                        setting().problem, data, seed, task - (evaluation_point == "previous")
                    )
                    for block, matrix in fisher(
                        alone(row, activation), inputs[:9].double(), labels[:9]
                    ).items():
                        values = np.linalg.eigvalsh(matrix.numpy())[::-1].clip(0)[:9]
                        values = np.pad(values, (0, 9 - len(values)))
                        eigenvalue = here["fisher_eigenvalue"].sel(block=block).values
                        np.testing.assert_allclose(
                            eigenvalue, values, rtol=1e-5, atol=1e-6 * values[0]
                        )
                        assert here["fisher_trace"].sel(block=block).item() == pytest.approx(
                            matrix.trace().item(), rel=1e-6
                        )
                        assert here["fisher_top_eigenvalue"].sel(
                            block=block
                        ).item() == pytest.approx(values[0], rel=1e-6)
                        entropy = -sum(p * math.log(p) for p in values / values.sum() if p > 1e-14)
                        assert here["fisher_entropy_rank"].sel(block=block).item() == pytest.approx(
                            math.exp(entropy), rel=1e-5
                        )
                        rank = next(
                            k for k in range(1, 10) if values[:k].sum() >= 0.99 * values.sum()
                        )
                        assert here["fisher_effective_rank"].sel(block=block) == rank


@pytest.mark.parametrize("activation", ["relu", "tanh", "identity"])
def test_units_and_features_are_measured_on_all_of_the_tasks_images(checkpoints, data, activation):
    found = measured(checkpoints, data, activation).sel(arm="b", seed=8, task=3)
    inputs, _ = tasks.task(setting().problem, data, 8, 3)
    network = alone(checkpoints.at(3)[3], activation)
    layers = {"hidden_1": network[:3](inputs.double()), "hidden_2": network[:5](inputs.double())}
    layers = {name: features.detach().numpy() for name, features in layers.items()}
    for evaluation_point in ("previous", "next"):  # both tasks have the same images
        here = found.sel(evaluation_point=evaluation_point)
        for name, features in layers.items():
            assert here["feature_rank"].sel(block=name) == rank_by_singular_values(features)
            assert here["dead_fraction"].sel(block=name).item() == pytest.approx(
                dead_by_loops(features), rel=1e-6
            )
            assert here["dormant_fraction"].sel(block=name).item() == pytest.approx(
                dormant_by_loops(features), rel=1e-6
            )
        for variable, by_loops in {
            "dead_fraction": dead_by_loops,
            "dormant_fraction": dormant_by_loops,
        }.items():
            assert here[variable].sel(block="all").item() == pytest.approx(
                sum(map(by_loops, layers.values())) / 2, rel=1e-6
            )
            assert here[variable].sel(block="output").isnull()
        assert here["feature_rank"].sel(block=["output", "last_two", "all"]).isnull().all()
        assert here["dead_fraction"].sel(block="last_two") == here["dead_fraction"].sel(
            block="hidden_2"
        )
        assert (here["dead_fraction"].sel(block="hidden_1") >= 0.5) == (activation == "relu")


def test_weight_norm_is_that_of_each_layers_weights_and_biases(checkpoints, data):
    found = measured(checkpoints, data)["weight_norm"].sel(arm="a", seed=8, task=1).values
    row = checkpoints.at(1)[1].numpy()
    parts = [row[:78], row[78:120], row[120:], row[78:], row]
    np.testing.assert_allclose(
        found, [math.sqrt(sum(w * w for w in part)) for part in parts], rtol=1e-6
    )


def test_a_run_of_nan_is_nan_everywhere_and_no_other_is(checkpoints, data):
    found = measured(checkpoints, data)
    for name, values in found.drop_vars("curvature_status").data_vars.items():
        here = values.isel(evaluation_point=-1) if "evaluation_point" in values.dims else values
        if name in ("feature_rank", "dead_fraction", "dormant_fraction"):
            here = here.sel(block=["hidden_1", "hidden_2"])
        missing = here.isnull().stack(
            rest=[dim for dim in here.dims if dim not in ("arm", "seed", "task")]
        )
        expected = np.zeros((len(ARMS), len(SEEDS), TASKS), bool)
        expected[NAN] = True
        np.testing.assert_array_equal(missing.all("rest"), expected, err_msg=name)
        np.testing.assert_array_equal(missing.any("rest"), expected, err_msg=name)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_every_thins_tasks_and_old_is_still_the_task_just_ended(checkpoints, data, every):
    whole, thinned = measured(checkpoints, data), measured(checkpoints, data, every=every)
    assert thinned["task"].values.tolist() == list(range(0, TASKS, every))
    assert whole.isel(task=slice(None, None, every)).equals(thinned)


def test_evaluation_points_are_measured_as_asked_and_their_order_in_the_config_is_nothing(
    checkpoints, data
):
    both = measured(checkpoints, data)
    for evaluation_points in (["next", "previous"], ["previous"], ["next"]):
        chosen = measured(checkpoints, data, evaluation_points=evaluation_points)
        assert chosen["evaluation_point"].values.tolist() == sorted(evaluation_points, reverse=True)
        assert both.sel(evaluation_point=chosen["evaluation_point"]).equals(chosen)


def test_old_and_new_differ_since_labels_do(checkpoints, data):
    trace = measured(checkpoints, data)["fisher_trace"].sel(
        arm="a", task=slice(1, None), block="all"
    )
    assert (
        abs(trace.sel(evaluation_point="previous") / trace.sel(evaluation_point="next") - 1) > 1e-3
    ).all()


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
        rows, columns = (
            torch.linalg.qr(torch.randn(size, planted, generator=draw).double()).Q
            for size in (30, 10)
        )
        assert measures.feature_rank((rows @ columns.T)[None]) == planted
    assert measures.feature_rank(torch.zeros(1, 30, 10).double()) == 0


def test_dead_and_dormant_fractions_of_known_units():
    activations = torch.tensor([[[0.0, 1.0, 100.0, 0.0], [0.0, 0.0, 100.0, 2.0]]]).double()
    layers = {"hidden_1": ["hidden_1"], "hidden_2": ["hidden_2"]}
    values = measures.unit_measures(
        {"hidden_1": activations, "hidden_2": torch.ones(1, 2, 4).double()},
        layers | {"all": list(layers)},
    )
    assert values["dead_fraction"].tolist() == [[0.25, 0.0, 0.125]]
    assert values["dormant_fraction"].tolist() == [
        [0.5, 0.0, 0.25]
    ]  # scores 0, 0.5, 100 and 1, over their mean 25.375


def test_a_silent_layer_is_all_dead_and_dormant():
    values = measures.unit_measures(
        {"hidden_1": torch.zeros(2, 5, 3).double()}, {"hidden_1": ["hidden_1"]}
    )
    assert values["dead_fraction"].tolist() == values["dormant_fraction"].tolist() == [[1.0], [1.0]]
    assert values["feature_rank"].tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_unit_is_dormant_by_its_share_of_its_layers_mean_magnitude_whatever_the_scale(scale):
    draw = np.random.default_rng(0)
    activations = draw.normal(size=(3, 7, 50)) * draw.lognormal(sigma=3, size=50)
    expected = [dormant_by_loops(run) for run in activations]
    assert all(0.1 < fraction < 0.95 for fraction in expected)
    values = measures.unit_measures(
        {"hidden_1": torch.from_numpy(scale * activations)}, {"hidden_1": ["hidden_1"]}
    )
    assert values["dormant_fraction"].flatten().tolist() == pytest.approx(expected)
    assert not values["dead_fraction"].any()


def test_hidden_activations_leave_no_hook_behind(data):
    network = architecture.fitting(setting(), data)
    flat = torch.randn(2, 148, generator=torch.Generator().manual_seed(0))
    found = measures.hidden_activations(
        network, Parameters(flat, SHAPES).tensors, torch.randn(2, 4, 2, 2, 3)
    )
    assert {name: tuple(values.shape) for name, values in found.items()} == {
        "hidden_1": (2, 4, 6),
        "hidden_2": (2, 4, 6),
    }
    assert not any(module._forward_hooks for module in network.modules())


def test_measures_do_not_depend_on_how_many_seeds_data_are_in_memory(
    checkpoints, data, monkeypatch
):
    together = measured(checkpoints, data)
    monkeypatch.setattr(measures, "AT_ONCE", 1)
    for name, values in measured(checkpoints, data).items():
        np.testing.assert_allclose(values, together[name], rtol=1e-12, err_msg=name)


# operators


LATER = {
    "hidden_1": slice(0, 78),
    "hidden_2": slice(78, 120),
    "output": slice(120, 148),
    "last_two": slice(78, 148),
    "all": slice(0, 148),
}
OPERATORS = ["fisher", "ggn", "hessian", "ntk"]
ESTIMATED = {
    "exact_up_to": 1,
    "steps": 8,
    "probes": 3,
}  # of any block: the smallest has 28 parameters
HOW = {"exact": {}, "estimated": ESTIMATED | {"blocks": ["last_two"]}}


def hessian(function):
    """Of a function of one vector, by two backward passes: torch's own goes forward, and warns."""
    return torch.func.jacrev(torch.func.grad(function))


def dense(operator, network, inputs, targets, loss=nn.functional.cross_entropy):
    """An operator as a matrix, by torch.func, and the gradient of the mean loss."""
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
    """What a spectrum is summed up by, in plain loops."""
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


def close(here, operator, matrix, gradient, top, levels=(0.99,)):
    """See to it that what is stored of one block is what a matrix has."""
    values, vectors = np.linalg.eigh((matrix + matrix.T).numpy() / 2)
    values, vectors = values[::-1], vectors[:, ::-1]
    found = here[f"{operator}_eigenvalue"].dropna("rank").values
    expected = (
        values
        if operator == "hessian"
        else np.pad(values, (0, max(0, len(found) - len(values))))[: len(found)]
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9 * abs(values).max())
    for name, number in numbers(expected, levels).items():
        assert here[f"{operator}_{name}"].item() == pytest.approx(number, rel=1e-5, abs=1e-7), name
    tied = values >= values[top - 1] - 1e-9 * abs(values).max()  # equal eigenvalues have one span
    overlap = ((vectors[:, tied].T @ gradient.numpy()) ** 2).sum() / (gradient.numpy() ** 2).sum()
    assert here[f"{operator}_gradient_overlap"].item() == pytest.approx(overlap, rel=1e-5, abs=1e-7)


def fresh_row(seed, task, data, activation="relu"):
    """Parameters of the network that is drawn anew for a task."""
    network = architecture.fitting(setting(activation), data)
    drawn = architecture.initial(network, setting(activation).network, seed, task)
    return (
        torch.cat([tensor.flatten() for tensor in drawn.values()]).float().double()
    )  # as training has them


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_is_that_of_the_right_parameters_on_the_right_tasks_data(
    checkpoints, data, operator
):
    keys = {"evaluation_points": ["previous", "next", "fresh"], "top": 3, "levels": [0.99, 0.9]}
    found = measured(checkpoints, data, "tanh", operators=[operator], **keys)
    problem = setting().problem
    for arm, seed, task in [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 3)]:
        given = {
            evaluation_point: tasks.task(
                problem, data, SEEDS[seed], max(0, task - (evaluation_point == "previous"))
            )
            for evaluation_point in keys["evaluation_points"]
        }
        given = {
            evaluation_point: (inputs[:9].double(), labels[:9])
            for evaluation_point, (inputs, labels) in given.items()
        }
        for evaluation_point in keys["evaluation_points"] if task else ["fresh"]:
            drawn = evaluation_point == "fresh"
            row = (
                fresh_row(SEEDS[seed], task, data, "tanh")
                if drawn
                else checkpoints.at(task)[arm * len(SEEDS) + seed]
            )
            network = alone(row, "tanh")
            matrix, _ = dense(operator, network, *given[evaluation_point])
            _, coming = dense("fisher", network, *given["next"])
            for block, part in LATER.items():
                here = found.isel(arm=arm, seed=seed).sel(
                    task=task, evaluation_point=evaluation_point, block=block
                )
                close(here, operator, matrix[part, part], coming[part], 3, keys["levels"])


def test_at_evaluation_point_old_the_gradient_is_that_of_the_coming_task_and_not_of_the_ended_one(
    checkpoints, data
):
    here = measured(checkpoints, data, "tanh", operators=["hessian"], top=3).sel(
        arm="b", seed=8, task=3, evaluation_point="previous", block="all"
    )
    ended, coming = (tasks.task(setting().problem, data, 8, task) for task in (2, 3))
    network = alone(checkpoints.at(3)[3], "tanh")
    matrix, of_ended = dense("hessian", network, ended[0][:9].double(), ended[1][:9])
    _, of_coming = dense("hessian", network, coming[0][:9].double(), coming[1][:9])
    top = torch.linalg.eigh(matrix).eigenvectors[:, -3:]
    share = {
        name: ((top.T @ g).square().sum() / g.square().sum()).item()
        for name, g in (("ended", of_ended), ("coming", of_coming))
    }
    assert here["hessian_gradient_overlap"].item() == pytest.approx(share["coming"], rel=1e-5)
    assert abs(share["ended"] - share["coming"]) > 0.01


def test_fresh_is_what_the_arm_of_fresh_networks_has_at_new_bit_for_bit(data):
    arms = [{}]
    _, states = trained(data, "fresh", arms, SEEDS, setting=setting(), dtype=torch.float32)
    standing = SimpleNamespace(
        arms=["fresh"],
        seeds=SEEDS,
        tasks=list(range(TASKS)),
        shapes=SHAPES,
        at=lambda task: states[task].double(),
    )
    for how in HOW.values():
        found = measured(
            standing, data, operators=OPERATORS, evaluation_points=["next", "fresh"], **how
        )
        found = found[[name for name in found if "evaluation_point" in found[name].dims]]
        assert found.sel(evaluation_point="next", drop=True).equals(
            found.sel(evaluation_point="fresh", drop=True)
        )


def test_fresh_is_the_same_for_every_arm_and_another_for_every_task_and_seed(checkpoints, data):
    found = measured(checkpoints, data, evaluation_points=["fresh"])["fisher_trace"].sel(
        block="all", evaluation_point="fresh"
    )
    assert found.notnull().all(), "also beside a run that diverged"
    assert found.sel(arm="a", drop=True).equals(found.sel(arm="b", drop=True))
    assert len(set(found.sel(arm="a").values.ravel())) == len(SEEDS) * TASKS


OWN = {
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


@pytest.fixture(scope="module")
def of_their_own(checkpoints, data):
    """All operators, each with keys of its own."""
    return measured(
        checkpoints, data, operators=OWN, evaluation_points=["previous", "next", "fresh"]
    )


@pytest.mark.parametrize("operator", OPERATORS)
def test_what_an_operator_is_not_asked_for_is_missing_and_nothing_else(of_their_own, operator):
    own = {
        "every": 1,
        "evaluation_points": ["previous", "next", "fresh"],
        "blocks": ["layers", "last_two", "all"],
    } | OWN[operator]
    alive = of_their_own["curvature_status"] == 0
    layers = ~of_their_own["block"].isin(["last_two", "all"])
    asked = of_their_own["block"].isin(own["blocks"]) | (layers & ("layers" in own["blocks"]))
    asked = (
        asked
        & (of_their_own["task"] % own["every"] == 0)
        & of_their_own["evaluation_point"].isin(own["evaluation_points"])
        & alive
    )
    for name in (name for name in of_their_own if name.startswith(f"{operator}_")):
        there = of_their_own[name].notnull()
        xr.testing.assert_equal(
            there.any(set(there.dims) & {"rank", "grid"}),
            asked.transpose(*(dim for dim in there.dims if dim in asked.dims)),
        )


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operators_own_keys_do_what_the_common_ones_do(
    of_their_own, checkpoints, data, operator
):
    common = {"evaluation_points": ["previous", "next", "fresh"]} | OWN[operator]
    alone = measured(checkpoints, data, operators=[operator], **common)
    there = {"task": alone["task"], "evaluation_point": alone["evaluation_point"]}
    for name in (name for name in alone if name.startswith(f"{operator}_")):
        here = of_their_own[name].sel(there)
        if "rank" in here.dims:
            assert here.isel(rank=slice(alone.sizes["rank"], None)).isnull().all()
            here = here.isel(rank=slice(alone.sizes["rank"]))
        xr.testing.assert_equal(here, alone[name])


def test_blocks_larger_than_exact_up_to_are_estimated_with_errors_and_the_others_have_none(
    of_their_own,
):
    there = of_their_own["curvature_status"] == 0
    for name in (
        name for name in of_their_own if name.startswith("hessian_") and name.endswith("_error")
    ):
        for block, large in {
            "hidden_1": True,
            "hidden_2": False,
            "output": False,
            "last_two": True,
            "all": True,
        }.items():
            errors = (
                of_their_own[name]
                .sel(block=block, evaluation_point="next")
                .where(there.sel(evaluation_point="next"), drop=True)
            )
            if (
                name
                in (
                    "hessian_effective_rank_standard_error",
                    "hessian_trace_standard_error",
                    "hessian_density_error",
                )
                and large
            ):
                assert (errors > 0).mean() > 0.5, (
                    name,
                    block,
                )  # it is exact where so few eigenvalues are not zero that all converge
            elif not large:
                assert (errors.fillna(0) == 0).all(), (name, block)


@pytest.mark.slow
def test_an_estimate_keeps_the_largest_and_the_smallest_eigenvalues_and_is_within_its_errors(
    checkpoints, data
):
    estimated = measured(checkpoints, data, "tanh", operators=["hessian"], top=2, **ESTIMATED).sel(
        block="all", evaluation_point="next"
    )
    exact = measured(checkpoints, data, "tanh", operators=["hessian"], top=2).sel(
        block="all", evaluation_point="next"
    )
    assert estimated.sizes["rank"] == 4
    every = exact["hessian_eigenvalue"].rename(rank="other")
    off = abs(estimated["hessian_eigenvalue"] - every).min(
        "other"
    )  # from the nearest: a Ritz value may have passed over some
    assert (
        (off <= 1.01 * estimated["hessian_eigenvalue_error"] + 1e-5 * every.max("other"))
        .where(off.notnull(), True)
        .all()
    )
    largest = estimated["hessian_eigenvalue"].isel(rank=0) / every.isel(other=0)
    assert ((largest > 0.98) & (largest < 1 + 1e-5)).where(largest.notnull(), True).all()
    for name in ("trace", "effective_rank", "negative_fraction"):
        off = (
            abs(estimated[f"hessian_{name}"] - exact[f"hessian_{name}"])
            / estimated[f"hessian_{name}_standard_error"]
        )
        assert off.max() < 6, name
        assert off.median() < 2, name


def test_eigenvalues_descend_and_missing_ones_come_last(of_their_own):
    for operator in OPERATORS:
        values = of_their_own[f"{operator}_eigenvalue"]
        assert (values.diff("rank").fillna(0) <= 0).all()
        assert not (
            values.isnull().isel(rank=slice(None, -1)).values
            & values.notnull().isel(rank=slice(1, None)).values
        ).any()


def test_what_is_measured_of_several_operators_is_as_the_contract_has_it(of_their_own):
    described = measures.table(curvature(OWN, evaluation_points=["previous", "next", "fresh"]))
    assert set(of_their_own.data_vars) == set(described)
    for name, variable in described.items():
        assert of_their_own[name].dims == variable.dims
    for operator in OPERATORS:
        errors = {
            name
            for name in described
            if name.startswith(f"{operator}_") and name.endswith("_error")
        }
        assert bool(errors) == (f"{operator}_density" in described) == (operator != "fisher")
    assert of_their_own["rank"].values.tolist() == list(range(42)), (
        "as many as the Hessian has on hidden_2"
    )
    assert of_their_own["grid"].values.tolist() == pytest.approx(spectrum.grid().tolist())
    assert of_their_own["evaluation_point"].values.tolist() == ["previous", "next", "fresh"]


def test_without_an_operator_that_may_be_estimated_there_are_no_errors_and_no_density(
    checkpoints, data
):
    found = measured(checkpoints, data, operators=["fisher", "ggn"], estimate=False)
    assert not [name for name in found if "error" in name or "density" in name]
    assert "grid" not in found.dims


def test_levels_have_ranks_of_their_own_and_the_first_has_the_plain_name(checkpoints, data):
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
def test_a_diverged_run_is_missing_and_changes_no_bit_of_the_others(checkpoints, data, how, broken):
    def at(value):
        def rows(task):
            found = checkpoints.at(2).clone() if task == NAN[2] else checkpoints.at(task)
            found[found.isnan()] = 0.1
            if task == NAN[2]:
                found[1, 17] = value  # of the first arm's second seed
            return found

        return SimpleNamespace(arms=ARMS, seeds=SEEDS, tasks=[1, 2], shapes=SHAPES, at=rows)

    keys = {"operators": OPERATORS, "evaluation_points": ["previous", "fresh"], **HOW[how]}
    harmed, whole = (measured(at(value), data, **keys) for value in (broken, 0.1))
    run = {"arm": 0, "seed": 1, "task": 1}
    assert harmed["curvature_status"].isel(run).values.tolist() == [1, 0]
    assert (harmed["curvature_status"] == 1).sum() == 1
    for name in (
        name
        for name in harmed
        if "evaluation_point" in harmed[name].dims and name != "curvature_status"
    ):
        assert harmed[name].isel(run).sel(evaluation_point="previous").isnull().all(), name
        mended = harmed[name].copy()
        mended[run] = whole[name].isel(run)
        xr.testing.assert_identical(mended.drop_attrs(), whole[name].drop_attrs())
        assert whole[name].isel(run).notnull().any()


@pytest.mark.parametrize(("how", "samples"), [("exact", 9), ("estimated", 2), ("estimated", 9)])
def test_a_runs_numbers_do_not_depend_on_the_seeds_beside_it_or_on_how_many_are_in_memory(
    checkpoints, data, monkeypatch, how, samples
):
    def of(seeds):
        places = [
            arm * len(SEEDS) + SEEDS.index(seed) for arm in range(len(ARMS)) for seed in seeds
        ]
        at = lambda task: checkpoints.at(task)[places]  # noqa: E731
        return SimpleNamespace(arms=ARMS, seeds=seeds, tasks=[1], shapes=SHAPES, at=at)

    keys = {
        "operators": OPERATORS,
        "samples": samples,
        "evaluation_points": ["previous", "fresh"],
        **HOW[how],
    }
    together = measured(of(SEEDS), data, **keys)
    for seed in SEEDS:
        alone = measured(of([seed]), data, **keys)
        xr.testing.assert_identical(alone, together.sel(seed=[seed]))
    monkeypatch.setattr(measures, "AT_ONCE", 1)
    xr.testing.assert_identical(measured(of(SEEDS), data, **keys), together)


def test_probes_are_the_same_for_every_arm_evaluation_point_and_operator_and_others_for_every_seed_task_and_block():
    one = spectrum_variables.probes(3, 1, "all", 4, 50)
    assert torch.equal(one, spectrum_variables.probes(3, 1, "all", 4, 50))
    for other in (
        spectrum_variables.probes(4, 1, "all", 4, 50),
        spectrum_variables.probes(3, 2, "all", 4, 50),
        spectrum_variables.probes(3, 1, "last_two", 4, 50),
    ):
        assert not torch.equal(one, other)
    assert spectrum_variables.probes(3, 1, "all", 4, 50).dtype == torch.float64
    assert abs(spectrum_variables.probes(0, 0, "all", 4, 10**4).std() - 1) < 0.02


def test_every_run_is_estimated_from_probes_of_its_own_seed_task_and_block(
    checkpoints, data, monkeypatch
):
    seen, probes = set(), spectrum_variables.probes
    monkeypatch.setattr(
        spectrum_variables, "probes", lambda *about: seen.add(about) or probes(*about)
    )
    measured(checkpoints, data, operators=["hessian"], evaluation_points=["next"], **ESTIMATED)
    sizes = {block: part.stop - part.start for block, part in LATER.items()}
    assert seen == {
        (seed, task, block, 4, d)
        for seed in SEEDS
        for task in range(TASKS)
        for block, d in sizes.items()
    }


class Memory(dict):
    """Keeps what it is given, as `resume.Resume` does, and stops a job when it is full."""

    def __init__(self, most=math.inf):
        super().__init__()
        self.most = most

    def save(self, place, state):
        if len(self) == self.most:
            raise KeyboardInterrupt
        self[place] = state

    def load(self, place):
        return self.get(place)


def test_a_job_that_is_started_anew_measures_only_the_tasks_that_are_left(
    checkpoints, data, monkeypatch
):
    asked, seen = curvature(["fisher", "hessian"]), []
    expected, _ = measures.measure(checkpoints, setting(), asked, data)
    kept = Memory(2)
    with pytest.raises(KeyboardInterrupt):
        measures.measure(checkpoints, setting(), asked, data, kept=kept)
    assert list(kept) == [0, 1]
    kept.most = math.inf
    monkeypatch.setattr(
        Checkpoints, "at", lambda self, task, at=Checkpoints.at: seen.append(task) or at(self, task)
    )
    found, _ = measures.measure(checkpoints, setting(), asked, data, kept=kept)
    assert seen == [2, 3]
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize("estimate", [True, False])
def test_a_spectrum_that_memory_does_not_hold_is_estimated_or_refused_in_a_sentence(
    checkpoints, data, caplog, estimate
):
    asked = curvature(["hessian"], steps=8, probes=2, estimate=estimate, blocks=["all", "last_two"])
    measure = partial(measures.measure, checkpoints, setting(), asked, data, memory=70**2 * 8 * 4)
    if not estimate:
        with pytest.raises(
            StudyError,
            match=r"Hessian on all takes a matrix of 148 rows and 0\.000701 GB.*: set curvature\.estimate to true",
        ):
            measure()
        return
    found, coordinates = measure()
    errors = found["hessian_trace_standard_error"][0, 0, 3, 1]
    assert errors[coordinates["block"].index("all")] > 0
    assert errors[coordinates["block"].index("last_two")] == 0
    assert [
        line
        for line in caplog.messages
        if "the exact spectrum of the Hessian on all takes a matrix of 148 rows" in line
    ]


def test_a_spectrum_that_is_larger_than_exact_up_to_and_may_not_be_estimated_is_refused_in_a_sentence(
    checkpoints, data
):
    with pytest.raises(
        StudyError,
        match=r"the GGN on hidden_1 takes a matrix of 27 rows, more than 26: set curvature\.estimate to true",
    ):
        measured(checkpoints, data, operators=["ggn"], exact_up_to=26, estimate=False)


def test_that_memory_does_not_hold_the_fisher_is_said_without_a_word_of_estimates(
    checkpoints, data
):
    with pytest.raises(
        StudyError,
        match=r"the Fisher on hidden_1 takes a matrix of 9 rows and .* GB.*: take fewer samples, or ask for more",
    ):
        measures.measure(checkpoints, setting(), curvature(), data, memory=1000)


def test_the_fisher_is_exact_whatever_may_be_estimated(checkpoints, data):
    xr.testing.assert_identical(
        measured(checkpoints, data, **ESTIMATED), measured(checkpoints, data)
    )


# networks whose runs go one after the other


@pytest.fixture(scope="module", params=["cnn", "resnet18"])
def convolutional(request, tmp_path_factory):
    """A setting with a convolutional network, its data, and checkpoints of two arms and two seeds."""
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
    network = architecture.fitting(setting, data)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    folder = tmp_path_factory.mktemp(request.param)
    rows = Rows(folder / "rows", range(2), 4, shapes)
    for task in range(2):
        drawn = [architecture.initial(network, setting.network, seed, task) for seed in range(4)]
        rows.write(
            0,
            task,
            torch.stack(
                [torch.cat([tensor.flatten() for tensor in one.values()]) for one in drawn]
            ),
        )
    write(folder / "c.nc", rows, ARMS, SEEDS, {"settings": "{}"})
    return setting, data, Checkpoints(folder / "c.nc")


def test_the_fisher_of_convolutional_runs_is_that_of_each_ones_samples_one_by_one(convolutional):
    setting, data, checkpoints = convolutional
    values, coordinates = measures.measure(checkpoints, setting, curvature(samples=6), data)
    network = architecture.fitting(setting, data).double().eval()
    for arm, seed, task in [(0, 0, 1), (1, 1, 1), (1, 0, 0)]:
        nn.utils.vector_to_parameters(checkpoints.at(task)[2 * arm + seed], network.parameters())
        inputs, labels = tasks.task(setting.problem, data, SEEDS[seed], task)
        losses = nn.functional.cross_entropy(
            network(inputs[:6].double()), labels[:6], reduction="none"
        )
        rows = [
            torch.cat(
                [
                    g.flatten()
                    for g in torch.autograd.grad(
                        loss, list(network.parameters()), retain_graph=True
                    )
                ]
            )
            for loss in losses
        ]
        gram = torch.stack(rows) @ torch.stack(rows).T / 6
        expected = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0)
        found = values["fisher_eigenvalue"][arm, seed, task, 1, coordinates["block"].index("all")]
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12 * expected[0])


def of_one_run(convolutional):
    """The second arm's first run at the second task: its setting, data, standing, network, and what the operators are taken on."""
    setting, data, checkpoints = convolutional
    row = checkpoints.at(1)[2]
    standing = SimpleNamespace(
        arms=["b"], seeds=SEEDS[:1], tasks=[1], shapes=checkpoints.shapes, at=lambda task: row[None]
    )
    network = architecture.fitting(setting, data).double().eval()
    nn.utils.vector_to_parameters(row, network.parameters())
    inputs, labels = tasks.task(setting.problem, data, SEEDS[0], 1)
    return setting, data, standing, network, inputs[:6].double(), labels[:6]


def test_the_ggn_of_convolutional_runs_is_that_of_their_jacobians(convolutional):
    setting, data, standing, network, inputs, _ = of_one_run(convolutional)
    values, coordinates = measures.measure(
        standing, setting, curvature(["ggn"], samples=6, evaluation_points=["next"]), data
    )
    outputs, own = network(inputs), dict(network.named_parameters())
    roots = [
        torch.linalg.cholesky(torch.diag(p) - torch.outer(p, p) + 1e-15 * torch.eye(3))
        for p in outputs.detach().softmax(-1)
    ]
    rows = [
        torch.autograd.grad(outputs[i] @ roots[i][:, c], list(own.values()), retain_graph=True)
        for i in range(6)
        for c in range(3)
    ]
    of_layers = {}
    for place, name in enumerate(own):
        of_layers.setdefault(name.rpartition(".")[0], []).append(
            torch.stack([row[place].flatten() for row in rows])
        )
    for block in [*of_layers, "all"]:
        J = torch.cat(
            [
                part
                for layer, parts in of_layers.items()
                if block in (layer, "all")
                for part in parts
            ],
            dim=1,
        )
        expected = torch.linalg.eigvalsh(J @ J.T / 6).flip(0)
        found = values["ggn_eigenvalue"][0, 0, 0, 0, coordinates["block"].index(block)]
        np.testing.assert_allclose(
            found, expected[: len(found)], rtol=1e-6, atol=1e-10 * expected[0]
        )


@pytest.mark.parametrize(
    "convolutional", ["cnn"], indirect=True
)  # another's layers take long, and the same code
def test_the_hessian_of_small_layers_of_a_convolutional_network_is_that_of_torch_func(
    convolutional,
):
    setting, data, standing, network, inputs, labels = of_one_run(convolutional)
    asked = curvature(
        ["hessian"],
        samples=6,
        evaluation_points=["next"],
        exact_up_to=40,
        steps=4,
        probes=2,
        blocks=["layers"],
    )
    values, coordinates = measures.measure(standing, setting, asked, data)
    own = {name: parameter.detach() for name, parameter in network.named_parameters()}
    for block in ("hidden_1", "hidden_2", "output"):
        names = [f"{block}.weight", f"{block}.bias"]

        def loss(row, names=names):
            parts = row.split([own[name].numel() for name in names])
            tensors = own | {
                name: part.view(own[name].shape) for name, part in zip(names, parts, strict=True)
            }
            return nn.functional.cross_entropy(
                torch.func.functional_call(network, tensors, (inputs,)), labels
            )

        matrix = hessian(loss)(torch.cat([own[name].flatten() for name in names]))
        found = values["hessian_eigenvalue"][0, 0, 0, 0, coordinates["block"].index(block)]
        expected = torch.linalg.eigvalsh((matrix + matrix.T) / 2).flip(0)
        np.testing.assert_allclose(
            found[: len(expected)], expected, rtol=1e-6, atol=1e-9 * expected.abs().max()
        )
        assert np.isnan(found[len(expected) :]).all()
        assert (
            values["hessian_trace_standard_error"][0, 0, 0, 0, coordinates["block"].index(block)]
            == 0
        )
    assert (values["hessian_trace_standard_error"][0, 0, 0, 0, :2] > 0).all(), (
        "those of the convolutions are estimated"
    )


@pytest.mark.parametrize("operator", ["ggn", "hessian"])
def test_an_estimate_of_a_convolutional_network_has_its_largest_eigenvalue(convolutional, operator):
    setting, data, standing, network, inputs, labels = of_one_run(convolutional)
    asked = curvature(
        [operator],
        samples=6,
        evaluation_points=["next"],
        exact_up_to=1,
        steps=12,
        probes=2,
        blocks=["all"],
    )
    values, coordinates = measures.measure(standing, setting, asked, data)
    own = list(network.parameters())
    outputs = network(inputs)
    if operator == "ggn":
        p = outputs.detach().softmax(-1)
        start = torch.zeros_like(outputs, requires_grad=True)
        pulled = torch.cat(
            [g.flatten() for g in torch.autograd.grad(outputs, own, start, create_graph=True)]
        )
    slopes = torch.cat(
        [
            g.flatten()
            for g in torch.autograd.grad(
                nn.functional.cross_entropy(outputs, labels), own, create_graph=True
            )
        ]
    )

    def product(vector):
        vector = torch.from_numpy(vector).flatten()
        if operator == "hessian":
            found = torch.autograd.grad(slopes @ vector, own, retain_graph=True)
        else:
            pushed = torch.autograd.grad(pulled @ vector, start, retain_graph=True)[0]
            found = torch.autograd.grad(
                outputs,
                own,
                (p * pushed - p * (p * pushed).sum(-1, keepdim=True)) / 6,
                retain_graph=True,
            )
        return torch.cat([g.flatten() for g in found]).numpy()

    (expected,), _ = eigsh(
        LinearOperator((len(slopes), len(slopes)), product, dtype=float),
        k=1,
        which="LA",
        v0=np.ones(len(slopes)),
    )
    block = coordinates["block"].index("all")
    assert values[f"{operator}_top_eigenvalue"][0, 0, 0, 0, block] == pytest.approx(
        expected, rel=1e-4
    )
    assert values[f"{operator}_top_eigenvalue_standard_error"][0, 0, 0, 0, block] < 1e-2 * expected


def test_a_convolutions_units_are_its_channels(convolutional):
    setting, data, checkpoints = convolutional
    values, coordinates = measures.measure(
        checkpoints, setting, curvature(samples=6, evaluation_points=["next"]), data
    )
    network = architecture.fitting(setting, data).double().eval()
    nn.utils.vector_to_parameters(checkpoints.at(1)[3], network.parameters())
    inputs, _ = tasks.task(setting.problem, data, SEEDS[1], 1)
    seen = []
    network.activation_1.register_forward_hook(
        lambda module, given, outputs: seen.append(outputs.detach())
    )
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
    found, expected = (
        measures.measure(checkpoints, one, curvature(samples=20, evaluation_points=["next"]), data)[
            0
        ]
        for one in (setting, without)
    )
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_curvature_of_regression_is_that_of_squared_errors(checkpoints, operator):
    draw = np.random.default_rng(0)
    data = dataset.describe(
        "bits",
        dataset.Images(
            draw.integers(0, 2, (60, 1, 1, 12), np.uint8), np.zeros(60, int), ["none"], 1
        ),
        {},
    )
    problem = Problem(
        "bits", "flip_bits", samples=20, batch=5, epochs=1, tasks=TASKS, options={"flipping": 4}
    )
    regression = replace(setting("tanh"), problem=problem)
    network = architecture.fitting(regression, data).double()
    few, asked = (
        replace_output(checkpoints, network),
        curvature([operator], samples=7, evaluation_points=["next"], top=2),
    )
    found = netcdf.dataset(
        measures.table(asked), *measures.measure(few, regression, asked, data), "measures", {}
    )
    nn.utils.vector_to_parameters(few.at(0)[2], network.parameters())
    inputs, targets = tasks.task(problem, data, few.seeds[0], 0)
    matrix, gradient = dense(operator, network, inputs[:7].double(), targets[:7].double(), squared)
    close(
        found.sel(arm="b", seed=few.seeds[0], task=0, evaluation_point="next", block="all"),
        operator,
        matrix,
        gradient,
        2,
    )
    if operator == "ggn":
        ntk, _ = dense("ntk", network, inputs[:7].double(), targets[:7].double(), squared)
        torch.testing.assert_close(matrix, 2 * ntk)


def replace_output(checkpoints, network):
    """Checkpoints of another network with drawn parameters, of the same runs."""
    shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    size = sum(tensor.numel() for tensor in network.parameters())
    drawn = torch.randn(
        len(ARMS) * len(SEEDS),
        size,
        generator=torch.Generator().manual_seed(1),
        dtype=torch.float64,
    )
    return SimpleNamespace(
        arms=checkpoints.arms,
        seeds=checkpoints.seeds,
        tasks=[0],
        shapes=shapes,
        at=lambda task: drawn,
    )
