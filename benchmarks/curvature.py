"""Curvature against named peers: time, error at equal cost, memory.

    python benchmarks/curvature.py [--quick] [--threads N]

Needs torch and scipy only. One thread, as a job of the pipeline has, unless more are asked for (beside other work they wait for each
other). All ways of a part take turns, equally many; times are the best, ratios the median of those within a turn. Parts:

1. all eigenvalues of the Fisher: per-sample gradients by vmap and their Gram matrix; a public loop over samples with an SVD;
2. all eigenvalues of the GGN: per-sample Jacobians by vmap and their Gram matrix;
3. Lanczos steps on the Hessian: bare products with vectors; PyHessian's `density` (0.1 needs `torch.eig`, which is gone: its loop is
   rewritten here, operation by operation, with `torch.linalg.eigh`); curvlinops' `fast_lanczos` (3.0.1, rewritten here so that it takes
   several vectors, too), on our products and on its own;
4. what the same error costs: probes with the converged eigenvectors taken out, or plain probes, as PyHessian and curvlinops have them;
5. the peak of live bytes while a Gram matrix is made;
6. an ensemble's checkpoint: runs at once, or one by one.
"""

import argparse
import itertools
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, jvp, vmap
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

from plasticity.curvature import spectrum
from plasticity.curvature.lanczos import (
    Product,
    Quadrature,
    block_lanczos,
    stochastic_lanczos_quadrature,
)
from plasticity.curvature.operator import Operator
from plasticity.curvature.operators import fisher, ggn, hessian
from plasticity.curvature.spectrum import Spectrum
from plasticity.models.losses import cross_entropy

WIDTHS = [784, 128, 128, 128, 10]
STEPS = 100


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def batch(n: int) -> tuple[nn.Module, Tensor, Tensor]:
    """The network of most parts, with random inputs and labels."""
    torch.manual_seed(0)
    return mlp(WIDTHS), torch.randn(n, WIDTHS[0]), torch.randint(WIDTHS[-1], (n,))


def race(ways: Mapping[str, Callable[[], object]], quick: bool) -> dict[str, list[float]]:
    """Seconds of each way in each turn; a turn has every way once, every other one in reverse, and the first is not counted.

    All have as many turns: on a busy machine the best of many runs of one way is no match for the best of a few of another.
    """
    took: dict[str, list[float]] = {name: [] for name in ways}
    start, least, most = time.perf_counter(), 2 if quick else 5, 2 if quick else 40
    for turn in itertools.count():
        for name in list(ways) if turn % 2 else reversed(ways):
            begun = time.perf_counter()
            ways[name]()
            took[name].append(time.perf_counter() - begun)
        if turn >= least and time.perf_counter() - start > most:
            return {name: times[1:] for name, times in took.items()}
    raise AssertionError


def times_as_long(one: Sequence[float], other: Sequence[float]) -> float:
    """The median of the ratios of each turn: what slows a machine for a while slows both."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def show(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table: names to the left, numbers to the right."""
    print(f"\n{title}\n{head[0]:48}" + "".join(f"{one:>13}" for one in head[1:]))
    for name, *cells in rows:
        print(f"{name:48}" + "".join(f"{cell:>13}" for cell in cells), flush=True)


def ratios(took: Mapping[str, Sequence[float]]) -> list[list[object]]:
    """Rows of milliseconds, the best, and how many times as long as the first."""
    first = next(iter(took.values()))
    return [
        [name, f"{1e3 * min(times):.1f}", f"{times_as_long(times, first):.2f}"]
        for name, times in took.items()
    ]


# 1, 2: exact spectra


def by_vmap(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Per-sample gradients of the whole network by vmap, then their Gram matrix."""
    parameters = dict(network.named_parameters())

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(functional_call(network, parameters, (x[None],)), y[None]).sum()

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, inputs, labels)
    rows = torch.cat([gradient.flatten(1) for gradient in gradients.values()], dim=1)
    return spectrum.eigenvalues(rows @ rows.T / len(inputs))


def by_loop(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """One backward pass per sample, then an SVD: as public code does it."""
    rows = []
    for x, y in zip(inputs, labels, strict=True):
        gradients = torch.autograd.grad(
            cross_entropy(network(x[None]), y[None]).sum(), list(network.parameters())
        )
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.linalg.svdvals(torch.stack(rows)).square() / len(inputs)


def by_jacobians(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Per-sample Jacobians by vmap, multiplied with a root of the loss's Hessian at the outputs, then their Gram matrix."""
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}

    def outputs(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(network, parameters, (x[None],))[0]

    jacobians = vmap(jacrev(outputs), in_dims=(None, 0))(parameters, inputs)
    p = network(inputs).softmax(dim=-1).detach()
    roots = (
        torch.diag_embed(p.sqrt()) - p[:, :, None] * p.sqrt()[:, None, :]
    )  # S Sᵀ = diag(p) − p pᵀ
    K = torch.zeros(p.numel(), p.numel())
    for jacobian in jacobians.values():
        rows = (roots.mT @ jacobian.flatten(2)).flatten(0, 1)
        K += rows @ rows.T
    return spectrum.eigenvalues(K / len(inputs))


def exact_fisher(quick: bool) -> None:
    n = 128 if quick else 512
    network, inputs, labels = batch(n)

    def ours() -> Tensor:
        grams = fisher.Operator(network, inputs, labels, cross_entropy, check=False).grams()
        return spectrum.eigenvalues(grams.over(grams))

    ways = {
        "Gram identity (ours)": ours,
        "vmapped per-sample gradients": lambda: by_vmap(network, inputs, labels),
        "loop over samples + SVD": lambda: by_loop(network, inputs, labels),
    }
    took = race(ways, quick)
    off = [f"{abs(way()[0] / ours()[0] - 1):.0e}" for way in list(ways.values())[:2]] + [""]
    rows = [
        [name, ms, one, ratio] for (name, ms, ratio), one in zip(ratios(took), off, strict=True)
    ]
    show(
        f"1. all eigenvalues of the Fisher, n = {n} (targets: 20, 100)",
        ["way", "ms", "λ₁ off by", "ratio"],
        rows,
    )


def exact_ggn(quick: bool) -> None:
    n = 64 if quick else 256
    network, inputs, labels = batch(n)

    def gram() -> Tensor:
        grams = ggn.Operator(network, inputs, labels, cross_entropy, check=False).grams()
        return grams.over(grams)

    made = gram()
    peer = "vmapped Jacobians, n·C rows"
    ways = {
        "ours": lambda: spectrum.eigenvalues(gram()),
        "  of which the Gram matrix, n·(C−1) rows": gram,
        "  of which its eigenvalues": lambda: spectrum.eigenvalues(made),
        peer: lambda: by_jacobians(network, inputs, labels),
    }
    took = race(ways, quick)
    show(
        f"2. all eigenvalues of the GGN, n = {n} (target: 600 ms at n = 256)",
        ["way", "ms", "ratio"],
        ratios(took),
    )


# 3: Krylov spaces


def by_pyhessian(
    network: nn.Module, inputs: Tensor, labels: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """PyHessian 0.1, `hessian(…).density(iter=steps, n_v=1)`: lists of tensors, and each vector against all former ones, one by one."""

    def dot(xs: list[Tensor], ys: list[Tensor]) -> Tensor:
        return sum(torch.sum(x * y) for x, y in zip(xs, ys, strict=True))

    def add(xs: list[Tensor], ys: list[Tensor], alpha: Tensor) -> list[Tensor]:
        for x, y in zip(xs, ys, strict=True):
            x.data.add_(y * alpha)
        return xs

    def normal(xs: list[Tensor]) -> list[Tensor]:
        length = (dot(xs, xs) ** 0.5).cpu().item()
        return [x / (length + 1e-6) for x in xs]

    def orthonormal(xs: list[Tensor], others: list[list[Tensor]]) -> list[Tensor]:
        for other in others:
            xs = add(xs, other, -dot(xs, other))
        return normal(xs)

    network.zero_grad()
    parameters = list(network.parameters())
    slopes = torch.autograd.grad(
        cross_entropy(network(inputs), labels).mean(), parameters, create_graph=True
    )
    slopes = [slope + 0.0 for slope in slopes]
    v = normal([2.0 * torch.randint_like(parameter, high=2) - 1 for parameter in parameters])
    found, alphas, betas, w = [v], [], [], []
    for step in range(steps):
        network.zero_grad()
        if step:
            beta = torch.sqrt(dot(w, w))
            betas.append(beta.cpu().item())
            v = orthonormal(w, found)
            found.append(v)
        product = [torch.zeros(parameter.size()) for parameter in parameters]
        product = torch.autograd.grad(slopes, parameters, grad_outputs=v, retain_graph=True)
        alpha = dot(product, v)
        alphas.append(alpha.cpu().item())
        w = add(list(product), v, -alpha)
        if step:
            w = add(w, found[-2], -beta)
    T = (
        torch.diag(torch.tensor(alphas))
        + torch.diag(torch.tensor(betas), 1)
        + torch.diag(torch.tensor(betas), -1)
    )
    values, vectors = torch.linalg.eigh(T)
    return values, vectors[0].square()


def by_curvlinops(product: Product, starts: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """As `fast_lanczos` of curvlinops 3.0.1: nothing is reorthogonalised; for starts of shape ``(probe, d)`` side by side."""
    alphas, betas = starts.new_zeros(len(starts), steps), starts.new_zeros(len(starts), steps - 1)
    v, former = starts / torch.linalg.vector_norm(starts, dim=-1, keepdim=True), None
    for m in range(steps):
        further = product(v)
        if former is not None:
            further = further - betas[:, m - 1, None] * former
        alphas[:, m] = (further * v).sum(dim=-1)
        further -= alphas[:, m, None] * v
        if m < steps - 1:
            betas[:, m] = torch.linalg.vector_norm(further, dim=-1)
            further /= betas[:, m, None]
            former, v = v, further
    T = (
        torch.diag_embed(alphas)
        + torch.diag_embed(betas, offset=1)
        + torch.diag_embed(betas, offset=-1)
    )
    values, vectors = torch.linalg.eigh(T)
    return values, vectors[:, 0].square()


def products_of_curvlinops(network: nn.Module, inputs: Tensor, labels: Tensor) -> Product:
    """Its Hessian's: the derivative along vectors of a gradient by jacrev, vmapped over them; nothing is kept from product to product."""
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return cross_entropy(functional_call(network, parameters, (inputs,)), labels).mean()

    @torch.no_grad()
    def along(*vector: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            jvp(jacrev(loss), (parameters,), (dict(zip(parameters, vector, strict=True)),))[
                1
            ].values()
        )

    def product(vectors: Tensor) -> Tensor:
        parts = vectors.split([parameter.numel() for parameter in parameters.values()], dim=1)
        shaped = [
            part.unflatten(1, parameter.shape)
            for part, parameter in zip(parts, parameters.values(), strict=True)
        ]
        return torch.cat([part.flatten(1) for part in vmap(along)(*shaped)], dim=1)

    return product


def lanczos(quick: bool) -> None:
    n, steps = 128 if quick else 512, 50 if quick else STEPS
    network, inputs, labels = batch(n)
    operator = hessian.Operator(network, inputs, labels, cross_entropy, check=False)
    names = operator.blocks()["all"]
    start = torch.randn(1, 1, sum(parameter.numel() for parameter in network.parameters()))

    def bare() -> None:
        product, v = operator.product(names), start[0]
        for _ in range(steps):
            product(v)

    def theirs() -> tuple[Tensor, Tensor]:
        return by_curvlinops(products_of_curvlinops(network, inputs, labels), start[0], steps)

    peer, other = "PyHessian's density, patched", "curvlinops' Lanczos, its own products"
    ways = {
        "krylov (ours)": lambda: block_lanczos(operator.product(names), start, steps),
        "bare Hessian–vector products": bare,
        "curvlinops' Lanczos, our products": lambda: by_curvlinops(
            operator.product(names), start[0], steps
        ),
        other: theirs,
        peer: lambda: by_pyhessian(network, inputs, labels, steps),
    }
    largest = [
        torch.linalg.eigvalsh(block_lanczos(operator.product(names), start, steps).matrix)[0, -1],
        None,
        by_curvlinops(operator.product(names), start[0], steps)[0][0, -1],
        None,
        by_pyhessian(network, inputs, labels, steps)[0][-1],
    ]
    took = race(ways, quick)
    rows = [
        [
            name,
            ms,
            "" if one is None else f"{abs(float(one / largest[0]) - 1):.0e}",
            f"{times_as_long(took[name], took['bare Hessian–vector products']):.2f}",
            ratio,
        ]
        for (name, ms, ratio), one in zip(ratios(took), largest, strict=True)
    ]
    head = ["way", "ms", "λ₁ off by", "× bare", "ratio"]
    show(
        f"3. {steps} Lanczos steps on the Hessian, one probe, n = {n} (targets: PyHessian ≥ 2, ours ≤ 1.5 × bare)",
        head,
        rows,
    )


# 4: equal error


def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A small network, some steps into training: a few eigenvalues hold most of the trace, as they do in larger ones."""
    torch.manual_seed(0)
    network, inputs = mlp([32, 24, 24, 10]), torch.randn(256, 32)
    labels = (inputs @ torch.randn(32, 10)).argmax(dim=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        cross_entropy(network(inputs), labels).mean().backward()
        optimizer.step()
    return network, inputs, labels


def errors_of(found: Spectrum, truth: Mapping[str, float], shape: Tensor) -> list[float]:
    """Relative errors of trace and stable rank, and the distance ∫|ρ − ρ'| between densities."""
    numbers, _ = spectrum.summary(found)
    distance = (spectrum.density(found)[0] - shape).abs().sum() * float(
        spectrum.GRID[1] - spectrum.GRID[0]
    )
    return [float(numbers[name]) / truth[name] - 1 for name in truth] + [float(distance)]


def rms(rows: Iterable[Sequence[float]]) -> np.ndarray:
    return np.sqrt(np.square(np.array(list(rows))).mean(axis=0))


def equal_error(quick: bool) -> None:
    """Errors are those of many repeats on the dense matrix, whose products are the operator's; times are of the operator itself."""
    network, inputs, labels = trained()
    how = Quadrature()
    probes, repeats = (160, 8) if quick else (640, 32)
    operator = hessian.Operator(network, inputs, labels, cross_entropy, check=False)
    names = operator.blocks()["all"]
    double = operator_in_double(network, inputs, labels)
    exact = double.spectra({"all": names}, exact_up_to=10**4)["all"]
    numbers, _ = spectrum.summary(exact)
    truth = {name: float(numbers[name]) for name in ("trace", "stable_rank")}
    shape, d = spectrum.density(exact)[0], exact.size
    H = double.product(names)(torch.eye(d, dtype=torch.float64)).float()

    def plain(starts: Tensor, product: Product) -> Spectrum:
        values, weights = by_curvlinops(product, starts, how.steps)
        weights = weights.double() * d
        return Spectrum(values.double(), d, weights, (values.double(), weights))

    def dense(vectors: Tensor) -> Tensor:
        return vectors @ H

    ours = rms(
        errors_of(
            stochastic_lanczos_quadrature(dense, torch.randn(1 + how.probes, 1, d), how.steps, 10),
            truth,
            shape,
        )
        for _ in range(repeats)
    )
    pool = plain(torch.randn(probes, d), dense)
    assert pool.weights is not None
    counts = [
        count for count in (5, 7, 10, 14, 20, 28, 40, 56, 80, 112, 160) if count <= probes / 8
    ]
    at = {}
    for count in counts:
        groups = zip(pool.values.split(count), pool.weights.split(count), strict=True)
        full = [(values, weights) for values, weights in groups if len(values) == count]
        at[count] = rms(
            errors_of(Spectrum(values, d, weights, (values, weights)), truth, shape)
            for values, weights in full
        )
    starts = torch.randn(1 + how.probes, 1, d)
    product = operator.product(names)
    took = race(
        {
            "ours": lambda: stochastic_lanczos_quadrature(product, starts, how.steps, 10),
            "plain": lambda: [plain(start, product) for start in starts],
        },
        quick,
    )

    def row(name: str, probes: float, time_: float, errors: Sequence[float]) -> list[object]:
        cells = [
            f"{probes * how.steps:.0f}",
            f"{1e3 * time_:.0f}",
            *(f"{error:.4f}" for error in errors),
        ]
        return [
            name,
            *cells,
            f"{probes / (1 + how.probes):.1f}",
            f"{time_ / min(took['ours']):.1f}",
        ]

    a_probe = times_as_long(took["plain"], took["ours"]) * min(took["ours"]) / len(starts)
    rows = [
        row(f"ours: {how.probes} probes and one to take out", len(starts), min(took["ours"]), ours)
    ]
    rows.append(row("plain, as many products", len(starts), a_probe * len(starts), at[len(starts)]))
    for place, name in enumerate(("trace", "stable rank", "density")):
        count, said = next(
            ((count, "") for count in counts if at[count][place] <= ours[place]),
            (counts[-1], ", by 1/√probes"),
        )
        wanted = (
            max(1, (at[count][place] / ours[place]) ** 2) * count
        )  # errors of more probes than were drawn are not looked at
        rows.append(
            row(
                f"plain, to our error of {name}{said}",
                wanted,
                wanted * a_probe,
                at[count] * (count / wanted) ** 0.5,
            )
        )
    head = ["way", "products", "ms", "trace", "stable rank", "density", "× products", "× time"]
    title = f"4. errors (root mean squares of {repeats} repeats) on a Hessian of {d} known eigenvalues, {how.steps} steps (target: 2)"
    show(title, head, rows)


def operator_in_double(network: nn.Module, inputs: Tensor, labels: Tensor) -> Operator:
    """The Hessian of a copy in float64."""
    copy = mlp(
        [layer.in_features for layer in network if isinstance(layer, nn.Linear)]
        + [network[-1].out_features]
    )
    copy.load_state_dict(network.state_dict())
    return hessian.Operator(copy.double(), inputs.double(), labels, cross_entropy, check=False)


# 5: memory


class Peak(TorchDispatchMode):
    """The most bytes that storages which came into being within it ever held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self._live = 0, dict[int, tuple[StorageWeakRef, int]]()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        old = {
            one.untyped_storage()._cdata
            for one in tree_leaves((args, kwargs))
            if isinstance(one, Tensor)
        }
        found = func(*args, **(kwargs or {}))
        self._live = {
            key: (storage, size)
            for key, (storage, size) in self._live.items()
            if not storage.expired()
        }
        for one in tree_leaves(found):
            if isinstance(one, Tensor) and one.untyped_storage()._cdata not in old:
                self._live[one.untyped_storage()._cdata] = (
                    StorageWeakRef(one.untyped_storage()),
                    one.untyped_storage().nbytes(),
                )
        self.bytes = max(self.bytes, sum(size for _, size in self._live.values()))
        return found


def memory(quick: bool) -> None:
    rows = []
    for kind, n in ((fisher, 128 if quick else 512), (ggn, 64 if quick else 256)):
        network, inputs, labels = batch(n)
        outputs = 1 if kind is fisher else WIDTHS[-1]
        network, inputs = network.double(), inputs.double()
        with Peak() as peak:
            grams = kind.Operator(network, inputs, labels, cross_entropy, check=False).grams()
            grams.over(grams)
        matrix = (n * outputs) ** 2 * 8
        activations = n * (WIDTHS[0] + 2 * sum(WIDTHS[1:-1]) + WIDTHS[-1]) * 8
        allowed = matrix + 2 * activations
        cells = [f"{number / 1e6:.1f}" for number in (peak.bytes, matrix, activations)]
        rows.append([f"{kind.Operator.NAME}, n = {n}", *cells, f"{peak.bytes / allowed:.2f}"])
    head = ["operator", "peak, MB", "n²·C²·8", "activations", "ratio"]
    show(
        "5. live bytes while K is made, float64, over n²·C²·8 + twice the activations (C = 1 for the Fisher)",
        head,
        rows,
    )


# 6: ensembles


def ensemble(quick: bool) -> None:
    widths, runs, n = [64, 64, 64, 64, 10], 5, 128
    torch.manual_seed(0)
    networks = [mlp(widths).double() for _ in range(runs)]
    inputs, labels = (
        torch.randn(runs, n, widths[0], dtype=torch.float64),
        torch.randint(widths[-1], (runs, n)),
    )
    states = [dict(network.named_parameters()) for network in networks]
    tensors = {
        name: torch.stack([state[name].detach() for state in states]).requires_grad_()
        for name in states[0]
    }

    def measure(operator: Operator) -> None:
        operator.spectra(gradient=operator.gradient())

    def at_once() -> None:
        measure(fisher.Operator(networks[0], inputs, labels, cross_entropy, tensors, check=False))

    def one_by_one() -> None:
        for network, x, y in zip(networks, inputs, labels, strict=True):
            measure(fisher.Operator(network, x, y, cross_entropy, check=False))

    took = race({f"{runs} runs at once": at_once, f"{runs} runs one by one": one_by_one}, quick)
    title = f"6. a checkpoint of {runs} × {'-'.join(map(str, widths))}: Fisher on all blocks with overlaps, n = {n}, float64"
    show(title, ["way", "ms", "ratio"], ratios(took))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer samples, steps and runs")
    parser.add_argument("--threads", type=int, default=1, help="1, as a job of the pipeline has")
    asked = parser.parse_args()
    quick, threads = asked.quick, asked.threads
    torch.set_num_threads(threads)
    load = f"{os.getloadavg()[0]:.0f} on {len(os.sched_getaffinity(0))} cores"
    where = f"{platform.machine()}, {threads} thread{'s' * (threads > 1)}, CPU, load {load}"
    print(
        f"torch {torch.__version__} on {where}; MLP {'-'.join(map(str, WIDTHS))} with ReLU, float32"
    )
    for part in (exact_fisher, exact_ggn, lanczos, equal_error, memory, ensemble):
        part(quick)


if __name__ == "__main__":
    main()
