"""Making tensors: from data, filled, ranges; and moving them between devices."""
from __future__ import annotations

import operator
from functools import reduce
from typing import Any

import numpy as np

from ..core.arrays import copy_array
from ..core.shape import BOOL, INT64, default_float, fail, is_float, promote, shape_of
from ..core.tensor import Tensor, new_tensor
from ..devices import device as open_device
from ..devices.memory import Layout, alloc, layout
from .dispatch import constant
from .math import copy

__all__ = ["tensor", "as_tensor", "asarray", "from_numpy", "from_dlpack", "empty", "zeros", "ones", "full",
           "empty_like", "zeros_like", "ones_like", "full_like", "arange", "linspace", "logspace", "eye",
           "tril_indices", "triu_indices", "clone"]


def _finish(t: Tensor, requires_grad: bool) -> Tensor:
    return t.requires_grad_() if requires_grad else t


# ---- from data ------------------------------------------------------------------------------------------------------
def as_array(data: Any, dtype: Any = None) -> np.ndarray:
    """Anything array-like as a NumPy array with the dtype `tensor` gives it: Python floats are float32, ints int64."""
    if isinstance(data, Tensor):
        values = data.numpy(force=True)
        return values if dtype is None else values.astype(np.dtype(dtype), copy=False)
    plain = isinstance(data, (bool, int, float, list, tuple)) and not isinstance(data, np.generic)
    if plain and _holds_tensors(data):
        data = _unwrap(data)
    if not isinstance(data, np.ndarray) and not hasattr(data, "__array__"):
        if hasattr(data, "__cuda_array_interface__"):
            import cupy  # only CuPy reads another library's GPU memory
            data = cupy.asarray(data).get()
        elif hasattr(data, "__dlpack__"):
            data = np.from_dlpack(data)
    elif type(data).__module__.partition(".")[0] == "cupy":
        data = data.get()
    try:
        values = np.asarray(data)
    except ValueError as error:
        raise ValueError(f"[tensor] data must be a rectangular array; got nested sequences of different lengths ({error})") from None
    except OverflowError:
        fail("tensor", "integers must fit int64", "")
    if values.dtype.hasobject or values.dtype.kind in "USMmV" and not is_float(values.dtype):
        raise TypeError(f"[tensor] data must be numbers; got {values.dtype}; convert it to a numeric array first")
    if values.dtype.kind == "c":
        fail("tensor", "complex numbers are not supported", values.dtype, "work with real and imaginary parts", TypeError)
    if dtype is not None:
        return values.astype(np.dtype(dtype), copy=False)
    if plain and (values.size == 0 or values.dtype.kind == "f"):
        return values.astype(default_float() if values.size == 0 else _float_of(data))
    if values.dtype.byteorder == ">":
        return values.astype(values.dtype.newbyteorder("="))
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        return values.astype(np.float64)
    return values


def _float_of(data: Any) -> np.dtype:
    """The float dtype of nested lists: Python floats have the default one, NumPy's their own."""
    first = data
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    if not isinstance(first, (np.ndarray, np.generic)):
        return default_float()
    return reduce(promote, [d.dtype if isinstance(d, (np.ndarray, np.generic)) else default_float() for d in _leaves(data)])


def _leaves(data: Any) -> Any:
    if isinstance(data, (list, tuple)):
        for d in data:
            yield from _leaves(d)
    else:
        yield data


def _holds_tensors(data: Any) -> bool:
    while isinstance(data, (list, tuple)):
        if not data:
            return False
        data = data[0]
    return isinstance(data, Tensor)


def _unwrap(data: Any) -> Any:
    return [_unwrap(d) for d in data] if isinstance(data, (list, tuple)) else data.numpy(force=True) if isinstance(data, Tensor) else data


def _upload(values: np.ndarray, device: Any) -> Tensor:
    return new_tensor(open_device(device or "cpu").upload(np.ascontiguousarray(values).reshape(values.shape)), None)


def _home(data: Any, device: Any) -> Any:
    """Where data goes: as asked, else the GPU if it is there, else the CPU."""
    return device if device is not None or isinstance(data, np.ndarray) or not hasattr(data, "__cuda_array_interface__") else "cuda"


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of `data` (numbers, nested lists, arrays). Python floats become float32."""
    if isinstance(data, Tensor):
        return _finish(data.detach().to(device=device, dtype=dtype, copy=True), requires_grad)
    return _finish(_upload(as_array(data, dtype), _home(data, device)), requires_grad)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """`data` as a tensor, sharing memory where possible."""
    if isinstance(data, Tensor):
        return data.to(device=device, dtype=dtype)
    values = as_array(data, dtype)
    target = open_device(_home(data, device) or "cpu")
    if target.type == "cpu" and isinstance(data, np.ndarray) and _shareable(values):
        return from_numpy(values)
    return _upload(values, target)


def asarray(obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None, requires_grad: bool = False) -> Tensor:
    """`obj` as a tensor: shares memory where possible, copies always (`copy=True`) or never (`copy=False`, which may raise)."""
    if copy:
        return tensor(obj, dtype=dtype, device=device, requires_grad=requires_grad)
    t = from_dlpack(obj).to(dtype=dtype, device=device) if hasattr(obj, "__dlpack__") and not isinstance(obj, (Tensor, np.ndarray)) \
        else as_tensor(obj, dtype=dtype, device=device)
    if copy is False and not (t is obj or isinstance(obj, np.ndarray) and np.shares_memory(t.numpy(force=True), obj)):
        raise ValueError("[asarray] the data cannot be shared; pass copy=None or copy=True")
    return _finish(t.detach() if requires_grad and t is obj else t, requires_grad)


def _shareable(values: np.ndarray) -> bool:
    return values.flags.writeable and values.flags.aligned and all(s % values.itemsize == 0 for s in values.strides)


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor on the memory of a NumPy array: changing one changes the other. Read-only arrays are copied."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"[from_numpy] expected a NumPy array; got {type(array).__name__}; use tensor(...)")
    values = as_array(array)
    if values is not array or not _shareable(array):
        return _upload(values, "cpu")
    return new_tensor(open_device("cpu").wrap(array), None)      # type: ignore[attr-defined]


def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor on the memory of another library's CPU tensor (anything with `__dlpack__`), shared if it is writable."""
    if isinstance(ext_tensor, Tensor):
        return ext_tensor.detach()
    if not hasattr(ext_tensor, "__dlpack__"):
        raise TypeError(f"[from_dlpack] expected an object with __dlpack__; got {type(ext_tensor).__name__}; use tensor(...)")
    if getattr(ext_tensor, "__dlpack_device__", lambda: (1, 0))()[0] not in (1, 3):
        return _upload(as_array(ext_tensor), "cuda")
    return from_numpy(np.from_dlpack(ext_tensor))


# ---- filled ---------------------------------------------------------------------------------------------------------
def layout_for(size: tuple[Any, ...], dtype: Any, device: Any, op: str, given: dict | None = None) -> Layout:
    """The layout of `zeros(2, 3)`, `zeros((2, 3))` and `zeros(size=(2, 3))`."""
    if given:
        if size or list(given) != ["size"]:
            raise TypeError(f"[{op}] unexpected argument {next(iter(given))!r}; expected size, dtype, device or requires_grad")
        size = (given["size"],)
    shape = shape_of(size[0] if len(size) == 1 and isinstance(size[0], (tuple, list)) else size, op)
    return layout(open_device(device or "cpu"), np.dtype(dtype) if dtype is not None else default_float(), shape)


def filled(to: Layout, value: Any) -> Tensor:
    t = new_tensor(alloc(to), None)
    copy_array(t.array, constant(value, to.dtype, to.device).array)
    return t


def empty(*args: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, **given: Any) -> Tensor:
    """An uninitialised tensor."""
    return _finish(new_tensor(alloc(layout_for(args, dtype, device, "empty", given)), None), requires_grad)


def zeros(*args: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, **given: Any) -> Tensor:
    """A tensor of zeros."""
    return _finish(filled(layout_for(args, dtype, device, "zeros", given), 0), requires_grad)


def ones(*args: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, **given: Any) -> Tensor:
    """A tensor of ones."""
    return _finish(filled(layout_for(args, dtype, device, "ones", given), 1), requires_grad)


def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor filled with one value; without `dtype`, the value's own kind decides."""
    if isinstance(fill_value, (Tensor, np.generic)):
        fill_value = fill_value.item()
    if dtype is None:
        dtype = BOOL if isinstance(fill_value, bool) else INT64 if isinstance(fill_value, int) else default_float()
    return _finish(filled(layout_for((size,), dtype, device, "full"), fill_value), requires_grad)


def like_layout(t: Any, dtype: Any, device: Any) -> Layout:
    if not isinstance(t, Tensor):
        raise TypeError(f"[like] expected a Tensor; got {type(t).__name__}")
    have = t.array.layout
    return layout(have.device if device is None else open_device(device), have.dtype if dtype is None else np.dtype(dtype), have.shape)


def empty_like(input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """An uninitialised tensor of `input`'s shape, dtype and device."""
    return _finish(new_tensor(alloc(like_layout(input, dtype, device)), None), requires_grad)


def zeros_like(input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros in `input`'s shape, dtype and device."""
    return _finish(filled(like_layout(input, dtype, device), 0), requires_grad)


def ones_like(input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones in `input`'s shape, dtype and device."""
    return _finish(filled(like_layout(input, dtype, device), 1), requires_grad)


def full_like(input: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """One value in `input`'s shape, dtype and device."""
    value = fill_value.item() if isinstance(fill_value, (Tensor, np.generic)) else fill_value
    return _finish(filled(like_layout(input, dtype, device), value), requires_grad)


def zeros_like_layout(to: Layout) -> Tensor:
    return filled(layout(to.device, to.dtype, to.shape), 0)


def _new_like(create: Any) -> Any:
    """`t.new_zeros(size)` and its kin: dtype and device are those of t."""
    def method(input: Tensor, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        return create(*size, dtype=input.dtype if dtype is None else dtype, device=input.device if device is None else device,
                      requires_grad=requires_grad)
    method.__name__, method.__doc__ = f"new_{create.__name__}", f"`{create.__name__}` with the dtype and device of this tensor."
    return method


# ---- ranges ---------------------------------------------------------------------------------------------------------
def _on(values: np.ndarray, device: Any, requires_grad: bool) -> Tensor:
    return _finish(new_tensor(open_device(device or "cpu").upload(values), None), requires_grad)


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, (Tensor, np.generic)) else value


def arange(start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """start, start + step, ... below end. Integers give int64, floats the default float dtype."""
    if end is None:
        start, end = 0, start
    start, end, step = _number(start), _number(end), _number(step)
    if step == 0:
        fail("arange", "step must not be zero", "")
    if (end - start) * step < 0:
        fail("arange", "the bounds must agree with the step's sign", [start, end, step])
    whole = all(isinstance(v, int) for v in (start, end, step))
    if not whole and not np.isfinite((end - start) / step):
        fail("arange", "the bounds must be finite", [start, end, step])
    if dtype is not None and not whole and np.dtype(dtype).kind in "iu":
        return arange(int(start), int(end), int(step), dtype=dtype, device=device, requires_grad=requires_grad)
    count = -(-(end - start) // step) if whole else int(np.ceil((end - start) / step))
    dtype = np.dtype(dtype) if dtype is not None else INT64 if whole else default_float()
    return _on((start + step * np.arange(shape_of(count, "arange")[0])).astype(dtype), device, requires_grad)


def _evenly(start: Any, end: Any, steps: int, dtype: Any) -> np.ndarray:
    """Evenly spaced numbers, counted from the nearer end, so that both ends are exact. For integers the bounds are integers."""
    start, end = _number(start), _number(end)
    if dtype is not None and np.dtype(dtype).kind in "iu":
        start, end = int(start), int(end)
    i = np.arange(steps)
    step = (end - start) / (steps - 1) if steps > 1 else 0.0
    return np.where(i < max(steps // 2, 1), start + step * i, end - step * (steps - 1 - i))


def linspace(start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """`steps` evenly spaced values from start to end, both included."""
    if operator.index(steps) < 0:
        fail("linspace", "steps must not be negative", steps)
    values = _evenly(start, end, steps, dtype)
    return _on(values.astype(default_float() if dtype is None else dtype), device, requires_grad)


def logspace(start: Any, end: Any, steps: int, base: float = 10.0, *, dtype: Any = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """`steps` values base^start to base^end with evenly spaced exponents."""
    if operator.index(steps) < 0:
        fail("logspace", "steps must not be negative", steps)
    values = np.power(float(base), _evenly(start, end, steps, dtype))
    return _on(values.astype(default_float() if dtype is None else dtype), device, requires_grad)


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal."""
    if n < 0 or (m is not None and m < 0):
        fail("eye", "sizes must not be negative", [n, m])
    return _on(np.eye(n, m, dtype=default_float() if dtype is None else dtype), device, requires_grad)


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = INT64, device: Any = None) -> Tensor:
    """The row and column numbers of the elements on and below a diagonal, (2, count)."""
    return _on(np.array(np.tril_indices(row, offset, col), dtype), device, False)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = INT64, device: Any = None) -> Tensor:
    """The row and column numbers of the elements on and above a diagonal, (2, count)."""
    return _on(np.array(np.triu_indices(row, offset, col), dtype), device, False)


# ---- copies ---------------------------------------------------------------------------------------------------------
def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy; differentiable."""
    return copy.call(input)


METHODS = {f"new_{create.__name__}": _new_like(create) for create in (zeros, ones, empty, full, tensor)}
