"""Shared by the tests of the workflow: the tiny study, copied to be changed, or killed while it trains."""

import json
from pathlib import Path

import pytest
from projects import Project, copied, copy_repository, kill_in_training


@pytest.fixture
def copy(built, tmp_path):
    """The built study in another folder, to be changed."""
    with copied(built, tmp_path / "copy") as project:
        yield project


@pytest.fixture(scope="module")
def another(built, tmp_path_factory):
    """The built study in another folder, to be changed by the tests of one file."""
    with copied(built, tmp_path_factory.mktemp("another") / "copy") as project:
        yield project


@pytest.fixture(scope="session")
def killed(shared, env):
    """The tiny study, killed in the midst of training with all its jobs, and after which task each was; not yet built again."""

    def make(root: Path) -> None:
        copy_repository(root)
        (root / "left.json").write_text(json.dumps(kill_in_training(Project(root, env).unforked)))

    root = shared("killed", make)
    return Project(root, env), json.loads((root / "left.json").read_text())


@pytest.fixture(scope="session")
def again(killed, shared):
    """The tiny study's datasets from nothing once more, in another folder, though it was killed while it trained."""
    project, _ = killed

    def make(done: Path) -> None:
        project.build("--rerun-incomplete", "datasets")
        done.touch()

    shared("again", make)
    return project
