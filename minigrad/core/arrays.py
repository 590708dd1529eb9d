"""Copies and casts of arrays, outside the graph. Read `devices/memory.py` and `devices/plan.py` first.

What is launched for a pair of layouts is decided at its first use, and kept in `_casts` and `_copies`.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..devices import memory
from ..devices.base import TYPE_SUFFIX
from ..devices.memory import Array, Layout, alloc, layout
from ..devices.plan import Plan, elementwise_plan, host_plan, remember
from .shape import broadcast_shapes, fail

_casts: dict[tuple, Plan] = {}      # by layout and dtype
_copies: dict[tuple, Callable[[Array, int, Array], None]] = {}      # by the layouts of target and source


def written_once(op: str, to: Layout) -> None:
    """Raises RuntimeError if several elements of `to` share one place in memory: such a tensor cannot be written to.

    Expanded tensors and overlapping windows are of that kind.
    """
    span = sum([(n - 1) * (s if s > 0 else -s) for n, s in zip(to.shape, to.strides, strict=True)]) + 1
    if not to.contiguous and to.size > span:
        fail(op, "several elements of the tensor written to share one place in memory", to,
             "write into a clone() of it")


def prepare_cast(input: Layout, *, dtype: np.dtype) -> Plan:
    """The plan of a cast: the cast kernel of the two dtypes, or NumPy. The result is contiguous."""
    out = layout(input.device, dtype, input.shape)
    kernel = getattr(input.device.kernels, f"cast_{TYPE_SUFFIX.get(dtype)}").get(input.dtype)
    if kernel is None:
        return host_plan(out, _cast_host, f"no cast kernel from {input.dtype} to {dtype}: NumPy", (input,), moves=True)
    plan = elementwise_plan(out, input)

    def run(x: Array) -> Array:
        y = alloc(out)
        kernel.call(y.ptr, x.ptr, plan.ptr)
        return y
    return Plan(run, out, f"kernel {kernel.name}")


def _cast_host(a: Any, out: Any) -> None:
    if a.dtype.kind == "f" and out.dtype.kind in "iu" and not isinstance(a, np.ndarray):
        a = a.astype(np.int64)      # of which the low bits stay, as on the CPU: a GPU gives the nearest value in range
    out[...] = a.astype(out.dtype)


def cast_array(array: Array, dtype: np.dtype) -> Array:
    """A new contiguous array with the values in another dtype."""
    key = (array.layout, dtype)
    plan = _casts.get(key)
    return (plan or remember(_casts, key, prepare_cast(array.layout, dtype=dtype))).run(array)


def contiguous_copy(array: Array) -> Array:
    """A new contiguous array with the same values."""
    out = alloc(layout(array.layout.device, array.layout.dtype, array.layout.shape))
    copy_array(out, array)
    return out


def dense(array: Array) -> Array:
    """The array itself if it is contiguous, else a contiguous copy."""
    return array if array.layout.contiguous else contiguous_copy(array)


def copy_array(to: Array, source: Array) -> None:
    """Copies `source` into `to`, broadcasting and converting it; both are on one device and may overlap.

    RuntimeError if the source does not broadcast to the target's shape.
    """
    if to.layout.size == 0 and source.layout.shape == to.layout.shape:
        return
    if source.layout.dtype != to.layout.dtype:
        source = cast_array(source, to.layout.dtype)
    key = (to.layout, source.layout)
    move = _copies.get(key)
    if move is None:
        if broadcast_shapes("copy_", to.layout.shape, source.layout.shape) != to.layout.shape:
            fail("copy_", "the source must broadcast to the target's shape", [to.layout, source.layout])
        written_once("copy_", to.layout)
        move = remember(_copies, key, mover(to.layout, source.layout))
    if source.block is to.block and (source.layout is not to.layout or source.ptr != to.ptr):
        return copy_array(to, contiguous_copy(source))      # they may overlap: copy first
    move(to, 0, source)


def mover(to: Layout, source: Layout) -> Callable[[Array, int, Array], None]:
    """`move(out, offset, x)` writes x, broadcast to `to`, into out's memory in layout `to`, at `offset` bytes."""
    if to.size == 0:
        return lambda out, offset, x: None
    kernel = to.device.kernels.copy.move(to.dtype)
    if kernel is None:
        return lambda out, offset, x: to.device.host.call(_copy_host, memory.view(out, to, offset).np, x.np)
    plan = elementwise_plan(to, source)

    def move(out: Array, offset: int, x: Array, plan: Array = plan, walk: int = plan.ptr) -> None:
        kernel.call(out.ptr + offset, x.ptr, walk)
    return move


def _copy_host(a: Any, out: Any) -> None:
    np.copyto(out, a)
