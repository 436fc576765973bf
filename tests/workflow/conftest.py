"""Fixtures of the workflow tests: copies of the tiny study, and one whose training was killed."""

import json
from pathlib import Path

import pytest
from projects import Project, copy_project, copy_repository, kill_in_training


@pytest.fixture
def built_copy(tiny_study, tmp_path):
    """Copy the built study for one test, which may change it."""
    with copy_project(tiny_study, tmp_path / "copy") as project:
        yield project


@pytest.fixture(scope="module")
def changed_copy(tiny_study, tmp_path_factory):
    """Copy the built study for the tests of one file, which may change it."""
    with copy_project(tiny_study, tmp_path_factory.mktemp("another") / "copy") as project:
        yield project


@pytest.fixture(scope="session")
def killed_study(shared, env):
    """Kill the tiny study while it trains, once; also return the last task of each killed job."""

    def kill(root: Path) -> None:
        copy_repository(root)
        last_tasks = kill_in_training(Project(root, env).unforked)
        (root / "last_tasks.json").write_text(json.dumps(last_tasks))

    root = shared("killed", kill)
    return Project(root, env), json.loads((root / "last_tasks.json").read_text())


@pytest.fixture(scope="session")
def resumed_study(killed_study, shared):
    """Resume the killed study until its datasets are complete, once, to read only."""
    project, _ = killed_study

    def resume(marker: Path) -> None:
        project.build("--rerun-incomplete", "datasets")
        marker.touch()

    shared("again", resume)
    return project
