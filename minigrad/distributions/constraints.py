"""What a distribution asks of its parameters and says of its values: where a constraint holds, elementwise.

`constraint.check(value)` is a bool tensor, without the last `event_dim` dimensions of `value`.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.tensor import Tensor
from ..ops.linalg import eigvalsh
from ..ops.math import eq, ge, gt, le, logical_and, lt


class Constraint:
    """A set of values, by the function that tells whether a value is in it. `is_discrete`: of a discrete variable;
    `event_dim`: how many dimensions of a value are one thing (1 for vectors, 2 for matrices)."""

    def __init__(self, name: str, check: Callable[[Any], Tensor], is_discrete: bool = False,
                 event_dim: int = 0) -> None:
        self.name, self.check, self.is_discrete, self.event_dim = name, check, is_discrete, event_dim

    def __repr__(self) -> str:
        return self.name


def _whole(value: Tensor) -> Tensor:
    return eq(value % 1, 0)


def _one_hot(value: Tensor) -> Tensor:
    return logical_and((eq(value, 0) | eq(value, 1)).all(-1), eq(value.sum(-1), 1))


def _lower(value: Tensor) -> Tensor:
    """A lower triangle with a positive diagonal."""
    below = eq(value.tril(), value).reshape(*value.shape[:-2], -1).all(-1)
    return logical_and(below, gt(value.diagonal(dim1=-2, dim2=-1), 0).all(-1))


def _symmetric(value: Tensor) -> Tensor:
    near = (value - value.mT).abs() <= 1e-6 + 1e-5 * value.abs()
    return near.reshape(*value.shape[:-2], -1).all(-1)


def _definite(value: Tensor) -> Tensor:
    return logical_and(_symmetric(value), gt(eigvalsh(value), 0).all(-1))


boolean = Constraint("Boolean()", lambda v: eq(v, 0) | eq(v, 1), is_discrete=True)
nonnegative_integer = Constraint("IntegerGreaterThan(lower_bound=0)", lambda v: _whole(v) & ge(v, 0), is_discrete=True)
real = Constraint("Real()", lambda v: eq(v, v))                                 # not nan
positive = Constraint("GreaterThan(lower_bound=0.0)", lambda v: gt(v, 0))
nonnegative = Constraint("GreaterThanEq(lower_bound=0.0)", lambda v: ge(v, 0))
unit_interval = Constraint("Interval(lower_bound=0.0, upper_bound=1.0)", lambda v: ge(v, 0) & le(v, 1))
simplex = Constraint("Simplex()", lambda v: ge(v, 0).all(-1) & lt((v.sum(-1) - 1).abs(), 1e-6), event_dim=1)
real_vector = Constraint("IndependentConstraint(Real(), 1)", lambda v: eq(v, v).all(-1), event_dim=1)
one_hot = Constraint("OneHot()", _one_hot, is_discrete=True, event_dim=1)
lower_cholesky = Constraint("LowerCholesky()", _lower, event_dim=2)
positive_definite = Constraint("PositiveDefinite()", _definite, event_dim=2)


def interval(low: Any, high: Any) -> Constraint:
    """low <= value <= high; the bounds are numbers or tensors."""
    return Constraint(f"Interval(lower_bound={low}, upper_bound={high})", lambda v: ge(v, low) & le(v, high))


def integer_interval(low: Any, high: Any) -> Constraint:
    """Whole numbers, low <= value <= high."""
    return Constraint(f"IntegerInterval(lower_bound={low}, upper_bound={high})",
                      lambda v: _whole(v) & ge(v, low) & le(v, high), is_discrete=True)


def greater_than(low: Any) -> Constraint:
    """value > low."""
    return Constraint(f"GreaterThan(lower_bound={low})", lambda v: gt(v, low))


def greater_than_eq(low: Any) -> Constraint:
    """value >= low."""
    return Constraint(f"GreaterThanEq(lower_bound={low})", lambda v: ge(v, low))


def independent(base: Constraint, dims: int) -> Constraint:
    """`base` for all numbers of the last `dims` dimensions together."""
    def check(value: Tensor) -> Tensor:
        truth = base.check(value)
        return truth.reshape(*truth.shape[:truth.ndim - dims], -1).all(-1) if dims else truth
    return Constraint(f"IndependentConstraint({base}, {dims})", check, base.is_discrete, base.event_dim + dims)
