"""`Distribution`, the base class: shapes, checks, and what each distribution defines; and `Independent`.

`batch_shape` is the shape of the parameters: so many distributions, independent of each other. `event_shape` is that of
one value of one of them. `sample(shape)` has the shape (*shape, *batch_shape, *event_shape), `log_prob(value)` that of
`value` without `event_shape`.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from ..core.modes import enable_grad, no_grad
from ..core.modes import mode as current
from ..core.shape import broadcast_shapes, default_float
from ..core.tensor import Size, Tensor
from ..ops.creation import tensor, zeros
from . import constraints
from .constraints import Constraint

_EMPTY = Size(())


def sum_rightmost(value: Tensor, dims: int) -> Tensor:
    """The sums over the last `dims` dimensions."""
    return value.flatten(-dims).sum(-1) if dims else value


def broadcast_all(*values: Any) -> list[Tensor]:
    """All values as tensors of their common shape; numbers get the dtype and the device of the first tensor, or the
    default float dtype."""
    found = [v for v in values if isinstance(v, Tensor)]
    if not all(isinstance(v, Tensor | int | float) for v in values):
        raise ValueError("[distributions] parameters must be numbers or Tensors; got "
                         + ", ".join(type(v).__name__ for v in values))
    dtype, device = (found[0].dtype, found[0].device) if found else (default_float(), None)
    given = [v if isinstance(v, Tensor) else tensor(v, dtype=dtype, device=device) for v in values]
    shape = broadcast_shapes("distributions", *[t.shape for t in given])
    return [t if t.shape == shape else t.expand(shape) for t in given]


class computed:             # noqa: N801
    """A parameter that is computed from others when it is asked for and was not given, and kept: in the graph, also
    where nothing is recorded."""

    def __init__(self, function: Callable[[Any], Tensor]) -> None:
        self._function, self.__doc__ = function, function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, made: Any, owner: type | None = None) -> Any:
        if made is None:
            return self
        with enable_grad():
            found = vars(made)[self._name] = self._function(made)
        return found


class Distribution:
    """Base class of the distributions.

    batch_shape, event_shape   see the head of this file
    validate_args              checks parameters when a distribution is made and values in `log_prob`; ValueError for
                               what is outside. None: on, unless `set_default_validate_args(False)` was called. A
                               captured function does not check, since it cannot read values.

    A class names its parameters in `arg_constraints`, and what its values satisfy in `support`. `has_rsample` says
    whether `rsample` gives samples with a gradient to the parameters.
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {}
    has_rsample: ClassVar[bool] = False
    has_enumerate_support: ClassVar[bool] = False
    _validate_args: bool = __debug__

    def __init__(self, batch_shape: Sequence[int] = _EMPTY, event_shape: Sequence[int] = _EMPTY,
                 validate_args: bool | None = None) -> None:
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args and current.recorder is None:
            for name, constraint in self.arg_constraints.items():
                value = vars(self).get(name)
                if value is not None and not constraints.is_dependent(constraint) and not bool(
                        constraint.check(value.detach()).all()):
                    raise ValueError(
                        f"[{type(self).__name__}] Expected parameter {name} ({type(value).__name__} of shape "
                        f"{tuple(value.shape)}) of "
                        f"distribution {type(self).__name__} to satisfy the constraint {constraint}, but found invalid "
                        f"values:\n{value}")
        super().__init__()                              # of a class that is a Module, too

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Switches the checks of all distributions that are not given `validate_args`."""
        if value not in (True, False):
            raise ValueError(f"[set_default_validate_args] value must be True or False; got {value!r}")
        Distribution._validate_args = value

    # ---- what a distribution is ----

    @property
    def batch_shape(self) -> Size:
        """The shape of the parameters."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """The shape of one value."""
        return self._event_shape

    @property
    def support(self) -> Constraint:
        """What values satisfy."""
        raise NotImplementedError

    def _lacks(self, what: str) -> NotImplementedError:
        return NotImplementedError(f"[{type(self).__name__}] has no {what}")

    @property
    def mean(self) -> Tensor:
        """The mean, of the shape (*batch_shape, *event_shape)."""
        raise self._lacks("mean")

    @property
    def mode(self) -> Tensor:
        """The most likely value."""
        raise self._lacks("mode")

    @property
    def variance(self) -> Tensor:
        """The variance of each number of a value."""
        raise self._lacks("variance")

    @property
    def stddev(self) -> Tensor:
        """The standard deviation: the root of the variance."""
        return self.variance.sqrt()

    def entropy(self) -> Tensor:
        """-E[log p], of the shape `batch_shape`."""
        raise self._lacks("entropy")

    def perplexity(self) -> Tensor:
        """e^entropy."""
        return self.entropy().exp()

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density (of the probability, for a discrete one) at `value`."""
        raise self._lacks("log_prob")

    def cdf(self, value: Tensor) -> Tensor:
        """P(X <= value)."""
        raise self._lacks("cdf")

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile: the x with P(X <= x) = value."""
        raise self._lacks("icdf")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values of a discrete distribution, along a new first dimension."""
        raise self._lacks("enumerate_support")

    def expand(self, batch_shape: Sequence[int]) -> Distribution:
        """The same distributions with their parameters expanded to a larger `batch_shape`."""
        raise self._lacks("expand")

    # ---- drawing ----

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """Samples, of the shape (*sample_shape, *batch_shape, *event_shape), with a gradient to the parameters."""
        raise self._lacks("rsample: its samples have no gradient; use sample()")

    def sample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """Samples, of the shape (*sample_shape, *batch_shape, *event_shape), without a gradient."""
        with no_grad():
            return self.rsample(sample_shape)

    def sample_n(self, n: int) -> Tensor:
        """`sample((n,))`, as PyTorch had it."""
        return self.sample((n,))

    # ---- for the subclasses ----

    def _extended_shape(self, sample_shape: Sequence[int]) -> Size:
        """The shape of samples."""
        return Size((*sample_shape, *self._batch_shape, *self._event_shape))

    def _validate_sample(self, value: Any) -> None:
        """ValueError for a value of another shape or outside the support."""
        op = f"[{type(self).__name__}]"
        if not isinstance(value, Tensor):
            raise ValueError(f"{op} The value argument to log_prob must be a Tensor; got {type(value).__name__}")
        shape, full = tuple(value.shape), self._extended_shape(())
        events = len(self._event_shape)
        if events and shape[len(shape) - events:] != tuple(self._event_shape):
            raise ValueError(f"{op} The right-most size of value must match event_shape: {shape} vs "
                             f"{tuple(self._event_shape)}")
        for n, m in zip(reversed(shape), reversed(full), strict=False):
            if n != 1 and m != 1 and n != m:
                raise ValueError(f"{op} Value is not broadcastable with batch_shape+event_shape: {shape} vs "
                                 f"{tuple(full)}")
        if current.recorder is None:
            try:
                support = self.support
            except NotImplementedError:
                return
            if not bool(support.check(value.detach()).all()):
                raise ValueError(f"{op} Expected value argument (Tensor of shape {shape}) to be within the "
                                 f"support ({support}) of the distribution {self!r}, but found invalid "
                                 f"values:\n{value}")

    def _checked(self, value: Tensor) -> Tensor:
        """The value, checked if checks are on."""
        if self._validate_args:
            self._validate_sample(value)
        return value

    def _expanded(self, kind: Any, batch_shape: Sequence[int], *parameters: Tensor,
                  **named: Tensor) -> Any:
        """A distribution of the same kind with parameters of a larger shape; not checked again."""
        def grown(p: Tensor) -> Tensor:
            return p.expand(*batch_shape, *p.shape[len(self._batch_shape):])
        made = kind(*[grown(p) for p in parameters], **{n: grown(p) for n, p in named.items()}, validate_args=False)
        made._validate_args = self._validate_args
        return made

    def __repr__(self) -> str:
        names = [n for n in self.arg_constraints if isinstance(vars(self).get(n), Tensor)]
        shown = [f"{n}: {vars(self)[n] if vars(self)[n].numel() == 1 else vars(self)[n].shape}" for n in names]
        return f"{type(self).__name__}({', '.join(shown)})"


class Parametric(Distribution):
    """What distributions share whose constructor takes what `arg_constraints` names, in that order."""

    def expand(self, batch_shape: Sequence[int]) -> Any:
        """See `Distribution.expand`."""
        return self._expanded(type(self), batch_shape, *[getattr(self, name) for name in self.arg_constraints])


class Independent(Distribution):
    """The last dimensions of the batch of `base_distribution` as parts of one value: `log_prob` sums over them.

    ValueError unless 0 <= reinterpreted_batch_ndims <= len(base_distribution.batch_shape).

        >>> d = distributions.Independent(distributions.Normal(minigrad.zeros(3), minigrad.ones(3)), 1)
        >>> d.batch_shape, d.event_shape
        (Size([]), Size([3]))
    """

    def __init__(self, base_distribution: Distribution, reinterpreted_batch_ndims: int,
                 validate_args: bool | None = None) -> None:
        batch, n = base_distribution.batch_shape, reinterpreted_batch_ndims
        if n < 0 or n > len(batch):
            raise ValueError("[Independent] Expected reinterpreted_batch_ndims <= len(base_distribution.batch_shape), "
                             f"actual {n} vs {len(batch)}")
        self.base_dist, self.reinterpreted_batch_ndims = base_distribution, n
        super().__init__(batch[:len(batch) - n], (*batch[len(batch) - n:], *base_distribution.event_shape),
                         validate_args)

    @property
    def has_rsample(self) -> bool:              # type: ignore[override]
        """As the base."""
        return self.base_dist.has_rsample

    @property
    def has_enumerate_support(self) -> bool:    # type: ignore[override]
        """As the base, if no dimension is reinterpreted."""
        return self.base_dist.has_enumerate_support and not self.reinterpreted_batch_ndims

    @constraints.dependent_property
    def support(self) -> Constraint:
        """As the base, for all parts together."""
        return constraints.independent(self.base_dist.support, self.reinterpreted_batch_ndims)

    @property
    def mean(self) -> Tensor:
        """The mean of the base."""
        return self.base_dist.mean

    @property
    def mode(self) -> Tensor:
        """The mode of the base."""
        return self.base_dist.mode

    @property
    def variance(self) -> Tensor:
        """The variance of the base."""
        return self.base_dist.variance

    def expand(self, batch_shape: Sequence[int]) -> Independent:
        """See `Distribution.expand`."""
        parts = self._event_shape[:self.reinterpreted_batch_ndims]
        made = Independent(self.base_dist.expand((*batch_shape, *parts)), self.reinterpreted_batch_ndims, False)
        made._validate_args = self._validate_args
        return made

    def sample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """Samples of the base."""
        return self.base_dist.sample(sample_shape)

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """Samples of the base, with a gradient."""
        return self.base_dist.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The sum of the base's over the parts of a value."""
        return sum_rightmost(self.base_dist.log_prob(value), self.reinterpreted_batch_ndims)

    def entropy(self) -> Tensor:
        """The sum of the base's over the parts of a value."""
        return sum_rightmost(self.base_dist.entropy(), self.reinterpreted_batch_ndims)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """That of the base; NotImplementedError if a dimension is reinterpreted: there are too many values."""
        if self.reinterpreted_batch_ndims:
            raise NotImplementedError("[Independent] Enumeration over cartesian product is not implemented; got "
                                      f"reinterpreted_batch_ndims {self.reinterpreted_batch_ndims}")
        return self.base_dist.enumerate_support(expand=expand)

    def __repr__(self) -> str:
        return f"Independent({self.base_dist}, {self.reinterpreted_batch_ndims})"


def zeros_with(shape: Sequence[int], like: Tensor) -> Tensor:
    """Zeros of this shape, of the dtype and on the device of `like`."""
    return zeros(tuple(shape), dtype=like.dtype, device=like.device)
