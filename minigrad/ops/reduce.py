"""Reductions over any axes, by reduce.c's plans."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..memory import Array, Layout, alloc, layout
from ..op import Plan, Primitive
from ..shape import INT64, axes_of, fail, is_float, reduce_plan
from ..tensor import Tensor
from .elementwise import cast, mul
from .shape_ops import _expand, _reshape

__all__ = ["sum", "mean"]


def reduced_shape(shape: tuple[int, ...], axes: tuple[int, ...], keepdim: bool) -> tuple[int, ...]:
    return tuple(1 if i in axes else n for i, n in enumerate(shape) if keepdim or i not in axes)


def _reduction(name: str, function: Any, out_dtype: Any = None, identity: bool = True) -> Any:
    """`prepare` of a reduction: the kernel `name` where there is one, else NumPy's `function` behind the door."""

    def prepare(x: Layout, *, axes: tuple[int, ...], keepdim: bool) -> Plan:
        if not identity and x.size == 0 and any(x.shape[a] == 0 for a in axes):
            raise IndexError(f"[{name}] a reduction without identity needs at least one element; got {x}, dim {list(axes)}")
        dtype = x.dtype if out_dtype is None else out_dtype
        out = layout(x.device, dtype, reduced_shape(x.shape, axes, keepdim))
        kernel = getattr(x.device.kernels, name).get(x.dtype)
        if kernel is None:
            def run_host(a: Array) -> Array:
                y = alloc(out)
                x.device.host.call(_on_host, y.np, a.np, function, axes, keepdim)
                return y
            return Plan(run_host, out, f"no {name} kernel for {x.dtype}: NumPy behind the door")
        plan = reduce_plan(x, axes)

        def run(a: Array) -> Array:
            y = alloc(out)
            kernel.call(y.ptr, a.ptr, plan.ptr)
            return y
        return Plan(run, out, f"kernel {kernel.name}")
    return prepare


def _on_host(x: Any, function: Any, axes: tuple[int, ...], keepdim: bool, out: Any) -> None:
    out[...] = function(x, axis=axes, keepdims=keepdim) if axes else x


def spread(g: Tensor, shape: tuple[int, ...], axes: tuple[int, ...], keepdim: bool) -> Tensor:
    """A reduced tensor over the shape it was reduced from: a view."""
    if not keepdim:
        g = _reshape(g, shape=tuple(1 if i in axes else n for i, n in enumerate(shape)))
    return _expand(g, shape=shape)


_sum = Primitive("sum", _reduction("sum", np.sum),
                 {"x": lambda g, x_shape, axes, keepdim: spread(g, x_shape, axes, keepdim)}, ["x"], doc="Sum over axes.")


def sum(x: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Sum over `dim` (an axis, several, or all). Integers and bools sum to int64."""
    if dtype is not None:
        x = cast(x, dtype)
    elif not is_float(x.array.layout.dtype):
        x = cast(x, INT64)
    return _sum(x, axes=axes_of(dim, x.array.layout.ndim, "sum"), keepdim=bool(keepdim))


def mean(x: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Arithmetic mean over `dim`; float tensors only."""
    if dtype is not None:
        x = cast(x, dtype)
    source = x.array.layout
    if not is_float(source.dtype):
        fail("mean", "needs a floating-point tensor", source, "convert with .float()")
    axes = axes_of(dim, source.ndim, "mean")
    count = 1
    for a in axes:
        count *= source.shape[a]
    total = _sum(x, axes=axes, keepdim=bool(keepdim))
    return mul(total, 1.0 / count) if count else mul(total, float("nan"))


def sum_to(g: Tensor, to: Layout) -> Tensor:
    """Undoes broadcasting: sums `g` to the shape it was broadcast from."""
    have = g.array.layout.shape
    lead = len(have) - to.ndim
    axes = tuple(range(lead)) + tuple(i + lead for i, n in enumerate(to.shape) if n == 1 and have[i + lead] != 1)
    total = _sum(g, axes=axes, keepdim=True) if axes else g
    return _reshape(total, shape=to.shape) if lead else total


