"""Joins and cuts: cat, stack and their relatives; split, chunk, tensor_split, unbind.

A join copies each input into its part of one output; its gradient is a view for each input. A cut is a list of views;
its gradient is one join. Read first view.py (`window_rule`, `windowed`), then `_join` and `_cut` here.
"""
from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..core.arrays import mover
from ..core.inplace import register
from ..core.messages import not_a_tensor
from ..core.modes import mode, paused
from ..core.op import Primitive, same_device
from ..core.out import writes
from ..core.shape import INT64, axis_of, fail, promote
from ..core.tape import Node
from ..core.tensor import Tensor, new_tensor
from ..devices import memory
from ..devices.memory import Array, Layout, alloc, layout
from ..devices.plan import Plan, elementwise_plan, remember
from .arguments import existing_axis, respelled, whole
from .convert import cast
from .through import through
from .view import as_narrowed, as_reshaped, atleast_1d, atleast_2d, atleast_3d, window_rule, windowed, zeros_on

__all__ = ["cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "row_stack", "column_stack", "split",
           "split_with_sizes", "chunk", "tensor_split", "unbind"]


# ---- joins -----------------------------------------------------------------------------------------------------------

def _join(name: str, new: bool, doc: str) -> Primitive:
    """The primitive `cat` or (with `new`) `stack`: any number of inputs, each copied into the output once. `keys` says
    where each input lies in the output: the gradient of an input is that window of the output's gradient."""
    def prepare(*layouts: Layout, dim: int) -> Plan:
        shapes = [(*x.shape[:dim], 1, *x.shape[dim:]) if new else x.shape for x in layouts]
        _check_join(name, new, layouts, shapes, dim)
        first = layouts[0]
        total = builtins.sum(s[dim] for s in shapes)
        out = layout(first.device, first.dtype, (*shapes[0][:dim], total, *shapes[0][dim + 1:]))
        pieces, keys, at = [], [], 0
        lead, rest = [whole(n) for n in out.shape[:dim]], [whole(n) for n in out.shape[dim + 1:]]
        for x, shape in zip(layouts, shapes, strict=True):
            inside = layout(x.device, x.dtype, shape, out.strides)
            source = layout(x.device, x.dtype, shape, (*x.strides[:dim], 0, *x.strides[dim:]) if new else x.strides)
            pieces.append((inside, source, at * out.strides[dim] * x.dtype.itemsize))
            keys.append((*lead, at if new else (at, 1, shape[dim]), *rest))
            at += shape[dim]
        return Plan(_copies(out, pieces, builtins.all(x.size for x in layouts)), out, "one copy for each input",
                    attrs={"dim": dim, "keys": keys})

    def backward(node: Node, g: Tensor, needs: list[bool]) -> list[Tensor | None]:
        keys = node.attrs["keys"]                                       # type: ignore[index]
        return [through(windowed, g, key) if need else None for key, need in zip(keys, needs, strict=True)]
    return Primitive(name, prepare, inputs=["tensors"], doc=doc, backward=backward)


def _check_join(name: str, new: bool, layouts: Sequence[Layout], shapes: list[tuple[int, ...]], dim: int) -> None:
    """Raises unless the inputs have one device and dtype, and sizes that agree."""
    same_device(name, layouts)
    for x, shape in zip(layouts, shapes, strict=True):
        if shape[:dim] + shape[dim + 1:] != shapes[0][:dim] + shapes[0][dim + 1:] or len(shape) != len(shapes[0]):
            what = "all tensors must have the same shape" if new else f"sizes must agree in every dimension but {dim}"
            fail(name, what, layouts)
        if x.dtype != layouts[0].dtype:
            fail(name, "the tensors must have one dtype", layouts)


def _copies(out: Layout, pieces: list[tuple[Layout, Layout, int]], full: bool) -> Callable[..., Array]:
    """The function that copies each input into its piece of the output. A piece is (layout inside the output, layout of
    the input, offset in bytes); `full` says that no input is empty."""
    kernel = out.device.kernels.copy.move(out.dtype)
    if kernel is None or not full:
        moves = [(mover(inside, source), offset) for inside, source, offset in pieces]

        def run(*arrays: Array) -> Array:
            y = alloc(out)
            for (move, offset), a in zip(moves, arrays, strict=True):
                move(y, offset, a)
            return y
        return run
    pairs = dict.fromkeys((inside, source) for inside, source, _ in pieces)        # equal pieces share a table
    tables = {pair: elementwise_plan(*pair) for pair in pairs}
    steps = [(offset, tables[inside, source].ptr) for inside, source, offset in pieces]

    def launch(*arrays: Array, tables: dict = tables) -> Array:         # keeps the tables alive
        y = alloc(out)
        start, call = y.ptr, kernel.call
        for (offset, walk), a in zip(steps, arrays):                    # noqa: B905 (one step for each array)
            call(start + offset, a.ptr, walk)
        return y
    return launch


cat_op = _join("cat", False, "The tensors one after the other along an existing dimension.")
stack_op = _join("stack", True, "The tensors one after the other along a new dimension.")


@cat_op.samples
def _cat_samples(make: Any) -> Any:
    yield make(2, 3), make(5, 3), {"dim": 0}
    yield make(2, 3), make(2, 0), make(2, 33), {"dim": 1}
    yield make(2, 1, 2), {"dim": 1}


@cat_op.errors
def _cat_errors(make: Any) -> Any:
    yield (make(2, 3), make(2, 4), {"dim": 0}), RuntimeError, r"sizes must agree.*\[2, 3\].*\[2, 4\]"


@cat_op.reference
def _cat_reference(*tensors: Any, dim: int) -> Any:
    return np.concatenate(tensors, dim)


@stack_op.samples
def _stack_samples(make: Any) -> Any:
    yield make(2, 33), make(2, 33), {"dim": 0}
    yield make(2, 3), make(2, 3), make(2, 3), {"dim": 2}
    yield make(), make(), {"dim": 0}


@stack_op.errors
def _stack_errors(make: Any) -> Any:
    yield (make(2, 3), make(3, 2), {"dim": 0}), RuntimeError, "same shape"


@stack_op.reference
def _stack_reference(*tensors: Any, dim: int) -> Any:
    return np.stack(tensors, dim)


_seen: dict[tuple, Plan] = {}       # plans by op, `dim` as the caller gave it, and layouts


def _again(op: Primitive, tensors: Any, dim: Any) -> Tensor | None:
    """The join of inputs whose layouts were joined before; None if they were not, or are not all tensors."""
    if type(dim) is not int or type(tensors) is not list and type(tensors) is not tuple:
        return None
    try:
        arrays = [t.array for t in tensors]
        plan = _seen.get((op, dim, *[a.layout for a in arrays]))
    except (AttributeError, TypeError):
        return None
    if plan is None:
        return None
    made = plan.run(*arrays)
    for t in tensors:
        if t._requires_grad and (not paused or mode.grad):
            return op.record(plan, tensors, made)
    return new_tensor(made, None)


def _first(op: Primitive, tensors: Any, given: list[Tensor], dim: Any, axis: int) -> Tensor:
    """The join itself. Its plan is remembered if the inputs are `tensors` unchanged."""
    if given is tensors and type(dim) is int:
        layouts = [t.array.layout for t in given]
        remember(_seen, (op, dim, *layouts), op.plan(layouts, {"dim": axis}))
    return op(*given, dim=axis)


def _joined(op: str, tensors: Any) -> list[Tensor]:
    """The inputs of a join, checked and converted to one dtype."""
    if isinstance(tensors, Tensor) or not isinstance(tensors, (tuple, list)):
        raise TypeError(f"[{op}] expected a tuple or list of tensors; got {type(tensors).__name__}; use {op}([a, b])")
    for x in tensors:
        if not isinstance(x, Tensor):
            raise not_a_tensor(op, "each element", x)
    if not tensors:
        fail(op, "needs at least one tensor", kind=ValueError if op == "cat" else RuntimeError)
    dtype = tensors[0].array.layout.dtype
    for x in tensors:
        if x.array.layout.dtype is not dtype:
            for y in tensors:
                dtype = promote(dtype, y.array.layout.dtype)
            return [cast(y, dtype) for y in tensors]
    return tensors                                  # type: ignore[return-value]


@writes("cast", "apart")
def cat(tensors: Sequence[Tensor], dim: int = 0, **numpy: Any) -> Tensor:
    """The tensors one after the other along the existing dimension `dim`.

    All sizes but that of `dim` must agree (RuntimeError); different dtypes are promoted. Empty tensors of shape (0,)
    are left out, as in PyTorch; 0-d tensors cannot be joined: use `stack`. NumPy's `axis` is accepted for `dim`.

    >>> minigrad.cat([minigrad.zeros(2, 3), minigrad.zeros(4, 3)]).shape
    Size([6, 3])
    """
    if numpy:
        return respelled(cat, numpy, tensors, dim=dim or None)
    found = _again(cat_op, tensors, dim)
    if found is not None:
        return found
    given = _joined("cat", tensors)
    ndim = given[0].array.layout.ndim
    if builtins.all(x.array.layout.shape == (0,) for x in given):
        dim = 0
    if given[0].array.layout.shape == (0,):
        ndim = builtins.max(x.array.layout.ndim for x in given)
    if not ndim or builtins.any(not x.array.layout.ndim for x in given):
        fail("cat", "0-d tensors cannot be joined", [x.array.layout for x in given], "use stack(...)")
    if ndim > 1 and builtins.any(x.array.layout.shape == (0,) for x in given):
        given = [x for x in given if x.array.layout.shape != (0,)]
    return _first(cat_op, tensors, given, dim, axis_of(dim, ndim, "cat"))


concat = concatenate = cat


@writes("cast")
def stack(tensors: Sequence[Tensor], dim: int = 0, **numpy: Any) -> Tensor:
    """The tensors one after the other along a new dimension, `dim` of the result.

    All tensors must have the same shape (RuntimeError); different dtypes are promoted. NumPy's `axis` is accepted for
    `dim`.

    >>> minigrad.stack([minigrad.zeros(3), minigrad.zeros(3)], dim=1).shape
    Size([3, 2])
    """
    if numpy:
        return respelled(stack, numpy, tensors, dim=dim or None)
    found = _again(stack_op, tensors, dim)
    if found is not None:
        return found
    given = _joined("stack", tensors)
    return _first(stack_op, tensors, given, dim, axis_of(dim, given[0].array.layout.ndim + 1, "stack"))


@writes("cast")
def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors joined along the second dimension; vectors and 0-d tensors along the only one."""
    given = atleast_1d(*_joined("hstack", tensors))
    given = given if isinstance(given, tuple) else (given,)
    return cat(given, 0 if given[0].array.layout.ndim == 1 else 1)


@writes("cast")
def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors joined along the first dimension; vectors are rows."""
    return cat(atleast_2d(tuple(_joined("vstack", tensors))), 0)


row_stack = vstack


@writes("cast")
def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors joined along the third dimension, after `atleast_3d`."""
    return cat(atleast_3d(tuple(_joined("dstack", tensors))), 2)


@writes("cast")
def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors joined along the second dimension; vectors and 0-d tensors are columns."""
    given = _joined("column_stack", tensors)
    return cat([through(as_reshaped, x, (x.numel(), 1)) if x.array.layout.ndim < 2 else x for x in given], 1)


# ---- cuts ------------------------------------------------------------------------------------------------------------

def _cut(name: str, drop: bool, doc: str) -> Primitive:
    """The primitive `split` or (with `drop`) `unbind`: views, one after the other along a dimension. One node joins
    their gradients."""
    def prepare(x: Layout, *, sizes: tuple[int, ...], dim: int) -> Plan:
        if builtins.sum(sizes) != x.shape[dim] or builtins.min(sizes, default=0) < 0:
            fail(name, f"the sizes must add up to size {x.shape[dim]} of dim {dim}", [x, f"sizes {list(sizes)}"])
        cuts, at = [], 0
        for n in sizes:
            key = [whole(m) for m in x.shape]
            to, offset = window_rule(x, key=(*key[:dim], at if drop else (at, 1, n), *key[dim + 1:]))
            cuts.append((to, offset * x.dtype.itemsize))
            at += n
        layouts = tuple([to for to, _ in cuts])
        return Plan(lambda a: [memory.view(a, to, offset) for to, offset in cuts], layouts, "views")

    def backward(node: Node, g: Any, needs: list[bool]) -> list[Tensor | None]:
        pieces = [zeros_on(x.shape, x) if piece is None else piece for piece, x in zip(g, node.layout, strict=True)]
        return [(stack_op if drop else cat_op)(*pieces, dim=node.attrs["dim"])]         # type: ignore[index]
    return Primitive(name, prepare, inputs=["x"], doc=doc, backward=backward)


_split = _cut("split", False, "Consecutive pieces along a dimension.")
_unbind = _cut("unbind", True, "The elements of a dimension, without it.")


@_split.samples
def _split_samples(make: Any) -> Any:
    yield make(5, 33), {"sizes": (2, 0, 3), "dim": 0}
    yield make(2, 33), {"sizes": (1, 31, 1), "dim": 1}


@_split.errors
def _split_errors(make: Any) -> Any:
    yield (make(5, 3), {"sizes": (2, 2), "dim": 0}), RuntimeError, "add up to size 5"


@_split.reference
def _split_reference(x: Any, *, sizes: tuple[int, ...], dim: int) -> Any:
    return tuple(np.split(x, np.cumsum(sizes)[:-1], dim))


@_unbind.samples
def _unbind_samples(make: Any) -> Any:
    yield make(3, 4), {"sizes": (1, 1, 1), "dim": 0}
    yield make(2, 3), {"sizes": (1, 1, 1), "dim": 1}


@_unbind.reference
def _unbind_reference(x: Any, *, sizes: tuple[int, ...], dim: int) -> Any:
    return tuple(np.moveaxis(x, dim, 0))


def _pieces(op: Primitive, t: Tensor, **attrs: Any) -> tuple[Tensor, ...]:
    """The views of `t` that a cut makes."""
    plan = op.plan((t.array.layout,), attrs)
    made: tuple[Tensor, ...] = op.finish(plan, (t,), plan.run(t.array))
    register(made, t, plan)
    return made


@lru_cache(maxsize=1024)
def _even(n: int, size: int) -> tuple[int, ...]:
    """The sizes of the pieces when n elements are cut into pieces of `size`."""
    return tuple([builtins.min(size, n - i) for i in range(0, n, size)]) if n else (0,)


def split(tensor: Tensor, split_size_or_sections: int | Sequence[int] | None = None, dim: int = 0, *,
          split_size: int | Sequence[int] | None = None) -> tuple[Tensor, ...]:
    """A tuple of consecutive pieces along `dim`: pieces of one size (the last may be smaller) for an int, or of the
    given sizes for a list. Views. RuntimeError if the sizes do not add up to the size of `dim`. `split_size` is
    PyTorch's other name of the second argument.

    >>> [len(piece) for piece in minigrad.arange(5).split(2)]
    [2, 2, 1]
    """
    x = tensor.array.layout
    if not x.ndim:
        fail("split", "needs at least one dimension", x)
    a = axis_of(dim, x.ndim, "split")
    if split_size_or_sections is None:
        if split_size is None:
            raise TypeError("[split] needs split_size_or_sections")
        split_size_or_sections = split_size
    if isinstance(split_size_or_sections, (tuple, list)):
        return _pieces(_split, tensor, sizes=tuple([operator.index(n) for n in split_size_or_sections]), dim=a)
    size = operator.index(split_size_or_sections)       # type: ignore[arg-type]
    if size < 0 or size == 0 and x.shape[a]:
        fail("split", "the split size must be positive", [x, f"split_size {size}"])
    return _pieces(_split, tensor, sizes=_even(x.shape[a], builtins.max(size, 1)), dim=a)


def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """A tuple of consecutive pieces along `dim`, of the given sizes: views."""
    return split(input, list(split_sizes), dim)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """A tuple of at most `chunks` pieces along `dim`, of one size (the last may be smaller): views. There can be fewer:
    5 elements in 4 chunks are pieces of 2, 2 and 1."""
    x = input.array.layout
    a = existing_axis(dim, x.ndim, "chunk")
    chunks = operator.index(chunks)
    if chunks < 1:
        fail("chunk", "chunks must be positive", chunks)
    if x.shape[a] == 0:
        return _pieces(_split, input, sizes=(0,) * chunks, dim=a)
    return _pieces(_split, input, sizes=_even(x.shape[a], -(-x.shape[a] // chunks)), dim=a)


def tensor_split(input: Tensor, indices_or_sections: int | Sequence[int] | Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """A tuple of pieces along `dim`: views. An int gives so many pieces, with sizes that differ by at most 1; a list
    (or a tensor) of indices cuts before each of them, as NumPy's `array_split` does.

    >>> [len(piece) for piece in minigrad.arange(5).tensor_split(4)]
    [2, 1, 1, 1]
    """
    x = input.array.layout
    a = existing_axis(dim, x.ndim, "tensor_split")
    n = x.shape[a]
    if isinstance(indices_or_sections, Tensor):
        at = indices_or_sections.array.layout
        if at.dtype != INT64 or at.ndim > 1:
            fail("tensor_split", "indices_or_sections must be an int64 number or vector", at)
        indices_or_sections = indices_or_sections.tolist()
    if isinstance(indices_or_sections, (int, np.integer)):
        indices_or_sections = int(indices_or_sections)
        if indices_or_sections < 1:
            fail("tensor_split", "the number of sections must be positive", indices_or_sections)
        small, more = divmod(n, indices_or_sections)
        return _pieces(_split, input, sizes=(small + 1,) * more + (small,) * (indices_or_sections - more), dim=a)
    # each piece is a slice: indices that are out of order or out of range give empty or overlapping pieces
    edges = [0, *[operator.index(i) for i in indices_or_sections]]
    bounds = [slice(low, high).indices(n) for low, high in zip(edges, [*edges[1:], n], strict=True)]
    return tuple([through(as_narrowed, input, a, low, builtins.max(high - low, 0)) for low, high, _ in bounds])


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """A tuple of the elements along `dim`, each without that dimension: views."""
    x = input.array.layout
    a = existing_axis(dim, x.ndim, "unbind")
    return _pieces(_unbind, input, sizes=(1,) * x.shape[a], dim=a)
