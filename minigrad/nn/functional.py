"""The functions behind the layers, with PyTorch's names and arguments (`torch.nn.functional`).

A thin layer: it checks what PyTorch checks here, turns old spellings into new ones, and calls the op of ``minigrad.ops``, which
carries the formula, the kernels and the derivatives.
"""
from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

from numpy import finfo

from minigrad.ops.attention import scaled_dot_product_attention as scaled_dot_product_attention
from minigrad.ops.conv import convolution, convolution_transpose
from minigrad.ops.embedding import embedding as embedding
from minigrad.ops.index import one_hot as one_hot
from minigrad.ops.norm import axes_in_order, from_end, masked_norm, to_end, valid_mask
from minigrad.ops.pool import adaptive_avg_pool, adaptive_max_pool, avg_pool, max_pool

from ..core.shape import BOOL, axis_of, broadcast_shapes, fail, is_float
from ..core.tape import mode, no_grad
from ..core.tensor import Tensor, bump, new_tensor
from ..ops.arrange import pad

ops: Any = import_module("minigrad.ops")     # its names are gathered when it is imported, where no type checker looks

# ---- helpers the layers share ----


def check_probability(p: float) -> None:
    if p < 0.0 or p > 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def as_shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) or not isinstance(shape, Sequence) else tuple(shape)


def check_batch_size(shape: Sequence[int], axis: int = 1) -> None:
    """A channel's variance needs more than one value: N times the space of (N, C, *)."""
    if math.prod(n for i, n in enumerate(shape) if i not in (axis, axis + len(shape))) == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(shape)}")


def reduction_of(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction's name, also from its old spelling."""
    if size_average is None and reduce is None:
        return reduction
    new = "none" if reduce is False else "sum" if size_average is False else "mean"
    warnings.warn(f"size_average and reduce args will be deprecated, please use reduction='{new}' instead.", stacklevel=4)
    return new


def _reduce(loss: Tensor, reduction: str, divisor: Tensor | None = None) -> Tensor:
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.mean() if divisor is None else loss.sum() / divisor
    raise ValueError(f"Invalid reduction mode: {reduction}. Expected one of 'none', 'mean', 'sum'.")


def _checked(reduction: str) -> str:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return reduction


def _write_back(name: str, input: Tensor, op: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
    """``inplace=True``: the result goes into ``input``'s memory. In a graph, the op is recorded on a copy of the old values and
    ``input`` takes the result's place in the graph; what was saved of it before is stale from then on, as in PyTorch."""
    if not (mode.grad and input.requires_grad):
        return input.copy_(op(input, *args, **options))
    if input.node is None:
        fail(name, "inplace=True cannot change a leaf that requires gradients", input.array.layout, "use inplace=False, or no_grad()")
    if input.array.storage is not input.array:
        raise NotImplementedError(f"[{name}] inplace=True changes a view of a tensor that is being recorded; use inplace=False, or clone()")
    with no_grad():
        before = input.clone()
    out = op(new_tensor(before.array, input.node), *args, **options)
    with no_grad():
        input.copy_(out)
    input.node = out.node
    return input


# ---- dense ----


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input W^T + bias: (*, in), (out, in), (out) -> (*, out)."""
    return ops.linear(input, weight, bias)


# ---- convolution and pooling ----

Size = int | Sequence[int]


def sizes_of(value: Size, dims: int, name: str = "", argument: str = "") -> tuple[int, ...]:
    """One number for all spatial dimensions, or one for each."""
    if isinstance(value, int):
        return (value,) * dims
    given = tuple(value)
    if len(given) == 1:
        given *= dims
    if len(given) != dims or not all(isinstance(n, int) for n in given):
        fail(name, f"{argument} must be a whole number or {dims} of them", f"{argument} {value}")
    return given


def _plain(value: Any) -> Any:
    """An argument in the form a function can be remembered by."""
    return tuple(value) if isinstance(value, list) else value


@lru_cache(maxsize=1024)
def _conv_options(name: str, dims: int, kernel: tuple[int, ...], stride: Any, padding: Any, dilation: Any, groups: int) -> dict[str, Any]:
    stride, dilation = sizes_of(stride, dims, name, "stride"), sizes_of(dilation, dims, name, "dilation")
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            fail(name, "padding must be numbers, 'same' or 'valid'", repr(padding))
        if padding == "same" and any(s != 1 for s in stride):
            fail(name, "padding='same' is for stride 1", f"stride {list(stride)}", "give the padding in numbers")
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        pairs = tuple([(n // 2, n - n // 2) for n in total])
    else:
        pairs = tuple([(p, p) for p in sizes_of(padding, dims, name, "padding")])
    return {"stride": stride, "padding": pairs, "dilation": dilation, "groups": groups}


def _batched(name: str, input: Tensor, weight: Tensor, dims: int) -> Tensor:
    """The input with a batch dimension."""
    if weight.ndim != dims + 2 or input.ndim not in (dims + 1, dims + 2):
        fail(name, f"the input must have {dims + 2} dimensions, or {dims + 1} without a batch, and weight {dims + 2}",
             [f"input {input.layout}", f"weight {weight.layout}"])
    return input if input.ndim == dims + 2 else input.unsqueeze(0)


def _conv(name: str, dims: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
          groups: int) -> Tensor:
    options = _conv_options(name, dims, tuple(weight.shape[2:]), _plain(stride), _plain(padding), _plain(dilation), groups)
    y = convolution(_batched(name, input, weight, dims), weight, bias, **options)
    return y if input.ndim == dims + 2 else y.squeeze(0)


@lru_cache(maxsize=1024)
def _transpose_options(name: str, dims: int, stride: Any, padding: Any, output_padding: Any, groups: int, dilation: Any) -> dict[str, Any]:
    return {"stride": sizes_of(stride, dims, name, "stride"), "padding": sizes_of(padding, dims, name, "padding"),
            "output_padding": sizes_of(output_padding, dims, name, "output_padding"),
            "dilation": sizes_of(dilation, dims, name, "dilation"), "groups": groups}


def _conv_transpose(name: str, dims: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any,
                    output_padding: Any, groups: int, dilation: Any) -> Tensor:
    options = _transpose_options(name, dims, _plain(stride), _plain(padding), _plain(output_padding), groups, _plain(dilation))
    y = convolution_transpose(_batched(name, input, weight, dims), weight, bias, **options)
    return y if input.ndim == dims + 2 else y.squeeze(0)


def conv1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size | str = 0,
           dilation: Size = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of (N, C, L) or (C, L) with weight (out, C / groups, k)."""
    return _conv("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size | str = 0,
           dilation: Size = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of (N, C, H, W) or (C, H, W) with weight (out, C / groups, kH, kW)."""
    return _conv("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size | str = 0,
           dilation: Size = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of (N, C, D, H, W) or (C, D, H, W) with weight (out, C / groups, kD, kH, kW)."""
    return _conv("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
                     output_padding: Size = 0, groups: int = 1, dilation: Size = 1) -> Tensor:
    """The transpose of ``conv1d``: (N, C, L) or (C, L) with weight (C, out / groups, k)."""
    return _conv_transpose("conv_transpose1d", 1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
                     output_padding: Size = 0, groups: int = 1, dilation: Size = 1) -> Tensor:
    """The transpose of ``conv2d``: (N, C, H, W) or (C, H, W) with weight (C, out / groups, kH, kW)."""
    return _conv_transpose("conv_transpose2d", 2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
                     output_padding: Size = 0, groups: int = 1, dilation: Size = 1) -> Tensor:
    """The transpose of ``conv3d``: (N, C, D, H, W) or (C, D, H, W) with weight (C, out / groups, kD, kH, kW)."""
    return _conv_transpose("conv_transpose3d", 3, input, weight, bias, stride, padding, output_padding, groups, dilation)


def _pooled(name: str, input: Tensor, dims: int, empty_channels: bool = False) -> None:
    """Space, channels and perhaps a batch; only the batch may be empty."""
    if input.ndim not in (dims + 1, dims + 2) or not all(input.shape[input.ndim - dims - (0 if empty_channels else 1):]):
        fail(name, f"the input must have {dims + 2} dimensions, or {dims + 1} without a batch, and only the batch may be empty",
             input.layout)


@lru_cache(maxsize=1024)
def _pool_options(name: str, dims: int, kernel_size: Any, stride: Any, padding: Any) -> dict[str, Any]:
    kernel = sizes_of(kernel_size, dims, name, "kernel_size")
    empty = stride is None or isinstance(stride, tuple) and not stride
    return {"kernel": kernel, "stride": kernel if empty else sizes_of(stride, dims, name, "stride"),
            "padding": sizes_of(padding, dims, name, "padding")}


def _max_pool(name: str, dims: int, input: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
              ceil_mode: bool) -> tuple[Tensor, Tensor]:
    _pooled(name, input, dims)
    options = _pool_options(name, dims, _plain(kernel_size), _plain(stride), _plain(padding))
    return max_pool(input, **options, dilation=sizes_of(dilation, dims, name, "dilation"), ceil_mode=bool(ceil_mode))


def max_pool1d_with_indices(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
                            ceil_mode: bool = False, return_indices: bool = False) -> tuple[Tensor, Tensor]:
    """``max_pool1d`` and where in the space the elements stand."""
    return _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool1d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element of each window of (N, C, L) or (C, L); the stride is the kernel's size if not given."""
    found = _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode)
    return found if return_indices else found[0]


def max_pool2d_with_indices(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
                            ceil_mode: bool = False, return_indices: bool = False) -> tuple[Tensor, Tensor]:
    """``max_pool2d`` and where in the space the elements stand."""
    return _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element of each window of (N, C, H, W) or (C, H, W); the stride is the kernel's size if not given."""
    found = _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode)
    return found if return_indices else found[0]


def max_pool3d_with_indices(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
                            ceil_mode: bool = False, return_indices: bool = False) -> tuple[Tensor, Tensor]:
    """``max_pool3d`` and where in the space the elements stand."""
    return _max_pool("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool3d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element of each window of (N, C, D, H, W) or (C, D, H, W); the stride is the kernel's size if not given."""
    found = _max_pool("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode)
    return found if return_indices else found[0]


def _avg_pool(name: str, dims: int, input: Tensor, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool,
              divisor_override: int | None) -> Tensor:
    _pooled(name, input, dims)
    options = _pool_options(name, dims, _plain(kernel_size), _plain(stride), _plain(padding))
    return avg_pool(input, **options, ceil_mode=bool(ceil_mode), count_include_pad=bool(count_include_pad),
                    divisor_override=divisor_override)


def avg_pool1d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
               count_include_pad: bool = True) -> Tensor:
    """The mean of each window of (N, C, L) or (C, L), the zeros of the padding counted or not."""
    return _avg_pool("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: int | None = None) -> Tensor:
    """The mean of each window of (N, C, H, W) or (C, H, W), padding counted or not; or the sum over ``divisor_override``."""
    return _avg_pool("avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: int | None = None) -> Tensor:
    """The mean of each window of (N, C, D, H, W) or (C, D, H, W), padding counted or not; or the sum over ``divisor_override``."""
    return _avg_pool("avg_pool3d", 3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def _adaptive(op: Callable[..., Any], name: str, dims: int, input: Tensor, output_size: Any, empty_channels: bool = False) -> Any:
    """Checks the input and the output size, None being the input's, and pools."""
    _pooled(name, input, dims, empty_channels=empty_channels)
    given = tuple(output_size) if isinstance(output_size, Sequence) else (output_size,) * dims
    if len(given) != dims:
        fail(name, f"output_size must be a whole number or {dims} of them", f"output_size {output_size}")
    space = input.shape[input.ndim - dims:]
    return op(input, output_size=tuple([n if m is None else int(m) for m, n in zip(given, space, strict=True)]))


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """The mean of each of ``output_size`` windows that share out the space of (N, C, L) or (C, L); None keeps a size."""
    return _adaptive(adaptive_avg_pool, "adaptive_avg_pool1d", 1, input, output_size, empty_channels=True)


def adaptive_max_pool1d_with_indices(input: Tensor, output_size: Any, return_indices: bool = False) -> tuple[Tensor, Tensor]:
    """``adaptive_max_pool1d`` and where in the space the elements stand."""
    return _adaptive(adaptive_max_pool, "adaptive_max_pool1d", 1, input, output_size)


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The largest element of each of ``output_size`` windows that share out the space of (N, C, L) or (C, L); None keeps a size."""
    found = adaptive_max_pool1d_with_indices(input, output_size)
    return found if return_indices else found[0]


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """The mean of each of ``output_size`` windows that share out the space of (N, C, H, W) or (C, H, W); None keeps a size."""
    return _adaptive(adaptive_avg_pool, "adaptive_avg_pool2d", 2, input, output_size, empty_channels=True)


def adaptive_max_pool2d_with_indices(input: Tensor, output_size: Any, return_indices: bool = False) -> tuple[Tensor, Tensor]:
    """``adaptive_max_pool2d`` and where in the space the elements stand."""
    return _adaptive(adaptive_max_pool, "adaptive_max_pool2d", 2, input, output_size)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The largest element of each of ``output_size`` windows that share out the space of (N, C, H, W) or (C, H, W); None keeps a size."""
    found = adaptive_max_pool2d_with_indices(input, output_size)
    return found if return_indices else found[0]


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """The mean of each of ``output_size`` windows that share out the space of the input; None keeps a size."""
    return _adaptive(adaptive_avg_pool, "adaptive_avg_pool3d", 3, input, output_size, empty_channels=True)


def adaptive_max_pool3d_with_indices(input: Tensor, output_size: Any, return_indices: bool = False) -> tuple[Tensor, Tensor]:
    """``adaptive_max_pool3d`` and where in the space the elements stand."""
    return _adaptive(adaptive_max_pool, "adaptive_max_pool3d", 3, input, output_size)


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The largest element of each of ``output_size`` windows that share out the space of the input; None keeps a size."""
    found = adaptive_max_pool3d_with_indices(input, output_size)
    return found if return_indices else found[0]


# ---- activations ----


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0)"""
    return _write_back("relu", input, ops.relu) if inplace else ops.relu(input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """max(x, 0) + negative_slope min(x, 0)"""
    if inplace:
        return _write_back("leaky_relu", input, ops.leaky_relu, negative_slope=negative_slope)
    return ops.leaky_relu(input, negative_slope=negative_slope)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """max(x, 0) + min(alpha (e^x - 1), 0)"""
    return _write_back("elu", input, ops.elu, alpha=alpha) if inplace else ops.elu(input, alpha=alpha)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """scale (max(x, 0) + min(alpha (e^x - 1), 0)), alpha = 1.6732632, scale = 1.0507010"""
    return _write_back("selu", input, ops.selu) if inplace else ops.selu(input)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """max(x, 0) + min(alpha (e^(x / alpha) - 1), 0)"""
    return _write_back("celu", input, ops.celu, alpha=alpha) if inplace else ops.celu(input, alpha=alpha)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x Phi(x), Phi the normal distribution; ``approximate="tanh"``: x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2"""
    if approximate not in ("none", "tanh"):
        raise RuntimeError(f"approximate argument must be either none or tanh, got {approximate!r}.")
    return ops.gelu(input, approximate)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x sigmoid(x)"""
    return _write_back("silu", input, ops.silu) if inplace else ops.silu(input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x tanh(softplus(x))"""
    return _write_back("mish", input, ops.mish) if inplace else ops.mish(input)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + e^(beta x)) / beta, and x itself where beta x > threshold"""
    return ops.softplus(input, beta=beta, threshold=threshold)


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)"""
    return ops.softsign(input)


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + e^-x)"""
    return ops.sigmoid(input)


def tanh(input: Tensor) -> Tensor:
    """tanh(x)"""
    return ops.tanh(input)


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x))"""
    return ops.logsigmoid(input)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x cut to [min_val, max_val]"""
    if min_val > max_val:
        raise ValueError("min_val cannot be greater than max_val")
    if inplace:
        return _write_back("hardtanh", input, ops.hardtanh, min_val=min_val, max_val=max_val)
    return ops.hardtanh(input, min_val=min_val, max_val=max_val)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6)"""
    return _write_back("relu6", input, ops.relu6) if inplace else ops.relu6(input)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x relu6(x + 3) / 6"""
    return _write_back("hardswish", input, ops.hardswish) if inplace else ops.hardswish(input)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """relu6(x + 3) / 6"""
    return _write_back("hardsigmoid", input, ops.hardsigmoid) if inplace else ops.hardsigmoid(input)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a sigmoid(b), a and b the halves of the input along ``dim``"""
    if input.ndim == 0:
        raise RuntimeError("glu does not support scalars because halving size must be even")
    return ops.glu(input, dim)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """max(x, 0) + weight min(x, 0): one slope, or one for each channel (dimension 1)"""
    return ops.prelu(input, weight)


def _implicit_dim(name: str, ndim: int, stacklevel: int) -> int:
    warnings.warn(f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X as an argument.",
                  stacklevel=stacklevel)
    return 0 if ndim in (0, 1, 3) else 1


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """e^x / sum(e^x) along ``dim``; ``dtype`` casts first"""
    dim = _implicit_dim("softmax", input.ndim, _stacklevel) if dim is None else dim
    return ops.softmax(input if dtype is None else input.to(dtype), dim)


def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """x - log(sum(e^x)) along ``dim``; ``dtype`` casts first"""
    dim = _implicit_dim("log_softmax", input.ndim, _stacklevel) if dim is None else dim
    return ops.log_softmax(input if dtype is None else input.to(dtype), dim)


# ---- dropout ----


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """In training, x mask / (1 - p), the mask 1 with probability 1 - p; else x."""
    check_probability(p)
    if not training or p == 0.0:
        return input
    return _write_back("dropout", input, ops.dropout, p) if inplace else ops.dropout(input, p)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """``dropout`` of whole channels: one mask value for each of the first two dimensions."""
    check_probability(p)
    if input.ndim not in (3, 4):
        warnings.warn(f"dropout2d: Received a {input.ndim}-D input, which is deprecated; use dropout, or an input (N, C, H, W)",
                      stacklevel=3)
    if input.ndim == 3:
        warnings.warn("dropout2d: Received a 3D input to dropout2d, which is read as (N, C, L)", stacklevel=3)
    if not training or p == 0.0:
        return input
    return _write_back("dropout2d", input, ops.feature_dropout, p) if inplace else ops.feature_dropout(input, p)


# ---- normalization ----
#
# Beyond PyTorch, `mask=` (bool, true at what is valid) or `lengths=` (N,) keep padding out: statistics are those of the valid positions,
# as if the others were not there, the output is 0 at the others whatever they hold, and no gradient comes from them or goes to them.


def layer_norm(input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5, *, mask: Tensor | None = None, lengths: Any = None, axis: Any = None) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last ``len(normalized_shape)`` dimensions, or over those of ``axis``."""
    shape = as_shape(normalized_shape)
    if mask is None and lengths is None and axis is None:
        return ops.layer_norm(input, weight, bias, normalized_shape=shape, eps=eps)

    def plain(x: Tensor) -> Tensor:
        return ops.layer_norm(x, weight, bias, normalized_shape=shape, eps=eps)
    return _over_features("layer_norm", input, shape, weight, bias, eps, mask, lengths, axis, plain)


def rms_norm(input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, eps: float | None = None, *,
             mask: Tensor | None = None, lengths: Any = None, axis: Any = None) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimensions, or over those of ``axis``; ``eps=None`` is the machine epsilon of
    x's type."""
    shape = as_shape(normalized_shape)
    if mask is None and lengths is None and axis is None:
        return ops.rms_norm(input, weight, normalized_shape=shape, eps=eps)

    def plain(x: Tensor) -> Tensor:
        return ops.rms_norm(x, weight, normalized_shape=shape, eps=eps)
    epsilon = float(finfo(input.dtype).eps) if eps is None else eps
    return _over_features("rms_norm", input, shape, weight, None, epsilon, mask, lengths, axis, plain)


def _over_features(name: str, input: Tensor, shape: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float,
                   mask: Tensor | None, lengths: Any, axis: Any, plain: Callable[[Tensor], Tensor]) -> Tensor:
    """A norm over some dimensions of each sample, with their axes or a mask."""
    axes = axes_in_order(name, tuple(range(-len(shape), 0)) if axis is None else axis, input.ndim, len(shape))
    x = to_end(input, axes)
    if mask is None and lengths is None:
        return from_end(plain(x), axes)
    valid = to_end(valid_mask(name, input, mask, lengths, axes), axes)
    if all(n == 1 for n in valid.shape[valid.ndim - len(shape):]):       # whole samples: the valid ones are normalized as always
        y = plain(ops.where(valid, x, 0.0))
    else:
        y = masked_norm(x, valid, axes=tuple(range(x.ndim - len(shape), x.ndim)), eps=eps, centered=name == "layer_norm")[0]
        y = _scaled(y, weight, bias, shape)
    return from_end(ops.where(valid, y, 0.0), axes)


def _scaled(y: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Sequence[int]) -> Tensor:
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def _channel_shape(x: Tensor) -> tuple[int, ...]:
    return (x.shape[1], *(1,) * (x.ndim - 2))


def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *,
               mask: Tensor | None = None, lengths: Any = None) -> Tensor:
    """(N, C, *): statistics over space and each of ``num_groups`` groups of channels of a sample; weight and bias (C)."""
    if input.ndim < 2:
        raise RuntimeError(f"Expected at least 2 dimensions for input tensor but received {input.ndim}")
    check_batch_size([input.shape[0] * input.shape[1] // num_groups, num_groups, *input.shape[2:]])
    if mask is None and lengths is None:
        return ops.group_norm(input, weight, bias, num_groups=num_groups, eps=eps)
    n, c, *space = input.shape
    if num_groups < 1 or c % num_groups:
        ops.group_norm(input, weight, bias, num_groups=num_groups, eps=eps)     # refuses
    valid = valid_mask("group_norm", input, mask, lengths, (1,))
    per_channel = valid.shape[1] == c and c > 1
    grouped = valid.reshape(valid.shape[0], num_groups if per_channel else 1, c // num_groups if per_channel else 1, *valid.shape[2:])
    y = masked_norm(input.reshape(n, num_groups, c // num_groups, *space), grouped, axes=tuple(range(2, input.ndim + 1)), eps=eps)[0]
    return ops.where(valid, _scaled(y.reshape(input.shape), weight, bias, _channel_shape(input)), 0.0)


def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
               bias: Tensor | None = None, training: bool = False, momentum: float | Tensor = 0.1, eps: float = 1e-5, *,
               mask: Tensor | None = None, lengths: Any = None, axis: int = 1) -> Tensor:
    """(N, C, *): statistics over N and space, in training those of the batch, which also move the running ones
    (running = (1 - momentum) running + momentum batch, the variance unbiased); else the running ones. ``axis`` is the channels'.
    With a mask, a channel with fewer than two valid values leaves its running ones as they are."""
    if training:
        if mask is None and lengths is None:
            check_batch_size(input.shape, axis)
        if eps <= 0.0:
            raise ValueError(f"batch_norm eps must be positive during training, but got {eps}")
    elif eps < 0.0:
        raise ValueError(f"batch_norm eps must be non-negative, but got {eps}")
    elif running_mean is None or running_var is None:
        raise RuntimeError("[batch_norm] running_mean and running_var must be given in evaluation mode; got None; "
                           "pass them, or training=True")
    if input.ndim == 1 and not input.numel():   # nothing to normalize: no channels either
        return ops.clone(input)
    if mask is not None or lengths is not None or axis != 1:
        return _batch_norm_of(input, running_mean, running_var, weight, bias, training, momentum, eps, mask, lengths, axis)
    if not training:
        return ops.batch_norm_eval(input, running_mean, running_var, weight, bias, eps=eps)     # type: ignore[arg-type]
    y, mean, var = ops.batch_norm(input, weight, bias, eps=eps)
    if input.numel():                           # an empty batch moves nothing
        count = input.numel() // input.shape[1]
        _move(running_mean, mean, momentum, 1.0)
        _move(running_var, var, momentum, count / (count - 1))
    return y


def _batch_norm_of(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None, bias: Tensor | None,
                   training: bool, momentum: float | Tensor, eps: float, mask: Tensor | None, lengths: Any, axis: int) -> Tensor:
    """``batch_norm`` with a mask or another axis of channels."""
    at = axis_of(axis, input.ndim, "batch_norm")
    valid = None if mask is None and lengths is None else valid_mask("batch_norm", input, mask, lengths, (at,))
    if at != 1:
        if at == input.ndim - 1:                # channels last: all else is the batch, and nothing moves
            channels = input.shape[at]

            def there(t: Tensor) -> Tensor:
                return t.expand(*input.shape[:at], t.shape[at]).reshape(-1, t.shape[at]) if input.numel() else t.reshape(0, channels)

            def back(y: Tensor) -> Tensor:
                return y.reshape(input.shape)
        else:
            def there(t: Tensor) -> Tensor:
                return t.movedim(at, 1)

            def back(y: Tensor) -> Tensor:
                return y.movedim(1, at)
        return back(batch_norm(there(input), running_mean, running_var, weight, bias, training, momentum, eps,
                               mask=None if valid is None else there(valid)))
    if valid is None:
        return batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if not training:
        y = ops.batch_norm_eval(ops.where(valid, input, 0.0), running_mean, running_var, weight, bias, eps=eps)
        return ops.where(valid, y, 0.0)
    y, mean, var, count = masked_norm(input, valid, axes=(0, *range(2, input.ndim)), eps=eps)
    _move_counted(running_mean, running_var, mean.reshape(-1), var.reshape(-1), count.reshape(-1), momentum)
    return ops.where(valid, _scaled(y, weight, bias, _channel_shape(input)), 0.0)


def _move_counted(running_mean: Tensor | None, running_var: Tensor | None, mean: Tensor, var: Tensor, count: Tensor,
                  momentum: float | Tensor) -> None:
    """Moves the running statistics where there are two values at least (C,)."""
    with no_grad():
        factor = (count > 1).to(mean.dtype) * momentum
        _move(running_mean, mean, factor, 1.0)
        _move(running_var, var * (count / (count - 1).clamp(min=1)), factor, 1.0)


def _move(running: Tensor | None, batch: Tensor, momentum: float | Tensor, scale: float) -> None:
    """running = (1 - momentum) running + momentum scale batch, in place; a momentum that is a tensor is read by the launch."""
    if running is None or mode.recompute:
        return
    x = running.layout
    if x.contiguous and batch.layout is x and not isinstance(momentum, Tensor):
        kernel = x.device.kernels.running_update.get(x.dtype)
        if kernel is not None:
            kernel.call(running.array.ptr, batch.array.ptr, x.size, float(momentum), scale)
            bump(running)
            return
    with no_grad():
        running.add_((batch * scale - running) * momentum)


def instance_norm(input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None, weight: Tensor | None = None,
                  bias: Tensor | None = None, use_input_stats: bool = True, momentum: float | Tensor = 0.1, eps: float = 1e-5, *,
                  mask: Tensor | None = None, lengths: Any = None) -> Tensor:
    """(N, C, *): statistics over the space of each sample and channel; they move the running ones, averaged over the batch.
    With ``use_input_stats=False`` the running ones are used."""
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps, mask=mask, lengths=lengths)
    if mask is not None or lengths is not None:
        valid = valid_mask("instance_norm", input, mask, lengths, (1,))
        y, mean, var, count = masked_norm(input, valid, axes=tuple(range(2, input.ndim)), eps=eps)
        if running_mean is not None or running_var is not None:
            with no_grad():                     # averaged over the samples that have a variance
                there = (count > 1).to(mean.dtype)
                share = there / there.sum(0, keepdim=True).clamp(min=1)
                unbiased = var * (count / (count - 1).clamp(min=1))
                factor = (there.sum(0) > 0).to(mean.dtype).reshape(-1) * momentum
                _move(running_mean, (mean * share).sum(0).reshape(-1), factor, 1.0)
                _move(running_var, (unbiased * share).sum(0).reshape(-1), factor, 1.0)
        return ops.where(valid, _scaled(y, weight, bias, _channel_shape(input)), 0.0)
    count = input.numel() // (input.shape[0] * input.shape[1]) if input.numel() else 0
    if count == 1:
        raise ValueError(f"Expected more than 1 spatial element when training, got input size {tuple(input.shape)}")
    if running_mean is not None or running_var is not None:
        with no_grad():
            flat = input.detach().reshape(input.shape[0], input.shape[1], -1)
            _move(running_mean, flat.mean(2).mean(0), momentum, 1.0)
            _move(running_var, flat.var(2).mean(0), momentum, 1.0)
    return ops.instance_norm(input, weight, bias, eps=eps)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """x / max(||x||_p, eps) along ``dim``"""
    return input / input.norm(p, dim, keepdim=True).clamp(min=eps)


# ---- attention ----


def _masks(bsz: int, heads: int, tgt: int, src: int, attn_mask: Tensor | None, key_padding_mask: Tensor | None,
           dtype: Any) -> Tensor | None:
    """Both masks, which name what is left out, as one for ``scaled_dot_product_attention``, (N or 1, heads or 1, L or 1, S)."""
    both = []
    if attn_mask is not None:
        both.append(attn_mask.reshape(1, 1, tgt, src) if attn_mask.ndim == 2 else attn_mask.reshape(bsz, heads, tgt, src))
    if key_padding_mask is not None:
        both.append(key_padding_mask.reshape(bsz, 1, 1, src))
    if not both:
        return None
    if all(m.dtype == BOOL for m in both):
        return ops.logical_not(both[0] if len(both) == 1 else ops.logical_or(*both))
    added = [ops.where(m, -float("inf"), ops.zeros_like(m, dtype=dtype)) if m.dtype == BOOL else m.to(dtype) for m in both]
    return added[0] if len(added) == 1 else added[0] + added[1]


def _check_heads(query: Tensor, key: Tensor, value: Tensor, embed_dim: int, num_heads: int, separate: bool, batch: int,
                 key_padding_mask: Tensor | None, attn_mask: Tensor | None) -> None:
    """What multi_head_attention_forward wants of (batched) operands; the types of the exceptions are PyTorch's."""
    op, given = "multi_head_attention_forward", [f"query {query.layout}", f"key {key.layout}", f"value {value.layout}"]
    if query.shape[-1] != embed_dim:
        fail(op, f"the query's last size must be embed_dim = {embed_dim}", given, kind=AssertionError)
    if num_heads < 1 or embed_dim % num_heads:
        fail(op, "embed_dim must be divisible by num_heads", [f"embed_dim {embed_dim}", f"num_heads {num_heads}"], kind=AssertionError)
    if key.shape[:2] != value.shape[:2] or not separate and key.shape != value.shape:
        fail(op, "key and value must have one shape" if not separate else "key and value must have one length and batch", given,
             kind=AssertionError)
    if query.shape[batch] != key.shape[batch]:
        fail(op, "query, key and value must have one batch size N", given)
    bsz, tgt, src = query.shape[batch], query.shape[1 - batch], key.shape[1 - batch]
    for name, mask in (("key_padding_mask", key_padding_mask), ("attn_mask", attn_mask)):
        if mask is not None and mask.dtype != BOOL and not is_float(mask.dtype):
            fail(op, f"{name} must be bool or floating point", mask.layout, kind=AssertionError)
    if key_padding_mask is not None and tuple(key_padding_mask.shape) != (bsz, src):
        fail(op, "key_padding_mask must be (N, S)", [key_padding_mask.layout, f"N, S = {bsz}, {src}"], kind=AssertionError)
    if attn_mask is not None and tuple(attn_mask.shape) not in ((tgt, src), (bsz * num_heads, tgt, src)):
        fail(op, "attn_mask must be (L, S) or (N * num_heads, L, S)",
             [attn_mask.layout, f"L, S = {tgt}, {src}", f"N * num_heads = {bsz * num_heads}"],
             kind=RuntimeError if attn_mask.ndim in (2, 3) else AssertionError)


def _in_projections(query: Tensor, key: Tensor, value: Tensor, weight: Tensor | None, weights: Sequence[Tensor | None],
                    bias: Tensor | None) -> Sequence[Tensor]:
    """q, k, v: one product for what comes from one tensor."""
    if weight is None:
        biases = (None, None, None) if bias is None else bias.chunk(3)
        return [linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)]      # type: ignore[arg-type]
    e = weight.shape[0] // 3
    if query is key and key is value:
        return linear(query, weight, bias).split(e, -1)
    if key is value:
        (wq, wkv), (bq, bkv) = weight.split([e, 2 * e]), (None, None) if bias is None else bias.split([e, 2 * e])
        return linear(query, wq, bq), *linear(key, wkv, bkv).split(e, -1)
    biases = (None, None, None) if bias is None else bias.split(e)
    return [linear(x, w, b) for x, w, b in zip((query, key, value), weight.split(e), biases, strict=True)]


def multi_head_attention_forward(
        query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int, in_proj_weight: Tensor | None,
        in_proj_bias: Tensor | None, bias_k: Tensor | None, bias_v: Tensor | None, add_zero_attn: bool, dropout_p: float,
        out_proj_weight: Tensor, out_proj_bias: Tensor | None, training: bool = True, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None, use_separate_proj_weight: bool = False,
        q_proj_weight: Tensor | None = None, k_proj_weight: Tensor | None = None, v_proj_weight: Tensor | None = None,
        static_k: Tensor | None = None, static_v: Tensor | None = None, average_attn_weights: bool = True, is_causal: bool = False,
        *, batch_first: bool = False) -> tuple[Tensor, Tensor | None]:
    """Attention in ``num_heads`` subspaces, and its weights: query (L, N, E), key and value (S, N, *), or N first, or without N.

    Masks are bool (True: left out) or numbers that are added: ``key_padding_mask`` (N, S), ``attn_mask`` (L, S) or
    (N * num_heads, L, S). A query whose keys are all masked gets 0 from the attention, in the weights too. See ``nn.MultiheadAttention``.
    """
    op, rank = "multi_head_attention_forward", query.ndim
    if rank not in (2, 3) or key.ndim != rank or value.ndim != rank:
        fail(op, "query, key and value must all have 3 dimensions, or 2 without a batch", [query.layout, key.layout, value.layout],
             kind=AssertionError)
    for name, mask, ranks in (("key_padding_mask", key_padding_mask, (rank - 1,)), ("attn_mask", attn_mask, (2, 3))):
        if mask is not None and mask.ndim not in ranks:
            fail(op, f"{name} must have {' or '.join(map(str, ranks))} dimensions here", [f"query {query.layout}", f"{name} {mask.layout}"],
                 kind=AssertionError)
    if is_causal and attn_mask is None:
        fail(op, "is_causal is a hint about attn_mask, which is None", fix="pass TransformerEncoder.generate_square_subsequent_mask(L) too")
    batch = 0 if batch_first and rank == 3 else 1
    if rank == 2:
        same = query is key, key is value
        query = query.unsqueeze(1)
        key = query if same[0] else key.unsqueeze(1)
        value = key if same[1] else value.unsqueeze(1)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    _check_heads(query, key, value, embed_dim_to_check, num_heads, use_separate_proj_weight, batch, key_padding_mask, attn_mask)
    if (bias_k is None) != (bias_v is None):
        fail(op, "bias_k and bias_v come together", kind=AssertionError)
    if use_separate_proj_weight and (q_proj_weight is None or k_proj_weight is None or v_proj_weight is None):
        fail(op, "use_separate_proj_weight=True needs q_proj_weight, k_proj_weight and v_proj_weight", kind=AssertionError)
    if not use_separate_proj_weight and in_proj_weight is None:
        fail(op, "use_separate_proj_weight=False needs in_proj_weight", kind=AssertionError)
    bsz, tgt, src = query.shape[batch], query.shape[1 - batch], key.shape[1 - batch]
    head = embed_dim_to_check // num_heads

    q, k, v = _in_projections(query, key, value, None if use_separate_proj_weight else in_proj_weight,
                              (q_proj_weight, k_proj_weight, v_proj_weight), in_proj_bias)

    def heads(x: Tensor) -> Tensor:             # (N, heads, length, head)
        return x.reshape(*x.shape[:2], num_heads, head).permute(*((0, 2, 1, 3) if batch == 0 else (1, 2, 0, 3)))

    def given(name: str, x: Tensor) -> Tensor:
        if x.ndim != 3 or x.shape[0] != bsz * num_heads or x.shape[2] != head:
            fail(op, f"{name} must be (N * num_heads, S, head_dim) = ({bsz * num_heads}, S, {head})", x.layout, kind=AssertionError)
        if bias_k is not None:
            fail(op, f"bias_k and bias_v cannot be added to {name}", kind=AssertionError)
        return x.reshape(bsz, num_heads, -1, head)
    q = heads(q)
    k = heads(k) if static_k is None else given("static_k", static_k)
    v = heads(v) if static_v is None else given("static_v", static_v)
    added = 0
    if bias_k is not None and bias_v is not None:
        k, v = (ops.cat([x, b.reshape(1, num_heads, 1, head).expand(bsz, -1, -1, -1)], 2) for x, b in ((k, bias_k), (v, bias_v)))
        added += 1
    if add_zero_attn:
        nothing = ops.zeros((bsz, num_heads, 1, head), dtype=q.dtype, device=q.device)
        k, v = ops.cat([k, nothing], 2), ops.cat([v, nothing], 2)
        added += 1
    causal = is_causal and key_padding_mask is None and not need_weights and not added
    if causal:
        attn_mask = None
    if added:
        attn_mask, key_padding_mask = (None if m is None else pad(m, (0, added)) for m in (attn_mask, key_padding_mask))
    mask = _masks(bsz, num_heads, tgt, src + added, attn_mask, key_padding_mask, q.dtype)
    result = scaled_dot_product_attention(q, k, v, mask, dropout_p if training else 0.0, causal, need_weights=need_weights)
    y, weights = result if need_weights else (result, None)
    y = y.permute(*((0, 2, 1, 3) if batch == 0 else (2, 0, 1, 3)))
    y = linear(y.reshape(*y.shape[:2], embed_dim_to_check), out_proj_weight, out_proj_bias)
    if weights is not None and average_attn_weights:
        weights = weights.mean(1)
    if rank == 2:
        y, weights = y.squeeze(1), None if weights is None else weights.squeeze(0)
    return y, weights


# ---- losses ----


def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
                  ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean",
                  label_smoothing: float = 0.0) -> Tensor:
    """-sum_c q_c log(softmax(x)_c): x (N, C, *), the target labels (N, *) or probabilities (N, C, *); "mean" divides by the
    weights of the labels that are not ``ignore_index``; ``label_smoothing`` mixes q with the uniform distribution."""
    return ops.cross_entropy(input, target, weight, ignore_index=ignore_index,
                             reduction=_checked(reduction_of(size_average, reduce, reduction)), label_smoothing=label_smoothing)


def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
             ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """-weight[t] x[t]: x log-probabilities (N, C, *), t labels (N, *); "mean" divides by the weights of the labels counted."""
    return ops.nll_loss(input, target, weight, ignore_index=ignore_index,
                        reduction=_checked(reduction_of(size_average, reduce, reduction)))


def _pair(input: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Both at their common shape, with a warning if theirs differ."""
    if target.shape != input.shape:
        warnings.warn(f"Using a target size ({tuple(target.shape)}) that is different to the input size ({tuple(input.shape)}). "
                      "This will likely lead to incorrect results due to broadcasting. Please ensure they have the same size.",
                      stacklevel=3)
    if weight is not None and weight.shape != input.shape:
        raise ValueError("Weights and input must have the same size.")
    if target.shape != input.shape:
        shape = broadcast_shapes("loss", input.shape, target.shape)
        return input.expand(shape), target.expand(shape)
    return input, target


def mse_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
             reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """(input - target)^2; with ``weight``, "mean" divides by its sum."""
    reduction = _checked(reduction_of(size_average, reduce, reduction))
    input, target = _pair(input, target, weight)
    if weight is None:
        return ops.mse_loss(input, target, reduction=reduction)
    return _reduce((input - target) ** 2 * weight, reduction, weight.sum())


def l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
            weight: Tensor | None = None) -> Tensor:
    """|input - target|; with ``weight``, "mean" divides by its sum."""
    reduction = _checked(reduction_of(size_average, reduce, reduction))
    input, target = _pair(input, target, weight)
    if weight is None:
        return ops.l1_loss(input, target, reduction=reduction)
    return _reduce((input - target).abs() * weight, reduction, weight.sum())


def smooth_l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
                   reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """|d| - beta / 2 where |d| >= beta, else d^2 / (2 beta), d = input - target"""
    reduction = _checked(reduction_of(size_average, reduce, reduction))
    input, target = _pair(input, target)
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    return ops.smooth_l1_loss(input, target, reduction=reduction, beta=beta) if beta else ops.l1_loss(input, target, reduction=reduction)


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """delta (|d| - delta / 2) where |d| > delta, else d^2 / 2, d = input - target"""
    _checked(reduction)
    input, target = _pair(input, target, weight)
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    if weight is None:
        return ops.huber_loss(input, target, reduction=reduction, delta=delta)
    return _reduce(ops.huber_loss(input, target, reduction="none", delta=delta) * weight, reduction)


def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
                         reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """-weight (t log(p) + (1 - t) log(1 - p)), the logarithms not below -100"""
    reduction = _checked(reduction_of(size_average, reduce, reduction))
    if target.shape != input.shape:
        raise ValueError(f"Using a target size ({tuple(target.shape)}) that is different to the input size ({tuple(input.shape)}) is "
                         "deprecated. Please ensure they have the same size.")
    if weight is not None and weight.shape != input.shape:
        weight = weight.expand(input.shape)
    return ops.binary_cross_entropy(input, target, weight, reduction=reduction)


def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
                                     reduce: bool | None = None, reduction: str = "mean", pos_weight: Tensor | None = None) -> Tensor:
    """``binary_cross_entropy`` of sigmoid(input) in one stable step; ``pos_weight`` multiplies the term of t"""
    reduction = _checked(reduction_of(size_average, reduce, reduction))
    if target.shape != input.shape:
        raise ValueError(f"Target size ({tuple(target.shape)}) must be the same as input size ({tuple(input.shape)})")
    return ops.binary_cross_entropy_with_logits(input, target, weight, pos_weight, reduction=reduction)


def kl_div(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
           log_target: bool = False) -> Tensor:
    """t (log(t) - input), the input log-probabilities; "batchmean" divides the sum by the first dimension"""
    reduction = reduction_of(size_average, reduce, reduction)
    if reduction == "batchmean":
        total = ops.kl_div(input, target, reduction="sum", log_target=log_target)
        return total / input.shape[0] if input.ndim else total
    if reduction == "mean" and size_average is None and reduce is None:
        warnings.warn("reduction: 'mean' divides the total loss by both the batch size and the support size. 'batchmean' divides only "
                      "by the batch size, and aligns with the KL div math definition.", stacklevel=2)
    return ops.kl_div(input, target, reduction=_checked(reduction), log_target=log_target)
