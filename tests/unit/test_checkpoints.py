"""Checkpoints: what is saved is what is read, task by task and member by member, whole or not at all."""

import pytest
import torch

from plasticity.checkpoints import Checkpoints, writer
from plasticity.errors import StudyError

SHAPES = {"hidden_1.weight": (3, 4), "hidden_1.bias": (3,), "output.weight": (2, 3)}
ARMS, SEEDS, TASKS = ["l2(strength=0.1)", "l2(strength=1)"], [3, 4, 5], 4
STAMP = {"settings": '{"arms": []}', "source": "test"}


def saved(path, stop_before=None):
    """Drawn parameters, shape ``(task, arm, seed, parameter)``, written to a file."""
    drawn = torch.randn(TASKS, len(ARMS), len(SEEDS), 21, generator=torch.Generator().manual_seed(0))
    drawn[2, 1, 0] = torch.nan
    with writer(path, SHAPES, ARMS, SEEDS, TASKS, STAMP) as save:
        for task, parameters in enumerate(drawn):
            if task == stop_before:
                raise ZeroDivisionError
            save(task, parameters)
    return drawn


def test_each_task_is_read_as_it_was_saved_with_arms_outermost(tmp_path):
    drawn = saved(tmp_path / "new" / "c.nc")
    checkpoints = Checkpoints(tmp_path / "new" / "c.nc")
    for task in (3, 0, 2, 1):
        read = checkpoints.at(task)
        assert read.dtype == torch.float64
        torch.testing.assert_close(read, drawn[task].flatten(0, 1).double(), rtol=0, atol=0, equal_nan=True)


def test_a_file_knows_its_members_tasks_shapes_and_settings(tmp_path):
    saved(tmp_path / "c.nc")
    checkpoints = Checkpoints(tmp_path / "c.nc")
    assert (checkpoints.arms, checkpoints.seeds, checkpoints.tasks) == (ARMS, SEEDS, TASKS)
    assert list(checkpoints.shapes.items()) == list(SHAPES.items())
    assert checkpoints.settings == STAMP["settings"]


def test_parameters_that_need_gradients_no_longer_are_saved_as_values(tmp_path):
    parameters = torch.arange(21.0).requires_grad_()
    with writer(tmp_path / "c.nc", SHAPES, ["none"], [0], 1, STAMP) as save:
        save(0, parameters.detach().view(1, 1, 21))
    assert Checkpoints(tmp_path / "c.nc").at(0).tolist() == [list(range(21))]


def test_every_variable_says_what_it_is(tmp_path):
    saved(tmp_path / "c.nc")
    for values in Checkpoints(tmp_path / "c.nc").file.variables.values():
        assert {"long_name", "units"} <= set(values.ncattrs())
        assert "_FillValue" not in values.ncattrs()


def test_the_same_parameters_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        saved(tmp_path / name / "c.nc")
    assert (tmp_path / "a" / "c.nc").read_bytes() == (tmp_path / "b" / "c.nc").read_bytes()


@pytest.mark.parametrize("stop_before", [0, 2])
def test_training_that_fails_leaves_no_file_and_harms_no_former_one(tmp_path, stop_before):
    with pytest.raises(ZeroDivisionError):
        saved(tmp_path / "c.nc", stop_before)
    assert not list(tmp_path.iterdir())
    saved(tmp_path / "c.nc")
    former = (tmp_path / "c.nc").read_bytes()
    with pytest.raises(ZeroDivisionError):
        saved(tmp_path / "c.nc", stop_before)
    assert [path.name for path in tmp_path.iterdir()] == ["c.nc"]
    assert (tmp_path / "c.nc").read_bytes() == former


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_by_name(tmp_path, keep):
    path = tmp_path / "c.nc"
    saved(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    with pytest.raises(StudyError, match=r"c\.nc cannot be read \(.+\): delete it"):
        Checkpoints(path)


def test_a_missing_file_or_one_of_another_kind_is_refused_by_name(tmp_path):
    (tmp_path / "text.nc").write_text("not a checkpoint")
    for name in ("absent.nc", "text.nc"):
        with pytest.raises(StudyError, match=rf"{name} cannot be read"):
            Checkpoints(tmp_path / name)
