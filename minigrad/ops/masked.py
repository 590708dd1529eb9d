"""Reductions and normalizations of the elements where a mask is true, with the names of `torch.masked`.

An element where the mask is false counts as what changes nothing: 0 in a sum, 1 in a product, -inf in a maximum. A
result of no elements is that value, or NaN where there is none (a mean). Arguments that the functions share: `dim` is
an axis, several, or None for all; `mask` a bool tensor that broadcasts to the input, or None; `dtype` what the input
is converted to first.
"""
from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from functools import partial
from math import inf, nan
from typing import Any

import numpy as np

from ..core.shape import BOOL, INT64, axis_of, broadcast_shapes, fail, is_float
from ..core.tensor import Tensor
from . import reduce
from .convert import cast, extreme_of
from .creation import as_tensor
from .formula import clamp, formula
from .formula import logaddexp as logaddexp_op
from .math import div, neg, root, square, sub, where
from .quantile import nanmedian
from .reduce import vector_norm
from .softmax import log_softmax, logsumexp, softmax
from .through import through
from .view import as_expanded


def _axes(name: str, dim: Any, ndim: int) -> tuple[int, ...]:
    """The axes that `dim` names; None and () name all."""
    if dim is None or isinstance(dim, (tuple, list)) and not dim:
        return tuple(range(ndim))
    found = [axis_of(d, ndim, name) for d in (dim if isinstance(dim, (tuple, list)) else (dim,))]
    if len(set(found)) != len(found):
        fail(name, "each dim may appear once", list(dim))
    return tuple(sorted([a for a in found if a < ndim]))


def _mask(name: str, input: Tensor, mask: Tensor | None) -> Tensor | None:
    """The mask in the input's shape."""
    if mask is None:
        return None
    have, given = input.array.layout, mask.array.layout
    if given.dtype != BOOL or broadcast_shapes(name, have.shape, given.shape) != have.shape:
        fail(name, "mask must be a bool tensor that broadcasts to the input", [have, given])
    return through(as_expanded, mask, have.shape)


def _filled(name: str, input: Tensor, mask: Tensor | None, value: Any) -> Tensor:
    """The input with `value` where the mask is false."""
    found = _mask(name, input, mask)
    return input if found is None else cast(where(found, input, value), input.array.layout.dtype)


def _typed(input: Tensor, dtype: Any) -> Tensor:
    return input if dtype is None else cast(input, dtype)


def _count(name: str, input: Tensor, mask: Tensor | None, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    """How many elements count, in the input's dtype."""
    found = _mask(name, input, mask)
    one = through(as_expanded, input.new_ones(()), input.array.layout.shape)
    one = one if found is None else cast(found, input.dtype)
    return reduce.sum(one, axes, keepdim) if axes else one


@formula
def masked_sum(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None,
               mask: Tensor | None = None) -> Tensor:
    """The sum of the elements where the mask is true; 0 of none."""
    return _total("masked.sum", reduce.sum, _filled("masked.sum", _typed(input, dtype), mask, 0), dim, keepdim)


def _total(name: str, function: Callable[..., Tensor], x: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """A sum or product of what counts. Of a 0-d x it is x, in the dtype of a sum."""
    axes = _axes(name, dim, x.array.layout.ndim)
    if axes:
        return function(x, axes, keepdim)
    return x.clone() if is_float(x.array.layout.dtype) else cast(x, INT64)


@formula
def masked_prod(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None,
                mask: Tensor | None = None) -> Tensor:
    """The product of the elements where the mask is true; 1 of none."""
    return _total("masked.prod", reduce.prod, _filled("masked.prod", _typed(input, dtype), mask, 1), dim, keepdim)


def _extreme(name: str, function: Callable[..., Tensor], largest: bool) -> Callable[..., Tensor]:
    def extreme(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None,
                mask: Tensor | None = None) -> Tensor:
        x = _typed(input, dtype)
        x = _filled(f"masked.{name}", x, mask, extreme_of(x.array.layout.dtype, not largest))
        axes = _axes(f"masked.{name}", dim, x.array.layout.ndim)
        return function(x, axes, keepdim) if axes else x.clone()
    extreme.__name__ = extreme.__qualname__ = f"masked_{name}"
    extreme.__doc__ = (f"The {'largest' if largest else 'smallest'} of the elements where the mask is true; equal ones "
                       f"share the gradient. {'-inf' if largest else 'inf'} of none.")
    return formula(extreme)


masked_amax, masked_amin = _extreme("amax", reduce.amax, True), _extreme("amin", reduce.amin, False)


def _index(name: str, function: Callable[..., Tensor], largest: bool) -> Callable[..., Tensor]:
    def index(input: Tensor, dim: int | None = None, *, keepdim: bool = False, dtype: Any = None,
              mask: Tensor | None = None) -> Tensor:
        x = _typed(input, dtype)
        return function(_filled(f"masked.{name}", x, mask, extreme_of(x.array.layout.dtype, not largest)), dim, keepdim)
    index.__name__ = index.__qualname__ = f"masked_{name}"
    index.__doc__ = (f"The index, int64, of the {'largest' if largest else 'smallest'} of the elements where the mask "
                     "is true, along one axis, or in the flattened tensor.")
    return index


masked_argmax, masked_argmin = _index("argmax", reduce.argmax, True), _index("argmin", reduce.argmin, False)


@formula
def masked_mean(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None,
                mask: Tensor | None = None) -> Tensor:
    """The mean of the elements where the mask is true; NaN of none."""
    x = _typed(input, dtype)
    x = x if is_float(x.array.layout.dtype) else cast(x, np.float32)
    axes = _axes("masked.mean", dim, x.array.layout.ndim)
    return div(masked_sum(x, axes, keepdim=keepdim, mask=mask), _count("masked.mean", x, mask, axes, keepdim))


def masked_median(input: Tensor, dim: int = -1, *, keepdim: bool = False, dtype: Any = None,
                  mask: Tensor | None = None) -> Tensor:
    """The lower median, along one axis, of the elements where the mask is true; NaN of none. Floating point only."""
    x = _typed(input, dtype)
    if not is_float(x.array.layout.dtype):
        fail("masked.median", "needs a floating-point tensor", x.array.layout, "convert with .float()")
    return nanmedian(_filled("masked.median", x, mask, nan), dim, keepdim).values


@formula
def masked_norm(input: Tensor, ord: float = 2.0, dim: Any = None, *, keepdim: bool = False, dtype: Any = None,
                mask: Tensor | None = None) -> Tensor:
    """The norm sum(|x|^ord)^(1 / ord) of the elements where the mask is true."""
    x = _filled("masked.norm", _typed(input, dtype), mask, 0.0 if ord >= 0 else inf)
    axes = _axes("masked.norm", dim, x.array.layout.ndim)
    return vector_norm(x, p=float(ord), axes=axes, keepdim=builtins.bool(keepdim))


@formula
def masked_var(input: Tensor, dim: Any = None, unbiased: bool | None = None, *, correction: float | None = None,
               keepdim: bool = False, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The variance of the elements where the mask is true: sum((x - mean)^2) / max(count - correction, 0). The
    correction is 1 by default, 0 with `unbiased=False`."""
    x = _typed(input, dtype)
    x = x if is_float(x.array.layout.dtype) else cast(x, np.float32)
    axes = _axes("masked.var", dim, x.array.layout.ndim)
    lost = correction if correction is not None else 1 if unbiased is None or unbiased else 0
    apart = sub(x, masked_mean(x, axes, keepdim=True, mask=mask))
    total = masked_sum(square(apart), axes, keepdim=keepdim, mask=mask)
    return div(total, clamp(sub(_count("masked.var", x, mask, axes, keepdim), lost), min=0))


@formula
def masked_std(input: Tensor, dim: Any = None, unbiased: bool | None = None, *, correction: float | None = None,
               keepdim: bool = False, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The standard deviation of the elements where the mask is true: the root of `var`, with gradient 0 where it is
    0."""
    return root(masked_var(input, dim, unbiased, correction=correction, keepdim=keepdim, dtype=dtype, mask=mask))


@formula
def masked_logsumexp(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: Any = None,
                     mask: Tensor | None = None) -> Tensor:
    """log(sum(exp(x))) of the elements where the mask is true; -inf of none."""
    x = _typed(input, dtype)
    x = _filled("masked.logsumexp", x if is_float(x.array.layout.dtype) else cast(x, np.float32), mask, -inf)
    axes = _axes("masked.logsumexp", dim, x.array.layout.ndim)
    return logsumexp(x, axes, keepdim) if axes else x.clone()


@formula
def masked_logaddexp(input: Tensor, other: Tensor, *, dtype: Any = None, input_mask: Tensor | None = None,
                     other_mask: Tensor | None = None) -> Tensor:
    """log(exp(input) + exp(other)), where an element with a mask that is false counts as -inf."""
    return logaddexp_op(_filled("masked.logaddexp", _typed(input, dtype), input_mask, -inf),
                        _filled("masked.logaddexp", _typed(other, dtype), other_mask, -inf))


@formula
def masked_softmax(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The softmax along an axis over the elements where the mask is true, 0 elsewhere; NaN where there are none."""
    return softmax(_filled("masked.softmax", _typed(input, dtype), mask, -inf), dim)


@formula
def masked_log_softmax(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The logarithm of the softmax along an axis over the elements where the mask is true, -inf elsewhere."""
    return log_softmax(_filled("masked.log_softmax", _typed(input, dtype), mask, -inf), dim)


@formula
def masked_softmin(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The softmax of -input along an axis over the elements where the mask is true, 0 elsewhere."""
    return softmax(neg(_filled("masked.softmin", _typed(input, dtype), mask, inf)), dim)


@formula
def masked_normalize(input: Tensor, ord: float, dim: int, *, eps: float = 1e-12, dtype: Any = None,
                     mask: Tensor | None = None) -> Tensor:
    """The elements where the mask is true divided by their norm along an axis, at least `eps`; 0 elsewhere."""
    x = _typed(input, dtype)
    size = masked_norm(x, ord, dim, keepdim=True, mask=mask)
    return div(_filled("masked.normalize", x, mask, 0), clamp(size, min=eps))


@formula
def masked_cumsum(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The running sum along an axis of the elements where the mask is true."""
    return reduce.cumsum(_filled("masked.cumsum", _typed(input, dtype), mask, 0), dim)


@formula
def masked_cumprod(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """The running product along an axis of the elements where the mask is true."""
    return reduce.cumprod(_filled("masked.cumprod", _typed(input, dtype), mask, 1), dim)


# ---- samples ---------------------------------------------------------------------------------------------------------

def _samples(*more: Any, **attrs: Any) -> Callable[[Any], Iterator[tuple]]:
    """Samples of a reduction; `more` are the arguments before `dim`."""
    def samples(make: Any) -> Iterator[tuple]:
        some = as_tensor(np.arange(15).reshape(3, 5) % 4 != 1, device=make.device)
        yield make(3, 5), *more, {"mask": some, **attrs}
        yield make(3, 5), *more, 1, {"mask": some, **attrs}
        yield make(2, 3, 5), *more, (0, 2), {"keepdim": True, "mask": some, **attrs}
        yield make(3, 5), *more, 0, attrs
    return samples


def _along(*more: Any) -> Callable[[Any], Iterator[tuple]]:
    """Samples of what works along an axis."""
    def samples(make: Any) -> Iterator[tuple]:
        some = as_tensor(np.arange(15).reshape(3, 5) % 4 != 1, device=make.device)
        yield make(3, 5), *more, 1, {"mask": some}
        yield make(2, 3, 5), *more, 1, {"mask": some}
        yield make(3, 5), *more, 0
    return samples


def _errors(*more: Any) -> Callable[[Any], Iterator[tuple]]:
    def errors(make: Any) -> Iterator[tuple]:
        yield (make(3, 5), *more, 1, {"mask": make(3, 5)}), RuntimeError, "bool tensor"
        yield (make(3, 5), *more, 1, {"mask": make.bools(2, 3, 5)}), RuntimeError, "broadcasts to the input"
        yield (make(3, 5), *more, 2, {}), IndexError, "out of range"
    return errors


def _oracle(function: Callable[..., Any], position: int = 0) -> Callable[..., Any]:
    """`function(elements)` for each line of what is reduced, of the elements where the mask is true."""
    def reference(x: Any, *args: Any, keepdim: bool = False, mask: Any = None, **options: Any) -> Any:
        more, dim = args[:position], args[position] if len(args) > position else None
        axes = _axes("", dim, x.ndim)
        yes = np.broadcast_to(np.array(True) if mask is None else mask.numpy(), x.shape)
        kept = [i for i in range(x.ndim) if i not in axes]
        lines, flags = (a.transpose(*kept, *axes).reshape(*[x.shape[i] for i in kept], -1) for a in (x, yes))
        out = np.zeros(lines.shape[:-1])
        for at in np.ndindex(out.shape):
            out[at] = function(lines[at][flags[at]], *more)
        return out.reshape([1 if i in axes else n for i, n in enumerate(x.shape)]) if keepdim else out
    return reference


def _line_oracle(function: Callable[..., Any], fill: float, position: int = 0) -> Callable[..., Any]:
    """`function(line)` along an axis, where elements with a mask that is false are `fill`."""
    def reference(x: Any, *args: Any, mask: Any = None) -> Any:
        yes = np.broadcast_to(np.array(True) if mask is None else mask.numpy(), x.shape)
        filled = np.where(yes, x, fill)
        return np.apply_along_axis(lambda line: function(line, *args[:position]), args[position], filled)
    return reference


def _of_exponentials(line: Any) -> Any:
    e = np.exp(line - line.max())
    return e / e.sum()


_op: Any
_function: Any
for _op, _function in (
        (masked_sum, np.sum), (masked_prod, np.prod), (masked_amax, np.max), (masked_amin, np.min),
        (masked_mean, np.mean), (masked_var, partial(np.var, ddof=1)), (masked_std, partial(np.std, ddof=1)),
        (masked_logsumexp, np.logaddexp.reduce)):
    _op.samples(_samples())
    _op.errors(_errors())
    _op.reference(_oracle(_function))
masked_norm.samples(_samples(3.0))
masked_norm.errors(_errors(3.0))
masked_norm.reference(_oracle(lambda x, p: (np.abs(x) ** p).sum() ** (1 / p), 1))
for _op, _function, _fill in ((masked_softmax, _of_exponentials, -inf), (masked_cumsum, np.cumsum, 0),
                              (masked_log_softmax, lambda line: np.log(_of_exponentials(line)), -inf),
                              (masked_softmin, lambda line: _of_exponentials(-line), inf),
                              (masked_cumprod, np.cumprod, 1)):
    _op.samples(_along())
    _op.errors(_errors())
    _op.reference(_line_oracle(_function, _fill))
masked_log_softmax.samples(lambda make: iter([(make(3, 5), 0), (make(2, 3, 5), 1)]))       # finite results
masked_normalize.samples(_along(2.0))
masked_normalize.errors(_errors(2.0))
masked_normalize.reference(_line_oracle(lambda line, p: line / np.linalg.norm(line, p), 0, 1))


@masked_logaddexp.samples
def _logaddexp_samples(make: Any) -> Iterator[tuple]:
    some = as_tensor(np.arange(6).reshape(2, 3) % 4 != 1, device=make.device)
    yield make(2, 3), make(2, 3), {"input_mask": some}
    yield make(2, 3), make(2, 3)


@masked_logaddexp.errors
def _logaddexp_errors(make: Any) -> Iterator[tuple]:
    yield (make(2, 3), make(2, 3), {"other_mask": make(2, 3)}), RuntimeError, "bool tensor"


masked_logaddexp.reference(lambda a, b, input_mask=None: np.logaddexp(
    a if input_mask is None else np.where(input_mask.numpy(), a, -inf), b))
