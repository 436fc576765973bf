"""Datasets: what is read is what the files hold, and what is missing, torn, altered or unfit is refused in a sentence."""

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

GIVEN = Path(os.environ.get("PLASTICITY_DATA", "")).resolve()


def given(path):
    """A mark for tests on real files."""
    absent = "PLASTICITY_DATA" not in os.environ or not (GIVEN / path).exists()
    return [
        pytest.mark.data,
        pytest.mark.skipif(absent, reason=f"PLASTICITY_DATA does not name a folder with {path}"),
    ]


def load(kind, root, **options):
    return registry.build("datasets", kind, options).load(root)


def refused(sentence, kind, root, **options):
    """Loading ends in a sentence that holds all of the words, without a line break."""
    with pytest.raises(StudyError) as caught:
        load(kind, root, **options)
    for words in sentence:
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def equal(one, other):
    """Whether the same was loaded."""
    return (
        np.array_equal(one.images, other.images)
        and np.array_equal(one.labels, other.labels)
        and list(one.classes) == list(other.classes)
        and one.maximum == other.maximum
    )


@pytest.fixture
def offline(monkeypatch):
    """No network."""

    def fail(*arguments, **options):
        raise URLError("no network")

    monkeypatch.setattr(mnist, "download_url", fail)
    monkeypatch.setattr(cifar10, "download_and_extract_archive", fail)
    yield
    socket.setdefaulttimeout(None)


@pytest.fixture
def served(tmp_path):
    """A folder, and the address of a server that hands out its files."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    place = tmp_path / "served"
    place.mkdir()
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=place)
    ) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield place, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
    socket.setdefaulttimeout(None)


# what any loader gives


def loaded(**changed):
    draw = np.random.default_rng(0)
    fields = {
        "images": draw.integers(0, 17, (9, 2, 4, 5), np.uint8),
        "labels": np.arange(9) % 3,
        "classes": ["a", "b", "c"],
        "maximum": 16,
    }
    return Images(**fields | changed)


@pytest.mark.parametrize("chunk", [1, 7, 50, 2**20])
def test_means_and_deviations_are_those_of_all_pixels_whatever_the_chunk(monkeypatch, chunk):
    monkeypatch.setattr(dataset, "CHUNK", chunk)
    data, images = dataset.describe("x", loaded(), {}), loaded().images
    assert np.array_equal(data.channel_mean, (images.mean((0, 2, 3)) / 16).astype(np.float32))
    assert np.array_equal(data.channel_std, (images.std((0, 2, 3)) / 16).astype(np.float32))
    assert data.image.attrs["valid_max"] == 16
    assert np.array_equal(data.image, images)


def test_digits_are_described_as_ever():
    digits = load("digits", Path("nowhere"))
    data = dataset.describe("digits", digits, {})
    assert digits.images.shape == (1797, 1, 8, 8)
    assert data.channel_mean.item() == np.float32(digits.images.mean() / 16)
    assert data.channel_std.item() == np.float32(digits.images.std() / 16)


def test_names_of_classes_come_back_from_a_file_which_is_the_same_on_each_writing(tmp_path):
    names = ["T-shirt/top", "bär", ""]
    for place in ("a", "b"):
        netcdf.write(
            dataset.describe("x", loaded(classes=names), {"contract": CONTRACT}),
            tmp_path / place / "x.nc",
        )
    assert netcdf.read(tmp_path / "a" / "x.nc").class_name.values.tolist() == names
    assert (tmp_path / "a" / "x.nc").read_bytes() == (tmp_path / "b" / "x.nc").read_bytes()


FLOATS = loaded().images / 16
UNFIT = {
    "fractions": (
        {"images": FLOATS},
        ["float64", "scale them to 0 to maximum", "convert to uint8"],
    ),
    "NaN": (
        {"images": np.where(FLOATS > 0.9, np.nan, FLOATS)},
        ["float64 (and some are NaN)", "replace"],
    ),
    "wide integers": ({"images": loaded().images.astype(np.int64)}, ["int64", "uint8"]),
    "no channels": (
        {"images": loaded().images[:, 0]},
        ["(9, 4, 5)", "(sample, channel, row, column)"],
    ),
    "no images": (
        {"images": loaded().images[:0], "labels": np.arange(0)},
        ["(0, 2, 4, 5)", "at least one"],
    ),
    "no pixels": ({"images": loaded().images[..., :0]}, ["(9, 2, 4, 0)", "at least one"]),
    "a pixel above the maximum": ({"maximum": 15}, ["pixel 16", "maximum of 15"]),
    "a maximum of 0": ({"maximum": 0}, ["maximum 0", "1 to 255"]),
    "a maximum beyond uint8": ({"maximum": 256}, ["maximum 256", "1 to 255"]),
    "labels of fractions": ({"labels": np.arange(9.0)}, ["float64", "whole number per image"]),
    "labels of truths": ({"labels": np.arange(9) > 3}, ["bool", "whole number per image"]),
    "too few labels": ({"labels": np.arange(8) % 3}, ["(8,)", "(9, 2, 4, 5)"]),
    "labels in columns": ({"labels": np.zeros((9, 1), int)}, ["(9, 1)"]),
    "a negative label": (
        {"labels": np.array([0, 1, 2, 0, -1, 3, 0, 0, 0])},
        ["label -1 at image 4", "0 to 2"],
    ),
    "a label without a class": (
        {"labels": np.array([0, 1, 2, 0, 2, 3, 0, 9, 0])},
        ["label 3 at image 5", "3 classes", "0 to 2"],
    ),
    "a class twice": ({"classes": ["a", "b", "a"]}, ["'a' twice"]),
}


@pytest.mark.parametrize(("changed", "words"), UNFIT.values(), ids=UNFIT)
def test_what_a_loader_should_not_give_is_refused(changed, words):
    with pytest.raises(StudyError, match=r"^dataset mine ") as caught:
        dataset.describe("mine", loaded(**changed), {})
    for word in words:
        assert word in str(caught.value)


def test_labels_of_any_integers_are_taken():
    for dtype in (np.uint8, np.int16, np.int64):
        assert (
            dataset.describe("x", loaded(labels=(np.arange(9) % 3).astype(dtype)), {}).label.dtype
            == np.int64
        )


# MNIST and Fashion-MNIST

IDX = {"mnist": MNIST, "fashion_mnist": FashionMNIST}


def put_idx(place, origin, monkeypatch):
    """Tiny files of the original format and names below a folder, taken for the original ones."""
    draw, place = np.random.default_rng(len(origin.__name__)), place / origin.__name__ / "raw"
    place.mkdir(parents=True)
    images, labels = draw.integers(0, 256, (6, 28, 28), np.uint8), draw.integers(0, 10, 6, np.uint8)
    contents = [
        struct.pack(">IIII", 2051, 6, 28, 28) + images.tobytes(),
        struct.pack(">II", 2049, 6) + labels.tobytes(),
    ]
    resources = []
    for (name, _), content in zip(origin.resources, contents, strict=False):
        (place / name).write_bytes(gzip.compress(content, mtime=0))
        resources.append((name, md5(place / name)))
    monkeypatch.setattr(origin, "resources", resources + origin.resources[2:])
    return images, labels


@pytest.mark.parametrize("kind", IDX)
def test_idx_files_are_read_in_their_order(tmp_path, monkeypatch, offline, kind):
    images, labels = put_idx(tmp_path, IDX[kind], monkeypatch)
    read = load(kind, tmp_path)
    assert np.array_equal(read.images, images[:, None])
    assert np.array_equal(read.labels, labels)
    assert read.classes == IDX[kind].classes
    assert read.labels.dtype == np.int64


def test_what_shares_a_reader_has_its_own_files_and_classes(tmp_path, monkeypatch, offline):
    for origin in IDX.values():
        put_idx(tmp_path, origin, monkeypatch)
    one, other = (load(kind, tmp_path) for kind in IDX)
    assert not np.array_equal(one.images, other.images)
    assert "Sneaker" in other.classes
    assert "Sneaker" not in one.classes


@pytest.mark.parametrize("kind", IDX)
def test_idx_files_that_are_missing_are_named_where_there_is_no_network(tmp_path, offline, kind):
    name = IDX[kind].__name__
    where = str(tmp_path / name / "raw")
    refused(
        [f"{name} could not", "no network", "train-images-idx3-ubyte.gz and train-labels", where],
        kind,
        tmp_path,
    )
    refused(
        ["data_root", "PLASTICITY_DATA", f"{name}/raw/train-images-idx3-ubyte.gz"],
        kind,
        tmp_path / "away",
    )


@pytest.mark.parametrize("kind", IDX)
@pytest.mark.parametrize("flaw", ["altered", "truncated"])
def test_idx_files_with_a_flaw_are_refused_by_name(tmp_path, monkeypatch, offline, kind, flaw):
    put_idx(tmp_path, IDX[kind], monkeypatch)
    path = tmp_path / IDX[kind].__name__ / "raw" / "train-labels-idx1-ubyte.gz"
    content = path.read_bytes()
    path.write_bytes(
        content[:-1] if flaw == "truncated" else content[:-1] + bytes([content[-1] ^ 1])
    )
    refused([str(path), "truncated or altered", "replace it"], kind, tmp_path)


@pytest.mark.parametrize("kind", IDX)
def test_idx_files_are_downloaded_where_there_is_a_network(tmp_path, monkeypatch, served, kind):
    place, address = served
    images, _ = put_idx(place, IDX[kind], monkeypatch)
    monkeypatch.setattr(
        IDX[kind], "mirrors", ["http://127.0.0.1:1/", f"{address}{IDX[kind].__name__}/raw/"]
    )
    (tmp_path / "root").mkdir()
    (place / IDX[kind].__name__ / "raw" / "train-labels-idx1-ubyte.gz").rename(place / "kept")
    (place / IDX[kind].__name__ / "raw" / "train-labels-idx1-ubyte.gz").write_text(
        "not the original"
    )
    refused(["could not be downloaded", "corrupted"], kind, tmp_path / "root")
    assert len(list(tmp_path.glob("root/*/raw/*"))) == 1, "what is not the original is not kept"
    (place / "kept").rename(place / IDX[kind].__name__ / "raw" / "train-labels-idx1-ubyte.gz")
    assert np.array_equal(load(kind, tmp_path / "root").images, images[:, None])


# CIFAR-10


def put_cifar(root, monkeypatch, *names):
    """Tiny files of the original format, taken for the original ones; images and labels by file."""
    place = root / "cifar-10-batches-py"
    place.mkdir(parents=True)
    monkeypatch.setattr(cifar10, "SHAPE", (4, 3, 32, 32))
    contents = {}
    for name in names:
        draw = np.random.default_rng(sum(name.encode()))
        images, labels = draw.integers(0, 256, (4, 3, 32, 32), np.uint8), draw.integers(0, 3, 4)
        (place / name).write_bytes(
            pickle.dumps({"data": images.reshape(4, -1), "labels": labels.tolist()}, protocol=2)
        )
        monkeypatch.setitem(cifar10.KNOWN, name, md5(place / name))
        contents[name] = images, labels
    (place / "batches.meta").write_bytes(
        pickle.dumps({"label_names": ["air", "bird", "cat"]}, protocol=2)
    )
    monkeypatch.setitem(CIFAR10.meta, "md5", md5(place / "batches.meta"))
    return contents


@pytest.mark.parametrize("names", [["data_batch_1"], ["test_batch", "data_batch_3"], None])
def test_files_of_cifar_are_read_in_the_order_that_is_asked_for_and_no_other_is_needed(
    tmp_path, monkeypatch, offline, names
):
    files = names or [f"data_batch_{number}" for number in range(1, 6)]
    contents = put_cifar(tmp_path, monkeypatch, *files)
    read = load("cifar10", tmp_path, **({"files": names} if names else {}))
    assert np.array_equal(read.images, np.concatenate([contents[name][0] for name in files]))
    assert np.array_equal(read.labels, np.concatenate([contents[name][1] for name in files]))
    assert read.classes == ["air", "bird", "cat"]


@pytest.mark.parametrize("file", ["data_bach_1", "../secret"])
def test_files_that_cifar_does_not_have_are_refused(tmp_path, offline, file):
    refused(
        ["option files", f"'{file}'", "known are data_batch_1", "test_batch"],
        "cifar10",
        tmp_path,
        files=["data_batch_1", file],
    )


def test_missing_files_of_cifar_are_named_where_there_is_no_network(tmp_path, monkeypatch, offline):
    put_cifar(tmp_path, monkeypatch, "data_batch_1")
    place = str(tmp_path / "cifar-10-batches-py")
    refused(
        ["no network", f"data_batch_2 and test_batch into {place}"],
        "cifar10",
        tmp_path,
        files=["data_batch_2", "data_batch_1", "test_batch"],
    )
    (tmp_path / "cifar-10-batches-py" / "batches.meta").unlink()
    refused(
        [f"batches.meta into {place}", "cifar-10-python.tar.gz"],
        "cifar10",
        tmp_path,
        files=["data_batch_1"],
    )
    refused(["data_root", "PLASTICITY_DATA", "cifar-10-batches-py"], "cifar10", tmp_path / "away")


def test_an_archive_that_was_there_is_not_removed_where_a_download_fails(tmp_path, offline):
    (tmp_path / CIFAR10.filename).write_text("somebody's")
    refused(["could not be downloaded"], "cifar10", tmp_path)
    assert (tmp_path / CIFAR10.filename).read_text() == "somebody's"


def test_nothing_is_downloaded_into_a_data_root_that_is_read_only(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10.os, "access", lambda *_: False)
    monkeypatch.setattr(
        cifar10, "download_and_extract_archive", lambda *_, **__: pytest.fail("downloaded")
    )
    refused(["read-only", "put the original data_batch_1"], "cifar10", tmp_path)
    socket.setdefaulttimeout(None)


def test_cifar_is_downloaded_where_there_is_a_network(tmp_path, monkeypatch, served):
    place, address = served
    contents = put_cifar(tmp_path / "theirs", monkeypatch, "data_batch_1", "data_batch_2")
    with tarfile.open(place / CIFAR10.filename, "w:gz") as tar:
        tar.add(tmp_path / "theirs" / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(CIFAR10, "url", address + CIFAR10.filename)
    (tmp_path / "mine").mkdir()
    refused(
        ["could not be downloaded", "corrupted"],
        "cifar10",
        tmp_path / "mine",
        files=["data_batch_2"],
    )
    assert not list((tmp_path / "mine").iterdir()), "what is not the original is not kept"
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(place / CIFAR10.filename))
    assert np.array_equal(
        load("cifar10", tmp_path / "mine", files=["data_batch_2"]).images,
        contents["data_batch_2"][0],
    )


class Malice:
    """A pickle that makes a folder as soon as it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["data_batch_1", "data_batch_2", "batches.meta"])
def test_nothing_is_unpickled_before_all_checksums_are_right(tmp_path, monkeypatch, offline, name):
    put_cifar(tmp_path, monkeypatch, "data_batch_1", "data_batch_2")
    path = tmp_path / "cifar-10-batches-py" / name
    path.write_bytes(pickle.dumps(Malice(tmp_path / "harm")))
    monkeypatch.setattr(
        "torchvision.datasets.cifar.pickle.load", lambda *_, **__: pytest.fail("unpickled")
    )
    refused(
        [str(path), "truncated or altered", "replace it"],
        "cifar10",
        tmp_path,
        files=["data_batch_1", "data_batch_2"],
    )
    assert not (tmp_path / "harm").exists()


# folders and archives


def picture(seed, size=(20, 14), mode="RGB"):
    """An image of random pixels; `size` is its width and height."""
    draw = np.random.default_rng(seed)
    image = Image.fromarray(draw.integers(0, 256, (size[1], size[0], 3), np.uint8))
    return image.convert(mode)


def put_classes(place, prefix=""):
    """A folder of three classes: many formats, sub-folders, and files that are no images."""
    files = {
        "ant/b.png": picture(1),
        "ant/a.JPEG": picture(2, (9, 33)),
        "ant/c.png": picture(3, mode="L"),
        "bee/images/x.png": picture(4, (12, 12)),
        "bee/images-more/x.png": picture(5, (31, 8)),
        "bee/images/deep/x.png": picture(6, (8, 8)),
        "bee/z.bmp": picture(7),
        "cat/1.png": picture(8, mode="P"),
        "cat/10.png": picture(9, mode="RGBA"),
        "cat/2.webp": picture(10),
        "cat/3.tif": picture(11, mode="1"),
        f"cat/{'long' * 50}.ppm": picture(12),
    }
    for name, image in files.items():
        path = place / (prefix + name)
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    (place / f"{prefix}bee" / "bee_boxes.txt").write_text("x.png 0 0 9 9")
    (place / "words.txt").write_text("ant an insect")
    return place


def pack(tree, path, mode="w", arcname="", seed=0, **options):
    """An archive of a tree, its runs in random order; folders have runs of their own only where the order is sorted."""
    members = sorted(tree.rglob("*"))
    if seed:
        members = [member for member in members if member.is_file()]
        random.Random(seed).shuffle(members)
    with tarfile.open(path, mode, **options) as tar:
        for member in members:
            tar.add(member, f"{arcname}{member.relative_to(tree)}", recursive=False)
    return path


@pytest.fixture
def pets(tmp_path):
    return put_classes(tmp_path / "pets")


def by_hand(path, side):
    """An image as it should become: the shorter side resized, the centre cut out."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    width, height = rgb.size
    size = (side, side * height // width) if width <= height else (side * width // height, side)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    square = rgb.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + side, top + side))
    return np.asarray(square).transpose(2, 0, 1)


ORDER = [
    "ant/a.JPEG",
    "ant/b.png",
    "ant/c.png",
    "bee/z.bmp",
    "bee/images/x.png",
    "bee/images-more/x.png",
    "bee/images/deep/x.png",
]


@pytest.mark.parametrize("side", [1, 8, 20])
def test_a_tree_is_read_class_by_class_and_in_sorted_order(tmp_path, pets, side):
    read = load("folder", tmp_path, path="pets", side=side)
    assert read.images.shape == (12, 3, side, side)
    assert read.images.dtype == np.uint8
    assert read.labels.tolist() == [0] * 3 + [1] * 4 + [2] * 5
    assert read.classes == ["ant", "bee", "cat"]
    for image, name in zip(read.images, ORDER, strict=False):
        assert np.array_equal(image, by_hand(pets / name, side)), name


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
def test_an_archive_gives_the_bytes_that_its_tree_gives(tmp_path, pets, seed, name, options):
    pack(pets, tmp_path / name, seed=seed, **options)
    before = sorted(tmp_path.rglob("*"))
    for more in ({}, {"classes": ["cat", "ant"], "per_class": 2}):
        assert equal(
            load("folder", tmp_path, path=name, side=8, **more),
            load("folder", tmp_path, path="pets", side=8, **more),
        )
    assert sorted(tmp_path.rglob("*")) == before, "nothing is unpacked to disk"


def test_a_member_that_an_archive_holds_twice_counts_as_its_last(tmp_path, pets):
    pack(pets, tmp_path / "a.tar")
    picture(99).save(pets / "ant" / "b.png")
    with tarfile.open(tmp_path / "a.tar", "a") as tar:
        tar.add(pets / "ant" / "b.png", "ant/b.png")
    assert equal(
        load("folder", tmp_path, path="a.tar", side=8),
        load("folder", tmp_path, path="pets", side=8),
    )


@pytest.mark.parametrize("path", ["pets", "a.tar"])
def test_classes_and_images_are_chosen_and_no_other_is_opened(tmp_path, pets, monkeypatch, path):
    pack(pets, tmp_path / "a.tar", seed=1)
    everything, opened = load("folder", tmp_path, path="pets", side=8), []
    monkeypatch.setattr(
        folder.Image, "open", lambda file, real=Image.open: opened.append(file) or real(file)
    )
    chosen = load("folder", tmp_path, path=path, side=8, classes=["cat", "ant"], per_class=2)
    assert chosen.classes == ["cat", "ant"]
    assert chosen.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(chosen.images, everything.images[[7, 8, 0, 1]])
    assert len(opened) == 4
    first = load("folder", tmp_path, path=path, side=8, classes=2)
    assert first.classes == ["ant", "bee"]
    assert np.array_equal(first.images, everything.images[:7])


@pytest.mark.parametrize("path", ["pets", "a.tar.gz"])
def test_the_order_of_threads_changes_nothing(tmp_path, pets, monkeypatch, path):
    pack(pets, tmp_path / "a.tar.gz", "w:gz")
    expected, real = load("folder", tmp_path, path=path, side=8), folder.fitted

    def slow(file, side):
        image = real(file, side)
        time.sleep(random.uniform(0, 0.01))
        return image

    monkeypatch.setattr(folder, "fitted", slow)
    monkeypatch.setattr(folder, "BATCH", 1)
    monkeypatch.setattr(folder.os, "sched_getaffinity", lambda _: range(8))
    for _ in range(3):
        assert equal(load("folder", tmp_path, path=path, side=8), expected)


def spoil(tree):
    """Give a tree images that cannot be read, in each class; their names."""
    noise = io.BytesIO()
    picture(0, (60, 60)).save(noise, "JPEG")
    (tree / "ant" / "0.jpg").write_bytes(noise.getvalue()[: len(noise.getvalue()) // 2])
    (tree / "ant" / "bb.png").write_text("no image")
    (tree / "bee" / "a.png").write_bytes(b"")
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(tree / "bee" / "sixteen.png")
    picture(1).save(tree / "cat" / "z.png")
    content = (tree / "cat" / "z.png").read_bytes()
    (tree / "cat" / "z.png").write_bytes(content[:60] + bytes(20) + content[80:])
    return ["ant/0.jpg", "ant/bb.png", "bee/a.png", "bee/sixteen.png", "cat/z.png"]


@pytest.mark.parametrize("path", ["pets", "a.tar"])
def test_all_images_that_cannot_be_read_are_refused_at_once(tmp_path, pets, monkeypatch, path):
    names = spoil(pets)
    pack(pets, tmp_path / "a.tar", seed=1)
    words = [
        *(f"{name} (" for name in names),
        "5 of 17 images",
        "no image",
        "truncated",
        "8 bits",
        "replace them",
        "unreadable to skip",
    ]
    refused(words, "folder", tmp_path, path=path, side=8)
    monkeypatch.setattr(folder, "NAMED", 2)
    with pytest.raises(StudyError, match="5 of 17") as caught:
        load("folder", tmp_path, path=path, side=8)
    assert "ant/bb.png" in str(caught.value)
    assert "bee/a.png" not in str(caught.value)
    assert "0x" not in str(caught.value), "an address in memory"


@pytest.mark.parametrize("path", ["pets", "a.tar"])
def test_images_that_cannot_be_read_are_left_out_by_name_where_they_are_skipped(
    tmp_path, pets, caplog, path
):
    expected = load("folder", tmp_path, path="pets", side=8)
    names = spoil(pets)
    pack(pets, tmp_path / "a.tar")
    with caplog.at_level("WARNING", "plasticity"):
        assert equal(load("folder", tmp_path, path=path, side=8, unreadable="skip"), expected)
    assert len(caplog.records) == len(names)
    for name, record in zip(names, caplog.records, strict=True):
        assert name in record.getMessage()
        assert record.levelname == "WARNING"


def test_a_class_of_which_no_image_can_be_read_is_refused(tmp_path, pets):
    (pets / "dog").mkdir()
    (pets / "dog" / "x.png").write_text("no image")
    refused(
        ["no image of the class 'dog'", "can be read"],
        "folder",
        tmp_path,
        path="pets",
        side=8,
        unreadable="skip",
    )


def test_too_little_memory_is_no_unreadable_image(tmp_path, pets, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(folder, "fitted", fail)
    with pytest.raises(MemoryError):
        load("folder", tmp_path, path="pets", side=8, unreadable="skip")


UNFIT_OPTIONS = {
    "no such path": ({"path": "dogs"}, ["/dogs", "tar archive", "below data_root"]),
    "no class folders": ({"path": "pets/ant"}, ["/pets/ant", "no class folders"]),
    "side beyond memory": (
        {"side": 10**7},
        ["12 images of 10000000 × 10000000", "memory", "lower side"],
    ),
    "too many per class": (
        {"per_class": 4},
        ["per_class is 4", "'ant'", "holds 3 images", "lower per_class"],
    ),
    "more classes than there are": ({"classes": 30}, ["classes is 30", "holds 3 classes"]),
    "an unknown class": ({"classes": ["ant", "bea"]}, ["'bea'", "did you mean 'bee'?"]),
    "a class far from all": ({"classes": ["xyz"]}, ["'xyz'", "3 classes, from 'ant' to 'cat'"]),
    "md5 of a folder": ({"md5": "0" * 32}, ["md5", "is a folder", "leave md5 out"]),
}


@pytest.mark.parametrize(("options", "words"), UNFIT_OPTIONS.values(), ids=UNFIT_OPTIONS)
def test_options_that_do_not_fit_are_refused(tmp_path, pets, options, words):
    refused(words, "folder", tmp_path, **{"path": "pets", "side": 8} | options)
    if not {"path", "md5"} & options.keys():  # which are said of trees
        pack(pets, tmp_path / "a.tar")
        refused(words, "folder", tmp_path, **{"path": "a.tar", "side": 8} | options)


def test_a_data_root_that_is_not_there_is_named(tmp_path):
    refused(
        ["data_root", str(tmp_path / "away"), "PLASTICITY_DATA", "pets"],
        "folder",
        tmp_path / "away",
        path="pets",
        side=8,
    )


@pytest.mark.parametrize("path", ["pets", "a.tar"])
def test_a_class_folder_without_images_is_refused(tmp_path, pets, path):
    (pets / "dog").mkdir()
    (pets / "dog" / "readme.txt").write_text("no images yet")
    pack(pets, tmp_path / "a.tar")
    refused(["'dog'", "no images", ".png"], "folder", tmp_path, path=path, side=8)
    assert load("folder", tmp_path, path=path, side=8, classes=["ant"]).classes == ["ant"]


def test_an_archive_is_read_only_if_its_md5_is_right(tmp_path, pets, monkeypatch):
    path = pack(pets, tmp_path / "a.tar")
    assert len(load("folder", tmp_path, path="a.tar", side=8, md5=md5(path)).labels) == 12
    monkeypatch.setattr(image_folders.tarfile, "open", lambda *_, **__: pytest.fail("opened"))
    refused(
        [str(path), md5(path), "0" * 32, "replace it"],
        "folder",
        tmp_path,
        path="a.tar",
        side=8,
        md5="0" * 32,
    )


def member(path, name):
    with tarfile.open(path) as tar:
        return tar.getmember(name)


DAMAGES = {
    "cut in a member": (
        "a.tar",
        lambda path, content: content[: member(path, "cat/1.png").offset_data + 9],
    ),
    "cut between members": (
        "a.tar",
        lambda path, content: content[: member(path, "cat/1.png").offset],
    ),
    "cut in a header": (
        "a.tar",
        lambda path, content: content[: member(path, "cat/1.png").offset + 99],
    ),
    "a header altered": (
        "a.tar",
        lambda path, content: re.sub(rb"cat/1\.png", b"cat/2.png", content),
    ),
    "compressed and cut": ("a.tar.gz", lambda path, content: content[: len(content) * 2 // 3]),
    "compressed and cut early": ("a.tar.gz", lambda path, content: content[:200]),
    "compressed and altered": (
        "a.tar.gz",
        lambda path, content: content[:-300] + bytes(8) + content[-292:],
    ),
    "compressed with a wrong checksum": (
        "a.tar.gz",
        lambda path, content: content[:-8] + bytes(4) + content[-4:],
    ),
    "compressed and altered behind the members": (
        "a.tar.gz",
        lambda path, content: content[:-18] + bytes([255] * 8) + content[-10:],
    ),
    "xz and altered": (
        "a.tar.xz",
        lambda path, content: content[:4000] + bytes(80) + content[4080:],
    ),
    "xz and cut": ("a.tar.xz", lambda path, content: content[: len(content) * 2 // 3]),
    "bz2 and cut": ("a.tar.bz2", lambda path, content: content[: len(content) * 2 // 3]),
}


@pytest.mark.parametrize(("name", "damage"), DAMAGES.values(), ids=DAMAGES)
def test_an_archive_that_is_torn_or_altered_is_refused(tmp_path, pets, name, damage):
    path = pack(pets, tmp_path / name, mode="w:" + name.removeprefix("a.tar").removeprefix("."))
    path.write_bytes(damage(path, path.read_bytes()))
    refused(
        [str(path), "truncated or altered", "replace it"],
        "folder",
        tmp_path,
        path=name,
        side=8,
        unreadable="skip",
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive" * 200, gzip.compress(b"no archive" * 200)],
    ids=["empty", "text", "gzip"],
)
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    refused(
        [str(tmp_path / "a.tar"), "no tar archive", "unpack"],
        "folder",
        tmp_path,
        path="a.tar",
        side=8,
    )


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_an_archive_with_links_is_refused(tmp_path, pets, kind):
    path = pack(pets, tmp_path / "a.tar")
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("ant/link.png")
        link.type, link.linkname = kind, "ant/b.png"
        tar.addfile(link)
    refused(["links (ant/link.png)", "--dereference"], "folder", tmp_path, path="a.tar", side=8)


def test_links_in_a_tree_are_followed(tmp_path, pets):
    (pets / "dog").symlink_to(pets / "ant")
    (pets / "ant" / "d.png").symlink_to(pets / "cat" / "1.png")
    read = load("folder", tmp_path, path="pets", side=8)
    assert read.classes == ["ant", "bee", "cat", "dog"]
    assert np.array_equal(read.images[read.labels == 0], read.images[read.labels == 3])


# ImageNet


@pytest.fixture
def wordnet(tmp_path):
    """A folder of ImageNet's classes, and what is read of it."""
    place = tmp_path / "plain" / "train"
    for number, name in enumerate(["n01440764", "n01443537", "n02110341"]):
        (place / name / "images").mkdir(parents=True)
        for image in range(3):
            picture(10 * number + image).save(place / name / "images" / f"{name}_{image}.JPEG")
    return place, load("folder", tmp_path, path="plain/train", side=8)


@pytest.mark.parametrize(
    "layout", ["imagenet/train", "imagenet/tiny-imagenet-200/train", "imagenet"]
)
def test_imagenet_is_found_in_the_layouts_that_are_handed_out(tmp_path, wordnet, layout):
    place, expected = wordnet
    shutil.copytree(place, tmp_path / layout)
    for other in ("val", "train.bak"):  # training images only, and no folder beside them
        (tmp_path / "imagenet" / other).mkdir()
        picture(0).save(tmp_path / "imagenet" / other / "a.JPEG")
    assert equal(load("imagenet", tmp_path, side=8), expected)


@pytest.mark.parametrize(
    "arcname",
    ["train/", "tiny-imagenet-200/train/", "a/tiny-imagenet-200/train/", "./imagenet/train/", ""],
)
def test_imagenet_is_found_in_archives(tmp_path, wordnet, arcname):
    place, expected = wordnet
    path = pack(place, tmp_path / "i.tar.gz", "w:gz", arcname, seed=1)
    assert equal(load("imagenet", tmp_path, path="i.tar.gz", side=8, md5=md5(path)), expected)


def test_images_outside_the_place_of_the_class_folders_are_not_taken(tmp_path, wordnet):
    place, expected = wordnet
    path = pack(place, tmp_path / "i.tar", arcname="train/")
    with tarfile.open(path, "a") as tar:
        for name in (
            "n01440764/a.JPEG",
            "trainee/n01440764/b.JPEG",
            "val/n01440764/c.JPEG",
            "train/d.JPEG",
        ):
            tar.add(place / "n01440764" / "images" / "n01440764_2.JPEG", name)
    assert equal(load("imagenet", tmp_path, path="i.tar", side=8), expected)


def test_tiny_imagenet_is_found_by_its_own_folder_whatever_else_is_in_it(tmp_path, wordnet):
    place, expected = wordnet
    tiny = tmp_path / "tiny-imagenet-200"
    shutil.copytree(place, tiny / "train")
    (tiny / "val" / "images").mkdir(parents=True)
    picture(0).save(tiny / "val" / "images" / "val_0.JPEG")
    (tiny / "train" / "n01440764" / "n01440764_boxes.txt").write_text("n01440764_0.JPEG 0 0 9 9")
    (tiny / "words.txt").write_text("n01440764 tench")
    pack(tmp_path, tmp_path / "t.tar.gz", "w:gz")
    assert equal(load("imagenet", tmp_path, path="tiny-imagenet-200", side=8), expected)
    for name in ("plain", "t.tar.gz"):
        shutil.rmtree(tmp_path / name) if name == "plain" else (tmp_path / name).unlink()
    pack(tmp_path, tmp_path / "t.tar.gz", "w:gz")
    assert equal(load("imagenet", tmp_path, path="t.tar.gz", side=8), expected)


def pack_nested(place, path, mode="w"):
    """An archive with one archive of images per class."""
    with tarfile.open(path, mode) as tar:
        for name in sorted(place.iterdir(), reverse=True):
            inner = path.with_name(f"{name.name}.tar")
            with tarfile.open(inner, "w") as one:
                for image in sorted(name.rglob("*.JPEG"), reverse=True):
                    one.add(image, image.name)
            tar.add(inner, inner.name)
            inner.unlink()
    return path


@pytest.mark.parametrize("below", ["", "imagenet/"])
def test_an_archive_of_archives_is_read_if_its_md5_is_the_originals(
    tmp_path, wordnet, monkeypatch, below
):
    place, expected = wordnet
    (tmp_path / "imagenet").mkdir()
    path = pack_nested(place, tmp_path / below / "ILSVRC2012_img_train.tar")
    options = {} if below else {"path": path.name}
    refused(
        [str(path), "truncated or altered", imagenet.ARCHIVE_MD5],
        "imagenet",
        tmp_path,
        side=8,
        **options,
    )
    monkeypatch.setattr(imagenet, "ARCHIVE_MD5", md5(path))
    assert equal(load("imagenet", tmp_path, side=8, **options), expected)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_only_the_chosen_of_an_archive_of_archives_are_opened(tmp_path, wordnet, monkeypatch, mode):
    place, expected = wordnet
    pack_nested(place, tmp_path / "nested.tar", mode)
    inner = []
    real = tarfile.open
    monkeypatch.setattr(
        image_folders.tarfile,
        "open",
        lambda *one, **more: inner.append(more.get("fileobj")) or real(*one, **more),
    )
    read = load(
        "imagenet",
        tmp_path,
        path="nested.tar",
        side=8,
        classes=["n02110341", "n01440764"],
        per_class=2,
    )
    assert np.array_equal(read.images, expected.images[[6, 7, 0, 1]])
    assert read.classes == ["n02110341", "n01440764"]
    assert len([one for one in inner if one]) == 4, "two, once to list and once to read them"


def test_an_archive_inside_that_is_torn_is_refused(tmp_path, wordnet):
    place, _ = wordnet
    (tmp_path / "inner.tar").write_bytes(
        pack(place / "n01440764", tmp_path / "whole.tar").read_bytes()[:1500]
    )
    with tarfile.open(tmp_path / "nested.tar", "w") as tar:
        tar.add(tmp_path / "inner.tar", "n01440764.tar")
    refused(
        [str(tmp_path / "nested.tar"), "truncated or altered"],
        "imagenet",
        tmp_path,
        path="nested.tar",
        side=8,
    )


def test_where_imagenet_is_missing_it_is_said_which_file_to_put_where(tmp_path):
    words = [
        "account",
        "ILSVRC2012_img_train.tar",
        "image-net.org",
        "tiny-imagenet-200",
        str(tmp_path / "imagenet"),
    ]
    refused(words, "imagenet", tmp_path, side=8)
    put_classes(tmp_path / "imagenet")
    refused(
        [str(tmp_path / "imagenet"), "no class folders such as train/n01440764", *words[1:4]],
        "imagenet",
        tmp_path,
        side=8,
    )
    pack(tmp_path / "imagenet", tmp_path / "a.tar")
    refused(
        [str(tmp_path / "a.tar"), "no class folders"], "imagenet", tmp_path, path="a.tar", side=8
    )


def test_imagenet_has_the_options_of_a_folder_and_a_path_by_default():
    assert (
        registry.fields("datasets", "imagenet").keys()
        == registry.fields("datasets", "folder").keys()
    )
    assert registry.fields("datasets", "folder")["path"].required
    assert not registry.fields("datasets", "imagenet")["path"].required
    assert registry.fields("datasets", "imagenet")["side"].required


# bits


def test_bits_are_fair_and_the_same_each_time():
    bits = load("bits", Path("nowhere"))
    assert bits.images.shape == (10_000, 1, 1, 20)
    assert set(np.unique(bits.images)) == {0, 1}
    assert abs(bits.images.mean() - 0.5) < 0.01
    assert len(np.unique(bits.images[:, 0, 0], axis=0)) > 9_900
    assert (bits.maximum, list(bits.classes), set(bits.labels)) == (1, ["none"], {0})
    assert equal(load("bits", Path("nowhere")), bits)
    assert load("bits", Path("nowhere"), inputs=3, images=7).images.shape == (7, 1, 1, 3)
    assert dataset.describe("bits", bits, {}).image.attrs["valid_max"] == 1


# memory

PEAK = """
import json, sys
from pathlib import Path
import prepare
from plasticity import jobs

def peak():  # of this process alone: that of getrusage begins with its parent's
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))

root, peaks = Path(sys.argv[1]), []
for path, side in json.loads(sys.argv[2]):
    dataset = {"kind": "folder", "path": path, "side": side, "unreadable": "skip"}
    job = jobs.Job({"root": [root], "output": [root / "out.nc"]}, {"name": "large", "dataset": dataset}, {})
    prepare.main(job)
    peaks.append(peak())
print(json.dumps(peaks))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.slow
@pytest.mark.parametrize("path", ["many", "many.tar"])
def test_preparing_never_holds_the_images_twice(tmp_path, path):
    for name in ("ant/0.png", "bee/0.png"):
        (tmp_path / "many" / name).parent.mkdir(parents=True)
        picture(0, (8, 8)).save(tmp_path / "many" / name)
        for copy in range(1, 100):
            shutil.copy(tmp_path / "many" / name, tmp_path / "many" / name.replace("0", str(copy)))
    (tmp_path / "many" / "ant" / "0.png").write_text("no image")
    pack(tmp_path / "many", tmp_path / "many.tar")
    small, side = 8, 500
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path), json.dumps([(path, small), (path, side)])],
        env=os.environ | {"PYTHONPATH": "workflow/scripts", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    base, peak = json.loads(done.stdout)
    array = 200 * 3 * side**2
    assert peak - base > array / 2, "the peak is not that of the images"
    assert peak - base < 1.3 * array + 2**26, (
        "more than the images and the cache that netCDF writes through"
    )


# real files


@pytest.mark.parametrize(
    "name", [pytest.param("data_batch_1", marks=given("cifar-10-batches-py/data_batch_1"))]
)
def test_a_real_file_of_cifar_is_read_as_it_is(name):
    path = GIVEN / "cifar-10-batches-py" / name
    assert md5(path) == dict(CIFAR10.train_list)[name]
    content = pickle.loads(path.read_bytes(), encoding="bytes")  # noqa: S301 - it is the original
    read = load("cifar10", GIVEN, files=[name])
    assert np.array_equal(read.images, content[b"data"].reshape(-1, 3, 32, 32))
    assert np.array_equal(read.labels, content[b"labels"])
    assert read.classes[:3] == ["airplane", "automobile", "bird"]
    data = dataset.describe("cifar10", read, {})
    assert np.allclose(data.channel_mean, [0.491, 0.482, 0.447], atol=0.005), (
        "as it is said everywhere"
    )


TINY = "tiny-imagenet-20-classes.tar.gz"


@pytest.mark.parametrize("name", [pytest.param(TINY, marks=given(TINY))])
def test_real_classes_of_imagenet_are_read_as_they_are(name):
    read = load("imagenet", GIVEN, path=name, side=32)
    assert np.bincount(read.labels).tolist() == [500] * 20
    names, grey = {}, 0
    with tarfile.open(GIVEN / name) as tar:
        for one in tar:
            if one.isreg() and "/train/" in one.name and one.name.endswith(".JPEG"):
                names.setdefault(one.name.split("/")[2], {})[one.name] = tar.extractfile(one).read()
    assert read.classes == sorted(names)
    for label, held in enumerate(names[wnid] for wnid in read.classes):
        images = read.images[read.labels == label]
        for place, path in enumerate(sorted(held)):
            with Image.open(io.BytesIO(held[path])) as image:
                if place % 100 and image.mode == "RGB":
                    continue
            grey += image.mode == "L"
            assert np.array_equal(images[place], by_hand(io.BytesIO(held[path]), 32)), path
    assert grey > 50
