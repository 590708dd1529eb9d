"""Pooling layers. The ops are `minigrad.ops.pool`; inputs are (N, C, *space) or (C, *space)."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from ..ops.pool import adaptive_avg_pool, adaptive_max_pool, avg_pool, max_pool
from ..shape import fail
from ..tensor import Tensor
from .arguments import Size, hashable, sizes_of
from .module import Module


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
    options = _pool_options(name, dims, hashable(kernel_size), hashable(stride), hashable(padding))
    return max_pool(input, **options, dilation=sizes_of(dilation, dims, name, "dilation"), ceil_mode=bool(ceil_mode))


def max_pool1d_with_indices(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
                            ceil_mode: bool = False, return_indices: bool = False) -> tuple[Tensor, Tensor]:
    """`max_pool1d` and where in the space the elements stand."""
    return _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool1d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element of each window of (N, C, L) or (C, L); the stride is the kernel's size if not given."""
    found = _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode)
    return found if return_indices else found[0]


def max_pool2d_with_indices(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
                            ceil_mode: bool = False, return_indices: bool = False) -> tuple[Tensor, Tensor]:
    """`max_pool2d` and where in the space the elements stand."""
    return _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element of each window of (N, C, H, W) or (C, H, W); the stride is the kernel's size if not given."""
    found = _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode)
    return found if return_indices else found[0]


def max_pool3d_with_indices(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
                            ceil_mode: bool = False, return_indices: bool = False) -> tuple[Tensor, Tensor]:
    """`max_pool3d` and where in the space the elements stand."""
    return _max_pool("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool3d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element of each window of (N, C, D, H, W) or (C, D, H, W); the stride is the kernel's size if not given."""
    found = _max_pool("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode)
    return found if return_indices else found[0]


def _avg_pool(name: str, dims: int, input: Tensor, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool,
              divisor_override: int | None) -> Tensor:
    _pooled(name, input, dims)
    options = _pool_options(name, dims, hashable(kernel_size), hashable(stride), hashable(padding))
    return avg_pool(input, **options, ceil_mode=bool(ceil_mode), count_include_pad=bool(count_include_pad),
                    divisor_override=divisor_override)


def avg_pool1d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
               count_include_pad: bool = True) -> Tensor:
    """The mean of each window of (N, C, L) or (C, L), the zeros of the padding counted or not."""
    return _avg_pool("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: int | None = None) -> Tensor:
    """The mean of each window of (N, C, H, W) or (C, H, W), padding counted or not; or the sum over `divisor_override`."""
    return _avg_pool("avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: int | None = None) -> Tensor:
    """The mean of each window of (N, C, D, H, W) or (C, D, H, W), padding counted or not; or the sum over `divisor_override`."""
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
    """The mean of each of `output_size` windows that share out the space of (N, C, L) or (C, L); None keeps a size."""
    return _adaptive(adaptive_avg_pool, "adaptive_avg_pool1d", 1, input, output_size, empty_channels=True)


def adaptive_max_pool1d_with_indices(input: Tensor, output_size: Any, return_indices: bool = False) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool1d` and where in the space the elements stand."""
    return _adaptive(adaptive_max_pool, "adaptive_max_pool1d", 1, input, output_size)


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The largest element of each of `output_size` windows that share out the space of (N, C, L) or (C, L); None keeps a size."""
    found = adaptive_max_pool1d_with_indices(input, output_size)
    return found if return_indices else found[0]


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """The mean of each of `output_size` windows that share out the space of (N, C, H, W) or (C, H, W); None keeps a size."""
    return _adaptive(adaptive_avg_pool, "adaptive_avg_pool2d", 2, input, output_size, empty_channels=True)


def adaptive_max_pool2d_with_indices(input: Tensor, output_size: Any, return_indices: bool = False) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool2d` and where in the space the elements stand."""
    return _adaptive(adaptive_max_pool, "adaptive_max_pool2d", 2, input, output_size)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The largest element of each of `output_size` windows that share out the space of (N, C, H, W) or (C, H, W); None keeps a size."""
    found = adaptive_max_pool2d_with_indices(input, output_size)
    return found if return_indices else found[0]


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """The mean of each of `output_size` windows that share out the space of the input; None keeps a size."""
    return _adaptive(adaptive_avg_pool, "adaptive_avg_pool3d", 3, input, output_size, empty_channels=True)


def adaptive_max_pool3d_with_indices(input: Tensor, output_size: Any, return_indices: bool = False) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool3d` and where in the space the elements stand."""
    return _adaptive(adaptive_max_pool, "adaptive_max_pool3d", 3, input, output_size)


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The largest element of each of `output_size` windows that share out the space of the input; None keeps a size."""
    found = adaptive_max_pool3d_with_indices(input, output_size)
    return found if return_indices else found[0]



class _MaxPool(Module):
    run: Callable[..., Any]

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, return_indices: bool = False,
                 ceil_mode: bool = False) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation, self.return_indices, self.ceil_mode = padding, dilation, return_indices, ceil_mode

    def forward(self, input: Tensor) -> Any:
        return self.run(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices)

    def extra_repr(self) -> str:
        return (f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
                f"ceil_mode={self.ceil_mode}")


class MaxPool1d(_MaxPool):
    """The largest element of each window of (N, C, L) or (C, L)."""

    run = staticmethod(max_pool1d)


class MaxPool2d(_MaxPool):
    """The largest element of each window of (N, C, H, W) or (C, H, W)."""

    run = staticmethod(max_pool2d)


class MaxPool3d(_MaxPool):
    """The largest element of each window of (N, C, D, H, W) or (C, D, H, W)."""

    run = staticmethod(max_pool3d)


class _AvgPool(Module):
    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """The mean of each window of (N, C, L) or (C, L)."""

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True) -> None:
        super().__init__()
        self.kernel_size = sizes_of(kernel_size, 1, "AvgPool1d", "kernel_size")
        self.padding = sizes_of(padding, 1, "AvgPool1d", "padding")
        self.stride = self.kernel_size if stride is None else sizes_of(stride, 1, "AvgPool1d", "stride")
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        return avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)


class _AvgPoolWide(_AvgPool):
    run: Callable[..., Tensor]

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True,
                 divisor_override: int | None = None) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding
        self.ceil_mode, self.count_include_pad, self.divisor_override = ceil_mode, count_include_pad, divisor_override

    def forward(self, input: Tensor) -> Tensor:
        return self.run(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad, self.divisor_override)


class AvgPool2d(_AvgPoolWide):
    """The mean of each window of (N, C, H, W) or (C, H, W)."""

    run = staticmethod(avg_pool2d)


class AvgPool3d(_AvgPoolWide):
    """The mean of each window of (N, C, D, H, W) or (C, D, H, W)."""

    run = staticmethod(avg_pool3d)


class _Adaptive(Module):
    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class _AdaptiveAvgPool(_Adaptive):
    run: Callable[..., Tensor]

    def forward(self, input: Tensor) -> Tensor:
        return self.run(input, self.output_size)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """(N, C, L) or (C, L) averaged to the length `output_size`."""

    run = staticmethod(adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """(N, C, H, W) or (C, H, W) averaged to the sizes `output_size`; None keeps one."""

    run = staticmethod(adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """(N, C, D, H, W) or (C, D, H, W) averaged to the sizes `output_size`; None keeps one."""

    run = staticmethod(adaptive_avg_pool3d)


class _AdaptiveMaxPool(_Adaptive):
    run: Callable[..., Any]

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        return self.run(input, self.output_size, self.return_indices)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The largest elements of `output_size` windows that share out (N, C, L) or (C, L)."""

    run = staticmethod(adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The largest elements of `output_size` windows that share out (N, C, H, W) or (C, H, W)."""

    run = staticmethod(adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """The largest elements of `output_size` windows that share out (N, C, D, H, W) or (C, D, H, W)."""

    run = staticmethod(adaptive_max_pool3d)
