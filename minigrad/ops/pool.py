"""Pooling over any number of trailing dimensions: the maximum or the mean of each window (native/pool.c: one to three).

In each dimension a window is a range of indices: begin, begin + dilation, ..., all below end and inside x. This
describes the windows of all four ops, with stride, padding and `ceil_mode`, or adaptive. The definitions go through the
places of a window: they take the first element of all windows, then the second, and so on. A window that has fewer
elements than the longest repeats its last one.
"""
from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np

from ..core.engine import functions
from ..core.op import op
from ..core.shape import INT64, fail, is_float
from ..core.tensor import Tensor
from ..devices.base import KernelTable, NoKernel
from ..devices.memory import Array, Layout, alloc, layout
from .math import add, div, gt, logical_or, ne, where
from .take import take_at
from .through import through
from .view import as_expanded

__all__: list[str] = []

Sizes = tuple[int, ...]
Windows = tuple[tuple[tuple[int, int], ...], ...]       # (begin, end) of each output, for each dimension
_WINDOWS_MAX = 1 << 24                                  # in an adaptive dimension: the table holds each of them


# ---- windows ---------------------------------------------------------------------------------------------------------

@lru_cache(maxsize=1024)
def sliding(size: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool) -> Windows:
    """The windows of a kernel that starts `padding` before the first element and moves by `stride`.

    With `ceil_mode` the last window may reach over the end, if it begins inside x or in the padding before it.
    """
    found = []
    for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
        reach = d * (k - 1) + 1
        count = (n + 2 * p - reach + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (count - 1) * s >= n + p:
            count -= 1
        begins = [o * s - p for o in range(max(count, 0))]
        found.append(tuple([(b if b >= 0 else b + -(b // d) * d, min(b + reach, n)) for b in begins]))
    return tuple(found)


@lru_cache(maxsize=1024)
def adaptive(size: Sizes, output_size: Sizes) -> Windows:
    """Windows of about equal size that cover all elements: output i of m has floor(i n / m) to ceil((i + 1) n / m)."""
    return tuple([tuple([(i * n // m, -(-(i + 1) * n // m)) for i in range(m)])
                  for n, m in zip(size, output_size, strict=True)])


def _shape(windows: Windows) -> Sizes:
    """The number of windows in each dimension: the spatial sizes of the output."""
    return tuple([len(w) for w in windows])


@lru_cache(maxsize=256)
def _places(size: Sizes, windows: Windows, dilation: Sizes,
            device: Any) -> list[tuple[list[Tensor], Tensor, Tensor | None]]:
    """For each place of a window, in order: its coordinates in each dimension (out of that dimension), its flat index
    (out), and where it is not a repetition, bool (out), or None if it nowhere is one."""
    def on_device(values: Any) -> Tensor:
        return functions.as_tensor(np.ascontiguousarray(values)).to(device)
    axes = []
    for spans, d in zip(windows, dilation, strict=True):
        begin, end = np.array(spans, np.int64).reshape(-1, 2).T
        longest = max([-(-(e - b) // d) for b, e in spans], default=1)
        axes.append([(np.minimum(begin + t * d, begin + (end - begin - 1) // d * d), begin + t * d < end)
                     for t in range(longest)])
    found = []
    for place in product(*axes):
        flat, inside = np.zeros((), np.int64), np.ones((), bool)
        for n, (at, new) in zip(size, place, strict=True):
            flat, inside = flat[..., None] * n + at, inside[..., None] & new
        found.append(([on_device(at) for at, _ in place], on_device(flat), None if inside.all() else on_device(inside)))
    return found


def _seen(x: Tensor, windows: Windows, dilation: Sizes) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """For each place of a window: the values there (*, out), the flat index (out), and where it is not a repetition."""
    dims = len(windows)
    for coordinates, flat, inside in _places(x.shape[x.ndim - dims:], windows, dilation, x.device):
        v = x
        for axis, at in enumerate(coordinates, x.ndim - dims):
            v = take_at(v, at, axis, 1)
        yield v, flat, inside


def _largest(x: Tensor, windows: Windows, dilation: Sizes) -> tuple[Tensor, Tensor]:
    """The definition of both maxima: the values and their flat indices."""
    best: Any = None
    index: Any = None
    for v, flat, _ in _seen(x, windows, dilation):
        if best is None:
            best, index = v, through(as_expanded, flat, v.shape).contiguous()
        else:
            better = logical_or(gt(v, best), ne(v, v))
            best, index = where(better, v, best), where(better, flat, index)
    return best, index


def _average(x: Tensor, windows: Windows, divisor: np.ndarray) -> Tensor:
    """The definition of both means: the sum of each window, divided by its `divisor`."""
    total: Any = None
    for v, _, inside in _seen(x, windows, (1,) * len(windows)):
        v = v if inside is None else where(inside, v, 0)
        total = v if total is None else add(total, v)
    by = functions.as_tensor(divisor.astype(x.dtype)).to(x.device)
    return div(total, by) if is_float(x.dtype) else div(total, by, rounding_mode="trunc")


def _table(x: Layout, windows: Windows, dilation: Sizes) -> Array:
    """The table `windows` of native/pool.c."""
    dims = len(windows)
    if dims > 3:
        raise NoKernel(f"kernels take up to 3 dimensions; got {dims}")
    if not x.size or not prod(_shape(windows)):
        raise NoKernel("there are no elements")
    space = x.shape[x.ndim - dims:]
    if prod(space) >= 1 << 31:
        raise NoKernel("the kernels take planes of less than 2^31 elements")
    # a window over the whole last dimension: its rows follow each other in memory and are one longer row
    while dims > 1 and windows[-1] == ((0, space[-1]),) and dilation[-1] == dilation[-2] == 1:
        n = space[-1]
        windows = (*windows[:-2], tuple([(b * n, e * n) for b, e in windows[-2]]))
        space, dilation, dims = (*space[:-2], space[-2] * n), dilation[:-1], dims - 1
    # a step of the whole size already leaves the window
    dilation = tuple([min(d, n) for d, n in zip(dilation, space, strict=True)])
    fill = [1] * (3 - dims)
    spans = [(0, 1)] * (3 - dims) + [span for spans in windows for span in spans]
    numbers = [x.size // prod(space), *fill, *space, *fill, *_shape(windows), *fill, *dilation,
               *[v for span in spans for v in span]]
    return x.device.constant(np.array(numbers, np.int64))


def _out(x: Layout, windows: Windows) -> Sizes:
    """The shape of the output."""
    return (*x.shape[:x.ndim - len(windows)], *_shape(windows))


def _largest_kernels(kernels: KernelTable, x: Layout, windows: Windows, dilation: Sizes) -> Any:
    """Forward and backward of both maxima."""
    forward, backward = kernels.max_pool_forward[x.dtype], kernels.max_pool_backward[x.dtype]
    table = _table(x, windows, dilation)
    y_layout, index_layout = layout(x.device, x.dtype, _out(x, windows)), layout(x.device, INT64, _out(x, windows))

    def run_forward(xa: Array) -> Any:
        y, index = alloc(y_layout), alloc(index_layout)
        forward.call(y.ptr, index.ptr, xa.ptr, table.ptr)
        return (y, index), index

    def run_backward(index: Any, gs: list, needs: list[bool]) -> list[Array | None]:
        gx = alloc(x)
        backward.call(gx.ptr, gs[0].ptr, index.ptr, table.ptr)
        return [gx]
    return run_forward, run_backward


def _average_kernels(kernels: KernelTable, x: Layout, windows: Windows, divisor: np.ndarray) -> Any:
    """Forward and backward of both means."""
    forward, backward = kernels.avg_pool_forward[x.dtype], kernels.avg_pool_backward[x.dtype]
    table, by = _table(x, windows, (1,) * len(windows)), x.device.upload(divisor.astype(x.dtype))
    y_layout = layout(x.device, x.dtype, _out(x, windows))

    def run_forward(xa: Array) -> Any:
        y = alloc(y_layout)
        forward.call(y.ptr, xa.ptr, by.ptr, table.ptr)
        return y, ()

    def run_backward(saved: Any, g: Array, needs: list[bool]) -> list[Array | None]:
        gx = alloc(x)
        backward.call(gx.ptr, g.ptr, by.ptr, table.ptr)
        return [gx]
    return run_forward, run_backward


def _windows_of(array: Any, windows: Windows, dilation: Sizes) -> Iterator[tuple[tuple, Any, np.ndarray]]:
    """For the references, each output: its index, the window's elements (*, n), and their flat indices (n,)."""
    space = array.shape[array.ndim - len(windows):]
    flat = np.arange(prod(space)).reshape(space)
    for place in np.ndindex(*_shape(windows)):
        cut = tuple(slice(windows[d][o][0], windows[d][o][1], dilation[d]) for d, o in enumerate(place))
        seen = flat[cut].reshape(-1)
        everywhere = (Ellipsis, *cut)
        yield (Ellipsis, *place), array[everywhere].reshape(*array.shape[:array.ndim - len(windows)], seen.size), seen


def _largest_reference(x: Any, windows: Windows, dilation: Sizes) -> Any:
    shape = (*x.shape[:x.ndim - len(windows)], *_shape(windows))
    y, index = np.empty(shape, x.dtype), np.empty(shape, np.int64)
    for place, values, flat in _windows_of(x, windows, dilation):
        best = values.argmax(-1)
        y[place] = np.take_along_axis(values, best[..., None], -1)[..., 0]
        index[place] = flat[best]
    return y, index


def _check(name: str, x: Layout, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes,
           ceil_mode: bool) -> None:
    """The shape rule of both ops with a kernel."""
    dims = len(kernel)
    if not dims or x.ndim < dims or not all(x.shape[x.ndim - dims:]):
        fail(name, f"x must have {dims} dimensions of space that are not empty", f"x {x}")
    numbers = (("kernel", kernel, 1), ("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1))
    for key, values, least in numbers:
        if len(values) != dims or any(v < least for v in values):
            fail(name, f"{key} must be at least {least} in each of the {dims} dimensions", f"{key} {list(values)}")
    if any(2 * p > d * (k - 1) + 1 for p, k, d in zip(padding, kernel, dilation, strict=True)):
        fail(name, "padding must be at most half of the kernel (with dilation)",
             [f"padding {list(padding)}", f"kernel {list(kernel)}"])
    windows = sliding(x.shape[x.ndim - dims:], kernel, stride, padding, dilation, ceil_mode)
    if not all(windows) or any(b >= e for spans in windows for b, e in spans):
        fail(name, "each window must have at least one element, and there must be a window",
             [f"x {x}", f"kernel {list(kernel)}"], "use a smaller kernel or dilation")


def _check_adaptive(name: str, x: Layout, output_size: Sizes) -> None:
    """The shape rule of both adaptive ops."""
    dims = len(output_size)
    if not dims or x.ndim < dims or not all(x.shape[x.ndim - dims:]):
        fail(name, f"x must have {dims} dimensions of space that are not empty", f"x {x}")
    if any(n < 0 for n in output_size):
        fail(name, "output_size must not be negative", f"output_size {list(output_size)}")
    if any(n > _WINDOWS_MAX for n in output_size):
        fail(name, f"output_size must be at most {_WINDOWS_MAX}", f"output_size {list(output_size)}")


# ---- the maximum -----------------------------------------------------------------------------------------------------

def _moving(x: Any, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool) -> Windows:
    return sliding(tuple(x.shape[x.ndim - len(kernel):]), kernel, stride, padding, dilation, ceil_mode)


def _shared(x: Any, output_size: Sizes) -> Windows:
    return adaptive(tuple(x.shape[x.ndim - len(output_size):]), output_size)


@op(nondifferentiable=(1,))
def max_pool(x: Tensor, *, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes,
             ceil_mode: bool) -> tuple[Tensor, Tensor]:
    """The maximum of each window, and its flat index in the space.

    Of equal elements it is the first; if there are NaN, it is the last NaN. Elements in the padding never are the
    maximum.

    Shapes: x (*, *space), the attributes one number for each dimension of space -> y and index (int64), both (*, *out).
    """
    return _largest(x, _moving(x, kernel, stride, padding, dilation, ceil_mode), dilation)


@max_pool.check
def _max_pool_rule(x: Layout, **attrs: Any) -> None:
    _check("max_pool", x, **attrs)


@max_pool.fused
def _max_pool_kernels(kernels: KernelTable, x: Layout, *, dilation: Sizes, **attrs: Any) -> Any:
    return _largest_kernels(kernels, x, _moving(x, dilation=dilation, **attrs), dilation)


@max_pool.reference
def _max_pool_reference(x: Any, *, dilation: Sizes, **attrs: Any) -> Any:
    return _largest_reference(x, _moving(x, dilation=dilation, **attrs), dilation)


def _attrs(kernel: Any, stride: Any, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
           dims: int = 2) -> dict[str, Any]:
    def each(v: Any) -> Sizes:
        return (v,) * dims if isinstance(v, int) else v
    return {"kernel": each(kernel), "stride": each(stride), "padding": each(padding), "dilation": each(dilation),
            "ceil_mode": ceil_mode}


@max_pool.samples
def _max_pool_samples(make: Any) -> Any:
    yield make(2, 3, 8, 6), _attrs(2, 2)
    yield make(3, 9, 33), _attrs(3, 2, 1)
    yield make(2, 2, 7, 10), _attrs((3, 2), (2, 3), 1, (2, 1), True)
    yield make(2, 3, 31), _attrs(4, 3, 2, dims=1)
    yield make(1, 2, 3, 4, 5), _attrs(2, 1, 1, dims=3)
    yield make(2, 1, 1), _attrs(1, 1)
    yield make(0, 2, 4, 4), _attrs(2, 2)


@max_pool.errors
def _max_pool_errors(make: Any) -> Any:
    yield (make(2, 4, 4), _attrs(5, 1)), RuntimeError, "at least one element"
    yield (make(2, 4, 4), _attrs(2, 0)), RuntimeError, "stride must be at least 1"
    yield (make(2, 4, 4), _attrs(2, 1, 2)), RuntimeError, "at most half of the kernel"
    yield (make(2, 4, 4), _attrs(0, 1)), RuntimeError, "kernel must be at least 1"
    yield (make(2, 4, 4), _attrs(2, 1, 0, 0)), RuntimeError, "dilation must be at least 1"
    yield (make(2, 4, 4), _attrs(2, 1, -1)), RuntimeError, "padding must be at least 0"
    yield (make(2, 0, 4), _attrs(2, 1)), RuntimeError, "not empty"


@op(nondifferentiable=(1,))
def adaptive_max_pool(x: Tensor, *, output_size: Sizes) -> tuple[Tensor, Tensor]:
    """The maximum of each of `output_size` windows (see `adaptive`), and its flat index in the space.

    Shapes: x (*, *space) -> y and index (int64), both (*, *output_size).
    """
    return _largest(x, _shared(x, output_size), (1,) * len(output_size))


@adaptive_max_pool.check
def _adaptive_max_pool_rule(x: Layout, *, output_size: Sizes) -> None:
    _check_adaptive("adaptive_max_pool", x, output_size)


@adaptive_max_pool.fused
def _adaptive_max_pool_kernels(kernels: KernelTable, x: Layout, *, output_size: Sizes) -> Any:
    return _largest_kernels(kernels, x, _shared(x, output_size), (1,) * len(output_size))


@adaptive_max_pool.reference
def _adaptive_max_pool_reference(x: Any, *, output_size: Sizes) -> Any:
    return _largest_reference(x, _shared(x, output_size), (1,) * len(output_size))


@adaptive_max_pool.samples
def _adaptive_max_pool_samples(make: Any) -> Any:
    yield make(2, 3, 7, 10), {"output_size": (3, 4)}
    yield make(2, 33), {"output_size": (5,)}
    yield make(2, 3, 4, 5), {"output_size": (2, 6, 1)}
    yield make(1, 1), {"output_size": (3,)}
    yield make(2, 3, 4), {"output_size": (0, 2)}


@adaptive_max_pool.errors
def _adaptive_max_pool_errors(make: Any) -> Any:
    yield (make(2, 4, 4), {"output_size": (-1, 2)}), RuntimeError, "negative"
    yield (make(2, 0, 4), {"output_size": (1, 2)}), RuntimeError, "not empty"


# ---- the mean --------------------------------------------------------------------------------------------------------

def _divisors(x: Any, kernel: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool, count_include_pad: bool,
              divisor_override: int | None) -> tuple[Windows, np.ndarray]:
    """The windows, and the divisor of each window's sum: the number of its elements, with those in the padding if
    `count_include_pad` (never those that `ceil_mode` adds), or `divisor_override`."""
    size = tuple(x.shape[x.ndim - len(kernel):])
    windows = sliding(size, kernel, stride, padding, (1,) * len(kernel), ceil_mode)
    counts = np.ones((), np.float64)
    for spans, n, k, s, p in zip(windows, size, kernel, stride, padding, strict=True):
        padded = [min(o * s + k, n + 2 * p) - o * s for o in range(len(spans))]
        counts = counts[..., None] * np.array(padded if count_include_pad else [e - b for b, e in spans], np.float64)
    return windows, counts if divisor_override is None else np.full_like(counts, divisor_override)


@op
def avg_pool(x: Tensor, *, kernel: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool, count_include_pad: bool,
             divisor_override: int | None) -> Tensor:
    """The mean of each window. Elements in the padding are 0, and count if `count_include_pad`.

    With `divisor_override`, the sum of each window divided by this number.

    Shapes: x (*, *space), the attributes one number for each dimension of space -> y (*, *out).
    """
    return _average(x, *_divisors(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override))


@avg_pool.check
def _avg_pool_rule(x: Layout, *, kernel: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool, count_include_pad: bool,
                   divisor_override: int | None) -> None:
    _check("avg_pool", x, kernel, stride, padding, (1,) * len(kernel), ceil_mode)
    if divisor_override == 0:
        fail("avg_pool", "divisor_override must not be 0")


@avg_pool.fused
def _avg_pool_kernels(kernels: KernelTable, x: Layout, **attrs: Any) -> Any:
    return _average_kernels(kernels, x, *_divisors(x, **attrs))


@avg_pool.reference
def _avg_pool_reference(x: Any, *, kernel: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool,
                        count_include_pad: bool, divisor_override: int | None) -> Any:
    dims = len(kernel)
    size = x.shape[x.ndim - dims:]
    windows = sliding(size, kernel, stride, padding, (1,) * dims, ceil_mode)
    marks = np.pad(np.ones(size), [(p, p) for p in padding], constant_values=1.0 if count_include_pad else 0.0)
    y = np.empty((*x.shape[:x.ndim - dims], *_shape(windows)), x.dtype)
    for place, values, _ in _windows_of(x, windows, (1,) * dims):
        counted = marks[tuple(slice(o * s, o * s + k) for o, s, k in zip(place[1:], stride, kernel, strict=True))].sum()
        y[place] = values.sum(-1) / (counted if divisor_override is None else divisor_override)
    return y


def _mean_attrs(*args: Any, include: bool = True, divisor: int | None = None, **options: Any) -> dict[str, Any]:
    attrs = {**_attrs(*args, **options), "count_include_pad": include, "divisor_override": divisor}
    del attrs["dilation"]
    return attrs


@avg_pool.samples
def _avg_pool_samples(make: Any) -> Any:
    yield make(2, 3, 8, 6), _mean_attrs(2, 2)
    yield make(3, 9, 33), _mean_attrs(3, 2, 1)
    yield make(2, 2, 7, 10), _mean_attrs((3, 2), (2, 3), 1, ceil_mode=True)
    yield make(2, 2, 7, 10), _mean_attrs((3, 2), (2, 3), 1, ceil_mode=True, include=False)
    yield make(2, 31), _mean_attrs(4, 3, 2, dims=1, divisor=3)
    yield make(1, 2, 3, 4, 5), _mean_attrs(2, 1, 1, dims=3, include=False)
    yield make(2, 40, 3), _mean_attrs((40, 1), 1)
    yield make(0, 2, 4, 4), _mean_attrs(2, 2)


@avg_pool.errors
def _avg_pool_errors(make: Any) -> Any:
    yield (make(2, 4, 4), _mean_attrs(5, 1)), RuntimeError, "at least one element"
    yield (make(2, 4, 4), _mean_attrs(2, 1, divisor=0)), RuntimeError, "must not be 0"
    yield (make(2, 4, 4), _mean_attrs(2, 1, 2)), RuntimeError, "at most half"


@op
def adaptive_avg_pool(x: Tensor, *, output_size: Sizes) -> Tensor:
    """The mean of each of `output_size` windows (see `adaptive`).

    Shapes: x (*, *space) -> y (*, *output_size).
    """
    return _average(x, *_sharing(x, output_size))


def _sharing(x: Any, output_size: Sizes) -> tuple[Windows, np.ndarray]:
    """The windows, and the number of elements of each."""
    windows = _shared(x, output_size)
    counts = np.ones((), np.float64)
    for spans in windows:
        counts = counts[..., None] * np.array([e - b for b, e in spans], np.float64)
    return windows, counts


@adaptive_avg_pool.check
def _adaptive_avg_pool_rule(x: Layout, *, output_size: Sizes) -> None:
    _check_adaptive("adaptive_avg_pool", x, output_size)


@adaptive_avg_pool.fused
def _adaptive_avg_pool_kernels(kernels: KernelTable, x: Layout, *, output_size: Sizes) -> Any:
    return _average_kernels(kernels, x, *_sharing(x, output_size))


@adaptive_avg_pool.reference
def _adaptive_avg_pool_reference(x: Any, *, output_size: Sizes) -> Any:
    windows = _shared(x, output_size)
    y = np.empty((*x.shape[:x.ndim - len(output_size)], *output_size), x.dtype)
    for place, values, _ in _windows_of(x, windows, (1,) * len(output_size)):
        y[place] = values.mean(-1)
    return y


@adaptive_avg_pool.samples
def _adaptive_avg_pool_samples(make: Any) -> Any:
    yield make(2, 3, 7, 10), {"output_size": (3, 4)}
    yield make(2, 33), {"output_size": (5,)}
    yield make(2, 3, 4, 5), {"output_size": (2, 6, 1)}
    yield make(2, 5, 6), {"output_size": (1, 1)}
    yield make(2, 3, 4), {"output_size": (0, 2)}


@adaptive_avg_pool.errors
def _adaptive_avg_pool_errors(make: Any) -> Any:
    yield (make(2, 4, 4), {"output_size": (-1, 2)}), RuntimeError, "negative"
    yield (make(2, 0, 4), {"output_size": (1, 2)}), RuntimeError, "not empty"
