"""Products, distances and differences of vectors and matrices: cross and Kronecker products, `cdist`, traces, finite
differences and integrals, covariance, running logsumexp, combinations.

All are composites of a few ops; their text is what runs on every device and what is differentiated.
"""
from __future__ import annotations

import builtins
import itertools
import math
import operator
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..core.half import rounds_once
from ..core.shape import BOOL, INT64, axis_of, broadcast_shapes, fail, is_float, promote, result_type
from ..core.tensor import Tensor
from ..core.warning import warn
from .arguments import named
from .arguments import sizes as shape_given
from .convert import cast
from .creation import as_tensor, number
from .formula import formula, logaddexp, promoting, selection
from .index import index_select
from .join import cat, stack, tensor_split
from .linalg import cross as cross_op
from .math import add, div, eq, gt, isinf, mul, ne, root, square, sub, where
from .matmul import matmul, outer
from .reduce import cumsum, mean, sum, unit_of
from .reduce import vector_norm as vector_norm_op
from .take import reads_to_host
from .through import through
from .view import as_expanded, as_matrix_transpose, as_narrowed, as_reshaped, diag_embed, diagonal, reshape

# ---- products --------------------------------------------------------------------------------------------------------

@formula
def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The cross products of vectors in three dimensions, along `dim`: by default the first dimension of size 3.

        out = (a1 b2 - a2 b1, a2 b0 - a0 b2, a0 b1 - a1 b0)

    >>> cross(minigrad.tensor([1.0, 0.0, 0.0]), minigrad.tensor([0.0, 1.0, 0.0])).tolist()
    [0.0, 0.0, 1.0]
    """
    if dim is None:
        shape = broadcast_shapes("cross", input.array.layout.shape, other.array.layout.shape)
        if 3 not in shape:
            fail("cross", "a dimension must have size 3", [input.array.layout, other.array.layout])
        dim = shape.index(3) - len(shape)
    return cross_op(input, other, dim=dim)


@promoting
def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product: each element of `input` times all of `other`. Shapes: (a, b, ...), (c, d, ...) -> (a c,
    b d, ...); the one with fewer dimensions gets leading ones of size 1."""
    n = builtins.max(input.array.layout.ndim, other.array.layout.ndim)
    a, b = ((1,) * (n - len(t.array.layout.shape)) + t.array.layout.shape for t in (input, other))
    x = through(as_reshaped, input, tuple([m for size in a for m in (size, 1)]))
    y = through(as_reshaped, other, tuple([m for size in b for m in (1, size)]))
    return through(as_reshaped, mul(x, y), tuple([p * q for p, q in zip(a, b, strict=True)]))


@formula
def trace(input: Tensor) -> Tensor:
    """The sum of the main diagonal of a matrix. Shapes: (m, n) -> ()."""
    if input.array.layout.ndim != 2:
        fail("trace", "needs a matrix", input.array.layout)
    return sum(diagonal(input))


@promoting
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * (the outer product of two vectors). Shapes: vec1 (m,), vec2 (n,), input broadcasts to (m,
    n). Without `input` where beta is 0."""
    product = outer(vec1, vec2)
    shape = product.array.layout.shape
    if broadcast_shapes("addr", input.array.layout.shape, shape) != shape:
        fail("addr", "input must broadcast to the outer product", [input.array.layout, product.array.layout])
    dtype = promote(input.array.layout.dtype, product.array.layout.dtype)
    for factor in (beta, alpha):
        if isinstance(factor, bool) and dtype != BOOL or isinstance(factor, float) and not is_float(dtype):
            fail("addr", f"beta and alpha must be numbers of the kind of the tensors, {dtype}", [beta, alpha])
    if dtype == BOOL:
        alpha, beta = bool(alpha), bool(beta)
    product = product if alpha == 1 else mul(product, alpha)
    return add(input if beta == 1 else mul(input, beta), product) if beta else cast(product, dtype)


# ---- distances -------------------------------------------------------------------------------------------------------

@formula
def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    """The p-norm distances between each vector of x1 and each of x2. Shapes: (*, m, k), (*, n, k) -> (*, m, n); batch
    dimensions broadcast. p = inf: the largest difference; p = 0: how many differ.

    For p = 2 and more than 25 vectors, |a - b|^2 = |a|^2 + |b|^2 - 2 a b by a product of matrices, which cancels where
    distances are small; `compute_mode` "donot_use_mm_for_euclid_dist" forbids it, "use_mm_for_euclid_dist" asks for it.
    The gradient is 0 where a distance is 0.
    """
    a, b = x1.array.layout, x2.array.layout
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-1]:
        fail("cdist", "x1 must be (*, m, k) and x2 (*, n, k)", [a, b])
    if not is_float(a.dtype) or not is_float(b.dtype):
        fail("cdist", "needs floating-point tensors", [a, b], "convert with .float()")
    if p < 0:
        fail("cdist", "p must not be negative", p)
    modes = ("use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist")
    how = modes[0] if compute_mode is None else compute_mode
    if how not in modes:
        raise ValueError(f"[cdist] compute_mode must be one of {', '.join(modes)}; got {how!r}")
    large = builtins.max(a.shape[-2], b.shape[-2]) > 25
    if p == 2 and (how == modes[1] or how == modes[0] and large):
        squares = add(sum(square(x1), -1, True), through(as_matrix_transpose, sum(square(x2), -1, True)))
        squares = sub(squares, mul(matmul(x1, through(as_matrix_transpose, x2)), 2.0))
        return root(where(gt(squares, 0), squares, 0.0))
    x = through(as_reshaped, x1, (*a.shape[:-1], 1, a.shape[-1]))
    y = through(as_reshaped, x2, (*b.shape[:-2], 1, *b.shape[-2:]))
    apart = sub(x, y)
    if not apart.array.layout.shape[-1]:
        return sum(apart, -1)
    return _length("cdist", apart, p)


def _length(op: str, apart: Tensor, p: float) -> Tensor:
    """The norms along the last dimension; NaN beside NaN for p = 0, too."""
    found = vector_norm_op(apart, p=float(number(op, "p", p)), axes=(apart.array.layout.ndim - 1,), keepdim=False)
    return found if p else add(found, sum(where(ne(apart, apart), apart, 0.0), -1))


@formula
def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm distances between all pairs of rows i < j, in the order (0, 1), (0, 2), ..., (1, 2), .... Shapes: (n,
    k) -> (n (n - 1) / 2,)."""
    have = input.array.layout
    if have.ndim != 2:
        fail("pdist", "needs a matrix (n, k)", have)
    if not is_float(have.dtype):
        fail("pdist", "needs a floating-point tensor", have, "convert with .float()")
    if p < 0:
        fail("pdist", "p must not be negative", p)
    first, second = (as_tensor(i, device=input.device) for i in np.triu_indices(have.shape[0], 1))
    apart = sub(index_select(input, 0, first), index_select(input, 0, second))
    if not have.shape[1]:
        return sum(apart, -1)
    return _length("pdist", apart, p)


@formula
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of input - other, which broadcast: one number."""
    apart = sub(input, other)
    if not is_float(apart.array.layout.dtype):
        fail("dist", "needs floating-point tensors", [input.array.layout, other.array.layout], "convert with .float()")
    axes = tuple(range(apart.array.layout.ndim))
    return vector_norm_op(apart, p=float(number("dist", "p", p)), axes=axes, keepdim=False)


@formula
def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Each slice along `dim` whose p-norm is larger than `maxnorm` scaled down to it, divided by norm + 1e-7."""
    have = input.array.layout
    if have.ndim < 2 or p <= 0 or maxnorm < 0:
        fail("renorm", "needs at least two dimensions, a positive p and a maxnorm that is not negative",
             [have, f"p {p}", f"maxnorm {maxnorm}"])
    a = axis_of(dim, have.ndim, "renorm")
    others = tuple([i for i in range(have.ndim) if i != a])
    size = vector_norm_op(input, p=float(number("renorm", "p", p)), axes=others, keepdim=True)
    return mul(input, where(gt(size, maxnorm), div(maxnorm, add(size, 1e-7)), 1.0))


# ---- differences and integrals ---------------------------------------------------------------------------------------

def _part(x: Tensor, a: int, start: int, length: int) -> Tensor:
    return through(as_narrowed, x, a, start, builtins.max(length, 0))


@promoting
def diff(input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None,
         append: Tensor | None = None) -> Tensor:
    """The differences of neighbours along `dim`, `n` times: out[i] = x[i + 1] - x[i]. `prepend` and `append` are
    joined to the ends first, unless n is 0. The size of `dim` shrinks by n; of bools it is whether they differ.

    >>> diff(minigrad.tensor([1, 4, 9])).tolist()
    [3, 5]
    """
    have = input.array.layout
    if not have.ndim:
        fail("diff", "needs at least one dimension", have)
    if operator.index(n) < 0:
        fail("diff", "n must not be negative", n)
    a = axis_of(dim, have.ndim, "diff")
    if n == 0:
        return input.clone()
    parts = [t for t in (prepend, input, append) if t is not None]
    x = cat(parts, a) if len(parts) > 1 else input
    for _ in range(builtins.min(n, x.array.layout.shape[a])):
        m = x.array.layout.shape[a] - 1
        low, high = _part(x, a, 0, m), _part(x, a, 1, m)
        x = ne(high, low) if x.array.layout.dtype == BOOL else sub(high, low)
    return x if x is not input else input.clone()


def _slabs(name: str, y: Tensor, x: Tensor | None, dx: Any, dim: int) -> tuple[Tensor, Any]:
    """The sums of neighbours along `dim`, and how far apart they are: numbers or a tensor."""
    have = y.array.layout
    if not have.ndim:
        fail(name, "needs at least one dimension", have)
    a = axis_of(dim, have.ndim, name)
    n = have.shape[a]
    sums = add(_part(y, a, 0, n - 1), _part(y, a, builtins.min(n, 1), n - 1))
    if x is None:
        return sums, dx
    at = x.array.layout
    if at.ndim == 1 and at.shape[0] != n or at.ndim > 1 and at.shape[axis_of(dim, at.ndim, name)] not in (n, 1):
        fail(name, f"x must have as many points as y along dimension {dim}", [have, at])
    steps = diff(x, dim=0 if at.ndim == 1 else dim)
    if at.ndim == 1:
        steps = through(as_reshaped, steps, (builtins.max(n - 1, 0), *(1,) * (have.ndim - 1 - a)))
    return sums, steps


@formula
def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """The integral of y along `dim` by the trapezoidal rule: the sum of (y[i] + y[i + 1]) / 2 times the distance. The
    points are `x` (a vector, or like y), or `dx` apart. Shapes: y (*, n) -> (*)."""
    sums, steps = _slabs("trapezoid", y, x, dx, dim)
    return div(sum(mul(sums, steps), dim), 2.0)


@formula
def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """The integrals of y up to each point but the first, by the trapezoidal rule; arguments as in `trapezoid`. Shapes:
    y (*, n) -> (*, n - 1)."""
    sums, steps = _slabs("cumulative_trapezoid", y, x, dx, dim)
    return div(cumsum(mul(sums, steps), dim), 2.0)


trapz = trapezoid


@rounds_once
def gradient(input: Tensor, *, spacing: Any = 1, dim: Any = None, edge_order: int = 1) -> tuple[Tensor, ...]:
    """The derivative along each of `dim` (by default all), from the differences of neighbours: central ones inside,
    one-sided ones of order `edge_order` (1 or 2) at the ends. A tuple.

    `spacing`: the distance of neighbours, one number or one for each dimension, or for each a vector of coordinates,
    with which the second-order formula for unequal distances is used (Fornberg 1988).
    """
    have = input.array.layout
    given = range(have.ndim) if dim is None else dim if isinstance(dim, (tuple, list)) else (dim,)
    axes = [axis_of(d, have.ndim, "gradient") for d in given]
    spacing = 1 if spacing is None else spacing
    several = isinstance(spacing, (tuple, list))
    steps = list(spacing) if several else [spacing] * len(axes)
    if edge_order not in (1, 2) or len(steps) != len(axes) or len(set(axes)) != len(axes):
        fail("gradient", "edge_order must be 1 or 2, spacing one or one for each of different dimensions",
             [have, f"dim {list(given)}", f"edge_order {edge_order}", f"{len(steps)} spacings"])
    for a in axes:
        if have.shape[a] < edge_order + 1:
            fail("gradient", f"dimension {a} needs at least {edge_order + 1} elements", have)
    return tuple([_derivative(input, a, h, edge_order) for a, h in zip(axes, steps, strict=True)])


def _derivative(x: Tensor, a: int, h: Any, edge_order: int) -> Tensor:
    """The derivative along one axis."""
    n = x.array.layout.shape[a]
    x = x if is_float(x.array.layout.dtype) else cast(x, np.float32)
    unequal = isinstance(h, Tensor) and h.array.layout.ndim
    if unequal:
        if h.array.layout.shape != (n,):
            fail("gradient", f"the coordinates along dimension {a} must be a vector of {n}", h.array.layout)
        gaps = diff(h)
        x = cast(x, promote(x.array.layout.dtype, gaps.array.layout.dtype))
        gaps = cast(gaps, x.dtype)
    else:
        gaps = as_tensor(np.ones(n - 1), x.dtype, x.device)
        gaps = mul(gaps, h)
    wide = (-1, *(1,) * (x.array.layout.ndim - 1 - a))
    gaps = reshape(gaps, wide)
    slopes = div(sub(_part(x, a, 1, n - 1), _part(x, a, 0, n - 1)), gaps)
    left, right = _part(gaps, 0, 0, n - 2), _part(gaps, 0, 1, n - 2)
    if unequal:
        share = div(right, add(left, right))
        inner = add(mul(_part(slopes, a, 0, n - 2), share), mul(_part(slopes, a, 1, n - 2), sub(1.0, share)))
        # both slopes beside an infinite element are infinite: there each of the three elements has a weight of its own
        before, middle, after = [_part(x, a, i, n - 2) for i in range(3)]
        around = sub(mul(after, div(sub(1.0, share), right)), mul(before, div(share, left)))
        weight = sub(div(1.0, left), div(1.0, right))           # 0 between equal gaps
        alone = where(eq(weight, 0), around, add(around, mul(middle, weight)))
        inner = where(isinf(middle), alone, inner)
    else:                                           # an infinite element between two others does not count
        inner = div(sub(_part(x, a, 2, n - 2), _part(x, a, 0, n - 2)), add(left, right))
    first, last = _part(slopes, a, 0, 1), _part(slopes, a, n - 2, 1)
    if edge_order == 2:
        bend = lambda i: div(_part(gaps, 0, i, 1), add(_part(gaps, 0, i, 1), _part(gaps, 0, i + 1, 1)))     # noqa: E731
        first = add(first, mul(sub(first, _part(slopes, a, 1, 1)), bend(0)))
        back = sub(1.0, bend(n - 3))
        last = add(last, mul(sub(last, _part(slopes, a, n - 3, 1)), back))
    return cat([first, inner, last], a)


# ---- statistics ------------------------------------------------------------------------------------------------------

def _weights(name: str, w: Tensor | None, n: int, dtype: Any) -> Tensor | None:
    """The weights of `cov` as a vector, checked: their values are read."""
    if w is None:
        return None
    have, kind = w.array.layout, "floats" if name == "aweights" else "integers"
    if have.ndim > 1 or w.numel() != n or is_float(have.dtype) != (kind == "floats"):
        fail("cov", f"{name} must be a vector of {n} {kind}, one for each observation", have)
    reads_to_host(f"cov({name}=)")
    if n and w.detach().amin().item() < 0:
        fail("cov", f"{name} must not be negative", w.tolist())
    return cast(through(as_reshaped, w, (n,)), dtype)


@rounds_once
def cov(input: Tensor, *, correction: int = 1, fweights: Tensor | None = None,
        aweights: Tensor | None = None) -> Tensor:
    """The covariance matrix of variables (rows) from observations (columns). Shapes: (v, n) -> (v, v), (n,) -> ().

        sum_i w_i (x_i - mean) (x_i - mean)^T / max(sum w - correction * sum(w a) / sum w, 0)

    `fweights` (integers) say how often an observation counts, `aweights` how much: a is the latter, w their product. If
    there is neither, w is 1.
    """
    have = input.array.layout
    if have.ndim > 2:
        fail("cov", "needs at most two dimensions", have)
    x = through(as_reshaped, input, (1, have.size)) if have.ndim < 2 else input
    x = x if is_float(have.dtype) else cast(x, np.float32)
    n = x.array.layout.shape[1]
    often = _weights("fweights", fweights, n, x.array.layout.dtype)
    much = _weights("aweights", aweights, n, x.array.layout.dtype)
    w = often if much is None else much if often is None else mul(often, much)
    divisor: Any = builtins.max(n - correction, 0)
    if w is None:
        if not divisor:
            warn(f"[cov] divides by n - correction, which is not positive; got {have}, correction {correction}")
        apart = left = sub(x, mean(x, 1, True))
    else:
        total = sum(w)
        apart = sub(x, div(sum(mul(x, w), 1, True), total))
        left = mul(apart, w)
        rest = sub(total, correction if much is None else mul(div(sum(mul(w, much)), total), correction))
        divisor = where(gt(rest, 0), rest, 0.0)
    found = div(matmul(left, through(as_matrix_transpose, apart)), divisor)
    return found if have.ndim == 2 and have.shape[0] != 1 else through(as_reshaped, found, ())


@rounds_once
def corrcoef(input: Tensor) -> Tensor:
    """The correlation coefficients of variables (rows) from observations (columns): the covariance divided by both
    standard deviations, in [-1, 1]. Shapes: (v, n) -> (v, v), (n,) -> ()."""
    have = input.array.layout                           # the result is that of numbers whose squares stay in range
    c = cov(div(input, unit_of(input, (have.ndim - 1,))) if have.ndim and is_float(have.dtype) else input)
    if not c.array.layout.ndim:
        return div(c, c)
    deviation = diagonal(c).sqrt()
    n = deviation.array.layout.shape[0]
    return div(div(c, through(as_reshaped, deviation, (n, 1))), deviation).clamp(-1, 1)


@formula
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """The running log(sum(exp)) along `dim`, computed without overflow: the number of elements that are joined doubles
    at each step (Hillis and Steele 1986)."""
    have = input.array.layout
    if not is_float(have.dtype):
        fail("logcumsumexp", "needs a floating-point tensor", have, "convert with .float()",
             kind=NotImplementedError)
    if not have.ndim:
        axis_of(dim, 0, "logcumsumexp")
        return input.clone()
    a = axis_of(dim, have.ndim, "logcumsumexp")
    n, step, x = have.shape[a], 1, input
    while step < n:
        x = cat([_part(x, a, 0, step), logaddexp(_part(x, a, step, n - step), _part(x, a, 0, n - step))], a)
        step *= 2
    return x if x is not input else input.clone()


# ---- combinations ----------------------------------------------------------------------------------------------------

@selection
def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All choices of `r` elements of a vector in their order, as rows; with `with_replacement` an element may be chosen
    again. Shapes: (n,) -> (number of choices, r)."""
    have, r = input.array.layout, operator.index(r)
    if have.ndim != 1 or r < 0:
        fail("combinations", "needs a vector, and r not negative", [have, f"r {r}"])
    choose: Any = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = list(choose(range(have.shape[0]), r))
    if not r:
        return input[:0]
    at = as_tensor(np.array(rows, np.int64).reshape(-1), device=input.device)
    return through(as_reshaped, index_select(input, 0, at), (len(rows), r))


def cartesian_prod(*tensors: Any) -> Tensor:
    """All tuples with one element of each vector, as rows. Shapes: (a,), (b,), ... -> (a b ..., number of vectors); one
    vector stays as it is."""
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    for t in given:
        if t.array.layout.ndim != 1:
            fail("cartesian_prod", "needs vectors", [t.array.layout for t in given])
    if len(given) == 1:
        return given[0]
    shape = tuple([t.numel() for t in given])
    wide = [through(as_expanded, through(as_reshaped, t, (t.numel(), *(1,) * (len(shape) - 1 - i))), shape)
            for i, t in enumerate(given)]
    return through(as_reshaped, stack(wide, -1), (math.prod(shape), len(shape)))


def block_diag(*tensors: Any) -> Tensor:
    """A matrix with the given matrices one after the other on its diagonal, zeros elsewhere. Vectors are rows."""
    given = [t if isinstance(t, Tensor) else as_tensor(t) for t in tensors]
    for t in given:
        if t.array.layout.ndim > 2:
            fail("block_diag", "needs tensors of at most two dimensions", [t.array.layout for t in given])
    if not given:
        return as_tensor(np.zeros((1, 0)), np.float32)
    dtype = result_type(*[t.array.layout for t in given])       # before 0-d tensors become matrices
    blocks = [through(as_reshaped, cast(t, dtype), (1,) * (2 - t.array.layout.ndim) + t.array.layout.shape)
              for t in given]
    widths = [b.array.layout.shape[1] for b in blocks]
    rows, done = [], 0
    for b, width in zip(blocks, widths, strict=True):
        rows.append(b.new_zeros(b.array.layout.shape[0], done))
        rows.append(b)
        done += width
        rows.append(b.new_zeros(b.array.layout.shape[0], builtins.sum(widths) - done))
    return cat([cat(rows[i:i + 3], 1) for i in range(0, len(rows), 3)], 0)


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """A matrix with all elements of `input` on a diagonal, zeros elsewhere: `diag_embed` of the flattened tensor."""
    return diag_embed(through(as_reshaped, input, (input.numel(),)), offset)


def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """The coordinates, in a tensor of that shape, of flat indices: a tuple with an int64 tensor for each dimension."""
    given = shape if isinstance(shape, (tuple, list)) else (shape,)
    have, sizes = indices.array.layout, [operator.index(n) for n in given]
    if have.dtype.kind not in "iu":
        fail("unravel_index", "indices must be integers", have, kind=ValueError)
    if builtins.any(n < 0 for n in sizes):
        fail("unravel_index", "sizes must not be negative", sizes, kind=ValueError)
    found, rest = [], cast(indices, INT64)
    for n in reversed(sizes):
        found.append(rest.remainder(n))
        rest = rest.div(n, rounding_mode="floor")
    return tuple(reversed(found))


@formula
def sum_to_size(input: Tensor, *sizes: Any, size: Any = None) -> Tensor:
    """The sum over the dimensions that would have to be broadcast from `size`: the reverse of `expand`. RuntimeError if
    `size` does not broadcast to the tensor's shape."""
    given = sizes if size is None else named(sizes, {"size": size}, "size", "sum_to_size")
    to, shape = shape_given(given, "sum_to_size"), input.array.layout.shape
    if len(to) > len(shape) or broadcast_shapes("sum_to_size", to, shape) != shape:
        fail("sum_to_size", "size must broadcast to the tensor's shape", [input.array.layout, f"size {list(to)}"])
    lead = len(shape) - len(to)
    axes = (*range(lead), *[lead + i for i, n in enumerate(to) if n == 1 and shape[lead + i] != 1])
    return through(as_reshaped, sum(input, axes) if axes or not to else input, to)


def _split_along(name: str, input: Tensor, parts: Any, dim: int, least: int) -> tuple[Tensor, ...]:
    have = input.array.layout
    if have.ndim < least:
        fail(name, f"needs at least {least} dimensions", have)
    if isinstance(parts, (int, np.integer)):
        if parts < 1 or have.shape[dim] % parts:
            fail(name, f"size {have.shape[dim]} of dimension {dim} must be a multiple of the number of parts", parts)
    return tensor_split(input, parts, dim)


def hsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` along the second dimension, of a vector along its only one; into parts of one size for a number.
    Views."""
    return _split_along("hsplit", input, indices_or_sections, 0 if input.array.layout.ndim == 1 else 1, 1)


def vsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` along the first dimension of at least two; into parts of one size for a number. Views."""
    return _split_along("vsplit", input, indices_or_sections, 0, 2)


def dsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` along the third dimension; into parts of one size for a number. Views."""
    return _split_along("dsplit", input, indices_or_sections, 2, 3)


# ---- samples ---------------------------------------------------------------------------------------------------------

@cross.samples
def _cross_samples(make: Any) -> Iterator[tuple]:
    yield make(3), make(3)
    yield make(4, 3), make(1, 3), -1
    yield make(3, 5), make(3, 5)


@cross.errors
def _cross_errors(make: Any) -> Iterator[tuple]:
    yield (make(4), make(4), {}), RuntimeError, "size 3"
    yield (make(3), make(2, 3), {}), RuntimeError, "as many dimensions"


@cross.reference
def _cross_reference(a: Any, b: Any, dim: int | None = None) -> Any:
    axis = a.shape.index(3) if dim is None else dim
    return np.cross(a, b, axisa=axis, axisb=axis, axisc=axis)


@kron.samples
def _kron_samples(make: Any) -> Iterator[tuple]:
    yield make(2, 3), make(3, 2)
    yield make(2), make(3, 1, 2)
    yield make(), make(2)


kron.reference(np.kron)


@trace.samples
def _trace_samples(make: Any) -> Iterator[tuple]:
    yield make(4, 4),
    yield make(3, 5),


@trace.errors
def _trace_errors(make: Any) -> Iterator[tuple]:
    yield (make(3), {}), RuntimeError, "matrix"


trace.reference(np.trace)


@addr.samples
def _addr_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 4), make(3), make(4)
    yield make(4), make(3), make(4), {"beta": 0.5, "alpha": 2.0}
    yield make(3, 4), make(3), make(4), {"beta": 0}


@addr.errors
def _addr_errors(make: Any) -> Iterator[tuple]:
    yield (make(2, 3, 4), make(3), make(4), {}), RuntimeError, "broadcast"
    yield (make.ints(3), make.ints(3), make.ints(3), {"alpha": 1.0}), RuntimeError, "kind of the tensors"
    yield (make(3), make(3), make(3), {"beta": True}), RuntimeError, "kind of the tensors"


addr.reference(lambda x, a, b, beta=1, alpha=1: beta * x + alpha * np.outer(a, b))


@cdist.samples
def _cdist_samples(make: Any) -> Iterator[tuple]:
    for p in (2.0, 1.0, 3.0, math.inf, 0.0):
        yield make(4, 3), make(5, 3), p
    yield make(2, 1, 4, 3), make(3, 5, 3)
    yield make(4, 3), make(5, 3), 2.0, "use_mm_for_euclid_dist"


@cdist.errors
def _cdist_errors(make: Any) -> Iterator[tuple]:
    yield (make(4, 3), make(5, 2), {}), RuntimeError, r"\(\*, n, k\)"
    yield (make(4, 3), make(5, 3), -1.0, {}), RuntimeError, "negative"
    yield (make(4, 3), make(5, 3), 2.0, "x", {}), ValueError, "compute_mode"


@cdist.reference
def _cdist_reference(a: Any, b: Any, p: float = 2.0, compute_mode: Any = None) -> Any:
    d = np.abs(a[..., :, None, :] - b[..., None, :, :])
    return d.max(-1) if p == math.inf else (d != 0).sum(-1).astype(float) if p == 0 else (d ** p).sum(-1) ** (1 / p)


@pdist.samples
def _pdist_samples(make: Any) -> Iterator[tuple]:
    yield make(5, 3),
    yield make(4, 3), 1.0
    yield make(1, 3),


@pdist.errors
def _pdist_errors(make: Any) -> Iterator[tuple]:
    yield (make(4), {}), RuntimeError, "matrix"
    yield (make(4, 2), -1.0, {}), RuntimeError, "negative"


pdist.reference(lambda x, p=2.0: _cdist_reference(x, x, p)[np.triu_indices(len(x), 1)])


@dist.samples
def _dist_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 4), make(4)
    yield make(5), make(5), 1.0
    yield make(5), make(5), math.inf


@dist.errors
def _dist_errors(make: Any) -> Iterator[tuple]:
    yield (make.ints(3), make.ints(3), {}), RuntimeError, "floating-point"


dist.reference(lambda a, b, p=2: np.linalg.norm((a - b).reshape(-1), p))


@renorm.samples
def _renorm_samples(make: Any) -> Iterator[tuple]:
    yield make(4, 3), 2.0, 0, 1.0
    yield make(2, 3, 4), 1.0, 1, 5.0


@renorm.errors
def _renorm_errors(make: Any) -> Iterator[tuple]:
    yield (make(3), 2.0, 0, 1.0, {}), RuntimeError, "two dimensions"


@renorm.reference
def _renorm_reference(x: Any, p: float, dim: int, maxnorm: float) -> Any:
    size = (np.abs(x) ** p).sum(tuple(i for i in range(x.ndim) if i != dim), keepdims=True) ** (1 / p)
    return x * np.where(size > maxnorm, maxnorm / (size + 1e-7), 1)


@diff.samples
def _diff_samples(make: Any) -> Iterator[tuple]:
    yield make(5, 33),
    yield make(5, 3), 2, 0
    yield make(5, 3), 1, 0, make(1, 3), make(2, 3)
    yield make(3), 7


@diff.errors
def _diff_errors(make: Any) -> Iterator[tuple]:
    yield (make(), {}), RuntimeError, "one dimension"
    yield (make(3), -1, {}), RuntimeError, "negative"


@diff.reference
def _diff_reference(x: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    x = np.concatenate([t for t in (prepend, x, append) if t is not None], dim)
    for _ in range(n):
        x = np.delete(x, 0, dim) - np.delete(x, -1, dim) if x.shape[dim] else x
    return x


def _trapezoid_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5),
    yield make(3, 5), make(5)
    yield make(3, 5), make(3, 5)
    yield make(4, 3), {"dx": 0.5, "dim": 0}


def _trapezoid_errors(make: Any) -> Iterator[tuple]:
    yield (make(3, 5), make(4), {}), RuntimeError, "as many points"
    yield (make(), {}), RuntimeError, "one dimension"


def _trapezoid_reference(y: Any, x: Any = None, dx: Any = 1, dim: int = -1) -> Any:
    y = np.moveaxis(y, dim, -1)
    return ((y[..., 1:] + y[..., :-1]) / 2 * (dx if x is None else np.diff(x))).sum(-1)


def _cumulative_reference(y: Any, x: Any = None, dx: Any = 1, dim: int = -1) -> Any:
    y = np.moveaxis(y, dim, -1)
    slabs = (y[..., 1:] + y[..., :-1]) / 2 * (dx if x is None else np.diff(x))
    return np.moveaxis(np.cumsum(slabs, -1), -1, dim)


for _f, _reference in ((trapezoid, _trapezoid_reference), (cumulative_trapezoid, _cumulative_reference)):
    _f.samples(_trapezoid_samples)
    _f.errors(_trapezoid_errors)
    _f.reference(_reference)


@logcumsumexp.samples
def _logcumsumexp_samples(make: Any) -> Iterator[tuple]:
    yield make(5, 33), 1
    yield make(4, 3, low=-99, high=99), 0
    yield make(1), 0
    yield make(), 0


@logcumsumexp.errors
def _logcumsumexp_errors(make: Any) -> Iterator[tuple]:
    yield (make.ints(3), 0, {}), NotImplementedError, "floating-point"
    yield (make(3), 1, {}), IndexError, "out of range"


logcumsumexp.reference(lambda x, dim: np.logaddexp.accumulate(x, dim) if x.ndim else x)


@combinations.samples
def _combinations_samples(make: Any) -> Iterator[tuple]:
    yield make(4),
    yield make(4), 3
    yield make(3), 2, True


@combinations.errors
def _combinations_errors(make: Any) -> Iterator[tuple]:
    yield (make(2, 2), {}), RuntimeError, "vector"


combinations.reference(lambda x, r=2, w=False: np.array(list(
    (itertools.combinations_with_replacement if w else itertools.combinations)(x, r))))


@sum_to_size.samples
def _sum_to_size_samples(make: Any) -> Iterator[tuple]:
    yield make(2, 3, 4), (3, 1)
    yield make(2, 3), 2, 3
    yield make(5), ()


@sum_to_size.errors
def _sum_to_size_errors(make: Any) -> Iterator[tuple]:
    yield (make(3), (2,), {}), RuntimeError, "broadcast"


@sum_to_size.reference
def _sum_to_size_reference(x: Any, *size: Any) -> Any:
    to = size[0] if isinstance(size[0], tuple) else size
    lead = x.ndim - len(to)
    return x.sum((*range(lead), *[lead + i for i, n in enumerate(to) if n == 1])).reshape(to)
