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

SITE = {"partition": "gpu", "cpu_partition": "cpu", "account": "none"}


@pytest.fixture(scope="module")
def cluster(request, tmp_path_factory):
    """Start a cluster for the tests of one file, with accounting if the file sets `ACCOUNTING`."""
    accounting = getattr(request.module, "ACCOUNTING", False)
    reason = lab.missing_requirements(accounting)
    if reason:
        pytest.skip(reason)
    cluster = lab.Cluster(tmp_path_factory.mktemp("cluster"), accounting)
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def create_project(tmp_path_factory, cluster, env):
    """Return ``create_project(change, **site)``, which changes the config and the site settings."""
    projects: list[Project] = []

    def create(
        change: Callable[[dict[str, Any]], object] = lambda config: None, **site: str
    ) -> Project:
        root = tmp_path_factory.mktemp("project")
        copy_repository(root)
        config = yaml.safe_load((root / "config.yaml").read_text())
        change(config)
        (root / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        (root / "slurm/site.yaml").write_text(yaml.safe_dump(SITE | site))
        project = Project(root, cluster, env)
        projects.append(project)
        return project

    yield create
    for project in projects:
        for launcher in project.launchers:
            if launcher.poll() is None:
                os.killpg(launcher.pid, signal.SIGKILL)
        shutil.rmtree(project.root, ignore_errors=True)
