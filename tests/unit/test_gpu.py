"""The launcher knows whether training would use a GPU."""

import pytest

from plasticity import gpu


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Return `driver(script)`, which replaces the tool of the driver by a shell script."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpu.is_present.cache_clear()
    yield lambda script: write_tool(tmp_path / "nvidia-smi", script)
    gpu.is_present.cache_clear()


def write_tool(path, script):
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_gpu_that_the_driver_lists_is_present(driver):
    driver("echo 'GPU 0: a card (UUID: GPU-1)'")
    assert gpu.is_present()


@pytest.mark.parametrize(
    "script", ["echo 'No devices found.'", "exit 9"], ids=["no device", "broken driver"]
)
def test_driver_without_a_device_means_no_gpu(driver, script):
    driver(script)
    assert not gpu.is_present()


def test_machine_without_a_driver_has_no_gpu(driver, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not gpu.is_present()


@pytest.mark.parametrize(
    ("visible", "expected"), [("", False), ("-1", False), ("1", True), ("GPU-1", True)]
)
def test_hidden_gpu_is_not_present(driver, monkeypatch, visible, expected):
    driver("echo 'GPU 0: a card'; echo 'GPU 1: a card'")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu.is_present() == expected
