"""What is kept of a tuned ensemble: taken back as it was for the same arm and the same making, and for nothing else."""

import json
import os
import re

import pytest

from plasticity.storage import cache as keeping
from plasticity.storage.cache import Kept

STAMP = {
    "source": "train",
    "settings": '{"lr": 0.1}',
    "code": '{"train.py": "0f"}',
    "versions": '{"torch": "2"}',
    "data": "0f",
}
ARM, OTHER = {"strength": 0.1}, {"strength": 0.2}
CONTENT = {"outcomes.nc": b"outcomes", "checkpoints.nc": b"checkpoints"}


@pytest.fixture(autouse=True)
def _informed(caplog):
    caplog.set_level("INFO", "plasticity")


def kept(ensemble, arm=ARM, **stamp):
    return Kept(ensemble, arm, STAMP | stamp, [ensemble / name for name in CONTENT])


def make(ensemble, ending=b""):
    """A job's results, new files in the place of the old."""
    for name, content in CONTENT.items():
        (ensemble / name).unlink(missing_ok=True)
        (ensemble / name).write_bytes(content + ending)


def there(ensemble):
    return {path.name: path.read_bytes() for path in ensemble.iterdir() if path.is_file()}


@pytest.fixture
def ensemble(tmp_path):
    """An ensemble whose results were kept, and then deleted as Snakemake does before it makes them again."""
    make(tmp_path)
    kept(tmp_path).keep()
    for name in CONTENT:
        os.utime(tmp_path / name, (1, 1))
        (tmp_path / name).unlink()
    return tmp_path


def test_what_was_kept_is_taken_back_as_it_was_and_is_new(ensemble, caplog):
    os.utime(ensemble)
    assert kept(ensemble).take_back()
    assert there(ensemble) == CONTENT
    assert all((ensemble / name).stat().st_mtime > 1e9 for name in CONTENT)
    assert "taken back" in caplog.messages[-1]


def test_nothing_is_copied(ensemble):
    assert kept(ensemble).take_back()
    assert all((ensemble / name).stat().st_nlink == 2 for name in CONTENT)


def test_it_takes_the_place_of_results_that_are_still_there(ensemble):
    make(ensemble, b" of another arm")
    assert kept(ensemble).take_back()
    assert there(ensemble) == CONTENT
    assert kept(ensemble).take_back(), "and its own place"
    assert there(ensemble) == CONTENT


def test_what_a_killed_job_left_half_written_is_not_in_the_way(ensemble):
    (ensemble / "outcomes.nc.part").write_bytes(b"half")
    assert kept(ensemble).take_back()
    assert there(ensemble) == CONTENT


def test_it_can_be_taken_back_again_and_again(ensemble):
    for _ in range(3):
        assert kept(ensemble).take_back()
        for name in CONTENT:
            (ensemble / name).unlink()


def test_another_arm_has_its_own(ensemble):
    assert not kept(ensemble, OTHER).take_back()
    assert there(ensemble) == {}
    make(ensemble, b"2")
    kept(ensemble, OTHER).keep()
    for arm, ending in ((ARM, b""), (OTHER, b"2")):
        assert kept(ensemble, arm).take_back()
        assert there(ensemble) == {name: content + ending for name, content in CONTENT.items()}


def test_results_of_another_rule_are_its_own(ensemble):
    assert not kept(ensemble, source="curvature").take_back()


@pytest.mark.parametrize("part", ["settings", "code", "versions", "data"])
def test_what_was_made_of_something_else_is_not_taken_back_and_it_is_said_of_what(
    ensemble, caplog, part
):
    assert not kept(ensemble, **{part: "else"}).take_back()
    assert there(ensemble) == {}
    assert f"made of other {part}" in caplog.messages[-1]


def test_the_last_results_of_an_arm_take_the_place_of_the_former_ones(ensemble):
    make(ensemble, b"2")
    kept(ensemble, code="next").keep()
    assert not kept(ensemble).take_back()
    assert kept(ensemble, code="next").take_back()
    assert len(list((ensemble / "kept" / "train").iterdir())) == 1


def flip(path):
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


HARMS = {
    "a flipped bit": (
        lambda folder: flip(folder / "checkpoints.nc"),
        r"checkpoints\.nc was altered",
    ),
    "a truncated file": (
        lambda folder: os.truncate(folder / "outcomes.nc", 3),
        r"outcomes\.nc was altered",
    ),
    "a missing file": (lambda folder: (folder / "outcomes.nc").unlink(), "cannot be taken back"),
    "a torn note": (lambda folder: os.truncate(folder / "note.json", 30), "cannot be taken back"),
    "a note of other files": (
        lambda folder: (folder / "note.json").write_text(
            json.dumps({"stamp": STAMP, "digests": {}})
        ),
        "cannot be taken back",
    ),
}


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_corrupt_is_not_taken_back_and_the_log_says_so(ensemble, caplog, harm):
    change, said = HARMS[harm]
    change(next((ensemble / "kept" / "train").iterdir()))
    assert not kept(ensemble).take_back()
    assert there(ensemble) == {}
    assert re.search(said, caplog.messages[-1])
    assert caplog.records[-1].levelname == "WARNING"


def test_a_job_that_was_killed_while_it_kept_has_kept_nothing(ensemble):
    (next((ensemble / "kept" / "train").iterdir()) / "note.json").unlink()
    assert not kept(ensemble).take_back()
    make(ensemble)
    kept(ensemble).keep()
    assert kept(ensemble).take_back()


def test_where_links_are_impossible_nothing_is_kept_and_the_results_stay(
    tmp_path, monkeypatch, caplog
):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    make(tmp_path)
    monkeypatch.setattr(os, "link", refuse)
    kept(tmp_path).keep()
    assert "cannot be kept" in caplog.messages[-1]
    assert there(tmp_path) == CONTENT
    assert not kept(tmp_path).take_back()


def test_where_links_became_impossible_nothing_is_taken_back(ensemble, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert not kept(ensemble).take_back()
    assert "cannot be taken back" in caplog.messages[-1]
    assert there(ensemble) == {}


def test_results_are_kept_of_tuned_arms_and_of_the_jobs_of_a_cluster(tmp_path, monkeypatch):
    results = [tmp_path / name for name in CONTENT]
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert keeping.kept(tmp_path, None, STAMP, results) is None, (
        "elsewhere Snakemake knows what was finished"
    )
    assert keeping.kept(tmp_path, ARM, STAMP, results)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    make(tmp_path)
    keeping.kept(tmp_path, None, STAMP, results).keep()
    for path in results:
        path.unlink()
    assert not keeping.kept(tmp_path, ARM, STAMP, results).take_back(), "that of an arm is another"
    assert not keeping.kept(tmp_path, None, STAMP | {"data": "1e"}, results).take_back()
    monkeypatch.delenv("SLURM_JOB_ID")
    assert keeping.kept(tmp_path, None, STAMP, results).take_back(), (
        "also by a start without the cluster"
    )
    assert there(tmp_path) == CONTENT
