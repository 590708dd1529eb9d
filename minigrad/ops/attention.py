"""Scaled dot-product attention (Vaswani et al. 2017), by blocks: the matrix of scores is never in memory as a whole.

The kernel (native/attention.c) is FlashAttention (Dao et al. 2022): for a block of queries it goes through the keys
block by block, with the online softmax of Milakov and Gimelshein (2018), which scales what it has summed down when the
maximum grows. For the backward it keeps one number for each query, the logarithm of the softmax's denominator (`lse`),
and computes the blocks of weights again.

Random numbers for dropout are a function of an input: `scaled_dot_product_attention` takes the state of the generator
as the tensor `stream`, and both the kernel and the definition draw the number at position (item, query, key) from it.
So the kernel need not keep a mask for its backward, and a captured step draws new numbers at each replay.
"""
from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..core.arrays import contiguous_copy, copy_array
from ..core.half import autocast_to_half, rounded_array, unrounded
from ..core.op import address, op, same_dtypes
from ..core.shape import BOOL, FLOAT32, INT64, broadcast_shapes, fail, is_float
from ..core.tensor import Tensor
from ..devices.base import TYPE_SUFFIX, Device, KernelTable
from ..devices.launch import BLOCKS, Launch, ceil_div, launch
from ..devices.memory import Array, Layout, alloc, layout
from ..devices.plan import broadcast_strides, is_half, reduce_plan
from ..devices.work import work
from .arrange import tril
from .convert import cast
from .creation import number, ones
from .index import repeat_interleave
from .math import add, div, eq, exp, gt, isfinite, logical_not, mul, sub, where
from .matmul import matmul
from .random import Generator, check_probability, dropped_op, dropped_oracle, take_stream
from .reduce import amax, sum
from .view import expand, reshape, swapaxes

__all__ = ["scaled_dot_product_attention"]


# ---- attention -------------------------------------------------------------------------------------------------------
@autocast_to_half
@op(any_layout=True)
def _scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
                                  stream: Tensor | None, *, is_causal: bool, scale: float, p: float,
                                  need_weights: bool) -> Any:
    """y = drop(softmax(scale query key^T + mask)) value (Vaswani et al. 2017, eq. 1).

    Shapes: query (*, L, E), key (*, S, E), value (*, S, Ev), mask (*, L, S) or None, stream int64 (4,) or None ->
    y (*, L, Ev), and with `need_weights` also the weights (*, L, S). Leading dimensions broadcast.

    A bool mask leaves out the keys where it is False; any other is added to the scores. With `is_causal`, query i has
    the keys 0 .. i only. A query without any key gives 0, and its gradients are 0. `drop` sets a weight to 0 with
    probability p, and divides the others by 1 - p.
    """
    masked = mask is not None or is_causal
    if masked:                                      # what holds NaN or inf counts only where it is used
        raw_key, raw_value = key.detach(), value.detach()
        key, value = where(isfinite(key), key, 0.0), where(isfinite(value), value, 0.0)
    scores = mul(matmul(query, swapaxes(key, -2, -1)), scale)
    if masked:
        raw = mul(matmul(query.detach(), swapaxes(raw_key, -2, -1)), scale)
        scores = where(isfinite(raw), scores, raw)
    if mask is not None:
        absent = logical_not(mask) if mask.dtype == BOOL else eq(mask, -np.inf)
        scores = where(absent, -np.inf, scores if mask.dtype == BOOL else add(scores, mask))
    if is_causal:
        past = tril(ones(scores.shape[-2:], dtype=BOOL, device=scores.device))
        scores = where(past, scores, -np.inf)
    if stream is not None or need_weights:          # each item of the result has its own weights and random numbers
        lead = _lead(query.layout, key.layout, value.layout, None if mask is None else mask.layout)
        scores = expand(scores, (*lead, *scores.shape[-2:]))
    dead = eq(scores, -np.inf)                      # set to 0 before exp, so that no gradient is 0 * inf
    # detached: the maximum only keeps e^x in range, the result does not depend on it
    top = amax(scores.detach(), -1, keepdim=True) if scores.shape[-1] else sum(scores.detach(), -1, True)
    power = where(dead, 0.0, exp(sub(where(dead, 0.0, scores), where(eq(top, -np.inf), 0.0, top))))
    total = sum(power, -1, True)
    weights = div(power, where(eq(total, 0.0), 1.0, total))
    if stream is not None:
        kept = logical_not(dropped_op(stream, shape=tuple(weights.shape), p=p))
        weights = mul(weights, mul(cast(kept, weights.dtype), 1 / (1 - p) if p < 1 else 0.0))
    y = matmul(weights, value)
    if masked:
        odd = matmul(cast(logical_not(dead), y.dtype), cast(logical_not(isfinite(raw_value)), y.dtype))
        y = where(gt(odd, 0.0), matmul(weights.detach(), raw_value), y)
    return (y, weights) if need_weights else y


def _lead(query: Layout, key: Layout, value: Layout, mask: Layout | None) -> tuple[int, ...]:
    """The leading dimensions of the result."""
    lead = broadcast_shapes("scaled_dot_product_attention", query.shape[:-2], key.shape[:-2], value.shape[:-2])
    return lead if mask is None else broadcast_shapes("scaled_dot_product_attention", lead, mask.shape[:-2])


@_scaled_dot_product_attention.check
def _attention_rule(query: Layout, key: Layout, value: Layout, mask: Layout | None, stream: Layout | None, *,
                    is_causal: bool, scale: float, p: float, need_weights: bool) -> None:
    name, given = "scaled_dot_product_attention", [f"query {query}", f"key {key}", f"value {value}"]
    if min(query.ndim, key.ndim, value.ndim) < 2:
        fail(name, "query, key and value need at least two dimensions, (*, length, size)", given)
    if not query.dtype == key.dtype == value.dtype:
        fail(name, "query, key and value must have one dtype", given, "convert with .to(dtype)")
    if not is_float(query.dtype):
        fail(name, "query, key and value must be floating point", given, "convert with .float()")
    if query.shape[-1] != key.shape[-1]:
        fail(name, "query and key must have one last size E", given)
    if key.shape[-2] != value.shape[-2]:
        fail(name, "key and value must have one length S (dimension -2)", given)
    if mask is not None:
        if mask.dtype not in (BOOL, query.dtype):
            fail(name, "attn_mask must be bool, or floating point like query", [f"query {query}", f"attn_mask {mask}"])
        wanted = (query.shape[-2], key.shape[-2])
        two = (1, 1, *mask.shape)[-2:]
        if any(m not in (1, n) for m, n in zip(two, wanted, strict=True)):
            fail(name, "attn_mask must broadcast to (*, L, S)",
                 [f"attn_mask {mask}", f"L, S = {wanted[0]}, {wanted[1]}"])
    if stream is not None and (stream.dtype != INT64 or stream.shape != (4,)):
        fail(name, "the stream must be int64[4], a generator's state", stream)
    _lead(query, key, value, mask)


def _offsets(device: Device, lead: tuple[int, ...], *operands: Layout | None) -> Array:
    """The table of native/attention.c: for each item of the leading dimensions, the first element of each array."""
    table = np.zeros((*lead, 8), np.int64)
    for column, x in enumerate(operands):
        if x is None or x.ndim <= 2:
            continue
        strides = broadcast_strides(layout(device, x.dtype, x.shape[:-2], x.strides[:-2]), lead)
        for d, (n, step) in enumerate(zip(lead, strides, strict=True)):
            table[..., column] += (np.arange(n) * step).reshape((n,) + (1,) * (len(lead) - d - 1))
    return device.constant(np.ascontiguousarray(table.reshape(-1)))


@_scaled_dot_product_attention.fused
def _attention_kernels(kernels: KernelTable, query: Layout, key: Layout, value: Layout, mask: Layout | None,
                       stream: Layout | None, *, is_causal: bool, scale: float, p: float, need_weights: bool) -> Any:
    forward, backward = kernels.attention_forward[query.dtype], kernels.attention_backward[query.dtype]
    for x in (query, key, value, mask):
        if x is not None:
            same_dtypes("attention", x)
    device, dtype, lead = query.device, query.dtype, _lead(query, key, value, mask)
    rows, keys, depth, width = query.shape[-2], key.shape[-2], query.shape[-1], value.shape[-1]
    y_layout, lse_layout, weights_layout = [unrounded(query, (*lead, rows, *n)) for n in ((width,), (), (keys,))]
    if y_layout.dtype == dtype and not need_weights:
        y_layout = _ordered_as(query, y_layout)
    two = (1, 1) if mask is None else (1, 1, *mask.shape)[-2:]
    mask_steps = (two[1] if two[0] > 1 else 0, 1 if two[1] > 1 else 0)         # from row to row, from key to key
    is_bool = mask is not None and mask.dtype == BOOL
    given = query, key, value, mask, stream
    # of half precision, gradients of operands that broadcast are float32 until they are summed
    wide = is_half(dtype) and any([prod(x.shape[:-2]) != prod(lead) for x in (query, key, value)])
    folds = [_fold(x, unrounded(x, x.shape).dtype if wide else dtype, lead) for x in (query, key, value)]
    copied = [i for i, x in enumerate(given) if x and not x.contiguous and (i > 2 or x.strides[-1] != 1)]
    query, key, value = [_contiguous(x) if i in copied else x for i, x in enumerate((query, key, value))]
    if mask is not None:
        mask = layout(device, mask.dtype, mask.shape if mask.ndim > 1 else two)
    results = [y_layout, *[full for _, full, _ in folds]]
    table = _offsets(device, lead, query, key, value, mask, *results)
    row_steps = [x.strides[-2] for x in (query, key, value, *results)]
    numbers = (prod(lead), rows, keys, depth, width, *row_steps, *mask_steps, int(is_causal), scale, p)

    def operands(q: Array, k: Array, v: Array, m: Array | None, s: Array | None) -> tuple[int, ...]:
        """The kernels' arguments q, k, v, bias, allowed, stream, table: a bool mask is `allowed`, any other `bias`."""
        at = address(m)
        return (q.ptr, k.ptr, v.ptr, 0 if is_bool else at, at if is_bool else 0, address(s), table.ptr)

    def run_forward(*inputs: Array | None) -> Any:
        arrays: list[Any] = list(inputs)
        for i in copied:
            arrays[i] = contiguous_copy(arrays[i])
        q, k, v, m, s = arrays
        y, lse = alloc(y_layout), alloc(lse_layout)
        weights = alloc(weights_layout) if need_weights else None
        forward.call(y.ptr, lse.ptr, address(weights), *operands(q, k, v, m, s), *numbers)
        made = rounded_array(y, dtype)      # the backward reads y unrounded
        return (made, rounded_array(weights, dtype)) if weights else made, (q, k, v, m, s, y, lse)

    total: Any = kernels.sum.get(folds[0][0].dtype)
    if wide:
        backward = kernels.attention_backward.members[TYPE_SUFFIX[dtype] + "w"]

    def run_backward(saved: Any, g: Any, needs: list[bool]) -> list[Array | None] | None:
        q, k, v, m, s, y, lse = saved
        if need_weights:
            g, g_weights = g
            if g_weights is not None or g is None:
                return None         # the definition computes gradients through the weights
        if needs[3]:
            return None             # and the gradient of the mask
        made = [alloc(full) if need else None for need, (_, full, _) in zip(needs, folds, strict=False)]
        g = _in_order(g, y_layout)
        backward.call(*map(address, made), g.ptr, y.ptr, lse.ptr, *operands(q, k, v, m, s), *numbers)
        return [*[x and _folded(x, fold, total, dtype) for x, fold in zip(made, folds, strict=True)], None, None]
    return run_forward, run_backward


def _folded(made: Array, fold: tuple[Layout, Layout, Array | None], total: Any, dtype: np.dtype) -> Array:
    """The gradient of an operand: summed where it was broadcast, then rounded."""
    own, _, plan = fold
    if plan is not None:
        summed = alloc(own)
        total.call(summed.ptr, made.ptr, plan.ptr)
        made = summed
    return rounded_array(made, dtype)


def _contiguous(x: Layout) -> Layout:
    return layout(x.device, x.dtype, x.shape)


def _ordered_as(x: Layout, to: Layout) -> Layout:
    """The layout `to` with its dimensions in memory in the order of x's: what heads of one projection give stands side
    by side again, so that they are merged without a copy."""
    order = sorted(range(x.ndim), key=lambda d: -x.strides[d])
    if x.ndim != to.ndim or 0 in x.strides or order[-1] != x.ndim - 1:
        return to
    strides, step = [1] * to.ndim, 1
    for d in reversed(order):
        strides[d], step = step, step * to.shape[d]
    return layout(to.device, to.dtype, to.shape, tuple(strides))


def _in_order(g: Array, to: Layout) -> Array:
    """The array itself, or a copy that stands in memory as `to` has it."""
    if g.layout.strides == to.strides:
        return g
    copied = alloc(layout(to.device, g.layout.dtype, to.shape, to.strides))
    copy_array(copied, g)
    return copied


def _fold(x: Layout, dtype: np.dtype, lead: tuple[int, ...]) -> tuple[Layout, Layout, Array | None]:
    """The layout of an operand's gradient; that of its gradient for each item of the leading dimensions, as the kernel
    writes it; and the plan that sums the one to the other, or None where the operand was not broadcast."""
    own, full = [layout(x.device, dtype, (*n, *x.shape[-2:])) for n in (x.shape[:-2], lead)]
    if own.size == full.size:
        own = _ordered_as(x, own)
        return own, own, None
    padded = (1,) * (full.ndim - own.ndim) + own.shape
    axes = tuple(i for i, (n, m) in enumerate(zip(padded, full.shape, strict=True)) if n != m)
    return own, full, reduce_plan(full, axes)


@_scaled_dot_product_attention.reference
def _attention_oracle(query: Any, key: Any, value: Any, mask: Any, stream: Any, *, is_causal: bool, scale: float,
                      p: float, need_weights: bool) -> Any:
    scores = np.einsum("...le,...se->...ls", query, key) * scale
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    if is_causal:
        scores = np.where(np.arange(scores.shape[-1]) <= np.arange(scores.shape[-2])[:, None], scores, -np.inf)
    top = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(top), 0, top))
    lead = np.broadcast_shapes(weights.shape[:-2], value.shape[:-2])
    weights = np.broadcast_to(weights, (*lead, *weights.shape[-2:]))
    total = weights.sum(-1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total != 0)
    if stream is not None:
        weights = np.where(dropped_oracle(stream, shape=weights.shape, p=p), 0, weights / (1 - p) if p < 1 else 0)
    y = np.einsum("...ls,...sv->...lv", weights, value)
    return (y, weights) if need_weights else y


_PLAIN = {"is_causal": False, "scale": 0.5, "p": 0.0, "need_weights": False}


@_scaled_dot_product_attention.samples
def _attention_samples(make: Any) -> Any:
    causal, weights = {**_PLAIN, "is_causal": True}, {**_PLAIN, "need_weights": True}
    yield make(2, 5, 4), make(2, 7, 4), make(2, 7, 3), None, None, _PLAIN
    yield make(2, 2, 33, 8), make(2, 2, 33, 8), make(2, 2, 33, 16), None, None, causal
    yield make(5, 3), make(4, 3), make(4, 2), None, None, causal
    yield make(4, 3), make(6, 3), make(6, 1), None, None, {**causal, "need_weights": True}
    yield make(2, 3, 4), make(2, 5, 4), make(2, 5, 4), make.bools(2, 3, 5), None, weights
    yield make(2, 3, 4), make(2, 5, 4), make(2, 5, 4), make(3, 5), None, weights
    yield make(2, 3, 4), make(2, 5, 4), make(2, 5, 4), make.bools(2, 1, 5), None, _PLAIN
    yield make(2, 3, 4), make(2, 5, 4), make(2, 5, 4), make(3, 1), None, _PLAIN
    # no query has a key
    yield make(2, 3, 4), make(2, 5, 4), make(2, 5, 4), mul(make.bools(2, 3, 5), 0) == 1, None, weights
    yield make(4, 3, 2, 4), make(1, 3, 5, 4), make(3, 5, 2), make.bools(4, 1, 2, 5), None, _PLAIN
    yield make(3, 4), make(2, 5, 4), make(2, 5, 4), make.bools(5), None, causal
    yield make(2, 3, 4), make(2, 5, 4), make(2, 5, 4), None, make.ints(4), {**weights, "p": 0.3}
    yield make(2, 3, 4), make(2, 5, 4), make(2, 5, 4), make.bools(3, 5), make.ints(4), {**causal, "p": 0.5}
    yield make(3, 4), make(5, 4), make(5, 4), None, make.ints(4), {**_PLAIN, "p": 1.0}
    # value has more items than query and key
    yield make(3, 4), make(1, 5, 4), make(2, 5, 4), None, make.ints(4), {**weights, "p": 0.5}
    yield make(2, 70, 5), make(2, 150, 5), make(2, 150, 9), None, None, _PLAIN         # several blocks
    yield make(1, 1, 1), make(1, 1, 1), make(1, 1, 1), None, None, _PLAIN
    yield make(2, 0, 4), make(2, 3, 4), make(2, 3, 4), None, None, _PLAIN
    yield make(2, 3, 4), make(2, 0, 4), make(2, 0, 4), None, None, weights


@_scaled_dot_product_attention.errors
def _attention_errors(make: Any) -> Any:
    q, k = make(2, 3, 4), make(2, 5, 4)
    yield (q, make(2, 5, 3), k, None, None, _PLAIN), RuntimeError, r"last size E.*\[2, 5, 3\]"
    yield (q, k, make(2, 4, 4), None, None, _PLAIN), RuntimeError, "one length S"
    yield (q, make(3, 5, 4), make(3, 5, 4), None, None, _PLAIN), RuntimeError, "broadcast"
    yield (q, k, k, make.bools(2, 4, 5), None, _PLAIN), RuntimeError, r"attn_mask must broadcast.*L, S = 3, 5"
    yield (q, k, k, make.ints(3, 5), None, _PLAIN), RuntimeError, "attn_mask must be bool, or floating"
    yield (q, k, make(2, 5, 4, dtype=np.float16), None, None, _PLAIN), RuntimeError, "one dtype"
    yield (make.ints(3, 4), make.ints(3, 4), make.ints(3, 4), None, None, _PLAIN), RuntimeError, "floating point"
    yield (make(4), k, k, None, None, _PLAIN), RuntimeError, "two dimensions"
    yield (q, k, k, None, make.ints(3), {**_PLAIN, "p": 0.5}), RuntimeError, "stream"


def _shared_heads(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Any, ...]:
    """Grouped queries (Ainslie et al. 2023): splits the heads of the query in two dimensions (heads of the key, group),
    and those of key and value in (heads, 1), so that they broadcast."""
    name = "scaled_dot_product_attention"
    given = [f"query {query.layout}", f"key {key.layout}", f"value {value.layout}"]
    if min(query.ndim, key.ndim, value.ndim) < 3:
        fail(name, "enable_gqa needs heads in dimension -3", given)
    heads, shared = query.shape[-3], key.shape[-3]
    if not shared or value.shape[-3] == 0 or heads % shared or heads % value.shape[-3]:
        fail(name, "with enable_gqa the heads of key and value (dimension -3) must divide the query's", given)
    if value.shape[-3] != shared:
        key, value = [repeat_interleave(x, heads // x.shape[-3], -3) for x in (key, value)]
        return query, key, value, mask

    def split(x: Tensor, n: int, m: int) -> Tensor:
        return reshape(x, (*x.shape[:-3], n, m, *x.shape[-2:]))
    if mask is not None and mask.ndim > 2:
        mask = split(mask, shared, heads // shared) if mask.shape[-3] == heads else split(mask, mask.shape[-3], 1)
    return split(query, shared, heads // shared), split(key, shared, 1), split(value, shared, 1), mask


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
                                 dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
                                 enable_gqa: bool = False, *, need_weights: bool = False,
                                 generator: Generator | None = None) -> Any:
    """softmax(scale query key^T + attn_mask) value, with dropout of the weights (Vaswani et al. 2017, eq. 1).

    Shapes: query (*, L, E), key (*, S, E), value (*, S, Ev) -> (*, L, Ev), or with `need_weights` a tuple of this and
    the weights (*, L, S). Leading dimensions broadcast. One floating-point dtype.

    - `attn_mask` broadcasts to (*, L, S). If it is bool, a query has the keys where it is True, else it is added to the
      scores. A query without any key gives 0, and its gradients are 0 (PyTorch issues 41508, 103749).
    - `dropout_p`: the probability with which a weight is set to 0; the others are divided by 1 - dropout_p.
    - `is_causal`: query i has the keys 0 .. i only.
    - `scale`: 1 / sqrt(E) by default.
    - `enable_gqa`: the heads are dimension -3, and each head of key and value serves a group of the query's heads.

    No matrix of L x S is in memory, unless `need_weights` asks for it or `attn_mask` requires a gradient.
    """
    for name, t in (("query", query), ("key", key), ("value", value), ("attn_mask", attn_mask)):
        if not isinstance(t, Tensor) and not (t is None and name == "attn_mask"):
            raise TypeError(f"[scaled_dot_product_attention] {name} must be a Tensor; got {type(t).__name__}")
    p = check_probability("scaled_dot_product_attention", dropout_p)
    if attn_mask is not None:
        if is_causal:
            fail("scaled_dot_product_attention", "attn_mask and is_causal=True exclude each other",
                 [f"attn_mask {attn_mask.layout}"], "put the causal mask into attn_mask: mask & ones(L, S).tril()")
        if attn_mask.dtype == FLOAT32 and is_float(query.dtype):
            attn_mask = attn_mask if query.dtype == FLOAT32 else cast(attn_mask, query.dtype)
    if scale is None:
        size = query.shape[-1] if query.ndim else 1
        scale = max(size, 1) ** -0.5                # without elements all scores are 0
    shape = query.shape
    if enable_gqa:
        query, key, value, attn_mask = _shared_heads(query, key, value, attn_mask)
    stream = None
    if p > 0:
        layouts = (query.layout, key.layout, value.layout, None if attn_mask is None else attn_mask.layout)
        _attention_rule(*layouts, None, is_causal=is_causal, scale=scale, p=p, need_weights=need_weights)
        lead = _lead(*layouts)
        stream = take_stream(query.device, prod(lead) * query.shape[-2] * key.shape[-2], generator)
    y = _scaled_dot_product_attention(query, key, value, attn_mask, stream, is_causal=bool(is_causal), p=p,
                                      scale=float(number("scaled_dot_product_attention", "scale", scale)),
                                      need_weights=bool(need_weights))
    if query.shape == shape:
        return y

    def merged(t: Tensor) -> Tensor:
        return reshape(t, (*t.shape[:-4], shape[-3], *t.shape[-2:]))
    return tuple(merged(t) for t in y) if need_weights else merged(y)


def _pairs(k: Any) -> int:
    """The pairs of a row and a key; with `causal`, row i takes the keys up to i."""
    square = min(k.rows, k.keys)
    return k.items * (square * (square + 1) // 2 + (k.rows - square) * k.keys if k.causal else k.rows * k.keys)


work("attention_forward", lambda k: 2 * _pairs(k) * (k.depth + k.value_depth))          # q k^T, weights v
# q k^T again, gq, gk, and the gradients of weights and v
work("attention_backward", lambda k: 2 * _pairs(k) * (3 * k.depth + 2 * k.value_depth))


# ---- launches on CUDA ------------------------------------------------------------------------------------------------

def _tiles(k: Any, lines: int, step: str = "") -> Launch:
    """A block for each tile of 32 lines of an item, which suffices for both types: float32 has 64 in a tile."""
    return Launch(step, (min(k.items * ceil_div(lines, 32), BLOCKS),), (16, 16))


def _backward_rule(k: Any, host: Any) -> list[Launch]:
    return [*([_tiles(k, k.keys)] if k.gk or k.gv else []), *([_tiles(k, k.rows, "queries")] if k.gq else [])]


launch("ops/attention.cu", "attention_forward", lambda k, host: [_tiles(k, k.rows)], shared=32 << 10,
       half=True)
launch("ops/attention.cu", "attention_backward", _backward_rule, shared=47 << 10, half=True, wide=True)
