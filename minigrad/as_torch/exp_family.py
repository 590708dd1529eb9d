"""`ExponentialFamily`: the entropy of a distribution from its log normalizer, by gradients."""
from __future__ import annotations

from abc import ABCMeta
from typing import Any

from .. import distributions
from ..autograd import grad
from ..core.modes import enable_grad
from ..distributions import Distribution


class ExponentialFamily(Distribution, metaclass=ABCMeta):
    """A distribution of the density exp(t(x) . theta - F(theta) + k(x)). A class gives `_natural_params` (a tuple of
    tensors, theta), `_log_normalizer(*theta)` (F) and `_mean_carrier_measure` (the mean of k). Those that minigrad has
    are known as instances; they compute their entropy by formulas."""

    @property
    def _natural_params(self) -> tuple[Any, ...]:
        raise NotImplementedError

    def _log_normalizer(self, *natural_params: Any) -> Any:
        raise NotImplementedError

    @property
    def _mean_carrier_measure(self) -> float:
        raise NotImplementedError

    def entropy(self) -> Any:
        """F(theta) - theta . dF/dtheta - the mean of k."""
        theta = [p.detach().requires_grad_() for p in self._natural_params]
        with enable_grad():
            normalizer = self._log_normalizer(*theta)
            slopes = grad(normalizer.sum(), theta, create_graph=True)
        result = normalizer - self._mean_carrier_measure
        for p, slope in zip(theta, slopes, strict=True):
            result = result - (p * slope).reshape(*self.batch_shape, -1).sum(-1)
        return result


for _name in "Bernoulli Beta ContinuousBernoulli Dirichlet Exponential Gamma Normal Poisson Wishart".split():
    ExponentialFamily.register(getattr(distributions, _name))
