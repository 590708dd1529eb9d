"""`torch.save` and `torch.load` on minigrad's files, which hold tensors and plain values, and never code.

What such a file cannot hold (a whole module, an `argparse.Namespace`) is written as far as it goes, with a warning: of
a module or an optimizer its state dict, of anything else nothing. In the process that wrote the file, `load` gives back
a copy of the whole object, which is kept in memory for that (of an `io.BytesIO`, as long as it lives); in another
process it gives what the file has, and warns.
"""
from __future__ import annotations

import copy
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from .. import io as files
from ..core.shape import fail
from ..core.tensor import Tensor
from ..core.warning import warn
from ..devices.base import Device

__all__ = ["add_safe_globals", "load", "safe_globals", "save"]

_PICKLE = (b"PK\x03\x04", b"\x80")                      # what PyTorch's files begin with, new and old ones
_LEFT = "written in part"                               # the key that says what a file could not hold
_kept: dict[str, tuple[tuple[int, int], Any]] = {}      # by path: what the file was, and the whole object
_buffers: WeakKeyDictionary[io.BytesIO, tuple[tuple[int, int], Any]] = WeakKeyDictionary()  # the same, in memory


def _plain(value: Any, path: str, left: dict[str, str]) -> Any:
    """The value as a file can hold it; `left` gets what it cannot, by its place."""
    if value is None or isinstance(value, (bool, int, float, str, Tensor, np.ndarray, np.generic)):
        return value
    if isinstance(value, Mapping):
        return {_key(k): _plain(v, f"{path}.{k}" if path else str(k), left) for k, v in value.items()}
    if isinstance(value, (tuple, list, set, frozenset)):
        parts = [_plain(v, f"{path}.{i}" if path else str(i), left) for i, v in enumerate(value)]
        return tuple(parts) if isinstance(value, tuple) else parts
    if isinstance(value, (Device, Path, np.dtype)):
        return str(value)
    where = path or "the whole"
    if hasattr(value, "state_dict"):
        left[where] = f"of {type(value).__name__} the state dict"
        return _plain(value.state_dict(), path, left)
    left[where] = f"of {type(value).__name__} nothing"
    return None


def _key(key: Any) -> Any:
    """A key that a file can hold."""
    return key if key is None or isinstance(key, (bool, int, float, str)) else str(key)


def save(obj: Any, f: Any, pickle_module: Any = None, pickle_protocol: int = 2,
         _use_new_zipfile_serialization: bool = True) -> None:
    """Writes `obj` to `f`, a path or a binary file, as a safetensors file (`minigrad.save`). See the top of this file
    for what it cannot hold."""
    left: dict[str, str] = {}
    plain, begin = _plain(obj, "", left), f.tell() if type(f) is io.BytesIO else 0
    files.save({_LEFT: left, "saved": plain} if left else plain, f)
    where = None if hasattr(f, "write") else os.path.realpath(f)
    if left:
        warn(f"[save] a file holds tensors and plain values; written was {_listed(left)}"
             + ("; the whole object stays in memory, for this process" if where or type(f) is io.BytesIO else ""))
    if where is not None:
        _kept.pop(where, None)
        if left:
            _kept[where] = _stamp(where), copy.deepcopy(obj)
    elif left and type(f) is io.BytesIO:
        _buffers[f] = (hash(f.getvalue()), begin), copy.deepcopy(obj)


def _listed(left: dict[str, str]) -> str:
    return ", ".join(f"{text} ({place})" for place, text in left.items())


def _stamp(path: str) -> tuple[int, int]:
    """What changes when a file is written anew."""
    found = os.stat(path)
    return found.st_ino, found.st_mtime_ns


def load(f: Any, map_location: Any = None, pickle_module: Any = None, *, weights_only: bool | None = None,
         mmap: bool | None = None, **pickle_load_args: Any) -> Any:
    """Reads what `save` wrote, or another safetensors file. `map_location` is a device; a function or a dict means the
    CPU. ValueError for PyTorch's own files, which are pickles: it says how to convert them."""
    if not hasattr(f, "read"):
        where = os.path.realpath(f)
        if where in _kept and os.path.exists(where) and _kept[where][0] == _stamp(where):
            return copy.deepcopy(_kept[where][1])
        with open(f, "rb") as file:
            _refuse_pickles(file.read(9), repr(os.fspath(f)))
    elif type(f) is io.BytesIO and f in _buffers and _buffers[f][0] == (hash(f.getvalue()), f.tell()):
        f.seek(0, io.SEEK_END)
        return copy.deepcopy(_buffers[f][1])
    else:
        start = f.read()
        _refuse_pickles(start[:9], "the file")
        f = io.BytesIO(start)
    place = map_location if isinstance(map_location, (str, Device)) else None
    found = files.load(f, place)
    if isinstance(found, dict) and _LEFT in found:
        warn(f"[load] the file holds {_listed(found[_LEFT])}; the process that wrote it had more")
        return found["saved"]
    return found


def _refuse_pickles(start: bytes, what: str) -> None:
    if start.startswith(_PICKLE) and start[4:] != b"\0\0\0\0{":          # safetensors: the length of a header, then it
        fail("load", f"{what} was written by PyTorch: a pickle, which can run code when it is read", "",
             "convert it where PyTorch is installed: `safetensors.torch.save_file(torch.load(path), new_path)`, for a "
             "dict of tensors", ValueError)


def add_safe_globals(safe_globals: list[Any]) -> None:
    """Nothing: no file here holds code."""


class safe_globals:
    """A `with` block that changes nothing: no file here holds code."""

    def __init__(self, safe_globals: list[Any]) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass
