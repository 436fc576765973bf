"""What a study will cost: counted numbers against counts by hand; times are only there and add up."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from ensembles import ARMS as EVERY
from ensembles import COMPOSED, seen, trained

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


def cost(data, setting=SETTING, measured=costs.Measuring(0.5, 1000.0)):  # noqa: B008 - it is a tuple
    return costs.cost(
        setting, "l2", ARMS, BLOCKS, data, Training(checkpoint_every=2), CURVATURE, measured
    )


def test_what_can_be_counted_is_counted(data):
    found = cost(data)
    assert (found.jobs, found.runs, found.parameters) == (2, 12, PARAMETERS)
    assert found.steps == 11 * 3 * 5
    assert found.checkpoints == 6  # tasks 0, 2 … 10
    measurements = 12 * 3  # tasks 0, 4, 8
    assert found.disk == 4 * PARAMETERS * 6 * 12 + 2 * 1000 * measurements
    assert found.measuring == pytest.approx(0.5 * measurements / 3600)
    assert found.training > 0
    assert found.memory == 9 * memory.per_run(
        SETTING, data
    )  # of the job with three seeds of three arms


@pytest.mark.parametrize(("steps", "timed"), [(15, 5), (2, 2), (1500, 5)])
def test_training_takes_as_long_as_some_steps_of_the_largest_job_took_for_all_steps_of_all_jobs(
    data, monkeypatch, steps, timed
):
    clock = iter([100.0, 107.0])  # seven seconds for an epoch of nine runs
    monkeypatch.setattr(costs.time, "perf_counter", lambda: next(clock))
    setting = replace(SETTING, problem=replace(SETTING.problem, epochs=None, steps_per_task=steps))
    assert cost(data, setting).training == pytest.approx(7 * 11 * steps / timed * 12 / 9 / 3600)


@pytest.mark.parametrize("method", EVERY | COMPOSED)
def test_each_method_has_its_cost(data, method):
    arms, setting = (EVERY | COMPOSED)[method], seen(SETTING, method)
    found = costs.cost(
        setting, method, arms, [[0]], data, Training(), CURVATURE, costs.Measuring(0.5, 1000.0)
    )
    assert found.training > 0


def test_a_budget_in_steps_costs_as_much_as_the_same_in_epochs(data):
    in_steps = replace(SETTING, problem=replace(SETTING.problem, epochs=None, steps_per_task=15))
    assert cost(data, in_steps)[:7] == cost(data)[:7]


def test_measuring_counts_what_one_run_leaves_at_one_task(data):
    network_blocks, evaluation_points, rank = 4, 2, 9  # two layers, the last two, all
    of_blocks = [
        name
        for name, variable in measure.table(CURVATURE).items()
        if variable.dims[-2:] == ("evaluation_point", "block")
    ]
    found = costs.measuring(SETTING, data, CURVATURE)
    numbers = (
        len(of_blocks) * evaluation_points * network_blocks + network_blocks
    )  # and the weight norm
    assert (
        found.disk
        == 4 * numbers + 8 * evaluation_points * network_blocks * rank + evaluation_points
    )  # and the status
    assert found.seconds > 0


def test_operators_at_other_tasks_cost_their_share_of_time_and_the_rest_is_counted_once(
    data, monkeypatch
):
    own = {
        "fisher": {},
        "hessian": {"every": 12, "exact_up_to": 50},
        "ggn": {"every": 12},
        "ntk": {"every": 8},
    }
    asked = Curvature.of(
        {"operators": own, "samples": 9, "evaluation_points": ["next"], "every": 4}
    )
    of_two_tasks = (
        [0, 90, 100, 104],
        [0, 90, 200, 210],
        [0, 90, 300, 352],
        [0, 90, 400, 428],
    )  # no operators; Fisher; GGN and Hessian; NTK
    clock = itertools.chain(*of_two_tasks)
    monkeypatch.setattr(costs.time, "perf_counter", lambda: next(clock))
    found = costs.measuring(SETTING, data, asked)
    assert found.seconds == pytest.approx((4 + 6 + 48 / 3 + 24 / 2) / 2)  # two runs
    assert next(clock, None) is None


def test_operators_at_other_tasks_leave_as_much_as_they_have_in_the_file(data, tmp_path):
    own = {
        "fisher": {},
        "hessian": {"every": 2},
        "ggn": {"every": 2, "samples": 5, "blocks": ["all"]},
    }
    asked = Curvature.of(
        {"operators": own, "samples": 9, "evaluation_points": ["previous", "next"], "every": 1}
    )
    _, states = trained(data, "none", [{}], [0, 1], setting=SETTING, dtype=torch.float32)
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in architecture.fitting(SETTING, data).named_parameters()
    }
    standing = SimpleNamespace(
        arms=["none"],
        seeds=[0, 1],
        tasks=list(range(4)),
        shapes=shapes,
        at=lambda task: states[task].double(),
    )
    variables, coordinates = measure.measure(standing, SETTING, asked, data)
    found = netcdf.dataset(measure.table(asked), variables, coordinates, "measures", {})
    assert (
        costs.measuring(SETTING, data, asked).disk
        == sum(values.nbytes for values in found.data_vars.values()) / 8
    )


def test_measuring_nothing_but_units_has_its_cost_too(data):
    found = costs.measuring(SETTING, data, replace(CURVATURE, operators={}))
    assert found.seconds > 0
    assert found.disk > 0


def test_what_a_dataset_cannot_give_is_said_before_anything_runs(data):
    separable = replace(SETTING, problem=replace(SETTING.problem, separable=True))
    with pytest.raises(StudyError, match="not linearly separable"):
        cost(data, separable)
    with pytest.raises(StudyError, match=r"problem\.samples .*takes 66 images"):
        costs.measuring(
            replace(SETTING, problem=replace(SETTING.problem, samples=61)), data, CURVATURE
        )


def test_the_table_has_a_line_for_each_and_their_sum():
    one = costs.Cost(2, 12, 1500000, 6, 89610, 3 * 10**9, 10**8, 1.5, 0.25)
    long = "layer_norm+weight_decay tuning"
    head, *lines, total = costs.table({("setting_a", "none"): one, ("b", long): one}).splitlines()
    assert f" {long} " in lines[1]
    assert head.split() == [
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
    ]
    assert total.split() == ["all", "4", "24", "6.00", "GB", "3.0", "h", "30.0", "min"]
    assert len({len(line) for line in (head, *lines, total)}) == 1


def test_tuning_costs_its_training_and_neither_checkpoints_nor_curvature(data):
    whole = cost(data)
    tuning = costs.unmeasured(whole)
    assert (tuning.checkpoints, tuning.disk, tuning.measuring) == (0, 0, 0)
    assert (tuning.jobs, tuning.runs, tuning.steps, tuning.memory, tuning.training) == (
        *(whole.jobs, whole.runs, whole.steps, whole.memory, whole.training),
    )
