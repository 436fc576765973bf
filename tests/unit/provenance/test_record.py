"""Records of results: their paths and content, the check of inputs, and the lineage of a result."""

import json
import os
from pathlib import Path

import pytest

import plasticity
from plasticity.errors import StudyError
from plasticity.provenance import code_digest, lineage, record

STAMP = {
    "source": "train",
    "contract": "2",
    "settings": '{"lr": 1}',
    "code": '{"train.py": "0f", "torch": "2"}',
    "versions": '{"python": "3"}',
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository with a style file, as the working folder."""
    root = tmp_path.resolve()
    monkeypatch.setattr(code_digest, "ROOT", root)
    monkeypatch.setattr(lineage, "ROOT", root)
    monkeypatch.chdir(root)
    (root / "workflow").mkdir()
    (root / "workflow/style.yaml").write_text("wide")
    return root


def write_result(name, content, *inputs, source="train"):
    """Write a result of study `a` with its record."""
    path = code_digest.ROOT / "results/a" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    digests = {record.portable_name(file): record.digest(file) for file in inputs}
    record.write([path], STAMP | {"source": source}, digests)
    return path


def test_record_has_the_path_of_its_result_and_tells_how_it_was_computed(root):
    data = write_result("data/x.nc", "data", source="prepare")
    path = write_result("runs/s/m/0-4/outcomes.nc", "outcomes", data)
    location = root / "results/a/provenance/runs/s/m/0-4/outcomes.nc.json"
    assert record.record_path(path) == record.record_path(path.relative_to(root)) == location
    content = json.loads(location.read_text())
    assert content["sha256"] == record.digest(path)
    assert content["inputs"] == {"data/x.nc": record.digest(data)}
    assert content["source"] == "train"
    assert content["settings"] == {"lr": 1}
    assert content["code"] == {"train.py": "0f", "torch": "2"}
    assert (content["commit"], content["changed"]) == ("", False), "this is no git repository"
    assert content["release"] == plasticity.__version__
    assert vars(record.read(path)) == content
    assert not list(location.parent.glob("*.part"))


def test_record_without_a_release_is_read(root):
    path = write_result("data/x.nc", "data", source="prepare")
    content = json.loads(record.record_path(path).read_text())
    del content["release"]
    record.record_path(path).write_text(json.dumps(content))
    assert record.read(path).release == ""


def test_portable_name_is_relative_to_the_study_or_to_the_repository(root):
    assert record.portable_name(root / "results/a/tables/t.csv") == "tables/t.csv"
    assert record.portable_name(root / "workflow/style.yaml") == "workflow/style.yaml"


def test_file_outside_the_repository_has_a_bare_name_and_no_record(root, tmp_path_factory):
    path = tmp_path_factory.mktemp("elsewhere") / "t.csv"
    path.write_text("1")
    assert record.portable_name(path) == "t.csv"
    record.write([path], STAMP, {})
    assert [file.name for file in path.parent.iterdir()] == ["t.csv"]
    assert record.record_path(path) is None
    assert record.checked_digest(path) == record.digest(path)


def test_input_that_differs_from_its_record_or_is_missing_is_refused_by_name(root):
    path = write_result("tables/t.csv", "1\n", source="analyse")
    assert record.checked_digest(path) == record.digest(path)
    path.write_text("2\n")
    message = (
        r"t\.csv differs from the file that analyse wrote.*edited, or copied incompletely.*"
        "delete it and start snakemake again"
    )
    with pytest.raises(StudyError, match=message):
        record.checked_digest(path)
    path.unlink()
    with pytest.raises(StudyError, match=r"t\.csv cannot be read \(No such file"):
        record.checked_digest(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"sha256": "0"}'])
def test_damaged_record_is_ignored(root, text):
    path = write_result("tables/t.csv", "1\n")
    record.record_path(path).write_text(text)
    assert record.read(path) is None
    assert record.checked_digest(path) == record.digest(path)


def test_record_that_cannot_be_written_gives_one_sentence(root):
    path = write_result("tables/t.csv", "1\n")
    location = record.record_path(path)
    location.unlink()
    location.mkdir()
    message = (
        r"t\.csv\.json could not be written \(Is a directory\): free space or give yourself write"
    )
    with pytest.raises(StudyError, match=message):
        record.write([path], STAMP, {})
    assert [file.name for file in location.parent.iterdir()] == ["t.csv.json"]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_folder_or_pipe_is_refused_as_an_input(root, make):
    path = root / "results/a/data/x.nc"
    path.parent.mkdir(parents=True)
    make(path)
    with pytest.raises(StudyError, match=r"x\.nc cannot be read \(it is not a file\): delete it"):
        record.checked_digest(path)


# Lineage


@pytest.fixture
def figure(root):
    """A figure of a table and a dataset of two runs on the same data, in the study's style."""
    data = write_result("data/x.nc", "data", source="prepare")
    runs = [
        write_result(f"runs/s/{method}/0/outcomes.nc", method, data) for method in ("none", "l2")
    ]
    dataset = write_result("datasets/s.nc", "s", *runs, source="gather")
    table = write_result("tables/t.csv", "1", dataset, source="analyse")
    style = root / "workflow/style.yaml"
    return write_result("figures/f.svg", "<svg/>", dataset, table, style, source="draw")


def mismatches_by_name(figure):
    """Return the mismatches in the lineage of a figure, by file name."""
    return {step.name: step.mismatches for step in lineage.trace(figure) if step.mismatches}


def test_lineage_leads_to_the_data_with_each_file_before_its_inputs(figure):
    steps = lineage.trace(figure)
    names = [step.name for step in steps]
    assert names[0] == "figures/f.svg"
    assert names[-1] == "data/x.nc"
    assert len(names) == len(set(names)) == 7
    for step in steps:
        inputs = step.record.inputs if step.record else ()
        assert all(names.index(name) > names.index(step.name) for name in inputs)
    assert not [step for step in steps if step.mismatches]
    assert [step.name for step in steps if step.record is None] == ["workflow/style.yaml"]


def test_only_wanted_inputs_are_followed(figure):
    names = [step.name for step in lineage.trace(figure, lambda name: "l2" not in name)]
    assert "runs/s/none/0/outcomes.nc" in names
    assert "runs/s/l2/0/outcomes.nc" not in names


def test_edited_file_is_a_mismatch_where_it_is_and_where_it_was_used(figure, root):
    (root / "results/a/runs/s/l2/0/outcomes.nc").write_text("edited")
    (root / "workflow/style.yaml").write_text("narrow")
    assert mismatches_by_name(figure) == {
        "figures/f.svg": ["its input workflow/style.yaml has changed"],
        "datasets/s.nc": ["its input runs/s/l2/0/outcomes.nc has changed"],
        "runs/s/l2/0/outcomes.nc": [
            "its checksum differs from its record: it was edited, or copied incompletely"
        ],
    }


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_folder_or_pipe_in_place_of_a_file_is_a_mismatch_where_it_is_and_where_it_was_used(
    figure, root, make
):
    outcomes = root / "results/a/runs/s/l2/0/outcomes.nc"
    outcomes.unlink()
    make(outcomes)
    assert mismatches_by_name(figure) == {
        "datasets/s.nc": ["its input runs/s/l2/0/outcomes.nc has changed"],
        "runs/s/l2/0/outcomes.nc": ["is not a file"],
    }


def test_recomputed_input_is_a_mismatch_where_it_was_used(figure, root):
    write_result("data/x.nc", "other data", source="prepare")
    path = root / "results/a/runs/s/none/0/outcomes.nc"
    assert list(lineage.mismatches(path)) == ["its input data/x.nc has changed"]


def test_deleted_file_is_no_mismatch_where_it_was_used(figure, root):
    (root / "results/a/runs/s/l2/0/outcomes.nc").unlink()
    assert mismatches_by_name(figure) == {"runs/s/l2/0/outcomes.nc": ["does not exist"]}


@pytest.mark.parametrize(
    ("name", "message"),
    [("results/a/none.csv", "does not exist"), ("workflow/style.yaml", "has no provenance record")],
)
def test_file_that_is_no_result_has_no_lineage(figure, root, name, message):
    with pytest.raises(StudyError, match=message):
        lineage.trace(root / name)
