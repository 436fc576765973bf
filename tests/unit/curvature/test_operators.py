"""Compare the four operators with dense matrices on random networks, and check refusals."""

import pytest
import torch
from dense import CLASSES, KINDS, LOSSES, dense, random_batch, random_network
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tiers import slow_except
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from plasticity import log
from plasticity.curvature import spectrum
from plasticity.curvature.blocks import blocks_of
from plasticity.curvature.lanczos import Quadrature, stochastic_lanczos_quadrature
from plasticity.curvature.operators import fisher, ggn, hessian, ntk
from plasticity.errors import StudyError
from plasticity.models.normalization import BatchNorm

OPERATORS = {"fisher": fisher, "ggn": ggn, "ntk": ntk, "hessian": hessian}
ACTIVATIONS = ["relu", "leaky_relu", "tanh", "identity", "gelu", "sin"]
EXAMPLES = dict.fromkeys(KINDS, 30) | {"vit": 10}  # of the full profile: 220 in all


def build(name, network, x, y, loss, *tensors):
    return OPERATORS[name].Operator(network, x, y, LOSSES[loss], *tensors)


def overlap(A, gradient, top):
    """Compute ‖P g‖² / ‖g‖² with P the projection on the top eigenvectors.

    Returns:
        0 for a zero matrix, which has no top eigenvector; None where the next eigenvalue is too
        near to the last one to tell their spans apart.
    """
    values, vectors = spectrum.eigenvectors(A)
    if not values.any():
        return 0.0
    top = min(top, len(values))
    resolution = 1e-5 * values[0]
    if top < len(values) and values[top - 1] - values[top] < resolution:
        return None
    if values[top - 1].abs() < resolution:
        return None
    return ((vectors[:, :top].T @ gradient).square().sum() / gradient.square().sum()).item()


def assert_same_eigenvalues(name, values, expected):
    """Compare eigenvalues; beyond the shorter list, all are zero up to round-off."""
    scale = expected.abs().max()
    width = min(len(expected), len(values))
    is_large = expected[:width].abs() > 1e-8 * scale
    assert name != "hessian" or len(values) == len(expected)
    assert (values[:width][is_large] / expected[:width][is_large] - 1).abs().le(1e-6).all()
    assert (values[:width][~is_large].abs() <= 2e-8 * scale).all()
    assert (values[width:].abs() <= 2e-8 * scale).all()
    assert (expected[width:].abs() <= 1e-8 * scale).all()


@pytest.mark.parametrize("kind", KINDS)
def test_spectra_and_overlaps_equal_those_of_dense_matrices(kind):
    compared_overlaps = dict.fromkeys(OPERATORS, 0)
    full_profile = 40
    examples = max(2, EXAMPLES[kind] * settings().max_examples // full_profile)

    @settings(max_examples=examples, phases=[Phase.generate])
    @given(
        st.sampled_from(ACTIVATIONS),
        st.sampled_from(sorted(LOSSES)),
        st.integers(0, 10**6),
        st.integers(2, 6),
        st.integers(1, 5),
    )
    def compare(activation, loss, seed, samples, top):
        network, x, y = random_network(kind, activation, loss, seed, samples)
        expected = dense(network, x, y, loss)
        for name in OPERATORS:
            operator = build(name, network, x, y, loss)
            other = operator
            if seed % 2 == 0:
                other = build(name, network, *random_batch(kind, loss), loss)
            gradient = other.gradient()
            flat = torch.cat([part.flatten() for part in gradient.values()])
            blocks = operator.blocks()
            if name == "hessian" and kind == "vit":  # its products are slow: one vector at a time
                few = ("last_two", "block_1.attention.projection")
                blocks = {block: blocks[block] for block in few}
            for block, found in operator.spectra(blocks, gradient=gradient, top=top).items():
                layers = blocks[block]
                A, g = expected.block(name, layers), flat[expected.rows_of(layers)]
                values = spectrum.eigenvectors(A)[0]
                assert_same_eigenvalues(name, found.values, values)
                assert found.size == len(values)
                assert torch.linalg.matrix_rank(A) <= found.rank_limit
                rank = spectrum.effective_rank(found.values)
                assert rank == spectrum.effective_rank(values)
                share = overlap(A, g, top)
                if share is not None and g.any():
                    assert found.overlap.item() == pytest.approx(share, rel=1e-6, abs=1e-7)
                    compared_overlaps[name] += 1

    compare()
    assert min(compared_overlaps.values()) > examples / 2


def test_hessian_of_few_samples_has_the_rank_of_its_bound():
    """Two samples leave 48 of 74 dimensions, of which 36 are used; one sample leaves fewer."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)
    ).double()
    limits = []
    for samples in (1, 2, 100):
        x, y = torch.randn(samples, 6).double(), torch.randint(3, (samples,))
        operator = build("hessian", network, x, y, "cross_entropy")
        limits.append(operator.spectra()["all"].rank_limit)
    # per layer q·c + r·p − r·c, with one input more for the bias
    assert limits == [(5 + 7 - 1) + (4 + 6 - 1) + (3 + 5 - 1), 48, 74]


def stacked_runs(kind, loss, activation="tanh", seeds=(0, 1, 2)):
    """Draw networks of one kind with own batches; return the list, and stacked arguments."""
    runs = [random_network(kind, activation, loss, seed) for seed in seeds]
    networks, inputs, targets = zip(*runs, strict=True)
    parameters = [dict(network.named_parameters()) for network in networks]
    tensors = {
        name: torch.stack([of_run[name].detach() for of_run in parameters]).requires_grad_()
        for name in parameters[0]
    }
    return runs, (networks[0], torch.stack(inputs), torch.stack(targets), loss, tensors)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "kind", slow_except(["mlp with layer norm"], ["mlp", "mlp with layer norm"])
)
@pytest.mark.parametrize("name", OPERATORS)
def test_spectra_of_stacked_runs_equal_those_of_single_runs(name, kind, loss):
    runs, stacked = stacked_runs(kind, loss)
    together = build(name, *stacked)
    gradient = together.gradient()
    exact_by_grams = {}
    exact_by_products = {"exact_up_to": 4}  # the Gram matrices have more rows
    estimated = {"exact_up_to": 4, "estimate": Quadrature(8, 3)}
    for limits in (exact_by_grams, exact_by_products, estimated):
        found = together.spectra(gradient=gradient, top=2, **limits)
        for run, (network, x, y) in enumerate(runs):
            single = build(name, network, x, y, loss)
            own_gradient = single.gradient()
            for parameter, part in own_gradient.items():
                torch.testing.assert_close(gradient[parameter][run], part, rtol=1e-10, atol=1e-12)
            expected = single.spectra(gradient=own_gradient, top=2, **limits)
            for block in expected:
                assert_same_spectrum(found[block], run, expected[block])


def assert_same_spectrum(stacked, run, single):
    """Compare one run of a stacked spectrum with the spectrum of a single run."""
    exact = single.weights is None
    assert exact == (stacked.weights is None)
    scale = single.values.abs().max().item()
    if exact:
        values = stacked.values[run]
        torch.testing.assert_close(values, single.values, rtol=1e-8, atol=1e-12 * scale)
    overlap = stacked.overlap[run]
    torch.testing.assert_close(overlap, single.overlap, rtol=1e-3, atol=1e-8 if exact else 1e-3)
    numbers, expected = spectrum.summary(stacked)[0], spectrum.summary(single)[0]
    smooth = ("trace", "top_eigenvalue", "stable_rank", "entropy_rank")
    for name in expected if exact else smooth:
        number = numbers[name][run]
        torch.testing.assert_close(number, expected[name], rtol=1e-3, atol=1e-6 * scale)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPERATORS)
def test_products_equal_those_of_the_dense_matrix_and_are_linear_and_symmetric(name, kind):
    for loss in LOSSES:
        network, x, y = random_network(kind, "gelu", loss, 7)
        operator, expected = build(name, network, x, y, loss), dense(network, x, y, loss)
        for layers in list(operator.blocks().values())[-3:]:
            A, product = expected.block(name, layers), operator.product(layers)
            torch.manual_seed(0)
            u, v, w = torch.randn(3, len(A)).double()
            Au, Av, combined = product(torch.stack([u, v, 2 * u - 3 * v]))
            (Aw,) = product(w[None])  # a single vector is not batched
            tolerance = 1e-10 * A.abs().max().item() * len(A)
            close = {"rtol": 1e-9, "atol": tolerance}
            torch.testing.assert_close(torch.stack([Au, Av]), torch.stack([u, v]) @ A, **close)
            torch.testing.assert_close(Aw, A @ w, **close)
            torch.testing.assert_close(combined, 2 * Au - 3 * Av, **close)
            assert (u @ Av).item() == pytest.approx((v @ Au).item(), rel=1e-9, abs=tolerance)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["mlp", "mlp without biases", "cnn", "resnet"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "identity", "tanh"])
def test_hessian_of_a_layer_is_its_gauss_newton_matrix_if_activations_are_piecewise_linear(
    activation, kind, loss
):
    network, x, y = random_network(kind, activation, loss, 3)
    layers = {
        name: block for name, block in blocks_of(network).items() if name not in ("last_two", "all")
    }
    hessians = build("hessian", network, x, y, loss).spectra(layers)
    ggns = build("ggn", network, x, y, loss).spectra(layers)
    names = list(layers)
    if kind == "resnet":  # a norm behind a convolution bends
        names = [name for name in layers if "norm" not in name]
    equal = []
    for name in names:
        values, expected = hessians[name].values, ggns[name].values
        rank = min(len(expected), hessians[name].size)
        deviations = (values[:rank] - expected[:rank]).abs()
        equal.append(bool((deviations <= 1e-9 * expected[0]).all()))
    if activation == "tanh":
        assert equal[-1]  # nothing bends after the last layer
        assert not any(equal[:-1])
    else:
        assert all(equal)


@pytest.mark.parametrize("kind", KINDS)
def test_traces_add_up_over_layers_and_the_fisher_has_the_mean_squared_gradient_norm(kind):
    network, x, y = random_network(kind, "tanh", "cross_entropy", 5)
    parameters = list(network.parameters())
    # One forward pass, because the constants of batch norm depend on the batch.
    losses = LOSSES["cross_entropy"](network(x), y)
    norms = []
    for loss in losses:
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
        norms.append(sum(gradient.square().sum() for gradient in gradients))
    for name in OPERATORS:
        if name == "hessian" and kind == "vit":
            continue
        operator = build(name, network, x, y, "cross_entropy")
        traces = {block: found.values.sum().item() for block, found in operator.spectra().items()}
        total, last_two = traces.pop("all"), traces.pop("last_two")
        assert sum(traces.values()) == pytest.approx(total, rel=1e-9)
        sum_of_two = sum(traces[layer] for layer in operator.blocks()["last_two"])
        assert sum_of_two == pytest.approx(last_two, rel=1e-9)
        if name == "fisher":
            assert total == pytest.approx(torch.stack(norms).mean().item(), rel=1e-10)


@pytest.mark.parametrize("name", OPERATORS)
def test_permuting_hidden_units_changes_no_spectrum(name):
    network, x, y = random_network("mlp with layer norm", "gelu", "cross_entropy", 2)
    before = build(name, network, x, y, "cross_entropy").spectra()
    order = torch.randperm(5, generator=torch.Generator().manual_seed(0))
    first, norm, _, second = network[:4]
    with torch.no_grad():
        for parameter in (first.weight, first.bias, norm.weight, norm.bias):
            parameter.copy_(parameter[order].clone())
        second.weight.copy_(second.weight[:, order].clone())
    for block, found in build(name, network, x, y, "cross_entropy").spectra().items():
        scale = before[block].values.abs().max().item()
        torch.testing.assert_close(
            found.values, before[block].values, rtol=1e-9, atol=1e-13 * scale
        )


class ParallelLayers(nn.Module):
    """Parallel linear layers of one output each, whose curvatures are exactly equal."""

    def __init__(self, copies):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2, 1, bias=False) for _ in range(copies))

    def forward(self, x):
        return torch.cat([layer(x) for layer in self.layers], dim=-1)


@pytest.mark.parametrize("exact_up_to", [1000, 9])
@pytest.mark.parametrize("name", ["ggn", "ntk", "hessian"])
def test_overlap_counts_tied_eigenvalues_and_leaves_out_the_null_space(name, exact_up_to):
    """Three layers of equal curvature on inputs of one direction: eigenvalues λ, λ, λ, 0, 0, 0."""
    network = ParallelLayers(3).double()
    x = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]]).double()
    operator = build(name, network, x, torch.zeros(4, 3).double(), "squared_distance")
    # Half of this vector is in the span of the three, half in the null space.
    vector = {parameter: torch.ones(1, 2).double() for parameter in operator.gradient()}
    for top in (1, 2, 3, 4, 6):
        spectra = operator.spectra(gradient=vector, top=top, exact_up_to=exact_up_to)
        assert spectra["all"].overlap.item() == pytest.approx(0.5)


def assert_refused(
    message, network, x, y, loss=LOSSES["cross_entropy"], names=OPERATORS, **options
):
    """Check that operators raise a message of one line."""
    for name in names:
        with pytest.raises(StudyError, match=message) as error:
            OPERATORS[name].Operator(network, x, y, loss, **options).spectra()
        assert "\n" not in str(error.value)


def labelled_batch(samples=6, inputs=4):
    torch.manual_seed(0)
    return torch.randn(samples, inputs).double(), torch.randint(CLASSES, (samples,))


def test_dropout_is_refused_by_name_in_training_mode_and_accepted_in_eval_mode():
    network = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, CLASSES)).double()
    assert_refused(
        r"loss differs between two evaluations; layers in training mode: .*1 \(Dropout\).*"
        r"\. Call network\.eval\(\)",
        network,
        *labelled_batch(),
    )
    for name in OPERATORS:
        build(name, network.eval(), *labelled_batch(), "cross_entropy").spectra()


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, BatchNorm])
def test_batch_norm_is_refused_by_name_in_training_mode_and_accepted_in_eval_mode(norm):
    network = nn.Sequential(nn.Linear(4, 5), norm(5), nn.Tanh(), nn.Linear(5, CLASSES)).double()
    sentence = (
        "the loss of one sample depends on others, as with batch norm, .*; "
        r"layers in training mode: .*1 \(BatchNorm.*\. Call network\.eval\(\)"
    )
    assert_refused(sentence, network, *labelled_batch())
    for name in OPERATORS:
        build(name, network.eval(), *labelled_batch(), "cross_entropy").spectra()


def test_only_the_ggn_refuses_a_loss_that_is_not_convex():
    def loss(outputs, labels):
        return torch.sin(outputs).sum(dim=-1)

    network = random_network("mlp", "tanh", "cross_entropy", 0)[0]
    assert_refused(
        "convex in the outputs, and this one is not: use the Hessian instead",
        network,
        *labelled_batch(),
        loss,
        ["ggn"],
    )
    for name in ("fisher", "hessian", "ntk"):
        OPERATORS[name].Operator(network, *labelled_batch(), loss).spectra()


def test_ggn_of_a_loss_that_is_linear_in_the_outputs_is_zero():
    network = random_network("mlp", "tanh", "cross_entropy", 0)[0]
    found = ggn.Operator(
        network, *labelled_batch(), lambda outputs, labels: outputs.sum(dim=-1)
    ).spectra()
    assert not found["all"].values.any()


@pytest.mark.parametrize(
    "loss",
    [
        nn.functional.cross_entropy,
        lambda outputs, labels: LOSSES["cross_entropy"](outputs, labels)[:, None],
    ],
)
def test_loss_without_one_value_per_sample_is_refused(loss):
    network = random_network("mlp", "tanh", "cross_entropy", 0)[0]
    assert_refused(
        r"needs one loss per sample, shape \(6,\), but the loss has shape \(.*\): leave the mean",
        network,
        *labelled_batch(),
        loss,
    )


def test_stacked_runs_of_a_network_that_does_not_broadcast_are_refused():
    network, x, y = random_network("cnn", "relu", "cross_entropy", 0)
    tensors = {name: parameter[None] for name, parameter in network.named_parameters()}
    assert_refused(
        "does not broadcast over a run dimension: measure its runs one after another",
        network,
        x[None],
        y[None],
        tensors=tensors,
    )


class Attention(nn.Module):
    """Torch's own attention; some of its kernels have no second derivative."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(2, CLASSES)

    def forward(self, x):
        query, key, value = self.first(x).unflatten(-1, (3, 1, 2)).movedim(-3, 0)
        return self.last(
            nn.functional.scaled_dot_product_attention(query, key, value).flatten(1)[:, :2]
        )


def test_only_the_hessian_refuses_a_network_without_second_derivatives():
    network, x, y = Attention().double(), *labelled_batch()
    assert_refused(
        "the Hessian needs second derivatives, and torch has none here",
        network,
        x[:, None],
        y,
        names=["hessian"],
    )
    for name in ("fisher", "ggn", "ntk"):
        assert build(name, network, x[:, None], y, "cross_entropy").spectra()["all"].values[0] > 0


@pytest.mark.parametrize("name", OPERATORS)
def test_too_large_spectrum_is_refused_with_its_rows(name):
    operator = build(name, *random_network("mlp", "tanh", "cross_entropy", 0), "cross_entropy")
    # Gram matrices of 5 samples with up to 3 columns; the Hessian of the last layer.
    rows = {"fisher": 5, "ggn": 10, "ntk": 15, "hessian": 20}[name]
    layer = "4" if name == "hessian" else "0"
    operator.spectra({"mine": [layer]}, exact_up_to=rows, estimate=None)
    advice = "take fewer samples" if operator.EXACT else "set curvature.estimate to true"
    message = (
        rf"the exact spectrum of the {operator.NAME} on all takes a matrix of \d+ rows, "
        f"more than 4: {advice}"
    )
    with pytest.raises(StudyError, match=message):
        operator.spectra({"all": ["0", "2", "4"]}, exact_up_to=4, estimate=None)


def hessian_beyond_memory():
    """Build a Hessian of 2,403 rows, and name its layers."""
    log.warn_once.cache_clear()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(20, 100), nn.Tanh(), nn.Linear(100, CLASSES)).double()
    x, y = torch.randn(6, 20).double(), torch.randint(CLASSES, (6,))
    return build("hessian", network, x, y, "cross_entropy"), {"all": ["0", "2"]}


def test_spectrum_beyond_memory_is_refused_with_its_size_if_estimates_are_forbidden():
    operator, blocks = hessian_beyond_memory()
    message = (
        "the exact spectrum of the Hessian on all takes a matrix of 2,403 rows and "
        r"0\.0924 GB, and there are 0\.04: set curvature.estimate to true, take fewer samples, or "
        "ask for more memory or rows"
    )
    with pytest.raises(StudyError, match=message):
        operator.spectra(blocks, estimate=None, memory=4e7)


def test_spectrum_beyond_memory_is_estimated_with_one_warning(caplog):
    operator, blocks = hessian_beyond_memory()
    for _ in range(2):
        spectra = operator.spectra(blocks, estimate=Quadrature(4, 2), memory=4e7)
        assert spectra["all"].weights is not None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.messages[0].endswith("it is estimated")


def test_estimate_beyond_memory_is_refused_with_its_size():
    operator, blocks = hessian_beyond_memory()
    message = (
        r"an estimate of the Hessian on all keeps 0\.0346 GB of vectors, and there are 0\.01: "
        "take fewer steps"
    )
    with pytest.raises(StudyError, match=message):
        operator.spectra(blocks, exact_up_to=4, estimate=Quadrature(1200, 2), memory=1e7)


@pytest.mark.parametrize("name", OPERATORS)
def test_parameters_that_are_not_finite_give_nan_numbers(name):
    network, x, y = random_network("mlp", "tanh", "cross_entropy", 0)
    with torch.no_grad():
        network[0].weight[0, 0] = torch.nan
    operator = build(name, network, x, y, "cross_entropy")
    gradient = operator.gradient()
    for limits in ({}, {"exact_up_to": 4, "estimate": Quadrature(4, 2)}):
        for found in operator.spectra(gradient=gradient, **limits).values():
            numbers, _ = spectrum.summary(found)
            assert all(number.isnan() for number in numbers.values())
            assert found.overlap.isnan()
            assert spectrum.density(found)[0].isnan().all()


@pytest.mark.parametrize("name", OPERATORS)
def test_run_that_is_not_finite_leaves_other_runs_unchanged(name):
    _, (network, x, y, loss, tensors) = stacked_runs("mlp", "cross_entropy")
    healthy = build(name, network, x, y, loss, tensors).spectra()
    with torch.no_grad():
        tensors["2.weight"][1] = torch.nan
    for block, found in build(name, network, x, y, loss, tensors).spectra().items():
        assert found.values[1].isnan().all()
        torch.testing.assert_close(
            found.values[[0, 2]], healthy[block].values[[0, 2]], rtol=1e-9, atol=1e-14
        )


@pytest.mark.parametrize("scale", [0.0, 1.0, 40.0, 1e4, 1e8])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ggn_of_the_cross_entropy_has_one_column_fewer_than_outputs_at_any_confidence(scale, dtype):
    torch.manual_seed(0)
    labels = torch.randint(4, (9,))
    network = nn.Sequential(nn.Linear(4, 4)).to(dtype)
    loss = LOSSES["cross_entropy"]
    operator = ggn.Operator(network, torch.randn(9, 4).to(dtype), labels, loss)
    right = torch.eye(4)[labels]
    for logits in (
        scale * right,
        scale * (2 * right - 1),
        scale * (right + torch.rand(9, 4) / 2),
        scale * (torch.randn(9, 4) + 1),
    ):
        S = operator.columns(logits.to(dtype), labels, loss).double()
        assert S.shape == (9, 4, 3)
        p = torch.softmax(logits.to(dtype).double(), dim=-1)
        H = -p[:, :, None] * p[:, None] * (1 - torch.eye(4))
        # p (1 − p) from the other classes: computed directly, it is round-off where p is nearly 1.
        H = H - torch.diag_embed(H.sum(dim=-1))
        errors = (S @ S.mT - H).abs().amax(dim=(-2, -1))
        tiny = torch.finfo(dtype).smallest_normal ** 2
        bounds = 20 * torch.finfo(dtype).eps * H.abs().amax(dim=(-2, -1)) + tiny
        assert (errors <= bounds).all()


def test_gram_matrices_of_other_losses_have_one_column_per_output():
    for loss, columns in (("squared_distance", CLASSES), ("squared_error", 1)):
        network, x, y = random_network("mlp", "tanh", loss, 0)
        assert build("ggn", network, x, y, loss).gram_matrices().rows == len(x) * columns
        assert build("ntk", network, x, y, loss).gram_matrices().rows == len(x) * columns
        assert build("fisher", network, x, y, loss).gram_matrices().rows == len(x)


class PeakMemory(TorchDispatchMode):
    """Record the bytes of the largest tensor, and the most bytes alive together."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak, self.largest = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.alive[storage.data_ptr()] = StorageWeakRef(storage), storage.nbytes()
                self.largest = max(self.largest, storage.nbytes())
        self.alive = {
            address: (reference, size)
            for address, (reference, size) in self.alive.items()
            if not reference.expired()
        }
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return result


@pytest.mark.parametrize(("samples", "width"), [(64, 256), (32, 512)])
@pytest.mark.parametrize("name", ["fisher", "ggn", "ntk"])
def test_gram_matrix_needs_no_memory_for_per_sample_gradients(name, samples, width):
    classes = 10
    layers = [
        nn.Linear(20, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    ]
    network = nn.Sequential(*layers).double()
    x, y = torch.randn(samples, 20).double(), torch.randint(classes, (samples,))
    operator = OPERATORS[name].Operator(network, x, y, LOSSES["cross_entropy"], check=False)
    with PeakMemory() as memory:
        grams = operator.gram_matrices()
        K = grams.over(grams)
    columns = len(K) // samples
    activations = 8 * samples * (20 + 6 * width + classes)
    parameters = 8 * sum(parameter.numel() for parameter in network.parameters())
    # One gradient, and one layer's random vector, check the identities.
    vectors = 3 * parameters
    assert memory.peak <= 2 * 8 * K.numel() + (2 + columns) * activations + vectors
    if name == "fisher":
        assert memory.peak <= 8 * (samples * classes) ** 2 + 2 * activations + vectors
    assert memory.largest <= max(8 * K.numel(), parameters, columns * activations)
    assert memory.peak < vectors + samples * columns * parameters / 20


def digits_like():
    """Draw a network of four layers and a batch."""
    torch.manual_seed(0)
    layers = [layer for _ in range(3) for layer in (nn.Linear(64, 64), nn.ReLU())]
    network = nn.Sequential(*layers, nn.Linear(64, 10)).double()
    for layer in layers[::2]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return network, torch.randn(64, 64).double(), torch.randint(10, (64,))


def test_float32_estimates_are_within_their_errors_of_float64_estimates():
    network, x, y = digits_like()
    operator = build("hessian", network, x, y, "cross_entropy")
    gradient = operator.gradient()
    layers = operator.blocks()["all"]
    spectra = operator.spectra({"all": layers}, estimate=Quadrature(32, 4), gradient=gradient)
    single = spectra["all"]
    numbers, errors = spectrum.summary(single)
    flat = torch.cat([part.flatten() for part in gradient.values()])
    starts = operator._draw_probes("all", 5, len(flat)).unflatten(0, (-1, 1))
    product = operator.product(layers)
    double = stochastic_lanczos_quadrature(product, starts, 32, 10, flat)
    for name, number in spectrum.summary(double)[0].items():
        share_of_error = 1 if name == "top_eigenvalue" else 1e-3
        assert (numbers[name] - number).abs() <= errors[name] * share_of_error, name
    assert ((single.ends - double.ends).abs() <= single.residuals + double.residuals).all()
    assert single.overlap.item() == pytest.approx(double.overlap.item(), rel=1e-5)
    density, bound = spectrum.density(single)
    assert (density - spectrum.density(double)[0]).abs().max() <= 1e-2 * bound


@pytest.mark.parametrize("name", ["fisher", "ggn", "ntk"])
def test_exact_float32_spectra_equal_float64_spectra_except_for_small_eigenvalues(name):
    network, x, y = digits_like()
    double = build(name, network, x, y, "cross_entropy").spectra()
    single = build(name, network.float(), x.float(), y, "cross_entropy").spectra()
    for block, found in single.items():
        values = double[block].values
        expected = spectrum.numbers(values)
        for number_name, number in spectrum.numbers(found.values).items():
            torch.testing.assert_close(number.double(), expected[number_name], rtol=5e-3, atol=1e-6)
        tolerance = 2e-6 * values[0].item()
        torch.testing.assert_close(found.values.double(), values, rtol=1e-5, atol=tolerance)
