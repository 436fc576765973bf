"""Files that GitHub, pre-commit and citation tools read agree with the project."""

import json
import re
from pathlib import Path

import pytest
import yaml

import plasticity

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yaml"))
TEMPLATES = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yaml"))
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
TITLE = (ROOT / "README.md").read_text().splitlines()[0].removeprefix("# ")


def jobs_of(path):
    """Return the jobs of a GitHub workflow by name."""
    return yaml.safe_load(path.read_text())["jobs"]


def commands_of(job):
    """List the commands of a job of a GitHub workflow."""
    return [step["run"] for step in job["steps"] if "run" in step]


def test_citation_and_changelog_have_the_version_of_the_package():
    assert CITATION["version"] == plasticity.__version__
    releases = re.findall(r"^## (\d\S+)", CHANGELOG, re.MULTILINE)
    assert releases[0] == plasticity.__version__


def test_citation_has_the_title_of_the_project():
    assert CITATION["title"].startswith(TITLE)
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "authors", "license"} <= set(CITATION)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_github_runs_only_targets_of_the_makefile(path):
    for job in jobs_of(path).values():
        for command in commands_of(job):
            target = re.fullmatch(r"make ([a-z-]+).*", command)[1]
            assert f"\n{target}: " in MAKEFILE


def test_github_lints_and_tests_on_linux_and_macos_and_runs_all_tests_nightly():
    jobs = jobs_of(ROOT / ".github/workflows/test.yaml")
    assert commands_of(jobs["lint"]) == ["make lint"]
    assert commands_of(jobs["test"]) == ["make test"]
    assert jobs["test"]["strategy"]["matrix"]["system"] == ["ubuntu-latest", "macos-latest"]
    (nightly,) = jobs_of(ROOT / ".github/workflows/nightly.yaml").values()
    assert commands_of(nightly)[-1].startswith("make test-all")


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_issue_template_has_what_github_requires(path):
    template = yaml.safe_load(path.read_text())
    assert {"name", "description", "body"} <= set(template)
    assert all(part["attributes"]["label"] for part in template["body"])


def test_pre_commit_calls_tools_of_the_environment():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    lock = (ROOT / "envs/requirements.txt").read_text()
    for repository in config["repos"]:
        for hook in repository["hooks"]:
            tool = hook["entry"].split()[0].removeprefix(".venv/bin/")
            assert f"\n{tool}==" in lock


def test_dev_container_installs_the_environment():
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert container["postCreateCommand"] == "make env"


def test_image_installs_the_lock_file():
    dockerfile = (ROOT / "envs/Dockerfile").read_text()
    assert "COPY requirements.txt" in dockerfile
    assert "--require-hashes -r /requirements.txt" in dockerfile
