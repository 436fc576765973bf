"""The data of a task and the batch of a step, against the functions that make tasks."""

import torch
from ensembles import SETTING, new_trainer

from plasticity.data import tasks

SEEDS = [3, 1]


def batches_of(data):
    """Batches of two arms with two seeds: runs 0 and 2 have the first seed."""
    trainer = new_trainer(data, "none", [{}, {}], SEEDS)
    return trainer.learner, trainer.batches


def test_load_replaces_data_in_place(data):
    learner, batches = batches_of(data)
    addresses = batches.inputs.data_ptr(), batches.labels.data_ptr()
    learner.task = 2
    batches.load()
    assert (batches.inputs.data_ptr(), batches.labels.data_ptr()) == addresses
    for index, seed in enumerate(SEEDS):
        inputs, labels = tasks.build_task(SETTING.problem, data, seed, 2)
        rows = slice(index * len(inputs), (index + 1) * len(inputs))
        assert torch.equal(batches.inputs[rows], inputs.double())
        assert torch.equal(batches.labels[rows], labels)


def test_order_has_the_samples_of_each_step_and_seed(data):
    learner, batches = batches_of(data)
    learner.task = 1
    order = batches.order()
    for index, seed in enumerate(SEEDS):
        expected = torch.from_numpy(tasks.draw_batches(SETTING.problem, seed, 1))
        assert torch.equal(order[:, index], expected)


def test_rows_and_select_give_each_run_the_samples_of_its_seed(data):
    _, batches = batches_of(data)
    samples = torch.tensor([[4, 0, 6, 1, 3, 2, 5], [7, 2, 29, 11, 0, 8, 9]])
    inputs, labels = batches.select(batches.rows(samples).flatten())
    assert inputs.shape == (4, 7, 2, 2, 3)
    for run in range(4):
        seed = SEEDS[run % 2]
        task_inputs, task_labels = tasks.build_task(SETTING.problem, data, seed, 0)
        assert torch.equal(inputs[run], task_inputs[samples[run % 2]].double())
        assert torch.equal(labels[run], task_labels[samples[run % 2]])
