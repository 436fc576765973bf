"""Atomic writes leave the former file or the complete new one."""

import errno
import os

import pytest

from plasticity.atomic import atomic_write, explain_write_errors
from plasticity.errors import StudyError


def test_file_is_replaced_when_the_body_ends(tmp_path):
    path = tmp_path / "new" / "a.txt"
    for content in ("one", "two"):
        with atomic_write(path) as part:
            part.write_text(content)
            assert not path.exists() or path.read_text() != content
    assert path.read_text() == "two"
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


def test_failed_body_leaves_the_former_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("former")

    def fail():
        with atomic_write(path) as part:
            part.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "former"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), RuntimeError("NetCDF: HDF error")]
)
def test_write_error_names_the_file_and_what_to_do(tmp_path, failure):
    message = r"a\.nc could not be written \(.+\): free space or give yourself write permission"
    with pytest.raises(StudyError, match=message), explain_write_errors(tmp_path / "a.nc"):
        raise failure


def test_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(StudyError, match=r"a\.txt could not be written"),
        atomic_write(tmp_path / "file" / "a.txt"),
    ):
        pytest.fail("the folder cannot be created")
