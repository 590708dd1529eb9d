"""`save` and `load`: nested dicts, lists and tuples of tensors, arrays, numbers and strings, in one safetensors file.

Other programs can read the file: it is a plain safetensors file that holds each tensor under its path, such as
"model.0.weight" (a flat state dict keeps its keys). The nesting, and all that is not a tensor or an array, is JSON in
the metadata of the file. There are no pickles, and loading runs no code from the file.

`save` writes a temporary file in the same folder and renames it when it is complete. After a crash the old file is
intact.
"""
from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from .core.tensor import Tensor
from .ops.creation import as_tensor

if TYPE_CHECKING:
    from .devices.base import Device

_KEY = "minigrad"           # the key of the metadata entry that holds the tree
_VERSION = 1


def _describe(value: Any, path: str, arrays: dict[str, np.ndarray[Any, Any]], seen: dict[int, tuple[str, Any]]) -> Any:
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
                raise TypeError(f"save: a key must be a string, a number or None; got {key!r} "
                                f"(at {path or 'the top'})")
            items.append([key, _describe(item, f"{path}.{key}" if path else str(key), arrays, seen)])
        return {"dict": items}
    if isinstance(value, list | tuple):
        parts = [_describe(item, f"{path}.{i}" if path else str(i), arrays, seen) for i, item in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": parts}
    raise TypeError(f"save: cannot write a {type(value).__name__} (at {path or 'the top'}); "
                    "dicts, lists, tuples, tensors, arrays, numbers, strings and None can be saved")


def _add_array(value: Any, path: str, arrays: dict[str, np.ndarray[Any, Any]]) -> str:
    """Puts the values of a tensor or array into `arrays`; returns the name, which is `path` if that is free."""
    name, n = path or "value", 1
    while name in arrays or name == "__metadata__":         # a key that the format uses itself
        name, n = f"{path}#{n}", n + 1
    host = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if host.dtype.kind not in "fiub" and host.dtype.name != "bfloat16":
        raise TypeError(f"save: cannot write an array of dtype {host.dtype} (at {path or 'the top'})")
    arrays[name] = np.ascontiguousarray(host).reshape(host.shape)
    return name


def _rebuild(form: Any, arrays: dict[str, Any], device: Any, made: dict[str, Any]) -> Any:
    """The value that `_describe` described. `made` holds the tensors made so far: equal names give the same tensor."""
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


def save(obj: Any, f: str | os.PathLike[str] | IO[bytes]) -> None:
    """Writes `obj` to `f`.

    obj  tensors, NumPy arrays, numbers, strings, bools and None, in dicts (with keys that are strings, numbers or
         None), lists and tuples; else TypeError. Tensors may be on any device; a tensor that comes twice is written
         once
    f    a path, or a binary file that is open for writing

        save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, "run.safetensors")
    """
    import safetensors.numpy  # here, so that it does not add to the time of `import minigrad`

    arrays: dict[str, np.ndarray[Any, Any]] = {}
    tree = {"version": _VERSION, "tree": _describe(obj, "", arrays, {})}
    data = safetensors.numpy.save(arrays, metadata={_KEY: json.dumps(tree)})
    if hasattr(f, "write"):
        f.write(data)
        return
    place = Path(f)
    handle, part = tempfile.mkstemp(prefix=place.name + ".", suffix=".part", dir=place.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, place)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load(f: str | os.PathLike[str] | IO[bytes], map_location: Device | str | None = None, pickle_module: None = None, *,
         weights_only: bool = True, mmap: bool | None = None) -> Any:
    """Reads what `save` wrote. A safetensors file of another program gives a dict of its tensors.

    f             a path, or a binary file that is open for reading
    map_location  the device of the tensors (default: the CPU, wherever they were saved)
    weights_only  accepted for PyTorch's signature, without effect: a file holds no code
    pickle_module, mmap   must keep their defaults, else NotImplementedError

    ValueError if the file is truncated, or of another format.

        saved = load("run.safetensors")
        model.load_state_dict(saved["model"])
    """
    if pickle_module is not None or mmap:
        raise NotImplementedError(f"load: {'mmap' if pickle_module is None else 'pickle_module'} is not supported; "
                                  "files are safetensors, read whole, never pickles")
    import safetensors.numpy  # here, so that it does not add to the time of `import minigrad`

    if hasattr(f, "read"):
        data, where = f.read(), "the file object"
    else:
        data, where = Path(f).read_bytes(), f"{os.fspath(f)!r}"
    try:
        arrays = safetensors.numpy.load(data)
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8:8 + size]).get("__metadata__", {})
    except Exception as error:
        raise ValueError(f"load: {where} is not a complete safetensors file ({error}); minigrad reads what "
                         "minigrad.save wrote and other safetensors files, never pickles") from error
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
