"""The empirical Fisher's exact spectrum, from one forward and one backward pass.

F = (1/n) Σ gᵢ gᵢᵀ, with gᵢ the gradient of sample i's loss on its given label, has the nonzero eigenvalues of the n × n Gram
matrix Kᵢⱼ = gᵢ·gⱼ / n. It is a sum over the layers, and a layer's share follows from its inputs a and the gradients δ at its outputs:

- a linear layer has gᵢ = δᵢ ⊗ (aᵢ, 1), so gᵢ·gⱼ = (aᵢ·aⱼ + 1)(δᵢ·δⱼ), and no gradient of a sample is ever formed;
- on many tokens t, gᵢ = Σₜ δᵢₜ ⊗ (aᵢₜ, 1), so gᵢ·gⱼ = Σₛₜ (aᵢₛ·aⱼₜ + 1)(δᵢₛ·δⱼₜ); a convolution is a linear layer on patches;
- a norm, which puts out w x̂ + b, has gᵢ = (Σₜ δᵢₜ x̂ᵢₜ, Σₜ δᵢₜ), the sums over the places that share a unit's w and b. In batch norm x̂
  depends on the whole batch, whose mean and variance are constants here;
- learned positions, which are added to the tokens, have gᵢ = δᵢ.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from plasticity.lockstep import broadcasts, forward
from plasticity.networks import Positions
from plasticity.normalization import BatchNorm


def gram_blocks(
    network: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    tensors: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Gram matrices of the per-sample gradients, layer by layer; their sum is that of the whole network.

    Args:
        network: its layers act on each sample alone, as batch norm does in eval mode; each is called once.
        inputs: shape ``(n, …)``, or ``(member, n, …)`` with `tensors`.
        targets: shape ``(n, …)``, or ``(member, n, …)`` with `tensors`.
        loss: per-sample loss, called as ``loss(outputs, targets)``, shape ``(…, n)``.
        tensors: parameters of many members by name, shapes ``(member, …)``, requiring gradients, in place of the network's own; for a
            network that broadcasts.

    Returns:
        One symmetric positive semi-definite ``(n, n)`` matrix per layer, keyed by its name; ``(member, n, n)`` with `tensors`.

    Raises:
        ValueError: a layer that no identity covers, or one that is called twice; members of a network that does not broadcast.
    """
    layers = {name: layer for name, layer in network.named_modules() if list(layer.parameters(recurse=False))}
    if strays := [
        f"{name}.{own}" for name, layer in layers.items() if not _covered(layer) for own, _ in layer.named_parameters(recurse=False)
    ]:
        raise ValueError(f"no Gram identity for {', '.join(strays)}")
    if len(list(network.named_parameters(remove_duplicate=False))) > len(list(network.parameters())):
        raise ValueError("no Gram identity for layers that share a parameter")
    if tensors is not None and not broadcasts(network):
        raise ValueError("this network does not broadcast: its members come one after the other")

    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str, inputs: Tensor, outputs: Tensor) -> None:
        if name in seen:
            raise ValueError(f"no Gram identity for {name}, which is called twice")
        seen[name] = inputs.detach(), outputs

    hooks = [layer.register_forward_hook(lambda _, a, z, name=name: note(name, a[0], z)) for name, layer in layers.items()]
    try:
        losses = loss(network(inputs) if tensors is None else forward(network, tensors, inputs), targets)
    finally:
        for hook in hooks:
            hook.remove()
    deltas = torch.autograd.grad(losses.sum(), [z for _, z in seen.values()])

    return {
        name: _gram(layers[name], a, delta, member=tensors is not None) / losses.shape[-1]
        for (name, (a, _)), delta in zip(seen.items(), deltas, strict=True)
    }


def _covered(layer: nn.Module) -> bool:
    """Whether there is an identity for this layer."""
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and not isinstance(layer.padding, str) and layer.padding_mode == "zeros"
    if isinstance(layer, BatchNorm):
        return not layer.training
    return isinstance(layer, (nn.Linear, nn.LayerNorm, nn.GroupNorm, Positions))


def _gram(layer: nn.Module, inputs: Tensor, deltas: Tensor, member: bool) -> Tensor:
    """Products gᵢ·gⱼ of one layer, shape ``(…, n, n)``, from its inputs and the gradients at its outputs; `member`: they begin with one."""
    if isinstance(layer, nn.Conv2d):
        padding = cast(tuple[int, ...], layer.padding)  # other kinds are not covered
        patches = nn.functional.unfold(inputs, layer.kernel_size, layer.dilation, padding, layer.stride)
        return _of_tokens(patches.mT, deltas.flatten(2).mT, layer.bias is not None)
    if isinstance(layer, nn.Linear):
        if inputs.ndim - member == 2:
            return (inputs @ inputs.mT + (layer.bias is not None)) * (deltas @ deltas.mT)
        return _of_tokens(inputs, deltas, layer.bias is not None)
    rows = deltas.flatten(1) if isinstance(layer, Positions) else _of_norm(layer, inputs, deltas, member)
    return rows @ rows.mT


def _of_norm(layer: nn.Module, inputs: Tensor, deltas: Tensor, member: bool) -> Tensor:
    """Gradients gᵢ of a norm's weight and bias, shape ``(…, n, parameter)``; arguments as `_gram` has them."""
    plain = {name: torch.full_like(own, float(name == "weight")) for name, own in layer.named_parameters()}
    values = [functional_call(layer, plain, (inputs,)).detach(), deltas]
    if not isinstance(layer, nn.LayerNorm):
        values = [value.movedim(1, -1) for value in values]
    normal, deltas = (value.reshape(*value.shape[: 1 + member], -1, value.shape[-1]) for value in values)
    return torch.cat([(deltas * normal).sum(-2), deltas.sum(-2)], dim=-1)


def _of_tokens(inputs: Tensor, deltas: Tensor, bias: bool) -> Tensor:
    """Products gᵢ·gⱼ of a linear layer on tokens, shape ``(n, n)``.

    Args:
        inputs: shape ``(n, token, number)``.
        deltas: gradients at the outputs, shape ``(n, token, unit)``.
        bias: whether it has one.
    """
    a = nn.functional.pad(inputs, (0, 1), value=1.0) if bias else inputs
    tokens, wide, high = a.shape[1], a.shape[2], deltas.shape[2]
    if tokens**2 * (wide + high) < wide * high:  # fewer products than the weights are
        return (torch.einsum("isk,jtk->ijst", a, a) * torch.einsum("isk,jtk->ijst", deltas, deltas)).sum((2, 3))
    rows = torch.einsum("ito,itk->iok", deltas, a).flatten(1)
    return rows @ rows.T
