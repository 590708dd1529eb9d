"""Tensors elsewhere: other devices, other dtypes, other libraries (NumPy, DLPack), copies and pickles.

All of them are methods; `METHODS` binds them to `Tensor`.
"""
from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np

from ..core.messages import guarded
from ..core.modes import mode, no_grad
from ..core.shape import fail
from ..core.tensor import Tensor
from ..devices import open_device
from ..devices.base import Device
from .convert import cast, transfer
from .creation import as_tensor, clone, of_host

_new = object.__new__


# ---- devices and dtypes ---------------------------------------------------------------------------------------------
def to(input: Tensor, *args: Any, device: Any = None, dtype: Any = None, copy: bool = False,
       non_blocking: bool = False) -> Tensor:
    """`to(dtype)`, `to(device)`, `to(device, dtype)`, `to(other)`: the values on that device, in that dtype.

    The shape stays. Returns the tensor itself where nothing changes; `copy=True` always copies. Differentiable: the
    gradient is moved back.
    """
    for a in args:
        if isinstance(a, Tensor):
            device, dtype = a.device, a.dtype
        elif isinstance(a, (str, Device)) or type(a) is int:
            device = a
        elif not isinstance(a, bool):
            dtype = a
    out = input
    if device is not None and open_device(device) is not input.array.layout.device:
        out = transfer(out, open_device(device))
    if dtype is not None and np.dtype(dtype) != out.array.layout.dtype:
        out = cast(out, np.dtype(dtype))
    return clone(out) if copy and out is input else out


def cpu(input: Tensor) -> Tensor:
    """The values on the CPU; the tensor itself if it is there already."""
    return to(input, "cpu")


def cuda(input: Tensor, device: Any = "cuda", non_blocking: bool = False) -> Tensor:
    """The values on a GPU, given as `"cuda:1"` or as its number. RuntimeError where there is none."""
    return to(input, f"cuda:{device}" if isinstance(device, int) else device)


# ---- other libraries ------------------------------------------------------------------------------------------------
def as_numpy(input: Tensor, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    """For `numpy.asarray(t)`: the values, on shared memory where neither a dtype nor a copy is asked for."""
    values = input.numpy()
    if dtype is not None and np.dtype(dtype) != values.dtype:
        return values.astype(dtype)
    return values.copy() if copy else values


def wrapped(input: Tensor, array: np.ndarray, context: Any = None, return_scalar: bool = False) -> Any:
    """For NumPy's functions of tensors, as `numpy.sqrt(t)`: what they computed as a tensor, if it can be one."""
    return as_tensor(array) if array.dtype.kind in "biuf" else array


def array_interface(input: Tensor) -> dict[str, Any]:
    """NumPy's description of the memory; only tensors on the CPU have it."""
    if input.array.layout.device.type != "cpu":
        raise AttributeError("__array_interface__")
    return input.numpy().__array_interface__


def cuda_array_interface(input: Tensor) -> dict[str, Any]:
    """CuPy's description of the memory; only tensors on a GPU have it."""
    if input.array.layout.device.type != "cuda":
        raise AttributeError("__cuda_array_interface__")
    with input.array.layout.device.stream:          # which a consumer waits for
        return input.array.np.__cuda_array_interface__      # type: ignore[attr-defined, no-any-return, unused-ignore]


def dlpack(input: Tensor, **options: Any) -> Any:
    """A DLPack capsule on the same memory. BufferError for a tensor in a graph."""
    if input.requires_grad:
        fail("__dlpack__", "the tensor is part of a graph", input.array.layout, "call detach() first", BufferError)
    if mode.recorder is not None:
        mode.recorder.refuse("__dlpack__()")
    device = input.array.layout.device
    with device.stream if device.type == "cuda" else nullcontext():         # the consumer's stream waits for it
        return input.array.np.__dlpack__(**options)


def dlpack_device(input: Tensor) -> tuple[int, int]:
    """DLPack's device type and number."""
    return input.array.np.__dlpack_device__()


# ---- copies and pickles ---------------------------------------------------------------------------------------------
def deepcopy(input: Tensor, memo: dict[int, Any]) -> Tensor:
    """For `copy.deepcopy(t)`: a leaf with copies of the values and of the gradient. RuntimeError for other tensors."""
    if input.node is not None:
        fail("deepcopy", "only leaf tensors can be copied deeply", input.array.layout, "detach() first")
    with no_grad():
        copied = clone(input)
        out = _new(type(input))
        out.array, out.node, out._requires_grad = copied.array, None, input._requires_grad
        out._grad = None if input._grad is None else memo.setdefault(id(input._grad), clone(input._grad))
    if hasattr(input, "__dict__"):
        out.__dict__.update(input.__dict__)
    memo[id(input)] = out
    return out


def shallow_copy(input: Tensor) -> Tensor:
    """For `copy.copy(t)`: a leaf on the same memory."""
    out = _new(type(input))
    out.array, out.node, out._requires_grad, out._grad = input.detach().array, None, input._requires_grad, None
    if hasattr(input, "__dict__"):
        out.__dict__.update(input.__dict__)
    return out


def backwards(input: Tensor) -> Tensor:
    """For `reversed(t)`: the slices along the first dimension in the other order; a 0-d tensor itself."""
    return input.flip(0) if input.array.layout.ndim else input      # type: ignore[attr-defined]


def reduce_ex(input: Tensor, protocol: Any) -> tuple[Any, ...]:
    """For `pickle`: the class, the values, `requires_grad` (of a leaf) and the device; attributes, if the class has
    them."""
    values = input.numpy(force=True).copy()
    return (_unpickled, (type(input), values, input.requires_grad and input.node is None, input.device.name),
            getattr(input, "__dict__", None) or None)


def _unpickled(kind: type, values: np.ndarray, requires_grad: bool, device: str) -> Tensor:
    out: Any = _new(kind)
    out.array, out.node, out._requires_grad, out._grad = of_host(open_device(device).upload(values)).array, None, \
        requires_grad, None
    return out


def pin_memory(input: Tensor, device: Any = None) -> Tensor:
    """The tensor itself: memory of the CPU is not pinned, and copies to a GPU do not need it."""
    return input


def is_pinned(input: Tensor, device: Any = None) -> bool:
    """False, see `pin_memory`."""
    return False


METHODS: dict[str, Any] = {
    "pin_memory": pin_memory, "is_pinned": is_pinned,
    "to": guarded(to), "cpu": guarded(cpu), "cuda": guarded(cuda),
    "__array__": as_numpy, "__array_wrap__": wrapped, "__array_interface__": property(array_interface),
    "__cuda_array_interface__": property(cuda_array_interface),
    "__dlpack__": dlpack, "__dlpack_device__": dlpack_device,
    "__copy__": shallow_copy, "__deepcopy__": deepcopy, "__reduce_ex__": reduce_ex, "__reversed__": backwards,
}
