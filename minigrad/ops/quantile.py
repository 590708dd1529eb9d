"""Order statistics and counts: median, quantiles, mode; histograms, and the search in sorted numbers.

What is an index or a count comes from primitives without a derivative; values are gathered by these indices.
"""
from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core.op import Primitive, same_device
from ..core.out import writes
from ..core.shape import INT64, axis_of, fail, is_float
from ..core.tensor import Tensor, ValuesIndices
from ..devices.host import on_host, on_host_if_bfloat16
from ..devices.memory import Layout, layout
from ..devices.plan import Plan, host_plan
from .convert import cast
from .creation import as_tensor, number
from .formula import formula, lerp
from .math import add, ceil, copy, eq, floor, isinf, isnan, logical_and, logical_or, mul, ne, rint, sub, where
from .reduce import amax, sum
from .sort import argsort, sort
from .take import gather_at, reads_to_host
from .through import through
from .view import as_moved, as_reshaped

_INT32 = np.dtype("int32")


# ---- median ----------------------------------------------------------------------------------------------------------

def _middle(x: Tensor, a: int, nans: bool) -> Tensor:
    """The indices along an axis, which stays with size 1, of the lower median: of a NaN, if there is one and they count
    (`nans`); else of the elements that are none."""
    n = x.array.layout.shape[a]
    if n == 0:
        raise IndexError(f"[median] dimension {a} must not be empty; got {x.array.layout}")
    order = argsort(x, a)
    missing = sum(isnan(x), a, True)                                # NaN is sorted to the end
    if nans:
        at = where(eq(missing, 0), (n - 1) // 2, sub(n, missing))
    else:
        at = where(eq(missing, n), 0, sub(n - 1, missing).div(2, rounding_mode="floor"))
    return gather_at(order, at, a)


def _median(name: str, input: Tensor, dim: Any, keepdim: bool, nans: bool) -> Any:
    have = input.array.layout
    if dim is not None:
        a = axis_of(dim, have.ndim, name)
        if not have.ndim:
            return ValuesIndices(copy.call(input), as_tensor(0, device=input.device))
        at = _middle(input.detach(), a, nans)                       # an index has no derivative
        values = gather_at(input, at, a)
        if keepdim:
            return ValuesIndices(values, at)
        shape = have.shape[:a] + have.shape[a + 1:]
        return ValuesIndices(through(as_reshaped, values, shape), through(as_reshaped, at, shape))
    flat = through(as_reshaped, input, (have.size,))
    if not have.size:
        return as_tensor(math.nan, have.dtype, input.device)
    whole = flat.detach()
    middle = gather_at(whole, _middle(whole, 0, nans), 0)
    chosen = logical_or(eq(whole, middle), logical_and(isnan(whole), isnan(middle)))
    middle = through(as_reshaped, middle, ())
    if is_float(have.dtype):                                        # equal elements share the gradient, as amax does it
        sign = cast(where(eq(middle, -math.inf), -1.0, 1.0), have.dtype)        # the others must not equal -inf, too
        return mul(amax(mul(where(chosen, flat, mul(sign, -math.inf)), sign)), sign)
    return middle


@writes("apart")
@formula
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The middle element: the lower one of two. NaN if there is one (`nanmedian` leaves them out).

    `median(x)` is a 0-d tensor, of which equal elements share the gradient; `median(x, dim)` gives (values, indices)
    along one axis, which stays with size 1 under `keepdim`. IndexError for an empty axis.

    >>> median(minigrad.tensor([3.0, 1.0, 2.0, 4.0])).item()
    2.0
    """
    return _median("median", input, dim, keepdim, True)


@writes("apart")
@formula
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """`median` of the elements that are not NaN; NaN if there are none."""
    return _median("nanmedian", input, dim, keepdim, False)


# ---- quantiles -------------------------------------------------------------------------------------------------------

_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def _ranks(name: str, input: Tensor, q: Any) -> Tensor:
    """The probabilities as a tensor of the input's dtype, checked."""
    have = input.array.layout
    if not is_float(have.dtype):
        fail(name, "needs a floating-point tensor", have, "convert with .float()")
    if not isinstance(q, Tensor):
        if not 0 <= q <= 1:
            fail(name, "q must lie between 0 and 1", q)
        return as_tensor(float(q), have.dtype, input.device)
    if q.array.layout.ndim > 1 or q.array.layout.dtype != have.dtype:
        fail(name, "q must be a number or a vector, of the input's dtype", [have, q.array.layout])
    reads_to_host(f"{name}() with a tensor q")
    if q.numel() and not builtins.bool(logical_and(q >= 0, q <= 1).all()):
        fail(name, "q must lie between 0 and 1", q.tolist())
    return q


def _between(below: Tensor, above: Tensor, share: Tensor) -> Tensor:
    """The number at a share of the way from one to the other; beside an infinite one, infinite."""
    odd = logical_or(isinf(below), isinf(above))
    finite = lerp(where(odd, 0.0, below), where(odd, 0.0, above), share)
    mixed = add(mul(below, sub(1.0, share)), mul(above, share))
    return where(odd, where(eq(below, above), below, mixed), finite)


def _quantile(name: str, input: Tensor, q: Any, dim: Any, keepdim: bool, interpolation: str, nans: bool) -> Tensor:
    at, have = _ranks(name, input, q), input.array.layout
    if interpolation not in _INTERPOLATIONS:
        fail(name, f"interpolation must be one of {', '.join(_INTERPOLATIONS)}", repr(interpolation))
    if not have.size:
        fail(name, "needs at least one element", have)
    a = None if dim is None else axis_of(dim, have.ndim, name)
    flat = through(as_reshaped, input, (have.size,)) if a is None or not have.ndim else through(as_moved, input, a, -1)
    lead, n = flat.array.layout.shape[:-1], flat.array.layout.shape[-1]
    line = sort(flat, -1).values
    missing = sum(isnan(flat), -1, True)
    at = through(as_reshaped, at, (at.numel(),))
    rank = mul(at, n - 1.0) if nans else mul(at, where(eq(missing, n), 0.0, cast(sub(n - 1, missing), have.dtype)))
    if nans:
        rank = where(ne(missing, 0), n - 1.0, rank)                 # there is the NaN
    rank = rank.expand(*lead, at.numel())
    low, high = floor(rank), ceil(rank)
    if interpolation == "lower":
        high = low
    elif interpolation == "higher":
        low = high
    elif interpolation == "nearest":
        low = high = rint(rank)
    below = gather_at(line, cast(low, INT64), len(lead))
    if interpolation in ("linear", "midpoint"):
        share = sub(rank, low) if interpolation == "linear" else mul(sub(high, low), 0.5)
        below = _between(below, gather_at(line, cast(high, INT64), len(lead)), share)
    found = through(as_moved, below, -1, 0)
    kept = () if not keepdim else (1,) * have.ndim if a is None else (*lead[:a], 1, *lead[a:]) if have.ndim else ()
    shape = kept if keepdim else lead
    vector = isinstance(q, Tensor) and q.array.layout.ndim
    return through(as_reshaped, found, (*((at.numel(),) if vector else ()), *shape))


@formula
def quantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
             interpolation: str = "linear") -> Tensor:
    """The element at rank q (n - 1) of n sorted elements, along `dim` or (None) of all; NaN where there is one.

    q is a number from 0 to 1, or a vector of them, of the input's dtype: the result then has its dimension first.
    Between two elements `interpolation` says what is taken: "linear", "lower", "higher", "midpoint", "nearest"
    (Hyndman and Fan 1996, definition 7).

    >>> quantile(minigrad.tensor([1.0, 2.0, 4.0]), 0.75).item()
    3.0
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation, True)


@formula
def nanquantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
                interpolation: str = "linear") -> Tensor:
    """`quantile` of the elements that are not NaN; NaN if there are none."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, False)


# ---- mode ------------------------------------------------------------------------------------------------------------

def _prepare_mode(x: Layout, *, dim: int) -> Plan:
    """The index, int64, of the last of the most frequent elements along a dimension, which stays with size 1; of
    several such elements, of the smallest."""
    @on_host                            # CuPy has no `maximum.accumulate`
    def most_frequent(v: Any, out: Any) -> None:
        line = np.moveaxis(v, dim, -1)
        order = np.argsort(line, -1, kind="stable")
        ordered = np.take_along_axis(line, order, -1)
        place = np.arange(line.shape[-1])
        begins = np.ones(line.shape, bool)
        begins[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
        length = place - np.maximum.accumulate(np.where(begins, place, 0), -1)
        best = np.argmax(length, -1)[..., None]
        out[...] = np.moveaxis(np.take_along_axis(order, best, -1), -1, dim)
    shape = (*x.shape[:dim], 1, *x.shape[dim + 1:])
    return host_plan(layout(x.device, INT64, shape), most_frequent, "mode: NumPy", (x,), moves=True)


_mode = Primitive("mode", _prepare_mode)


@_mode.samples
def _mode_samples(make: Any) -> Iterator[tuple]:
    yield make.ints(4, 33, high=5), {"dim": 1}
    yield make.ints(33, 2, high=5), {"dim": 0}
    yield make(3, 1), {"dim": 1}


@_mode.reference
def _mode_reference(x: Any, *, dim: int) -> Any:
    def of_line(line: Any) -> Any:
        values, counts = np.unique(line, return_counts=True)
        return np.flatnonzero(line == values[np.argmax(counts)])[-1:]
    return np.apply_along_axis(of_line, dim, x)


@writes("apart")
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
    """(values, indices) of the most frequent element along `dim`: the smallest of several, at its last place.

    Shapes: input any -> both without `dim`, or with size 1 there under `keepdim`. The gradient reaches that element.
    """
    have = input.array.layout
    a = axis_of(dim, have.ndim, "mode")
    if not have.ndim:
        return ValuesIndices(copy.call(input), as_tensor(0, device=input.device))
    if not have.shape[a]:
        raise IndexError(f"[mode] dimension {a} must not be empty; got {have}")
    at = _mode(input.detach(), dim=a)               # an index has no derivative
    values = gather_at(input, at, a)
    if keepdim:
        return ValuesIndices(values, at)
    shape = have.shape[:a] + have.shape[a + 1:]
    return ValuesIndices(through(as_reshaped, values, shape), through(as_reshaped, at, shape))


# ---- search ----------------------------------------------------------------------------------------------------------

def _prepare_search(sequence: Layout, values: Layout, *, right: bool) -> Plan:
    """Where each of `values` is to be put into a sorted sequence, int64: before equal elements, or after (`right`)."""
    same_device("searchsorted", (sequence, values))
    if sequence.ndim != 1 and sequence.shape[:-1] != values.shape[:-1]:
        fail("searchsorted", "the sequence must be a vector, or have the values' sizes but for the last one",
             [sequence, values])
    side: Any = "right" if right else "left"

    def search(s: Any, v: Any, out: Any) -> None:
        if s.ndim == 1:
            out[...] = np.searchsorted(s, v, side)
        else:
            for row in np.ndindex(s.shape[:-1]):
                out[row] = np.searchsorted(s[row], v[row], side)
    out = layout(values.device, INT64, values.shape)
    run = on_host_if_bfloat16(search, sequence, values)
    return host_plan(out, run, "search: NumPy", (sequence, values), moves=True)


_search = Primitive("search", _prepare_search)


@_search.samples
def _search_samples(make: Any) -> Iterator[tuple]:
    yield make.ints(33, high=9).sort().values, make.ints(3, 5, high=9), {"right": False}
    yield make.ints(2, 9, high=9).sort(-1).values, make.ints(2, 5, high=9), {"right": True}


@_search.errors
def _search_errors(make: Any) -> Iterator[tuple]:
    yield (make(2, 3), make(3, 3), {"right": False}), RuntimeError, "must be a vector"


@_search.reference
def _search_reference(sequence: Any, values: Any, *, right: bool) -> Any:
    out = np.zeros(values.shape, np.int64)
    for at in np.ndindex(values.shape):
        line = sequence if sequence.ndim == 1 else sequence[at[:-1]]
        out[at] = np.sum(line <= values[at] if right else line < values[at])
    return out


def searchsorted(sorted_sequence: Tensor, input: Any, *, out_int32: bool = False, right: bool = False,
                 side: str | None = None, sorter: Tensor | None = None) -> Tensor:
    """Where each number of `input` is to be put into a sorted sequence so that it stays sorted: before elements that
    are equal, or after them with `right` (or side="right").

    Shapes: a sequence (n,) with any input, or (*, n) with (*, m) -> like input, int64, or int32 with `out_int32`.
    `sorter`: indices that sort the sequence. `input` may be a number.
    """
    if side not in (None, "left", "right"):
        fail("searchsorted", "side must be 'left' or 'right'", repr(side))
    if side == "left" and right:
        fail("searchsorted", "side and right must not contradict each other", f"side {side}, right {right}")
    have = sorted_sequence.array.layout
    if not isinstance(input, Tensor):
        input = as_tensor(input, device=sorted_sequence.device)
        if have.ndim != 1:
            fail("searchsorted", "a number goes with a vector", have)
    if not have.ndim:
        fail("searchsorted", "the sequence needs at least one dimension", have)
    if sorter is not None:
        if sorter.array.layout.shape != have.shape or sorter.array.layout.dtype != INT64:
            fail("searchsorted", "sorter must be int64 indices like the sequence", [have, sorter.array.layout])
        sorted_sequence = sorted_sequence.gather(-1, sorter)
    found = _search(sorted_sequence.detach(), input.detach(), right=builtins.bool(right) or side == "right")
    return cast(found, _INT32) if out_int32 else found


def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """The number of the interval between sorted `boundaries` (n,) in which each number lies: i where boundaries[i - 1]
    < x <= boundaries[i], or with `right` <= and <. Shapes: like input, int64 or (`out_int32`) int32."""
    if boundaries.array.layout.ndim != 1:
        fail("bucketize", "boundaries must be a vector", boundaries.array.layout)
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


def _prepare_isin(elements: Layout, test: Layout) -> Plan:
    """Is each element one of `test`? A bool tensor."""
    same_device("isin", (elements, test))

    def among(v: Any, t: Any, out: Any) -> None:
        out[...] = np.isin(v, t)
    run = on_host_if_bfloat16(among, elements, test)
    return host_plan(layout(elements.device, np.dtype(builtins.bool), elements.shape), run, "isin: NumPy",
                     (elements, test), moves=True)


_isin = Primitive("isin", _prepare_isin)


@_isin.samples
def _isin_samples(make: Any) -> Iterator[tuple]:
    yield make.ints(3, 33, high=9), make.ints(4, high=9)
    yield make.ints(0, high=9), make.ints(2, 2, high=9)


_isin.reference(lambda v, t: (v[..., None] == t.reshape(-1)).any(-1))


def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Is each of `elements` among `test_elements`? A bool tensor like `elements`; with `invert` the opposite. One of
    the two may be a number. `assume_unique` is there for PyTorch's signature."""
    given = [t for t in (elements, test_elements) if isinstance(t, Tensor)]
    if not given:
        raise TypeError("[isin] one argument must be a Tensor; got two numbers")
    a, b = (t.detach() if isinstance(t, Tensor) else as_tensor(t, device=given[0].device)
            for t in (elements, test_elements))
    found = _isin(a, b)
    return ~found if invert else found


# ---- histograms ------------------------------------------------------------------------------------------------------

class Histogram(NamedTuple):
    """What `histogram` returns."""

    hist: Tensor
    bin_edges: Tensor


class HistogramDD(NamedTuple):
    """What `histogramdd` returns."""

    hist: Tensor
    bin_edges: tuple[Tensor, ...]


def _span(v: Any, low: float, high: float) -> tuple[float, float]:
    """The range of a histogram: the one given, or that of the values if it is empty."""
    if low == high and v.size:
        low, high = float(v.min()), float(v.max())
    if low == high:
        low, high = low - 1, high + 1
    if not (math.isfinite(low) and math.isfinite(high)):
        fail("histc", "the range must be finite", [low, high])
    return low, high


def _prepare_histc(x: Layout, *, bins: int, low: float, high: float) -> Plan:
    """How many elements lie in each of `bins` intervals of one width between low and high, in x's dtype."""
    @on_host                            # CuPy rounds the edges otherwise
    def count(v: Any, out: Any) -> None:
        out[...] = np.histogram(v, bins, _span(v, low, high))[0]
    return host_plan(layout(x.device, x.dtype, (bins,)), count, "histogram: NumPy", (x,))


_histc = Primitive("histc", _prepare_histc)


@_histc.samples
def _histc_samples(make: Any) -> Iterator[tuple]:
    yield make(5, 33), {"bins": 7, "low": -1.0, "high": 1.5}
    yield make(40), {"bins": 4, "low": 0.0, "high": 0.0}


_histc.reference(lambda x, *, bins, low, high: np.array([
    ((x >= a) & ((x < b) if i < bins - 1 else (x <= b))).sum(dtype=float)
    for edges in [np.linspace(*((low, high) if low < high else (x.min(), x.max())), bins + 1)]
    for i, (a, b) in enumerate(zip(edges, edges[1:], strict=False))]))


def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements lie in each of `bins` intervals of one width between `min` and `max`: (bins,), in the input's
    dtype. If both are equal, the range of the elements counts. Elements outside are left out. No gradient."""
    have = input.array.layout
    if not is_float(have.dtype):
        fail("histc", "needs a floating-point tensor", have, "convert with .float()")
    bins, low, high = operator.index(bins), *[float(number("histc", "a bound", v)) for v in (min, max)]
    if bins < 1 or low > high:
        fail("histc", "bins must be positive, and min not above max", [f"bins {bins}", low, high])
    return _histc(input.detach(), bins=bins, low=low, high=high)


def _counts(x: Tensor, edges: Sequence[Tensor], weight: Tensor | None, density: bool) -> Tensor:
    """The weights (or the number) of points x (n, d) in each cell of a grid: the outermost edges belong to it."""
    index: Any = None
    inside: Any = None
    for i, edge in enumerate(edges):
        column, n = x[:, i], edge.array.layout.shape[0] - 1
        at = sub(_search(edge, column, right=True), 1)
        at = where(eq(column, edge[-1]), n - 1, at)
        fits = logical_and(at >= 0, at < n)
        at = at.clamp(0, builtins.max(n - 1, 0))
        index = at if index is None else add(mul(index, n), at)
        inside = fits if inside is None else logical_and(inside, fits)
    shape = tuple([e.array.layout.shape[0] - 1 for e in edges])
    one = cast(inside, x.dtype)
    hist = x.new_zeros(math.prod(shape)).index_add(0, index, one if weight is None else mul(one, weight)).reshape(shape)
    if density:
        hist = hist / hist.sum()
        for i, edge in enumerate(edges):
            hist = hist / (edge[1:] - edge[:-1]).reshape(-1, *(1,) * (len(shape) - 1 - i))
    return hist


def _edges(op: str, x: Tensor, bins: Any, range: Sequence[float] | None) -> Tensor:
    """The bins + 1 edges over `range`, or over the values of a vector; or the edges given."""
    if isinstance(bins, Tensor):
        if bins.array.layout.ndim != 1 or bins.array.layout.dtype != x.array.layout.dtype:
            fail(op, "edges must be a vector of the input's dtype", [x.array.layout, bins.array.layout])
        if not bins.array.layout.size:
            fail(op, "needs at least one edge", bins.array.layout)
        return bins
    if operator.index(bins) < 1:
        fail(op, "the number of bins must be positive", bins)
    if range is None:
        reads_to_host(op)
        low, high = (float(x.min()), float(x.max())) if x.numel() else (0.0, 1.0)
    else:
        low, high = map(float, range)
    if low == high:
        low, high = low - 0.5, high + 0.5
    if not low < high or not (math.isfinite(low) and math.isfinite(high)):
        fail(op, "the range must be finite, its start below its end", [low, high])
    return as_tensor(np.linspace(low, high, bins + 1), x.dtype, x.device)


def histogram(input: Tensor, bins: Any, *, range: Sequence[float] | None = None, weight: Tensor | None = None,
              density: bool = False) -> Histogram:
    """(hist, bin_edges): how many elements lie in each interval, or the sum of their weights; with `density` divided by
    the total and the widths, so that the integral is 1.

    `bins`: a number of intervals of one width over `range` (by default that of the elements), or a vector of edges. An
    interval holds its lower edge, the last one both. Elements outside are left out. The weights have a gradient.
    """
    have = input.array.layout
    if not is_float(have.dtype):
        fail("histogram", "needs a floating-point tensor", have, "convert with .float()")
    if weight is not None and (weight.array.layout.shape != have.shape or weight.array.layout.dtype != have.dtype):
        fail("histogram", "weight must have the input's shape and dtype", [have, weight.array.layout])
    flat = input.detach().reshape(-1, 1)
    edges = _edges("histogram", flat, bins, range).detach().clone()
    return Histogram(_counts(flat, [edges], None if weight is None else weight.reshape(-1), density), edges)


def histogramdd(input: Tensor, bins: Any, *, range: Sequence[float] | None = None, weight: Tensor | None = None,
                density: bool = False) -> HistogramDD:
    """(hist, bin_edges): the points of d dimensions in each cell of a grid. Shapes: input (*, d), weight (*) or None ->
    hist of d dimensions, d vectors of edges. `bins`: a number for all dimensions, or one (or a vector of edges) for
    each; `range`: a start and an end for each dimension, flat. Otherwise as `histogram`."""
    have = input.array.layout
    if have.ndim < 2 or not is_float(have.dtype):
        fail("histogramdd", "input must be floating point, of at least two dimensions (*, d)", have)
    d, flat = have.shape[-1], input.detach().reshape(-1, have.shape[-1])
    each = list(bins) if isinstance(bins, (tuple, list)) else [bins] * d
    if len(each) != d or range is not None and len(range) != 2 * d:
        fail("histogramdd", f"needs bins, and two ends of a range, for each of {d} dimensions", [each, range])
    if weight is not None and (weight.array.layout.shape != have.shape[:-1] or weight.array.layout.dtype != have.dtype):
        fail("histogramdd", "weight must have the input's shape but the last dimension, and its dtype",
             [have, weight.array.layout])
    edges = [_edges("histogramdd", flat[:, i], b, None if range is None else range[2 * i:2 * i + 2]).detach().clone()
             for i, b in enumerate(each)]
    found = _counts(flat, edges, None if weight is None else weight.reshape(-1), density)
    return HistogramDD(found, tuple(edges))


# ---- samples ---------------------------------------------------------------------------------------------------------

def _median_samples(make: Any) -> Iterator[tuple]:
    yield make(4, 33),
    yield make(4, 6), {"dim": 1}
    yield make(5, 3), {"dim": 0, "keepdim": True}
    yield make(7),
    yield make(), {"dim": 0}


def _median_reference(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    if dim is None or not x.ndim:
        return np.sort(x.reshape(-1))[(x.size - 1) // 2]
    at = np.take(np.argsort(x, dim), [(x.shape[dim] - 1) // 2], dim)
    values = np.take_along_axis(x, at, dim)
    return (values, at) if keepdim else (values.squeeze(dim), at.squeeze(dim))


def _median_errors(make: Any) -> Iterator[tuple]:
    yield (make(3, 0), {"dim": 1}), IndexError, "must not be empty"
    yield (make(3), {"dim": 2}), IndexError, "dim out of range"


def _quantile_samples(make: Any) -> Iterator[tuple]:
    yield make(4, 33), 0.3
    for how in _INTERPOLATIONS:
        yield make(4, 6), 0.35, {"dim": 1, "interpolation": how}
    yield make(5, 3), make(4, low=0.1, high=0.9), 0, True


def _quantile_errors(make: Any) -> Iterator[tuple]:
    yield (make(3), 1.5, {}), RuntimeError, "between 0 and 1"
    yield (make.ints(3), 0.5, {}), RuntimeError, "floating-point"
    yield (make(3), 0.5, {"interpolation": "x"}), RuntimeError, "interpolation must be"
    yield (make(0), 0.5, {}), RuntimeError, "at least one element"


def _quantile_reference(x: Any, q: Any, dim: Any = None, keepdim: bool = False, interpolation: Any = "linear") -> Any:
    return np.quantile(x, q, dim, method=interpolation, keepdims=keepdim)


for _f in (median, nanmedian):
    _f.samples(_median_samples)
    _f.errors(_median_errors)
    _f.reference(_median_reference)
for _f in (quantile, nanquantile):
    _f.samples(_quantile_samples)
    _f.errors(_quantile_errors)
    _f.reference(_quantile_reference)
