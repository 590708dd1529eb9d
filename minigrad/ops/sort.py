"""Order: sort, topk, running extremes, unique, bincount.

The primitives give indices only (native/sort.c; NumPy on the host where there is no kernel). The values are then
gathered by these indices, and the gather has the derivative.
"""
from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..core.arrays import dense
from ..core.modes import mode
from ..core.op import Primitive
from ..core.out import writes
from ..core.shape import FLOAT64, INT64, axis_of, fail, is_float
from ..core.tensor import Tensor, ValuesIndices, new_tensor
from ..devices.base import Kernel
from ..devices.launch import BLOCKS, Launch, ceil_div, launch
from ..devices.memory import Array, Layout, alloc, layout
from ..devices.plan import Plan, not_half
from ..devices.work import work
from .arguments import whole
from .convert import cast
from .math import copy
from .reduce import argmax_op, extent
from .take import add_at, for_caller, gather_at, reads_to_host, take_at
from .through import bind, planner, through
from .view import as_reshaped, windowed

__all__ = ["sort", "argsort", "msort", "topk", "kthvalue", "cummax", "cummin", "unique", "unique_consecutive",
           "bincount"]

# elements of a line that the kernels sort: less than can be counted in 32 bits, and what fits into shared memory
_LINE_MAX = {"cpu": (1 << 32) - 1, "cuda": 4096}


def _in_numpy(name: str, x: Layout, shape: tuple[int, ...], function: Any) -> Plan:
    """A plan that fills an int64 output of `shape` by a NumPy function."""
    not_half(f"no {name} kernel for {x.dtype}", x)
    out = layout(x.device, INT64, shape)

    def run(a: Array) -> Array:
        y = alloc(out)
        if out.size:
            x.device.host.call(function, y.np, a.np)
        return y
    return Plan(run, out, f"{name}: NumPy on the host")


def _launched(kernel: Kernel, x: Layout, shape: tuple[int, ...], dim: int, options: tuple[int, ...]) -> Plan:
    """A plan that calls `kernel(out, x, outer, n, inner, *options)`."""
    out = layout(x.device, INT64, shape)
    sizes = extent(x, tuple(range(dim))), x.shape[dim], extent(x, tuple(range(dim + 1, x.ndim)))

    def run(a: Array) -> Array:
        y, a = alloc(out), dense(a)
        kernel.call(y.ptr, a.ptr, *sizes, *options)
        return y
    return Plan(run, out, f"kernel {kernel.name}")


def _ordered(x: np.ndarray, dim: int, descending: bool) -> np.ndarray:
    """The indices that sort x along `dim`; equal elements keep their order, NaN is the largest."""
    if not descending:
        return np.argsort(x, dim, kind="stable")
    order = np.argsort(np.flip(x, dim), dim, kind="stable")
    return x.shape[dim] - 1 - np.flip(order, dim)


def _prepare_argsort(x: Layout, *, dim: int, descending: bool) -> Plan:
    """The indices, int64, that sort along a dimension; equal elements keep their order, NaN is the largest."""
    kernel = x.device.kernels.argsort.get(x.dtype)
    if kernel is not None and x.size and x.shape[dim] <= _LINE_MAX[x.device.type]:
        return _launched(kernel, x, x.shape, dim, (int(descending),))

    def run(v: Any, out: Any) -> None:
        out[...] = _ordered(v, dim, descending)
    return _in_numpy("argsort", x, x.shape, run)


_argsort = Primitive("argsort", _prepare_argsort)


@_argsort.samples
def _argsort_samples(make: Any) -> Any:
    yield make(5, 33), {"dim": 1, "descending": False}
    yield make(31, 2), {"dim": 0, "descending": True}
    yield make.ints(40, high=5), {"dim": 0, "descending": True}
    yield make(0, 3), {"dim": 0, "descending": False}


@_argsort.reference
def _argsort_reference(x: Any, *, dim: int, descending: bool) -> Any:
    moved = np.moveaxis(x, dim, -1)
    out = np.empty(moved.shape, np.int64)
    for i in np.ndindex(moved.shape[:-1]):
        out[i] = sorted(range(moved.shape[-1]), key=moved[i].__getitem__, reverse=descending)
    return np.moveaxis(out, -1, dim)


def _prepare_topk(x: Layout, *, k: int, dim: int, largest: bool) -> Plan:
    """The indices, int64, of the k largest (or smallest) elements along a dimension, in order."""
    shape = x.shape[:dim] + (k,) + x.shape[dim + 1:]
    kernel = x.device.kernels.topk.get(x.dtype)
    if kernel is not None and x.size and x.shape[dim] <= _LINE_MAX[x.device.type]:
        return _launched(kernel, x, shape, dim, (k, int(largest)))

    def run(v: Any, out: Any) -> None:
        out[...] = _ordered(v, dim, largest)[(slice(None),) * dim + (slice(k),)]
    return _in_numpy("topk", x, shape, run)


_topk = Primitive("topk", _prepare_topk)


@_topk.samples
def _topk_samples(make: Any) -> Any:
    yield make(5, 33), {"k": 3, "dim": 1, "largest": True}
    yield make(33, 2), {"k": 2, "dim": 0, "largest": False}
    yield make(4, 5), {"k": 5, "dim": 1, "largest": True}
    yield make(4), {"k": 0, "dim": 0, "largest": True}


@_topk.reference
def _topk_reference(x: Any, *, k: int, dim: int, largest: bool) -> Any:
    return np.take(_argsort_reference(x, dim=dim, descending=largest), np.arange(k), dim)


def _picked(input: Tensor, indices: Tensor, dim: int) -> ValuesIndices:
    """The values at the indices, and the indices; a tensor without dimensions is its own value."""
    if input.array.layout.ndim:
        return ValuesIndices(gather_at(input, indices, dim), for_caller(indices, input))
    return ValuesIndices(copy.call(input), through(as_reshaped, indices, ()))


def _vector(x: Tensor) -> Tensor:
    """x, as (1,) where it has no dimension."""
    return x if x.array.layout.ndim else through(as_reshaped, x, (1,))


def sort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = False) -> ValuesIndices:
    """(values, indices) in order along `dim`.

    Shapes: input any -> both like input; the indices are int64. The sort is always stable. NaN is the largest value.

    >>> sort(tensor([3.0, 1.0, 2.0])).indices.tolist()
    [1, 2, 0]
    """
    return _picked(input, through(_argsorted, input, dim, descending), axis_of(dim, input.array.layout.ndim, "sort"))


@planner
def _argsorted(x: Layout, dim: Any, descending: Any) -> Plan:
    a = axis_of(dim, x.ndim, "argsort")
    if not x.ndim:
        return bind(argmax_op, x, axes=(), keepdim=False)
    return bind(_argsort, x, dim=a, descending=bool(descending))


def argsort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Tensor:
    """The indices, int64, that sort along `dim`. The sort is always stable. NaN is the largest value."""
    return through(_argsorted, input, dim, descending)


def msort(input: Tensor) -> Tensor:
    """The values in order along the first dimension. Shapes: like input."""
    return sort(input, 0).values


@writes("apart")
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> ValuesIndices:
    """(values, indices) of the k largest (or smallest) elements along `dim`, in order.

    Shapes: input any -> both like input, with size k in `dim`. NaN is the largest value. `sorted` is there for
    PyTorch's signature; the results are always in order.
    """
    have = input.array.layout
    a = axis_of(dim, have.ndim, "topk")
    k = operator.index(k)
    if not 0 <= k <= (have.shape[a] if have.ndim else 1):
        fail("topk", "k must lie between 0 and the size of dim", [have, f"k {k}", f"dim {dim}"])
    return _picked(input, _topk(_vector(input), k=k, dim=a, largest=bool(largest)), a)


@writes("apart")
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
    """(values, indices) of the k-th smallest element along `dim`; k = 1 is the smallest.

    Shapes: input any -> both without `dim`, or with size 1 there if `keepdim`.
    """
    have = input.array.layout
    a, k = axis_of(dim, have.ndim, "kthvalue"), operator.index(k)
    if have.ndim and not have.shape[a]:
        fail("kthvalue", f"dimension {a} must not be empty", have, kind=IndexError)
    if not 1 <= k <= (have.shape[a] if have.ndim else 1):
        fail("kthvalue", "k must lie between 1 and the size of dim", [have, f"k {k}", f"dim {dim}"])
    order = _argsort(_vector(input), dim=a, descending=False)
    window = tuple([(k - 1, 1, 1) if i == a else whole(n) for i, n in enumerate(order.array.layout.shape)])
    one = through(windowed, order, window)
    values, indices = _picked(input, one, a)
    if keepdim or not have.ndim:
        return ValuesIndices(values, indices)
    shape = have.shape[:a] + have.shape[a + 1:]
    return ValuesIndices(through(as_reshaped, values, shape), through(as_reshaped, indices, shape))


def _so_far(extreme: Any, v: Any, dim: int) -> Any:
    """`extreme.accumulate(v, dim)`; CuPy lacks that, so there it takes the extreme of 2, 4, 8, ... neighbours."""
    if isinstance(v, np.ndarray):
        return extreme.accumulate(v, axis=dim)
    width, before = 1, (slice(None),) * dim
    while width < v.shape[dim]:
        here, past = (*before, slice(width, None)), (*before, slice(-width))
        longer = v.astype(v.dtype)
        longer[here] = extreme(v[here], v[past])
        v, width = longer, 2 * width
    return v


def _running(name: str, extreme: Any, beats: Any) -> Any:
    """The `prepare` of a running extreme: `extreme` gives that of two, `beats(v, best)` tells where v is as good."""
    def prepare(x: Layout, *, dim: int) -> Plan:
        def run(v: Any, out: Any) -> None:
            reached = beats(v, _so_far(extreme, v, dim))
            if v.dtype.kind == "f":
                reached |= np.isnan(v)
            position = np.cumsum(np.ones_like(v, np.int64), axis=dim) - 1
            out[...] = _so_far(np.maximum, np.where(reached, position, 0), dim)
        return _in_numpy(name, x, x.shape, run)
    return prepare


_cummax = Primitive("cummax", _running("cummax", np.maximum, np.greater_equal), inputs=["x"],
                    doc="The index of the largest element so far along `dim`; of equal ones the last.")
_cummin = Primitive("cummin", _running("cummin", np.minimum, np.less_equal), inputs=["x"],
                    doc="The index of the smallest element so far along `dim`; of equal ones the last.")


def _running_samples(make: Any) -> Any:
    yield make(5, 33), {"dim": 1}
    yield make.ints(31, 2, high=4), {"dim": 0}
    yield make(1), {"dim": 0}
    yield make(0, 3), {"dim": 0}


def _running_reference(best: Any) -> Any:
    def reference(x: Any, *, dim: int) -> Any:
        moved = np.moveaxis(x, dim, -1)
        out = np.zeros(moved.shape, np.int64)
        for i in np.ndindex(moved.shape):
            past = moved[i[:-1]][:i[-1] + 1]
            out[i] = np.flatnonzero(past == best(past))[-1]
        return np.moveaxis(out, -1, dim)
    return reference


_cummax.samples(_running_samples)
_cummin.samples(_running_samples)
_cummax.reference(_running_reference(np.max))
_cummin.reference(_running_reference(np.min))


def _cumulative(name: str, primitive: Primitive, input: Tensor, dim: int) -> ValuesIndices:
    a = axis_of(dim, input.array.layout.ndim, name)
    return _picked(input, primitive(_vector(input), dim=a), a)


def cummax(input: Tensor, dim: int) -> ValuesIndices:
    """(values, indices) of the largest element so far along `dim`; of equal ones the last. Shapes: both like input."""
    return _cumulative("cummax", _cummax, input, dim)


def cummin(input: Tensor, dim: int) -> ValuesIndices:
    """(values, indices) of the smallest element so far along `dim`; of equal ones the last. Shapes: both like input."""
    return _cumulative("cummin", _cummin, input, dim)


# ---- results whose size depends on the values ------------------------------------------------------------------------

class _Found:
    """The results of a function on the host whose sizes depend on the values of `x`."""

    def __init__(self, what: str, x: Tensor, function: Any) -> None:
        reads_to_host(what)
        self.results: list[Any] = []
        device = x.array.layout.device
        device.host.call(lambda v, out: out.extend(function(v)), self.results, x.array.np)
        self.device = device

    def tensor(self, i: int, shape: tuple[int, ...] | None = None) -> Tensor:
        values = self.results[i]
        return new_tensor(self.device.upload(values if shape is None else values.reshape(shape)), None)

    def of(self, x: Tensor, axis: int | None) -> Tensor:
        """The first result. In a graph it is taken from `x`, where the last result says, so that it has a gradient."""
        if not (mode.grad and x.requires_grad):
            return self.tensor(0)
        from_ = through(as_reshaped, x, (x.array.layout.size,)) if axis is None else x
        return take_at(from_, self.tensor(-1), axis or 0, 1)


def unique(input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
           dim: int | None = None) -> Any:
    """The different elements in ascending order, or with `dim` the different slices along it.

    Gives them alone, or in a tuple with what the options add: the indices that restore `input` from them
    (`return_inverse`), how often each occurs (`return_counts`). The result is always sorted. Its gradient goes to the
    first of equal elements or slices.
    """
    have = input.array.layout
    a = None if dim is None else axis_of(dim, have.ndim, "unique")
    wanted: Any = mode.grad and input.requires_grad

    def different(v: Any) -> Any:
        if a is None or isinstance(v, np.ndarray):
            values, *rest = np.unique(v, wanted, return_inverse=True, return_counts=True, axis=a, equal_nan=False)
            return [values, *rest[1:], rest[0]] if wanted else [values, *rest]
        return _different_slices(v, a)          # CuPy compares two slices at a time
    found = _Found("unique()", input, different)
    results = [found.of(input, a)]
    if return_inverse:
        results.append(found.tensor(1, have.shape if a is None else (have.shape[a],)))
    if return_counts:
        results.append(found.tensor(2))
    return results[0] if len(results) == 1 else tuple(results)


def _different_slices(v: Any, a: int) -> list[Any]:
    """The different slices along `a` in lexicographic order, the indices that restore v from them, their numbers, and
    the places of the first of each."""
    rows = np.moveaxis(v, a, 0).reshape(v.shape[a], v.size // max(v.shape[a], 1))
    order = np.cumsum(np.ones_like(rows, np.int64, shape=rows.shape[:1])) - 1
    for column in reversed(range(rows.shape[1])):
        order = order[np.argsort(rows[order, column], kind="stable")]
    start, group, counts = _runs(rows[order])
    inverse = np.zeros_like(group)
    inverse[order] = group
    return [np.moveaxis(np.moveaxis(v, a, 0)[order[start]], 0, a), inverse, counts, order[start]]


def _runs(rows: Any) -> tuple[Any, Any, Any]:
    """Where each run of equal rows begins, the number of the run of each row, and the lengths of the runs."""
    if not len(rows):
        none = np.zeros_like(rows, np.int64, shape=(0,))
        return none, none, none
    new = np.ones_like(rows, bool, shape=(len(rows),))
    new[1:] = (rows[1:] != rows[:-1]).reshape(len(rows) - 1, rows.size // len(rows)).any(axis=1)
    start = np.flatnonzero(new)
    return start, np.cumsum(new) - 1, np.diff(start, append=len(rows))


def unique_consecutive(input: Tensor, return_inverse: bool = False, return_counts: bool = False,
                       dim: int | None = None) -> Any:
    """One element of each run of equal elements, or with `dim` one slice of each run of equal slices.

    Gives them alone, or in a tuple with what the options add: the indices that restore `input` from them
    (`return_inverse`), the lengths of the runs (`return_counts`). The gradient goes to the first of each run.
    """
    have = input.array.layout
    a = None if dim is None else axis_of(dim, have.ndim, "unique_consecutive")

    def runs(v: Any) -> list[Any]:
        rows = v.reshape(-1) if a is None else np.moveaxis(v, a, 0)
        start, group, counts = _runs(rows)
        return [rows[start] if a is None else np.moveaxis(rows[start], 0, a), group, counts, start]
    found = _Found("unique_consecutive()", input, runs)
    results = [found.of(input, a)]
    if return_inverse:
        results.append(found.tensor(1, have.shape if a is None else (have.shape[a],)))
    if return_counts:
        results.append(found.tensor(2))
    return results[0] if len(results) == 1 else tuple(results)


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each number 0, 1, ... occurs in a vector, or the sum of the weights at its places.

    Shapes: input (n,) integers, not negative; weights (n,) or None -> (max(largest number + 1, minlength),), int64
    without weights. Weights have a gradient.
    """
    have = input.array.layout
    if have.ndim != 1 or have.dtype.kind not in "iu":
        fail("bincount", "needs a vector of non-negative integers", have)
    if weights is not None and weights.array.layout.shape != have.shape:
        fail("bincount", "weights must have the shape of the input", [have, weights.array.layout])
    if minlength < 0:
        fail("bincount", "minlength must not be negative", minlength)

    def count(v: Any) -> list[Any]:
        if v.size and v.min() < 0:
            fail("bincount", "needs a vector of non-negative integers", f"{v.min()}")
        return [np.bincount(v, None, minlength).astype(np.int64)]
    # of a copy: NumPy checks the numbers before it counts, and another thread may write to shared memory in between
    counts = _Found("bincount()", input.detach().clone(), count).tensor(0)
    if weights is None:
        return counts
    sums = add_at(counts.shape, cast(weights, FLOAT64), cast(input, INT64), 0)
    return cast(sums, weights.dtype) if is_float(weights.dtype) else sums

work("argsort topk")


def _lines_rule(k: Any, host: Any) -> list[Launch]:
    """A thread for two items of a line, 8 if they are 4096; a block has several short lines. 10 bytes for an item."""
    lines, size = k.outer * k.inner, 1 << max(k.n - 1, 0).bit_length()
    threads = min(max(size // 2, 1), 512)
    together = min(max(256 // threads, 1), max(lines, 1))
    return [Launch("", (min(ceil_div(lines, together), BLOCKS),), (threads, together), 10 * size * together)]


launch("ops/sort.cu", "argsort topk", _lines_rule, half=True)
