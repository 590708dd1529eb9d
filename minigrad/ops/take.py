"""Gather and scatter: the primitives that take elements by an index tensor, and the checks of such indices.

* `take` and its gradient `index_add`: one index for a block of elements (a row, a slice along a dimension);
* `gather` and its gradient `scatter_add`: one index for each element along a dimension;
* `scatter` writes where `scatter_add` adds; `replace` writes a tensor into a window (basic indexing) of another.

Kernels do not check indices, so `checked` does, before they run. On the CPU the error comes at once; while a capture
records, the check is recorded too (`guard`), and runs again in each replay. On a GPU nothing is read back: a kernel
checks, puts 0 in the place of a wrong index, and tells the host, which raises later (devices/flags.py). Read first
`checked`, then `_prepare_take`. The functions that users call are in index.py.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.arrays import cast_array, contiguous_copy, dense, mover
from ..core.modes import mode
from ..core.op import Primitive, same_device
from ..core.shape import INT64, fail
from ..core.tensor import Tensor, new_tensor
from ..devices.launch import BLOCKS, FILL, THREADS, Launch, ceil_div, launch, over, power_of_two
from ..devices.memory import Array, Layout, alloc, layout
from ..devices.native import ffi
from ..devices.plan import Plan, not_half
from ..devices.work import work
from .arguments import OutOfRange
from .convert import cast, on_device
from .math import add, eq, where, zeros_of
from .through import bind, indexed, through
from .view import as_expanded, window_op, windowed, zeros_on

_INT32 = np.dtype("int32")


# ---- checks ----------------------------------------------------------------------------------------------------------

def index_check(index: Tensor, low: int, high: int, ignore: int | None = None) -> Callable[[], int | None]:
    """`check()`: a value of an int64 tensor outside [low, high) that is not `ignore`; None if there is none. It is read
    at once: `in_range` is for indices on a GPU too."""
    source = index.array.layout
    if not source.size:
        return lambda: None
    if low >= high:                         # every value is wrong, or the one that is ignored
        return lambda: next((int(i) for i in host_index(index.array).reshape(-1) if i != ignore), None)
    kernel, flag = source.device.kernels.check_index.only, ffi.new("int64_t[2]")
    ptr = int(ffi.cast("intptr_t", flag))

    def check() -> int | None:
        a = index.array if source.contiguous else dense(index.array)
        # `call` would put the launch into the recorded program; `guard` repeats the check there
        (kernel.function if mode.recorder else kernel.call)(
            0, ptr, a.ptr, source.size, low, high, low if ignore is None else ignore, 1)
        if not flag[0]:
            return None
        flag[0] = 0
        return flag[1]
    return check


def host_index(array: Array) -> Any:
    """The values of an index as a NumPy array."""
    device = array.layout.device
    return array.np if device.type == "cpu" else device.download(array)


def guard(verify: Callable[[], None]) -> None:
    """Runs a check of values. A captured program runs it again, at this place of each replay."""
    verify()
    if mode.recorder is not None:
        mode.recorder.python(verify)


def in_range(index: Tensor, low: int, high: int, kind: type[Exception], text: str, *rest: Any,
             ignore: int | None = None) -> None:
    """Raises `kind(text.format(value, *rest))` for a value of an int64 tensor outside [low, high) that is not `ignore`:
    at once, and in each replay of a captured step; on a GPU later (devices/flags.py)."""
    flags, source = index.array.layout.device.flags, index.array.layout
    if flags is not None and low < high and source.size:
        source.device.kernels.check_index.only.call(0, flags.ptr, dense(index.array).ptr, source.size, low, high,
                                                    low if ignore is None else ignore, flags.number(kind, text, *rest))
        return
    check = index_check(index, low, high, ignore)

    def verify() -> None:
        wrong = check()
        if wrong is not None:
            raise kind(text.format(wrong, *rest))
    guard(verify)


_OUT = "[{1}] index {0} is out of range for dim {2} with size {3}"


def checked(op: str, index: Tensor, n: int, dim: int, wrap: bool = True, kind: type[Exception] = OutOfRange) -> Tensor:
    """An index as int64 in [0, n), for a kernel; `kind` is raised where it is out of range, on a GPU later. With
    `wrap`, negative indices count from the end, else they are out of range."""
    if index.array.layout.dtype != INT64:
        index = cast(index, INT64)
    have, low = index.array.layout, -n if wrap else 0
    if not have.size:
        return index
    flags = have.device.flags
    if flags is not None and n:
        return _wrapped(index, low, n, flags.ptr, flags.number(kind, _OUT, op, dim, n))
    if mode.recorder is None and index_check(index, 0, n)() is None:
        # a copy for the backward kernel, because the caller may change the index in place before it runs
        return new_tensor(contiguous_copy(index.array), None) if mode.grad else index
    in_range(index, low, n, kind, _OUT, op, dim, n)
    if wrap:
        return _wrapped(index, low, n)
    return new_tensor(contiguous_copy(index.array) if mode.grad else dense(index.array), None)      # as above


def _wrapped(index: Tensor, low: int, n: int, flag: int = 0, number: int = 0) -> Tensor:
    """A copy of the index, with negative values counted from the end; a wrong one is told to `flag`."""
    source = dense(index.array)
    device, shape, size = source.layout.device, source.layout.shape, source.layout.size
    out = alloc(layout(device, INT64, shape))
    device.kernels.check_index.only.call(out.ptr, flag, source.ptr, size, low, n, low, number)
    return new_tensor(out, None)


def for_caller(index: Tensor, x: Tensor) -> Tensor:
    """Indices of elements of `x` that a function returns: a copy if a backward kernel will use them, so that the caller
    can change what was returned."""
    return new_tensor(contiguous_copy(index.array), None) if mode.grad and x.requires_grad else index


def index_dtype(op: str, index: Any, exact: bool = True) -> Tensor:
    """The index itself, if it is a tensor of integers (with `exact`, of at least 32 bits)."""
    if not isinstance(index, Tensor):
        raise TypeError(f"[{op}] index must be a Tensor; got {type(index).__name__}")
    given = index.array.layout
    if given.dtype.kind not in "iu" or exact and given.dtype.itemsize < 4 and given.size:
        fail(op, "index must be an int64 tensor", given, "convert with .long()")
    return index


# ---- take and index_add: one index for a block -----------------------------------------------------------------------

def _blocks(x: Layout, axis: int, ndims: int) -> tuple[int, int, int]:
    """The shape of x as (outer, n, inner); n is the size of the `ndims` dimensions from `axis` on."""
    outer = n = inner = 1
    for i, size in enumerate(x.shape):
        if i < axis:
            outer *= size
        elif i < axis + ndims:
            n *= size
        else:
            inner *= size
    return outer, n, inner


def _reason(op: str, out: Layout, kernel: Any) -> str:
    return f"kernel {kernel.name}" if kernel else f"no {op} kernel for {out.dtype}: NumPy"


def _read(op: str, out: Layout, kernel: Any, on_host: Callable, outer: int, m: int, n: int, inner: int) -> Plan:
    """The plan of `take` and `gather`: the kernel, or NumPy's `on_host(x, index, out)`."""
    def run(a: Array, i: Array) -> Array:
        y = alloc(out)
        a, i = dense(a), dense(i)
        if kernel is None:
            out.device.host.call(on_host, y.np, a.np, i.np)
        else:
            kernel.call(y.ptr, a.ptr, i.ptr, outer, m, n, inner)
        return y
    return Plan(run, out, _reason(op, out, kernel))


def _written(op: str, x: Layout, out: Layout, kernel: Any, on_host: Callable, outer: int, m: int, n: int,
             inner: int) -> Plan:
    """The plan of `index_add` and the scatters: a copy of x, then the kernel or NumPy's `on_host(index, src, out)`.
    Bools and integers of 8 and 16 bits are added as int32, which wraps around as they do."""
    if kernel is None:
        not_half(_reason(op, out, kernel), x)
        if x.dtype.kind in "iub" and x.dtype.itemsize < 4:
            return _added_wide(op, x, out, outer, m, n, inner)
    move = mover(out, x)

    def run(a: Array, i: Array, s: Array) -> Array:
        y = alloc(out)
        move(y, 0, a)
        i, s = dense(i), dense(s)
        if kernel is None:
            out.device.host.call(on_host, y.np, i.np, s.np)
        else:
            kernel.call(y.ptr, i.ptr, s.ptr, outer, m, n, inner)
        return y
    return Plan(run, out, _reason(op, out, kernel))


def _added_wide(op: str, x: Layout, out: Layout, *sizes: int) -> Plan:
    """The plan of `index_add` or `scatter_add` in int32."""
    kernel = getattr(x.device.kernels, op)[_INT32]

    def run(a: Array, i: Array, s: Array) -> Array:
        y, i, s = cast_array(a, _INT32), dense(i), cast_array(s, _INT32)
        kernel.call(y.ptr, i.ptr, s.ptr, *sizes)
        return cast_array(y, out.dtype)
    return Plan(run, out, f"kernel {kernel.name}, between casts")


def _prepare_take(x: Layout, index: Layout, *, axis: int, ndims: int) -> Plan:
    """out[..., j..., ...] = x[..., index[j...], ...]: blocks of x. An index counts through `ndims` dimensions from
    `axis` on."""
    _block_rule("take", x, index, axis, ndims)
    outer, n, inner = _blocks(x, axis, ndims)
    out, m = layout(x.device, x.dtype, x.shape[:axis] + index.shape + x.shape[axis + ndims:]), index.size
    kernel = x.device.kernels.take.move(x.dtype)

    def take_blocks(v: Any, at: Any, out: Any) -> None:
        np.take(v.reshape(outer, n, inner), at.reshape(-1), 1, out=out.reshape(outer, m, inner))

    return _read("take", out, kernel, take_blocks, outer, m, n, inner)


def _block_rule(op: str, x: Layout, index: Layout, axis: int, ndims: int) -> None:
    """Raises on a wrong signature of `take` or `index_add`."""
    same_device(op, (x, index))
    if index.dtype != INT64:
        fail(op, "index must be int64", index, "convert with .long()")
    if not 0 <= axis <= axis + ndims <= x.ndim:
        fail(op, "axis and ndims must name dimensions of x", [x, f"axis {axis}", f"ndims {ndims}"])


_take = Primitive("take", _prepare_take,
                  {"x": lambda g, index, x_shape, axis, ndims: add_at(x_shape, g, index, axis, ndims)})


def _prepare_index_add(x: Layout, index: Layout, src: Layout, *, axis: int, ndims: int) -> Plan:
    """x with the blocks of src added at the places of the index."""
    _block_rule("index_add", x, index, axis, ndims)
    same_device("index_add", (x, src))
    wanted = x.shape[:axis] + index.shape + x.shape[axis + ndims:]
    if src.shape != wanted or src.dtype != x.dtype:
        fail("index_add", "src must have the shape of what the index takes from x, and x's dtype", [x, index, src])
    outer, n, inner = _blocks(x, axis, ndims)
    out, m = layout(x.device, x.dtype, x.shape), index.size
    kernel = x.device.kernels.index_add.get(x.dtype)

    def add_blocks(at: Any, v: Any, out: Any) -> None:
        where_to: Any = (slice(None), at.reshape(-1))
        np.add.at(out.reshape(outer, n, inner), where_to, v.reshape(outer, m, inner))

    return _written("index_add", x, out, kernel, add_blocks, outer, m, n, inner)


index_add_op = Primitive("index_add", _prepare_index_add,
                         {"x": lambda g: g, "src": lambda g, index, axis, ndims: take_at(g, index, axis, ndims)})


def add_at(shape: tuple[int, ...], src: Tensor, index: Tensor, axis: int, ndims: int = 1) -> Tensor:
    """Zeros of `shape` with src added at the places of the index: the gradient of `take`."""
    return index_add_op(zeros_on(shape, src.array.layout), index, src, axis=axis, ndims=ndims)


take_at: Callable[..., Tensor] = indexed(_take)     # (x, index, axis, ndims): `take` with a checked index


def _spots(make: Any, n: int, *shape: int) -> Tensor:
    """Random indices in [0, n), for samples."""
    return make.ints(*shape, high=n)


@_take.samples
def _take_samples(make: Any) -> Any:
    yield make(5, 33), _spots(make, 5, 7), {"axis": 0, "ndims": 1}
    yield make(5, 33), _spots(make, 33, 2, 3), {"axis": 1, "ndims": 1}
    yield make(2, 3, 4, 31), _spots(make, 12, 8), {"axis": 1, "ndims": 2}
    yield make(5), _spots(make, 5), {"axis": 0, "ndims": 1}
    yield make(5, 2), _spots(make, 5, 0), {"axis": 0, "ndims": 1}


@_take.errors
def _take_errors(make: Any) -> Any:
    yield (make(5), make(2), {"axis": 0, "ndims": 1}), RuntimeError, "int64"
    yield (make(5), make.ints(2, high=5), {"axis": 1, "ndims": 1}), RuntimeError, "axis and ndims"


@_take.reference
def _take_reference(x: Any, index: Any, *, axis: int, ndims: int) -> Any:
    flat = x.reshape(*x.shape[:axis], -1, *x.shape[axis + ndims:])
    return np.take(flat, index, axis)


@index_add_op.samples
def _index_add_samples(make: Any) -> Any:
    yield make(5, 33), _spots(make, 5, 7), make(7, 33), {"axis": 0, "ndims": 1}
    yield make(5, 31), _spots(make, 31, 2, 3), make(5, 2, 3), {"axis": 1, "ndims": 1}
    yield make(2, 3, 4), _spots(make, 12, 8), make(2, 8), {"axis": 1, "ndims": 2}
    yield make(4, 2), _spots(make, 4, 0), make(0, 2), {"axis": 0, "ndims": 1}


@index_add_op.errors
def _index_add_errors(make: Any) -> Any:
    yield (make(5, 2), make.ints(3, high=5), make(2, 2), {"axis": 0, "ndims": 1}), RuntimeError, "what the index takes"


@index_add_op.reference
def _index_add_reference(x: Any, index: Any, src: Any, *, axis: int, ndims: int) -> Any:
    flat = x.reshape(*x.shape[:axis], -1, *x.shape[axis + ndims:]).copy()
    np.add.at(flat, (slice(None),) * axis + (index,), src)
    return flat.reshape(x.shape)


# ---- gather and scatter: one index for each element ------------------------------------------------------------------

def _element_rule(op: str, x: Layout, index: Layout, dim: int) -> tuple[int, int, int, int]:
    """Raises on a wrong signature of `gather` or `scatter`; gives (outer, indices, n, inner)."""
    same_device(op, (x, index))
    if index.dtype != INT64:
        fail(op, "index must be int64", index, "convert with .long()")
    if (not 0 <= dim < x.ndim or index.ndim not in (x.ndim, x.ndim - 1) or index.shape[:dim] != x.shape[:dim]
            or x.shape[dim + 1:] not in (index.shape[dim + 1:], index.shape[dim:])):
        fail(op, f"index must have the sizes of the tensor in every dimension but {dim}, which it may lack", [x, index])
    outer, n, inner = _blocks(x, dim, 1)
    return outer, index.shape[dim] if index.ndim == x.ndim else 1, n, inner


def _with_axis(x: Layout, index: Layout, dim: int) -> Callable[[Any], Any]:
    """For NumPy: a function that adds the dimension that an index may lack."""
    return (lambda v: np.expand_dims(v, dim)) if index.ndim < x.ndim else lambda v: v


def _prepare_gather(x: Layout, index: Layout, *, dim: int) -> Plan:
    """out[..., j, ...] = x[..., index[..., j, ...], ...] along `dim`; an index without that dimension takes one element
    along it."""
    outer, m, n, inner = _element_rule("gather", x, index, dim)
    out, kernel = layout(x.device, x.dtype, index.shape), x.device.kernels.gather.move(x.dtype)
    full = _with_axis(x, index, dim)

    def gather_elements(v: Any, at: Any, out: Any) -> None:
        np.copyto(full(out), np.take_along_axis(v, full(at), dim))

    return _read("gather", out, kernel, gather_elements, outer, m, n, inner)


def _prepare_scatter(name: str) -> Callable[..., Plan]:
    """The `prepare` of `scatter` or `scatter_add`."""
    def prepare(x: Layout, index: Layout, src: Layout, *, dim: int) -> Plan:
        outer, m, n, inner = _element_rule(name, x, index, dim)
        same_device(name, (x, src))
        if src.shape != index.shape or src.dtype != x.dtype:
            fail(name, "src must have the shape of index and the dtype of the tensor", [x, index, src])
        out, family = layout(x.device, x.dtype, x.shape), getattr(x.device.kernels, name)
        kernel = family.move(x.dtype) if name == "scatter" else family.get(x.dtype)
        full = _with_axis(x, index, dim)

        def put(at: Any, v: Any, out: Any) -> None:
            np.put_along_axis(out, full(at), full(v), dim)

        def put_add(at: Any, v: Any, out: Any) -> None:
            places = list(np.indices(full(at).shape, sparse=True))
            places[dim] = full(at)
            np.add.at(out, tuple(places), full(v))

        return _written(name, x, out, kernel, put if name == "scatter" else put_add, outer, m, n, inner)
    return prepare


def _cleared(g: Tensor, index: Tensor, dim: int) -> Tensor:
    """g with zeros at the places of the index: the gradient of `scatter` for its first input."""
    return scatter_op(g, index, zeros_on(index.array.layout.shape, g.array.layout), dim=dim)


def _of_last(g: Tensor, index: Tensor, dim: int) -> Tensor:
    """g at the places of the index, and 0 where a later element was written to the same place: the gradient of
    `scatter` for src."""
    taken, have, shape = gather_at(g, index, dim), index.array.layout, g.array.layout.shape
    if have.ndim < len(shape) or have.shape[dim] < 2:               # one element for each place: none is written twice
        return taken
    column = tuple([n if i == dim else 1 for i, n in enumerate(have.shape)])
    order = on_device(np.arange(have.shape[dim]).reshape(column), have.device)
    order = through(as_expanded, order, have.shape)
    last = scatter_op(zeros_on(shape, have), index, order, dim=dim)
    return where(eq(gather_at(last, index, dim), order), taken, 0.0)


_gather = Primitive(
    "gather", _prepare_gather,
    {"x": lambda g, index, x_shape, dim: scatter_add_op(zeros_on(x_shape, g.array.layout), index, g, dim=dim)})
scatter_add_op: Primitive = Primitive(
    "scatter_add", _prepare_scatter("scatter_add"),
    {"x": lambda g: g, "src": lambda g, index, dim: gather_at(g, index, dim)}, ["x", "index", "src"],
    doc="x with the elements of src added at the places of the index along `dim`.")
scatter_op: Primitive = Primitive(
    "scatter", _prepare_scatter("scatter"),
    {"x": lambda g, index, dim: _cleared(g, index, dim),
     "src": lambda g, index, dim: _of_last(g, index, dim)},
    ["x", "index", "src"],
    doc="x with the elements of src written to the places of the index along `dim`; of several, the last one stays.")


gather_at: Callable[..., Tensor] = indexed(_gather)     # (x, index, dim): `gather` with a checked index


@_gather.samples
def _gather_samples(make: Any) -> Any:
    yield make(5, 33), _spots(make, 5, 2, 33), {"dim": 0}
    yield make(5, 33), _spots(make, 33, 5, 31), {"dim": 1}
    yield make(2, 3, 4), _spots(make, 3, 2, 7, 4), {"dim": 1}
    yield make(3, 2), _spots(make, 3, 0, 2), {"dim": 0}
    yield make(4, 33, 2), _spots(make, 33, 4, 2), {"dim": 1}


@_gather.errors
def _gather_errors(make: Any) -> Any:
    yield (make(5, 3), make.ints(2, 4, high=5), {"dim": 0}), RuntimeError, r"every dimension but 0.*\[5, 3\].*\[2, 4\]"
    yield (make(5), make(2), {"dim": 0}), RuntimeError, "int64"


@_gather.reference
def _gather_reference(x: Any, index: Any, *, dim: int) -> Any:
    if index.ndim == x.ndim:
        return np.take_along_axis(x, index, dim)
    return np.take_along_axis(x, np.expand_dims(index, dim), dim).squeeze(dim)


def _distinct(make: Any, n: int, *shape: int) -> Tensor:
    """Indices without duplicates, for samples: where `scatter` writes one place twice, it has no derivative."""
    order = (np.arange(shape[0])[:, None] * 3 + np.arange(shape[1] if len(shape) > 1 else 1)) % n
    zeros = make.ints(*shape, high=1)
    return cast(add(zeros, on_device(order.reshape(shape), zeros.array.layout.device)), INT64)


@scatter_add_op.samples
def _scatter_add_samples(make: Any) -> Any:
    yield make(5, 33), _spots(make, 5, 7, 33), make(7, 33), {"dim": 0}
    yield make(5, 33), _spots(make, 33, 5, 31), make(5, 31), {"dim": 1}
    yield make(2, 3, 4), _spots(make, 3, 2, 7, 4), make(2, 7, 4), {"dim": 1}


@scatter_add_op.reference
def _scatter_add_reference(x: Any, index: Any, src: Any, *, dim: int) -> Any:
    out = x.copy()
    for place in np.ndindex(index.shape):
        to = (*place[:dim], index[place], *place[dim + 1:])
        out[to] += src[place]
    return out


@scatter_op.samples
def _scatter_samples(make: Any) -> Any:
    yield make(5), _distinct(make, 5, 2), make(2), {"dim": 0}
    yield make(31, 2), _distinct(make, 31, 5, 2), make(5, 2), {"dim": 0}
    yield make(3, 33), _distinct(make, 33, 3, 32), make(3, 32), {"dim": 1}


@scatter_op.errors
def _scatter_errors(make: Any) -> Any:
    yield (make(5, 3), make.ints(2, 3, high=5), make(3, 3), {"dim": 0}), RuntimeError, "shape of index"


@scatter_op.reference
def _scatter_reference(x: Any, index: Any, src: Any, *, dim: int) -> Any:
    out = x.copy()
    np.put_along_axis(out, index, src, dim)
    return out


# ---- replace: a tensor written into a window -------------------------------------------------------------------------

def _prepare_replace(x: Layout, src: Layout, *, key: tuple) -> Plan:
    """x with the window that `key` describes replaced by src."""
    window = bind(window_op, layout(x.device, x.dtype, x.shape), key=key)
    if window.layout.shape != src.shape or src.dtype != x.dtype:
        fail("replace", "src must have the shape of the window and the tensor's dtype", [window.layout, src])
    out = layout(x.device, x.dtype, x.shape)
    base, inside = mover(out, x), mover(window.layout, src)
    offset = window.offset

    def run(a: Array, s: Array) -> Array:
        y = alloc(out)
        base(y, 0, a)
        inside(y, offset, s)        # type: ignore[arg-type]
        return y
    return Plan(run, out, "two copies")


replace_op: Primitive = Primitive(
    "replace", _prepare_replace,
    {"x": lambda g, key: replace_op(g, zeros_of(through(windowed, g, key)), key=key),
     "src": lambda g, key: through(windowed, g, key)})


@replace_op.samples
def _replace_samples(make: Any) -> Any:
    yield make(5, 33), make(2, 31), {"key": ((1, 2, 2), (0, 1, 31))}
    yield make(5, 3), make(3), {"key": (2, (0, 1, 3))}


@replace_op.errors
def _replace_errors(make: Any) -> Any:
    yield (make(5), make(3), {"key": ((0, 1, 2),)}), RuntimeError, "shape of the window"


@replace_op.reference
def _replace_reference(x: Any, src: Any, *, key: tuple) -> Any:
    out = x.copy()
    out[tuple(slice(e[0], e[0] + e[1] * e[2], e[1]) if isinstance(e, tuple) else e for e in key)] = src
    return out


# ---- values that are read --------------------------------------------------------------------------------------------

def reads_to_host(what: str) -> None:
    """Refuses, while a capture records, what depends on values that are read (`what` names it)."""
    if mode.recorder:
        mode.recorder.refuse(what)


# ---- launches on CUDA ------------------------------------------------------------------------------------------------

def _scatter_launches(k: Any, host: Any) -> Sequence[Launch]:
    """A thread for each column; if these are few, for each column and class of rows, with 16 indices at least."""
    columns = k.outer * k.inner
    if not columns or not k.m:
        return []
    wide = power_of_two(columns, THREADS)
    classes = power_of_two(min(16 * FILL // columns, k.n, k.m // 16), 1 << 16)     # a warp for each scheduler
    tall = min(classes, THREADS // wide)
    return [Launch("", (min(ceil_div(columns, wide), BLOCKS), classes // tall), (wide, tall))]


def _index_add_launches(k: Any, host: Any) -> Sequence[Launch]:
    """Blocks for all columns and ranges of rows; not more ranges than indices, since each range reads them all."""
    columns = k.outer * k.inner
    if not columns or not k.m:
        return []
    wide = power_of_two(columns, THREADS)
    tall = max(power_of_two(k.m, THREADS // wide), ceil_div(32, wide))
    across = min(ceil_div(columns, wide), BLOCKS)
    reads = max(132, (1 << 27) // (k.m * across))           # then all blocks together read a gigabyte of indices
    return [Launch("", (across, max(1, min(FILL // across, reads, k.n, k.m))), (wide, tall))]


launch("ops/index.cu", "take gather", lambda k, host: [over(k.outer * k.m * k.inner)])
launch("ops/index.cu", "scatter scatter_add", _scatter_launches)
launch("ops/index.cu", "index_add", _index_add_launches, shared=45184, half=True)
launch("ops/index.cu", "check_index", lambda k, host: [over(k.n)])
work("take gather scatter check_index")
work("index_add scatter_add", lambda k: k.outer * k.m * k.inner)
