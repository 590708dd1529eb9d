"""Dtypes and devices: casts, transfers, questions about dtypes; and overwriting a tensor (`copy_`, `fill_`, `zero_`).

Read first `promote` and `result_type` in core/shape.py: they say which dtype an operation has. `Tensor.to` is in
core/tensor.py and calls `cast` and `transfer` here.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from ..core.arrays import prepare_cast
from ..core.engine import functions
from ..core.inplace import overwrite
from ..core.modes import mode
from ..core.op import Primitive
from ..core.out import can_cast
from ..core.shape import BOOL, fail, is_float, left_out, promote, scalar_type
from ..core.shape import result_type as result_type_of
from ..core.tensor import Tensor, new_tensor
from ..devices import open_device
from ..devices.base import Device
from ..devices.launch import by_plan, launch
from ..devices.memory import Array, Layout, layout
from ..devices.plan import Plan
from ..devices.work import work
from .arguments import is_number
from .dispatch import constant

__all__ = ["is_complex", "is_floating_point", "is_signed", "is_tensor", "numel", "promote_types",
           "can_cast", "result_type"]
SHORT = True                # the functions, beside a check of their arguments: core/messages.py


def _prepare_transfer(x: Layout, *, source: Device, target: Device) -> Plan:
    """A copy on another device, by way of host memory."""
    def run(a: Array) -> Array:
        if mode.recorder:
            mode.recorder.refuse("moving to another device")
        return target.upload(source.download(a))
    return Plan(run, layout(target, x.dtype, x.shape), "through host memory")


_transfer: Primitive = Primitive("transfer", _prepare_transfer, {
    "x": lambda g, source, target: _transfer(g, source=target, target=source)}, ["x"])


@_transfer.samples
def _transfer_samples(make: Any) -> Any:
    t = make(3, 4)
    yield t, {"source": t.device, "target": open_device("cpu")}


@_transfer.reference
def _transfer_reference(x: Any, *, source: Device, target: Device) -> Any:
    return x


def transfer(t: Tensor, device: Device) -> Tensor:
    """A copy of `t` on another device; differentiable."""
    return _transfer(t, source=t.array.layout.device, target=device)


def extreme_of(dtype: np.dtype, largest: bool) -> Any:
    """The largest (or smallest) number of a dtype: infinite for floats."""
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).max if largest else np.iinfo(dtype).min)
    return largest if dtype.kind == "b" else np.inf if largest else -np.inf


def on_device(values: np.ndarray, device: Device) -> Tensor:
    """A host array that an op computes with, such as positions, as a tensor: nothing may write to either. A GPU keeps
    up to 64 KB for later calls; a captured step may contain this, where it may not move a tensor."""
    if device.type == "cpu":
        return new_tensor(device.constant(values), None)
    if values.nbytes > 1 << 16:
        return new_tensor(device.upload(values), None)
    return _kept(values.tobytes(), values.dtype, values.shape, device)


@lru_cache(maxsize=256)
def _kept(data: bytes, dtype: np.dtype, shape: tuple[int, ...], device: Device) -> Tensor:
    return new_tensor(device.constant(np.frombuffer(data, dtype).reshape(shape)), None)


_CASTS = "cast_f32 cast_f64 cast_i32 cast_i64 cast_u8"
launch("ops/elementwise.cu", f"{_CASTS} cast_f16 cast_bf16", by_plan, half=True)
work(_CASTS)
_cast = Primitive("cast", prepare_cast, {"input": lambda g: g},          # the engine casts the gradient back
                  doc="The values in another dtype.")
_cast.called = "to"


def cast(t: Tensor, dtype: Any) -> Tensor:
    """`t` in another dtype; `t` itself if it has that dtype. The gradient is cast back."""
    dtype = np.dtype(dtype)
    return t if t.array.layout.dtype == dtype else _cast(t, dtype=dtype)


@_cast.samples
def _cast_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5), {"dtype": np.dtype("float64")}
    yield make.ints(33), {"dtype": np.dtype("float32")}
    yield make.ints(4, 3), {"dtype": np.dtype("int32")}
    yield make.bools(0, 3), {"dtype": np.dtype("int64")}


_cast.reference(lambda a, *, dtype: a.astype(dtype))


def result_type(tensor1: Any, tensor2: Any) -> np.dtype:
    """The dtype of an operation between two tensors or numbers, by PyTorch's rules: tensors with dimensions outrank 0-d
    tensors, and these outrank Python numbers, of the same or a lower category (bool, integer, float).

    >>> minigrad.result_type(minigrad.ones(2, dtype="int32"), 1.5)
    dtype('float32')
    """
    tensors = [t for t in (tensor1, tensor2) if isinstance(t, Tensor)]
    dtype = result_type_of(*[t.array.layout for t in tensors]) if tensors else BOOL
    for t in (tensor1, tensor2):
        if not isinstance(t, Tensor):
            dtype = promote(dtype, scalar_type(t, dtype))
    return dtype




def promote_types(type1: Any, type2: Any) -> np.dtype:
    """The dtype of an operation between two dtypes, by PyTorch's rules: within bool, integers or floats the wider one,
    else the higher category's (int64 with float32 is float32)."""
    return promote(np.dtype(type1), np.dtype(type2))


def is_tensor(obj: Any) -> bool:
    """True if `obj` is a Tensor."""
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> bool:
    """True if the dtype is a floating-point one, bfloat16 included."""
    return is_float(input.array.layout.dtype)


def is_complex(input: Tensor) -> bool:
    """Always False: there are no complex tensors."""
    return False


def is_signed(input: Tensor) -> bool:
    """True if the dtype can hold negative numbers."""
    return input.array.layout.dtype.kind not in "bu"


def numel(input: Tensor) -> int:
    """The number of elements."""
    return input.array.layout.size


# ---- casts by name, and filling in place -----------------------------------------------------------------------------

def _to(dtype: str) -> Callable[[Tensor], Tensor]:
    """The method that converts to `dtype`."""
    def method(input: Tensor, memory_format: Any = None) -> Tensor:
        left_out(dtype, "memory_format", memory_format)
        if dtype == "bfloat16":
            try:
                import ml_dtypes  # noqa: F401 (registers the dtype with NumPy)
            except ImportError:
                raise ModuleNotFoundError("[bfloat16] needs the package ml_dtypes; pip install ml_dtypes",
                                          name="ml_dtypes") from None
        return cast(input, dtype)
    method.__doc__ = f"The values as {dtype}."
    return method


def _type(input: Tensor, dtype: Any = None) -> Any:
    """`type()` is the name of the dtype, `type(dtype)` the values in that dtype."""
    return str(input.array.layout.dtype) if dtype is None else cast(input, dtype)


def type_as(input: Tensor, other: Tensor) -> Tensor:
    """The values with the dtype and device of `other`."""
    return input.to(other.device, other.dtype)


def given(value: Any, to: Layout, op: str) -> Tensor:
    """What is to be written into a tensor of layout `to`: numbers in its dtype, which must fit, arrays in their own."""
    if is_number(value):
        return constant(value, to.dtype, to.device, op)
    return functions.as_tensor(value, to.dtype if isinstance(value, (list, tuple)) else None, to.device)


def copy_(input: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Overwrites the values with those of `src`, broadcast and converted, and returns the tensor itself. `src` may be
    array-like."""
    if not isinstance(src, Tensor):
        src = given(src, input.array.layout, "copy_")
    if src.device is not input.device:
        src = src.to(open_device(input.device))
    return overwrite("copy_", input, src.array, src)


def fill_(input: Tensor, value: Any) -> Tensor:
    """Overwrites all values with one number, or with the value of a 0-d tensor, and returns the tensor itself."""
    to = input.array.layout
    if not to.contiguous:
        repeated = [n > 1 and not step for n, step in zip(to.shape, to.strides, strict=True)]
        if True in repeated:                                # expanded: each place in memory once
            fill_(input[tuple([slice(1 if r else None) for r in repeated])], value)
            return input
    if isinstance(value, Tensor):
        if value.array.layout.ndim:
            fail("fill_", "value must be a number or a 0-d tensor", value.array.layout, "use copy_")
        return copy_(input, value)
    return overwrite("fill_", input, constant(value, to.dtype, to.device, "fill_").array)


def zero_(input: Tensor) -> Tensor:
    """Overwrites all values with 0 and returns the tensor itself; see `fill_`."""
    return fill_(input, 0)


METHODS: dict[str, Any] = {
    **{name: _to(dtype) for name, dtype in (
        ("float", "float32"), ("double", "float64"), ("half", "float16"), ("bfloat16", "bfloat16"), ("long", "int64"),
        ("int", "int32"), ("short", "int16"), ("char", "int8"), ("byte", "uint8"), ("bool", "bool"))},
    "type": _type, "type_as": type_as, "copy_": copy_, "fill_": fill_, "zero_": zero_,
    "__array_priority__": 1000,             # for `array * tensor` NumPy calls the tensor's operator
}
