"""Pooling over any number of trailing dimensions: the maximum or the mean of each window (native/pool.c: one to three).

In each dimension a window is a range of indices: begin, begin + dilation, ..., all below end and inside x. The numbers
of an `Axis` describe the windows of all four ops, with stride, padding and `ceil_mode`, or adaptive. The definitions go
through the places of a window: they take the first element of all windows, then the second, and so on. A window that
has fewer elements than the longest repeats its last one.
"""
from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..core.op import op
from ..core.shape import INT64, fail, is_float
from ..core.tensor import Tensor
from ..devices.base import KernelTable, NoKernel
from ..devices.launch import BLOCKS, THREADS, Launch, ceil_div, launch, over, per_row
from ..devices.memory import Array, Layout, alloc, layout
from ..devices.work import pieces, work
from .convert import extreme_of, on_device
from .math import add, div, gt, logical_and, logical_or, ne, where
from .take import take_at
from .through import through
from .view import as_expanded

__all__: list[str] = []

Sizes = tuple[int, ...]
_SIZE_MAX = (1 << 31) - 1       # of a kernel, its dilation, and an adaptive output


# ---- windows ---------------------------------------------------------------------------------------------------------

class Axis(NamedTuple):
    """The windows of one dimension: `out` of them, over `size` elements.

    Those of a kernel begin `padding` before the first element, and each `stride` after the one before. They are
    adaptive if `kernel` is 0: about equal, and together all elements. Kernels compute the windows from these numbers.
    """

    size: int
    out: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each window begins and ends, int64 (out,): the elements begin, begin + dilation, ... below end."""
        o, n, d = np.arange(self.out, dtype=np.int64), self.size, self.dilation
        if not self.kernel:
            return o * n // self.out, -(-(o + 1) * n // self.out)
        begin = o * self.stride - self.padding
        end = np.minimum(begin + d * (self.kernel - 1) + 1, n)
        return np.where(begin < 0, begin + -(begin // d) * d, begin), end

    def counts(self, include_pad: bool) -> np.ndarray:
        """How many elements each window has (without dilation), with those in the padding if they count."""
        if include_pad and self.kernel:
            most = self.size + 2 * self.padding - np.arange(self.out, dtype=np.int64) * self.stride
            return np.minimum(self.kernel, most)
        begin, end = self.bounds()
        return end - begin


Windows = tuple[Axis, ...]                              # one for each dimension


def sliding(size: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool) -> Windows:
    """The windows of a kernel that starts `padding` before the first element and moves by `stride`.

    With `ceil_mode` the last window may reach over the end, if it begins inside x or in the padding before it.
    """
    found = []
    for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
        count = (n + 2 * p - d * (k - 1) - 1 + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (count - 1) * s >= n + p:
            count -= 1
        # steps that are never taken may be any number
        found.append(Axis(n, max(count, 0), k, s if count > 1 else 1, p, d if k > 1 else 1))
    return tuple(found)


def adaptive(size: Sizes, output_size: Sizes) -> Windows:
    """Windows of about equal size that cover all elements: output i of m has floor(i n / m) to ceil((i + 1) n / m)."""
    return tuple([Axis(n, m, n // m, n // m) if m and not n % m else Axis(n, m, 0)      # the first: all are equal
                  for n, m in zip(size, output_size, strict=True)])


def _shape(windows: Windows) -> Sizes:
    """The number of windows in each dimension: the spatial sizes of the output."""
    return tuple([axis.out for axis in windows])


def _places(windows: Windows, device: Any) -> Iterator[tuple[list[Tensor], Tensor, Tensor | None]]:
    """For each place of a window, in order: its coordinates in each dimension (out of that dimension), its flat index
    (out), and where it is not a repetition, bool (out), or None if it nowhere is one. An empty window repeats 0."""
    axes = []
    for axis in windows:
        (begin, end), d = axis.bounds(), axis.dilation
        longest = max(int((-(-(end - begin) // d)).max(initial=1)), 1)
        last = begin + (end - begin - 1) // d * d
        axes.append([(np.clip(np.minimum(begin + t * d, last), 0, axis.size - 1), begin + t * d < end)
                     for t in range(longest)])
    for place in product(*axes):
        flat, inside = np.zeros((), np.int64), np.ones((), bool)
        for axis, (at, new) in zip(windows, place, strict=True):
            flat, inside = flat[..., None] * axis.size + at, inside[..., None] & new
        yield ([on_device(at, device) for at, _ in place], on_device(flat, device),
               None if inside.all() else on_device(inside, device))


@lru_cache(maxsize=256)
def _kept_places(windows: Windows, device: Any) -> list[tuple[list[Tensor], Tensor, Tensor | None]]:
    return list(_places(windows, device))


def _seen(x: Tensor, windows: Windows) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """For each place of a window: the values there (*, out), the flat index (out), and where it is not a repetition."""
    dims = len(windows)
    small = prod(_shape(windows)) * prod([axis.size for axis in windows]) <= 1 << 16        # more would fill the memory
    for coordinates, flat, inside in (_kept_places if small else _places)(windows, x.device):
        v = x
        for axis, at in enumerate(coordinates, x.ndim - dims):
            v = take_at(v, at, axis, 1)
        yield v, flat, inside


def _largest(x: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """The definition of both maxima: the values and their flat indices; of a window without elements -inf and -1."""
    best: Any = None
    index: Any = None
    for v, flat, inside in _seen(x, windows):
        if best is None:
            best, index = v, through(as_expanded, flat, v.shape).contiguous()
            if inside is not None:
                best, index = where(inside, best, extreme_of(x.dtype, False)), where(inside, index, -1)
        else:
            better = logical_or(gt(v, best), ne(v, v))
            better = better if inside is None else logical_and(better, inside)
            best, index = where(better, v, best), where(better, flat, index)
    return best, index


def _average(x: Tensor, windows: Windows, include_pad: bool, divisor: int | None) -> Tensor:
    """The definition of both means: the sum of each window, divided by the number of its elements or by `divisor`."""
    total: Any = None
    for v, _, inside in _seen(x, windows):
        v = v if inside is None else where(inside, v, 0)
        total = v if total is None else add(total, v)
    counts: Any = np.ones((), np.float64)
    for axis in windows:
        counts = counts[..., None] * axis.counts(include_pad)
    counts = counts if divisor is None else np.full_like(counts, divisor)
    by = on_device(counts.astype(x.dtype), x.device)
    return div(total, by) if is_float(x.dtype) else div(total, by, rounding_mode="trunc")


def _geometry(x: Layout, windows: Windows, include_pad: bool = False, divisor: int | None = None) -> Array:
    """The table `geometry` of native/pool.c."""
    dims = len(windows)
    if dims > 3:
        raise NoKernel(f"kernels take up to 3 dimensions; got {dims}")
    if not x.size or not prod(_shape(windows)):
        raise NoKernel("there are no elements")
    size = prod([axis.size for axis in windows])
    if size >= 1 << 31:
        raise NoKernel("the kernels take planes of less than 2^31 elements")
    axes = list(windows)
    # a window over the whole last dimension: its rows follow each other in memory and are one longer row
    while len(axes) > 1 and _whole(axes[-1]) and axes[-2].dilation == 1 and axes[-2].kernel:
        n, a = axes.pop().size, axes[-1]
        axes[-1] = Axis(a.size * n, a.out, a.kernel * n, a.stride * n, a.padding * n)
    axes = [Axis(1, 1, 1)] * (3 - len(axes)) + axes
    numbers = [x.size // size, int(include_pad), divisor or 0, *[v for field in zip(*axes, strict=True) for v in field]]
    return x.device.constant(np.array(numbers, np.int64))


def _whole(axis: Axis) -> bool:
    """Is there one window, which has all elements and nothing else?"""
    return axis.out == 1 and axis.padding == 0 and axis.dilation == 1 and axis.kernel == axis.size


def _out(x: Layout, windows: Windows) -> Sizes:
    """The shape of the output."""
    return (*x.shape[:x.ndim - len(windows)], *_shape(windows))


def _largest_kernels(kernels: KernelTable, x: Layout, windows: Windows) -> Any:
    """Forward and backward of both maxima."""
    forward, backward = kernels.max_pool_forward[x.dtype], kernels.max_pool_backward[x.dtype]
    geometry = _geometry(x, windows)
    y_layout, index_layout = layout(x.device, x.dtype, _out(x, windows)), layout(x.device, INT64, _out(x, windows))

    def run_forward(xa: Array) -> Any:
        y, index = alloc(y_layout), alloc(index_layout)
        forward.call(y.ptr, index.ptr, xa.ptr, geometry.ptr)
        return (y, index), index

    def run_backward(index: Any, gs: list, needs: list[bool]) -> list[Array | None]:
        gx = alloc(x)
        backward.call(gx.ptr, gs[0].ptr, index.ptr, geometry.ptr)
        return [gx]
    return run_forward, run_backward


def _average_kernels(kernels: KernelTable, x: Layout, windows: Windows, include_pad: bool, divisor: int | None) -> Any:
    """Forward and backward of both means."""
    forward, backward = kernels.avg_pool_forward[x.dtype], kernels.avg_pool_backward[x.dtype]
    geometry = _geometry(x, windows, include_pad, divisor)
    y_layout = layout(x.device, x.dtype, _out(x, windows))

    def run_forward(xa: Array) -> Any:
        y = alloc(y_layout)
        forward.call(y.ptr, xa.ptr, geometry.ptr)
        return y, ()

    def run_backward(saved: Any, g: Array, needs: list[bool]) -> list[Array | None]:
        gx = alloc(x)
        backward.call(gx.ptr, g.ptr, geometry.ptr)
        return [gx]
    return run_forward, run_backward


def _windows_of(array: Any, windows: Windows) -> Iterator[tuple[tuple, Any, np.ndarray]]:
    """For the references, each output: its index, the window's elements (*, n), and their flat indices (n,)."""
    space = array.shape[array.ndim - len(windows):]
    flat = np.arange(prod(space)).reshape(space)
    bounds = [axis.bounds() for axis in windows]
    for place in np.ndindex(*_shape(windows)):
        cut = tuple(slice(begin[o], max(end[o], begin[o]), axis.dilation)
                    for (begin, end), axis, o in zip(bounds, windows, place, strict=True))
        seen = flat[cut].reshape(-1)
        everywhere = (Ellipsis, *cut)
        yield (Ellipsis, *place), array[everywhere].reshape(*array.shape[:array.ndim - len(windows)], seen.size), seen


def _largest_reference(x: Any, windows: Windows) -> Any:
    shape = (*x.shape[:x.ndim - len(windows)], *_shape(windows))
    y, index = np.empty(shape, x.dtype), np.empty(shape, np.int64)
    for place, values, flat in _windows_of(x, windows):
        if not flat.size:
            y[place], index[place] = -np.inf, -1
            continue
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
    taken = tuple([d if k > 1 else 1 for d, k in zip(dilation, kernel, strict=True)])
    for key, values in (("kernel", kernel), ("dilation", taken)):
        if max(values) > _SIZE_MAX:
            fail(name, f"{key} must be at most {_SIZE_MAX}", f"{key} {list(values)}")
    if any(2 * p > d * (k - 1) + 1 for p, k, d in zip(padding, kernel, dilation, strict=True)):
        fail(name, "padding must be at most half of the kernel (with dilation)",
             [f"padding {list(padding)}", f"kernel {list(kernel)}"])
    if not all(_shape(sliding(x.shape[x.ndim - dims:], kernel, stride, padding, dilation, ceil_mode))):
        fail(name, "there must be at least one window inside x and its padding",
             [f"x {x}", f"kernel {list(kernel)}"], "use a smaller kernel or dilation")


def _check_adaptive(name: str, x: Layout, output_size: Sizes) -> None:
    """The shape rule of both adaptive ops."""
    dims = len(output_size)
    if not dims or x.ndim < dims or not all(x.shape[x.ndim - dims:]):
        fail(name, f"x must have {dims} dimensions of space that are not empty", f"x {x}")
    if any(n < 0 for n in output_size):
        fail(name, "output_size must not be negative", f"output_size {list(output_size)}")
    if max(output_size) > _SIZE_MAX:
        fail(name, f"output_size must be at most {_SIZE_MAX}", f"output_size {list(output_size)}")


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
    maximum: a window that has no others gives -inf, and -1 as index.

    Shapes: x (*, *space), the attributes one number for each dimension of space -> y and index (int64), both (*, *out).
    """
    return _largest(x, _moving(x, kernel, stride, padding, dilation, ceil_mode))


@max_pool.check
def _max_pool_rule(x: Layout, **attrs: Any) -> None:
    _check("max_pool", x, **attrs)


@max_pool.fused
def _max_pool_kernels(kernels: KernelTable, x: Layout, **attrs: Any) -> Any:
    return _largest_kernels(kernels, x, _moving(x, **attrs))


@max_pool.reference
def _max_pool_reference(x: Any, **attrs: Any) -> Any:
    return _largest_reference(x, _moving(x, **attrs))


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
    yield (make(2, 4, 4), _attrs(5, 1)), RuntimeError, "at least one window"
    yield (make(2, 4, 4), _attrs(2, 1, 0, 1 << 31)), RuntimeError, "dilation must be at most"
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
    return _largest(x, _shared(x, output_size))


@adaptive_max_pool.check
def _adaptive_max_pool_rule(x: Layout, *, output_size: Sizes) -> None:
    _check_adaptive("adaptive_max_pool", x, output_size)


@adaptive_max_pool.fused
def _adaptive_max_pool_kernels(kernels: KernelTable, x: Layout, *, output_size: Sizes) -> Any:
    return _largest_kernels(kernels, x, _shared(x, output_size))


@adaptive_max_pool.reference
def _adaptive_max_pool_reference(x: Any, *, output_size: Sizes) -> Any:
    return _largest_reference(x, _shared(x, output_size))


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

@op
def avg_pool(x: Tensor, *, kernel: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool, count_include_pad: bool,
             divisor_override: int | None) -> Tensor:
    """The mean of each window. Elements in the padding are 0, and count if `count_include_pad`.

    With `divisor_override`, the sum of each window divided by this number.

    Shapes: x (*, *space), the attributes one number for each dimension of space -> y (*, *out).
    """
    windows = _moving(x, kernel, stride, padding, (1,) * len(kernel), ceil_mode)
    return _average(x, windows, count_include_pad, divisor_override)


@avg_pool.check
def _avg_pool_rule(x: Layout, *, kernel: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool, count_include_pad: bool,
                   divisor_override: int | None) -> None:
    _check("avg_pool", x, kernel, stride, padding, (1,) * len(kernel), ceil_mode)
    if divisor_override == 0:
        fail("avg_pool", "divisor_override must not be 0")


@avg_pool.fused
def _avg_pool_kernels(kernels: KernelTable, x: Layout, *, kernel: Sizes, count_include_pad: bool,
                      divisor_override: int | None, **attrs: Any) -> Any:
    windows = _moving(x, kernel, dilation=(1,) * len(kernel), **attrs)
    return _average_kernels(kernels, x, windows, count_include_pad, divisor_override)


@avg_pool.reference
def _avg_pool_reference(x: Any, *, kernel: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool,
                        count_include_pad: bool, divisor_override: int | None) -> Any:
    dims = len(kernel)
    size = x.shape[x.ndim - dims:]
    windows = sliding(size, kernel, stride, padding, (1,) * dims, ceil_mode)
    marks = np.pad(np.ones(size), [(p, p) for p in padding], constant_values=1.0 if count_include_pad else 0.0)
    y = np.empty((*x.shape[:x.ndim - dims], *_shape(windows)), x.dtype)
    for place, values, _ in _windows_of(x, windows):
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
    yield (make(2, 4, 4), _mean_attrs(5, 1)), RuntimeError, "at least one window"
    yield (make(2, 4, 4), _mean_attrs(2, 1, divisor=0)), RuntimeError, "must not be 0"
    yield (make(2, 4, 4), _mean_attrs(2, 1, 2)), RuntimeError, "at most half"


@op
def adaptive_avg_pool(x: Tensor, *, output_size: Sizes) -> Tensor:
    """The mean of each of `output_size` windows (see `adaptive`).

    Shapes: x (*, *space) -> y (*, *output_size).
    """
    return _average(x, _shared(x, output_size), False, None)


@adaptive_avg_pool.check
def _adaptive_avg_pool_rule(x: Layout, *, output_size: Sizes) -> None:
    _check_adaptive("adaptive_avg_pool", x, output_size)


@adaptive_avg_pool.fused
def _adaptive_avg_pool_kernels(kernels: KernelTable, x: Layout, *, output_size: Sizes) -> Any:
    return _average_kernels(kernels, x, _shared(x, output_size), False, None)


@adaptive_avg_pool.reference
def _adaptive_avg_pool_reference(x: Any, *, output_size: Sizes) -> Any:
    windows = _shared(x, output_size)
    y = np.empty((*x.shape[:x.ndim - len(output_size)], *output_size), x.dtype)
    for place, values, _ in _windows_of(x, windows):
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


def _window_elements(k: Any) -> int:
    """The elements of all windows. Planes at 0, in[3] at 3, out[3] at 6, kernel[3] at 9; adaptive ones cover it."""
    g = k.geometry
    return prod(int(g[i]) for i in ((0, 6, 7, 8, 9, 10, 11) if g[9] else (0, 3, 4, 5)))


work("max_pool_forward avg_pool_forward avg_pool_backward", _window_elements)
work("max_pool_backward", lambda k: prod(int(k.geometry[i]) for i in (0, 6, 7, 8)))     # one sum for each output
pieces("max_pool_backward avg_pool_backward", "gx", lambda k: prod(int(k.geometry[i]) for i in (0, 3, 4, 5)))


# ---- launches on CUDA ------------------------------------------------------------------------------------------------

def _forward_rule(k: Any, host: Any) -> list[Launch]:
    """A thread for each output; a warp or a block where windows are wide in their last dimension."""
    g = list(map(int, host[k.geometry]))
    outputs, size, out, kernel = prod([g[0], *g[6:9]]), g[5], g[8], g[11]
    wide = min(kernel or ceil_div(size, out), size)
    if wide >= 32:
        return [per_row(outputs, wide)]
    return [Launch("", (min(ceil_div(outputs, THREADS), BLOCKS),), (1, THREADS))]


def _backward_rule(k: Any, host: Any) -> list[Launch]:
    """A thread for each element of x."""
    g = host[k.geometry]
    return [over(prod(int(g[i]) for i in (0, 3, 4, 5)))]


launch("ops/pool.cu", "max_pool_forward avg_pool_forward", _forward_rule, shared=512, half=True)
launch("ops/pool.cu", "max_pool_backward avg_pool_backward", _backward_rule, half=True)
