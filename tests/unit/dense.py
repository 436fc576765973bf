"""Curvature as dense matrices, by another route than the operators': torch.func's derivatives with respect to flat parameters."""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call, jacrev

from plasticity.models import activations, losses, normalization
from plasticity.models.architectures import vit
from plasticity.models.architectures.resnet18 import Block
from plasticity.models.normalization import BatchNorm

CLASSES = 3


def squared_distance(outputs, targets):
    """Of several outputs: ``(…, n, output)`` twice → ``(…, n)``."""
    return (outputs - targets).square().sum(dim=-1)


LOSSES = {
    "cross_entropy": losses.cross_entropy,
    "squared_error": losses.squared_error,
    "squared_distance": squared_distance,
}


def mlp(activation, outputs, bias=True, norm=None):
    layers = []
    for inputs, units in ((4, 5), (5, 4)):
        layers += [
            nn.Linear(inputs, units, bias=bias),
            *([norm(units)] if norm else []),
            activation(),
        ]
    return nn.Sequential(*layers, nn.Linear(units, outputs, bias=bias))


def cnn(activation, outputs, norm=None):
    norms = [norm] if norm else []
    first = [nn.Conv2d(1, 2, 3, stride=2, padding=1), *norms, activation(-3)]
    return nn.Sequential(
        *first,
        nn.MaxPool2d((1, 2)),
        nn.Conv2d(2, 2, 2, bias=False),
        activation(-3),
        nn.Flatten(),
        nn.Linear(4, outputs),
    )


def resnet(activation, outputs):
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, outputs)]
    return nn.Sequential(nn.Conv2d(1, 2, 1), Block(2, 2, 2, "batch", activation), *pool)


KINDS = {  # a network, and the shape of what it sees
    "mlp": (mlp, (4,)),
    "mlp without biases": (lambda activation, outputs: mlp(activation, outputs, bias=False), (4,)),
    "mlp with layer norm": (
        lambda activation, outputs: mlp(activation, outputs, norm=nn.LayerNorm),
        (4,),
    ),
    "mlp with batch norm": (
        lambda activation, outputs: mlp(activation, outputs, norm=BatchNorm),
        (4,),
    ),
    "cnn": (cnn, (1, 6, 8)),
    "cnn with group norm": (
        lambda activation, outputs: cnn(activation, outputs, nn.GroupNorm(1, 2)),
        (1, 6, 8),
    ),
    "resnet": (resnet, (1, 4, 4)),
    "vit": (
        lambda activation, outputs: vit.Network(4, 1, 2, 2).build((1, 2, 6), outputs, activation),
        (1, 2, 6),
    ),
}


def drawn(kind, activation, loss, seed, samples=5):
    """A network in eval mode with drawn parameters, and a batch with targets."""
    make, _ = KINDS[kind]
    torch.manual_seed(seed)
    outputs = 1 if loss == "squared_error" else CLASSES
    network = make(activations.KINDS[activation], outputs).double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=max(0.4, parameter[0].numel() ** -0.5))
    return network, *batch(kind, loss, samples)


def batch(kind, loss, samples=5):
    """Inputs and targets."""
    x = torch.randn(samples, *KINDS[kind][1]).double()
    if loss == "cross_entropy":
        return x, torch.randint(CLASSES, (samples,))
    return x, torch.randn(samples, *([CLASSES] if loss == "squared_distance" else [])).double()


class Written(nn.Module):
    """A norm written out: torch.func's second derivatives of torch's own layer norm are wrong (pytorch/pytorch#196700).

    Mean and variance of a batch norm are given numbers: what it is to one sample.
    """

    def __init__(self, layer, x):
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.dims = [-1] if isinstance(layer, nn.LayerNorm) else [*range(1, x.ndim)]
        self.shape = [-1] if isinstance(layer, nn.LayerNorm) else [-1, *[1] * (x.ndim - 2)]
        dims = [0, *range(2, x.ndim)]
        constant = (
            x.detach().mean(dims, keepdim=True),
            x.detach().var(dims, keepdim=True, correction=0),
        )
        self.constant = constant if isinstance(layer, BatchNorm) else None

    def forward(self, x):
        mean, variance = self.constant or (
            x.mean(self.dims, keepdim=True),
            x.var(self.dims, keepdim=True, correction=0),
        )
        return (x - mean) / (variance + 1e-5).sqrt() * self.weight.view(
            self.shape
        ) + self.bias.view(self.shape)


def written_out(network, x):
    """The network with the same parameters and each norm as it is on a batch (group norms of one group)."""
    seen = {}
    hooks = [
        layer.register_forward_hook(
            lambda layer, a, _, name=name: seen.update({name: Written(layer, a[0])})
        )
        for name, layer in network.named_modules()
        if isinstance(layer, normalization.LAYERS)
    ]
    network(x)
    for hook in hooks:
        hook.remove()
    found = nn.Sequential(copy_of(network))
    for name, layer in seen.items():
        found.set_submodule(f"0.{name}", layer)
    return found[0]


def copy_of(network):
    """Modules of its own with the same parameters."""
    return copy.deepcopy(network, {id(parameter): parameter for parameter in network.parameters()})


@dataclass
class Dense:
    """Matrices on all parameters, and which rows are whose."""

    matrices: dict
    gradient: torch.Tensor
    places: dict

    def block(self, operator, layers):
        """Of some layers."""
        own = self.of(layers)
        return self.matrices[operator][own][:, own]

    def of(self, layers):
        """The rows of some layers."""
        return torch.cat([self.places[layer] for layer in layers])


def dense(network, x, y, loss):
    """Every operator of a network at a batch."""
    network, n = written_out(network, x), len(x)
    learnt = {
        name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad
    }
    sizes = [parameter.numel() for parameter in learnt.values()]
    theta = torch.cat([parameter.detach().flatten() for parameter in learnt.values()])

    def outputs(theta):
        parts = theta.split(sizes)
        named = {
            name: part.view(learnt[name].shape) for name, part in zip(learnt, parts, strict=True)
        }
        return functional_call(network, named, (x,))

    J, z = jacrev(outputs)(theta), outputs(theta).detach()
    if loss == "cross_entropy":
        p = torch.softmax(z, dim=-1)
        slopes, H = (
            p - nn.functional.one_hot(y, z.shape[-1]),
            torch.diag_embed(p) - p[:, :, None] * p[:, None],
        )
    else:
        slopes, H = 2 * (z - y.view(z.shape)), 2 * torch.eye(z.shape[-1]).double().expand(n, -1, -1)
    g = torch.einsum("nc,ncd->nd", slopes, J)
    matrices = {
        "fisher": g.T @ g / n,
        "ggn": torch.einsum("nci,nce,nej->ij", J, H, J) / n,
        "ntk": torch.einsum("nci,ncj->ij", J, J) / n,
        "hessian": jacrev(jacrev(lambda theta: LOSSES[loss](outputs(theta), y).mean()))(theta),
    }
    places, start = {}, 0
    for name, size in zip(learnt, sizes, strict=True):
        layer = name.rpartition(".")[0]
        places[layer] = torch.cat(
            [places.get(layer, torch.arange(0)), torch.arange(start, start + size)]
        )
        start += size
    return Dense(matrices, g.mean(dim=0), places)
