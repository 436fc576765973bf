"""Moving results aside, whatever is there already, and registering copied results."""

import json
import os
from base64 import urlsafe_b64encode
from pathlib import Path
from types import SimpleNamespace

import pytest

from plasticity.errors import StudyError
from plasticity.provenance import audit, record, rerun_reasons


def make_file(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_folder(path, text):
    make_file(path / "inside", text)


def read(path):
    return (path / "inside" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("make_earlier", [make_file, make_folder])
@pytest.mark.parametrize("make_later", [make_file, make_folder])
def test_result_that_is_moved_aside_replaces_what_was_moved_there_before(
    tmp_path, make_earlier, make_later
):
    study = tmp_path / "results/s"
    make_earlier(study / "aside/figures/f.png", "earlier")
    make_later(study / "figures/f.png", "later")
    audit.move_aside(study, study / "figures/f.png")
    assert not (study / "figures/f.png").exists()
    assert read(study / "aside/figures/f.png") == "later"


# Copied results


def make_job(rule="draw", lr=1):
    """A Snakemake job with one result, as the audit sees it."""
    params = SimpleNamespace(settings=json.dumps({"lr": lr}), code=json.dumps({"train.py": "0f"}))
    return SimpleNamespace(
        rule=SimpleNamespace(name=rule),
        output=["results/a/t.csv"],
        input=["results/a/d.nc"],
        params=params,
        benchmark="results/a/benchmarks/t.tsv",
        wildcards=["s", "none"],
    )


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A working directory with a result, its record and its input, without Snakemake's metadata."""
    monkeypatch.chdir(tmp_path.resolve())
    dataset, path = Path("results/a/d.nc"), Path("results/a/t.csv")
    make_file(dataset, "data")
    make_file(path, "1")
    stamp = {
        "source": "train",
        "settings": '{"lr": 1}',
        "code": '{"train.py": "0f"}',
        "versions": "{}",
    }
    record.write([path], stamp, {"d.nc": record.digest(dataset)})
    return path


def test_copy_that_matches_is_known(copy):
    assert audit.registration_of(make_job()) == (True, {})


@pytest.mark.parametrize("rule", ["draw", "train_ensemble"])
def test_copy_of_other_settings_is_known_if_it_is_recomputed_in_minutes(copy, rule):
    is_known, changes = audit.registration_of(make_job(rule, lr=2))
    assert is_known == (rule == "draw")
    assert changes == {copy: ["lr: 1 → 2"]}


def test_copy_whose_input_changed_is_recomputed(copy):
    Path("results/a/d.nc").write_text("other data")
    expected = {copy: ["its input d.nc has changed"]}
    assert audit.registration_of(make_job()) == (True, expected)


def test_result_and_benchmark_of_a_copy_become_newer_than_its_input(copy):
    """Snakemake compares the oldest of them with the inputs."""
    make_file(Path("results/a/benchmarks/t.tsv"), "s\n1\n")
    for path in (copy, Path("results/a/benchmarks/t.tsv")):
        os.utime(path, (0, 0))
    audit.make_newest(make_job())
    assert copy.stat().st_mtime > 0
    assert Path("results/a/benchmarks/t.tsv").stat().st_mtime > 0


def test_edited_copy_and_copy_without_a_record_are_unknown(copy):
    copy.write_text("2")
    is_known, changes = audit.registration_of(make_job())
    assert not is_known
    assert "its checksum differs from its record" in changes[copy][0]
    record.record_path(copy).unlink()
    is_known, changes = audit.registration_of(make_job())
    assert not is_known
    assert "has no provenance record" in changes[copy][0]


def write_metadata(path, params):
    """Write Snakemake's metadata of a result."""
    location = Path(".snakemake/metadata") / urlsafe_b64encode(str(path).encode()).decode()
    make_file(location, json.dumps({"params": params, "software_stack_hash": "1"}))
    return location


def test_result_with_metadata_is_left_alone(copy):
    write_metadata(copy, [])
    assert audit.registration_of(make_job(lr=2)) is None


def test_difference_of_a_copy_becomes_the_reason_of_its_rerun(copy):
    location = write_metadata(copy, ["'{}'"])
    audit.annotate_metadata(make_job(), {})
    assert json.loads(location.read_text()) == {"params": ["'{}'"], "software_stack_hash": None}
    audit.annotate_metadata(make_job(), {copy: ["its input d.nc has changed"]})
    params = json.loads(location.read_text())["params"]
    reasons = rerun_reasons.describe_changes(set(params) - {"'{}'"}, set())
    assert reasons == ["its input d.nc has changed"]


def test_only_jobs_that_take_hours_stop_at_unknown_results(copy):
    study = Path("results/a")
    make_file(study / "runs/s/none/0/outcomes.nc", "unknown")
    job = make_job("measure_ensemble")
    job.input = ["results/a/runs/s/none/0/outcomes.nc"]
    message = (
        r"^measure_ensemble s/none would read or replace results/a/runs/s/none/0/outcomes\.nc, "
        r"which was copied .* make audit ARGS=--adopt\. Then start again\.$"
    )
    with pytest.raises(StudyError, match=message):
        audit.check_known([job], study)
    job.rule.name = "draw"
    audit.check_known([job], study)
    job.rule.name, job.input = "measure_ensemble", []
    audit.check_known([job], study)
