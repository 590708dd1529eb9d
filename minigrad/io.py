"""`save` and `load`: nested dicts, lists and tuples of tensors, arrays, numbers and strings, in one safetensors file.

Other programs can read the file: it is a plain safetensors file that holds each tensor under its path, such as
"model.0.weight" (a flat state dict keeps its keys). The nesting, and all that is not a tensor or an array, is JSON in
the metadata of the file, and so is which tensors are Parameters or require gradients. There are no pickles, and loading
runs no code from the file.

The format: the length of the header (eight bytes, little-endian); the header, which is JSON with the dtype, shape and
place of each tensor; then the values of the tensors. It is written and read here, one tensor after the other, so that
neither `save` nor `load` needs memory for a second copy of all of them. The safetensors library does not do: it builds
the whole file in memory first, and ends the process when there is no room for it. (`load` reads a file object that
cannot seek, or cannot read into memory that is given, as a whole first.)

`save` writes a file without a name in the same folder, and gives it its name when it is complete. After a crash the
old file is intact, and nothing else is left.
"""
from __future__ import annotations

import io
import json
import math
import os
import secrets
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from .core.modes import mode
from .core.tensor import Tensor
from .nn.module import Parameter
from .ops.creation import as_tensor

if TYPE_CHECKING:
    from .devices.base import Device

_KEY = "minigrad"           # the key of the metadata entry that holds the tree
_VERSION = 1
_CODES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
          "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8",
          "bool": "BOOL"}
_DTYPES = {code: name for name, code in _CODES.items()}


def _describe(value: Any, path: str, arrays: dict[str, Any], seen: dict[int, tuple[str, Any]]) -> Any:
    """`value` as JSON: None, bools, numbers and strings as they are, all else as {kind: content}.

    Tensors and arrays go to `arrays`, and their content is a name in it. `seen` maps the id of each to (name, value):
    one that comes twice is written once. It keeps the values alive, so that an id stays valid.
    """
    if value is None or isinstance(value, bool | str) or type(value) in (int, float):
        return value
    if isinstance(value, Tensor | np.ndarray | np.generic):
        if id(value) not in seen:
            seen[id(value)] = _add_array(value, path, arrays), value
        return {"tensor" if isinstance(value, Tensor) else "array": seen[id(value)][0]}
    if isinstance(value, Mapping):
        items = []
        for key, item in value.items():
            if not (key is None or isinstance(key, bool | str) or type(key) in (int, float)):
                raise TypeError(f"[save] a key must be a string, a number or None; got {key!r} "
                                f"(at {path or 'the top'})")
            items.append([key, _describe(item, f"{path}.{key}" if path else str(key), arrays, seen)])
        return {"dict": items}
    if isinstance(value, list | tuple):
        parts = [_describe(item, f"{path}.{i}" if path else str(i), arrays, seen) for i, item in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": parts}
    raise TypeError(f"[save] cannot write a {type(value).__name__} (at {path or 'the top'}); "
                    "dicts, lists, tuples, tensors, arrays, numbers, strings and None can be saved")


def _described(obj: Any, arrays: dict[str, Any]) -> Any:
    try:
        return _describe(obj, "", arrays, {})
    except RecursionError:
        raise ValueError("[save] dicts, lists and tuples must not contain themselves, or be nested so deeply") from None


def _add_array(value: Any, path: str, arrays: dict[str, Any]) -> str:
    """Puts a tensor or array into `arrays`; returns the name, which is `path` if that is free."""
    name, n = path or "value", 1
    while name in arrays or name == "__metadata__":         # a key that the format uses itself
        name, n = f"{path}#{n}", n + 1
    if value.dtype.name not in _CODES:
        raise TypeError(f"[save] cannot write an array of dtype {value.dtype} (at {path or 'the top'})")
    arrays[name] = value
    return name


def _rebuild(form: Any, arrays: dict[str, Any], device: Any, made: dict[str, Any], learned: dict[str, Any]) -> Any:
    """The value that `_describe` described. `made` holds the tensors made so far: equal names give the same tensor."""
    if not isinstance(form, dict):
        return form
    (kind, content), = form.items()
    if kind == "dict":
        return {key: _rebuild(item, arrays, device, made, learned) for key, item in content}
    if kind in ("list", "tuple"):
        parts = [_rebuild(item, arrays, device, made, learned) for item in content]
        return parts if kind == "list" else tuple(parts)
    if kind == "array":
        return arrays[content]
    if kind != "tensor":
        raise KeyError(kind)
    if content not in made:
        t = as_tensor(arrays[content]).to(device=device)
        kind, requires_grad = learned.get(content, ("tensor", False))
        made[content] = Parameter(t, requires_grad) if kind == "parameter" else t.requires_grad_(requires_grad)
    return made[content]


# ---- the format ----

def _write(file: Any, arrays: dict[str, Any], metadata: dict[str, str]) -> None:
    """Writes a safetensors file of tensors and arrays, those with large elements first: then all are aligned."""
    names = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for name in names:
        value = arrays[name]
        end = at + math.prod(value.shape) * value.dtype.itemsize
        header[name] = {"dtype": _CODES[value.dtype.name], "shape": list(value.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)
    for name in names:
        value = arrays[name]
        host = np.asarray(value.detach().cpu().numpy() if isinstance(value, Tensor) else value)
        order = host.dtype.byteorder
        if order == ">" or (order == "=" and sys.byteorder == "big"):
            host = host.byteswap()
        file.write(np.ascontiguousarray(host).reshape(-1).view(np.uint8).data)


def _read(file: Any) -> tuple[dict[str, str], dict[str, np.ndarray[Any, Any]]]:
    """The metadata and the arrays of a safetensors file. ValueError or another error if it is damaged,
    NotImplementedError for a dtype that minigrad does not have."""
    base = file.tell()
    size = file.seek(0, os.SEEK_END) - base
    file.seek(base)
    start = 8 + int.from_bytes(file.read(8), "little")
    if size < 8 or start > size:
        raise ValueError(f"it ends after {size:,} bytes, in its header")
    header = json.loads(file.read(start - 8))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ValueError("its metadata must be a dict")
    arrays, at = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (begin, end) = _dtype(name, entry["dtype"]), entry["shape"], entry["data_offsets"]
        length = math.prod(shape) * dtype.itemsize
        if any(type(n) is not int or n < 0 for n in shape) or begin != at or end - begin != length:
            raise ValueError(f"the shape and the place of {name!r} do not fit")
        if start + end > size:
            raise ValueError(f"it ends after {size:,} bytes, in {name!r}")
        at = end
        array = arrays[name] = np.empty(shape, dtype)
        rest = array.reshape(-1).view(np.uint8).data
        while len(rest):                        # a file without a buffer may read less than it was asked for
            got = file.readinto(rest)
            if not got:
                raise ValueError(f"it ends in {name!r}")
            rest = rest[got:]
        if dtype == np.bool_:
            np.not_equal(array.view(np.uint8), 0, out=array)        # another program may write True as any byte
        elif sys.byteorder == "big":
            array.byteswap(inplace=True)
    if start + at != size:
        raise ValueError(f"it has {size - start:,} bytes of values, but its header tells of {at:,}")
    return metadata, arrays


def _dtype(name: str, code: Any) -> np.dtype[Any]:
    if code not in _DTYPES:
        raise NotImplementedError(f"holds {name!r} in the dtype {code}, which minigrad does not have; convert it to "
                                  "a real dtype, such as F32, with the program that wrote it")
    if code == "BF16":
        try:
            import ml_dtypes  # noqa: F401 (registers the dtype with NumPy)
        except ImportError:
            raise NotImplementedError(f"holds {name!r} in the dtype BF16, which needs the package ml_dtypes: "
                                      "pip install ml_dtypes") from None
    return np.dtype(_DTYPES[code])


# ---- files ----

@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file to write, which takes the place of `path` when the block ends without an error.

    At any moment `path` is the old file or the new one, whole. An existing file keeps its mode and owner; of a symbolic
    link the target is replaced; a pipe or a device is written into. The new file has no name until it is complete, so a
    killed process leaves nothing behind, but for `.*.part` if that comes between the two calls that name the file and
    rename it. Systems other than Linux, or without /proc, have no such files: there `.*.part` may be left.
    """
    path = os.fspath(path)
    place = Path(os.path.realpath(path))
    os.stat(place.parent)                       # if the folder is missing, this error names it
    try:
        old = os.stat(path)
    except FileNotFoundError:
        old = None
    if old is not None and not stat.S_ISREG(old.st_mode):
        with open(path, "wb") as stream:
            yield stream
        return
    part = place.with_name(f".{secrets.token_hex(8)}.part")
    try:
        os.stat("/proc/self/fd")                # which gives the file its name in the end
        handle, named = os.open(place.parent, os.O_TMPFILE | os.O_WRONLY, 0o666), False
    except (AttributeError, OSError):           # this system or this file system has no files without a name
        handle, named = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666), True
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)
            if old is not None:
                with suppress(PermissionError):
                    os.fchown(handle, old.st_uid, old.st_gid)
                os.fchmod(handle, stat.S_IMODE(old.st_mode))
            if not named:                       # `src_dir_fd` lets `link` follow this name to the file
                os.link(f"/proc/self/fd/{handle}", part, src_dir_fd=handle)
            os.replace(part, place)             # at once: a process that is killed before this leaves the part
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def save(obj: Any, f: str | os.PathLike[str] | IO[bytes]) -> None:
    """Writes `obj` to `f`.

    obj  tensors, NumPy arrays, numbers, strings, bools and None, in dicts (with keys that are strings, numbers or
         None), lists and tuples; else TypeError. Tensors may be on any device; a tensor that comes twice is written
         once. A Parameter comes back as one, and what requires a gradient as a leaf that does
    f    a path, or a binary file that is open for writing. A file is replaced at once when the new one is complete;
         its mode stays, and so does a symbolic link to it

        save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, "run.safetensors")
    """
    arrays: dict[str, Any] = {}
    tree = {"version": _VERSION, "tree": _described(obj, arrays)}
    tree["learned"] = {name: ("parameter" if isinstance(t, Parameter) else "tensor", t.requires_grad)
                       for name, t in arrays.items() if isinstance(t, Parameter) or getattr(t, "requires_grad", False)}
    metadata = {_KEY: json.dumps(tree)}
    if hasattr(f, "write"):
        _write(f, arrays, metadata)
        return
    with replacing(f) as file:
        _write(file, arrays, metadata)


def load(f: str | os.PathLike[str] | IO[bytes], map_location: Device | str | None = None, pickle_module: None = None, *,
         weights_only: bool = True, mmap: bool | None = None) -> Any:
    """Reads what `save` wrote. A safetensors file of another program gives a dict of its tensors.

    f             a path, or a binary file that is open for reading
    map_location  the device of the tensors (default: the CPU, wherever they were saved)
    weights_only  accepted for PyTorch's signature, without effect: a file holds no code
    pickle_module, mmap   must keep their defaults, else NotImplementedError

    ValueError if the file is truncated, of another format, or holds a dtype that minigrad does not have (complex
    numbers, float8; bfloat16 without the package ml_dtypes).

        saved = load("run.safetensors")
        model.load_state_dict(saved["model"])
    """
    if pickle_module is not None or mmap:
        raise NotImplementedError(f"[load] {'mmap' if pickle_module is None else 'pickle_module'} is not supported; "
                                  "files are safetensors, read whole, never pickles")
    where = "the file object" if hasattr(f, "read") else repr(os.fspath(f))
    if mode.recorder is not None:
        mode.recorder.refuse("load()")
    try:
        source: Any = nullcontext(f) if hasattr(f, "read") else open(f, "rb")
        with source as file:
            in_parts = hasattr(file, "readinto") and file.seekable()
            metadata, arrays = _read(file if in_parts else io.BytesIO(file.read()))
    except (OSError, MemoryError):
        raise
    except NotImplementedError as error:
        raise ValueError(f"[load] {where} {error}") from None
    except Exception as error:
        raise ValueError(f"[load] {where} is not a complete safetensors file ({error}); minigrad reads what "
                         "minigrad.save wrote and other safetensors files, never pickles") from None
    device = map_location if map_location is not None else "cpu"
    if _KEY not in metadata:
        return {name: as_tensor(value).to(device=device) for name, value in arrays.items()}
    try:
        tree = json.loads(metadata[_KEY])
        if tree["version"] > _VERSION:
            raise ValueError(f"it was written by a newer minigrad (format {tree['version']})")
        return _rebuild(tree["tree"], arrays, device, {}, tree.get("learned", {}))
    except Exception as error:
        raise ValueError(f"[load] the contents of {where} do not fit together: {error}") from None
