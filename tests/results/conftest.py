"""Options and fixtures of the checks, which the rule `check` runs on the results of a study."""

import json
from pathlib import Path

import pytest

from plasticity.errors import StudyError
from plasticity.provenance import code_digest, record
from plasticity.statistics.table_files import read_table
from plasticity.storage import netcdf

INPUTS = pytest.StashKey[dict[str, str]]()  # checksums by name


def pytest_addoption(parser):
    parser.addoption("--datasets", nargs="+", type=Path, default=[], help="the settings' datasets")
    parser.addoption("--tables", nargs="+", type=Path, default=[], help="the study's tables")
    parser.addoption(
        "--verdict", type=Path, help="file that names the checks that passed, written if all did"
    )
    parser.addoption(
        "--code",
        type=json.loads,
        default={},
        help="digest of the code that the job was planned with, as JSON",
    )


def pytest_configure(config):
    given = [*config.getoption("datasets"), *config.getoption("tables")]
    try:
        config.stash[INPUTS] = {record.name(path): record.checked(path) for path in given}
    except StudyError as mistake:
        raise pytest.UsageError(str(mistake)) from None


def pytest_generate_tests(metafunc):
    for name, option in (("data", "datasets"), ("table", "tables")):
        if name in metafunc.fixturenames:
            paths = metafunc.config.getoption(option)
            metafunc.parametrize(
                name, paths, ids=[path.stem for path in paths], indirect=True, scope="session"
            )


@pytest.fixture(scope="session")
def data(request):
    return netcdf.read(request.param)


@pytest.fixture(scope="session")
def table(request):
    return read_table(request.param)


def pytest_sessionfinish(session, exitstatus):
    verdict = session.config.getoption("verdict")
    if verdict and exitstatus == 0:
        with netcdf.atomic_write(verdict) as part:
            part.write_text("".join(f"passed {item.name}\n" for item in session.items))
        stamp = code_digest.stamp("check", {}, session.config.getoption("code"))
        record.write([verdict], stamp, session.config.stash[INPUTS])
