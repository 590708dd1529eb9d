"""Linear algebra under PyTorch's older names, as far as they differ from those of `torch.linalg` in linalg.py."""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..core.modes import mode
from ..core.out import writes
from ..core.shape import broadcast_shapes, fail
from ..core.tensor import Tensor
from . import linalg
from .factor import geqrf_op, identity, matrices, turned, unpacked
from .linalg import PLU, QR
from .math import eq, sub, where
from .matmul import matmul, outer
from .random import randn
from .through import through
from .view import as_expanded, zeros_on


class USV(NamedTuple):
    """What `minigrad.svd` returns."""

    U: Tensor
    S: Tensor
    V: Tensor


class TriangularSolve(NamedTuple):
    """What `triangular_solve` returns."""

    solution: Tensor
    cloned_coefficient: Tensor


class Geqrf(NamedTuple):
    """What `geqrf` returns."""

    a: Tensor
    tau: Tensor


def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> USV:
    """(U, S, V) with input = U diag(S) V^T. `linalg.svd` gives V^T. Shapes: (*, m, n) -> U (*, m, k), S (*, k), V
    (*, n, k), k = min(m, n); U and V square with `some=False`, and zeros without `compute_uv`."""
    u, s, vh = linalg.svd(input, not some)
    if compute_uv:
        return USV(u, s, turned(vh))
    have = input.array.layout
    u, v = (zeros_on((*have.shape[:-2], n, n), have) for n in have.shape[-2:])
    return USV(u, linalg.svdvals(input), v)


def qr(input: Tensor, some: bool = True) -> QR:
    """(Q, R) with input = Q R: `linalg.qr` with mode "reduced", or "complete" with `some=False`."""
    return linalg.qr(input, "reduced" if some else "complete")


def logdet(input: Tensor) -> Tensor:
    """log(det(input)) of square matrices: (*, n, n) -> (*). NaN where the determinant is negative, -inf where it is
    0."""
    sign, size = linalg.slogdet(input)
    return where(eq(sign, -1), float("nan"), size)


def inverse(input: Tensor) -> Tensor:
    """The inverses of square matrices: `linalg.inv`."""
    return linalg.inv(input)


def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """The Moore-Penrose pseudoinverses: `linalg.pinv`, where singular values up to rcond * the largest count as 0."""
    return linalg.pinv(input, rtol=rcond)


@writes("cast")
def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """The lower triangular L with input = L L^T, or with `upper` L^T: `linalg.cholesky`."""
    return linalg.cholesky(input, upper=upper)


@writes("cast")
def cholesky_solve(input: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """The solution X of A X = input, where A = L L^T, or with `upper` A = L^T L. Shapes: input (*, n, k), L (*, n, n),
    of which one triangle is read -> (*, n, k)."""
    low = turned(L) if upper else L
    matrices("cholesky_solve", input.array.layout)
    inner = linalg.solve_triangular(low, input, upper=False)
    return linalg.solve_triangular(turned(low), inner, upper=True)


@writes("cast")
def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """The inverse of A = L L^T, or with `upper` of A = L^T L. Shapes: (*, n, n) both; one triangle of L is read."""
    matrices("cholesky_inverse", L.array.layout, square=True)
    n, lead = L.array.layout.shape[-1], L.array.layout.shape[:-2]
    one = through(as_expanded, identity(n, L), (*lead, n, n))
    half = linalg.solve_triangular(turned(L) if upper else L, one, upper=False)
    return matmul(turned(half), half)


def triangular_solve(input: Tensor, A: Tensor, upper: bool = True, transpose: bool = False,
                     unitriangular: bool = False) -> TriangularSolve:
    """(solution, A): the X of A X = input, with `transpose` of A^T X = input, where one triangle of A is read. Shapes:
    input (*, n, k), A (*, n, n)."""
    matrices("triangular_solve", input.array.layout)
    matrices("triangular_solve", A.array.layout, square=True)
    a, up = (turned(A), not upper) if transpose else (A, upper)
    found = linalg.solve_triangular(a, input, upper=up, unitriangular=unitriangular)
    lead = broadcast_shapes("triangular_solve", input.array.layout.shape[:-2], A.array.layout.shape[:-2])
    return TriangularSolve(found, through(as_expanded, A, (*lead, *A.array.layout.shape[-2:])).clone())


def lu(input: Tensor, pivot: bool = True, get_infos: bool = False) -> tuple[Tensor, ...]:
    """(LU, pivots), with `get_infos` also int32 numbers that are 0 for matrices with an inverse: `linalg.lu_factor`."""
    found = linalg.lu_factor_ex(input, pivot=pivot)
    return tuple(found) if get_infos else (found.LU, found.pivots)


def lu_solve(input: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """The solution X of A X = input, given what `linalg.lu_factor(A)` gave. Shapes: input (*, n, k), LU_data (*, n, n),
    LU_pivots (*, n) int32 -> (*, n, k)."""
    return linalg.lu_solve(LU_data, LU_pivots, input)


def lu_unpack(LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True) -> PLU:
    """(P, L, U) of what `linalg.lu_factor` gave; what is not asked for is empty."""
    matrices("lu_unpack", LU_data.array.layout)
    have, given = LU_data.array.layout, LU_pivots.array.layout
    if given.dtype != np.dtype("int32"):
        fail("lu_unpack", "the pivots must be int32", given, "convert with .int()")
    if given.shape != (*have.shape[:-2], min(have.shape[-2:])):
        fail("lu_unpack", "LU_data (*, m, n) needs pivots (*, min(m, n))", [have, given])
    p, low, up = linalg.unpack_lu(LU_data, LU_pivots)
    none = zeros_on((0,), have)
    return PLU(p if unpack_pivots else none, *((low, up) if unpack_data else (none, none)))


def geqrf(input: Tensor) -> Geqrf:
    """(a, tau): the QR decomposition as LAPACK's geqrf gives it: R on and above the diagonal of `a`, and below it the
    reflections that `linalg.householder_product` multiplies. Shapes: (*, m, n) -> a (*, m, n), tau (*, min(m, n)). It
    has no derivative (RuntimeError in a graph): use `linalg.qr`."""
    matrices("geqrf", input.array.layout)
    if mode.grad and input.requires_grad:
        fail("geqrf", "has no derivative, but a gradient is required", input.array.layout, "use linalg.qr, or detach()")
    m, n = input.array.layout.shape[-2:]
    return Geqrf(*unpacked(geqrf_op(input), (m, n), (min(m, n),)))


def orgqr(input: Tensor, tau: Tensor) -> Tensor:
    """The first columns of the product of reflections: `linalg.householder_product`."""
    return linalg.householder_product(input, tau)


def ormqr(input: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False) -> Tensor:
    """Q other, or with `transpose` Q^T other; without `left` other Q, other Q^T: Q (m, m) is the product of all
    reflections in `input` and `tau`, as `geqrf` gives them. Shapes: input (*, m, k), tau (*, k), other (*, m, c), or
    (*, c, m) without `left`."""
    given = [t.array.layout for t in (input, other)]
    matrices("ormqr", *given)
    have, size = tau.array.layout, given[1].shape[-2 if left else -1]
    k = have.shape[-1] if have.ndim else 0
    if have.shape != (*given[0].shape[:-2], k) or k > min(given[0].shape[-2:]):
        fail("ormqr", "input (*, m, k) needs tau (*, k)", [given[0], have])
    if given[0].shape[-2] != size or given[0].shape[:-2] != given[1].shape[:-2] or have.dtype != given[0].dtype:
        fail("ormqr", "other must have input's number of rows (columns without `left`), batch dimensions and dtype",
             [*given, have])
    if not left:
        return turned(linalg.reflected(input, tau, turned(other), reverse=transpose))
    return linalg.reflected(input, tau, other, reverse=not transpose)


def chain_matmul(*matrices: Any) -> Tensor:
    """The product of matrices in the cheapest order: `linalg.multi_dot`. One matrix is returned as it is."""
    given = matrices[0] if len(matrices) == 1 and isinstance(matrices[0], (tuple, list)) else matrices
    return given[0] if len(given) == 1 else linalg.multi_dot(given)


def svd_lowrank(A: Tensor, q: int | None = 6, niter: int | None = 2, M: Tensor | None = None) -> USV:
    """(U, S, V) with A - M near U diag(S) V^T, of rank q, by random projections and `niter` subspace iterations (Halko,
    Martinsson and Tropp 2009, algorithms 4.4 and 5.1). Shapes: A (*, m, n) -> U (*, m, q), S (*, q), V (*, n, q)."""
    q, niter = 6 if q is None else q, 2 if niter is None else niter
    A = A if M is None else sub(A, through(as_expanded, M, A.array.layout.shape))
    matrices("svd_lowrank", A.array.layout)
    m, n = A.array.layout.shape[-2:]
    if m < n:
        u, s, v = svd_lowrank(turned(A), q, niter)
        return USV(v, s, u)
    start = randn(n, q, dtype=A.dtype, device=A.device)
    basis = linalg.qr(matmul(A, start)).Q
    for _ in range(niter):
        basis = linalg.qr(matmul(A, linalg.qr(matmul(turned(A), basis)).Q)).Q
    u, s, vh = linalg.svd(matmul(turned(basis), A), False)
    return USV(matmul(basis, u), s, turned(vh))


def pca_lowrank(A: Tensor, q: int | None = None, center: bool = True, niter: int = 2) -> USV:
    """(U, S, V) of the matrix with its columns' means subtracted (`center`): principal components, by `svd_lowrank`.
    Shapes: A (*, m, n) -> U (*, m, q), S (*, q), V (*, n, q); q is min(6, m, n) by default."""
    matrices("pca_lowrank", A.array.layout)
    m, n = A.array.layout.shape[-2:]
    q = min(6, m, n) if q is None else q
    if not 0 <= q <= min(m, n):
        fail("pca_lowrank", f"q must lie between 0 and {min(m, n)}", q, kind=ValueError)
    return svd_lowrank(sub(A, A.mean(-2, True)) if center else A, q, niter)


det, slogdet, matrix_power, matrix_exp = linalg.det, linalg.slogdet, linalg.matrix_power, linalg.matrix_exp
ger = outer
