"""A study may extend another one and be changed on the command line; all layers merge alike."""

import copy
import json
import re

import pytest
import yaml
from configs import ABSENT, CONFIG, changed

from plasticity.config import study
from plasticity.config.layers import merge, parse_assignment, read_config, without_dots
from plasticity.config.names import REPOSITORY
from plasticity.errors import StudyError


@pytest.fixture
def write(tmp_path):
    """Return `write(name, config)`, which writes a config file and returns its path."""
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(CONFIG))

    def write_config(name, config):
        path = tmp_path / name
        text = config if isinstance(config, str) else yaml.safe_dump(config)
        path.write_text(text, encoding="utf-8")
        return path

    return write_config


def test_mappings_are_merged_and_all_else_is_replaced():
    base = {"a": {"b": [1, 2], "c": 3, "d": {"e": 4}}, "f": 5, "g": {"h": 6}}
    original = copy.deepcopy(base)
    changes = {"a": {"b": [7], "d": {"i": {}}}, "f": {"j": 8}, "g": 9}
    assert merge(base, changes, "x") == {
        "a": {"b": [7], "c": 3, "d": {"e": 4, "i": {}}},
        "f": {"j": 8},
        "g": 9,
    }
    assert base == original


def test_null_removes_a_key():
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": None}, "d": None}, "x") == {
        "a": {"c": 2}
    }


def test_null_for_a_key_that_is_not_there_is_refused():
    message = "x: a.bb is null, which removes a key, but there is none with this name. Did you mean"
    with pytest.raises(StudyError, match=re.escape(f"{message} 'b'? Known: b.")):
        merge({"a": {"b": 1}}, {"a": {"bb": None}}, "x")
    with pytest.raises(StudyError, match=r"x: c\.d is null"):
        merge({}, {"c": {"d": None}}, "x")


def test_extended_study_equals_the_one_that_is_written_out(write):
    path = write(
        "mine.yaml",
        """
        extends: base.yaml
        study: mine
        seeds: {report: 7}
        settings:
          other: null
          row: {problem: {samples: 48}, network: {kind: cnn, width: null, depth: null}}
        methods: {l2: {strength: 0.5}}
        """,
    )
    written_out = changed(
        ("study", "mine"),
        ("seeds.report", 7),
        ("settings.other", ABSENT),
        ("settings.row.problem.samples", 48),
        ("settings.row.network", {"kind": "cnn", "activation": "relu"}),
        ("methods.l2.strength", 0.5),
    )
    config = read_config([path])
    assert config == written_out
    assert study.read(config) == study.read(written_out)


def test_study_extends_a_study_by_name(write):
    path = write("mine.yaml", {"extends": "mnist", "study": "mine", "seeds_per_job": 1})
    mnist = yaml.safe_load((REPOSITORY / "studies/mnist.yaml").read_text())
    assert read_config([path]) == mnist | {"study": "mine", "seeds_per_job": 1}


def test_default_study_can_be_extended_from_another_folder(write, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    path = write("config.yaml", {"extends": "default", "study": "mine"})
    default = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    assert read_config([path]) == default | {"study": "mine"}


def test_extensions_form_a_chain(write):
    write("first.yaml", {"extends": "base.yaml", "study": "first", "seeds_per_job": 3})
    path = write("second.yaml", {"extends": "first.yaml", "study": "second"})
    assert read_config([path]) == changed(("study", "second"), ("seeds_per_job", 3))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"extends": "mnits", "study": "a"}, "extends: There is no study 'mnits'. Did you mean"),
        ({"extends": "no.yaml", "study": "a"}, "extends: The study no.yaml does not exist"),
        ({"extends": ["mnist"], "study": "a"}, "extends is ['mnist']. Write the name of a study"),
        ({"extends": "mnist"}, "has no name of its own, so it would replace the results of mnist"),
        ({"extends": "a.yaml", "study": "a"}, "a circle. Remove one of the keys 'extends'"),
        ({"extends": "b.yaml", "study": "a"}, "a circle. Remove one of the keys 'extends'"),
        ({"extends": "broken.yaml", "study": "a"}, "broken.yaml, line 1, column 8"),
    ],
    ids=["name", "path", "list", "without a name", "itself", "circle", "broken"],
)
def test_extension_that_cannot_be_read_is_refused_in_a_line(write, config, words):
    write("b.yaml", {"extends": "a.yaml", "study": "b"})
    write("broken.yaml", "seeds: 0400\n")
    path = write("a.yaml", config)
    with pytest.raises(StudyError, match=re.escape(words)) as refused:
        read_config([path])
    assert str(path) in str(refused.value) or "broken.yaml" in words
    assert "\n" not in str(refused.value)


def test_further_files_change_the_first_in_order(write, tmp_path):
    first = write("first.yaml", {"seeds": {"report": 2}, "seeds_per_job": 1})
    second = write("second.yaml", {"seeds": {"report": 3}, "methods": {"l2": None}})
    config = read_config([tmp_path / "base.yaml", first, second])
    assert config == changed(("seeds.report", 3), ("seeds_per_job", 1), ("methods.l2", ABSENT))


def test_second_file_that_extends_is_refused(write, tmp_path):
    second = write("second.yaml", {"extends": "mnist", "study": "second"})
    with pytest.raises(StudyError, match=r"second\.yaml is the second config file, so it changes"):
        read_config([tmp_path / "base.yaml", second])


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("seeds.report=2", {"seeds": {"report": 2}}),
        ("seeds={report: 2}", {"seeds": {"report": 2}}),
        ("seeds={'report': 2, 'tune': 1}", {"seeds": {"report": 2, "tune": 1}}),
        ("methods.l2.strength=[0.1, 1.0e-3]", {"methods": {"l2": {"strength": [0.1, 0.001]}}}),
        ("study=mine", {"study": "mine"}),
        ("interventions=", {"interventions": None}),
        ("a=b=c", {"a": "b=c"}),
    ],
)
def test_assignment_is_read_like_a_line_of_a_config_file(text, changes):
    assert parse_assignment(text) == changes
    key, value = without_dots(text).split("=", 1)
    assert "." not in key
    assert {key: yaml.safe_load(value)} == changes


@pytest.mark.parametrize("text", ["seeds", "=2", "seeds.=2", ".report=2"])
def test_assignment_without_a_key_is_refused(text):
    with pytest.raises(StudyError, match=r"sets no key\. Write KEY=VALUE"):
        parse_assignment(text)


def test_assignment_that_is_not_yaml_is_refused():
    with pytest.raises(StudyError, match=r"is not YAML\. Check its brackets"):
        parse_assignment("seeds={report: 2")


def test_assignments_change_the_files_in_order(write, tmp_path):
    assignments = ["seeds.report=2", "seeds={report: 3}", "methods.l2="]
    config = read_config([tmp_path / "base.yaml"], assignments)
    assert config == changed(("seeds.report", 3), ("methods.l2", ABSENT))


def test_misspelt_key_of_an_assignment_is_refused_with_the_closest_one(tmp_path, write):
    config = read_config([tmp_path / "base.yaml"], ["seeds.reprot=2"])
    message = "seeds has an unknown key 'reprot'. Did you mean 'report'?"
    with pytest.raises(StudyError, match=re.escape(message)):
        study.read(config)


def test_numbers_of_a_json_file_are_numbers(write):
    path = write("study.json", json.dumps(changed(("methods.l2.strength", 1e-5))))
    assert "1e-05" in path.read_text()
    assert read_config([path])["methods"]["l2"]["strength"] == 1e-5
