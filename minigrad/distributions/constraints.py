"""What a distribution asks of its parameters and says of its values: where a constraint holds, elementwise.

`constraint.check(value)` is a bool tensor, without the last `event_dim` dimensions of `value`.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from ..core.half import finfo
from ..core.tensor import Tensor
from ..ops.creation import full
from ..ops.join import cat as joined
from ..ops.join import stack as stacked
from ..ops.linalg import eigvalsh
from ..ops.math import eq, ge, gt, le, logical_and, lt, where


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

    def __reduce__(self) -> Any:
        named = next((name for name, value in globals().items() if value is self), None)    # its copies are itself
        return named or super().__reduce__()


def _whole(value: Tensor) -> Tensor:
    return eq(value % 1, 0)


def _one_hot(value: Tensor) -> Tensor:
    return logical_and((eq(value, 0) | eq(value, 1)).all(-1), eq(value.sum(-1), 1))


def _triangular(value: Tensor) -> Tensor:
    return eq(value.tril(), value).flatten(-2).all(-1)


def _lower(value: Tensor) -> Tensor:
    """A lower triangle with a positive diagonal."""
    return logical_and(_triangular(value), gt(value.diagonal(dim1=-2, dim2=-1), 0).all(-1))


def _unit_rows(value: Tensor) -> Tensor:
    near = (value.norm(dim=-1) - 1).abs() <= 10 * value.shape[-1] * float(finfo(value.dtype).eps)
    return logical_and(_lower(value), near.all(-1))


def _is_square(value: Tensor) -> Tensor:
    return full(value.shape[:-2], value.shape[-2] == value.shape[-1])


def _symmetric(value: Tensor) -> Tensor:
    if value.shape[-2] != value.shape[-1]:
        return _is_square(value)
    near = (value - value.mT).abs() <= 1e-6 + 1e-5 * value.abs()
    return near.flatten(-2).all(-1)


def _definite(value: Tensor, test: Callable[[Any, Any], Tensor] = gt) -> Tensor:
    even = _symmetric(value)                            # False of a matrix that is not finite, which has no eigenvalues
    if value.shape[-2] != value.shape[-1]:
        return even
    return logical_and(even, test(eigvalsh(where(even[..., None, None], value, 0.0)), 0).all(-1))


class _Bounded(Constraint):
    """Numbers that each of `_tests` holds for, with the bound in its place."""

    _tests: tuple[Callable[[Any, Any], Tensor], ...]

    def __init__(self, **bounds: Any) -> None:
        vars(self).update(bounds)
        self._bounds = tuple(bounds.values())
        named = ", ".join(f"{name}={bound}" for name, bound in bounds.items())
        super().__init__(f"{type(self).__name__.title().replace('_', '')}({named})")

    def check(self, value: Any) -> Tensor:
        """Where it is within the bounds."""
        held = [test(value, bound) for test, bound in zip(self._tests, self._bounds, strict=True)]
        return reduce(logical_and, [_whole(value), *held] if self.is_discrete else held)


class greater_than(_Bounded):
    """value > lower_bound"""

    _tests = (gt,)

    def __init__(self, lower_bound: Any) -> None:
        super().__init__(lower_bound=lower_bound)


class greater_than_eq(greater_than):
    """value >= lower_bound"""

    _tests = (ge,)


class integer_greater_than(greater_than):
    """Whole numbers, value >= lower_bound"""

    _tests, is_discrete = (ge,), True


class less_than(_Bounded):
    """value < upper_bound"""

    _tests = (lt,)

    def __init__(self, upper_bound: Any) -> None:
        super().__init__(upper_bound=upper_bound)


class interval(_Bounded):
    """lower_bound <= value <= upper_bound; the bounds are numbers or tensors"""

    _tests = (ge, le)

    def __init__(self, lower_bound: Any, upper_bound: Any) -> None:
        super().__init__(lower_bound=lower_bound, upper_bound=upper_bound)


class half_open_interval(interval):
    """lower_bound <= value < upper_bound"""

    _tests = (ge, lt)


class integer_interval(interval):
    """Whole numbers, lower_bound <= value <= upper_bound"""

    is_discrete = True


class multinomial(Constraint):
    """Vectors of whole numbers from 0 on with the sum `upper_bound`"""

    is_discrete, event_dim = True, 1

    def __init__(self, upper_bound: int) -> None:
        super().__init__("Multinomial()")
        self.upper_bound = upper_bound

    def check(self, value: Any) -> Tensor:
        """Where they are."""
        return ge(value, 0).all(-1) & le(value.sum(-1), self.upper_bound)


class independent(Constraint):
    """`base_constraint` for all numbers of the last `reinterpreted_batch_ndims` dimensions together"""

    def __init__(self, base_constraint: Constraint, reinterpreted_batch_ndims: int) -> None:
        self.base_constraint, self.reinterpreted_batch_ndims = base_constraint, reinterpreted_batch_ndims
        super().__init__(f"IndependentConstraint({base_constraint}, {reinterpreted_batch_ndims})",
                         is_discrete=base_constraint.is_discrete,
                         event_dim=base_constraint.event_dim + reinterpreted_batch_ndims)

    def check(self, value: Any) -> Tensor:
        """Where it holds for all of them."""
        truth, dims = self.base_constraint.check(value), self.reinterpreted_batch_ndims
        return truth.flatten(-dims).all(-1) if dims else truth


class cat(Constraint):
    """`cseq[i]` for `lengths[i]` numbers of a value along `dim`, one after the other: for one each without `lengths`"""

    def __init__(self, cseq: Sequence[Constraint], dim: int = 0, lengths: Sequence[int] | None = None) -> None:
        self.cseq, self.dim = list(cseq), dim
        self.lengths = [1] * len(self.cseq) if lengths is None else list(lengths)
        if len(self.lengths) != len(self.cseq):
            raise ValueError(f"[distributions] needs a length for each of {len(self.cseq)} parts; got {self.lengths}")
        super().__init__(is_discrete=any(c.is_discrete for c in self.cseq),
                         event_dim=max(c.event_dim for c in self.cseq))

    def check(self, value: Any) -> Tensor:
        """Where they hold."""
        parts = zip(self.cseq, value.split(self.lengths, self.dim), strict=True)
        return joined([c.check(v) for c, v in parts], self.dim)


class stack(cat):
    """`cseq[i]` for `value.select(dim, i)`"""

    def __init__(self, cseq: Sequence[Constraint], dim: int = 0) -> None:
        super().__init__(cseq, dim)
        self.event_dim += self.event_dim + dim < 0

    def check(self, value: Any) -> Tensor:
        """Where they hold."""
        parts = zip(self.cseq, value.unbind(self.dim), strict=True)
        return stacked([c.check(v) for c, v in parts], self.dim)


class dependent_property(property, Constraint):
    """Decorates a constraint that depends on parameters: a property of the distribution, and of its class a constraint
    that says only what it was given here; what it was not given raises NotImplementedError.

        @constraints.dependent_property(is_discrete=False, event_dim=0)
        def support(self): return constraints.interval(self.low, self.high)
    """

    def __init__(self, fn: Any = None, *, is_discrete: bool | None = None, event_dim: int | None = None) -> None:
        property.__init__(self, fn)
        self._given = {"is_discrete": is_discrete, "event_dim": event_dim}
        self.name = "Dependent()"

    def __call__(self, fn: Any) -> dependent_property:
        return dependent_property(fn, **self._given)        # type: ignore[arg-type]

    def _said(self, name: str) -> Any:
        if self._given[name] is None:
            raise NotImplementedError(f"[dependent_property] {name} is known only when the parameters are")
        return self._given[name]

    is_discrete = property(lambda self: self._said("is_discrete"))      # type: ignore[assignment]
    event_dim = property(lambda self: self._said("event_dim"))          # type: ignore[assignment]


def is_dependent(constraint: Any) -> bool:
    """Does the constraint depend on parameters?"""
    return constraint is dependent or isinstance(constraint, dependent_property)


dependent = Constraint("Dependent()")                       # it is known only when the parameters are
boolean = Constraint("Boolean()", lambda v: eq(v, 0) | eq(v, 1), True)
nonnegative_integer, positive_integer = integer_greater_than(0), integer_greater_than(1)
real = Constraint("Real()", lambda v: eq(v, v))                                 # not nan
positive, nonnegative, unit_interval = greater_than(0.0), greater_than_eq(0.0), interval(0.0, 1.0)
real_vector = independent(real, 1)
simplex = Constraint("Simplex()", lambda v: ge(v, 0).all(-1) & lt((v.sum(-1) - 1).abs(), 1e-6), event_dim=1)
one_hot = Constraint("OneHot()", _one_hot, True, 1)
lower_triangular = Constraint("LowerTriangular()", _triangular, event_dim=2)
lower_cholesky = Constraint("LowerCholesky()", _lower, event_dim=2)
corr_cholesky = Constraint("CorrCholesky()", _unit_rows, event_dim=2)           # its rows have the length 1
square = Constraint("Square()", _is_square, event_dim=2)
symmetric = Constraint("Symmetric()", _symmetric, event_dim=2)
positive_semidefinite = Constraint("PositiveSemidefinite()", lambda v: _definite(v, ge), event_dim=2)
positive_definite = Constraint("PositiveDefinite()", _definite, event_dim=2)
