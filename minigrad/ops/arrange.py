"""Rearranged elements: unfold, triangles, flips, rolls, repetition, padding, meshgrid.

All but `unfold` and `meshgrid` copy. Read first view.py: `view_op`, `window_op` and `place_op` are used here.
"""
from __future__ import annotations

import builtins
import operator
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ..core.arrays import mover
from ..core.op import Primitive
from ..core.shape import BOOL, axis_of, fail
from ..core.tensor import Tensor, new_tensor
from ..core.warning import warn
from ..devices import memory
from ..devices.memory import Array, Layout, alloc, layout
from ..devices.plan import Plan, elementwise_plan, host_plan
from .arguments import axes, existing_axis, hashable, named, sizes
from .convert import on_device
from .dispatch import constant
from .math import copy, where
from .take import add_at, take_at
from .through import bind, planner, through
from .view import as_expanded, as_moved, as_narrowed, as_reshaped, place_op, ravel, reshape_op, view_op, window_op

__all__ = ["unfold", "tril", "triu", "flip", "fliplr", "flipud", "roll", "rot90", "repeat", "tile", "pad",
           "meshgrid"]


# ---- windows ---------------------------------------------------------------------------------------------------------

def _unfold_rule(x: Layout, *, dim: int, size: int, step: int) -> tuple[Layout, int]:
    """All windows of `size` elements, `step` apart, along a dimension; the window is the last dimension. Windows may
    overlap."""
    count = (x.shape[dim] - size) // step + 1
    shape, strides = list(x.shape), list(x.strides)
    shape[dim], strides[dim] = count, x.strides[dim] * step
    return layout(x.device, x.dtype, (*shape, size), (*strides, x.strides[dim])), 0


def _unfold_vjp(g: Tensor, x_shape: tuple[int, ...], dim: int, size: int, step: int) -> Tensor:
    """The gradient of `unfold`: each window's gradient added at the places that the window was read from."""
    count = g.array.layout.shape[dim]
    places = on_device(step * np.arange(count)[:, None] + np.arange(size), g.device)
    return add_at(x_shape, through(as_moved, g, -1, dim + 1), places, dim)


_unfold = view_op("unfold", _unfold_rule, _unfold_vjp)


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
def _unfold_to(x: Layout, dimension: Any, size: Any, step: Any) -> Plan:
    """Planner of `unfold`."""
    a = axis_of(dimension, x.ndim, "unfold")
    size, step, n = operator.index(size), operator.index(step), x.shape[a] if x.ndim else 1
    if step < 1 or not 0 <= size <= n:
        fail("unfold", "size must lie between 0 and the dimension's size, and step be positive",
             [x, f"size {size}", f"step {step}"])
    if not x.ndim:
        return bind(reshape_op, x, shape=(size,)) if size else bind(window_op, x, key=((0, 1, 0),))
    return bind(_unfold, x, dim=a, size=size, step=step)


def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """All windows of `size` elements, `step` apart, along `dimension`: a view whose last dimension is the window. Size
    n of `dimension` becomes (n - size) // step + 1. RuntimeError unless 0 <= size <= n and step > 0.

    >>> minigrad.arange(5).unfold(0, 3, 2).tolist()
    [[0, 1, 2], [2, 3, 4]]
    """
    return through(_unfold_to, input, dimension, size, step)


# ---- triangles -------------------------------------------------------------------------------------------------------

def _prepare_triangle(x: Layout, *, diagonal: int, lower: bool) -> Plan:
    """The elements on a diagonal of the last two dimensions and on one side of it; zeros on the other side."""
    if x.ndim < 2:
        fail("tril" if lower else "triu", "needs at least two dimensions", x)
    out = layout(x.device, x.dtype, x.shape)
    rows, columns = x.shape[-2:]
    if not x.size:
        return Plan(lambda a: alloc(out), out, "there are no elements")
    zero = constant(0, x.dtype, x.device).array
    kernel = x.device.kernels.where.move(x.dtype)
    if kernel is None:
        def triangle(v: Any, out: Any) -> None:
            np.copyto(out, np.tril(v, diagonal) if lower else np.triu(v, diagonal))

        return host_plan(out, triangle, f"no where kernel for {x.dtype}: NumPy", (x,), moves=True)
    # what is kept depends on column - row only: the mask is a vector, of which each row begins one element earlier
    distance = np.arange(1 - rows, columns)
    line = x.device.upload(distance <= diagonal if lower else distance >= diagonal)
    mask = layout(x.device, BOOL, (rows, columns), (-1, 1))
    keep, plan = memory.view(line, mask, rows - 1), elementwise_plan(out, mask, x, zero.layout)

    def run(a: Array) -> Array:
        y = alloc(out)
        kernel.call(y.ptr, keep.ptr, a.ptr, zero.ptr, plan.ptr)
        return y
    return Plan(run, out, f"kernel {kernel.name}")


@planner
def _triangular(x: Layout, diagonal: Any, lower: bool) -> Plan:
    """Planner of `tril` (`lower`) and `triu`."""
    return bind(_triangle, x, diagonal=operator.index(diagonal), lower=lower)


_triangle = Primitive("triangle", _prepare_triangle,
                      {"x": lambda g, diagonal, lower: through(_triangular, g, diagonal, lower)})


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
    """The elements on and below a diagonal of the last two dimensions, zeros elsewhere. `diagonal` > 0 is above the
    main diagonal, < 0 below it. RuntimeError for fewer than two dimensions."""
    return through(_triangular, input, diagonal, True)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The elements on and above a diagonal of the last two dimensions, zeros elsewhere. `diagonal` > 0 is above the
    main diagonal, < 0 below it. RuntimeError for fewer than two dimensions."""
    return through(_triangular, input, diagonal, False)


# ---- order -----------------------------------------------------------------------------------------------------------

def _prepare_flip(x: Layout, *, axes: tuple[int, ...]) -> Plan:
    """Dimensions in reverse order of their elements: a copy that reads with negative strides."""
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
def _flipped(x: Layout, axes: tuple[int, ...]) -> Plan:
    """Planner: `flip` of axes that are not negative."""
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
def _flip_to(x: Layout, *dims: Any) -> Plan:
    """Planner of `flip`."""
    turned = axes(dims, x.ndim, "flip")
    return bind(_flip, x, axes=turned if x.ndim else ())


def flip(input: Tensor, *args: Any, **given: Any) -> Tensor:
    """The elements in reverse order along each of `dims`: a copy. `flip(0, 1)` or `flip((0, 1))`."""
    if not args and not given:
        raise TypeError("[flip] dims is missing; use flip(0), or flip((0, 1))")
    return through(_flip_to, input, *(named(args, given, "dims", "flip") if given else args))


def fliplr(input: Tensor) -> Tensor:
    """The elements in reverse order along the second dimension: a copy."""
    if input.array.layout.ndim < 2:
        fail("fliplr", "needs at least two dimensions", input.array.layout)
    return through(_flipped, input, (1,))


def flipud(input: Tensor) -> Tensor:
    """The elements in reverse order along the first dimension: a copy."""
    if input.array.layout.ndim < 1:
        fail("flipud", "needs at least one dimension", input.array.layout)
    return through(_flipped, input, (0,))


def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """`k` quarter turns in the plane of two dimensions, from the first of `dims` to the second; k < 0 turns back."""
    if len(dims) != 2 or input.array.layout.ndim < 2:
        fail("rot90", "needs a plane of two dimensions", [input.array.layout, f"dims {list(dims)}"])
    a, b = axes((dims,), input.array.layout.ndim, "rot90")
    turned = [copy.call, lambda x: flip(x, (b,)).transpose(a, b), lambda x: flip(x, (a, b)),
              lambda x: flip(x.transpose(a, b), (b,))]
    return turned[k % 4](input)


def _prepare_roll(x: Layout, *, shift: int, dim: int) -> Plan:
    """The elements shifted along a dimension; those shifted out at the end come in at the start."""
    out, n = layout(x.device, x.dtype, x.shape), x.shape[dim]
    cut = (n - shift) % n if n else 0           # the element that comes first in the result
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
def _rolled(x: Layout, shift: Any, dim: Any) -> Plan:
    """Planner: `roll` along one dimension."""
    return bind(_roll, x, shift=operator.index(shift), dim=existing_axis(dim, x.ndim, "roll"))


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
    """The elements shifted by `shifts` along `dims` (one shift for each); those shifted out at the end come in at the
    start. Without `dims`, the flattened tensor is shifted by one shift, and keeps its shape. A copy.

    >>> minigrad.arange(4).roll(1).tolist()
    [3, 0, 1, 2]
    """
    if type(shifts) is int and type(dims) is int:
        return through(_rolled, input, shifts, dims)
    by = tuple(shifts) if isinstance(shifts, (tuple, list)) else (shifts,)
    along = () if dims is None else tuple(dims) if isinstance(dims, (tuple, list)) else (dims,)
    if not by:
        fail("roll", "at least one shift must be given", f"shifts {by}")
    if not along and len(by) == 1:
        return through(as_reshaped, through(_rolled, ravel(input), by[0], 0), input.array.layout.shape)
    if len(along) != len(by):
        fail("roll", "shifts and dims must have the same length", [f"shifts {by}", f"dims {dims}"])
    for shift, dim in zip(by, along, strict=True):
        input = through(_rolled, input, shift, dim)
    return input


# ---- repetition ------------------------------------------------------------------------------------------------------

def repeat(input: Tensor, *args: Any, **given: Any) -> Tensor:
    """The tensor `repeats` times along each dimension, as a copy: `repeat(2, 3)`, `repeat((2, 3))` or
    `repeat(repeats=(2, 3))`. More numbers than dimensions add leading dimensions; fewer raise RuntimeError. Size n
    becomes n times its number."""
    repeats = named(args, given, "repeats", "repeat") if given else args
    times = sizes(tuple([hashable(r) for r in repeats]), "repeat")
    x = input.array.layout
    lead = len(times) - x.ndim
    if lead < 0:
        fail("repeat", "needs a number for each dimension", [x, f"repeats {list(times)}"])
    shape = (1,) * lead + x.shape
    if builtins.all(n == 1 for n in times):
        return copy.call(through(as_reshaped, input, shape))
    split_up = through(as_reshaped, input, tuple([m for n in shape for m in (1, n)]))
    spread = through(as_expanded, split_up, tuple([m for r, n in zip(times, shape, strict=True) for m in (r, n)]))
    return through(as_reshaped, copy.call(spread), tuple([r * n for r, n in zip(times, shape, strict=True)]))


def tile(input: Tensor, *args: Any, **given: Any) -> Tensor:
    """`repeat(*dims)`, where missing leading numbers are 1."""
    dims = named(args, given, "dims", "tile") if given else args
    times = sizes(tuple([hashable(d) for d in dims]), "tile")
    return repeat(input, (1,) * (input.array.layout.ndim - len(times)) + times)


# ---- pad -------------------------------------------------------------------------------------------------------------

def _border(n: int, left: int, right: int, how: str, device: Any) -> Tensor:
    """For each element of a padded dimension, the place in the input of size n that it is read from."""
    i = np.arange(-left, n + right)
    if how == "circular":
        i %= n
    elif how == "replicate":
        i = i.clip(0, n - 1)
    else:
        i = n - 1 - builtins.abs(n - 1 - builtins.abs(i))
    return new_tensor(device.upload(i), None)


_kept_border = lru_cache(maxsize=256)(_border)
_KEPT = 1 << 12             # elements of a table that is kept: many of long ones would fill the memory


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """`input` with elements added at the borders. `pad` is (left, right) of the last dimension, then of the one before,
    and so on; a negative number cuts elements off.

    mode: "constant" (the new elements are `value`, by default 0), "reflect" (mirrored at the border element, without
    repeating it), "replicate" (the border element) or "circular" (from the other end). All but "constant" pad all
    dimensions but the first one or two (NotImplementedError otherwise).

    >>> minigrad.pad(minigrad.ones(2), (1, 2)).tolist()
    [0.0, 1.0, 1.0, 0.0, 0.0]
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
        raise NotImplementedError(f"[pad] mode {mode!r} pads all dimensions of a tensor but the first one or two; "
                                  f"got {x}, pad {amounts}")
    return _pad_from_input(input, amounts, mode)


def _pad_from_input(input: Tensor, amounts: list[int], mode: str) -> Tensor:
    """`pad` with a mode that takes the new elements from the input."""
    source, x = input, input.array.layout
    if mode != "circular" and x.shape[-len(amounts) // 2 - 1] == 0:
        fail("pad", f"mode {mode!r} pads tensors without elements only where the batch is empty", x)
    for k in range(len(amounts) // 2):
        a, left, right = x.ndim - 1 - k, *amounts[2 * k:2 * k + 2]
        n = x.shape[a]
        if n + left + right < (0 if mode == "circular" else 1) or n == 0:
            fail("pad", "the padded size must be positive", [x, f"pad {amounts}"])
        most = {"reflect": n - 1, "circular": n}.get(mode)
        if most is not None and builtins.max(left, right) > most:
            fail("pad", f"mode {mode!r} can pad dimension {a} by at most {most}", [x, f"pad {amounts}"])
        if mode == "circular" and (left < 0 or right < 0):      # cut first: elements cut off are not repeated
            n += builtins.min(left, 0) + builtins.min(right, 0)
            if n < 1:
                fail("pad", "circular padding needs something to repeat", [x, f"pad {amounts}"])
            input = through(as_narrowed, input, a, builtins.max(-left, 0), n)
            left, right = builtins.max(left, 0), builtins.max(right, 0)
        if left or right:
            border = _kept_border if n + left + right <= _KEPT else _border
            input = take_at(input, border(n, left, right, mode, x.device), a, 1)
    return copy.call(input) if input.array.storage is source.array.storage else input       # never the input's memory


def _pad_constant(input: Tensor, amounts: list[int], value: float) -> Tensor:
    """`pad` with mode constant: cuts, then writes the rest into a larger tensor of `value`."""
    x = input.array.layout
    given = [(amounts[i], amounts[i + 1]) for i in range(len(amounts) - 2, -1, -2)]
    pairs = [(0, 0)] * (x.ndim - len(given)) + given
    for a, (left, right) in enumerate(pairs):
        n = x.shape[a]
        if n + left + right < 0:
            fail("pad", "the padded sizes must not be negative", [x, f"pad {amounts}"])
        if left < 0 or right < 0:
            low, high = builtins.max(-left, 0), n - builtins.max(-right, 0)
            input = through(as_narrowed, input, a, low, builtins.max(high - low, 0))
    # what is cut off is gone: write the rest into the larger tensor
    key, shape = [], []
    for n, (left, right) in zip(input.array.layout.shape, pairs, strict=True):
        key.append((builtins.max(left, 0), 1, n))
        shape.append(n + builtins.max(left, 0) + builtins.max(right, 0))
    if tuple(shape) == input.array.layout.shape:
        return copy.call(input)
    placed = place_op(input, shape=tuple(shape), key=tuple(key))
    if value == 0:
        return placed
    inside = _kept_inside if prod(shape) <= _KEPT else _inside
    return where(inside(tuple(shape), tuple(key), x.device), placed, constant(value, x.dtype, x.device, "pad"))


def _inside(shape: tuple[int, ...], key: tuple, device: Any) -> Tensor:
    """True where the padded tensor holds elements of the input."""
    mask = np.zeros(shape, bool)
    mask[tuple(slice(start, start + n) for start, _, n in key)] = True
    return new_tensor(device.upload(mask), None)


_kept_inside = lru_cache(maxsize=64)(_inside)


# ---- grids -----------------------------------------------------------------------------------------------------------

def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """A tuple of grids, one for each vector: views of the common shape. With `indexing` "ij" output i varies along
    dimension i; with "xy" the first two dimensions are swapped. Without `indexing` it is "ij", with a warning.

    >>> x, y = minigrad.meshgrid(minigrad.arange(2), minigrad.arange(3), indexing="ij")
    >>> y.tolist()
    [[0, 1, 2], [0, 1, 2]]
    """
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    if indexing is None:
        indexing = "ij"
        if len(given) > 1:
            warn("[meshgrid] pass indexing='ij' (the default) or 'xy'")
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
    lines = [through(as_reshaped, x, tuple([n[i] if j == i else 1 for j in order])) for i, x in enumerate(given)]
    return tuple([through(as_expanded, line, shape) for line in lines])


INPLACE = {"tril", "triu"}
