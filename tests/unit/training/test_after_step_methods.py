"""Methods that change parameters after a step or at a task boundary, against plain definitions."""

import math

import numpy as np
import pytest
import torch
from ensembles import (
    ARMS,
    CNN,
    DEVIATIONS,
    SETTING,
    arrays_of,
    changed,
    deviation,
    images,
    record_steps,
    train_all,
)
from scipy import stats

NORMED = changed(network={"options": {"width": 8, "depth": 2, "norm": "layer"}})
CONVOLUTIONS = changed(
    CNN, problem={"tasks": 2, "epochs": 1}, network={"options": {"width": 6, "norm": "batch"}}
)
SETTINGS = {"mlp": (NORMED, 6), "cnn": (CONVOLUTIONS, 16)}
GAIN = math.sqrt(2)  # of relu


def drawn(kind, method, **kwargs):
    setting, size = SETTINGS[kind]
    setting = changed(setting, **kwargs.pop("changes", {}))
    return record_steps(images(size), method, ARMS[method], [0, 3], setting, **kwargs)


def arm_of(method, run):
    """Runs are arms × two seeds."""
    return ARMS[method][run // 2]


def assert_close(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, err_msg=name, **tolerance)


@pytest.mark.parametrize("kind", SETTINGS)
def test_weight_decay_shrinks_all_but_norms_by_lr_times_strength(kind):
    _, steps, _ = drawn(kind, "weight_decay")
    for step in steps:
        for run in range(4):
            factor = 1 - 0.01 * arm_of("weight_decay", run)["strength"]
            expected = {
                name: w if "norm" in name else w * factor
                for name, w in arrays_of(step.stepped, run).items()
            }
            assert_close(arrays_of(step.after, run), expected, rtol=1e-14)
        assert all(
            torch.equal(step.means[mean][name], w)
            for mean, tensors in step.stepped_means.items()
            for name, w in tensors.items()
        )


def test_weight_decay_factor_is_never_negative():
    _, steps, _ = record_steps(
        images(6), "weight_decay", [{"strength": strength} for strength in (100, 150)], [0], NORMED
    )
    assert not any(
        values.any() for step in steps for name, values in step.after.items() if "norm" not in name
    )


@pytest.mark.parametrize("initialization", DEVIATIONS)
@pytest.mark.parametrize("kind", SETTINGS)
def test_weight_clipping_clips_each_layer_to_its_bound(kind, initialization):
    _, steps, _ = drawn(
        kind, "weight_clipping", changes={"network": {"initialization": initialization}}
    )
    clipped = 0
    for step in steps:
        for run in range(4):
            tensors = arrays_of(step.stepped, run)
            expected = dict(tensors)
            for name in tensors:
                layer = name.split(".")[0]
                if "norm" not in layer:
                    weight = tensors[f"{layer}.weight"]
                    scale = math.sqrt(3) * deviation(
                        initialization, weight.shape, 1 if layer == "output" else GAIN
                    )
                    if initialization == "pytorch":
                        assert scale == pytest.approx(
                            1 / math.sqrt(weight[0].size)
                        )  # the bound of that distribution
                    bound = arm_of("weight_clipping", run)["bound"] * scale
                    expected[name] = np.minimum(np.maximum(tensors[name], -bound), bound)
                    clipped += (expected[name] != tensors[name]).sum()
            assert_close(arrays_of(step.after, run), expected, rtol=1e-13)
    assert clipped > 100


@pytest.mark.parametrize("kind", SETTINGS)
def test_hare_tortoise_equals_its_definition(kind):
    _, steps, starts = drawn(kind, "hare_tortoise")
    for run in range(4):
        arm = arm_of("hare_tortoise", run)
        slow = arrays_of(starts[0][0], run)
        returns = 0
        for count, step in enumerate(steps, 1):
            hare = arrays_of(step.stepped, run)
            slow = {
                name: arm["momentum"] * slow[name] + (1 - arm["momentum"]) * hare[name]
                for name in hare
            }
            back = count % arm["period"] == 0
            returns += back
            assert_close(arrays_of(step.after, run), slow if back else hare, rtol=1e-9, atol=1e-12)
            found = torch.cat([torch.from_numpy(values).flatten() for values in slow.values()])
            torch.testing.assert_close(step.state["slow"][run], found, rtol=1e-9, atol=1e-12)
        assert returns == len(steps) // arm["period"]
    assert all(
        torch.equal(step.means["first"][name], w)
        for step in steps
        for name, w in step.stepped_means["first"].items()
    )


@pytest.mark.parametrize("initialization", DEVIATIONS)
@pytest.mark.parametrize("kind", SETTINGS)
def test_shrink_perturb_noise_has_initial_deviation_and_norms_do_not_change(kind, initialization):
    _, steps, _ = drawn(
        kind, "shrink_perturb", changes={"network": {"initialization": initialization}}
    )
    noise = {}
    for run in range(4):
        arm = arm_of("shrink_perturb", run)
        for name in steps[0].after:
            moved = [
                (step.after[name][run] - (1 - arm["shrink"]) * step.stepped[name][run])
                / arm["perturb"]
                for step in steps
            ]
            noise[name, run] = torch.stack(moved)
    for name in steps[0].after:
        layer = name.split(".")[0]
        if "norm" in layer:
            assert all(torch.equal(step.after[name], step.stepped[name]) for step in steps)
            continue
        one, other, again, _ = (noise[name, run] for run in range(4))
        torch.testing.assert_close(one, again, rtol=0, atol=1e-9)  # another arm of the same seed
        if name.endswith("bias") and initialization != "pytorch":
            assert one.abs().max() < 1e-9
            continue
        assert torch.isclose(one, other).double().mean() < 1e-2
        expected = deviation(
            initialization,
            steps[0].after[f"{layer}.weight"].shape[1:],
            1 if layer == "output" else GAIN,
        )
        values = torch.cat([one.flatten(), other.flatten()]).numpy() / expected
        assert abs(values.std() - 1) < 4 / math.sqrt(values.size)
        assert abs(values.mean()) < 4 / math.sqrt(values.size)
        assert len(np.unique(values.round(9))) > 0.99 * values.size  # another draw at each step
        distribution = (
            stats.uniform(-math.sqrt(3), 2 * math.sqrt(3))
            if initialization in ("he_uniform", "pytorch")
            else stats.norm()
        )
        assert stats.kstest(values[:20000], distribution.cdf).pvalue > 1e-3


@pytest.mark.parametrize("kind", SETTINGS)
def test_shrink_perturb_switch_mixes_in_a_new_network_and_keeps_norms_and_means(
    kind,
):
    _, steps, starts = drawn(kind, "shrink_perturb_switch")
    new = {}
    for task in range(1, len(starts)):
        last = [step for step in steps if step.task == task - 1][-1]
        started, means = starts[task]
        for name, ended in last.after.items():
            assert all(torch.equal(means[mean][name], last.means[mean][name]) for mean in means)
            for run in range(4):
                arm = arm_of("shrink_perturb_switch", run)
                new[task, run, name] = (
                    started[name][run] - (1 - arm["shrink"]) * ended[run]
                ) / arm["perturb"]
            if "norm" in name:
                assert torch.equal(started[name], ended)
            elif name.endswith("bias"):
                assert max(new[task, run, name].abs().max() for run in range(4)) < 1e-9
            else:
                torch.testing.assert_close(
                    new[task, 0, name], new[task, 2, name], rtol=0, atol=1e-9
                )  # another arm of the same seed
                values = torch.cat([new[task, run, name].flatten() for run in range(2)])
                expected = deviation("he", ended.shape[1:], 1 if "output" in name else GAIN)
                assert stats.kstest(values.numpy() / expected, "norm").pvalue > 1e-3
                assert len(values.unique()) == len(values)
        assert all(
            torch.equal(step.after[name], step.stepped[name])
            for step in steps
            for name in step.after
        )
    firsts = [
        values.flatten()[0].item()
        for (_, run, name), values in new.items()
        if run < 2 and name.endswith("1.weight") and "norm" not in name
    ]
    assert len(set(firsts)) == len(firsts)  # each task and seed has its own
    assert all(torch.equal(starts[0][0][name][0], starts[0][0][name][2]) for name in starts[0][0])


def assert_same_training(one, other):
    (runs, states), (others, other_states) = one, other
    assert torch.equal(states, other_states)
    assert all(
        torch.equal(values, others.recorder.outcomes[name])
        for name, values in runs.recorder.outcomes.items()
    )


@pytest.mark.parametrize(
    "optimizer",
    [
        {"kind": "sgd", "options": {"lr": 0.05, "momentum": 0.9}},
        {"kind": "adam", "options": {"lr": 0.01}},
    ],
)
def test_full_reset_of_period_one_equals_fresh(data, optimizer):
    setting = changed(SETTING, optimizer=optimizer)
    resets, fresh = (
        train_all(data, method, arms, [0, 1], setting, torch.float32)
        for method, arms in (("full_reset", [{"period": 1}]), ("fresh", [{}]))
    )
    assert_same_training(resets, fresh)


def test_full_reset_acts_every_period_and_clears_only_its_own_run(data):
    setting = changed(problem={"tasks": 6})
    arms = [{"period": 2}, {"period": 3}, {"period": 0}]
    resets, states = train_all(data, "full_reset", arms, [0], setting)
    _, fresh = train_all(data, "fresh", [{}], [0], setting)
    redrawn = [
        [torch.equal(states[task, run], fresh[task, 0]) for task in range(6)] for run in range(3)
    ]
    assert redrawn == [
        [True, False, True, False, True, False],
        [True, False, False, True, False, False],
        [True] + [False] * 5,
    ]
    assert resets.learner.optimizer.steps.tolist() == [
        since * setting.problem.steps for since in (2, 3, 6)
    ]
    _, steps, starts = record_steps(data, "full_reset", arms, [0], setting)
    for task in range(1, 6):
        ended = [step for step in steps if step.task == task - 1][-1].means["second"]
        for run, arm in enumerate(arms):
            due = arm["period"] and task % arm["period"] == 0
            for name, mean in starts[task][1]["second"].items():
                assert torch.equal(mean[run], 0 * mean[run] if due else ended[name][run])


@pytest.mark.parametrize(
    "optimizer", [{}, {"kind": "sgd", "options": {"lr": 0.05, "momentum": 0.9}}]
)
def test_last_layer_reset_equals_fresh_head(data, optimizer):
    setting = changed(optimizer=optimizer)
    method = train_all(data, "last_layer_reset", [{}], [0, 1], setting, torch.float32)
    head = train_all(
        data, "none", [{}], [0, 1], changed(setting, problem={"head": "fresh"}), torch.float32
    )
    assert_same_training(method, head)
    assert not torch.equal(
        method[1], train_all(data, "none", [{}], [0, 1], setting, torch.float32)[1]
    )
