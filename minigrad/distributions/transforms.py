"""Invertible functions of random variables, and the distributions that they make: `TransformedDistribution`."""
from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from typing import Any, ClassVar
from weakref import ref

import numpy as np

from ..core.half import finfo
from ..core.modes import no_grad
from ..core.tensor import Size, Tensor
from ..ops.activation import sigmoid, softplus
from ..ops.arrange import pad
from ..ops.creation import arange, eye, tril_indices
from ..ops.formula import clamp, clamp_min
from ..ops.join import cat, stack
from ..ops.linalg import cholesky
from ..ops.math import exp, log, log1p, tanh
from ..ops.softmax import softmax
from . import constraints
from .constraints import Constraint
from .continuous import Normal
from .distribution import Distribution, Independent, sum_rightmost, zeros_with

_EMPTY = Size(())


_KEPT = ("_cache_size", "_cached_x_y", "_inv", "domain", "codomain")        # what does not tell transforms apart


class Transform:
    """An invertible function y = f(x). A class defines `_call`, `_inverse` and `log_abs_det_jacobian`.

    `domain` and `codomain` say what x and y are; `inv` is the inverse. With `cache_size=1` the last pair is kept, so
    that `inv` of a y that was just computed is the x it was computed from.
    """

    bijective: ClassVar[bool] = True
    domain: Constraint = constraints.real
    codomain: Constraint = constraints.real

    def __init__(self, cache_size: int = 0) -> None:
        if cache_size not in (0, 1):
            raise ValueError(f"[Transform] cache_size must be 0 or 1; got {cache_size}")
        self._cache_size = cache_size
        self._cached_x_y: tuple[Any, Any] = None, None
        self._inv: ref[Transform] | None = None         # the inverse, as long as somebody holds it
        super().__init__()                              # of a class that is a Module, too

    @property
    def inv(self) -> Transform:
        """The inverse function."""
        found = self._inv() if self._inv is not None else None
        if found is None:
            found = _Inverse(self)
            self._inv = ref(found)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_inv": None}

    @property
    def event_dim(self) -> int:
        """How many dimensions are one value."""
        return max(self.domain.event_dim, self.codomain.event_dim)

    def with_cache(self, cache_size: int = 1) -> Any:
        """The same transform with another `cache_size`."""
        made = copy(self)
        made._cache_size, made._cached_x_y = cache_size, (None, None)
        return made

    def __call__(self, x: Tensor) -> Tensor:
        if self._cache_size and x is self._cached_x_y[0]:
            return self._cached_x_y[1]
        y = self._call(x)
        if self._cache_size:
            self._cached_x_y = x, y
        return y

    def _inv_call(self, y: Tensor) -> Tensor:
        if self._cache_size and y is self._cached_x_y[1]:
            return self._cached_x_y[0]
        x = self._inverse(y)
        if self._cache_size:
            self._cached_x_y = x, y
        return x

    def _call(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _inverse(self, y: Tensor) -> Tensor:
        raise NotImplementedError

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log(|dy / dx|)."""
        raise NotImplementedError

    def forward_shape(self, shape: Sequence[int]) -> Size:
        """The shape of y for an x of this shape."""
        return Size(shape)

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        """The shape of x for a y of this shape."""
        return Size(shape)

    @property
    def sign(self) -> Any:
        """1 or -1: does y grow with x, or fall? NotImplementedError where a class does not say it: it may do both."""
        raise NotImplementedError(f"[{type(self).__name__}] y need not grow or fall with x: there is no sign")

    def __eq__(self, other: Any) -> bool:
        """Is it a transform of the same kind with equal parameters?"""
        return type(other) is type(self) and all(_same(v, vars(other).get(n)) for n, v in vars(self).items()
                                                 if n not in _KEPT)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape != b.shape:
        return False
    return bool((a == b).all()) if isinstance(a, Tensor) or isinstance(b, Tensor) else bool(a == b)


class _Inverse(Transform):
    """The inverse of a transform."""

    def __init__(self, of: Transform) -> None:
        super().__init__()
        self._of, self.bijective = of, of.bijective     # type: ignore[misc]
        self.domain, self.codomain = of.codomain, of.domain

    @property
    def inv(self) -> Transform:
        """The transform itself."""
        return self._of

    def _call(self, x: Tensor) -> Tensor:
        return self._of._inv_call(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self._of(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -self._of.log_abs_det_jacobian(y, x)

    def forward_shape(self, shape: Sequence[int]) -> Size:
        return self._of.inverse_shape(shape)

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        return self._of.forward_shape(shape)

    @property
    def sign(self) -> Any:
        return self._of.sign

    def __repr__(self) -> str:
        return f"{self._of}.inv"


class ExpTransform(Transform):
    """y = e^x"""

    codomain = constraints.positive
    sign = 1

    def _call(self, x: Tensor) -> Tensor:
        return exp(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return log(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """x"""
        return x


class PowerTransform(Transform):
    """y = x^exponent, x > 0"""

    domain = codomain = constraints.positive

    def __init__(self, exponent: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.exponent = exponent

    def _call(self, x: Tensor) -> Tensor:
        return x**self.exponent

    def _inverse(self, y: Tensor) -> Tensor:
        return y ** (1 / self.exponent)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log(|exponent y / x|)"""
        return log((self.exponent * y / x).abs())

    @property
    def sign(self) -> Any:
        """That of `exponent`"""
        return _sign(self.exponent)


def _inside(y: Tensor) -> Tensor:
    """y, where it was rounded to 0 or 1 the number next to it: what is inside (0, 1) stays inside."""
    wide = finfo(y.dtype)
    return y.clamp(float(wide.tiny), 1 - float(wide.eps))


class SigmoidTransform(Transform):
    """y = 1 / (1 + e^-x)"""

    codomain = constraints.unit_interval
    sign = 1

    def _call(self, x: Tensor) -> Tensor:
        return _inside(sigmoid(x))

    def _inverse(self, y: Tensor) -> Tensor:
        y = _inside(y)
        return log(y) - log1p(-y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """-softplus(x) - softplus(-x)"""
        return -softplus(-x) - softplus(x)


class TanhTransform(Transform):
    """y = tanh(x). Its inverse is inf at 1: keep x (`cache_size=1`) where samples are transformed back."""

    codomain = constraints.interval(-1.0, 1.0)
    sign = 1

    def _call(self, x: Tensor) -> Tensor:
        return tanh(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.atanh()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """2 (log(2) - x - softplus(-2 x)), which does not cancel for large x"""
        return 2.0 * (math.log(2.0) - x - softplus(-2.0 * x))


class SoftplusTransform(Transform):
    """y = log(1 + e^x)"""

    codomain = constraints.positive
    sign = 1

    def _call(self, x: Tensor) -> Tensor:
        return softplus(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return log(-(-y).expm1()) + y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """-softplus(-x)"""
        return -softplus(-x)


class AffineTransform(Transform):
    """y = loc + scale x; with `event_dim` above 0, the last so many dimensions are one value."""

    def __init__(self, loc: Any, scale: Any, event_dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.loc, self.scale, self._dims = loc, scale, event_dim
        self.domain = self.codomain = constraints.independent(constraints.real, event_dim) if event_dim else \
            constraints.real

    def _call(self, x: Tensor) -> Tensor:
        return self.loc + self.scale * x

    def _inverse(self, y: Tensor) -> Tensor:
        return (y - self.loc) / self.scale

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log(|scale|), summed over the dimensions of a value"""
        size = log(self.scale.abs()) if isinstance(self.scale, Tensor) else math.log(abs(self.scale))
        return sum_rightmost(zeros_with(x.shape, x) + size, self._dims)

    def _grown(self, shape: Sequence[int]) -> Size:
        parts = [tuple(t.shape) for t in (self.loc, self.scale) if isinstance(t, Tensor)]
        return Size(np.broadcast_shapes(tuple(shape), *parts))

    def forward_shape(self, shape: Sequence[int]) -> Size:
        """With the dimensions of loc and scale."""
        return self._grown(shape)

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        """With the dimensions of loc and scale."""
        return self._grown(shape)

    @property
    def sign(self) -> Any:
        """That of `scale`"""
        return _sign(self.scale)


def _sign(number: Any) -> Any:
    return number.sign() if isinstance(number, Tensor) else (number > 0) - (number < 0)


class ComposeTransform(Transform):
    """Several transforms, one after the other."""

    def __init__(self, parts: Sequence[Transform], cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.parts = list(parts)
        if self.parts:                                  # how many dimensions a value has on its way through the parts
            first, last = self.parts[0].domain, self.parts[-1].codomain
            n, m = last.event_dim, first.event_dim
            for part in reversed(self.parts):
                n = max(n + part.domain.event_dim - part.codomain.event_dim, part.domain.event_dim)
            for part in self.parts:
                m = max(m + part.codomain.event_dim - part.domain.event_dim, part.codomain.event_dim)
            self.domain = constraints.independent(first, n - first.event_dim) if n > first.event_dim else first
            self.codomain = constraints.independent(last, m - last.event_dim) if m > last.event_dim else last
            self.bijective = all([part.bijective for part in self.parts])       # type: ignore[misc]

    def __repr__(self) -> str:
        return f"ComposeTransform({', '.join(map(repr, self.parts))})"

    @property
    def inv(self) -> Transform:
        """The inverse function; without parts the transform itself."""
        return super().inv if self.parts else self

    def _call(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x

    def _inverse(self, y: Tensor) -> Tensor:
        for part in reversed(self.parts):
            y = part.inv(y)
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum of those of the parts, over the dimensions of a value"""
        total: Any = 0.0 if self.parts else zeros_with(x.shape, x)
        dims = self.domain.event_dim
        for part in self.parts:
            new = part(x)
            total = total + sum_rightmost(part.log_abs_det_jacobian(x, new), dims - part.domain.event_dim)
            dims += part.codomain.event_dim - part.domain.event_dim
            x = new
        return total

    def forward_shape(self, shape: Sequence[int]) -> Size:
        """Through all parts."""
        for part in self.parts:
            shape = part.forward_shape(shape)
        return Size(shape)

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        """Back through all parts."""
        for part in reversed(self.parts):
            shape = part.inverse_shape(shape)
        return Size(shape)

    @property
    def sign(self) -> Any:
        """The product of those of the parts"""
        sign: Any = 1
        for part in self.parts:
            sign = sign * part.sign
        return sign


class AbsTransform(Transform):
    """y = |x|; of the two inverses, the one above 0"""

    bijective = False
    codomain = constraints.positive

    def _call(self, x: Tensor) -> Tensor:
        return x.abs()

    def _inverse(self, y: Tensor) -> Tensor:
        return y


class SoftmaxTransform(Transform):
    """y = softmax(x): vectors of probabilities; x = log(y) is one of many inverses"""

    bijective = False
    domain, codomain = constraints.real_vector, constraints.simplex

    def _call(self, x: Tensor) -> Tensor:
        return softmax(x, -1)

    def _inverse(self, y: Tensor) -> Tensor:
        return log(y)


class StickBreakingTransform(Transform):
    """K numbers to K + 1 probabilities: y_i is the share sigmoid(x_i - log(K - i)) of what y_0, ..., y_(i-1) leave."""

    domain, codomain = constraints.real_vector, constraints.simplex

    @staticmethod
    def _moved(x: Tensor) -> Tensor:
        return log(arange(x.shape[-1], 0, -1, dtype=x.dtype, device=x.device))

    def _call(self, x: Tensor) -> Tensor:
        share = sigmoid(x - self._moved(x)).clamp(float(finfo(x.dtype).tiny), 1 - float(finfo(x.dtype).eps))
        return pad(share, (0, 1), value=1.0) * pad((1 - share).cumprod(-1), (1, 0), value=1.0)

    def _inverse(self, y: Tensor) -> Tensor:
        y = y[..., :-1]
        return log(y) - log(clamp_min(1 - y.cumsum(-1), float(finfo(y.dtype).tiny))) + self._moved(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """sum(log(y_i) - softplus(x_i - log(K - i)))"""
        return (log(y[..., :-1]) - softplus(x - self._moved(x))).sum(-1)

    def forward_shape(self, shape: Sequence[int]) -> Size:
        """One number more."""
        return Size((*shape[:-1], shape[-1] + 1))

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        """One number less."""
        return Size((*shape[:-1], shape[-1] - 1))


class IndependentTransform(Transform):
    """`base_transform` of all numbers of the last `reinterpreted_batch_ndims` dimensions as one value."""

    def __init__(self, base_transform: Transform, reinterpreted_batch_ndims: int, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.base_transform, self.reinterpreted_batch_ndims = base_transform, reinterpreted_batch_ndims
        self.bijective = base_transform.bijective           # type: ignore[misc]
        self.domain = constraints.independent(base_transform.domain, reinterpreted_batch_ndims)
        self.codomain = constraints.independent(base_transform.codomain, reinterpreted_batch_ndims)

    def _call(self, x: Tensor) -> Tensor:
        return self.base_transform(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.base_transform.inv(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """That of the base, summed over them"""
        return sum_rightmost(self.base_transform.log_abs_det_jacobian(x, y), self.reinterpreted_batch_ndims)

    @property
    def sign(self) -> Any:
        """As the base."""
        return self.base_transform.sign

    def forward_shape(self, shape: Sequence[int]) -> Size:
        """As the base."""
        return self.base_transform.forward_shape(shape)

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        """As the base."""
        return self.base_transform.inverse_shape(shape)


class CatTransform(Transform):
    """`tseq[i]` of `lengths[i]` numbers along `dim`, one after the other: of one each without `lengths`. ValueError
    unless there is a length for each transform. `length` is their sum."""

    def __init__(self, tseq: Sequence[Transform], dim: int = 0, lengths: Sequence[int] | None = None,
                 cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.transforms, self.dim = [t.with_cache(cache_size) if cache_size else t for t in tseq], dim
        self.lengths = [1] * len(self.transforms) if lengths is None else list(lengths)
        self.length = sum(self.lengths)
        self.bijective = all(t.bijective for t in self.transforms)              # type: ignore[misc]
        self.domain, self.codomain = (self._constraint([getattr(t, name) for t in self.transforms])
                                      for name in ("domain", "codomain"))

    def _constraint(self, parts: list[Constraint]) -> Constraint:
        return constraints.cat(parts, self.dim, self.lengths)

    def _parts(self, x: Any) -> Any:
        return zip(self.transforms, x.split(self.lengths, self.dim), strict=True)

    def _join(self, parts: list[Tensor]) -> Tensor:
        return cat(parts, self.dim)

    def _call(self, x: Tensor) -> Tensor:
        return self._join([t(part) for t, part in self._parts(x)])

    def _inverse(self, y: Tensor) -> Tensor:
        return self._join([t.inv(part) for t, part in self._parts(y)])

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Any:
        """Those of the parts, joined; their sum where `dim` is part of a value"""
        parts = [sum_rightmost(t.log_abs_det_jacobian(a, b), self.event_dim - t.event_dim)
                 for (t, a), (_, b) in zip(self._parts(x), self._parts(y), strict=True)]
        dim = (self.dim - x.ndim if self.dim >= 0 else self.dim) + self.event_dim
        return cat(parts, dim) if dim < 0 else sum(parts[1:], parts[0])


class StackTransform(CatTransform):
    """`tseq[i]` of `x.select(dim, i)`."""

    def __init__(self, tseq: Sequence[Transform], dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(tseq, dim, None, cache_size)

    def _constraint(self, parts: list[Constraint]) -> Constraint:
        return constraints.stack(parts, self.dim)

    def _parts(self, x: Any) -> Any:
        return zip(self.transforms, x.unbind(self.dim), strict=True)

    def _join(self, parts: list[Tensor]) -> Tensor:
        return stack(parts, self.dim)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Any:
        """Those of the parts, stacked"""
        return self._join([t.log_abs_det_jacobian(a, b)
                           for (t, a), (_, b) in zip(self._parts(x), self._parts(y), strict=True)])


class ReshapeTransform(Transform):
    """x with its last dimensions, `in_shape`, as `out_shape`. ValueError unless they have as many elements."""

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int], cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.in_shape, self.out_shape = Size(in_shape), Size(out_shape)
        if math.prod(in_shape) != math.prod(out_shape):
            raise ValueError(f"[ReshapeTransform] in_shape and out_shape have different numbers of elements; got "
                             f"{tuple(in_shape)} and {tuple(out_shape)}")
        self.domain = constraints.independent(constraints.real, len(in_shape))
        self.codomain = constraints.independent(constraints.real, len(out_shape))

    def _call(self, x: Tensor) -> Tensor:
        return x.reshape(self.forward_shape(x.shape))

    def _inverse(self, y: Tensor) -> Tensor:
        return y.reshape(self.inverse_shape(y.shape))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """0"""
        return zeros_with(x.shape[:x.ndim - len(self.in_shape)], x)

    def _swapped(self, shape: Sequence[int], old: Size, new: Size) -> Size:
        cut = len(shape) - len(old)
        if cut < 0 or tuple(shape[cut:]) != tuple(old):
            raise ValueError(f"[ReshapeTransform] Shape mismatch: expected the last sizes {tuple(old)}; "
                             f"got {tuple(shape)}")
        return Size((*shape[:cut], *new))

    def forward_shape(self, shape: Sequence[int]) -> Size:
        """With `out_shape` in the place of `in_shape`; ValueError without it."""
        return self._swapped(shape, self.in_shape, self.out_shape)

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        """With `in_shape` in the place of `out_shape`; ValueError without it."""
        return self._swapped(shape, self.out_shape, self.in_shape)


class CumulativeDistributionTransform(Transform):
    """y = P(X <= x) for X of `distribution`: of two of them and an inverse, a copula."""

    codomain = constraints.unit_interval
    sign = 1

    def __init__(self, distribution: Distribution, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.distribution, self.domain = distribution, distribution.support

    def _call(self, x: Tensor) -> Tensor:
        return self.distribution.cdf(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.distribution.icdf(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The logarithm of the density at x"""
        return self.distribution.log_prob(x)


class LowerCholeskyTransform(Transform):
    """The lower triangle of a matrix, with e^x on the diagonal."""

    bijective = False                                       # what is above the diagonal is lost
    domain, codomain = constraints.independent(constraints.real, 2), constraints.lower_cholesky

    def _call(self, x: Tensor) -> Tensor:
        return x.tril(-1) + exp(x.diagonal(dim1=-2, dim2=-1)).diag_embed()

    def _inverse(self, y: Tensor) -> Tensor:
        return y.tril(-1) + log(y.diagonal(dim1=-2, dim2=-1)).diag_embed()


class PositiveDefiniteTransform(LowerCholeskyTransform):
    """y = L L^T with the L of `LowerCholeskyTransform`."""

    codomain = constraints.positive_definite

    def _call(self, x: Tensor) -> Tensor:
        low = super()._call(x)
        return low @ low.mT

    def _inverse(self, y: Tensor) -> Tensor:
        return super()._inverse(cholesky(y))


class CorrCholeskyTransform(Transform):
    """D (D - 1) / 2 numbers to the Cholesky factor (D, D) of a matrix of correlations. In row i, tanh(x) is the share
    of what the numbers before it leave of the length 1: y_ij = tanh(x_ij) sqrt(1 - sum_{k<j} y_ik^2) (Lewandowski,
    Kurowicka and Joe 2009, section 3)."""

    domain, codomain = constraints.real_vector, constraints.corr_cholesky

    @staticmethod
    def _below(d: int, like: Tensor) -> tuple[Tensor, ...]:
        return (..., *tril_indices(d, d, -1, device=like.device))           # type: ignore[return-value]

    @staticmethod
    def _left(y: Tensor) -> Tensor:
        """1 - sum_{k<j} y_ik^2, for each j"""
        return pad(1 - (y * y).cumsum(-1)[..., :-1], (1, 0), value=1.0)

    def _call(self, x: Tensor) -> Tensor:
        d = self.forward_shape(x.shape)[-1]
        share = zeros_with((*x.shape[:-1], d, d), x)
        most = 1 - float(finfo(x.dtype).eps)    # 1 would leave nothing for the rest of the row
        share[self._below(d, x)] = clamp(tanh(x), -most, most)
        left = (1 - share * share).cumprod(-1).sqrt()
        return (share + eye(d, dtype=x.dtype, device=x.device)) * pad(left[..., :-1], (1, 0), value=1.0)

    def _inverse(self, y: Tensor) -> Tensor:
        below = self._below(y.shape[-1], y)
        return (y[below] / self._left(y)[below].sqrt()).atanh()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """sum(log(1 - tanh(x_ij)^2) + log(1 - sum_{k<j} y_ik^2) / 2)"""
        half = 0.5 * log(self._left(y)[self._below(y.shape[-1], y)])
        return (half + TanhTransform().log_abs_det_jacobian(x, y)).sum(-1)

    def forward_shape(self, shape: Sequence[int]) -> Size:
        """(*, D, D); ValueError if the last size is no D (D - 1) / 2."""
        n = shape[-1]
        d = (1 + math.isqrt(1 + 8 * n)) // 2
        if d * (d - 1) // 2 != n:
            raise ValueError("[CorrCholeskyTransform] Input is not a flattened lower-diagonal number, D (D - 1) / 2; "
                             f"got {n}")
        return Size((*shape[:-1], d, d))

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        """(*, D (D - 1) / 2); ValueError if it is not square."""
        if len(shape) < 2 or shape[-1] != shape[-2]:
            raise ValueError(f"[CorrCholeskyTransform] Input is not square; got {tuple(shape)}")
        return Size((*shape[:-2], shape[-1] * (shape[-1] - 1) // 2))


identity_transform = ComposeTransform([])


class TransformedDistribution(Distribution):
    """The distribution of transforms(x) for x from `base_distribution`: one transform, or a list of them.

        >>> d = distributions.TransformedDistribution(distributions.Normal(0.0, 1.0), [distributions.ExpTransform()])
        >>> d.log_prob(minigrad.tensor(1.0)).item()                                    # -log(2 pi) / 2
        -0.9189385175704956
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {}

    def __init__(self, base_distribution: Distribution, transforms: Any, validate_args: bool | None = None) -> None:
        self.transforms = [transforms] if isinstance(transforms, Transform) else list(transforms)
        if not all(isinstance(t, Transform) for t in self.transforms):
            raise ValueError("[TransformedDistribution] transforms must be a Transform or a list of Transforms; got "
                             + ", ".join([type(t).__name__ for t in self.transforms]))
        whole = ComposeTransform(self.transforms)
        base = base_distribution
        shape = Size((*base.batch_shape, *base.event_shape))
        if len(shape) < whole.domain.event_dim:
            raise ValueError(f"[TransformedDistribution] the base must have at least the {whole.domain.event_dim} "
                             f"dimensions that the transforms take; got the shape {tuple(shape)}")
        out = whole.forward_shape(shape)
        if tuple(out) != tuple(shape):                  # a parameter of a transform has more dimensions
            wider = whole.inverse_shape(out)
            base = base.expand(wider[:len(wider) - len(base.event_shape)])
        more = max(whole.domain.event_dim - len(base.event_shape), 0)
        self.base_dist: Distribution = Independent(base, more) if more else base
        dims = len(self.base_dist.event_shape) + whole.codomain.event_dim - whole.domain.event_dim
        super().__init__(out[:len(out) - dims], out[len(out) - dims:], validate_args)

    def expand(self, batch_shape: Sequence[int]) -> TransformedDistribution:
        """See `Distribution.expand`."""
        made = TransformedDistribution(self.base_dist.expand(batch_shape), self.transforms, validate_args=False)
        made._validate_args = self._validate_args
        return made

    @property
    def has_rsample(self) -> bool:              # type: ignore[override]
        """As the base."""
        return self.base_dist.has_rsample

    @constraints.dependent_property
    def support(self) -> Constraint:
        """The codomain of the last transform"""
        if not self.transforms:
            return self.base_dist.support
        found = self.transforms[-1].codomain
        more = len(self._event_shape) - found.event_dim
        return constraints.independent(found, more) if more > 0 else found

    def sample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """Transformed samples of the base, without a gradient"""
        with no_grad():
            x = self.base_dist.sample(sample_shape)
            for transform in self.transforms:
                x = transform(x)
            return x

    def rsample(self, sample_shape: Sequence[int] = _EMPTY) -> Tensor:
        """Transformed samples of the base, with a gradient"""
        x = self.base_dist.rsample(sample_shape)
        for transform in self.transforms:
            x = transform(x)
        return x

    def log_prob(self, value: Tensor) -> Tensor:
        """log_prob of x, minus log(|dy / dx|), x the value transformed back"""
        y, dims, total = self._checked(value), len(self._event_shape), 0.0
        taken: Any = total
        for transform in reversed(self.transforms):
            x = transform.inv(y)
            dims += transform.domain.event_dim - transform.codomain.event_dim
            taken = taken + sum_rightmost(transform.log_abs_det_jacobian(x, y), dims - transform.domain.event_dim)
            y = x
        return sum_rightmost(self.base_dist.log_prob(y), dims - len(self.base_dist.event_shape)) - taken

    def _turned(self, value: Tensor) -> Tensor:
        """value where y grows with x, 1 - value where it falls"""
        sign: Any = 1
        for transform in self.transforms:
            sign = sign * transform.sign
        return value if isinstance(sign, int) and sign == 1 else sign * (value - 0.5) + 0.5

    def cdf(self, value: Tensor) -> Tensor:
        """That of the base at x, or 1 minus it where y falls"""
        for transform in reversed(self.transforms):
            value = transform.inv(value)
        return self._turned(self.base_dist.cdf(value))          # which checks x: the ends of the support are allowed

    def icdf(self, value: Tensor) -> Tensor:
        """The transformed quantile of the base"""
        value = self.base_dist.icdf(self._turned(value))
        for transform in self.transforms:
            value = transform(value)
        return value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_dist}, {self.transforms})"


class LogNormal(TransformedDistribution):
    """e^x for x from N(loc, scale^2)."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        super().__init__(Normal(loc, scale, validate_args), ExpTransform(), validate_args)

    @property
    def _normal(self) -> Normal:
        return self.base_dist                           # type: ignore[return-value]

    @property
    def loc(self) -> Tensor:
        """The mean of log(y)"""
        return self._normal.loc

    @property
    def scale(self) -> Tensor:
        """The standard deviation of log(y)"""
        return self._normal.scale

    def expand(self, batch_shape: Sequence[int]) -> LogNormal:
        """See `Distribution.expand`."""
        return self._expanded(LogNormal, batch_shape, self.loc, self.scale)

    @property
    def mean(self) -> Tensor:
        """e^(loc + scale^2 / 2)"""
        return exp(self.loc + self.scale * self.scale / 2)

    @property
    def mode(self) -> Tensor:
        """e^(loc - scale^2)"""
        return exp(self.loc - self.scale * self.scale)

    @property
    def variance(self) -> Tensor:
        """(e^(scale^2) - 1) e^(2 loc + scale^2)"""
        square = self.scale * self.scale
        return square.expm1() * exp(2 * self.loc + square)

    def entropy(self) -> Tensor:
        """That of the normal distribution + loc"""
        return self._normal.entropy() + self.loc
