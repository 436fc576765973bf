"""Records of results: where they lie, what they say, that what differs from them is refused, and the way back along them."""

import json

import pytest

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
    """A repository with a style and the results of a study, in which the process is at work."""
    root = tmp_path.resolve()
    monkeypatch.setattr(code_digest, "ROOT", root)
    monkeypatch.setattr(lineage, "ROOT", root)
    monkeypatch.chdir(root)
    (root / "workflow").mkdir()
    (root / "workflow/style.yaml").write_text("wide")
    return root


def made(name, content, *inputs, source="train"):
    """A result of study `a` with its record."""
    path = code_digest.ROOT / "results/a" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    record.write(
        [path], STAMP | {"source": source}, {record.name(one): record.digest(one) for one in inputs}
    )
    return path


def test_a_record_lies_on_the_results_own_path_and_says_what_the_result_was_made_with(root):
    data = made("data/x.nc", "data", source="prepare")
    path = made("runs/s/m/0-4/outcomes.nc", "outcomes", data)
    place = root / "results/a/provenance/runs/s/m/0-4/outcomes.nc.json"
    assert record.place(path) == record.place(path.relative_to(root)) == place
    said = json.loads(place.read_text())
    assert said["sha256"] == record.digest(path)
    assert said["inputs"] == {"data/x.nc": record.digest(data)}
    assert (said["source"], said["settings"], said["code"]) == (
        "train",
        {"lr": 1},
        {"train.py": "0f", "torch": "2"},
    )
    assert (said["commit"], said["changed"]) == ("", False), "no repository of git"
    assert vars(record.read(path)) == said
    assert not list(place.parent.glob("*.part"))


def test_files_are_called_by_their_path_in_the_study_or_in_the_repository_and_others_have_no_record(
    root, tmp_path_factory
):
    assert record.name(root / "results/a/tables/t.csv") == "tables/t.csv"
    assert record.name(root / "workflow/style.yaml") == "workflow/style.yaml"
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "t.csv"
    elsewhere.write_text("1")
    assert record.name(elsewhere) == "t.csv"
    record.write([elsewhere], STAMP, {})
    assert [path.name for path in elsewhere.parent.iterdir()] == ["t.csv"]
    assert record.place(elsewhere) is None
    assert record.checked(elsewhere) == record.digest(elsewhere)


def test_an_input_that_is_not_what_its_record_says_is_refused_by_name(root):
    path = made("tables/t.csv", "1\n", source="analyse")
    assert record.checked(path) == record.digest(path)
    path.write_text("2\n")
    with pytest.raises(
        StudyError,
        match=r"t\.csv is not what analyse made .*edited, or copied by half.*delete it and start snakemake again",
    ):
        record.checked(path)
    path.unlink()
    with pytest.raises(StudyError, match=r"t\.csv cannot be read \(No such file"):
        record.checked(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"sha256": "0"}'])
def test_a_record_that_is_torn_is_none(root, text):
    path = made("tables/t.csv", "1\n")
    record.place(path).write_text(text)
    assert record.read(path) is None
    assert record.checked(path) == record.digest(path)


def test_a_record_that_cannot_be_written_is_said_in_a_sentence(root):
    path = made("tables/t.csv", "1\n")
    record.place(path).unlink()
    record.place(path).mkdir()
    with pytest.raises(
        StudyError,
        match=r"t\.csv\.json could not be written \(Is a directory\): free space or mend its permissions",
    ):
        record.write([path], STAMP, {})
    assert [path.name for path in record.place(path).parent.iterdir()] == ["t.csv.json"]


@pytest.fixture
def chain(root):
    """Data, two runs, a dataset, a table, and a figure in the study's style."""
    data = made("data/x.nc", "data", source="prepare")
    runs = [made(f"runs/s/{method}/0/outcomes.nc", method, data) for method in ("none", "l2")]
    dataset = made("datasets/s.nc", "s", *runs, source="gather")
    table = made("tables/t.csv", "1", dataset, source="analyse")
    return made(
        "figures/f.svg", "<svg/>", dataset, table, root / "workflow/style.yaml", source="draw"
    )


def test_the_way_back_goes_to_the_data_and_each_file_comes_before_all_that_it_was_made_of(chain):
    steps = lineage.chain(chain)
    names = [step.name for step in steps]
    assert names[0] == "figures/f.svg"
    assert names[-1] == "data/x.nc"
    assert len(names) == len(set(names)) == 7
    assert all(
        names.index(one) > names.index(step.name)
        for step in steps
        if step.record
        for one in step.record.inputs
    )
    assert not [step for step in steps if step.faults]
    assert [step.name for step in steps if step.record is None] == ["workflow/style.yaml"]


def test_only_what_is_wanted_is_followed(chain):
    names = [step.name for step in lineage.chain(chain, lambda name: "l2" not in name)]
    assert "runs/s/none/0/outcomes.nc" in names
    assert "runs/s/l2/0/outcomes.nc" not in names


def test_what_was_edited_or_made_anew_is_said_where_it_is_and_where_it_was_used(chain, root):
    (root / "results/a/runs/s/l2/0/outcomes.nc").write_text("edited")
    (root / "workflow/style.yaml").write_text("narrow")
    faults = {step.name: step.faults for step in lineage.chain(chain) if step.faults}
    assert faults == {
        "figures/f.svg": ["was made of another workflow/style.yaml"],
        "datasets/s.nc": ["was made of another runs/s/l2/0/outcomes.nc"],
        "runs/s/l2/0/outcomes.nc": ["is not what was made: edited, or copied by half"],
    }
    made("data/x.nc", "other data", source="prepare")
    assert list(lineage.faults(root / "results/a/runs/s/none/0/outcomes.nc")) == [
        "was made of another data/x.nc"
    ]


def test_what_was_deleted_is_said_but_spoils_nothing_that_was_made_of_it(chain, root):
    (root / "results/a/runs/s/l2/0/outcomes.nc").unlink()
    assert {step.name: step.faults for step in lineage.chain(chain) if step.faults} == {
        "runs/s/l2/0/outcomes.nc": ["is not there"]
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [("results/a/none.csv", "is not there"), ("workflow/style.yaml", "has no record")],
)
def test_a_file_that_is_no_result_has_no_way_back(chain, root, name, said):
    with pytest.raises(StudyError, match=said):
        lineage.chain(root / name)
