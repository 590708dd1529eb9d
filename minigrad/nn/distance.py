"""Distances and likeness of vectors: `cosine_similarity`, `pairwise_distance`, and their layers."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..core.shape import broadcast_shapes, fail, result_type
from ..core.tensor import Tensor
from ..ops.formula import clamp_min, formula
from ..ops.math import add, div, mul, sub
from ..ops.reduce import norm
from ..ops.reduce import sum as sum_op
from .module import Module


@formula
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 . x2 / (max(|x1|, eps) max(|x2|, eps)) along `dim`: the cosine of the angle between vectors.

    Shapes: x1 and x2 broadcast to (*, D, *) -> (*, *), without dimension `dim`.
    """
    if eps < 0:
        fail("cosine_similarity", "eps must not be negative", eps)
    shape = broadcast_shapes("cosine_similarity", x1.shape, x2.shape)
    dtype = result_type(x1.array.layout, x2.array.layout)
    x1, x2 = x1.expand(shape).to(dtype), x2.expand(shape).to(dtype)
    sizes = [clamp_min(norm(x, 2, dim, keepdim=True), eps) for x in (x1, x2)]
    return sum_op(mul(div(x1, sizes[0]), div(x2, sizes[1])), dim)


@cosine_similarity.samples
def _cosine_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5, low=0.1), make(3, 5)
    yield make(4, 33), make(1, 33), -1
    yield make(2, 3, 4), make(2, 3, 1, low=0.5), 1, 1e-6
    yield make(5), make(5), 0


@cosine_similarity.errors
def _cosine_errors(make: Any) -> Iterator[tuple]:
    yield (make(3, 5), make(4, 5), {}), RuntimeError, "broadcast"
    yield (make(3), make(3), 1, {}), IndexError, "dim"


@cosine_similarity.reference
def _cosine_oracle(a: Any, b: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    sizes = [np.maximum(np.sqrt((x * x).sum(dim)), eps) for x in np.broadcast_arrays(a, b)]
    return (a * b).sum(dim) / (sizes[0] * sizes[1])


class CosineSimilarity(Module):
    """x1 . x2 / (max(|x1|, eps) max(|x2|, eps)) along `dim`."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """(*, D, *), (*, D, *) -> (*, *)"""
        return cosine_similarity(x1, x2, self.dim, self.eps)


@formula
def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The `p`-norm of x1 - x2 + eps along the last dimension. `eps` keeps the gradient finite where x1 = x2.

    Shapes: x1 and x2 broadcast to (*, D) -> (*), or (*, 1) with `keepdim`.
    """
    return norm(add(sub(x1, x2), eps), p, -1, keepdim=keepdim)


@pairwise_distance.samples
def _pairwise_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5), make(3, 5)
    yield make(4, 33), make(33), 1.0, 1e-6, True
    yield make(2, 3, 4), make(2, 1, 4), 3.0


@pairwise_distance.errors
def _pairwise_errors(make: Any) -> Iterator[tuple]:
    yield (make(3, 5), make(3, 4), {}), RuntimeError, "broadcast"


@pairwise_distance.reference
def _pairwise_oracle(a: Any, b: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
    return (np.abs(a - b + eps) ** p).sum(-1, keepdims=keepdim) ** (1 / p)


class PairwiseDistance(Module):
    """The `p`-norm of x1 - x2 + eps along the last dimension."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__()
        self.norm, self.eps, self.keepdim = p, eps, keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """(*, D), (*, D) -> (*), or (*, 1) with `keepdim`"""
        return pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)
