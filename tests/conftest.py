"""Shared by all tests: one thread per worker, how tests are spread over workers, and how many examples hypothesis draws."""

import os

for library in ("OMP", "OPENBLAS", "MKL"):  # read when these libraries are loaded, so before the imports below
    os.environ[f"{library}_NUM_THREADS"] = "1"

import hypothesis
import pytest

hypothesis.settings.register_profile("full", deadline=None, derandomize=True, max_examples=40)
hypothesis.settings.register_profile("quick", deadline=None, derandomize=True, max_examples=10)


def pytest_configure(config: pytest.Config) -> None:
    """Draw all examples, unless another profile was asked for."""
    hypothesis.settings.load_profile(config.getoption("--hypothesis-profile") or "full")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each file to one worker, because its tests share what they build, unless its tests are marked as `spread`."""
    for item in items if config.pluginmanager.hasplugin("xdist") else []:
        if not item.get_closest_marker("xdist_group") and not item.get_closest_marker("spread"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
