"""Quadratic penalties and their gradients against plain definitions, and how methods are built."""

import dataclasses

import pytest
import torch

from plasticity.config import registry
from plasticity.config.models import Network, Optimizer, Problem, Setting
from plasticity.errors import StudyError
from plasticity.models import architecture
from plasticity.models.ensemble import make_deterministic
from plasticity.training.learner import Learner
from plasticity.training.method import Intervention, build
from plasticity.training.methods.wasserstein import argsort

SETTING = Setting(
    Problem("tiny", "shuffle_labels", samples=20, batch=5, epochs=1, tasks=3),
    Network("mlp", "relu", options={"width": 3, "depth": 1}),
    Optimizer("adam", options={"lr": 0.1}),
)
SIZES = [
    12,
    3,
    6,
    2,
]  # of the two layers' weights and biases: four inputs, three hidden units, two outputs
SIZE = sum(SIZES)
STRENGTHS = torch.tensor([0.5, 0.0, 2.0, 0.1], dtype=torch.float64)


def learner_of(values=None, dtype=torch.float64, runs=4):
    """Runs of four seeds, as they begin, or with the given parameters."""
    network = architecture.build(SETTING.network, (1, 2, 2), 2)
    learner = Learner(SETTING, range(runs), network, (1, 2, 2), torch.device("cpu"), dtype)
    if values is not None:
        with torch.no_grad():
            learner.parameters.flat.copy_(values)
    return learner


def drawn(method):
    """A method new_trainer at one set of parameters, and the same parameters moved on since."""
    torch.manual_seed(0)
    initial = torch.randn(4, SIZE).double()
    learner = learner_of(initial)
    needed = [name for name, field in registry.fields("methods", method).items() if field.required]
    arms = [dict.fromkeys(needed, strength) for strength in STRENGTHS.tolist()]
    intervention = build(method, arms, learner)[method]
    with torch.no_grad():
        learner.parameters.flat += torch.randn(4, SIZE).double()
    return intervention, learner, initial


def plain(method, strength, values, initial):
    """A run's penalty, by its definition."""
    total = 0.0
    for part, start in zip(values.split(SIZES), initial.split(SIZES), strict=True):
        match method:
            case "l2":
                total = total + strength / 2 * sum(w**2 for w in part)
            case "l2_init":
                total = total + strength / 2 * sum(
                    (w - w0) ** 2 for w, w0 in zip(part, start, strict=True)
                )
            case "wasserstein":
                pairs = zip(
                    sorted(part, key=torch.Tensor.item),
                    sorted(start, key=torch.Tensor.item),
                    strict=True,
                )
                total = total + strength / 2 * sum((w - w0) ** 2 for w, w0 in pairs)
    return total


def value(intervention, learner):
    """Of a penalty that pulls."""
    penalty = intervention.penalty(learner)
    target = 0 if penalty.target is None else penalty.target
    return penalty.strength / 2 * (learner.parameters.flat.detach() - target).square().sum(dim=1)


@pytest.mark.parametrize("method", ["none", "fresh"])
def test_methods_without_a_penalty_return_none(method):
    intervention, learner, _ = drawn(method)
    assert intervention.penalty(learner) is None


@pytest.mark.parametrize("method", ["l2", "l2_init", "wasserstein"])
def test_penalties_and_gradients_equal_their_definitions(method):
    intervention, learner, initial = drawn(method)
    parameters, penalty = learner.parameters, value(intervention, learner)
    assert penalty.shape == (4,)
    losses = 0 * parameters.tensors["output.bias"]
    gradients = parameters.gradient(lambda: (losses, [intervention.penalty(learner)]))
    for run in range(4):
        values = parameters.flat.detach()[run].clone().requires_grad_()
        expected = plain(method, STRENGTHS[run], values, initial[run])
        assert penalty[run].item() == pytest.approx(expected.item(), rel=1e-12)
        (gradient,) = torch.autograd.grad(expected, values)
        torch.testing.assert_close(gradients[run], gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", ["none", "l2", "l2_init", "wasserstein"])
def test_penalty_methods_change_nothing_at_task_start(method):
    intervention, learner, _ = drawn(method)
    stepped(learner)
    before = learner.parameters.flat.detach().clone()
    with torch.no_grad():
        intervention.on_task_start(learner)
    assert torch.equal(learner.parameters.flat, before)
    assert (learner.optimizer.steps == 1).all()
    assert learner.optimizer.means["first"][:, :SIZE].all()


def test_fresh_draws_parameters_in_place_and_resets_the_optimizer():
    intervention, learner, _ = drawn("fresh")
    stepped(learner)
    learner.task = 2
    with torch.no_grad():
        intervention.on_task_start(learner)
    for run in range(4):
        expected = architecture.draw_initial(learner.network, SETTING.network, seed=run, task=2)
        for name, values in expected.items():
            assert torch.equal(learner.parameters.tensors[name][run], values)
    assert (learner.optimizer.steps == 0).all()
    assert not learner.optimizer.means["first"].any()
    assert not learner.optimizer.means["second"].any()


def stepped(learner):
    """One step of the optimizer, so that it has something to remember."""
    learner.optimizer.step(learner.parameters.padded, torch.ones_like(learner.parameters.padded))


def at(method, values):
    """A method's penalty with its initial parameters changed into ``values(initial)``."""
    torch.manual_seed(1)
    initial = torch.randn(4, SIZE).double()
    learner = learner_of(initial)
    intervention = build(
        method, [{"strength": strength} for strength in STRENGTHS.tolist()], learner
    )[method]
    with torch.no_grad():
        learner.parameters.flat.copy_(values(initial))
    return value(intervention, learner)


@pytest.mark.parametrize("method", ["l2_init", "wasserstein"])
def test_penalties_toward_initial_parameters_are_zero_there(method):
    assert not at(method, lambda initial: initial).any()


def test_wasserstein_ignores_permutations_within_a_tensor_only():
    inside = torch.cat(
        [torch.randperm(12), 12 + torch.randperm(3), 15 + torch.randperm(6), 21 + torch.randperm(2)]
    )
    assert not at("wasserstein", lambda initial: initial[:, inside]).any()
    assert (at("wasserstein", lambda initial: initial.flip(1)) > 0).tolist() == [
        True,
        False,
        True,
        True,
    ]
    assert (at("l2_init", lambda initial: initial[:, inside]) > 0).tolist() == [
        True,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wasserstein_pairs_by_rank_for_extreme_numbers(dtype):
    draw = torch.Generator().manual_seed(3)
    initial = torch.randn(3, SIZE, generator=draw, dtype=dtype)
    odd = torch.tensor(
        [0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, 3e38, -3e38, 1.0, -1.0, 1 + 2**-23, -1 - 2**-23],
        dtype=dtype,
    )
    learner = learner_of(initial, dtype, runs=3)
    parameters = learner.parameters
    intervention = build("wasserstein", [{"strength": 1.0}] * 3, learner)["wasserstein"]
    with torch.no_grad():
        parameters.flat[:, :12] = torch.stack(
            [odd[torch.randperm(12, generator=draw)] for _ in range(3)]
        )
    target = intervention.penalty(learner).target
    for run in range(3):
        for part in (slice(0, 12), slice(12, 15), slice(15, 21), slice(21, 23)):
            now, partner = parameters.flat.detach()[run, part], target[run, part]
            assert torch.equal(partner.sort().values, initial[run, part].sort().values)
            apart = now[:, None] < now
            assert (partner[:, None] <= partner)[apart].all()


@pytest.fixture
def settled():
    """Numbers as a job has them."""
    threads = torch.get_num_threads()
    make_deterministic()
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("zeros", [1.0, 0.5])
@pytest.mark.parametrize("size", [2, 10, 64, 128, 129, 1000])
@pytest.mark.usefixtures("settled")
def test_argsort_of_zeros_is_right_where_denormal_numbers_are_flushed(size, zeros):
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(3, size, generator=draw).where(
        torch.rand(3, size, generator=draw) >= zeros, 0
    )
    values[1] *= -1  # among them −0
    found = argsort(values, torch.empty_like(values, dtype=torch.float64))
    assert torch.equal(found, values.argsort(dim=1, stable=True))


@pytest.mark.usefixtures("settled")
def test_wasserstein_gives_each_zero_weight_its_own_target():
    initial = torch.randn(3, SIZE, generator=torch.Generator().manual_seed(3))
    learner = learner_of(initial, torch.float32, runs=3)
    intervention = build("wasserstein", [{"strength": 1.0}] * 3, learner)["wasserstein"]
    with torch.no_grad():
        learner.parameters.flat.zero_()
    target = intervention.penalty(learner).target
    for part in (slice(0, 12), slice(12, 15), slice(15, 21), slice(21, 23)):
        assert torch.equal(target[:, part], initial[:, part].sort(dim=1).values)


def test_wasserstein_of_a_constant_shift_is_half_strength_times_square():
    shifted = at("wasserstein", lambda initial: initial + 0.7)
    torch.testing.assert_close(shifted, STRENGTHS / 2 * 0.7**2 * SIZE, rtol=1e-12, atol=0)


def test_wasserstein_is_at_most_l2_init():
    for seed in range(10, 15):
        noise = torch.randn(4, SIZE, generator=torch.Generator().manual_seed(seed)).double()
        rank, index = (
            at(method, lambda initial, noise=noise: initial + noise)
            for method in ("wasserstein", "l2_init")
        )
        assert (rank[STRENGTHS > 0] < index[STRENGTHS > 0]).all()


@pytest.mark.parametrize("method", registry.names("methods"))
def test_fields_of_a_method_are_its_hyperparameters(method):
    kind = registry.load("methods", method).Method
    assert issubclass(kind, Intervention)
    needed = {
        field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(kind)
    }
    assert {
        name: field.required for name, field in registry.fields("methods", method).items()
    } == needed


def built_with(monkeypatch, types, arms):
    """A method `mine` whose fields are of these types."""
    learner, kind = (
        learner_of(runs=len(arms)),
        dataclasses.make_dataclass(
            "Method", types, bases=(Intervention,), namespace={"__module__": __name__}
        ),
    )
    monkeypatch.setattr(registry, "build", lambda folder, name, options: kind(**options))
    return build("mine", arms, learner)["mine"]


@pytest.mark.parametrize("kind", [torch.Tensor, "torch.Tensor"])
def test_field_type_may_be_a_string(monkeypatch, kind):
    built = built_with(
        monkeypatch,
        [("rate", kind), ("mode", str)],
        [{"rate": rate, "mode": "a"} for rate in (0.5, 2)],
    )
    assert built.rate.tolist() == [0.5, 2]
    assert built.mode == "a"


@pytest.mark.parametrize("kind", [float, bool, torch.Tensor | None])
def test_field_of_another_type_is_refused(monkeypatch, kind):
    with pytest.raises(
        StudyError,
        match=r"^methods/mine\.py: the type of the field rate is neither Tensor nor str; annotate",
    ):
        built_with(monkeypatch, [("rate", kind)], [{"rate": 0.5}])
