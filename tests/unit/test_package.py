"""A wheel has the whole library, and works in an environment of its own."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import plasticity

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "workflow/scripts/plasticity"
PAGE = (ROOT / "docs/curvature.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

# Print the file and the versions of the library. Other packages than its requirements are hidden.
IMPORT = """
import importlib.metadata, sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Hide())
import plasticity
from plasticity.curvature import NTK, Fisher, GaussNewton, Hessian, spectrum
print(plasticity.__file__)
print(plasticity.__version__, importlib.metadata.version("plasticity"))
"""


def uv(*arguments: str | Path) -> None:
    """Run uv without a network."""
    own = Path(sys.prefix) / "uv/bin/uv"
    command = own if own.exists() else shutil.which("uv")
    if command is None:
        pytest.skip("uv is not installed: make env installs it")
    done = subprocess.run(
        [command, *arguments, "--offline", "--quiet"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build a wheel."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed: make env installs it")
    folder = tmp_path_factory.mktemp("wheel")
    python = ["--python", sys.executable]
    uv("build", "--wheel", "--no-build-isolation", *python, "--out-dir", folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory):
    """Install the wheel next to the packages of this environment; return a function that runs code.

    The code runs in an empty folder.
    """
    environment = tmp_path_factory.mktemp("environment")
    uv("venv", "--allow-existing", "--python", sys.executable, environment)
    python = environment / "bin/python"
    uv("pip", "install", "--no-deps", "--python", python, wheel)
    (packages,) = environment.glob("lib/python*/site-packages")
    # Python reads no .pth files in this folder. One of them would lead to the library's source.
    (packages / "requirements.pth").write_text(str(Path(torch.__file__).parents[1]))
    empty = tmp_path_factory.mktemp("elsewhere")

    def run_code(code: str) -> list[str]:
        variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [python, "-c", code],
            cwd=empty,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run_code


def requirements_of(package: str) -> set[str]:
    """Return the distributions that a package requires without extras, directly or not."""
    pending, found = [package], set()
    while pending:
        for text in importlib.metadata.requires(pending.pop()) or []:
            requirement = Requirement(text)
            name = canonicalize_name(requirement.name)
            if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
                continue
            if name not in found:
                found.add(name)
                pending.append(name)
    return found


@pytest.mark.slow
def test_wheel_has_every_file_of_the_library(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("plasticity/")}
    files = {
        f"plasticity/{path.relative_to(LIBRARY)}"
        for path in LIBRARY.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == files


def requirements_in(wheel: Path) -> set[str]:
    """Return the distributions that a wheel requires without extras, directly or not."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        lines = archive.read(metadata).decode().splitlines()
    prefix = "Requires-Dist: "
    texts = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
    direct = {Requirement(text).name for text in texts if "extra ==" not in text}
    assert "torch" in direct
    return direct.union(*map(requirements_of, direct))


@pytest.mark.slow
def test_installed_wheel_needs_only_its_requirements(run, wheel):
    required = requirements_in(wheel)
    hidden = {
        module
        for module, names in importlib.metadata.packages_distributions().items()
        if not required & {canonicalize_name(name) for name in names}
    }
    assert {"snakemake", "matplotlib", "pytest"} <= hidden
    file, versions = run(f"HIDDEN = {hidden - {'plasticity'}}\n{IMPORT}")
    assert not Path(file).is_relative_to(ROOT)
    assert versions.split() == [plasticity.__version__] * 2


@pytest.mark.slow
def test_example_of_the_library_page_runs_with_the_installed_wheel(run):
    assert len(run(EXAMPLE)) > 10
