"""Convolution layers: ``Conv1d-3d`` and ``ConvTranspose1d-3d``. The ops are ``minigrad.ops.conv``."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from minigrad.ops.creation import empty

from ..core.shape import fail
from ..core.tensor import Tensor
from . import functional as F
from . import init
from .module import Module, Parameter

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
        self.kernel_size, self.stride = F.sizes_of(kernel_size, n, kind, "kernel_size"), F.sizes_of(stride, n, kind, "stride")
        self.dilation = F.sizes_of(dilation, n, kind, "dilation")
        self.output_padding = F.sizes_of(output_padding, n, kind, "output_padding")
        self.padding = padding if isinstance(padding, str) else F.sizes_of(padding, n, kind, "padding")
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
        self._around: list[int] = []            # F.pad's amounts, from the last dimension on
        for i in reversed(range(self.dims)):
            total = self.dilation[i] * (self.kernel_size[i] - 1) if padding == "same" else 0 if padding == "valid" else 2 * self.padding[i]
            self._around += [total // 2, total - total // 2]

    def forward(self, input: Tensor) -> Tensor:
        if self.padding_mode == "zeros":
            return self.run(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return self.run(F.pad(input, self._around, self.padding_mode), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Conv1d(_Convolution):
    """Cross-correlation: (N, C, L) or (C, L) -> (N, out_channels, L') or (out_channels, L')."""

    dims = 1
    run = staticmethod(F.conv1d)


class Conv2d(_Convolution):
    """Cross-correlation: (N, C, H, W) or (C, H, W) -> (N, out_channels, H', W') or (out_channels, H', W')."""

    dims = 2
    run = staticmethod(F.conv2d)


class Conv3d(_Convolution):
    """Cross-correlation: (N, C, D, H, W) or (C, D, H, W) -> (N, out_channels, D', H', W') or (out_channels, D', H', W')."""

    dims = 3
    run = staticmethod(F.conv3d)


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
    """The transpose of ``Conv1d``: (N, C, L) or (C, L) -> (N, out_channels, L') or (out_channels, L')."""

    dims = 1
    run = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_Transposed):
    """The transpose of ``Conv2d``: (N, C, H, W) or (C, H, W) -> (N, out_channels, H', W') or (out_channels, H', W')."""

    dims = 2
    run = staticmethod(F.conv_transpose2d)


class ConvTranspose3d(_Transposed):
    """The transpose of ``Conv3d``: (N, C, D, H, W) or (C, D, H, W) -> (N, out_channels, D', H', W') or (out_channels, D', H', W')."""

    dims = 3
    run = staticmethod(F.conv_transpose3d)
