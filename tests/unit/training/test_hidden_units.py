"""Hidden units that can be reset: which are found, their weights, and refused networks."""

import pytest
import torch
from ensembles import changed, images, with_network_of
from torch import nn
from torch.func import functional_call

from plasticity.config.models import Network
from plasticity.errors import StudyError
from plasticity.models import architecture, ensemble
from plasticity.training.hidden_units import Units, find_hidden_units
from plasticity.training.trainer import Trainer


def built(kind, activation="relu", size=16, **options):
    return architecture.build(Network(kind, activation, options=options), (1, size, size), 3)


def names(found):
    return {
        units.layer: (units.width, units.expansion, units.incoming, units.outgoing)
        for units in found
    }


def of(layer, *norms):
    return tuple(f"{name}.{part}" for name in (layer, *norms) for part in ("weight", "bias"))


def test_hidden_units_of_an_mlp():
    assert find_hidden_units(built("mlp", width=5, depth=2)) == [
        Units("hidden_1", 5, 1, of("hidden_1"), ("hidden_2.weight",)),
        Units("hidden_2", 5, 1, of("hidden_2"), ("output.weight",)),
    ]
    assert find_hidden_units(built("mlp", "crelu", width=5, depth=1, norm="layer")) == [
        Units("hidden_1", 5, 2, of("hidden_1", "norm_1"), ("output.weight",))
    ]


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_hidden_units_of_a_cnn_are_channels_and_units(norm):
    norms = [() if norm == "none" else (f"norm_{place}",) for place in range(1, 5)]
    assert find_hidden_units(built("cnn", "fourier", width=7, norm=norm)) == [
        Units("conv_1", 16, 2, of("conv_1", *norms[0]), ("conv_2.weight",)),
        Units("conv_2", 16, 2, of("conv_2", *norms[1]), ("hidden_1.weight",)),
        Units("hidden_1", 7, 2, of("hidden_1", *norms[2]), ("hidden_2.weight",)),
        Units("hidden_2", 7, 2, of("hidden_2", *norms[3]), ("output.weight",)),
    ]


def test_hidden_units_of_a_resnet_are_inside_its_blocks():
    found = names(find_hidden_units(built("resnet18", width=2)))
    blocks = [f"stage_{stage}.block_{block}" for stage in range(1, 5) for block in (1, 2)]
    assert list(found) == [f"{block}.conv_1" for block in blocks]
    for place, block in enumerate(blocks):
        width = 2 * 2 ** (place // 2)
        incoming = (f"{block}.conv_1.weight", *of(f"{block}.norm_1"))
        assert found[f"{block}.conv_1"] == (width, 1, incoming, (f"{block}.conv_2.weight",))


def test_crelu_resnet_has_hidden_units_before_convolutional_shortcuts():
    found = names(find_hidden_units(built("resnet18", "crelu", width=2)))
    assert found["conv_1"] == (
        2,
        2,
        ("conv_1.weight", *of("norm_1")),
        ("stage_1.block_1.shortcut.conv.weight", "stage_1.block_1.conv_1.weight"),
    )
    assert "stage_1.block_1.conv_2" not in found  # the shortcut adds to them


def test_hidden_units_of_a_vit_are_in_its_hidden_layers():
    found = names(find_hidden_units(built("vit", "gelu", width=8, depth=2, heads=2)))
    assert found == {
        f"block_{place}.hidden_1": (
            32,
            1,
            of(f"block_{place}.hidden_1"),
            (f"block_{place}.hidden_2.weight",),
        )
        for place in (1, 2)
    }


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("activation", ["relu", "crelu", "tanh"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("mlp", {"width": 5, "depth": 2}),
        ("cnn", {"width": 6}),
        ("resnet18", {"width": 2}),
        ("vit", {"width": 8, "depth": 1, "heads": 2}),
    ],
)
def test_zero_outgoing_columns_equal_a_mask_on_activations(kind, options, activation, norm):
    options = options if kind == "vit" else {**options, "norm": norm}
    network = built(kind, activation, 20 if kind == "cnn" else 8, **options).double()
    size = 20 if kind == "cnn" else 8
    torch.manual_seed(0)
    tensors = {
        name: torch.randn(value.shape).double() for name, value in network.named_parameters()
    }
    inputs = torch.randn(4, 1, size, size).double()
    whole = functional_call(network, tensors, (inputs,))
    for units in find_hidden_units(network):
        with ensemble.record_activations(network, {}) as hidden:
            functional_call(network, tensors, (inputs,))
        dim = 1 if hidden[units.layer].ndim == 4 else -1
        for unit in (0, units.width - 1):
            mask = torch.ones(hidden[units.layer].shape[dim]).double()
            mask[[unit + units.width * copy for copy in range(units.expansion)]] = 0
            full_mask = (mask[:, None, None] if dim == 1 else mask).expand_as(hidden[units.layer])
            with ensemble.record_activations(network, {units.layer: full_mask}):
                masked = functional_call(network, tensors, (inputs,))
            without = {name: tensor.clone() for name, tensor in tensors.items()}
            for name in units.outgoing:
                units.columns(without[name][None])[:, :, :, unit] = 0
            torch.testing.assert_close(
                functional_call(network, without, (inputs,)), masked, rtol=1e-10, atol=1e-10
            )
            alive = (hidden[units.layer].movedim(dim, 0)[mask == 0] != 0).any()
            assert alive == (not torch.equal(masked, whole))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("mlp", {"width": 5, "depth": 2, "norm": "batch"}),
        ("cnn", {"width": 6, "norm": "batch"}),
        ("resnet18", {"width": 2}),
    ],
)
def test_incoming_rows_change_only_their_unit(kind, options):
    network = built(kind, "tanh", 16, **options).double()
    torch.manual_seed(0)
    tensors = {
        name: torch.randn(value.shape).double() for name, value in network.named_parameters()
    }
    inputs = torch.randn(4, 1, 16, 16).double()
    for units in find_hidden_units(network):
        other = {name: tensor.clone() for name, tensor in tensors.items()}
        for name in units.incoming:
            other[name][1] += torch.randn(other[name][1].shape).double()
        found = []
        for values in (tensors, other):
            with ensemble.record_activations(network, {}) as hidden:
                functional_call(network, values, (inputs,))
            found.append(hidden[units.layer].movedim(1, 0).flatten(1))
        assert (found[0] != found[1]).any(dim=1).tolist() == [
            unit == 1 for unit in range(units.width)
        ]


def test_magnitudes_are_means_over_rows_and_expansion():
    units = Units("layer", 3, 2, (), ())
    hidden = torch.tensor([[[1.0, 2, 3, 4, 5, 6], [-1, 0, 3, 4, -5, 0]]])
    assert units.magnitudes({"layer": hidden}).tolist() == [[(1 + 4) / 2, (1 + 5) / 2, (3 + 3) / 2]]


class Custom(nn.Module):
    """Three layers of four units; how they are called is a function's business."""

    def __init__(self, call):
        super().__init__()
        self.flatten = nn.Flatten()
        self.first, self.second, self.output = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.activation, self.other, self.norm = nn.ReLU(), nn.ReLU(), nn.LayerNorm(4)
        self.call = call

    def forward(self, x):
        return self.call(self, x.flatten(1))


CALLS = {
    "one activation for both layers": (
        lambda m, x: m.output(m.activation(m.second(m.activation(m.first(x))))),
        ["first", "second"],
    ),
    "a layer called twice": (
        lambda m, x: m.output(m.other(m.second(m.activation(m.first(m.activation(m.first(x))))))),
        ["second"],
    ),
    "a shortcut that takes units too": (
        lambda m, x: m.output(m.other(m.second(h := m.activation(m.first(x)))) + h),
        [],
    ),
    "a shortcut before the activation": (
        lambda m, x: m.output(m.other(m.second(m.activation(m.first(x))) + x)),
        ["first"],
    ),
    "two activations of one layer": (
        lambda m, x: m.output(m.activation(h := m.first(x)) * m.other(h)),
        [],
    ),
    "two activations with a layer each": (
        lambda m, x: m.output(m.activation(h := m.first(x))) + m.second(m.other(h))[:, :2],
        [],
    ),
    "two layers that take the same": (
        lambda m, x: m.output(m.second(h := m.activation(m.first(x))) * m.other(m.norm(h))),
        [],
    ),
    "a norm called twice": (
        lambda m, x: m.output(m.other(m.norm(m.second(m.activation(m.norm(m.first(x))))))),
        [],
    ),
    "units that are put out": (
        lambda m, x: m.activation(m.output(m.other(m.second(x)))),
        ["second"],
    ),
}


@pytest.mark.parametrize(("call", "expected"), CALLS.values(), ids=CALLS)
def test_units_of_a_custom_network_come_from_one_layer_and_go_to_layers_only(call, expected):
    if expected:
        assert [units.layer for units in find_hidden_units(Custom(call))] == expected
    else:
        with pytest.raises(
            StudyError,
            match=r"^no hidden units of this network.kind .*: choose another kind, method or "
            r"treatment$",
        ):
            find_hidden_units(Custom(call))


def test_network_that_cannot_be_traced_is_refused():
    with pytest.raises(
        StudyError,
        match=r"^the hidden units of this network.kind cannot be found, because its forward cannot "
        r"be traced \(.*\): choose another kind, method or treatment$",
    ) as refused:
        find_hidden_units(Custom(lambda m, x: m.output(x) if x.sum() > 0 else m.output(-x)))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("method", ["redo", "continual_backprop", "self_normalized_resets"])
def test_unit_reset_methods_work_on_every_architecture(method):
    arms = {
        "redo": {"threshold": 1e9, "period": 1},
        "continual_backprop": {"rate": 1, "maturity": 0},
        "self_normalized_resets": {"rejection": 1},
    }
    for kind, options in {
        "resnet18": {"width": 2},
        "vit": {"width": 8, "depth": 1, "heads": 2},
    }.items():
        setting = changed(
            problem={"tasks": 1, "epochs": 1, "samples": 7},
            network={"kind": kind, "options": options},
        )
        trainer = Trainer(
            with_network_of(setting, method),
            method,
            [(arms[method], 0)],
            images(8),
            device=torch.device("cpu"),
        )
        trainer.on_task_start()
        before = trainer.learner.parameters.flat.detach().clone()
        trainer.learn()
        assert trainer.learner.parameters.flat.isfinite().all()
        assert not torch.equal(trainer.learner.parameters.flat, before)
