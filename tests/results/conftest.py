"""Options and fixtures of the checks that the rule `check` runs on the results of a study."""

import json
from pathlib import Path

import pytest

from plasticity.atomic import atomic_write
from plasticity.errors import StudyError
from plasticity.provenance import code_digest, record
from plasticity.statistics.table_files import read_table
from plasticity.storage import netcdf

CHECKSUMS = pytest.StashKey[dict[str, str]]()  # of the inputs, by name
PARAMETERS = {"data": "datasets", "table": "tables"}  # fixture → option with its files


def pytest_addoption(parser):
    parser.addoption(
        "--datasets", nargs="+", type=Path, default=[], help="datasets of the settings"
    )
    parser.addoption("--tables", nargs="+", type=Path, default=[], help="tables of the study")
    parser.addoption(
        "--verdict", type=Path, help="file for the names of the checks; written if all pass"
    )
    parser.addoption(
        "--code",
        type=lambda path: json.loads(Path(path).read_text()),
        default={},
        help="digest of the code when the job was planned, in a file",
    )


def pytest_configure(config):
    inputs = [*config.getoption("datasets"), *config.getoption("tables")]
    try:
        checksums = {record.portable_name(path): record.checked_digest(path) for path in inputs}
    except StudyError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[CHECKSUMS] = checksums


def pytest_generate_tests(metafunc):
    for fixture, option in PARAMETERS.items():
        if fixture in metafunc.fixturenames:
            paths = metafunc.config.getoption(option)
            ids = [path.stem for path in paths]
            metafunc.parametrize(fixture, paths, ids=ids, indirect=True, scope="session")


@pytest.fixture(scope="session")
def data(request):
    """Read the dataset of one setting."""
    return netcdf.read(request.param)


@pytest.fixture(scope="session")
def table(request):
    """Read one table of the study."""
    return read_table(request.param)


def pytest_sessionfinish(session, exitstatus):
    verdict = session.config.getoption("verdict")
    if not verdict or exitstatus != 0:
        return
    lines = [f"passed {item.name}\n" for item in session.items]
    with atomic_write(verdict) as path:
        path.write_text("".join(lines))
    stamp = code_digest.stamp("check", {}, session.config.getoption("code"))
    record.write([verdict], stamp, session.config.stash[CHECKSUMS])
