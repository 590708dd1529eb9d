"""Normalization over features (layer, RMS), over the batch (batch), over groups of channels (group, instance), and of
padded data (masked).

This file is the model of an op family. Each op has, in this order: its definition in Tensor ops, from which its
derivatives come; its shape rule; its kernels (native/norm.c, and norm.cu beside this file); an independent NumPy
computation of the same result; samples; signatures that must be refused. At the end are the launches on CUDA.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..core.half import autocast_to_float32_on_gpu, unrounded
from ..core.modes import no_grad
from ..core.op import address, op, same_dtypes
from ..core.shape import BOOL, FLOAT32, fail, is_float
from ..core.tensor import Tensor, bump
from ..devices import native
from ..devices.base import TYPE_SUFFIX, Kernel, KernelTable, NoKernel
from ..devices.launch import Launch, Rule, ceil_div, columns, launch, over, per_row
from ..devices.memory import Array, Layout, alloc, layout
from ..devices.work import pieces, work
from .convert import cast
from .math import add, div, gt, mul, rsqrt, sub, where
from .reduce import mean, unit_of
from .reduce import sum as total
from .view import expand, reshape

__all__ = ["batch_norm_eval"]


def _float_input(op: str, x: Layout) -> None:
    if not is_float(x.dtype):
        fail(op, "x must be floating point", x, "convert with .float()")


def _kernels_for(name: str, kernels: KernelTable, x: Layout, *parameters: Layout | None) -> list[Kernel]:
    """Forward and backward for parameters of the dtype of x, or of float32 beside half precision."""
    families = [getattr(kernels, f"{name}_{way}") for way in ("forward", "backward")]
    wide = [f.member(TYPE_SUFFIX.get(x.dtype, "") + "w") for f in families]
    if None in wide or not x.size or {p.dtype for p in parameters if p is not None} != {FLOAT32}:
        made = [f[x.dtype] for f in families]
        same_dtypes(name, x, *parameters)
        return made
    return wide


def _in_range(x: Tensor, axes: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """x and eps in a unit (see `unit_of`) in which squares over `axes` stay in range: x / unit, unit, eps / unit^2."""
    unit = unit_of(x, axes, math.sqrt(max(eps, 0.0)))
    return div(x, unit), unit, div(div(eps, unit), unit)


def _affine(y: Tensor, weight: Tensor | None, bias: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """y * weight + bias, both reshaped to broadcast over y."""
    if weight is not None:
        y = mul(y, reshape(weight, shape))
    return y if bias is None else add(y, reshape(bias, shape))


@autocast_to_float32_on_gpu
@op(like_first=True)
def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, *, normalized_shape: tuple[int, ...],
               eps: float = 1e-5) -> Tensor:
    """Layer normalization (Ba, Kiros and Hinton 2016, eq. 4), over the last dimensions.

        y = (x - mean) / sqrt(var + eps) * weight + bias,      mean and biased variance over `normalized_shape`

    Shapes: x (*, *normalized_shape) floating point, weight and bias normalized_shape or None -> y like x.
    """
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    x, unit, share = _in_range(x, axes, eps)
    centered = sub(x, mean(x, axes, True))
    y = mul(centered, rsqrt(add(mean(mul(centered, centered), axes, True), share)))
    if weight is not None:
        y = mul(y, weight)
    return y if bias is None else add(y, bias)


@layer_norm.check
def _layer_norm_rule(x: Layout, weight: Layout | None, bias: Layout | None, *, normalized_shape: tuple[int, ...],
                     eps: float = 1e-5) -> None:
    n = len(normalized_shape)
    if n == 0 or x.shape[x.ndim - n:] != tuple(normalized_shape) or x.ndim < n:
        fail("layer_norm", "normalized_shape must be the trailing sizes of x",
             [f"x {x}", f"normalized_shape {list(normalized_shape)}"])
    for name, p in (("weight", weight), ("bias", bias)):
        if p is not None and p.shape != tuple(normalized_shape):
            fail("layer_norm", f"{name} must have the shape normalized_shape",
                 [f"{name} {p}", f"normalized_shape {list(normalized_shape)}"])
    _float_input("layer_norm", x)


@layer_norm.fused
def _layer_norm_kernels(kernels: KernelTable, x: Layout, weight: Layout | None, bias: Layout | None, *,
                        normalized_shape: tuple[int, ...], eps: float = 1e-5) -> Any:
    forward, backward = _kernels_for("layer_norm", kernels, x, weight, bias)
    n = 1
    for size in x.shape[x.ndim - len(normalized_shape):]:       # not what was given: the numbers reach a kernel
        n *= size
    rows = x.size // n if n else 0
    statistics = unrounded(x, (2, rows))                    # mean, then rstd
    second = rows * statistics.dtype.itemsize
    partial = _partial(x, rows, n, native.layer_norm_partial, 2)

    def run_forward(xa: Array, wa: Array | None, ba: Array | None) -> Any:
        y, stats = alloc(x), alloc(statistics)
        forward.call(y.ptr, stats.ptr, stats.ptr + second, xa.ptr, address(wa), address(ba), rows, n, eps)
        return y, (xa, stats, wa)

    def run_backward(saved: Any, g: Array, needs: list[bool]) -> list[Array | None]:
        xa, stats, wa = saved
        need_x, need_w, need_b = needs
        gx = alloc(x) if need_x else None
        gw = alloc(weight) if need_w else None          # type: ignore[arg-type]
        gb = alloc(bias) if need_b else None            # type: ignore[arg-type]
        scratch = alloc(partial) if need_w or need_b else None
        backward.call(address(gx), address(gw), address(gb), address(scratch), g.ptr, xa.ptr, stats.ptr,
                      stats.ptr + second, address(wa), rows, n)
        return [gx, gw, gb]
    return run_forward, run_backward


def _partial(x: Layout, rows: int, n: int, size: Callable[[int, int], int], sums: int) -> Layout:
    """Work space of a backward kernel: `size(rows, n)`; on a GPU `sums` sums of each column and part of the rows."""
    elements = native.norm_parts(rows, n) * sums * n if x.device.type == "cuda" else size(rows, n)
    return unrounded(x, (elements,))


@layer_norm.reference
def _layer_norm_oracle(x: Any, weight: Any, bias: Any, *, normalized_shape: tuple[int, ...], eps: float = 1e-5) -> Any:
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    y = (x - x.mean(axes, keepdims=True)) / (x.var(axes, keepdims=True) + eps) ** 0.5
    return y * (1 if weight is None else weight) + (0 if bias is None else bias)


@layer_norm.samples
def _layer_norm_samples(make: Any) -> Any:
    for shape, normalized in (((4, 33), (33,)), ((2, 3, 5), (3, 5)), ((1, 32), (32,)), ((3, 31), (31,)),
                              ((0, 4), (4,))):
        yield make(*shape), make(*normalized), make(*normalized), {"normalized_shape": normalized}
    # each row has one element, so x - mean is 0 up to rounding
    yield make(7, 1), make(1), make(1), {"normalized_shape": (1,), "eps": 0.1}
    yield make(4, 16), None, None, {"normalized_shape": (16,)}
    yield make(4, 16), make(16), None, {"normalized_shape": (16,), "eps": 0.1}
    yield make(4, 64, low=9999, high=10001), make(64), make(64), {"normalized_shape": (64,)}


@layer_norm.errors
def _layer_norm_errors(make: Any) -> Any:
    yield (make(4, 8), make(7), None, {"normalized_shape": (8,)}), RuntimeError, r"weight .*\[7\].*\[8\]"
    yield (make(4, 8), None, None, {"normalized_shape": (4,)}), RuntimeError, "trailing sizes"


# ---- RMS norm --------------------------------------------------------------------------------------------------------
@op(like_first=True)
def rms_norm(x: Tensor, weight: Tensor | None, *, normalized_shape: tuple[int, ...],
             eps: float | None = None) -> Tensor:
    """Root mean square normalization (Zhang and Sennrich 2019, eq. 4), over the last dimensions.

        y = x / sqrt(mean(x^2) + eps) * weight,      eps None: the machine epsilon of x's dtype,
    of float32 for half precision (PyTorch's choice)

    Shapes: x (*, *normalized_shape) floating point, weight normalized_shape or None -> y like x.
    """
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    x, unit, share = _in_range(x, axes, _rms_eps(x.dtype, eps))
    y = mul(x, rsqrt(add(mean(mul(x, x), axes, True), share)))
    return y if weight is None else mul(y, weight)


def _rms_eps(dtype: Any, eps: float | None) -> float:
    """`eps`, or its default."""
    return float(np.finfo(dtype).eps) if eps is None else eps


@rms_norm.check
def _rms_norm_rule(x: Layout, weight: Layout | None, *, normalized_shape: tuple[int, ...],
                   eps: float | None = None) -> None:
    n = len(normalized_shape)
    if n == 0 or x.shape[x.ndim - n:] != tuple(normalized_shape) or x.ndim < n:
        fail("rms_norm", "normalized_shape must be the trailing sizes of x",
             [f"x {x}", f"normalized_shape {list(normalized_shape)}"])
    if weight is not None and weight.shape != tuple(normalized_shape):
        fail("rms_norm", "weight must have the shape normalized_shape",
             [f"weight {weight}", f"normalized_shape {list(normalized_shape)}"])
    _float_input("rms_norm", x)


@rms_norm.fused
def _rms_norm_kernels(kernels: KernelTable, x: Layout, weight: Layout | None, *, normalized_shape: tuple[int, ...],
                      eps: float | None = None) -> Any:
    forward, backward = _kernels_for("rms_norm", kernels, x, weight)
    n = 1
    for size in x.shape[x.ndim - len(normalized_shape):]:       # not what was given: the numbers reach a kernel
        n *= size
    rows = x.size // n if n else 0
    statistic = unrounded(x, (rows,))
    partial = _partial(x, rows, n, native.rms_norm_partial, 1)
    epsilon = _rms_eps(statistic.dtype, eps)

    def run_forward(xa: Array, wa: Array | None) -> Any:
        y, rstd = alloc(x), alloc(statistic)
        forward.call(y.ptr, rstd.ptr, xa.ptr, address(wa), rows, n, epsilon)
        return y, (xa, rstd, wa)

    def run_backward(saved: Any, g: Array, needs: list[bool]) -> list[Array | None]:
        xa, rstd, wa = saved
        need_x, need_w = needs
        gx = alloc(x) if need_x else None
        gw = alloc(weight) if need_w else None          # type: ignore[arg-type]
        scratch = alloc(partial) if need_w else None
        backward.call(address(gx), address(gw), address(scratch), g.ptr, xa.ptr, rstd.ptr, address(wa), rows, n)
        return [gx, gw]
    return run_forward, run_backward


@rms_norm.reference
def _rms_norm_oracle(x: Any, weight: Any, *, normalized_shape: tuple[int, ...], eps: float | None = None) -> Any:
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    y = x / np.sqrt((x ** 2).mean(axes, keepdims=True) + _rms_eps(x.dtype, eps))
    return y if weight is None else y * weight


@rms_norm.samples
def _rms_norm_samples(make: Any) -> Any:
    for shape, normalized in (((4, 33), (33,)), ((2, 3, 5), (3, 5)), ((7, 1), (1,)), ((3, 31), (31,)), ((0, 4), (4,))):
        yield make(*shape), make(*normalized), {"normalized_shape": normalized, "eps": 1e-5}
    yield make(4, 16), None, {"normalized_shape": (16,)}
    yield make(4, 64, low=9999, high=10001), make(64), {"normalized_shape": (64,)}


@rms_norm.errors
def _rms_norm_errors(make: Any) -> Any:
    yield (make(4, 8), make(7), {"normalized_shape": (8,)}), RuntimeError, r"weight .*\[7\].*\[8\]"
    yield (make(4, 8), None, {"normalized_shape": (4,)}), RuntimeError, "trailing sizes"


# ---- batch norm ------------------------------------------------------------------------------------------------------
def _channels(x: Tensor | Layout) -> tuple[int, ...]:
    """The shape by which a per-channel vector broadcasts over x (N, C, *)."""
    return (1, x.shape[1], *(1,) * (x.ndim - 2))


def _channel_rule(op: str, x: Layout, **vectors: Layout | None) -> None:
    """x is (N, C, *) and floating point; each of `vectors` is (C,)."""
    if x.ndim < 2:
        fail(op, "x must have at least the dimensions (N, C)", x)
    _float_input(op, x)
    for name, v in vectors.items():
        if v is not None and v.shape != (x.shape[1],):
            fail(op, f"{name} must have one value per channel (dimension 1 of x)", [f"x {x}", f"{name} {v}"])


def _batch_channels_inner(x: Layout) -> tuple[int, int, int]:
    """N, C and the size of all other dimensions together."""
    batch, channels = x.shape[:2]
    return batch, channels, x.size // (batch * channels) if batch * channels else 0


@op(nondifferentiable=(1, 2), like_first=True)
def batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, *,
               eps: float = 1e-5) -> tuple[Tensor, Tensor, Tensor]:
    """Batch normalization in training (Ioffe and Szegedy 2015, algorithm 1), per channel over the batch and space.

        y = (x - mean_c) / sqrt(var_c + eps) * weight_c + bias_c

    Shapes: x (N, C, *), weight and bias (C,) or None -> y like x, mean (C,), biased var (C,). The layer keeps the
    running statistics: mean and var are returned for them and have no gradient.
    """
    axes = (0, *range(2, x.ndim))
    x, unit, share = _in_range(x, axes, eps)
    mu = mean(x, axes, True)
    centered = sub(x, mu)
    var = mean(mul(centered, centered), axes, True)
    y = _affine(mul(centered, rsqrt(add(var, share))), weight, bias, _channels(x))
    flat = (x.shape[1],)
    # detached: mean and var update running statistics, which are state and not part of the function
    return y, reshape(mul(mu, unit), flat).detach(), reshape(mul(mul(var, unit), unit), flat).detach()


@batch_norm.check
def _batch_norm_rule(x: Layout, weight: Layout | None, bias: Layout | None, *, eps: float = 1e-5) -> None:
    _channel_rule("batch_norm", x, weight=weight, bias=bias)


@batch_norm.fused
def _batch_norm_kernels(kernels: KernelTable, x: Layout, weight: Layout | None, bias: Layout | None, *,
                        eps: float = 1e-5) -> Any:
    forward, backward = _kernels_for("batch_norm", kernels, x, weight, bias)
    batch, channels, inner = _batch_channels_inner(x)
    vector, statistic = layout(x.device, (weight or bias or x).dtype, (channels,)), unrounded(x, (channels,))

    def run_forward(xa: Array, wa: Array | None, ba: Array | None) -> Any:
        y, mu, var, rstd = alloc(x), alloc(statistic), alloc(statistic), alloc(statistic)
        forward.call(y.ptr, mu.ptr, var.ptr, rstd.ptr, xa.ptr, address(wa), address(ba), batch, channels, inner, eps)
        return (y, mu, var), (xa, mu, rstd, wa)

    def run_backward(saved: Any, gs: list, needs: list[bool]) -> list[Array | None]:
        xa, mu, rstd, wa = saved
        need_x, need_w, need_b = needs
        gx = alloc(x) if need_x else None
        gw = alloc(vector) if need_w else None
        gb = alloc(vector) if need_b else None
        backward.call(address(gx), address(gw), address(gb), gs[0].ptr, xa.ptr, mu.ptr, rstd.ptr, address(wa), batch,
                      channels, inner)
        return [gx, gw, gb]
    return run_forward, run_backward


@batch_norm.reference
def _batch_norm_oracle(x: Any, weight: Any, bias: Any, *, eps: float = 1e-5) -> Any:
    axes = (0, *range(2, x.ndim))
    mu, var = x.mean(axes), x.var(axes)
    shape = _channels(x)
    y = (x - mu.reshape(shape)) / np.sqrt(var.reshape(shape) + eps)
    return y * (1 if weight is None else weight.reshape(shape)) + (0 if bias is None else bias.reshape(shape)), mu, var


@batch_norm.samples
def _batch_norm_samples(make: Any) -> Any:
    for shape in ((4, 33), (5, 3, 7), (2, 3, 5, 4), (2, 2, 3, 2, 3), (33, 1), (3, 32, 1), (2, 4, 31)):
        yield make(*shape), make(shape[1]), make(shape[1])
    yield make(6, 5), None, None, {"eps": 0.1}
    yield make(6, 5), make(5), None
    yield make(64, 3, low=9999, high=10001), make(3), make(3)


@batch_norm.errors
def _batch_norm_errors(make: Any) -> Any:
    yield (make(4),), TypeError, "takes the tensors"
    yield (make(4), None, None), RuntimeError, "at least the dimensions"
    yield (make(4, 3), make(2), None), RuntimeError, r"one value per channel .*\[4, 3\].*\[2\]"


@op(like_first=True)
def batch_norm_eval(x: Tensor, running_mean: Tensor, running_var: Tensor, weight: Tensor | None, bias: Tensor | None, *,
                    eps: float = 1e-5) -> Tensor:
    """Batch normalization with given statistics (Ioffe and Szegedy 2015, algorithm 2): an affine map per channel.

        y = (x - running_mean_c) / sqrt(running_var_c + eps) * weight_c + bias_c

    Shapes: x (N, C, *), the others (C,); weight and bias may be None -> y like x.
    """
    shape = _channels(x)
    y = mul(sub(x, reshape(running_mean, shape)), rsqrt(add(reshape(running_var, shape), eps)))
    return _affine(y, weight, bias, shape)


@batch_norm_eval.check
def _batch_norm_eval_rule(x: Layout, running_mean: Layout, running_var: Layout, weight: Layout | None,
                          bias: Layout | None, *, eps: float = 1e-5) -> None:
    _channel_rule("batch_norm_eval", x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)


@batch_norm_eval.fused
def _batch_norm_eval_kernels(kernels: KernelTable, x: Layout, running_mean: Layout, running_var: Layout,
                             weight: Layout | None, bias: Layout | None, *, eps: float = 1e-5) -> Any:
    forward, backward = _kernels_for("batch_norm_eval", kernels, x, running_mean, running_var, weight, bias)
    batch, channels, inner = _batch_channels_inner(x)
    vector = layout(x.device, (weight or bias or x).dtype, (channels,))

    def run_forward(xa: Array, ma: Array, va: Array, wa: Array | None, ba: Array | None) -> Any:
        y = alloc(x)
        forward.call(y.ptr, xa.ptr, ma.ptr, va.ptr, address(wa), address(ba), batch, channels, inner, eps)
        return y, (xa, ma, va, wa)

    def run_backward(saved: Any, g: Array, needs: list[bool]) -> list[Array | None] | None:
        need_x, need_mean, need_var, need_w, need_b = needs
        if need_mean or need_var:
            return None                 # the definition computes the gradients of the statistics
        xa, ma, va, wa = saved
        gx = alloc(x) if need_x else None
        gw = alloc(vector) if need_w else None
        gb = alloc(vector) if need_b else None
        backward.call(address(gx), address(gw), address(gb), g.ptr, xa.ptr, ma.ptr, va.ptr, address(wa), batch,
                      channels, inner, eps)
        return [gx, None, None, gw, gb]
    return run_forward, run_backward


@batch_norm_eval.reference
def _batch_norm_eval_oracle(x: Any, running_mean: Any, running_var: Any, weight: Any, bias: Any, *,
                            eps: float = 1e-5) -> Any:
    shape = _channels(x)
    y = (x - running_mean.reshape(shape)) / np.sqrt(running_var.reshape(shape) + eps)
    return y * (1 if weight is None else weight.reshape(shape)) + (0 if bias is None else bias.reshape(shape))


@batch_norm_eval.samples
def _batch_norm_eval_samples(make: Any) -> Any:
    for shape in ((4, 33), (5, 3, 7), (2, 3, 5, 4), (1, 4), (0, 3)):
        c = shape[1]
        yield make(*shape), make(c), make(c, low=0.5, high=2), make(c), make(c)
    yield make(6, 5), make(5), make(5, low=0.5, high=2), None, None, {"eps": 0.1}


@batch_norm_eval.errors
def _batch_norm_eval_errors(make: Any) -> Any:
    yield (make(4, 3), make(3), make(2), None, None), RuntimeError, "running_var must have one value per channel"


def running_update(running: Tensor, batch: Tensor, momentum: float | Tensor, scale: float = 1.0,
                   count: Tensor | None = None, unbiased: bool = False) -> None:
    """Moves running statistics towards those of a batch, in place and outside the graph.

        running = (1 - momentum) running + momentum scale batch

    Shapes: running, batch and count (C,); momentum a number, or a tensor (C,) or (). `scale` makes a biased variance
    unbiased. With `count`, the values behind each statistic, those of fewer than two stay; `unbiased`: the scale is
    count / (count - 1).
    """
    x = running.layout
    statistic = x if x.dtype == FLOAT32 else unrounded(x, x.shape)
    if x.contiguous and batch.layout is statistic and not isinstance(momentum, Tensor):
        kernels = x.device.kernels
        kernel = (kernels.running_update if count is None else kernels.counted_update).get(x.dtype)
        if kernel is not None:
            rest = (x.size, float(momentum), scale) if count is None else (count.array.ptr, x.size, int(unbiased),
                                                                           float(momentum))
            kernel.call(running.array.ptr, batch.array.ptr, *rest)
            bump(running)
            return
    with no_grad():                             # the launch reads a momentum that is a tensor: so does replay
        if count is not None:
            momentum = cast(gt(count, 1.0), batch.dtype) * momentum
            batch = batch * (count / (count - 1).clamp(min=1)) if unbiased else batch
        running.add_((batch * scale - running) * momentum)


# ---- group and instance norm -----------------------------------------------------------------------------------------
@autocast_to_float32_on_gpu
@op(like_first=True)
def group_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, *, num_groups: int, eps: float = 1e-5) -> Tensor:
    """Group normalization (Wu and He 2018, eq. 7): per sample over space and each of `num_groups` groups of channels.

        y = (x - mean_ng) / sqrt(var_ng + eps) * weight_c + bias_c

    Shapes: x (N, C, *), weight and bias (C,) or None -> y like x. `num_groups` divides C.
    """
    n = x.shape[0]
    grouped = reshape(x, (n, num_groups, x.numel() // (n * num_groups) if n else 0))
    grouped, unit, share = _in_range(grouped, (2,), eps)
    centered = sub(grouped, mean(grouped, 2, True))
    y = reshape(mul(centered, rsqrt(add(mean(mul(centered, centered), 2, True), share))), x.shape)
    return _affine(y, weight, bias, _channels(x))


@group_norm.check
def _group_norm_rule(x: Layout, weight: Layout | None, bias: Layout | None, *, num_groups: int,
                     eps: float = 1e-5) -> None:
    _channel_rule("group_norm", x, weight=weight, bias=bias)
    if num_groups < 1 or x.shape[1] % num_groups:
        fail("group_norm", "num_groups must divide the channels (dimension 1)", [f"x {x}", f"num_groups {num_groups}"])


@group_norm.fused
def _group_norm_kernels(kernels: KernelTable, x: Layout, weight: Layout | None, bias: Layout | None, *, num_groups: int,
                        eps: float = 1e-5) -> Any:
    forward, backward = _kernels_for("group_norm", kernels, x, weight, bias)
    batch, channels, inner = _batch_channels_inner(x)
    per_group = channels // num_groups
    vector = layout(x.device, (weight or bias or x).dtype, (channels,))
    statistic, partial = unrounded(x, (batch * num_groups,)), unrounded(x, (2 * batch * channels,))

    def run_forward(xa: Array, wa: Array | None, ba: Array | None) -> Any:
        y, mu, rstd = alloc(x), alloc(statistic), alloc(statistic)
        forward.call(y.ptr, mu.ptr, rstd.ptr, xa.ptr, address(wa), address(ba),
                     batch, num_groups, per_group, inner, eps)
        return y, (xa, mu, rstd, wa)

    def run_backward(saved: Any, g: Array, needs: list[bool]) -> list[Array | None]:
        xa, mu, rstd, wa = saved
        need_x, need_w, need_b = needs
        gx = alloc(x) if need_x else None
        gw = alloc(vector) if need_w else None
        gb = alloc(vector) if need_b else None
        scratch = alloc(partial)
        backward.call(address(gx), address(gw), address(gb), scratch.ptr, g.ptr, xa.ptr, mu.ptr, rstd.ptr, address(wa),
                      batch, num_groups, per_group, inner)
        return [gx, gw, gb]
    return run_forward, run_backward


@group_norm.reference
def _group_norm_oracle(x: Any, weight: Any, bias: Any, *, num_groups: int, eps: float = 1e-5) -> Any:
    grouped = x.reshape(x.shape[0], num_groups, -1) if x.size else x.reshape(x.shape[0], num_groups, 0)
    y = ((grouped - grouped.mean(2, keepdims=True)) / np.sqrt(grouped.var(2, keepdims=True) + eps)).reshape(x.shape)
    shape = _channels(x)
    return y * (1 if weight is None else weight.reshape(shape)) + (0 if bias is None else bias.reshape(shape))


@group_norm.samples
def _group_norm_samples(make: Any) -> Any:
    for shape, groups in (((3, 6), 2), ((2, 4, 5), 4), ((2, 6, 3, 5), 3), ((2, 33, 2), 1), ((1, 32, 31), 8),
                          ((2, 4, 1, 2, 2), 2)):
        yield make(*shape), make(shape[1]), make(shape[1]), {"num_groups": groups}
    yield make(2, 4, 3), None, None, {"num_groups": 2, "eps": 0.1}
    yield make(2, 4, 16, low=9999, high=10001), make(4), make(4), {"num_groups": 2}


@group_norm.errors
def _group_norm_errors(make: Any) -> Any:
    yield (make(2, 6, 3), None, None, {"num_groups": 4}), RuntimeError, "num_groups must divide"
    yield (make(2, 6, 3), make(3), None, {"num_groups": 3}), RuntimeError, "one value per channel"


def instance_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, *, eps: float = 1e-5) -> Tensor:
    """Instance normalization (Ulyanov, Vedaldi and Lempitsky 2016): per sample and channel, over space.

        y = (x - mean_nc) / sqrt(var_nc + eps) * weight_c + bias_c

    Shapes: x (N, C, *), weight and bias (C,) or None -> y like x. It is `group_norm` with one channel in each group.
    """
    return group_norm(x, weight, bias, num_groups=x.shape[1], eps=eps)


# ---- masked norm: without the padding --------------------------------------------------------------------------------
@op(nondifferentiable=(1, 2, 3), like_first=True)
def valid_norm(x: Tensor, mask: Tensor, weight: Tensor | None, bias: Tensor | None, *, axes: tuple[int, ...],
               shape: tuple[int, ...], eps: float = 1e-5,
               centered: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalization over `axes`, with the elements where `mask` is true; y is 0 at the others, even where x is NaN.

        y = (x - mean) / sqrt(var + eps) * weight + bias,      mean and biased variance over the valid elements

    With `centered=False`, mean is 0. Where no element is valid, mean, var and y are 0.

    Shapes: x any, mask bool, broadcasts to x; weight and bias, or None, broadcast once they have `shape` -> y like x;
    mean, var and the number of valid elements, with size 1 along `axes`. Only y has a gradient.
    """
    mask = expand(mask, x.shape)
    count = total(cast(mask, x.dtype), axes, True)
    share = div(1.0, where(gt(count, 0.0), count, 1.0))
    kept, unit, eps_there = _in_range(where(mask, x, 0.0), axes, eps)
    mu = mul(total(kept, axes, True), share) if centered else mul(share, 0.0)
    if centered:
        kept = where(mask, sub(kept, mu), 0.0)
    var = mul(total(mul(kept, kept), axes, True), share)
    y = _affine(mul(kept, rsqrt(add(var, eps_there))), weight, bias, shape)
    if weight is not None or bias is not None:
        y = where(mask, y, 0.0)
    # detached: mean and var update running statistics, which are state and not part of the function
    return y, mul(mu, unit).detach(), mul(mul(var, unit), unit).detach(), count


@valid_norm.check
def _valid_norm_rule(x: Layout, mask: Layout, weight: Layout | None, bias: Layout | None, *, axes: tuple[int, ...],
                     shape: tuple[int, ...], eps: float = 1e-5, centered: bool = True) -> None:
    _float_input("valid_norm", x)

    def fits(sizes: tuple[int, ...]) -> bool:
        return len(sizes) == x.ndim and all([m in (1, n) for m, n in zip(sizes, x.shape, strict=True)])
    if mask.dtype != BOOL or not fits(mask.shape):
        fail("valid_norm", "mask must be bool and broadcast to x", [f"x {x}", f"mask {mask}"])
    for name, p in (("weight", weight), ("bias", bias)):
        if p is not None and not (fits(shape) and p.size == math.prod(shape)):
            fail("valid_norm", f"{name} must have the elements of `shape`, which must broadcast to x",
                 [f"x {x}", f"{name} {p}", f"shape {list(shape)}"])


def _around(shape: tuple[int, ...], inside: Sequence[bool]) -> tuple[int, int, int]:
    """The number of elements before, in and after the dimensions that are `inside`, neighbours but for sizes of 1.
    A kept size of 1 counts as one: the bits of a set do not depend on how many there are."""
    sizes, part = [1, 1, 1], 0
    for n, is_inside in zip(shape, inside, strict=True):
        part = 1 if is_inside else 2 if part else 0
        if part == 1 and n > 1 and sizes[2] > 1:
            raise NoKernel("the kernels take parameters, and dimensions that are kept, that are neighbours")
        sizes[part] *= n
    return sizes[0], sizes[1], sizes[2]


@valid_norm.fused
def _valid_norm_kernels(kernels: KernelTable, x: Layout, mask: Layout, weight: Layout | None, bias: Layout | None, *,
                        axes: tuple[int, ...], shape: tuple[int, ...], eps: float = 1e-5,
                        centered: bool = True) -> Any:
    forward, backward = _kernels_for("valid_norm", kernels, x, weight, bias)
    if mask.shape != x.shape:
        raise NoKernel("the kernels take a mask of the shape of x")
    axes = tuple([a % x.ndim for a in axes])
    batch, sets, n = _around(x.shape, [i not in axes for i in range(x.ndim)])
    if x.device.type == "cpu" and batch * n > 32:
        raise NoKernel("on the CPU the definition is faster, but for the smallest sets")     # by their size alone
    _, channels, each = _around(x.shape, [m > 1 for m in shape]) if weight or bias else (1, 1, 1)
    if n % each:
        raise NoKernel("the kernels take parameters that differ within what is normalized, or as it does")
    statistic = unrounded(x, tuple([1 if i in axes else size for i, size in enumerate(x.shape)]))
    sizes = batch, sets, n, each, channels, int(centered)

    def run_forward(xa: Array, ma: Array, wa: Array | None, ba: Array | None) -> Any:
        y, mean, var, rstd, count = alloc(x), *[alloc(statistic) for _ in range(4)]
        forward.call(y.ptr, mean.ptr, var.ptr, rstd.ptr, count.ptr, xa.ptr, ma.ptr, address(wa), address(ba), *sizes,
                     eps)
        return (y, mean, var, count), (xa, ma, mean, rstd, count, wa)

    def run_backward(saved: Any, gs: list, needs: list[bool]) -> list[Array | None]:
        xa, ma, mean, rstd, count, wa = saved
        need_x, _, need_w, need_b = needs
        gx = alloc(x) if need_x else None
        gw = alloc(weight) if need_w else None          # type: ignore[arg-type]
        gb = alloc(bias) if need_b else None            # type: ignore[arg-type]
        backward.call(address(gx), address(gw), address(gb), gs[0].ptr, xa.ptr, ma.ptr, mean.ptr, rstd.ptr, count.ptr,
                      address(wa), *sizes)
        return [gx, None, gw, gb]
    return run_forward, run_backward


@valid_norm.reference
def _valid_norm_oracle(x: Any, mask: Any, weight: Any, bias: Any, *, axes: tuple[int, ...], shape: tuple[int, ...],
                       eps: float = 1e-5, centered: bool = True) -> Any:
    valid = np.ma.array(x, mask=~np.broadcast_to(mask, x.shape))
    mu, count = valid.mean(axes, keepdims=True).filled(0), valid.count(axes, keepdims=True).astype(x.dtype)
    mu = mu if centered else mu * 0
    var = ((valid - mu) ** 2).mean(axes, keepdims=True).filled(0)
    y = (valid - mu) / np.sqrt(var + eps)
    y = y * (1 if weight is None else weight.reshape(shape)) + (0 if bias is None else bias.reshape(shape))
    return y.filled(0), mu, var, count


@valid_norm.samples
def _valid_norm_samples(make: Any) -> Any:
    yield make(3, 4, 7), make.bools(3, 4, 7), make(4), make(4), {"axes": (0, 2), "shape": (1, 4, 1)}
    yield make(3, 4, 7), make.bools(1, 4, 7), None, None, {"axes": (1, 2), "shape": (), "eps": 0.1}
    yield make(5, 33), make.bools(5, 33), make(33), None, {"axes": (1,), "shape": (1, 33), "centered": False}
    nothing = expand(cast(make.ints(2, 1, high=1), BOOL), (2, 31))
    yield make(2, 31), nothing, None, make(31), {"axes": (1,), "shape": (1, 31)}
    yield make(4, 64, low=9999, high=10001), make.bools(4, 64), None, None, {"axes": (1,), "shape": ()}
    yield make(2, 2, 20, 3), make.bools(2, 2, 20, 3), make(40), make(40), {"axes": (2, 3), "shape": (1, 2, 20, 1)}
    yield make(40, 3), make.bools(40, 3), make(3), make(3), {"axes": (0,), "shape": (1, 3)}


@valid_norm.errors
def _valid_norm_errors(make: Any) -> Any:
    x, one = make(2, 3), {"axes": (1,), "shape": (1, 3)}
    yield (x, make(2, 3), None, None, one), RuntimeError, r"bool and broadcast to x.*mask float\d+\[2, 3\]"
    yield (x, make.bools(3, 3), None, None, one), RuntimeError, r"mask bool\[3, 3\]"
    yield (x, make.bools(2, 3), make(2), None, one), RuntimeError, r"weight must have the elements.*\[2\].*\[1, 3\]"


# ---- launches on CUDA ------------------------------------------------------------------------------------------------

def _row_norm_rule(sums: int, *wanted: str) -> Rule:
    """`sums` sums of each column; a second launch adds the parts if one of the outputs named in `wanted` is wanted."""
    def rule(k: Any, host: Any) -> Sequence[Launch]:
        threads = native.norm_threads(k.n)
        first = Launch("", (native.norm_parts(k.rows, k.n) if k.n else 0,), (threads, native.norm_side(k.n)))
        add = Launch("columns", (ceil_div(k.n, 32), sums), (32, 16))
        return [first, add] if any(getattr(k, name) for name in wanted) else [first]
    return rule


def _channel_launches(k: Any, join: str) -> list[Launch]:
    """Blocks for each channel, or for each 32, and segment of it; if there are several segments, then `join`."""
    segments = native.channel_segments(k.batch, k.channels, k.inner)
    grid = (k.channels if k.inner >= 32 else ceil_div(k.channels, 32)) if k.batch * k.inner else 0, segments
    first = Launch("", grid, (32, 16))
    return [first, Launch(join, grid, (32, 16))] if segments > 1 else [first]


def _eval_backward_rule(k: Any, host: Any) -> Sequence[Launch]:
    first, *join = _channel_launches(k, "join")
    return [first, *[one._replace(grid=one.grid[:1]) for one in join if k.gweight or k.gbias]]


def _sets(batch: int, sets: int, n: int, step: str = "") -> Launch:
    """Blocks for each set of [batch, sets, n], or for each 32."""
    return Launch(step, (sets if n >= 32 else ceil_div(sets, 32),), (32, 16))


def _masked_backward_rule(k: Any, host: Any) -> Sequence[Launch]:
    return [*([_sets(k.batch, k.sets, k.n)] if k.gx else []),
            *([_sets(1, k.channels, k.each, "channels")] if k.gweight or k.gbias else [])]


def _group_norm_backward_rule(k: Any, host: Any) -> Sequence[Launch]:
    rows = per_row(k.batch * k.groups, k.cpg * k.inner)
    return [rows, columns(k.groups * k.cpg, "columns")] if k.gweight or k.gbias else [rows]


_launch = partial(launch, "ops/norm.cu", half=True, wide=True)
_launch("layer_norm_forward rms_norm_forward", lambda k, host: [per_row(k.rows, k.n)], shared=512)
_launch("layer_norm_backward", _row_norm_rule(2, "gweight", "gbias"), shared=36864)
_launch("rms_norm_backward", _row_norm_rule(1, "gweight"), shared=36864)
_launch("batch_norm_forward batch_norm_backward", lambda k, host: _channel_launches(k, "apply"), shared=4608)
_launch("batch_norm_eval_backward", _eval_backward_rule, shared=4608)
_launch("batch_norm_eval_forward", lambda k, host: [over(k.batch * k.channels * k.inner)])
_launch("running_update counted_update", lambda k, host: [over(k.n)], wide=False)
_launch("valid_norm_forward", lambda k, host: [_sets(k.batch, k.sets, k.n)], shared=9216)
_launch("valid_norm_backward", _masked_backward_rule, shared=4608)
_launch("group_norm_forward", lambda k, host: [per_row(k.batch * k.groups, k.cpg * k.inner)], shared=512)
_launch("group_norm_backward", _group_norm_backward_rule, shared=4608)


# `minigrad.layer_norm` and the like have PyTorch's arguments: nn/toplevel.py
METHODS: dict[str, Any] = {"layer_norm": layer_norm, "rms_norm": rms_norm, "batch_norm": batch_norm,
                           "group_norm": group_norm, "instance_norm": instance_norm}


# ---- work, for each element ------------------------------------------------------------------------------------------

def _standardised(k: Any) -> int:
    """The mean; difference, square, sum; difference, product with rstd; the product with weight, the sum with bias."""
    return 6 + bool(k.weight) + bool(k.bias)


def _standardised_backward(k: Any) -> int:
    """x_hat; two sums; what is subtracted from gx; the sums for gweight and gbias."""
    return 9 + bool(k.weight) + 2 * bool(k.gweight) + bool(k.gbias)


def _channel_elements(k: Any) -> int:
    elements: int = k.batch * k.channels * k.inner
    return elements


work("layer_norm_forward", lambda k: _standardised(k) * k.rows * k.n)
work("layer_norm_backward", lambda k: _standardised_backward(k) * k.rows * k.n)
work("batch_norm_forward", lambda k: _standardised(k) * _channel_elements(k))
work("batch_norm_backward", lambda k: _standardised_backward(k) * _channel_elements(k))
work("group_norm_forward", lambda k: _standardised(k) * k.batch * k.groups * k.cpg * k.inner)
work("group_norm_backward", lambda k: _standardised_backward(k) * k.batch * k.groups * k.cpg * k.inner)
work("rms_norm_forward", lambda k: (3 + bool(k.weight)) * k.rows * k.n)         # square, sum, product with rstd
work("rms_norm_backward", lambda k: (6 + bool(k.weight) + 2 * bool(k.gweight)) * k.rows * k.n)
work("batch_norm_eval_forward", lambda k: (2 + bool(k.weight) + bool(k.bias)) * _channel_elements(k))
work("batch_norm_eval_backward", lambda k: (1 + bool(k.weight) + 4 * bool(k.gweight) + bool(k.gbias))
     * _channel_elements(k))
work("valid_norm_forward", lambda k: _standardised(k) * k.batch * k.sets * k.n)
work("valid_norm_backward", lambda k: _standardised_backward(k) * k.batch * k.sets * k.n)
work("running_update counted_update", lambda k: 3 * k.n)
pieces("layer_norm_forward rms_norm_forward", "y", lambda k: k.rows * k.n)
pieces("batch_norm_forward batch_norm_eval_forward", "y", _channel_elements)
pieces("group_norm_forward", "y", lambda k: k.batch * k.groups * k.cpg * k.inner)
