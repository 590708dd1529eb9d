"""Embedding: rows of a table by number. It consists of other ops; their kernels are in native/index.c."""
from __future__ import annotations

from ..core.modes import no_grad
from ..core.shape import fail, is_float
from ..core.tensor import Tensor
from .creation import number, ones
from .index import index_copy
from .math import add, div, eq, gt, mul, sub, where
from .reduce import norm
from .take import add_at, checked, take_at
from .view import reshape


def _padding(padding_idx: int | None, n: int) -> int | None:
    """`padding_idx` counted from the first of n rows."""
    if padding_idx is None:
        return None
    if not -n <= padding_idx < n:
        fail("embedding", "padding_idx must be within num_embeddings",
             [f"padding_idx {padding_idx}", f"num_embeddings {n}"], kind=AssertionError)
    return padding_idx % n


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
              norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """weight[input]: the rows of `weight` with the numbers in `input`.

    Shapes: input (*) int32 or int64, weight (V, D) -> (*, D). A number outside [0, V) raises IndexError.

    The row `padding_idx` gets no gradient. With `max_norm`, each row used whose `norm_type`-norm is larger is first
    scaled down to that norm, in `weight` itself. With `scale_grad_by_freq`, a row's gradient is divided by the number
    of times that the row occurs in `input`. `sparse` changes nothing: the gradient is dense.
    """
    for name, t in (("input", input), ("weight", weight)):
        if not isinstance(t, Tensor):
            raise TypeError(f"[embedding] {name} must be a Tensor; got {type(t).__name__}")
    have = weight.layout
    if have.ndim != 2:
        fail("embedding", "weight must have two dimensions, (num_embeddings, embedding_dim)", have)
    if input.dtype.name not in ("int32", "int64"):
        fail("embedding", "input must hold row numbers, int32 or int64", input.layout, "convert with .long()")
    padding = _padding(padding_idx, have.shape[0])
    index = checked("embedding", input, have.shape[0], 0, wrap=False)
    flat = reshape(index, (-1,)) if index.ndim != 1 else index
    if max_norm is not None and flat.numel():
        _renormalize(weight, flat, float(number("embedding", "max_norm", max_norm)), norm_type)
    rows = take_at(weight, flat, 0, 1)
    if scale_grad_by_freq and is_float(have.dtype):
        counts = add_at((have.shape[0],), ones(flat.shape, dtype=have.dtype, device=weight.device), flat, 0)
        share = div(rows, reshape(take_at(counts, flat, 0, 1), (-1, 1)))
        # detached: the option asks for a gradient that is not the derivative; so the value is that of `rows`, and the
        # gradient that of `share`
        rows = add(rows.detach(), sub(share, share.detach()))
    if padding is not None:
        # detached: by definition of the option, the padding row gets no gradient
        rows = where(reshape(eq(flat, padding), (-1, 1)), rows.detach(), rows)
    return rows if index.ndim == 1 else reshape(rows, (*index.shape, have.shape[1]))


def _renormalize(weight: Tensor, index: Tensor, max_norm: float, norm_type: float) -> None:
    """Scales the rows `index` of `weight` down to `max_norm`, in place."""
    with no_grad():
        rows = take_at(weight, index, 0, 1)
        size = norm(rows, norm_type, 1, keepdim=True)
        scaled = where(gt(size, max_norm), mul(rows, div(max_norm, add(size, 1e-7))), rows)
        weight.copy_(index_copy(weight, 0, index, scaled))
