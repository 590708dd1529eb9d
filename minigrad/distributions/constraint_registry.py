"""From the numbers of an optimizer or sampler to the values of a constraint: `biject_to` and `transform_to`.

    positive = transform_to(Normal(0.0, 1.0).arg_constraints["scale"])
    scale = positive(free)                                  # any number as a scale
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import constraints
from .constraints import Constraint
from .transforms import (
    AffineTransform,
    ComposeTransform,
    CorrCholeskyTransform,
    ExpTransform,
    IndependentTransform,
    LowerCholeskyTransform,
    PositiveDefiniteTransform,
    SigmoidTransform,
    SoftmaxTransform,
    StickBreakingTransform,
    Transform,
    identity_transform,
)


class ConstraintRegistry:
    """Functions that make a `Transform` to what a constraint allows, by the kind of the constraint. Calling it with a
    constraint gives the transform; NotImplementedError if there is none."""

    def __init__(self) -> None:
        self._makers: dict[Any, Callable[[Any], Transform]] = {}

    @staticmethod
    def _kind(constraint: Any) -> Any:
        """Its class; a constraint that has none of its own is its own kind."""
        if not (isinstance(constraint, Constraint) or
                isinstance(constraint, type) and issubclass(constraint, Constraint)):
            raise TypeError("[ConstraintRegistry] Expected constraint to be either a Constraint subclass or instance; "
                            f"got {constraint}")
        return constraint if isinstance(constraint, type) or type(constraint) is Constraint else type(constraint)

    def register(self, constraint: Any, factory: Callable[[Any], Transform] | None = None) -> Any:
        """Uses `factory(constraint)` for constraints of this class, or of the class of this one; or decorates it."""
        if factory is None:
            return lambda made: self.register(constraint, made)
        self._makers[self._kind(constraint)] = factory
        return factory

    def __call__(self, constraint: Any) -> Transform:
        maker = self._makers.get(self._kind(constraint))
        if maker is None:
            raise NotImplementedError(f"[ConstraintRegistry] Cannot transform to {constraint}; use register")
        return maker(constraint)


biject_to, transform_to = ConstraintRegistry(), ConstraintRegistry()


def _to_interval(c: Any) -> Transform:
    low, high = c.lower_bound, c.upper_bound
    if isinstance(low, int | float) and (low, high) == (0, 1):
        return SigmoidTransform()
    return ComposeTransform([SigmoidTransform(), AffineTransform(low, high - low)])


def _from(bound: str, sign: int) -> Callable[[Any], Transform]:
    return lambda c: ComposeTransform([ExpTransform(), AffineTransform(getattr(c, bound), sign)])


for _registry in (biject_to, transform_to):
    for _kind, _maker in (
            (constraints.real, lambda c: identity_transform),
            (constraints.greater_than, _from("lower_bound", 1)), (constraints.greater_than_eq, _from("lower_bound", 1)),
            (constraints.less_than, _from("upper_bound", -1)), (constraints.interval, _to_interval),
            (constraints.half_open_interval, _to_interval),
            (constraints.independent, lambda c, to=_registry: IndependentTransform(     # type: ignore[misc]
                to(c.base_constraint), c.reinterpreted_batch_ndims)),
            (constraints.corr_cholesky, lambda c: CorrCholeskyTransform())):
        _registry.register(_kind, _maker)
biject_to.register(constraints.simplex, lambda c: StickBreakingTransform())
transform_to.register(constraints.simplex, lambda c: SoftmaxTransform())
transform_to.register(constraints.lower_cholesky, lambda c: LowerCholeskyTransform())
for _kind in (constraints.positive_definite, constraints.positive_semidefinite):
    transform_to.register(_kind, lambda c: PositiveDefiniteTransform())
