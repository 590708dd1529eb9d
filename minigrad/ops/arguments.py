"""What several functions do to their arguments: sizes, dims, names, indices.

Each takes the name of the op (`op`), for its error message. Nothing here knows of kernels or of the tape.
"""
from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable
from inspect import unwrap
from typing import Any

import numpy as np

from ..core.messages import NUMPY, unexpected
from ..core.out import call_into
from ..core.shape import axis_of, fail, shape_of
from ..core.tensor import Tensor


def hashable(value: Any) -> Any:
    """An argument in a form that can be part of a plan's key: lists as tuples, 0-d integer tensors as ints."""
    if isinstance(value, (list, tuple)):
        return tuple([hashable(v) for v in value])
    return value.__index__() if isinstance(value, Tensor) else value


def is_number(value: Any) -> bool:
    """Is it a real number of Python's or NumPy's? A bool and a scalar of bfloat16 are, a 0-d array is not."""
    return isinstance(value, (float, int)) or (isinstance(value, np.generic) and
                                               (value.dtype.kind in "biuf" or value.dtype.name == "bfloat16"))


def fits(value: Any, dtype: np.dtype) -> bool:
    """Can a tensor of that dtype hold the Python number? Integers cut fractions off; no finite number may become
    infinite."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return (isinstance(value, int) or math.isfinite(value)) and limits.min <= int(value) <= limits.max
    if dtype.kind == "b":
        return True
    try:
        number = float(value)
    except OverflowError:
        return False
    with np.errstate(over="ignore"):
        return not math.isfinite(number) or math.isfinite(dtype.type(number))


def must_fit(op: str, value: Any, dtype: np.dtype) -> None:
    """Raises RuntimeError unless a tensor of that dtype can hold the number."""
    if not fits(value, dtype):
        fail(op, f"the number must fit {dtype}", repr(value), "use a wider dtype, or a number that it can hold")


def sizes(args: tuple, op: str, infer: bool = False) -> tuple[int, ...]:
    """The shape given as `f(2, 3)` or `f((2, 3))`. With `infer`, a size may be -1."""
    given = args[0] if len(args) == 1 and isinstance(args[0], (tuple, list)) else args
    if builtins.any(isinstance(n, (Tensor, bool)) for n in given):
        raise TypeError(f"[{op}] sizes must be whole numbers; got {given}")
    return shape_of(given, op, infer)


def named(args: tuple, given: dict, name: str, op: str) -> tuple:
    """The arguments of a call `f(2, 3)` or `f(name=(2, 3))`, where `given` holds the keyword arguments."""
    for n in given:
        if n != name:
            unexpected(op, n, given[n], (name,))
    if name not in given:
        return args
    if args:
        raise TypeError(f"[{op}] {name} was given twice; got {args} and {given[name]}")
    return (given[name],)


def respelled(function: Callable, numpy: dict[str, Any], *inputs: Any, **options: Any) -> Any:
    """`function(*inputs, **options)` without the options that are None, with NumPy's `axis` and `keepdims` in place of
    PyTorch's `dim` and `keepdim`; the result is written into `out`."""
    op = function.__name__
    for name, value in numpy.items():
        ours = NUMPY.get(name)
        if ours in options:
            if builtins.all(options[ours] is not unset for unset in (None, False, ())):
                raise TypeError(f"[{op}] {ours} and {name} are the same option; got {options[ours]} and {value}")
            options[ours] = value
        elif name != "out":
            code = unwrap(function).__code__
            unexpected(op, name, value, code.co_varnames[len(inputs):code.co_argcount + code.co_kwonlyargcount])
    options, out = {name: value for name, value in options.items() if value is not None}, numpy.get("out")
    return function(*inputs, **options) if out is None else call_into(function, out, inputs, options)


def axes(args: tuple, ndim: int, op: str) -> tuple[int, ...]:
    """The dims given as `f(0, 1)` or `f((0, 1))`, made non-negative, in the order given; RuntimeError if one is named
    twice."""
    given = args[0] if len(args) == 1 and isinstance(args[0], (tuple, list)) else args
    found = tuple([axis_of(d, ndim, op) for d in given])
    if len(set(found)) != len(found):
        fail(op, "each dim may appear once", list(given))
    return found


class OutOfRange(IndexError, RuntimeError):
    """An index or a dim that is not there: PyTorch raises the one in some functions, in others the other."""


def existing_axis(dim: Any, ndim: int, op: str) -> int:
    """`dim`, made non-negative, of a tensor that must have at least one dimension (IndexError)."""
    if ndim == 0:
        axis_of(dim, ndim, op)
        raise OutOfRange(f"[{op}] needs at least one dimension; got a 0-d tensor")
    return axis_of(dim, ndim, op)


def infer_shape(op: str, size: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape with one -1 replaced: the sizes then multiply to `size` elements."""
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


def whole(n: int) -> tuple[int, int, int]:
    """The entry of a window's key that takes all n elements of a dimension."""
    return 0, 1, n


def position(index: Any, n: int, op: str, dim: int) -> int:
    """An index made non-negative; IndexError unless -n <= index < n."""
    i = operator.index(index)
    if not -n <= i < n:
        raise IndexError(f"[{op}] index {i} is out of range for dim {dim} with size {n}")
    return i % n
