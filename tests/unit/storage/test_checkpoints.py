"""Checkpoints are read as they were written, and their files are complete or absent."""

import errno
import os
import resource
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from plasticity.errors import StudyError
from plasticity.storage import checkpoints
from plasticity.storage.checkpoints import CheckpointRows, Checkpoints

SHAPES = {"hidden_1.weight": (3, 4), "hidden_1.bias": (3,), "output.weight": (2, 3)}
ARMS, SEEDS, TASKS = ["l2(strength=0.1)", "l2(strength=1)"], [3, 4, 5], [0, 2, 4, 6]
RUNS = len(ARMS) * len(SEEDS)
STAMP = {"settings": '{"arms": []}', "source": "test", "contract": "2"}


def random_parameters():
    """Draw parameters at each task, shape ``(task, run, parameter)``; one run has diverged."""
    generator = torch.Generator().manual_seed(0)
    parameters = torch.randn(max(TASKS) + 2, RUNS, 21, generator=generator)
    parameters[4, 3] = torch.nan
    return parameters


def empty_rows(folder):
    """Describe a file of rows that does not exist yet."""
    folder.mkdir(exist_ok=True)
    return CheckpointRows(folder / "rows.f4", TASKS, RUNS, SHAPES)


def written_rows(folder, parameters=None):
    """Write parameters to a file of rows, all runs at once."""
    rows = empty_rows(folder)
    for task, values in enumerate(random_parameters() if parameters is None else parameters):
        rows.write(0, task, values)
    return rows


def write_netcdf(path, rows):
    """Write rows as the checkpoints of an ensemble."""
    checkpoints.write(path, rows, ARMS, SEEDS, STAMP)


def assert_rows_equal(rows, parameters):
    """Compare the rows of all tasks with parameters."""
    for task in TASKS:
        np.testing.assert_array_equal(rows.read(task), parameters[task].numpy())


# Rows


def test_only_rows_of_the_configured_tasks_are_written(tmp_path):
    rows = written_rows(tmp_path)
    assert rows.path.stat().st_size == 4 * len(TASKS) * RUNS * 21
    assert_rows_equal(rows, random_parameters())


def test_rows_may_be_written_by_chunks_and_in_any_order(tmp_path):
    parameters, rows = random_parameters(), empty_rows(tmp_path)
    for first, end in ((4, 6), (0, 1), (1, 4)):
        for task in (6, 1, 0, 4, 3, 2, 5):
            rows.write(first, task, parameters[task, first:end])
    assert_rows_equal(rows, parameters)


def test_rows_written_again_replace_the_former_rows_and_no_others(tmp_path):
    parameters, rows = random_parameters(), written_rows(tmp_path)
    parameters[2, 1:3] = 7
    rows.write(1, 2, parameters[2, 1:3])
    assert_rows_equal(rows, parameters)
    rows_of_restarted_job = CheckpointRows(rows.path, TASKS, RUNS, SHAPES)
    assert_rows_equal(rows_of_restarted_job, parameters)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_rows_are_float32_for_parameters_of_any_type(tmp_path, dtype):
    parameters = random_parameters().to(dtype)
    assert_rows_equal(written_rows(tmp_path, parameters), parameters.float())


def test_view_into_padded_parameters_is_written_without_the_padding(tmp_path):
    parameters = random_parameters()
    padded = torch.nn.functional.pad(parameters, (0, 11), value=5.0)
    assert_rows_equal(written_rows(tmp_path, padded[..., :21]), parameters)


def rows_of_one_chunk(folder):
    """Write the checkpoints of tasks 0 and 2 for the first four runs; return rows and checksums."""
    parameters, rows = random_parameters(), empty_rows(folder)
    for task in (0, 1, 2):
        rows.write(0, task, parameters[task, :4])
    return rows, rows.checksums(0).copy()


def test_rows_continue_where_the_file_holds_what_was_written(tmp_path):
    _, checksums = rows_of_one_chunk(tmp_path)
    restarted = empty_rows(tmp_path)
    for task in range(7):
        assert restarted.restore(0, 4, task, checksums) == (task <= 4), task
    np.testing.assert_array_equal(restarted.checksums(0), checksums)


def test_new_job_needs_no_file(tmp_path):
    rows = empty_rows(tmp_path)
    assert rows.restore(0, 4, 0, rows.checksums(0)), "there is no checkpoint before task 0"
    assert not rows.restore(0, 4, 1, rows.checksums(0))


@pytest.mark.parametrize("position", [0, 101, -1])
def test_rows_with_one_altered_byte_are_refused(tmp_path, position):
    rows, checksums = rows_of_one_chunk(tmp_path)
    content = bytearray(rows.path.read_bytes())
    content[position] ^= 1
    rows.path.write_bytes(content)
    assert not empty_rows(tmp_path).restore(0, 4, 3, checksums)


def test_truncated_rows_are_refused(tmp_path):
    rows, checksums = rows_of_one_chunk(tmp_path)
    os.truncate(rows.path, rows.path.stat().st_size - 1)
    assert not empty_rows(tmp_path).restore(0, 4, 3, checksums)


def test_rows_of_another_chunk_may_be_altered(tmp_path):
    rows, checksums = rows_of_one_chunk(tmp_path)
    rows.write(4, 0, random_parameters()[1, 4:])
    assert empty_rows(tmp_path).restore(0, 4, 1, checksums)


# netCDF files


def test_each_task_is_read_as_it_was_written(tmp_path):
    write_netcdf(tmp_path / "next" / "c.nc", written_rows(tmp_path))
    file = Checkpoints(tmp_path / "next" / "c.nc")
    for task in (6, 0, 4, 2):
        read = file.at(task)
        expected = random_parameters()[task].double()
        assert read.dtype == torch.float64
        torch.testing.assert_close(read, expected, rtol=0, atol=0, equal_nan=True)


def test_run_is_found_by_its_arm_and_seed(tmp_path):
    write_netcdf(tmp_path / "c.nc", written_rows(tmp_path))
    weight = Checkpoints(tmp_path / "c.nc").file["hidden_1.weight"]
    assert weight.dimensions[:3] == ("arm", "seed", "task")
    for arm in range(len(ARMS)):
        for seed in range(len(SEEDS)):
            run = arm * len(SEEDS) + seed
            expected = random_parameters()[6, run, :12].view(3, 4)
            np.testing.assert_array_equal(weight[arm, seed, 3], expected.numpy())


def test_file_has_its_arms_seeds_tasks_shapes_and_settings(tmp_path):
    write_netcdf(tmp_path / "c.nc", written_rows(tmp_path))
    file = Checkpoints(tmp_path / "c.nc")
    assert (file.arms, file.seeds, file.tasks) == (ARMS, SEEDS, TASKS)
    assert list(file.shapes.items()) == list(SHAPES.items())
    assert file.settings == STAMP["settings"]


def test_task_without_a_checkpoint_is_refused(tmp_path):
    write_netcdf(tmp_path / "c.nc", written_rows(tmp_path))
    with pytest.raises(ValueError, match="1"):
        Checkpoints(tmp_path / "c.nc").at(1)


def test_chunk_is_one_task(tmp_path):
    write_netcdf(tmp_path / "c.nc", written_rows(tmp_path))
    file = Checkpoints(tmp_path / "c.nc").file
    for name, shape in SHAPES.items():
        assert file[name].chunking() == [len(ARMS), len(SEEDS), 1, *shape]


def test_every_variable_has_a_description_and_no_fill_value(tmp_path):
    write_netcdf(tmp_path / "c.nc", written_rows(tmp_path))
    for values in Checkpoints(tmp_path / "c.nc").file.variables.values():
        assert {"long_name", "units"} <= set(values.ncattrs())
        assert "_FillValue" not in values.ncattrs()


def test_same_parameters_give_the_same_bytes_in_any_order_of_writing(tmp_path):
    write_netcdf(tmp_path / "a" / "c.nc", written_rows(tmp_path / "in order"))
    parameters, rows = random_parameters(), empty_rows(tmp_path / "in chunks")
    for first in (3, 0):
        for task in reversed(TASKS):
            rows.write(first, task, parameters[task, first : first + 3])
    write_netcdf(tmp_path / "b" / "c.nc", rows)
    assert (tmp_path / "a" / "c.nc").read_bytes() == (tmp_path / "b" / "c.nc").read_bytes()


def test_incomplete_rows_write_no_file_and_leave_the_former_one(tmp_path):
    rows = written_rows(tmp_path / "rows")
    os.truncate(rows.path, rows.path.stat().st_size - 4)
    with pytest.raises(ValueError, match="reshape"):
        write_netcdf(tmp_path / "c.nc", rows)
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]
    write_netcdf(tmp_path / "c.nc", written_rows(tmp_path / "rows"))
    former = (tmp_path / "c.nc").read_bytes()
    os.truncate(rows.path, rows.path.stat().st_size - 4)
    with pytest.raises(ValueError, match="reshape"):
        write_netcdf(tmp_path / "c.nc", rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.nc", "rows"]
    assert (tmp_path / "c.nc").read_bytes() == former


# Failures


@contextmanager
def full_disk():
    """Limit every file of this process to 1 kB, which fails as a full disk does.

    Keep it as short as one call, because pytest writes files, too.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_full_disk_gives_one_sentence_and_no_partial_file(tmp_path):
    rows = written_rows(tmp_path / "rows")
    message = r"c\.nc could not be written \(.+\): free space or give yourself write permission"
    with full_disk(), pytest.raises(StudyError, match=message):
        write_netcdf(tmp_path / "c.nc", rows)
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_full_disk_while_rows_are_written_gives_one_sentence(tmp_path):
    reason = os.strerror(errno.EFBIG)
    message = rf"rows\.f4 could not be written \({reason}\): free space or give yourself"
    with full_disk(), pytest.raises(StudyError, match=message):
        written_rows(tmp_path)


@pytest.mark.parametrize("remaining", [0, 100, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused_by_name(tmp_path, remaining):
    path = tmp_path / "c.nc"
    write_netcdf(path, written_rows(tmp_path))
    content = path.read_bytes()
    size = int(remaining * len(content)) if 0 < remaining < 1 else remaining
    path.write_bytes(content[:size])
    with pytest.raises(StudyError, match=r"c\.nc cannot be read \(.+\): delete it"):
        Checkpoints(path)


def test_missing_file_and_file_of_another_format_are_refused_by_name(tmp_path):
    (tmp_path / "text.nc").write_text("not a checkpoint")
    for name in ("absent.nc", "text.nc"):
        with pytest.raises(StudyError, match=rf"{name} cannot be read"):
            Checkpoints(tmp_path / name)
