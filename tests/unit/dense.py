"""Compute curvature as dense matrices by torch.func, independently of the operators."""

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
    """Compute the loss of several outputs: ``(…, n, output)`` twice → ``(…, n)``."""
    return (outputs - targets).square().sum(dim=-1)


LOSSES = {
    "cross_entropy": losses.cross_entropy,
    "squared_error": losses.squared_error,
    "squared_distance": squared_distance,
}


def mlp(activation, outputs, bias=True, norm=None):
    layers = []
    for inputs, units in ((4, 5), (5, 4)):
        layers.append(nn.Linear(inputs, units, bias=bias))
        if norm:
            layers.append(norm(units))
        layers.append(activation())
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


# A network, and the shape of its input.
KINDS = {
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


def random_network(kind, activation, loss, seed, samples=5):
    """Draw a network in eval mode, inputs and targets."""
    make, _ = KINDS[kind]
    torch.manual_seed(seed)
    outputs = 1 if loss == "squared_error" else CLASSES
    network = make(activations.ACTIVATIONS[activation], outputs).double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=max(0.4, parameter[0].numel() ** -0.5))
    return network, *random_batch(kind, loss, samples)


def random_batch(kind, loss, samples=5):
    """Draw inputs and targets."""
    x = torch.randn(samples, *KINDS[kind][1]).double()
    if loss == "cross_entropy":
        return x, torch.randint(CLASSES, (samples,))
    shape = (samples, CLASSES) if loss == "squared_distance" else (samples,)
    return x, torch.randn(*shape).double()


class ExplicitNorm(nn.Module):
    """A normalization layer in elementary operations.

    torch.func's second derivatives of torch's own layer norm are wrong (pytorch/pytorch#196700).
    In a batch norm, the mean and variance of a batch are constants.
    """

    def __init__(self, layer, x):
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        if isinstance(layer, nn.LayerNorm):
            self.dims, self.shape = [-1], [-1]
        else:
            self.dims, self.shape = [*range(1, x.ndim)], [-1, *[1] * (x.ndim - 2)]
        self.constants = None
        if isinstance(layer, BatchNorm):
            self.constants = moments(x.detach(), [0, *range(2, x.ndim)])

    def forward(self, x):
        mean, variance = self.constants or moments(x, self.dims)
        normalized = (x - mean) / (variance + 1e-5).sqrt()
        return normalized * self.weight.view(self.shape) + self.bias.view(self.shape)


def moments(x, dims):
    return x.mean(dims, keepdim=True), x.var(dims, keepdim=True, correction=0)


def with_explicit_norms(network, x):
    """Copy a network, with shared parameters and each norm written out (group norms: one group)."""
    explicit = {}

    def recorder(name):
        def record(layer, inputs, _):
            explicit[name] = ExplicitNorm(layer, inputs[0])

        return record

    hooks = [
        layer.register_forward_hook(recorder(name))
        for name, layer in network.named_modules()
        if isinstance(layer, normalization.NORM_CLASSES)
    ]
    network(x)
    for hook in hooks:
        hook.remove()
    shared = {id(parameter): parameter for parameter in network.parameters()}
    # `set_submodule` needs a parent, even for the network itself.
    container = nn.Sequential(copy.deepcopy(network, shared))
    for name, layer in explicit.items():
        container.set_submodule(f"0.{name}", layer)
    return container[0]


@dataclass
class Dense:
    """Dense matrices on all parameters.

    Attributes:
        matrices: by operator, shape ``(d, d)``.
        gradient: of the mean loss, shape ``(d,)``.
        rows: indices of each layer's parameters.
    """

    matrices: dict
    gradient: torch.Tensor
    rows: dict

    def block(self, operator, layers):
        """Return the matrix of some layers."""
        rows = self.rows_of(layers)
        return self.matrices[operator][rows][:, rows]

    def rows_of(self, layers):
        """Return the row indices of some layers."""
        return torch.cat([self.rows[layer] for layer in layers])


def dense(network, x, y, loss):
    """Compute every operator of a network on a batch."""
    network, n = with_explicit_norms(network, x), len(x)
    parameters = {
        name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad
    }
    sizes = [parameter.numel() for parameter in parameters.values()]
    theta = torch.cat([parameter.detach().flatten() for parameter in parameters.values()])

    def outputs(theta):
        parts = theta.split(sizes)
        named = {
            name: part.view(parameters[name].shape)
            for name, part in zip(parameters, parts, strict=True)
        }
        return functional_call(network, named, (x,))

    J, z = jacrev(outputs)(theta), outputs(theta).detach()
    slopes, H = loss_derivatives(z, y, loss)
    g = torch.einsum("nc,ncd->nd", slopes, J)
    matrices = {
        "fisher": g.T @ g / n,
        "ggn": torch.einsum("nci,nce,nej->ij", J, H, J) / n,
        "ntk": torch.einsum("nci,ncj->ij", J, J) / n,
        "hessian": jacrev(jacrev(lambda theta: LOSSES[loss](outputs(theta), y).mean()))(theta),
    }
    rows, start = {}, 0
    for name, size in zip(parameters, sizes, strict=True):
        layer = name.rpartition(".")[0]
        earlier = rows.get(layer, torch.arange(0))
        rows[layer] = torch.cat([earlier, torch.arange(start, start + size)])
        start += size
    return Dense(matrices, g.mean(dim=0), rows)


def loss_derivatives(z, y, loss):
    """Compute the gradient and the Hessian of each sample's loss at its outputs."""
    if loss == "cross_entropy":
        p = torch.softmax(z, dim=-1)
        one_hot = nn.functional.one_hot(y, z.shape[-1])
        return p - one_hot, torch.diag_embed(p) - p[:, :, None] * p[:, None]
    H = 2 * torch.eye(z.shape[-1]).double().expand(len(z), -1, -1)
    return 2 * (z - y.view(z.shape)), H
