"""The settings of the paper at a small budget, from original files of images to the tables."""

import gzip
import os
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIG_FILE = "studies/small/paper.yaml"
CONFIG = yaml.safe_load((ROOT / CONFIG_FILE).read_text(encoding="utf-8"))
DATA = Path(os.environ.get("PLASTICITY_DATA", "")).resolve()
MNIST = DATA / "MNIST"
CIFAR10 = DATA / "cifar-10-batches-py"
IMAGENET = DATA / "tiny-imagenet-20-classes.tar.gz"
TIMEOUT_SECONDS = 1800

IMAGES_MAGIC = 2051
LABELS_MAGIC = 2049
TRAINING_IMAGES = 60_000

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        "PLASTICITY_DATA" not in os.environ
        or not all(path.exists() for path in (MNIST, CIFAR10, IMAGENET)),
        reason=(
            "PLASTICITY_DATA does not name a folder with MNIST, cifar-10-batches-py and "
            "tiny-imagenet-20-classes.tar.gz"
        ),
    ),
]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """Link the folders of MNIST and CIFAR-10, and unpack ImageNet."""
    root = tmp_path_factory.mktemp("data")
    for folder in (MNIST, CIFAR10):
        (root / folder.name).symlink_to(folder)
    with tarfile.open(IMAGENET) as archive:
        archive.extractall(root, filter="data")
    return root


def read_sizes_and_times(root):
    """Return the size and the modification time of every file below the data root."""
    states = {}
    for folder in root.iterdir():
        for path in folder.resolve().rglob("*"):
            status = path.stat()
            states[str(path)] = (status.st_size, status.st_mtime_ns)
    return states


@pytest.fixture(scope="module")
def results(new_project, data_root):
    """Build the tables and one figure of the study; return the folder of its results."""
    project = new_project()
    before = read_sizes_and_times(data_root)
    process = project.snakemake(
        *("tables", "figure_explanations", "--configfile", CONFIG_FILE, "--quiet", "all"),
        env={"PLASTICITY_DATA": str(data_root)},
        timeout=TIMEOUT_SECONDS,
    )
    assert process.returncode == 0, process.stdout[-6000:]
    assert read_sizes_and_times(data_root) == before, "a job has written to the data root"
    return project.root / "results" / "paper_small"


def read_original_images():
    """Read the training images of MNIST from the original file."""
    with gzip.open(MNIST / "raw" / "train-images-idx3-ubyte.gz") as file:
        magic, *shape = struct.unpack(">IIII", file.read(16))
        images = np.frombuffer(file.read(), np.uint8).reshape(shape)
    assert magic == IMAGES_MAGIC
    assert images.shape == (TRAINING_IMAGES, 28, 28)
    return images


def read_original_labels():
    """Read the training labels of MNIST from the original file."""
    with gzip.open(MNIST / "raw" / "train-labels-idx1-ubyte.gz") as file:
        assert struct.unpack(">II", file.read(8)) == (LABELS_MAGIC, TRAINING_IMAGES)
        return np.frombuffer(file.read(), np.uint8)


def test_prepared_mnist_equals_the_original_files(results):
    images = read_original_images()
    labels = read_original_labels()
    with xr.open_dataset(results / "data/mnist.nc") as data:
        assert data.image.dims == ("sample", "channel", "row", "column")
        assert data.image.dtype == np.uint8
        assert np.array_equal(data.image[:, 0], images)
        assert np.array_equal(data.label, labels)
        assert np.isclose(data.channel_mean, images.mean() / 255, rtol=1e-6)
        assert np.isclose(data.channel_std, images.std() / 255, rtol=1e-6)
        assert data.image.encoding["zlib"], "a variable of more than a megabyte is not compressed"
        class_names = [str(name) for name in data.class_name.values]
        assert class_names[:2] == ["0 - zero", "1 - one"]


def test_prepared_color_images_have_the_sizes_and_classes_of_the_config(results):
    with xr.open_dataset(results / "data/cifar10.nc") as data:
        assert data.sizes["sample"] == 10_000
        assert data.sizes["class"] == 10
    with xr.open_dataset(results / "data/imagenet.nc") as data:
        assert data.image.shape == (2_000, 3, 32, 32)
        assert np.bincount(data.label).tolist() == [100] * 20
        assert all(str(name).startswith("n0") for name in data.class_name.values)


def test_study_has_its_tables_and_its_figure(results):
    tables = {path.name for path in (results / "tables").iterdir()}
    assert {"associations.csv", "comparisons.csv", "outcomes.csv"} <= tables
    assert (results / "figures" / "explanations.svg").stat().st_size > 5000
    results_of_all_studies = {path.name for path in results.parent.iterdir()}
    assert results_of_all_studies == {"README.md", "paper_small"}


@pytest.mark.parametrize("setting", CONFIG["settings"])
def test_every_setting_is_trained_and_measured(results, setting):
    with xr.open_dataset(results / "datasets" / f"{setting}.nc") as data:
        assert {"none", "fresh"} <= set(data.arm.values)
        assert (data.status == 0).all()
        assert data.final_error.notnull().all()
        assert ((data.final_error >= 0) & (data.final_error <= 1)).all()
        on_next_task = data.sel(evaluation_point="next")
        assert on_next_task.fisher_eigenvalue.sizes["rank"] == 64
        assert on_next_task.fisher_eigenvalue.notnull().all()
        assert (on_next_task.fisher_top_eigenvalue.sel(block="all") > 0).all()
        assert on_next_task.feature_rank.notnull().any("block").all()


def test_results_do_not_contain_the_path_of_the_data(results, data_root):
    for path in results.rglob("*"):
        if path.is_file() and path.suffix in {".nc", ".csv", ".svg"}:
            content = path.read_bytes()
            assert str(DATA).encode() not in content, path
            assert str(data_root).encode() not in content, path
