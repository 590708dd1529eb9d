"""PyTorch's inner functions that it shows as `torch.NAME` or `torch.ops.aten.NAME`, in terms of minigrad's."""
from __future__ import annotations

import builtins
from typing import Any

from ..core.shape import fail
from ..core.tensor import Tensor
from ..nn import functional as F
from ..ops import rnn
from ..ops.creation import empty
from ..ops.join import cat
from ..ops.math import where
from ..ops.places import as_strided, segment_reduce

__all__ = ["empty_permuted", "empty_strided", "grid_sampler", "grid_sampler_2d", "grid_sampler_3d",
           "max_pool2d_with_indices_backward", "native_batch_norm", "native_dropout_backward", "native_group_norm",
           "native_layer_norm", "embedding", "gru_cell", "lstm_cell", "rnn_relu_cell", "rnn_tanh_cell"]


def _statistics(x: Any, dims: Any, eps: float, keepdim: bool = False) -> tuple[Any, Any]:
    return x.mean(dims, keepdim=keepdim), (x.var(dims, correction=0, keepdim=keepdim) + eps).rsqrt()


def native_layer_norm(input: Tensor, normalized_shape: Any, weight: Tensor | None, bias: Tensor | None,
                      eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """`layer_norm`, and the mean and 1 / sqrt(variance + eps) of each row."""
    dims = tuple([i - len(normalized_shape) for i in range(len(normalized_shape))])
    return (F.layer_norm(input, normalized_shape, weight, bias, eps), *_statistics(input, dims, eps, True))


def native_group_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None, N: int, C: int, HxW: int, group: int,
                      eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """`group_norm`, and the mean and 1 / sqrt(variance + eps) of each group: (N, group)."""
    rows = input.reshape(N, group, C * HxW // max(group, 1))            # type: ignore[attr-defined]
    return (F.group_norm(input, group, weight, bias, eps), *_statistics(rows, -1, eps))


def native_batch_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
                      running_var: Tensor | None, training: bool, momentum: float,
                      eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """`batch_norm`, and in training the mean and 1 / sqrt(variance + eps) of each channel."""
    out = F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if not training:
        return out, input.new_empty(0), input.new_empty(0)             # type: ignore[attr-defined]
    return (out, *_statistics(input, tuple([i for i in range(input.ndim) if i != 1]), eps))


def _native_batch_norm_legit(input: Tensor, weight: Any, bias: Any, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """`native_batch_norm`, perhaps without running statistics."""
    return native_batch_norm(input, weight, bias, *(rest if len(rest) == 5 else (None, None, *rest)))


def _batch_norm_with_update(input: Tensor, weight: Any, bias: Any, running_mean: Tensor, running_var: Tensor,
                            momentum: float, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`native_batch_norm` in training."""
    found = native_batch_norm(input, weight, bias, running_mean, running_var, True, momentum, eps)
    return (*found, empty(0, dtype="uint8"))


def native_dropout_backward(grad_output: Any, mask: Any, scale: float) -> Tensor:
    """grad_output * mask * scale."""
    return grad_output * mask * scale                                   # type: ignore[no-any-return]


def grid_sampler(input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int,
                 align_corners: bool) -> Tensor:
    """`grid_sample`, where the modes are numbers."""
    return F.grid_sample(input, grid, ("bilinear", "nearest", "bicubic")[interpolation_mode],
                         ("zeros", "border", "reflection")[padding_mode], align_corners)


grid_sampler_2d = grid_sampler_3d = grid_sampler


def max_pool2d_with_indices_backward(grad_output: Any, self: Any, kernel_size: Any, stride: Any, padding: Any,
                                     dilation: Any, ceil_mode: bool, indices: Any) -> Tensor:
    """The gradient of `max_pool2d`: that of each window, added where its maximum was found."""
    lead, count = self.shape[:-2], self.shape[-2] * self.shape[-1]
    size = (*lead, grad_output.shape[-2] * grad_output.shape[-1])
    at, g = indices.reshape(size), grad_output.reshape(size)
    return self.new_zeros((*lead, count)).scatter_add(-1, at, g).reshape(self.shape)    # type: ignore[no-any-return]


def _softmax_backward_data(grad_output: Any, output: Any, dim: int, input_dtype: Any) -> Tensor:
    """The gradient of softmax: output (grad - sum(output grad))."""
    return output * (grad_output - (output * grad_output).sum(dim, True))               # type: ignore[no-any-return]


def _safe_softmax(input: Any, dim: int, dtype: Any = None) -> Tensor:
    """`softmax`, 0 in rows of which all elements are -inf."""
    x = input if dtype is None else input.to(dtype)
    none = (x == -float("inf")).all(dim, True)
    return where(none, 0.0, F.softmax(where(none, 0.0, x), dim))


def _upsample_bilinear2d_aa(input: Tensor, output_size: Any, align_corners: bool, scale_factors: Any = None,
                            scales_w: float | None = None, *, scales_h: float | None = None) -> Tensor:
    """`interpolate` with antialias, of a size or by factors; NotImplementedError for both."""
    factors = scale_factors or scales_h or scales_w
    if factors and output_size:
        raise NotImplementedError("[_upsample_bilinear2d_aa] takes output_size or scale_factors")
    return F.interpolate(input, output_size, factors, "bilinear", align_corners, antialias=True)


def _unsafe_masked_index(self: Any, mask: Tensor, indices: Any, fill: float) -> Tensor:
    """self[indices] where the mask is True, else `fill`."""
    return where(mask, self[tuple([where(mask, i, 0) for i in indices])], fill)


def _unsafe_masked_index_put_accumulate(self: Any, mask: Tensor, indices: Any, values: Any) -> Tensor:
    """`index_put` that adds the values where the mask is True."""
    at = tuple([where(mask, i, 0) for i in indices])
    return self.index_put(at, where(mask, values, 0), accumulate=True)                  # type: ignore[no-any-return]


def _chunk_cat(tensors: Any, dim: int, num_chunks: int) -> Tensor:
    """The tensors, each in `num_chunks` parts along `dim`, the last with zeros, and the parts of all side by side:
    (*, num_chunks, m), where * are the sizes before `dim`."""
    many = len({t.ndim for t in tensors}) > 1
    for wrong, invariant in ((not tensors, "a tensor"), (num_chunks < 1, "a positive num_chunks"),
                             (many and dim < 0, "a dim from 0 on for tensors of different dimensions"),
                             (any(not t.numel() for t in tensors), "tensors with elements"),
                             (any(not -t.ndim <= dim < t.ndim for t in tensors), "a dim that all tensors have"),
                             (len({t.shape[:dim] for t in tensors}) > 1, "equal sizes before dim")):
        if wrong:
            fail("_chunk_cat", f"needs {invariant}", [*[t.layout for t in tensors], f"dim {dim}",
                                                      f"num_chunks {num_chunks}"])
    parts: list[Any] = []
    for t in tensors:
        size = list(t.shape)
        size[dim] = -size[dim] % num_chunks
        parts.append(cat([t, t.new_zeros(size)], dim).reshape(*t.shape[:dim], num_chunks, -1))
    return cat(parts, -1)


def slice(input: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Tensor:
    """input[start:end:step] along `dim`."""
    key = [builtins.slice(None)] * input.ndim
    key[dim] = builtins.slice(start, end, step)
    return input[tuple(key)]                                            # type: ignore[no-any-return]


def embedding(weight: Tensor, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False,
              sparse: bool = False) -> Tensor:
    """`F.embedding` with the weight first; no row is padding if `padding_idx` is negative."""
    padding = None if padding_idx < 0 else padding_idx
    return F.embedding(indices, weight, padding, None, 2.0, scale_grad_by_freq, sparse)


def _segment_reduce(data: Tensor, reduce: str, **named: Any) -> Tensor:
    """`segment_reduce`."""
    return segment_reduce(data, reduce, **named)


def _cell(op: Any, norms: int, **options: Any) -> Any:
    def cell(input: Tensor, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
        """One step: hx is h, of an LSTM (h, c)."""
        state = hx if isinstance(hx, (tuple, list)) else (hx,)
        return op(input, *state, w_ih, w_hh, b_ih, b_hh, *[None] * norms, **options)
    return cell


lstm_cell, gru_cell, rnn_tanh_cell = _cell(rnn.lstm_cell, 8), _cell(rnn.gru_cell, 5), _cell(rnn.rnn_cell, 5)
rnn_relu_cell = _cell(rnn.rnn_cell, 5, nonlinearity="relu")


def empty_permuted(size: Any, physical_layout: Any, **options: Any) -> Tensor:
    """`empty`, where `physical_layout` names the dimensions from the slowest in memory to the fastest."""
    order = [int(d) for d in physical_layout]
    if sorted(order) != list(range(len(size))):
        raise RuntimeError(f"[empty_permuted] physical_layout must name each dimension once; got {physical_layout}")
    made: Any = empty([size[d] for d in order], **options)
    return made.permute([order.index(i) for i in range(len(order))])    # type: ignore[no-any-return]


def empty_strided(size: Any, stride: Any, **options: Any) -> Tensor:
    """`empty` with these strides. RuntimeError unless there is one for each dimension."""
    if len(size) != len(stride):
        raise RuntimeError(f"[empty_strided] needs one stride for each dimension; got {size}, {stride}")
    count = 0 if 0 in size else 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    return as_strided(empty(count, **options), size, stride)


for _op in [f for f in globals().values() if getattr(f, "__module__", None) == __name__]:
    _op.default = _op                               # an overload: torch.ops.aten.NAME.default
