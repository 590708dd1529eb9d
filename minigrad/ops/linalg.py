"""Linear algebra under the names of `torch.linalg`. `factor.py` has the primitives, `older.py` PyTorch's older names.

Matrices are the last two dimensions; all before them are batches, which broadcast where there are two operands. Results
have gradients of any order, but for whole numbers and truth values. Read first `solve` and `svd`. Formulas without a
source are those of Golub and Van Loan, "Matrix Computations".
"""
from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Sequence
from math import inf, nan, prod
from typing import Any, NamedTuple

import numpy as np

from ..core.half import rounds_once
from ..core.out import writes
from ..core.shape import INT64, axes_of, axis_of, broadcast_shapes, fail, is_float
from ..core.tensor import Tensor
from ..devices.memory import layout
from . import factor
from .arrange import roll, tril, triu
from .convert import cast
from .creation import as_tensor, number
from .factor import LinAlgError, column, identity, matrices, row, turned, unpacked
from .join import cat, stack
from .math import abs, add, div, eq, gt, maximum, mul, sub, where
from .matmul import matmul
from .reduce import amax, amin, cumprod, sum, unit_of
from .reduce import vector_norm as vector_norm_op
from .take import reads_to_host
from .through import through
from .view import as_expanded, as_reshaped, movedim, permute, zeros_on
from .view import diagonal as diagonal_of

_INT32 = np.dtype("int32")


class SlogDet(NamedTuple):
    """What `slogdet` returns."""

    sign: Tensor
    logabsdet: Tensor


class QR(NamedTuple):
    """What `qr` returns."""

    Q: Tensor
    R: Tensor


class SVD(NamedTuple):
    """What `linalg.svd` returns."""

    U: Tensor
    S: Tensor
    Vh: Tensor


class Eigh(NamedTuple):
    """What `eigh` returns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class PLU(NamedTuple):
    """What `lu` returns."""

    P: Tensor
    L: Tensor
    U: Tensor


class LUFactor(NamedTuple):
    """What `lu_factor` returns."""

    LU: Tensor
    pivots: Tensor


class LUFactorEx(NamedTuple):
    """What `lu_factor_ex` returns."""

    LU: Tensor
    pivots: Tensor
    info: Tensor


class CholeskyEx(NamedTuple):
    """What `cholesky_ex` returns."""

    L: Tensor
    info: Tensor


class InvEx(NamedTuple):
    """What `inv_ex` returns."""

    inverse: Tensor
    info: Tensor


class SolveEx(NamedTuple):
    """What `solve_ex` returns."""

    result: Tensor
    info: Tensor


class Lstsq(NamedTuple):
    """What `lstsq` returns."""

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


# ---- arguments -------------------------------------------------------------------------------------------------------

def _batched(op: str, *given: Tensor) -> list[Tensor]:
    """Matrices expanded to common batch dimensions."""
    matrices(op, *[t.array.layout for t in given])
    lead = broadcast_shapes(op, *[t.array.layout.shape[:-2] for t in given])
    return [through(as_expanded, t, (*lead, *t.array.layout.shape[-2:])) for t in given]


def _is_vector(a: Tensor, b: Tensor) -> bool:
    """Is b, beside matrices a, a (batch of) vectors? PyTorch's rule."""
    x, y = a.array.layout, b.array.layout
    return y.ndim == 1 or y.ndim == x.ndim - 1 and y.shape == x.shape[:-1]


def _pair(op: str, dim: Any, ndim: int) -> tuple[int, int]:
    """Two different dimensions, made non-negative."""
    given = tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
    if len(given) != 2:
        fail(op, "dim must name two dimensions", list(given))
    a, b = (axis_of(d, ndim, op) if ndim > 1 else 0 for d in given)
    if a == b:
        fail(op, "dim must name two different dimensions", [f"dims {list(given)}", f"{ndim} dimensions"])
    return a, b


def _number(value: Any, op: str) -> float | None:
    """A tolerance as a number; a tensor's value is read."""
    if isinstance(value, Tensor):
        reads_to_host(f"{op}(atol=, rtol=) of tensors")
        value = value.item()
    return None if value is None else float(value)


def _flags(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros of int32: no error."""
    return zeros_on(shape, layout(like.array.layout.device, _INT32, ()))


def _flagged(A: Tensor, function: Callable[[Tensor], Tensor], fault: Callable[[Tensor], Tensor], check: bool,
             vector: bool = False) -> tuple[Tensor, Tensor]:
    """function(A), and what `fault` says of each matrix: 0 if it is right. The result is NaN where it is not."""
    try:
        return function(A), _flags(A, A.array.layout.shape[:-2])
    except LinAlgError:
        if check:
            raise
    info = fault(A.detach())
    wrong = column(gt(info, 0))
    found = function(where(column(wrong), identity(A.shape[-1], A), A))
    return where(wrong if vector else column(wrong), nan, found), info


def _first_zero(A: Tensor) -> Tensor:
    return lu_factor_ex(A).info


def _first_minor(A: Tensor, upper: bool) -> Tensor:
    """The size of the first leading minor that is not positive definite, or 0."""
    def of(a: np.ndarray) -> int:
        for k in range(1, len(a) + 1):
            try:
                np.linalg.cholesky(a[:k, :k])
            except np.linalg.LinAlgError:
                return k
        return 0
    host = (turned(A) if upper else A).numpy(force=True)
    found = [of(a) for a in host.reshape(-1, *host.shape[-2:])]
    return as_tensor(np.array(found, np.int32).reshape(host.shape[:-2]), device=A.device)


# ---- norms -----------------------------------------------------------------------------------------------------------

def vector_norm(x: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The norm sum(|x|^ord)^(1 / ord) over `dim` (an axis, several, or None for all), of any number of dimensions.

    ord = inf, -inf: the largest, the smallest |x|; 0: how many are not 0. The gradient is 0 where x or the norm is 0.

    >>> minigrad.linalg.vector_norm(minigrad.tensor([3.0, 4.0])).item()
    5.0
    """
    if isinstance(ord, (str, complex)) or ord is None:
        fail("linalg.vector_norm", "ord must be a number", repr(ord))
    x = x if dtype is None else cast(x, dtype)
    axes = axes_of(dim, x.array.layout.ndim, "linalg.vector_norm")
    p = float(number("linalg.vector_norm", "ord", ord))
    return vector_norm_op(x, p=p, axes=axes, keepdim=builtins.bool(keepdim))


def matrix_norm(A: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *,
                dtype: Any = None) -> Tensor:
    """A norm of matrices: "fro", the root of the sum of squares; "nuc", the sum of the singular values; inf (-inf), the
    largest (smallest) sum of |.| of a row; 1 (-1), of a column; 2 (-2), the largest (smallest) singular value.

    Shapes: A (*, m, n), or `dim` names its rows and columns -> (*), or with both as size 1 under `keepdim`.
    """
    x = A if dtype is None else cast(A, dtype)
    have = x.array.layout
    rows, columns = _pair("linalg.matrix_norm", dim, have.ndim)
    if not is_float(have.dtype):
        fail("linalg.matrix_norm", "needs a floating-point tensor", have, "convert with .float()")
    if ord == "fro":
        return vector_norm_op(x, p=2.0, axes=tuple(sorted((rows, columns))), keepdim=builtins.bool(keepdim))
    if ord not in ("nuc", 1, -1, 2, -2, inf, -inf):
        fail("linalg.matrix_norm", "ord must be 'fro', 'nuc', 1, -1, 2, -2, inf or -inf", repr(ord))
    extreme = amin if not isinstance(ord, str) and ord < 0 else _largest
    if ord in ("nuc", 2, -2):
        values = factor.svdvals_op(permute(x, (*[i for i in range(have.ndim) if i not in (rows, columns)],
                                               rows, columns)))
        found = sum(values, -1) if ord == "nuc" else extreme(values, -1)
    else:
        first, second = (rows, columns) if ord in (1, -1) else (columns, rows)
        found = extreme(sum(abs(x), first, True), second, True)
    shape = [1 if i in (rows, columns) else n for i, n in enumerate(have.shape) if keepdim or i not in (rows, columns)]
    return through(as_reshaped, found, tuple(shape))


def _largest(x: Tensor, dim: int, keepdim: bool = False) -> Tensor:
    """`amax` of numbers that are not negative: 0 of none."""
    return amax(x, dim, keepdim) if x.array.layout.shape[dim] else sum(x, dim, keepdim)


def norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """`matrix_norm` where `dim` names two dimensions (or is None, and A a matrix and `ord` given), else `vector_norm`.

    `ord` None means 2, or "fro" of matrices; without `dim` and `ord`, the 2-norm of all elements.
    """
    several = isinstance(dim, (tuple, list))
    n = A.array.layout.ndim
    if ord is None and dim is None or ord is None and several and len(dim) != 2:
        return vector_norm(A, 2, dim, keepdim, dtype=dtype)
    if several and len(dim) > 2 or dim is None and n not in (1, 2):
        fail("linalg.norm", "ord needs one or two dimensions", [A.array.layout, f"dim {dim}"])
    if several and len(dim) == 2 or dim is None and n == 2:
        return matrix_norm(A, "fro" if ord is None else ord, (0, 1) if dim is None else dim, keepdim, dtype=dtype)
    return vector_norm(A, 2 if ord is None else ord, dim, keepdim, dtype=dtype)


@writes("cast")
def cond(A: Tensor, p: Any = None) -> Tensor:
    """The condition number of matrices: norm(A, p) norm(A^-1, p); with p = None, 2 or -2 the quotient of the extreme
    singular values. Shapes: (*, m, n) -> (*); square for other p."""
    matrices("linalg.cond", A.array.layout, square=p not in (None, 2, -2))
    if p in (None, 2, -2):
        s = factor.svdvals_op(A)
        if not s.array.layout.shape[-1]:
            return sum(s, -1)                           # of none
        return div(s[..., -1], s[..., 0]) if p == -2 else div(s[..., 0], s[..., -1])
    inverse, info = inv_ex(A)
    singular = gt(info, 0)
    inverse = where(column(column(singular)), 0.0, inverse)     # of which there would be no singular values
    return where(singular, inf, mul(matrix_norm(A, p), matrix_norm(inverse, p)))


@writes("cast")
def matrix_rank(A: Tensor, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Tensor:
    """How many singular values of matrices are larger than max(atol, rtol * the largest): (*, m, n) -> (*), int64.

    `rtol` is by default max(m, n) times the machine epsilon, or 0 where `atol` is given. `tol` is an older name of
    `atol`. The tolerances are numbers, or tensors with a value for each matrix. `hermitian`: by eigenvalues.
    """
    have = A.array.layout
    matrices("linalg.matrix_rank", have, square=hermitian)
    atol = tol if atol is None else atol
    if not prod(have.shape[-2:]):
        return zeros_on(have.shape[:-2], layout(have.device, INT64, ()))
    s = abs(eigvalsh(A)) if hermitian else factor.svdvals_op(A)
    least = factor.cutoff(have, None if isinstance(atol, Tensor) else atol, None if isinstance(rtol, Tensor) else rtol)
    relative = rtol if isinstance(rtol, Tensor) else 0.0 if isinstance(atol, Tensor) and rtol is None else least[1]
    bound = maximum(mul(amax(s, -1), relative), as_tensor(0.0, s.dtype, s.device) if atol is None else
                    cast(atol, s.dtype) if isinstance(atol, Tensor) else as_tensor(least[0], s.dtype, s.device))
    if bound.array.layout.ndim > s.array.layout.ndim - 1:
        s = through(as_expanded, s, (*bound.array.layout.shape, s.array.layout.shape[-1]))
    return sum(gt(s, column(bound)), -1)


# ---- determinant, inverse, powers ------------------------------------------------------------------------------------

def det(A: Tensor) -> Tensor:
    """The determinants of square matrices. Shapes: (*, n, n) -> (*). Its gradient is that of singular matrices too."""
    return factor.det_op(A)


def slogdet(A: Tensor) -> SlogDet:
    """(sign, log |det A|) of square matrices, where the determinant itself may overflow. Shapes: (*, n, n) -> (*) each;
    (0, -inf) for singular ones. The sign has no gradient."""
    return SlogDet(factor.sign_of_det(A), factor.logabsdet(A))


def inv(A: Tensor) -> Tensor:
    """The inverses of square matrices: (*, n, n) -> (*, n, n). LinAlgError for a singular one.

    >>> minigrad.linalg.inv(minigrad.tensor([[2.0, 0.0], [0.0, 4.0]])).tolist()
    [[0.5, 0.0], [0.0, 0.25]]
    """
    return factor.inverse(A)


def inv_ex(A: Tensor, *, check_errors: bool = False) -> InvEx:
    """(inverse, info): `inv`, and int32 numbers: 0, or where a matrix is singular the number, from 1, of the pivot that
    is 0. The inverse is NaN there, and LinAlgError with `check_errors`."""
    return InvEx(*_flagged(A, inv, _first_zero, check_errors))


@writes("cast")
def pinv(A: Tensor, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Tensor:
    """The Moore-Penrose pseudoinverses: (*, m, n) -> (*, n, m). Singular values up to max(atol, rtol * the largest)
    count as 0; `rtol` is by default max(m, n) times the machine epsilon, or 0 where `atol` is given. `rcond` is an
    older name of `rtol`. The tolerances are numbers, or tensors with a value for each matrix. Derivatives are those of
    matrices of one rank (Golub and Pereyra 1973)."""
    rtol = rcond if rtol is None else rtol
    several = [t.array.layout.shape for t in (atol, rtol) if isinstance(t, Tensor) and t.numel() != 1]
    if several:                                     # one tolerance for each matrix
        shape = broadcast_shapes("pinv", A.array.layout.shape[:-2], *several)
        each = [through(as_expanded, t, shape).reshape(-1) if isinstance(t, Tensor) else [t] * prod(shape)
                for t in (atol, rtol)]
        flat = A.expand(*shape, *A.shape[-2:]).reshape(prod(shape), *A.shape[-2:])
        found = [pinv(a, hermitian=hermitian, atol=x, rtol=y) for a, x, y in zip(flat, *each, strict=True)]
        return (stack(found) if found else pinv(flat)).reshape(*shape, A.shape[-1], A.shape[-2])
    return factor.pinv_op(A, atol=_number(atol, "pinv"), rtol=_number(rtol, "pinv"), hermitian=bool(hermitian))


@writes("cast")
def matrix_power(A: Tensor, n: int) -> Tensor:
    """A^n of square matrices, by repeated squaring; for n < 0 the power of the inverse. Shapes: (*, k, k) both."""
    matrices("linalg.matrix_power", A.array.layout, square=True)
    n = operator.index(n)
    if n == 0:
        return add(mul(A, 0.0), identity(A.shape[-1], A))
    square, found = (factor.inverse(A) if n < 0 else A), None
    n = builtins.abs(n)
    while n:
        if n & 1:
            found = square if found is None else matmul(found, square)
        n >>= 1
        square = matmul(square, square) if n else square
    return mul(found, 1.0) if found is A else found        # type: ignore[return-value]


def matrix_exp(A: Tensor) -> Tensor:
    """The exponential of square matrices: sum A^k / k!, of A / 2^s by 18 terms, squared s times (Moler and Van Loan
    2003, method 3). Shapes: (*, n, n) both. The largest norm is read, to choose s."""
    matrices("linalg.matrix_exp", A.array.layout, square=True)
    if not A.numel():
        return mul(A, 1.0)
    reads_to_host("linalg.matrix_exp")
    size = amax(matrix_norm(A.detach(), 1)).item()
    squarings = max(0, int(np.ceil(np.log2(size)))) if 0 < size < inf else 0
    x = mul(cast(A, np.float64), 2.0 ** -squarings)         # each squaring doubles the error
    one = identity(A.shape[-1], x)
    found = add(mul(x, 1 / 18), one)
    for k in range(17, 0, -1):                      # Horner's rule
        found = add(mul(matmul(x, found), 1 / k), one)
    for _ in range(squarings):
        found = matmul(found, found)
    return cast(found, A.dtype)


def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of two or more matrices, in the order that needs the fewest multiplications (Cormen et al., chapter
    15.2). The first and the last may be vectors: a row and a column."""
    given = list(tensors)
    if len(given) < 2:
        fail("linalg.multi_dot", "needs at least two tensors", len(given))
    for i, t in enumerate(given):
        wanted = (1, 2) if i in (0, len(given) - 1) else (2,)
        if t.array.layout.ndim not in wanted:
            fail("linalg.multi_dot", "needs matrices; the first and the last may be vectors",
                 [t.array.layout for t in given])
    shape = (*given[0].array.layout.shape[:-1], *given[-1].array.layout.shape[1:])
    if given[0].array.layout.ndim == 1:
        given[0] = through(as_reshaped, given[0], (1, given[0].numel()))
    if given[-1].array.layout.ndim == 1:
        given[-1] = column(given[-1])
    return through(as_reshaped, _chained(given), shape)


def _chained(given: list[Tensor]) -> Tensor:
    """The product of matrices in the cheapest order, which a table over all runs of them gives."""
    sizes = [given[0].array.layout.shape[0], *[t.array.layout.shape[1] for t in given]]
    best: dict[tuple[int, int], tuple[int, int]] = {(i, i): (0, i) for i in range(len(given))}
    for length in range(1, len(given)):
        for i in range(len(given) - length):
            j = i + length
            best[i, j] = min((best[i, k][0] + best[k + 1, j][0] + sizes[i] * sizes[k + 1] * sizes[j + 1], k)
                             for k in range(i, j))
    return _product(given, best, 0, len(given) - 1)


def _product(given: list[Tensor], best: dict[tuple[int, int], tuple[int, int]], i: int, j: int) -> Tensor:
    if i == j:
        return given[i]
    k = best[i, j][1]
    return matmul(_product(given, best, i, k), _product(given, best, k + 1, j))


# ---- solve -----------------------------------------------------------------------------------------------------------

def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """The solution X of A X = B, or with `left=False` of X A = B.

    Shapes: A (*, n, n), B (*, n, k), or (*, k, n) without `left` -> like B; batch dimensions broadcast. B may be a
    vector (n,), or (*, n) with A's batch dimensions. LinAlgError for a singular matrix.

    >>> minigrad.linalg.solve(minigrad.tensor([[2.0, 0.0], [0.0, 4.0]]), minigrad.ones(2)).tolist()
    [0.5, 0.25]
    """
    matrices("linalg.solve", A.array.layout, square=True)
    if _is_vector(A, B):
        if not left:
            fail("linalg.solve", "left=False needs matrices", [A.array.layout, B.array.layout])
        return solve(A, column(B))[..., 0]
    if not left:
        return turned(solve(turned(A), turned(B)))
    return factor.solve_op(*_batched("linalg.solve", A, B))


def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> SolveEx:
    """(result, info): `solve`, and the numbers of `inv_ex`; the result is NaN where a matrix is singular."""
    return SolveEx(*_flagged(A, lambda a: solve(a, B, left=left), _first_zero, check_errors, _is_vector(A, B)))


def solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    """The solution X of A X = B, or with `left=False` of X A = B, where only the upper (or lower) triangle of A is
    read; with `unitriangular` its diagonal counts as 1. Shapes as in `solve`, without vectors."""
    matrices("linalg.solve_triangular", A.array.layout, square=True)
    if not left:
        return turned(solve_triangular(turned(A), turned(B), upper=not upper, unitriangular=unitriangular))
    a, b = _batched("linalg.solve_triangular", A, B)
    return factor.triangular_op(a, b, upper=bool(upper), unit=bool(unitriangular))


@writes("cast")
def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> Lstsq:
    """(solution, residuals, rank, singular values) of min ||A X - B||: the solution with the smallest norm, pinv(A) B.

    Shapes: A (*, m, n), B (*, m, k) or (*, m) -> solution (*, n, k), residuals (*, k), rank (*). `rcond`: singular
    values up to rcond * the largest count as 0. `driver` says which of the others are given, as in PyTorch, and not
    empty: the residuals with "gels", "gelsd" and "gelss", where m > n and all matrices have rank n; the rank but with
    "gels"; the singular values with "gelsd" and "gelss". None is "gelsy".
    """
    if driver not in (None, "gels", "gelsy", "gelsd", "gelss"):
        fail("linalg.lstsq", "driver must be 'gels', 'gelsy', 'gelsd' or 'gelss'", repr(driver))
    vector = _is_vector(A, B)
    a, b = _batched("linalg.lstsq", A, column(B) if vector else B)
    if a.array.layout.shape[-2] != b.array.layout.shape[-2]:
        fail("linalg.lstsq", "A (*, m, n) and B (*, m, k) must have the same m", [A.array.layout, B.array.layout])
    m, n = a.array.layout.shape[-2:]
    rcond = None if driver == "gels" else rcond             # it takes A for a matrix of full rank
    have = a.array.layout
    unit = unit_of(a, (have.ndim - 2, have.ndim - 1)) if is_float(have.dtype) else 1.0
    solution = matmul(pinv(div(a, unit), rtol=rcond), div(b, unit))        # powers of pinv(A) stay in range
    nothing = zeros_on((0,), a.array.layout)
    values = svdvals(a) if driver in ("gelsd", "gelss") else nothing
    rank = matrix_rank(a.detach(), rtol=rcond)
    residuals = nothing
    if m > n and driver in ("gels", "gelsd", "gelss") and builtins.bool(eq(rank, n).all()):
        off = sub(matmul(a, solution), b)
        residuals = sum(mul(off, off), -2)
    rank = rank if driver != "gels" else zeros_on((0,), rank.array.layout)
    return Lstsq(solution[..., 0] if vector else solution, residuals, rank, values)


@writes("cast")
def tensorsolve(A: Tensor, B: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """The X with tensordot(A, X, X.ndim) = B. `dims` of A are moved to its end first. Shapes: A (*B's shape, *X's
    shape), with as many elements in both parts."""
    if dims is not None:
        moved = tuple([axis_of(d, A.array.layout.ndim, "linalg.tensorsolve") for d in dims])
        A = movedim(A, moved, tuple(range(A.array.layout.ndim - len(moved), A.array.layout.ndim)))
    have, n = A.array.layout, B.array.layout.ndim
    rest, count = have.shape[n:], prod(have.shape[n:])
    if count * count != have.size or count != B.numel():
        fail("linalg.tensorsolve", "A must have B's shape, then a shape with as many elements", [have, B.array.layout])
    found = solve(through(as_reshaped, A, (count, count)), through(as_reshaped, B, (count,)))
    return through(as_reshaped, found, rest)


@writes("cast")
def tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """The inverse for `tensordot(A, ., ind)`: the first `ind` dimensions of A as rows, the others as columns. Shapes:
    (*rows, *columns) -> (*columns, *rows), with as many elements in both parts."""
    shape = A.array.layout.shape
    if operator.index(ind) < 1:
        fail("linalg.tensorinv", "ind must be positive", ind)
    rows, columns = shape[:ind], shape[ind:]
    if prod(rows) != prod(columns):
        fail("linalg.tensorinv", "the first ind sizes must multiply to the product of the others",
             [A.array.layout, f"ind {ind}"])
    return through(as_reshaped, inv(through(as_reshaped, A, (prod(rows), prod(columns)))), (*columns, *rows))


# ---- factorizations --------------------------------------------------------------------------------------------------

def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """The lower triangular L with A = L L^T of symmetric positive definite matrices (*, n, n), or with `upper` L^T.

    Of A the lower triangle is read (the upper one with `upper`); its gradient is symmetric (Murray 2016). LinAlgError
    for a matrix that is not positive definite.
    """
    return turned(factor.cholesky_op(turned(A))) if upper else factor.cholesky_op(A)


def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> CholeskyEx:
    """(L, info): `cholesky`, and int32 numbers: 0, or the size of the first leading minor that is not positive
    definite. L is NaN there, and LinAlgError with `check_errors`."""
    found, info = _flagged(A, lambda a: cholesky(a, upper=upper), lambda a: _first_minor(a, upper), check_errors)
    return CholeskyEx(found, info)


def qr(A: Tensor, mode: str = "reduced") -> QR:
    """(Q, R) with A = Q R: Q has orthonormal columns, R is upper triangular.

    Shapes: A (*, m, n) -> Q (*, m, k), R (*, k, n), where k = min(m, n), or m with mode "complete", of which the
    gradient is known for m <= n only. With mode "r", Q is empty.
    """
    have = A.array.layout
    matrices("linalg.qr", have)
    if mode not in ("reduced", "complete", "r"):
        fail("linalg.qr", "mode must be 'reduced', 'complete' or 'r'", repr(mode))
    full = mode == "complete"
    q, r = unpacked(factor.qr_op(A, full=full), *factor.qr_shapes(have.shape, full))
    return QR(zeros_on((0,), have) if mode == "r" else q, r)


def eigh(A: Tensor, UPLO: str = "L") -> Eigh:
    """(eigenvalues, eigenvectors) of symmetric matrices: A = V diag(w) V^T, w ascending. Shapes: (*, n, n) -> w (*, n),
    V (*, n, n), eigenvectors as columns.

    Only the lower triangle is read ("U": the upper); the gradient is that of symmetric matrices. Equal eigenvalues do
    not turn their vectors into each other.
    """
    if not isinstance(UPLO, str) or UPLO.upper() not in ("L", "U"):
        fail("linalg.eigh", "UPLO must be 'L' or 'U'", repr(UPLO))
    n = A.array.layout.shape[-1] if A.array.layout.ndim else 0
    v, w = unpacked(factor.eigh_op(A, upper=UPLO.upper() == "U"), (n, n), (n,))
    return Eigh(w, v)


def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of symmetric matrices, ascending: (*, n, n) -> (*, n). Options as in `eigh`."""
    return eigh(A, UPLO).eigenvalues


def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> SVD:
    """(U, S, Vh) with A = U diag(S) Vh: U and Vh^T have orthonormal columns, S descends.

    Shapes: A (*, m, n) -> U (*, m, m), S (*, k), Vh (*, n, n), k = min(m, n); without `full_matrices` U (*, m, k) and
    Vh (*, k, n). `driver` is there for PyTorch's signature. Columns beyond k have no gradient, and equal singular
    values do not turn their vectors into each other (Townsend 2016).
    """
    matrices("linalg.svd", A.array.layout)
    full = builtins.bool(full_matrices)
    return SVD(*unpacked(factor.svd_op(A, full=full), *factor.svd_shapes(A.array.layout.shape, full)))


def svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """The singular values, descending: (*, m, n) -> (*, min(m, n)). `driver` is there for PyTorch's signature."""
    return factor.svdvals_op(A)


def lu_factor(A: Tensor, *, pivot: bool = True) -> LUFactor:
    """(LU, pivots): L (without its diagonal of ones) and U in one matrix, and with which row, counted from 1, each row
    was exchanged. Shapes: A (*, m, n) -> LU (*, m, n), pivots (*, min(m, n)) int32. Without `pivot`, none is."""
    have = A.array.layout
    matrices("linalg.lu_factor", have)
    m, n = have.shape[-2:]
    made, swaps = unpacked(factor.lu_op(A, pivot=builtins.bool(pivot)), (m, n), (min(m, n),))
    return LUFactor(made, cast(swaps.detach(), _INT32))         # whole numbers: they have no gradient


def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> LUFactorEx:
    """(LU, pivots, info): `lu_factor`, and int32 numbers: which element of U's diagonal, counted from 1, is the first
    0, or 0 for none. With `check_errors` such a 0 is a LinAlgError."""
    made, pivots = lu_factor(A, pivot=pivot)
    zero = eq(diagonal_of(made.detach(), 0, -2, -1), 0)
    n = zero.array.layout.shape[-1]
    places = as_tensor(np.arange(1, n + 1), device=A.device)
    first = amin(where(zero, places, n + 1), -1) if n else zeros_on(zero.array.layout.shape[:-1],
                                                                    layout(A.array.layout.device, INT64, ()))
    info = cast(where(gt(first, n), 0, first), _INT32)
    if check_errors and builtins.bool(gt(info, 0).any()):
        raise LinAlgError(f"[linalg.lu_factor_ex] U has a 0 on its diagonal: A is singular; got {A.array.layout}")
    return LUFactorEx(made, pivots, info)


def lu(A: Tensor, *, pivot: bool = True) -> PLU:
    """(P, L, U) with A = P L U: a permutation matrix, lower triangular with ones on the diagonal, upper triangular.

    Shapes: A (*, m, n) -> P (*, m, m), L (*, m, k), U (*, k, n), k = min(m, n). Without `pivot`, P is empty.
    """
    made, pivots = lu_factor(A, pivot=pivot)
    p, lower, upper = unpack_lu(made, pivots)
    return PLU(p if pivot else zeros_on((0,), A.array.layout), lower, upper)


def unpack_lu(made: Tensor, pivots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """P, L and U of what `lu_factor` gave."""
    m, n = made.array.layout.shape[-2:]
    k = min(m, n)
    p = factor.permutation_op(cast(pivots, made.dtype), rows=m)
    return p, add(tril(made[..., :k], -1), cast(_eye(m, k, made), made.dtype)), triu(made[..., :k, :])


def _eye(m: int, n: int, like: Tensor) -> Tensor:
    return as_tensor(np.eye(m, n), device=like.device)


def lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False) -> Tensor:
    """The solution X of A X = B, given (LU, pivots) = `lu_factor(A)`; with `left=False` of X A = B, with `adjoint` of
    A^T X = B. Shapes as in `solve`, without vectors."""
    matrices("linalg.lu_solve", LU.array.layout, square=True)
    matrices("linalg.lu_solve", B.array.layout)
    have = pivots.array.layout
    if have.dtype.kind not in "iu" or have.shape != LU.array.layout.shape[:-1]:
        fail("linalg.lu_solve", "pivots must be integers (*, n) for LU (*, n, n)", [LU.array.layout, have])
    if not left:
        return turned(lu_solve(LU, pivots, turned(B), adjoint=not adjoint))
    p = factor.permutation_op(cast(pivots, LU.dtype), rows=LU.array.layout.shape[-1])
    if adjoint:
        inner = solve_triangular(turned(LU), B, upper=False)
        return matmul(p, solve_triangular(turned(LU), inner, upper=True, unitriangular=True))
    if B.array.layout.shape[-2] != LU.array.layout.shape[-1]:
        fail("linalg.lu_solve", "LU (*, n, n) and B (*, n, k) must have the same n", [LU.array.layout, B.array.layout])
    inner = solve_triangular(LU, matmul(turned(p), B), upper=False, unitriangular=True)
    return solve_triangular(LU, inner, upper=True)


@writes("cast")
def householder_product(A: Tensor, tau: Tensor) -> Tensor:
    """The first n columns of the product of the reflections 1 - tau_i v_i v_i^T, where v_i is column i of A below the
    diagonal, with 1 on it: what `geqrf` gives. Shapes: A (*, m, n), m >= n, tau (*, k), k <= n -> (*, m, n)."""
    have, given = A.array.layout, tau.array.layout
    matrices("linalg.householder_product", have)
    m, n = have.shape[-2:]
    k = given.shape[-1] if given.ndim else 0
    if m < n or k > n or given.shape != (*have.shape[:-2], k) or given.dtype != have.dtype:
        fail("linalg.householder_product", "A must be (*, m, n) with m >= n, tau (*, k) with k <= n, of one dtype",
             [have, given])
    return reflected(A, tau, add(mul(A, 0.0), cast(_eye(m, n, A), have.dtype)), reverse=True)


def reflected(A: Tensor, tau: Tensor, other: Tensor, reverse: bool) -> Tensor:
    """`other` (*, m, c) after the reflections of `householder_product`, the last one first with `reverse`."""
    k = tau.array.layout.shape[-1]
    low = add(tril(A, -1), cast(_eye(A.array.layout.shape[-2], A.array.layout.shape[-1], A), A.dtype))
    for i in reversed(range(k)) if reverse else range(k):
        v = low[..., i:i + 1]
        other = sub(other, matmul(mul(v, column(tau[..., i:i + 1])), matmul(turned(v), other)))
    return other


# ---- products and others ---------------------------------------------------------------------------------------------

def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """The sums of products along `dim`, of tensors that broadcast."""
    shape = broadcast_shapes("linalg.vecdot", x.array.layout.shape, y.array.layout.shape)
    for t in (x, y):
        if not t.array.layout.ndim:
            fail("linalg.vecdot", "needs at least one dimension", [x.array.layout, y.array.layout])
    if not is_float(x.array.layout.dtype) and not is_float(y.array.layout.dtype):
        return sum(mul(x, y), dim)
    a = axis_of(dim, len(shape), "linalg.vecdot")
    x, y = (movedim(through(as_expanded, t, shape), a, -1) for t in (x, y))
    return through(as_reshaped, matmul(row(x), column(y)), tuple([n for i, n in enumerate(shape) if i != a]))


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The diagonals of matrices, as the last dimension: a view. `minigrad.diagonal` takes the first two dimensions."""
    return diagonal_of(A, offset, dim1, dim2)


def vander(x: Tensor, N: int | None = None) -> Tensor:
    """The powers x^0, x^1, ..., x^(N - 1) of each number, as the last dimension: (*, n) -> (*, n, N); N is n by
    default."""
    x = x if x.array.layout.ndim else through(as_reshaped, x, (1,))
    have = x.array.layout
    n = have.shape[-1] if N is None else operator.index(N)
    if n <= 1 and N is not None:
        fail("linalg.vander", "N must be larger than 1", N)
    x = x if is_float(have.dtype) else cast(x, INT64)
    wide = through(as_expanded, column(x), (*have.shape, max(n - 1, 0)))
    ones = zeros_on((*have.shape, 1), x.array.layout)
    return cat([add(ones, 1), cumprod(wide, -1)], -1)[..., :n]


@rounds_once
def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The cross products of vectors in three dimensions: `dim` has size 3 in both, the other dimensions broadcast.

        out = (a1 b2 - a2 b1, a2 b0 - a0 b2, a0 b1 - a1 b0)
    """
    have, given = input.array.layout, other.array.layout
    if have.ndim != given.ndim:
        fail("linalg.cross", "both tensors must have as many dimensions", [have, given])
    a = axis_of(dim, have.ndim, "linalg.cross")
    if not have.ndim or have.shape[a] != 3 or given.shape[a] != 3:
        fail("linalg.cross", f"dimension {dim} must have size 3 in both", [have, given])
    ahead, behind = (lambda t: roll(t, -1, a)), (lambda t: roll(t, 1, a))
    return sub(mul(ahead(input), behind(other)), mul(behind(input), ahead(other)))
