"""``save`` and ``load``: nested dicts, lists and tuples of tensors, arrays, numbers and strings, as one safetensors file.

The file is a plain safetensors file, which other programs read: each tensor under its path ("model.0.weight"; a flat state dict
keeps its keys). What is not a tensor, and the nesting, is JSON in the file's metadata. Nothing is ever pickled, and loading runs no
code from the file. A file is written beside its place and moved there when it is complete: a crash leaves the old one.
"""
from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.ops.creation import as_tensor
from minigrad.tensor import Tensor

_KEY = "minigrad"           # of the metadata entry with the tree
_VERSION = 1


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("minigrad.save and load need safetensors: pip install safetensors") from error
    return safetensors


def _describe(value: Any, path: str, arrays: dict[str, np.ndarray], seen: dict[int, tuple[str, Any]]) -> Any:
    """A JSON form of ``value``; tensors go to ``arrays``. Plain values stand for themselves, the rest is {kind: content}."""
    if value is None or isinstance(value, bool | str) or type(value) in (int, float):
        return value
    if isinstance(value, Tensor | np.ndarray | np.generic):
        name = seen[id(value)][0] if id(value) in seen else ""
        if not name:
            name, n = path or "value", 1
            while name in arrays or name == "__metadata__":         # the format's own key
                name, n = f"{path}#{n}", n + 1
            host = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
            if host.dtype.kind not in "fiub" and host.dtype.name != "bfloat16":
                raise TypeError(f"save: cannot write an array of dtype {host.dtype} (at {path or 'the top'})")
            arrays[name], seen[id(value)] = np.ascontiguousarray(host).reshape(host.shape), (name, value)
        return {"tensor" if isinstance(value, Tensor) else "array": name}
    if isinstance(value, Mapping):
        items = []
        for key, item in value.items():
            if not (key is None or isinstance(key, bool | str) or type(key) in (int, float)):
                raise TypeError(f"save: a key must be a string, a number or None; got {key!r} (at {path or 'the top'})")
            items.append([key, _describe(item, f"{path}.{key}" if path else str(key), arrays, seen)])
        return {"dict": items}
    if isinstance(value, list | tuple):
        parts = [_describe(item, f"{path}.{i}" if path else str(i), arrays, seen) for i, item in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": parts}
    raise TypeError(f"save: cannot write a {type(value).__name__} (at {path or 'the top'}); "
                    "dicts, lists, tuples, tensors, arrays, numbers, strings and None can be saved")


def _rebuild(form: Any, arrays: dict[str, Any], device: Any, made: dict[str, Any]) -> Any:
    if not isinstance(form, dict):
        return form
    (kind, content), = form.items()
    if kind == "dict":
        return {key: _rebuild(item, arrays, device, made) for key, item in content}
    if kind in ("list", "tuple"):
        parts = [_rebuild(item, arrays, device, made) for item in content]
        return parts if kind == "list" else tuple(parts)
    if kind == "array":
        return arrays[content]
    if kind != "tensor":
        raise KeyError(kind)
    if content not in made:
        made[content] = as_tensor(arrays[content]).to(device=device)
    return made[content]


def save(obj: Any, f: str | os.PathLike | Any) -> None:
    """Writes ``obj`` to the path (or binary file object) ``f``.

        save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, "run.safetensors")
    """
    safetensors = _safetensors()
    arrays: dict[str, np.ndarray] = {}
    tree = {"version": _VERSION, "tree": _describe(obj, "", arrays, {})}
    data = safetensors.numpy.save(arrays, metadata={_KEY: json.dumps(tree)})
    if hasattr(f, "write"):
        f.write(data)
        return
    place = Path(f)
    handle, beside = tempfile.mkstemp(prefix=place.name + ".", suffix=".part", dir=place.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, place)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load(f: str | os.PathLike | Any, map_location: Any = None, pickle_module: Any = None, *, weights_only: bool = True,
         mmap: bool | None = None) -> Any:
    """What ``save`` wrote to ``f``, tensors on ``map_location`` (default the CPU). Another program's safetensors file gives a flat
    dict of its tensors. A truncated file, or one of another format, raises ValueError. ``weights_only`` changes nothing: a file
    never holds anything else."""
    if pickle_module is not None or mmap:
        raise NotImplementedError(f"load: {'mmap' if pickle_module is None else 'pickle_module'} is not supported; "
                                  "files are safetensors, read whole, never pickles")
    safetensors = _safetensors()
    data = f.read() if hasattr(f, "read") else Path(f).read_bytes()
    where = "the file object" if hasattr(f, "read") else f"{os.fspath(f)!r}"
    try:
        arrays = safetensors.numpy.load(data)
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8:8 + size]).get("__metadata__", {})
    except Exception as error:
        raise ValueError(f"load: {where} is not a complete safetensors file ({error}); minigrad reads what minigrad.save wrote and other "
                         "safetensors files, never pickles") from error
    device = map_location if map_location is not None else "cpu"
    if _KEY not in metadata:
        return {name: as_tensor(value).to(device=device) for name, value in arrays.items()}
    try:
        tree = json.loads(metadata[_KEY])
        if tree["version"] > _VERSION:
            raise ValueError(f"it was written by a newer minigrad (format {tree['version']})")
        return _rebuild(tree["tree"], arrays, device, {})
    except Exception as error:
        raise ValueError(f"load: the contents of {where} do not fit together: {error}") from error
