"""Parametrizations: `weight_norm`, `spectral_norm` and `orthogonal`, by `parametrize.register_parametrization`."""
from __future__ import annotations

from typing import Any

from ...core.half import finfo
from ...core.modes import no_grad
from ...core.shape import axis_of
from ...core.tensor import Tensor
from ...ops.creation import eye, zeros, zeros_like
from ...ops.formula import allclose
from ...ops.join import cat
from ...ops.linalg import householder_product, matrix_exp, qr, solve
from ...ops.math import eq, sign, where
from ...ops.older import geqrf
from ...ops.random import randn
from ..module import Module
from ..norm import normalize
from .parametrize import register_parametrization
from .weights import as_matrix, first_singular_value, norm_except, power_iteration, rows_of, scaled

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]


class _WeightNorm(Module):
    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        """g v / |v|"""
        return scaled(weight_v, weight_g, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The size and the direction of a weight."""
        return norm_except(weight, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """The tensor as g v / |v| (Salimans and Kingma 2016): its size and its direction are `original0` and `original1` of
    `module.parametrizations.weight`. State dicts of `utils.weight_norm` can be loaded. Returns the module.

    There is a size for each index along `dim`, or one for the whole tensor with None.
    """
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)

    def older(_: Module, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if f"{prefix}{name}_g" in state_dict and f"{prefix}{name}_v" in state_dict:
            for i, end in enumerate("gv"):
                state_dict[f"{prefix}parametrizations.{name}.original{i}"] = state_dict.pop(f"{prefix}{name}_{end}")
            found = module.parametrizations[name]
            for i in range(2):
                key = f"{prefix}parametrizations.{name}.original{i}"
                state_dict[key] = state_dict[key].reshape(getattr(found, f"original{i}").shape)
    module.register_load_state_dict_pre_hook(older)
    return module


class _SpectralNorm(Module):
    def __init__(self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12) -> None:
        super().__init__()
        self.dim, self.eps = axis_of(dim, weight.ndim, "spectral_norm"), eps
        if n_power_iterations <= 0:
            raise ValueError("Expected n_power_iterations to be positive, but got "
                             f"n_power_iterations={n_power_iterations}")
        self.n_power_iterations = n_power_iterations
        if weight.ndim > 1:
            matrix = as_matrix(weight.detach(), self.dim)
            for name, size in zip(("_u", "_v"), matrix.shape, strict=True):
                self.register_buffer(name, normalize(matrix.new_empty((size,)).normal_(), dim=0, eps=eps))
            power_iteration(matrix.mT, self._v, self._u, 15, eps)       # u first, as in PyTorch's checkpoints

    def forward(self, weight: Tensor) -> Tensor:
        """The weight divided by its largest singular value"""
        if weight.ndim == 1:
            return normalize(weight, dim=0, eps=self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            power_iteration(matrix.mT, self._v, self._u, self.n_power_iterations, self.eps)
        return weight / first_singular_value(matrix, self._u, self._v)

    def right_inverse(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value


def _tensor_of(kind: str, module: Module, name: str) -> Tensor:
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"[{kind}] {type(module).__name__} has no parameter or buffer {name!r}")
    return weight


def spectral_norm(module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
                  dim: int | None = None) -> Module:
    """The tensor divided by its largest singular value, which power iterations find, `n_power_iterations` each time it
    is computed in training (Miyato et al. 2018). Returns the module. `dim` is the dimension of the rows."""
    weight = _tensor_of("spectral_norm", module, name)
    return register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, rows_of(module, dim), eps))


def _completed(q: Tensor, n: int) -> Tensor:
    """An orthogonal matrix (*, n, n) whose first columns span those of q."""
    if q.shape[-1] < n:
        q = cat([q, randn(*q.shape[:-1], n - q.shape[-1], dtype=q.dtype, device=q.device)], -1)
    else:
        one = eye(n, dtype=q.dtype, device=q.device).expand(*q.shape)
        if allclose(q.mT @ q, one, atol=10 * n * float(finfo(q.dtype).eps)):
            return q.clone()
    found = qr(q)
    return found.Q * sign(found.R.diagonal(dim1=-2, dim2=-1)).unsqueeze(-2)


class _Orthogonal(Module):
    def __init__(self, weight: Tensor, orthogonal_map: str, use_trivialization: bool) -> None:
        super().__init__()
        self.shape, self.orthogonal_map = weight.shape, orthogonal_map
        self.trivial = use_trivialization
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, X: Tensor) -> Tensor:
        """A matrix with orthonormal columns (or rows, if it has fewer of them)"""
        wide = X.shape[-2] < X.shape[-1]
        X = X.mT if wide else X
        n, k = X.shape[-2:]
        if self.orthogonal_map == "householder":
            a = X.tril(-1)
            Q = householder_product(a, 2.0 / (1.0 + (a * a).sum(-2)))
            Q = Q * sign(X.detach().diagonal(dim1=-2, dim2=-1)).unsqueeze(-2)       # -1 and 1: they do not train
        else:
            X = X.tril()
            if n != k:
                X = cat([X, zeros(*X.shape[:-1], n - k, dtype=X.dtype, device=X.device)], -1)
            A = X - X.mT
            one = eye(n, dtype=A.dtype, device=A.device)
            Q = matrix_exp(A) if self.orthogonal_map == "matrix_exp" else solve(one - 0.5 * A, one + 0.5 * A)
            Q = Q[..., :k]
        Q = self.base @ Q if self.trivial else Q
        return Q.mT if wide else Q

    def right_inverse(self, Q: Tensor) -> Tensor:
        """What gives Q, or the orthogonal matrix next to it"""
        if Q.shape != self.shape:
            raise ValueError(f"[orthogonal] expected a matrix of shape {tuple(self.shape)}; got {tuple(Q.shape)}")
        if not self.trivial and self.orthogonal_map != "householder":
            raise NotImplementedError("[orthogonal] assigning needs use_trivialization=True")
        with no_grad():
            wide = Q.shape[-2] < Q.shape[-1]
            tall = Q.mT if wide else Q
            if not self.trivial:                                    # its reflections, and the signs of R
                a, tau = geqrf(tall)
                signs = a.diagonal(dim1=-2, dim2=-1)
                signs.copy_(where(eq(tau, 0), -sign(signs), sign(signs)))
                return a.mT if wide else a
            self.base = _completed(tall, tall.shape[-2])
            start = zeros_like(Q)
            start.diagonal(dim1=-2, dim2=-1).fill_(-1.0)        # no reflection, and the signs of `householder`
            return start


def orthogonal(module: Module, name: str = "weight", orthogonal_map: str | None = None, *,
               use_trivialization: bool = True) -> Module:
    """The tensor, a matrix (*, m, n), as one with orthonormal columns (rows, if m < n), by a map from all matrices
    (Lezcano-Casado and Martínez-Rubio 2019). Returns the module.

    orthogonal_map: "matrix_exp" (e^A of a skew-symmetric A; the default for square matrices), "cayley"
    ((1 + A/2) (1 - A/2)^-1) or "householder" (reflections; the default for others). `use_trivialization`: the map acts
    on a fixed orthogonal matrix `base`, so that any value can be assigned (Lezcano-Casado 2019). ValueError for
    another map or a vector.
    """
    weight = _tensor_of("orthogonal", module, name)
    if weight.ndim < 2:
        raise ValueError(f"[orthogonal] expected a matrix or batch of matrices; got {weight.ndim} dimension(s)")
    chosen = orthogonal_map or ("matrix_exp" if weight.shape[-2] == weight.shape[-1] else "householder")
    if chosen not in ("matrix_exp", "cayley", "householder"):
        raise ValueError("[orthogonal] orthogonal_map must be matrix_exp, cayley or householder; "
                         f"got {orthogonal_map!r}")
    return register_parametrization(module, name, _Orthogonal(weight, chosen, use_trivialization), unsafe=True)
