"""Writing and reducing at places that an index names: `scatter_reduce`, `index_reduce`, `masked_scatter`, `index_put`,
`put`, `diagonal_scatter`, `as_strided`, `segment_reduce`. And the methods that change the shape of a tensor itself.

Read index.py first. `_numbers` is the trick of some: an index applied to the numbers of all elements says where in the
flattened tensor it points.
"""
from __future__ import annotations

import math
import operator
from builtins import any as any_of
from builtins import sum
from collections.abc import Callable, Iterator
from functools import partial, wraps
from math import prod
from typing import Any

import numpy as np

from ..core.inplace import base_of, involved, reshape
from ..core.modes import changed, mode
from ..core.op import Primitive
from ..core.shape import BOOL, INT64, broadcast_shapes, fail, is_float
from ..core.tensor import Size, Tensor
from ..devices.host import on_host
from ..devices.memory import Layout, View, contiguous_strides, layout, views_of
from ..devices.plan import Plan, host_plan
from .arguments import named, sizes
from .convert import cast, extreme_of
from .creation import as_tensor, empty
from .formula import formula, selection
from .index import each_row, getitem, index_rows, scatter, scatter_add, scattered
from .math import add, div, eq, floor_divide, isnan, logical_and, logical_or, mul, sub, where
from .reduce import any, cumsum
from .reduce import sum as sum_of
from .take import checked, gather_at, index_add_op, index_dtype, scatter_add_op, scatter_op, take_at
from .through import bind, planner, through
from .view import (
    as_expanded,
    as_reshaped,
    contiguous,
    permute,
    squeeze,
    swapaxes,
    swapdims,
    t,
    transpose,
    unsqueeze,
    view_op,
    zeros_on,
)
from .view import diagonal as diagonal_of

# ---- scatter_reduce --------------------------------------------------------------------------------------------------

def _host_scatter(name: str, pick: Callable[..., Any]) -> Callable[..., Plan]:
    """The `prepare` of a scatter that joins x and src by the NumPy function `pick(attrs)`, at the places of the index
    along a dimension."""
    def prepare(x: Layout, index: Layout, src: Layout, *, dim: int, largest: bool = True) -> Plan:
        if src.shape != index.shape or src.dtype != x.dtype or index.dtype != INT64:
            fail(name, "src must have the shape of index and the dtype of the tensor, index be int64", [x, index, src])

        @on_host                        # CuPy has no `multiply.at`
        def join(v: Any, at: Any, s: Any, out: Any) -> None:
            np.copyto(out, v)
            places = list(np.indices(at.shape, sparse=True))
            places[dim] = at
            pick(largest).at(out, tuple(places), s)
        return host_plan(layout(x.device, x.dtype, x.shape), join, f"{name}: NumPy", (x, index, src))
    return prepare


def _shares(g: Tensor, x: Tensor, index: Tensor, src: Tensor, out: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """g divided by how many elements are the extreme of a place, and which those of x and src are."""
    dtype, there = x.array.layout.dtype, gather_at(out, index, dim)
    of_x, of_src = [cast(logical_or(eq(a, b), logical_and(isnan(a), isnan(b))), dtype)         # NaNs are equal here
                    for a, b in ((x, out), (src, there))]
    return div(g, scatter_add_op(of_x, index, of_src, dim=dim)), of_x, of_src


def _extreme_vjp_x(g: Tensor, x: Tensor, index: Tensor, src: Tensor, out: Tensor, dim: int) -> Tensor:
    share, of_x, _ = _shares(g, x, index, src, out, dim)
    return mul(share, of_x)


def _extreme_vjp_src(g: Tensor, x: Tensor, index: Tensor, src: Tensor, out: Tensor, dim: int) -> Tensor:
    share, _, of_src = _shares(g, x, index, src, out, dim)
    return mul(gather_at(share, index, dim), of_src)


scatter_extreme = Primitive(
    "scatter_extreme", _host_scatter("scatter_reduce", lambda largest: np.maximum if largest else np.minimum),
    {"x": _extreme_vjp_x, "src": _extreme_vjp_src}, ["x", "index", "src"], attributes=["dim", "largest"],
    doc="The largest (or smallest) of x and of the elements of src for a place. Equal ones share the gradient.")


def _product_vjp_src(g: Tensor, x: Tensor, index: Tensor, src: Tensor, dim: int) -> Tensor:
    """g times the product of all other factors, as a function of them: those of src that are 0 or NaN are not divided
    by."""
    zero, one = logical_or(eq(src, 0), isnan(src)), _ones(tuple(x.shape), x)
    rest = scatter_prod(x, index, where(zero, 1.0, src), dim=dim)           # of the factors that are not 0
    zeros = scatter_prod(one, index, where(zero, src, 1.0), dim=dim)
    of_others = div(gather_at(mul(rest, zeros), index, dim), where(zero, 1.0, src))
    none = zeros_on(x.array.layout.shape, x.array.layout)
    count = gather_at(scatter_add_op(none, index, cast(zero, src.dtype), dim=dim), index, dim)
    total = gather_at(scatter_add_op(none, index, where(zero, src, 0.0), dim=dim), index, dim)
    other = where(eq(count, 1), 1.0, where(eq(count, 2), sub(total, src), 0.0))     # the product of the other zeros
    return mul(gather_at(g, index, dim), where(zero, mul(gather_at(rest, index, dim), other), of_others))


scatter_prod: Primitive = Primitive(
    "scatter_prod", _host_scatter("scatter_reduce", lambda largest: np.multiply),
    {"x": lambda g, x_shape, index, src, dim: mul(g, scatter_prod(_ones(x_shape, g), index, src, dim=dim)),
     "src": _product_vjp_src}, ["x", "index", "src"], attributes=["dim"],
    doc="x times the elements of src whose index names a place. Derivatives at zeros of src are right to order 2.")


def _ones(shape: tuple[int, ...], like: Tensor) -> Tensor:
    return through(as_expanded, as_tensor(1, like.dtype, like.device), shape)


def _neutral(reduce: str, dtype: np.dtype) -> Any:
    """What changes nothing in a reduction."""
    if reduce in ("sum", "mean"):
        return 0
    return 1 if reduce == "prod" else extreme_of(dtype, reduce == "amin")


def _check_reduce(op: str, reduce: str, known: tuple[str, ...]) -> None:
    if reduce not in known:
        fail(op, f"reduce must be one of {', '.join(known)}", repr(reduce))


@formula
def scatter_reduce(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *,
                   include_self: bool = True) -> Tensor:
    """A copy of `input` in which each place along `dim` that `index` names is reduced with all elements of `src` for
    it: for two dimensions and `dim` 0, out[index[i, j], j] = reduce(out[index[i, j], j], src[i, j]).

    reduce: "sum", "prod", "mean", "amax", "amin". Without `include_self` the value of `input` at such a place does not
    count. `index` and `src` are as in `scatter`. Of "amax" and "amin", equal elements share the gradient.

    >>> minigrad.zeros(2).scatter_reduce(0, minigrad.tensor([0, 1, 0]), minigrad.tensor([1., 2., 3.]), "sum").tolist()
    [4.0, 2.0]
    """
    _check_reduce("scatter_reduce", reduce, ("sum", "prod", "mean", "amax", "amin"))
    have = input.array.layout
    if not index_dtype("scatter_reduce", index).numel():
        return scatter_add(input, dim, index, src)
    base = input
    if not include_self:
        flags = through(as_expanded, as_tensor(False, device=input.device), have.shape)
        base = where(scatter(flags, dim, index, True), _neutral(reduce, have.dtype), input)
        base = cast(base, have.dtype)
    if reduce == "prod":
        return scattered("scatter_reduce", scatter_prod, base, dim, index, src)
    if reduce in ("amax", "amin"):
        joined = partial(scatter_extreme, largest=reduce == "amax")
        return scattered("scatter_reduce", joined, base, dim, index, src)       # type: ignore[arg-type]
    total = scatter_add(base, dim, index, src)
    if reduce == "sum":
        return total
    one = _ones(have.shape, input)
    itself = one if include_self else scatter(one, dim, index, 0)
    count = scatter_add(itself, dim, index, _ones(tuple(index.shape), one))
    return div(total, count) if is_float(have.dtype) else floor_divide(total, count)


@formula
def index_reduce(input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *,
                 include_self: bool = True) -> Tensor:
    """A copy of `input` in which each slice along `dim` that the vector `index` names is reduced with the slices of
    `source` for it: out[index[i]] = reduce(out[index[i]], source[i]) for `dim` 0.

    reduce: "prod", "mean", "amax", "amin". Other arguments as in `index_add`, `include_self` as in `scatter_reduce`.
    """
    _check_reduce("index_reduce", reduce, ("prod", "mean", "amax", "amin"))
    x, at, rows, a = index_rows("index_reduce", input, dim, index, source)
    index = each_row(at, a, rows.array.layout.shape)
    found = scatter_reduce(x, a, index, rows, reduce, include_self=include_self)
    return through(as_reshaped, found, input.array.layout.shape)


# ---- by a mask, by the numbers of elements ---------------------------------------------------------------------------

@selection
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """The elements of `source`, one after the other, where the bool tensor `mask` is true, else those of `input`.

    `input` and `mask` broadcast; `source` has `input`'s dtype and at least as many elements as the mask is true
    (RuntimeError).

    >>> masked_scatter(minigrad.zeros(3), minigrad.tensor([True, False, True]), minigrad.tensor([1.0, 2.0])).tolist()
    [1.0, 0.0, 2.0]
    """
    have, given = input.array.layout, source.array.layout
    if mask.array.layout.dtype != BOOL:
        fail("masked_scatter", "mask must be a bool tensor", mask.array.layout, "compare first")
    if given.dtype != have.dtype:
        fail("masked_scatter", "source must have the tensor's dtype", [have, given], "convert one of them")
    shape = broadcast_shapes("masked_scatter", have.shape, mask.array.layout.shape)
    x, yes = through(as_expanded, input, shape), through(as_expanded, mask, shape)
    if not given.size:
        if x.numel() and bool(any(yes)):
            fail("masked_scatter", "source needs an element for each True of the mask", given)
        return x.clone()
    order = sub(cumsum(cast(through(as_reshaped, yes, (x.numel(),)), INT64), 0), 1)
    at = where(through(as_reshaped, yes, (x.numel(),)), order, 0)
    at = checked("masked_scatter", at, given.size, 0, wrap=False, kind=RuntimeError)
    picked = take_at(through(as_reshaped, source, (given.size,)), at, 0, 1)
    return where(yes, through(as_reshaped, picked, shape), x)


def _numbers(x: Tensor) -> Tensor:
    """The numbers of all elements of x, in its shape."""
    have = x.array.layout
    return as_tensor(np.arange(have.size).reshape(have.shape), device=x.device)


def _written(op: str, x: Tensor, at: Tensor, values: Tensor, accumulate: bool) -> Tensor:
    """x with `values`, which broadcast, written (or added) at the flat positions `at`."""
    have, places = x.array.layout, at.array.layout
    if values.array.layout.dtype != have.dtype:
        fail(op, "the values must have the tensor's dtype", [have, values.array.layout], "convert one of them")
    if broadcast_shapes(op, values.array.layout.shape, places.shape) != places.shape:
        fail(op, "the values must broadcast to the shape of the places", [values.array.layout, places])
    flat = through(as_reshaped, x, (have.size,))
    given = through(as_reshaped, through(as_expanded, values, places.shape), (places.size,))
    at = through(as_reshaped, at, (places.size,))
    made = index_add_op(flat, at, given, axis=0, ndims=1) if accumulate else scatter_op(flat, at, given, dim=0)
    return through(as_reshaped, made, have.shape)


@formula
def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy of `input` with `values` written at input[indices], or with `accumulate` added there, as often as a place
    is named. `indices` is a tuple of index tensors (or None, for all of a dimension); `values` broadcast. IndexError if
    an index is out of range."""
    if not isinstance(indices, (tuple, list)):
        raise TypeError(f"[index_put] indices must be a tuple of tensors; got {type(indices).__name__}")
    key = tuple([slice(None) if i is None else i for i in indices])
    return _written("index_put", input, getitem(_numbers(input), key), values, bool(accumulate))


@formula
def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy of `input` with the elements of `source` written at the places in the flattened tensor that `index` names,
    or with `accumulate` added there. `source` has as many elements as `index`, and `input`'s dtype. Negative indices
    count from the end; IndexError if one is out of range."""
    at = checked("put", index_dtype("put", index), input.numel(), 0)
    if source.numel() != at.numel():
        fail("put", "source must have as many elements as index", [source.array.layout, at.array.layout])
    return _written("put", input, at, through(as_reshaped, source, at.array.layout.shape), bool(accumulate))


@selection
def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A copy of `input` with `src` written into a diagonal: the shape of `src` is that of `diagonal(input, offset,
    dim1, dim2)`."""
    at = diagonal_of(_numbers(input), offset, dim1, dim2)
    if src.array.layout.shape != at.array.layout.shape:
        fail("diagonal_scatter", "src must have the shape of the diagonal", [src.array.layout, at.array.layout])
    return _written("diagonal_scatter", input, at, cast(src, input.array.layout.dtype), False)


# ---- by strides ------------------------------------------------------------------------------------------------------

def _strided_rule(x: Layout, *, size: tuple[int, ...], stride: tuple[int, ...], offset: int) -> tuple[Layout, int]:
    """The elements at offset + sum of index * stride of a contiguous tensor."""
    if len(size) != len(stride) or any_of(n < 0 for n in (*size, *stride)):
        fail("as_strided", "size and stride must be as many numbers, not negative", [size, stride])
    if not x.contiguous:
        fail("as_strided", "the tensor must be contiguous", x, "use x.contiguous().as_strided(...)")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if offset < 0 or 0 not in size and last >= x.size:
        fail("as_strided", f"its elements lie from {offset} to {last}, outside the tensor", [x, size, stride])
    return layout(x.device, x.dtype, size, stride), offset


def _strided_vjp(g: Tensor, x_shape: tuple[int, ...], size: tuple[int, ...], stride: tuple[int, ...],
                 offset: int) -> Tensor:
    """The gradient of `as_strided`: added at the places that were read."""
    at = np.full(size, offset)
    for i, (n, s) in enumerate(zip(size, stride, strict=True)):
        at += (np.arange(n) * s).reshape(-1, *(1,) * (len(size) - 1 - i))
    none = zeros_on((prod(x_shape),), g.array.layout)
    places = as_tensor(at.reshape(-1), device=g.device)
    flat = index_add_op(none, places, through(as_reshaped, g, (at.size,)), axis=0, ndims=1)
    return through(as_reshaped, flat, x_shape)


_strided = view_op("as_strided", _strided_rule, _strided_vjp)
_strided.public = lambda x, **attrs: _strided(contiguous(x), **attrs)       # tests give it other layouts, too


@_strided.samples
def _strided_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5), {"size": (2, 3), "stride": (4, 2), "offset": 1}
    yield make(33), {"size": (4, 4), "stride": (2, 0), "offset": 0}


@_strided.errors
def _strided_errors(make: Any) -> Iterator[tuple]:
    yield (make(3, 5), {"size": (2, 3), "stride": (12, 2), "offset": 0}), RuntimeError, "outside the tensor"


@_strided.reference
def _strided_reference(x: Any, size: Any, stride: Any, offset: int) -> Any:
    bytes_of = [n * x.itemsize for n in stride]
    return np.lib.stride_tricks.as_strided(x.reshape(-1)[offset:], size, bytes_of)


@planner
def _strided_to(x: Layout, size: Any, stride: Any, offset: int) -> Plan:
    """Planner of `as_strided`."""
    return bind(_strided, x, size=sizes((size,), "as_strided"), stride=sizes((stride,), "as_strided"), offset=offset)


def _order(x: Layout) -> tuple[int, ...]:
    """The dimensions by their strides: so permuted, a tensor that fills its part of the memory is contiguous."""
    return tuple(sorted(range(x.ndim), key=lambda d: -x.strides[d]))


def _begin(x: Tensor) -> int:
    """The number of elements before the tensor in its memory, from where PyTorch counts: none in `vmap`, where an
    element of a batch is a tensor of its own."""
    a = x.array
    return (a.ptr - a.owner.ptr) // a.layout.dtype.itemsize if type(a) is View and not _mapped() else 0


def _mapped() -> bool:
    return getattr(mode.streams, "mapped", False)


def as_strided(input: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """A view of the tensor's memory: element (i, j, ...) is the one at storage_offset + i stride[0] + j stride[1] + ...
    of it, so that several may be one. RuntimeError where it would leave the tensor that this one is a view of; in a
    graph, where it would leave the tensor, or the tensor has gaps in memory.

    >>> minigrad.arange(4).as_strided((3, 2), (1, 1)).tolist()
    [[0, 1], [1, 2], [2, 3]]
    """
    if not isinstance(size, (tuple, list)) or not isinstance(stride, (tuple, list)):
        fail("as_strided", "size and stride must be tuples", [size, stride], "write (n,) for one number", TypeError)
    own, size, stride = _begin(input), sizes((size,), "as_strided"), sizes((stride,), "as_strided")
    offset = own if storage_offset is None else operator.index(storage_offset)
    x = input if input.array.layout.contiguous else permute(input, _order(input.array.layout))
    have = x.array.layout
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=False))
    if not (have.contiguous and own <= offset and last - own < have.size or mode.grad and input.requires_grad):
        base = None if _mapped() else base_of(input)
        if base is not None and base.array.layout.contiguous:
            x, own = base, _begin(base)
    return through(_strided_to, x, size, stride, offset - own)


def as_strided_copy(input: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """`as_strided`, as a copy: not a view."""
    return as_strided(input, size, stride, storage_offset).clone()


@selection
def as_strided_scatter(input: Tensor, src: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """A copy of `input` with `src`, of shape `size`, written where `as_strided` with these arguments reads.
    RuntimeError where that would leave the tensor."""
    offset = 0 if storage_offset is None else operator.index(storage_offset) - _begin(input)
    order = _order(input.array.layout)
    if not permute(input, order).array.layout.contiguous:
        fail("as_strided_scatter", "the tensor must fill its memory", input.array.layout, "use x.contiguous()")
    at = as_strided(contiguous(permute(_numbers(input), order)), size, stride, offset)
    if src.array.layout.shape != at.array.layout.shape:
        fail("as_strided_scatter", "src must have the shape size", [src.array.layout, at.array.layout])
    return _written("as_strided_scatter", input, at, cast(src, input.array.layout.dtype), False)


as_strided_scatter.op.public = lambda x, *rest: as_strided_scatter(         # tests give it other layouts, too
    contiguous(x) if isinstance(x, Tensor) else x, *rest)


@as_strided_scatter.samples
def _strided_scatter_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5), make(2, 3), (2, 3), (5, 2), 1


@as_strided_scatter.reference
def _strided_scatter_reference(x: Any, src: Any, size: Any, stride: Any, storage_offset: int) -> Any:
    found = np.array(x)
    _strided_reference(found, size, stride, storage_offset)[...] = src
    return found


# ---- by segments -----------------------------------------------------------------------------------------------------

def _segments(data: Layout, lengths: Any, offsets: Any, unsafe: bool) -> np.ndarray:
    """How many elements each segment has, int64 (rows, segments)."""
    given = lengths if offsets is None else offsets
    if (lengths is None) == (offsets is None) or not isinstance(given, Tensor) or given.dtype.kind != "i":
        fail("segment_reduce", "needs either lengths or offsets, an integer tensor", data)
    axis, counts = given.ndim - 1, given.detach().numpy(force=True)
    if axis < 0 or data.ndim <= axis or given.shape[:-1] != data.shape[:axis]:
        fail("segment_reduce", "lengths and offsets have the data's dimensions before the axis, and one",
             [given.layout, data])
    if lengths is None:
        at, counts = counts, np.diff(counts)
        if not at.shape[-1] or (at[..., 0] < 0).any() or (counts < 0).any() or (at[..., -1] > data.shape[axis]).any():
            fail("segment_reduce", "offsets must increase from at least 0 to at most the size of the axis", [at, data])
    sums = counts.sum(-1)
    if (counts < 0).any() or (sums > data.shape[axis]).any() or lengths is not None and not unsafe and (
            sums != data.shape[axis]).any():
        fail("segment_reduce", "lengths must not be negative, and must sum to the size of the axis", [counts, data])
    return counts.reshape(prod(counts.shape[:-1]), counts.shape[-1])


@formula
def segment_reduce(data: Tensor, reduce: str, *, lengths: Tensor | None = None, indices: Tensor | None = None,
                   offsets: Tensor | None = None, axis: int = 0, unsafe: bool = False,
                   initial: float | None = None) -> Tensor:
    """Each of the segments into which `data` falls along an axis, reduced by "sum", "mean", "max", "min" or "prod".

    Shapes: data (*lead, n, *rest), lengths (*lead, s), which sum to n, or offsets (*lead, s + 1), where each segment
    begins and the last ends -> (*lead, s, *rest). `axis` counts the dimensions of `lead`. A reduction begins with
    `initial`, by default with what changes nothing (the mean of no elements is NaN). Both are read by Python.
    """
    _check_reduce("segment_reduce", reduce, ("sum", "mean", "max", "min", "prod"))
    have = data.array.layout
    if indices is not None or not is_float(have.dtype):
        fail("segment_reduce", "data must be of floats, and indices None", have, kind=NotImplementedError)
    counts = _segments(have, lengths, offsets, unsafe)
    lead = (lengths if offsets is None else offsets).ndim - 1           # type: ignore[union-attr]
    if axis % max(have.ndim, 1) != lead:
        fail("segment_reduce", f"axis must be {lead}: the last dimension of lengths or offsets", axis)
    n, rows, s, rest = have.shape[lead], *counts.shape, prod(have.shape[lead + 1:])
    begin = offsets.numpy(force=True).reshape(rows, s + 1)[:, :1] if lengths is None else 0   # type: ignore[union-attr]
    ends, place = begin + counts.cumsum(1), np.arange(n)
    at = np.array([np.searchsorted(row, place, "right") for row in ends], int).reshape(rows, n)     # s: in none
    at = np.where(place < begin, s, at)
    index = through(as_expanded, as_tensor(at[..., None], device=data.device), (rows, n, rest))
    kind = {"max": "amax", "min": "amin", "mean": "sum"}.get(reduce, reduce)
    first = as_tensor(_neutral(kind, have.dtype) if initial is None else initial, have.dtype, data.device)
    base = through(as_expanded, first, (rows, s + 1, rest)).clone()
    found = scatter_reduce(base, 1, index, through(as_reshaped, data, (rows, n, rest)), kind)
    found = through(as_reshaped, getitem(found, (slice(None), slice(0, s))), (*have.shape[:lead], s,
                                                                              *have.shape[lead + 1:]))
    if not have.size:                                   # part of the graph, with a gradient of no elements
        found = add(found, sum_of(data))
    if reduce != "mean":
        return found
    empty_is = np.where(counts == 0, math.nan if initial is None else 1.0, np.maximum(counts, 1))
    shape = (*have.shape[:lead], s, *(1,) * (have.ndim - lead - 1))
    return div(found, as_tensor(empty_is.reshape(shape), have.dtype, data.device))


@segment_reduce.samples
def _segment_samples(make: Any) -> Iterator[tuple]:
    for reduce in ("sum", "mean", "max", "prod"):
        yield make(5, 3), reduce, {"lengths": as_tensor([2, 0, 3]), "initial": 1.0}
    yield make(2, 4), "min", {"offsets": as_tensor([[0, 1, 4], [0, 3, 3]]), "axis": 1, "initial": 1.0}


@segment_reduce.errors
def _segment_errors(make: Any) -> Iterator[tuple]:
    yield (make(5), "sum", {"lengths": as_tensor([2, 2])}), RuntimeError, "sum to the size of the axis"
    for offsets in ([3, 8], [-2, 2], [0, 3, 2], []):
        yield (make(5), "mean", {"offsets": as_tensor(offsets, np.int64)}), RuntimeError, "offsets must increase"
    yield (make(5), "sum", {}), RuntimeError, "either lengths or offsets"
    yield (make(5), "std", {"lengths": as_tensor([5])}), RuntimeError, "reduce must be one of"


@segment_reduce.reference
def _segment_reference(x: Any, reduce: str, initial: float, lengths: Any = None, offsets: Any = None,
                       axis: int = 0) -> Any:
    f: Any = {"sum": np.sum, "mean": np.sum, "max": np.max, "min": np.min, "prod": np.prod}[reduce]
    cuts = np.cumsum([0, *lengths.tolist()]) if offsets is None else offsets.numpy()

    def one(row: Any, at: Any) -> Any:
        parts = [row[a:b] for a, b in zip(at[:-1], at[1:], strict=True)]
        return [f(p, 0, initial=initial) / (max(len(p), 1) if reduce == "mean" else 1) for p in parts]
    return np.array([one(row, at) for row, at in zip(x, cuts, strict=True)] if axis else one(x, cuts))


def _prepare_nonzero(x: Layout, *, size: int, fill_value: int) -> Plan:
    """The first `size` indices of elements that are not 0, one row for each, int64; rows of `fill_value` if there are
    fewer."""
    @on_host
    def find(v: Any, out: Any) -> None:
        found = np.argwhere(v)[:size]
        out[...] = fill_value
        out[:len(found)] = found
    return host_plan(layout(x.device, INT64, (size, x.ndim)), find, "nonzero: NumPy", (x,), moves=True)


_nonzero = Primitive("nonzero_static", _prepare_nonzero)


def nonzero_static(input: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """`nonzero` with a size that is known before: the first `size` indices of elements that are not 0, and rows of
    `fill_value` if there are fewer. Shapes: (*) -> (size, dimensions), int64."""
    size = operator.index(size)
    if size < 0:
        fail("nonzero_static", "size must not be negative", size)
    return _nonzero(input.detach(), size=size, fill_value=operator.index(fill_value))


# ---- the shape of a tensor itself ------------------------------------------------------------------------------------

def _adopted(op: str, input: Tensor, made: Tensor) -> Tensor:
    """`input` with the array of `made`. RuntimeError for a tensor in a graph: others may be views of it."""
    if mode.grad and input.requires_grad:
        fail(op, "the shape of a tensor in a graph cannot be changed in place", input.array.layout,
             f"use x = x.{op.rstrip('_')}(...), or wrap it in `with no_grad()`")
    input.array = made.array
    changed()
    return input


def _reshaper(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The method that gives a tensor itself the shape that `function` gives."""
    @wraps(function)
    def method(input: Tensor, *args: Any, **options: Any) -> Tensor:
        op = f"{function.__name__}_"
        if mode.grad and (involved(input) or views_of(input.array.block)):
            return reshape(op, input, lambda old: function(old, *args, **options))      # type: ignore[no-any-return]
        return _adopted(op, input, function(input.detach(), *args, **options))
    method.__name__ = method.__qualname__ = f"{function.__name__}_"
    method.__doc__ = (f"`{function.__name__}` of the tensor itself, which is returned; the memory stays where it is. "
                      "RuntimeError for a leaf that requires gradients.")
    return method


def resize_(input: Tensor, *args: Any, memory_format: Any = None, **given: Any) -> Tensor:
    """Gives the tensor itself another size: `resize_(2, 3)` or `resize_((2, 3))`. The elements stay, in row-major
    order, those beyond the new size are cut off, and new ones are not initialised. RuntimeError for a tensor in a
    graph; NotImplementedError for a `memory_format`."""
    if memory_format is not None:
        raise NotImplementedError(f"[resize_] memory_format is not supported; got {memory_format!r}")
    shape = sizes(named(args, given, "size", "resize_"), "resize_")
    if shape == input.array.layout.shape:               # the strides stay, too
        return _adopted("resize_", input, input)
    old = input.detach().reshape(-1)
    made = empty(shape, dtype=input.dtype, device=input.device)
    n = min(old.numel(), made.numel())
    if n == old.numel() == made.numel():
        return _adopted("resize_", input, old.reshape(shape))
    if n:
        made.reshape(-1)[:n].copy_(old[:n])
    return _adopted("resize_", input, made)


def resize_as_(input: Tensor, the_template: Tensor, *, memory_format: Any = None) -> Tensor:
    """`resize_` to the size of another tensor."""
    return resize_(input, tuple(the_template.shape), memory_format=memory_format)


def set_(input: Tensor, source: Tensor | None = None, storage_offset: int = 0, size: Any = None,
         stride: Any = None) -> Tensor:
    """Gives the tensor itself the memory of `source`, of the same dtype: both share it from then on. With a `size` it
    sees that as `source.as_strided(size, stride, storage_offset)`, row-major without `stride`. Without a source it has
    no elements. RuntimeError for a tensor in a graph."""
    made = empty((0,), dtype=input.dtype, device=input.device) if source is None else source.detach()
    if made.dtype != input.dtype or made.device != input.device:
        fail("set_", "source must have the tensor's dtype and device", [input.array.layout, made.array.layout])
    if size is not None:
        made = as_strided(made, size, contiguous_strides(tuple(size)) if stride is None else stride, storage_offset)
    return _adopted("set_", input, made)


def new(input: Tensor, *data: Any, size: Any = None) -> Tensor:
    """PyTorch's legacy constructor, with the dtype and device of the tensor: `x.new(2, 3)` is not initialised,
    `x.new([1, 2])` has these values."""
    if size is not None:
        return empty(tuple(size), dtype=input.dtype, device=input.device)
    if len(data) == 1 and not isinstance(data[0], (int, Size)):
        return as_tensor(data[0], dtype=input.dtype, device=input.device).clone()
    return empty(*(data or (0,)), dtype=input.dtype, device=input.device)


METHODS: dict[str, Any] = {
    **{f"{f.__name__}_": _reshaper(f) for f in (unsqueeze, squeeze, t, transpose, swapaxes, swapdims, as_strided)},
    "resize_": resize_, "resize_as_": resize_as_, "set_": set_, "new": new}


# ---- samples ---------------------------------------------------------------------------------------------------------

def _scatter_samples(**attrs: Any) -> Callable[[Any], Iterator[tuple]]:
    def samples(make: Any) -> Iterator[tuple]:
        yield make(5, 3), make.ints(7, 3, high=5), make(7, 3, low=0.5), {"dim": 0, **attrs}
        yield make(2, 9), make.ints(2, 4, high=9), make(2, 4, low=0.5), {"dim": 1, **attrs}
    return samples


def _scatter_errors(make: Any) -> Iterator[tuple]:
    yield (make(5, 3), make.ints(2, 3, high=5), make(3, 3), {"dim": 0}), RuntimeError, "shape of index"


def _by_hand(join: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def reference(x: Any, index: Any, src: Any, *, dim: int, largest: bool = True) -> Any:
        out = x.copy()
        for place in np.ndindex(index.shape):
            to = (*place[:dim], index[place], *place[dim + 1:])
            out[to] = join(out[to], src[place]) if largest else min(out[to], src[place])
        return out
    return reference


scatter_extreme.samples(lambda make: (s for b in (True, False) for s in _scatter_samples(largest=b)(make)))
scatter_extreme.errors(lambda make: ((args[:3] + ({"dim": 0, "largest": True},), kind, text)
                                     for args, kind, text in _scatter_errors(make)))
scatter_extreme.reference(_by_hand(max))


@scatter_prod.samples
def _scatter_prod_samples(make: Any) -> Iterator[tuple]:
    yield from _scatter_samples()(make)
    zeros = as_tensor([0.0, 1.0, 0.0, 0.0, 2.0, 3.0], make.dtype, make.device)
    yield make(4), as_tensor([0, 0, 1, 1, 2, 3], device=make.device), mul(make(6, low=0.5), zeros), {"dim": 0}


scatter_prod.errors(_scatter_errors)
scatter_prod.reference(_by_hand(operator.mul))


@scatter_reduce.samples
def _scatter_reduce_samples(make: Any) -> Iterator[tuple]:
    for how in ("sum", "prod", "mean", "amax", "amin"):
        yield make(5, 3), 0, make.ints(4, 3, high=5), make(4, 3), how
        yield make(5, 3), 1, make.ints(4, 2, high=3), make(4, 2), how, {"include_self": False}
    yield make(), 0, make.ints(high=1), make(), "sum"


@scatter_reduce.errors
def _scatter_reduce_errors(make: Any) -> Iterator[tuple]:
    yield (make(3), 0, make.ints(2, high=3), make(2), "max", {}), RuntimeError, "reduce must be one of"
    yield (make(3), 0, make.ints(2, high=3), make(1), "amax", {}), RuntimeError, "larger than src"


@scatter_reduce.reference
def _scatter_reduce_reference(x: Any, dim: int, index: Any, src: Any, reduce: str, include_self: bool = True) -> Any:
    join: Any = {"sum": np.sum, "prod": np.prod, "mean": np.mean, "amax": np.max, "amin": np.min}[reduce]
    if not x.ndim:
        return join([x, src])
    found: dict[tuple, list] = {}
    for place in np.ndindex(index.shape):
        to = (*place[:dim], int(index[place]), *place[dim + 1:])
        found.setdefault(to, [x[to]] if include_self else []).append(src[place])
    out = x.copy()
    for to, values in found.items():
        out[to] = join(values)
    return out


@index_reduce.samples
def _index_reduce_samples(make: Any) -> Iterator[tuple]:
    for how in ("prod", "mean", "amax", "amin"):
        yield make(5, 3), 0, make.ints(4, high=5), make(4, 3), how
        yield make(5, 3), 1, make.ints(2, high=3), make(5, 2), how, {"include_self": False}


@index_reduce.errors
def _index_reduce_errors(make: Any) -> Iterator[tuple]:
    yield (make(3), 0, make.ints(2, high=3), make(2), "sum", {}), RuntimeError, "reduce must be one of"


@index_reduce.reference
def _index_reduce_reference(x: Any, dim: int, index: Any, source: Any, reduce: str, include_self: bool = True) -> Any:
    wide = np.broadcast_to(np.expand_dims(index, [i for i in range(x.ndim) if i != dim]), source.shape)
    return _scatter_reduce_reference(x, dim, wide, source, reduce, include_self)


@masked_scatter.samples
def _masked_scatter_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5), make.bools(3, 5), make(4, 4)
    yield make(5), make.bools(3, 5), make(15)
    yield make(0, 3), make.bools(3), make(0)


@masked_scatter.errors
def _masked_scatter_errors(make: Any) -> Iterator[tuple]:
    yield (make(3), make(3), make(3), {}), RuntimeError, "bool"
    yield (make(3), make.bools(3), make.ints(3), {}), RuntimeError, "dtype"
    yield (make(9), eq(mul(make(9), 0.0), 0.0), make(4), {}), RuntimeError, "out of range"


@masked_scatter.reference
def _masked_scatter_reference(x: Any, mask: Any, source: Any) -> Any:
    x, mask = np.broadcast_arrays(x, mask)
    out = x.copy()
    out[mask] = source.reshape(-1)[:mask.sum()]
    return out


@index_put.samples
def _index_put_samples(make: Any) -> Iterator[tuple]:
    yield make(5, 3), (make.ints(4, high=5), make.ints(4, high=3)), make(4), True
    yield make(5, 3), (as_tensor([0, 3], device=make.device),), make(2, 3)
    yield make(5, 3), (None, as_tensor([2], device=make.device)), make()


@index_put.errors
def _index_put_errors(make: Any) -> Iterator[tuple]:
    yield (make(3), (make.ints(2, high=3),), make(3), {}), RuntimeError, "broadcast"
    yield (make(3), make.ints(2, high=3), make(2), {}), TypeError, "tuple of tensors"


@index_put.reference
def _index_put_reference(x: Any, indices: Any, values: Any, accumulate: bool = False) -> Any:
    out = x.copy()
    key: Any = tuple([slice(None) if i is None else i.numpy() for i in indices])
    if accumulate:
        np.add.at(out, key, values)
    else:
        out[key] = values
    return out


@put.samples
def _put_samples(make: Any) -> Iterator[tuple]:
    yield make(5, 3), make.ints(2, 3, low=-15, high=15), make(6), True
    yield make(5, 3), as_tensor([0, -1, 4], device=make.device), make(3)


@put.errors
def _put_errors(make: Any) -> Iterator[tuple]:
    yield (make(3), make.ints(2, high=3), make(3), {}), RuntimeError, "as many elements"
    yield (make(3), make.ints(2, low=5, high=9), make(2), {}), IndexError, "out of range"


@put.reference
def _put_reference(x: Any, index: Any, source: Any, accumulate: bool = False) -> Any:
    out = x.reshape(-1).copy()
    if accumulate:
        np.add.at(out, index.reshape(-1), source.reshape(-1))
    else:
        out[index.reshape(-1)] = source.reshape(-1)
    return out.reshape(x.shape)


@diagonal_scatter.samples
def _diagonal_scatter_samples(make: Any) -> Iterator[tuple]:
    yield make(4, 4), make(4)
    yield make(3, 4, 5), make(4, 2), -1, 0, 2


@diagonal_scatter.errors
def _diagonal_scatter_errors(make: Any) -> Iterator[tuple]:
    yield (make(4, 4), make(3), {}), RuntimeError, "shape of the diagonal"


@diagonal_scatter.reference
def _diagonal_scatter_reference(x: Any, src: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    out = x.copy()
    moved = np.moveaxis(out, (dim1, dim2), (-2, -1))
    i = np.arange(src.shape[-1])
    moved[..., i - min(offset, 0), i + max(offset, 0)] = src
    return out


@_nonzero.samples
def _nonzero_samples(make: Any) -> Iterator[tuple]:
    yield make.ints(3, 4, high=2), {"size": 5, "fill_value": -1}
    yield make.ints(3, high=2), {"size": 9, "fill_value": 7}


@_nonzero.reference
def _nonzero_reference(x: Any, *, size: int, fill_value: int) -> Any:
    rows = [list(at) for at in np.ndindex(x.shape) if x[at]]
    return np.array((rows + [[fill_value] * x.ndim] * size)[:size], np.int64).reshape(size, x.ndim)
