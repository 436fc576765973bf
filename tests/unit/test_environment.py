"""pyproject.toml, the lock file and the conda environment agree, and the packages work together."""

import itertools
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
# names in conda that differ from those in pip
CONDA_NAMES = {
    "matplotlib": "matplotlib-base",
    "playwright": "playwright-python",
    "torch": "pytorch",
}


def entries() -> Iterator[tuple[Requirement, list[str]]]:
    """Yield each requirement of the lock file with its options, which are hashes."""
    lines = "\n".join(line for line in LOCK.splitlines() if not line.lstrip().startswith("#"))
    for entry in lines.replace("\\\n", " ").splitlines():
        requirement, *options = re.split(r"\s+(?=--)", entry.strip())
        yield Requirement(requirement), options


def pins(**machine: str) -> dict[str, str]:
    """Return the version that the lock file pins of each package.

    Args:
        machine: markers in which a machine differs from this one.
    """
    versions = {}
    for requirement, _ in entries():
        if not requirement.marker or requirement.marker.evaluate(machine):
            version = str(requirement.specifier).removeprefix("==")
            versions[canonicalize_name(requirement.name)] = version
    return versions


def direct_requirements() -> dict[str, Requirement]:
    """Return the requirements in pyproject.toml by name."""
    project, groups = PROJECT["project"], PROJECT["dependency-groups"]
    lists = [project["dependencies"], *project["optional-dependencies"].values(), groups["dev"]]
    requirements = map(Requirement, itertools.chain.from_iterable(lists))
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


@pytest.mark.parametrize("python", [OLDEST_PYTHON, "3.12", "3.13", "3.14"])
@pytest.mark.parametrize(
    ("sys_platform", "platform_machine"),
    [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")],
)
def test_lock_file_satisfies_pyproject(
    python: str, sys_platform: str, platform_machine: str
) -> None:
    pinned = pins(
        python_version=python,
        python_full_version=f"{python}.0",
        sys_platform=sys_platform,
        platform_machine=platform_machine,
    )
    assert direct_requirements().keys() <= pinned.keys()
    assert [
        str(requirement)
        for name, requirement in direct_requirements().items()
        if pinned[name] not in requirement.specifier
    ] == []


def test_lock_file_has_exact_versions_and_hashes() -> None:
    for requirement, options in entries():
        assert re.fullmatch(r"==[^,*=]+", str(requirement.specifier)), (
            f"{requirement} is not one version"
        )
        assert requirement.url is None
        assert options, f"{requirement} has no hashes"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", option) for option in options), (
            requirement
        )


def test_lock_file_names_no_package_index() -> None:
    assert (
        re.findall(
            r"(?im)https?:|file:|^\s*-(?!-hash=).*|--(?:extra-)?index-url|--find-links|--trusted-host",
            LOCK,
        )
        == []
    )


def test_conda_environment_pins_the_versions_of_the_lock_file() -> None:
    oldest = pins(python_version=OLDEST_PYTHON, python_full_version=f"{OLDEST_PYTHON}.0")
    expected = [f"{CONDA_NAMES.get(name, name)}=={oldest[name]}" for name in direct_requirements()]
    assert sorted(CONDA["dependencies"]) == sorted([f"python>={OLDEST_PYTHON}", *expected])


def test_conda_environment_names_its_channels() -> None:
    assert CONDA["channels"] == ["conda-forge", "bioconda", "nodefaults"]


def test_torchvision_was_built_for_this_torch() -> None:
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9], [2.0, 2.0, 3.0, 3.0]])
    indices = torchvision.ops.nms(boxes, scores=torch.tensor([0.5, 0.9, 0.1]), iou_threshold=0.5)
    assert indices.tolist() == [1, 2]


@pytest.mark.parametrize(
    "entry", sorted(path.stem for path in (ROOT / "workflow/scripts").glob("*.py"))
)
def test_no_entry_has_the_name_of_a_library(entry: str) -> None:
    """The folder of the entries comes first on the path, so an entry would hide the library."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({entry!r}) is not None)"
    assert subprocess.run([sys.executable, "-I", "-c", code], check=False).returncode == 0
