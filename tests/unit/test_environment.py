"""pyproject.toml, its lock for pip and its twin for conda name the same packages, and the installed ones work together."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "envs/requirements.txt").read_text()
CONDA = yaml.safe_load((ROOT / "envs/environment.yaml").read_text())

OLDEST_PYTHON = PROJECT["project"]["requires-python"].removeprefix(">=")
CONDA_NAMES = {
    "matplotlib": "matplotlib-base",
    "playwright": "playwright-python",
    "torch": "pytorch",
}  # where conda's name is another


def entries() -> Iterator[tuple[Requirement, list[str]]]:
    """The lock's requirements, each with what follows it: its hashes."""
    lines = "\n".join(line for line in LOCK.splitlines() if not line.lstrip().startswith("#"))
    for entry in lines.replace("\\\n", " ").splitlines():
        requirement, *options = re.split(r"\s+(?=--)", entry.strip())
        yield Requirement(requirement), options


def pins(**machine: str) -> dict[str, str]:
    """Version of each package that the lock pins on this machine, or on one that differs from it by `machine`."""
    return {
        canonicalize_name(r.name): str(r.specifier).removeprefix("==")
        for r, _ in entries()
        if not r.marker or r.marker.evaluate(machine)
    }


def direct() -> dict[str, Requirement]:
    requirements = map(
        Requirement, PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]
    )
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


@pytest.mark.parametrize("python", [OLDEST_PYTHON, "3.12", "3.13", "3.14"])
@pytest.mark.parametrize(
    ("sys_platform", "platform_machine"),
    [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")],
)
def test_lock_satisfies_project(python: str, sys_platform: str, platform_machine: str) -> None:
    pinned = pins(
        python_version=python,
        python_full_version=f"{python}.0",
        sys_platform=sys_platform,
        platform_machine=platform_machine,
    )
    assert direct().keys() <= pinned.keys()
    assert [
        str(requirement)
        for name, requirement in direct().items()
        if pinned[name] not in requirement.specifier
    ] == []


def test_lock_holds_exact_versions_and_their_hashes() -> None:
    for requirement, options in entries():
        assert re.fullmatch(r"==[^,*=]+", str(requirement.specifier)), (
            f"{requirement} is not one version"
        )
        assert requirement.url is None
        assert options, f"{requirement} has no hashes"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", option) for option in options), (
            requirement
        )


def test_lock_leaves_the_index_to_the_machine() -> None:
    assert (
        re.findall(
            r"(?im)https?:|file:|^\s*-(?!-hash=).*|--(?:extra-)?index-url|--find-links|--trusted-host",
            LOCK,
        )
        == []
    )


def test_conda_environment_is_that_of_the_lock() -> None:
    oldest = pins(python_version=OLDEST_PYTHON, python_full_version=f"{OLDEST_PYTHON}.0")
    expected = [f"{CONDA_NAMES.get(name, name)}=={oldest[name]}" for name in direct()]
    assert sorted(CONDA["dependencies"]) == sorted([f"python>={OLDEST_PYTHON}", *expected])


def test_conda_asks_no_channel_of_the_user() -> None:
    assert CONDA["channels"] == ["conda-forge", "bioconda", "nodefaults"]


def test_torchvision_was_built_for_this_torch() -> None:
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9], [2.0, 2.0, 3.0, 3.0]])
    kept = torchvision.ops.nms(boxes, scores=torch.tensor([0.5, 0.9, 0.1]), iou_threshold=0.5)
    assert kept.tolist() == [1, 2]


@pytest.mark.parametrize(
    "entry", sorted(path.stem for path in (ROOT / "workflow/scripts").glob("*.py"))
)
def test_no_entry_hides_a_library(entry: str) -> None:
    """Its folder comes first on the path of every job, where torch and others look for theirs."""
    there = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({entry!r}) is not None)"
    assert subprocess.run([sys.executable, "-I", "-c", there], check=False).returncode == 0
