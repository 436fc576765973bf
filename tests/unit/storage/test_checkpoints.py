"""Checkpoints: what is saved is what is read, task by task and run by run, whole or not at all."""

import errno
import os
import resource
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from plasticity.errors import StudyError
from plasticity.storage import checkpoints
from plasticity.storage.checkpoints import Checkpoints, Rows

SHAPES = {"hidden_1.weight": (3, 4), "hidden_1.bias": (3,), "output.weight": (2, 3)}
ARMS, SEEDS, TASKS = ["l2(strength=0.1)", "l2(strength=1)"], [3, 4, 5], [0, 2, 4, 6]
MEMBERS = len(ARMS) * len(SEEDS)
STAMP = {"settings": '{"arms": []}', "source": "test", "contract": "2"}


def drawn():
    """Parameters at each task, shape ``(task, run, parameter)``, one of them diverged."""
    parameters = torch.randn(
        max(TASKS) + 2, MEMBERS, 21, generator=torch.Generator().manual_seed(0)
    )
    parameters[4, 3] = torch.nan
    return parameters


def rows(folder, parameters=None):
    """Those parameters in a file, as an ensemble in one wave writes them."""
    folder.mkdir(exist_ok=True)
    there = Rows(folder / "rows.f4", TASKS, MEMBERS, SHAPES)
    for task, values in enumerate(drawn() if parameters is None else parameters):
        there.write(0, task, values)
    return there


def write(path, there):
    checkpoints.write(path, there, ARMS, SEEDS, STAMP)


def assert_holds(there, parameters):
    for task in TASKS:
        np.testing.assert_array_equal(there.read(task), parameters[task].numpy())


def test_rows_of_the_configured_tasks_and_no_others_are_there_as_they_were_written(tmp_path):
    there = rows(tmp_path)
    assert there.path.stat().st_size == 4 * len(TASKS) * MEMBERS * 21
    assert_holds(there, drawn())


def test_rows_go_where_they_belong_in_any_order_and_by_waves(tmp_path):
    parameters, there = drawn(), Rows(tmp_path / "rows.f4", TASKS, MEMBERS, SHAPES)
    for first, last in ((4, 6), (0, 1), (1, 4)):
        for task in (6, 1, 0, 4, 3, 2, 5):
            there.write(first, task, parameters[task, first:last])
    assert_holds(there, parameters)


def test_rows_that_are_written_again_take_the_place_of_the_former_and_harm_no_other(tmp_path):
    parameters, there = drawn(), rows(tmp_path)
    parameters[2, 1:3] = 7
    there.write(1, 2, parameters[2, 1:3])
    assert_holds(there, parameters)
    assert_holds(
        Rows(there.path, TASKS, MEMBERS, SHAPES), parameters
    )  # as a job finds them that was killed and goes on


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_rows_are_float32_whatever_was_computed_with(tmp_path, dtype):
    parameters = drawn().to(dtype)
    assert_holds(rows(tmp_path, parameters), parameters.float())


def test_a_view_into_padded_rows_is_written_without_what_pads_it(tmp_path):
    parameters = drawn()
    padded = torch.nn.functional.pad(parameters, (0, 11), value=5.0)
    assert_holds(rows(tmp_path, padded[..., :21]), parameters)


def test_a_file_reaches_as_far_as_it_was_written_and_no_farther(tmp_path):
    parameters, there = drawn(), Rows(tmp_path / "rows.f4", TASKS, MEMBERS, SHAPES)
    assert there.reach(MEMBERS, task=0)  # nothing is due before the first task
    assert not there.reach(MEMBERS, task=1)
    there.write(0, 0, parameters[0, :4])
    assert there.reach(4, task=1)
    assert there.reach(4, task=2)
    assert not there.reach(5, task=1)
    assert not there.reach(4, task=3)
    there.write(0, 2, parameters[2, :4])
    assert there.reach(4, task=4)
    os.truncate(there.path, there.path.stat().st_size - 1)
    assert not there.reach(4, task=3)


def test_each_task_is_read_as_it_was_saved_with_arms_outermost(tmp_path):
    write(tmp_path / "next" / "c.nc", rows(tmp_path))
    there = Checkpoints(tmp_path / "next" / "c.nc")
    for task in (6, 0, 4, 2):
        read = there.at(task)
        assert read.dtype == torch.float64
        torch.testing.assert_close(read, drawn()[task].double(), rtol=0, atol=0, equal_nan=True)


def test_a_run_is_where_its_arm_and_seed_say(tmp_path):
    write(tmp_path / "c.nc", rows(tmp_path))
    weight = Checkpoints(tmp_path / "c.nc").file["hidden_1.weight"]
    assert weight.dimensions[:3] == ("arm", "seed", "task")
    for arm in range(len(ARMS)):
        for seed in range(len(SEEDS)):
            expected = drawn()[6, arm * len(SEEDS) + seed, :12].view(3, 4)
            np.testing.assert_array_equal(weight[arm, seed, 3], expected.numpy())


def test_a_file_knows_its_runs_tasks_shapes_and_settings(tmp_path):
    write(tmp_path / "c.nc", rows(tmp_path))
    there = Checkpoints(tmp_path / "c.nc")
    assert (there.arms, there.seeds, there.tasks) == (ARMS, SEEDS, TASKS)
    assert list(there.shapes.items()) == list(SHAPES.items())
    assert there.settings == STAMP["settings"]


def test_a_task_without_a_checkpoint_cannot_be_read(tmp_path):
    write(tmp_path / "c.nc", rows(tmp_path))
    with pytest.raises(ValueError, match="1"):
        Checkpoints(tmp_path / "c.nc").at(1)


def test_a_chunk_is_one_task_so_that_it_is_read_without_the_others(tmp_path):
    write(tmp_path / "c.nc", rows(tmp_path))
    file = Checkpoints(tmp_path / "c.nc").file
    for name, shape in SHAPES.items():
        assert file[name].chunking() == [len(ARMS), len(SEEDS), 1, *shape]


def test_every_variable_says_what_it_is(tmp_path):
    write(tmp_path / "c.nc", rows(tmp_path))
    for values in Checkpoints(tmp_path / "c.nc").file.variables.values():
        assert {"long_name", "units"} <= set(values.ncattrs())
        assert "_FillValue" not in values.ncattrs()


def test_the_same_parameters_give_the_same_bytes_however_they_were_written(tmp_path):
    write(tmp_path / "a" / "c.nc", rows(tmp_path / "one"))
    (tmp_path / "other").mkdir()
    parameters, there = drawn(), Rows(tmp_path / "other" / "rows.f4", TASKS, MEMBERS, SHAPES)
    for first in (3, 0):
        for task in reversed(TASKS):
            there.write(first, task, parameters[task, first : first + 3])
    write(tmp_path / "b" / "c.nc", there)
    assert (tmp_path / "a" / "c.nc").read_bytes() == (tmp_path / "b" / "c.nc").read_bytes()


def test_rows_that_are_not_all_there_leave_no_file_and_harm_no_former_one(tmp_path):
    there = rows(tmp_path / "rows")
    os.truncate(there.path, there.path.stat().st_size - 4)
    with pytest.raises(ValueError, match="reshape"):
        write(tmp_path / "c.nc", there)
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]
    write(tmp_path / "c.nc", rows(tmp_path / "rows"))
    former = (tmp_path / "c.nc").read_bytes()
    os.truncate(there.path, there.path.stat().st_size - 4)
    with pytest.raises(ValueError, match="reshape"):
        write(tmp_path / "c.nc", there)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.nc", "rows"]
    assert (tmp_path / "c.nc").read_bytes() == former


@contextmanager
def full_disk():
    """No file of this process may grow beyond 1 kB: that fails as a full disk does. Not for longer than a call: pytest writes too."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_one_sentence_and_leaves_no_half_file(tmp_path):
    there = rows(tmp_path / "rows")
    with (
        full_disk(),
        pytest.raises(
            StudyError,
            match=r"c\.nc could not be written \(.+\): free space or mend its permissions",
        ),
    ):
        write(tmp_path / "c.nc", there)
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_rows_on_a_full_disk_are_one_sentence(tmp_path):
    with (
        full_disk(),
        pytest.raises(
            StudyError,
            match=rf"rows\.f4 could not be written \({os.strerror(errno.EFBIG)}\): free space or mend",
        ),
    ):
        rows(tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_by_name(tmp_path, keep):
    path = tmp_path / "c.nc"
    write(path, rows(tmp_path))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    with pytest.raises(StudyError, match=r"c\.nc cannot be read \(.+\): delete it"):
        Checkpoints(path)


def test_a_missing_file_or_one_of_another_kind_is_refused_by_name(tmp_path):
    (tmp_path / "text.nc").write_text("not a checkpoint")
    for name in ("absent.nc", "text.nc"):
        with pytest.raises(StudyError, match=rf"{name} cannot be read"):
            Checkpoints(tmp_path / name)
