"""Indexing: `t[...]` of every kind, gather, scatter and their kin, nonzero and one_hot.

All of it stands on five primitives: `window` (basic indexing, a view, in shape_ops), `take` and `index_add` (one index for
a row or block), `gather` and `scatter_add` (one index for each element), with `scatter` beside them. Each is the
gradient of another, so any order differentiates.

An index is checked, and made non-negative, before a kernel sees it. That reads one value back; while a capture records
it is checked as well, and what is recorded clamps the indices into range, so that a replay with wrong ones stays inside
the memory.
"""
from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..core.arrays import copy_array
from ..core.engine import functions
from ..core.op import Primitive
from ..core.shape import BOOL, INT64, axis_of, broadcast_shapes, fail
from ..core.tape import mode, no_grad
from ..core.tensor import Tensor, bump, new_tensor
from ..devices.memory import Layout, alloc, layout
from .arguments import existing_axis, position, whole
from .convert import cast
from .dispatch import bind, constant, planner, through
from .math import add, copy, eq, mul
from .math import where as choose
from .take import (
    check_index,
    checked,
    gather_at,
    guard,
    host_index,
    index_add_op,
    index_dtype,
    reads_to_host,
    replace_op,
    scatter_add_op,
    scatter_op,
    take_at,
)
from .view import as_expanded, as_permuted, as_reshaped, window_op, windowed, zeros_on

__all__ = ["where", "gather", "scatter", "scatter_add", "index_select", "index_add", "index_copy", "index_fill",
           "take", "take_along_dim", "repeat_interleave", "masked_select", "nonzero", "argwhere", "one_hot",
           "select_scatter", "slice_scatter"]


# ---- the functions --------------------------------------------------------------------------------------------------
def _within(x: Tensor, shape: tuple[int, ...], but: int | None = None) -> tuple:
    """The window of x's first elements that has the sizes of `shape` (in all dimensions but `but`)."""
    return tuple([whole(n if i == but else m) for i, (n, m) in enumerate(zip(x.array.layout.shape, shape, strict=True))])


def _per_element(op: str, x: Tensor, dim: int, index: Tensor) -> tuple[Tensor, int, bool]:
    """The index checked, the axis, and whether it leaves out elements of the other dimensions."""
    have, at = x.array.layout, index_dtype(op, index).array.layout
    a = axis_of(dim, have.ndim, op)
    if max(have.ndim, 1) != max(at.ndim, 1):
        fail(op, "index must have as many dimensions as the tensor", [have, at])
    partial = False
    for i, (n, m) in enumerate(zip(have.shape, at.shape, strict=have.ndim == at.ndim)):
        if i != a and m > n:
            fail(op, f"index must not be larger than the tensor in a dimension other than {a}", [have, at])
        partial = partial or i != a and m < n
    return checked(op, index, have.shape[a] if have.ndim else 1, a, wrap=False, kind=RuntimeError), a, partial


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """out[i, j] = input[index[i, j], j] for dim 0, and so on: the elements along `dim` that the index names."""
    if sparse_grad:
        raise NotImplementedError("[gather] sparse_grad is not supported")
    if not index_dtype("gather", index).array.layout.size and index.ndim != input.ndim:       # no element: no shapes that must agree
        return take_at(through(as_reshaped, input, (input.array.layout.size,)), checked("gather", index, 1, 0), 0, 1)
    at, a, partial = _per_element("gather", input, dim, index)
    if not input.array.layout.ndim or not at.array.layout.ndim:
        flat = take_at(through(as_reshaped, input, (input.array.layout.size,)), at, 0, 1)
        return flat
    if partial:
        input = through(windowed, input, _within(input, at.array.layout.shape, a))
    return gather_at(input, at, a)


def _scattered(op: str, primitive: Primitive, x: Tensor, dim: int, index: Tensor, src: Any) -> Tensor:
    have = x.array.layout
    at, a, partial = _per_element(op, x, dim, index)
    shape = at.array.layout.shape
    if not isinstance(src, Tensor):
        src = through(as_expanded, constant(src, have.dtype, have.device), shape)
    if src.array.layout.dtype != have.dtype:
        fail(op, "src must have the tensor's dtype", [have, src.array.layout], "convert one of them")
    if not have.ndim or not at.array.layout.ndim:
        count = (at.numel(),)
        one = primitive(through(as_reshaped, x, (have.size,)), through(as_reshaped, at, count), through(as_reshaped, src, count), dim=0)
        return through(as_reshaped, one, have.shape)
    if src.array.layout.shape != shape:
        if src.array.layout.ndim != len(shape) or any(m > n for m, n in zip(shape, src.array.layout.shape, strict=True)):
            fail(op, "index must not be larger than src in any dimension", [at.array.layout, src.array.layout])
        src = through(windowed, src, _within(src, shape))
    if not partial:
        return primitive(x, at, src, dim=a)
    key = _within(x, shape, a)
    return replace_op(x, primitive(through(windowed, x, key), at, src, dim=a), key=key)


def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None) -> Tensor:
    """out[index[i, j], j] = src[i, j] for dim 0, and so on; the rest as in `input`. `reduce="add"` adds."""
    given = value if src is None else src
    if given is None:
        raise TypeError("[scatter] needs src or value")
    if reduce not in (None, "add"):
        raise NotImplementedError(f"[scatter] reduce must be None or 'add'; got {reduce!r}")
    return _scattered("scatter", scatter_op if reduce is None else scatter_add_op, input, dim, index, given)


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """out[index[i, j], j] += src[i, j] for dim 0, and so on, starting from `input`."""
    return _scattered("scatter_add", scatter_add_op, input, dim, index, src)


def _per_row(op: str, x: Tensor, dim: int, index: Tensor) -> tuple[Tensor, int]:
    have = x.array.layout
    a = axis_of(dim, have.ndim, op)
    if index_dtype(op, index).array.layout.ndim > 1:
        fail(op, "index must be a vector", index.array.layout, kind=IndexError)
    flat = index if index.array.layout.ndim else through(as_reshaped, index, (1,))
    kind = RuntimeError if op == "index_add" else IndexError        # PyTorch's choices
    return checked(op, flat, have.shape[a] if have.ndim else 1, a, wrap=False, kind=kind), a


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices along `dim` that the vector `index` names."""
    if type(dim) is int and type(index) is Tensor and index.array.layout.dtype is INT64 and index.array.layout.ndim == 1:
        shape = input.array.layout.shape
        if 0 <= dim < len(shape):
            return take_at(input, checked("index_select", index, shape[dim], dim, False), dim, 1)
    at, a = _per_row("index_select", input, dim, index)
    if not input.array.layout.ndim:
        if at.numel() != 1:
            fail("index_select", "a 0-d tensor takes one index", at.array.layout)
        return copy.call(input)
    return take_at(input, at, a, 1)


def _rows(op: str, input: Tensor, dim: int, index: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    at, a = _per_row(op, input, dim, index)
    have, given = input.array.layout, source.array.layout
    if given.dtype != have.dtype:
        fail(op, "source must have the tensor's dtype", [have, given], "convert one of them")
    x = input if have.ndim else through(as_reshaped, input, (1,))
    wanted = (*have.shape[:a], at.numel(), *have.shape[a + 1:])
    if given.shape != wanted:
        if given.size != at.numel() or given.ndim > 1 or have.ndim > 1:
            fail(op, f"source must have the tensor's shape, but the index's size in dim {a}", [have, at.array.layout, given],
                 kind=IndexError if op == "index_copy" else RuntimeError)
        source = through(as_reshaped, source, wanted)
    return x, at, source, a


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """`input` with `alpha` times the slices of `source` added at the places along `dim` that `index` names."""
    x, at, rows, a = _rows("index_add", input, dim, index, source)
    return through(as_reshaped, index_add_op(x, at, rows if alpha == 1 else mul(rows, alpha), axis=a, ndims=1), input.array.layout.shape)


def _each_row(at: Tensor, a: int, shape: tuple[int, ...]) -> Tensor:
    """A row index as an index for each element of `shape`."""
    return through(as_expanded, through(as_reshaped, at, tuple([n if i == a else 1 for i, n in enumerate(shape)])), shape)


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """`input` with the slices of `source` in the places along `dim` that `index` names."""
    x, at, rows, a = _rows("index_copy", input, dim, index, source)
    return through(as_reshaped, scatter_op(x, _each_row(at, a, rows.array.layout.shape), rows, dim=a), input.array.layout.shape)


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """`input` with `value` in the slices along `dim` that `index` names."""
    at, a = _per_row("index_fill", input, dim, index)
    have = input.array.layout
    if isinstance(value, Tensor) and value.array.layout.ndim:
        fail("index_fill", "value must be a number or a 0-d tensor", value.array.layout)
    x = input if have.ndim else through(as_reshaped, input, (1,))
    n = x.array.layout.shape[a]
    filling = cast(value, have.dtype) if isinstance(value, Tensor) else constant(value, have.dtype, have.device)
    # by a mask, not by scatter: a slice that is named twice is filled once, and counts once in the gradient of the value
    yes = through(as_expanded, constant(True, BOOL, have.device), (at.numel(),))
    hit = scatter_op(zeros_on((n,), layout(have.device, BOOL, (n,))), at, yes, dim=0)
    mask = through(as_reshaped, hit, tuple([n if i == a else 1 for i in range(x.array.layout.ndim)]))
    return through(as_reshaped, where(mask, filling, x), have.shape)


def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements that `index` names in the flattened tensor, in the index's shape."""
    n = input.array.layout.size
    at = checked("take", index_dtype("take", index), n, 0)
    return take_at(input, at, 0, input.array.layout.ndim)


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather` where the other dimensions broadcast; without `dim`, both are flattened."""
    index_dtype("take_along_dim", indices)
    if dim is None:
        at = checked("take_along_dim", through(as_reshaped, indices, (indices.numel(),)), input.numel(), 0)
        return take_at(input, at, 0, input.array.layout.ndim)
    have, given = input.array.layout, indices.array.layout
    if have.ndim != given.ndim:
        fail("take_along_dim", "indices must have as many dimensions as the tensor", [have, given])
    a = existing_axis(dim, have.ndim, "take_along_dim")
    shape = broadcast_shapes("take_along_dim", have.shape[:a] + (1,) + have.shape[a + 1:], given.shape[:a] + (1,) + given.shape[a + 1:])
    x = through(as_expanded, input, (*shape[:a], have.shape[a], *shape[a + 1:]))
    index = checked("take_along_dim", indices, have.shape[a], a)
    return gather_at(x, through(as_expanded, index, (*shape[:a], given.shape[a], *shape[a + 1:])), a)


def repeat_interleave(input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None) -> Tensor:
    """Each element along `dim` (of the flattened tensor without one) repeated `repeats` times, a number or one number for each.

    `repeat_interleave(repeats)` gives 0 repeats[0] times, 1 repeats[1] times, and so on.
    """
    if repeats is None:
        return repeat_interleave(functions.as_tensor(np.arange(input.numel())).to(input.device), input, 0, output_size=output_size)
    x = input if dim is not None else through(as_reshaped, input, (input.numel(),))
    a = existing_axis(0 if dim is None else dim, x.array.layout.ndim, "repeat_interleave")
    shape = x.array.layout.shape
    if isinstance(repeats, Tensor):
        given = repeats.array.layout
        if given.dtype.kind not in "iu" or given.ndim > 1 or given.size not in (1, shape[a]):
            fail("repeat_interleave", "repeats must be an integer, or a vector of one for each element", [x.array.layout, given])
        reads_to_host("repeat_interleave() with a tensor of repeats")
        times = np.broadcast_to(host_index(repeats.array).reshape(-1), (shape[a],))
        if (times < 0).any():
            fail("repeat_interleave", "repeats must not be negative", times.min())
        places = np.repeat(np.arange(shape[a]), times)
        if output_size is not None and len(places) != output_size:
            fail("repeat_interleave", f"the repeats add up to {len(places)}", f"output_size {output_size}")
        return take_at(x, functions.as_tensor(places).to(x.device), a, 1)
    n = operator.index(repeats)
    if n < 0:
        fail("repeat_interleave", "repeats must not be negative", n)
    spread = through(as_expanded, through(as_reshaped, x, (*shape[:a + 1], 1, *shape[a + 1:])), (*shape[:a + 1], n, *shape[a + 1:]))
    return through(as_reshaped, copy.call(spread), (*shape[:a], shape[a] * n, *shape[a + 1:]))


def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """`input` with `src` in the place of `input.select(dim, index)`."""
    have = input.array.layout
    a = existing_axis(dim, have.ndim, "select_scatter")
    key = [whole(n) for n in have.shape]
    return replace_op(input, src, key=(*key[:a], position(index, have.shape[a], "select_scatter", a), *key[a + 1:]))


def slice_scatter(input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Tensor:
    """`input` with `src` in the place of `input[..., start:end:step, ...]` at dimension `dim`."""
    have = input.array.layout
    a = existing_axis(dim, have.ndim, "slice_scatter")
    key = [whole(n) for n in have.shape]
    return replace_op(input, src, key=(*key[:a], _sliced(start, end, step, have.shape[a]), *key[a + 1:]))


def _places(mask: Tensor) -> Tensor:
    """The flat positions of what is not 0, in order. Their number depends on the values, which are read."""
    reads_to_host("nonzero()")
    device = mask.array.layout.device
    found: list[Any] = []
    device.host.call(_find, found, mask.array.np)
    return new_tensor(device.upload(found[0]), None)


def _find(x: Any, out: list) -> None:
    out.append(x.reshape(-1).nonzero()[0])


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The indices of what is not 0: one row for each (as_tuple: one vector for each dimension)."""
    have = input.array.layout
    if as_tuple and not have.ndim:
        input = through(as_reshaped, input, (1,))
        have = input.array.layout
    flat = _places(input)
    count = flat.numel()
    if as_tuple:
        return tuple([_column(flat, have.shape, i) for i in range(have.ndim)])
    out = alloc(layout(have.device, INT64, (count, have.ndim)))
    if have.ndim and count:
        have.device.host.call(lambda f, out: np.stack(np.unravel_index(f, have.shape), 1, out=out), out.np, flat.array.np)
    return new_tensor(out, None)


def _column(flat: Tensor, shape: tuple[int, ...], i: int) -> Tensor:
    """Dimension i of flat positions."""
    out = alloc(flat.array.layout)
    flat.array.layout.device.host.call(lambda f, out: np.copyto(out, np.unravel_index(f, shape)[i]), out.np, flat.array.np)
    return new_tensor(out, None)


def where(condition: Tensor, input: Any = None, other: Any = None, *, out: Tensor | None = None) -> Any:
    """`input` where the condition is true, else `other`, broadcast to one shape; with the condition alone, the indices of
    its true elements, a tuple with one tensor for each dimension."""
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    return choose(condition, input, other, out=out)


def argwhere(input: Tensor) -> Tensor:
    """The indices of what is not 0, one row for each."""
    return nonzero(input)


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where the mask (broadcast) is True, in a vector."""
    if mask.array.layout.dtype != BOOL:
        fail("masked_select", "mask must be bool", mask.array.layout, "compare first, e.g. x > 0")
    shape = broadcast_shapes("masked_select", input.array.layout.shape, mask.array.layout.shape)
    return take_at(through(as_expanded, input, shape), _places(through(as_expanded, mask, shape)), 0, len(shape))


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Int64 rows with a 1 at the class that the tensor names; the number of classes is found if it is -1."""
    have = index_dtype("one_hot", tensor).array.layout
    if num_classes == -1:
        if not have.size:
            fail("one_hot", "num_classes cannot be found from no elements", have, "pass num_classes")
        reads_to_host("one_hot() without num_classes")
        from .reduce import amax
        num_classes = amax(tensor).item() + 1
    elif num_classes < 1:
        fail("one_hot", "num_classes must be positive", num_classes)
    values = cast(tensor, INT64)

    def verify() -> None:
        bad = check_index(values, 0, max(num_classes, 1))
        if bad is not None:
            fail("one_hot", f"class values must lie in [0, {num_classes})", bad)
    guard(verify)
    classes = functions.as_tensor(np.arange(num_classes)).to(have.device)
    return cast(eq(through(as_reshaped, tensor, (*have.shape, 1)), classes), INT64)


# ---- t[...] ---------------------------------------------------------------------------------------------------------
def _bound(value: Any) -> int | None:
    try:
        return None if value is None else operator.index(value)
    except TypeError:
        raise TypeError(f"[index] slice bounds must be whole numbers or None; got {value!r}") from None


def _sliced(start: Any, stop: Any, step: Any, n: int) -> tuple[int, int, int]:
    """A slice as (start, step, length)."""
    if step is not None and step <= 0:
        raise ValueError(f"[index] slice steps must be positive; got {step}; use flip(...)")
    places = range(*slice(start, stop, step).indices(n))
    return (places.start if places else 0), places.step, len(places)


@planner
def _item(x: Layout, i: int) -> Any:
    if not x.ndim:
        raise IndexError("[index] a 0-d tensor cannot be indexed with a number; use item()")
    return bind(window_op, x, key=(position(i, x.shape[0], "index", 0), *[whole(n) for n in x.shape[1:]]))


@planner
def _basic(x: Layout, entries: tuple) -> Any:
    """Ints, (start, stop, step), None and Ellipsis."""
    return bind(window_op, x, key=_key(x, entries))


def _key(x: Layout, entries: tuple) -> tuple:
    used = sum(e is not None and e is not Ellipsis for e in entries)
    if used > x.ndim:
        raise IndexError(f"[index] too many indices: {used} for a tensor of {x.ndim} dimensions; got {x}")
    if sum(e is Ellipsis for e in entries) > 1:
        raise IndexError("[index] an index can have one '...' only")
    key: list[Any] = []
    i = 0
    for e in (*entries, *((Ellipsis,) if Ellipsis not in entries else ())):
        if e is None:
            key.append(None)
        elif e is Ellipsis:
            key += [whole(n) for n in x.shape[i:i + x.ndim - used]]
            i += x.ndim - used
        else:
            key.append(_sliced(e[0], e[1], e[2], x.shape[i]) if isinstance(e, tuple) else position(e, x.shape[i], "index", i))
            i += 1
    return tuple(key)


def _plain_entries(index: tuple) -> tuple | None:
    """The index in a form to remember a plan by, if it is basic."""
    entries: list[Any] = []
    for e in index:
        kind = type(e)
        if kind is int or e is None or e is Ellipsis:
            entries.append(e)
        elif kind is slice:
            start, stop, step = e.start, e.stop, e.step
            if type(start) not in _INT_OR_NONE or type(stop) not in _INT_OR_NONE or type(step) not in _INT_OR_NONE:
                start, stop, step = _bound(start), _bound(stop), _bound(step)
            entries.append((start, stop, step))
        elif isinstance(e, np.integer):
            entries.append(int(e))
        else:
            return None
    return tuple(entries)


_INT_OR_NONE = (int, type(None))


def getitem(input: Tensor, index: Any) -> Tensor:
    """`input[index]`: basic indexing is a view, advanced and boolean indexing a copy; both are differentiable."""
    kind = type(index)
    if kind is int:
        return through(_item, input, index)
    if kind is Tensor and index.array.layout.dtype is INT64 and index.array.layout.ndim and input.array.layout.ndim:
        return take_at(input, checked("index", index, input.array.layout.shape[0], 0), 0, 1)
    if index is None:
        return through(_basic, input, (None,))
    if kind is slice:
        start, stop, step = index.start, index.stop, index.step
        if type(start) in _INT_OR_NONE and type(stop) in _INT_OR_NONE and type(step) in _INT_OR_NONE:
            return through(_basic, input, ((start, stop, step),))
    entries = _plain_entries(index if kind is tuple else (index,))
    if entries is not None:
        return through(_basic, input, entries)
    x, axis, ndims, at = _advanced(input, index if isinstance(index, tuple) else (index,))
    return take_at(x, at, axis, ndims)


def _as_index(e: Any, device: Any) -> Any:
    """An entry of an index: int, slice, None, Ellipsis, bool, or an int64 or bool tensor."""
    if e is None or e is Ellipsis or isinstance(e, (slice, bool)):
        return e
    if isinstance(e, np.bool_):
        return bool(e)
    if isinstance(e, Tensor):
        t = e
    elif isinstance(e, (list, tuple, range, np.ndarray)):
        t = functions.as_tensor(np.asarray(e) if isinstance(e, range) else e)
        if not t.numel() and not isinstance(e, np.ndarray):
            t = cast(t, INT64)
        t = t.to(device)
    else:
        try:
            return operator.index(e)
        except TypeError:
            kind = TypeError if isinstance(e, str) else IndexError
            raise kind("[index] an index must be a number, slice, None, ..., or a tensor or list of integers or bools; "
                       f"got {type(e).__name__}") from None
    dtype = t.array.layout.dtype
    if dtype == np.uint8:                           # a mask, as in PyTorch
        t = cast(t, BOOL)
    elif dtype.kind not in "iub":
        raise IndexError(f"[index] tensors used as indices must be int64, int32 or bool; got {t.array.layout}")
    return t.item() if t.array.layout.dtype == BOOL and not t.array.layout.ndim else t


def _advanced(x: Tensor, index: tuple) -> tuple[Tensor, int, int, Tensor]:
    """The basic part of an index applied, and the rest as one index through `ndims` dimensions from `axis` on.

    Where index tensors stand apart, their dimensions come first, as in NumPy and PyTorch; a number counts as a
    slice would that is taken out before.
    """
    have = x.array.layout
    given = [_as_index(e, have.device) for e in index]
    entries: list[Any] = []             # the basic index
    parts: list[tuple[int, int, Any]] = []          # (place in `entries`, dimensions, index)
    for e in given:
        if isinstance(e, bool):
            parts.append((len(entries), 1, functions.as_tensor(np.zeros(int(e), np.int64)).to(have.device)))
            entries.append(None)
        elif isinstance(e, Tensor):
            span = e.array.layout.ndim if e.array.layout.dtype == BOOL else 1
            parts.append((len(entries), span, e))
            entries += [(None, None, None)] * span
        else:
            entries.append((_bound(e.start), _bound(e.stop), _bound(e.step)) if isinstance(e, slice) else e)
    key = _key(have, tuple(entries))
    if Ellipsis in entries:             # what it stands for, in front of the entries behind it
        hole = entries.index(Ellipsis)
        filled = have.ndim - sum(e is not None and e is not Ellipsis for e in entries)
        parts = [(p + filled - 1 if p > hole else p, span, e) for p, span, e in parts]
    gone = [k for k, e in enumerate(key) if isinstance(e, int)]
    parts = [(p - sum(g < p for g in gone), span, e) for p, span, e in parts]
    x = through(windowed, x, key)
    single = [p for p in parts if isinstance(p[2], Tensor) and not p[2].array.layout.ndim]
    if len(parts) > 1 and single:       # 0-d index tensors are numbers: taken out first
        for n, (p, _, e) in enumerate(single):
            size = x.array.layout.shape[p - n]
            x = take_at(x, checked("index", e, size, p), p - n, 1)
        rest = [(p - sum(s[0] < p for s in single), span, e) for p, span, e in parts if e.array.layout.ndim]
        if not rest:
            return x, 0, 0, functions.as_tensor(np.zeros((), np.int64)).to(have.device)
        parts = rest
    shape = x.array.layout.shape
    indices, counts = [], []
    for p, span, e in parts:
        n = 1
        for size in shape[p:p + span]:
            n *= size
        if e.array.layout.dtype == BOOL:
            if e.array.layout.shape != shape[p:p + span]:
                raise IndexError("[index] a mask must have the shape of the dimensions it stands for; "
                                 f"got mask {e.array.layout}, tensor sizes {list(shape[p:p + span])}")
            indices.append(_places(e))
        else:
            indices.append(checked("index", e, n, p))
        counts.append(n)
    axis, ndims = parts[0][0], sum(span for _, span, _ in parts)
    if len(parts) == 1:
        return x, axis, ndims, indices[0]
    try:
        broadcast_shapes("index", *[i.array.layout.shape for i in indices])
    except RuntimeError as error:
        raise IndexError(str(error)) from None
    if any(a[0] + a[1] != b[0] for a, b in zip(parts, parts[1:], strict=False)):
        axes = [d for p, span, _ in parts for d in range(p, p + span)]
        x, axis = through(as_permuted, x, (*axes, *[d for d in range(len(shape)) if d not in axes])), 0
    at = indices[0]
    for i, n in zip(indices[1:], counts[1:], strict=True):
        at = add(mul(at, n), i)
    return x, axis, ndims, at


def setitem(input: Tensor, index: Any, value: Any) -> None:
    """`input[index] = value`, in place: outside of a graph, or under `no_grad`."""
    have = input.array.layout
    if mode.grad and (input.requires_grad or isinstance(value, Tensor) and value.requires_grad):
        fail("setitem", "writing into a tensor is not differentiable", have,
             "use where(mask, value, x), cat, scatter, index_add or index_copy, which return a new tensor, or write under `with no_grad()`")
    value = value.to(have.device) if isinstance(value, Tensor) else functions.as_tensor(value).to(have.device)
    if isinstance(index, tuple) and len(index) > 1:         # read as numbers: `_advanced` would take out a copy and write to that
        index = tuple([e.item() if isinstance(e, Tensor) and not e.ndim and e.dtype.kind in "iu" else e for e in index])
    with no_grad():
        entries = _plain_entries(index if isinstance(index, tuple) else (index,))
        if entries is not None:
            target = through(_basic, input, entries)
            copy_array(target.array, _trimmed(value, target.array.layout.shape).array)
        elif not _fill(input, index, value):
            x, axis, ndims, at = _advanced(input, index if isinstance(index, tuple) else (index,))
            shape = x.array.layout.shape
            value = _trimmed(value, shape[:axis] + at.array.layout.shape + shape[axis + ndims:])
            have.device.host.call(_put(axis, shape[axis:axis + ndims]), x.array.np, at.array.np, value.array.np)
    bump(input)


def _trimmed(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A value without the leading dimensions of size 1 that its place lacks; it must broadcast to the place."""
    given = value.array.layout.shape
    while len(given) > len(shape) and given[0] == 1:
        given = given[1:]
    if len(given) > len(shape) or any(n not in (1, m) for n, m in zip(reversed(given), reversed(shape), strict=False)):
        fail("setitem", "the value must broadcast to the shape of the place",
             [f"value {list(value.array.layout.shape)}", f"place {list(shape)}"])
    return through(as_reshaped, value, given)


def _fill(x: Tensor, index: Any, value: Tensor) -> bool:
    """x[mask] = number, without reading where the mask is set. False if it is something else."""
    if isinstance(index, tuple) or value.array.layout.size != 1 or not isinstance(index, (Tensor, np.ndarray)):
        return False
    have, mask = x.array.layout, _as_index(index, x.array.layout.device)
    if not isinstance(mask, Tensor) or mask.array.layout.dtype != BOOL or mask.array.layout.shape != have.shape[:mask.array.layout.ndim]:
        return False
    mask = through(as_reshaped, mask, mask.array.layout.shape + (1,) * (have.ndim - mask.array.layout.ndim))
    copy_array(x.array, where(mask, cast(through(as_reshaped, value, ()), have.dtype), x).array)
    return True


def _put(axis: int, sizes: tuple[int, ...]) -> Any:
    def put(at: Any, value: Any, out: Any) -> None:
        out[(slice(None),) * axis + (np.unravel_index(at, sizes) if len(sizes) != 1 else (at,))] = value
    return put


INPLACE = {"scatter", "scatter_add", "index_add", "index_copy", "index_fill"}
METHODS = {"__getitem__": getitem, "__setitem__": setitem}
