"""An ensemble against a plain PyTorch loop over one network; runs do not affect each other."""

import copy
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from tiers import slow_except
from torch import Tensor, nn

from plasticity.config import registry
from plasticity.config.models import Network, Optimizer, Problem, Setting, Training
from plasticity.data import shift, tasks
from plasticity.data.dataset import Images, describe
from plasticity.models import activations, architecture
from plasticity.training import recorder
from plasticity.training.learner import Learner
from plasticity.training.method import Intervention
from plasticity.training.recorder import step_weights
from plasticity.training.trainer import Trainer, train

SETTING = Setting(
    Problem("tiny", "shuffle_labels", samples=30, batch=7, epochs=10, tasks=6),
    Network("mlp", "relu", options={"width": 8, "depth": 2}),
    Optimizer("adam", options={"lr": 0.003}),
)
SHORT = replace(SETTING, problem=replace(SETTING.problem, epochs=3, tasks=4))
# rows that fill no intact number of the processor's vectors
ODD = replace(SETTING, network=replace(SETTING.network, options={"width": 11, "depth": 2}))
ARMS = {"none": [{}], "fresh": [{}]} | {
    name: [{"strength": 0.01}, {"strength": 0.3}] for name in ("l2", "l2_init", "wasserstein")
}
RECORDED = Training(curve_points=7)  # stretches of a task's 40 steps that are not all as long
BFLOAT16 = replace(RECORDED, precision="bfloat16")
NUMBERS = ["final_error", "final_loss", "online_error", "update_norm", "error_curve", "loss_curve"]


def built(data, method, arms, seeds, setting=SETTING, dtype=torch.float64, recorded=RECORDED):
    """Make a trainer of each arm with each seed."""
    runs = list(product(arms, seeds))
    return Trainer(setting, method, runs, data, recorded, torch.device("cpu"), dtype)


def trained(
    data,
    method,
    arms,
    seeds,
    setting=SETTING,
    dtype=torch.float64,
    recorded=RECORDED,
    sabotage=None,
):
    """Train all tasks.

    Returns:
        Outcomes ``(arm, seed, task …)``, and the parameters at the start of each task and at the
        end, ``(time, arm, seed, parameter)``.
    """
    trainer = built(data, method, arms, seeds, setting, dtype, recorded)
    if sabotage:
        sabotage(trainer)
    saved = {}
    train(trainer, lambda task, parameters: saved.update({task: parameters.clone()}))
    assert list(saved) == list(range(setting.problem.tasks))
    states = torch.stack([*saved.values(), trainer.learner.parameters.flat.detach()])
    outcomes = {
        name: values.unflatten(0, (len(arms), -1)).numpy()
        for name, values in trainer.recorder.outcomes.items()
    }
    return outcomes, states.unflatten(1, (len(arms), -1))


def assert_same(outcomes, others):
    """Check that all outcomes are equal to the bit."""
    assert outcomes.keys() == others.keys()
    for name, values in outcomes.items():
        np.testing.assert_array_equal(values, others[name], err_msg=name)


def penalty(method, strength, module, start):
    """Compute a penalty on one network by its definition."""
    pairs = list(zip(module.parameters(), start, strict=True))
    match method:
        case "l2":
            return strength / 2 * sum((w**2).sum() for w, _ in pairs)
        case "l2_init":
            return strength / 2 * sum(((w - w0) ** 2).sum() for w, w0 in pairs)
        case "wasserstein":
            return (
                strength
                / 2
                * sum(
                    ((w.flatten().sort().values - w0.flatten().sort().values) ** 2).sum()
                    for w, w0 in pairs
                )
            )
    return 0.0


def plain_optimizer(setting, module):
    """Make an optimizer of torch."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[
        setting.optimizer.kind
    ]
    return kind(module.parameters(), **setting.optimizer.options, fused=False, foreach=False)


def plain_network(setting, data):
    """Make one network; an mlp is written out."""
    if setting.network.kind != "mlp":
        return architecture.build_for(setting, data).double()
    activation = activations.ACTIVATIONS[setting.network.activation]
    hidden = [nn.Linear(12, 8), activation(), nn.Linear(8, 8), activation()]
    return nn.Sequential(
        nn.Flatten(), *hidden, nn.Linear(8, shift.build_shift(setting.problem).outputs(4))
    ).double()


def trained_plainly(data, method, strength, seed, setting=SETTING, points=7):
    """Train one network in a plain loop.

    Returns:
        Outcomes of each task, and the parameters at the start of each task and at the end.
    """
    problem = setting.problem
    module = plain_network(setting, data)
    regression = setting.problem.shift == "flip_bits"

    def losses_of(outputs, labels):
        return (
            (outputs[:, 0] - labels) ** 2
            if regression
            else nn.functional.cross_entropy(outputs, labels, reduction="none")
        )

    def errors_of(outputs, labels):
        return (
            losses_of(outputs, labels) if regression else (outputs.argmax(dim=1) != labels).double()
        )

    def reset(task):
        drawn = architecture.draw_initial(
            architecture.build_for(setting, data), setting.network, seed, task
        )
        with torch.no_grad():
            for parameter, value in zip(module.parameters(), drawn.values(), strict=True):
                parameter.copy_(value)
        return plain_optimizer(setting, module)

    def flat():
        return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])

    optimizer = reset(0)
    start = [parameter.detach().clone() for parameter in module.parameters()]
    outcomes, states = (
        {name: [] for name in [*NUMBERS, *["test_error"] * bool(problem.test_samples)]},
        [],
    )
    for task in range(problem.tasks):
        inputs, labels = tasks.build_task(problem, data, seed, task)
        inputs, labels = inputs.double(), labels.double() if regression else labels
        if method == "fresh":
            optimizer = reset(task)
        elif task and problem.head == "fresh":
            drawn = architecture.draw_initial(
                architecture.build_for(setting, data), setting.network, seed, task
            )
            with torch.no_grad():
                for parameter, value in zip(
                    list(module.parameters())[-2:], list(drawn.values())[-2:], strict=True
                ):
                    parameter.copy_(value)
                    for name, remembered in optimizer.state[parameter].items():
                        if name != "step":
                            remembered.zero_()
        if task and setting.optimizer.at_task_boundary == "reset":
            optimizer = plain_optimizer(setting, module)
        states.append(flat())
        errors, losses, moves = [], [], []
        for samples in torch.from_numpy(tasks.draw_batches(problem, seed, task)):
            outputs = module(inputs[samples])
            optimizer.zero_grad()
            loss = losses_of(outputs, labels[samples]).mean()
            (loss + penalty(method, strength, module, start)).backward()
            before = flat()
            optimizer.step()
            errors.append(errors_of(outputs, labels[samples]).mean().item())
            losses.append(loss.item())
            moves.append((flat() - before).norm().item())
        with torch.no_grad():
            outputs, n = module(inputs), problem.samples
        outcomes["final_error"].append(errors_of(outputs[:n], labels[:n]).mean())
        outcomes["final_loss"].append(losses_of(outputs[:n], labels[:n]).mean())
        if problem.test_samples:
            outcomes["test_error"].append(errors_of(outputs[n:], labels[n:]).mean())
        outcomes["online_error"].append(sum(errors) / len(errors))
        outcomes["update_norm"].append(np.dot(step_weights(len(moves), task), moves) / len(moves))
        ends = [len(errors) * point // points for point in range(points + 1)]
        for curve, values in (("error_curve", errors), ("loss_curve", losses)):
            outcomes[curve].append([np.mean(values[a:b]) for a, b in pairwise(ends)])
    return {name: np.array(values) for name, values in outcomes.items()}, torch.stack(
        [*states, flat()]
    )


def assert_trained_as_by_a_plain_loop(data, method, arms, setting):
    assert setting.problem.steps * setting.problem.tasks >= 200
    outcomes, states = trained(data, method, arms, [0, 3], setting)
    assert not outcomes["status"].any()
    for a, arm in enumerate(arms):
        for s, seed in enumerate([0, 3]):
            expected, expected_states = trained_plainly(
                data, method, arm.get("strength"), seed, setting
            )
            torch.testing.assert_close(states[:, a, s], expected_states, rtol=0, atol=1e-10)
            assert outcomes.keys() - {"status"} == expected.keys()
            for name in expected:  # they are float32
                np.testing.assert_allclose(
                    outcomes[name][a, s], expected[name], rtol=1.2e-7, atol=1e-10, err_msg=name
                )


@pytest.mark.parametrize(("method", "arms"), ARMS.items())
@pytest.mark.parametrize("activation", slow_except(["relu"], ["relu", "tanh"]))
def test_run_equals_plain_loop(data, method, arms, activation):
    setting = replace(SETTING, network=replace(SETTING.network, activation=activation))
    assert_trained_as_by_a_plain_loop(data, method, arms, setting)


CONVOLUTIONAL = [
    (Network("cnn", "tanh", options={"width": 6}), 16),
    (Network("resnet18", "relu", options={"width": 2}), 6),
]


@pytest.mark.parametrize(("network", "size"), slow_except([CONVOLUTIONAL[0]], CONVOLUTIONAL))
def test_convolutional_run_equals_plain_loop(network, size):
    draw = np.random.default_rng(0)
    data = describe(
        "small",
        Images(
            draw.integers(0, 10, (40, 1, size, size), np.uint8), np.arange(40) % 3, list("abc"), 9
        ),
        {},
    )
    problem = replace(SETTING.problem, tasks=5)
    setting = Setting(
        problem, network, Optimizer("adam", options={"lr": 0.001})
    )  # with larger steps rounding errors grow beyond 1e-10
    assert_trained_as_by_a_plain_loop(data, "wasserstein", [{"strength": 0.01}], setting)


WAYS = {
    "a fresh head": {"problem": {"head": "fresh"}},
    "a fresh head with momentum": {
        "problem": {"head": "fresh"},
        "optimizer": {"kind": "sgd", "options": {"lr": 0.01, "momentum": 0.9}},
    },
    "pairs of classes": {
        "problem": {
            "shift": "class_pairs",
            "samples": 16,
            "test_samples": 3,
            "epochs": 17,
            "head": "fresh",
        }
    },
    "an optimizer that is reset": {"optimizer": {"at_task_boundary": "reset"}},
    "test images": {"problem": {"shift": "permute_pixels", "test_samples": 17}},
    "a budget in steps": {
        "problem": {"shift": "remap_labels", "epochs": None, "steps_per_task": 39}
    },
    "regression": {
        "problem": {"shift": "flip_bits", "options": {"flipping": 5}, "test_samples": 5},
        "optimizer": {"options": {"lr": 0.001}},
    },
    "sgd": {"optimizer": {"kind": "sgd", "options": {"lr": 0.03}}},
    "adamw": {
        "optimizer": {
            "kind": "adamw",
            "options": {"lr": 0.003, "betas": [0.8, 0.99], "weight_decay": 0.1},
        }
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_run_equals_plain_loop_for_every_problem_and_optimizer(data, way):
    setting = replace(
        SETTING,
        **{part: replace(getattr(SETTING, part), **changed) for part, changed in WAYS[way].items()},
    )
    assert_trained_as_by_a_plain_loop(data, "l2_init", [{"strength": 0.01}], setting)


def test_errors_fall_and_outcomes_are_plausible(data):
    longer = replace(SETTING, problem=replace(SETTING.problem, epochs=120, tasks=2))
    outcomes, _ = trained(data, "none", [{}], [0], longer)
    assert (outcomes["final_error"] <= 0.1).all()
    assert (outcomes["final_error"] < outcomes["online_error"]).all()
    assert (
        (outcomes["update_norm"] > 0) & (outcomes["update_norm"] < 0.003 * 10 * np.sqrt(212))
    ).all()
    assert (np.diff(outcomes["loss_curve"]) < 0).all()


def test_outcomes_do_not_depend_on_the_evaluation_batch(data, monkeypatch):
    at_once, states = trained(data, "none", [{}], [0, 1], SHORT)
    monkeypatch.setattr(recorder, "EVALUATION_BATCH", 7)
    in_parts, states_again = trained(data, "none", [{}], [0, 1], SHORT)
    assert torch.equal(states, states_again)
    for name in NUMBERS:
        np.testing.assert_allclose(in_parts[name], at_once[name], rtol=1.2e-7, err_msg=name)


# runs do not depend on each other


@pytest.mark.parametrize(
    ("dtype", "recorded"),
    [(torch.float32, RECORDED), (torch.float64, RECORDED), (torch.float32, BFLOAT16)],
)
@pytest.mark.parametrize("method", ["none", "fresh", "wasserstein"])
def test_run_does_not_depend_on_other_seeds(data, method, dtype, recorded):
    block, block_states = trained(data, method, ARMS[method], [0, 1, 2], ODD, dtype, recorded)
    alone, alone_states = trained(data, method, ARMS[method], [2], ODD, dtype, recorded)
    assert torch.equal(block_states[:, :, 2:], alone_states)
    assert_same({name: values[:, 2:] for name, values in block.items()}, alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["l2", "l2_init", "wasserstein"])
def test_run_does_not_depend_on_other_arms(data, method, dtype):
    both, both_states = trained(data, method, ARMS[method], [0, 1], ODD, dtype)
    alone, alone_states = trained(data, method, ARMS[method][1:], [0, 1], ODD, dtype)
    assert torch.equal(both_states[:, 1:], alone_states)
    assert_same({name: values[1:] for name, values in both.items()}, alone)
    assert not np.array_equal(both["final_loss"][0], both["final_loss"][1])


def test_runs_can_be_any_arms_and_seeds_in_any_order(data):
    arms = ARMS["l2"]
    intact, states = trained(data, "l2", arms, [0, 1, 2], SHORT, torch.float32)
    some = [(arms[1], 2), (arms[0], 0), (arms[1], 0)]
    trainer = Trainer(SHORT, "l2", some, data, RECORDED, torch.device("cpu"))
    train(trainer)
    assert torch.equal(trainer.learner.parameters.flat, states[-1][[1, 0, 1], [2, 0, 0]])
    assert_same(
        {name: values.numpy() for name, values in trainer.recorder.outcomes.items()},
        {n: v[[1, 0, 1], [2, 0, 0]] for n, v in intact.items()},
    )


@pytest.mark.parametrize("method", ["l2", "l2_init", "wasserstein"])
def test_strength_zero_equals_none(data, method):
    zero, zero_states = trained(data, method, [{"strength": 0.0}], [0, 1], dtype=torch.float32)
    none, none_states = trained(data, "none", [{}], [0, 1], dtype=torch.float32)
    assert torch.equal(zero_states, none_states)
    assert_same(zero, none)


def test_ensemble_trained_twice_gives_the_same_bytes(data):
    (first, states), (second, states_again) = (
        trained(data, "wasserstein", ARMS["wasserstein"], [0, 1], dtype=torch.float32)
        for _ in range(2)
    )
    assert states.numpy().tobytes() == states_again.numpy().tobytes()
    assert {name: values.tobytes() for name, values in first.items()} == {
        name: values.tobytes() for name, values in second.items()
    }


def test_global_random_state_has_no_effect(data):
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 # it must play no part
        runs.append(trained(data, "fresh", [{}], [0])[1])
    assert torch.equal(*runs)


# precision


MANY = list(range(24))  # seeds
CHAOS = replace(
    SETTING,  # in which rounding errors grow to the size of the parameters within a task
    problem=replace(SETTING.problem, epochs=20),
    network=Network("mlp", "tanh", options={"width": 12, "depth": 6}),
    optimizer=Optimizer("adam", options={"lr": 0.05}),
)


@pytest.fixture(scope="module")
def chaos_in_float32(data):
    return trained(data, "none", [{}], MANY, CHAOS, torch.float32)


def assert_other_trajectories_with_outcomes_of_the_same_distribution(run, other):
    (found, states), (expected, other_states) = run, other
    apart = (states - other_states)[-1].norm(dim=-1) / other_states[-1].norm(dim=-1)
    assert (apart > 0.1).all()
    for name in ("final_error", "online_error", "final_loss", "update_norm"):
        differences = (found[name] - expected[name])[0].mean(
            axis=1
        )  # of each seed, mean over tasks
        assert abs(differences.mean()) < 2 * differences.std(ddof=1) / np.sqrt(len(MANY)), name
        assert ks_2samp(found[name].ravel(), expected[name].ravel()).pvalue > 0.05, name


@pytest.mark.parametrize(("method", "arms"), ARMS.items())
def test_float32_parameters_are_near_float64_after_one_task(data, method, arms):
    first = replace(SETTING, problem=replace(SETTING.problem, epochs=5, tasks=1))
    assert first.problem.steps == 20
    (_, single), (_, double) = (
        trained(data, method, arms, [0, 1, 2], first, dtype)
        for dtype in (torch.float32, torch.float64)
    )
    assert single.dtype == torch.float32
    distance = (single[1] - double[1]).norm(dim=-1) / double[1].norm(dim=-1)
    assert ((distance > 0) & (distance < 2e-6)).all()


def test_float32_outcomes_have_the_distribution_of_float64(data, chaos_in_float32):
    exact = trained(data, "none", [{}], MANY, CHAOS, torch.float64)
    assert_other_trajectories_with_outcomes_of_the_same_distribution(chaos_in_float32, exact)


def test_bfloat16_outcomes_have_the_distribution_of_float32(data, chaos_in_float32):
    lower = trained(data, "none", [{}], MANY, CHAOS, torch.float32, BFLOAT16)
    assert_other_trajectories_with_outcomes_of_the_same_distribution(lower, chaos_in_float32)


def test_bfloat16_changes_products_only(data):
    every_step = replace(BFLOAT16, curve_points=SHORT.problem.steps)
    trainer = built(data, "l2", ARMS["l2"], [0, 1], SHORT, torch.float32, every_step)
    lower, states = trained(data, "l2", ARMS["l2"], [0, 1], SHORT, torch.float32, every_step)
    single, exact = trained(data, "l2", ARMS["l2"], [0, 1], SHORT, torch.float32)
    assert {
        tensor.dtype for name, tensor in trainer.state_tensors().items() if name != "alive"
    } == {torch.float32}
    for numbers in (states[-1], torch.from_numpy(lower["loss_curve"])):
        assert (numbers.bfloat16().float() != numbers).float().mean() > 0.9
    assert torch.equal(states[0], exact[0])
    apart = (states[-1] - exact[-1]).norm(dim=-1) / exact[-1].norm(dim=-1)
    assert ((apart > 1e-5) & (apart < 1e-2)).all()
    np.testing.assert_allclose(lower["final_loss"], single["final_loss"], rtol=0.01)


def test_final_loss_is_evaluated_in_float32(data):
    at_rest = replace(SHORT, optimizer=Optimizer("adam", options={"lr": 1e-30}))  # it never moves
    lower, single = (
        trained(data, "none", [{}], [0, 1], at_rest, torch.float32, chosen)[0]
        for chosen in (BFLOAT16, RECORDED)
    )
    np.testing.assert_array_equal(lower["final_loss"], single["final_loss"])
    assert (lower["loss_curve"] != single["loss_curve"]).any()


# diverged runs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_arm_that_diverges_at_once_is_nan_and_does_not_change_others(data, dtype):
    excessive = 2 * torch.finfo(dtype).max  # overflows to inf in its dtype, if not in Python
    arms = [{"strength": excessive}, {"strength": 0.01}]
    both, both_states = trained(data, "l2", arms, [0, 1], SHORT, dtype)
    sane, sane_states = trained(data, "l2", arms[1:], [0, 1], SHORT, dtype)
    assert torch.equal(both_states[:, 1:], sane_states)
    assert_same({name: values[1:] for name, values in both.items()}, sane)
    assert (both["status"][0] == 1).all()
    assert (both["status"][1] == 0).all()
    assert all(np.isnan(both[name][0]).all() for name in NUMBERS)


@pytest.mark.parametrize("method", ["l2", "fresh"])
def test_run_that_diverges_later_keeps_earlier_outcomes_and_stays_nan(data, method):
    strengths = ARMS["l2"] if method == "l2" else [{}, {}]

    def sabotage(trainer, worst=torch.inf):
        intervention = trainer.interventions[method]
        penalty, calls = intervention.penalty, iter(range(10**6))

        def poisoned(learner):
            parameters, poison = learner.parameters, torch.zeros(4, dtype=torch.float64)
            poison[1] = (
                worst if next(calls) == 2 * SHORT.problem.steps + 5 else 0
            )  # once, within task 2
            l2 = (
                (penalty(learner).strength / 2 * parameters.flat.square().sum(dim=1))
                if method == "l2"
                else 0
            )
            return l2 + poison * parameters.flat.sum(dim=1)

        intervention.penalty = poisoned

    broken, broken_states = trained(data, method, strengths, [0, 1], SHORT, sabotage=sabotage)
    intact, whole_states = trained(
        data, method, strengths, [0, 1], SHORT, sabotage=partial(sabotage, worst=0)
    )
    assert broken["status"].reshape(4, 4).tolist() == [[0] * 4, [0, 0, 1, 1], [0] * 4, [0] * 4]
    for name in NUMBERS:
        values, expected = (
            outcomes[name].reshape(4, *outcomes[name].shape[2:]).copy()
            for outcomes in (broken, intact)
        )
        expected[1, 2:] = np.nan
        np.testing.assert_array_equal(values, expected, err_msg=name)
    states, expected = broken_states.flatten(1, 2), whole_states.flatten(1, 2)
    assert states[3:, 1].isnan().all()
    assert torch.equal(states[:3], expected[:3])
    assert torch.equal(states[:, [0, 2, 3]], expected[:, [0, 2, 3]])


@pytest.mark.parametrize(("dtype", "status"), [(torch.float32, 1), (torch.float64, 0)])
def test_overflow_of_optimizer_state_is_divergence(data, dtype, status):
    arms = [
        {"strength": 1e30},
        {"strength": 0.01},
    ]  # the square of such a gradient is beyond float32 and not beyond float64
    outcomes, states = trained(data, "l2", arms, [0, 1], SHORT, dtype)
    assert (outcomes["status"][0] == status).all()
    assert (outcomes["status"][1] == 0).all()
    assert (np.isnan(outcomes["final_loss"][0]) == status).all()
    assert states[1:, 0].isnan().all() == status
    assert states[:, 1].isfinite().all()


# update norms are estimated from some steps


@pytest.mark.parametrize("method", ["none", "fresh", "l2_init"])
def test_estimated_update_norm_is_near_the_exact_one(data, monkeypatch, method):
    longer = replace(SETTING, problem=replace(SETTING.problem, epochs=125, tasks=2))
    arms = ARMS[method][:1]
    estimated, states = trained(data, method, arms, [0, 1], longer, torch.float32)
    monkeypatch.setattr(recorder, "step_weights", lambda steps, task: np.ones(steps, int))
    exact, exact_states = trained(data, method, arms, [0, 1], longer, torch.float32)
    assert torch.equal(states, exact_states)
    estimate = estimated.pop("update_norm")
    assert (estimate != exact["update_norm"]).any()
    np.testing.assert_allclose(estimate, exact.pop("update_norm"), rtol=0.02)
    assert_same(estimated, exact)


# restored runs


@dataclass
class PullToMean(Intervention):
    """Pulls parameters toward their mean at the starts of all tasks so far, which is its state."""

    strength: Tensor

    def setup(self, learner: Learner) -> None:
        self.mean, self.starts = (
            torch.zeros_like(learner.parameters.flat),
            torch.zeros(len(learner.parameters.flat), 1),
        )

    def state(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "starts": self.starts}

    def penalty(self, learner: Learner) -> Tensor:
        return self.strength / 2 * (learner.parameters.flat - self.mean).square().sum(dim=1)

    def on_task_start(self, learner: Learner) -> None:
        self.starts += 1
        self.mean += (learner.parameters.flat - self.mean) / self.starts


@pytest.mark.parametrize("method", [*ARMS, "pull_to_mean"])
def test_restored_run_equals_uninterrupted_run(data, monkeypatch, method):
    load = registry.load
    monkeypatch.setattr(
        registry,
        "load",
        lambda kind, name: (
            SimpleNamespace(Method=PullToMean) if name == "pull_to_mean" else load(kind, name)
        ),
    )
    arms = ARMS.get(method, [{"strength": 0.01}, {"strength": 1e30}])  # one of them diverges
    trainer, states_of_tasks, saved = (
        built(data, method, arms, [0, 1], SHORT, torch.float32),
        [],
        {},
    )
    train(
        trainer,
        lambda task, parameters: saved.update({task: parameters.clone()}),
        lambda state: states_of_tasks.append(copy.deepcopy(state)),
    )
    assert [int(state["task"]) for state in states_of_tasks] == [1, 2, 3, 4]
    for state in states_of_tasks:
        restored, rest = built(data, method, arms, [0, 1], SHORT, torch.float32), {}
        restored.restore(state)
        train(restored, lambda task, parameters, rest=rest: rest.update({task: parameters.clone()}))
        assert list(rest) == list(range(int(state["task"]), 4))
        for task, parameters in rest.items():
            torch.testing.assert_close(parameters, saved[task], rtol=0, atol=0, equal_nan=True)
        assert_same(
            {n: v.numpy() for n, v in restored.recorder.outcomes.items()},
            {n: v.numpy() for n, v in trainer.recorder.outcomes.items()},
        )
        assert {name: values.tobytes() for name, values in restored.state().items()} == {
            name: values.tobytes() for name, values in states_of_tasks[-1].items()
        }


def test_saved_state_can_be_restored_from_a_file(data, tmp_path):
    trainer = built(data, "l2", ARMS["l2"], [0], SHORT, torch.float32)
    trainer.on_task_start()
    trainer.learn()
    np.savez(tmp_path / "state.npz", allow_pickle=False, **trainer.state())
    restored = built(data, "l2", ARMS["l2"], [0], SHORT, torch.float32)
    with np.load(tmp_path / "state.npz") as state:
        restored.restore(state)
    for one in (trainer, restored):
        train(one)
    assert torch.equal(trainer.learner.parameters.flat, restored.learner.parameters.flat)


def test_checkpoints_are_taken_at_the_start_of_every_task(data):
    module = architecture.build(SHORT.network, (2, 2, 3), 4)
    for method, arms in ARMS.items():
        _, states = trained(data, method, arms, [0, 1], SHORT)
        for task in range(SHORT.problem.tasks if method == "fresh" else 1):
            for s, seed in enumerate([0, 1]):
                drawn = torch.cat(
                    [
                        value.flatten()
                        for value in architecture.draw_initial(
                            module, SHORT.network, seed, task
                        ).values()
                    ]
                )
                for a in range(len(arms)):
                    assert torch.equal(states[task, a, s], drawn)
        assert all(
            not torch.equal(states[task], states[task + 1]) for task in range(SHORT.problem.tasks)
        )


def test_outcomes_of_untrained_tasks_are_nan(data):
    trainer = built(data, "none", [{}], [0, 1], SHORT)
    trainer.on_task_start()
    trainer.learn()
    assert trainer.learner.task == 1
    for name, values in trainer.recorder.outcomes.items():
        assert values[:, 0].isfinite().all(), name
        assert values[:, 1:].isnan().all(), name


def test_progress_wraps_the_loop_over_remaining_tasks(data):
    seen = []

    def progress(rounds):
        for task in rounds:
            seen.append(task)
            yield task

    trainer = built(data, "none", [{}], [0], SHORT)
    trainer.on_task_start()
    trainer.learn()
    train(trainer, progress=progress)
    assert seen == [1, 2, 3]
