"""Views: reshape, permute, expand, squeeze, select, narrow, diagonal; and the primitives that they use.

A view has the memory of its input and another layout (shape, strides, offset), so no kernel runs. A *planner* is a
cached function of the input's layout and the arguments: it decides once per signature what a call does. `through` runs
the plan and records it. Read first `planner`, `bind` and `through` in through.py, then `view_op`, `reshape` and
`permute` here.

The primitives: `reshape` (may copy), `permute`, `expand`, `window` (basic indexing), `diagonal`, `alias`. The gradients
of `window` and `diagonal` are `place` and `place_diagonal`: zeros with the gradient written into the view.
"""
from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..core.arrays import mover
from ..core.op import Primitive, parameters
from ..core.shape import BOOL, axis_of, broadcast_shapes, fail, is_float, left_out
from ..core.tensor import Tensor
from ..devices.memory import Array, Layout, alloc, contiguous_strides, layout
from ..devices.plan import Plan, view_plan, view_strides
from .arguments import axes, existing_axis, infer_shape, named, position, sizes, whole
from .dispatch import constant
from .math import copy
from .through import bind, exact_planner, planner, through

__all__ = ["reshape", "view", "view_as", "reshape_as", "permute", "transpose", "swapaxes", "swapdims", "t",
           "movedim", "moveaxis", "expand", "expand_as", "broadcast_to", "broadcast_tensors", "squeeze",
           "unsqueeze", "flatten", "unflatten", "ravel", "contiguous", "atleast_1d", "atleast_2d",
           "atleast_3d", "select", "narrow", "diagonal", "diag", "diag_embed"]
SHORT = True                # the functions, beside a check of their arguments: core/messages.py


# ---- view_op, reshape ------------------------------------------------------------------------------------------------

def view_op(name: str, rule: Callable[..., tuple[Layout, int]], vjp: Callable | None = None) -> Primitive:
    """A view primitive made of `rule(x, **attrs) -> (layout, offset in elements)`."""
    def prepare(x: Layout, **attrs: Any) -> Plan:
        to, offset = rule(x, **attrs)
        return view_plan(to, operator.index(offset) * x.dtype.itemsize if to.size else 0)
    return Primitive(name, prepare, {"x": vjp} if vjp else None, ["x"], rule.__doc__, parameters(rule)[1])


def _alias_rule(x: Layout) -> tuple[Layout, int]:
    """The same values in the same memory: an identity node."""
    return x, 0


alias = view_op("alias", _alias_rule, lambda g: g)


@alias.samples
def _alias_samples(make: Any) -> Any:
    yield make(3, 4),
    yield make(),


@alias.reference
def _alias_reference(x: Any) -> Any:
    return x


def _prepare_reshape(x: Layout, *, shape: tuple[int, ...]) -> Plan:
    """The same elements in row-major order under another shape: a view where the strides allow it, else a copy."""
    total = 1
    for n in shape:
        total *= n
    if total != x.size:
        fail("reshape", "the number of elements must not change", [x, f"shape {list(shape)}"],
             "use -1 for one size to have it inferred")
    strides = view_strides(x, shape) if x.size else contiguous_strides(shape)
    if strides is not None:
        return view_plan(layout(x.device, x.dtype, shape, strides), 0)
    out, move = layout(x.device, x.dtype, shape), mover(layout(x.device, x.dtype, x.shape), x)

    def run(a: Array) -> Array:
        y = alloc(out)
        move(y, 0, a)
        return y
    return Plan(run, out, "copies: the strides do not allow a view")


@exact_planner
def as_reshaped(x: Layout, shape: tuple[int, ...]) -> Plan:
    """Planner: `reshape` to a shape that is known to fit."""
    return bind(reshape_op, x, shape=shape)


reshape_op = Primitive("reshape", _prepare_reshape, {"x": lambda g, x_shape: through(as_reshaped, g, x_shape)})


@reshape_op.samples
def _reshape_samples(make: Any) -> Any:
    yield make(4, 33), {"shape": (33, 4)}
    yield make(2, 3, 5), {"shape": (30,)}
    yield make(1, 32, 1), {"shape": (2, 16)}
    yield make(), {"shape": (1, 1)}
    yield make(0, 3), {"shape": (3, 0)}


@reshape_op.errors
def _reshape_errors(make: Any) -> Any:
    yield (make(4, 3), {"shape": (5, 2)}), RuntimeError, r"number of elements.*\[4, 3\].*\[5, 2\]"


@reshape_op.reference
def _reshape_reference(x: Any, *, shape: tuple[int, ...]) -> Any:
    return x.reshape(shape)


@planner
def _reshape_to(x: Layout, *shape: Any) -> Plan:
    """Planner of `reshape`: checks the shape and computes a size of -1."""
    return bind(reshape_op, x, shape=infer_shape("reshape", x.size, sizes(shape, "reshape", infer=True)))


def reshape(input: Tensor, *args: Any, **given: Any) -> Tensor:
    """The elements of `input` in row-major order under another `shape`: `reshape(2, 3)` or `reshape((2, 3))`.

    One size may be -1: it is computed from the number of elements. The result is a view where the strides allow it,
    else a copy. RuntimeError if the number of elements does not fit.

    >>> minigrad.arange(6).reshape(2, -1).shape
    Size([2, 3])
    """
    if given:
        args = named(args, given, "shape", "reshape")
    if len(args) == 2:                              # a call with a star takes 90 ns more
        return through(_reshape_to, input, args[0], args[1])
    return through(_reshape_to, input, *args)


@planner
def _view_to(x: Layout, *shape: Any) -> Plan:
    """Planner of `view`."""
    if len(shape) == 1 and not isinstance(shape[0], (int, tuple, list, np.integer)):
        raise TypeError(f"[view] expected a shape or a dtype; got {shape[0]}")
    bound = bind(reshape_op, x, shape=infer_shape("view", x.size, sizes(shape, "view", infer=True)))
    if bound.offset is None:
        fail("view", "the strides must allow the shape without a copy", [x, f"shape {list(bound.layout.shape)}"],
             "use reshape(...)")
    return bound


def _bytes_rule(x: Layout, *, dtype: np.dtype) -> tuple[Layout, int]:
    """The same memory read as another dtype; the last size changes with the size of an element."""
    shape, strides, old, new = x.shape, x.strides, x.dtype.itemsize, dtype.itemsize
    if old != new:
        fits = x.ndim and strides[-1] == 1 and not any(n * old % new for n in (shape[-1], *strides[:-1]))
        if not fits or new < old and old % new:
            fail("view", f"a {x.dtype} tensor cannot be read as {dtype}: the last stride must be 1, and the last size "
                 "and other strides multiples of the new element's size", x, "use contiguous()")
        shape = (*shape[:-1], shape[-1] * old // new)
        strides = (*[s * old // new for s in strides[:-1]], 1)
    return layout(x.device, dtype, shape, strides), 0


read_as = view_op("view_as_dtype", _bytes_rule)


@read_as.samples
def _read_as_samples(make: Any) -> Any:
    yield make.ints(3, 4), {"dtype": np.dtype("float64")}


@read_as.errors
def _read_as_errors(make: Any) -> Any:
    yield (make.bools(8, 4).t(), {"dtype": np.dtype("int32")}), RuntimeError, "last stride must be 1"


@read_as.reference
def _read_as_reference(x: Any, *, dtype: np.dtype) -> Any:
    return x.view(dtype)


@exact_planner
def _read_as(x: Layout, dtype: np.dtype) -> Plan:
    return bind(read_as, x, dtype=dtype)


def view(input: Tensor, *shape: Any, dtype: Any = None, size: Any = None) -> Tensor:
    """The memory of `input` under another `shape` (one size may be -1). RuntimeError where the strides do not allow it
    without a copy: use `reshape` there.

    `view(dtype)` reads the memory as another dtype (`to(dtype)` converts the values), with another last size if its
    elements have another size. It has no gradient: RuntimeError for floats where one is required, and for bools.

    >>> minigrad.tensor([1.0, -0.0]).view("int32").tolist()
    [1065353216, -2147483648]
    """
    if dtype is None:
        if size is not None:
            shape = named(shape, {"size": size}, "size", "view")
        try:
            return through(_view_to, input, *shape)
        except TypeError:
            if len(shape) != 1 or not isinstance(shape[0], (np.dtype, type, str)) or not isinstance(input, Tensor):
                raise
            dtype = shape[0]
    elif shape:
        raise TypeError(f"[view] takes a shape or a dtype, not both; got {shape}, {dtype}; call view twice")
    to = np.dtype(dtype)
    if not is_float(to) and to.kind not in "biu":
        raise TypeError(f"[view] {to} is no dtype of tensors")
    if to == input.dtype:
        return through(_view_to, input, input.array.layout.shape)
    if input.requires_grad and is_float(to) or BOOL in (to, input.dtype):
        fail("view", "floats of a tensor that requires a gradient, and bools, share no memory with another dtype",
             [input.array.layout, to], f"use detach(), or convert with .to({to})")
    if input.array.ptr % to.itemsize:
        fail("view", f"the memory must begin at a multiple of {to.itemsize} bytes", input.array.layout, "use clone()")
    return through(_read_as, input.detach(), to)


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """`input.view(other.shape)`."""
    return through(_view_to, input, other.array.layout.shape)


def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """`input.reshape(other.shape)`."""
    return through(_reshape_to, input, other.array.layout.shape)


@exact_planner
def _ravel(x: Layout) -> Plan:
    """Planner of `ravel`."""
    return bind(reshape_op, x, shape=(x.size,))


def ravel(input: Tensor) -> Tensor:
    """All elements in row-major order in one dimension, contiguous: a view of a contiguous tensor, else a copy."""
    return contiguous(through(_ravel, input))


@planner
def _flatten(x: Layout, start_dim: Any, end_dim: Any) -> Plan:
    """Planner of `flatten`."""
    a, b = axis_of(start_dim, x.ndim, "flatten"), axis_of(end_dim, x.ndim, "flatten")
    if a > b:
        fail("flatten", "start_dim must not come after end_dim", [x, f"start_dim {start_dim}", f"end_dim {end_dim}"])
    joined = 1
    for n in x.shape[a:b + 1]:
        joined *= n
    return bind(reshape_op, x, shape=(*x.shape[:a], joined, *x.shape[b + 1:]))


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The dimensions `start_dim` to `end_dim` (included) joined into one; a 0-d tensor becomes shape (1,). A view where
    the strides allow it, else a copy."""
    return through(_flatten, input, start_dim, end_dim)


@planner
def _unflatten(x: Layout, dim: Any, shape: Any) -> Plan:
    """Planner of `unflatten`."""
    a = existing_axis(dim, x.ndim, "unflatten")
    parts = infer_shape("unflatten", x.shape[a], sizes((shape,), "unflatten", infer=True))
    total = 1
    for n in parts:
        total *= n
    if total != x.shape[a] or not parts:
        fail("unflatten", f"the sizes must multiply to size {x.shape[a]} of dim {dim}", [x, f"sizes {list(parts)}"])
    return bind(reshape_op, x, shape=(*x.shape[:a], *parts, *x.shape[a + 1:]))


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Dimension `dim` split into dimensions of the given `sizes`, the reverse of `flatten`. One size may be -1;
    RuntimeError if the sizes do not multiply to the size of `dim`."""
    return through(_unflatten, input, dim, tuple([operator.index(n) for n in sizes]))


@planner
def _squeeze(x: Layout, dim: Any) -> Plan:
    """Planner of `squeeze`."""
    given = range(x.ndim) if dim is None else [a for a in axes((dim,), x.ndim, "squeeze") if a < x.ndim]
    return bind(reshape_op, x, shape=tuple([n for i, n in enumerate(x.shape) if n != 1 or i not in given]))


def squeeze(input: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """Without the dimensions of size 1: all of them, or those named by `dim` (an int or a tuple). A named dimension of
    another size stays."""
    return through(_squeeze, input, dim)


@planner
def _unsqueeze(x: Layout, dim: Any) -> Plan:
    """Planner of `unsqueeze`."""
    a = axis_of(dim, x.ndim + 1, "unsqueeze")
    return bind(reshape_op, x, shape=(*x.shape[:a], 1, *x.shape[a:]))


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a new dimension of size 1 at position `dim`, where -ndim - 1 <= dim <= ndim: a view."""
    return through(_unsqueeze, input, dim)


def _at_least(n: int, where_to: Callable[[tuple[int, ...]], tuple[int, ...]], tensors: tuple) -> Any:
    """The function `atleast_nd` for one tensor, several tensors, or a list of them; `where_to` gives the new shape."""
    if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
        return tuple([_at_least(n, where_to, (t,)) for t in tensors[0]])
    if len(tensors) != 1:
        return tuple([_at_least(n, where_to, (t,)) for t in tensors])
    x = tensors[0]
    return x if x.array.layout.ndim >= n else through(as_reshaped, x, where_to(x.array.layout.shape))


def atleast_1d(*tensors: Any) -> Any:
    """0-d tensors with shape (1,), others unchanged. Several tensors, or a list of them, give a tuple."""
    return _at_least(1, lambda s: (1,), tensors)


def atleast_2d(*tensors: Any) -> Any:
    """Tensors with leading dimensions of size 1 added up to two: () becomes (1, 1), (n,) becomes (1, n). Several
    tensors, or a list of them, give a tuple."""
    return _at_least(2, lambda s: (1,) * (2 - len(s)) + s, tensors)


def atleast_3d(*tensors: Any) -> Any:
    """Tensors with dimensions of size 1 added up to three: () becomes (1, 1, 1), (n,) becomes (1, n, 1), (m, n) becomes
    (m, n, 1). Several tensors, or a list of them, give a tuple."""
    return _at_least(3, lambda s: (*s, 1) if len(s) == 2 else (1, *(s or (1,)), 1), tensors)


# ---- permute ---------------------------------------------------------------------------------------------------------

def _permute_rule(x: Layout, *, axes: tuple[int, ...]) -> tuple[Layout, int]:
    """The dimensions in another order."""
    if sorted(axes) != list(range(x.ndim)):
        fail("permute", "dims must name each dimension once", [x, f"dims {list(axes)}"])
    return layout(x.device, x.dtype, tuple([x.shape[a] for a in axes]), tuple([x.strides[a] for a in axes])), 0


@exact_planner
def as_permuted(x: Layout, axes: tuple[int, ...]) -> Plan:
    """Planner: `permute` to an order that names each dimension once, without negative numbers."""
    return bind(_permute, x, axes=axes)


@lru_cache(maxsize=1024)
def inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes `axes`."""
    back = [0] * len(axes)
    for i, a in enumerate(axes):
        back[a] = i
    return tuple(back)


_permute = view_op("permute", _permute_rule, lambda g, axes: through(as_permuted, g, inverse(axes)))


@_permute.samples
def _permute_samples(make: Any) -> Any:
    yield make(3, 4), {"axes": (1, 0)}
    yield make(2, 31, 1, 3), {"axes": (2, 0, 3, 1)}
    yield make(), {"axes": ()}
    yield make(0, 3), {"axes": (1, 0)}


@_permute.errors
def _permute_errors(make: Any) -> Any:
    yield (make(3, 4), {"axes": (0, 0)}), RuntimeError, "each dimension once"
    yield (make(3, 4), {"axes": (0,)}), RuntimeError, "each dimension once"


@_permute.reference
def _permute_reference(x: Any, *, axes: tuple[int, ...]) -> Any:
    return x.transpose(axes)


@planner
def _permute_to(x: Layout, *dims: Any) -> Plan:
    """Planner of `permute`."""
    return bind(_permute, x, axes=axes(dims, x.ndim, "permute"))


def permute(input: Tensor, *args: Any, **given: Any) -> Tensor:
    """The dimensions in the order `dims`: a view. `permute(2, 0, 1)` or `permute((2, 0, 1))`; RuntimeError unless each
    dimension is named once. Dimension i of the result is dimension dims[i] of `input`."""
    return through(_permute_to, input, *(named(args, given, "dims", "permute") if given else args))


@planner
def _transpose(x: Layout, dim0: Any, dim1: Any) -> Plan:
    """Planner of `transpose`."""
    order = list(range(x.ndim))
    a, b = axis_of(dim0, x.ndim, "transpose"), axis_of(dim1, x.ndim, "transpose")
    if order:
        order[a], order[b] = b, a
    return bind(_permute, x, axes=tuple(order))


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Dimensions `dim0` and `dim1` swapped: a view."""
    return through(_transpose, input, dim0, dim1)


def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """`transpose(input, axis0, axis1)`."""
    return through(_transpose, input, axis0, axis1)


def swapdims(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """`transpose(input, dim0, dim1)`."""
    return through(_transpose, input, dim0, dim1)


@exact_planner
def _t(x: Layout) -> Plan:
    """Planner of `t`."""
    if x.ndim > 2:
        fail("t", "needs at most two dimensions", x, "use transpose(dim0, dim1) or mT")
    return bind(_permute, x, axes=tuple(reversed(range(x.ndim))))


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix: a view. Vectors stay as they are; RuntimeError for more than two dimensions."""
    return through(_t, input)


@exact_planner
def _reversed(x: Layout) -> Plan:
    """Planner of `x.T`."""
    return bind(_permute, x, axes=tuple(reversed(range(x.ndim))))


@exact_planner
def as_matrix_transpose(x: Layout) -> Plan:
    """Planner of `x.mT`."""
    if x.ndim < 2:
        fail("mT", "needs at least two dimensions", x)
    return bind(_permute, x, axes=(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def matrix_transpose(input: Tensor) -> Tensor:
    """The last two dimensions swapped, `x.mT`: a view. RuntimeError for fewer than two dimensions."""
    return through(as_matrix_transpose, input)


def reverse_dims(input: Tensor) -> Tensor:
    """All dimensions in reverse order, `x.T`: a view."""
    return through(_reversed, input)


@planner
def as_moved(x: Layout, source: Any, destination: Any) -> Plan:
    """Planner of `movedim`."""
    a, b = [axes(tuple(d) if isinstance(d, (tuple, list)) else (d,), x.ndim, "movedim") for d in (source, destination)]
    if len(a) != len(b):
        fail("movedim", "source and destination must have the same length",
             [f"source {source}", f"destination {destination}"])
    order = [i for i in range(x.ndim) if i not in a]
    for to, d in sorted(zip(b, a, strict=True)):
        order.insert(to, d)
    return bind(_permute, x, axes=tuple(order[:x.ndim]))


def movedim(input: Tensor, source: int | tuple[int, ...], destination: int | tuple[int, ...]) -> Tensor:
    """The dimensions `source` (an int or a tuple) moved to the places `destination`, the others in their order: a view.
    RuntimeError if the two differ in length.

    >>> minigrad.zeros(2, 3, 4).movedim(0, -1).shape
    Size([3, 4, 2])
    """
    return through(as_moved, input, source, destination)


def moveaxis(input: Tensor, source: int | tuple[int, ...], destination: int | tuple[int, ...]) -> Tensor:
    """`movedim(input, source, destination)`."""
    return through(as_moved, input, source, destination)


# ---- expand ----------------------------------------------------------------------------------------------------------

def _expand_rule(x: Layout, *, shape: tuple[int, ...]) -> tuple[Layout, int]:
    """Dimensions of size 1 and missing leading dimensions repeated without a copy: their stride is 0."""
    lead = len(shape) - x.ndim
    if lead < 0 or builtins.any(n not in (1, m) for n, m in zip(x.shape, shape[lead:], strict=True)):
        fail("expand", "only sizes of 1 can be expanded", [x, f"shape {list(shape)}"])
    strides = [0 if n == 1 and m != 1 else s for n, m, s in zip(x.shape, shape[lead:], x.strides, strict=True)]
    return layout(x.device, x.dtype, shape, (*[0] * lead, *strides)), 0


_expand = view_op("expand", _expand_rule, lambda g: g)      # the engine sums over the repeated dimensions


@exact_planner
def as_expanded(x: Layout, shape: tuple[int, ...]) -> Plan:
    """Planner: `expand` to a shape without -1."""
    return bind(_expand, x, shape=shape)


def zeros_on(shape: tuple[int, ...], like: Layout) -> Tensor:
    """Zeros with the dtype and device of `like`; they take the memory of one number: do not write to them."""
    return through(as_expanded, constant(0, like.dtype, like.device), shape)


@_expand.samples
def _expand_samples(make: Any) -> Any:
    yield make(1, 33), {"shape": (5, 33)}
    yield make(3, 1, 2), {"shape": (4, 3, 31, 2)}
    yield make(), {"shape": (2, 3)}
    yield make(3), {"shape": (3,)}
    yield make(1, 3), {"shape": (0, 3)}


@_expand.errors
def _expand_errors(make: Any) -> Any:
    yield (make(2, 3), {"shape": (4, 3)}), RuntimeError, "sizes of 1"
    yield (make(2, 3), {"shape": (3,)}), RuntimeError, "sizes of 1"


@_expand.reference
def _expand_reference(x: Any, *, shape: tuple[int, ...]) -> Any:
    return np.broadcast_to(x, shape)


@planner
def _expand_to(x: Layout, *shape: Any) -> Plan:
    """Planner of `expand`: replaces sizes of -1."""
    given = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    lead = len(given) - x.ndim
    wanted = sizes(tuple(x.shape[i - lead] if i >= lead >= 0 and type(n) is int and n == -1 else n
                         for i, n in enumerate(given)), "expand")
    if lead < 0:
        fail("expand", "at least as many sizes are needed as there are dimensions", [x, f"sizes {list(given)}"])
    return bind(_expand, x, shape=wanted)


def expand(input: Tensor, *sizes: Any, size: Any = None) -> Tensor:
    """Dimensions of size 1, and missing leading dimensions, repeated to the given `sizes`: a view (stride 0). -1 keeps
    a size. RuntimeError if a size other than 1 would change. In-place methods refuse an expanded tensor: clone it
    first."""
    return through(_expand_to, input, *(sizes if size is None else named(sizes, {"size": size}, "size", "expand")))


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """`input.expand(other.shape)`."""
    return through(as_expanded, input, other.array.layout.shape)


def broadcast_to(input: Tensor, size: Sequence[int]) -> Tensor:
    """`input.expand(size)`."""
    return through(_expand_to, input, size)


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """A tuple of the tensors expanded to their common shape: views. RuntimeError if the shapes do not broadcast."""
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    shape = broadcast_shapes("broadcast_tensors", *[x.array.layout.shape for x in given])
    return tuple([through(as_expanded, x, shape) for x in given])


def contiguous(input: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor itself if its memory is in row-major order, else a copy that is; differentiable. NotImplementedError
    for a `memory_format`."""
    if memory_format is not None:               # a call more would take a third of the time
        left_out("contiguous", "memory_format", memory_format)
    return input if input.array.layout.contiguous else copy.call(input)


# ---- windows (basic indexing) and diagonals --------------------------------------------------------------------------

def window_rule(x: Layout, *, key: tuple) -> tuple[Layout, int]:
    """Basic indexing. `key` has one entry for each dimension: an int (the dimension is dropped) or (start, step,
    length). An entry None adds a dimension of size 1."""
    shape, strides, offset, i = [], [], 0, 0
    for entry in key:
        if entry is None:
            shape.append(1)
            strides.append(1)
            continue
        n, s = x.shape[i], x.strides[i]
        i += 1
        if isinstance(entry, tuple):
            start, step, length = entry
            if length < 0 or step < 1 or start < 0 or start + (length - 1) * step >= n and length:
                fail("window", "slices must lie inside the tensor", [x, f"key {key}"])
            shape.append(length)
            strides.append(s * step)
            offset += start * s if length else 0
        else:
            if not 0 <= entry < n:
                raise IndexError(f"[window] an index must lie inside the tensor; got {x}, key {key}")
            offset += entry * s
    if i != x.ndim:
        fail("window", "key needs one entry for each dimension", [x, f"key {key}"])
    to = layout(x.device, x.dtype, tuple(shape), tuple(strides))
    return to, offset if to.size else 0         # no elements lie nowhere: an address beyond the memory has no owner


def _diagonal_rule(x: Layout, *, offset: int, dim1: int, dim2: int) -> tuple[Layout, int]:
    """x[..., i, i + offset]: the diagonal of two dimensions, as the last dimension."""
    n = builtins.max(builtins.min(x.shape[dim1] + builtins.min(offset, 0), x.shape[dim2] - builtins.max(offset, 0)), 0)
    rest = [i for i in range(x.ndim) if i not in (dim1, dim2)]
    start = (offset * x.strides[dim2] if offset >= 0 else -offset * x.strides[dim1]) if n else 0
    return layout(x.device, x.dtype, tuple([x.shape[i] for i in rest] + [n]),
                  tuple([x.strides[i] for i in rest] + [x.strides[dim1] + x.strides[dim2]])), start


def _placer(name: str, rule: Callable[..., tuple[Layout, int]], cut: Callable) -> Primitive:
    """The transpose of a view: `g` where the view lies, zeros elsewhere, in a tensor of `shape`."""
    def prepare(g: Layout, *, shape: tuple[int, ...], **attrs: Any) -> Plan:
        out = layout(g.device, g.dtype, shape)
        inside, offset = rule(out, **attrs)
        if inside.shape != g.shape:
            fail(name, "g must have the shape of the view", [g, inside])
        move, start = mover(inside, g), operator.index(offset) * g.dtype.itemsize
        zero = constant(0, g.dtype, g.device).array
        clear = None if inside.size == out.size else mover(out, zero.layout)

        def run(a: Array) -> Array:
            y = alloc(out)
            if clear is not None:
                clear(y, 0, zero)
            move(y, start, a)
            return y
        return Plan(run, out, "zeros, and a copy into the view")
    return Primitive(name, prepare, {"x": cut}, ["x"], _placer.__doc__, ["shape", *parameters(rule)[1]])


@exact_planner
def windowed(x: Layout, key: tuple) -> Plan:
    """Planner of the primitive `window`."""
    return bind(window_op, x, key=key)


@exact_planner
def _placed(g: Layout, shape: tuple[int, ...], key: tuple) -> Plan:
    """Planner of the primitive `place`."""
    return bind(place_op, g, shape=shape, key=key)


window_op = view_op("window", window_rule, lambda g, x_shape, key: through(_placed, g, x_shape, key))
place_op = _placer("place", window_rule, lambda g, key: through(windowed, g, key))
window_op.called, place_op.called = "index", "pad"
_diagonal: Primitive = view_op(
    "diagonal", _diagonal_rule,
    lambda g, x_shape, offset, dim1, dim2: _place_diagonal(g, shape=x_shape, offset=offset, dim1=dim1, dim2=dim2))
_place_diagonal: Primitive = _placer(
    "place_diagonal", _diagonal_rule,
    lambda g, offset, dim1, dim2: _diagonal(g, offset=offset, dim1=dim1, dim2=dim2))


@window_op.samples
def _window_samples(make: Any) -> Any:
    yield make(5, 33), {"key": ((1, 2, 2), (0, 1, 33))}
    yield make(5, 33), {"key": (2, (0, 1, 33))}
    yield make(2, 31, 4), {"key": (1, None, (30, 1, 1), (0, 3, 2))}
    yield make(4), {"key": ((4, 1, 0),)}
    yield make(), {"key": (None,)}


@window_op.errors
def _window_errors(make: Any) -> Any:
    yield (make(3), {"key": ((0, 1, 4),)}), RuntimeError, "inside the tensor"
    yield (make(3), {"key": (3,)}), IndexError, "inside the tensor"
    yield (make(3), {"key": (0, 0)}), IndexError, "|".join(["list index", "tuple index"])


@window_op.reference
def _window_reference(x: Any, *, key: tuple) -> Any:
    return x[tuple(slice(e[0], e[0] + e[1] * e[2], e[1]) if isinstance(e, tuple) else e for e in key)]


@place_op.samples
def _place_samples(make: Any) -> Any:
    yield make(2, 33), {"shape": (5, 33), "key": ((1, 2, 2), (0, 1, 33))}
    yield make(33), {"shape": (5, 33), "key": (2, (0, 1, 33))}
    yield make(1, 0), {"shape": (3,), "key": (None, (0, 1, 0))}


@place_op.errors
def _place_errors(make: Any) -> Any:
    yield (make(2), {"shape": (5,), "key": ((0, 1, 3),)}), RuntimeError, "shape of the view"


@place_op.reference
def _place_reference(g: Any, *, shape: tuple[int, ...], key: tuple) -> Any:
    out = np.zeros(shape, g.dtype)
    _window_reference(out, key=key)[...] = g
    return out


@_diagonal.samples
def _diagonal_samples(make: Any) -> Any:
    yield make(4, 4), {"offset": 0, "dim1": 0, "dim2": 1}
    yield make(3, 31, 33), {"offset": -2, "dim1": 2, "dim2": 1}
    yield make(3, 5), {"offset": 4, "dim1": 0, "dim2": 1}
    yield make(3, 3), {"offset": 7, "dim1": 0, "dim2": 1}


@_diagonal.reference
def _diagonal_reference(x: Any, *, offset: int, dim1: int, dim2: int) -> Any:
    return np.diagonal(x, offset, dim1, dim2)


@_place_diagonal.samples
def _place_diagonal_samples(make: Any) -> Any:
    yield make(3), {"shape": (3, 4), "offset": 1, "dim1": 0, "dim2": 1}
    yield make(2, 31), {"shape": (32, 2, 31), "offset": -1, "dim1": 0, "dim2": 2}


@_place_diagonal.reference
def _place_diagonal_reference(g: Any, *, shape: tuple[int, ...], offset: int, dim1: int, dim2: int) -> Any:
    out = np.zeros(shape, g.dtype)
    moved = np.moveaxis(out, (dim1, dim2), (-2, -1))
    i = np.arange(g.shape[-1])
    moved[..., i - builtins.min(offset, 0), i + builtins.max(offset, 0)] = g
    return out


@planner
def _select(x: Layout, dim: Any, index: Any) -> Plan:
    """Planner of `select`."""
    a = existing_axis(dim, x.ndim, "select")
    key = tuple([position(index, n, "select", a) if i == a else whole(n) for i, n in enumerate(x.shape)])
    return bind(window_op, x, key=key)


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """`input[:, ..., index]` with `index` at dimension `dim`, which is dropped: a view. IndexError if it is out of
    range."""
    return through(_select, input, dim, index)


@planner
def as_narrowed(x: Layout, dim: Any, start: Any, length: Any) -> Plan:
    """Planner of `narrow`."""
    a = existing_axis(dim, x.ndim, "narrow")
    n, first, count = x.shape[a], operator.index(start), operator.index(length)
    if not -n <= first <= n:
        raise IndexError(f"[narrow] start must lie in [{-n}, {n}]; got {start}; the tensor is {x}")
    first += n if first < 0 else 0
    if count < 0 or first + count > n:
        fail("narrow", f"start + length must not exceed size {n}", [x, f"start {start}", f"length {length}"])
    return bind(window_op, x, key=tuple([(first, 1, count) if i == a else whole(m) for i, m in enumerate(x.shape)]))


def narrow(input: Tensor, dim: int, start: int | Tensor, length: int) -> Tensor:
    """`input[start:start + length]` along dimension `dim`: a view. `start` may be negative, or a 0-d tensor of integers
    (its value is read). IndexError or RuntimeError if the range does not lie inside the dimension."""
    if isinstance(start, Tensor):
        at = start.array.layout
        if at.ndim or at.dtype.kind not in "iu":
            fail("narrow", "start must be a number or a 0-d tensor of integers", at)
        start = operator.index(start)
    return through(as_narrowed, input, dim, start, length)


@planner
def _diagonal_of(x: Layout, offset: Any, dim1: Any, dim2: Any) -> Plan:
    """Planner of `diagonal`."""
    a, b = existing_axis(dim1, x.ndim, "diagonal"), existing_axis(dim2, x.ndim, "diagonal")
    if a == b:
        fail("diagonal", "dim1 and dim2 must differ", [x, f"dims {dim1}, {dim2}"])
    return bind(_diagonal, x, offset=operator.index(offset), dim1=a, dim2=b)


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The elements [..., i, i + offset] of dimensions `dim1` and `dim2`, as the last dimension: a view. `offset` > 0 is
    above the main diagonal, < 0 below it."""
    return through(_diagonal_of, input, offset, dim1, dim2)


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Zeros with the last dimension of `input` on the diagonal of two new dimensions, `dim1` and `dim2`: shape (*, n)
    gives (*, n + |offset|, n + |offset|). The reverse of `diagonal`."""
    x = input.array.layout
    if not x.ndim:
        fail("diag_embed", "needs at least one dimension", x)
    a, b = axis_of(dim1, x.ndim + 1, "diag_embed"), axis_of(dim2, x.ndim + 1, "diag_embed")
    offset = operator.index(offset)
    if a == b:
        fail("diag_embed", "dim1 and dim2 must differ", [x, f"dims {dim1}, {dim2}"])
    shape = list(x.shape[:-1])
    for d in sorted((a, b)):
        shape.insert(d, x.shape[-1] + builtins.abs(offset))
    return _place_diagonal(input, shape=tuple(shape), offset=offset, dim1=a, dim2=b)


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """A vector as a diagonal matrix, or the diagonal of a matrix as a vector (a copy). `diagonal` > 0 is above the main
    diagonal, < 0 below it. RuntimeError for other numbers of dimensions."""
    if input.array.layout.ndim not in (1, 2):
        fail("diag", "needs a vector or a matrix", input.array.layout, "use diagonal(...) or diag_embed(...)")
    if input.array.layout.ndim == 1:
        return diag_embed(input, diagonal)
    return copy.call(through(_diagonal_of, input, diagonal, 0, 1))


def _adjoint(input: Tensor) -> Tensor:
    """A matrix with its two dimensions swapped, `x.H`: a view. RuntimeError for other dimensions than 0 or 2."""
    return matrix_transpose(input) if input.ndim == 1 else t(input)


METHODS = {"T": property(reverse_dims), "mT": property(matrix_transpose), "mH": property(matrix_transpose),
           "H": property(_adjoint)}
