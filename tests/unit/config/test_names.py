"""A study has one name in every command, and other names are refused with the closest known one."""

import re
import subprocess
from pathlib import Path

import pytest

from plasticity.config.names import REPOSITORY, find, known_studies, name_of
from plasticity.errors import StudyError

STUDIES = REPOSITORY / "studies"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("default", REPOSITORY / "config.yaml"),
        ("config", REPOSITORY / "config.yaml"),
        ("digits", REPOSITORY / "config.yaml"),
        ("mnist", STUDIES / "mnist.yaml"),
        ("small/mnist", STUDIES / "small/mnist.yaml"),
        ("mnist_small", STUDIES / "small/mnist.yaml"),
        (str(STUDIES / "mnist.yaml"), STUDIES / "mnist.yaml"),
    ],
)
def test_study_is_found_by_name_and_by_path(name, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find(name) == path


def test_path_of_a_study_in_the_working_directory_is_relative(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert find("mnist") == Path("studies/mnist.yaml")
    assert find("studies/mnist.yaml") == Path("studies/mnist.yaml")


def test_path_is_relative_to_the_given_folder(tmp_path):
    (tmp_path / "mine.yaml").write_text("study: mine\n")
    assert find("mine.yaml", tmp_path) == tmp_path / "mine.yaml"


def test_study_of_the_working_directory_comes_before_that_of_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies/mnist.yaml").write_text("study: mine\n")
    assert find("mnist") == find("mine") == Path("studies/mnist.yaml")
    assert find("small/mnist") == STUDIES / "small/mnist.yaml"


@pytest.mark.parametrize("name", ["mnits", "mnist.yml", "studies/mnits.yaml", "results/mnist"])
def test_unknown_study_is_refused_in_a_line_that_lists_all(name):
    with pytest.raises(StudyError) as refused:
        find(name)
    message = str(refused.value)
    assert repr(name) in message or f" {name} " in message
    assert "Known: cifar10, digits, drawn, " in message
    assert "small/mnist" in message
    assert "\n" not in message


def test_closest_name_is_suggested():
    with pytest.raises(StudyError, match=re.escape("'mnits'. Did you mean 'mnist'? Known: ")):
        find("mnits")


def test_every_study_is_named_as_it_is_found(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    for path in set(known_studies().values()):
        assert find(name_of(path)).resolve() == path
    assert name_of(Path("studies/mnist.yaml")) == "mnist"
    assert name_of(Path("other.yaml")) == "other.yaml"


# make


def make(*arguments):
    """Print what make would run in the repository."""
    command = ["make", "--no-print-directory", "--dry-run", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "target", ["run", "why", "cost", "figures", "audit", "reproduce", "explore"]
)
def test_every_command_about_a_study_takes_its_name(target):
    named = make(target, "STUDY=small/mnist", "ARGS=--port 3").stdout
    assert re.search(rf"\w+\.py --study 'small/mnist' --port 3( {target})?$", named.strip())
    assert "--study" not in make(target).stdout


@pytest.mark.parametrize(
    ("variable", "suggestion"),
    [("CONFIG", "STUDY=mnist.yaml"), ("STUDIES", "STUDY=mnist.yaml"), ("TARGET", "STUDY=mnist,")],
)
def test_unknown_variable_of_make_is_refused_with_the_right_one(variable, suggestion):
    process = make("run", f"{variable}=mnist.yaml", "ARGS=-n")
    assert process.returncode != 0
    assert f"{variable}= is unknown here: name a study by STUDY=, such as " in process.stderr
    assert suggestion in process.stderr
    assert not process.stdout
