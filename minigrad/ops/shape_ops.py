"""Views and joins: reshape, permute, slices and their kin, cat, split, pad.

A view launches nothing: it is another layout on the memory. What a call means is decided once per signature by a
*planner* (a cached function of the layout and the arguments); `through` does the little that is left.
"""
from __future__ import annotations

import builtins
import operator
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .. import engine, memory
from ..engine import Node, Slot, mode
from ..memory import Array, Layout, alloc, contiguous_strides, layout
from ..op import Plan, Primitive, remember, same_device
from ..shape import axis_of, broadcast_shapes, elementwise_plan, fail, is_float, promote, shape_of
from ..tensor import Tensor, new_tensor
from .elementwise import cast, constant, copy, where

__all__ = ["reshape", "view", "view_as", "reshape_as", "permute", "transpose", "swapaxes", "swapdims", "t", "movedim", "moveaxis", "expand",
           "expand_as", "broadcast_to", "broadcast_tensors", "squeeze", "unsqueeze", "flatten", "unflatten", "ravel", "contiguous",
           "atleast_1d", "atleast_2d", "atleast_3d", "select", "narrow", "diagonal", "unfold", "diag", "diag_embed", "tril", "triu",
           "cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "row_stack", "column_stack", "split", "split_with_sizes",
           "chunk", "tensor_split", "unbind", "flip", "fliplr", "flipud", "roll", "rot90", "repeat", "tile", "pad", "meshgrid"]

_new = object.__new__
_NOTHING: tuple = ()


def planner(plan: Callable[..., Any]) -> Callable[..., Any]:
    """Remembers what `plan(layout, *args)` decided."""
    return lru_cache(maxsize=4096, typed=True)(plan)


class ViewPlan(Plan):
    """A plan that launches nothing: the input's memory, `offset` bytes further, under `layout`."""

    __slots__ = ("offset",)

    def __init__(self, to: Layout, offset: int) -> None:
        super().__init__(lambda x: memory.view(x, to, offset), to, "view")
        self.offset = offset


class Bound:
    """An op of one input with its attributes and the plan of one signature."""

    __slots__ = ("op", "attrs", "layout", "offset", "run", "records", "saves")

    def __init__(self, op: Primitive, attrs: dict, plan: Plan) -> None:
        self.op, self.attrs, self.layout, self.run = op, attrs, plan.layout, plan.run
        self.offset = plan.offset if isinstance(plan, ViewPlan) else None
        self.records = builtins.bool(op.rules)
        self.saves = op.keeps_out or builtins.any(op.saves.values())


def bind(op: Primitive, x: Layout, **attrs: Any) -> Bound:
    """The plan of `op` for one signature."""
    key = (x, *attrs.items())
    plan = op.plans.get(key)
    return Bound(op, attrs, remember(op.plans, key, op.prepare(x, **attrs)) if plan is None else plan)


def through(plan: Callable[..., Bound], t: Tensor, *args: Any) -> Tensor:
    """Runs what `plan(layout, *args)` decided, and records it."""
    try:
        a = t.array
        bound = plan(a.layout, *args)
    except (AttributeError, TypeError):
        bound = None                                # type: ignore[assignment]
    if bound is None:                               # an argument that cannot be a key (a list), or is wrong
        if not isinstance(t, Tensor):
            raise TypeError(f"[{plan.__name__.strip('_')}] expected a Tensor; got {type(t).__name__}")
        a = t.array
        bound = plan(a.layout, *[_plain(value) for value in args])
    offset = bound.offset
    array: Array
    if offset is None:
        array = bound.run(a)
    else:
        array = v = _new(memory.View)
        v.layout = bound.layout
        v.ptr = a.ptr + offset
        v.block = a.block
        v.owner = a.owner if type(a) is memory.View else a
    if bound.records and mode.grad and t.requires_grad:
        if bound.saves:
            return bound.op.record((t,), array, bound.attrs)
        out = _new(Tensor)
        out.node = Node(bound.op, (t.node or t,), bound.layout, _NOTHING, 0, None, bound.attrs)
        out.requires_grad = True
    else:
        out = _new(Tensor)
        out.node = None
        out.requires_grad = False
    out.array = array
    out.grad = None
    return out


def _plain(value: Any) -> Any:
    """An argument in the form a planner can remember it by."""
    if isinstance(value, (list, tuple)):
        return tuple([_plain(v) for v in value])
    return value.__index__() if isinstance(value, Tensor) else value


def sizes(args: tuple, op: str, infer: bool = False) -> tuple[int, ...]:
    """`f(2, 3)` and `f((2, 3))` alike, as a shape."""
    given = args[0] if len(args) == 1 and isinstance(args[0], (tuple, list)) else args
    if builtins.any(isinstance(n, (Tensor, bool)) for n in given):
        raise TypeError(f"[{op}] sizes must be whole numbers; got {given}")
    return shape_of(given, op, infer)


def named(args: tuple, given: dict, name: str, op: str) -> tuple:
    """The arguments of `f(2, 3)` or `f(name=(2, 3))`."""
    if args or list(given) != [name]:
        raise TypeError(f"[{op}] unexpected argument {next(iter(given))!r}; expected {name}")
    return (given[name],)


def respelled(op: str, numpy: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The options of a function that was called with NumPy's `axis` or `keepdims`, which PyTorch takes for `dim` and `keepdim`."""
    for name, value in numpy.items():
        ours = {"axis": "dim", "keepdims": "keepdim"}.get(name)
        if ours not in options:
            raise TypeError(f"[{op}] unexpected argument {name!r}; expected {', '.join(options)}")
        if builtins.all(options[ours] is not unset for unset in (None, False, ())):
            raise TypeError(f"[{op}] {ours} and {name} are the same option; got {options[ours]} and {value}")
        options[ours] = value
    return options


def axes(args: tuple, ndim: int, op: str) -> tuple[int, ...]:
    """`f(0, 1)` and `f((0, 1))` alike, as axes in the order given, none twice."""
    given = args[0] if len(args) == 1 and isinstance(args[0], (tuple, list)) else args
    found = tuple([axis_of(d, ndim, op) for d in given])
    if len(set(found)) != len(found):
        fail(op, "each dim may appear once", list(given))
    return found


def _rule_axis(dim: Any, ndim: int, op: str) -> int:
    """An axis of a tensor that must have one."""
    if ndim == 0:
        axis_of(dim, ndim, op)
        raise IndexError(f"[{op}] needs at least one dimension; got a 0-d tensor")
    return axis_of(dim, ndim, op)


# ---- the views ------------------------------------------------------------------------------------------------------

def _view_op(name: str, rule: Callable[..., tuple[Layout, int]], vjp: Callable) -> Primitive:
    """A primitive of a rule `rule(x, **attrs) -> (layout, offset in elements)`."""
    def prepare(x: Layout, **attrs: Any) -> Plan:
        to, offset = rule(x, **attrs)
        return ViewPlan(to, offset * x.dtype.itemsize)
    return Primitive(name, prepare, {"x": vjp}, ["x"], doc=rule.__doc__)


def _alias_rule(x: Layout) -> tuple[Layout, int]:
    """The same values: an identity node."""
    return x, 0


alias = _view_op("alias", _alias_rule, lambda g: g)


@alias.samples
def _alias_samples(make: Any) -> Any:
    yield make(3, 4),
    yield make(),


@alias.reference
def _alias_reference(x: Any) -> Any:
    return x


def view_strides(x: Layout, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The strides under which `x`'s memory reads as `shape`, or None if it needs a copy."""
    if x.contiguous:
        return contiguous_strides(shape)
    old = [(n, s) for n, s in zip(x.shape, x.strides, strict=True) if n != 1]
    new = [n for n in shape if n != 1]
    out: list[int] = []
    i = j = 0
    while i < len(old) and j < len(new):
        a, b, start_i, start_j = old[i][0], new[j], i, j
        while a != b:
            if a < b:
                i += 1
                a *= old[i][0]
            else:
                j += 1
                b *= new[j]
        for k in range(start_i, i):
            if old[k][1] != old[k + 1][1] * old[k + 1][0]:
                return None
        step = old[i][1]
        group = []
        for n in reversed(new[start_j:j + 1]):
            group.append(step)
            step *= n
        out += reversed(group)
        i, j = i + 1, j + 1
    it = iter(out)
    return tuple(next(it) if n != 1 else 1 for n in shape)


def mover(to: Layout, source: Layout) -> Callable[[Array, int, Array], None]:
    """`move(out, offset, x)`: writes x (broadcast as need be) under layout `to` into out's memory, `offset` bytes in."""
    kernel = copy.kernel((to,))
    if to.size == 0:
        return lambda out, offset, x: None
    if kernel is None:
        return lambda out, offset, x: to.device.host.call(np.copyto, memory.view(out, to, offset).np, x.np)
    plan = elementwise_plan(to, source)

    def move(out: Array, offset: int, x: Array, plan: Array = plan, walk: int = plan.ptr) -> None:
        kernel.call(out.ptr + offset, x.ptr, walk)
    return move


def _prepare_reshape(x: Layout, *, shape: tuple[int, ...]) -> Plan:
    """The same elements in row-major order under another shape; a view where the strides allow it, else a copy."""
    total = 1
    for n in shape:
        total *= n
    if total != x.size:
        fail("reshape", "the number of elements must not change", [x, f"shape {list(shape)}"], "use -1 for one size to have it inferred")
    strides = view_strides(x, shape) if x.size else contiguous_strides(shape)
    if strides is not None:
        return ViewPlan(layout(x.device, x.dtype, shape, strides), 0)
    out, move = layout(x.device, x.dtype, shape), mover(layout(x.device, x.dtype, x.shape), x)

    def run(a: Array) -> Array:
        y = alloc(out)
        move(y, 0, a)
        return y
    return Plan(run, out, "copies: the strides do not allow a view")


@planner
def _reshaped(x: Layout, shape: tuple[int, ...]) -> Bound:
    return bind(_reshape, x, shape=shape)


_reshape = Primitive("reshape", _prepare_reshape, {"x": lambda g, x_shape: through(_reshaped, g, x_shape)})


@_reshape.samples
def _reshape_samples(make: Any) -> Any:
    yield make(4, 33), {"shape": (33, 4)}
    yield make(2, 3, 5), {"shape": (30,)}
    yield make(1, 32, 1), {"shape": (2, 16)}
    yield make(), {"shape": (1, 1)}
    yield make(0, 3), {"shape": (3, 0)}


@_reshape.errors
def _reshape_errors(make: Any) -> Any:
    yield (make(4, 3), {"shape": (5, 2)}), RuntimeError, r"number of elements.*\[4, 3\].*\[5, 2\]"


@_reshape.reference
def _reshape_reference(x: Any, *, shape: tuple[int, ...]) -> Any:
    return x.reshape(shape)


def infer_shape(op: str, size: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Replaces one -1 by what the number of elements asks for."""
    if -1 not in shape:
        return shape
    if shape.count(-1) > 1:
        fail(op, "only one size may be -1", list(shape))
    known = 1
    for n in shape:
        known *= n if n != -1 else 1
    if known == 0 or size % known:
        fail(op, f"{size} elements do not fit the shape", list(shape))
    return tuple(size // known if n == -1 else n for n in shape)


@planner
def _reshape_to(x: Layout, *shape: Any) -> Bound:
    return bind(_reshape, x, shape=infer_shape("reshape", x.size, sizes(shape, "reshape", infer=True)))


def reshape(input: Tensor, *args: Any, **given: Any) -> Tensor:
    """The same elements under another `shape` (one size may be -1); a view if possible, else a copy."""
    return through(_reshape_to, input, *(named(args, given, "shape", "reshape") if given else args))


@planner
def _view_to(x: Layout, *shape: Any) -> Bound:
    if len(shape) == 1 and not isinstance(shape[0], (int, tuple, list, np.integer)):
        raise NotImplementedError("[view] memory cannot be reinterpreted as another dtype; use .to(dtype) to convert the values")
    bound = bind(_reshape, x, shape=infer_shape("view", x.size, sizes(shape, "view", infer=True)))
    if bound.offset is None:
        fail("view", "the strides must allow the shape without a copy", [x, f"shape {list(bound.layout.shape)}"], "use reshape(...)")
    return bound


def view(input: Tensor, *shape: Any) -> Tensor:
    """The same memory under another shape (one size may be -1); an error where that would need a copy."""
    return through(_view_to, input, *shape)


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """`input.view(other.shape)`"""
    return through(_view_to, input, other.array.layout.shape)


def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """`input.reshape(other.shape)`"""
    return through(_reshape_to, input, other.array.layout.shape)


@planner
def _ravel(x: Layout) -> Bound:
    return bind(_reshape, x, shape=(x.size,))


def ravel(input: Tensor) -> Tensor:
    """All elements in one dimension."""
    return through(_ravel, input)


@planner
def _flatten(x: Layout, start_dim: Any, end_dim: Any) -> Bound:
    a, b = axis_of(start_dim, x.ndim, "flatten"), axis_of(end_dim, x.ndim, "flatten")
    if a > b:
        fail("flatten", "start_dim must not come after end_dim", [x, f"start_dim {start_dim}", f"end_dim {end_dim}"])
    joined = 1
    for n in x.shape[a:b + 1]:
        joined *= n
    return bind(_reshape, x, shape=(*x.shape[:a], joined, *x.shape[b + 1:]))


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The dimensions start_dim to end_dim joined into one."""
    return through(_flatten, input, start_dim, end_dim)


@planner
def _unflatten(x: Layout, dim: Any, shape: Any) -> Bound:
    a = _rule_axis(dim, x.ndim, "unflatten")
    parts = infer_shape("unflatten", x.shape[a], sizes((shape,), "unflatten", infer=True))
    total = 1
    for n in parts:
        total *= n
    if total != x.shape[a] or not parts:
        fail("unflatten", f"the sizes must multiply to size {x.shape[a]} of dim {dim}", [x, f"sizes {list(parts)}"])
    return bind(_reshape, x, shape=(*x.shape[:a], *parts, *x.shape[a + 1:]))


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """One dimension taken apart into several; one size may be -1."""
    return through(_unflatten, input, dim, sizes)


@planner
def _squeeze(x: Layout, dim: Any) -> Bound:
    given = range(x.ndim) if dim is None else [a for a in axes((dim,), x.ndim, "squeeze") if a < x.ndim]
    return bind(_reshape, x, shape=tuple([n for i, n in enumerate(x.shape) if n != 1 or i not in given]))


def squeeze(input: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """Without the dimensions of size 1 (all, or those in `dim`)."""
    return through(_squeeze, input, dim)


@planner
def _unsqueeze(x: Layout, dim: Any) -> Bound:
    a = axis_of(dim, x.ndim + 1, "unsqueeze")
    return bind(_reshape, x, shape=(*x.shape[:a], 1, *x.shape[a:]))


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a dimension of size 1 put in at `dim`."""
    return through(_unsqueeze, input, dim)


def _at_least(n: int, where_to: Callable[[tuple[int, ...]], tuple[int, ...]], tensors: tuple) -> Any:
    if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
        return tuple([_at_least(n, where_to, (t,)) for t in tensors[0]])
    if len(tensors) != 1:
        return tuple([_at_least(n, where_to, (t,)) for t in tensors])
    x = tensors[0]
    return x if x.array.layout.ndim >= n else through(_reshaped, x, where_to(x.array.layout.shape))


def atleast_1d(*tensors: Any) -> Any:
    """0-d tensors as 1-d."""
    return _at_least(1, lambda s: (1,), tensors)


def atleast_2d(*tensors: Any) -> Any:
    """Tensors with leading dimensions of size 1 added up to two."""
    return _at_least(2, lambda s: (1,) * (2 - len(s)) + s, tensors)


def atleast_3d(*tensors: Any) -> Any:
    """Tensors with dimensions of size 1 added up to three: (n,) is (1, n, 1), (m, n) is (m, n, 1)."""
    return _at_least(3, lambda s: (*s, 1) if len(s) == 2 else (1, *(s or (1,)), 1), tensors)


# ---- permute --------------------------------------------------------------------------------------------------------

def _permute_rule(x: Layout, *, axes: tuple[int, ...]) -> tuple[Layout, int]:
    """Dimensions in another order."""
    if sorted(axes) != list(range(x.ndim)):
        fail("permute", "dims must name each dimension once", [x, f"dims {list(axes)}"])
    return layout(x.device, x.dtype, tuple([x.shape[a] for a in axes]), tuple([x.strides[a] for a in axes])), 0


@planner
def _permuted(x: Layout, axes: tuple[int, ...]) -> Bound:
    return bind(_permute, x, axes=axes)


@lru_cache(maxsize=1024)
def inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes `axes`."""
    back = [0] * len(axes)
    for i, a in enumerate(axes):
        back[a] = i
    return tuple(back)


_permute = _view_op("permute", _permute_rule, lambda g, axes: through(_permuted, g, inverse(axes)))


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
def _permute_to(x: Layout, *dims: Any) -> Bound:
    return bind(_permute, x, axes=axes(dims, x.ndim, "permute"))


def permute(input: Tensor, *args: Any, **given: Any) -> Tensor:
    """The dimensions in the order `dims`: a view."""
    return through(_permute_to, input, *(named(args, given, "dims", "permute") if given else args))


@planner
def _transpose(x: Layout, dim0: Any, dim1: Any) -> Bound:
    order = list(range(x.ndim))
    a, b = axis_of(dim0, x.ndim, "transpose"), axis_of(dim1, x.ndim, "transpose")
    if order:
        order[a], order[b] = b, a
    return bind(_permute, x, axes=tuple(order))


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions swapped: a view."""
    return through(_transpose, input, dim0, dim1)


def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """`transpose(input, axis0, axis1)`"""
    return through(_transpose, input, axis0, axis1)


def swapdims(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """`transpose(input, dim0, dim1)`"""
    return through(_transpose, input, dim0, dim1)


@planner
def _t(x: Layout) -> Bound:
    if x.ndim > 2:
        fail("t", "needs at most two dimensions", x, "use transpose(dim0, dim1) or mT")
    return bind(_permute, x, axes=tuple(reversed(range(x.ndim))))


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix (a vector as it is): a view."""
    return through(_t, input)


@planner
def _reversed(x: Layout) -> Bound:
    return bind(_permute, x, axes=tuple(reversed(range(x.ndim))))


@planner
def _mT(x: Layout) -> Bound:
    if x.ndim < 2:
        fail("mT", "needs at least two dimensions", x)
    return bind(_permute, x, axes=(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def matrix_transpose(input: Tensor) -> Tensor:
    """The last two dimensions swapped: `x.mT`."""
    return through(_mT, input)


def reverse_dims(input: Tensor) -> Tensor:
    """All dimensions in reverse order: `x.T`."""
    return through(_reversed, input)


@planner
def _movedim(x: Layout, source: Any, destination: Any) -> Bound:
    a = axes((source,) if isinstance(source, int) else source, x.ndim, "movedim")
    b = axes((destination,) if isinstance(destination, int) else destination, x.ndim, "movedim")
    if len(a) != len(b):
        fail("movedim", "source and destination must have the same length", [f"source {source}", f"destination {destination}"])
    order = [i for i in range(x.ndim) if i not in a]
    for to, d in sorted(zip(b, a, strict=True)):
        order.insert(to, d)
    return bind(_permute, x, axes=tuple(order[:x.ndim]))


def movedim(input: Tensor, source: int | tuple[int, ...], destination: int | tuple[int, ...]) -> Tensor:
    """Dimensions moved to other places, the rest in order: a view."""
    return through(_movedim, input, source, destination)


def moveaxis(input: Tensor, source: int | tuple[int, ...], destination: int | tuple[int, ...]) -> Tensor:
    """`movedim(input, source, destination)`"""
    return through(_movedim, input, source, destination)


# ---- expand ---------------------------------------------------------------------------------------------------------

def _expand_rule(x: Layout, *, shape: tuple[int, ...]) -> tuple[Layout, int]:
    """Size-1 and missing leading dimensions repeated without copying (stride 0)."""
    lead = len(shape) - x.ndim
    if lead < 0 or builtins.any(n not in (1, m) for n, m in zip(x.shape, shape[lead:], strict=True)):
        fail("expand", "only sizes of 1 can be expanded", [x, f"shape {list(shape)}"])
    strides = [0 if n == 1 and m != 1 else s for n, m, s in zip(x.shape, shape[lead:], x.strides, strict=True)]
    return layout(x.device, x.dtype, shape, (*[0] * lead, *strides)), 0


_expand = _view_op("expand", _expand_rule, lambda g: g)      # the engine sums over what was repeated


@planner
def _expanded(x: Layout, shape: tuple[int, ...]) -> Bound:
    return bind(_expand, x, shape=shape)


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
def _expand_to(x: Layout, *shape: Any) -> Bound:
    given = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    lead = len(given) - x.ndim
    wanted = sizes(tuple(x.shape[i - lead] if i >= lead >= 0 and type(n) is int and n == -1 else n for i, n in enumerate(given)), "expand")
    if lead < 0:
        fail("expand", "at least as many sizes are needed as there are dimensions", [x, f"sizes {list(given)}"])
    return bind(_expand, x, shape=wanted)


def expand(input: Tensor, *sizes: Any) -> Tensor:
    """With size-1 and missing leading dimensions repeated to the given sizes (-1 keeps a size): a view."""
    return through(_expand_to, input, *sizes)


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """`input.expand(other.shape)`"""
    return through(_expanded, input, other.array.layout.shape)


def broadcast_to(input: Tensor, size: Sequence[int]) -> Tensor:
    """`input.expand(size)`"""
    return through(_expand_to, input, size)


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """The tensors expanded to their common shape."""
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    shape = broadcast_shapes("broadcast_tensors", *[x.array.layout.shape for x in given])
    return tuple([through(_expanded, x, shape) for x in given])


def contiguous(input: Tensor) -> Tensor:
    """The tensor itself if its memory is in C order, else a copy that is."""
    return input if input.array.layout.contiguous else copy.call(input)


# ---- windows: basic indexing, diagonals -----------------------------------------------------------------------------

def _window_rule(x: Layout, *, key: tuple) -> tuple[Layout, int]:
    """Basic indexing. `key` has an entry per dimension: an int (taken out), or (start, step, length); None is a new dimension."""
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
    return layout(x.device, x.dtype, tuple(shape), tuple(strides)), offset


def _diagonal_rule(x: Layout, *, offset: int, dim1: int, dim2: int) -> tuple[Layout, int]:
    """x[..., i, i + offset]: the diagonal of two dimensions, as the last dimension."""
    n = builtins.max(builtins.min(x.shape[dim1] + builtins.min(offset, 0), x.shape[dim2] - builtins.max(offset, 0)), 0)
    rest = [i for i in range(x.ndim) if i not in (dim1, dim2)]
    start = (offset * x.strides[dim2] if offset >= 0 else -offset * x.strides[dim1]) if n else 0
    return layout(x.device, x.dtype, tuple([x.shape[i] for i in rest] + [n]),
                  tuple([x.strides[i] for i in rest] + [x.strides[dim1] + x.strides[dim2]])), start


def _placer(name: str, rule: Callable[..., tuple[Layout, int]], cut: Callable) -> Primitive:
    """The transpose of a view: `g` where the view lies, zeros of `shape` elsewhere."""
    def prepare(g: Layout, *, shape: tuple[int, ...], **attrs: Any) -> Plan:
        out = layout(g.device, g.dtype, shape)
        inside, offset = rule(out, **attrs)
        if inside.shape != g.shape:
            fail(name, "g must have the shape of the view", [g, inside])
        move, start = mover(inside, g), offset * g.dtype.itemsize
        zero = constant(0, g.dtype, g.device).array
        clear = None if inside.size == out.size else mover(out, zero.layout)

        def run(a: Array) -> Array:
            y = alloc(out)
            if clear is not None:
                clear(y, 0, zero)
            move(y, start, a)
            return y
        return Plan(run, out, "zeros, and a copy into the view")
    return Primitive(name, prepare, {"x": cut}, ["x"], doc=_placer.__doc__)


@planner
def windowed(x: Layout, key: tuple) -> Bound:
    return bind(_window, x, key=key)


@planner
def _placed(g: Layout, shape: tuple[int, ...], key: tuple) -> Bound:
    return bind(_place, g, shape=shape, key=key)


_window = _view_op("window", _window_rule, lambda g, x_shape, key: through(_placed, g, x_shape, key))
_place = _placer("place", _window_rule, lambda g, key: through(windowed, g, key))
_diagonal: Primitive = _view_op("diagonal", _diagonal_rule,
                     lambda g, x_shape, offset, dim1, dim2: _place_diagonal(g, shape=x_shape, offset=offset, dim1=dim1, dim2=dim2))
_place_diagonal: Primitive = _placer("place_diagonal", _diagonal_rule,
                          lambda g, offset, dim1, dim2: _diagonal(g, offset=offset, dim1=dim1, dim2=dim2))


@_window.samples
def _window_samples(make: Any) -> Any:
    yield make(5, 33), {"key": ((1, 2, 2), (0, 1, 33))}
    yield make(5, 33), {"key": (2, (0, 1, 33))}
    yield make(2, 31, 4), {"key": (1, None, (30, 1, 1), (0, 3, 2))}
    yield make(4), {"key": ((4, 1, 0),)}
    yield make(), {"key": (None,)}


@_window.errors
def _window_errors(make: Any) -> Any:
    yield (make(3), {"key": ((0, 1, 4),)}), RuntimeError, "inside the tensor"
    yield (make(3), {"key": (3,)}), IndexError, "inside the tensor"
    yield (make(3), {"key": (0, 0)}), IndexError, "|".join(["list index", "tuple index"])


@_window.reference
def _window_reference(x: Any, *, key: tuple) -> Any:
    return x[tuple(slice(e[0], e[0] + e[1] * e[2], e[1]) if isinstance(e, tuple) else e for e in key)]


@_place.samples
def _place_samples(make: Any) -> Any:
    yield make(2, 33), {"shape": (5, 33), "key": ((1, 2, 2), (0, 1, 33))}
    yield make(33), {"shape": (5, 33), "key": (2, (0, 1, 33))}
    yield make(1, 0), {"shape": (3,), "key": (None, (0, 1, 0))}


@_place.errors
def _place_errors(make: Any) -> Any:
    yield (make(2), {"shape": (5,), "key": ((0, 1, 3),)}), RuntimeError, "shape of the view"


@_place.reference
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


def whole(n: int) -> tuple[int, int, int]:
    """A window's entry for all of a dimension."""
    return 0, 1, n


def position(index: Any, n: int, op: str, dim: int) -> int:
    """An index as 0 <= index < n."""
    i = operator.index(index)
    if not -n <= i < n:
        raise IndexError(f"[{op}] index {i} is out of range for dim {dim} with size {n}")
    return i % n


@planner
def _select(x: Layout, dim: Any, index: Any) -> Bound:
    a = _rule_axis(dim, x.ndim, "select")
    return bind(_window, x, key=tuple([position(index, n, "select", a) if i == a else whole(n) for i, n in enumerate(x.shape)]))


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """`input[..., index, ...]` at dimension `dim`: a view."""
    return through(_select, input, dim, index)


@planner
def _narrow(x: Layout, dim: Any, start: Any, length: Any) -> Bound:
    a = _rule_axis(dim, x.ndim, "narrow")
    n, first, count = x.shape[a], operator.index(start), operator.index(length)
    if not -n <= first <= n:
        raise IndexError(f"[narrow] start must lie in [{-n}, {n}]; got {start}; the tensor is {x}")
    first += n if first < 0 else 0
    if count < 0 or first + count > n:
        fail("narrow", f"start + length must not exceed size {n}", [x, f"start {start}", f"length {length}"])
    return bind(_window, x, key=tuple([(first, 1, count) if i == a else whole(m) for i, m in enumerate(x.shape)]))


def narrow(input: Tensor, dim: int, start: int | Tensor, length: int) -> Tensor:
    """`input[..., start:start + length, ...]` at dimension `dim`: a view."""
    if isinstance(start, Tensor):
        at = start.array.layout
        if at.ndim or at.dtype.kind not in "iu":
            fail("narrow", "start must be a number or a 0-d tensor of integers", at)
        start = operator.index(start)
    return through(_narrow, input, dim, start, length)


@planner
def _diagonal_of(x: Layout, offset: Any, dim1: Any, dim2: Any) -> Bound:
    a, b = _rule_axis(dim1, x.ndim, "diagonal"), _rule_axis(dim2, x.ndim, "diagonal")
    if a == b:
        fail("diagonal", "dim1 and dim2 must differ", [x, f"dims {dim1}, {dim2}"])
    return bind(_diagonal, x, offset=operator.index(offset), dim1=a, dim2=b)


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal of two dimensions, as the last dimension: a view."""
    return through(_diagonal_of, input, offset, dim1, dim2)


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Zeros with the last dimension of `input` on the diagonal of dimensions dim1 and dim2."""
    x = input.array.layout
    if not x.ndim:
        fail("diag_embed", "needs at least one dimension", x)
    a, b = axis_of(dim1, x.ndim + 1, "diag_embed"), axis_of(dim2, x.ndim + 1, "diag_embed")
    if a == b:
        fail("diag_embed", "dim1 and dim2 must differ", [x, f"dims {dim1}, {dim2}"])
    shape = list(x.shape[:-1])
    for d in sorted((a, b)):
        shape.insert(d, x.shape[-1] + builtins.abs(offset))
    return _place_diagonal(input, shape=tuple(shape), offset=offset, dim1=a, dim2=b)


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """A vector as a diagonal matrix, or the diagonal of a matrix (a copy)."""
    if input.array.layout.ndim not in (1, 2):
        fail("diag", "needs a vector or a matrix", input.array.layout, "use diagonal(...) or diag_embed(...)")
    if input.array.layout.ndim == 1:
        return diag_embed(input, diagonal)
    return copy.call(through(_diagonal_of, input, diagonal, 0, 1))


def _unfold_rule(x: Layout, *, dim: int, size: int, step: int) -> tuple[Layout, int]:
    """All windows of `size` elements, `step` apart, along a dimension; the window is the last dimension. They may overlap."""
    count = (x.shape[dim] - size) // step + 1
    shape, strides = list(x.shape), list(x.strides)
    shape[dim], strides[dim] = count, x.strides[dim] * step
    return layout(x.device, x.dtype, (*shape, size), (*strides, x.strides[dim])), 0


def _unfold_vjp(g: Tensor, x_shape: tuple[int, ...], dim: int, size: int, step: int) -> Tensor:
    from .index import add_at
    count = g.array.layout.shape[dim]
    places = engine.as_tensor(step * np.arange(count)[:, None] + np.arange(size)).to(g.device)
    return add_at(x_shape, through(_movedim, g, -1, dim + 1), places, dim)


_unfold = _view_op("unfold", _unfold_rule, _unfold_vjp)


@_unfold.samples
def _unfold_samples(make: Any) -> Any:
    yield make(9), {"dim": 0, "size": 3, "step": 2}
    yield make(2, 33, 2), {"dim": 1, "size": 4, "step": 1}
    yield make(4, 3), {"dim": 1, "size": 3, "step": 5}


@_unfold.reference
def _unfold_reference(x: Any, *, dim: int, size: int, step: int) -> Any:
    windows = np.lib.stride_tricks.sliding_window_view(x, size, dim)
    return windows[(slice(None),) * dim + (slice(None, None, step),)]


@planner
def _unfold_to(x: Layout, dimension: Any, size: Any, step: Any) -> Bound:
    a = axis_of(dimension, x.ndim, "unfold")
    size, step, n = operator.index(size), operator.index(step), x.shape[a] if x.ndim else 1
    if step < 1 or not 0 <= size <= n:
        fail("unfold", "size must lie between 0 and the dimension's size, and step be positive", [x, f"size {size}", f"step {step}"])
    if not x.ndim:
        return bind(_reshape, x, shape=(size,)) if size else bind(_window, x, key=((0, 1, 0),))
    return bind(_unfold, x, dim=a, size=size, step=step)


def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """All windows of `size` elements, `step` apart, along a dimension; the window is the last dimension: a view."""
    return through(_unfold_to, input, dimension, size, step)


# ---- triangles ------------------------------------------------------------------------------------------------------

def _prepare_triangle(x: Layout, *, diagonal: int, lower: bool) -> Plan:
    """The elements on one side of a diagonal of the last two dimensions (and on it), zeros on the other."""
    if x.ndim < 2:
        fail("tril" if lower else "triu", "needs at least two dimensions", x)
    out = layout(x.device, x.dtype, x.shape)
    mask = np.tri(x.shape[-2], x.shape[-1], diagonal if lower else diagonal - 1, dtype=bool)
    keep, zero = x.device.upload(mask if lower else ~mask), constant(0, x.dtype, x.device).array
    kernel = x.device.kernels.where.move(x.dtype)
    if kernel is None or not x.size:
        def run_host(a: Array) -> Array:
            y = alloc(out)
            x.device.host.call(lambda v, out: np.copyto(out, np.tril(v, diagonal) if lower else np.triu(v, diagonal)), y.np, a.np)
            return y
        return Plan(run_host, out, f"no where kernel for {x.dtype}: NumPy behind the door")
    plan = elementwise_plan(out, keep.layout, x, zero.layout)

    def run(a: Array) -> Array:
        y = alloc(out)
        kernel.call(y.ptr, keep.ptr, a.ptr, zero.ptr, plan.ptr)
        return y
    return Plan(run, out, f"kernel {kernel.name}")


@planner
def _triangular(x: Layout, diagonal: Any, lower: bool) -> Bound:
    return bind(_triangle, x, diagonal=operator.index(diagonal), lower=lower)


_triangle = Primitive("triangle", _prepare_triangle, {"x": lambda g, diagonal, lower: through(_triangular, g, diagonal, lower)})


@_triangle.samples
def _triangle_samples(make: Any) -> Any:
    yield make(4, 33), {"diagonal": 0, "lower": True}
    yield make(2, 31, 4), {"diagonal": -2, "lower": False}
    yield make(3, 3), {"diagonal": 5, "lower": False}
    yield make(0, 3), {"diagonal": 0, "lower": True}


@_triangle.errors
def _triangle_errors(make: Any) -> Any:
    yield (make(4), {"diagonal": 0, "lower": True}), RuntimeError, "two dimensions"


@_triangle.reference
def _triangle_reference(x: Any, *, diagonal: int, lower: bool) -> Any:
    return np.tril(x, diagonal) if lower else np.triu(x, diagonal)


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The elements on and below a diagonal of the last two dimensions, zeros elsewhere."""
    return through(_triangular, input, diagonal, True)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The elements on and above a diagonal of the last two dimensions, zeros elsewhere."""
    return through(_triangular, input, diagonal, False)


# ---- joins ----------------------------------------------------------------------------------------------------------

class JoinPlan(Plan):
    """A join and what its nodes carry: where each input lies in the output."""

    __slots__ = ("attrs",)

    def __init__(self, run: Callable, to: Layout, attrs: dict) -> None:
        super().__init__(run, to, "one copy for each input")
        self.attrs = attrs


class Join(Primitive):
    """`cat` and (with `new`) `stack`: any number of inputs, one copy each into the output; the gradient is cut again."""

    def __init__(self, name: str, new: bool, doc: str) -> None:
        super().__init__(name, self._prepare, {}, ["tensors"], doc)
        self.new = new
        self.seen: dict[tuple, JoinPlan] = {}       # plans by `dim` as the user wrote it

    def __call__(self, *tensors: Tensor, dim: int) -> Tensor:      # type: ignore[override]
        arrays = [t.array for t in tensors]
        key = (dim, *[a.layout for a in arrays])
        plan = self.plans.get(key)
        if plan is None:
            plan = remember(self.plans, key, self._prepare(*[a.layout for a in arrays], dim=dim))
        return self.run(plan, tensors, arrays)

    def run(self, plan: Any, tensors: Sequence[Tensor], arrays: list[Array]) -> Tensor:
        array = plan.run(arrays)
        if mode.grad:
            for t in tensors:
                if t.requires_grad:
                    edges = tuple([(t.node or t) if t.requires_grad else None for t in tensors])
                    return new_tensor(array, Node(self, edges, plan.layout, _NOTHING, 0, None, plan.attrs))
        return new_tensor(array, None)

    def known(self, tensors: Any, dim: Any) -> Tensor | None:
        """The join of inputs whose layouts were joined before; None if they were not, or if they are no tensors."""
        if type(tensors) is not list and type(tensors) is not tuple:
            return None
        try:
            arrays = [t.array for t in tensors]
            plan = self.seen.get((dim, *[a.layout for a in arrays]))
        except (AttributeError, TypeError):
            return None
        return None if plan is None else self.run(plan, tensors, arrays)

    def first(self, tensors: Any, given: list[Tensor], dim: Any, axis: int) -> Tensor:
        """The join itself; remembered, if the inputs are `tensors` as they came."""
        out = self(*given, dim=axis)
        if given is tensors and type(dim) is int:
            layouts = [t.array.layout for t in given]
            key = (axis, *layouts)
            remember(self.seen, (dim, *layouts), self.plans[key])
        return out

    def backward(self, node: Node, g: Tensor, needs: list[bool]) -> list[Tensor | None]:
        return [through(windowed, g, key) if need else None for key, need in zip(node.attrs["keys"], needs, strict=True)]      # type: ignore[index]

    def _prepare(self, *layouts: Layout, dim: int) -> Plan:
        first = layouts[0]
        same_device(self.name, layouts)
        if self.new:
            shapes = [(*x.shape[:dim], 1, *x.shape[dim:]) for x in layouts]
        else:
            shapes = [x.shape for x in layouts]
        for x, shape in zip(layouts, shapes, strict=True):
            if shape[:dim] + shape[dim + 1:] != shapes[0][:dim] + shapes[0][dim + 1:] or len(shape) != len(shapes[0]):
                what = "all tensors must have the same shape" if self.new else f"sizes must agree in every dimension but {dim}"
                fail(self.name, what, layouts)
            if x.dtype != first.dtype:
                fail(self.name, "the tensors must have one dtype", layouts)
        total = builtins.sum(s[dim] for s in shapes)
        out = layout(first.device, first.dtype, (*shapes[0][:dim], total, *shapes[0][dim + 1:]))
        pieces, keys, at = [], [], 0
        lead, rest = [whole(n) for n in out.shape[:dim]], [whole(n) for n in out.shape[dim + 1:]]
        for x, shape in zip(layouts, shapes, strict=True):
            inside = layout(x.device, x.dtype, shape, out.strides)
            source = layout(x.device, x.dtype, shape, (*x.strides[:dim], 0, *x.strides[dim:]) if self.new else x.strides)
            pieces.append((inside, source, at * out.strides[dim] * x.dtype.itemsize))
            keys.append((*lead, at if self.new else (at, 1, shape[dim]), *rest))
            at += shape[dim]
        attrs, kernel = {"dim": dim, "keys": keys}, copy.kernel((out,))
        if kernel is None or not builtins.all(x.size for x in layouts):
            moves = [(mover(inside, source), offset) for inside, source, offset in pieces]

            def run(arrays: Sequence[Array]) -> Array:
                y = alloc(out)
                for (move, offset), a in zip(moves, arrays, strict=True):
                    move(y, offset, a)
                return y
            return JoinPlan(run, out, attrs)
        plans = [(offset, elementwise_plan(inside, source)) for inside, source, offset in pieces]
        steps = [(offset, plan.ptr) for offset, plan in plans]

        def launch(arrays: Sequence[Array], plans: list = plans) -> Array:       # the plans live as long as this
            y = alloc(out)
            start, call = y.ptr, kernel.call
            for (offset, walk), a in zip(steps, arrays):        # noqa: B905 (as many as there were layouts)
                call(start + offset, a.ptr, walk)
            return y
        return JoinPlan(launch, out, attrs)


_cat = Join("cat", False, "The tensors one after the other along an existing dimension.")
_stack = Join("stack", True, "The tensors one after the other along a new dimension.")


@_cat.samples
def _cat_samples(make: Any) -> Any:
    yield make(2, 3), make(5, 3), {"dim": 0}
    yield make(2, 3), make(2, 0), make(2, 33), {"dim": 1}
    yield make(2, 1, 2), {"dim": 1}


@_cat.errors
def _cat_errors(make: Any) -> Any:
    yield (make(2, 3), make(2, 4), {"dim": 0}), RuntimeError, r"sizes must agree.*\[2, 3\].*\[2, 4\]"


@_cat.reference
def _cat_reference(*tensors: Any, dim: int) -> Any:
    return np.concatenate(tensors, dim)


@_stack.samples
def _stack_samples(make: Any) -> Any:
    yield make(2, 33), make(2, 33), {"dim": 0}
    yield make(2, 3), make(2, 3), make(2, 3), {"dim": 2}
    yield make(), make(), {"dim": 0}


@_stack.errors
def _stack_errors(make: Any) -> Any:
    yield (make(2, 3), make(3, 2), {"dim": 0}), RuntimeError, "same shape"


@_stack.reference
def _stack_reference(*tensors: Any, dim: int) -> Any:
    return np.stack(tensors, dim)


def _joined(op: str, tensors: Any) -> list[Tensor]:
    """The inputs of a join, in one dtype."""
    if isinstance(tensors, Tensor) or not isinstance(tensors, (tuple, list)):
        raise TypeError(f"[{op}] expected a tuple or list of tensors; got {type(tensors).__name__}")
    for x in tensors:
        if not isinstance(x, Tensor):
            raise TypeError(f"[{op}] expected tensors; got {type(x).__name__}")
    if not tensors:
        fail(op, "needs at least one tensor", kind=ValueError if op == "cat" else RuntimeError)
    dtype = tensors[0].array.layout.dtype
    for x in tensors:
        if x.array.layout.dtype is not dtype:
            for y in tensors:
                dtype = promote(dtype, y.array.layout.dtype)
            return [cast(y, dtype) for y in tensors]
    return tensors                                  # type: ignore[return-value]


def cat(tensors: Sequence[Tensor], dim: int = 0, **numpy: Any) -> Tensor:
    """The tensors one after the other along an existing dimension. Empty 1-d tensors are left out, as in PyTorch."""
    if numpy:
        return cat(tensors, **respelled("cat", numpy, dim=dim or None))
    found = _cat.known(tensors, dim)
    if found is not None:
        return found
    given = _joined("cat", tensors)
    ndim = given[0].array.layout.ndim
    if given[0].array.layout.shape == (0,):
        ndim = builtins.max(x.array.layout.ndim for x in given)
    if not ndim or builtins.any(not x.array.layout.ndim for x in given):
        fail("cat", "0-d tensors cannot be joined", [x.array.layout for x in given], "use stack(...)")
    if ndim > 1 and builtins.any(x.array.layout.shape == (0,) for x in given):
        given = [x for x in given if x.array.layout.shape != (0,)]
    return _cat.first(tensors, given, dim, axis_of(dim, ndim, "cat"))


concat = concatenate = cat


def stack(tensors: Sequence[Tensor], dim: int = 0, **numpy: Any) -> Tensor:
    """The tensors one after the other along a new dimension."""
    if numpy:
        return stack(tensors, **respelled("stack", numpy, dim=dim or None))
    found = _stack.known(tensors, dim)
    if found is not None:
        return found
    given = _joined("stack", tensors)
    return _stack.first(tensors, given, dim, axis_of(dim, given[0].array.layout.ndim + 1, "stack"))


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Along the second dimension (vectors: along the only one)."""
    given = atleast_1d(*_joined("hstack", tensors))
    given = given if isinstance(given, tuple) else (given,)
    return cat(given, 0 if given[0].array.layout.ndim == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Along the first dimension, vectors as rows."""
    return cat(atleast_2d(tuple(_joined("vstack", tensors))), 0)


row_stack = vstack


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Along the third dimension."""
    return cat(atleast_3d(tuple(_joined("dstack", tensors))), 2)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Along the second dimension, vectors as columns."""
    return cat([through(_reshaped, x, (x.numel(), 1)) if x.array.layout.ndim < 2 else x for x in _joined("column_stack", tensors)], 1)


# ---- cuts -----------------------------------------------------------------------------------------------------------

class Cut(Primitive):
    """`split` and (with `drop`) `unbind`: views, one after the other along a dimension; one node joins their gradients."""

    def __init__(self, name: str, drop: bool, doc: str) -> None:
        super().__init__(name, self._prepare, {}, ["x"], doc)
        self.drop = drop

    def __call__(self, x: Tensor, *, sizes: tuple[int, ...], dim: int) -> tuple[Tensor, ...]:      # type: ignore[override]
        array = x.array
        key = (array.layout, sizes, dim)
        plan = self.plans.get(key)
        if plan is None:
            plan = remember(self.plans, key, self._prepare(array.layout, sizes=sizes, dim=dim))
        arrays = plan.run(array)
        if not (mode.grad and x.requires_grad):
            return tuple([new_tensor(a, None) for a in arrays])
        node = Node(self, (x.node or x,), plan.layout, _NOTHING, 0, None, {"dim": dim})
        return tuple([new_tensor(a, Slot(node, i, a.layout)) for i, a in enumerate(arrays)])

    def _prepare(self, x: Layout, *, sizes: tuple[int, ...], dim: int) -> Plan:
        if builtins.sum(sizes) != x.shape[dim] or builtins.min(sizes, default=0) < 0:
            fail(self.name, f"the sizes must add up to size {x.shape[dim]} of dim {dim}", [x, f"sizes {list(sizes)}"])
        cuts, at = [], 0
        for n in sizes:
            key = [whole(m) for m in x.shape]
            to, offset = _window_rule(x, key=(*key[:dim], at if self.drop else (at, 1, n), *key[dim + 1:]))
            cuts.append((to, offset * x.dtype.itemsize))
            at += n
        return Plan(lambda a: [memory.view(a, to, offset) for to, offset in cuts], tuple([to for to, _ in cuts]), "views")

    def backward(self, node: Node, g: Any, needs: list[bool]) -> list[Tensor | None]:
        gs = [new_tensor(constant(0, x.dtype, x.device).array, None).expand(x.shape) if piece is None else piece      # type: ignore[attr-defined]
              for piece, x in zip(g, node.layout, strict=True)]          # type: ignore[call-overload]
        return [(_stack if self.drop else _cat)(*gs, dim=node.attrs["dim"])]      # type: ignore[index]


_split = Cut("split", False, "Consecutive pieces along a dimension.")
_unbind = Cut("unbind", True, "The elements of a dimension, without it.")


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


@lru_cache(maxsize=1024)
def _even(n: int, size: int) -> tuple[int, ...]:
    return tuple([builtins.min(size, n - i) for i in range(0, n, size)]) if n else (0,)


def split(tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of one size (the last may be smaller), or of the sizes given: views."""
    x = tensor.array.layout
    if not x.ndim:
        fail("split", "needs at least one dimension", x)
    a = axis_of(dim, x.ndim, "split")
    if isinstance(split_size_or_sections, (tuple, list)):
        return _split(tensor, sizes=tuple([operator.index(n) for n in split_size_or_sections]), dim=a)
    size = operator.index(split_size_or_sections)       # type: ignore[arg-type]
    if size < 0 or size == 0 and x.shape[a]:
        fail("split", "the split size must be positive", [x, f"split_size {size}"])
    return _split(tensor, sizes=_even(x.shape[a], builtins.max(size, 1)), dim=a)


def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of the sizes given: views."""
    return split(input, list(split_sizes), dim)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` pieces of one size (the last may be smaller): views."""
    x = input.array.layout
    a = _rule_axis(dim, x.ndim, "chunk")
    if operator.index(chunks) < 1:
        fail("chunk", "chunks must be positive", chunks)
    if x.shape[a] == 0:
        return _split(input, sizes=(0,) * chunks, dim=a)
    return _split(input, sizes=_even(x.shape[a], -(-x.shape[a] // chunks)), dim=a)


def tensor_split(input: Tensor, indices_or_sections: int | Sequence[int] | Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of sizes as even as possible, or cut at the indices: views."""
    x = input.array.layout
    a = _rule_axis(dim, x.ndim, "tensor_split")
    n = x.shape[a]
    if isinstance(indices_or_sections, Tensor):
        indices_or_sections = indices_or_sections.tolist()
    if isinstance(indices_or_sections, int):
        if indices_or_sections < 1:
            fail("tensor_split", "the number of sections must be positive", indices_or_sections)
        small, more = divmod(n, indices_or_sections)
        return _split(input, sizes=(small + 1,) * more + (small,) * (indices_or_sections - more), dim=a)
    # each piece is a slice: indices out of order or out of range give empty or overlapping ones
    edges = [0, *[operator.index(i) for i in indices_or_sections]]
    bounds = [slice(low, high).indices(n) for low, high in zip(edges, [*edges[1:], n], strict=True)]
    return tuple([through(_narrow, input, a, low, builtins.max(high - low, 0)) for low, high, _ in bounds])


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The elements of a dimension, as views without it."""
    x = input.array.layout
    a = _rule_axis(dim, x.ndim, "unbind")
    return _unbind(input, sizes=(1,) * x.shape[a], dim=a)


# ---- order ----------------------------------------------------------------------------------------------------------

def _prepare_flip(x: Layout, *, axes: tuple[int, ...]) -> Plan:
    """Dimensions backwards: a copy through negative strides."""
    out = layout(x.device, x.dtype, x.shape)
    back = layout(x.device, x.dtype, x.shape, tuple([-s if i in axes else s for i, s in enumerate(x.strides)]))
    last = builtins.sum((x.shape[a] - 1) * x.strides[a] for a in axes) * x.dtype.itemsize if x.size else 0
    move = mover(out, back)

    def run(a: Array) -> Array:
        y = alloc(out)
        move(y, 0, memory.view(a, back, last))
        return y
    return Plan(run, out, "copy")


@planner
def _flipped(x: Layout, axes: tuple[int, ...]) -> Bound:
    return bind(_flip, x, axes=axes)


_flip = Primitive("flip", _prepare_flip, {"x": lambda g, axes: through(_flipped, g, axes)})


@_flip.samples
def _flip_samples(make: Any) -> Any:
    yield make(5, 33), {"axes": (0,)}
    yield make(2, 31, 3), {"axes": (2, 0)}
    yield make(0, 3), {"axes": (0,)}
    yield make(2, 3), {"axes": ()}


@_flip.reference
def _flip_reference(x: Any, *, axes: tuple[int, ...]) -> Any:
    return np.flip(x, axes)


@planner
def _flip_to(x: Layout, *dims: Any) -> Bound:
    return bind(_flip, x, axes=axes(dims, x.ndim, "flip") if x.ndim else ())


def flip(input: Tensor, *args: Any, **given: Any) -> Tensor:
    """The dimensions in `dims` backwards (a copy)."""
    return through(_flip_to, input, *(named(args, given, "dims", "flip") if given else args))


def fliplr(input: Tensor) -> Tensor:
    """The second dimension backwards."""
    if input.array.layout.ndim < 2:
        fail("fliplr", "needs at least two dimensions", input.array.layout)
    return through(_flipped, input, (1,))


def flipud(input: Tensor) -> Tensor:
    """The first dimension backwards."""
    if input.array.layout.ndim < 1:
        fail("flipud", "needs at least one dimension", input.array.layout)
    return through(_flipped, input, (0,))


def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """`k` quarter turns in the plane of two dimensions, from the first to the second."""
    if len(dims) != 2 or input.array.layout.ndim < 2:
        fail("rot90", "needs a plane of two dimensions", [input.array.layout, f"dims {list(dims)}"])
    a, b = axes((dims,), input.array.layout.ndim, "rot90")
    turned = [copy.call, lambda x: flip(x, (b,)).transpose(a, b), lambda x: flip(x, (a, b)), lambda x: flip(x.transpose(a, b), (b,))]
    return turned[k % 4](input)


def _prepare_roll(x: Layout, *, shift: int, dim: int) -> Plan:
    """The elements shifted along a dimension; what leaves at the end comes back at the start."""
    out, n = layout(x.device, x.dtype, x.shape), x.shape[dim]
    cut = (n - shift) % n if n else 0           # the element that comes first
    moves = []
    for start, to, length in ((cut, 0, n - cut), (0, n - cut, cut)):
        shape = (*x.shape[:dim], length, *x.shape[dim + 1:])
        move = mover(layout(x.device, x.dtype, shape, out.strides), layout(x.device, x.dtype, shape, x.strides))
        moves.append((move, to * out.strides[dim] * x.dtype.itemsize, start * x.strides[dim] * x.dtype.itemsize))

    def run(a: Array) -> Array:
        y = alloc(out)
        for move, to, start in moves:
            move(y, to, memory.view(a, x, start))
        return y
    return Plan(run, out, "two copies")


@planner
def _rolled(x: Layout, shift: Any, dim: Any) -> Bound:
    return bind(_roll, x, shift=operator.index(shift), dim=_rule_axis(dim, x.ndim, "roll"))


_roll = Primitive("roll", _prepare_roll, {"x": lambda g, shift, dim: through(_rolled, g, -shift, dim)})


@_roll.samples
def _roll_samples(make: Any) -> Any:
    yield make(5, 33), {"shift": 2, "dim": 1}
    yield make(31, 2), {"shift": -40, "dim": 0}
    yield make(3), {"shift": 0, "dim": 0}
    yield make(0, 3), {"shift": 1, "dim": 0}


@_roll.reference
def _roll_reference(x: Any, *, shift: int, dim: int) -> Any:
    return np.roll(x, shift, dim)


def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """The elements shifted along dimensions; what leaves at the end comes back at the start. Without dims, along all elements."""
    if type(shifts) is int and type(dims) is int:
        return through(_rolled, input, shifts, dims)
    by = tuple(shifts) if isinstance(shifts, (tuple, list)) else (shifts,)
    along = () if dims is None else tuple(dims) if isinstance(dims, (tuple, list)) else (dims,)
    if not by:
        fail("roll", "at least one shift must be given", f"shifts {by}")
    if not along and len(by) == 1:
        return through(_reshaped, through(_rolled, ravel(input), by[0], 0), input.array.layout.shape)
    if len(along) != len(by):
        fail("roll", "shifts and dims must have the same length", [f"shifts {by}", f"dims {dims}"])
    for shift, dim in zip(by, along, strict=True):
        input = through(_rolled, input, shift, dim)
    return input


# ---- repetition -----------------------------------------------------------------------------------------------------

def repeat(input: Tensor, *repeats: Any) -> Tensor:
    """The tensor laid side by side, `repeats` times along each dimension (further leading ones may be given)."""
    times = sizes(tuple([_plain(r) for r in repeats]), "repeat")
    x = input.array.layout
    lead = len(times) - x.ndim
    if lead < 0:
        fail("repeat", "needs a number for each dimension", [x, f"repeats {list(times)}"])
    shape = (1,) * lead + x.shape
    if builtins.all(n == 1 for n in times):
        return copy.call(through(_reshaped, input, shape))
    split_up = through(_reshaped, input, tuple([m for n in shape for m in (1, n)]))
    spread = through(_expanded, split_up, tuple([m for r, n in zip(times, shape, strict=True) for m in (r, n)]))
    return through(_reshaped, copy.call(spread), tuple([r * n for r, n in zip(times, shape, strict=True)]))


def tile(input: Tensor, *args: Any, **given: Any) -> Tensor:
    """`repeat(*dims)`, where missing leading numbers are 1."""
    dims = named(args, given, "dims", "tile") if given else args
    times = sizes(tuple([_plain(d) for d in dims]), "tile")
    return repeat(input, (1,) * (input.array.layout.ndim - len(times)) + times)


# ---- pad ------------------------------------------------------------------------------------------------------------

@lru_cache(maxsize=256)
def _border(n: int, left: int, right: int, how: str, device: Any) -> Tensor:
    """Where the elements of a padded dimension come from."""
    i = np.arange(-left, n + right)
    if how == "circular":
        i %= n
    elif how == "replicate":
        i = i.clip(0, n - 1)
    else:
        i = n - 1 - builtins.abs(n - 1 - builtins.abs(i))
    return new_tensor(device.upload(i), None)


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """More elements at the borders: `pad` is (left, right) of the last dimension, then of the one before, and so on.

    mode: "constant" (`value`, default 0; negative numbers cut), "reflect", "replicate" or "circular".
    """
    x = input.array.layout
    if isinstance(pad, Tensor):
        pad = pad.tolist()
    amounts = [operator.index(p) for p in pad]
    if len(amounts) % 2:
        fail("pad", "pad must have an even length", list(pad))
    if len(amounts) // 2 > x.ndim:
        fail("pad", "pad has more pairs than the tensor dimensions", [x, f"pad {amounts}"])
    if mode not in ("constant", "reflect", "replicate", "circular"):
        raise NotImplementedError(f"[pad] mode must be 'constant', 'reflect', 'replicate' or 'circular'; got {mode!r}")
    if mode == "constant":
        return _pad_constant(input, amounts, 0 if value is None else value)
    if value is not None and value != 0:
        raise ValueError(f"[pad] mode {mode!r} takes no value; got {value}")
    if x.ndim not in (len(amounts) // 2 + 1, len(amounts) // 2 + 2):
        raise NotImplementedError(f"[pad] mode {mode!r} pads all dimensions of a tensor but the first one or two; got {x}, pad {amounts}")
    from .index import take_at
    for k in range(len(amounts) // 2):
        a, left, right = x.ndim - 1 - k, *amounts[2 * k:2 * k + 2]
        n = x.shape[a]
        if n + left + right < (0 if mode == "circular" else 1) or n == 0:
            fail("pad", "the padded size must be positive", [x, f"pad {amounts}"])
        most = {"reflect": n - 1, "circular": n}.get(mode)
        if most is not None and builtins.max(left, right) > most:
            fail("pad", f"mode {mode!r} can pad dimension {a} by at most {most}", [x, f"pad {amounts}"])
        if mode == "circular" and (left < 0 or right < 0):          # cut first: what is cut off does not come round again
            n += builtins.min(left, 0) + builtins.min(right, 0)
            if n < 1:
                fail("pad", "circular padding needs something to repeat", [x, f"pad {amounts}"])
            input = through(_narrow, input, a, builtins.max(-left, 0), n)
            left, right = builtins.max(left, 0), builtins.max(right, 0)
        if left or right:
            input = take_at(input, _border(n, left, right, mode, x.device), a, 1)
    return input


def _pad_constant(input: Tensor, amounts: list[int], value: float) -> Tensor:
    x = input.array.layout
    if not is_float(x.dtype):
        value = int(value)
    pairs = [(0, 0)] * (x.ndim - len(amounts) // 2) + [(amounts[i], amounts[i + 1]) for i in range(len(amounts) - 2, -1, -2)]
    for a, (left, right) in enumerate(pairs):
        n = x.shape[a]
        if n + left + right < 0:
            fail("pad", "the padded sizes must not be negative", [x, f"pad {amounts}"])
        if left < 0 or right < 0:
            low, high = builtins.max(-left, 0), n - builtins.max(-right, 0)
            input = through(_narrow, input, a, low, builtins.max(high - low, 0))
    # cut first, then put what is left into the larger tensor
    key, shape = [], []
    for n, (left, right) in zip(input.array.layout.shape, pairs, strict=True):
        key.append((builtins.max(left, 0), 1, n))
        shape.append(n + builtins.max(left, 0) + builtins.max(right, 0))
    if tuple(shape) == input.array.layout.shape:
        return copy.call(input)
    placed = _place(input, shape=tuple(shape), key=tuple(key))
    return placed if value == 0 else where(_inside(tuple(shape), tuple(key), x.device), placed, constant(value, x.dtype, x.device))


@lru_cache(maxsize=64)
def _inside(shape: tuple[int, ...], key: tuple, device: Any) -> Tensor:
    """True where padding put the input."""
    mask = np.zeros(shape, bool)
    mask[tuple(slice(start, start + n) for start, _, n in key)] = True
    return new_tensor(device.upload(mask), None)


def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """Grids of coordinates of vectors: output i varies along dimension i ("ij"), or the first two swapped ("xy")."""
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    if indexing is None:
        indexing = "ij"
        if len(given) > 1:
            warnings.warn("[meshgrid] pass indexing='ij' (the default) or 'xy'", stacklevel=2)
    if indexing not in ("ij", "xy"):
        fail("meshgrid", "indexing must be 'ij' or 'xy'", repr(indexing))
    if not given:
        fail("meshgrid", "needs at least one tensor")
    for x in given:
        if x.array.layout.ndim > 1:
            fail("meshgrid", "needs vectors or 0-d tensors", x.array.layout)
        if x.array.layout.dtype != given[0].array.layout.dtype:
            fail("meshgrid", "needs tensors of one dtype", [y.array.layout for y in given])
    order = list(range(len(given)))
    if indexing == "xy" and len(given) > 1:
        order[0], order[1] = 1, 0
    n = [x.array.layout.size for x in given]
    shape = tuple([n[i] for i in order])
    lines = [through(_reshaped, x, tuple([n[i] if j == i else 1 for j in order])) for i, x in enumerate(given)]
    return tuple([through(_expanded, line, shape) for line in lines])


INPLACE = {"tril", "triu"}
METHODS = {"T": property(reverse_dims), "mT": property(matrix_transpose)}
