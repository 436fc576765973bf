"""The study of MNIST on the original files, at a small budget, from the files to the report."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

GIVEN = Path(os.environ.get("PLASTICITY_DATA", "")).resolve()
RAW = GIVEN / "MNIST" / "raw"
IMAGES, LABELS = RAW / "train-images-idx3-ubyte.gz", RAW / "train-labels-idx1-ubyte.gz"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        "PLASTICITY_DATA" not in os.environ or not (IMAGES.exists() and LABELS.exists()),
        reason="PLASTICITY_DATA does not name a folder with MNIST/raw/*.gz",
    ),
]


def state():
    """Every file of the data root, with its size and when it was last changed."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in GIVEN.rglob("*")}


@pytest.fixture(scope="module")
def mnist(clone):
    """The study, built, and whether the data root is as it was."""
    project, before = clone(), state()
    config = yaml.safe_load((project.root / "studies" / "mnist.yaml").read_text())
    config["seeds"]["report"] = 2
    for setting in config["settings"].values():
        setting["problem"] |= {"samples": 300, "epochs": 1, "tasks": 3}
    config["curvature"]["samples"] = 64
    (project.root / "small.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    project.build("--configfile", "small.yaml", env={"PLASTICITY_DATA": str(GIVEN)})
    assert state() == before, "the data root was written to"
    return project


def test_the_prepared_dataset_is_what_the_original_files_hold(mnist):
    with gzip.open(IMAGES) as file:
        magic, count, rows, columns = struct.unpack(">IIII", file.read(16))
        images = np.frombuffer(file.read(), np.uint8).reshape(count, rows, columns)
    with gzip.open(LABELS) as file:
        assert struct.unpack(">II", file.read(8)) == (2049, count)
        labels = np.frombuffer(file.read(), np.uint8)
    assert (magic, count, rows, columns) == (2051, 60_000, 28, 28)
    with xr.open_dataset(mnist.root / "results/mnist/data/mnist.nc") as data:
        assert data.image.dims == ("sample", "channel", "row", "column")
        assert data.image.dtype == np.uint8
        assert np.array_equal(data.image[:, 0], images)
        assert np.array_equal(data.label, labels)
        assert np.isclose(data.channel_mean, images.mean() / 255, rtol=1e-6)
        assert np.isclose(data.channel_std, images.std() / 255, rtol=1e-6)
        assert data.image.encoding["zlib"], "more than a megabyte is compressed"


def test_the_study_comes_to_its_report(mnist):
    results = mnist.root / "results" / "mnist"
    assert "results/mnist/figures/curvature.svg" in (results / "report.html").read_text()
    with xr.open_dataset(results / "datasets" / "mnist_labels_relu.nc") as data:
        assert list(data.arm.values) == ["none", "l2_init(strength=0.001)", "wasserstein(strength=0.001)", "fresh"]
        assert (data.status == 0).all()
        assert data.final_error.notnull().all()
        assert data.fisher_eigenvalue.sizes["rank"] == 64
    assert {path.name for path in (mnist.root / "results").iterdir()} == {"README.md", "mnist"}


def test_no_result_names_the_place_of_the_data(mnist):
    for path in (mnist.root / "results" / "mnist").rglob("*"):
        if path.is_file() and path.suffix in {".nc", ".csv", ".svg", ".html"}:
            assert str(GIVEN).encode() not in path.read_bytes(), path
