"""Reductions over any axes, running sums and products.

Read `core/op.py` and `through.py` (`planner`, `bind`, `through`) first. `reduction` makes a primitive over `axes`; the
functions below it turn `dim` and `dtype` into its arguments. The kernels are in native/reduce.c and ops/reduce.cu: they
walk an operand of any strides by a plan. Products and variance differ from the textbook formula so that their
derivatives are right for all values.

Arguments that the functions share: `dim` is an axis, several axes, or None for all; with `keepdim` the reduced axes
stay with size 1; `dtype` is what the input is converted to first. NumPy's names (`axis`, `keepdims`) are taken too.
"""
from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..core.arrays import copy_array, dense
from ..core.half import autocast_to_float32, rounds_once
from ..core.modes import mode
from ..core.op import Primitive, op
from ..core.out import writes
from ..core.shape import BOOL, INT64, axes_of, axis_of, fail, is_float
from ..core.tensor import MinMax, Tensor, ValuesIndices
from ..core.warning import warn
from ..devices import native
from ..devices.base import KernelTable, NoKernel
from ..devices.launch import BLOCKS, THREADS, Launch, ceil_div, launch, over, power_of_two
from ..devices.memory import Array, Layout, alloc, layout
from ..devices.plan import Plan, elementwise_plan, host_plan, reduce_plan
from ..devices.work import reduced, work
from .arguments import respelled, whole
from .arrange import flip
from .convert import cast
from .dispatch import constant
from .elementwise import Elementwise, is_operand
from .formula import clamp
from .join import cat_op
from .math import (
    abs,
    add,
    copy,
    div,
    eq,
    exp2,
    floor,
    isnan,
    log2,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    mul,
    ne,
    pow,
    root,
    sign,
    sub,
    where,
)
from .take import for_caller, gather_at
from .through import bind, planner, through
from .view import as_expanded, as_reshaped, permute, windowed

__all__ = ["sum", "nansum", "mean", "nanmean", "prod", "amax", "amin", "aminmax", "max", "min", "argmax",
           "argmin", "any", "all", "count_nonzero", "var", "std", "var_mean", "std_mean", "norm", "cumsum",
           "cumprod"]


def reduced_shape(shape: tuple[int, ...], axes: tuple[int, ...], keepdim: bool) -> tuple[int, ...]:
    """The shape that is left after a reduction over `axes`."""
    return tuple([1 if i in axes else n for i, n in enumerate(shape) if keepdim or i not in axes])


def extent(x: Layout, axes: tuple[int, ...]) -> int:
    """The product of the sizes of `axes`: how many elements each output is made of."""
    n = 1
    for a in axes:
        n *= x.shape[a]
    return n


def spread(g: Tensor, shape: tuple[int, ...], axes: tuple[int, ...], keepdim: bool) -> Tensor:
    """A reduced tensor, expanded to the shape that it was reduced from: a view."""
    if not keepdim and len(axes) < len(shape):
        g = through(as_reshaped, g, tuple([1 if i in axes else n for i, n in enumerate(shape)]))
    return through(as_expanded, g, shape)


def _in_numpy(x: Any, out: Any, *, function: Callable, axes: tuple[int, ...], keepdim: bool) -> None:
    out[...] = function(x, axis=axes, keepdims=keepdim) if axes else function(x[None], axis=0)


def reduction(name: str, kernel: str, function: Callable, vjp: Callable | None = None, *, out: np.dtype | None = None,
              least: bool = False, floats: bool = False, doc: str) -> Primitive:
    """A primitive that runs the kernel `kernel` over `axes`, or NumPy's `function` for dtypes without a kernel.

    `out`: the dtype of the result if it is not the input's; `least`: at least one element is needed for a value;
    `floats`: it is defined for floating-point tensors only.
    """
    def prepare(x: Layout, *, axes: tuple[int, ...], keepdim: bool) -> Plan:
        if least and not extent(x, axes):
            raise IndexError(f"[{name}] needs at least one element along the reduced dimensions; "
                             f"got {x}, dim {list(axes)}")
        if floats and not is_float(x.dtype):
            fail(name, "needs a floating-point tensor", x, "convert with .float()")
        if x.dtype.kind == "c" or x.dtype.hasobject:
            fail(name, "needs numbers", x, kind=TypeError)
        to = layout(x.device, out or x.dtype, reduced_shape(x.shape, axes, keepdim))
        found = getattr(x.device.kernels, kernel).get(x.dtype)
        if found is None:
            in_numpy = partial(_in_numpy, function=function, axes=axes, keepdim=keepdim)
            return host_plan(to, in_numpy, f"no {kernel} kernel for {x.dtype}: NumPy", (x,))
        table = reduce_plan(x, axes)

        def run(a: Array) -> Array:
            y = alloc(to)
            found.call(y.ptr, a.ptr, table.ptr)
            return y
        return Plan(run, to, f"kernel {found.name}")
    return Primitive(name, prepare, {"x": vjp} if vjp else {}, ["x"], doc)


def _plain_samples(make: Any) -> Any:
    yield make(5, 33), {"axes": (1,), "keepdim": False}
    yield make(5, 33), {"axes": (0,), "keepdim": True}
    yield make(3, 31, 2, 4), {"axes": (0, 2), "keepdim": False}
    yield make(2, 3, 32), {"axes": (0, 1, 2), "keepdim": False}
    yield make(1, 1), {"axes": (0, 1), "keepdim": True}
    yield make(3), {"axes": (), "keepdim": False}
    yield make(4, 0, 3), {"axes": (0,), "keepdim": False}


def _identity_samples(make: Any) -> Any:
    yield from _plain_samples(make)
    yield make(4, 0, 3), {"axes": (1,), "keepdim": False}


def _least_errors(make: Any) -> Any:
    yield (make(3, 0), {"axes": (1,), "keepdim": False}), IndexError, "at least one element"


def _oracle(function: Callable) -> Callable:
    def reference(x: Any, *, axes: tuple[int, ...], keepdim: bool) -> Any:
        return function(x, axis=axes, keepdims=keepdim) if axes else function(x[..., None], axis=-1)
    return reference


# ---- sum and mean ----------------------------------------------------------------------------------------------------

sum_op = reduction("sum", "sum", np.sum, lambda g, x_shape, axes, keepdim: spread(g, x_shape, axes, keepdim),
                   doc="Sum over axes.")
_count = reduction("count_nonzero", "count_nonzero",
                   lambda x, axis, keepdims=False: np.sum(x != 0, axis=axis, keepdims=keepdims), out=INT64,
                   doc="How many elements are not 0.")
sum_op.samples(_identity_samples)
sum_op.reference(_oracle(np.sum))
_count.samples(_identity_samples)
_count.reference(_oracle(np.count_nonzero))


@planner
def _sum_over(x: Layout, dim: Any, keepdim: Any) -> Plan:
    if x.dtype == BOOL:
        return bind(_count, x, axes=axes_of(dim, x.ndim, "sum"), keepdim=builtins.bool(keepdim))
    return bind(sum_op, x, axes=axes_of(dim, x.ndim, "sum"), keepdim=builtins.bool(keepdim))


@writes("cast", "compute")
def sum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, **numpy: Any) -> Tensor:
    """The sum over `dim` (an axis, several, or None for all). Integers and bools sum to int64; `dtype` converts first.

    Shapes: (*) -> () without `dim`, else the shape without those axes, which stay with size 1 under `keepdim`.
    """
    if numpy:
        return respelled(sum, numpy, input, dim=dim, keepdim=keepdim, dtype=dtype)
    if dtype is not None:
        input = cast(input, dtype)
        if input.array.layout.dtype != INT64 and not is_float(input.array.layout.dtype):
            return cast(sum(input, dim, keepdim), dtype)
    elif isinstance(input, Tensor) and input.array.layout.dtype.kind in "iu":
        input = cast(input, INT64)
    return through(_sum_over, input, dim, keepdim)


@writes("cast", "compute")
def nansum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """`sum` with NaNs counted as 0."""
    return sum(_no_nans(input), dim, keepdim, dtype=dtype)


def _no_nans(x: Tensor) -> Tensor:
    return where(isnan(x), 0, x) if is_float(x.array.layout.dtype) else x


@planner
def _sum_rest(g: Layout, shape: tuple[int, ...]) -> Plan:
    lead = g.ndim - len(shape)
    ones = tuple([i + lead for i, n in enumerate(shape) if n == 1 and g.shape[i + lead] != 1])
    return bind(sum_op, g, axes=(*range(lead), *ones), keepdim=builtins.bool(ones))


def sum_to(g: Tensor, to: Layout) -> Tensor:
    """Undoes broadcasting: sums `g` to the shape of `to`, which was broadcast to that of `g`."""
    g = through(_sum_rest, g, to.shape)
    return g if g.array.layout.shape == to.shape else through(as_reshaped, g, to.shape)


def _mean_vjp(g: Tensor, x_shape: tuple[int, ...], axes: tuple[int, ...], keepdim: bool) -> Tensor:
    n = 1
    for a in axes:
        n *= x_shape[a]
    return spread(div.call(g, n) if n != 1 else g, x_shape, axes, keepdim)


_mean = reduction("mean", "mean", np.mean, _mean_vjp, floats=True, doc="The arithmetic mean over axes.")
_mean.samples(_plain_samples)
_mean.reference(_oracle(np.mean))


@_mean.errors
def _mean_errors(make: Any) -> Any:
    yield (make.ints(3), {"axes": (0,), "keepdim": False}), RuntimeError, "floating-point"


@planner
def _mean_over(x: Layout, dim: Any, keepdim: Any) -> Plan:
    return bind(_mean, x, axes=axes_of(dim, x.ndim, "mean"), keepdim=builtins.bool(keepdim))


@writes("cast", "compute")
def mean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, **numpy: Any) -> Tensor:
    """The arithmetic mean over `dim` (an axis, several, or None for all); NaN of no elements.

    RuntimeError for integers and bools, unless `dtype` is a float dtype to convert to first.
    """
    if numpy:
        return respelled(mean, numpy, input, dim=dim, keepdim=keepdim, dtype=dtype)
    return through(_mean_over, input if dtype is None else cast(input, dtype), dim, keepdim)


@writes("cast", "compute")
@rounds_once
def nanmean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The arithmetic mean over `dim` of the elements that are not NaN; NaN if there are none. Floats only."""
    if dtype is not None:
        return nanmean(cast(input, dtype), dim, keepdim)
    if not is_float(input.array.layout.dtype):
        fail("nanmean", "needs a floating-point tensor", input.array.layout, "convert with .float()")
    return div.call(nansum(input, dim, keepdim), sum(logical_not(isnan(input)), dim, keepdim))


# ---- products --------------------------------------------------------------------------------------------------------

def _part(x: Tensor, dim: int, start: int, length: int) -> Tensor:
    """`length` elements along `dim`, from `start` on: a view."""
    shape = x.array.layout.shape
    return through(windowed, x, tuple([(start, 1, length) if i == dim else whole(n) for i, n in enumerate(shape)]))


@autocast_to_float32
@op
def product(x: Tensor, *, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    """Product over axes.

    The definition multiplies halves and never divides, so that every derivative is right where elements are 0.
    """
    have = x.array.layout
    kept = [i for i in range(have.ndim) if i not in axes]
    n = extent(have, axes)
    y = through(as_reshaped, permute(x, (*kept, *axes)), (*[have.shape[i] for i in kept], n))
    last = len(kept)
    if n == 0:
        y = add(sum_op(y, axes=(last,), keepdim=True), 1)
    while n > 1:
        half = n // 2
        z = mul(_part(y, last, 0, half), _part(y, last, half, half))
        y = cat_op(z, _part(y, last, n - 1, 1), dim=last) if n % 2 else z
        n -= half
    return through(as_reshaped, y, reduced_shape(have.shape, axes, keepdim))


product.called = "prod"


@product.fused
def _product_kernels(kernels: KernelTable, x: Layout, *, axes: tuple[int, ...], keepdim: bool) -> Any:
    kernel, plan = kernels.prod[x.dtype], reduce_plan(x, axes)
    out, across = (layout(x.device, x.dtype, reduced_shape(x.shape, axes, kept)) for kept in (keepdim, True))
    scaled, shared = elementwise_plan(out, out, out), elementwise_plan(x, across, x)

    def forward(a: Array) -> Any:
        y = alloc(out)
        kernel.call(y.ptr, a.ptr, plan.ptr)
        return y, a

    def backward(a: Array, g: Array, needs: list[bool]) -> list[Array | None] | None:
        """g y / x, where no product is near the ends of the range. A replay may have other values."""
        if mode.recorder is not None:
            return None
        y, gx = alloc(out), alloc(x)
        kernel.call(y.ptr, a.ptr, plan.ptr)
        size = np.abs(x.device.download(y))
        if not ((size >= np.finfo(x.dtype).tiny) & (size < math.inf)).all():
            return None
        kernels.mul[x.dtype].call(y.ptr, y.ptr, g.ptr, scaled.ptr)
        kernels.div[x.dtype].call(gx.ptr, y.ptr, a.ptr, shared.ptr)
        return [gx]
    return forward, backward if x.device.type == "cpu" else None         # a GPU would wait for the products


product.samples(_identity_samples)
product.reference(_oracle(np.prod))


@writes("cast", "compute")
def prod(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, **numpy: Any) -> Tensor:
    """The product over `dim` (an axis, several, or None for all); 1 of no elements.

    Integers and bools multiply to int64; `dtype` converts first. The gradient is right where elements are 0.
    """
    if numpy:
        return respelled(prod, numpy, input, dim=dim, keepdim=keepdim, dtype=dtype)
    x = cast(input, dtype) if dtype is not None else input if is_float(input.array.layout.dtype) else cast(input, INT64)
    axes = axes_of(dim, x.array.layout.ndim, "prod")
    return product(x, axes=axes, keepdim=builtins.bool(keepdim))


# ---- extremes --------------------------------------------------------------------------------------------------------

def _extreme_vjp(g: Tensor, x: Tensor, out: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    """The gradient of amax and amin: equal extreme elements get equal shares of it."""
    have = x.array.layout
    top = spread(out, have.shape, axes, keepdim)
    winners = cast(logical_or(eq(x, top), logical_and(isnan(x), isnan(top))), have.dtype)     # NaNs are equal here
    if extent(have, axes) == 1:
        return mul(spread(g, have.shape, axes, keepdim), winners)
    ties = through(_sum_over, winners, axes, keepdim) if axes else winners
    return mul(spread(div(g, ties), have.shape, axes, keepdim), winners)


_amax = reduction("amax", "max", np.max, _extreme_vjp, least=True,
                  doc="The largest element over axes; NaN if there is one.")
_amin = reduction("amin", "min", np.min, _extreme_vjp, least=True,
                  doc="The smallest element over axes; NaN if there is one.")


def _flat_index(function: Callable) -> Callable:
    """NumPy's argmax over several axes: the index in row-major order within them."""
    def index(x: Any, axis: Any, keepdims: bool = False) -> Any:
        axes = axis if isinstance(axis, tuple) else (axis % x.ndim,)
        kept = [i for i in range(x.ndim) if i not in axes]
        moved = x.transpose(*kept, *axes)
        count = math.prod(x.shape[i] for i in axes)
        found = function(moved.reshape(*[x.shape[i] for i in kept], count), -1)
        return found.reshape([1 if i in axes else n for i, n in enumerate(x.shape)]) if keepdims else found
    return index


argmax_op = reduction("argmax", "argmax", _flat_index(np.argmax), out=INT64, least=True,
                      doc="The index of the first largest element.")
_argmin = reduction("argmin", "argmin", _flat_index(np.argmin), out=INT64, least=True,
                    doc="The index of the first smallest element.")
_any = reduction("any", "any", np.any, out=BOOL, doc="Is any element not 0?")
_all = reduction("all", "all", np.all, out=BOOL, doc="Is no element 0?")
for _each, _function in ((_amax, np.max), (_amin, np.min), (argmax_op, _flat_index(np.argmax)),
                         (_argmin, _flat_index(np.argmin))):
    _each.samples(_plain_samples)
    _each.errors(_least_errors)
    _each.reference(_oracle(_function))
for _each, _function in ((_any, np.any), (_all, np.all)):
    _each.samples(_identity_samples)
    _each.reference(_oracle(_function))


@planner
def _over(x: Layout, op: Primitive, dim: Any, keepdim: Any) -> Plan:
    return bind(op, x, axes=axes_of(dim, x.ndim, op.name), keepdim=builtins.bool(keepdim))


@planner
def _extreme_over(x: Layout, op: Primitive, dim: Any = None, keepdim: Any = False) -> Plan:
    if not x.size and (dim is None or dim == ()):
        fail(op.name, "needs at least one element", x, "pass dim=")
    return _over(x, op, dim, keepdim)


def amax(input: Tensor, dim: Any = (), keepdim: bool = False, **numpy: Any) -> Tensor:
    """The largest element over `dim` (an axis, several, or all); NaN if there is one. Equal ones share the gradient.

    IndexError for no elements along `dim`.
    """
    if numpy:
        return respelled(amax, numpy, input, dim=dim, keepdim=keepdim)
    return through(_extreme_over, input, _amax, dim, keepdim)


def amin(input: Tensor, dim: Any = (), keepdim: bool = False, **numpy: Any) -> Tensor:
    """The smallest element over `dim` (an axis, several, or all); NaN if there is one. Equal ones share the gradient.

    IndexError for no elements along `dim`.
    """
    if numpy:
        return respelled(amin, numpy, input, dim=dim, keepdim=keepdim)
    return through(_extreme_over, input, _amin, dim, keepdim)


def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> MinMax:
    """The smallest and the largest element along `dim`, or of the whole tensor: a named tuple (min, max).

    IndexError for no elements.
    """
    return MinMax(through(_over, input, _amin, dim, keepdim), through(_over, input, _amax, dim, keepdim))


def _extreme(name: str, input: Tensor, dim: Any, keepdim: bool, whole_of: Primitive, index_of: Primitive,
             pairs: Elementwise) -> Any:
    """`max` and `min`: of the whole tensor, along one axis, or (if `dim` is a tensor) of two tensors by `pairs`."""
    if not isinstance(input, Tensor):
        raise TypeError(f"[{name}] input must be a tensor; got {type(input).__name__}")
    if isinstance(dim, Tensor):
        return pairs(input, dim)
    if dim is None:
        return through(_extreme_over, input, whole_of)
    x = input.array.layout
    if isinstance(dim, (tuple, list)):
        raise TypeError(f"[{name}] dim must be one axis; got {dim}; use a{name}(...) for several")
    a = axis_of(dim, x.ndim, name)
    indices = through(_over, input, index_of, a, keepdim)
    if not x.ndim:
        return ValuesIndices(copy.call(input), indices)
    return ValuesIndices(gather_at(input, indices, a), for_caller(indices, input))


@writes("cast", "pair apart")
def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Tensor | None = None, **numpy: Any) -> Any:
    """`max(x)`: the largest element. `max(x, dim)`: (values, indices) along one axis. `max(x, y)`: elementwise.

    With `dim`, equal elements give the index of the first, which gets the gradient; without, they share the gradient.
    No elements to choose from: RuntimeError, or IndexError with `dim`.
    """
    if numpy:
        return respelled(max, numpy, input, dim=dim, keepdim=keepdim, other=other)
    return _extreme("max", input, dim if other is None else other, keepdim, _amax, argmax_op, maximum)


@writes("cast", "pair apart")
def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Tensor | None = None, **numpy: Any) -> Any:
    """`min(x)`: the smallest element. `min(x, dim)`: (values, indices) along one axis. `min(x, y)`: elementwise.

    With `dim`, equal elements give the index of the first, which gets the gradient; without, they share the gradient.
    No elements to choose from: RuntimeError, or IndexError with `dim`.
    """
    if numpy:
        return respelled(min, numpy, input, dim=dim, keepdim=keepdim, other=other)
    return _extreme("min", input, dim if other is None else other, keepdim, _amin, _argmin, minimum)


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False, **numpy: Any) -> Tensor:
    """The index (int64) of the largest element along `dim`, or in the flattened tensor; the first of equal ones.

    IndexError for no elements.
    """
    if numpy:
        return respelled(argmax, numpy, input, dim=dim, keepdim=keepdim)
    return through(_over, input, argmax_op, dim, keepdim)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False, **numpy: Any) -> Tensor:
    """The index (int64) of the smallest element along `dim`, or in the flattened tensor; the first of equal ones.

    IndexError for no elements.
    """
    if numpy:
        return respelled(argmin, numpy, input, dim=dim, keepdim=keepdim)
    return through(_over, input, _argmin, dim, keepdim)


@writes("truth")
def any(input: Tensor, dim: Any = None, keepdim: bool = False, **numpy: Any) -> Tensor:
    """Is at least one element over `dim` (an axis, several, or None for all) not 0? A bool tensor; uint8 for uint8."""
    if numpy:
        return respelled(any, numpy, input, dim=dim, keepdim=keepdim)
    return _truth(_any, input, dim, keepdim)


def contains(input: Tensor, element: Any) -> bool:
    """`element in input`: does one of the elements equal this number or tensor? RuntimeError for anything else."""
    if not is_operand(element):
        fail("contains", "only a number or a tensor can be looked for in a tensor", type(element).__name__)
    return bool(any(eq(input, element)))


@writes("truth")
def all(input: Tensor, dim: Any = None, keepdim: bool = False, **numpy: Any) -> Tensor:
    """Are all elements over `dim` (an axis, several, or None for all) not 0? A bool tensor; uint8 for uint8."""
    if numpy:
        return respelled(all, numpy, input, dim=dim, keepdim=keepdim)
    return _truth(_all, input, dim, keepdim)


def _truth(reduction: Primitive, of: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """`any` and `all`. As in PyTorch those of a uint8 tensor are uint8, and over no axes, (), each element stands
    alone."""
    alone = isinstance(dim, (tuple, list)) and not dim
    answer = ne(of, 0) if alone else through(_over, of, reduction, dim, keepdim)
    return cast(answer, np.uint8) if of.array.layout.dtype == np.uint8 else answer


def count_nonzero(input: Tensor, dim: Any = None) -> Tensor:
    """How many elements over `dim` (an axis, several, or None for all) are not 0, an int64 tensor."""
    return through(_over, input, _count, dim, False)


# ---- variance --------------------------------------------------------------------------------------------------------

def unit_of(x: Tensor, axes: tuple[int, ...], least: float = 0.0, always: bool = False) -> Tensor:
    """What the elements over `axes` are to be divided by, so that their powers (and those of the derivatives) neither
    overflow nor vanish: 1 for ordinary sizes, unless `always`, else a power of 2 near the largest |x| (or `least`, if
    all are smaller); with size 1 along `axes`. Powers of 2 round nothing. It is a constant: the functions that use it
    do not depend on it, and so neither do their derivatives."""
    kept = layout(x.device, x.dtype, reduced_shape(tuple(x.shape), axes, True))
    if not extent(x.array.layout, axes):
        return through(as_expanded, constant(1, x.dtype, x.device), kept.shape)
    wide = np.finfo(np.float64 if x.dtype.itemsize == 8 else np.float32)
    size = _amax(abs(x.detach()), axes=axes, keepdim=True)
    size = clamp(size, builtins.max(least, float(wide.tiny)), float(wide.max) / 2)
    unit = exp2(floor(log2(size)))
    edge = 2.0 ** (wide.maxexp // 8)
    return unit if always else where(eq(size, clamp(size, 1 / edge, edge)), 1.0, unit)


@op
def moments(x: Tensor, *, axes: tuple[int, ...], correction: float, keepdim: bool,
            rooted: bool) -> tuple[Tensor, Tensor]:
    """Variance or (`rooted`) standard deviation, and mean over axes. The gradient of a deviation is 0 where it is 0.

        var = sum((x - mean)^2) / max(count - correction, 0)
    """
    unit = unit_of(x, axes)
    x = div(x, unit)
    centre = _mean(x, axes=axes, keepdim=True)
    distance = sub(x, centre)
    squares = sum_op(mul(distance, distance), axes=axes, keepdim=True)
    var = div(squares, builtins.max(extent(x.array.layout, axes) - correction, 0))
    spread = mul(root(var), unit) if rooted else mul(mul(var, unit), unit)
    centre, shape = mul(centre, unit), reduced_shape(tuple(x.shape), axes, keepdim)
    return through(as_reshaped, spread, shape), through(as_reshaped, centre, shape)


@moments.check
def _moments_rule(x: Layout, *, axes: tuple[int, ...], correction: float, keepdim: bool, rooted: bool) -> None:
    if not is_float(x.dtype):
        fail("var", "needs a floating-point tensor", x, "convert with .float()")
    if extent(x, axes) <= correction:
        warn(f"[var] divides by count - correction, which is not positive: the result is nan or inf; got {x}, "
             f"dim {list(axes)}, correction {correction}")


moments.called = "var"


@moments.fused
def _moments_kernels(kernels: KernelTable, x: Layout, *, axes: tuple[int, ...], correction: float, keepdim: bool,
                     rooted: bool) -> Any:
    n = extent(x, axes)
    if not n:
        raise NoKernel("there is nothing to reduce")
    forward, divide = kernels.moments[x.dtype], kernels.div[x.dtype]
    total = kernels.sum[x.dtype]
    subtract, multiply, plus = kernels.sub[x.dtype], kernels.mul[x.dtype], kernels.add[x.dtype]
    plan = reduce_plan(x, axes)
    out = layout(x.device, x.dtype, reduced_shape(x.shape, axes, keepdim))
    kept = layout(x.device, x.dtype, reduced_shape(x.shape, axes, True))
    divisor = builtins.max(n - correction, 0)
    by = constant(divisor if rooted else divisor / 2, x.dtype, x.device).array          # (x - mean) / by: var'
    count = constant(n, x.dtype, x.device).array
    scale, across = elementwise_plan(out, out, by.layout), elementwise_plan(x, x, kept)
    by_root = _by_norm(kernels, x, kept) if rooted else None
    fill = elementwise_plan(x, kept, count.layout)

    def run_forward(a: Array) -> Any:
        centre, spread = alloc(out), alloc(out)
        forward.call(centre.ptr, spread.ptr, a.ptr, plan.ptr, float(divisor), int(rooted))
        kept = alloc(out)                       # the results are the user's, who may change them in place
        copy_array(kept, centre)
        return (spread, kept), (a, centre, spread if rooted else None)

    def run_backward(saved: Any, g: list, needs: list[bool]) -> list[Array | None]:
        a, centre, spread = saved
        of_spread, of_mean = g
        gx = alloc(x)
        if of_spread is None:
            divide.call(gx.ptr, of_mean.ptr, count.ptr, fill.ptr)
            return [gx]
        drift, factor = alloc(out), alloc(out)
        divide.call(factor.ptr, of_spread.ptr, by.ptr, scale.ptr)
        subtract.call(gx.ptr, a.ptr, centre.ptr, across.ptr)
        total.call(drift.ptr, gx.ptr, plan.ptr)         # the rounding error of the mean: at a mean of 1e4 it counts
        divide.call(drift.ptr, drift.ptr, count.ptr, scale.ptr)
        subtract.call(gx.ptr, gx.ptr, drift.ptr, across.ptr)
        if by_root is None:
            multiply.call(gx.ptr, gx.ptr, factor.ptr, across.ptr)
        else:
            by_root(gx, gx, factor, spread)
        if of_mean is not None:
            divide.call(factor.ptr, of_mean.ptr, count.ptr, scale.ptr)
            plus.call(gx.ptr, gx.ptr, factor.ptr, across.ptr)
        return [gx]
    return run_forward, run_backward


@moments.samples
def _moments_samples(make: Any) -> Any:
    for rooted in (False, True):
        yield make(5, 33), {"axes": (1,), "correction": 1, "keepdim": False, "rooted": rooted}
        yield make(5, 33), {"axes": (0,), "correction": 0, "keepdim": True, "rooted": rooted}
        yield make(3, 31, 4), {"axes": (0, 2), "correction": 2, "keepdim": False, "rooted": rooted}
        yield make(2, 32), {"axes": (0, 1), "correction": 1, "keepdim": False, "rooted": rooted}
        yield make(4, 64, low=9999, high=10001), {"axes": (1,), "correction": 1, "keepdim": False, "rooted": rooted}
        yield make(0, 3), {"axes": (1,), "correction": 1, "keepdim": False, "rooted": rooted}


@moments.errors
def _moments_errors(make: Any) -> Any:
    options = {"axes": (0,), "correction": 1, "keepdim": False, "rooted": False}
    yield (make.ints(3), options), RuntimeError, "floating-point"


@moments.reference
def _moments_reference(x: Any, *, axes: tuple[int, ...], correction: float, keepdim: bool, rooted: bool) -> Any:
    var = np.var(x, axis=axes, ddof=correction, keepdims=keepdim)
    return np.sqrt(var) if rooted else var, np.mean(x, axis=axes, keepdims=keepdim)


def _moments(name: str, x: Tensor, dim: Any, unbiased: Any, correction: Any, keepdim: bool,
             rooted: bool = False) -> Any:
    """The variance (or its root) and the mean that `var`, `std` and their pairs return, with PyTorch's options."""
    if isinstance(dim, bool):                               # var(x, unbiased)
        dim, unbiased = None, dim
    if unbiased is not None and correction is not None:
        raise TypeError(f"[{name}] takes unbiased or correction, not both")
    if correction is None:
        correction = 1 if unbiased is None or unbiased else 0
    if not isinstance(x, Tensor):
        raise TypeError(f"[{name}] expected a Tensor; got {type(x).__name__}")
    axes = axes_of(dim, x.array.layout.ndim, name)
    return moments(x, axes=axes, correction=correction, keepdim=builtins.bool(keepdim), rooted=rooted)


@writes("cast")
def var(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
        correction: float | None = None, **numpy: Any) -> Tensor:
    """The variance over `dim` (an axis, several, or None for all): sum((x - mean)^2) / max(count - correction, 0).

    `correction` is 1 by default (Bessel's), and 0 with `unbiased=False`. Floats only: else RuntimeError.
    """
    if numpy:
        return respelled(var, numpy, input, dim=dim, keepdim=keepdim, unbiased=unbiased, correction=correction)
    return _moments("var", input, dim, unbiased, correction, keepdim)[0]


@writes("cast")
@rounds_once
def std(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
        correction: float | None = None, **numpy: Any) -> Tensor:
    """The standard deviation over `dim`: the root of `var`, with its options. The gradient is 0 where it is 0."""
    if numpy:
        return respelled(std, numpy, input, dim=dim, keepdim=keepdim, unbiased=unbiased, correction=correction)
    return _moments("std", input, dim, unbiased, correction, keepdim, True)[0]


def var_mean(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
             correction: float | None = None) -> tuple[Tensor, Tensor]:
    """The variance and the mean over `dim`, as two tensors; options as in `var`."""
    return _moments("var_mean", input, dim, unbiased, correction, keepdim)


@rounds_once
def std_mean(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
             correction: float | None = None) -> tuple[Tensor, Tensor]:
    """The standard deviation and the mean over `dim`, as two tensors; options as in `var`."""
    return _moments("std_mean", input, dim, unbiased, correction, keepdim, True)


# ---- norm ------------------------------------------------------------------------------------------------------------

@op
def vector_norm(x: Tensor, *, p: float, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    """The p-norm over axes: sum(|x|^p)^(1/p). The gradient is 0 where x or the norm is 0.

    p = inf and -inf: the largest and the smallest |x|. p = 0: how many elements are not 0.
    """
    if p == 1:
        return sum_op(abs(x), axes=axes, keepdim=keepdim)
    if p in (float("inf"), float("-inf")):
        return (_amax if p > 0 else _amin)(abs(x), axes=axes, keepdim=keepdim)
    if p == 0:
        return sum_op(where(eq(x, 0), sign(x), 1), axes=axes, keepdim=keepdim)         # 0 or 1, with gradient 0
    if p > 0:
        unit = unit_of(x, axes, always=p != 2)
    else:                           # the smallest elements count, but for zeros
        unit = div(1.0, unit_of(where(eq(x, 0), 0.0, div(1.0, where(eq(x, 0), 1.0, x))), axes, always=True))
    x = div(x, unit)
    if not keepdim:
        unit = through(as_reshaped, unit, reduced_shape(tuple(x.shape), axes, False))
    if p == 2:
        return mul(root(sum_op(mul(x, x), axes=axes, keepdim=keepdim)), unit)
    zero = eq(x, 0)
    at_zero = 0 if p > 0 else float("inf")
    total = sum_op(where(zero, at_zero, pow(where(zero, 1, abs(x)), p)), axes=axes, keepdim=keepdim)
    none = eq(total, 0)
    return where(none, at_zero, mul(pow(where(none, 1, total), 1.0 / p), unit))


@vector_norm.check
def _norm_rule(x: Layout, *, p: float, axes: tuple[int, ...], keepdim: bool) -> None:
    if not is_float(x.dtype):
        fail("norm", "needs a floating-point tensor", x, "convert with .float()")
    if (p < 0 or p == float("inf")) and not extent(x, axes):
        fail("norm", f"p = {p} has no value for no elements", x)


def _by_norm(kernels: KernelTable, x: Layout, kept: Layout) -> Callable[[Array, Array, Array, Array], None]:
    """A function that fills `to` with (a / y) g, for a gradient g of a norm or deviation y: 0 where y is 0.

    Neither factor leaves the range where the result is in it, as g / y does: in the gradient of x / y, g has 1 / y.
    """
    divide, multiply = kernels.div[x.dtype], kernels.mul[x.dtype]
    equal, choose = kernels.eq[x.dtype], kernels.where.move(x.dtype)
    flags = layout(x.device, BOOL, kept.shape)
    zero, one = (constant(number, x.dtype, x.device).array for number in (0, 1))
    across, test = elementwise_plan(x, x, kept), elementwise_plan(flags, kept, zero.layout)
    pick = elementwise_plan(kept, flags, zero.layout, kept)

    def run(to: Array, a: Array, g: Array, y: Array) -> None:
        factor, none = alloc(kept), alloc(flags)
        equal.call(none.ptr, y.ptr, zero.ptr, test.ptr)
        choose.call(factor.ptr, none.ptr, one.ptr, y.ptr, pick.ptr)             # type: ignore[union-attr]
        divide.call(to.ptr, a.ptr, factor.ptr, across.ptr)
        choose.call(factor.ptr, none.ptr, zero.ptr, g.ptr, pick.ptr)            # type: ignore[union-attr]
        multiply.call(to.ptr, to.ptr, factor.ptr, across.ptr)
    return run


vector_norm.called = "norm"


@vector_norm.fused
def _norm_kernels(kernels: KernelTable, x: Layout, *, p: float, axes: tuple[int, ...], keepdim: bool) -> Any:
    if p != 2 or not x.size:
        raise NoKernel("only the 2-norm has kernels")
    forward = kernels.norm[x.dtype]
    out, kept = (layout(x.device, x.dtype, reduced_shape(x.shape, axes, k)) for k in (keepdim, True))
    plan, by_norm = reduce_plan(x, axes), _by_norm(kernels, x, kept)

    def run_forward(a: Array) -> Any:
        y = alloc(out)
        forward.call(y.ptr, a.ptr, plan.ptr)
        return y, (a, y)

    def run_backward(saved: Any, g: Array, needs: list[bool]) -> list[Array | None]:
        a, y = saved
        gx = alloc(x)
        by_norm(gx, a, g, y)
        return [gx]
    return run_forward, run_backward


@vector_norm.samples
def _norm_samples(make: Any) -> Any:
    for p in (2.0, 1.0, 3.0, 0.5, 0.0, float("inf"), float("-inf"), -1.5):
        yield make(4, 33), {"p": p, "axes": (1,), "keepdim": False}
    yield make(2, 3, 4), {"p": 2.0, "axes": (0, 2), "keepdim": True}
    yield make(2, 0), {"p": 2.0, "axes": (1,), "keepdim": False}


@vector_norm.errors
def _norm_errors(make: Any) -> Any:
    yield (make.ints(3), {"p": 2.0, "axes": (0,), "keepdim": False}), RuntimeError, "floating-point"
    yield (make(0), {"p": float("inf"), "axes": (0,), "keepdim": False}), RuntimeError, "no value"


@vector_norm.reference
def _norm_reference(x: Any, *, p: float, axes: tuple[int, ...], keepdim: bool) -> Any:
    kept = [i for i in range(x.ndim) if i not in axes]
    flat = x.transpose(*kept, *axes).reshape(*[x.shape[i] for i in kept], -1)
    return np.linalg.norm(flat, p, axis=-1).reshape(reduced_shape(x.shape, axes, keepdim))


def norm(input: Tensor, p: float | str | None = "fro", dim: Any = None, keepdim: bool = False,
         dtype: Any = None) -> Tensor:
    """The p-norm over `dim` (an axis, several, or None for all): sum(|x|^p)^(1/p); "fro" and None mean p = 2.

    p = inf and -inf: the largest and the smallest |x|. p = 0: how many elements are not 0. p = "nuc": the sum of the
    singular values of a matrix, or of the matrices in two dimensions. The gradient is 0 where x or the norm is 0.
    RuntimeError for integers and bools, unless `dtype` converts them; for "nuc", unless there are two dimensions.
    """
    if not isinstance(p, (int, float, str, type(None), np.number)) or isinstance(p, str) and p not in ("fro", "nuc"):
        raise NotImplementedError(f"[norm] p must be a number, 'fro' or 'nuc'; got {p!r}")
    x = input if dtype is None else cast(input, dtype)
    axes = axes_of(dim, x.array.layout.ndim, "norm")
    if p == "nuc":
        if len(axes) != 2:
            fail("norm", "'nuc' is of matrices: dim must name two dimensions", [x.array.layout, f"dim {dim}"])
        found: Any = x.movedim(axes, (-2, -1)).svd(compute_uv=False).S.sum(-1)          # type: ignore[attr-defined]
        return found.unsqueeze(axes[0]).unsqueeze(axes[1]) if keepdim else found        # type: ignore[no-any-return]
    return vector_norm(x, p=2.0 if p is None or p == "fro" else float(p), axes=axes, keepdim=builtins.bool(keepdim))


# ---- scans -----------------------------------------------------------------------------------------------------------

def _scan(name: str, function: Callable) -> Callable:
    """The `prepare` of a running sum or product: the kernel `name`, or NumPy's `function`."""
    def prepare(x: Layout, *, dim: int) -> Plan:
        out = layout(x.device, x.dtype, x.shape)
        kernel = getattr(x.device.kernels, name).get(x.dtype)
        if kernel is None:
            return host_plan(out, lambda v, out: function(v, axis=dim, out=out),
                             f"no {name} kernel for {x.dtype}: NumPy", (x,))
        outer, n, inner = extent(x, tuple(range(dim))), x.shape[dim], extent(x, tuple(range(dim + 1, x.ndim)))

        def run(a: Array) -> Array:
            y, a = alloc(out), dense(a)
            kernel.call(y.ptr, a.ptr, outer, n, inner)
            return y
        return Plan(run, out, f"kernel {kernel.name}")
    return prepare


@planner
def _cumsum_along(x: Layout, dim: Any) -> Plan:
    a = axis_of(dim, x.ndim, "cumsum")
    return bind(_cumsum, x, dim=a) if x.ndim else bind(sum_op, x, axes=(), keepdim=False)


def _cumsum_vjp(g: Tensor, dim: int) -> Tensor:
    return flip(through(_cumsum_along, flip(g, dim), dim), dim)


_cumsum = Primitive("cumsum", _scan("cumsum", np.cumsum), {"x": _cumsum_vjp}, ["x"],
                    doc="The running sum along a dimension.")


def _scan_samples(make: Any) -> Any:
    yield make(5, 33), {"dim": 0}
    yield make(5, 33), {"dim": 1}
    yield make(2, 31, 3), {"dim": 1}
    yield make(1), {"dim": 0}
    yield make(3, 0), {"dim": 1}


_cumsum.samples(_scan_samples)


@_cumsum.reference
def _cumsum_reference(x: Any, *, dim: int) -> Any:
    return np.cumsum(x, dim)


@writes("cast", "compute")
def cumsum(input: Tensor, dim: Any = None, *, dtype: Any = None, **numpy: Any) -> Tensor:
    """The running sum along the axis `dim`: out[i] = x[0] + ... + x[i]. Integers and bools sum to int64."""
    if numpy:
        return respelled(cumsum, numpy, input, dim=dim, dtype=dtype)
    if dtype is not None:
        input = cast(input, dtype)
    elif isinstance(input, Tensor) and not is_float(input.array.layout.dtype):
        input = cast(input, INT64)
    return through(_cumsum_along, input, dim)


@op
def cumulative_product(x: Tensor, *, dim: int) -> Tensor:
    """The running product along a dimension.

    The definition doubles what is multiplied in at each step and never divides, so that every derivative is right where
    elements are 0.
    """
    n, step = x.array.layout.shape[dim], 1
    while step < n:
        more = mul(_part(x, dim, step, n - step), _part(x, dim, 0, n - step))
        x = cat_op(_part(x, dim, 0, step), more, dim=dim)
        step *= 2
    return copy.call(x) if n < 2 else x


cumulative_product.called = "cumprod"


@cumulative_product.fused
def _cumprod_kernels(kernels: KernelTable, x: Layout, *, dim: int) -> Any:
    kernel = kernels.cumprod[x.dtype]
    outer, n, inner = extent(x, tuple(range(dim))), x.shape[dim], extent(x, tuple(range(dim + 1, x.ndim)))

    def forward(a: Array) -> Any:
        y = alloc(x)
        kernel.call(y.ptr, a.ptr, outer, n, inner)
        return y, None
    return forward, None


cumulative_product.samples(_scan_samples)


@cumulative_product.reference
def _cumprod_reference(x: Any, *, dim: int) -> Any:
    return np.cumprod(x, dim)


@writes("cast", "compute")
def cumprod(input: Tensor, dim: Any = None, *, dtype: Any = None, **numpy: Any) -> Tensor:
    """The running product along the axis `dim`: out[i] = x[0] * ... * x[i]. Integers and bools multiply to int64."""
    if numpy:
        return respelled(cumprod, numpy, input, dim=dim, dtype=dtype)
    x = cast(input, dtype) if dtype is not None else input if is_float(input.array.layout.dtype) else cast(input, INT64)
    a = axis_of(dim, x.array.layout.ndim, "cumprod")
    return cumulative_product(x, dim=a) if x.array.layout.ndim else copy.call(x)


INPLACE = {"cumsum", "cumprod"}


# ---- launches on CUDA ------------------------------------------------------------------------------------------------

def _reduction_rule(k: Any, host: Any) -> Sequence[Launch]:
    """A launch of partial results over segments of what is reduced, and if there are several, one that joins them."""
    plan = host[k.plan]
    kept, reduced = int(plan[0]), int(plan[1])
    keep, reduce = (int(np.prod(s, dtype=np.int64)) for s in (plan[2:2 + kept], plan[2 + kept:2 + kept + reduced]))
    if keep == 0:
        return []
    columns = reduce < 32 or plan[-1] != 1      # as Plan::columns of reduce.cu decides
    segments = native.segments(keep, reduce, columns)
    if columns:
        tall = power_of_two(reduce // 4, 16)
        first = Launch("", (builtins.min(ceil_div(keep, 32), BLOCKS), segments), (32, tall))
    elif reduce <= 1024:
        first = Launch("", (builtins.min(ceil_div(keep, 4), BLOCKS), segments), (32, power_of_two(keep, 4)))
    else:
        first = Launch("", (builtins.min(keep, BLOCKS), segments), (THREADS, 1))
    return [first] if segments == 1 else [first, Launch("segments", (ceil_div(keep, 4),), (32, 4))]


def _scan_rule(k: Any, host: Any) -> Sequence[Launch]:
    lines = k.outer * 32 if k.inner == 1 else k.outer * k.inner     # a warp for each line that is contiguous
    return [over(lines if k.n else 0)]


METHODS = {"__contains__": contains}
launch("ops/reduce.cu", "norm prod max min moments", _reduction_rule, shared=12288)
launch("ops/reduce.cu", "sum mean argmax argmin count_nonzero any all", _reduction_rule, shared=12288, half=True)
launch("ops/reduce.cu", "cumsum", _scan_rule, half=True)
launch("ops/reduce.cu", "cumprod", _scan_rule)      # whose definition, the source of its derivative, rounds often
work("sum mean prod max min argmax argmin count_nonzero any all", reduced(1))
work("norm", reduced(2))
work("moments", reduced(4))                         # the mean; difference, square, sum
work("cumsum cumprod", lambda k: k.outer * k.n * k.inner)
