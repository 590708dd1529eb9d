"""Factorizations and inverses of matrices: the primitives of `linalg.py`, computed by NumPy's LAPACK.

A factorization with several results (U, S and V, say) is one primitive: its output holds all of them, flattened, one
after the other, and `unpacked` cuts it into views. So its derivative is written in its own output, as that of any
primitive, and has derivatives itself. All dimensions before the last two are batches. Read first `_lapack`, `inverse`
and `eigh_op`.

Sources: Giles 2008, "Collected matrix derivative results for forward and reverse mode algorithmic differentiation";
those of others stand beside their primitive.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ..core.half import rounds_once
from ..core.op import Primitive, same_device
from ..core.shape import fail, is_float
from ..core.tensor import Tensor
from ..devices.host import on_host
from ..devices.memory import Layout, layout
from ..devices.plan import Plan, host_plan
from .arrange import tril, triu
from .creation import as_tensor
from .join import cat
from .math import add, div, eq, mul, neg, sub, where
from .matmul import matmul
from .through import through
from .view import as_matrix_transpose, as_narrowed, as_reshaped, diag_embed, zeros_on


class LinAlgError(RuntimeError):
    """A matrix has no such factorization or inverse: it is singular, not positive definite, or has no numbers."""


def matrices(op: str, *given: Layout, square: bool = False) -> None:
    """Raises unless the operands are (batches of) floating-point matrices on one device and of one dtype."""
    same_device(op, given)
    for x in given:
        if x.ndim < 2:
            fail(op, "needs matrices: at least two dimensions (*, m, n)", list(given))
        if not is_float(x.dtype):
            fail(op, "needs floating-point tensors", list(given), "convert with .float()")
        if x.dtype != given[0].dtype:
            fail(op, "all matrices must have one dtype", list(given))
    if square and given[0].shape[-1] != given[0].shape[-2]:
        fail(op, "needs square matrices (*, n, n)", list(given))


def _lapack(op: str, to: Layout, function: Callable[..., Any], *inputs: Layout) -> Plan:
    """The plan of `out[...] = function(*inputs)` in NumPy, on the host for matrices on a GPU, too; what LAPACK refuses
    is a LinAlgError of ours."""
    @on_host
    def run(*arrays: Any, out: Any) -> None:
        try:
            out[...] = function(*arrays)
        except np.linalg.LinAlgError as error:
            found = str(error)
        else:
            return
        raise LinAlgError(f"[{op}] {found}; got {', '.join(map(str, inputs))}")
    return host_plan(to, run, f"{op}: NumPy's LAPACK", inputs)


def _packed(*parts: Any) -> Any:
    """Results of a factorization, flattened but for the batch dimensions, one after the other."""
    lead = parts[0].shape[:-2]
    return np.concatenate([p.reshape(*lead, int(np.prod(p.shape[len(lead):]))) for p in parts], -1)


def unpacked(packed: Tensor, *shapes: Sequence[int]) -> list[Tensor]:
    """The results with these shapes (without batch dimensions), as views of what a factorization gave."""
    lead, at, found = packed.array.layout.shape[:-1], 0, []
    for shape in shapes:
        n = prod(shape)
        part = through(as_narrowed, packed, len(lead), at, n)
        found.append(through(as_reshaped, part, (*lead, *shape)))
        at += n
    return found


def turned(x: Tensor) -> Tensor:
    """The transposes of matrices: a view."""
    return through(as_matrix_transpose, x)


def identity(n: int, like: Tensor) -> Tensor:
    """The identity matrix (n, n) with the dtype and device of `like`."""
    return as_tensor(np.eye(n, dtype=like.dtype), device=like.device)


def column(x: Tensor) -> Tensor:
    """(*, n) as (*, n, 1)."""
    return through(as_reshaped, x, (*x.array.layout.shape, 1))


def row(x: Tensor) -> Tensor:
    """(*, n) as (*, 1, n)."""
    shape = x.array.layout.shape
    return through(as_reshaped, x, (*shape[:-1], 1, shape[-1]))


def _over(x: Tensor, divisor: Tensor) -> Tensor:
    """x / divisor, and 0 where the divisor is 0: what two equal eigenvalues share, no gradient turns."""
    none = eq(divisor, 0)
    return where(none, 0.0, div(x, where(none, 1.0, divisor)))


# ---- inverse, solve --------------------------------------------------------------------------------------------------

def _prepare_inverse(x: Layout) -> Plan:
    """The inverses of square matrices (*, n, n). LinAlgError for a singular one."""
    matrices("inv", x, square=True)
    return _lapack("inv", layout(x.device, x.dtype, x.shape), np.linalg.inv, x)


inverse = Primitive("inverse", _prepare_inverse, {
    "x": lambda g, out: neg(matmul(turned(out), matmul(g, turned(out))))})


def _prepare_solve(a: Layout, b: Layout) -> Plan:
    """The solutions X of A X = B. Shapes: a (*, n, n), b (*, n, k) -> (*, n, k), with the same batch dimensions.
    LinAlgError for a singular matrix."""
    matrices("solve", a, b, square=True)
    if a.shape[:-1] != b.shape[:-1]:
        fail("solve", "A (*, n, n) and B (*, n, k) must have the same batch dimensions and n", [a, b])
    return _lapack("solve", layout(b.device, b.dtype, b.shape), np.linalg.solve, a, b)


solve_op: Primitive = Primitive("solve", _prepare_solve, {
    "a": lambda g, a, out: neg(matmul(solve_op(turned(a), g), turned(out))),
    "b": lambda g, a: solve_op(turned(a), g)})


def _substituted(a: Any, b: Any, upper: bool, unit: bool) -> Any:
    """The solution of a triangular system, by substitution; a zero on the diagonal gives infinities."""
    x, n = np.array(b), a.shape[-1]
    for i in range(n - 1, -1, -1) if upper else range(n):
        known = slice(i + 1, n) if upper else slice(0, i)
        x[..., i:i + 1, :] -= np.matmul(a[..., i:i + 1, known], x[..., known, :])
        if not unit:
            x[..., i:i + 1, :] /= a[..., i:i + 1, i:i + 1]
    return x


def _prepare_triangular(a: Layout, b: Layout, *, upper: bool, unit: bool) -> Plan:
    """The solutions X of A X = B, where only one triangle of A is read, and with `unit` its diagonal is taken as 1.
    Shapes: a (*, n, n), b (*, n, k) -> (*, n, k), with the same batch dimensions."""
    matrices("solve_triangular", a, b, square=True)
    if a.shape[:-1] != b.shape[:-1]:
        fail("solve_triangular", "A (*, n, n) and B (*, n, k) must have the same batch dimensions and n", [a, b])
    return _lapack("solve_triangular", layout(b.device, b.dtype, b.shape),
                   lambda u, v: _substituted(u, v, upper, unit), a, b)


def _triangular_vjp(g: Tensor, a: Tensor, out: Tensor, upper: bool, unit: bool) -> Tensor:
    whole = neg(matmul(triangular_op(turned(a), g, upper=not upper, unit=unit), turned(out)))
    return triu(whole, int(unit)) if upper else tril(whole, -int(unit))


triangular_op: Primitive = Primitive("solve_triangular", _prepare_triangular, {
    "a": _triangular_vjp,
    "b": lambda g, a, upper, unit: triangular_op(turned(a), g, upper=not upper, unit=unit)})


# ---- pseudoinverse ---------------------------------------------------------------------------------------------------

def _prepare_pinv(x: Layout, *, atol: float | None, rtol: float | None, hermitian: bool) -> Plan:
    """The Moore-Penrose pseudoinverses of matrices (*, m, n): (*, n, m). Singular values up to max(atol, rtol * the
    largest one) count as 0; `rtol` is by default max(m, n) times the machine epsilon, or 0 if `atol` is given."""
    matrices("pinv", x, square=hermitian)
    out = layout(x.device, x.dtype, (*x.shape[:-2], x.shape[-1], x.shape[-2]))
    least = cutoff(x, atol, rtol)

    def compute(a: Any) -> Any:
        if not a.size:
            return np.zeros(out.shape, a.dtype)
        if hermitian:
            s, v = np.linalg.eigh(a)
            u, vh, size = v, np.swapaxes(v, -1, -2), np.abs(s)
        else:
            u, s, vh = np.linalg.svd(a, full_matrices=False)
            size = s
        none = size <= np.maximum(least[0], least[1] * size.max(-1, keepdims=True))
        inverted = np.where(none, 0, 1 / np.where(none, 1, s))
        return np.matmul(np.swapaxes(vh, -1, -2) * inverted[..., None, :], np.swapaxes(u, -1, -2))
    return _lapack("pinv", out, compute, x)


def cutoff(x: Layout, atol: float | None, rtol: float | None) -> tuple[float, float]:
    """Up to which size singular values count as 0: (absolute, relative to the largest)."""
    eps = float(np.finfo(np.float64 if x.dtype == np.float64 else np.float32).eps)
    if rtol is None:
        rtol = 0.0 if atol is not None and atol > 0 else eps * max(x.shape[-2:])
    return (0.0 if atol is None else float(atol)), float(rtol)


def _pinv_vjp(g: Tensor, x: Tensor, out: Tensor) -> Tensor:
    """Golub and Pereyra 1973, eq. 4.12, for matrices whose rank does not change."""
    m, n = x.array.layout.shape[-2:]
    ty, tg = turned(out), turned(g)
    first = neg(matmul(ty, matmul(g, ty)))
    left = matmul(matmul(sub(identity(m, x), matmul(x, out)), tg), matmul(out, ty))
    right = matmul(matmul(ty, out), matmul(tg, sub(identity(n, x), matmul(out, x))))
    return add(first, add(left, right))


pinv_op = Primitive("pinv", _prepare_pinv, {"x": _pinv_vjp})


# ---- determinant -----------------------------------------------------------------------------------------------------

def _unless_nan(function: Callable[..., Any], value: float = np.nan) -> Callable[..., Any]:
    """The function, and `value` of a matrix with NaN, which LAPACK may take for a singular one."""
    return lambda a: np.where(np.isnan(a).any((-2, -1)), value, function(a))


def _prepare_det(x: Layout) -> Plan:
    """The determinants of square matrices: (*, n, n) -> (*)."""
    matrices("det", x, square=True)
    return _lapack("det", layout(x.device, x.dtype, x.shape[:-2]), _unless_nan(np.linalg.det), x)


def _by_svd(x: Any) -> tuple[Any, Any, Any, Any]:
    """u, s, vh and det(u) det(vh), with which the polynomials in s below are those of x, singular or not. NaN as the
    sign of a matrix that is not finite, which LAPACK refuses."""
    finite = np.isfinite(x).all((-2, -1), keepdims=True)
    u, s, vh = np.linalg.svd(np.where(finite, x, 0))
    return u, s, vh, np.where(finite, (np.linalg.det(u) * np.linalg.det(vh))[..., None, None], np.nan)


def _without(s: Any) -> Any:
    """The product of all singular values but one: (*, n)."""
    n = s.shape[-1]
    return np.prod(np.where(np.eye(n, dtype=bool), 1, s[..., None, :]), -1)


def _cofactors(x: Any) -> Any:
    u, s, vh, sign = _by_svd(x)
    return np.matmul(u * _without(s)[..., None, :], vh) * sign


def _cofactor_changes(x: Any, h: Any) -> Any:
    """d/dt cofactor(x + t h) at t = 0: in the basis of u and vh, the minors of two rows and columns."""
    u, s, vh, sign = _by_svd(x)
    n = s.shape[-1]
    keep = np.eye(n, dtype=bool)
    without = np.prod(np.where(keep[:, None, :] | keep[None, :, :], 1, s[..., None, None, :]), -1)
    without = np.where(keep, 0, without)                            # without singular values i and j
    e = np.matmul(np.matmul(np.swapaxes(u, -1, -2), h), np.swapaxes(vh, -1, -2))
    diagonal = np.matmul(without, np.diagonal(e, 0, -2, -1)[..., None])[..., 0]
    inner = np.where(keep, diagonal[..., None, :], -np.swapaxes(e, -1, -2) * without)
    return np.matmul(np.matmul(u, inner), vh) * sign


def _prepare_cofactor(x: Layout) -> Plan:
    """The matrices of cofactors of square matrices, det(x) x^-T where x has an inverse: the gradient of `det`."""
    matrices("det", x, square=True)
    return _lapack("det", layout(x.device, x.dtype, x.shape), _cofactors, x)


def _prepare_cofactor_change(x: Layout, h: Layout) -> Plan:
    """The change of the cofactors of x in the direction h: the second derivative of `det`, linear and symmetric in h.
    """
    matrices("det", x, h, square=True)
    return _lapack("det", layout(x.device, x.dtype, x.shape), _cofactor_changes, x, h)


def _third(g: Tensor, x: Tensor, h: Tensor) -> Tensor:
    """The third derivative of `det`, for matrices that have an inverse: that of det(x) (tr(y h) y^T - (y h y)^T)."""
    y = inverse(x)
    a, b = matmul(y, g), matmul(y, h)

    def trace(m: Tensor) -> Tensor:
        return column(column(diagonal_sum(m)))
    both = add(matmul(a, b), matmul(b, a))
    inner = sub(mul(sub(mul(trace(a), trace(b)), trace(matmul(a, b))), identity(x.shape[-1], x)),
                sub(add(mul(trace(a), b), mul(trace(b), a)), both))
    return mul(column(column(det_op(x))), turned(matmul(inner, y)))


def diagonal_sum(x: Tensor) -> Tensor:
    """The sums of the main diagonals: (*, n, n) -> (*)."""
    return x.diagonal(0, -2, -1).sum(-1)


cofactor_op: Primitive = Primitive("cofactor", _prepare_cofactor, {
    "x": lambda g, x: cofactor_change(x, g)})
cofactor_change: Primitive = Primitive("cofactor_change", _prepare_cofactor_change, {
    "x": _third, "h": lambda g, x: cofactor_change(x, g)})
det_op = Primitive("det", _prepare_det, {"x": lambda g, x: mul(column(column(g)), cofactor_op(x))})


def _prepare_logabsdet(x: Layout) -> Plan:
    """log |det x|: (*, n, n) -> (*); -inf for singular matrices."""
    matrices("slogdet", x, square=True)
    log = _unless_nan(lambda a: np.linalg.slogdet(a)[1])
    return _lapack("slogdet", layout(x.device, x.dtype, x.shape[:-2]), log, x)


def _prepare_sign_of_det(x: Layout) -> Plan:
    """The sign of det x: (*, n, n) -> (*); 0 for singular matrices."""
    matrices("slogdet", x, square=True)
    sign = _unless_nan(lambda a: np.linalg.slogdet(a)[0], 0.0)
    return _lapack("slogdet", layout(x.device, x.dtype, x.shape[:-2]), sign, x)


def _logabsdet_vjp(g: Tensor, x: Tensor) -> Tensor:
    """NaN for singular matrices, where the result is -inf: an error in a walk back would come from far away."""
    singular = column(column(eq(sign_of_det(x), 0)))
    of_others = inverse(where(singular, identity(x.shape[-1], x), x))
    return mul(column(column(g)), turned(where(singular, np.nan, of_others)))


logabsdet = Primitive("logabsdet", _prepare_logabsdet, {"x": _logabsdet_vjp})
sign_of_det = Primitive("sign_of_det", _prepare_sign_of_det, {
    "x": lambda g, x_shape: zeros_on(x_shape, g.array.layout)})


# ---- Cholesky --------------------------------------------------------------------------------------------------------

def _prepare_cholesky(x: Layout) -> Plan:
    """The lower triangular L with x = L L^T of symmetric positive definite matrices (*, n, n), of which the lower
    triangle is read. LinAlgError for others."""
    matrices("cholesky", x, square=True)
    return _lapack("cholesky", layout(x.device, x.dtype, x.shape), np.linalg.cholesky, x)


def _cholesky_vjp(g: Tensor, out: Tensor) -> Tensor:
    """Murray 2016, "Differentiation of the Cholesky decomposition", eq. 9; symmetric."""
    inner = tril(matmul(turned(out), g))
    inner = sub(inner, mul(diag_embed(inner.diagonal(0, -2, -1)), 0.5))
    inner = mul(add(inner, turned(inner)), 0.5)
    back = triangular_op(turned(out), inner, upper=True, unit=False)
    return turned(triangular_op(turned(out), turned(back), upper=True, unit=False))


cholesky_op = Primitive("cholesky", _prepare_cholesky, {"x": _cholesky_vjp})


# ---- eigenvalues of symmetric matrices -------------------------------------------------------------------------------

def _prepare_eigh(x: Layout, *, upper: bool) -> Plan:
    """The eigenvectors (columns of an (n, n) matrix) and eigenvalues (n,), ascending, of symmetric matrices, packed.
    Only one triangle of x is read; the gradient is that of a symmetric change of x."""
    matrices("eigh", x, square=True)
    n = x.shape[-1]

    def compute(a: Any) -> Any:
        w, v = np.linalg.eigh(a, "U" if upper else "L")
        return _packed(v, w)
    return _lapack("eigh", layout(x.device, x.dtype, (*x.shape[:-2], n * n + n)), compute, x)


def _eigh_vjp(g: Tensor, out: Tensor, x_shape: tuple[int, ...]) -> Tensor:
    n = x_shape[-1]
    (v, w), (gv, gw) = unpacked(out, (n, n), (n,)), unpacked(g, (n, n), (n,))
    turn = matmul(turned(v), gv)
    turn = mul(sub(turn, turned(turn)), 0.5)                # eigenvectors stay orthonormal: they can only turn
    inner = add(_over(turn, sub(row(w), column(w))), diag_embed(gw))
    return matmul(v, matmul(inner, turned(v)))


eigh_op = Primitive("eigh", _prepare_eigh, {"x": _eigh_vjp})


# ---- singular values -------------------------------------------------------------------------------------------------

def svd_shapes(shape: Sequence[int], full: bool) -> tuple[tuple[int, int], tuple[int], tuple[int, int]]:
    """The shapes of U, S and V^T for matrices of a shape."""
    m, n = shape[-2:]
    k = min(m, n)
    return (m, m if full else k), (k,), (n if full else k, n)


def _prepare_svd(x: Layout, *, full: bool) -> Plan:
    """U, S and V^T of x = U diag(S) V^T, packed; S descends. With `full`, U and V are square."""
    matrices("svd", x)
    u, s, v = svd_shapes(x.shape, full)
    out = layout(x.device, x.dtype, (*x.shape[:-2], prod(u) + s[0] + prod(v)))
    return _lapack("svd", out, lambda a: _packed(*np.linalg.svd(a, full_matrices=full)), x)


def _svd_vjp(g: Tensor, out: Tensor, x_shape: tuple[int, ...], full: bool) -> Tensor:
    """Townsend 2016, "Differentiating the singular value decomposition". Columns beyond min(m, n) have no gradient, and
    equal singular values do not turn into each other."""
    m, n = x_shape[-2:]
    k, shapes = min(m, n), svd_shapes(x_shape, full)
    (u, s, vh), (gu, gs, gvh) = unpacked(out, *shapes), unpacked(g, *shapes)
    if full:
        u, gu, vh, gvh = u[..., :k], gu[..., :k], vh[..., :k, :], gvh[..., :k, :]
    v, gv = turned(vh), turned(gvh)
    gap = mul(sub(row(s), column(s)), add(row(s), column(s)))
    turn_u, turn_v = matmul(turned(u), gu), matmul(vh, gv)
    inner = add(mul(_over(sub(turn_u, turned(turn_u)), gap), row(s)),
                mul(_over(sub(turn_v, turned(turn_v)), gap), column(s)))
    inner = add(inner, diag_embed(gs))
    found = matmul(u, matmul(inner, vh))
    if m > k:
        found = add(found, matmul(_over(sub(gu, matmul(u, turn_u)), row(s)), vh))
    if n > k:
        found = add(found, matmul(u, _over(sub(gvh, matmul(matmul(gvh, v), vh)), column(s))))
    return found


svd_op: Primitive = Primitive("svd", _prepare_svd, {"x": _svd_vjp})


def _prepare_svdvals(x: Layout) -> Plan:
    """The singular values of matrices, descending: (*, m, n) -> (*, min(m, n))."""
    matrices("svdvals", x)
    out = layout(x.device, x.dtype, (*x.shape[:-2], min(x.shape[-2:])))
    return _lapack("svdvals", out, lambda a: np.linalg.svd(a, compute_uv=False), x)


def _svdvals_vjp(g: Tensor, x: Tensor) -> Tensor:
    u, _, vh = unpacked(svd_op(x, full=False), *svd_shapes(x.array.layout.shape, False))
    return matmul(mul(u, row(g)), vh)


svdvals_op = Primitive("svdvals", _prepare_svdvals, {"x": _svdvals_vjp})


# ---- QR --------------------------------------------------------------------------------------------------------------

def qr_shapes(shape: Sequence[int], full: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """The shapes of Q and R for matrices of a shape."""
    m, n = shape[-2:]
    k = m if full else min(m, n)
    return (m, k), (k, n)


def _prepare_qr(x: Layout, *, full: bool) -> Plan:
    """Q and R of x = Q R, packed: Q has orthonormal columns, R is upper triangular. With `full`, Q is square."""
    matrices("qr", x)
    q, r = qr_shapes(x.shape, full)
    out = layout(x.device, x.dtype, (*x.shape[:-2], prod(q) + prod(r)))
    return _lapack("qr", out, lambda a: _packed(*np.linalg.qr(a, "complete" if full else "reduced")), x)


def _qr_vjp(g: Tensor, out: Tensor, x_shape: tuple[int, ...], full: bool) -> Tensor:
    """Roberts and Roberts 2020, "QR and LQ decomposition matrix backpropagation algorithms for square, wide, and deep
    matrices and their software implementation"."""
    m, n = x_shape[-2:]
    if full and m > n:
        raise NotImplementedError("[qr] mode 'complete' has no derivative where m > n; use mode='reduced'")
    shapes = qr_shapes(x_shape, full)
    (q, r), (gq, gr) = unpacked(out, *shapes), unpacked(g, *shapes)
    rest = None
    if m < n:                           # the columns beyond m are q r2
        r2, gr2 = r[..., m:], gr[..., m:]
        r, gr = r[..., :m], gr[..., :m]
        rest, gq = matmul(q, gr2), add(gq, matmul(matmul(q, r2), turned(gr2)))
    inner = sub(matmul(r, turned(gr)), matmul(turned(gq), q))
    inner = add(tril(inner), turned(tril(inner, -1)))
    found = turned(triangular_op(r, turned(add(gq, matmul(q, inner))), upper=True, unit=False))
    if rest is None:
        return found
    return cat([found, rest], -1)


qr_op = Primitive("qr", _prepare_qr, {"x": _qr_vjp})


def _prepare_geqrf(x: Layout) -> Plan:
    """LAPACK's geqrf, packed: R and below it the reflections (m, n), and their factors (min(m, n),)."""
    matrices("geqrf", x)
    m, n = x.shape[-2:]
    out = layout(x.device, x.dtype, (*x.shape[:-2], m * n + min(m, n)))

    def compute(a: Any) -> Any:
        h, tau = np.linalg.qr(a, "raw")
        return _packed(np.swapaxes(h, -1, -2), tau)
    return _lapack("geqrf", out, compute, x)


geqrf_op = Primitive("geqrf", _prepare_geqrf)


# ---- LU --------------------------------------------------------------------------------------------------------------

def _eliminated(x: Any, pivot: bool) -> tuple[Any, Any]:
    """L below the diagonal and U above it in one matrix, and which row each row was exchanged with, counted from 1."""
    lead, (m, n) = x.shape[:-2], x.shape[-2:]
    a, k = np.array(x).reshape(int(np.prod(lead)), m, n), min(m, n)
    swaps = np.tile(np.arange(1, k + 1), (len(a), 1))
    each = np.arange(len(a))
    for i in range(k):
        if pivot and len(a):
            row = i + np.argmax(np.abs(a[:, i:, i]), 1)
            swaps[:, i] = row + 1
            first, other = a[each, i].copy(), a[each, row].copy()
            a[each, i], a[each, row] = other, first
        corner = a[:, i, i][:, None]
        a[:, i + 1:, i] /= np.where(corner == 0, 1, corner)
        a[:, i + 1:, i + 1:] -= a[:, i + 1:, i:i + 1] * a[:, i:i + 1, i + 1:]
    return a.reshape(x.shape), swaps.reshape(*lead, k)


def _prepare_lu(x: Layout, *, pivot: bool) -> Plan:
    """The LU decomposition with row exchanges, packed: L (without its diagonal of ones) and U in one matrix (m, n), and
    the exchanges (min(m, n),), counted from 1, as floats."""
    matrices("lu", x)
    m, n = x.shape[-2:]
    out = layout(x.device, x.dtype, (*x.shape[:-2], m * n + min(m, n)))

    def compute(a: Any) -> Any:
        made, swaps = _eliminated(a, pivot)
        return _packed(made, swaps.astype(a.dtype))
    return _lapack("lu", out, compute, x)


def _prepare_permutation(pivots: Layout, *, rows: int) -> Plan:
    """The permutation matrices P of row exchanges: P L U is the matrix. Shapes: (*, k) -> (*, rows, rows)."""
    out = layout(pivots.device, pivots.dtype, (*pivots.shape[:-1], rows, rows))

    def compute(swaps: Any) -> Any:
        flat = swaps.reshape(int(np.prod(swaps.shape[:-1])), swaps.shape[-1]).astype(np.int64) - 1
        order = np.tile(np.arange(rows), (len(flat), 1))
        each = np.arange(len(flat))
        for i in range(flat.shape[1]):
            if not ((flat[:, i] >= 0) & (flat[:, i] < rows)).all():
                raise np.linalg.LinAlgError(f"pivots must lie in [1, {rows}]")
            first, other = order[each, i].copy(), order[each, flat[:, i]].copy()
            order[each, i], order[each, flat[:, i]] = other, first
        return (np.arange(rows)[:, None] == order[:, None, :]).reshape(out.shape)
    return _lapack("lu_unpack", out, compute, pivots)


permutation_op = Primitive("permutation", _prepare_permutation, doc=_prepare_permutation.__doc__)


def _lu_vjp(g: Tensor, out: Tensor, x_shape: tuple[int, ...]) -> Tensor:
    """Of the square part Giles' formula for L U with L^-T [tril(L^T gL, -1) + triu(gU U^T)] U^-T; rows and columns
    beyond it depend on it by a triangular solve."""
    m, n = x_shape[-2:]
    k = min(m, n)
    (a, swaps), (ga, _) = unpacked(out, (m, n), (k,)), unpacked(g, (m, n), (k,))
    square, gs = a[..., :k, :k], ga[..., :k, :k]
    low = add(tril(square, -1), identity(k, out))
    up = triu(square)
    of_low, of_up = matmul(turned(low), tril(gs, -1)), matmul(triu(gs), turned(up))
    rest = None
    if n > k:
        g2 = ga[..., k:]
        of_low = sub(of_low, matmul(g2, turned(a[..., k:])))
        rest = triangular_op(turned(low), g2, upper=True, unit=True)
    elif m > k:
        g2 = ga[..., k:, :]
        of_up = sub(of_up, matmul(turned(a[..., k:, :]), g2))
        rest = turned(triangular_op(up, turned(g2), upper=True, unit=False))
    inner = triangular_op(turned(low), add(tril(of_low, -1), triu(of_up)), upper=True, unit=True)
    found = turned(triangular_op(up, turned(inner), upper=True, unit=False))
    if rest is not None:
        found = cat([found, rest], -1 if n > k else -2)
    return matmul(permutation_op(swaps.detach(), rows=m), found)        # the exchanges are whole numbers


lu_op = Primitive("lu", _prepare_lu, {"x": _lu_vjp})


# ---- samples ---------------------------------------------------------------------------------------------------------

def _square_samples(make: Any) -> Any:
    yield make(4, 4),
    yield make(2, 3, 3),
    yield make(1, 1),
    yield make(0, 2, 2),


def _shapes_samples(**attrs: Any) -> Callable[[Any], Any]:
    def samples(make: Any) -> Any:
        for shape in ((4, 3), (3, 5), (2, 3, 3), (0, 2, 3)):
            yield (make(*shape), attrs) if attrs else (make(*shape),)
    return samples


def _matrix_errors(make: Any) -> Any:
    yield (make(3),), RuntimeError, "at least two dimensions"
    yield (make.ints(2, 2),), RuntimeError, "floating-point"


def _square_errors(make: Any) -> Any:
    yield from _matrix_errors(make)
    yield (make(3, 2),), RuntimeError, "square"


def _dominant(x: Tensor) -> Tensor:
    """A matrix far from singular: the diagonal is larger by 4."""
    return add(x, mul(identity(x.shape[-1], x), 4.0))


def _systems(**attrs: Any) -> Callable[[Any], Any]:
    def samples(make: Any) -> Any:
        yield _dominant(make(3, 3)), make(3, 2), attrs
        yield _dominant(make(2, 3, 3)), make(2, 3, 1), attrs
        yield _dominant(make(1, 1)), make(1, 4), attrs
    return samples


def _system_errors(make: Any) -> Any:
    yield (make(3, 3), make(2, 2), {}), RuntimeError, "batch dimensions and n"
    yield (make(3, 2), make(3, 2), {}), RuntimeError, "square"


def _dominant_samples(make: Any) -> Any:
    for args in _square_samples(make):
        yield _dominant(args[0]),


def _singular_errors(make: Any) -> Any:
    yield from _square_errors(make)
    yield (mul(make(2, 2), 0.0),), LinAlgError, "[Ss]ingular"


def _triangle_of(x: Any, upper: bool, unit: bool) -> Any:
    part = np.triu(x, int(unit)) if upper else np.tril(x, -int(unit))
    return part + np.eye(x.shape[-1]) if unit else part


inverse.samples(_dominant_samples)
inverse.errors(_singular_errors)
inverse.reference(lambda x: np.linalg.solve(x, np.broadcast_to(np.eye(x.shape[-1]), x.shape)))
solve_op.samples(lambda make: (sample[:2] for sample in _systems()(make)))
solve_op.errors(_system_errors)
solve_op.reference(lambda a, b: np.matmul(np.linalg.inv(a), b))
triangular_op.samples(lambda make: (s for u in (True, False) for t in (True, False)
                                    for s in _systems(upper=u, unit=t)(make)))
triangular_op.errors(lambda make: ((args[:2] + ({"upper": True, "unit": False},), kind, text)
                                   for args, kind, text in _system_errors(make)))
triangular_op.reference(lambda a, b, upper, unit: np.linalg.solve(_triangle_of(a, upper, unit), b))
pinv_op.samples(_shapes_samples(atol=None, rtol=None, hermitian=False))
pinv_op.errors(lambda make: ((args + ({"atol": None, "rtol": None, "hermitian": False},), kind, text)
                             for args, kind, text in _matrix_errors(make)))
pinv_op.reference(lambda x, atol, rtol, hermitian: np.linalg.pinv(x))
for _op in (det_op, cofactor_op):
    _op.samples(_square_samples)
    _op.errors(_square_errors)
logabsdet.samples(_dominant_samples)
logabsdet.errors(_square_errors)
sign_of_det.samples(_square_samples)
sign_of_det.errors(_square_errors)
det_op.reference(lambda x: np.linalg.slogdet(x)[0] * np.exp(np.linalg.slogdet(x)[1]))
cofactor_op.reference(lambda x: np.linalg.det(x)[..., None, None] * np.swapaxes(np.linalg.inv(x), -1, -2))
logabsdet.reference(lambda x: np.log(np.abs(np.linalg.det(x))))
sign_of_det.reference(lambda x: np.sign(np.linalg.det(x)))


@cofactor_change.samples
def _cofactor_change_samples(make: Any) -> Any:
    yield make(4, 4), make(4, 4)
    yield make(2, 3, 3), make(2, 3, 3)


@cofactor_change.reference
def _cofactor_change_reference(x: Any, h: Any) -> Any:
    def cofactors(a: Any) -> Any:
        return np.linalg.det(a)[..., None, None] * np.swapaxes(np.linalg.inv(a), -1, -2)
    # of a polynomial of degree n - 1 < 4 in t, this difference is the derivative
    return (8 * (cofactors(x + h) - cofactors(x - h)) - (cofactors(x + 2 * h) - cofactors(x - 2 * h))) / 12


def _definite(x: Tensor) -> Tensor:
    return add(matmul(x, turned(x)), identity(x.shape[-1], x))


# these read one triangle of a symmetric matrix: tests make one of each sample, so that a change of it is symmetric, too
cholesky_op.public = rounds_once(lambda x: cholesky_op(_definite(x)))
cholesky_op.samples(_square_samples)
cholesky_op.reference(lambda x: np.linalg.cholesky(np.matmul(x, np.swapaxes(x, -1, -2)) + np.eye(x.shape[-1])))
eigh_op.public = rounds_once(lambda x, upper: eigh_op(add(x, turned(x)), upper=upper))
eigh_op.samples(lambda make: ((s[0], {"upper": u}) for u in (False, True) for s in _square_samples(make)))
eigh_op.reference(lambda x, upper: _packed(*np.linalg.eigh(x + np.swapaxes(x, -1, -2), "U" if upper else "L")[::-1]))
svd_op.samples(_shapes_samples(full=False))
svd_op.errors(lambda make: ((args + ({"full": False},), kind, text) for args, kind, text in _matrix_errors(make)))
svd_op.reference(lambda x, full: _packed(*np.linalg.svd(x, full)))
svdvals_op.samples(_shapes_samples())
svdvals_op.errors(_matrix_errors)
svdvals_op.reference(lambda x: np.sqrt(np.maximum(np.linalg.eigvalsh(np.matmul(
    x, np.swapaxes(x, -1, -2)))[..., ::-1][..., :min(x.shape[-2:])], 0)))
qr_op.samples(_shapes_samples(full=False))
qr_op.errors(lambda make: ((args + ({"full": False},), kind, text) for args, kind, text in _matrix_errors(make)))
qr_op.reference(lambda x, full: _packed(*np.linalg.qr(x, "complete" if full else "reduced")))
geqrf_op.samples(_shapes_samples())
geqrf_op.errors(_matrix_errors)
geqrf_op.reference(lambda x: _packed(*[np.swapaxes(p, -1, -2) if i == 0 else p
                                       for i, p in enumerate(np.linalg.qr(x, "raw"))]))
lu_op.samples(_shapes_samples(pivot=True))
lu_op.errors(lambda make: ((args + ({"pivot": True},), kind, text) for args, kind, text in _matrix_errors(make)))


@permutation_op.samples
def _permutation_samples(make: Any) -> Any:
    yield add(make(3, low=0, high=0.1), 3.0), {"rows": 4}
    yield add(make(2, 2, low=0, high=0.1), 2.0), {"rows": 2}


@permutation_op.reference
def _permutation_reference(pivots: Any, rows: int) -> Any:
    def matrix(swaps: Any) -> Any:
        p = np.eye(rows)
        for i, row in enumerate(swaps.astype(int) - 1):
            p[[i, row]] = p[[row, i]]
        return p.T
    return np.array([matrix(s) for s in pivots.reshape(-1, pivots.shape[-1])]).reshape(*pivots.shape[:-1], rows, rows)


@lu_op.reference
def _lu_reference(x: Any, pivot: bool) -> Any:
    import scipy.linalg
    m, n = x.shape[-2:]
    found = [scipy.linalg.lu_factor(a) for a in x.reshape(-1, m, n)]
    parts = [np.concatenate([a.reshape(-1), (swaps + 1.0)[:min(m, n)]]) for a, swaps in found]
    return np.array(parts).reshape(*x.shape[:-2], m * n + min(m, n))
