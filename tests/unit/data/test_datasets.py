"""Datasets return the contents of their files, and refuse files and options that are wrong."""

import errno
import gzip
import hashlib
import http.server
import io
import json
import os
import pickle
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
import unicodedata
from functools import partial
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10, MNIST, FashionMNIST

from plasticity.config import registry
from plasticity.data import dataset, image_folders
from plasticity.data.dataset import Images
from plasticity.data.datasets import cifar10, folder, imagenet, mnist
from plasticity.errors import StudyError
from plasticity.provenance.code_digest import CONTRACT
from plasticity.storage import netcdf

DATA_ROOT = Path(os.environ.get("PLASTICITY_DATA", "")).resolve()


def needs_data(path):
    """Mark a test on real files, and skip it if they are missing."""
    missing = "PLASTICITY_DATA" not in os.environ or not (DATA_ROOT / path).exists()
    return [
        pytest.mark.data,
        pytest.mark.skipif(missing, reason=f"PLASTICITY_DATA does not name a folder with {path}"),
    ]


def load(kind, root, **options):
    return registry.build("datasets", kind, options).load(root)


def assert_refused(phrases, kind, root, **options):
    """Assert that loading raises a message of one line that contains all phrases."""
    with pytest.raises(StudyError) as raised:
        load(kind, root, **options)
    message = str(raised.value)
    for phrase in phrases:
        assert phrase in message
    assert "\n" not in message


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def are_equal(first, second):
    """Compare two results of `load`."""
    return (
        np.array_equal(first.images, second.images)
        and np.array_equal(first.labels, second.labels)
        and list(first.classes) == list(second.classes)
        and first.maximum == second.maximum
    )


@pytest.fixture
def offline(monkeypatch):
    """Let all downloads fail."""

    def fail(*arguments, **options):
        raise URLError("no network")

    monkeypatch.setattr(mnist, "download_url", fail)
    monkeypatch.setattr(cifar10, "download_and_extract_archive", fail)
    yield
    socket.setdefaulttimeout(None)


@pytest.fixture
def file_server(tmp_path):
    """Serve the files of a folder; return the folder and the address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    served = tmp_path / "served"
    served.mkdir()
    handler = partial(Handler, directory=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield served, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
    socket.setdefaulttimeout(None)


# Checks and description of any dataset


def make_images(**changes):
    """Return nine small images of three classes, with some fields replaced."""
    draw = np.random.default_rng(0)
    fields = {
        "images": draw.integers(0, 17, (9, 2, 4, 5), np.uint8),
        "labels": np.arange(9) % 3,
        "classes": ["a", "b", "c"],
        "maximum": 16,
    }
    return Images(**fields | changes)


@pytest.mark.parametrize("pixels", [1, 7, 50, 2**20])
def test_channel_mean_and_std_do_not_depend_on_the_chunk_size(monkeypatch, pixels):
    monkeypatch.setattr(dataset, "PIXELS_PER_CHUNK", pixels)
    images = make_images().images
    data = dataset.describe("x", make_images(), {})
    assert np.array_equal(data.channel_mean, (images.mean((0, 2, 3)) / 16).astype(np.float32))
    assert np.array_equal(data.channel_std, (images.std((0, 2, 3)) / 16).astype(np.float32))
    assert data.image.attrs["valid_max"] == 16
    assert np.array_equal(data.image, images)


def test_digits_are_described_by_their_mean_and_std():
    digits = load("digits", Path("nowhere"))
    data = dataset.describe("digits", digits, {})
    assert digits.images.shape == (1797, 1, 8, 8)
    assert data.channel_mean.item() == np.float32(digits.images.mean() / 16)
    assert data.channel_std.item() == np.float32(digits.images.std() / 16)


def test_class_names_survive_a_file_and_two_files_have_equal_bytes(tmp_path):
    names = ["T-shirt/top", "bär", ""]
    paths = [tmp_path / "a" / "x.nc", tmp_path / "b" / "x.nc"]
    for path in paths:
        data = dataset.describe("x", make_images(classes=names), {"contract": CONTRACT})
        netcdf.write(data, path)
    assert netcdf.read(paths[0]).class_name.values.tolist() == names
    assert paths[0].read_bytes() == paths[1].read_bytes()


FRACTIONS = make_images().images / 16
INVALID_IMAGES = {
    "fractions": (
        {"images": FRACTIONS},
        ["float64", "scale them to 0 to maximum", "convert to uint8"],
    ),
    "NaN": (
        {"images": np.where(FRACTIONS > 0.9, np.nan, FRACTIONS)},
        ["float64 (and some are NaN)", "replace"],
    ),
    "wide integers": ({"images": make_images().images.astype(np.int64)}, ["int64", "uint8"]),
    "no channels": (
        {"images": make_images().images[:, 0]},
        ["(9, 4, 5)", "(sample, channel, row, column)"],
    ),
    "no images": (
        {"images": make_images().images[:0], "labels": np.arange(0)},
        ["(0, 2, 4, 5)", "at least one"],
    ),
    "no pixels": ({"images": make_images().images[..., :0]}, ["(9, 2, 4, 0)", "at least one"]),
    "pixel above the maximum": ({"maximum": 15}, ["pixel 16", "maximum of 15"]),
    "maximum of 0": ({"maximum": 0}, ["maximum 0", "1 to 255"]),
    "maximum above uint8": ({"maximum": 256}, ["maximum 256", "1 to 255"]),
    "float labels": ({"labels": np.arange(9.0)}, ["float64", "whole number per image"]),
    "bool labels": ({"labels": np.arange(9) > 3}, ["bool", "whole number per image"]),
    "too few labels": ({"labels": np.arange(8) % 3}, ["(8,)", "(9, 2, 4, 5)"]),
    "labels of two dims": ({"labels": np.zeros((9, 1), int)}, ["(9, 1)"]),
    "negative label": (
        {"labels": np.array([0, 1, 2, 0, -1, 3, 0, 0, 0])},
        ["label -1 at image 4", "0 to 2"],
    ),
    "label without a class": (
        {"labels": np.array([0, 1, 2, 0, 2, 3, 0, 9, 0])},
        ["label 3 at image 5", "3 classes", "0 to 2"],
    ),
    "duplicate class": ({"classes": ["a", "b", "a"]}, ["'a' twice"]),
}


@pytest.mark.parametrize(("changes", "phrases"), INVALID_IMAGES.values(), ids=INVALID_IMAGES)
def test_invalid_images_and_labels_are_refused(changes, phrases):
    with pytest.raises(StudyError, match=r"^dataset mine ") as raised:
        dataset.describe("mine", make_images(**changes), {})
    for phrase in phrases:
        assert phrase in str(raised.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_labels_of_any_integer_type_become_int64(dtype):
    loaded = make_images(labels=(np.arange(9) % 3).astype(dtype))
    assert dataset.describe("x", loaded, {}).label.dtype == np.int64


# MNIST and Fashion-MNIST

TORCHVISION_CLASSES = {"mnist": MNIST, "fashion_mnist": FashionMNIST}
LABELS_FILE = "train-labels-idx1-ubyte.gz"


def write_idx_files(root, torchvision_class, monkeypatch):
    """Write tiny files with the original names and format, and let their md5 be the expected one.

    Returns:
        Images ``(6, 28, 28)`` and labels ``(6,)``.
    """
    draw = np.random.default_rng(len(torchvision_class.__name__))
    raw = root / torchvision_class.__name__ / "raw"
    raw.mkdir(parents=True)
    images = draw.integers(0, 256, (6, 28, 28), np.uint8)
    labels = draw.integers(0, 10, 6, np.uint8)
    contents = [
        struct.pack(">IIII", 2051, 6, 28, 28) + images.tobytes(),
        struct.pack(">II", 2049, 6) + labels.tobytes(),
    ]
    resources = []
    for (name, _), content in zip(torchvision_class.resources, contents, strict=False):
        (raw / name).write_bytes(gzip.compress(content, mtime=0))
        resources.append((name, md5(raw / name)))
    monkeypatch.setattr(torchvision_class, "resources", resources + torchvision_class.resources[2:])
    return images, labels


@pytest.mark.parametrize("kind", TORCHVISION_CLASSES)
def test_idx_files_are_read_in_their_order(tmp_path, monkeypatch, offline, kind):
    images, labels = write_idx_files(tmp_path, TORCHVISION_CLASSES[kind], monkeypatch)
    loaded = load(kind, tmp_path)
    assert np.array_equal(loaded.images, images[:, None])
    assert np.array_equal(loaded.labels, labels)
    assert loaded.classes == TORCHVISION_CLASSES[kind].classes
    assert loaded.labels.dtype == np.int64


def test_mnist_and_fashion_mnist_have_their_own_files_and_classes(tmp_path, monkeypatch, offline):
    for torchvision_class in TORCHVISION_CLASSES.values():
        write_idx_files(tmp_path, torchvision_class, monkeypatch)
    digits, fashion = load("mnist", tmp_path), load("fashion_mnist", tmp_path)
    assert not np.array_equal(digits.images, fashion.images)
    assert "Sneaker" in fashion.classes
    assert "Sneaker" not in digits.classes


@pytest.mark.parametrize("kind", TORCHVISION_CLASSES)
def test_message_without_network_names_missing_idx_files(tmp_path, offline, kind):
    name = TORCHVISION_CLASSES[kind].__name__
    phrases = [
        f"{name} could not",
        "no network",
        "train-images-idx3-ubyte.gz and train-labels",
        str(tmp_path / name / "raw"),
    ]
    assert_refused(phrases, kind, tmp_path)


@pytest.mark.parametrize("kind", TORCHVISION_CLASSES)
def test_message_for_missing_data_root_names_an_idx_file(tmp_path, offline, kind):
    name = TORCHVISION_CLASSES[kind].__name__
    phrases = ["data_root", "PLASTICITY_DATA", f"{name}/raw/train-images-idx3-ubyte.gz"]
    assert_refused(phrases, kind, tmp_path / "away")


def test_full_temporary_folder_is_named(tmp_path, monkeypatch, offline):
    write_idx_files(tmp_path, MNIST, monkeypatch)
    write, first = Path.open, []

    def fail_to_write(path, mode="r", *arguments, **options):
        if mode == "wb":
            first.append(path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", fail_to_write)
    assert_refused(["could not be written (No space left on device)"], "mnist", tmp_path)
    assert not first[0].exists()


@pytest.mark.parametrize("kind", TORCHVISION_CLASSES)
@pytest.mark.parametrize("flaw", ["altered", "truncated"])
def test_damaged_idx_file_is_refused_by_name(tmp_path, monkeypatch, offline, kind, flaw):
    write_idx_files(tmp_path, TORCHVISION_CLASSES[kind], monkeypatch)
    path = tmp_path / TORCHVISION_CLASSES[kind].__name__ / "raw" / LABELS_FILE
    content = path.read_bytes()
    last_byte = b"" if flaw == "truncated" else bytes([content[-1] ^ 1])
    path.write_bytes(content[:-1] + last_byte)
    assert_refused([str(path), "truncated or altered", "replace it"], kind, tmp_path)


@pytest.mark.parametrize("kind", TORCHVISION_CLASSES)
def test_idx_files_are_downloaded_from_the_first_mirror_that_works(
    tmp_path, monkeypatch, file_server, kind
):
    served, address = file_server
    torchvision_class = TORCHVISION_CLASSES[kind]
    images, _ = write_idx_files(served, torchvision_class, monkeypatch)
    mirrors = ["http://127.0.0.1:1/", f"{address}{torchvision_class.__name__}/raw/"]
    monkeypatch.setattr(torchvision_class, "mirrors", mirrors)
    root = tmp_path / "root"
    root.mkdir()
    labels_file = served / torchvision_class.__name__ / "raw" / LABELS_FILE
    labels_file.rename(served / "original")
    labels_file.write_text("not the original")
    assert_refused(["could not be downloaded", "corrupted"], kind, root)
    assert len(list(root.glob("*/raw/*"))) == 1, "a file that is not the original is removed"
    (served / "original").rename(labels_file)
    assert np.array_equal(load(kind, root).images, images[:, None])


# CIFAR-10


def write_cifar_files(root, monkeypatch, *names):
    """Write tiny files in the original format, and let their md5 be the expected one.

    Returns:
        Images ``(4, 3, 32, 32)`` and labels ``(4,)`` of each file, by name.
    """
    batches = root / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    monkeypatch.setattr(cifar10, "SHAPE", (4, 3, 32, 32))
    contents = {}
    for name in names:
        draw = np.random.default_rng(sum(name.encode()))
        images = draw.integers(0, 256, (4, 3, 32, 32), np.uint8)
        labels = draw.integers(0, 3, 4)
        batch = {"data": images.reshape(4, -1), "labels": labels.tolist()}
        (batches / name).write_bytes(pickle.dumps(batch, protocol=2))
        monkeypatch.setitem(cifar10.MD5_OF_FILE, name, md5(batches / name))
        contents[name] = images, labels
    classes = {"label_names": ["air", "bird", "cat"]}
    (batches / "batches.meta").write_bytes(pickle.dumps(classes, protocol=2))
    monkeypatch.setitem(CIFAR10.meta, "md5", md5(batches / "batches.meta"))
    return contents


@pytest.mark.parametrize("names", [["data_batch_1"], ["test_batch", "data_batch_3"], None])
def test_only_the_requested_cifar_files_are_read_and_in_the_requested_order(
    tmp_path, monkeypatch, offline, names
):
    files = names or [f"data_batch_{number}" for number in range(1, 6)]
    contents = write_cifar_files(tmp_path, monkeypatch, *files)
    options = {"files": names} if names else {}
    loaded = load("cifar10", tmp_path, **options)
    assert np.array_equal(loaded.images, np.concatenate([contents[name][0] for name in files]))
    assert np.array_equal(loaded.labels, np.concatenate([contents[name][1] for name in files]))
    assert loaded.classes == ["air", "bird", "cat"]


@pytest.mark.parametrize("file", ["data_bach_1", "../secret"])
def test_unknown_cifar_files_are_refused(tmp_path, offline, file):
    assert_refused(
        ["option files", f"'{file}'", "Choose among data_batch_1", "test_batch"],
        "cifar10",
        tmp_path,
        files=["data_batch_1", file],
    )


def test_message_without_network_names_missing_cifar_files(tmp_path, monkeypatch, offline):
    write_cifar_files(tmp_path, monkeypatch, "data_batch_1")
    batches = tmp_path / "cifar-10-batches-py"
    assert_refused(
        ["no network", f"data_batch_2 and test_batch into {batches}"],
        "cifar10",
        tmp_path,
        files=["data_batch_2", "data_batch_1", "test_batch"],
    )
    (batches / "batches.meta").unlink()
    assert_refused(
        [f"batches.meta into {batches}", "cifar-10-python.tar.gz"],
        "cifar10",
        tmp_path,
        files=["data_batch_1"],
    )


def test_message_for_missing_data_root_names_the_cifar_folder(tmp_path, offline):
    phrases = ["data_root", "PLASTICITY_DATA", "cifar-10-batches-py"]
    assert_refused(phrases, "cifar10", tmp_path / "away")


def test_failed_download_does_not_remove_an_existing_archive(tmp_path, offline):
    archive = tmp_path / CIFAR10.filename
    archive.write_text("somebody's")
    assert_refused([str(archive), "truncated or altered", "replace it"], "cifar10", tmp_path)
    assert (tmp_path / CIFAR10.filename).read_text() == "somebody's"


def test_nothing_is_downloaded_into_a_read_only_data_root(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        pytest.fail("downloaded")

    monkeypatch.setattr(cifar10.os, "access", lambda *_: False)
    monkeypatch.setattr(cifar10, "download_and_extract_archive", fail)
    assert_refused(["read-only", "Put the original data_batch_1"], "cifar10", tmp_path)
    socket.setdefaulttimeout(None)


def test_cifar_is_downloaded_if_its_md5_is_right(tmp_path, monkeypatch, file_server):
    served, address = file_server
    original, root = tmp_path / "original", tmp_path / "root"
    contents = write_cifar_files(original, monkeypatch, "data_batch_1", "data_batch_2")
    with tarfile.open(served / CIFAR10.filename, "w:gz") as tar:
        tar.add(original / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(CIFAR10, "url", address + CIFAR10.filename)
    root.mkdir()
    assert_refused(
        ["could not be downloaded", "corrupted"], "cifar10", root, files=["data_batch_2"]
    )
    assert not list(root.iterdir()), "an archive that is not the original is removed"
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(served / CIFAR10.filename))
    loaded = load("cifar10", root, files=["data_batch_2"])
    assert np.array_equal(loaded.images, contents["data_batch_2"][0])


class CreatesFolder:
    """An object whose pickle creates a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["data_batch_1", "data_batch_2", "batches.meta"])
def test_nothing_is_unpickled_if_any_md5_is_wrong(tmp_path, monkeypatch, offline, name):
    def fail(*arguments, **options):
        pytest.fail("unpickled")

    write_cifar_files(tmp_path, monkeypatch, "data_batch_1", "data_batch_2")
    path = tmp_path / "cifar-10-batches-py" / name
    path.write_bytes(pickle.dumps(CreatesFolder(tmp_path / "created")))
    monkeypatch.setattr("torchvision.datasets.cifar.pickle.load", fail)
    assert_refused(
        [str(path), "truncated or altered", "replace it"],
        "cifar10",
        tmp_path,
        files=["data_batch_1", "data_batch_2"],
    )
    assert not (tmp_path / "created").exists()


# Folders and archives


def random_image(seed, size=(20, 14), mode="RGB"):
    """Return an image of random pixels; `size` is its width and height."""
    draw = np.random.default_rng(seed)
    image = Image.fromarray(draw.integers(0, 256, (size[1], size[0], 3), np.uint8))
    return image.convert(mode)


def write_class_folders(root):
    """Write three classes with many formats, subfolders, and files that are not images."""
    images = {
        "ant/b.png": random_image(1),
        "ant/a.JPEG": random_image(2, (9, 33)),
        "ant/c.png": random_image(3, mode="L"),
        "bee/images/x.png": random_image(4, (12, 12)),
        "bee/images-more/x.png": random_image(5, (31, 8)),
        "bee/images/deep/x.png": random_image(6, (8, 8)),
        "bee/z.bmp": random_image(7),
        "cat/1.png": random_image(8, mode="P"),
        "cat/10.png": random_image(9, mode="RGBA"),
        "cat/2.webp": random_image(10),
        "cat/3.tif": random_image(11, mode="1"),
        f"cat/{'long' * 50}.ppm": random_image(12),
    }
    for name, image in images.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    (root / "bee" / "bee_boxes.txt").write_text("x.png 0 0 9 9")
    (root / "words.txt").write_text("ant an insect")
    return root


def pack(tree, path, mode="w", arcname="", seed=0, **options):
    """Pack a tree into an archive.

    Seed 0 packs files and folders in sorted order. Other seeds pack only files, in random order.
    """
    names = sorted(tree.rglob("*"))
    if seed:
        names = [name for name in names if name.is_file()]
        random.Random(seed).shuffle(names)
    with tarfile.open(path, mode, **options) as tar:
        for name in names:
            tar.add(name, f"{arcname}{name.relative_to(tree)}", recursive=False)
    return path


@pytest.fixture
def pets(tmp_path):
    return write_class_folders(tmp_path / "pets")


def expected_image(path, side):
    """Resize the shorter side of an image and crop its centre, written out."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    width, height = rgb.size
    size = (side, side * height // width) if width <= height else (side * width // height, side)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    square = rgb.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + side, top + side))
    return np.asarray(square).transpose(2, 0, 1)


FIRST_IMAGES = [
    "ant/a.JPEG",
    "ant/b.png",
    "ant/c.png",
    "bee/z.bmp",
    "bee/images/x.png",
    "bee/images-more/x.png",
    "bee/images/deep/x.png",
]


@pytest.mark.parametrize("side", [1, 8, 20])
def test_tree_is_read_class_by_class_in_sorted_order(tmp_path, pets, side):
    loaded = load("folder", tmp_path, path="pets", side=side)
    assert loaded.images.shape == (12, 3, side, side)
    assert loaded.images.dtype == np.uint8
    assert loaded.labels.tolist() == [0] * 3 + [1] * 4 + [2] * 5
    assert loaded.classes == ["ant", "bee", "cat"]
    for image, name in zip(loaded.images, FIRST_IMAGES, strict=False):
        assert np.array_equal(image, expected_image(pets / name, side)), name


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.tar", {}),
        ("a.tar.gz", {"mode": "w:gz"}),
        ("a.tar.xz", {"mode": "w:xz"}),
        ("a.tar.bz2", {"mode": "w:bz2"}),
        ("around.tar", {"arcname": "pets/"}),
        ("dots.tar.gz", {"arcname": "./", "mode": "w:gz"}),
        ("both.tar", {"arcname": "./pets/"}),
        ("gnu.tar", {"format": tarfile.GNU_FORMAT}),
        ("no_ending", {"mode": "w:gz"}),
    ],
)
def test_archive_equals_its_tree_and_is_not_unpacked_to_disk(tmp_path, pets, seed, name, options):
    pack(pets, tmp_path / name, seed=seed, **options)
    before = sorted(tmp_path.rglob("*"))
    for selection in ({}, {"classes": ["cat", "ant"], "per_class": 2}):
        from_archive = load("folder", tmp_path, path=name, side=8, **selection)
        from_tree = load("folder", tmp_path, path="pets", side=8, **selection)
        assert are_equal(from_archive, from_tree)
    assert sorted(tmp_path.rglob("*")) == before


def test_last_of_two_archived_files_with_one_name_is_read(tmp_path, pets):
    pack(pets, tmp_path / "a.tar")
    random_image(99).save(pets / "ant" / "b.png")
    with tarfile.open(tmp_path / "a.tar", "a") as tar:
        tar.add(pets / "ant" / "b.png", "ant/b.png")
    from_archive = load("folder", tmp_path, path="a.tar", side=8)
    from_tree = load("folder", tmp_path, path="pets", side=8)
    assert are_equal(from_archive, from_tree)


@pytest.mark.parametrize("path", ["pets", "a.tar"])
def test_only_selected_classes_and_images_are_opened(tmp_path, pets, monkeypatch, path):
    pack(pets, tmp_path / "a.tar", seed=1)
    everything = load("folder", tmp_path, path="pets", side=8)
    opened = []
    open_image = Image.open

    def record_and_open(file):
        opened.append(file)
        return open_image(file)

    monkeypatch.setattr(folder.Image, "open", record_and_open)
    selected = load("folder", tmp_path, path=path, side=8, classes=["cat", "ant"], per_class=2)
    assert selected.classes == ["cat", "ant"]
    assert selected.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(selected.images, everything.images[[7, 8, 0, 1]])
    assert len(opened) == 4
    first_two = load("folder", tmp_path, path=path, side=8, classes=2)
    assert first_two.classes == ["ant", "bee"]
    assert np.array_equal(first_two.images, everything.images[:7])


@pytest.mark.parametrize("path", ["pets", "a.tar.gz"])
def test_result_does_not_depend_on_the_order_of_threads(tmp_path, pets, monkeypatch, path):
    pack(pets, tmp_path / "a.tar.gz", "w:gz")
    expected = load("folder", tmp_path, path=path, side=8)
    resize_and_crop = folder.resize_and_crop

    def resize_and_wait(file, side):
        image = resize_and_crop(file, side)
        time.sleep(random.uniform(0, 0.01))
        return image

    monkeypatch.setattr(folder, "resize_and_crop", resize_and_wait)
    monkeypatch.setattr(folder, "BATCH", 1)
    monkeypatch.setattr(folder.os, "sched_getaffinity", lambda _: range(8))
    for _ in range(3):
        assert are_equal(load("folder", tmp_path, path=path, side=8), expected)


def write_unreadable_images(tree):
    """Add unreadable images to each class of `pets`; return their names."""
    jpeg = io.BytesIO()
    random_image(0, (60, 60)).save(jpeg, "JPEG")
    (tree / "ant" / "0.jpg").write_bytes(jpeg.getvalue()[: len(jpeg.getvalue()) // 2])
    (tree / "ant" / "bb.png").write_text("no image")
    (tree / "bee" / "a.png").write_bytes(b"")
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(tree / "bee" / "sixteen.png")
    random_image(1).save(tree / "cat" / "z.png")
    png = (tree / "cat" / "z.png").read_bytes()
    (tree / "cat" / "z.png").write_bytes(png[:60] + bytes(20) + png[80:])
    return ["ant/0.jpg", "ant/bb.png", "bee/a.png", "bee/sixteen.png", "cat/z.png"]


@pytest.mark.parametrize("path", ["pets", "a.tar"])
def test_all_unreadable_images_are_refused_in_one_message(tmp_path, pets, path):
    names = write_unreadable_images(pets)
    pack(pets, tmp_path / "a.tar", seed=1)
    phrases = [
        *(f"{name} (" for name in names),
        "5 of 17 images",
        "no image",
        "truncated",
        "8 bits",
        "Replace them",
        "unreadable to skip",
    ]
    assert_refused(phrases, "folder", tmp_path, path=path, side=8)


@pytest.mark.parametrize("path", ["pets", "a.tar"])
def test_message_names_only_some_of_many_unreadable_images(tmp_path, pets, monkeypatch, path):
    write_unreadable_images(pets)
    pack(pets, tmp_path / "a.tar", seed=1)
    monkeypatch.setattr(folder, "MAX_NAMED", 2)
    with pytest.raises(StudyError, match="5 of 17") as raised:
        load("folder", tmp_path, path=path, side=8)
    message = str(raised.value)
    assert "ant/bb.png" in message
    assert "bee/a.png" not in message
    assert "0x" not in message, "an address in memory"


@pytest.mark.parametrize("path", ["pets", "a.tar"])
def test_skipped_images_are_logged_by_name(tmp_path, pets, caplog, path):
    expected = load("folder", tmp_path, path="pets", side=8)
    names = write_unreadable_images(pets)
    pack(pets, tmp_path / "a.tar")
    with caplog.at_level("WARNING", "plasticity"):
        loaded = load("folder", tmp_path, path=path, side=8, unreadable="skip")
    assert are_equal(loaded, expected)
    assert len(caplog.records) == len(names)
    for name, record in zip(names, caplog.records, strict=True):
        assert name in record.getMessage()
        assert record.levelname == "WARNING"


def test_class_without_readable_images_is_refused(tmp_path, pets):
    (pets / "dog").mkdir()
    (pets / "dog" / "x.png").write_text("no image")
    assert_refused(
        ["no image of the class 'dog'", "can be read"],
        "folder",
        tmp_path,
        path="pets",
        side=8,
        unreadable="skip",
    )


def test_memory_error_is_not_reported_as_unreadable_image(tmp_path, pets, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(folder, "resize_and_crop", fail)
    with pytest.raises(MemoryError):
        load("folder", tmp_path, path="pets", side=8, unreadable="skip")


INVALID_OPTIONS = {
    "missing path": ({"path": "dogs"}, ["/dogs", "tar archive", "below data_root"]),
    "no class folders": ({"path": "pets/ant"}, ["/pets/ant", "no class folders"]),
    "side beyond memory": (
        {"side": 10**7},
        ["12 images of 10000000 × 10000000", "memory", "lower side"],
    ),
    "per_class too large": (
        {"per_class": 4},
        ["per_class is 4", "'ant'", "holds 3 images", "lower per_class"],
    ),
    "classes too large": ({"classes": 30}, ["classes is 30", "holds 3 classes"]),
    "misspelt class": ({"classes": ["ant", "bea"]}, ["'bea'", "Did you mean 'bee'?"]),
    "unknown class": ({"classes": ["xyz"]}, ["'xyz'", "3 classes, from 'ant' to 'cat'"]),
    "md5 of a folder": ({"md5": "0" * 32}, ["md5", "is a folder", "Remove md5"]),
}


@pytest.mark.parametrize(("options", "phrases"), INVALID_OPTIONS.values(), ids=INVALID_OPTIONS)
def test_invalid_options_are_refused_for_a_tree(tmp_path, pets, options, phrases):
    assert_refused(phrases, "folder", tmp_path, **{"path": "pets", "side": 8} | options)


ARCHIVE_OPTIONS = {
    name: case for name, case in INVALID_OPTIONS.items() if not {"path", "md5"} & case[0].keys()
}


@pytest.mark.parametrize(("options", "phrases"), ARCHIVE_OPTIONS.values(), ids=ARCHIVE_OPTIONS)
def test_invalid_options_are_refused_for_an_archive(tmp_path, pets, options, phrases):
    pack(pets, tmp_path / "a.tar")
    assert_refused(phrases, "folder", tmp_path, **{"path": "a.tar", "side": 8} | options)


def test_missing_data_root_is_named(tmp_path):
    root = tmp_path / "away"
    phrases = ["data_root", str(root), "PLASTICITY_DATA", "pets"]
    assert_refused(phrases, "folder", root, path="pets", side=8)


@pytest.mark.parametrize("path", ["pets", "a.tar"])
def test_class_folder_without_images_is_refused_if_it_is_used(tmp_path, pets, path):
    (pets / "dog").mkdir()
    (pets / "dog" / "readme.txt").write_text("no images yet")
    pack(pets, tmp_path / "a.tar")
    assert_refused(["'dog'", "no images", ".png"], "folder", tmp_path, path=path, side=8)
    assert load("folder", tmp_path, path=path, side=8, classes=["ant"]).classes == ["ant"]


def test_archive_with_the_right_md5_is_read(tmp_path, pets):
    path = pack(pets, tmp_path / "a.tar")
    assert len(load("folder", tmp_path, path="a.tar", side=8, md5=md5(path)).labels) == 12


def test_archive_with_a_wrong_md5_is_not_opened(tmp_path, pets, monkeypatch):
    def fail(*arguments, **options):
        pytest.fail("opened")

    path = pack(pets, tmp_path / "a.tar")
    monkeypatch.setattr(image_folders.tarfile, "open", fail)
    wrong = "0" * 32
    phrases = [str(path), md5(path), wrong, "replace it"]
    assert_refused(phrases, "folder", tmp_path, path="a.tar", side=8, md5=wrong)


def find_header(path, name):
    with tarfile.open(path) as tar:
        return tar.getmember(name)


def cut_in_content(path, content):
    return content[: find_header(path, "cat/1.png").offset_data + 9]


def cut_between_files(path, content):
    return content[: find_header(path, "cat/1.png").offset]


def cut_in_header(path, content):
    return content[: find_header(path, "cat/1.png").offset + 99]


def alter_header(path, content):
    return re.sub(rb"cat/1\.png", b"cat/2.png", content)


def cut_last_third(path, content):
    return content[: len(content) * 2 // 3]


def cut_early(path, content):
    return content[:200]


def alter_content(path, content):
    return content[:-300] + bytes(8) + content[-292:]


def alter_checksum(path, content):
    return content[:-8] + bytes(4) + content[-4:]


def alter_after_the_files(path, content):
    return content[:-18] + bytes([255] * 8) + content[-10:]


def alter_xz_content(path, content):
    return content[:4000] + bytes(80) + content[4080:]


DAMAGES = [
    ("a.tar", cut_in_content),
    ("a.tar", cut_between_files),
    ("a.tar", cut_in_header),
    ("a.tar", alter_header),
    ("a.tar.gz", cut_last_third),
    ("a.tar.gz", cut_early),
    ("a.tar.gz", alter_content),
    ("a.tar.gz", alter_checksum),
    ("a.tar.gz", alter_after_the_files),
    ("a.tar.xz", alter_xz_content),
    ("a.tar.xz", cut_last_third),
    ("a.tar.bz2", cut_last_third),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_truncated_or_altered_archive_is_refused(tmp_path, pets, name, damage):
    compression = name.removeprefix("a.tar").removeprefix(".")
    path = pack(pets, tmp_path / name, mode=f"w:{compression}")
    path.write_bytes(damage(path, path.read_bytes()))
    phrases = [str(path), "truncated or altered", "replace it"]
    assert_refused(phrases, "folder", tmp_path, path=name, side=8, unreadable="skip")


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive" * 200, gzip.compress(b"no archive" * 200)],
    ids=["empty", "text", "gzip"],
)
def test_file_that_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    phrases = [str(path), "no tar archive", "unpack"]
    assert_refused(phrases, "folder", tmp_path, path="a.tar", side=8)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_archive_with_links_is_refused(tmp_path, pets, kind):
    path = pack(pets, tmp_path / "a.tar")
    link = tarfile.TarInfo("ant/link.png")
    link.type = kind
    link.linkname = "ant/b.png"
    with tarfile.open(path, "a") as tar:
        tar.addfile(link)
    phrases = ["links (ant/link.png)", "--dereference"]
    assert_refused(phrases, "folder", tmp_path, path="a.tar", side=8)


def test_links_in_a_tree_are_followed(tmp_path, pets):
    (pets / "dog").symlink_to(pets / "ant")
    (pets / "ant" / "d.png").symlink_to(pets / "cat" / "1.png")
    loaded = load("folder", tmp_path, path="pets", side=8)
    assert loaded.classes == ["ant", "bee", "cat", "dog"]
    assert np.array_equal(loaded.images[loaded.labels == 0], loaded.images[loaded.labels == 3])


# ImageNet


@pytest.fixture
def wordnet(tmp_path):
    """Write class folders with WordNet ids; return their parent and the loaded images."""
    train = tmp_path / "plain" / "train"
    for number, name in enumerate(["n01440764", "n01443537", "n02110341"]):
        images = train / name / "images"
        images.mkdir(parents=True)
        for index in range(3):
            random_image(10 * number + index).save(images / f"{name}_{index}.JPEG")
    return train, load("folder", tmp_path, path="plain/train", side=8)


@pytest.mark.parametrize(
    "layout", ["imagenet/train", "imagenet/tiny-imagenet-200/train", "imagenet"]
)
def test_imagenet_is_found_in_all_layouts_of_a_tree(tmp_path, wordnet, layout):
    train, expected = wordnet
    shutil.copytree(train, tmp_path / layout)
    for ignored in ("val", "train.bak"):
        (tmp_path / "imagenet" / ignored).mkdir()
        random_image(0).save(tmp_path / "imagenet" / ignored / "a.JPEG")
    assert are_equal(load("imagenet", tmp_path, side=8), expected)


@pytest.mark.parametrize(
    "arcname",
    ["train/", "tiny-imagenet-200/train/", "a/tiny-imagenet-200/train/", "./imagenet/train/", ""],
)
def test_imagenet_is_found_in_all_layouts_of_an_archive(tmp_path, wordnet, arcname):
    train, expected = wordnet
    path = pack(train, tmp_path / "i.tar.gz", "w:gz", arcname, seed=1)
    loaded = load("imagenet", tmp_path, path="i.tar.gz", side=8, md5=md5(path))
    assert are_equal(loaded, expected)


def test_images_outside_the_class_folders_are_ignored(tmp_path, wordnet):
    train, expected = wordnet
    path = pack(train, tmp_path / "i.tar", arcname="train/")
    outside = [
        "n01440764/a.JPEG",
        "trainee/n01440764/b.JPEG",
        "val/n01440764/c.JPEG",
        "train/d.JPEG",
    ]
    with tarfile.open(path, "a") as tar:
        for name in outside:
            tar.add(train / "n01440764" / "images" / "n01440764_2.JPEG", name)
    assert are_equal(load("imagenet", tmp_path, path="i.tar", side=8), expected)


def test_tiny_imagenet_is_found_in_its_folder_and_in_its_archive(tmp_path, wordnet):
    train, expected = wordnet
    tiny = tmp_path / "tiny-imagenet-200"
    shutil.copytree(train, tiny / "train")
    (tiny / "val" / "images").mkdir(parents=True)
    random_image(0).save(tiny / "val" / "images" / "val_0.JPEG")
    (tiny / "train" / "n01440764" / "n01440764_boxes.txt").write_text("n01440764_0.JPEG 0 0 9 9")
    (tiny / "words.txt").write_text("n01440764 tench")
    assert are_equal(load("imagenet", tmp_path, path="tiny-imagenet-200", side=8), expected)
    shutil.rmtree(tmp_path / "plain")
    pack(tmp_path, tmp_path / "t.tar.gz", "w:gz")
    assert are_equal(load("imagenet", tmp_path, path="t.tar.gz", side=8), expected)


def pack_nested(train, path, mode="w"):
    """Pack one inner archive of images per class into an archive."""
    with tarfile.open(path, mode) as outer:
        for class_folder in sorted(train.iterdir(), reverse=True):
            inner_path = path.with_name(f"{class_folder.name}.tar")
            with tarfile.open(inner_path, "w") as inner:
                for image in sorted(class_folder.rglob("*.JPEG"), reverse=True):
                    inner.add(image, image.name)
            outer.add(inner_path, inner_path.name)
            inner_path.unlink()
    return path


@pytest.mark.parametrize("parent", ["", "imagenet/"])
def test_original_nested_archive_is_read_if_its_md5_is_right(
    tmp_path, wordnet, monkeypatch, parent
):
    train, expected = wordnet
    (tmp_path / "imagenet").mkdir()
    path = pack_nested(train, tmp_path / parent / "ILSVRC2012_img_train.tar")
    options = {} if parent else {"path": path.name}
    phrases = [str(path), "truncated or altered", imagenet.ARCHIVE_MD5]
    assert_refused(phrases, "imagenet", tmp_path, side=8, **options)
    monkeypatch.setattr(imagenet, "ARCHIVE_MD5", md5(path))
    assert are_equal(load("imagenet", tmp_path, side=8, **options), expected)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_only_inner_archives_of_selected_classes_are_opened(tmp_path, wordnet, monkeypatch, mode):
    train, expected = wordnet
    pack_nested(train, tmp_path / "nested.tar", mode)
    opened_files = []
    open_archive = tarfile.open

    def record_and_open(*arguments, **options):
        opened_files.append(options.get("fileobj"))
        return open_archive(*arguments, **options)

    monkeypatch.setattr(image_folders.tarfile, "open", record_and_open)
    loaded = load(
        "imagenet",
        tmp_path,
        path="nested.tar",
        side=8,
        classes=["n02110341", "n01440764"],
        per_class=2,
    )
    assert np.array_equal(loaded.images, expected.images[[6, 7, 0, 1]])
    assert loaded.classes == ["n02110341", "n01440764"]
    inner_archives = [file for file in opened_files if file]
    assert len(inner_archives) == 4, "two archives, opened once to list and once to read"


def test_truncated_inner_archive_is_refused(tmp_path, wordnet):
    train, _ = wordnet
    complete = pack(train / "n01440764", tmp_path / "complete.tar")
    (tmp_path / "inner.tar").write_bytes(complete.read_bytes()[:1500])
    with tarfile.open(tmp_path / "nested.tar", "w") as tar:
        tar.add(tmp_path / "inner.tar", "n01440764.tar")
    phrases = [str(tmp_path / "nested.tar"), "truncated or altered"]
    assert_refused(phrases, "imagenet", tmp_path, path="nested.tar", side=8)


def test_message_for_missing_imagenet_names_files_and_folders(tmp_path):
    originals = ["ILSVRC2012_img_train.tar", "image-net.org", "tiny-imagenet-200"]
    root = tmp_path / "imagenet"
    assert_refused(["account", *originals, str(root)], "imagenet", tmp_path, side=8)
    write_class_folders(root)
    phrases = [str(root), "no class folders such as train/n01440764", *originals]
    assert_refused(phrases, "imagenet", tmp_path, side=8)
    path = pack(root, tmp_path / "a.tar")
    assert_refused([str(path), "no class folders"], "imagenet", tmp_path, path="a.tar", side=8)


def test_imagenet_has_the_options_of_folder_and_a_default_path():
    imagenet_fields = registry.fields("datasets", "imagenet")
    folder_fields = registry.fields("datasets", "folder")
    assert imagenet_fields.keys() == folder_fields.keys()
    assert folder_fields["path"].required
    assert not imagenet_fields["path"].required
    assert imagenet_fields["side"].required


# Bits


def test_bits_are_fair_and_reproducible():
    bits = load("bits", Path("nowhere"))
    assert bits.images.shape == (10_000, 1, 1, 20)
    assert set(np.unique(bits.images)) == {0, 1}
    assert abs(bits.images.mean() - 0.5) < 0.01
    assert len(np.unique(bits.images[:, 0, 0], axis=0)) > 9_900
    assert (bits.maximum, list(bits.classes), set(bits.labels)) == (1, ["none"], {0})
    assert are_equal(load("bits", Path("nowhere")), bits)
    assert load("bits", Path("nowhere"), inputs=3, images=7).images.shape == (7, 1, 1, 3)
    assert dataset.describe("bits", bits, {}).image.attrs["valid_max"] == 1


# Memory

PRINT_PEAKS = """
import json, sys
from pathlib import Path
import prepare
from plasticity.job import Job

def peak():  # getrusage would start from the peak of the parent process
    with open("/proc/self/status") as status:
        lines = [line for line in status if line.startswith("VmHWM")]
    return 1024 * int(lines[0].split()[1])

root, peaks = Path(sys.argv[1]), []
for path, side in json.loads(sys.argv[2]):
    dataset = {"kind": "folder", "path": path, "side": side, "unreadable": "skip"}
    settings = {"name": "large", "dataset": dataset}
    prepare.main(Job({"root": [root], "output": [root / "out.nc"]}, settings, {}))
    peaks.append(peak())
print(json.dumps(peaks))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.slow
@pytest.mark.parametrize("path", ["many", "many.tar"])
def test_prepare_holds_the_images_in_memory_only_once(tmp_path, path):
    for class_name in ("ant", "bee"):
        class_folder = tmp_path / "many" / class_name
        class_folder.mkdir(parents=True)
        random_image(0, (8, 8)).save(class_folder / "0.png")
        for copy in range(1, 100):
            shutil.copy(class_folder / "0.png", class_folder / f"{copy}.png")
    (tmp_path / "many" / "ant" / "0.png").write_text("no image")
    pack(tmp_path / "many", tmp_path / "many.tar")
    small, large = 8, 500
    process = subprocess.run(
        [sys.executable, "-c", PRINT_PEAKS, tmp_path, json.dumps([(path, small), (path, large)])],
        env=os.environ | {"PYTHONPATH": "workflow/scripts", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    small_peak, large_peak = json.loads(process.stdout)
    array_bytes = 200 * 3 * large**2
    netcdf_cache = 2**26
    assert large_peak - small_peak > array_bytes / 2, "the peak does not show the images"
    assert large_peak - small_peak < 1.3 * array_bytes + netcdf_cache


# Real files


@pytest.mark.parametrize(
    "name", [pytest.param("data_batch_1", marks=needs_data("cifar-10-batches-py/data_batch_1"))]
)
def test_real_cifar_file_is_read_as_it_is(name):
    path = DATA_ROOT / "cifar-10-batches-py" / name
    assert md5(path) == dict(CIFAR10.train_list)[name]
    content = pickle.loads(path.read_bytes(), encoding="bytes")  # noqa: S301 - its md5 is checked
    loaded = load("cifar10", DATA_ROOT, files=[name])
    assert np.array_equal(loaded.images, content[b"data"].reshape(-1, 3, 32, 32))
    assert np.array_equal(loaded.labels, content[b"labels"])
    assert loaded.classes[:3] == ["airplane", "automobile", "bird"]
    data = dataset.describe("cifar10", loaded, {})
    published = [0.491, 0.482, 0.447]
    assert np.allclose(data.channel_mean, published, atol=0.005)


TINY_IMAGENET = "tiny-imagenet-20-classes.tar.gz"


@pytest.mark.parametrize("name", [pytest.param(TINY_IMAGENET, marks=needs_data(TINY_IMAGENET))])
def test_real_imagenet_classes_are_read_as_they_are(name):
    loaded = load("imagenet", DATA_ROOT, path=name, side=32)
    assert np.bincount(loaded.labels).tolist() == [500] * 20
    contents = {}
    with tarfile.open(DATA_ROOT / name) as tar:
        for header in tar:
            if header.isreg() and "/train/" in header.name and header.name.endswith(".JPEG"):
                wordnet_id = header.name.split("/")[2]
                content = tar.extractfile(header).read()
                contents.setdefault(wordnet_id, {})[header.name] = content
    assert loaded.classes == sorted(contents)
    grey = 0
    for label, wordnet_id in enumerate(loaded.classes):
        images = loaded.images[loaded.labels == label]
        for index, path in enumerate(sorted(contents[wordnet_id])):
            file = io.BytesIO(contents[wordnet_id][path])
            with Image.open(file) as image:
                mode = image.mode
            if index % 100 and mode == "RGB":
                continue
            grey += mode == "L"
            assert np.array_equal(images[index], expected_image(file, 32)), path
    assert grey > 50


# What images are found, and how they are read


def load_tree_and_archive(root, tree, **options):
    """Load a tree, and an archive of it, and check that they are equal."""
    pack(tree, root / "packed.tar")
    loaded = folder.Dataset(path=tree.name, side=8, **options).load(root)
    packed = folder.Dataset(path="packed.tar", side=8, **options).load(root)
    np.testing.assert_array_equal(loaded.images, packed.images)
    assert list(loaded.classes) == list(packed.classes)
    return loaded


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", "__MACOSX", ".DS_Store"])
def test_hidden_folder_is_no_class_and_is_reported(tmp_path, pets, caplog, hidden):
    expected = folder.Dataset(path="pets", side=8).load(tmp_path)
    random_image(20).save(pets / "ant" / "._a.png")
    (pets / hidden).mkdir()
    random_image(21).save(pets / hidden / "a.png")
    loaded = load_tree_and_archive(tmp_path, pets)
    assert list(loaded.classes) == ["ant", "bee", "cat"]
    np.testing.assert_array_equal(loaded.images, expected.images)
    assert f"not used of {pets}: 2 hidden files" in caplog.text
    assert f"not used of {tmp_path / 'packed.tar'}: " in caplog.text


def test_images_of_other_formats_are_counted(tmp_path, pets, caplog):
    for name in ("a.gif", "b.GIF"):
        random_image(20).save(pets / "ant" / name, format="gif")
    random_image(21).save(pets / "bee" / "c.jfif", format="jpeg")
    assert len(load_tree_and_archive(tmp_path, pets).images) == 12
    assert caplog.text.count("2 .gif, 1 .jfif files; images need one of the extensions .jpg") == 2


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_link_to_a_folder_around_it_is_refused(tmp_path, pets, depth):
    inside = pets / "bee" / "/".join(["deeper"] * depth)
    inside.mkdir(parents=True, exist_ok=True)
    (inside / "again").symlink_to(pets / "bee")
    with pytest.raises(StudyError, match="is a link to a folder that contains it"):
        folder.Dataset(path="pets", side=8).load(tmp_path)


def test_two_links_to_one_folder_are_no_loop(tmp_path, pets):
    for name in ("dog", "eel"):
        (pets / name).symlink_to(pets / "ant")
    assert len(folder.Dataset(path="pets", side=8).load(tmp_path).images) == 12 + 2 * 3


def test_pipe_with_the_name_of_an_image_is_refused(tmp_path, pets):
    os.mkfifo(pets / "ant" / "9.png")
    with pytest.raises(StudyError, match=r"9\.png is no regular file"):
        folder.Dataset(path="pets", side=8).load(tmp_path)


@pytest.mark.parametrize("prefix", ["/", "//", "/./", "./", "/data/"])
def test_archive_with_absolute_names_is_read_as_tar_unpacks_it(tmp_path, pets, prefix):
    expected = folder.Dataset(path="pets", side=8).load(tmp_path)
    with tarfile.open(tmp_path / "packed.tar", "w") as tar:
        for path in sorted(pets.rglob("*.*")):
            header = tar.gettarinfo(path)
            header.name = f"{prefix}pets/{path.relative_to(pets)}"
            if header.isreg():
                with path.open("rb") as file:
                    tar.addfile(header, file)
    options = {"path": "packed.tar", "side": 8}
    if prefix == "/data/":
        with pytest.raises(StudyError):
            folder.Dataset(**options, classes=["ant"]).load(tmp_path)
        return
    loaded = folder.Dataset(**options).load(tmp_path)
    np.testing.assert_array_equal(loaded.images, expected.images)


def test_folder_in_an_archive_keeps_its_ending(tmp_path, pets):
    (pets / "cat").rename(pets / "cat.tar")
    loaded = load_tree_and_archive(tmp_path, pets)
    assert list(loaded.classes) == ["ant", "bee", "cat.tar"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_is_turned_as_its_exif_orientation_says(tmp_path, orientation):
    upright = np.asarray(random_image(3, (8, 8)))
    # How a camera stores an upright image, for each value of the tag (EXIF 2.3, section 4.6.4).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    read = folder.resize_and_crop(tmp_path / "a.png", 8)
    np.testing.assert_array_equal(read, upright.transpose(2, 0, 1))


@pytest.mark.parametrize("alpha", [0, 100, 255])
def test_transparent_pixels_are_laid_on_black(tmp_path, alpha):
    pixels = np.full((8, 8, 4), 200, np.uint8)
    pixels[..., 3] = alpha
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = folder.resize_and_crop(tmp_path / "a.png", 8)
    assert np.abs(read.astype(int) - round(200 * alpha / 255)).max() <= 1


def test_transparent_colour_of_a_palette_is_black(tmp_path):
    image = Image.new("P", (8, 8), 0)
    image.putpalette([250, 240, 230, 10, 20, 30])
    image.save(tmp_path / "a.png", transparency=0)
    assert not folder.resize_and_crop(tmp_path / "a.png", 8).any()


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_of_classes_are_equal_in_any_unicode_form(tmp_path, form):
    for name in ("cafe\u0301", "the"):
        (tmp_path / "shops" / name).mkdir(parents=True)
        random_image(1).save(tmp_path / "shops" / name / "a.png")
    wanted = unicodedata.normalize(form, "café")
    loaded = folder.Dataset(path="shops", side=8, classes=[wanted]).load(tmp_path)
    assert len(loaded.images) == 1
