"""envs/install.sh: installs only when the lock file's content changed, and never harms an environment that is there."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

INSTALL = Path(__file__).parents[2] / "envs/install.sh"
# In place of Python: `-m venv` makes an environment whose pip and uv note their calls; `uv pip sync` fails if the file `broken` exists.
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
mkdir -p .venv.new/bin
echo new > .venv.new/bin/made
END
chmod +x "$3/bin/pip" "$3/bin/uv"
"""


class Folder:
    """A folder with a lock file, in which install.sh runs.

    Attributes:
        root: the folder.
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
    def made(self) -> str:
        return (self.root / ".venv/bin/made").read_text()

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
    """A folder with an environment, whose calls were forgotten."""
    assert folder.install().returncode == 0
    assert folder.made == "new\n"
    (folder.root / ".venv/bin/made").write_text("old\n")
    (folder.root / "calls").unlink()
    return folder


def test_a_new_environment_is_what_the_lock_file_pins(folder):
    assert folder.install().returncode == 0
    assert folder.made == "new\n"
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


def test_a_lock_file_that_is_only_newer_installs_nothing(installed):
    later = installed.lock.stat().st_mtime + 1000
    os.utime(installed.lock, (later, later))
    assert installed.install().returncode == 0
    assert installed.made == "old\n"
    assert not (installed.root / "calls").exists()


def test_a_changed_lock_file_installs_a_new_environment(installed):
    installed.lock.write_text("numpy==2.2.0 --hash=sha256:1\n")
    os.utime(installed.lock, (0, 0))
    assert installed.install().returncode == 0
    assert installed.made == "new\n"


def test_a_failed_install_leaves_the_old_environment(installed):
    installed.lock.write_text("numpy==2.2.0 --hash=sha256:1\n")
    (installed.root / "broken").touch()
    assert installed.install().returncode != 0
    assert installed.made == "old\n"
    (installed.root / "broken").unlink()
    assert installed.install().returncode == 0
    assert installed.made == "new\n"


def test_a_link_to_another_environment_is_not_replaced(installed, tmp_path):
    """A `.venv` that linked to a shared environment was once emptied while a study ran in it."""
    shared = tmp_path / "shared"
    (installed.root / ".venv").rename(shared)
    (installed.root / ".venv").symlink_to(shared)
    assert installed.install().returncode == 0, "it holds what the lock file pins"
    installed.lock.write_text("numpy==2.2.0 --hash=sha256:1\n")
    done = installed.install()
    assert done.returncode == 1
    assert f".venv is a symbolic link to {shared}" in done.stderr
    assert "rm .venv" in done.stderr
    assert (installed.root / ".venv").is_symlink()
    assert (shared / "bin/made").read_text() == "old\n"
    assert not (installed.root / "calls").exists()


def test_a_python_that_cannot_make_environments_is_named(folder):
    done = folder.install("missing")
    assert done.returncode == 1
    assert "is not Python 3.11 or newer. Install one, or name it: make env PYTHON=" in done.stderr
    assert not list(folder.root.glob(".venv*"))
