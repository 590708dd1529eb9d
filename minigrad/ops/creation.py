"""Making tensors: from data, filled, ranges."""
from __future__ import annotations

from typing import Any

import numpy as np


from ..device import Device
from ..device import device as open_device
from ..memory import Layout, alloc, layout
from ..shape import BOOL, INT64, default_float, fail, shape_of
from ..tensor import Tensor, new_tensor
from .elementwise import constant, copy, copy_array


__all__ = ["tensor", "as_tensor", "from_numpy", "empty", "zeros", "ones", "full", "empty_like", "zeros_like", "ones_like", "full_like",
           "arange", "linspace", "eye", "clone"]


def _finish(t: Tensor, requires_grad: bool) -> Tensor:
    return t.requires_grad_() if requires_grad else t


def as_array(data: Any, dtype: Any = None) -> np.ndarray:
    """Anything array-like as a NumPy array with the dtype `tensor` gives it: Python floats are float32, ints int64."""
    if isinstance(data, Tensor):
        return data.numpy(force=True)
    plain = isinstance(data, (bool, int, float, list, tuple))
    if plain and _holds_tensors(data):
        data = _unwrap(data)
    if hasattr(data, "__dlpack__") and not isinstance(data, np.ndarray) and not hasattr(data, "__array__"):
        data = np.from_dlpack(data)
    try:
        values = np.asarray(data)
    except ValueError as error:
        raise ValueError(f"[tensor] data must be a rectangular array; got nested sequences of different lengths ({error})") from None
    except OverflowError:
        fail("tensor", "integers must fit int64", "")
    if values.dtype.hasobject or values.dtype.kind in "USMmV" and values.dtype.name != "bfloat16":
        raise TypeError(f"[tensor] data must be numbers; got {values.dtype}; convert it to a numeric array first")
    if dtype is not None:
        return values.astype(np.dtype(dtype), copy=False)
    if plain and values.dtype.kind == "f" and not _numpy_scalars(data):
        return values.astype(default_float())
    if plain and values.size == 0:
        return values.astype(default_float())
    if values.dtype.kind == "c":
        fail("tensor", "complex numbers are not supported", values.dtype, "work with real and imaginary parts", TypeError)
    if values.dtype.byteorder == ">":
        return values.astype(values.dtype.newbyteorder("="))
    return values


def _numpy_scalars(data: Any) -> bool:
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return isinstance(data, (np.ndarray, np.generic)) and not isinstance(data, float)


def _holds_tensors(data: Any) -> bool:
    while isinstance(data, (list, tuple)):
        if not data:
            return False
        data = data[0]
    return isinstance(data, Tensor)


def _unwrap(data: Any) -> Any:
    return [_unwrap(d) for d in data] if isinstance(data, (list, tuple)) else data.numpy(force=True) if isinstance(data, Tensor) else data


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of `data` (numbers, nested lists, arrays). Python floats become float32."""
    values = as_array(data, dtype)
    return _finish(new_tensor(open_device(device or "cpu").upload(np.ascontiguousarray(values).reshape(values.shape)), None), requires_grad)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """`data` as a tensor, sharing memory where possible."""
    if isinstance(data, Tensor):
        return data.to(device=device, dtype=dtype)
    values = as_array(data, dtype)
    target = open_device(device or "cpu")
    if target.type == "cpu" and isinstance(data, np.ndarray) and _shareable(values):
        return from_numpy(values)
    return new_tensor(target.upload(np.ascontiguousarray(values).reshape(values.shape)), None)


def _shareable(values: np.ndarray) -> bool:
    return values.flags.writeable and values.flags.aligned and all(s % values.itemsize == 0 for s in values.strides)


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor on the memory of a NumPy array: changing one changes the other."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"[from_numpy] expected a NumPy array; got {type(array).__name__}; use tensor(...)")
    values = as_array(array)
    if values is not array or not _shareable(array):
        return new_tensor(open_device("cpu").upload(np.ascontiguousarray(values).reshape(values.shape)), None)
    return new_tensor(open_device("cpu").wrap(array), None)      # type: ignore[attr-defined]


def _layout(size: tuple[Any, ...], dtype: Any, device: Any, op: str) -> Layout:
    shape = shape_of(size[0] if len(size) == 1 and isinstance(size[0], (tuple, list)) else size, op)
    return layout(open_device(device or "cpu"), np.dtype(dtype) if dtype is not None else default_float(), shape)


def filled(to: Layout, value: Any) -> Tensor:
    t = new_tensor(alloc(to), None)
    copy_array(t.array, constant(value, to.dtype, to.device).array)
    return t


def empty(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """An uninitialised tensor."""
    return _finish(new_tensor(alloc(_layout(size, dtype, device, "empty")), None), requires_grad)


def zeros(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros."""
    return _finish(filled(_layout(size, dtype, device, "zeros"), 0), requires_grad)


def ones(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of ones."""
    return _finish(filled(_layout(size, dtype, device, "ones"), 1), requires_grad)


def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor filled with one value; without `dtype`, the value's own kind decides."""
    if isinstance(fill_value, Tensor):
        fill_value = fill_value.item()
    if dtype is None:
        dtype = BOOL if isinstance(fill_value, bool) else INT64 if isinstance(fill_value, int) else default_float()
    return _finish(filled(_layout((size,), dtype, device, "full"), fill_value), requires_grad)


def _like(t: Tensor, dtype: Any, device: Any) -> Layout:
    source = t.array.layout
    return layout(source.device if device is None else open_device(device), source.dtype if dtype is None else np.dtype(dtype), source.shape)


def empty_like(t: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    return _finish(new_tensor(alloc(_like(t, dtype, device)), None), requires_grad)


def zeros_like(t: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    return _finish(filled(_like(t, dtype, device), 0), requires_grad)


def ones_like(t: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    return _finish(filled(_like(t, dtype, device), 1), requires_grad)


def full_like(t: Tensor, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    return _finish(filled(_like(t, dtype, device), fill_value), requires_grad)


def _on(values: np.ndarray, device: Device, requires_grad: bool) -> Tensor:
    return _finish(new_tensor(device.upload(values), None), requires_grad)


def arange(start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """start, start + step, ... below end. Integers give int64, floats the default float dtype."""
    if end is None:
        start, end = 0, start
    start, end, step = (v.item() if isinstance(v, Tensor) else v for v in (start, end, step))
    if step == 0:
        fail("arange", "step must not be zero", "")
    if (end - start) * step < 0:
        fail("arange", "the bounds must agree with the step's sign", [start, end, step])
    if dtype is None:
        dtype = INT64 if all(isinstance(v, (int, np.integer)) for v in (start, end, step)) else default_float()
    count = int(np.ceil((end - start) / step)) if not all(isinstance(v, int) for v in (start, end, step)) else -(-(end - start) // step)
    values = (start + step * np.arange(count)).astype(dtype)
    return _on(values, open_device(device or "cpu"), requires_grad)


def linspace(start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """`steps` evenly spaced values from start to end, both included."""
    if steps < 0:
        fail("linspace", "steps must not be negative", steps)
    start, end = (v.item() if isinstance(v, Tensor) else v for v in (start, end))
    return _on(np.linspace(start, end, steps).astype(default_float() if dtype is None else dtype), open_device(device or "cpu"), requires_grad)


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal."""
    if n < 0 or (m is not None and m < 0):
        fail("eye", "sizes must not be negative", [n, m])
    return _on(np.eye(n, m, dtype=default_float() if dtype is None else dtype), open_device(device or "cpu"), requires_grad)


def clone(t: Tensor) -> Tensor:
    """A copy; differentiable."""
    return copy(t)


def zeros_like_layout(to: Layout) -> Tensor:
    return filled(layout(to.device, to.dtype, to.shape), 0)


def transfer(t: Tensor, device: Device) -> Tensor:
    """A copy on another device; differentiable."""
    from .transfer import transfer as run
    return run(t, device=device)


