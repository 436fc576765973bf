"""envs/install.sh installs only if the lock file changed, and never harms an environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

INSTALL = Path(__file__).parents[2] / "envs/install.sh"
# A script in place of Python. `-m venv` creates an environment whose pip and uv log their calls;
# `uv pip sync` fails if the file `broken` exists.
PYTHON = """#!/bin/bash
[[ $1 == -m ]] || exit 0
mkdir -p "$3/bin"
cat > "$3/bin/pip" <<'END'
#!/bin/bash
echo "pip $*" >> calls
END
cat > "$3/bin/uv" <<'END'
#!/bin/bash
echo "uv $*" >> calls
[[ $1 == venv ]] || [[ ! -e broken ]] || exit 2
mkdir -p .venv.new/bin .venv.new/lib/python3.11/site-packages
echo new > .venv.new/bin/version
END
chmod +x "$3/bin/pip" "$3/bin/uv"
"""


class Folder:
    """A folder with a lock file, in which install.sh runs.

    Attributes:
        root: path of the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "envs").mkdir()
        shutil.copy(INSTALL, root / "envs/install.sh")
        self.lock.write_text("numpy==2.1.0 --hash=sha256:0\n")
        python = root / "python"
        python.write_text(PYTHON)
        python.chmod(0o755)

    @property
    def lock(self) -> Path:
        return self.root / "envs/requirements.txt"

    @property
    def installed_version(self) -> str:
        return (self.root / ".venv/bin/version").read_text()

    def install(self, python: str = "python") -> subprocess.CompletedProcess[str]:
        env = os.environ | {"PYTHON": str(self.root / python)}
        return subprocess.run(
            ["bash", "envs/install.sh"],
            cwd=self.root,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def folder(tmp_path):
    """A folder without an environment."""
    return Folder(tmp_path)


@pytest.fixture
def installed(folder):
    """A folder with an environment, and an empty log of calls."""
    assert folder.install().returncode == 0
    assert folder.installed_version == "new\n"
    (folder.root / ".venv/bin/version").write_text("old\n")
    (folder.root / "calls").unlink()
    return folder


def test_new_environment_is_installed_from_the_lock_file(folder):
    assert folder.install().returncode == 0
    assert folder.installed_version == "new\n"
    sync = [
        call
        for call in (folder.root / "calls").read_text().splitlines()
        if call.startswith("uv pip sync")
    ]
    assert len(sync) == 1
    assert sync[0].endswith("--python .venv.new/bin/python --require-hashes envs/requirements.txt")
    assert sorted(path.name for path in folder.root.iterdir() if path.name.startswith(".venv")) == [
        ".venv"
    ]


def test_new_environment_imports_the_library_of_its_folder(folder):
    """Also after the folder was moved, and without the entries next to the library."""
    library = folder.root / "workflow/scripts/plasticity"
    library.mkdir(parents=True)
    (library / "__init__.py").touch()
    (library.parent / "entry.py").touch()
    assert folder.install().returncode == 0
    moved = folder.root.rename(folder.root.with_name("moved"))
    packages = moved / ".venv/lib/python3.11/site-packages"
    program = (
        f"import site; site.addsitedir({str(packages)!r})\n"
        "import importlib.util, plasticity; print(plasticity.__file__)\n"
        "print(importlib.util.find_spec('entry'))"
    )
    command = [sys.executable, "-I", "-S", "-c", program]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert Path(lines[0]).resolve() == moved / "workflow/scripts/plasticity/__init__.py"
    assert lines[1] == "None"


def test_lock_file_with_the_same_content_installs_nothing(installed):
    later = installed.lock.stat().st_mtime + 1000
    os.utime(installed.lock, (later, later))
    assert installed.install().returncode == 0
    assert installed.installed_version == "old\n"
    assert not (installed.root / "calls").exists()


def test_changed_lock_file_installs_a_new_environment(installed):
    installed.lock.write_text("numpy==2.2.0 --hash=sha256:1\n")
    os.utime(installed.lock, (0, 0))
    assert installed.install().returncode == 0
    assert installed.installed_version == "new\n"


def test_failed_install_leaves_the_old_environment(installed):
    installed.lock.write_text("numpy==2.2.0 --hash=sha256:1\n")
    (installed.root / "broken").touch()
    assert installed.install().returncode != 0
    assert installed.installed_version == "old\n"
    (installed.root / "broken").unlink()
    assert installed.install().returncode == 0
    assert installed.installed_version == "new\n"


def test_link_to_another_environment_is_not_replaced(installed, tmp_path):
    """Replacing it would empty an environment that other studies may use."""
    shared = tmp_path / "shared"
    (installed.root / ".venv").rename(shared)
    (installed.root / ".venv").symlink_to(shared)
    assert installed.install().returncode == 0, "the lock file has not changed"
    installed.lock.write_text("numpy==2.2.0 --hash=sha256:1\n")
    done = installed.install()
    assert done.returncode == 1
    assert f".venv is a symbolic link to {shared}" in done.stderr
    assert "rm .venv" in done.stderr
    assert (installed.root / ".venv").is_symlink()
    assert (shared / "bin/version").read_text() == "old\n"
    assert not (installed.root / "calls").exists()


def test_python_that_cannot_create_environments_is_named(folder):
    done = folder.install("missing")
    assert done.returncode == 1
    assert "is not Python 3.11 or newer. Install one, or choose it: make env PYTHON=" in done.stderr
    assert not list(folder.root.glob(".venv*"))
