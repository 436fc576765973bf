"""Measure how often the margins of estimated spectra hold the truth, on known spectra.

    python benchmarks/margins.py [--quick]

The operator is diagonal, and each draw of the probes is one run of a batch. The table has the
lowest share over all spectra, per effort and number. The nominal share is 95 %.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

from plasticity.curvature import spectrum
from plasticity.curvature.lanczos import stochastic_lanczos_quadrature
from plasticity.curvature.spectrum import Spectrum

SIZE = 400
# steps, probes, vectors per probe
EFFORTS = [(64, 4, 1), (32, 4, 1), (24, 4, 1), (8, 4, 1), (24, 2, 1), (16, 10, 1), (12, 4, 3)]


def marchenko_pastur(size: int, samples: int) -> Tensor:
    """Draw the eigenvalues of a covariance of independent normal numbers."""
    X = torch.randn(size, samples, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.linalg.eigvalsh(X @ X.T / samples)


def wigner(size: int) -> Tensor:
    """Draw the eigenvalues of a symmetric matrix of independent normal numbers."""
    X = torch.randn(size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.linalg.eigvalsh((X + X.T) / (2 * size) ** 0.5)


def network_like(size: int) -> Tensor:
    """Draw a few outliers, and a bulk of both signs that is mostly near zero."""
    generator = torch.Generator().manual_seed(1)
    factors = torch.randn(2, size - 9, generator=generator, dtype=torch.float64)
    bulk = 0.02 * factors[0] * factors[1].abs()
    outliers = torch.tensor([50, 20, 12, 8, 5, 4, 3, 2.5, 2], dtype=torch.float64)
    return torch.cat([outliers, bulk])


SPECTRA = {
    "a network's": network_like(SIZE),
    "Marchenko and Pastur's": marchenko_pastur(SIZE, 2 * SIZE),
    "Wigner's semicircle": wigner(SIZE),
    "a power law": torch.arange(1, SIZE + 1).double() ** -1,
    "decaying exponentially": torch.exp(-torch.arange(SIZE).double() / 10),
    "a null space and a bulk that reaches to zero": torch.cat(
        [torch.zeros(300), torch.linspace(0, 1, 100) ** 3]
    ).double(),
}


def estimated(
    values: Tensor,
    steps: int = 64,
    probes: int = 4,
    block: int = 1,
    dtype: torch.dtype = torch.float64,
    draws: int = 100,
) -> Spectrum:
    """Estimate the spectrum of a diagonal operator from many draws."""
    starts = torch.randn(
        1 + probes,
        draws,
        block,
        len(values),
        generator=torch.Generator().manual_seed(0),
        dtype=torch.float64,
    )
    return stochastic_lanczos_quadrature(
        lambda vectors: vectors * values.to(dtype), starts.to(dtype), steps, 10
    )


def coverage(values: Tensor, estimate: Spectrum) -> Mapping[str, float]:
    """Compute the share of draws whose interval holds the true number, by its name.

    Differences at round-off do not count.

    Args:
        values: all eigenvalues.
        estimate: leading shape ``(draw,)``.
    """
    numbers, margins = spectrum.summary(estimate)
    shares = {}
    for name, true in spectrum.numbers(values).items():
        scale = values.abs().sum() if name == "trace" else true.abs()
        round_off = 1e-5 * scale + 1e-6 * (name == "negative_fraction")
        is_held = (numbers[name] - true).abs() <= margins[name] + round_off
        shares[name] = is_held.double().mean().item()
    return shares


def main() -> None:
    """Print the lowest coverage over spectra, in percent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="fewer draws and efforts; at most 20 seconds"
    )
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    draws = 50 if quick else 400
    names = list(spectrum.numbers(SPECTRA["a network's"]))
    print("| steps, probes, vectors |", " | ".join(names), "|")
    for steps, probes, block in EFFORTS[:2] if quick else EFFORTS:
        shares = [
            coverage(values, estimated(values, steps, probes, block, draws=draws))
            for values in SPECTRA.values()
        ]
        lowest = [f"{100 * min(of_kind[name] for of_kind in shares):.0f}" for name in names]
        print(f"| {steps}, {probes}, {block} |", " | ".join(lowest), "|", flush=True)


if __name__ == "__main__":
    main()
