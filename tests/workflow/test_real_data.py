"""The settings of the paper on the original files of MNIST, CIFAR-10 and ImageNet, at a small budget, from the files to the tables."""

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
CONFIG = yaml.safe_load((ROOT / "studies" / "small" / "paper.yaml").read_text(encoding="utf-8"))
GIVEN = Path(os.environ.get("PLASTICITY_DATA", "")).resolve()
MNIST, CIFAR10, IMAGENET = (
    GIVEN / "MNIST",
    GIVEN / "cifar-10-batches-py",
    GIVEN / "tiny-imagenet-20-classes.tar.gz",
)

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        "PLASTICITY_DATA" not in os.environ
        or not all(path.exists() for path in (MNIST, CIFAR10, IMAGENET)),
        reason="PLASTICITY_DATA does not name a folder with MNIST, cifar-10-batches-py and tiny-imagenet-20-classes.tar.gz",
    ),
]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """MNIST and CIFAR-10 as they were given, ImageNet unpacked."""
    root = tmp_path_factory.mktemp("data")
    for folder in (MNIST, CIFAR10):
        (root / folder.name).symlink_to(folder)
    with tarfile.open(IMAGENET) as archive:
        archive.extractall(root, filter="data")
    return root


def state(root):
    """Every file of the data root, with its size and when it was last changed."""
    found = [path for folder in root.iterdir() for path in folder.resolve().rglob("*")]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


@pytest.fixture(scope="module")
def paper(clone, data_root):
    """The study's tables, and the one figure that the study asks for, built on a data root that stays as it is."""
    project, before = clone(), state(data_root)
    targets = ["tables", "figure_explanations", "--configfile", "studies/small/paper.yaml"]
    built = project.snakemake(
        *targets, "--quiet", "all", env={"PLASTICITY_DATA": str(data_root)}, timeout=1800
    )
    assert built.returncode == 0, built.stdout[-6000:]
    assert state(data_root) == before, "the data root was written to"
    return project


def test_the_prepared_dataset_is_what_the_original_files_hold(paper):
    images_file, labels_file = (
        MNIST / "raw" / f"train-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1")
    )
    with gzip.open(images_file) as file:
        magic, count, rows, columns = struct.unpack(">IIII", file.read(16))
        images = np.frombuffer(file.read(), np.uint8).reshape(count, rows, columns)
    with gzip.open(labels_file) as file:
        assert struct.unpack(">II", file.read(8)) == (2049, count)
        labels = np.frombuffer(file.read(), np.uint8)
    assert (magic, count, rows, columns) == (2051, 60_000, 28, 28)
    with xr.open_dataset(paper.root / "results/paper_small/data/mnist.nc") as data:
        assert data.image.dims == ("sample", "channel", "row", "column")
        assert data.image.dtype == np.uint8
        assert np.array_equal(data.image[:, 0], images)
        assert np.array_equal(data.label, labels)
        assert np.isclose(data.channel_mean, images.mean() / 255, rtol=1e-6)
        assert np.isclose(data.channel_std, images.std() / 255, rtol=1e-6)
        assert data.image.encoding["zlib"], "more than a megabyte is compressed"
        assert [str(name) for name in data.class_name.values][:2] == ["0 - zero", "1 - one"]


def test_the_prepared_datasets_are_those_that_the_config_describes(paper):
    folder = paper.root / "results/paper_small/data"
    with xr.open_dataset(folder / "cifar10.nc") as data:
        assert (data.sizes["sample"], data.sizes["class"]) == (10_000, 10)
    with xr.open_dataset(folder / "imagenet.nc") as data:
        assert data.image.shape == (2_000, 3, 32, 32)
        assert np.bincount(data.label).tolist() == [100] * 20
        assert all(str(name).startswith("n0") for name in data.class_name.values)


def test_the_study_has_its_tables_and_its_figure(paper):
    results = paper.root / "results" / "paper_small"
    assert {"associations.csv", "comparisons.csv", "outcomes.csv"} <= {
        path.name for path in (results / "tables").iterdir()
    }
    assert (results / "figures" / "explanations.svg").stat().st_size > 5000
    assert {path.name for path in (paper.root / "results").iterdir()} == {
        "README.md",
        "paper_small",
    }


@pytest.mark.parametrize("setting", CONFIG["settings"])
def test_every_setting_is_trained_and_measured(paper, setting):
    with xr.open_dataset(paper.root / "results/paper_small/datasets" / f"{setting}.nc") as data:
        assert {"none", "fresh"} <= set(data.arm.values)
        assert (data.status == 0).all()
        assert data.final_error.notnull().all()
        assert ((data.final_error >= 0) & (data.final_error <= 1)).all()
        new = data.sel(evaluation_point="next")
        assert new.fisher_eigenvalue.sizes["rank"] == 64
        assert (new.fisher_eigenvalue.notnull().all("rank")).all()
        assert (new.fisher_top_eigenvalue.sel(block="all") > 0).all()
        assert new.feature_rank.notnull().any("block").all()


def test_no_result_names_the_place_of_the_data(paper, data_root):
    for path in (paper.root / "results" / "paper_small").rglob("*"):
        if path.is_file() and path.suffix in {".nc", ".csv", ".svg"}:
            content = path.read_bytes()
            assert str(GIVEN).encode() not in content, path
            assert str(data_root).encode() not in content, path
