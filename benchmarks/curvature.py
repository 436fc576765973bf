"""Exact Fisher spectrum: the Gram identity against vmapped per-sample gradients and the public loop, on one network.

    python benchmarks/curvature.py [--quick]

MLP 784-128-128-128-10 with ReLU, n samples, float32, one thread. Prints milliseconds (the best of several runs) and ratios.
"""

import argparse
import itertools
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

from plasticity import spectra
from plasticity.losses import cross_entropy
from plasticity.operators.fisher import gram_blocks


def by_gram(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Ours."""
    return spectra.eigenvalues(torch.stack(list(gram_blocks(network, inputs, labels, cross_entropy).values())).sum(dim=0))


def by_vmap(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Per-sample gradients of the whole network by vmap, then their Gram matrix."""
    parameters = dict(network.named_parameters())

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(functional_call(network, parameters, (x[None],)), y[None]).sum()

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, inputs, labels)
    rows = torch.cat([gradient.flatten(1) for gradient in gradients.values()], dim=1)
    return spectra.eigenvalues(rows @ rows.T / len(inputs))


def by_loop(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """One backward pass per sample, then an SVD: as public code does it."""
    rows = []
    for x, y in zip(inputs, labels, strict=True):
        gradients = torch.autograd.grad(cross_entropy(network(x[None]), y[None]).sum(), list(network.parameters()))
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.linalg.svdvals(torch.stack(rows)).square() / len(inputs)


def seconds(call: Callable[[], Tensor], runs: int) -> float:
    """The best of several runs."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer samples and runs")
    quick = parser.parse_args().quick
    n, runs = (128, 2) if quick else (512, 5)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    widths = [784, 128, 128, 128, 10]
    layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    network, inputs, labels = nn.Sequential(*layers[:-1]), torch.randn(n, 784), torch.randint(10, (n,))

    ways = {"Gram identity (ours)": by_gram, "vmapped per-sample gradients": by_vmap, "loop over samples + SVD": by_loop}
    spectrum = {name: way(network, inputs, labels) for name, way in ways.items()}
    took = {name: seconds(lambda way=way: way(network, inputs, labels), runs) for name, way in ways.items()}
    ours = next(iter(ways))
    print(f"exact Fisher spectrum, MLP {'-'.join(map(str, widths))}, n = {n}, torch {torch.__version__}, {platform.machine()}, 1 thread")
    print(f"{'way':32}{'ms':>10}{'λ₁ off by':>12}{'ratio':>8}")
    for name, time_ in took.items():
        off = abs(spectrum[name][0] / spectrum[ours][0] - 1)
        print(f"{name:32}{1e3 * time_:10.1f}{off:12.1e}{time_ / took[ours]:8.1f}")


if __name__ == "__main__":
    main()
