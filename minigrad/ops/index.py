"""Indexing: `t[...]`, and the functions that take or write elements by an index or a mask.

Basic indexing (numbers, slices, None, ...) is the primitive `window`, a view. Index tensors and masks become one index
for the primitives of take.py, which also checks that it is in range. Each of these primitives is the gradient of
another, so any order of derivative exists. Read first take.py; here, `gather` and `index_select` for the functions,
`getitem` and `_advanced` for `t[...]`.
"""
from __future__ import annotations

import operator
from collections.abc import Callable
from math import prod
from typing import Any, NoReturn

import numpy as np

from ..core.arrays import copy_array
from ..core.engine import functions
from ..core.half import rounds_once
from ..core.inplace import change, check, involved, overwrite
from ..core.modes import mode, no_grad
from ..core.op import Primitive
from ..core.out import can_cast, check_kind, writes
from ..core.shape import BOOL, INT64, axis_of, broadcast_shapes, fail, is_float
from ..core.tensor import Tensor, bump, new_tensor
from ..core.warning import warn
from ..devices.memory import Layout, alloc, layout
from .arguments import existing_axis, position, whole
from .convert import cast, given, on_device
from .dispatch import constant
from .math import add, copy, eq, mul
from .math import where as choose
from .reduce import amax
from .take import (
    checked,
    gather_at,
    host_index,
    in_range,
    index_add_op,
    index_dtype,
    reads_to_host,
    replace_op,
    scatter_add_op,
    scatter_op,
    take_at,
)
from .through import bind, exact_planner, through
from .view import as_expanded, as_permuted, as_reshaped, window_op, windowed, zeros_on

__all__ = ["where", "gather", "scatter", "scatter_add", "index_select", "index_add", "index_copy", "index_fill",
           "take", "take_along_dim", "repeat_interleave", "masked_select", "nonzero", "argwhere", "one_hot",
           "select_scatter", "slice_scatter"]


# ---- the functions ---------------------------------------------------------------------------------------------------

def _within(x: Tensor, shape: tuple[int, ...], but: int | None = None) -> tuple:
    """The key of the window of x's first elements with the sizes of `shape` (in dimension `but`, all elements)."""
    pairs = zip(x.array.layout.shape, shape, strict=True)
    return tuple([whole(n if i == but else m) for i, (n, m) in enumerate(pairs)])


def _per_element(op: str, x: Tensor, dim: int, index: Tensor) -> tuple[Tensor, int, bool]:
    """The index checked, the axis, and whether the index is smaller than the tensor in another dimension."""
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


@writes("apart")
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """The elements along `dim` that `index` names: for two dimensions and `dim` 0, out[i, j] = input[index[i, j], j].

    `index` (int64) has as many dimensions as `input`, and is not larger in any but `dim`; the result has its shape and
    `input`'s dtype. Indices must be in [0, n), not negative: RuntimeError otherwise. `sparse_grad` changes nothing: the
    gradient is dense.

    >>> minigrad.tensor([[1, 2], [3, 4]]).gather(1, minigrad.tensor([[1], [0]])).tolist()
    [[2], [3]]
    """
    have = input.array.layout
    if not index_dtype("gather", index).array.layout.size and index.ndim != input.ndim:     # empty: any shape will do
        return take_at(through(as_reshaped, input, (have.size,)), checked("gather", index, 1, 0), 0, 1)
    at, a, partial = _per_element("gather", input, dim, index)
    if not have.ndim or not at.array.layout.ndim:
        return take_at(through(as_reshaped, input, (have.size,)), at, 0, 1)
    if partial:
        input = through(windowed, input, _within(input, at.array.layout.shape, a))
    return gather_at(input, at, a)


def scattered(op: str, primitive: Primitive, x: Tensor, dim: int, index: Tensor, src: Any) -> Tensor:
    """`scatter` or `scatter_add` (`primitive`) of arguments as users give them; `src` may be a number."""
    have = x.array.layout
    empty = not index_dtype(op, index).numel() and index.ndim != have.ndim      # of any shape, as in PyTorch
    at, a, partial = (index, axis_of(dim, have.ndim, op), False) if empty else _per_element(op, x, dim, index)
    shape = at.array.layout.shape
    if not isinstance(src, Tensor):
        src = through(as_expanded, constant(src, have.dtype, have.device, op), shape)
    if src.array.layout.dtype != have.dtype:
        fail(op, "src must have the tensor's dtype", [have, src.array.layout], "convert one of them")
    if empty:
        return copy(x)
    if not have.ndim or not at.array.layout.ndim:
        count = (at.numel(),)
        at, src = through(as_reshaped, at, count), through(as_reshaped, src, count)
        return through(as_reshaped, primitive(through(as_reshaped, x, (have.size,)), at, src, dim=0), have.shape)
    given = src.array.layout
    if given.shape != shape:
        if given.ndim != len(shape) or any(m > n for m, n in zip(shape, given.shape, strict=True)):
            fail(op, "index must not be larger than src in any dimension", [at.array.layout, given])
        src = through(windowed, src, _within(src, shape))
    if not partial:
        return primitive(x, at, src, dim=a)
    key = _within(x, shape, a)
    return replace_op(x, primitive(through(windowed, x, key), at, src, dim=a), key=key)


def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None,
            reduce: str | None = None) -> Tensor:
    """A copy of `input` with elements of `src` written to the places along `dim` that `index` names: for two dimensions
    and `dim` 0, out[index[i, j], j] = src[i, j].

    `src` is a tensor of `input`'s dtype that is at least as large as `index` in each dimension, or a number (as
    `value`). `index` is as in `gather`. Of several values for one place the last one stays. `reduce="add"` adds
    them, as `scatter_add`, "multiply" multiplies by them.
    """
    given = value if src is None else src
    if given is None:
        raise TypeError("[scatter] needs src or value")
    if reduce == "multiply":
        if not isinstance(given, Tensor):
            one = constant(given, input.array.layout.dtype, input.array.layout.device, "scatter")
            given = through(as_expanded, one, index_dtype("scatter", index).array.layout.shape)
        return input.scatter_reduce(dim, index, given, "prod")      # type: ignore[attr-defined]
    if reduce not in (None, "add"):
        fail("scatter", "reduce must be None, 'add' or 'multiply'", repr(reduce))
    return scattered("scatter", scatter_op if reduce is None else scatter_add_op, input, dim, index, given)


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """A copy of `input` with elements of `src` added at the places along `dim` that `index` names: for two dimensions
    and `dim` 0, out[index[i, j], j] += src[i, j]. The arguments are as in `scatter`. Sums have the same bits in each
    run."""
    return scattered("scatter_add", scatter_add_op, input, dim, index, src)


def _per_row(op: str, x: Tensor, dim: int, index: Tensor) -> tuple[Tensor, int]:
    """The vector `index` checked, and the axis."""
    have = x.array.layout
    a = axis_of(dim, have.ndim, op)
    if index_dtype(op, index).array.layout.ndim > 1:
        fail(op, "index must be a vector", index.array.layout, kind=IndexError)
    flat = index if index.array.layout.ndim else through(as_reshaped, index, (1,))
    kind = RuntimeError if op == "index_add" else IndexError        # PyTorch's choices
    return checked(op, flat, have.shape[a] if have.ndim else 1, a, wrap=False, kind=kind), a


@writes("apart")
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices along `dim` that the vector `index` names: dimension `dim` of the result has the size of `index`. A
    copy. IndexError if an index is not in [0, n)."""
    if type(dim) is int and type(index) is Tensor:                  # the common case, without further questions
        given, shape = index.array.layout, input.array.layout.shape
        if given.dtype is INT64 and given.ndim == 1 and 0 <= dim < len(shape):
            return take_at(input, checked("index_select", index, shape[dim], dim, False), dim, 1)
    at, a = _per_row("index_select", input, dim, index)
    if not input.array.layout.ndim:
        if at.numel() != 1:
            fail("index_select", "a 0-d tensor takes one index", at.array.layout)
        return copy.call(input)
    return take_at(input, at, a, 1)


def index_rows(op: str, input: Tensor, dim: int, index: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """The arguments of `index_add` and `index_copy`, checked: input, index, source with at least one dimension; the
    axis."""
    at, a = _per_row(op, input, dim, index)
    have, given = input.array.layout, source.array.layout
    if given.dtype != have.dtype:
        fail(op, "source must have the tensor's dtype", [have, given], "convert one of them")
    x = input if have.ndim else through(as_reshaped, input, (1,))
    wanted = (*have.shape[:a], at.numel(), *have.shape[a + 1:])
    if given.shape != wanted:
        if given.size != at.numel() or given.ndim > 1 or have.ndim > 1:
            fail(op, f"source must have the tensor's shape, but the index's size in dim {a}",
                 [have, at.array.layout, given], kind=IndexError if op == "index_copy" else RuntimeError)
        source = through(as_reshaped, source, wanted)
    return x, at, source, a


@rounds_once
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """A copy of `input` with `alpha` times the slices of `source` added at the places along `dim` that the vector
    `index` names: out[index[i]] += alpha * source[i] for `dim` 0. `source` has `input`'s dtype, and its shape but for
    `dim`, where it has the size of `index`. RuntimeError if an index is not in [0, n)."""
    x, at, rows, a = index_rows("index_add", input, dim, index, source)
    if isinstance(alpha, float) and not is_float(input.array.layout.dtype):
        if not alpha.is_integer():
            fail("index_add", "alpha must be a whole number for integer tensors", alpha, "convert them with .float()")
        alpha = int(alpha)
    out = index_add_op(x, at, rows if alpha == 1 else mul(rows, alpha), axis=a, ndims=1)
    return through(as_reshaped, out, input.array.layout.shape)


def each_row(at: Tensor, a: int, shape: tuple[int, ...]) -> Tensor:
    """A row index as an index for each element of `shape`."""
    column = tuple([n if i == a else 1 for i, n in enumerate(shape)])
    return through(as_expanded, through(as_reshaped, at, column), shape)


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy of `input` with the slices of `source` written to the places along `dim` that the vector `index` names:
    out[index[i]] = source[i] for `dim` 0. Arguments as in `index_add`; IndexError if an index is not in [0, n)."""
    x, at, rows, a = index_rows("index_copy", input, dim, index, source)
    out = scatter_op(x, each_row(at, a, rows.array.layout.shape), rows, dim=a)
    return through(as_reshaped, out, input.array.layout.shape)


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy of `input` with `value` (a number or a 0-d tensor) in the slices along `dim` that the vector `index`
    names. IndexError if an index is not in [0, n)."""
    at, a = _per_row("index_fill", input, dim, index)
    have = input.array.layout
    if isinstance(value, Tensor) and value.array.layout.ndim:
        fail("index_fill", "value must be a number or a 0-d tensor", value.array.layout)
    x = input if have.ndim else through(as_reshaped, input, (1,))
    n = x.array.layout.shape[a]
    if not isinstance(value, Tensor):
        value = constant(value, have.dtype, have.device, "index_fill")
    # by a mask, not by scatter: a slice that is named twice counts once in the gradient of `value`
    yes = through(as_expanded, constant(True, BOOL, have.device), (at.numel(),))
    hit = scatter_op(zeros_on((n,), layout(have.device, BOOL, (n,))), at, yes, dim=0)
    mask = through(as_reshaped, hit, tuple([n if i == a else 1 for i in range(x.array.layout.ndim)]))
    return through(as_reshaped, where(mask, cast(value, have.dtype), x), have.shape)


@writes("apart")
def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements of the flattened `input` that `index` names, in the shape of `index`. Negative indices count from
    the end; IndexError if one is out of range."""
    n = input.array.layout.size
    at = checked("take", index_dtype("take", index), n, 0)
    return take_at(input, at, 0, input.array.layout.ndim)


@writes("apart")
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather` along `dim` with `indices` that broadcast against `input` in the other dimensions, and may be negative.
    Without `dim` both are flattened. It takes what `argmax(dim, keepdim=True)`, `argsort` and the like return."""
    index_dtype("take_along_dim", indices)
    if dim is None:
        at = checked("take_along_dim", through(as_reshaped, indices, (indices.numel(),)), input.numel(), 0)
        return take_at(input, at, 0, input.array.layout.ndim)
    have, given = input.array.layout, indices.array.layout
    if have.ndim != given.ndim:
        fail("take_along_dim", "indices must have as many dimensions as the tensor", [have, given])
    a = existing_axis(dim, have.ndim, "take_along_dim")
    shape = broadcast_shapes("take_along_dim", have.shape[:a] + (1,) + have.shape[a + 1:],
                             given.shape[:a] + (1,) + given.shape[a + 1:])
    x = through(as_expanded, input, (*shape[:a], have.shape[a], *shape[a + 1:]))
    index = checked("take_along_dim", indices, have.shape[a], a)
    return gather_at(x, through(as_expanded, index, (*shape[:a], given.shape[a], *shape[a + 1:])), a)


def repeat_interleave(input: Tensor, repeats: Any = None, dim: int | None = None, *,
                      output_size: int | None = None) -> Tensor:
    """Each element along `dim` (without `dim`: of the flattened tensor) repeated `repeats` times: a number, or a vector
    with one number for each element. A vector's values are read. `output_size`, if given, must be the sum of a vector.

    `repeat_interleave(repeats)` with only a vector gives the index 0 repeats[0] times, then 1 repeats[1] times, and so
    on.

    >>> minigrad.tensor([1, 2]).repeat_interleave(2).tolist()
    [1, 1, 2, 2]
    """
    if repeats is None:
        places = on_device(np.arange(input.numel()), input.device)
        return repeat_interleave(places, input, 0, output_size=output_size)
    x = input if dim is not None else through(as_reshaped, input, (input.numel(),))
    a = existing_axis(0 if dim is None else dim, x.array.layout.ndim, "repeat_interleave")
    shape = x.array.layout.shape
    if isinstance(repeats, Tensor):
        return _repeated_by(x, repeats, a, output_size)
    n = operator.index(repeats)
    if n < 0:
        fail("repeat_interleave", "repeats must not be negative", n)
    split_up = through(as_reshaped, x, (*shape[:a + 1], 1, *shape[a + 1:]))
    spread = through(as_expanded, split_up, (*shape[:a + 1], n, *shape[a + 1:]))
    return through(as_reshaped, copy.call(spread), (*shape[:a], shape[a] * n, *shape[a + 1:]))


def _repeated_by(x: Tensor, repeats: Tensor, a: int, output_size: int | None) -> Tensor:
    """`repeat_interleave` along axis a with a tensor of repeats, whose values are read."""
    n, given = x.array.layout.shape[a], repeats.array.layout
    if given.dtype.kind not in "iu" or given.ndim > 1 or given.size not in (1, n):
        fail("repeat_interleave", "repeats must be an integer, or a vector of one for each element",
             [x.array.layout, given])
    reads_to_host("repeat_interleave() with a tensor of repeats")
    times = np.broadcast_to(host_index(repeats.array).reshape(-1), (n,))
    if (times < 0).any():
        fail("repeat_interleave", "repeats must not be negative", times.min())
    places = np.repeat(np.arange(n), times)
    if output_size is not None and len(places) != output_size:
        fail("repeat_interleave", f"the repeats add up to {len(places)}", f"output_size {output_size}")
    return take_at(x, on_device(places, x.device), a, 1)


def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy of `input` with `src` in the place of `input.select(dim, index)`, whose shape it must have."""
    have = input.array.layout
    a = existing_axis(dim, have.ndim, "select_scatter")
    key: list[Any] = [whole(n) for n in have.shape]
    key[a] = position(index, have.shape[a], "select_scatter", a)
    return replace_op(input, cast(src, have.dtype), key=tuple(key))


def slice_scatter(input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None,
                  step: int = 1) -> Tensor:
    """A copy of `input` with `src` in the place of `input[start:end:step]` along `dim`, whose shape it must have."""
    have = input.array.layout
    a = existing_axis(dim, have.ndim, "slice_scatter")
    key = [whole(n) for n in have.shape]
    key[a] = _sliced(start, end, step, have.shape[a])
    return replace_op(input, cast(src, have.dtype), key=tuple(key))


# ---- masks: nonzero, where, masked_select, one_hot -------------------------------------------------------------------

def _places(mask: Tensor) -> Tensor:
    """The flat positions of the elements that are not 0, in order. The values are read."""
    reads_to_host("nonzero()")
    device = mask.array.layout.device
    found: list[Any] = []
    device.host.call(_find, found, mask.array.np)
    return new_tensor(device.upload(found[0]), None)


def _find(x: Any, out: list) -> None:
    """Appends the positions to the list `out`: their number is not known before."""
    out.append(x.reshape(-1).nonzero()[0])


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The indices of the elements that are not 0, in row-major order: int64 (count, ndim), one row for each; with
    `as_tuple`, a tuple with one vector for each dimension. Values are read: refused while a capture records."""
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
        def rows(flat: Any, out: Any) -> None:
            np.stack(np.unravel_index(flat, have.shape), 1, out=out)
        have.device.host.call(rows, out.np, flat.array.np)
    return new_tensor(out, None)


def _column(flat: Tensor, shape: tuple[int, ...], i: int) -> Tensor:
    """The index in dimension i of each of the flat positions."""
    out = alloc(flat.array.layout)

    def column(flat: Any, out: Any) -> None:
        np.copyto(out, np.unravel_index(flat, shape)[i])
    flat.array.layout.device.host.call(column, out.np, flat.array.np)
    return new_tensor(out, None)


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """`input` where `condition` (bool) is True, else `other`; the three broadcast. `input` and `other` may be numbers.
    With the condition alone, `nonzero(condition, as_tuple=True)`.

    >>> x = minigrad.tensor([-1.0, 2.0])
    >>> minigrad.where(x > 0, x, 0.0).tolist()
    [0.0, 2.0]
    """
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    return choose(condition, input, other)


def argwhere(input: Tensor) -> Tensor:
    """The indices of the elements that are not 0, one row for each: `nonzero(input)`."""
    return nonzero(input)


@writes("apart")
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where `mask` (bool, broadcast against `input`) is True, as a vector in row-major order. The mask's
    values are read: refused while a capture records."""
    if mask.array.layout.dtype != BOOL:
        fail("masked_select", "mask must be bool", mask.array.layout, "compare first, e.g. x > 0")
    shape = broadcast_shapes("masked_select", input.array.layout.shape, mask.array.layout.shape)
    return take_at(through(as_expanded, input, shape), _places(through(as_expanded, mask, shape)), 0, len(shape))


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Int64 of shape (*, num_classes): in each row a 1 at the class that `tensor` (integers) names, else 0. With
    `num_classes` -1 it is the largest class + 1, which is read. RuntimeError if a class is not in [0, num_classes).

    >>> minigrad.nn.functional.one_hot(minigrad.tensor([0, 2])).tolist()
    [[1, 0, 0], [0, 0, 1]]
    """
    have = index_dtype("one_hot", tensor).array.layout
    if num_classes == -1:
        if not have.size:
            fail("one_hot", "num_classes cannot be found from no elements", have, "pass num_classes")
        reads_to_host("one_hot() without num_classes")
        num_classes = amax(tensor).item() + 1
    elif num_classes < 1:
        fail("one_hot", "num_classes must be positive", num_classes)
    values = cast(tensor, INT64)

    in_range(values, 0, max(num_classes, 1), RuntimeError, "[one_hot] class values must lie in [0, {1}); got {0}",
             num_classes)
    classes = on_device(np.arange(num_classes), have.device)
    return cast(eq(through(as_reshaped, tensor, (*have.shape, 1)), classes), INT64)


# ---- t[...] ----------------------------------------------------------------------------------------------------------

_INT_OR_NONE = (int, type(None))


def _bound(value: Any) -> int | None:
    """A bound of a slice as int or None."""
    try:
        return None if value is None else operator.index(value)
    except TypeError:
        raise TypeError(f"[index] slice bounds must be whole numbers or None; got {value!r}") from None


def _sliced(start: Any, stop: Any, step: Any, n: int) -> tuple[int, int, int]:
    """A slice of n elements as (start, step, length)."""
    if step is not None and step <= 0:
        raise ValueError(f"[index] slice steps must be positive; got {step}; use flip(...)")
    places = range(*slice(start, stop, step).indices(n))
    return (places.start if places else 0), places.step, len(places)


@exact_planner
def _item(x: Layout, i: int) -> Any:
    """Planner of `x[i]`."""
    if not x.ndim:
        raise IndexError("[index] a 0-d tensor cannot be indexed with a number; use item()")
    return bind(window_op, x, key=(position(i, x.shape[0], "index", 0), *[whole(n) for n in x.shape[1:]]))


@exact_planner
def _basic(x: Layout, entries: tuple) -> Any:
    """Planner of `x[entries]` with ints, (start, stop, step), None and Ellipsis."""
    return bind(window_op, x, key=_key(x, entries))


def _key(x: Layout, entries: tuple) -> tuple:
    """The entries of a basic index as the key of a window."""
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
            n = x.shape[i]
            key.append(_sliced(e[0], e[1], e[2], n) if isinstance(e, tuple) else position(e, n, "index", i))
            i += 1
    return tuple(key)


def _is_number(e: Any) -> bool:
    """Is it a 0-d tensor or array of integers? A value of uint8 is a mask, as PyTorch treats it."""
    return isinstance(e, (Tensor, np.ndarray)) and not e.ndim and e.dtype.kind in "iu" and e.dtype != np.uint8


_SEVERAL = (Tensor, list, tuple, range, slice, np.ndarray, type(None), type(Ellipsis))


def _as_tuple(index: Any) -> tuple:
    """The index as a tuple. A list of more than numbers means the tuple, as in PyTorch, where NumPy makes an array of
    it: so that comes with a warning."""
    if isinstance(index, tuple):
        return index
    if isinstance(index, list) and len(index) < 32 and any([isinstance(e, _SEVERAL) for e in index]):
        warn("[index] x[[a, b]] means x[a, b], as in PyTorch; write that, or for an array of indices x[tensor([a, b])]")
        return tuple(index)
    return (index,)


def _plain_entries(index: tuple) -> tuple | None:
    """The index as entries that `_basic` takes, if it is a basic index; else None. A 0-d index tensor counts as its
    value; a recorded step cannot read it, and takes elements by it instead."""
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
        elif isinstance(e, np.integer) or mode.recorder is None and _is_number(e):
            entries.append(int(e))
        else:
            return None
    return tuple(entries)


def getitem(input: Tensor, index: Any) -> Tensor:
    """`input[index]`, as in NumPy and PyTorch. Numbers (0-d index tensors too), slices (with positive steps), None and
    ... give a view; with other index tensors, lists or masks the result is a copy. Differentiable. IndexError if an
    index is out of range."""
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
    index = _as_tuple(index)
    entries = _plain_entries(index)
    if entries is not None:
        return through(_basic, input, entries)
    x, axis, ndims, at = _advanced(input, index)
    return take_at(x, at, axis, ndims)


def _as_index(e: Any, device: Any) -> Any:
    """An entry of an index as int, slice, None, Ellipsis, bool, or an int64 or bool tensor."""
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
        t = t if t.device == device else on_device(t.array.np, device)
    else:
        try:
            return operator.index(e)
        except TypeError:
            kind = TypeError if isinstance(e, str) else IndexError
            raise kind("[index] an index must be a number, slice, None, ..., or a tensor or list of integers or bools; "
                       f"got {type(e).__name__}") from None
    dtype = t.array.layout.dtype
    if dtype == np.uint8:
        warn("[index] a uint8 tensor is a mask, as in PyTorch: write .bool(), or .long() for an index")
        t = cast(t, BOOL)
    elif dtype.kind not in "iub":
        raise IndexError(f"[index] tensors used as indices must be int64, int32 or bool; got {t.array.layout}")
    return t.item() if t.array.layout.dtype == BOOL and not t.array.layout.ndim else t


Part = tuple[int, int, Tensor]          # an index tensor: (first dimension it is for, how many dimensions, index)


def _advanced(x: Tensor, index: tuple) -> tuple[Tensor, int, int, Tensor]:
    """The basic part of an index applied; the rest as one index. Gives (x, axis, ndims, at): `at` counts through the
    `ndims` dimensions of x from `axis` on, as `take_at` does.

    If the index tensors are not next to each other, their dimensions come first, as in NumPy and PyTorch. Numbers do
    not count as index tensors here: they are applied with the slices.
    """
    x, parts = _split_index(x, index)
    if len(parts) > 1:
        x, parts = _without_numbers(x, parts)
        if not parts:
            return x, 0, 0, on_device(np.zeros((), np.int64), x.device)
    shape = x.array.layout.shape
    indices, counts = _checked_parts(parts, shape)
    axis, ndims = parts[0][0], sum(span for _, span, _ in parts)
    if len(parts) == 1:
        return x, axis, ndims, indices[0]
    try:
        broadcast_shapes("index", *[i.array.layout.shape for i in indices])
    except RuntimeError as error:
        raise IndexError(str(error)) from None
    if any(a[0] + a[1] != b[0] for a, b in zip(parts, parts[1:], strict=False)):        # not next to each other
        axes = [d for p, span, _ in parts for d in range(p, p + span)]
        x, axis = through(as_permuted, x, (*axes, *[d for d in range(len(shape)) if d not in axes])), 0
    at = indices[0]
    for i, n in zip(indices[1:], counts[1:], strict=True):
        at = add(mul(at, n), i)
    return x, axis, ndims, at


def _split_index(x: Tensor, index: tuple) -> tuple[Tensor, list[Part]]:
    """x with the basic part of an index applied, and the index tensors that are left."""
    have = x.array.layout
    entries: list[Any] = []             # the basic index; an index tensor takes all of its dimensions here
    parts: list[Part] = []              # with places in `entries`
    for e in [_as_index(e, have.device) for e in index]:
        if isinstance(e, bool):         # a new dimension of size 1, of which one element or none is taken
            parts.append((len(entries), 1, on_device(np.zeros(int(e), np.int64), have.device)))
            entries.append(None)
        elif isinstance(e, Tensor):
            span = e.array.layout.ndim if e.array.layout.dtype == BOOL else 1
            parts.append((len(entries), span, e))
            entries += [(None, None, None)] * span
        else:
            entries.append((_bound(e.start), _bound(e.stop), _bound(e.step)) if isinstance(e, slice) else e)
    key = _key(have, tuple(entries))
    if Ellipsis in entries:             # it becomes `filled` entries of the key
        hole = entries.index(Ellipsis)
        filled = have.ndim - sum(e is not None and e is not Ellipsis for e in entries)
        parts = [(p + filled - 1 if p > hole else p, span, e) for p, span, e in parts]
    dropped = [k for k, e in enumerate(key) if isinstance(e, int)]
    parts = [(p - sum(d < p for d in dropped), span, e) for p, span, e in parts]
    return through(windowed, x, key), parts


def _without_numbers(x: Tensor, parts: list[Part]) -> tuple[Tensor, list[Part]]:
    """x and the parts after 0-d index tensors are applied: like numbers, they drop a dimension."""
    numbers = [p for p in parts if not p[2].array.layout.ndim]
    for k, (p, _, e) in enumerate(numbers):
        size = x.array.layout.shape[p - k]
        x = take_at(x, checked("index", e, size, p), p - k, 1)
    return x, [(p - sum(s[0] < p for s in numbers), span, e) for p, span, e in parts if e.array.layout.ndim]


def _checked_parts(parts: list[Part], shape: tuple[int, ...]) -> tuple[list[Tensor], list[int]]:
    """The parts as indices in range (a mask as the positions of its True elements), and what they count through."""
    indices: list[Tensor] = []
    counts: list[int] = []
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
    return indices, counts


def setitem(input: Tensor, index: Any, value: Any) -> None:
    """`input[index] = value`, in place: `value` (a tensor, a number, array-like) is broadcast and converted.
    RuntimeError for numbers that the dtype cannot hold, and with index tensors for a tensor of a higher kind, other
    than one number at a mask."""
    have = input.array.layout
    value = value.to(have.device) if isinstance(value, Tensor) else given(value, have, "setitem")
    recording = involved(input, value)
    if recording:
        check("setitem", input)
    index = _as_tuple(index)
    if len(index) > 1:
        # 0-d indices are read as numbers: for them `_advanced` would return a copy, and the write would go there
        index = tuple([int(e) if _is_number(e) else e for e in index])
    entries = _plain_entries(index)
    if entries is not None:
        target = through(_basic, input, entries)
        value = _trimmed(value, target.array.layout.shape)
        overwrite("setitem", target, value.array, value)
        return
    if value.dtype is not have.dtype and not can_cast(value.dtype, have.dtype):
        which = [_as_index(e, have.device) for e in index]
        if value.array.layout.size != 1 or any([isinstance(e, Tensor) and e.dtype != BOOL for e in which]):
            check_kind("setitem", have, value.array.layout)
        value = cast(value, have.dtype)
    if recording:
        _put_recorded(input, index, value)
    else:
        with no_grad():
            if not _fill(input, index, value):
                x, axis, ndims, at = _advanced(input, index)
                shape = x.array.layout.shape
                value = _trimmed(value, shape[:axis] + at.array.layout.shape + shape[axis + ndims:])
                if have.device.type == "cpu":
                    have.device.host.call(_put(axis, shape[axis:axis + ndims]), x.array.np, at.array.np, value.array.np)
                else:                   # of several values for one place CuPy writes any, `scatter` the last
                    copy_array(x.array, _with_values(x, axis, ndims, at, value)(x).array)
        bump(input)


def _put_recorded(input: Tensor, index: tuple, value: Tensor) -> None:
    """`input[index] = value` in the graph, where the index has index tensors or masks."""
    mask = _one_number(input, index, value)
    if mask is not None:
        change("setitem", input, lambda old: where(mask, cast(through(as_reshaped, value, ()), old.dtype), old), False)
        return
    x, axis, ndims, at = _advanced(input, index)
    change("setitem", x, _with_values(x, axis, ndims, at, value))


def _with_values(x: Tensor, axis: int, ndims: int, at: Tensor, value: Tensor) -> Callable[[Tensor], Tensor]:
    """`put(old)`: a tensor like x, `old`, with `value` at the places of an index that counts through `ndims` dimensions
    from `axis` on."""
    shape = x.array.layout.shape
    lead, trail, count = shape[:axis], shape[axis + ndims:], at.array.layout.size
    rows = (*lead, *at.array.layout.shape, *trail)
    source = through(as_reshaped, through(as_expanded, _trimmed(value, rows), rows), (*lead, count, *trail))
    source = cast(source, x.dtype)
    where_to = each_row(through(as_reshaped, at, (count,)), axis, source.array.layout.shape)

    def put(old: Tensor) -> Tensor:
        flat = through(as_reshaped, old, (*lead, prod(shape[axis:axis + ndims]), *trail))
        return through(as_reshaped, scatter_op(flat, where_to, source, dim=axis), shape)
    return put


def delitem(input: Tensor, index: Any) -> NoReturn:
    """TypeError: `del input[index]` is not possible."""
    raise TypeError(f"[delitem] the elements of a tensor cannot be deleted; got {input.array.layout}; take what is to "
                    "stay with a mask or an index, x[mask]")


def _trimmed(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A value without leading dimensions of size 1 that its place lacks; it must broadcast to the place."""
    given = value.array.layout.shape
    while len(given) > len(shape) and given[0] == 1:
        given = given[1:]
    if len(given) > len(shape) or any(n not in (1, m) for n, m in zip(reversed(given), reversed(shape), strict=False)):
        fail("setitem", "the value must broadcast to the shape of the place",
             [f"value {list(value.array.layout.shape)}", f"place {list(shape)}"])
    return through(as_reshaped, value, given)


def _one_number(x: Tensor, index: tuple, value: Tensor) -> Tensor | None:
    """The mask of x[mask] = number, in a shape that broadcasts against x. None if the index is not a mask, or the value
    not one number."""
    if len(index) != 1 or value.array.layout.size != 1 or not isinstance(index[0], (Tensor, np.ndarray)):
        return None
    have, mask = x.array.layout, _as_index(index[0], x.array.layout.device)
    if not isinstance(mask, Tensor):
        return None
    over = mask.array.layout
    if over.dtype != BOOL or over.shape != have.shape[:over.ndim]:
        return None
    return through(as_reshaped, mask, over.shape + (1,) * (have.ndim - over.ndim))


def _fill(x: Tensor, index: tuple, value: Tensor) -> bool:
    """x[mask] = number, without reading where the mask is True. False if that is not what is asked for."""
    mask = _one_number(x, index, value)
    if mask is not None:
        copy_array(x.array, where(mask, cast(through(as_reshaped, value, ()), x.dtype), x).array)
    return mask is not None


def _put(axis: int, sizes: tuple[int, ...]) -> Callable[..., None]:
    """The function that writes values where an index says that counts through `sizes`, from `axis` on."""
    def put(at: Any, value: Any, out: Any) -> None:
        at = at.copy()                  # another thread may change it after NumPy has looked at its values
        out[(slice(None),) * axis + (np.unravel_index(at, sizes) if len(sizes) != 1 else (at,))] = value
    return put


INPLACE = {"scatter", "scatter_add", "index_add", "index_copy", "index_fill"}
METHODS = {"__getitem__": getitem, "__setitem__": setitem, "__delitem__": delitem}
