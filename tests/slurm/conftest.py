"""A cluster for the tests of this folder, and projects that run on it."""

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
    """A cluster for the tests of one file, with accounting if they say so."""
    accounting = getattr(request.module, "ACCOUNTING", False)
    if reason := lab.missing(accounting):
        pytest.skip(reason)
    made = lab.Cluster(tmp_path_factory.mktemp("cluster"), accounting)
    made.up()
    yield made
    made.down()


@pytest.fixture(scope="module")
def copied(tmp_path_factory, cluster, env):
    """``copied(change, **site)``: a new project, its config changed, at a site."""
    made: list[Project] = []

    def make(
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
        made.append(Project(root, cluster, env))
        return made[-1]

    yield make
    for project in made:
        for running in project.launched:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
        shutil.rmtree(project.root, ignore_errors=True)
