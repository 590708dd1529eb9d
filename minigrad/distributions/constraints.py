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

    is_discrete, event_dim = False, 0

    def __init__(self, name: str = "", check: Callable[[Any], Tensor] | None = None, is_discrete: bool | None = None,
                 event_dim: int | None = None) -> None:
        given = {"check": check, "is_discrete": is_discrete, "event_dim": event_dim}
        self.name = name or f"{type(self).__name__}()"
        vars(self).update({k: v for k, v in given.items() if v is not None})

    def check(self, value: Any) -> Tensor:
        """Where `value` is in the set."""
        raise NotImplementedError

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


def _below(name: str, sign: str, check: Callable[[Any, Any], Tensor]) -> Callable[[Any], Constraint]:
    def made(bound: Any) -> Constraint:
        which = "upper_bound" if sign == "<" else "lower_bound"
        return Constraint(f"{name}({which}={bound})", lambda v: check(v, bound))
    made.__doc__, made.__name__ = f"value {sign} bound.", name
    return made


greater_than, greater_than_eq = _below("GreaterThan", ">", gt), _below("GreaterThanEq", ">=", ge)
less_than = _below("LessThan", "<", lt)


def interval(low: Any, high: Any) -> Constraint:
    """low <= value <= high; the bounds are numbers or tensors."""
    return Constraint(f"Interval(lower_bound={low}, upper_bound={high})", lambda v: ge(v, low) & le(v, high))


def half_open_interval(low: Any, high: Any) -> Constraint:
    """low <= value < high."""
    return Constraint(f"HalfOpenInterval(lower_bound={low}, upper_bound={high})", lambda v: ge(v, low) & lt(v, high))


def integer_interval(low: Any, high: Any) -> Constraint:
    """Whole numbers, low <= value <= high."""
    return Constraint(f"IntegerInterval(lower_bound={low}, upper_bound={high})",
                      lambda v: _whole(v) & ge(v, low) & le(v, high), True)


def multinomial(total: int) -> Constraint:
    """Vectors of whole numbers from 0 on with the sum `total`."""
    return Constraint("Multinomial()", lambda v: ge(v, 0).all(-1) & le(v.sum(-1), total), True, 1)


def independent(base: Constraint, dims: int) -> Constraint:
    """`base` for all numbers of the last `dims` dimensions together."""
    def check(value: Tensor) -> Tensor:
        truth = base.check(value)
        return truth.reshape(*truth.shape[:truth.ndim - dims], -1).all(-1) if dims else truth
    return Constraint(f"IndependentConstraint({base}, {dims})", check, base.is_discrete, base.event_dim + dims)


boolean = Constraint("Boolean()", lambda v: eq(v, 0) | eq(v, 1), True)
nonnegative_integer = Constraint("IntegerGreaterThan(lower_bound=0)", lambda v: _whole(v) & ge(v, 0), True)
positive_integer = Constraint("IntegerGreaterThan(lower_bound=1)", lambda v: _whole(v) & ge(v, 1), True)
real = Constraint("Real()", lambda v: eq(v, v))                                 # not nan
positive, nonnegative, unit_interval = greater_than(0.0), greater_than_eq(0.0), interval(0.0, 1.0)
real_vector = independent(real, 1)
simplex = Constraint("Simplex()", lambda v: ge(v, 0).all(-1) & lt((v.sum(-1) - 1).abs(), 1e-6), event_dim=1)
one_hot = Constraint("OneHot()", _one_hot, True, 1)
lower_cholesky = Constraint("LowerCholesky()", _lower, event_dim=2)
positive_definite = Constraint("PositiveDefinite()", _definite, event_dim=2)
