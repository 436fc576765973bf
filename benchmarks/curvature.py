"""Compare curvature with other implementations: time, error at equal cost, and memory.

    python benchmarks/curvature.py [--quick] [--save] [--threads N]

It needs torch and scipy only, and uses one thread by default, as a job of the pipeline does. The
implementations of a part take turns. Times are CPU time, or wall-clock time with several threads.
They are medians of the turns with quartiles, and a ratio is the median of the ratios within turns.
Parts:

1. All eigenvalues of the Fisher. Others: per-sample gradients by vmap and their Gram matrix; a loop
   over samples and an SVD, as in public code.
2. All eigenvalues of the GGN. Other: per-sample Jacobians by vmap and their Gram matrix.
3. Lanczos steps on the Hessian, with products by the chain rule and by autograd. Others: either
   products alone; PyHessian's `density`; curvlinops' `fast_lanczos` with our products and with its
   own. PyHessian 0.1 needs `torch.eig`,
   which torch has removed, so its loop is rewritten here with `torch.linalg.eigh`. The loop of
   curvlinops 3.0.1 is rewritten to take several vectors.
4. Cost of equal error. Other: plain probes without deflation, as in PyHessian and curvlinops.
5. Peak memory while a Gram matrix is computed.
6. A checkpoint of an ensemble: all runs together, or one by one.
7. The exact Fisher of a checkpoint by the number of samples.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from timing import results, turns
from timing.tables import Table
from timing.turns import Action, Spread
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
QUANTITIES = ("trace", "stable rank", "density")


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """Build linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def random_batch(n: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Draw the network of most parts, inputs and labels."""
    torch.manual_seed(0)
    return mlp(WIDTHS), torch.randn(n, WIDTHS[0]), torch.randint(WIDTHS[-1], (n,))


def measure(ways: Mapping[str, Action], number: int) -> dict[str, list[float]]:
    """Measure the seconds of some ways in turns, after a first turn that does not count."""
    turns.take_turns(ways, 1)
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    return turns.take_turns(ways, number, clock)


def milliseconds(seconds: Sequence[float]) -> Spread:
    """Summarize turns in milliseconds."""
    return Spread.of(seconds).times(1e3)


def compare(seconds: Mapping[str, Sequence[float]]) -> list[list[Any]]:
    """Build rows of name, milliseconds, and ratio to the first way."""
    of_first = next(iter(seconds.values()))
    return [
        [name, milliseconds(values), turns.ratios(values, of_first)]
        for name, values in seconds.items()
    ]


def deviation(value: Tensor, reference: Tensor) -> str:
    """Format the relative difference between two numbers."""
    return f"{abs((value / reference).item() - 1):.0e}"


# 1, 2: exact spectra


def by_vmap(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Compute per-sample gradients by vmap, then their Gram matrix."""
    parameters = dict(network.named_parameters())

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(functional_call(network, parameters, (x[None],)), y[None]).sum()

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, inputs, labels)
    rows = torch.cat([gradient.flatten(1) for gradient in gradients.values()], dim=1)
    return spectrum.eigenvalues(rows @ rows.T / len(inputs))


def by_loop(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Compute one backward pass per sample, then an SVD, as in public code."""
    rows = []
    for x, y in zip(inputs, labels, strict=True):
        gradients = torch.autograd.grad(
            cross_entropy(network(x[None]), y[None]).sum(), list(network.parameters())
        )
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.linalg.svdvals(torch.stack(rows)).square() / len(inputs)


def by_jacobians(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Compute the GGN from per-sample Jacobians by vmap.

    They are multiplied by a root of the loss's Hessian at the outputs.
    """
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}

    def outputs(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(network, parameters, (x[None],))[0]

    jacobians = vmap(jacrev(outputs), in_dims=(None, 0))(parameters, inputs)
    p = network(inputs).softmax(dim=-1).detach()
    # S Sᵀ = diag(p) − p pᵀ
    roots = torch.diag_embed(p.sqrt()) - p[:, :, None] * p.sqrt()[:, None, :]
    K = torch.zeros(p.numel(), p.numel())
    for jacobian in jacobians.values():
        rows = (roots.mT @ jacobian.flatten(2)).flatten(0, 1)
        K += rows @ rows.T
    return spectrum.eigenvalues(K / len(inputs))


def measure_exact_fisher(quick: bool) -> Table:
    """Measure the times of all eigenvalues of the Fisher."""
    n = 32 if quick else 512
    network, inputs, labels = random_batch(n)

    def ours() -> Tensor:
        grams = fisher.Operator(network, inputs, labels, cross_entropy, check=False).gram_matrices()
        return spectrum.eigenvalues(grams.over(grams))

    def by_vmapped_gradients() -> Tensor:
        return by_vmap(network, inputs, labels)

    ways: dict[str, Action] = {
        "Gram identity (ours)": ours,
        "vmapped per-sample gradients": by_vmapped_gradients,
        "loop over samples + SVD": lambda: by_loop(network, inputs, labels),
    }
    seconds = measure(ways, 2 if quick else 9)
    largest = ours()[0]
    deviations = [None, deviation(by_vmapped_gradients()[0], largest), None]
    rows = [
        [name, ms, difference, ratio]
        for (name, ms, ratio), difference in zip(compare(seconds), deviations, strict=True)
    ]
    title = f"1. all eigenvalues of the Fisher, n = {n} (targets: 20, 100)"
    return Table(title, "way", {"ms": 1, "λ₁ off by": 0, "ratio": 2}, rows)


def measure_exact_ggn(quick: bool) -> Table:
    """Measure the times of all eigenvalues of the GGN."""
    n = 32 if quick else 256
    network, inputs, labels = random_batch(n)

    def gram() -> Tensor:
        grams = ggn.Operator(network, inputs, labels, cross_entropy, check=False).gram_matrices()
        return grams.over(grams)

    K = gram()
    ways: dict[str, Action] = {
        "ours": lambda: spectrum.eigenvalues(gram()),
        "  of which the Gram matrix, n·(C−1) rows": gram,
        "  of which its eigenvalues": lambda: spectrum.eigenvalues(K),
        "vmapped Jacobians, n·C rows": lambda: by_jacobians(network, inputs, labels),
    }
    seconds = measure(ways, 2 if quick else 5)
    title = f"2. all eigenvalues of the GGN, n = {n} (target: 600 ms at n = 256)"
    return Table(title, "way", {"ms": 1, "ratio": 2}, compare(seconds))


# 3: Krylov spaces


def by_pyhessian(
    network: nn.Module, inputs: Tensor, labels: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Repeat `hessian(…).density(iter=steps, n_v=1)` of PyHessian 0.1.

    Its vectors are lists of tensors. It orthogonalizes against all earlier vectors one by one.
    """

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
    gradients = torch.autograd.grad(
        cross_entropy(network(inputs), labels).mean(), parameters, create_graph=True
    )
    gradients = [gradient + 0.0 for gradient in gradients]
    v = normal([2.0 * torch.randint_like(parameter, high=2) - 1 for parameter in parameters])
    basis = [v]
    alphas = []
    betas = []
    w: list[Tensor] = []
    for step in range(steps):
        network.zero_grad()
        if step:
            beta = torch.sqrt(dot(w, w))
            betas.append(beta.cpu().item())
            v = orthonormal(w, basis)
            basis.append(v)
        product = [torch.zeros(parameter.size()) for parameter in parameters]
        product = torch.autograd.grad(gradients, parameters, grad_outputs=v, retain_graph=True)
        alpha = dot(product, v)
        alphas.append(alpha.cpu().item())
        w = add(list(product), v, -alpha)
        if step:
            w = add(w, basis[-2], -beta)
    return nodes_and_weights(torch.tensor(alphas), torch.tensor(betas))


def nodes_and_weights(alphas: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the nodes and weights of Gauss quadrature from tridiagonal matrices.

    Args:
        alphas: diagonals, shape ``(…, step)``.
        betas: off-diagonals, shape ``(…, step − 1)``.

    Returns:
        Nodes and weights, shapes ``(…, step)``.
    """
    T = (
        torch.diag_embed(alphas)
        + torch.diag_embed(betas, offset=1)
        + torch.diag_embed(betas, offset=-1)
    )
    values, vectors = torch.linalg.eigh(T)
    return values, vectors[..., 0, :].square()


def by_curvlinops(product: Product, starts: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Repeat `fast_lanczos` of curvlinops 3.0.1, which does not reorthogonalize.

    Args:
        product: multiplies vectors by the operator.
        starts: shape ``(probe, d)``.
        steps: number of steps.

    Returns:
        Nodes and weights, shapes ``(probe, step)``.
    """
    alphas = starts.new_zeros(len(starts), steps)
    betas = starts.new_zeros(len(starts), steps - 1)
    v = starts / torch.linalg.vector_norm(starts, dim=-1, keepdim=True)
    previous = None
    for m in range(steps):
        w = product(v)
        if previous is not None:
            w = w - betas[:, m - 1, None] * previous
        alphas[:, m] = (w * v).sum(dim=-1)
        w -= alphas[:, m, None] * v
        if m < steps - 1:
            betas[:, m] = torch.linalg.vector_norm(w, dim=-1)
            w /= betas[:, m, None]
            previous = v
            v = w
    return nodes_and_weights(alphas, betas)


def products_of_curvlinops(network: nn.Module, inputs: Tensor, labels: Tensor) -> Product:
    """Build the Hessian–vector product of curvlinops: jvp of jacrev, vmapped over the vectors.

    It stores nothing between products.
    """
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return cross_entropy(functional_call(network, parameters, (inputs,)), labels).mean()

    @torch.no_grad()
    def multiply_one(*vector: Tensor) -> tuple[Tensor, ...]:
        tangent = dict(zip(parameters, vector, strict=True))
        _, derivative = jvp(jacrev(loss), (parameters,), (tangent,))
        return tuple(derivative.values())

    def product(vectors: Tensor) -> Tensor:
        parts = vectors.split([parameter.numel() for parameter in parameters.values()], dim=1)
        shaped = [
            part.unflatten(1, parameter.shape)
            for part, parameter in zip(parts, parameters.values(), strict=True)
        ]
        return torch.cat([part.flatten(1) for part in vmap(multiply_one)(*shaped)], dim=1)

    return product


def measure_lanczos(quick: bool) -> Table:
    """Measure the times of Lanczos steps on the Hessian."""
    n = 128 if quick else 512
    steps = 25 if quick else STEPS
    network, inputs, labels = random_batch(n)
    operator = hessian.Operator(network, inputs, labels, cross_entropy, check=False)
    layers = operator.blocks()["all"]
    start = torch.randn(1, 1, sum(parameter.numel() for parameter in network.parameters()))

    def by_chain() -> Product:
        return operator.product(layers)

    def by_autograd() -> Product:
        # what `product` returns for networks that are no chain
        return operator._product_by_autograd(operator.batch.parameters_in(layers))

    def bare(build_product: Callable[[], Product]) -> None:
        product = build_product()
        for _ in range(steps):
            product(start[0])

    def ours() -> Tensor:
        return block_lanczos(by_chain(), start, steps).matrix

    def curvlinops_with_our_products() -> tuple[Tensor, Tensor]:
        return by_curvlinops(by_chain(), start[0], steps)

    def curvlinops() -> tuple[Tensor, Tensor]:
        return by_curvlinops(products_of_curvlinops(network, inputs, labels), start[0], steps)

    def pyhessian() -> tuple[Tensor, Tensor]:
        return by_pyhessian(network, inputs, labels, steps)

    ways: dict[str, Action] = {
        "block_lanczos (ours)": ours,
        "block_lanczos, products by autograd": lambda: block_lanczos(by_autograd(), start, steps),
        "bare products": lambda: bare(by_chain),
        "bare products by autograd": lambda: bare(by_autograd),
        "curvlinops' Lanczos, our products": curvlinops_with_our_products,
        "curvlinops' Lanczos, its own products": curvlinops,
        "PyHessian's density, patched": pyhessian,
    }
    seconds = measure(ways, 2 if quick else 5)
    our_largest = torch.linalg.eigvalsh(ours())[0, -1]
    deviations = {
        "curvlinops' Lanczos, our products": curvlinops_with_our_products()[0][0, -1],
        "PyHessian's density, patched": pyhessian()[0][-1],
    }
    rows = [
        [
            name,
            ms,
            deviation(deviations[name], our_largest) if name in deviations else None,
            ratio,
            turns.ratios(seconds[name], seconds["bare products"]),
            turns.ratios(seconds[name], seconds["bare products by autograd"]),
        ]
        for name, ms, ratio in compare(seconds)
    ]
    title = (
        f"3. {steps} Lanczos steps on the Hessian, one probe, n = {n} "
        "(targets: PyHessian ≥ 2, ours ≤ 1.5 × bare)"
    )
    columns = {"ms": 0, "λ₁ off by": 0, "ratio": 2, "× bare": 2, "× bare, autograd": 2}
    return Table(title, "way", columns, rows)


# 4: equal error


def train_small_network() -> tuple[nn.Module, Tensor, Tensor]:
    """Train a small network until a few eigenvalues hold most of the trace, as in larger ones."""
    torch.manual_seed(0)
    network = mlp([32, 24, 24, 10])
    inputs = torch.randn(256, 32)
    labels = (inputs @ torch.randn(32, 10)).argmax(dim=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        cross_entropy(network(inputs), labels).mean().backward()
        optimizer.step()
    return network, inputs, labels


class Truth(NamedTuple):
    """Known numbers and density of an operator of d dimensions."""

    numbers: Mapping[str, float]
    density: Tensor
    d: int

    def errors(self, estimate: Spectrum) -> list[float]:
        """Compute relative errors of trace and stable rank, and ∫|ρ − ρ'| between densities."""
        numbers, _ = spectrum.summary(estimate)
        relative = [float(numbers[name]) / known - 1 for name, known in self.numbers.items()]
        distances = (spectrum.density(estimate)[0] - self.density).abs()
        spacing = float(spectrum.GRID[1] - spectrum.GRID[0])
        return [*relative, float(distances.sum() * spacing)]


def root_mean_squares(rows: Iterable[Sequence[float]]) -> np.ndarray:
    """Compute the root mean square of each column."""
    return np.sqrt(np.square(np.array(list(rows))).mean(axis=0))


def plain_quadrature(starts: Tensor, product: Product, steps: int) -> Spectrum:
    """Estimate a spectrum without deflation, from starts of shape ``(probe, d)``."""
    d = starts.shape[-1]
    values, weights = by_curvlinops(product, starts, steps)
    return plain_spectrum(values.double(), d * weights.double(), d)


def plain_spectrum(values: Tensor, weights: Tensor, d: int) -> Spectrum:
    """Describe a quadrature without removed eigenvalues as a spectrum."""
    return Spectrum(values, d, weights, (values, weights))


def plain_errors(product: Product, truth: Truth, probes: int, steps: int) -> dict[int, np.ndarray]:
    """Measure the errors of plain quadratures, by the number of their probes."""
    pool = plain_quadrature(torch.randn(probes, truth.d), product, steps)
    assert pool.weights is not None
    errors = {}
    for count in (5, 7, 10, 14, 20, 28, 40, 56, 80, 112, 160):
        if count > probes / 8:
            break
        groups = zip(pool.values.split(count), pool.weights.split(count), strict=True)
        estimates = [
            plain_spectrum(values, weights, truth.d)
            for values, weights in groups
            if len(values) == count  # the last group can be smaller
        ]
        errors[count] = root_mean_squares(truth.errors(estimate) for estimate in estimates)
    return errors


class Hessians(NamedTuple):
    """The Hessian of the trained network.

    Attributes:
        product: multiplies vectors by it, from the network.
        dense_product: multiplies vectors by it, from the dense matrix.
        truth: its exact spectrum.
    """

    product: Product
    dense_product: Product
    truth: Truth


def build_hessians(network: nn.Module, inputs: Tensor, labels: Tensor) -> Hessians:
    """Compute the Hessian as an operator and as a dense matrix, and its exact spectrum."""
    operator = hessian.Operator(network, inputs, labels, cross_entropy, check=False)
    layers = operator.blocks()["all"]
    double = operator_in_double(network, inputs, labels)
    exact = double.spectra({"all": layers}, exact_up_to=10**4)["all"]
    numbers, _ = spectrum.summary(exact)
    known = {name: float(numbers[name]) for name in ("trace", "stable_rank")}
    truth = Truth(known, spectrum.density(exact)[0], exact.size)
    H = double.product(layers)(torch.eye(truth.d, dtype=torch.float64)).float()

    def dense_product(vectors: Tensor) -> Tensor:
        return vectors @ H

    return Hessians(operator.product(layers), dense_product, truth)


def operator_in_double(network: nn.Module, inputs: Tensor, labels: Tensor) -> Operator:
    """Build the Hessian of a copy of the network in float64."""
    widths = [layer.in_features for layer in network if isinstance(layer, nn.Linear)]
    copy = mlp([*widths, network[-1].out_features])
    copy.load_state_dict(network.state_dict())
    return hessian.Operator(copy.double(), inputs.double(), labels, cross_entropy, check=False)


class Estimate(NamedTuple):
    """A row of the table of equal error.

    Attributes:
        name: of the implementation.
        vectors: number of start vectors, drawn or extrapolated.
        seconds: that it takes, by turn.
        errors: of trace, stable rank and density.
    """

    name: str
    vectors: float
    seconds: Sequence[float]
    errors: np.ndarray


def measure_equal_error(quick: bool) -> Table:
    """Measure the cost of equal error.

    Errors are over many repeats on the dense matrix, times on the operator itself.
    """
    quadrature = Quadrature()
    steps = quadrature.steps
    count = 1 + quadrature.probes
    pool, repeats = (80, 4) if quick else (640, 32)
    product, dense_product, truth = build_hessians(*train_small_network())

    def estimate(product: Product, starts: Tensor) -> Spectrum:
        return stochastic_lanczos_quadrature(product, starts, steps, 10)

    our_errors = root_mean_squares(
        truth.errors(estimate(dense_product, torch.randn(count, 1, truth.d)))
        for _ in range(repeats)
    )
    errors = plain_errors(dense_product, truth, pool, steps)
    starts = torch.randn(count, 1, truth.d)
    seconds = measure(
        {
            "ours": lambda: estimate(product, starts),
            "plain": lambda: [plain_quadrature(start, product, steps) for start in starts],
        },
        2 if quick else 21,
    )
    name = f"ours: {quadrature.probes} probes and one to deflate"
    ours = Estimate(name, count, seconds["ours"], our_errors)
    plain = Estimate("plain, as many products", count, seconds["plain"], errors[count])
    rows = [
        [
            one.name,
            one.vectors * steps,
            milliseconds(one.seconds),
            *one.errors.tolist(),
            one.vectors / count,
            turns.ratios(one.seconds, ours.seconds),
        ]
        for one in (ours, plain, *plain_to_our_errors(errors, ours, plain))
    ]
    title = (
        f"4. errors (root mean squares of {repeats} repeats) on a Hessian of {truth.d} known "
        f"eigenvalues, {steps} steps (target: 2)"
    )
    columns = {"products": 0, "ms": 0, **dict.fromkeys(QUANTITIES, 4), "× products": 1, "× time": 1}
    return Table(title, "implementation", columns, rows)


def plain_to_our_errors(
    errors: Mapping[int, np.ndarray], ours: Estimate, plain: Estimate
) -> list[Estimate]:
    """Estimate the cost of plain probes with our error of each quantity.

    Args:
        errors: of plain quadratures, by the number of their probes.
        ours: our estimate.
        plain: plain probes, whose time is proportional to their number.
    """
    estimates = []
    for index, name in enumerate(QUANTITIES):
        our_error = ours.errors[index]
        sufficient = [count for count in errors if errors[count][index] <= our_error]
        count = sufficient[0] if sufficient else max(errors)
        # Errors of more probes than were drawn are extrapolated by 1/√probes.
        factor = max(1, (errors[count][index] / our_error) ** 2)
        note = "" if sufficient else ", by 1/√probes"
        vectors = factor * count
        estimates.append(
            Estimate(
                f"plain, to our error of {name}{note}",
                vectors,
                [seconds * vectors / plain.vectors for seconds in plain.seconds],
                errors[count] * (1 / factor) ** 0.5,
            )
        )
    return estimates


# 5: memory


class PeakMemory(TorchDispatchMode):
    """Record the most bytes of new storages that are alive together."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        old = {storage._cdata for storage in storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        self._alive = {
            key: (reference, size)
            for key, (reference, size) in self._alive.items()
            if not reference.expired()
        }
        for storage in storages(result):
            if storage._cdata not in old:
                self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result


def storages(tree: Any) -> list[torch.UntypedStorage]:
    """List the storages of all tensors in nested lists, tuples and dicts."""
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def measure_gram_memory(quick: bool) -> Table:
    """Measure the peak memory while Gram matrices are computed."""
    rows = []
    for kind, n in ((fisher, 128 if quick else 512), (ggn, 64 if quick else 256)):
        network, inputs, labels = random_batch(n)
        outputs = 1 if kind is fisher else WIDTHS[-1]
        network = network.double()
        inputs = inputs.double()
        with PeakMemory() as memory:
            grams = kind.Operator(
                network, inputs, labels, cross_entropy, check=False
            ).gram_matrices()
            grams.over(grams)
        matrix = (n * outputs) ** 2 * 8
        activations = n * (WIDTHS[0] + 2 * sum(WIDTHS[1:-1]) + WIDTHS[-1]) * 8
        allowed = matrix + 2 * activations
        megabytes = [number / 1e6 for number in (memory.peak, matrix, activations)]
        rows.append([f"{kind.Operator.NAME}, n = {n}", *megabytes, memory.peak / allowed])
    title = (
        "5. live bytes while K is computed, float64, over n²·C²·8 + twice the activations "
        "(C = 1 for the Fisher)"
    )
    columns = {"peak, MB": 1, "n²·C²·8": 1, "activations": 1, "ratio": 2}
    return Table(title, "operator", columns, rows)


# 6 and 7: ensembles

ENSEMBLE = [64, 64, 64, 64, 10]  # widths of the default study's networks
RUNS = 5
SAMPLE_COUNTS = (128, 192, 256, 512, 800, 1200)


class Ensemble(NamedTuple):
    """Runs of the default study: networks, their data, and their stacked parameters."""

    networks: list[nn.Module]
    inputs: Tensor
    labels: Tensor
    tensors: dict[str, Tensor]

    def operator(self) -> Operator:
        """Build the Fisher of all runs."""
        return fisher.Operator(
            self.networks[0], self.inputs, self.labels, cross_entropy, self.tensors, check=False
        )

    def measure(self, blocks: Mapping[str, Sequence[str]]) -> None:
        """Compute the spectra of some blocks, with overlaps."""
        operator = self.operator()
        operator.spectra(blocks, gradient=operator.gradient())


def draw_ensemble(n: int) -> Ensemble:
    """Draw the networks and n samples of each run, in float64."""
    torch.manual_seed(0)
    networks: list[nn.Module] = [mlp(ENSEMBLE).double() for _ in range(RUNS)]
    inputs = torch.randn(RUNS, n, ENSEMBLE[0], dtype=torch.float64)
    labels = torch.randint(ENSEMBLE[-1], (RUNS, n))
    states = [dict(network.named_parameters()) for network in networks]
    tensors = {
        name: torch.stack([state[name].detach() for state in states]).requires_grad_()
        for name in states[0]
    }
    return Ensemble(networks, inputs, labels, tensors)


def measure_ensemble(quick: bool) -> Table:
    """Measure the times of a checkpoint of several runs, together and one by one."""
    n = SAMPLE_COUNTS[0]
    ensemble = draw_ensemble(n)

    def compute_spectra(operator: Operator) -> None:
        operator.spectra(gradient=operator.gradient())

    def one_by_one() -> None:
        for network, x, y in zip(ensemble.networks, ensemble.inputs, ensemble.labels, strict=True):
            compute_spectra(fisher.Operator(network, x, y, cross_entropy, check=False))

    ways: dict[str, Action] = {
        f"{RUNS} runs at once": lambda: compute_spectra(ensemble.operator()),
        f"{RUNS} runs one by one": one_by_one,
    }
    title = f"6. a checkpoint of {RUNS} × {_name_of_ensemble()}, n = {n}, float64"
    seconds = measure(ways, 3 if quick else 51)
    return Table(title, "way", {"ms": 1, "ratio": 2}, compare(seconds))


def measure_sample_counts(quick: bool) -> Table:
    """Measure one run's checkpoint by the number of samples, of all blocks and of one."""
    rows = []
    for n in SAMPLE_COUNTS[: 1 if quick else None]:
        ensemble = draw_ensemble(n)
        blocks = ensemble.operator().blocks()
        ways = {
            "every block": partial(ensemble.measure, blocks),
            "all layers": partial(ensemble.measure, {"all": blocks["all"]}),
        }
        seconds = measure(ways, 2 if quick else 5).values()
        rows.append([str(n), *(milliseconds(values).times(1 / RUNS) for values in seconds)])
    title = f"7. ms per checkpoint and run of {RUNS} × {_name_of_ensemble()}, float64"
    return Table(title, "samples", {"every block": 1, "all layers": 1}, rows)


def _name_of_ensemble() -> str:
    return f"{'-'.join(map(str, ENSEMBLE))}: Fisher with overlaps"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    results.add_options(parser, "fewer samples, steps and runs")
    parser.add_argument(
        "--threads", type=int, default=1, help="default: 1, as in a job of the pipeline"
    )
    arguments = parser.parse_args()
    threads = arguments.threads
    torch.set_num_threads(threads)
    clock = "one thread, CPU time" if threads == 1 else f"{threads} threads, wall-clock time"
    network = f"MLP {'-'.join(map(str, WIDTHS))} with ReLU, float32"
    setup = f"torch {torch.__version__}, {clock}; {network}"
    ours = results.Results("curvature", is_quick=arguments.quick, setup=setup)
    parts = (
        measure_exact_fisher,
        measure_exact_ggn,
        measure_lanczos,
        measure_equal_error,
        measure_gram_memory,
        measure_ensemble,
        measure_sample_counts,
    )
    for measure_part in parts:
        ours.add(measure_part(arguments.quick))
    ours.finish(is_saved=arguments.save)


if __name__ == "__main__":
    main()
