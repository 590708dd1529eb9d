"""Distributions of matrices, and of vectors with a covariance of low rank."""
from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.modes import mode as current
from ..core.modes import no_grad
from ..core.tensor import Size, Tensor
from ..ops.arrange import pad
from ..ops.creation import arange, eye
from ..ops.formula import clamp_min
from ..ops.join import cat
from ..ops.linalg import cholesky
from ..ops.math import digamma, gt, le, lgamma, log, where
from . import constraints
from .continuous import Beta, Factored, MultivariateNormal, normal_like, solved
from .distribution import Distribution, Parametric, broadcast_all, computed
from .gamma import standard_gamma

_EMPTY = Size(())


class LowRankMultivariateNormal(MultivariateNormal):
    """N(loc, W W^T + diagonal of D), a normal vector: loc (*, K), W = `cov_factor` (*, K, M), D = `cov_diag` (*, K). It
    computes with (M, M) matrices (Woodbury 1950); the (K, K) ones are made if they are asked for. ValueError for
    other shapes.

        >>> one = minigrad.ones(2)
        >>> distributions.LowRankMultivariateNormal(one, one.reshape(2, 1), one).covariance_matrix.tolist()
        [[2.0, 1.0], [1.0, 2.0]]
    """

    arg_constraints = {"loc": constraints.real_vector, "cov_factor": constraints.independent(constraints.real, 2),
                       "cov_diag": constraints.independent(constraints.positive, 1)}
    expand = Parametric.expand                          # type: ignore[assignment]

    def __init__(self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor, validate_args: bool | None = None) -> None:
        k = loc.shape[-1:]
        if not (k and cov_factor.shape[-2:-1] == k == cov_diag.shape[-1:]):
            raise ValueError("[LowRankMultivariateNormal] takes loc (*, K), cov_factor (*, K, M) and cov_diag (*, K); "
                             f"got {loc.layout}, {cov_factor.layout} and {cov_diag.layout}")
        batch = np.broadcast_shapes(*[tuple(s) for s in (loc.shape[:-1], cov_factor.shape[:-2], cov_diag.shape[:-1])])
        self.loc, self.cov_diag = loc.expand(*batch, *k), cov_diag.expand(*batch, *k)
        self.cov_factor = cov_factor.expand(*batch, *cov_factor.shape[-2:])
        Distribution.__init__(self, batch, k, validate_args)
        self._scaled = (cov_factor / cov_diag.unsqueeze(-1)).mT                         # W^T D^-1
        small = self._scaled @ cov_factor
        self._small = cholesky(small + eye(small.shape[-1], dtype=small.dtype, device=small.device))

    @computed
    def covariance_matrix(self) -> Tensor:
        """W W^T + D"""
        return self.cov_factor @ self.cov_factor.mT + self.cov_diag.diag_embed()

    @property
    def _unbroadcasted_scale_tril(self) -> Tensor:      # type: ignore[override]
        return cholesky(self.covariance_matrix)

    def _half_log_det(self) -> Tensor:
        """det(W W^T + D) = det(1 + W^T D^-1 W) det(D)"""
        return log(self._small.diagonal(dim1=-2, dim2=-1)).sum(-1) + 0.5 * log(self.cov_diag).sum(-1)

    def _root(self) -> Tensor:
        return cat([self.cov_factor, self.cov_diag.sqrt().diag_embed()], -1)

    def _squares(self, x: Tensor) -> Tensor:
        """x^T (W W^T + D)^-1 x = x^T D^-1 x - |L^-1 W^T D^-1 x|^2,    L L^T = 1 + W^T D^-1 W"""
        z = solved(self._small, self._scaled @ x)
        return (x * x / self.cov_diag.unsqueeze(-1)).sum(-2) - (z * z).sum(-2)

    @property
    def variance(self) -> Tensor:
        """The diagonal of the covariance"""
        return (self.cov_factor * self.cov_factor).sum(-1) + self.cov_diag

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """loc + W z + sqrt(D) z'"""
        shape = self._extended_shape(sample_shape)
        z = normal_like((*shape[:-1], self.cov_factor.shape[-1]), self.loc)
        wide = (self.cov_factor @ z.unsqueeze(-1)).squeeze(-1)
        return self.loc + wide + self.cov_diag.sqrt() * normal_like(shape, self.loc)


class Wishart(Factored):
    """The Wishart distribution of positive definite matrices (K, K): X = sum of z z^T of `df` vectors z from N(0, V),
    for df > K - 1 that need not be whole. V is one of the three matrices of `MultivariateNormal`.

        >>> distributions.Wishart(3.0, minigrad.eye(2)).mean.tolist()
        [[3.0, 0.0], [0.0, 3.0]]
    """

    arg_constraints = {"df": constraints.dependent, "covariance_matrix": constraints.positive_definite,
                       "precision_matrix": constraints.positive_definite, "scale_tril": constraints.lower_cholesky}
    support = constraints.positive_definite             # type: ignore[assignment]
    has_rsample = True

    def __init__(self, df: Any, covariance_matrix: Tensor | None = None, precision_matrix: Tensor | None = None,
                 scale_tril: Tensor | None = None, validate_args: bool | None = None) -> None:
        name, matrix = self._given(covariance_matrix=covariance_matrix, precision_matrix=precision_matrix,
                                   scale_tril=scale_tril)
        k = matrix.shape[-1]
        self.df = broadcast_all(df, matrix[..., 0, 0])[0].to(matrix.dtype)
        vars(self)[name] = matrix.expand(*self.df.shape, k, k)
        super().__init__(self.df.shape, (k, k), validate_args)
        if current.recorder is None and bool(le(self.df.detach(), k - 1).any()):
            raise ValueError(f"[Wishart] df must be greater than {k - 1}, one less than the size of the matrix; "
                             f"got {self.df}")
        self._factorize(name, matrix)

    def expand(self, batch_shape: Sequence[int]) -> Wishart:
        """See `Distribution.expand`."""
        made = Wishart(self.df.expand(*batch_shape), scale_tril=self._unbroadcasted_scale_tril, validate_args=False)
        made._validate_args = self._validate_args
        return made

    @property
    def mean(self) -> Tensor:
        """df V"""
        return self.df[..., None, None] * self.covariance_matrix

    @property
    def mode(self) -> Tensor:
        """(df - K - 1) V, nan where df <= K + 1"""
        more = self.df - self._event_shape[0] - 1
        return where(gt(more, 0), more, math.nan)[..., None, None] * self.covariance_matrix

    @property
    def variance(self) -> Tensor:
        """df (V_ij^2 + V_ii V_jj)"""
        v = self.covariance_matrix
        own = v.diagonal(dim1=-2, dim2=-1)
        return self.df[..., None, None] * (v * v + own.unsqueeze(-1) * own.unsqueeze(-2))

    def _counted(self) -> Tensor:
        """(df - i) / 2 of each dimension i"""
        return 0.5 * (self.df.unsqueeze(-1) - arange(self._event_shape[0], dtype=self.df.dtype, device=self.df.device))

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """L A A^T L^T, V = L L^T, A_ii^2 from Chi2(df - i), A_ij from N(0, 1) below the diagonal (Bartlett 1933)"""
        shape = self._extended_shape(sample_shape)
        own = (2 * standard_gamma(self._counted().expand(*shape[:-1]))).sqrt()
        root = self._unbroadcasted_scale_tril @ (normal_like(shape, self.df).tril(-1) + own.diag_embed())
        return root @ root.mT

    def _log_prob(self, log_det: Tensor, trace: Tensor) -> Tensor:
        """That of a matrix X with this log(det(X)) and tr(V^-1 X)"""
        k = self._event_shape[0]
        whole = lgamma(self._counted()).sum(-1) + k * (k - 1) / 4 * math.log(math.pi)
        size = self.df * (0.5 * k * math.log(2) + self._half_log_det()) + whole
        return 0.5 * ((self.df - k - 1) * log_det - trace) - size

    def log_prob(self, value: Tensor) -> Tensor:
        """((df - K - 1) log(det(X)) - tr(V^-1 X) - df log(det(2 V))) / 2 - log(Gamma_K(df / 2))"""
        root = cholesky(self._checked(value))
        z = solved(self._unbroadcasted_scale_tril, root)
        return self._log_prob(2 * log(root.diagonal(dim1=-2, dim2=-1)).sum(-1), (z * z).sum((-2, -1)))

    def mean_log_prob(self, of: Wishart) -> Tensor:
        """E[log_prob(X)], X from `of`; E[log(det(X))] = log(det(2 V)) + sum(digamma((df - i) / 2))"""
        k, z = self._event_shape[0], solved(self._unbroadcasted_scale_tril, of._unbroadcasted_scale_tril)
        log_det = digamma(of._counted()).sum(-1) + k * math.log(2) + 2 * of._half_log_det()
        return self._log_prob(log_det, of.df * (z * z).sum((-2, -1)))

    def entropy(self) -> Tensor:
        """-E[log_prob(X)]"""
        return -self.mean_log_prob(self)


class LKJCholesky(Distribution):
    """The Cholesky factors L of correlation matrices C = L L^T (dim, dim) with the density det(C)^(concentration - 1):
    1 is uniform (Lewandowski, Kurowicka and Joe 2009). The factor's own is the product of its diagonal numbers
    L_ii^(2 (concentration - 1) + dim - i). ValueError for a dim below 2.

        >>> distributions.LKJCholesky(3, 1.0).sample().diagonal()[0].item()
        1.0
    """

    arg_constraints = {"concentration": constraints.positive}
    support = constraints.corr_cholesky                 # type: ignore[assignment]

    def __init__(self, dim: int, concentration: Any = 1.0, validate_args: bool | None = None) -> None:
        self.dim = operator.index(dim)
        if dim < 2:
            raise ValueError(f"[LKJCholesky] dim must be an integer of at least 2; got {dim}")
        (self.concentration,) = broadcast_all(concentration)
        super().__init__(self.concentration.shape, (dim, dim), validate_args)

    def expand(self, batch_shape: Sequence[int]) -> LKJCholesky:
        """See `Distribution.expand`."""
        made = LKJCholesky(self.dim, self.concentration.expand(*batch_shape), False)
        made._validate_args = self._validate_args
        return made

    def _rows(self) -> tuple[Tensor, Tensor]:
        """The indices i of the rows after the first, and concentration + (dim - 1 - i) / 2"""
        one = self.concentration.unsqueeze(-1)
        i = arange(1, self.dim, dtype=one.dtype, device=one.device)
        return i, one + 0.5 * (self.dim - 1 - i)

    def sample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """Row i: a direction, times a length whose square is from Beta(i / 2, concentration + (dim - 1 - i) / 2), and
        what is left to 1"""
        with no_grad():
            i, rest = self._rows()
            square = Beta(0.5 * i, rest, False).sample(sample_shape)
            z = normal_like((*square.shape, self.dim - 1), square).tril()
            below = square.sqrt().unsqueeze(-1) * z / z.norm(dim=-1, keepdim=True)
            left = pad(clamp_min(1 - (below * below).sum(-1), 0.0).sqrt(), (1, 0), value=1.0)
            return pad(below, (0, 1, 1, 0)) + left.diag_embed()

    def log_prob(self, value: Tensor) -> Tensor:
        """sum((2 (concentration - 1) + dim - 1 - i) log(L_ii)), minus the logarithm of its integral over the balls of
        the rows: pi^(i / 2) Gamma(concentration + (dim - 1 - i) / 2) / Gamma(concentration + (dim - 1) / 2) each"""
        i, rest = self._rows()
        own = log(self._checked(value).diagonal(dim1=-2, dim2=-1)[..., 1:])
        return (2 * (rest - 1) * own - 0.5 * math.log(math.pi) * i - lgamma(rest) + lgamma(rest + 0.5 * i)).sum(-1)
