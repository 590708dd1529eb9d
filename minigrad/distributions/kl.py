"""`kl_divergence`: KL(p || q) = E_p[log p - log q] (Kullback and Leibler 1951), in closed form, by pairs of classes."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.tensor import Tensor
from ..ops.activation import softplus
from ..ops.formula import xlogy
from ..ops.math import digamma, eq, erf, exp, gt, lgamma, log, log1p, lt, where
from .continuous import (
    EULER,
    Beta,
    Cauchy,
    Dirichlet,
    Exponential,
    Gamma,
    Gumbel,
    HalfCauchy,
    HalfNormal,
    Laplace,
    MultivariateNormal,
    Normal,
    Uniform,
)
from .discrete import Bernoulli, Categorical, Geometric, OneHotCategorical, Poisson
from .distribution import Distribution, Independent, sum_rightmost, zeros_with
from .further import Binomial, Pareto
from .matrix import Wishart
from .rare import ContinuousBernoulli
from .transforms import TransformedDistribution

_known: dict[tuple[type, type], Callable[[Any, Any], Tensor]] = {}


def register_kl(type_p: type[Distribution], type_q: type[Distribution]) -> Callable[[Callable], Callable]:
    """Decorates a function of two distributions that `kl_divergence` shall use for these classes and their subclasses
    (bases of one's own that are mixed into distributions, too). TypeError for what is no class.

        @register_kl(Normal, MyNormal)
        def _(p, q): ...
    """
    for kind in (type_p, type_q):
        if not isinstance(kind, type):
            raise TypeError(f"[register_kl] Expected a class of distributions; got {kind}")

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


_known[HalfCauchy, HalfCauchy] = lambda p, q: _cauchy(p._whole, q._whole)


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
    d = (q.loc - p.loc).unsqueeze(-1)
    return (q._half_log_det() - p._half_log_det()
            + 0.5 * (q._squares(p._root()).sum(-1) + q._squares(d).squeeze(-1) - p.event_shape[0]))


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


# E[log(x)] and E[e^(t (a - x))]
_LOG: dict[type, Callable[[Any], Tensor]] = {
    Beta: lambda p: digamma(p.concentration1) - digamma(p.concentration1 + p.concentration0),
    Exponential: lambda p: -EULER - log(p.rate),
    Gamma: lambda p: digamma(p.concentration) - log(p.rate),
    Pareto: lambda p: log(p.scale) + 1 / p.alpha,
    Uniform: lambda p: (xlogy(p.high, p.high) - xlogy(p.low, p.low)) / (p.high - p.low) - 1}
_EXP: dict[type, Callable[[Any, Tensor, Tensor], Tensor]] = {
    Exponential: lambda p, t, a: exp(t * a - log1p(t / p.rate)),
    Gamma: lambda p, t, a: exp(t * a - p.concentration * log1p(t / p.rate)),
    Normal: lambda p, t, a: exp(0.5 * (t * p.scale) ** 2 + t * (a - p.loc)),
    Uniform: lambda p, t, a: exp(t * (a - p.low)) * -(-t * (p.high - p.low)).expm1() / (t * (p.high - p.low))}


def _of_kind(table: dict[type, Any], p: Any) -> Any:
    return next(table[kind] for kind in type(p).__mro__ if kind in table)


def _expected(p: Any, q: Any) -> Tensor:
    """E_p[log q(x)], of moments of p."""
    if isinstance(q, Normal):
        d = (p.mean - q.loc) / q.scale
        return -0.5 * (p.variance / (q.scale * q.scale) + d * d) - log(q.scale) - 0.5 * math.log(2 * math.pi)
    if isinstance(q, Exponential):
        return log(q.rate) - q.rate * p.mean
    if isinstance(q, Gamma):
        a = q.concentration
        return a * log(q.rate) - lgamma(a) + (a - 1) * _of_kind(_LOG, p)(p) - q.rate * p.mean
    if isinstance(q, Gumbel):
        return (q.loc - p.mean) / q.scale - log(q.scale) - _of_kind(_EXP, p)(p, 1 / q.scale, q.loc)
    if isinstance(q, Pareto):
        return log(q.alpha) + q.alpha * log(q.scale) - (q.alpha + 1) * _LOG[Uniform](p)
    if isinstance(q, Beta):                             # p is Uniform, and 1 - x is so, too
        a, b = q.concentration1, q.concentration0
        other = _LOG[Uniform](Uniform(1 - p.high, 1 - p.low, validate_args=False))
        return (a - 1) * _LOG[Uniform](p) + (b - 1) * other - (lgamma(a) + lgamma(b) - lgamma(a + b))
    if isinstance(q, ContinuousBernoulli):
        return q.logits * p.mean - q.log_normalizer()
    return -log(q.high - q.low)                         # Uniform


def _reaches(p: Any, q: Any) -> Any:
    """Is a bounded p possible where q is not?"""
    low, high = (p.low, p.high) if isinstance(p, Uniform) else (0.0, 1.0)
    if isinstance(q, Beta | ContinuousBernoulli):
        return lt(p.low, 0) | gt(p.high, 1) if isinstance(p, Uniform) else False
    if isinstance(q, Uniform):
        return gt(q.low, low) | lt(q.high, high)
    if isinstance(q, Pareto):
        return lt(p.low, q.scale)
    return lt(low, 0) if isinstance(q, Exponential | Gamma) and isinstance(p, Uniform) else False


def _by_moments(p: Any, q: Any) -> Tensor:
    found, apart = -p.entropy() - _expected(p, q), _reaches(p, q)
    return found if apart is False else _gap(found, apart)


def _infinite(p: Any, q: Any) -> Tensor:
    """p is possible where q is not, whatever their parameters."""
    return zeros_with(np.broadcast_shapes(tuple(p.batch_shape), tuple(q.batch_shape)), p.mean) + math.inf


_ALL, _POSITIVE, _UNIT = (Normal, Laplace, Gumbel), (Exponential, Gamma), (Beta, ContinuousBernoulli)
for _kinds, _others, _rule in (
        ((*_POSITIVE, *_UNIT, Gumbel, Laplace, Pareto, Uniform), (Normal,), _by_moments),
        ((Beta, Exponential, Pareto, Uniform), (Gamma,), _by_moments),
        ((*_UNIT, Gamma, Pareto, Uniform), (Exponential,), _by_moments), ((*_EXP,), (Gumbel,), _by_moments),
        (_UNIT, (ContinuousBernoulli, Uniform), _by_moments), ((Uniform,), (*_UNIT, Pareto), _by_moments),
        (_ALL, (*_UNIT, *_POSITIVE, Pareto, Uniform), _infinite), (_POSITIVE, (*_UNIT, Pareto, Uniform), _infinite),
        ((Pareto,), (*_UNIT, Uniform), _infinite), (_UNIT, (Pareto,), _infinite),
        ((Poisson,), (Bernoulli, Binomial), _infinite)):
    for _p in _kinds:
        for _q in _others:
            _known[_p, _q] = _rule


@register_kl(Bernoulli, Poisson)
def _bernoulli_poisson(p: Bernoulli, q: Poisson) -> Tensor:
    return -p.entropy() - (p.probs * log(q.rate) - q.rate)


@register_kl(Wishart, Wishart)
def _wishart(p: Wishart, q: Wishart) -> Tensor:
    return p.mean_log_prob(p) - q.mean_log_prob(p)


@register_kl(Independent, Independent)
def _independent(p: Independent, q: Independent) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError("[kl_divergence] two Independent must have as many reinterpreted dimensions; got "
                                  f"{p.reinterpreted_batch_ndims} and {q.reinterpreted_batch_ndims}")
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p: TransformedDistribution, q: TransformedDistribution) -> Tensor:
    """The divergence does not change under the same transforms."""
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise NotImplementedError("[kl_divergence] two transformed distributions must have the same transforms")
    return kl_divergence(p.base_dist, q.base_dist)
