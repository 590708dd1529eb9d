"""Data sets of images: IDX and CIFAR files, MNIST. Everything is written here or served from this machine."""
from __future__ import annotations

import gzip
import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigrad as mg
from minigrad import data
from minigrad.data import images
from minigrad.data.images import cifar10, fashion_mnist, mnist, read_cifar10, read_idx

RNG = np.random.default_rng(0)


def idx_bytes(array):
    code = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12, "float32": 13, "float64": 14}[array.dtype.name]
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(array.dtype.newbyteorder(">")).tobytes()



# ---- IDX ----

@given(st.sampled_from(["uint8", "int8", "int16", "int32", "float32", "float64"]), st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_read_idx(tmp_path_factory, dtype, shape):
    array = (RNG.standard_normal(shape) * 50).astype(dtype)
    place = tmp_path_factory.mktemp("idx") / "x"
    for packed in (False, True):
        place.write_bytes(gzip.compress(idx_bytes(array)) if packed else idx_bytes(array))
        found = read_idx(place)
        assert found.dtype == array.dtype and found.dtype.isnative and np.array_equal(found, array)


@pytest.mark.parametrize("change, message", [
    (lambda b: b[:-1], r"expected 24 bytes of values for \[2, 3, 4\] of uint8; found 23"),
    (lambda b: b + b"x", "found 25"),
    (lambda b: b"", "found an empty file"),
    (lambda b: b[:9], "3 sizes in 16 bytes of header; found 9 bytes"),
    (lambda b: b"\0\0\x07" + b[3:], "expected an IDX header .*found 00 00 07 03"),
    (lambda b: b"<htm" + b[4:], "expected an IDX header .*found 3c 68 74 6d"),
    (lambda b: b[:4] + b"\xff" * 12 + b[16:], r"\[4294967295, 4294967295, 4294967295\]"),
    (lambda b: b[:3] + b"\xff" + b"\0\0\0\1" * 255 + b"x", r"255 dimensions, \[1, 1, 1, 1, 1, 1, 1, 1\] ..."),
    (lambda b: b[:3] + b"\x41" + b"\0\0\0\1" * 64 + b"\0\0\0\0", "65 dimensions"),
    (lambda b: gzip.compress(b)[:-9], "expected a whole gzip stream"),
    (lambda b: gzip.compress(b)[:12] + b"garbage!" * 4, "expected a whole gzip stream"),
])
def test_damaged_idx(tmp_path, change, message):
    place = tmp_path / "some-idx3-ubyte"
    place.write_bytes(change(idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))))
    with pytest.raises(ValueError, match=rf"\[read_idx\] .*some-idx3-ubyte: .*{message}.*truncated, damaged or another one"):
        read_idx(place)


# ---- MNIST, Fashion-MNIST ----

PIXELS = {True: RNG.integers(0, 256, (50, 28, 28), np.uint8), False: RNG.integers(0, 256, (20, 28, 28), np.uint8)}
LABELS = {True: RNG.integers(0, 10, 50).astype(np.uint8), False: RNG.integers(0, 10, 20).astype(np.uint8)}


def mnist_files(packed):
    for train, prefix in ((True, "train"), (False, "t10k")):
        for name, array in ((f"{prefix}-images-idx3-ubyte", PIXELS[train]), (f"{prefix}-labels-idx1-ubyte", LABELS[train])):
            yield (name + ".gz", gzip.compress(idx_bytes(array), mtime=0)) if packed else (name, idx_bytes(array))


def write_mnist(folder, packed):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in mnist_files(packed):
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("reader, folder", [(mnist, "MNIST/raw"), (fashion_mnist, "FashionMNIST/raw"), (mnist, "."), (fashion_mnist, ".")])
def test_mnist(tmp_path, reader, folder, packed):
    write_mnist(tmp_path / folder, packed)
    for which, part in zip((True, False), reader(tmp_path), strict=True):
        x, y = part.tensors
        assert x.shape == (len(LABELS[which]), 1, 28, 28) and x.dtype == mg.float32 and y.dtype == mg.int64
        assert np.array_equal(x.numpy(), (PIXELS[which][:, None] / np.float32(255)).astype(np.float32)) and y.tolist() == LABELS[which].tolist()
        assert len(part.classes) == 10
        alone = reader(str(tmp_path), train=which, flat=True)
        assert alone.tensors[0].shape == (len(part), 784) and np.array_equal(alone.tensors[0].numpy().reshape(x.shape), x.numpy())
    batch = next(iter(data.DataLoader(reader(tmp_path)[0], 8)))
    assert batch[0].shape == (8, 1, 28, 28)


def test_mnist_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"\[mnist\] train-images-idx3-ubyte or .*\.gz is needed in .*MNIST.raw or in .*download=True"):
        mnist(tmp_path)
    write_mnist(tmp_path, False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(LABELS[True][:49]))
    with pytest.raises(ValueError, match=r"train-labels.*expected 50 labels.*found uint8 \[49\]"):
        mnist(tmp_path)
    assert len(mnist(tmp_path, train=False)) == 20
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.full(50, 77, np.uint8)))
    with pytest.raises(ValueError, match="labels below 10; found a label 77"):
        mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(LABELS[True]))
    with pytest.raises(ValueError, match=r"expected images, uint8 \(N, H, W\); found uint8 \[50\]"):
        mnist(tmp_path)


def test_mnist_is_downloaded(server, tmp_path, monkeypatch):
    files = dict(mnist_files(True))
    server.files = {"/" + name: content for name, content in files.items()}
    monkeypatch.setattr(images, "_MNIST_MIRRORS", (server.url + "/gone/", server.url + "/"))
    with pytest.raises(ValueError, match="is not the file: expected md5 f68b3c2dcbeaaa9fbdd348bbdeb94873"):      # as it must be
        mnist(tmp_path, download=True)
    monkeypatch.setitem(images._MD5, "MNIST", tuple(hashlib.md5(c).hexdigest() for c in files.values()))
    train, test = mnist(tmp_path, download=True)
    assert (len(train), len(test)) == (50, 20)
    asked = len(server.asked)
    mnist(tmp_path, download=True)
    assert len(server.asked) == asked and len(list((tmp_path / "MNIST" / "raw").iterdir())) == 4


# ---- CIFAR-10 ----

COLOURS, KINDS = RNG.integers(0, 256, (12, 3, 32, 32), np.uint8), np.arange(12, dtype=np.uint8) % 10


def cifar_file(part):
    return b"".join(bytes([KINDS[i]]) + COLOURS[i].tobytes() for i in part)


CIFAR = {f"data_batch_{i}.bin": cifar_file([2 * i - 2, 2 * i - 1]) for i in range(1, 6)} | {"test_batch.bin": cifar_file([10, 11])}


def check_cifar(root, **options):
    train, test = cifar10(root, **options)
    for part, where in ((train, slice(0, 10)), (test, slice(10, 12))):
        assert np.array_equal(part.tensors[0].numpy(), (COLOURS[where] / np.float32(255)).astype(np.float32))
        assert part.tensors[1].tolist() == KINDS[where].tolist() and part.classes[0] == "airplane"


@pytest.mark.parametrize("folder", [".", "cifar-10-batches-bin"])
def test_cifar(tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    for name, content in CIFAR.items():
        (tmp_path / folder / name).write_bytes(content)
    check_cifar(tmp_path)
    assert cifar10(tmp_path, False, flat=True).tensors[0].shape == (2, 3072)
    (tmp_path / folder / "data_batch_3.bin").write_bytes(CIFAR["data_batch_3.bin"][:-1])
    with pytest.raises(ValueError, match=r"data_batch_3.bin: expected whole records of 3,073 bytes; found 6,145"):
        cifar10(tmp_path)
    (tmp_path / folder / "data_batch_3.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="found 0 bytes"):
        read_cifar10(tmp_path / folder / "data_batch_3.bin")
    (tmp_path / folder / "data_batch_3.bin").write_bytes(b"\xff" * 3073)
    with pytest.raises(ValueError, match="data_batch_3.bin: expected labels below 10; found a label 255"):
        cifar10(tmp_path)


def test_cifar_from_the_archive(archive, server, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="data_batch_1.bin is needed .*the binary version, not the Python one"):
        cifar10(tmp_path)
    archive(tmp_path / "there.tgz", {f"cifar-10-batches-bin/{n}": c for n, c in CIFAR.items()} | {"../evil": b"1"})
    server.files["/c"] = (tmp_path / "there.tgz").read_bytes()
    monkeypatch.setattr(images, "_CIFAR_URL", server.url + "/c")
    with pytest.raises(ValueError, match="expected md5 c32a1d4ab5d03f1284b67883e8d87530"):
        cifar10(tmp_path, download=True)
    monkeypatch.setattr(images, "_CIFAR_MD5", hashlib.md5(server.files["/c"]).hexdigest())
    check_cifar(tmp_path, download=True)
    asked = len(server.asked)
    check_cifar(tmp_path)
    assert len(server.asked) == asked
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").unlink()
    check_cifar(tmp_path)                                       # out of the archive again
