"""Views and joins: reshape, permute, expand and their kin. A view launches nothing: it is another layout on the memory."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..memory import Array, Layout, contiguous_strides, layout, view
from ..op import Plan, Primitive
from ..shape import axis_of, fail, shape_of
from ..tensor import Tensor
from .elementwise import contiguous_copy, copy

__all__ = ["reshape", "permute", "transpose", "expand", "contiguous"]


def _viewer(out: Layout, offset: int = 0) -> Callable[[Array], Array]:
    return lambda x: view(x, out, offset)


def _prepare_alias(x: Layout) -> Plan:
    """The same values: an identity node."""
    return Plan(_viewer(x), x)


alias = Primitive("alias", _prepare_alias, {"x": lambda g: g})


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


def _prepare_reshape(x: Layout, *, shape: tuple[int, ...]) -> Plan:
    """The same elements in row-major order under another shape; a view where the strides allow it, else a copy."""
    total = 1
    for n in shape:
        total *= n
    if total != x.size:
        fail("reshape", "the number of elements must not change", [x, f"shape {list(shape)}"])
    strides = view_strides(x, shape) if x.size else contiguous_strides(shape)
    if strides is None:
        out = layout(x.device, x.dtype, shape)
        return Plan(lambda a: view(contiguous_copy(a), out), out, "copies: the strides do not allow a view")
    out = layout(x.device, x.dtype, shape, strides)
    return Plan(_viewer(out), out, "view")


_reshape = Primitive("reshape", _prepare_reshape, {"x": lambda g, x_shape: _reshape(g, shape=x_shape)})


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


def reshape(x: Tensor, *shape: Any) -> Tensor:
    """The same elements under another shape (one size may be -1); a view if possible, else a copy."""
    wanted = shape_of(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape, "reshape", infer=True)
    return _reshape(x, shape=infer_shape("reshape", x.array.layout.size, wanted))


def _prepare_permute(x: Layout, *, axes: tuple[int, ...]) -> Plan:
    """Dimensions in another order: a view."""
    out = layout(x.device, x.dtype, tuple(x.shape[a] for a in axes), tuple(x.strides[a] for a in axes))
    return Plan(_viewer(out), out, "view")


_permute = Primitive("permute", _prepare_permute, {"x": lambda g, axes: _permute(g, axes=inverse(axes))})


def inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    back = [0] * len(axes)
    for i, a in enumerate(axes):
        back[a] = i
    return tuple(back)


def permute(x: Tensor, *dims: Any) -> Tensor:
    """Dimensions in the given order."""
    given = dims[0] if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
    axes = tuple(axis_of(d, x.ndim, "permute") for d in given)
    if sorted(axes) != list(range(x.ndim)):
        fail("permute", "dims must name each dimension once", [x.array.layout, f"dims {list(given)}"])
    return _permute(x, axes=axes)


def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions swapped: a view."""
    axes = list(range(x.ndim))
    a, b = axis_of(dim0, x.ndim, "transpose"), axis_of(dim1, x.ndim, "transpose")
    if axes:
        axes[a], axes[b] = b, a
    return _permute(x, axes=tuple(axes))


def _prepare_expand(x: Layout, *, shape: tuple[int, ...]) -> Plan:
    """Size-1 and missing leading dimensions repeated without copying (stride 0)."""
    lead = len(shape) - x.ndim
    if lead < 0 or any(n not in (1, m) for n, m in zip(x.shape, shape[lead:], strict=True)):
        fail("expand", "only sizes of 1 can be expanded", [x, f"shape {list(shape)}"])
    out = layout(x.device, x.dtype, shape, (0,) * lead + tuple(0 if n == 1 and m != 1 else s for n, m, s in zip(x.shape, shape[lead:], x.strides, strict=True)))
    return Plan(_viewer(out), out, "view")


_expand = Primitive("expand", _prepare_expand, {"x": lambda g: g})      # the engine sums over what was repeated


def expand(x: Tensor, *sizes: Any) -> Tensor:
    """`x` with its size-1 dimensions repeated to the given sizes (-1 keeps a size): a view."""
    wanted = shape_of(sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes, "expand") if -1 not in sizes else sizes
    if len(sizes) == 1 and not isinstance(sizes[0], int):
        wanted = tuple(sizes[0])
    lead = len(wanted) - x.ndim
    if lead < 0 or any(n == -1 for n in wanted[:lead]):
        fail("expand", "more dimensions are needed than the tensor has, and -1 only for those it has", [x.array.layout, f"sizes {list(wanted)}"])
    return _expand(x, shape=tuple(x.array.layout.shape[i - lead] if n == -1 else n for i, n in enumerate(wanted)))


def contiguous(x: Tensor) -> Tensor:
    """The tensor itself if its memory is in C order, else a copy that is."""
    return x if x.array.layout.contiguous else copy(x)
