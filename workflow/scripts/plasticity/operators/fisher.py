"""The empirical Fisher's exact spectrum, from one forward and one backward pass.

F = (1/n) Σ gᵢ gᵢᵀ, with gᵢ the gradient of sample i's loss on its given label, has the nonzero eigenvalues of the n × n Gram
matrix Kᵢⱼ = gᵢ·gⱼ / n.  A linear layer's share of K needs no per-sample gradient: there gᵢ = δᵢ ⊗ (aᵢ, 1), so
gᵢ·gⱼ = (aᵢ·aⱼ + 1)(δᵢ·δⱼ), with a the layer's inputs and δ the gradients at its outputs.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from plasticity.lockstep import forward


def gram_blocks(
    network: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    tensors: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Gram matrices of the per-sample gradients, layer by layer; their sum is that of the whole network.

    Args:
        network: made of layers that act on each sample alone; its parameters all sit in `nn.Linear` layers.
        inputs: shape ``(n, …)``, or ``(member, n, …)`` with `tensors`.
        targets: shape ``(n, …)``, or ``(member, n, …)`` with `tensors`.
        loss: per-sample loss, called as ``loss(outputs, targets)``, shape ``(…, n)``.
        tensors: parameters of many members by name, shapes ``(member, …)``, requiring gradients, in place of the network's own.

    Returns:
        One symmetric positive semi-definite ``(n, n)`` matrix per layer, keyed by its name; ``(member, n, n)`` with `tensors`.

    Raises:
        ValueError: a parameter outside a linear layer, which this identity does not cover.
    """
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear)}
    covered = {id(parameter) for layer in layers.values() for parameter in layer.parameters()}
    if strays := [name for name, parameter in network.named_parameters() if id(parameter) not in covered]:
        raise ValueError(f"no Gram identity for {', '.join(strays)}: only linear layers are covered")

    seen: dict[str, tuple[Tensor, Tensor]] = {}
    hooks = [
        layer.register_forward_hook(lambda _, a, z, name=name: seen.update({name: (a[0].detach(), z)})) for name, layer in layers.items()
    ]
    try:
        losses = loss(network(inputs) if tensors is None else forward(network, tensors, inputs), targets)
    finally:
        for hook in hooks:
            hook.remove()
    deltas = torch.autograd.grad(losses.sum(), [z for _, z in seen.values()])

    return {
        name: (a @ a.mT + (layers[name].bias is not None)) * (delta @ delta.mT) / losses.shape[-1]
        for (name, (a, _)), delta in zip(seen.items(), deltas, strict=True)
    }
