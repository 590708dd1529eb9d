"""MNIST, Fashion-MNIST and CIFAR-10, and readers of their file formats.

    train, test = data.mnist("datasets", download=True)

All three functions have the same arguments and result:

    root      the folder of the files. They are found where torchvision puts them (`root/MNIST/raw`,
              `root/FashionMNIST/raw`, `root/cifar-10-batches-bin`), packed or not, or in `root` itself
    train     None: returns the pair (train, test); True or False: reads and returns only the training or the test set
    download  fetches missing files by `data.download`, which continues interrupted downloads and checks sums; else
              FileNotFoundError
    flat      images are (N, C H W) instead of (N, C, H, W)

A set is a `TensorDataset` of images (float32 in [0, 1]) and labels (int64, (N,)). Its attribute `classes` holds the
names of the ten classes. ValueError if a file is damaged.
"""
from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any, NoReturn, overload

import numpy as np

from ..ops.creation import as_tensor
from .dataset import TensorDataset
from .fetch import download as fetch
from .fetch import unpack

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def _wrong(reader: str, path: Any, expected: str, found: str) -> NoReturn:
    raise ValueError(f"[{reader}] {path}: expected {expected}; found {found}; the file is truncated, damaged or "
                     "another one: remove it and download it again")


# ---- IDX ----

def read_idx(path: str | os.PathLike[str]) -> np.ndarray[Any, np.dtype[Any]]:
    """The array in an IDX file, gzipped or not, in the byte order of this machine. ValueError says what is wrong with
    a file.

    The format: two zero bytes, a byte for the type, a byte for the number of dimensions, their sizes (int32,
    big-endian), then the values (big-endian, C order).
    """
    with open(path, "rb") as file:
        data = file.read()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            _wrong("read_idx", path, "a whole gzip stream", str(error))
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _TYPES:
        _wrong("read_idx", path, "an IDX header (00 00, a type 08 to 0e, the number of dimensions)",
               data[:4].hex(" ") or "an empty file")
    dtype, ndim = np.dtype(_TYPES[data[2]]), data[3]
    start = 4 + 4 * ndim
    if len(data) < start:
        _wrong("read_idx", path, f"{ndim} sizes in {start} bytes of header", f"{len(data)} bytes")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", ndim, 4))
    size = dtype.itemsize
    for n in shape:
        size *= n
    if len(data) - start != size:
        _wrong("read_idx", path, f"{size:,} bytes of values for {list(shape)} of {dtype.newbyteorder('=')}",
               f"{len(data) - start:,}")
    try:
        values: np.ndarray[Any, np.dtype[Any]] = np.frombuffer(data, dtype, offset=start).reshape(shape)
    except ValueError:
        _wrong("read_idx", path, "a shape that an array can have", f"{ndim} dimensions, {list(shape)[:8]} ...")
    return values.astype(dtype.newbyteorder("="))


_MNIST_MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/",
                  "https://storage.googleapis.com/cvdf-datasets/mnist/")
_FASHION_MIRRORS = ("https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
                    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/")
_PARTS = {True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
          False: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")}
_MD5 = {
    "MNIST": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
              "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c"),
    "FashionMNIST": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
                     "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310"),
}


@overload
def mnist(root: str | os.PathLike[str], train: None = None, download: bool = False, *,
          flat: bool = False) -> tuple[TensorDataset, TensorDataset]: ...
@overload
def mnist(root: str | os.PathLike[str], train: bool, download: bool = False, *,
          flat: bool = False) -> TensorDataset: ...


def mnist(root: str | os.PathLike[str], train: bool | None = None, download: bool = False, *,
          flat: bool = False) -> Any:
    """Handwritten digits (LeCun, Cortes and Burges 1998): 60,000 and 10,000 images of 1x28x28. The module's docstring
    explains the arguments.

    >>> train, test = mnist("data", download=True)          # train.tensors: float32 (60000, 1, 28, 28), int64 (60000,)
    """
    return _idx_set("mnist", "MNIST", _MNIST_MIRRORS, tuple("0123456789"), root, train, download, flat)


@overload
def fashion_mnist(root: str | os.PathLike[str], train: None = None, download: bool = False, *,
                  flat: bool = False) -> tuple[TensorDataset, TensorDataset]: ...
@overload
def fashion_mnist(root: str | os.PathLike[str], train: bool, download: bool = False, *,
                  flat: bool = False) -> TensorDataset: ...


def fashion_mnist(root: str | os.PathLike[str], train: bool | None = None, download: bool = False, *,
                  flat: bool = False) -> Any:
    """Photographs of clothes (Xiao, Rasul and Vollgraf 2017): 60,000 and 10,000 images of 1x28x28. The module's
    docstring explains the arguments.
    """
    classes = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    return _idx_set("fashion_mnist", "FashionMNIST", _FASHION_MIRRORS, classes, root, train, download, flat)


def _idx_set(name: str, folder: str, mirrors: tuple[str, ...], classes: tuple[str, ...], root: Any, train: bool | None,
             download: bool, flat: bool) -> Any:
    checksums = dict(zip((*_PARTS[True], *_PARTS[False]), _MD5[folder], strict=True))

    def half(which: bool) -> TensorDataset:
        raw = Path(root, folder, "raw")
        images_at, labels_at = (_find(name, Path(root), raw, file, mirrors, checksums[file], download)
                                for file in _PARTS[which])
        images, labels = read_idx(images_at), read_idx(labels_at)
        if images.ndim != 3 or images.dtype != np.uint8:
            _wrong(name, images_at, "images, uint8 (N, H, W)", f"{images.dtype} {list(images.shape)}")
        if labels.shape != images.shape[:1] or labels.dtype != np.uint8:
            _wrong(name, labels_at, f"{len(images)} labels, uint8, one for each image of {images_at.name}",
                   f"{labels.dtype} {list(labels.shape)}")
        return _image_set(name, labels_at, images[:, None], labels, classes, flat)
    return half(train) if train is not None else (half(True), half(False))


def _find(name: str, root: Path, folder: Path, file: str, mirrors: tuple[str, ...], md5: str, download: bool) -> Path:
    """The path of a file, packed or not. A missing file is fetched with `download`, else it is an error."""
    for place in (folder / file, folder / f"{file}.gz", root / file, root / f"{file}.gz"):
        if place.exists():
            return place
    if not download:
        raise FileNotFoundError(f"[{name}] {file} or {file}.gz is needed in {folder} or in {root}, and is in neither; "
                                "pass download=True, or put it there")
    return fetch([m + file + ".gz" for m in mirrors], folder / f"{file}.gz", md5=md5)


def _image_set(name: str, path: Any, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any],
               classes: tuple[str, ...], flat: bool) -> TensorDataset:
    if labels.size and labels.max() >= len(classes):
        _wrong(name, path, f"labels below {len(classes)}", f"a label {labels.max()}")
    shape = (len(images), math.prod(images.shape[1:])) if flat else images.shape
    scaled = np.empty(shape, np.float32)
    np.divide(images.reshape(shape), np.float32(255), out=scaled)
    found = TensorDataset(as_tensor(scaled), as_tensor(labels.astype(np.int64)))
    found.classes = classes         # type: ignore[attr-defined]
    return found


# ---- CIFAR ----

_CIFAR_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_CIFAR_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
_CIFAR_FOLDER = "cifar-10-batches-bin"
_CIFAR_FILES = {True: tuple(f"data_batch_{i}.bin" for i in range(1, 6)), False: ("test_batch.bin",)}
_RECORD = 1 + 3 * 32 * 32


def read_cifar10(path: str | os.PathLike[str]) -> tuple[np.ndarray[Any, np.dtype[np.uint8]],
                                                        np.ndarray[Any, np.dtype[np.uint8]]]:
    """(images (N, 3, 32, 32), labels (N,)), both uint8, of a file of CIFAR-10's binary version. ValueError for other
    files.

    The format: records of one byte for the label and 3x32x32 bytes for the red, green and blue planes.
    """
    data = np.fromfile(path, np.uint8)
    if not data.size or data.size % _RECORD:
        _wrong("read_cifar10", path, f"whole records of {_RECORD:,} bytes", f"{data.size:,} bytes")
    records = data.reshape(-1, _RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


@overload
def cifar10(root: str | os.PathLike[str], train: None = None, download: bool = False, *,
            flat: bool = False) -> tuple[TensorDataset, TensorDataset]: ...
@overload
def cifar10(root: str | os.PathLike[str], train: bool, download: bool = False, *,
            flat: bool = False) -> TensorDataset: ...


def cifar10(root: str | os.PathLike[str], train: bool | None = None, download: bool = False, *,
            flat: bool = False) -> Any:
    """Photographs of ten kinds of things (Krizhevsky 2009): 50,000 and 10,000 images of 3x32x32. The module's docstring
    explains the arguments.

    Reads the binary version (cifar-10-binary.tar.gz, or the files in it). The Python version consists of pickles:
    reading them can run code.
    """
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    home = Path(root)

    def places(which: bool) -> list[Path]:
        for folder in (home / _CIFAR_FOLDER, home):
            found = [folder / file for file in _CIFAR_FILES[which]]
            if all(p.exists() for p in found):
                return found
        return []

    def half(which: bool) -> TensorDataset:
        if not places(which):
            archive = home / "cifar-10-binary.tar.gz"
            if download:
                fetch(_CIFAR_URL, archive, md5=_CIFAR_MD5)
            elif not archive.exists():
                missing = next(f for f in _CIFAR_FILES[which] if not (home / _CIFAR_FOLDER / f).exists())
                raise FileNotFoundError(f"[cifar10] {missing} is needed in {home / _CIFAR_FOLDER} or in {home}, or "
                                        f"{archive.name} in {home}; pass download=True, or put one of them there "
                                        "(the binary version, not the Python one)")
            unpack(archive, {f"{_CIFAR_FOLDER}/{file}": home / _CIFAR_FOLDER / file
                             for files in _CIFAR_FILES.values() for file in files})
        files = places(which)
        parts = [read_cifar10(p) for p in files]
        for path, (_, labels) in zip(files, parts, strict=True):
            if labels.max() >= len(classes):
                _wrong("cifar10", path, f"labels below {len(classes)}", f"a label {labels.max()}")
        images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
        return _image_set("cifar10", home, images, labels, classes, flat)
    return half(train) if train is not None else (half(True), half(False))
