"""Distributions that fewer programs use: transforms of others, counts, and mixtures.

Parameters are broadcast to the batch shape. ValueError outside `arg_constraints`. Formulas: Johnson, Kotz and
Balakrishnan 1994, 1997.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..core.modes import no_grad
from ..core.tensor import Size, Tensor
from ..ops.activation import logsigmoid, sigmoid, softplus
from ..ops.creation import arange
from ..ops.formula import clamp_min
from ..ops.math import digamma, eq, exp, floor, gt, isinf, lgamma, log, log1p, where
from ..ops.softmax import log_softmax, logsumexp
from . import constraints
from .continuous import EULER, Exponential, Gamma, Normal, uniform_like
from .discrete import Binary, Categorical, clamped, counts_on_host
from .distribution import Distribution, Parametric, broadcast_all, zeros_with
from .gamma import standard_gamma
from .transforms import (
    AffineTransform,
    ExpTransform,
    PowerTransform,
    SigmoidTransform,
    StickBreakingTransform,
    TransformedDistribution,
)

_EMPTY = Size(())


class _Derived(TransformedDistribution):
    """What takes its parameters in the order of `arg_constraints`."""

    expand = Parametric.expand


class Pareto(_Derived):
    """The Pareto distribution, density alpha scale^alpha / x^(alpha + 1) from `scale` on.

        >>> distributions.Pareto(1.0, 2.0).mean.item()
        2.0
    """

    arg_constraints = {"scale": constraints.positive, "alpha": constraints.positive}

    def __init__(self, scale: Any, alpha: Any, validate_args: bool | None = None) -> None:
        self.scale, self.alpha = broadcast_all(scale, alpha)
        super().__init__(Exponential(self.alpha, validate_args), [ExpTransform(), AffineTransform(0, self.scale)],
                         validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """x >= scale"""
        return constraints.greater_than_eq(self.scale)

    @property
    def mean(self) -> Tensor:
        """alpha scale / (alpha - 1), inf where alpha <= 1"""
        a = clamp_min(self.alpha, 1.0)
        return a * self.scale / (a - 1)

    @property
    def mode(self) -> Tensor:
        """scale"""
        return self.scale

    @property
    def variance(self) -> Tensor:
        """scale^2 alpha / ((alpha - 1)^2 (alpha - 2)), inf where alpha <= 2"""
        a = clamp_min(self.alpha, 2.0)
        return self.scale * self.scale * a / ((a - 1) ** 2 * (a - 2))

    def entropy(self) -> Tensor:
        """log(scale / alpha) + 1 + 1 / alpha"""
        return log(self.scale / self.alpha) + (1 + 1 / self.alpha)


class Weibull(_Derived):
    """The Weibull distribution, P(X <= x) = 1 - e^(-(x / scale)^concentration)."""

    arg_constraints = {"scale": constraints.positive, "concentration": constraints.positive}
    support = constraints.positive                      # type: ignore[assignment]

    def __init__(self, scale: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.scale, self.concentration = broadcast_all(scale, concentration)
        super().__init__(Exponential(self.scale * 0 + 1, validate_args),
                         [PowerTransform(1 / self.concentration), AffineTransform(0, self.scale)], validate_args)

    @property
    def mean(self) -> Tensor:
        """scale Gamma(1 + 1 / k), k the concentration"""
        return self.scale * exp(lgamma(1 + 1 / self.concentration))

    @property
    def mode(self) -> Tensor:
        """scale ((k - 1) / k)^(1 / k)"""
        k = self.concentration
        return self.scale * ((k - 1) / k) ** (1 / k)

    @property
    def variance(self) -> Tensor:
        """scale^2 (Gamma(1 + 2 / k) - Gamma(1 + 1 / k)^2)"""
        one = 1 / self.concentration
        return self.scale * self.scale * (exp(lgamma(1 + 2 * one)) - exp(2 * lgamma(1 + one)))

    def entropy(self) -> Tensor:
        """0.5772 (1 - 1 / k) + log(scale / k) + 1"""
        return EULER * (1 - 1 / self.concentration) + log(self.scale / self.concentration) + 1


class InverseGamma(_Derived):
    """1 / x for x from Gamma(concentration, rate).

        >>> distributions.InverseGamma(3.0, 4.0).mean.item()
        2.0
    """

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.positive                      # type: ignore[assignment]

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = broadcast_all(concentration, rate)
        super().__init__(Gamma(self.concentration, self.rate, validate_args), PowerTransform(-1.0), validate_args)

    def _where(self, least: int, value: Tensor) -> Tensor:
        return where(gt(self.concentration, least), value, math.inf)

    @property
    def mean(self) -> Tensor:
        """rate / (a - 1), inf where the concentration a <= 1"""
        return self._where(1, self.rate / (self.concentration - 1))

    @property
    def mode(self) -> Tensor:
        """rate / (a + 1)"""
        return self.rate / (self.concentration + 1)

    @property
    def variance(self) -> Tensor:
        """rate^2 / ((a - 1)^2 (a - 2)), inf where a <= 2"""
        a = self.concentration
        return self._where(2, self.rate**2 / ((a - 1) ** 2 * (a - 2)))

    def entropy(self) -> Tensor:
        """a + log(rate) + log(Gamma(a)) - (1 + a) digamma(a)"""
        a = self.concentration
        return a + log(self.rate) + lgamma(a) - (1 + a) * digamma(a)


class LogisticNormal(_Derived):
    """Vectors of K + 1 probabilities: `StickBreakingTransform` of K numbers from N(loc, scale^2) (Aitchison and
    Shen 1980); `loc` and `scale` are (*batch, K).

        >>> distributions.LogisticNormal(minigrad.zeros(2), 1.0).event_shape
        Size([3])
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.simplex                       # type: ignore[assignment]

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        base = Normal(loc, scale, validate_args)
        base = base if base.batch_shape else base.expand((1,))
        self.loc, self.scale = base.loc, base.scale
        super().__init__(base, StickBreakingTransform(), validate_args)

    def expand(self, batch_shape: Sequence[int]) -> Any:
        """See `Distribution.expand`."""
        k = self.loc.shape[-1]
        return LogisticNormal(self.loc.expand(*batch_shape, k), self.scale.expand(*batch_shape, k), False)


class _LogitRelaxedBernoulli(Binary):
    """(logits + log(u) - log(1 - u)) / temperature"""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.real                          # type: ignore[assignment]
    has_rsample = True

    def __init__(self, temperature: Tensor, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None) -> None:
        self.temperature = temperature
        super().__init__(probs, logits, validate_args)

    def _others(self) -> tuple[Tensor, ...]:
        return (self.temperature,)

    def expand(self, batch_shape: Sequence[int]) -> Any:
        named = {"probs" if self._param is vars(self).get("probs") else "logits": self._param.expand(*batch_shape)}
        return _LogitRelaxedBernoulli(self.temperature, **named, validate_args=False)

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        p = clamped(self.probs)
        u = clamped(uniform_like(self._extended_shape(sample_shape), p))
        return (log(u) - log1p(-u) + log(p) - log1p(-p)) / self.temperature

    def log_prob(self, value: Tensor) -> Tensor:
        d = self.logits - self._checked(value) * self.temperature
        return log(self.temperature) + d - 2 * log1p(exp(d))


class _ExpRelaxedCategorical(Categorical):
    """The logarithms of `RelaxedOneHotCategorical`."""

    has_rsample, has_enumerate_support = True, False
    support = constraints.real_vector                   # type: ignore[assignment]
    sample = Distribution.sample

    def __init__(self, temperature: Tensor, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None) -> None:
        self.temperature = temperature
        super().__init__(probs, logits, validate_args)

    def _value_shape(self, given: Tensor) -> Sequence[int]:
        return given.shape[-1:]

    def expand(self, batch_shape: Sequence[int]) -> Any:
        named = {"probs" if self._param is vars(self).get("probs") else "logits":
                 self._param.expand(*batch_shape, self._num_events)}
        return _ExpRelaxedCategorical(self.temperature, **named, validate_args=False)

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        u = clamped(uniform_like(self._extended_shape(sample_shape), self.logits))
        return log_softmax((self.logits - log(-log(u))) / self.temperature, -1)

    def log_prob(self, value: Tensor) -> Tensor:
        k = self._num_events
        score = self.logits - self._checked(value) * self.temperature
        return (log_softmax(score, -1).sum(-1) + math.lgamma(k) + (k - 1) * log(self.temperature))


class _Relaxed(TransformedDistribution):
    """What `RelaxedBernoulli` and `RelaxedOneHotCategorical` share."""

    def expand(self, batch_shape: Sequence[int]) -> Any:
        """See `Distribution.expand`."""
        grown: Any = self.base_dist.expand(batch_shape)
        name = "probs" if grown._param is vars(grown).get("probs") else "logits"
        return type(self)(grown.temperature, **{name: grown._param}, validate_args=False)   # type: ignore[call-arg]

    temperature = property(lambda self: self.base_dist.temperature)
    probs = property(lambda self: self.base_dist.probs)
    logits = property(lambda self: self.base_dist.logits)


class RelaxedBernoulli(_Relaxed):
    """Numbers between 0 and 1 that near a `Bernoulli` as `temperature` goes to 0, with a gradient (Maddison, Mnih and
    Teh 2017, "The Concrete distribution", eq. 27): sigmoid((logits + log(u) - log(1 - u)) / temperature)."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval                 # type: ignore[assignment]

    def __init__(self, temperature: Tensor, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None) -> None:
        super().__init__(_LogitRelaxedBernoulli(temperature, probs, logits, validate_args), SigmoidTransform(),
                         validate_args)


class RelaxedOneHotCategorical(_Relaxed):
    """Vectors of probabilities that near a `OneHotCategorical` as `temperature` goes to 0, with a gradient (the same
    paper, eq. 10; Jang, Gu and Poole 2017): softmax((logits - log(-log(u))) / temperature).

        >>> distributions.RelaxedOneHotCategorical(minigrad.tensor(0.5), minigrad.ones(3)).event_shape
        Size([3])
    """

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.simplex                       # type: ignore[assignment]

    def __init__(self, temperature: Tensor, probs: Tensor | None = None, logits: Tensor | None = None,
                 validate_args: bool | None = None) -> None:
        super().__init__(_ExpRelaxedCategorical(temperature, probs, logits, validate_args), ExpTransform(),
                         validate_args)


class _Counted(Binary):
    """What `Binomial` and `NegativeBinomial` share: `total_count`, and a probability or its logits."""

    def __init__(self, total_count: Any, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None) -> None:
        self.total_count: Tensor = total_count
        super().__init__(probs, logits, validate_args)

    def _with(self, parameter: Any) -> Tensor:
        self.total_count, parameter = broadcast_all(self.total_count, parameter)
        self.total_count = self.total_count.to(parameter.dtype)
        return parameter

    def _others(self) -> tuple[Tensor, ...]:
        return (self.total_count,)


class Binomial(_Counted):
    """How many of `total_count` draws with probability `probs` (or by logits) are 1: C(n, k) p^k (1 - p)^(n - k).

        >>> distributions.Binomial(2, 0.5).log_prob(minigrad.tensor(1.0)).exp().item()
        0.5
    """

    arg_constraints = {"total_count": constraints.nonnegative_integer, "probs": constraints.unit_interval,
                       "logits": constraints.real}
    has_enumerate_support = True

    def __init__(self, total_count: Any = 1, *args: Any, **named: Any) -> None:
        super().__init__(total_count, *args, **named)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """0, ..., total_count"""
        return constraints.integer_interval(0, self.total_count)

    @property
    def mean(self) -> Tensor:
        """n p"""
        return self.total_count * self.probs

    @property
    def mode(self) -> Tensor:
        """floor((n + 1) p), at most n"""
        return floor((self.total_count + 1) * self.probs).minimum(self.total_count)

    @property
    def variance(self) -> Tensor:
        """n p (1 - p)"""
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """Counts, in the dtype of the parameter, drawn by NumPy"""
        shape = self._extended_shape(sample_shape)
        return counts_on_host("binomial", self.total_count.expand(*shape), self.probs.expand(*shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """log(C(n, k)) + k logits - n softplus(logits)"""
        value, n = self._checked(value), self.total_count
        ways = lgamma(n + 1) - lgamma(value + 1) - lgamma(n - value + 1)
        return ways + value * self.logits - n * softplus(self.logits)

    def entropy(self) -> Tensor:
        """-sum(p_k log(p_k)); NotImplementedError if the counts differ"""
        logs = self.log_prob(self.enumerate_support(False))
        return -(exp(logs) * logs).sum(0)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """0, ..., n; NotImplementedError if the counts differ"""
        n = int(self.total_count.max())
        if int(self.total_count.min()) != n:
            raise NotImplementedError("[Binomial] Inhomogeneous total count not supported by `enumerate_support`; got "
                                      f"{self.total_count}")
        values = arange(n + 1, dtype=self._param.dtype, device=self._param.device)
        values = values.reshape(n + 1, *(1,) * len(self._batch_shape))
        return values.expand(n + 1, *self._batch_shape) if expand else values


class NegativeBinomial(_Counted):
    """How many draws with probability `probs` (or by logits) are 1 before `total_count` are 0.

        >>> distributions.NegativeBinomial(2, 0.5).mean.item()
        2.0
    """

    arg_constraints = {"total_count": constraints.nonnegative, "probs": constraints.half_open_interval(0.0, 1.0),
                       "logits": constraints.real}
    support = constraints.nonnegative_integer           # type: ignore[assignment]

    @property
    def mean(self) -> Tensor:
        """n p / (1 - p)"""
        return self.total_count * exp(self.logits)

    @property
    def mode(self) -> Tensor:
        """floor((n - 1) p / (1 - p)), at least 0"""
        return clamp_min(floor((self.total_count - 1) * exp(self.logits)), 0.0)

    @property
    def variance(self) -> Tensor:
        """n p / (1 - p)^2"""
        return self.mean / sigmoid(-self.logits)

    def sample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """Poisson counts at rates from Gamma(n, (1 - p) / p)"""
        with no_grad():
            rate = standard_gamma(self.total_count.expand(*self._extended_shape(sample_shape)))
            return counts_on_host("poisson", rate * exp(self.logits))

    def log_prob(self, value: Tensor) -> Tensor:
        """log(Gamma(n + k) / (Gamma(n) k!)) + n log(1 - p) + k log(p)"""
        value, n = self._checked(value), self.total_count
        none = eq(n + value, 0)
        ways = lgamma(where(none, 1.0, n + value)) - lgamma(value + 1) - lgamma(where(none, 1.0, n))
        return n * logsigmoid(-self.logits) + value * logsigmoid(self.logits) + where(none, 0.0, ways)


class Multinomial(Distribution):
    """How many of `total_count` draws are of each class: vectors (*, K), with the parameters of `Categorical`.

    NotImplementedError if `total_count` is not an int.

        >>> distributions.Multinomial(4, minigrad.ones(2)).mean.tolist()
        [2.0, 2.0]
    """

    arg_constraints = Categorical.arg_constraints
    total_count: int

    def __init__(self, total_count: int = 1, probs: Tensor | None = None, logits: Tensor | None = None,
                 validate_args: bool | None = None) -> None:
        if not isinstance(total_count, int):
            raise NotImplementedError("[Multinomial] inhomogeneous total_count is not supported; got "
                                      f"{type(total_count).__name__}")
        self.total_count, self._categorical = total_count, Categorical(probs, logits, validate_args)
        super().__init__(self._categorical.batch_shape, self._categorical._param.shape[-1:], validate_args)

    @property
    def probs(self) -> Tensor:
        """The probabilities of the classes"""
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        """Their logarithms"""
        return self._categorical.logits

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> constraints.Constraint:
        """Vectors of counts with the sum n"""
        return constraints.multinomial(self.total_count)

    @property
    def param_shape(self) -> Size:
        """The shape of the parameter."""
        return self._categorical.param_shape

    @property
    def mean(self) -> Tensor:
        """n p"""
        return self.total_count * self.probs

    @property
    def variance(self) -> Tensor:
        """n p (1 - p)"""
        return self.total_count * self.probs * (1 - self.probs)

    def expand(self, batch_shape: Sequence[int]) -> Multinomial:
        """See `Distribution.expand`."""
        grown = self._categorical.expand(batch_shape)
        made = Multinomial(self.total_count, **{n: vars(grown)[n] for n in ("probs", "logits")
                                                if vars(grown).get(n) is grown._param}, validate_args=False)
        made._validate_args = self._validate_args
        return made

    def sample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """Vectors of counts, in the dtype of the parameter"""
        with no_grad():
            drawn = self._categorical.sample((*sample_shape, self.total_count))
            at = drawn.movedim(len(sample_shape), -1)
            counts = zeros_with(self._extended_shape(sample_shape), self._categorical._param)
            return counts.scatter_add(-1, at, counts.new_ones(tuple(at.shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """log(n! / prod(k_i!)) + sum(k_i log(p_i))"""
        logits, value = broadcast_all(self.logits, self._checked(value))
        logits = where(eq(value, 0) & isinf(logits), 0.0, logits)
        return lgamma(value.sum(-1) + 1) - lgamma(value + 1).sum(-1) + (logits * value).sum(-1)

    def entropy(self) -> Tensor:
        """n times that of one draw - log(n!) + sum(E[log(k_i!)])"""
        n = self.total_count
        each = Binomial(n, self.probs, validate_args=False)
        k = each.enumerate_support(False)
        more = (exp(each.log_prob(k)) * lgamma(k + 1)).sum((0, -1))
        return n * self._categorical.entropy() - math.lgamma(n + 1) + more


class MixtureSameFamily(Distribution):
    """The component that `mixture_distribution`, a `Categorical` (*batch, K), picks among the last dimension of the
    batch of `component_distribution` (*batch, K): log_prob(x) = logsumexp(log(weight_k) + log_prob_k(x)).

    ValueError if the numbers of components or the batches do not fit.

        >>> parts = distributions.Normal(minigrad.tensor([-1.0, 1.0]), 1.0)
        >>> distributions.MixtureSameFamily(distributions.Categorical(minigrad.ones(2)), parts).mean.item()
        0.0
    """

    def __init__(self, mixture_distribution: Categorical, component_distribution: Distribution,
                 validate_args: bool | None = None) -> None:
        weights, parts = mixture_distribution, component_distribution
        batch = parts.batch_shape[:-1]
        sizes = zip(reversed((*weights.batch_shape, weights._num_events)), reversed(parts.batch_shape), strict=False)
        if not all(n == m or 1 in (n, m) for n, m in sizes) or weights._num_events != parts.batch_shape[-1]:
            raise ValueError("[MixtureSameFamily] mixture_distribution must have a class for each component; got "
                             f"{weights!r} and {parts!r}")
        self.mixture_distribution, self.component_distribution = weights, parts
        self._events = len(parts.event_shape)
        super().__init__(batch, parts.event_shape, validate_args)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        """That of the components"""
        base, k = self.component_distribution.support, self._events
        return constraints.Constraint(f"MixtureSameFamilyConstraint({base})",
                                      lambda v: base.check(v.unsqueeze(-1 - k)).all(-1), base.is_discrete, k)

    def expand(self, batch_shape: Sequence[int]) -> MixtureSameFamily:
        """See `Distribution.expand`."""
        k = self.component_distribution.batch_shape[-1]
        made = MixtureSameFamily(self.mixture_distribution.expand(batch_shape),
                                 self.component_distribution.expand((*batch_shape, k)), False)
        made._validate_args = self._validate_args
        return made

    def _mean(self, values: Tensor) -> Tensor:
        weights = self.mixture_distribution.probs
        return (weights.reshape(*weights.shape, *(1,) * self._events) * values).sum(-1 - self._events)

    @property
    def mean(self) -> Tensor:
        """The mean of the components' means"""
        return self._mean(self.component_distribution.mean)

    @property
    def variance(self) -> Tensor:
        """The mean of their variances + the variance of their means"""
        parts = self.component_distribution
        away = parts.mean - self.mean.unsqueeze(-1 - self._events)
        return self._mean(parts.variance) + self._mean(away * away)

    def cdf(self, value: Tensor) -> Tensor:
        """The mean of theirs"""
        return (self.component_distribution.cdf(value.unsqueeze(-1)) * self.mixture_distribution.probs).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """logsumexp(log(weight_k) + log_prob_k(x))"""
        each = self.component_distribution.log_prob(self._checked(value).unsqueeze(-1 - self._events))
        return logsumexp(each + log_softmax(self.mixture_distribution.logits, -1), -1)

    def sample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """A sample of each component, and of these the one that is picked"""
        with no_grad():
            at = len(sample_shape) + len(self._batch_shape)
            picked = self.mixture_distribution.expand(self._batch_shape).sample(sample_shape)
            picked = picked.reshape(*picked.shape, *(1,) * (self._events + 1))
            found = self.component_distribution.sample(sample_shape)
            return found.gather(at, picked.expand(*picked.shape[:at + 1], *self._event_shape)).squeeze(at)

    def __repr__(self) -> str:
        return f"MixtureSameFamily(\n  {self.mixture_distribution},\n  {self.component_distribution})"
