"""`kl_divergence`: KL(p || q) = E_p[log p - log q] (Kullback and Leibler 1951), in closed form, by pairs of classes."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..core.tensor import Tensor
from ..ops.activation import softplus
from ..ops.linalg import solve_triangular
from ..ops.math import digamma, eq, erf, exp, gt, lgamma, log, log1p, lt, where
from .continuous import (
    EULER,
    Beta,
    Cauchy,
    Dirichlet,
    Exponential,
    Gamma,
    Gumbel,
    HalfNormal,
    Laplace,
    MultivariateNormal,
    Normal,
    Uniform,
)
from .discrete import Bernoulli, Categorical, Geometric, OneHotCategorical, Poisson
from .distribution import Distribution, Independent, sum_rightmost
from .further import Binomial, Pareto
from .transforms import TransformedDistribution

_known: dict[tuple[type, type], Callable[[Any, Any], Tensor]] = {}


def register_kl(type_p: type[Distribution], type_q: type[Distribution]) -> Callable[[Callable], Callable]:
    """Decorates a function of two distributions that `kl_divergence` shall use for these classes and their subclasses.

        @register_kl(Normal, MyNormal)
        def _(p, q): ...
    """
    for kind in (type_p, type_q):
        if not (isinstance(kind, type) and issubclass(kind, Distribution)):
            raise TypeError(f"[register_kl] Expected a subclass of Distribution; got {kind}")

    def register(function: Callable) -> Callable:
        _known[type_p, type_q] = function
        return function
    return register


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """KL(p || q), of the shape of the batches. NotImplementedError for a pair of classes without a closed form here;
    `register_kl` adds one.

        >>> p, q = distributions.Normal(0.0, 1.0), distributions.Normal(1.0, 1.0)
        >>> distributions.kl_divergence(p, q).item()
        0.5
    """
    for a in type(p).__mro__:
        for b in type(q).__mro__:
            if (a, b) in _known:
                return _known[a, b](p, q)
    raise NotImplementedError(f"[kl_divergence] No KL(p || q) is implemented for p type {type(p).__name__} and q type "
                              f"{type(q).__name__}; add it with register_kl")


def _gap(value: Tensor, apart: Tensor) -> Tensor:
    """inf where p is possible and q is not."""
    return where(apart, math.inf, value)


@register_kl(Normal, Normal)
def _normal(p: Normal, q: Normal) -> Tensor:
    ratio = (p.scale / q.scale) ** 2
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale) ** 2 - 1 - log(ratio))


@register_kl(HalfNormal, HalfNormal)
def _half_normal(p: HalfNormal, q: HalfNormal) -> Tensor:
    ratio = (p.scale / q.scale) ** 2
    return 0.5 * (ratio - 1 - log(ratio))


@register_kl(Laplace, Laplace)
def _laplace(p: Laplace, q: Laplace) -> Tensor:
    ratio, distance = p.scale / q.scale, (p.loc - q.loc).abs()
    return -log(ratio) + distance / q.scale + ratio * exp(-distance / p.scale) - 1


@register_kl(Cauchy, Cauchy)
def _cauchy(p: Cauchy, q: Cauchy) -> Tensor:
    """Chyzak and Nielsen 2019, "A closed-form formula for the Kullback-Leibler divergence between Cauchy
    distributions", written so that it is 0 where p = q."""
    return log1p(((p.scale - q.scale) ** 2 + (p.loc - q.loc) ** 2) / (4 * p.scale * q.scale))


@register_kl(Gumbel, Gumbel)
def _gumbel(p: Gumbel, q: Gumbel) -> Tensor:
    ratio = p.scale / q.scale
    shift = (q.loc - p.loc) / q.scale
    return exp(shift + lgamma(1 + ratio)) - 1 - log(ratio) + EULER * (ratio - 1) - shift


@register_kl(Uniform, Uniform)
def _uniform(p: Uniform, q: Uniform) -> Tensor:
    return _gap(log((q.high - q.low) / (p.high - p.low)), gt(q.low, p.low) | lt(q.high, p.high))


@register_kl(Exponential, Exponential)
def _exponential(p: Exponential, q: Exponential) -> Tensor:
    ratio = q.rate / p.rate
    return ratio - 1 - log(ratio)


@register_kl(Gamma, Gamma)
def _gamma(p: Gamma, q: Gamma) -> Tensor:
    a, b = p.concentration, q.concentration
    return (b * log(p.rate / q.rate) + lgamma(b) - lgamma(a) + (a - b) * digamma(a) + a * (q.rate / p.rate) - a)


@register_kl(Beta, Beta)
def _beta(p: Beta, q: Beta) -> Tensor:
    return _dirichlet(p._dirichlet, q._dirichlet)


@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p: Dirichlet, q: Dirichlet) -> Tensor:
    a, b = p.concentration, q.concentration
    total = a.sum(-1)
    return (lgamma(total) - lgamma(b.sum(-1)) - (lgamma(a) - lgamma(b)).sum(-1)
            + ((a - b) * (digamma(a) - digamma(total).unsqueeze(-1))).sum(-1))


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate(p: MultivariateNormal, q: MultivariateNormal) -> Tensor:
    if p.event_shape != q.event_shape:
        raise ValueError("[kl_divergence] KL-divergence between two Multivariate Normals with different event shapes "
                         f"cannot be computed; got {tuple(p.event_shape)} and {tuple(q.event_shape)}")
    k, low, mine = p.event_shape[0], q._factor, p._factor
    d = q.loc - p.loc
    shape = (d[..., 0] + low[..., 0, 0] + mine[..., 0, 0]).shape
    low = low.expand(*shape, k, k)
    spread = solve_triangular(low, mine.expand(*shape, k, k), upper=False)
    moved = solve_triangular(low, d.expand(*shape, k).unsqueeze(-1), upper=False)
    return (q._half_log_det() - p._half_log_det()
            + 0.5 * ((spread * spread).sum((-2, -1)) + (moved * moved).sum((-2, -1)) - k))


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    one = p.probs * (softplus(-q.logits) - softplus(-p.logits))
    zero = (1 - p.probs) * (softplus(q.logits) - softplus(p.logits))
    one = where(eq(p.probs, 0), 0.0, _gap(one, eq(q.probs, 0)))
    return one + where(eq(p.probs, 1), 0.0, _gap(zero, eq(q.probs, 1)))


@register_kl(Categorical, Categorical)
def _categorical(p: Categorical, q: Categorical) -> Tensor:
    t = p.probs * (p.logits - q.logits)
    t = _gap(t, eq(q.probs, 0))
    return where(eq(p.probs, 0).expand(*t.shape), 0.0, t).sum(-1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    return _categorical(p, q)


@register_kl(Poisson, Poisson)
def _poisson(p: Poisson, q: Poisson) -> Tensor:
    return p.rate * (log(p.rate) - log(q.rate)) - (p.rate - q.rate)


@register_kl(Geometric, Geometric)
def _geometric(p: Geometric, q: Geometric) -> Tensor:
    return -p.entropy() - (-q.probs).log1p() / p.probs - q.logits


@register_kl(Binomial, Binomial)
def _binomial(p: Binomial, q: Binomial) -> Tensor:
    found = p.total_count * (p.probs * (p.logits - q.logits) + log1p(-p.probs) - log1p(-q.probs))
    return _gap(found, gt(p.total_count, q.total_count))


@register_kl(Pareto, Pareto)
def _pareto(p: Pareto, q: Pareto) -> Tensor:
    ratio = q.alpha / p.alpha
    return _gap(q.alpha * log(p.scale / q.scale) - log(ratio) + ratio - 1, lt(p.scale, q.scale))


@register_kl(Normal, Laplace)
def _normal_laplace(p: Normal, q: Laplace) -> Tensor:
    d = (p.loc - q.loc) / p.scale
    away = p.scale * (math.sqrt(2 / math.pi) * exp(-0.5 * d * d) + d * erf(d * math.sqrt(0.5)))
    return -p.entropy() + log(2 * q.scale) + away / q.scale


def _to_normal(p: Any, q: Normal) -> Tensor:
    """-entropy(p) - E_p[log q] asks for the moments of p alone."""
    d = (p.mean - q.loc) / q.scale
    away = 0.5 * (p.variance / (q.scale * q.scale) + d * d)
    return -p.entropy() + log(q.scale) + (0.5 * math.log(2 * math.pi)) + away


for _kind in (Beta, Exponential, Gamma, Gumbel, Laplace, Pareto, Uniform):
    _known[_kind, Normal] = _to_normal


@register_kl(Independent, Independent)
def _independent(p: Independent, q: Independent) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError("[kl_divergence] two Independent must have as many reinterpreted dimensions; got "
                                  f"{p.reinterpreted_batch_ndims} and {q.reinterpreted_batch_ndims}")
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p: TransformedDistribution, q: TransformedDistribution) -> Tensor:
    """The divergence does not change under the same transforms."""
    alike = len(p.transforms) == len(q.transforms) and all(
        a is b or type(a) is type(b) and _plain(a) == _plain(b)
        for a, b in zip(p.transforms, q.transforms, strict=True))
    if not alike or p.event_shape != q.event_shape:
        raise NotImplementedError("[kl_divergence] two transformed distributions must have the same transforms")
    return kl_divergence(p.base_dist, q.base_dist)


def _plain(transform: Any) -> dict[str, Any]:
    """What makes a transform the one it is: its numbers, or its tensors themselves."""
    return {k: id(v) if isinstance(v, Tensor) else v for k, v in vars(transform).items()
            if k in ("loc", "scale", "event_dim", "exponent", "parts")}
