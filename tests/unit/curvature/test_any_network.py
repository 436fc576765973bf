"""Curvature of networks of any kind equals a loop over samples, or is refused in one sentence."""

import math
import re

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from plasticity.config import registry
from plasticity.curvature.lanczos import Quadrature
from plasticity.errors import StudyError
from plasticity.log import warn_once

OPERATORS = ("fisher", "ggn", "hessian", "ntk")


class Wrapped(nn.Module):
    """A network whose forward pass is a function of the layers."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.function = forward

    def forward(self, x):
        return self.function(self, x)


class TwoParameters(nn.Module):
    """Parameters that belong to no layer: scale · x + shift."""

    def __init__(self, width):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.scale * x + self.shift


def tokens_first(net, x):
    """Process tokens before samples, as sequence models with batch_first=False do."""
    hidden = net.first(x.transpose(0, 1)).tanh()
    return net.last(hidden.transpose(0, 1).mean(dim=1))


def encode(net, x):
    """Apply an encoder that takes tokens first."""
    return net.last(net.encoder(x.transpose(0, 1)).mean(dim=0))


def attend_to_queries(net, x):
    """Let learned queries, which all samples share, attend to each sample."""
    queries = net.query(net.learned)
    weights = torch.softmax(x @ queries.mT, dim=-1)
    return net.last(weights @ queries)


def sort_samples(net, x):
    """Process the samples in another order, and restore their order."""
    order = x[:, 0].argsort()
    hidden = net.first(x[order]).tanh()
    return net.last(hidden[order.argsort()])


def roll_samples(net, x):
    """Process each sample in the place of its neighbour."""
    return net.last(net.first(x.roll(1, 0)).tanh().roll(-1, 0))


def swap_one_pair(net, x):
    """Process all samples but two in their own places."""
    order = torch.arange(len(x))
    order[:2] = order[:2].flip(0)
    return net.last(net.first(x[order]).tanh()[order])


def route(net, x):
    """Send some samples through one layer, and the others through another."""
    positive = x[:, 0] > 0
    hidden = torch.zeros(len(x), net.last.in_features, dtype=x.dtype)
    hidden[positive] = net.first(x[positive])
    hidden[~positive] = net.second(x[~positive])
    return net.last(hidden.tanh())


def stack_twice(net, x):
    """Process every sample and its negative in one call."""
    positive, negative = net.first(torch.cat([x, -x])).tanh().chunk(2)
    return net.last(positive * negative)


def last_of_sequence(net, x):
    """Return the outputs of a recurrent network at the last token."""
    return net.last(net.recurrent(x)[0][:, -1])


def use_twice(net, x):
    return net.last(net.first(net.first(x).tanh()).tanh())


def use_part(net, x):
    """Use one of two layers."""
    return net.last(net.first(x).tanh())


def attend(net, x):
    """Let tokens attend to each other."""
    attended = net.attention(x, x, x, need_weights=False)[0]
    return net.last(attended.mean(dim=1))


def mean_of_embeddings(net, x):
    return net.last(net.embedding(x).mean(dim=1).tanh())


def of_pairs(net, x):
    """Multiply each sample with itself by a bilinear layer."""
    return net.last(net.first(x, x.flip(-1)).tanh())


def sequential(*layers):
    return nn.Sequential(*layers)


def mlp():
    return sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))


def in_place():
    return sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 3))


def frozen_first():
    network = mlp()
    network[0].requires_grad_(requires_grad=False)
    return network


def weight_normed():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    return sequential(layer, nn.Tanh(), nn.Linear(3, 3))


def queries(count):
    network = Wrapped(attend_to_queries, query=nn.Linear(3, 3), last=nn.Linear(3, 3))
    network.register_buffer("learned", torch.randn(count, 3))
    return network


def encoder(*, batch_first=False):
    layer = nn.TransformerEncoderLayer(4, 2, 3, dropout=0.0, batch_first=batch_first)
    if batch_first:
        return Wrapped(
            lambda net, x: net.last(net.encoder(x).mean(dim=1)), encoder=layer, last=nn.Linear(4, 3)
        )
    return Wrapped(encode, encoder=layer, last=nn.Linear(4, 3))


def two_layers(function, inputs=4):
    return lambda: Wrapped(function, first=nn.Linear(inputs, 3), last=nn.Linear(3, 3))


# By name: how to create the network, the shape of a sample, and numbers of samples. Some of these
# equal another dim of the network, where a layer cannot tell samples from something else by shape.
CLASSIFIERS = {
    "mlp": (mlp, (4,), (3, 4, 5)),
    "in-place activation": (in_place, (4,), (3, 5)),
    "frozen layer": (frozen_first, (4,), (3,)),
    "tokens first": (two_layers(tokens_first, 2), (4, 2), (4, 5)),
    "encoder, tokens first": (encoder, (3, 4), (3, 2)),
    "encoder, samples first": (lambda: encoder(batch_first=True), (3, 4), (3, 4)),
    "learned queries": (lambda: queries(4), (3,), (4, 3)),
    "sorted samples": (two_layers(sort_samples), (4,), (4, 5)),
    "rolled samples": (two_layers(roll_samples), (4,), (4, 3)),
    "two swapped samples": (two_layers(swap_one_pair), (4,), (4, 6)),
    "routed samples": (
        lambda: Wrapped(route, first=nn.Linear(4, 3), second=nn.Linear(4, 3), last=nn.Linear(3, 3)),
        (4,),
        (4, 5),
    ),
    "stacked samples": (two_layers(stack_twice), (4,), (4, 3)),
    "layer used twice": (
        lambda: Wrapped(use_twice, first=nn.Linear(4, 4), last=nn.Linear(4, 3)),
        (4,),
        (4,),
    ),
    "unused layer": (
        lambda: Wrapped(
            use_part, first=nn.Linear(4, 3), second=nn.Linear(4, 3), last=nn.Linear(3, 3)
        ),
        (4,),
        (3,),
    ),
    "recurrent": (
        lambda: Wrapped(
            last_of_sequence, recurrent=nn.RNN(2, 3, batch_first=True), last=nn.Linear(3, 3)
        ),
        (3, 2),
        (3, 2),
    ),
    "attention": (
        lambda: Wrapped(
            attend, attention=nn.MultiheadAttention(4, 2, batch_first=True), last=nn.Linear(4, 3)
        ),
        (3, 4),
        (3, 4),
    ),
    "embedding": (
        lambda: Wrapped(mean_of_embeddings, embedding=nn.Embedding(5, 3), last=nn.Linear(3, 3)),
        "five words, three at a time",
        (3, 5),
    ),
    "bilinear": (
        lambda: Wrapped(of_pairs, first=nn.Bilinear(3, 3, 2), last=nn.Linear(2, 3)),
        (3,),
        (3, 2),
    ),
    "1-d convolution": (
        lambda: sequential(nn.Conv1d(2, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(4, 3)),
        (2, 3),
        (2, 3),
    ),
    "2-d convolution": (
        lambda: sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)),
        (1, 3, 3),
        (3, 2),
    ),
    "grouped convolution": (
        lambda: sequential(nn.Conv2d(2, 2, 2, groups=2), nn.Flatten(), nn.Linear(2, 3)),
        (2, 2, 2),
        (2, 3),
    ),
    "transposed convolution": (
        lambda: sequential(nn.ConvTranspose2d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(18, 3)),
        (1, 2, 2),
        (2,),
    ),
    "layer norm": (
        lambda: sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Tanh(), nn.Linear(3, 3)),
        (4,),
        (3, 4),
    ),
    "layer norm without a bias": (
        lambda: sequential(nn.Linear(4, 3), nn.LayerNorm(3, bias=False), nn.Linear(3, 3)),
        (4,),
        (3,),
    ),
    "group norm": (
        lambda: sequential(
            nn.Conv2d(1, 2, 2), nn.GroupNorm(2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)
        ),
        (1, 3, 3),
        (2, 3),
    ),
    "batch norm in eval mode": (
        lambda: sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 3)),
        (4,),
        (3, 5),
    ),
    "learned slope": (
        lambda: sequential(nn.Linear(4, 3), nn.PReLU(3), nn.Linear(3, 3)),
        (4,),
        (3,),
    ),
    "parameters without a layer": (
        lambda: sequential(TwoParameters(4), nn.Linear(4, 3)),
        (4,),
        (4, 3),
    ),
}
# Outputs of other shapes, with their loss per sample.
OTHERS = {
    "class per token": (
        lambda: sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 4)),
        (3, 2),
        (3, 4, 2),
        (3,),
        lambda z, y: cross_entropy(z.movedim(-1, 1), y, reduction="none").mean(dim=1),
    ),
    "class per pixel": (
        lambda: sequential(nn.Conv2d(1, 2, 1), nn.Tanh(), nn.Conv2d(2, 3, 1)),
        (1, 2, 2),
        (2, 3),
        (2, 2),
        lambda z, y: cross_entropy(z, y, reduction="none").sum(dim=(1, 2)),
    ),
    "one number": (
        lambda: sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1), nn.Flatten(0)),
        (4,),
        (4, 3),
        (),
        lambda z, y: (z - y).square(),
    ),
    "no sample's loss in some places": (
        mlp,
        (4,),
        (4, 5),
        (),
        lambda z, y: cross_entropy(z, y, reduction="none", ignore_index=0),
    ),
}
CASES = [(name, n) for name, case in CLASSIFIERS.items() for n in case[2]]
CASES += [(name, n) for name, case in OTHERS.items() for n in case[2]]


def class_loss(z, y):
    return cross_entropy(z, y, reduction="none")


def create(name, n):
    """Create a network in eval mode with random parameters, inputs, targets and the loss."""
    torch.manual_seed(len(name) + n)
    if name in OTHERS:
        make, shape, _, target_shape, loss = OTHERS[name]
        y = torch.randint(3, (n, *target_shape))
        y = y.double() if name == "one number" else y
    else:
        make, shape, _ = CLASSIFIERS[name]
        loss, y = class_loss, torch.randint(3, (n,))
    network = make().double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.7)
    x = torch.randint(5, (n, 3)) if isinstance(shape, str) else torch.randn(n, *shape).double()
    return network, x, y, loss


def trainable(network):
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def flat_gradient(value, network, **options):
    """Differentiate a number by all parameters, shape ``(d,)``."""
    gradients = torch.autograd.grad(
        value, trainable(network), retain_graph=True, materialize_grads=True, **options
    )
    return torch.cat([gradient.flatten() for gradient in gradients])


def loop_over_samples(network, x, y, loss):
    """Compute every operator and the gradient from one sample at a time, shape ``(d, d)``."""
    n, d = len(x), sum(parameter.numel() for parameter in trainable(network))
    sums = {name: torch.zeros(d, d, dtype=torch.float64) for name in ("fisher", "ggn", "ntk")}
    losses = []
    for i in range(n):
        z = network(x[i : i + 1])
        J = torch.stack([flat_gradient(output, network) for output in z.flatten()])
        free = z.detach().requires_grad_()
        value = loss(free, y[i : i + 1]).sum()
        (slope,) = torch.autograd.grad(value, free, create_graph=True)
        rows = [
            torch.autograd.grad(entry, free, retain_graph=True, materialize_grads=True)[0].flatten()
            if entry.requires_grad
            else torch.zeros_like(free).flatten()
            for entry in slope.flatten()
        ]
        g = slope.detach().flatten() @ J
        sums["fisher"] += torch.outer(g, g)
        sums["ggn"] += J.T @ torch.stack(rows) @ J
        sums["ntk"] += J.T @ J
        losses.append(loss(z, y[i : i + 1]).sum())
    matrices = {name: total / n for name, total in sums.items()}
    gradient = flat_gradient(torch.stack(losses).mean(), network, create_graph=True)
    rows = [
        flat_gradient(entry, network) if entry.requires_grad else torch.zeros(d).double()
        for entry in gradient
    ]
    return matrices | {"hessian": torch.stack(rows)}, gradient.detach()


def layer_indices(network):
    """Find the indices of each layer's trainable parameters among all."""
    indices, start = {}, 0
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            rows = range(start, start + parameter.numel())
            indices.setdefault(name.rpartition(".")[0], []).extend(rows)
            start += parameter.numel()
    return indices


def build(operator, network, x, y, loss, check=True):
    return registry.load("operators", operator).Operator(network, x, y, loss, check=check)


def assert_same_eigenvalues(values, matrix):
    """Compare eigenvalues, where either may lack some that are zero."""
    expected = torch.linalg.eigvalsh(matrix).flip(0)
    size = max(len(values), len(expected))
    padded = [torch.cat([v.detach(), torch.zeros(size - len(v))]) for v in (values, expected)]
    found, wanted = (values.sort(descending=True).values for values in padded)
    torch.testing.assert_close(
        found, wanted, rtol=1e-9, atol=1e-10 * float(wanted.abs().max()) + 1e-13
    )


@pytest.mark.parametrize(("name", "n"), CASES)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_all_operators_equal_a_loop_over_samples(name, n):
    network, x, y, loss = create(name, n)
    with sdpa_kernel(SDPBackend.MATH):  # torch's other kernels have no second derivative
        check_operators(network, x, y, loss)


def check_operators(network, x, y, loss):
    """Compare spectra of all blocks, products and gradients with a loop over samples."""
    matrices, gradient = loop_over_samples(network, x, y, loss)
    indices = layer_indices(network)
    for operator_name, matrix in matrices.items():
        operator = build(operator_name, network, x, y, loss)
        blocks = operator.blocks()
        for block, spectrum in operator.spectra(exact_up_to=4096).items():
            rows = [index for layer in blocks[block] for index in indices[layer]]
            of_block = matrix[rows][:, rows]
            assert_same_eigenvalues(spectrum.values, of_block)
            assert torch.linalg.matrix_rank(of_block, rtol=1e-10) <= spectrum.rank_limit
        rows = [index for layer in indices for index in indices[layer]]
        vector = torch.randn(1, len(rows)).double()
        product = operator.product(list(indices))(vector)[0].detach()
        torch.testing.assert_close(
            product, matrix[rows][:, rows] @ vector[0], rtol=1e-9, atol=1e-11
        )
        flat = [
            operator.gradient()[key].flatten()
            for key, p in network.named_parameters()
            if p.requires_grad
        ]
        torch.testing.assert_close(torch.cat(flat), gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("operator", ["fisher", "ggn", "ntk"])
@pytest.mark.parametrize("name", ["tokens first", "learned queries", "sorted samples"])
def test_later_checkpoints_are_right_although_the_operator_is_checked_once(name, operator):
    """A pipeline checks an operator at its first checkpoint; identities may fail at any."""
    network, x, y, loss = create(name, 4)
    matrices, _ = loop_over_samples(network, x, y, loss)
    unchecked = build(operator, network, x, y, loss, check=False)
    values = unchecked.spectra({"all": unchecked.blocks()["all"]})["all"].values
    assert_same_eigenvalues(values, matrices[operator])


@pytest.mark.parametrize("name", ["tokens first", "learned queries", "sorted samples"])
def test_layer_whose_rows_are_not_samples_is_named_in_a_warning(name, caplog):
    warn_once.cache_clear()
    network, x, y, loss = create(name, 4)
    build("fisher", network, x, y, loss).spectra()
    assert "their gradients are computed sample by sample" in caplog.text


# Refusals: in each case the program must say what to do.


class TupleOutput(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 3)

    def forward(self, x):
        return self.first(x), x


class DictOutput(TupleOutput):
    def forward(self, x):
        return {"logits": self.first(x)}


class SamplesLast(TupleOutput):
    def forward(self, x):
        return self.first(x).mT


def frozen():
    return mlp().requires_grad_(requires_grad=False)


REFUSED = {
    "no trainable parameter": (frozen, "no trainable parameter"),
    "no parameter": (lambda: sequential(nn.Tanh()), "no trainable parameter"),
    "a tuple": (TupleOutput, "returns a tuple"),
    "a dict": (DictOutput, "returns a dict"),
    "samples last": (SamplesLast, "samples in front"),
    "bfloat16": (lambda: mlp().bfloat16(), "0.weight is torch.bfloat16"),
    "half precision": (lambda: mlp().half(), "0.weight is torch.float16"),
    "a scripted module": (lambda: torch.jit.script(mlp()), "is scripted"),
}


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_network_without_curvature_is_refused(operator, name):
    make, words = REFUSED[name]
    network = make()
    dtype = next((p.dtype for p in network.parameters()), torch.float64)
    with pytest.raises(StudyError, match=re.escape(words)):
        build(operator, network, torch.randn(5, 4).to(dtype), torch.randint(3, (5,)), class_loss)


@pytest.mark.parametrize("operator", OPERATORS)
def test_empty_batch_is_refused(operator):
    with pytest.raises(StudyError, match="the batch has no sample"):
        build(
            operator, mlp().double(), torch.randn(0, 4).double(), torch.randint(3, (0,)), class_loss
        )


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("samples", [4, 5])
def test_batch_norm_in_training_mode_is_refused_behind_an_embedding(operator, samples):
    network = Wrapped(
        lambda net, x: net.last(net.norm(net.embedding(x).mean(dim=1))),
        embedding=nn.Embedding(5, 3),
        norm=nn.BatchNorm1d(3, track_running_stats=False),
        last=nn.Linear(3, 3),
    ).double()
    network.eval()  # without running statistics, it normalizes by the batch in any mode
    x = torch.randint(5, (samples, 3))
    with pytest.raises(StudyError, match="depends on others, as with batch norm"):
        build(operator, network, x, torch.randint(3, (samples,)), class_loss)


def test_batch_norm_is_refused_if_the_first_sample_has_no_loss():
    network = sequential(nn.BatchNorm1d(4, track_running_stats=False), mlp()).double()

    def loss(z, y):
        return cross_entropy(z, y, reduction="none", ignore_index=0)

    y = torch.tensor([0, 1, 2, 1, 2])
    with pytest.raises(StudyError, match="depends on others"):
        build("fisher", network, torch.randn(5, 4).double(), y, loss)


@pytest.mark.parametrize("operator", OPERATORS)
def test_loss_that_broadcasts_samples_is_refused(operator):
    network = sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)).double()

    def loss(z, y):
        return (z - y).square().mean(dim=-1)  # (n, 1) − (n,) has shape (n, n)

    with pytest.raises(StudyError, match="shapes broadcast"):
        build(operator, network, torch.randn(5, 4).double(), torch.randn(5).double(), loss)


def test_network_that_fails_on_a_part_of_the_batch_is_refused():
    network = Wrapped(lambda net, x: net.last(x.view(6, 4)), last=nn.Linear(4, 3)).double()
    with pytest.raises(StudyError, match="fails on a half of the samples"):
        build("ggn", network, torch.randn(6, 4).double(), torch.randint(3, (6,)), class_loss)


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ({"mine": "0"}, "is the text '0': give a list"),
        ({"mine": ["0", "0"]}, "give each layer once"),
        ({"mine": []}, "at least one"),
        ({"mine": ["0", "third"]}, "'third', which is none of the trainable layers: 0, 2"),
    ],
)
def test_wrong_block_is_refused(blocks, words):
    operator = build("fisher", *create("mlp", 3))
    with pytest.raises(StudyError, match=re.escape(words)):
        operator.spectra(blocks)


@pytest.mark.parametrize("operator", OPERATORS)
def test_curvature_without_gradients_enabled_is_the_same(operator):
    arguments = create("mlp", 5)
    expected = build(operator, *arguments).spectra()
    with torch.no_grad():
        spectra = build(operator, *arguments).spectra()
        product = build(operator, *arguments).product(["0"])(torch.ones(1, 15).double())
        assert product.isfinite().all()
        assert build(operator, *arguments).gradient()["0.weight"].abs().sum() > 0
    for block, spectrum in spectra.items():
        assert spectrum.values.equal(expected[block].values)


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (torch.inference_mode, "leave it"),
        (lambda: torch.autocast("cpu"), "leave its context"),
    ],
)
def test_context_that_excludes_curvature_is_refused(context, words):
    arguments = create("mlp", 5)
    with context(), pytest.raises(StudyError, match=words):
        build("fisher", *arguments)


def test_wrong_second_derivative_of_torch_is_refused():
    torch.manual_seed(0)
    arguments = torch.randn(5, 4).double(), torch.randint(3, (5,)), class_loss
    network = weight_normed().double()
    with pytest.raises(StudyError, match="is not symmetric"):
        build("hessian", network, *arguments)
    matrices, _ = loop_over_samples(network, *arguments)
    for operator in ("fisher", "ggn", "ntk"):
        values = build(operator, network, *arguments).spectra()["all"].values
        assert_same_eigenvalues(values, matrices[operator])


class Uncopyable(nn.Module):
    """A module that deepcopy refuses."""

    def __init__(self):
        super().__init__()
        self.layers = sequential(nn.Linear(4, 60), nn.BatchNorm1d(60), nn.Tanh(), nn.Linear(60, 3))

    def __deepcopy__(self, memo):
        raise TypeError("this module cannot be copied")

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize("operator", ["ggn", "hessian", "ntk"])
def test_module_that_refuses_to_be_copied_has_estimates(operator):
    torch.manual_seed(0)
    network = Uncopyable().double().eval()
    arguments = network, torch.randn(20, 4).double(), torch.randint(3, (20,)), class_loss
    exact = build(operator, *arguments).spectra()["all"]
    effort = Quadrature(steps=12, probes=2)
    estimated = build(operator, *arguments).spectra(exact_up_to=1, estimate=effort)["all"]
    assert estimated.ends is not None
    largest = float(exact.values.max())
    assert math.isclose(float(estimated.ends.max()), largest, rel_tol=1e-4)
    assert all(parameter.dtype == torch.float64 for parameter in network.parameters())
