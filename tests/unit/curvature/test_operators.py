"""Spectra, products and overlaps of the four operators against dense matrices, in float64, on drawn networks; what they refuse."""

import pytest
import torch
from dense import CLASSES, KINDS, LOSSES, batch, dense, drawn
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tiers import slow_except
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from plasticity import log
from plasticity.curvature import spectrum as spectra
from plasticity.curvature.lanczos import Quadrature, stochastic_lanczos_quadrature
from plasticity.curvature.operator import blocks_of
from plasticity.curvature.operators import fisher, ggn, hessian, ntk
from plasticity.errors import StudyError
from plasticity.models.normalization import BatchNorm

OPERATORS = {"fisher": fisher, "ggn": ggn, "ntk": ntk, "hessian": hessian}
ACTIVATIONS = ["relu", "leaky_relu", "tanh", "identity", "gelu", "sin"]
CASES = dict.fromkeys(KINDS, 30) | {"vit": 10}  # 220 in all


def of(name, network, x, y, loss, *tensors):
    return OPERATORS[name].Operator(network, x, y, LOSSES[loss], *tensors)


def overlap(A, gradient, top):
    """‖P_k g‖² / ‖g‖² with what spans the largest k eigenvalues; None where the next is too near the last of them to tell the span."""
    values, vectors = spectra.eigenvectors(A)
    top = min(top, len(values))
    if (top < len(values) and values[top - 1] - values[top] < 1e-5 * values[0]) or values[
        top - 1
    ].abs() < 1e-5 * values[0]:
        return None
    return ((vectors[:, :top].T @ gradient).square().sum() / gradient.square().sum()).item()


@pytest.mark.parametrize("kind", KINDS)
def test_spectra_and_overlaps_are_those_of_dense_matrices(kind):
    compared = dict.fromkeys(OPERATORS, 0)

    examples = max(2, CASES[kind] * settings().max_examples // 40)  # 40: of the full profile

    @settings(max_examples=examples, phases=[Phase.generate])
    @given(
        st.sampled_from(ACTIVATIONS),
        st.sampled_from(sorted(LOSSES)),
        st.integers(0, 10**6),
        st.integers(2, 6),
        st.integers(1, 5),
    )
    def case(activation, loss, seed, samples, top):
        network, x, y = drawn(kind, activation, loss, seed, samples)
        expected = dense(network, x, y, loss)
        for name in OPERATORS:
            operator = of(name, network, x, y, loss)
            coming = (
                operator.gradient()
                if seed % 2
                else of(name, network, *batch(kind, loss), loss).gradient()
            )
            flat = torch.cat([part.flatten() for part in coming.values()])
            blocks = operator.blocks()
            if name == "hessian" and kind == "vit":  # whose products are taken one by one
                blocks = {
                    block: layers
                    for block, layers in blocks.items()
                    if block in ("last_two", "block_1.attention.projection")
                }
            for block, spectrum in operator.spectra(blocks, gradient=coming, top=top).items():
                A, g = expected.block(name, blocks[block]), flat[expected.of(blocks[block])]
                known, found = spectra.eigenvectors(A)[0], spectrum.values
                width = min(len(known), len(found))
                large = (
                    known[:width].abs() > 1e-8 * known.abs().max()
                    if name != "hessian"
                    else known.abs() > 1e-8 * known.abs().max()
                )
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
    assert min(compared.values()) > examples / 2


def runs_of(kind, loss, activation="tanh", seeds=(0, 1, 2)):
    """Networks of the same kind with batches of their own, and all of them stacked."""
    alone = [drawn(kind, activation, loss, seed) for seed in seeds]
    named = [dict(network.named_parameters()) for network, *_ in alone]
    tensors = {
        name: torch.stack([one[name].detach() for one in named]).requires_grad_()
        for name in named[0]
    }
    return alone, (
        alone[0][0],
        *(torch.stack([one[place] for one in alone]) for place in (1, 2)),
        loss,
        tensors,
    )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "kind", slow_except(["mlp with layer norm"], ["mlp", "mlp with layer norm"])
)
@pytest.mark.parametrize("name", OPERATORS)
def test_runs_have_the_spectra_that_each_has_alone(name, kind, loss):
    alone, stacked = runs_of(kind, loss)
    together = of(name, *stacked)
    gradient = together.gradient()
    # exact by Gram matrices, or, where those are too large, by products; estimated
    for limits in ({}, {"exact_up_to": 4}, {"exact_up_to": 4, "estimate": Quadrature(8, 3)}):
        found = together.spectra(gradient=gradient, top=2, **limits)
        for run, (network, x, y) in enumerate(alone):
            operator = of(name, network, x, y, loss)
            own = operator.gradient()
            for parameter, slope in own.items():
                torch.testing.assert_close(gradient[parameter][run], slope, rtol=1e-10, atol=1e-12)
            for block, spectrum in operator.spectra(gradient=own, top=2, **limits).items():
                exact = spectrum.weights is None
                assert exact == (found[block].weights is None)
                scale = spectrum.values.abs().max().item()
                tolerance = (
                    {"rtol": 1e-8, "atol": 1e-12 * scale}
                    if exact
                    else {"rtol": 1e-3, "atol": 1e-4 * scale}
                )
                if exact:
                    torch.testing.assert_close(
                        found[block].values[run], spectrum.values, **tolerance
                    )
                torch.testing.assert_close(
                    found[block].overlap[run],
                    spectrum.overlap,
                    rtol=1e-3,
                    atol=1e-8 if exact else 1e-3,
                )
                for (what, number), other in zip(
                    spectra.summary(spectrum)[0].items(),
                    spectra.summary(found[block])[0].values(),
                    strict=True,
                ):
                    if exact or what in ("trace", "top_eigenvalue", "stable_rank", "entropy_rank"):
                        torch.testing.assert_close(other[run], number, rtol=1e-3, atol=1e-6 * scale)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPERATORS)
def test_products_are_those_of_the_dense_matrix_linear_and_symmetric(name, kind):
    for loss in LOSSES:
        network, x, y = drawn(kind, "gelu", loss, 7)
        operator, expected = of(name, network, x, y, loss), dense(network, x, y, loss)
        for layers in list(operator.blocks().values())[-3:]:
            A, product = expected.block(name, layers), operator.product(layers)
            torch.manual_seed(0)
            u, v, w = torch.randn(3, len(A)).double()
            found = product(torch.stack([u, v, 2 * u - 3 * v]))
            close = {"rtol": 1e-9, "atol": 1e-10 * A.abs().max().item() * len(A)}
            torch.testing.assert_close(found[:2], torch.stack([u, v]) @ A, **close)
            torch.testing.assert_close(
                product(w[None])[0], A @ w, **close
            )  # one alone goes another way
            torch.testing.assert_close(found[2], 2 * found[0] - 3 * found[1], **close)
            assert (u @ found[1]).item() == pytest.approx(
                (v @ found[0]).item(), rel=1e-9, abs=close["atol"]
            )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["mlp", "mlp without biases", "cnn", "resnet"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "identity", "tanh"])
def test_the_hessian_of_a_layer_is_its_gauss_newton_matrix_where_activations_are_piecewise_linear(
    activation, kind, loss
):
    network, x, y = drawn(kind, activation, loss, 3)
    layers = {
        name: own for name, own in blocks_of(network).items() if name not in ("last_two", "all")
    }
    found, expected = (
        of("hessian", network, x, y, loss).spectra(layers),
        of("ggn", network, x, y, loss).spectra(layers),
    )
    names = (
        list(layers) if kind != "resnet" else [name for name in layers if "norm" not in name]
    )  # which has a norm behind conv
    equal = []
    for name in names:
        top, rank = expected[name].values[0], min(len(expected[name].values), found[name].size)
        largest = found[name].values[:rank] if rank < found[name].size else found[name].values
        equal.append(bool(((largest - expected[name].values[:rank]).abs() <= 1e-9 * top).all()))
    if activation == "tanh":
        assert equal[-1]  # the last layer, after which nothing bends
        assert not any(equal[:-1])
    else:
        assert all(equal)


@pytest.mark.parametrize("kind", KINDS)
def test_the_trace_of_the_fisher_is_the_mean_squared_gradient_norm_and_the_sum_of_its_layers(kind):
    network, x, y = drawn(kind, "tanh", "cross_entropy", 5)
    parameters = list(network.parameters())
    losses = LOSSES["cross_entropy"](
        network(x), y
    )  # at once, because a batch norm's constants are the batch's
    norms = [
        sum(
            slope.square().sum()
            for slope in torch.autograd.grad(one, parameters, retain_graph=True)
        )
        for one in losses
    ]
    for name in OPERATORS:
        if name == "hessian" and kind == "vit":
            continue
        operator = of(name, network, x, y, "cross_entropy")
        traces = {block: found.values.sum().item() for block, found in operator.spectra().items()}
        whole, pair = traces.pop("all"), traces.pop("last_two")
        assert sum(traces.values()) == pytest.approx(whole, rel=1e-9)
        assert sum(traces[layer] for layer in operator.blocks()["last_two"]) == pytest.approx(
            pair, rel=1e-9
        )
        if name == "fisher":
            assert whole == pytest.approx(torch.stack(norms).mean().item(), rel=1e-10)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_order_of_hidden_units_changes_no_spectrum(name):
    network, x, y = drawn("mlp with layer norm", "gelu", "cross_entropy", 2)
    before = of(name, network, x, y, "cross_entropy").spectra()
    order = torch.randperm(5, generator=torch.Generator().manual_seed(0))
    first, norm, _, second = network[:4]
    with torch.no_grad():
        for own in (first.weight, first.bias, norm.weight, norm.bias):
            own.copy_(own[order].clone())
        second.weight.copy_(second.weight[:, order].clone())
    for block, found in of(name, network, x, y, "cross_entropy").spectra().items():
        scale = before[block].values.abs().max().item()
        torch.testing.assert_close(
            found.values, before[block].values, rtol=1e-9, atol=1e-13 * scale
        )


class Multiplied(nn.Module):
    """Outputs that are products of parameters: a direction of large curvature that can be repeated exactly."""

    def __init__(self, copies):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2, 1, bias=False) for _ in range(copies))

    def forward(self, x):
        return torch.cat([layer(x) for layer in self.layers], dim=-1)


@pytest.mark.parametrize("exact_up_to", [1000, 9])
@pytest.mark.parametrize("name", ["ggn", "ntk", "hessian"])
def test_equal_eigenvalues_have_one_span_and_what_the_operator_does_not_see_is_none_of_its_top(
    name, exact_up_to
):
    """Three layers of equal curvature on inputs of one direction: eigenvalues λ, λ, λ, 0, 0, 0."""
    network, x = (
        Multiplied(3).double(),
        torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]]).double(),
    )
    operator = of(name, network, x, torch.zeros(4, 3).double(), "squared_distance")
    gradient = {
        own: torch.ones(1, 2).double() for own in operator.gradient()
    }  # half in the span, half in the null space
    for top in (1, 2, 3, 4, 6):
        found = operator.spectra(gradient=gradient, top=top, exact_up_to=exact_up_to)["all"]
        assert found.overlap.item() == pytest.approx(0.5)


def refused(sentence, network, x, y, loss=LOSSES["cross_entropy"], names=OPERATORS, **options):
    for name in names:
        with pytest.raises(StudyError, match=sentence) as error:
            OPERATORS[name].Operator(network, x, y, loss, **options).spectra()
        assert "\n" not in str(error.value)


def labelled(samples=6, inputs=4):
    torch.manual_seed(0)
    return torch.randn(samples, inputs).double(), torch.randint(CLASSES, (samples,))


def test_dropout_in_training_mode_is_refused_by_name_and_taken_in_eval_mode():
    network = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, CLASSES)).double()
    refused(
        r"loss is another one at a second look; in training mode are .*1 \(Dropout\).*: call network.eval\(\)",
        network,
        *labelled(),
    )
    for name in OPERATORS:
        of(name, network.eval(), *labelled(), "cross_entropy").spectra()


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, BatchNorm])
def test_batch_norm_in_training_mode_is_refused_by_name_and_taken_in_eval_mode(norm):
    network = nn.Sequential(nn.Linear(4, 5), norm(5), nn.Tanh(), nn.Linear(5, CLASSES)).double()
    sentence = r"the loss of one sample depends on others, as with batch norm; in training mode are .*1 \(BatchNorm.*: call network.eval\(\)"
    refused(sentence, network, *labelled())
    for name in OPERATORS:
        of(name, network.eval(), *labelled(), "cross_entropy").spectra()


def test_a_loss_that_is_not_convex_has_no_gauss_newton_matrix_and_the_other_operators():
    def loss(outputs, labels):
        return torch.sin(outputs).sum(dim=-1)

    network = drawn("mlp", "tanh", "cross_entropy", 0)[0]
    refused(
        "convex in the outputs, and this one is not: take its Hessian",
        network,
        *labelled(),
        loss,
        ["ggn"],
    )
    for name in ("fisher", "hessian", "ntk"):
        OPERATORS[name].Operator(network, *labelled(), loss).spectra()


def test_a_loss_that_is_linear_in_the_outputs_has_a_gauss_newton_matrix_of_zeros():
    network = drawn("mlp", "tanh", "cross_entropy", 0)[0]
    found = ggn.Operator(
        network, *labelled(), lambda outputs, labels: outputs.sum(dim=-1)
    ).spectra()
    assert not found["all"].values.any()


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        lambda outputs, labels: LOSSES["cross_entropy"](outputs, labels)[:, None],
    ],
)
def test_a_loss_that_is_not_of_each_sample_is_refused(loss):
    network = drawn("mlp", "tanh", "cross_entropy", 0)[0]
    refused(
        r"its loss is not of each sample, and gives shape \(.*\) where \(6,\) is wanted: leave the mean",
        network,
        *labelled(),
        loss,
    )


def test_runs_of_a_network_that_does_not_broadcast_are_refused():
    network, x, y = drawn("cnn", "relu", "cross_entropy", 0)
    tensors = {name: parameter[None] for name, parameter in network.named_parameters()}
    refused(
        "does not broadcast: its runs come one after the other",
        network,
        x[None],
        y[None],
        tensors=tensors,
    )


class Attention(nn.Module):
    """Torch's own attention, of which some kernels have no second derivative."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(2, CLASSES)

    def forward(self, x):
        query, key, value = self.first(x).unflatten(-1, (3, 1, 2)).movedim(-3, 0)
        return self.last(
            nn.functional.scaled_dot_product_attention(query, key, value).flatten(1)[:, :2]
        )


def test_what_torch_has_no_second_derivative_of_has_exact_spectra_and_no_hessian():
    network, x, y = Attention().double(), *labelled()
    refused(
        "the Hessian takes second derivatives, and torch has none here",
        network,
        x[:, None],
        y,
        names=["hessian"],
    )
    for name in ("fisher", "ggn", "ntk"):
        assert of(name, network, x[:, None], y, "cross_entropy").spectra()["all"].values[0] > 0


@pytest.mark.parametrize("name", OPERATORS)
def test_a_spectrum_that_is_too_large_is_refused_with_its_rows(name):
    operator = of(name, *drawn("mlp", "tanh", "cross_entropy", 0), "cross_entropy")
    rows = {"fisher": 5, "ggn": 10, "ntk": 15, "hessian": 20}[
        name
    ]  # of the last layers with 5 samples, and of the first layer
    operator.spectra({"mine": ["0" if name != "hessian" else "4"]}, exact_up_to=rows, estimate=None)
    way = "take fewer samples" if operator.EXACT else "set curvature.estimate to true"
    sentence = rf"the exact spectrum of the {operator.NAME} on all takes a matrix of \d+ rows, more than 4: {way}"
    with pytest.raises(StudyError, match=sentence):
        operator.spectra({"all": ["0", "2", "4"]}, exact_up_to=4, estimate=None)


def test_a_spectrum_that_does_not_fit_into_memory_is_refused_with_what_it_takes_or_estimated_with_one_warning(
    caplog,
):
    log.warn_once.cache_clear()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(20, 100), nn.Tanh(), nn.Linear(100, CLASSES)).double()
    x, y = torch.randn(6, 20).double(), torch.randint(CLASSES, (6,))
    operator = of("hessian", network, x, y, "cross_entropy")
    takes = r"the exact spectrum of the Hessian on all takes a matrix of 2,403 rows and 0\.0924 GB, and there are 0\.04"
    with pytest.raises(
        StudyError,
        match=rf"{takes}: set curvature.estimate to true, take fewer samples, or ask for more memory or rows",
    ):
        operator.spectra({"all": ["0", "2"]}, estimate=None, memory=4e7)
    for _ in range(2):
        assert (
            operator.spectra({"all": ["0", "2"]}, estimate=Quadrature(4, 2), memory=4e7)[
                "all"
            ].weights
            is not None
        )
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.records[0].getMessage().endswith("it is estimated")
    with pytest.raises(
        StudyError,
        match=r"an estimate of the Hessian on all keeps 0\.0346 GB of vectors, and there are 0\.01: take fewer steps",
    ):
        operator.spectra(
            {"all": ["0", "2"]}, exact_up_to=4, estimate=Quadrature(1200, 2), memory=1e7
        )


@pytest.mark.parametrize("name", OPERATORS)
def test_parameters_that_are_not_finite_give_nan(name):
    network, x, y = drawn("mlp", "tanh", "cross_entropy", 0)
    with torch.no_grad():
        network[0].weight[0, 0] = torch.nan
    operator = of(name, network, x, y, "cross_entropy")
    gradient = operator.gradient()
    for limits in ({}, {"exact_up_to": 4, "estimate": Quadrature(4, 2)}):
        for spectrum in operator.spectra(gradient=gradient, **limits).values():
            numbers, _ = spectra.summary(spectrum)
            assert all(number.isnan() for number in numbers.values())
            assert spectrum.overlap.isnan()
            assert spectra.density(spectrum)[0].isnan().all()


@pytest.mark.parametrize("name", OPERATORS)
def test_a_run_that_is_not_finite_harms_no_other(name):
    _, (network, x, y, loss, tensors) = runs_of("mlp", "cross_entropy")
    healthy = of(name, network, x, y, loss, tensors).spectra()
    with torch.no_grad():
        tensors["2.weight"][1] = torch.nan
    for block, found in of(name, network, x, y, loss, tensors).spectra().items():
        assert found.values[1].isnan().all()
        torch.testing.assert_close(
            found.values[[0, 2]], healthy[block].values[[0, 2]], rtol=1e-9, atol=1e-14
        )


@pytest.mark.parametrize("scale", [0.0, 1.0, 40.0, 1e4, 1e8])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_cross_entropy_needs_a_column_less_than_there_are_outputs_however_sure_they_are(
    scale, dtype
):
    torch.manual_seed(0)
    labels = torch.randint(4, (9,))
    network = nn.Sequential(nn.Linear(4, 4)).to(dtype)
    operator = ggn.Operator(network, torch.randn(9, 4).to(dtype), labels, LOSSES["cross_entropy"])
    right = torch.eye(4)[labels]
    for outputs in (
        scale * right,
        scale * (2 * right - 1),
        scale * (right + torch.rand(9, 4) / 2),
        scale * (torch.randn(9, 4) + 1),
    ):
        S = operator.columns(outputs.to(dtype), labels, operator.loss).double()
        assert S.shape == (9, 4, 3)
        p = torch.softmax(outputs.to(dtype).double(), dim=-1)
        H = -p[:, :, None] * p[:, None] * (1 - torch.eye(4))
        H = H - torch.diag_embed(
            H.sum(dim=-1)
        )  # p (1 − p) by the other classes: it is nothing but round-off where p is nearly 1
        tiny = torch.finfo(dtype).smallest_normal ** 2
        assert (
            (S @ S.mT - H).abs().amax(dim=(-2, -1))
            <= 20 * torch.finfo(dtype).eps * H.abs().amax(dim=(-2, -1)) + tiny
        ).all()


def test_the_columns_of_other_losses_are_as_many_as_outputs():
    for loss, columns in (("squared_distance", CLASSES), ("squared_error", 1)):
        network, x, y = drawn("mlp", "tanh", loss, 0)
        assert of("ggn", network, x, y, loss).grams().rows == len(x) * columns
        assert of("ntk", network, x, y, loss).grams().rows == len(x) * columns
        assert of("fisher", network, x, y, loss).grams().rows == len(x)


class Peak(TorchDispatchMode):
    """The bytes of the largest tensor that is made, and the most that are alive at a time."""

    def __init__(self):
        super().__init__()
        self.alive, self.most, self.largest = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.alive[storage.data_ptr()] = StorageWeakRef(storage), storage.nbytes()
                self.largest = max(self.largest, storage.nbytes())
        self.alive = {place: one for place, one in self.alive.items() if not one[0].expired()}
        self.most = max(self.most, sum(size for _, size in self.alive.values()))
        return made


@pytest.mark.parametrize(("samples", "width"), [(64, 256), (32, 512)])
@pytest.mark.parametrize("name", ["fisher", "ggn", "ntk"])
def test_a_gram_matrix_takes_itself_twice_and_the_activations_for_each_column_and_never_a_gradient_of_a_sample(
    name, samples, width
):
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
    network, x, y = (
        nn.Sequential(*layers).double(),
        torch.randn(samples, 20).double(),
        torch.randint(classes, (samples,)),
    )
    operator = OPERATORS[name].Operator(network, x, y, LOSSES["cross_entropy"], check=False)
    with Peak() as peak:
        grams = operator.grams()
        K = grams.over(grams)
    columns = len(K) // samples
    activations = 8 * samples * (20 + 6 * width + classes)
    parameters = 8 * sum(parameter.numel() for parameter in network.parameters())
    assert peak.most <= 2 * 8 * K.numel() + (2 + columns) * activations + parameters
    if name == "fisher":
        assert peak.most <= 8 * (samples * classes) ** 2 + 2 * activations + parameters
    assert peak.largest <= max(8 * K.numel(), parameters, columns * activations)
    assert peak.most < samples * columns * parameters / 20


def digits_like():
    """A network of four layers, and what it sees."""
    torch.manual_seed(0)
    layers = [layer for _ in range(3) for layer in (nn.Linear(64, 64), nn.ReLU())]
    network = nn.Sequential(*layers, nn.Linear(64, 10)).double()
    for layer in layers[::2]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return network, torch.randn(64, 64).double(), torch.randint(10, (64,))


def test_estimates_in_float32_are_within_their_errors_of_those_in_float64():
    network, x, y = digits_like()
    operator = of("hessian", network, x, y, "cross_entropy")
    gradient = operator.gradient()
    found = operator.spectra(
        {"all": operator.blocks()["all"]}, estimate=Quadrature(32, 4), gradient=gradient
    )["all"]
    numbers, errors = spectra.summary(found)
    flat = torch.cat([slope.flatten() for slope in gradient.values()])
    starts = operator._draw(5, len(flat)).unflatten(0, (-1, 1))
    finer = stochastic_lanczos_quadrature(
        operator.product(operator.blocks()["all"]), starts, 32, 10, flat
    )
    for name, number in spectra.summary(finer)[0].items():
        assert (numbers[name] - number).abs() <= errors[name] * (
            1 if name == "top_eigenvalue" else 1e-3
        ), name
    assert ((found.ends - finer.ends).abs() <= found.residuals + finer.residuals).all()
    assert found.overlap.item() == pytest.approx(finer.overlap.item(), rel=1e-5)
    assert (
        spectra.density(found)[0] - spectra.density(finer)[0]
    ).abs().max() <= 1e-2 * spectra.density(found)[1]


@pytest.mark.parametrize("name", ["fisher", "ggn", "ntk"])
def test_exact_spectra_in_float32_are_those_in_float64_but_for_small_eigenvalues(name):
    network, x, y = digits_like()
    exact = of(name, network, x, y, "cross_entropy").spectra()
    for block, found in of(name, network.float(), x.float(), y, "cross_entropy").spectra().items():
        values = exact[block].values
        for number, other in zip(
            spectra.numbers(found.values).values(), spectra.numbers(values).values(), strict=True
        ):
            torch.testing.assert_close(number.double(), other, rtol=5e-3, atol=1e-6)
        torch.testing.assert_close(
            found.values.double(), values, rtol=1e-5, atol=2e-6 * values[0].item()
        )
