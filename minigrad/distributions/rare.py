"""Distributions of numbers that few programs use. In the formulas u is drawn from U(0, 1)."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..core.half import finfo
from ..core.tensor import Size, Tensor
from ..ops.formula import clamp, clamp_min, xlogy
from ..ops.math import abs, cos, digamma, exp, expm1, ge, gt, lgamma, log, log1p, lt, where
from ..ops.special import i0e, i1e
from . import constraints
from .continuous import EULER, Centred, uniform_like
from .discrete import Binary, counts_on_host
from .distribution import Parametric, broadcast_all
from .gamma import standard_gamma

_EMPTY = Size(())


class Kumaraswamy(Parametric):
    """Numbers between 0 and 1 with P(X <= x) = 1 - (1 - x^a)^b, a and b the two concentrations (Kumaraswamy 1980).

        >>> distributions.Kumaraswamy(2.0, 1.0).cdf(minigrad.tensor(0.5)).item()
        0.25
    """

    arg_constraints = {"concentration1": constraints.positive, "concentration0": constraints.positive}
    support = constraints.unit_interval                 # type: ignore[assignment]
    has_rsample = True

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None) -> None:
        self.concentration1, self.concentration0 = broadcast_all(concentration1, concentration0)
        super().__init__(self.concentration1.shape, validate_args=validate_args)

    def _moment(self, n: int) -> Tensor:
        """E[x^n] = b B(1 + n / a, b)"""
        m, b = 1 + n / self.concentration1, self.concentration0
        return b * exp(lgamma(m) + lgamma(b) - lgamma(m + b))

    @property
    def mean(self) -> Tensor:
        """b B(1 + 1 / a, b)"""
        return self._moment(1)

    @property
    def mode(self) -> Tensor:
        """((a - 1) / (a b - 1))^(1 / a), nan where a or b is below 1"""
        a, b = self.concentration1, self.concentration0
        inside = ge(a, 1) & ge(b, 1)
        return where(inside, ((a - 1) / (a * b - 1)) ** (1 / a), math.nan)

    @property
    def variance(self) -> Tensor:
        """b B(1 + 2 / a, b) - mean^2"""
        return self._moment(2) - self._moment(1) ** 2

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """(1 - u^(1 / b))^(1 / a)"""
        u = uniform_like(self._extended_shape(sample_shape), self.concentration1)
        return (-expm1(log(u) / self.concentration0)) ** (1 / self.concentration1)

    def log_prob(self, value: Tensor) -> Tensor:
        """log(a b) + (a - 1) log(x) + (b - 1) log(1 - x^a)"""
        x, a, b = self._checked(value), self.concentration1, self.concentration0
        return log(a * b) + xlogy(a - 1, x) + xlogy(b - 1, -expm1(a * log(x)))

    def cdf(self, value: Tensor) -> Tensor:
        """1 - (1 - x^a)^b"""
        return -expm1(self.concentration0 * log1p(-self._checked(value) ** self.concentration1))

    def icdf(self, value: Tensor) -> Tensor:
        """(1 - (1 - p)^(1 / b))^(1 / a)"""
        return (-expm1(log1p(-value) / self.concentration0)) ** (1 / self.concentration1)

    def entropy(self) -> Tensor:
        """1 - 1 / b + (1 - 1 / a) (digamma(b + 1) + 0.5772) - log(a b)"""
        a, b = self.concentration1, self.concentration0
        return 1 - 1 / b + (1 - 1 / a) * (digamma(b + 1) + EULER) - log(a * b)


class VonMises(Centred, Parametric):
    """Angles around `loc`, the direction of the mean, of density e^(k cos(x - loc)) / (2 pi I_0(k)), k = concentration.

        >>> distributions.VonMises(0.0, 1.0).variance.item()                           # 1 - I_1(1) / I_0(1)
        0.5536100268363953
    """

    arg_constraints = {"loc": constraints.real, "concentration": constraints.positive}
    support = constraints.real                          # type: ignore[assignment]

    def __init__(self, loc: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.loc, self.concentration = broadcast_all(loc, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def variance(self) -> Tensor:
        """1 - E[cos(x - loc)] = 1 - I_1(concentration) / I_0(concentration), which is called circular"""
        return 1 - i1e(self.concentration) / i0e(self.concentration)

    def sample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """Angles from -pi to pi, drawn by NumPy"""
        shape = self._extended_shape(sample_shape)
        return counts_on_host("vonmises", self.loc.expand(*shape), self.concentration.expand(*shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """concentration cos(x - loc) - log(2 pi I_0(concentration))"""
        k = self.concentration
        return k * (cos(self._checked(value) - self.loc) - 1) - log(2 * math.pi * i0e(k))

    def entropy(self) -> Tensor:
        """log(2 pi I_0(concentration)) - concentration (1 - variance)"""
        return log(2 * math.pi * i0e(self.concentration)) + self.concentration * self.variance


class FisherSnedecor(Parametric):
    """The F distribution: (c1 / df1) / (c2 / df2) for c1 and c2 from Chi2(df1) and Chi2(df2)."""

    arg_constraints = {"df1": constraints.positive, "df2": constraints.positive}
    support = constraints.positive                      # type: ignore[assignment]
    has_rsample = True

    def __init__(self, df1: Any, df2: Any, validate_args: bool | None = None) -> None:
        self.df1, self.df2 = broadcast_all(df1, df2)
        super().__init__(self.df1.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """df2 / (df2 - 2), nan where df2 <= 2"""
        return where(gt(self.df2, 2), self.df2 / (self.df2 - 2), math.nan)

    @property
    def mode(self) -> Tensor:
        """(df1 - 2) / df1 df2 / (df2 + 2), nan where df1 <= 2"""
        return where(gt(self.df1, 2), (self.df1 - 2) / self.df1 * self.df2 / (self.df2 + 2), math.nan)

    @property
    def variance(self) -> Tensor:
        """2 mean^2 (df1 + df2 - 2) / (df1 (df2 - 4)), nan where df2 <= 4"""
        n, m = self.df1, self.df2
        return where(gt(m, 4), 2 * (m / (m - 2)) ** 2 * (n + m - 2) / (n * (m - 4)), math.nan)

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """(c1 / df1) / (c2 / df2)"""
        shape = self._extended_shape(sample_shape)
        above, below = [standard_gamma((0.5 * df).expand(*shape)) / df for df in (self.df1, self.df2)]
        tiny = float(finfo(above.dtype).tiny)
        return clamp_min(above / clamp_min(below, tiny), tiny)

    def log_prob(self, value: Tensor) -> Tensor:
        """n log(r) + (n - 1) log(x) - (n + m) log(1 + r x) - log(B(n, m)), n = df1 / 2, m = df2 / 2, r = df1 / df2"""
        x, n, m, ratio = self._checked(value), 0.5 * self.df1, 0.5 * self.df2, self.df1 / self.df2
        beta = lgamma(n) + lgamma(m) - lgamma(n + m)
        return n * log(ratio) + (n - 1) * log(x) - (n + m) * log1p(ratio * x) - beta


class GeneralizedPareto(Parametric):
    """The generalized Pareto distribution (Pickands 1975): P(X > x) = (1 + k (x - loc) / scale)^(-1 / k) from `loc` on,
    k the concentration, and e^(-(x - loc) / scale) for k = 0; for k < 0 up to loc - scale / k.

        >>> distributions.GeneralizedPareto(0.0, 1.0, 0.5).mean.item()
        2.0
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive, "concentration": constraints.real}
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale, self.concentration = broadcast_all(loc, scale, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def _over(self, function: Any, z: Tensor, a: float, b: float) -> Tensor:
        """function(k z) / k for log1p or expm1; z (1 + a x + b x^2) for a small x = k z, where digits would cancel"""
        k, most = self.concentration, finfo(z.dtype)
        x = k * clamp(z, -float(most.max), float(most.max))             # 0 where k is 0 and z infinite
        small = lt(abs(x), float(most.eps) ** (1 / 3))
        x, safe = where(small, x, 0.0), where(small, 1.0, k)
        return where(small, z * (1 + x * (a + b * x)), function(safe * z) / safe)

    def _hazard(self, value: Tensor) -> Tensor:
        """-log(P(X > x))"""
        return self._over(log1p, (self._checked(value) - self.loc) / self.scale, -1 / 2, 1 / 3)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """loc <= x, and x <= loc - scale / k where k < 0"""
        k = self.concentration
        return constraints.interval(self.loc, where(lt(k, 0), self.loc - self.scale / k, math.inf))

    @property
    def mean(self) -> Tensor:
        """loc + scale / (1 - k), inf where k >= 1"""
        return self.loc + where(lt(self.concentration, 1), self.scale / (1 - self.concentration), math.inf)

    @property
    def mode(self) -> Tensor:
        """loc"""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """scale^2 / ((1 - k)^2 (1 - 2 k)), inf where k >= 1/2"""
        k = self.concentration
        return where(lt(k, 0.5), self.scale**2 / ((1 - k) ** 2 * (1 - 2 * k)), math.inf)

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """loc + scale (u^-k - 1) / k"""
        u = uniform_like(self._extended_shape(sample_shape), self.loc)
        return self.loc + self.scale * self._over(expm1, -log(u), 1 / 2, 1 / 6)

    def log_prob(self, value: Tensor) -> Tensor:
        """-(1 + 1 / k) log(1 + k (x - loc) / scale) - log(scale)"""
        return -(1 + self.concentration) * self._hazard(value) - log(self.scale)

    def cdf(self, value: Tensor) -> Tensor:
        """1 - (1 + k (x - loc) / scale)^(-1 / k)"""
        return -expm1(-self._hazard(value))

    def icdf(self, value: Tensor) -> Tensor:
        """loc + scale ((1 - p)^-k - 1) / k"""
        return self.loc + self.scale * self._over(expm1, -log1p(-value), 1 / 2, 1 / 6)

    def entropy(self) -> Tensor:
        """log(scale) + k + 1"""
        return log(self.scale) + self.concentration + 1


class ContinuousBernoulli(Binary):
    """Numbers between 0 and 1 with a density proportional to probs^x (1 - probs)^(1 - x) (Loaiza-Ganem and Cunningham
    2019): e^(t x - A(t)), t = `logits`, A(t) = log((e^t - 1) / t). `lims` is accepted for PyTorch's signature, without
    effect: where cancellation would cost digits, series take over by the size of t.

        >>> distributions.ContinuousBernoulli(0.5).mean.item()
        0.5
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval                 # type: ignore[assignment]
    has_rsample = True

    def __init__(self, probs: Any = None, logits: Any = None, lims: tuple[float, float] = (0.499, 0.501),
                 validate_args: bool | None = None) -> None:
        super().__init__(probs, logits, validate_args)

    def _small(self) -> Tensor:
        """Where h = t / 2 is small."""
        return lt(abs(self.logits), 0.6 if self.logits.dtype.itemsize < 8 else 0.06)

    def _by_size(self, near: Any, far: Any) -> Tensor:
        """near(h^2) for small h = t / 2, else far(|h|)"""
        h, small = 0.5 * self.logits, self._small()
        return where(small, near(where(small, h, 0.0) ** 2), far(where(small, 1.0, abs(h))))

    def log_normalizer(self) -> Tensor:
        """A(t) = h + log(sinh(h) / h), h = t / 2"""
        return 0.5 * self.logits + self._by_size(lambda s: s * (1 / 6 - s * (1 / 180 - s / 2835)),
                                                 lambda h: h + log1p(-exp(-2 * h)) - log(2 * h))

    @property
    def mean(self) -> Tensor:
        """A'(t) = (1 + coth(h) - 1 / h) / 2, h = t / 2"""
        return 0.5 + self.logits * self._by_size(lambda s: 1 / 12 - s * (1 / 180 - s / 1890),
                                                 lambda h: (1 / h.tanh() - 1 / h) / (4 * h))

    @property
    def variance(self) -> Tensor:
        """A''(t) = (1 / h^2 - 1 / sinh(h)^2) / 4, h = t / 2"""
        return self._by_size(lambda s: 1 / 12 - s * (1 / 60 - s / 378),
                             lambda h: 0.25 / (h * h) - exp(-2 * h) / expm1(-2 * h) ** 2)

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """The quantile u"""
        return self.icdf(uniform_like(self._extended_shape(sample_shape), self._param))

    def log_prob(self, value: Tensor) -> Tensor:
        """t x - A(t). Of a large t only |t| times the distance to the likelier end is left."""
        x, t = self._checked(value), self.logits
        small, far = self._small(), where(gt(t, 0), 1 - x, x)
        rest = self._by_size(lambda s: s * (s * (1 / 180 - s / 2835) - 1 / 6),
                             lambda h: log(2 * h) - log1p(-exp(-2 * h)))
        return rest + where(small, where(small, t, 0.0) * (x - 0.5), -abs(t) * far)

    def _mirrored(self, value: Tensor, near: Any, far: Any) -> Tensor:
        """far(value, t), or near(value, t) for small t. For t > 0 it is 1 minus that of 1 - value and -t, so that no
        exponential is large."""
        negative = lt(self.logits, 0)
        x, t = where(negative, value, 1 - value), where(negative, self.logits, -self.logits)
        small = gt(t, -float(finfo(t.dtype).eps) ** (1 / 3))
        found = where(small, near(x, where(small, t, 0.0)), far(x, where(small, -1.0, t)))
        return where(negative, found, 1 - found)

    def cdf(self, value: Tensor) -> Tensor:
        """(e^(t x) - 1) / (e^t - 1), between 0 and 1"""
        return self._mirrored(self._checked(value).clamp(0, 1),
                              lambda x, t: x * (1 - t * (1 - x) * (0.5 - t * (1 - 2 * x) / 12)),
                              lambda x, t: expm1(t * x) / expm1(t))

    def icdf(self, value: Tensor) -> Tensor:
        """log(1 + p (e^t - 1)) / t"""
        return self._mirrored(value, lambda p, t: p * (1 + t * (1 - p) * (0.5 + t * (1 - 2 * p) / 6)),
                              lambda p, t: log1p(p * expm1(t)) / t)

    def entropy(self) -> Tensor:
        """A(t) - t A'(t)"""
        return self._by_size(lambda s: s * (s * (1 / 60 - s / 567) - 1 / 6), lambda h: 1 - 2 * h * exp(
            -2 * h) / -expm1(-2 * h) - log(2 * h) + log1p(-exp(-2 * h)))
