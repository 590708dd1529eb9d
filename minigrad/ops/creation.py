"""Making tensors: from data, filled with one value, and ranges. Random ones are in random.py, transfers in convert.py.

`dtype` None means the default float dtype (float32 unless `set_default_dtype` changed it) or what the data says;
`device` None means the default device (the CPU, unless `set_default_device` or MINIGRAD_DEVICE changed it) or where the
data is. Read first `as_array`: it decides the dtype of data.
"""
from __future__ import annotations

import math
import operator
from collections import deque
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any, NoReturn

import numpy as np

from ..core.arrays import copy_array
from ..core.messages import guarded, unexpected
from ..core.modes import mode
from ..core.out import made_into, writes
from ..core.shape import BOOL, INT64, default_float, fail, is_float, left_out, promote, shape_of
from ..core.tensor import Tensor, new_tensor
from ..devices import open_device
from ..devices.memory import Array, Layout, alloc, layout
from .arguments import fits, must_fit
from .dispatch import constant
from .math import copy

__all__ = ["tensor", "as_tensor", "asarray", "from_numpy", "frombuffer", "from_dlpack", "empty", "zeros", "ones",
           "full", "empty_like", "zeros_like", "ones_like", "full_like", "arange", "linspace", "logspace", "eye",
           "tril_indices", "triu_indices", "clone"]
SHORT = True                # the functions, beside a check of their arguments: core/messages.py


_DLPACK_CUDA = (2, 13)          # DLPack's numbers of CUDA's memory: kDLCUDA, kDLCUDAManaged
_NESTED_MAX = 64                # how deep lists are nested at most: the dimensions of a NumPy array


def _finish(t: Tensor, requires_grad: bool) -> Tensor:
    """The tensor, which then requires a gradient if asked for."""
    return t.requires_grad_() if requires_grad else t


# ---- from data -------------------------------------------------------------------------------------------------------

def as_array(data: Any, dtype: Any = None) -> np.ndarray:
    """Anything array-like as a NumPy array with the dtype that `tensor` gives it: `dtype`, else the data's own; Python
    floats have the default float dtype, ints int64. TypeError for data that are not real numbers."""
    if isinstance(data, Tensor):
        values = data.numpy(force=True)
        return values if dtype is None else values.astype(np.dtype(dtype), copy=False)
    if mode.recorder is not None:
        mode.recorder.notes.copied(data)
    if on_gpu(data):
        data = _shared(data).numpy(force=True)
    if isinstance(data, np.generic) and dtype is not None:
        data = data.item()
    if isinstance(data, deque):
        data = list(data)
    plain = is_plain(data)
    if plain and _holds_tensors(data):
        data = _unwrap(data)
    if not isinstance(data, np.ndarray) and not hasattr(data, "__array__"):
        if hasattr(data, "__dlpack__"):
            data = np.from_dlpack(data)
    try:
        values, data = _gathered(data, plain)
    except ValueError as error:
        lengths = "nested sequences of different lengths" if "inhomogeneous" in str(error) else str(error)
        raise ValueError(f"[tensor] data must be a rectangular array; got {lengths}; make the lengths equal, e.g. by "
                         "nn.utils.rnn.pad_sequence") from None
    except OverflowError:
        values = np.array(data, object)
    if plain:
        return _of_numbers(values, data, None if dtype is None else np.dtype(dtype))
    if values.dtype.hasobject or values.dtype.kind in "cUSMmV" and not is_float(values.dtype):
        _no_numbers(values, data)
    if dtype is not None:
        return values.astype(np.dtype(dtype), copy=False)
    if values.dtype.byteorder == ">":
        return values.astype(values.dtype.newbyteorder("="))
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        return values.astype(np.float64)
    return values


def is_plain(data: Any) -> bool:
    """Is it a Python number, or a list or tuple?"""
    return isinstance(data, (bool, int, float, list, tuple)) and not isinstance(data, np.generic)


def _of_numbers(values: np.ndarray, data: Any, dtype: np.dtype | None) -> np.ndarray:
    """Python numbers, of which NumPy made `values`, in the dtype that `tensor` gives them. RuntimeError for integers
    that do not fit: where a number is cut to fit, it is a tensor's that is cast."""
    whole = values.dtype.kind in "iu" or values.dtype.hasobject and all(isinstance(v, int) for v in values.flat)
    if values.dtype.hasobject and not whole and all(isinstance(v, (int, float)) for v in values.flat):
        values = values.astype(np.float64)
    kind = values.dtype.kind
    if not (whole or kind in "bf" or is_float(values.dtype)):
        _no_numbers(values, data)
    if dtype is not None and dtype.kind not in "iu":
        return values.astype(dtype)
    if dtype is None and not whole:
        large = kind == "f" and isinstance(_first(data), int) and (abs(values) >= 1 << 63).any()
        if large and all(isinstance(v, int) for v in _leaves(data)):
            fail("tensor", "integers must fit int64", "", "give the dtype float64")
        return values.astype(default_float() if values.size == 0 else _float_of(data)) if kind == "f" else values
    dtype = dtype or (values.dtype if isinstance(_first(data), (np.ndarray, np.generic)) else INT64)
    if kind == "f" and (abs(values) >= 1 << 53).any() and np.isfinite(values).all():   # floats lack some such integers
        values = np.array([int(v) for v in np.array(data, object).flat], object).reshape(values.shape)
    for v in (values.min(), values.max()) if values.size else ():
        if not fits(v, dtype):
            fail("tensor", f"the numbers must fit {dtype}", v, "use a wider dtype; a cast of a tensor wraps around")
    return values.astype(dtype)


def _no_numbers(values: np.ndarray, data: Any) -> NoReturn:
    if values.dtype.kind == "c":
        fail("tensor", "complex numbers are not supported", values.dtype, "work with real and imaginary parts",
             TypeError)
    strange = [d for d in _leaves(data) if not isinstance(d, (bool, int, float, np.ndarray, np.generic))]
    got = f"{values.dtype} (with {type(strange[0]).__name__})" if strange else str(values.dtype)
    raise TypeError(f"[tensor] data must be numbers; got {got}; convert it to a numeric array first")


def _float_of(data: Any) -> np.dtype:
    """The float dtype of nested lists: Python floats have the default one, NumPy's their own."""
    if not isinstance(_first(data), (np.ndarray, np.generic)):
        return default_float()
    leaves = _leaves(data)
    return reduce(promote, [d.dtype if isinstance(d, (np.ndarray, np.generic)) else default_float() for d in leaves])


def _first(data: Any) -> Any:
    """The first element of nested lists."""
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return data


def _leaves(data: Any) -> Iterator[Any]:
    """The numbers and arrays of nested lists."""
    if isinstance(data, (list, tuple)):
        for d in data:
            yield from _leaves(d)
    else:
        yield data


def _holds_tensors(data: Any) -> bool:
    """Is the first element of nested lists a tensor? (NumPy refuses lists that are nested deeper, or in themselves.)"""
    for _ in range(_NESTED_MAX):
        if not isinstance(data, (list, tuple)) or not data:
            break
        data = data[0]
    return isinstance(data, Tensor)


def _gathered(data: Any, plain: bool) -> tuple[np.ndarray, Any]:
    """(what NumPy makes of the data, the data). Lists that NumPy refuses may hold tensors behind the first one, even
    ones in a graph (RuntimeError)."""
    try:
        return np.asarray(data), data
    except (ValueError, RuntimeError):
        if not plain:
            raise
        data = _unwrap(data)
        return np.asarray(data), data


def _unwrap(data: Any, depth: int = 0) -> Any:
    """Nested lists with NumPy arrays in place of tensors; a tensor of one element in a list is that number."""
    if isinstance(data, (list, tuple)):
        if depth == _NESTED_MAX:
            raise ValueError(f"[tensor] lists may be nested {_NESTED_MAX} deep; got a deeper one, or one that contains "
                             "itself")
        return [_unwrap(d, depth + 1) for d in data]
    if not isinstance(data, Tensor):
        return data
    values = data.numpy(force=True)
    return values.reshape(()) if values.size == 1 else values


def _upload(values: np.ndarray, device: Any) -> Tensor:
    """A tensor on a device with a copy of the values."""
    return of_host(open_device(device).upload(np.ascontiguousarray(values).reshape(values.shape)))


def number(op: str, name: str, value: Any) -> Any:
    """A tensor with one element as a Python number; anything else as it is. TypeError for a tensor whose gradient would
    be lost by that."""
    if not isinstance(value, (Tensor, np.generic)):
        return value
    if isinstance(value, Tensor) and value._requires_grad and mode.grad:
        fail(op, f"{name} must be a number, not a tensor that requires a gradient: none would reach it", value.layout,
             "pass its .item()", TypeError)
    return value.item()


def of_host(array: Array) -> Tensor:
    """A tensor on an array that the host filled, which a captured step must do again if it then changes it."""
    if mode.recorder is not None:
        mode.recorder.made(array)
    return new_tensor(array, None)


def on_gpu(data: Any) -> bool:
    """Is it an array of another library (CuPy, PyTorch, Numba, ...) on a GPU?"""
    if isinstance(data, (Tensor, np.ndarray)):
        return False
    if hasattr(data, "__dlpack_device__"):
        return data.__dlpack_device__()[0] in _DLPACK_CUDA
    return hasattr(data, "__cuda_array_interface__")


def _shared(data: Any) -> Tensor:
    """A tensor on the memory of another library's array on a GPU. TypeError if it holds no real numbers."""
    number = data.__dlpack_device__()[1] if hasattr(data, "__dlpack_device__") else 0
    array = open_device(int(number)).share(data)        # type: ignore[attr-defined]
    dtype = array.layout.dtype
    if dtype.kind not in "biuf" and not is_float(dtype):
        _no_numbers(array.np, data)
    return new_tensor(array, None)


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of `data`: numbers, nested lists, arrays, tensors.

    A tensor of one element in a list is that number. Without `dtype`, Python floats get the default float dtype, ints
    int64, bools bool; arrays keep theirs. ValueError if nested lists have different lengths, TypeError if the data are
    not real numbers, RuntimeError for numbers that an integer dtype cannot hold (arrays and tensors are cast: their
    integers wrap around).

    >>> minigrad.tensor([[1, 2], [3, 4.5]]).dtype
    dtype('float32')
    """
    if isinstance(data, Tensor):
        return _finish(data.detach().to(device=device, dtype=dtype, copy=True), requires_grad)
    if on_gpu(data):
        return _finish(_shared(data).to(device=device, dtype=dtype, copy=True), requires_grad)
    return _finish(_upload(as_array(data, dtype), device), requires_grad)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """`data` as a tensor. A tensor of the right dtype and device is returned itself; a writable NumPy array of the
    right dtype shares its memory with the result, and so does an array on a GPU (of CuPy, PyTorch, ...); everything
    else is copied."""
    if isinstance(data, Tensor):
        return data.to(device=device, dtype=dtype)
    if on_gpu(data):
        return _shared(data).to(device=device, dtype=dtype)
    values = as_array(data, dtype)
    target = open_device(device)
    if target.type == "cpu" and isinstance(data, np.ndarray) and _shareable(values):
        return from_numpy(values)
    return _upload(values, target)


def asarray(obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None,
            requires_grad: bool = False) -> Tensor:
    """`obj` as a tensor. `copy=True` always copies, `copy=False` never (ValueError if the memory cannot be shared),
    `copy=None` shares it where possible, also with objects that have `__dlpack__`. Buffers are read as `dtype`."""
    if dtype is not None and isinstance(obj, (bytes, bytearray, memoryview)):
        obj = np.frombuffer(obj, np.dtype(dtype))
    if copy:
        return tensor(obj, dtype=dtype, device=device, requires_grad=requires_grad)
    if hasattr(obj, "__dlpack__") and not isinstance(obj, (Tensor, np.ndarray)):
        t = from_dlpack(obj).to(dtype=dtype, device=device)
    else:
        t = as_tensor(obj, dtype=dtype, device=device)
    if copy is False and not (t is obj or isinstance(obj, np.ndarray) and np.shares_memory(t.numpy(force=True), obj)
                              or on_gpu(obj) and t.data_ptr() == _shared(obj).data_ptr()):
        raise ValueError("[asarray] the data cannot be shared; pass copy=None or copy=True")
    return _finish(t.detach() if requires_grad and t is obj else t, requires_grad)


def frombuffer(buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0, requires_grad: bool = False) -> Tensor:
    """The memory of an object with Python's buffer protocol (bytes, bytearray, memoryview, ...) as a vector of `dtype`:
    `count` numbers, or all, from the byte `offset` on. Read-only memory is copied. ValueError if there is none, or too
    little, and for an object without that protocol."""
    try:
        length = memoryview(buffer).nbytes
    except TypeError as error:
        raise ValueError(f"[frombuffer] the object must have Python's buffer protocol; {error}") from None
    if count == 0 or not 0 <= offset < length:
        raise ValueError(f"[frombuffer] count must not be 0, and offset lie in the buffer; got {length} bytes, count "
                         f"{count}, offset {offset}")
    return _finish(from_numpy(np.frombuffer(buffer, np.dtype(dtype), count, offset)), requires_grad)


def _shareable(values: np.ndarray) -> bool:
    """Can a tensor use the memory of this array? Kernels take bytes of bools as 0 or 1."""
    flags = values.flags
    if values.dtype == BOOL and values.view(np.uint8).max(initial=0) > 1:
        return False
    return flags.writeable and flags.aligned and all(s % values.itemsize == 0 for s in values.strides)


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor on the memory of a NumPy array: a change of one is seen in the other. Arrays that are read-only, or have
    a dtype, strides or bytes (bools other than 0 and 1) that tensors do not have, are copied."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"[from_numpy] expected a NumPy array; got {type(array).__name__}; use tensor(...)")
    values = as_array(array)
    if values is not array or not _shareable(array):
        return _upload(values, "cpu")
    return of_host(open_device("cpu").wrap(array))      # type: ignore[attr-defined]


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor of another library's array or tensor, any object with `__dlpack__`. Writable memory is shared, on the
    CPU and on a GPU; other memory is copied; `copy=True` copies all, `device` moves it. NotImplementedError for
    `copy=False`."""
    if copy is False:
        raise NotImplementedError("[from_dlpack] the option copy=False is not supported: memory that cannot be shared "
                                  "is copied; leave it out")
    if device is not None or copy:
        return from_dlpack(ext_tensor).to(device=device, copy=bool(copy))
    if isinstance(ext_tensor, Tensor):
        if ext_tensor.requires_grad:
            ext_tensor.__dlpack__()                     # BufferError
        return ext_tensor.detach()
    if not hasattr(ext_tensor, "__dlpack__"):
        raise TypeError(f"[from_dlpack] expected an object with __dlpack__; got {type(ext_tensor).__name__}; "
                        "use tensor(...)")
    if on_gpu(ext_tensor):
        return _shared(ext_tensor)
    return from_numpy(np.from_dlpack(ext_tensor))


# ---- filled ----------------------------------------------------------------------------------------------------------

def layout_for(size: tuple[Any, ...], dtype: Any, device: Any, op: str, given: dict | None = None) -> Layout:
    """The layout of a call `zeros(2, 3)`, `zeros((2, 3))` or `zeros(size=(2, 3))`."""
    if given:
        for name in given:
            if name != "size":
                unexpected(op, name, given[name], ("size", "dtype", "device", "requires_grad", "out"))
        size = (*size, given["size"]) if "size" in given else size
    shape = shape_of(size[0] if len(size) == 1 and isinstance(size[0], (tuple, list)) else size, op)
    return layout(open_device(device), np.dtype(dtype) if dtype is not None else default_float(), shape)


def filled(to: Layout, value: Any, op: str = "full") -> Tensor:
    """A new tensor of a layout, filled with one value."""
    t = new_tensor(alloc(to), None)
    copy_array(t.array, constant(value, to.dtype, to.device, op).array)
    return t


def empty(*args: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, out: Tensor | None = None,
          **given: Any) -> Tensor:
    """A tensor with uninitialised values: `empty(2, 3)` or `empty((2, 3))`."""
    if out is not None:
        return made_into(empty, out, *args, dtype=dtype, requires_grad=requires_grad, **given)
    return _finish(new_tensor(alloc(layout_for(args, dtype, device, "empty", given)), None), requires_grad)


def zeros(*args: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, out: Tensor | None = None,
          **given: Any) -> Tensor:
    """A tensor of zeros: `zeros(2, 3)` or `zeros((2, 3))`; written into the tensor `out`, if given."""
    if out is not None:
        return made_into(zeros, out, *args, dtype=dtype, requires_grad=requires_grad, **given)
    return _finish(filled(layout_for(args, dtype, device, "zeros", given), 0), requires_grad)


def ones(*args: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, out: Tensor | None = None,
         **given: Any) -> Tensor:
    """A tensor of ones: `ones(2, 3)` or `ones((2, 3))`; written into the tensor `out`, if given."""
    if out is not None:
        return made_into(ones, out, *args, dtype=dtype, requires_grad=requires_grad, **given)
    return _finish(filled(layout_for(args, dtype, device, "ones", given), 1), requires_grad)


@writes("compute")
def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of shape `size` filled with `fill_value`. Without `dtype`: bool, int64 or the default float dtype, by
    the kind of the value. RuntimeError if the dtype cannot hold it."""
    fill_value = number("full", "fill_value", fill_value)
    if dtype is None:
        dtype = BOOL if isinstance(fill_value, bool) else INT64 if isinstance(fill_value, int) else default_float()
    return _finish(filled(layout_for((size,), dtype, device, "full"), fill_value), requires_grad)


def like_layout(t: Any, dtype: Any, device: Any) -> Layout:
    """The contiguous layout with the shape of `t`, and its dtype and device where none are given."""
    if not isinstance(t, Tensor):
        raise TypeError(f"[like] expected a Tensor; got {type(t).__name__}")
    have = t.array.layout
    return layout(have.device if device is None else open_device(device),
                  have.dtype if dtype is None else np.dtype(dtype), have.shape)


def empty_like(input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor with uninitialised values and the shape, dtype and device of `input`."""
    return _finish(new_tensor(alloc(like_layout(input, dtype, device)), None), requires_grad)


def zeros_like(input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros with the shape, dtype and device of `input`."""
    return _finish(filled(like_layout(input, dtype, device), 0), requires_grad)


def ones_like(input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones with the shape, dtype and device of `input`."""
    return _finish(filled(like_layout(input, dtype, device), 1), requires_grad)


def full_like(input: Any, fill_value: Any, *, dtype: Any = None, device: Any = None,
              requires_grad: bool = False) -> Tensor:
    """`fill_value` in a tensor with the shape, dtype and device of `input`."""
    value = number("full_like", "fill_value", fill_value)
    return _finish(filled(like_layout(input, dtype, device), value, "full_like"), requires_grad)


def full_like_layout(to: Layout, value: float) -> Tensor:
    """A value in a tensor with the shape, dtype and device of a layout: what the engine uses."""
    return filled(layout(to.device, to.dtype, to.shape), value)


def _new_like(create: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The method `t.new_zeros(size)` and the like: dtype and device are those of t."""
    checked = guarded(create)

    def method(input: Tensor, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False,
               **named: Any) -> Tensor:
        return checked(*size, dtype=input.dtype if dtype is None else dtype,
                       device=input.device if device is None else device, requires_grad=requires_grad, **named)
    method.__name__ = f"new_{create.__name__}"
    method.__doc__ = f"`{create.__name__}` with the dtype and device of this tensor."
    return method


# ---- ranges ----------------------------------------------------------------------------------------------------------

def _on(values: np.ndarray, device: Any, requires_grad: bool) -> Tensor:
    """A tensor on a device with these values."""
    return _finish(of_host(open_device(device).upload(values)), requires_grad)


def _number(value: Any) -> Any:
    """A 0-d tensor or a NumPy number as a Python number."""
    return value.item() if isinstance(value, (Tensor, np.generic)) else value


@writes("compute", "refill")
def arange(start: Any = 0, end: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None,
           requires_grad: bool = False) -> Tensor:
    """The numbers start, start + step, ... before `end`, as a vector; `arange(end)` starts at 0. Without `dtype`: int64
    if all are integers, else the default float dtype. RuntimeError if `step` is 0 or has the wrong sign.

    >>> minigrad.arange(1, 6, 2).tolist()
    [1, 3, 5]
    """
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
    if dtype == INT64 and not whole:
        return arange(int(start), int(end), int(step), dtype=dtype, device=device, requires_grad=requires_grad)
    count = -(-(end - start) // step) if whole else int(np.ceil((end - start) / step))
    if dtype is not None and np.dtype(dtype).kind in "iu":
        start, step = int(start), int(step)
    dtype = np.dtype(dtype) if dtype is not None else INT64 if whole else default_float()
    for v in (start, start + step * (count - 1)) if count else ():
        must_fit("arange", v, INT64 if whole and dtype.kind not in "iu" else dtype)
    return _on((start + step * np.arange(shape_of(count, "arange")[0])).astype(dtype), device, requires_grad)


def _evenly(op: str, start: Any, end: Any, steps: int, dtype: Any) -> np.ndarray:
    """Evenly spaced numbers, each counted from the nearer end, so that both ends are exact. For an integer dtype the
    bounds are made integers first."""
    start, end = _number(start), _number(end)
    for bound in (start, end):
        must_fit(op, bound, default_float() if dtype is None else np.dtype(dtype))
    if dtype is not None and np.dtype(dtype).kind in "iu":
        start, end = int(start), int(end)
    i = np.arange(steps)
    step = (end - start) / (steps - 1) if steps > 1 else 0.0
    if math.isinf(step) and math.isfinite(start) and math.isfinite(end):       # the difference left the range
        step = end / (steps - 1) - start / (steps - 1)
    with np.errstate(over="ignore"):            # of the half that is not taken
        return np.where(i < max(steps // 2, 1), start + step * i, end - step * (steps - 1 - i))


@writes("compute", "refill")
def linspace(start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """A vector of `steps` evenly spaced values from `start` to `end`, both included."""
    if operator.index(steps) < 0:
        fail("linspace", "steps must not be negative", steps)
    values = _evenly("linspace", start, end, steps, dtype)
    with np.errstate(invalid="ignore"):
        values = values.astype(default_float() if dtype is None else dtype)
    if values.dtype.kind in "iu" and steps:             # a float does not hold each bound beyond 2^53
        values[0], values[-1] = int(_number(start)), int(_number(end if steps > 1 else start))
    return _on(values, device, requires_grad)


@writes("compute", "refill")
def logspace(start: Any, end: Any, steps: int, base: float = 10.0, *, dtype: Any = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """A vector of `steps` values from base^start to base^end, with evenly spaced exponents."""
    if operator.index(steps) < 0:
        fail("logspace", "steps must not be negative", steps)
    values = np.power(float(base), _evenly("logspace", start, end, steps, dtype))
    return _on(values.astype(default_float() if dtype is None else dtype), device, requires_grad)


@writes("compute")
def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A matrix (n, m), or (n, n), with ones on the main diagonal and zeros elsewhere."""
    if n < 0 or (m is not None and m < 0):
        fail("eye", "sizes must not be negative", [n, m])
    return _on(np.eye(n, m, dtype=default_float() if dtype is None else dtype), device, requires_grad)


@writes("compute")
def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = INT64, device: Any = None) -> Tensor:
    """The row and column numbers of the elements of a (row, col) matrix on and below a diagonal: shape (2, count).
    `offset` > 0 is above the main diagonal, < 0 below it."""
    must_fit("tril_indices", max(row, col, 1) - 1, np.dtype(dtype))
    return _on(np.array(np.tril_indices(row, offset, col), dtype), device, False)


@writes("compute")
def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = INT64, device: Any = None) -> Tensor:
    """The row and column numbers of the elements of a (row, col) matrix on and above a diagonal: shape (2, count).
    `offset` > 0 is above the main diagonal, < 0 below it."""
    must_fit("triu_indices", max(row, col, 1) - 1, np.dtype(dtype))
    return _on(np.array(np.triu_indices(row, offset, col), dtype), device, False)


# ---- copies ----------------------------------------------------------------------------------------------------------

def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A contiguous copy; differentiable. NotImplementedError for a `memory_format`."""
    left_out("clone", "memory_format", memory_format)
    return copy.call(input)


METHODS = {f"new_{create.__name__}": _new_like(create) for create in (zeros, ones, empty, full, tensor)}
