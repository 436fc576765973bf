"""A param reaches a job by a file, and Snakemake still compares its text."""

import json
import shlex
from pathlib import Path

import pytest
from snakemake.utils import QuotedFormatter

from plasticity.provenance.param_file import FOLDER, ParamFile, text_of

TEXT = '{"a": "it\'s", "b": [1, 2]}'


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def command_with(param):
    """Format a command as Snakemake does, and return the last argument."""
    return shlex.split(QuotedFormatter().format("job.py --settings {settings:q}", settings=param))[
        -1
    ]


def test_command_has_the_path_of_a_file_with_the_text():
    path = command_with(ParamFile(TEXT, is_written=True))
    assert path.startswith(f"{FOLDER}/")
    assert json.loads(Path(path).read_text()) == json.loads(TEXT)


def test_equal_params_share_a_file_and_others_do_not():
    paths = [command_with(ParamFile(text, is_written=True)) for text in (TEXT, TEXT, "{}")]
    assert paths[0] == paths[1] != paths[2]
    assert len(list(FOLDER.iterdir())) == 2


def test_dry_run_writes_nothing():
    assert command_with(ParamFile(TEXT, is_written=False))
    assert not FOLDER.exists()


def test_recorded_text_is_that_of_a_plain_param():
    assert repr(ParamFile(TEXT, is_written=True)) == repr(TEXT)
    assert ParamFile(TEXT, is_written=True) == ParamFile(TEXT, is_written=False)
    assert ParamFile(TEXT, is_written=True) != ParamFile("{}", is_written=True)


def test_text_of_a_param_is_the_same_for_both_ways_to_pass_it():
    assert text_of(ParamFile(TEXT, is_written=False)) == text_of(TEXT) == TEXT
