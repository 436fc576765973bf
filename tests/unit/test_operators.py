"""Spectra, products and overlaps of the four operators against dense matrices, in float64, on drawn networks; what they refuse."""

import pytest
import torch
from dense import KINDS, LOSSES, batch, dense, drawn
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from plasticity import spectra
from plasticity.operators import fisher, ggn, hessian, ntk

OPERATORS = {"fisher": fisher, "ggn": ggn, "ntk": ntk, "hessian": hessian}
ACTIVATIONS = ["relu", "leaky_relu", "tanh", "identity", "gelu", "sin"]
CASES = dict.fromkeys(KINDS, 30) | {"vit": 10}  # 220 in all


def of(name, network, x, y, loss, *tensors):
    return OPERATORS[name].Operator(network, x, y, LOSSES[loss], *tensors)


def overlap(A, gradient, top):
    """‖P_k g‖² / ‖g‖² with what spans the largest k eigenvalues; None where the next is too near the last of them to tell the span."""
    values, vectors = spectra.eigenvectors(A)
    top = min(top, len(values))
    if (top < len(values) and values[top - 1] - values[top] < 1e-5 * values[0]) or values[top - 1].abs() < 1e-5 * values[0]:
        return None
    return ((vectors[:, :top].T @ gradient).square().sum() / gradient.square().sum()).item()


@pytest.mark.parametrize("kind", KINDS)
def test_spectra_and_overlaps_are_those_of_dense_matrices(kind):
    compared = dict.fromkeys(OPERATORS, 0)

    @settings(max_examples=CASES[kind], phases=[Phase.generate])
    @given(st.sampled_from(ACTIVATIONS), st.sampled_from(sorted(LOSSES)), st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 5))
    def case(activation, loss, seed, samples, top):
        network, x, y = drawn(kind, activation, loss, seed, samples)
        expected = dense(network, x, y, loss)
        for name in OPERATORS:
            operator = of(name, network, x, y, loss)
            coming = operator.gradient() if seed % 2 else of(name, network, *batch(kind, loss), loss).gradient()
            flat = torch.cat([part.flatten() for part in coming.values()])
            blocks = operator.blocks()
            if name == "hessian" and kind == "vit":  # whose products are taken one by one
                blocks = {block: layers for block, layers in blocks.items() if block in ("last_two", "block_1.attention.projection")}
            for block, spectrum in operator.spectra(blocks, gradient=coming, top=top).items():
                A, g = expected.block(name, blocks[block]), flat[expected.of(blocks[block])]
                known, found = spectra.eigenvectors(A)[0], spectrum.values
                width = min(len(known), len(found))
                large = known[:width].abs() > 1e-8 * known.abs().max() if name != "hessian" else known.abs() > 1e-8 * known.abs().max()
                scale = known.abs().max()
                assert (found[:width][large] / known[:width][large] - 1).abs().le(1e-6).all()
                assert (found[:width][~large].abs() <= 2e-8 * scale).all()
                assert (found[width:].abs() <= 2e-8 * scale).all()
                assert (known[width:].abs() <= 1e-8 * scale).all()
                assert spectrum.size == len(known)
                assert spectra.effective_rank(found) == spectra.effective_rank(known)
                share = overlap(A, g, top)
                if share is not None and g.any():
                    assert spectrum.overlap.item() == pytest.approx(share, rel=1e-6, abs=1e-7)
                    compared[name] += 1

    case()
    assert min(compared.values()) > CASES[kind]
