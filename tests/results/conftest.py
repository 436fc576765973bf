"""Options and fixtures of the checks, which the rule `check` runs on the results of a study."""

import json
from pathlib import Path

import pytest

from plasticity.atomic import atomic_write
from plasticity.errors import StudyError
from plasticity.provenance import code_digest, record
from plasticity.statistics.table_files import read_table
from plasticity.storage import netcdf

INPUTS = pytest.StashKey[dict[str, str]]()  # checksums by name


def pytest_addoption(parser):
    parser.addoption(
        "--datasets", nargs="+", type=Path, default=[], help="datasets of the settings"
    )
    parser.addoption("--tables", nargs="+", type=Path, default=[], help="tables of the study")
    parser.addoption(
        "--verdict", type=Path, help="file for the names of the checks, written if all pass"
    )
    parser.addoption(
        "--code",
        type=json.loads,
        default={},
        help="digest of the code with which the job was planned, as JSON",
    )


def pytest_configure(config):
    inputs = [*config.getoption("datasets"), *config.getoption("tables")]
    try:
        digests = {record.portable_name(path): record.checked_digest(path) for path in inputs}
    except StudyError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[INPUTS] = digests


def pytest_generate_tests(metafunc):
    for name, option in (("data", "datasets"), ("table", "tables")):
        if name in metafunc.fixturenames:
            paths = metafunc.config.getoption(option)
            ids = [path.stem for path in paths]
            metafunc.parametrize(name, paths, ids=ids, indirect=True, scope="session")


@pytest.fixture(scope="session")
def data(request):
    """The dataset of one setting."""
    return netcdf.read(request.param)


@pytest.fixture(scope="session")
def table(request):
    """One table of the study."""
    return read_table(request.param)


def pytest_sessionfinish(session, exitstatus):
    verdict = session.config.getoption("verdict")
    if not verdict or exitstatus != 0:
        return
    with atomic_write(verdict) as part:
        part.write_text("".join(f"passed {item.name}\n" for item in session.items))
    stamp = code_digest.stamp("check", {}, session.config.getoption("code"))
    record.write([verdict], stamp, session.config.stash[INPUTS])
