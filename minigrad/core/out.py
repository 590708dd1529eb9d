"""`out=`: results written into tensors that the caller gives."""
from __future__ import annotations

from typing import Any

from ..devices.memory import Layout
from .arrays import copy_array, written_once
from .shape import fail, kind_of
from .tensor import Tensor, bump, writable


def check_target(op: str, to: Layout, have: Layout) -> None:
    """Refuses to write a result of layout `have` into a tensor of layout `to`: another shape, or a lower dtype."""
    if have.shape != to.shape:
        fail(op, "the result must have the shape of the tensor written to", [to, have], "use the out-of-place form")
    check_kind(op, to, have)


def check_kind(op: str, to: Layout, have: Layout) -> None:
    """Refuses to write values of layout `have` into a tensor of layout `to` if its dtype is of a lower kind."""
    if "bif".index(kind_of(have.dtype)) > "bif".index(kind_of(to.dtype)):
        fail(op, f"a {have.dtype} result cannot be written into a {to.dtype} tensor", to, "convert first")


def write(op: str, target: Tensor, result: Tensor) -> Tensor:
    """Writes a finished result into `target`, for `out=` and in-place forms; the caller has checked the graph."""
    check_target(op, target.array.layout, result.array.layout)
    copy_array(target.array, result.array)
    return bump(target)


def into(op: str, out: Any, result: Any) -> Any:
    """Writes a result into the tensor `out`, or several into one each. One without elements gets the result's shape,
    as in PyTorch. Nothing is recorded: RuntimeError where a gradient is required, or the shape or dtype does not fit;
    TypeError for other numbers of tensors."""
    several = isinstance(result, tuple)
    given = out if several and isinstance(out, (tuple, list)) else (out,)
    results = result if several else (result,)
    if len(given) != len(results) or not all(isinstance(t, Tensor) for t in given):
        fail(op, f"out must be {'one tensor' if not several else f'{len(results)} tensors'}", type(out).__name__, "",
             TypeError)
    for t, r in zip(given, results, strict=True):
        writable(op, t)
        writable(op, r)
        written_once(op, t.array.layout)
        if not t.array.layout.size:
            t.resize_(r.shape)                  # type: ignore[attr-defined]
    written = [write(op, t, r) for t, r in zip(given, results, strict=True)]
    if not several:
        return written[0]
    return type(result)(*written) if hasattr(result, "_fields") else type(result)(written)
