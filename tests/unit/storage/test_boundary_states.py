"""States at task boundaries are kept while an ensemble trains, and read from its checkpoints."""

import numpy as np
import pytest
import torch
from ensembles import ARMS, SETTING, new_trainer

from plasticity.config.models import Training
from plasticity.errors import StudyError
from plasticity.storage import checkpoints
from plasticity.storage.boundary_states import BoundaryStates
from plasticity.storage.checkpoints import Checkpoints
from plasticity.storage.restart import RestartStates
from plasticity.training import chunks

RUNS = 5


def state(first, runs, task):
    """Return a state whose numbers identify run and task."""
    numbers = np.arange(first, first + runs) + 100.0 * task
    return {
        "alive": np.arange(runs) % 2 == 0,
        "parameters": np.stack([numbers, -numbers], axis=1).astype(np.float32),
        "optimizer_steps": numbers.astype(np.float32),
        "method_matrix": np.stack([numbers[:, None] * np.ones(3)] * 2, axis=1),
    }


@pytest.fixture
def restart(tmp_path):
    """Return an empty folder of restart states."""
    (tmp_path / "resume").mkdir()
    return RestartStates(tmp_path / "resume", {"code": "1"})


@pytest.fixture
def states(restart):
    """Return the states of two chunks, of which tasks 2 and 4 are kept."""
    states = BoundaryStates(restart, [2, 4])
    for first, runs in ((0, 3), (3, 2)):
        for task in range(1, 6):
            states.save(first, task, state(first, runs, task))
    return states


def test_states_of_chunks_are_joined_in_the_order_of_runs(states):
    for task in (2, 4):
        read = states.read(task, RUNS)
        for name, expected in state(0, RUNS, task).items():
            if name != "alive":
                np.testing.assert_array_equal(read[name], expected)
        assert read["alive"].tolist() == [True, False, True, True, False]


def test_only_states_of_the_chosen_tasks_are_kept(states, restart):
    assert len(list(restart.folder.glob("state_*.npz"))) == 4


def test_missing_or_damaged_state_is_noticed(states, restart):
    assert states.are_complete(3, 5)
    path = restart.folder / "state_3_task_4.npz"
    path.write_bytes(path.read_bytes()[:-10])
    assert states.are_complete(3, 3), "the state of task 4 is not needed yet"
    assert not states.are_complete(3, 4)
    assert states.are_complete(0, 5), "the other chunk is intact"
    with pytest.raises(StudyError, match=r"the state of task 4 is missing or damaged. Delete"):
        states.read(4, RUNS)


def test_checkpoints_return_the_states_that_were_written(tmp_path, states):
    shapes = {"weight": (2,)}
    rows = checkpoints.CheckpointRows(tmp_path / "rows.f4", [0], 6, shapes)
    rows.write(0, 0, torch.zeros(6, 2))
    states.save(5, 2, state(5, 1, 2))
    states.save(5, 4, state(5, 1, 4))
    checkpoints.write(
        tmp_path / "c.nc", rows, ["a", "b"], [7, 8, 9], {"settings": "{}", "contract": "9"}, states
    )
    stored = Checkpoints(tmp_path / "c.nc")
    assert stored.state_tasks == [2, 4]
    assert stored.shapes == shapes, "a state is no parameter"
    for task in (2, 4):
        for name, expected in states.read(task, 6).items():
            read = stored.state(task)[name]
            np.testing.assert_array_equal(read, expected)
            assert read.dtype == (np.int8 if name == "alive" else expected.dtype)
    with pytest.raises(StudyError, match=r"no state of the optimizer at the start of task 3, so"):
        stored.state(3)


@pytest.mark.parametrize("method", ARMS)
def test_first_dim_of_every_state_is_the_run(data, method):
    trainer = new_trainer(data, method, ARMS[method], seeds=(0, 1, 2))
    for name, tensor in trainer.boundary_tensors().items():
        assert tensor.shape[0] == len(ARMS[method]) * 3, name


def test_job_that_lost_a_state_starts_its_chunk_over(tmp_path, data, caplog):
    restart = RestartStates(tmp_path / "resume", {})
    restart.folder.mkdir()
    learned = []

    def train(sabotage):
        states = BoundaryStates(restart, [1])
        network_shapes = new_trainer(data, "none", [{}]).learner.parameters.shapes
        rows = checkpoints.CheckpointRows(restart.folder / "rows.f4", [0], 1, network_shapes)
        sabotage()
        values = chunks.train_in_chunks(
            SETTING, "none", [({}, 0)], data, Training(), rows, restart, None, states
        )
        learned.append(values["final_error"])
        return states

    train(lambda: None)
    expected = BoundaryStates(restart, [1]).read(1, 1)
    states = train((restart.folder / "state_0_task_1.npz").unlink)
    assert "the state of a task boundary is missing or damaged" in caplog.text
    for name, values in states.read(1, 1).items():
        np.testing.assert_array_equal(values, expected[name])
    np.testing.assert_array_equal(learned[0], learned[1])
