"""Intervention experiments: an untreated copy repeats its run, a treated one does as it says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ensembles import ARMS, CNN, COMPOSED, SETTING, changed, images, with_network_of
from experiments import CURVATURE, SEEDS, SHRUNK, UNTREATED, run, runs_of, train

from plasticity.config.models import Network, Optimizer
from plasticity.curvature import measure
from plasticity.errors import StudyError
from plasticity.interventions import experiment, variables
from plasticity.interventions.experiment import Treatment
from plasticity.training import memory
from plasticity.training.trainer import Trainer

NETWORKS = {
    "mlp": SETTING,
    "cnn": CNN,
    "vit": replace(
        SETTING,
        network=Network("vit", "gelu", options={"width": 8, "depth": 1, "patch": 4, "heads": 2}),
    ),
}
OPTIMIZERS = {
    "adam": Optimizer("adam", options={"lr": 0.01}),
    "adam reset at boundaries": Optimizer("adam", "reset", options={"lr": 0.01}),
    "adamw": Optimizer("adamw", options={"lr": 0.01, "weight_decay": 0.1}),
    "sgd": Optimizer("sgd", options={"lr": 0.05}),
    "sgd with momentum": Optimizer("sgd", options={"lr": 0.05, "momentum": 0.9}),
}
METHODS = [name for name in {**ARMS, **COMPOSED} if not name.startswith("fresh")]
PERTURBED = Treatment("perturb(strength=1)", "perturb", 1.0, "restoring")
FRESH = Treatment("fresh", "fresh", None, "control")
CLEARED = Treatment("reset_optimizer", "reset_optimizer", None, "control")
OUTCOMES = ["final_error", "final_loss", "online_error", "update_norm"]


@pytest.fixture(scope="module")
def small():
    """Return 40 images of 16 × 16 pixels."""
    return images(16)


def assert_untreated_copies_repeat_their_runs(trained, arrays, tasks):
    for name in OUTCOMES:
        of_runs = trained[2][name].sel(task=list(tasks)).values
        assert np.isfinite(of_runs).all()
        assert np.array_equal(arrays[name][..., 0], of_runs), name


# An untreated copy


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_untreated_copy_repeats_its_run_to_the_bit(tmp_path, small, network, optimizer):
    setting = replace(NETWORKS[network], optimizer=OPTIMIZERS[optimizer])
    trained = train(tmp_path, small, setting=setting, tasks=(1, 2))
    arrays, _ = run(tmp_path, trained, small, [UNTREATED, SHRUNK], tasks=(1, 2))
    assert_untreated_copies_repeat_their_runs(trained, arrays, (1, 2))


@pytest.mark.parametrize("method", METHODS)
def test_untreated_copy_repeats_a_run_of_every_method(tmp_path, small, method):
    trained = train(tmp_path, small, method)
    arrays, _ = run(tmp_path, trained, small, [UNTREATED, SHRUNK])
    assert_untreated_copies_repeat_their_runs(trained, arrays, (1,))


def test_untreated_copy_repeats_a_run_with_a_fresh_head(tmp_path, small):
    trained = train(tmp_path, small, setting=changed(problem={"head": "fresh", "test_samples": 5}))
    arrays, _ = run(tmp_path, trained, small, [UNTREATED])
    assert_untreated_copies_repeat_their_runs(trained, arrays, (1,))
    assert np.array_equal(arrays["test_error"][..., 0], trained[2]["test_error"].sel(task=[1]))


# Treated copies


def continue_one(trained, data, run_index, change):
    """Train one run through task 0, change it at the start of task 1, and learn that task."""
    setting = with_network_of(SETTING, "none")
    trainer = Trainer(setting, "none", [runs_of(trained)[run_index]], data)
    trainer.on_task_start()
    trainer.learn()
    trainer.on_task_start()
    with torch.no_grad():
        change(trainer)
    parameters = trainer.learner.parameters.flat.detach().double().clone()
    trainer.learn()
    return trainer, parameters


def halve(trainer):
    trainer.learner.parameters.flat.mul_(0.5)


def test_treated_copy_is_a_run_whose_parameters_are_changed_by_hand(tmp_path, small):
    trained = train(tmp_path, small)
    arrays, coordinates = run(tmp_path, trained, small, [UNTREATED, SHRUNK])
    for index in range(len(runs_of(trained))):
        arm, seed = divmod(index, len(SEEDS))
        trainer, parameters = continue_one(trained, small, index, halve)
        for name in OUTCOMES:
            assert arrays[name][arm, seed, 0, 1] == trainer.recorder.outcomes[name][0, 1], name
        norm = arrays["weight_norm"][arm, seed, 0, 1, coordinates["block"].index("all")]
        assert norm == pytest.approx(float(parameters.norm()), rel=1e-12)


class OneRun:
    """A source of measures: one run at one task."""

    def __init__(self, trainer, parameters, seed):
        self.arms, self.seeds, self.tasks = ["none"], [seed], [1]
        self.shapes = dict(trainer.learner.parameters.shapes)
        self._parameters = parameters

    def at(self, task):
        return self._parameters


def test_copies_are_measured_before_they_learn(tmp_path, small):
    trained = train(tmp_path, small)
    arrays, _ = run(tmp_path, trained, small, [UNTREATED, SHRUNK])
    for index, (_, seed) in enumerate(runs_of(trained)):
        trainer, parameters = continue_one(trained, small, index, halve)
        source = OneRun(trainer, parameters, seed)
        expected, _ = measure.measure(source, SETTING, CURVATURE, small)
        arm, position = divmod(index, len(SEEDS))
        for name in ("fisher_effective_rank", "feature_rank", "gradient_strength"):
            of_copy = arrays[name][arm, position, 0, 1]
            np.testing.assert_allclose(of_copy, expected[name][0, 0, 0, 0], rtol=1e-9)


@pytest.mark.parametrize("method", ["none", "redo"])
def test_parts_do_not_change_results(tmp_path, small, method):
    trained = train(tmp_path, small, method)
    treatments = [UNTREATED, SHRUNK, FRESH]
    whole, _ = run(tmp_path, trained, small, treatments)
    per_copy = memory.per_run(SETTING, small)
    for copies in (1, 2, 4):
        limit = memory.BASE + small.nbytes + copies * per_copy
        parts, _ = run(tmp_path, trained, small, treatments, memory_limit=limit)
        for name, array in whole.items():
            assert np.array_equal(parts[name], array, equal_nan=True), (name, copies)


def test_another_treatment_changes_no_copy(tmp_path, small):
    trained = train(tmp_path, small)
    few, _ = run(tmp_path / "few", trained, small, [UNTREATED, SHRUNK])
    more, _ = run(tmp_path / "more", trained, small, [UNTREATED, PERTURBED, FRESH, SHRUNK])
    for name in OUTCOMES:
        assert np.array_equal(few[name], more[name][..., [0, 3]]), name


def test_order_of_copies_follows_arms_seeds_tasks_and_treatments(tmp_path, small):
    trained = train(tmp_path, small, tasks=(1, 2))
    arrays, coordinates = run(tmp_path, trained, small, [UNTREATED, SHRUNK], tasks=(1, 2))
    assert coordinates["treatment"] == ["none", "shrink(strength=0.5)"]
    assert coordinates["task"] == [1, 2]
    for task in (1, 2):
        rows = trained[0].at(task)
        norms = rows.norm(dim=1).reshape(2, 2).numpy()
        of_copies = arrays["weight_norm"][:, :, task - 1, :, coordinates["block"].index("all")]
        np.testing.assert_allclose(of_copies[..., 0], norms, rtol=1e-6)
        np.testing.assert_allclose(of_copies[..., 1], norms / 2, rtol=1e-6)
    assert arrays["treatment_family"].tolist() == [0, 1]
    np.testing.assert_array_equal(arrays["treatment_strength"], [np.nan, 0.5])


# The optimizer's state


def means_after_treatment(monkeypatch, tmp_path, data, treatment, state):
    """Return the optimizer's means after a treatment, and whether the parameters changed."""
    module = treatment.module
    monkeypatch.setattr(module, "OPTIMIZER_STATE", state)
    trained = train(tmp_path, data)
    stored, settings, _ = trained
    task_one = experiment.Experiment(stored, settings, [treatment], CURVATURE, data)
    part = experiment.Part(1, 0, range(1))
    trainer, initial = task_one._continue_runs(part, range(1))
    before = trainer.learner.parameters.flat.detach().clone()
    experiment._treat_copies(trainer, initial, [treatment], trainer.recorder.alive)
    width = before.shape[1]
    mean = trainer.learner.optimizer.means["first"][:, :width]
    return mean, trainer.learner.parameters.flat.detach() != before, trainer.learner.optimizer.steps


def test_state_is_kept_or_cleared_as_the_treatment_declares(monkeypatch, tmp_path, small):
    halved = Treatment("reset_last_layer", "reset_last_layer", None, "restoring")
    kept, changed_ones, steps = means_after_treatment(
        monkeypatch, tmp_path / "kept", small, halved, "kept"
    )
    assert 0 < changed_ones.float().mean() < 1
    assert (kept[changed_ones] != 0).any()
    assert steps[0] > 0
    cleared, _, steps = means_after_treatment(
        monkeypatch, tmp_path / "cleared", small, halved, "cleared"
    )
    assert (cleared == 0).all()
    assert steps[0] == 0
    partly, changed_ones, steps = means_after_treatment(
        monkeypatch, tmp_path / "partly", small, halved, "cleared_where_changed"
    )
    assert (partly[changed_ones] == 0).all()
    assert torch.equal(partly[~changed_ones], kept[~changed_ones])
    assert steps[0] > 0


# What became of a copy


def statuses(arrays):
    """Return the statuses of the copies of the first run, by word."""
    words = {code: word for word, code in variables.STATUS.items()}
    return [words[code] for code in arrays["copy_status"][0, 0, 0].tolist()]


def test_copy_that_diverges_is_missing_and_says_so(tmp_path, small):
    trained = train(tmp_path, small)
    huge = Treatment("perturb(strength=1e+30)", "perturb", 1e30, "restoring")
    arrays, _ = run(tmp_path, trained, small, [UNTREATED, huge, SHRUNK])
    assert statuses(arrays) == ["trained", "diverged", "trained"]
    assert np.isnan(arrays["final_error"][..., 1]).all()
    assert np.isfinite(arrays["final_error"][..., [0, 2]]).all()


def test_copies_of_a_diverged_run_are_missing_and_say_so(tmp_path, small):
    setting = changed(optimizer={"kind": "sgd", "options": {"lr": 1e30}})
    trained = train(tmp_path, small, setting=setting)
    assert (trained[2]["status"] == 1).all()
    arrays, _ = run(tmp_path, trained, small, [UNTREATED, SHRUNK, FRESH])
    assert statuses(arrays) == ["run_diverged"] * 3
    for name in (*OUTCOMES, "feature_rank", "fisher_effective_rank"):
        assert np.isnan(arrays[name]).all(), name


def test_copy_that_a_treatment_does_not_change_says_so(tmp_path, small):
    plain = changed(optimizer={"kind": "sgd", "options": {"lr": 0.05}})
    trained = train(tmp_path, small, setting=plain)
    arrays, _ = run(tmp_path, trained, small, [UNTREATED, CLEARED, SHRUNK])
    # plain SGD has no state that could be cleared
    assert statuses(arrays) == ["trained", "unchanged", "trained"]
    adam = train(tmp_path / "adam", small)
    arrays, _ = run(tmp_path / "adam", adam, small, [UNTREATED, CLEARED])
    assert statuses(arrays) == ["trained", "trained"]


# Bad input


def test_checkpoints_without_states_are_refused_in_one_sentence(tmp_path, small):
    trained = train(tmp_path, small, tasks=())
    with pytest.raises(StudyError, match=r"no state of the optimizer at the start of task 1, so"):
        run(tmp_path, trained, small, [UNTREATED])


def test_treatment_that_returns_other_shapes_is_refused_in_one_sentence(
    monkeypatch, tmp_path, small
):
    trained = train(tmp_path, small)
    monkeypatch.setattr(SHRUNK.module, "treat", lambda subject, strength: {})
    with pytest.raises(StudyError, match=r"treatments/shrink.py: treat does not return all"):
        run(tmp_path, trained, small, [SHRUNK])


# Restarts


def test_restarted_experiment_repeats_no_finished_part(monkeypatch, tmp_path, small):
    trained = train(tmp_path, small, tasks=(1, 2))
    first, _ = run(tmp_path, trained, small, [UNTREATED, SHRUNK], tasks=(1, 2))
    monkeypatch.setattr(
        experiment.Experiment, "_run_part", lambda self, part: pytest.fail(f"repeated {part}")
    )
    second, _ = run(tmp_path, trained, small, [UNTREATED, SHRUNK], tasks=(1, 2))
    for name, array in first.items():
        assert np.array_equal(array, second[name], equal_nan=True), name
