"""`out=`: results written into tensors that the caller gives."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import numpy as np

from ..devices.memory import Array, Layout
from .arrays import copy_array, written_once
from .shape import fail, kind_of
from .tensor import Tensor, bump, writable
from .warning import warn

Function = TypeVar("Function", bound=Callable[..., Any])
How = Literal["any", "cast", "compute", "truth", "refill", "apart", "pair apart"]


def writes(*how: How) -> Callable[[Function], Function]:
    """Declares how a function writes into `out=`, which by itself must have the dtype of its result:

    * `any`: may have any dtype; `cast`: any but one of a lower kind, as PyTorch has it where operands are promoted;
    * `compute`: says in which dtype is computed, as `dtype=` does; `truth`: may be uint8 in the place of bool;
    * `refill`: may have any shape of as many elements;
    * `apart`: must not lie in the memory of an input; `pair apart`: the same where there are several results.
    """
    def declare(function: Function) -> Function:
        function.writes = how           # type: ignore[attr-defined]
        return function
    return declare


def can_cast(from_: Any, to: Any) -> bool:
    """May a tensor of the dtype `to` be changed in place by a result of the dtype `from_`? Not if it is of a lower
    kind: bool, integer, float."""
    low, high = ["bif".index(kind_of(np.dtype(t))) for t in (from_, to)]
    return low <= high


def check_target(op: str, to: Layout, have: Layout, exact: bool = False) -> None:
    """Refuses to write a result of layout `have` into a tensor of layout `to`: another shape, or a lower dtype; with
    `exact`, any other dtype."""
    if have.shape != to.shape:
        fail(op, "the result must have the shape of the tensor written to", [to, have], "use the out-of-place form")
    check_kind(op, to, have, exact)


def check_kind(op: str, to: Layout, have: Layout, exact: bool = False) -> None:
    """Refuses to write values of layout `have` into a tensor of layout `to` if its dtype is of a lower kind, or with
    `exact` any other."""
    if have.dtype is not to.dtype and not can_cast(have.dtype, to.dtype):
        fail(op, f"a {have.dtype} result cannot be written into a {to.dtype} tensor", to, "convert first")
    if exact and have.dtype != to.dtype:
        fail(op, "out must have the dtype of the result", [to, have])


def write(op: str, target: Tensor, result: Tensor) -> Tensor:
    """Writes a finished result into `target`, for `out=` and in-place forms; the caller has checked the graph."""
    check_target(op, target.array.layout, result.array.layout)
    copy_array(target.array, result.array)
    return bump(target)


def targets(op: str, out: Any, inputs: tuple[Any, ...], count: int = 0) -> tuple[Tensor, ...]:
    """The tensors to write into: `out`, or with a `count` so many in it. TypeError if it is anything else,
    RuntimeError if one of them, or of the inputs, requires a gradient."""
    given = tuple(out) if count and isinstance(out, (tuple, list)) else (out,)
    if len(given) != (count or 1) or not all([isinstance(t, Tensor) for t in given]):
        fail(op, f"out must be {f'{count} tensors' if count else 'one tensor'}", type(out).__name__, "", TypeError)
    for t in (*given, *inputs):
        if isinstance(t, Tensor):
            writable(op, t)
    return given


def made_into(make: Callable[..., Tensor], out: Any, *args: Any, dtype: Any, **options: Any) -> Tensor:
    """What `make` returns for the dtype, or else that of the tensor `out`, written into it."""
    op = make.__name__
    to, = targets(op, out, ())
    if dtype is not None and np.dtype(dtype) != to.dtype:
        fail(op, f"a {np.dtype(dtype)} result cannot be written into a {to.dtype} tensor", to.layout, "drop dtype=")
    return into(make, to, make(*args, dtype=to.dtype if dtype is None else dtype, device=to.device, **options))


def _apart(op: str, to: Array, inputs: tuple[Any, ...]) -> None:
    """RuntimeError if a contiguous input lies in the memory of `to`."""
    for t in [t for given in inputs for t in (given if isinstance(given, (list, tuple)) else (given,))]:
        if isinstance(t, Tensor) and to.layout.contiguous and (a := t.array).layout.contiguous and (
                a.ptr < to.ptr + to.layout.nbytes and to.ptr < a.ptr + a.layout.nbytes):
            fail(op, "out must not share memory with an input", [to.layout, a.layout], "write into a new tensor")


def call_into(function: Callable[..., Any], out: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """`function(*args, **named)`, written into the tensors `out`."""
    inputs, free = (*args, *named.values()), named.get("dtype") is None
    if free and isinstance(out, Tensor) and "compute" in getattr(function, "writes", ()):
        named = {**named, "dtype": out.dtype}
    return into(function, out, function(*args, **named), inputs, exact=not free)


def into(function: Callable[..., Any], out: Any, result: Any, inputs: tuple[Any, ...] = (), exact: bool = False) -> Any:
    """Writes the result of a function into the tensor `out`, or several into one each, as it `writes`. One of another
    shape gets the result's, as in PyTorch: with a warning, if it has elements. Nothing is recorded: RuntimeError where
    a gradient is required, the dtype does not fit (with `exact`, and of several results, it must be theirs), or memory
    is shared with `inputs` that must be kept; TypeError for other numbers of tensors. What is refused leaves them as
    they are."""
    op, how = function.__name__, getattr(function, "writes", ())
    several = isinstance(result, tuple)
    apart = "apart" in how or several and "pair apart" in how
    results = result if several else (result,)
    given = targets(op, out, results, len(results) if several else 0)
    if "refill" in how and given[0].shape.numel() == result.shape.numel():
        results = (result.reshape(given[0].shape),)
    for t, r in zip(given, results, strict=True):
        to, have = t.array.layout, r.array.layout
        if to.shape == have.shape or apart:
            written_once(op, to)
        if "any" not in how and ("truth" not in how or {to.dtype.name, have.dtype.name} != {"bool", "uint8"}):
            check_kind(op, to, have, exact or several or "cast" not in how)
    if apart:
        _apart(op, given[0].array, inputs)
    if len({t.array.ptr if t.array.layout.size else id(t) for t in given}) < len(given):
        fail(op, "each result needs a tensor of its own", [t.array.layout for t in given])
    for t, r in zip(given, results, strict=True):
        if t.array.layout.shape != r.array.layout.shape:
            if t.array.layout.size:
                warn("An output with one or more elements was resized: "            # programs filter by these words
                     f"[{op}] out of shape {list(t.shape)} gets the result's, {list(r.shape)}; pass a tensor of that "
                     "shape, or call out.resize_(0) first")
            t.resize_(r.shape)                  # type: ignore[attr-defined]
        copy_array(t.array, r.array)
    written = [bump(t) for t in given]
    if not several:
        return written[0]
    return type(result)(*written) if hasattr(result, "_fields") else type(result)(written)
