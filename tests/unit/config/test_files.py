"""A config file that YAML would read in another way than it is meant gives one sentence."""

import errno
import os
import re
import tempfile
import time
from pathlib import Path

import pytest

from plasticity.config.files import check_config_file, check_temporary_folder
from plasticity.errors import StudyError

ROOT = Path(__file__).parents[3]
LAUGHS = "\n".join(
    [f"a0: &a0 [{', '.join('x' * 9)}]"]
    + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
)
# By name: the content, and words of the message. `{}` is the path.
REFUSED = {
    "repeated key": ("study: a\nseeds: 3\nstudy: b\n", "{}, line 3, column 1: the key 'study'"),
    "repeated key in braces": ("a: {x: 1, x: 2}\n", "{}, line 1, column 11: the key 'x'"),
    "repeated key of a setting": (
        "settings:\n  one: {lr: 1}\n  two: {lr: 1}\n  one: {lr: 2}\n",
        "{}, line 4, column 3: the key 'one' occurs twice; the first is in line 2",
    ),
    "octal number": ("a: 0400\n", "{}, line 1, column 4: YAML reads 0400 as a number in base 8"),
    "base 60": ("a:\n- 1:30\n", "{}, line 2, column 3: YAML reads 1:30 as a number in base 60"),
    "date": ("a: 2024-01-31\n", 'line 1, column 4: YAML reads 2024-01-31 as a date. Write "2024'),
    "tab": ("a:\n\tb: 1\n", "{}, line 2, column 1: a tab is in the indentation"),
    "indentation": ("a: 1\n  b: 2\n", "{}, line 2, column 4: mapping values are not allowed"),
    "open bracket": ("a: [1, 2\nb: 3\n", "{}, line 2, column 2: expected ',' or ']'"),
    "two documents": ("a: 1\n---\nb: 2\n", "{}, line 2, column 1"),
    "list": ("- a\n", "the file has a list"),
    "text": ("study\n", "the file has one value"),
    "empty": ("", "{} is empty"),
    "list as a key": ("[a, b]: 1\n", "a key is a list"),
    "Python object": ("a: !!python/object:os.system x\n", "the tag 'tag:yaml.org,2002:python"),
    "tag of a user": ("a: !mine x\n", "the tag '!mine' is not allowed"),
    "aliases that multiply": (LAUGHS, "more than 100,000 values"),
    "alias of what contains it": ("a: &a\n  b: *a\n", "an alias refers to what contains it"),
    "deep nesting": (f"a: {'[' * 3000}{']' * 3000}\n", "more than 50 lists and mappings"),
    "many bytes": (f"a: {'x' * 2**20}\n", "more than 1,048,576 bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_file_is_refused_with_its_place_within_a_second(name, tmp_path):
    text, words = REFUSED[name]
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    start = time.process_time()
    with pytest.raises(StudyError, match=re.escape(words.format(path))) as error:
        check_config_file(path)
    assert time.process_time() - start < 2
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_file_in_another_encoding_is_refused(encoding, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_bytes("study: a\nname: größe\n".encode(encoding))
    with pytest.raises(StudyError, match=r"the file is not UTF-8\. Save it"):
        check_config_file(path)


def test_file_that_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(StudyError, match=r"does not exist\. Correct the name"):
        check_config_file(tmp_path / "missing.yaml")
    with pytest.raises(StudyError, match="cannot be read: Is a directory"):
        check_config_file(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffstudy: a\n",  # a byte order mark
        "a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}\n",
        'a: "0400"\nb: "1:30"\nc: 0\nd: 0.5\ne: 1.0e-3\nf: -3\ng: 007x\n',
        "a: {x: 1}\nb: {x: 1}\n",
    ],
)
def test_file_that_means_what_it_says_is_accepted(text, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    check_config_file(path)


@pytest.mark.parametrize(
    "path", [ROOT / "config.yaml", *sorted((ROOT / "studies").rglob("*.yaml"))], ids=str
)
def test_shipped_study_is_accepted(path):
    check_config_file(path)


def test_full_folder_of_temporary_files_is_refused(monkeypatch, tmp_path):
    def fail(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    check_temporary_folder()
    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    with pytest.raises(StudyError, match=f"{tmp_path} .No space left on device.*Free some space"):
        check_temporary_folder()
    assert not list(tmp_path.iterdir())
