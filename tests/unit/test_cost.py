"""The cost of a study: counts equal those by hand, and times follow from the clock."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from ensembles import ARMS as ARMS_OF_METHODS
from ensembles import COMPOSED, train_all, with_network_of

from plasticity import cost as costs
from plasticity.config.models import Curvature, Network, Optimizer, Problem, Setting, Training
from plasticity.curvature import measure
from plasticity.errors import StudyError
from plasticity.models import architecture
from plasticity.storage import netcdf
from plasticity.training import memory

SETTING = Setting(
    Problem("tiny", "shuffle_labels", samples=40, batch=7, epochs=3, tasks=11, test_samples=5),
    Network("mlp", "relu", options={"width": 8, "depth": 1}),
    Optimizer("adam", options={"lr": 0.003}),
)
PARAMETERS = 12 * 8 + 8 + 8 * 4 + 4
CURVATURE = Curvature.of(
    {"operators": ["fisher"], "samples": 9, "evaluation_points": ["previous", "next"], "every": 4}
)
ARMS, BLOCKS = [{"strength": 0.1}, {"strength": 0.2}, {"strength": 0.3}], [[0, 1, 2], [3]]
CHECKPOINT = costs.CheckpointCost(seconds=0.5, disk=1000.0)


def cost_of_l2(data, setting=SETTING):
    """Estimate the cost of a method with three arms in two jobs."""
    training = Training(checkpoint_every=2)
    return costs.cost(setting, "l2", ARMS, BLOCKS, data, training, CURVATURE, CHECKPOINT)


def test_counts_equal_counts_by_hand(data):
    cost = cost_of_l2(data)
    assert (cost.jobs, cost.runs, cost.parameters) == (2, 12, PARAMETERS)
    assert cost.steps == 11 * 3 * 5
    assert cost.checkpoints == 6, "at tasks 0, 2 … 10"
    measurements = 12 * 3  # at tasks 0, 4, 8
    assert cost.disk == 4 * PARAMETERS * 6 * 12 + 2 * 1000 * measurements
    assert cost.measuring == pytest.approx(0.5 * measurements / 3600)
    assert cost.training > 0
    runs_of_largest_job = 9  # three seeds of three arms
    assert cost.memory == runs_of_largest_job * memory.per_run(SETTING, data)


@pytest.mark.parametrize(("steps", "timed"), [(15, 5), (2, 2), (1500, 5)])
def test_training_time_is_the_time_per_step_for_all_steps_of_all_jobs(
    data, monkeypatch, steps, timed
):
    clock = iter([100.0, 107.0])  # seven seconds for an epoch of nine runs
    monkeypatch.setattr(costs.time, "perf_counter", lambda: next(clock))
    setting = replace(SETTING, problem=replace(SETTING.problem, epochs=None, steps_per_task=steps))
    hours = 7 * 11 * steps / timed * 12 / 9 / 3600
    assert cost_of_l2(data, setting).training == pytest.approx(hours)


@pytest.mark.parametrize("method", ARMS_OF_METHODS | COMPOSED)
def test_every_method_has_a_cost(data, method):
    arms, setting = (ARMS_OF_METHODS | COMPOSED)[method], with_network_of(SETTING, method)
    cost = costs.cost(setting, method, arms, [[0]], data, Training(), CURVATURE, CHECKPOINT)
    assert cost.training > 0


def test_budget_in_steps_costs_as_much_as_the_same_budget_in_epochs(data):
    in_steps = replace(SETTING, problem=replace(SETTING.problem, epochs=None, steps_per_task=15))
    counted = slice(7)  # all but the times
    assert cost_of_l2(data, in_steps)[counted] == cost_of_l2(data)[counted]


def test_disk_of_a_checkpoint_is_that_of_its_measures(data):
    blocks, evaluation_points, ranks = 4, 2, 9  # blocks: two layers, the last two, all
    variables_by_block = [
        name
        for name, variable in measure.table(CURVATURE).items()
        if variable.dims[-2:] == ("evaluation_point", "block")
    ]
    numbers = len(variables_by_block) * evaluation_points * blocks
    measures_without_data = 3 * blocks  # weight norm, deviation from isometry, displacement
    eigenvalues = evaluation_points * blocks * ranks
    status_bytes = evaluation_points
    checkpoint = costs.time_checkpoint(SETTING, data, CURVATURE)
    assert checkpoint.disk == 4 * (numbers + measures_without_data) + 8 * eigenvalues + status_bytes
    assert checkpoint.seconds > 0


def test_time_of_an_operator_counts_in_proportion_to_its_tasks(data, monkeypatch):
    operators = {
        "fisher": {},
        "hessian": {"every": 12, "exact_up_to": 50},
        "ggn": {"every": 12},
        "ntk": {"tasks": list(range(0, SETTING.problem.tasks, 8))},
    }
    curvature = Curvature.of(
        {"operators": operators, "samples": 9, "evaluation_points": ["next"], "every": 4}
    )
    # start and end of two tasks; only the second is timed
    no_operator = [0, 90, 100, 104]
    fisher = [0, 90, 200, 210]
    ggn_and_hessian = [0, 90, 300, 352]
    ntk = [0, 90, 400, 428]
    clock = itertools.chain(no_operator, fisher, ggn_and_hessian, ntk)
    monkeypatch.setattr(costs.time, "perf_counter", lambda: next(clock))
    checkpoint = costs.time_checkpoint(SETTING, data, curvature)
    seconds_of_two_runs = 4 + 6 + 48 / 3 + 24 * 2 / 3
    assert checkpoint.seconds == pytest.approx(seconds_of_two_runs / 2)
    assert next(clock, None) is None


def test_disk_of_operators_at_some_tasks_equals_that_of_the_padded_file(data):
    operators = {
        "fisher": {},
        "hessian": {"every": 2},
        "ggn": {"every": 2, "samples": 5, "blocks": ["all"]},
    }
    curvature = Curvature.of(
        {
            "operators": operators,
            "samples": 9,
            "evaluation_points": ["previous", "next"],
            "every": 1,
        }
    )
    _, states = train_all(data, "none", [{}], [0, 1], setting=SETTING, dtype=torch.float32)
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in architecture.build_for(SETTING, data).named_parameters()
    }
    checkpoints = SimpleNamespace(
        arms=["none"],
        seeds=[0, 1],
        tasks=list(range(4)),
        shapes=shapes,
        at=lambda task: states[task].double(),
    )
    variables, coordinates = measure.measure(checkpoints, SETTING, curvature, data)
    measures = netcdf.dataset(measure.table(curvature), variables, coordinates, "measures", {})
    bytes_in_file = sum(values.nbytes for values in measures.data_vars.values())
    measured = 2 * 4  # seeds and tasks
    assert costs.time_checkpoint(SETTING, data, curvature).disk == bytes_in_file / measured


def test_measures_without_operators_have_a_cost(data):
    checkpoint = costs.time_checkpoint(SETTING, data, replace(CURVATURE, operators={}))
    assert checkpoint.seconds > 0
    assert checkpoint.disk > 0


def test_unsuitable_dataset_is_refused(data):
    separable = replace(SETTING, problem=replace(SETTING.problem, separable=True))
    with pytest.raises(StudyError, match="not linearly separable"):
        cost_of_l2(data, separable)
    too_large = replace(SETTING, problem=replace(SETTING.problem, samples=61))
    with pytest.raises(StudyError, match=r"problem\.samples .*66 images"):
        costs.time_checkpoint(too_large, data, CURVATURE)


def test_table_has_a_line_for_each_setting_and_method_and_their_sum():
    cost = costs.Cost(2, 12, 1500000, 6, 89610, 3 * 10**9, 10**8, 1.5, 0.25, 2.0)
    long_name = "layer_norm+weight_decay tuning"
    table = costs.table({("setting_a", "none"): cost, ("b", long_name): cost})
    headings, *lines, total = table.splitlines()
    assert f" {long_name} " in lines[1]
    assert headings.split() == [
        "setting",
        "method",
        "jobs",
        "runs",
        "steps",
        "checkpoints",
        "parameters",
        "disk",
        "a",
        "job",
        "training",
        "curvature",
        "intervene",
    ]
    assert lines[0].split() == [
        "setting_a",
        "none",
        "2",
        "12",
        "1,500,000",
        "6",
        "89,610",
        "3.00",
        "GB",
        "0.10",
        "GB",
        "1.5",
        "h",
        "15.0",
        "min",
        "2.0",
        "h",
    ]
    times = ["3.0", "h", "30.0", "min", "4.0", "h"]
    assert total.split() == ["all", "4", "24", "6.00", "GB", *times]
    assert len({len(line) for line in (headings, *lines, total)}) == 1


def test_tuning_costs_its_training_without_checkpoints_and_curvature(data):
    cost = cost_of_l2(data)
    tuning = costs.without_checkpoints(cost)
    assert (tuning.checkpoints, tuning.disk, tuning.measuring) == (0, 0, 0)
    for name in ("jobs", "runs", "steps", "memory", "training"):
        assert getattr(tuning, name) == getattr(cost, name)


# Interventions

COPY = costs.CheckpointCost(seconds=0.25, disk=100.0)
OF_COPIES = Curvature.of(
    {"operators": ["fisher"], "samples": 9, "evaluation_points": ["next"], "every": 1}
)


def with_interventions(cost, data, method="l2", arm=ARMS[0], setting=SETTING):
    """Add an experiment with seven copies of each of two checkpoints."""
    experiment = costs.Experiment(copies=7, tasks=2)
    return costs.with_interventions(cost, experiment, COPY, setting, method, arm, data)


def test_runs_without_interventions_cost_no_copies(data):
    assert cost_of_l2(data).intervening == 0


def test_copies_cost_one_task_of_training_and_one_measurement_each(data):
    without = cost_of_l2(data)
    cost = with_interventions(without, data)
    copies = 12 * 2 * 7
    hours_of_one_task = without.training / 12 / 11
    assert cost.intervening == pytest.approx(copies * (hours_of_one_task + 0.25 / 3600))
    for name in ("jobs", "runs", "steps", "checkpoints", "memory", "training", "measuring"):
        assert getattr(cost, name) == getattr(without, name)


@pytest.mark.parametrize(
    ("optimizer", "means"),
    [
        (Optimizer("adam", options={"lr": 0.1}), 2),
        (Optimizer("sgd", options={"lr": 0.1, "momentum": 0.9}), 1),
        (Optimizer("sgd", options={"lr": 0.1}), 0),
    ],
    ids=["adam", "momentum", "sgd"],
)
def test_disk_of_copies_is_that_of_states_and_of_numbers_twice(data, optimizer, means):
    setting = replace(SETTING, optimizer=optimizer)
    without = cost_of_l2(data, setting)
    extra = with_interventions(without, data, setting=setting).disk - without.disk
    states, copies = 12 * 2, 12 * 2 * 7
    padded = 144  # numbers of a row: whole vectors of 16
    numbers = (1 + means) * padded
    steps, alive = 4, 1
    assert extra == states * (4 * numbers + steps + alive) + 2 * 100 * copies


def test_state_of_a_method_is_stored_for_copies(data):
    none, hare_tortoise = (
        costs.count_state_bytes(SETTING, method, arm, data)
        for method, arm in (("none", {}), ("hare_tortoise", ARMS_OF_METHODS["hare_tortoise"][0]))
    )
    assert hare_tortoise == none + 4 * PARAMETERS


@pytest.mark.parametrize("test_samples", [0, 5])
def test_disk_of_a_copy_is_that_of_its_outcomes_and_of_measures_without_spectra(data, test_samples):
    setting = replace(SETTING, problem=replace(SETTING.problem, test_samples=test_samples))
    copy = costs.time_copy(setting, data, OF_COPIES)
    checkpoint = costs.time_checkpoint(setting, data, OF_COPIES)
    blocks, ranks = 4, 9
    outcomes = 5 if test_samples else 4
    assert copy.disk == checkpoint.disk - 8 * blocks * ranks + 4 * outcomes
    assert copy.seconds > 0


def test_copies_are_measured_at_the_time_of_their_own_operators(data, monkeypatch):
    clock = itertools.chain([0, 90, 100, 104], [0, 90, 200, 210])
    monkeypatch.setattr(costs.time, "perf_counter", lambda: next(clock))
    assert costs.time_copy(SETTING, data, OF_COPIES).seconds == (4 + 6) / 2


def test_tuning_costs_no_copies(data):
    cost = with_interventions(cost_of_l2(data), data)
    assert costs.without_checkpoints(cost).intervening == 0
