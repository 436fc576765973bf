"""Checkpoints of small networks, to be treated, and their hidden layers written out by hand."""

from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch.func import functional_call

from plasticity.config import registry
from plasticity.config.models import Network
from plasticity.interventions.subject import Subject
from plasticity.models import architecture

OUTPUTS = 3


class Hidden(NamedTuple):
    """The units of one hidden layer.

    Attributes:
        incoming: names of the parameters with a row per unit; the last one is the bias that acts on
            the pre-activations.
        outgoing: names of the weights with columns per unit.
        activation: name of the activation's module.
    """

    incoming: tuple[str, ...]
    outgoing: tuple[str, ...]
    activation: str


class Example(NamedTuple):
    """A network of a config, the shape of its images, and its hidden layers."""

    network: Network
    shape: tuple[int, int, int]
    hidden: list[Hidden]

    @property
    def expansion(self):
        return 2 if self.network.activation == "crelu" else 1


def of(*layers):
    """Name the weights and biases of layers."""
    return tuple(f"{layer}.{part}" for layer in layers for part in ("weight", "bias"))


def mlp_layers(norm=False):
    names = ["hidden_1", "hidden_2", "hidden_3", "output"]
    layers = []
    for place, (name, after) in enumerate(pairwise(names), start=1):
        incoming = of(name, f"norm_{place}") if norm else of(name)
        layers.append(Hidden(incoming, (f"{after}.weight",), f"activation_{place}"))
    return layers


def resnet_layers():
    blocks = [f"stage_{stage}.block_{block}" for stage in range(1, 5) for block in (1, 2)]
    return [
        Hidden(
            (f"{block}.conv_1.weight", *of(f"{block}.norm_1")),
            (f"{block}.conv_2.weight",),
            f"{block}.activation_1",
        )
        for block in blocks
    ]


def vit_layers():
    blocks = ["block_1", "block_2"]
    return [
        Hidden(of(f"{block}.hidden_1"), (f"{block}.hidden_2.weight",), f"{block}.activation_1")
        for block in blocks
    ]


def cnn_layers():
    names = ["conv_1", "conv_2", "hidden_1", "hidden_2", "output"]
    return [
        Hidden(of(name), (f"{after}.weight",), f"activation_{place}")
        for place, (name, after) in enumerate(pairwise(names), start=1)
    ]


def mlp(activation="relu", **options):
    return Network("mlp", activation, options={"width": 6, "depth": 3, **options})


SHAPE = (2, 2, 3)
CNN = Network("cnn", "relu", options={"width": 6})
VIT = Network("vit", "relu", options={"width": 4, "depth": 2, "heads": 2, "patch": 3})
RESNET = Network("resnet18", "relu", options={"width": 3})
EXAMPLES = {
    "mlp": Example(mlp(), SHAPE, mlp_layers()),
    "cnn": Example(CNN, (1, 16, 20), cnn_layers()),
    "vit": Example(VIT, (1, 6, 6), vit_layers()),
    "resnet18": Example(RESNET, (1, 8, 8), resnet_layers()),
    "mlp, layer norm": Example(mlp(norm="layer"), SHAPE, mlp_layers(norm=True)),
    "mlp, batch norm": Example(mlp(norm="batch"), SHAPE, mlp_layers(norm=True)),
    "mlp, initial biases": Example(replace(mlp(), initialization="pytorch"), SHAPE, mlp_layers()),
    "mlp, crelu": Example(mlp("crelu"), SHAPE, mlp_layers()),
}


def with_activation(example, activation):
    return example._replace(network=replace(example.network, activation=activation))


def make_subject(example, treatment="none", seed=0, task=3, samples=20, dead=True):
    """Make a checkpoint of which no parameter has its initial value.

    With relu, `dead` makes at least some units of every hidden layer zero on all data.
    """
    network = architecture.build(example.network, example.shape, OUTPUTS).eval()
    initial = architecture.draw_initial(network, example.network, seed)
    noise = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=noise, dtype=torch.float64)

    parameters = {
        name: 1.1 * tensor + 0.3 * draw(*tensor.shape) for name, tensor in initial.items()
    }
    if dead and example.network.activation == "relu":
        for place, layer in enumerate(example.hidden):
            bias = parameters[layer.incoming[-1]]
            bias[planted_units(place, len(bias))] = -1e3
    inputs = draw(samples, *example.shape)
    return Subject(network, example.network, parameters, initial, inputs, seed, task, treatment)


def planted_units(place, width):
    """Choose units of a hidden layer. Others may be dead by chance."""
    if place == 1 and width == 6:
        return [0, 1, 2, 4]  # more than live ones
    return [1] if width < 6 else [1, 3]


def treat(subject, strength=None):
    """Treat a subject by the file that it names."""
    arguments = [] if strength is None else [strength]
    return registry.load("treatments", subject.treatment).treat(subject, *arguments)


def outputs(subject, parameters):
    """Compute the outputs on the subject's inputs."""
    with torch.no_grad():
        return functional_call(subject.network, parameters, (subject.inputs,))
