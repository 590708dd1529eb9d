"""Convolution layers: `Conv1d-3d` and `ConvTranspose1d-3d`. The ops are `minigrad.ops.conv`."""
from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ..ops.conv import convolution, convolution_transpose
from ..ops.creation import empty
from ..ops.shape_ops import pad
from ..shape import fail
from ..tensor import Tensor
from . import init
from .arguments import Size, hashable, sizes_of
from .module import Module, Parameter


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
    options = _conv_options(name, dims, tuple(weight.shape[2:]), hashable(stride), hashable(padding), hashable(dilation), groups)
    y = convolution(_batched(name, input, weight, dims), weight, bias, **options)
    return y if input.ndim == dims + 2 else y.squeeze(0)


@lru_cache(maxsize=1024)
def _transpose_options(name: str, dims: int, stride: Any, padding: Any, output_padding: Any, groups: int, dilation: Any) -> dict[str, Any]:
    return {"stride": sizes_of(stride, dims, name, "stride"), "padding": sizes_of(padding, dims, name, "padding"),
            "output_padding": sizes_of(output_padding, dims, name, "output_padding"),
            "dilation": sizes_of(dilation, dims, name, "dilation"), "groups": groups}


def _conv_transpose(name: str, dims: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any,
                    output_padding: Any, groups: int, dilation: Any) -> Tensor:
    options = _transpose_options(name, dims, hashable(stride), hashable(padding), hashable(output_padding), groups, hashable(dilation))
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
    """The transpose of `conv1d`: (N, C, L) or (C, L) with weight (C, out / groups, k)."""
    return _conv_transpose("conv_transpose1d", 1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
                     output_padding: Size = 0, groups: int = 1, dilation: Size = 1) -> Tensor:
    """The transpose of `conv2d`: (N, C, H, W) or (C, H, W) with weight (C, out / groups, kH, kW)."""
    return _conv_transpose("conv_transpose2d", 2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
                     output_padding: Size = 0, groups: int = 1, dilation: Size = 1) -> Tensor:
    """The transpose of `conv3d`: (N, C, D, H, W) or (C, D, H, W) with weight (C, out / groups, kD, kH, kW)."""
    return _conv_transpose("conv_transpose3d", 3, input, weight, bias, stride, padding, output_padding, groups, dilation)


_MODES = ("zeros", "reflect", "replicate", "circular")


class _Conv(Module):
    """What all have: weight and bias start in U(-k, k), k = 1 / sqrt(channels of a group * kernel elements)."""

    dims: int
    transposed = False
    padding: Any
    bias: Parameter | None

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any, output_padding: Any,
                 groups: int, bias: bool, padding_mode: str, device: Any, dtype: Any) -> None:
        super().__init__()
        kind, n = type(self).__name__, self.dims
        if groups <= 0:
            fail(kind, "groups must be a positive integer", groups, kind=ValueError)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                fail(kind, f"{name} must be divisible by groups", [f"{name} {channels}", f"groups {groups}"], kind=ValueError)
        self.in_channels, self.out_channels, self.groups, self.padding_mode = in_channels, out_channels, groups, padding_mode
        self.kernel_size, self.stride = sizes_of(kernel_size, n, kind, "kernel_size"), sizes_of(stride, n, kind, "stride")
        self.dilation = sizes_of(dilation, n, kind, "dilation")
        self.output_padding = sizes_of(output_padding, n, kind, "output_padding")
        self.padding = padding if isinstance(padding, str) else sizes_of(padding, n, kind, "padding")
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                fail(kind, "padding must be numbers, 'same' or 'valid'", repr(padding), kind=ValueError)
            if padding == "same" and any(s != 1 for s in self.stride):
                fail(kind, "padding='same' is for stride 1, not for strided convolutions", f"stride {list(self.stride)}",
                     "give the padding in numbers", ValueError)
        if padding_mode not in _MODES:
            fail(kind, f"padding_mode must be one of {', '.join(_MODES)}", repr(padding_mode), kind=ValueError)
        shape = (in_channels, out_channels // groups) if self.transposed else (out_channels, in_channels // groups)
        self.weight = Parameter(empty((*shape, *self.kernel_size), device=device, dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_channels, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = math.prod(self.weight.shape[1:])
            bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        for name, usual in (("padding", 0), ("dilation", 1), ("output_padding", 0)):
            value = getattr(self, name)
            if value != (usual,) * len(value):
                text += f", {name}={value}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        return text if self.padding_mode == "zeros" else text + f", padding_mode={self.padding_mode}"


class _Convolution(_Conv):
    run: Callable[..., Tensor]

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
                 groups: int = 1, bias: bool = True, padding_mode: str = "zeros", device: Any = None, dtype: Any = None) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, 0, groups, bias, padding_mode, device, dtype)
        self._around: list[int] = []            # pad's amounts, from the last dimension on
        for i in reversed(range(self.dims)):
            total = self.dilation[i] * (self.kernel_size[i] - 1) if padding == "same" else 0 if padding == "valid" else 2 * self.padding[i]
            self._around += [total // 2, total - total // 2]

    def forward(self, input: Tensor) -> Tensor:
        if self.padding_mode == "zeros":
            return self.run(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return self.run(pad(input, self._around, self.padding_mode), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Conv1d(_Convolution):
    """Cross-correlation: (N, C, L) or (C, L) -> (N, out_channels, L') or (out_channels, L')."""

    dims = 1
    run = staticmethod(conv1d)


class Conv2d(_Convolution):
    """Cross-correlation: (N, C, H, W) or (C, H, W) -> (N, out_channels, H', W') or (out_channels, H', W')."""

    dims = 2
    run = staticmethod(conv2d)


class Conv3d(_Convolution):
    """Cross-correlation: (N, C, D, H, W) or (C, D, H, W) -> (N, out_channels, D', H', W') or (out_channels, D', H', W')."""

    dims = 3
    run = staticmethod(conv3d)


class _Transposed(_Conv):
    transposed = True
    run: Callable[..., Tensor]

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
                 groups: int = 1, bias: bool = True, dilation: Any = 1, padding_mode: str = "zeros", device: Any = None,
                 dtype: Any = None) -> None:
        if padding_mode != "zeros":
            fail(type(self).__name__, "padding_mode must be 'zeros' for a transposed convolution", repr(padding_mode), kind=ValueError)
        if isinstance(padding, str):
            fail(type(self).__name__, "padding must be numbers", repr(padding), kind=TypeError)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding, groups, bias, padding_mode,
                         device, dtype)

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        extra = self.output_padding if output_size is None else self._extra(input, tuple(output_size))
        return self.run(input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation)

    def _extra(self, input: Tensor, output_size: tuple[int, ...]) -> tuple[int, ...]:
        """The output padding that gives `output_size` (of the space, or of all dimensions)."""
        lead = input.ndim - self.dims
        wanted = output_size[lead:] if len(output_size) == input.ndim else output_size
        if len(wanted) != self.dims:
            fail(type(self).__name__, f"output_size must have {self.dims} or {input.ndim} elements for this input",
                 [f"output_size {list(output_size)}", f"input {input.layout}"], kind=ValueError)
        least = [(n - 1) * s - 2 * p + d * (k - 1) + 1
                 for n, s, p, d, k in zip(input.shape[lead:], self.stride, self.padding, self.dilation, self.kernel_size, strict=True)]
        most = [n + s - 1 for n, s in zip(least, self.stride, strict=True)]
        if any(not a <= n <= b for a, n, b in zip(least, wanted, most, strict=True)):
            fail(type(self).__name__, f"output_size must be from {least} to {most} for this input",
                 [f"output_size {list(wanted)}", f"input {input.layout}"], kind=ValueError)
        return tuple([n - a for n, a in zip(wanted, least, strict=True)])


class ConvTranspose1d(_Transposed):
    """The transpose of `Conv1d`: (N, C, L) or (C, L) -> (N, out_channels, L') or (out_channels, L')."""

    dims = 1
    run = staticmethod(conv_transpose1d)


class ConvTranspose2d(_Transposed):
    """The transpose of `Conv2d`: (N, C, H, W) or (C, H, W) -> (N, out_channels, H', W') or (out_channels, H', W')."""

    dims = 2
    run = staticmethod(conv_transpose2d)


class ConvTranspose3d(_Transposed):
    """The transpose of `Conv3d`: (N, C, D, H, W) or (C, D, H, W) -> (N, out_channels, D', H', W') or (out_channels, D', H', W')."""

    dims = 3
    run = staticmethod(conv_transpose3d)
