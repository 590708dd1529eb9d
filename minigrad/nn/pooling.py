"""Pooling: the functions `max_pool1d` to `adaptive_max_pool3d`, then their layers. The kernels are in `ops/pool.py`.

Inputs are (N, C, *space), or (C, *space) without a batch; only the batch may be empty. An output size is

    (L + 2 padding - dilation (k - 1) - 1) // stride + 1,      rounded up with `ceil_mode`

The functions named `*_with_indices` also return where in the space each maximum was found, as int64 (H and W counted as
one number, h * W + w); so do the others with `return_indices=True`.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import index
from typing import Any

from ..core.half import rounds_once
from ..core.shape import INT64, fail, is_float
from ..core.tensor import Tensor
from ..ops.activation import relu
from ..ops.math import abs, div, eq, ge, mul, neg, pow, sign, where
from ..ops.pool import adaptive_avg_pool, adaptive_max_pool, avg_pool, max_pool
from ..ops.reduce import amin, unit_of
from ..ops.take import checked
from .arguments import Size, hashable, sizes_of
from .module import Module

OutputSize = int | None | Sequence[int | None]  # None: the size of the input


def _check_space(name: str, input: Tensor, dims: int, empty_channels: bool = False,
                 few: type[Exception] = RuntimeError) -> None:
    """Raises unless the input has `dims` spatial dimensions, channels and perhaps a batch (only it may be empty); `few`
    where it has too few."""
    first = input.ndim - dims - (0 if empty_channels else 1)
    if input.ndim not in (dims + 1, dims + 2) or not all(input.shape[first:]):
        fail(name, f"the input must have {dims + 2} dimensions, or {dims + 1} without a batch, "
             "and only the batch may be empty", input.layout, kind=few if input.ndim <= dims else RuntimeError)


@lru_cache(maxsize=1024, typed=True)
def _pool_options(name: str, dims: int, kernel_size: Size, stride: Size | None, padding: Size) -> dict[str, Any]:
    """The options of a pooling as the op takes them, checked; remembered, since a layer repeats its call."""
    kernel = sizes_of(kernel_size, dims, name, "kernel_size")
    steps = kernel if stride is None or type(stride) is tuple and not stride else sizes_of(stride, dims, name, "stride")
    return {"kernel": kernel, "stride": steps, "padding": sizes_of(padding, dims, name, "padding")}


# ---- the largest element ----


def _max_pool(name: str, dims: int, input: Tensor, kernel_size: Size, stride: Size | None, padding: Size,
              dilation: Size, ceil_mode: bool) -> tuple[Tensor, Tensor]:
    """The largest elements and where they are, over `dims` spatial dimensions."""
    _check_space(name, input, dims)
    options = _pool_options(name, dims, hashable(kernel_size), hashable(stride), hashable(padding))
    return max_pool(input, **options, dilation=sizes_of(dilation, dims, name, "dilation"), ceil_mode=bool(ceil_mode))


def max_pool1d_with_indices(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
                            dilation: Size = 1, ceil_mode: bool = False,
                            return_indices: bool = False) -> tuple[Tensor, Tensor]:
    """`max_pool1d`, and where in the space each maximum was found."""
    return _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool1d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element of each window: (N, C, L) or (C, L) -> (N, C, L') or (C, L').

    `stride` is `kernel_size` if not given. `return_indices=True`: the pair of it and the indices.
    """
    found = _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode)
    return found if return_indices else found[0]


def max_pool2d_with_indices(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
                            dilation: Size = 1, ceil_mode: bool = False,
                            return_indices: bool = False) -> tuple[Tensor, Tensor]:
    """`max_pool2d`, and where in the space each maximum was found."""
    return _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element of each window: (N, C, H, W) or (C, H, W) -> (N, C, H', W') or (C, H', W').

    `stride` is `kernel_size` if not given. `return_indices=True`: the pair of it and the indices.
    """
    found = _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode)
    return found if return_indices else found[0]


def max_pool3d_with_indices(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
                            dilation: Size = 1, ceil_mode: bool = False,
                            return_indices: bool = False) -> tuple[Tensor, Tensor]:
    """`max_pool3d`, and where in the space each maximum was found."""
    return _max_pool("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool3d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element of each window: (N, C, D, H, W) or (C, D, H, W) -> (N, C, D', H', W') or (C, D', H', W').

    `stride` is `kernel_size` if not given. `return_indices=True`: the pair of it and the indices.
    """
    found = _max_pool("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode)
    return found if return_indices else found[0]


# ---- the mean ----


def _avg_pool(name: str, dims: int, input: Tensor, kernel_size: Size, stride: Size | None, padding: Size,
              ceil_mode: bool, count_include_pad: bool, divisor_override: int | None) -> Tensor:
    """The means over `dims` spatial dimensions."""
    _check_space(name, input, dims)
    options = _pool_options(name, dims, hashable(kernel_size), hashable(stride), hashable(padding))
    return avg_pool(input, **options, ceil_mode=bool(ceil_mode), count_include_pad=bool(count_include_pad),
                    divisor_override=divisor_override)


def avg_pool1d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
               count_include_pad: bool = True) -> Tensor:
    """The mean of each window: (N, C, L) or (C, L) -> (N, C, L') or (C, L').

    `count_include_pad`: do the zeros of the padding count as elements of a window?
    """
    return _avg_pool("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
               ceil_mode: bool = False, count_include_pad: bool = True,
               divisor_override: int | None = None) -> Tensor:
    """The mean of each window: (N, C, H, W) or (C, H, W) -> (N, C, H', W') or (C, H', W').

    `count_include_pad` as for `avg_pool1d`; `divisor_override` divides the sum instead of the number of elements.
    """
    return _avg_pool("avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad,
                     divisor_override)


def avg_pool3d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
               ceil_mode: bool = False, count_include_pad: bool = True,
               divisor_override: int | None = None) -> Tensor:
    """The mean of each window: (N, C, D, H, W) or (C, D, H, W) -> (N, C, D', H', W') or (C, D', H', W').

    `count_include_pad` as for `avg_pool1d`; `divisor_override` divides the sum instead of the number of elements.
    """
    return _avg_pool("avg_pool3d", 3, input, kernel_size, stride, padding, ceil_mode, count_include_pad,
                     divisor_override)


# ---- windows that share out the space ----


def _adaptive(op: Callable[..., Any], name: str, dims: int, input: Tensor, output_size: OutputSize,
              empty_channels: bool = False) -> Any:
    """Checks the input and the output size, and pools."""
    _check_space(name, input, dims, empty_channels, RuntimeError if dims == 1 else ValueError)      # as PyTorch has it
    if op is adaptive_avg_pool and not is_float(input.dtype):
        fail(name, "needs a floating-point tensor", input.array.layout, "convert with .float()", NotImplementedError)
    given = tuple(output_size) if isinstance(output_size, Sequence) else (output_size,) * dims
    if len(given) != dims:
        fail(name, f"output_size must be a whole number or {dims} of them", f"output_size {output_size}")
    space = input.shape[input.ndim - dims:]
    return op(input, output_size=tuple([n if m is None else index(m) for m, n in zip(given, space, strict=True)]))


def adaptive_avg_pool1d(input: Tensor, output_size: OutputSize) -> Tensor:
    """The mean of each of `output_size` windows that share out the space of (N, C, L) or (C, L).

    Window i of m over L elements is [floor(i L / m), ceil((i + 1) L / m)). None keeps a size.
    """
    return _adaptive(adaptive_avg_pool, "adaptive_avg_pool1d", 1, input, output_size, empty_channels=True)


def adaptive_avg_pool2d(input: Tensor, output_size: OutputSize) -> Tensor:
    """The mean of each of `output_size` windows that share out the space of (N, C, H, W) or (C, H, W).

    Window i of m over L elements is [floor(i L / m), ceil((i + 1) L / m)). None keeps a size.
    """
    return _adaptive(adaptive_avg_pool, "adaptive_avg_pool2d", 2, input, output_size, empty_channels=True)


def adaptive_avg_pool3d(input: Tensor, output_size: OutputSize) -> Tensor:
    """The mean of each of `output_size` windows that share out the space of (N, C, D, H, W) or (C, D, H, W).

    Window i of m over L elements is [floor(i L / m), ceil((i + 1) L / m)). None keeps a size.
    """
    return _adaptive(adaptive_avg_pool, "adaptive_avg_pool3d", 3, input, output_size, empty_channels=True)


def adaptive_max_pool1d_with_indices(input: Tensor, output_size: OutputSize,
                                     return_indices: bool = False) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool1d`, and where in the space each maximum was found."""
    return _adaptive(adaptive_max_pool, "adaptive_max_pool1d", 1, input, output_size)


def adaptive_max_pool1d(input: Tensor, output_size: OutputSize, return_indices: bool = False) -> Any:
    """The largest element of each of `output_size` windows that share out the space of (N, C, L) or (C, L).

    Windows as for `adaptive_avg_pool1d`. `return_indices=True`: the pair of it and the indices.
    """
    found = _adaptive(adaptive_max_pool, "adaptive_max_pool1d", 1, input, output_size)
    return found if return_indices else found[0]


def adaptive_max_pool2d_with_indices(input: Tensor, output_size: OutputSize,
                                     return_indices: bool = False) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool2d`, and where in the space each maximum was found."""
    return _adaptive(adaptive_max_pool, "adaptive_max_pool2d", 2, input, output_size)


def adaptive_max_pool2d(input: Tensor, output_size: OutputSize, return_indices: bool = False) -> Any:
    """The largest element of each of `output_size` windows that share out the space of (N, C, H, W) or (C, H, W).

    Windows as for `adaptive_avg_pool2d`. `return_indices=True`: the pair of it and the indices.
    """
    found = _adaptive(adaptive_max_pool, "adaptive_max_pool2d", 2, input, output_size)
    return found if return_indices else found[0]


def adaptive_max_pool3d_with_indices(input: Tensor, output_size: OutputSize,
                                     return_indices: bool = False) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool3d`, and where in the space each maximum was found."""
    return _adaptive(adaptive_max_pool, "adaptive_max_pool3d", 3, input, output_size)


def adaptive_max_pool3d(input: Tensor, output_size: OutputSize, return_indices: bool = False) -> Any:
    """The largest element of each of `output_size` windows that share out the space of (N, C, D, H, W) or (C, D, H, W).

    Windows as for `adaptive_avg_pool3d`. `return_indices=True`: the pair of it and the indices.
    """
    found = _adaptive(adaptive_max_pool, "adaptive_max_pool3d", 3, input, output_size)
    return found if return_indices else found[0]


# ---- layers ----


class _MaxPool(Module):
    """What the three layers share."""

    run: Callable[..., Any]                     # the function of the layer

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
                 return_indices: bool = False, ceil_mode: bool = False) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, input: Tensor) -> Any:
        """(N, C, *space) -> (N, C, *space'), or both without N; `return_indices`: the pair with the indices."""
        return self.run(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode,
                        self.return_indices)

    def extra_repr(self) -> str:
        return (f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
                f"dilation={self.dilation}, ceil_mode={self.ceil_mode}")


class MaxPool1d(_MaxPool):
    """The largest element of each window: (N, C, L) or (C, L) -> (N, C, L') or (C, L')."""

    run = staticmethod(max_pool1d)


class MaxPool2d(_MaxPool):
    """The largest element of each window: (N, C, H, W) or (C, H, W) -> (N, C, H', W') or (C, H', W')."""

    run = staticmethod(max_pool2d)


class MaxPool3d(_MaxPool):
    """The largest element of each window: (N, C, D, H, W) or (C, D, H, W) -> (N, C, D', H', W') or (C, D', H', W')."""

    run = staticmethod(max_pool3d)


class _AvgPool(Module):
    """What the three layers share."""

    kernel_size: Size
    stride: Size
    padding: Size

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """The mean of each window: (N, C, L) or (C, L) -> (N, C, L') or (C, L')."""

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True) -> None:
        super().__init__()
        self.kernel_size = sizes_of(kernel_size, 1, "AvgPool1d", "kernel_size")
        self.padding = sizes_of(padding, 1, "AvgPool1d", "padding")
        self.stride = self.kernel_size if stride is None else sizes_of(stride, 1, "AvgPool1d", "stride")
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, L) -> (N, C, L'), or both without N."""
        return avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)


class _AvgPoolWide(_AvgPool):
    """The layers with two and three spatial dimensions, which have one option more."""

    run: Callable[..., Tensor]                  # the function of the layer

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True, divisor_override: int | None = None) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *space) -> (N, C, *space'), or both without N."""
        return self.run(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad,
                        self.divisor_override)


class AvgPool2d(_AvgPoolWide):
    """The mean of each window: (N, C, H, W) or (C, H, W) -> (N, C, H', W') or (C, H', W')."""

    run = staticmethod(avg_pool2d)


class AvgPool3d(_AvgPoolWide):
    """The mean of each window: (N, C, D, H, W) or (C, D, H, W) -> (N, C, D', H', W') or (C, D', H', W')."""

    run = staticmethod(avg_pool3d)


class _Adaptive(Module):
    """What the six adaptive layers share: the option `output_size`, where None keeps a size."""

    run: Callable[..., Any]                     # the function of the layer

    def __init__(self, output_size: OutputSize) -> None:
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class _AdaptiveAvgPool(_Adaptive):
    """What the three layers share."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *space) -> (N, C, *output_size), or both without N."""
        return self.run(input, self.output_size)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """The mean of each of `output_size` windows that share out the space of (N, C, L) or (C, L)."""

    run = staticmethod(adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """The mean of each of `output_size` windows that share out the space of (N, C, H, W) or (C, H, W)."""

    run = staticmethod(adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """The mean of each of `output_size` windows that share out the space of (N, C, D, H, W) or (C, D, H, W)."""

    run = staticmethod(adaptive_avg_pool3d)


class _AdaptiveMaxPool(_Adaptive):
    """What the three layers share."""

    def __init__(self, output_size: OutputSize, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        """(N, C, *space) -> (N, C, *output_size), or both without N; with `return_indices` the pair."""
        return self.run(input, self.output_size, self.return_indices)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The largest element of each of `output_size` windows that share out the space of (N, C, L) or (C, L)."""

    run = staticmethod(adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The largest element of each of `output_size` windows that share out the space of (N, C, H, W) or (C, H, W)."""

    run = staticmethod(adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """The largest element of each of `output_size` windows that share out the space of (N, C, D, H, W)."""

    run = staticmethod(adaptive_max_pool3d)


# ---- back to where maxima came from ----


def _max_unpool(dims: int, input: Tensor, indices: Tensor, kernel_size: Size, stride: Size | None, padding: Size,
                output_size: Sequence[int] | None) -> Tensor:
    """The values of `input` at the places `indices` of a larger tensor of zeros."""
    name = f"max_unpool{dims}d"
    if input.ndim not in (dims + 1, dims + 2) or indices.shape != input.shape or indices.dtype != INT64:
        fail(name, f"input must have {dims + 1} or {dims + 2} dimensions, and indices be int64 of the same shape",
             [input.layout, indices.layout])
    kernel = sizes_of(kernel_size, dims, name, "kernel_size")
    step = kernel if stride is None else sizes_of(stride, dims, name, "stride")
    around = sizes_of(padding, dims, name, "padding")
    lead = input.shape[:input.ndim - dims]
    usual = [(n - 1) * s - 2 * p + k for n, s, p, k in zip(input.shape[-dims:], step, around, kernel, strict=True)]
    wanted = usual if output_size is None else list(output_size)[-dims:]
    if output_size is not None and (len(output_size) not in (dims, input.ndim) or any(
            not -s < a - b < s for a, b, s in zip(wanted, usual, step, strict=False))):
        raise ValueError(f"[{name}] output_size must have {dims} numbers, each less than the stride from {usual}; "
                         f"got {list(output_size)}")
    count = math.prod(wanted)
    place = checked(name, indices.flatten(-dims), count, -1, wrap=False, kind=RuntimeError)
    nothing = input.new_zeros((*lead, count))
    return nothing.scatter(-1, place, input.flatten(-dims)).reshape(*lead, *wanted)


def max_unpool1d(input: Tensor, indices: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
                 output_size: Sequence[int] | None = None) -> Tensor:
    """The inverse of `max_pool1d` at the maxima, with zeros elsewhere: input and indices (N, C, L) or (C, L), as
    `max_pool1d_with_indices` gives them -> (N, C, L'). `output_size` says which length is meant of those that a stride
    leaves open. RuntimeError for an index that is outside, ValueError for a size that does not fit."""
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(input: Tensor, indices: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
                 output_size: Sequence[int] | None = None) -> Tensor:
    """As `max_unpool1d`, for (N, C, H, W) or (C, H, W)."""
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(input: Tensor, indices: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
                 output_size: Sequence[int] | None = None) -> Tensor:
    """As `max_unpool1d`, for (N, C, D, H, W) or (C, D, H, W)."""
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)


class _MaxUnpool(Module):
    """What the three layers share."""

    _dims = 1

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        super().__init__()
        name = type(self).__name__
        self.kernel_size = sizes_of(kernel_size, self._dims, name, "kernel_size")
        self.stride = self.kernel_size if stride is None else sizes_of(stride, self._dims, name, "stride")
        self.padding = sizes_of(padding, self._dims, name, "padding")

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(N, C, *space), indices of the same shape -> (N, C, *space'), or all without N."""
        return _max_unpool(self._dims, input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """The inverse of `MaxPool1d` at the maxima, with zeros elsewhere: (N, C, L) -> (N, C, L'), or both without N."""


class MaxUnpool2d(_MaxUnpool):
    """The inverse of `MaxPool2d` at the maxima, with zeros elsewhere: (N, C, H, W) -> (N, C, H', W'), or without N."""

    _dims = 2


class MaxUnpool3d(_MaxUnpool):
    """The inverse of `MaxPool3d` at the maxima, with zeros elsewhere: (N, C, D, H, W) -> (N, C, D', H', W'), or without
    N."""

    _dims = 3


# ---- power means ----


def _unit(input: Tensor, norm_type: float) -> Tensor:
    """What all elements can be divided by so that powers of the large ones stay in range, and of the small ones, too:
    these may be all that is in another window. Else 1."""
    size, every = abs(input.detach()), tuple(range(input.ndim))
    unit = unit_of(input, every)
    least = div(amin(where(eq(size, 0), float("inf"), size), every, True), unit)
    return where(ge(least, 2.0 ** (-100 / math.fabs(norm_type))), unit, 1.0)


@rounds_once
def _lp_pool(dims: int, input: Tensor, norm_type: float, kernel_size: Size, stride: Size | None,
             ceil_mode: bool) -> Tensor:
    """(sum of x^p over each window)^(1 / p); the maximum or minimum of |x| for p = inf or -inf."""
    largest, mean = (max_pool1d, max_pool2d, max_pool3d)[dims - 1], (avg_pool1d, avg_pool2d, avg_pool3d)[dims - 1]
    if norm_type in (float("inf"), -float("inf")):
        size = abs(input)
        return largest(size, kernel_size, stride, 0, 1, ceil_mode) if norm_type > 0 else \
            neg(largest(neg(size), kernel_size, stride, 0, 1, ceil_mode))
    unit = _unit(input, norm_type) if is_float(input.dtype) and input.numel() else 1.0
    found = mean(pow(div(input, unit), norm_type), kernel_size, stride, 0, ceil_mode)
    count = 1
    for n in sizes_of(kernel_size, dims, f"lp_pool{dims}d", "kernel_size"):
        count *= n
    return mul(pow(sign(found) * relu(abs(found)) * count, 1.0 / norm_type), unit)


def lp_pool1d(input: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None,
              ceil_mode: bool = False) -> Tensor:
    """(sum of x^p over each window)^(1 / p), p = `norm_type`: (N, C, L) -> (N, C, L'), or without N."""
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(input: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None,
              ceil_mode: bool = False) -> Tensor:
    """(sum of x^p over each window)^(1 / p), p = `norm_type`: (N, C, H, W) -> (N, C, H', W'), or without N."""
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(input: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None,
              ceil_mode: bool = False) -> Tensor:
    """(sum of x^p over each window)^(1 / p), p = `norm_type`: (N, C, D, H, W) -> (N, C, D', H', W'), or without N."""
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


class _LPPool(Module):
    """What the three layers share."""

    _dims = 1

    def __init__(self, norm_type: float, kernel_size: Size, stride: Size | None = None,
                 ceil_mode: bool = False) -> None:
        super().__init__()
        self.norm_type, self.kernel_size, self.stride, self.ceil_mode = norm_type, kernel_size, stride, ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *space) -> (N, C, *space'), or both without N."""
        return _lp_pool(self._dims, input, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
                f"ceil_mode={self.ceil_mode}")


class LPPool1d(_LPPool):
    """(sum of x^p over each window)^(1 / p): (N, C, L) -> (N, C, L'), or both without N."""


class LPPool2d(_LPPool):
    """(sum of x^p over each window)^(1 / p): (N, C, H, W) -> (N, C, H', W'), or both without N."""

    _dims = 2


class LPPool3d(_LPPool):
    """(sum of x^p over each window)^(1 / p): (N, C, D, H, W) -> (N, C, D', H', W'), or both without N."""

    _dims = 3
