"""Shapes, axes and dtypes: checking and broadcasting them, result dtypes, and the form of error messages (`fail`)."""
from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from ..devices.memory import Layout
from .modes import changed

FLOAT32, FLOAT64, INT64, BOOL = np.dtype("float32"), np.dtype("float64"), np.dtype("int64"), np.dtype("bool")
_default_float = FLOAT32


def fail(op: str, invariant: str, got: Any = "", fix: str = "", kind: type[Exception] = RuntimeError) -> NoReturn:
    """Raises `kind` with a message of the form `[op] invariant; got shapes/dtypes; likely fix`."""
    got = ", ".join(str(g) for g in got) if isinstance(got, (tuple, list)) else str(got)
    raise kind(f"[{op}] {invariant}" + (f"; got {got}" if got else "") + (f"; {fix}" if fix else ""))


def left_out(op: str, name: str, value: Any) -> None:
    """NotImplementedError for an option of PyTorch's that is not supported, unless None or False leaves it out."""
    if value is not None and value is not False and str(value) != "torch.strided":     # as all tensors are
        got = repr(value) if isinstance(value, (bool, int, str)) else type(value).__name__
        fail(op, f"the option {name} is not supported", f"{name}={got}", "leave it out", NotImplementedError)


def kind_of(dtype: np.dtype) -> str:
    """b(ool), i(nteger) or f(loat)."""
    return "f" if is_float(dtype) else "b" if dtype == BOOL else "i"


def default_float() -> np.dtype:
    """The dtype of new float tensors and of results that must be floats: float32, unless it was set."""
    return _default_float


def set_default_float(dtype: np.dtype) -> None:
    """Sets the default float dtype (`set_default_dtype`). TypeError for a dtype that is no float."""
    global _default_float
    if not is_float(np.dtype(dtype)):
        fail("set_default_dtype", "only floating-point dtypes can be the default", dtype, kind=TypeError)
    _default_float = np.dtype(dtype)
    changed()


def is_float(dtype: np.dtype) -> bool:
    """Is it a floating-point dtype? ml_dtypes' bfloat16 is one, though its kind is 'V'."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


# ---- shapes and axes -------------------------------------------------------------------------------------------------

def shape_of(size: Sequence[int] | int, op: str = "shape", infer: bool = False) -> tuple[int, ...]:
    """A size argument as a tuple of ints, each at least 0; with `infer`, sizes of -1 are left for the caller."""
    try:
        shape = tuple(map(operator.index, size if isinstance(size, (tuple, list)) else (size,)))    # type: ignore
    except TypeError:
        shape = None
    if shape is None:                   # outside of the handler: the error is shown alone
        wrong = size if isinstance(size, (tuple, list)) else (size,)
        fix = "a dtype is given as dtype=" if any(isinstance(n, np.dtype) for n in wrong) else "use int(...) or //"
        fail(op, "sizes must be whole numbers", repr(size), fix, TypeError)
    total = 1
    for n in shape:
        if n < 0 and not (infer and n == -1):
            fail(op, "sizes must not be negative", shape)
        total *= max(n, 1)
    if total >= 1 << 59:
        fail(op, "the number of elements must stay below 2^59", shape)
    return shape


def broadcast_shapes(op: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """NumPy's broadcasting: shapes are aligned at the right, and sizes match or are 1. RuntimeError if they do not."""
    ndim = max((len(s) for s in shapes), default=0)
    result = [1] * ndim
    for s in shapes:
        for i, n in enumerate(s, ndim - len(s)):
            if n != 1 and result[i] != n:
                if result[i] != 1:
                    fail(op, f"shapes must broadcast: sizes differ in dimension {i - ndim}", [list(s) for s in shapes],
                         "make the sizes equal or 1, counting dimensions from the right")
                result[i] = n
    return tuple(result)


def axis_of(axis: Any, ndim: int, op: str) -> int:
    """An axis as 0 <= axis < ndim (a 0-d tensor has the axes 0 and -1); IndexError for one out of range."""
    try:
        a = None if isinstance(axis, bool) else operator.index(axis)
    except TypeError:
        a = None
    if a is None:
        fail(op, "dim must be a whole number", repr(axis), kind=TypeError)
    n = max(ndim, 1)
    if -n <= a < n:
        return a % n
    raise IndexError(f"[{op}] dim out of range: expected {-n} <= dim < {n}; got {a}; the tensor has {ndim} dimensions")


def axes_of(axes: Any, ndim: int, op: str) -> tuple[int, ...]:
    """The `dim` of a reduction as a sorted tuple of axes; None or () means all of them."""
    if axes is None or (isinstance(axes, (tuple, list)) and len(axes) == 0):
        return tuple(range(ndim))
    found = tuple(axis_of(a, ndim, op) for a in axes) if isinstance(axes, (tuple, list)) else (axis_of(axes, ndim, op),)
    if len(set(found)) != len(found):
        fail(op, "each dim may appear once", list(axes))
    return tuple(sorted(a for a in found if a < ndim))


# ---- result dtypes ---------------------------------------------------------------------------------------------------

def _category(dtype: np.dtype) -> int:
    return 0 if dtype.kind == "b" else 1 if dtype.kind in "iu" else 2 if is_float(dtype) else 3


def promote(a: np.dtype, b: np.dtype) -> np.dtype:
    """PyTorch's promotion: the dtype of the higher category (bool, integer, float, complex), or the wider of both."""
    if a == b:
        return a
    ca, cb = _category(a), _category(b)
    if ca != cb:
        return a if ca > cb else b
    if a.kind == "V" or b.kind == "V":      # bfloat16 with float16 is float32, with a wider float that float
        wide = b if a.kind == "V" else a
        return FLOAT32 if wide.itemsize == 2 else wide
    wide = np.promote_types(a, b)
    return INT64 if ca == 1 and wide.kind == "f" else wide          # NumPy has float64 for int64 with uint64


def result_type(*operands: Layout) -> np.dtype:
    """The dtype of an op's result. Within a category, 0-d tensors count only if all are 0-d, as in PyTorch."""
    best: dict[bool, np.dtype] = {}
    for o in operands:
        rank = o.ndim > 0
        best[rank] = promote(best[rank], o.dtype) if rank in best else o.dtype
    if len(best) == 1:
        return next(iter(best.values()))
    dims, zero = best[True], best[False]
    return dims if _category(dims) >= _category(zero) else zero


def scalar_type(value: bool | int | float, beside: np.dtype) -> np.dtype:
    """The dtype of a Python number beside a tensor of dtype `beside`, for promotion."""
    if isinstance(value, bool):
        return beside
    if isinstance(value, int):
        return INT64 if beside.kind == "b" else beside
    return beside if _category(beside) >= 2 else _default_float
