"""Fixtures: a cluster, and projects that run on it."""

import os
import shutil
import signal
from collections.abc import Callable
from typing import Any

import cluster as lab
import pytest
import yaml
from on_cluster import Project
from projects import copy_repository


@pytest.fixture(scope="module")
def cluster(request, tmp_path_factory):
    """A cluster for the tests of one file, with accounting if the file sets `ACCOUNTING`."""
    accounting = getattr(request.module, "ACCOUNTING", False)
    if reason := lab.missing(accounting):
        pytest.skip(reason)
    cluster = lab.Cluster(tmp_path_factory.mktemp("cluster"), accounting)
    cluster.up()
    yield cluster
    cluster.down()


@pytest.fixture(scope="module")
def copied(tmp_path_factory, cluster, env):
    """``copied(change, **site)`` creates a project with a changed config and site settings."""
    projects: list[Project] = []

    def create(
        change: Callable[[dict[str, Any]], object] = lambda config: None, **site: str
    ) -> Project:
        root = tmp_path_factory.mktemp("project")
        copy_repository(root)
        config = yaml.safe_load((root / "config.yaml").read_text())
        change(config)
        (root / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        (root / "slurm/site.yaml").write_text(
            yaml.safe_dump({"partition": "gpu", "cpu_partition": "cpu", "account": "none"} | site)
        )
        project = Project(root, cluster, env)
        projects.append(project)
        return project

    yield create
    for project in projects:
        for launcher in project.launched:
            if launcher.poll() is None:
                os.killpg(launcher.pid, signal.SIGKILL)
        shutil.rmtree(project.root, ignore_errors=True)
