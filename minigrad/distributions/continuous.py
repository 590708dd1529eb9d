"""Distributions of real numbers and vectors. In the formulas z is drawn from N(0, 1) and u from U(0, 1)."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..core.half import finfo
from ..core.modes import mode as current
from ..core.tensor import Size, Tensor
from ..ops.creation import as_tensor, eye, full_like
from ..ops.formula import clamp, clamp_min, xlogy
from ..ops.join import stack
from ..ops.linalg import cholesky, solve_triangular
from ..ops.math import (
    atan2,
    digamma,
    eq,
    erf,
    erfc,
    erfinv,
    expm1,
    ge,
    gt,
    le,
    lgamma,
    log,
    log1p,
    lt,
    sign,
    sqrt,
    where,
)
from ..ops.random import exponential_, rand, randn
from ..ops.softmax import softmax
from . import constraints
from .distribution import Distribution, Parametric, broadcast_all, computed, zeros_with
from .gamma import standard_gamma

_EMPTY = Size(())
EULER = 0.57721566490153286060              # Euler's constant


def normal_like(shape: Sequence[int], like: Tensor) -> Tensor:
    """Standard normal numbers in the dtype and on the device of `like`."""
    return randn(tuple(shape), dtype=like.dtype, device=like.device)


def uniform_like(shape: Sequence[int], like: Tensor) -> Tensor:
    """Numbers in (0, 1) in the dtype and on the device of `like`: 0 becomes the smallest number of the dtype."""
    return clamp_min(rand(tuple(shape), dtype=like.dtype, device=like.device), float(finfo(like.dtype).tiny))


def log1p_square(z: Tensor) -> Tensor:
    """log(1 + z^2), also where the square leaves the range."""
    large = z.abs() > 1e9
    return where(large, 2 * log(where(large, z, 1.0).abs()), log1p(where(large, 0.0, z) ** 2))


class Centred:
    """What distributions share whose mean and mode are their location."""

    loc: Tensor

    @property
    def mean(self) -> Tensor:
        """loc"""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """loc"""
        return self.loc


class _LocScale(Centred, Parametric):
    """What distributions with a location and a scale share."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real                          # type: ignore[assignment]
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)


class Normal(_LocScale):
    """N(loc, scale^2): the normal distribution with mean `loc` and standard deviation `scale`.

        >>> distributions.Normal(0.0, 1.0).log_prob(minigrad.tensor(0.0)).item()       # -log(2 pi) / 2
        -0.9189385175704956
    """

    @property
    def variance(self) -> Tensor:
        """scale^2"""
        return self.scale * self.scale

    @property
    def stddev(self) -> Tensor:
        """scale"""
        return self.scale

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """loc + scale z"""
        return self.loc + normal_like(self._extended_shape(sample_shape), self.loc) * self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        """-((x - loc) / scale)^2 / 2 - log(scale) - log(2 pi) / 2"""
        z = (self._checked(value) - self.loc) / self.scale
        return -(z * z) / 2 - log(self.scale) - 0.5 * math.log(2 * math.pi)

    def entropy(self) -> Tensor:
        """log(scale) + (1 + log(2 pi)) / 2"""
        return log(self.scale) + 0.5 * (1 + math.log(2 * math.pi))

    def cdf(self, value: Tensor) -> Tensor:
        """(1 + erf((x - loc) / (scale sqrt(2)))) / 2, without the sum, which loses small ones"""
        return 0.5 * erfc((self.loc - self._checked(value)) / (self.scale * math.sqrt(2)))

    def icdf(self, value: Tensor) -> Tensor:
        """loc + scale sqrt(2) erfinv(2 p - 1), computed without 2 p - 1, which loses small p"""
        from ..ops.special import ndtri
        return self.loc + self.scale * ndtri(value)


class Laplace(_LocScale):
    """The Laplace distribution, density e^(-|x - loc| / scale) / (2 scale)."""

    @property
    def variance(self) -> Tensor:
        """2 scale^2"""
        return 2 * self.scale * self.scale

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """loc - scale sign(v) log(1 - |v|), v from U(-1, 1)"""
        v = 2 * uniform_like(self._extended_shape(sample_shape), self.loc) - 1
        v = clamp_min(v, float(finfo(self.loc.dtype).eps) - 1)
        return self.loc - self.scale * sign(v) * log1p(-v.abs())

    def log_prob(self, value: Tensor) -> Tensor:
        """-|x - loc| / scale - log(2 scale)"""
        return -log(2 * self.scale) - (self._checked(value) - self.loc).abs() / self.scale

    def entropy(self) -> Tensor:
        """1 + log(2 scale)"""
        return 1 + log(2 * self.scale)

    def cdf(self, value: Tensor) -> Tensor:
        """e^(-|x - loc| / scale) / 2 below loc, 1 minus that above"""
        y = (self._checked(value) - self.loc) / self.scale
        above = y > 0                           # each side of its own: the slope at loc is not that of |x - loc|
        return where(above, 1 - 0.5 * (-where(above, y, 0.0)).exp(), 0.5 * where(above, 0.0, y).exp())

    def icdf(self, value: Tensor) -> Tensor:
        """loc + scale log(2 p) for p < 1/2, loc - scale log(2 (1 - p)) above"""
        high = value > 0.5
        part = log(2 * where(high, 1 - value, value))
        return self.loc + self.scale * where(high, -part, part)


class Cauchy(_LocScale):
    """The Cauchy distribution, density 1 / (pi scale (1 + ((x - loc) / scale)^2)); mean nan, variance inf."""

    @property
    def mean(self) -> Tensor:
        """nan"""
        return full_like(self.loc, math.nan)

    @property
    def variance(self) -> Tensor:
        """inf"""
        return full_like(self.loc, math.inf)

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """loc + scale tan(pi (u - 1/2))"""
        return self.icdf(uniform_like(self._extended_shape(sample_shape), self.loc))

    def log_prob(self, value: Tensor) -> Tensor:
        """-log(pi scale) - log(1 + ((x - loc) / scale)^2)"""
        z = (self._checked(value) - self.loc) / self.scale
        return -math.log(math.pi) - log(self.scale) - log1p_square(z)

    def entropy(self) -> Tensor:
        """log(4 pi scale)"""
        return math.log(4 * math.pi) + log(self.scale)

    def cdf(self, value: Tensor) -> Tensor:
        """arctan((x - loc) / scale) / pi + 1/2, as the angle of the point (loc - x, scale): small ones are not lost"""
        return atan2(self.scale, self.loc - self._checked(value)) / math.pi

    def icdf(self, value: Tensor) -> Tensor:
        """loc + scale tan(pi (p - 1/2)) = loc - scale / tan(pi p) = loc + scale / tan(pi (1 - p))"""
        high = value > 0.5
        tail = 1 / (math.pi * where(high, 1 - value, value)).tan()
        return self.loc + self.scale * where((value - 0.5).abs() < 0.25, (math.pi * (value - 0.5)).tan(),
                                             where(high, tail, -tail))


class Gumbel(_LocScale):
    """The Gumbel distribution, P(X <= x) = e^(-e^(-(x - loc) / scale))."""

    @property
    def mean(self) -> Tensor:
        """loc + 0.5772 scale"""
        return self.loc + self.scale * EULER

    @property
    def variance(self) -> Tensor:
        """pi^2 scale^2 / 6"""
        return self.scale * self.scale * (math.pi**2 / 6)

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """loc - scale log(-log(u))"""
        return self.icdf(uniform_like(self._extended_shape(sample_shape), self.loc))

    def log_prob(self, value: Tensor) -> Tensor:
        """-y - e^-y - log(scale), y = (x - loc) / scale"""
        y = (self._checked(value) - self.loc) / self.scale
        return -y - (-y).exp() - log(self.scale)

    def entropy(self) -> Tensor:
        """log(scale) + 1.5772"""
        return log(self.scale) + (1 + EULER)

    def cdf(self, value: Tensor) -> Tensor:
        """e^(-e^(-(x - loc) / scale))"""
        return (-(-(self._checked(value) - self.loc) / self.scale).exp()).exp()

    def icdf(self, value: Tensor) -> Tensor:
        """loc - scale log(-log(p))"""
        none = eq(value, 0)             # there -log(-log(p)) has no slope; log(p) has its limits
        return self.loc + self.scale * where(none, log(value), -log(0 - log(where(none, 0.5, value))))


class Uniform(Parametric):
    """U(low, high): every number from `low` up to `high` is equally likely. ValueError unless low < high."""

    arg_constraints = {"low": constraints.real, "high": constraints.real}
    has_rsample = True

    def __init__(self, low: Any, high: Any, validate_args: bool | None = None) -> None:
        self.low, self.high = broadcast_all(low, high)
        super().__init__(self.low.shape, validate_args=validate_args)
        if self._validate_args:
            self._check_order()

    def _check_order(self) -> None:
        if current.recorder is None and not bool(lt(self.low.detach(), self.high.detach()).all()):
            raise ValueError(f"[Uniform] Uniform is not defined when low>= high; got low {self.low}, high {self.high}")

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """low <= x <= high"""
        return constraints.interval(self.low, self.high)

    @property
    def mean(self) -> Tensor:
        """(low + high) / 2"""
        return (self.high + self.low) / 2

    @property
    def mode(self) -> Tensor:
        """nan: there is not one most likely value."""
        return self.high * math.nan

    @property
    def variance(self) -> Tensor:
        """(high - low)^2 / 12"""
        return (self.high - self.low) ** 2 / 12

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """low + (high - low) u"""
        u = rand(tuple(self._extended_shape(sample_shape)), dtype=self.low.dtype, device=self.low.device)
        return self.low + u * (self.high - self.low)

    def log_prob(self, value: Tensor) -> Tensor:
        """-log(high - low) where low <= x < high, else -inf"""
        value = self._checked(value)
        inside = le(self.low, value) & gt(self.high, value)
        return log(inside.to(self.low.dtype)) - log(self.high - self.low)

    def cdf(self, value: Tensor) -> Tensor:
        """(x - low) / (high - low), between 0 and 1"""
        return ((self._checked(value) - self.low) / (self.high - self.low)).clamp(0, 1)

    def icdf(self, value: Tensor) -> Tensor:
        """low + (high - low) p"""
        return value * (self.high - self.low) + self.low

    def entropy(self) -> Tensor:
        """log(high - low)"""
        return log(self.high - self.low)


class Exponential(Parametric):
    """The exponential distribution, density rate e^(-rate x)."""

    arg_constraints = {"rate": constraints.positive}
    support = constraints.nonnegative                   # type: ignore[assignment]
    has_rsample = True

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = broadcast_all(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """1 / rate"""
        return 1 / self.rate

    @property
    def mode(self) -> Tensor:
        """0"""
        return zeros_with(self.rate.shape, self.rate)

    @property
    def stddev(self) -> Tensor:
        """1 / rate"""
        return 1 / self.rate

    @property
    def variance(self) -> Tensor:
        """1 / rate^2"""
        return 1 / (self.rate * self.rate)

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """-log(1 - u) / rate"""
        made = self.rate.detach().new_empty(tuple(self._extended_shape(sample_shape)))
        return exponential_(made) / self.rate

    def log_prob(self, value: Tensor) -> Tensor:
        """log(rate) - rate x"""
        return log(self.rate) - self.rate * self._checked(value)

    def cdf(self, value: Tensor) -> Tensor:
        """1 - e^(-rate x)"""
        return -expm1(-self.rate * self._checked(value))

    def icdf(self, value: Tensor) -> Tensor:
        """-log(1 - p) / rate"""
        return -log1p(-value) / self.rate

    def entropy(self) -> Tensor:
        """1 - log(rate)"""
        return 1 - log(self.rate)


class Gamma(Parametric):
    """The gamma distribution, density rate^concentration x^(concentration - 1) e^(-rate x) / Gamma(concentration)."""

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.nonnegative                   # type: ignore[assignment]
    has_rsample = True

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = broadcast_all(concentration, rate)
        super().__init__(self.concentration.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """concentration / rate"""
        return self.concentration / self.rate

    @property
    def mode(self) -> Tensor:
        """(concentration - 1) / rate, at least 0"""
        return clamp_min((self.concentration - 1) / self.rate, 0)

    @property
    def variance(self) -> Tensor:
        """concentration / rate^2"""
        return self.concentration / (self.rate * self.rate)

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """A standard gamma sample / rate; its gradient: see `distributions/gamma.py`."""
        shape = self._extended_shape(sample_shape)
        drawn = standard_gamma(self.concentration.expand(*shape)) / self.rate
        return clamp_min(drawn, float(finfo(drawn.dtype).tiny))

    def log_prob(self, value: Tensor) -> Tensor:
        """a log(rate) + (a - 1) log(x) - rate x - log(Gamma(a)), a the concentration"""
        a = self.concentration
        value = self._checked(as_tensor(value, dtype=a.dtype, device=a.device))         # a number, too, as in PyTorch
        return xlogy(a, self.rate) + xlogy(a - 1, value) - self.rate * value - lgamma(a)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of at most x, igamma(a, rate x), a the concentration. It is differentiable in rate and x."""
        from ..ops.special import igamma
        return igamma(self.concentration, self.rate * self._checked(value))

    def entropy(self) -> Tensor:
        """a - log(rate) + log(Gamma(a)) + (1 - a) digamma(a)"""
        a = self.concentration
        return a - log(self.rate) + lgamma(a) + (1 - a) * digamma(a)


class Chi2(Gamma):
    """The chi-squared distribution with `df` degrees of freedom: Gamma(df / 2, 1 / 2)."""

    arg_constraints = {"df": constraints.positive}

    def __init__(self, df: Any, validate_args: bool | None = None) -> None:
        (self.df,) = broadcast_all(df)
        super().__init__(0.5 * self.df, 0.5, validate_args)


class StudentT(Parametric):
    """Student's t distribution with `df` degrees of freedom, moved to `loc` and stretched by `scale`."""

    arg_constraints = {"df": constraints.positive, "loc": constraints.real, "scale": constraints.positive}
    support = constraints.real                          # type: ignore[assignment]
    has_rsample = True

    def __init__(self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None) -> None:
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        super().__init__(self.df.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """loc, nan where df <= 1"""
        return where(gt(self.df, 1), self.loc, math.nan)

    @property
    def mode(self) -> Tensor:
        """loc"""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """scale^2 df / (df - 2), inf where 1 < df <= 2, nan where df <= 1"""
        many = gt(self.df, 2)
        df = where(many, self.df, 3.0)
        rest = where(gt(self.df, 1), math.inf, zeros_with(self.df.shape, self.df) + math.nan)
        return where(many, self.scale * self.scale * df / (df - 2), rest)

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """loc + scale z sqrt(df / c), c from Chi2(df)"""
        shape = self._extended_shape(sample_shape)
        z, c = normal_like(shape, self.df), 2 * standard_gamma((0.5 * self.df).expand(*shape))
        return self.loc + self.scale * z * (self.df / c).sqrt()

    def log_prob(self, value: Tensor) -> Tensor:
        """-(df + 1) / 2 log(1 + y^2 / df) - log(scale) - log(df pi) / 2 - log(Gamma(df / 2) / Gamma((df + 1) / 2)),
        y = (x - loc) / scale"""
        y = (self._checked(value) - self.loc) / self.scale
        half = 0.5 * self.df
        total = log(self.scale) + 0.5 * log(self.df) + 0.5 * math.log(math.pi) + lgamma(half) - lgamma(half + 0.5)
        return -0.5 * (self.df + 1) * log1p_square(y / sqrt(self.df)) - total

    def entropy(self) -> Tensor:
        """log(scale) + (df + 1) / 2 (digamma((df + 1) / 2) - digamma(df / 2)) + log(df) / 2 + log(B(1 / 2, df / 2))"""
        half = 0.5 * self.df
        beta = lgamma(half) + 0.5 * math.log(math.pi) - lgamma(half + 0.5)
        return log(self.scale) + (half + 0.5) * (digamma(half + 0.5) - digamma(half)) + 0.5 * log(self.df) + beta


class _Half(Parametric):
    """|x| for x from a distribution around 0, `_whole`."""

    arg_constraints = {"scale": constraints.positive}
    support = constraints.nonnegative                   # type: ignore[assignment]
    has_rsample = True
    _kind: ClassVar[Any]

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        (self.scale,) = broadcast_all(scale)
        self._whole = self._kind(zeros_with(self.scale.shape, self.scale), self.scale, validate_args=False)
        super().__init__(self.scale.shape, validate_args=validate_args)

    @property
    def mode(self) -> Tensor:
        """0"""
        return zeros_with(self.scale.shape, self.scale)

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """|x|"""
        return self._whole.rsample(sample_shape).abs()

    def log_prob(self, value: Tensor) -> Tensor:
        """log(2) + log_prob of the whole, -inf for negative numbers"""
        value = self._checked(value)
        return where(ge(value, 0), self._whole.log_prob(value) + math.log(2), -math.inf)

    def entropy(self) -> Tensor:
        """That of the whole - log(2)"""
        return self._whole.entropy() - math.log(2)


class HalfNormal(_Half):
    """|x| for x from N(0, scale^2)."""

    _kind = Normal

    @property
    def mean(self) -> Tensor:
        """scale sqrt(2 / pi)"""
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def variance(self) -> Tensor:
        """scale^2 (1 - 2 / pi)"""
        return self.scale * self.scale * (1 - 2 / math.pi)

    def cdf(self, value: Tensor) -> Tensor:
        """erf(x / (scale sqrt(2)))"""
        return erf(self._checked(value) / (self.scale * math.sqrt(2)))

    def icdf(self, value: Tensor) -> Tensor:
        """scale sqrt(2) erfinv(p)"""
        return self.scale * math.sqrt(2) * erfinv(value)


class HalfCauchy(_Half):
    """|x| for x from Cauchy(0, scale)."""

    _kind = Cauchy

    @property
    def mean(self) -> Tensor:
        """inf"""
        return full_like(self.scale, math.inf)

    @property
    def variance(self) -> Tensor:
        """inf"""
        return self._whole.variance

    def cdf(self, value: Tensor) -> Tensor:
        """2 / pi arctan(x / scale)"""
        return (self._checked(value) / self.scale).atan() * (2 / math.pi)

    def icdf(self, value: Tensor) -> Tensor:
        """scale tan(pi p / 2) = scale / tan(pi (1 - p) / 2)"""
        high = value > 0.5
        found = (where(high, 1 - value, value) * (math.pi / 2)).tan()
        return self.scale * where(high, 1 / where(high, found, 1.0), found)


class Dirichlet(Parametric):
    """The Dirichlet distribution of vectors of probabilities: the sizes of `concentration` are (*batch_shape, K).

        >>> distributions.Dirichlet(minigrad.tensor([1.0, 2.0, 3.0])).mean.tolist()
        [0.1666666716337204, 0.3333333432674408, 0.5]
    """

    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex                       # type: ignore[assignment]
    has_rsample = True

    def __init__(self, concentration: Tensor, validate_args: bool | None = None) -> None:
        if not isinstance(concentration, Tensor) or concentration.ndim < 1:
            raise ValueError("[Dirichlet] `concentration` parameter must be at least one-dimensional; got "
                             f"{getattr(concentration, 'layout', concentration)}")
        self.concentration = concentration
        super().__init__(concentration.shape[:-1], concentration.shape[-1:], validate_args)

    @property
    def mean(self) -> Tensor:
        """concentration / their sum"""
        return self.concentration / self.concentration.sum(-1, keepdim=True)

    @property
    def mode(self) -> Tensor:
        """(a - 1) / sum(a - 1), a the concentration; where all a < 1, 1 at the largest; nan where there is none"""
        less = clamp_min(self.concentration - 1, 0)
        top = self.concentration.argmax(-1, keepdim=True)
        corner = zeros_with(less.shape, less).scatter(-1, top, 1.0)
        small = lt(self.concentration, 1).all(-1, keepdim=True)
        return where(small, corner, less / where(small, 1.0, less.sum(-1, keepdim=True)))

    @property
    def variance(self) -> Tensor:
        """a (A - a) / (A^2 (A + 1)), A the sum of the concentrations a"""
        a, total = self.concentration, self.concentration.sum(-1, keepdim=True)
        return a * (total - a) / (total * total * (total + 1))

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """The softmax of logarithms of gamma samples, in float64, from the dtype's smallest number to its last before
        1"""
        a = self.concentration.expand(*self._extended_shape(sample_shape))
        limits = finfo(a.dtype)
        drawn = softmax(standard_gamma(a.double(), True), -1).to(a.dtype)
        return clamp(drawn, float(limits.tiny), 1 - float(limits.eps) / 2)

    def log_prob(self, value: Tensor) -> Tensor:
        """sum((a - 1) log(x)) + log(Gamma(A)) - sum(log(Gamma(a))), A the sum of the concentrations a"""
        value, a = self._checked(value), self.concentration
        return xlogy(a - 1, value).sum(-1) + lgamma(a.sum(-1)) - lgamma(a).sum(-1)

    def entropy(self) -> Tensor:
        """sum(log(Gamma(a))) - log(Gamma(A)) - (K - A) digamma(A) - sum((a - 1) digamma(a))"""
        a, k = self.concentration, self.concentration.shape[-1]
        total = a.sum(-1)
        return (lgamma(a).sum(-1) - lgamma(total) - (k - total) * digamma(total)
                - ((a - 1) * digamma(a)).sum(-1))


class Beta(Parametric):
    """The beta distribution, density x^(a - 1) (1 - x)^(b - 1) / B(a, b), a and b the two concentrations."""

    arg_constraints = {"concentration1": constraints.positive, "concentration0": constraints.positive}
    support = constraints.unit_interval                 # type: ignore[assignment]
    has_rsample = True

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None) -> None:
        self.concentration1, self.concentration0 = broadcast_all(concentration1, concentration0)
        self._dirichlet = Dirichlet(stack([self.concentration1, self.concentration0], -1), validate_args=False)
        super().__init__(self.concentration1.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """a / (a + b)"""
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def mode(self) -> Tensor:
        """(a - 1) / (a + b - 2); where both are below 1, the end with the larger one"""
        return self._dirichlet.mode[..., 0]

    @property
    def variance(self) -> Tensor:
        """a b / ((a + b)^2 (a + b + 1))"""
        total = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (total * total * (total + 1))

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """The first of two numbers from Dirichlet(a, b)"""
        return self._dirichlet.rsample(sample_shape)[..., 0]

    def log_prob(self, value: Tensor) -> Tensor:
        """(a - 1) log(x) + (b - 1) log(1 - x) - log(B(a, b))"""
        value = self._checked(value)
        return self._dirichlet.log_prob(stack([value, 1.0 - value], -1))

    def entropy(self) -> Tensor:
        """That of Dirichlet(a, b)"""
        return self._dirichlet.entropy()


class Factored(Distribution):
    """What takes one of three matrices (*, K, K), a covariance, its inverse `precision_matrix` or its lower Cholesky
    factor `scale_tril`, and computes with the factor."""

    _unbroadcasted_scale_tril: Tensor                   # (*, K, K), broadcast where it is used

    def _given(self, **given: Tensor | None) -> tuple[str, Tensor]:
        """The name and the matrix of these that is not None."""
        op, found = type(self).__name__, {name: m for name, m in given.items() if m is not None}
        if len(found) != 1:
            raise ValueError(f"[{op}] Exactly one of covariance_matrix or precision_matrix or scale_tril may be "
                             f"specified; got {list(found)}")
        ((name, matrix),) = found.items()
        if matrix.ndim < 2:
            raise ValueError(f"[{op}] {name} must be at least two-dimensional, with optional leading batch dimensions; "
                             f"got {matrix.layout}")
        return name, matrix

    def _factorize(self, name: str, matrix: Tensor) -> None:
        if name == "precision_matrix":                  # its Cholesky factor with both orders reversed, inverted
            turned = cholesky(matrix.flip(-2, -1)).flip(-2, -1).mT
            matrix = solved(turned, eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device))
        self._unbroadcasted_scale_tril = cholesky(matrix) if name == "covariance_matrix" else matrix

    @computed
    def scale_tril(self) -> Tensor:
        """The lower Cholesky factor of the covariance"""
        k = self._event_shape[0]
        return self._unbroadcasted_scale_tril.expand(*self._batch_shape, k, k)

    @computed
    def covariance_matrix(self) -> Tensor:
        """The covariance"""
        return self.scale_tril @ self.scale_tril.mT

    @computed
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance"""
        low = self.scale_tril
        inverse = solved(low, eye(low.shape[-1], dtype=low.dtype, device=low.device))
        return inverse.mT @ inverse

    def _half_log_det(self) -> Tensor:
        return log(self._unbroadcasted_scale_tril.diagonal(dim1=-2, dim2=-1)).sum(-1)


def solved(low: Tensor, x: Tensor) -> Tensor:
    """low^-1 x, of a lower triangle and a matrix; their batches are broadcast."""
    batch = np.broadcast_shapes(tuple(low.shape[:-2]), tuple(x.shape[:-2]))
    return solve_triangular(low.expand(*batch, *low.shape[-2:]), x.expand(*batch, *x.shape[-2:]), upper=False)


class MultivariateNormal(Centred, Factored):
    """N(loc, covariance_matrix), a normal vector: loc (*, K), and one of three matrices (*, K, K): the covariance, its
    inverse `precision_matrix`, or its lower Cholesky factor `scale_tril`, with which it computes.

        >>> d = distributions.MultivariateNormal(minigrad.zeros(2), minigrad.eye(2))
        >>> d.log_prob(minigrad.zeros(2)).item()                                       # -log(2 pi)
        -1.8378770351409912
    """

    arg_constraints = {"loc": constraints.real_vector, "covariance_matrix": constraints.positive_definite,
                       "precision_matrix": constraints.positive_definite, "scale_tril": constraints.lower_cholesky}
    support = constraints.real_vector                   # type: ignore[assignment]
    has_rsample = True

    def __init__(self, loc: Tensor, covariance_matrix: Tensor | None = None, precision_matrix: Tensor | None = None,
                 scale_tril: Tensor | None = None, validate_args: bool | None = None) -> None:
        if loc.ndim < 1:
            raise ValueError(f"[MultivariateNormal] loc must be at least one-dimensional; got {loc.layout}")
        name, matrix = self._given(covariance_matrix=covariance_matrix, precision_matrix=precision_matrix,
                                   scale_tril=scale_tril)
        k = loc.shape[-1]
        batch = np.broadcast_shapes(tuple(matrix.shape[:-2]), tuple(loc.shape[:-1]))
        self.loc = loc.expand(*batch, k)
        vars(self)[name] = matrix.expand(*batch, k, k)
        super().__init__(batch, (k,), validate_args)
        self._factorize(name, matrix)

    def expand(self, batch_shape: Sequence[int]) -> Any:
        """See `Distribution.expand`."""
        made = MultivariateNormal(self.loc.expand(*batch_shape, *self._event_shape),
                                  scale_tril=self._unbroadcasted_scale_tril, validate_args=False)
        made._validate_args = self._validate_args
        return made

    @property
    def variance(self) -> Tensor:
        """The diagonal of the covariance"""
        root = self._root()
        return (root * root).sum(-1).expand(*self._batch_shape, *self._event_shape)

    def _root(self) -> Tensor:
        """A matrix A with covariance = A A^T"""
        return self._unbroadcasted_scale_tril

    def _squares(self, x: Tensor) -> Tensor:
        """x^T covariance^-1 x of each column x: (*, K, n) -> (*, n)"""
        z = solved(self._unbroadcasted_scale_tril, x)
        return (z * z).sum(-2)

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """loc + A z, with covariance = A A^T"""
        root = self._root()
        z = normal_like((*sample_shape, *self._batch_shape, root.shape[-1]), self.loc)
        return self.loc + (root @ z.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """-((x - loc)^T covariance^-1 (x - loc) + K log(2 pi) + log(det(covariance))) / 2"""
        d = self._checked(value) - self.loc
        squares = self._squares(d.unsqueeze(-1)).squeeze(-1)
        return -0.5 * (squares + self._event_shape[0] * math.log(2 * math.pi)) - self._half_log_det()

    def entropy(self) -> Tensor:
        """(K (1 + log(2 pi)) + log(det(covariance))) / 2"""
        found = 0.5 * self._event_shape[0] * (1 + math.log(2 * math.pi)) + self._half_log_det()
        return found.expand(*self._batch_shape)
