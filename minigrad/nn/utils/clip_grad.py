"""Gradient clipping, in place and without reading a value back, so that a captured step replays it.

Gradients of one device and dtype take one launch for all of them (native/optim.c); for others, and on the CPU for those
of half precision, Tensor ops are used. Half precision is computed in float32.
"""
from __future__ import annotations

import types
from collections.abc import Iterable
from functools import reduce
from math import inf

import numpy as np

from ...core.half import widened
from ...core.modes import mode, no_grad
from ...core.shape import FLOAT32, default_float, fail, is_float, promote
from ...core.tensor import Tensor, bump
from ...core.warning import warn
from ...devices.memory import Array
from ...ops.creation import empty, tensor
from ...ops.join import stack

_tables: dict[tuple, tuple[np.ndarray, Array]] = {}     # by device, dtype and sizes: the rows, and where they are kept


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """The gradients of the parameters that have one."""
    found = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    if not found and isinstance(parameters, types.GeneratorType):
        warn("`parameters` is an empty generator: no gradient is clipped")
    if mode.recorder is not None:
        for p in found:
            mode.recorder.reads_grad(p)
    return [p.grad for p in found if p.grad is not None]


def _table(grads: list[Tensor]) -> Array | None:
    """The table of gradients that a launch takes, or None if one launch cannot do it.

    The table is that of the optimizers; of its columns only the gradient's address and its size are used here.
    """
    first = grads[0].layout
    if first.device.kernels.grad_norm_sq.get(first.dtype) is None:
        return None
    for g in grads:
        if not g.layout.contiguous or g.layout.dtype is not first.dtype or g.layout.device is not first.device:
            return None
    key = (first.device, first.dtype, *[g.array.layout.size for g in grads])
    rows, table = _tables.get(key, (None, None))
    if rows is None or mode.recorder is not None:               # nothing may rewrite the table of a recorded launch
        rows = np.array([[0, g.array.ptr, 0, 0, 0, 0, g.array.layout.size] for g in grads], np.int64)
        table = first.device.constant(rows)
        if mode.recorder is None:
            if len(_tables) >= 32:
                _tables.clear()
            _tables[key] = rows, table
    elif rows[:, 1].tolist() != (at := [g.array.ptr for g in grads]):
        rows[:, 1] = at
        first.device.write(table, rows, moved=True)      # type: ignore[arg-type]
    if mode.recorder is not None:               # a launch has the address of the table only, not of the gradients
        for g in grads:
            mode.recorder.hold(g.array.ptr)
    return table


def _squares(grads: list[Tensor], table: Array) -> Tensor:
    """The sum of the squares of all gradients, a float64 scalar."""
    out = empty((), dtype=np.float64, device=grads[0].device)
    grads[0].device.kernels.grad_norm_sq[grads[0].dtype].call(out.array.ptr, table.ptr, len(grads))
    return out


def _norm(x: Tensor, p: float) -> Tensor:
    """(sum |x|^p)^(1 / p), and its limits at p = 0, inf and -inf."""
    if p == inf:
        return x.abs().max()
    if p == -inf:
        return x.abs().min()
    if p == 2:
        return (x * x).sum().sqrt()
    if p == 0:
        return (x.abs() > 0).to(x.dtype).sum()
    return (x.abs() ** p).sum() ** (1.0 / p)


def _checked(total: Tensor, norm_type: float, error_if_nonfinite: bool) -> Tensor:
    """The norm itself; RuntimeError if it must be finite and is not."""
    if error_if_nonfinite and not bool(total.isfinite()):
        raise RuntimeError(f"[clip_grad_norm_] the total norm of order {norm_type} of the gradients is non-finite; "
                           "look for the cause, or pass error_if_nonfinite=False to scale by it")
    return total


@no_grad()
def get_total_norm(tensors: Tensor | Iterable[Tensor], norm_type: float = 2.0, error_if_nonfinite: bool = False,
                   foreach: bool | None = None) -> Tensor:
    """The `norm_type`-norm of all tensors as if they were one vector: a scalar tensor.

    `error_if_nonfinite`: RuntimeError if it is nan or infinite. `foreach` changes nothing.
    """
    found = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    for t in found:
        if not is_float(t.dtype):
            fail("get_total_norm", "tensors must be of a floating-point dtype", t.layout, "convert them with .float()")
    return _total(found, float(norm_type), error_if_nonfinite).to(_common(found))


def _common(found: list[Tensor]) -> np.dtype:
    """The dtype of the total norm: that of the tensors, or what they are promoted to."""
    return reduce(promote, [t.dtype for t in found]) if found else default_float()


def _total(found: list[Tensor], norm_type: float, error_if_nonfinite: bool) -> Tensor:
    """The norm of all tensors, in float32 at least; checked."""
    if not found:
        return tensor(0.0)
    if norm_type == 2 and (table := _table(found)) is not None:
        total = _squares(found, table).sqrt().to(promote(found[0].dtype, FLOAT32))
        return _checked(total, norm_type, error_if_nonfinite)
    norms = [_norm(widened(t), norm_type).to(found[0].device) for t in found]
    common = reduce(promote, [n.dtype for n in norms])
    return _checked(_norm(stack([n.to(common) for n in norms]), norm_type), norm_type, error_if_nonfinite)


def _scale(grads: list[Tensor], max_norm: float, total: Tensor) -> None:
    scale = (float(max_norm) / (total + 1e-6)).clamp(max=1.0)
    for g in grads:
        g.copy_(widened(g) * scale.to(g.device))


@no_grad()
def clip_grads_with_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor,
                          foreach: bool | None = None) -> None:
    """Scales all gradients by min(1, max_norm / (total_norm + 1e-6)), in place: `total_norm`, a scalar, may be that of
    more gradients than these."""
    _scale(_gradients(parameters), max_norm, total_norm)


@no_grad()
def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0,
                    error_if_nonfinite: bool = False, foreach: bool | None = None) -> Tensor:
    """Scales all gradients by min(1, max_norm / (norm + 1e-6)), in place (Pascanu et al. 2013).

    `norm` is `get_total_norm` of the gradients before, and is returned. Parameters without gradient are left out.
    """
    grads, norm_type = _gradients(parameters), float(norm_type)
    table = _table(grads) if grads and norm_type == 2 else None
    if table is None:
        total = _total(grads, norm_type, error_if_nonfinite)
        _scale(grads, max_norm, total)
        return total.to(_common(grads))
    device, dtype = grads[0].device, grads[0].dtype
    squares, total = _squares(grads, table), empty((), dtype=dtype, device=device)
    if error_if_nonfinite:
        _checked(squares.sqrt().to(promote(dtype, FLOAT32)), norm_type, True)
    kernel = device.kernels.grad_scale[dtype]
    kernel.call(total.array.ptr, table.ptr, squares.array.ptr, len(grads), float(max_norm), 1e-6)
    for g in grads:
        bump(g)
    return total


@no_grad()
def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Cuts every gradient value to [-clip_value, clip_value], in place."""
    grads, clip_value = _gradients(parameters), float(clip_value)
    table = _table(grads) if grads else None
    if table is not None:
        grads[0].device.kernels.grad_clip[grads[0].dtype].call(table.ptr, len(grads), clip_value)
    for g in grads:
        if table is not None:
            bump(g)
        else:
            g.copy_(g.clamp(-clip_value, clip_value))
