"""Rows of a table by number: an embedding, on the kernels of index.c."""
from __future__ import annotations

from ..core.shape import fail, is_float
from ..core.tape import no_grad
from ..core.tensor import Tensor
from .creation import ones
from .index import index_copy
from .math import add, div, eq, gt, mul, sub, where
from .reduce import norm
from .take import add_at, checked, take_at
from .view import reshape


def _padding(padding_idx: int | None, n: int) -> int | None:
    if padding_idx is None:
        return None
    if not -n <= padding_idx < n:
        fail("embedding", "padding_idx must be within num_embeddings",
             [f"padding_idx {padding_idx}", f"num_embeddings {n}"], kind=AssertionError)
    return padding_idx % n


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
              norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """The rows of `weight` that `input` names: weight[input].

    Shapes: input (*) int32 or int64, weight (V, D) -> (*, D).

    The row `padding_idx` gets no gradient. `max_norm`: rows that are used and whose `norm_type`-norm is larger are
    scaled down to it first, in `weight` itself. `scale_grad_by_freq`: a row's gradient is divided by how often it was
    used.
    """
    for name, t in (("input", input), ("weight", weight)):
        if not isinstance(t, Tensor):
            raise TypeError(f"[embedding] {name} must be a Tensor; got {type(t).__name__}")
    have = weight.layout
    if sparse:
        fail("embedding", "sparse=True is not supported: there are no sparse tensors", fix="use sparse=False",
             kind=NotImplementedError)
    if have.ndim != 2:
        fail("embedding", "weight must have two dimensions, (num_embeddings, embedding_dim)", have)
    if input.dtype.name not in ("int32", "int64"):
        fail("embedding", "input must hold row numbers, int32 or int64", input.layout, "convert with .long()")
    padding = _padding(padding_idx, have.shape[0])
    index = checked("embedding", input, have.shape[0], 0, wrap=False)
    flat = reshape(index, (-1,)) if index.ndim != 1 else index
    if max_norm is not None and flat.numel():
        _renormalize(weight, flat, float(max_norm), norm_type)
    rows = take_at(weight, flat, 0, 1)
    if scale_grad_by_freq and is_float(have.dtype):
        counts = add_at((have.shape[0],), ones(flat.shape, dtype=have.dtype, device=weight.device), flat, 0)
        share = div(rows, reshape(take_at(counts, flat, 0, 1), (-1, 1)))
        # detached: the value is that of `rows`, the gradient that of `share`; the option asks for a gradient that is
        # not the derivative
        rows = add(rows.detach(), sub(share, share.detach()))
    if padding is not None:
        # detached: the padding row takes no gradient, by definition of the option
        rows = where(reshape(eq(flat, padding), (-1, 1)), rows.detach(), rows)
    return rows if index.ndim == 1 else reshape(rows, (*index.shape, have.shape[1]))


def _renormalize(weight: Tensor, index: Tensor, max_norm: float, norm_type: float) -> None:
    """Scales the rows of `weight` that are named down to `max_norm`, in place."""
    with no_grad():
        rows = take_at(weight, index, 0, 1)
        size = norm(rows, norm_type, 1, keepdim=True)
        weight.copy_(index_copy(weight, 0, index, where(gt(size, max_norm), mul(rows, div(max_norm, add(size, 1e-7))),
                                                        rows)))
