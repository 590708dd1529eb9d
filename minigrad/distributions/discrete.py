"""Distributions of numbers that can be counted. Their samples have no gradient."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..core.half import finfo
from ..core.modes import mode as current
from ..core.modes import no_grad
from ..core.shape import INT64
from ..core.tensor import Size, Tensor
from ..devices.host import on_host
from ..ops.activation import sigmoid
from ..ops.creation import arange, empty, eye
from ..ops.formula import clamp_min, xlogy
from ..ops.index import one_hot as one_hot_of
from ..ops.loss import binary_cross_entropy_with_logits
from ..ops.math import floor, ge, gt, lgamma, log, log1p, lt, minimum, where
from ..ops.random import bernoulli, rand, randint
from ..ops.softmax import logsumexp, softmax
from . import constraints
from .distribution import Distribution, Parametric, broadcast_all, computed

_EMPTY = Size(())


def _one_of(kind: type, probs: Any, logits: Any) -> None:
    if (probs is None) == (logits is None):
        raise ValueError(f"[{kind.__name__}] Either `probs` or `logits` must be specified, but not both; got "
                         f"{'neither' if probs is None else 'both'}")


def clamped(probs: Tensor) -> Tensor:
    """Probabilities a little above 0 and below 1, so that their logarithms are finite."""
    eps = float(finfo(probs.dtype).eps)
    return probs.clamp(eps, 1 - eps)


class Binary(Distribution):
    """What distributions of one probability share: `probs`, or `logits` = log(probs / (1 - probs)); the other one is
    computed when it is asked for."""

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        _one_of(type(self), probs, logits)
        name, given = ("probs", probs) if logits is None else ("logits", logits)
        self._param = vars(self)[name] = self._with(given)
        super().__init__(self._param.shape, validate_args=validate_args)

    def _with(self, parameter: Any) -> Tensor:
        """The parameter as a tensor, of the shape that other parameters ask for."""
        return broadcast_all(parameter)[0]

    def _others(self) -> tuple[Tensor, ...]:
        """The parameters that come before the probability."""
        return ()

    @computed
    def probs(self) -> Tensor:
        """sigmoid(logits)"""
        return sigmoid(self.logits)

    @computed
    def logits(self) -> Tensor:
        """log(probs / (1 - probs))"""
        p = clamped(self.probs)
        return log(p) - log1p(-p)

    def expand(self, batch_shape: Sequence[int]) -> Any:
        """See `Distribution.expand`."""
        return self._expanded(type(self), batch_shape, *self._others(),
                              **{"probs" if self._param is vars(self).get("probs") else "logits": self._param})

    @property
    def param_shape(self) -> Size:
        """The shape of the parameter."""
        return self._param.shape


class Bernoulli(Binary):
    """1 with probability `probs`, else 0; or by `logits` = log(probs / (1 - probs)).

        >>> distributions.Bernoulli(0.25).log_prob(minigrad.tensor(1.0)).item()        # log(1 / 4)
        -1.3862943649291992
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.boolean                       # type: ignore[assignment]
    has_enumerate_support = True

    @property
    def mean(self) -> Tensor:
        """probs"""
        return self.probs

    @property
    def mode(self) -> Tensor:
        """0 or 1, nan where probs is 1/2"""
        return where((self.probs - 0.5).abs() == 0, math.nan, gt(self.probs, 0.5).to(self.probs.dtype))

    @property
    def variance(self) -> Tensor:
        """probs (1 - probs)"""
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """0 and 1, in the dtype of the parameter"""
        with no_grad():
            return bernoulli(self.probs.detach().expand(*self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """x log(probs) + (1 - x) log(1 - probs), from the logits"""
        logits, value = broadcast_all(self.logits, self._checked(value))
        return -binary_cross_entropy_with_logits(logits, value, reduction="none")

    def entropy(self) -> Tensor:
        """-probs log(probs) - (1 - probs) log(1 - probs), from the logits"""
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """0 and 1"""
        values = arange(2, dtype=self._param.dtype, device=self._param.device)
        values = values.reshape(2, *(1,) * len(self._batch_shape))
        return values.expand(2, *self._batch_shape) if expand else values


class Geometric(Binary):
    """How often 0 comes before the first 1 of draws with probability `probs`: P(X = k) = (1 - probs)^k probs."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.nonnegative_integer           # type: ignore[assignment]

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        super().__init__(probs, logits, validate_args)
        if self._validate_args and current.recorder is None and logits is None and not bool(gt(self.probs, 0).all()):
            raise ValueError(f"[Geometric] probs must be greater than 0: the first 1 would never come; got {probs}")

    @property
    def mean(self) -> Tensor:
        """1 / probs - 1"""
        return 1.0 / self.probs - 1.0

    @property
    def mode(self) -> Tensor:
        """0"""
        return self.probs * 0

    @property
    def variance(self) -> Tensor:
        """(1 / probs - 1) / probs"""
        return (1.0 / self.probs - 1.0) / self.probs

    def sample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """floor(log(u) / log(1 - probs))"""
        with no_grad():
            p = self.probs.detach()
            u = rand(tuple(self._extended_shape(sample_shape)), dtype=p.dtype, device=p.device)
            return floor(log(clamp_min(u, float(finfo(p.dtype).tiny))) / log1p(-p))

    def log_prob(self, value: Tensor) -> Tensor:
        """k log(1 - probs) + log(probs)"""
        value, p = broadcast_all(self._checked(value), self.probs)
        certain = (p == 1) & (value == 0)
        return where(certain, 0.0, value * log1p(-where(certain, 0.5, p))) + log(p)

    def entropy(self) -> Tensor:
        """The entropy of one draw, divided by probs"""
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none") / self.probs


class Poisson(Parametric):
    """Counts at the rate `rate`: P(X = k) = rate^k e^-rate / k!."""

    arg_constraints = {"rate": constraints.nonnegative}
    support = constraints.nonnegative_integer           # type: ignore[assignment]

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = broadcast_all(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """rate"""
        return self.rate

    @property
    def mode(self) -> Tensor:
        """floor(rate)"""
        return floor(self.rate)

    @property
    def variance(self) -> Tensor:
        """rate"""
        return self.rate

    def sample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """Counts, in the dtype of the rate, drawn by NumPy"""
        return counts_on_host("poisson", self.rate.expand(*self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """k log(rate) - rate - log(k!)"""
        rate, value = broadcast_all(self.rate, self._checked(value))
        return xlogy(value, rate) - rate - lgamma(value + 1)


def counts_on_host(kind: str, *parameters: Tensor, generator: Any = None) -> Tensor:
    """Numbers of the distribution `kind`, drawn by a method of NumPy's generator, in the dtype of the parameters. Its
    seed is drawn from `generator`."""
    with no_grad():
        given = [p.detach().contiguous() for p in parameters]
        seed = randint(0, 1 << 62, (2,), generator=generator, device=given[0].device)
        out = empty(tuple(given[0].shape), dtype=given[0].dtype, device=given[0].device)
        out.device.host.call(_DRAWS[kind], out.array.np, *[p.array.np for p in given], seed.array.np)
        return out


def _drawing(kind: str) -> Any:
    @on_host
    def draw(*given: Any, out: Any) -> None:            # from a stream that the two numbers of the last array name
        *parameters, seed = given
        stream = np.random.Generator(np.random.Philox(key=[int(s) for s in seed]))
        if kind == "binomial":
            parameters[0] = parameters[0].astype(np.int64)
        out[...] = getattr(stream, kind)(*parameters)
    return draw


_DRAWS = {kind: _drawing(kind) for kind in ("binomial", "poisson", "vonmises")}


class Categorical(Distribution):
    """One of K classes, by `probs` (*, K), which need not sum to 1, or by `logits` (*, K): their logarithms, up to a
    number that is added to all.

        >>> distributions.Categorical(minigrad.tensor([1.0, 1.0, 2.0])).probs.tolist()
        [0.25, 0.25, 0.5]
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"probs": constraints.simplex,
                                                                    "logits": constraints.real_vector}
    has_enumerate_support = True
    def __init__(self, probs: Tensor | None = None, logits: Tensor | None = None,
                 validate_args: bool | None = None) -> None:
        _one_of(type(self), probs, logits)
        given: Any = probs if logits is None else logits
        if not isinstance(given, Tensor) or given.ndim < 1:
            raise ValueError(f"[{type(self).__name__}] `{'probs' if logits is None else 'logits'}` parameter must be "
                             f"at least one-dimensional; got {getattr(given, 'layout', given)}")
        whole = given.sum(-1, keepdim=True) if logits is None else logsumexp(given, -1, keepdim=True)
        self._param = given / whole if logits is None else given - whole
        vars(self)["probs" if logits is None else "logits"] = self._param
        self._num_events = given.shape[-1]
        super().__init__(given.shape[:-1], self._value_shape(given), validate_args)

    def _value_shape(self, given: Tensor) -> Sequence[int]:
        return ()

    @computed
    def probs(self) -> Tensor:
        """softmax(logits)"""
        return softmax(self.logits, -1)

    @computed
    def logits(self) -> Tensor:
        """log(probs)"""
        return log(clamped(self.probs))

    def expand(self, batch_shape: Sequence[int]) -> Any:
        """See `Distribution.expand`."""
        return self._expanded(type(self), batch_shape,
                              **{"probs" if self._param is vars(self).get("probs") else "logits": self._param})

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """0, ..., K - 1"""
        return constraints.integer_interval(0, self._num_events - 1)

    @property
    def param_shape(self) -> Size:
        """The shape of the parameter."""
        return self._param.shape

    @property
    def mean(self) -> Tensor:
        """nan: classes are no numbers."""
        return self._param.detach()[..., 0] * math.nan

    @property
    def mode(self) -> Tensor:
        """The most likely class"""
        return self.probs.argmax(-1)

    @property
    def variance(self) -> Tensor:
        """nan: classes are no numbers."""
        return self.mean

    def _drawn(self, sample_shape: Sequence[int]) -> Tensor:
        """Classes (*sample_shape, *batch_shape): those at which the sum of probabilities passes u."""
        with no_grad():
            sums = self.probs.detach().to(np.float64).cumsum(-1)
            total = sums[..., -1:]
            u = rand(*sample_shape, *self._batch_shape, 1, dtype=np.float64, device=sums.device) * total
            last = lt(sums, total).sum(-1)              # of those with a probability above 0
            return minimum(ge(u, sums).sum(-1), last)

    def sample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """Classes, int64 (*sample_shape, *batch_shape)"""
        return self._drawn(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the class' probability"""
        value = self._checked(value).to(INT64)
        shape = np.broadcast_shapes(tuple(value.shape), tuple(self._batch_shape))
        logits = self.logits.expand(*shape, self._num_events)
        return logits.gather(-1, value.expand(*shape).unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """-sum(probs log(probs))"""
        logits = clamp_min(self.logits, float(finfo(self._param.dtype).min))
        return -(logits * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """0, ..., K - 1"""
        values = arange(self._num_events, device=self._param.device)
        values = values.reshape(self._num_events, *(1,) * len(self._batch_shape))
        return values.expand(self._num_events, *self._batch_shape) if expand else values


class OneHotCategorical(Categorical):
    """`Categorical` whose values are one-hot vectors (*, K), in the dtype of the parameter."""

    arg_constraints = Categorical.arg_constraints
    support = constraints.one_hot                       # type: ignore[assignment]

    def _value_shape(self, given: Tensor) -> Sequence[int]:
        return given.shape[-1:]

    @property
    def mean(self) -> Tensor:
        """probs"""
        return self.probs

    @property
    def mode(self) -> Tensor:
        """The vector of the most likely class"""
        return one_hot_of(self.probs.argmax(-1), self._num_events).to(self._param.dtype)

    @property
    def variance(self) -> Tensor:
        """probs (1 - probs)"""
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """One-hot vectors (*sample_shape, *batch_shape, K)"""
        return one_hot_of(self._drawn(sample_shape), self._num_events).to(self._param.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the class' probability"""
        index = self._checked(value).argmax(-1)
        shape = np.broadcast_shapes(tuple(index.shape), tuple(self._batch_shape))
        logits = self.logits.expand(*shape, self._num_events)
        return logits.gather(-1, index.expand(*shape).unsqueeze(-1)).squeeze(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """The K vectors"""
        k = self._num_events
        values = eye(k, dtype=self._param.dtype, device=self._param.device)
        values = values.reshape(k, *(1,) * len(self._batch_shape), k)
        return values.expand(k, *self._batch_shape, k) if expand else values


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """`OneHotCategorical` whose samples pass the gradient on to the probabilities (Bengio, Léonard and Courville 2013,
    the straight-through estimator)."""

    has_rsample = True

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """One-hot vectors; their gradient is that of `probs`"""
        drawn = self.sample(sample_shape)
        # detached: by definition of the estimator, the value is that of `drawn`, and the gradient that of the
        # probabilities
        return drawn + (self.probs - self.probs.detach())
