"""Plug-ins are found by file names, and files that are none are left out or named."""

import shutil

import pytest

from plasticity.config import registry
from plasticity.errors import StudyError


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A copy of the figures, to which files can be added."""
    folder = tmp_path / registry.FOLDERS["figures"]
    shutil.copytree(registry.LIBRARY / registry.FOLDERS["figures"], folder)
    monkeypatch.setattr(registry, "LIBRARY", tmp_path)
    return folder


@pytest.mark.parametrize(
    "name", [".#scatter.py", "._scatter.py", "scatter (copy).py", "scatter-2.py", "2d.py"]
)
def test_file_whose_name_is_no_python_name_is_no_plug_in(library, name):
    before = registry.names("figures")
    assert "scatter" in before
    (library / name).write_bytes(b"\x00\x05\x16\x07")
    assert registry.names("figures") == before


def test_broken_link_of_an_editor_is_no_plug_in(library):
    before = registry.names("figures")
    (library / ".#scatter.py").symlink_to("user@host.1234:5")
    assert registry.names("figures") == before


def test_plug_in_with_a_byte_order_mark_is_read(library):
    (library / "mine.py").write_text('\ufeffTITLE = "my figure"\n', encoding="utf-8")
    assert registry.constant("figures", "mine", "TITLE") == "my figure"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"TITLE = 1\ndef broken(:\n", r"mine\.py, line 2: Python cannot read this file"),
        ("TITLE = 'größe'\n".encode("latin-1"), r"mine\.py: Python cannot read this file"),
    ],
)
def test_plug_in_that_is_not_python_is_named(library, content, words):
    (library / "mine.py").write_bytes(content)
    with pytest.raises(StudyError, match=words):
        registry.constant("figures", "mine", "TITLE")
