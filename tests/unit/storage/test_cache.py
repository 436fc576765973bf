"""The cache of finished results restores them for the same arm and stamp, and for nothing else."""

import json
import os
import re

import pytest

from plasticity.provenance import launcher
from plasticity.storage.cache import ResultCache, open_cache

STAMP = {
    "source": "train",
    "settings": '{"lr": 0.1}',
    "code": '{"train.py": "0f"}',
    "versions": '{"torch": "2"}',
    "data": "0f",
}
ARM, OTHER_ARM = {"strength": 0.1}, {"strength": 0.2}
CONTENT = {"outcomes.nc": b"outcomes", "checkpoints.nc": b"checkpoints"}


@pytest.fixture(autouse=True)
def _log_level(caplog):
    caplog.set_level("INFO", "plasticity")


def cache_of(ensemble, arm=ARM, **stamp):
    """Return the cache of an ensemble's training job."""
    return ResultCache(ensemble, arm, STAMP | stamp, [ensemble / name for name in CONTENT])


def write_results(ensemble, ending=b""):
    """Write the results of a job, as new files in place of the old."""
    for name, content in CONTENT.items():
        (ensemble / name).unlink(missing_ok=True)
        (ensemble / name).write_bytes(content + ending)


def read_results(ensemble):
    """Return the content of the files in the ensemble's folder."""
    return {path.name: path.read_bytes() for path in ensemble.iterdir() if path.is_file()}


def refuse_link(*_):
    """Fail as a file system without hard links does."""
    raise OSError(1, "Operation not permitted")


@pytest.fixture
def ensemble(tmp_path):
    """An ensemble with cached results, whose outputs Snakemake then deleted."""
    write_results(tmp_path)
    cache_of(tmp_path).store()
    for name in CONTENT:
        os.utime(tmp_path / name, (1, 1))
        (tmp_path / name).unlink()
    return tmp_path


def test_restored_results_equal_the_stored_ones_and_are_new(ensemble, caplog):
    os.utime(ensemble)
    assert cache_of(ensemble).restore()
    assert read_results(ensemble) == CONTENT
    assert all((ensemble / name).stat().st_mtime > 1e9 for name in CONTENT)
    assert "restored from" in caplog.messages[-1]


def test_restored_results_are_links(ensemble):
    assert cache_of(ensemble).restore()
    assert all((ensemble / name).stat().st_nlink == 2 for name in CONTENT)


def test_restored_results_replace_existing_ones(ensemble):
    write_results(ensemble, b" of another arm")
    assert cache_of(ensemble).restore()
    assert read_results(ensemble) == CONTENT
    assert cache_of(ensemble).restore(), "also when the existing ones are its own links"
    assert read_results(ensemble) == CONTENT


def test_unfinished_file_of_a_killed_job_does_not_prevent_restoring(ensemble):
    (ensemble / "outcomes.nc.part").write_bytes(b"half")
    assert cache_of(ensemble).restore()
    assert read_results(ensemble) == CONTENT


def test_results_can_be_restored_many_times(ensemble):
    for _ in range(3):
        assert cache_of(ensemble).restore()
        for name in CONTENT:
            (ensemble / name).unlink()


def test_each_arm_has_its_own_results(ensemble):
    assert not cache_of(ensemble, OTHER_ARM).restore()
    assert read_results(ensemble) == {}
    write_results(ensemble, b"2")
    cache_of(ensemble, OTHER_ARM).store()
    for arm, ending in ((ARM, b""), (OTHER_ARM, b"2")):
        assert cache_of(ensemble, arm).restore()
        assert read_results(ensemble) == {
            name: content + ending for name, content in CONTENT.items()
        }


def test_each_rule_has_its_own_results(ensemble):
    assert not cache_of(ensemble, source="curvature").restore()


@pytest.mark.parametrize("part", ["settings", "code", "versions", "data"])
def test_results_with_another_stamp_are_not_restored_and_the_log_tells_why(ensemble, caplog, part):
    assert not cache_of(ensemble, **{part: "else"}).restore()
    assert read_results(ensemble) == {}
    assert f"has other {part}" in caplog.messages[-1]


def test_stored_results_replace_former_ones_of_the_same_arm(ensemble):
    write_results(ensemble, b"2")
    cache_of(ensemble, code="next").store()
    assert not cache_of(ensemble).restore()
    assert cache_of(ensemble, code="next").restore()
    assert len(list((ensemble / "cache" / "train").iterdir())) == 1


def flip_first_bit(path):
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a flipped bit": (
        lambda folder: flip_first_bit(folder / "checkpoints.nc"),
        r"checkpoints\.nc was altered",
    ),
    "a truncated file": (
        lambda folder: os.truncate(folder / "outcomes.nc", 3),
        r"outcomes\.nc was altered",
    ),
    "a missing file": (lambda folder: (folder / "outcomes.nc").unlink(), "cannot be restored"),
    "a truncated note": (
        lambda folder: os.truncate(folder / "note.json", 30),
        "cannot be restored",
    ),
    "a note of other files": (
        lambda folder: (folder / "note.json").write_text(
            json.dumps({"stamp": STAMP, "digests": {}})
        ),
        "cannot be restored",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_results_are_not_restored_and_the_log_tells_why(ensemble, caplog, damage):
    apply_damage, message = DAMAGES[damage]
    apply_damage(next((ensemble / "cache" / "train").iterdir()))
    assert not cache_of(ensemble).restore()
    assert read_results(ensemble) == {}
    assert re.search(message, caplog.messages[-1])
    assert caplog.records[-1].levelname == "WARNING"


def test_job_killed_while_storing_has_stored_nothing(ensemble):
    (next((ensemble / "cache" / "train").iterdir()) / "note.json").unlink()
    assert not cache_of(ensemble).restore()
    write_results(ensemble)
    cache_of(ensemble).store()
    assert cache_of(ensemble).restore()


def test_nothing_is_stored_without_hard_links_and_the_results_stay(tmp_path, monkeypatch, caplog):
    write_results(tmp_path)
    monkeypatch.setattr(os, "link", refuse_link)
    cache_of(tmp_path).store()
    assert "cannot be cached" in caplog.messages[-1]
    assert read_results(tmp_path) == CONTENT
    assert not cache_of(tmp_path).restore()


def test_nothing_is_restored_without_hard_links(ensemble, monkeypatch, caplog):
    monkeypatch.setattr(os, "link", refuse_link)
    assert not cache_of(ensemble).restore()
    assert "cannot be restored" in caplog.messages[-1]
    assert read_results(ensemble) == {}


@pytest.mark.parametrize(
    ("launcher_is_alive", "arm", "is_stored"),
    [(True, None, False), (True, ARM, True), (False, None, True)],
)
def test_results_are_stored_if_an_arm_is_selected_or_the_launcher_is_dead(
    tmp_path, monkeypatch, launcher_is_alive, arm, is_stored
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(launcher, "has_died", lambda: not launcher_is_alive)
    write_results(tmp_path)
    cache = open_cache(tmp_path, arm, STAMP, [tmp_path / name for name in CONTENT])
    cache.store()
    assert cache.restore() == is_stored


def test_cluster_jobs_store_their_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = [tmp_path / name for name in CONTENT]
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    write_results(tmp_path)
    open_cache(tmp_path, None, STAMP, results).store()
    for path in results:
        path.unlink()
    assert not open_cache(tmp_path, ARM, STAMP, results).restore(), "an arm has its own cache"
    assert not open_cache(tmp_path, None, STAMP | {"data": "1e"}, results).restore()
    monkeypatch.delenv("SLURM_JOB_ID")
    assert open_cache(tmp_path, None, STAMP, results).restore(), "also outside the cluster"
    assert read_results(tmp_path) == CONTENT
